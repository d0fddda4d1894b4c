"""The two rules of every rollout: what diverges counts as NaN, and an episode ends at `max_steps`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hades.distributions import Categorical, Deterministic
from hades.normalization import Normalizer
from hades.policies import Policy
from hades.rollouts import (
    begin_episodes,
    make_auto_reset_rollout,
    make_host_recorded_rollout,
    make_host_rollout,
    make_recorded_rollout,
    make_rollout,
)
from hades.rollouts.recorded import View, no_view
from hades.types import Continuous, Discrete, HostStep, Step

KEYS = jax.random.split(jax.random.key(0), 1)


@dataclass(frozen=True)
class Fragile:
    """Every step is worth 1; in step `at` (0 is the reset) a field takes `value`. No step is ever truncated."""

    field: str = "none"
    value: float = float("nan")
    at: int = 3
    terminates_at: int = 100
    max_steps: int = 6
    name: str = "test/fragile"
    observation_shape: tuple[int, ...] = (2,)
    action_space: Any = Continuous((-1.0,), (1.0,))

    @property
    def options(self) -> dict[str, Any]:
        return {}

    def reset(self, key: jax.Array) -> tuple[Any, jax.Array]:
        now = self._put("state", jnp.float32(0), jnp.int32(0))
        return (key, jnp.int32(0), now), self._put("observation", jnp.zeros(2), jnp.int32(0))

    def step(self, key: jax.Array, state: Any, action: jax.Array) -> Step:
        steps = state[1] + 1
        observation = jnp.stack([steps, jnp.sum(action) * 0]).astype(jnp.float32)
        observation = jnp.where(jnp.isfinite(observation), observation, 0.0)
        return Step(
            (key, steps, self._put("state", jnp.float32(0), steps)),
            self._put("observation", observation, steps),
            self._put("reward", jnp.float32(1), steps),
            steps >= self.terminates_at,
            jnp.bool_(False),
        )

    def _put(self, field: str, array: jax.Array, steps: jax.Array) -> jax.Array:
        return jnp.where((steps == self.at) & (field == self.field), self.value, array)


@dataclass(frozen=True)
class FragileOnHost:
    """`Fragile` outside of JAX; it plays on where an episode should end, unless an action is not finite."""

    env: Fragile = Fragile()

    name = "test/fragile-on-host"
    observation_shape = (2,)
    action_space = Continuous((-1.0,), (1.0,))
    max_steps = 6
    options: Any = ()

    def simulate(self, seeds: np.ndarray) -> Any:
        return FragileSimulator(self.env, len(seeds))


class FragileSimulator:
    def __init__(self, env: Fragile, episodes: int) -> None:
        self._env, self.alive, self.closed = env, np.ones(episodes, bool), False
        self._state, observation = env.reset(jax.random.key(0))
        self.observations = np.tile(np.asarray(observation), (episodes, 1))

    def step(self, actions: np.ndarray) -> HostStep:
        out = self._env.step(jax.random.key(0), self._state, jnp.zeros(1))
        self._state, no = out.state, np.zeros(len(self.alive), bool)
        ended = self.alive & ~np.isfinite(actions).all(axis=1)
        self.observations = np.tile(np.asarray(out.observation), (len(no), 1))
        rewards = np.where(ended, np.nan, np.where(self.alive, float(out.reward), 0.0))
        terminated = ended | (self.alive & bool(out.terminated))
        self.alive = self.alive & ~terminated
        return HostStep(self.observations, rewards, terminated, no)

    def close(self) -> None:
        self.alive = np.zeros_like(self.alive)


def policy(at: int = 100, value: float = float("nan")) -> Policy:
    """Acts by 0, and by `value` once so many steps have been taken."""

    def apply(params: Any, seen: jax.Array) -> Deterministic:
        return Deterministic(jnp.where(seen[..., :1] == at, value, 0.0))

    return Policy(lambda key: jnp.zeros(()), apply)


def discrete_policy(at: int) -> Policy:
    """Always takes an action, from logits that are NaN once so many steps have been taken."""

    def apply(params: Any, seen: jax.Array) -> Categorical:
        return Categorical(jnp.where(seen[..., :1] == at, jnp.nan, jnp.zeros((*seen.shape[:-1], 2))))

    return Policy(lambda key: jnp.zeros(()), apply)


def first(env: Any, plays: Policy) -> tuple[np.ndarray, np.ndarray]:
    episodes = jax.jit(make_rollout(env, plays, 2))(KEYS, jnp.zeros((1, 1)), Normalizer())
    return np.asarray(episodes.returns).ravel(), np.asarray(episodes.lengths).ravel()


BAD = [
    ("reward", float("nan")),
    ("reward", float("inf")),
    ("observation", float("nan")),
    ("observation", float("-inf")),
    ("state", float("nan")),
]


@pytest.mark.parametrize(("field", "value"), BAD)
def test_an_episode_that_diverges_returns_nan_and_ends(field: str, value: float) -> None:
    returns, lengths = first(Fragile(field, value), policy())
    assert np.isnan(returns).all() and lengths.tolist() == [3, 3]
    # The step that terminates counts like any other, and nothing after it.
    assert np.isnan(first(Fragile(field, value, terminates_at=3), policy())[0]).all()
    assert first(Fragile(field, value, terminates_at=2), policy())[0].tolist() == [2.0, 2.0]


def test_what_diverges_at_its_reset_has_no_length() -> None:
    returns, lengths = first(Fragile("observation", at=0), policy())
    assert np.isnan(returns).all() and lengths.tolist() == [0, 0]


def test_an_infinite_number_in_a_state_is_a_sentinel() -> None:
    returns, lengths = first(Fragile("state", float("inf")), policy())
    assert returns.tolist() == [6.0, 6.0] and lengths.tolist() == [6, 6]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_actions_that_are_not_finite_diverge(value: float) -> None:
    returns, lengths = first(Fragile(), policy(2, value))
    assert np.isnan(returns).all() and lengths.tolist() == [3, 3]


def test_discrete_policies_diverge_where_their_distribution_is_nan() -> None:
    env = Fragile(action_space=Discrete(2))
    assert first(env, discrete_policy(100))[0].tolist() == [6.0, 6.0]
    returns, lengths = first(env, discrete_policy(2))
    assert np.isnan(returns).all() and lengths.tolist() == [3, 3]


def collected(env: Any, plays: Policy, steps: int = 8) -> tuple[Any, Any]:
    rollout = make_auto_reset_rollout(env, plays, 2, steps)

    @jax.jit
    def play(key: jax.Array) -> Any:
        return rollout(key, jnp.zeros(()), Normalizer(), begin_episodes(key, env, 2))

    return play(KEYS[0])


@pytest.mark.parametrize(("field", "value"), BAD)
def test_collected_steps_mark_what_diverged_and_begin_again(field: str, value: float) -> None:
    episodes, steps = collected(Fragile(field, value), policy())
    expected = np.isin(np.arange(8), [2, 5])
    np.testing.assert_array_equal(steps.diverged[:, 0], expected)
    np.testing.assert_array_equal(steps.terminated[:, 0], expected)
    assert not steps.truncated.any() and np.isnan(episodes.last_returns).all()
    assert np.isfinite(steps.observations).all()


def test_collected_steps_mark_actions_and_first_observations_too() -> None:
    np.testing.assert_array_equal(collected(Fragile(), policy(2))[1].diverged[:, 0], np.isin(np.arange(8), [2, 5]))
    discrete = collected(Fragile(action_space=Discrete(2)), discrete_policy(2))[1]
    np.testing.assert_array_equal(discrete.diverged[:, 0], np.isin(np.arange(8), [2, 5]))
    assert collected(Fragile("observation", at=0), policy())[1].diverged.all()


def test_collected_episodes_end_at_the_limit_whatever_the_environment_says() -> None:
    episodes, steps = collected(Fragile(), policy(), 13)
    np.testing.assert_array_equal(steps.truncated[:, 0], np.isin(np.arange(13), [5, 11]))
    assert not steps.terminated.any() and episodes.last_returns.tolist() == [6.0, 6.0]
    # Termination takes precedence in the last step.
    steps = collected(Fragile(terminates_at=6), policy(), 6)[1]
    assert steps.terminated[-1].all() and not steps.truncated.any()


def recorded(env: Any, plays: Policy, view: View = no_view) -> Any:
    def act(key: jax.Array, params: Any, seen: jax.Array) -> jax.Array:
        return plays.apply(params, seen).mode()

    if isinstance(env, FragileOnHost):
        return make_host_recorded_rollout(env, act, 4, view=view)(KEYS[0], jnp.zeros(()), 2)
    return jax.jit(make_recorded_rollout(env, act, 2, view))(KEYS[0], jnp.zeros(()))


# A host simulator keeps its state to itself.
@pytest.mark.parametrize(
    ("field", "value", "on_host"), [(*bad, on) for bad in BAD for on in (False, True) if not (on and bad[0] == "state")]
)
def test_recorded_episodes_are_cut_before_what_diverged(field: str, value: float, on_host: bool) -> None:
    env = Fragile(field, value, terminates_at=3)
    episodes = recorded(FragileOnHost(env) if on_host else env, policy())
    assert episodes.lengths.tolist() == [2, 2] and not np.asarray(episodes.terminated).any()
    assert np.isfinite(episodes.next_observations[:2]).all() and (np.asarray(episodes.rewards[:2]) == 1).all()


@pytest.mark.parametrize("on_host", [False, True])
def test_recorded_episodes_say_which_diverged_and_what_they_returned(on_host: bool) -> None:
    for env, diverged, returned in [(Fragile(), False, 6.0), (Fragile("observation", at=3), True, math.nan)]:
        episodes = recorded(FragileOnHost(env) if on_host else env, policy())
        assert np.asarray(episodes.diverged).tolist() == [diverged] * 2
        np.testing.assert_array_equal(episodes.returns, [returned] * 2)
    episodes = recorded(FragileOnHost() if on_host else Fragile(terminates_at=4), policy(2))
    assert np.asarray(episodes.diverged).all() and np.isnan(episodes.returns).all()


@pytest.mark.parametrize("on_host", [False, True])
def test_recorded_episodes_have_views_of_the_states_that_actions_were_chosen_in(on_host: bool) -> None:
    view = (lambda simulator: simulator.observations.copy()) if on_host else (lambda states: {"steps": states[1]})
    episodes = recorded(FragileOnHost() if on_host else Fragile(), policy(), view)
    steps = episodes.views[..., 0] if on_host else episodes.views["steps"]
    np.testing.assert_array_equal(steps, episodes.observations[..., 0])
    assert steps.shape == (6, 2) and steps[:, 0].tolist() == list(range(6))


@pytest.mark.parametrize("on_host", [False, True])
def test_recorded_episodes_end_at_the_limit(on_host: bool) -> None:
    for env, length, terminated in [(Fragile(), 6, False), (Fragile(terminates_at=4), 4, True)]:
        episodes = recorded(FragileOnHost(env) if on_host else env, policy())
        assert episodes.lengths.tolist() == [length] * 2 and episodes.terminated.tolist() == [terminated] * 2
        np.testing.assert_array_equal(episodes.observations[:length, 0, 0], np.arange(length))
    assert recorded(FragileOnHost() if on_host else Fragile(), policy(2)).lengths.tolist() == [2, 2]
    broken = Fragile("observation", at=0)
    assert recorded(FragileOnHost(broken) if on_host else broken, policy()).lengths.tolist() == [0, 0]


@pytest.mark.parametrize(("field", "value"), [bad for bad in BAD if bad[0] != "state"])
def test_the_host_keeps_both_rules(field: str, value: float) -> None:
    def play(env: Fragile, plays: Policy) -> tuple[np.ndarray, np.ndarray]:
        episodes = make_host_rollout(FragileOnHost(env), plays, 2)(KEYS, jnp.zeros((1, 1)), Normalizer())
        return np.asarray(episodes.returns).ravel(), np.asarray(episodes.lengths).ravel()

    for env, plays in [
        (Fragile(field, value), policy()),
        (Fragile(), policy(2)),
        (Fragile(field, value, at=0), policy()),
    ]:
        np.testing.assert_array_equal(play(env, plays), first(env, plays))
    np.testing.assert_array_equal(play(Fragile(), policy()), [[6.0, 6.0], [6, 6]])


def test_typed_keys_in_a_state_pass_through_every_rollout() -> None:
    """`Fragile` carries one: the calls above would fail otherwise; here it must also be selected at a reset."""
    episodes, _ = collected(Fragile(terminates_at=3), policy())
    assert jax.dtypes.issubdtype(episodes.state[0].dtype, jax.dtypes.prng_key)
