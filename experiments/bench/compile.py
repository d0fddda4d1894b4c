"""`hades bench compile`: what a short command waits for, with an empty compilation cache and with a full one."""

from __future__ import annotations

import shlex
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from experiments import cli, tables
from experiments.bench._lib.apart import measure_apart
from experiments.bench._lib.base import Bench, BenchSettings, Report
from experiments.bench._lib.memory import mebibytes, peak_bytes

# Names of JAX's own monitoring.
_TRACE = "/jax/core/compile/jaxpr_trace_duration"
_LOWER = "/jax/core/compile/jaxpr_to_mlir_module_duration"
_COMPILE = "/jax/core/compile/backend_compile_duration"
_HIT = "/jax/compilation_cache/cache_hits"
_HEADER = ("command", "total [s]", "trace and lower", "compile", "programs", "GiB")
# Whatever the user has set: the cache takes every program.
_WHOLE_CACHE = {
    "JAX_ENABLE_COMPILATION_CACHE": "true",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}
_IMPORTS = ("jax", "hades", "experiments.commands.distill")


@dataclass(frozen=True, kw_only=True)
class CompileSettings(BenchSettings):
    """Runs short commands to their ends, each in a process of its own, twice.

    The first time the compilation cache is empty, the second time it holds what the first one compiled. Imports are
    measured apart, too.
    """

    commands: tuple[str, ...] = (
        "distill --preset cartpole",
        "distill --preset breakout",
        "distill --method hades-pg --preset breakout",
        "distill --preset hopper",
    )
    """Commands without the word hades, each in quotes. Each gets a folder of its own behind --out."""
    flags: str = "--num-iterations 1"
    """More flags of every command in one string."""
    repeats: int = 3
    """Imports of each module, of which the median counts."""

    def __post_init__(self) -> None:
        """Refuses a number of imports that is not positive."""
        self.require_positive("repeats")


def measure(settings: CompileSettings, report: Report) -> None:
    """Measures imports and every command."""
    commands: dict[str, Any] = {}
    report.content.update(
        flags=settings.flags, import_seconds={name: import_seconds(name, settings.repeats) for name in _IMPORTS}
    )
    for line in settings.commands:
        with tempfile.TemporaryDirectory(prefix="hades-compile-") as folder:
            cache = Path(folder, "cache")
            variables = {"JAX_COMPILATION_CACHE_DIR": str(cache), **_WHOLE_CACHE}
            found = {}
            for name in ("empty", "full"):
                arguments = [*shlex.split(f"{line} {settings.flags}"), "--out", str(Path(folder, name))]
                started = time.perf_counter()
                measured = measure_apart(measure_command, arguments, f"{line}, {name} cache", variables)
                found[name] = {"total_seconds": time.perf_counter() - started, **measured}
            size = sum(file.stat().st_size for file in cache.rglob("*") if file.is_file())
        commands[line] = {"caches": found, "cache_bytes": size}
        report.add(commands=commands)


def import_seconds(module: str, repeats: int = 3) -> float:
    """Median seconds of a process that imports a module and ends."""
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-P", "-c", f"import {module}"], check=True)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def measure_command(*arguments: str) -> dict[str, Any]:
    """Runs `hades ARGUMENTS` in this process to its end.

    Returns:
        `trace_seconds`, `lower_seconds` and `compile_seconds`, with what reading the cache took, added up over
        programs that are compiled beside each other; the number of `programs`, `cached_programs` of which the cache
        held; `peak_bytes`.

    Raises:
        SystemExit: The command failed; it has said why.
    """
    seconds: defaultdict[str, float] = defaultdict(float)
    events: Counter[str] = Counter()

    # Programs are compiled in several threads.
    lock = threading.Lock()

    def add(event: str, duration_secs: float, **_: Any) -> None:
        with lock:
            seconds[event] += duration_secs
            events[event] += 1

    jax.monitoring.register_event_duration_secs_listener(add)
    jax.monitoring.register_event_listener(lambda event, **_: add(event, 0.0))
    code = cli.main(arguments)
    if code:
        sys.exit(code)
    return {
        "trace_seconds": seconds[_TRACE],
        "lower_seconds": seconds[_LOWER],
        "compile_seconds": seconds[_COMPILE],
        "programs": events[_COMPILE],
        "cached_programs": events[_HIT],
        "peak_bytes": peak_bytes(),
    }


def render(result: Mapping[str, Any]) -> str:
    """Table of the commands."""
    rows = [_row(line, **measured["caches"]) for line, measured in result["commands"].items()]
    sizes = ", ".join(mebibytes(entry["cache_bytes"]) for entry in result["commands"].values())
    imports = ", ".join(f"import {name} {seconds:.2f} s" for name, seconds in result["import_seconds"].items())
    table = tables.table(f"hades COMMAND {result['flags']}, with an empty cache and with a full one", _HEADER, rows)
    return f"{table}\n{imports}\nthe full caches hold {sizes}"


def _row(line: str, empty: Mapping[str, Any], full: Mapping[str, Any]) -> tuple[str, ...]:
    def both(*names: str, unit: float = 1.0) -> str:
        return ", ".join(f"{sum(entry[name] for name in names) / unit:.1f}" for entry in (empty, full))

    return (
        line,
        both("total_seconds"),
        both("trace_seconds", "lower_seconds"),
        both("compile_seconds"),
        str(empty["programs"]),
        both("peak_bytes", unit=2**30),
    )


BENCH = Bench(CompileSettings, measure, render, in_processes=True)
