"""`hades bench cost`: what each method costs in compilation, time, memory, and to train one more policy.

As a program, `python -m experiments.bench.cost METHOD ENV GENERATIONS [FLAGS]` measures one method in its own process.
"""

from __future__ import annotations

import json
import shlex
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import jax

from experiments import running, tables
from experiments.arguments import parse
from experiments.bench._lib.measuring import compile_step
from experiments.bench._lib.memory import measure_apart, peak_bytes
from experiments.bench._lib.results import deliver, provenance
from experiments.bench._lib.runs import METHODS, Method, method_flags
from experiments.commands.baseline import COMMANDS
from experiments.commands.distill import COMMAND
from hades._validation import require_positive
from hades.dataset import SyntheticDataset
from hades.inner import cloning
from hades.run import Run

_BUDGET = 10**6
_REPEATS = 20
_HEADER = ("method", "compile [s]", "s/generation", "steps/s", "one more policy", "peak memory", "above imports")
_MEBIBYTE = 2**20


@dataclass(frozen=True, kw_only=True)
class CostSettings:
    """Measures each method in a process of its own: compilation, a generation, one more policy, and peak memory.

    One more policy is what a user pays who has the finished run and needs a policy of another initialisation: HaDES-R
    trains it on the dataset; the others, HaDES-F too, would have to run again. Compilation leaves the cache out.
    """

    env: str = "gymnax/CartPole-v1"
    """Environment; settings are those of its small presets, or the defaults."""
    methods: tuple[Method, ...] = METHODS
    """Methods to measure."""
    generations: int = 5
    """Generations (of PPO: updates) to time, after one that does not count."""
    flags: str = ""
    """More flags of hades distill and hades baseline in one string, such as --flags="--population-size 2048"."""
    out: Path | None = None
    """JSON file to write."""
    json: bool = False
    """Prints one JSON object as the last line of stdout, and everything else on stderr."""

    def __post_init__(self) -> None:
        """Refuses a number of generations that is not positive."""
        require_positive("generations", self.generations)


def main(arguments: Sequence[str]) -> int:
    """Runs the benchmark and returns its exit code.

    Raises:
        ValueError: A measurement failed; the message has its last words.
    """
    settings = parse(CostSettings, "bench cost", arguments)
    methods = {method: _measure_apart(settings, method) for method in settings.methods}
    result = provenance("cost", arguments) | {"env": settings.env, "methods": methods}
    print(tables.table(f"cost on {settings.env}", _HEADER, [_row(name, entry) for name, entry in methods.items()]))
    print(f"{shlex.join(result['command'])}: medians of {settings.generations}, {', '.join(result['device'])}")
    deliver(result, settings.out, settings.json)
    return 0


def _measure_apart(settings: CostSettings, method: Method) -> dict[str, Any]:
    print(f"measuring {method} ...", file=sys.stderr, flush=True)
    arguments = [method, settings.env, str(settings.generations), *shlex.split(settings.flags)]
    return measure_apart("experiments.bench.cost", arguments, f"cost of {method} on {settings.env}")


def measure(method: Method, env: str, generations: int, flags: Sequence[str]) -> dict[str, Any]:
    """Measures one method in this process.

    Returns:
        `compile_seconds`, `seconds_per_iteration` (median), `steps_per_second`, `policy_seconds` (median; None where
        a policy takes a whole run), `imports_bytes` and `peak_bytes` (largest resident memory before compilation and
        in all), `device_peak_bytes` (None where the device does not say), and the `flags` that make the run.
    """
    first, *rest = method_flags(method, env, _BUDGET)
    command = COMMAND if first == "distill" else COMMANDS[rest.pop(0)]
    settings: Any = running.resolve(command, [*rest, *flags])
    run = running.build(settings, command)
    imports = peak_bytes()
    state = jax.block_until_ready(jax.jit(run.init)(jax.random.key(settings.seed)))
    step, compile_seconds = compile_step(run.step, state)
    state, metrics = jax.block_until_ready(step(state))
    seconds, steps = [], []
    for _ in range(generations):
        started = time.perf_counter()
        state, metrics = jax.block_until_ready(step(state))
        seconds.append(time.perf_counter() - started)
        steps.append(int(metrics["env_steps"]))
    return {
        "flags": [*rest, *flags],
        "compile_seconds": compile_seconds,
        "seconds_per_iteration": statistics.median(seconds),
        "steps_per_second": sum(steps) / sum(seconds),
        "policy_seconds": _policy_seconds(run, state) if method == "hades-r" else None,
        "imports_bytes": imports,
        "peak_bytes": peak_bytes(),
        "device_peak_bytes": (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use"),
    }


def _policy_seconds(run: Run[SyntheticDataset], state: Any) -> float:
    """Median time to train one policy on the dataset, compiled."""
    clone = jax.jit(cloning.from_settings(run.env, run.settings.cloning))
    dataset = jax.jit(run.dataset)(state)
    jax.block_until_ready(clone(jax.random.key(0), dataset))
    seconds = []
    for index in range(_REPEATS):
        started = time.perf_counter()
        jax.block_until_ready(clone(jax.random.key(index), dataset))
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def _row(method: str, entry: dict[str, Any]) -> tuple[str, ...]:
    policy = entry["policy_seconds"]
    return (
        method,
        f"{entry['compile_seconds']:.3g}",
        f"{entry['seconds_per_iteration']:.3g}",
        f"{entry['steps_per_second']:.3g}",
        "a whole run" if policy is None else f"{policy * 1e3:.3g} ms",
        f"{entry['peak_bytes'] / _MEBIBYTE:,.0f} MiB",
        f"{(entry['peak_bytes'] - entry['imports_bytes']) / _MEBIBYTE:,.0f} MiB",
    )


if __name__ == "__main__":
    method, env, generations, *flags = sys.argv[1:]
    print(json.dumps(measure(cast(Method, method), env, int(generations), flags)))
