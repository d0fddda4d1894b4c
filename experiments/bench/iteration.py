"""`hades bench iteration`: an iteration under several values of a setting: compilation, time and memory."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import jax
import numpy as np

from experiments import tables
from experiments.arguments import flag_value
from experiments.bench._lib.base import Bench, BenchSettings, Report, tell
from experiments.bench._lib.memory import compiled_bytes, mebibytes
from experiments.bench._lib.runs import Method, small_run, start
from experiments.bench._lib.timing import compile_step, time_in_turns
from hades._validation import require_not_negative
from hades.run import RunState
from hades.tuning import unless_exhausted
from hades.types import Metrics

Step: TypeAlias = Callable[[RunState], tuple[RunState, Metrics]]

_HEADER = ("compile [s]", "s/iteration", "CPU s/iteration", "of the first", "memory", "fitness", "env steps")


@dataclass(frozen=True, kw_only=True)
class IterationSettings(BenchSettings):
    """Compares the values of a setting that changes the work of an iteration but not what it computes.

    Such are the candidates that are rolled out or cloned at once, and halvings of rollouts: --setting
    rollout-chunk-size --values None 32 16 8 finds the chunks that fit the memory, and the fastest of these. All values
    run in one process, one iteration of each after the other; those that do not fit are named. The first value is
    compiled twice, as the first time takes more than its own. Numbers of devices are compared by hades bench scaling.
    Small presets of games have chunks of their own on a CPU: --flags="--cpu-chunk-size None" leaves them out.
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
    """Iterations to time, after one that does not count; all begin at the same state."""
    after: int = 0
    """Iterations of the first value before that state: episodes of trained policies have other lengths."""
    devices: int = 1
    """Devices that an iteration is spread over, the first of those that JAX has; a CPU is made as many."""
    flags: str = ""
    """More flags of hades distill or hades baseline in one string, such as --flags="--population-size 2048"."""

    def __post_init__(self) -> None:
        """Refuses numbers out of range, and devices."""
        self.require_positive("num_iterations", "devices")
        require_not_negative("after", self.after)
        if self.setting == "devices":
            raise ValueError("setting: expected one that a process can change, devices are for hades bench scaling")
        if flag_value(shlex.split(self.flags), "--devices") is not None:
            raise ValueError("flags: expected none of devices, which --devices gives")
        if self.method == "ppo" and self.devices > 1:
            raise ValueError(f"devices: expected 1, as PPO works on one device, got {self.devices}")

    @property
    def cpu_devices(self) -> int:
        """Devices that a CPU is made."""
        return self.devices


def measure(settings: IterationSettings, report: Report) -> None:
    """Compiles an iteration of every value, and takes them in turns."""
    names = ("method", "env", "setting", "num_iterations", "after", "devices")
    entries: dict[str, dict[str, Any]] = {}
    report.content.update({name: getattr(settings, name) for name in names} | {"values": entries})
    steps: dict[str, Step] = {}
    state: RunState | None = None
    for value in settings.values:
        tell(f"compiling {settings.setting} {value} ...")
        own = ["--devices", str(settings.devices), f"--{settings.setting}", *shlex.split(value)]
        flags = [*shlex.split(settings.flags), *own]
        run, seed, _ = small_run(settings.method, settings.env, flags)
        run, first = start(run, seed)
        tried = unless_exhausted(partial(_try, run.step, first, state, settings.after))
        if tried is None:
            entries[value] = {"fits": False}
        else:
            state, steps[value], entries[value] = tried
        report.add()
    wall, cpu = time_in_turns(steps, state, settings.num_iterations)
    for value in steps:
        entries[value] |= {"seconds": wall[value], "cpu_seconds": cpu[value]}
    report.add()


def _try(step: Step, first: RunState, state: RunState | None, after: int) -> tuple[RunState, Step, dict[str, Any]]:
    """The state that is measured at, which is found where there is none yet; the compiled step; and its entry."""
    if state is None:
        state = _advanced(compile_step(step, first)[0], first, after)
    compiled, seconds = compile_step(step, state)
    _, metrics = jax.block_until_ready(compiled(state))
    entry = {
        "fits": True,
        "compile_seconds": seconds,
        **compiled_bytes(compiled),
        "env_steps": int(np.sum(metrics.get("env_steps", 0))),
        "fitness_mean": float(metrics["fitness_mean"]),
    }
    return state, compiled, entry


def _advanced(step: Step, state: RunState, count: int) -> RunState:
    for _ in range(count):
        state, _ = step(state)
    return state


def render(result: Mapping[str, Any]) -> str:
    """Table of the values."""
    entries = result["values"]
    first = next((entry["cpu_seconds"]["median"] for entry in entries.values() if entry["fits"]), None)
    rows = [(value, *_cells(entry, first)) for value, entry in entries.items()]
    title = f"{result['method']} on {result['env']}, medians of {result['num_iterations']} iterations"
    return tables.table(title, (result["setting"], *_HEADER), rows)


def _cells(entry: Mapping[str, Any], first: float | None) -> tuple[str, ...]:
    # There is a first one unless none fits.
    if first is None or not entry["fits"]:
        return ("does not fit", *[""] * (len(_HEADER) - 1))
    cpu = entry["cpu_seconds"]["median"]
    return (
        f"{entry['compile_seconds']:.1f}",
        f"{entry['seconds']['median']:.3g}",
        f"{cpu:.3g}",
        f"{cpu / first:.0%}",
        mebibytes(entry["total_bytes"]),
        f"{entry['fitness_mean']:.6g}",
        f"{entry['env_steps']:,}",
    )


BENCH = Bench(IterationSettings, measure, render)
