"""Fitness: of datasets the return of fresh policies that were cloned on them, of policies their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from flax import struct

from hades.dataset import SyntheticDataset
from hades.inner.cloning import BehaviourCloning
from hades.normalization import Normalizer
from hades.rollouts.first_episode import Rollout
from hades.types import PyTree


@struct.dataclass
class FitnessKeys:
    """The random numbers of one evaluation, shared by all candidates.

    Attributes:
        inits: Keys of the initialisations, `[inits]`.
        episodes: Keys of the episodes of each initialisation, `[inits]`.
    """

    inits: jax.Array
    episodes: jax.Array

    @classmethod
    def draw(cls, key: jax.Array, num_inits: int, init_seed: int | None = None) -> FitnessKeys:
        """Fresh keys; with `init_seed` all initialisations are the one of `jax.random.key(init_seed)` (HaDES-F)."""
        init_key, episode_key = jax.random.split(key)
        if init_seed is None:
            inits = jax.random.split(init_key, num_inits)
        else:
            inits = jnp.stack([jax.random.key(init_seed)] * num_inits)
        return cls(inits, jax.random.split(episode_key, num_inits))


@struct.dataclass
class Fitness:
    """What became of a population.

    Attributes:
        returns: `[population, inits, episodes]`.
        lengths: Steps of each episode, `[population, inits, episodes]` int32.
    """

    returns: jax.Array
    lengths: jax.Array

    @property
    def values(self) -> jax.Array:
        """Mean return of each candidate, `[population]`."""
        return jnp.mean(self.returns, axis=(1, 2))


FitnessFunction: TypeAlias = Callable[[FitnessKeys, Any, Normalizer], Fitness]
"""`fitness(keys, candidates [population], normalizer)`: see `make_fitness` and `make_policy_fitness`."""


def make_fitness(
    clone: BehaviourCloning,
    rollout: Rollout,
    cloning_chunk_size: int | None = None,
    rollout_chunk_size: int | None = None,
) -> FitnessFunction:
    """Makes F(D), the expected return of policies that were cloned on D (Behaviour Distillation, arXiv 2406.15042).

    The population is worked through in chunks: cloning wants a working set that fits a cache, and a chunk of
    rollouts ends with its own last living episode, however long those of other chunks go on.

    Args:
        clone: The inner loop.
        rollout: Plays `[candidates, inits]` policies.
        cloning_chunk_size: Candidates that are cloned at once; all of them if None.
        rollout_chunk_size: Candidates that are played at once; all of them if None.

    Returns:
        A function of shared keys, datasets with a leading axis `[population]`, and the normalizer of the rollouts.
    """

    def fitness(keys: FitnessKeys, datasets: SyntheticDataset, normalizer: Normalizer) -> Fitness:
        # Initialisations belong to the generation, not to the candidate.
        fresh = init_networks(clone, keys)

        def train(datasets: SyntheticDataset) -> PyTree:
            return clone_inits(clone, keys, fresh, datasets)

        def play(params: PyTree) -> Fitness:
            episodes = rollout(keys.episodes, params, normalizer)
            return Fitness(episodes.returns, episodes.lengths)

        def clone_and_play(datasets: SyntheticDataset) -> Fitness:
            return map_chunks(play, map_chunks(train, datasets, cloning_chunk_size), rollout_chunk_size)

        # Parameters live for the larger of the two chunks only, not for the whole population.
        whole = cloning_chunk_size is None or rollout_chunk_size is None
        outer = None if whole else max(cloning_chunk_size or 1, rollout_chunk_size or 1)
        return map_chunks(clone_and_play, datasets.pairs(), outer)

    return fitness


def make_policy_fitness(rollout: Rollout, rollout_chunk_size: int | None = None) -> FitnessFunction:
    """Makes the expected return of policies that play as they are: F with the identity in place of cloning.

    Args:
        rollout: Plays `[candidates, 1]` policies.
        rollout_chunk_size: Candidates that are played at once; all of them if None.

    Returns:
        A function of keys of one init (only its episodes matter), network parameters with a leading axis
        `[population]`, and the normalizer of the rollouts.
    """

    def fitness(keys: FitnessKeys, networks: PyTree, normalizer: Normalizer) -> Fitness:
        def play(networks: PyTree) -> Fitness:
            episodes = rollout(keys.episodes, jax.tree.map(lambda leaf: leaf[:, None], networks), normalizer)
            return Fitness(episodes.returns, episodes.lengths)

        return map_chunks(play, networks, rollout_chunk_size)

    return fitness


def init_networks(clone: BehaviourCloning, keys: FitnessKeys) -> PyTree:
    """Fresh parameters, `[inits, ...]`; for each init those that `clone(key, dataset)` begins with."""
    # One after the other: vmapped orthogonal initialisers deadlock on the CPU backend.
    return jax.lax.map(lambda key: clone.policy.init(jax.random.split(key)[0]), keys.inits)


def clone_inits(
    clone: BehaviourCloning, keys: FitnessKeys, fresh: PyTree, datasets: SyntheticDataset, window: int | None = None
) -> PyTree:
    """Trains every fresh initialisation on every dataset.

    Args:
        clone: The inner loop.
        keys: Keys with `[inits]`.
        fresh: What `init_networks` returned.
        datasets: Pairs with a leading axis `[candidates]`.
        window: Steps that gradients flow through, as `BehaviourCloning.fit_window` has it; all of them if None.

    Returns:
        Network parameters, `[candidates, inits, ...]`.
    """

    def fit(key: jax.Array, params: PyTree, dataset: SyntheticDataset) -> PyTree:
        if window is None:
            return clone.fit(key, params, dataset)
        return clone.fit_window(key, params, dataset, window)

    batch_keys = jax.vmap(lambda key: jax.random.split(key)[1])(keys.inits)
    over_inits = jax.vmap(fit, in_axes=(0, 0, None))
    return jax.vmap(over_inits, in_axes=(None, None, 0))(batch_keys, fresh, datasets)


def map_chunks(function: Callable[[PyTree], PyTree], xs: PyTree, chunk_size: int | None) -> PyTree:
    """Applies a batched function to chunks of the leading axis, one after the other.

    Unlike `jax.lax.map(batch_size=...)` it does not vmap: a loop inside of `function` keeps its scalar predicate.

    Args:
        function: Takes and returns pytrees with a leading axis, row by row independent of each other.
        xs: Pytree with leading axis `[rows]`.
        chunk_size: Rows of a chunk; the last one is filled with copies of the first row. None is one chunk.

    Returns:
        What `function(xs)` returns, `[rows, ...]`.
    """
    rows = jax.tree.leaves(xs)[0].shape[0]
    if chunk_size is None or chunk_size >= rows:
        return function(xs)
    padded = pad_rows(xs, chunk_size)
    chunks = jax.tree.map(lambda leaf: leaf.reshape(-1, chunk_size, *leaf.shape[1:]), padded)
    results = jax.lax.map(function, chunks)
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:rows], results)


def pad_rows(xs: PyTree, multiple: int) -> PyTree:
    """Fills the leading axis `[rows]` with copies of the first row, up to the next multiple."""
    rows = jax.tree.leaves(xs)[0].shape[0]
    missing = -rows % multiple
    if not missing:
        return xs
    return jax.tree.map(lambda leaf: jnp.concatenate([leaf, jnp.repeat(leaf[:1], missing, axis=0)]), xs)
