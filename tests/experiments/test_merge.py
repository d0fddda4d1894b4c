"""`hades merge`, and what the other verbs make of a merged file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from experiments.cli import main
from hades._serialization import from_dict
from hades.dataset import SyntheticDataset
from hades.inner.cloning import CloningSettings
from hades.metadata import FileMetadata
from hades.multitask import merging as multitask
from tests.experiments.command import Outcome
from tests.hades.malformed import valid_arrays, valid_metadata, write_file

COUNTS = ("--num-inits", "2", "--num-episodes", "3")


def write_match(path: Path, num_actions: int) -> Path:
    """The dataset that plays `diagnostic/match`."""
    shown = np.eye(num_actions, dtype=np.float32)
    cloning = {"hidden_sizes": [16], "learning_rate": 0.05, "num_steps": 60}
    metadata = valid_metadata(
        env="diagnostic/match", env_options={"num_actions": num_actions}, max_episode_steps=5, cloning=cloning
    )
    write_file(path, {"observations": shown, "action_probabilities": shown, "metadata": metadata})
    return path


@pytest.fixture(scope="session")
def merged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tasks, not to be changed."""
    folder = tmp_path_factory.mktemp("merged")
    parts = [write_match(folder / f"{size}.npz", size) for size in (2, 3)]
    assert main(["merge", *map(str, parts), "--out", str(folder / "merged.npz")]) == 0
    return folder / "merged.npz"


def test_merge_writes_what_the_library_merges(hades: Callable[..., Outcome], merged: Path, tmp_path: Path) -> None:
    parts = [SyntheticDataset.load(merged.with_name(f"{size}.npz")) for size in (2, 3)]
    multitask.merge(parts).save(tmp_path / "expected.npz")
    assert merged.read_bytes() == (tmp_path / "expected.npz").read_bytes()
    sources = [merged.with_name(f"{size}.npz") for size in (2, 3)]
    flags = ("--shared-places", "--cloning.hidden-sizes", "9", "--cloning.num-steps", "7", "--json")
    outcome = hades("merge", *sources, "--out", tmp_path / "other.npz", *flags)
    assert outcome.code == 0
    assert (outcome.json["tasks"], outcome.json["pairs"]) == (["diagnostic/match"] * 2, 5)
    assert (outcome.json["observations"], outcome.json["task_one_hot"]) == ([5, 3], False)
    other = SyntheticDataset.load(tmp_path / "other.npz").metadata
    assert isinstance(other, FileMetadata)
    expected = CloningSettings(hidden_sizes=(9,), learning_rate=0.05, num_steps=7, loss="cross_entropy")
    assert other.cloning == expected == from_dict(CloningSettings, outcome.json["cloning"])
    told = hades("merge", *sources, "--out", tmp_path / "told.npz", "--task-one-hot", "--json")
    assert (told.json["observations"], told.json["task_one_hot"]) == ([5, 7], True)


def test_merged_file_is_scored_task_by_task(hades: Callable[..., Outcome], merged: Path) -> None:
    outcome = hades("evaluate", merged, *COUNTS, "--json")
    assert outcome.code == 0
    result = outcome.json
    assert (result["env"], result["num_inits"], result["num_episodes"]) == ("multitask", 2, 3)
    assert [task["env"] for task in result["tasks"]] == ["diagnostic/match"] * 2
    for task, size in zip(result["tasks"], (2, 3), strict=True):
        assert (task["joint"]["mean"], task["single"]["mean"]) == (5.0, 5.0)
        assert (task["fraction"], task["ratio"]) == pytest.approx((1.0, 1.0))
        assert task["zero"]["mean"] < 5
        alone = hades("evaluate", merged.with_name(f"{size}.npz"), *COUNTS, "--baselines", "--json").json
        assert task["single"]["per_init"] == alone["per_init"]
        assert task["zero"]["per_init"] == alone["baselines"]["zero dataset"]["per_init"]
        assert task["untrained"]["per_init"] == alone["baselines"]["untrained policy"]["per_init"]
    assert (result["mean"], result["std"], result["ci95"], result["per_init"]) == (1.0, 0.0, [1.0, 1.0], [1.0, 1.0])
    assert "diagnostic/match (2)" in outcome.err


@pytest.mark.parametrize("flags", [("--ensemble", "2"), ("--devices", "1")])
def test_flags_of_a_single_task_are_refused_with_a_merged_file(
    hades: Callable[..., Outcome], merged: Path, flags: tuple[str, str]
) -> None:
    outcome = hades("evaluate", merged, *flags)
    assert outcome.code == 2
    assert outcome.complaint == f"hades evaluate: {flags[0]}: expected a dataset of a single task, got a merged one"


