"""Cal-QL: its formulas against numbers computed by hand, its updates, and the teachers that it leaves."""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from hades._serialization import from_dict, to_dict
from hades.distributions import TanhGaussian
from hades.offline.cal_ql import CalQLSettings, losses, make_cal_ql
from hades.offline.teacher import Teacher, TeacherError
from hades.offline.teaching import TeachingLoop, make_teacher_evaluator, teach
from hades.offline.transitions import OfflineDataError, Transitions
from hades.types import Continuous

UNIT = Continuous((-1.0,), (1.0,))
SMALL = CalQLSettings((8,), (8,), batch_size=16, num_actions=3, critic_learning_rate=1e-3, actor_learning_rate=1e-3)


def make_data(count=64, seed=0, **changes):
    """One-step episodes whose reward is minus the squared distance of the action from half of the observation."""
    generator = np.random.default_rng(seed)
    observations = generator.uniform(-1, 1, (count, 1)).astype(np.float32)
    actions = generator.uniform(-1, 1, (count, 1)).astype(np.float32)
    arrays = {
        "observations": observations,
        "actions": actions,
        "rewards": -np.square(actions - observations / 2)[:, 0],
        "next_observations": observations,
        "terminals": np.ones(count, bool),
        "timeouts": np.zeros(count, bool),
    }
    return Transitions(**{name: jnp.asarray(array) for name, array in (arrays | changes).items()})


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_returns_of_trajectories_that_terminate_are_cut_and_run_to_the_end_of_the_data():
    flags = {"terminals": np.array([0, 1, 0, 0, 0, 0], bool), "timeouts": np.array([0, 0, 0, 1, 0, 0], bool)}
    data = make_data(6, rewards=np.float32([1, 2, 3, 5, -1, -2]), **flags)
    # Of the three trajectories (1, 2), (3, 5), (-1, -2) the first terminates; the others go on at their means 4, -1.5.
    seen = [1 + 0.5 * 2, 2, 3 + 0.5 * 5, 5, -1 - 0.5 * 2, -2]
    on = [1 + 0.5 * 2, 2, 3 + 0.5 * (5 + 0.5 * 8), 5 + 0.5 * 8, -1 + 0.5 * (-2 - 0.5 * 3), -2 - 0.5 * 3]
    np.testing.assert_allclose(losses.returns_of_data(data, data.rewards, 0.5, "nothing"), seen, rtol=1e-6)
    np.testing.assert_allclose(losses.returns_of_data(data, data.rewards, 0.5, "mean_reward"), on, rtol=1e-6)


def test_a_terminal_that_is_also_a_timeout_is_worth_nothing_beyond():
    both = np.array([False, True])
    data = make_data(2, rewards=np.float32([1, 1]), terminals=both, timeouts=both)
    np.testing.assert_allclose(losses.returns_of_data(data, data.rewards, 0.9, "mean_reward"), [1.9, 1.0], rtol=1e-6)


def test_critic_targets_bootstrap_unless_the_task_ended():
    rewards, terminals = jnp.array([1.0, 1.0]), jnp.array([False, True])
    np.testing.assert_allclose(
        losses.critic_targets(rewards, terminals, jnp.array([10.0, jnp.nan]), 0.9), [10.0, 1.0], rtol=1e-6
    )


def drawn(*arrays):
    return losses.DrawnActions(*map(jnp.asarray, arrays))


