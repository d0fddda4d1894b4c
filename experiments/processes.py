"""Processes that the command starts itself, which import nothing from the working directory."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

_SCRIPT = Path(__file__).resolve().parents[1] / "hades_command.py"
_running: set[subprocess.Popen[str]] = set()


def command(*arguments: str) -> list[str]:
    """The command line of `hades ARGUMENTS` in a process of its own."""
    return [sys.executable, "-P", str(_SCRIPT), *arguments]


def program(module: str, *arguments: str) -> list[str]:
    """The command line that runs one of our modules as a program, such as `"experiments.bench.cost"`."""
    return command("-m", module, *arguments)


def forced_devices(counts: Iterable[int]) -> dict[str, str]:
    """Variables of a process whose CPU is to be as many devices as the largest count; other platforms stay."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={max(counts)}"
    return {"XLA_FLAGS": flags.strip()}


def free_address() -> str:
    """An address of this machine that nothing listens at yet, `"127.0.0.1:PORT"`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def run(line: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs a command line to its end; a SIGTERM that ends this process before goes to that one, too.

    Args:
        line: Command line.
        options: Of `subprocess.Popen`, such as `stdout`; streams are text.
    """
    with subprocess.Popen(line, text=True, **options) as process:
        _running.add(process)
        try:
            written, errors = process.communicate()
        finally:
            _running.discard(process)
    return subprocess.CompletedProcess(line, process.returncode, written, errors)


def hand_on(number: signal.Signals) -> None:
    """Sends a signal to every process that `run` waits for."""
    for process in tuple(_running):
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
