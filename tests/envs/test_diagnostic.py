"""The diagnostic environments return what they say."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs.diagnostic import Countdown
from hades.types import Environment

Policy = Callable[[jax.Array, jax.Array], jax.Array]


def returns(environment: Environment, policy: Policy, num_episodes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns, lengths, and whether it was a termination, of whole episodes, cut after the fact."""

    def episode(key: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        def advance(carry: Any, step: jax.Array) -> tuple[Any, Any]:
            state, observation = carry
            action_key, step_key = jax.random.split(jax.random.fold_in(key, step))
            out = environment.step(step_key, state, policy(action_key, observation))
            return (out.state, out.observation), (out.reward, out.terminated, out.truncated)

        return jax.lax.scan(advance, environment.reset(key), jnp.arange(environment.max_steps))[1]

    keys = jax.random.split(jax.random.key(0), num_episodes)
    rewards, terminated, truncated = jax.tree.map(np.asarray, jax.jit(jax.vmap(episode))(keys))
    last = np.argmax(terminated | truncated, axis=1)
    every = np.arange(num_episodes)
    assert (terminated | truncated)[every, last].all()
    within = np.arange(environment.max_steps) <= last[:, None]
    return np.where(within, rewards, 0).sum(axis=1), last + 1, terminated[every, last]


def zero(key: jax.Array, observation: jax.Array) -> jax.Array:
    return jnp.zeros((), jnp.int32)


def constant(value: float) -> Policy:
    return lambda key, seen: jnp.full(seen.shape, value)


@pytest.mark.parametrize("option", ["length", "max_steps"])
def test_fixed_length(option: str) -> None:
    environment = envs.make("diagnostic/fixed-length", **{option: 6})
    assert dict(environment.options) == {"length": 6}
    total, length, terminated = returns(environment, zero, 4)
    assert (total == 6).all() and (length == 6).all() and not terminated.any()
    with pytest.raises(ValueError, match="not both"):
        envs.make("diagnostic/fixed-length", length=3, max_steps=3)


def test_countdown_terminates_when_its_first_observation_says() -> None:
    environment = Countdown(longest=5)
    total, length, terminated = returns(environment, zero, 64)
    _, first = jax.vmap(environment.reset)(jax.random.split(jax.random.key(0), 64))
    np.testing.assert_array_equal(total, first[:, 0])
    np.testing.assert_array_equal(length, first[:, 0])
    assert terminated.all() and set(total) == {1, 2, 3, 4, 5}


def test_countdown_is_truncated_below_its_longest() -> None:
    total, _, terminated = returns(Countdown(longest=5, max_steps=3), zero, 64)
    assert set(total) == {1, 2, 3}
    assert (total[~terminated] == 3).all() and not terminated.all()
    assert (total[terminated] == 3).any()


def test_target() -> None:
    environment = envs.make("diagnostic/target", max_steps=2)
    total, length, terminated = returns(environment, lambda key, seen: seen / 2, 16)
    assert (total == 0).all() and (length == 2).all() and not terminated.any()
    idle, _, _ = returns(environment, lambda key, seen: jnp.zeros(2), 4096)
    np.testing.assert_allclose(idle.mean(), -2 * 2 / 12, atol=0.01)
    far, near = (returns(environment, constant(value), 8)[0] for value in (50.0, 1.0))
    np.testing.assert_allclose(far, near, rtol=1e-6)


def test_match() -> None:
    environment = envs.make("diagnostic/match", num_actions=4, max_steps=8)
    best, _, terminated = returns(environment, lambda key, seen: jnp.argmax(seen), 16)
    assert (best == 8).all() and not terminated.any()
    blind, _, _ = returns(environment, lambda key, seen: jax.random.randint(key, (), 0, 4), 2048)
    np.testing.assert_allclose(blind.mean(), 8 / 4, atol=0.1)


def test_nan() -> None:
    environment = envs.make("diagnostic/nan", max_steps=3)
    assert (returns(environment, zero, 4)[0] == 3).all()
    total, _, _ = returns(environment, lambda key, seen: (seen[0] > 0).astype(jnp.int32), 32)
    _, first = jax.vmap(environment.reset)(jax.random.split(jax.random.key(0), 32))
    np.testing.assert_array_equal(np.isnan(total), first[:, 0] > 0)


@pytest.mark.parametrize("option", [{"num_actions": 0}, {"num_actions": 2.0}, {"max_steps": 0}])
def test_options_must_be_counts(option: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(option))} of .* must be a whole number of at least 1"):
        envs.make("diagnostic/match", **option)


def test_endless_is_only_ever_truncated() -> None:
    total, length, terminated = returns(envs.make("diagnostic/endless", max_steps=3), zero, 4)
    assert (total == 3).all() and (length == 3).all() and not terminated.any()
    _, _, terminated = returns(envs.make("diagnostic/endless"), zero, 4)
    assert not terminated.any()


def test_endless_looks_the_same_at_every_step() -> None:
    environment = envs.make("diagnostic/endless")
    state, first = environment.reset(jax.random.key(0))
    for step in range(environment.max_steps):
        out = environment.step(jax.random.key(step), state, jnp.int32(step % 2))
        state = out.state
        np.testing.assert_array_equal(out.observation, first)


def test_delayed_pays_for_the_first_action_at_the_end() -> None:
    environment = envs.make("diagnostic/delayed", max_steps=3)
    right, length, terminated = returns(environment, lambda key, seen: jnp.argmax(seen), 16)
    assert (right == 1).all() and (length == 3).all() and terminated.all()
    wrong, _, _ = returns(environment, lambda key, seen: jnp.argmin(seen), 16)
    assert (wrong == 0).all()
    blind, _, _ = returns(environment, lambda key, seen: jax.random.randint(key, (), 0, 2), 2048)
    np.testing.assert_allclose(blind.mean(), 0.5, atol=0.05)


def test_delayed_hides_what_was_earned() -> None:
    environment = envs.make("diagnostic/delayed", max_steps=3)
    state, shown = environment.reset(jax.random.key(0))
    first, second = (environment.step(jax.random.key(1), state, action) for action in jnp.arange(2))
    assert float(shown.sum()) == 1 and float(first.state.earned) != float(second.state.earned)
    assert float(first.reward) == float(second.reward) == 0
    np.testing.assert_array_equal(first.observation, jnp.zeros(2))
    np.testing.assert_array_equal(first.observation, second.observation)
