"""Steps for training: parallel environments that begin a new episode wherever one ends, every step stacked."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from hades import policies
from hades._finite import all_finite
from hades.distributions import choose, draw_noise, invalid_actions, shapes_for_noise
from hades.normalization import Normalizer
from hades.policies import Policy
from hades.rollouts._parallel import StepNoise, reset_parallel, step_parallel
from hades.types import AnyEnvironment, Environment, PyTree, require_pure


@struct.dataclass
class RunningEpisodes:
    """Parallel environments in the middle of their episodes.

    Attributes:
        state: States of the environments, `[envs]` in front of each leaf.
        observations: What the policy sees next, raw, `[envs, *observation_shape]`.
        returns: Sum of the rewards of the episodes under way, `[envs]`.
        lengths: Steps of the episodes under way, `[envs]` int32.
        last_returns: Return of the last finished episode of each environment, `[envs]`; NaN where it diverged.
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
class CollectedSteps:
    """Steps of parallel environments, in order.

    Attributes:
        observations: Raw, `[time, envs, *observation_shape]`.
        actions: `[time, envs]` int32 or `[time, envs, action_dim]`, as drawn from the policy.
        log_probs: Of the actions, `[time, envs]`.
        rewards: `[time, envs]`.
        next_observations: Those that the steps ended in, before any reset, `[time, envs, *observation_shape]`.
        terminated: `[time, envs]` bool; also where the step diverged.
        truncated: `[time, envs]` bool, nowhere where `terminated`.
        diverged: Where the action, an observation or the reward is not finite, or a NaN is in the state, `[time, envs]`
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


@struct.dataclass
class CollectionNoise:
    """All random numbers of some steps, drawn before they begin: `AutoResetRollout.draw`.

    Attributes:
        steps: Of every step, `[time, envs, ...]` in each leaf; `actions` are keys `[time]` where a distribution has no
            noise.
        reset_keys: Of the episode that would begin after it, `[time, envs]`.
    """

    steps: StepNoise
    reset_keys: jax.Array


def begin_episodes(key: jax.Array, env: Environment, num_envs: int) -> RunningEpisodes:
    """Begins an episode in each of `num_envs` environments."""
    state, observations, _ = reset_parallel(jax.random.split(key, num_envs), env)
    zeros, counts = jnp.zeros(num_envs), jnp.zeros(num_envs, jnp.int32)
    return RunningEpisodes(state, observations, zeros, counts, zeros, counts)


PLAYED_ENVS, PLAYED_STEPS = 64, 64
"""Size of a random play that states are taken from."""


def play_randomly(
    begin_key: jax.Array, play_key: jax.Array, env: Environment, num_envs: int, num_steps: int
) -> CollectedSteps:
    """Steps of uniformly random actions from the beginning of episodes on, `[num_steps, num_envs]`."""
    play = make_auto_reset_rollout(env, policies.uniform(env), num_envs, num_steps)
    _, steps = play(play_key, (), Normalizer(), begin_episodes(begin_key, env, num_envs))
    return steps


def make_auto_reset_rollout(env: AnyEnvironment, policy: Policy, num_envs: int, num_steps: int) -> AutoResetRollout:
    """Makes the function that plays `num_steps` steps in each environment, with sampled actions.

    An episode also ends, as if terminated, where it diverges: a simulator that diverged would stay so.

    Args:
        env: Environment.
        policy: Plays; its parameters come with each call.
        num_envs: Parallel environments.
        num_steps: Steps in each.

    Returns:
        A function of a key, parameters of the policy, a normalizer and the episodes under way; it returns the episodes
        after these steps, and the steps. In place of the key it takes what its `draw` made of one.

    Raises:
        ValueError: The environment is simulated outside of JAX.
    """
    return AutoResetRollout(require_pure(env), policy, num_envs, num_steps)


@dataclass(frozen=True, eq=False)
class AutoResetRollout:
    """A collection of steps, and all of its random numbers at once. Fields as of `make_auto_reset_rollout`."""

    env: Environment
    policy: Policy
    num_envs: int
    num_steps: int

    def draw(
        self, key: jax.Array, params: PyTree, normalizer: Normalizer, episodes: RunningEpisodes
    ) -> CollectionNoise:
        """Draws what a call would draw, to be passed in place of its key; of the other arguments shapes are read."""
        distribution = shapes_for_noise(lambda: self.policy.apply(params, normalizer.apply(episodes.observations)))

        def draw(key: jax.Array) -> CollectionNoise:
            action_key, step_key, reset_key = jax.random.split(key, 3)
            step_keys, reset_keys = (jax.random.split(parent, self.num_envs) for parent in (step_key, reset_key))
            return CollectionNoise(StepNoise(draw_noise(action_key, distribution), step_keys), reset_keys)

        # Of all steps at once, which is faster than one by one.
        return jax.vmap(draw)(jax.random.split(key, self.num_steps))

    def __call__(
        self, randomness: jax.Array | CollectionNoise, params: PyTree, normalizer: Normalizer, episodes: RunningEpisodes
    ) -> tuple[RunningEpisodes, CollectedSteps]:
        """Plays, by a key or what `draw` made of one."""
        noise = randomness
        if not isinstance(noise, CollectionNoise):
            noise = self.draw(noise, params, normalizer, episodes)

        def step(episodes: RunningEpisodes, noise: CollectionNoise) -> tuple[RunningEpisodes, CollectedSteps]:
            return self._advance(noise, params, normalizer, episodes)

        return jax.lax.scan(step, episodes, noise)

    def _advance(
        self,
        noise: CollectionNoise,
        params: PyTree,
        normalizer: Normalizer,
        episodes: RunningEpisodes,
    ) -> tuple[RunningEpisodes, CollectedSteps]:
        """Advances every environment by one step."""
        distribution = self.policy.apply(params, normalizer.apply(episodes.observations))
        actions = choose(noise.steps.actions, distribution, "sample")
        # The observations before the step are checked too: those of a reset may be the first that are not finite.
        invalid = invalid_actions(distribution, actions) | ~all_finite(episodes.observations)
        out = step_parallel(noise.steps.env_keys, self.env, episodes.state, actions, invalid, episodes.lengths)
        terminated = out.terminated | out.diverged
        steps = CollectedSteps(
            episodes.observations,
            actions,
            distribution.log_prob(actions),
            out.rewards,
            out.observations,
            terminated,
            out.truncated & ~terminated,
            out.diverged,
        )
        ended = out.ended
        state, observations = self._restart(noise.reset_keys, ended, (out.state, out.observations))
        returns = episodes.returns + jnp.where(out.diverged, jnp.nan, out.rewards)
        lengths = episodes.lengths + 1
        after = RunningEpisodes(
            state,
            observations,
            jnp.where(ended, 0.0, returns),
            jnp.where(ended, 0, lengths),
            jnp.where(ended, returns, episodes.last_returns),
            jnp.where(ended, lengths, episodes.last_lengths),
        )
        return after, steps

    def _restart(self, keys: jax.Array, ended: jax.Array, current: Any) -> Any:
        def mixed() -> Any:
            state, observations, _ = reset_parallel(keys, self.env)
            return jax.tree.map(partial(jax.vmap(jnp.where), ended), (state, observations), current)

        # Resets of a simulator can cost as much as steps, and most steps end no episode.
        return jax.lax.cond(jnp.any(ended), mixed, lambda: current)
