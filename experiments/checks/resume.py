"""`python -m experiments.checks.resume`: kills runs at random moments, resumes them, and compares their files.

A run is ended by SIGKILL at a moment drawn uniformly from its whole life (imports, compilation, writing of files and
checkpoints), then goes on by `hades distill --resume` to its end. The datasets must be those of a run that nothing
ended, byte for byte, and so must the metrics but for the seconds in them.
"""

from __future__ import annotations

import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from experiments import tables
from experiments.arguments import parse, print_json
from experiments.checks._runs import rows_without_seconds
from experiments.processes import command
from experiments.settings import OutputSettings
from hades._run_directory import RunDirectory
from hades.dataset import DatasetError, SyntheticDataset

_LAST_TRIAL_KILLS = 4


@dataclass(frozen=True, kw_only=True)
class ResumeCheckSettings(OutputSettings):
    """Kills runs at random moments, resumes them, and compares their files with those of an uninterrupted run."""

    kills: int = 10
    """Trials, each killed once and then resumed; the last one up to four times."""
    preset: str | None = "cartpole"
    """Preset of the run; default: the settings of hades distill."""
    env: str | None = None
    """Environment in place of the preset's."""
    num_iterations: int | None = None
    """Iterations of the run; default: those of the preset."""
    flags: str = ""
    """More flags of hades distill in one string, as --flags="--dataset-size 4"."""
    seed: int = 0
    """Seed of the moments, and of the run."""
    cold: bool = False
    """Begins every trial with an empty compilation cache, so that kills also fall into compilation."""

    def __post_init__(self) -> None:
        """Refuses a number of kills that is not positive."""
        self.require_positive("kills")


