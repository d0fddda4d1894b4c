"""The folder that a run leaves behind: settings, versions, metrics, checkpoints and datasets."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from hades._files import naming, try_lock, write_atomically
from hades._history import History, Row
from hades._json import to_finite, to_json
from hades._provenance import installed_versions

FREE_TO_CHANGE = frozenset(
    {
        "num_iterations",
        "resume",
        "json",
        "out",
        "tensorboard",
        "wandb",
        "log_every",
        "checkpoint_seconds",
        "max_env_steps",
        "max_seconds",
        "target_return",
        "hosts",
        "devices",
    }
)
"""Names in a configuration that may differ when a run goes on: how long it is, where, and what is seen and kept."""

# Mappings without a fixed set of keys: an option that only one of two environments has makes them different.
_WHOLE = frozenset({"env_options"})
# The checksum of a run's arrays is of one machine: the command knows data by the checksums of their files.
_MAY_BE_UNKNOWN = frozenset({"arrays"})
_FORMER_COLUMNS = {"generation": "iteration", "update": "iteration", "seconds_per_generation": "seconds_per_iteration"}
_TAIL_BYTES = 1 << 16


class RunDirectoryError(ValueError):
    """Error of a run directory that does not follow its contract; one sentence names the file and the expectation."""


class OtherRunError(RunDirectoryError):
    """A run directory holds a run of another configuration.

    Attributes:
        field: Name of the first difference, such as `"evolution.sigma"`.
        saved: Its value in the directory.
        given: Its value here.
    """

    def __init__(self, path: Path, field: str, saved: Any, given: Any) -> None:
        """Makes the sentence."""
        super().__init__(f"the run in {path} has {field} {_shortened(saved)}, got {_shortened(given)}")
        self.field, self.saved, self.given = field, saved, given


class RunDirectory:
    """Paths and files of one run.

    Attributes:
        path: The folder.
        config: `config.json`, the fully resolved settings.
        metrics: `metrics.jsonl`, one JSON object an iteration.
        checkpoints: Folder of the checkpoints.
        dataset, policy, teacher: Outcome at the last iteration, of a distillation, a baseline or a teacher's training.
        best_dataset, best_policy, best_teacher: The best of them by fresh-key evaluation.
        arrays: `arrays.npz`, what was measured when the run began, where the command keeps it.
        snapshots: Folder of what the run had made when it was evaluated, where it was asked to keep that.
        curve: Picture of the returns.
        dataset_picture: Picture of the best dataset.
        summary: `summary.json`, what the finished run returns.
        lock_file: File whose lock the process that works on the run holds, with the process's id in it.
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
        self.teacher = self.path / "teacher.npz"
        self.best_teacher = self.path / "best_teacher.npz"
        self.arrays = self.path / "arrays.npz"
        self.snapshots = self.path / "snapshots"
        self.curve = self.path / "curve.png"
        self.dataset_picture = self.path / "dataset.png"
        self.summary = self.path / "summary.json"
        self.lock_file = self.path / "lock"

    @property
    def holds_run(self) -> bool:
        """Whether a run was begun here."""
        return self.config.exists()

    def create(self, config: Mapping[str, Any]) -> None:
        """Makes the folder and writes settings and versions."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_atomically(self.versions, to_json(installed_versions(), indent=2) + "\n")
        # Written last: a folder with a config.json holds a run.
        self.write_config(config)

    def begin(self, config: Mapping[str, Any]) -> None:
        """Begins a run, or goes on with the one that is there; what others keep in its `config.json` stays.

        Raises:
            OSError: The folder cannot be made or written.
            OtherRunError: It holds a run of another configuration.
        """
        if self.holds_run:
            self.check_same(config)
            self.write_config(self.read_config() | dict(config))
        else:
            self.create(config)

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Replaces the settings of a run that is extended."""
        write_atomically(self.config, to_json(config, indent=2) + "\n")

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps every other process from working on the run; the folder is made if it is not there.

        The lock ends with the process that holds it, however it ends. Reading needs no lock.

        Raises:
            RunDirectoryError: Another process works on the run; the message has its id.
            OSError: The folder cannot be written, or its file system has no locks.
        """
        with naming(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        with naming(self.lock_file):
            descriptor = os.open(self.lock_file, os.O_RDWR | os.O_CREAT, 0o666)
        with os.fdopen(descriptor, "r+") as file:
            try:
                is_ours = try_lock(file.fileno(), fcntl.LOCK_EX, keep=True)
            except OSError as error:
                reason = f"expected a file system with locks ({error.strerror}); choose a folder on another one"
                raise OSError(errno.ENOLCK, reason, str(self.lock_file)) from None
            if not is_ours:
                holder = f"process {file.read().strip()}".strip()
                raise RunDirectoryError(
                    f"{self.path}: expected a run that no other process works on, but {holder} does"
                )
            self._name_holder(file.fileno(), str(os.getpid()))
            try:
                yield
            finally:
                self._name_holder(file.fileno(), "")

    @property
    def is_locked(self) -> bool:
        """Whether a process works on the run."""
        try:
            # A process that ends as it should leaves no id, so that the lock of none that starts is tried.
            if not self.lock_file.read_text().strip():
                return False
            with self.lock_file.open("rb") as file:
                return not try_lock(file.fileno(), fcntl.LOCK_SH)
        except FileNotFoundError:
            return False

    def _name_holder(self, descriptor: int, holder: str) -> None:
        # A full disk takes no id; the lock holds all the same.
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, holder.encode(), 0)

    def check_same(
        self,
        config: Mapping[str, Any],
        saved: Mapping[str, Any] | None = None,
        free: Collection[str] = FREE_TO_CHANGE,
    ) -> None:
        """Refuses to go on with a run of other settings, in another environment, or of another key.

        Names that only one of both has are passed over, so that runs of older versions go on.

        Args:
            config: The configuration of the run that is to go on.
            saved: The one in the directory; read from `config.json` if None.
            free: Names that may differ.

        Raises:
            OtherRunError: They differ; it names the first difference in the order of `config`.
            RunDirectoryError: `config.json` is missing or malformed.
        """
        saved = self.read_config() if saved is None else saved
        # Files that are known by their checksums may have moved.
        moved = [
            name
            for name in ("data", "teacher", "warm_start", "statistics_of")
            if all(of.get(f"{name}_checksum") for of in (saved, config))
        ]
        config = {name: value for name, value in config.items() if name not in moved}
        for name, old, new in _differences(json.loads(to_json(saved)), json.loads(to_json(config)), free):
            raise OtherRunError(self.path, name.removeprefix("settings."), old, new)

    def snapshot(self, kind: str, iteration: int) -> Path:
        """The snapshot of one iteration, such as `snapshots/policy-000100.npz`."""
        return self.snapshots / f"{kind}-{iteration:06d}.npz"

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Writes the returns of the finished run."""
        write_atomically(self.summary, to_json(summary, indent=2) + "\n")

    def read_config(self) -> dict[str, Any]:
        """The settings of the run; the names of version 0.1 come back as the present ones.

        Raises:
            RunDirectoryError: There are none, or they are not JSON.
        """
        if not self.config.exists():
            raise RunDirectoryError(f"{self.path}: expected a run directory with a config.json, found none")
        config = _read_object(self.config)
        if "num_generations" in config:
            config["num_iterations"] = config.pop("num_generations")
        settings = config.get("settings")
        if isinstance(settings, dict) and "density_exponent" in settings:
            # Offline runs of 0.2.0 began with the actions of the data, and let them leave their bounds.
            config["settings"] = {"bounded_actions": False, "first_actions": "data", **settings}
        return config

    def read_summary(self) -> dict[str, Any]:
        """Returns of the finished run.

        Raises:
            RunDirectoryError: There are none, as in a run that has not finished, or they are no JSON object.
        """
        return _read_object(self.summary)

    def read_versions(self) -> dict[str, Any]:
        """Versions and commit that the run was begun with.

        Raises:
            RunDirectoryError: There are none, or they are no JSON object.
        """
        return _read_object(self.versions)

    def append_metrics(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Adds rows to the metrics; numbers that are not finite become null."""
        with naming(self.metrics), self.metrics.open("a") as file:
            file.write("".join(to_json(row) + "\n" for row in rows))

    def sync_metrics(self) -> None:
        """Waits until the rows are on disk: a checkpoint that outlives a crash of the machine needs those before it."""
        with naming(self.metrics), contextlib.suppress(FileNotFoundError), self.metrics.open("rb") as file:
            os.fsync(file.fileno())

    def read_metrics(self) -> History:
        """All whole rows of the metrics; a last line that an interrupted write cut short is passed over.

        Rows of version 0.1, which counted generations, come back under the present name.

        Raises:
            RunDirectoryError: Another line is no JSON object with an iteration.
        """
        return History(row for row, _ in self._rows())

    @property
    def saved_iteration(self) -> int:
        """Iteration of the newest whole checkpoint, 0 where there is none."""
        return max((int(path.name) for path in self.checkpoints.glob("*") if path.name.isdecimal()), default=0)

    def last_row(self) -> Row | None:
        """The last whole row of the metrics, None where there is none; reads the end of the file alone.

        Raises:
            RunDirectoryError: That line is no JSON object with an iteration.
        """
        if not self.metrics.exists():
            return None
        with self.metrics.open("rb") as file:
            start = file.seek(0, os.SEEK_END)
            tail = b""
            while start and b"\n" not in tail.rpartition(b"\n")[0]:
                end, start = start, max(0, start - _TAIL_BYTES)
                file.seek(start)
                tail = file.read(end - start) + tail
        lines = tail.rpartition(b"\n")[0].splitlines()
        return self._row("the last line", lines[-1].decode(errors="replace")) if lines else None

    def truncate_metrics(self, iteration: int) -> History:
        """Drops rows behind an iteration, which a resumed run will write again, and returns the others.

        Rows whose iteration an earlier line has reached, left by two processes in one folder, are dropped too.
        """
        history, kept, reached = History(), [], 0
        for row, line in self._rows():
            if reached < row["iteration"] <= iteration:
                reached = row["iteration"]
                history.append(row)
                kept.append(line)
        content = "".join(kept).encode()
        if not self.metrics.exists() or self.metrics.stat().st_size != len(content):
            write_atomically(self.metrics, content)
        return history

    def _rows(self) -> Iterator[tuple[Row, str]]:
        if not self.metrics.exists():
            return
        with self.metrics.open(errors="replace", newline="\n") as file:
            for number, line in enumerate(file, start=1):
                if line.endswith("\n"):
                    yield self._row(f"line {number}", line), line

    def _row(self, where: str, line: str) -> Row:
        row = None
        with contextlib.suppress(ValueError):
            row = json.loads(line)
        if isinstance(row, dict):
            # Files of version 0.1 hold NaN and infinities.
            row = {_FORMER_COLUMNS.get(name, name): to_finite(value) for name, value in row.items()}
        if not isinstance(row, dict) or not isinstance(row.get("iteration"), int):
            found = f"{line.strip()!r:.60}"
            raise RunDirectoryError(f"{self.metrics}: {where}: expected a JSON object with an iteration, got {found}")
        return row


def _read_object(file: Path) -> dict[str, Any]:
    """Content of a JSON file.

    Raises:
        RunDirectoryError: There is none, or it is no JSON object.
    """
    try:
        content = json.loads(file.read_text())
    except FileNotFoundError:
        raise RunDirectoryError(f"{file}: expected a file of a run, found nothing there") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RunDirectoryError(f"{file}: expected JSON, got: {error}") from None
    if not isinstance(content, dict):
        raise RunDirectoryError(f"{file}: expected a JSON object, got a {type(content).__name__}")
    return content


def key_words(key: jax.Array) -> list[int]:
    """Words of a key's data, by which a run directory knows it, and a derived key from that of a seed."""
    return [int(word) for word in np.asarray(jax.random.key_data(key)).ravel()]


def _differences(saved: Any, given: Any, free: Collection[str], where: str = "") -> Iterator[tuple[str, Any, Any]]:
    for name, new in given.items():
        if name not in saved or name in free or saved[name] == new:
            continue
        if name in _MAY_BE_UNKNOWN and None in (saved[name], new):
            continue
        if isinstance(new, dict) and isinstance(saved[name], dict) and name not in _WHOLE:
            yield from _differences(saved[name], new, free, f"{where}{name}.")
        else:
            yield where + name, saved[name], new


def _shortened(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
