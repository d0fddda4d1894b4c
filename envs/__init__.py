"""Environments for hades: adapters to Brax, gymnax and gymnasium, and a few diagnostic ones.

>>> import envs
>>> environment = envs.make("diagnostic/match", num_actions=4)
>>> environment.action_space, environment.max_steps
(Discrete(num_actions=4), 10)

Brax, gymnax and gymnasium take seconds to import and are imported by the first `make` that needs them.

Gymnasium's environments, real MuJoCo among them, are simulated on the host (`hades.types.HostEnvironment`): policies
can be evaluated in them and data collected, but nothing that compiles an environment's steps can use them.

An environment of your own needs no base class and no registration, only the members of `hades.types.Environment`. A
walk on a line, where the episode terminates at the goal:

>>> import jax, jax.numpy as jnp
>>> from hades.types import Discrete, Environment, Step
>>> class Walk:
...     name, options, observation_shape, action_space, max_steps = "walk", {}, (1,), Discrete(2), 50
...
...     def reset(self, key):
...         position = jax.random.uniform(key, (1,))
...         return (position, jnp.int32(0)), position
...
...     def step(self, key, state, action):
...         position, steps = state[0] + 0.1 * (2 * action - 1), state[1] + 1
...         terminated = position[0] > 2
...         truncated = (steps >= self.max_steps) & ~terminated
...         return Step((position, steps), position, jnp.float32(-1), terminated, truncated)
>>> isinstance(Walk(), Environment)
True
"""

from __future__ import annotations

import difflib
import importlib
import re
from types import ModuleType
from typing import Any, cast

from envs.names import action_names, channel_names, observation_names
from hades.types import AnyEnvironment

__all__ = ["action_names", "channel_names", "list_environments", "make", "observation_names"]

_FAMILIES = ("brax", "diagnostic", "gymnasium", "gymnax")


def list_environments() -> tuple[str, ...]:
    """The names that `make` takes, sorted.

    >>> "brax/hopper" in list_environments(), "gymnax/CartPole-v1" in list_environments()
    (True, True)
    """
    return tuple(sorted(f"{family}/{name}" for family in _FAMILIES for name in _module(family).names()))


def make(name: str, **options: Any) -> AnyEnvironment:
    """Makes an environment.

    Args:
        name: Family and name, such as `"brax/hopper"`, `"gymnax/CartPole-v1"`, `"gymnasium/Hopper-v4"` or
            `"diagnostic/match"`.
        options: `max_steps` for all of them, the steps after which an episode is truncated; `backend` for Brax; the
            fields of its class for a diagnostic environment.

    Raises:
        ValueError: If there is no such environment or option, a value is out of range, or a simulator cannot run it.

    >>> make("CartPole-v1")
    Traceback (most recent call last):
    ...
    ValueError: unknown environment 'CartPole-v1': did you mean 'gymnax/CartPole-v1'?
    """
    family, _, bare_name = name.partition("/")
    if family not in _FAMILIES or not _module(family).knows(bare_name):
        raise ValueError(f"unknown environment {name!r}: {_hint(name)}")
    module = _module(family)
    known = module.option_names(bare_name)
    unknown = [option for option in options if option not in known]
    if unknown:
        raise ValueError(f"{name} has no option {unknown[0]!r}: its options are {', '.join(known)}")
    return cast(AnyEnvironment, module.make(bare_name, **options))


def _module(family: str) -> ModuleType:
    return importlib.import_module(f"envs.{family}")


def _hint(name: str) -> str:
    """Names the environments that are spelt most like this one, whatever the family."""

    def bare(text: str) -> str:
        return re.sub(r"[^a-z0-9]", "", text.rpartition("/")[2].lower())

    wanted = bare(name)
    likeness = {known: difflib.SequenceMatcher(None, wanted, bare(known)).ratio() for known in list_environments()}
    near = sorted((known for known in likeness if likeness[known] >= 0.6), key=lambda known: -likeness[known])[:3]
    if not near:
        return f"envs.list_environments() names the {len(likeness)} that there are"
    return f"did you mean {' or '.join(repr(known) for known in near)}?"
