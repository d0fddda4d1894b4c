"""Common parts of all pictures: colours that colour-blind readers can tell apart, layout in inches, atomic writing."""

from __future__ import annotations

import io
import os
import textwrap
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath

from hades._files import write_atomically

DPI = 130
INK = "#222222"
MUTED = "#666666"
FAINT = "#d9d9d9"
# Okabe and Ito's palette with its yellow last (weak on white), then a grey, a wine and a sand from Tol's.
PALETTE = ("#D55E00", "#0072B2", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#000000", "#999999", "#882255", "#F0E442")

TITLE_SIZE = 12.0
NOTE_SIZE = 8.5
LABEL_SIZE = 8.0
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


def new_figure(width: float, height: float) -> Figure:
    """A white figure of that many inches with an Agg canvas of its own."""
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def add_axes(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Adds axes at a place in inches, `left` and `top` counted from the figure's upper left corner."""
    total_width, total_height = figure.get_size_inches()
    bottom = total_height - top - height
    return figure.add_axes((left / total_width, bottom / total_height, width / total_width, height / total_height))


def style_axes(axes: Axes) -> None:
    """A light grid below the data, small labels, and no frame above and to the right."""
    axes.grid(color=FAINT, lw=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=LABEL_SIZE, color=MUTED, labelcolor=INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(MUTED)


def add_text(
    figure: Figure, left: float, top: float, text: str, size: float, color: str, weight: str = "normal"
) -> None:
    """Adds text whose upper left corner is at a place in inches, counted from the figure's upper left corner."""
    width, height = figure.get_size_inches()
    place = (left / width, 1 - top / height)
    figure.text(*place, text, fontsize=size, color=color, fontweight=weight, ha="left", va="top", parse_math=False)


def wrap_notes(notes: Sequence[str], width: float) -> list[str]:
    """Breaks each note into lines that fit into `width` inches."""
    lines: list[str] = []
    for note in notes:
        per_character = max(text_width(note, NOTE_SIZE), 0.01) / max(len(note), 1)
        lines.extend(textwrap.wrap(note, max(20, int(width / per_character * 0.97))))
    return lines


def header_height(lines: Sequence[str]) -> float:
    """Inches that `add_header` takes, the margin above it included."""
    return 0.15 + TITLE_INCHES + NOTE_INCHES * len(lines)


def add_header(figure: Figure, title: str, lines: Sequence[str], left: float = 0.2) -> None:
    """Writes a bold title into the upper left corner and the lines below it."""
    add_text(figure, left, 0.15, title, TITLE_SIZE, INK, "bold")
    for index, line in enumerate(lines):
        add_text(figure, left, 0.15 + TITLE_INCHES + NOTE_INCHES * index, line, NOTE_SIZE, MUTED)


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
