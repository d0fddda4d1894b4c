"""Collecting: whole trajectories in order, shares, noise, ends, and what is refused."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from hades import policies
from hades.distributions import Deterministic
from hades.normalization import Normalizer, PolicyParams
from hades.offline.collect import Behaviour, collect, uniform_behaviour
from hades.offline.quality import choose_snapshots
from hades.policies import Policy
from tests.helpers import OnHost, Walk

KEY = jax.random.key(4)
CONSTANT = Policy(lambda key: (), lambda params, seen: Deterministic(jnp.broadcast_to(params, (len(seen), 1))))
BOTH = pytest.mark.parametrize("env", [Walk(), OnHost()], ids=["pure", "host"])


def constant(action: float, **departures: float) -> Behaviour:
    return Behaviour(CONSTANT, PolicyParams(jnp.float32(action)), **departures)  # type: ignore[arg-type]


@BOTH
def test_trajectories_are_whole_and_in_order_and_the_last_of_each_share_is_cut(env):
    # Positions 0.5, 1, ... 2.5 end after five steps; those of 0.1 go on to the limit of twelve.
    data = collect(KEY, env, [constant(0.5), constant(0.1)], 34, num_envs=3)
    terminals, timeouts = np.zeros(34, bool), np.zeros(34, bool)
    terminals[[4, 9, 14]] = True
    timeouts[[16, 28, 33]] = True
    np.testing.assert_array_equal(data.terminals, terminals)
    np.testing.assert_array_equal(data.timeouts, timeouts)
    steps = np.concatenate([np.arange(length) for length in (5, 5, 5, 2, 12, 5)])
    speed = np.where(np.arange(34) < 17, 0.5, 0.1)
    np.testing.assert_allclose(data.observations, np.stack([speed * steps, 0.1 * steps], axis=1), atol=1e-5)
    np.testing.assert_allclose(data.next_observations[:, 0], speed * (steps + 1), atol=1e-5)
    np.testing.assert_allclose(data.rewards, speed * (steps + 1), atol=1e-5)
    np.testing.assert_allclose(data.actions[:, 0], speed, atol=1e-6)
    assert (data.env, data.observations.dtype, data.terminals.dtype) == (env.name, jnp.float32, jnp.bool_)


@BOTH
def test_noise_is_in_halves_of_the_range_and_stays_in_bounds(env):
    data = collect(KEY, env, [constant(1.0, noise=0.25)], 2000, num_envs=50)
    actions = np.asarray(data.actions)
    # The range is -1 .. 3, so that its half is 2.
    assert abs(actions.mean() - 1) < 0.05 and abs(actions.std() - 0.5) < 0.05
    wide = np.asarray(collect(KEY, env, [constant(1.0, noise=5.0)], 500, num_envs=50).actions)
    assert (wide.min(), wide.max()) == (-1, 3)
    moved = np.asarray(data.next_observations - data.observations)[:, 0]
    np.testing.assert_allclose(moved, actions[:, 0], atol=1e-5)


@BOTH
def test_epsilon_is_the_part_of_uniform_actions(env):
    actions = np.asarray(collect(KEY, env, [constant(0.0, epsilon=0.3)], 2000, num_envs=50).actions)[:, 0]
    uniform = actions[actions != 0]
    assert abs(len(uniform) / 2000 - 0.3) < 0.05
    assert abs(uniform.mean() - 1) < 0.15 and abs(uniform.std() - 4 / np.sqrt(12)) < 0.1
    assert uniform.min() >= -1 and uniform.max() <= 3


def test_shares_are_in_proportion_and_the_same_key_gives_the_same_data():
    behaviours = [constant(0.3, weight=1.0), uniform_behaviour(Walk(), weight=0.5), constant(0.2, weight=0.5)]
    steps = []
    data = collect(KEY, Walk(), behaviours, 101, num_envs=4, on_steps=steps.append)
    values, counts = np.unique(np.asarray(data.actions), return_counts=True)
    assert dict(zip(values.tolist(), counts.tolist(), strict=True))[np.float32(0.3)] == 50
    assert data.num_transitions == 101 <= sum(steps)
    again = collect(KEY, Walk(), behaviours, 101, num_envs=4)
    jax.tree.map(np.testing.assert_array_equal, data, again)
    other = collect(jax.random.key(5), Walk(), behaviours, 101, num_envs=4)
    assert not np.array_equal(data.actions, other.actions)


def test_samples_are_drawn_where_asked_and_observations_are_normalised():
    policy = policies.mlp(Walk(), ())
    network = policy.init(KEY)
    network["head"] = {"kernel": jnp.array([[1.0], [0.0]]), "bias": jnp.zeros(1)}
    normalizer = Normalizer("fixed", jnp.array([-1.0, 0.0]), jnp.array([2.0, 1.0]))
    behaviour = Behaviour(policy, PolicyParams(network, normalizer))
    data = collect(KEY, Walk(), [behaviour], 40, num_envs=4)
    np.testing.assert_allclose(data.actions[:, 0], (data.observations[:, 0] + 1) / 2, rtol=1e-5)
    sampled = collect(KEY, Walk(), [dataclasses.replace(behaviour, action_selection="sample")], 40, num_envs=4)
    assert len(np.unique(sampled.actions)) > 20


def test_a_trajectory_ends_before_its_first_step_that_is_not_finite():
    # The action is not a number from position 1 on, which steps of 0.5 reach in two.
    bad = Policy(lambda key: (), lambda params, seen: Deterministic(jnp.where(seen[:, :1] >= 1, jnp.nan, 0.5)))
    for env in (Walk(), OnHost()):
        data = collect(KEY, env, [Behaviour(bad, PolicyParams(()))], 5, num_envs=2)
        assert np.asarray(data.timeouts).tolist() == [False, True, False, True, True]
        assert not np.asarray(data.terminals).any() and np.isfinite(data.rewards).all()
    with pytest.raises(ValueError, match="policy: expected finite actions and rewards in test/walk, got none"):
        collect(KEY, Walk(), [constant(jnp.nan)], 5, num_envs=2)


def test_mujoco_data_can_be_played_again_step_by_step():
    pytest.importorskip("mujoco", reason="the extra mujoco is not installed")
    env = envs.make("gymnasium/Hopper-v4")
    data = collect(KEY, env, [uniform_behaviour(env)], 120, num_envs=4)
    ends = np.flatnonzero(data.terminals | data.timeouts)
    assert len(ends) > 2 and ends[-1] == 119
    inside = np.setdiff1d(np.arange(119), ends)
    observations, following = np.asarray(data.observations), np.asarray(data.next_observations)
    np.testing.assert_array_equal(following[inside], observations[inside + 1])
    assert (following[ends[:-1]] != observations[ends[:-1] + 1]).any(axis=1).all()
    # Every falling ends with a height or angle out of bounds, and no other step does.
    unhealthy = (following[:, 0] <= 0.7) | (np.abs(following[:, 1]) >= 0.2)
    np.testing.assert_array_equal(unhealthy, data.terminals)


@pytest.mark.parametrize(
    ("refused", "reason"),
    [
        (lambda: constant(0.0, noise=-0.1), "noise: expected a number of at least 0, got -0.1"),
        (lambda: constant(0.0, noise=float("nan")), "noise: expected a number of at least 0"),
        (lambda: constant(0.0, epsilon=1.5), "epsilon: expected a probability, got 1.5"),
        (lambda: constant(0.0, weight=0.0), "weight: expected a number above 0"),
        (
            lambda: Behaviour(CONSTANT, PolicyParams((), Normalizer("running"))),
            "policy: expected no or fixed normalisation",
        ),
        (lambda: collect(KEY, Walk(), [], 5), "num_transitions: expected at least one for each of the behaviours"),
        (lambda: collect(KEY, Walk(), [constant(0.0)], 0), "num_transitions: expected a number above 0"),
        (
            lambda: collect(KEY, envs.make("diagnostic/match"), [constant(0.0, noise=0.1)], 5),
            "noise: expected 0, as actions of diagnostic/match are discrete",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(refused, reason):
    with pytest.raises(ValueError, match=reason):
        refused()


@pytest.mark.parametrize(
    ("quality", "chosen"),
    [("random", [0]), ("medium", [3]), ("medium-replay", [0, 1, 2, 3]), ("medium-expert", [3, 4]), ("expert", [4])],
)
def test_stages_are_those_of_d4rl(quality, chosen):
    # Half way between -10 and 90 is 40; the best comes before the last.
    assert choose_snapshots([-10.0, 0.0, 39.9, 40.0, 90.0, 50.0], quality) == chosen


@pytest.mark.parametrize("means", [[], [1.0], [1.0, 1.0], [2.0, 1.0], [1.0, float("nan")]])
def test_stages_need_a_run_that_learned(means):
    with pytest.raises(ValueError, match="snapshots: expected"):
        choose_snapshots(means, "medium")
