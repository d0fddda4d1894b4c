"""Run directories of version 0.1.0 go on, and end where its uninterrupted runs ended."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
import hades
from hades._run_directory import OtherRunError, RunDirectory
from hades._serialization import from_dict
from hades.offline import Teacher, Transitions
from hades.offline.cal_ql import CalQLSettings
from hades.policy_file import TrainedPolicy
from hades.recipes import HadesSettings, PPOSettings, cal_ql_run, from_settings
from hades.training import LoopSettings
from hades.types import Continuous

BEFORE = Path(__file__).parents[1] / "data" / "before"


def unpacked(name, folder):
    with zipfile.ZipFile(BEFORE / f"{name}.zip") as archive:
        nested = all(member.startswith(f"{name}/") for member in archive.namelist())
        archive.extractall(folder if nested else folder / name)
    return folder / name


def saved(folder, cls):
    """Run, key, loop and length of a run directory, as the command reads them."""
    config = RunDirectory(folder).read_config()
    env = envs.make(config["env"], **config.get("env_options", {}))
    settings = from_dict(cls, config["settings"])
    loop = from_dict(LoopSettings, config["loop"])
    return from_settings(env, settings), jax.random.key(config["seed"]), loop


@pytest.fixture(scope="module")
def resumed(tmp_path_factory):
    """Both runs of two iterations, taken up to four; folders, and those of the uninterrupted ones."""
    found = {}
    for name, cls in (("evolution", HadesSettings), ("ppo", PPOSettings)):
        folder = tmp_path_factory.mktemp(name)
        half, full = unpacked(f"{name}_half", folder), unpacked(f"{name}_full", folder)
        run, key, loop = saved(half, cls)
        found[name] = hades.distill(key, run, 4, out=half, loop=loop, progress=False), half, full
    return found


@pytest.mark.parametrize(("name", "kind"), [("evolution", "dataset"), ("ppo", "policy")])
def test_a_resumed_run_ends_where_the_uninterrupted_one_ended(resumed, name, kind):
    result, half, full = resumed[name]
    assert result.finished and int(result.state.iteration) == 4
    load = {"dataset": hades.SyntheticDataset, "policy": TrainedPolicy}[kind].load
    for file in (f"{kind}.npz", f"best_{kind}.npz"):
        ours, theirs = load(half / file), load(full / file)
        assert ours.metadata.observation_normalization == theirs.metadata.observation_normalization
        ours, theirs = (jax.tree.leaves(each) for each in (ours, theirs))
        chex.assert_trees_all_close(ours, theirs, rtol=2e-4, atol=2e-5)
    rows, expected = (RunDirectory(each).read_metrics() for each in (half, full))
    assert [row["iteration"] for row in rows] == [row["iteration"] for row in expected] == [1, 2, 3, 4]
    for row, other in zip(rows, expected, strict=True):
        for column in ("fitness_mean", "fitness_best", "env_steps", "total_env_steps"):
            assert row[column] == pytest.approx(other[column], rel=1e-4), column
        assert ("evaluation_mean" in row) == ("evaluation_mean" in other)


def test_a_run_directory_of_before_refuses_another_run(tmp_path):
    half = unpacked("evolution_half", tmp_path)
    run, key, loop = saved(half, HadesSettings)
    other = from_settings(run.env, HadesSettings(**{**vars(run.settings), "population_size": 8}))
    with pytest.raises(OtherRunError, match="has population_size 4, got 8"):
        hades.distill(key, other, 4, out=half, loop=loop, progress=False)
    before = json.loads((half / "config.json").read_text())
    assert before["settings"]["population_size"] == 4


def test_a_training_of_before_goes_on_as_a_run(tmp_path):
    observations, ends = jax.random.normal(jax.random.key(5), (16, 2)), jnp.arange(16) % 8 == 7
    data = Transitions(
        observations, jnp.tanh(observations[:, :1]), observations[:, 0], observations + 0.1, ends, ends & ~ends
    )
    run = cal_ql_run(data, Continuous((-1.0,), (1.0,)), CalQLSettings((4,), (4,), batch_size=8))
    loop = LoopSettings(iterations_per_call=2, evaluate_every=None)
    folder = tmp_path / "run"
    folder.mkdir()
    # A training of before was a folder of checkpoints; a run directory has that folder in it.
    unpacked("teacher.checkpoints", tmp_path).rename(folder / "checkpoints")
    (folder / "config.json").write_text("{}")
    result = hades.train(jax.random.key(0), run, 8, out=folder, loop=loop, progress=False)
    assert result.finished and int(result.state.iteration) == 8
    assert int(result.state.outer.optimizer.count) == 8
    expected = Teacher.load(BEFORE / "teacher_full.npz")
    chex.assert_trees_all_close(result.outcome, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(Teacher.load(folder / "teacher.npz").action_low, expected.action_low)
