"""Named streams of random numbers: the only way in which keys part.

A key is either split or folded, never both: `jax.random.split(key, n)[i]` is `jax.random.fold_in(key, i)` under JAX's
default generator. A run's own key is folded alone: with the number of an iteration, which counts from 0 up, or with a
stream, of which there are few at the upper end. `split` serves the keys that come out of that.
"""

from __future__ import annotations

import enum

import jax
import numpy as np


class Stream(enum.IntEnum):
    """Streams apart from each other and from the numbers of iterations and inner steps.

    The values are part of every result: a changed one changes all that is drawn from the stream.
    """

    INIT = 2**32 - 1
    """First state of a run."""
    SELECTION = 2**32 - 2
    """Evaluations on the way, which choose the best outcome."""
    CONFIRMATION = 2**32 - 3
    """The evaluation of a chosen outcome, apart from those that chose it."""
    REPORT = 2**32 - 4
    """The evaluation at the end of a command, which nothing is chosen by."""
    LABELS = 2**32 - 5
    """Sampled actions of a teacher."""
    DENSITY = 2**32 - 7
    """Density estimate and labels of the command's offline distillation."""
    SAMPLED_LOSS = 2**32 - 9
    """Samples of a loss in the inner loop, numbered by its steps."""
    WINDOW = 2**32 - 10
    """Last step of a truncated inner loop."""
    STEP_SIZE = 2**32 - 11
    """Factor of an inner loop whose step sizes vary."""
    CODES = 2**32 - 12
    """Play that codes of observations are measured on, and the statistics of its states."""
    STATISTICS = 2**32 - 13
    """Play that observation statistics of a dataset's policies are measured on."""
    TABLE = 2**32 - 1024
    """Evaluations of a benchmark's table, numbered by seeds."""


def stream(key: jax.Array, name: Stream, index: jax.Array | int | None = None) -> jax.Array:
    """Key of a stream, or of one member of it.

    Args:
        key: A key that is folded alone, never split.
        name: Which stream.
        index: Number within the stream, from 0 up.

    Example:
        >>> key = jax.random.key(0)
        >>> bool(stream(key, Stream.INIT) == jax.random.fold_in(key, 2**32 - 1))
        True
    """
    folded = jax.random.fold_in(key, np.uint32(name))
    return folded if index is None else jax.random.fold_in(folded, index)


def iteration_key(key: jax.Array, iteration: jax.Array | int) -> jax.Array:
    """Key of one iteration of a run, whose own key is `key`."""
    return jax.random.fold_in(key, iteration)
