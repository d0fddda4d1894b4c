"""Programs of a run, compiled before they are called: beside each other, and beside the tracing of the next."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.stages import Lowered

from hades import multihost
from hades._cache import Hashed
from hades._host_loop import advance, initial, outcome_of
from hades.evaluation import DatasetEvaluator, PolicyEvaluator
from hades.run import Run
from hades.sharding import is_elsewhere, own_copy, replicated_shapes, usable_cores

if TYPE_CHECKING:
    from hades.training import LoopSettings


class Ahead:
    """Workers that compile programs, which calls of the same functions then find.

    A program that cannot be compiled says so where it is called.

    Example:
        >>> double = jax.jit(lambda x: 2 * x)
        >>> with Ahead() as ahead:
        ...     ahead.compile([double.lower(1.0)])
        ...     ahead.wait()
    """

    def __init__(self) -> None:
        """Begins with none."""
        # Compiling for a GPU times kernels on it, which others beside them would disturb.
        self._workers = ThreadPoolExecutor(usable_cores() if jax.default_backend() == "cpu" else 1)
        self._programs: list[Future[Any]] = []

    def __enter__(self) -> Ahead:
        """Gives itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Leaves out what has not begun, and does not wait for the rest, for which the end of the program does."""
        self._workers.shutdown(wait=False, cancel_futures=True)

    @property
    def is_empty(self) -> bool:
        """Whether nothing has been asked for."""
        return not self._programs

    def compile(self, programs: Iterable[Lowered]) -> None:
        """Begins to compile programs, each of them once it is traced, while the next one is."""
        for program in programs:
            self._programs.append(self._workers.submit(program.compile))

    def wait(self, count: int | None = None) -> None:
        """Waits for the first `count` programs, for all if None."""
        wait(self._programs[:count])


def programs_of(run: Run[Any], keys: jax.Array, loop: LoopSettings, begins: bool) -> Iterator[Lowered]:
    """Programs that the host calls in a run, in the order of their calls; those alone that it is sure to call.

    None of a run over several processes, which have to compile in one order. Of several seeds, and on a chosen device,
    where arrays come from is not known before: they have the first states' alone.

    Args:
        run: Its arrays on every device of its mesh.
        keys: Keys of its seeds, `[seeds]`.
        loop: Calls and evaluations.
        begins: Whether first states are drawn.
    """
    if multihost.are_several() or jax.config.jax_disable_jit:  # type: ignore[attr-defined]
        return
    key, own = keys[0], own_copy(run)
    if begins:
        yield initial.lower(own, key)
    if len(keys) > 1 or is_elsewhere(run.mesh):
        return
    state = jax.eval_shape(initial, own, key)
    yield advance.lower(run, replicated_shapes(state, run.mesh), np.int32(0), **loop.call_sizes)
    if loop.evaluate_every is None:
        return
    evaluator, selector = loop.make_evaluators(run)
    outcome = jax.eval_shape(outcome_of, own, state)
    for evaluation in (evaluator,) if Hashed(evaluator) == Hashed(selector) else (evaluator, selector):
        # A user's own says nothing of its programs.
        if isinstance(evaluation, (DatasetEvaluator, PolicyEvaluator)):
            yield from evaluation.lower(key, outcome)
