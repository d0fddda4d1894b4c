"""Neuroevolution, the baseline without a dataset: an evolution strategy on the policy's own parameters."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from hades import policies
from hades.evaluation import PolicyEvaluator
from hades.fitness import FitnessKeys, make_policy_fitness
from hades.metadata import EvaluationSummary
from hades.normalization import Normalizer, PolicyParams
from hades.outer import make_evolution
from hades.policy_file import TrainedPolicy
from hades.recipes.shared import (
    FIRST_STREAM,
    architecture_only,
    describe_run,
    initial_normalizer,
    resolve_normalization,
)
from hades.rollout import make_rollout
from hades.run import Metrics, Run, RunState
from hades.settings import EvolutionSettings, NetworkSettings, NeuroevolutionSettings
from hades.sharding import population_mesh, shard_fitness
from hades.types import Environment, PyTree


def neuroevolution(
    env: Environment, *, mesh: Mesh | None = None, normalizer: Normalizer | None = None, **settings: Any
) -> Run[TrainedPolicy]:
    """Evolution strategies as an alternative to reinforcement learning (Salimans et al. 2017, arXiv 1703.03864).

    The same outer loop and rollout as HaDES, with the policy's parameters as the solution and no cloning: the baseline
    of Behaviour Distillation (arXiv 2406.15042, section 5).

    Args:
        env: Environment.
        mesh: Devices that the population is spread over; all that JAX has if None.
        normalizer: Given observation statistics, in place of those that `init` would measure.
        **settings: Fields of `NeuroevolutionSettings`.

    Raises:
        ValueError: A setting does not suit the environment; the message names it.

    Example:
        >>> import envs, hades
        >>> run = neuroevolution(envs.make("diagnostic/match"), population_size=8)
        >>> result = hades.train(jax.random.key(0), run, num_generations=2, progress=False)
        >>> result.policy.metadata.method
        'es'
    """
    return neuroevolution_run(env, NeuroevolutionSettings(**settings), mesh=mesh, normalizer=normalizer)


def paper_es_brax(**overrides: Any) -> NeuroevolutionSettings:
    """The published baseline on Brax, MLP 2x512: arXiv 2406.15042 and its released code.

    Fitness shaping (centred ranks) and the decay rates of Adam are defaults of evosax and optax: theirs are not known.

    Args:
        **overrides: Fields of `NeuroevolutionSettings` that are to differ.
    """
    settings = NeuroevolutionSettings(
        network=NetworkSettings(hidden_sizes=(512, 512), activation="tanh"),
        population_size=2048,
        num_episodes=4,
        observation_normalization="running",
        normalization_envs=4,
        zero_init=True,
        evolution=EvolutionSettings("Open_ES", sigma=0.03, learning_rate=0.05),
    )
    return dataclasses.replace(settings, **overrides)


def paper_es_minatar(**overrides: Any) -> NeuroevolutionSettings:
    """The published baseline on MinAtar, MLP 2x256: arXiv 2406.15042 and its released code.

    Width 512, which ran out of memory there, takes `perturbations="regenerated"` and a `rollout_chunk_size`.

    Args:
        **overrides: Fields of `NeuroevolutionSettings` that are to differ.
    """
    settings = NeuroevolutionSettings(
        network=NetworkSettings(hidden_sizes=(256, 256), activation="relu"),
        population_size=2048,
        num_episodes=8,
        observation_normalization="fixed",
        zero_init=True,
        evolution=EvolutionSettings("SNES", sigma=0.03, learning_rate=1.0, optimizer="sgd", temperature=20.0),
    )
    return dataclasses.replace(settings, **overrides)


def neuroevolution_run(
    env: Environment,
    settings: NeuroevolutionSettings,
    *,
    mesh: Mesh | None = None,
    normalizer: Normalizer | None = None,
) -> Run[TrainedPolicy]:
    """Neuroevolution with given settings. Arguments and errors of `neuroevolution`."""
    settings = resolve_normalization(settings)
    policy = policies.from_settings(env, settings.network)
    rollout = make_rollout(env, policy, settings.num_episodes, settings.action_selection, settings.normalization_envs)
    fitness = make_policy_fitness(rollout, settings.rollout_chunk_size)
    mesh = population_mesh() if mesh is None else mesh
    if mesh.size > 1:
        fitness = shard_fitness(fitness, mesh)
    chunk_size = settings.rollout_chunk_size and settings.rollout_chunk_size * mesh.size
    # The values do not matter here, and drawing them would compile the initialiser.
    shapes = jax.eval_shape(policy.init, jax.random.key(0))
    blank = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    evolution = make_evolution(blank, settings.population_size, settings.evolution, chunk_size)

    def init(key: jax.Array) -> RunState:
        search_key, network_key, statistics_key = jax.random.split(jax.random.fold_in(key, FIRST_STREAM), 3)
        first = normalizer or initial_normalizer(statistics_key, env, settings)
        solution = blank if settings.zero_init else policy.init(network_key)
        return RunState(key, jnp.int32(0), evolution.init(search_key, solution), first)

    def step(state: RunState) -> tuple[RunState, Metrics]:
        search_key, fitness_key = jax.random.split(jax.random.fold_in(state.key, state.generation))
        keys = FitnessKeys.draw(fitness_key, num_inits=1)

        def objective(networks: PyTree) -> tuple[jax.Array, Metrics]:
            result = fitness(keys, networks, state.normalizer)
            return result.values, {"env_steps": jnp.sum(result.lengths, axis=(1, 2))}

        outer, metrics = evolution.step(search_key, state.outer, objective)
        return dataclasses.replace(state, generation=state.generation + 1, outer=outer), metrics

    def trained(state: RunState) -> TrainedPolicy:
        return TrainedPolicy(PolicyParams(evolution.solution(state.outer), state.normalizer))

    def describe(trained: TrainedPolicy, seed: int, evaluation: EvaluationSummary | None = None) -> TrainedPolicy:
        cloning = architecture_only(settings.network)
        metadata = describe_run(env, settings, settings.method, cloning, seed, evaluation)
        return dataclasses.replace(trained, metadata=metadata)

    def make_evaluator(num_inits: int, num_episodes: int) -> PolicyEvaluator:
        return PolicyEvaluator(
            env, policy, num_inits, num_episodes, settings.action_selection, settings.normalization_envs
        )

    return Run(env, settings, "policy", init, step, trained, describe, make_evaluator)
