"""`hades bench scaling`: one iteration over 1, 2, 4 and 8 devices: the same values, and what spreading costs."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from experiments import tables
from experiments.bench._lib.apart import measure_apart
from experiments.bench._lib.base import Bench, BenchSettings, Report
from experiments.bench._lib.memory import mebibytes, peak_bytes, peaks
from experiments.bench._lib.runs import METHODS, Method, small_run, start
from experiments.bench._lib.timing import compile_step, time_in_turns
from experiments.processes import forced_devices

_HEADER = ("devices", "mesh", "compile [s]", "s/iteration", "CPU s/iteration", "of the fewest", "fitness", "memory")


@dataclass(frozen=True, kw_only=True)
class ScalingSettings(BenchSettings):
    """Measures an iteration of a method over several devices, each number of them in a process of its own.

    On a CPU devices are forced, and share its cores: seconds fall by the cores that one device leaves idle, and CPU
    time above that of one device is what spreading costs.
    """

    method: Method = "hades-r"
    """Method to measure."""
    env: str = "gymnax/CartPole-v1"
    """Environment; settings are those of its small presets, or the defaults."""
    devices: tuple[int, ...] = (1, 2, 4, 8)
    """Numbers of devices."""
    num_iterations: int = 5
    """Iterations to time, after one that does not count."""
    flags: str = ""
    """More flags of hades distill or hades baseline in one string, such as --flags="--population-size 2048"."""

    def __post_init__(self) -> None:
        """Refuses numbers that are not positive, and a method that takes one device."""
        self.require_positive("devices", "num_iterations")
        if self.method not in METHODS or self.method == "ppo":
            raise ValueError(f"method: expected one that several devices share, got {self.method}")


def measure(settings: ScalingSettings, report: Report) -> None:
    """Measures every number of devices in a process of its own."""
    counts: dict[str, Any] = {}
    report.content.update(method=settings.method, env=settings.env, num_iterations=settings.num_iterations)
    forced = forced_devices(settings.devices)
    for count in settings.devices:
        arguments = [settings.method, settings.env, str(settings.num_iterations), str(count)]
        label = f"{settings.method} on {settings.env} over {count} devices"
        counts[str(count)] = measure_apart(measure_devices, [*arguments, *shlex.split(settings.flags)], label, forced)
        report.add(devices=counts)


def measure_devices(method: str, env: str, num_iterations: str, count: str, *flags: str) -> dict[str, Any]:
    """Measures one number of devices in this process.

    Returns:
        `mesh`, `compile_seconds`, `seconds_per_iteration` and `cpu_seconds_per_iteration` (medians), `fitness_mean` of
        the first iteration, and the peaks of `experiments.bench._lib.memory.peaks`.
    """
    run, seed, _ = small_run(cast(Method, method), env, ["--devices", count, *flags])
    imports = peak_bytes()
    run, state = start(run, seed)
    step, compile_seconds = compile_step(run.step, state)
    _, metrics = step(state)
    wall, cpu = time_in_turns({method: step}, state, int(num_iterations))
    assert run.mesh is not None  # of every method that several devices share
    return {
        "mesh": dict(run.mesh.shape),
        "compile_seconds": compile_seconds,
        "seconds_per_iteration": wall[method]["median"],
        "cpu_seconds_per_iteration": cpu[method]["median"],
        "fitness_mean": float(np.asarray(metrics["fitness_mean"])),
        **peaks(imports),
    }


def render(result: Mapping[str, Any]) -> str:
    """Table of the numbers of devices."""
    entries = result["devices"]
    first = entries[min(entries, key=int)]
    rows = [_row(count, entry, first) for count, entry in entries.items()]
    title = f"{result['method']} on {result['env']}, medians of {result['num_iterations']} iterations"
    return tables.table(title, _HEADER, rows)


def _row(count: str, entry: Mapping[str, Any], first: Mapping[str, Any]) -> tuple[str, ...]:
    cpu = entry["cpu_seconds_per_iteration"]
    return (
        count,
        " x ".join(str(size) for size in entry["mesh"].values()),
        f"{entry['compile_seconds']:.3g}",
        f"{entry['seconds_per_iteration']:.3g}",
        f"{cpu:.3g}",
        f"{cpu / first['cpu_seconds_per_iteration']:.0%}",
        f"{entry['fitness_mean']:.6g}",
        mebibytes(entry["peak_bytes"]),
    )


BENCH = Bench(ScalingSettings, measure, render, in_processes=True)
