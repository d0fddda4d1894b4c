"""Gymnasium environments, real MuJoCo among them: simulated on the host, for evaluation and for collecting data."""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from envs._noise import quiet_gymnasium
from envs._shared import bounded, check_count, freeze, keyword_names, make_simulator, thaw
from hades._observations import require_parts, select
from hades.types import Continuous, HostStep

_EXTRA = "pip install 'hades-distillation[mujoco]'"
_ROBOTICS = "gymnasium_robotics"
# Names that this module registers; any other module of that kind is the option `module`.
_OF_ROBOTICS = ("Adroit", "AntMaze", "Fetch", "FrankaKitchen", "HandManipulate", "HandReach", "PointMaze")

# Known without asking gymnasium, whose import takes a while; any other that has boxes for observations and actions can
# be made too.
_NAMES = (
    "Ant-v4",
    "Ant-v5",
    "HalfCheetah-v4",
    "HalfCheetah-v5",
    "Hopper-v4",
    "Hopper-v5",
    "Humanoid-v4",
    "Humanoid-v5",
    "HumanoidStandup-v4",
    "HumanoidStandup-v5",
    "InvertedDoublePendulum-v4",
    "InvertedDoublePendulum-v5",
    "InvertedPendulum-v4",
    "InvertedPendulum-v5",
    "Pusher-v5",
    "Reacher-v4",
    "Reacher-v5",
    "Swimmer-v4",
    "Swimmer-v5",
    "Walker2d-v4",
    "Walker2d-v5",
)


@dataclass(frozen=True)
class GymnasiumEnvironment:
    """A gymnasium environment as hades sees it, on the host. Two of the same name, limit and keywords are equal.

    Attributes:
        name: Such as `"gymnasium/Hopper-v4"`.
        observation_shape: Shape of one observation.
        action_space: `Continuous` with the bounds of gymnasium, flattened.
        max_steps: Steps after which an episode is truncated.
        default_max_steps: What that is by default, None where gymnasium has no limit.
        keywords: The options that were given besides the limit, by name: `module`, `observation_keys`, and keyword
            arguments of gymnasium's environment.
        idle: Simulators without a living episode, which the next ones take over.
    """

    name: str
    observation_shape: tuple[int, ...]
    action_space: Continuous
    max_steps: int
    default_max_steps: int | None
    keywords: tuple[tuple[str, Any], ...]
    idle: list[Any] = field(compare=False, repr=False)

    @property
    def options(self) -> Mapping[str, Any]:
        """The keywords that were given, and `max_steps` where it is not the default."""
        return thaw(self.keywords, self.max_steps, self.default_max_steps)

    def simulate(self, seeds: np.ndarray) -> GymnasiumSimulator:
        """Begins one episode for each of gymnasium's seeds, `[episodes]` unsigned integers."""
        return GymnasiumSimulator(self, seeds)

    def take(self) -> Any:
        """A gymnasium environment for one episode."""
        return self.idle.pop() if self.idle else _make(self.name, self.max_steps, dict(self.keywords))

    @functools.cached_property
    def observation_keys(self) -> tuple[str, ...] | None:
        """Parts of observations that are dictionaries; None where they are none."""
        return dict(self.keywords).get("observation_keys")

    def read(self, observation: Any) -> np.ndarray:
        """One observation as numbers; of a dictionary its chosen parts, one behind the other."""
        return select(observation, self.observation_keys) if self.observation_keys else np.asarray(observation)


