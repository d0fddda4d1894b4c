"""Statistics against NumPy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hades.normalization import PUBLISHED_PRIOR_COUNT, Normalizer, RunningStatistics, mean_and_std


def updated(batches, masks, prior_count=0.0):
    statistics = RunningStatistics.empty(batches[0].shape[1:], prior_count)
    for batch, mask in zip(batches, masks, strict=True):
        statistics = statistics.update(jnp.asarray(batch), jnp.asarray(mask))
    return statistics


@pytest.mark.parametrize("prior_count", [0.0, PUBLISHED_PRIOR_COUNT])
@pytest.mark.parametrize("shape", [(3,), (2, 4)])
def test_running_statistics_are_those_of_the_living_observations(shape, prior_count):
    generator = np.random.default_rng(0)
    batches = [generator.normal(5, 2, (6, *shape)).astype(np.float32) for _ in range(4)]
    masks = [np.array([True] * 6), np.array([True, False] * 3), np.zeros(6, bool), np.array([True] * 5 + [False])]
    seen = np.concatenate([batch[mask] for batch, mask in zip(batches, masks, strict=True)]).astype(np.float64)
    for batch, mask in zip(batches, masks, strict=True):
        batch[~mask] = np.nan
    statistics = updated(batches, masks, prior_count)
    # The prior has mean 0 and variance 1.
    weight = len(seen) / (len(seen) + prior_count)
    mean = weight * seen.mean(axis=0)
    variance = weight * seen.var(axis=0) + (1 - weight) + weight * (1 - weight) * seen.mean(axis=0) ** 2
    np.testing.assert_allclose(statistics.count, 14 + prior_count, rtol=1e-6)
    np.testing.assert_allclose(statistics.mean, mean, rtol=1e-5)
    np.testing.assert_allclose(statistics.variance, variance, rtol=1e-5)
    np.testing.assert_allclose(
        statistics.apply(jnp.asarray(batches[0])), (batches[0] - mean) / np.sqrt(variance + 1e-8), rtol=1e-4, atol=1e-5
    )


def test_a_mixture_has_the_moments_of_its_parts_by_their_shares():
    generator = np.random.default_rng(0)
    parts = [generator.normal(mean, std, (count, 3)) for mean, std, count in ((0, 1, 50), (4, 0.2, 10))]
    each = [updated([part.astype(np.float32)], [np.ones(len(part), bool)]) for part in parts]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
    pooled, halves = stacked.mixture(stacked.count), stacked.mixture(jnp.array([2.0, 2.0]))
    every, even = np.concatenate(parts), np.concatenate([parts[0], *[parts[1]] * 5])
    for found, seen in ((pooled, every), (halves, even)):
        np.testing.assert_allclose(found.mean, seen.mean(axis=0), rtol=1e-4)
        np.testing.assert_allclose(found.variance, seen.var(axis=0), rtol=1e-4)
        assert found.count == 60


@pytest.mark.parametrize("batch", [8, 1200])
@pytest.mark.parametrize("offset", [1e4, 1e5, -1e6])
def test_a_large_offset_leaves_the_deviation_as_it_is(offset, batch):
    observations = (offset + np.random.default_rng(0).normal(size=(1200 // batch, batch, 1))).astype(np.float32)
    statistics = updated(observations, np.ones((1200 // batch, batch), bool))
    np.testing.assert_allclose(np.sqrt(statistics.variance[0]), observations.astype(float).std(), rtol=0.005)
    np.testing.assert_allclose(statistics.mean[0], observations.astype(float).mean(), rtol=1e-6)


def test_the_published_prior_adds_an_offset_to_the_deviation():
    observations = (1e5 + np.random.default_rng(0).normal(size=(1, 1200, 1))).astype(np.float32)
    statistics = updated(observations, np.ones((1, 1200), bool), PUBLISHED_PRIOR_COUNT)
    np.testing.assert_allclose(np.sqrt(statistics.variance[0]), 28.9, rtol=0.01)


def test_statistics_do_not_overflow():
    observations = np.array([[1.0, 5.0], [1e20, 6.0], [3.0, np.nan], [3.0, 7.0], [2.0, -np.inf]], np.float32)
    statistics = updated([observations], [np.ones(5, bool)])
    np.testing.assert_allclose(statistics.count, 2)
    np.testing.assert_allclose(statistics.mean, [2.0, 6.0])
    np.testing.assert_allclose(statistics.variance, [1.0, 1.0])
    largest = updated(
        [np.full((1000, 1), 1e15, np.float32) * np.array([[1], [-1]] * 500)] * 3, [np.ones(1000, bool)] * 3
    )
    np.testing.assert_allclose(np.sqrt(largest.variance), 1e15, rtol=1e-3)


@pytest.mark.parametrize("scale", [1.0, 1e20, 1e37])
def test_mean_and_deviation_of_large_values(scale):
    values = scale * np.random.default_rng(0).normal(3.0, 1.0, 50)
    mean, std = mean_and_std(jnp.asarray(values, jnp.float32))
    np.testing.assert_allclose([mean, std], [values.mean(), values.std()], rtol=1e-5)
    assert float(mean_and_std(jnp.zeros(3))[1]) == 0


def test_statistics_without_observations_leave_them_as_they_are():
    observations = jnp.array([[1.0, -2.0]])
    np.testing.assert_allclose(RunningStatistics.empty((2,)).apply(observations), observations, rtol=1e-6)
    masked = RunningStatistics.empty((2,)).update(jnp.full((3, 2), jnp.nan), jnp.ones(3, bool))
    np.testing.assert_allclose(masked.apply(observations), observations, rtol=1e-6)


def test_fixed_statistics_are_clamped():
    statistics = RunningStatistics(jnp.array([1.0, 2.0]), jnp.array([4.0, 1e-8]), jnp.float32(10))
    normalizer = Normalizer.from_statistics(statistics, min_std=0.01)
    assert normalizer.kind == "fixed"
    np.testing.assert_allclose(normalizer.std, [2.0, 0.01], rtol=1e-6)
    np.testing.assert_allclose(normalizer.apply(jnp.array([[5.0, 2.1]])), [[2.0, 10.0]], rtol=1e-5)


def test_no_statistics_change_nothing():
    observations = jnp.arange(3.0)
    np.testing.assert_array_equal(Normalizer().apply(observations), observations)
    assert jax.tree.leaves(Normalizer()) == []