@dataclass(frozen=True)
class Trial:
    """A run that was killed and went on.

    Attributes:
        moments: Seconds after each start at which it was killed.
        iterations: Iterations in the metrics that it had left at each kill.
        checkpoints: Iteration of the newest checkpoint at each kill, 0 where there was none.
        writing: Whether each kill left a half-written checkpoint.
        whole: Whether every dataset file could be read after each kill.
        dataset_equal: Whether `dataset.npz` has the bytes of the uninterrupted run's.
        best_dataset_equal: The same of `best_dataset.npz`.
        metrics_equal: Whether the metrics are the same but for the seconds in them.
    """

    moments: list[float]
    iterations: list[int]
    checkpoints: list[int]
    writing: list[bool]
    whole: bool
    dataset_equal: bool
    best_dataset_equal: bool
    metrics_equal: bool

    @property
    def checks(self) -> tuple[bool, ...]:
        """The conditions that it has to meet."""
        return self.whole, self.dataset_equal, self.best_dataset_equal, self.metrics_equal

    @property
    def passed(self) -> bool:
        """Whether it was killed, and nothing was lost or changed."""
        return bool(self.moments) and all(self.checks)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the check; 0 if all trials passed, 1 otherwise."""
    settings = parse(ResumeCheckSettings, "checks.resume", list(sys.argv[1:] if arguments is None else arguments))
    with tempfile.TemporaryDirectory(prefix="hades-resume-") as folder:
        duration, trials = check(settings, Path(folder))
    rows = [
        (
            str(index + 1),
            " ".join(f"{moment:.2f}" for moment in trial.moments),
            " ".join(map(str, trial.iterations)),
            " ".join(map(str, trial.checkpoints)),
            *("yes" if equal else "NO" for equal in trial.checks),
        )
        for index, trial in enumerate(trials)
    ]
    header = ("trial", "killed after (s)", "iterations", "checkpoint", "files whole", "dataset", "best dataset")
    title = f"kill -9 and --resume against an uninterrupted run of {duration:.1f} s"
    passed = sum(trial.passed for trial in trials)
    stream = sys.stderr if settings.json else sys.stdout
    print(tables.table(title, (*header, "metrics"), rows), file=stream)
    kills = sum(len(trial.moments) for trial in trials)
    writing = sum(sum(trial.writing) for trial in trials)
    words = f"{kills} kills, {writing} of them while a checkpoint was written"
    print(f"{passed} of {len(trials)} trials equal, byte for byte, after {words}", file=stream)
    if settings.json:
        counts = {"passed": passed, "trials": len(trials), "kills": kills, "writing": writing}
        result: dict[str, Any] = counts | {"duration": duration}
        print_json(result | {"settings": asdict(settings), "rows": [asdict(trial) for trial in trials]})
    return 0 if passed == len(trials) else 1


def check(settings: ResumeCheckSettings, folder: Path) -> tuple[float, list[Trial]]:
    """Runs all trials.

    Returns:
        Seconds of the uninterrupted run, and the trials.
    """
    reference = RunDirectory(folder / "reference")
    if not settings.cold:
        # Fills the compilation cache, so that the moments below are spread over the life of the runs that follow.
        _finish(settings, folder / "warm-up")
    started = time.monotonic()
    _finish(settings, reference.path)
    duration = time.monotonic() - started
    moments = random.Random(settings.seed)
    trials = []
    for index in range(settings.kills):
        kills = _LAST_TRIAL_KILLS if index == settings.kills - 1 and settings.kills > 1 else 1
        trial = _trial(settings, folder / f"trial-{index}", reference, lambda: moments.uniform(0, duration), kills)
        print(f"trial {index + 1} of {settings.kills}: {'equal' if trial.passed else 'DIFFERS'}", file=sys.stderr)
        trials.append(trial)
    return duration, trials


def _trial(
    settings: ResumeCheckSettings, out: Path, reference: RunDirectory, draw: Callable[[], float], kills: int
) -> Trial:
    run = RunDirectory(out)
    killed: list[float] = []
    iterations: list[int] = []
    checkpoints: list[int] = []
    writing: list[bool] = []
    whole = True
    while len(killed) < kills:
        moment = draw()
        left = _half_written(run)
        process = _start(settings, out)
        try:
            _check(process, process.communicate(timeout=moment)[1])
            if killed:
                break  # What was left to do was done before the next moment came.
            shutil.rmtree(out, ignore_errors=True)  # Never killed, so that it shows nothing: another moment.
            continue
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        killed.append(moment)
        rows = run.read_metrics()
        iterations.append(rows[-1]["iteration"] if rows else 0)
        checkpoints.append(run.saved_iteration)
        writing.append(bool(_half_written(run) - left))
        whole = whole and all(_readable(path) for path in (run.dataset, run.best_dataset) if path.exists())
    _finish(settings, out)
    return Trial(
        killed,
        iterations,
        checkpoints,
        writing,
        whole,
        run.dataset.read_bytes() == reference.dataset.read_bytes(),
        run.best_dataset.read_bytes() == reference.best_dataset.read_bytes(),
        rows_without_seconds(run) == rows_without_seconds(reference),
    )


def _half_written(run: RunDirectory) -> set[tuple[str, int]]:
    """Checkpoints that orbax has not finished, which it writes into folders of another name; and their inodes."""
    return {(path.name, path.stat().st_ino) for path in run.checkpoints.glob("*.orbax-checkpoint-tmp*")}


def _finish(settings: ResumeCheckSettings, out: Path) -> None:
    process = _start(settings, out)
    _check(process, process.communicate()[1])


def _check(process: subprocess.Popen[str], error: str) -> None:
    if process.returncode:
        command = shlex.join(map(str, process.args))  # type: ignore[arg-type]
        raise SystemExit(f"{command} ended with code {process.returncode}:\n{error}")


def _start(settings: ResumeCheckSettings, out: Path) -> subprocess.Popen[str]:
    arguments = ["distill", "--out", str(out), "--resume"]
    chosen = {"--preset": settings.preset, "--env": settings.env, "--num-iterations": settings.num_iterations}
    for flag, value in chosen.items():
        arguments += [] if value is None else [flag, str(value)]
    arguments += ["--seed", str(settings.seed), "--checkpoint-seconds", "0", *shlex.split(settings.flags)]
    cold = {"JAX_COMPILATION_CACHE_DIR": str(out.with_name(f"{out.name}-cache"))}
    # A session of its own, so that what it started dies with it.
    return subprocess.Popen(
        command(*arguments),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | (cold if settings.cold else {}),
        start_new_session=True,
    )


def _readable(path: Path) -> bool:
    try:
        SyntheticDataset.load(path)
    except DatasetError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
