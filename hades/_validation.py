"""Checks of settings that say which field is wrong and what was expected."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def require_positive(name: str, value: float) -> None:
    """Raises `ValueError` with the setting's name unless `value` is finite and above zero."""
    # Not math.isfinite, which overflows on large integers.
    if not 0 < value < math.inf:
        raise ValueError(f"{name}: expected a number above 0, got {value}")


def require_positive_fields(settings: Any, *names: str) -> None:
    """Raises `ValueError` unless each of these settings is finite and above zero, or None."""
    for name in names:
        if getattr(settings, name) is not None:
            require_positive(name, getattr(settings, name))


def require_not_negative(name: str, value: float) -> None:
    """Raises `ValueError` with the setting's name unless `value` is finite and 0 or more."""
    if not 0 <= value < math.inf:
        raise ValueError(f"{name}: expected a number of at least 0, got {value}")


def require_not_negative_fields(settings: Any, *names: str) -> None:
    """Raises `ValueError` unless each of these settings is finite and 0 or more, or None."""
    for name in names:
        if getattr(settings, name) is not None:
            require_not_negative(name, getattr(settings, name))


def require_below_one(name: str, value: float) -> None:
    """Raises `ValueError` with the setting's name unless `value` is in [0, 1)."""
    if not 0 <= value < 1:
        raise ValueError(f"{name}: expected a number in [0, 1), got {value}")


def require_below_one_fields(settings: Any, *names: str) -> None:
    """Raises `ValueError` unless each of these settings is in [0, 1), or None."""
    for name in names:
        if getattr(settings, name) is not None:
            require_below_one(name, getattr(settings, name))


def require_fraction(name: str, value: float) -> None:
    """Raises `ValueError` with the setting's name unless `value` is above 0 and at most 1."""
    if not 0 < value <= 1:
        raise ValueError(f"{name}: expected a number above 0 and at most 1, got {value}")


def require_at_least_one(name: str, value: float) -> None:
    """Raises `ValueError` with the setting's name unless `value` is 1 or more."""
    if not value >= 1:
        raise ValueError(f"{name}: expected a number of at least 1, got {value}")


def require_finite(name: str, array: np.ndarray, given: np.ndarray | None = None) -> None:
    """Raises `ValueError` with the array's name, and the first other number and its place, unless all are finite.

    Args:
        name: Of the array.
        array: Numbers of the type in which they must be finite.
        given: The numbers before they were converted, for the message.
    """
    finite = np.isfinite(array)
    if not finite.all():
        index = tuple(int(axis) for axis in np.argwhere(~finite)[0])
        found = (array if given is None else given)[index]
        raise ValueError(f"{name}: expected finite numbers of {array.dtype}, got {found} at {list(index)}")
