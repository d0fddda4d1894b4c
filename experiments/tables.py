"""Results as tables for a terminal, and as JSON."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from envs.names import measure_of
from hades.evaluation import Evaluation
from hades.multitask.evaluation import TaskScores
from hades.multitask.merging import NAME
from hades.offline.scores import score_reference
from hades.statistics import interquartile_interval, interquartile_mean, mean_interval


def summary(evaluation: Evaluation, env: str | None = None) -> dict[str, Any]:
    """An evaluation as `hades evaluate --json` prints it.

    Args:
        evaluation: Returns.
        env: Name of the environment.

    Returns:
        `mean`, `std`, `ci95` (null where there is none), `interval` (its kind and its number of samples), `per_init`
        (mean return of each init), `num_inits`, `num_episodes`; also `normalized_mean` and `normalized_ci95` where
        D4RL has reference returns of the environment, and `success_rate` and `success_ci95` where the simulator says
        whether a task is solved.
    """
    reference = None if env is None else score_reference(env)
    samples = f"{evaluation.num_inits} inits" if evaluation.num_inits > 1 else f"{evaluation.num_episodes} episodes"
    normalized = {}
    if reference is not None:
        normalized = {
            "normalized_mean": reference.normalize(evaluation.mean),
            "normalized_ci95": ends(tuple(reference.normalize(end) for end in evaluation.ci95)),
        }
    successes = {}
    if evaluation.success_ci95 is not None:
        successes = {"success_rate": evaluation.success_rate, "success_ci95": ends(evaluation.success_ci95)}
    return {
        "mean": evaluation.mean,
        "std": evaluation.std,
        "ci95": ends(evaluation.ci95),
        "interval": f"Student's t over {samples}",
        "per_init": evaluation.per_init,
        "num_inits": evaluation.num_inits,
        "num_episodes": evaluation.num_episodes,
        **normalized,
        **successes,
    }


def ends(interval: Sequence[float]) -> list[float] | None:
    """The two ends of an interval for JSON; None of an unknown interval."""
    return [float(end) for end in interval] if np.isfinite(interval).all() else None


def interval(ends: Sequence[float] | None) -> str:
    """The two ends of an interval, and a dash where it is unknown.

    Example:
        >>> interval((1.0, 2.25)), interval((float("nan"), float("nan")))
        ('[1, 2.25]', '-')
    """
    if ends is None or not np.isfinite(ends).all():
        return "-"
    low, high = ends
    return f"[{low:.4g}, {high:.4g}]"


def score(values: np.ndarray) -> dict[str, Any]:
    """`scores` of the runs of one method, their interquartile mean `iqm`, its `ci95`, and the `interval`'s kind."""
    return {
        "scores": values.tolist(),
        "iqm": float(interquartile_mean(values)),
        "ci95": ends(interquartile_interval(values)),
        "interval": f"trimmed t over {len(values)} runs",
    }


def estimate(entry: Mapping[str, Any], name: str = "mean") -> tuple[str, str]:
    """A number of `summary` or of `score` and its interval, as cells of a table.

    Example:
        >>> estimate({"iqm": 1.0, "ci95": [0.5, 2]}, "iqm"), estimate({"iqm": None, "ci95": None}, "iqm")
        (('1', '[0.5, 2]'), ('-', '-'))
    """
    return "-" if entry[name] is None else f"{entry[name]:.4g}", interval(entry["ci95"])


def counts(entry: Mapping[str, Any]) -> str:
    """Inits and episodes of `summary`, as a cell of a table."""
    return f"{entry['num_inits']} x {entry['num_episodes']}"


def render(title: str, evaluations: Mapping[str, Evaluation], env: str | None = None) -> str:
    """A table of returns, or of accuracies, one row each; with normalised scores where D4RL has them of `env`."""
    entries = {name: summary(evaluation, env) for name, evaluation in evaluations.items()}
    scored = all("normalized_mean" in entry for entry in entries.values())
    judged = all("success_rate" in entry for entry in entries.values())
    rows = [
        (
            name,
            *estimate(entry),
            *((f"{entry['normalized_mean']:.1f}",) if scored else ()),
            *((f"{entry['success_rate']:.0%}",) if judged else ()),
            f"{entry['std']:.3g}",
            counts(entry),
        )
        for name, entry in entries.items()
    ]
    score = ("score",) if scored else ()
    success = ("success",) if judged else ()
    return table(
        title,
        ("", f"mean {measure_of(env or '')}", "95 % t interval", *score, *success, "std", "inits x episodes"),
        rows,
    )


