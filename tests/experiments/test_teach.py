"""`hades offline teach`: what it writes, says and refuses, and that it goes on where it was stopped."""

from __future__ import annotations

import json

import jax.numpy as jnp
import numpy as np
import pytest

import envs
from hades.offline import d4rl
from hades.offline.teacher import Teacher
from hades.offline.transitions import Transitions

TINY = (
    "--actor-hidden-sizes", "4", "--critic-hidden-sizes", "4", "--batch-size", "8", "--num-actions", "2",
    "--updates-per-call", "2",
)  # fmt: skip


def make_file(path, env="diagnostic/target", **changes):
    numbers = np.random.default_rng(0).uniform(-1, 1, (32, 2)).astype(np.float32)
    last = np.ones(32, bool)
    arrays = {
        "observations": numbers,
        "actions": numbers,
        "rewards": numbers[:, 0],
        "next_observations": numbers,
        "terminals": ~last,
        "timeouts": last,
    }
    d4rl.save(Transitions(**{name: jnp.asarray(array) for name, array in (arrays | changes).items()}, env=env), path)
    return path


@pytest.fixture
def data(tmp_path):
    return make_file(tmp_path / "data.hdf5")


def teach(hades, data, out, *flags):
    return hades("offline", "teach", "--data", data, "--out", out, *TINY, *flags)


def test_teacher_file_json_and_resuming(hades, data, tmp_path):
    out = tmp_path / "teacher.npz"
    flags = ("--evaluate-every", "2", "--evaluation-episodes", "3", "--json", "--num-updates")
    outcome = teach(hades, data, out, *flags, "2")
    assert outcome.code == 0, outcome.err
    assert "returns on fresh keys, diagnostic/target" in outcome.err and "update 2/2" in outcome.err
    result = outcome.json
    assert result["out"] == str(out) and result["env"] == "diagnostic/target" and result["updates"] == 2
    assert result["num_transitions"] == 32 and result["evaluation"]["num_episodes"] == 3
    first = Teacher.load(out)
    first.check_fits(envs.make("diagnostic/target"))

    refused = teach(hades, data, out, *flags, "4")
    assert refused.code == 2 and "teacher.checkpoints holds a training; go on with it by --resume" in refused.complaint
    resumed = teach(hades, data, out, *flags, "4", "--resume")
    assert resumed.code == 0 and "update 4/4" in resumed.err
    rows = resumed.json["evaluations"]
    assert rows[0] == result["evaluations"][0] and [row["update"] for row in rows] == [2, 4]
    assert not np.array_equal(Teacher.load(out).actor[0][0], first.actor[0][0])
    shorter = teach(hades, data, out, *flags, "2", "--resume")
    assert shorter.code == 1 and "num_updates: expected at least 4" in shorter.err


@pytest.mark.parametrize(
    ("flags", "code", "sentence"),
    [
        (("--env", "diagnostic/match"), 2, "--env: observations: expected shape (3,) as of diagnostic/match"),
        (("--env", "nowhere"), 2, "--env: unknown environment 'nowhere'"),
        (("--discount", "1"), 2, "discount: expected a number in [0, 1), got 1.0"),
    ],
)
def test_flags_that_do_not_suit(hades, data, tmp_path, flags, code, sentence):
    outcome = teach(hades, data, tmp_path / "teacher.npz", *flags)
    assert outcome.code == code and sentence in outcome.complaint
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.hdf5", "working-folder"]


def test_data_that_cannot_be_learned_from(hades, tmp_path):
    far = make_file(tmp_path / "far.hdf5", env=None, actions=np.full((32, 2), 5, np.float32))
    outcome = teach(hades, far, tmp_path / "teacher.npz")
    assert outcome.code == 1
    assert "far.hdf5: actions: expected numbers from -1 to 1, got 5 at [0, 0]" in outcome.complaint
    nobody = make_file(tmp_path / "nobody.hdf5", env=None)
    outcome = teach(hades, nobody, tmp_path / "teacher.npz", "--evaluate-every", "2")
    assert outcome.code == 2 and "--evaluate-every: expected an --env to play in" in outcome.complaint
    assert not (tmp_path / "teacher.npz").exists()


def test_commands_of_offline(hades):
    assert "teach" in hades("offline", "--help").out
    assert "one of collect, teach" in hades("offline", "learn").complaint


def test_benchmark_compares_both_methods_on_the_same_data(hades, tmp_path):
    out = tmp_path / "result.json"
    outcome = hades(
        "bench", "cal-ql", "--env", "diagnostic/target", "--stages", "0", "--stage-episodes", "3", "--seeds", "0",
        "--num-updates", "2", "--num-episodes", "4", "--actor-hidden-sizes", "4", "--critic-hidden-sizes", "4",
        "--batch-size", "8", "--num-actions", "2", "--out", out, "--json",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    result = outcome.json
    assert json.loads(out.read_text()) == result
    assert [part["episodes"] for part in result["data"]] == [3, 3] and result["num_transitions"] == 6
    for method in ("cal-ql", "behaviour cloning"):
        scores = result["methods"][method]
        assert (scores["num_inits"], scores["num_episodes"], len(scores["per_seed"])) == (1, 4, 1)
    assert result["settings"]["cal_ql"]["conservative_weight"] == 5 and isinstance(result["intervals_apart"], bool)
    assert hades("bench", "cal-ql", "--env", "diagnostic/match").code == 2
