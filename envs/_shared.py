"""Options of simulators, checked and recorded, and states that keep one structure, for all adapters."""

from __future__ import annotations

import inspect
import json
import operator
from collections.abc import Callable, Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from hades._environment_contract import is_key, strong
from hades.types import Continuous, Environment, PyTree

__all__ = [
    "bounded",
    "cast_like",
    "check_count",
    "freeze",
    "keyword_names",
    "make_simulator",
    "strong",
    "thaw",
    "trace_step",
]

_LARGEST_COUNT = 2**31 - 1


def check_count(name: str, option: str, value: Any) -> int:
    """Returns an option of an environment as an int.

    Raises:
        ValueError: If it is not a whole number from 1 to 2^31 - 1.
    """
    try:
        count = operator.index(value)
    except TypeError:
        count = 0
    if isinstance(value, bool) or not 1 <= count <= _LARGEST_COUNT:
        raise ValueError(f"{option} of {name} must be a whole number of at least 1, got {value!r}")
    return count


def keyword_names(function: Callable[..., Any], leave_out: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The keyword arguments that have defaults, less those that are not the user's to give.

    Of a class whose `__init__` takes `**kwargs` they are also those of its base classes.
    """
    initialisers = [function]
    if inspect.isclass(function):
        initialisers = [vars(base)["__init__"] for base in inspect.getmro(function) if "__init__" in vars(base)]
    names: dict[str, None] = {}
    for initialiser in initialisers:
        try:
            parameters = inspect.signature(initialiser).parameters.values()
        except ValueError:
            break
        named = [parameter for parameter in parameters if parameter.default is not inspect.Parameter.empty]
        names |= dict.fromkeys(parameter.name for parameter in named)
        if not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
            break
    return tuple(name for name in names if name not in leave_out)


def make_simulator(full_name: str, options: Mapping[str, Any], make: Callable[[], Any]) -> Any:
    """Calls `make`, and says in a sentence what a simulator finds wrong with its options.

    Raises:
        ValueError: The simulator raises TypeError, ValueError, AttributeError or KeyError; without options it is
            passed on as it is.
    """
    try:
        return make()
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        if not options:
            raise
        given = ", ".join(f"{name}={value!r}" for name, value in options.items())
        raise ValueError(f"{full_name} cannot be made with {given}: {str(error).partition(chr(10))[0]}") from error


def freeze(full_name: str, options: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Options of a simulator by name, hashable: lists as tuples.

    Raises:
        ValueError: A value is not a number, a string, a bool, None or a list of these, which a file can hold.
    """

    def frozen(value: Any) -> Any:
        return tuple(map(frozen, value)) if isinstance(value, list | tuple) else value

    for name, value in options.items():
        try:
            json.dumps(value, allow_nan=False)
            hash(frozen(value))
        except (TypeError, ValueError):
            raise ValueError(
                f"{name} of {full_name} must be a number, a string, a bool, None or a list of these, got {value!r}"
            ) from None
    return tuple((name, frozen(options[name])) for name in sorted(options))


def thaw(
    frozen: tuple[tuple[str, Any], ...], max_steps: int | None = None, default_max_steps: int | None = None
) -> dict[str, Any]:
    """The options that `freeze` was given, with lists, as JSON reads them back; and a limit that is not the default."""

    def value_of(value: Any) -> Any:
        return list(map(value_of, value)) if isinstance(value, tuple) else value

    limit = {} if max_steps == default_max_steps else {"max_steps": max_steps}
    return {name: value_of(value) for name, value in frozen} | limit


def bounded(full_name: str, space: Any) -> Continuous:
    """The action space of a simulator's box, flattened.

    Raises:
        ValueError: Its bounds are not finite, so that actions could not be clipped to them.
    """
    low, high = (np.broadcast_to(np.asarray(bound, float), space.shape).ravel() for bound in (space.low, space.high))
    try:
        return Continuous(low=tuple(low.tolist()), high=tuple(high.tolist()))
    except ValueError as error:
        raise ValueError(f"{full_name} is not supported: {error}") from error


def cast_like(tree: PyTree, like: PyTree) -> PyTree:
    """Gives every leaf that a step computed the dtype of its counterpart in what it was given, strongly typed.

    Raises:
        ValueError: If the structures or shapes differ.
        TypeError: If a cast could lose more than precision, such as that of a float to an integer.
    """

    def cast(leaf: Any, old: jax.Array) -> jax.Array:
        if is_key(old) and is_key(leaf) and leaf.dtype == old.dtype and leaf.shape == old.shape:
            return leaf
        if jnp.shape(leaf) != old.shape:
            raise ValueError(f"a step turned an array of shape {old.shape} into one of shape {jnp.shape(leaf)}")
        if is_key(old) or is_key(leaf) or not np.can_cast(jnp.result_type(leaf), old.dtype, casting="same_kind"):
            raise TypeError(f"a step turned an array of {old.dtype} into one of {jnp.result_type(leaf)}")
        return jnp.asarray(leaf, old.dtype)

    return jax.tree.map(cast, tree, like)


def trace_step(environment: Environment) -> None:
    """Traces one step, which raises what the simulator raises, and computes nothing."""
    key = jax.random.key(0)
    state, _ = jax.eval_shape(environment.reset, key)
    jax.eval_shape(environment.step, key, state, jnp.zeros(cast(Continuous, environment.action_space).action_dim))
