"""First synthetic datasets of offline distillation: pairs from the data, or noise."""

from __future__ import annotations

import math
from typing import Literal, get_args

import jax
import jax.numpy as jnp

InitializationName = Literal["random", "highest_q", "kmeans", "kmeans_highest_q", "noise"]

_KMEANS_STATES = 20_000
_KMEANS_ITERATIONS = 20
_CHUNK_SIZE = 8192


def initial_pairs(
    key: jax.Array,
    kind: InitializationName,
    observations: jax.Array,
    actions: jax.Array,
    dataset_size: int,
    action_values: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """The pairs that a distillation begins with; pure, for `jax.jit` and `jax.vmap` over keys.

    | kind | pairs |
    |---|---|
    | `random` | distinct real ones, as in the published OBD runs |
    | `highest_q` | the real ones of the highest action values; the same for all keys |
    | `kmeans` | of each of `dataset_size` clusters of states the real one nearest to the centroid |
    | `kmeans_highest_q` | of each cluster the real one of the highest action value |
    | `noise` | standard normal observations; actions uniform over the range of each component in the data |

    A centroid may be a state that cannot occur, and has no action: hence the real pair beside it. Clusters are those of
    Lloyd's algorithm after greedy k-means++ (Arthur and Vassilvitskii, 2007) on at most 20,000 states drawn at random;
    all the data are assigned to them.

    Args:
        key: For all that is drawn.
        kind: Which pairs.
        observations: Normalised, `[transitions, *observation_shape]`; k-means measures Euclidean distances in them.
        actions: `[transitions, action_dim]`.
        dataset_size: Pairs N.
        action_values: q*(s, a) of each transition, `[transitions]`; needed by the kinds with `highest_q`.

    Returns:
        Observations `[dataset_size, *observation_shape]` and actions `[dataset_size, action_dim]`.

    Raises:
        ValueError: The kind is unknown, action values are needed and missing, lengths differ, or there are not as many
            transitions as pairs.
    """
    count = len(observations)
    if kind not in get_args(InitializationName):
        raise ValueError(f"initialization: expected one of {', '.join(get_args(InitializationName))}, got {kind!r}")
    for name, array in (("actions", actions), ("action_values", action_values)):
        if array is not None and len(array) != count:
            raise ValueError(f"{name}: expected {count} rows as in observations, got {len(array)}")
    if not 1 <= dataset_size <= count:
        raise ValueError(f"dataset_size: expected from 1 to the {count} transitions of the data, got {dataset_size}")
    if kind == "noise":
        return _noise(key, observations, actions, dataset_size)
    if kind == "random":
        indices = jax.random.choice(key, count, (dataset_size,), replace=False)
    elif kind == "kmeans":
        indices = _of_clusters(key, observations, dataset_size, None)
    elif action_values is None:
        raise ValueError(f"action_values: expected those of a teacher for the initialization {kind}, got none")
    elif kind == "highest_q":
        indices = jax.lax.top_k(action_values, dataset_size)[1]
    else:
        indices = _of_clusters(key, observations, dataset_size, action_values)
    return observations[indices], actions[indices]


def kmeans(key: jax.Array, points: jax.Array, num_clusters: int) -> jax.Array:
    """Centroids of k-means after greedy k-means++; a cluster that gets empty moves to a point far from its centroid.

    Args:
        key: For the seeding.
        points: `[points, columns]`.
        num_clusters: At most as many as points.

    Returns:
        `[num_clusters, columns]`.
    """

    def iterate(_: int, centroids: jax.Array) -> jax.Array:
        assignment, distances = _assign(points, centroids)
        counts = jax.ops.segment_sum(jnp.ones(len(points)), assignment, num_clusters)
        sums = jax.ops.segment_sum(points, assignment, num_clusters)
        # The first empty cluster takes the farthest point, the next one the second farthest.
        farthest = jax.lax.top_k(distances, num_clusters)[1]
        moved = points[farthest[jnp.cumsum(counts == 0) - 1]]
        return jnp.where(counts[:, None] > 0, sums / jnp.maximum(counts, 1)[:, None], moved)

    return jax.lax.fori_loop(0, _KMEANS_ITERATIONS, iterate, _seed(key, points, num_clusters))


def _seed(key: jax.Array, points: jax.Array, num_clusters: int) -> jax.Array:
    """Greedy k-means++: next centroids are drawn in proportion to the squared distance to the nearest one so far.

    Of a few that are drawn, the one stays that brings all points nearest; a single one too often misses a cluster.
    """
    trials = 2 + int(math.log(num_clusters))
    first_key, scan_key = jax.random.split(key)

    def squared(centroid: jax.Array) -> jax.Array:
        return jnp.sum(jnp.square(points - centroid), axis=-1)

    def draw(nearest: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        cumulative = jnp.cumsum(nearest)
        thresholds = cumulative[-1] * (1 - jax.random.uniform(key, (trials,)))
        drawn = jnp.minimum(jnp.searchsorted(cumulative, thresholds), len(points) - 1)
        candidates = jnp.minimum(nearest, jax.vmap(squared)(points[drawn]))
        best = jnp.argmin(jnp.sum(candidates, axis=-1))
        return candidates[best], points[drawn[best]]

    first = points[jax.random.randint(first_key, (), 0, len(points))]
    others = jax.lax.scan(draw, squared(first), jax.random.split(scan_key, num_clusters)[1:])[1]
    return jnp.concatenate([first[None], others])


def _assign(points: jax.Array, centroids: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The nearest centroid of each point, `[points]`, and the squared distance to it, `[points]`."""
    norms = jnp.sum(jnp.square(centroids), axis=-1)

    def nearest(point: jax.Array) -> tuple[jax.Array, jax.Array]:
        # Squared distances but for |point|^2. In full precision: tensor cores would confuse near centroids.
        partial = norms - 2 * jnp.matmul(centroids, point, precision=jax.lax.Precision.HIGHEST)
        index = jnp.argmin(partial)
        return index, jnp.sum(jnp.square(point - centroids[index]))

    # In chunks: distances of a million states to hundreds of centroids are gigabytes.
    return jax.lax.map(nearest, points, batch_size=_CHUNK_SIZE)


def _of_clusters(key: jax.Array, observations: jax.Array, size: int, action_values: jax.Array | None) -> jax.Array:
    """Indices of one transition from each cluster, all distinct, `[size]`; see `initial_pairs`."""
    choice_key, kmeans_key = jax.random.split(key)
    points = jnp.reshape(observations, (len(observations), -1))
    drawn = points
    if len(points) > max(_KMEANS_STATES, size):
        drawn = points[jax.random.choice(choice_key, len(points), (max(_KMEANS_STATES, size),), replace=False)]
    assignment, distances = _assign(points, kmeans(kmeans_key, drawn, size))
    scores = -distances if action_values is None else action_values
    best = jax.ops.segment_max(scores, assignment, size)
    positions = jnp.arange(len(points))
    first_best = jnp.where(scores == best[assignment], positions, len(points))
    indices = jax.ops.segment_min(first_best, assignment, size)
    # Fewer distinct states than clusters leave some empty: these get transitions that no other cluster gave.
    empty = jax.ops.segment_sum(jnp.ones(len(points)), assignment, size) == 0
    free = jnp.ones(len(points), bool).at[jnp.where(empty, len(points), indices)].set(False, mode="drop")
    spare = jax.lax.top_k(jnp.where(free, scores, -jnp.inf), size)[1]
    return jnp.where(empty, spare[jnp.cumsum(empty) - 1], indices)


def _noise(key: jax.Array, observations: jax.Array, actions: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
    observation_key, action_key = jax.random.split(key)
    low, high = jnp.min(actions, axis=0), jnp.max(actions, axis=0)
    return (
        jax.random.normal(observation_key, (size, *observations.shape[1:]), observations.dtype),
        jax.random.uniform(action_key, (size, *actions.shape[1:]), actions.dtype, low, high),
    )
