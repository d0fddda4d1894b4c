"""Reinforcement learning, the baseline that needs a critic: PPO as a run."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from hades.evaluation import PolicyEvaluator
from hades.metadata import EvaluationSummary
from hades.normalization import Normalizer
from hades.policy_file import TrainedPolicy
from hades.recipes._shared import FIRST_STREAM, architecture_only, describe_run, initial_normalizer
from hades.rl.ppo import Hyperparameters, PPOSettings, make_ppo
from hades.run import Run, RunState
from hades.types import Environment, Metrics


def ppo(env: Environment, *, normalizer: Normalizer | None = None, **settings: Any) -> Run[TrainedPolicy]:
    """Proximal policy optimisation (Schulman et al. 2017, arXiv 1707.06347).

    Args:
        env: Environment.
        normalizer: Given observation statistics, in place of those that `init` would measure.
        **settings: Fields of `PPOSettings`.

    Raises:
        ValueError: A setting does not suit the environment; the message names it.

    Example:
        >>> import envs, hades
        >>> run = ppo(envs.make("diagnostic/match"), num_envs=4, num_steps=8)
        >>> result = hades.train(jax.random.key(0), run, num_generations=2, progress=False)
        >>> result.policy.metadata.method
        'ppo'
    """
    return ppo_run(env, PPOSettings(**settings), normalizer=normalizer)


def ppo_run(env: Environment, settings: PPOSettings, *, normalizer: Normalizer | None = None) -> Run[TrainedPolicy]:
    """PPO with given settings; a generation is one update. Arguments and errors of `ppo`."""
    algorithm = make_ppo(env, settings)

    def init(key: jax.Array, hyperparameters: Hyperparameters | None = None) -> RunState:
        state_key, statistics_key = jax.random.split(jax.random.fold_in(key, FIRST_STREAM))
        first = normalizer or initial_normalizer(statistics_key, env, settings)
        return RunState(key, jnp.int32(0), algorithm.init(state_key, first, hyperparameters), first)

    def step(state: RunState) -> tuple[RunState, Metrics]:
        outer, metrics = algorithm.step(jax.random.fold_in(state.key, state.generation), state.outer)
        return dataclasses.replace(state, generation=state.generation + 1, outer=outer), metrics

    def trained(state: RunState) -> TrainedPolicy:
        return TrainedPolicy(algorithm.params(state.outer))

    def describe(trained: TrainedPolicy, seed: int, evaluation: EvaluationSummary | None = None) -> TrainedPolicy:
        # Statistics that ran with training stand still in the policy that it leaves.
        kind = trained.params.normalizer.kind
        played = dataclasses.replace(settings, observation_normalization=kind)
        metadata = describe_run(env, played, "ppo", architecture_only(settings.network), seed, evaluation)
        return dataclasses.replace(trained, metadata=metadata)

    def make_evaluator(num_inits: int, num_episodes: int) -> PolicyEvaluator:
        return PolicyEvaluator(env, algorithm.policy, num_inits, num_episodes, settings.action_selection)

    return Run(env, settings, "policy", init, step, trained, describe, make_evaluator)
