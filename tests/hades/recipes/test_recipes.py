"""Recipes: what they draw anew, what they keep, what they measure, what they refuse, and that they learn."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hades
from envs.diagnostic import Match, Target
from hades import policies, recipes
from hades.dataset import SyntheticDataset
from hades.evaluation import zero_dataset
from hades.fitness import Chunks
from hades.inner.cloning import CloningSettings
from hades.metadata import FileMetadata
from hades.normalization import Normalizer, PolicyParams
from hades.outer.evolution import EvolutionSettings
from hades.parametrizations import PlayedPairs
from hades.recipes.hades import HadesSettings, resolve
from tests.helpers import Walk, Watched

SMALL = {
    "dataset_size": 3,
    "population_size": 4,
    "num_episodes": 1,
    "observation_normalization": "none",
    "cloning": CloningSettings(hidden_sizes=(), kernel_init="lecun_normal", num_steps=2),
}


class Initialisations:
    """An inner loop that notes theta_0 of every init, seen by the host."""

    def __init__(self, inner):
        self.policy, self._inner, self.seen = inner.policy, inner, []

    def init(self, key):
        return self._inner.init(key)

    def fit(self, key, params, dataset):
        jax.debug.callback(lambda kernel: self.seen.append(np.asarray(kernel).tobytes()), params["head"]["kernel"])
        return self._inner.fit(key, params, dataset)


def initialisations(build, **settings):
    """Kernels of theta_0 in three iterations, of all candidates and inits."""
    run = build(Match(max_steps=1), **SMALL, **settings)
    run = dataclasses.replace(run, inner=Initialisations(run.inner))
    state, step = jax.jit(run.init)(jax.random.key(0)), jax.jit(run.step)
    kernels = []
    for _ in range(3):
        state, _ = jax.block_until_ready(step(state))
        jax.effects_barrier()
        kernels.append(set(run.inner.seen))
        run.inner.seen.clear()
    return kernels, run


def test_hades_r_draws_fresh_initialisations_every_iteration_that_candidates_share():
    kernels, _ = initialisations(recipes.hades_r, num_inits=2)
    assert [len(found) for found in kernels] == [2, 2, 2]
    assert len(set.union(*kernels)) == 6


def test_hades_f_keeps_one_initialisation_which_is_that_of_its_seed():
    kernels, run = initialisations(recipes.hades_f, init_seed=7)
    assert len(set.union(*kernels)) == 1
    expected = run.inner.init(jax.random.split(jax.random.key(7))[0])["head"]["kernel"]
    (kernel,) = kernels[0]
    np.testing.assert_allclose(np.frombuffer(kernel, np.float32).reshape(expected.shape), expected, rtol=1e-6)


@pytest.mark.parametrize("learn_labels", [True, False])
def test_labels_are_learned_or_stay_one_hot(learn_labels):
    env, cloning = Match(num_actions=2, max_steps=20), CloningSettings(hidden_sizes=(), learning_rate=0.5, num_steps=2)
    run = recipes.hades_r(env, **SMALL | {"cloning": cloning, "population_size": 16}, learn_labels=learn_labels)
    state = jax.jit(run.init)(jax.random.key(0))
    first = run.dataset(state).action_probabilities
    after = run.dataset(jax.jit(run.step)(state)[0])
    one_hot = np.eye(2)[[0, 1, 0]]
    np.testing.assert_allclose(first, np.full((3, 2), 0.5) if learn_labels else one_hot)
    np.testing.assert_allclose(after.action_probabilities.sum(axis=1), 1, rtol=1e-6)
    assert (np.asarray(after.action_probabilities) != np.asarray(first)).any() == learn_labels
    assert (np.asarray(after.observations) != 0).all()


@pytest.mark.parametrize("init_scale", [0.0, 2.0])
def test_the_search_begins_with_normal_numbers_of_the_given_scale(init_scale):
    settings = SMALL | {"dataset_size": 500, "init_scale": init_scale}
    run = recipes.hades_r(Target(), **settings)
    dataset = run.dataset(jax.jit(run.init)(jax.random.key(0)))
    for array in (dataset.observations, dataset.actions):
        assert array.shape == (500, 2)
        np.testing.assert_allclose(np.std(array), init_scale, rtol=0.1)


def test_fixed_statistics_are_those_of_random_play():
    env = Target(action_dim=2, max_steps=5)
    normalizer = jax.jit(lambda key: recipes.measure_statistics(key, env, 400))(jax.random.key(0))
    # Uniform on [-1, 1]: 2000 observations, so that five standard errors are 0.065 and 0.03.
    np.testing.assert_allclose(normalizer.mean, [0, 0], atol=0.065)
    np.testing.assert_allclose(normalizer.std, np.full(2, 1 / np.sqrt(3)), atol=0.03)


class Drift(Target):
    """The observation is the action before, and so a policy's own."""

    def step(self, key, state, action):
        step = super().step(key, state, action)
        return step._replace(observation=jnp.clip(action, -1, 1))

    def reset(self, key):
        state, _ = super().reset(key)
        return state, jnp.array([0.5, 0.5])


