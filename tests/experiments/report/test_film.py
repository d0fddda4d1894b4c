"""Primitives as JSON and as pixels."""

from __future__ import annotations

import io
import json

import numpy as np
from PIL import Image

from experiments.report.film import Cells, Circles, Film, Label, Polygon, Segments, on_light
from experiments.report.gif import frames, make_gif


def film(num_frames: int = 4, fps: float = 10.0) -> Film:
    """A line to the right that moves up, a disc, a square and cells behind all of them."""
    ends = np.zeros((num_frames, 1, 2, 2))
    ends[:, 0, 1, 0], ends[..., 1] = 4.0, np.linspace(0, 3, num_frames)[:, None, None]
    cells = Cells(np.full((1, 4, 4), -1), ("#00ff00",))
    cells.indices[0, 0, 3] = 0
    parts = (
        cells,
        Polygon(np.array([[[2, 2], [3, 2], [3, 3], [2, 3]]], float), "#0000ff"),
        Circles(np.array([[[0.5, 3.5]]]), 0.4, "#00aaaa"),
        Segments(ends, "#ff0000", 0.3),
        Label("a$b", (1.0, 1.5), 0.3),
    )
    return Film(parts, num_frames, (0.0, -0.5, 4.0, 4.5), fps, camera=np.zeros((num_frames, 2)))


def test_a_film_is_json_of_numbers_for_each_frame() -> None:
    form = json.loads(json.dumps(film().to_dict()))
    kinds = {part["kind"]: part for part in form["parts"]}
    assert form["num_frames"] == 4 and len(form["camera"]) == 4
    assert kinds["segments"]["frames"][2] == [0, 2, 4, 2] and len(kinds["polygon"]["frames"]) == 1
    assert kinds["cells"]["frames"][0][3] == 0 and kinds["label"]["text"] == "a$b"
    assert form["colors"]["ink"] == ["#222222", "#e8e8e8"] and form["colors"]["#ff0000"][0] == "#ff0000"
    assert film().numbers_per_frame == 4 + 2


def test_pixels_have_the_colour_of_what_is_there() -> None:
    first, last = frames(film(), 400, range(0, 4, 3))
    assert first.shape == (450, 400, 3)

    def pixel(image: np.ndarray, x: float, y: float) -> str:
        return "#" + "".join(f"{value:02x}" for value in image[int((4.0 - y) * 100), int(x * 100)])

    # The line is in front of the square, and at the height of its frame.
    assert (pixel(first, 2.5, 0.0), pixel(last, 2.5, 3.0), pixel(first, 2.5, 2.5)) == ("#ff0000", "#ff0000", "#0000ff")
    assert pixel(last, 2.5, 0.0) == "#ffffff" and pixel(first, 0.5, 3.5) == "#00aaaa"
    # The window is taller than the four rows of cells, which fill it.
    assert pixel(first, 3.5, 3.5) == "#00ff00"


def test_the_camera_moves_the_world() -> None:
    moved = film()
    moved = Film(moved.parts, 4, moved.window, 10.0, camera=np.array([[0, 0], [0, 1], [0, 2], [0, 3]], float))
    still = frames(moved, 200, range(4))
    rows = [int(np.argmax((image == (255, 0, 0)).all(-1).any(1))) for image in still]
    assert len(set(rows)) == 1


def test_a_gif_keeps_the_time_of_the_film() -> None:
    for fps, stride, milliseconds in ((10.0, 1, 100), (50.0, 2, 40), (500.0, 20, 40)):
        image = Image.open(io.BytesIO(make_gif(film(40, fps), 80)))
        assert (image.n_frames, image.info["duration"], image.size) == (40 // stride, milliseconds, (80, 90))
    assert Image.open(io.BytesIO(make_gif(film(40), 80, max_frames=10))).n_frames == 10


def test_roles_have_colours_on_both_grounds() -> None:
    assert on_light("accent") == "#d55e00" and on_light("#123456") == "#123456"
