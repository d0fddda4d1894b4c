"""Curvature of the first loss of an inner loop, which says how large steps of gradient descent may be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from hades._validation import require_positive_fields
from hades.inner.cloning import BehaviourCloning, with_log_std

if TYPE_CHECKING:
    from hades.dataset import SyntheticDataset

_NUM_INITS = 4
_NUM_PRODUCTS = 20
# Below it a curvature is rounding.
_FLAT = 1e-6


def largest_curvature(key: jax.Array, inner: BehaviourCloning, dataset: SyntheticDataset) -> jax.Array:
    """Largest eigenvalue, by size, of the Hessian of the loss at fresh parameters (sharpness): maximum over four draws.

    By power iteration with 20 products of the Hessian and a vector (Pearlmutter 1994). A pair of eigenvalues that
    are nearly as large as each other makes it a few percent too small.

    Args:
        key: Draws the initialisations.
        inner: Trains on the full dataset or on minibatches; the curvature is that of the full one.
        dataset: Pairs.

    Returns:
        `[]`, in units of the loss over the square of a parameter.

    Example:
        >>> import envs, hades
        >>> env = envs.make("diagnostic/target", action_dim=1)
        >>> inner = hades.behaviour_cloning(hades.policies.mlp(env, hidden_sizes=()), loss="mse")
        >>> pairs = hades.SyntheticDataset(jnp.array([[2.0]]), actions=jnp.array([[1.0]]))
        >>> float(largest_curvature(jax.random.key(0), inner, pairs).round(3))  # of (2 w + b - 1)^2: 2 (2^2 + 1)
        10.0
    """

    def of_one(key: jax.Array) -> jax.Array:
        init_key, loss_key, direction_key = jax.random.split(key, 3)
        params, as_tree = ravel_pytree(with_log_std(inner.init(init_key), dataset))

        def slope(params: jax.Array, direction: jax.Array) -> jax.Array:
            gradient = jax.grad(lambda params: inner.loss_of_step(loss_key, as_tree(params), dataset.pairs(), 0))
            return jnp.vdot(gradient(params), direction)

        def multiply(direction: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
            # Convolutions here have no forward-mode derivative.
            product = jax.grad(slope)(params, direction)
            size = jnp.linalg.norm(product)
            return product / jnp.maximum(size, jnp.finfo(size.dtype).tiny), size

        direction = jax.random.normal(direction_key, params.shape, params.dtype)
        _, sizes = jax.lax.scan(multiply, direction / jnp.linalg.norm(direction), length=_NUM_PRODUCTS)
        return sizes[-1]

    return jnp.max(jax.lax.map(of_one, jax.random.split(key, _NUM_INITS)))


@dataclass(frozen=True)
class StableStep:
    """A step size of gradient descent: a fraction of 2 / curvature, above which it diverges on a quadratic loss.

    Fewer pairs make the loss steeper, and so do wider networks and larger observations, so that no one size suits all.
    With momentum m descent diverges above (1 + m) times as large steps, which is left as a margin.

    Attributes:
        inner: Trains on the dataset, by steps of `learning_rate` times their size.
        learning_rate: Factor of its steps, the largest of those that it draws.
        fraction: Fraction of the step above which descent diverges.

    Raises:
        ValueError: A number is not positive.
    """

    inner: BehaviourCloning
    learning_rate: float = 1.0
    fraction: float = 0.75

    def __post_init__(self) -> None:
        """Refuses numbers that are not positive."""
        require_positive_fields(self, "learning_rate", "fraction")

    def __call__(self, key: jax.Array, dataset: SyntheticDataset) -> jax.Array:
        """Step size `[]` for a first dataset; 1 where its loss is flat, or its curvature no finite number."""
        curvature = largest_curvature(key, self.inner, dataset) * self.learning_rate
        known = jnp.isfinite(curvature) & (curvature > _FLAT)
        return jnp.where(known, 2 * self.fraction / curvature, 1.0)
