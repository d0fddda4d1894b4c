"""F(D): against plain loops over candidates, inits and keys; chunks, padding, and candidates that come to nothing."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hades
from envs.diagnostic import Match, Nan, Target
from hades import policies
from hades._rows import pad_rows
from hades.dataset import SyntheticDataset
from hades.fitness import Chunks, PresentPolicies, Problem, draw_inits, fit_all, in_chunks, make_fitness, map_chunks
from hades.inner import Identity
from hades.inner.cloning import CloningSettings, behaviour_cloning
from hades.normalization import Normalizer
from hades.objectives import EpisodicReturn
from hades.outer.evolution import EvolutionSettings
from hades.parametrizations import FreePairs, PolicyParameters
from hades.rollouts.first_episode import make_rollout
from hades.rollouts.settings import PlaySettings
from tests.helpers import GoOn, Watched, lifetime_policy

ENV = Target(action_dim=2, max_steps=3)
POPULATION, INITS, EPISODES = 7, 2, 2
CLONE = behaviour_cloning(policies.mlp(ENV, hidden_sizes=(6,), kernel_init="lecun_normal"), num_steps=4, batch_size=2)
OBJECTIVE = EpisodicReturn(ENV, CLONE.policy, EPISODES, statistics=Normalizer())
FITNESS = make_fitness(FreePairs((2,), ENV.action_space, 3), CLONE, OBJECTIVE)


def episodes_of(seed):
    """Problem of one initialisation, without normalisation."""
    return Problem(jax.random.split(jax.random.key(seed), 1), Normalizer())


@pytest.fixture(scope="module")
def solutions():
    generator = np.random.default_rng(0)
    observations, actions = generator.normal(size=(2, POPULATION, 3, 2)).astype(np.float32)
    return {"observations": jnp.asarray(observations), "actions": jnp.asarray(actions)}


@pytest.fixture(scope="module")
def draw():
    problem, *_ = OBJECTIVE.draw(jax.random.key(4), Normalizer(), PresentPolicies(INITS))
    return draw_inits(CLONE, jax.random.key(3), INITS).replace(problem=problem)


@pytest.fixture(scope="module")
def whole(draw, solutions):
    return jax.jit(FITNESS)(draw, solutions)


@pytest.mark.parametrize(("cloning_chunk", "rollout_chunk"), [(2, 3), (3, 1), (4, None), (None, 10)])
def test_chunks_of_any_size_give_the_values_of_the_whole_population(
    draw, solutions, whole, cloning_chunk, rollout_chunk
):
    values, counts = jax.jit(in_chunks(FITNESS, Chunks(cloning_chunk, rollout_chunk)))(draw, solutions)
    chex.assert_shape((values, counts["env_steps"]), (POPULATION,))
    np.testing.assert_allclose(values, whole[0], rtol=1e-5, atol=1e-5)
    chex.assert_trees_all_equal(counts, whole[1])
    assert len(set(np.asarray(whole[0]).tolist())) == POPULATION


@pytest.mark.parametrize("name", ["cloning", "rollout"])
def test_chunks_of_no_candidates_are_refused(name):
    with pytest.raises(ValueError, match=f"{name}_chunk_size: expected a number above 0, got 0"):
        Chunks(**{name: 0})


def test_fitness_is_the_mean_return_of_policies_that_the_kernel_clones(solutions, draw, whole):
    """Every candidate, init and episode by itself, in plain loops over the same keys."""
    fit = jax.jit(CLONE.fit)
    rollout = jax.jit(make_rollout(ENV, CLONE.policy, EPISODES))
    noise = draw.problem.per_init
    for candidate in (0, 4):
        dataset = SyntheticDataset(**{name: leaf[candidate] for name, leaf in solutions.items()})
        returns = []
        for init in range(INITS):
            initial = jax.tree.map(lambda leaf: leaf[init], draw.initial)  # noqa: B023
            network = fit(draw.fit_keys[init], initial, dataset)
            own_noise = jax.tree.map(lambda leaf: leaf[init : init + 1], noise)  # noqa: B023
            played = rollout(own_noise, jax.tree.map(lambda leaf: leaf[None, None], network), Normalizer())
            chex.assert_shape(played.returns, (1, 1, EPISODES))
            returns.append(np.mean(played.returns))
        np.testing.assert_allclose(whole[0][candidate], np.mean(returns), rtol=1e-4)
    assert int(whole[1]["env_steps"][0]) == INITS * EPISODES * 3


def test_a_chunk_ends_with_its_own_last_living_episode():
    class Lifetimes:
        """Solutions are the policy's one parameter, its lifetime."""

        def decode(self, solution):
            return solution

    policy = lifetime_policy()
    env = Watched(GoOn(max_steps=47), count_steps=True)
    lifetimes = jnp.array([3.0, 9.0, 2.0, 2.0])
    objective = EpisodicReturn(env, policy, 1, PlaySettings("none", action_selection="mode"), statistics=Normalizer())
    fitness = in_chunks(make_fitness(Lifetimes(), Identity(policy), objective), Chunks(rollout=2))
    draw = draw_inits(Identity(policy), jax.random.key(0), 1).replace(problem=episodes_of(1))
    values, counts = jax.jit(fitness)(draw, lifetimes)
    np.testing.assert_array_equal(values, lifetimes)
    np.testing.assert_array_equal(counts["env_steps"], lifetimes)
    jax.effects_barrier()
    assert env.steps == 2 * 9 + 2 * 2


