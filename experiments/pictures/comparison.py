"""Methods on one axis: returns over seeds against environment steps and against seconds of training."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from experiments.curves import Curve
from experiments.pictures.canvas import (
    INK,
    MUTED,
    NOTE_SIZE,
    PALETTE,
    add_axes,
    add_header,
    header_height,
    new_figure,
    style_axes,
    wrap_notes,
    write_figure,
)
from hades.statistics import interquartile_interval, interquartile_mean

WIDTH = 11.0
PANEL_HEIGHT = 3.9
POINTS = 60
_AXES = (
    ("env_steps", "environment steps of training"),
    ("seconds", "seconds of training (no compilation, no evaluation)"),
)


def comparison_figure(
    curves: Mapping[Any, Sequence[Curve]], title: str, references: Mapping[str, float], note: str
) -> Figure:
    """Draws interquartile means over runs, and their 95 % trimmed t intervals.

    Args:
        curves: Runs of each method.
        title: Headline.
        references: Returns to compare with, by name, drawn as dashed lines.
        note: What stands below the headline.
    """
    notes = wrap_notes([f"Return on fresh keys of what each method has learned so far. {note}"], WIDTH - 0.4)
    top = header_height(notes) + 0.15
    figure = new_figure(WIDTH, top + PANEL_HEIGHT + 0.9)
    add_header(figure, title, notes)
    width = (WIDTH - 0.85 - 0.2 - 0.45) / 2
    for index, (axis, label) in enumerate(_AXES):
        axes = add_axes(figure, 0.85 + index * (width + 0.45), top, width, PANEL_HEIGHT)
        for color, (method, runs) in zip(PALETTE, curves.items(), strict=False):
            _draw_method(axes, axis, runs, method, color)
        for name, value in references.items():
            axes.axhline(value, color=MUTED, lw=1.1, linestyle=(0, (6, 3)), label=f"{name}: {value:,.4g}")
        _style(axes, label)
        if index == 0:
            axes.set_ylabel("return of an episode (sum of rewards)", color=INK)
        else:
            axes.sharey(figure.axes[0])
            axes.tick_params(labelleft=False)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=5, fontsize=NOTE_SIZE, frameon=False, handlelength=3.2)
    return figure


def draw_comparison(
    curves: Mapping[Any, Sequence[Curve]],
    path: str | os.PathLike[str],
    title: str,
    references: Mapping[str, float],
    note: str,
) -> None:
    """Writes the picture of `comparison_figure` into a file, whole or not at all. Arguments as there."""
    write_figure(comparison_figure(curves, title, references, note), path)


def _draw_method(axes: Axes, axis: str, runs: Sequence[Curve], label: str, color: str) -> None:
    # From where all runs have been evaluated to where the first of them ends.
    places = [getattr(run, axis) for run in runs]
    grid = np.linspace(max(place[0] for place in places), min(place[-1] for place in places), POINTS)
    values = np.array([run.at(axis, grid) for run in runs])  # type: ignore[arg-type]
    intervals = np.array([interquartile_interval(column) for column in values.T])
    axes.plot(grid, interquartile_mean(values.T), color=color, lw=1.8, label=label, zorder=3)
    axes.fill_between(grid, intervals[:, 0], intervals[:, 1], color=color, alpha=0.2, lw=0, zorder=2)


def _style(axes: Axes, label: str) -> None:
    axes.set_xlabel(label, color=INK)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.yaxis.set_major_formatter("{x:,.6g}")
    style_axes(axes)
