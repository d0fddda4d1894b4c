"""Grid files for tests, on the cheapest run that there is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from experiments import running
from experiments.commands.distill import COMMAND
from experiments.launching.grid import Member
from hades._run_directory import RunDirectory
from hades._serialization import to_dict

FLAGS = """
[flags]
env = "diagnostic/match"
num-iterations = 2
generations-per-call = 2
dataset-size = 2
population-size = 8
statistics-episodes = 4
evaluate-every = "None"
cloning = {hidden-sizes = [4], num-steps = 3, learning-rate = 0.1}
"""
SEEDS = "[grid]\nseed = [0, 1]\n"


def write_grid(folder: Path, text: str = SEEDS, flags: str = FLAGS, top: str = "") -> Path:
    """Writes `grid.toml`, whose runs are in `runs/grid`."""
    path = folder / "grid.toml"
    path.write_text(top + flags + text)
    return path


def begin_run(member: Member) -> RunDirectory:
    """Makes the run directory of a member that has begun and done nothing yet."""
    directory = RunDirectory(member.out)
    directory.create({"command": "distill", **to_dict(running.resolve(COMMAND, member.arguments[1:]))})
    return directory


def table_states(lines: Sequence[str]) -> dict[str, str]:
    """States by run of a printed status."""
    rows = [line.split() for line in lines if line.startswith("  ")]
    return {row[0]: row[1] for row in rows if row[0] != "run"}
