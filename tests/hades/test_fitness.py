"""Fitness: chunks, padding, keys, and candidates that come to nothing."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hades
from envs.diagnostic import Nan, Target
from hades import policies
from hades.dataset import SyntheticDataset
from hades.fitness import FitnessKeys, make_fitness, map_chunks, pad_rows
from hades.inner.cloning import CloningSettings, behaviour_cloning
from hades.normalization import Normalizer
from hades.outer.evolution import EvolutionSettings
from hades.rollouts.first_episode import make_rollout
from tests.helpers import GoOn, Watched, lifetime_policy

ENV = Target(action_dim=2, max_steps=3)
POPULATION = 7


def make_clone(batch_size=None):
    policy = policies.mlp(ENV, hidden_sizes=(6,), kernel_init="lecun_normal")
    return behaviour_cloning(policy, num_steps=4, batch_size=batch_size)


@pytest.fixture(scope="module")
def datasets():
    generator = np.random.default_rng(0)
    observations, actions = generator.normal(size=(2, POPULATION, 3, 2)).astype(np.float32)
    return SyntheticDataset(jnp.asarray(observations), actions=jnp.asarray(actions))


@pytest.fixture(scope="module")
def keys():
    return FitnessKeys.draw(jax.random.key(3), num_inits=2)


@pytest.fixture(scope="module")
def whole(datasets, keys):
    clone = make_clone(batch_size=2)
    return jax.jit(make_fitness(clone, make_rollout(ENV, clone.policy, 2)))(keys, datasets, Normalizer("none"))


@pytest.mark.parametrize(("cloning_chunk", "rollout_chunk"), [(2, 3), (3, 1), (4, None), (None, 10)])
def test_chunks_of_any_size_give_the_returns_of_the_whole_population(
    datasets, keys, whole, cloning_chunk, rollout_chunk
):
    clone = make_clone(batch_size=2)
    fitness = make_fitness(clone, make_rollout(ENV, clone.policy, 2), cloning_chunk, rollout_chunk)
    found = jax.jit(fitness)(keys, datasets, Normalizer("none"))
    assert found.returns.shape == (POPULATION, 2, 2)
    np.testing.assert_allclose(found.returns, whole.returns, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(found.lengths, whole.lengths)
    assert len(set(np.asarray(whole.values).tolist())) == POPULATION


def test_fitness_is_the_mean_return_of_policies_that_the_kernel_clones(datasets, keys, whole):
    clone = make_clone(batch_size=2)
    train = jax.jit(clone)
    evaluated = 4
    dataset = jax.tree.map(lambda leaf: leaf[evaluated], datasets)
    networks = [train(key, dataset).network for key in keys.inits]
    rollout = jax.jit(make_rollout(ENV, clone.policy, 2))
    returns = rollout(keys.episodes, jax.tree.map(lambda *leaves: jnp.stack(leaves)[None], *networks), Normalizer())
    np.testing.assert_allclose(whole.returns[evaluated], returns.returns[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(whole.values[evaluated], np.mean(returns.returns), rtol=1e-4)


def test_a_chunk_ends_with_its_own_last_living_episode():
    # Cloning that returns the dataset's number as the policy's one parameter, its lifetime.
    class Identity:
        policy = lifetime_policy()

        def fit(self, key, params, dataset):
            return jnp.sum(dataset.observations)

    env = Watched(GoOn(max_steps=47), count_steps=True)
    lifetimes = jnp.array([3.0, 9.0, 2.0, 2.0])
    datasets = SyntheticDataset(lifetimes[:, None, None], actions=jnp.zeros((4, 1, 1)))
    fitness = make_fitness(Identity(), make_rollout(env, Identity.policy, 1, "mode"), None, 2)  # type: ignore[arg-type]
    found = jax.jit(fitness)(FitnessKeys.draw(jax.random.key(0), 1), datasets, Normalizer())
    np.testing.assert_array_equal(found.values, lifetimes)
    jax.effects_barrier()
    assert env.steps == 2 * 9 + 2 * 2


def test_fixed_initialisation_is_that_of_its_seed_for_any_key():
    first, second = (FitnessKeys.draw(jax.random.key(seed), 2, init_seed=5) for seed in (0, 1))
    expected = jax.random.key_data(jnp.stack([jax.random.key(5)] * 2))
    np.testing.assert_array_equal(jax.random.key_data(first.inits), expected)
    np.testing.assert_array_equal(jax.random.key_data(second.inits), expected)
    assert (jax.random.key_data(first.episodes) != jax.random.key_data(second.episodes)).any()
    fresh = [FitnessKeys.draw(jax.random.key(seed), 2).inits for seed in (0, 1)]
    assert len(set(map(tuple, np.concatenate([jax.random.key_data(keys) for keys in fresh]).tolist()))) == 4


@pytest.mark.parametrize("chunk_size", [None, 1, 2, 3, 5, 8])
def test_map_chunks_is_the_function_row_by_row(chunk_size):
    sizes = []

    def function(xs):
        sizes.append(len(xs["a"]))
        return {"sum": xs["a"] + xs["b"].sum(axis=1), "twice": 2 * xs["b"]}

    xs = {"a": jnp.arange(5.0), "b": jnp.arange(10.0).reshape(5, 2)}
    found = map_chunks(function, xs, chunk_size)
    np.testing.assert_array_equal(found["sum"], np.arange(5) + np.arange(10).reshape(5, 2).sum(axis=1))
    np.testing.assert_array_equal(found["twice"], 2 * np.arange(10).reshape(5, 2))
    assert set(sizes) == {min(chunk_size or 5, 5)}


def test_pad_rows_fills_up_with_the_first_row():
    np.testing.assert_array_equal(pad_rows(jnp.arange(3, 8), 4), [3, 4, 5, 6, 7, 3, 3, 3])
    np.testing.assert_array_equal(pad_rows(jnp.arange(4), 4), np.arange(4))


@pytest.fixture(scope="module")
def fragile():
    """A run in which action 1 destroys a candidate's return; every policy has one state and one action."""
    return hades.recipes.hades_r(
        Nan(max_steps=3),
        dataset_size=1,
        population_size=16,
        num_episodes=1,
        action_selection="mode",
        observation_normalization="none",
        cloning=CloningSettings(hidden_sizes=(), kernel_init="lecun_normal", learning_rate=0.1, num_steps=20),
        evolution=EvolutionSettings(sigma=1.0, learning_rate=0.2),
    )


