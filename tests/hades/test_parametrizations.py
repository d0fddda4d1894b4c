"""Parametrisations: what solutions begin as, and the datasets that they stand for."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.diagnostic import Match, Target
from hades import policies
from hades.dataset import SyntheticDataset
from hades.normalization import Normalizer
from hades.parametrizations import (
    FixedLabels,
    FreePairs,
    PolicyParameters,
    RealPairs,
    WarmStart,
    free_pairs,
    latent_pairs,
    with_statistics,
)
from hades.rollouts.auto_reset import play_randomly
from hades.rollouts.statistics import measure_components
from hades.types import Continuous

KEY = jax.random.key(2)


@pytest.mark.parametrize("env", [Match(num_actions=3), Target(action_dim=2)], ids=["discrete", "continuous"])
@pytest.mark.parametrize("init_scale", [0.0, 2.0])
def test_free_pairs_begin_as_normal_numbers_and_uniform_labels(env, init_scale):
    pairs = free_pairs(env, 400, init_scale=init_scale)
    dataset = pairs.decode(pairs.init(KEY))
    drawn = [dataset.observations]
    if dataset.actions is None:
        np.testing.assert_allclose(dataset.action_probabilities, np.full((400, 3), 1 / 3), rtol=1e-6)
    else:
        drawn.append(dataset.actions)
        # Observations and actions come from keys of their own.
        assert init_scale == 0 or (np.asarray(drawn[0]) != np.asarray(drawn[1])).all()
    for array in drawn:
        np.testing.assert_allclose(np.std(array), init_scale, rtol=0.1)


def test_labels_are_the_softmax_of_logits():
    pairs = FreePairs((1,), Match(num_actions=3).action_space, 2)
    logits = jnp.array([[0.0, 1.0, 2.0], [5.0, 5.0, -5.0]])
    found = pairs.decode({"observations": jnp.zeros((2, 1)), "action_logits": logits}).action_probabilities
    np.testing.assert_allclose(found, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), rtol=1e-6)


def test_fixed_labels_are_spread_evenly_and_never_move():
    pairs = free_pairs(Match(num_actions=3), 7, learn_labels=False)
    assert isinstance(pairs, FixedLabels)
    solution = pairs.init(KEY)
    assert set(solution) == {"observations"}
    labels = pairs.decode(solution).action_probabilities
    np.testing.assert_array_equal(np.argmax(labels, axis=1), [0, 1, 2, 0, 1, 2, 0])
    np.testing.assert_array_equal(labels.sum(axis=1), np.ones(7))
    gradient = jax.grad(lambda x: jnp.sum(jnp.square(pairs.decode(x).action_probabilities)))(solution)
    np.testing.assert_array_equal(gradient["observations"], np.zeros_like(solution["observations"]))


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="dataset_size: expected a number above 0, got 0"):
        free_pairs(Match(), 0)
    with pytest.raises(ValueError, match="learn_labels: fixed labels need discrete actions, got Continuous"):
        FixedLabels((2,), Target().action_space, 3)
    # Continuous actions have no labels to fix.
    assert type(free_pairs(Target(), 3, learn_labels=False)) is FreePairs


@pytest.mark.parametrize(
    "targets",
    [{"actions": jnp.array([[0.5], [-2.0]])}, {"action_probabilities": jnp.array([[0.2, 0.8], [1.0, 0.0]])}],
    ids=["continuous", "discrete"],
)
def test_a_warm_start_begins_at_the_dataset(targets):
    dataset = SyntheticDataset(jnp.array([[1.0], [2.0]]), **targets)
    warm = WarmStart(with_statistics(dataset, jnp.zeros(1), jnp.ones(1)))
    found = jax.jit(lambda key: warm.decode(warm.init(key)))(KEY)
    assert found.observation_mean is None
    np.testing.assert_array_equal(found.observations, dataset.observations)
    for name, expected in targets.items():
        np.testing.assert_allclose(getattr(found, name), expected, atol=1e-6)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(warm.init(KEY)))


@pytest.fixture(scope="module")
def seen() -> np.ndarray:
    """Observations that components are measured on."""
    begin_key, play_key = jax.random.split(KEY)
    return np.asarray(play_randomly(begin_key, play_key, Target(action_dim=2), 64, 64).observations).reshape(4096, -1)


def test_components_are_those_of_the_states_of_random_play(seen):
    size = seen.shape[1]
    normalizer = Normalizer("fixed", mean=jnp.full(size, 0.5), std=jnp.full(size, 2.0))
    components, mean = measure_components(KEY, Target(action_dim=2), size, normalizer)
    rows = (seen - 0.5) / 2
    np.testing.assert_allclose(mean, rows.mean(axis=0), atol=1e-5)
    # All of them together have the covariance of the states, from the largest variance to the smallest.
    np.testing.assert_allclose(components.T @ components, np.cov(rows.T, bias=True), atol=1e-5)
    lengths = np.linalg.norm(components, axis=1)
    assert (np.diff(lengths) <= 1e-6).all()
    products = np.asarray(components @ components.T)
    np.testing.assert_allclose(products, np.diag(lengths**2), atol=1e-5)
    # One sign, whatever a machine finds.
    assert all(row[np.argmax(np.abs(row))] >= 0 for row in np.asarray(components))


@pytest.mark.parametrize("env", [Match(num_actions=3), Target(action_dim=2)], ids=["discrete", "continuous"])
def test_codes_stand_for_observations_along_components(env):
    pairs = latent_pairs(KEY, env, num_codes=1, dataset_size=5, learn_labels=False, init_scale=0.3)
    assert pairs.components.shape == (1, *env.observation_shape)
    solution = pairs.init(KEY)
    assert solution["observations"].shape == (5, 1)
    dataset = pairs.decode(solution)
    np.testing.assert_allclose(
        dataset.observations, pairs.mean + solution["observations"] * pairs.components, atol=1e-6
    )
    # Actions are those of the codes' own parametrisation.
    plain = free_pairs(env, 5, learn_labels=False).decode({**solution, "observations": dataset.observations})
    chex.assert_trees_all_equal(dataset, plain)
    # Codes of zero are the mean state.
    np.testing.assert_allclose(
        pairs.decode(jax.tree.map(jnp.zeros_like, solution)).observations, jnp.stack([pairs.mean] * 5), atol=1e-6
    )


@pytest.mark.parametrize(("num_codes", "message"), [(0, "above 0, got 0"), (4, "at most 3, the components .*, got 4")])
def test_numbers_of_codes_that_cannot_be_are_refused(num_codes, message):
    with pytest.raises(ValueError, match=f"num_codes: expected .*{message}"):
        latent_pairs(KEY, Match(num_actions=3), num_codes, 2)


def test_real_pairs_are_rows_of_the_data():
    observations, actions = jnp.arange(20.0)[:, None], -jnp.arange(20.0)[:, None]
    best = RealPairs(observations, actions, jnp.arange(20.0), 3, "highest_q")
    np.testing.assert_array_equal(sorted(best.decode(best.init(KEY)).observations[:, 0].tolist()), [17, 18, 19])
    # Its reference is uniform whatever it begins with.
    (name,) = best.references(KEY)
    drawn = np.concatenate([best.references(key)[name].observations for key in jax.random.split(KEY, 60)])
    assert len(set(drawn.ravel().tolist())) == 20
    for dataset in (best.references(KEY)[name], best.decode(best.init(KEY))):
        np.testing.assert_array_equal(dataset.observations, -dataset.actions)


def test_first_pairs_may_have_the_teachers_actions():
    rows = jnp.arange(20.0)[:, None]
    pairs = RealPairs(rows, -rows, None, 3, teacher_actions=2 * rows)
    found = pairs.references(KEY) | {"first": pairs.decode(pairs.init(KEY))}
    factors = {"random real pairs": -1, "random states, teacher's actions": 2, "first": 2}
    assert set(found) == set(factors)
    for name, factor in factors.items():
        np.testing.assert_array_equal(found[name].actions, factor * found[name].observations)


def test_bounded_actions_come_back_from_outside():
    pairs = RealPairs(jnp.zeros((3, 1)), jnp.zeros((3, 1)), None, 3, bounds=Continuous((-1.0,), (0.5,)))
    solution = {"observations": jnp.zeros((3, 1)), "actions": jnp.array([[-7.0], [0.25], [2.0]])}
    np.testing.assert_array_equal(pairs.decode(solution).actions, [[-1.0], [0.25], [0.5]])
    gradient = jax.grad(lambda solution: jnp.sum(pairs.decode(solution).actions))(solution)
    np.testing.assert_array_equal(gradient["actions"], np.ones((3, 1)))


def test_parameters_stand_for_themselves():
    policy = policies.mlp(Match(), (4,))
    drawn, zeros = PolicyParameters(policy), PolicyParameters(policy, zero_init=True)
    solution = drawn.init(KEY)
    assert drawn.decode(solution) is solution
    assert any(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(solution))
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(zeros.init(KEY)))


def test_equal_parametrisations_are_equal():
    assert free_pairs(Match(), 3) == free_pairs(Match(), 3)
    assert hash(free_pairs(Match(), 3)) == hash(free_pairs(Match(), 3))
    assert free_pairs(Match(), 3) != free_pairs(Match(), 4)
