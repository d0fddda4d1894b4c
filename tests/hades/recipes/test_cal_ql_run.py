"""Cal-QL as a run: it learns, resumes bit for bit, says when it diverges, and leaves a teacher that plays."""

from __future__ import annotations

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
import hades
from hades._run_directory import OtherRunError
from hades.distributions import TanhGaussian
from hades.offline.cal_ql import CalQLSettings
from hades.offline.teacher import Teacher, TeacherError
from hades.recipes import cal_ql_run
from hades.training import DivergedError, LoopSettings
from hades.types import Continuous
from tests.helpers import one_step_transitions

UNIT = Continuous((-1.0,), (1.0,))
SMALL = CalQLSettings((8,), (8,), batch_size=16, num_actions=3, critic_learning_rate=1e-3, actor_learning_rate=1e-3)
LOOP = LoopSettings(iterations_per_call=10, evaluate_every=None)


DATA = one_step_transitions()


def train(iterations=40, settings=SMALL, data=DATA, seed=0, **arguments):
    arguments = {"loop": LOOP, "progress": False} | arguments
    return hades.train(jax.random.key(seed), cal_ql_run(data, UNIT, settings), iterations, **arguments)


@pytest.fixture(scope="module")
def trained():
    """Forty updates in calls of ten, without a pause."""
    return train()


def assert_same_state(found, expected):
    found, expected = (state.replace(key=jax.random.key_data(state.key)) for state in (found, expected))
    chex.assert_trees_all_equal(found, expected)


def test_stopped_and_resumed_training_is_bit_for_bit_the_one_that_was_not(trained, tmp_path):
    asked = iter([False, False, True])
    stopped = train(out=tmp_path / "run", should_stop=lambda: next(asked))
    assert not stopped.finished and int(stopped.state.iteration) == 20
    resumed = train(out=tmp_path / "run")
    assert resumed.finished and len(resumed.history) == 40
    assert_same_state(resumed.state, trained.state)
    assert [row["critic_error"] for row in resumed.history] == [row["critic_error"] for row in trained.history]
    saved = Teacher.load(tmp_path / "run" / "teacher.npz")
    chex.assert_trees_all_equal(saved, trained.outcome)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"settings": dataclasses.replace(SMALL, discount=0.5)}, "has discount 0.99, got 0.5"),
        ({"seed": 1}, r"has key \[0, 0\], got \[0, 1\]"),
        ({"data": one_step_transitions(seed=1)}, "has arrays "),
    ],
)
def test_a_folder_of_another_training_is_refused(change, words, tmp_path):
    train(10, out=tmp_path / "run")
    with pytest.raises(OtherRunError, match=words):
        train(20, out=tmp_path / "run", **change)


def perceptron(layers, inputs):
    for index, (kernel, bias) in enumerate(layers):
        inputs = (np.maximum(inputs, 0) if index else inputs) @ np.asarray(kernel, np.float64) + np.asarray(bias)
    return inputs


def test_the_saved_teacher_says_what_the_networks_say(trained, tmp_path):
    state = trained.state.outer
    trained.outcome.save(tmp_path / "teacher.npz")
    teacher = Teacher.load(tmp_path / "teacher.npz")
    observations, actions = jnp.linspace(-1, 1, 7)[:, None], jnp.linspace(1, -1, 7)[:, None]
    seen = (observations - state.observation_mean) / state.observation_std
    actor = state.networks.actor
    mean, raw = np.split(perceptron(actor.layers, np.asarray(seen)), 2, axis=-1)
    log_std = np.clip(float(actor.log_std_multiplier) * raw + float(actor.log_std_offset), -20, 2)
    np.testing.assert_allclose(teacher.policy(observations).mode(), np.tanh(mean), rtol=1e-5, atol=1e-6)
    policy = TanhGaussian(jnp.asarray(mean, jnp.float32), jnp.asarray(log_std, jnp.float32))
    key = jax.random.key(0)
    np.testing.assert_allclose(teacher.policy(observations).sample(key), policy.sample(key), rtol=1e-5, atol=1e-6)
    inputs = np.concatenate([seen, actions], axis=-1)
    values = [perceptron(layers, inputs)[:, 0] for layers in state.networks.critics]
    np.testing.assert_allclose(teacher.q(observations, actions), np.minimum(*values), rtol=1e-5, atol=1e-6)
    # Both scalars of the log-std are learned, and the targets follow.
    assert float(actor.log_std_multiplier) != 1 and float(actor.log_std_offset) != -1
    assert float(state.networks.log_temperature) != 0