def test_a_return_that_is_not_a_number_is_counted_and_never_reaches_the_update(fragile):
    state = jax.jit(fragile.init)(jax.random.key(0))
    step, seen = jax.jit(fragile.step), []
    for _ in range(6):
        state, metrics = step(state)
        seen.append(int(metrics["non_finite"]))
        for leaf in jax.tree.leaves((state.outer, metrics)):
            assert np.isfinite(np.asarray(leaf, np.float64)).all() if leaf.dtype.kind == "f" else True
        # Whoever came to nothing counts as the worst of the others, whose return is 3.
        assert float(metrics["fitness_mean"]) == (3.0 if metrics["non_finite"] < 16 else 0.0)
    assert 0 < sum(seen) < 6 * 16
    assert np.isfinite(fragile.dataset(state).observations).all()


def test_a_generation_without_one_finite_return_leaves_the_search_intact(fragile):
    hopeless = hades.recipes.from_settings(AlwaysNan(max_steps=3), fragile.settings)
    first = jax.jit(hopeless.init)(jax.random.key(0))
    state, metrics = jax.jit(hopeless.step)(first)
    assert int(metrics["non_finite"]) == 16
    assert float(metrics["fitness_mean"]) == 0.0
    for leaf in jax.tree.leaves(hopeless.dataset(state)):
        assert np.isfinite(leaf).all()


class AlwaysNan(Nan):
    """No action is worth a number."""

    def step(self, key, state, action):
        return super().step(key, state, jnp.ones_like(action))
