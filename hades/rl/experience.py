"""Collected steps made ready to learn from: scaled rewards, advantages, and which steps count."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol, TypeVar, cast

import jax
import jax.numpy as jnp

from hades.normalization import Normalizer, RunningStatistics, representable
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


def standardize_advantages(batch: Batch, valid: jax.Array | None = None) -> Batch:
    """Shifts and scales advantages to mean 0 and standard deviation 1.

    Args:
        batch: Steps, in any shape.
        valid: Which of them count, in the same shape; the others get 0. All count if None.
    """
    values = batch.advantages
    centred = values - jnp.mean(values, where=valid)
    scaled = centred / (jnp.std(values, where=valid) + _EPSILON)
    return dataclasses.replace(batch, advantages=scaled if valid is None else jnp.where(valid, scaled, 0.0))


def make_batch(
    values: jax.Array,
    next_values: jax.Array,
    steps: CollectedSteps,
    rewards: jax.Array,
    gamma: jax.Array | float,
    gae_lambda: jax.Array | float,
) -> tuple[Batch, jax.Array]:
    """Advantages and targets of collected steps, and which of these count.

    Args:
        values: Of the observations that the steps began with, `[time, envs]`.
        next_values: Of those that they ended in, `[time, envs]`.
        steps: Collected steps.
        rewards: Their rewards, perhaps scaled, `[time, envs]`.
        gamma: Discount of a step.
        gae_lambda: As of `generalized_advantages`.

    Returns:
        What to learn from, `[time, envs]` in front of each leaf; and the steps that count, `[time, envs]` bool: those
        whose numbers and their squares are finite.
    """
    following = jnp.where(steps.terminated, 0.0, next_values)
    numbers = jnp.stack((rewards, values, following, steps.log_probs))
    valid = ~steps.diverged & jnp.all(representable(numbers), axis=0)
    advantages = generalized_advantages(
        rewards, values, next_values, steps.terminated, steps.truncated, gamma, gae_lambda, valid
    )
    targets = advantages + values
    valid &= representable(advantages) & representable(targets)
    return Batch(steps.observations, steps.actions, steps.log_probs, values, advantages, targets), valid


class Gathering(Protocol):
    """A state that gathers statistics: a dataclass with these fields, which PPO and HaDES-PG add to.

    Attributes:
        normalizer: Normalisation that was given or measured first.
        observation_statistics: Of all raw observations so far; None unless normalisation is running.
        reward_statistics: Of the discounted returns so far; None unless rewards are normalised.
        discounted_returns: Discounted rewards of the episodes under way, `[envs]`.
    """

    normalizer: Normalizer
    observation_statistics: RunningStatistics | None
    reward_statistics: RunningStatistics | None
    discounted_returns: jax.Array


GatheringT = TypeVar("GatheringT", bound=Gathering)


def present_normalizer(state: Gathering, min_std: float) -> Normalizer:
    """Normalisation by the statistics gathered so far, or the first one where none are gathered."""
    if state.observation_statistics is None:
        return state.normalizer
    return Normalizer.from_statistics(state.observation_statistics, min_std)


def gather(state: GatheringT, steps: CollectedSteps, gamma: jax.Array | float) -> tuple[GatheringT, jax.Array]:
    """Adds collected steps to the statistics of a state.

    Args:
        state: State before.
        steps: Collected steps.
        gamma: Discount of a step.

    Returns:
        The state after, and the rewards of the steps, scaled where the state normalises them, `[time, envs]`.
    """
    changes: dict[str, Any] = {}
    if state.observation_statistics is not None:
        # What the policy saw is finite: an episode that is not ends, and another begins.
        seen = steps.observations.reshape(-1, *steps.observations.shape[2:])
        changes["observation_statistics"] = state.observation_statistics.update(seen, jnp.ones(len(seen), bool))
    rewards = steps.rewards
    if state.reward_statistics is not None:
        rewards, changes["reward_statistics"], changes["discounted_returns"] = scale_rewards(
            state.reward_statistics, steps, state.discounted_returns, gamma
        )
    return dataclasses.replace(cast(Any, state), **changes), rewards


def minibatch_rows(key: jax.Array, valid: jax.Array, num_epochs: int, num_minibatches: int) -> jax.Array:
    """Rows of each minibatch, in which steps that count take the place of those that do not.

    Args:
        key: Key.
        valid: Steps that count, `[steps]` bool.
        num_epochs: Passes over the steps.
        num_minibatches: Parts of each pass.

    Returns:
        Indices of steps, `[num_epochs * num_minibatches, size]`.
    """
    *keys, substitute_key = jax.random.split(key, num_epochs + 1)
    rows = jax.vmap(lambda key: jax.random.permutation(key, valid.shape[0]))(jnp.stack(keys))
    return substitute(substitute_key, rows, valid).reshape(num_epochs * num_minibatches, -1)


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