def on_fresh_keys(evaluations: Mapping[str, Evaluation], env: str) -> str:
    """A table of evaluations on keys that selected nothing."""
    what = {"return": "returns on fresh keys", "accuracy": "accuracies of fresh networks"}[measure_of(env)]
    return render(f"{what}, {env}", evaluations, env)


def render_tasks(title: str, scores: Mapping[str, TaskScores]) -> str:
    """A table of the tasks of a merged file, one row each."""
    rows = [
        (
            name,
            " ".join(estimate(summary(score.joint))),
            " ".join(estimate(summary(score.single))),
            f"{score.fraction:.3f}",
            "-" if score.ratio is None else f"{score.ratio:.3f}",
            f"{score.zero.mean:.4g}",
            f"{score.untrained.mean:.4g}",
        )
        for name, score in scores.items()
    ]
    joint = next(iter(scores.values())).joint
    text = table(title, ("task", "joint", "single", "fraction", "ratio", "zero", "untrained"), rows)
    return f"""{text}
joint: policies trained on the merged file; single: on the task alone, as its own file says; with 95 % t intervals,
{joint.num_inits} inits x {joint.num_episodes} episodes. fraction: (joint - zero) / (single - zero) with that of the \
zero dataset; ratio: joint / single."""


def summary_tasks(names: Sequence[str], scores: Sequence[TaskScores]) -> dict[str, Any]:
    """Scores of a merged file as `hades evaluate --json` prints them.

    Args:
        names: Environment of each task.
        scores: Scores of each task.

    Returns:
        The keys of `summary` for `TaskScores.fraction_per_init`, averaged over tasks (null where no fraction is
        defined), `env`, and `tasks`: a list with `env`, `fraction`, `ratio` and the summaries `joint`, `single`, `zero`
        and `untrained`.
    """
    tasks = [
        {
            "env": name,
            "fraction": None if np.isnan(score.fraction) else score.fraction,
            "ratio": score.ratio,
            **{kind: summary(getattr(score, kind)) for kind in ("joint", "single", "zero", "untrained")},
        }
        for name, score in zip(names, scores, strict=True)
    ]
    per_init = np.mean([score.fraction_per_init for score in scores], axis=0)
    known = bool(np.isfinite(per_init).all())
    joint = scores[0].joint
    return {
        "mean": float(per_init.mean()) if known else None,
        "std": float(per_init.std()) if known else None,
        "ci95": ends(mean_interval(per_init)) if known else None,
        "interval": f"Student's t over {joint.num_inits} inits",
        "per_init": per_init.tolist() if known else None,
        "num_inits": joint.num_inits,
        "num_episodes": joint.num_episodes,
        "env": NAME,
        "tasks": tasks,
    }


def table(title: str, header: tuple[str, ...], rows: Sequence[tuple[str, ...]], width: int = 120) -> str:
    """A plain-text table of at most `width` columns; the first column is left-aligned, the others right-aligned."""
    grid = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    for index, name in enumerate(header):
        grid.add_column(name, justify="left" if index == 0 else "right", no_wrap=True)
    for row in rows:
        grid.add_row(*row)
    buffer = io.StringIO()
    Console(file=buffer, width=width).print(grid)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines())


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column is left-aligned, the others right-aligned.

    Example:
        >>> print(markdown(("a", "b"), [("x", "1")]))
        | a | b |
        |:--|--:|
        | x | 1 |
    """
    alignment = "|:--|" + "--:|" * (len(header) - 1)
    return "\n".join([f"| {' | '.join(header)} |", alignment, *(f"| {' | '.join(row)} |" for row in rows)])
