"""Bodies of Brax and MuJoCo: the geometry of their models, placed by recorded poses and projected onto a plane."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np

from envs.brax import BraxEnvironment
from envs.gymnasium import GymnasiumEnvironment
from envs.playground import PlaygroundEnvironment
from experiments.report.film import Circles, Film, Part, Polygon, Segments
from experiments.report.scenes.projection import Projection, outlines, rotations
from experiments.report.scenes.scene import Episode, Scene
from hades.types import AnyEnvironment

# Numbers of MuJoCo's mjtGeom.
_PLANE, _HEIGHT_FIELD, _SPHERE, _CAPSULE, _ELLIPSOID, _CYLINDER, _BOX, _MESH = range(8)
# Groups from here on are not shown by MuJoCo's own viewer: geometry that only collides.
_HIDDEN_GROUPS = 3
_DEFAULT_COLOR = (0.5, 0.5, 0.5)
_DARKER = 0.82
_MAX_GRID_LINES = 120
_WIDEST = 2.0
"""Least width of the window over its height."""


def scene_of(env: AnyEnvironment) -> Scene | None:
    """Scene of an environment of Brax or Playground, or of gymnasium where MuJoCo simulates it; None of all others."""
    if isinstance(env, BraxEnvironment):
        simulator = env.simulator
        return Scene(partial(draw, simulator.sys.mj_model, float(simulator.dt)), _brax_poses)
    if isinstance(env, PlaygroundEnvironment):
        return Scene(partial(draw, env.simulator.mj_model, float(env.simulator.dt)), _playground_poses)
    if isinstance(env, GymnasiumEnvironment):
        simulator = env.take()
        env.idle.append(simulator)
        inner = simulator.unwrapped
        if hasattr(inner, "model") and hasattr(inner, "data") and hasattr(inner.data, "xquat"):
            return Scene(partial(draw, inner.model, float(inner.dt)), _mujoco_poses)
    return None


def _brax_poses(states: Any) -> tuple[jnp.ndarray, jnp.ndarray]:
    """Positions `[envs, bodies, 3]` and quaternions `[envs, bodies, 4]`; the world, body 0, is no link of Brax."""
    poses = getattr(states.physics, "pipeline_state", states.physics).x
    world = jnp.zeros((len(poses.pos), 1, 3)), jnp.tile(jnp.array([1.0, 0.0, 0.0, 0.0]), (len(poses.pos), 1, 1))
    return jnp.concatenate([world[0], poses.pos], 1), jnp.concatenate([world[1], poses.rot], 1)


def _playground_poses(states: Any) -> tuple[jnp.ndarray, jnp.ndarray]:
    """The same of MJX, whose body 0 is the world."""
    return states.simulation.data.xpos, states.simulation.data.xquat


def _mujoco_poses(simulator: Any) -> tuple[np.ndarray, np.ndarray]:
    """The same of the episodes of gymnasium."""
    data = [env.unwrapped.data for env in simulator.simulators]
    return np.stack([one.xpos for one in data]), np.stack([one.xquat for one in data])


@dataclass(frozen=True)
class _Shape:
    """One piece of geometry over time.

    Attributes:
        body: Number of its body.
        points: What spans it in space, `[time, points, 3]`: the ends of a capsule, the centre of a sphere, or points of
            the surface.
        radius: Of capsules and spheres; 0 where the points are of the surface.
        color: `#rrggbb`, or a key of the film's colours.
        moves: Whether it does.
    """

    body: int
    points: np.ndarray
    radius: float
    color: str
    moves: bool

    def part(self, flat: np.ndarray) -> Part:
        """The primitive of these points after projection, `[time, points, 2]`."""
        if not self.moves:
            flat = flat[:1]
        if self.radius and self.points.shape[1] == 1:
            return Circles(flat, self.radius, self.color)
        if self.radius:
            return Segments(flat[:, None], self.color, 2 * self.radius)
        return Polygon(outlines(flat), self.color)


def draw(model: Any, seconds_per_step: float, episode: Episode) -> Film:
    """Projects a body, seen from the side or from above where it moves in that plane alone, otherwise obliquely.

    Args:
        model: `mujoco.MjModel`.
        seconds_per_step: Simulated seconds between frames.
        episode: Its views are positions `[time, bodies, 3]` and unit quaternions `[time, bodies, 4]`.
    """
    positions, quaternions = (np.asarray(view, np.float64) for view in episode.views)
    shapes = _shapes(model, positions, rotations(quaternions))
    projection = Projection.of_motion(positions)
    placed = [(shape, projection.flat(shape.points)) for shape in shapes]
    camera = _camera(model, projection, positions, placed)
    window = _window(placed, camera)
    floor = _floor_height(model)
    parts: list[Part] = []
    # One far below is not where anything stands.
    if floor is not None and projection.name != "above" and window[1] - floor < window[3] / 2:
        window, grid = _floor(projection, floor, positions, camera, window)
        parts += grid
    # The farthest first.
    order = sorted(placed, key=lambda pair: -float(projection.depth(pair[0].points).mean()))
    parts += [shape.part(flat) for shape, flat in order]
    follows = "" if camera is None else "; the camera follows the body"
    note = f"{projection.note}{follows}."
    return Film(tuple(parts), len(positions), window, 1 / seconds_per_step, camera, note=note)


def _shapes(model: Any, positions: np.ndarray, turned: np.ndarray) -> list[_Shape]:
    shapes = []
    for index in range(model.ngeom):
        local, radius = _local_points(model, index)
        rgba = model.geom_rgba[index]
        if local is None or rgba[3] == 0 or model.geom_group[index] >= _HIDDEN_GROUPS:
            continue
        body = int(model.geom_bodyid[index])
        own = rotations(model.geom_quat[index])
        in_body = local @ own.T + model.geom_pos[index]
        points = np.einsum("tij,pj->tpi", turned[:, body], in_body) + positions[:, None, body]
        moves = bool(np.ptp(points, axis=0).max() > 1e-6)
        shapes.append(_Shape(body, points, radius, _color(rgba[:3], body), moves))
    return shapes


def _local_points(model: Any, index: int) -> tuple[np.ndarray | None, float]:
    """Points that span a geom in its own frame, `[points, 3]`, and its radius; None for the ground."""
    kind, size = int(model.geom_type[index]), model.geom_size[index]
    if kind == _SPHERE:
        return np.zeros((1, 3)), float(size[0])
    if kind == _CAPSULE:
        return np.array([[0, 0, -size[1]], [0, 0, size[1]]]), float(size[0])
    if kind == _ELLIPSOID:
        return _unit_sphere() * size, 0.0
    if kind == _CYLINDER:
        angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        x, y = size[0] * np.cos(angles), size[0] * np.sin(angles)
        return np.concatenate([np.stack([x, y, np.full_like(x, end)], 1) for end in (-size[1], size[1])]), 0.0
    if kind == _BOX:
        signs = np.stack(np.meshgrid(*[[-1, 1]] * 3, indexing="ij"), -1).reshape(-1, 3)
        return signs * size, 0.0
    if kind == _MESH:
        mesh = int(model.geom_dataid[index])
        first = int(model.mesh_vertadr[mesh])
        vertices = np.asarray(model.mesh_vert[first : first + int(model.mesh_vertnum[mesh])], np.float64)
        # The corners of its convex hull in a few directions.
        return vertices[np.unique(np.argmax(_unit_sphere() @ vertices.T, axis=1))], 0.0
    return None, 0.0


def _unit_sphere(count: int = 96) -> np.ndarray:
    """Points spread evenly over the unit sphere (Fibonacci lattice), `[count, 3]`."""
    index = np.arange(count) + 0.5
    height, angle = 1 - 2 * index / count, np.pi * (1 + 5**0.5) * index
    ring = np.sqrt(1 - height**2)
    return np.stack([ring * np.cos(angle), ring * np.sin(angle), height], 1)


def _color(rgb: Sequence[float], body: int) -> str:
    """The model's own colour, of every other body a little darker, so that limbs stand out."""
    if np.allclose(rgb, _DEFAULT_COLOR):
        return "body" if body % 2 else "muted"
    shade = 1.0 if body % 2 else _DARKER
    return "#" + "".join(f"{int(np.clip(round(255 * shade * value), 0, 255)):02x}" for value in rgb)


