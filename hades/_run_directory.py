"""The folder that a run leaves behind: settings, versions, metrics, checkpoints and datasets."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from hades._files import naming, write_atomically
from hades._version import __version__

_PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "brax",
    "gymnax",
    "gymnasium",
    "evosax",
    "orbax-checkpoint",
    "mujoco",
    "numpy",
)


class RunDirectoryError(ValueError):
    """A run directory is not what it should be: one sentence that names the file and what was expected."""


class RunDirectory:
    """Paths and files of one run.

    Attributes:
        path: The folder.
        config: `config.json`, the fully resolved settings.
        metrics: `metrics.jsonl`, one JSON object a logged generation.
        checkpoints: Folder of the checkpoints.
        dataset: Of a distillation, the mean of the search distribution at the last logged generation.
        best_dataset: The best mean by fresh-key evaluation.
        policy: Of a baseline, the policy at the last logged generation.
        best_policy: The best policy by fresh-key evaluation.
        snapshots: Folder of what the run had made when it was evaluated, where it was asked to keep that.
        curve: Picture of the returns.
        dataset_picture: Picture of the best dataset.
        summary: `summary.json`, what the finished run returns.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Names the files; touches nothing."""
        self.path = Path(path)
        self.config = self.path / "config.json"
        self.versions = self.path / "versions.json"
        self.metrics = self.path / "metrics.jsonl"
        self.checkpoints = self.path / "checkpoints"
        self.dataset = self.path / "dataset.npz"
        self.best_dataset = self.path / "best_dataset.npz"
        self.policy = self.path / "policy.npz"
        self.best_policy = self.path / "best_policy.npz"
        self.snapshots = self.path / "snapshots"
        self.curve = self.path / "curve.png"
        self.dataset_picture = self.path / "dataset.png"
        self.summary = self.path / "summary.json"

    @property
    def holds_run(self) -> bool:
        """Whether a run was begun here."""
        return self.config.exists()

    def create(self, config: Mapping[str, Any]) -> None:
        """Makes the folder and writes settings and versions.

        Raises:
            OSError: The folder cannot be made or written.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        write_atomically(self.versions, _to_json(installed_versions()))
        # Written last: a folder with a config.json holds a run.
        write_atomically(self.config, _to_json(config))

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Replaces the settings of a run, when it goes on for longer than it was begun for."""
        write_atomically(self.config, _to_json(config))

    def snapshot(self, kind: str, generation: int) -> Path:
        """The snapshot of one generation, such as `snapshots/policy-000100.npz`."""
        return self.snapshots / f"{kind}-{generation:06d}.npz"

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Writes what the finished run returns."""
        write_atomically(self.summary, _to_json(summary))

    def read_config(self) -> dict[str, Any]:
        """The settings of the run.

        Raises:
            RunDirectoryError: There are none, or they are not JSON.
        """
        try:
            config = json.loads(self.config.read_text())
        except FileNotFoundError:
            raise RunDirectoryError(f"{self.path}: expected a run directory with a config.json, found none") from None
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise RunDirectoryError(f"{self.config}: expected JSON, got: {error}") from None
        if not isinstance(config, dict):
            raise RunDirectoryError(f"{self.config}: expected a JSON object, got a {type(config).__name__}")
        return config

    def append_metrics(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Adds rows to the metrics.

        Raises:
            OSError: They cannot be written.
        """
        with naming(self.metrics), self.metrics.open("a") as file:
            file.write("".join(json.dumps(row) + "\n" for row in rows))

    def read_metrics(self) -> list[dict[str, Any]]:
        """All whole rows of the metrics; a last line that an interrupted write cut short is passed over.

        Raises:
            RunDirectoryError: Another line is no JSON object with a generation.
        """
        if not self.metrics.exists():
            return []
        lines = self.metrics.read_text(errors="replace").splitlines(keepends=True)
        return [self._row(index + 1, line) for index, line in enumerate(lines) if line.endswith("\n")]

    def _row(self, number: int, line: str) -> dict[str, Any]:
        row = None
        with contextlib.suppress(ValueError):
            row = json.loads(line)
        if not isinstance(row, dict) or not isinstance(row.get("generation"), int):
            where = f"{self.metrics}: line {number}"
            raise RunDirectoryError(f"{where}: expected a JSON object with a generation, got {line.strip()!r:.60}")
        return row

    def truncate_metrics(self, generation: int) -> list[dict[str, Any]]:
        """Drops rows behind a generation, which a resumed run will write again, and returns the others."""
        rows = [row for row in self.read_metrics() if row["generation"] <= generation]
        write_atomically(self.metrics, "".join(json.dumps(row) + "\n" for row in rows))
        return rows


def installed_versions() -> dict[str, Any]:
    """Packages, Python, devices, and the git commit of the source tree where there is one."""
    packages = {"hades": __version__}
    for name in _PACKAGES:
        try:
            packages[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "packages": packages,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "devices": [f"{device.platform}: {device.device_kind}" for device in jax.devices()],
        "git_commit": git_commit(),
    }


def git_commit() -> str | None:
    """Commit of the source tree, with `-dirty` behind it where tracked files were changed; None outside of git."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--abbrev=40", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def _to_json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=2) + "\n"
