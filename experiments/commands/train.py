"""`hades train`: a policy of any architecture from a dataset file, in about a second."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import jax
import tyro

from experiments import tables
from experiments.arguments import parse, print_json, with_folder
from experiments.cloning import CloneSettings, clone_dataset
from experiments.loading import file_beside
from experiments.settings import EvaluationSettings
from hades.keys import Stream, stream


@dataclass(frozen=True, kw_only=True)
class TrainSettings(CloneSettings, EvaluationSettings):
    """Trains a policy on a dataset file and plays with it. Cloning flags that are not given are those of the file."""

    dataset: Annotated[Path, tyro.conf.Positional]
    """Dataset file, run directory, or zoo:NAME."""
    out: Path | None = None
    """Policy file to write; default: beside the dataset (of the zoo, here), with policy in its name."""
    num_episodes: int = 64
    """Episodes that the policy plays."""


def main(arguments: Sequence[str]) -> int:
    """Runs the verb and returns its exit code."""
    first = parse(TrainSettings, "train", arguments)
    settings, clone = clone_dataset(TrainSettings, "train", arguments, first, first.dataset)
    out = settings.out or file_beside(settings.dataset, "_policy.npz")
    clone.trained.save(with_folder(out))
    key = stream(jax.random.key(settings.seed), Stream.REPORT)
    tasks = clone.tasks
    evaluations = tasks.evaluate(key, clone.policy, clone.trained.params, settings.num_episodes)
    print(tables.render(f"return of the policy, {tasks.spaces.name}", evaluations))
    print(f"trained in {clone.seconds:.3f} s (compiled), written to {out}")
    if settings.json:
        print_json({**tasks.summary(evaluations), "out": str(out), "train_seconds": clone.seconds})
    return 0