def test_fixed_statistics_are_those_of_the_policy_that_plays_and_are_clamped():
    policy = policies.Policy(lambda key: jnp.zeros(()), lambda params, seen: ConstantAction(seen))
    normalizer = recipes.measure_statistics(
        jax.random.key(0), Drift(max_steps=4), 2, policy, PolicyParams(jnp.zeros(())), min_std=0.3
    )
    seen = np.array([[0.5, 0.5], [1.0, 0.5], [1.0, 0.5], [1.0, 0.5]])
    np.testing.assert_allclose(normalizer.mean, seen.mean(axis=0), rtol=1e-3)
    np.testing.assert_allclose(normalizer.std, np.maximum(seen.std(axis=0), 0.3), rtol=1e-3)


def test_statistics_are_measured_on_a_policy_that_sees_by_its_own_normalisation():
    class Seen(ConstantAction):
        def sample(self, key):
            del key
            return self.seen

    policy = policies.Policy(lambda key: jnp.zeros(()), lambda params, seen: Seen(seen))
    halves = Normalizer("fixed", mean=jnp.zeros(2), std=jnp.full(2, 2.0))
    measured = recipes.measure_statistics(
        jax.random.key(0), Drift(max_steps=4), 2, policy, PolicyParams(jnp.zeros(()), halves)
    )
    seen = np.array([0.5, 0.25, 0.125, 0.0625])
    np.testing.assert_allclose(measured.mean, [seen.mean()] * 2, rtol=1e-5)
    np.testing.assert_allclose(measured.std, [seen.std()] * 2, rtol=1e-5)


@pytest.mark.parametrize("init_seed", [None, 3])
def test_visited_statistics_are_half_of_random_play_and_half_of_the_play_of_a_datasets_policies(init_seed):
    cloning = CloningSettings(hidden_sizes=(4,), num_steps=20, learning_rate=0.05, loss="mse")
    metadata = FileMetadata(
        env="drift",
        max_episode_steps=4,
        method="by hand",
        observation_normalization="fixed",
        action_selection="mode",
        cloning=cloning,
        init_seed=init_seed,
    )
    targets = jnp.array([[0.9, -0.3], [-0.2, 0.4]])
    dataset = SyntheticDataset(
        jnp.eye(2), actions=targets, observation_mean=jnp.ones(2), observation_std=jnp.full(2, 2.0), metadata=metadata
    )
    env, key = Drift(max_steps=4), jax.random.key(0)
    found = recipes.measure_visited_statistics(key, env, dataset, num_inits=3, num_episodes=5, random_episodes=600)
    evaluator = hades.evaluation.dataset_evaluator(env, dataset, 3, 1)
    networks = evaluator.train(jax.random.split(key, 3)[0], dataset)
    inits = 3 if init_seed is None else 1
    visited = []
    for index in range(inits):
        network = jax.tree.map(lambda leaf, index=index: leaf[0, index], networks)
        seen = jnp.array([0.5, 0.5])
        for _ in range(4):
            visited.append(np.asarray(seen))
            seen = jnp.clip(evaluator.inner.policy.apply(network, (seen - 1) / 2).mode(), -1, 1)
    visited = np.stack(visited)
    assert visited.std(axis=0).min() > 0.05
    # Of random play the first observation is 0.5 and three are uniform on [-1, 1].
    mean = (visited.mean(axis=0) + 0.125) / 2
    squares = ((visited**2).mean(axis=0) + (0.25 + 3 / 3) / 4) / 2
    # 600 episodes: five standard errors of the half.
    np.testing.assert_allclose(found.mean, mean, atol=0.035)
    np.testing.assert_allclose(found.std, np.sqrt(squares - mean**2), atol=0.03)


