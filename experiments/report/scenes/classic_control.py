"""Figures of gymnax's classic control, drawn from observations with the environment's own lengths and limits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from experiments.report.film import Circles, Film, Polygon, Segments
from experiments.report.scenes.scene import Scene
from hades.types import AnyEnvironment

_MARGIN = 0.2


def scene_of(env: AnyEnvironment) -> Scene | None:
    """Scene of an environment of classic control, None of all others."""
    draw = _FIGURES.get(env.name)
    return None if draw is None else Scene.of_observations(partial(draw, env.parameters))  # type: ignore[union-attr]


def _points(*coordinates: tuple[Any, Any]) -> np.ndarray:
    """Points `[frames, points, 2]` of their coordinates, each `[frames]` or a number."""
    return np.stack([np.stack(np.broadcast_arrays(*np.atleast_1d(*point)), -1) for point in _alike(coordinates)], 1)


def _alike(coordinates: tuple[tuple[Any, Any], ...]) -> list[tuple[Any, Any]]:
    frames = max(np.size(value) for point in coordinates for value in point)
    return [tuple(np.broadcast_to(value, frames) for value in point) for point in coordinates]  # type: ignore[misc]


def _line(*coordinates: tuple[Any, Any]) -> np.ndarray:
    """Ends `[frames, segments, 2, 2]` of the segments that join points, one behind the other."""
    points = _points(*coordinates)
    return np.stack([points[:, :-1], points[:, 1:]], 2)


def cart_pole(parameters: Any, observations: np.ndarray) -> Film:
    """The cart on its track, whose ends are those that end the episode, and the pole; observations `[frames, 4]`."""
    position, angle = observations[:, 0], observations[:, 2]
    length, end = 2 * float(parameters.length), float(parameters.x_threshold)
    # Synthetic states may lie far beyond the ends.
    reach = max(end, float(np.abs(position).max(initial=0.0))) + 0.5
    hinge, half, height = 0.12, 0.25, 0.24
    cart = [(position + x, y) for x, y in ((-half, 0), (half, 0), (half, height), (-half, height))]
    tip = position + length * np.sin(angle), hinge + length * np.cos(angle)
    low = min(0.0, float(tip[1].min(initial=0.0)))
    parts = (
        Segments(_line((-reach, 0), (reach, 0)), "faint"),
        Segments(np.concatenate([_line((x, -0.08), (x, 0.08)) for x in (-end, end)], 1), "muted", 0.02),
        Polygon(_points(*cart), "body"),
        Segments(_line((position, hinge), tip), "accent", 0.09),
        Circles(_points((position, hinge)), 0.05, "ink"),
    )
    window = (-reach, low - _MARGIN, 2 * reach, length + hinge - low + 2 * _MARGIN)
    return Film(parts, len(observations), window, 1 / float(parameters.tau))


def acrobot(parameters: Any, observations: np.ndarray) -> Film:
    """Both links, and the height that the tip is to reach; observations `[frames, 6]`."""
    first, second = (np.arctan2(observations[:, 2 * joint + 1], observations[:, 2 * joint]) for joint in (0, 1))
    lengths = float(parameters.link_length_1), float(parameters.link_length_2)
    elbow = lengths[0] * np.sin(first), -lengths[0] * np.cos(first)
    tip = elbow[0] + lengths[1] * np.sin(first + second), elbow[1] - lengths[1] * np.cos(first + second)
    reach = sum(lengths) + _MARGIN
    parts = (
        Segments(_line((-reach, 1.0), (reach, 1.0)), "goal"),
        Segments(_line((0, 0), elbow), "body", 0.16),
        Segments(_line(elbow, tip), "accent", 0.16),
        Circles(_points((0, 0), elbow), 0.06, "ink"),
    )
    return Film(parts, len(observations), (-reach, -reach, 2 * reach, 2 * reach), 15.0, note="Green: the goal.")


def pendulum(parameters: Any, observations: np.ndarray) -> Film:
    """The pendulum, upright at angle 0; observations `[frames, 3]`."""
    angle, length = np.arctan2(observations[:, 1], observations[:, 0]), float(parameters.l)
    tip = -length * np.sin(angle), length * np.cos(angle)
    reach = length + _MARGIN
    parts = (
        Segments(_line((0, 0), (0, length)), "faint"),
        Segments(_line((0, 0), tip), "accent", 0.16),
        Circles(_points((0, 0)), 0.05, "ink"),
    )
    return Film(parts, len(observations), (-reach, -reach, 2 * reach, 2 * reach), 1 / float(parameters.dt))


def mountain_car(parameters: Any, observations: np.ndarray) -> Film:
    """The car on its hill, whose height is sin(3 x), and the flag; observations `[frames, 2]`."""

    def height(x: Any) -> Any:
        return 0.45 * np.sin(3 * x) + 0.55

    position, radius, pole = observations[:, 0], 0.05, 0.2
    left = min(float(parameters.min_position), float(position.min(initial=0.0))) - 0.05
    right = max(float(parameters.max_position), float(position.max(initial=0.0))) + 0.05
    ground = np.linspace(left, right, 80)
    goal = float(parameters.goal_position)
    top = height(goal) + pole
    # The car stands on the ground, at a right angle to it.
    slope = np.arctan(1.35 * np.cos(3 * position))
    center = position - radius * np.sin(slope), height(position) + radius * np.cos(slope)
    flag = _points((goal, top), (goal + 0.1, top - 0.04), (goal, top - 0.08))
    parts = (
        Segments(_line(*((x, height(x)) for x in ground)), "muted", 0.012),
        Segments(_line((goal, height(goal)), (goal, top)), "ink", 0.01),
        Polygon(flag, "goal"),
        Circles(_points(center), radius, "accent"),
    )
    return Film(parts, len(observations), (left, -0.02, right - left, max(top, 1.1) + 0.07), 30.0)


_FIGURES: Mapping[str, Callable[[Any, np.ndarray], Film]] = {
    "gymnax/CartPole-v1": cart_pole,
    "gymnax/Acrobot-v1": acrobot,
    "gymnax/Pendulum-v1": pendulum,
    "gymnax/MountainCar-v0": mountain_car,
    "gymnax/MountainCarContinuous-v0": mountain_car,
}
