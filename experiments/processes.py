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
# JAX takes so much of a GPU's memory when it first uses it, unless these variables say otherwise.
_JAX_FRACTION = 0.75
_FRACTION, _PREALLOCATE = "XLA_PYTHON_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_PREALLOCATE"
# jaxlib takes the newer name alone, and not both.
_FRACTIONS = (_FRACTION, "XLA_CLIENT_MEM_FRACTION")


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


def shared_memory(count: int) -> dict[str, str]:
    """Variables of a process that is one of `count` on the same GPU, each with as much of its memory as the others.

    There are none for one alone, nor where the environment says a fraction.
    """
    given = any(name in os.environ for name in _FRACTIONS)
    return {} if count <= 1 or given else {_FRACTION: f"{_JAX_FRACTION / count:.3f}"}


def leave_memory() -> None:
    """Leaves the memory of GPUs to processes that this one starts: JAX takes no more here than its arrays need.

    Must come before anything asks JAX for its devices. What this one starts takes its memory as it does by itself.
    """
    import jax  # The command imports this module before it has set up JAX's cache.

    before = os.environ.get(_PREALLOCATE)
    os.environ.setdefault(_PREALLOCATE, "false")
    try:
        # Reads the variable.
        jax.devices()
    finally:
        if before is None:
            del os.environ[_PREALLOCATE]


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
