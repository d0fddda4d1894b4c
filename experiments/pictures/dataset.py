"""The picture of a synthetic dataset: which numbers are shown, in which units, and by which kind of drawing."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from experiments.pictures.canvas import write_figure
from experiments.pictures.content import Content
from experiments.pictures.grids import draw_grids
from experiments.pictures.heatmap import draw_heatmaps

if TYPE_CHECKING:
    from hades.dataset import SyntheticDataset


def dataset_figure(dataset: SyntheticDataset) -> Figure:
    """Draws the synthetic pairs so that a person can read them.

    Observations of shape `(height, width)` or `(height, width, channels)` become coloured grids with their actions
    below; those of any other shape become a heat map with a row for each pair, beside one of the actions.

    Args:
        dataset: `observations` `[num_pairs, *observation_shape]`, and either `actions` `[num_pairs, action_dim]` or
            `action_probabilities` `[num_pairs, num_actions]`; `observation_mean` and `observation_std`
            `[*observation_shape]` where it has fixed statistics.

    Returns:
        A figure; nothing is written.

    Raises:
        ValueError: There are no pairs, not exactly one kind of action, or numbers of pairs that differ.
    """
    content = Content.of(dataset)
    return draw_grids(content) if content.observations.ndim in (3, 4) else draw_heatmaps(content)


def draw_dataset(dataset: SyntheticDataset, path: str | os.PathLike[str]) -> None:
    """Writes the picture of `dataset_figure`, whose errors it has, into a file, whole or not at all.

    The suffix of `path` chooses the format, png without one.

    Raises:
        FileNotFoundError: The folder does not exist.
        ValueError: The suffix is not a format that matplotlib writes.
    """
    write_figure(dataset_figure(dataset), path)
