"""The host loop: resuming bit for bit, files of a run, hooks, the best dataset, and how it ends."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import pickle
import shutil
import subprocess
import sys
import time
from pathlib import Path

import chex
import jax
import numpy as np
import pytest

import hades
from envs.diagnostic import Match
from hades._run_directory import OtherRunError, RunDirectory, RunDirectoryError
from hades._serialization import to_dict
from hades.callbacks import Callback
from hades.dataset import SyntheticDataset
from hades.outer import EvolutionSettings
from hades.training import DivergedError, LoopSettings, advance, distill
from tests.helpers import Counting, GoOn

LOOP = LoopSettings(iterations_per_call=3, evaluate_every=6, evaluation_inits=2, evaluation_episodes=2)
KEY = jax.random.key(4)
ITERATIONS = 12


def after(calls):
    """A `should_stop` that lets so many compiled calls happen."""
    asked = iter(range(calls + 1))
    return lambda: next(asked) >= calls


def go(run, out, num_iterations=ITERATIONS, **arguments):
    return distill(KEY, run, num_iterations, out=out, loop=LOOP, progress=False, **arguments)


def without_times(rows):
    return [{name: value for name, value in row.items() if not name.startswith("seconds")} for row in rows]


def assert_same_state(found, expected):
    found, expected = (state.replace(key=jax.random.key_data(state.key)) for state in (found, expected))
    chex.assert_trees_all_equal(found, expected)


def assert_same_run(result, out, reference):
    expected, expected_out = reference
    assert_same_state(result.state, expected.state)
    assert without_times(result.history) == without_times(expected.history)
    for name in ("dataset.npz", "best_dataset.npz"):
        assert (out / name).read_bytes() == (expected_out / name).read_bytes(), name
    assert without_times(RunDirectory(out).read_metrics()) == without_times(RunDirectory(expected_out).read_metrics())
    assert result.best_iteration == expected.best_iteration


@pytest.fixture(scope="module")
def reference(small_run, tmp_path_factory):
    """A run that is never stopped."""
    out = tmp_path_factory.mktemp("reference") / "run"
    return go(small_run, out), out


@pytest.fixture(scope="module")
def stopped(small_run, tmp_path_factory):
    """A run that was stopped after its second call, at iteration 6."""
    out = tmp_path_factory.mktemp("stopped") / "run"
    result = go(small_run, out, should_stop=after(2))
    assert not result.finished
    assert int(result.state.iteration) == 6
    return out


def test_a_run_directory_holds_what_the_contract_says(small_run, reference):
    result, out = reference
    assert result.finished
    names = {"config.json", "versions.json", "metrics.jsonl", "checkpoints", "dataset.npz", "best_dataset.npz", "lock"}
    assert {path.name for path in out.iterdir()} == names
    config = json.loads((out / "config.json").read_text())
    assert config == json.loads(json.dumps({
        "method": "hades-r", "env": "diagnostic/match", "env_options": small_run.env.options, "arrays": None,
        "settings": to_dict(small_run.settings), "key": [0, 4], "num_iterations": ITERATIONS, "loop": to_dict(LOOP),
    }))  # fmt: skip
    rows = RunDirectory(out).read_metrics()
    assert rows == result.history
    assert [row["iteration"] for row in rows] == list(range(1, ITERATIONS + 1))
    assert [row["iteration"] for row in rows if "evaluation_mean" in row] == [6, 12]
    assert all(earlier["seconds"] < later["seconds"] for earlier, later in itertools.pairwise(rows))
    for row in rows:
        assert row["fitness_worst"] <= row["fitness_mean"] <= row["fitness_best"]
        assert row["env_steps"] == 8 * 2 * 8
        assert row["non_finite"] == 0
    saved = SyntheticDataset.load(out / "dataset.npz")
    np.testing.assert_array_equal(saved.observations, small_run.dataset(result.state).observations)
    assert saved.metadata == result.dataset.metadata
    assert saved.metadata.seed == 4
    assert saved.metadata.evaluation is None


def test_the_loop_is_the_step_by_itself(small_run, reference):
    state, step = jax.jit(small_run.init)(KEY), jax.jit(small_run.step)
    for row in reference[0].history[:4]:
        state, metrics = step(state)
        assert float(metrics["fitness_mean"]) == pytest.approx(row["fitness_mean"], rel=1e-6)
        assert int(state.iteration) == row["iteration"]


@pytest.mark.parametrize("calls", [1, 3])
def test_a_stopped_run_goes_on_bit_for_bit(small_run, reference, tmp_path, calls):
    out = tmp_path / "run"
    first = go(small_run, out, should_stop=after(calls))
    assert int(first.state.iteration) == 3 * calls
    assert_same_run(go(small_run, out), out, reference)


def test_a_run_that_ended_between_calls_goes_on_bit_for_bit(small_run, reference, tmp_path):
    # 5 is no multiple of 3: the next call is cut so that it ends at 6, where an evaluation is due. The evaluation at 5,
    # the end of the first part, is one that the run in one piece never made.
    out = tmp_path / "run"
    short = go(small_run, out, num_iterations=5)
    assert (short.finished, int(short.state.iteration)) == (True, 5)
    result = go(small_run, out)
    expected, _ = reference
    assert_same_state(result.state, expected.state)
    rows, expected_rows = (without_times(each.history) for each in (result, expected))
    assert "evaluation_mean" in rows[4]
    for name in ("evaluation_mean", "evaluation_ci_low", "evaluation_ci_high"):
        del rows[4][name]
    assert rows == expected_rows
    assert (out / "dataset.npz").read_bytes() == (reference[1] / "dataset.npz").read_bytes()


def test_a_killed_run_goes_on_from_its_newest_whole_checkpoint(small_run, reference, stopped, tmp_path):
    # Killed while it wrote: metrics and datasets are ahead of the checkpoint, a line and a checkpoint are cut short.
    out = tmp_path / "run"
    shutil.copytree(stopped, out)
    ahead = RunDirectory(reference[1])
    RunDirectory(out).append_metrics(ahead.read_metrics()[6:9])
    with (out / "metrics.jsonl").open("a") as file:
        file.write('{"iteration": 10, "fitness_me')
    for name in ("dataset.npz", "best_dataset.npz"):
        shutil.copy(reference[1] / name, out)
    (out / "checkpoints" / "9.orbax-checkpoint-tmp" / "state").mkdir(parents=True)
    assert_same_run(go(small_run, out), out, reference)


def test_a_run_killed_before_its_first_checkpoint_begins_again(small_run, reference, stopped, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(stopped, out)
    shutil.rmtree(out / "checkpoints")
    assert_same_run(go(small_run, out), out, reference)


def test_a_finished_run_is_left_as_it_is(small_run, reference, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(reference[1], out)
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file() and path.suffix == ".npz"}
    result = go(small_run, out)
    assert result.finished
    assert len(result.history) == ITERATIONS
    assert before == {name: (out / name).read_bytes() for name in before}


def test_a_run_without_a_folder_writes_nothing_and_is_the_same(small_run, reference, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = go(small_run, None)
    assert list(tmp_path.iterdir()) == []
    assert without_times(result.history) == without_times(reference[0].history)
    np.testing.assert_array_equal(result.best_dataset.observations, reference[0].best_dataset.observations)


class Scripted:
    """An evaluator that says what it is told to: the scores of successive evaluations, and what confirms them."""

    def __init__(self, scores):
        self.scores = iter(scores)
        self.keys = []

    def __call__(self, key, dataset):
        del dataset
        self.keys.append(tuple(np.asarray(jax.random.key_data(key)).tolist()))
        returns = np.full((2, 2), next(self.scores))
        return hades.Evaluation(returns, np.ones((2, 2), int))


@dataclasses.dataclass(frozen=True, eq=False)
class Rescored(hades.Run):
    """A run with an evaluator of its own."""

    run: hades.Run
    evaluator: Scripted

    kind = "dataset"

    def __getattr__(self, name):
        if name in ("run", "evaluator"):  # while the dataclass is being made
            raise AttributeError(name)
        return getattr(self.run, name)

    def init(self, key):
        return self.run.init(key)

    def step(self, state):
        return self.run.step(state)

    def outcome(self, state):
        return self.run.outcome(state)

    def describe(self, outcome, seed, evaluation=None):
        return self.run.describe(outcome, seed, evaluation)

    def make_evaluator(self, num_inits, num_episodes):
        return self.evaluator

    def config(self):
        return self.run.config()


@pytest.mark.parametrize(
    ("scores", "best", "confirmed"),
    [
        # Score and confirmation of a new best; a score alone otherwise.
        ([5.0, 4.0, 9.0, 8.0, 1.0, 1.0], 6, 8.0),
        ([5.0, 4.0, 3.0, 3.0, 3.0], 3, 4.0),
        ([5.0, 4.0, 5.0, 4.5, 5.0, 4.7, 2.0], 9, 4.7),  # ties go to the later one
        ([np.nan, np.nan, -7.0, -8.0, np.nan, np.nan], 6, -8.0),
    ],
)
def test_the_best_dataset_is_kept_with_the_score_of_other_keys(small_run, reference, tmp_path, scores, best, confirmed):
    evaluator = Scripted(scores)
    run = Rescored(small_run, evaluator)
    loop = LoopSettings(iterations_per_call=3, evaluate_every=3)
    result = distill(KEY, run, ITERATIONS, out=tmp_path / "run", loop=loop, progress=False)
    assert result.best_iteration == best
    assert result.best_dataset.metadata.evaluation.mean == confirmed
    saved = SyntheticDataset.load(tmp_path / "run" / "best_dataset.npz")
    assert saved.metadata == result.best_dataset.metadata
    state, step = jax.jit(run.init)(KEY), jax.jit(run.step)
    for _ in range(best):
        state, _ = step(state)
    np.testing.assert_allclose(saved.observations, run.dataset(state).observations, rtol=1e-5, atol=1e-6)
    # Scores share one key, so that none is luckier than another; each confirmation has its own.
    assert len(set(evaluator.keys)) == 1 + len(evaluator.keys) - ITERATIONS // 3


def test_the_best_dataset_of_before_outlives_worse_ones_after_resuming(small_run, tmp_path):
    out, loop = tmp_path / "run", LoopSettings(iterations_per_call=3, evaluate_every=3)

    def go_on(scores, **arguments):
        run = Rescored(small_run, Scripted(scores))
        return distill(KEY, run, 9, out=out, loop=loop, progress=False, **arguments)

    go_on([9.0, 8.0], should_stop=after(1))
    before = (out / "best_dataset.npz").read_bytes()
    result = go_on([5.0, 8.5])
    assert (result.best_iteration, result.best_dataset.metadata.evaluation.mean) == (3, 8.0)
    assert (out / "best_dataset.npz").read_bytes() == before


def test_a_killed_run_goes_on_with_the_best_dataset_of_its_checkpoint(small_run, tmp_path):
    """The better one found after it may not be found again, as on another number of devices."""
    out, killed = tmp_path / "run", tmp_path / "killed"
    loop = LoopSettings(iterations_per_call=3, evaluate_every=3, checkpoint_seconds=1e9)

    def go_on(out, scores, **arguments):
        run = Rescored(small_run, Scripted(scores))
        return distill(KEY, run, ITERATIONS, out=out, loop=loop, progress=False, **arguments)

    def die(row):
        if row["iteration"] == 9:
            shutil.copytree(out, killed)

    go_on(out, [5.0, 4.0], should_stop=after(1))
    assert go_on(out, [9.0, 8.0, 1.0, 1.0], callbacks=[die]).best_iteration == 6
    result = go_on(killed, [1.0, 1.0, 1.0])
    assert (result.best_iteration, result.best_dataset.metadata.evaluation.mean) == (3, 4.0)
    assert SyntheticDataset.load(killed / "best_dataset.npz").metadata.evaluation.mean == 4.0


def test_evaluation_rows_are_evaluations_on_fresh_keys(small_run, reference):
    result, _ = reference
    row = result.history[-1]
    assert row["evaluation_ci_low"] <= row["evaluation_mean"] <= row["evaluation_ci_high"]
    assert 0 <= row["evaluation_mean"] <= 8
    assert result.evaluator(jax.random.key(9), result.dataset).returns.shape == (2, 2)


class Recorder(Callback):
    """Remembers every hook; `fail_at` raises an exception at a row."""

    def __init__(self, fail_at=None, error=None):
        self.events, self.fail_at, self.error = [], fail_at, error

    def start(self, run, state):
        self.events.append(("start", int(state.iteration)))

    def row(self, row):
        if row["iteration"] == self.fail_at:
            raise self.error
        self.events.append(("row", row["iteration"]))

    def evaluation(self, iteration, outcome, evaluation):
        assert outcome.observations.shape == (3, 3)
        self.events.append(("evaluation", iteration, evaluation.mean))

    def checkpoint(self, iteration):
        self.events.append(("checkpoint", iteration))

    def end(self, result):
        self.events.append(("end", result.finished))

    def of(self, *names):
        return [event for event in self.events if event[0] in names]


def test_hooks_come_in_their_order(small_run, tmp_path):
    recorder, rows = Recorder(), []
    result = go(small_run, tmp_path / "run", 8, callbacks=[recorder, rows.append])
    scores = {row["iteration"]: row["evaluation_mean"] for row in result.history if "evaluation_mean" in row}
    expected = [("start", 0), *rows_of(1, 2, 3), ("evaluation", 6, scores[6]), *rows_of(4, 5, 6)]
    expected += [("evaluation", 8, scores[8]), *rows_of(7, 8), ("checkpoint", 8), ("end", True)]
    assert recorder.events == expected
    assert rows == result.history


def rows_of(*iterations):
    return [("row", iteration) for iteration in iterations]


def test_rows_are_seen_once_across_a_kill_and_a_resume(small_run, reference, stopped, tmp_path):
    # Killed three rows behind its newest checkpoint: callbacks had seen them.
    out, recorder = tmp_path / "run", Recorder()
    shutil.copytree(stopped, out)
    RunDirectory(out).append_metrics(RunDirectory(reference[1]).read_metrics()[6:9])
    result = go(small_run, out, callbacks=[recorder])
    assert recorder.of("start", "row", "end") == [("start", 6), *rows_of(10, 11, 12), ("end", True)]
    assert without_times(result.history) == without_times(reference[0].history)
    again = Recorder()
    go(small_run, out, callbacks=[again])
    assert again.events == [("start", 12), ("end", True)]


@pytest.mark.parametrize("iteration", [3, 9])
def test_an_interrupt_leaves_a_checkpoint_to_go_on_from(small_run, reference, tmp_path, capsys, iteration):
    out, recorder = tmp_path / "run", Recorder(iteration, KeyboardInterrupt())
    partial = go(small_run, out, callbacks=[recorder])
    # A call is kept as a whole or not at all.
    assert (partial.finished, int(partial.state.iteration), len(partial.history)) == (
        False,
        iteration - 3,
        iteration - 3,
    )
    assert f"interrupted at iteration {iteration - 3} of 12" in capsys.readouterr().err
    assert recorder.events[-1] == ("end", False)
    assert_same_run(go(small_run, out), out, reference)


def test_an_interrupt_without_a_folder_loses_no_iteration(small_run, reference):
    result = go(small_run, None, callbacks=[Recorder(10, KeyboardInterrupt())])
    assert not result.finished
    assert without_times(result.history) == without_times(reference[0].history[:9])
    state, step = jax.jit(small_run.init)(KEY), jax.jit(small_run.step)
    for _ in range(9):
        state, _ = step(state)
    chex.assert_trees_all_close(result.state.outer, state.outer, rtol=1e-5, atol=1e-6)
    assert result.best_iteration == 6


def test_an_exception_in_a_callback_leaves_a_checkpoint_to_go_on_from(small_run, reference, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(RuntimeError, match="the logger broke"):
        go(small_run, out, callbacks=[Recorder(8, RuntimeError("the logger broke"))])
    assert sorted(int(path.name) for path in (out / "checkpoints").iterdir() if path.name.isdigit()) == [6]
    assert_same_run(go(small_run, out), out, reference)


def test_a_folder_that_cannot_be_written_is_said(small_run, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError):
        go(small_run, tmp_path / "file" / "run")
    with pytest.raises(OSError):
        go(small_run, tmp_path / "file")


def other_settings(run, **changes):
    return hades.recipes.from_settings(run.env, dataclasses.replace(run.settings, **changes))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dataset_size": 2}, "has dataset_size 3, got 2"),
        ({"population_size": 16}, "has population_size 8, got 16"),
        ({"evolution": EvolutionSettings(sigma=0.5, learning_rate=0.3)}, "has evolution.learning_rate 0.2, got 0.3"),
        ({"method": "hades-f"}, 'has method "hades-r", got "hades-f"'),
    ],
)
def test_a_folder_that_holds_a_run_of_other_settings_is_refused(small_run, stopped, change, words):
    before = {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()}
    with pytest.raises(OtherRunError, match=words):
        go(other_settings(small_run, **change), stopped)
    assert before == {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()}


def test_a_folder_that_holds_a_run_of_another_key_loop_or_environment_is_refused(small_run, stopped):
    with pytest.raises(OtherRunError, match=r"has key \[0, 4\], got \[0, 5\]"):
        distill(jax.random.key(5), small_run, ITERATIONS, out=stopped, loop=LOOP, progress=False)
    derived = jax.random.fold_in(KEY, 1)
    with pytest.raises(OtherRunError, match=r"has key \[0, 4\], got"):
        distill(derived, small_run, ITERATIONS, out=stopped, loop=LOOP, progress=False)
    with pytest.raises(OtherRunError, match="has loop.evaluate_every 6, got 3"):
        distill(
            KEY, small_run, ITERATIONS, out=stopped, loop=dataclasses.replace(LOOP, evaluate_every=3), progress=False
        )
    longer = hades.recipes.from_settings(Match(num_actions=3, max_steps=9), small_run.settings)
    with pytest.raises(OtherRunError, match="env_options"):
        go(longer, stopped)
    with pytest.raises(OtherRunError, match='has env "diagnostic/match", got "test/go-on"'):
        go(hades.recipes.from_settings(GoOn(), small_run.settings), stopped)


def test_a_folder_that_another_process_runs_in_is_refused(small_run, stopped):
    with RunDirectory(stopped).lock(), pytest.raises(RunDirectoryError, match=f"but process {os.getpid()} does"):
        go(small_run, stopped)


@pytest.mark.parametrize("num_iterations", [0, -1])
def test_runs_of_no_iterations_are_refused(small_run, tmp_path, num_iterations):
    with pytest.raises(ValueError, match="num_iterations: expected a number above 0"):
        go(small_run, tmp_path / "run", num_iterations=num_iterations)
    assert not (tmp_path / "run").exists()


def test_evaluations_that_do_not_suit_the_run_are_refused_before_anything_is_written(tmp_path):
    settings = {"observation_normalization": "running", "num_episodes": 8, "population_size": 2, "dataset_size": 2}
    run = hades.recipes.hades_r(Match(num_actions=3, max_steps=8), **settings)
    with pytest.raises(ValueError, match="^evaluation_episodes: expected a multiple of"):
        distill(KEY, run, 1, out=tmp_path / "run", loop=LOOP, progress=False)
    assert not (tmp_path / "run").exists()
    # Without evaluations there is nothing to refuse.
    assert distill(KEY, run, 1, loop=QUIET, progress=False).evaluator is None


@pytest.mark.parametrize("kind", ["running", "none"])
def test_a_normaliser_of_another_kind_than_the_settings_ask_for_is_refused(kind):
    with pytest.raises(ValueError, match=f"^normalizer: expected one of kind fixed, .* got {kind}"):
        hades.recipes.hades_r(Match(num_actions=3), normalizer=hades.Normalizer(kind))


def test_a_run_that_a_time_budget_ends_has_its_last_evaluation(small_run, monkeypatch):
    """On a clock that goes on by a second at every reading, wherever between two readings the budget falls."""
    loop = dataclasses.replace(LOOP, iterations_per_call=1, evaluate_every=1000)
    for budget in np.arange(1, 40) + 0.5:
        seconds = itertools.count()
        monkeypatch.setattr("hades._host_loop.time.monotonic", lambda seconds=seconds: float(next(seconds)))
        result = distill(KEY, small_run, 50, loop=dataclasses.replace(loop, max_seconds=budget), progress=False)
        assert result.finished and result.history[-1]["iteration"] < 50
        assert "evaluation_mean" in result.history[-1], budget


def test_a_run_ends_at_the_return_that_is_asked_for(small_run, tmp_path):
    """With the bytes of a run of as many iterations, and it stays ended until more is asked for."""
    loop = dataclasses.replace(LOOP, evaluate_every=3, evaluation_inits=8, evaluation_episodes=4)
    whole = distill(KEY, small_run, ITERATIONS, out=tmp_path / "whole", loop=loop, progress=False)
    found = {row["iteration"]: row["evaluation_mean"] for row in whole.history if "evaluation_mean" in row}
    assert found[3] < found[6]
    distill(KEY, small_run, 6, out=tmp_path / "six", loop=loop, progress=False)
    out, asked = tmp_path / "run", dataclasses.replace(loop, target_return=found[6])
    for num_iterations in (ITERATIONS, 10**6):
        result = distill(KEY, small_run, num_iterations, out=out, loop=asked, progress=False)
        assert result.finished and int(result.state.iteration) == result.history[-1]["iteration"] == 6
    for name in ("dataset.npz", "best_dataset.npz"):
        assert (out / name).read_bytes() == (tmp_path / "six" / name).read_bytes(), name
    more = dataclasses.replace(loop, target_return=max(found.values()) + 1)
    result = distill(KEY, small_run, ITERATIONS, out=out, loop=more, progress=False)
    assert_same_run(result, out, (whole, tmp_path / "whole"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target_return": float("nan")}, "^target_return: expected a finite number, got nan"),
        ({"target_return": 1.0, "evaluate_every": None}, "^target_return: expected an evaluate_every beside it"),
    ],
)
def test_a_return_that_no_evaluation_finds_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(LOOP, **changes)


def test_a_return_of_a_run_without_an_environment_is_refused():
    with pytest.raises(ValueError, match="^target_return: expected none, as the run has no environment, got 1.0"):
        distill(KEY, Counting(), 3, loop=dataclasses.replace(LOOP, target_return=1.0), progress=False)


def test_processes_that_read_different_checkpoints_do_not_go_on(small_run, stopped, monkeypatch):
    monkeypatch.setattr("hades._host_loop.multihost.from_first", lambda value: value + 3)
    with pytest.raises(
        RunDirectoryError, match="expected checkpoints that all processes of the run read alike, got it"
    ):
        go(small_run, stopped)


def test_seeds_of_keys_are_those_that_made_them(small_run):
    for key, seed in [(jax.random.key(0), 0), (jax.random.key(2**31 + 5), 2**31 + 5)]:
        result = distill(key, small_run, 1, loop=LOOP, progress=False)
        assert result.dataset.metadata.seed == seed


def test_progress_is_told_in_lines_where_there_is_no_terminal(small_run, capsys):
    distill(KEY, small_run, 3, loop=LOOP)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "iteration 0/3, compiling" in captured.err
    assert "iteration 3/3" in captured.err
    assert "fresh keys" in captured.err


QUIET = LoopSettings(iterations_per_call=10, evaluate_every=None, checkpoint_seconds=1e9)


def test_environment_steps_of_an_iteration_may_exceed_32_bits():
    result = distill(KEY, Counting(), 3, loop=QUIET, progress=False)
    assert [row["env_steps"] for row in result.history] == [2**32] * 3
    assert [row["total_env_steps"] for row in result.history] == [2**32, 2**33, 3 * 2**32]
    limited = dataclasses.replace(QUIET, max_env_steps=2**33, iterations_per_call=1)
    assert int(distill(KEY, Counting(), 9, loop=limited, progress=False).state.iteration) == 2


def test_rows_of_several_iterations_are_sums_of_counts_and_means_of_the_rest():
    loop = dataclasses.replace(QUIET, log_every=5)
    result = distill(KEY, Counting(steps=2**28), 13, loop=loop, progress=False)
    assert [row["iteration"] for row in result.history] == [5, 10, 13]
    assert [row["non_finite"] for row in result.history] == [5, 5, 3]
    # An objective's own, of each candidate.
    assert [row["falls"] for row in result.history] == [15, 15, 9]
    assert [row["fitness_best"] for row in result.history] == [3.0, 8.0, 12.0]
    assert result.history[-1]["total_env_steps"] == 13 * 2**30


@pytest.mark.slow
def test_two_hundred_thousand_rows_take_seconds(tmp_path):
    # Far from quadratic, and without an fsync a call: the version before took 34 s for the history alone.
    loop = dataclasses.replace(QUIET, iterations_per_call=1000)
    seen = []
    began = time.process_time()
    result = distill(KEY, Counting(), 200_000, out=tmp_path / "run", loop=loop, progress=False, callbacks=[seen.append])
    assert len(result.history) == len(seen) == 200_000
    assert result.history[-1]["fitness_best"] == 200_000
    assert time.process_time() - began < 25


def test_a_remainder_of_iterations_and_equal_runs_compile_nothing_again():
    traces = []

    class Traced(Counting):
        def step(self, state):
            traces.append(1)
            return super().step(state)

    distill(KEY, Traced(), 10, loop=QUIET, progress=False)
    first = len(traces)
    assert first
    for iterations in (10, 17, 3):
        distill(jax.random.key(iterations), Traced(), iterations, loop=QUIET, progress=False)
    assert len(traces) == first
    distill(KEY, Traced(reward=2.0), 10, loop=QUIET, progress=False)
    assert len(traces) == 2 * first


def test_a_run_is_first_asked_to_stop_once_it_is_compiled():
    traces, seen = [], []

    class Traced(Counting):
        def step(self, state):
            traces.append(1)
            return super().step(state)

    def should_stop():
        seen.append(len(traces))
        return False

    distill(KEY, Traced(reward=3.0), 20, loop=QUIET, progress=False, should_stop=should_stop)
    assert seen[0] > 0
    assert seen == 2 * seen[:1]


@pytest.mark.parametrize("reward", [np.nan, np.inf, 1e20])
def test_metrics_are_strict_json(tmp_path, reward):
    result = distill(KEY, Counting(reward=reward), 3, out=tmp_path / "run", loop=QUIET, progress=False)

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line, parse_constant=refuse) for line in lines]
    assert len(rows) == len(result.history) == 3
    expected = pytest.approx(1e20) if reward == 1e20 else None
    assert all(row["fitness_mean"] == expected for row in rows)


def test_a_run_that_diverges_names_the_iteration_and_the_last_good_file(tmp_path):
    out, run = tmp_path / "run", Counting(diverges_after=13)
    words = r"diverged: its dataset is not finite since iteration 14; the last good one, of iteration 10, is in"
    with pytest.raises(DivergedError, match=words + r" .*run/dataset\.npz$"):
        distill(KEY, run, 50, out=out, loop=QUIET, progress=False)
    assert float(SyntheticDataset.load(out / "dataset.npz").observations[0, 0]) == 10
    # Resuming says the same, and neither loses nor doubles anything.
    with pytest.raises(DivergedError, match="since iteration 14"):
        distill(KEY, run, 50, out=out, loop=QUIET, progress=False)
    assert [row["iteration"] for row in RunDirectory(out).read_metrics()] == list(range(1, 11))
    with pytest.raises(DivergedError, match=words + " the state$"):
        distill(KEY, run, 50, loop=QUIET, progress=False)


def test_resuming_draws_no_state(tmp_path):
    drawn = []

    class Costly(Counting):
        def init(self, key):
            jax.debug.callback(lambda: drawn.append(1))
            return super().init(key)

    for iterations in (10, 20):
        distill(KEY, Costly(), iterations, out=tmp_path / "run", loop=QUIET, progress=False)
        jax.effects_barrier()
        assert len(drawn) == 1


def test_the_best_is_chosen_on_the_same_keys_every_time(small_run):
    evaluator = Scripted([1.0, 0.0, 3.0, 0.0, 2.0])
    loop = LoopSettings(iterations_per_call=1, evaluate_every=1)
    distill(KEY, Rescored(small_run, evaluator), 3, loop=loop, progress=False)
    # Score, confirmation, score, confirmation, score.
    selection = {evaluator.keys[index] for index in (0, 2, 4)}
    assert len(selection) == 1
    assert len({evaluator.keys[1], evaluator.keys[3]} | selection) == 3


def test_a_result_survives_pickling(small_run, reference):
    result, _ = reference
    copy = pickle.loads(pickle.dumps(result))
    assert_same_state(copy.state, result.state)
    assert copy.history == result.history
    assert copy.dataset.metadata == result.dataset.metadata
    np.testing.assert_array_equal(copy.best_dataset.observations, result.best_dataset.observations)
    assert (copy.finished, copy.best_iteration, copy.evaluator) == (True, result.best_iteration, None)
    further, _ = jax.jit(small_run.step)(copy.state)
    assert int(further.iteration) == ITERATIONS + 1


_DEBUG_NANS = """
import jax, hades
from envs.diagnostic import Match
from hades.inner.cloning import CloningSettings
small = CloningSettings(hidden_sizes=(), kernel_init="lecun_normal", num_steps=2)
for strategy in ("Open_ES", "SNES"):
    run = hades.recipes.hades_r(
        Match(max_steps=2), dataset_size=2, population_size=4, cloning=small,
        evolution=hades.outer.EvolutionSettings(strategy),
    )
    loop = hades.LoopSettings(iterations_per_call=2, evaluate_every=2, evaluation_inits=2, evaluation_episodes=2)
    assert hades.distill(jax.random.key(0), run, 3, loop=loop, progress=False).finished
"""


@pytest.mark.slow
def test_runs_without_nan_pass_where_jax_looks_for_them():
    root = str(Path(__file__).resolve().parents[2])
    environment = os.environ | {"JAX_DEBUG_NANS": "1", "PYTHONPATH": root}
    command = [sys.executable, "-c", _DEBUG_NANS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]


def test_advance_counts_at_run_time(small_run):
    state = jax.jit(small_run.init)(KEY)
    for count in (0, 1, 3):
        after, sums = advance(small_run, state, np.int32(count), rows=3, log_every=1)
        assert int(after.iteration) == count
        assert (np.asarray(sums["fitness_best"]) > 0).sum() == count
