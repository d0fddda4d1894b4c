"""Image observations, such as those of MinAtar: a coloured cell where a channel is on."""

from __future__ import annotations

from functools import partial

import numpy as np

from experiments.pictures.grids import channel_colors, strongest_channels
from experiments.pictures.names import channel_labels
from experiments.report.film import Cells, Film
from experiments.report.scenes.scene import Scene
from hades.types import AnyEnvironment

_FRAMES_PER_SECOND = 10.0


def scene_of(env: AnyEnvironment) -> Scene | None:
    """Scene of an environment whose observations have two or three axes, None of all others."""
    return Scene.of_observations(partial(draw, env.name)) if len(env.observation_shape) in (2, 3) else None


def draw(name: str, observations: np.ndarray) -> Film:
    """Cells in the colour of their strongest channel, opaque from 1 on.

    Args:
        name: Environment, for the names of its channels.
        observations: `[frames, rows, columns]` or `[frames, rows, columns, channels]`.
    """
    states = observations if observations.ndim == 4 else observations[..., None]
    rows, columns, channels = states.shape[1:]
    colors = channel_colors(channels)
    indices, opacity = strongest_channels(states)
    empty = opacity < 0.005
    is_binary = bool(np.all(empty | (opacity == 1)))
    cells = Cells(np.where(empty, -1, indices), tuple(colors), None if is_binary else opacity)
    legend = dict(zip(channel_labels(name, channels), colors, strict=True)) if channels > 1 else {}
    return Film((cells,), len(states), (0.0, 0.0, float(columns), float(rows)), _FRAMES_PER_SECOND, legend=legend)
