"""Learning curves and returns of a run, thinned for the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.pictures.curve import column, evaluations, thin
from experiments.report.subject import Subject
from hades._history import History

_MAX_POINTS = 400
_OF_THE_FILE = "as the file says"
# Names of outcomes, by the best and the last of a finished run; all others in its summary are references.
_OUTCOMES = ("best ", "last ", _OF_THE_FILE)
_AXES = {"iteration": "iteration", "env_steps": "total_env_steps", "seconds": "seconds"}


def curve_to_dict(subject: Subject) -> dict[str, Any] | None:
    """Series over iterations, environment steps and seconds of wall clock; None where there are no metrics.

    The fitness of a run without environment steps is no return but the value of an objective on offline data.
    """
    history = subject.directory.read_metrics() if subject.directory is not None else History()
    if not len(history):
        return None
    simulated = float(np.nanmax(column(history, "total_env_steps"), initial=0.0)) > 0
    series = []
    for name in ("fitness_mean", "fitness_best"):
        values = column(history, name)
        # Of one candidate, as gradients move, the best is the mean.
        same = name == "fitness_best" and np.array_equal(values, column(history, "fitness_mean"), equal_nan=True)
        if np.isfinite(values).any() and not same:
            series.append({"name": name, **_points(history, thin(values, _MAX_POINTS), values)})
    evaluated = evaluations(history)
    if len(evaluated.rows):
        kept = thin(evaluated.mean, _MAX_POINTS)
        rows = evaluated.rows[kept]
        points = _points(history, rows, column(history, "evaluation_mean"))
        ends = {"low": _rounded(evaluated.low[kept]), "high": _rounded(evaluated.high[kept])}
        series.append({"name": "evaluation", **points, **ends})
    return {"series": series, "fitness_is_return": simulated}


def _points(history: History, rows: np.ndarray, values: np.ndarray) -> dict[str, Any]:
    axes = {name: _rounded(column(history, key)[rows]) for name, key in _AXES.items()}
    return {**axes, "values": _rounded(values[rows])}


def _rounded(values: np.ndarray) -> list[float | None]:
    """Numbers to six significant digits, None for those that are not finite."""
    return [float(f"{value:.6g}") if np.isfinite(value) else None for value in values]


def returns_to_list(subject: Subject) -> list[dict[str, Any]]:
    """Evaluations of the finished run, or the one that the file has: name, mean, interval and its kind."""
    found: Mapping[str, Any] = {}
    if subject.directory is not None and subject.directory.summary.exists():
        found = subject.directory.read_summary().get("evaluations") or {}
    elif subject.metadata is not None and subject.metadata.evaluation is not None:
        summary = subject.metadata.evaluation
        kind = "95 % interval as the file has it"
        found = {_OF_THE_FILE: {**vars(summary), "interval": kind}}
    return [
        return_to_dict(name, evaluation, is_reference=not name.startswith(_OUTCOMES))
        for name, evaluation in found.items()
        if evaluation.get("mean") is not None
    ]


def return_to_dict(name: str, evaluation: Mapping[str, Any], is_reference: bool = False) -> dict[str, Any]:
    """A row of returns, of an evaluation as `experiments.tables.summary` gives it."""
    low, high = evaluation.get("ci95") or (None, None)
    interval = {"low": low, "high": high, "interval": evaluation.get("interval", "")}
    return {"name": name, "mean": evaluation["mean"], **interval, "is_reference": is_reference}
