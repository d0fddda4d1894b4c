"""The host loop: resuming bit for bit, what a folder holds, the best dataset, and how it ends."""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil

import jax
import numpy as np
import pytest

import hades
from hades._run_directory import RunDirectory
from hades._serialization import to_dict
from hades.dataset import SyntheticDataset
from hades.training import LoopSettings, distill

LOOP = LoopSettings(iterations_per_call=3, evaluate_every=6, evaluation_inits=2, evaluation_episodes=2)
KEY = jax.random.key(4)
GENERATIONS = 12


def after(calls):
    """A `should_stop` that lets so many compiled calls happen."""
    asked = iter(range(calls + 1))
    return lambda: next(asked) >= calls


def go(run, out, num_generations=GENERATIONS, **arguments):
    return distill(KEY, run, num_generations, out=out, loop=LOOP, progress=False, **arguments)


def without_times(rows):
    return [{name: value for name, value in row.items() if not name.startswith("seconds")} for row in rows]


def data(leaf):
    is_key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if is_key else leaf)


def assert_same_run(result, out, reference):
    expected, expected_out = reference
    for found, leaf in zip(jax.tree.leaves(result.state), jax.tree.leaves(expected.state), strict=True):
        np.testing.assert_array_equal(data(found), data(leaf))
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
    """A run that was stopped after its second call, at generation 6."""
    out = tmp_path_factory.mktemp("stopped") / "run"
    result = go(small_run, out, should_stop=after(2))
    assert not result.finished
    assert int(result.state.generation) == 6
    return out


def test_a_run_directory_holds_what_the_contract_says(small_run, reference):
    result, out = reference
    assert result.finished
    names = {"config.json", "versions.json", "metrics.jsonl", "checkpoints", "dataset.npz", "best_dataset.npz"}
    assert {path.name for path in out.iterdir()} == names
    config = json.loads((out / "config.json").read_text())
    assert config == {"settings": to_dict(small_run.settings), "num_generations": GENERATIONS}
    rows = RunDirectory(out).read_metrics()
    assert rows == result.history
    assert [row["iteration"] for row in rows] == list(range(1, GENERATIONS + 1))
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
        assert int(state.generation) == row["iteration"]


@pytest.mark.parametrize("calls", [1, 3])
def test_a_stopped_run_goes_on_bit_for_bit(small_run, reference, tmp_path, calls):
    out = tmp_path / "run"
    first = go(small_run, out, should_stop=after(calls))
    assert int(first.state.generation) == 3 * calls
    assert_same_run(go(small_run, out), out, reference)


def test_a_run_that_ended_between_calls_goes_on_bit_for_bit(small_run, reference, tmp_path):
    # 5 is no multiple of 3: the next call is cut so that it ends at 6, where an evaluation is due. The evaluation at 5,
    # the end of the first part, is one that the run in one piece never made.
    out = tmp_path / "run"
    short = go(small_run, out, num_generations=5)
    assert (short.finished, int(short.state.generation)) == (True, 5)
    result = go(small_run, out)
    expected, _ = reference
    for found, leaf in zip(jax.tree.leaves(result.state), jax.tree.leaves(expected.state), strict=True):
        np.testing.assert_array_equal(data(found), data(leaf))
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
    assert len(result.history) == GENERATIONS
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
    run = dataclasses.replace(small_run, make_evaluator=lambda num_inits, num_episodes: evaluator)
    loop = LoopSettings(iterations_per_call=3, evaluate_every=3)
    result = distill(KEY, run, GENERATIONS, out=tmp_path / "run", loop=loop, progress=False)
    assert result.best_iteration == best
    assert result.best_dataset.metadata.evaluation.mean == confirmed
    saved = SyntheticDataset.load(tmp_path / "run" / "best_dataset.npz")
    assert saved.metadata == result.best_dataset.metadata
    state, step = jax.jit(run.init)(KEY), jax.jit(run.step)
    for _ in range(best):
        state, _ = step(state)
    np.testing.assert_allclose(saved.observations, run.dataset(state).observations, rtol=1e-5, atol=1e-6)
    # No two evaluations share a key, nor do a score and its confirmation.
    assert len(set(evaluator.keys)) == len(evaluator.keys)


def test_the_best_dataset_of_before_outlives_worse_ones_after_resuming(small_run, tmp_path):
    out, loop = tmp_path / "run", LoopSettings(iterations_per_call=3, evaluate_every=3)

    def go_on(scores, **arguments):
        run = dataclasses.replace(small_run, make_evaluator=lambda num_inits, num_episodes: Scripted(scores))
        return distill(KEY, run, 9, out=out, loop=loop, progress=False, **arguments)

    go_on([9.0, 8.0], should_stop=after(1))
    before = (out / "best_dataset.npz").read_bytes()
    result = go_on([5.0, 8.5])
    assert (result.best_iteration, result.best_dataset.metadata.evaluation.mean) == (3, 8.0)
    assert (out / "best_dataset.npz").read_bytes() == before


def test_evaluation_rows_are_evaluations_on_fresh_keys(small_run, reference):
    result, _ = reference
    row = result.history[-1]
    assert row["evaluation_ci_low"] <= row["evaluation_mean"] <= row["evaluation_ci_high"]
    assert 0 <= row["evaluation_mean"] <= 8
    assert result.evaluator(jax.random.key(9), result.dataset).returns.shape == (2, 2)


def test_callbacks_see_the_state_and_the_newest_row(small_run, tmp_path):
    seen = []
    go(small_run, None, 5, callbacks=[lambda state, row: seen.append((int(state.generation), row["iteration"]))])
    assert seen == [(3, 3), (5, 5)]


@pytest.mark.parametrize("generation", [3, 9])
def test_an_interrupt_leaves_a_checkpoint_to_go_on_from(small_run, reference, tmp_path, generation):
    def interrupt(state, row):
        if row["iteration"] == generation:
            raise KeyboardInterrupt

    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        go(small_run, out, callbacks=[interrupt])
    assert [int(path.name) for path in (out / "checkpoints").iterdir() if path.name.isdigit()][-1] == generation
    assert_same_run(go(small_run, out), out, reference)


def test_a_folder_that_cannot_be_written_is_said(small_run, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError):
        go(small_run, tmp_path / "file" / "run")
    with pytest.raises(OSError):
        go(small_run, tmp_path / "file")


def test_a_folder_that_holds_a_run_of_other_shapes_is_refused(small_run, stopped, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(stopped, out)
    other = hades.recipes.from_settings(small_run.env, dataclasses.replace(small_run.settings, dataset_size=2))
    with pytest.raises(ValueError):
        go(other, out)


@pytest.mark.parametrize("num_generations", [0, -1])
def test_runs_of_no_generations_are_refused(small_run, tmp_path, num_generations):
    with pytest.raises(ValueError, match="num_generations: expected at least 1"):
        go(small_run, tmp_path / "run", num_generations=num_generations)
    assert not (tmp_path / "run").exists()


def test_seeds_of_keys_are_those_that_made_them(small_run):
    for key, seed in [(jax.random.key(0), 0), (jax.random.key(2**31 + 5), 2**31 + 5)]:
        result = distill(key, small_run, 1, loop=LOOP, progress=False)
        assert result.dataset.metadata.seed == seed


def test_progress_is_told_in_lines_where_there_is_no_terminal(small_run, capsys):
    distill(KEY, small_run, 3, loop=LOOP)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "generation 0/3, compiling" in captured.err
    assert "generation 3/3" in captured.err
    assert "fresh keys" in captured.err
