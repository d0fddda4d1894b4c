"""`hades bench budget`: what the number of synthetic pairs buys."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np

from experiments import tables
from experiments.arguments import parse
from experiments.bench._lib.results import deliver, provenance
from experiments.bench._lib.runs import Job, parse_seeds, run_all
from experiments.pictures.budget import draw_budget
from hades._files import write_atomically
from hades._validation import require_positive

_HEADER = (
    "pairs",
    "last dataset",
    "95 % trimmed t interval",
    "best dataset",
    "95 % trimmed t interval",
    "zero dataset",
)
_OUTCOMES = ("last dataset", "best dataset")


@dataclass(frozen=True, kw_only=True)
class BudgetSettings:
    """Distils datasets of several sizes with equal environment steps, and scores each on fresh keys.

    Numbers are interquartile means over seeds with 95 % trimmed t intervals. Runs that are there are not run again.
    """

    env: str = "gymnax/CartPole-v1"
    """Environment; settings are those of its small preset, or the defaults."""
    method: Literal["hades-r", "hades-f"] = "hades-r"
    """How the datasets are distilled."""
    dataset_sizes: tuple[int, ...] = (2, 4, 8, 16, 64)
    """Numbers of pairs."""
    seeds: str = "0-2"
    """Seeds, such as 0-4 or 0,2,5."""
    env_steps: int = 2_000_000
    """Environment steps of each run."""
    jobs: int = 1
    """Processes at the same time."""
    runs: Path = Path("runs/budget")
    """Folder of the run directories."""
    out: Path = Path("runs/budget")
    """Folder of the results: a JSON file, a Markdown table and a picture."""
    flags: str = ""
    """More flags of hades distill in one string."""
    json: bool = False
    """Prints one JSON object as the last line of stdout, and everything else on stderr."""

    def __post_init__(self) -> None:
        """Refuses seeds that are none, and counts that are not positive."""
        parse_seeds(self.seeds)
        for size in self.dataset_sizes:
            require_positive("dataset_sizes", size)
        for name in ("env_steps", "jobs"):
            require_positive(name, getattr(self, name))


def main(arguments: Sequence[str]) -> int:
    """Runs the benchmark and returns its exit code."""
    settings = parse(BudgetSettings, "bench budget", arguments)
    name, flags = settings.env.replace("/", "-"), tuple(shlex.split(settings.flags))
    cells = list(product(settings.dataset_sizes, parse_seeds(settings.seeds)))
    jobs = [
        Job(
            settings.method,
            settings.env,
            seed,
            settings.runs / name / f"{settings.method}-N{size}-seed{seed}",
            settings.env_steps,
            ("--dataset-size", str(size), *flags),
        )
        for size, seed in cells
    ]
    evaluations = [curve.summary["evaluations"] for curve in run_all(jobs, settings.jobs)]
    sizes = {
        size: summarize([found for found, cell in zip(evaluations, cells, strict=True) if cell[0] == size])
        for size in settings.dataset_sizes
    }
    result = provenance("budget", arguments) | {"env": settings.env, "env_steps": settings.env_steps, "sizes": sizes}
    result["commands"] = [["hades", *job.command] for job in jobs]
    settings.out.mkdir(parents=True, exist_ok=True)
    headline = title(settings.method, settings.env, settings.env_steps)
    write_atomically(settings.out / f"{name}.md", markdown(headline, sizes, shlex.join(result["command"])))
    draw_budget(sizes, settings.out / f"{name}.png", headline)
    print(tables.table(headline, _HEADER, [_row(size, entry) for size, entry in sizes.items()]))
    deliver(result, settings.out / f"{name}.json", settings.json)
    return 0


def summarize(evaluations: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Scores over seeds: of each outcome its `scores`, `iqm` and `ci95`, and the mean of the zero dataset's."""
    entry: dict[str, Any] = {}
    for outcome in _OUTCOMES:
        entry[outcome] = tables.score(np.array([evaluation[outcome]["mean"] for evaluation in evaluations]))
    entry["zero dataset"] = float(np.mean([evaluation["zero dataset"]["mean"] for evaluation in evaluations]))
    return entry


def title(method: str, env: str, env_steps: int) -> str:
    """The headline of table and picture."""
    return f"{method} on {env}, {env_steps:,} environment steps"


def markdown(headline: str, sizes: Mapping[int, Mapping[str, Any]], command: str) -> str:
    """The table of what `summarize` returns of each number of pairs, with the command that made it."""
    rows = [_row(size, entry) for size, entry in sizes.items()]
    scored = next(iter(sizes.values()))[_OUTCOMES[0]]["scores"]
    note = f"Interquartile means over {len(scored)} seeds, with 95 % trimmed t intervals."
    return "\n".join([f"# {headline}", "", note, "", *tables.markdown(_HEADER, rows), "", f"`{command}`", ""])


def _row(size: int, entry: Mapping[str, Any]) -> tuple[str, ...]:
    cells = [str(size)]
    for outcome in _OUTCOMES:
        cells += [f"{entry[outcome]['iqm']:.4g}", tables.interval(entry[outcome]["ci95"])]
    return (*cells, f"{entry['zero dataset']:.4g}")
