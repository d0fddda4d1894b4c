"""What a command is given by path: a dataset file, a run directory, or a policy file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import envs
from experiments.cli import BadArgumentsError
from hades.dataset import SyntheticDataset
from hades.metadata import DatasetMetadata
from hades.run_directory import RunDirectory
from hades.types import Environment


def load_dataset(path: Path) -> tuple[Path, SyntheticDataset, DatasetMetadata]:
    """The dataset at a path; of a run directory the best one.

    Returns:
        The file, the dataset, and its metadata.

    Raises:
        DatasetError: There is none, or it is malformed.
        RunDirectoryError: The folder is no run directory.
    """
    if path.is_dir():
        directory = RunDirectory(path)
        directory.read_config()
        path = directory.best_dataset if directory.best_dataset.exists() else directory.dataset
    dataset = SyntheticDataset.load(path)
    assert dataset.metadata is not None  # a loaded dataset has it
    return path, dataset, dataset.metadata


def make_environment(metadata: DatasetMetadata, name: str | None = None) -> Environment:
    """The environment of a file, or another one of the same spaces.

    Raises:
        BadArgumentsError: There is none of that name.
        ValueError: The file's own environment cannot be made.
    """
    if name is not None:
        try:
            return envs.make(name)
        except ValueError as error:
            raise BadArgumentsError(f"--env: {error}") from None
    options: dict[str, Any] = dict(metadata.env_options)
    return envs.make(metadata.env, **{"max_steps": metadata.max_episode_steps, **options})
