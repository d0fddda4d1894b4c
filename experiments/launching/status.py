"""Telling how the members of a grid stand, from their run directories, records and logs, and from Slurm."""

from __future__ import annotations

import contextlib
import getpass
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from experiments import tables
from experiments.launching.grid import Grid, Member
from experiments.launching.member_process import STOP_CODES
from experiments.loading import outcome_file
from hades._npz import read_arrays
from hades._run_directory import RunDirectory, RunDirectoryError

# All others that squeue knows are of jobs that hold their nodes.
_WAITING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT")


class State(StrEnum):
    """State of a member."""

    DONE = "done"
    RUNNING = "running"
    WAITING = "waiting"
    STOPPED = "stopped"
    FAILED = "failed"
    MISSING = "missing"


TO_LAUNCH = (State.MISSING, State.STOPPED, State.FAILED)
"""States of members that a launch starts."""


@dataclass(frozen=True)
class MemberStatus:
    """State of a member, and how far it has come.

    Attributes:
        member: The member.
        state: Its state.
        iteration: Iterations that are done.
        num_iterations: Iterations that are asked for; None where only the run itself knows.
        best: Mean return of the best outcome on fresh keys; None where there is none.
        exit_code: Of its last process, as shells have it; None where it has not ended, or ended with its launcher.
        last_words: Last line of its log.
    """

    member: Member
    state: State
    iteration: int = 0
    num_iterations: int | None = None
    best: float | None = None
    exit_code: int | None = None
    last_words: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The status as `--json` prints it."""
        return {
            "name": self.member.name,
            "state": str(self.state),
            "iteration": self.iteration,
            "num_iterations": self.num_iterations,
            "best": self.best,
            "exit_code": self.exit_code,
            "last_line": self.last_words,
            "out": str(self.member.out),
            "log": str(self.member.files.log),
        }


def statuses(grid: Grid) -> list[MemberStatus]:
    """The status of every member."""
    jobs = {member.name: member.files.job.read_text() for member in grid.members if member.files.job.exists()}
    queue = _queue() if jobs else {}
    if queue is None:
        print(f"squeue does not answer: runs of {grid.path} that have not begun count as waiting", file=sys.stderr)
    return [_status(member, jobs.get(member.name), queue) for member in grid.members]


def _status(member: Member, job: str | None, queue: Mapping[str, str] | None) -> MemberStatus:
    directory = RunDirectory(member.out)
    record = member.files.last_record()
    code = None if record is None else record["exit_code"]
    last = directory.last_row() if directory.holds_run else None
    return MemberStatus(
        member,
        _state(member, job, queue, record),
        last["iteration"] if last else 0,
        _as_integer(_wanted(member, "num-iterations")),
        _best(directory),
        code,
        member.files.last_words(),
    )


def _state(member: Member, job: str | None, queue: Mapping[str, str] | None, record: Mapping[str, Any] | None) -> State:
    directory = RunDirectory(member.out)
    # Behind its summary, a run still draws its pictures.
    if member.files.is_running() or directory.is_locked:
        return State.RUNNING
    if is_done(member):
        return State.DONE
    if job is not None and queue is None and (record is None or record["job"] != job):
        return State.WAITING
    if job is not None and queue is not None and job in queue:
        return State.WAITING if queue[job] in _WAITING else State.RUNNING
    if record is None:
        return State.STOPPED if directory.holds_run else State.MISSING
    # A process without an exit code was ended together with its launcher, as by a machine that went down.
    return State.STOPPED if record["exit_code"] in (None, *STOP_CODES) else State.FAILED


def is_done(member: Member) -> bool:
    """Whether the run has finished all that is asked for.

    That is, its summary tells of as many iterations, environment steps or seconds as it wants, or of its return; or its
    last process had the present arguments, and ended well.
    """
    directory = RunDirectory(member.out)
    try:
        summary = directory.read_summary()
    except RunDirectoryError:
        return False
    record = member.files.last_record()
    # Seconds of a summary leave out those of the last evaluation, with which the budget may have been used up.
    if record and (record["exit_code"], record["arguments"]) == (0, member.arguments):
        return True
    reached = {
        "num-iterations": summary["iterations"],
        "max-env-steps": summary["env_steps"],
        "max-seconds": summary["seconds"],
        "target-return": summary.get("best_score"),
    }
    limits = {name: _wanted(member, name) for name in reached if reached[name] is not None}
    return any(limit is not None and reached[name] >= limit for name, limit in limits.items())


def _wanted(member: Member, name: str) -> float | None:
    """A limit of the run: that of the grid, or else of the run as it was begun; None where there is no such limit."""
    if name in member.flags:
        value = member.flags[name]
    else:
        try:
            config = RunDirectory(member.out).read_config()
        except RunDirectoryError:
            return None
        value = {**config.get("loop", {}), **config}.get(name.replace("-", "_"))
    # As in a command line, a list of one is its value, and text the number that it reads as.
    if isinstance(value, list):
        value = value[0] if len(value) == 1 else None
    return None if value in (None, "None") else float(value)


def _as_integer(number: float | None) -> int | None:
    return None if number is None else int(number)


def _best(directory: RunDirectory) -> float | None:
    """Mean return of the best outcome, on keys that have not chosen it."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        metadata = json.loads(str(read_arrays(outcome_file(directory.path))["metadata"]))
        return float(metadata["evaluation"]["mean"])
    return None


def _queue() -> dict[str, str] | None:
    """States of the user's jobs by their ids, `JOB_TASK` in arrays; None where Slurm does not answer."""
    command = ["squeue", "--noheader", "--array", f"--user={getpass.getuser()}", "--format=%i %T"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return dict(line.split(maxsplit=1) for line in answer.splitlines() if line.strip())


def count(members: Sequence[MemberStatus]) -> str:
    """The number of members in each state that there is.

    Example:
        >>> count([])
        'no runs'
    """
    found = Counter(status.state for status in members)
    return ", ".join(f"{found[state]} {state}" for state in State if found[state]) or "no runs"


def render(grid: Grid, members: Sequence[MemberStatus]) -> str:
    """A table of all members, and the last line of those that are neither done nor missing."""
    rows = [
        (
            status.member.name,
            str(status.state),
            "-" if status.exit_code is None else str(status.exit_code),
            f"{status.iteration} of {status.num_iterations or '?'}",
            "-" if status.best is None else f"{status.best:.4g}",
        )
        for status in members
    ]
    heading = f"{grid.path}: {count(members)}; run directories in {grid.out}"
    header = ("run", "state", "exit code", "iterations", "best evaluation")
    # Names are read by programs too, and whole.
    table = tables.table("", header, rows, width=120 + max(len(status.member.name) for status in members))
    told = [status for status in members if status.last_words and status.state not in (State.DONE, State.MISSING)]
    return "\n".join([heading, table.rstrip(), *(f"{s.member.name} ({s.state}): {s.last_words}" for s in told)])


def summary(grid: Grid, members: Sequence[MemberStatus]) -> dict[str, Any]:
    """The status of a grid as `--json` prints it."""
    counts = Counter(str(status.state) for status in members)
    return {
        "grid": str(grid.path),
        "out": str(grid.out),
        "counts": {str(state): counts[state] for state in State},
        "runs": [status.to_dict() for status in members],
    }
