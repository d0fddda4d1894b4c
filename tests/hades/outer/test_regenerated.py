"""Evolution without a stored population: the same updates as evosax, whatever the chunks; what low rank changes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hades.outer import Evolution, RegeneratedEvolution, evolution_from_settings
from hades.outer.evolution import EvolutionSettings, Structure, build_strategy

START = {"kernel": jnp.arange(6.0).reshape(2, 3) / 10, "bias": jnp.array([0.5, -0.5])}
OPEN_ES = {"strategy": "Open_ES", "sigma": 0.2, "learning_rate": 0.1}
SNES = {"strategy": "SNES", "sigma": 0.3, "learning_rate": 1.0, "optimizer": "sgd", "temperature": 20.0}


def flatten(solution):
    """`[..., 8]`, in the order in which evosax ravels solutions."""
    batch = solution["bias"].shape[:-1]
    return jnp.concatenate([solution["bias"], solution["kernel"].reshape(*batch, 6)], axis=-1)


def objective(population):
    return -jnp.sum(jnp.square(flatten(population) - 1), axis=-1), {"count": jnp.ones(len(population["bias"]))}


def settings(base, **overrides):
    return EvolutionSettings(**{**base, "perturbations": "regenerated", **overrides})


def one_generation(size, chunk_size, chosen):
    evolution = evolution_from_settings(size, chosen, chunk_size)
    assert isinstance(evolution, RegeneratedEvolution)
    state = evolution.init(jax.random.key(0), START)
    state, metrics = jax.jit(lambda key, state: evolution.step(key, state, objective))(jax.random.key(1), state)
    return evolution, state, metrics


@pytest.mark.parametrize("base", [OPEN_ES, SNES], ids=["Open_ES", "SNES"])
def test_half_precision_is_moved_as_single_precision_is(base):
    moves = []
    for dtype in (jnp.float32, jnp.bfloat16):
        start = jax.tree.map(lambda leaf, dtype=dtype: leaf.astype(dtype), START)
        evolution = evolution_from_settings(64, settings(base), 8)
        state = evolution.init(jax.random.key(0), start)
        step = jax.jit(lambda key, state, evolution=evolution: evolution.step(key, state, objective)[0])
        for generation in range(10):
            state = step(jax.random.key(generation), state)
        assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(state.strategy.mean))
        assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(state.strategy.std))
        moves.append(flatten(evolution.solution(state)).astype(jnp.float32))
    # Not the same numbers are drawn, but both come near 1.
    assert all(float(jnp.mean(jnp.square(moved - 1))) < 0.3 for moved in moves)


@pytest.mark.parametrize("base", [OPEN_ES, SNES], ids=["Open_ES", "SNES"])
def test_an_update_is_that_of_evosax_for_the_same_population(base):
    size, chosen = 12, settings(base)
    strategy, params = build_strategy(Structure.of(START), size, chosen)
    before = strategy.init(jax.random.key(0), START, params)
    evolution, state, metrics = one_generation(size, None, chosen)

    seen = []
    evolution.step(
        jax.random.key(1),
        evolution.init(jax.random.key(0), START),
        lambda population: (seen.append(population), objective(population))[1],
    )
    values, _ = objective(seen[0])
    if base is OPEN_ES:
        # Mirrored about the mean.
        middle = (flatten(seen[0])[:6] + flatten(seen[0])[6:]) / 2
        np.testing.assert_allclose(middle, np.tile(flatten(START), (6, 1)), atol=1e-6)
    _, before = strategy.ask(jax.random.key(5), before, params)
    after, _ = strategy.tell(jax.random.key(6), seen[0], -values, before, params)
    expected = strategy.get_mean(after)
    for name in START:
        np.testing.assert_allclose(evolution.solution(state)[name], expected[name], rtol=1e-5, atol=1e-6)
    assert metrics["fitness_best"] == pytest.approx(float(values.max()), rel=1e-6)
    if base is SNES:
        std = jnp.concatenate([state.strategy.std["bias"], state.strategy.std["kernel"].ravel()])
        np.testing.assert_allclose(std, after.std, rtol=1e-5)
        assert np.ptp(std) > 0


@pytest.mark.parametrize("base", [OPEN_ES, SNES], ids=["Open_ES", "SNES"])
@pytest.mark.parametrize("chunk_size", [1, 4, 5, 100])
def test_chunks_change_nothing(base, chunk_size):
    whole_evolution, whole, whole_metrics = one_generation(12, None, settings(base))
    evolution, state, metrics = one_generation(12, chunk_size, settings(base))
    for name in START:
        np.testing.assert_allclose(
            evolution.solution(state)[name], whole_evolution.solution(whole)[name], rtol=1e-5, atol=1e-6
        )
    np.testing.assert_array_equal(metrics["count"], np.ones(12))
    np.testing.assert_array_equal(whole_metrics["count"], np.ones(12))
    assert metrics["fitness_mean"] == pytest.approx(float(whole_metrics["fitness_mean"]), rel=1e-5)


@pytest.mark.parametrize("perturbations", ["regenerated", "low_rank"])
@pytest.mark.parametrize("base", [OPEN_ES, SNES], ids=["Open_ES", "SNES"])
def test_it_climbs(base, perturbations):
    evolution = evolution_from_settings(32, settings(base, perturbations=perturbations), 8)
    state = evolution.init(jax.random.key(0), START)

    def body(state, index):
        return evolution.step(jax.random.fold_in(jax.random.key(1), index), state, objective)

    state, metrics = jax.jit(lambda state: jax.lax.scan(body, state, jnp.arange(100)))(state)
    assert float(objective(jax.tree.map(lambda leaf: leaf[None], START))[0][0]) < -4
    assert float(objective(jax.tree.map(lambda leaf: leaf[None], evolution.solution(state)))[0][0]) > -0.2
    assert metrics["non_finite"].sum() == 0


@pytest.mark.parametrize(("rank", "expected"), [(None, 3.0), (1, 9.0), (2, 6.0), (4, 4.5)])
def test_a_low_rank_update_approaches_the_full_one_as_one_over_the_rank(rank, expected):
    """From zero the update of f = w^3 is sigma^2 E[e^4]; the fourth moment of an entry is 3 + 6 / rank."""
    shape, sigma, size = (20, 20), 0.5, 200_000
    chosen = EvolutionSettings(
        "Open_ES", sigma, 1.0, "sgd", fitness_shaping="raw",
        perturbations="regenerated" if rank is None else "low_rank", rank=rank or 1,
    )  # fmt: skip
    start = {"kernel": jnp.zeros(shape)}
    evolution = evolution_from_settings(size, chosen, 10_000)

    @jax.jit
    def update(key):
        state, _ = evolution.step(key, evolution.init(key, start), lambda w: (w["kernel"][:, 3, 4] ** 3, {}))
        return evolution.solution(state)["kernel"]

    moved = np.asarray(update(jax.random.key(0)))
    # The standard error is that of the mean of e^4 over half as many draws as candidates.
    assert moved[3, 4] / sigma**2 == pytest.approx(expected, abs=4 * 105 / np.sqrt(size / 2) / (rank or 4))
    others = np.delete(moved.ravel(), 3 * 20 + 4)
    assert np.abs(others).max() < 0.2 * moved[3, 4]


def test_small_and_one_dimensional_leaves_are_perturbed_in_full():
    full = evolution_from_settings(4, settings(OPEN_ES))
    low = evolution_from_settings(4, settings(OPEN_ES, perturbations="low_rank", rank=2))
    key = jax.random.key(3)
    for name in START:
        np.testing.assert_array_equal(
            low._perturbations(key, START, jnp.arange(2))[name], full._perturbations(key, START, jnp.arange(2))[name]
        )


def test_values_that_are_not_finite_are_counted_and_stand_as_the_worst():
    evolution = evolution_from_settings(8, settings(OPEN_ES), 2)

    def spoiled(population):
        values, _ = objective(population)
        return jnp.where(values < -5, jnp.nan, values), {}

    state = evolution.init(jax.random.key(0), START)
    _, told = evolution.step(
        jax.random.key(2), state, lambda population: (objective(population)[0].at[0].set(jnp.nan), {})
    )
    # In chunks of two, the first of each is not finite, and stands as the worst of the others.
    assert told["non_finite"] == 4
    assert np.isfinite(told["fitness_worst"])
    assert told["fitness_worst"] <= told["fitness_mean"]
    counts = 0
    for index in range(20):
        state, metrics = evolution.step(jax.random.fold_in(jax.random.key(2), index), state, spoiled)
        counts += int(metrics["non_finite"])
    assert counts > 0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


def test_the_kind_of_perturbations_chooses_the_class():
    assert isinstance(evolution_from_settings(8, EvolutionSettings()), Evolution)
    with pytest.raises(ValueError, match="strategy: low_rank perturbations need Open_ES or SNES, got 'PGPE'"):
        evolution_from_settings(8, EvolutionSettings("PGPE", perturbations="low_rank"))
    with pytest.raises(ValueError, match="population_size: expected an even number above 1, got 3"):
        evolution_from_settings(3, settings(OPEN_ES))
