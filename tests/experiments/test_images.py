"""`hades images`: a run from a folder of images to its files, accuracies beside references, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import envs
from experiments import running
from experiments.commands.images.distill import COMMAND
from experiments.environments import folder_of_images
from experiments.pictures.content import Content
from experiments.pictures.grids import draw_grids
from experiments.presets import PRESETS, get_preset
from hades._run_directory import RunDirectory
from hades.dataset import SyntheticDataset
from hades.recipes import paper_images
from tests.experiments.command import CONTRACT_FILES, Outcome, exit_code, rows_without_seconds
from tests.images import TEST, TRAIN, write_idx

SMALL = (
    "--num-iterations", "4", "--iterations-per-call", "2", "--evaluate-every", "2", "--evaluation-inits", "2",
    "--evaluation-episodes", "9", "--num-images", "16", "--cloning.policy", "mlp", "--cloning.hidden-sizes", "4",
    "--cloning.num-steps", "3",
)  # fmt: skip
GRADIENT = ("--meta-gradient.window", "2")
TINY = (*SMALL, *GRADIENT)
EVOLUTION = ("--outer", "evolution", "--population-size", "4")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images, not to be changed."""
    return write_idx(tmp_path_factory.mktemp("images") / "Bands", ".gz")


@pytest.fixture(scope="module")
def image_run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of a finished run by meta-gradients, not to be changed."""
    out = tmp_path_factory.mktemp("runs") / "images"
    assert exit_code("images", "distill", "--data", folder, *TINY, "--out", out) == 0
    return out


@pytest.fixture
def copy(image_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(image_run, tmp_path / "copy"))


def test_run_leaves_the_files_of_the_contract(image_run: Path, folder: Path) -> None:
    assert {path.name for path in image_run.iterdir()} == CONTRACT_FILES
    config = RunDirectory(image_run).read_config()
    assert (config["command"], config["env"], config["data"]) == ("images distill", "images/bands", str(folder))
    rows = rows_without_seconds(image_run)
    assert [row["iteration"] for row in rows if "evaluation_mean" in row] == [2, 4]
    assert all(0 <= row["accuracy"] <= 1 and row["fitness_mean"] < 0 for row in rows)
    summary = json.loads((image_run / "summary.json").read_text())
    references = {"random real images", "class means", "zero dataset", "untrained policy"}
    assert set(summary["evaluations"]) == {"best dataset", "last dataset", *references}
    dataset = SyntheticDataset.load(image_run / "best_dataset.npz")
    assert (dataset.observations.shape, dataset.action_probabilities.shape) == ((3, 6, 6, 1), (3, 3))
    assert (dataset.metadata.method, dataset.metadata.max_episode_steps) == ("image-distillation", 1)


@pytest.mark.parametrize(
    "flags", [GRADIENT, pytest.param(EVOLUTION, marks=pytest.mark.slow)], ids=["gradient", "evolution"]
)
def test_resumed_run_ends_in_the_same_bytes(
    hades: Callable[..., Outcome], folder: Path, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    arguments = ("images", "distill", "--data", folder, *SMALL, *flags)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert hades(*arguments, "--out", whole).code == 0
    assert hades(*arguments, "--num-iterations", "2", "--out", parts).code == 0
    # The same files in another place are the same data.
    moved = Path(shutil.copytree(folder, tmp_path / "moved"))
    resume = ("images", "distill", "--out", parts, "--resume", "--num-iterations", "4", "--data", moved)
    assert hades(*resume, "--env", "images/bands").code == 0
    for name in ("dataset.npz", "best_dataset.npz"):
        assert (parts / name).read_bytes() == (whole / name).read_bytes()
    assert rows_without_seconds(parts) == rows_without_seconds(whole)


def test_evaluation_shows_both_splits_and_the_references(hades: Callable[..., Outcome], image_run: Path) -> None:
    outcome = hades("images", "evaluate", image_run, "--num-inits", "3", "--json")
    assert outcome.code == 0, outcome.err
    found = outcome.json
    assert (found["env"], found["num_inits"], found["num_episodes"]) == ("images/bands", 3, TEST)
    assert set(found["splits"]["test"]) == {
        "dataset", "random real images", "class means", "zero dataset", "untrained policy"
    }  # fmt: skip
    assert set(found["splits"]["train"]) == {"dataset"}
    assert found["splits"]["train"]["dataset"]["num_episodes"] == TRAIN
    assert found["mean"] == found["splits"]["test"]["dataset"]["mean"]
    assert "accuracy on train images, images/bands" in outcome.err
    assert "mean accuracy" in outcome.err and "mean return" not in outcome.err


@pytest.mark.slow
def test_other_networks_are_trained_on_a_file(
    hades: Callable[..., Outcome], image_run: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated = hades("evaluate", image_run / "best_dataset.npz", "--num-inits", "2", "--num-episodes", TEST, "--json")
    assert evaluated.json["num_episodes"] == TEST
    assert hades("report", image_run, "--out", "page.html", "--max-removals", "0").code == 0
    words = re.search(r'"words": ?(\{[^}]*\})', Path("page.html").read_text())
    assert words is not None and json.loads(words[1])["evaluation"].startswith("outcome so far, training images")
    # A folder of another run says nothing about the images.
    foreign = Path("foreign")
    foreign.mkdir()
    (foreign / "config.json").write_text('{"data": {}}')
    assert folder_of_images("images/bands", foreign) is None
    assert folder_of_images("images/other", image_run) is None
    # Away from its run, a file finds the images by their name.
    file = Path(shutil.copy(image_run / "best_dataset.npz", "alone.npz"))
    complaint = hades("images", "evaluate", file, "--splits", "test").complaint
    assert "expected a folder bands of image files in the folder that the variable HADES_IMAGES names" in complaint
    monkeypatch.setenv("HADES_IMAGES", str(folder.parent))
    assert "images/bands" in envs.list_environments()
    flags = ("--num-inits", "2", "--cloning.policy", "convnet", "--cloning.hidden-sizes", "2", "3")
    assert hades("images", "evaluate", file, "--splits", "test", *flags, "--json").code == 0
    outcome = hades("evaluate", file, "--num-inits", "2", "--num-episodes", TEST, "--json")
    assert outcome.json["num_episodes"] == TEST
    assert "env: images/bands" in hades("info", file).out
    grid = ("--panels", "size", "--widths", "4", "--depths", "1", "--num-inits", "2", "--num-episodes", "9")
    assert hades("bench", "generalisation", file, *grid).code == 0


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ((), "--data: expected a folder of image files, such as those of MNIST"),
        (("--data", "FOLDER", "--env", "brax/hopper"), "--env: expected a name such as images/mnist, got brax/hopper"),
        (("--data", "FOLDER", "--backend", "spring"), "--backend: expected none as images have no options"),
        (("--data", "FOLDER", "--population-size", "4"), "--population-size: expected none beside --outer meta-grad"),
        (("--data", "FOLDER", "--evaluation-episodes", "46"), "--evaluation-episodes: expected at most 45, the images"),
        (("--data", "FOLDER", "--per-class", "21"), "per_class: expected at most 20"),
        (("--data", "FOLDER", "--max-env-steps", "9"), "max_env_steps: expected none"),
        (("--data", "FOLDER", "--meta-gradient.max-kl", "1"), "max_kl: expected none"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(
    hades: Callable[..., Outcome], folder: Path, flags: tuple[str, ...], words: str
) -> None:
    arguments = [folder if flag == "FOLDER" else flag for flag in flags]
    outcome = hades("images", "distill", *TINY, *arguments, "--out", "run")
    assert outcome.code == 2
    assert words in outcome.unboxed
    assert not Path("run").exists()


def test_broken_files_are_told_in_one_sentence(hades: Callable[..., Outcome], tmp_path: Path) -> None:
    outcome = hades("images", "distill", "--data", tmp_path / "none")
    assert outcome.code == 1
    expected = f"hades images distill: {tmp_path / 'none'}: expected a folder of image files, found nothing there"
    assert outcome.complaint == expected.replace("hades images distill", "hades images")
    broken = write_idx(tmp_path / "broken")
    (broken / "t10k-labels-idx1-ubyte").write_bytes(b"")
    outcome = hades("images", "distill", "--data", broken, *TINY, "--out", "run")
    assert outcome.code == 1
    assert "t10k-labels-idx1-ubyte: expected an idx file" in outcome.complaint


def test_a_run_is_not_resumed_on_other_images(hades: Callable[..., Outcome], copy: Path, tmp_path: Path) -> None:
    other = write_idx(tmp_path / "bands")
    outcome = hades("images", "distill", "--out", copy, "--resume", "--data", other)
    assert outcome.code == 2
    assert "--data: the run in" in outcome.complaint


@pytest.mark.parametrize("name", PRESETS["images distill"])
def test_presets_parse(name: str, folder: Path) -> None:
    settings = running.resolve(COMMAND, ["--preset", name, "--data", str(folder), "--out", "runs/x"])
    assert settings.settings == get_preset("images distill", name).settings
    annealed = settings.settings.meta_gradient.anneal_iterations
    assert annealed in (None, settings.num_iterations)
    if name == "paper":
        assert (settings.settings, settings.num_iterations) == (paper_images(), 1000)


def test_photographs_are_drawn_in_their_own_colours(image_run: Path) -> None:
    dataset = SyntheticDataset.load(image_run / "best_dataset.npz")
    content = Content.of(dataset)
    assert content.photographs
    assert content.score.startswith("Accuracy of fresh policies")
    figure = draw_grids(content)
    grids = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    assert len(grids) == 3
    image = np.asarray(dataset.observations[0], np.float64)
    np.testing.assert_allclose(grids[0], np.broadcast_to(image, (6, 6, 3)))
    assert not figure.legends
