"""`hades offline`: collecting data, teachers that are trained on them, and distilling from both."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from experiments.cli import BadArgumentsError, usage

_SUMMARIES = {
    "collect": "collect an offline dataset with teachers, policies, noise and random actions",
    "teach": "train a teacher on an offline dataset by calibrated Q-learning",
    "distill": "distil an offline dataset into a few state-action pairs by meta-gradients",
}


def main(arguments: Sequence[str]) -> int:
    """Runs `hades offline NAME ...` and returns its exit code.

    Raises:
        BadArgumentsError: There is no command of that name.
    """
    if arguments and arguments[0] in ("-h", "--help"):
        print(usage("hades offline NAME", _SUMMARIES))
        return 0
    if not arguments or arguments[0] not in _SUMMARIES:
        found = f", got {arguments[0]!r}" if arguments else ""
        raise BadArgumentsError(f"expected the name of a command, one of {', '.join(_SUMMARIES)}{found}")
    return int(importlib.import_module(f"experiments.offline.{arguments[0]}").main(arguments[1:]))
