"""Rollouts in simulators outside of JAX: the policy compiled on batches of all episodes, only living ones simulated."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np

from hades.distributions import ActionSelection
from hades.normalization import Normalizer, RunningStatistics
from hades.policies import Policy
from hades.rollouts.first_episode import (
    Episodes,
    Rollout,
    Seen,
    act,
    fold_in_all,
    group_size_of,
    make_rollout,
    num_candidates,
    over_all,
    split_all,
)
from hades.types import AnyEnvironment, HostEnvironment, PyTree


def compiled_rollout(
    env: AnyEnvironment,
    policy: Policy,
    num_episodes: int,
    action_selection: ActionSelection = "sample",
    normalization_envs: int | None = None,
) -> Rollout:
    """The rollout that suits the environment, compiled: `make_rollout` or `make_host_rollout`. Arguments as of both."""
    arguments = (policy, num_episodes, action_selection, normalization_envs)
    if isinstance(env, HostEnvironment):
        return make_host_rollout(env, *arguments)
    return cast(Rollout, jax.jit(make_rollout(env, *arguments)))


def make_host_rollout(
    env: HostEnvironment,
    policy: Policy,
    num_episodes: int,
    action_selection: ActionSelection = "sample",
    normalization_envs: int | None = None,
) -> Rollout:
    """Makes the function that plays episodes with a batch of policies in a simulator outside of JAX.

    As with `make_rollout`, candidates share the keys of their inits, and with them seeds and noise, which is also the
    noise that `make_rollout` draws.

    Args:
        env: The environment; rolled until every episode has ended.
        policy: Plays; its parameters come with each call.
        num_episodes: Episodes of each policy.
        action_selection: Whether actions are drawn from the policy's distribution or are its mode.
        normalization_envs: With running normalisation, how many episodes share statistics; all of them if None.

    Returns:
        A function of keys `[inits]`, network parameters with leading axes `[candidates, inits]`, and a normalizer. It
        cannot be jitted; its `returns` are sums in float64.

    Raises:
        ValueError: `num_episodes` is not a multiple of `normalization_envs`.
    """
    group_size = group_size_of(num_episodes, normalization_envs)
    groups = num_episodes // group_size
    act_all = _make_act_all(policy, action_selection)

    @jax.jit
    def start(keys: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Keys of the groups `[inits, groups]`, and seeds of their episodes `[inits, groups, envs]`."""
        group_keys = split_all(keys, groups)
        seeds = jax.vmap(jax.vmap(lambda key: jax.random.bits(key, (group_size,))))(fold_in_all(group_keys, 0))
        return group_keys, seeds

    def rollout(keys: jax.Array, params: PyTree, normalizer: Normalizer) -> Episodes:
        group_keys, seeds = start(keys)
        batch = (num_candidates(params), keys.shape[0], groups)
        shape = (*batch, group_size)
        simulator = env.simulate(np.broadcast_to(np.asarray(seeds), shape).ravel())
        returns, lengths = np.zeros(simulator.alive.shape), np.zeros(simulator.alive.shape, np.int32)
        statistics = _empty_statistics(normalizer, env, batch)
        time = 0
        while simulator.alive.any():
            alive = simulator.alive.copy()
            observations = simulator.observations.reshape(shape + tuple(env.observation_shape))
            seen = Seen(jnp.asarray(observations), jnp.asarray(alive.reshape(shape)), statistics)
            time += 1
            actions, statistics = act_all(np.int32(time), group_keys, seen, params, normalizer)
            step = simulator.step(np.asarray(actions).reshape(len(returns), -1))
            returns += step.rewards
            lengths += alive
        final = (*batch[:2], num_episodes)
        return Episodes(returns.reshape(final), lengths.reshape(final), statistics)  # type: ignore[arg-type]

    return rollout


def _empty_statistics(normalizer: Normalizer, env: HostEnvironment, batch: tuple[int, ...]) -> RunningStatistics | None:
    if normalizer.kind != "running":
        return None
    empty = RunningStatistics.empty(env.observation_shape, normalizer.prior_count)
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, batch + leaf.shape), empty)


def _make_act_all(
    policy: Policy, action_selection: ActionSelection
) -> Callable[..., tuple[jax.Array, RunningStatistics | None]]:
    """Compiles the actions of all episodes at one point in time, `[candidates, inits, groups, envs, action_dim]`."""

    def act_one(key: jax.Array, seen: Seen, params: PyTree, normalizer: Normalizer) -> tuple[jax.Array, object]:
        # The jitted rollout gives the other keys to the environments; with this one the noise on actions is the same.
        act_key = jax.random.split(key, len(seen.alive) + 1)[0]
        return act(act_key, policy, action_selection, seen, params, normalizer)

    @jax.jit
    def act_all(
        time: jax.Array, group_keys: jax.Array, seen: Seen, params: PyTree, normalizer: Normalizer
    ) -> tuple[jax.Array, RunningStatistics | None]:
        actions, statistics = over_all(act_one)(fold_in_all(group_keys, time), seen, params, normalizer)
        return actions, statistics

    return cast(Callable[..., tuple[jax.Array, RunningStatistics | None]], act_all)
