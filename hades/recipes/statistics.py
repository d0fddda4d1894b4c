"""Observation statistics for a run, of states that the policies of an earlier one visit."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import jax
import jax.numpy as jnp

from hades._cache import kept
from hades._environment_contract import conform
from hades.dataset import SyntheticDataset
from hades.distributions import ActionSelection
from hades.evaluation import dataset_evaluator
from hades.normalization import Normalizer, RunningStatistics
from hades.policies import Policy
from hades.rollouts.first_episode import make_rollout
from hades.rollouts.statistics import episode_statistics
from hades.types import Environment, Params, require_pure


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
        TypeError: It is called within `jax.jit`, `vmap` or `grad`.
        ValueError: The dataset has no metadata, or none of an inner loop, or does not fit the environment; the
            environment is simulated outside of JAX; a number is not positive, or `num_episodes` not a multiple of the
            episodes that share running statistics.

    Example:
        >>> import envs, hades
        >>> env = envs.make("diagnostic/match")
        >>> run = hades.recipes.hades_r(env, dataset_size=2, population_size=8)
        >>> first = hades.distill(jax.random.key(0), run, num_iterations=2, progress=False)
        >>> statistics = measure_visited_statistics(jax.random.key(1), env, first.dataset)
        >>> hades.recipes.hades_r(env, normalizer=statistics, dataset_size=2, population_size=8).method
        'hades-r'
    """
    env = conform(require_pure(env))
    train_key, play_key, random_key = jax.random.split(key, 3)
    evaluator = dataset_evaluator(env, dataset, num_inits, num_episodes)
    networks = evaluator.train(train_key, dataset)
    keys = jax.random.split(play_key, jax.tree.leaves(networks)[0].shape[1])
    play = (num_episodes, evaluator.action_selection, evaluator.normalization_envs)
    visited = _visited(env, evaluator.inner.policy, *play)(keys, networks, dataset.normalizer())
    both = jax.tree.map(lambda *leaves: jnp.stack(leaves), _random(env, random_episodes)(random_key), visited)
    return Normalizer.from_statistics(both.mixture(jnp.ones(2)), min_std)


@kept
def _visited(
    env: Environment,
    policy: Policy,
    num_episodes: int,
    action_selection: ActionSelection,
    normalization_envs: int | None,
) -> Callable[..., RunningStatistics]:
    rollout = make_rollout(env, policy, num_episodes, action_selection, normalization_envs, gather_statistics=True)

    def pooled(keys: jax.Array, networks: Params, normalizer: Normalizer) -> RunningStatistics:
        gathered = rollout(keys, networks, normalizer).statistics
        each = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[3:]), cast(RunningStatistics, gathered))
        return each.mixture(each.count)

    return jax.jit(pooled)


@kept
def _random(env: Environment, num_episodes: int) -> Callable[[jax.Array], RunningStatistics]:
    return jax.jit(lambda key: episode_statistics(key, env, num_episodes))
