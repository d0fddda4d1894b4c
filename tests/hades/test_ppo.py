"""PPO: its formulas against NumPy, its bookkeeping against the environment, and small tasks that it must solve."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
import hades
from envs.diagnostic import Countdown, Delayed, Endless, FixedLength, Match, Nan, Target
from hades import policies
from hades.distributions import Categorical, DiagonalGaussian
from hades.normalization import Normalizer
from hades.rl.advantages import discounted_returns, generalized_advantages
from hades.rl.collection import begin, make_collect
from hades.rl.losses import Batch, ppo_loss
from hades.rl.ppo import Hyperparameters, PPOSettings, brax, cartpole, make_ppo, minatar
from hades.settings import NetworkSettings, from_dict, to_dict
from hades.types import Discrete
from tests.helpers import GoOn, Noisy, Watched

SMALL = PPOSettings(
    network=NetworkSettings(hidden_sizes=(16,)), num_envs=16, num_steps=8, learning_rate=0.01, entropy_coefficient=0.0
)


def train(env, settings, num_updates, seed=0, normalizer=None):
    """The run, its last state and the metrics of all updates, in one compiled scan."""
    ppo = make_ppo(env, settings)

    @jax.jit
    def run(key):
        state = ppo.init(key, normalizer or Normalizer(settings.observation_normalization))
        keys = jax.vmap(lambda index: jax.random.fold_in(key, index))(jnp.arange(num_updates))
        return jax.lax.scan(lambda state, key: ppo.step(key, state), state, keys)

    return ppo, *run(jax.random.key(seed))


def value(ppo, state, observation):
    seen = ppo.params(state).normalizer.apply(jnp.asarray(observation, jnp.float32))
    return float(ppo.critic.apply(state.networks.critic, seen))


def mean_return(ppo, state, num_episodes=64):
    key = jax.random.key(1234)
    return hades.evaluate(key, ppo.env, ppo.policy, ppo.params(state), num_episodes, ppo.settings.action_selection).mean


# Formulas


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


# Collection


def collect(env, num_steps, num_envs=6, seed=0):
    policy = policies.mlp(env, hidden_sizes=(8,))

    @jax.jit
    def play(key):
        params = policy.init(key)
        episodes = begin(key, env, num_envs)
        return params, make_collect(env, policy, num_envs, num_steps)(key, params, Normalizer(), episodes)

    params, (episodes, transitions) = play(jax.random.key(seed))
    return policy, params, episodes, jax.tree.map(np.asarray, transitions)


# A truncated episode of Noisy ends in an observation of NaN, from which nothing can be bootstrapped: a termination.
@pytest.mark.parametrize(
    ("env", "truncates"), [(Noisy(), False), (Countdown(longest=5, max_steps=4), True), (GoOn(max_steps=4), True)]
)
def test_episodes_begin_again_where_they_end_and_returns_are_those_of_episodes(env, truncates):
    policy, params, episodes, transitions = collect(env, num_steps=25)
    ended = transitions.terminated | transitions.truncated
    assert transitions.terminated.any() and transitions.truncated.any() == truncates
    assert transitions.diverged.any() != truncates
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


# Training


def test_value_constant_reward_one_step():
    ppo, state, _ = train(Countdown(longest=1), SMALL, 150)
    np.testing.assert_allclose(value(ppo, state, [1.0]), 1.0, atol=0.02)


def test_value_of_what_a_discount_brings_closer():
    settings = dataclasses.replace(SMALL, gamma=0.5, num_envs=32)
    ppo, state, _ = train(Countdown(longest=2), settings, 200)
    np.testing.assert_allclose([value(ppo, state, [left]) for left in (1.0, 2.0)], [1.0, 1.5], atol=0.03)


def test_value_beyond_truncation():
    env, settings = Endless(max_steps=5), dataclasses.replace(SMALL, gamma=0.8, gae_lambda=0.95)
    ppo, state, _ = train(env, settings, 300)
    # As a termination, truncation would leave the average over the steps of an episode.
    blind = np.mean([(1 - 0.8**left) / (1 - 0.8) for left in range(1, 6)])
    assert blind < 2.5
    np.testing.assert_allclose(value(ppo, state, [1.0]), 1 / (1 - 0.8), atol=0.1)


@pytest.mark.parametrize(("gae_lambda", "solved"), [(0.95, True), (0.0, False)])
def test_credit_for_an_action_that_is_paid_for_later(gae_lambda, solved):
    # The steps between look alike, so that only estimates that reach over them tell a right action from a wrong one.
    settings = dataclasses.replace(SMALL, num_envs=32, gae_lambda=gae_lambda)
    ppo, state, _ = train(Delayed(max_steps=4), settings, 60)
    score = mean_return(ppo, state, 256)
    assert score > 0.95 if solved else 0.3 < score < 0.7


@pytest.mark.parametrize("policy", ["mlp", "residual_mlp"])
def test_action_that_depends_on_what_is_seen_discrete(policy):
    network = NetworkSettings(policy=policy, hidden_sizes=(16, 16))
    ppo, state, metrics = train(Match(num_actions=3, max_steps=10), dataclasses.replace(SMALL, network=network), 60)
    assert mean_return(ppo, state) > 9.5
    assert metrics["fitness_mean"][0] < 6 and metrics["fitness_mean"][-1] > 9


def test_action_that_depends_on_what_is_seen_continuous():
    settings = dataclasses.replace(SMALL, num_envs=64, action_selection="mode", anneal_updates=200)
    ppo, state, _ = train(Target(action_dim=2), settings, 200)
    # Always answering 0 costs 1/6.
    assert mean_return(ppo, state, 256) > -0.02


@pytest.mark.parametrize("normalization", ["fixed", "running"])
def test_normalised_observations_and_rewards(normalization):
    @dataclasses.dataclass(frozen=True)
    class Shifted(Match):
        """Match in units that no network likes, and worth thousands."""

        def reset(self, key):
            state, observation = super().reset(key)
            return state, 1000 + 50 * observation

        def step(self, key, state, action):
            step = super().step(key, state, action)
            return step._replace(observation=1000 + 50 * step.observation, reward=5000 * step.reward)

    env = Shifted()
    settings = dataclasses.replace(SMALL, observation_normalization=normalization, normalize_rewards=True)
    normalizer = None
    if normalization == "fixed":
        normalizer = hades.recipes.measure_statistics(jax.random.key(1), env, settings.statistics_episodes)
    ppo, state, _ = train(env, settings, 80, normalizer=normalizer)
    assert mean_return(ppo, state) > 9.5 * 5000
    played = ppo.params(state).normalizer
    assert played.kind == "fixed"
    np.testing.assert_allclose(played.mean, 1000 + 50 / 3, atol=2)
    np.testing.assert_allclose(played.std, 50 * np.sqrt(2) / 3, rtol=0.1)
    # Scaled by the deviation of the discounted return, values are of the size of a few units.
    assert abs(value(ppo, state, [1050.0, 1000.0, 1000.0])) < 100


def test_minimal_deviation_bounds_the_gain_on_what_stands_still():
    settings = dataclasses.replace(SMALL, observation_normalization="running", min_std=0.5)
    ppo, state, _ = train(Endless(), settings, 2)
    np.testing.assert_allclose(ppo.params(state).normalizer.std, 0.5)
    np.testing.assert_allclose(ppo.params(state).normalizer.mean, 1.0, rtol=1e-5)


def test_what_is_not_finite_never_reaches_the_parameters():
    ppo, state, metrics = train(Nan(), SMALL, 20)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((state.networks, state.optimizer)))
    assert metrics["non_finite"].min() > 0 and metrics["non_finite"].max() < SMALL.env_steps
    assert (metrics["skipped"] == SMALL.num_epochs * SMALL.num_minibatches).all()
    assert all(np.isfinite(values).all() for values in metrics.values())
    first = jax.jit(ppo.init)(jax.random.key(0), Normalizer())
    jax.tree.map(np.testing.assert_array_equal, state.networks, first.networks)


def test_an_update_after_one_that_is_not_finite_learns():
    @dataclasses.dataclass(frozen=True)
    class Rare(Match):
        """Match, one step of a hundred of which diverges for the rest of its episode."""

        def step(self, key, state, action):
            step = super().step(key, state, action)
            broken = (jax.random.uniform(jax.random.fold_in(key, 1)) < 0.01) | ~jnp.isfinite(state.observation[0])
            observation = jnp.where(broken, jnp.nan, step.observation)
            state = step.state._replace(observation=observation)
            reward = jnp.where(broken, jnp.inf, step.reward)
            return step._replace(state=state, observation=observation, reward=reward)

    settings = dataclasses.replace(SMALL, observation_normalization="running", num_minibatches=8)
    ppo, state, metrics = train(Rare(), settings, 200)
    assert metrics["non_finite"].sum() > 100 and 0 < metrics["skipped"].mean() < 32
    params = hades.PolicyParams(state.networks.actor, ppo.params(state).normalizer)
    assert hades.evaluate(jax.random.key(1), Match(), ppo.policy, params).mean > 9


# States


def single_runs_and_batched(ppo, keys, hyperparameters, num_updates=2):
    start = jax.jit(lambda inputs: jax.lax.map(lambda pair: ppo.init(pair[0], Normalizer(), pair[1]), inputs))
    state = start((keys, hyperparameters))
    batched_step, single_step = jax.jit(jax.vmap(ppo.step)), jax.jit(ppo.step)
    singles = [jax.tree.map(lambda leaf, row=row: leaf[row], state) for row in range(len(keys))]
    for index in range(num_updates):
        step_keys = jax.vmap(lambda key, index=index: jax.random.fold_in(key, index))(keys)
        state, metrics = batched_step(step_keys, state)
        outcomes = [single_step(key, single) for key, single in zip(step_keys, singles, strict=True)]
        singles = [single for single, _ in outcomes]
    return state, metrics, singles, [single_metrics for _, single_metrics in outcomes]


def test_seeds_and_learning_rates_run_side_by_side():
    ppo = make_ppo(Match(), SMALL)
    base = Hyperparameters.from_settings(SMALL)
    keys = jnp.stack([jax.random.key(seed) for seed in (0, 0, 1, 1)])
    hyperparameters = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (4,)), base)
    hyperparameters = dataclasses.replace(hyperparameters, learning_rate=jnp.array([0.01, 0.001, 0.01, 0.001]))
    with jax.default_matmul_precision("highest"):
        state, metrics, singles, single_metrics = single_runs_and_batched(ppo, keys, hyperparameters)
    for row in range(4):
        for batched, single in ((state.networks, singles[row].networks), (metrics, single_metrics[row])):
            jax.tree.map(
                lambda left, right, row=row: np.testing.assert_allclose(left[row], right, rtol=1e-4, atol=1e-5),
                batched,
                single,
            )
    kernels = state.networks.actor["head"]["kernel"]
    assert all(np.abs(kernels[a] - kernels[b]).max() > 1e-3 for a, b in ((0, 1), (0, 2), (2, 3)))


def test_a_step_is_a_function_of_key_and_state_and_traces_once():
    watched = Watched(Match())
    ppo = make_ppo(watched, dataclasses.replace(SMALL, observation_normalization="running", normalize_rewards=True))
    step = jax.jit(ppo.step)
    state = jax.jit(ppo.init)(jax.random.key(0), Normalizer("running"))
    first, _ = step(jax.random.key(1), state)
    traces = watched.traces
    saved = jax.tree.map(np.asarray, first)
    second, metrics = step(jax.random.key(2), first)
    again, metrics_again = step(jax.random.key(2), jax.tree.map(jnp.asarray, saved))
    assert traces >= 1 and watched.traces == traces
    jax.tree.map(np.testing.assert_array_equal, (second, metrics), (again, metrics_again))
    assert int(second.update) == 2


def test_metrics_are_scalars_that_say_what_happened():
    _, state, metrics = train(Match(max_steps=20), SMALL, 3)
    assert metrics["env_steps"].dtype == metrics["non_finite"].dtype == jnp.int32
    assert (
        (metrics["env_steps"] == 128).all() and (metrics["non_finite"] == 0).all() and (metrics["skipped"] == 0).all()
    )
    assert all(values.shape == (3,) for values in metrics.values())
    # Eight steps a time: after two updates no episode of twenty has ended, after the third all have.
    assert metrics["fitness_best"][1] <= 16 and (state.episodes.last_lengths == 20).all()
    np.testing.assert_allclose(metrics["fitness_mean"][-1], np.mean(state.episodes.last_returns), rtol=1e-6)
    np.testing.assert_allclose(metrics["fitness_std"][-1], np.std(state.episodes.last_returns), rtol=1e-5)
    assert metrics["fitness_worst"][-1] == state.episodes.last_returns.min()
    np.testing.assert_allclose(metrics["entropy"][0], np.log(3), atol=0.05)
    assert (metrics["approx_kl"] >= 0).all() and metrics["approx_kl"].max() < 0.1


def test_the_learning_rate_falls_to_zero_and_nothing_moves_after():
    ppo = make_ppo(Match(), dataclasses.replace(SMALL, anneal_updates=2))
    step, states, rates = jax.jit(ppo.step), [jax.jit(ppo.init)(jax.random.key(0), Normalizer())], []
    for index in range(3):
        state, metrics = step(jax.random.key(index), states[-1])
        states.append(state)
        rates.append(metrics["learning_rate"])
    np.testing.assert_allclose(rates, [0.01, 0.005, 0.0], rtol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, states[3].networks, states[2].networks)
    head = [state.networks.actor["head"]["kernel"] for state in states]
    assert np.abs(head[2] - head[1]).max() > 0


def test_the_gradient_of_both_networks_is_clipped_together():
    """Adam hides the scale of gradients, but not behind an epsilon that is far larger than they are."""
    settings = dataclasses.replace(SMALL, num_epochs=1, num_minibatches=1, adam_eps=1e6, learning_rate=1e6)
    moved = {}
    for limit in (None, 0.01):
        ppo = make_ppo(Match(), dataclasses.replace(settings, max_grad_norm=limit))
        state = jax.jit(ppo.init)(jax.random.key(0), Normalizer())
        after, _ = jax.jit(ppo.step)(jax.random.key(1), state)
        changes = jax.tree.map(lambda new, old: np.asarray(new - old).ravel(), after.networks, state.networks)
        moved[limit] = np.linalg.norm(np.concatenate(jax.tree.leaves(changes)))
    assert moved[None] > 0.1
    np.testing.assert_allclose(moved[0.01], 0.01, rtol=0.02)


# Settings


@pytest.mark.parametrize("preset", [cartpole, minatar, brax])
def test_presets_are_settings_that_files_can_hold(preset):
    settings = preset(gamma=0.9)
    assert settings.gamma == 0.9 and hash(settings) == hash(preset(gamma=0.9))
    assert from_dict(PPOSettings, to_dict(settings)) == settings


@pytest.mark.parametrize(
    ("field", "wrong", "message"),
    [
        ("num_envs", 0, "num_envs: expected a number above 0, got 0"),
        ("anneal_updates", -1, "anneal_updates: expected a number above 0"),
        ("gamma", 1.5, r"gamma: expected a number in \[0, 1\], got 1.5"),
        ("entropy_coefficient", -0.1, "entropy_coefficient: expected a number of at least 0"),
        ("num_minibatches", 3, r"num_minibatches: expected a divisor of num_envs \* num_steps = 128, got 3"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(field, wrong, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, **{field: wrong})


def test_a_normalizer_of_another_kind_is_refused():
    ppo = make_ppo(Match(), SMALL)
    with pytest.raises(ValueError, match="normalizer: expected one of kind none"):
        ppo.init(jax.random.key(0), Normalizer("running"))


def test_a_network_that_does_not_suit_the_environment_is_refused():
    spaces = SimpleNamespace(observation_shape=(2,), action_space=Discrete(2))
    with pytest.raises(ValueError, match="cnn needs observations"):
        make_ppo(spaces, dataclasses.replace(SMALL, network=NetworkSettings(policy="cnn")))


def test_cartpole_learns():
    settings = cartpole(num_envs=16, anneal_updates=20)
    ppo, state, _ = train(envs.make("gymnax/CartPole-v1"), settings, 20)
    # Random actions last 20 steps.
    assert mean_return(ppo, state) > 150


@pytest.mark.slow
def test_cartpole_preset_solves_it():
    settings = cartpole()
    ppo, state, _ = train(envs.make("gymnax/CartPole-v1"), settings, settings.anneal_updates)
    assert mean_return(ppo, state) >= 490
