"""What recipes have in common: normalisation, metadata, and the evaluation of policies."""

from __future__ import annotations

import dataclasses
from typing import TypeVar

import jax
import numpy as np

from hades import policies
from hades.metadata import DatasetMetadata, EvaluationSummary, package_versions
from hades.normalization import Normalizer, PolicyParams
from hades.rollout import make_rollout
from hades.settings import (
    CloningSettings,
    NetworkSettings,
    PlaySettings,
    PopulationSettings,
)
from hades.types import Environment

FIRST_STREAM = np.uint32(2**32 - 1)
"""What `init` folds a run's key with. Generations count from 0 up and never meet it."""

Settings = TypeVar("Settings", bound=PopulationSettings)


def resolve_normalization(settings: Settings) -> Settings:
    """Fills in how many episodes share running statistics.

    Raises:
        ValueError: It is given, but normalisation is not running.
    """
    running = settings.observation_normalization == "running"
    if settings.normalization_envs is not None and not running:
        raise ValueError("normalization_envs: expected none unless observation_normalization is running")
    envs = settings.normalization_envs or settings.num_episodes
    return dataclasses.replace(settings, normalization_envs=envs if running else None)


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
    statistics = rollout(key[None], network, Normalizer("running")).statistics
    return Normalizer.from_statistics(jax.tree.map(lambda leaf: leaf[0, 0, 0], statistics), min_std)


def describe_run(
    env: Environment,
    settings: PlaySettings,
    method: str,
    cloning: CloningSettings,
    seed: int,
    evaluation: EvaluationSummary | None,
    init_seed: int | None = None,
) -> DatasetMetadata:
    """What a file says of the run that made it."""
    return DatasetMetadata(
        env=env.name,
        env_options=env.options,
        max_episode_steps=env.max_steps,
        method=method,
        observation_normalization=settings.observation_normalization,
        action_selection=settings.action_selection,
        init_seed=init_seed,
        cloning=cloning,
        evaluation=evaluation,
        created_with=package_versions(env.name),
        seed=seed,
    )


def architecture_only(network: NetworkSettings) -> CloningSettings:
    """Cloning settings of a policy that was not cloned: its architecture, and defaults that nothing was trained by."""
    fields = {field.name: getattr(network, field.name) for field in dataclasses.fields(NetworkSettings)}
    return CloningSettings(**fields)
