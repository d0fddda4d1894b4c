"""Ctrl-C and SIGTERM: the first one ends a run at its next safe point, the second one at once."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self


class StopSignals:
    """Notes signals while it is entered.

    Attributes:
        received: The signal that came, None before one did.
    """

    def __init__(self) -> None:
        """Has received nothing."""
        self.received: signal.Signals | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        """Takes over the handlers of SIGINT and SIGTERM."""
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Puts the handlers back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @property
    def should_stop(self) -> Callable[[], bool]:
        """What `hades.distill` asks after every compiled call."""
        return lambda: self.received is not None

    @property
    def exit_code(self) -> int:
        """128 and the signal's number."""
        return 128 + int(self.received or 0)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        signal.signal(number, self._previous[self.received] or signal.SIG_DFL)
        print("stopping after this call with a checkpoint; the same signal again ends it at once", file=sys.stderr)
