"""Peak memory of one generation, in a process of its own.

As a program: `python -m experiments.bench._lib.memory CASE FORMULATION SEED`.
"""

from __future__ import annotations

import contextlib
import json
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from experiments.bench._lib.cases import CASES
from experiments.bench._lib.measuring import FIRST, compile_step, make_step, prepare
from experiments.processes import program


def peak_memory(case: str, formulation: str, seed: int) -> dict[str, int]:
    """Peak resident memory of a fresh process that runs one generation.

    Returns:
        `baseline_bytes` (peak of imports and first state), `compiled_bytes` (peak of compilation), `peak_bytes`
        (peak of the generation), and `peak_rss_bytes`, how far that is above the baseline. Where the system does not
        let a process forget its peak, `peak_bytes` is that of compilation too.

    Raises:
        ValueError: The process failed.
    """
    what = f"memory of {case}, {formulation}"
    measured = measure_apart("experiments.bench._lib.memory", [case, formulation, str(seed)], what)
    return measured | {"peak_rss_bytes": measured["peak_bytes"] - measured["baseline_bytes"]}


def measure_apart(module: str, arguments: Sequence[str], what: str) -> dict[str, Any]:
    """Runs a module as a program in a process of its own, and returns the JSON object of its last line.

    Raises:
        ValueError: It failed; the message begins with `what` and has its last words.
    """
    done = subprocess.run(program(module, *arguments), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise ValueError(f"{what}: {reason[0]}")
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def main(arguments: Sequence[str]) -> None:
    """Runs one generation and prints the peaks before, between and after as JSON."""
    case, formulation, seed = arguments
    prepared = prepare(CASES[case](), int(seed))
    state = prepared.states[FIRST]
    peaks = {"baseline_bytes": peak_bytes()}
    compiled, _ = compile_step(make_step(formulation, prepared), state)
    peaks["compiled_bytes"] = peak_bytes()
    _forget_peak()
    jax.block_until_ready(compiled(state))
    print(json.dumps(peaks | {"peak_bytes": peak_bytes()}))


def peak_bytes() -> int:
    """The peak of this process's resident memory so far."""
    # Linux hands ru_maxrss of the parent down to its children, but not this one.
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _forget_peak() -> None:
    """Sets the peak to what is resident now."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


if __name__ == "__main__":
    main(sys.argv[1:])
