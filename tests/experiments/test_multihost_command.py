"""`hades distill --multihost` in two processes, of which one is killed, and the run that goes on with one."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from experiments.processes import command

FLAGS = ("--env", "diagnostic/target", "--dataset-size", "2", "--population-size", "8", "--cloning.num-steps", "5")


def start(out: Path, *flags: str) -> list[subprocess.Popen[str]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    job = ("--multihost", "--coordinator", address, "--num-processes", "2", "--process-id")
    lines = [command("distill", *FLAGS, *flags, "--out", str(out), *job, str(index)) for index in range(2)]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    return [subprocess.Popen(line, env=os.environ | {"JAX_PLATFORMS": "cpu"}, **pipes) for line in lines]  # type: ignore[call-overload]


def iterations(out: Path) -> Sequence[int]:
    metrics = out / "metrics.jsonl"
    lines = metrics.read_text().splitlines() if metrics.exists() else []
    return [json.loads(line)["iteration"] for line in lines]


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_the_others_of_a_killed_process_end_and_the_run_goes_on_with_one(tmp_path: Path, killed: int) -> None:
    out = tmp_path / "run"
    endless = ("--num-iterations", "1000000", "--evaluate-every", "1000000", "--checkpoint-seconds")
    processes = start(out, *endless, "0" if killed == 0 else "1000")
    while len(iterations(out)) < 100:
        assert all(process.poll() is None for process in processes)
        time.sleep(0.5)
    processes[killed].send_signal(signal.SIGKILL)
    _, error = processes[1 - killed].communicate(timeout=60)
    assert processes[1 - killed].returncode == 1
    assert "another process of the run has ended" in error.splitlines()[-1]
    processes[killed].communicate()
    saved = max(int(path.name) for path in (out / "checkpoints").iterdir() if path.name.isdigit())
    done = iterations(out)
    # Process 0 saves the last whole call when another dies.
    assert saved == done[-1] if killed else saved <= done[-1]
    wanted = done[-1] + 10
    more = ("--out", str(out), "--resume", "--num-iterations", str(wanted), "--json")
    finished = subprocess.run(command("distill", *more), capture_output=True, text=True, check=True)
    assert json.loads(finished.stdout)["iterations"] == wanted
    assert iterations(out) == list(range(1, wanted + 1))
