"""Curves of observations and actions over time, for environments that nothing here can draw."""

from __future__ import annotations

from functools import partial

import numpy as np

from experiments.pictures.names import action_labels, observation_labels
from experiments.report.film import Film, Label, Part, Segments
from experiments.report.scenes.scene import Episode, Scene
from hades.types import AnyEnvironment, Discrete

MAX_OBSERVATIONS = 10
_MAX_ACTIONS = 6
_ROW, _GAP, _WIDTH, _LABELS, _LETTERS = 1.0, 0.35, 14.0, 7.0, 0.5
_FRAMES_PER_SECOND = 30.0


def scene_of(env: AnyEnvironment) -> Scene:
    """Scene of any environment."""
    return Scene(partial(draw, env))


def draw(env: AnyEnvironment, episode: Episode) -> Film:
    """Draws the observation components that vary most, and the actions, each in a row from its lowest to its highest.

    A line moves over them with time.
    """
    rows = _rows(env, episode)
    height = len(rows) * (_ROW + _GAP)
    parts: list[Part] = []
    times = np.linspace(0.0, _WIDTH, max(len(episode), 2))
    for index, (name, values, color) in enumerate(rows):
        bottom = height - (index + 1) * (_ROW + _GAP) + _GAP / 2
        low, span = float(values.min()), float(np.ptp(values)) or 1.0
        curve = np.column_stack([times[: len(values)], bottom + _ROW * (values - low) / span])
        base = np.array([[[0.0, bottom], [_WIDTH, bottom]]])
        parts.append(Segments(base[None], "faint"))
        parts.append(Segments(np.stack([curve[:-1], curve[1:]], 1)[None], color, 0.06))
        parts.append(Label(name, (-_LABELS, bottom + _ROW / 2), _LETTERS))
    cursor = np.zeros((len(episode), 1, 2, 2))
    cursor[..., 0] = times[: len(episode), None, None]
    cursor[:, 0, 1, 1] = height
    parts.append(Segments(cursor, "accent", 0.08))
    shown, total = min(_components(episode), MAX_OBSERVATIONS), _components(episode)
    left_out = "" if shown == total else f" the {shown} of {total:,} that vary most;"
    note = f"{env.name} cannot be drawn here: observations over time (blue);{left_out} actions (green)."
    window = (-_LABELS - 0.3, -_GAP / 2, _WIDTH + _LABELS + 0.6, height + _GAP)
    return Film(tuple(parts), len(episode), window, _FRAMES_PER_SECOND, note=note)


def _components(episode: Episode) -> int:
    return int(np.prod(episode.observations.shape[1:]))


def _rows(env: AnyEnvironment, episode: Episode) -> list[tuple[str, np.ndarray, str]]:
    """Name, values over time and colour of what is drawn."""
    flat = episode.observations.reshape(len(episode), -1).astype(np.float64)
    names = observation_labels(env.name, flat.shape[1])
    # In their own order.
    chosen = sorted(np.argsort(-flat.std(axis=0), kind="stable")[:MAX_OBSERVATIONS].tolist())
    rows = [(names[index], flat[:, index], "second") for index in chosen]
    if isinstance(env.action_space, Discrete):
        return [*rows, ("action", episode.actions.astype(np.float64), "goal")]
    labels = action_labels(env.name, episode.actions.shape[1])
    actions = [(name, episode.actions[:, index].astype(np.float64), "goal") for index, name in enumerate(labels)]
    return rows + actions[:_MAX_ACTIONS]
