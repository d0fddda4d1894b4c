"""`hades bench throughput`: an iteration of several methods at small sizes, perhaps beside another checkout."""

from __future__ import annotations

import json
import os
import shlex
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, cast

from experiments import tables
from experiments.bench._lib import iterations_in_turns
from experiments.bench._lib.base import Bench, BenchSettings, Report, tell
from experiments.bench._lib.memory import mebibytes
from experiments.bench._lib.runs import Method
from experiments.processes import shared_memory
from hades._provenance import git_commit

CaseName = Literal["cartpole", "hopper-64", "hopper-512", "breakout", "hades-pg-breakout", "ppo-breakout"]
_PPO = "--num-minibatches 2 --network.activation tanh --observation-normalization fixed"
_HOPPER = "--dataset-size 64 --population-size 16 --cloning.hidden-sizes"

CASES: dict[CaseName, tuple[Method, str, str]] = {
    "cartpole": ("hades-r", "gymnax/CartPole-v1", "--population-size 128"),
    "hopper-64": ("hades-r", "brax/hopper", f"{_HOPPER} 64 64"),
    "hopper-512": ("hades-r", "brax/hopper", f"{_HOPPER} 512 512"),
    "breakout": ("hades-r", "gymnax/Breakout-MinAtar", ""),
    "hades-pg-breakout": ("hades-pg", "gymnax/Breakout-MinAtar", ""),
    # Environments, steps, epochs, minibatches and network of the one above.
    "ppo-breakout": ("ppo", "gymnax/Breakout-MinAtar", f"{_PPO} --network.hidden-sizes 128 128"),
}
"""Method, environment and flags by name; the rest are the settings of the environment's small preset."""

_HERE, _OTHER = "this", "other"
_HEADER = ("case", "compile [s]", "s/iteration", "CPU s", "steps/s", "memory", "other / this: CPU", "memory")


@dataclass(frozen=True, kw_only=True)
class ThroughputSettings(BenchSettings):
    """Times an iteration of each case, compilation apart, in a process of its own.

    With --against, another checkout of this project takes its turns in the same run: both are timed one iteration
    after the other, so that a busy machine is busy for both. It has presets of its own.
    """

    cases: tuple[CaseName, ...] = tuple(CASES)
    """Cases to measure."""
    repeats: int = 5
    """Iterations of each checkout; medians are compared."""
    against: Path | None = None
    """Root of another checkout, with a commit that has this benchmark's methods; default: none."""

    def __post_init__(self) -> None:
        """Refuses a number of repeats that is not positive, and a folder that is no checkout."""
        self.require_positive("repeats")
        if self.against is not None and not (self.against / "experiments/bench/_lib/runs.py").is_file():
            raise ValueError(f"against: expected the root of a checkout of this project, got {self.against}")


def measure(settings: ThroughputSettings, report: Report) -> None:
    """Measures every case."""
    checkouts = {_HERE: Path(__file__).resolve().parents[2]}
    if settings.against is not None:
        checkouts[_OTHER] = settings.against.resolve()
    commits = {name: git_commit(root) for name, root in checkouts.items()}
    report.content.update(repeats=settings.repeats, commits=commits)
    cases: dict[str, Any] = {}
    for name in settings.cases:
        tell(f"measuring {name} ...")
        cases[name] = _measure(CASES[name], checkouts, settings.repeats)
        report.add(cases=cases)


def _measure(case: tuple[Method, str, str], checkouts: Mapping[str, Path], repeats: int) -> dict[str, Any]:
    """Measurements of one case by checkout: what the program of `iterations_in_turns` answers, with medians."""
    method, env, flags = case
    line = [sys.executable, "-P", iterations_in_turns.__file__, method, env, *shlex.split(flags)]
    with ExitStack() as stack:
        # One after the other, so that compilations do not disturb each other.
        programs, results = {}, {}
        for name, root in checkouts.items():
            programs[name] = stack.enter_context(_program(line, root, len(checkouts)))
            results[name] = _answer(programs[name])
            if results[name]["root"] != str(root):
                raise ValueError(f"against: expected the code of {root}, but Python imports {results[name]['root']}")
        turns = [{name: _answer(program, ask=True) for name, program in programs.items()} for _ in range(repeats + 1)]
    for name, result in results.items():
        own = [turn[name] for turn in turns[1:]]
        medians = {f"{key}_median": statistics.median(turn[key] for turn in own) for key in ("seconds", "cpu_seconds")}
        result |= medians | {key: own[-1][key] for key in ("env_steps", "fitness", "peak_bytes")} | {"turns": own}
    return {"method": method, "env": env, "flags": flags, "checkouts": results}


@contextmanager
def _program(line: Sequence[str], root: Path, sharing: int) -> Iterator[subprocess.Popen[str]]:
    """The program on the code of a checkout, one of `sharing` at the same time, until its input is closed."""
    # No cache, whatever the checkout's own code does: compile seconds of both are of compiling.
    own = {"PYTHONPATH": str(root), "JAX_ENABLE_COMPILATION_CACHE": "false", **shared_memory(sharing)}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(line, env=os.environ | own, **pipes) as program:
        yield program
        # Closes the input, which ends the program.
        program.communicate()


def _answer(program: subprocess.Popen[str], ask: bool = False) -> dict[str, Any]:
    """The next answer of a program, asked for by a line or, the first one, not.

    Raises:
        ValueError: The program has ended; its own words are on stderr.
    """
    if ask:
        print(file=cast(IO[str], program.stdin), flush=True)
    answer = cast(IO[str], program.stdout).readline()
    if not answer:
        raise ValueError(f"{shlex.join(map(str, cast(Sequence[str], program.args)))}: ended without an answer")
    result: dict[str, Any] = json.loads(answer)
    return result


def render(result: Mapping[str, Any]) -> str:
    """Table of the cases."""
    rows = [
        _row(f"{name}, {checkout}" if len(case["checkouts"]) > 1 else name, own, case["checkouts"].get(_OTHER, own))
        for name, case in result["cases"].items()
        for checkout, own in case["checkouts"].items()
    ]
    return tables.table(f"one iteration, medians of {result['repeats']}", _HEADER, rows)


def _row(label: str, own: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        label,
        f"{own['compile_seconds']:.1f}",
        f"{own['seconds_median']:.3g}",
        f"{own['cpu_seconds_median']:.3g}",
        f"{own['env_steps'] / own['seconds_median']:,.0f}",
        mebibytes(own["total_bytes"]),
        f"{other['cpu_seconds_median'] / own['cpu_seconds_median']:.2f}x",
        f"{other['total_bytes'] / max(own['total_bytes'], 1):.2f}x",
    )


BENCH = Bench(ThroughputSettings, measure, render, in_processes=True)
