"""Rows in columns: what goes in comes out, in little memory and time."""

from __future__ import annotations

import copy
import pickle
import time
import tracemalloc

import numpy as np
import pytest

from hades._history import History

ROWS = [
    {"iteration": 1, "fitness_mean": 0.5, "non_finite": 0, "done": False},
    {"iteration": 2, "fitness_mean": float("inf"), "evaluation_mean": None},
    {"iteration": 3, "total_env_steps": 2**60 + 1, "note": "text", "fitness_mean": -0.0},
    {},
    {"iteration": 5, "fitness_mean": 1.5, "non_finite": 2, "done": True, "late": [1, 2]},
]


def assert_same(found, expected):
    assert found == expected
    for one, other in zip(found, expected, strict=True):
        assert {name: type(value) for name, value in one.items()} == {name: type(v) for name, v in other.items()}


def test_rows_come_out_as_they_went_in():
    history = History(ROWS[:2])
    for row in ROWS[2:]:
        history.append(row)
    assert len(history) == 5
    assert_same(list(history), ROWS)
    assert history == ROWS
    assert history != ROWS[:4]
    assert history[-1] == ROWS[4]
    assert history[1:3] == ROWS[1:3]
    assert history[::-2] == ROWS[::-2]
    assert ROWS[1] in history
    for index in (5, -6):
        with pytest.raises(IndexError):
            history[index]


@pytest.mark.parametrize("length", [0, 2, 3, 5, 9])
def test_truncation_forgets_the_rows_behind(length):
    history = History(ROWS)
    history.truncate(length)
    assert_same(list(history), ROWS[:length])
    history.extend(ROWS)
    assert_same(list(history), ROWS[:length] + ROWS)


def test_copies_and_pickles_are_their_own():
    history = History(ROWS)
    for other in (copy.deepcopy(history), pickle.loads(pickle.dumps(history))):
        assert_same(list(other), ROWS)
        other.append({"iteration": 6})
    assert len(history) == 5
    history[0]["iteration"] = 7
    assert history[0]["iteration"] == 1


def test_a_column_is_numbers_with_nan_for_what_is_absent_or_null():
    history = History([*ROWS, {"evaluation_mean": 2}])
    np.testing.assert_array_equal(history.column("evaluation_mean"), [np.nan, np.nan, np.nan, np.nan, np.nan, 2])
    np.testing.assert_array_equal(history.column("total_env_steps")[1:4], [np.nan, 2.0**60, np.nan])
    np.testing.assert_array_equal(history.column("fitness_mean")[:3], [0.5, np.inf, 0])
    assert np.isnan(history.column("note")).all()
    assert np.isnan(history.column("unknown")).all()


def test_a_long_run_takes_little_memory_and_time():
    count, names = 200_000, [f"metric_{index}" for index in range(8)]
    history = History()
    began = time.process_time()
    tracemalloc.start()
    started = tracemalloc.get_traced_memory()[0]
    for index in range(count // 10):
        history.append({"iteration": index} | dict.fromkeys(names, index + 0.5))
    taken = tracemalloc.get_traced_memory()[0] - started
    tracemalloc.stop()
    assert taken < 11 * 9 * count // 10
    for index in range(len(history), count):
        history.append({"iteration": index} | dict.fromkeys(names, index + 0.5))
    assert history[-1]["metric_7"] == count - 0.5
    assert time.process_time() - began < 10
