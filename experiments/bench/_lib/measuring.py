"""What is measured of one generation: seconds of compilation and of work, memory, and the fitness itself."""

from __future__ import annotations

import contextlib
import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import envs
from experiments.bench._lib import straightforward
from experiments.bench._lib.cases import Case
from hades import recipes
from hades.dataset import SyntheticDataset
from hades.fitness import make_fitness
from hades.inner import cloning
from hades.outer.evolution import Evolution
from hades.rollouts.first_episode import make_rollout
from hades.run import Run, RunState
from hades.types import PyTree, require_pure

FORMULATIONS = ("straightforward", "hades")
"""In the order of their turns."""

FIRST, TRAINED = "first generation", "trained dataset"


@dataclass(frozen=True)
class Prepared:
    """A case ready to be measured.

    Attributes:
        run: The run.
        states: The state before the generation, by the kind of population.
    """

    run: Run
    states: Mapping[str, RunState]


def prepare(case: Case, seed: int) -> Prepared:
    """Makes environment, run and first states; compiles nothing of the generation."""
    env = require_pure(envs.make(case.env, **case.env_options))
    run = recipes.from_settings(env, case.settings)
    state = run.init(jax.random.key(seed))
    states = {FIRST: state}
    if case.trained is not None:
        dataset = dataclasses.replace(run.dataset(state), observations=jnp.array(case.trained))
        solution = straightforward.solution_of(dataset, run.settings)
        evolution = Evolution(solution, run.settings.population_size, run.settings.evolution)
        outer = evolution.init(jax.random.key(seed), solution)
        states[TRAINED] = dataclasses.replace(state, outer=outer)
    return Prepared(run, states)


def make_step(formulation: str, prepared: Prepared) -> Callable[[RunState], Any]:
    """One generation in one of `FORMULATIONS`."""
    if formulation == "hades":
        return prepared.run.step
    return straightforward.make_step(prepared.run, prepared.states[FIRST])


def compile_step(step: Callable[..., Any], *arguments: PyTree) -> tuple[Any, float]:
    """Compiles a step for such arguments, and says in how many seconds; a compilation cache is left out of it."""
    with _without_cache():
        started = time.perf_counter()
        compiled = jax.jit(step).lower(*arguments).compile()
        return compiled, time.perf_counter() - started


def compiled_bytes(compiled: Any) -> dict[str, int]:
    """What the compiler set aside: bytes of temporaries and of results."""
    analysis = compiled.memory_analysis()
    temporary, output = int(analysis.temp_size_in_bytes), int(analysis.output_size_in_bytes)
    return {"temporary_bytes": temporary, "output_bytes": output, "total_bytes": temporary + output}


def measure_case(case: Case, repeats: int, seed: int) -> dict[str, Any]:
    """Measures both formulations of a case, in turns within this process.

    Args:
        case: The case.
        repeats: Turns of each formulation, after one that does not count.
        seed: Of the run.

    Returns:
        `compile_seconds` and `memory` by formulation, and by population `seconds`, `cpu_seconds`, `speed_ratio`,
        `fitness_mean` and `fitness_max_abs_difference`.
    """
    prepared = prepare(case, seed)
    compiled, compile_seconds = {}, {}
    for name in FORMULATIONS:
        compiled[name], compile_seconds[name] = compile_step(make_step(name, prepared), prepared.states[FIRST])
    values = jax.jit(lambda state, datasets: hades_values(prepared.run, state, datasets))
    populations = {}
    for population, state in prepared.states.items():
        _, metrics, everything = compiled["straightforward"](state)
        difference = np.max(np.abs(np.asarray(everything.values - values(state, everything.datasets))))
        expected = float(metrics["fitness_mean"])
        del everything
        seconds, cpu_seconds = in_turns(compiled, state, repeats)
        populations[population] = {
            "seconds": seconds,
            "cpu_seconds": cpu_seconds,
            "speed_ratio": _ratio(seconds, "median"),
            "speed_ratio_of_min": _ratio(seconds, "min"),
            "cpu_ratio": _ratio(cpu_seconds, "median"),
            "fitness_mean": {"straightforward": expected, "hades": float(compiled["hades"](state)[1]["fitness_mean"])},
            "fitness_max_abs_difference": float(difference),
        }
    memory: dict[str, Any] = {name: compiled_bytes(function) for name, function in compiled.items()}
    return {"compile_seconds": compile_seconds, "memory": memory, "populations": populations}


def hades_values(run: Run, state: RunState, datasets: SyntheticDataset) -> jax.Array:
    """The fitness that hades gives to the candidates of a generation, `[population]`."""
    settings = run.settings
    clone = cloning.from_settings(run.env, settings.cloning)
    rollout = make_rollout(
        run.env, clone.policy, settings.num_episodes, settings.action_selection, settings.normalization_envs
    )
    fitness = make_fitness(clone, rollout, settings.cloning_chunk_size, settings.rollout_chunk_size)
    _, keys = straightforward.generation_keys(state, settings)
    return fitness(keys, datasets, state.normalizer).values


def in_turns(
    functions: Mapping[str, Callable[[PyTree], Any]], argument: PyTree, repeats: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Times functions in turns (A, B, A, B, ...), so that a busy machine is busy for all of them.

    Returns:
        Wall-clock seconds and seconds of CPU time of the whole process; by name `median`, `min` and `all`.
    """
    wall: dict[str, list[float]] = {name: [] for name in functions}
    cpu: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        jax.block_until_ready(function(argument))
    for _ in range(repeats):
        for name, function in functions.items():
            started, cpu_started = time.perf_counter(), time.process_time()
            result = jax.block_until_ready(function(argument))
            wall[name].append(time.perf_counter() - started)
            cpu[name].append(time.process_time() - cpu_started)
            # Freed before the other formulation's turn.
            del result
    return _summaries(wall), _summaries(cpu)


def _summaries(seconds: Mapping[str, list[float]]) -> dict[str, Any]:
    return {
        name: {"median": statistics.median(values), "min": min(values), "all": values}
        for name, values in seconds.items()
    }


def _ratio(seconds: Mapping[str, Mapping[str, float]], statistic: str) -> float:
    return seconds["straightforward"][statistic] / seconds["hades"][statistic]


@contextlib.contextmanager
def _without_cache() -> Iterator[None]:
    before = jax.config.jax_enable_compilation_cache  # type: ignore[attr-defined]
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
