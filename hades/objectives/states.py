"""Objectives of offline distillation: a value of a trained policy's actions at single states of the data.

A `StateObjective` is a pure function of actions and labelled states with the labels that it needs; one that weighs
states wraps one that measures actions, so that they compose: `sdw(av_pbc)`. `OfflineStates` makes a
`hades.types.Objective` of any of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import cast

import jax
import jax.numpy as jnp
from flax import struct

from hades._validation import require_positive
from hades.distributions import ActionSelection, Categorical, choose
from hades.fitness import Problem
from hades.normalization import Normalizer
from hades.offline.density import AliasTable, effective_sample_size
from hades.offline.teacher import Teacher
from hades.policies import Policy
from hades.types import Metrics, Params, Policies

ACTION_VALUE_SCALE = 0.02
"""Factor of action values in the published Av-PBC (released code of arXiv 2410.22728)."""
VALUE_WEIGHT = 2.5
"""Weight of the critic's value beside the pull to the teacher (alpha of TD3+BC, arXiv 2106.06860)."""


@struct.dataclass
class Critic:
    """Action values of a teacher at normalised observations, on a scale of about 1.

    Attributes:
        teacher: Has `q(observations, actions)` of raw observations.
        statistics: Normalisation of the observations.
        scale: Mean of |q*(s, a*)| over all states of the data, `[]`.
    """

    teacher: Teacher
    statistics: Normalizer
    scale: jax.Array

    @classmethod
    def of(cls, teacher: Teacher, statistics: Normalizer, action_values: jax.Array) -> Critic:
        """Critic of a teacher whose own actions have these values, `[states]`."""
        return cls(teacher, statistics, jnp.mean(jnp.abs(action_values)))

    def __call__(self, observations: jax.Array, actions: jax.Array) -> jax.Array:
        """q*(s, a) / scale, `[states]`, of observations `[states, *observation_shape]` and `[states, action_dim]`."""
        return self.teacher.q(raw_observations(self.statistics, observations), actions) / self.scale


def raw_observations(statistics: Normalizer, observations: jax.Array) -> jax.Array:
    """Observations as they were before normalisation by fixed statistics, or none."""
    if statistics.mean is None or statistics.std is None:
        return observations
    return observations * statistics.std + statistics.mean


@struct.dataclass
class LabelledStates:
    """States of the offline data with their labels; a field that no objective needs may be None.

    Attributes:
        observations: As the policy sees them, after normalisation, `[states, *observation_shape]`.
        actions: Of the data, `[states, action_dim]`; probabilities `[states, num_actions]` of discrete ones.
        teacher_actions: Of the teacher, a* ~ pi*(. | s) or its mode, `[states, action_dim]`; its probabilities
            `[states, num_actions]` of discrete ones.
        action_values: q*(s, a*), `[states]`.
        state_weights: d(s)^-tau, clipped and divided by its mean, `[states]`.
        mean_action_value: Mean of q*(s, a*) over all states of the data, `[]`.
        critic: Action values of any actions.
        discrete: Whether actions are discrete.
    """

    observations: jax.Array
    actions: jax.Array | None = None
    teacher_actions: jax.Array | None = None
    action_values: jax.Array | None = None
    state_weights: jax.Array | None = None
    mean_action_value: jax.Array | None = None
    critic: Critic | None = None
    discrete: bool = struct.field(pytree_node=False, default=False)

    def take(self, indices: jax.Array) -> LabelledStates:
        """The states of these indices `[states]`."""
        rows = replace(self, mean_action_value=None, critic=None)
        taken = jax.tree.map(lambda leaf: leaf[indices], rows)
        return replace(taken, mean_action_value=self.mean_action_value, critic=self.critic)

    def with_actions_of(self, teacher: Teacher, statistics: Normalizer, key: jax.Array) -> LabelledStates:
        """The same states with sampled actions of a teacher, and their values.

        Args:
            teacher: Teacher, which sees raw observations.
            statistics: Normalisation of these observations.
            key: Key of the samples.
        """
        observations = raw_observations(statistics, self.observations)
        actions = teacher.policy(observations).sample(key)
        return replace(self, teacher_actions=actions, action_values=teacher.q(observations, actions))


