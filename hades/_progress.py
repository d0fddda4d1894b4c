"""Progress of long work: a bar on a terminal or in a notebook that can show one, plain lines elsewhere."""

from __future__ import annotations

import importlib.util
import sys
import time
from typing import Self

import rich.progress
from rich.console import Console

_SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Tells how much of some work is done, how fast it goes, and the time left; writes to stderr.

    Example:
        >>> with Progress(total=2, unit="iteration", enabled=False) as progress:
        ...     progress.update(1, "fitness 3.5")
    """

    def __init__(self, total: int, unit: str, done: int = 0, enabled: bool = True, status: str = "compiling") -> None:
        """Begins after `done` of `total` units, such as `"iteration"`; writes nothing unless `enabled`.

        The `status` tells what goes on before the first unit is done.
        """
        self._status = status
        self._total, self._unit, self._done, self._enabled = total, unit, done, enabled
        self._before, self._began, self._last_line = done, time.monotonic(), time.monotonic()
        self._bar = _make_bar(unit) if enabled else None
        if self._bar:
            self._task = self._bar.add_task("", total=total, completed=done, status=status)

    def __enter__(self) -> Self:
        """Shows the bar, or says in a line that work began."""
        if self._bar:
            self._bar.start()
        elif self._enabled:
            self._line(f"{self._unit} {self._done}/{self._total}, {self._status}")
        return self

    def __exit__(self, *exception: object) -> None:
        """Leaves the bar as it stands."""
        if self._bar:
            self._bar.stop()

    def update(self, done: int, status: str = "", rate: float | None = None) -> None:
        """Reports all finished units, at most the total, and what else to say.

        Args:
            done: Finished units, those of before counted in.
            status: Such as the fitness.
            rate: Units a second; on average since the beginning if None.
        """
        self._done = min(done, self._total)
        now = time.monotonic()
        if rate is None:
            rate = (self._done - self._before) / max(now - self._began, 1e-9)
        status = ", ".join(filter(None, (f"{with_prefix(rate)} {self._unit}s/s", status)))
        if self._bar:
            self._bar.update(self._task, completed=self._done, status=status)
        elif self._enabled and (now - self._last_line > _SECONDS_BETWEEN_LINES or self._done == self._total):
            self._last_line = now
            left = (self._total - self._done) / max(rate, 1e-9)
            self._line(f"{self._unit} {self._done}/{self._total}, {status}, {left:.0f} s left")

    def add(self, count: int) -> None:
        """Reports that `count` more are finished."""
        self.update(self._done + count)

    def _line(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


def _make_bar(unit: str) -> rich.progress.Progress | None:
    """A bar, where there is something to show it."""
    notebook = Console().is_jupyter
    # Without ipywidgets rich would warn at every refresh, and show nothing.
    shows = importlib.util.find_spec("ipywidgets") is not None if notebook else Console(stderr=True).is_terminal
    if not shows:
        return None
    return rich.progress.Progress(
        rich.progress.TextColumn(f"{unit} {{task.completed:.0f}}/{{task.total:.0f}}"),
        rich.progress.BarColumn(),
        rich.progress.TimeRemainingColumn(),
        rich.progress.TextColumn("{task.fields[status]}"),
        console=Console(stderr=not notebook),
    )


def with_prefix(value: float) -> str:
    """A number in three digits with the prefix of its thousands.

    Example:
        >>> with_prefix(1234.0), with_prefix(5e7)
        ('1.23k', '50M')
    """
    for prefix in ("", "k", "M"):
        if value < 1000:
            return f"{value:.3g}{prefix}"
        value /= 1000
    return f"{value:.3g}G"
