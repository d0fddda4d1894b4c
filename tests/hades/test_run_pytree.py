"""Runs as pytrees: their large arrays are arguments of programs that are compiled ahead of time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.diagnostic import Match
from hades import recipes
from hades.normalization import Normalizer
from hades.offline.transitions import Transitions
from hades.run import Run
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


@pytest.mark.parametrize("recipe", [recipes.hades_r, recipes.hades_pg, recipes.neuroevolution, recipes.ppo])
def test_runs_by_other_statistics_are_one_program(recipe: Callable[..., Run[Any]]) -> None:
    env = Match()
    trees = []
    for std in (2.0, 3.0):
        given = Normalizer("fixed", mean=jnp.zeros(3), std=jnp.full(3, std))
        leaves, tree = jax.tree.flatten(recipe(env, normalizer=given, observation_normalization="fixed"))
        assert any(np.array_equal(leaf, given.std) for leaf in leaves)
        trees.append(tree)
    assert trees[0] == trees[1]
