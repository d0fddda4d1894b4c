"""Gymnax environments: their `reset_env` and `step_env`, which do not reset themselves."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from envs._shared import bounded, cast_like, check_count, freeze, keyword_names, make_simulator, strong, thaw
from hades.types import ActionSpace, Continuous, Discrete, PyTree, Step

_NAMES = (
    "Acrobot-v1",
    "Asterix-MinAtar",
    "BernoulliBandit-misc",
    "Breakout-MinAtar",
    "CartPole-v1",
    "Catch-bsuite",
    "DeepSea-bsuite",
    "DiscountingChain-bsuite",
    "FourRooms-misc",
    "Freeway-MinAtar",
    "GaussianBandit-misc",
    "MemoryChain-bsuite",
    "MetaMaze-misc",
    "MountainCar-v0",
    "MountainCarContinuous-v0",
    "Pendulum-v1",
    "PointRobot-misc",
    "Pong-misc",
    "Reacher-misc",
    "Seaquest-MinAtar",
    "SimpleBandit-bsuite",
    "SpaceInvaders-MinAtar",
    "Swimmer-misc",
    "UmbrellaChain-bsuite",
)

# Known without asking gymnax, whose import takes seconds; a test compares these with what it registers.
_REFUSED = {
    "FrozenLake-misc": "its observations are integers, not an array of numbers that a policy network could read",
    "MNISTBandit-bsuite": "gymnax downloads the MNIST images whenever it is made",
}


@dataclass(frozen=True)
class GymnaxEnvironment:
    """A gymnax environment as hades sees it. Two of the same name, limit and keywords are equal.

    Attributes:
        name: Such as `"gymnax/CartPole-v1"`.
        observation_shape: Shape of one observation; one that gymnax gives as a scalar has shape `(1,)`.
        action_space: `Discrete`, or `Continuous` with gymnax's bounds.
        max_steps: Steps after which an episode is truncated, gymnax's `max_steps_in_episode`.
        default_max_steps: What that is by default.
        keywords: Keyword arguments of gymnax's class and fields of its parameters, by name, that were given.
        simulator: The `gymnax.environments.environment.Environment`.
        parameters: Its parameters, with `max_steps_in_episode` set to `max_steps`.
    """

    name: str
    observation_shape: tuple[int, ...]
    action_space: ActionSpace
    max_steps: int
    default_max_steps: int
    keywords: tuple[tuple[str, Any], ...]
    simulator: Any = field(compare=False, repr=False)
    parameters: Any = field(compare=False, repr=False)

    @property
    def options(self) -> Mapping[str, Any]:
        """The keywords that were given, and `max_steps` where it is not the default."""
        return thaw(self.keywords, self.max_steps, self.default_max_steps)

    def reset(self, key: jax.Array) -> tuple[PyTree, jax.Array]:
        """Begins an episode; returns gymnax's first state, and the observation, `[*observation_shape]` float32."""
        # Some of gymnax's code mixes Python numbers with 32 bit ones, which fails where those have 64 bits.
        with jax.enable_x64(False):
            observation, state = self.simulator.reset_env(key, self.parameters)
            return strong(state), self._observation(observation)

    def step(self, key: jax.Array, state: PyTree, action: jax.Array) -> Step:
        """Advances the episode by one step; actions are `[]` integers, or `[action_dim]` clipped to the bounds."""
        with jax.enable_x64(False):
            observation, next_state, reward, terminated, _ = self.simulator.step_env(
                key, state, self._action(action), self.parameters
            )
            terminated = jnp.asarray(terminated, bool)
            next_state = cast_like(next_state, state)
            out_of_time = jnp.asarray(self.simulator.is_truncated(next_state, self.parameters), bool)
            return Step(
                state=next_state,
                observation=self._observation(observation),
                reward=jnp.reshape(jnp.asarray(reward, jnp.float32), ()),
                terminated=terminated,
                truncated=out_of_time & ~terminated,
            )

    def _observation(self, observation: jax.Array) -> jax.Array:
        return jnp.reshape(jnp.asarray(observation, jnp.float32), self.observation_shape)

    def _action(self, action: jax.Array) -> jax.Array:
        space = self.simulator.action_space(self.parameters)
        if isinstance(self.action_space, Continuous):
            action = jnp.clip(action, jnp.asarray(self.action_space.low), jnp.asarray(self.action_space.high))
        return jnp.reshape(jnp.asarray(action, space.dtype), space.shape)


def names() -> tuple[str, ...]:
    """The names that `make` takes: those of gymnax with array observations, and any the user registered there."""
    registration = sys.modules.get("gymnax.registration")  # not imported: then nothing can have been registered either
    registered = () if registration is None else tuple(registration.registered_envs)
    return _NAMES + tuple(name for name in registered if name not in _NAMES and name not in _REFUSED)


