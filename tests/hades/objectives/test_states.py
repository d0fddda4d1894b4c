"""Objectives on offline states: formulas, composition, and what they refuse."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from hades import policies
from hades.distributions import DiagonalGaussian
from hades.fitness import PresentPolicies
from hades.normalization import Normalizer
from hades.objectives.states import (
    Critic,
    LabelledStates,
    OfflineStates,
    StateObjective,
    av_pbc,
    dbc,
    pbc,
    pbc_mean_weight,
    q_pbc,
    sdw,
    sdw_av_pbc,
    sdw_pbc,
)
from hades.offline.density import AliasTable
from tests.helpers import make_teacher


@struct.dataclass
class SumOfAll:
    """A teacher whose action value is the sum of observation and action."""

    def q(self, observations, actions):
        return observations.sum(-1) + actions.sum(-1)


ACTIONS = np.array([[0.5, -0.5], [1.0, 0.0]], np.float32)
STATES = LabelledStates(
    np.zeros((2, 3), np.float32),
    actions=np.array([[0.5, 0.5], [0.0, 0.0]], np.float32),
    teacher_actions=np.array([[-0.5, -0.5], [1.0, 2.0]], np.float32),
    action_values=np.array([100.0, -50.0], np.float32),
    state_weights=np.array([0.25, 1.75], np.float32),
    mean_action_value=np.float32(25.0),
    critic=Critic(SumOfAll(), Normalizer(kind="fixed", mean=np.float32(1.0), std=np.float32(2.0)), np.float32(4.0)),
)
# By hand: mean squared differences to the data are 1/2 and 1/2, to the teacher 1/2 and 2; weights are 0.02 q.
EXPECTED = {
    "dbc": [-0.5, -0.5],
    "pbc": [-0.5, -2.0],
    "av-pbc": [-1.0, 2.0],
    "sdw-pbc": [-0.125, -3.5],
    "sdw-av-pbc": [-0.25, 3.5],
    "pbc-mean-weight": [-0.25, -1.0],
    # The critic sees raw observations of 1, 3 in all, and adds the actions; a fourth of that, 2.5 times.
    "q-pbc": [2.5 * 3 / 4 - 0.5, 2.5 * 4 / 4 - 2.0],
}


@pytest.mark.parametrize(
    "objective", [dbc, pbc, av_pbc, sdw_pbc, sdw_av_pbc, pbc_mean_weight, q_pbc], ids=lambda part: part.name
)
def test_values_are_those_of_the_formulas(objective):
    np.testing.assert_allclose(objective(ACTIONS, STATES), EXPECTED[objective.name], rtol=1e-6)


@pytest.mark.parametrize(
    ("objective", "teacher", "density", "value"),
    [
        (dbc, False, False, False),
        (pbc, True, False, False),
        (av_pbc, True, False, True),
        (sdw_pbc, True, True, False),
        (sdw(dbc), False, True, False),
        (pbc_mean_weight, True, False, True),
        (q_pbc, True, False, False),
    ],
    ids=lambda part: getattr(part, "name", None),
)
def test_objectives_say_which_labels_they_need(objective, teacher, density, value):
    assert (objective.needs_teacher, objective.needs_density, objective.weighs_by_value) == (teacher, density, value)
    assert objective.name == ("sdw-dbc" if density and not teacher else objective.name)


def test_weights_of_states_compose_with_any_objective():
    np.testing.assert_allclose(sdw(dbc)(ACTIONS, STATES), [-0.125, -0.875])
    np.testing.assert_allclose(sdw(sdw(pbc))(ACTIONS, STATES), [-0.03125, -6.125])


@pytest.mark.parametrize(
    ("objective", "missing"),
    [
        (dbc, "actions"),
        (pbc, "teacher_actions"),
        (av_pbc, "action_values"),
        (pbc_mean_weight, "mean_action_value"),
        (sdw(pbc), "state_weights"),
        (q_pbc, "critic"),
    ],
)
def test_a_missing_label_is_named(objective, missing):
    with pytest.raises(ValueError, match=f"^{missing}: {objective.name} needs it, expected labelled states"):
        objective(ACTIONS, STATES.replace(**{missing: None}))


def test_taking_states_keeps_rows_together_and_the_mean_of_all():
    taken = STATES.take(np.array([1, 1, 0]))
    np.testing.assert_array_equal(taken.action_values, [-50, -50, 100])
    np.testing.assert_array_equal(taken.teacher_actions[2], [-0.5, -0.5])
    assert float(taken.mean_action_value) == 25.0
    assert LabelledStates(STATES.observations).take(np.array([0])).actions is None


def constant_policy():
    """Acts by its parameters, with a standard deviation of 1, whatever it sees."""

    def apply(params, observations):
        return DiagonalGaussian(jnp.broadcast_to(params, (*observations.shape[:-1], 2)), jnp.zeros(2))

    return policies.Policy(lambda key: jax.random.normal(key, (2,)), apply)


def test_values_of_policies_are_means_over_the_drawn_states():
    # A copy of the action in the observation tells which states were drawn.
    count, drawn = 50, 7
    actions = np.random.default_rng(0).normal(size=(count, 2)).astype(np.float32)
    states = LabelledStates(jnp.asarray(actions), actions=jnp.asarray(actions))
    objective = OfflineStates(states, Normalizer(), None, constant_policy(), dbc, num_states=drawn)
    params = jnp.arange(12.0).reshape(3, 2, 2)
    problem, state, _ = objective.draw(jax.random.key(0), objective.init(jax.random.key(1)), PresentPolicies(2))
    values, counts = jax.jit(objective.value)(problem, params)
    batch = np.asarray(problem.shared.observations)
    assert batch.shape == (drawn, 2) and state == ()
    assert {tuple(row) for row in batch} <= {tuple(row) for row in actions}
    expected = [[-np.mean((params[c, i] - batch) ** 2) for i in range(2)] for c in range(3)]
    np.testing.assert_allclose(values, expected, rtol=1e-5)
    np.testing.assert_array_equal(counts["env_steps"], np.zeros(3))
    again, *_ = objective.draw(jax.random.key(2), state, PresentPolicies(2))
    assert (np.asarray(again.shared.observations) != batch).any()


def test_sampled_actions_are_noise_that_candidates_share():
    states = LabelledStates(jnp.zeros((4, 2)), actions=jnp.zeros((4, 2)))
    objective = OfflineStates(states, Normalizer(), None, constant_policy(), dbc, 400, "sample")
    problem, *_ = objective.draw(jax.random.key(0), (), PresentPolicies(3))
    values, _ = jax.jit(objective.value)(problem, jnp.zeros((2, 3, 2)))
    # E z^2 is 1; a standard error of the mean of 800 squares is 0.05.
    np.testing.assert_allclose(values, -1.0, atol=0.25)
    np.testing.assert_array_equal(values[0], values[1])
    assert len(set(np.asarray(values[0]).tolist())) == 3


def test_sampled_labels_are_drawn_anew_from_the_raw_observations():
    teacher, statistics = make_teacher(), Normalizer("fixed", jnp.array([1.0, 2.0]), jnp.array([2.0, 4.0]))
    states = LabelledStates(jnp.zeros((3, 2)), teacher_actions=jnp.zeros((3, 2)), action_values=jnp.zeros(3))
    objective = OfflineStates(states, statistics, teacher, constant_policy(), pbc, num_states=500)
    first, second = (objective.draw(jax.random.key(seed), (), PresentPolicies(1))[0].shared for seed in (0, 1))
    assert (np.asarray(first.teacher_actions) != np.asarray(second.teacher_actions)).all()
    np.testing.assert_allclose(first.action_values, 100.0)
    # tanh(observation / 2) of the teacher at the raw mean (1, 2), where normalised observations are 0.
    expected = teacher.policy(jnp.array([[1.0, 2.0]])).mode()[0]
    np.testing.assert_allclose(np.median(first.teacher_actions, axis=0), expected, atol=0.03)
    assert objective.normalizer(()) is statistics


def test_an_objective_of_ones_own_is_a_function_with_its_needs():
    closest = StateObjective("l1", lambda actions, states: -jnp.abs(actions - states.actions).sum(-1), ("actions",))
    np.testing.assert_allclose(closest(ACTIONS, STATES), [-1.0, -1.0])
    assert sdw(closest).name == "sdw-l1"
    np.testing.assert_allclose(sdw(closest)(ACTIONS, STATES), [-0.25, -1.75])


def test_states_drawn_by_weight_count_alike_and_their_mean_is_the_weighted_one():
    count = 6
    weights = jnp.array([0.0, 1.0, 2.0, 0.0, 3.0, 0.0])
    rows = jnp.arange(float(count))[:, None]
    states = LabelledStates(rows, actions=rows, state_weights=weights / jnp.mean(weights))
    objective = sdw(dbc)
    problem = OfflineStates(states, Normalizer("none"), None, None, objective, 30_000, drawing=AliasTable.of(weights))
    found, _, metrics = problem.draw(jax.random.key(0), (), PresentPolicies(1))
    drawn = found.shared
    found = np.bincount(np.asarray(drawn.observations[:, 0], int), minlength=count) / 30_000
    np.testing.assert_allclose(found, weights / 6, atol=0.015)
    assert (np.asarray(drawn.state_weights) == 1).all()
    # (1 + 2 + 3)^2 / (1 + 4 + 9) of six.
    assert float(metrics["effective_sample_size"]) == pytest.approx(36 / 14 / 6, rel=1e-6)
