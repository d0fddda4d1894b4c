"""Densities where the truth is known, and weights by hand."""

from __future__ import annotations

import sys

import flowjax.distributions
import flowjax.flows
import flowjax.train
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hades.offline.density import FlowSettings, density_weights, exponent_of, fit_flow, knn_log_density

SMALL = FlowSettings(num_layers=3, width=32, epochs=15, batch_size=64, learning_rate=0.005)


def banana(count, seed):
    """States (5 + 4 u, v + u^2) of normal u, v with deviations 1 and 0.3, and the logarithm of their density."""
    u, v = np.random.default_rng(seed).normal(size=(2, count)) * [[1.0], [0.3]]
    log_density = -0.5 * (u**2 + (v / 0.3) ** 2) - np.log(2 * np.pi * 0.3 * 4.0)
    return np.stack([5.0 + 4.0 * u, v + u**2], axis=1), log_density


def with_constants(states):
    """As float32, with columns before, between and behind that never vary."""
    first, second = states.T
    columns = [np.zeros_like(first), first, np.full_like(first, 1234.5), second, np.full_like(first, -1e-3)]
    return np.stack(columns, axis=1).astype(np.float32)


@pytest.fixture(scope="module")
def banana_flow():
    return fit_flow(jax.random.key(0), with_constants(banana(2000, seed=0)[0]), SMALL)


def test_flow_fits_a_known_density(banana_flow):
    states, truth = banana(1000, seed=1)
    found = np.asarray(banana_flow(jnp.asarray(with_constants(states))))
    # A forgotten Jacobian of the scales (log of 4 and 1.4) or of the layers is beyond all of these.
    assert np.abs(found - truth).mean() < 0.25
    # Minus the divergence of Kullback and Leibler from the truth, which no density makes positive but by chance.
    assert -0.1 < (found - truth).mean() < 0.02
    assert np.corrcoef(found, truth)[0, 1] > 0.93


def test_density_of_the_flow_integrates_to_one(banana_flow):
    first, second = np.linspace(-20, 30, 251), np.linspace(-3, 18, 211)
    grid = np.stack(np.meshgrid(first, second), axis=-1).reshape(-1, 2)
    # More states than a chunk has.
    density = np.exp(np.asarray(banana_flow(jnp.asarray(with_constants(grid)))))
    cell = (first[1] - first[0]) * (second[1] - second[0])
    assert density.sum() * cell == pytest.approx(1.0, abs=0.03)


def test_flow_and_neighbours_agree(banana_flow):
    states, truth = banana(2000, seed=0)
    states = with_constants(states)
    flow, neighbours = np.asarray(banana_flow(jnp.asarray(states))), knn_log_density(states, k=20)
    assert np.abs(neighbours - truth).mean() < 0.35
    assert np.abs(flow - neighbours).mean() < 0.4
    assert np.corrcoef(flow, neighbours)[0, 1] > 0.88


def test_density_of_the_flow_is_pure_and_takes_any_rank(banana_flow):
    states = jnp.asarray(with_constants(banana(10, seed=2)[0]))
    np.testing.assert_allclose(jax.vmap(banana_flow)(states.reshape(5, 2, 5)).reshape(10), banana_flow(states), 1e-5)
    np.testing.assert_array_equal(banana_flow(states.reshape(10, 5, 1)), banana_flow(states))


def untrained_flow(monkeypatch, losses):
    """Puts a standard normal in place of the fitted flow; returns what fitting would have seen."""
    seen = {}

    def fit_to_data(key, flow, states, **settings):
        del key, flow
        seen.update(states=np.asarray(states), **settings)
        return flowjax.distributions.Normal(jnp.zeros(states.shape[1])), {"train": losses, "val": losses}

    monkeypatch.setattr(flowjax.train, "fit_to_data", fit_to_data)
    monkeypatch.setattr(flowjax.flows, "masked_autoregressive_flow", lambda *_, **__: None)
    return seen


def test_flow_sees_z_scored_states_and_gives_the_density_in_their_units(monkeypatch):
    seen = untrained_flow(monkeypatch, [0.0])
    states = banana(600, seed=2)[0].astype(np.float32)
    density = fit_flow(jax.random.key(0), with_constants(states), FlowSettings(batch_size=32, max_states=256))
    scores = (states - states.mean(axis=0)) / states.std(axis=0)
    assert seen["states"].shape == (256, 2) and len(np.unique(seen["states"], axis=0)) == 256
    distances = np.abs(seen["states"][:, None] - scores).max(axis=-1).min(axis=1)
    np.testing.assert_allclose(distances, 0.0, atol=1e-4)
    assert (seen["batch_size"], seen["max_epochs"], seen["learning_rate"], seen["val_prop"]) == (32, 20, 0.001, 0.1)
    expected = -0.5 * np.square(scores).sum(axis=1) - np.log(2 * np.pi) - np.log(states.std(axis=0)).sum()
    np.testing.assert_allclose(density(jnp.asarray(with_constants(states))), expected, rtol=1e-4, atol=1e-4)


def test_flow_that_diverges_is_refused(monkeypatch):
    untrained_flow(monkeypatch, [1.0, float("nan")])
    with pytest.raises(ValueError, match=r"learning_rate: .* does not diverge, got 7"):
        fit_flow(jax.random.key(0), banana(50, seed=0)[0], FlowSettings(learning_rate=7))


