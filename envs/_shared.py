"""What the adapters have in common: checking options, and keeping the carry of a loop at one structure."""

from __future__ import annotations

import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hades.types import PyTree

_LARGEST_COUNT = 2**31 - 1


def check_count(name: str, option: str, value: Any) -> int:
    """Returns an option that counts something, as an int.

    Args:
        name: The environment, for the message.
        option: The option's name, for the message.
        value: What the user gave.

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


def strong(tree: PyTree) -> PyTree:
    """Makes every leaf an array of its own dtype, not a weakly typed one, which a loop could not carry.

    Args:
        tree: Arrays and Python numbers.
    """
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf)), tree)


def cast_like(tree: PyTree, like: PyTree) -> PyTree:
    """Gives every leaf the dtype of its counterpart, strongly typed, so that a step returns what it was given.

    Args:
        tree: What a step computed.
        like: What the step was given, of the same structure and shapes.

    Raises:
        ValueError: If the structures or shapes differ.
        TypeError: If a cast could lose more than precision, such as that of a float to an integer.
    """

    def cast(leaf: Any, old: jax.Array) -> jax.Array:
        if jnp.shape(leaf) != old.shape:
            raise ValueError(f"a step turned an array of shape {old.shape} into one of shape {jnp.shape(leaf)}")
        if not np.can_cast(jnp.result_type(leaf), old.dtype, casting="same_kind"):
            raise TypeError(f"a step turned an array of {old.dtype} into one of {jnp.result_type(leaf)}")
        return jnp.asarray(leaf, old.dtype)

    return jax.tree.map(cast, tree, like)
