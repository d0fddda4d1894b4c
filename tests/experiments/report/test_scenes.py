"""Drawings against the geometry that is known of each environment."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

import envs
from experiments.report.film import Cells, Circles, Film, Label, Polygon, Segments
from experiments.report.scenes import scene_of
from experiments.report.scenes.projection import Projection
from experiments.report.scenes.scene import Episode


def drawn(name: str, observations: list[list[float]], **options: Any) -> Film:
    scene = scene_of(envs.make(name, **options))
    assert scene.draw_observations is not None
    return scene.draw_observations(np.array(observations))


def segments(film: Film) -> list[Segments]:
    return [part for part in film.parts if isinstance(part, Segments)]


def episode(observations: np.ndarray, views: Any = ()) -> Episode:
    return Episode(observations, np.zeros((len(observations), 1)), np.zeros(len(observations)), views)


def test_the_pole_stands_on_the_cart_at_its_angle_and_has_its_length() -> None:
    film = drawn("gymnax/CartPole-v1", [[0, 0, 0, 0], [1.0, 0, 0.3, 0]], length=0.7)
    pole = segments(film)[-1].points
    np.testing.assert_allclose(pole[0, 0, 1] - pole[0, 0, 0], [0, 1.4])
    np.testing.assert_allclose(pole[1, 0, 1] - pole[1, 0, 0], [1.4 * np.sin(0.3), 1.4 * np.cos(0.3)])
    np.testing.assert_allclose(pole[:, 0, 0, 0], [0.0, 1.0])
    (cart,) = [part for part in film.parts if isinstance(part, Polygon)]
    np.testing.assert_allclose(cart.points.mean(1)[:, 0], [0.0, 1.0])
    assert film.frames_per_second == pytest.approx(50) and film.num_frames == 2
    assert film.window[0] < -2.4 and film.window[0] + film.window[2] > 2.4


def test_a_synthetic_cart_far_beyond_the_track_is_in_the_window() -> None:
    left, _, width, _ = drawn("gymnax/CartPole-v1", [[-9.0, 0, 0, 0]]).window
    assert left < -9.25 and left + width > 9.25


def test_acrobot_hangs_folds_and_stands() -> None:
    hanging, standing = [1, 0, 1, 0, 0, 0], [-1, 0, 1, 0, 0, 0]
    bent = [0, 1, 0, 1, 0, 0]  # both joints at a right angle: out to the right, then up
    film = drawn("gymnax/Acrobot-v1", [hanging, standing, bent])
    goal, first, second = (part.points[:, 0] for part in segments(film))
    np.testing.assert_allclose(first[:, 1], [[0, -1], [0, 1], [1, 0]], atol=1e-9)
    np.testing.assert_allclose(second[:, 1], [[0, -2], [0, 2], [1, 1]], atol=1e-9)
    assert goal[0, :, 1].tolist() == [1, 1]


def test_the_pendulum_is_upright_at_angle_zero_and_turns_counterclockwise() -> None:
    arm = segments(drawn("gymnax/Pendulum-v1", [[1, 0, 0], [0, 1, 0]]))[-1].points
    np.testing.assert_allclose(arm[:, 0, 1], [[0, 1], [-1, 0]], atol=1e-9)


def test_the_car_stands_on_the_hill_and_the_flag_at_the_goal() -> None:
    film = drawn("gymnax/MountainCar-v0", [[-np.pi / 6, 0.0], [0.5, 0.0]])
    (car,) = [part for part in film.parts if isinstance(part, Circles)]
    # The valley is at -pi / 6, where the ground is level and 0.1 high.
    np.testing.assert_allclose(car.centers[0, 0], [-np.pi / 6, 0.1 + car.radius], atol=1e-9)
    distance = np.linalg.norm(car.centers[1, 0] - [0.5, 0.45 * np.sin(1.5) + 0.55])
    assert distance == pytest.approx(car.radius)
    assert segments(film)[1].points[0, 0, :, 0].tolist() == [0.5, 0.5]


def test_cells_show_the_strongest_channel_and_their_legend_names_it() -> None:
    state = np.zeros((10, 10, 4))
    state[3, 2, 1], state[0, 9, 3], state[5, 5] = 1.0, 1.0, [0.2, 0.4, 0.1, 0.0]
    film = drawn("gymnax/Breakout-MinAtar", [state.tolist()])
    (cells,) = film.parts
    assert isinstance(cells, Cells) and cells.opacity is not None
    assert (cells.indices[0, 3, 2], cells.indices[0, 0, 9], cells.indices[0, 5, 5]) == (1, 3, 1)
    assert cells.opacity[0, 5, 5] == pytest.approx(0.4) and (cells.indices >= 0).sum() == 3
    assert list(film.legend) == ["paddle", "ball", "trail", "brick"]
    state[5, 5] = 0
    (cells,) = drawn("gymnax/Breakout-MinAtar", [state.tolist()]).parts
    assert isinstance(cells, Cells) and cells.opacity is None


@pytest.mark.parametrize("name", ["Hopper-v4", "HalfCheetah-v5", "Ant-v5"])
def test_bodies_of_mujoco_are_where_mujoco_has_them(name: str) -> None:
    pytest.importorskip("gymnasium", reason="gymnasium is of the extra mujoco")
    env = envs.make(f"gymnasium/{name}")
    scene = scene_of(env)
    simulator = env.simulate(np.array([1, 2]))
    views, places = [], []
    for _ in range(12):
        views.append([view[0] for view in scene.view(simulator)])
        places.append(simulator.simulators[0].unwrapped.data.geom_xpos.copy())
        simulator.step(np.full((2, len(env.action_space.low)), 0.7))
    poses = tuple(np.stack(column) for column in zip(*views, strict=True))
    film = scene.draw(episode(np.zeros((12, *env.observation_shape)), poses))
    model = simulator.simulators[0].unwrapped.model
    projection = Projection.of_motion(poses[0])
    assert projection.name == ("oblique" if name == "Ant-v5" else "side")
    # Geometry but the floor: capsules centred between their ends, and spheres.
    centers = [part.points.mean((1, 2)) for part in segments(film) if len(part.points) == 12]
    centers += [part.centers[:, 0] for part in film.parts if isinstance(part, Circles)]
    assert len(centers) == model.ngeom - 1
    for index in range(1, model.ngeom):
        expected = projection.flat(np.stack(places)[:, index])
        assert min(np.abs(center - expected).max() for center in centers) < 1e-6
    assert film.frames_per_second == pytest.approx(1 / simulator.simulators[0].unwrapped.dt)


def test_the_camera_follows_a_body_that_walks_and_not_one_that_stays() -> None:
    pytest.importorskip("gymnasium", reason="gymnasium is of the extra mujoco")
    scene = scene_of(env := envs.make("gymnasium/Hopper-v4"))
    positions, quaternions = (view[:1] for view in scene.view(env.simulate(np.array([0]))))
    walk = np.linspace(0, 1, 20)[:, None, None] * [1.0, 0, 0]
    moving = np.arange(positions.shape[1])[:, None] > 0
    turned = np.repeat(quaternions, 20, 0)
    observations = np.zeros((20, 11))
    still = scene.draw(episode(observations, (positions + walk * moving * 0.1, turned)))
    walking = scene.draw(episode(observations, (positions + walk * moving * 9, turned)))
    assert still.camera is None and walking.camera is not None
    np.testing.assert_allclose(walking.camera[:, 0] - walking.camera[0, 0], 9 * walk[:, 0, 0])
    assert not walking.camera[:, 1].any() and walking.window[2] < 5


@pytest.mark.slow  # Tracing and compiling Brax takes a while.
def test_bodies_of_brax_are_where_its_model_has_them() -> None:
    import mujoco

    env = envs.make("brax/hopper")
    states, _ = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(0), 2))
    model = env.simulator.sys.mj_model
    data = mujoco.MjData(model)
    positions, quaternions = map(np.asarray, scene_of(env).view(states))
    data.qpos[:] = np.asarray(states.physics.q[1])
    mujoco.mj_kinematics(model, data)
    np.testing.assert_allclose(positions[1], data.xpos, atol=1e-4)
    np.testing.assert_allclose(np.abs(np.sum(quaternions[1] * data.xquat, axis=-1)), 1.0, atol=1e-4)


def test_an_environment_that_cannot_be_drawn_becomes_curves_and_says_so() -> None:
    scene = scene_of(envs.make("diagnostic/match", num_actions=12))
    assert scene.draw_observations is None
    observations = np.zeros((5, 12))
    observations[:, 7], observations[:, 2] = np.arange(5), [0, 1, 0, 1, 0]
    film = scene.draw(Episode(observations, np.array([0, 1, 2, 1, 0]), np.zeros(5)))
    assert "cannot be drawn" in film.note and "10 of 12" in film.note
    names = [part.text for part in film.parts if isinstance(part, Label)]
    assert len(names) == 11 and names[-1] == "action" and {"obs 2", "obs 7"} <= set(names)
    rising = segments(film)[2 * names.index("obs 7") + 1].points[0]
    assert (np.diff(rising[:, 0, 1]) > 0).all()
    cursor = segments(film)[-1].points[:, 0, 0, 0]
    assert (np.diff(cursor) > 0).all() and len(cursor) == film.num_frames == 5
