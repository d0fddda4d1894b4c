"""Neuroevolution, the baseline without a dataset: an evolution strategy on the policy's own parameters."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from hades import policies
from hades.evaluation import PolicyEvaluator
from hades.fitness import make_policy_fitness
from hades.metadata import EvaluationSummary
from hades.normalization import Normalizer, PolicyParams
from hades.policies import NetworkSettings
from hades.policy_file import TrainedPolicy
from hades.recipes._shared import architecture_only, describe_run, evolve, resolve_normalization
from hades.recipes.population import PopulationSettings
from hades.rollouts.first_episode import make_rollout
from hades.run import Run, RunState
from hades.types import Environment, PyTree


@dataclass(frozen=True)
class NeuroevolutionSettings(PopulationSettings):
    """Neuroevolution: an evolution strategy on the policy's own parameters."""

    network: NetworkSettings = NetworkSettings()
    """The policy."""
    zero_init: bool = False
    """Whether all parameters begin at zero, as in the published runs, or as the network's initialiser draws them."""

    @property
    def method(self) -> str:
        """Name of the method in files."""
        return "es"


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

    def first(key: jax.Array) -> PyTree:
        network = policy.init(key)
        return jax.tree.map(jnp.zeros_like, network) if settings.zero_init else network

    loop = evolve(env, settings, fitness, first, lambda networks: networks, mesh=mesh, normalizer=normalizer)

    def trained(state: RunState) -> TrainedPolicy:
        return TrainedPolicy(PolicyParams(loop.solution(state), state.normalizer))

    def describe(trained: TrainedPolicy, seed: int, evaluation: EvaluationSummary | None = None) -> TrainedPolicy:
        cloning = architecture_only(settings.network)
        metadata = describe_run(env, settings, settings.method, cloning, seed, evaluation)
        return dataclasses.replace(trained, metadata=metadata)

    def make_evaluator(num_inits: int, num_episodes: int) -> PolicyEvaluator:
        return PolicyEvaluator(
            env, policy, num_inits, num_episodes, settings.action_selection, settings.normalization_envs
        )

    return Run(env, settings, "policy", loop.init, loop.step, trained, describe, make_evaluator)
