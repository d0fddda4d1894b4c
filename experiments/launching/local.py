"""Launching on this machine: a few members at the same time, each in a process with GPUs or CPU cores of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from experiments.launching.grid import Member
from experiments.launching.member_process import STOP_CODES, MemberIsRunningError, MemberProcess
from experiments.launching.settings import LocalSettings
from experiments.processes import command, shared_memory
from experiments.stopping import SignalWatch
from hades._progress import Progress

_SECONDS_BETWEEN_POLLS = 0.2


@dataclass(frozen=True)
class Place:
    """GPUs or CPU cores that one process at a time may use.

    Attributes:
        device: GPUs, as CUDA_VISIBLE_DEVICES has them; None leaves them as they are.
        sharing: Processes that share the GPUs' memory evenly.
        cores: CPU cores; all if None.
    """

    device: str | None = None
    sharing: int = 1
    cores: frozenset[int] | None = None

    def environment(self) -> dict[str, str]:
        """Environment of a process there."""
        variables = os.environ | shared_memory(self.sharing)
        if self.device is not None:
            variables["CUDA_VISIBLE_DEVICES"] = self.device
        return variables

    @contextlib.contextmanager
    def pinned(self) -> Iterator[None]:
        """Pins the calling thread to the cores, which a process that it starts inherits."""
        if self.cores is None:
            yield
            return
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, self.cores)
        try:
            yield
        finally:
            os.sched_setaffinity(0, before)


def places(settings: LocalSettings) -> list[Place]:
    """The place of each process: devices in turn, or the CPU cores dealt out."""
    count = settings.processes or len(settings.devices) or 1
    if settings.devices:
        devices = [str(settings.devices[index % len(settings.devices)]) for index in range(count)]
        sharing = Counter(devices)
        return [Place(device, sharing[device]) for device in devices]
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if count == 1 or not cores:
        return [Place(sharing=count)] * count
    if count > len(cores):
        return [Place(None, count, frozenset({cores[index % len(cores)]})) for index in range(count)]
    return [Place(None, count, frozenset(cores[index::count])) for index in range(count)]


@dataclass(frozen=True)
class Outcome:
    """Outcome of a launch.

    Attributes:
        failed: Names of members whose processes failed.
        received: The signal that stopped it; None without one.
    """

    failed: tuple[str, ...] = ()
    received: signal.Signals | None = None


def run_members(members: Sequence[Member], settings: LocalSettings) -> Outcome:
    """Runs members in a pool of processes, and hands on Ctrl-C and SIGTERM to those that run.

    One that fails stops no other.

    Args:
        members: Members to run, in this order.
        settings: Of the pool.

    Raises:
        OSError: A log cannot be written.
    """
    pool = _Pool(members, places(settings))
    watch = SignalWatch(pool.hear)
    watch.start()
    try:
        pool.run()
    finally:
        watch.stop()
    return Outcome(tuple(pool.failed), pool.received)


class _Pool:
    """Processes of members, one for each place.

    Attributes:
        failed: Names of members whose processes failed.
        received: The first signal that came.
    """

    def __init__(self, members: Sequence[Member], places: Sequence[Place]) -> None:
        self.failed: list[str] = []
        self.received: signal.Signals | None = None
        self._waiting, self._free = deque(members), list(reversed(places))
        self._running: dict[str, tuple[MemberProcess, Place]] = {}
        self._lock = threading.Lock()

    def hear(self, number: signal.Signals) -> None:
        """Hands a signal on, in the thread that heard of it; from the first one on no member starts."""
        with self._lock:
            self.received = self.received or number
            for process, _ in self._running.values():
                process.process.send_signal(number)

    def run(self) -> None:
        """Runs all, or stops."""
        total = len(self._waiting)
        with Progress(total, "run", status="starting") as report:
            while True:
                self._start()
                if not self._running:
                    break
                if self._take_ended():
                    report.update(total - len(self._waiting) - len(self._running), self._said())
                time.sleep(_SECONDS_BETWEEN_POLLS)

    def _said(self) -> str:
        return f"{len(self._running)} running, {len(self.failed)} failed"

    def _start(self) -> None:
        """Starts members while there are places."""
        while True:
            with self._lock:
                if self.received or not self._waiting or not self._free:
                    return
                member, place = self._waiting.popleft(), self._free.pop()
                try:
                    with place.pinned():
                        process = MemberProcess(
                            member.files, member.arguments, command(*member.arguments), place.environment()
                        )
                except MemberIsRunningError as error:
                    self._free.append(place)
                    print(f"left alone: {error}", file=sys.stderr)
                    continue
                except OSError as error:
                    self._free.append(place)
                    self.failed.append(member.name)
                    print(f"{member.name} did not start: {error}", file=sys.stderr)
                    continue
                self._running[member.name] = process, place

    def _take_ended(self) -> bool:
        """Whether a process has ended since the last time."""
        ended = {name: code for name, (process, _) in self._running.items() if (code := process.poll()) is not None}
        for name, code in ended.items():
            with self._lock:
                process, place = self._running.pop(name)
                self._free.append(place)
            if code and not (self.received and code in STOP_CODES):
                self.failed.append(name)
                print(f"{name} ended with exit code {code}: {process.files.last_words()}", file=sys.stderr)
        return bool(ended)