@dataclass(frozen=True)
class StateObjective:
    """Value of a policy's actions at labelled states, and the labels that it asks for.

    Attributes:
        name: Name of the method in files, such as `"av-pbc"`.
        function: `function(actions [states, action_dim], states)`: values `[states]`, higher is better; of discrete
            actions it gets log-probabilities `[states, num_actions]`.
        needs: Fields of `LabelledStates` that `function` reads; runs label states with these alone.

    Example:
        >>> l1 = StateObjective("l1", lambda actions, states: -jnp.abs(actions - states.actions).sum(-1), ("actions",))
        >>> l1(jnp.ones((1, 2)), LabelledStates(jnp.zeros((1, 3)), actions=jnp.zeros((1, 2)))).tolist()
        [-2.0]
    """

    name: str
    function: Callable[[jax.Array, LabelledStates], jax.Array]
    needs: tuple[str, ...] = ()

    def __call__(self, actions: jax.Array, states: LabelledStates) -> jax.Array:
        """Values of actions `[states, action_dim]`, `[states]`.

        Raises:
            ValueError: A label that the objective needs is missing.
        """
        for name in self.needs:
            if getattr(states, name) is None:
                raise ValueError(f"{name}: {self.name} needs it, expected labelled states that have it")
        return self.function(actions, states)

    @property
    def needs_teacher(self) -> bool:
        """Whether a label comes from a teacher."""
        return "teacher_actions" in self.needs or self.needs_values

    @property
    def needs_values(self) -> bool:
        """Whether a label comes from a teacher's action values."""
        return "critic" in self.needs or self.weighs_by_value

    @property
    def needs_density(self) -> bool:
        """Whether states are weighted by their density."""
        return "state_weights" in self.needs

    @property
    def weighs_by_value(self) -> bool:
        """Whether action values weigh states, which then repel a policy from the teacher where they are negative."""
        return bool({"action_values", "mean_action_value"} & set(self.needs))


def _dbc(actions: jax.Array, states: LabelledStates) -> jax.Array:
    return _agreement(actions, cast(jax.Array, states.actions), states.discrete)


def _pbc(actions: jax.Array, states: LabelledStates) -> jax.Array:
    return _agreement(actions, cast(jax.Array, states.teacher_actions), states.discrete)


def _av_pbc(actions: jax.Array, states: LabelledStates) -> jax.Array:
    return ACTION_VALUE_SCALE * cast(jax.Array, states.action_values) * _pbc(actions, states)


def _pbc_mean_weight(actions: jax.Array, states: LabelledStates) -> jax.Array:
    return ACTION_VALUE_SCALE * cast(jax.Array, states.mean_action_value) * _pbc(actions, states)


def _critic_value(actions: jax.Array, states: LabelledStates) -> jax.Array:
    return cast(Critic, states.critic)(states.observations, actions)


def _q_pbc(actions: jax.Array, states: LabelledStates) -> jax.Array:
    return VALUE_WEIGHT * _critic_value(actions, states) + _pbc(actions, states)


dbc = StateObjective("dbc", _dbc, needs=("actions",))
"""Data-based behaviour cloning (arXiv 2410.22728): minus the mean squared difference to the actions of the data, or
minus the cross-entropy of discrete ones."""

pbc = StateObjective("pbc", _pbc, needs=("teacher_actions",))
"""Policy-based behaviour cloning (arXiv 2410.22728): minus the mean squared difference to the teacher's actions, or
minus the cross-entropy with its probabilities."""

av_pbc = StateObjective("av-pbc", _av_pbc, needs=("teacher_actions", "action_values"))
"""Action-value weighted PBC (arXiv 2410.22728, equation 6), with the published scale of action values."""

pbc_mean_weight = StateObjective("pbc-mean-weight", _pbc_mean_weight, needs=("teacher_actions", "mean_action_value"))
"""PBC times the mean weight of Av-PBC: the control that tells weighting from longer outer steps."""

critic_value = StateObjective("critic-value", _critic_value, needs=("critic",))
"""The critic's value of the policy's own actions alone, which nothing holds near the data: a measure, hardly an
objective."""

q_pbc = StateObjective("q-pbc", _q_pbc, needs=("teacher_actions", "critic"))
"""The critic's value of the policy's own actions, with the pull of PBC to the teacher: the actor's objective of TD3+BC
(Fujimoto and Gu 2021, arXiv 2106.06860, equation 3) on the distilled policy. The scale of values is the mean of
|q*(s, a*)| over the data, theirs that of the policy's own actions in each batch. Where Av-PBC weighs distances by the
value of the state, this one asks which distances cost value. Continuous actions alone."""


