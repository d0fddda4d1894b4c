"""The gymnax adapter against gymnax itself."""

import re
from typing import Any

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments import environment as gymnax_environment, spaces

import envs
from envs.gymnax import _REFUSED, _action_space
from hades.types import Continuous, Discrete, Environment

ALL = [name for name in envs.list_environments() if name.startswith("gymnax/")]


def random_action(key: jax.Array, environment: Environment, excess: float = 1.0) -> jax.Array:
    """A uniformly random action; with `excess` above 1, from a box that much larger than the environment's."""
    space = environment.action_space
    if isinstance(space, Discrete):
        return jax.random.randint(key, (), 0, space.num_actions)
    low, high = jnp.asarray(space.low), jnp.asarray(space.high)
    return excess * jax.random.uniform(key, low.shape, minval=low, maxval=high)


def play(environment: Environment, key: jax.Array, num_steps: int) -> dict[str, np.ndarray]:
    """Steps the adapter past every end, with random actions, and stacks what it shows."""

    def advance(state: Any, step: jax.Array) -> tuple[Any, dict[str, jax.Array]]:
        action_key, step_key = jax.random.split(jax.random.fold_in(key, step))
        out = environment.step(step_key, state, random_action(action_key, environment))
        return out.state, {**out._asdict(), "state": jnp.zeros(())}

    def run() -> dict[str, jax.Array]:
        state, observation = environment.reset(key)
        _, shown = jax.lax.scan(advance, state, jnp.arange(num_steps))
        return {**shown, "first": observation}

    return jax.tree.map(np.asarray, jax.jit(run)())


def test_the_list_is_what_gymnax_registers() -> None:
    registered = set(gymnax.registered_envs)
    assert {name.removeprefix("gymnax/") for name in ALL} | set(_REFUSED) == registered


@pytest.mark.parametrize("name", sorted(_REFUSED))
def test_the_refused_are_not_listed_and_say_why(name: str) -> None:
    assert f"gymnax/{name}" not in envs.list_environments()
    with pytest.raises(ValueError, match=re.escape(f"gymnax/{name} is not supported: {_REFUSED[name]}")):
        envs.make(f"gymnax/{name}")


@pytest.mark.parametrize("name", ALL)
def test_limits_are_gymnax_own_and_truncation_comes_exactly_then(name: str) -> None:
    raw, params = gymnax.make(name.removeprefix("gymnax/"))
    assert type(raw).is_truncated is gymnax_environment.Environment.is_truncated
    assert envs.make(name).max_steps == params.max_steps_in_episode
    shown = play(envs.make(name, max_steps=3), jax.random.key(3), 4)
    ended = np.cumsum(shown["terminated"]) > 0
    # SimpleBandit ends after its only step; everything else here outlives three random steps.
    assert list(ended) == ([True] * 4 if "SimpleBandit" in name else [False] * 4)
    assert list(shown["truncated"]) == ([False] * 4 if "SimpleBandit" in name else [False, False, True, True])
    assert np.isfinite(shown["observation"]).all() and np.isfinite(shown["reward"]).all()
    assert np.isfinite(shown["first"]).all()


@pytest.mark.parametrize("name", ["CartPole-v1", "Catch-bsuite", "DeepSea-bsuite", "Breakout-MinAtar"])
def test_steps_as_gymnax_does_through_a_termination(name: str) -> None:
    num_steps = {"CartPole-v1": 60, "Breakout-MinAtar": 40}.get(name, 9)
    environment = envs.make(f"gymnax/{name}")
    raw, params = gymnax.make(name)
    reset, step = jax.jit(environment.reset), jax.jit(environment.step)
    raw_step = jax.jit(raw.step_env)
    key = jax.random.key(5)
    (state, shown), (raw_shown, raw_state) = reset(key), raw.reset_env(key, params)
    np.testing.assert_array_equal(shown, raw_shown)
    for count in range(1, num_steps + 1):
        key, action_key, step_key = jax.random.split(key, 3)
        action = random_action(action_key, environment)
        state, shown, reward, terminated, truncated = step(step_key, state, action)
        raw_shown, raw_state, raw_reward, raw_terminated, _ = raw_step(step_key, raw_state, action, params)
        np.testing.assert_allclose(shown, raw_shown, rtol=1e-5, atol=1e-6)
        assert (float(reward), bool(terminated)) == (float(raw_reward), bool(raw_terminated))
        assert not truncated
        if terminated:
            # Gymnax's own `step` shows the first observation of a new episode here; the adapter, the last of this one.
            assert count < num_steps or name != "CartPole-v1"
            return
    pytest.fail("the episode never terminated")


@pytest.mark.parametrize("name", ["Pendulum-v1", "MountainCarContinuous-v0", "PointRobot-misc"])
def test_continuous_actions_are_clipped_and_an_episode_is_truncated(name: str) -> None:
    environment = envs.make(f"gymnax/{name}", max_steps=4)
    raw, params = gymnax.make(name)
    assert isinstance(environment.action_space, Continuous)
    low, high = (jnp.asarray(bound) for bound in (environment.action_space.low, environment.action_space.high))
    step, raw_step = jax.jit(environment.step), jax.jit(raw.step_env)
    key = jax.random.key(1)
    (state, _), (_, raw_state) = environment.reset(key), raw.reset_env(key, params)
    ends = []
    for _ in range(4):
        key, action_key, step_key = jax.random.split(key, 3)
        action = random_action(action_key, environment, excess=10)
        state, shown, reward, terminated, truncated = step(step_key, state, action)
        clipped = jnp.clip(action, low, high)
        raw_shown, raw_state, raw_reward, _, _ = raw_step(step_key, raw_state, clipped, params)
        np.testing.assert_allclose(shown, np.reshape(raw_shown, shown.shape), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(reward, np.reshape(raw_reward, ()), rtol=1e-5, atol=1e-6)
        ends.append((bool(terminated), bool(truncated)))
    assert ends == [(False, False)] * 3 + [(False, True)]


def test_an_end_at_the_limit_counts_as_termination() -> None:
    environment = envs.make("gymnax/DeepSea-bsuite")  # terminates after 8 steps, which is also its limit
    shown = play(environment, jax.random.key(0), 8)
    assert list(shown["terminated"]) == [False] * 7 + [True]
    assert not shown["truncated"].any()


def test_bounds_and_action_spaces() -> None:
    pendulum, robot = (envs.make(f"gymnax/{name}").action_space for name in ("Pendulum-v1", "PointRobot-misc"))
    assert pendulum == Continuous(low=(-2.0,), high=(2.0,))
    assert isinstance(robot, Continuous) and robot.action_dim == 2
    np.testing.assert_allclose(robot.high, 0.1, rtol=1e-6)
    assert envs.make("gymnax/SimpleBandit-bsuite").action_space == Discrete(11)
    assert _action_space("gymnax/x", spaces.Box(-1.0, 1.0, ())) == Continuous(low=(-1.0,), high=(1.0,))
    with pytest.raises(ValueError, match="gymnax/x is not supported: action component 0: expected finite bounds"):
        _action_space("gymnax/x", spaces.Box(-np.inf, np.inf, (2,)))
    with pytest.raises(ValueError, match="neither Discrete nor a Box"):
        _action_space("gymnax/x", spaces.Tuple((spaces.Discrete(2),)))
