"""The return that datasets of several sizes reach, or of several values of another setting."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.pictures.canvas import MUTED, NOTE_SIZE, PALETTE, RETURN, add_axes, style_axes, titled_figure

WIDTH, HEIGHT = 7.0, 3.6
_NOTE = "Interquartile mean over seeds and 95 % trimmed t interval, on fresh keys; dots are single seeds"


def budget_figure(values: Mapping[str, Mapping[str, Any]], title: str, label: str = "synthetic pairs") -> Figure:
    """Draws returns against the values of a setting, numbers on a logarithmic axis.

    Args:
        values: By value, of the last and of the best dataset `scores`, `iqm` and `ci95`, and the return of the zero
            dataset.
        title: Headline.
        label: What the values are.
    """
    numbers = all(value.isdigit() for value in values)
    # A value with other flags: one on each line, without the sections that they stand in.
    names = [f"{int(value):,}" if numbers else re.sub(r" --(?:[\w-]+\.)*", "\n", value) for value in values]
    below = 0.16 * max(name.count("\n") for name in names)
    figure, top = titled_figure(title, [_NOTE], WIDTH, HEIGHT + 1.0 + below)
    axes = add_axes(figure, 0.9, top + 0.15, WIDTH - 1.1, HEIGHT)
    # Words stand as far apart as numbers that double.
    places = np.array([float(value) if numbers else 2.0**index for index, value in enumerate(values)])
    # Drawn beside each other, as one would hide the other where both are the best possible.
    for color, outcome, shift in zip(PALETTE, ("last dataset", "best dataset"), (0.97, 1.03), strict=False):
        entries = [entry[outcome] for entry in values.values()]
        middle = np.array([entry["iqm"] for entry in entries])
        low, high = np.array([entry["ci95"] or (np.nan, np.nan) for entry in entries]).T
        # Rounding may leave the middle beside an interval of no width, and error bars of negative length are refused.
        errors = np.maximum((middle - low, high - middle), 0)
        style: dict[str, Any] = {"color": color, "marker": "o", "ms": 4, "lw": 1.6, "capsize": 3, "label": outcome}
        axes.errorbar(shift * places, middle, errors, linestyle="-" if numbers else "none", **style)
        for place, entry in zip(shift * places, entries, strict=True):
            axes.plot([place] * len(entry["scores"]), entry["scores"], ".", color=color, ms=4, alpha=0.5)
    zeros = [entry["zero dataset"] for entry in values.values()]
    axes.plot(places, zeros, color=MUTED, lw=1.1, linestyle=(0, (6, 3)), label="zero dataset")
    axes.set_xscale("log", base=2)
    axes.set_xticks(places, names)
    axes.minorticks_off()
    style_axes(axes, label, RETURN)
    figure.legend(loc="lower center", ncols=3, fontsize=NOTE_SIZE, frameon=False)
    return figure
