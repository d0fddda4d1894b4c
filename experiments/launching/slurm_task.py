"""A member as a task of a Slurm job. It is pickled for the node, where it imports the standard library alone."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from dataclasses import dataclass
from typing import Any, ClassVar

from experiments.launching.member_process import STOP_CODES, MemberFiles, MemberProcess

# Slurm signals a task, or also what it has started, as the cluster is set up: these reach the member through the task.
_SIGNALS_OF_SLURM = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


@dataclass(frozen=True)
class Task:
    """Runs a member in a process, and asks it to stop with a checkpoint when Slurm wants the node back.

    At the time limit submitit calls `checkpoint` and requeues the job; a job that is preempted Slurm requeues itself.

    Attributes:
        files: Files of the member.
        arguments: Arguments of `hades`, for the record.
        command_line: Command line of the process.
    """

    files: MemberFiles
    arguments: tuple[str, ...]
    command_line: tuple[str, ...]

    _process: ClassVar[MemberProcess | None] = None
    _was_asked: ClassVar[bool] = False

    def __call__(self) -> None:
        """Runs the member to its end, and exits with its exit code unless that is 0.

        Raises:
            MemberIsRunningError: Another process runs it.
            OSError: Its log cannot be written.
        """
        rank = int(os.environ.get("SLURM_PROCID", "0"))
        signal.signal(signal.SIGTERM, lambda number, frame: self._ask_to_stop())
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS_OF_SLURM)
        try:
            process = MemberProcess(self.files, self.arguments, self.command_line, os.environ, _job(), rank)
            Task._process = process
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS_OF_SLURM)
        try:
            _wait(process)
        finally:
            # Also when submitit has requeued the job, and exits out of its handler.
            code = process.poll()
        # One of several processes that has stopped must not make Slurm end the others before their checkpoint.
        if code and not (rank and (Task._was_asked or code in STOP_CODES)):
            sys.exit(code)

    def checkpoint(self) -> Any:
        """Stops the member with a checkpoint; the job that submitit requeues goes on with it."""
        from submitit.core.utils import DelayedSubmission

        self._ask_to_stop()
        if Task._process is not None:
            _wait(Task._process)
        return DelayedSubmission(Task(self.files, self.arguments, self.command_line))

    def _ask_to_stop(self) -> None:
        # Only once: a second signal would end it without a checkpoint.
        if Task._process is not None and not Task._was_asked:
            Task._was_asked = True
            Task._process.process.send_signal(signal.SIGINT)


def _wait(process: MemberProcess) -> None:
    """Waits for the end without taking the exit code, also within a signal handler that has interrupted the same."""
    with contextlib.suppress(ChildProcessError):
        os.waitid(os.P_PID, process.process.pid, os.WEXITED | os.WNOWAIT)


def _job() -> str:
    """Id of the job, as squeue has it."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ["SLURM_JOB_ID"]
