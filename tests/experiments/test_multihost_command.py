"""`hades distill --multihost` in two processes that are ended on the way, and the runs that go on with one or two."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from experiments.checks import processes as check
from experiments.checks.processes import Ending, ProcessesCheckSettings, start
from experiments.processes import command
from hades._run_directory import RunDirectory

SETTINGS = ProcessesCheckSettings(processes=(1, 2), devices=2, num_iterations=600)


def iterations(out: Path) -> Sequence[int]:
    metrics = out / "metrics.jsonl"
    lines = metrics.read_text().splitlines() if metrics.exists() else []
    return [json.loads(line)["iteration"] for line in lines]


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_the_others_of_a_killed_process_end_and_the_run_goes_on_with_one(tmp_path: Path, killed: int) -> None:
    out = tmp_path / "run"
    endless = ("--num-iterations", "1000000", "--evaluate-every", "1000000", "--checkpoint-seconds")
    processes = start(SETTINGS, out, 2, [*endless, "0" if killed == 0 else "1000"], subprocess.PIPE)
    while len(iterations(out)) < 100:
        assert all(process.poll() is None for process in processes)
        time.sleep(0.5)
    processes[killed].send_signal(signal.SIGKILL)
    _, error = processes[1 - killed].communicate(timeout=60)
    assert processes[1 - killed].returncode == 1
    assert "another process of the run has ended" in error.splitlines()[-1]
    processes[killed].communicate()
    saved = RunDirectory(out).saved_iteration
    done = iterations(out)
    # Process 0 saves the last whole call when another dies.
    assert saved == done[-1] if killed else saved <= done[-1]
    wanted = done[-1] + 10
    more = ("--out", str(out), "--resume", "--num-iterations", str(wanted), "--json")
    finished = subprocess.run(command("distill", *more), capture_output=True, text=True, check=True)
    assert json.loads(finished.stdout)["iterations"] == wanted
    assert iterations(out) == list(range(1, wanted + 1))


@pytest.mark.slow
def test_runs_that_are_ended_in_any_way_go_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    cases = list(check.check(SETTINGS, tmp_path))
    assert [(case.ending.processes, case.ending.event, case.ending.victim) for case in cases] == [
        *((1, "none", None), (2, "none", None), (1, "stop", 0), (1, "time", None)),
        *((2, "stop", 1), (2, "time", None), (2, "kill", 0), (2, "kill", 1)),
    ]
    for case in cases:
        assert case.passed, case
    assert all(len(case.outcomes) == 2 for case in cases[2:])


KILLED = Ending(2, "kill", 1, [1, -9], seconds=2.0, iterations=30, wanted=90, each_once=True, checkpoint=30)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"exit_codes": [0, -9]}, False),
        ({"exit_codes": [-9, 1]}, False),
        ({"seconds": 61.0}, False),
        ({"each_once": False}, False),
        ({"checkpoint": 20}, False),
        # Of the first process only what it saved before is left.
        ({"victim": 0, "exit_codes": [-9, 1], "checkpoint": 20}, True),
        ({"victim": 0, "exit_codes": [-9, 1], "checkpoint": 0}, False),
        ({"victim": 0, "exit_codes": [-9, 1], "checkpoint": 40}, False),
        ({"event": "stop", "exit_codes": [143, 143]}, True),
        # A run that is asked to stop saves its last call.
        ({"event": "stop", "exit_codes": [143, 143], "checkpoint": 20}, False),
        ({"event": "time", "victim": None, "exit_codes": [0, 0], "checkpoint": 30}, True),
        # What came to its end ran out of no time.
        ({"event": "time", "victim": None, "exit_codes": [0, 0], "checkpoint": 30, "wanted": 30}, False),
        ({"event": "none", "victim": None, "exit_codes": [0, 0], "checkpoint": 30, "wanted": 30}, True),
    ],
)
def test_an_ending_is_judged_by_its_event(changes: dict[str, object], expected: bool) -> None:
    assert dataclasses.replace(KILLED, **changes).as_expected is expected  # type: ignore[arg-type]


def test_processes_have_to_share_the_devices_evenly() -> None:
    with pytest.raises(ValueError, match="processes: expected divisors of the 4 devices, got 3"):
        ProcessesCheckSettings(processes=(1, 3))
