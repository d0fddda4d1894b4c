"""The formulas of Cal-QL, as functions of values and densities: no networks, no random numbers."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from hades.offline.cal_ql.settings import AfterTimeout
from hades.offline.transitions import Transitions
from hades.rl.advantages import generalized_advantages


def returns_of_data(
    transitions: Transitions, rewards: jax.Array, discount: float, after_timeout: AfterTimeout
) -> jax.Array:
    """Discounted rewards from each transition to the end of its trajectory: samples of V^mu(s), `[transitions]`.

    They are what Cal-QL calibrates by (arXiv 2303.05479, section 4). A terminal is worth nothing beyond itself. Beyond
    a cut, which the end of the data is too, the task would have gone on: `"mean_reward"` lets it go on for ever with
    the mean reward of the trajectory, `"nothing"` counts what was seen.

    Args:
        transitions: The data, for its ends.
        rewards: As the critics see them, `[transitions]`.
        discount: Of a step, below 1.
        after_timeout: What follows a cut.

    Example:
        >>> zeros, no = jnp.zeros((2, 1)), jnp.array([False, False])
        >>> data = Transitions(zeros, zeros, jnp.ones(2), zeros, terminals=no, timeouts=jnp.array([False, True]))
        >>> returns_of_data(data, data.rewards, 0.5, "nothing").tolist()
        [1.5, 1.0]
        >>> returns_of_data(data, data.rewards, 0.5, "mean_reward").tolist()
        [2.0, 2.0]
    """
    trajectories = transitions.trajectories()
    last = np.asarray(trajectories.ends) - 1
    cut = last[~np.asarray(transitions.terminals)[last]]
    truncated, beyond = np.zeros((2, transitions.num_transitions), np.float32)
    truncated[cut] = 1
    if after_timeout == "mean_reward":
        sums = np.add.reduceat(np.asarray(rewards), np.asarray(trajectories.starts), dtype=np.float64)
        beyond[last] = sums / np.asarray(trajectories.lengths) / (1 - discount)
    beyond *= truncated
    # An advantage over values that are all 0, except beyond cuts, is the return.
    shape = (-1, 1)
    return generalized_advantages(
        jnp.reshape(rewards, shape),
        jnp.zeros((transitions.num_transitions, 1)),
        jnp.reshape(beyond, shape),
        jnp.reshape(transitions.terminals, shape),
        jnp.reshape(truncated > 0, shape),
        discount,
        1.0,
    )[:, 0]


def critic_targets(
    rewards: jax.Array, terminals: jax.Array, next_values: jax.Array, discount: jax.Array | float
) -> jax.Array:
    """Targets of the critics: r + discount * Q'(s', a'), and r alone where the task ended, `[batch]`.

    Args:
        rewards: `[batch]`.
        terminals: `[batch]` bool; a cut by a time limit is none.
        next_values: Of the target critics: the smaller one of the two, and its maximum over actions or that of one
            action, `[batch]`.
        discount: Of a step.
    """
    return rewards + discount * jnp.where(terminals, 0.0, next_values)


@struct.dataclass
class DrawnActions:
    """Actions that the conservative term compares with the data's, or their values: `[actions, batch]` in each.

    Attributes:
        uniform: Of actions uniform between bounds.
        current: Of actions that the policy draws at the state.
        following: Of actions that the policy draws at the next state, valued at the state.
    """

    uniform: jax.Array
    current: jax.Array
    following: jax.Array


def conservative_gap(
    data_values: jax.Array,
    values: DrawnActions,
    log_densities: DrawnActions | None,
    returns: jax.Array | None,
    temperature: jax.Array | float,
) -> jax.Array:
    """Difference between a soft maximum over actions and the value of the data's action, `[batch]`.

    CQL(H) of arXiv 2006.04779, eq. 4: `T log sum_a exp(Q(s, a) / T) - Q(s, a_data)`. With densities each value is
    lessened by the logarithm of the density that its action was drawn with (appendix F there), without them the data's
    own value is one more of the sum, as in the authors' code. With returns it is Cal-QL (arXiv 2303.05479, eq. 5.1):
    the policy's actions are worth at least the return of the data, so that they are pushed down no further.

    Args:
        data_values: Q of the data's actions, `[batch]`.
        values: Q of the drawn actions.
        log_densities: Logarithms of the densities that they were drawn with; None is no importance sampling.
        returns: V^mu(s), `[batch]`; None is CQL.
        temperature: T.
    """
    if returns is not None:
        current, following = (jnp.maximum(part, returns) for part in (values.current, values.following))
        values = dataclasses.replace(values, current=current, following=following)
    if log_densities is None:
        parts = [*jax.tree.leaves(values), data_values[None]]
    else:
        parts = [part - density for part, density in zip(*map(jax.tree.leaves, (values, log_densities)), strict=True)]
    softened = temperature * jax.nn.logsumexp(jnp.concatenate(parts) / temperature, axis=0)
    return softened - data_values


def temperature_loss(log_temperature: jax.Array, log_probs: jax.Array, target_entropy: jax.Array | float) -> jax.Array:
    """Mean of -log_temperature * (log_prob + target_entropy), `[]`: it rises while the entropy is below its target.

    Soft actor-critic (arXiv 1812.05905, eq. 18), with the logarithm in place of the temperature as is usual.

    Args:
        log_temperature: `[]`.
        log_probs: Of actions that the policy drew, `[batch]`.
        target_entropy: In nats.
    """
    return -jnp.mean(log_temperature * (log_probs + target_entropy))


def actor_loss(log_probs: jax.Array, worth: jax.Array, temperature: jax.Array) -> jax.Array:
    """Mean of temperature * log_prob - worth, `[]` (arXiv 1812.05905, eq. 7).

    Args:
        log_probs: Of actions that the policy drew, `[batch]`.
        worth: The smaller one of the two critics at those actions; while cloning the log-likelihood of the data's
            actions, `[batch]`.
        temperature: Of the entropy, `[]`.
    """
    return jnp.mean(temperature * log_probs - worth)
