"""`hades bench budget`: return by the number of synthetic pairs, or by another setting, at equal environment steps."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np

from experiments import tables
from experiments.bench._lib.base import Bench, Report, write_page
from experiments.bench._lib.runs import RunsSettings, file_stem, folder_part, run_all
from experiments.pictures.budget import budget_figure
from experiments.pictures.canvas import write_figure

_INTERVAL = "95 % trimmed t interval"
_HEADER = ("last dataset", _INTERVAL, "best dataset", _INTERVAL, "zero dataset")
_OUTCOMES = ("last dataset", "best dataset")


@dataclass(frozen=True, kw_only=True)
class BudgetSettings(RunsSettings):
    """Distils datasets of several sizes with equal environment steps, and scores each on fresh keys.

    Or datasets of several values of any other setting: --setting cloning.num-steps --values 1 2 4 8.

    Numbers are interquartile means over seeds with 95 % trimmed t intervals. Runs that are there are not run again.
    """

    env: str = "gymnax/CartPole-v1"
    """Environment; settings are those of its small preset, or the defaults."""
    method: Literal["hades-r", "hades-f", "hades-pg", "hades-pg-f", "ppmo"] = "hades-r"
    """Method that distils the datasets."""
    setting: str = "dataset-size"
    """Flag of hades distill whose values are compared."""
    values: tuple[str, ...] = ("2", "4", "8", "16", "64")
    """Values of the flag; one of several words, such as a value with another flag, in quotes."""
    seeds: str = "0-2"
    runs: Path = Path("runs/budget")
    out: Path = Path("runs/budget")

    @property
    def result_file(self) -> Path:
        """JSON file of the environment and the setting."""
        own = "" if self.setting == "dataset-size" else f".{self.setting}"
        return self.out / f"{file_stem(self.env)}{own}.json"

    @property
    def label(self) -> str:
        """Label of the values, in words."""
        return "synthetic pairs" if self.setting == "dataset-size" else self.setting.replace("cloning.", "cloning: ")

    def run_label(self, value: str) -> str:
        """Name of the run directories of one value."""
        short = "N" if self.setting == "dataset-size" else f"{self.setting}-"
        return f"{self.method}-{short}{folder_part(value)}"

    @property
    def title(self) -> str:
        """Title of table and picture."""
        return f"{self.method} on {self.env}, {self.env_steps:,} environment steps"


def measure(settings: BudgetSettings, report: Report) -> None:
    """Distils datasets of every value with every seed, and draws their returns."""
    cells = list(product(settings.values, settings.seed_numbers))
    jobs = [
        settings.job(
            settings.method,
            settings.env,
            seed,
            settings.run_label(value),
            (f"--{settings.setting}", *shlex.split(value)),
        )
        for value, seed in cells
    ]
    evaluations = [curve.summary["evaluations"] for curve in run_all(jobs, settings.jobs)]
    scores = {
        value: summarize([found for found, cell in zip(evaluations, cells, strict=True) if cell[0] == value])
        for value in settings.values
    }
    report.add(
        env=settings.env,
        env_steps=settings.env_steps,
        title=settings.title,
        label=settings.label,
        values=scores,
        commands=[["hades", *job.command] for job in jobs],
    )
    file = settings.result_file
    table = tables.markdown((settings.label, *_HEADER), _rows(scores))
    write_page(file.with_suffix(".md"), f"# {settings.title}", table, f"`{report.command}`")
    write_figure(budget_figure(scores, settings.title, settings.label), file.with_suffix(".png"))


def summarize(evaluations: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Scores over seeds: of each outcome its `scores`, `iqm` and `ci95`, and the mean of the zero dataset's."""
    means = {name: np.array([found[name]["mean"] for found in evaluations]) for name in (*_OUTCOMES, "zero dataset")}
    scores = {outcome: tables.score(means[outcome]) for outcome in _OUTCOMES}
    return scores | {"zero dataset": float(means["zero dataset"].mean())}


def render(result: Mapping[str, Any]) -> str:
    """Table of the values."""
    return tables.table(result["title"], (result["label"], *_HEADER), _rows(result["values"]))


def _rows(scores: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, ...]]:
    last, best = _OUTCOMES
    return [
        (
            value,
            *tables.estimate(entry[last], "iqm"),
            *tables.estimate(entry[best], "iqm"),
            f"{entry['zero dataset']:.4g}",
        )
        for value, entry in scores.items()
    ]


BENCH = Bench(BudgetSettings, measure, render, in_processes=True)
