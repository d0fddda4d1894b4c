"""`hades bench presets`: several seeds of presets from start to finish, scored on fresh keys beside their zeros."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments import tables
from experiments.arguments import parse
from experiments.bench._lib.results import deliver, provenance
from experiments.cli import BadArgumentsError
from experiments.presets import get_preset
from experiments.processes import command
from hades._validation import require_positive


@dataclass(frozen=True, kw_only=True)
class PresetsSettings:
    """Distils presets with several seeds and scores each best dataset on fresh keys. A run that is there is kept."""

    presets: tuple[str, ...] = ("acrobot", "mountaincar", "pendulum")
    """Presets to run."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of each."""
    runs: Path = Path("runs/presets")
    """Folder of the run directories, PRESET-seedN."""
    num_inits: int = 32
    """Fresh policies of the evaluation."""
    num_episodes: int = 8
    """Episodes of each of them."""
    evaluation_seed: int = 1000
    """Seed of the evaluation, apart from those of the runs."""
    out: Path | None = None
    """JSON file to write."""
    json: bool = False
    """Prints one JSON object as the last line of stdout, and everything else on stderr."""

    def __post_init__(self) -> None:
        """Refuses counts that are not positive."""
        require_positive("num_inits", self.num_inits)
        require_positive("num_episodes", self.num_episodes)


def main(arguments: Sequence[str]) -> int:
    """Runs the benchmark and returns its exit code."""
    settings = parse(PresetsSettings, "bench presets", arguments)
    for name in settings.presets:
        try:
            get_preset("distill", name)
        except ValueError as error:
            raise BadArgumentsError(f"--presets: {error}") from None
    results = [_measure(settings, name, seed) for name in settings.presets for seed in settings.seeds]
    report = provenance("presets", arguments) | {"results": results}
    header = ("preset", "seed", "return", "95 % t interval", "zero dataset", "untrained", "distil [s]")
    print(tables.table("presets, best dataset on fresh keys", header, [_row(result) for result in results]))
    deliver(report, settings.out, settings.json)
    return 0


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
        "generations": run["generations"],
        "best_iteration": run["best_iteration"],
        "run_seconds": run["seconds"],
        "command_seconds": command_seconds,
        "best_dataset": {name: evaluation[name] for name in ("mean", "std", "ci95", "interval", "per_init")},
        "baselines": evaluation["baselines"],
    }


def _hades(arguments: Sequence[str]) -> dict[str, Any]:
    """Runs the command in a process of its own, as a user would, and returns its JSON."""
    done = subprocess.run(command(*arguments), stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise ValueError(f"hades {' '.join(arguments)} ended with exit code {done.returncode}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _row(result: dict[str, Any]) -> tuple[str, ...]:
    return (
        result["preset"],
        str(result["seed"]),
        f"{result['best_dataset']['mean']:.4g}",
        tables.interval(result["best_dataset"]["ci95"]),
        f"{result['baselines']['zero dataset']['mean']:.4g}",
        f"{result['baselines']['untrained policy']['mean']:.4g}",
        f"{result['run_seconds']:.0f}",
    )
