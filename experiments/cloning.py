"""Policies that dataset files train: flags over the settings of a file; what `train` and `export` have in common."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax

from experiments.arguments import parse
from experiments.cli import BadArgumentsError
from experiments.environments import TaskEnvironments, make_task_environments
from experiments.loading import check_dataset_fits, load_dataset, with_loss
from experiments.settings import SeededSettings
from experiments.void import optimizer_flags, refuse_void
from hades.inner import cloning
from hades.inner.cloning import CloningSettings
from hades.keys import Stream, stream
from hades.multitask.merging import is_merged
from hades.policies import Policy, PolicySpaces
from hades.policy_file import TrainedPolicy

_OPTIMIZER = ("optimizer", "num_steps", "momentum", "step_sizes")


@dataclass(frozen=True, kw_only=True)
class CloneSettings(SeededSettings):
    """Settings of the training of a policy on a dataset file."""

    env: str | None = None
    """Environment of the policy; default: the one that the file names."""
    cloning: CloningSettings = CloningSettings()
    """Architecture and inner loop."""


S = TypeVar("S")
T = TypeVar("T", bound=CloneSettings)


def over_own(kind: type[S], verb: str, arguments: Sequence[str], first: S, own: CloningSettings) -> S:
    """Settings whose `cloning` is that of a file where flags do not say otherwise; stderr tells what they leave out.

    Args:
        kind: Dataclass of the settings.
        verb: Words behind `hades`.
        arguments: Arguments of the command.
        first: The settings that a first reading gave, which found the file.
        own: Cloning settings of the file.

    Raises:
        BadArgumentsError: A flag is void beside others, or the loss is for the other kind of actions.
    """
    settings: Any = parse(kind, verb, arguments, _with(first, own))
    if own.step_sizes == "learned" and any(
        getattr(settings.cloning, name) != getattr(own, name) for name in _OPTIMIZER
    ):
        # Step sizes belong to their optimiser and number of steps.
        settings = parse(kind, verb, arguments, _with(first, own.with_fixed_steps))
        print(
            f"left out: the learned step sizes of the file, which are of {own.num_steps} steps of {own.optimizer}; "
            f"trained by {settings.cloning.num_steps} steps of {settings.cloning.optimizer}",
            file=sys.stderr,
        )
    refuse_void(arguments, optimizer_flags("cloning", settings.cloning))
    return _with(settings, with_loss(settings.cloning, own))


def _with(settings: Any, cloning: CloningSettings) -> Any:
    return dataclasses.replace(settings, cloning=cloning)


class Clone(NamedTuple):
    """A policy that a dataset file trained.

    Attributes:
        source: The file.
        trained: The policy, as it is written.
        policy: Its architecture.
        tasks: Environments of the file.
        seconds: Duration of the training, compiled.
    """

    source: Path
    trained: TrainedPolicy
    policy: Policy
    tasks: TaskEnvironments
    seconds: float


def clone_dataset(kind: type[T], verb: str, arguments: Sequence[str], first: T, path: Path) -> tuple[T, Clone]:
    """Trains a policy on a dataset file, whose own settings are the defaults of the flags.

    Args:
        kind: Settings of the verb.
        verb: Name of the verb.
        arguments: Its arguments.
        first: Settings that they stand for as long as the file is not read.
        path: Dataset file or run directory.

    Returns:
        The settings that the arguments stand for, and the policy.

    Raises:
        BadArgumentsError: A flag does not suit the file, or is without effect.
        ValueError: The file is malformed, was made with an inner loop that no settings describe, or its environment
            cannot be made.
    """
    source, dataset, metadata = load_dataset(path)
    own = metadata.require_cloning()
    settings = over_own(kind, verb, arguments, first, own)
    tasks = make_task_environments(metadata, settings.env, source)
    if not is_merged(metadata):
        check_dataset_fits(tasks.environments[0], dataset, source, settings.env)
    try:
        inner = cloning.from_settings(tasks.spaces, settings.cloning)
    except ValueError as error:
        raise BadArgumentsError(str(error)) from None
    # A HaDES-F dataset belongs to one initialisation, of its own architecture.
    init_seed = metadata.init_seed if settings.cloning.network_settings == own.network_settings else None
    seeded = stream(jax.random.key(settings.seed), Stream.INIT) if init_seed is None else jax.random.key(init_seed)
    train = jax.jit(inner).lower(seeded, dataset).compile()
    started = time.monotonic()
    params = jax.block_until_ready(train(seeded, dataset))
    seconds = time.monotonic() - started
    metadata = dataclasses.replace(metadata, cloning=settings.cloning, evaluation=None, init_seed=init_seed)
    trained = TrainedPolicy(params, metadata, PolicySpaces.of(tasks.spaces))
    return settings, Clone(source, trained, inner.policy, tasks, seconds)
