"""`hades export` on datasets, runs and policy files, and its benchmark."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest

import hades as library
from experiments import cli
from hades.export.player import Player
from hades.offline import teacher as teachers
from hades.policy_file import TrainedPolicy
from tests.experiments.command import Outcome
from tests.helpers import make_teacher


@pytest.fixture
def policy(hades: Callable[..., Outcome], finished_run: Path, tmp_path: Path) -> Path:
    path = tmp_path / "policy.npz"
    assert hades("train", finished_run, "--out", path, "--num-episodes", "2", "--seed", "3").code == 0
    return path


def test_policy_of_a_run_is_the_one_that_train_writes(
    hades: Callable[..., Outcome], finished_run: Path, policy: Path, tmp_path: Path
) -> None:
    out = tmp_path / "exported.npz"
    outcome = hades("export", finished_run, "--format", "numpy", "--out", out, "--seed", "3", "--json")
    assert outcome.code == 0
    assert outcome.json["files"] == [str(out), str(tmp_path / "player.py")]
    assert outcome.json["source"] == str(finished_run / "best_dataset.npz")
    assert outcome.json["largest_difference"] < 1e-5
    ours, theirs = TrainedPolicy.load(policy), TrainedPolicy.load(out)
    jax.tree.map(np.testing.assert_array_equal, ours.params, theirs.params)
    assert (ours.metadata, ours.spaces) == (theirs.metadata, theirs.spaces)
    assert hades("evaluate", out, "--num-episodes", "2").code == 0


def test_policy_file_is_exported_beside_itself(hades: Callable[..., Outcome], policy: Path) -> None:
    for format, names in (
        ("numpy", {"policy_numpy.npz", "player.py"}),
        ("flax", {"policy_flax.msgpack", "policy_flax.msgpack.json"}),
    ):
        outcome = hades("export", policy, "--format", format, "--json")
        assert outcome.code == 0
        assert {Path(file).name for file in outcome.json["files"]} == names
        assert all(Path(file).parent == policy.parent and Path(file).stat().st_size for file in outcome.json["files"])
    host, player = library.load_policy(policy), Player(policy.with_name("policy_numpy.npz"))
    observations = np.eye(3, dtype=np.float32)
    np.testing.assert_array_equal(host.predict(observations)[0], player(observations))


def test_policy_file_without_spaces_takes_those_of_its_environment(
    hades: Callable[..., Outcome], policy: Path, tmp_path: Path
) -> None:
    trained = TrainedPolicy.load(policy)
    dataclasses.replace(trained, spaces=None).save(policy)
    out = tmp_path / "exported.npz"
    assert hades("export", policy, "--format", "numpy", "--out", out).code == 0
    assert TrainedPolicy.load(out).spaces == trained.spaces
    outcome = hades("export", policy, "--format", "numpy", "--env", "diagnostic/target")
    assert outcome.code == 2
    assert outcome.complaint.startswith(f"hades export: --env: {policy}: params: expected shapes")


def test_flags_of_a_training_are_refused_beside_a_policy(hades: Callable[..., Outcome], policy: Path) -> None:
    for flags in (("--cloning.num-steps", "3"), ("--seed=4",)):
        outcome = hades("export", policy, "--format", "numpy", *flags)
        assert outcome.code == 2
        flag = flags[0].partition("=")[0]
        expected = f"hades export: {flag}: expected none beside a policy, which is trained already"
        assert outcome.complaint == expected


def test_what_cannot_be_exported_is_one_sentence(
    hades: Callable[..., Outcome], finished_run: Path, policy: Path, tmp_path: Path
) -> None:
    make_teacher().save(tmp_path / "teacher.npz")
    assert teachers.is_teacher_file(tmp_path / "teacher.npz")
    outcome = hades("export", tmp_path / "teacher.npz", "--format", "numpy")
    assert outcome.code == 2
    assert outcome.complaint.endswith("teacher.npz: expected a policy or a dataset, got a teacher")
    outcome = hades("export", tmp_path / "absent.npz", "--format", "numpy")
    assert outcome.code == 1
    assert outcome.complaint.endswith("absent.npz: expected an .npz file, found nothing there")
    outcome = hades("export", policy, "--format", "numpy", "--out", tmp_path / "teacher.npz" / "policy.npz")
    assert outcome.code == 1
    assert outcome.complaint == f"hades export: {tmp_path}/teacher.npz: File exists"
    merged = tmp_path / "merged.npz"
    assert hades("merge", finished_run, finished_run, "--out", merged, "--cloning.hidden-sizes", "4").code == 0
    outcome = hades("export", merged, "--format", "numpy")
    assert outcome.code == 1
    assert "expected a policy of a single task, got one of a merged dataset" in outcome.err


@pytest.mark.slow
def test_the_benchmark_compares_exported_policies(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "export.json"
    flags = ["--envs", "diagnostic/match", "diagnostic/target", "--num-observations", "20", "--formats", "numpy"]
    assert cli.main(["bench", "export", *flags, "--out", str(out), "--json"]) == 0
    result = json.loads(capfd.readouterr().out)
    assert result == json.loads(out.read_text())
    assert [(row["env"], row["observations"]) for row in result["rows"]] == [
        ("diagnostic/match", 20), ("diagnostic/target", 20),
    ]  # fmt: skip
    assert all(0 < row["difference"]["scaled"] < 1e-5 for row in result["rows"])