def _camera(
    model: Any, projection: Projection, positions: np.ndarray, placed: Sequence[tuple[_Shape, np.ndarray]]
) -> np.ndarray | None:
    """Shifts `[time, 2]` that keep a body in view which walks farther than it is wide; None of one that stays."""
    moving = [index for index in range(model.nbody) if model.body_jntnum[index]]
    if not moving:
        return None
    path = projection.flat(positions[:, moving[:1]])[:, 0]
    of_tree = [flat[:1] for shape, flat in placed if model.body_rootid[shape.body] == model.body_rootid[moving[0]]]
    extent = np.ptp(np.concatenate(of_tree, 1), axis=(0, 1)).max() if of_tree else 0.0
    if np.ptp(path, axis=0).max() <= extent:
        return None
    # From the side the ground stays where it is.
    return path * [1.0, 0.0] if projection.name == "side" else path


def _window(
    placed: Sequence[tuple[_Shape, np.ndarray]], camera: np.ndarray | None
) -> tuple[float, float, float, float]:
    """Window that holds all moving shapes, and without a camera the others too."""
    shift: Any = 0.0 if camera is None else camera[:, None]
    seen = [(shape, flat - shift) for shape, flat in placed if shape.moves or camera is None]
    low = np.min([(flat - shape.radius).min(axis=(0, 1)) for shape, flat in seen], axis=0)
    high = np.max([(flat + shape.radius).max(axis=(0, 1)) for shape, flat in seen], axis=0)
    margin = 0.08 * float((high - low).max())
    low, high = low - margin, high + margin
    width, height = high - low
    wider = max(_WIDEST * height - width, 0.0) / 2
    return float(low[0] - wider), float(low[1]), float(width + 2 * wider), float(height)


