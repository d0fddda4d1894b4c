"""Gymnax environments: their `reset_env` and `step_env`, which do not reset themselves."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from envs._shared import cast_like, check_count, strong
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
    """A gymnax environment as hades sees it. Two of the same name and limit are equal.

    Attributes:
        name: Such as `"gymnax/CartPole-v1"`.
        observation_shape: Shape of one observation; one that gymnax gives as a scalar has shape `(1,)`.
        action_space: `Discrete`, or `Continuous` with gymnax's bounds.
        max_steps: Steps after which an episode is truncated, gymnax's `max_steps_in_episode`.
        default_max_steps: What that is by default.
        simulator: The `gymnax.environments.environment.Environment`.
        parameters: Its parameters, with `max_steps_in_episode` set to `max_steps`.
    """

    name: str
    observation_shape: tuple[int, ...]
    action_space: ActionSpace
    max_steps: int
    default_max_steps: int
    simulator: Any = field(compare=False, repr=False)
    parameters: Any = field(compare=False, repr=False)

    @property
    def options(self) -> Mapping[str, Any]:
        """`max_steps`, where it is not the default."""
        return {} if self.max_steps == self.default_max_steps else {"max_steps": self.max_steps}

    def reset(self, key: jax.Array) -> tuple[PyTree, jax.Array]:
        """Begins an episode.

        Args:
            key: A typed key.

        Returns:
            Gymnax's first state, and the first observation, `[*observation_shape]` float32.
        """
        observation, state = self.simulator.reset_env(key, self.parameters)
        return strong(state), self._observation(observation)

    def step(self, key: jax.Array, state: PyTree, action: jax.Array) -> Step:
        """Advances the episode by one step.

        Args:
            key: A typed key.
            state: What `reset` or the last `step` returned.
            action: `[]` integer, or `[action_dim]` float, which is clipped to the bounds.
        """
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
    """The options that `make` takes for an environment.

    Args:
        name: Without the family, such as `"CartPole-v1"`.
    """
    del name
    return ("max_steps",)


def knows(name: str) -> bool:
    """Whether `make` has something to say about a name: makes it, or explains why not.

    Args:
        name: Without the family.
    """
    return name in names() or name in _REFUSED


def make(name: str, max_steps: int | None = None) -> GymnaxEnvironment:
    """Makes a gymnax environment. The first takes a few seconds, as gymnax is imported; nothing is compiled.

    Args:
        name: Without the family, such as `"CartPole-v1"`.
        max_steps: Steps after which an episode is truncated; None for gymnax's own limit.

    Raises:
        ValueError: If `max_steps` is out of range, or hades cannot use the environment's spaces.
    """
    full_name = f"gymnax/{name}"
    if name in _REFUSED:
        raise ValueError(f"{full_name} is not supported: {_REFUSED[name]}")
    if max_steps is not None:
        max_steps = check_count(full_name, "max_steps", max_steps)
    import gymnax

    simulator, parameters = gymnax.make(name)
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
        simulator=simulator,
        parameters=parameters,
    )


def _observation_shape(full_name: str, simulator: Any, parameters: Any) -> tuple[int, ...]:
    """Traces a reset for the shape, since a space is only what gymnax declares.

    Raises:
        ValueError: If observations are not arrays of numbers.
    """
    from gymnax.environments import spaces

    space = simulator.observation_space(parameters)
    if not isinstance(space, spaces.Box):
        raise ValueError(f"{full_name} is not supported: its observation space is {space!r}, not a Box")
    observation, _ = jax.eval_shape(lambda key: simulator.reset_env(key, parameters), jax.random.key(0))
    return tuple(observation.shape) or (1,)


def _action_space(full_name: str, space: Any) -> ActionSpace:
    """Translates a gymnax action space.

    Raises:
        ValueError: If it is neither Discrete nor a Box with finite bounds, to which actions could be clipped.
    """
    from gymnax.environments import spaces

    if isinstance(space, spaces.Discrete):
        return Discrete(int(space.n))
    if not isinstance(space, spaces.Box):
        raise ValueError(f"{full_name} is not supported: its action space is {space!r}, neither Discrete nor a Box")
    low, high = (np.broadcast_to(np.asarray(bound, float), space.shape).ravel() for bound in (space.low, space.high))
    try:
        return Continuous(low=tuple(low.tolist()), high=tuple(high.tolist()))
    except ValueError as error:
        raise ValueError(f"{full_name} is not supported: {error}") from error
