"""Offline data on device: transitions, one behind the other, in the order in which they were collected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from hades._validation import require_positive
from hades.normalization import Normalizer
from hades.offline._checks import few, finite_float32
from hades.policies import NamedSpaces
from hades.types import Discrete

FLOAT_KEYS = ("observations", "actions", "rewards", "next_observations")
FLAG_KEYS = ("terminals", "timeouts")


class OfflineDataError(ValueError):
    """Error of offline data that do not follow the layout; one sentence names the array and the expectation."""


@struct.dataclass
class Trajectories:
    """First and last transitions of trajectories.

    Attributes:
        starts: Index of the first transition of each, `[trajectories]` int32.
        ends: Index behind the last transition of each, `[trajectories]` int32.
    """

    starts: jax.Array
    ends: jax.Array

    @property
    def lengths(self) -> jax.Array:
        """Transitions of each, `[trajectories]` int32."""
        return self.ends - self.starts


@struct.dataclass
class Transitions:
    """Transitions of one environment; a trajectory ends where `terminals` or `timeouts` is true, or with the data.

    Nothing is checked when one is made; `from_arrays` checks.

    Attributes:
        observations: Raw, before normalisation, `[transitions, *observation_shape]` float32.
        actions: In the environment's units, `[transitions, action_dim]` float32; discrete ones `[transitions]` int32.
        rewards: `[transitions]` float32.
        next_observations: Likewise raw, of the state that followed, never that of a new trajectory,
            `[transitions, *observation_shape]` float32.
        terminals: The trajectory reached an end that is part of the task, `[transitions]` bool.
        timeouts: The trajectory was cut off after this transition, `[transitions]` bool.
        env: Name of the environment, such as `"gymnasium/Hopper-v4"`; None where it is not known.

    Example:
        >>> data = Transitions.from_arrays(
        ...     {"observations": np.float32([[0], [1], [5]]), "actions": np.zeros((3, 1), np.float32),
        ...      "rewards": np.float32([1, 2, 4]), "next_observations": np.float32([[1], [2], [6]]),
        ...      "terminals": np.array([False, True, False]), "timeouts": np.array([False, False, False])})
        >>> data.trajectories().ends.tolist(), data.trajectory_returns().tolist()
        ([2, 3], [3.0, 4.0])
    """

    observations: jax.Array
    actions: jax.Array
    rewards: jax.Array
    next_observations: jax.Array
    terminals: jax.Array
    timeouts: jax.Array
    env: str | None = struct.field(pytree_node=False, default=None)

    @property
    def num_transitions(self) -> int:
        """Number of transitions."""
        return self.rewards.shape[0]

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """Shape of one observation."""
        return tuple(self.observations.shape[1:])

    @property
    def discrete(self) -> bool:
        """Whether actions are discrete."""
        return self.actions.ndim == 1

    @property
    def action_dim(self) -> int:
        """Number of components of an action; 0 of a discrete one."""
        return 0 if self.discrete else self.actions.shape[-1]

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], env: str | None = None) -> Transitions:
        """Checks arrays on the host, by the names of the attributes, and moves them to the device.

        A trajectory also ends where the next observation is not the observation that follows; `timeouts` may be absent.

        Raises:
            OfflineDataError: One is missing, of another shape or type, or holds numbers that are not finite.
        """
        checked = check_arrays(arrays)
        if "next_observations" not in checked:
            raise OfflineDataError(f"next_observations: missing, expected beside {', '.join(checked)}")
        return cls(**{name: jnp.asarray(array) for name, array in checked.items()}, env=env)

    def trajectories(self) -> Trajectories:
        """First and last transitions of trajectories; found on the host, hence not within `jax.jit`."""
        over = np.asarray(self.terminals) | np.asarray(self.timeouts)
        over[-1:] = True
        ends = np.flatnonzero(over).astype(np.int32) + 1
        starts = np.concatenate([np.zeros_like(ends[:1]), ends[:-1]])
        return Trajectories(jnp.asarray(starts), jnp.asarray(ends))

    def trajectory_returns(self) -> jax.Array:
        """Undiscounted return of each trajectory, `[trajectories]` float32.

        Each is summed alone, on the host in float64: differences of one running sum would lose the digits that count.
        """
        starts = np.asarray(self.trajectories().starts)
        if not len(starts):
            return jnp.zeros(0)
        return jnp.asarray(np.add.reduceat(np.asarray(self.rewards), starts, dtype=np.float64), jnp.float32)

    def statistics(self, min_std: float = 1e-3) -> Normalizer:
        """The fixed normalisation that z-scores these observations: (observation - mean) / (std + min_std).

        The sum, rather than the larger one of the two, is what the published teachers were trained with: `obs_std` of
        theirs is that of D4RL's states plus 1e-3. No gain is above 1 / min_std, that of a constant component included,
        which becomes 0 on these observations.

        Args:
            min_std: In the units of the observation.

        Returns:
            Mean and std over transitions, both `[*observation_shape]`, summed on the host in float64.

        Raises:
            ValueError: There are no transitions, or `min_std` is not above 0.
        """
        require_positive("min_std", min_std)
        if not self.num_transitions:
            raise ValueError("transitions: expected at least one, got none")
        observations = np.asarray(self.observations)
        mean = observations.mean(axis=0, dtype=np.float64)
        std = observations.std(axis=0, dtype=np.float64) + min_std
        return Normalizer("fixed", jnp.asarray(mean, jnp.float32), jnp.asarray(std, jnp.float32))

    def take(self, indices: jax.Array) -> Transitions:
        """The transitions at `indices` `[count]`, in this order.

        Ends of trajectories mean what they did only where whole trajectories are taken in order.
        """
        return jax.tree.map(lambda leaf: jnp.take(leaf, indices, axis=0), self)

    def random_subset(self, key: jax.Array, num_transitions: int) -> Transitions:
        """As many transitions, drawn without replacement, in random order.

        Raises:
            ValueError: There are fewer.
        """
        if not 0 < num_transitions <= self.num_transitions:
            raise ValueError(f"num_transitions: expected 1 to {self.num_transitions}, got {num_transitions}")
        return self.take(jax.random.choice(key, self.num_transitions, (num_transitions,), replace=False))

    @staticmethod
    def concatenate(parts: Sequence[Transitions]) -> Transitions:
        """All transitions of the parts, one part behind the other.

        A trajectory that ends with the data of its part is marked as timed out there, so that it does not run on into
        the next part. A part of an unknown environment is taken to be of that of the others.

        Raises:
            ValueError: There is no part, or they are of several environments or shapes.
        """
        if not parts:
            raise ValueError("parts: expected at least one, got none")
        for index, part in enumerate(parts):
            found, expected = ((p.observation_shape, p.action_dim) for p in (part, parts[0]))
            if found != expected:
                raise ValueError(
                    f"parts[{index}]: expected observations of shape {expected[0]} and {expected[1]} action components "
                    f"as in the first part, got {found[0]} and {found[1]}"
                )
        names = list(dict.fromkeys(part.env for part in parts if part.env is not None))
        if len(names) > 1:
            raise ValueError(f"parts: expected transitions of one environment, got {', '.join(names)}")
        closed = [
            replace(
                part,
                env=names[0] if names else None,
                timeouts=part.timeouts.at[-1:].set(~part.terminals[-1:] | part.timeouts[-1:]),
            )
            for part in parts
        ]
        return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *closed)

    def check_fits(self, env: NamedSpaces) -> None:
        """Refuses an environment whose observations or actions have other shapes.

        Raises:
            OfflineDataError: They have.
        """
        if self.observation_shape != tuple(env.observation_shape):
            raise OfflineDataError(
                f"observations: expected shape {tuple(env.observation_shape)} as of {env.name}, "
                f"got {self.observation_shape}"
            )
        space = env.action_space
        if isinstance(space, Discrete) and self.discrete:
            highest = int(jnp.max(self.actions))
            if highest >= space.num_actions:
                raise OfflineDataError(f"actions: expected those of {env.name}, {space}, got {highest}")
        elif isinstance(space, Discrete) or self.discrete or space.action_dim != self.action_dim:
            found = "discrete ones" if self.discrete else f"{self.action_dim} components"
            raise OfflineDataError(f"actions: expected those of {env.name}, {space}, got {found}")


def check_arrays(arrays: Mapping[str, np.ndarray], trajectory_steps: int | None = None) -> dict[str, np.ndarray]:
    """Validates offline data on the host, and marks the ends of trajectories that they show but do not flag.

    A trajectory also ends where the next observation is not the observation that follows.

    Args:
        arrays: By the names of the attributes of `Transitions`; `next_observations` and `timeouts` may be absent,
            others are passed over. Rewards, flags and integer actions may be columns `[transitions, 1]`; actions of one
            axis are discrete.
        trajectory_steps: Steps after which a trajectory is cut off where `timeouts` are absent; not at all if None.

    Returns:
        Numbers as float32 in C order, discrete actions as int32, and flags as bool.

    Raises:
        OfflineDataError: One is missing, of another shape or type, or holds numbers that are not finite; `"key: what
            was expected"`.
    """
    for name in (*FLOAT_KEYS[:3], "terminals"):
        if name not in arrays:
            raise OfflineDataError(f"{name}: missing, expected in all offline data, got {few(arrays)}")
    present = {name: arrays[name] for name in (*FLOAT_KEYS, *FLAG_KEYS) if name in arrays}
    for name, array in present.items():
        column = array.ndim == 2 and array.shape[1] == 1
        if column and (name in ("rewards", *FLAG_KEYS) or (name == "actions" and array.dtype.kind in "iu")):
            present[name] = array[:, 0]
    for name, array in present.items():
        _check_shape(name, array.shape, present["observations"].shape)
    checked = {name: _checked(name, array) for name, array in present.items()}
    if "timeouts" in checked and trajectory_steps is not None:
        raise OfflineDataError("timeouts: expected none where the steps of a trajectory are given, got some")
    timeouts = checked.get("timeouts", np.zeros_like(checked["terminals"]))
    if "next_observations" in checked:
        timeouts = timeouts | unflagged_ends(checked | {"timeouts": timeouts})
    if trajectory_steps is not None:
        timeouts = timeouts | _cut_off(checked["terminals"] | timeouts, trajectory_steps)
    return checked | {"timeouts": timeouts}


def _checked(name: str, array: np.ndarray) -> np.ndarray:
    if name in FLAG_KEYS:
        return _flags(name, array)
    if name == "actions":
        if array.ndim == 1:
            return _choices(array)
        if array.dtype.kind in "iu":
            raise OfflineDataError(
                f"actions: expected one discrete action or continuous ones, got {array.shape[1]} columns of "
                f"{array.dtype}"
            )
    # Observations of games are often booleans.
    return _floats(name, array.astype(np.uint8) if array.dtype == bool and name != "actions" else array)


def _choices(actions: np.ndarray) -> np.ndarray:
    """Discrete actions, also where a tool wrote them as floats."""
    if actions.dtype.kind not in "iuf":
        raise OfflineDataError(f"actions: expected numbers, got {actions.dtype}")
    wrong = np.flatnonzero(~(np.isfinite(actions) & (actions == np.round(actions)) & (actions >= 0)))
    if wrong.size:
        raise OfflineDataError(
            f"actions: expected numbers of discrete actions, as there is one axis, got {actions[wrong[0]]} at "
            f"[{wrong[0]}]"
        )
    return actions.astype(np.int32)


def _cut_off(over: np.ndarray, steps: int) -> np.ndarray:
    """Timeouts `[transitions]` every so many steps after the last of the ends `over` `[transitions]`."""
    require_positive("trajectory_steps", steps)
    index = np.arange(len(over))
    # The first transition behind the last end, for each.
    starts = np.maximum.accumulate(np.where(np.concatenate([[True], over[:-1]]), index, 0))
    return ((index - starts + 1) % steps == 0) & ~over


def unflagged_ends(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """Transitions of no flag whose next observation is not the observation that follows, `[transitions]` bool.

    Args:
        arrays: Checked ones, by the names of the attributes of `Transitions`, with next observations and both flags.
    """
    observations, successors = arrays["observations"], arrays["next_observations"]
    jumps = np.zeros(len(observations), bool)
    jumps[:-1] = (successors[:-1] != observations[1:]).reshape(len(observations) - 1, -1).any(axis=1)
    return jumps & ~arrays["terminals"] & ~arrays["timeouts"]


def _check_shape(name: str, shape: tuple[int, ...], observations: tuple[int, ...]) -> None:
    fits, expected = {
        "observations": (len(shape) >= 2, "at least 2 axes"),
        "actions": (len(shape) in (1, 2), "1 or 2 axes"),
        "next_observations": (shape == observations, f"shape {observations} as in observations"),
    }.get(name, (len(shape) == 1, "1 axis"))
    if not fits:
        raise OfflineDataError(f"{name}: expected {expected}, got shape {shape}")
    if shape[0] == 0:
        raise OfflineDataError(f"{name}: expected at least one transition, got none")
    if 0 in shape:
        raise OfflineDataError(f"{name}: expected at least one number along every axis, got shape {shape}")
    if shape[0] != observations[0]:
        raise OfflineDataError(f"{name}: expected {observations[0]} rows as in observations, got {shape[0]}")


def _floats(name: str, array: np.ndarray) -> np.ndarray:
    try:
        return finite_float32(name, array)
    except ValueError as error:
        raise OfflineDataError(str(error)) from None


def _flags(name: str, array: np.ndarray) -> np.ndarray:
    """Booleans, also where a tool wrote them as the numbers 0 and 1."""
    if array.dtype.kind not in "biuf":
        raise OfflineDataError(f"{name}: expected booleans, got {array.dtype}")
    flags = array.astype(bool)
    wrong = np.flatnonzero(flags != array)
    if wrong.size:
        raise OfflineDataError(f"{name}: expected booleans, got {array[wrong[0]]} at [{wrong[0]}]")
    return flags
