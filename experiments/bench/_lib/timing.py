"""Seconds of compilation and of work, apart from each other."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

from hades.compilation_cache import use_compilation_cache
from hades.types import Metrics, PyTree


def compile_step(step: Callable[..., Any], *arguments: PyTree) -> tuple[Any, float]:
    """Compiles a step for such arguments: the compiled step, and seconds in which no compilation cache helped."""
    with _without_cache():
        started = time.perf_counter()
        # A function of its own: of the same one JAX still holds what it compiled before.
        compiled = jax.jit(lambda *given: step(*given)).lower(*arguments).compile()
        return compiled, time.perf_counter() - started


def time_steps(
    step: Callable[[PyTree], tuple[PyTree, Metrics]], state: PyTree, repeats: int
) -> tuple[PyTree, list[float], list[Metrics]]:
    """Times compiled steps, each to its end.

    Args:
        step: Compiled step.
        state: State before, or states of several seeds.
        repeats: Steps that are timed, after one that is not.

    Returns:
        The state after, seconds of each step, and metrics of each step.
    """
    state, _ = jax.block_until_ready(step(state))
    seconds, rows = [], []
    for _ in range(repeats):
        started = time.perf_counter()
        state, metrics = jax.block_until_ready(step(state))
        seconds.append(time.perf_counter() - started)
        rows.append(metrics)
    return state, seconds, rows


def time_in_turns(
    functions: Mapping[str, Callable[[PyTree], Any]], argument: PyTree, repeats: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Times functions in turns (A, B, A, B, ...), so that a busy machine is busy for all of them.

    Returns:
        Wall-clock seconds, and seconds of CPU time of the whole process: `median`, `min` and `all`, by name.
    """
    wall: dict[str, list[float]] = {name: [] for name in functions}
    cpu: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        jax.block_until_ready(function(argument))
    for _ in range(repeats):
        for name, function in functions.items():
            started, cpu_started = time.perf_counter(), time.process_time()
            result = jax.block_until_ready(function(argument))
            wall[name].append(time.perf_counter() - started)
            cpu[name].append(time.process_time() - cpu_started)
            # Freed before the other function's turn.
            del result
    return _summaries(wall), _summaries(cpu)


def _summaries(seconds: Mapping[str, list[float]]) -> dict[str, Any]:
    return {
        name: {"median": statistics.median(values), "min": min(values), "all": values}
        for name, values in seconds.items()
    }


@contextlib.contextmanager
def _without_cache() -> Iterator[None]:
    before = jax.config.jax_enable_compilation_cache  # type: ignore[attr-defined]
    use_compilation_cache(False)
    try:
        yield
    finally:
        use_compilation_cache(before)
