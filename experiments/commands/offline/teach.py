"""`hades offline teach`: a near-expert policy and its action values from offline data, by Cal-QL."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
from hades.offline.teaching import Lesson, TeachingLoop, make_teacher_evaluator, teach

from experiments import tables
from experiments.arguments import parse, print_json
from experiments.cli import BadArgumentsError
from experiments.environments import EnvironmentOptions, environment_of
from experiments.settings import Flat, SeededSettings
from experiments.stopping import StopSignals
from hades._validation import require_positive
from hades.evaluation import Evaluation
from hades.offline import d4rl
from hades.offline.cal_ql import CalQLSettings, make_cal_ql
from hades.offline.transitions import OfflineDataError, Transitions
from hades.types import Continuous

_LAST_STREAM = 2**32 - 4


@dataclass(frozen=True, kw_only=True)
class TeachSettings(SeededSettings):
    """Trains a teacher on offline data by Cal-QL: a policy and its action values, for hades offline distill.

    Checkpoints stand beside the file, in a folder of its name that ends in .checkpoints.
    """

    data: Path
    """HDF5 file of transitions, in the layout of D4RL."""
    out: Path
    """Teacher file to write, an .npz file."""
    env: str | None = None
    """Environment of the data, for the bounds of actions and to play in; default: the one that the file names. Where
    neither does, actions are within -1 and 1."""
    num_updates: int = 100_000
    """Updates of the whole training; published teachers took a million."""
    evaluation_episodes: int = 16
    """Episodes of each evaluation in the simulator, with the most probable actions."""
    resume: bool = False
    """Goes on with the training that the checkpoints of --out hold; begins it where there are none."""
    cal_ql: Annotated[CalQLSettings, Flat] = CalQLSettings()
    """The method."""
    loop: Annotated[TeachingLoop, Flat] = TeachingLoop()
    """The host loop."""

    def __post_init__(self) -> None:
        """Refuses also counts that are not positive."""
        super().__post_init__()
        for name in ("num_updates", "evaluation_episodes"):
            require_positive(name, getattr(self, name))


def main(arguments: Sequence[str]) -> int:
    """Runs the verb and returns its exit code."""
    settings = parse(TeachSettings, "offline teach", arguments)
    checkpoints = settings.out.with_name(f"{settings.out.stem}.checkpoints")
    if checkpoints.exists() and not settings.resume:
        raise BadArgumentsError(
            f"--out: {checkpoints} holds a training; go on with it by --resume, or choose another --out"
        )
    if settings.out.exists() and not settings.resume:
        raise BadArgumentsError(f"--out: {settings.out} exists, expected a new file, or --resume")
    data = d4rl.load(settings.data, settings.env)
    env = _environment(settings, data)
    if settings.loop.evaluate_every is not None and env is None:
        raise BadArgumentsError(f"--evaluate-every: expected an --env to play in, as {settings.data} names none")
    space = env.action_space if env is not None else Continuous((-1.0,) * data.action_dim, (1.0,) * data.action_dim)
    play = None if env is None else make_teacher_evaluator(env, settings.evaluation_episodes)
    settings.out.parent.mkdir(parents=True, exist_ok=True)
    key, started = jax.random.key(settings.seed), time.monotonic()
    try:
        with StopSignals("hades offline teach") as signals:
            lesson = teach(
                key,
                make_cal_ql(space, settings.cal_ql),
                data,
                settings.num_updates,
                checkpoints=checkpoints,
                loop=settings.loop,
                evaluate_teacher=play,
                should_stop=signals.should_stop,
            )
    except OfflineDataError as error:
        raise OfflineDataError(f"{settings.data}: {error}") from None
    if not lesson.finished:
        print(
            f"stopped at update {int(lesson.state.update)} of {settings.num_updates}; "
            "go on with the same command and --resume",
            file=sys.stderr,
        )
        return signals.exit_code
    lesson.teacher.save(settings.out)
    # Keys that no evaluation on the way had.
    last = None
    if play is not None and settings.loop.evaluate_every is not None:
        last = play(jax.random.fold_in(key, _LAST_STREAM), lesson.teacher)
    _report(settings, data, lesson, last, time.monotonic() - started)
    return 0


def _environment(settings: TeachSettings, data: Transitions) -> Any:
    """The environment of the data, None where nobody says which it is."""
    if data.env is None:
        return None
    try:
        env = environment_of(settings.data, settings.env, EnvironmentOptions())
        data.check_fits(env)
    except BadArgumentsError:
        raise
    except ValueError as error:
        if settings.env is not None:
            raise BadArgumentsError(f"--env: {error}") from None
        raise OfflineDataError(f"{settings.data}: {error}") from None
    return env


def _report(
    settings: TeachSettings, data: Transitions, lesson: Lesson, last: Evaluation | None, seconds: float
) -> None:
    row = lesson.history[-1]
    if last is not None:
        print(tables.render(f"returns on fresh keys, {data.env}", {"teacher": last}))
    print(
        f"{int(lesson.state.update)} updates on {data.num_transitions} transitions, {seconds:.1f} s: value of the "
        f"data's actions {row['data_value']:.4g}, of the teacher's {row['actor_value']:.4g}; {settings.out}"
    )
    if settings.json:
        result = {
            "out": str(settings.out),
            "data": str(settings.data),
            "env": data.env,
            "num_transitions": data.num_transitions,
            "updates": int(lesson.state.update),
            "seconds": seconds,
            "metrics": row,
            "evaluations": [entry for entry in lesson.history if "evaluation_mean" in entry],
            "evaluation": None if last is None else tables.summary(last, data.env),
        }
        print_json(result)
