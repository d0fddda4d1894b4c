"""A film as an animated GIF: matplotlib draws the primitives, Pillow puts the frames together."""

from __future__ import annotations

import io
import math

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import EllipseCollection, LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Polygon as PolygonPatch
from PIL import Image

from experiments.report.film import Cells, Circles, Film, Part, Polygon, Segments, on_light

_DPI = 100
_LARGEST_FPS = 25.0
_HAIRLINE = 1.0
_POINTS = 72.0


def make_gif(film: Film, width: int = 480, max_frames: int = 400) -> bytes:
    """Draws a film on a light ground, at its own speed as far as 25 frames a second and `max_frames` show it.

    Args:
        film: Film.
        width: Pixels.
        max_frames: Frames, evenly spread over the film where it has more.
    """
    stride = max(math.ceil(film.num_frames / max_frames), round(film.frames_per_second / _LARGEST_FPS), 1)
    images = [Image.fromarray(frame) for frame in frames(film, width, range(0, film.num_frames, stride))]
    # One palette for all of them: colours do not flicker, and what stands still takes no bytes.
    palette = images[len(images) // 2].quantize(64, Image.Quantize.MAXCOVERAGE)
    images = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    content = io.BytesIO()
    # GIF counts in hundredths of a second.
    milliseconds = 10 * max(round(100 * stride / film.frames_per_second), 2)
    images[0].save(
        content, "GIF", save_all=True, append_images=images[1:], duration=milliseconds, loop=0, optimize=True
    )
    return content.getvalue()


def frames(film: Film, width: int, indices: range) -> list[np.ndarray]:
    """Frames of a film as red, green and blue, `[height, width, 3]` uint8 each."""
    left, bottom, across, tall = film.window
    height = max(round(width * tall / across), 1)
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    points_per_unit = width / _DPI * _POINTS / across
    artists = [_add(axes, part, film.window, points_per_unit) for part in film.parts]
    for order, artist in enumerate(artists):
        artist.set_zorder(order)
    drawn = []
    for index in indices:
        x, y = (0.0, 0.0) if film.camera is None else film.camera[min(index, len(film.camera) - 1)]
        axes.set_xlim(left + x, left + x + across)
        axes.set_ylim(bottom + y, bottom + y + tall)
        for part, artist in zip(film.parts, artists, strict=True):
            _move(artist, part, index)
        canvas.draw()
        drawn.append(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    return drawn


def _add(axes: Axes, part: Part, window: tuple[float, float, float, float], points_per_unit: float) -> Artist:
    """Adds the artist of a part, at its first frame."""
    if isinstance(part, Segments):
        width = max(part.width * points_per_unit, _HAIRLINE)
        lines = LineCollection(part.points[0], colors=on_light(part.color), linewidths=width, capstyle="round")
        return axes.add_collection(lines, autolim=False)
    if isinstance(part, Circles):
        size = 2 * part.radius
        discs = EllipseCollection(
            size,
            size,
            0,
            units="xy",
            offsets=part.centers[0],
            offset_transform=axes.transData,
            facecolors=on_light(part.color),
        )
        return axes.add_collection(discs, autolim=False)
    if isinstance(part, Polygon):
        return axes.add_patch(
            PolygonPatch(part.points[0], closed=True, facecolor=on_light(part.color), edgecolor="none")
        )
    left, bottom, across, tall = window
    if isinstance(part, Cells):
        extent = (left, left + across, bottom, bottom + tall)
        return axes.imshow(_colors(part, 0), extent=extent, interpolation="nearest", aspect="auto")
    size = part.size * points_per_unit
    return axes.text(*part.place, part.text, fontsize=size, color=on_light(part.color), va="center", parse_math=False)


def _move(artist: Artist, part: Part, index: int) -> None:
    """Puts the artist of a part where it is in a frame."""
    if isinstance(artist, LineCollection) and isinstance(part, Segments) and len(part.points) > 1:
        artist.set_segments(part.points[index])
    elif isinstance(artist, EllipseCollection) and isinstance(part, Circles) and len(part.centers) > 1:
        artist.set_offsets(part.centers[index])
    elif isinstance(artist, PolygonPatch) and isinstance(part, Polygon) and len(part.points) > 1:
        artist.set_xy(part.points[index])
    elif isinstance(artist, AxesImage) and isinstance(part, Cells) and len(part.indices) > 1:
        artist.set_data(_colors(part, index))


def _colors(part: Cells, index: int) -> np.ndarray:
    """Colours of the cells in one frame, `[rows, columns, 3]`, blended onto white."""
    palette = np.array([to_rgb(on_light(color)) for color in part.colors])
    chosen = part.indices[index]
    opacity = np.where(chosen < 0, 0.0, 1.0 if part.opacity is None else part.opacity[index])[..., None]
    return 1.0 - opacity * (1.0 - palette[chosen])
