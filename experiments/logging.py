"""Optional loggers of a run: TensorBoard and Weights & Biases, as callbacks of `hades.distill`."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any

from experiments.cli import BadArgumentsError
from experiments.settings import RunSettings
from hades._files import write_atomically
from hades._history import Row
from hades._run_directory import RunDirectory
from hades._serialization import to_dict
from hades.callbacks import Callback
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
    """The callbacks that the settings ask for, once `check_extras` has passed."""
    with contextlib.ExitStack() as stack:
        callbacks: list[Callback] = []
        if settings.tensorboard:
            callbacks.append(stack.enter_context(_tensorboard(directory)))
        if settings.wandb:
            callbacks.append(stack.enter_context(_wandb(settings, directory)))
        yield callbacks


def _numbers(row: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in row.items() if name != "iteration" and isinstance(value, (int, float))}


class _TensorBoard(Callback):
    """Writes rows as they come: a process that is killed has written each that it will not compute again."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def row(self, row: Row) -> None:
        for name, value in _numbers(row).items():
            self._writer.add_scalar(name, value, row["iteration"])
        self._writer.flush()


@contextlib.contextmanager
def _tensorboard(directory: RunDirectory) -> Iterator[Callback]:
    from tensorboardX import SummaryWriter

    with SummaryWriter(str(directory.path / "tensorboard")) as writer:
        yield _TensorBoard(writer)


class _WeightsAndBiases(Callback):
    """Logs rows, and the outcome's evaluation at the end as a summary."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def row(self, row: Row) -> None:
        self._session.log(_numbers(row), step=row["iteration"])

    def end(self, result: Result[Any]) -> None:
        self._session.summary["best_iteration"] = result.best_iteration
        self._session.summary["finished"] = result.finished


@contextlib.contextmanager
def _wandb(settings: RunSettings, directory: RunDirectory) -> Iterator[Callback]:
    import wandb

    file = directory.path / "wandb_id"
    # A run that goes on is the same run there.
    run_id = file.read_text().strip() if file.exists() else wandb.util.generate_id()
    directory.path.mkdir(parents=True, exist_ok=True)
    write_atomically(file, run_id + "\n")
    arguments = {"project": settings.wandb, "dir": str(directory.path), "config": to_dict(settings)}
    with wandb.init(**arguments, id=run_id, resume="allow") as session:
        yield _WeightsAndBiases(session)
