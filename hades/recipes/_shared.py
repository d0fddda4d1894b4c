"""What recipes have in common: the evolution of solutions, normalisation, and metadata."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from hades import policies
from hades.distributions import ActionSelection
from hades.fitness import FitnessFunction, FitnessKeys
from hades.inner.cloning import CloningSettings
from hades.metadata import DatasetMetadata, EvaluationSummary, package_versions
from hades.normalization import Normalization, Normalizer, PolicyParams
from hades.outer import make_outer
from hades.policies import NetworkSettings
from hades.recipes.population import PopulationSettings
from hades.rollouts.first_episode import make_rollout
from hades.rollouts.settings import PlaySettings
from hades.run import RunState
from hades.sharding import population_mesh, shard_fitness
from hades.types import AnyEnvironment, Environment, Metrics, PyTree

FIRST_STREAM = np.uint32(2**32 - 1)
"""What `init` folds a run's key with. Generations count from 0 up and never meet it."""

Settings = TypeVar("Settings", bound=PopulationSettings)


def resolve_normalization(settings: Settings) -> Settings:
    """Fills in how many episodes share running statistics.

    Raises:
        ValueError: It is given, but normalisation is not running.
    """
    running = settings.observation_normalization == "running"
    if settings.normalization_envs is not None and not running:
        raise ValueError("normalization_envs: expected none unless observation_normalization is running")
    envs = settings.normalization_envs or settings.num_episodes
    return dataclasses.replace(settings, normalization_envs=envs if running else None)


class EvolutionLoop(NamedTuple):
    """The functions of a run that evolves something.

    Attributes:
        init: `init(key)` returns the state before the first generation.
        step: `step(state)` is one generation.
        solution: `solution(state)` is the mean of the search distribution.
    """

    init: Callable[[jax.Array], RunState]
    step: Callable[[RunState], tuple[RunState, Metrics]]
    solution: Callable[[RunState], PyTree]


def evolve(
    env: Environment,
    settings: PopulationSettings,
    fitness: FitnessFunction,
    first: Callable[[jax.Array], PyTree],
    candidates: Callable[[PyTree], PyTree],
    *,
    num_inits: int = 1,
    init_seed: int | None = None,
    mesh: Mesh | None = None,
    normalizer: Normalizer | None = None,
) -> EvolutionLoop:
    """The evolution of datasets and of policies: they differ in what a solution stands for.

    Args:
        env: Environment.
        settings: Resolved.
        fitness: Scores candidates `[population]`.
        first: `first(key)` is the solution that a run begins with.
        candidates: Maps solutions `[population]` to the candidates that they stand for.
        num_inits: Initialisations that each candidate trains.
        init_seed: The one initialisation of HaDES-F.
        mesh: Devices that the population is spread over; all that JAX has if None.
        normalizer: Given observation statistics, in place of those that `init` would measure.
    """
    mesh = population_mesh() if mesh is None else mesh
    if mesh.size > 1:
        fitness = shard_fitness(fitness, mesh)
    chunk_size = settings.rollout_chunk_size and settings.rollout_chunk_size * mesh.size
    # Only shapes matter here, and drawing numbers would compile.
    shapes = jax.eval_shape(first, jax.random.key(0))
    blank = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    evolution = make_outer(blank, settings.population_size, settings.evolution, chunk_size)

    def init(key: jax.Array) -> RunState:
        search_key, solution_key, statistics_key = jax.random.split(jax.random.fold_in(key, FIRST_STREAM), 3)
        statistics = normalizer or initial_normalizer(statistics_key, env, settings)
        return RunState(key, jnp.int32(0), evolution.init(search_key, first(solution_key)), statistics)

    def step(state: RunState) -> tuple[RunState, Metrics]:
        search_key, fitness_key = jax.random.split(jax.random.fold_in(state.key, state.generation))
        keys = FitnessKeys.draw(fitness_key, num_inits, init_seed)

        def objective(population: PyTree) -> tuple[jax.Array, Metrics]:
            result = fitness(keys, candidates(population), state.normalizer)
            return result.values, {"env_steps": jnp.sum(result.lengths, axis=(1, 2))}

        outer, metrics = evolution.step(search_key, state.outer, objective)
        return dataclasses.replace(state, generation=state.generation + 1, outer=outer), metrics

    return EvolutionLoop(init, step, lambda state: evolution.solution(state.outer))


def initial_normalizer(key: jax.Array, env: Environment, settings: PlaySettings) -> Normalizer:
    """The normaliser that a run begins with; fixed statistics are measured on episodes of random actions."""
    if settings.observation_normalization != "fixed":
        return Normalizer(settings.observation_normalization)
    return measure_statistics(key, env, settings.statistics_episodes, min_std=settings.min_std)


def measure_statistics(
    key: jax.Array,
    env: Environment,
    num_episodes: int,
    policy: policies.Policy | None = None,
    params: PolicyParams | None = None,
    min_std: float = 0.01,
) -> Normalizer:
    """Fixed observation statistics of first episodes.

    Args:
        key: Key.
        env: Environment.
        num_episodes: Episodes, played at once.
        policy: Who plays; uniformly random actions if None.
        params: Parameters of `policy`.
        min_std: Smallest standard deviation, in the units of the observation.
    """
    rollout = make_rollout(env, policy or policies.uniform(env), num_episodes)
    network = jax.tree.map(lambda leaf: leaf[None, None], params.network if params else ())
    statistics = rollout(key[None], network, Normalizer("running", prior_count=0.0)).statistics
    return Normalizer.from_statistics(jax.tree.map(lambda leaf: leaf[0, 0, 0], statistics), min_std)


class Played(Protocol):
    """Settings that say how policies see and act; every method's do."""

    @property
    def observation_normalization(self) -> Normalization: ...

    @property
    def action_selection(self) -> ActionSelection: ...


def describe_run(
    env: AnyEnvironment,
    settings: Played,
    method: str,
    cloning: CloningSettings,
    seed: int,
    evaluation: EvaluationSummary | None,
    init_seed: int | None = None,
) -> DatasetMetadata:
    """What a file says of the run that made it."""
    return DatasetMetadata(
        env=env.name,
        env_options=env.options,
        max_episode_steps=env.max_steps,
        method=method,
        observation_normalization=settings.observation_normalization,
        action_selection=settings.action_selection,
        init_seed=init_seed,
        cloning=cloning,
        evaluation=evaluation,
        created_with=package_versions(env.name),
        seed=seed,
    )


def architecture_only(network: NetworkSettings) -> CloningSettings:
    """Cloning settings of a policy that was not cloned: its architecture, and defaults that nothing was trained by."""
    fields = {field.name: getattr(network, field.name) for field in dataclasses.fields(NetworkSettings)}
    return CloningSettings(**fields)
