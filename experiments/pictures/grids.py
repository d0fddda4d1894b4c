"""Image observations: each state as a coloured grid, with its actions below."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from experiments.pictures import names
from experiments.pictures.canvas import (
    FAINT,
    INK,
    LABEL_SIZE,
    MARGIN,
    MUTED,
    PALETTE,
    add_axes,
    separate_cells,
    text_width,
    titled_figure,
)
from experiments.pictures.content import Content

MAX_STATES = 64
MAX_COLUMNS = 8
GAP = 0.22
BARS_HEIGHT = 0.36
BAR_LABEL_SIZE = 7.0
MIN_WIDTH = 6.8
CAPTION_HEIGHT = 0.22
ACTION_COLOR = "#0072B2"
OTHER_ACTION_COLOR = "#b8c4cc"


def channel_colors(count: int) -> list[str]:
    """A distinct colour for each channel: ink for a lone one, hues along a rainbow where the palette is too short."""
    if count == 1:
        return [INK]
    if count <= len(PALETTE):
        return list(PALETTE[:count])
    return [to_hex(color) for color in colormaps["turbo"](np.linspace(0.05, 0.95, count))]


def grid_colors(state: np.ndarray) -> np.ndarray:
    """Colours of a state: in each cell that of the strongest channel, the more opaque the stronger it is.

    Args:
        state: `[height, width, channels]`, clipped to between 0 and 1.

    Returns:
        `[height, width, 3]` red, green and blue, blended onto white.
    """
    palette = np.array([to_rgb(color) for color in channel_colors(state.shape[-1])])
    strongest, opacity = strongest_channels(state)
    return 1.0 - opacity[..., None] * (1.0 - palette[strongest])


def strongest_channels(states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The strongest channel of each cell, and its value clipped to between 0 and 1.

    Args:
        states: `[..., channels]`; numbers that are not finite count as 0 or as the largest.

    Returns:
        Channels, `[...]` integer, and values, `[...]`.
    """
    finite = np.nan_to_num(states)
    # Among channels that are clipped to 1 the order is still that of the values themselves.
    strongest = np.argmax(finite, axis=-1)
    values = np.take_along_axis(np.clip(finite, 0.0, 1.0), strongest[..., None], axis=-1)
    return strongest, values[..., 0]


def photograph_colors(state: np.ndarray) -> np.ndarray:
    """Colours of an image, `[height, width, 1 or 3]` of grey or colour, clipped: `[height, width, 3]`."""
    return np.broadcast_to(np.clip(np.nan_to_num(state), 0.0, 1.0), (*state.shape[:2], 3))


def _draw_state(axes: Axes, state: np.ndarray, colors: np.ndarray, caption: str) -> None:
    height, width = state.shape[:2]
    axes.imshow(colors, interpolation="nearest", aspect="auto")
    axes.set_xticks([])
    axes.set_yticks([])
    if max(height, width) <= 16:
        separate_cells(axes, width, height, FAINT, 0.4)
    for spine in axes.spines.values():
        spine.set_color(MUTED)
    axes.set_title(caption, fontsize=LABEL_SIZE, color=MUTED, pad=2, loc="left")


def _draw_actions(axes: Axes, action: np.ndarray, labels: Sequence[str], reach: float, fits: bool) -> None:
    """Draws bars of probabilities, the highest named below, or where `reach` is positive, of values around zero."""
    places = np.arange(len(action))
    strongest = int(np.argmax(action))
    colors = [ACTION_COLOR if reach or place == strongest else OTHER_ACTION_COLOR for place in places]
    axes.bar(places, action, color=colors, width=0.8)
    if reach:
        axes.axhline(0.0, color=MUTED, lw=0.6)
        axes.spines["bottom"].set_visible(False)
    else:
        axes.set_xlabel(f"{labels[strongest]} {action[strongest]:.2f}", fontsize=LABEL_SIZE, color=INK, labelpad=1)
    axes.set_ylim(-reach, reach or 1.0)
    axes.set_xlim(-0.6, len(action) - 0.4)
    axes.set_yticks([])
    axes.set_xticks(places if fits else [], labels if fits else [], fontsize=BAR_LABEL_SIZE, color=MUTED, va="baseline")
    axes.tick_params(length=0, pad=8)
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(MUTED)


