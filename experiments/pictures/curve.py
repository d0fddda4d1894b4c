"""The curve of a run: returns against iterations and against wall-clock time."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.pictures.canvas import (
    INK,
    MUTED,
    NOTE_SIZE,
    add_axes,
    add_header,
    header_height,
    new_figure,
    style_axes,
    wrap_notes,
    write_figure,
)

MAX_POINTS = 2000
MAX_STRETCHES = 400
MAX_MARKERS = 40
BLOW_UP = 50
WIDTH = 11.0
PANEL_HEIGHT = 3.9
LEGEND_COLUMNS = 3
EVALUATION_COLOR = "#D55E00"
POPULATION = "population (selection keys)"
REFERENCE_STYLES = ((6, 3), (2, 2), (8, 2, 2, 2), (4, 2, 1, 2, 1, 2))


class SeriesStyle(NamedTuple):
    """Style of a line of the population."""

    key: str
    label: str
    color: str
    width: float


POPULATION_SERIES = (
    SeriesStyle("fitness_best", "best of the {}", "#56B4E9", 1.0),
    SeriesStyle("fitness_mean", "mean of the {}", "#0072B2", 1.5),
)


@dataclass(frozen=True)
class Evaluations:
    """The iterations whose mean dataset was evaluated on fresh keys; all arrays are `[num_evaluations]`."""

    rows: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def column(history: Sequence[Mapping[str, float]], key: str) -> np.ndarray:
    """One key of the history as `[num_rows]` floats, NaN where it is absent, null or not finite."""
    values = np.array([np.nan if row.get(key) is None else row[key] for row in history], dtype=np.float64)
    return np.where(np.isfinite(values), values, np.nan)


def thin(values: np.ndarray, limit: int = MAX_POINTS) -> np.ndarray:
    """Chooses points that preserve the shape of a line: in each stretch the first, the lowest and the highest one.

    Args:
        values: `[num_points]`, may hold NaN.
        limit: About how many points to keep.

    Returns:
        Ascending indices into `values`, the first and the last point among them.
    """
    if len(values) <= limit:
        return np.arange(len(values))
    kept = {0, len(values) - 1}
    for stretch in np.array_split(np.arange(len(values)), max(limit // 3, 1)):
        kept.add(int(stretch[0]))
        finite = stretch[np.isfinite(values[stretch])]
        if finite.size:
            kept.update((int(finite[np.argmin(values[finite])]), int(finite[np.argmax(values[finite])])))
    return np.array(sorted(kept))


def summarize(values: np.ndarray, stretches: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lowest, median and highest finite value of each stretch of indices, NaN where a stretch has none."""
    rows = [values[stretch][np.isfinite(values[stretch])] for stretch in stretches]
    summary = np.array([np.percentile(row, (0, 50, 100)) if row.size else np.full(3, np.nan) for row in rows])
    return summary[:, 0], summary[:, 1], summary[:, 2]


def evaluations(history: Sequence[Mapping[str, float]]) -> Evaluations:
    """The evaluated iterations; an interval that is missing shrinks onto its mean."""
    mean = column(history, "evaluation_mean")
    rows = np.flatnonzero(np.isfinite(mean))
    low, high = column(history, "evaluation_ci_low")[rows], column(history, "evaluation_ci_high")[rows]
    mean = mean[rows]
    # A percentile interval may lie beside the mean of a skewed sample, and error bars of negative length are refused.
    return Evaluations(rows, mean, np.fmin(low, mean), np.fmax(high, mean))


def time_unit(longest: float) -> tuple[float, str]:
    """Seconds in the unit that suits a duration, and the unit's short name."""
    if longest < 180:
        return 1.0, "s"
    return (60.0, "min") if longest < 3 * 3600 else (3600.0, "h")


