"""Running the `hades` command in this process, on the cheapest settings that there are."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

from experiments.checks import _runs
from experiments.cli import main
from hades._run_directory import RunDirectory

TINY_LOOP = ("--generations-per-call", "2", "--evaluate-every", "2", "--evaluation-inits", "2",
             "--evaluation-episodes", "2")  # fmt: skip
TINY = (
    "--env", "diagnostic/match", "--num-iterations", "4", "--dataset-size", "2", "--population-size", "8",
    "--statistics-episodes", "4", "--cloning.hidden-sizes", "4", "--cloning.num-steps", "3",
    "--cloning.learning-rate", "0.1", *TINY_LOOP,
)  # fmt: skip
"""A run of two compiled calls on `diagnostic/match`, each of them evaluated."""
TINY_GRADIENTS = (
    "--method", "hades-pg", "--env", "diagnostic/match", "--num-iterations", "4", "--dataset-size", "3", "--num-inits",
    "2", "--num-envs", "4", "--num-steps", "8", "--statistics-episodes", "4", "--critic.hidden-sizes", "4",
    "--cloning.hidden-sizes", "4", "--cloning.num-steps", "3", *TINY_LOOP,
)  # fmt: skip
"""The same by policy gradients."""
CONTRACT_FILES = {
    "config.json", "versions.json", "metrics.jsonl", "checkpoints", "dataset.npz", "best_dataset.npz", "curve.png",
    "dataset.png", "summary.json", "lock",
}  # fmt: skip


class Outcome(NamedTuple):
    """What a command left on the terminal."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one line of stdout as JSON."""
        (line,) = self.out.splitlines()
        return json.loads(line)

    @property
    def complaint(self) -> str:
        """The one line of stderr."""
        assert self.out == ""
        (line,) = self.err.splitlines()
        assert "Traceback" not in line
        return line

    @property
    def unboxed(self) -> str:
        """Stderr as one line, also where tyro has drawn a box around it; never a traceback."""
        assert self.out == ""
        assert "Traceback" not in self.err
        return " ".join("".join(" " if letter in "│╭╮╰╯─" else letter for letter in self.err).split())


def exit_code(*arguments: str | Path) -> int:
    """Runs a command; tyro ends the process by itself after --help and unknown flags."""
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)


def make_run(out: Path, *flags: str) -> Path:
    """Distils into `out`."""
    assert exit_code("distill", *TINY, "--out", out, *flags) == 0
    return out


BEFORE = Path(__file__).parents[1] / "data" / "before"
"""Run directories of version 0.1.0, see the README there."""


def unpack(name: str, folder: Path) -> Path:
    """Unpacks a run directory of version 0.1.0 into a folder, and returns its path."""
    with zipfile.ZipFile(BEFORE / f"{name}.zip") as archive:
        archive.extractall(folder)
    return folder / name


def rows_without_seconds(run: Path) -> list[dict[str, Any]]:
    """Metrics of a run but for the seconds in them."""
    return _runs.rows_without_seconds(RunDirectory(run))
