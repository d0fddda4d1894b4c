"""An optimiser on the gradient of F(D) as the outer loop."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast

import jax
import jax.numpy as jnp
import optax
from flax import struct

from hades._validation import require_below_one, require_positive_fields
from hades.optimizers import OptimizerName, make_optimizer
from hades.outer._metrics import summarize
from hades.types import Metrics, Solution, Value

# Of the step size in a trust region, after an iteration that left it, and after one that did not.
_SHRINKAGE, _GROWTH = 0.5, 1.2


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
    """Largest global norm of the gradient; none clips nothing."""
    max_init_grad_norm: float | None = None
    """Largest global norm of the gradient through each initialisation, before their mean is taken; one that is not
    finite counts as zero, and an iteration ends when half of the initialisations are beyond max_kl, in place of their
    mean, so that a training which explodes costs its own share alone; default: no limit."""
    window: int | None = None
    """Inner steps before a random one that gradients flow through (RaT-BPTT); default: all of them, to the last."""
    max_kl: float | None = None
    """Largest approximate KL divergence from the policies that collected, of objectives that report it: from there on
    the remaining steps of an iteration are left out; default: no limit."""
    trust_region: bool = False
    """Whether a step that is found beyond max_kl is taken back, and the step size halved until iterations stay
    within it."""
    anneal_iterations: int | None = None
    """Iterations over which the step size falls linearly to 0; default: constant."""
    rematerialize: bool = True
    """Whether inner steps are computed again rather than stored for the backward pass: less memory, more time."""

    def __post_init__(self) -> None:
        """Refuses rates and windows that are not positive."""
        names = ("learning_rate", "max_grad_norm", "max_init_grad_norm", "window", "max_kl", "anneal_iterations")
        require_positive_fields(self, *names)
        require_below_one("momentum", self.momentum)
        if self.trust_region and self.max_kl is None:
            raise ValueError("trust_region: expected a max_kl beside it")


@struct.dataclass
class MetaGradientState:
    """State of the ascent.

    Attributes:
        solution: Present solution.
        optimizer: State of the outer optimiser.
        iteration: Finished iterations, `[]` int32; None where the step size is not annealed.
        scale: Factor of the step size that keeps steps within the trust region, `[]`; None without one.
    """

    solution: Solution
    optimizer: Any
    iteration: jax.Array | None = None
    scale: jax.Array | None = None


@dataclass(frozen=True)
class MetaGradient:
    """Gradient ascent on F through the inner loop (Offline Behavior Distillation, arXiv 2410.22728, algorithm 1).

    Its one candidate is the solution, so that it takes the place of `Evolution` for any objective that can be
    differentiated. An iteration is one step of the optimiser, or one for each part of a problem that is divided.

    Attributes:
        population_size: Candidates of an iteration.
        optimizer: Any optax optimiser.
        max_kl: Largest `approx_kl`, a metric of the objective: the step that finds more is left out, and those behind
            it; no limit if None.
        anneal_iterations: Iterations over which updates are scaled down linearly to 0; constant if None.
        trust_region: Whether the step before the one that finds more is taken back, too. Updates are halved after such
            an iteration, and grow by a fifth after every other one, up to their own size.
        max_init_grad_norm: Largest global norm of the gradient through each initialisation, and of those that are not
            finite none: their mean is followed. `max_kl` then holds for more than half of the initialisations, and not
            for their mean. Gradients are not looked at one by one if None.

    Example:
        >>> ascent = MetaGradient(optax.sgd(0.5))
        >>> state = ascent.init(jax.random.key(0), jnp.array(1.0))
        >>> state, metrics = ascent.step(jax.random.key(1), state, lambda x: (-jnp.square(x), {}))
        >>> float(ascent.solution(state)), float(metrics["gradient_norm"])
        (0.0, 2.0)
    """

    population_size: ClassVar[int] = 1
    optimizer: optax.GradientTransformation
    max_kl: float | None = None
    anneal_iterations: int | None = None
    trust_region: bool = False
    max_init_grad_norm: float | None = None

    @classmethod
    def from_settings(cls, settings: MetaGradientSettings) -> MetaGradient:
        """Ascent by the optimiser that settings name, with the global norm of the gradient clipped in front of it."""
        optimizer = make_optimizer(
            settings.optimizer,
            settings.learning_rate,
            momentum=settings.momentum,
            max_grad_norm=settings.max_grad_norm,
        )
        return cls(
            optimizer,
            settings.max_kl,
            settings.anneal_iterations,
            settings.trust_region,
            settings.max_init_grad_norm,
        )

    def init(self, key: jax.Array, solution: Solution) -> MetaGradientState:
        """Ascent at a first solution; nothing is drawn."""
        del key
        iteration = None if self.anneal_iterations is None else jnp.int32(0)
        scale = jnp.float32(1) if self.trust_region else None
        return MetaGradientState(solution, self.optimizer.init(solution), iteration, scale)

    def step(self, key: jax.Array, state: MetaGradientState, value: Value) -> tuple[MetaGradientState, Metrics]:
        """One step of the optimiser, or one for each part of the problem.

        Args:
            key: Without effect; all that is random is in `value`.
            state: Ascent.
            value: F, differentiable, called with one candidate. A limit for each initialisation needs the
                `mean_over_inits` of `hades.fitness.IterationValue`.

        Returns:
            The new state, unchanged where a component of the gradient is not finite; and the metrics of
            `hades.outer.summarize` with `gradient_norm`, the global norm before clipping, as means over the steps,
            integers as sums. Of several parts also `updates`, the steps that were taken, and `step_scale` of a trust
            region. Of a limit for each initialisation also the shares of these whose gradient was beyond it,
            `clipped_inits`, or not finite, `lost_inits`, and whose KL divergence was, `inits_beyond_kl`.

        Raises:
            ValueError: `max_kl` is given and the objective reports no `approx_kl`, or `max_init_grad_norm` and the
                objective does not divide its problem by initialisation.
        """
        del key
        num_parts = getattr(value, "num_parts", 1)
        if num_parts == 1:
            state, metrics, _ = self._ascend(state, value)
        else:
            state, metrics = self._ascend_by_parts(state, value, num_parts)
        if state.iteration is not None:
            state = replace(state, iteration=state.iteration + 1)
        return state, metrics

    def _ascend_by_parts(
        self, state: MetaGradientState, value: Any, num_parts: int
    ) -> tuple[MetaGradientState, Metrics]:
        def ascend(index: jax.Array, state: MetaGradientState) -> tuple[MetaGradientState, Metrics, jax.Array]:
            return self._ascend(state, value, index)

        def body(carry: tuple[Any, ...]) -> tuple[Any, ...]:
            index, _, present, before, sums = carry
            state, updates = present
            state, metrics, taken = ascend(index, state)
            within, after = self._within(metrics), (state, updates + taken)
            if self.trust_region:
                # The last step before this one led out.
                after = jax.tree.map(lambda new, old: jnp.where(within, new, old), after, before)
                before = present
            return index + 1, within, after, before, jax.tree.map(jnp.add, sums, metrics)

        shapes = jax.eval_shape(ascend, jnp.int32(0), state)[1]
        sums = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        present = (state, jnp.int32(0))
        carry = (jnp.int32(0), jnp.bool_(True), present, present if self.trust_region else None, sums)
        count, within, (state, updates), _, sums = jax.lax.while_loop(
            lambda carry: (carry[0] < num_parts) & carry[1], body, carry
        )
        parts = {name: leaf if jnp.issubdtype(leaf.dtype, jnp.integer) else leaf / count for name, leaf in sums.items()}
        parts["updates"] = updates
        if state.scale is None:
            return state, parts
        parts["step_scale"] = state.scale
        scale = jnp.where(within, jnp.minimum(_GROWTH * state.scale, 1.0), _SHRINKAGE * state.scale)
        return replace(state, scale=scale), parts

    def _within(self, metrics: Metrics) -> jax.Array:
        """Whether the KL divergence is within its limit; one that is not a number is the gradient's matter."""
        if self.max_kl is None:
            return jnp.bool_(True)
        if "approx_kl" not in metrics:
            raise ValueError("max_kl: expected none, as the objective reports no approx_kl")
        if self.max_init_grad_norm is not None:
            return metrics["inits_beyond_kl"] < 0.5
        return ~(jnp.max(metrics["approx_kl"]) > self.max_kl)

    def _ascend(
        self, state: MetaGradientState, value: Any, part: jax.Array | None = None
    ) -> tuple[MetaGradientState, Metrics, jax.Array]:
        """State after one step of the optimiser, metrics, and whether the step was taken."""
        solutions = jax.tree.map(lambda leaf: leaf[None], state.solution)
        if self.max_init_grad_norm is None:
            of_part = value if part is None else lambda solutions: value(solutions, part)
            gradients, values, counts = _differentiate(of_part, solutions)
        else:
            gradients, values, counts = self._mean_of_clipped(value, solutions, part)
        gradient = jax.tree.map(lambda leaf: leaf[0], gradients)
        _, metrics = summarize(values, counts)
        norm = optax.tree.norm(gradient)
        # optax minimises.
        descent = jax.tree.map(jnp.negative, gradient)
        updates, optimizer = self.optimizer.update(descent, state.optimizer, state.solution)
        if self.anneal_iterations is not None and state.iteration is not None:
            rate = jnp.maximum(1 - state.iteration / self.anneal_iterations, 0.0)
            updates = jax.tree.map(lambda leaf: rate * leaf, updates)
        if state.scale is not None:
            updates = jax.tree.map(lambda leaf: state.scale * leaf, updates)
        moved = replace(state, solution=optax.apply_updates(state.solution, updates), optimizer=optimizer)
        finite = jnp.isfinite(norm) & (metrics.get("lost_inits", 0.0) < 1)
        taken = finite & self._within(metrics)
        kept = jax.tree.map(lambda new, old: jnp.where(taken, new, old), moved, state)
        non_finite = jnp.maximum(metrics["non_finite"], ~finite)
        return kept, {**metrics, "non_finite": non_finite, "gradient_norm": norm}, taken

    def _mean_of_clipped(
        self, value: Any, solutions: Solution, part: jax.Array | None
    ) -> tuple[Solution, jax.Array, Metrics]:
        """As `_differentiate`, of gradients that are clipped by initialisation."""
        if not hasattr(value, "mean_over_inits"):
            raise ValueError("max_init_grad_norm: expected none, as the value tells no initialisations apart")
        limit = cast(float, self.max_init_grad_norm)

        def clipped(value: Value, solutions: Solution) -> tuple[Solution, jax.Array, Metrics]:
            gradients, values, counts = _differentiate(value, solutions)
            norm = optax.tree.norm(gradients)
            finite = jnp.isfinite(norm)
            shorter, _ = optax.clip_by_global_norm(limit).update(gradients, optax.EmptyState())
            shares = {"clipped_inits": ~(norm <= limit), "lost_inits": ~finite}
            if self.max_kl is not None and "approx_kl" in counts:
                shares["inits_beyond_kl"] = counts["approx_kl"] > self.max_kl
            shares = {name: jnp.full_like(values, share) for name, share in shares.items()}
            return jax.tree.map(lambda leaf: jnp.where(finite, leaf, 0), shorter), values, counts | shares

        found: tuple[Solution, jax.Array, Metrics] = value.mean_over_inits(clipped, solutions, part)
        return found

    def solution(self, state: MetaGradientState) -> Solution:
        """Present solution."""
        return state.solution


def _differentiate(value: Value, solutions: Solution) -> tuple[Solution, jax.Array, Metrics]:
    """Gradients of the value of one candidate, its value and its counts, `[1, ...]` each."""

    def total(solutions: Solution) -> tuple[jax.Array, tuple[jax.Array, Metrics]]:
        values, counts = value(solutions)
        return values[0], (values, counts)

    gradients, (values, counts) = jax.grad(total, has_aux=True)(solutions)
    return gradients, values, counts