def _finite_values(history: Sequence[Mapping[str, float]], evaluated: Evaluations) -> np.ndarray:
    """Checks the history and returns every finite value that is to be drawn, in one row."""
    for index, row in enumerate(history):
        for key in ("iteration", "seconds"):
            if row.get(key) is None:
                raise ValueError(f"history[{index}]: expected the key {key}, got {', '.join(row) or 'no keys'}")
    drawn = [column(history, style.key) for style in POPULATION_SERIES]
    values = np.concatenate([*drawn, evaluated.mean, evaluated.low, evaluated.high])
    values = values[np.isfinite(values)]
    if not values.size:
        raise ValueError(f"history: expected a finite fitness or evaluation in its {len(history)} rows, got none")
    return values


def _draw_population(
    axes: Axes,
    x: np.ndarray,
    history: Sequence[Mapping[str, float]],
    population: str,
    series: Sequence[SeriesStyle] = POPULATION_SERIES,
) -> None:
    for style in series:
        values = column(history, style.key)
        finite = np.isfinite(values)
        if not finite.any():
            continue
        # A line through few points, or with gaps around a lone one, shows nothing without markers.
        marker = "o" if finite.sum() <= MAX_MARKERS else ""
        place = x
        if len(values) > MAX_POINTS:
            stretches = np.array_split(np.arange(len(values)), MAX_STRETCHES)
            place = np.array([x[stretch].mean() for stretch in stretches])
            low, values, high = summarize(values, stretches)
            axes.fill_between(place, low, high, color=style.color, alpha=0.25, lw=0, zorder=2.5)
        axes.plot(
            place,
            values,
            color=style.color,
            lw=style.width,
            marker=marker,
            ms=3,
            label=style.label.format(population),
            zorder=3,
        )


def _draw_evaluations(axes: Axes, x: np.ndarray, evaluated: Evaluations, outcome: str) -> None:
    if not len(evaluated.rows):
        return
    kept = thin(evaluated.mean)
    place, mean = x[evaluated.rows[kept]], evaluated.mean[kept]
    low, high = evaluated.low[kept], evaluated.high[kept]
    few = len(kept) <= MAX_MARKERS
    label = f"{outcome}, fresh keys (95 % interval)"
    axes.fill_between(place, low, high, color=EVALUATION_COLOR, alpha=0.2, lw=0, zorder=4)
    axes.plot(
        place,
        mean,
        color=EVALUATION_COLOR,
        lw=1.8 if few else 1.2,
        marker="o" if few else "",
        ms=4,
        label=label,
        zorder=5,
    )
    if few:
        axes.errorbar(
            place, mean, (mean - low, high - mean), fmt="none", ecolor=EVALUATION_COLOR, elinewidth=1, zorder=5
        )


def _draw_references(axes: Axes, references: Mapping[str, float]) -> None:
    for index, (name, value) in enumerate(references.items()):
        dashes = (0, REFERENCE_STYLES[index % len(REFERENCE_STYLES)])
        shade = (INK, MUTED)[index // len(REFERENCE_STYLES) % 2]
        axes.axhline(value, color=shade, lw=1.1, linestyle=dashes, label=f"{name}: {value:,.5g}", zorder=2)


def _limits(values: np.ndarray, references: Mapping[str, float]) -> tuple[float, float]:
    """Limits of the y axis; extreme outliers are cut off, a steep start or a collapse is not."""
    low, high = float(values.min()), float(values.max())
    inner_low, inner_high = (float(value) for value in np.percentile(values, (2, 98)))
    inner = max(inner_high - inner_low, 1e-3 * max(abs(inner_low), abs(inner_high)))
    if high - low > BLOW_UP * inner:
        low, high = max(low, inner_low - inner), min(high, inner_high + inner)
    low, high = min(low, *references.values(), low), max(high, *references.values(), high)
    margin = 0.05 * (high - low) or 0.05 * max(abs(high), 1.0)
    return low - margin, high + margin


def _describe(history: Sequence[Mapping[str, float]], evaluated: Evaluations, outside: int) -> list[str]:
    notes = []
    if len(evaluated.rows):
        iteration = column(history, "iteration")[evaluated.rows]

        def one(index: int) -> str:
            interval = f"[{evaluated.low[index]:,.5g}, {evaluated.high[index]:,.5g}]"
            return f"{evaluated.mean[index]:,.5g} {interval} at iteration {iteration[index]:,.0f}"

        highest = int(np.argmax(evaluated.mean))
        last = f"Fresh-key return, last: {one(-1)}"
        is_last = evaluated.mean[highest] == evaluated.mean[-1]
        notes.append(f"{last}, the highest" if is_last else f"{last}; highest: {one(highest)}")
    if len(history) > MAX_POINTS:
        notes.append(f"Population: median and range of each {len(history) / MAX_STRETCHES:,.0f} logged iterations")
    non_finite = column(history, "non_finite")
    if np.nansum(non_finite):
        rows = int(np.sum(non_finite > 0))
        notes.append(
            f"{np.nansum(non_finite):,.0f} non-finite returns, in {rows:,} of {len(history):,} logged iterations"
        )
    if outside:
        notes.append(f"{outside:,} values lie outside the picture")
    return notes


def _style_panel(axes: Axes, x: np.ndarray, label: str, whole: bool) -> None:
    finite = x[np.isfinite(x)]
    end = float(finite.max(initial=0.0)) or 1.0
    axes.set_xlim(-0.02 * end, 1.04 * end)
    axes.set_xlabel(label, color=INK)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=whole, steps=[1, 2, 5, 10], min_n_ticks=1))
    axes.xaxis.set_major_formatter("{x:,.0f}" if whole else "{x:,.4g}")
    axes.yaxis.set_major_formatter("{x:,.6g}")
    style_axes(axes)


