"""`hades distill`: from an environment's name to a dataset file, curves and pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any, get_args

from experiments import running
from experiments.arguments import expand, flag_value
from experiments.cli import BadArgumentsError
from experiments.loading import checksum, load_dataset
from experiments.pictures import draw_curve
from experiments.settings import DistillSettings, PolicyGradientDistillSettings
from hades._run_directory import RunDirectory
from hades.recipes import hades, policy_gradient
from hades.run import Run


def _complete(settings: DistillSettings) -> DistillSettings:
    """Fills in the whole path of the file of the first pairs, so that any folder can resume, and its checksum."""
    if settings.warm_start is None:
        return settings
    file, _, _ = load_dataset(settings.warm_start)
    return dataclasses.replace(settings, warm_start=file.absolute(), warm_start_checksum=checksum(file))


def _make_run(settings: DistillSettings) -> Run[Any]:
    """The run of an evolution, from the pairs of a file if there is one."""
    first = None if settings.warm_start is None else load_dataset(settings.warm_start)[1]
    return running.run_in_environment(settings, first)


# Of other components, codes would be other pairs.
COMMAND = running.Command(
    "distill", DistillSettings, make_run=_make_run, complete=_complete, divides_cpu=True, keeps_arrays=True
)
POLICY_GRADIENT = running.Command(
    "distill",
    PolicyGradientDistillSettings,
    "environments (last episodes in training)",
    draw=partial(draw_curve, env_steps=True),
    presets="distill hades-pg",
)


def main(arguments: Sequence[str]) -> int:
    """Runs the verb and returns its exit code."""
    return running.launch(command_of(arguments), arguments)


def command_of(arguments: Sequence[str]) -> running.Command:
    """The command whose flags the method has: that of the run that is resumed, or of `--method`.

    Raises:
        BadArgumentsError: There is no such method.
    """
    method, out = flag_value(arguments, "--method"), flag_value(arguments, "--out")
    known = (*get_args(hades.Method), *get_args(policy_gradient.Method))
    if method is not None and method not in known:
        raise BadArgumentsError(f"--method: expected one of {', '.join(known)}, got {method!r}")
    if "--resume" in arguments and out is not None and RunDirectory(expand(out)).holds_run:
        method = RunDirectory(expand(out)).read_config().get("method")
    return POLICY_GRADIENT if method in get_args(policy_gradient.Method) else COMMAND
