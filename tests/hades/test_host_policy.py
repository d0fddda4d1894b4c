"""Policies of the host: actions of one environment and of vectors, memory, and the protocol of stable-baselines3."""

from __future__ import annotations

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from hades import policies
from hades.evaluation import evaluate
from hades.host_policy import HostPolicy, load_policy
from hades.inner.cloning import CloningSettings
from hades.metadata import FileMetadata
from hades.normalization import Normalizer, PolicyParams, RunningStatistics
from hades.policy_file import PolicyFileError, TrainedPolicy
from hades.types import Continuous
from tests.helpers import Walk

ENV = Walk()
POLICY = policies.mlp(ENV, (4,))
NETWORK = jax.tree.map(lambda leaf: leaf + 0.3, POLICY.init(jax.random.key(0)))
OBSERVATIONS = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)


def host(kind: str = "none", **options: object) -> HostPolicy:
    fixed = (jnp.full(2, 0.5), jnp.full(2, 2.0)) if kind == "fixed" else ()
    return HostPolicy(POLICY, PolicyParams(NETWORK, Normalizer(kind, *fixed)), ENV, **options)


def clipped_modes(observations: np.ndarray) -> np.ndarray:
    space = ENV.action_space
    return np.clip(POLICY.apply(NETWORK, observations).mode(), space.low, space.high)


def test_modes_of_one_environment_and_of_a_vector() -> None:
    policy = host("fixed")
    together = policy(OBSERVATIONS)
    np.testing.assert_allclose(together, clipped_modes((OBSERVATIONS - 0.5) / 2), atol=1e-6)
    alone = policy(OBSERVATIONS[3])
    assert alone.shape == (1,)
    np.testing.assert_allclose(alone, together[3], atol=1e-6)
    far = policy(np.full(2, 1e3))
    assert ENV.action_space.low <= tuple(far) <= ENV.action_space.high


def test_samples_follow_the_seed_and_the_steps() -> None:
    first, second = (host(action_selection="sample", seed=5) for _ in range(2))
    ones, twos = ([policy(OBSERVATIONS) for _ in range(2)] for policy in (first, second))
    np.testing.assert_array_equal(ones, twos)
    assert not np.allclose(ones[0], ones[1])
    assert len(np.unique(ones[0])) > 1
    assert not np.allclose(host(action_selection="sample", seed=6)(OBSERVATIONS), ones[0])


def test_running_statistics_are_those_of_each_environment() -> None:
    def expected(episode: np.ndarray) -> np.ndarray:
        statistics = RunningStatistics.empty((2,), prior_count=1e-4)
        for observation in episode:
            statistics = statistics.update(jnp.asarray(observation)[None], jnp.ones(1, bool))
        return clipped_modes(statistics.apply(jnp.asarray(episode[-1])))

    policy = host("running")
    for observations in (OBSERVATIONS[:2], OBSERVATIONS[2:4]):
        actions = policy(observations)
    np.testing.assert_allclose(actions[0], expected(OBSERVATIONS[[0, 2]]), atol=1e-4)
    policy.reset()
    policy(OBSERVATIONS[5])
    np.testing.assert_allclose(policy(OBSERVATIONS[4]), expected(OBSERVATIONS[[5, 4]]), atol=1e-4)

    _, state = policy.predict(OBSERVATIONS[:2], None, np.array([True, True]))
    _, state = policy.predict(OBSERVATIONS[2:4], state, np.array([False, True]))
    actions, _ = policy.predict(OBSERVATIONS[4:6], state, np.array([False, False]))
    np.testing.assert_allclose(actions[0], expected(OBSERVATIONS[[0, 2, 4]]), atol=1e-4)
    np.testing.assert_allclose(actions[1], expected(OBSERVATIONS[[3, 5]]), atol=1e-4)


def test_another_number_of_environments_is_refused_where_statistics_run_on() -> None:
    policy = host("running")
    policy(OBSERVATIONS[:2])
    with pytest.raises(ValueError, match=r"as in the last call, 2, got 3; reset\(\) begins anew"):
        policy(OBSERVATIONS[:3])
    policy.reset()
    assert policy(OBSERVATIONS[:3]).shape == (3, 1)
    with pytest.raises(ValueError, match="as many as there are starts, 2"):
        host().predict(OBSERVATIONS[:3], episode_start=np.ones(2, bool))


