"""`hades offline teach`: what it writes, says and refuses, and that it goes on where it was stopped."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from experiments import running
from experiments.commands.offline.teach import COMMAND
from experiments.stopping import StopSignals
from hades._run_directory import RunDirectory
from hades.offline import d4rl, transitions
from hades.offline.teacher import Teacher
from hades.offline.transitions import Transitions
from tests.experiments.command import BEFORE, unpack

TINY = (
    "--actor-hidden-sizes", "4", "--critic-hidden-sizes", "4", "--batch-size", "8", "--num-actions", "2",
    "--updates-per-call", "2",
)  # fmt: skip
FILES = {
    "config.json", "versions.json", "metrics.jsonl", "checkpoints", "teacher.npz", "best_teacher.npz", "summary.json",
    "lock",
}  # fmt: skip


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


@pytest.mark.slow
def test_teacher_is_a_run_that_other_verbs_take(hades, data, tmp_path):
    out = tmp_path / "teacher"
    flags = ("--evaluate-every", "2", "--evaluation-episodes", "3", "--json", "--num-updates", "4")
    outcome = teach(hades, data, out, *flags)
    assert outcome.code == 0, outcome.err
    assert "returns on fresh keys, diagnostic/target" in outcome.err and "iteration 4/4" in outcome.err
    summary = outcome.json
    assert summary == json.loads((out / "summary.json").read_text())
    assert (summary["out"], summary["env"], summary["iterations"]) == (str(out), "diagnostic/target", 4)
    assert set(summary["evaluations"]) == {"best teacher", "last teacher", "random actions"}
    assert summary["evaluations"]["last teacher"]["num_episodes"] == 3
    assert {path.name for path in out.iterdir()} == FILES
    rows = RunDirectory(out).read_metrics()
    assert [row["iteration"] for row in rows if "evaluation_mean" in row] == [2, 4]
    Teacher.load(out / "teacher.npz").check_fits(envs.make("diagnostic/target"))
    info = hades("info", out, "--json").json
    assert (info["kind"], info["command"], info["iterations"]) == ("run", "offline teach", "4 of 4")
    assert (info["file"], info["actor_hidden_sizes"]) == (str(out / "best_teacher.npz"), [4])
    assert hades("info", out / "teacher.npz", "--json").json["kind"] == "teacher"
    # Its run directory names the environment, its file does not.
    evaluated = hades("evaluate", out, "--num-episodes", "2", "--json").json
    assert (evaluated["source"], evaluated["env"]) == (str(out / "best_teacher.npz"), "diagnostic/target")
    assert hades("evaluate", out / "teacher.npz").code == 2
    distilled = hades(
        "offline", "distill", "--data", data, "--teacher", out, "--objective", "pbc", "--dataset-size", "2",
        "--num-states", "4", "--cloning.hidden-sizes", "4", "--cloning.num-steps", "2", "--num-iterations", "1",
        "--out", tmp_path / "distilled",
    )  # fmt: skip
    assert distilled.code == 0, distilled.err
    assert RunDirectory(tmp_path / "distilled").read_config()["teacher"] == str(out / "best_teacher.npz")
    collect = ("offline", "collect", "--env", "diagnostic/target", "--teacher", out, "--num-transitions", "8")
    assert hades(*collect, "--num-envs", "2", "--out", tmp_path / "more.hdf5").code == 0


def test_default_folder_is_named_after_data_and_method(hades, data):
    outcome = hades("offline", "teach", "--data", data, *TINY, "--num-updates", "2")
    assert outcome.code == 0, outcome.err
    assert Path("runs/diagnostic-target-cal-ql-seed0/teacher.npz").is_file()
    nameless = hades("offline", "teach", "--data", make_file(Path("nameless.hdf5"), env=None), *TINY,
                     "--num-updates", "2")  # fmt: skip
    assert nameless.code == 0, nameless.err
    assert Path("runs/cal-ql-seed0/teacher.npz").is_file()


def test_flags_of_an_environment_that_nothing_makes_are_refused(hades, data, tmp_path):
    for flag in (("--max-steps", "3"), ("--backend", "mjx"), ("--evaluation-episodes", "2")):
        refused = teach(hades, data, tmp_path / "run", "--no-evaluation", *flag)
        assert refused.code == 2 and f"{flag[0]}: expected none beside --no-evaluation" in refused.complaint
    nameless = teach(hades, make_file(tmp_path / "nameless.hdf5", env=None), tmp_path / "run", "--max-steps", "3")
    assert nameless.code == 2 and "--max-steps: expected none without --env" in nameless.complaint


def test_file_beside_its_run_directory(hades, data, tmp_path):
    out = tmp_path / "teacher.npz"
    assert teach(hades, data, out, "--num-updates", "2").code == 0
    first = Teacher.load(out)
    assert out.read_bytes() == (tmp_path / "teacher" / "teacher.npz").read_bytes()
    assert {path.name for path in (tmp_path / "teacher").iterdir()} == FILES - {"best_teacher.npz"}

    refused = teach(hades, data, out, "--num-updates", "4")
    assert refused.code == 2 and f"--out: {out} exists, expected a new file, or --resume" in refused.complaint
    shorter = teach(hades, data, out, "--num-updates", "1", "--resume")
    assert shorter.code == 2 and "--num-iterations: the run" in shorter.complaint
    resumed = teach(hades, data, out, "--num-updates", "4", "--resume")
    assert resumed.code == 0 and "iteration 4/4" in resumed.err
    assert not np.array_equal(Teacher.load(out).actor[0][0], first.actor[0][0])
    assert teach(hades, data, tmp_path / "whole", "--num-updates", "4").code == 0
    assert out.read_bytes() == (tmp_path / "whole" / "teacher.npz").read_bytes()

    out.unlink()
    again = teach(hades, data, out, "--num-updates", "4")
    assert again.code == 2
    assert f"--out: {tmp_path / 'teacher'} holds a run; go on with it by --resume" in again.complaint


@pytest.mark.parametrize(
    ("flags", "words"),
    [(("--max-env-steps", "9"), "max_env_steps: expected none"), (("--multihost",), "--multihost: expected none")],
)
def test_flags_that_a_teacher_cannot_follow_are_refused(hades, data, tmp_path, flags, words):
    outcome = teach(hades, data, tmp_path / "teacher", *flags)
    assert (outcome.code, (tmp_path / "teacher").exists()) == (2, False)
    assert words in outcome.unboxed


def test_stopped_training_says_how_its_file_is_made(hades, data, tmp_path, monkeypatch):
    out = tmp_path / "of a teacher.npz"
    asked = iter((False, True))
    with monkeypatch.context() as stopping:
        stopping.setattr(StopSignals, "should_stop", lambda signals: next(asked))
        stopped = teach(hades, data, out, "--num-updates", "4")
    assert (stopped.code, out.exists()) == (143, False)
    said = stopped.err.strip().splitlines()[-1]
    assert said.startswith("stopped at iteration 2 of 4; go on with: hades ")
    assert hades(*shlex.split(said.partition("hades ")[2])).code == 0
    assert out.read_bytes() == (tmp_path / "of a teacher" / "teacher.npz").read_bytes()


@pytest.mark.parametrize(("name", "updates"), [("small", 20_000), ("paper", 1_000_000)])
def test_presets_suit_any_data(data, tmp_path, name, updates):
    settings = running.resolve(COMMAND, ["--data", str(data), "--preset", name, "--out", str(tmp_path / "run")])
    assert (settings.num_iterations, settings.env) == (updates, "diagnostic/target")
    assert (settings.loop.evaluate_every is None) == (name == "paper")
    nobody = make_file(tmp_path / "nobody.hdf5", env=None)
    settings = running.resolve(COMMAND, ["--data", str(nobody), "--preset", name, "--out", str(tmp_path / "run")])
    assert settings.loop.evaluate_every is None
    running.build(settings, COMMAND)


@pytest.fixture
def former(tmp_path, monkeypatch):
    """A training that version 0.1 was stopped in, and its data as tests/data/before/README.md makes them."""
    # That version took trajectories to end at flags alone, and these data jump everywhere.
    monkeypatch.setattr(transitions, "unflagged_ends", lambda arrays: np.zeros(len(arrays["rewards"]), bool))
    unpack("teacher.checkpoints", tmp_path)
    observations, ends = jax.random.normal(jax.random.key(5), (16, 2)), jnp.arange(16) % 8 == 7
    actions, after = jnp.tanh(observations[:, :1]), observations + 0.1
    data = Transitions(observations, actions, observations[:, 0], after, ends, ends & ~ends)
    d4rl.save(data, tmp_path / "data.hdf5")
    return tmp_path


FORMER = ("--actor-hidden-sizes", "4", "--critic-hidden-sizes", "4", "--batch-size", "8", "--updates-per-call", "2",
          "--num-updates", "8", "--resume")  # fmt: skip


def test_training_of_the_version_before_is_taken_over(hades, former):
    arguments = ("offline", "teach", "--data", former / "data.hdf5", "--out", former / "teacher.npz", *FORMER)
    outcome = hades(*arguments, "--json")
    assert outcome.code == 0, outcome.err
    assert "iteration 8/8" in outcome.err and outcome.json["iterations"] == 8
    assert not (former / "teacher.checkpoints").exists()
    assert [row["iteration"] for row in RunDirectory(former / "teacher").read_metrics()] == [2, 4, 6, 8]
    with np.load(former / "teacher.npz") as found, np.load(BEFORE / "teacher_full.npz") as expected:
        assert set(found) == set(expected)
        for name in found:
            np.testing.assert_allclose(found[name], expected[name], 1e-4, 1e-5, err_msg=name)
    assert hades(*arguments).code == 0


def test_training_of_the_version_before_goes_on_with_its_own_data_and_settings_alone(hades, former):
    arguments = ("offline", "teach", "--out", former / "teacher.npz", *FORMER)
    other = hades(*arguments, "--data", make_file(former / "other.hdf5", env=None, actions=np.zeros((32, 1), "f4")))
    assert other.code == 2
    assert f"--data: {former}/teacher.checkpoints holds training on 16 transitions of checksum" in other.complaint
    assert (former / "teacher.checkpoints").is_dir() and not (former / "teacher").exists()
    outcome = hades(*arguments, "--data", former / "data.hdf5", "--batch-size", "4")
    assert outcome.code == 2 and "--batch-size: the run in" in outcome.err
    assert not (former / "teacher.npz").exists()


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
    outcome = teach(hades, far, tmp_path / "teacher.npz", "--action-high", "1")
    assert outcome.code == 1
    assert "far.hdf5: actions: expected numbers from -1 to 1, got 5 at [0, 0]" in outcome.complaint
    nobody = make_file(tmp_path / "nobody.hdf5", env=None)
    outcome = teach(hades, nobody, tmp_path / "teacher.npz", "--evaluate-every", "2")
    assert outcome.code == 2
    assert "--evaluate-every: expected an environment to evaluate in" in outcome.complaint
    assert not (tmp_path / "teacher.npz").exists()


def test_commands_of_offline(hades):
    assert "teach" in hades("offline", "--help").out
    assert "one of collect, teach" in hades("offline", "learn").complaint


@pytest.mark.slow
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