def test_fixed_initialisation_is_that_of_its_seed_for_any_key():
    first, second = (draw_inits(CLONE, jax.random.key(seed), 2, init_seed=5) for seed in (0, 1))
    chex.assert_trees_all_equal(first.initial, second.initial)
    chex.assert_trees_all_equal(jax.random.key_data(first.fit_keys), jax.random.key_data(second.fit_keys))
    # That of the inner loop called with the seed's key, as files of HaDES-F are trained.
    init_key, fit_key = jax.random.split(jax.random.key(5))
    expected = CLONE.init(init_key)
    for index in range(2):
        chex.assert_trees_all_close(jax.tree.map(lambda leaf: leaf[index], first.initial), expected, rtol=1e-6)  # noqa: B023
        np.testing.assert_array_equal(jax.random.key_data(first.fit_keys[index]), jax.random.key_data(fit_key))
    fresh = [draw_inits(CLONE, jax.random.key(seed), 2) for seed in (0, 1)]
    assert len({tuple(words) for each in fresh for words in jax.random.key_data(each.fit_keys).tolist()}) == 4
    kernels = [np.asarray(each.initial["head"]["kernel"][index]).tobytes() for each in fresh for index in range(2)]
    assert len(set(kernels)) == 4


def test_candidates_share_initialisations(draw, solutions):
    same = jax.tree.map(lambda leaf: jnp.stack([leaf[0]] * 2), solutions)
    datasets = SyntheticDataset(same["observations"], actions=same["actions"])
    trained = jax.jit(lambda data: fit_all(CLONE, draw, data))(datasets)
    chex.assert_trees_all_equal(*(jax.tree.map(lambda leaf: leaf[index], trained) for index in range(2)))  # noqa: B023
    chex.assert_tree_shape_prefix(trained, (2, INITS))


@pytest.mark.parametrize("chunk_size", [None, 2])
def test_fitness_of_parameters_is_the_return_of_each_candidate(chunk_size):
    env = Match(num_actions=3, max_steps=8)
    policy = policies.mlp(env, hidden_sizes=(), kernel_init="lecun_normal")
    objective = EpisodicReturn(env, policy, 4, PlaySettings("none", action_selection="mode"), statistics=Normalizer())
    # A head that copies the one-hot observation always matches, one with a constant logit does in a third of the steps.
    kernels = jnp.stack([10 * jnp.eye(3), jnp.zeros((3, 3)), -10 * jnp.eye(3)])
    networks = {"head": {"kernel": kernels, "bias": jnp.zeros((3, 3))}}
    inner = Identity(policy)
    fitness = in_chunks(make_fitness(PolicyParameters(policy), inner, objective), Chunks(rollout=chunk_size))
    draw = draw_inits(inner, jax.random.key(1), 1).replace(problem=episodes_of(2))
    values, counts = jax.jit(fitness)(draw, networks)
    assert values[0] == 8
    assert 0 < values[1] < 8
    assert values[2] == 0
    np.testing.assert_array_equal(counts["env_steps"], [4 * 8] * 3)


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
        chex.assert_tree_all_finite((state.outer, metrics))
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
