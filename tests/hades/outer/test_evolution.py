"""Evolution strategies: that they climb, what they make of returns, and what they refuse."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from evosax.algorithms import distribution_based_algorithms

from hades.outer import (
    Evolution,
    EvolutionSettings,
    evolution_from_settings,
    replace_non_finite,
    strategy_names,
    summarize,
)

TARGET = np.array([0.5, -0.5, 0.3, 0.2, -0.1, 0.4], np.float32)
START = {"matrix": jnp.zeros((2, 2)), "vector": jnp.zeros(2)}


def flatten(solution, axes=0):
    leaves = [solution["matrix"], solution["vector"]]
    return jnp.concatenate([leaf.reshape(*leaf.shape[:axes], -1) for leaf in leaves], axis=-1)


def quadratic(population):
    """The greatest value is 0, at the target."""
    return -jnp.sum(jnp.square(flatten(population, 1) - TARGET), axis=1), {}


def climb(evolution, generations, objective=quadratic, seed=0):
    @jax.jit
    def run(key):
        def body(state, index):
            return evolution.step(jax.random.fold_in(key, index), state, objective)

        return jax.lax.scan(body, evolution.init(key, START), jnp.arange(generations))

    state, metrics = run(jax.random.key(seed))
    return evolution.solution(state), metrics


CLIMBERS = {
    "Open_ES": EvolutionSettings("Open_ES", sigma=0.1, learning_rate=0.05),
    "Open_ES-raw-sgd": EvolutionSettings("Open_ES", 0.1, 0.3, optimizer="sgd", fitness_shaping="raw"),
    "SNES": EvolutionSettings("SNES", sigma=0.3, learning_rate=1.0, optimizer="sgd"),
    "SNES-temperature": EvolutionSettings("SNES", 0.3, 1.0, optimizer="sgd", temperature=20.0),
    "Sep_CMA_ES": EvolutionSettings("Sep_CMA_ES", sigma=0.3),
    "PGPE": EvolutionSettings("PGPE", sigma=0.3, learning_rate=0.05),
    "SimpleES": EvolutionSettings("SimpleES", sigma=0.3, learning_rate=0.3, optimizer="sgd"),
    "ARS": EvolutionSettings("ARS", sigma=0.1, learning_rate=0.05),
}


@pytest.mark.parametrize("name", CLIMBERS)
def test_strategies_maximise(name):
    solution, metrics = climb(Evolution(32, CLIMBERS[name]), 100)
    assert jax.tree.map(jnp.shape, solution) == jax.tree.map(jnp.shape, START)
    distance = np.linalg.norm(flatten(solution) - TARGET)
    assert distance < 0.35 * np.linalg.norm(TARGET)
    assert metrics["fitness_mean"][-1] > metrics["fitness_mean"][0]
    assert (metrics["fitness_worst"] <= metrics["fitness_mean"]).all()
    assert (metrics["fitness_mean"] <= metrics["fitness_best"]).all()


def kind(leaf):
    return leaf.shape, leaf.dtype, leaf.weak_type


@pytest.mark.parametrize("name", strategy_names())
def test_every_strategy_on_offer_can_be_built_and_scanned(name):
    evolution = Evolution(8, EvolutionSettings(name, sigma=0.2))
    state = jax.eval_shape(evolution.init, jax.random.key(0), START)
    after, metrics = jax.eval_shape(lambda key, state: evolution.step(key, state, quadratic), jax.random.key(1), state)
    # Weak types count: a state that loses them on its way is traced and compiled twice.
    assert jax.tree.leaves(jax.tree.map(kind, after)) == jax.tree.leaves(jax.tree.map(kind, state))
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert jax.tree.map(jnp.shape, jax.eval_shape(evolution.solution, after)) == jax.tree.map(jnp.shape, START)
    assert {"fitness_mean", "fitness_best", "fitness_worst", "fitness_std", "non_finite"} <= set(metrics)


def test_strategies_that_need_more_than_a_solution_are_not_on_offer():
    missing = set(distribution_based_algorithms) - set(strategy_names())
    assert missing == {"RandomSearch", "SV_CMA_ES", "SV_Open_ES"}
    for name in missing:
        with pytest.raises(ValueError, match=f"strategy: expected one of ARS, .*, got '{name}'"):
            Evolution(8, EvolutionSettings(name)).init(jax.random.key(0), START)


def first_generation(settings, values, size=8):
    """The mean after one generation, where it began, and the candidates, whatever they are worth said by `values`."""
    evolution = Evolution(size, settings)

    @jax.jit
    def run(key):
        seen = []

        def objective(population):
            seen.append(population)
            return values, {}

        state, _ = evolution.step(key, evolution.init(key, START), objective)
        return evolution.solution(state), seen[0]

    solution, population = run(jax.random.key(0))
    return np.asarray(flatten(solution)), np.asarray(flatten(population, 1))


VALUES = np.array([3.0, -1.0, 10.0, 2.5, 2.0, 0.0, 7.0, 1.0], np.float32)


def centered_ranks(values):
    return np.argsort(np.argsort(values)) / (len(values) - 1) - 0.5


@pytest.mark.parametrize(
    ("shaping", "weights"),
    [
        ("raw", VALUES),
        ("centered_rank", centered_ranks(VALUES)),
        ("z_score", (VALUES - VALUES.mean()) / VALUES.std()),
        (None, centered_ranks(VALUES)),
    ],
)
def test_fitness_shaping_is_what_its_name_says(shaping, weights):
    sigma, learning_rate = 0.2, 0.5
    settings = EvolutionSettings("Open_ES", sigma, learning_rate, optimizer="sgd", fitness_shaping=shaping)
    mean, population = first_generation(settings, jnp.asarray(VALUES))
    # The gradient estimate of OpenAI-ES (Salimans et al., 2017), from a mean of zero.
    expected = learning_rate * (weights[:, None] * population / sigma).mean(axis=0) / sigma
    np.testing.assert_allclose(mean, expected, rtol=1e-4, atol=1e-5)
    assert population.std() == pytest.approx(sigma, rel=0.4)


def test_temperature_gives_the_published_recombination_weights():
    size, temperature = 8, 20.0
    settings = EvolutionSettings("SNES", 0.5, 1.0, optimizer="sgd", temperature=temperature)
    mean, population = first_generation(settings, jnp.asarray(VALUES))
    ranks = np.arange(size) / (size - 1) - 0.5
    logits = -20 / (1 + np.exp(-temperature * ranks))
    weights = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(weights.sum(), 1)
    # The best candidate has the largest weight.
    expected = weights @ population[np.argsort(-VALUES)]
    np.testing.assert_allclose(mean, expected, rtol=1e-4, atol=1e-5)
    assert np.abs(expected).max() > 0.05


def test_adam_takes_its_settings():
    settings = EvolutionSettings("Open_ES", sigma=0.1, learning_rate=0.07, adam_b1=0.99)
    mean, _ = first_generation(settings, jnp.asarray(VALUES))
    np.testing.assert_allclose(np.abs(mean), 0.07, rtol=1e-3)  # the first step of Adam is the learning rate


@pytest.mark.parametrize("perturbations", ["stored", "regenerated"])
def test_sigma_and_step_size_decay(perturbations):
    settings = EvolutionSettings(
        sigma=0.1, sigma_decay=0.5, learning_rate=0.08, learning_rate_decay=0.5, perturbations=perturbations
    )
    loop = evolution_from_settings(8, settings)
    state, means, spreads = loop.init(jax.random.key(0), jnp.zeros(1)), [], []
    for _ in range(4):
        before = loop.solution(state)

        def value(population, before=before):
            spreads.append(float(np.abs(population - before).max()))
            return population[:, 0], {}

        state, _ = loop.step(jax.random.key(7), state, value)
        means.append(float(loop.solution(state)[0]))
    # Adam steps by its step size where all gradients agree.
    np.testing.assert_allclose(np.diff([0.0, *means]), [0.08, 0.04, 0.02, 0.01], rtol=0.3)
    np.testing.assert_allclose(np.array(spreads[1:]) / spreads[:-1], 0.5, rtol=1e-4)
    # The largest of eight mirrored draws of a normal of 0.1.
    assert 0.05 < spreads[0] < 0.3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (EvolutionSettings("SNES", sigma_decay=0.9), "sigma_decay: expected 1, as SNES adapts sigma, got 0.9"),
        (
            EvolutionSettings("Sep_CMA_ES", learning_rate_decay=0.9),
            "learning_rate_decay: expected 1, as Sep_CMA_ES has",
        ),
    ],
)
def test_decays_that_a_strategy_does_not_know_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Evolution(8, settings).init(jax.random.key(0), START)
    for value in (0.0, 1.1):
        with pytest.raises(ValueError, match="expected a number above 0 and at most 1"):
            EvolutionSettings(sigma_decay=value)


def test_non_finite_values_stand_as_the_worst_and_do_not_move_the_rest():
    def spoiled(population):
        values, _ = quadratic(population)
        return values.at[0].set(jnp.nan).at[3].set(jnp.inf).at[5].set(-jnp.inf), {}

    settings = EvolutionSettings("Open_ES", sigma=0.1, learning_rate=0.3, optimizer="sgd", fitness_shaping="raw")
    solution, metrics = climb(Evolution(32, settings), 30, spoiled)
    assert np.isfinite(flatten(solution)).all()
    np.testing.assert_array_equal(metrics["non_finite"], 3)
    assert np.isfinite(metrics["fitness_mean"]).all()
    values, count = replace_non_finite(jnp.array([jnp.inf, 2.0, -jnp.inf, 5.0]))
    np.testing.assert_array_equal(values, [2.0, 2.0, 2.0, 5.0])
    assert int(count) == 2
    np.testing.assert_array_equal(replace_non_finite(jnp.full(3, jnp.nan))[0], np.zeros(3))


def test_counts_are_integers_and_other_numbers_are_averaged():
    counts = {"steps": jnp.array([2, 3]), "solved": jnp.array([True, True]), "entropy": jnp.array([1.0, 2.0])}
    _, metrics = summarize(jnp.zeros(2), counts)
    assert (metrics["steps"].tolist(), metrics["solved"].tolist(), float(metrics["entropy"])) == ([2, 3], [1, 1], 1.5)
    assert metrics["solved"].dtype == jnp.int32


@pytest.mark.parametrize(
    ("settings", "size", "message"),
    [
        (EvolutionSettings("OpenES"), 8, "strategy: expected one of ARS, .* got 'OpenES'"),
        (
            EvolutionSettings("SNES", fitness_shaping="raw"),
            8,
            "fitness_shaping: SNES weighs candidates by its own",
        ),
        (EvolutionSettings(), 7, "population_size: expected an even number above 1, got 7"),
        (EvolutionSettings(), 0, "population_size: expected an even number above 1, got 0"),
        (EvolutionSettings("Open_ES", temperature=20.0), 8, "temperature: Open_ES has no recombination weights"),
    ],
)
def test_what_cannot_be_built_is_refused(settings, size, message):
    with pytest.raises(ValueError, match=message):
        Evolution(size, settings).init(jax.random.key(0), START)


@pytest.mark.parametrize("field", ["sigma", "learning_rate", "temperature", "adam_b1"])
def test_settings_out_of_range_are_refused(field):
    with pytest.raises(ValueError, match=field):
        EvolutionSettings(**{field: -0.1})


@pytest.mark.parametrize(
    ("given", "optimizer", "rate"),
    [
        ({"strategy": "SNES"}, "sgd", 1.0),
        ({"strategy": "xNES"}, "sgd", 1.0),
        ({"strategy": "SNES", "optimizer": "adam"}, "adam", 0.05),
        ({"strategy": "SNES", "learning_rate": 0.3}, "sgd", 0.3),
        ({"strategy": "Open_ES"}, "adam", 0.05),
        ({"strategy": "Open_ES", "optimizer": "sgd", "learning_rate": 0.2}, "sgd", 0.2),
    ],
)
def test_recombination_weights_come_with_plain_descent_unless_another_is_named(given, optimizer, rate):
    resolved = EvolutionSettings(**given).resolved()
    assert (resolved.optimizer, resolved.learning_rate) == (optimizer, rate)
    assert resolved.resolved() == resolved


def test_snes_without_an_optimiser_moves_to_the_weighted_mean():
    mean, population = first_generation(EvolutionSettings("SNES", 0.5), jnp.asarray(VALUES))
    named, _ = first_generation(EvolutionSettings("SNES", 0.5, 1.0, optimizer="sgd"), jnp.asarray(VALUES))
    np.testing.assert_array_equal(mean, named)
    # An evolution by hand is the one from settings: weights that sum to 1 move the mean by a fraction of sigma.
    assert 0.01 < np.abs(mean).max() < np.abs(population).max()


def test_equal_evolutions_are_traced_once():
    traces = []

    @functools.partial(jax.jit, static_argnums=0)
    def step(evolution, key, state):
        traces.append(1)
        return evolution.step(key, state, quadratic)

    for seed in range(3):
        evolution = Evolution(8, EvolutionSettings("SNES", sigma=0.3))
        state = evolution.init(jax.random.key(seed), START)
        for index in range(2):
            state, _ = step(evolution, jax.random.key(index), state)
    assert len(traces) == 1
