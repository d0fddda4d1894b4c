"""Runs as pytrees: arrays are leaves, all else decides whether a compiled program is found again."""

from __future__ import annotations

import dataclasses
import functools
import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hades
from envs.diagnostic import Match, Target
from hades.outer import EvolutionSettings
from hades.policies import mlp
from hades.run import checksum, describe, describe_functions
from hades.training import advance
from tests.helpers import make_teacher, uniform_transitions

ENV, TEACHER = Target(action_dim=2, max_steps=4), make_teacher()
DATA = uniform_transitions("diagnostic/target", 40)


def offline(data=DATA, **settings):
    cloning = hades.inner.CloningSettings(hidden_sizes=(4,), kernel_init="lecun_normal", loss="mse", num_steps=2)
    return hades.recipes.av_pbc(ENV, data, TEACHER, dataset_size=3, num_states=8, cloning=cloning, **settings)


def test_offline_data_are_leaves_and_an_evolution_has_none(small_run):
    assert jax.tree.leaves(small_run) == []
    shapes = {leaf.shape for leaf in jax.tree.leaves(offline())}
    assert {(40, 2), (40,)} <= shapes


def test_programs_take_the_data_as_arguments():
    run = offline()
    state = jax.eval_shape(run.init, jax.random.key(0))
    program = jax.make_jaxpr(lambda run, state: advance(run, state, state.iteration + 1, rows=1, log_every=1))(
        run, state
    )
    arguments = [variable.aval.shape for variable in program.jaxpr.invars]
    assert arguments.count((40, 2)) >= 2
    assert all(np.size(constant) < 40 for constant in program.consts)


@pytest.mark.slow
def test_other_data_of_the_same_shape_need_no_other_program():
    traces = []

    @jax.jit
    def step(run, state):
        traces.append(1)
        return run.step(state)

    other = dataclasses.replace(DATA, observations=DATA.observations + 1, actions=-DATA.actions)
    metrics = []
    for data in (DATA, DATA, other):
        run = offline(data)
        _, found = step(run, jax.jit(run.init)(jax.random.key(0)))
        metrics.append(float(found["fitness_mean"]))
    assert len(traces) == 1
    assert metrics[0] == metrics[1] != metrics[2]
    step(offline(num_inits=2), offline(num_inits=2).init(jax.random.key(0)))
    assert len(traces) == 2


def test_a_run_survives_flattening_and_seeds_by_vmap(small_run):
    run = jax.tree.unflatten(jax.tree.structure(offline()), jax.tree.leaves(offline()))
    assert (run.method, run.kind, run.env) == ("av-pbc", "dataset", ENV)
    chex.assert_trees_all_equal(run, offline())
    assert jax.tree.structure(small_run) == jax.tree.structure(
        hades.recipes.from_settings(Match(num_actions=3, max_steps=8), small_run.settings)
    )
    assert jax.tree.structure(small_run) != jax.tree.structure(
        hades.recipes.from_settings(Match(num_actions=3, max_steps=9), small_run.settings)
    )


def test_configurations_tell_settings_environments_and_data_apart(small_run):
    config = small_run.config()
    assert (config["method"], config["env"], config["arrays"]) == ("hades-r", "diagnostic/match", None)
    assert config["settings"]["evolution"]["sigma"] == 0.5
    same, other = offline().config(), offline(dataclasses.replace(DATA, rewards=DATA.rewards + 1)).config()
    assert same == offline().config()
    assert same["arrays"] == other["arrays"]  # rewards are none of the objective's
    moved = offline(dataclasses.replace(DATA, actions=-DATA.actions)).config()
    assert moved["arrays"] != same["arrays"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (EvolutionSettings, "hades.outer.evolution.EvolutionSettings"),
        (functools.partial(len), "partial"),
        ([1, (2.5, None)], [1, [2.5, None]]),
        (np.zeros((2, 1), np.float32), "float32[2, 1]"),
        (Match(num_actions=3), None),
    ],
)
def test_parts_of_runs_by_hand_are_described(value, expected):
    found = describe(value)
    if expected is None:
        assert (found["type"], found["num_actions"]) == ("Match", 3)
    else:
        assert found == expected


def test_functions_are_told_apart_by_what_they_were_made_with():
    def same(make, one, other):
        first, again, second = (describe_functions(make(value)) for value in (one, one, other))
        json.dumps(first)
        return first == again != second

    assert same(lambda width: mlp(ENV, (width,)), 8, 64)
    assert same(optax.adam, 0.1, 0.001)
    assert same(lambda steps: optax.adamw(optax.cosine_decay_schedule(0.1, steps)), 5, 6)
    for number in (np.float32, jnp.float32):
        assert same(lambda rate, number=number: optax.rmsprop(number(rate)), 0.2, 0.3)
    assert same(lambda inner: lambda x: inner(x), optax.constant_schedule(1.0), optax.linear_schedule(1.0, 1.0, 0))
    assert same(lambda factor: jax.jit(lambda x: factor * x), 2, 3)
    assert same(lambda least: functools.partial(max, least), 1, 2)
    assert same(lambda factor: {"no": 0} and (lambda x, factor=factor: x), 2, 3)


def test_what_functions_change_or_never_set_is_none_of_them():
    def made(kind):
        calls = []
        if kind == "scaled":
            scale = 2.0

        def apply(x):
            calls.append(x)
            return x * scale if kind == "scaled" else x

        return apply

    def count(steps):
        return 0 if steps == 0 else count(steps - 1)

    plain = made("plain")
    before = describe_functions(plain)
    plain(1)
    assert describe_functions(plain) == before == {"calls": "list", "kind": "plain"}
    assert describe_functions(functools.wraps(max)(lambda *values: values)) is None
    assert describe_functions(count) == {"count": describe(count)}


def test_checksums_see_values():
    arrays = [jnp.arange(3.0), np.ones((2, 2), np.int32)]
    assert checksum([]) is None
    assert checksum(arrays) == checksum(jax.device_get(arrays))
    assert checksum(arrays) != checksum([arrays[0] + 1, arrays[1]])


def test_outcomes_have_the_name_of_their_kind(small_run):
    state = jax.jit(small_run.init)(jax.random.key(0))
    chex.assert_trees_all_equal(small_run.dataset(state), small_run.outcome(state))
    with pytest.raises(AttributeError, match="this run makes a dataset, not a policy"):
        _ = small_run.policy


def test_status_shows_the_kl_divergence_where_there_is_one(small_run):
    row = {"fitness_mean": 3.0, "fitness_best": 3.0, "non_finite": 0}
    assert small_run.status(row) == "fitness 3"
    assert small_run.status(row | {"approx_kl": 0.01234, "non_finite": 2}) == "fitness 3, KL 0.012, 2 not finite"
