"""Rollouts that record first episodes: every step stacked over time, up to the end of the longest episode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from hades._finite import all_finite
from hades.rollouts._parallel import reset_parallel, step_parallel
from hades.types import AnyEnvironment, PyTree, require_pure

Act: TypeAlias = Callable[[jax.Array, PyTree, jax.Array], jax.Array]
"""`act(key, params, observations)`: actions `[envs, ...]` for raw observations `[envs, *observation_shape]`."""

View: TypeAlias = Callable[[Any], PyTree]
"""`view(states)`: arrays `[envs, ...]` that are recorded of states with `[envs]` in front of each leaf, or of a
`hades.types.HostSimulator` with these episodes, such as where bodies are."""


def no_view(states: Any) -> PyTree:
    """Records nothing of states but their observations."""
    del states
    return ()


@struct.dataclass
class RecordedEpisodes:
    """First episodes of parallel environments. What follows an episode's end, or a diverged step, is undefined.

    Attributes:
        observations: Raw, `[time, envs, *observation_shape]` float32.
        actions: `[time, envs, action_dim]` float32, or `[time, envs]` int32.
        rewards: `[time, envs]` float32.
        next_observations: Those that the steps ended in, `[time, envs, *observation_shape]` float32.
        lengths: Steps of each episode, `[envs]`; those before the first that diverged.
        terminated: Whether the episode reached an end that is part of the task, `[envs]` bool.
        diverged: Whether the episode diverged, `[envs]` bool.
        views: Of the states that the observations are of, arrays `[time, envs, ...]`; `()` where nothing was asked for.
    """

    observations: jax.Array
    actions: jax.Array
    rewards: jax.Array
    next_observations: jax.Array
    lengths: jax.Array
    terminated: jax.Array
    diverged: jax.Array
    views: PyTree = ()

    @property
    def played(self) -> np.ndarray:
        """Steps that are part of an episode, `[time, envs]` bool."""
        return np.arange(len(self.rewards))[:, None] < np.asarray(self.lengths)

    @property
    def returns(self) -> np.ndarray:
        """Sum of each episode's rewards, `[envs]` float64; NaN where it diverged."""
        returns = np.sum(np.asarray(self.rewards), axis=0, dtype=np.float64, where=self.played)
        return np.where(self.diverged, np.nan, returns)


RecordedRollout: TypeAlias = Callable[[jax.Array, PyTree], RecordedEpisodes]
"""`rollout(key, params)`, see `make_recorded_rollout`."""


def make_recorded_rollout(env: AnyEnvironment, act: Act, num_envs: int, view: View = no_view) -> RecordedRollout:
    """Makes the function that plays `num_envs` episodes side by side and records their steps.

    The loop ends with the last living episode; the arrays have room for `max_steps` steps.

    Args:
        env: The environment; rolled for at most its `max_steps`.
        act: Chooses the actions of all episodes at one point in time.
        num_envs: Episodes.
        view: What is recorded of states besides their observations.

    Returns:
        A pure function of a key and whatever parameters `act` takes.

    Raises:
        ValueError: The environment is simulated outside of JAX.
    """
    env = require_pure(env)

    def rollout(key: jax.Array, params: PyTree) -> RecordedEpisodes:
        state, observations, diverged = reset_parallel(jax.random.split(jax.random.fold_in(key, 0), num_envs), env)
        rewards = jax.ShapeDtypeStruct((num_envs,), jnp.float32)
        row = (observations, jax.eval_shape(act, key, params, observations), rewards, observations)
        columns = jax.tree.map(
            lambda leaf: jnp.zeros((env.max_steps, *leaf.shape), leaf.dtype), (*row, jax.eval_shape(view, state))
        )

        def advance(carry: tuple[Any, ...]) -> tuple[Any, ...]:
            time, state, observations, alive, lengths, terminated, diverged, columns = carry
            keys = jax.random.split(jax.random.fold_in(key, time + 1), num_envs + 1)
            actions = act(keys[0], params, observations)
            integers = jnp.issubdtype(actions.dtype, jnp.integer)
            invalid = jnp.zeros(num_envs, bool) if integers else ~all_finite(actions)
            step = step_parallel(keys[1:], env, state, actions, invalid, time)
            row = (observations, actions, step.rewards, step.observations, view(state))
            columns = jax.tree.map(lambda column, leaf: column.at[time].set(leaf), columns, row)
            recorded = alive & ~step.diverged
            lengths, terminated = lengths + recorded, terminated | (recorded & step.terminated)
            diverged, alive = diverged | (alive & step.diverged), alive & ~step.ended
            return time + 1, step.state, step.observations, alive, lengths, terminated, diverged, columns

        lengths, terminated = jnp.zeros(num_envs, jnp.int32), jnp.zeros(num_envs, bool)
        carry = (jnp.int32(0), state, observations, ~diverged, lengths, terminated, diverged, columns)
        *_, lengths, terminated, diverged, columns = jax.lax.while_loop(lambda carry: jnp.any(carry[3]), advance, carry)
        before, actions, rewards, after, views = columns
        return RecordedEpisodes(before, actions, rewards, after, lengths, terminated, diverged, views)

    return rollout
