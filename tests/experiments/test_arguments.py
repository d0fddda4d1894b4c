"""Output of a verb for programs: JSON that every reader takes."""

from __future__ import annotations

import json

import numpy as np
import pytest

from experiments.arguments import print_json


def test_numbers_that_are_not_finite_are_printed_as_null(capfd: pytest.CaptureFixture[str]) -> None:
    print_json({"mean": float("nan"), "ci95": [float("-inf"), np.float32(2.5)], "num_inits": np.int64(3)})
    assert json.loads(capfd.readouterr().out, parse_constant=pytest.fail) == {
        "mean": None,
        "ci95": [None, 2.5],
        "num_inits": 3,
    }
