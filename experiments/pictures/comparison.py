"""Methods on one axis: returns over seeds against environment steps and against seconds of training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from experiments.curves import Curve
from experiments.pictures.canvas import (
    MUTED,
    PALETTE,
    PANEL_HEIGHT,
    RETURN,
    WIDTH,
    add_legend,
    share_y,
    style_axes,
    titled_figure,
    two_panels,
)
from hades.statistics import interquartile_interval, interquartile_mean

POINTS = 60
# Above and below all returns, in parts of their range.
_ROOM = 0.3
_AXES = (
    ("env_steps", "environment steps of training"),
    ("seconds", "seconds of training (no compilation, no evaluation)"),
)


def comparison_figure(
    curves: Mapping[Any, Sequence[Curve]], title: str, references: Mapping[str, float], note: str
) -> Figure:
    """Draws interquartile means over runs, and their 95 % trimmed t intervals.

    Intervals that go far beyond the returns of all runs, as those of two runs do, are cut.

    Args:
        curves: Runs of each method.
        title: Headline.
        references: Returns to compare with, by name, drawn as dashed lines.
        note: What stands below the headline.
    """
    notes = [f"Return on fresh keys of what each method has learned so far. {note}"]
    figure, top = titled_figure(title, notes, WIDTH, PANEL_HEIGHT + 1.05)
    left, right = two_panels(figure, top + 0.15, gap=0.45)
    for axes, (axis, label) in zip((left, right), _AXES, strict=True):
        for color, (method, runs) in zip(PALETTE, curves.items(), strict=False):
            _draw_method(axes, axis, runs, method, color)
        for name, value in references.items():
            axes.axhline(value, color=MUTED, lw=1.1, linestyle=(0, (6, 3)), label=f"{name}: {value:,.4g}")
        axes.set_xlim(left=0)
        axes.xaxis.set_major_formatter(EngFormatter(sep="") if axis == "env_steps" else "{x:,.6g}")
        _cut_intervals(axes, curves.values(), references.values())
        style_axes(axes, label, RETURN if axes is left else "")
    share_y(left, right)
    add_legend(figure, 5)
    return figure


def _cut_intervals(axes: Axes, curves: Iterable[Sequence[Curve]], references: Iterable[float]) -> None:
    returns = np.concatenate([run.returns for runs in curves for run in runs] + [np.array(list(references))])
    least, largest = np.min(returns), np.max(returns)
    room = _ROOM * (largest - least)
    if room:
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, least - room), min(high, largest + room))


def _draw_method(axes: Axes, axis: str, runs: Sequence[Curve], label: str, color: str) -> None:
    # From where all runs have been evaluated to where the first of them ends, which may be no way at all.
    places = [getattr(run, axis) for run in runs]
    start, end = max(place[0] for place in places), min(place[-1] for place in places)
    grid = np.linspace(start, end, POINTS) if end > start else np.array([start])
    values = np.array([run.at(axis, grid) for run in runs])  # type: ignore[arg-type]
    intervals = np.array([interquartile_interval(column) for column in values.T])
    mean, (low, high) = interquartile_mean(values.T), intervals.T
    if len(grid) == 1:
        errors = [mean - low, high - mean]
        axes.errorbar(grid, mean, errors, color=color, marker="o", markersize=5, lw=1.8, label=label, zorder=3)
        return
    axes.plot(grid, mean, color=color, lw=1.8, label=label, zorder=3)
    axes.fill_between(grid, low, high, color=color, alpha=0.2, lw=0, zorder=2)
