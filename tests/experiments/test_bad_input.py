"""Whatever a person gets wrong, or the machine runs out of: one sentence on stderr and the right exit code."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hades._checkpointing import Checkpoints
from hades._host_loop import HostLoop
from hades._run_directory import RunDirectory
from hades.dataset import SyntheticDataset
from tests.experiments.command import TINY, Outcome
from tests.hades.malformed import MALFORMED_FILES, MalformedFile, valid_arrays, valid_metadata, write_file


@pytest.mark.parametrize("verb", ["evaluate", "info"])
@pytest.mark.parametrize("case", MALFORMED_FILES, ids=lambda case: case.name)
def test_malformed_file_is_one_sentence(
    hades: Callable[..., Outcome], tmp_path: Path, verb: str, case: MalformedFile
) -> None:
    path = tmp_path / "bad.npz"
    case.write(path)
    outcome = hades(verb, path)
    assert outcome.code == 1
    assert outcome.complaint.startswith(f"hades {verb}: {path}: ")
    # A folder may be a run directory here.
    words = ("config.json",) if case.name == "folder" else case.expected_words
    assert all(word in outcome.complaint for word in words)


def test_train_refuses_a_malformed_file(hades: Callable[..., Outcome], tmp_path: Path) -> None:
    (tmp_path / "bad.npz").write_text("text")
    outcome = hades("train", tmp_path / "bad.npz")
    assert outcome.code == 1
    expected = f"hades train: {tmp_path}/bad.npz: expected an .npz file, found another format"
    assert outcome.complaint == expected


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"env": "brax/hoper", "env_options": {}}, "unknown environment 'brax/hoper'"),
        ({"env": "diagnostic/match", "env_options": {"wind": 3}}, "has no option 'wind'"),
        ({"env": "diagnostic/match", "env_options": {"num_actions": "x"}}, "num_actions"),
        ({"env": "diagnostic/match", "env_options": {}}, "observations of diagnostic/match have shape (3,)"),
    ],
)
@pytest.mark.parametrize("verb", ["train", "evaluate"])
def test_file_that_does_not_suit_its_own_environment_is_named(
    hades: Callable[..., Outcome], tmp_path: Path, verb: str, metadata: dict[str, Any], words: str
) -> None:
    path = tmp_path / "file.npz"
    write_file(path, valid_arrays() | {"metadata": valid_metadata(**metadata)})
    outcome = hades(verb, path)
    assert outcome.code == 1
    assert outcome.complaint.startswith(f"hades {verb}: {path}: ")
    assert words in outcome.complaint


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ((), "--env: expected an environment, such as gymnax/CartPole-v1, or a --preset"),
        (("--env", "CartPole-v1"), "did you mean 'gymnax/CartPole-v1'?"),
        (("--env", "gymnax/CartPol-v1"), "unknown environment 'gymnax/CartPol-v1'"),
        (("--env", "gymnax/MNISTBandit-bsuite"), "gymnax/MNISTBandit-bsuite is not supported"),
        (("--env", "diagnostic/match", "--backend", "spring"), "has no option 'backend'"),
        (("--env", "diagnostic/match", "--max-steps", "0"), "max_steps"),
        (("--env", "brax/hopper", "--backend", "bullet"), "bullet"),
        (("--env", "diagnostic/match", "--num-iterations", "0"), "num_iterations: expected a number above 0, got 0"),
        (("--env", "diagnostic/match", "--population-size", "-4"), "population_size: expected a number above 0"),
        (("--env", "diagnostic/match", "--population-size", "7"), "population_size"),
        (("--env", "diagnostic/match", "--devices", "0"), "devices: expected a number above 0, got 0"),
        (("--env", "diagnostic/match", "--devices", "9999"), "devices: expected at most"),
        (("--env", "diagnostic/match", "--devices", "1", "--multihost"), "devices: expected none beside multihost"),
        (("--env", "diagnostic/match", "--process-id", "1"), "process_id: expected none without multihost"),
        (("--env", "diagnostic/match", "--dataset-size", "0"), "dataset_size"),
        (("--env", "diagnostic/match", "--statistics-episodes", "0"), "statistics_episodes"),
        (("--env", "diagnostic/match", "--seed", "-1"), "seed: expected an integer from 0 to 4294967295, got -1"),
        (("--env", "diagnostic/match", "--seed", "9" * 30), "seed: expected an integer from 0 to 4294967295"),
        (("--env", "diagnostic/match", "--method", "hades-f", "--init-seed", "9" * 30), "init_seed"),
        (("--env", "diagnostic/match", "--init-seed", "3"), "init_seed: hades-r draws fresh initialisations"),
        (("--env", "diagnostic/match", "--method", "hades-f", "--num-inits", "2"), "num_inits: hades-f has one"),
        (("--env", "diagnostic/match", "--cloning.loss", "mse"), "cross_entropy expected, got mse"),
        (("--env", "diagnostic/match", "--cloning.learning-rate", "nan"), "learning_rate: expected a number above 0"),
        (("--env", "diagnostic/match", "--evolution.sigma", "-1"), "sigma: expected a number above 0, got -1"),
        (("--env", "diagnostic/match", "--evolution.strategy", "Open-ES"), "strategy"),
        (("--env", "diagnostic/match", "--cloning.policy", "cnn"), "cnn"),
        (("--env", "diagnostic/match", "--normalization-envs", "2"), "normalization_envs: expected none"),
        (("--env", "diagnostic/match", "--checkpoint-seconds", "-1"), "checkpoint_seconds"),
        (("--env", "diagnostic/match", "--checkpoint-seconds", "inf"), "expected a finite number of at least 0"),
        (("--env", "diagnostic/match", "--generations-per-call", "0"), "iterations_per_call"),
        (
            ("--env", "diagnostic/match", "--observation-normalization", "running", "--normalization-envs", "2",
             "--num-episodes", "3"),
            "multiple of 2",
        ),
        (("--env", "diagnostic/match", "--observation-normalization", "running", "--num-episodes", "3"),
         "--evaluation-episodes: expected a multiple of 3"),
    ],
)  # fmt: skip
def test_bad_arguments_of_distill_are_one_sentence_and_leave_nothing(
    hades: Callable[..., Outcome], tmp_path: Path, flags: tuple[str, ...], words: str
) -> None:
    outcome = hades("distill", "--out", tmp_path / "run", *flags)
    assert outcome.code == 2, outcome.err
    assert words in outcome.unboxed
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("evaluate", "--env", "diagnostic/target"), "--env: observations of diagnostic/target have shape (2,)"),
        (("evaluate", "--env", "nowhere"), "--env: unknown environment 'nowhere'"),
        (("evaluate", "--num-inits", "0"), "num_inits: expected a number above 0, got 0"),
        (("evaluate", "--num-episodes", "-1"), "num_episodes: expected a number above 0, got -1"),
        (("evaluate", "--seed", "9" * 30), "seed: expected an integer from 0 to 4294967295"),
        (("train", "--env", "diagnostic/target"), "--env: observations of diagnostic/target have shape (2,)"),
        (("train", "--cloning.loss", "mse"), "loss"),
        (("train", "--cloning.policy", "cnn"), "cnn"),
        (("train", "--cloning.num-steps", "0"), "num_steps: expected a number above 0, got 0"),
        (("train", "--num-episodes", "0"), "num_episodes: expected a number above 0, got 0"),
    ],
)
def test_bad_arguments_beside_a_good_file_are_one_sentence(
    hades: Callable[..., Outcome], finished_run: Path, arguments: tuple[str, ...], words: str
) -> None:
    before = {path.name for path in finished_run.iterdir()}
    verb, *flags = arguments
    outcome = hades(verb, finished_run / "dataset.npz", *flags)
    assert outcome.code == 2, outcome.err
    assert words in outcome.unboxed
    assert {path.name for path in finished_run.iterdir()} == before


def test_folder_below_a_file_or_in_proc_cannot_be_made(hades: Callable[..., Outcome], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", Path("/proc/no-such-place")):
        outcome = hades("distill", *TINY, "--out", place / "run")
        assert outcome.code == 1
        assert outcome.complaint.startswith(f"hades distill: {place}")
    assert hades("distill", *TINY, "--out", tmp_path / "file").code == 1


def test_the_folder_of_a_policy_is_made_unless_a_file_is_in_the_way(
    hades: Callable[..., Outcome], finished_run: Path, tmp_path: Path
) -> None:
    new = tmp_path / "new" / "folder" / "policy.npz"
    assert hades("train", finished_run, "--out", new).code == 0 and new.is_file()
    outcome = hades("train", finished_run, "--out", new / "policy.npz")
    assert outcome.code == 1
    assert outcome.complaint == f"hades train: {new}: File exists"


def test_program_that_needs_more_memory_than_there_is_ends_in_one_sentence(
    hades: Callable[..., Outcome], tmp_path: Path
) -> None:
    outcome = hades("distill", *TINY, "--out", tmp_path / "run", "--dataset-size", str(2**40))
    assert outcome.code == 1
    assert "Traceback" not in outcome.err
    assert outcome.err.splitlines()[-1].startswith("hades distill: ")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("mounting a small file system is not permitted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> None:
    with (folder / "filler").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return


def test_full_disk_ends_in_one_sentence_and_keeps_what_was_there(
    hades: Callable[..., Outcome], small_disk: Path
) -> None:
    out = small_disk / "run"
    assert hades("distill", *TINY, "--out", out).code == 0
    good = {name: (out / name).read_bytes() for name in ("dataset.npz", "best_dataset.npz", "config.json")}
    fill(small_disk)
    outcome = hades("distill", "--out", out, "--resume", "--num-generations", "8")
    assert outcome.code == 1
    last = outcome.err.splitlines()[-1]
    assert last.startswith(f"hades distill: {out}/")
    assert "No space left on device" in last
    assert "Traceback" not in outcome.err
    assert {name: (out / name).read_bytes() for name in good} == good
    with Checkpoints(out / "checkpoints") as checkpoints:
        assert checkpoints.latest == 4
    (small_disk / "filler").unlink()
    assert hades("distill", "--out", out, "--resume", "--num-generations", "8").code == 0


@pytest.mark.parametrize("place", ["append_metrics", "save_checkpoint", "save"])
def test_disk_that_fills_up_during_a_run_ends_in_one_sentence(
    hades: Callable[..., Outcome], small_disk: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Full from the second call on, at the first write of each kind."""
    owner, flags = {
        "append_metrics": (RunDirectory, ()),
        "save_checkpoint": (HostLoop, ("--checkpoint-seconds", "0")),
        "save": (SyntheticDataset, ()),
    }[place]
    original = getattr(owner, place)
    calls = []

    def full(*arguments: Any) -> Any:
        calls.append(place)
        if len(calls) == (3 if place == "save" else 2):
            fill(small_disk)
        return original(*arguments)

    monkeypatch.setattr(owner, place, full)
    out = small_disk / "run"
    outcome = hades("distill", *TINY, "--out", out, *flags)
    assert outcome.code == 1, outcome.err
    last = outcome.err.splitlines()[-1]
    assert last.startswith(f"hades distill: {out}/"), outcome.err
    assert "No space left on device" in last
    assert "Traceback" not in outcome.err
    monkeypatch.undo()
    SyntheticDataset.load(out / "dataset.npz")
    SyntheticDataset.load(out / "best_dataset.npz")
    (small_disk / "filler").unlink()
    assert hades("distill", "--out", out, "--resume").code == 0
    assert json.loads((out / "summary.json").read_text())["iterations"] == 4
