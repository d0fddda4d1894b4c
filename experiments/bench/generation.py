"""`hades bench generation`: one generation of HaDES against the straightforward formulation of the same."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from experiments import tables
from experiments.arguments import parse
from experiments.bench._lib.cases import CASES, Case
from experiments.bench._lib.measuring import FORMULATIONS, measure_case
from experiments.bench._lib.memory import peak_memory
from experiments.bench._lib.results import deliver, provenance
from hades._serialization import to_dict
from hades._validation import require_positive

_MEBIBYTE = 2**20
_TIMES = ("case", *FORMULATIONS, "faster", "less CPU", "asked", "fitness differs by")
_SIZES = ("case", "compiled", "hades", "memory", "hades", "ratio", "asked")

CaseName = Literal["breakout", "cartpole", "hopper"]


@dataclass(frozen=True, kw_only=True)
class GenerationSettings:
    """Times one generation of HaDES in turns with the straightforward formulation of it, and compares their memory.

    The straightforward formulation works on the whole population at once, for the environment's full horizon, with
    what each step reports stacked over time, and returns all parameters and optimiser states, as published code does.
    """

    cases: tuple[CaseName, ...] = ("breakout", "cartpole", "hopper")
    """Cases to measure."""
    repeats: int = 5
    """Turns of each formulation; medians are compared."""
    seed: int = 0
    """Seed of the generation."""
    measure_memory: bool = True
    """Also measures the peak resident memory, in a fresh process for each formulation."""
    out: Path | None = Path("experiments/results/generation.json")
    """Where the JSON object is written; None writes nothing."""
    json: bool = False
    """Prints one JSON object as the last line of stdout, and everything else on stderr."""

    def __post_init__(self) -> None:
        """Refuses a number of repeats that is not positive."""
        require_positive("repeats", self.repeats)


def main(arguments: Sequence[str]) -> int:
    """Runs the benchmark and returns its exit code."""
    settings = parse(GenerationSettings, "bench generation", arguments)
    result: dict[str, Any] = provenance("generation", arguments) | {"cases": {}}
    for name in settings.cases:
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        result["cases"][name] = measure(name, settings)
    print(_render(result["cases"]))
    command = shlex.join(result["command"])
    print(f"{command}: medians of {settings.repeats}, {', '.join(result['versions']['devices'])}")
    deliver(result, settings.out, settings.json)
    return 0


def measure(name: CaseName, settings: GenerationSettings) -> dict[str, Any]:
    """All that is measured of one case, with what the project asks of it."""
    case = CASES[name]()
    measured = measure_case(case, settings.repeats, settings.seed)
    memory = measured["memory"]
    if settings.measure_memory:
        for formulation in FORMULATIONS:
            memory[formulation] |= peak_memory(name, formulation, settings.seed)
        memory["peak_rss_ratio"] = _memory_ratio(memory, "peak_rss_bytes")
    memory["ratio"] = _memory_ratio(memory, "total_bytes")
    description = {"env": case.env, "env_options": dict(case.env_options), "settings": to_dict(case.settings)}
    return {**description, **measured, "targets": _targets(case, measured)}


def _memory_ratio(memory: dict[str, Any], key: str) -> float:
    return memory["hades"][key] / max(memory["straightforward"][key], 1)


def _targets(case: Case, measured: dict[str, Any]) -> dict[str, Any]:
    slowest = min(population["speed_ratio"] for population in measured["populations"].values())
    ratio = measured["memory"]["ratio"]
    return {
        "speed_ratio": case.target_speed,
        "speed_met": slowest >= case.target_speed,
        "memory_ratio": case.target_memory,
        "memory_met": case.target_memory is None or ratio <= case.target_memory,
    }


def _render(cases: dict[str, Any]) -> str:
    times = [
        (
            f"{name}, {population}",
            *(f"{values['seconds'][formulation]['median'] * 1e3:.0f} ms" for formulation in FORMULATIONS),
            f"{values['speed_ratio']:.2f}x",
            f"{values['cpu_ratio']:.2f}x",
            f"{case['targets']['speed_ratio']:g}x",
            f"{values['fitness_max_abs_difference']:.1g}",
        )
        for name, case in cases.items()
        for population, values in case["populations"].items()
    ]
    sizes = [
        (
            name,
            *(f"{case['compile_seconds'][formulation]:.1f} s" for formulation in FORMULATIONS),
            *(f"{case['memory'][formulation]['total_bytes'] / _MEBIBYTE:.1f} MiB" for formulation in FORMULATIONS),
            f"{case['memory']['ratio']:.2f}x",
            "" if case["targets"]["memory_ratio"] is None else f"{case['targets']['memory_ratio']:g}x",
        )
        for name, case in cases.items()
    ]
    return "\n".join(
        [tables.table("one generation", _TIMES, times), tables.table("compilation and memory", _SIZES, sizes)]
    )
