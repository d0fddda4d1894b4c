"""Parallel episodes of one environment: the first states, one step, and the two rules of `hades.rollouts`.

An infinite number in a state is no divergence: it is a common sentinel.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from hades._environment_contract import conform
from hades._finite import all_finite, any_nan
from hades.types import Environment, PyTree


@struct.dataclass
class StepNoise:
    """Random numbers of one step of parallel episodes, whatever their policies do.

    Attributes:
        actions: Noise of the policy's distribution, `[envs, ...]`, or a key, see `hades.distributions.draw_noise`.
        env_keys: `[envs]`.
    """

    actions: jax.Array
    env_keys: jax.Array


class ParallelStep(NamedTuple):
    """One step of parallel episodes.

    Attributes:
        state: States after the step, `[envs]` in front of each leaf.
        observations: Observations of these states, `[envs, *observation_shape]`.
        rewards: `[envs]`.
        terminated: `[envs]` bool.
        out_of_time: `[envs]` bool, the environment truncates the episode, or it has taken `max_steps` steps.
        diverged: `[envs]` bool, the action, observation or reward is not finite, or a NaN is in the state.
    """

    state: PyTree
    observations: jax.Array
    rewards: jax.Array
    terminated: jax.Array
    out_of_time: jax.Array
    diverged: jax.Array

    @property
    def truncated(self) -> jax.Array:
        """Out of time without having terminated, `[envs]` bool."""
        return self.out_of_time & ~self.terminated

    @property
    def ended(self) -> jax.Array:
        """Whichever way, `[envs]` bool."""
        return self.terminated | self.out_of_time | self.diverged


def reset_parallel(keys: jax.Array, env: Environment) -> tuple[PyTree, jax.Array, jax.Array]:
    """Begins parallel episodes, one for each key `[envs]`, of an environment that may need casts.

    Returns:
        States with `[envs]` in front of each leaf, observations `[envs, *observation_shape]`, and which episodes have
        diverged from the start, `[envs]` bool.
    """
    state, observations = jax.vmap(conform(env).reset)(keys)
    return state, observations, ~all_finite(observations) | any_nan(state)


def step_parallel(
    keys: jax.Array, env: Environment, state: PyTree, actions: jax.Array, invalid: jax.Array, lengths: jax.Array
) -> ParallelStep:
    """Advances every episode by one step.

    Args:
        keys: `[envs]`.
        env: Environment.
        state: States, `[envs]` in front of each leaf.
        actions: `[envs]` or `[envs, action_dim]`.
        invalid: Which actions are not finite, `[envs]` bool; see `invalid_actions`.
        lengths: Steps of each episode before this one, `[envs]` or `[]` integer.
    """
    step = jax.vmap(conform(env).step)(keys, state, actions)
    finite = all_finite(step.observation) & jnp.isfinite(step.reward)
    return ParallelStep(
        step.state,
        step.observation,
        step.reward,
        step.terminated,
        step.truncated | (lengths + 1 >= env.max_steps),
        invalid | ~finite | any_nan(step.state),
    )
