"""Observations that are dictionaries, as rows of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def select(observation: Mapping[str, Any], keys: Sequence[str], batch_axes: int = 0) -> np.ndarray:
    """Parts of an observation, each flattened, one behind the other, `[*batch, components]`.

    Args:
        observation: Arrays `[*batch, ...]` by name.
        keys: Names of the parts, in order.
        batch_axes: How many axes in front are kept.

    Raises:
        ValueError: There is no part of a name, or none is named.

    Example:
        >>> select({"goal": np.ones(2), "position": np.zeros((1, 1))}, ["position", "goal"]).tolist()
        [0.0, 1.0, 1.0]
    """
    require_parts(observation, keys)
    parts = [np.asarray(observation[key]) for key in keys]
    return np.concatenate([part.reshape(*part.shape[:batch_axes], -1) for part in parts], axis=-1)


def require_parts(observation: Mapping[str, Any], keys: Sequence[str]) -> None:
    """Checks that an observation has some parts.

    Raises:
        ValueError: There is no part of a name, or none is named.
    """
    names = ", ".join(observation)
    if not keys:
        raise ValueError(f"observation_keys: expected some of {names}, got none")
    for key in keys:
        if key not in observation:
            raise ValueError(f"observation_keys: expected some of {names}, got {key!r}")
