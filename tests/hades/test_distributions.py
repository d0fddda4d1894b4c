"""Distributions against SciPy-free formulas in NumPy, and their samples against their densities."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hades.distributions import (
    Categorical,
    Deterministic,
    DiagonalGaussian,
    TanhGaussian,
    Uniform,
    choose,
    draw_noise,
)

LOGITS = jnp.array([[0.0, 1.0, -2.0], [3.0, 3.5, 0.0]])
MEAN, LOG_STD = jnp.array([[0.5, -1.0], [2.0, 0.0]]), jnp.array([0.3, -0.7])


def test_categorical_log_probs_are_the_logarithm_of_the_softmax():
    logits = np.asarray(LOGITS, np.float64)
    expected = np.log(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(Categorical(LOGITS).log_probs(), expected, rtol=1e-6)
    np.testing.assert_allclose(Categorical(LOGITS).log_prob(jnp.array([2, 0])), expected[[0, 1], [2, 0]], rtol=1e-6)


def test_categorical_samples_have_the_probabilities_of_the_softmax():
    samples = jax.vmap(Categorical(LOGITS).sample)(jax.random.split(jax.random.key(0), 20_000))
    frequencies = np.stack([np.bincount(row, minlength=3) / len(row) for row in np.asarray(samples).T])
    assert samples.dtype == jnp.int32
    # Five standard errors of a frequency are 0.018 at the most.
    np.testing.assert_allclose(frequencies, jax.nn.softmax(LOGITS), atol=0.018)


def test_gaussian_log_density_is_that_of_independent_normals():
    action = jnp.array([[0.0, 0.0], [1.0, -1.0]])
    mean, std, value = (np.asarray(array, np.float64) for array in (MEAN, jnp.exp(LOG_STD), action))
    density = np.exp(-0.5 * ((value - mean) / std) ** 2) / (std * math.sqrt(2 * math.pi))
    np.testing.assert_allclose(
        DiagonalGaussian(MEAN, LOG_STD).log_prob(action), np.log(density.prod(axis=1)), rtol=1e-5
    )


def test_gaussian_samples_have_its_moments():
    samples = jax.vmap(DiagonalGaussian(MEAN, LOG_STD).sample)(jax.random.split(jax.random.key(0), 20_000))
    std = np.broadcast_to(np.exp(LOG_STD), MEAN.shape)
    np.testing.assert_allclose(samples.mean(axis=0), MEAN, atol=5 * std.max() / math.sqrt(20_000))
    np.testing.assert_allclose(samples.std(axis=0), std, rtol=0.03)


def test_uniform_density_support_and_moments():
    uniform = Uniform(jnp.array([-1.0, 0.0]), jnp.array([1.0, 0.5]))
    samples = jax.vmap(uniform.sample)(jax.random.split(jax.random.key(0), 20_000))
    np.testing.assert_allclose(uniform.log_prob(samples), 0.0, atol=1e-6)  # the box has volume 1
    np.testing.assert_allclose(samples.mean(axis=0), uniform.mode(), atol=0.02)
    np.testing.assert_allclose(samples.std(axis=0), [2 / math.sqrt(12), 0.5 / math.sqrt(12)], rtol=0.03)
    assert uniform.log_prob(jnp.array([0.0, 0.6])) == -jnp.inf
    np.testing.assert_allclose(uniform.mode(), [0.0, 0.25])


@pytest.mark.parametrize(
    ("distribution", "mode"), [(Categorical(LOGITS), [1, 1]), (DiagonalGaussian(MEAN, LOG_STD), MEAN)]
)
def test_mode_has_the_greatest_log_prob(distribution, mode):
    np.testing.assert_array_equal(distribution.mode(), mode)
    samples = jax.vmap(distribution.sample)(jax.random.split(jax.random.key(1), 100))
    assert (jax.vmap(distribution.log_prob)(samples) <= distribution.log_prob(distribution.mode())).all()


def test_entropy_is_the_expected_negative_log_probability():
    probabilities = np.asarray(jax.nn.softmax(LOGITS), np.float64)
    expected = -(probabilities * np.log(probabilities)).sum(axis=1)
    np.testing.assert_allclose(Categorical(LOGITS).entropy(), expected, rtol=1e-5)
    gaussian = np.sum(np.asarray(LOG_STD, np.float64) + 0.5 * np.log(2 * np.pi * np.e))
    np.testing.assert_allclose(DiagonalGaussian(MEAN, LOG_STD).entropy(), [gaussian, gaussian], rtol=1e-5)


def test_entropy_of_an_impossible_action_is_zero_and_has_a_gradient():
    def entropy(logit):
        return Categorical(jnp.array([logit, 0.0, -jnp.inf])).entropy()

    value, gradient = jax.value_and_grad(entropy)(0.0)
    np.testing.assert_allclose(value, math.log(2), rtol=1e-6)
    np.testing.assert_allclose(gradient, 0.0, atol=1e-6)


BOUNDS = jnp.array([-2.0, 0.0]), jnp.array([2.0, 0.5])


def test_tanh_gaussian_density_integrates_to_one_within_its_bounds():
    low, high = 0.5, 3.0
    squashed = TanhGaussian(jnp.array([0.4]), jnp.array([-0.5]), jnp.array([low]), jnp.array([high]))
    # Midpoints, as the density at the bounds themselves is that of an infinite action.
    grid = low + (high - low) * (np.arange(20_000) + 0.5) / 20_000
    density = np.exp(np.asarray(squashed.log_prob(jnp.asarray(grid, jnp.float32)[:, None]), np.float64))
    np.testing.assert_allclose(density.sum() * (high - low) / 20_000, 1.0, rtol=1e-4)


def test_tanh_gaussian_samples_stay_inside_and_have_its_quantiles():
    squashed = TanhGaussian(MEAN, LOG_STD, *BOUNDS)
    samples = np.asarray(jax.vmap(squashed.sample)(jax.random.split(jax.random.key(0), 20_000)))
    assert (samples >= BOUNDS[0]).all()
    assert (samples <= BOUNDS[1]).all()
    # tanh keeps order, so that the mode, the squashed mean, is the median.
    np.testing.assert_allclose((samples < squashed.mode()).mean(axis=0), 0.5, atol=0.02)
    centre, scale = 0.5 * (BOUNDS[0] + BOUNDS[1]), 0.5 * (BOUNDS[1] - BOUNDS[0])
    upper = centre + scale * jnp.tanh(MEAN + jnp.exp(LOG_STD))
    np.testing.assert_allclose((samples < upper).mean(axis=0), 0.8413, atol=0.02)


def test_tanh_gaussian_density_of_its_own_samples_needs_no_inverse():
    squashed = TanhGaussian(MEAN, LOG_STD, *BOUNDS)
    actions, log_probs = squashed.sample_with_log_prob(jax.random.key(0))
    np.testing.assert_allclose(log_probs, squashed.log_prob(actions), rtol=1e-3)
    # So far out that float32 rounds tanh to 1.
    far = TanhGaussian(jnp.array([20.0]), jnp.array([0.0]))
    actions, log_probs = far.sample_with_log_prob(jax.random.key(0))
    inner = 20.0 + float(jax.random.normal(jax.random.key(0), (1,))[0])
    expected = -0.5 * ((inner - 20) ** 2 + math.log(2 * math.pi)) - (2 * math.log(2) - 2 * inner)
    assert float(actions[0]) == 1.0
    np.testing.assert_allclose(float(log_probs), expected, rtol=1e-5)


@pytest.mark.parametrize(
    "distribution",
    [Categorical(jnp.array([[0.0, 2.0, -1.0]] * 50)), DiagonalGaussian(MEAN, LOG_STD), TanhGaussian(MEAN, LOG_STD)],
    ids=lambda distribution: type(distribution).__name__,
)
def test_samples_are_a_function_of_noise_that_needs_shapes_alone(distribution):
    key = jax.random.key(5)
    shapes = jax.eval_shape(lambda: distribution)
    noise = draw_noise(key, shapes)
    sampled = distribution.sample(key)
    np.testing.assert_array_equal(choose(noise, distribution, "sample"), sampled)
    np.testing.assert_array_equal(choose(noise, distribution, "mode"), distribution.mode())
    assert (np.asarray(distribution.mode()) != np.asarray(sampled)).any()


def test_categorical_samples_are_those_of_jax():
    logits = jnp.array([[0.0, 2.0, -1.0]] * 50)
    expected = jax.random.categorical(jax.random.key(5), logits)
    np.testing.assert_array_equal(Categorical(logits).sample(jax.random.key(5)), expected)


def test_a_distribution_without_noise_keeps_the_key():
    key, fixed = jax.random.key(5), Deterministic(MEAN)
    assert draw_noise(key, fixed) is key
    np.testing.assert_array_equal(choose(draw_noise(key, fixed), fixed, "sample"), MEAN)


def test_a_subclass_that_samples_in_a_way_of_its_own_keeps_the_key():
    class Doubled(DiagonalGaussian):
        def sample(self, key):
            return 2 * super().sample(key)

    key, doubled = jax.random.key(5), Doubled(MEAN, LOG_STD)
    assert draw_noise(key, doubled) is key
    expected = 2 * DiagonalGaussian(MEAN, LOG_STD).sample(key)
    np.testing.assert_array_equal(choose(draw_noise(key, doubled), doubled, "sample"), expected)


def test_choosing_is_sampling_or_the_mode():
    normal, key = DiagonalGaussian(MEAN, LOG_STD), jax.random.key(3)
    np.testing.assert_array_equal(choose(key, normal, "mode"), MEAN)
    np.testing.assert_array_equal(choose(key, normal, "sample"), normal.sample(key))
