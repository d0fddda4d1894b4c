"""Finite rows of arrays and trees."""

from __future__ import annotations

import functools
import operator
from typing import Any

import jax
import jax.numpy as jnp

from hades.types import PyTree


def all_finite(array: jax.Array) -> jax.Array:
    """Whether every number of each row of `[envs, ...]` is finite, `[envs]` bool."""
    return jnp.all(jnp.isfinite(array), axis=tuple(range(1, array.ndim)))


def any_nan(tree: PyTree) -> jax.Array:
    """Whether a floating leaf `[envs, ...]` holds a NaN, `[envs]` bool; False, `[]`, where none is floating."""
    floating = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    flags: list[Any] = [jnp.any(jnp.isnan(leaf), axis=tuple(range(1, leaf.ndim))) for leaf in floating]
    return functools.reduce(operator.or_, flags, jnp.bool_(False))
