"""First pairs: that they are of the data, and of the right places in it."""

from __future__ import annotations

from functools import partial
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hades.offline import initialization
from hades.offline.initialization import InitializationName, initial_pairs, kmeans


@pytest.fixture(scope="module")
def data():
    """Six clusters of unequal size far from each other; an action is a function of its state alone."""
    generator = np.random.default_rng(0)
    centers = 30.0 * np.array([[0, 0], [0, 1], [1, 0], [1, 1], [3, 0], [0, 3]])
    labels = generator.choice(6, size=600, p=[0.5, 0.3, 0.1, 0.05, 0.03, 0.02])
    observations = (centers[labels] + generator.normal(size=(600, 2))).astype(np.float32)
    actions = np.tanh(observations @ generator.normal(size=(2, 3))).astype(np.float32)
    return {
        "observations": jnp.asarray(observations),
        "actions": jnp.asarray(actions),
        "action_values": jnp.asarray(generator.normal(size=600).astype(np.float32)),
        "labels": labels,
        "centers": centers,
    }


compiled = jax.jit(initial_pairs, static_argnames=("kind", "dataset_size"))


def pairs_of(data, key, kind, dataset_size=6, function=compiled, **others):
    arguments = {name: data[name] for name in ("observations", "actions", "action_values")} | others
    return function(key, kind, dataset_size=dataset_size, **arguments)


def indices_of(data, observations, actions):
    """Where the pairs stand in the data; fails where a pair is none of it."""
    rows = np.concatenate([data["observations"], data["actions"]], axis=1)
    found = [np.flatnonzero((rows == pair).all(axis=1)) for pair in np.concatenate([observations, actions], axis=1)]
    assert all(len(places) == 1 for places in found)
    return np.concatenate(found)


@pytest.mark.parametrize("kind", get_args(InitializationName))
def test_seeds_by_vmap_are_those_one_by_one(data, kind):
    keys = jax.random.split(jax.random.key(1), 3)
    together = jax.jit(jax.vmap(lambda key: pairs_of(data, key, kind)))(keys)
    assert together[0].shape == (3, 6, 2) and together[1].shape == (3, 6, 3)
    for index in range(3):
        observations, actions = pairs_of(data, keys[index], kind)
        np.testing.assert_array_equal(together[0][index], observations)
        np.testing.assert_array_equal(together[1][index], actions)
        if kind != "noise":
            assert len(set(indices_of(data, observations, actions))) == 6
    if kind in ("random", "noise"):
        assert len({array.tobytes() for array in np.asarray(together[0])}) == 3


def test_random_pairs_are_uniform():
    def draw(key):
        return initial_pairs(key, "random", jnp.arange(5.0)[:, None], jnp.zeros((5, 1)), 2)[0][:, 0]

    drawn = np.asarray(jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(0), 2000)))
    assert (drawn[:, 0] != drawn[:, 1]).all()
    # Four standard errors of a share of 0.4 of 2,000.
    np.testing.assert_allclose(np.bincount(drawn.ravel().astype(int)) / 2000, 0.4, atol=0.044)


def test_highest_q_takes_the_highest(data):
    indices = indices_of(data, *pairs_of(data, jax.random.key(0), "highest_q"))
    np.testing.assert_array_equal(indices, np.argsort(-np.asarray(data["action_values"]))[:6])


def test_kmeans_finds_separated_clusters(data):
    centroids = np.asarray(jax.jit(kmeans, static_argnums=2)(jax.random.key(0), data["observations"], 6))
    means = np.array([data["observations"][data["labels"] == label].mean(axis=0) for label in range(6)])
    order = np.argmin(np.square(means[:, None] - centroids).sum(axis=-1), axis=1)
    np.testing.assert_allclose(centroids[order], means, atol=1e-4)

    indices = indices_of(data, *pairs_of(data, jax.random.key(0), "kmeans"))
    observations, labels = np.asarray(data["observations"]), data["labels"]
    nearest = [
        np.argmin(np.where(labels == label, np.square(observations - means[label]).sum(axis=-1), np.inf))
        for label in range(6)
    ]
    assert sorted(indices) == sorted(nearest)