def curve_figure(
    history: Sequence[Mapping[str, float]],
    title: str,
    references: Mapping[str, float] | None = None,
    population: str = POPULATION,
    outcome: str = "mean dataset",
) -> Figure:
    """Draws a run's returns against iterations (left) and against wall-clock time (right), on one y axis.

    Args:
        history: The objects of `metrics.jsonl`: `iteration`, `seconds`, and any of `fitness_mean`, `fitness_best`,
            `evaluation_mean` with `evaluation_ci_low` and `evaluation_ci_high`, `non_finite`. Absent, null and
            non-finite values leave gaps.
        title: Headline of the picture.
        references: Returns to compare with, by name, drawn as dashed horizontal lines.
        population: What `fitness_mean` and `fitness_best` are the mean and the best of.
        outcome: What was evaluated.

    Returns:
        A figure with two axes; nothing is written.

    Raises:
        ValueError: The history is empty, a row has no `iteration` or `seconds`, or there is no finite value to draw.
    """
    references = {name: float(value) for name, value in (references or {}).items() if np.isfinite(value)}
    evaluated = evaluations(history)
    low, high = _limits(values := _finite_values(history, evaluated), references)
    notes = wrap_notes(_describe(history, evaluated, int(np.sum((values < low) | (values > high)))), WIDTH - 0.4)
    legend_rows = -(-(len(POPULATION_SERIES) + 1 + len(references)) // LEGEND_COLUMNS)
    top = header_height(notes) + 0.15
    figure = new_figure(WIDTH, top + PANEL_HEIGHT + 0.62 + 0.2 * legend_rows)
    add_header(figure, title, notes)

    seconds = column(history, "seconds")
    scale, unit = time_unit(float(np.nanmax(seconds, initial=0.0)))
    panels = (
        (column(history, "iteration"), "iteration", True),
        (seconds / scale, f"wall-clock time, compilation included [{unit}]", False),
    )
    panel_width = (WIDTH - 0.85 - 0.2 - 0.3) / 2
    shared: Axes | None = None
    for index, (x, label, whole) in enumerate(panels):
        axes = add_axes(figure, 0.85 + index * (panel_width + 0.3), top, panel_width, PANEL_HEIGHT)
        _draw_population(axes, x, history, population)
        _draw_evaluations(axes, x, evaluated, outcome)
        _draw_references(axes, references)
        _style_panel(axes, x, label, whole)
        if shared is None:
            shared = axes
            axes.set_ylim(low, high)
            axes.set_ylabel("return of an episode (sum of rewards)", color=INK)
        else:
            axes.sharey(shared)
            axes.tick_params(labelleft=False)
    _add_legend(figure)
    return figure


def offline_curve_figure(
    history: Sequence[Mapping[str, float]],
    title: str,
    references: Mapping[str, float] | None = None,
    population: str = POPULATION,
    outcome: str = "mean dataset",
) -> Figure:
    """Draws the objective of an offline distillation (left) and the returns of its datasets (right) by iterations.

    Arguments and errors of `curve_figure`; `fitness_mean` and `fitness_best` are values of the objective here, and the
    best is left out where there is but one candidate, as gradients move.
    """
    references = {name: float(value) for name, value in (references or {}).items() if np.isfinite(value)}
    evaluated = evaluations(history)
    _finite_values(history, evaluated)
    best, mean = (column(history, style.key) for style in POPULATION_SERIES)
    series = POPULATION_SERIES[np.array_equal(best, mean, equal_nan=True) :]
    objective = np.concatenate([best, mean])
    returns = np.concatenate([evaluated.mean, evaluated.low, evaluated.high])
    panels: tuple[tuple[str, np.ndarray, Mapping[str, float]], ...] = (
        ("objective on offline states", objective[np.isfinite(objective)], {}),
        ("return of an episode (sum of rewards)", returns[np.isfinite(returns)], references),
    )
    limits = [_limits(values, lines) if values.size else (0.0, 1.0) for _, values, lines in panels]
    outside = sum(
        int(np.sum((row[1] < low) | (row[1] > high))) for row, (low, high) in zip(panels, limits, strict=True)
    )
    notes = wrap_notes(_describe(history, evaluated, outside), WIDTH - 0.4)
    legend_rows = -(-(len(series) + 1 + len(references)) // LEGEND_COLUMNS)
    top = header_height(notes) + 0.15
    figure = new_figure(WIDTH, top + PANEL_HEIGHT + 0.62 + 0.2 * legend_rows)
    add_header(figure, title, notes)
    panel_width = (WIDTH - 2 * 0.95 - 0.2) / 2
    x = column(history, "iteration")
    for index, ((label, _, lines), limit) in enumerate(zip(panels, limits, strict=True)):
        axes = add_axes(figure, 0.85 + index * (panel_width + 0.95), top, panel_width, PANEL_HEIGHT)
        if index == 0:
            _draw_population(axes, x, history, population, series)
        else:
            _draw_evaluations(axes, x, evaluated, outcome)
        _draw_references(axes, lines)
        _style_panel(axes, x, "iteration", True)
        axes.set_ylim(*limit)
        axes.set_ylabel(label, color=INK)
    _add_legend(figure)
    return figure


def _add_legend(figure: Figure) -> None:
    """One legend under the panels, with every line of any of them once."""
    entries = {}
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        entries.update(dict(zip(labels, handles, strict=True)))
    figure.legend(
        entries.values(),
        entries.keys(),
        loc="lower center",
        ncols=LEGEND_COLUMNS,
        fontsize=NOTE_SIZE,
        frameon=False,
        handlelength=3.2,
    )


def draw_curve(
    history: Sequence[Mapping[str, float]],
    path: str | os.PathLike[str],
    title: str,
    references: Mapping[str, float] | None = None,
    population: str = POPULATION,
    outcome: str = "mean dataset",
) -> None:
    """Writes the picture of `curve_figure` into a file, whole or not at all.

    Args:
        history: See `curve_figure`.
        path: Where; the suffix chooses the format, png without one.
        title: Headline of the picture.
        references: See `curve_figure`.
        population: See `curve_figure`.
        outcome: See `curve_figure`.

    Raises:
        FileNotFoundError: The folder does not exist.
        ValueError: See `curve_figure`; or the suffix is not a format that matplotlib writes.
    """
    write_figure(curve_figure(history, title, references, population, outcome), path)


def draw_offline_curve(
    history: Sequence[Mapping[str, float]],
    path: str | os.PathLike[str],
    title: str,
    references: Mapping[str, float] | None = None,
    population: str = POPULATION,
    outcome: str = "mean dataset",
) -> None:
    """Writes the picture of `offline_curve_figure` into a file. Arguments and errors of `draw_curve`."""
    write_figure(offline_curve_figure(history, title, references, population, outcome), path)
