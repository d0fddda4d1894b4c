"""`hades bench meta-gradient`: outer steps per second at the published size, several seeds at once, and memory."""

from __future__ import annotations

import itertools
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import tyro

from experiments import tables
from experiments.arguments import parse
from experiments.bench._lib.measuring import compile_step, compiled_bytes
from experiments.bench._lib.memory import measure_apart, peak_bytes
from experiments.bench._lib.results import deliver, provenance
from hades._serialization import to_dict
from hades._validation import require_positive
from hades.offline import Teacher, Transitions
from hades.recipes.offline import OfflineSettings, offline_run
from hades.recipes.published import paper_offline
from hades.types import Continuous

_OBSERVATION_DIM, _ACTION_DIM, _TRANSITIONS = 11, 3, 20_000
_ACTION_VALUE = 300.0


@dataclass(frozen=True, kw_only=True)
class MetaGradientBenchSettings:
    """Times outer steps of Av-PBC at the published size: N=256, 100 inner steps, MLP 3x256, 10 x 256 states.

    Data and teacher are random numbers of Hopper's shapes: nothing is learned, and the arithmetic is the same.
    """

    num_seeds: tuple[int, ...] = (1, 5)
    """Seeds at once, one measurement each, in a process of its own."""
    repeats: int = 5
    """Outer steps that are timed, after one that is not."""
    settings: Annotated[OfflineSettings, tyro.conf.arg(name="")] = paper_offline()
    """What is timed."""
    out: Path | None = None
    """JSON file to write."""
    json: bool = False
    """Prints one JSON object as the last line of stdout, and everything else on stderr."""

    def __post_init__(self) -> None:
        """Refuses counts that are not positive."""
        for count in self.num_seeds:
            require_positive("num_seeds", count)
        require_positive("repeats", self.repeats)


def main(arguments: Sequence[str]) -> int:
    """Runs the benchmark and returns its exit code."""
    settings = parse(MetaGradientBenchSettings, "bench meta-gradient", arguments)
    results = {}
    for count in settings.num_seeds:
        apart = [str(count), *arguments]
        results[str(count)] = measure_apart("experiments.bench.meta_gradient", apart, f"{count} seeds at once")
    rows = [
        (
            count,
            f"{result['seconds']:.3f}",
            f"{1 / result['seconds']:.2f}",
            f"{result['compile_seconds']:.1f}",
            f"{result['memory']['temporary_bytes'] / 2**20:.0f}",
            f"{(result['peak_bytes'] - result['imports_bytes']) / 2**20:.0f}",
        )
        for count, result in results.items()
    ]
    header = (
        "seeds",
        "s per outer step",
        "steps/s",
        "compilation [s]",
        "temporaries [MiB]",
        "peak above imports [MiB]",
    )
    print(tables.table("meta-gradient at the published size", header, rows))
    report = provenance("meta-gradient", arguments) | {"settings": to_dict(settings.settings), "results": results}
    deliver(report, settings.out, settings.json)
    return 0


def measure(count: str, *arguments: str) -> dict[str, Any]:
    """Measures so many seeds at once in this process.

    Returns:
        `seconds` per outer step of all seeds (median), `all_seconds`, `compile_seconds`, `memory` (what the compiler
        set aside), `imports_bytes` and `peak_bytes` (largest resident memory before compilation and in all), and
        `device_peak_bytes` (None where the device does not say).
    """
    settings = parse(MetaGradientBenchSettings, "bench meta-gradient", list(arguments))
    run = offline_run(spaces(), random_transitions(), settings.settings, random_teacher())
    imports = peak_bytes()
    data, init, advance = run.with_data
    keys = jax.random.split(jax.random.key(0), int(count))
    states = jax.block_until_ready(jax.jit(jax.vmap(init, in_axes=(None, 0)))(data, keys))
    step, compile_seconds = compile_step(jax.vmap(advance, in_axes=(None, 0)), data, states)
    states, _ = jax.block_until_ready(step(data, states))
    times = []
    for _ in range(settings.repeats):
        started = time.perf_counter()
        states, _ = jax.block_until_ready(step(data, states))
        times.append(time.perf_counter() - started)
    return {
        "seconds": statistics.median(times),
        "all_seconds": times,
        "compile_seconds": compile_seconds,
        "memory": compiled_bytes(step),
        "imports_bytes": imports,
        "peak_bytes": peak_bytes(),
        "device_peak_bytes": (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use"),
    }


def spaces() -> Any:
    """What a run asks of an environment that it never plays in, with Hopper's shapes."""
    bounds = (-1.0,) * _ACTION_DIM, (1.0,) * _ACTION_DIM
    return SimpleNamespace(
        name="shapes/hopper",
        options={},
        observation_shape=(_OBSERVATION_DIM,),
        action_space=Continuous(*bounds),
        max_steps=1000,
    )


def random_transitions() -> Transitions:
    """Standard normal states and uniform actions."""
    state_key, action_key = jax.random.split(jax.random.key(0))
    observations = jax.random.normal(state_key, (_TRANSITIONS, _OBSERVATION_DIM))
    actions = jax.random.uniform(action_key, (_TRANSITIONS, _ACTION_DIM), minval=-1.0, maxval=1.0)
    no = jnp.zeros(_TRANSITIONS, bool)
    return Transitions(observations, actions, jnp.zeros(_TRANSITIONS), observations, no, no)


def random_teacher() -> Teacher:
    """A teacher of the published size with random weights, and action values near those of the published ones."""

    def layers(key: jax.Array, sizes: Sequence[int]) -> tuple[tuple[jax.Array, jax.Array], ...]:
        shapes = list(itertools.pairwise(sizes))
        keys = jax.random.split(key, len(shapes))
        return tuple(
            (jax.random.normal(key, shape) / shape[0] ** 0.5, jnp.zeros(shape[1]))
            for key, shape in zip(keys, shapes, strict=True)
        )

    keys = jax.random.split(jax.random.key(1), 3)
    inputs = _OBSERVATION_DIM + _ACTION_DIM
    value = jnp.full(1, _ACTION_VALUE)
    actor = layers(keys[0], (_OBSERVATION_DIM, 256, 256, 256, 2 * _ACTION_DIM))
    first, second = (layers(key, (inputs, 256, 256, 1)) for key in keys[1:])
    first, second = ((*critic[:-1], (critic[-1][0], value)) for critic in (first, second))
    ones, bounds = jnp.ones(_OBSERVATION_DIM), jnp.ones(_ACTION_DIM)
    return Teacher(actor, (first, second), 0 * ones, ones, jnp.ones(()), jnp.zeros(()), -bounds, bounds)


if __name__ == "__main__":
    print(json.dumps(measure(*sys.argv[1:])))
