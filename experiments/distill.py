"""`hades distill`: from an environment's name to a dataset file, curves and pictures."""

from __future__ import annotations

from collections.abc import Sequence

from experiments import launch
from experiments.presets import preset
from experiments.settings import DistillSettings

COMMAND = launch.Command("distill", DistillSettings, preset)


def main(arguments: Sequence[str]) -> int:
    """Runs the verb and returns its exit code."""
    return launch.launch(COMMAND, arguments)
