"""Names of the components of observations and actions, for figures and reports.

Those of the Brax robots are read from the robots' own MuJoCo files, without importing Brax; gymnasium's Hopper,
HalfCheetah and Walker2d have the same.

>>> from envs import action_names, observation_names
>>> observation_names("gymnax/CartPole-v1")
('cart position', 'cart velocity', 'pole angle', 'pole angular velocity')
>>> action_names("gymnax/CartPole-v1")
('push left', 'push right')
>>> print(observation_names("diagnostic/match"))
None
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from envs._noise import quiet_load

IMAGES_PREFIX = "images/"
"""Beginning of the names of environments whose observations are labelled images."""


def measure_of(env: str) -> str:
    """The word for what episodes of an environment are scored by, which is an accuracy where they are images.

    Example:
        >>> measure_of("images/mnist"), measure_of("brax/hopper")
        ('accuracy', 'return')
    """
    return "accuracy" if env.startswith(IMAGES_PREFIX) else "return"


_OBSERVATIONS: Mapping[str, tuple[str, ...]] = {
    "gymnax/CartPole-v1": ("cart position", "cart velocity", "pole angle", "pole angular velocity"),
    "gymnax/Acrobot-v1": (
        "cos joint 1",
        "sin joint 1",
        "cos joint 2",
        "sin joint 2",
        "joint 1 angular velocity",
        "joint 2 angular velocity",
    ),
    "gymnax/Pendulum-v1": ("cos angle", "sin angle", "angular velocity"),
    "gymnax/MountainCar-v0": ("position", "velocity"),
    "gymnax/MountainCarContinuous-v0": ("position", "velocity"),
    "playground/BallInCup": (
        "cup x",
        "cup z",
        "ball x",
        "ball z",
        "cup x velocity",
        "cup z velocity",
        "ball x velocity",
        "ball z velocity",
    ),
    "playground/FingerSpin": (
        "proximal angle",
        "distal angle",
        "spinner to tip x",
        "spinner to tip z",
        "proximal angular velocity",
        "distal angular velocity",
        "hinge angular velocity",
        "log touch top",
        "log touch bottom",
    ),
}

_ACTIONS: Mapping[str, tuple[str, ...]] = {
    "gymnax/CartPole-v1": ("push left", "push right"),
    "gymnax/Acrobot-v1": ("torque -1", "no torque", "torque +1"),
    "gymnax/Pendulum-v1": ("torque",),
    "gymnax/MountainCar-v0": ("push left", "no push", "push right"),
    "gymnax/MountainCarContinuous-v0": ("force",),
    "gymnax/Asterix-MinAtar": ("stay", "left", "up", "right", "down"),
    "gymnax/Breakout-MinAtar": ("stay", "left", "right"),
    "gymnax/Freeway-MinAtar": ("stay", "up", "down"),
    "gymnax/Seaquest-MinAtar": ("stay", "left", "up", "right", "down", "fire"),
    "gymnax/SpaceInvaders-MinAtar": ("stay", "left", "right", "fire"),
    "images/cifar10": ("airplane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    "images/fashion": ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot"),
    "images/mnist": tuple("0123456789"),
    "playground/BallInCup": ("force x", "force z"),
    "playground/FingerSpin": ("torque proximal", "torque distal"),
}

_CHANNELS: Mapping[str, tuple[str, ...]] = {
    "gymnax/Asterix-MinAtar": ("player", "enemy", "trail", "gold"),
    "gymnax/Breakout-MinAtar": ("paddle", "ball", "trail", "brick"),
    "gymnax/Freeway-MinAtar": ("chicken", "car", "speed 1", "speed 2", "speed 3", "speed 4", "speed 5"),
    "gymnax/Seaquest-MinAtar": (
        "submarine front",
        "submarine back",
        "friendly bullet",
        "trail",
        "enemy bullet",
        "enemy fish",
        "enemy submarine",
        "oxygen gauge",
        "diver gauge",
        "diver",
    ),
    "gymnax/SpaceInvaders-MinAtar": (
        "cannon",
        "alien",
        "alien moving left",
        "alien moving right",
        "friendly bullet",
        "enemy bullet",
    ),
}


def observation_names(name: str) -> tuple[str, ...] | None:
    """Names the components of an environment's observation, in order.

    Args:
        name: With the family, such as `"brax/hopper"`.

    Returns:
        As many names as the observation has components, or None where none are known.
    """
    name = _SAME_AS.get(name, name)
    robot = _BRAX.get(name)
    return _OBSERVATIONS.get(name) if robot is None else robot(_robot_names(name))


def action_names(name: str) -> tuple[str, ...] | None:
    """Names the discrete actions, or the components of a continuous one, in order.

    Args:
        name: With the family, such as `"brax/hopper"`.

    Returns:
        As many names as there are actions or components, or None where none are known.
    """
    name = _SAME_AS.get(name, name)
    return _robot_names(name).actuated if name in _BRAX else _ACTIONS.get(name)


def channel_names(name: str) -> tuple[str, ...] | None:
    """Names the channels, the last axis, of an environment that shows images.

    Args:
        name: With the family, such as `"gymnax/Breakout-MinAtar"`.

    Returns:
        As many names as there are channels, or None where none are known.
    """
    return _CHANNELS.get(name)


@dataclass(frozen=True)
class _RobotNames:
    """Names in a robot's MuJoCo file.

    Attributes:
        positions: Each generalised position; a free joint has seven, the last four a quaternion.
        velocities: Each generalised velocity; a free joint has six.
        degrees: Each degree of freedom, without a unit.
        links: Each body that can move against its parent.
        actuated: The joint of each actuator.
    """

    positions: tuple[str, ...]
    velocities: tuple[str, ...]
    degrees: tuple[str, ...]
    links: tuple[str, ...]
    actuated: tuple[str, ...]


def _robot_names(name: str) -> _RobotNames:
    """Reads the names from the file of a Brax robot, which takes milliseconds."""
    import mujoco

    package = importlib.util.find_spec("brax")
    if package is None or package.submodule_search_locations is None:
        raise ModuleNotFoundError(f"the names of {name} are read from brax, which is not installed")
    file_name = {"brax/halfcheetah": "half_cheetah"}.get(name, name.removeprefix("brax/"))
    path = Path(next(iter(package.submodule_search_locations)), "envs", "assets", f"{file_name}.xml")
    with quiet_load():
        model = mujoco.MjModel.from_xml_path(str(path))
    positions: list[str] = []
    velocities: list[str] = []
    degrees: list[str] = []
    for index in range(model.njnt):
        joint = model.joint(index).name
        if model.jnt_type[index] == mujoco.mjtJoint.mjJNT_FREE:
            positions += [f"{joint} {axis}" for axis in "xyz"] + [f"{joint} quaternion {axis}" for axis in "wxyz"]
            velocities += [f"{joint} {axis} velocity" for axis in "xyz"]
            velocities += [f"{joint} {axis} angular velocity" for axis in "xyz"]
            degrees += [f"{joint} {axis}" for axis in "xyz"] + [f"{joint} {axis} rotation" for axis in "xyz"]
        else:
            slides = model.jnt_type[index] == mujoco.mjtJoint.mjJNT_SLIDE
            positions.append(f"{joint} {'position' if slides else 'angle'}")
            velocities.append(f"{joint} {'velocity' if slides else 'angular velocity'}")
            degrees.append(joint)
    return _RobotNames(
        positions=tuple(positions),
        velocities=tuple(velocities),
        degrees=tuple(degrees),
        links=tuple(model.body(index).name for index in range(model.nbody) if model.body_jntnum[index]),
        actuated=tuple(model.joint(model.actuator_trnid[index, 0]).name for index in range(model.nu)),
    )


def _without(skipped: int) -> Callable[[_RobotNames], tuple[str, ...]]:
    """Positions, less the first so many (where the robot is does not matter to it), then velocities."""
    return lambda robot: robot.positions[skipped:] + robot.velocities


def _upright(robot: _RobotNames) -> tuple[str, ...]:
    """Brax shows the height of the torso in place of the second position."""
    return ("torso height", *robot.positions[2:], *robot.velocities)


def _humanoid(robot: _RobotNames) -> tuple[str, ...]:
    inertia = [f"inertia {row}{column}" for row in "xyz" for column in "xyz"] + ["mass"]
    motion = [f"{axis} velocity" for axis in "xyz"] + [f"{axis} angular velocity" for axis in "xyz"]
    return (
        *robot.positions[2:],
        *robot.velocities,
        *(f"{link} {quantity}" for link in robot.links for quantity in inertia),
        *(f"{link} {quantity}" for link in robot.links for quantity in motion),
        *(f"{degree} actuator force" for degree in robot.degrees),
    )


def _double_pendulum(robot: _RobotNames) -> tuple[str, ...]:
    hinges = robot.degrees[1:]
    sines, cosines = (tuple(f"{function} {hinge}" for hinge in hinges) for function in ("sin", "cos"))
    return (robot.positions[0], *sines, *cosines, *robot.velocities)


def _reacher(robot: _RobotNames) -> tuple[str, ...]:
    joints, target = robot.degrees[:2], robot.positions[2:]
    cosines, sines = (tuple(f"{function} {joint}" for joint in joints) for function in ("cos", "sin"))
    offsets = tuple(f"fingertip to target {axis}" for axis in "xyz")
    return (*cosines, *sines, *target, "fingertip x velocity", "fingertip y velocity", *offsets)


def _pusher(robot: _RobotNames) -> tuple[str, ...]:
    places = tuple(f"{thing} {axis}" for thing in ("fingertip", "object", "goal") for axis in "xyz")
    return robot.positions[:7] + robot.velocities[:7] + places


_SAME_AS: Mapping[str, str] = {
    f"gymnasium/{body}-v{version}": f"brax/{body.lower()}"
    for body in ("HalfCheetah", "Hopper", "Walker2d")
    for version in (4, 5)
}

_BRAX: Mapping[str, Callable[[_RobotNames], tuple[str, ...]]] = {
    "brax/ant": _without(2),
    "brax/halfcheetah": _without(1),
    "brax/hopper": _upright,
    "brax/humanoid": _humanoid,
    "brax/humanoidstandup": _humanoid,
    "brax/inverted_double_pendulum": _double_pendulum,
    "brax/inverted_pendulum": _without(0),
    "brax/pusher": _pusher,
    "brax/reacher": _reacher,
    "brax/swimmer": _without(2),
    "brax/walker2d": _upright,
}
