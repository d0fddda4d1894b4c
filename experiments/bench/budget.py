"""`hades bench budget`: return by the number of synthetic pairs, at equal environment steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np

from experiments import tables
from experiments.bench._lib.base import Bench, Report, write_page
from experiments.bench._lib.runs import RunsSettings, file_stem, run_all
from experiments.pictures.budget import budget_figure
from experiments.pictures.canvas import write_figure

_INTERVAL = "95 % trimmed t interval"
_HEADER = ("pairs", "last dataset", _INTERVAL, "best dataset", _INTERVAL, "zero dataset")
_OUTCOMES = ("last dataset", "best dataset")


@dataclass(frozen=True, kw_only=True)
class BudgetSettings(RunsSettings):
    """Distils datasets of several sizes with equal environment steps, and scores each on fresh keys.

    Numbers are interquartile means over seeds with 95 % trimmed t intervals. Runs that are there are not run again.
    """

    env: str = "gymnax/CartPole-v1"
    """Environment; settings are those of its small preset, or the defaults."""
    method: Literal["hades-r", "hades-f", "hades-pg", "hades-pg-f", "ppmo"] = "hades-r"
    """Method that distils the datasets."""
    dataset_sizes: tuple[int, ...] = (2, 4, 8, 16, 64)
    """Numbers of pairs."""
    seeds: str = "0-2"
    runs: Path = Path("runs/budget")
    out: Path = Path("runs/budget")

    def __post_init__(self) -> None:
        """Refuses also sizes that are not positive."""
        super().__post_init__()
        self.require_positive("dataset_sizes")

    @property
    def result_file(self) -> Path:
        """JSON file of the environment."""
        return self.out / f"{file_stem(self.env)}.json"

    @property
    def title(self) -> str:
        """Title of table and picture."""
        return f"{self.method} on {self.env}, {self.env_steps:,} environment steps"


def measure(settings: BudgetSettings, report: Report) -> None:
    """Distils datasets of every size with every seed, and draws their returns."""
    cells = list(product(settings.dataset_sizes, settings.seed_numbers))
    jobs = [
        settings.job(settings.method, settings.env, seed, f"{settings.method}-N{size}", ("--dataset-size", str(size)))
        for size, seed in cells
    ]
    evaluations = [curve.summary["evaluations"] for curve in run_all(jobs, settings.jobs)]
    sizes = {
        str(size): summarize([found for found, cell in zip(evaluations, cells, strict=True) if cell[0] == size])
        for size in settings.dataset_sizes
    }
    report.add(
        env=settings.env,
        env_steps=settings.env_steps,
        title=settings.title,
        sizes=sizes,
        commands=[["hades", *job.command] for job in jobs],
    )
    file = settings.result_file
    table = tables.markdown(_HEADER, _rows(sizes))
    write_page(file.with_suffix(".md"), f"# {settings.title}", table, f"`{report.command}`")
    write_figure(
        budget_figure({int(size): entry for size, entry in sizes.items()}, settings.title), file.with_suffix(".png")
    )


def summarize(evaluations: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Scores over seeds: of each outcome its `scores`, `iqm` and `ci95`, and the mean of the zero dataset's."""
    means = {name: np.array([found[name]["mean"] for found in evaluations]) for name in (*_OUTCOMES, "zero dataset")}
    scores = {outcome: tables.score(means[outcome]) for outcome in _OUTCOMES}
    return scores | {"zero dataset": float(means["zero dataset"].mean())}


def render(result: Mapping[str, Any]) -> str:
    """Table of the sizes."""
    return tables.table(result["title"], _HEADER, _rows(result["sizes"]))


def _rows(sizes: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, ...]]:
    last, best = _OUTCOMES
    return [
        (
            size,
            *tables.estimate(entry[last], "iqm"),
            *tables.estimate(entry[best], "iqm"),
            f"{entry['zero dataset']:.4g}",
        )
        for size, entry in sizes.items()
    ]


BENCH = Bench(BudgetSettings, measure, render)
