"""Reinforcement learning, the baseline that needs a critic: PPO as a run."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from typing_extensions import override

from hades.evaluation import PolicyEvaluator
from hades.inner.described import architecture
from hades.keys import Stream, iteration_key, stream
from hades.metadata import EvaluationSummary, FileMetadata, package_versions
from hades.normalization import Normalizer
from hades.policies import PolicySpaces
from hades.policy_file import TrainedPolicy
from hades.rl.ppo import PPO, Hyperparameters, PPOSettings, make_ppo
from hades.rollouts.statistics import initial_normalizer
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
        >>> result = hades.train(jax.random.key(0), run, num_iterations=2, progress=False)
        >>> result.policy.metadata.method
        'ppo'
    """
    return ppo_run(env, PPOSettings(**settings), normalizer=normalizer)


def ppo_run(env: Environment, settings: PPOSettings, *, normalizer: Normalizer | None = None) -> Run[TrainedPolicy]:
    """PPO with given settings; an iteration is one update. Arguments and errors of `ppo`."""
    algorithm = make_ppo(env, settings)
    return PPORun("ppo", algorithm.env, settings, None, algorithm, normalizer)


@dataclass(frozen=True, eq=False)
class PPORun(Run[TrainedPolicy]):
    """PPO as a run, made by `ppo_run`."""

    method: str
    env: Environment
    settings: PPOSettings
    mesh: Mesh | None
    algorithm: PPO
    normalizer: Normalizer | None

    kind: ClassVar[str] = "policy"

    @override
    def init(self, key: jax.Array, hyperparameters: Hyperparameters | None = None) -> RunState:
        """Draws the state before the first update; without hyperparameters they are those of the settings."""
        state_key, statistics_key = jax.random.split(stream(key, Stream.INIT))
        first = self.normalizer or initial_normalizer(statistics_key, self.env, self.settings)
        return RunState(key, jnp.int32(0), self.algorithm.init(state_key, first, hyperparameters))

    @override
    def step(self, state: RunState) -> tuple[RunState, Metrics]:
        outer, metrics = self.algorithm.step(iteration_key(state.key, state.iteration), state.outer)
        return dataclasses.replace(state, iteration=state.iteration + 1, outer=outer), metrics

    @override
    def outcome(self, state: RunState) -> TrainedPolicy:
        return TrainedPolicy(self.algorithm.params(state.outer))

    @override
    def describe(self, outcome: TrainedPolicy, seed: int, evaluation: EvaluationSummary | None = None) -> TrainedPolicy:
        metadata = FileMetadata(
            env=self.env.name,
            env_options=self.env.options,
            max_episode_steps=self.env.max_steps,
            method=self.method,
            # Statistics that ran with training stand still in the policy that it leaves.
            observation_normalization=outcome.params.normalizer.kind,
            action_selection=self.settings.action_selection,
            cloning=architecture(self.settings.network),
            evaluation=evaluation,
            created_with=package_versions(self.env.name),
            seed=seed,
        )
        return dataclasses.replace(outcome, metadata=metadata, spaces=PolicySpaces.of(self.env))

    @override
    def make_evaluator(self, num_inits: int, num_episodes: int) -> PolicyEvaluator:
        selection = self.settings.action_selection
        return PolicyEvaluator(self.env, self.algorithm.policy, num_inits, num_episodes, selection)
