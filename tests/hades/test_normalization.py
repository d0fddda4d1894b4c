"""Statistics against NumPy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hades.normalization import Normalizer, RunningStatistics


def updated(batches, masks):
    statistics = RunningStatistics.empty(batches[0].shape[1:])
    for batch, mask in zip(batches, masks, strict=True):
        statistics = statistics.update(jnp.asarray(batch), jnp.asarray(mask))
    return statistics


@pytest.mark.parametrize("shape", [(3,), (2, 4)])
def test_running_statistics_are_those_of_the_living_observations(shape):
    generator = np.random.default_rng(0)
    batches = [generator.normal(5, 2, (6, *shape)).astype(np.float32) for _ in range(4)]
    masks = [np.array([True] * 6), np.array([True, False] * 3), np.zeros(6, bool), np.array([True] * 5 + [False])]
    seen = np.concatenate([batch[mask] for batch, mask in zip(batches, masks, strict=True)]).astype(np.float64)
    for batch, mask in zip(batches, masks, strict=True):
        batch[~mask] = np.nan
    statistics = updated(batches, masks)
    # The prior counts as 1e-4 observations, of mean 0 and variance 1.
    weight = len(seen) / (len(seen) + 1e-4)
    mean = weight * seen.mean(axis=0)
    variance = weight * seen.var(axis=0) + (1 - weight) + weight * (1 - weight) * seen.mean(axis=0) ** 2
    np.testing.assert_allclose(statistics.count, 14 + 1e-4, rtol=1e-6)
    np.testing.assert_allclose(statistics.mean, mean, rtol=1e-5)
    np.testing.assert_allclose(statistics.variance, variance, rtol=1e-5)
    np.testing.assert_allclose(
        statistics.apply(jnp.asarray(batches[0])), (batches[0] - mean) / np.sqrt(variance + 1e-8), rtol=1e-4, atol=1e-5
    )


def test_running_statistics_survive_a_large_offset():
    # Sums of squares in float32 would lose the variance here altogether.
    batches = [1e4 + np.random.default_rng(seed).normal(0, 1, (64, 1)).astype(np.float32) for seed in range(20)]
    statistics = updated(batches, [np.ones(64, bool)] * 20)
    prior_shift = 1e-4 / (20 * 64) * 1e8  # of the mean 0 that the prior counts as 1e-4 observations
    np.testing.assert_allclose(
        statistics.variance, np.concatenate(batches).astype(float).var() + prior_shift, rtol=0.02
    )


def test_statistics_without_observations_leave_them_as_they_are():
    observations = jnp.array([[1.0, -2.0]])
    np.testing.assert_allclose(RunningStatistics.empty((2,)).apply(observations), observations, rtol=1e-6)
    masked = RunningStatistics.empty((2,)).update(jnp.full((3, 2), jnp.nan), jnp.zeros(3, bool))
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
