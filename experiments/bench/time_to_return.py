"""`hades bench time-to-return`: seconds and environment steps until fresh policies return what is asked for."""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np

from experiments import tables
from experiments.bench._lib.base import Bench, Report, write_page
from experiments.bench._lib.runs import Job, Method, RunsSettings, file_stem, folder_part, run_all
from experiments.cli import BadArgumentsError
from experiments.curves import Curve
from experiments.environments import make_named

_THEN = "then"
_HEADER = ("variant", "seeds that reach it", "seconds", "environment steps", "at equal time", "95 % trimmed t interval")


@dataclass(frozen=True)
class Variant:
    """A stage of training, or several, each of which begins at the best dataset of the one before.

    Attributes:
        label: Name.
        stages: Method and flags of each.
    """

    label: str
    stages: tuple[tuple[Method, tuple[str, ...]], ...]

    @classmethod
    def parse(cls, text: str) -> Variant:
        """A variant from `LABEL=METHOD FLAGS ... then METHOD FLAGS ...`.

        Raises:
            ValueError: It has no label, or a stage no method.

        Example:
            >>> Variant.parse("polished=hades-pg then hades-r --evolution.sigma 0.1").stages
            (('hades-pg', ()), ('hades-r', ('--evolution.sigma', '0.1')))
        """
        label, equals, rest = text.partition("=")
        stages = [shlex.split(stage) for stage in re.split(rf"\s{_THEN}\s", rest)]
        if not (label and equals) or any(not stage or stage[0] not in get_args(Method) for stage in stages):
            methods = ", ".join(get_args(Method))
            raise ValueError(f"variants: expected LABEL=METHOD FLAGS, METHOD one of {methods}, got {text!r}")
        if any(method not in ("hades-r", "hades-f") for method, *_ in stages[1:]):
            raise ValueError(f"variants: expected hades-r or hades-f behind {_THEN}, got {text!r}")
        return cls(label, tuple((cast(Method, method), tuple(flags)) for method, *flags in stages))


@dataclass(frozen=True, kw_only=True)
class TimeToReturnSettings(RunsSettings):
    """Measures how long variants of a method train until their outcome returns what is asked for, on fresh keys.

    A variant is LABEL=METHOD FLAGS, such as "decay=hades-r --evolution.sigma-decay 0.99"; behind the word then comes a
    stage of evolution that begins at the best dataset of the one before. Every stage takes --env-steps, or less by a
    --max-env-steps of its own, and only the returns of the last one count: what comes before may train other policies
    in other episodes. Seconds are of training, without compilation and evaluation; a variant has a median where more
    than half of its seeds reach the return. Runs that are there are not run again.
    """

    env: str = "gymnax/CartPole-v1"
    """Environment; settings are those of its small presets, or the defaults."""
    target: float = 490.0
    """Mean return on fresh keys to reach."""
    variants: tuple[str, ...] = ("hades-r=hades-r", "hades-pg=hades-pg", "polished=hades-pg then hades-r")
    """Variants to compare."""
    seeds: str = "0-2"
    runs: Path = Path("runs/time-to-return")
    out: Path = Path("runs/time-to-return")

    def __post_init__(self) -> None:
        """Refuses also variants that share a label."""
        super().__post_init__()
        labels = [variant.label for variant in self.parsed]
        if len(set(labels)) < len(labels):
            raise ValueError(f"variants: expected labels that each stand once, got {shlex.join(labels)}")

    @property
    def parsed(self) -> tuple[Variant, ...]:
        """The variants."""
        return tuple(Variant.parse(text) for text in self.variants)

    @property
    def result_file(self) -> Path:
        """JSON file of the environment."""
        return self.out / f"{file_stem(self.env)}.json"

    def stage_jobs(self, variant: Variant, seed: int) -> list[Job]:
        """The runs of one variant with one seed, one after the other."""
        jobs: list[Job] = []
        for number, (method, flags) in enumerate(variant.stages):
            label = folder_part(variant.label) + ("" if number == 0 else f"-{_THEN}{number}")
            first = ("--warm-start", str(jobs[-1].out)) if jobs else ()
            jobs.append(self.job(method, self.env, seed, label, (*flags, *first)))
        return jobs


