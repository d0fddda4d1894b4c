"""Learning curves of finished runs, as benchmarks and pictures read them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from hades._run_directory import RunDirectory


@dataclass(frozen=True)
class Curve:
    """Learning curve of a finished run.

    Attributes:
        env_steps: Environment steps of training up to each evaluation, `[evaluations]`.
        seconds: Seconds of training up to each evaluation, compilation and evaluation left out, `[evaluations]`.
        returns: Mean return on fresh keys of the run's outcome so far, `[evaluations]`.
        summary: Contents of `summary.json`.
        git_commit: Git commit of the source that ran, None where it is not known.
    """

    env_steps: np.ndarray
    seconds: np.ndarray
    returns: np.ndarray
    summary: Mapping[str, Any]
    git_commit: str | None = None

    def at(self, axis: Literal["env_steps", "seconds"], where: np.ndarray) -> np.ndarray:
        """Newest return at each place of an axis, that of untrained policies before the first evaluation."""
        index = np.searchsorted(getattr(self, axis), where, side="right") - 1
        return np.where(index >= 0, self.returns[np.maximum(index, 0)], self.untrained)

    def to_dict(self) -> dict[str, Any]:
        """The curve as results keep it, without the summary."""
        axes = {name: getattr(self, name).tolist() for name in ("env_steps", "seconds", "returns")}
        return {**axes, "git_commit": self.git_commit}

    @property
    def untrained(self) -> float:
        """Mean return of policies as they are initialised."""
        return float(self.summary["evaluations"]["untrained policy"]["mean"])


def read_curve(directory: RunDirectory) -> Curve:
    """Learning curve of a finished run."""
    rows = directory.read_metrics()
    # A row may be of several iterations.
    iterations = np.diff([row["iteration"] for row in rows], prepend=0)
    seconds = np.cumsum(iterations * np.array([row["seconds_per_iteration"] for row in rows]))
    evaluated = [index for index, row in enumerate(rows) if row.get("evaluation_mean") is not None]
    return Curve(
        np.array([rows[index]["total_env_steps"] for index in evaluated], float),
        seconds[evaluated],
        np.array([rows[index]["evaluation_mean"] for index in evaluated]),
        directory.read_summary(),
        directory.read_versions().get("git_commit"),
    )
