"""Strict JSON: RFC 8259 has no NaN and no infinities, which Python writes all the same."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np


def to_finite(value: Any) -> Any:
    """The value with None for every number that is not finite, and plain numbers for NumPy's.

    Example:
        >>> to_finite({"mean": float("nan"), "ci95": (1.0, float("inf"))})
        {'mean': None, 'ci95': [1.0, None]}
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: to_finite(item) for key, item in value.items()}
    return [to_finite(item) for item in value] if isinstance(value, (list, tuple)) else value


def to_json(value: Any, indent: int | None = None) -> str:
    """The value as JSON that every reader takes; numbers that are not finite become null.

    Raises:
        TypeError: It holds something that JSON has no form for.

    Example:
        >>> to_json({"fitness_mean": float("nan")})
        '{"fitness_mean": null}'
    """
    return json.dumps(to_finite(value), indent=indent, allow_nan=False)
