"""Rollouts of first episodes: masked when they end, ended with the last of them, nothing stacked over time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from flax import struct

from hades.distributions import ActionSelection, choose
from hades.normalization import Normalizer, RunningStatistics
from hades.policies import Policy
from hades.types import AnyEnvironment, Environment, PyTree, require_pure


@struct.dataclass
class Episodes:
    """What became of the first episode of every environment.

    Attributes:
        returns: Sum of rewards, not discounted, `[candidates, inits, episodes]`.
        lengths: Steps until the episode ended, `[candidates, inits, episodes]` int32.
        statistics: Running statistics of the raw observations at the end, with leading axes
            `[candidates, inits, groups]`; None unless normalisation is running.
    """

    returns: jax.Array
    lengths: jax.Array
    statistics: RunningStatistics | None = None


Rollout: TypeAlias = Callable[[jax.Array, PyTree, Normalizer], Episodes]
"""`rollout(keys [inits], params [candidates, inits, ...], normalizer)`, see `make_rollout`."""


@struct.dataclass
class Seen:
    """What a policy sees of parallel episodes that share their running statistics.

    Attributes:
        observations: Raw, `[envs, *observation_shape]`.
        alive: Which episodes have not ended, `[envs]` bool.
        statistics: Of what was seen before; None unless normalisation is running.
    """

    observations: jax.Array
    alive: jax.Array
    statistics: RunningStatistics | None


@struct.dataclass
class _Group:
    """Parallel episodes of one policy that share their running statistics. Axes of a single group: `[envs]`."""

    state: Any
    observations: jax.Array
    returns: jax.Array
    lengths: jax.Array
    alive: jax.Array
    statistics: RunningStatistics | None


@dataclass(frozen=True)
class _Player:
    """One step of one group, and the same of all groups `[candidates, inits, groups]`."""

    env: Environment
    policy: Policy
    group_size: int
    action_selection: ActionSelection

    def start(self, key: jax.Array, normalizer: Normalizer) -> _Group:
        state, observations = jax.vmap(self.env.reset)(jax.random.split(key, self.group_size))
        running = normalizer.kind == "running"
        statistics = RunningStatistics.empty(self.env.observation_shape, normalizer.prior_count) if running else None
        zeros = jnp.zeros(self.group_size)
        alive = jnp.ones(self.group_size, bool)
        return _Group(state, observations, zeros, zeros.astype(jnp.int32), alive, statistics)

    def advance(self, key: jax.Array, group: _Group, params: PyTree, normalizer: Normalizer) -> _Group:
        keys = jax.random.split(key, self.group_size + 1)
        seen = Seen(group.observations, group.alive, group.statistics)
        actions, statistics = act(keys[0], self.policy, self.action_selection, seen, params, normalizer)
        step = jax.vmap(self.env.step)(keys[1:], group.state, actions)
        return _Group(
            step.state,
            step.observation,
            group.returns + jnp.where(group.alive, step.reward, 0.0),
            group.lengths + group.alive,
            group.alive & ~(step.terminated | step.truncated),
            statistics,
        )

    def start_all(self, keys: jax.Array, normalizer: Normalizer) -> _Group:
        return jax.vmap(jax.vmap(self.start, in_axes=(0, None)), in_axes=(0, None))(keys, normalizer)

    def advance_all(self, keys: jax.Array, groups: _Group, params: PyTree, normalizer: Normalizer) -> _Group:
        return over_all(self.advance)(keys, groups, params, normalizer)


def act(
    key: jax.Array,
    policy: Policy,
    action_selection: ActionSelection,
    seen: Seen,
    params: PyTree,
    normalizer: Normalizer,
) -> tuple[jax.Array, RunningStatistics | None]:
    """Actions of one group, and its statistics with these observations."""
    statistics = seen.statistics
    if statistics is None:
        observations = normalizer.apply(seen.observations)
    else:
        statistics = statistics.update(seen.observations, seen.alive)
        observations = statistics.apply(seen.observations)
    distribution = policy.apply(params, observations)
    return choose(key, distribution, action_selection), statistics


def over_all(function: Callable[..., Any]) -> Callable[..., Any]:
    """Maps `function(key, group, params, normalizer)` over candidates, inits and groups.

    Keys are `[inits, groups]`, groups `[candidates, inits, groups]` and parameters `[candidates, inits]`.
    """
    # Mapped from the inside out; keys have no candidate axis, so that XLA draws the random numbers of a step once
    # for all candidates.
    over_groups = jax.vmap(function, in_axes=(0, 0, None, None))
    over_inits = jax.vmap(over_groups, in_axes=(0, 0, 0, None))
    return jax.vmap(over_inits, in_axes=(None, 0, 0, None))


def make_rollout(
    env: AnyEnvironment,
    policy: Policy,
    num_episodes: int,
    action_selection: ActionSelection = "sample",
    normalization_envs: int | None = None,
) -> Rollout:
    """Makes the function that plays episodes with a batch of policies.

    Candidates share the keys of their inits, so that all of them see the same first states and the same noise
    (common random numbers). One scalar predicate outside of every vmap ends the loop, with the last living episode.

    Args:
        env: The environment; rolled for at most its `max_steps`.
        policy: Plays; its parameters come with each call.
        num_episodes: Episodes of each policy.
        action_selection: Whether actions are drawn from the policy's distribution or are its mode.
        normalization_envs: With running normalisation, how many episodes share statistics; all of them if None.

    Returns:
        A function of keys `[inits]`, network parameters with leading axes `[candidates, inits]`, and a normalizer.

    Raises:
        ValueError: `num_episodes` is not a multiple of `normalization_envs`, or the environment is simulated outside
            of JAX.
    """
    env = require_pure(env)
    group_size = group_size_of(num_episodes, normalization_envs)
    player = _Player(env, policy, group_size, action_selection)

    def rollout(keys: jax.Array, params: PyTree, normalizer: Normalizer) -> Episodes:
        group_keys = split_all(keys, num_episodes // group_size)
        candidates = num_candidates(params)
        first = player.start_all(fold_in_all(group_keys, 0), normalizer)
        groups = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (candidates, *leaf.shape)), first)

        def any_alive(carry: tuple[jax.Array, _Group]) -> jax.Array:
            time, groups = carry
            return (time < env.max_steps) & jnp.any(groups.alive)

        def advance(carry: tuple[jax.Array, _Group]) -> tuple[jax.Array, _Group]:
            time, groups = carry
            return time + 1, player.advance_all(fold_in_all(group_keys, time + 1), groups, params, normalizer)

        _, groups = jax.lax.while_loop(any_alive, advance, (jnp.int32(0), groups))
        shape = (candidates, keys.shape[0], num_episodes)
        return Episodes(groups.returns.reshape(shape), groups.lengths.reshape(shape), groups.statistics)

    return rollout


def group_size_of(num_episodes: int, normalization_envs: int | None) -> int:
    """Episodes of a group.

    Raises:
        ValueError: `num_episodes` is not a multiple of `normalization_envs`.
    """
    group_size = normalization_envs or num_episodes
    if num_episodes % group_size:
        raise ValueError(
            f"num_episodes: expected a multiple of {group_size}, the environments that share running statistics, "
            f"got {num_episodes}"
        )
    return group_size


def num_candidates(params: PyTree) -> int:
    """Length of the first axis of parameters `[candidates, inits, ...]`; 1 where a policy has none."""
    leaves = jax.tree.leaves(params)
    return int(leaves[0].shape[0]) if leaves else 1


def split_all(keys: jax.Array, count: int) -> jax.Array:
    """Splits every one of keys `[inits]`, into `[inits, count]`."""
    return jax.vmap(lambda key: jax.random.split(key, count))(keys)


def fold_in_all(keys: jax.Array, data: jax.Array | int) -> jax.Array:
    """Keys `[inits, groups]` for one point in time."""
    return jax.vmap(jax.vmap(lambda key: jax.random.fold_in(key, data)))(keys)
