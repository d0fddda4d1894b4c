"""Processes of members, each with a log, and the records that tell how they ended.

Imports the standard library and `hades._files`, not JAX: on a node of Slurm this is all that waits beside the member.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from hades._files import try_lock

STOP_CODES = (130, 143)
"""Exit codes of a run that was asked to stop, with a checkpoint."""

_TAIL_BYTES = 1 << 14


class MemberIsRunningError(Exception):
    """Another process runs the member."""


@dataclass(frozen=True)
class MemberFiles:
    """Files that launchers keep of a member.

    Attributes:
        folder: Folder of all members.
        name: Name of the member.
    """

    folder: Path
    name: str

    @property
    def log(self) -> Path:
        """Output of its processes, one behind the other; locked as long as one of them lives."""
        return self.log_of(0)

    @property
    def record(self) -> Path:
        """JSON lines, the last of which tells of its last process: `arguments`, `host`, `pid`, `job`, `exit_code`."""
        return self.folder / f"{self.name}.jsonl"

    @property
    def job(self) -> Path:
        """Id of the last job of Slurm that it was submitted as."""
        return self.folder / f"{self.name}.job"

    def log_of(self, rank: int) -> Path:
        """Log of one of several processes that run the member together, whose name no member can have."""
        return self.folder / (f"{self.name}@{rank}.log" if rank else f"{self.name}.log")

    def last_record(self) -> dict[str, Any] | None:
        """The record of the last process, None where there was none; `exit_code` is None where it has not ended."""
        lines = self.record.read_text().splitlines() if self.record.exists() else []
        for line in reversed(lines):
            # A line that a full disk cut short is none.
            with contextlib.suppress(json.JSONDecodeError):
                return cast(dict[str, Any], json.loads(line))
        return None

    def last_words(self) -> str:
        """The last line of the log that is not empty; empty where there is none."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").replace("\r", "\n").splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def is_running(self) -> bool:
        """Whether a process of the member lives, whoever started it."""
        record = self.last_record()
        if record is None or record["exit_code"] is not None or not self.log.exists():
            return False
        with self.log.open("rb") as file:
            return not try_lock(file.fileno(), fcntl.LOCK_SH)


class MemberProcess:
    """The process of a member, from its start to its end.

    Attributes:
        process: The process.
        files: Files of the member.
    """

    def __init__(
        self,
        files: MemberFiles,
        arguments: Sequence[str],
        command_line: Sequence[str],
        environment: Mapping[str, str],
        job: str | None = None,
        rank: int = 0,
    ) -> None:
        """Starts it, in a session of its own: signals reach it by `process.send_signal` alone.

        Args:
            files: Files of the member.
            arguments: Arguments of `hades`, for the record.
            command_line: Command line of the process.
            environment: Variables of its environment.
            job: Id of its job of Slurm; None without.
            rank: Rank among several processes of the member; the first one keeps the record.

        Raises:
            MemberIsRunningError: Another process runs the member.
            OSError: The log cannot be written.
        """
        files.folder.mkdir(parents=True, exist_ok=True)
        self.files, self._rank = files, rank
        with files.log_of(rank).open("ab") as log:
            # Held by the process itself, which inherits the open file, however the launcher ends.
            if not try_lock(log.fileno(), fcntl.LOCK_EX, keep=True):
                raise MemberIsRunningError(f"{files.log_of(rank)}: another process runs {files.name}")
            log.write(f"$ {shlex.join(['hades', *arguments])}\n".encode())
            log.flush()
            self._record = {"arguments": list(arguments), "host": socket.gethostname(), "job": job}
            self.process = subprocess.Popen(
                command_line,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                start_new_session=True,
            )
            self._write(None)

    def poll(self) -> int | None:
        """The exit code, as shells have it, once it has ended and that is on record; None before."""
        code = self.process.poll()
        if code is None:
            return None
        code = 128 - code if code < 0 else code
        self._write(code)
        return code

    def _write(self, exit_code: int | None) -> None:
        if self._rank:
            return
        line = json.dumps({**self._record, "pid": self.process.pid, "time": time.time(), "exit_code": exit_code})
        record = self.files.record
        try:
            cut_short = record.exists() and not record.read_bytes().endswith(b"\n")
            with record.open("a") as file:
                file.write("\n" * cut_short + line + "\n")
        except OSError as error:
            # Whoever launches goes on with the other members: this one is then taken for interrupted.
            print(f"{record}: {error}", file=sys.stderr)
