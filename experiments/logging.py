"""Optional loggers of a run: TensorBoard and Weights & Biases, as callbacks of `hades.distill`."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any

from experiments.cli import BadArgumentsError
from experiments.settings import RunSettings
from hades._run_directory import RunDirectory
from hades._serialization import to_dict
from hades.distillation import Callback
from hades.run import RunState


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


@contextlib.contextmanager
def _tensorboard(directory: RunDirectory) -> Iterator[Callback]:
    from tensorboardX import SummaryWriter

    with SummaryWriter(str(directory.path / "tensorboard")) as writer:

        def log(state: RunState, row: dict[str, Any]) -> None:
            for name, value in _numbers(row).items():
                writer.add_scalar(name, value, row["iteration"])

        yield log


@contextlib.contextmanager
def _wandb(settings: RunSettings, directory: RunDirectory) -> Iterator[Callback]:
    import wandb

    with wandb.init(project=settings.wandb, dir=str(directory.path), config=to_dict(settings)) as session:

        def log(state: RunState, row: dict[str, Any]) -> None:
            session.log(_numbers(row), step=row["iteration"])

        yield log
