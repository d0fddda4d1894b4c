"""`hades offline`: teachers and datasets from offline data, each with a command of its own."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from experiments.cli import BadArgumentsError, usage

_SUMMARIES = {
    "teach": "train a near-expert policy and its action values on offline data, by Cal-QL",
}


def main(arguments: Sequence[str]) -> int:
    """Runs `hades offline NAME ...` and returns its exit code.

    Raises:
        BadArgumentsError: There is no command of that name.
    """
    if arguments and arguments[0] in ("-h", "--help"):
        print(usage("hades offline NAME", _SUMMARIES))
        return 0
    known = ", ".join(_SUMMARIES)
    if not arguments:
        raise BadArgumentsError(f"expected the name of a command, one of {known}")
    name, rest = arguments[0], arguments[1:]
    if name not in _SUMMARIES:
        raise BadArgumentsError(f"there is no command {name!r}, expected one of {known}")
    return int(importlib.import_module(f"experiments.offline.{name}").main(rest))
