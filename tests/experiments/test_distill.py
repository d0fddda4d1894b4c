"""`hades distill`: what a run leaves behind, and that its `config.json` is enough to begin it again."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest

import hades as library
from envs import make
from experiments.commands import distill
from experiments.settings import DistillSettings
from hades import recipes, tuning
from hades._npz import read_arrays, write_arrays
from hades._serialization import from_dict
from hades.dataset import SyntheticDataset
from hades.keys import Stream, stream
from hades.tuning import Trial
from tests.experiments.command import CONTRACT_FILES, TINY, TINY_GRADIENTS, Outcome, make_run

GIVEN = {TINY.index(flag) + place for flag in ("--dataset-size", "--statistics-episodes") for place in (0, 1)}
FREE = tuple(word for index, word in enumerate(TINY) if index not in GIVEN)
"""TINY without what a warm start gives."""


def rows_of(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_run_leaves_exactly_the_files_of_the_contract(finished_run: Path) -> None:
    assert {path.name for path in finished_run.iterdir()} == CONTRACT_FILES
    for picture in ("curve.png", "dataset.png"):
        assert (finished_run / picture).read_bytes().startswith(b"\x89PNG")


def test_metrics_have_one_row_an_iteration(finished_run: Path) -> None:
    rows = rows_of(finished_run)
    assert [row["iteration"] for row in rows] == [1, 2, 3, 4]
    assert all(math.isfinite(value) for row in rows for value in row.values())
    assert [row["iteration"] for row in rows if "evaluation_mean" in row] == [2, 4]
    assert all(before["seconds"] <= after["seconds"] for before, after in itertools.pairwise(rows))


def test_datasets_say_what_the_run_was(finished_run: Path, fixed_init_run: Path) -> None:
    best = SyntheticDataset.load(finished_run / "best_dataset.npz").metadata
    last = SyntheticDataset.load(finished_run / "dataset.npz").metadata
    assert best is not None
    assert last is not None
    assert (best.env, best.method, best.init_seed, best.seed) == ("diagnostic/match", "hades-r", None, 0)
    assert best.cloning.hidden_sizes == (4,)
    assert best.evaluation is not None
    assert (best.evaluation.num_inits, best.evaluation.num_episodes) == (2, 2)
    assert last == dataclasses.replace(best, evaluation=None)
    fixed = SyntheticDataset.load(fixed_init_run / "best_dataset.npz")
    assert fixed.metadata is not None
    assert (fixed.metadata.method, fixed.metadata.init_seed) == ("hades-f", 7)
    assert fixed.actions is not None


def test_config_is_enough_to_begin_the_run_again(finished_run: Path, tmp_path: Path) -> None:
    config = json.loads((finished_run / "config.json").read_text())
    assert (config["command"], config["method"], config["key"]) == ("distill", "hades-r", [0, 0])
    names = {field.name for field in dataclasses.fields(DistillSettings)}
    settings = from_dict(DistillSettings, {name: value for name, value in config.items() if name in names})
    assert settings.env is not None
    run = recipes.from_settings(settings.options.make(settings.env), settings.settings)
    library.distill(
        jax.random.key(settings.seed),
        run,
        settings.num_iterations,
        out=tmp_path / "again",
        loop=settings.loop,
        progress=False,
    )
    for name in ("dataset.npz", "best_dataset.npz"):
        assert (tmp_path / "again" / name).read_bytes() == (finished_run / name).read_bytes()


def test_versions_name_packages_and_devices(finished_run: Path) -> None:
    versions = json.loads((finished_run / "versions.json").read_text())
    assert {"hades", "jax", "evosax", "brax", "gymnax"} <= set(versions["packages"])
    assert versions["devices"]
    assert set(versions) == {
        "packages", "python", "platform", "devices", "device_count", "processes", "git_commit"
    }  # fmt: skip


def test_json_is_all_of_stdout_and_the_rest_goes_to_stderr(hades: Callable[..., Outcome], tmp_path: Path) -> None:
    outcome = hades("distill", *TINY, "--out", tmp_path / "run", "--json", "--seed", "5")
    assert outcome.code == 0
    summary = outcome.json
    assert summary == json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["env"], summary["iterations"]) == ("diagnostic/match", 4)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert summary["best_score"] == max(row["evaluation_mean"] for row in rows if "evaluation_mean" in row)
    assert set(summary["evaluations"]) == {"best dataset", "last dataset", "zero dataset", "untrained policy"}
    for words in ("4 iterations", "best_dataset.npz (of iteration", "mean return"):
        assert words in outcome.err
    metadata = SyntheticDataset.load(tmp_path / "run" / "dataset.npz").metadata
    assert metadata is not None
    assert metadata.seed == 5


def test_default_folder_is_named_after_the_run(hades: Callable[..., Outcome]) -> None:
    assert hades("distill", *TINY).code == 0
    assert Path("runs/diagnostic-match-hades-r-seed0/summary.json").is_file()


def test_environment_with_its_own_option_goes_round(hades: Callable[..., Outcome], tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert hades("distill", *TINY, "--env", "diagnostic/fixed-length", "--max-steps", "3", "--out", out).code == 0
    metadata = SyntheticDataset.load(out / "dataset.npz").metadata
    assert metadata is not None
    assert (metadata.max_episode_steps, dict(metadata.env_options)) == (3, {"length": 3})
    # The file alone says how long its episodes are.
    evaluated = hades("evaluate", out, "--num-inits", "2", "--num-episodes", "2", "--json").json
    assert (evaluated["mean"], evaluated["std"]) == (3.0, 0.0)


def test_run_whose_returns_are_never_finite_still_ends(hades: Callable[..., Outcome], tmp_path: Path) -> None:
    out = tmp_path / "run"
    outcome = hades("distill", *TINY, "--env", "diagnostic/nan", "--out", out)
    assert outcome.code == 0, outcome.err
    assert all(np.isfinite(SyntheticDataset.load(out / "dataset.npz").observations).ravel())
    assert json.loads((out / "summary.json").read_text())["iterations"] == 4
    assert hades("info", out).code == 0


def test_tensorboard_events_are_written(hades: Callable[..., Outcome], tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    outcome = hades("distill", *TINY, "--out", tmp_path / "run", "--tensorboard")
    assert outcome.code == 0
    (events,) = (tmp_path / "run" / "tensorboard").glob("events.out.tfevents.*")
    assert b"fitness_mean" in events.read_bytes()
    assert b"evaluation_mean" in events.read_bytes()


@pytest.mark.parametrize(("flags", "module"), [(("--wandb", "project"), "wandb"), (("--tensorboard",), "tensorboardX")])
def test_logger_that_is_not_installed_is_refused_before_anything_is_written(
    hades: Callable[..., Outcome],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    flags: tuple[str, ...],
    module: str,
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    outcome = hades("distill", *TINY, "--out", tmp_path / "run", *flags)
    assert outcome.code == 2
    extra = module.removesuffix("X")
    assert outcome.complaint == f"hades distill: --{extra}: needs {module}, install hades-distillation[{extra}]"
    assert not (tmp_path / "run").exists()


def test_seed_changes_the_dataset(finished_run: Path, tmp_path: Path) -> None:
    other = make_run(tmp_path / "run", "--seed", "1")
    assert (other / "dataset.npz").read_bytes() != (finished_run / "dataset.npz").read_bytes()


def test_chunk_sizes_are_chosen_once_and_belong_to_the_run(
    hades: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tuning, "_remember", lambda *_: None)
    monkeypatch.setattr(tuning, "_recall", lambda *_: None)
    # Two candidates at once are the quickest.
    seconds = {None: 3.0, 4: 2.0, 2: 1.0, 1: 2.0}
    monkeypatch.setattr(
        tuning, "_measure", lambda run, state, sizes, limit: Trial(sizes, 1, seconds[sizes["rollout_chunk_size"]])
    )
    tuned = (*TINY, "--devices", "1", "--tune-chunks")
    outcome = hades("distill", *tuned, "--out", tmp_path)
    assert outcome.code == 0, outcome.err
    assert "chosen: rollout chunk size 2, cloning chunk size 2" in outcome.err
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["settings"]["rollout_chunk_size"], config["settings"]["cloning_chunk_size"]) == (2, 2)
    seconds[2] = 9.0
    again = hades("distill", *tuned, "--num-iterations", "6", "--out", tmp_path, "--resume")
    assert again.code == 0, again.err
    assert "chosen" not in again.err
    untuned = (*TINY, "--devices", "1", "--out", tmp_path / "untuned")
    assert hades("distill", *untuned).code == 0
    late = hades("distill", *untuned, "--tune-chunks", "--resume")
    assert "--tune-chunks: the run in" in late.unboxed and late.code == 2
    refused = hades("distill", *tuned, "--rollout-chunk-size", "4", "--out", tmp_path / "other")
    assert refused.complaint == "hades distill: --rollout-chunk-size: expected none beside --tune-chunks"


def test_a_run_of_codes_goes_on_with_its_own_components_alone(hades: Callable[..., Outcome], tmp_path: Path) -> None:
    codes = (*TINY, "--num-codes", "2", "--out", tmp_path)
    assert hades("distill", *codes).code == 0
    more = ("--num-iterations", "6", "--out", tmp_path, "--resume")
    assert hades("distill", *more).code == 0
    config, arrays = tmp_path / "config.json", tmp_path / "arrays.npz"
    for content, words in (
        ({"0": np.zeros(3)}, "arrays.npz: expected arrays of shapes"),
        ({name: value + 1 for name, value in read_arrays(arrays).items()}, "arrays.npz: expected the arrays that the"),
    ):
        write_arrays(arrays, content)
        damaged = hades("distill", *more)
        assert damaged.code == 1 and words in damaged.unboxed
    # As of a run of version 0.2, on a machine that measures others.
    arrays.unlink()
    saved = json.loads(config.read_text())
    config.write_text(json.dumps(saved | {"arrays": "00000000"}))
    outcome = hades("distill", *more)
    assert outcome.code == 2
    assert f"--num-codes: the run in {tmp_path} has other components" in outcome.unboxed
    for flags, words in (
        (("--codes-seed", "1"), "--codes-seed: expected none without --num-codes"),
        (("--num-codes", "2", "--codes-seed", "-1"), "codes_seed: expected an integer from 0 to 4294967295, got -1"),
        (("--num-codes", "9"), "num_codes: expected at most 3, the components of the states, got 9"),
        (("--num-codes", "2", "--statistics-of", "zoo:cartpole"), "--statistics-of: expected none beside --num-codes"),
    ):
        refused = hades("distill", *TINY, *flags, "--out", tmp_path / "other")
        assert refused.code == 2 and words in refused.unboxed


def test_arrays_of_a_run_that_never_began_are_no_others(hades: Callable[..., Outcome], tmp_path: Path) -> None:
    write_arrays(tmp_path / "arrays.npz", {"0": np.zeros(3)})
    refused = hades("distill", *TINY, "--num-codes", "9", "--out", tmp_path / "new")
    assert refused.code == 2 and not (tmp_path / "new").exists()
    assert hades("distill", *TINY, "--out", tmp_path).code == 0
    assert not (tmp_path / "arrays.npz").exists()


def test_a_warm_start_begins_at_the_pairs_and_statistics_of_a_file(
    hades: Callable[..., Outcome], finished_run: Path, tmp_path: Path
) -> None:
    first = SyntheticDataset.load(finished_run / "best_dataset.npz")
    # Steps too small to be seen.
    still = ("--evolution.sigma", "1e-7", "--evolution.learning-rate", "1e-7")
    outcome = hades("distill", *FREE, *still, "--warm-start", finished_run, "--out", tmp_path / "warm")
    assert outcome.code == 0, outcome.err
    last = SyntheticDataset.load(tmp_path / "warm" / "dataset.npz")
    np.testing.assert_allclose(last.observations, first.observations, atol=1e-4)
    np.testing.assert_allclose(last.action_probabilities, first.action_probabilities, atol=1e-4)
    np.testing.assert_array_equal(last.observation_mean, first.observation_mean)
    np.testing.assert_array_equal(last.observation_std, first.observation_std)
    more = ("--num-iterations", "6", "--out", tmp_path / "warm", "--resume")
    assert hades("distill", *more).code == 0
    assert [row["iteration"] for row in rows_of(tmp_path / "warm")] == [1, 2, 3, 4, 5, 6]


def test_a_run_is_not_resumed_with_other_first_pairs(
    hades: Callable[..., Outcome], finished_run: Path, tmp_path: Path
) -> None:
    file, out = tmp_path / "first.npz", tmp_path / "warm"
    dataset = SyntheticDataset.load(finished_run / "best_dataset.npz")
    dataset.save(file)
    assert hades("distill", *FREE, "--warm-start", file, "--out", out).code == 0
    moved = file.rename(tmp_path / "moved.npz")
    more = ("--num-iterations", "6", "--out", out, "--resume")
    assert hades("distill", *more, "--warm-start", moved).code == 0
    dataclasses.replace(dataset, observations=dataset.observations + 1).save(moved)
    outcome = hades("distill", *more)
    assert outcome.code == 2
    assert f"--warm-start: the run in {out} has a file of checksum" in outcome.unboxed


@pytest.mark.parametrize("method", ["hades-r", pytest.param("hades-pg", marks=pytest.mark.slow)])
def test_statistics_of_a_file_are_those_of_the_run_and_of_the_runs_that_go_on(
    hades: Callable[..., Outcome],
    finished_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
) -> None:
    file, out = tmp_path / "first.npz", tmp_path / "run"
    dataset = SyntheticDataset.load(finished_run / "best_dataset.npz")
    dataset.save(file)
    tiny = TINY_GRADIENTS if method == "hades-pg" else TINY
    outcome = hades("distill", *tiny, "--seed", "5", "--statistics-of", file, "--out", out)
    assert outcome.code == 0, outcome.err
    key = stream(jax.random.key(5), Stream.STATISTICS)
    expected = recipes.measure_visited_statistics(key, make("diagnostic/match"), dataset, random_episodes=4)
    for name in ("dataset.npz", "best_dataset.npz"):
        found = SyntheticDataset.load(out / name)
        np.testing.assert_allclose(found.observation_mean, expected.mean, rtol=1e-6)
        np.testing.assert_allclose(found.observation_std, expected.std, rtol=1e-6)
    assert not np.allclose(dataset.observation_mean, expected.mean, rtol=1e-2)
    more = ("--num-iterations", "6", "--out", out, "--resume")
    moved = file.rename(tmp_path / "moved.npz")
    gone = hades("distill", *more)
    assert gone.code == 1 and f"{file}: expected an .npz file, found nothing there" in gone.unboxed
    assert hades("distill", *more, "--statistics-of", moved).code == 0
    assert [row["iteration"] for row in rows_of(out)] == [1, 2, 3, 4, 5, 6]
    # Another machine measures others, and goes on with those that are kept.
    with monkeypatch.context() as elsewhere:
        measured = dataclasses.replace(expected, mean=expected.mean + 1e-3)
        elsewhere.setattr(distill, "_statistics", lambda *_: measured)
        assert hades("distill", *more[2:], "--num-iterations", "8", "--statistics-of", moved).code == 0
    assert rows_of(out)[-1]["iteration"] == 8
    (out / "arrays.npz").unlink()
    np.testing.assert_array_equal(SyntheticDataset.load(out / "dataset.npz").observation_mean, found.observation_mean)
    config = out / "config.json"
    saved = json.loads(config.read_text())
    config.write_text(json.dumps(saved | {"arrays": "00000000"}))
    more = ("--num-iterations", "8", "--out", out, "--resume")
    other = hades("distill", *more, "--statistics-of", moved)
    assert other.code == 2
    assert f"--statistics-of: the run in {out} has other statistics than this machine measures" in other.unboxed
    dataclasses.replace(dataset, observations=dataset.observations + 1).save(moved)
    other = hades("distill", *more, "--statistics-of", moved)
    assert other.code == 2
    assert f"--statistics-of: the run in {out} has a file of checksum" in other.unboxed


UNSUITABLE_PAIRS = [
    (("--dataset-size", "3"), "--dataset-size: expected none beside --warm-start", 2),
    (("--observation-normalization", "none"), "warm_start: expected a dataset of none observation statistics", 2),
    (("--observation-normalization", "running"), "expected a dataset of running observation statistics", 2),
    (("--env", "diagnostic/target"), "the dataset", 2),
    (("--warm-start", "nowhere.npz"), "nowhere.npz: expected an .npz file, found nothing there", 1),
    (("--warm-start", "zoo:cart-pole"), "zoo: there is no 'cart-pole', the nearest are cartpole", 2),
]
UNSUITABLE_STATISTICS = [
    (("--observation-normalization", "running"), "statistics_of: expected none beside observation_normalization", 2),
    (("--warm-start", "zoo:cartpole"), "--statistics-of: expected none beside --warm-start", 2),
    (("--env", "diagnostic/target"), "--env: observations of diagnostic/target have shape (2,), the dataset's", 2),
    (("--statistics-of", "nowhere.npz"), "nowhere.npz: expected an .npz file, found nothing there", 1),
]


@pytest.mark.parametrize(
    ("taken", "flags", "words", "code"),
    [
        *(("--warm-start", *case) for case in UNSUITABLE_PAIRS),
        *(("--statistics-of", *case) for case in UNSUITABLE_STATISTICS),
    ],
)
def test_a_file_that_does_not_suit_is_one_sentence(
    hades: Callable[..., Outcome], finished_run: Path, taken: str, flags: tuple[str, ...], words: str, code: int
) -> None:
    outcome = hades("distill", "--env", "diagnostic/match", taken, finished_run, *flags, "--out", "other")
    assert outcome.code == code
    assert words in outcome.unboxed
    assert "Traceback" not in outcome.err
