"""Starting, resuming and reporting a run: what `hades distill` and `hades baseline` have in common."""

from __future__ import annotations

import dataclasses
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from experiments import tables
from experiments.arguments import expand, flag_value, parse, print_json
from experiments.cli import BadArgumentsError
from experiments.logging import check_extras, loggers
from experiments.pictures import draw_curve, draw_dataset
from experiments.presets import get_preset
from experiments.settings import RunSettings
from experiments.stopping import StopSignals
from hades import recipes
from hades._run_directory import RunDirectory, RunDirectoryError
from hades._serialization import from_dict, to_dict
from hades.distillation import Result, distill
from hades.offline import OfflineDataError, TeacherError
from hades.run import Run

_FREE_TO_CHANGE = {
    "num_iterations",
    "resume",
    "json",
    "out",
    "tensorboard",
    "wandb",
    "checkpoint_seconds",
    "max_env_steps",
    "max_seconds",
}


def _run_in_environment(settings: Any) -> Run[Any]:
    return recipes.from_settings(settings.options.make(settings.env), settings.settings)


def _as_given(settings: Any) -> Any:
    return settings


_NESTED = ("cloning", "evolution", "network", "meta_gradient", "flow")
"""Settings whose flags have their name in front."""


@dataclass(frozen=True)
class Command:
    """A command that starts a run, and its differences from the others.

    Attributes:
        name: Behind `hades`, such as `"baseline es"`.
        settings: Its settings.
        population: Label of the values of an iteration, of which pictures show mean and best.
        make_run: Makes the run that resolved settings describe; raises `ValueError` where one does not suit another.
        complete: Fills in what flags imply, such as the environment of a data file.
        draw: Draws the curve of a run.
    """

    name: str
    settings: type[RunSettings]
    population: str = "population (selection keys)"
    make_run: Callable[[Any], Run[Any]] = _run_in_environment
    complete: Callable[[Any], Any] = _as_given
    draw: Callable[..., None] = draw_curve


def launch(command: Command, arguments: Sequence[str]) -> int:
    """Begins a run or goes on with it, to its end or to a signal, and returns the exit code.

    Raises:
        BadArgumentsError: A flag is wrong, or contradicts the run that is to be resumed.
        OSError: The run directory cannot be written.
        ValueError: The run directory is not whole.
    """
    settings: Any = resolve(command, arguments)
    directory = RunDirectory(settings.out)
    run = build(settings, command)
    resolved = dataclasses.replace(settings, settings=run.settings, out=None, resume=False, json=False)
    check_extras(settings)
    config = {"command": command.name, **to_dict(resolved)}
    if directory.holds_run:
        directory.write_config(config)
    else:
        directory.create(config)
    started = time.monotonic()
    with StopSignals(f"hades {command.name}") as signals, loggers(settings, directory) as callbacks:
        result = distill(
            jax.random.key(settings.seed),
            run,
            settings.num_iterations,
            out=directory.path,
            loop=settings.loop,
            callbacks=callbacks,
            should_stop=signals.should_stop,
        )
    if not result.finished:
        print(
            f"stopped at generation {result.state.generation} of {settings.num_iterations}; "
            f"go on with: hades {command.name} --out {directory.path} --resume",
            file=sys.stderr,
        )
        return signals.exit_code
    _report(command, settings, run, directory, result, time.monotonic() - started)
    return 0


def build(settings: Any, command: Command) -> Run[Any]:
    """The run that resolved settings describe.

    Raises:
        BadArgumentsError: There is no environment, or a setting does not suit it.
        OfflineDataError: The file of the data is missing or malformed.
        TeacherError: The file of the teacher is.
    """
    if not settings.env:
        raise BadArgumentsError("--env: expected an environment, such as gymnax/CartPole-v1, or a --preset")
    try:
        run = command.make_run(settings)
    except (OfflineDataError, TeacherError):
        # What a file holds is no fault of the arguments.
        raise
    except ValueError as error:
        raise BadArgumentsError(str(error)) from None
    try:
        run.make_evaluator(settings.loop.evaluation_inits, settings.loop.evaluation_episodes)
    except ValueError as error:
        reason = str(error).removeprefix("num_episodes: ")
        raise BadArgumentsError(f"--evaluation-episodes: {reason}") from None
    return run


