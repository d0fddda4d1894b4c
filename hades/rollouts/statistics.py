"""Observation statistics measured on rollouts."""

from __future__ import annotations

import jax

from hades import policies
from hades.normalization import Normalizer, PolicyParams
from hades.rollouts.first_episode import make_rollout
from hades.rollouts.settings import PlaySettings
from hades.types import Environment


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
        params: Parameters of `policy`.
        min_std: Smallest standard deviation, in the units of the observation.
    """
    rollout = make_rollout(env, policy or policies.uniform(env), num_episodes)
    network = jax.tree.map(lambda leaf: leaf[None, None], params.network if params else ())
    statistics = rollout(key[None], network, Normalizer("running", prior_count=0.0)).statistics
    return Normalizer.from_statistics(jax.tree.map(lambda leaf: leaf[0, 0, 0], statistics), min_std)
