"""`hades bench meta-gradient`: an outer step at the published size, of several seeds at once over several devices."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import tables
from experiments.arguments import parse
from experiments.bench._lib.apart import measure_apart
from experiments.bench._lib.base import Bench, BenchSettings, Report
from experiments.bench._lib.memory import compiled_bytes, peak_bytes, peaks
from experiments.bench._lib.seeds import init_seeds
from experiments.bench._lib.timing import compile_step, time_in_turns
from experiments.processes import forced_devices
from experiments.settings import Flat, first_devices
from hades._serialization import to_dict
from hades.distillation import DatasetRun
from hades.objectives.states import av_pbc
from hades.offline import Teacher, Transitions
from hades.recipes.offline import OfflineSettings, offline_run
from hades.recipes.published import paper_offline
from hades.run import RunState
from hades.sharding import Devices, population_mesh, replicate
from hades.types import Continuous, HostSimulator, Metrics

_OBSERVATION_DIM, _ACTION_DIM, _TRANSITIONS = 11, 3, 20_000
_ACTION_VALUE = 300.0
_HEADER = (
    "seeds",
    "devices",
    "s per outer step",
    "CPU s",
    "compilation [s]",
    "fitness",
    "temporaries [MiB]",
    "peak above imports [MiB]",
)


@dataclass(frozen=True, kw_only=True)
class MetaGradientBenchSettings(BenchSettings):
    """Times outer steps of Av-PBC at the published size: N=256, 100 inner steps, MLP 3x256, 10 x 256 states.

    Data and teacher are random numbers of Hopper's shapes: nothing is learned, and the arithmetic is the same.
    """

    num_seeds: tuple[int, ...] = (1, 5)
    """Seeds at once, one measurement each, in a process of its own."""
    devices: tuple[int, ...] = (1,)
    """Numbers of devices that share the seeds, one measurement each. Those of a CPU are forced, and share its cores."""
    repeats: int = 5
    """Outer steps that are timed, after one that is not."""
    settings: Annotated[OfflineSettings, Flat] = paper_offline()
    """The method."""

    def __post_init__(self) -> None:
        """Refuses counts that are not positive."""
        self.require_positive("num_seeds", "devices", "repeats")


def measure(settings: MetaGradientBenchSettings, report: Report) -> None:
    """Measures every number of seeds over every number of devices in a process of its own."""
    arguments = report.content["command"][3:]
    results: list[dict[str, Any]] = []
    report.content["settings"] = to_dict(settings.settings)
    forced = forced_devices(settings.devices)
    for count, devices in itertools.product(settings.num_seeds, settings.devices):
        label = f"{count} seeds over {devices} devices"
        measured = measure_apart(measure_seeds, [str(count), str(devices), *arguments], label, forced)
        results.append({"num_seeds": count, "devices": devices, **measured})
        report.add(results=results)


def measure_seeds(count: str, devices: str, *arguments: str) -> dict[str, Any]:
    """Measures so many seeds at once in this process, shared by so many devices.

    Returns:
        `seconds` and `cpu_seconds` per outer step of all seeds (`median`, `min` and `all`), `compile_seconds`,
        `fitness` of the first step `[seeds]`, `memory` (bytes that the compiler set aside on each device), and the
        peaks of `experiments.bench._lib.memory.peaks`.
    """
    settings = parse(MetaGradientBenchSettings, "bench meta-gradient", list(arguments))
    mesh = population_mesh(first_devices(int(devices)))
    run = offline_run(HopperShapes(), random_transitions(), av_pbc, settings.settings, random_teacher())
    imports = peak_bytes()
    keys = jax.random.split(jax.random.key(2), int(count))
    run, states = replicate((run, init_seeds(run, keys)), mesh)

    def step_seeds(run: DatasetRun, states: RunState) -> tuple[RunState, Metrics]:
        return Devices(mesh).map(lambda own, run: jax.vmap(run.step)(own), states, run)

    step, compile_seconds = compile_step(step_seeds, run, states)
    _, metrics = step(run, states)
    wall, cpu = time_in_turns({"seeds": partial(step, run)}, states, settings.repeats)
    return {
        "seconds": wall["seeds"],
        "cpu_seconds": cpu["seeds"],
        "compile_seconds": compile_seconds,
        "fitness": np.asarray(metrics["fitness_mean"], float).tolist(),
        "memory": compiled_bytes(step),
        **peaks(imports),
    }


@dataclass(frozen=True)
class HopperShapes:
    """Spaces of Hopper, of an environment that runs ask for and nothing plays in."""

    name: str = "shapes/hopper"
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    observation_shape: tuple[int, ...] = (_OBSERVATION_DIM,)
    action_space: Continuous = Continuous((-1.0,) * _ACTION_DIM, (1.0,) * _ACTION_DIM)
    max_steps: int = 1000

    def simulate(self, seeds: np.ndarray) -> HostSimulator:
        """Refuses to play."""
        raise RuntimeError(f"{self.name}: expected nobody to play, got {len(seeds)} episodes")


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


def render(result: Mapping[str, Any]) -> str:
    """Table of seconds and memory by the numbers of seeds and devices."""
    rows = [
        (
            str(measured["num_seeds"]),
            str(measured["devices"]),
            f"{measured['seconds']['median']:.3f}",
            f"{measured['cpu_seconds']['median']:.3f}",
            f"{measured['compile_seconds']:.1f}",
            f"{statistics.mean(measured['fitness']):.6g}",
            f"{measured['memory']['temporary_bytes'] / 2**20:.0f}",
            f"{(measured['peak_bytes'] - measured['imports_bytes']) / 2**20:.0f}",
        )
        for measured in result["results"]
    ]
    return tables.table("an outer step of Av-PBC", _HEADER, rows)


BENCH = Bench(MetaGradientBenchSettings, measure, render, in_processes=True)
