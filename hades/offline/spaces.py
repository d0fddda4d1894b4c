"""The spaces of offline data, where nothing simulates their environment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from hades.offline.transitions import Transitions
from hades.types import ActionSpace, Continuous, Discrete


@dataclass(frozen=True)
class DataSpaces:
    """An environment that is known by its data alone: a `hades.types.HostEnvironment` that nobody can play in.

    Attributes:
        name: Name in files.
        observation_shape: Shape of one observation.
        action_space: Bounds of actions, or their number.
        max_steps: Length of the longest trajectory.

    Example:
        >>> DataSpaces("real/arm", (3,), Continuous((-1.0,), (1.0,)), 200).simulate(np.arange(2))
        Traceback (most recent call last):
        ValueError: real/arm: expected a simulator to play in, found none, as its spaces are those of data
    """

    name: str
    observation_shape: tuple[int, ...]
    action_space: ActionSpace
    max_steps: int

    @classmethod
    def of(
        cls,
        transitions: Transitions,
        name: str,
        action_low: Sequence[float] | None = None,
        action_high: Sequence[float] | None = None,
        num_actions: int | None = None,
    ) -> DataSpaces:
        """The spaces of data.

        Args:
            transitions: Offline data.
            name: Name in files.
            action_low: Lower bounds of actions, one for all or one for each component; -1, or the smallest one of the
                data where some are below, if None.
            action_high: Upper bounds likewise; 1, or the largest one of the data.
            num_actions: Number of discrete actions; the largest one of the data and one more if None.

        Raises:
            ValueError: Bounds are of another length, not finite, or not one below the other; or they are those of the
                other kind of actions.
        """
        actions = np.asarray(transitions.actions)
        longest = int(np.max(np.asarray(transitions.trajectories().lengths)))
        if transitions.discrete:
            if action_low is not None or action_high is not None:
                raise ValueError("action_low: expected none, as the actions of the data are discrete")
            return cls(name, transitions.observation_shape, Discrete(num_actions or int(actions.max()) + 1), longest)
        if num_actions is not None:
            raise ValueError("num_actions: expected none, as the actions of the data are continuous")
        low = _bounds("action_low", action_low, np.minimum(-1.0, actions.min(axis=0)))
        high = _bounds("action_high", action_high, np.maximum(1.0, actions.max(axis=0)))
        try:
            space = Continuous(low, high)
        except ValueError as error:
            raise ValueError(f"action_low: {error}") from None
        return cls(name, transitions.observation_shape, space, longest)

    @property
    def options(self) -> Mapping[str, Any]:
        """Empty: there is nothing to make."""
        return {}

    def simulate(self, seeds: np.ndarray) -> NoReturn:
        """Refuses to begin episodes.

        Raises:
            ValueError: Always.
        """
        raise ValueError(f"{self.name}: expected a simulator to play in, found none, as its spaces are those of data")


def _bounds(name: str, given: Sequence[float] | None, default: np.ndarray) -> tuple[float, ...]:
    if given is None:
        return tuple(map(float, default))
    if len(given) not in (1, len(default)):
        raise ValueError(f"{name}: expected 1 or {len(default)} numbers, got {len(given)}")
    return tuple(map(float, np.broadcast_to(given, default.shape)))
