"""`hades evaluate`: returns on fresh keys, of a dataset, a run or a policy."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import jax
import tyro

from experiments import tables
from experiments.arguments import parse, print_json
from experiments.cli import BadArgumentsError
from experiments.environments import environment_of_run, make_environment, make_named, make_task_environments
from experiments.loading import architecture, check_dataset_fits, load_dataset, load_policy, outcome_file
from experiments.settings import EvaluationSettings, first_devices
from hades._files import refusing
from hades._run_directory import RunDirectory
from hades.dataset import SyntheticDataset
from hades.distributions import ActionSelection
from hades.evaluation import dataset_evaluator, evaluate
from hades.metadata import FileMetadata
from hades.multitask.evaluation import evaluate_tasks
from hades.multitask.merging import is_merged
from hades.normalization import PolicyParams
from hades.offline.teacher import Teacher, TeacherError, is_teacher_file, teacher_policy
from hades.policy_file import is_policy_file
from hades.sharding import divide_cpu, population_mesh
from hades.types import AnyEnvironment


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings(EvaluationSettings):
    """Scores a dataset, policy or teacher file, or the best one of a run directory, on fresh keys.

    A dataset trains freshly initialised policies, the way that it says itself, and each of them plays. A merged file is
    scored task by task, beside policies that are trained on the pairs of the task alone, and its mean is the fraction
    that is kept: (joint - zero dataset) / (single - zero dataset), averaged over tasks.
    """

    source: Annotated[Path, tyro.conf.Positional]
    """Dataset file, run directory, policy file, teacher file, or zoo:NAME."""
    env: str | None = None
    """Environment to play in; default: the one that the file names, or of a teacher the one of its run directory."""
    num_inits: int = 16
    """Fresh policies that a dataset trains."""
    action_selection: ActionSelection | None = None
    """Whether policies act by a sample of their distribution or by its mode; default: as the file says, for a teacher
    its mode."""
    ensemble: int = 1
    """Policies that act together, by the mean of their actions: a dataset trains as many for each of the inits."""
    baselines: bool = False
    """Also scores its zeros: the all-zero dataset and untrained policies; of a merged file they are always scored."""
    devices: int | None = None
    """Devices that the policies of a dataset are spread over, the first of those that JAX has; default: one. A CPU is
    made as many."""

    def __post_init__(self) -> None:
        """Refuses counts that are not positive."""
        super().__post_init__()
        self.require_positive("num_inits", "ensemble", "devices")


def main(arguments: Sequence[str]) -> int:
    """Runs the verb and returns its exit code."""
    settings = parse(EvaluateSettings, "evaluate", arguments)
    started = time.monotonic()
    if settings.devices is not None:
        divide_cpu(settings.devices)
    folder, settings = settings.source, replace(settings, source=outcome_file(settings.source))
    if is_policy_file(settings.source):
        text, result = _evaluate_policy(settings)
    elif is_teacher_file(settings.source):
        text, result = _evaluate_teacher(settings, _environment_of_teacher(settings, folder))
    else:
        _, dataset, metadata = load_dataset(settings.source)
        evaluate_dataset = _evaluate_merged if is_merged(metadata) else _evaluate_dataset
        text, result = evaluate_dataset(settings, dataset, metadata)
    seconds = time.monotonic() - started
    print(text)
    print(f"{settings.source}, seed {settings.seed}, {seconds:.1f} s")
    if settings.json:
        print_json({**result, "source": str(settings.source), "seed": settings.seed, "seconds": seconds})
    return 0


_Report: TypeAlias = tuple[str, dict[str, Any]]
"""Result of an evaluation for a person, and the same as an object."""


def _require_dataset(settings: EvaluateSettings, found: str) -> None:
    """Refuses flags that need a dataset, where another file was found."""
    names = ("baselines", "devices", "ensemble", "num_inits")
    _require_none(settings, names, f"expected a dataset or a run of hades distill, got {found}")


def _require_none(settings: EvaluateSettings, names: Sequence[str], reason: str) -> None:
    for name in names:
        if getattr(settings, name) != getattr(EvaluateSettings, name):
            raise BadArgumentsError(f"--{name.replace('_', '-')}: {reason}")


def _evaluate_policy(settings: EvaluateSettings) -> _Report:
    _require_dataset(settings, "a policy")
    trained, metadata = load_policy(settings.source)
    tasks = make_task_environments(metadata, settings.env, settings.source)
    policy = architecture(trained, tasks.spaces, settings.source, settings.env)
    key = jax.random.key(settings.seed)
    evaluations = tasks.evaluate(key, policy, trained.params, settings.num_episodes, settings.action_selection)
    text = tables.on_fresh_keys(evaluations, tasks.spaces.name)
    return text, {**tasks.summary(evaluations), "baselines": {}}


def _environment_of_teacher(settings: EvaluateSettings, folder: Path) -> AnyEnvironment:
    """The environment of the flags, or that of the teacher's run directory."""
    if settings.env is not None:
        return make_named(settings.env)
    config = RunDirectory(folder).read_config() if folder.is_dir() else {}
    with refusing("--env", BadArgumentsError):
        env = environment_of_run(config)
    if env is None:
        raise BadArgumentsError(f"--env: expected an environment, as {settings.source} is a teacher and names none")
    return env


