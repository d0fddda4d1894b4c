"""`hades images`: distilling labelled images, and accuracies of networks that are trained on the outcome."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from experiments.cli import launch_named

_SUMMARIES = {
    "distill": "distil labelled images into a few, by evolution or by meta-gradients",
    "evaluate": "test and training accuracy of fresh networks, beside real images and class means",
}


def main(arguments: Sequence[str]) -> int:
    """Runs `hades images NAME ...` and returns its exit code.

    Raises:
        BadArgumentsError: There is no command of that name.
    """
    return launch_named("hades images", "a command", _SUMMARIES, arguments, _launch)


def _launch(name: str, arguments: Sequence[str]) -> int:
    return int(importlib.import_module(f"experiments.commands.images.{name}").main(arguments))
