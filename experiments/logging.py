"""Optional loggers of a run: TensorBoard and Weights & Biases, as callbacks of `hades.distill`."""

from __future__ import annotations

import contextlib
import importlib
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments.cli import BadArgumentsError
from experiments.settings import RunSettings
from hades._files import write_atomically
from hades._history import Row
from hades._run_directory import RunDirectory
from hades._serialization import to_dict
from hades.callbacks import Callback
from hades.run import Run, RunState
from hades.training import Result


def check_extras(settings: RunSettings) -> None:
    """Refuses loggers that are not installed, before anything is written.

    Raises:
        BadArgumentsError: An extra is not installed.
    """
    wanted = {"tensorboard": ("tensorboardX", settings.tensorboard), "wandb": ("wandb", settings.wandb)}
    for extra, (module, is_wanted) in wanted.items():
        if is_wanted:
            try:
                importlib.import_module(module)
            except ImportError:
                raise BadArgumentsError(f"--{extra}: needs {module}, install hades-distillation[{extra}]") from None


@contextlib.contextmanager
def loggers(settings: RunSettings, directory: RunDirectory) -> Iterator[list[Callback]]:
    """The callbacks that the settings ask for, once `check_extras` has passed.

    They open what they write to when the run starts: a process that is refused the run directory writes nothing.
    """
    with contextlib.ExitStack() as stack:
        callbacks: list[Callback] = []
        if settings.tensorboard:
            callbacks.append(TensorBoard(directory.path / "tensorboard", stack))
        if settings.wandb:
            callbacks.append(WeightsAndBiases(settings, directory, stack))
        yield callbacks


def _numbers(row: Row) -> dict[str, float]:
    return {name: value for name, value in row.items() if name != "iteration" and isinstance(value, (int, float))}


class TensorBoard(Callback):
    """Writes each row once, as one event: a row that a killed process had already written is not written again."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        """Opens nothing.

        Args:
            folder: Of the event files.
            stack: Closes the file.
        """
        self._folder, self._stack = folder, stack

    def start(self, run: Run[Any], state: RunState) -> None:
        """Begins a new event file."""
        # Not `SummaryWriter`, whose queue loses what a killed process had just flushed.
        from tensorboardX.event_file_writer import EventsWriter

        self._folder.mkdir(exist_ok=True)
        self._written = last_step(self._folder)
        # Files that are begun in the same second have the same name but for the suffix.
        suffix = f".{len(list(self._folder.iterdir())):04d}"
        self._writer = EventsWriter(str(self._folder / "events"), suffix)
        self._stack.callback(self._writer.close)

    def row(self, row: Row) -> None:
        """Writes a row into the buffer."""
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary

        if row["iteration"] > self._written:
            values = [Summary.Value(tag=name, simple_value=value) for name, value in _numbers(row).items()]
            event = Event(wall_time=time.time(), step=row["iteration"], summary=Summary(value=values))
            self._writer.write_event(event)

    def flush(self) -> None:
        """Writes the buffer to disk."""
        self._writer.flush()


def last_step(folder: Path) -> int:
    """Last step in the event files of a folder, 0 where there is none."""
    from tensorboardX.proto.event_pb2 import Event

    for path in sorted(folder.glob("events.out.tfevents.*"), reverse=True):
        steps = [Event.FromString(record).step for record in _records(path.read_bytes())]
        if any(steps):
            return max(steps)
    return 0


def _records(content: bytes) -> Iterator[bytes]:
    """Records of a TFRecord file: a length of 8 bytes, its checksum of 4, the record, its checksum of 4.

    The last one is passed over where a killed process has left a part of it.
    """
    start = 0
    while start + 12 <= len(content):
        end = start + 12 + int.from_bytes(content[start : start + 8], "little")
        if end + 4 <= len(content):
            yield content[start + 12 : end]
        start = end + 4


class WeightsAndBiases(Callback):
    """Logs rows, and at the end the iteration of the best outcome; a run that goes on is the same run there."""

    def __init__(self, settings: RunSettings, directory: RunDirectory, stack: contextlib.ExitStack) -> None:
        """Opens nothing.

        Args:
            settings: Name the project, and are kept beside the run.
            directory: Run directory, which keeps the run's id.
            stack: Ends the session.
        """
        self._settings, self._directory, self._stack = settings, directory, stack

    def start(self, run: Run[Any], state: RunState) -> None:
        """Begins the session, or goes on with it."""
        import wandb

        file = self._directory.path / "wandb_id"
        named = os.environ.get("WANDB_NAME")
        if not file.exists():
            write_atomically(file, secrets.token_hex(4) + "\n")
            named = named or self._directory.path.name
        self._session = self._stack.enter_context(
            wandb.init(
                project=self._settings.wandb,
                dir=str(self._directory.path),
                # A run that goes on keeps the name that it has by then.
                name=named,
                config=to_dict(self._settings),
                id=file.read_text().strip(),
                resume="allow",
            )
        )

    def row(self, row: Row) -> None:
        """Logs a row."""
        self._session.log(_numbers(row), step=row["iteration"])

    def end(self, result: Result[Any]) -> None:
        """Adds the summary."""
        self._session.summary["best_iteration"] = result.best_iteration
        self._session.summary["finished"] = result.finished