def _floor_height(model: Any) -> float | None:
    heights = [float(model.geom_pos[index][2]) for index in range(model.ngeom) if model.geom_type[index] == _PLANE]
    return max(heights, default=None)


def _floor(
    projection: Projection,
    height: float,
    positions: np.ndarray,
    camera: np.ndarray | None,
    window: tuple[float, float, float, float],
) -> tuple[tuple[float, float, float, float], list[Part]]:
    """The ground, with marks a metre or more apart, and the window with the ground in it."""
    left, bottom, width, tall = window
    path = np.zeros((1, 2)) if camera is None else camera
    first, last = path[:, 0].min() + left, path[:, 0].max() + left + width
    spacing = max(1.0, float(np.ceil((last - first) / _MAX_GRID_LINES)))
    if projection.name == "side":
        level = height - 0.06 * tall
        window = (left, min(bottom, level), width, bottom + tall - min(bottom, level))
        marks = np.arange(np.floor(first), last + 1, spacing)
        ticks = np.array([[[x, height], [x, height - 0.04 * tall]] for x in marks])
        ground = np.array([[[first - width, height], [last + width, height]]])
        return window, [Segments(ground[None], "muted"), Segments(ticks[None], "muted")]
    reach = width
    low = np.floor(positions[:, 1:, :2].min(axis=(0, 1)) - reach)
    high = np.ceil(positions[:, 1:, :2].max(axis=(0, 1)) + reach)
    lines = []
    for axis in (0, 1):
        for place in np.arange(low[axis], high[axis] + 1, spacing):
            ends = np.array([low, high])
            ends[:, axis] = place
            lines.append(np.column_stack([ends, [height, height]]))
    return window, [Segments(projection.flat(np.array(lines))[None], "faint")]
