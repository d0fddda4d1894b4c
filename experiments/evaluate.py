"""`hades evaluate`: returns on fresh keys, of a dataset, a run or a policy."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import jax
import tyro

from experiments import tables
from experiments.arguments import parse, print_json
from experiments.cli import BadArgumentsError
from experiments.settings import EvaluationSettings
from experiments.sources import check_dataset_fits, load_dataset, make_environment, outcome_file
from hades.evaluation import Evaluation, dataset_evaluator, evaluate, zero_dataset
from hades.policy_file import PolicyFileError, TrainedPolicy, is_policy_file
from hades.settings import ActionSelection, require_positive


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings(EvaluationSettings):
    """Scores a dataset file, the best dataset of a run directory, or a policy file, on fresh keys.

    A dataset trains freshly initialised policies, the way that it says itself, and each of them plays.
    """

    source: Annotated[Path, tyro.conf.Positional]
    """Dataset file, run directory, or policy file."""
    env: str | None = None
    """Environment to play in; none is the one that the file names."""
    num_inits: int = 16
    """Fresh policies that a dataset trains."""
    action_selection: ActionSelection | None = None
    """Whether policies act by a sample of their distribution or by its mode; none is as the file says."""
    baselines: bool = False
    """Also scores its zeros: the all-zero dataset and untrained policies."""

    def __post_init__(self) -> None:
        """Refuses counts that are not positive."""
        super().__post_init__()
        require_positive("num_inits", self.num_inits)


def main(arguments: Sequence[str]) -> int:
    """Runs the verb and returns its exit code."""
    settings = parse(EvaluateSettings, "evaluate", arguments)
    started = time.monotonic()
    settings = replace(settings, source=outcome_file(settings.source))
    evaluate_source = _evaluate_policy if is_policy_file(settings.source) else _evaluate_dataset
    source, env_name, evaluations = evaluate_source(settings)
    seconds = time.monotonic() - started
    main_evaluation = next(iter(evaluations.values()))
    print(tables.render(f"returns on fresh keys, {env_name}", evaluations))
    print(f"{source}, seed {settings.seed}, {seconds:.1f} s")
    if settings.json:
        result: dict[str, Any] = {**tables.summary(main_evaluation), "env": env_name, "source": str(source)}
        result |= {"seed": settings.seed, "seconds": seconds}
        result["baselines"] = {name: tables.summary(value) for name, value in list(evaluations.items())[1:]}
        print_json(result)
    return 0


def _evaluate_policy(settings: EvaluateSettings) -> tuple[Path, str, dict[str, Evaluation]]:
    if settings.baselines:
        raise BadArgumentsError("--baselines: expected a dataset or a run, got a policy file")
    trained = TrainedPolicy.load(settings.source)
    assert trained.metadata is not None  # a loaded policy has it
    metadata = trained.metadata
    env = make_environment(metadata, settings.env, settings.source)
    try:
        policy = trained.architecture(env)
    except PolicyFileError as error:
        if settings.env is None:
            raise PolicyFileError(f"{settings.source}: {error}") from None
        raise BadArgumentsError(f"--env: {error}") from None
    key = jax.random.key(settings.seed)
    selection = settings.action_selection or metadata.action_selection
    evaluation = evaluate(key, env, policy, trained.params, settings.num_episodes, selection)
    return settings.source, env.name, {"policy": evaluation}


def _evaluate_dataset(settings: EvaluateSettings) -> tuple[Path, str, dict[str, Evaluation]]:
    source, dataset, metadata = load_dataset(settings.source)
    if settings.action_selection:
        metadata = replace(metadata, action_selection=settings.action_selection)
        dataset = replace(dataset, metadata=metadata)
    env = make_environment(metadata, settings.env, source)
    check_dataset_fits(env, dataset, source, settings.env)
    if metadata.init_seed is not None:
        print(
            f"{source}: made for the one initialisation of seed {metadata.init_seed}, so all inits are the same",
            file=sys.stderr,
        )
    try:
        evaluator = dataset_evaluator(env, dataset, settings.num_inits, settings.num_episodes)
    except ValueError as error:
        raise BadArgumentsError(str(error)) from None
    key = jax.random.key(settings.seed)
    evaluations = {"dataset": evaluator(key, dataset)}
    if settings.baselines:
        evaluations["zero dataset"] = evaluator(key, zero_dataset(dataset))
        evaluations["untrained policy"] = evaluator.untrained(key, dataset.normalizer())
    return source, env.name, evaluations
