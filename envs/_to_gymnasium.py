"""Environments of this package as gymnasium's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from hades._cache import kept
from hades._environment_contract import conform
from hades.types import AnyEnvironment, Discrete, Environment, HostEnvironment, HostSimulator, PyTree


class _GymnasiumEnv(gymnasium.Env):
    """Spaces, seeds and the end of episodes; how they are played is the subclass's matter."""

    def __init__(self, env: AnyEnvironment) -> None:
        self.env = env
        self.observation_space = spaces.Box(-np.inf, np.inf, tuple(env.observation_shape), np.float32)
        space = env.action_space
        if isinstance(space, Discrete):
            self.action_space = spaces.Discrete(int(space.num_actions))
        else:
            self.action_space = spaces.Box(np.array(space.low, np.float32), np.array(space.high, np.float32))
        self._steps: int | None = None

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begins an episode; its own seed is a number of 32 bits that `np_random` draws."""
        super().reset(seed=seed)
        observation = self._begin(int(self.np_random.integers(2**32)))
        self._steps = 0
        return observation, {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Advances the episode by one step."""
        if self._steps is None:
            raise gymnasium.error.ResetNeeded(f"{self.env.name}: expected reset before step, as no episode is alive")
        self._steps += 1
        observation, reward, terminated, truncated, info = self._advance(action, self._steps)
        truncated = (truncated or self._steps >= self.env.max_steps) and not terminated
        if terminated or truncated:
            self._steps = None
        return observation, reward, terminated, truncated, info

    def _begin(self, seed: int) -> np.ndarray:
        raise NotImplementedError

    def _advance(self, action: Any, steps: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        raise NotImplementedError


class _Pure(_GymnasiumEnv):
    """Of an environment of pure functions: compiled, one call a step."""

    env: Environment

    def __init__(self, env: Environment) -> None:
        super().__init__(env)
        self._reset, self._step = _compiled(env)
        self._key: jax.Array | None = None
        self._state: PyTree = None

    def _begin(self, seed: int) -> np.ndarray:
        self._key = jax.random.key(np.uint32(seed))
        self._state, observation = self._reset(self._key)
        return np.array(observation)

    def _advance(self, action: Any, steps: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        dtype = np.int32 if isinstance(self.env.action_space, Discrete) else np.float32
        self._state, *rest = self._step(self._key, np.int32(steps), self._state, np.asarray(action, dtype))
        observation, reward, terminated, truncated = jax.device_get(rest)
        return np.array(observation), float(reward), bool(terminated), bool(truncated), {}


@kept
def _compiled(env: Environment) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Compiled reset and step, whose random numbers are those of the episode's key and the number of the step."""

    def reset(key: jax.Array) -> tuple[PyTree, jax.Array]:
        return env.reset(jax.random.fold_in(key, 0))

    def step(key: jax.Array, steps: jax.Array, state: PyTree, action: jax.Array) -> tuple[Any, ...]:
        return tuple(env.step(jax.random.fold_in(key, steps), state, jnp.asarray(action)))

    return jax.jit(reset), jax.jit(step)


class _Simulated(_GymnasiumEnv):
    """Of an environment that is simulated outside of JAX."""

    env: HostEnvironment

    def __init__(self, env: HostEnvironment) -> None:
        super().__init__(env)
        self._simulator: HostSimulator | None = None

    def _begin(self, seed: int) -> np.ndarray:
        self.close()
        self._simulator = self.env.simulate(np.array([seed], np.uint32))
        return np.array(self._simulator.observations[0])

    def _advance(self, action: Any, steps: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        del steps
        assert self._simulator is not None  # by `reset`
        step = self._simulator.step(np.asarray(action)[None])
        info = {} if step.succeeded is None else {"is_success": bool(step.succeeded[0])}
        ends = bool(step.terminated[0]), bool(step.truncated[0])
        return np.array(step.observations[0]), float(step.rewards[0]), *ends, info

    def close(self) -> None:
        """Gives up the episode that is still alive."""
        if self._simulator is not None:
            self._simulator.close()
            self._simulator = None


def make(env: AnyEnvironment) -> gymnasium.Env:
    """The gymnasium environment of one of this package."""
    env = conform(env)
    return _Simulated(env) if isinstance(env, HostEnvironment) else _Pure(env)