def test_one_policy_file_plays_all_tasks(hades: Callable[..., Outcome], merged: Path, tmp_path: Path) -> None:
    trained = hades("train", merged, "--out", tmp_path / "policy.npz", "--num-episodes", "4", "--json")
    assert trained.code == 0
    assert [task["mean"] for task in trained.json["tasks"]] == [5.0, 5.0]
    evaluated = hades("evaluate", tmp_path / "policy.npz", "--num-episodes", "4", "--json")
    assert evaluated.code == 0
    result = evaluated.json
    assert [task["mean"] for task in result["tasks"]] == [5.0, 5.0]
    assert (result["env"], result["mean"], result["num_inits"], result["num_episodes"]) == ("multitask", 5.0, 1, 4)
    sampled = hades(
        "evaluate", tmp_path / "policy.npz", "--action-selection", "sample", "--json", "--num-episodes", "99"
    )
    means = [task["mean"] for task in sampled.json["tasks"]]
    assert sampled.json["mean"] == pytest.approx(np.mean(means))
    assert hades("info", tmp_path / "policy.npz", "--json").json["tasks"][1]["pairs"] == 3


def test_info_names_the_tasks(hades: Callable[..., Outcome], merged: Path) -> None:
    info = hades("info", merged, "--json").json
    assert (info["kind"], info["pairs"], info["task_one_hot"]) == ("merged dataset", 5, False)
    assert [task["env_options"] for task in info["tasks"]] == [{"num_actions": 2}, {"num_actions": 3}]
    plain = hades("info", merged)
    assert "tasks[1]:" in plain.out.splitlines()
    assert "observation_mean" not in plain.out


def test_files_that_cannot_be_merged(
    hades: Callable[..., Outcome], merged: Path, fixed_init_run: Path, tmp_path: Path
) -> None:
    match, continuous, out = merged.with_name("2.npz"), tmp_path / "hopper.npz", ("--out", tmp_path / "out.npz")
    write_file(continuous, valid_arrays())
    for sources, words in (
        ((match,), "expected two or more dataset files, got 1"),
        ((match, continuous), f"{continuous}: expected discrete actions as in the first dataset, got continuous ones"),
        ((continuous, fixed_init_run), f"{fixed_init_run}/best_dataset.npz: metadata.init_seed: expected none"),
        ((match, merged), f"{merged}: metadata.env: expected the environment of a single task"),
        ((match, match, "--cloning.policy", "cnn"), "--cloning.policy: expected mlp or residual_mlp"),
        ((match, match, "--cloning.loss", "mse"), "--cloning.loss: expected cross_entropy"),
    ):
        outcome = hades("merge", *sources, *out)
        assert outcome.code == 2
        assert outcome.complaint.startswith(f"hades merge: {words}")
    outcome = hades("merge", match, tmp_path / "nowhere.npz", *out)
    assert outcome.code == 1
    assert outcome.complaint.startswith(f"hades merge: {tmp_path}/nowhere.npz: expected an .npz file")
    assert not (tmp_path / "out.npz").exists()


@pytest.mark.parametrize("verb", ["train", "evaluate", "info"])
def test_malformed_merged_file_is_one_sentence(
    hades: Callable[..., Outcome], merged: Path, tmp_path: Path, verb: str
) -> None:
    with np.load(merged) as archive:
        arrays = dict(archive)
    for change, words in (
        ({}, "metadata.env_options.shared_places: missing"),
        (
            {"shared_places": True, "task_one_hot": True, "tasks": [{}]},
            "metadata.env_options.tasks[0].metadata: missing",
        ),
    ):
        metadata = json.loads(str(arrays["metadata"])) | {"env_options": change}
        write_file(tmp_path / "bad.npz", arrays | {"metadata": metadata})
        outcome = hades(verb, tmp_path / "bad.npz")
        assert outcome.code == 1
        assert outcome.complaint.startswith(f"hades {verb}: {tmp_path}/bad.npz: {words}")


def test_tasks_that_do_not_suit_their_environment_and_other_environments(
    hades: Callable[..., Outcome], merged: Path, tmp_path: Path
) -> None:
    for verb in ("train", "evaluate"):
        outcome = hades(verb, merged, "--env", "diagnostic/match")
        assert outcome.code == 2
        assert outcome.complaint.startswith(f"hades {verb}: --env: expected none, as {merged} is merged")
    with np.load(merged) as archive:
        arrays = dict(archive)
    for options, words in (
        ({"num_actions": 4}, "diagnostic/match has observations (4,) and Discrete(num_actions=4), but its task"),
        ({"wind": 4}, "diagnostic/match has no option 'wind'"),
    ):
        metadata = json.loads(str(arrays["metadata"]))
        metadata["env_options"]["tasks"][1]["metadata"]["env_options"] = options
        write_file(tmp_path / "bad.npz", arrays | {"metadata": metadata})
        outcome = hades("evaluate", tmp_path / "bad.npz")
        assert outcome.code == 1
        assert outcome.complaint.startswith(f"hades evaluate: {tmp_path}/bad.npz: {words}")
    outcome = hades("bench", "architectures", merged)
    assert outcome.code == 1
    assert "expected a file of a single task, got a merged one" in outcome.complaint
