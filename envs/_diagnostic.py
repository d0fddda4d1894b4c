"""Common parts of the diagnostic environments."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from envs._shared import check_count
from hades.types import Step


class Diagnostic:
    """Options read off the fields of a dataclass, all of which count something."""

    def __post_init__(self) -> None:
        """Refuses an option that is not a whole number of at least 1."""
        for option in dataclasses.fields(self):  # type: ignore[arg-type]
            check_count(f"{type(self).__name__}", option.name, getattr(self, option.name))

    @property
    def options(self) -> Mapping[str, Any]:
        """The fields that are not at their defaults."""
        values = {option.name: (getattr(self, option.name), option.default) for option in dataclasses.fields(self)}  # type: ignore[arg-type]
        return {name: value for name, (value, default) in values.items() if value != default}


class CountState(NamedTuple):
    """Carry of the environments that count.

    Attributes:
        steps: `[]` int32, steps taken so far.
        observation: What the policy sees now.
    """

    steps: jax.Array
    observation: jax.Array


def make_step(state: Any, observation: jax.Array, reward: Any, terminated: Any, out_of_time: Any) -> Step:
    """A step with all of its fields of their types; out of time is a truncation unless the episode terminated."""
    terminated = jnp.asarray(terminated, bool)
    return Step(
        state, observation, jnp.asarray(reward, jnp.float32), terminated, jnp.asarray(out_of_time, bool) & ~terminated
    )