def _evaluate_teacher(settings: EvaluateSettings, env: AnyEnvironment) -> _Report:
    _require_dataset(settings, "a teacher")
    teacher = Teacher.load(settings.source)
    try:
        teacher.check_fits(env)
    except TeacherError as error:
        raise BadArgumentsError(f"--env: {settings.source}: {error}") from None
    selection = settings.action_selection or "mode"
    key = jax.random.key(settings.seed)
    evaluation = evaluate(key, env, teacher_policy, PolicyParams(teacher), settings.num_episodes, selection)
    text = tables.on_fresh_keys({"teacher": evaluation}, env.name)
    return text, {**tables.summary(evaluation, env.name), "env": env.name, "baselines": {}}


def _evaluate_merged(settings: EvaluateSettings, dataset: SyntheticDataset, metadata: FileMetadata) -> _Report:
    _require_none(settings, ("devices", "ensemble"), "expected a dataset of a single task, got a merged one")
    tasks = make_task_environments(metadata, settings.env, settings.source)
    try:
        scores = evaluate_tasks(
            jax.random.key(settings.seed),
            tasks.environments,
            dataset,
            settings.num_inits,
            settings.num_episodes,
            action_selection=settings.action_selection,
        )
    except ValueError as error:
        raise BadArgumentsError(str(error)) from None
    named = dict(zip(tasks.names, scores, strict=True))
    text = tables.render_tasks("returns on fresh keys, merged file", named)
    return text, tables.summary_tasks([env.name for env in tasks.environments], scores)


def _evaluate_dataset(settings: EvaluateSettings, dataset: SyntheticDataset, metadata: FileMetadata) -> _Report:
    source = settings.source
    if settings.action_selection:
        metadata = replace(metadata, action_selection=settings.action_selection)
        dataset = replace(dataset, metadata=metadata)
    metadata.require_cloning(str(source))
    env = make_environment(metadata, settings.env, source)
    check_dataset_fits(env, dataset, source, settings.env)
    if metadata.init_seed is not None:
        print(
            f"{source}: made for the one initialisation of seed {metadata.init_seed}, so all inits are the same",
            file=sys.stderr,
        )
    try:
        mesh = None if settings.devices is None else population_mesh(first_devices(settings.devices))
        evaluator = dataset_evaluator(
            env, dataset, settings.num_inits, settings.num_episodes, ensemble=settings.ensemble, mesh=mesh
        )
    except ValueError as error:
        raise BadArgumentsError(str(error)) from None
    key = jax.random.key(settings.seed)
    evaluation = evaluator(key, dataset)
    baselines = evaluator.references(key, dataset) if settings.baselines else {}
    text = tables.on_fresh_keys({"dataset": evaluation, **baselines}, env.name)
    result = {**tables.summary(evaluation, env.name), "env": env.name, "ensemble": settings.ensemble}
    references = {name: tables.summary(it, env.name) for name, it in baselines.items()}
    return text, result | {"baselines": references}
