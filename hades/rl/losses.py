"""The objective of PPO."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct

from hades.distributions import Categorical, DiagonalGaussian
from hades.types import Metrics


@struct.dataclass
class Batch:
    """Steps to learn from, in any order.

    Attributes:
        observations: Raw, or as the policy sees them where the user says so, `[batch, *observation_shape]`.
        actions: What was done, `[batch]` int32 or `[batch, action_dim]`, not clipped.
        log_probs: Their log-probabilities under the policy that drew them, `[batch]`.
        values: What the critic said then, `[batch]`.
        advantages: How much better the action was than the policy, `[batch]`.
        targets: What the critic should have said, `[batch]`.
    """

    observations: jax.Array
    actions: jax.Array
    log_probs: jax.Array
    values: jax.Array
    advantages: jax.Array
    targets: jax.Array


def ppo_loss(
    distribution: Categorical | DiagonalGaussian,
    values: jax.Array,
    batch: Batch,
    *,
    clip_range: jax.Array | float,
    value_clip_range: float | None = None,
    entropy_coefficient: jax.Array | float = 0.0,
    value_coefficient: jax.Array | float = 0.5,
) -> tuple[jax.Array, Metrics]:
    """The clipped surrogate with its value and entropy terms (Schulman et al. 2017, arXiv 1707.06347, eq. 7 and 9).

    It is minus the objective of the paper, so that it is minimised. The value term is half of the squared error.

    Args:
        distribution: Of the policy being trained, at the observations of `batch`.
        values: Of the critic being trained, at the same observations, `[batch]`.
        batch: What was collected; its advantages are taken as they are.
        clip_range: Epsilon of eq. 7: how far the probability ratio may leave 1 and still gain.
        value_clip_range: How far a value may leave the old one and still gain, as in the authors' code; None is any.
        entropy_coefficient: c2 of eq. 9.
        value_coefficient: c1 of eq. 9.

    Returns:
        The loss, `[]`, and scalars: `policy_loss`, `value_loss`, `entropy`, `clip_fraction` (ratios beyond the clip
        range), and `approx_kl`, the mean of `ratio - 1 - log ratio`.
    """
    surrogate, metrics = clipped_surrogate(distribution, batch, clip_range)
    error = value_loss(values, batch, value_clip_range)
    loss = -surrogate + value_coefficient * error - entropy_coefficient * metrics["entropy"]
    return loss, {"policy_loss": -surrogate, "value_loss": error, **metrics}


def clipped_surrogate(
    distribution: Categorical | DiagonalGaussian, batch: Batch, clip_range: jax.Array | float
) -> tuple[jax.Array, Metrics]:
    """The clipped surrogate of PPO, which is maximised (arXiv 1707.06347, eq. 7). Arguments as of `ppo_loss`.

    Returns:
        The surrogate, `[]`, and the scalars `entropy`, `approx_kl` and `clip_fraction`.
    """
    log_ratio = distribution.log_prob(batch.actions) - batch.log_probs
    ratio = jnp.exp(log_ratio)
    clipped = jnp.clip(ratio, 1 - clip_range, 1 + clip_range)
    return jnp.mean(jnp.minimum(ratio * batch.advantages, clipped * batch.advantages)), {
        "entropy": jnp.mean(distribution.entropy()),
        "approx_kl": jnp.mean(ratio - 1 - log_ratio),
        "clip_fraction": jnp.mean(jnp.abs(ratio - 1) > clip_range),
    }


def value_loss(values: jax.Array, batch: Batch, value_clip_range: float | None = None) -> jax.Array:
    """Half of the mean squared error of a critic, `[]`. Arguments as of `ppo_loss`."""
    errors = jnp.square(values - batch.targets)
    if value_clip_range is not None:
        near = batch.values + jnp.clip(values - batch.values, -value_clip_range, value_clip_range)
        errors = jnp.maximum(errors, jnp.square(near - batch.targets))
    return 0.5 * jnp.mean(errors)
