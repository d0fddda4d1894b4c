"""Objectives on offline states: formulas, composition, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest

from hades.objectives.states import OBJECTIVES, LabelledStates, av_pbc, dbc, pbc, pbc_mean_weight, sdw

ACTIONS = np.array([[0.5, -0.5], [1.0, 0.0]], np.float32)
STATES = LabelledStates(
    np.zeros((2, 3), np.float32),
    actions=np.array([[0.5, 0.5], [0.0, 0.0]], np.float32),
    teacher_actions=np.array([[-0.5, -0.5], [1.0, 2.0]], np.float32),
    action_values=np.array([100.0, -50.0], np.float32),
    state_weights=np.array([0.25, 1.75], np.float32),
    mean_action_value=np.float32(25.0),
)
# By hand: mean squared differences to the data are 1/2 and 1/2, to the teacher 1/2 and 2; weights are 0.02 q.
EXPECTED = {
    "dbc": [-0.5, -0.5],
    "pbc": [-0.5, -2.0],
    "av-pbc": [-1.0, 2.0],
    "sdw-pbc": [-0.125, -3.5],
    "sdw-av-pbc": [-0.25, 3.5],
    "pbc-mean-weight": [-0.25, -1.0],
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_values_are_those_of_the_formulas(name):
    np.testing.assert_allclose(OBJECTIVES[name](ACTIONS, STATES), EXPECTED[name], rtol=1e-6)


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
    ],
)
def test_a_missing_label_is_named(objective, missing):
    with pytest.raises(ValueError, match=f"^{missing}: this objective needs it"):
        objective(ACTIONS, STATES.replace(**{missing: None}))


def test_taking_states_keeps_rows_together_and_the_mean_of_all():
    taken = STATES.take(np.array([1, 1, 0]))
    np.testing.assert_array_equal(taken.action_values, [-50, -50, 100])
    np.testing.assert_array_equal(taken.teacher_actions[2], [-0.5, -0.5])
    assert float(taken.mean_action_value) == 25.0
    assert LabelledStates(STATES.observations).take(np.array([0])).actions is None
