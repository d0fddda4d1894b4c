"""Dataset files that benchmarks train other policies on."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from experiments.cli import BadArgumentsError
from experiments.environments import make_environment
from experiments.loading import check_dataset_fits, load_dataset
from experiments.settings import EvaluationSettings
from hades.dataset import SyntheticDataset
from hades.evaluation import DatasetEvaluator, dataset_evaluator
from hades.inner import cloning
from hades.inner.cloning import CloningSettings
from hades.metadata import FileMetadata
from hades.types import AnyEnvironment


@dataclass(frozen=True, kw_only=True)
class TrainingSettings(EvaluationSettings):
    """Settings of policies that are trained on dataset files and evaluated on fresh keys."""

    num_inits: int = 8
    """Fresh policies of each evaluation."""


@dataclass(frozen=True, kw_only=True)
class FilesSettings(TrainingSettings):
    """The same settings, for several files."""

    files: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Dataset files, or run directories."""

    def __post_init__(self) -> None:
        """Refuses also no file."""
        super().__post_init__()
        if not self.files:
            raise ValueError("files: expected at least one dataset file or run directory, got none")


@dataclass(frozen=True)
class DatasetFile:
    """A dataset file, and the environment that its policies play in.

    Attributes:
        source: Path of the file.
        dataset: Its dataset, with metadata.
        metadata: These metadata.
        env: Environment.
    """

    source: Path
    dataset: SyntheticDataset
    metadata: FileMetadata
    env: AnyEnvironment

    @property
    def own(self) -> CloningSettings:
        """Inner loop that the file describes."""
        return self.metadata.require_cloning()

    def evaluator(
        self, settings: TrainingSettings, cloned: CloningSettings | None = None, fresh: bool = True, ensemble: int = 1
    ) -> DatasetEvaluator:
        """Evaluation of policies that are trained on the file.

        Args:
            settings: Inits and episodes.
            cloned: Inner loop; the file's own if None.
            fresh: Whether initialisations are drawn also where the file keeps one (HaDES-F).
            ensemble: Policies that act together.

        Raises:
            BadArgumentsError: Inits or episodes do not suit the file.
        """
        metadata = dataclasses.replace(self.metadata, init_seed=None) if fresh else self.metadata
        dataset = dataclasses.replace(self.dataset, metadata=metadata)
        inner = cloning.from_settings(self.env, cloned or self.own)
        try:
            return dataset_evaluator(
                self.env, dataset, settings.num_inits, settings.num_episodes, inner, ensemble=ensemble
            )
        except ValueError as error:
            raise BadArgumentsError(f"{self.source}: {error}") from None


def read_file(path: Path, env: str | None = None) -> DatasetFile:
    """Reads a dataset file, or the best dataset of a run directory.

    Args:
        path: File or run directory.
        env: Environment to play in; None is the file's own.

    Raises:
        BadArgumentsError: There is no such environment, or the dataset does not suit it.
        DatasetError: There is no dataset, or it is malformed.
        RunDirectoryError: The folder is no run directory.
    """
    source, dataset, metadata = load_dataset(path)
    environment = make_environment(metadata, env, source)
    check_dataset_fits(environment, dataset, source, env)
    return DatasetFile(source, dataset, metadata, environment)