@pytest.mark.parametrize("calibrated", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_conservative_gap(calibrated, weighted):
    data_values, returns, temperature = numbers(4), numbers(4, seed=1), 0.7
    values, densities = [numbers(3, 4, seed=seed) for seed in (2, 3, 4)], [numbers(3, 4, seed=s) for s in (5, 6, 7)]
    found = jax.jit(losses.conservative_gap)(
        jnp.asarray(data_values),
        drawn(*values),
        drawn(*densities) if weighted else None,
        jnp.asarray(returns) if calibrated else None,
        temperature,
    )
    expected = []
    for state in range(4):
        terms = [] if weighted else [data_values[state]]
        for source in range(3):
            for draw in range(3):
                value = values[source][draw, state]
                if calibrated and source > 0:
                    value = max(value, returns[state])
                terms.append(value - densities[source][draw, state] if weighted else value)
        softened = temperature * np.log(np.sum(np.exp(np.array(terms, np.float64) / temperature)))
        expected.append(softened - data_values[state])
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_calibration_pushes_no_action_below_the_return_of_the_data():
    values = drawn(*(jnp.full((1, 1), value) for value in (0.0, 1.0, 3.0)))
    densities = drawn(*[jnp.zeros((1, 1))] * 3)

    def gap(values, returns):
        return losses.conservative_gap(jnp.zeros(1), values, densities, returns, 1.0)[0]

    slopes = jax.grad(gap)(values, jnp.array([2.0]))
    # Softmax of (0, max(1, 2), max(3, 2)); the value below the return does not move.
    weights = np.exp([0.0, 2.0, 3.0]) / np.exp([0.0, 2.0, 3.0]).sum()
    np.testing.assert_allclose(
        [float(leaf[0, 0]) for leaf in jax.tree.leaves(slopes)], [weights[0], 0.0, weights[2]], rtol=1e-5
    )


def test_temperature_and_actor_losses():
    log_probs = jnp.array([-1.0, 3.0])
    np.testing.assert_allclose(losses.temperature_loss(jnp.float32(0.5), log_probs, -2.0), -0.5 * (1 - 2), rtol=1e-6)
    loss = losses.actor_loss(log_probs, jnp.array([2.0, 4.0]), jnp.float32(0.5))
    np.testing.assert_allclose(loss, ((-0.5 - 2) + (1.5 - 4)) / 2, rtol=1e-6)


def perceptron(layers, inputs):
    for index, (kernel, bias) in enumerate(layers):
        inputs = (np.maximum(inputs, 0) if index else inputs) @ np.asarray(kernel, np.float64) + np.asarray(bias)
    return inputs


def test_critic_loss_of_one_update_is_the_sum_of_its_parts():
    """The loss of both critics, its draws taken as they are, its networks and formulas written out in numpy."""
    space = Continuous((-2.0,), (6.0,))
    settings = dataclasses.replace(SMALL, conservative_weight=5.0, discount=0.9, max_target_backup=True)
    cal_ql = make_cal_ql(space, settings)
    data = make_data(16, terminals=np.arange(16) % 4 == 3, timeouts=np.arange(16) == 9)
    experience = cal_ql.prepare(data)
    init = jax.jit(cal_ql.init)
    other = init(jax.random.key(4), experience).networks.critics
    state = dataclasses.replace(init(jax.random.key(3), experience), target_critics=other)
    batch = dataclasses.replace(experience, normalizer=None)
    key = jax.random.key(5)

    @jax.jit
    def compute(state):
        target_key, *keys = jax.random.split(key, 4)
        next_actions, _ = cal_ql._sample(target_key, state, batch.next_observations, 3)
        actions, densities = cal_ql._draw(keys, state, batch)
        loss, _ = cal_ql._critic_loss(state.networks.critics, key, state, batch)
        log_probs = cal_ql.teacher(state).policy(batch.observations).log_prob(actions.current)
        return loss, next_actions, actions, densities, log_probs

    found, next_actions, actions, densities, log_probs = compute(state)

    mean, std = np.asarray(state.observation_mean), np.asarray(state.observation_std)
    np.testing.assert_allclose(mean, np.asarray(data.observations).mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(std, np.asarray(data.observations).std(axis=0) + 1e-3, rtol=1e-5)
    np.testing.assert_allclose(densities.uniform, -np.log(8.0), rtol=1e-6)
    np.testing.assert_allclose(densities.current, log_probs, rtol=1e-3, atol=1e-3)

    def q(layers, observations, actions):
        seen = np.broadcast_to((np.asarray(observations) - mean) / std, actions.shape)
        return perceptron(layers, np.concatenate([seen, actions], axis=-1))[..., 0]

    targets = np.minimum(*(q(layers, data.next_observations, next_actions) for layers in other)).max(axis=0)
    targets = np.asarray(data.rewards) + 0.9 * np.where(data.terminals, 0.0, targets)
    expected = 0.0
    for layers in state.networks.critics:
        values = q(layers, data.observations, np.asarray(data.actions))
        parts = []
        for name in ("uniform", "current", "following"):
            part = q(layers, data.observations, np.asarray(getattr(actions, name)))
            part = part if name == "uniform" else np.maximum(part, np.asarray(batch.returns))
            parts.append(part - np.asarray(getattr(densities, name)))
        gap = np.log(np.exp(np.concatenate(parts)).sum(axis=0)) - values
        expected += np.mean((values - targets) ** 2) + 5.0 * np.mean(gap)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.fixture(scope="module")
def trained():
    """Forty updates in calls of ten, without a pause."""
    return teach(jax.random.key(0), make_cal_ql(UNIT, SMALL), make_data(), 40, loop=TeachingLoop(10), progress=False)


def test_stopped_and_resumed_training_is_bit_for_bit_the_one_that_was_not(trained, tmp_path):
    go_on = partial(
        teach, jax.random.key(0), make_cal_ql(UNIT, SMALL), make_data(), 40, loop=TeachingLoop(10), progress=False
    )
    asked = iter([False, False, True])
    stopped = go_on(checkpoints=tmp_path / "c", should_stop=lambda: next(asked))
    assert not stopped.finished and int(stopped.state.update) == 20
    resumed = go_on(checkpoints=tmp_path / "c")
    assert resumed.finished and [row["update"] for row in resumed.history] == [10, 20, 30, 40]
    for one, other in zip(jax.tree.leaves(trained.state), jax.tree.leaves(resumed.state), strict=True):
        if jnp.issubdtype(one.dtype, jax.dtypes.prng_key):
            one, other = jax.random.key_data(one), jax.random.key_data(other)
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("change", ["settings", "key", "data"])
def test_checkpoints_of_another_training_are_refused(change, tmp_path):
    go_on = partial(teach, num_updates=10, checkpoints=tmp_path / "c", loop=TeachingLoop(10), progress=False)
    go_on(jax.random.key(0), make_cal_ql(UNIT, SMALL), make_data())
    settings = dataclasses.replace(SMALL, discount=0.5) if change == "settings" else SMALL
    key, seed = jax.random.key(change == "key"), int(change == "data")
    expected = "discount was 0.99 there, got 0.5" if change == "settings" else "there, got"
    with pytest.raises(ValueError, match=f"expected training of the same {change}, .*{expected}"):
        go_on(key, make_cal_ql(UNIT, settings), make_data(seed=seed))


def test_the_saved_teacher_says_what_the_networks_say(trained, tmp_path):
    state = trained.state
    trained.teacher.save(tmp_path / "teacher.npz")
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


def test_target_critics_follow_slowly():
    cal_ql = make_cal_ql(UNIT, SMALL)
    experience = cal_ql.prepare(make_data())
    before = jax.jit(cal_ql.init)(jax.random.key(0), experience)
    after, _ = jax.jit(cal_ql.update)(before, experience)
    parts = (before.target_critics, after.networks.critics, after.target_critics)
    for old, new, target in zip(*map(jax.tree.leaves, parts), strict=True):
        assert (old != new).any()
        np.testing.assert_allclose(target, 0.995 * old + 0.005 * new, rtol=1e-5, atol=1e-7)


def test_it_learns_what_random_actions_paid(tmp_path):
    """From actions that know nothing, a policy whose return is far above theirs, which is -1/3 - 1/12 an episode."""
    env = envs.make("diagnostic/target", action_dim=1)
    settings = dataclasses.replace(
        SMALL, actor_hidden_sizes=(16,), critic_hidden_sizes=(16,), actor_learning_rate=0.01,
        critic_learning_rate=0.01, conservative_weight=0.1, batch_size=64,
    )  # fmt: skip
    loop = TeachingLoop(updates_per_call=500, evaluate_every=1000)
    lesson = teach(
        jax.random.key(0), make_cal_ql(env.action_space, settings), make_data(2000), 1000, loop=loop,
        evaluate_teacher=make_teacher_evaluator(env, 256), progress=False,
    )  # fmt: skip
    assert lesson.history[-1]["evaluation_mean"] > -0.01
    # Its action values are the rewards.
    observations, actions = jnp.array([[0.5], [0.5], [-0.8]]), jnp.array([[0.25], [0.75], [-0.4]])
    np.testing.assert_allclose(lesson.teacher.q(observations, actions), [0.0, -0.25, 0.0], atol=0.12)


def test_cloning_updates_learn_the_actions_and_not_their_value():
    """All data choose 0.5, which pays worst of all."""
    data = make_data(256, actions=np.full((256, 1), 0.5, np.float32), rewards=np.full(256, -9, np.float32))
    settings = dataclasses.replace(SMALL, cloning_updates=400, actor_learning_rate=0.01, conservative_weight=0.0)
    cal_ql = make_cal_ql(UNIT, settings)
    lesson = teach(jax.random.key(0), cal_ql, data, 400, loop=TeachingLoop(400), progress=False)
    np.testing.assert_allclose(lesson.teacher.policy(data.observations).mode(), 0.5, atol=0.1)


def test_constant_components_and_unnormalised_observations():
    ones = np.ones((64, 1), np.float32)
    data = make_data(observations=ones, next_observations=ones)
    teach_ten = partial(teach, num_updates=10, loop=TeachingLoop(10), progress=False)
    teacher = teach_ten(jax.random.key(0), make_cal_ql(UNIT, SMALL), data).teacher
    np.testing.assert_allclose(teacher.observation_std, [1e-3], rtol=1e-5)
    assert np.isfinite(teacher.q(data.observations, data.actions)).all()
    raw = dataclasses.replace(SMALL, normalize_observations=False)
    teacher = teach_ten(jax.random.key(0), make_cal_ql(UNIT, raw), data).teacher
    assert teacher.observation_mean.tolist() == [0.0] and teacher.observation_std.tolist() == [1.0]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"rewards": np.full(64, np.nan, np.float32)}, r"rewards: expected finite numbers .* got nan at \[0\]"),
        ({"actions": np.full((64, 1), 3, np.float32)}, r"actions: expected numbers from -1 to 1, got 3 at \[0, 0\]"),
        ({"actions": np.zeros((64, 2), np.float32)}, "actions: expected 1 components, got 2"),
    ],
)
def test_data_that_cannot_be_learned_from_are_refused(changes, sentence):
    with pytest.raises(OfflineDataError, match=sentence):
        make_cal_ql(UNIT, SMALL).prepare(make_data(**changes))


def test_training_that_diverges_ends_with_a_sentence():
    data = make_data(rewards=np.full(64, 1e30, np.float32))
    with pytest.raises(ValueError, match="diverged by update 10: .* not finite"):
        teach(jax.random.key(0), make_cal_ql(UNIT, SMALL), data, 10, loop=TeachingLoop(10), progress=False)


def test_a_teacher_of_another_environment_is_refused(trained):
    with pytest.raises(TeacherError, match="expected observations of shape .* got a teacher for"):
        trained.teacher.check_fits(envs.make("diagnostic/target", action_dim=2))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("discount", 1.0),
        ("polyak", 0.0),
        ("num_actions", 0),
        ("conservative_weight", -1.0),
        ("critic_hidden_sizes", (0,)),
    ],
)
def test_settings_out_of_range_are_refused(field, value):
    with pytest.raises(ValueError, match=field):
        dataclasses.replace(SMALL, **{field: value})


def test_settings_survive_json():
    assert from_dict(CalQLSettings, to_dict(SMALL)) == SMALL
