"""`hades bench`: tables of speed, memory, generalisation and comparisons. A benchmark is a module of this package.

Its name in the command is that of its module, and the module's `BENCH` says what it takes, measures and prints; see
`experiments.bench._lib.base.Bench`.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from experiments.cli import launch_named

BENCHES = {
    "agreement": "what part of a policy its initialisation decides rather than the pairs",
    "architectures": "policies of twelve architectures and optimisers, trained on one dataset file",
    "budget": "return by the number of synthetic pairs, at equal environment steps",
    "cal-ql": "Cal-QL against behaviour cloning on offline data of mixed quality",
    "compile": "imports, tracing and compilation of short commands, with an empty cache and a full one",
    "cost": "compilation, time and memory of every method, and the price of one more policy",
    "export": "exported policies against ours, on observations of several environments",
    "generalisation": "widths, depths, activations, optimisers, rates and budgets around those of dataset files",
    "generation": "one generation against the straightforward formulation: seconds and memory",
    "iteration": "an iteration under several values of a setting: compilation, time and memory",
    "meta-gradient": "seconds and memory of an outer step of offline distillation at the published size",
    "neuroevolution": "HaDES, ES and PPO at equal environment steps and at equal time",
    "objectives": "whether the value of an offline objective predicts the score of a policy",
    "offline": "DBC, PBC, Av-PBC and SDW on one offline dataset, several seeds at once",
    "ppo": "several seeds of PPO at once, in one compiled function",
    "presets": "several seeds of presets from start to finish, scored on fresh keys",
    "published": "the published presets at full size, for some minutes each",
    "roofline": "the parts of an iteration beside the rates that the device reaches",
    "scaling": "an iteration over several devices: the same values, and what spreading costs",
    "teachers": "published teachers in real MuJoCo, beside the scores of their manifest",
    "throughput": "an iteration of several methods at small sizes, perhaps beside another checkout",
    "time-to-return": "seconds and environment steps until fresh policies return what is asked for",
    "transfer": "other architectures, optimisers and ensembles on the dataset files of several seeds",
}
"""Summaries by name, one line for each benchmark."""


def main(arguments: Sequence[str]) -> int:
    """Runs `hades bench NAME ...` and returns its exit code.

    Raises:
        BadArgumentsError: There is no benchmark of that name.
    """
    return launch_named("hades bench", "a benchmark", BENCHES, arguments, _launch)


def _launch(name: str, arguments: Sequence[str]) -> int:
    # Both import JAX, which the help does without.
    base = importlib.import_module("experiments.bench._lib.base")
    module = importlib.import_module(f"experiments.bench.{name.replace('-', '_')}")
    return int(base.launch(name, module.BENCH, arguments))