@pytest.mark.slow
def test_it_learns_what_random_actions_paid():
    """From actions that know nothing, a policy whose return is far above theirs, which is -1/3 - 1/12 an episode."""
    env = envs.make("diagnostic/target", action_dim=1)
    settings = dataclasses.replace(
        SMALL, actor_hidden_sizes=(16,), critic_hidden_sizes=(16,), actor_learning_rate=0.01,
        critic_learning_rate=0.01, conservative_weight=0.1, batch_size=64,
    )  # fmt: skip
    run = cal_ql_run(one_step_transitions(2000), env.action_space, settings, env)
    loop = LoopSettings(500, log_every=500, evaluate_every=1000, evaluation_inits=1, evaluation_episodes=256)
    result = hades.train(jax.random.key(0), run, 1000, loop=loop, progress=False)
    assert result.history[-1]["evaluation_mean"] > -0.01
    assert result.best_iteration == 1000
    # Its action values are the rewards.
    observations, actions = jnp.array([[0.5], [0.5], [-0.8]]), jnp.array([[0.25], [0.75], [-0.4]])
    np.testing.assert_allclose(result.outcome.q(observations, actions), [0.0, -0.25, 0.0], atol=0.12)
    references = result.evaluator.references(jax.random.key(1), result.outcome)
    assert references["random actions"].mean < -0.3


def test_cloning_updates_learn_the_actions_and_not_their_value():
    """All data choose 0.5, which pays worst of all."""
    data = one_step_transitions(256, actions=np.full((256, 1), 0.5, np.float32), rewards=np.full(256, -9, np.float32))
    settings = dataclasses.replace(SMALL, cloning_updates=400, actor_learning_rate=0.01, conservative_weight=0.0)
    result = train(400, settings, data, loop=LoopSettings(400, log_every=400, evaluate_every=None))
    np.testing.assert_allclose(result.outcome.policy(data.observations).mode(), 0.5, atol=0.1)


def test_constant_components_and_unnormalised_observations():
    ones = np.ones((64, 1), np.float32)
    data = one_step_transitions(observations=ones, next_observations=ones)
    teacher = train(10, data=data).outcome
    np.testing.assert_allclose(teacher.observation_std, [1e-3], rtol=1e-5)
    assert np.isfinite(teacher.q(data.observations, data.actions)).all()
    teacher = train(10, dataclasses.replace(SMALL, normalize_observations=False), data).outcome
    assert teacher.observation_mean.tolist() == [0.0] and teacher.observation_std.tolist() == [1.0]


def test_training_that_diverges_ends_with_a_sentence():
    data = one_step_transitions(rewards=np.full(64, 1e30, np.float32))
    with pytest.raises(DivergedError, match="diverged: its teacher is not finite since iteration 1; no call before it"):
        train(10, data=data)


def test_a_teacher_of_another_environment_is_refused(trained):
    with pytest.raises(TeacherError, match="expected observations of shape .* got a teacher for"):
        trained.outcome.check_fits(envs.make("diagnostic/target", action_dim=2))


def test_data_are_arguments_of_the_compiled_step_and_evaluation_needs_an_environment():
    run = cal_ql_run(DATA, UNIT, SMALL)
    assert {leaf.shape for leaf in jax.tree.leaves(run)} >= {(64, 1), (64,)}
    with pytest.raises(ValueError, match="env: expected an environment to evaluate the teacher in, got none"):
        run.make_evaluator(1, 1)


def test_a_run_without_an_environment_evaluates_nothing():
    result = train(3, loop=LoopSettings(iterations_per_call=3, evaluate_every=3))
    assert result.evaluator is None
    assert "evaluation_mean" not in result.history[-1]


def test_seeds_of_it_run_side_by_side() -> None:
    keys = jax.random.split(jax.random.key(0), 2)
    results = hades.distill_seeds(keys, cal_ql_run(DATA, UNIT, SMALL), 2, progress=False)
    assert [result.state.iteration for result in results] == [2, 2]
