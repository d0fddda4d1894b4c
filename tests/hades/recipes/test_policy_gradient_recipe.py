"""HaDES-PG: that it learns with fresh initialisations, keeps one for F, resumes bit for bit, and what files say."""

from __future__ import annotations

import dataclasses
import json
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hades
from envs.diagnostic import Delayed, Match, Target
from hades import recipes
from hades.dataset import SyntheticDataset
from hades.inner.cloning import CloningSettings
from hades.inner.curvature import largest_curvature
from hades.normalization import Normalizer
from hades.outer import MetaGradientSettings
from hades.policies import NetworkSettings
from hades.recipes.policy_gradient import HadesPGSettings, resolve
from hades.training import LoopSettings

INNER = CloningSettings(
    hidden_sizes=(8,), kernel_init="lecun_normal", optimizer="sgd", learning_rate=1.0, num_steps=3, step_sizes="learned"
)
SMALL = {
    "dataset_size": 3,
    "num_inits": 2,
    "num_envs": 8,
    "num_steps": 8,
    "observation_normalization": "none",
    "critic": NetworkSettings(hidden_sizes=(8,), kernel_init="lecun_normal"),
    "cloning": INNER,
    "meta_gradient": MetaGradientSettings(learning_rate=0.1, max_grad_norm=1.0, rematerialize=False),
}
LOOP = LoopSettings(iterations_per_call=4, log_every=1, evaluate_every=8, evaluation_inits=2, evaluation_episodes=2)


def make_run(env=None, recipe=recipes.hades_pg, **changes):
    return recipe(env or Match(max_steps=8), **{**SMALL, **changes})


@pytest.fixture(scope="module")
def learned():
    """A run on a task whose right answer is shown at every step, of 60 iterations."""
    run = make_run()
    return run, hades.distill(jax.random.key(0), run, 60, loop=LOOP, progress=False)


def test_fresh_policies_learn_from_what_policy_gradients_distilled(learned):
    run, result = learned
    evaluator = run.make_evaluator(16, 8)
    evaluation = evaluator(jax.random.key(1), result.dataset)
    references = evaluator.references(jax.random.key(1), result.dataset)
    # 8 is the best, 8 / 3 chance.
    assert evaluation.mean > 7 > 4 > references["untrained policy"].mean
    assert result.history[-1]["entropy"] < result.history[0]["entropy"]
    assert {"approx_kl", "clip_fraction", "value_loss", "masked_steps", "updates"} <= set(result.history[0])
    assert all(row["env_steps"] == 64 for row in result.history)


@pytest.mark.slow
def test_continuous_actions_learn_with_their_standard_deviation():
    run = make_run(Target(max_steps=8), first_log_std=-0.5, label_scale=0.5)
    result = hades.distill(jax.random.key(0), run, 60, loop=LOOP, progress=False)
    evaluator = dataclasses.replace(run.make_evaluator(8, 8), action_selection="mode")
    untrained = evaluator.references(jax.random.key(1), result.dataset)["untrained policy"].mean
    assert evaluator(jax.random.key(1), result.dataset).mean > 0.5 * untrained
    assert result.dataset.log_std.shape == (Target().action_space.action_dim,)
    assert (np.asarray(result.dataset.log_std) != -0.5).all()


@pytest.mark.slow
def test_credit_reaches_an_action_whose_reward_is_late():
    run = make_run(Delayed(), num_envs=32, num_steps=16, gamma=1.0, gae_lambda=1.0)
    result = hades.distill(jax.random.key(0), run, 60, loop=LOOP, progress=False)
    evaluator = run.make_evaluator(8, 16)
    untrained = evaluator.references(jax.random.key(1), result.dataset)["untrained policy"].mean
    assert evaluator(jax.random.key(1), result.dataset).mean > untrained + 0.3


