"""The contract of an environment: sentences for what breaks it, casts for what may be cast, one trace."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from hades._environment_contract import ConformedEnvironment, conform
from hades.normalization import Normalizer
from hades.policies import uniform
from hades.rollouts import begin_episodes, make_auto_reset_rollout
from hades.testing import check_environment
from hades.types import Discrete, Environment, HostEnvironment, Step
from tests.helpers import GoOn, OnHost, Walk, Watched


@dataclass(frozen=True)
class Odd:
    """An environment of a user, one part of which is not as the contract says."""

    observation: Any = lambda: jnp.zeros(2)
    reward: Any = lambda: jnp.float32(1)
    done: Any = lambda: jnp.bool_(False)
    state: Any = lambda: jnp.int32(0)
    next_state: Any = None
    name: Any = "test/odd"
    options: Any = dataclasses.field(default_factory=dict, hash=False)
    observation_shape: Any = (2,)
    action_space: Any = Discrete(2)
    max_steps: Any = 5

    def reset(self, key: jax.Array) -> Any:
        return self.state(), self.observation()

    def step(self, key: jax.Array, state: Any, action: jax.Array) -> Any:
        after = (self.next_state or self.state)()
        return Step(after, self.observation(), self.reward(), self.done(), self.done())


class Untraceable(Odd):
    def step(self, key: jax.Array, state: Any, action: jax.Array) -> Any:
        return super().step(key, state, action) if action > 0 else None


class Tuple(Odd):
    def step(self, key: jax.Array, state: Any, action: jax.Array) -> Any:
        return tuple(super().step(key, state, action))


class NoPair(Odd):
    def reset(self, key: jax.Array) -> Any:
        return self.observation()


@pytest.mark.parametrize(
    ("env", "sentence"),
    [
        (Odd(lambda: jnp.zeros(3)), r"the observation of reset: expected an array of shape \(2,\), got .* \(3,\)"),
        (Odd(lambda: {"place": jnp.zeros(2)}), "the observation of reset: expected .* got a mapping with 'place'"),
        (Odd(lambda: jnp.zeros(2, jnp.complex64)), "the observation of reset: .* complex64"),
        (Odd(reward=lambda: jnp.ones(1)), r"reward: expected an array of shape \(\), got one of shape \(1,\)"),
        (Odd(done=lambda: jnp.zeros(1, bool)), r"terminated: expected an array of shape \(\), got one of shape \(1,\)"),
        (
            Odd(next_state=lambda: jnp.float32(0)),
            "state: expected step to keep shape .* int32 of reset, got .* float32",
        ),
        (Odd(next_state=lambda: (jnp.int32(0),)), "state: expected step to keep PyTreeDef.* of reset, got PyTreeDef"),
        (
            Odd(state=lambda: {"x": jnp.zeros(2)}, next_state=lambda: {"x": jnp.zeros(3)}),
            r"state\['x'\]: expected step to keep shape \(2,\)",
        ),
        (Untraceable(), "step: expected a function that JAX can trace, got TracerBoolConversionError"),
        (Tuple(), "step: expected a hades.Step, got a tuple of length 5"),
        (NoPair(), "reset: expected a pair of state and observation, got an array"),
        (Odd(observation_shape=()), r"observation_shape: expected at least one axis.*dataset file.*reshape"),
        (Odd(observation_shape=(2, 0)), "observation_shape: expected a tuple of lengths of at least 1"),
        (Odd(action_space="left"), "action_space: expected Discrete or Continuous, got 'left'"),
        (Odd(max_steps=0), "max_steps: expected a whole number of at least 1, got 0"),
        (Odd(options={"map": np.zeros(2)}), "options: expected values that JSON can hold"),
        (Odd(options={"rate": float("nan")}), "options: expected values that JSON can hold"),
        (Odd(options=[1]), "options: expected a mapping"),
    ],
)
def test_what_breaks_the_contract_is_named_in_a_sentence(env: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^test/odd: {sentence}") as error:
        conform(env)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=sentence):
        check_environment(env)


def test_missing_members_are_named() -> None:
    class Nothing:
        name, options, observation_shape = "test/nothing", {}, (1,)

    with pytest.raises(
        ValueError, match="test/nothing: expected the members .*none named action_space, max_steps, reset"
    ):
        conform(Nothing())  # type: ignore[type-var]
    with pytest.raises(ValueError, match="env: expected an environment with a name, got name None of object"):
        conform(object())  # type: ignore[type-var]


@pytest.mark.parametrize("done", [lambda: jnp.float32(1), lambda: jnp.int32(1), lambda: True, lambda: 1.0])
def test_flags_rewards_observations_and_weak_types_are_cast(done: Any) -> None:
    odd = Odd(lambda: jnp.ones(2, jnp.int8), lambda: 3, done, state=lambda: 0)
    env = conform(odd)
    assert isinstance(env, Environment) and not isinstance(env, HostEnvironment) and env.name == odd.name
    state, observation = env.reset(jax.random.key(0))
    step = env.step(jax.random.key(0), state, jnp.int32(0))
    assert (observation.dtype, step.observation.dtype, step.reward.dtype) == ("float32",) * 3
    assert (step.terminated.dtype, step.truncated.dtype) == ("bool", "bool") and bool(step.terminated)
    assert float(step.reward) == 3 and not state.weak_type and not step.state.weak_type
    assert conform(env) is env


def test_an_environment_that_conforms_is_returned_as_it_is() -> None:
    for env in (Walk(), OnHost(), envs.make("gymnax/CartPole-v1"), envs.make("diagnostic/nan")):
        assert conform(env) is env
        check_environment(env)
    assert isinstance(conform(GoOn()), ConformedEnvironment)


def test_rollouts_cast_what_an_environment_needs() -> None:
    env = GoOn()
    play = make_auto_reset_rollout(env, uniform(env), 2, 3)
    after, steps = play(jax.random.key(0), (), Normalizer(), begin_episodes(jax.random.key(1), env, 2))
    assert steps.terminated.dtype == bool and steps.observations.dtype == after.observations.dtype == jnp.float32


def test_equal_environments_are_traced_once() -> None:
    traces = []

    class Counted(Walk):
        def step(self, *arguments: Any) -> Step:
            traces.append(1)
            return super().step(*arguments)

    for _ in range(3):
        conform(Counted())
    assert len(traces) == 1
    conform(Counted(max_steps=3))
    assert len(traces) == 2
    watched = Watched(Walk())
    conform(watched)
    conform(watched)
    assert watched.traces == 1


def test_typed_keys_in_a_state_pass_through() -> None:
    env = conform(Odd(state=lambda: (jax.random.key(1), 0)))
    state, _ = env.reset(jax.random.key(0))
    assert jax.dtypes.issubdtype(state[0].dtype, jax.dtypes.prng_key)
    check_environment(env)


def test_episodes_must_depend_on_their_keys_alone() -> None:
    draws = iter(range(10**6))

    class Impure(Odd):
        def step(self, key: jax.Array, state: Any, action: jax.Array) -> Step:
            return super().step(key, state, action)._replace(reward=jnp.float32(next(draws)))

    with pytest.raises(ValueError, match="test/odd: reward: expected the same from equal keys"):
        check_environment(Impure())
    with pytest.raises(ValueError, match="test/odd: truncated: expected it false where terminated"):
        check_environment(Odd(done=lambda: jnp.bool_(True)))
    with pytest.raises(ValueError, match="test/odd: reset: expected finite observations"):
        check_environment(Odd(lambda: jnp.full(2, jnp.nan)))
