"""Run directories of version 0.1.0: every verb takes them, and they end as that version would have ended them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.experiments.command import Outcome, rows_without_seconds, unpack

RUNS = {
    "evolution": (("distill",), "dataset"),
    "ppo": (("baseline", "ppo"), "policy"),
}


def arrays_of(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as archive:
        return {name: archive[name] for name in archive.files if name != "metadata"}


def present(row: dict[str, Any]) -> dict[str, Any]:
    """A row under the names of the present columns."""
    return {{"generation": "iteration"}.get(name, name): value for name, value in row.items()}


@pytest.mark.parametrize("name", RUNS)
def test_run_goes_on_to_the_end_that_it_would_have_had(
    hades: Callable[..., Outcome], tmp_path: Path, name: str
) -> None:
    verb, outcome_name = RUNS[name]
    run, whole = unpack(f"{name}_half", tmp_path), tmp_path / "whole"
    unpack(f"{name}_full", whole)
    outcome = hades(*verb, "--out", run, "--resume", "--num-generations", "4", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json["iterations"] == 4
    found, expected = ([present(row) for row in rows_without_seconds(path)] for path in (run, whole))
    assert [row["iteration"] for row in found] == [1, 2, 3, 4]
    for own, other in zip(found, expected, strict=True):
        # Evaluations have other keys and intervals today; no iteration depends on them.
        shared = sorted(key for key in set(own) & set(other) if not key.startswith("evaluation"))
        assert {"fitness_mean", "fitness_best", "total_env_steps"} <= set(shared)
        np.testing.assert_allclose([own[key] for key in shared], [other[key] for key in shared], 1e-4, 1e-6)
    own_arrays, other_arrays = (arrays_of(path / f"{outcome_name}.npz") for path in (run, whole))
    # Policy files also hold their spaces today.
    assert own_arrays.keys() - {"spaces"} == other_arrays.keys()
    for key, array in other_arrays.items():
        np.testing.assert_allclose(own_arrays[key], array, 1e-4, 1e-5)
    assert json.loads((run / "config.json").read_text())["num_iterations"] == 4
    # It is a run of this version now.
    assert hades(*verb, "--out", run, "--resume").code == 0


@pytest.mark.parametrize("name", RUNS)
def test_run_is_told_evaluated_and_guarded(hades: Callable[..., Outcome], tmp_path: Path, name: str) -> None:
    verb, outcome_name = RUNS[name]
    run = unpack(f"{name}_half", tmp_path)
    info = hades("info", run, "--json").json
    assert (info["command"], info["iterations"]) == (" ".join(verb), "2 of 2")
    evaluated = hades("evaluate", run, "--num-episodes", "2", "--json").json
    assert evaluated["source"] == str(run / f"best_{outcome_name}.npz")
    for flag, value in (("--seed", "1"), ("--generations-per-call", "3")):
        outcome = hades(*verb, "--out", run, "--resume", flag, value)
        assert outcome.code == 2
        assert f"the run in {run} has" in outcome.complaint
