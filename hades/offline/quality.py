"""Qualities of data as D4RL names them, and the snapshots of a run whose policies make them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, TypeAlias

Quality: TypeAlias = Literal["random", "medium", "medium-replay", "medium-expert", "expert"]
"""Quality of data: of the beginning, half way, all up to half way, half way and best in equal parts, or the best."""


def choose_snapshots(means: Sequence[float], quality: Quality) -> list[int]:
    """Chooses snapshots of a run that collect data of a quality, in equal shares (D4RL, arXiv 2004.07219, section 5).

    Half way is the first snapshot that returns at least the mean of the first one and the best one.

    Args:
        means: Mean return of each snapshot on fresh keys, from the beginning to the end of training.
        quality: What the data are to be like.

    Returns:
        Indices of snapshots.

    Raises:
        ValueError: There are fewer than two snapshots, a return is not finite, or none is better than the first.

    Example:
        >>> [choose_snapshots([0.0, 30.0, 60.0, 100.0, 90.0], quality) for quality in ("medium", "medium-replay")]
        [[2], [0, 1, 2]]
        >>> choose_snapshots([0.0, 30.0, 60.0, 100.0, 90.0], "medium-expert")
        [2, 3]
    """
    if len(means) < 2 or not all(map(math.isfinite, means)):
        raise ValueError(f"snapshots: expected two or more with finite returns, got {list(means)}")
    best = max(range(len(means)), key=lambda index: means[index])
    if not means[best] > means[0]:
        raise ValueError(f"snapshots: expected one that returns more than the first, got {list(means)}")
    half = 0.5 * (means[0] + means[best])
    medium = next(index for index, mean in enumerate(means) if mean >= half)
    return {
        "random": [0],
        "medium": [medium],
        "medium-replay": list(range(medium + 1)),
        "medium-expert": [medium, best],
        "expert": [best],
    }[quality]
