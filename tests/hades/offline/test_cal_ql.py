"""Cal-QL: its formulas against numbers computed by hand, its updates, and the teachers that it leaves."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hades._serialization import from_dict, to_dict
from hades.offline.cal_ql import CalQLSettings, losses, make_cal_ql
from hades.offline.transitions import OfflineDataError
from hades.types import Continuous
from tests.helpers import one_step_transitions

UNIT = Continuous((-1.0,), (1.0,))
SMALL = CalQLSettings((8,), (8,), batch_size=16, num_actions=3, critic_learning_rate=1e-3, actor_learning_rate=1e-3)


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_returns_of_trajectories_that_terminate_are_cut_and_run_to_the_end_of_the_data():
    flags = {"terminals": np.array([0, 1, 0, 0, 0, 0], bool), "timeouts": np.array([0, 0, 0, 1, 0, 0], bool)}
    data = one_step_transitions(6, rewards=np.float32([1, 2, 3, 5, -1, -2]), **flags)
    # Of the three trajectories (1, 2), (3, 5), (-1, -2) the first terminates; the others go on at their means 4, -1.5.
    seen = [1 + 0.5 * 2, 2, 3 + 0.5 * 5, 5, -1 - 0.5 * 2, -2]
    on = [1 + 0.5 * 2, 2, 3 + 0.5 * (5 + 0.5 * 8), 5 + 0.5 * 8, -1 + 0.5 * (-2 - 0.5 * 3), -2 - 0.5 * 3]
    np.testing.assert_allclose(losses.returns_of_data(data, data.rewards, 0.5, "nothing"), seen, rtol=1e-6)
    np.testing.assert_allclose(losses.returns_of_data(data, data.rewards, 0.5, "mean_reward"), on, rtol=1e-6)


def test_a_terminal_that_is_also_a_timeout_is_worth_nothing_beyond():
    both = np.array([False, True])
    data = one_step_transitions(2, rewards=np.float32([1, 1]), terminals=both, timeouts=both)
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
    data = one_step_transitions(16, terminals=np.arange(16) % 4 == 3, timeouts=np.arange(16) == 9)
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


def test_target_critics_follow_slowly():
    cal_ql = make_cal_ql(UNIT, SMALL)
    experience = cal_ql.prepare(one_step_transitions())
    before = jax.jit(cal_ql.init)(jax.random.key(0), experience)
    after, _ = jax.jit(cal_ql.update)(jax.random.key(1), before, experience)
    parts = (before.target_critics, after.networks.critics, after.target_critics)
    for old, new, target in zip(*map(jax.tree.leaves, parts), strict=True):
        assert (old != new).any()
        np.testing.assert_allclose(target, 0.995 * old + 0.005 * new, rtol=1e-5, atol=1e-7)


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
        make_cal_ql(UNIT, SMALL).prepare(one_step_transitions(**changes))


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
