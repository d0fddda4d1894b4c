"""Offline distillation as a run: it learns, resumes bit for bit, takes seeds by vmap, and refuses what does not fit."""

from __future__ import annotations

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
import hades
from hades.distributions import Categorical
from hades.inner.cloning import CloningSettings
from hades.normalization import PolicyParams
from hades.objectives import av_pbc, dbc, pbc, sdw_pbc
from hades.offline import PolicyTeacher, TeacherError
from hades.offline.collect import Behaviour, collect, uniform_behaviour
from hades.offline.labels import label_states
from hades.outer import Evolution, EvolutionSettings, MetaGradientSettings
from hades.recipes.offline import OfflineSettings, offline_run
from hades.recipes.published import paper_offline
from hades.training import LoopSettings
from tests.helpers import make_teacher, uniform_transitions

ENV = envs.make("diagnostic/target", max_steps=4)
INNER = CloningSettings(
    hidden_sizes=(8,),
    activation="tanh",
    kernel_init="lecun_normal",
    action_distribution="tanh_gaussian",
    loss="mse",
    optimizer="sgd",
    learning_rate=0.1,
    num_steps=20,
)
COUNT = 400
DATA, TEACHER = uniform_transitions(ENV.name, COUNT), make_teacher()


def negative(teacher):
    """The same teacher where rewards are costs."""
    flipped = tuple((kernel, -bias) for kernel, bias in teacher.critics[0])
    return teacher.replace(critics=(flipped, flipped))


def make_run(objective=av_pbc, outer=None, **settings):
    defaults = {
        "dataset_size": 6,
        "num_states": 64,
        "cloning": INNER,
        "density": "knn",
        "meta_gradient": MetaGradientSettings(learning_rate=0.05),
    }
    return offline_run(ENV, DATA, objective, OfflineSettings(**(defaults | settings)), TEACHER, outer=outer)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {
            "objective": sdw_pbc,
            "objective_actions": "sample",
            "cloning": dataclasses.replace(
                INNER, loss="sampled_mse", optimizer="adam", learning_rate=0.1, num_steps=40
            ),
        },
        {"objective": pbc, "outer": Evolution(64, EvolutionSettings(sigma=0.1, learning_rate=0.1))},
    ],
    ids=["av-pbc", "sdw-pbc, sampled", "evolution"],
)
def test_distilled_pairs_train_what_random_pairs_do_not(settings):
    run = make_run(**settings)
    # Sampled losses and actions are noisier than modes, and take longer.
    iterations = 400 if settings.get("objective_actions") == "sample" else 150
    loop = LoopSettings(50, evaluate_every=iterations, evaluation_inits=16, evaluation_episodes=16)
    result = hades.distill(jax.random.key(0), run, iterations, loop=loop, progress=False)
    key = jax.random.key(9)
    references = result.evaluator.references(key, result.dataset)
    relabelled = references.pop("random states, teacher's actions").mean
    assert set(references) == {"random real pairs", "zero dataset", "untrained policy"}
    # Answering zero expects -1/6 a step and four steps; random pairs teach noise.
    distilled = result.evaluator(key, result.dataset).mean
    assert distilled > -0.4
    assert distilled > 0.7 * max(evaluation.mean for evaluation in references.values())
    assert relabelled > references["random real pairs"].mean
    assert result.history[-1]["fitness_mean"] > result.history[0]["fitness_mean"]


def test_learned_step_sizes_are_part_of_the_outcome_and_of_its_references():
    run = make_run(cloning=dataclasses.replace(INNER, step_sizes="learned", num_steps=2))
    state = run.init(jax.random.key(0))
    np.testing.assert_array_equal(run.outcome(state).step_sizes, np.ones(2))
    step = jax.jit(run.step)
    for _ in range(2):
        state, metrics = step(state)
    assert int(metrics["non_finite"]) == 0
    # Adam moves each of their logarithms by the learning rate of 0.05 at first.
    np.testing.assert_allclose(np.abs(np.log(run.outcome(state).step_sizes)), 0.1, rtol=0.2)
    references = run.references(jax.random.key(1))
    assert set(references) == {"random real pairs", "random states, teacher's actions"}
    for dataset in references.values():
        np.testing.assert_array_equal(dataset.step_sizes, np.ones(2))


def test_an_averaged_outcome_is_the_moving_average_of_the_pairs_that_the_same_run_goes_through():
    short = dataclasses.replace(INNER, num_steps=2)
    moving, averaged = make_run(cloning=short), make_run(cloning=short, average_decay=0.8)
    steps = jax.jit(moving.step), jax.jit(averaged.step)
    state, its_state = moving.init(jax.random.key(0)), averaged.init(jax.random.key(0))
    chex.assert_trees_all_equal(moving.outcome(state), averaged.outcome(its_state))
    sums, weights = 0.0, 0.0
    for _ in range(3):
        state, its_state = steps[0](state)[0], steps[1](its_state)[0]
        pairs = np.asarray(moving.outcome(state).observations)
        sums, weights = 0.8 * sums + pairs, 0.8 * weights + 1
    np.testing.assert_allclose(averaged.outcome(its_state).observations, sums / weights, rtol=1e-5)
    np.testing.assert_allclose(its_state.outer.outer.solution["observations"], pairs, rtol=1e-5)


