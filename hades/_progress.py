"""Progress of long work: a bar on a terminal or in a notebook, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

_SECONDS_BETWEEN_LINES = 10.0


class ProgressReport:
    """Tells generations per second, environment steps per second, fitness, and time left; writes to stderr."""

    def __init__(self, total: int, done: int = 0, enabled: bool = True, unit: str = "generation") -> None:
        """Begins at `done` of `total` generations, or of what else `unit` says is counted."""
        self._total = total
        self._unit = unit
        self._enabled = enabled
        self._console = Console(stderr=not _in_notebook())
        self._bar: Progress | None = None
        if enabled and (self._console.is_terminal or self._console.is_jupyter):
            columns = (
                TextColumn(f"{unit} {{task.completed:.0f}}/{{task.total:.0f}}"),
                BarColumn(),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, TextColumn("{task.fields[status]}"), console=self._console)
            self._task = self._bar.add_task("", total=total, completed=done, status="compiling")
        self._last_line = time.monotonic()
        self._first: tuple[float, int] | None = None

    def __enter__(self) -> Self:
        """Shows the bar, or says in a line that work began."""
        if self._bar:
            self._bar.start()
        elif self._enabled:
            self._line(f"compiling, then {self._total} {self._unit}s")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leaves the bar as it stands."""
        if self._bar:
            self._bar.stop()

    def update(self, generation: int, seconds_per_generation: float, env_steps: float, status: str) -> None:
        """Reports finished generations.

        Args:
            generation: How many are finished.
            seconds_per_generation: Of the last compiled call.
            env_steps: Environment steps of a generation, on average over the last call; 0 is not worth telling.
            status: What else to say, such as the fitness.
        """
        rate = 1.0 / max(seconds_per_generation, 1e-9)
        steps = f"{_si(env_steps * rate)} steps/s, " if env_steps else ""
        status = f"{rate:.3g} {self._unit}s/s, {steps}{status}"
        if self._bar:
            self._bar.update(self._task, completed=generation, status=status)
            return
        now = time.monotonic()
        if self._first is None:
            self._first = (now, generation)
        if self._enabled and (now - self._last_line > _SECONDS_BETWEEN_LINES or generation >= self._total):
            self._last_line = now
            left = seconds_per_generation * (self._total - generation)
            self._line(f"{self._unit} {generation}/{self._total}, {status}, {left:.0f} s left")

    def _line(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


class StepReport:
    """Tells how many of so many things are done, how fast, and the time left; writes to stderr."""

    def __init__(self, total: int, unit: str) -> None:
        """Begins at none of `total` things of this name, such as transitions."""
        self._total, self._unit, self._done = total, unit, 0
        self._console = Console(stderr=not _in_notebook())
        self._bar: Progress | None = None
        if self._console.is_terminal or self._console.is_jupyter:
            columns = (TextColumn(f"{unit} {{task.completed:.0f}}/{{task.total:.0f}}"), BarColumn())
            status = TextColumn("{task.fields[status]}")
            self._bar = Progress(*columns, TimeRemainingColumn(), status, console=self._console)
            self._task = self._bar.add_task("", total=total, status="")
        self._began = self._last_line = time.monotonic()

    def __enter__(self) -> Self:
        """Shows the bar, where there is a terminal."""
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leaves the bar as it stands."""
        if self._bar:
            self._bar.stop()

    def add(self, count: int) -> None:
        """Reports that `count` more are done; more than the total count as the total."""
        self._done = min(self._done + count, self._total)
        now = time.monotonic()
        rate = self._done / max(now - self._began, 1e-9)
        if self._bar:
            self._bar.update(self._task, completed=self._done, status=f"{_si(rate)}/s")
        elif now - self._last_line > _SECONDS_BETWEEN_LINES:
            self._last_line = now
            left = (self._total - self._done) / max(rate, 1e-9)
            text = f"{self._unit} {self._done}/{self._total}, {_si(rate)}/s, {left:.0f} s left"
            print(text, file=sys.stderr, flush=True)


def _si(value: float) -> str:
    for unit in ("", "k", "M"):
        if value < 1000:
            return f"{value:.3g}{unit}"
        value /= 1000
    return f"{value:.3g}G"


def _in_notebook() -> bool:
    return Console().is_jupyter
