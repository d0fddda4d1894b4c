"""`hades bench published`: the published presets at full size, as far as a number of minutes goes."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments import tables
from experiments.arguments import parse
from experiments.bench._lib.results import deliver, provenance
from experiments.cli import BadArgumentsError
from experiments.presets import Preset, get_preset
from hades import recipes
from hades._validation import require_positive
from hades.evaluation import zero_dataset
from hades.run import Run
from hades.training import Result, distill


@dataclass(frozen=True, kw_only=True)
class PublishedSettings:
    """Runs published presets for some minutes each: seconds per generation, peak memory, and fresh-key return."""

    presets: tuple[str, ...] = ("paper/hopper-r", "paper/halfcheetah-r")
    """Presets to run."""
    minutes: float = 10.0
    """Minutes of each, compile included, evaluation at the end apart."""
    population_size: int | None = None
    """Candidates of a generation; none is the published number. Smaller ones are for trying the benchmark out."""
    num_generations: int = 2000
    """Generations at the most."""
    num_inits: int = 16
    """Fresh policies of the evaluation."""
    num_episodes: int = 8
    """Episodes of each of them, a multiple of the 4 that share running statistics."""
    seed: int = 0
    """Seed of all random numbers."""
    out: Path | None = None
    """JSON file to write."""
    json: bool = False
    """Prints one JSON object as the last line of stdout, and everything else on stderr."""

    def __post_init__(self) -> None:
        """Refuses sizes that are not positive."""
        for name in ("minutes", "num_generations", "num_inits", "num_episodes"):
            require_positive(name, getattr(self, name))


def main(arguments: Sequence[str]) -> int:
    """Runs the benchmark and returns its exit code."""
    settings = parse(PublishedSettings, "bench published", arguments)
    try:
        runs = {name: get_preset("distill", name) for name in settings.presets}
    except ValueError as error:
        raise BadArgumentsError(f"--presets: {error}") from None
    results = {name: _measure(settings, run) for name, run in runs.items()}
    report = provenance("published", arguments) | {"results": results}
    header = ("preset", "generations", "s/generation", "peak memory [GiB]", "return", "95 % t interval", "zero dataset")
    print(tables.table("published presets", header, [_row(name, result) for name, result in results.items()]))
    deliver(report, settings.out, settings.json)
    return 0


def _measure(settings: PublishedSettings, published: Preset) -> dict[str, Any]:
    population = settings.population_size or published.settings.population_size
    method = dataclasses.replace(published.settings, population_size=population)
    loop = dataclasses.replace(published.loop, iterations_per_call=1, evaluate_every=settings.num_generations)
    env = published.options.make(published.env or "")
    run = recipes.from_settings(env, method)
    started = time.monotonic()
    result = distill(
        jax.random.key(settings.seed),
        run,
        settings.num_generations,
        loop=loop,
        should_stop=lambda: time.monotonic() - started > 60 * settings.minutes,
    )
    return _describe(settings, run, result)


def _describe(settings: PublishedSettings, run: Run, result: Result) -> dict[str, Any]:
    peak = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    seconds = [row["seconds_per_iteration"] for row in result.history]
    key = jax.random.fold_in(jax.random.key(settings.seed), 2**32 - 5)
    evaluator = run.make_evaluator(settings.num_inits, settings.num_episodes)
    return {
        "population_size": run.settings.population_size,
        "generations": len(seconds),
        "seconds": result.history[-1]["seconds"],
        "first_generation_starts_at_seconds": result.history[0]["seconds"] - seconds[0],
        "seconds_per_iteration": {"median": float(np.median(seconds)), "min": min(seconds), "max": max(seconds)},
        "peak_device_memory_bytes": peak,
        "env_steps_per_generation": float(np.mean([row["env_steps"] for row in result.history])),
        "fitness_mean": [row["fitness_mean"] for row in result.history],
        "fresh_keys": tables.summary(evaluator(key, result.dataset)),
        "zero_dataset": tables.summary(evaluator(key, zero_dataset(result.dataset))),
    }


def _row(name: str, result: dict[str, Any]) -> tuple[str, ...]:
    peak = result["peak_device_memory_bytes"]
    return (
        name,
        str(result["generations"]),
        f"{result['seconds_per_iteration']['median']:.3g}",
        "unknown" if peak is None else f"{peak / 2**30:.2f}",
        f"{result['fresh_keys']['mean']:.4g}",
        tables.interval(result["fresh_keys"]["ci95"]),
        f"{result['zero_dataset']['mean']:.4g}",
    )
