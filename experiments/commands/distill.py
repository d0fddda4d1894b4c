"""`hades distill`: from an environment's name to a dataset file, curves and pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

import jax

from experiments import running
from experiments.arguments import expand, flag_value
from experiments.cli import BadArgumentsError
from experiments.loading import check_dataset_fits, checksum, load_dataset
from experiments.pictures import draw_curve
from experiments.settings import DistillSettings, PolicyGradientDistillSettings
from hades import recipes
from hades._cache import kept
from hades._files import refusing
from hades._run_directory import RunDirectory
from hades.keys import Stream, stream
from hades.normalization import Normalizer
from hades.recipes import hades, policy_gradient
from hades.rollouts.settings import PlaySettings
from hades.run import Run
from hades.types import Environment


def _complete(settings: Any) -> Any:
    """Fills in the whole paths of datasets that a run begins with, so that any folder can resume, and checksums."""
    for name in ("warm_start", "statistics_of"):
        path = getattr(settings, name, None)
        if path is not None:
            file, _, _ = load_dataset(path)
            found = {name: file.absolute(), f"{name}_checksum": checksum(file)}
            settings = dataclasses.replace(settings, **found)
    return settings


def _make_run(settings: Any) -> Run[Any]:
    """The run of a distillation, from the pairs of a file, or by the statistics of its policies, if there is one."""
    env = settings.options.make(settings.env)
    first = getattr(settings, "warm_start", None)
    normalizer = None
    if settings.statistics_of is not None:
        normalizer = _statistics(
            env, settings.statistics_of, settings.statistics_of_checksum, settings.seed, settings.settings.played
        )
    return recipes.from_settings(
        env,
        settings.settings,
        mesh=settings.chosen_devices,
        normalizer=normalizer,
        warm_start=None if first is None else load_dataset(first)[1],
    )


# Trials of sizes of chunks make the run again.
@kept
def _statistics(env: Environment, file: Path, known_by: str | None, seed: int, play: PlaySettings) -> Normalizer:
    """Observation statistics of random play and of the policies of a dataset file, whose checksum is `known_by`."""
    del known_by
    key = stream(jax.random.key(seed), Stream.STATISTICS)
    _, dataset, _ = load_dataset(file)
    check_dataset_fits(env, dataset, file, env.name)
    with refusing(f"statistics_of: {file}", ValueError):
        return recipes.measure_visited_statistics(
            key, env, dataset, random_episodes=play.statistics_episodes, min_std=play.min_std
        )


# Both keep their arrays: of other components or statistics, pairs would be others.
COMMAND = running.Command(
    "distill", DistillSettings, make_run=_make_run, complete=_complete, divides_cpu=True, keeps_arrays=True
)
POLICY_GRADIENT = running.Command(
    "distill",
    PolicyGradientDistillSettings,
    "environments (last episodes in training)",
    make_run=_make_run,
    complete=_complete,
    draw=partial(draw_curve, env_steps=True),
    presets="distill hades-pg",
    keeps_arrays=True,
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
