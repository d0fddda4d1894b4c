"""States of members, told from what is on disk and from Slurm's queue."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from experiments.launching import status
from experiments.launching.grid import Member, load_grid
from experiments.launching.status import State
from hades.dataset import SyntheticDataset
from tests.experiments.command import Outcome
from tests.experiments.grids import begin_run, table_states, write_grid
from tests.hades.malformed import valid_arrays, valid_metadata, write_file


@pytest.fixture
def member(tmp_path: Path) -> Member:
    grid = load_grid(write_grid(tmp_path, "[grid]\nseed = [0]\n", top=f'out = "{tmp_path}/out"\n'))
    grid.launch_folder.mkdir(parents=True)
    return grid.members[0]


def record(member: Member, exit_code: int | None, arguments: list[str] | None = None, job: str | None = None) -> None:
    line = {"arguments": arguments or member.arguments, "job": job, "exit_code": exit_code}
    with member.files.record.open("a") as file:
        file.write(json.dumps(line) + "\n")


def finish(member: Member, iterations: int, env_steps: int = 100, seconds: float = 1.0) -> None:
    content = {"iterations": iterations, "env_steps": env_steps, "seconds": seconds, "best_score": -90.0}
    begin_run(member).write_summary(content)


def state(member: Member, **job: Any) -> State:
    return status._status(member, job.get("job"), job.get("queue", {})).state


def test_run_is_done_when_its_summary_tells_of_all_iterations(member: Member) -> None:
    assert state(member) == State.MISSING
    finish(member, 1)
    assert state(member) == State.STOPPED
    finish(member, 2)
    assert state(member) == State.DONE


def test_run_with_a_whole_summary_runs_until_its_process_has_ended(member: Member) -> None:
    finish(member, 2)
    record(member, None)
    with member.files.log.open("ab") as log:
        fcntl.flock(log.fileno(), fcntl.LOCK_EX)
        assert state(member) == State.RUNNING
    assert state(member) == State.DONE


def test_limit_of_several_words_is_left_to_the_run_itself(tmp_path: Path) -> None:
    text = '[[runs]]\nname = "a"\nnum-iterations = [1, 2]\n'
    (member,) = load_grid(write_grid(tmp_path, text, top=f'out = "{tmp_path}/out"\n')).members
    assert state(member) == State.MISSING


def test_record_that_a_full_disk_cut_short_is_passed_over(member: Member) -> None:
    record(member, 1)
    with member.files.record.open("a") as file:
        file.write('{"arguments": [')
    assert (member.files.last_record() or {})["exit_code"] == 1
    assert state(member) == State.FAILED


@pytest.mark.parametrize(
    ("flag", "enough", "too_few"),
    [
        ("max-env-steps", 100, 101),
        ("max-seconds", 1.0, 1.5),
        ("max-env-steps", "[100]", "[101]"),
        ("target-return", -100.0, -89.5),
    ],
)
def test_run_is_done_when_a_limit_of_the_grid_is_reached(
    tmp_path: Path, flag: str, enough: float | str, too_few: float | str
) -> None:
    for limit, expected in ((enough, State.DONE), (too_few, State.STOPPED)):
        name = f"a{str(limit).strip('[]')}"
        text = f'[[runs]]\nname = "{name}"\nnum-iterations = 50\nevaluate-every = 10\n{flag} = {limit}\n'
        (member,) = load_grid(write_grid(tmp_path, text, top=f'out = "{tmp_path}/out"\n')).members
        finish(member, 2)
        assert state(member) == expected


@pytest.mark.parametrize("found", [{}, {"best_score": None}])
def test_run_that_tells_of_no_return_has_not_reached_it(tmp_path: Path, found: dict[str, None]) -> None:
    text = '[[runs]]\nname = "a"\nnum-iterations = 50\nevaluate-every = 10\ntarget-return = -100.0\n'
    (member,) = load_grid(write_grid(tmp_path, text, top=f'out = "{tmp_path}/out"\n')).members
    content = {"iterations": 2, "env_steps": None, "seconds": 1.0, **found}
    begin_run(member).write_summary(content)
    assert state(member) == State.STOPPED


def test_run_that_ended_well_with_the_same_arguments_is_done(member: Member) -> None:
    # Seconds of the last evaluation are in the budget, not in the summary.
    finish(member, 1)
    record(member, 0, ["distill", "--num-iterations=1"])
    assert state(member) != State.DONE
    record(member, 0)
    assert state(member) == State.DONE
    member.out.joinpath("summary.json").unlink()
    assert state(member) != State.DONE


@pytest.mark.parametrize(
    ("exit_code", "expected"),
    [(1, State.FAILED), (2, State.FAILED), (137, State.FAILED), (130, State.STOPPED), (143, State.STOPPED),
     (None, State.STOPPED)],
)  # fmt: skip
def test_exit_code_of_the_last_process_tells_failed_from_stopped(
    member: Member, exit_code: int | None, expected: State
) -> None:
    record(member, 0)
    record(member, exit_code)
    assert state(member) == expected


def test_process_without_an_exit_code_runs_while_its_log_is_locked(member: Member) -> None:
    record(member, None)
    with member.files.log.open("ab") as log:
        fcntl.flock(log.fileno(), fcntl.LOCK_EX)
        assert state(member) == State.RUNNING
    assert state(member) == State.STOPPED


def test_run_that_was_started_by_hand_runs_while_its_directory_is_locked(member: Member) -> None:
    with begin_run(member).lock():
        assert state(member) == State.RUNNING
    assert state(member) == State.STOPPED


@pytest.mark.parametrize(
    ("queue", "expected"),
    [({"7_0": "PENDING"}, State.WAITING), ({"7_0": "RUNNING"}, State.RUNNING), ({"7_0": "COMPLETING"}, State.RUNNING),
     ({"8_0": "PENDING"}, State.MISSING), ({}, State.MISSING), (None, State.WAITING)],
)  # fmt: skip
def test_slurm_tells_of_a_job_that_has_not_begun(member: Member, queue: dict[str, str] | None, expected: State) -> None:
    assert state(member, job="7_0", queue=queue) == expected


def test_requeued_job_waits_and_one_that_left_the_queue_is_as_its_record_says(member: Member) -> None:
    record(member, 130, job="7_0")
    assert state(member, job="7_0", queue={"7_0": "PENDING"}) == State.WAITING
    assert state(member, job="7_0", queue={}) == State.STOPPED
    assert state(member, job="7_0", queue=None) == State.STOPPED
    # The record is of a job before.
    assert state(member, job="9_0", queue=None) == State.WAITING


def test_table_and_json_tell_of_every_run(hades: Callable[..., Outcome]) -> None:
    path = write_grid(Path(), "[grid]\nseed = [0, 1, 2]\n")
    done, failed, _ = load_grid(path).members
    done.files.folder.mkdir(parents=True)
    finish(done, 2)
    begin_run(failed).append_metrics([{"iteration": 1}])
    record(failed, 1)
    failed.files.log.write_text("iteration 0/2, compiling\nhades distill: the run diverged\n\n")
    metadata = valid_metadata(evaluation={"mean": 1.5, "ci95": None, "num_inits": 1, "num_episodes": 1})
    write_file(done.out / "best_dataset.npz", valid_arrays() | {"metadata": metadata})
    assert SyntheticDataset.load(done.out / "best_dataset.npz").num_pairs

    outcome = hades("launch", "status", path)
    assert (outcome.code, outcome.err) == (0, "")
    assert "grid.toml: 1 done, 1 failed, 1 missing; run directories in runs/grid" in outcome.out
    assert table_states(outcome.out.splitlines()) == {"seed0": "done", "seed1": "failed", "seed2": "missing"}
    assert outcome.out.splitlines()[-1] == "seed1 (failed): hades distill: the run diverged"

    outcome = hades("launch", "status", path, "--json")
    assert outcome.json["counts"] == {
        "done": 1, "running": 0, "waiting": 0, "stopped": 0, "failed": 1, "missing": 1
    }  # fmt: skip
    first, second, third = outcome.json["runs"]
    assert (first["iteration"], first["num_iterations"], first["best"]) == (0, 2, 1.5)
    assert (second["iteration"], second["exit_code"]) == (1, 1)
    assert second["last_line"] == "hades distill: the run diverged"
    assert (third["state"], third["best"], third["last_line"]) == ("missing", None, "")
