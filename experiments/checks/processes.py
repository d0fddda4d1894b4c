"""`python -m experiments.checks.processes`: runs over several processes, undisturbed, and ended on the way.

Devices of the CPU are divided among one process, two, or four of this machine, which talk over loopback. One of them
is killed, or asked to stop, or all run out of time; what they left goes on with each of these numbers of processes.
Every run must end with one row for each iteration, and with the bytes of the run of one process that nothing ended.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Literal

from experiments import tables
from experiments.arguments import parse, print_json
from experiments.checks._runs import rows_without_seconds
from experiments.processes import command, forced_devices, free_address
from experiments.settings import OutputSettings
from hades._run_directory import RunDirectory

Event = Literal["none", "kill", "stop", "time"]

_EVENT_AT = 0.3
_MOST_SECONDS = 300.0


@dataclass(frozen=True, kw_only=True)
class ProcessesCheckSettings(OutputSettings):
    """Ends runs over several processes in every way, and compares what they become with a run of one process."""

    processes: tuple[int, ...] = (1, 2, 4)
    """Numbers of processes that share the devices; the run of the first number is what all are compared with."""
    devices: int = 4
    """Devices of the CPU, those of all processes together."""
    num_iterations: int = 600
    """Iterations of each run."""
    flags: str = "--env diagnostic/target --dataset-size 2 --population-size 8 --cloning.num-steps 5"
    """Flags of hades distill in one string."""

    def __post_init__(self) -> None:
        """Refuses counts that are not positive, and processes that cannot share the devices evenly."""
        self.require_positive("processes", "devices", "num_iterations")
        if not self.processes:
            raise ValueError("processes: expected one or more, got none")
        for count in self.processes:
            if self.devices % count:
                raise ValueError(f"processes: expected divisors of the {self.devices} devices, got {count}")


@dataclass(frozen=True)
class Ending:
    """A run over several processes up to the event that ends it.

    Attributes:
        processes: Number of processes.
        event: What ends the run: its end, SIGKILL or SIGTERM to one of them, or its time budget.
        victim: Process that gets the signal; None without one.
        exit_codes: Of each process.
        seconds: From the event to the end of the last process.
        iterations: Rows of metrics.
        wanted: Iterations of the whole run.
        each_once: Whether each iteration so far has one row.
        checkpoint: Iteration of the newest checkpoint, 0 where there is none.
    """

    processes: int
    event: Event
    victim: int | None
    exit_codes: list[int]
    seconds: float
    iterations: int
    wanted: int
    each_once: bool
    checkpoint: int

    @property
    def victim_was_first(self) -> bool:
        """Whether the process that writes was killed."""
        return self.event == "kill" and self.victim == 0

    @property
    def as_expected(self) -> bool:
        """Whether every process ended as the event asks for, within a minute, and left rows that are whole."""
        codes = {"none": [0] * self.processes, "time": [0] * self.processes, "stop": [143] * self.processes}
        codes["kill"] = [-signal.SIGKILL if index == self.victim else 1 for index in range(self.processes)]
        # The first process saves its last call, unless it is the one that is killed.
        saved = 0 < self.checkpoint <= self.iterations if self.victim_was_first else self.checkpoint == self.iterations
        done = self.iterations == self.wanted
        ended = self.exit_codes == codes[self.event] and done == (self.event == "none")
        return ended and self.seconds < 60 and self.each_once and saved


@dataclass(frozen=True)
class Outcome:
    """A run that came to its end.

    One that had run out of time was evaluated then, once more than the run that it is compared with: its evaluations
    and its best dataset, which these choose, are not compared.

    Attributes:
        processes: Processes that it ended with.
        as_expected: Whether it ended as it should, with one row for each iteration.
        same_bytes: Whether both datasets have the bytes of the run that it is compared with.
        same_metrics: Whether the metrics are the same but for the seconds in them.
    """

    processes: int
    as_expected: bool
    same_bytes: bool
    same_metrics: bool

    @property
    def passed(self) -> bool:
        """Whether all of these hold."""
        return self.as_expected and self.same_bytes and self.same_metrics


@dataclass(frozen=True)
class Case:
    """A run that was ended, and what it became under several numbers of processes."""

    ending: Ending
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether nothing was lost or changed."""
        return self.ending.as_expected and all(outcome.passed for outcome in self.outcomes)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the check; 0 if all cases passed, 1 otherwise."""
    settings = parse(ProcessesCheckSettings, "checks.processes", list(sys.argv[1:] if arguments is None else arguments))
    cases = []
    with tempfile.TemporaryDirectory(prefix="hades-processes-") as folder:
        for case in check(settings, Path(folder)):
            ending = case.ending
            verdict = "as it should" if case.passed else "NOT as it should"
            print(f"processes {ending.processes}, ended by {ending.event}: {verdict}", file=sys.stderr)
            cases.append(case)
    stream = sys.stderr if settings.json else sys.stdout
    header = ("processes", "ended by", "exit codes", "s to the end", "rows", "checkpoint", "went on with", "same bytes")
    print(tables.table("runs over several processes", header, [_row(case) for case in cases]), file=stream)
    passed = sum(case.passed for case in cases)
    print(f"{passed} of {len(cases)} cases as they should be", file=stream)
    if settings.json:
        counts = {"passed": passed, "cases": len(cases)}
        print_json(counts | {"settings": asdict(settings), "rows": [asdict(case) for case in cases]})
    return 0 if passed == len(cases) else 1


def _row(case: Case) -> tuple[str, ...]:
    ending, outcomes = case.ending, case.outcomes
    victim = "" if ending.victim is None else f" to process {ending.victim}"
    return (
        str(ending.processes),
        ending.event + victim,
        " ".join(map(str, ending.exit_codes)),
        f"{ending.seconds:.1f}",
        str(ending.iterations),
        str(ending.checkpoint),
        " ".join(str(outcome.processes) for outcome in outcomes),
        " ".join("yes" if outcome.passed else "NO" for outcome in outcomes),
    )


def check(settings: ProcessesCheckSettings, folder: Path) -> Iterator[Case]:
    """Cases one after the other: each number of processes undisturbed, and all of them ended on the way."""
    reference, budgets = RunDirectory(folder / "reference"), {}
    for count in settings.processes:
        # What it compiles is in the cache from here on: half of the seconds of a run that compiles may be a whole one.
        play(replace(settings, num_iterations=1), RunDirectory(folder / f"first-{count}"), count)
        out = RunDirectory(folder / f"whole-{count}")
        ending = play(settings, out, count)
        budgets[count] = (out.last_row() or {"seconds": 1.0})["seconds"] / 2
        if not reference.path.exists():
            shutil.copytree(out.path, reference.path)
        yield Case(ending, [_compared(ending, out, reference, evaluations=True)])
    for count in settings.processes:
        # One process has no other that could notice.
        events: list[tuple[Event, int | None]] = [("stop", count - 1), ("time", None)]
        events += [("kill", victim) for victim in (0, count - 1)] if count > 1 else []
        for event, victim in events:
            out = RunDirectory(folder / f"{event}-{victim}-{count}")
            case = Case(play(settings, out, count, event, victim, budgets[count]))
            for next_count in settings.processes:
                resumed = RunDirectory(folder / "resumed")
                shutil.rmtree(resumed.path, ignore_errors=True)
                shutil.copytree(out.path, resumed.path)
                ending = play(settings, resumed, next_count)
                case.outcomes.append(_compared(ending, resumed, reference, evaluations=event != "time"))
            yield case


def play(
    settings: ProcessesCheckSettings,
    run: RunDirectory,
    count: int,
    event: Event = "none",
    victim: int | None = None,
    max_seconds: float = 1.0,
) -> Ending:
    """Begins a run or goes on with it, to its end or to an event, with a number of processes.

    Args:
        settings: Settings of the check.
        run: Folder of the run.
        count: Processes.
        event: What ends it.
        victim: Process that gets the signal of the event; None without one.
        max_seconds: Time budget of a run that is to run out of time.

    Raises:
        SystemExit: Processes hang, or end before the event.
    """
    flags = ["--num-iterations", str(settings.num_iterations), "--checkpoint-seconds", "0.1"]
    if event == "time":
        flags += ["--max-seconds", str(max_seconds)]
    elif run.holds_run:
        # Resumed runs have the budget that they are given.
        flags += ["--max-seconds", "None"]
    with tempfile.TemporaryFile("w+") as errors:
        processes = start(settings, run.path, count, flags, errors)
        try:
            if victim is not None:
                _wait_for_rows(run, processes, int(_EVENT_AT * settings.num_iterations))
                processes[victim].send_signal(signal.SIGKILL if event == "kill" else signal.SIGTERM)
            began = time.monotonic()
            codes = [process.wait(timeout=_MOST_SECONDS) for process in processes]
        except (subprocess.TimeoutExpired, TimeoutError, ChildProcessError) as error:
            errors.seek(0)
            raise SystemExit(f"{count} processes, {event}: {error}\n{errors.read()[-4000:]}") from None
        finally:
            for process in processes:
                process.kill()
    seconds = 0.0 if victim is None else time.monotonic() - began
    rows = [row["iteration"] for row in run.read_metrics()]
    each_once = rows == list(range(1, len(rows) + 1))
    wanted = settings.num_iterations
    return Ending(count, event, victim, codes, seconds, len(rows), wanted, each_once, run.saved_iteration)


def start(
    settings: ProcessesCheckSettings, out: Path, count: int, flags: Sequence[str], stderr: IO[str] | int
) -> list[subprocess.Popen[str]]:
    """Starts `hades distill --resume` in so many processes, which share the devices."""
    line = ["distill", *shlex.split(settings.flags), *flags, "--out", str(out), "--resume"]
    job = ["--multihost", "--coordinator", free_address(), "--num-processes", str(count), "--process-id"]
    own = {"JAX_PLATFORMS": "cpu", **forced_devices([settings.devices // count])}
    return [
        subprocess.Popen(
            command(*line, *([*job, str(index)] if count > 1 else [])),
            env=os.environ | own,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            text=True,
        )
        for index in range(count)
    ]


def _wait_for_rows(run: RunDirectory, processes: Sequence[subprocess.Popen[str]], count: int) -> None:
    began = time.monotonic()
    while (run.last_row() or {"iteration": 0})["iteration"] < count:
        if any(process.poll() is not None for process in processes):
            raise ChildProcessError(f"a process ended before there were {count} rows")
        if time.monotonic() - began > _MOST_SECONDS:
            raise TimeoutError(f"there were no {count} rows after {_MOST_SECONDS:.0f} s")
        time.sleep(0.05)


def _compared(ending: Ending, run: RunDirectory, reference: RunDirectory, evaluations: bool) -> Outcome:
    files = [(run.dataset, reference.dataset), (run.best_dataset, reference.best_dataset)][: 1 + evaluations]
    found, expected = (
        [
            {name: value for name, value in row.items() if evaluations or not name.startswith("evaluation")}
            for row in rows_without_seconds(directory)
        ]
        for directory in (run, reference)
    )
    same_bytes = all(own.exists() and own.read_bytes() == other.read_bytes() for own, other in files)
    return Outcome(ending.processes, ending.as_expected, same_bytes, found == expected)


if __name__ == "__main__":
    sys.exit(main())
