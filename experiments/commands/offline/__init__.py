"""`hades offline`: collecting data, training teachers on them, and distilling from both."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from experiments.cli import launch_named

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
    return launch_named("hades offline", "a command", _SUMMARIES, arguments, _launch)


def _launch(name: str, arguments: Sequence[str]) -> int:
    return int(importlib.import_module(f"experiments.commands.offline.{name}").main(arguments))
