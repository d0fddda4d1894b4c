"""Common parts of all pictures: colours that colour-blind readers can tell apart, layout in inches, atomic writing."""

from __future__ import annotations

import io
import os
import textwrap
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath

from hades._files import write_atomically

DPI = 130
WIDTH, PANEL_HEIGHT = 11.0, 3.9
"""Inches of a picture of two panels, and of a panel."""
MARGIN = 0.2
RETURN = "return of an episode (sum of rewards)"
INK = "#222222"
MUTED = "#666666"
FAINT = "#d9d9d9"
# Okabe and Ito's palette with its yellow last (weak on white), then a grey, a wine and a sand from Tol's.
PALETTE = ("#D55E00", "#0072B2", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#000000", "#999999", "#882255", "#F0E442")

TITLE_SIZE = 12.0
NOTE_SIZE = 8.5
LABEL_SIZE = 8.0
MARGIN_ABOVE = 0.15
TITLE_INCHES = 0.30
NOTE_INCHES = 0.175


@lru_cache(maxsize=4096)
def text_width(text: str, size: float = LABEL_SIZE) -> float:
    """Width of a line of text in inches, in matplotlib's own default font, without a renderer."""
    # TextPath reads "$" as the start of mathematics, and a blank has no outline at all.
    plain = text.replace("$", "S").strip()
    return float(TextPath((0, 0), plain, size=size).get_extents().width) / 72 if plain else 0.0


def shorten(text: str, length: int = 34) -> str:
    """The text, or its beginning and an ellipsis where it is longer than `length` characters."""
    return text if len(text) <= length else text[: length - 1] + "…"


def titled_figure(title: str, notes: Sequence[str], width: float, height: float) -> tuple[Figure, float]:
    """A white figure with an Agg canvas of its own: a bold title in its upper left corner, and the notes below it.

    Args:
        title: Headline.
        notes: Each is broken into as many lines as it needs.
        width: Inches.
        height: Inches below the header.

    Returns:
        The figure, and the inches of the header, where all else begins.
    """
    lines = [line for note in notes for line in _wrap(note, width - 2 * MARGIN)]
    top = MARGIN_ABOVE + TITLE_INCHES + NOTE_INCHES * len(lines)
    figure = Figure(figsize=(width, top + height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    add_text(figure, MARGIN, MARGIN_ABOVE, title, TITLE_SIZE, INK, "bold")
    for index, line in enumerate(lines):
        add_text(figure, MARGIN, MARGIN_ABOVE + TITLE_INCHES + NOTE_INCHES * index, line, NOTE_SIZE, MUTED)
    return figure, top


def _wrap(note: str, width: float) -> list[str]:
    per_character = max(text_width(note, NOTE_SIZE), 0.01) / max(len(note), 1)
    return textwrap.wrap(note, max(20, int(width / per_character * 0.97)))


def add_axes(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Adds axes at a place in inches, `left` and `top` counted from the figure's upper left corner."""
    total_width, total_height = figure.get_size_inches()
    bottom = total_height - top - height
    return figure.add_axes((left / total_width, bottom / total_height, width / total_width, height / total_height))


def two_panels(figure: Figure, top: float, gap: float, right: float = MARGIN) -> tuple[Axes, Axes]:
    """Adds two axes beside each other to a figure of `WIDTH`, `gap` inches apart and `right` from its right border."""
    left = 0.85
    width = (WIDTH - left - right - gap) / 2
    first = add_axes(figure, left, top, width, PANEL_HEIGHT)
    return first, add_axes(figure, left + width + gap, top, width, PANEL_HEIGHT)


def share_y(left: Axes, right: Axes) -> None:
    """Gives axes the y axis of those to their left, which alone have its labels."""
    right.sharey(left)
    right.tick_params(labelleft=False)


def style_axes(axes: Axes, x_label: str, y_label: str = "") -> None:
    """Labels, a light grid below the data, and no frame above and to the right."""
    axes.set_xlabel(x_label, color=INK)
    axes.set_ylabel(y_label, color=INK)
    axes.yaxis.set_major_formatter("{x:,.6g}")
    axes.grid(color=FAINT, lw=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=LABEL_SIZE, color=MUTED, labelcolor=INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(MUTED)


def add_legend(figure: Figure, columns: int) -> None:
    """One legend under all axes, with every line of any of them once."""
    entries = {}
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        entries.update(dict(zip(labels, handles, strict=True)))
    figure.legend(
        entries.values(),
        entries.keys(),
        loc="lower center",
        ncols=columns,
        fontsize=NOTE_SIZE,
        frameon=False,
        handlelength=3.2,
    )


def add_text(
    figure: Figure, left: float, top: float, text: str, size: float, color: str, weight: str = "normal"
) -> None:
    """Adds text whose upper left corner is at a place in inches, counted from the figure's upper left corner."""
    width, height = figure.get_size_inches()
    place = (left / width, 1 - top / height)
    figure.text(*place, text, fontsize=size, color=color, fontweight=weight, ha="left", va="top", parse_math=False)


def separate_cells(axes: Axes, columns: int, rows: int, color: str = "white", width: float = 1.2) -> None:
    """Draws lines between the cells of an image."""
    axes.set_xticks(np.arange(1, columns) - 0.5, minor=True)
    axes.set_yticks(np.arange(1, rows) - 0.5, minor=True)
    axes.grid(which="minor", color=color, lw=width)
    axes.tick_params(which="minor", length=0)


def write_in_cell(axes: Axes, place: tuple[int, int], text: str, background: Any, weight: str = "normal") -> None:
    """Writes into the cell of an image at column and row, in a colour that can be read on that of the cell."""
    red, green, blue = to_rgb(background)
    ink = "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 0.5 else INK
    axes.text(*place, text, ha="center", va="center", fontsize=7.5, color=ink, fontweight=weight)


def write_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Writes a figure so that the file is either the old one or the whole new one.

    Args:
        figure: What to write.
        path: Where; the suffix chooses the format (`.png`, `.pdf`, `.svg`), png without one.

    Raises:
        FileNotFoundError: The folder does not exist.
        ValueError: The suffix is not a format that matplotlib writes.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{target.parent}: no such folder to write {target.name} into")
    content = io.BytesIO()
    figure.savefig(content, format=target.suffix[1:].lower() or "png", dpi=DPI)
    write_atomically(target, content.getvalue())
