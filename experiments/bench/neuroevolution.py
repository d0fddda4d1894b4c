"""`hades bench neuroevolution`: HaDES-R, HaDES-F, ES and PPO on one axis of environment steps, and one of seconds."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from experiments import tables
from experiments.bench._lib.base import Bench, Report, provenance, write, write_page
from experiments.bench._lib.runs import METHODS, Method, RunsSettings, file_stem, run_all
from experiments.curves import Curve
from experiments.environments import make_named
from experiments.pictures.canvas import write_figure
from experiments.pictures.comparison import comparison_figure
from hades.statistics import interquartile_interval, interquartile_mean, probability_of_improvement

_INTERVAL = "95 % trimmed t interval"
_HEADER = ("method", "at equal steps", _INTERVAL, "at equal time", _INTERVAL, "seconds", "steps/s")
_TOGETHER = ("method", "interquartile mean", _INTERVAL)
_TOGETHER_NOTE = (
    "Over all seeds and environments at equal environment steps; the spread is that of seeds within environments."
)


@dataclass(frozen=True, kw_only=True)
class NeuroevolutionBenchSettings(RunsSettings):
    """Compares methods at equal environment steps and at equal training time, over several seeds.

    Every method has its small preset for the environment, or its defaults where there is none: the same network, and
    for ES the same population and episodes as HaDES. Scored is the mean of the search distribution (of PPO the
    policy, of HaDES fresh policies trained on the mean dataset) on keys that neither training nor selection has seen,
    the last score up to that place. Actions are as each preset says: PPO samples them.
    Numbers are interquartile means over seeds with trimmed t intervals. Runs that are there are not run again.
    """

    env: tuple[str, ...] = ("gymnax/CartPole-v1",)
    """Environments, each compared on its own."""
    methods: tuple[Method, ...] = METHODS
    """Methods to compare."""
    runs: Path = Path("runs/neuroevolution")
    out: Path = Path("runs/neuroevolution")

    @property
    def result_file(self) -> None:
        """No file of the whole result: each environment has one, and `together.json` leaves them out."""
        return None


def measure(settings: NeuroevolutionBenchSettings, report: Report) -> None:
    """Compares the methods on every environment."""
    for env in settings.env:
        make_named(env)
    environments = {env: _measure(settings, env, report) for env in settings.env}
    report.content.update(env_steps=settings.env_steps, environments=environments)
    if len(environments) > 1:
        report.content.update(together=together(environments))
        small = {name: part for name, part in report.content.items() if name != "environments"}
        write(small, settings.out / "together.json")
        title, rows = _together_table(report.content)
        parts = (f"# {title}", _TOGETHER_NOTE, tables.markdown(_TOGETHER, rows), f"`{report.command}`")
        write_page(settings.out / "together.md", *parts)


def together(environments: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[float, tuple[float, float]]]:
    """Scores over several environments: of each method the interquartile mean over all runs, and its interval.

    Scores are those at equal steps, scaled in each environment so that the mean of untrained policies is 0 and the
    interquartile mean of the best method is 1; the spread is that of seeds within environments.
    """
    strata: dict[str, list[np.ndarray]] = {}
    for report in environments.values():
        zero, scale = report["untrained"], _gain(report)
        if scale <= 0:
            # No method has learned anything there, which sets no scale.
            continue
        for name, method in report["methods"].items():
            strata.setdefault(name, []).append((np.array(method["at_equal_steps"]["scores"]) - zero) / scale)
    return {
        name: (float(interquartile_mean(np.concatenate(runs))), interquartile_interval(runs))
        for name, runs in strata.items()
    }


def _gain(report: Mapping[str, Any]) -> float:
    """Gain of the best method on an environment over untrained policies."""
    best: float = max(method["at_equal_steps"]["iqm"] for method in report["methods"].values())
    return best - float(report["untrained"])


def _measure(settings: NeuroevolutionBenchSettings, env: str, report: Report) -> dict[str, Any]:
    """Runs the methods on one environment; leaves a JSON file, a table and a picture of it."""
    jobs = [settings.job(method, env, seed) for method, seed in product(settings.methods, settings.seed_numbers)]
    found = run_all(jobs, settings.jobs)
    curves = {
        method: [curve for job, curve in zip(jobs, found, strict=True) if job.method == method]
        for method in settings.methods
    }
    compared = compare(curves, settings.env_steps)
    untrained = float(np.mean([curve.untrained for curve in found]))
    runs = [
        {
            "method": job.method,
            "seed": job.seed,
            "command": ["hades", *job.command],
            **curve.to_dict(),
            "evaluations": curve.summary["evaluations"],
        }
        for job, curve in zip(jobs, found, strict=True)
    ]
    result = provenance("neuroevolution", report.content["command"][3:])
    result |= {"env": env, **compared, "untrained": untrained, "runs": runs}
    file, seeds = settings.out / f"{file_stem(env)}.json", len(settings.seed_numbers)
    write(result, file)
    write_page(file.with_suffix(".md"), *_paragraphs(env, compared, seeds), f"`{report.command}`")
    version = re.sub(r"([0-9a-f]{12})[0-9a-f]{28}", r"\1", result["git_commit"] or "unknown")
    note = f"{_seeds(seeds)}; interquartile mean and 95 % trimmed t interval; git {version}"
    write_figure(comparison_figure(curves, env, {"untrained policy": untrained}, note), file.with_suffix(".png"))
    return result


def compare(curves: Mapping[Method, Sequence[Curve]], env_steps: int) -> dict[str, Any]:
    """Scores of methods on one environment.

    Args:
        curves: Runs of each method.
        env_steps: End of the axis of environment steps.

    Returns:
        `methods`: for each method the scores of its runs `at_equal_steps` and `at_equal_seconds`, their interquartile
        mean and interval; `equal_seconds`, the training time of the quickest run; `probability_of_improvement` of
        each method over each other one at equal steps.
    """
    # The longest time that every run has trained for.
    seconds = min(curve.seconds[-1] for runs in curves.values() for curve in runs)
    returns = np.concatenate([curve.returns for runs in curves.values() for curve in runs])
    worst = float(np.min(returns, where=np.isfinite(returns), initial=np.inf))

    def finite(values: np.ndarray) -> np.ndarray:
        # A score that is not finite counts as the worst return of all methods.
        return np.where(np.isfinite(values), values, worst)

    methods: dict[str, Any] = {}
    for method, runs in curves.items():
        places = {"at_equal_steps": ("env_steps", env_steps), "at_equal_seconds": ("seconds", seconds)}
        methods[method] = {
            name: tables.score(finite(np.array([float(curve.at(axis, np.array(place))) for curve in runs])))  # type: ignore[arg-type]
            for name, (axis, place) in places.items()
        }
        times, steps = (np.array([getattr(curve, name)[-1] for curve in runs]) for name in ("seconds", "env_steps"))
        methods[method] |= {"seconds": float(np.median(times)), "steps_per_second": float(np.median(steps / times))}

    def win(ours: Method, theirs: Method) -> dict[str, Any]:
        our, their = (np.array(methods[method]["at_equal_steps"]["scores"]) for method in (ours, theirs))
        probability, interval = probability_of_improvement(our, their)
        return {"probability": probability, "ci95": interval}

    return {
        "env_steps": env_steps,
        "equal_seconds": float(seconds),
        "methods": methods,
        "probability_of_improvement": {
            ours: {theirs: win(ours, theirs) for theirs in curves if theirs != ours} for ours in curves
        },
    }


def render(result: Mapping[str, Any]) -> str:
    """Tables of the environments, and of all together."""
    texts = [
        tables.table(f"{env}, {result['env_steps']:,} environment steps", _HEADER, _rows(compared))
        for env, compared in result["environments"].items()
    ]
    if "together" in result:
        title, rows = _together_table(result)
        texts.append(tables.table(title, _TOGETHER, rows))
    return "\n".join(texts)


def _together_table(result: Mapping[str, Any]) -> tuple[str, list[tuple[str, ...]]]:
    """Title and rows of the table of all environments."""
    rows: list[tuple[str, ...]] = [
        (method, f"{iqm:.3f}", f"[{low:.3f}, {high:.3f}]") for method, (iqm, (low, high)) in result["together"].items()
    ]
    environments = result["environments"].values()
    count, whole = sum(_gain(report) > 0 for report in environments), len(environments)
    of = "" if count == whole else f" of {whole}, the others set no scale"
    return f"{count} environments{of} together: 0 an untrained policy, 1 the best method on each", rows


def _rows(compared: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [
        (
            method,
            *tables.estimate(scores["at_equal_steps"], "iqm"),
            *tables.estimate(scores["at_equal_seconds"], "iqm"),
            f"{scores['seconds']:.3g}",
            f"{scores['steps_per_second']:.3g}",
        )
        for method, scores in compared["methods"].items()
    ]


def _paragraphs(env: str, compared: Mapping[str, Any], num_seeds: int) -> list[str]:
    wins = compared["probability_of_improvement"]
    rows = [(ours, *(_win(wins[ours][theirs]) if theirs != ours else "" for theirs in wins)) for ours in wins]
    return [
        f"# {env}: return on fresh keys",
        f"Interquartile mean over {_seeds(num_seeds)} and its 95 % trimmed t interval, after "
        f"{compared['env_steps']:,} environment steps and after {compared['equal_seconds']:.3g} s of training "
        "(compilation and evaluation left out): the last evaluation up to there, or untrained policies before the "
        "first. Each score is that of the mean of the search distribution, or of the policy of PPO, not of a "
        "population.",
        tables.markdown(_HEADER, _rows(compared)),
        "Probability that a run of the row beats one of the column at equal steps, with its 95 % score interval:",
        tables.markdown(("", *wins), rows),
    ]


def _seeds(count: int) -> str:
    return "1 seed" if count == 1 else f"{count} seeds"


def _win(win: Mapping[str, Any]) -> str:
    low, high = win["ci95"]
    return f"{win['probability']:.2f} [{low:.2f}, {high:.2f}]"


BENCH = Bench(NeuroevolutionBenchSettings, measure, render, in_processes=True)
