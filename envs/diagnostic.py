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
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from envs._diagnostic import CountState, Diagnostic
from hades.types import Continuous, Discrete, Step


@dataclass(frozen=True)
class FixedLength(Diagnostic):
    """Episodes of exactly `length` steps, which end in truncation; every step is worth 1, so the return is `length`.

    The observation is the fraction of the episode that has passed; the two actions are of no consequence.

    Attributes:
        length: Steps of an episode; `make` also takes it as `max_steps`.

    >>> FixedLength(length=5).max_steps, FixedLength(length=5).options
    (5, {'length': 5})
    """

    length: int = 10
    name = "diagnostic/fixed-length"
    observation_shape = (1,)
    action_space = Discrete(2)

    @property
    def max_steps(self) -> int:
        """The length."""
        return self.length

    def reset(self, key: jax.Array) -> tuple[CountState, jax.Array]:
        """Begins an episode; the key is of no consequence."""
        del key
        return self._begin(jnp.zeros(1, jnp.float32))

    def step(self, key: jax.Array, state: CountState, action: jax.Array) -> Step:
        """Counts a step."""
        del key, action
        return self._advance(state, ((state.steps + 1).astype(jnp.float32) / self.length)[None], 1.0)


@dataclass(frozen=True)
class Countdown(Diagnostic):
    """Terminates after a number of steps that the reset key draws; every step is worth 1, so the return is that number.

    The number is uniform on `1 .. longest`, and the observation is how many steps remain; the two actions are of no
    consequence. A `max_steps` below `longest` truncates the longer episodes.

    Attributes:
        longest: The longest episode.
        max_steps: Steps after which an episode is truncated.

    >>> _, observation = Countdown(longest=4).reset(jax.random.key(0))
    >>> 1 <= float(observation[0]) <= 4
    True
    """

    longest: int = 10
    max_steps: int = 20
    name = "diagnostic/countdown"
    observation_shape = (1,)
    action_space = Discrete(2)

    def reset(self, key: jax.Array) -> tuple[CountState, jax.Array]:
        """Draws the length of the episode."""
        return self._begin(jax.random.randint(key, (1,), 1, self.longest + 1).astype(jnp.float32))

    def step(self, key: jax.Array, state: CountState, action: jax.Array) -> Step:
        """Counts a step down."""
        del key, action
        observation = state.observation - 1
        return self._advance(state, observation, 1.0, terminated=observation[0] <= 0)


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
    name = "diagnostic/target"

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
        return self._begin(self._draw(key))

    def step(self, key: jax.Array, state: CountState, action: jax.Array) -> Step:
        """Scores the action, clipped to the box, and draws the next observation."""
        reward = -jnp.sum((jnp.clip(action, -1.0, 1.0) - state.observation / 2) ** 2)
        return self._advance(state, self._draw(key), reward)

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
    name = "diagnostic/match"

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
        return self._begin(self._draw(key))

    def step(self, key: jax.Array, state: CountState, action: jax.Array) -> Step:
        """Compares the action with what was shown, and shows another."""
        return self._advance(state, self._draw(key), state.observation[action])

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
    name = "diagnostic/nan"
    observation_shape = (1,)
    action_space = Discrete(2)

    def reset(self, key: jax.Array) -> tuple[CountState, jax.Array]:
        """Draws the observation of the whole episode."""
        return self._begin(jax.random.uniform(key, (1,), jnp.float32, -1.0, 1.0))

    def step(self, key: jax.Array, state: CountState, action: jax.Array) -> Step:
        """Rewards action 0."""
        del key
        return self._advance(state, state.observation, jnp.where(action == 1, jnp.nan, 1.0))


@dataclass(frozen=True)
class Endless(Diagnostic):
    """A task without an end, cut off by a time limit: every step is worth 1 and looks like any other.

    The observation is always 1, and the two actions are of no consequence. With discount `gamma` its value is
    `1 / (1 - gamma)` for whoever knows that truncation is no end of the task; for whoever takes it for one, far less.

    Attributes:
        max_steps: Steps of an episode, which ends in truncation.

    >>> import jax, jax.numpy as jnp
    >>> environment = Endless(max_steps=1)
    >>> state, _ = environment.reset(jax.random.key(0))
    >>> bool(environment.step(jax.random.key(1), state, jnp.asarray(0)).truncated)
    True
    """

    max_steps: int = 5
    name = "diagnostic/endless"
    observation_shape = (1,)
    action_space = Discrete(2)

    def reset(self, key: jax.Array) -> tuple[CountState, jax.Array]:
        """Begins an episode; the key is of no consequence."""
        del key
        return self._begin(jnp.ones(1, jnp.float32))

    def step(self, key: jax.Array, state: CountState, action: jax.Array) -> Step:
        """Counts a step."""
        del key, action
        return self._advance(state, state.observation, 1.0)


class DelayedState(NamedTuple):
    """Carry of `Delayed`.

    Attributes:
        steps: `[]` int32, steps taken so far.
        observation: What the policy sees now.
        earned: `[]` float32, the reward that waits for the end.
    """

    steps: jax.Array
    observation: jax.Array
    earned: jax.Array


@dataclass(frozen=True)
class Delayed(Diagnostic):
    """Discrete: only the first of two actions counts, and is paid for at the last step.

    The first observation shows the right first action, one-hot; all later ones are zeros, so that nothing tells whether
    it was taken. The last step terminates and is worth 1 if it was, otherwise 0. The best return is 1; the uniformly
    random policy expects 1/2.

    Attributes:
        max_steps: Steps of an episode, `max_steps - 1` between the action and its reward.

    >>> import jax, jax.numpy as jnp
    >>> environment = Delayed(max_steps=2)
    >>> state, shown = environment.reset(jax.random.key(0))
    >>> first = environment.step(jax.random.key(1), state, jnp.argmax(shown))
    >>> last = environment.step(jax.random.key(1), first.state, jnp.asarray(0))
    >>> float(first.reward), float(last.reward), bool(last.terminated)
    (0.0, 1.0, True)
    """

    max_steps: int = 4
    name = "diagnostic/delayed"
    observation_shape = (2,)
    action_space = Discrete(2)

    def reset(self, key: jax.Array) -> tuple[DelayedState, jax.Array]:
        """Draws the right first action."""
        observation = jax.nn.one_hot(jax.random.randint(key, (), 0, 2), 2, dtype=jnp.float32)
        return DelayedState(jnp.zeros((), jnp.int32), observation, jnp.zeros((), jnp.float32)), observation

    def step(self, key: jax.Array, state: DelayedState, action: jax.Array) -> Step:
        """Remembers whether the first action was right, and pays at the end."""
        del key
        earned = jnp.where(state.steps == 0, state.observation[action], state.earned)
        over = state.steps + 1 >= self.max_steps
        reward = jnp.where(over, earned, 0.0)
        return self._advance(state._replace(earned=earned), jnp.zeros(2, jnp.float32), reward, terminated=over)


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
    """The options that `make` takes for an environment, whose name is given without the family."""
    fields = tuple(option.name for option in dataclasses.fields(_CLASSES[name]))
    return fields if "max_steps" in fields else (*fields, "max_steps")


def knows(name: str) -> bool:
    """Whether `make` takes a name, which is given without the family."""
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
