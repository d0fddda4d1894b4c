"""`hades bench presets`: several seeds of presets from start to finish, scored on fresh keys beside their zeros."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments import processes, tables
from experiments.bench._lib.base import Bench, Report, SeedsBenchSettings, find_preset

_HEADER = ("preset", "seed", "return", "95 % t interval", "zero dataset", "untrained", "distil [s]")


@dataclass(frozen=True, kw_only=True)
class PresetsSettings(SeedsBenchSettings):
    """Distils presets with several seeds and scores each best dataset on fresh keys. A run that is there is kept."""

    presets: tuple[str, ...] = ("acrobot", "mountaincar", "pendulum")
    """Presets to run."""
    seeds: str = "0-2"
    runs: Path = Path("runs/presets")
    """Folder of the run directories, PRESET-seedN."""
    num_inits: int = 32
    """Fresh policies of the evaluation."""
    num_episodes: int = 8
    """Episodes of each of them."""
    evaluation_seed: int = 1000
    """Seed of the evaluation, apart from those of the runs."""

    def __post_init__(self) -> None:
        """Refuses also counts that are not positive."""
        super().__post_init__()
        self.require_positive("num_inits", "num_episodes")


def measure(settings: PresetsSettings, report: Report) -> None:
    """Distils and evaluates every preset with every seed."""
    for name in settings.presets:
        find_preset("presets", "distill", name)
    results: list[dict[str, Any]] = []
    for name in settings.presets:
        for seed in settings.seed_numbers:
            results.append(_measure(settings, name, seed))
            report.add(results=results)


def _measure(settings: PresetsSettings, name: str, seed: int) -> dict[str, Any]:
    directory = settings.runs / f"{name.replace('/', '-')}-seed{seed}"
    distill = ["distill", "--preset", name, "--seed", str(seed), "--out", str(directory), "--resume", "--json"]
    evaluate = ["evaluate", str(directory), "--num-inits", str(settings.num_inits), "--baselines", "--json"]
    evaluate += ["--num-episodes", str(settings.num_episodes), "--seed", str(settings.evaluation_seed)]
    started = time.monotonic()
    run = _hades(distill)
    command_seconds = time.monotonic() - started
    evaluation = _hades(evaluate)
    return {
        "preset": name,
        "seed": seed,
        "commands": ["hades " + " ".join(command) for command in (distill, evaluate)],
        "iterations": run["iterations"],
        "best_iteration": run["best_iteration"],
        "run_seconds": run["seconds"],
        "command_seconds": command_seconds,
        "best_dataset": {name: evaluation[name] for name in ("mean", "std", "ci95", "interval", "per_init")},
        "baselines": evaluation["baselines"],
    }


def _hades(arguments: Sequence[str]) -> dict[str, Any]:
    """Runs the command in a process of its own, as a user would, and returns its JSON."""
    done = processes.run(processes.command(*arguments), stdout=subprocess.PIPE)
    if done.returncode:
        raise ValueError(f"hades {' '.join(arguments)} ended with exit code {done.returncode}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def render(result: Mapping[str, Any]) -> str:
    """Table of the runs."""
    rows = [
        (
            run["preset"],
            str(run["seed"]),
            *tables.estimate(run["best_dataset"]),
            f"{run['baselines']['zero dataset']['mean']:.4g}",
            f"{run['baselines']['untrained policy']['mean']:.4g}",
            f"{run['run_seconds']:.0f}",
        )
        for run in result["results"]
    ]
    return tables.table("presets, best dataset on fresh keys", _HEADER, rows)


BENCH = Bench(PresetsSettings, measure, render, in_processes=True)
