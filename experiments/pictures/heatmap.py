"""Vector observations: a heat map with a row for each pair, beside one of the actions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from experiments.pictures import names
from experiments.pictures.canvas import (
    INK,
    LABEL_SIZE,
    MUTED,
    add_axes,
    separate_cells,
    text_width,
    titled_figure,
    write_in_cell,
)
from experiments.pictures.content import Content

MAX_PRINTED_ROWS = 32
MAX_PRINTED_COLUMNS = 30
MIN_WIDTH = 6.8
LEFT = 0.75
GAP = 0.4
LABEL_PITCH = 0.135
SLANTED = 55.0
TICK_STEPS = (1, 2, 5, 10, 20, 25, 50, 100, 200, 500, 1000)


@dataclass(frozen=True)
class Block:
    """One heat map.

    Attributes:
        colored: `[num_pairs, num_columns]`, what the colours mean.
        printed: `[num_pairs, num_columns]`, what is written into the cells.
        labels: Name of each column.
        caption: What the colours mean, in words.
        probabilities: Whether the values are probabilities, otherwise they are coloured around zero.
    """

    colored: np.ndarray
    printed: np.ndarray
    labels: Sequence[str]
    caption: str
    probabilities: bool = False

    @property
    def num_columns(self) -> int:
        """Number of columns."""
        return self.colored.shape[1]

    @property
    def limits(self) -> tuple[float, float]:
        """The values at both ends of the colour scale, the same distance from zero unless they are probabilities."""
        reach = float(np.nanmax(np.abs(self.colored), initial=0.0)) or 1.0
        return (0.0, 1.0) if self.probabilities else (-reach, reach)


@dataclass(frozen=True)
class Cells:
    """Size of a cell in inches, and whether a number is written into it."""

    width: float
    height: float
    printed: bool

    @property
    def label_angle(self) -> float:
        """Degrees by which the names above the columns are turned: upright ones may stand closer together."""
        return SLANTED if self.width > 1.3 * LABEL_PITCH else 90.0


def format_number(value: float) -> str:
    """A number in at most six characters, with a real minus sign.

    Example:
        >>> format_number(-12.345)
        '−12.3'
    """
    size = abs(value)
    if size >= 99_999.5 or 0 < size < 0.0005:
        text = f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")
    else:
        digits = 3 if 0 < size < 0.00995 else 2 if size < 9.995 else 1 if size < 99.95 else 0
        text = f"{value + 0.0:.{digits}f}"
    return text.replace("-", "−")


def tick_positions(count: int, inches_each: float, pitch: float) -> list[int]:
    """Positions that are labelled so that labels stay `pitch` inches apart: every one, every 2nd, 5th, 10th ..."""
    step = next((step for step in TICK_STEPS if step * inches_each >= pitch), TICK_STEPS[-1])
    return list(range(0, count, step))


def _cells(num_pairs: int, num_columns: int) -> Cells:
    if num_pairs <= MAX_PRINTED_ROWS and num_columns <= MAX_PRINTED_COLUMNS:
        # Small tables get wider cells: the header needs the width anyway.
        return Cells(min(max(0.47, 5.0 / num_columns), 0.75), 0.27, True)
    return Cells(min(max(12.0 / num_columns, 0.07), 0.24), min(max(6.5 / num_pairs, 0.04), 0.2), False)


def _draw_block(axes: Axes, block: Block, cells: Cells) -> AxesImage:
    norm, palette = Normalize(*block.limits), "Blues" if block.probabilities else "RdBu_r"
    image = axes.imshow(block.colored, aspect="auto", cmap=palette, norm=norm, interpolation="nearest")
    axes.set_xticks(
        columns := tick_positions(block.num_columns, cells.width, LABEL_PITCH),
        [block.labels[index] for index in columns],
        rotation=cells.label_angle,
        ha="left",
        va="bottom" if cells.label_angle == SLANTED else "center",
        rotation_mode="anchor",
        fontsize=LABEL_SIZE,
        color=INK,
        parse_math=False,
    )
    axes.xaxis.tick_top()
    axes.tick_params(length=2, color=MUTED, pad=2)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if cells.printed:
        separate_cells(axes, block.num_columns, len(block.colored))
        for (row, index), value in np.ndenumerate(block.printed):
            text = f"{value:.2f}" if block.probabilities else format_number(value)
            write_in_cell(axes, (index, row), text, image.cmap(norm(block.colored[row, index])))
    return image


def _draw_scale(figure: Figure, image: AxesImage, block: Block, left: float, top: float, width: float) -> None:
    axes = add_axes(figure, left, top, width, 0.11)
    bar = figure.colorbar(image, cax=axes, orientation="horizontal")
    low, high = block.limits
    ticks = [low, (low + high) / 2, high] if width >= 1.1 else [low, high]
    bar.set_ticks(ticks, labels=[f"{tick:.2g}".replace("-", "−") for tick in ticks])
    bar.ax.tick_params(labelsize=7, length=2, color=MUTED, labelcolor=MUTED, pad=1)
    bar.outline.set_visible(False)
    bar.set_label(block.caption, fontsize=LABEL_SIZE, color=INK, labelpad=2)


def _blocks(content: Content) -> tuple[Block, Block]:
    flat = content.observations.reshape(content.num_pairs, -1)
    readable = content.readable.reshape(content.num_pairs, -1)
    caption = "observation" if content.policy_units.startswith("environment") else "observation, normalised"
    observation = Block(flat, readable, names.observation_labels(content.environment, flat.shape[1]), caption)
    actions = content.actions
    labels = names.action_labels(content.environment, actions.shape[1])
    caption = "probability" if content.discrete else "target action"
    return observation, Block(actions, actions, labels, caption, content.discrete)


def _units_note(content: Content, printed: bool) -> str:
    if not printed:
        return f"Colours: {content.policy_units}"
    if content.readable_units == content.policy_units:
        return f"Numbers and colours: {content.policy_units}"
    return f"Numbers: {content.readable_units}; colours: normalised"


def draw_heatmaps(content: Content) -> Figure:
    """Draws a heat map of the observations and one of the actions, with a row for each pair.

    Colours are policy-space values. Numbers, where there is room for them, are in the units that the header names.

    Args:
        content: What to draw; observations of any shape are flattened.

    Returns:
        A figure with four axes: observations and their colour scale, actions and theirs.
    """
    blocks = _blocks(content)
    cells = _cells(content.num_pairs, sum(block.num_columns for block in blocks))
    widths = [max(block.num_columns * cells.width, 0.8) for block in blocks]
    lefts = [LEFT, LEFT + widths[0] + GAP]
    slope = math.radians(cells.label_angle)
    labels_height = math.sin(slope) * max(text_width(label) for block in blocks for label in block.labels) + 0.12
    right = max(
        left + max(size * (index + 0.5) / block.num_columns + text_width(label) * math.cos(slope), size)
        for left, size, block in zip(lefts, widths, blocks, strict=True)
        for index, label in enumerate(block.labels)
    )
    height = max(content.num_pairs * cells.height, 0.4)
    notes = [content.score, _units_note(content, cells.printed)]
    below = 0.12 + labels_height + height + 0.75
    figure, top = titled_figure(content.title, notes, max(right + 0.3, MIN_WIDTH), below)
    top += 0.12 + labels_height
    for left, size, block in zip(lefts, widths, blocks, strict=True):
        axes = add_axes(figure, left, top, size, height)
        _draw_scale(figure, _draw_block(axes, block, cells), block, left, top + height + 0.12, size)
        rows = tick_positions(content.num_pairs, cells.height, LABEL_PITCH) if left == LEFT else []
        axes.set_yticks(rows, [str(row) for row in rows], fontsize=LABEL_SIZE, color=INK)
    figure.axes[0].set_ylabel("synthetic pair", fontsize=LABEL_SIZE + 1, color=INK)
    return figure