def test_the_file_says_the_steps_and_trains_the_same_policies(learned, tmp_path):
    run, result = learned
    path = tmp_path / "dataset.npz"
    result.dataset.save(path)
    loaded = SyntheticDataset.load(path)
    assert (loaded.metadata.format, loaded.metadata.cloning.step_sizes, loaded.metadata.method) == (
        2, "learned", "hades-pg",
    )  # fmt: skip
    np.testing.assert_array_equal(loaded.step_sizes, result.dataset.step_sizes)
    ours = run.make_evaluator(4, 4)(jax.random.key(3), result.dataset)
    theirs = hades.evaluate_dataset(jax.random.key(3), Match(max_steps=8), loaded, 4, 4)
    np.testing.assert_array_equal(ours.returns, theirs.returns)


@pytest.mark.parametrize("stop", range(1, 11))
def test_a_run_stopped_at_any_call_goes_on_bit_for_bit(learned_short, tmp_path, stop):
    run, expected = learned_short
    calls = iter(range(1, 99))
    out = tmp_path / "run"
    arguments = {"loop": dataclasses.replace(LOOP, iterations_per_call=1), "progress": False, "out": out}
    first = hades.distill(jax.random.key(2), run, 11, should_stop=lambda: next(calls) > stop, **arguments)
    assert (first.finished, int(first.state.iteration)) == (False, stop)
    result = hades.distill(jax.random.key(2), run, 11, **arguments)
    chex.assert_trees_all_equal(
        *(jax.tree.map(lambda leaf: leaf, dataclasses.replace(state, key=jax.random.key_data(state.key)))
          for state in (result.state, expected.state))
    )  # fmt: skip


@pytest.fixture(scope="module")
def learned_short():
    run = make_run()
    loop = dataclasses.replace(LOOP, iterations_per_call=1)
    return run, hades.distill(jax.random.key(2), run, 11, loop=loop, progress=False)


@pytest.mark.slow
def test_hades_pg_f_keeps_the_initialisation_that_its_file_names():
    run = make_run(method="hades-pg-f", num_inits=1, init_seed=5)
    result = hades.distill(jax.random.key(0), run, 2, loop=LOOP, progress=False)
    assert result.dataset.metadata.init_seed == 5
    evaluation = run.make_evaluator(3, 4)(jax.random.key(1), result.dataset)
    assert evaluation.returns.shape == (3, 4)


def test_ppmo_takes_one_inner_step():
    run = make_run(recipe=recipes.ppmo, cloning=dataclasses.replace(INNER, num_steps=1))
    assert (run.method, recipes.ppmo(Match(), num_envs=4, num_steps=8).settings.cloning.num_steps) == ("ppmo", 1)
    assert jax.eval_shape(lambda key: run.outcome(run.init(key)), jax.random.key(0)).step_sizes.shape == (1,)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"init_seed": 3}, "init_seed: hades-pg draws fresh"),
        ({"method": "hades-pg-f"}, "num_inits: hades-pg-f has one initialisation, expected 1, got 2"),
        ({"method": "ppmo"}, "num_steps: ppmo has one inner step of sgd, whose size is learned, expected 1, got 3"),
        ({"method": "ppmo", "cloning": CloningSettings(num_steps=1)}, "optimizer: ppmo has one inner step of sgd"),
        ({"num_envs": 7}, "num_envs: expected a multiple of num_inits = 2, got 7"),
        ({"num_minibatches": 5}, "num_minibatches: expected a divisor of num_envs * num_steps = 64, got 5"),
        ({"cloning": dataclasses.replace(INNER, loss="mse")}, "loss: actions of diagnostic/match are discrete"),
        ({"step_size_bound": 1.0}, "step_size_bound: expected a number above 1, got 1.0"),
        ({"num_inits": 4, "num_envs": 4, "num_minibatches": 16}, "num_minibatches: expected a divisor of the 8 steps"),
        ({"gamma": 1.5}, "gamma: expected a number in"),
        ({"step_size_bound": -1.0}, "step_size_bound"),
        ({"kernel_inits": ("orthogonal",)}, "kernel_inits: expected none, or two or more, each once, got orthogonal"),
        (
            {"method": "hades-pg-f", "num_inits": 1, "step_size_spread": 2.0},
            "step_size_spread: hades-pg-f trains the one",
        ),
        (
            {
                "num_epochs": 1,
                "num_minibatches": 1,
                "meta_gradient": MetaGradientSettings(max_kl=0.1, trust_region=True),
            },
            "trust_region: expected none where an iteration is one step",
        ),
        ({"step_size_spread": 0.5}, "step_size_spread: expected a number of at least 1, got 0.5"),
        ({"average_decay": 1.0}, "average_decay: expected a number in [0, 1), got 1.0"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes, words):
    with pytest.raises(ValueError, match="^" + re.escape(words)):
        make_run(**changes)