def option_names(name: str) -> tuple[str, ...]:
    """The options of a name without the family: `max_steps`, arguments of gymnax's class, fields of its parameters."""
    if name in _REFUSED:
        return ("max_steps",)
    with jax.enable_x64(False):
        _, parameters = _gymnax().make(name)
    of_class = keyword_names(_gymnax().registration._registry[name])
    return ("max_steps", *dict.fromkeys((*of_class, *_parameter_names(parameters))))


def _parameter_names(parameters: Any) -> tuple[str, ...]:
    return tuple(field.name for field in fields(parameters) if field.name != "max_steps_in_episode")


def knows(name: str) -> bool:
    """Whether `make` makes a name, which is given without the family, or explains why not."""
    return name in names() or name in _REFUSED


def make(name: str, max_steps: int | None = None, **keywords: Any) -> GymnaxEnvironment:
    """Makes a gymnax environment. The first takes a few seconds, as gymnax is imported; nothing is compiled.

    Args:
        name: Without the family, such as `"CartPole-v1"`.
        max_steps: Steps after which an episode is truncated; None for gymnax's own limit.
        keywords: Keyword arguments of gymnax's class and fields of its parameters, by name.

    Raises:
        ValueError: If `max_steps` is out of range, gymnax refuses a keyword, or hades cannot use the environment's
            spaces.
    """
    full_name = f"gymnax/{name}"
    if name in _REFUSED:
        raise ValueError(f"{full_name} is not supported: {_REFUSED[name]}")
    if max_steps is not None:
        max_steps = check_count(full_name, "max_steps", max_steps)
    frozen = freeze(full_name, keywords)
    with jax.enable_x64(False):
        return _make(full_name, max_steps, frozen)


def _make(full_name: str, max_steps: int | None, keywords: tuple[tuple[str, Any], ...]) -> GymnaxEnvironment:
    gymnax = _gymnax()
    given, name = dict(keywords), full_name.removeprefix("gymnax/")
    _, parameters = gymnax.make(name)
    of_parameters = {key: given.pop(key) for key in _parameter_names(parameters) if key in given}
    simulator, parameters = make_simulator(full_name, given, lambda: gymnax.make(name, **given))
    changed = {key: _like(full_name, key, value, getattr(parameters, key)) for key, value in of_parameters.items()}
    parameters = parameters.replace(**changed)
    own_limit = parameters.max_steps_in_episode
    default_max_steps = int(own_limit)
    if max_steps is None:
        max_steps = default_max_steps
    elif max_steps != default_max_steps:
        # BernoulliBandit counts its steps in floats, and would refuse to compare them with an int.
        parameters = parameters.replace(max_steps_in_episode=type(own_limit)(max_steps))
    return GymnaxEnvironment(
        name=full_name,
        observation_shape=_observation_shape(full_name, simulator, parameters),
        action_space=_action_space(full_name, simulator.action_space(parameters)),
        max_steps=max_steps,
        default_max_steps=default_max_steps,
        keywords=keywords,
        simulator=simulator,
        parameters=parameters,
    )


class _LazySeaborn(MetaPathFinder):
    """Finds seaborn, and loads it when something asks it for a name."""

    def find_spec(self, fullname: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        found = PathFinder.find_spec(fullname, path, target) if fullname == "seaborn" else None
        if found is not None and found.loader is not None:
            found.loader = LazyLoader(found.loader)
        return found


@cache
def _gymnax() -> ModuleType:
    """Imports gymnax without seaborn, which draws its Pong and takes most of the time."""
    finder = _LazySeaborn()
    sys.meta_path.insert(0, finder)
    try:
        return importlib.import_module("gymnax")
    finally:
        sys.meta_path.remove(finder)


def _like(full_name: str, key: str, value: Any, default: Any) -> Any:
    """A parameter of the kind of its default: an array where that is one."""
    array, like = np.asarray(value), np.asarray(default)
    castable = array.dtype.kind in "biuf" and np.can_cast(array.dtype, like.dtype, "same_kind")
    if not castable or array.shape != like.shape:
        expected = f"a {like.dtype} of shape {like.shape}" if like.ndim else f"one like {default!r}"
        raise ValueError(f"{key} of {full_name}: expected {expected}, got {value!r}")
    return jnp.asarray(array, like.dtype) if isinstance(default, jax.Array) else type(default)(value)


def _observation_shape(full_name: str, simulator: Any, parameters: Any) -> tuple[int, ...]:
    """Traces a reset for the shape, since a space is only what gymnax declares."""
    from gymnax.environments import spaces

    space = simulator.observation_space(parameters)
    if not isinstance(space, spaces.Box):
        raise ValueError(f"{full_name} is not supported: its observation space is {space!r}, not a Box")
    observation, _ = jax.eval_shape(lambda key: simulator.reset_env(key, parameters), jax.random.key(0))
    return tuple(observation.shape) or (1,)


def _action_space(full_name: str, space: Any) -> ActionSpace:
    from gymnax.environments import spaces

    if isinstance(space, spaces.Discrete):
        return Discrete(int(space.n))
    if not isinstance(space, spaces.Box):
        raise ValueError(f"{full_name} is not supported: its action space is {space!r}, neither Discrete nor a Box")
    return bounded(full_name, space)