class GymnasiumSimulator:
    """Episodes side by side in one thread, a `hades.types.HostSimulator`.

    Attributes:
        simulators: Gymnasium's environment of each episode; of one that has ended it may begin another.
        observations: Of the present states, `[episodes, *observation_shape]` float32.
        alive: Which episodes have not ended, `[episodes]` bool.
    """

    def __init__(self, env: GymnasiumEnvironment, seeds: np.ndarray) -> None:
        """Begins an episode for each of the seeds `[episodes]`."""
        self._env = env
        self.simulators = [env.take() for _ in seeds]
        self._low, self._high = (np.asarray(bound) for bound in (env.action_space.low, env.action_space.high))
        self.observations = np.zeros((len(seeds), *env.observation_shape), np.float32)
        self.alive = np.ones(len(seeds), bool)
        for index, seed in enumerate(seeds):
            self.observations[index] = env.read(self.simulators[index].reset(seed=int(seed))[0])

    def step(self, actions: np.ndarray) -> HostStep:
        """Advances every living episode by one step.

        Actions `[episodes, action_dim]` are clipped to the bounds; one that is not finite ends its episode with a
        reward that is not a number.
        """
        rewards = np.zeros(len(self.alive))
        terminated, truncated = np.zeros_like(self.alive), np.zeros_like(self.alive)
        succeeded: np.ndarray | None = None
        finite = np.isfinite(actions).all(axis=1)
        clipped = np.clip(actions, self._low, self._high)
        self.observations = self.observations.copy()
        for index in np.flatnonzero(self.alive):
            if not finite[index]:
                rewards[index], terminated[index] = np.nan, True
                continue
            simulator = self.simulators[index]
            space = simulator.action_space
            action = clipped[index].astype(space.dtype).reshape(space.shape)
            observation, rewards[index], ended, out_of_time, info = simulator.step(action)
            self.observations[index] = self._env.read(observation)
            terminated[index], truncated[index] = ended, out_of_time and not ended
            # Adroit and most others say the first, goal environments the second.
            success = info.get("success", info.get("is_success"))
            if success is not None:
                succeeded = np.zeros_like(self.alive) if succeeded is None else succeeded
                succeeded[index] = bool(success)
        self._release(self.alive & (terminated | truncated))
        return HostStep(self.observations, rewards, terminated, truncated, succeeded)

    def close(self) -> None:
        """Gives up the episodes that are still alive."""
        self._release(self.alive)

    def _release(self, ended: np.ndarray) -> None:
        self._env.idle.extend(self.simulators[index] for index in np.flatnonzero(ended))
        self.alive = self.alive & ~ended


def names() -> tuple[str, ...]:
    """The names of the MuJoCo environments, whether gymnasium is installed or not."""
    return _NAMES


def option_names(name: str) -> tuple[str, ...]:
    """The options that `make` takes for a name without the family, gymnasium's keyword arguments among them."""
    own = ("max_steps", "module", "observation_keys")
    try:
        import gymnasium
        from gymnasium.envs.registration import load_env_creator
    except ModuleNotFoundError:
        return own
    try:
        _register(name, None)
        entry_point = gymnasium.spec(name).entry_point
        creator = load_env_creator(entry_point) if isinstance(entry_point, str) else entry_point
    # `make` says what is missing, such as the module that registers the name.
    except (ImportError, ValueError, gymnasium.error.Error):
        return own
    assert creator is not None  # gymnasium registers nothing without one
    return (*own, *keyword_names(creator, leave_out=("render_mode",)))


def knows(name: str) -> bool:
    """Whether a name without the family is one of `names` or of the extra robotics, or registered with gymnasium."""
    if name in _NAMES or name.startswith(_OF_ROBOTICS):
        return True
    try:
        import gymnasium
    except ModuleNotFoundError:
        return False
    return name in gymnasium.registry


