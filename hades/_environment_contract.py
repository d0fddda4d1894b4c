"""The contract of an environment, checked once by tracing `reset` and `step`, and the casts that make it hold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from hades._cache import kept
from hades.types import ActionSpace, AnyEnvironment, Continuous, Discrete, Environment, HostEnvironment, PyTree, Step

_SHARED_MEMBERS = ("name", "options", "observation_shape", "action_space", "max_steps")
_EnvironmentT = TypeVar("_EnvironmentT", bound=AnyEnvironment)


def strong(tree: PyTree) -> PyTree:
    """Makes every array, typed key and Python number strongly typed, as a loop can carry it, of its own dtype."""

    def cast(leaf: Any) -> jax.Array:
        return leaf if is_key(leaf) else jnp.asarray(leaf, jnp.result_type(leaf))

    return jax.tree.map(cast, tree)


def is_key(leaf: Any) -> bool:
    """Whether a leaf is an array of typed keys."""
    return hasattr(leaf, "dtype") and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


@dataclass(frozen=True)
class ConformedEnvironment:
    """An environment whose numbers are cast to the dtypes of `hades.types.Environment`.

    Observations and rewards are float32, flags bool, and no leaf of a state is weakly typed.

    Attributes:
        env: The environment itself.
    """

    env: Environment

    @property
    def name(self) -> str:
        """Identifier of the environment."""
        return self.env.name

    @property
    def options(self) -> Mapping[str, Any]:
        """Options of the environment."""
        return self.env.options

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """Shape of one observation."""
        return tuple(self.env.observation_shape)

    @property
    def action_space(self) -> ActionSpace:
        """Action space of the environment."""
        return self.env.action_space

    @property
    def max_steps(self) -> int:
        """Steps after which an episode is truncated."""
        return int(self.env.max_steps)

    def reset(self, key: jax.Array) -> tuple[PyTree, jax.Array]:
        """Begins an episode."""
        state, observation = self.env.reset(key)
        return strong(state), jnp.asarray(observation, jnp.float32)

    def step(self, key: jax.Array, state: PyTree, action: jax.Array) -> Step:
        """Advances the episode by one step."""
        out = self.env.step(key, state, action)
        return Step(
            strong(out.state),
            jnp.asarray(out.observation, jnp.float32),
            jnp.asarray(out.reward, jnp.float32),
            jnp.asarray(out.terminated, bool),
            jnp.asarray(out.truncated, bool),
        )


def conform(env: _EnvironmentT) -> _EnvironmentT:
    """Checks an environment against its contract, and casts what may be cast.

    `reset` and `step` are traced once; an environment that is equal to one already checked is not traced again.
    Observations become float32, rewards float32, flags that are 0 or 1 bool, and weakly typed leaves strong. A host
    environment is only checked for what it says of itself.

    Returns:
        The environment itself where it needs no cast, otherwise a `ConformedEnvironment`.

    Raises:
        ValueError: The environment breaks the contract; the sentence names it, the field, what was expected and got.
    """
    _check_description(env)
    if isinstance(env, HostEnvironment | ConformedEnvironment):
        return env
    needs_casts = _needs_casts(env, jnp.zeros(()).dtype.name)
    return ConformedEnvironment(env) if needs_casts else env  # type: ignore[return-value]


def _check_description(env: AnyEnvironment) -> None:
    """Checks what an environment says of itself."""
    name = getattr(env, "name", None)
    if not isinstance(name, str) or not name:
        raise ValueError(f"env: expected an environment with a name, got name {name!r} of {type(env).__name__}")
    methods = ("simulate",) if hasattr(env, "simulate") else ("reset", "step")
    missing = [member for member in (*_SHARED_MEMBERS, *methods) if not hasattr(env, member)]
    if missing:
        raise ValueError(f"{name}: expected the members of hades.Environment, got none named {', '.join(missing)}")
    shape = env.observation_shape
    if not isinstance(shape, tuple | list) or not all(_is_count(length) for length in shape):
        raise ValueError(f"{name}: observation_shape: expected a tuple of lengths of at least 1, got {shape!r}")
    if not shape:
        raise ValueError(
            f"{name}: observation_shape: expected at least one axis, which a dataset file needs, got (); "
            f"reshape the observations to (1,), as by observation[None]"
        )
    if not isinstance(env.action_space, Discrete | Continuous):
        raise ValueError(f"{name}: action_space: expected Discrete or Continuous, got {env.action_space!r}")
    if not _is_count(env.max_steps):
        raise ValueError(f"{name}: max_steps: expected a whole number of at least 1, got {env.max_steps!r}")
    _check_options(name, env.options)


def _check_options(name: str, options: Any) -> None:
    if not isinstance(options, Mapping) or not all(isinstance(key, str) for key in options):
        raise ValueError(f"{name}: options: expected a mapping from names to values, got {options!r}")
    try:
        json.dumps(dict(options), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: options: expected values that JSON can hold, got {options!r}: {error}") from None


def _is_count(value: Any) -> bool:
    return not isinstance(value, bool) and hasattr(value, "__index__") and value.__index__() >= 1


@kept
def _needs_casts(env: Environment, default_dtype: str) -> bool:
    """Traces a reset and a step, and refuses what no cast can mend."""
    # The dtype of Python floats keeps apart what was found with and without 64 bits.
    del default_dtype
    key = jax.random.key(0)
    first = _trace(env, "reset", key)
    if not isinstance(first, tuple) or len(first) != 2:
        raise ValueError(f"{env.name}: reset: expected a pair of state and observation, got {_describe(first)}")
    state, observation = first
    action: Any = jax.ShapeDtypeStruct((), jnp.int32)
    if isinstance(env.action_space, Continuous):
        action = jax.ShapeDtypeStruct((env.action_space.action_dim,), jnp.float32)
    step = _trace(env, "step", key, jax.eval_shape(strong, state), action)
    if getattr(step, "_fields", None) != Step._fields:
        raise ValueError(f"{env.name}: step: expected a hades.Step, got {_describe(step)}")
    casts = [
        _check_array(env, "the observation of reset", observation, tuple(env.observation_shape), jnp.float32),
        _check_array(env, "the observation of step", step.observation, tuple(env.observation_shape), jnp.float32),
        _check_array(env, "reward", step.reward, (), jnp.float32),
        _check_array(env, "terminated", step.terminated, (), jnp.bool_),
        _check_array(env, "truncated", step.truncated, (), jnp.bool_),
        _check_state(env, state, step.state),
        not isinstance(step, Step),
    ]
    return any(casts)


def _trace(env: Environment, method: str, *arguments: Any) -> Any:
    """Shapes of what a method returns."""
    try:
        return jax.eval_shape(getattr(env, method), *arguments)
    except Exception as error:
        lines = str(error).strip().splitlines()
        reason = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
        raise ValueError(f"{env.name}: {method}: expected a function that JAX can trace, got {reason}") from error


def _check_array(env: Environment, field: str, found: Any, shape: tuple[int, ...], dtype: Any) -> bool:
    """Whether an array of real numbers of the right shape needs a cast; anything else is refused."""
    expected = f"an array of shape {shape}"
    if not isinstance(found, jax.ShapeDtypeStruct) or is_key(found):
        raise ValueError(f"{env.name}: {field}: expected {expected}, got {_describe(found)}")
    real = jnp.issubdtype(found.dtype, jnp.bool_) or jnp.issubdtype(found.dtype, jnp.integer)
    if found.shape != shape or not (real or jnp.issubdtype(found.dtype, jnp.floating)):
        raise ValueError(f"{env.name}: {field}: expected {expected}, got one of shape {found.shape} and {found.dtype}")
    return bool(found.dtype != dtype or found.weak_type)


def _check_state(env: Environment, before: PyTree, after: PyTree) -> bool:
    """Whether weakly typed leaves have to be made strong; a state that `step` changes otherwise is refused."""
    # Compared by value, as loops do: static parts can be objects whose text differs.
    structures: list[Any] = [jax.tree.structure(tree) for tree in (before, after)]
    if structures[0] != structures[1]:
        raise ValueError(f"{env.name}: state: expected step to keep {structures[0]} of reset, got {structures[1]}")
    leaves, weak = jax.tree_util.tree_leaves_with_path(before), False
    for (path, old), new in zip(leaves, jax.tree.leaves(after), strict=True):
        if (old.shape, old.dtype) != (new.shape, new.dtype):
            raise ValueError(
                f"{env.name}: state{jax.tree_util.keystr(path)}: expected step to keep shape {old.shape} and "
                f"{old.dtype} of reset, got shape {new.shape} and {new.dtype}"
            )
        weak = weak or bool(old.weak_type or new.weak_type)
    return weak


def _describe(found: Any) -> str:
    """Type of a value in a few words."""
    if isinstance(found, Mapping):
        return f"a mapping with {', '.join(map(repr, found))}"
    if isinstance(found, jax.ShapeDtypeStruct):
        return f"an array of shape {found.shape} and {found.dtype}"
    if isinstance(found, tuple | list):
        return f"a {type(found).__name__} of length {len(found)}"
    return f"a {type(found).__name__}"
