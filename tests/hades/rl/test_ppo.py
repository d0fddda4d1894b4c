"""PPO: small tasks that it must solve, one for each way of failing; its state, its metrics and its settings."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
import hades
from envs.diagnostic import Countdown, Delayed, Endless, Match, Nan, Target
from hades._serialization import from_dict, to_dict
from hades.normalization import Normalizer
from hades.policies import NetworkSettings
from hades.recipes.published import ppo_brax, ppo_cartpole, ppo_minatar
from hades.rl.experience import substitute
from hades.rl.ppo import Hyperparameters, PPOSettings, make_ppo
from tests.helpers import Watched

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


@pytest.mark.parametrize("normalization", [pytest.param("fixed", marks=pytest.mark.slow), "running"])
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


@pytest.mark.slow
def test_minimal_deviation_bounds_the_gain_on_what_stands_still():
    settings = dataclasses.replace(SMALL, observation_normalization="running", min_std=0.5)
    ppo, state, _ = train(Endless(), settings, 2)
    np.testing.assert_allclose(ppo.params(state).normalizer.std, 0.5)
    np.testing.assert_allclose(ppo.params(state).normalizer.mean, 1.0, rtol=1e-5)


def faulty(probability, reward=np.nan, max_steps=10):
    """Match with rewards that are now and then something else, independently at every step."""

    class Faulty(Match):
        def step(self, key, state, action):
            step = super().step(key, state, action)
            wrong = jax.random.uniform(jax.random.fold_in(key, 1)) < probability
            return step._replace(reward=jnp.where(wrong, reward, step.reward))

    return Faulty(max_steps=max_steps)


LARGE = dataclasses.replace(SMALL, num_envs=64, num_steps=32, num_minibatches=8)


@pytest.mark.parametrize(
    ("count", "reward"),
    [
        (2, np.nan),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [(10, np.nan), (10, np.inf), (10, 1e20), (200, np.nan)]
        ),
    ],
)
def test_a_step_that_is_not_finite_costs_itself_and_no_other(count, reward):
    env = faulty(count / LARGE.env_steps, reward)
    ppo, state, metrics = train(env, dataclasses.replace(LARGE, normalize_rewards=True), 30)
    np.testing.assert_allclose(metrics["masked_steps"].mean(), count, rtol=0.4)
    assert (metrics["skipped"] == 0).all()
    assert all(np.isfinite(values).all() for values in metrics.values())
    assert float(state.reward_statistics.variance) < 100
    params = ppo.params(state)
    assert hades.evaluate(jax.random.key(1), Match(max_steps=10), ppo.policy, params).mean > 9.5


@pytest.mark.slow
def test_parameters_stay_finite_where_half_of_the_rewards_are_not():
    _, state, metrics = train(Nan(), SMALL, 20)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((state.networks, state.optimizer)))
    assert metrics["non_finite"].min() > 0 and metrics["non_finite"].max() < SMALL.env_steps
    assert (metrics["masked_steps"] == metrics["non_finite"]).all() and (metrics["skipped"] == 0).all()
    assert all(np.isfinite(values).all() for values in metrics.values())


@pytest.mark.slow
def test_nothing_moves_where_no_step_counts():
    ppo, state, metrics = train(faulty(1.0), SMALL, 3)
    assert (metrics["masked_steps"] == SMALL.env_steps).all()
    assert (metrics["skipped"] == SMALL.num_epochs * SMALL.num_minibatches).all()
    first = jax.jit(ppo.init)(jax.random.key(0), Normalizer())
    jax.tree.map(np.testing.assert_array_equal, (state.networks, state.optimizer), (first.networks, first.optimizer))


def test_steps_that_do_not_count_are_replaced_by_those_that_do():
    valid = jnp.arange(100) % 10 != 0
    rows = jnp.stack([jax.random.permutation(jax.random.key(seed), 100) for seed in range(40)])
    found = np.asarray(substitute(jax.random.key(0), rows, valid))
    kept = np.asarray(valid)[rows]
    np.testing.assert_array_equal(found[kept], rows[kept])
    replaced = found[~kept]
    assert np.asarray(valid)[replaced].all() and len(np.unique(replaced)) > 80
    np.testing.assert_array_equal(substitute(jax.random.key(0), rows, jnp.zeros(100, bool)), rows)


@pytest.mark.slow
def test_learning_goes_on_where_simulators_diverge():
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
    ppo, state, metrics = train(Rare(), settings, 60)
    assert metrics["non_finite"].sum() > 30 and (metrics["skipped"] == 0).all()
    assert (metrics["masked_steps"] == metrics["non_finite"]).all()
    params = hades.PolicyParams(state.networks.actor, ppo.params(state).normalizer)
    assert hades.evaluate(jax.random.key(1), Match(), ppo.policy, params).mean > 9


def single_runs_and_batched(ppo, keys, hyperparameters, num_updates=2):
    start = jax.jit(jax.vmap(lambda key, hyperparameters: ppo.init(key, Normalizer(), hyperparameters)))
    state = start(keys, hyperparameters)
    batched_step, single_step = jax.jit(jax.vmap(ppo.step)), jax.jit(ppo.step)
    singles = [jax.tree.map(lambda leaf, row=row: leaf[row], state) for row in range(len(keys))]
    for index in range(num_updates):
        step_keys = jax.vmap(lambda key, index=index: jax.random.fold_in(key, index))(keys)
        state, metrics = batched_step(step_keys, state)
        outcomes = [single_step(key, single) for key, single in zip(step_keys, singles, strict=True)]
        singles = [single for single, _ in outcomes]
    return state, metrics, singles, [single_metrics for _, single_metrics in outcomes]


@pytest.mark.slow
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


@pytest.mark.parametrize("preset", [ppo_cartpole, ppo_minatar, ppo_brax])
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
    with pytest.raises(ValueError, match="cnn needs observations"):
        make_ppo(Match(), dataclasses.replace(SMALL, network=NetworkSettings(policy="cnn")))


def test_cartpole_learns():
    network = NetworkSettings(hidden_sizes=(32, 32))
    settings = ppo_cartpole(network=network, num_envs=16, num_steps=64, learning_rate=5e-3, anneal_updates=20)
    ppo, state, _ = train(envs.make("gymnax/CartPole-v1"), settings, 20)
    # Random actions last 20 steps.
    assert mean_return(ppo, state) > 120


@pytest.mark.slow
def test_cartpole_preset_solves_it():
    settings = ppo_cartpole()
    ppo, state, _ = train(envs.make("gymnax/CartPole-v1"), settings, settings.anneal_updates)
    assert mean_return(ppo, state) >= 490
