"""An optax optimiser on the gradient of F(D) as the outer loop. Its one sign flip: optax minimises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from hades._validation import require_positive
from hades.inner.cloning import clip_gradients
from hades.optimizers import OptimizerName
from hades.outer.evolution import Objective, summarize
from hades.types import Metrics, PyTree


@dataclass(frozen=True)
class MetaGradientSettings:
    """How gradients through the inner loop move a solution: the other outer loop."""

    optimizer: OptimizerName = "adam"
    """Outer optimiser."""
    learning_rate: float = 0.01
    """Step size of the outer optimiser."""
    momentum: float = 0.9
    """Momentum of sgd."""
    max_grad_norm: float | None = 2.0
    """Largest global norm of the gradient; none leaves it as it is."""
    window: int | None = None
    """Inner steps before a random one that gradients flow through (RaT-BPTT); none is all of them, to the last."""
    rematerialize: bool = True
    """Whether inner steps are computed again rather than stored for the backward pass: less memory, more time."""

    def __post_init__(self) -> None:
        """Refuses rates and windows that are not positive."""
        require_positive("learning_rate", self.learning_rate)
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum: expected a number in [0, 1), got {self.momentum}")
        for name in ("max_grad_norm", "window"):
            if getattr(self, name) is not None:
                require_positive(name, getattr(self, name))


@struct.dataclass
class MetaGradientState:
    """State of the ascent.

    Attributes:
        solution: Where it is.
        optimizer: State of the outer optimiser.
    """

    solution: PyTree
    optimizer: Any


class MetaGradient:
    """Gradient ascent on a differentiable objective, with the interface of an evolution strategy.

    Its population is the solution alone, and so it takes the place of `Evolution` for any objective that can be
    differentiated, such as those of `hades.objectives` (Offline Behavior Distillation, arXiv 2410.22728, algorithm 1).

    Attributes:
        population_size: 1.

    Example:
        >>> ascent = MetaGradient(MetaGradientSettings(optimizer="sgd", learning_rate=0.5, momentum=0.0))
        >>> state = ascent.init(jax.random.key(0), jnp.array(1.0))
        >>> state, metrics = ascent.step(jax.random.key(1), state, lambda x: (-jnp.square(x), {}))
        >>> float(ascent.solution(state)), float(metrics["gradient_norm"])
        (0.0, 2.0)
    """

    population_size = 1

    def __init__(self, settings: MetaGradientSettings) -> None:
        """Builds the outer optimiser that `settings` describe."""
        self._optimizer = make_outer_optimizer(settings)

    def init(self, key: jax.Array, solution: PyTree) -> MetaGradientState:
        """The ascent at a first solution."""
        del key  # For the signature of `Evolution.init`: nothing here is random.
        return MetaGradientState(solution, self._optimizer.init(solution))

    def step(self, key: jax.Array, state: MetaGradientState, objective: Objective) -> tuple[MetaGradientState, Metrics]:
        """One outer step.

        Args:
            key: Without effect; the objective's own keys are all that is random.
            state: The ascent.
            objective: As that of `Evolution.step`, called with a population of one; differentiable.

        Returns:
            The new state, unchanged where a component of the gradient is not finite; and the scalars of `summarize`
            with `gradient_norm`, the global norm before clipping.
        """
        del key

        def value(solution: PyTree) -> tuple[jax.Array, tuple[jax.Array, Metrics]]:
            values, counts = objective(jax.tree.map(lambda leaf: leaf[None], solution))
            return values[0], (values, counts)

        gradient, (values, counts) = jax.grad(value, has_aux=True)(state.solution)
        _, metrics = summarize(values, counts)
        norm = optax.tree.norm(gradient)
        descent = jax.tree.map(jnp.negative, gradient)
        updates, optimizer = self._optimizer.update(descent, state.optimizer, state.solution)
        moved = MetaGradientState(optax.apply_updates(state.solution, updates), optimizer)
        finite = jnp.isfinite(norm)
        kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), moved, state)
        non_finite = jnp.maximum(metrics["non_finite"], ~finite)
        return kept, {**metrics, "non_finite": non_finite, "gradient_norm": norm}

    def solution(self, state: MetaGradientState) -> PyTree:
        """Where the ascent is."""
        return state.solution


def make_outer_optimizer(settings: MetaGradientSettings) -> optax.GradientTransformation:
    """The optax optimiser that settings name, behind the clipping of the global norm."""
    if settings.optimizer == "sgd":
        optimizer = optax.sgd(settings.learning_rate, momentum=settings.momentum or None)
    else:
        optimizer = {"adam": optax.adam, "adamw": optax.adamw}[settings.optimizer](settings.learning_rate)
    return clip_gradients(optimizer, settings.max_grad_norm)
