"""Checks that anybody can run on their own parts of the framework, in a test or a notebook."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hades._environment_contract import conform, is_key
from hades.types import AnyEnvironment, Continuous, Environment, HostEnvironment

__all__ = ["check_environment"]


def check_environment(env: AnyEnvironment, num_steps: int = 10) -> None:
    """Checks an environment against the contract of `hades.Environment` or `hades.types.HostEnvironment`.

    Beyond the shapes and dtypes that every run checks when it is built, plays some steps of a few episodes with random
    actions, twice.

    Args:
        env: The environment.
        num_steps: Steps to play.

    Raises:
        ValueError: It breaks the contract: also where equal keys (seeds) give different episodes, a first observation
            is not finite, or a step is both terminated and truncated.

    Example:
        >>> import envs
        >>> check_environment(envs.make("diagnostic/match"))
    """
    env = conform(env)
    first, second = (
        _play_host(env, num_steps) if isinstance(env, HostEnvironment) else _play(env, num_steps) for _ in "ab"
    )
    for name, value in first.items():
        if not np.array_equal(value, second[name], equal_nan=value.dtype.kind == "f"):
            raise ValueError(f"{env.name}: {name}: expected the same from equal keys, got different values")
    if not np.isfinite(first["first observation"]).all():
        raise ValueError(f"{env.name}: reset: expected finite observations, got some that are not")
    if (first["terminated"] & first["truncated"]).any():
        raise ValueError(f"{env.name}: truncated: expected it false where terminated, got both in one step")


def _play(env: Environment, num_steps: int, num_episodes: int = 4) -> dict[str, np.ndarray]:
    """Arrays of a few episodes by name, after their ends as well."""

    def advance(carry: Any, key: jax.Array) -> Any:
        action_key, step_key = jax.random.split(key)
        space = env.action_space
        if isinstance(space, Continuous):
            low, high = jnp.array(space.low, jnp.float32), jnp.array(space.high, jnp.float32)
            action = jax.random.uniform(action_key, low.shape, jnp.float32, low, high)
        else:
            action = jax.random.randint(action_key, (), 0, space.num_actions, jnp.int32)
        step = env.step(step_key, carry, action)
        return step.state, (step.observation, step.reward, step.terminated, step.truncated)

    def episode(key: jax.Array) -> Any:
        reset_key, steps_key = jax.random.split(key)
        state, observation = env.reset(reset_key)
        leaves = [jax.random.key_data(leaf) if is_key(leaf) else leaf for leaf in jax.tree.leaves(state)]
        _, shown = jax.lax.scan(advance, state, jax.random.split(steps_key, num_steps))
        return leaves, (observation, *shown)

    leaves, shown = jax.device_get(jax.jit(jax.vmap(episode))(jax.random.split(jax.random.key(0), num_episodes)))
    names = ("first observation", "observation", "reward", "terminated", "truncated")
    states = {f"leaf {index} of the first state": np.asarray(leaf) for index, leaf in enumerate(leaves)}
    return dict(zip(names, map(np.asarray, shown), strict=True)) | states


def _play_host(env: HostEnvironment, num_steps: int, num_episodes: int = 3) -> dict[str, np.ndarray]:
    """Arrays of a few episodes in a host simulator, by name.

    Raises:
        ValueError: An array has the wrong shape, or an episode outlives `close`.
    """
    simulator = env.simulate(np.arange(num_episodes, dtype=np.uint32))
    space, generator = env.action_space, np.random.default_rng(0)
    low, high = (space.low, space.high) if isinstance(space, Continuous) else ((0.0,), (0.0,))
    rows, first = [], np.array(simulator.observations)
    shape = (num_episodes, *env.observation_shape)
    for _ in range(num_steps):
        step = simulator.step(generator.uniform(low, high, (num_episodes, len(low))).astype(np.float32))
        for name, expected in zip(step._fields, (shape, shape[:1], shape[:1], shape[:1]), strict=True):
            found = np.shape(getattr(step, name))
            if found != expected:
                raise ValueError(f"{env.name}: {name} of a step: expected shape {expected}, got {found}")
        rows.append([np.array(value) for value in step])
        if not simulator.alive.any():
            break
    simulator.close()
    if simulator.alive.any():
        raise ValueError(f"{env.name}: close: expected no episode alive after it, got {int(simulator.alive.sum())}")
    observations, rewards, terminated, truncated = (np.stack(column) for column in zip(*rows, strict=True))
    shown = {"observation": observations, "reward": rewards, "terminated": terminated, "truncated": truncated}
    return {"first observation": first, **shown}
