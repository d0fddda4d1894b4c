"""`hades train`, `hades evaluate` and `hades info` on what a run leaves behind."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest

import envs
from experiments.processes import command
from hades.dataset import SyntheticDataset
from hades.evaluation import evaluate, evaluate_dataset
from hades.inner import cloning
from hades.keys import Stream, stream
from hades.policy_file import TrainedPolicy, is_policy_file
from tests.experiments.command import Outcome

COUNTS = ("--num-inits", "3", "--num-episodes", "2", "--seed", "4")
OTHER_ARCHITECTURE = (
    "--cloning.hidden-sizes", "6", "5", "--cloning.activation", "relu", "--cloning.optimizer", "sgd",
    "--cloning.learning-rate", "0.5",
)  # fmt: skip


@pytest.fixture
def policy(hades: Callable[..., Outcome], finished_run: Path, tmp_path: Path) -> Path:
    assert hades("train", finished_run, "--out", tmp_path / "policy.npz", "--num-episodes", "2").code == 0
    return tmp_path / "policy.npz"


@pytest.mark.parametrize("flags", [(), OTHER_ARCHITECTURE])
def test_policy_file_plays_as_its_parameters_do(
    hades: Callable[..., Outcome], finished_run: Path, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    path = tmp_path / "policy.npz"
    trained = hades("train", finished_run, "--out", path, "--num-episodes", "4", "--seed", "2", *flags, "--json")
    assert trained.code == 0
    assert trained.json["out"] == str(path)
    assert (trained.json["num_inits"], trained.json["num_episodes"]) == (1, 4)

    dataset = SyntheticDataset.load(finished_run / "best_dataset.npz")
    assert dataset.metadata is not None
    settings = dataset.metadata.cloning
    if flags:
        settings = dataclasses.replace(
            settings, hidden_sizes=(6, 5), activation="relu", optimizer="sgd", learning_rate=0.5
        )
    env = envs.make("diagnostic/match")
    clone = cloning.from_settings(env, settings)
    params = jax.jit(clone)(stream(jax.random.key(2), Stream.INIT), dataset)
    policy_file = TrainedPolicy.load(path)
    loaded_policy, loaded = policy_file.architecture(env), policy_file.params
    assert policy_file.metadata is not None
    assert policy_file.metadata.cloning == settings
    for ours, theirs in zip(jax.tree.leaves(params), jax.tree.leaves(loaded), strict=True):
        np.testing.assert_array_equal(ours, theirs)

    evaluated = hades("evaluate", path, "--num-episodes", "6", "--seed", "9", "--json")
    assert evaluated.code == 0
    direct = evaluate(jax.random.key(9), env, clone.policy, params, 6, dataset.metadata.action_selection)
    assert (evaluated.json["mean"], evaluated.json["std"]) == (direct.mean, direct.std)
    again = evaluate(jax.random.key(9), env, loaded_policy, loaded, 6, policy_file.metadata.action_selection)
    np.testing.assert_array_equal(again.returns, direct.returns)


def test_fixed_init_dataset_trains_its_own_initialisation(
    hades: Callable[..., Outcome], fixed_init_run: Path, tmp_path: Path
) -> None:
    dataset = SyntheticDataset.load(fixed_init_run / "best_dataset.npz")
    assert dataset.metadata is not None
    env = envs.make("diagnostic/target")
    expected = jax.jit(cloning.from_settings(env, dataset.metadata.cloning))(jax.random.key(7), dataset)
    for seed in ("0", "1"):
        out = tmp_path / seed
        assert hades("train", fixed_init_run, "--out", out, "--num-episodes", "2", "--seed", seed).code == 0
        found = TrainedPolicy.load(out).params
        for ours, theirs in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_policy_is_written_beside_the_dataset_by_default(
    hades: Callable[..., Outcome], finished_run: Path, tmp_path: Path
) -> None:
    shutil.copy(finished_run / "dataset.npz", tmp_path / "mine.npz")
    assert hades("train", tmp_path / "mine.npz", "--num-episodes", "2").code == 0
    assert is_policy_file(tmp_path / "mine_policy.npz")


def test_policy_for_another_environment_is_refused(hades: Callable[..., Outcome], policy: Path) -> None:
    outcome = hades("evaluate", policy, "--env", "diagnostic/target")
    assert outcome.code == 2
    assert outcome.complaint.startswith(f"hades evaluate: --env: {policy}: params: expected shapes")
    assert "diagnostic/target" in outcome.complaint


def test_damaged_policy_is_one_sentence(hades: Callable[..., Outcome], policy: Path) -> None:
    with np.load(policy) as archive:
        arrays = dict(archive)
    name = next(name for name in arrays if name.startswith("params/"))
    for changed, words in (
        ({**arrays, name: arrays[name][..., :1]}, "params: expected shapes"),
        ({key: array for key, array in arrays.items() if key != "metadata"}, "expected metadata and params/..."),
        ({key: array for key, array in arrays.items() if key != "observation_mean"}, "observation_mean"),
        ({**arrays, "metadata": np.array("[]")}, "metadata"),
    ):
        np.savez(policy, **changed)
        outcome = hades("evaluate", policy)
        assert outcome.code == 1
        assert outcome.complaint.startswith(f"hades evaluate: {policy}: ")
        assert words in outcome.complaint


@pytest.mark.parametrize("flags", [("--baselines",), ("--devices", "1")])
def test_flags_of_datasets_are_refused_with_a_policy(
    hades: Callable[..., Outcome], policy: Path, flags: tuple[str, ...]
) -> None:
    outcome = hades("evaluate", policy, *flags)
    assert outcome.code == 2
    expected = "expected a dataset or a run of hades distill, got a policy"
    assert outcome.complaint == f"hades evaluate: {flags[0]}: {expected}"


def test_evaluation_says_what_the_contract_says(hades: Callable[..., Outcome], finished_run: Path) -> None:
    outcome = hades("evaluate", finished_run / "dataset.npz", *COUNTS, "--json")
    assert outcome.code == 0
    result = outcome.json
    dataset = SyntheticDataset.load(finished_run / "dataset.npz")
    expected = evaluate_dataset(jax.random.key(4), envs.make("diagnostic/match"), dataset, 3, 2)
    assert result["mean"] == expected.mean
    assert result["std"] == expected.std
    assert result["per_init"] == expected.per_init
    assert np.mean(result["per_init"]) == pytest.approx(result["mean"])
    assert result["ci95"] == list(expected.ci95)
    assert result["ci95"][0] <= result["mean"] <= result["ci95"][1]
    assert (result["num_inits"], result["num_episodes"], result["env"]) == (3, 2, "diagnostic/match")


def test_evaluation_spread_over_devices_gives_the_same_returns(
    hades: Callable[..., Outcome], finished_run: Path
) -> None:
    arguments = ("evaluate", str(finished_run), *COUNTS, "--baselines", "--json")
    one = hades(*arguments).json
    # In a process of its own, whose CPU is not divided yet.
    done = subprocess.run(command(*arguments, "--devices", "2"), capture_output=True, text=True, check=True)
    two = json.loads(done.stdout)
    assert two["per_init"] == pytest.approx(one["per_init"], rel=1e-6)
    for name, baseline in one["baselines"].items():
        assert two["baselines"][name]["per_init"] == pytest.approx(baseline["per_init"], rel=1e-6)


def test_more_devices_than_there_are_are_refused(hades: Callable[..., Outcome], finished_run: Path) -> None:
    outcome = hades("evaluate", finished_run, "--devices", "99")
    assert outcome.code == 2
    expected = f"devices: expected at most {jax.device_count()}, which JAX has, got 99"
    assert outcome.complaint == f"hades evaluate: {expected}"


def test_evaluation_of_a_run_is_that_of_its_best_dataset(hades: Callable[..., Outcome], finished_run: Path) -> None:
    best = finished_run / "best_dataset.npz"
    of_run, of_file = (hades("evaluate", source, *COUNTS, "--json").json for source in (finished_run, best))
    assert of_run["source"] == of_file["source"] == str(best)
    assert of_run["per_init"] == of_file["per_init"]


def test_baselines_are_scored_beside_the_dataset(hades: Callable[..., Outcome], finished_run: Path) -> None:
    outcome = hades("evaluate", finished_run, *COUNTS, "--baselines", "--json")
    assert set(outcome.json["baselines"]) == {"zero dataset", "untrained policy"}
    for baseline in outcome.json["baselines"].values():
        assert (baseline["num_inits"], baseline["num_episodes"]) == (3, 2)
    assert "untrained policy" in outcome.err


def test_inits_of_a_fixed_init_dataset_are_all_the_same(hades: Callable[..., Outcome], fixed_init_run: Path) -> None:
    outcome = hades("evaluate", fixed_init_run, *COUNTS, "--json")
    assert outcome.code == 0
    assert outcome.json["num_inits"] == 3
    assert "made for the one initialisation of seed 7" in outcome.err


def test_info_of_a_dataset_a_policy_and_a_run(hades: Callable[..., Outcome], finished_run: Path, policy: Path) -> None:
    dataset = hades("info", finished_run / "dataset.npz", "--json").json
    assert (dataset["kind"], dataset["pairs"], dataset["env"]) == ("dataset", 2, "diagnostic/match")
    assert dataset["shapes"]["observations"] == [2, 3]
    assert "evaluation" not in dataset
    assert hades("info", policy, "--json").json["kind"] == "policy"
    outcome = hades("info", finished_run, "--json")
    run = outcome.json
    assert (run["kind"], run["command"], run["iterations"]) == ("run", "distill", "4 of 4")
    assert run["file"] == str(finished_run / "best_dataset.npz")
    assert run["evaluation"]["num_inits"] == 2
    plain = hades("info", finished_run)
    assert (plain.code, plain.err) == (0, "")
    assert "iterations: 4 of 4" in plain.out.splitlines()


def test_info_of_a_run_that_has_no_outcome_yet(hades: Callable[..., Outcome], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"command": "distill", "num_generations": 9}))
    outcome = hades("info", tmp_path, "--json")
    assert outcome.code == 0
    assert outcome.json["kind"] == "run without an outcome yet"
    assert outcome.json["iterations"] == "0 of 9"


@pytest.mark.parametrize("verb", ["info", "evaluate", "train"])
def test_folder_that_is_no_run_is_refused(hades: Callable[..., Outcome], tmp_path: Path, verb: str) -> None:
    outcome = hades(verb, tmp_path)
    assert outcome.code == 1
    assert f"{tmp_path}: expected a run directory with a config.json, found none" in outcome.complaint
