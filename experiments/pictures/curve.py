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
    MARGIN,
    MUTED,
    PANEL_HEIGHT,
    RETURN,
    WIDTH,
    add_legend,
    share_y,
    style_axes,
    titled_figure,
    two_panels,
    write_figure,
)

OFFLINE_LABELS = "objective on offline states", RETURN
MAX_POINTS = 2000
MAX_STRETCHES = 400
MAX_MARKERS = 40
BLOW_UP = 50
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


@dataclass(frozen=True)
class _Panel:
    """One of two panels.

    Attributes:
        x: Place of each row of the history.
        x_label: Label of the x axis.
        y_label: Label of the y axis.
        values: All finite values that are drawn, references apart.
        series: Lines of the population.
        evaluated: Evaluations.
        references: Returns to compare with, by name.
    """

    x: np.ndarray
    x_label: str
    y_label: str
    values: np.ndarray
    series: Sequence[SeriesStyle]
    evaluated: Evaluations
    references: Mapping[str, float]

    @property
    def limits(self) -> tuple[float, float]:
        """Limits of the y axis; extreme outliers are cut off, a steep start or a collapse is not."""
        values, lines = self.values, self.references.values()
        if not values.size:
            return 0.0, 1.0
        low, high = float(values.min()), float(values.max())
        inner_low, inner_high = (float(value) for value in np.percentile(values, (2, 98)))
        inner = max(inner_high - inner_low, 1e-3 * max(abs(inner_low), abs(inner_high)))
        if high - low > BLOW_UP * inner:
            low, high = max(low, inner_low - inner), min(high, inner_high + inner)
        low, high = min(low, *lines, low), max(high, *lines, high)
        margin = 0.05 * (high - low) or 0.05 * max(abs(high), 1.0)
        return low - margin, high + margin

    @property
    def num_outside(self) -> int:
        """Number of values that the limits leave out."""
        low, high = self.limits
        return int(np.sum((self.values < low) | (self.values > high)))


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


def _check(history: Sequence[Mapping[str, float]]) -> None:
    for index, row in enumerate(history):
        for key in ("iteration", "seconds"):
            if row.get(key) is None:
                raise ValueError(f"history[{index}]: expected the key {key}, got {', '.join(row) or 'no keys'}")
    drawn = [column(history, key) for key in (*(style.key for style in POPULATION_SERIES), "evaluation_mean")]
    if not np.isfinite(drawn).any():
        raise ValueError(f"history: expected a finite fitness or evaluation in its {len(history)} rows, got none")


def _finite(*values: np.ndarray) -> np.ndarray:
    together = np.concatenate(values)
    return together[np.isfinite(together)]


def _draw_population(
    axes: Axes, x: np.ndarray, history: Sequence[Mapping[str, float]], series: Sequence[SeriesStyle], population: str
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
        label = style.label.format(population)
        axes.plot(place, values, color=style.color, lw=style.width, marker=marker, ms=3, label=label, zorder=3)


def _draw_evaluations(axes: Axes, x: np.ndarray, evaluated: Evaluations, outcome: str) -> None:
    if not len(evaluated.rows):
        return
    kept = thin(evaluated.mean)
    place, mean = x[evaluated.rows[kept]], evaluated.mean[kept]
    low, high = evaluated.low[kept], evaluated.high[kept]
    few = len(kept) <= MAX_MARKERS
    width, marker, color = 1.8 if few else 1.2, "o" if few else "", EVALUATION_COLOR
    label = f"{outcome}, fresh keys (95 % interval)"
    axes.fill_between(place, low, high, color=color, alpha=0.2, lw=0, zorder=4)
    axes.plot(place, mean, color=color, lw=width, marker=marker, ms=4, label=label, zorder=5)
    if few:
        axes.errorbar(place, mean, (mean - low, high - mean), fmt="none", ecolor=color, elinewidth=1, zorder=5)


def _draw_references(axes: Axes, references: Mapping[str, float]) -> None:
    for index, (name, value) in enumerate(references.items()):
        dashes = (0, REFERENCE_STYLES[index % len(REFERENCE_STYLES)])
        shade = (INK, MUTED)[index // len(REFERENCE_STYLES) % 2]
        axes.axhline(value, color=shade, lw=1.1, linestyle=dashes, label=f"{name}: {value:,.5g}", zorder=2)


def _describe(history: Sequence[Mapping[str, float]], evaluated: Evaluations, outside: int) -> list[str]:
    notes = []
    if len(evaluated.rows):
        iteration = column(history, "iteration")[evaluated.rows]

        def one(index: int) -> str:
            interval = f"[{evaluated.low[index]:,.5g}, {evaluated.high[index]:,.5g}]"
            return f"{evaluated.mean[index]:,.5g} {interval} at iteration {iteration[index]:,.0f}"

        highest = int(np.argmax(evaluated.mean))
        last = f"On fresh keys, last: {one(-1)}"
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


def _style_panel(axes: Axes, panel: _Panel) -> None:
    end = float(_finite(panel.x).max(initial=0.0)) or 1.0
    whole = panel.x_label in ("iteration", "environment steps")
    axes.set_xlim(-0.02 * end, 1.04 * end)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=whole, steps=[1, 2, 5, 10], min_n_ticks=1))
    axes.xaxis.set_major_formatter("{x:,.0f}" if whole else "{x:,.4g}")
    style_axes(axes, panel.x_label, panel.y_label)


