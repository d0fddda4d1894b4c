"""Seeds of a benchmark: their numbers, keys of their evaluations, and scores over them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from experiments import tables
from hades.keys import Stream, stream
from hades.offline.scores import ScoreReference
from hades.run import Run, RunState


def parse_seeds(text: str) -> tuple[int, ...]:
    """Seeds as people write them.

    Raises:
        ValueError: It is not a list of integers and ranges, or holds one twice.

    Example:
        >>> parse_seeds("0-2,7")
        (0, 1, 2, 7)
    """
    seeds: list[int] = []
    try:
        for part in text.split(","):
            first, _, last = part.partition("-")
            seeds += range(int(first), int(last or first) + 1)
    except ValueError:
        seeds = []
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds: expected numbers and ranges such as 0-4, each seed once, got {text!r}")
    return tuple(seeds)


def table_key(seed: int, index: int) -> jax.Array:
    """Key of evaluation number `index` of a table: no run has it, and all rows of the table share it."""
    return stream(jax.random.key(seed), Stream.TABLE, index)


def init_seeds(run: Run[Any], keys: jax.Array) -> RunState:
    """First states of several seeds, `[seeds, ...]`, of their keys `[seeds]`."""
    init = jax.jit(jax.vmap(lambda run, key: run.init(key), in_axes=(None, 0)))
    states: RunState = jax.block_until_ready(init(run, keys))
    return states


def of_seed(tree: Any, index: int) -> Any:
    """The part of one seed of arrays `[seeds, ...]`."""
    return jax.tree.map(lambda leaf: leaf[index], tree)


def scale(reference: ScoreReference | None) -> str:
    """Name of the scale that the numbers of `score_seeds` are on."""
    return "D4RL-normalised scores" if reference else "returns"


def normalize(returns: np.ndarray, reference: ScoreReference | None) -> np.ndarray:
    """Scores of returns, which are the returns themselves where there is no reference."""
    return returns if reference is None else reference.normalize(returns)


def score_seeds(returns: Sequence[np.ndarray | None], reference: ScoreReference | None) -> dict[str, Any]:
    """Scores of a row of a table over its seeds.

    Args:
        returns: Returns of each seed, `[inits, episodes]`; None where its policies are not finite.
        reference: Reference returns of D4RL.

    Returns:
        `scores` (mean over inits and episodes of each seed), `iqm`, `ci95` and `per_init` `[seeds][inits]`. With a
        seed of None its score is None, and so are `iqm` and `ci95`: a mean over the others alone would flatter.

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
