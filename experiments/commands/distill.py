"""`hades distill`: from an environment's name to a dataset file, curves and pictures."""

from __future__ import annotations

from collections.abc import Sequence

from experiments import running
from experiments.settings import DistillSettings

COMMAND = running.Command("distill", DistillSettings)


def main(arguments: Sequence[str]) -> int:
    """Runs the verb and returns its exit code."""
    return running.launch(COMMAND, arguments)
