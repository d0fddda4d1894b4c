"""Hooks of the host loop, for loggers of a user's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hades._history import Row
    from hades.evaluation import Evaluation
    from hades.run import Run, RunState
    from hades.training import Result


class Callback:
    """Hooks that do nothing; subclasses override some. A plain function of a row is one, too.

    Each row comes once, also where a run is stopped and goes on; only the rows of the very call in which a process was
    killed may come again.

    Example:
        >>> class Best(Callback):
        ...     def row(self, row):
        ...         self.best = row["fitness_best"]
        >>> hook = Best()
        >>> hook.row({"iteration": 1, "fitness_best": 3.0})
        >>> hook.best
        3.0
    """

    def start(self, run: Run[Any], state: RunState) -> None:
        """Called before the first iteration, also where a run goes on."""

    def row(self, row: Row) -> None:
        """Called with every row of metrics."""

    def flush(self) -> None:
        """Called when all rows of a compiled call have come: loggers that buffer write them now, or may lose them."""

    def evaluation(self, iteration: int, outcome: Any, evaluation: Evaluation) -> None:
        """Called with every evaluation on fresh keys, and what it scored, without metadata."""

    def checkpoint(self, iteration: int) -> None:
        """Called when a checkpoint is whole."""

    def end(self, result: Result[Any]) -> None:
        """Called at the end, also where the run was stopped before it had finished."""


class _OnRow(Callback):
    """A function of a row as a callback."""

    def __init__(self, function: Callable[[Row], None]) -> None:
        self._function = function

    def row(self, row: Row) -> None:
        self._function(row)


def as_callback(callback: Callback | Callable[[Row], None]) -> Callback:
    """The callback itself, or one that calls a function with every row."""
    return callback if isinstance(callback, Callback) else _OnRow(callback)
