"""Common parts of the diagnostic environments."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from envs._shared import check_count
from hades.types import Step


class CountState(NamedTuple):
    """Carry of the environments that count.

    Attributes:
        steps: `[]` int32, steps taken so far.
        observation: What the policy sees now.
    """

    steps: jax.Array
    observation: jax.Array


class Diagnostic:
    """Episodes that count their steps, and options read off the fields of a dataclass, all of which count something."""

    @property
    def max_steps(self) -> int:
        """Steps after which an episode is truncated."""
        raise NotImplementedError

    def __post_init__(self) -> None:
        """Refuses an option that is not a whole number of at least 1."""
        for option in dataclasses.fields(self):  # type: ignore[arg-type]
            check_count(f"{type(self).__name__}", option.name, getattr(self, option.name))

    @property
    def options(self) -> Mapping[str, Any]:
        """The fields that are not at their defaults."""
        values = {option.name: (getattr(self, option.name), option.default) for option in dataclasses.fields(self)}  # type: ignore[arg-type]
        return {name: value for name, (value, default) in values.items() if value != default}

    def _begin(self, observation: jax.Array) -> tuple[CountState, jax.Array]:
        return CountState(jnp.zeros((), jnp.int32), observation), observation

    def _advance(self, state: Any, observation: jax.Array, reward: Any, terminated: Any = False) -> Step:
        """The step after `state`; out of time is a truncation unless the episode terminated."""
        steps, terminated = state.steps + 1, jnp.asarray(terminated, bool)
        after = state._replace(steps=steps, observation=observation)
        truncated = (steps >= self.max_steps) & ~terminated
        return Step(after, observation, jnp.asarray(reward, jnp.float32), terminated, truncated)
