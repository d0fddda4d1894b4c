"""`hades bench objectives`: datasets that imitate the teacher better score better, and what the bench refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments.bench.objectives import correlate
from hades.dataset import SyntheticDataset
from hades.inner.cloning import CloningSettings
from hades.metadata import FileMetadata
from hades.offline import d4rl
from hades.offline.labels import teacher_actions
from tests.experiments.command import Outcome
from tests.helpers import make_teacher, uniform_transitions

COUNT = 64
FOUR = ("d0.npz", "d1.npz", "d2.npz", "d3.npz")
FLAGS = ("--num-inits", "2", "--num-episodes", "4", "--num-states", "32")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, teacher, and datasets whose labels are ever further from the teacher's, not to be changed."""
    folder = tmp_path_factory.mktemp("objectives")
    data, teacher = uniform_transitions(count=COUNT), make_teacher()
    d4rl.save(data, folder / "data.hdf5")
    d4rl.save(uniform_transitions(count=COUNT - 9), folder / "other.hdf5")
    teacher.save(folder / "teacher.npz")
    statistics, actions = data.statistics(), teacher_actions(teacher, data.observations)
    cloning = CloningSettings(hidden_sizes=(8,), action_distribution="tanh_gaussian", loss="mse", num_steps=60)
    for index in range(6):
        noise = jax.random.normal(jax.random.key(index), actions.shape)
        metadata = FileMetadata(
            env="diagnostic/target", method=("pbc", "dbc")[index % 2], seed=index, action_selection="mode",
            observation_normalization="fixed", cloning=cloning, max_episode_steps=1,
        )  # fmt: skip
        SyntheticDataset(
            statistics.apply(data.observations), actions + 0.3 * index * noise, None, statistics.mean, statistics.std,
            metadata=metadata,
        ).save(folder / f"d{index}.npz")  # fmt: skip
    return folder


def test_the_distance_to_the_teacher_predicts_the_score_of_a_task_that_asks_for_its_actions(
    hades: Callable[..., Outcome], folder: Path, tmp_path: Path
) -> None:
    out, files = tmp_path / "result.json", [folder / f"d{index}.npz" for index in range(6)]
    outcome = hades(
        "bench", "objectives", *files, "--data", folder / "data.hdf5", "--teacher", folder / "teacher.npz",
        "--density", "knn", *FLAGS, "--out", out, "--json",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    result = outcome.json
    assert json.loads(out.read_text()) == result
    best = [f"{name}, best quarter" for name in ("pbc", "av-pbc", "critic-value")]
    assert list(result["correlations"]) == ["dbc", "pbc", "av-pbc", "sdw-av-pbc", "critic-value", "q-pbc", *best]
    found = result["correlations"]["pbc"]
    assert found["datasets"]["correlation"] > 0.7 and found["policies"]["correlation"] > 0.7
    low, high = found["policies"]["ci95"]
    assert low < found["policies"]["correlation"] < high
    assert [row["method"] for row in result["files"]] == ["pbc", "dbc"] * 3
    assert np.shape([row["values"]["pbc"] for row in result["files"]]) == (6, 2)
    assert "within methods" in outcome.err
    scores = np.array([row["scores"] for row in result["files"]])
    assert result["spread"]["inits"] == pytest.approx(np.sqrt(np.mean(np.var(scores, axis=1, ddof=1))))
    assert result["spread"]["datasets"] > result["spread"]["by_inits_alone"]


def test_within_methods_their_means_do_not_count() -> None:
    scores = np.array([0.0, 2.0, 1.0, 3.0, 10.0, 12.0, 11.0, 13.0])
    values = np.array([3.0, 1.0, 2.0, 0.0, 13.0, 11.0, 12.0, 10.0])
    rows = [
        {"method": "pbc" if score < 5 else "dbc", "seed": score % 10, "scores": [score], "values": {"x": [value]}}
        for score, value in zip(scores, values, strict=True)
    ]
    found = correlate(rows, "x")
    assert found["datasets"]["correlation"] > 0.5
    assert found["within_methods"]["correlation"] < -0.7


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("d0.npz",), "files: expected four or more, got 1"),
        (
            ("d0.npz", "d1.npz", "d2.npz", "d3.npz", "--data", "other.hdf5"),
            "expected a dataset that was distilled from",
        ),
        (("d0.npz", "d1.npz", "d2.npz", "d3.npz", "--flow.epochs", "2"), "--flow.epochs: expected none without"),
        (("d0.npz", "d1.npz", "d2.npz", "d3.npz", "--effective-sample-size", "2"), "expected a fraction above 0"),
    ],
)
def test_bad_input_is_one_sentence(
    hades: Callable[..., Outcome], folder: Path, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...], words: str
) -> None:
    monkeypatch.chdir(folder)
    data = () if "--data" in flags else ("--data", "data.hdf5")
    outcome = hades("bench", "objectives", *flags, *data)
    assert outcome.code == 2 and words in outcome.unboxed, outcome.err