def test_highest_q_of_each_cluster(data, **others):
    indices = indices_of(data, *pairs_of(data, jax.random.key(0), "kmeans_highest_q", **others))
    values, labels = np.asarray(data["action_values"]), data["labels"]
    assert sorted(indices) == sorted(int(np.argmax(np.where(labels == label, values, -np.inf))) for label in range(6))


def test_all_data_are_assigned_where_kmeans_sees_a_sample(data, monkeypatch):
    monkeypatch.setattr(initialization, "_KMEANS_STATES", 300)
    monkeypatch.setattr(initialization, "_CHUNK_SIZE", 70)
    # Not what was compiled with the sizes of before.
    fresh = jax.jit(partial(initial_pairs), static_argnames=("kind", "dataset_size"))
    test_highest_q_of_each_cluster(data, function=fresh)


def test_fewer_distinct_states_than_clusters():
    observations = jnp.repeat(jnp.array([[0.0, 0.0], [5.0, 5.0], [9.0, 0.0]]), 10, axis=0)
    actions, values = jnp.arange(30.0)[:, None], jnp.arange(30.0)
    found, chosen = compiled(jax.random.key(0), "kmeans_highest_q", observations, actions, 8, values)
    assert len(np.unique(found, axis=0)) == 3
    # The best of each state, and the best of the rest.
    assert sorted(chosen[:, 0].tolist()) == [9, 19, 24, 25, 26, 27, 28, 29]


def test_an_empty_cluster_moves_to_far_points(monkeypatch):
    points = jnp.concatenate([jnp.linspace(-1, 1, 50), jnp.linspace(99, 101, 5)])[:, None]
    # From seeds one of which is nearest to nothing.
    monkeypatch.setattr(initialization, "_seed", lambda *_: jnp.array([[0.0], [-1e4]]))
    np.testing.assert_allclose(np.sort(kmeans(jax.random.key(0), points, 2), axis=0), [[0.0], [100.0]], atol=1e-4)


def test_noise_is_normal_within_the_range_of_actions(data):
    observations, actions = pairs_of(data, jax.random.key(0), "noise", 500, action_values=None)
    np.testing.assert_allclose(observations.mean(axis=0), 0.0, atol=0.18)
    np.testing.assert_allclose(observations.std(axis=0), 1.0, atol=0.13)
    low, high = data["actions"].min(axis=0), data["actions"].max(axis=0)
    assert (actions >= low).all() and (actions <= high).all()
    np.testing.assert_allclose(actions.mean(axis=0), (low + high) / 2, atol=0.11)
    np.testing.assert_allclose(actions.std(axis=0), (high - low) / 12**0.5, rtol=0.1)


@pytest.mark.parametrize("kind", ["kmeans", "noise"])
def test_observations_of_more_axes(kind):
    observations = jax.random.normal(jax.random.key(0), (40, 3, 2, 1))
    found, actions = compiled(jax.random.key(0), kind, observations, jnp.arange(40.0)[:, None], 5, jnp.arange(40.0))
    assert found.shape == (5, 3, 2, 1) and actions.shape == (5, 1)
    if kind != "noise":
        np.testing.assert_array_equal(found, observations[actions[:, 0].astype(int)])


def test_bad_arguments_are_named(data):
    key = jax.random.key(0)
    for size in (0, 601):
        with pytest.raises(ValueError, match=f"dataset_size: expected from 1 to the 600 transitions .*, got {size}"):
            pairs_of(data, key, "random", size)
    for kind in ("highest_q", "kmeans_highest_q"):
        with pytest.raises(ValueError, match=f"action_values: .* initialization {kind}, got none"):
            pairs_of(data, key, kind, 4, action_values=None)
    with pytest.raises(ValueError, match="actions: expected 600 rows as in observations, got 599"):
        pairs_of(data, key, "random", 4, actions=data["actions"][1:])
    with pytest.raises(ValueError, match="initialization: expected one of random, .*, got 'best'"):
        pairs_of(data, key, "best", 4)
