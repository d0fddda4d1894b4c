"""A program that compiles an iteration of a method, and takes one whenever a line comes in.

Run as a file, `python -P .../iterations_in_turns.py METHOD ENV FLAGS`, so that it can measure another checkout, which
PYTHONPATH names, with that checkout's own presets. Each answer is a line of JSON: first what compiling took, then what
each iteration took.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np

import hades
from experiments.bench._lib.memory import compiled_bytes, peak_bytes
from experiments.bench._lib.runs import Method, small_run
from experiments.bench._lib.timing import compile_step


def main(method: str, env: str, *flags: str) -> None:
    """Answers until the input ends. All iterations begin at one state, the one after the first."""
    answers, sys.stdout = sys.stdout, sys.stderr
    run, seed, _ = small_run(cast(Method, method), env, flags)
    state = jax.jit(run.init)(jax.random.key(seed))
    if getattr(run, "mesh", None) is not None:
        # Checkouts of before runs had meshes have no such function.
        from hades.sharding import replicate

        run, state = replicate(run, run.mesh), replicate(state, run.mesh)
    step, compile_seconds = compile_step(run.step, state)
    state, _ = jax.block_until_ready(step(state))

    def answer(**content: Any) -> None:
        print(json.dumps(content), file=answers, flush=True)

    root = str(Path(hades.__file__).resolve().parents[1])
    answer(root=root, compile_seconds=compile_seconds, **compiled_bytes(step))
    for _ in sys.stdin:
        started, cpu_started = time.perf_counter(), time.process_time()
        _, metrics = jax.block_until_ready(step(state))
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
        answer(
            seconds=seconds,
            cpu_seconds=cpu_seconds,
            env_steps=int(np.sum(metrics.get("env_steps", 0))),
            fitness=float(metrics["fitness_mean"]),
            peak_bytes=peak_bytes(),
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