def resolve(command: Command, arguments: Sequence[str]) -> RunSettings:
    """The settings of a run: flags over the run that is resumed, or over the preset, or over the defaults.

    Raises:
        BadArgumentsError: A flag is wrong, or contradicts the run that is to be resumed.
    """
    out = flag_value(arguments, "--out")
    if "--resume" in arguments and out and RunDirectory(expand(out)).holds_run:
        return _resolve_resumed(command, arguments, RunDirectory(expand(out)))
    name = flag_value(arguments, "--preset")
    try:
        default = command.settings() if name is None else _from_preset(command, name)
    except ValueError as error:
        raise BadArgumentsError(f"--{error}") from None
    settings: Any = command.complete(parse(command.settings, command.name, arguments, default))
    if settings.out is None:
        # A preset without an environment of its own is for any.
        whole = settings.preset and default.env is not None
        label = settings.preset if whole else "-".join(filter(None, (settings.env, settings.preset)))
        method = settings.settings.method
        # Presets are of HaDES-R, or have the method in their names.
        named = settings.preset and (method == "hades-r" or settings.preset.endswith(method.removeprefix("hades")))
        label = label if named else f"{label}-{method}"
        folder = re.sub(r"[^\w.-]+", "-", f"{label}-seed{settings.seed}")
        settings = dataclasses.replace(settings, out=Path("runs") / folder)
    if RunDirectory(settings.out).holds_run and not settings.resume:
        raise BadArgumentsError(f"--out: {settings.out} holds a run; go on with it by --resume, or choose another")
    return settings


def _from_preset(command: Command, name: str) -> RunSettings:
    preset = get_preset(command.name, name)
    parts = {field.name: getattr(preset, field.name) for field in dataclasses.fields(preset)}
    return dataclasses.replace(command.settings(), preset=name, **parts)


def _resolve_resumed(command: Command, arguments: Sequence[str], directory: RunDirectory) -> RunSettings:
    config = directory.read_config()
    found = config.pop("command", None)
    if found != command.name:
        raise BadArgumentsError(
            f"--out: {directory.path} holds a run of `hades {found}`, expected one of {command.name}"
        )
    if "num_generations" in config:  # Its name in runs of version 0.1.
        config["num_iterations"] = config.pop("num_generations")
    try:
        saved = from_dict(command.settings, config)
    except ValueError as error:
        raise RunDirectoryError(f"{directory.config}: {error}") from None
    settings = command.complete(parse(command.settings, command.name, arguments, saved))
    for flag, old, new in _differences(saved, settings):
        raise BadArgumentsError(f"--{flag}: the run in {directory.path} has {old}, got {new}; choose another --out")
    last = directory.last_row()
    if last and settings.num_iterations < last["iteration"]:
        done = last["iteration"]
        raise BadArgumentsError(
            f"--num-iterations: the run in {directory.path} has done {done}, got {settings.num_iterations}"
        )
    return dataclasses.replace(settings, out=directory.path, resume=True)


def _differences(saved: Any, settings: Any, prefix: str = "") -> list[tuple[str, Any, Any]]:
    """Flags in which two settings differ though they make the results what they are: `(flag, old, new)`."""
    found = []
    for field in dataclasses.fields(saved):
        old, new = getattr(saved, field.name), getattr(settings, field.name)
        if old == new or field.name in _FREE_TO_CHANGE:
            continue
        if dataclasses.is_dataclass(old):
            nested = f"{field.name.replace('_', '-')}." if field.name in _NESTED else ""
            found += _differences(old, new, nested)
        else:
            found.append((prefix + field.name.replace("_", "-"), old, new))
    return found


def _report(
    command: Command, settings: Any, run: Run[Any], directory: RunDirectory, result: Result[Any], seconds: float
) -> None:
    """Evaluates what the run left beside its zeros, draws it and prints it."""
    # Keys that nothing was selected on.
    key = jax.random.fold_in(jax.random.key(settings.seed), 2**32 - 4)
    references = result.evaluator.references(key, result.outcome)
    evaluations = {
        f"best {result.kind}": result.evaluator(key, result.best_outcome),
        f"last {result.kind}": result.evaluator(key, result.outcome),
        **references,
    }
    table = {name: tables.summary(evaluation, run.env.name) for name, evaluation in evaluations.items()}
    generations = int(result.state.generation)
    summary = {
        "out": str(directory.path),
        "env": run.env.name,
        "generations": generations,
        "best_generation": result.best_generation,
        "env_steps": result.history[-1]["total_env_steps"],
        "seconds": result.history[-1]["seconds"],
        "evaluations": table,
    }
    directory.write_summary(summary)
    distils = result.kind == "dataset"
    size = f", N = {settings.settings.dataset_size}" if distils else ""
    title = f"{settings.settings.method} on {run.env.name}{size}, seed {settings.seed}"
    lines = {name: evaluation.mean for name, evaluation in references.items()}
    outcome = "mean dataset" if distils else "policy"
    command.draw(result.history, directory.curve, title, lines, command.population, outcome)
    if distils:
        draw_dataset(result.best_dataset, directory.dataset_picture)
    print(tables.render(f"returns on fresh keys, {run.env.name}", evaluations))
    print(f"{generations} generations, {seconds:.1f} s; files in {directory.path}:")
    print(f"  best_{result.kind}.npz (of generation {result.best_generation}), {result.kind}.npz (the last),")
    print(f"  curve.png, {'dataset.png, ' if distils else ''}metrics.jsonl, summary.json")
    if settings.json:
        print_json(summary)
