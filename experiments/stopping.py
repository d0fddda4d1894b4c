"""Ctrl-C and SIGTERM: outside of a run they end the process at once, within one the first waits for a safe point."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from experiments import processes

_STDERR = 2
_SAME_SECONDS = 1.0
_SHOW_CURSOR = "\x1b[?25h"


class SignalWatch:
    """A thread that hears of SIGINT and SIGTERM at once; only the main thread may start and stop it.

    Python runs signal handlers between its own instructions, so not before a compiled call or a compilation ends, and
    sees several signals as one. The interpreter writes the number of each signal to its wakeup pipe as it comes.
    """

    def __init__(self, hear: Callable[[signal.Signals], None]) -> None:
        """Calls `hear` for each signal, in the thread."""
        self._hear = hear
        self._previous: dict[signal.Signals, Any] = {}

    def start(self) -> None:
        """Takes over the handlers of both signals."""
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._thread = threading.Thread(target=self._watch, name="signals", daemon=True)
        self._thread.start()
        self._previous_wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM):
            # Only signals that have a handler in Python reach the wakeup pipe.
            self._previous[number] = signal.signal(number, lambda number, frame: None)

    def stop(self) -> None:
        """Puts the handlers back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._previous_wakeup)
        os.close(self._writer)
        self._thread.join()
        os.close(self._reader)

    def _watch(self) -> None:
        while data := os.read(self._reader, 1):
            if data[0] in (signal.SIGINT, signal.SIGTERM):
                self._hear(signal.Signals(data[0]))


def end_process_on_signals(name: str) -> None:
    """Ends the process at the first signal from now on, with exit code 130 or 143 and the line `NAME: stopped`.

    A run that is entered by `StopSignals` goes before.
    """
    SignalWatch(lambda number: _end_process(name, number)).start()


class StopSignals:
    """Notes signals while it is entered, which only the main thread may do.

    The first signal asks the run to stop at its next safe point, and the second one ends the process, but for a SIGTERM
    within a second of another, which a process and the one that waits for it may both be sent. Before the run
    has come to its first safe point, which compilation may put off for a minute, there is nothing to keep, and already
    the first one does.

    Attributes:
        received: The signal that came, None before one did.
    """

    def __init__(self, name: str = "hades") -> None:
        """Starts without a received signal.

        Args:
            name: The command, for the line that an ended process leaves.
        """
        self.received: signal.Signals | None = None
        self._name = name
        self._has_begun = False
        self._heard = 0.0
        self._watch = SignalWatch(self._hear)

    def __enter__(self) -> Self:
        """Takes over the handlers of SIGINT and SIGTERM."""
        self._watch.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Puts the handlers back."""
        self._watch.stop()

    def should_stop(self) -> bool:
        """Whether a signal has come; `hades.distill` asks before every call, once that is compiled."""
        self._has_begun = True
        return self.received is not None

    @property
    def exit_code(self) -> int:
        """128 and the signal's number; that of SIGTERM where another process of the run was told to stop."""
        return 128 + int(self.received or signal.SIGTERM)

    def _hear(self, number: signal.Signals) -> None:
        again = number == self.received == signal.SIGTERM
        if again and time.monotonic() - self._heard < _SAME_SECONDS:
            return
        if self.received is not None or not self._has_begun:
            _end_process(self._name, number)
        self.received, self._heard = number, time.monotonic()
        _say("stopping after this call with a checkpoint; another signal ends it at once")


def _end_process(name: str, number: signal.Signals) -> None:
    if number == signal.SIGTERM:
        # Ctrl-C reaches all processes of a terminal, and a second signal would cost them their checkpoint.
        processes.hand_on(number)
    _say(f"{_SHOW_CURSOR if os.isatty(_STDERR) else ''}{name}: stopped")
    # Whatever is being written now is written atomically, or is not taken for a checkpoint.
    os._exit(128 + number)


def _say(sentence: str) -> None:
    """Writes a line past the buffers of Python, whose locks another thread may hold."""
    with contextlib.suppress(OSError):
        os.write(_STDERR, f"{sentence}\n".encode())
