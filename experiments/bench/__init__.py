"""`hades bench`: speed, memory and generalisation, each with a command of its own."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from experiments.cli import BadArgumentsError, usage

_SUMMARIES = {
    "budget": "what the number of synthetic pairs buys",
    "cal-ql": "Cal-QL against behaviour cloning on offline data of mixed quality",
    "cost": "compilation, time and memory of every method, and the price of one more policy",
    "generation": "one generation against the straightforward formulation: seconds and memory",
    "architectures": "policies of twelve architectures and optimisers, trained on one dataset file",
    "meta-gradient": "outer steps per second and memory of offline distillation at the published size",
    "neuroevolution": "HaDES, ES and PPO at equal environment steps and at equal time",
    "generalisation": "widths, depths, activations, optimisers, rates and budgets around those of dataset files",
    "offline": "DBC, PBC, Av-PBC and SDW on one offline dataset, several seeds at once",
    "ppo": "several seeds of PPO at once, in one compiled function",
    "presets": "several seeds of presets from start to finish, scored on fresh keys",
    "published": "the published presets at full size, for some minutes each",
    "teachers": "published teachers in real MuJoCo, beside the scores of their manifest",
    "transfer": "other architectures, optimisers and ensembles on the dataset files of several seeds",
}


def main(arguments: Sequence[str]) -> int:
    """Runs `hades bench NAME ...` and returns its exit code.

    Raises:
        BadArgumentsError: There is no benchmark of that name.
    """
    if arguments and arguments[0] in ("-h", "--help"):
        print(usage("hades bench NAME", _SUMMARIES))
        return 0
    known = ", ".join(_SUMMARIES)
    if not arguments:
        raise BadArgumentsError(f"expected the name of a benchmark, one of {known}")
    name, rest = arguments[0], arguments[1:]
    if name not in _SUMMARIES:
        raise BadArgumentsError(f"there is no benchmark {name!r}, expected one of {known}")
    return int(importlib.import_module(f"experiments.bench.{name.replace('-', '_')}").main(rest))
