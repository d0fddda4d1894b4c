"""Environments for hades: adapters to Brax, gymnax, MuJoCo Playground and gymnasium, and a few diagnostic ones.

>>> import envs
>>> environment = envs.make("diagnostic/match", num_actions=4)
>>> environment.action_space, environment.max_steps
(Discrete(num_actions=4), 10)

Simulators take seconds to import and are imported by the first `make` that needs them.

Gymnasium's environments, real MuJoCo among them, are simulated on the host (`hades.types.HostEnvironment`): policies
can be evaluated in them and data collected, but nothing that compiles an environment's steps can use them.

An environment of your own needs no base class, only the members of `hades.types.Environment`. A walk on a line, where
the episode terminates at the goal:

>>> import jax, jax.numpy as jnp
>>> from hades.types import Discrete, Environment, Step
>>> class Walk:
...     name, options, observation_shape, action_space, max_steps = "mine/walk", {}, (1,), Discrete(2), 50
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

Registered, it is made by its name, also by files that name it:

>>> envs.register("mine/walk", Walk)
>>> envs.make("mine/walk").max_steps
50

For every verb of the command to find it in a process of its own, put the class and the call of `envs.register` into a
file, and name the file, or an importable module, in the environment variable `HADES_PLUGINS` (several are separated by
commas); an installed package can name a module or function in the entry point group `hades.environments`. They are
loaded once, by the first `make` or `list_environments`. A simulator with many environments is a family of its own, see
`Family` and `register_family`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from envs._registry import Factory, Family, list_environments, make, register, register_family
from envs.names import action_names, channel_names, observation_names

if TYPE_CHECKING:
    import gymnasium

    from hades.types import AnyEnvironment

__all__ = [
    "Factory",
    "Family",
    "action_names",
    "channel_names",
    "list_environments",
    "make",
    "observation_names",
    "register",
    "register_family",
    "to_gymnasium",
]


def to_gymnasium(env: AnyEnvironment) -> gymnasium.Env:
    """Any environment of this package, or of your own, as a `gymnasium.Env`.

    Observations are boxes of float32 without bounds; an episode is truncated after `max_steps`. Every reset draws a
    number of 32 bits from gymnasium's `np_random`. An environment of pure functions resets with the key
    `fold_in(jax.random.key(number), 0)` and takes step `t` with `fold_in(jax.random.key(number), t)`; one of
    gymnasium's own gets the number as its seed, and `info` has `is_success` where its simulator says so.

    Args:
        env: Environment; it is stepped through a compiled function, so equal ones compile once.

    Raises:
        ValueError: It breaks the contract of `hades.types.Environment`.

    >>> env = to_gymnasium(make("diagnostic/match", num_actions=3))
    >>> observation, info = env.reset(seed=0)
    >>> observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
    >>> env.action_space, observation.shape, terminated
    (Discrete(3), (3,), False)
    """
    from envs import _to_gymnasium

    return _to_gymnasium.make(env)
