"""Starting, resuming and reporting a run: the part that every command that runs something has in common."""

from __future__ import annotations

import dataclasses
import re
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from experiments import tables
from experiments.arguments import expand, flag_value, parse, print_json
from experiments.cli import BadArgumentsError
from experiments.logging import check_extras, loggers
from experiments.measured import with_kept_arrays
from experiments.pictures import draw_curve, draw_dataset
from experiments.precision import matmul_precision
from experiments.presets import get_preset
from experiments.settings import PopulationRunSettings, RunSettings
from experiments.stopping import StopSignals
from experiments.void import refuse_void
from hades import multihost, recipes, sharding
from hades._run_directory import OtherRunError, RunDirectory, RunDirectoryError
from hades._serialization import from_dict, to_dict
from hades.evaluation import Evaluation
from hades.images import ImageDataError
from hades.keys import Stream, stream
from hades.multihost import MultihostSettings
from hades.offline import OfflineDataError, TeacherError
from hades.run import Run
from hades.training import Result, distill
from hades.tuning import CHUNK_SIZES, DoesNotFitError, Trial, tune_chunks

# What the library adds to a configuration beside the settings of the command.
_OF_THE_RUN = ("command", "method", "env_options", "arrays", "key")


def run_in_environment(settings: Any) -> Run[Any]:
    """The run of settings in the environment that they name."""
    env = settings.options.make(settings.env)
    return recipes.from_settings(env, settings.settings, mesh=settings.chosen_devices)


def on_one_device(settings: Any) -> Any:
    """Settings of a run that one device works on.

    Raises:
        BadArgumentsError: They ask for several, or for several processes.
    """
    if settings.hosts.multihost:
        raise BadArgumentsError("--multihost: expected none, as such a run works on one device of one process")
    if (settings.devices or 1) > 1:
        raise BadArgumentsError(f"--devices: expected 1, as such a run works on one device, got {settings.devices}")
    return settings


@dataclass(frozen=True)
class Command:
    """A command that starts a run, and its differences from the others.

    Attributes:
        name: Behind `hades`, such as `"baseline es"`.
        settings: Its settings.
        population: Label of the values of an iteration, of which pictures show mean and best.
        make_run: Makes the run that resolved settings describe; raises `ValueError` where one does not suit another.
        complete: Fills in settings that flags imply, such as the environment of a data file.
        draw: Draws the curve of a run; None draws none.
        needs_env: Whether a run has to have an environment.
        presets: Key of its presets in `PRESETS`; its name if None.
        divides_cpu: Whether it evaluates a population of small networks, which one device of a CPU gives one core.
        keeps_arrays: Whether a run goes on with the very arrays that it began with, which its directory keeps.
            Otherwise data are known by the checksums of their files.
    """

    name: str
    settings: type[RunSettings]
    population: str = "population (selection keys)"
    make_run: Callable[[Any], Run[Any]] = run_in_environment
    complete: Callable[[Any], Any] = lambda settings: settings
    draw: Callable[..., None] | None = draw_curve
    needs_env: bool = True
    presets: str | None = None
    divides_cpu: bool = False
    keeps_arrays: bool = False


def launch(command: Command, arguments: Sequence[str]) -> int:
    """Starts or resumes a run, plays it to its end or to a signal, and returns the exit code.

    Raises:
        BadArgumentsError: A flag is wrong, or contradicts the run that is to be resumed.
        OSError: The run directory cannot be written.
        ValueError: The run directory is not whole.
    """
    finished = run_command(command, resolve(command, arguments))
    return finished if isinstance(finished, int) else 0


def run_command(command: Command, settings: Any, given_out: Path | None = None) -> Result[Any] | int:
    """Runs resolved settings to the end, and reports; or returns the exit code of a signal that stopped them.

    Args:
        command: Command.
        settings: Settings of the run.
        given_out: What --out named, where that is not the run directory.
    """
    sharding.let_devices_wait()
    multihost.initialize(settings.hosts)
    divide_cpu(command, settings)
    with matmul_precision(settings.matmul_precision):
        return _run(command, settings, given_out or settings.out)