def measure(settings: TimeToReturnSettings, report: Report) -> None:
    """Runs every variant with every seed."""
    make_named(settings.env)
    cells = list(product(settings.parsed, settings.seed_numbers))
    stages = {cell: settings.stage_jobs(*cell) for cell in cells}
    places = [job.out for jobs in stages.values() for job in jobs]
    if len(set(places)) < len(places):
        raise BadArgumentsError("--variants: expected labels that name different run directories")
    curves: dict[tuple[Variant, int], Curve] = {}
    # Stage by stage, as each begins at the outcome of the one before.
    for number in range(max(len(variant.stages) for variant in settings.parsed)):
        due = {cell: jobs[number] for cell, jobs in stages.items() if number < len(jobs)}
        for cell, found in zip(due, run_all(due.values(), settings.jobs), strict=True):
            curves[cell] = continued(curves[cell], found) if cell in curves else found
    runs = {variant.label: [curves[variant, seed] for seed in settings.seed_numbers] for variant in settings.parsed}
    report.add(
        env=settings.env,
        target=settings.target,
        variants=compare(runs, settings.target, [variant.label for variant in settings.parsed if variant.stages[1:]]),
        runs=[
            {
                "variant": variant.label,
                "seed": seed,
                "commands": [["hades", *job.command] for job in stages[variant, seed]],
                **curve.to_dict(),
            }
            for (variant, seed), curve in curves.items()
        ],
    )
    title, rows = _table(report.content)
    page = settings.result_file.with_suffix(".md")
    write_page(page, f"# {title}", tables.markdown(_HEADER, rows), f"`{report.command}`")


def continued(first: Curve, second: Curve) -> Curve:
    """The curve of a second stage behind a first one, whose own returns are of policies that train otherwise."""
    return dataclasses.replace(
        second,
        env_steps=first.env_steps[-1] + second.env_steps,
        seconds=first.seconds[-1] + second.seconds,
    )


def compare(runs: Mapping[str, Sequence[Curve]], target: float, staged: Collection[str] = ()) -> dict[str, Any]:
    """Times of variants.

    Args:
        runs: Curves of the seeds of each variant.
        target: Return to reach.
        staged: Variants of several stages, whose curves are those of the last one.

    Returns:
        For each variant: `reached`, the number of its seeds that reach the return; medians of `seconds` and
        `env_steps` until then, None where half of the seeds or more do not; and `at_equal_seconds`, its scores at the
        end of the quickest run of all, with their interquartile mean and interval, None where a last stage has not
        been evaluated by then.
    """
    end = np.array(min(curve.seconds[-1] for curves in runs.values() for curve in curves))
    return {
        label: {**_times(curves, target), "at_equal_seconds": _scores(curves, end, label in staged)}
        for label, curves in runs.items()
    }


def _scores(curves: Sequence[Curve], end: np.ndarray, staged: bool) -> dict[str, Any] | None:
    # Before its first evaluation a single stage has untrained policies, a last one nobody knows which.
    if staged and any(curve.seconds[0] > end for curve in curves):
        return None
    return tables.score(np.array([float(curve.at("seconds", end)) for curve in curves]))


def _times(curves: Sequence[Curve], target: float) -> dict[str, Any]:
    reached = [np.flatnonzero(curve.returns >= target) for curve in curves]
    found: dict[str, Any] = {"num_seeds": len(curves), "reached": sum(rows.size > 0 for rows in reached)}
    for axis in ("seconds", "env_steps"):
        values = [
            float(getattr(curve, axis)[rows[0]]) if rows.size else np.inf
            for curve, rows in zip(curves, reached, strict=True)
        ]
        median = float(np.median(values))
        found[axis] = median if np.isfinite(median) else None
    return found


def render(result: Mapping[str, Any]) -> str:
    """Table of the variants."""
    title, rows = _table(result)
    return tables.table(title, _HEADER, rows)


def _table(result: Mapping[str, Any]) -> tuple[str, list[tuple[str, ...]]]:
    rows: list[tuple[str, ...]] = [
        (
            label,
            f"{entry['reached']} of {entry['num_seeds']}",
            "-" if entry["seconds"] is None else f"{entry['seconds']:.3g}",
            "-" if entry["env_steps"] is None else f"{entry['env_steps']:,.0f}",
            *(("-", "-") if entry["at_equal_seconds"] is None else tables.estimate(entry["at_equal_seconds"], "iqm")),
        )
        for label, entry in result["variants"].items()
    ]
    return f"{result['env']}: training until a return of {result['target']:g}, medians over seeds", rows


BENCH = Bench(TimeToReturnSettings, measure, render, in_processes=True)
