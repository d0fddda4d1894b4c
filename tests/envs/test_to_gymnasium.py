"""Environments as gymnasium's: its checker, and the returns of the environments themselves."""

from __future__ import annotations

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.utils import seeding
from gymnasium.utils.env_checker import check_env

import envs
from tests.helpers import OnHost, Walk

NAMES = (
    "diagnostic/match",
    "gymnax/CartPole-v1",
    "gymnax/Breakout-MinAtar",
    "gymnax/Pendulum-v1",
    pytest.param("brax/inverted_pendulum", marks=pytest.mark.slow),
    pytest.param("brax/hopper", marks=pytest.mark.slow),
)


@pytest.mark.filterwarnings("ignore:.*we recommend using a symmetric")
@pytest.mark.filterwarnings("ignore:.*A Box observation space (min|max)imum value is -?infinity")
@pytest.mark.parametrize("name", NAMES)
def test_the_checker_of_gymnasium_finds_nothing(name: str) -> None:
    options = {"backend": "spring"} if name.startswith("brax/") else {}
    check_env(envs.to_gymnasium(envs.make(name, **options)), skip_render_check=True)


@pytest.mark.parametrize("name", NAMES)
def test_episodes_are_those_of_the_environment(name: str) -> None:
    options = {"backend": "spring"} if name.startswith("brax/") else {}
    env = envs.make(name, max_steps=30, **options)
    wrapped = envs.to_gymnasium(env)
    wrapped.action_space.seed(0)
    numbers, _ = seeding.np_random(11)
    reset, step = jax.jit(env.reset), jax.jit(env.step)
    for seed in (11, None):
        observation, info = wrapped.reset(seed=seed)
        key = jax.random.key(np.uint32(numbers.integers(2**32)))
        state, expected = reset(jax.random.fold_in(key, 0))
        np.testing.assert_allclose(observation, expected, atol=1e-5)
        assert info == {} and wrapped.observation_space.contains(observation)
        for time in range(1, 31):
            action = wrapped.action_space.sample()
            observation, reward, terminated, truncated, info = wrapped.step(action)
            raw = step(jax.random.fold_in(key, time), state, jnp.asarray(action))
            state = raw.state
            np.testing.assert_allclose(observation, raw.observation, atol=1e-4)
            assert reward == pytest.approx(float(raw.reward), abs=1e-4)
            assert (terminated, truncated) == (bool(raw.terminated), bool(raw.truncated))
            if terminated or truncated:
                break
        assert terminated or truncated
        with pytest.raises(gymnasium.error.ResetNeeded, match=f"{name}: expected reset before step"):
            wrapped.step(action)


def test_equal_seeds_give_equal_episodes_and_others_do_not() -> None:
    wrapped = envs.to_gymnasium(envs.make("gymnax/CartPole-v1"))
    first, again, other, later = (wrapped.reset(seed=seed)[0] for seed in (3, 3, 4, None))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other) and not np.allclose(other, later)


def test_environment_on_the_host_plays_like_the_one_in_jax() -> None:
    inside, outside = (envs.to_gymnasium(env) for env in (Walk(), OnHost()))
    for wrapped in (inside, outside):
        wrapped.reset(seed=0)
    ended = False
    while not ended:
        ours, theirs = inside.step(np.array([0.1])), outside.step(np.array([0.1]))
        np.testing.assert_allclose(ours[0], theirs[0], atol=1e-6)
        assert ours[1:4] == pytest.approx(theirs[1:4])
        ended = ours[2] or ours[3]
    outside.reset()
    outside.close()
    outside.close()


def test_mujoco_is_that_of_gymnasium() -> None:
    pytest.importorskip("mujoco")
    wrapped = envs.to_gymnasium(envs.make("gymnasium/InvertedPendulum-v4", max_steps=20))
    numbers, _ = seeding.np_random(2)
    with pytest.warns(DeprecationWarning, match="out of date"):
        theirs = gymnasium.make("InvertedPendulum-v4", max_episode_steps=20)
    observation, _ = wrapped.reset(seed=2)
    expected, _ = theirs.reset(seed=int(numbers.integers(2**32)))
    np.testing.assert_allclose(observation, expected, atol=1e-6)
    ended = False
    while not ended:
        ours, raw = wrapped.step(np.array([0.5], np.float32)), theirs.step(np.array([0.5], np.float32))
        np.testing.assert_allclose(ours[0], raw[0], atol=1e-6)
        assert ours[1:4] == raw[1:4]
        ended = ours[2] or ours[3]


def test_environment_that_breaks_the_contract_is_refused() -> None:
    with pytest.raises(ValueError, match="env: expected an environment with a name"):
        envs.to_gymnasium(object())
