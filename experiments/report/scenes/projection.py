"""Projection of points in space onto a plane, parallel, and outlines of what is projected."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_STILL = 1e-3
_CORNERS = 24


@dataclass(frozen=True)
class Projection:
    """A parallel projection.

    Attributes:
        name: `"side"`, `"above"` or `"oblique"`.
        axes: Directions in space of the plane's x and y axis, and of what is farther away, `[3, 3]`.
    """

    name: str
    axes: np.ndarray

    @classmethod
    def of_motion(cls, positions: np.ndarray) -> Projection:
        """The one that shows a motion best: along an axis that nothing moves along, or from a corner.

        Args:
            positions: Of bodies, `[time, bodies, 3]`, z up.
        """
        spans = np.ptp(positions, axis=0).max(axis=0)
        still = spans <= _STILL * max(float(spans.max()), 1e-9)
        if still[1]:
            return cls("side", np.array([[1, 0, 0], [0, 0, 1], [0, 1, 0]], float))
        if still[2]:
            return cls("above", np.array([[1, 0, 0], [0, 1, 0], [0, 0, -1]], float))
        turn, tilt = np.radians(25), np.radians(20)
        right = np.array([np.cos(turn), np.sin(turn), 0.0])
        away = np.array([-np.sin(turn) * np.cos(tilt), np.cos(turn) * np.cos(tilt), -np.sin(tilt)])
        return cls("oblique", np.stack([right, np.cross(right, away), away]))

    @property
    def note(self) -> str:
        """The direction of view, in words."""
        return {"side": "Seen from the side", "above": "Seen from above", "oblique": "Seen obliquely"}[self.name]

    def flat(self, points: np.ndarray) -> np.ndarray:
        """Points `[..., 3]` on the plane, `[..., 2]`."""
        return points @ self.axes[:2].T

    def depth(self, points: np.ndarray) -> np.ndarray:
        """Distances of points `[..., 3]` along the line of view, `[...]`."""
        return points @ self.axes[2]


def rotations(quaternions: np.ndarray) -> np.ndarray:
    """Rotation matrices `[..., 3, 3]` of quaternions `[..., 4]`, the real part first.

    Example:
        >>> quarter = rotations(np.array([0.5**0.5, 0.0, 0.0, 0.5**0.5]))
        >>> (quarter @ [1.0, 0.0, 0.0]).round(6).tolist()
        [0.0, 1.0, 0.0]
    """
    unit = quaternions / np.linalg.norm(quaternions, axis=-1, keepdims=True)
    w, x, y, z = np.moveaxis(unit, -1, 0)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return np.stack([np.stack(row, -1) for row in rows], -2)


def outlines(points: np.ndarray) -> np.ndarray:
    """Convex polygons around points: in each of some directions the outermost one.

    Args:
        points: `[time, points, 2]`.

    Returns:
        Corners in order, `[time, corners, 2]`; those that several directions share stand there as often.

    Example:
        >>> square = np.array([[[0.0, 0.0], [1.0, 0.0], [0.5, 0.5], [0.0, 1.0], [1.0, 1.0]]])
        >>> np.unique(outlines(square)[0], axis=0).tolist()
        [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]
    """
    # Not along the axes, where both ends of a side are equally far out.
    angles = 2 * np.pi * (np.arange(_CORNERS) + 0.5) / _CORNERS
    directions = np.stack([np.cos(angles), np.sin(angles)])
    outermost = np.argmax(points @ directions, axis=1)
    return np.take_along_axis(points, outermost[..., None], axis=1)
