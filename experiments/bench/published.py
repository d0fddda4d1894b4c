"""`hades bench published`: the published presets at full size, as far as a number of minutes goes."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from experiments import tables
from experiments.bench._lib.base import Bench, Report, SeededBenchSettings, find_preset
from experiments.bench._lib.memory import device_peak_bytes
from experiments.presets import Preset
from hades import recipes
from hades.evaluation import zero_dataset
from hades.keys import Stream, stream
from hades.training import distill

_HEADER = ("preset", "iterations", "s/iteration", "peak memory [GiB]", "return", "95 % t interval", "zero dataset")


@dataclass(frozen=True, kw_only=True)
class PublishedSettings(SeededBenchSettings):
    """Runs published presets for some minutes each: seconds per iteration, peak memory, and fresh-key return."""

    presets: tuple[str, ...] = ("paper/hopper-r", "paper/halfcheetah-r")
    """Presets to run."""
    minutes: float = 10.0
    """Minutes of each, compile included, evaluation at the end apart."""
    population_size: int | None = None
    """Candidates of an iteration; default: the published number. Smaller ones are for trying the benchmark out."""
    num_iterations: int = 2000
    """Iterations at the most."""
    num_inits: int = 16
    """Fresh policies of the evaluation."""
    num_episodes: int = 8
    """Episodes of each of them, a multiple of the 4 that share running statistics."""

    def __post_init__(self) -> None:
        """Refuses also sizes that are not positive."""
        super().__post_init__()
        self.require_positive("minutes", "num_iterations", "num_inits", "num_episodes")


def measure(settings: PublishedSettings, report: Report) -> None:
    """Runs every preset for its minutes."""
    presets = {name: find_preset("presets", "distill", name) for name in settings.presets}
    results: dict[str, Any] = {}
    for name, preset in presets.items():
        results[name] = _measure(settings, preset)
        report.add(results=results)


def _measure(settings: PublishedSettings, preset: Preset) -> dict[str, Any]:
    population = settings.population_size or preset.settings.population_size
    method = dataclasses.replace(preset.settings, population_size=population)
    loop = dataclasses.replace(preset.loop, iterations_per_call=1, log_every=1, evaluate_every=settings.num_iterations)
    run = recipes.from_settings(preset.options.make(preset.env or ""), method)
    started = time.monotonic()
    result = distill(
        jax.random.key(settings.seed),
        run,
        settings.num_iterations,
        loop=loop,
        should_stop=lambda: time.monotonic() - started > 60 * settings.minutes,
    )
    peak = device_peak_bytes()
    seconds = [row["seconds_per_iteration"] for row in result.history]
    key = stream(jax.random.key(settings.seed), Stream.REPORT)
    evaluator = run.make_evaluator(settings.num_inits, settings.num_episodes)
    return {
        "population_size": run.settings.population_size,
        "iterations": len(seconds),
        "seconds": result.history[-1]["seconds"],
        "first_iteration_starts_at_seconds": result.history[0]["seconds"] - seconds[0],
        "seconds_per_iteration": {"median": float(np.median(seconds)), "min": min(seconds), "max": max(seconds)},
        "peak_device_memory_bytes": peak,
        "env_steps_per_iteration": float(np.mean([row["env_steps"] for row in result.history])),
        "fitness_mean": [row["fitness_mean"] for row in result.history],
        "fresh_keys": tables.summary(evaluator(key, result.dataset)),
        "zero_dataset": tables.summary(evaluator(key, zero_dataset(result.dataset))),
    }


def render(result: Mapping[str, Any]) -> str:
    """Table of the presets."""
    return tables.table("published presets", _HEADER, [_row(*item) for item in result["results"].items()])


def _row(name: str, entry: Mapping[str, Any]) -> tuple[str, ...]:
    peak = entry["peak_device_memory_bytes"]
    return (
        name,
        str(entry["iterations"]),
        f"{entry['seconds_per_iteration']['median']:.3g}",
        "unknown" if peak is None else f"{peak / 2**30:.2f}",
        *tables.estimate(entry["fresh_keys"]),
        f"{entry['zero_dataset']['mean']:.4g}",
    )


BENCH = Bench(PublishedSettings, measure, render)
