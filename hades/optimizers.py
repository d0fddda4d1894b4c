"""Optimisers from settings: one place for inner and outer loops."""

from __future__ import annotations

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

OptimizerName = Literal["adam", "adamw", "sgd"]

# Far below what changes an update, but where a gradient is zero the derivative of Adam's square root stays finite:
# without it, meta-gradients are NaN as soon as one parameter, such as the log-std under mse, has no gradient.
_ADAM_EPS_ROOT = 1e-30
# Far below a norm that is clipped, while the derivative of its inverse root is finite.
_LEAST_SQUARED_NORM = 1e-20


@functools.cache
def make_optimizer(
    name: OptimizerName,
    learning_rate: float,
    *,
    momentum: float = 0.0,
    adam_b1: float = 0.9,
    adam_eps: float = 1e-8,
    weight_decay: float = 1e-4,
    max_grad_norm: float | None = None,
    decay: float = 1.0,
    differentiable: bool = False,
) -> optax.GradientTransformation:
    """Optax optimiser of a name; equal arguments give the same object, so that what it is compiled into is found again.

    Args:
        name: `"adam"`, `"adamw"` or `"sgd"`.
        learning_rate: Step size.
        momentum: Decay of the velocity of sgd; 0 is plain sgd.
        adam_b1: Decay of the first moment of adam and adamw.
        adam_eps: Epsilon in the denominator of adam and adamw.
        weight_decay: Decay of adamw.
        max_grad_norm: Largest global norm of a gradient, clipped in front of the optimiser; None clips nothing.
        decay: Factor of the step size from one update to the next; 1 keeps it.
        differentiable: Whether gradients are taken through the updates, which then stay finite where a parameter, or
            all of them, have no gradient.

    Raises:
        ValueError: There is no optimiser of that name.
    """
    eps_root = _ADAM_EPS_ROOT if differentiable else 0.0
    rate: Any = learning_rate if decay == 1 else optax.exponential_decay(learning_rate, 1, decay)
    if name == "sgd":
        optimizer = optax.sgd(rate, momentum=momentum or None)
    elif name == "adam":
        optimizer = optax.adam(rate, b1=adam_b1, eps=adam_eps, eps_root=eps_root)
    elif name == "adamw":
        optimizer = optax.adamw(rate, b1=adam_b1, eps=adam_eps, eps_root=eps_root, weight_decay=weight_decay)
    else:
        raise ValueError(f"optimizer: expected adam, adamw or sgd, got {name!r}")
    if max_grad_norm is None:
        return optimizer
    clip = _clip_differentiably if differentiable else optax.clip_by_global_norm
    return optax.chain(clip(max_grad_norm), optimizer)


def _clip_differentiably(max_norm: float) -> optax.GradientTransformation:
    """`optax.clip_by_global_norm` with a derivative where the gradient is zero, which that divides by its norm."""

    def clip(updates: Any, _: Any) -> Any:
        squares = jnp.maximum(optax.tree.norm(updates, squared=True), _LEAST_SQUARED_NORM)
        scale = jnp.minimum(1.0, max_norm * jax.lax.rsqrt(squares))
        return jax.tree.map(lambda leaf: scale * leaf, updates)

    return optax.stateless(clip)
