"""`hades distill`: from an environment's name to a dataset file, curves and pictures."""

from __future__ import annotations

import dataclasses
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from experiments import tables
from experiments.arguments import flag_value, parse, print_json
from experiments.cli import BadArgumentsError
from experiments.logging import check_extras, loggers
from experiments.pictures import draw_curve, draw_dataset
from experiments.presets import preset
from experiments.settings import DistillSettings
from experiments.stopping import StopSignals
from hades import recipes
from hades.distillation import Result, distill
from hades.evaluation import Evaluation, zero_dataset
from hades.run import Run
from hades.run_directory import RunDirectory, RunDirectoryError
from hades.settings import from_dict, to_dict

_COMMAND = "distill"
_FREE_TO_CHANGE = {"num_generations", "resume", "json", "out", "tensorboard", "wandb", "checkpoint_seconds"}


def main(arguments: Sequence[str]) -> int:
    """Runs the verb and returns its exit code."""
    settings = resolve(arguments)
    if not settings.env:
        raise BadArgumentsError("--env: expected an environment, such as gymnax/CartPole-v1, or a --preset")
    directory = RunDirectory(settings.out)  # type: ignore[arg-type]
    try:
        run = recipes.from_settings(settings.options.make(settings.env), settings.settings)
    except ValueError as error:
        raise BadArgumentsError(str(error)) from None
    try:
        run.make_evaluator(settings.loop.evaluation_inits, settings.loop.evaluation_episodes)
    except ValueError as error:
        reason = str(error).removeprefix("num_episodes: ")
        raise BadArgumentsError(f"--evaluation-episodes: {reason}") from None
    resolved = dataclasses.replace(settings, settings=run.settings, out=None, resume=False, json=False)
    check_extras(settings)
    config = {"command": _COMMAND, **to_dict(resolved)}
    if directory.holds_run:
        directory.write_config(config)
    else:
        directory.create(config)
    started = time.monotonic()
    with StopSignals() as signals, loggers(settings, directory) as callbacks:
        result = distill(
            jax.random.key(settings.seed),
            run,
            settings.num_generations,
            out=directory.path,
            loop=settings.loop,
            callbacks=callbacks,
            should_stop=signals.should_stop,
        )
    if not result.finished:
        print(
            f"stopped at generation {result.state.generation} of {settings.num_generations}; "
            f"go on with: hades distill --out {directory.path} --resume",
            file=sys.stderr,
        )
        return signals.exit_code
    _report(settings, run, directory, result, time.monotonic() - started)
    return 0


def resolve(arguments: Sequence[str]) -> DistillSettings:
    """The settings of a run: flags over the run that is resumed, or over the preset, or over the defaults.

    Raises:
        BadArgumentsError: A flag is wrong, or contradicts the run that is to be resumed.
    """
    out = flag_value(arguments, "--out")
    if "--resume" in arguments and out and RunDirectory(out).holds_run:
        return _resolve_resumed(arguments, RunDirectory(out))
    name = flag_value(arguments, "--preset")
    try:
        default = DistillSettings() if name is None else preset(name)
    except ValueError as error:
        raise BadArgumentsError(f"--{error}") from None
    settings = parse(DistillSettings, _COMMAND, arguments, default)
    if settings.out is None:
        label = settings.preset or f"{settings.env}-{settings.settings.method}"
        folder = re.sub(r"[^\w.-]+", "-", f"{label}-seed{settings.seed}")
        settings = dataclasses.replace(settings, out=Path("runs") / folder)
    if RunDirectory(settings.out).holds_run and not settings.resume:  # type: ignore[arg-type]
        raise BadArgumentsError(f"--out: {settings.out} holds a run; go on with it by --resume, or choose another")
    return settings


def _resolve_resumed(arguments: Sequence[str], directory: RunDirectory) -> DistillSettings:
    config = directory.read_config()
    command = config.pop("command", None)
    if command != _COMMAND:
        raise BadArgumentsError(f"--out: {directory.path} holds a run of `hades {command}`, expected one of distill")
    try:
        saved = from_dict(DistillSettings, config)
    except ValueError as error:
        raise RunDirectoryError(f"{directory.config}: {error}") from None
    settings = parse(DistillSettings, _COMMAND, arguments, saved)
    for flag, old, new in _differences(saved, settings):
        raise BadArgumentsError(f"--{flag}: the run in {directory.path} has {old}, got {new}; choose another --out")
    rows = directory.read_metrics()
    if rows and settings.num_generations < rows[-1]["generation"]:
        done = rows[-1]["generation"]
        raise BadArgumentsError(
            f"--num-generations: the run in {directory.path} has done {done}, got {settings.num_generations}"
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
            nested = f"{field.name}." if field.name in ("cloning", "evolution") else ""
            found += _differences(old, new, nested)
        else:
            found.append((prefix + field.name.replace("_", "-"), old, new))
    return found


def _report(settings: DistillSettings, run: Run, directory: RunDirectory, result: Result, seconds: float) -> None:
    """Evaluates what the run left beside its zeros, draws it and prints it."""
    evaluations = _evaluate(settings, run, result)
    table = {name: tables.summary(evaluation) for name, evaluation in evaluations.items()}
    generations = int(result.state.generation)
    summary = {
        "out": str(directory.path),
        "env": run.env.name,
        "generations": generations,
        "best_generation": result.best_generation,
        "seconds": result.history[-1]["seconds"],
        "evaluations": table,
    }
    directory.write_summary(summary)
    title = f"{settings.settings.method} on {run.env.name}, N = {settings.settings.dataset_size}, seed {settings.seed}"
    references = {name: table[name]["mean"] for name in ("zero dataset", "untrained policy")}
    draw_curve(result.history, directory.curve, title, references)
    draw_dataset(result.best_dataset, directory.dataset_picture)
    print(tables.render(f"returns on fresh keys, {run.env.name}", evaluations))
    print(f"{generations} generations, {seconds:.1f} s; files in {directory.path}:")
    print(f"  best_dataset.npz (of generation {result.best_generation}), dataset.npz (the last),")
    print("  curve.png, dataset.png, metrics.jsonl, summary.json")
    if settings.json:
        print_json(summary)


def _evaluate(settings: DistillSettings, run: Run, result: Result) -> dict[str, Evaluation]:
    """Returns on keys that nothing was selected on."""
    key = jax.random.fold_in(jax.random.key(settings.seed), 2**32 - 4)
    evaluate = result.evaluator
    normalizer = result.dataset.normalizer()
    return {
        "best dataset": evaluate(key, result.best_dataset),
        "last dataset": evaluate(key, result.dataset),
        "zero dataset": evaluate(key, zero_dataset(result.dataset)),
        "untrained policy": evaluate.untrained(key, normalizer),
    }