def test_predict_has_the_signature_of_stable_baselines3() -> None:
    """As in `stable_baselines3.common.type_aliases.PolicyPredictor` 2.9, but that the mode is the default."""
    parameters = list(inspect.signature(host().predict).parameters.values())
    assert [parameter.name for parameter in parameters] == ["observation", "state", "episode_start", "deterministic"]
    assert [parameter.default for parameter in parameters[1:]] == [None, None, True]
    actions, state = host().predict(OBSERVATIONS, state=None, episode_start=np.ones(6, bool), deterministic=False)
    assert actions.shape == (6, 1) and state is None


def test_observations_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"observation: expected shape \(2,\), or \(envs, \*\(2,\)\), got \(3,\)"):
        host()(np.zeros(3))


def test_equal_policies_compile_once() -> None:
    before = host()._act
    assert host("fixed", seed=3)._act is before


def test_loaded_policy_plays_the_returns_of_evaluation(tmp_path) -> None:
    """In an environment without random numbers, every episode is the same."""
    settings = CloningSettings(hidden_sizes=(4,))
    metadata = FileMetadata(
        env=ENV.name, max_episode_steps=12, method="by hand", observation_normalization="none", action_selection="mode",
        cloning=settings,
    )  # fmt: skip
    trained = TrainedPolicy(PolicyParams(NETWORK), metadata, policies.PolicySpaces.of(ENV))
    trained.save(tmp_path / "policy.npz")
    policy = load_policy(tmp_path / "policy.npz")
    assert policy.spaces == policies.PolicySpaces((2,), Continuous((-1.0,), (3.0,)))
    env = envs.to_gymnasium(ENV)
    observation, _ = env.reset(seed=0)
    total, ended = 0.0, False
    while not ended:
        observation, reward, terminated, truncated, _ = env.step(policy(observation))
        total, ended = total + reward, terminated or truncated
    expected = evaluate(jax.random.key(0), ENV, POLICY, PolicyParams(NETWORK), 1, "mode")
    assert total == pytest.approx(expected.mean, abs=1e-5)


def test_loading_without_spaces_needs_an_environment(tmp_path) -> None:
    metadata = FileMetadata(
        env=ENV.name, max_episode_steps=12, method="by hand", observation_normalization="none", action_selection="mode",
        cloning=CloningSettings(hidden_sizes=(4,)),
    )  # fmt: skip
    TrainedPolicy(PolicyParams(NETWORK), metadata).save(tmp_path / "policy.npz")
    with pytest.raises(PolicyFileError, match=r"policy\.npz: spaces: missing, expected the environment"):
        load_policy(tmp_path / "policy.npz")
    np.testing.assert_allclose(load_policy(tmp_path / "policy.npz", ENV)(OBSERVATIONS), host()(OBSERVATIONS))
    with pytest.raises(PolicyFileError, match=r"policy\.npz: params: expected shapes .* for diagnostic/match"):
        load_policy(tmp_path / "policy.npz", envs.make("diagnostic/match"))


@pytest.mark.slow
def test_evaluate_policy_of_stable_baselines3_gives_our_returns() -> None:
    evaluation = pytest.importorskip("stable_baselines3.common.evaluation")
    vectors = pytest.importorskip("stable_baselines3.common.vec_env")
    env = envs.make("gymnax/CartPole-v1", max_steps=60)
    network = policies.mlp(env, (8,))
    params = PolicyParams(jax.tree.map(lambda leaf: 3 * leaf, network.init(jax.random.key(3))))
    ours = evaluate(jax.random.key(1), env, network, params, 200, "mode")
    for kind in ("none", "running"):
        policy = HostPolicy(network, PolicyParams(params.network, Normalizer(kind)), env)
        vector = vectors.DummyVecEnv([lambda: envs.to_gymnasium(env)] * 4)
        vector.seed(0)
        returns, lengths = evaluation.evaluate_policy(policy, vector, 200, return_episode_rewards=True, warn=False)
        assert returns == lengths and len(returns) >= 200
        if kind == "none":
            low, high = ours.ci95
            margin = 2 * (high - low)
            assert low - margin < np.mean(returns) < high + margin