def _run(command: Command, settings: Any, given_out: Path) -> Result[Any] | int:
    directory = RunDirectory(settings.out)
    if isinstance(settings, PopulationRunSettings) and settings.tune_chunks and not directory.holds_run:
        settings = _with_tuned_chunks(settings, command)
    run = build(settings, command)
    check_extras(settings)
    if command.keeps_arrays:
        run = with_kept_arrays(run, directory)
    method = run.settings if type(run.settings) is type(settings.settings) else settings.settings
    here = {"out": None, "resume": False, "json": False, "hosts": MultihostSettings(), "devices": None}
    resolved = dataclasses.replace(settings, settings=method, **here)
    arrays = {} if command.keeps_arrays else {"arrays": None}
    started = time.monotonic()
    try:
        with StopSignals(f"hades {command.name}") as signals, loggers(settings, directory) as callbacks:
            result = distill(
                jax.random.key(settings.seed),
                run,
                settings.num_iterations,
                out=directory.path,
                loop=settings.loop,
                config={"command": command.name, **to_dict(resolved), **arrays},
                callbacks=callbacks,
                should_stop=signals.should_stop,
            )
    except OtherRunError as error:
        if error.field != "arrays":
            raise
        if directory.arrays.exists():
            raise RunDirectoryError(f"{directory.arrays}: expected the arrays that the run began with") from None
        given = getattr(settings, "statistics_of", None) is not None
        flag, what = ("--statistics-of", "statistics") if given else ("--num-codes", "components")
        raise BadArgumentsError(
            f"{flag}: the run in {directory.path} has other {what} than this machine measures; go on where it "
            "began, or choose another --out"
        ) from None
    if not result.finished:
        if not multihost.is_first():
            return signals.exit_code
        print(
            f"stopped at iteration {result.state.iteration} of {settings.num_iterations}; "
            f"go on with: hades {command.name} --out {shlex.quote(str(given_out))} --resume",
            file=sys.stderr,
        )
        return signals.exit_code
    _report(command, settings, run, directory, result, time.monotonic() - started)
    return result


def divide_cpu(command: Command, settings: Any) -> None:
    """Makes the CPU as many devices as `--devices` says, or one for each core where the command gains by it."""
    if not settings.hosts.multihost and (command.divides_cpu or settings.devices is not None):
        sharding.divide_cpu(settings.devices)


def _with_tuned_chunks(settings: Any, command: Command) -> Any:
    """Settings with measured sizes of chunks, of which stderr tells.

    Raises:
        BadArgumentsError: As of `build`, or no size fits.
    """

    def tell(text: str) -> None:
        if multihost.is_first():
            print(text, file=sys.stderr)

    def report(trial: Trial) -> None:
        took = "does not fit" if trial.seconds is None else f"{trial.seconds:.3g} s an iteration"
        tell(f"{_sizes(trial.sizes)}: {took}, {trial.num_bytes / 2**20:,.1f} MiB")

    def make_run(method: Any) -> Run[Any]:
        return build(dataclasses.replace(settings, settings=method), command)

    try:
        method = tune_chunks(settings.settings, make_run, report=report)
    except DoesNotFitError as error:
        raise BadArgumentsError(str(error)) from None
    chosen = {name: getattr(method, name) for name in CHUNK_SIZES if hasattr(method, name)}
    tell(f"chosen: {_sizes(chosen)}")
    return dataclasses.replace(settings, settings=method)