def sdw(objective: StateObjective) -> StateObjective:
    """State density weighting (arXiv 2512.06692) of another objective: rare states weigh more.

    Args:
        objective: Objective to weigh, such as `pbc` or `av_pbc`.

    Example:
        >>> sdw(av_pbc).name, sdw(av_pbc).needs
        ('sdw-av-pbc', ('state_weights', 'teacher_actions', 'action_values'))
    """

    def weighted(actions: jax.Array, states: LabelledStates) -> jax.Array:
        return cast(jax.Array, states.state_weights) * objective(actions, states)

    return StateObjective(f"sdw-{objective.name}", weighted, ("state_weights", *objective.needs))


sdw_pbc = sdw(pbc)
"""PBC weighted by inverse state density (SDW, 2025)."""

sdw_av_pbc = sdw(av_pbc)
"""Av-PBC weighted by inverse state density (SDW, 2025)."""


@struct.dataclass
class OfflineStates:
    """Objective of offline distillation: how well trained policies act at states of the data.

    A `hades.types.Objective` whose problem is a batch of labelled states, and a key of each initialisation for sampled
    actions. The data are leaves, so that compiled programs take them as an argument.

    Attributes:
        states: All states of the data.
        statistics: Normalisation of their observations.
        teacher: Gives sampled actions anew at every iteration; None where labels stand still.
        policy: Architecture that acts.
        objective: Value of its actions.
        num_states: States of an iteration, drawn with replacement.
        action_selection: Whether the policy's actions are sampled or the mode.
        drawing: Draws states in proportion to their weights, and then counts them alike, rather than weighing them;
            None weighs. Without effect where the objective weighs none.
    """

    states: LabelledStates
    statistics: Normalizer
    teacher: Teacher | None
    policy: Policy = struct.field(pytree_node=False)
    objective: StateObjective = struct.field(pytree_node=False)
    num_states: int = struct.field(pytree_node=False, default=512)
    action_selection: ActionSelection = struct.field(pytree_node=False, default="mode")
    drawing: AliasTable | None = None

    def __post_init__(self) -> None:
        """Refuses a number of states that is not positive."""
        require_positive("num_states", self.num_states)

    def init(self, key: jax.Array) -> tuple[()]:
        """No state."""
        del key
        return ()

    def draw(self, key: jax.Array, state: tuple[()], policies: Policies) -> tuple[Problem, tuple[()], Metrics]:
        """Draws a batch of states, with new actions of the teacher where they are sampled, and keys."""
        index_key, action_key, sample_key = jax.random.split(key, 3)
        count = self.states.observations.shape[0]
        weights = self.states.state_weights if self.objective.needs_density else None
        metrics = {} if weights is None else {"effective_sample_size": effective_sample_size(weights)}
        if weights is None or self.drawing is None:
            states = self.states.take(jax.random.randint(index_key, (self.num_states,), 0, count))
        else:
            taken = self.states.take(self.drawing.draw(index_key, self.num_states))
            states = replace(taken, state_weights=jnp.ones(self.num_states))
        if self.teacher is not None:
            states = states.with_actions_of(self.teacher, self.statistics, action_key)
        return Problem(jax.random.split(sample_key, policies.num_inits), states), state, metrics

    def value(self, problem: Problem, params: Params) -> tuple[jax.Array, Metrics]:
        """Mean value over the states of a batch, `[candidates, inits]`; candidates share states and noise."""
        states = problem.shared
        candidates = jax.tree.leaves(params)[0].shape[0]

        def score(key: jax.Array, network: Params) -> jax.Array:
            distribution = self.policy.apply(network, states.observations)
            if isinstance(distribution, Categorical):
                actions = distribution.log_probs()
            else:
                actions = choose(key, distribution, self.action_selection)
            return jnp.mean(self.objective(actions, states))

        over_inits = jax.vmap(jax.vmap(score), in_axes=(None, 0))
        values = over_inits(problem.per_init, params)
        return values, {"env_steps": jnp.zeros(candidates, jnp.int32)}

    def normalizer(self, state: tuple[()]) -> Normalizer:
        """Statistics of the data."""
        del state
        return self.statistics


def _agreement(actions: jax.Array, targets: jax.Array, discrete: bool) -> jax.Array:
    """Minus the squared distance of actions, or minus the cross-entropy of log-probabilities with probabilities."""
    if discrete:
        return jnp.sum(targets * actions, axis=-1)
    # Divided by the number of components, as in the released code, whose step sizes count on it.
    return -jnp.mean(jnp.square(actions - targets), axis=-1)
