"""Peak memory of one generation, in a process of its own.

As a program: `python -m experiments.bench.memory CASE FORMULATION SEED`.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Sequence

import jax

from experiments.bench.cases import CASES
from experiments.bench.measuring import FIRST, compile_step, make_step, prepare


def peak_memory(case: str, formulation: str, seed: int) -> dict[str, int]:
    """Peak resident memory of a fresh process that runs one generation.

    Returns:
        `baseline_bytes` (after imports and the first state), `compiled_bytes` (after compilation), `peak_bytes`, and
        `peak_rss_bytes`, the peak above the baseline.

    Raises:
        ValueError: The process failed.
    """
    command = [sys.executable, "-m", "experiments.bench.memory", case, formulation, str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise ValueError(f"memory of {case}, {formulation}: {reason[0]}")
    measured: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return measured | {"peak_rss_bytes": measured["peak_bytes"] - measured["baseline_bytes"]}


def main(arguments: Sequence[str]) -> None:
    """Runs one generation and prints the peaks before, between and after as JSON."""
    case, formulation, seed = arguments
    prepared = prepare(CASES[case](), int(seed))
    state = prepared.states[FIRST]
    peaks = {"baseline_bytes": _peak_bytes()}
    compiled, _ = compile_step(make_step(formulation, prepared), state)
    peaks["compiled_bytes"] = _peak_bytes()
    jax.block_until_ready(compiled(state))
    print(json.dumps(peaks | {"peak_bytes": _peak_bytes()}))


def _peak_bytes() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    main(sys.argv[1:])
