"""Heat maps of `hades bench generalisation`: a row of panels for each dataset file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from experiments.bench._lib.variants import OWN, UNTRAINED, ZERO
from experiments.pictures.canvas import (
    FAINT,
    INK,
    LABEL_SIZE,
    MARGIN,
    MUTED,
    NOTE_INCHES,
    NOTE_SIZE,
    PALETTE,
    add_axes,
    add_text,
    separate_cells,
    text_width,
    titled_figure,
    write_in_cell,
)

CELL_WIDTH, CELL_HEIGHT = 0.62, 0.34
GAP = 0.2
ABOVE, BELOW = 0.85, 0.75
SCALE = 0.9
OWN_COLOR = PALETTE[0]
COLORS = "cividis"


def generalisation_figure(result: Mapping[str, Any]) -> Figure:
    """Draws a result: one row of heat maps for each file, from its zero dataset's return to its own one.

    Args:
        result: The JSON object of the benchmark.

    Returns:
        A figure; for each file in turn it has the axes of its panels and those of its colour scale.
    """
    rows = result["files"]
    # Panels of different files stand below each other.
    widths = [max(len(row["panels"][index]["columns"]) for row in rows) for index in range(len(rows[0]["panels"]))]
    margins = [
        0.38 + max(text_width(name) for row in rows for name in row["panels"][index]["rows"])
        for index in range(len(widths))
    ]
    lefts = [
        MARGIN + sum(margins[: index + 1]) + sum(widths[:index]) * CELL_WIDTH + index * GAP
        for index in range(len(widths))
    ]
    right = lefts[-1] + widths[-1] * CELL_WIDTH
    heights = [ABOVE + BELOW + CELL_HEIGHT * max(len(panel["rows"]) for panel in row["panels"]) for row in rows]
    title = "What policies learn from dataset files under settings other than the file's own"
    figure, top = titled_figure(title, _notes(result), max(right + GAP + SCALE, 8.0), sum(heights) + 0.1)
    for row, height in zip(rows, heights, strict=True):
        _draw_file(figure, row, top, lefts, right)
        top += height
    return figure


def _notes(result: Mapping[str, Any]) -> list[str]:
    cells = f"{result['num_inits']} freshly initialised policies × {result['num_episodes']} episodes"
    notes = [
        f"Numbers: mean return of {cells}. Bold: at least {result['threshold']:.0%} of the file's own return. "
        "Orange frame: the file's own settings. Colours end at the zero dataset's and at the file's own return."
    ]
    if any(row["num_diverged"] for row in result["files"]):
        notes.append("Grey and hatched: a policy is no longer finite.")
    if any(row["init_seed"] is not None for row in result["files"]):
        notes.append("Of HaDES-F files the file's own return keeps its one initialisation, all cells draw fresh ones.")
    return notes


def _draw_file(figure: Figure, row: Mapping[str, Any], top: float, lefts: list[float], right: float) -> None:
    own, zero, untrained = (f"{row['references'][name]['mean']:.4g}" for name in (OWN, ZERO, UNTRAINED))
    reaching = f"{row['num_reaching']} of {row['num_cells']} combinations ({row['fraction']:.0%})"
    share = f"{reaching} reach {row['threshold_return']:.4g}"
    add_text(figure, MARGIN, top + 0.12, row["name"], NOTE_SIZE + 1.5, INK, "bold")
    note = f"{share}; the file's own settings return {own}, the zero dataset {zero}, untrained policies {untrained}"
    add_text(figure, MARGIN, top + 0.16 + NOTE_INCHES, note.replace("-", "−"), NOTE_SIZE, MUTED)
    low, high = (row["references"][name]["mean"] for name in (ZERO, OWN))
    # A dataset that is worse than zeros still gets its picture.
    limits = (low, high if high > low else low + 1.0)
    norm = Normalize(*limits, clip=True)
    for panel, left in zip(row["panels"], lefts, strict=True):
        size = len(panel["columns"]) * CELL_WIDTH, len(panel["rows"]) * CELL_HEIGHT
        _draw_panel(add_axes(figure, left, top + ABOVE, *size), panel, norm)
    tall = CELL_HEIGHT * max(len(panel["rows"]) for panel in row["panels"])
    bar = figure.colorbar(
        ScalarMappable(norm, COLORS), cax=add_axes(figure, right + GAP, top + ABOVE, 0.13, tall), orientation="vertical"
    )
    names = [f"{value:.4g}\n{name}" for value, name in zip(limits, ("zeros", "own"), strict=True)]
    bar.set_ticks(limits, labels=[name.replace("-", "−") for name in names])
    bar.ax.tick_params(labelsize=LABEL_SIZE, length=2, color=MUTED, labelcolor=INK, pad=2)
    bar.outline.set_visible(False)


def _draw_panel(axes: Axes, panel: Mapping[str, Any], norm: Normalize) -> None:
    means = [[np.nan if cell["mean"] is None else cell["mean"] for cell in row] for row in panel["cells"]]
    palette = colormaps[COLORS].with_extremes(bad=FAINT)
    axes.imshow(np.ma.masked_invalid(means), aspect="auto", cmap=palette, norm=norm, interpolation="nearest")
    rows, columns = len(panel["rows"]), len(panel["columns"])
    axes.set_xticks(range(columns), [name.replace(" ", "\n") for name in panel["columns"]])
    axes.set_yticks(range(rows), panel["rows"])
    axes.tick_params(length=0, pad=4, labelsize=LABEL_SIZE, labelcolor=INK)
    separate_cells(axes, columns, rows)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xlabel(panel["column_label"].replace(", ×", "\n×"), fontsize=LABEL_SIZE, color=MUTED, labelpad=3)
    axes.set_ylabel(panel["row_label"], fontsize=LABEL_SIZE, color=MUTED, labelpad=3)
    title = f"{panel['num_reaching']} of {panel['num_cells']} cells"
    axes.set_title(title, fontsize=LABEL_SIZE, color=INK, loc="left", pad=4)
    for y, row in enumerate(panel["cells"]):
        for x, cell in enumerate(row):
            _draw_cell(axes, (x, y), cell, "white" if cell["mean"] is None else palette(norm(cell["mean"])))


def _draw_cell(axes: Axes, place: tuple[int, int], cell: Mapping[str, Any], color: Any) -> None:
    corner = (place[0] - 0.5, place[1] - 0.5)
    if cell["mean"] is None:
        axes.add_patch(Rectangle(corner, 1, 1, fill=False, hatch="////", edgecolor="#b0b0b0", lw=0))
        text = "diverged"
    else:
        text = f"{cell['mean']:.4g}".replace("-", "−")
    write_in_cell(axes, place, text, color, "bold" if cell["reaches"] else "normal")
    if cell["own"]:
        frame = Rectangle(corner, 1, 1, fill=False, edgecolor=OWN_COLOR, lw=2.4, zorder=5, clip_on=False)
        axes.add_patch(frame)
