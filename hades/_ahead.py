"""Programs of a run, compiled before they are called: beside each other, and beside the tracing of the next."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.stages import Lowered

from hades._host_loop import advance, initial, outcome_of
from hades.run import Run
from hades.sharding import own_copy, replicated_shapes, usable_cores

if TYPE_CHECKING:
    from hades.training import LoopSettings


def compile_ahead(programs: Iterable[Lowered]) -> None:
    """Compiles programs, which calls of the same functions then find.

    One that cannot be compiled says so where it is called.

    Args:
        programs: Traced as they are asked for, while earlier ones are compiled.
    """
    with ThreadPoolExecutor(usable_cores()) as workers:
        try:
            for program in programs:
                workers.submit(program.compile)
        except BaseException:
            workers.shutdown(cancel_futures=True)
            raise


def programs_of(run: Run[Any], keys: jax.Array, loop: LoopSettings, begins: bool) -> Iterator[Lowered]:
    """Programs that the host calls in a run, the longest first.

    None of a run over several processes, which have to compile in one order.

    Args:
        run: Its arrays on every device of its mesh.
        keys: Keys of its seeds, `[seeds]`; iterations of several are compiled where they are called.
        loop: Calls and evaluations.
        begins: Whether first states are drawn.
    """
    if jax.process_count() > 1:
        return
    own = own_copy(run)
    if begins:
        yield initial.lower(own, keys[0])
    state = jax.eval_shape(initial, own, keys[0])
    if len(keys) == 1:
        yield advance.lower(run, replicated_shapes(state, run.mesh), np.int32(0), **loop.call_sizes)
    evaluator, selector = loop.make_evaluators(run)
    outcome = jax.eval_shape(outcome_of, own, state)
    if evaluator is not None:
        yield from evaluator.lower(outcome)
    if selector is not None and selector != evaluator:
        yield from selector.lower(outcome)
