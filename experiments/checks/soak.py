"""`python -m experiments.checks.soak`: whether a long run keeps its memory, its programs and its rate.

A run of many iterations is watched from outside, in tenths of its iterations, the first of which warms up: memory has
to stay flat, nothing may compile, and the last tenth has to be as fast as the second one.
"""

from __future__ import annotations

import itertools
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from experiments import tables
from experiments.arguments import parse, print_json
from experiments.bench._lib.memory import mebibytes
from experiments.processes import command
from experiments.settings import OutputSettings
from hades._provenance import installed_versions
from hades._run_directory import RunDirectory

_TENTHS = 10
_POLL_SECONDS = 0.2
_COMPILED = "Finished XLA compilation"


@dataclass(frozen=True, kw_only=True)
class SoakSettings(OutputSettings):
    """Runs hades distill for many iterations, and watches memory, compilations and rate, tenth by tenth."""

    num_iterations: int = 10_000
    """Iterations of the run."""
    flags: str = "--preset cartpole --population-size 16 --iterations-per-call 20 --evaluate-every 1000"
    """Flags of hades distill in one string."""
    memory_growth: float = 0.05
    """Most growth of resident memory from the end of the second tenth to the end, as a fraction."""
    slowdown: float = 0.05
    """Most CPU time that an iteration of the last tenth takes above one of the second, as a fraction."""

    def __post_init__(self) -> None:
        """Refuses fewer iterations than a tenth of them each needs."""
        if self.num_iterations < _TENTHS:
            raise ValueError(f"num_iterations: expected at least {_TENTHS}, got {self.num_iterations}")


@dataclass(frozen=True)
class Sample:
    """State of a process as it is seen from outside.

    Attributes:
        iteration: Last iteration in its metrics.
        seconds: Since its start.
        cpu_seconds: Of all of its threads.
        resident_bytes: Memory.
        compilations: Programs that it has compiled, or read from the cache.
    """

    iteration: int
    seconds: float
    cpu_seconds: float
    resident_bytes: int
    compilations: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the check; 0 if memory, programs and rate have stayed, 1 otherwise."""
    settings = parse(SoakSettings, "checks.soak", list(sys.argv[1:] if arguments is None else arguments))
    with tempfile.TemporaryDirectory(prefix="hades-soak-") as folder:
        samples = watch(settings, Path(folder))
    verdicts = judge(settings, samples)
    stream = sys.stderr if settings.json else sys.stdout
    rows = [_row(before, after) for before, after in itertools.pairwise(samples)]
    header = ("iteration", "seconds", "CPU ms/iteration", "resident", "compilations")
    print(tables.table(f"hades distill {settings.flags}", header, rows), file=stream)
    for name, verdict in verdicts.items():
        print(f"{name}: {verdict['found']} (at most {verdict['most']}): {_word(verdict)}", file=stream)
    if settings.json:
        result = {"settings": asdict(settings), "versions": installed_versions(), "verdicts": verdicts}
        print_json(result | {"samples": [asdict(sample) for sample in samples]})
    return 0 if all(verdict["passed"] for verdict in verdicts.values()) else 1


def watch(settings: SoakSettings, folder: Path) -> list[Sample]:
    """Runs to the last iteration, and samples at the start and at the end of each tenth.

    Raises:
        SystemExit: The run failed; the message has its last words.
    """
    run, log = RunDirectory(folder / "run"), folder / "log.txt"
    # Another tenth follows, so that the evaluations at the end of a run, which compile, are not watched.
    asked = settings.num_iterations + settings.num_iterations // _TENTHS
    line = ["distill", *shlex.split(settings.flags), "--num-iterations", str(asked)]
    samples: list[Sample] = []
    started = time.monotonic()
    with log.open("w") as stream:
        process = subprocess.Popen(
            command(*line, "--out", str(run.path)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stream,
            env=os.environ | {"JAX_LOG_COMPILES": "1"},
        )
        try:
            while len(samples) <= _TENTHS and process.poll() is None:
                row = run.last_row()
                iteration = 0 if row is None else int(row["iteration"])
                if row is not None and iteration * _TENTHS >= len(samples) * settings.num_iterations:
                    samples.append(_sample(process.pid, iteration, time.monotonic() - started, log))
                time.sleep(_POLL_SECONDS)
        finally:
            ended = process.poll()
            process.kill()
            process.wait()
    if ended:
        raise SystemExit("\n".join([f"hades {shlex.join(line)} failed:", *log.read_text().splitlines()[-5:]]))
    if len(samples) <= _TENTHS:
        raise SystemExit(f"the run was too short to be watched: {len(samples)} samples of {_TENTHS + 1}")
    return samples


def _sample(pid: int, iteration: int, seconds: float, log: Path) -> Sample:
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks, pages = int(stat[11]) + int(stat[12]), int(stat[21])
    compilations = log.read_text().count(_COMPILED)
    resident = pages * os.sysconf("SC_PAGE_SIZE")
    return Sample(iteration, seconds, ticks / os.sysconf("SC_CLK_TCK"), resident, compilations)


def judge(settings: SoakSettings, samples: Sequence[Sample]) -> dict[str, dict[str, Any]]:
    """Growth of memory, compilations and slowdown from the end of the second tenth on, each with what is allowed."""
    warm, last = samples[2], samples[-1]
    first_rate, last_rate = cpu_per_iteration(samples[1], warm), cpu_per_iteration(samples[-2], last)
    found = {
        "memory_growth": (last.resident_bytes / warm.resident_bytes - 1, settings.memory_growth),
        "compilations": (last.compilations - warm.compilations, 0),
        "slowdown": (last_rate / first_rate - 1, settings.slowdown),
    }
    return {name: {"found": value, "most": most, "passed": value <= most} for name, (value, most) in found.items()}


def cpu_per_iteration(before: Sample, after: Sample) -> float:
    """CPU seconds of an iteration between two samples, which other work on the machine hardly moves."""
    return (after.cpu_seconds - before.cpu_seconds) / (after.iteration - before.iteration)


def _row(before: Sample, after: Sample) -> tuple[str, ...]:
    rate = f"{cpu_per_iteration(before, after) * 1e3:.3g}"
    return str(after.iteration), f"{after.seconds:.0f}", rate, mebibytes(after.resident_bytes), str(after.compilations)


def _word(verdict: dict[str, Any]) -> str:
    return "passed" if verdict["passed"] else "FAILED"


if __name__ == "__main__":
    sys.exit(main())
