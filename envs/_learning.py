"""Diagnostic environments that each show one failure of reinforcement learning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from envs._diagnostic import CountState, Diagnostic, make_step
from hades.types import Discrete, Step


@dataclass(frozen=True)
class Endless(Diagnostic):
    """A task without an end, cut off by a time limit: every step is worth 1 and looks like any other.

    The observation is always 1. With discount `gamma` its value is `1 / (1 - gamma)` for whoever knows that truncation
    is no end of the task; for whoever takes it for one, far less.

    Attributes:
        max_steps: Steps of an episode, which ends in truncation.

    >>> import jax, jax.numpy as jnp
    >>> environment = Endless(max_steps=1)
    >>> state, _ = environment.reset(jax.random.key(0))
    >>> bool(environment.step(jax.random.key(1), state, jnp.asarray(0)).truncated)
    True
    """

    max_steps: int = 5

    @property
    def name(self) -> str:
        """Identifier."""
        return "diagnostic/endless"

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """One number."""
        return (1,)

    @property
    def action_space(self) -> Discrete:
        """Two actions, of no consequence."""
        return Discrete(2)

    def reset(self, key: jax.Array) -> tuple[CountState, jax.Array]:
        """Begins an episode; the key is of no consequence."""
        del key
        state = CountState(jnp.zeros((), jnp.int32), jnp.ones(1, jnp.float32))
        return state, state.observation

    def step(self, key: jax.Array, state: CountState, action: jax.Array) -> Step:
        """Counts a step."""
        del key, action
        steps = state.steps + 1
        return make_step(CountState(steps, state.observation), state.observation, 1.0, False, steps >= self.max_steps)


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

    @property
    def name(self) -> str:
        """Identifier."""
        return "diagnostic/delayed"

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """One-hot, or zeros."""
        return (2,)

    @property
    def action_space(self) -> Discrete:
        """Two actions."""
        return Discrete(2)

    def reset(self, key: jax.Array) -> tuple[DelayedState, jax.Array]:
        """Draws the right first action."""
        observation = jax.nn.one_hot(jax.random.randint(key, (), 0, 2), 2, dtype=jnp.float32)
        return DelayedState(jnp.zeros((), jnp.int32), observation, jnp.zeros((), jnp.float32)), observation

    def step(self, key: jax.Array, state: DelayedState, action: jax.Array) -> Step:
        """Remembers whether the first action was right, and pays at the end."""
        del key
        steps, observation = state.steps + 1, jnp.zeros(2, jnp.float32)
        earned = jnp.where(state.steps == 0, state.observation[action], state.earned)
        over = steps >= self.max_steps
        return make_step(
            DelayedState(steps, observation, earned), observation, jnp.where(over, earned, 0.0), over, False
        )
