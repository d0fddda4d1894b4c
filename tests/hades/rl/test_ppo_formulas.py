"""The formulas of PPO against NumPy, and its collection of transitions against the environment."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.diagnostic import Countdown, FixedLength
from hades import policies
from hades.distributions import Categorical, DiagonalGaussian
from hades.normalization import Normalizer
from hades.rl.advantages import discounted_returns, generalized_advantages
from hades.rl.experience import standardize_advantages
from hades.rl.losses import Batch, ppo_loss
from hades.rollouts.auto_reset import begin_episodes, make_auto_reset_rollout
from tests.helpers import GoOn, Noisy


def trajectories(seed=0, time=12, num_envs=5):
    generator = np.random.default_rng(seed)
    rewards, values, next_values = generator.normal(size=(3, time, num_envs))
    ends = generator.uniform(size=(time, num_envs))
    terminated, truncated = ends < 0.2, (ends >= 0.2) & (ends < 0.4)
    assert terminated[:-1].any() and truncated[:-1].any()
    return rewards, values, next_values, terminated, truncated


@pytest.mark.parametrize(("gamma", "gae_lambda"), [(0.9, 0.8), (1.0, 1.0), (0.99, 0.0)])
def test_advantages_are_those_of_a_loop_over_time(gamma, gae_lambda):
    rewards, values, next_values, terminated, truncated = trajectories()
    expected = np.zeros_like(rewards)
    for env in range(rewards.shape[1]):
        later = 0.0
        for time in reversed(range(rewards.shape[0])):
            bootstrap = 0.0 if terminated[time, env] else next_values[time, env]
            if terminated[time, env] or truncated[time, env]:
                later = 0.0
            later = rewards[time, env] + gamma * bootstrap - values[time, env] + gamma * gae_lambda * later
            expected[time, env] = later
    arguments = [jnp.asarray(array) for array in (rewards, values, next_values, terminated, truncated)]
    np.testing.assert_allclose(generalized_advantages(*arguments, gamma, gae_lambda), expected, rtol=1e-5, atol=1e-5)


def test_no_advantage_crosses_the_end_of_an_episode():
    rewards, values, next_values, terminated, truncated = trajectories()
    changed = rewards.copy()
    changed[6:] += 100.0
    before, after = (
        np.asarray(generalized_advantages(*map(jnp.asarray, (array, values, next_values, terminated, truncated)), 1, 1))
        for array in (rewards, changed)
    )
    cut = (terminated | truncated)[5]
    assert cut.any() and not cut.all()
    np.testing.assert_array_equal(before[5, cut], after[5, cut])
    assert (before[5, ~cut] != after[5, ~cut]).all()


def test_what_follows_a_termination_need_not_be_finite():
    ones, ends, never = jnp.ones((1, 2)), jnp.array([[True, False]]), jnp.zeros((1, 2), bool)
    advantages = generalized_advantages(ones, ones, jnp.array([[jnp.nan, 2.0]]), ends, never, 0.5, 0.9)
    np.testing.assert_allclose(advantages, [[0.0, 1.0]])


def test_a_step_that_does_not_count_ends_the_estimates_before_it_as_a_truncation_does():
    rewards, values, next_values, terminated, truncated = trajectories()
    valid = np.ones_like(terminated)
    valid[5, :3] = False
    broken = rewards.copy()
    broken[5, :3] = np.nan
    arguments = [jnp.asarray(array) for array in (broken, values, next_values, terminated, truncated)]
    found = np.asarray(generalized_advantages(*arguments, 0.9, 0.8, jnp.asarray(valid)))
    cut = truncated.copy()
    cut[4, :3] |= ~terminated[4, :3]
    arguments = [jnp.asarray(array) for array in (rewards, values, next_values, terminated, cut)]
    expected = np.where(valid, generalized_advantages(*arguments, 0.9, 0.8), 0.0)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("some", [False, True], ids=["all", "some"])
def test_standardized_advantages_are_those_of_numpy_over_the_steps_that_count(some):
    advantages = np.random.default_rng(2).normal(3.0, 4.0, (6, 5))
    valid = np.arange(30).reshape(6, 5) % 3 > 0 if some else np.ones((6, 5), bool)
    ones = jnp.ones((6, 5))
    batch = Batch(ones, ones, ones, ones, jnp.asarray(advantages), ones)
    found = np.asarray(standardize_advantages(batch, jnp.asarray(valid) if some else None).advantages)
    counted = advantages[valid]
    np.testing.assert_allclose(found[valid], (counted - counted.mean()) / counted.std(), rtol=1e-5, atol=1e-6)
    assert not found[~valid].any()


def test_discounted_returns_begin_again_after_an_episode():
    rewards, ended = jnp.array([[1.0], [2.0], [4.0]]), jnp.array([[False], [True], [False]])
    sums, after = discounted_returns(rewards, ended, jnp.array([8.0]), 0.5)
    np.testing.assert_allclose(sums[:, 0], [5.0, 4.5, 4.0])
    np.testing.assert_allclose(after, [4.0])


def numpy_losses(log_probs, entropies, values, batch, clip_range, value_clip_range):
    ratio = np.exp(log_probs - batch.log_probs)
    # Written as cases, where the loss is written as a minimum.
    gains = batch.advantages > 0
    stopped = np.where(gains, ratio > 1 + clip_range, ratio < 1 - clip_range)
    bound = np.where(gains, 1 + clip_range, 1 - clip_range)
    policy_loss = -np.mean(np.where(stopped, bound, ratio) * batch.advantages)
    errors = (values - batch.targets) ** 2
    if value_clip_range is not None:
        low, high = batch.values - value_clip_range, batch.values + value_clip_range
        errors = np.maximum(errors, (np.minimum(np.maximum(values, low), high) - batch.targets) ** 2)
    return {
        "policy_loss": policy_loss,
        "value_loss": errors.mean() / 2,
        "entropy": entropies.mean(),
        "approx_kl": np.mean(ratio - 1 - np.log(ratio)),
        "clip_fraction": np.mean((ratio > 1 + clip_range) | (ratio < 1 - clip_range)),
    }, stopped


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
@pytest.mark.parametrize("value_clip_range", [None, 0.3])
def test_losses_are_those_of_numpy(kind, value_clip_range):
    generator = np.random.default_rng(1)
    size, actions = 64, 3
    outputs = generator.normal(size=(size, actions))
    if kind == "discrete":
        chosen = generator.integers(0, actions, size)
        probabilities = np.exp(outputs) / np.exp(outputs).sum(axis=1, keepdims=True)
        log_probs, entropies = (
            np.log(probabilities)[np.arange(size), chosen],
            -(probabilities * np.log(probabilities)).sum(1),
        )
        distribution = Categorical(jnp.asarray(outputs))
    else:
        chosen, log_std = generator.normal(size=(size, actions)), np.array([0.1, -0.4, 0.0])
        log_probs = np.sum(
            -0.5 * ((chosen - outputs) / np.exp(log_std)) ** 2 - log_std - 0.5 * np.log(2 * np.pi), axis=1
        )
        entropies = np.full(size, np.sum(log_std + 0.5 * np.log(2 * np.pi * np.e)))
        distribution = DiagonalGaussian(jnp.asarray(outputs), jnp.asarray(log_std))
    values, old_values, advantages, targets = generator.normal(size=(4, size))
    batch = Batch(
        np.zeros(size), chosen, log_probs + 0.4 * generator.normal(size=size), old_values, advantages, targets
    )
    expected, stopped = numpy_losses(log_probs, entropies, values, batch, 0.2, value_clip_range)
    # Both sides of the clip are exercised.
    assert (stopped & (advantages > 0)).any() and (stopped & (advantages < 0)).any() and not stopped.all()
    loss, metrics = ppo_loss(
        distribution,
        jnp.asarray(values),
        jax.tree.map(jnp.asarray, batch),
        clip_range=0.2,
        value_clip_range=value_clip_range,
        entropy_coefficient=0.03,
        value_coefficient=0.7,
    )
    assert set(metrics) == set(expected)
    for name in expected:
        np.testing.assert_allclose(metrics[name], expected[name], rtol=1e-5, atol=1e-5, err_msg=name)
    total = expected["policy_loss"] + 0.7 * expected["value_loss"] - 0.03 * expected["entropy"]
    np.testing.assert_allclose(loss, total, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("advantage", "log_ratio"), [(1.0, 0.5), (-1.0, -0.5)])
def test_a_ratio_beyond_the_clip_has_no_gradient_where_it_would_gain(advantage, log_ratio):
    @jax.jit
    @jax.grad
    def gradient(logit, sign):
        zeros = jnp.zeros(1)
        distribution = Categorical(jnp.stack([logit, 0.0])[None])
        batch = Batch(zeros, jnp.array([0]), zeros + jnp.log(0.5) - log_ratio, zeros, zeros + sign * advantage, zeros)
        return ppo_loss(distribution, zeros, batch, clip_range=0.2)[0]

    assert gradient(0.0, 1.0) == 0
    assert abs(gradient(0.0, -1.0)) > 0.1


def test_gradients_are_finite_for_actions_that_were_nearly_impossible():
    def loss(logits):
        log_probs, advantages = jnp.array([-80.0, -1e-6]), jnp.array([1.0, -1.0])
        batch = Batch(jnp.zeros(2), jnp.array([0, 1]), log_probs, jnp.zeros(2), advantages, jnp.ones(2))
        return ppo_loss(Categorical(logits), jnp.zeros(2), batch, clip_range=0.2, entropy_coefficient=0.01)[0]

    gradient = jax.grad(loss)(jnp.array([[0.0, 50.0], [60.0, 0.0]]))
    assert np.isfinite(gradient).all() and np.abs(gradient).sum() > 0


def collect(env, num_steps, num_envs=6, seed=0):
    policy = policies.mlp(env, hidden_sizes=(8,))

    @jax.jit
    def play(key):
        params = policy.init(key)
        episodes = begin_episodes(key, env, num_envs)
        return params, make_auto_reset_rollout(env, policy, num_envs, num_steps)(key, params, Normalizer(), episodes)

    params, (episodes, transitions) = play(jax.random.key(seed))
    return policy, params, episodes, jax.tree.map(np.asarray, transitions)


@pytest.mark.parametrize("env", [Noisy(), Countdown(longest=5, max_steps=4), GoOn(max_steps=4)])
def test_episodes_begin_again_where_they_end_and_returns_are_those_of_episodes(env):
    policy, params, episodes, transitions = collect(env, num_steps=25)
    ended = transitions.terminated | transitions.truncated
    assert transitions.terminated.any() and transitions.truncated.any()
    assert not transitions.diverged.any()
    assert not (transitions.terminated & transitions.truncated).any()
    assert np.isfinite(transitions.rewards).all() and np.isfinite(transitions.observations).all()
    for index in range(ended.shape[1]):
        over = np.flatnonzero(ended[:, index])
        begins = np.concatenate([[0], over + 1])
        assert (np.diff(begins) <= env.max_steps).all()
        last = transitions.rewards[begins[-2] : begins[-1], index]
        np.testing.assert_allclose(episodes.last_returns[index], last.sum(), rtol=1e-5)
        assert episodes.last_lengths[index] == len(last)
        under_way = transitions.rewards[begins[-1] :, index]
        np.testing.assert_allclose(episodes.returns[index], under_way.sum(), rtol=1e-5, atol=1e-6)
        assert episodes.lengths[index] == len(under_way)
    goes_on = ~ended[:-1]
    np.testing.assert_array_equal(transitions.next_observations[:-1][goes_on], transitions.observations[1:][goes_on])
    log_probs = policy.apply(params, transitions.observations).log_prob(transitions.actions)
    np.testing.assert_allclose(transitions.log_probs, log_probs, rtol=1e-4, atol=1e-5)


def test_the_observation_that_an_episode_ends_in_is_its_own():
    _, _, _, transitions = collect(FixedLength(length=4), num_steps=10)
    ends = np.flatnonzero(transitions.truncated[:, 0])
    assert ends.tolist() == [3, 7]
    np.testing.assert_array_equal(transitions.next_observations[ends], 1.0)
    np.testing.assert_array_equal(transitions.observations[ends + 1], 0.0)
