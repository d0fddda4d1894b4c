"""Collecting transitions from parallel environments, which begin again wherever an episode ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from flax import struct

from hades.normalization import Normalizer
from hades.policies import Policy
from hades.types import AnyEnvironment, Environment, PyTree, Step, require_pure


@struct.dataclass
class Episodes:
    """Parallel environments in the middle of their episodes.

    Attributes:
        state: States of the environments, `[envs]` in front of each leaf.
        observations: What the policy sees next, raw, `[envs, *observation_shape]`.
        returns: Sum of the rewards of the episodes under way, `[envs]`.
        lengths: Steps of the episodes under way, `[envs]` int32.
        last_returns: Return of the last finished episode of each environment, `[envs]`.
        last_lengths: Its steps, `[envs]` int32; 0 where none has finished.
    """

    state: PyTree
    observations: jax.Array
    returns: jax.Array
    lengths: jax.Array
    last_returns: jax.Array
    last_lengths: jax.Array

    @property
    def scores(self) -> jax.Array:
        """Return of the last finished episode, or the return so far where none has finished, `[envs]`."""
        return jnp.where(self.last_lengths > 0, self.last_returns, self.returns)


@struct.dataclass
class Transitions:
    """What happened, in order.

    Attributes:
        observations: Raw, `[time, envs, *observation_shape]`.
        actions: `[time, envs]` int32 or `[time, envs, action_dim]`, as drawn from the policy.
        log_probs: Of the actions, `[time, envs]`.
        rewards: `[time, envs]`.
        next_observations: Those that the steps ended in, before any reset, `[time, envs, *observation_shape]`.
        terminated: `[time, envs]` bool; also where the step diverged.
        truncated: `[time, envs]` bool.
        diverged: Where the reward is not finite, or the observation unless it is that of a termination, `[time, envs]`
            bool.
    """

    observations: jax.Array
    actions: jax.Array
    log_probs: jax.Array
    rewards: jax.Array
    next_observations: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    diverged: jax.Array


def _diverged(step: Step) -> jax.Array:
    finite = jnp.all(jnp.isfinite(step.observation), axis=tuple(range(1, step.observation.ndim)))
    return ~jnp.isfinite(step.reward) | (~finite & ~step.terminated)


Collect: TypeAlias = Callable[[jax.Array, PyTree, Normalizer, Episodes], tuple[Episodes, Transitions]]
"""`collect(key, params, normalizer, episodes)`, see `make_collect`."""


def begin(key: jax.Array, env: Environment, num_envs: int) -> Episodes:
    """Begins an episode in each of `num_envs` environments."""
    state, observations = jax.vmap(env.reset)(jax.random.split(key, num_envs))
    zeros, counts = jnp.zeros(num_envs), jnp.zeros(num_envs, jnp.int32)
    return Episodes(state, observations, zeros, counts, zeros, counts)


def make_collect(env: AnyEnvironment, policy: Policy, num_envs: int, num_steps: int) -> Collect:
    """Makes the function that plays `num_steps` steps in each environment, with sampled actions.

    An episode also ends, as if terminated, where its reward or observation is not finite: a simulator that diverged
    would stay so.

    Returns:
        A function of a key, parameters of the policy, a normalizer and the episodes under way; it returns the episodes
        after these steps, and the steps.
    """
    player = _Player(require_pure(env), policy, num_envs)

    def collect(
        key: jax.Array, params: PyTree, normalizer: Normalizer, episodes: Episodes
    ) -> tuple[Episodes, Transitions]:
        def step(episodes: Episodes, key: jax.Array) -> tuple[Episodes, Transitions]:
            return player.advance(key, params, normalizer, episodes)

        return jax.lax.scan(step, episodes, jax.random.split(key, num_steps))

    return collect


@dataclass(frozen=True)
class _Player:
    env: Environment
    policy: Policy
    num_envs: int

    def advance(
        self, key: jax.Array, params: PyTree, normalizer: Normalizer, episodes: Episodes
    ) -> tuple[Episodes, Transitions]:
        """One step of every environment."""
        action_key, step_key, reset_key = jax.random.split(key, 3)
        distribution = self.policy.apply(params, normalizer.apply(episodes.observations))
        actions = distribution.sample(action_key)
        out = jax.vmap(self.env.step)(jax.random.split(step_key, self.num_envs), episodes.state, actions)
        diverged = _diverged(out)
        terminated = out.terminated | diverged
        transitions = Transitions(
            episodes.observations,
            actions,
            distribution.log_prob(actions),
            out.reward,
            out.observation,
            terminated,
            out.truncated & ~terminated,
            diverged,
        )
        ended = terminated | out.truncated
        state, observations = self._restart(reset_key, ended, (out.state, out.observation))
        returns, lengths = episodes.returns + out.reward, episodes.lengths + 1
        after = Episodes(
            state,
            observations,
            jnp.where(ended, 0.0, returns),
            jnp.where(ended, 0, lengths),
            jnp.where(ended, returns, episodes.last_returns),
            jnp.where(ended, lengths, episodes.last_lengths),
        )
        return after, transitions

    def _restart(self, key: jax.Array, ended: jax.Array, current: Any) -> Any:
        def mixed() -> Any:
            fresh = jax.vmap(self.env.reset)(jax.random.split(key, self.num_envs))
            return jax.tree.map(lambda new, old: jnp.where(_trailing(ended, old.ndim), new, old), fresh, current)

        # Resets of a simulator can cost as much as steps, and most steps end no episode.
        return jax.lax.cond(jnp.any(ended), mixed, lambda: current)


def _trailing(mask: jax.Array, ndim: int) -> jax.Array:
    """The mask with axes of length 1 behind, up to `ndim` of them in all."""
    return mask.reshape(mask.shape + (1,) * (ndim - mask.ndim))
