"""`hades train`: a policy of any architecture from a dataset file, in about a second."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import jax
import tyro

from experiments import tables
from experiments.arguments import parse, print_json
from experiments.cli import BadArgumentsError
from experiments.environments import make_task_environments
from experiments.loading import check_dataset_fits, load_dataset, with_loss
from experiments.settings import EvaluationSettings
from experiments.void import optimizer_flags, refuse_void
from hades.inner import cloning
from hades.inner.cloning import CloningSettings
from hades.keys import Stream, stream
from hades.multitask.merging import is_merged
from hades.policy_file import TrainedPolicy

_OPTIMIZER = ("optimizer", "num_steps", "momentum", "step_sizes")


@dataclass(frozen=True, kw_only=True)
class TrainSettings(EvaluationSettings):
    """Trains a policy on a dataset file and plays with it. Cloning flags that are not given are those of the file."""

    dataset: Annotated[Path, tyro.conf.Positional]
    """Dataset file, or run directory."""
    env: str | None = None
    """Environment to play in; default: the one that the file names."""
    out: Path | None = None
    """Policy file to write; default: beside the dataset, with policy in its name."""
    num_episodes: int = 64
    """Episodes that the policy plays."""
    cloning: CloningSettings = CloningSettings()
    """Architecture and inner loop."""


def main(arguments: Sequence[str]) -> int:
    """Runs the verb and returns its exit code."""
    # Which settings the flags override is known only after the file was read: the first pass finds the file.
    first = parse(TrainSettings, "train", arguments)
    source, dataset, metadata = load_dataset(first.dataset)
    own = metadata.require_cloning()
    settings = parse(TrainSettings, "train", arguments, dataclasses.replace(first, cloning=own))
    if own.step_sizes == "learned" and any(
        getattr(settings.cloning, name) != getattr(own, name) for name in _OPTIMIZER
    ):
        # Step sizes belong to their optimiser and number of steps.
        settings = parse(TrainSettings, "train", arguments, dataclasses.replace(first, cloning=own.with_fixed_steps))
    refuse_void(arguments, optimizer_flags("cloning", settings.cloning))
    settings = dataclasses.replace(settings, cloning=with_loss(settings.cloning, own))
    tasks = make_task_environments(metadata, settings.env, source)
    if not is_merged(metadata):
        check_dataset_fits(tasks.environments[0], dataset, source, settings.env)
    try:
        clone = cloning.from_settings(tasks.spaces, settings.cloning)
    except ValueError as error:
        raise BadArgumentsError(str(error)) from None
    # A HaDES-F dataset belongs to one initialisation, as long as the architecture is its own.
    init_seed = metadata.init_seed if settings.cloning == own else None
    key = jax.random.key(settings.seed)
    clone_key = stream(key, Stream.INIT) if init_seed is None else jax.random.key(init_seed)
    train = jax.jit(clone).lower(clone_key, dataset).compile()
    started = time.monotonic()
    params = jax.block_until_ready(train(clone_key, dataset))
    seconds = time.monotonic() - started
    out = settings.out or source.with_name(f"{source.stem}_policy.npz")
    TrainedPolicy(params, dataclasses.replace(metadata, cloning=settings.cloning, evaluation=None)).save(out)
    evaluations = tasks.evaluate(stream(key, Stream.REPORT), clone.policy, params, settings.num_episodes)
    print(tables.render(f"return of the policy, {tasks.spaces.name}", evaluations))
    print(f"trained in {seconds:.3f} s (compiled), written to {out}")
    if settings.json:
        print_json({**tasks.summary(evaluations), "out": str(out), "train_seconds": seconds})
    return 0
