"""`hades offline teach`: a near-expert policy and its action values from offline data, by Cal-QL."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from experiments import running
from experiments.arguments import expand, flag_value, parse
from experiments.cli import BadArgumentsError
from experiments.commands.offline.settings import TeachSettings
from experiments.environments import environment_of
from experiments.loading import checksum
from experiments.presets import get_preset
from hades import multihost
from hades._run_directory import RunDirectory
from hades._serialization import to_dict
from hades.offline import Teacher, d4rl
from hades.offline.transitions import OfflineDataError, Transitions
from hades.recipes.cal_ql import cal_ql_run
from hades.run import Run, checksum as checksum_of_arrays
from hades.types import AnyEnvironment, Discrete


def _complete(settings: TeachSettings) -> TeachSettings:
    """Fills in which file the data are, its whole path, so that any folder can resume, and its environment."""
    if settings.data is None:
        raise BadArgumentsError("--data: expected an HDF5 file, such as hades offline collect writes")
    env, loop = settings.env or d4rl.env_name(settings.data), settings.loop
    own = None if settings.preset is None else get_preset(COMMAND.name, settings.preset).loop.evaluate_every
    if not settings.evaluation or (env is None and loop.evaluate_every == own):
        # Presets evaluate where there is something to play in.
        loop = loop.without_evaluation()
    return dataclasses.replace(
        running.on_one_device(settings),
        env=env,
        loop=loop,
        data=settings.data.absolute(),
        data_checksum=checksum(settings.data),
    )


def _make_run(settings: Any) -> Run[Teacher]:
    transitions = settings.load(settings.env)
    env = _environment(settings, transitions)
    space = (env or settings.spaces(transitions, settings.data.stem)).action_space
    if isinstance(space, Discrete):
        raise OfflineDataError(
            f"{settings.data}: actions: expected continuous ones, which Cal-QL needs, got discrete ones; a policy of "
            "hades baseline ppo is a teacher for pbc"
        )
    try:
        return cal_ql_run(transitions, space, settings.settings, env)
    except OfflineDataError as error:
        raise OfflineDataError(f"{settings.data}: {error}") from None


def _environment(settings: TeachSettings, data: Transitions) -> AnyEnvironment | None:
    """Environment of the data, None where neither flags nor file name it."""
    if settings.env is None or not settings.evaluation:
        return None
    settings.refuse_bounds()
    assert settings.data is not None  # `_complete` has refused it otherwise
    env = environment_of(settings.data, settings.env, settings.options)
    try:
        data.check_fits(env)
    except ValueError as error:
        if settings.env != d4rl.env_name(settings.data):
            raise BadArgumentsError(f"--env: {error}") from None
        raise OfflineDataError(f"{settings.data}: {error}") from None
    return env


COMMAND = running.Command(
    "offline teach", TeachSettings, make_run=_make_run, complete=_complete, draw=None, needs_env=False
)


def main(arguments: Sequence[str]) -> int:
    """Runs the command and returns its exit code."""
    arguments, file = _split_out(arguments)
    if file is not None and file.exists() and "--resume" not in arguments:
        raise BadArgumentsError(f"--out: {file} exists, expected a new file, or --resume")
    settings = running.resolve(COMMAND, arguments)
    result = running.run_command(COMMAND, settings, file)
    if isinstance(result, int):
        return result
    if file is not None and multihost.is_first():
        result.outcome.save(file)
        print(f"teacher written to {file}")
    return 0


def _split_out(arguments: Sequence[str]) -> tuple[list[str], Path | None]:
    """Arguments whose `--out` is a run directory, and the teacher's file where they named one.

    Training that version 0.1 began beside such a file is taken over into the run directory.
    """
    out = flag_value(arguments, "--out")
    if out is None or not out.endswith(".npz"):
        return list(arguments), None
    file = expand(out)
    folder = file.with_suffix("")
    former = file.with_name(f"{file.stem}.checkpoints")
    if former.is_dir() and "--resume" in arguments and not RunDirectory(folder).holds_run:
        _take_over(former, RunDirectory(folder), arguments)
    replaced = {out: str(folder), f"--out={out}": f"--out={folder}"}
    return [replaced.get(argument, argument) for argument in arguments], file


def _take_over(former: Path, directory: RunDirectory, arguments: Sequence[str]) -> None:
    """Makes a run directory of a folder of checkpoints of version 0.1, which kept settings and history inside."""
    steps = sorted((path for path in former.iterdir() if path.name.isdigit()), key=lambda path: int(path.name))
    if not steps:
        return
    # The old loop kept none of its settings, so that those of the flags are as good as any.
    settings = _complete(parse(TeachSettings, COMMAND.name, arguments))
    progress = json.loads((steps[-1] / "progress" / "metadata").read_text())
    origin, key = progress["origin"], progress["origin"]["key"]
    _check_data(former, origin["data"], _make_run(settings))
    saved = {"settings": origin["settings"], "seed": key[-1], "key": key}
    directory.create({"command": COMMAND.name, **to_dict(settings), "out": None, "resume": False, **saved})
    directory.append_metrics([{**row, "iteration": row["update"]} for row in progress["history"]])
    former.rename(directory.checkpoints)


def _check_data(former: Path, data: str, run: Run[Teacher]) -> None:
    """Refuses data of another length than a former training had, and says where their checksum differs.

    Args:
        former: Folder of checkpoints.
        data: Its description of the data, such as "400 transitions of checksum 1f2e3d4c".
        run: Run on the data that the flags name.
    """
    experience = jax.tree.leaves(run)
    given = f"{len(experience[0])} transitions of checksum {checksum_of_arrays(experience)}"
    if data.partition(" ")[0] != given.partition(" ")[0]:
        raise BadArgumentsError(f"--data: {former} holds training on {data}, got {given}")
    if data != given:
        # Statistics of the data are in the checksum, and they are rounded differently on other machines.
        print(f"{former} holds training on {data}, going on with {given}", file=sys.stderr)
