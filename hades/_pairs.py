"""Pieces of pairs that parametrisations share: first labels, and values that are kept within bounds."""

from __future__ import annotations

import jax
import jax.numpy as jnp

_SMOOTHING = 0.1


def even_labels(count: int, num_classes: int) -> jax.Array:
    """One-hot labels `[count, num_classes]`, spread evenly: class `i mod num_classes` at `i`."""
    return jax.nn.one_hot(jnp.arange(count) % num_classes, num_classes)


def smooth_logits(labels: jax.Array) -> jax.Array:
    """Logits `[..., num_classes]` of labels a little less certain: a certain one has no gradient to leave it by."""
    return jnp.log((1 - _SMOOTHING) * labels + _SMOOTHING / labels.shape[-1])


def clipped(values: jax.Array, low: jax.Array | float, high: jax.Array | float) -> jax.Array:
    """Values within bounds, gradients passing as if they were not: one of zero would hold them outside for ever."""
    return values + jax.lax.stop_gradient(jnp.clip(values, low, high) - values)