def curve_figure(
    history: Sequence[Mapping[str, float]],
    title: str,
    references: Mapping[str, float] | None = None,
    population: str = POPULATION,
    outcome: str = "mean dataset",
    env_steps: bool = False,
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
        env_steps: Whether environment steps take the place of iterations, by which other methods are compared.

    Returns:
        A figure with two axes; nothing is written.

    Raises:
        ValueError: The history is empty, a row has no `iteration` or `seconds`, or there is no finite value to draw.
    """
    _check(history)
    evaluated = evaluations(history)
    drawn = [column(history, style.key) for style in POPULATION_SERIES]
    values = _finite(*drawn, evaluated.mean, evaluated.low, evaluated.high)
    shown = (values, POPULATION_SERIES, evaluated, _finite_references(references))
    seconds = column(history, "seconds")
    scale, unit = time_unit(float(np.nanmax(seconds, initial=0.0)))
    axis, label = ("total_env_steps", "environment steps") if env_steps else ("iteration", "iteration")
    left = _Panel(column(history, axis), label, RETURN, *shown)
    right = _Panel(seconds / scale, f"wall-clock time, compilation included [{unit}]", "", *shown)
    return _draw(history, title, left, right, population, outcome)


def offline_curve_figure(
    history: Sequence[Mapping[str, float]],
    title: str,
    references: Mapping[str, float] | None = None,
    population: str = POPULATION,
    outcome: str = "mean dataset",
    labels: tuple[str, str] = OFFLINE_LABELS,
) -> Figure:
    """Draws the objective of an offline distillation (left) and the returns of its datasets (right) by iterations.

    Arguments and errors of `curve_figure`; `fitness_mean` and `fitness_best` are values of the objective here, and the
    best is left out where there is but one candidate, as gradients move. `labels` are those of the two vertical axes.
    """
    _check(history)
    evaluated = evaluations(history)
    best, mean = (column(history, style.key) for style in POPULATION_SERIES)
    series = POPULATION_SERIES[np.array_equal(best, mean, equal_nan=True) :]
    objective, returns = _finite(best, mean), _finite(evaluated.mean, evaluated.low, evaluated.high)
    x = column(history, "iteration")
    left = _Panel(x, "iteration", labels[0], objective, series, evaluations(()), {})
    right = _Panel(x, "iteration", labels[1], returns, (), evaluated, _finite_references(references))
    return _draw(history, title, left, right, population, outcome)


def _finite_references(references: Mapping[str, float] | None) -> dict[str, float]:
    return {name: float(value) for name, value in (references or {}).items() if np.isfinite(value)}


def _draw(
    history: Sequence[Mapping[str, float]], title: str, left: _Panel, right: _Panel, population: str, outcome: str
) -> Figure:
    """Draws two panels, on one y axis where the right one has no label of its own."""
    is_shared = not right.y_label
    gap, margin = (0.3, MARGIN) if is_shared else (0.95, 0.3)
    outside = sum(panel.num_outside for panel in ((left,) if is_shared else (left, right)))
    legend_rows = -(-(len(left.series) + 1 + len(right.references)) // LEGEND_COLUMNS)
    notes = _describe(history, right.evaluated, outside)
    figure, top = titled_figure(title, notes, WIDTH, 0.15 + PANEL_HEIGHT + 0.62 + 0.2 * legend_rows)
    both = two_panels(figure, top + 0.15, gap, margin)
    for axes, panel in zip(both, (left, right), strict=True):
        _draw_population(axes, panel.x, history, panel.series, population)
        _draw_evaluations(axes, panel.x, panel.evaluated, outcome)
        _draw_references(axes, panel.references)
        _style_panel(axes, panel)
        axes.set_ylim(*panel.limits)
    if is_shared:
        share_y(*both)
    add_legend(figure, LEGEND_COLUMNS)
    return figure


def draw_curve(
    history: Sequence[Mapping[str, float]],
    path: str | os.PathLike[str],
    title: str,
    references: Mapping[str, float] | None = None,
    population: str = POPULATION,
    outcome: str = "mean dataset",
    env_steps: bool = False,
) -> None:
    """Writes the picture of `curve_figure`, whose arguments and errors it has, into a file, whole or not at all.

    The suffix of `path` chooses the format, png without one.

    Raises:
        FileNotFoundError: The folder does not exist.
        ValueError: The suffix is not a format that matplotlib writes.
    """
    write_figure(curve_figure(history, title, references, population, outcome, env_steps), path)


def draw_offline_curve(
    history: Sequence[Mapping[str, float]],
    path: str | os.PathLike[str],
    title: str,
    references: Mapping[str, float] | None = None,
    population: str = POPULATION,
    outcome: str = "mean dataset",
    labels: tuple[str, str] = OFFLINE_LABELS,
) -> None:
    """Writes the picture of `offline_curve_figure` into a file. Arguments of that, errors of `draw_curve`."""
    write_figure(offline_curve_figure(history, title, references, population, outcome, labels), path)
