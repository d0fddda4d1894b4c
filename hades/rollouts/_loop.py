"""The loop over the steps of first episodes, which goes on with fewer candidates where most have ended."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp

from hades.types import PyTree

Groups = TypeVar("Groups")
Result = TypeVar("Result")


def play_until_ended(
    advance: Callable[[jax.Array, Groups, PyTree], Groups],
    alive: Callable[[Groups], jax.Array],
    result: Callable[[Groups], Result],
    groups: Groups,
    params: PyTree,
    halvings: int,
) -> Result:
    """Advances episodes until the last one has ended.

    Where at most half of the candidates have episodes that live, those go on alone, in arrays of half the size, and so
    on. One scalar predicate ends each of these loops.

    Args:
        advance: `advance(time, groups, params)` takes step `time`, `[]` int32, of all episodes. Candidates are
            independent of each other, may come in any order, and keep their results once their episodes have ended.
        alive: Which episodes of some groups have not ended, `[candidates, ...]` bool.
        result: What is kept of some groups, `[candidates, ...]` in each leaf.
        groups: Before the first step, `[candidates, ...]` in each leaf.
        params: Parameters, `[candidates, ...]` in each leaf.
        halvings: Times that candidates are left behind; each time is one more copy of the step to compile.

    Returns:
        The result of each candidate, `[candidates, ...]`.
    """

    def has_living(groups: Groups) -> jax.Array:
        found = alive(groups)
        return jnp.any(found, axis=tuple(range(1, found.ndim)))

    def advance_until(at_most: int, time: jax.Array, groups: Groups, params: PyTree) -> tuple[jax.Array, Groups]:
        """Advances until episodes of so many candidates live; the time then, and the groups."""

        def goes_on(carry: tuple[jax.Array, Groups]) -> jax.Array:
            return jnp.sum(has_living(carry[1])) > at_most if at_most else jnp.any(alive(carry[1]))

        def step(carry: tuple[jax.Array, Groups]) -> tuple[jax.Array, Groups]:
            return carry[0] + 1, advance(*carry, params)

        return jax.lax.while_loop(goes_on, step, (time, groups))

    candidates = alive(groups).shape[0]
    sizes = [candidates >> halving for halving in range(1, halvings + 1) if candidates >> halving]
    time, groups = advance_until(sizes[0] if sizes else 0, jnp.int32(0), groups, params)
    results, places = result(groups), jnp.arange(candidates)
    for size, at_most in itertools.pairwise([*sizes, 0]):
        # At most `size` candidates live, and the sort puts them first.
        first = jnp.argsort(~has_living(groups), stable=True)[:size]
        places, groups, params = _take((places, groups, params), first)
        time, groups = advance_until(at_most, time, groups, params)
        results = _put(results, places, result(groups))
    return results


def _take(tree: PyTree, rows: jax.Array) -> PyTree:
    return jax.tree.map(lambda leaf: jnp.asarray(leaf)[rows], tree)


def _put(tree: PyTree, rows: jax.Array, values: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf, value: leaf.at[rows].set(value), tree, values)
