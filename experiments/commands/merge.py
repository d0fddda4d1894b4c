"""`hades merge`: one file out of several, that trains a policy for all their tasks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from experiments import tables
from experiments.arguments import parse, print_json, with_folder
from experiments.cli import BadArgumentsError
from experiments.cloning import over_own
from experiments.loading import load_dataset
from experiments.settings import OutputSettings
from hades._serialization import to_dict
from hades.inner.cloning import CloningSettings
from hades.multitask import merging as multitask


@dataclass(frozen=True, kw_only=True)
class MergeSettings(OutputSettings):
    """Merges dataset files into one that trains a policy for all their tasks, with no further interaction.

    Observations and actions are padded with zeros. Cloning flags that are not given are those of the first file,
    with 500 steps where it has fewer.
    """

    datasets: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Dataset files, run directories or zoo:NAME, two or more with the same kind of actions."""
    out: Path
    """Merged file to write."""
    shared_places: bool = False
    """Whether observations and actions of all tasks begin at the first place, as the paper pads, or each task has
    places of its own (of discrete actions never)."""
    task_one_hot: bool = False
    """Whether observations end with a one-hot that tells the task."""
    cloning: CloningSettings = CloningSettings()
    """Architecture and inner loop of the joint policy, kept in the file."""


def main(arguments: Sequence[str]) -> int:
    """Runs the verb and returns its exit code."""
    # Which settings the flags override is known only after the first file was read.
    first = parse(MergeSettings, "merge", arguments)
    if len(first.datasets) < 2:
        raise BadArgumentsError(f"expected two or more dataset files, got {len(first.datasets)}")
    loaded = [load_dataset(path) for path in first.datasets]
    own = multitask.joint_cloning(loaded[0][2].require_cloning())
    settings = over_own(MergeSettings, "merge", arguments, first, own)
    try:
        datasets = [dataset for _, dataset, _ in loaded]
        merged = multitask.merge(datasets, settings.cloning, settings.shared_places, settings.task_one_hot)
    except ValueError as error:
        named = re.sub(r"^datasets\[(\d+)\]", lambda match: str(loaded[int(match[1])][0]), str(error))
        raise BadArgumentsError(re.sub(r"^cloning\.", "--cloning.", named)) from None
    merged.save(with_folder(settings.out))
    assert merged.metadata is not None  # merge has set it
    joint = multitask.spaces(merged.metadata)
    tasks = joint.tasks
    rows = [
        (task.metadata.env, str(task.num_pairs), str(list(task.observation_shape)), str(task.action_dim))
        for task in tasks
    ]
    header = ("task", "pairs", "observation", "actions")
    print(tables.table(f"merged into {settings.out}, {merged.num_pairs} pairs", header, rows))
    if settings.json:
        names = [task.metadata.env for task in tasks]
        shape = list(merged.observations.shape)
        result = {"out": str(settings.out), "tasks": names, "pairs": merged.num_pairs, "observations": shape}
        result |= {"shared_places": joint.shared_places, "task_one_hot": joint.task_one_hot}
        print_json(result | {"cloning": to_dict(settings.cloning)})
    return 0