def make(
    name: str,
    max_steps: int | None = None,
    module: str | None = None,
    observation_keys: Sequence[str] | None = None,
    **keywords: Any,
) -> GymnasiumEnvironment:
    """Makes a gymnasium environment.

    Args:
        name: Without the family, such as `"Hopper-v4"`.
        max_steps: Steps after which an episode is truncated; None for gymnasium's own limit.
        module: Module whose import registers the environment, such as `"gymnasium_robotics"`, whose own are found
            without.
        observation_keys: Parts of observations that are dictionaries, one behind the other.
        keywords: Keyword arguments of gymnasium's environment.

    Raises:
        ValueError: If gymnasium, MuJoCo or the module is not installed, `max_steps` is out of range or missing where
            gymnasium has no limit, or observations or actions are not boxes.
    """
    full_name = f"gymnasium/{name}"
    if max_steps is not None:
        max_steps = check_count(full_name, "max_steps", max_steps)
    ours = {"module": module, "observation_keys": observation_keys}
    frozen = freeze(full_name, {**keywords, **{key: value for key, value in ours.items() if value is not None}})
    simulator = _make(full_name, max_steps, dict(frozen))
    default_max_steps = _own_limit(name)
    limit = max_steps or default_max_steps
    if limit is None:
        raise ValueError(f"{full_name} has no limit of its own: expected the option max_steps")
    observation_shape = _observation_shape(full_name, simulator.observation_space, observation_keys)
    from gymnasium.spaces import Box

    if not isinstance(simulator.action_space, Box):
        raise ValueError(f"{full_name} is not supported: its action space is {simulator.action_space!r}, not a Box")
    return GymnasiumEnvironment(
        name=full_name,
        observation_shape=observation_shape,
        action_space=bounded(full_name, simulator.action_space),
        max_steps=limit,
        default_max_steps=default_max_steps,
        keywords=frozen,
        idle=[simulator],
    )


def _observation_shape(full_name: str, space: Any, keys: Sequence[str] | None) -> tuple[int, ...]:
    from gymnasium.spaces import Box, Dict

    parts: dict[str, Any] | None = dict(space.spaces) if isinstance(space, Dict) else None
    if parts is not None and keys:
        require_parts(parts, keys)
        if all(isinstance(parts[key], Box) for key in keys):
            return (sum(math.prod(parts[key].shape) for key in keys),)
    elif isinstance(space, Box):
        if keys:
            raise ValueError(f"observation_keys: expected none, as observations of {full_name} are {space!r}")
        return tuple(space.shape)
    hint = f"; expected observation_keys, some of {', '.join(parts)}" if parts is not None else ""
    raise ValueError(f"{full_name} is not supported: its observation space is {space!r}, not a Box{hint}")


def _register(name: str, module: str | None) -> None:
    """Imports the module that registers an environment.

    Raises:
        ValueError: It is not installed.
    """
    import gymnasium

    module = module or (_ROBOTICS if name.startswith(_OF_ROBOTICS) else None)
    if module is None or (name in gymnasium.registry and module == _ROBOTICS):
        return
    try:
        # A notice of Farama's, on whatever it likes, goes to stderr.
        with quiet_gymnasium(), contextlib.redirect_stderr(io.StringIO()):
            importlib.import_module(module)
    except ImportError as error:
        extra = ": pip install 'hades-distillation[robotics]'" if module == _ROBOTICS else f" ({error})"
        raise ValueError(f"gymnasium/{name} needs the module {module}{extra}") from None


@functools.cache
def _own_limit(name: str) -> int | None:
    import gymnasium

    with quiet_gymnasium():
        limit = gymnasium.spec(name).max_episode_steps
    return None if limit is None else int(limit)


def _make(full_name: str, max_steps: int | None, options: Mapping[str, Any]) -> Any:
    """Makes one gymnasium environment.

    Raises:
        ValueError: It cannot be made, or a package is missing.
    """
    try:
        import gymnasium
    except ModuleNotFoundError:
        raise ValueError(f"{full_name} needs gymnasium and MuJoCo: {_EXTRA}") from None
    name = full_name.partition("/")[2]
    _register(name, options.get("module"))
    keywords = {key: value for key, value in options.items() if key not in ("module", "observation_keys")}
    try:
        with quiet_gymnasium():
            return make_simulator(
                full_name,
                keywords,
                lambda: gymnasium.make(name, max_episode_steps=max_steps, disable_env_checker=True, **keywords),
            )
    except gymnasium.error.DependencyNotInstalled:
        raise ValueError(f"{full_name} needs MuJoCo: {_EXTRA}") from None
    # Assertions are those of environments that do not suit the installed MuJoCo.
    except (ImportError, AssertionError, gymnasium.error.Error) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"{full_name} cannot be made: {reason}") from None
