"""`hades offline collect`, teachers and ensembles in `hades evaluate`, and `hades bench teachers`."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hades.dataset import SyntheticDataset
from hades.offline import d4rl
from hades.offline.teacher import Teacher
from hades.offline.transitions import Transitions
from hades.policy_file import TrainedPolicy
from tests.experiments.command import TINY_LOOP, exit_code

needs_mujoco = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("gymnasium", "mujoco"))),
    reason="the extra mujoco is not installed",
)


def reference_folder() -> Path:
    default = Path(__file__).resolve().parents[3] / "shared" / "reference"
    return Path(os.environ.get("HADES_REFERENCE", default)) / "teachers"


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher of gymnasium/Pendulum-v1 that knows nothing."""

    def layers(inputs: int, outputs: int) -> tuple[tuple[jax.Array, jax.Array], ...]:
        weights = np.random.default_rng(inputs).normal(size=(inputs, outputs)).astype(np.float32)
        return ((jnp.asarray(weights), jnp.zeros(outputs)),)

    path = tmp_path_factory.mktemp("teachers") / "pendulum.npz"
    bound = jnp.array([2.0])
    statistics = (jnp.zeros(3), jnp.ones(3), jnp.float32(1), jnp.float32(-1))
    Teacher(layers(3, 2), (layers(4, 1), layers(4, 1)), *statistics, -bound, bound).save(path)
    return path