def _draw_legend(figure: Figure, channels: Sequence[str], top: float, per_row: int) -> None:
    width, height = figure.get_size_inches()
    colors = channel_colors(len(channels))
    handles = [
        Patch(facecolor=color, edgecolor=MUTED, lw=0.4, label=label)
        for color, label in zip(colors, channels, strict=True)
    ]
    figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(MARGIN / width, 1 - top / height),
        ncols=per_row,
        fontsize=LABEL_SIZE,
        frameon=False,
        borderpad=0,
        borderaxespad=0,
        handlelength=1.0,
        handleheight=1.0,
        columnspacing=1.5,
    )


def _shading(content: Content, channels: int) -> str:
    """The note on the colours of cells."""
    if content.photographs:
        return "Pixels: from 0 to 1, clipped"
    shading = "opaque at 1 and above" if channels == 1 else "colour of the strongest channel, opaque at 1 and above"
    return f"Cells: {shading}; {content.readable_units}"


def draw_grids(content: Content) -> Figure:
    """Draws each state as a grid of coloured cells with its action below.

    Args:
        content: What to draw; observations `[num_pairs, height, width]` or `[num_pairs, height, width, channels]`.

    Returns:
        A figure with two axes a state, the grid and the bars of its action; at most `MAX_STATES` states.
    """
    states = content.readable if content.readable.ndim == 4 else content.readable[..., None]
    shown = min(content.num_pairs, MAX_STATES)
    columns = min(max(math.ceil(math.sqrt(1.6 * shown)), min(shown, 4)), MAX_COLUMNS)
    rows = -(-shown // columns)
    cell = 1.5 if shown <= 32 else 1.2
    labels = names.action_labels(content.environment, content.actions.shape[1])
    channels = names.channel_labels(content.environment, states.shape[-1])
    fits = all(text_width(label, BAR_LABEL_SIZE) + 0.05 < cell / len(labels) for label in labels)

    width = max(2 * MARGIN + columns * cell + (columns - 1) * GAP, MIN_WIDTH)
    tall = cell * states.shape[1] / states.shape[2]
    pitch = CAPTION_HEIGHT + tall + 0.06 + BARS_HEIGHT + (0.36 if fits else 0.24)
    notes = [content.score, _shading(content, len(channels))]
    reach = 0.0 if content.discrete else float(np.abs(content.actions[:shown]).max()) or 1.0
    if reach:
        notes.append(f"Bars: {', '.join(labels)}; between −{reach:.3g} and {reach:.3g}")
    if shown < content.num_pairs:
        notes.append(f"The first {shown} of {content.num_pairs:,} pairs")
    per_row = max(int((width - 2 * MARGIN) / (max(text_width(label) for label in channels) + 0.5)), 1)
    legend_rows = -(-len(channels) // per_row) if len(channels) > 1 and not content.photographs else 0
    legend_height = 0.08 + 0.2 * legend_rows

    figure, top = titled_figure(content.title, notes, width, legend_height + rows * pitch + 0.1)
    if legend_rows:
        _draw_legend(figure, channels, top + 0.04, per_row)
    for index in range(shown):
        left = MARGIN + (index % columns) * (cell + GAP)
        upper = top + legend_height + (index // columns) * pitch + CAPTION_HEIGHT
        colors = photograph_colors(states[index]) if content.photographs else grid_colors(states[index])
        _draw_state(add_axes(figure, left, upper, cell, tall), states[index], colors, f"pair {index}")
        bars = add_axes(figure, left, upper + tall + 0.06, cell, BARS_HEIGHT)
        _draw_actions(bars, content.actions[index], labels, reach, fits)
    return figure
