"""`hades offline distill`: an offline dataset condensed into a few state-action pairs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax

from experiments import running
from experiments.cli import BadArgumentsError
from experiments.commands.offline.settings import OfflineDistillSettings
from experiments.environments import environment_name, environment_of
from experiments.loading import checksum, load_teacher, outcome_file
from experiments.pictures import draw_offline_curve
from experiments.registry import INNER_LOOPS, OBJECTIVES, OUTER_LOOPS
from hades._files import refusing
from hades.dataset import SyntheticDataset
from hades.keys import Stream, stream
from hades.recipes.offline import offline_run
from hades.run import Run
from hades.types import AnyEnvironment


def _complete(settings: OfflineDistillSettings) -> OfflineDistillSettings:
    """Fills in the environment of the data, which files they are, and whole paths, so that any folder can resume."""
    if settings.data is None:
        raise BadArgumentsError("--data: expected an HDF5 file, such as hades offline collect writes")
    teacher = None if settings.teacher is None else outcome_file(settings.teacher).absolute()
    env, loop = settings.env, settings.loop
    if settings.evaluation:
        env = environment_name(settings.data, env)
    else:
        # Not that of the data: nothing here knows its limit and options, with which a file is scored.
        env = env or settings.data.stem
        loop = loop.without_evaluation()
    return dataclasses.replace(
        settings,
        env=env,
        loop=loop,
        data=settings.data.absolute(),
        data_checksum=checksum(settings.data),
        teacher=teacher,
        teacher_checksum=None if teacher is None else checksum(teacher),
    )


def _make_run(settings: Any) -> Run[SyntheticDataset]:
    transitions = settings.load()
    env: AnyEnvironment
    if settings.evaluation:
        settings.refuse_bounds()
        env = environment_of(settings.data, settings.env, settings.options)
    else:
        env = settings.spaces(transitions, settings.env, settings.num_actions)
    # Here, where the files are known by name; the run checks again.
    with refusing(f"--data: {settings.data}", BadArgumentsError):
        transitions.check_fits(env)
    teacher = None
    if settings.teacher is not None:
        teacher = load_teacher(settings.teacher, env)
        with refusing(f"--teacher: {settings.teacher}", BadArgumentsError):
            teacher.check_fits(env)
    method = settings.settings
    return offline_run(
        env,
        transitions,
        OBJECTIVES[method.objective],
        method,
        teacher,
        inner=INNER_LOOPS[method.inner](env, method),
        outer=OUTER_LOOPS[method.outer](method),
        key=stream(jax.random.key(settings.seed), Stream.DENSITY),
        mesh=settings.chosen_devices,
    )


COMMAND = running.Command(
    "offline distill",
    OfflineDistillSettings,
    population="candidates (drawn states)",
    make_run=_make_run,
    complete=_complete,
    draw=draw_offline_curve,
)


def main(arguments: Sequence[str]) -> int:
    """Runs the verb and returns its exit code."""
    return running.launch(COMMAND, arguments)
