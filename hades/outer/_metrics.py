"""Metrics that outer loops have in common."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from hades.normalization import mean_and_std
from hades.types import Metrics


def summarize(values: jax.Array, counts: Metrics) -> tuple[jax.Array, Metrics]:
    """Mends the values of an iteration's candidates, and describes them.

    Args:
        values: `[candidates]`, higher is better.
        counts: Counts of each candidate by name, `[candidates]` each: integers, or bools, of which each true one counts
            one; numbers that are neither are averaged.

    Returns:
        The values as `replace_non_finite` leaves them; and metrics: the scalars `fitness_mean`, `fitness_best`,
        `fitness_worst`, `fitness_std` and `non_finite`; the counts that are integers, whose sum may exceed 32 bits and
        is the host's; and the means over candidates of those that are not.
    """
    values, non_finite = replace_non_finite(values)
    mean, std = mean_and_std(values)
    return values, {
        **{name: _of_an_iteration(of) for name, of in counts.items()},
        "fitness_mean": mean,
        "fitness_best": jnp.max(values),
        "fitness_worst": jnp.min(values),
        "fitness_std": std,
        "non_finite": non_finite,
    }


def _of_an_iteration(count: jax.Array) -> jax.Array:
    if jnp.issubdtype(count.dtype, jnp.floating):
        return jnp.mean(count)
    return count.astype(jnp.int32) if count.dtype == jnp.bool_ else count


def replace_non_finite(values: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Puts the worst finite value of an iteration in the place of those that are not finite.

    Args:
        values: `[candidates]`, higher is better.

    Returns:
        The values, all zero where none was finite, and the number of those replaced, `[]` int32.

    Example:
        >>> replace_non_finite(jnp.array([3.0, jnp.nan, 1.0]))[0].tolist()
        [3.0, 1.0, 1.0]
    """
    finite = jnp.isfinite(values)
    worst = jnp.min(jnp.where(finite, values, jnp.inf))
    return jnp.where(finite, values, jnp.where(jnp.isfinite(worst), worst, 0.0)), jnp.sum(~finite)