def test_dbc_imitates_data_that_know_nothing():
    # Uniform actions have the mean 0: its policies answer about 0 and no more.
    run = hades.recipes.dbc(ENV, DATA, dataset_size=6, num_states=200, cloning=INNER)
    result = hades.distill(jax.random.key(0), run, 100, loop=LoopSettings(50, 100, 8, 16), progress=False)
    assert -1.2 < result.evaluator(jax.random.key(9), result.dataset).mean < -0.4


def test_a_stopped_run_goes_on_bit_for_bit(tmp_path):
    loop = LoopSettings(iterations_per_call=2, evaluate_every=4, evaluation_inits=2, evaluation_episodes=2)
    whole = hades.distill(jax.random.key(0), make_run(), 6, loop=loop, progress=False)
    hades.distill(jax.random.key(0), make_run(), 4, out=tmp_path / "run", loop=loop, progress=False)
    resumed = hades.distill(jax.random.key(0), make_run(), 6, out=tmp_path / "run", loop=loop, progress=False)
    chex.assert_trees_all_equal(whole.dataset.without_metadata(), resumed.dataset.without_metadata())
    chex.assert_trees_all_equal(whole.state.outer, resumed.state.outer)
    loaded = hades.SyntheticDataset.load(tmp_path / "run" / "dataset.npz")
    assert loaded.metadata.method == "av-pbc"
    assert loaded.metadata.cloning.action_distribution == "tanh_gaussian"
    np.testing.assert_array_equal(loaded.observation_mean, DATA.statistics(1e-3).mean)


@pytest.mark.slow
def test_seeds_by_vmap_are_the_single_runs():
    run = make_run(initialization="kmeans_highest_q")
    keys = jax.random.split(jax.random.key(0), 3)
    states, metrics = jax.jit(jax.vmap(lambda key: run.step(run.init(key))))(keys)
    single, its_metrics = jax.jit(lambda key: run.step(run.init(key)))(keys[1])
    np.testing.assert_allclose(metrics["fitness_mean"][1], its_metrics["fitness_mean"], rtol=1e-5)
    pairs = jax.tree.map(lambda leaf: leaf[1], states.outer.solution)
    np.testing.assert_allclose(pairs["observations"], single.outer.solution["observations"], atol=1e-5)
    assert not np.allclose(states.outer.solution["observations"][0], pairs["observations"])


def test_labels_are_those_of_teacher_and_density():
    log_density = jnp.linspace(-3.0, 2.0, COUNT)
    normalizer = DATA.statistics(1e-3)
    states = label_states(DATA, normalizer, TEACHER, log_density, 0.5)
    np.testing.assert_allclose(states.observations, normalizer.apply(DATA.observations), rtol=1e-6)
    np.testing.assert_allclose(states.teacher_actions, np.tanh(0.5 * DATA.observations), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(states.action_values, 100.0)
    np.testing.assert_allclose(states.mean_action_value, 100.0, rtol=1e-5)
    inside = slice(20, -20)  # of the percentiles that weights are clipped to
    ratio = np.asarray(states.state_weights)[inside] / np.exp(-0.5 * np.asarray(log_density))[inside]
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-4)
    np.testing.assert_allclose(np.mean(states.state_weights), 1.0, rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "teacher", "message"),
    [
        ({}, None, "teacher: av-pbc needs one, such as hades offline teach trains, got none"),
        ({"objective": dbc, "initialization": "highest_q"}, None, "teacher: initialization highest_q needs one"),
        ({}, negative(TEACHER), "teacher: av-pbc weighs states by action values, expected a mean above 0, got -100"),
        ({"dataset_size": COUNT + 1}, TEACHER, f"dataset_size: expected at most {COUNT}"),
        ({}, make_teacher(3, 2), r"teacher: expected observations of shape \(2,\) as of diagnostic/target"),
        (
            {"cloning": dataclasses.replace(INNER, loss="cross_entropy")},
            TEACHER,
            "loss: actions of diagnostic/target are continuous",
        ),
    ],
)
def test_what_does_not_fit_is_refused(settings, teacher, message):
    objective = settings.get("objective", av_pbc)
    chosen = OfflineSettings(**{name: value for name, value in settings.items() if name != "objective"})
    with pytest.raises((ValueError, TeacherError), match=message):
        offline_run(ENV, DATA, objective, chosen, teacher)