class ConstantAction:
    """Always the action (1, 0.5)."""

    def __init__(self, seen):
        self.seen = seen

    def sample(self, key):
        del key
        return jnp.broadcast_to(jnp.array([1.0, 0.5]), self.seen.shape)


def test_a_run_measures_its_statistics_and_its_dataset_carries_them():
    settings = SMALL | {"observation_normalization": "fixed"}
    run = recipes.hades_r(Target(max_steps=2), **settings, statistics_episodes=16)
    state = jax.jit(run.init)(jax.random.key(0))
    dataset = run.dataset(state)
    np.testing.assert_array_equal(dataset.observation_mean, state.objective.mean)
    np.testing.assert_array_equal(dataset.observation_std, state.objective.std)
    assert 0.4 < float(dataset.observation_std.min()) < float(dataset.observation_std.max()) < 0.75
    given = Normalizer("fixed", jnp.array([1.0, 2.0]), jnp.array([3.0, 4.0]))
    other = recipes.hades_r(Target(max_steps=2), normalizer=given, **settings)
    np.testing.assert_array_equal(jax.jit(other.init)(jax.random.key(0)).objective.std, [3.0, 4.0])


def test_the_step_is_traced_once():
    env = Watched(Match(max_steps=2))
    run = recipes.hades_r(env, **SMALL)
    state, step = jax.jit(run.init)(jax.random.key(0)), jax.jit(run.step)
    state, metrics = step(state)
    np.testing.assert_array_equal(metrics["env_steps"], [1 * 2 * 1] * 4)  # inits, steps, episodes of each candidate
    traces = env.traces
    assert traces > 0
    for _ in range(2):
        state, _ = step(state)
    assert env.traces == traces
    assert int(state.iteration) == 3


@pytest.mark.slow
def test_runs_are_vmapped_over_seeds():
    run = recipes.hades_r(Match(max_steps=2), **SMALL)
    keys = jax.random.split(jax.random.key(0), 2)
    many, _ = jax.jit(jax.vmap(lambda key: run.step(run.init(key))))(keys)
    one, _ = jax.jit(run.step)(jax.jit(run.init)(keys[1]))
    many_datasets = jax.vmap(run.dataset)(many)
    np.testing.assert_allclose(many_datasets.observations[1], run.dataset(one).observations, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "env",
    [Match(num_actions=3, max_steps=8), pytest.param(Target(action_dim=1, max_steps=4), marks=pytest.mark.slow)],
    ids=str,
)
def test_fresh_policies_learn_from_the_dataset_what_the_zero_dataset_does_not_tell(env):
    discrete = isinstance(env, Match)
    run = recipes.hades_r(
        env,
        dataset_size=3,
        population_size=32,
        num_episodes=4,
        observation_normalization="none",
        action_selection="mode",
        cloning=CloningSettings(hidden_sizes=(8,), kernel_init="lecun_normal", learning_rate=0.05, num_steps=20),
        evolution=EvolutionSettings(sigma=0.3, learning_rate=0.1, fitness_shaping="centered_rank"),
    )

    @jax.jit
    def search(key):
        return jax.lax.scan(lambda state, _: run.step(state), run.init(key), None, length=60)[0]

    dataset = run.dataset(search(jax.random.key(0)))
    evaluator = run.make_evaluator(8, 16)
    learned = evaluator(jax.random.key(1), dataset)
    nothing = evaluator(jax.random.key(1), zero_dataset(dataset))
    untrained = evaluator.untrained(jax.random.key(1), Normalizer())
    assert learned.ci95[0] > max(nothing.ci95[1], untrained.ci95[1])
    # Chance is 8/3 of 8. Of the others, the best is 0, and to answer 0 always is worth -1/12 at each of 4 steps.
    assert learned.mean > (6.5 if discrete else -0.15 * 4 / 12)


