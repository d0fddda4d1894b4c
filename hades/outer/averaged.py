"""An outer loop whose outcome is a moving average of the solutions of another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import optax
from flax import struct

from hades._validation import require_below_one
from hades.types import Metrics, OuterLoop, Solution, Value


@struct.dataclass
class AveragedState:
    """State of an averaged outer loop.

    Attributes:
        outer: State of the outer loop that moves.
        ema: Running sums of `optax.ema`.
        average: Average of its solutions so far.
    """

    outer: Any
    ema: optax.EmaState
    average: Solution


@dataclass(frozen=True)
class Averaged:
    """Another outer loop, whose solution is the exponential moving average of those that it goes through.

    The other one moves as if there were no average, and objectives collect with the policies of its own solution, where
    the gradient is taken.

    Attributes:
        outer: Outer loop that moves.
        decay: Weight of the former average in each new one; that of the first solutions is corrected, as in Adam.

    Example:
        >>> import jax.numpy as jnp
        >>> from hades.outer import MetaGradient
        >>> averaged = Averaged(MetaGradient(optax.sgd(0.25)), decay=0.5)
        >>> state = averaged.init(jax.random.key(0), jnp.array(1.0))
        >>> for _ in range(2):
        ...     state, _ = averaged.step(jax.random.key(1), state, lambda x: (-jnp.square(x), {}))
        >>> # Of 0.5 and 0.25, the newer one with twice the weight.
        >>> float(averaged.outer.solution(state.outer)), round(float(averaged.solution(state)), 3)
        (0.25, 0.333)
    """

    outer: OuterLoop
    decay: float

    def __post_init__(self) -> None:
        """Refuses a decay outside of [0, 1)."""
        require_below_one("decay", self.decay)

    def init(self, key: jax.Array, solution: Solution) -> AveragedState:
        """State at a first solution, which is no part of the average once there are others."""
        return AveragedState(self.outer.init(key, solution), self._ema.init(solution), solution)

    def step(self, key: jax.Array, state: AveragedState, value: Value) -> tuple[AveragedState, Metrics]:
        """One iteration of the other outer loop; arguments and metrics are its own."""
        outer, metrics = self.outer.step(key, state.outer, value)
        average, ema = self._ema.update(self.outer.solution(outer), state.ema)
        return AveragedState(outer, ema, average), metrics

    def solution(self, state: AveragedState) -> Solution:
        """The average; the first solution before there is one."""
        return state.average

    def position(self, state: AveragedState) -> Solution:
        """Solution of the other outer loop, which the next iteration begins at."""
        return self.outer.solution(state.outer)

    @property
    def population_size(self) -> int | None:
        """Candidates of an iteration of the other outer loop; None where it does not say."""
        return getattr(self.outer, "population_size", None)

    @property
    def _ema(self) -> optax.GradientTransformation:
        return optax.ema(self.decay)