@pytest.fixture(scope="session")
def ppo_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of PPO on diagnostic/target that kept its snapshots."""
    out = tmp_path_factory.mktemp("runs") / "ppo"
    flags = ("--env", "diagnostic/target", "--num-generations", "8", "--num-envs", "16", "--num-steps", "8",
             "--learning-rate", "0.01", "--statistics-episodes", "4", "--network.hidden-sizes", "4", *TINY_LOOP,
             "--evaluation-episodes", "16", "--keep-snapshots")  # fmt: skip
    assert exit_code("baseline", "ppo", *flags, "--out", out) == 0
    return out


@needs_mujoco
def test_mixtures_are_collected_with_their_shares_and_provenance(hades, teacher, tmp_path):
    out = tmp_path / "new" / "data.hdf5"
    flags = ("--env", "gymnasium/Pendulum-v1", "--max-steps", "20", "--teacher", teacher, "--noise", "0", "0.1", "0.3",
             "--random-fraction", "0.25", "--num-transitions", "400", "--num-envs", "4", "--out", out)  # fmt: skip
    outcome = hades("offline", "collect", *flags, "--json")
    assert outcome.code == 0
    assert outcome.json["num_transitions"] == 400 and outcome.json["num_trajectories"] == 20
    data = d4rl.load(out)
    np.testing.assert_array_equal(np.flatnonzero(data.timeouts), np.arange(19, 400, 20))
    policy = Teacher.load(teacher).policy(data.observations[:100])
    np.testing.assert_allclose(data.actions[:100], policy.mode(), atol=1e-4)
    attributes = d4rl.load_attributes(out)
    assert [part["share"] for part in attributes["behaviours"]] == [0.25] * 4
    assert [part["noise"] for part in attributes["behaviours"][:3]] == [0, 0.1, 0.3]
    assert attributes["env_options"] == {"max_steps": 20} and data.env == "gymnasium/Pendulum-v1"
    again = hades("offline", "collect", *flags)
    assert again.code == 2
    assert again.complaint == f"hades offline: --out: {out} exists, expected a new file or --overwrite"
    before = np.asarray(data.actions)
    assert hades("offline", "collect", *flags, "--overwrite").code == 0
    np.testing.assert_array_equal(d4rl.load(out).actions, before)


def test_stages_of_a_run_collect_data_of_their_quality(hades, ppo_run, tmp_path):
    snapshots = sorted((ppo_run / "snapshots").iterdir())
    assert [path.name for path in snapshots] == [f"policy-{generation:06d}.npz" for generation in (0, 2, 4, 6, 8)]
    evaluations = [TrainedPolicy.load(path).metadata.evaluation for path in snapshots]
    means = [evaluation.mean for evaluation in evaluations]
    rows = [json.loads(line) for line in (ppo_run / "metrics.jsonl").read_text().splitlines()]
    assert means[1:] == [row["evaluation_mean"] for row in rows if "evaluation_mean" in row]
    assert max(means[1:]) > means[0]
    found = {}
    for quality in ("random", "expert"):
        out = tmp_path / f"{quality}.hdf5"
        flags = ("--run", ppo_run, "--quality", quality, "--num-transitions", "500", "--out", out, "--json")
        outcome = hades("offline", "collect", *flags)
        assert outcome.code == 0
        found[quality] = outcome.json
        assert d4rl.load(out).env == "diagnostic/target"
    assert found["random"]["behaviours"][0]["file"] == str(snapshots[0])
    assert found["expert"]["behaviours"][0]["file"] == str(snapshots[int(np.argmax(means))])
    assert found["expert"]["mean_return"] > found["random"]["mean_return"]


@needs_mujoco
def test_a_teacher_is_scored_by_its_mode(hades, teacher):
    flags = ("--env", "gymnasium/Pendulum-v1", "--num-episodes", "2", "--json")
    outcome = hades("evaluate", teacher, *flags)
    assert outcome.code == 0
    assert outcome.json["env"] == "gymnasium/Pendulum-v1" and outcome.json["num_episodes"] == 2
    # D4RL has no reference for Pendulum.
    assert "normalized_mean" not in outcome.json
    assert hades("evaluate", teacher, *flags).json["mean"] == outcome.json["mean"]
    assert hades("evaluate", teacher, *flags, "--action-selection", "sample").json["mean"] != outcome.json["mean"]


@needs_mujoco
def test_bad_arguments_are_one_sentence(hades, teacher, finished_run, tmp_path):
    collect = ("offline", "collect", "--out", tmp_path / "data.hdf5")
    pendulum = ("--env", "gymnasium/Pendulum-v1")
    cases = [
        (("offline",), "expected the name of a command, one of collect, teach, distill"),
        (("evaluate", teacher), "--env: expected an environment, as"),
        (("evaluate", teacher, "--env", "gymnasium/Hopper-v4"), "teacher: expected observations of shape (11,)"),
        (
            ("evaluate", teacher, *pendulum, "--ensemble", "2"),
            "--ensemble: expected a dataset or a run of hades distill",
        ),
        ((*collect, *pendulum), "expected --teacher, --policy, --run or --random-fraction 1 where"),
        ((*collect, "--teacher", teacher), "--env: expected an environment, as teacher files name none"),
        ((*collect, *pendulum, "--teacher", teacher, "--noise", "-1"), "noise: expected a number of at least 0"),
        ((*collect, "--env", "gymnasium/Hopper-v4", "--teacher", teacher), "teacher: expected observations of shape"),
        (
            (*collect, "--env", "diagnostic/match", "--random-fraction", "1", "--noise", "1"),
            "--noise: expected none beside --random-fraction 1",
        ),
        (
            (*collect, "--env", "diagnostic/match", "--teacher", teacher, "--noise", "1"),
            "--noise: expected 0, as actions of diagnostic/match are discrete",
        ),
        (
            (*collect, "--minari", "a/b-v0", "--num-transitions", "5"),
            "--num-transitions: expected none beside --minari",
        ),
        ((*collect, "--minari", "a/b-v0", "--max-steps", "5"), "--max-steps: expected none beside --minari"),
        ((*collect, "--teacher", teacher, "--max-steps", "5"), "--max-steps: expected none without --env"),
        ((*collect, *pendulum, "--teacher", teacher, "--quality", "expert"), "--quality: expected none without --run"),
        ((*collect, "--run", finished_run), "--run: expected a run of hades baseline with --keep-snapshots"),
        (("distill", *pendulum, "--out", tmp_path / "run"), "env: expected an environment of pure functions"),
    ]
    for arguments, reason in cases:
        outcome = hades(*arguments)
        assert reason in outcome.complaint
        assert outcome.code == 2
    assert not (tmp_path / "data.hdf5").exists()


def test_ensembles_of_a_dataset_are_scored(hades, finished_run):
    flags = ("--num-inits", "2", "--num-episodes", "3", "--json")
    alone = hades("evaluate", finished_run, *flags).json
    together = hades("evaluate", finished_run, *flags, "--ensemble", "2").json
    assert (alone["ensemble"], together["ensemble"]) == (1, 2)
    assert (together["num_inits"], together["num_episodes"]) == (2, 3)


@needs_mujoco
def test_published_teachers_are_measured_beside_their_manifest(hades, tmp_path):
    if not (reference_folder() / "manifest.json").is_file():
        pytest.skip(f"no reference data at {reference_folder()} (set HADES_REFERENCE)")
    flags = ("--names", "halfcheetah-medium", "--num-episodes", "1", "--teachers", reference_folder())
    outcome = hades("bench", "teachers", *flags, "--out", tmp_path / "teachers.json", "--json")
    assert outcome.code == 0
    result = outcome.json["results"]["halfcheetah-medium"]
    assert result["agrees"] and abs(result["score"] - 47.8) < 5 and result["lengths"] == [1000]
    assert json.loads((tmp_path / "teachers.json").read_text())["results"] == outcome.json["results"]


@pytest.mark.slow
def test_discrete_actions_from_collection_to_a_dataset(hades, tmp_path):
    """The policy that collected is the teacher; Cal-QL, which needs continuous actions, says so."""
    ppo = ("--env", "diagnostic/match", "--num-iterations", "4", "--num-envs", "16", "--num-steps", "8",
           "--network.hidden-sizes", "4", *TINY_LOOP)  # fmt: skip
    assert exit_code("baseline", "ppo", *ppo, "--out", tmp_path / "ppo") == 0
    data = tmp_path / "data.hdf5"
    sizes = ("--epsilon", "0.2", "--num-transitions", "200", "--num-envs", "8")
    collected = hades("offline", "collect", "--policy", tmp_path / "ppo", *sizes, "--out", data)
    assert collected.code == 0, collected.err
    found = d4rl.load(data)
    assert found.discrete and found.actions.dtype == jnp.int32 and found.env == "diagnostic/match"
    tiny = ("--num-iterations", "2", "--dataset-size", "3", "--num-states", "8", "--cloning.hidden-sizes", "4",
            "--cloning.num-steps", "2", *TINY_LOOP)  # fmt: skip
    flags = ("offline", "distill", "--data", data, "--objective", "pbc", *tiny)
    distilled = hades(*flags, "--teacher", tmp_path / "ppo", "--out", tmp_path / "run", "--json")
    assert distilled.code == 0, distilled.err
    assert "random states, teacher's actions" in distilled.json["evaluations"]
    assert SyntheticDataset.load(tmp_path / "run" / "dataset.npz").action_probabilities.shape == (3, 3)
    assert hades("train", tmp_path / "run", "--out", tmp_path / "policy.npz").code == 0
    refused = hades("offline", "teach", "--data", data, "--out", tmp_path / "teacher")
    assert refused.code == 1 and "actions: expected continuous ones, which Cal-QL needs" in refused.complaint
    values = hades("offline", "distill", "--data", data, *tiny, "--teacher", tmp_path / "ppo", "--out", tmp_path / "av")
    assert values.code == 2 and "teacher: av-pbc needs action values" in values.complaint


def test_a_module_that_a_file_names_is_imported_only_where_asked_for(hades, tmp_path, monkeypatch):
    (tmp_path / "unasked.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    numbers = jnp.linspace(-1, 1, 8)[:, None]
    ends = jnp.arange(8) == 7
    data = Transitions(numbers, numbers, numbers[:, 0], numbers, ends, ends & ~ends, "gymnasium/Mine-v0")
    d4rl.save(data, tmp_path / "data.hdf5", {"env_options": {"module": "unasked"}})
    outcome = hades("offline", "distill", "--data", tmp_path / "data.hdf5", "--objective", "dbc", "--dataset-size", "2")
    assert outcome.code == 2
    assert "its environment comes from the module unasked, expected HADES_PLUGINS=unasked" in outcome.complaint
