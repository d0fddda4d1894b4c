"""Collected steps made ready to learn from: scaled rewards, advantages, and which steps count."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from hades.normalization import RunningStatistics, representable
from hades.rl.advantages import discounted_returns, generalized_advantages
from hades.rl.losses import Batch
from hades.rollouts.auto_reset import CollectedSteps

_EPSILON = 1e-8


def scale_rewards(
    statistics: RunningStatistics, steps: CollectedSteps, before: jax.Array, gamma: jax.Array | float
) -> tuple[jax.Array, RunningStatistics, jax.Array]:
    """Divides rewards by the standard deviation of the discounted return, these steps included.

    Args:
        statistics: Of the discounted returns so far.
        steps: Collected steps.
        before: Discounted rewards of the episodes under way before the first of these steps, `[envs]`.
        gamma: Discount of a step.

    Returns:
        The rewards, `[time, envs]`; the statistics; and the discounted rewards after the last step, `[envs]`.
    """
    returns, after = discounted_returns(steps.rewards, steps.terminated | steps.truncated, before, gamma)
    statistics = statistics.update(returns.ravel(), jnp.ones(returns.size, bool))
    return steps.rewards / jnp.sqrt(statistics.variance + _EPSILON), statistics, after


def make_batch(
    value: Callable[[jax.Array], jax.Array],
    steps: CollectedSteps,
    rewards: jax.Array,
    gamma: jax.Array | float,
    gae_lambda: jax.Array | float,
) -> tuple[Batch, jax.Array]:
    """Advantages and targets of collected steps, and which of these count.

    Args:
        value: Values `[...]` of raw observations `[..., *observation_shape]`.
        steps: Collected steps.
        rewards: Their rewards, perhaps scaled, `[time, envs]`.
        gamma: Discount of a step.
        gae_lambda: As of `generalized_advantages`.

    Returns:
        What to learn from, `[time, envs]` in front of each leaf; and the steps that count, `[time, envs]` bool: those
        whose numbers and their squares are finite.
    """
    values, next_values = value(steps.observations), value(steps.next_observations)
    following = jnp.where(steps.terminated, 0.0, next_values)
    numbers = jnp.stack((rewards, values, following, steps.log_probs))
    valid = ~steps.diverged & jnp.all(representable(numbers), axis=0)
    advantages = generalized_advantages(
        rewards, values, next_values, steps.terminated, steps.truncated, gamma, gae_lambda, valid
    )
    targets = advantages + values
    valid &= representable(advantages) & representable(targets)
    return Batch(steps.observations, steps.actions, steps.log_probs, values, advantages, targets), valid


def substitute(key: jax.Array, rows: jax.Array, valid: jax.Array) -> jax.Array:
    """Puts steps that count, drawn at random, in the place of those that do not, so that minibatches keep their size.

    Args:
        key: Key.
        rows: Indices of steps, of any shape.
        valid: Steps that count, `[steps]` bool; where there is none, the indices stay as they are.
    """
    counting_first = jnp.argsort(~valid, stable=True)
    drawn = jax.random.randint(key, rows.shape, 0, jnp.maximum(jnp.sum(valid), 1))
    return jnp.where(valid[rows] | ~jnp.any(valid), rows, counting_first[drawn])
