"""Labels of offline states: normalised observations, the teacher's actions and values, density weights."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp

from hades.distributions import Categorical
from hades.fitness import map_chunks
from hades.normalization import Normalizer
from hades.objectives.states import LabelledStates
from hades.offline.density import density_weights
from hades.offline.teacher import PolicyTeacher, Teacher
from hades.offline.transitions import Transitions

_CHUNK = 8192


def label_states(
    transitions: Transitions,
    normalizer: Normalizer,
    teacher: Teacher | PolicyTeacher | None = None,
    log_density: jax.Array | None = None,
    density_exponent: float = 0.0,
    action_key: jax.Array | None = None,
    num_actions: int | None = None,
) -> LabelledStates:
    """Labels all states of offline data, in chunks, once for a whole run.

    Args:
        transitions: The data.
        normalizer: Turns its observations into what policies see.
        teacher: Gives actions and action values; None leaves these labels out.
        log_density: log d(s) of each state, `[transitions]`; None weighs all states alike.
        density_exponent: tau of the weights d(s)^-tau.
        action_key: Samples the teacher's actions; by their modes if None.
        num_actions: How many discrete actions there are, whose labels are probabilities; None where they are
            continuous.

    Raises:
        ValueError: A log-density is NaN.
    """
    weights = jnp.ones(transitions.num_transitions)
    if log_density is not None:
        if bool(jnp.isnan(log_density).any()):
            raise ValueError("log_density: expected a number for every state, got NaN for some")
        weights = density_weights(log_density, density_exponent)
    observations = jax.jit(normalizer.apply)(transitions.observations)
    actions = transitions.actions if num_actions is None else jax.nn.one_hot(transitions.actions, num_actions)
    states = LabelledStates(observations, actions, state_weights=weights, discrete=num_actions is not None)
    if teacher is None:
        return states
    actions = teacher_actions(teacher, transitions.observations, action_key)
    if isinstance(teacher, PolicyTeacher):
        return replace(states, teacher_actions=actions)
    values = action_values(teacher, transitions.observations, actions)
    return replace(states, teacher_actions=actions, action_values=values, mean_action_value=jnp.mean(values))


def teacher_actions(
    teacher: Teacher | PolicyTeacher, observations: jax.Array, key: jax.Array | None = None
) -> jax.Array:
    """Actions of pi*(. | s) at raw observations, `[states, action_dim]`: modes, or samples given a key.

    Of discrete actions their probabilities, `[states, num_actions]`, given a key or not.
    """

    def labels(chunk: jax.Array) -> jax.Array:
        distribution = teacher.policy(chunk)
        return jnp.exp(distribution.log_probs()) if isinstance(distribution, Categorical) else distribution.mode()

    if key is None or isinstance(jax.eval_shape(teacher.policy, observations[:1]), Categorical):
        return jax.jit(lambda rows: map_chunks(labels, rows, _CHUNK))(observations)
    sample = jax.vmap(lambda observation, key: teacher.policy(observation).sample(key))
    keys = jax.random.split(key, len(observations))
    return jax.jit(lambda *rows: map_chunks(lambda chunk: sample(*chunk), rows, _CHUNK))(observations, keys)


def action_values(teacher: Teacher, observations: jax.Array, actions: jax.Array) -> jax.Array:
    """q*(s, a) at raw observations and actions of any number, `[states]`."""
    return jax.jit(lambda *rows: map_chunks(lambda chunk: teacher.q(*chunk), rows, _CHUNK))(observations, actions)
