"""The return that datasets of several sizes reach."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

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
    write_figure,
)

WIDTH, HEIGHT = 7.0, 3.6
_NOTE = "Interquartile mean over seeds and 95 % trimmed t interval, on fresh keys; dots are single seeds"


def budget_figure(sizes: Mapping[int, Mapping[str, Any]], title: str) -> Figure:
    """Draws returns against the number of pairs, on a logarithmic axis.

    Args:
        sizes: By number of pairs, of the last and of the best dataset `scores`, `iqm` and `ci95`, and the return of the
            zero dataset.
        title: Headline.
    """
    top = header_height([_NOTE]) + 0.15
    figure = new_figure(WIDTH, top + HEIGHT + 0.85)
    add_header(figure, title, [_NOTE])
    axes = add_axes(figure, 0.9, top, WIDTH - 1.1, HEIGHT)
    places = np.array(list(sizes), float)
    # Drawn beside each other, as one would hide the other where both are the best possible.
    for color, outcome, shift in zip(PALETTE, ("last dataset", "best dataset"), (0.97, 1.03), strict=False):
        entries = [entry[outcome] for entry in sizes.values()]
        middle = np.array([entry["iqm"] for entry in entries])
        low, high = np.array([entry["ci95"] or (np.nan, np.nan) for entry in entries]).T
        # Rounding may leave the middle beside an interval of no width, and error bars of negative length are refused.
        errors = np.maximum((middle - low, high - middle), 0)
        axes.errorbar(shift * places, middle, errors, color=color, marker="o", ms=4, lw=1.6, capsize=3, label=outcome)
        for place, entry in zip(shift * places, entries, strict=True):
            axes.plot([place] * len(entry["scores"]), entry["scores"], ".", color=color, ms=4, alpha=0.5)
    zeros = [entry["zero dataset"] for entry in sizes.values()]
    axes.plot(places, zeros, color=MUTED, lw=1.1, linestyle=(0, (6, 3)), label="zero dataset")
    axes.set_xscale("log", base=2)
    axes.set_xticks(places, [f"{size:,}" for size in sizes])
    axes.minorticks_off()
    axes.set_xlabel("synthetic pairs", color=INK)
    axes.set_ylabel("return of an episode (sum of rewards)", color=INK)
    axes.yaxis.set_major_formatter("{x:,.6g}")
    style_axes(axes)
    figure.legend(loc="lower center", ncols=3, fontsize=NOTE_SIZE, frameon=False)
    return figure


def draw_budget(sizes: Mapping[int, Mapping[str, Any]], path: str | os.PathLike[str], title: str) -> None:
    """Writes the picture of `budget_figure` into a file, whole or not at all. Arguments as there."""
    write_figure(budget_figure(sizes, title), path)
