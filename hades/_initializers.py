"""Initialisers of weights that are safe wherever JAX may put them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import sequential_vmap
from jax.nn.initializers import Initializer, orthogonal as _orthogonal


def orthogonal(scale: float = 1.0) -> Initializer:
    """Orthogonal matrices times `scale`, the same as those of `jax.nn.initializers.orthogonal` for the same key.

    Under `jax.vmap`, also a nested one, the keys are worked through one after the other: several batched QR
    decompositions in one compiled function can wait for each other for ever in the thread pool of XLA's CPU backend.

    Args:
        scale: Gain.
    """
    plain = _orthogonal(scale)

    def init(key: jax.Array, shape: Any, dtype: Any = jnp.float32, out_sharding: Any = None) -> jax.Array:
        return sequential_vmap(lambda key: plain(key, shape, dtype, out_sharding))(key)

    return init
