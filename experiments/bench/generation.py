"""`hades bench generation`: one generation of HaDES against the straightforward formulation of the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import numpy as np

from experiments import tables
from experiments.bench._lib import straightforward
from experiments.bench._lib.apart import measure_apart
from experiments.bench._lib.base import Bench, Report, SeededBenchSettings, tell
from experiments.bench._lib.cases import CASES, FIRST, Case, prepare
from experiments.bench._lib.memory import compiled_bytes, forget_peak, mebibytes, peak_bytes
from experiments.bench._lib.timing import compile_step, time_in_turns
from hades._serialization import to_dict
from hades.distillation import DatasetRun
from hades.fitness import in_chunks, make_fitness
from hades.run import RunState
from hades.types import Solution

FORMULATIONS = ("straightforward", "hades")
"""Formulations in the order of their turns."""

CaseName = Literal["breakout", "cartpole", "hopper"]
_TIMES = ("case", *FORMULATIONS, "faster", "less CPU", "asked", "fitness differs by")
_SIZES = ("case", "compiled", "hades", "memory", "hades", "ratio", "asked")


@dataclass(frozen=True, kw_only=True)
class GenerationSettings(SeededBenchSettings):
    """Times one generation of HaDES in turns with the straightforward formulation of it, and compares their memory.

    The straightforward formulation works on the whole population at once, for the environment's full horizon, with
    what each step reports stacked over time, and returns all parameters and optimiser states, as published code does.
    """

    cases: tuple[CaseName, ...] = ("breakout", "cartpole", "hopper")
    """Cases to measure."""
    repeats: int = 5
    """Turns of each formulation; medians are compared."""
    measure_memory: bool = True
    """Also measures the peak resident memory, in a fresh process for each formulation."""

    def __post_init__(self) -> None:
        """Refuses a number of repeats that is not positive."""
        super().__post_init__()
        self.require_positive("repeats")


def measure(settings: GenerationSettings, report: Report) -> None:
    """Measures every case."""
    cases: dict[str, Any] = {}
    report.content["repeats"] = settings.repeats
    for name in settings.cases:
        tell(f"measuring {name} ...")
        cases[name] = _measure(name, settings)
        report.add(cases=cases)


def _measure(name: CaseName, settings: GenerationSettings) -> dict[str, Any]:
    """Measurements of one case, with the figures that the project asks for."""
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


def make_step(formulation: str, run: DatasetRun) -> Callable[[RunState], Any]:
    """Makes one generation in one of `FORMULATIONS`."""
    return run.step if formulation == "hades" else partial(straightforward.step, run)


def measure_case(case: Case, repeats: int, seed: int) -> dict[str, Any]:
    """Measures both formulations of a case, in turns within this process.

    Args:
        case: Case.
        repeats: Turns of each formulation, after one that does not count.
        seed: Seed of the run.

    Returns:
        `compile_seconds` and `memory` by formulation, and by population `seconds`, `cpu_seconds`, `speed_ratio`,
        `fitness_mean` and `fitness_max_abs_difference`.
    """
    run, states = prepare(case, seed)
    compiled, compile_seconds = {}, {}
    for name in FORMULATIONS:
        compiled[name], compile_seconds[name] = compile_step(make_step(name, run), states[FIRST])
    values = jax.jit(partial(hades_values, run))
    populations = {}
    for population, state in states.items():
        _, metrics, everything = compiled["straightforward"](state)
        difference = np.max(np.abs(np.asarray(everything.values - values(state, everything.solutions))))
        expected = float(metrics["fitness_mean"])
        # Freed before formulations are timed.
        del everything
        seconds, cpu_seconds = time_in_turns(compiled, state, repeats)
        populations[population] = {
            "seconds": seconds,
            "cpu_seconds": cpu_seconds,
            "speed_ratio": _ratio(seconds, "median"),
            "speed_ratio_of_min": _ratio(seconds, "min"),
            "cpu_ratio": _ratio(cpu_seconds, "median"),
            "fitness_mean": {"straightforward": expected, "hades": float(compiled["hades"](state)[1]["fitness_mean"])},
            "fitness_max_abs_difference": float(difference),
        }
    memory: dict[str, Any] = {name: compiled_bytes(function) for name, function in compiled.items()}
    return {"compile_seconds": compile_seconds, "memory": memory, "populations": populations}


def hades_values(run: DatasetRun, state: RunState, solutions: Solution) -> jax.Array:
    """Fitness that hades gives to the candidates of a generation, `[population]`, in the chunks of the case."""
    _, draw = straightforward.draw_generation(run, state)
    fitness = in_chunks(make_fitness(run.parametrization, run.inner, run.objective), run.chunks)
    return fitness(draw, solutions)[0]


def peak_memory(case: str, formulation: str, seed: int) -> dict[str, int]:
    """Peak resident memory of a fresh process that runs one generation.

    Returns:
        The peaks of `one_generation`, and `peak_rss_bytes`, how far that of the generation is above the baseline.

    Raises:
        ValueError: The process failed.
    """
    label = f"memory of {case}, {formulation}"
    measured = measure_apart(one_generation, [case, formulation, str(seed)], label)
    return measured | {"peak_rss_bytes": measured["peak_bytes"] - measured["baseline_bytes"]}


def one_generation(case: str, formulation: str, seed: str) -> dict[str, int]:
    """Runs one generation in this process.

    Returns:
        `baseline_bytes` (peak of imports and first state), `compiled_bytes` (peak of compilation) and `peak_bytes`
        (peak of the generation; of compilation too, where the system does not let a process forget its peak).
    """
    run, states = prepare(CASES[case](), int(seed))
    baseline = peak_bytes()
    compiled, _ = compile_step(make_step(formulation, run), states[FIRST])
    after_compilation = peak_bytes()
    forget_peak()
    jax.block_until_ready(compiled(states[FIRST]))
    return {"baseline_bytes": baseline, "compiled_bytes": after_compilation, "peak_bytes": peak_bytes()}


def _ratio(seconds: Mapping[str, Mapping[str, float]], statistic: str) -> float:
    return seconds["straightforward"][statistic] / seconds["hades"][statistic]


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


def render(result: Mapping[str, Any]) -> str:
    """Tables of seconds, and of compilation and memory."""
    cases = result["cases"]
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
            *(mebibytes(case["memory"][formulation]["total_bytes"]) for formulation in FORMULATIONS),
            f"{case['memory']['ratio']:.2f}x",
            "" if case["targets"]["memory_ratio"] is None else f"{case['targets']['memory_ratio']:g}x",
        )
        for name, case in cases.items()
    ]
    title = f"one generation, medians of {result['repeats']}"
    return "\n".join([tables.table(title, _TIMES, times), tables.table("compilation and memory", _SIZES, sizes)])


BENCH = Bench(GenerationSettings, measure, render, in_processes=True)
