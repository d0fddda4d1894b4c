"""`hades bench cost`: compilation, time and memory of each method, and the price of one more policy."""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import jax
import numpy as np

from experiments import tables
from experiments.bench._lib.apart import measure_apart
from experiments.bench._lib.base import Bench, BenchSettings, Report
from experiments.bench._lib.memory import mebibytes, peak_bytes, peaks
from experiments.bench._lib.runs import METHODS, Method, small_run, start
from experiments.bench._lib.seeds import table_key
from experiments.bench._lib.timing import compile_step, time_steps
from hades.dataset import SyntheticDataset
from hades.inner import cloning
from hades.run import Run, RunState
from hades.sharding import own_copy

_REPEATS = 20
_HEADER = ("method", "compile [s]", "s/iteration", "steps/s", "one more policy", "peak memory", "above imports")


@dataclass(frozen=True, kw_only=True)
class CostSettings(BenchSettings):
    """Measures each method in a process of its own: compilation, an iteration, one more policy, and peak memory.

    One more policy is what a user pays who has the finished run and needs a policy of another initialisation: HaDES-R
    trains it on the dataset; the others, HaDES-F too, would have to run again. Compilation leaves the cache out.
    """

    env: str = "gymnax/CartPole-v1"
    """Environment; settings are those of its small presets, or the defaults."""
    methods: tuple[Method, ...] = METHODS
    """Methods to measure."""
    num_iterations: int = 5
    """Iterations to time, after one that does not count."""
    flags: str = ""
    """More flags of hades distill and hades baseline in one string, such as --flags="--population-size 2048"."""

    def __post_init__(self) -> None:
        """Refuses a number of iterations that is not positive."""
        self.require_positive("num_iterations")


def measure(settings: CostSettings, report: Report) -> None:
    """Measures every method in a process of its own."""
    methods: dict[str, Any] = {}
    report.content.update(env=settings.env, num_iterations=settings.num_iterations)
    for method in settings.methods:
        arguments = [method, settings.env, str(settings.num_iterations), *shlex.split(settings.flags)]
        methods[method] = measure_apart(measure_method, arguments, f"cost of {method} on {settings.env}")
        report.add(methods=methods)


def measure_method(method: str, env: str, num_iterations: str, *flags: str) -> dict[str, Any]:
    """Measures one method in this process.

    Returns:
        `compile_seconds`, `seconds_per_iteration` (median), `steps_per_second`, `policy_seconds` (median; None where
        a policy takes a whole run), the peaks of `experiments.bench._lib.memory.peaks`, and the `flags` that make the
        run.
    """
    run, seed, all_flags = small_run(cast(Method, method), env, flags)
    imports = peak_bytes()
    run, state = jax.block_until_ready(start(run, seed))
    step, compile_seconds = compile_step(run.step, state)
    state, seconds, rows = time_steps(step, state, int(num_iterations))
    env_steps = sum(int(np.sum(row["env_steps"], dtype=np.int64)) for row in rows)
    return {
        "flags": all_flags,
        "compile_seconds": compile_seconds,
        "seconds_per_iteration": statistics.median(seconds),
        "steps_per_second": env_steps / sum(seconds),
        "policy_seconds": _policy_seconds(run, state) if method == "hades-r" else None,
        **peaks(imports),
    }


def _policy_seconds(run: Run[SyntheticDataset], state: RunState) -> float:
    """Median time to train one policy on the dataset, compiled."""
    clone = jax.jit(cloning.from_settings(run.env, run.settings.cloning))
    # Of several devices, each would train the policy.
    dataset = jax.jit(run.outcome)(own_copy(state))
    keys = [table_key(0, index) for index in range(_REPEATS + 1)]
    _, seconds, _ = time_steps(lambda index: (index + 1, clone(keys[index], dataset)), 0, _REPEATS)
    return statistics.median(seconds)


def render(result: Mapping[str, Any]) -> str:
    """Table of the methods."""
    rows = [_row(name, entry) for name, entry in result["methods"].items()]
    return tables.table(f"cost on {result['env']}, medians of {result['num_iterations']}", _HEADER, rows)


def _row(method: str, entry: Mapping[str, Any]) -> tuple[str, ...]:
    policy = entry["policy_seconds"]
    return (
        method,
        f"{entry['compile_seconds']:.3g}",
        f"{entry['seconds_per_iteration']:.3g}",
        f"{entry['steps_per_second']:.3g}",
        "a whole run" if policy is None else f"{policy * 1e3:.3g} ms",
        mebibytes(entry["peak_bytes"]),
        mebibytes(entry["peak_bytes"] - entry["imports_bytes"]),
    )


BENCH = Bench(CostSettings, measure, render, in_processes=True)