@pytest.mark.parametrize("asked", ["running", "none"])
def test_a_normaliser_of_another_kind_is_refused(asked):
    given = Normalizer("fixed", mean=jnp.zeros(3), std=jnp.ones(3))
    words = f"^normalizer: expected one of kind {asked}, as observation_normalization says, got fixed"
    with pytest.raises(ValueError, match=words):
        recipes.hades_pg(Match(), normalizer=given, observation_normalization=asked)


def test_running_statistics_are_those_of_the_file():
    """Uniform on [-1, 1]: standard deviation 0.577, within five standard errors of 2,000 observations and more."""
    env = Target(action_dim=2, max_steps=5)
    run = make_run(env, dataset_size=500, statistics_episodes=400, observation_normalization="running")
    state = jax.jit(run.init)(jax.random.key(0))
    first = run.dataset(state)
    # Pairs begin at observations that are normalised, too.
    np.testing.assert_allclose(np.std(first.observations, axis=0), 1, atol=0.1)
    np.testing.assert_allclose(first.observation_std, np.full(2, 1 / np.sqrt(3)), atol=0.03)
    after, _ = jax.jit(run.step)(state)
    assert not np.array_equal(run.dataset(after).observation_std, first.observation_std)
    assert run.describe(run.dataset(after), 0).metadata.observation_normalization == "fixed"


def test_settings_of_the_inner_loop_may_fix_its_step_sizes():
    fixed = dataclasses.replace(INNER, step_sizes="fixed", learning_rate=0.1)
    run = make_run(cloning=fixed)
    outcome = jax.eval_shape(lambda key: run.outcome(run.init(key)), jax.random.key(0))
    assert outcome.step_sizes is None
    assert resolve(Match(), HadesPGSettings(cloning=fixed)).cloning.loss == "cross_entropy"


@pytest.mark.slow
def test_a_log_std_is_learned_beside_fixed_step_sizes(tmp_path):
    fixed = dataclasses.replace(INNER, step_sizes="fixed", learning_rate=0.1)
    run = make_run(Target(max_steps=8), cloning=fixed, first_log_std=-0.5)
    result = hades.distill(jax.random.key(0), run, 4, loop=LOOP, progress=False)
    result.dataset.save(tmp_path / "dataset.npz")
    loaded = SyntheticDataset.load(tmp_path / "dataset.npz")
    assert loaded.step_sizes is None and (np.asarray(loaded.log_std) != -0.5).all()
    with np.load(tmp_path / "dataset.npz") as archive:
        assert json.loads(str(archive["metadata"]))["format"] == 2


@pytest.mark.parametrize(
    ("changes", "learning_rate"),
    [
        ({}, 1.0),
        ({"cloning": dataclasses.replace(INNER, learning_rate=0.1, momentum=0.5)}, 0.1),
        # The largest of the steps that trainings draw.
        ({"step_size_spread": 3.0}, 3.0),
    ],
)
def test_first_steps_of_descent_are_three_quarters_of_those_that_diverge(changes, learning_rate):
    run = make_run(**changes)
    dataset = run.outcome(run.init(jax.random.key(0)))
    # Of other initialisations, which differ more the narrower they are.
    curvature = largest_curvature(jax.random.key(1), run.inner, dataset)
    np.testing.assert_allclose(dataset.step_sizes * learning_rate * curvature, np.full(3, 1.5), rtol=0.25)


