"""Tiny environments whose returns are known in closed form: for tests, doctests and a first look at the library.

Each compiles in a fraction of a second and is a frozen dataclass: `envs.make("diagnostic/match")` makes one, or its
class does.

>>> import jax, jax.numpy as jnp
>>> from envs.diagnostic import FixedLength
>>> environment = FixedLength(length=3)
>>> state, _ = environment.reset(jax.random.key(0))
>>> ends = []
>>> for _ in range(3):
...     state, _, reward, terminated, truncated = environment.step(jax.random.key(1), state, jnp.asarray(0))
...     ends.append((float(reward), bool(terminated), bool(truncated)))
>>> ends
[(1.0, False, False), (1.0, False, False), (1.0, False, True)]
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from envs._diagnostic import CountState, Diagnostic, make_step
from envs._learning import Delayed, Endless
from hades.types import Continuous, Discrete, Step


@dataclass(frozen=True)
class FixedLength(Diagnostic):
    """Episodes of exactly `length` steps, which end in truncation; every step is worth 1, so the return is `length`.

    The observation is the fraction of the episode that has passed.

    Attributes:
        length: Steps of an episode; `make` also takes it as `max_steps`.

    >>> FixedLength(length=5).max_steps, FixedLength(length=5).options
    (5, {'length': 5})
    """

    length: int = 10

    @property
    def name(self) -> str:
        """Identifier."""
        return "diagnostic/fixed-length"

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """One number."""
        return (1,)

    @property
    def action_space(self) -> Discrete:
        """Two actions, of no consequence."""
        return Discrete(2)

    @property
    def max_steps(self) -> int:
        """The length."""
        return self.length

    def reset(self, key: jax.Array) -> tuple[CountState, jax.Array]:
        """Begins an episode; the key is of no consequence."""
        del key
        state = CountState(jnp.zeros((), jnp.int32), jnp.zeros(1, jnp.float32))
        return state, state.observation

    def step(self, key: jax.Array, state: CountState, action: jax.Array) -> Step:
        """Counts a step."""
        del key, action
        steps = state.steps + 1
        observation = (steps.astype(jnp.float32) / self.length)[None]
        return make_step(CountState(steps, observation), observation, 1.0, False, steps >= self.length)


@dataclass(frozen=True)
class Countdown(Diagnostic):
    """Terminates after a number of steps that the reset key draws; every step is worth 1, so the return is that number.

    The number is uniform on `1 .. longest`, and the observation is how many steps remain. A `max_steps` below `longest`
    truncates the longer episodes.

    Attributes:
        longest: The longest episode.
        max_steps: Steps after which an episode is truncated.

    >>> _, observation = Countdown(longest=4).reset(jax.random.key(0))
    >>> 1 <= float(observation[0]) <= 4
    True
    """

    longest: int = 10
    max_steps: int = 20

    @property
    def name(self) -> str:
        """Identifier."""
        return "diagnostic/countdown"

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """The steps that remain."""
        return (1,)

    @property
    def action_space(self) -> Discrete:
        """Two actions, of no consequence."""
        return Discrete(2)

    def reset(self, key: jax.Array) -> tuple[CountState, jax.Array]:
        """Draws the length of the episode."""
        observation = jax.random.randint(key, (1,), 1, self.longest + 1).astype(jnp.float32)
        return CountState(jnp.zeros((), jnp.int32), observation), observation

    def step(self, key: jax.Array, state: CountState, action: jax.Array) -> Step:
        """Counts a step down."""
        del key, action
        steps, observation = state.steps + 1, state.observation - 1
        return make_step(CountState(steps, observation), observation, 1.0, observation[0] <= 0, steps >= self.max_steps)


@dataclass(frozen=True)
class Target(Diagnostic):
    """Continuous: the action should be half the observation, and the reward is minus the squared distance from that.

    Observations are uniform on [-1, 1], drawn anew at every step. The best return is 0. The policy that always answers
    0 expects `-action_dim / 12` a step.

    Attributes:
        action_dim: Components of the observation and of the action.
        max_steps: Steps of an episode, which ends in truncation.

    >>> environment = Target()
    >>> state, observation = environment.reset(jax.random.key(0))
    >>> float(environment.step(jax.random.key(1), state, observation / 2).reward) == 0
    True
    """

    action_dim: int = 2
    max_steps: int = 1

    @property
    def name(self) -> str:
        """Identifier."""
        return "diagnostic/target"

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """As many as the action has."""
        return (self.action_dim,)

    @property
    def action_space(self) -> Continuous:
        """The box from -1 to 1."""
        return Continuous(low=(-1.0,) * self.action_dim, high=(1.0,) * self.action_dim)

    def reset(self, key: jax.Array) -> tuple[CountState, jax.Array]:
        """Draws the first observation."""
        observation = self._draw(key)
        return CountState(jnp.zeros((), jnp.int32), observation), observation

    def step(self, key: jax.Array, state: CountState, action: jax.Array) -> Step:
        """Scores the action, clipped to the box, and draws the next observation."""
        steps, observation = state.steps + 1, self._draw(key)
        reward = -jnp.sum((jnp.clip(action, -1.0, 1.0) - state.observation / 2) ** 2)
        return make_step(CountState(steps, observation), observation, reward, False, steps >= self.max_steps)

    def _draw(self, key: jax.Array) -> jax.Array:
        return jax.random.uniform(key, (self.action_dim,), jnp.float32, -1.0, 1.0)


@dataclass(frozen=True)
class Match(Diagnostic):
    """Discrete: a reward of 1 whenever the action is the one that the observation shows, one-hot; otherwise 0.

    What is shown is uniform and drawn anew at every step. The best return is `max_steps`; the uniformly random policy,
    and any policy blind to the observation, expects `max_steps / num_actions`.

    Attributes:
        num_actions: How many actions there are.
        max_steps: Steps of an episode, which ends in truncation.

    >>> environment = Match(num_actions=3)
    >>> state, shown = environment.reset(jax.random.key(0))
    >>> [float(environment.step(jax.random.key(1), state, action).reward == shown[action]) for action in jnp.arange(3)]
    [1.0, 1.0, 1.0]
    """

    num_actions: int = 3
    max_steps: int = 10

    @property
    def name(self) -> str:
        """Identifier."""
        return "diagnostic/match"

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """One-hot."""
        return (self.num_actions,)

    @property
    def action_space(self) -> Discrete:
        """As many as the observation has components."""
        return Discrete(self.num_actions)

    def reset(self, key: jax.Array) -> tuple[CountState, jax.Array]:
        """Draws the first action to show."""
        observation = self._draw(key)
        return CountState(jnp.zeros((), jnp.int32), observation), observation

    def step(self, key: jax.Array, state: CountState, action: jax.Array) -> Step:
        """Compares the action with what was shown, and shows another."""
        steps, observation = state.steps + 1, self._draw(key)
        return make_step(
            CountState(steps, observation), observation, state.observation[action], False, steps >= self.max_steps
        )

    def _draw(self, key: jax.Array) -> jax.Array:
        shown = jax.random.randint(key, (), 0, self.num_actions)
        return jax.nn.one_hot(shown, self.num_actions, dtype=jnp.float32)


@dataclass(frozen=True)
class Nan(Diagnostic):
    """Discrete: action 0 is worth 1, action 1 makes the reward NaN.

    So the return is `max_steps` for a policy that never takes action 1, and NaN for any other. The observation is one
    number, uniform on [-1, 1], drawn at the reset.

    Attributes:
        max_steps: Steps of an episode, which ends in truncation.

    >>> environment = Nan()
    >>> state, _ = environment.reset(jax.random.key(0))
    >>> [float(environment.step(jax.random.key(1), state, jnp.asarray(action)).reward) for action in (0, 1)]
    [1.0, nan]
    """

    max_steps: int = 5

    @property
    def name(self) -> str:
        """Identifier."""
        return "diagnostic/nan"

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """One number."""
        return (1,)

    @property
    def action_space(self) -> Discrete:
        """The good action and the bad."""
        return Discrete(2)

    def reset(self, key: jax.Array) -> tuple[CountState, jax.Array]:
        """Draws the observation of the whole episode."""
        observation = jax.random.uniform(key, (1,), jnp.float32, -1.0, 1.0)
        return CountState(jnp.zeros((), jnp.int32), observation), observation

    def step(self, key: jax.Array, state: CountState, action: jax.Array) -> Step:
        """Rewards action 0."""
        del key
        steps = state.steps + 1
        reward = jnp.where(action == 1, jnp.nan, 1.0)
        return make_step(
            CountState(steps, state.observation), state.observation, reward, False, steps >= self.max_steps
        )


DiagnosticEnvironment = FixedLength | Countdown | Target | Match | Nan | Endless | Delayed
"""Any of them."""

_CLASSES: Mapping[str, type[DiagnosticEnvironment]] = {
    "countdown": Countdown,
    "delayed": Delayed,
    "endless": Endless,
    "fixed-length": FixedLength,
    "match": Match,
    "nan": Nan,
    "target": Target,
}


def names() -> tuple[str, ...]:
    """The names that `make` takes."""
    return tuple(_CLASSES)


def option_names(name: str) -> tuple[str, ...]:
    """The options that `make` takes for an environment.

    Args:
        name: Without the family, such as `"match"`.
    """
    fields = tuple(option.name for option in dataclasses.fields(_CLASSES[name]))
    return fields if "max_steps" in fields else (*fields, "max_steps")


def knows(name: str) -> bool:
    """Whether `make` takes a name.

    Args:
        name: Without the family.
    """
    return name in _CLASSES


def make(name: str, **options: Any) -> DiagnosticEnvironment:
    """Makes a diagnostic environment.

    Args:
        name: Without the family, such as `"match"`.
        options: The fields of its class, and `max_steps`.

    Raises:
        ValueError: If an option is not a whole number of at least 1, or the length is given twice.
    """
    if name == "fixed-length" and "max_steps" in options:
        if "length" in options:
            raise ValueError("diagnostic/fixed-length takes length or max_steps, which mean the same, not both")
        options = {"length": options["max_steps"]}
    return _CLASSES[name](**options)
