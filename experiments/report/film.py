"""Films: drawings over time made of a few primitives, which the page's canvas and matplotlib both draw.

An environment is drawn once, as a film. All lengths are in the units of its world, x to the right and y up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

COLORS: Mapping[str, tuple[str, str]] = {
    "ink": ("#222222", "#e8e8e8"),
    "muted": ("#7a7a7a", "#9a9a9a"),
    "faint": ("#d9d9d9", "#3d4148"),
    "body": ("#4a5568", "#a3b1c6"),
    "accent": ("#d55e00", "#ff8c42"),
    "second": ("#0072b2", "#58b4e8"),
    "goal": ("#009e73", "#3fd0a4"),
}
"""Colours by the part that they play, on a light and on a dark ground; every other colour is `#rrggbb`."""

_DARK = 0.45
_LIGHTER = 0.45


def on_dark(color: str) -> str:
    """The colour on a dark ground as `#rrggbb`, nearer to white where it is dark itself.

    Example:
        >>> on_dark("ink"), on_dark("#000000"), on_dark("#ffcc00")
        ('#e8e8e8', '#737373', '#ffcc00')
    """
    if color in COLORS:
        return COLORS[color][1]
    channels = [int(color[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    luminance = float(np.dot(channels, (0.299, 0.587, 0.114)))
    lift = _LIGHTER if luminance < _DARK else 0.0
    return "#" + "".join(f"{round(255 * (channel + lift * (1 - channel))):02x}" for channel in channels)


def on_light(color: str) -> str:
    """The colour on a light ground as `#rrggbb`.

    Example:
        >>> on_light("ink"), on_light("#abcdef")
        ('#222222', '#abcdef')
    """
    return COLORS.get(color, (color, color))[0]


@dataclass(frozen=True)
class Segments:
    """Straight lines with round ends, which as thick ones are capsules.

    Attributes:
        points: Their ends, `[frames, segments, 2, 2]`; one frame where nothing moves.
        color: A key of `COLORS`, or `#rrggbb`.
        width: Thickness; 0 is a hairline.
    """

    points: np.ndarray
    color: str
    width: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """The form for JSON, four numbers a segment."""
        frames = _frames(self.points)
        return {"kind": "segments", "color": self.color, "width": _rounded(self.width), "frames": frames}


@dataclass(frozen=True)
class Circles:
    """Discs of one radius.

    Attributes:
        centers: `[frames, circles, 2]`; one frame where nothing moves.
        radius: Radius.
        color: As of `Segments`.
    """

    centers: np.ndarray
    radius: float
    color: str

    def to_dict(self) -> dict[str, Any]:
        """The form for JSON, two numbers a circle."""
        frames = _frames(self.centers)
        return {"kind": "circles", "color": self.color, "radius": _rounded(self.radius), "frames": frames}


@dataclass(frozen=True)
class Polygon:
    """A filled polygon.

    Attributes:
        points: Its corners, `[frames, corners, 2]`; one frame where nothing moves.
        color: As of `Segments`.
    """

    points: np.ndarray
    color: str

    def to_dict(self) -> dict[str, Any]:
        """The form for JSON, two numbers a corner."""
        return {"kind": "polygon", "color": self.color, "frames": _frames(self.points)}


@dataclass(frozen=True)
class Cells:
    """Coloured cells of a grid that fills the window, the first row at its top.

    Attributes:
        indices: Colour of each cell, `[frames, rows, columns]` integer; -1 is empty.
        colors: As of `Segments`.
        opacity: Between 0 and 1, `[frames, rows, columns]`; None is 1.
    """

    indices: np.ndarray
    colors: tuple[str, ...]
    opacity: np.ndarray | None = None

    def to_dict(self) -> dict[str, Any]:
        """The form for JSON: indices row by row, and opacity in percent where there is one."""
        rows, columns = self.indices.shape[1:]
        frames = self.indices.reshape(len(self.indices), -1).tolist()
        form = {"kind": "cells", "colors": list(self.colors), "rows": rows, "columns": columns, "frames": frames}
        if self.opacity is not None:
            form["opacity"] = np.round(100 * self.opacity).astype(int).reshape(len(self.indices), -1).tolist()
        return form


@dataclass(frozen=True)
class Label:
    """A word that stays in place, its left end at `place`, centred vertically.

    Attributes:
        text: Word.
        place: x and y.
        size: Height of its letters.
        color: As of `Segments`.
    """

    text: str
    place: tuple[float, float]
    size: float
    color: str = "ink"

    def to_dict(self) -> dict[str, Any]:
        """The form for JSON."""
        place = [_rounded(value) for value in self.place]
        return {"kind": "label", "color": self.color, "text": self.text, "place": place, "size": _rounded(self.size)}


_OVER_TIME = ("points", "centers", "indices", "opacity")

Part: TypeAlias = Segments | Circles | Polygon | Cells | Label


@dataclass(frozen=True)
class Film:
    """A drawing over time.

    Attributes:
        parts: Primitives, the first at the back.
        num_frames: Frames; parts that do not move have one.
        window: Left, bottom, width and height of what is seen, where the camera is at the origin.
        frames_per_second: Frames a second as it should be played.
        camera: Places that the window is shifted by, `[frames, 2]`; None stands still.
        legend: Colours that are not told by shapes, by what they mean.
        note: What is seen, in a sentence.
    """

    parts: tuple[Part, ...]
    num_frames: int
    window: tuple[float, float, float, float]
    frames_per_second: float
    camera: np.ndarray | None = None
    legend: Mapping[str, str] = field(default_factory=dict)
    note: str = ""

    @property
    def numbers_per_frame(self) -> int:
        """Numbers of the form for JSON that each frame adds."""
        arrays = [getattr(part, name) for part in self.parts for name in _OVER_TIME if hasattr(part, name)]
        arrays = [array for array in (*arrays, self.camera) if array is not None and len(array) > 1]
        return sum(array[0].size for array in arrays)

    def to_dict(self) -> dict[str, Any]:
        """The form for JSON, colours in it as pairs for a light and a dark ground."""
        parts = [part.to_dict() for part in self.parts]
        used = {color for part in parts for color in part.get("colors", [part.get("color")])} | {*self.legend.values()}
        return {
            "num_frames": self.num_frames,
            "window": [_rounded(value) for value in self.window],
            "frames_per_second": self.frames_per_second,
            "camera": None if self.camera is None else _frames(self.camera),
            "colors": {color: [on_light(color), on_dark(color)] for color in sorted(used)},
            "legend": [[name, color] for name, color in self.legend.items()],
            "note": self.note,
            "parts": parts,
        }


def _frames(points: np.ndarray) -> list[list[float]]:
    """Numbers of each frame, to a thousandth of a unit."""
    return np.round(np.asarray(points, np.float64).reshape(len(points), -1), 3).tolist()


def _rounded(value: float) -> float:
    return round(float(value), 4)
