"""TensorBoard and Weights & Biases: every row once, however often a run is stopped, killed, or refused."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Any, Self

import pytest

from experiments.logging import last_step
from experiments.processes import command
from hades._run_directory import RunDirectory
from tests.experiments.command import TINY, Outcome

needs_tensorboard = pytest.mark.skipif(
    importlib.util.find_spec("tensorboardX") is None, reason="the extra tensorboard is not installed"
)
TENSORBOARD = (*TINY, "--tensorboard")


def events(run: Path) -> Counter[tuple[str, int]]:
    """How often each scalar of each step stands in the event files."""
    from tensorboardX.proto import event_pb2

    found: Counter[tuple[str, int]] = Counter()
    for path in (run / "tensorboard").iterdir():
        content = path.read_bytes()
        while len(content) >= 12:
            length = int.from_bytes(content[:8], "little")
            record, content = content[12 : 12 + length], content[16 + length :]
            event = event_pb2.Event.FromString(record)
            found.update((value.tag, event.step) for value in event.summary.value)
    return found


def assert_each_once(run: Path, iterations: int) -> None:
    found = events(run)
    assert set(found.values()) == {1}
    assert {step for tag, step in found if tag == "fitness_mean"} == set(range(1, iterations + 1))
    rows = RunDirectory(run).read_metrics()
    expected = {(name, row["iteration"]) for row in rows for name in row if name != "iteration"}
    assert set(found) == expected


@needs_tensorboard
def test_run_that_goes_on_adds_to_tensorboard_what_is_new(hades: Callable[..., Outcome], tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert hades("distill", *TENSORBOARD, "--num-iterations", "2", "--out", out).code == 0
    assert hades("distill", "--out", out, "--resume", "--num-iterations", "6").code == 0
    assert_each_once(out, 6)


@needs_tensorboard
@pytest.mark.parametrize("calls", [1, 2])
def test_rows_between_tensorboard_and_metrics_are_written_once(
    hades: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    """What a kill at that moment leaves: events that the metrics do not have."""
    original, seen = RunDirectory.append_metrics, []

    def failing(directory: RunDirectory, rows: Any) -> None:
        seen.append(rows)
        if len(seen) == calls:
            raise OSError(28, os.strerror(28), str(directory.metrics))
        original(directory, rows)

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(RunDirectory, "append_metrics", failing)
        outcome = hades("distill", *TENSORBOARD, "--out", out)
    assert outcome.code == 1, outcome.err
    assert max(step for _, step in events(out)) == 2 * calls
    assert len(RunDirectory(out).read_metrics()) == 2 * calls - 2
    assert hades("distill", "--out", out, "--resume").code == 0
    assert_each_once(out, 4)


@needs_tensorboard
def test_part_of_an_event_is_passed_over(hades: Callable[..., Outcome], tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert hades("distill", *TENSORBOARD, "--out", out).code == 0
    (path,) = (out / "tensorboard").iterdir()
    assert last_step(out / "tensorboard") == 4
    with path.open("ab") as file:
        file.write(path.read_bytes()[:20])
    assert last_step(out / "tensorboard") == 4
    assert last_step(tmp_path / "absent") == 0


@pytest.mark.slow
@needs_tensorboard
def test_run_that_is_killed_and_resumed_gives_each_step_once(hades: Callable[..., Outcome], tmp_path: Path) -> None:
    out, total = tmp_path / "run", 200
    flags = ("--num-iterations", str(total), "--evaluate-every", "20", "--checkpoint-seconds", "0.2")
    arguments = command("distill", *TENSORBOARD, *flags, "--out", str(out), "--resume")
    for rows in (10, 60):
        process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 240
        while process.poll() is None and len(RunDirectory(out).read_metrics()) < rows:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert hades("distill", "--out", out, "--resume").code == 0
    assert_each_once(out, total)


class FakeSession:
    """A session of Weights & Biases that notes what it is given."""

    def __init__(self, **arguments: Any) -> None:
        self.arguments = arguments
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.summary: dict[str, Any] = {}
        self.ended = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ended = True

    def log(self, numbers: dict[str, float], step: int) -> None:
        self.rows.append((step, numbers))


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> list[FakeSession]:
    """The sessions that a fake wandb has begun."""
    begun: list[FakeSession] = []

    def init(**arguments: Any) -> FakeSession:
        begun.append(FakeSession(**arguments))
        return begun[-1]

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    return begun


def test_weights_and_biases_keep_the_run_across_resumes(
    hades: Callable[..., Outcome], tmp_path: Path, sessions: list[FakeSession]
) -> None:
    out = tmp_path / "run"
    assert hades("distill", *TINY, "--num-iterations", "2", "--out", out, "--wandb", "mine").code == 0
    assert hades("distill", "--out", out, "--resume", "--num-iterations", "6").code == 0
    assert hades("distill", *TINY, "--out", tmp_path / "other", "--wandb", "mine").code == 0
    first, second, other = sessions
    assert [step for session in (first, second) for step, _ in session.rows] == [1, 2, 3, 4, 5, 6]
    assert [session.arguments["name"] for session in sessions] == ["run", None, "other"]
    assert first.arguments["id"] == second.arguments["id"] != other.arguments["id"]
    assert {(session.arguments["project"], session.arguments["resume"]) for session in sessions} == {("mine", "allow")}
    assert first.arguments["config"]["settings"]["population_size"] == 8
    assert "fitness_mean" in first.rows[0][1]
    assert "evaluation_mean" in first.rows[1][1]
    assert second.summary["finished"] is True
    assert second.summary["best_iteration"] in (2, 4, 6)
    assert all(session.ended for session in sessions)


@needs_tensorboard
def test_a_refused_process_logs_nothing(
    hades: Callable[..., Outcome], tmp_path: Path, sessions: list[FakeSession]
) -> None:
    out = tmp_path / "run"
    with RunDirectory(out).lock():
        outcome = hades("distill", *TENSORBOARD, "--wandb", "mine", "--out", out)
    assert outcome.code == 1
    assert f"process {os.getpid()}" in outcome.err
    assert sessions == []
    assert {path.name for path in out.iterdir()} == {"lock"}
