"""Grids that run on this machine: failures, second launches, signals, and pinning."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from experiments.launching import local
from experiments.launching.grid import load_grid
from experiments.launching.local import Place, places
from experiments.launching.settings import LocalSettings
from tests.experiments.command import Outcome
from tests.experiments.grids import begin_run, table_states, write_grid

# Stands for `hades`: says where it runs, and ends on a signal as a run does.
STUB = """
import os, signal, sys, time
seed = next(word for word in sys.argv if word.startswith("--seed="))
def stop(number, frame):
    print("stopped by", signal.Signals(number).name, flush=True)
    os._exit(128 + number)
signal.signal(signal.SIGINT, stop), signal.signal(signal.SIGTERM, stop)
print(sorted(os.sched_getaffinity(0)), os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
if seed == "--seed=0":
    sys.exit("hades distill: no luck")
time.sleep(60 if seed == "--seed=9" else 0)
"""


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "command", lambda *arguments: [sys.executable, "-S", "-c", STUB, *arguments])


def first_words(path: Path) -> list[str]:
    """The first line that each run printed, below its command."""
    return [member.files.log.read_text().splitlines()[1] for member in load_grid(path).members]


@pytest.mark.slow
def test_second_launch_runs_what_has_failed_and_nothing_else(hades: Callable[..., Outcome]) -> None:
    path = write_grid(Path())
    first, second = load_grid(path).members
    begin_run(second).write_summary({"iterations": 2, "env_steps": 100, "seconds": 1.0})
    obstacle = first.out / "versions.json"
    obstacle.mkdir(parents=True)
    outcome = hades("launch", "local", path)
    assert outcome.code == 1, outcome.err
    assert "grid.toml: 1 done, 1 missing; 1 to run\n" in outcome.err
    assert f"seed0 ended with exit code 1: hades distill: {obstacle}: Is a directory\n" in outcome.err
    assert table_states(outcome.out.splitlines()) == {"seed0": "failed", "seed1": "done"}

    obstacle.rmdir()
    outcome = hades("launch", "local", path, "--json")
    assert outcome.code == 0, outcome.err
    assert "grid.toml: 1 done, 1 failed; 1 to run\n" in outcome.err
    found = [(run["state"], run["iteration"], run["exit_code"]) for run in outcome.json["runs"]]
    assert found == [("done", 2, 0), ("done", 0, None)]

    outcome = hades("launch", "local", path)
    assert (outcome.code, outcome.err) == (0, "grid.toml: 2 done; 0 to run\n")


def test_failed_run_stops_no_other(hades: Callable[..., Outcome], stub: None) -> None:
    path = write_grid(Path(), "[grid]\nseed = [0, 1, 2]\n")
    outcome = hades("launch", "local", path)
    assert outcome.code == 1
    assert "seed0 ended with exit code 1: hades distill: no luck\n" in outcome.err
    assert outcome.err.count("ended with") == 1
    assert "run 3/3" in outcome.err and "1 failed" in outcome.err
    assert [member.files.last_record()["exit_code"] for member in load_grid(path).members] == [1, 0, 0]


def test_record_goes_on_behind_a_line_that_a_full_disk_cut_short(hades: Callable[..., Outcome], stub: None) -> None:
    path = write_grid(Path(), "[grid]\nseed = [0]\n")
    files = load_grid(path).members[0].files
    hades("launch", "local", path)
    before = len(files.record.read_text().splitlines())
    with files.record.open("a") as file:
        file.write('{"arguments": [')
    hades("launch", "local", path)
    lines = files.record.read_text().splitlines()
    assert [json.loads(line)["exit_code"] for line in lines[before + 1 :]] == [None, 1]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_is_handed_to_the_runs_and_no_other_starts(
    hades: Callable[..., Outcome], stub: None, number: signal.Signals, code: int
) -> None:
    path = write_grid(Path(), "[grid]\nseed = [9, 1]\n")
    log = Path("runs/grid/launch/seed9.log")

    def interrupt() -> None:
        while not (log.exists() and "] " in log.read_text()):
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=interrupt)
    thread.start()
    outcome = hades("launch", "local", path)
    thread.join()
    assert outcome.code == code
    assert log.read_text().splitlines()[-1] == f"stopped by {number.name}"
    assert table_states(outcome.out.splitlines()) == {"seed9": "stopped", "seed1": "missing"}
    assert outcome.err.endswith("stopped with 1 stopped, 1 missing; go on with: hades launch local grid.toml\n")


def test_processes_share_the_cores_between_them(hades: Callable[..., Outcome], stub: None) -> None:
    cores = sorted(os.sched_getaffinity(0))
    path = write_grid(Path(), "[grid]\nseed = [0, 1]\n[local]\nprocesses = 2\n")
    assert hades("launch", "local", path).code == 1
    assert sorted(os.sched_getaffinity(0)) == cores
    found = [line.partition("]")[0] + "]" for line in first_words(path)]
    assert found == [str(cores[::2]), str(cores[1::2] or cores)]


def test_processes_have_devices_in_turn(hades: Callable[..., Outcome], stub: None) -> None:
    path = write_grid(Path(), '[grid]\nseed = [0, 1]\n[local]\nprocesses = 2\ndevices = ["4,5", 6]\n')
    assert hades("launch", "local", path).code == 1
    assert [line.rpartition("] ")[2] for line in first_words(path)] == ["4,5", "6"]


def test_places_deal_out_devices_memory_and_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2, 3, 4})
    assert places(LocalSettings()) == [Place()]
    assert places(LocalSettings(devices=(0, 1))) == [Place("0"), Place("1")]
    shared = Place("0", 2)
    assert places(LocalSettings(processes=3, devices=(0, 1))) == [shared, Place("1"), shared]
    assert places(LocalSettings(devices=(0, 0, 1))) == [shared, shared, Place("1")]
    assert [place.cores for place in places(LocalSettings(processes=2))] == [{0, 2, 4}, {1, 3}]
    assert [place.cores for place in places(LocalSettings(processes=6))][-2:] == [{4}, {0}]
    assert shared.environment()["XLA_PYTHON_CLIENT_MEM_FRACTION"] == "0.375"
    assert "XLA_PYTHON_CLIENT_MEM_FRACTION" not in Place("1").environment()
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.2")
    assert shared.environment()["XLA_PYTHON_CLIENT_MEM_FRACTION"] == "0.2"


def test_run_that_another_launcher_runs_is_left_alone(hades: Callable[..., Outcome], stub: None) -> None:
    path = write_grid(Path(), "[grid]\nseed = [9]\n")
    (member,) = load_grid(path).members
    other = local.MemberProcess(member.files, member.arguments, local.command(*member.arguments), os.environ)
    try:
        assert table_states(hades("launch", "status", path).out.splitlines()) == {"seed9": "running"}
        outcome = hades("launch", "local", path)
        assert (outcome.code, outcome.err) == (0, "grid.toml: 1 running; 0 to run\n")
        # One that began since the states were told.
        outcome = local.run_members([member], LocalSettings())
        assert outcome == local.Outcome()
    finally:
        other.process.kill()
        other.process.wait()
    # Nobody has written its exit code.
    assert table_states(hades("launch", "status", path).out.splitlines()) == {"seed9": "stopped"}
