"""Advantages and discounted returns along batches of trajectories."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def generalized_advantages(
    rewards: jax.Array,
    values: jax.Array,
    next_values: jax.Array,
    terminated: jax.Array,
    truncated: jax.Array,
    gamma: jax.Array | float,
    gae_lambda: jax.Array | float,
    valid: jax.Array | bool = True,
) -> jax.Array:
    """Generalised advantage estimates (Schulman et al. 2016, arXiv 1506.02438, eq. 16), `[time, envs]`.

    A truncated step still bootstraps from the value of the observation that it ended in, since the task would have
    gone on; a terminated one from 0. No advantage flows back over either.

    Args:
        rewards: `[time, envs]`.
        values: Value of the observation that each step began with, `[time, envs]`.
        next_values: Value of the observation that each step ended in, before any reset, `[time, envs]`.
        terminated: Whether each step ended its episode as part of the task, `[time, envs]` bool.
        truncated: Whether each step ended its episode by a time limit, `[time, envs]` bool.
        gamma: Discount of a step.
        gae_lambda: Weight of longer estimates: 0 is the one-step error, 1 the return less the value.
        valid: Steps that count, `[time, envs]` bool. The advantage of another step is 0, and the step before it ends
            its estimate with the value of the observation between them, as at a truncation.

    Example:
        >>> ones, last, never = jnp.ones((2, 1)), jnp.array([[False], [True]]), jnp.array([[False], [False]])
        >>> generalized_advantages(ones, 0 * ones, 9 * ones, last, never, 0.5, 1.0).ravel().tolist()
        [6.0, 1.0]
        >>> generalized_advantages(ones, 0 * ones, 9 * ones, never, last, 0.5, 1.0).ravel().tolist()
        [8.25, 5.5]
    """
    # A selection, not a product: what follows an end need not be finite, nor a step that does not count.
    errors = rewards + gamma * jnp.where(terminated, 0.0, next_values) - values
    valid = jnp.broadcast_to(valid, errors.shape)

    def step(later: jax.Array, inputs: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        error, ended, counts = inputs
        advantage = jnp.where(counts, error + gamma * gae_lambda * jnp.where(ended, 0.0, later), 0.0)
        return advantage, advantage

    inputs = (errors, terminated | truncated, valid)
    _, advantages = jax.lax.scan(step, jnp.zeros_like(errors[0]), inputs, reverse=True)
    return advantages


def discounted_returns(
    rewards: jax.Array, ended: jax.Array, before: jax.Array, gamma: jax.Array | float
) -> tuple[jax.Array, jax.Array]:
    """Discounted sums of the rewards that an episode has paid so far: `R_t = gamma R_(t-1) + r_t`.

    Args:
        rewards: `[time, envs]`.
        ended: Steps after which an episode is over, and the sum begins again, `[time, envs]` bool.
        before: The sums before the first of these steps, `[envs]`.
        gamma: Discount of a step.

    Returns:
        The sums at every step, `[time, envs]`, and those that the next step begins with, `[envs]`.
    """

    def step(sums: jax.Array, inputs: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        reward, over = inputs
        sums = gamma * sums + reward
        return jnp.where(over, 0.0, sums), sums

    after, sums = jax.lax.scan(step, before, (rewards, ended))
    return sums, after
