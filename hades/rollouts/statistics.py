"""Observation statistics measured on rollouts."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp

from hades import policies
from hades.normalization import Normalizer, PolicyParams, RunningStatistics
from hades.rollouts.auto_reset import PLAYED_ENVS, PLAYED_STEPS, play_randomly
from hades.rollouts.first_episode import make_rollout
from hades.rollouts.settings import PlaySettings
from hades.types import Environment, require_pure


def initial_normalizer(key: jax.Array, env: Environment, settings: PlaySettings) -> Normalizer:
    """The normaliser that a run begins with; fixed statistics are measured on episodes of random actions."""
    if settings.observation_normalization != "fixed":
        return Normalizer(settings.observation_normalization)
    return measure_statistics(key, env, settings.statistics_episodes, min_std=settings.min_std)


def measure_statistics(
    key: jax.Array,
    env: Environment,
    num_episodes: int,
    policy: policies.Policy | None = None,
    params: PolicyParams | None = None,
    min_std: float = 0.01,
) -> Normalizer:
    """Fixed observation statistics of first episodes.

    Args:
        key: Key.
        env: Environment.
        num_episodes: Episodes, played at once.
        policy: Who plays; uniformly random actions if None.
        params: Parameters of `policy`, and the normalisation that it sees by.
        min_std: Smallest standard deviation, in the units of the observation.
    """
    return Normalizer.from_statistics(episode_statistics(key, env, num_episodes, policy, params), min_std)


def episode_statistics(
    key: jax.Array,
    env: Environment,
    num_episodes: int,
    policy: policies.Policy | None = None,
    params: PolicyParams | None = None,
) -> RunningStatistics:
    """Statistics of all observations of first episodes. Arguments of `measure_statistics`."""
    env = require_pure(env)
    rollout = make_rollout(env, policy or policies.uniform(env), num_episodes, gather_statistics=True)
    player = params or PolicyParams(())
    network = jax.tree.map(lambda leaf: leaf[None, None], player.network)
    # A prior is no observation.
    statistics = rollout(key[None], network, replace(player.normalizer, prior_count=0.0)).statistics
    return jax.tree.map(lambda leaf: leaf[0, 0, 0], statistics)


def measure_components(
    key: jax.Array, env: Environment, num_components: int, normalizer: Normalizer
) -> tuple[jax.Array, jax.Array]:
    """Principal components of the observations of random play, 64 steps in each of 64 environments.

    Args:
        key: Key.
        env: Environment.
        num_components: Components, of the largest variance; no more than there are states, or numbers in one.
        normalizer: Normalisation that they are the components behind; none or fixed.

    Returns:
        Components `[num_components, *observation_shape]`, each as long as the standard deviation along it, and the mean
        observation `[*observation_shape]`.
    """
    begin_key, play_key = jax.random.split(key)
    shape = tuple(env.observation_shape)
    seen = normalizer.apply(play_randomly(begin_key, play_key, env, PLAYED_ENVS, PLAYED_STEPS).observations)
    rows = seen.reshape(PLAYED_ENVS * PLAYED_STEPS, -1)
    mean = jnp.mean(rows, axis=0)
    _, lengths, directions = jnp.linalg.svd(rows - mean, full_matrices=False)
    directions, lengths = directions[:num_components], lengths[:num_components]
    # Either sign is a component: the largest entry decides, so that every machine takes the same.
    largest = jnp.take_along_axis(directions, jnp.argmax(jnp.abs(directions), axis=1, keepdims=True), axis=1)
    components = jnp.sign(largest) * directions * (lengths / jnp.sqrt(rows.shape[0]))[:, None]
    return components.reshape(-1, *shape), mean.reshape(shape)