def test_a_run_of_codes_moves_them_alone_and_ends_in_the_span_of_its_components():
    settings = {"dataset_size": 3, "population_size": 8, "num_codes": 2, "learn_labels": False}
    small = CloningSettings(hidden_sizes=(4,), num_steps=20, learning_rate=0.1)
    run = recipes.hades_r(Match(), **settings, cloning=small, mesh=jax.devices()[:1])
    state, _ = jax.jit(run.step)(run.init(jax.random.key(0)))
    moved = run.outer.solution(state.outer)
    assert {name: leaf.shape for name, leaf in moved.items()} == {"observations": (3, 2)}
    assert np.abs(moved["observations"]).min() > 0
    dataset = run.outcome(state)
    pairs = run.parametrization
    found = np.linalg.lstsq(pairs.components.T, (dataset.observations - pairs.mean).T, rcond=None)[0].T
    np.testing.assert_allclose(found, moved["observations"], atol=1e-4)
    # Components are behind the statistics that the dataset carries, and those of all seeds of a run.
    seen = PlayedPairs(Match(), 64, statistics=dataset.normalizer()).init(jax.random.key(3))["observations"]
    np.testing.assert_allclose(pairs.mean, seen.mean(axis=0), atol=0.2)
    again = recipes.hades_r(Match(), **settings, cloning=small, mesh=jax.devices()[:1])
    assert again.config()["arrays"] == run.config()["arrays"]
    other = recipes.hades_r(Match(), **settings, codes_seed=1, cloning=small, mesh=jax.devices()[:1])
    assert other.config()["arrays"] != run.config()["arrays"]


@pytest.mark.parametrize(
    ("env", "settings", "message"),
    [
        (Match(), {"cloning": CloningSettings(loss="mse")}, "loss: .* cross_entropy expected, got mse"),
        (
            Target(),
            {"cloning": CloningSettings(loss="cross_entropy")},
            "loss: .* gaussian_nll, mse or sampled_mse expected",
        ),
        (Match(), {"init_seed": 3}, "init_seed: hades-r draws fresh initialisations, expected none, got 3"),
        (Match(), {"method": "hades-f", "num_inits": 2}, "num_inits: hades-f has one initialisation"),
        (Match(), {"normalization_envs": 2}, "normalization_envs: expected none unless"),
        (
            Match(),
            {"num_codes": 2, "observation_normalization": "running"},
            "num_codes: expected none beside running observation_normalization",
        ),
    ],
)
def test_settings_that_do_not_suit_are_refused(env, settings, message):
    with pytest.raises(ValueError, match=message):
        resolve(env, HadesSettings(**settings))


def test_episodes_must_fill_the_groups_of_running_statistics():
    with pytest.raises(ValueError, match="num_episodes: expected a multiple of 4"):
        recipes.hades_r(Match(), num_episodes=6, normalization_envs=4, observation_normalization="running")


def test_outcomes_of_a_run_are_evaluated_with_its_running_statistics():
    run = recipes.hades_r(Walk(), **(SMALL | {"observation_normalization": "running", "num_episodes": 2}))
    outcome = run.outcome(run.init(jax.random.key(0)))
    evaluator, key = run.make_evaluator(2, 4), jax.random.key(1)
    found, described = evaluator(key, outcome), evaluator(key, run.describe(outcome, seed=0))
    np.testing.assert_array_equal(found.returns, described.returns)
    assert found.normalization_envs == described.normalization_envs == 2
    untrained = evaluator.references(key, outcome)["untrained policy"]
    expected = evaluator.untrained(key, Normalizer("running"))
    np.testing.assert_array_equal(untrained.returns, expected.returns)
    without = dataclasses.replace(evaluator, normalization_envs=None, observation_normalization="none")
    assert np.any(found.returns != without(key, outcome).returns)


