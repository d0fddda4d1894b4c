"""Runs as pytrees: their large arrays are arguments of programs that are compiled ahead of time."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from hades import recipes
from hades.offline.transitions import Transitions
from hades.types import Continuous


def test_a_program_that_is_compiled_ahead_of_time_takes_its_run() -> None:
    ends, ones = jnp.array([False, True]), jnp.ones((2, 1))
    transitions = Transitions(ones, 0 * ones, ones[:, 0], ones, terminals=ends, timeouts=ends & ~ends)
    sizes = {"actor_hidden_sizes": (4,), "critic_hidden_sizes": (4,)}
    run = recipes.cal_ql(transitions, Continuous((-1.0,), (1.0,)), **sizes)
    assert jax.tree.leaves(run)
    keys = jax.random.split(jax.random.key(0), 2)
    init = jax.jit(jax.vmap(lambda run, key: run.init(key), in_axes=(None, 0)))
    states = init.lower(run, keys).compile()(run, keys)
    np.testing.assert_array_equal(states.iteration, [0, 0])


def test_any_object_may_stand_in_the_place_of_an_array() -> None:
    ends, ones = jnp.array([False, True]), jnp.ones((2, 1))
    transitions = Transitions(ones, 0 * ones, ones[:, 0], ones, terminals=ends, timeouts=ends & ~ends)
    run = recipes.cal_ql(transitions, Continuous((-1.0,), (1.0,)))
    leaves, tree = jax.tree.flatten(run)
    places = list(map(str, range(len(leaves))))
    again, same_tree = jax.tree.flatten(jax.tree.unflatten(tree, places))
    assert (again, same_tree) == (places, tree)