@pytest.mark.parametrize(
    ("settings", "first"),
    [
        ({"first_step_size": 0.3}, 0.3),
        ({"cloning": dataclasses.replace(INNER, optimizer="adam", learning_rate=0.02)}, 1.0),
        ({"cloning": dataclasses.replace(INNER, optimizer="adam"), "first_step_size": 0.5}, 0.5),
    ],
)
def test_first_steps_are_those_that_are_given_and_of_other_optimisers_the_learning_rate(settings, first):
    run = make_run(**settings)
    np.testing.assert_allclose(run.outcome(run.init(jax.random.key(0))).step_sizes, np.full(3, first), rtol=1e-6)


def test_training_draws_initialisers_and_step_sizes_and_evaluation_does_not():
    kinds = ("orthogonal", "he_normal")
    run = make_run(kernel_inits=kinds, step_size_spread=2.0)
    plain = make_run()
    assert (run.inner.step_size_spread, run.evaluation_inner) == (2.0, plain.evaluation_inner)
    assert run.inner == make_run(kernel_inits=kinds, step_size_spread=2.0).inner
    each = [make_run(cloning=dataclasses.replace(INNER, kernel_init=kind)).inner.policy.init for kind in kinds]
    drawn = []
    for key in jax.random.split(jax.random.key(0), 16):
        init_key, ours = jax.random.split(key)[1], run.inner.init(key)
        found = [jax.tree.all(jax.tree.map(np.array_equal, init(init_key), ours)) for init in each]
        assert sum(found) == 1
        drawn.append(found.index(True))
    assert set(drawn) == {0, 1}


def test_an_averaged_run_collects_with_the_policies_that_the_same_run_without_an_average_has():
    plain, averaged = make_run(), make_run(average_decay=0.8)
    steps = jax.jit(plain.step), jax.jit(averaged.step)
    state, its_state = plain.init(jax.random.key(0)), averaged.init(jax.random.key(0))
    sums, weights = 0.0, 0.0
    for _ in range(3):
        state, metrics = steps[0](state)
        its_state, its_metrics = steps[1](its_state)
        chex.assert_trees_all_close(metrics, its_metrics, rtol=1e-5)
        pairs = np.asarray(plain.outcome(state).observations)
        sums, weights = 0.8 * sums + pairs, 0.8 * weights + 1
    chex.assert_trees_all_close(its_state.outer.outer.solution, state.outer.solution, rtol=1e-5)
    np.testing.assert_allclose(averaged.outcome(its_state).observations, sums / weights, rtol=1e-5)
    # Averages of what does not move would be the same.
    assert np.abs(averaged.outcome(its_state).observations - pairs).max() > 0.01


def test_limits_of_initialisations_that_nothing_reaches_give_the_same_iteration():
    outer = dataclasses.replace(SMALL["meta_gradient"], max_grad_norm=None, optimizer="sgd")
    states = []
    for limit in (None, 1e6):
        run = make_run(meta_gradient=dataclasses.replace(outer, max_init_grad_norm=limit))
        state, metrics = jax.jit(run.step)(run.init(jax.random.key(0)))
        states.append((state.outer.solution, metrics["approx_kl"], metrics["entropy"], metrics["gradient_norm"]))
    chex.assert_trees_all_close(*states, rtol=1e-4, atol=1e-6)
    assert int(metrics["updates"]) == 8 and float(metrics["clipped_inits"]) == 0


def test_hades_pg_f_takes_no_window():
    outer = dataclasses.replace(SMALL["meta_gradient"], window=2)
    with pytest.raises(ValueError, match=r"^window: hades-pg-f has one key of training"):
        make_run(method="hades-pg-f", num_inits=1, meta_gradient=outer)


@pytest.mark.parametrize(
    "env",
    [
        pytest.param(Match(max_steps=8), id="discrete"),
        pytest.param(Target(max_steps=8), id="continuous", marks=pytest.mark.slow),
    ],
)
def test_an_iteration_compiles_once(env):
    run = make_run(env)
    chex.clear_trace_counter()
    step = jax.jit(chex.assert_max_traces(run.step, n=1))
    state = jax.jit(run.init)(jax.random.key(0))
    for _ in range(3):
        state, _ = step(state)
    assert int(state.iteration) == 3
