"""Objectives of offline distillation: how well a cloned policy acts at single states of the offline data.

Each is a pure function of the policy's actions and a batch of labelled states, and returns one value for each state,
higher is better; the objective is their mean. What weighs states wraps what measures actions, so that they compose:
`sdw(av_pbc)`. The episodic return, which needs a simulator, is `hades.fitness`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
from flax import struct

from hades.dataset import SyntheticDataset
from hades.distributions import ActionSelection, choose
from hades.fitness import FitnessKeys, clone_inits, init_networks
from hades.inner.cloning import BehaviourCloning
from hades.types import PyTree

ObjectiveName = Literal["dbc", "pbc", "av-pbc", "sdw-pbc", "sdw-av-pbc", "pbc-mean-weight"]

ACTION_VALUE_SCALE = 0.02
"""What the published Av-PBC multiplies action values with (released code of arXiv 2410.22728)."""


@struct.dataclass
class LabelledStates:
    """States of the offline data with all that an objective may ask of them; a field that none asks for may be None.

    Attributes:
        observations: As the policy sees them, after normalisation, `[states, *observation_shape]`.
        actions: Of the data, `[states, action_dim]`.
        teacher_actions: Of the teacher, a* ~ pi*(. | s) or its mode, `[states, action_dim]`.
        action_values: q*(s, a*), `[states]`.
        state_weights: d(s)^-tau, clipped and divided by its mean, `[states]`.
        mean_action_value: Mean of q*(s, a*) over all states of the data, `[]`.
    """

    observations: jax.Array
    actions: jax.Array | None = None
    teacher_actions: jax.Array | None = None
    action_values: jax.Array | None = None
    state_weights: jax.Array | None = None
    mean_action_value: jax.Array | None = None

    def take(self, indices: jax.Array) -> LabelledStates:
        """The states of these indices `[states]`."""
        mean = self.mean_action_value
        return jax.tree.map(lambda leaf: leaf[indices], self.replace(mean_action_value=None)).replace(  # type: ignore[attr-defined]
            mean_action_value=mean
        )


StateObjective: TypeAlias = Callable[[jax.Array, LabelledStates], jax.Array]
"""`objective(actions [states, action_dim], states)`: values `[states]`, higher is better."""


def dbc(actions: jax.Array, states: LabelledStates) -> jax.Array:
    """Data-based behaviour cloning (arXiv 2410.22728): minus the mean squared difference to the actions of the data."""
    return -_squared_distance(actions, _need(states.actions, "actions"))


def pbc(actions: jax.Array, states: LabelledStates) -> jax.Array:
    """Policy-based behaviour cloning (arXiv 2410.22728): minus the mean squared difference to the teacher's actions."""
    return -_squared_distance(actions, _need(states.teacher_actions, "teacher_actions"))


def av_pbc(actions: jax.Array, states: LabelledStates) -> jax.Array:
    """Action-value weighted PBC (arXiv 2410.22728, equation 6), with the published scale of action values.

    Example:
        >>> ones = jnp.ones((1, 2))
        >>> states = LabelledStates(jnp.zeros((1, 3)), teacher_actions=ones, action_values=jnp.array([50.0]))
        >>> av_pbc(0 * ones, states).tolist()
        [-1.0]
    """
    return ACTION_VALUE_SCALE * _need(states.action_values, "action_values") * pbc(actions, states)


def pbc_mean_weight(actions: jax.Array, states: LabelledStates) -> jax.Array:
    """PBC times the mean weight of Av-PBC: the control that tells weighting from longer outer steps."""
    return ACTION_VALUE_SCALE * _need(states.mean_action_value, "mean_action_value") * pbc(actions, states)


def sdw(objective: StateObjective) -> StateObjective:
    """State density weighting (arXiv 2512.06692) of another objective: rare states weigh more.

    Args:
        objective: What is weighted: `pbc` or `av_pbc`.
    """

    def weighted(actions: jax.Array, states: LabelledStates) -> jax.Array:
        return _need(states.state_weights, "state_weights") * objective(actions, states)

    return weighted


OBJECTIVES: dict[ObjectiveName, StateObjective] = {
    "dbc": dbc,
    "pbc": pbc,
    "av-pbc": av_pbc,
    "sdw-pbc": sdw(pbc),
    "sdw-av-pbc": sdw(av_pbc),
    "pbc-mean-weight": pbc_mean_weight,
}


def make_offline_fitness(
    clone: BehaviourCloning,
    objective: StateObjective,
    action_selection: ActionSelection = "mode",
    window: int | None = None,
) -> Callable[[FitnessKeys, PyTree, LabelledStates], jax.Array]:
    """Makes F(D) of an objective on offline states: differentiable in D, and batched over candidates.

    Args:
        clone: The inner loop; rematerialising where gradients are to be taken.
        objective: Scores the actions of a cloned policy.
        action_selection: Whether the cloned policy's actions are sampled or the mode.
        window: Steps of the inner loop that gradients flow through, which then stops at a random step
            (`BehaviourCloning.fit_window`); all of them if None.

    Returns:
        A function of keys with `[inits]`, datasets with a leading axis `[candidates]`, and the states; it returns
        values `[candidates, inits]`. Candidates share initialisations, states and noise.
    """

    def fitness(keys: FitnessKeys, datasets: SyntheticDataset, states: LabelledStates) -> jax.Array:
        trained = clone_inits(clone, keys, init_networks(clone, keys), datasets, window)

        def score(key: jax.Array, network: PyTree) -> jax.Array:
            actions = choose(key, clone.policy.apply(network, states.observations), action_selection)
            return jnp.mean(objective(actions, states))

        over_inits = jax.vmap(score)
        return jax.vmap(over_inits, in_axes=(None, 0))(keys.episodes, trained)

    return fitness


def _squared_distance(actions: jax.Array, targets: jax.Array) -> jax.Array:
    # Divided by the number of components, as in the released code, whose step sizes count on it.
    return jnp.mean(jnp.square(actions - targets), axis=-1)


def _need(field: jax.Array | None, name: str) -> jax.Array:
    if field is None:
        raise ValueError(f"{name}: this objective needs it, expected labelled states that have it")
    return field