def test_data_of_another_environment_are_refused():
    other = envs.make("diagnostic/target", action_dim=3)
    with pytest.raises(ValueError, match=r"observations: expected shape \(3,\) as of diagnostic/target, got \(2,\)"):
        offline_run(other, DATA, av_pbc, OfflineSettings(), TEACHER)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_states": 0}, "num_states: expected a number above 0"),
        ({"density_exponent": -1.0}, "density_exponent: expected a number of at least 0"),
        ({"meta_gradient": MetaGradientSettings(window=101)}, "window: expected at most .*, the inner steps, got 101"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        OfflineSettings(**settings)


def test_published_settings_are_those_of_the_paper():
    settings = paper_offline()
    assert (settings.dataset_size, settings.num_states, settings.cloning.num_steps) == (256, 2560, 100)
    assert settings.cloning.hidden_sizes == (256, 256, 256)
    assert (settings.cloning.optimizer, settings.cloning.learning_rate) == ("sgd", 0.1)
    outer = settings.meta_gradient
    assert (outer.optimizer, outer.learning_rate, outer.momentum, outer.max_grad_norm) == ("sgd", 0.1, 0.9, 2.0)
    assert (settings.objective_actions, settings.cloning.loss) == ("sample", "sampled_mse")
    assert (settings.cloning.activation, settings.cloning.action_distribution) == ("relu", "tanh_gaussian")
    student = hades.policies.from_settings(ENV, settings.cloning)
    params = student.init(jax.random.key(0))
    np.testing.assert_array_equal(params["log_std"], -np.ones_like(params["log_std"]))
    # Orthogonal columns of length sqrt(2), in the head, too.
    kernels = [leaf for leaf in jax.tree.leaves(params) if leaf.ndim == 2]
    assert len(kernels) == 4
    for kernel in kernels:
        assert np.linalg.norm(kernel, 2) == pytest.approx(np.sqrt(2), rel=1e-4)


MATCH = envs.make("diagnostic/match", max_steps=4)


def knowing(env):
    """A teacher that is nearly sure of what the observation shows."""
    policy = hades.Policy(lambda key: (), lambda params, observations: Categorical(6 * observations))
    return PolicyTeacher(policy, PolicyParams(()), env)


@pytest.mark.parametrize("objective", [dbc, pbc], ids=["dbc", "pbc"])
def test_discrete_actions_are_distilled_with_soft_labels(objective):
    teacher = knowing(MATCH)
    behaviour = Behaviour(teacher.architecture, teacher.params, epsilon=0.3, action_selection="sample")
    data = collect(jax.random.key(1), MATCH, [behaviour], COUNT, 16)
    assert data.actions.dtype == jnp.int32 and data.discrete
    chosen = np.asarray(data.observations)[np.arange(COUNT), np.asarray(data.actions)]
    assert 0.7 < chosen.mean() < 0.9
    inner = dataclasses.replace(INNER, loss=None, action_distribution="gaussian", learning_rate=0.5)
    settings = OfflineSettings(
        dataset_size=6, num_states=64, cloning=inner, meta_gradient=MetaGradientSettings(learning_rate=0.05)
    )
    run = offline_run(MATCH, data, objective, settings, teacher if objective is pbc else None)
    result = hades.distill(jax.random.key(0), run, 100, loop=LoopSettings(50, 100, 8, 16), progress=False)
    assert result.dataset.action_probabilities.shape == (6, 3)
    assert run.settings.cloning.loss == "cross_entropy"
    key = jax.random.key(9)
    # 4 is the best, 4 / 3 chance.
    assert result.evaluator(key, result.dataset).mean > 3.5
    assert result.evaluator.references(key, result.dataset)["zero dataset"].mean < 2.5


def test_a_policy_teaches_no_values_and_no_other_environment():
    data = collect(jax.random.key(1), MATCH, [uniform_behaviour(MATCH)], 40, 4)
    for objective, settings, teacher, message in (
        (av_pbc, {}, knowing(MATCH), "teacher: av-pbc needs action values, expected a teacher that has them"),
        (dbc, {"initialization": "highest_q"}, knowing(MATCH), "teacher: highest_q needs action values"),
        (pbc, {}, knowing(ENV), "teacher: expected observations of shape"),
    ):
        with pytest.raises(ValueError, match=message):
            offline_run(MATCH, data, objective, OfflineSettings(dataset_size=3, **settings), teacher)
    other = envs.make("diagnostic/target", action_dim=3)
    with pytest.raises(ValueError, match="actions: expected those of diagnostic/target, .* got discrete ones"):
        offline_run(other, data, dbc, OfflineSettings(dataset_size=3))
    with pytest.raises(ValueError, match="noise: expected 0, as actions of diagnostic/match are discrete"):
        collect(jax.random.key(1), MATCH, [dataclasses.replace(uniform_behaviour(MATCH), noise=0.1)], 40, 4)
