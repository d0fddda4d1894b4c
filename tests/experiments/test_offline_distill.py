"""`hades offline distill`: what a run leaves behind, that it resumes, and what it refuses; and both its benchmarks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import envs
from experiments import running
from experiments.bench._lib.seeds import table_key
from experiments.bench.offline import OfflineBenchSettings
from experiments.commands.offline.distill import COMMAND
from hades import policies
from hades._run_directory import RunDirectory
from hades.dataset import SyntheticDataset
from hades.evaluation import dataset_evaluator
from hades.inner.cloning import CloningSettings
from hades.metadata import FileMetadata
from hades.normalization import PolicyParams
from hades.offline import d4rl
from hades.offline.collect import collect, uniform_behaviour
from hades.policy_file import TrainedPolicy
from tests.experiments.command import CONTRACT_FILES, TINY_LOOP, Outcome, exit_code, rows_without_seconds
from tests.helpers import make_teacher, uniform_transitions

METHOD = (
    "--dataset-size", "4", "--num-states", "16", "--cloning.hidden-sizes", "4", "--cloning.num-steps", "3",
)  # fmt: skip
TINY = (*METHOD, "--num-generations", "4", *TINY_LOOP)
OBJECTIVES = ("dbc", "pbc", "pbc-mean-weight", "av-pbc", "q-pbc", "sdw-pbc", "sdw-av-pbc")
COUNT = 70


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data and teachers of `diagnostic/target`, and of others, not to be changed."""
    folder = tmp_path_factory.mktemp("offline")
    d4rl.save(uniform_transitions(count=COUNT), folder / "data.hdf5")
    d4rl.save(uniform_transitions(None, COUNT), folder / "nameless.hdf5")
    d4rl.save(uniform_transitions("gymnax/Pendulum-v1", COUNT, 3), folder / "other.hdf5")
    (folder / "broken.hdf5").write_text("text")
    make_teacher().save(folder / "teacher.npz")
    make_teacher(3, 1).save(folder / "other.npz")
    return folder


def tiny(files: Path, *flags: str | Path) -> tuple[str | Path, ...]:
    return ("offline", "distill", "--data", files / "data.hdf5", "--teacher", files / "teacher.npz", *TINY, *flags)


