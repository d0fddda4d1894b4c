"""`hades baseline es|ppo`: policies without a dataset, with run directory, pictures and resuming of `hades distill`."""

from __future__ import annotations

from collections.abc import Sequence

from experiments import running
from experiments.cli import launch_named
from experiments.settings import NeuroevolutionCommandSettings, PPOCommandSettings

COMMANDS = {
    "es": running.Command("baseline es", NeuroevolutionCommandSettings, divides_cpu=True),
    "ppo": running.Command(
        "baseline ppo",
        PPOCommandSettings,
        "environments (last episodes in training)",
        complete=running.on_one_device,
    ),
}
_SUMMARIES = {
    "es": "an evolution strategy on the policy's own parameters",
    "ppo": "proximal policy optimisation",
}


def main(arguments: Sequence[str]) -> int:
    """Runs the verb and returns its exit code.

    Raises:
        BadArgumentsError: There is no baseline of that name.
    """
    return launch_named(
        "hades baseline", "a baseline", _SUMMARIES, arguments, lambda name, rest: running.launch(COMMANDS[name], rest)
    )
