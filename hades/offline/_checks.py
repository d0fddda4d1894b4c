"""Checks of files of offline data and teachers, and the one sentence that says what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from hades._validation import require_finite


def finite_float32(name: str, array: np.ndarray) -> np.ndarray:
    """The numbers as finite float32 in C order, also those of integers.

    Raises:
        ValueError: It holds no numbers, or some that are not finite; `"name: what was expected"`.
    """
    if array.dtype.kind not in "iuf":
        raise ValueError(f"{name}: expected float32, got {array.dtype}")
    # What is too large for float32 becomes infinite, and is refused.
    with np.errstate(over="ignore"):
        numbers = np.asarray(array, dtype="<f4", order="C")
    require_finite(name, numbers, given=array)
    return numbers


def few(names: Iterable[str], most: int = 8, none: str = "nothing") -> str:
    """The first of some names, for a message."""
    names = list(names)
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "") or none


def reason(error: Exception) -> str:
    """First line of an error's message, or its type where it has none."""
    return str(error).partition("\n")[0].rstrip(".") or type(error).__name__