@pytest.fixture(scope="session")
def offline_run(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of a finished run of Av-PBC, not to be changed."""
    out = tmp_path_factory.mktemp("runs") / "offline"
    assert exit_code(*tiny(files, "--out", out)) == 0
    return out


@pytest.fixture
def copy(offline_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(offline_run, tmp_path / "copy"))


def test_run_leaves_the_files_of_the_contract(offline_run: Path, files: Path) -> None:
    assert {path.name for path in offline_run.iterdir()} == CONTRACT_FILES
    for picture in ("curve.png", "dataset.png"):
        assert (offline_run / picture).read_bytes().startswith(b"\x89PNG")
    config = json.loads((offline_run / "config.json").read_text())
    assert (config["command"], config["env"]) == ("offline distill", "diagnostic/target")
    assert (config["data"], config["teacher"]) == (str(files / "data.hdf5"), str(files / "teacher.npz"))
    rows = rows_without_seconds(offline_run)
    assert [row["iteration"] for row in rows] == [1, 2, 3, 4]
    assert [row["iteration"] for row in rows if "evaluation_mean" in row] == [2, 4]
    # Distilling plays in no simulator.
    assert rows[-1]["total_env_steps"] == 0
    dataset = SyntheticDataset.load(offline_run / "best_dataset.npz")
    assert dataset.metadata is not None
    assert dataset.metadata.evaluation is not None
    assert (dataset.metadata.env, dataset.metadata.method) == ("diagnostic/target", "av-pbc")
    assert dataset.metadata.cloning.action_distribution == "tanh_gaussian"
    np.testing.assert_array_equal(dataset.observation_mean, d4rl.load(files / "data.hdf5").statistics().mean)


def test_json_is_the_summary_of_the_run(hades: Callable[..., Outcome], files: Path, tmp_path: Path) -> None:
    outcome = hades(*tiny(files, "--objective", "pbc", "--seed", "3", "--json"))
    assert outcome.code == 0, outcome.err
    folder = Path("runs/diagnostic-target-pbc-seed3")
    assert outcome.json == json.loads((folder / "summary.json").read_text())
    relabelled = "random states, teacher's actions"
    names = {"best dataset", "last dataset", "random real pairs", relabelled, "zero dataset", "untrained policy"}
    assert set(outcome.json["evaluations"]) == names
    assert (outcome.json["env"], outcome.json["iterations"]) == ("diagnostic/target", 4)
    assert "random real pairs" in outcome.err
    assert SyntheticDataset.load(folder / "dataset.npz").num_pairs == 4


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_makes_its_run(files: Path, objective: str) -> None:
    density = ("--density", "knn") if objective.startswith("sdw") else ()
    arguments = [str(argument) for argument in tiny(files, "--objective", objective, *density)[2:]]
    run = running.build(running.resolve(COMMAND, arguments), COMMAND)
    assert run.settings.objective == objective


@pytest.mark.parametrize("objective", ["dbc", "sdw-av-pbc"])
def test_runs_with_the_least_and_with_the_most(
    hades: Callable[..., Outcome], files: Path, tmp_path: Path, objective: str
) -> None:
    # Neither teacher nor density, and both.
    teacher = () if objective == "dbc" else ("--teacher", files / "teacher.npz", "--density", "knn")
    flags = ("--data", files / "data.hdf5", *teacher, *TINY, "--num-generations", "2", "--objective", objective)
    outcome = hades("offline", "distill", *flags, "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    metadata = SyntheticDataset.load(tmp_path / "run" / "dataset.npz").metadata
    assert metadata is not None
    assert metadata.method == objective


def test_run_that_was_stopped_goes_on_to_the_same_end(
    hades: Callable[..., Outcome], files: Path, offline_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(files)
    out = tmp_path / "run"
    start = ("offline", "distill", "--data", "data.hdf5", "--teacher", "teacher.npz", *TINY, "--num-generations", "2")
    assert hades(*start, "--out", out).code == 0
    monkeypatch.chdir(tmp_path)
    # From another folder, with nothing but the run's own settings.
    outcome = hades("offline", "distill", "--out", out, "--resume", "--num-generations", "4")
    assert outcome.code == 0, outcome.err
    assert rows_without_seconds(out) == rows_without_seconds(offline_run)
    for name in ("dataset.npz", "best_dataset.npz"):
        assert (out / name).read_bytes() == (offline_run / name).read_bytes()


def test_the_same_files_by_another_path_are_no_contradiction(
    hades: Callable[..., Outcome], files: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (copy / "dataset.npz").read_bytes()
    monkeypatch.chdir(files)
    outcome = hades("offline", "distill", "--out", copy, "--resume", "--data", "data.hdf5")
    assert outcome.code == 0, outcome.err
    assert (copy / "dataset.npz").read_bytes() == before


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--objective", "pbc"), "--objective: the run in {run} has av-pbc, got pbc; choose another --out"),
        (("--data", "nameless.hdf5"), "--data: the run in {run} has a file of checksum"),
        (("--teacher", "other.npz"), "--teacher: the run in {run} has a file of checksum"),
        (("--meta-gradient.learning-rate", "0.5"), "--meta-gradient.learning-rate: the run in {run} has 0.01, got 0.5"),
        (("--flow.num-layers", "9"), "--flow.num-layers: the run in {run} has"),
        (("--num-generations", "2"), "--num-iterations: the run in {run} has done 4, got 2"),
    ],
)
def test_resuming_refuses_what_contradicts_the_run(
    hades: Callable[..., Outcome],
    files: Path,
    offline_run: Path,
    monkeypatch: pytest.MonkeyPatch,
    flags: tuple[str, ...],
    words: str,
) -> None:
    monkeypatch.chdir(files)
    outcome = hades("offline", "distill", "--out", offline_run, "--resume", *flags)
    assert outcome.code == 2
    assert words.format(run=offline_run, files=files) in outcome.complaint


def test_a_run_goes_on_with_files_that_moved(
    hades: Callable[..., Outcome], files: Path, offline_run: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(offline_run, tmp_path / "run")
    moved = [shutil.copy(files / name, tmp_path / f"moved-{name}") for name in ("data.hdf5", "teacher.npz")]
    outcome = hades(
        "offline",
        "distill",
        "--out",
        copy,
        "--resume",
        "--data",
        moved[0],
        "--teacher",
        moved[1],
        "--num-iterations",
        "6",
    )
    assert outcome.code == 0, outcome.err
    assert RunDirectory(copy).read_metrics()[-1]["iteration"] == 6


def test_runs_of_the_version_before_go_on_without_what_is_new(offline_run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(offline_run, tmp_path / "run")
    config = json.loads((copy / "config.json").read_text())
    for name in ("bounded_actions", "first_actions"):
        del config["settings"][name]
    (copy / "config.json").write_text(json.dumps(config))
    settings: Any = running.resolve(COMMAND, ["--out", str(copy), "--resume"])
    assert (settings.settings.bounded_actions, settings.settings.first_actions) == (False, "data")


@pytest.mark.slow
def test_without_a_simulator_shapes_are_those_of_the_data(
    hades: Callable[..., Outcome], files: Path, tmp_path: Path
) -> None:
    flags = ("--objective", "dbc", "--no-evaluation", *METHOD, "--num-iterations", "2")
    start = ("offline", "distill", "--data", files / "nameless.hdf5", "--out", tmp_path / "run", *flags)
    refused = hades(*start, "--action-low", "1", "2", "3", "4", "5")
    assert refused.code == 2 and "--action-low: expected 1 or" in refused.complaint
    assert hades(*start, "--action-high", "7").code == 0
    dataset = SyntheticDataset.load(tmp_path / "run" / "dataset.npz")
    assert dataset.metadata is not None and dataset.metadata.env == "nameless"
    assert hades("info", tmp_path / "run").code == 0
    other = ("offline", "distill", "--data", files / "data.hdf5", "--out", tmp_path / "other", *flags)
    # The file names an environment, whose limit nothing here knows.
    assert hades(*other).code == 0
    dataset = SyntheticDataset.load(tmp_path / "other" / "dataset.npz")
    assert dataset.metadata is not None and dataset.metadata.env == "data"
    assert hades("evaluate", tmp_path / "other", "--env", "diagnostic/target").code == 0
    named = hades(*other[:-2], "--num-iterations", "3", "--env", "diagnostic/target", "--resume")
    assert named.code == 2 and "has data, got diagnostic/target" in named.complaint
    moved = (files / "data.hdf5").rename(files / "moved.hdf5")
    resumed = hades(*("offline", "distill", "--data", moved, *other[4:-1]), "3", "--resume")
    moved.rename(files / "data.hdf5")
    assert resumed.code == 0, resumed.complaint
    bounds = hades("offline", "distill", "--data", files / "data.hdf5", "--objective", "dbc", "--action-low", "-1")
    assert bounds.code == 2 and "--action-low: expected none, as the environment has them" in bounds.complaint
    evaluated = hades("evaluate", tmp_path / "run")
    assert evaluated.code == 1 and "unknown environment 'nameless'" in evaluated.complaint
    assert hades("offline", "distill", "--out", tmp_path / "run", "--resume").code == 0


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--no-evaluation", "--env", "a"), "--env: expected none beside --no-evaluation"),
        (("--no-evaluation", "--backend", "mjx"), "--backend: expected none beside --no-evaluation"),
        (("--no-evaluation", "--max-steps=3"), "--max-steps: expected none beside --no-evaluation"),
        (("--no-evaluation", "--env_module", "os"), "--env-module: expected none beside --no-evaluation"),
        (("--no-evaluation", "--observation-keys", "a"), "--observation-keys: expected none beside --no-evaluation"),
        (("--no-evaluation", "--env-options", "a=1"), "--env-options: expected none beside --no-evaluation"),
        (("--no-evaluation", "--evaluate-every", "2"), "--evaluate-every: expected none beside --no-evaluation"),
        (("--no-evaluation", "--target-return", "2"), "--target-return: expected none beside --no-evaluation"),
        (("--evaluate-every", "None", "--keep-snapshots"), "--keep-snapshots: expected none without --evaluate-every"),
        (("--population-size", "3"), "--population-size: expected none beside --outer meta-gradient"),
        (("--outer", "evolution", "--meta-gradient.window", "2"), "--meta-gradient.window: expected none beside"),
        (("--flow.epochs", "3"), "--flow.epochs: expected none where the objective weighs no states"),
        (("--cloning.momentum", "0.9"), "--cloning.momentum: expected none beside --cloning.optimizer adam"),
        (("--meta-gradient.momentum", "0"), "--meta-gradient.momentum: expected none beside"),
    ],
)
def test_flags_that_another_makes_void_are_refused(
    hades: Callable[..., Outcome], files: Path, tmp_path: Path, flags: tuple[str, ...], words: str
) -> None:
    outcome = hades(
        "offline", "distill", "--data", files / "data.hdf5", "--objective", "dbc", "--out", tmp_path / "run", *flags
    )
    assert outcome.code == 2 and words in outcome.unboxed, outcome.err
    assert not (tmp_path / "run").exists()


def test_benchmarks_and_training_refuse_void_flags_too(
    hades: Callable[..., Outcome], files: Path, offline_run: Path
) -> None:
    sdw = ("--methods", "sdw-pbc", "--density", "knn", "--teacher", files / "teacher.npz")
    for flags, words in (
        (("--density", "knn"), "--density: expected none where the objective weighs no states"),
        ((*sdw, "--flow.epochs", "3"), "--flow.epochs: expected none beside --density knn"),
        ((*sdw, "--effective-sample-size", "0.5", "--density-exponent", "1"), "--density-exponent: expected none"),
    ):
        outcome = hades("bench", "offline", "--data", files / "data.hdf5", *flags)
        assert outcome.code == 2 and words in outcome.unboxed, outcome.err
    trained = hades("train", offline_run, "--cloning.weight-decay", "0.1")
    assert trained.code == 2 and "--cloning.weight-decay: expected none beside" in trained.unboxed


def test_other_verbs_take_the_run(hades: Callable[..., Outcome], offline_run: Path, tmp_path: Path) -> None:
    evaluated = hades("evaluate", offline_run, "--num-inits", "2", "--num-episodes", "3", "--json")
    assert evaluated.code == 0, evaluated.err
    assert (evaluated.json["env"], evaluated.json["num_inits"]) == ("diagnostic/target", 2)
    told = hades("info", offline_run)
    assert told.code == 0, told.err
    assert "av-pbc" in told.out
    flags = ("--cloning.hidden-sizes", "3", "3", "--cloning.optimizer", "adam", "--num-episodes", "2")
    trained = hades("train", offline_run, "--out", tmp_path / "policy.npz", *flags)
    assert trained.code == 0, trained.err
    metadata = TrainedPolicy.load(tmp_path / "policy.npz").metadata
    assert metadata is not None
    assert metadata.cloning.hidden_sizes == (3, 3)


def test_paper_preset_has_the_published_settings_and_flags_override_it(files: Path) -> None:
    flags = ("--data", str(files / "data.hdf5"), "--preset", "paper")
    settings: Any = running.resolve(COMMAND, [*flags, "--objective", "sdw-av-pbc", "--dataset-size", "16"])
    assert (settings.num_iterations, settings.settings.num_states) == (50_000, 2560)
    assert settings.settings.cloning.hidden_sizes == (256, 256, 256)
    assert (settings.settings.objective, settings.settings.dataset_size) == ("sdw-av-pbc", 16)
    assert settings.out == Path("runs/diagnostic-target-paper-sdw-av-pbc-seed0")


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        ((), 2, "--data: expected an HDF5 file"),
        (("--data", "absent.hdf5"), 1, "absent.hdf5: expected an HDF5 file, found nothing there"),
        (
            ("--data", "absent.hdf5", "--env", "diagnostic/target"),
            1,
            "absent.hdf5: expected an HDF5 file, found nothing there",
        ),
        (("--data", "broken.hdf5"), 1, "broken.hdf5: expected an HDF5 file, found another format"),
        (("--data", "nameless.hdf5"), 2, "--env: nameless.hdf5 does not name its environment"),
        (("--data", "data.hdf5"), 2, "teacher: av-pbc needs one, such as hades offline teach trains, got none"),
        (
            ("--data", "data.hdf5", "--objective", "dbc", "--initialization", "kmeans-highest-q"),
            2,
            "invalid choice",
        ),
        (
            ("--data", "data.hdf5", "--objective", "dbc", "--initialization", "highest_q"),
            2,
            "teacher: initialization highest_q needs one, got none",
        ),
        (("--data", "data.hdf5", "--teacher", "absent.npz"), 1, "absent.npz: "),
        (("--data", "data.hdf5", "--teacher", "data.hdf5"), 1, "data.hdf5: expected an .npz file"),
        (
            ("--data", "data.hdf5", "--teacher", "other.npz"),
            2,
            "other.npz: teacher: expected observations of shape (2,) as of diagnostic/target",
        ),
        (
            ("--data", "other.hdf5", "--env", "diagnostic/target", "--objective", "dbc"),
            2,
            "other.hdf5: observations: expected shape (2,) as of diagnostic/target, got (3,)",
        ),
        (("--data", "data.hdf5", "--env", "nowhere"), 2, "unknown environment 'nowhere'"),
        (
            ("--data", "data.hdf5", "--objective", "dbc", "--dataset-size", "71"),
            2,
            "dataset_size: expected at most 70, the transitions of the data, got 71",
        ),
        (("--data", "data.hdf5", "--preset", "papers"), 2, "--preset: there is no 'papers', the nearest are paper"),
        (("--data", "data.hdf5", "--objective", "bc"), 2, "objective: expected one of dbc, pbc, av-pbc"),
        (("--data", "data.hdf5", "--density-exponent", "-1"), 2, "density_exponent: expected a number of at least 0"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(
    hades: Callable[..., Outcome],
    files: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    flags: tuple[str, ...],
    code: int,
    words: str,
) -> None:
    monkeypatch.chdir(files)
    outcome = hades("offline", "distill", "--out", tmp_path / "run", *flags)
    assert outcome.code == code, outcome.err
    assert words in outcome.unboxed
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_offline_benchmark_scores_objectives_beside_their_references(
    hades: Callable[..., Outcome], files: Path, tmp_path: Path
) -> None:
    out, datasets = tmp_path / "result.json", tmp_path / "datasets"
    outcome = hades(
        "bench", "offline", "--data", files / "data.hdf5", "--teacher", files / "teacher.npz", *METHOD,
        "--methods", "av-pbc", "--num-seeds", "2", "--num-steps", "1", "--evaluation-inits", "2",
        "--evaluation-episodes", "3", "--ensemble", "2", "--all-data-steps", "2", "--datasets", datasets,
        "--out", out, "--json",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    result = outcome.json
    assert json.loads(out.read_text()) == result
    references = ["untrained policy", "zero dataset", "random real pairs", "random states, teacher's actions"]
    others = ["av-pbc, ensemble of 2", "behaviour cloning on all data", "cloning the teacher on all states", "teacher"]
    assert list(result["rows"]) == [*references, "av-pbc", *others]
    for row in result["rows"].values():
        assert np.shape(row["scores"]) == (2,)
        low, high = row["ci95"]
        assert low <= row["iqm"] <= high
    distilled = result["rows"]["av-pbc"]
    assert np.shape(distilled["per_init"]) == (2, 2)
    np.testing.assert_allclose(distilled["scores"], np.mean(distilled["per_init"], axis=1), rtol=1e-5)
    assert (distilled["outer_steps"], distilled["non_finite"], np.shape(distilled["objective"])) == (1, 0, (1, 2))
    assert (result["env"], result["scale"], result["num_transitions"]) == ("diagnostic/target", "returns", COUNT)
    names = ["av-pbc-seed0.npz", "av-pbc-seed1.npz"]
    assert sorted(path.name for path in datasets.iterdir()) == names
    # As anyone would score the files.
    for index, name in enumerate(names):
        saved = SyntheticDataset.load(datasets / name)
        scored = dataset_evaluator(envs.make("diagnostic/target"), saved, 2, 3)(table_key(0, index), saved)
        np.testing.assert_allclose(distilled["scores"][index], scored.mean, rtol=1e-4)
    # Nearly the answer of the task, whose worst expectation for a constant is -1/6.
    assert result["rows"]["teacher"]["iqm"] > -0.05


def test_benchmark_without_a_teacher_compares_dbc_with_what_needs_none(
    hades: Callable[..., Outcome], files: Path
) -> None:
    flags = (*METHOD, "--num-seeds", "2", "--num-steps", "1", "--evaluation-inits", "2", "--evaluation-episodes", "2",
             "--all-data-steps", "2")  # fmt: skip
    outcome = hades("bench", "offline", "--data", files / "data.hdf5", *flags, "--json")
    assert outcome.code == 0, outcome.err
    rows = ["untrained policy", "zero dataset", "random real pairs", "dbc", "behaviour cloning on all data"]
    assert list(outcome.json["rows"]) == rows
    refused = hades("bench", "offline", "--data", files / "data.hdf5", *flags, "--methods", "pbc")
    assert refused.code == 2 and "teacher: pbc needs one" in refused.unboxed


@pytest.mark.slow
def test_benchmark_of_discrete_actions_has_a_policy_for_a_teacher(
    hades: Callable[..., Outcome], tmp_path: Path
) -> None:
    env = envs.make("diagnostic/match")
    cloned = CloningSettings(hidden_sizes=(4,))
    policy = policies.from_settings(env, cloned)
    metadata = FileMetadata(
        env=env.name, max_episode_steps=env.max_steps, method="by hand", observation_normalization="none",
        action_selection="sample", cloning=cloned,
    )  # fmt: skip
    TrainedPolicy(PolicyParams(policy.init(jax.random.key(0))), metadata).save(tmp_path / "policy.npz")
    d4rl.save(collect(jax.random.key(1), env, [uniform_behaviour(env)], COUNT, 4), tmp_path / "data.hdf5")
    files = {"data": tmp_path / "data.hdf5", "teacher": tmp_path / "policy.npz"}
    assert OfflineBenchSettings(**files).chosen == ("dbc", "pbc")
    flags = (*METHOD, "--methods", "pbc", "--num-seeds", "1", "--num-steps", "1", "--evaluation-inits", "2",
             "--evaluation-episodes", "2", "--all-data-steps", "2")  # fmt: skip
    outcome = hades("bench", "offline", "--data", files["data"], "--teacher", files["teacher"], *flags, "--json")
    assert outcome.code == 0, outcome.err
    assert list(outcome.json["rows"])[2:] == [
        "random real pairs", "random states, teacher's actions", "pbc", "behaviour cloning on all data",
        "cloning the teacher on all states", "teacher",
    ]  # fmt: skip
    assert np.shape(outcome.json["rows"]["teacher"]["per_init"]) == (1, 1)


@pytest.mark.slow
def test_meta_gradient_benchmark_times_each_number_of_seeds(
    hades: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from experiments.bench import meta_gradient

    def here(
        function: Callable[..., dict[str, Any]], arguments: list[str], label: str, environment: dict[str, str]
    ) -> dict[str, Any]:
        assert label == "2 seeds over 1 devices"
        assert "device_count=1" in environment["XLA_FLAGS"]
        return function(*arguments)

    monkeypatch.setattr(meta_gradient, "measure_apart", here)
    monkeypatch.setattr(meta_gradient, "_TRANSITIONS", 100)
    out = tmp_path / "result.json"
    flags = ("--num-seeds", "2", "--repeats", "2", *METHOD, "--out", out, "--json")
    outcome = hades("bench", "meta-gradient", *flags)
    assert outcome.code == 0, outcome.err
    result = outcome.json
    assert json.loads(out.read_text()) == result
    assert result["settings"]["dataset_size"] == 4
    (measured,) = result["results"]
    assert (measured["num_seeds"], measured["devices"]) == (2, 1)
    assert len(measured["seconds"]["all"]) == len(measured["fitness"]) == 2
    assert min(measured["seconds"]["all"]) <= measured["seconds"]["median"] <= max(measured["seconds"]["all"])
    assert min(measured["compile_seconds"], measured["cpu_seconds"]["median"]) > 0
    assert measured["memory"]["temporary_bytes"] > 0
    assert measured["peak_bytes"] >= measured["imports_bytes"] > 0
    assert "s per outer step" in outcome.err
