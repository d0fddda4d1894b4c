"""Scores of the seeds of a method: fresh keys that rows of a table share, and what a row says of its seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from experiments import tables
from hades.offline.scores import ScoreReference


def fresh_key(seed: int, index: int) -> jax.Array:
    """The key that the file of seed number `index` is evaluated on: no run has it, and all rows of a table share it."""
    return jax.random.fold_in(jax.random.key(seed), np.uint32(2**32 - 10 - index))


def scale(reference: ScoreReference | None) -> str:
    """What the numbers of `score_seeds` are."""
    return "D4RL-normalised scores" if reference else "returns"


def normalize(returns: np.ndarray, reference: ScoreReference | None) -> np.ndarray:
    """Scores of returns, which are the returns themselves where there is no reference."""
    return returns if reference is None else reference.normalize(returns)


def score_seeds(returns: Sequence[np.ndarray | None], reference: ScoreReference | None) -> dict[str, Any]:
    """What a row says of its seeds.

    Args:
        returns: Of each seed `[inits, episodes]`; None where its policies are not finite.
        reference: Of D4RL.

    Returns:
        `scores` (of each seed the mean over inits and episodes), `iqm`, `ci95`, `interval` (its kind) and `per_init`
        `[seeds][inits]`. With a seed of None its score is None, and so are `iqm` and `ci95`: a mean over the others
        alone would flatter.

    Example:
        >>> score_seeds([np.array([[1.0, 3.0]]), np.array([[4.0, 4.0]])], None)["iqm"]
        3.0
        >>> score_seeds([np.array([[1.0, 3.0]]), None], None)["scores"]
        [2.0, None]
    """
    per_init = [None if values is None else normalize(values, reference).mean(axis=1) for values in returns]
    scores = [None if values is None else float(values.mean()) for values in per_init]
    row = {"scores": scores, "iqm": None, "ci95": None} if None in scores else tables.score(np.array(scores))
    return row | {"per_init": [None if values is None else values.tolist() for values in per_init]}
