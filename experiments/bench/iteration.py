"""`hades bench iteration`: an iteration under several values of a setting: compilation, time and memory."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from experiments import tables
from experiments.bench._lib.base import Bench, BenchSettings, Report, tell
from experiments.bench._lib.memory import compiled_bytes, mebibytes
from experiments.bench._lib.runs import Method, small_run, start
from experiments.bench._lib.timing import compile_step, time_in_turns

_HEADER = ("compile [s]", "s/iteration", "CPU s/iteration", "of the first", "memory", "fitness", "env steps")


@dataclass(frozen=True, kw_only=True)
class IterationSettings(BenchSettings):
    """Compares the values of a setting that changes the work of an iteration but not what it computes.

    Such are the candidates that are rolled out or cloned at once, and halvings of rollouts: --setting
    rollout-chunk-size --values None 32 16 8 finds the chunks that fit the memory, and the fastest of these. All values
    run in one process, one iteration of each after the other.
    """

    method: Method = "hades-r"
    """Method to measure."""
    env: str = "gymnax/CartPole-v1"
    """Environment; settings are those of its small presets, or the defaults."""
    setting: str = "rollout-chunk-size"
    """Flag whose values are compared."""
    values: tuple[str, ...] = ("None", "32", "16", "8")
    """Values of the flag; one of several words, such as a value with another flag, in quotes."""
    num_iterations: int = 5
    """Iterations to time, after one that does not count; each begins at the same state."""
    after: int = 0
    """Iterations before that state: episodes of trained policies have other lengths."""
    flags: str = ""
    """More flags of hades distill or hades baseline in one string, such as --flags="--population-size 2048"."""

    def __post_init__(self) -> None:
        """Refuses numbers out of range, no values, and one that stands twice."""
        self.require_positive("num_iterations")
        if self.after < 0:
            raise ValueError(f"after: expected at least 0, got {self.after}")
        self.require_each_once("values")


def measure(settings: IterationSettings, report: Report) -> None:
    """Compiles an iteration of every value, and takes them in turns."""
    names = ("method", "env", "setting", "num_iterations", "after")
    report.content.update({name: getattr(settings, name) for name in names})
    entries: dict[str, dict[str, Any]] = {}
    steps: dict[str, Callable[[None], Any]] = {}
    for value in settings.values:
        tell(f"compiling {settings.setting} {value} ...")
        flags = [*shlex.split(settings.flags), f"--{settings.setting}", *shlex.split(value)]
        run, seed, _ = small_run(settings.method, settings.env, flags)
        run, state = start(run, seed)
        step, seconds = compile_step(run.step, state)
        for _ in range(settings.after):
            state, _ = step(state)
        entries[value] = {"compile_seconds": seconds, **compiled_bytes(step)}
        steps[value] = _bound(step, jax.block_until_ready(state))
    wall, cpu = time_in_turns(steps, None, settings.num_iterations)
    for value, entry in entries.items():
        _, metrics = steps[value](None)
        entry["seconds"], entry["cpu_seconds"] = wall[value], cpu[value]
        entry["env_steps"] = int(np.sum(metrics.get("env_steps", 0)))
        entry["fitness_mean"] = float(metrics["fitness_mean"])
    report.add(values=entries)


def _bound(step: Callable[[Any], Any], state: Any) -> Callable[[None], Any]:
    return lambda _: step(state)


def render(result: Mapping[str, Any]) -> str:
    """Table of the values."""
    first = next(iter(result["values"].values()))["cpu_seconds"]["median"]
    rows = [
        (
            value,
            f"{entry['compile_seconds']:.1f}",
            f"{entry['seconds']['median']:.3g}",
            f"{entry['cpu_seconds']['median']:.3g}",
            f"{entry['cpu_seconds']['median'] / first:.0%}",
            mebibytes(entry["total_bytes"]),
            f"{entry['fitness_mean']:.6g}",
            f"{entry['env_steps']:,}",
        )
        for value, entry in result["values"].items()
    ]
    title = f"{result['method']} on {result['env']}, medians of {result['num_iterations']} iterations"
    return tables.table(title, (result["setting"], *_HEADER), rows)


BENCH = Bench(IterationSettings, measure, render)
