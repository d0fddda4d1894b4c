"""Cases of `hades bench generation`, and their runs and states."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import jax
import jax.numpy as jnp

import envs
from hades import recipes
from hades.distillation import DatasetRun
from hades.inner.cloning import CloningSettings
from hades.keys import Stream, stream
from hades.outer.evolution import EvolutionSettings
from hades.recipes.hades import HadesSettings
from hades.run import RunState
from hades.types import require_pure

FIRST, TRAINED = "first generation", "trained dataset"


@dataclass(frozen=True)
class Case:
    """One generation to measure.

    Attributes:
        env: Name of the environment.
        settings: Settings of HaDES, with the chunk sizes that were fastest on a CPU.
        env_options: Options of the environment.
        trained: Observations of a dataset whose policies play long episodes, `[pairs][*observation]` in the space
            that the policy sees; None for a case that is measured on the first generation only.
        target_speed: Least ratio of seconds, straightforward over hades, that the project asks for.
        target_memory: Largest ratio of memory, hades over straightforward, that the project asks for.
    """

    env: str
    settings: HadesSettings
    env_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    trained: tuple[tuple[float, ...], ...] | None = None
    target_speed: float = 1.0
    target_memory: float | None = None


def breakout() -> Case:
    """Breakout-MinAtar: most episodes are short, a few are long."""
    settings = HadesSettings(
        dataset_size=16,
        population_size=64,
        num_inits=2,
        num_episodes=4,
        learn_labels=False,
        cloning=CloningSettings(hidden_sizes=(256, 256), activation="relu", learning_rate=0.03, num_steps=32),
        evolution=EvolutionSettings("SNES", sigma=0.5, learning_rate=1.0, optimizer="sgd", temperature=20.0),
        cloning_chunk_size=2,
        rollout_chunk_size=2,
    )
    return Case("gymnax/Breakout-MinAtar", settings, target_speed=5.0, target_memory=0.5)


def cartpole() -> Case:
    """CartPole: short episodes at first, all of 500 steps at the end."""
    settings = HadesSettings(
        dataset_size=2,
        population_size=128,
        num_inits=2,
        num_episodes=2,
        learn_labels=False,
        cloning=CloningSettings(hidden_sizes=(64, 64), learning_rate=0.01, num_steps=64),
        evolution=EvolutionSettings(sigma=0.3, learning_rate=0.1, fitness_shaping="centered_rank"),
        cloning_chunk_size=2,
    )
    # The outcome of `hades distill --preset cartpole --seed 0`.
    trained = ((-2.15, 0.67, -2.10, -1.38), (-1.41, 1.35, 2.21, 1.14))
    return Case("gymnax/CartPole-v1", settings, trained=trained, target_speed=1.5)


def hopper() -> Case:
    """Hopper on the positional backend: the simulator is most of the work."""
    settings = HadesSettings(
        dataset_size=64,
        population_size=16,
        num_inits=1,
        num_episodes=1,
        cloning=CloningSettings(hidden_sizes=(64, 64), max_grad_norm=0.5, num_steps=100),
        evolution=EvolutionSettings(sigma=0.1, learning_rate=0.05, fitness_shaping="centered_rank"),
    )
    return Case("brax/hopper", settings, env_options={"backend": "positional"})


CASES: dict[str, Callable[[], Case]] = {"breakout": breakout, "cartpole": cartpole, "hopper": hopper}
"""Cases by the name that the command takes."""


def prepare(case: Case, seed: int) -> tuple[DatasetRun, dict[str, RunState]]:
    """The run of a case, and its states before the generation, by the kind of population; compiles nothing of it."""
    env = require_pure(envs.make(case.env, **case.env_options))
    run = cast(DatasetRun, recipes.from_settings(env, case.settings))
    state = run.init(jax.random.key(seed))
    states = {FIRST: state}
    if case.trained is not None:
        solution = {**run.outer.solution(state.outer), "observations": jnp.array(case.trained)}
        states[TRAINED] = dataclasses.replace(state, outer=run.outer.init(stream(state.key, Stream.TABLE), solution))
    return run, states
