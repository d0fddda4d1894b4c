"""Streams of random numbers: apart from each other, from iterations, and the same for ever."""

from __future__ import annotations

import itertools

import jax
import numpy as np

from hades.keys import Stream, iteration_key, stream

KEY = jax.random.key(3)
LARGEST_ITERATION = 2**31 - 1


def words(key):
    return tuple(np.asarray(jax.random.key_data(key)).ravel().tolist())


def test_streams_and_iterations_are_all_apart():
    keys = [words(stream(KEY, name)) for name in Stream]
    keys += [words(stream(KEY, name, index)) for name in Stream for index in range(3)]
    keys += [words(iteration_key(KEY, iteration)) for iteration in (0, 1, 2, 1000, LARGEST_ITERATION)]
    assert len(set(keys)) == len(keys)


def test_streams_lie_above_every_iteration():
    values = sorted(Stream)
    assert all(later - earlier >= 1 for earlier, later in itertools.pairwise(values))
    assert min(values) > LARGEST_ITERATION
    assert max(values) < 2**32
    # A table's seeds are folded in once more, and so need no room of their own.
    assert len(set(values)) == len(Stream)


def test_numbers_of_streams_do_not_move():
    """Every stored result was drawn from these."""
    below = {name.name: 2**32 - name for name in Stream}
    assert below == {
        "INIT": 1, "SELECTION": 2, "CONFIRMATION": 3, "REPORT": 4, "LABELS": 5, "DENSITY": 7, "SAMPLED_LOSS": 9,
        "WINDOW": 10, "STEP_SIZE": 11, "CODES": 12, "STATISTICS": 13, "TABLE": 1024,
    }  # fmt: skip
    assert words(stream(KEY, Stream.INIT)) == words(jax.random.fold_in(KEY, 2**32 - 1))
    expected = jax.random.fold_in(jax.random.fold_in(KEY, 2**32 - 3), 40)
    assert words(stream(KEY, Stream.CONFIRMATION, 40)) == words(expected)
    assert words(iteration_key(KEY, 5)) == words(jax.random.fold_in(KEY, 5))


def test_streams_are_traced_and_vmapped():
    indices = jax.numpy.arange(3)
    many = jax.jit(jax.vmap(lambda index: stream(KEY, Stream.SAMPLED_LOSS, index)))(indices)
    assert [words(key) for key in many] == [words(stream(KEY, Stream.SAMPLED_LOSS, index)) for index in range(3)]
