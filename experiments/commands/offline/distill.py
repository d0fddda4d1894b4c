"""`hades offline distill`: an offline dataset condensed into a few state-action pairs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import tyro

from experiments import running
from experiments.cli import BadArgumentsError
from experiments.commands.offline.data_files import checksum, environment_name, environment_of
from experiments.pictures import draw_offline_curve
from experiments.settings import RunSettings
from hades.dataset import SyntheticDataset
from hades.distillation import LoopSettings
from hades.offline import Teacher, d4rl
from hades.recipes.offline import OfflineSettings, offline_run, paper_offline
from hades.run import Run

_PAPER = "paper"


@dataclass(frozen=True, kw_only=True)
class OfflineDistillSettings(RunSettings):
    """Condenses an offline dataset into a few state-action pairs, by DBC, PBC, Av-PBC or SDW."""

    preset: str | None = None
    """paper begins with the published settings. Flags beside it override."""
    env: str | None = None
    """Environment to evaluate in, such as gymnasium/Hopper-v4; none is the one that the data file names."""
    data: Path | None = None
    """HDF5 file in D4RL's layout."""
    teacher: Path | None = None
    """Teacher file, for all objectives but dbc."""
    num_generations: int = 3000
    """Outer steps of the whole run."""
    data_checksum: Annotated[str | None, tyro.conf.Suppress] = None
    """Of the data file, so that a run is not resumed on other data."""
    teacher_checksum: Annotated[str | None, tyro.conf.Suppress] = None
    """Of the teacher file, likewise."""
    settings: Annotated[OfflineSettings, tyro.conf.arg(name="")] = OfflineSettings()
    """The method."""
    loop: Annotated[LoopSettings, tyro.conf.arg(name="")] = LoopSettings(
        generations_per_call=20, evaluate_every=500, evaluation_inits=4, evaluation_episodes=5
    )
    """The host loop."""

    def __post_init__(self) -> None:
        """Refuses also a budget of environment steps, of which there are none."""
        super().__post_init__()
        if self.loop.max_env_steps is not None:
            raise ValueError(
                f"max_env_steps: expected none, as training plays in no environment, got {self.loop.max_env_steps}"
            )


def _preset(name: str) -> OfflineDistillSettings:
    if name != _PAPER:
        raise ValueError(f"preset: expected {_PAPER}, got {name!r}")
    return OfflineDistillSettings(preset=name, settings=paper_offline(), num_generations=50_000)


def _complete(settings: OfflineDistillSettings) -> OfflineDistillSettings:
    """Fills in the environment of the data, which files they are, and whole paths, so that any folder can resume."""
    if settings.data is None:
        raise BadArgumentsError("--data: expected an HDF5 file, such as hades offline collect writes")
    teacher = None if settings.teacher is None else settings.teacher.absolute()
    return dataclasses.replace(
        settings,
        env=environment_name(settings.data, settings.env),
        data=settings.data.absolute(),
        data_checksum=checksum(settings.data),
        teacher=teacher,
        teacher_checksum=None if teacher is None else checksum(teacher),
    )


def _make_run(settings: Any) -> Run[SyntheticDataset]:
    env = environment_of(settings.data, settings.env, settings.options)
    transitions = d4rl.load(settings.data)
    teacher = None if settings.teacher is None else Teacher.load(settings.teacher)
    # Here, where the files are known by name; the run checks again.
    for flag, path, part in (("data", settings.data, transitions), ("teacher", settings.teacher, teacher)):
        try:
            if part is not None:
                part.check_fits(env)
        except ValueError as error:
            raise BadArgumentsError(f"--{flag}: {path}: {error}") from None
    key = jax.random.fold_in(jax.random.key(settings.seed), np.uint32(2**32 - 7))
    return offline_run(env, transitions, settings.settings, teacher, key=key)


COMMAND = running.Command(
    "offline distill",
    OfflineDistillSettings,
    _preset,
    population="candidates (drawn states)",
    make_run=_make_run,
    complete=_complete,
    draw=draw_offline_curve,
)


def main(arguments: Sequence[str]) -> int:
    """Runs the verb and returns its exit code."""
    return running.launch(COMMAND, arguments)