def test_resolving_fills_in_what_depends_on_the_environment():
    resolved = resolve(Target(), HadesSettings(method="hades-f", observation_normalization="running"))
    assert resolved.cloning.loss == "gaussian_nll"
    assert (resolved.init_seed, resolved.normalization_envs) == (0, 2)
    resolved = resolve(Match(), HadesSettings())
    assert resolved.cloning.loss == "cross_entropy"
    assert (resolved.init_seed, resolved.normalization_envs) == (None, None)
    assert resolve(Match(), resolved) == resolved


@pytest.mark.parametrize("fixed_init", [False, True])
def test_published_settings_are_those_of_the_paper(fixed_init):
    brax = recipes.paper_brax("brax/ant", fixed_init=fixed_init)
    assert (brax.dataset_size, brax.population_size, brax.num_inits) == (64, 2048, 1 if fixed_init else 2)
    assert (brax.num_episodes, brax.normalization_envs, brax.cloning.num_steps) == (4, 4, 400)
    assert recipes.paper_brax("brax/hopper").cloning.num_steps == 200
    assert brax.evolution.resolved() == EvolutionSettings("Open_ES", 0.03, 0.05, "adam", 0.99, "raw")
    minatar = recipes.paper_minatar(fixed_init=fixed_init, dataset_size=8)
    assert (minatar.dataset_size, minatar.num_episodes, minatar.cloning.learning_rate) == (8, 8, 0.03)
    assert (minatar.evolution.strategy, minatar.evolution.temperature, minatar.learn_labels) == ("SNES", 20.0, False)


def test_descriptions_say_what_was_run(small_run):
    dataset = small_run.describe(small_run.dataset(small_run.init(jax.random.key(0))), 5)
    metadata = dataset.metadata
    assert (metadata.env, metadata.method, metadata.seed) == ("diagnostic/match", "hades-r", 5)
    assert metadata.cloning == small_run.settings.cloning
    assert metadata.max_episode_steps == 8
    assert metadata.evaluation is None
    assert isinstance(dataset, hades.SyntheticDataset)


def test_chunks_for_a_cpu_are_of_a_cpu_alone_and_leave_those_that_are_given(monkeypatch):
    def chunks(**sizes):
        return recipes.hades_r(Match(), population_size=8, **sizes).chunks

    assert chunks(cpu_chunk_size=2) == Chunks(2, 2)
    assert chunks(cpu_chunk_size=2, rollout_chunk_size=4) == Chunks(2, 4)
    monkeypatch.setattr("hades.recipes.hades.platform_of", lambda mesh: "cuda")
    assert chunks(cpu_chunk_size=2) == Chunks(None, None)
    assert chunks(cpu_chunk_size=2, cloning_chunk_size=4) == Chunks(4, None)


@pytest.mark.parametrize(("halvings", "chunk"), [(2, None), (1, 4)])
def test_halvings_take_fewer_steps_for_the_same_fitness(halvings, chunk):
    def iteration(**changes):
        env = Watched(Walk(max_steps=40), count_steps=True)
        cloning = CloningSettings(hidden_sizes=(), kernel_init="lecun_normal", num_steps=20, learning_rate=0.1)
        settings = SMALL | {"population_size": 16, "action_selection": "mode", "cloning": cloning} | changes
        run = recipes.hades_r(env, mesh=jax.devices()[:1], evolution=EvolutionSettings(sigma=1.0), **settings)
        _, metrics = jax.block_until_ready(jax.jit(run.step)(jax.jit(run.init)(jax.random.key(0))))
        jax.effects_barrier()
        return env.steps, float(metrics["fitness_mean"]), int(jnp.sum(metrics["env_steps"]))

    steps, fitness, env_steps = iteration(rollout_chunk_size=chunk, rollout_halvings=halvings)
    more_steps, *expected = iteration(rollout_chunk_size=chunk)
    np.testing.assert_allclose((fitness, env_steps), expected, rtol=1e-5)
    assert env_steps <= steps < more_steps
