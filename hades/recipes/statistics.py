"""Observation statistics for a run, of states that the policies of an earlier one visit."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp

from hades.dataset import SyntheticDataset
from hades.evaluation import dataset_evaluator
from hades.normalization import Normalizer
from hades.rollouts.first_episode import make_rollout
from hades.rollouts.statistics import episode_statistics
from hades.types import Environment


def measure_visited_statistics(
    key: jax.Array,
    env: Environment,
    dataset: SyntheticDataset,
    num_inits: int = 16,
    num_episodes: int = 4,
    random_episodes: int = 64,
    min_std: float = 0.01,
) -> Normalizer:
    """Fixed statistics of observations, half of random play, half of the play of policies that a dataset trains.

    Where policies come to states that random play never sees, its statistics leave their observations at many standard
    deviations, at which units saturate. Runs on the host.

    Args:
        key: Key.
        env: Environment.
        dataset: Pairs `[pairs, ...]` with metadata, such as those of a short run.
        num_inits: Policies that are trained on it; of HaDES-F one.
        num_episodes: Episodes of each.
        random_episodes: Episodes of random play.
        min_std: Smallest standard deviation, in the units of the observation.

    Raises:
        ValueError: The dataset has no metadata, or does not fit the environment.

    Example:
        >>> import envs, hades
        >>> env = envs.make("diagnostic/match")
        >>> run = hades.recipes.hades_r(env, dataset_size=2, population_size=8)
        >>> first = hades.distill(jax.random.key(0), run, num_iterations=2, progress=False)
        >>> statistics = measure_visited_statistics(jax.random.key(1), env, first.dataset)
        >>> hades.recipes.hades_r(env, normalizer=statistics, dataset_size=2, population_size=8).method
        'hades-r'
    """
    train_key, play_key, random_key = jax.random.split(key, 3)
    evaluator = dataset_evaluator(env, dataset, num_inits, num_episodes)
    networks = evaluator.train(train_key, dataset)
    keys = jax.random.split(play_key, jax.tree.leaves(networks)[0].shape[1])
    normalizer = dataset.normalizer()
    if normalizer.kind != "running":
        # A prior is no observation.
        normalizer = replace(normalizer, prior_count=0.0)
    play = (num_episodes, evaluator.action_selection, evaluator.normalization_envs)
    rollout = make_rollout(env, evaluator.inner.policy, *play, gather_statistics=True)
    gathered = jax.jit(rollout)(keys, networks, normalizer).statistics
    each = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[3:]), gathered)
    visited = each.mixture(each.count)
    random = jax.jit(lambda key: episode_statistics(key, env, random_episodes))(random_key)
    both = jax.tree.map(lambda *leaves: jnp.stack(leaves), random, visited)
    return Normalizer.from_statistics(both.mixture(jnp.ones(2)), min_std)
