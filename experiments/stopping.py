"""Ctrl-C and SIGTERM: the first one ends a run at its next safe point, the second one at once."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self


class StopSignals:
    """Notes signals while it is entered, which only the main thread may do.

    Python runs signal handlers between its own instructions, so not before a compiled call ends, and sees several
    signals as one. A thread that waits for the numbers that the interpreter writes to its wakeup socket hears of each
    of them at once.

    Attributes:
        received: The signal that came, None before one did.
    """

    def __init__(self) -> None:
        """Has received nothing."""
        self.received: signal.Signals | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        """Takes over the handlers of SIGINT and SIGTERM."""
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._thread = threading.Thread(target=self._watch, name="stop-signals", daemon=True)
        self._thread.start()
        self._previous_wakeup = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM):
            # Only signals that have a handler in Python reach the wakeup socket.
            self._previous[number] = signal.signal(number, lambda number, frame: None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Puts the handlers back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._previous_wakeup)
        self._writer.close()
        self._thread.join()
        self._reader.close()

    @property
    def should_stop(self) -> Callable[[], bool]:
        """What `hades.distill` asks after every compiled call."""
        return lambda: self.received is not None

    @property
    def exit_code(self) -> int:
        """128 and the signal's number."""
        return 128 + int(self.received or 0)

    def _watch(self) -> None:
        while data := self._reader.recv(1):
            if data[0] not in self._previous:
                continue
            if self.received is not None:
                # Whatever is being written now is written atomically, or is not taken for a checkpoint.
                os._exit(128 + data[0])
            self.received = signal.Signals(data[0])
            print(
                "stopping after this call with a checkpoint; another signal ends it at once",
                file=sys.stderr,
                flush=True,
            )