def test_neighbours_on_a_lattice_have_a_closed_form():
    side = np.arange(21.0)
    lattice = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    center = np.array([[10.0, 10.0]])
    # From a point of the lattice, itself at 0: four at distance 1, four at sqrt 2, four at 2.
    for k, inside, squared in [(2, 2, 1), (5, 5, 1), (6, 6, 2), (10, 10, 4)]:
        expected = np.log(inside / (441 * np.pi * squared))
        np.testing.assert_allclose(knn_log_density(lattice, center, k), [expected])
    # The point itself has no part in its own density.
    own = knn_log_density(lattice, k=5)[220]
    np.testing.assert_allclose(own, np.log(5 / (440 * np.pi * 2)))


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_neighbours_find_a_uniform_density(dim):
    generator = np.random.default_rng(0)
    states = np.array([5.0, 0.1, 2.0][:dim]) * generator.uniform(size=(4000, dim))
    inner = np.array([5.0, 0.1, 2.0][:dim]) * generator.uniform(0.3, 0.7, size=(500, dim))
    scaled = states / states.max(axis=0)
    found = knn_log_density(scaled, inner / states.max(axis=0), k=20)
    # log k is above the mean of the estimate by 1 / 2k; its standard deviation is k^-0.5 = 0.22.
    assert found.mean() == pytest.approx(0.025, abs=0.05)
    assert found.std() == pytest.approx(0.22, abs=0.06)


def test_repeated_states_have_finite_density():
    states = np.array([[0.0], [0.0], [0.0], [0.0], [3.0], [7.0]])
    # Three others at 0 are no ball: it grows to the state at 3, four inside.
    np.testing.assert_allclose(knn_log_density(states, k=2)[:4], np.log(4 / (5 * 2 * 3.0)))
    # From 3, the first two neighbours and more are at distance 3.
    np.testing.assert_allclose(knn_log_density(states, k=2)[4], np.log(4 / (5 * 2 * 3.0)))
    np.testing.assert_allclose(knn_log_density(states, np.array([[2.0]]), k=1), [np.log(1 / (6 * 2 * 1.0))])


def test_weights_by_hand():
    log_density = np.log(np.arange(1.0, 202.0))
    np.testing.assert_array_equal(density_weights(jnp.asarray(log_density), 0.0), np.ones(201))
    weights = np.asarray(density_weights(jnp.asarray(log_density), 0.5))
    # Percentiles of 201 values are values themselves: the densities 3 and 199.
    clipped = np.clip(np.arange(1.0, 202.0), 3.0, 199.0) ** -0.5
    np.testing.assert_allclose(weights, clipped / clipped.mean(), rtol=1e-5)
    assert weights.mean() == pytest.approx(1.0, abs=1e-5)
    assert (np.diff(weights[2:199]) < 0).all()


@pytest.mark.parametrize("count", [1, 3, 7, 1001, 99_991])
def test_exponent_zero_weighs_all_states_exactly_alike(count):
    log_density = jax.random.normal(jax.random.key(0), (count,)).at[0].set(-jnp.inf if count > 1 else 0.0)
    np.testing.assert_array_equal(jax.jit(density_weights)(log_density, 0.0), np.ones(count, np.float32))


@pytest.mark.parametrize("fraction", [0.9, 0.5, 0.1])
def test_an_exponent_of_an_effective_sample_size(fraction):
    log_density = jax.random.normal(jax.random.key(0), (1000,))
    tau = exponent_of(log_density, fraction)
    weights = np.asarray(density_weights(log_density, tau), np.float64)
    assert weights.sum() ** 2 / np.sum(weights**2) / 1000 == pytest.approx(fraction, abs=1e-3)
    assert exponent_of(log_density, 1.0) == pytest.approx(0, abs=1e-3)


def test_weights_do_not_overflow_and_ignore_the_unit():
    log_density = jax.random.normal(jax.random.key(0), (500,)) * 300 - 1e3
    weights = density_weights(log_density, 1.0)
    assert np.isfinite(weights).all() and float(weights.mean()) == pytest.approx(1.0, abs=1e-5)
    np.testing.assert_allclose(density_weights(log_density + 100.0, 0.1), density_weights(log_density, 0.1), rtol=1e-3)
    # What is outside of a flow's support weighs as much as the rarest other state.
    outside = density_weights(log_density.at[:50].set(-jnp.inf), 0.01)
    rest = density_weights(log_density.at[:50].set(log_density[50:].min()), 0.01)
    np.testing.assert_array_equal(outside, rest)


def test_densities_refuse_what_has_none():
    states = np.random.default_rng(0).normal(size=(50, 3))
    with pytest.raises(ValueError, match="observations: expected finite numbers"):
        fit_flow(jax.random.key(0), np.where(states > 2, np.nan, states))
    with pytest.raises(ValueError, match="observations: expected at least 2 columns that vary for a flow, got 1"):
        fit_flow(jax.random.key(0), states * [1.0, 0.0, 0.0] + 3.0)
    with pytest.raises(ValueError, match="observations: expected enough states to hold out a share of 0.1, got 4"):
        fit_flow(jax.random.key(0), states[:4])
    with pytest.raises(ValueError, match=r"observations: expected shape \[states"):
        fit_flow(jax.random.key(0), states[0])
    with pytest.raises(ValueError, match="states: expected at least one column that varies"):
        knn_log_density(np.ones((5, 2)), k=1)
    with pytest.raises(ValueError, match="k: expected a number of neighbours from 1 to 49, got 50"):
        knn_log_density(states, k=50)
    with pytest.raises(ValueError, match="queries: expected 3 columns as in states, got 2"):
        knn_log_density(states, states[:, :2], k=1)
    with pytest.raises(ValueError, match="validation_share: expected a number between 0 and 1"):
        FlowSettings(validation_share=1.0)


def test_missing_flowjax_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "flowjax.flows", None)
    with pytest.raises(ValueError, match=r"pip install 'hades-distillation\[flows\]'"):
        fit_flow(jax.random.key(0), np.random.default_rng(0).normal(size=(50, 3)))
