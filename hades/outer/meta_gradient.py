"""An optimiser on the gradient of F(D) as the outer loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from hades._validation import require_below_one, require_positive_fields
from hades.optimizers import OptimizerName, make_optimizer
from hades.outer._metrics import summarize
from hades.types import Metrics, Solution, Value


@dataclass(frozen=True)
class MetaGradientSettings:
    """Optimiser of the outer loop that follows gradients through the inner loop."""

    optimizer: OptimizerName = "adam"
    """Optimiser of the outer loop."""
    learning_rate: float = 0.01
    """Step size of the outer optimiser."""
    momentum: float = 0.9
    """Momentum of sgd."""
    max_grad_norm: float | None = 2.0
    """Largest global norm of the gradient; default: no clipping."""
    window: int | None = None
    """Inner steps before a random one that gradients flow through (RaT-BPTT); default: all of them, to the last."""
    rematerialize: bool = True
    """Whether inner steps are computed again rather than stored for the backward pass: less memory, more time."""

    def __post_init__(self) -> None:
        """Refuses rates and windows that are not positive."""
        require_positive_fields(self, "learning_rate", "max_grad_norm", "window")
        require_below_one("momentum", self.momentum)


@struct.dataclass
class MetaGradientState:
    """State of the ascent.

    Attributes:
        solution: Present solution.
        optimizer: State of the outer optimiser.
    """

    solution: Solution
    optimizer: Any


@dataclass(frozen=True)
class MetaGradient:
    """Gradient ascent on F through the inner loop (Offline Behavior Distillation, arXiv 2410.22728, algorithm 1).

    Its one candidate is the solution, so that it takes the place of `Evolution` for any objective that can be
    differentiated.

    Attributes:
        optimizer: Any optax optimiser.

    Example:
        >>> ascent = MetaGradient(optax.sgd(0.5))
        >>> state = ascent.init(jax.random.key(0), jnp.array(1.0))
        >>> state, metrics = ascent.step(jax.random.key(1), state, lambda x: (-jnp.square(x), {}))
        >>> float(ascent.solution(state)), float(metrics["gradient_norm"])
        (0.0, 2.0)
    """

    optimizer: optax.GradientTransformation

    @classmethod
    def from_settings(cls, settings: MetaGradientSettings) -> MetaGradient:
        """Ascent by the optimiser that settings name, with the global norm of the gradient clipped in front of it."""
        optimizer = make_optimizer(
            settings.optimizer,
            settings.learning_rate,
            momentum=settings.momentum,
            max_grad_norm=settings.max_grad_norm,
        )
        return cls(optimizer)

    def init(self, key: jax.Array, solution: Solution) -> MetaGradientState:
        """Ascent at a first solution; nothing is drawn."""
        del key
        return MetaGradientState(solution, self.optimizer.init(solution))

    def step(self, key: jax.Array, state: MetaGradientState, value: Value) -> tuple[MetaGradientState, Metrics]:
        """One step of the optimiser.

        Args:
            key: Without effect; all that is random is in `value`.
            state: Ascent.
            value: F, differentiable, called with one candidate.

        Returns:
            The new state, unchanged where a component of the gradient is not finite; and the metrics of
            `hades.outer.summarize` with `gradient_norm`, the global norm before clipping.
        """
        del key

        def ascend(solution: Solution) -> tuple[jax.Array, tuple[jax.Array, Metrics]]:
            values, counts = value(jax.tree.map(lambda leaf: leaf[None], solution))
            return values[0], (values, counts)

        gradient, (values, counts) = jax.grad(ascend, has_aux=True)(state.solution)
        _, metrics = summarize(values, counts)
        norm = optax.tree.norm(gradient)
        # optax minimises.
        descent = jax.tree.map(jnp.negative, gradient)
        updates, optimizer = self.optimizer.update(descent, state.optimizer, state.solution)
        moved = MetaGradientState(optax.apply_updates(state.solution, updates), optimizer)
        finite = jnp.isfinite(norm)
        kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), moved, state)
        non_finite = jnp.maximum(metrics["non_finite"], ~finite)
        return kept, {**metrics, "non_finite": non_finite, "gradient_norm": norm}

    def solution(self, state: MetaGradientState) -> Solution:
        """Present solution."""
        return state.solution
