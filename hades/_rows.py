"""Rows of work: filled up to a multiple, so that they divide evenly, and the axis that they are along."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from hades.types import PyTree


def pad_rows(xs: PyTree, multiple: int) -> PyTree:
    """Fills the leading axis `[rows]` with copies of the first row, up to the next multiple."""
    rows = jax.tree.leaves(xs)[0].shape[0]
    missing = -rows % multiple
    if not missing:
        return xs
    return jax.tree.map(lambda leaf: jnp.concatenate([leaf, jnp.repeat(leaf[:1], missing, axis=0)]), xs)


def pad_with_zeros(xs: PyTree, multiple: int) -> PyTree:
    """Fills the leading axis `[rows]` with zeros, up to the next multiple."""

    def pad(leaf: jax.Array) -> jax.Array:
        return jnp.pad(leaf, [(0, -leaf.shape[0] % multiple), *[(0, 0)] * (leaf.ndim - 1)])

    return jax.tree.map(pad, xs)


def swapped(xs: PyTree) -> PyTree:
    """Arrays with their first two axes exchanged, such as `[inits, candidates, ...]` of `[candidates, inits, ...]`."""
    return jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), xs)