def _sizes(sizes: Mapping[str, int | None]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {'all' if size is None else size}" for name, size in sizes.items())


def build(settings: Any, command: Command) -> Run[Any]:
    """The run that resolved settings describe.

    Raises:
        BadArgumentsError: There is no environment, or a setting does not suit it.
        ImageDataError: A file of images is missing or malformed.
        OfflineDataError: The file of the data is.
        TeacherError: The file of the teacher is.
    """
    if not settings.env and command.needs_env:
        raise BadArgumentsError("--env: expected an environment, such as gymnax/CartPole-v1, or a --preset")
    try:
        run = command.make_run(settings)
    except (ImageDataError, OfflineDataError, TeacherError):
        # What a file holds is no fault of the arguments.
        raise
    except ValueError as error:
        raise BadArgumentsError(str(error)) from None
    if run.env is None and settings.loop.evaluate_every is not None:
        raise BadArgumentsError("--evaluate-every: expected an environment to evaluate in, got none")
    try:
        settings.loop.make_evaluators(run)
    except ValueError as error:
        raise BadArgumentsError(f"--{error}".replace("_", "-", 1)) from None
    return run


def resolve(command: Command, arguments: Sequence[str]) -> Any:
    """The settings of a run: flags over the run that is resumed, or over the preset, or over the defaults.

    Raises:
        BadArgumentsError: A flag is wrong, or contradicts the run that is to be resumed.
    """
    out = flag_value(arguments, "--out")
    if "--resume" in arguments and out and RunDirectory(expand(out)).holds_run:
        return _resolve_resumed(command, arguments, RunDirectory(expand(out)))
    settings = resolve_new(command, arguments)
    if RunDirectory(settings.out).holds_run:
        if settings.resume:
            # The folder that a run without --out has by itself.
            return _resolve_resumed(command, arguments, RunDirectory(settings.out))
        raise BadArgumentsError(f"--out: {settings.out} holds a run; go on with it by --resume, or choose another")
    return settings


def resolve_new(command: Command, arguments: Sequence[str]) -> Any:
    """The settings of a run that begins, whatever its folder holds: flags over the preset, or over the defaults.

    Raises:
        BadArgumentsError: A flag is wrong.
    """
    name = flag_value(arguments, "--preset")
    try:
        default = command.settings() if name is None else _from_preset(command, name)
    except ValueError as error:
        raise BadArgumentsError(f"--{error}") from None
    settings: Any = command.complete(parse(command.settings, command.name, arguments, default))
    refuse_void(arguments, settings.void_flags())
    if settings.out is None:
        settings = dataclasses.replace(settings, out=Path("runs") / _label(settings, default))
    return settings


def _label(settings: Any, default: RunSettings) -> str:
    """Name of the folder of a run that names none."""
    # A preset without an environment of its own is for any.
    whole = settings.preset and default.env is not None
    label = settings.preset if whole else "-".join(filter(None, (settings.env, settings.preset)))
    method = settings.settings.method
    # Presets are of HaDES-R, or have the method in their names.
    named = settings.preset and (method == "hades-r" or settings.preset.endswith(method.removeprefix("hades")))
    parts = (label, None if named else method, f"seed{settings.seed}")
    return re.sub(r"[^\w.-]+", "-", "-".join(filter(None, parts)))


def _from_preset(command: Command, name: str) -> RunSettings:
    preset = get_preset(command.presets or command.name, name)
    parts = {field.name: getattr(preset, field.name) for field in dataclasses.fields(preset)}
    default = command.settings()
    own = type(default.settings)  # type: ignore[attr-defined]
    if not isinstance(preset.settings, own):
        # The command's settings add names to those of the recipe.
        fields = {field.name: getattr(preset.settings, field.name) for field in dataclasses.fields(preset.settings)}
        parts["settings"] = own(**fields)
    return dataclasses.replace(default, preset=name, **parts)


def _resolve_resumed(command: Command, arguments: Sequence[str], directory: RunDirectory) -> RunSettings:
    config = directory.read_config()
    found = config.get("command")
    if found is None:
        raise BadArgumentsError(
            f"--out: {directory.path} holds a run that the library began; go on with it by hades.distill(..., out=...)"
        )
    if found != command.name:
        raise BadArgumentsError(
            f"--out: {directory.path} holds a run of `hades {found}`, expected one of {command.name}"
        )
    try:
        saved = from_dict(command.settings, {name: value for name, value in config.items() if name not in _OF_THE_RUN})
    except ValueError as error:
        raise RunDirectoryError(f"{directory.config}: {error}") from None
    settings = command.complete(parse(command.settings, command.name, arguments, saved))
    try:
        directory.check_same(to_dict(settings), to_dict(saved))
    except OtherRunError as error:
        if error.field.endswith("_checksum"):
            raise BadArgumentsError(_other_file(directory, settings, error)) from None
        flag = re.sub(r"^(loop|options)\.", "", error.field).replace("_", "-")
        raise BadArgumentsError(
            f"--{flag}: the run in {directory.path} has {_plain(error.saved)}, got {_plain(error.given)}; "
            f"choose another --out"
        ) from None
    refuse_void(arguments, settings.void_flags())
    last = directory.last_row()
    if last and settings.num_iterations < last["iteration"]:
        done = last["iteration"]
        raise BadArgumentsError(
            f"--num-iterations: the run in {directory.path} has done {done}, got {settings.num_iterations}"
        )
    return dataclasses.replace(settings, out=directory.path, resume=True)


def _other_file(directory: RunDirectory, settings: Any, error: OtherRunError) -> str:
    name = error.field.removesuffix("_checksum")
    file, flag = getattr(settings, name), name.replace("_", "-")
    found = "none" if file is None else f"{file} of checksum {error.given}"
    own = "none" if error.saved is None else f"a file of checksum {error.saved}"
    return f"--{flag}: the run in {directory.path} has {own}, got {found}; choose another --out"


def _plain(value: Any) -> str:
    return "none" if value is None else str(value)


def _report(
    command: Command, settings: Any, run: Run[Any], directory: RunDirectory, result: Result[Any], seconds: float
) -> None:
    """Evaluates the outcomes of a run beside its references, draws them and prints them."""
    evaluations, references = _evaluate(settings, result)
    name = run.env.name if run.env else "no environment"
    iterations, last = int(result.state.iteration), result.history[-1]
    summary = {
        "out": str(directory.path),
        "env": run.env.name if run.env else None,
        "iterations": iterations,
        "best_iteration": result.best_iteration,
        "best_score": result.best_score,
        "env_steps": last.get("total_env_steps"),
        "seconds": last["seconds"],
        "metrics": last,
        "evaluations": {label: tables.summary(evaluation, name) for label, evaluation in evaluations.items()},
    }
    if not multihost.is_first():
        return
    directory.write_summary(summary)
    pictures = _draw(command, settings, name, directory, result, references)
    if evaluations:
        print(tables.on_fresh_keys(evaluations, name))
    print(f"{iterations} iterations, {seconds:.1f} s, {run.status(last)}; files in {directory.path}:")
    best = f"best_{result.kind}.npz (of iteration {result.best_iteration}), " if evaluations else ""
    print(f"  {best}{result.kind}.npz (the last), {', '.join((*pictures, 'metrics.jsonl', 'summary.json'))}")
    if settings.json:
        print_json(summary)


def _evaluate(settings: Any, result: Result[Any]) -> tuple[dict[str, Evaluation], dict[str, Evaluation]]:
    """Evaluations on keys that selected nothing, and the references among them; none where none are asked for."""
    if result.evaluator is None or settings.loop.evaluate_every is None:
        return {}, {}
    key = stream(jax.random.key(settings.seed), Stream.REPORT)
    references = result.evaluator.references(key, result.outcome)
    own = {
        f"best {result.kind}": result.evaluator(key, result.best_outcome),
        f"last {result.kind}": result.evaluator(key, result.outcome),
    }
    return own | references, references


def _draw(
    command: Command,
    settings: Any,
    env: str,
    directory: RunDirectory,
    result: Result[Any],
    references: dict[str, Evaluation],
) -> list[str]:
    """Draws the pictures of a run, and returns their names."""
    names = []
    distils = result.kind == "dataset"
    if command.draw is not None:
        size = f", N = {result.dataset.num_pairs}" if distils else ""
        title = f"{settings.settings.method} on {env}{size}, seed {settings.seed}"
        lines = {label: evaluation.mean for label, evaluation in references.items()}
        outcome = "mean dataset" if distils else "policy"
        command.draw(result.history, directory.curve, title, lines, command.population, outcome)
        names.append("curve.png")
    if distils:
        draw_dataset(result.best_dataset, directory.dataset_picture)
        names.append("dataset.png")
    return names
