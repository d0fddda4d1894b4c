"""Runs that were stopped, interrupted or killed, and go on as if nothing had been."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import hades as library
from experiments import running
from experiments.checks import resume
from experiments.commands.distill import COMMAND
from experiments.processes import command
from hades import recipes, training
from hades._checkpointing import Checkpoints
from hades._host_loop import HostLoop
from hades._run_directory import OtherRunError, RunDirectory
from hades.dataset import SyntheticDataset
from hades.sharding import usable_cores
from tests.experiments.command import TINY, Outcome, rows_without_seconds

BOTH = ("dataset.npz", "best_dataset.npz")
SIX = ("--num-generations", "6")


def assert_equal_runs(first: Path, second: Path) -> None:
    for name in BOTH:
        assert (first / name).read_bytes() == (second / name).read_bytes()
    assert rows_without_seconds(first) == rows_without_seconds(second)


def start(out: Path, checkpoint_seconds: float = 60.0, **arguments: Any) -> training.Result[Any]:
    """What `finished_run` is, through the library."""
    settings = running.resolve(COMMAND, [*TINY, "--checkpoint-seconds", str(checkpoint_seconds)])
    assert settings.env is not None
    run = recipes.from_settings(settings.options.make(settings.env), settings.settings)
    return library.distill(
        jax.random.key(settings.seed),
        run,
        settings.num_iterations,
        out=out,
        loop=settings.loop,
        progress=False,
        **arguments,
    )


@pytest.fixture
def copy(finished_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_run, tmp_path / "copy"))


def test_run_that_was_stopped_goes_on_to_the_same_end(tmp_path: Path, finished_run: Path) -> None:
    stops = iter([False, True])
    first = start(tmp_path / "run", should_stop=lambda: next(stops))
    assert not first.finished
    assert [row["iteration"] for row in first.history] == [1, 2]
    second = start(tmp_path / "run")
    assert second.finished
    assert [row["iteration"] for row in second.history] == [1, 2, 3, 4]
    assert_equal_runs(tmp_path / "run", finished_run)


def test_rows_are_on_disk_before_the_checkpoint_that_needs_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    save, fsync = Checkpoints.save, os.fsync

    def saving(self: Checkpoints, *arguments: Any) -> None:
        order.append("checkpoint")
        save(self, *arguments)

    def syncing(descriptor: int) -> None:
        order.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    monkeypatch.setattr(Checkpoints, "save", saving)
    monkeypatch.setattr(os, "fsync", syncing)
    start(tmp_path / "run")
    checkpoints = [index for index, name in enumerate(order) if name == "checkpoint"]
    assert checkpoints
    assert all(order[index - 1] == "metrics.jsonl" for index in checkpoints)


@pytest.mark.parametrize("place", ["_describe", "_evaluate", "save_checkpoint"])
def test_interrupt_within_a_call_loses_no_evaluation(
    tmp_path: Path, finished_run: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """As Ctrl-C does in a notebook: at any point of the second call, after the state has moved on."""
    owner = HostLoop
    original = getattr(owner, place)
    calls = []

    def interrupted(*arguments: Any) -> Any:
        calls.append(arguments[0].iteration)
        if calls[-1] == 4 and calls.count(4) == 1:
            raise KeyboardInterrupt
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(owner, place, interrupted)
        stopped = start(tmp_path / "run", checkpoint_seconds=0.0 if place == "save_checkpoint" else 60.0)
    assert (stopped.finished, int(stopped.state.iteration), len(stopped.history)) == (False, 2, 2)
    with Checkpoints(tmp_path / "run" / "checkpoints") as checkpoints:
        assert checkpoints.latest == 2
    start(tmp_path / "run")
    assert_equal_runs(tmp_path / "run", finished_run)


def test_resume_begins_a_run_where_there_is_none(
    hades: Callable[..., Outcome], tmp_path: Path, finished_run: Path
) -> None:
    assert hades("distill", *TINY, "--out", tmp_path / "run", "--resume").code == 0
    assert_equal_runs(tmp_path / "run", finished_run)


def test_run_that_has_no_checkpoint_yet_begins_anew(
    hades: Callable[..., Outcome], copy: Path, finished_run: Path
) -> None:
    shutil.rmtree(copy / "checkpoints")
    assert hades("distill", "--out", copy, "--resume").code == 0
    assert_equal_runs(copy, finished_run)


def test_finished_run_can_be_resumed_and_stays_as_it_is(
    hades: Callable[..., Outcome], copy: Path, finished_run: Path
) -> None:
    (copy / "curve.png").unlink()
    assert hades("distill", "--out", copy, "--resume").code == 0
    assert_equal_runs(copy, finished_run)
    assert (copy / "curve.png").is_file()


def test_run_can_go_on_for_longer(hades: Callable[..., Outcome], copy: Path, tmp_path: Path) -> None:
    assert hades("distill", *TINY, *SIX, "--out", tmp_path / "whole").code == 0
    assert hades("distill", "--out", copy, "--resume", *SIX).code == 0
    assert_equal_runs(copy, tmp_path / "whole")
    assert RunDirectory(copy).read_config()["num_iterations"] == 6


def test_run_cannot_become_shorter_than_it_is(hades: Callable[..., Outcome], copy: Path) -> None:
    before = (copy / "config.json").read_bytes()
    outcome = hades("distill", "--out", copy, "--resume", "--num-generations", "2")
    assert outcome.code == 2
    assert "--num-iterations: the run" in outcome.complaint
    assert (copy / "config.json").read_bytes() == before


def test_half_a_line_of_metrics_is_written_again(hades: Callable[..., Outcome], copy: Path, finished_run: Path) -> None:
    with (copy / "metrics.jsonl").open("a") as file:
        file.write('{"iteration": 5, "sec')
    assert hades("distill", "--out", copy, "--resume").code == 0
    assert_equal_runs(copy, finished_run)


def test_unfinished_checkpoint_is_not_taken_for_one(
    hades: Callable[..., Outcome], copy: Path, finished_run: Path
) -> None:
    # What orbax leaves behind while it writes.
    shutil.copytree(copy / "checkpoints" / "4", copy / "checkpoints" / "6.orbax-checkpoint-tmp")
    (copy / "checkpoints" / "6.orbax-checkpoint-tmp" / "commit_success.txt").unlink(missing_ok=True)
    assert hades("distill", "--out", copy, "--resume").code == 0
    assert_equal_runs(copy, finished_run)


@pytest.mark.parametrize(
    ("flag", "value", "words"),
    [
        ("--method", "hades-f", "has hades-r, got hades-f"),
        ("--env", "diagnostic/target", "has diagnostic/match, got diagnostic/target"),
        ("--population-size", "16", "has 8, got 16"),
        ("--seed", "1", "has 0, got 1"),
        ("--cloning.num-steps", "7", "has 3, got 7"),
        ("--max-steps", "3", "has none, got 3"),
        ("--preset", "cartpole", "has none, got cartpole"),
    ],
)
def test_another_run_than_the_one_in_the_folder_is_refused(
    hades: Callable[..., Outcome], copy: Path, flag: str, value: str, words: str
) -> None:
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    outcome = hades("distill", "--out", copy, "--resume", flag, value)
    assert outcome.code == 2
    assert outcome.complaint.startswith(f"hades distill: {flag}: the run in {copy} {words}")
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before


def test_folder_that_holds_a_run_is_not_overwritten(hades: Callable[..., Outcome], copy: Path) -> None:
    outcome = hades("distill", *TINY, "--out", copy)
    assert outcome.code == 2
    expected = f"hades distill: --out: {copy} holds a run; go on with it by --resume, or choose another"
    assert outcome.complaint == expected


def test_a_run_in_the_folder_of_its_own_goes_on_as_it_began(
    hades: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert hades("distill", *TINY, "--max-seconds", "1000").code == 0
    (folder,) = (tmp_path / "runs").iterdir()
    began = json.loads((folder / "config.json").read_text())
    # Of the first flags those that do not choose the folder are not given again.
    again = hades("distill", "--env", "diagnostic/match", "--resume", "--num-iterations", "6")
    assert again.code == 0, again.err
    now = json.loads((folder / "config.json").read_text())
    assert now == began | {"num_iterations": 6}
    shorter = hades("distill", "--env", "diagnostic/match", "--resume", "--num-iterations", "3")
    assert (shorter.code, "has done 6, got 3" in shorter.complaint) == (2, True)


@pytest.mark.parametrize("content", [None, ""], ids=["missing", "empty"])
def test_rows_that_a_checkpoint_has_and_a_run_lost_are_missed(
    hades: Callable[..., Outcome], copy: Path, content: str | None
) -> None:
    (copy / "metrics.jsonl").unlink()
    if content is not None:
        (copy / "metrics.jsonl").write_text(content)
    outcome = hades("distill", "--out", copy, "--resume", "--num-iterations", "8")
    assert outcome.code == 1
    assert f"{copy / 'metrics.jsonl'}: expected rows up to iteration 4" in outcome.err


def change_config(run: Path, **changes: Any) -> None:
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | changes))


def test_run_of_another_command_is_refused(hades: Callable[..., Outcome], copy: Path) -> None:
    change_config(copy, command="baseline")
    outcome = hades("distill", "--out", copy, "--resume")
    assert outcome.code == 2
    assert f"{copy} holds a run of `hades baseline`" in outcome.complaint


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected JSON"),
        ("{", "expected JSON"),
        ("[1]", "expected a JSON object, got a list"),
        ("\udcff", "expected JSON"),
        ('{"command": "distill", "seed": "x"}', "seed: expected an integer, got 'x'"),
        ('{"command": "distill", "sed": 1}', "sed: unknown"),
        ('{"command": "distill", "settings": {"population_size": 0}}', "population_size: expected a number above 0"),
    ],
)
def test_damaged_config_is_one_sentence(hades: Callable[..., Outcome], copy: Path, text: str, words: str) -> None:
    (copy / "config.json").write_bytes(text.encode(errors="surrogateescape"))
    outcome = hades("distill", "--out", copy, "--resume")
    assert outcome.code == 1
    assert outcome.complaint.startswith(f"hades distill: {copy}/config.json: ")
    assert words in outcome.complaint


@pytest.mark.parametrize("line", ["not JSON", "[1]", '{"seconds": 1}'])
def test_damaged_metrics_are_one_sentence(hades: Callable[..., Outcome], copy: Path, line: str) -> None:
    (copy / "metrics.jsonl").write_text(line + "\n")
    for arguments in (("distill", "--out", copy, "--resume"), ("info", copy)):
        outcome = hades(*arguments)
        assert outcome.code == 1
        assert f"{copy}/metrics.jsonl: " in outcome.complaint
        assert "expected a JSON object with an iteration" in outcome.complaint


def test_damaged_checkpoint_is_one_sentence(hades: Callable[..., Outcome], copy: Path) -> None:
    for path in (copy / "checkpoints" / "4").rglob("*"):
        if path.is_file() and path.name not in ("commit_success.txt", "_CHECKPOINT_METADATA"):
            path.write_bytes(b"damaged")
    outcome = hades("distill", "--out", copy, "--resume")
    assert outcome.code == 1
    assert outcome.complaint.startswith(f"hades distill: {copy}/checkpoints")


def test_missing_best_dataset_is_one_sentence(hades: Callable[..., Outcome], copy: Path) -> None:
    (copy / "best_dataset.npz").unlink()
    outcome = hades("distill", "--out", copy, "--resume")
    assert outcome.code == 1
    assert f"{copy}/best_dataset.npz: expected an .npz file, found nothing there" in outcome.complaint


def test_second_process_in_one_run_directory_is_refused(hades: Callable[..., Outcome], tmp_path: Path) -> None:
    out = tmp_path / "run"
    flags = ("--num-iterations", "100000", "--evaluate-every", "100000")
    arguments = command("distill", *TINY, *flags, "--out", str(out))
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 240
        while not RunDirectory(out).last_row():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        outcome = hades("distill", "--out", out, "--resume")
        expected = f"{out}: expected a run that no other process works on, but process {process.pid} does"
        assert (outcome.code, outcome.complaint) == (1, f"hades distill: {expected}")
        assert hades("info", out).code == 0
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()
    # The lock dies with its holder, and what it wrote was not disturbed.
    directory = RunDirectory(out)
    iterations = [row["iteration"] for row in directory.read_metrics()]
    assert iterations == list(range(1, len(iterations) + 1))
    # A process that evaluates populations divides its CPU.
    assert directory.read_versions()["device_count"] == min(usable_cores(), 16)
    with directory.lock():
        pass


def test_command_and_notebook_go_on_with_the_same_run(hades: Callable[..., Outcome], copy: Path) -> None:
    before = RunDirectory(copy).read_config()
    settings = running.resolve(COMMAND, ["--out", str(copy), "--resume"])
    run = recipes.from_settings(settings.options.make("diagnostic/match"), settings.settings)
    arguments: dict[str, Any] = {"out": copy, "loop": settings.loop, "progress": False}
    with pytest.raises(OtherRunError, match="has key"):
        library.distill(jax.random.key(1), run, 6, **arguments)
    larger = dataclasses.replace(settings.settings, population_size=16)
    with pytest.raises(OtherRunError, match="has population_size 8, got 16"):
        library.distill(jax.random.key(0), recipes.from_settings(run.env, larger), 6, **arguments)
    assert RunDirectory(copy).read_config() == before
    assert library.distill(jax.random.key(0), run, 6, **arguments).finished
    assert RunDirectory(copy).read_config() == before | {"num_iterations": 6}
    assert hades("distill", "--out", copy, "--resume", "--num-iterations", "8", "--json").json["iterations"] == 8


def test_run_that_a_notebook_began_is_left_to_it(hades: Callable[..., Outcome], tmp_path: Path) -> None:
    start(tmp_path / "run")
    outcome = hades("distill", "--out", tmp_path / "run", "--resume")
    assert outcome.code == 2
    expected = f"--out: {tmp_path}/run holds a run that the library began; go on with it by hades.distill(..., out=...)"
    assert outcome.complaint == f"hades distill: {expected}"
    assert hades("info", tmp_path / "run", "--json").json["iterations"] == "4 of 4"


@pytest.mark.parametrize(("rate", "good"), [("1e38", 6), ("3e38", 0)])
def test_search_that_diverges_names_iteration_and_last_good_file(
    hades: Callable[..., Outcome], tmp_path: Path, rate: str, good: int
) -> None:
    out = tmp_path / "run"
    outcome = hades("distill", *TINY, "--num-iterations", "20", "--evolution.learning-rate", rate, "--out", out)
    where = (
        f"the last good one, of iteration {good}, is in {out}/dataset.npz"
        if good
        else "no call before it ended, so that there is no good one"
    )
    diverged = "hades distill: the run diverged: its dataset is not finite since iteration"
    assert outcome.code == 1
    assert outcome.err.splitlines()[-1] in {f"{diverged} {good + more}; {where}" for more in (1, 2)}
    assert "Traceback" not in outcome.err
    assert (out / "dataset.npz").exists() == bool(good)
    if good:
        assert np.isfinite(SyntheticDataset.load(out / "dataset.npz").observations).all()
        assert RunDirectory(out).read_metrics()[-1]["iteration"] == good
    again = hades("distill", "--out", out, "--resume")
    assert (again.code, again.err.splitlines()[-1]) == (1, outcome.err.splitlines()[-1])


@pytest.mark.slow
def test_runs_that_are_killed_at_random_moments_end_with_the_same_bytes(capfd: pytest.CaptureFixture[str]) -> None:
    flags = "--population-size 8 --generations-per-call 2 --evaluate-every 8"
    arguments = ["--kills", "2", "--env", "diagnostic/match", "--num-generations", "80", "--json", f"--flags={flags}"]
    code = resume.main(arguments)
    out, err = capfd.readouterr()
    assert code == 0, err
    result = json.loads(out)
    assert result["passed"] == result["trials"] == 2
    assert result["kills"] >= 2
