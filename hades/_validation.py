"""Checks of settings that say which field is wrong and what was expected."""

from __future__ import annotations

import math


def require_positive(name: str, value: float) -> None:
    """Raises `ValueError` with the setting's name unless `value` is finite and above zero."""
    # Not math.isfinite, which overflows on large integers.
    if not 0 < value < math.inf:
        raise ValueError(f"{name}: expected a number above 0, got {value}")
