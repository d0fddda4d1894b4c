"""`hades distill --method hades-pg`: its own flags and presets, its files, and what the other verbs make of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hades.dataset import SyntheticDataset
from tests.experiments.command import CONTRACT_FILES, TINY_GRADIENTS, Outcome, exit_code


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two compiled calls."""
    out = tmp_path_factory.mktemp("policy_gradient") / "run"
    assert exit_code("distill", *TINY_GRADIENTS, "--out", out) == 0
    return out


def test_a_run_leaves_the_files_of_the_contract(run: Path) -> None:
    assert {path.name for path in run.iterdir()} == CONTRACT_FILES
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["total_env_steps"] for row in rows] == [32, 64, 96, 128]
    assert {"approx_kl", "entropy", "updates", "value_loss", "masked_steps"} <= set(rows[0])
    dataset = SyntheticDataset.load(run / "dataset.npz")
    assert dataset.metadata is not None and dataset.metadata.cloning is not None
    assert (dataset.metadata.method, dataset.metadata.cloning.step_sizes) == ("hades-pg", "learned")
    assert dataset.step_sizes is not None and dataset.step_sizes.shape == (3,)


def test_a_run_goes_on_without_its_method_being_named(hades: Callable[..., Outcome], run: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert hades("distill", *TINY_GRADIENTS, "--num-iterations", "2", "--out", out).code == 0
    assert hades("distill", "--out", out, "--resume", "--num-iterations", "4").code == 0
    for name in ("observations", "step_sizes"):
        whole, resumed = (getattr(SyntheticDataset.load(path / "dataset.npz"), name) for path in (run, out))
        np.testing.assert_array_equal(resumed, whole)


def test_other_verbs_understand_the_file(hades: Callable[..., Outcome], run: Path, tmp_path: Path) -> None:
    info = hades("info", run, "--json").json
    assert len(info["step_sizes"]) == 3
    assert info["cloning"]["step_sizes"] == "learned"
    assert hades("evaluate", run, "--num-inits", "2", "--num-episodes", "2", "--baselines").code == 0
    policy = tmp_path / "policy.npz"
    trained = hades("train", run, "--out", policy, "--num-episodes", "2", "--json")
    assert trained.code == 0
    assert hades("info", policy, "--json").json["cloning"]["step_sizes"] == "learned"
    both = tmp_path / "both.npz"
    assert hades("merge", run, run, "--out", both, "--json").json["cloning"]["step_sizes"] == "fixed"
    assert hades("evaluate", both, "--num-inits", "2", "--num-episodes", "2").code == 0


def test_another_optimiser_leaves_the_learned_step_sizes_aside(
    hades: Callable[..., Outcome], run: Path, tmp_path: Path
) -> None:
    policy = tmp_path / "policy.npz"
    trained = hades("train", run, "--out", policy, "--num-episodes", "2", "--cloning.optimizer", "adam")
    assert trained.code == 0
    assert "left out: the learned step sizes of the file, which are of 3 steps of sgd; trained by 200" in trained.err
    cloning = hades("info", policy, "--json").json["cloning"]
    assert (cloning["optimizer"], cloning.get("step_sizes", "fixed")) == ("adam", "fixed")
    assert (cloning["learning_rate"], cloning["num_steps"], cloning["hidden_sizes"]) == (0.005, 200, [4])


def test_a_run_of_another_method_is_not_gone_on_with(hades: Callable[..., Outcome], run: Path) -> None:
    outcome = hades("distill", "--method", "hades-r", "--out", run, "--resume")
    assert outcome.code == 2
    assert "--method" in outcome.unboxed


def test_flags_of_the_other_methods_are_refused(hades: Callable[..., Outcome]) -> None:
    outcome = hades("distill", *TINY_GRADIENTS, "--population-size", "8")
    assert outcome.code == 2
    assert "--population-size" in outcome.unboxed
    outcome = hades("distill", "--method", "hades-pg", "--preset", "cartpol")
    assert outcome.complaint.startswith("hades distill: --preset: there is no 'cartpol', the nearest are cartpole")
    outcome = hades("distill", "--method", "hades_pg", "--preset", "cartpole")
    assert outcome.complaint.endswith("hades-pg, hades-pg-f, ppmo, got 'hades_pg'")
    outcome = hades("distill", *TINY_GRADIENTS, "--meta-gradient.anneal-iterations", "3")
    assert "after which --meta-gradient.anneal-iterations makes the learning rate zero, got 4" in outcome.unboxed
