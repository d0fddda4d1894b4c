"""The subject of a page or film: a run directory, or a dataset, policy or teacher file, with its environment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.environments import environment_of_run, make_environment
from experiments.loading import check_dataset_fits, load_dataset, load_policy, outcome_file, zoo_name
from hades._run_directory import RunDirectory, RunDirectoryError
from hades.dataset import SyntheticDataset
from hades.metadata import FileMetadata
from hades.offline.teacher import Teacher, is_teacher_file
from hades.policy_file import TrainedPolicy, is_policy_file
from hades.types import AnyEnvironment


@dataclass(frozen=True)
class Subject:
    """A run or file, as far as it can be read.

    Attributes:
        name: Name of the folder or file.
        source: The path that was given.
        file: Dataset, policy or teacher file; None of a run without an outcome yet.
        directory: Run directory; None of a file.
        config: Settings of the run; empty of a file.
        metadata: Of the file; None of a teacher.
        dataset: Of a dataset file.
        policy: Of a policy file.
        teacher: Of a teacher file.
        env: Its environment; None where it cannot be made here.
        problem: Says why there is no environment or nothing that plays; empty where there is.
    """

    name: str
    source: Path
    file: Path | None = None
    directory: RunDirectory | None = None
    config: dict[str, Any] | None = None
    metadata: FileMetadata | None = None
    dataset: SyntheticDataset | None = None
    policy: TrainedPolicy | None = None
    teacher: Teacher | None = None
    env: AnyEnvironment | None = None
    problem: str = ""

    @property
    def env_name(self) -> str:
        """Name of the environment, or that it is not known."""
        named = self.metadata.env if self.metadata is not None else (self.config or {}).get("env")
        return str(named or "unknown environment")

    @property
    def method(self) -> str:
        """Method that made it, empty where none is named."""
        named = self.metadata.method if self.metadata is not None else (self.config or {}).get("method")
        return str(named or "")


def load_subject(path: Path) -> Subject:
    """Reads a run or file.

    Raises:
        DatasetError, PolicyFileError, TeacherError: The file is malformed, or there is none.
        RunDirectoryError: The folder is no run directory, or that of a run that has done nothing yet.
    """
    if not path.is_dir():
        return _of_file(outcome_file(path), {"name": zoo_name(path) or path.stem, "source": path}, {})
    name = path.resolve().name
    directory = RunDirectory(path)
    config = directory.read_config()
    known: dict[str, Any] = {"name": name, "source": path, "directory": directory, "config": config}
    file = outcome_file(path)
    if file.exists():
        return _of_file(file, known, config)
    if directory.last_row() is None:
        raise RunDirectoryError(f"{path}: expected a run that has done an iteration, found one without metrics")
    return Subject(**known, problem=f"{path} has no dataset, policy or teacher yet")


def _of_file(file: Path, known: dict[str, Any], config: dict[str, Any]) -> Subject:
    known = {**known, "file": file}
    if is_teacher_file(file):
        teacher = Teacher.load(file)
        return Subject(**known, teacher=teacher, **_environment_of_teacher(file, teacher, config))
    if is_policy_file(file):
        policy, metadata = load_policy(file)
        return Subject(**known, policy=policy, metadata=metadata, **_environment(file, metadata))
    _, dataset, metadata = load_dataset(file)
    return Subject(**known, dataset=dataset, metadata=metadata, **_environment(file, metadata, dataset))


def _environment(file: Path, metadata: FileMetadata, dataset: SyntheticDataset | None = None) -> dict[str, Any]:
    """The environment, or the problem."""
    try:
        env = make_environment(metadata, None, file)
        if dataset is not None:
            check_dataset_fits(env, dataset, file, None)
        metadata.require_cloning(str(file))
    except (ImportError, ValueError) as error:
        return {"problem": str(error)}
    if metadata.observation_normalization == "running":
        return {"problem": f"{file}: its observations are normalised by running statistics, which a film does not have"}
    return {"env": env}


def _environment_of_teacher(file: Path, teacher: Teacher, config: dict[str, Any]) -> dict[str, Any]:
    try:
        env = environment_of_run(config)
        if env is None:
            return {"problem": f"{file} is a teacher, which names no environment"}
        teacher.check_fits(env)
    except (ImportError, ValueError) as error:
        return {"problem": f"{file}: {error}"}
    return {"env": env}
