"""Ctrl-C and SIGTERM: a checkpoint, a word on how to go on, and the dataset that an uninterrupted run would leave."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from experiments.processes import command
from experiments.stopping import StopSignals
from tests.experiments.command import TINY, Outcome, exit_code, make_run

NUM_CALLS = 150
LONG = ("--num-generations", str(2 * NUM_CALLS), "--evaluate-every", "100")

# A call into C that lets other threads run but, as one of XLA may, neither ends nor lets a signal handler run.
DEAF_PROGRAM = """
import ctypes
from experiments.stopping import StopSignals
with StopSignals() as signals:
    signals.should_stop()  # From now on there is something to keep.
    print("ready", flush=True)
    mutex = ctypes.create_string_buffer(64)
    ctypes.CDLL(None).pthread_mutex_lock(mutex)
    ctypes.CDLL(None).pthread_mutex_lock(mutex)
"""


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("uninterrupted") / "run", *LONG)


@pytest.mark.parametrize(
    ("number", "code"), [pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow), (signal.SIGTERM, 143)]
)
def test_signal_leaves_a_run_that_goes_on_to_the_same_bytes(
    tmp_path: Path, uninterrupted: Path, number: signal.Signals, code: int
) -> None:
    out = tmp_path / "run"
    arguments = command("distill", *TINY, *LONG, "--out", str(out), "--json")
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (out / "metrics.jsonl").is_file() or not (out / "metrics.jsonl").read_text():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == code, stderr
    assert stdout == ""
    assert f"go on with: hades distill --out {out} --resume" in stderr
    assert "Traceback" not in stderr
    assert len(list((out / "checkpoints").iterdir())) >= 1
    assert exit_code("distill", "--out", out, "--resume") == 0
    for name in ("dataset.npz", "best_dataset.npz"):
        assert (out / name).read_bytes() == (uninterrupted / name).read_bytes()


@contextmanager
def asked_to_stop(number: signal.Signals) -> Iterator[subprocess.Popen[str]]:
    """A run that a signal has asked to stop, while it runs no Python."""
    process = subprocess.Popen(
        [sys.executable, "-c", DEAF_PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert "another signal ends it at once" in process.stderr.readline()
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_second_signal_ends_a_process_at_once_that_runs_no_python(second: signal.Signals) -> None:
    with asked_to_stop(signal.SIGINT) as process:
        process.send_signal(second)
        assert process.wait(timeout=10) == 128 + second


def test_a_sigterm_told_twice_at_once_is_one() -> None:
    with asked_to_stop(signal.SIGTERM) as process:
        process.send_signal(signal.SIGTERM)
        time.sleep(1.2)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 143


def test_handlers_are_put_back_and_nothing_received_is_no_stop() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with StopSignals() as signals:
        assert not signals.should_stop()
        assert signal.getsignal(signal.SIGINT) not in before
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert signal.set_wakeup_fd(-1) == -1


def test_signal_is_noted_with_its_exit_code(capfd: pytest.CaptureFixture[str]) -> None:
    with StopSignals() as signals:
        assert not signals.should_stop()
        os.kill(os.getpid(), signal.SIGTERM)
        deadline = time.monotonic() + 10
        while not signals.should_stop() and time.monotonic() < deadline:
            time.sleep(0.001)
    assert signals.exit_code == 143
    assert len(capfd.readouterr().err.splitlines()) == 1


def test_interrupt_before_the_loop_is_one_sentence(hades: object, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("experiments.commands.info._describe", interrupt)
    outcome: Outcome = hades("info", "anything")  # type: ignore[operator]
    assert outcome.code == 130
    assert outcome.complaint == "hades info: stopped"
