"""Loading of what a command is given by path: a dataset, policy or teacher file, a run directory, or offline data.

`zoo:NAME` is the path of a dataset that comes with the package.
"""

from __future__ import annotations

import dataclasses
import zlib
from pathlib import Path

from experiments.cli import BadArgumentsError
from experiments.environments import make_environment
from hades import zoo
from hades._files import refusing
from hades._run_directory import RunDirectory
from hades.dataset import DatasetError, SyntheticDataset
from hades.evaluation import check_fits
from hades.inner.cloning import CloningSettings
from hades.metadata import FileMetadata
from hades.multitask import merging as multitask
from hades.offline.spaces import DataSpaces
from hades.offline.teacher import PolicyTeacher, Teacher, is_teacher_file
from hades.policies import NamedSpaces, Policy
from hades.policy_file import PolicyFileError, TrainedPolicy, is_policy_file
from hades.types import AnyEnvironment

ZOO_PREFIX = "zoo:"
"""Beginning of the paths of datasets that come with the package."""
_BLOCK = 1 << 20


def zoo_name(path: Path) -> str | None:
    """The name in the zoo that a path stands for, None where it is another one."""
    text = str(path)
    return text.removeprefix(ZOO_PREFIX) if text.startswith(ZOO_PREFIX) else None


def outcome_file(path: Path) -> Path:
    """The file that a path stands for: of a run directory the best outcome, or the last where no best is yet.

    Raises:
        BadArgumentsError: There is none of that name in the zoo.
        RunDirectoryError: The folder is no run directory.
    """
    if (name := zoo_name(path)) is not None:
        try:
            return zoo.path(name)
        except ValueError as error:
            raise BadArgumentsError(str(error)) from None
    if not path.is_dir():
        return path
    directory = RunDirectory(path)
    directory.read_config()
    files = (
        directory.best_dataset,
        directory.dataset,
        directory.best_policy,
        directory.policy,
        directory.best_teacher,
        directory.teacher,
    )
    return next((file for file in files if file.exists()), directory.dataset)


def load_dataset(path: Path) -> tuple[Path, SyntheticDataset, FileMetadata]:
    """The dataset at a path; of a run directory the best one.

    Returns:
        The file, the dataset, and its metadata.

    Raises:
        BadArgumentsError: There is none of that name in the zoo.
        DatasetError: There is none, or it is malformed.
        RunDirectoryError: The folder is no run directory.
    """
    path = outcome_file(path)
    dataset = SyntheticDataset.load(path)
    assert dataset.metadata is not None  # a loaded dataset has it
    if multitask.is_merged(dataset.metadata):
        try:
            multitask.split(dataset)
        except ValueError as error:
            raise DatasetError(f"{path}: {error}") from None
    return path, dataset, dataset.metadata


def file_beside(path: Path, ending: str) -> Path:
    """Default file of what is made of the outcome at a path: beside it, of the zoo in the working directory.

    Args:
        path: File, run directory, or `zoo:NAME`.
        ending: What the name of the outcome, without its suffix, is followed by, such as `"_policy.npz"`.
    """
    file = outcome_file(path)
    beside = file.with_name(f"{file.stem}{ending}")
    return beside if zoo_name(path) is None else Path(beside.name)


def load_policy(path: Path) -> tuple[TrainedPolicy, FileMetadata]:
    """The policy of a file, and its metadata.

    Raises:
        PolicyFileError: It is not a policy file, or a parameter is not finite.
    """
    trained = TrainedPolicy.load(path)
    assert trained.metadata is not None  # a loaded policy has it
    return trained, trained.metadata


def architecture(trained: TrainedPolicy, env: NamedSpaces, source: Path, name: str | None) -> Policy:
    """The architecture of a policy file, for the spaces of an environment.

    Args:
        trained: Policy of the file.
        env: Environment of the file, or the one that the arguments name.
        source: Its file.
        name: The environment that the arguments asked for, None where it is that of the file.

    Raises:
        BadArgumentsError: It does not suit the environment that the arguments asked for.
        PolicyFileError: It does not suit its own environment.
    """
    try:
        return trained.architecture(env)
    except ValueError as error:
        if name is None:
            raise PolicyFileError(f"{source}: {error}") from None
        raise BadArgumentsError(f"--env: {source}: {error}") from None


def load_teacher(path: Path, env: AnyEnvironment) -> Teacher | PolicyTeacher:
    """The teacher of a file: one with action values, or any policy.

    Raises:
        BadArgumentsError: The policy does not fit the environment.
        TeacherError: It is neither.
    """
    if is_teacher_file(path) or not is_policy_file(path):
        return Teacher.load(path)
    trained, metadata = load_policy(path)
    with refusing(f"--teacher: {path}", BadArgumentsError):
        # Its own bounds, which its actions are squashed into, may be others than those of `env`.
        spaces = env if isinstance(env, DataSpaces) else make_environment(metadata, None, path)
        return PolicyTeacher(trained.architecture(spaces), trained.params, spaces)


def check_dataset_fits(env: AnyEnvironment, dataset: SyntheticDataset, source: Path, name: str | None) -> None:
    """Refuses a dataset that does not have the shapes of the environment.

    Args:
        env: Environment of the file, or the one that the arguments name.
        dataset: Dataset of the file.
        source: Its file.
        name: The environment that the arguments asked for, None where it is that of the file.

    Raises:
        BadArgumentsError: It does not suit the environment that the arguments asked for.
        DatasetError: It does not suit its own environment.
    """
    try:
        check_fits(env, dataset)
    except ValueError as error:
        if name is not None:
            raise BadArgumentsError(f"--{error}") from None
        raise DatasetError(f"{source}: {error}") from None


def with_loss(cloning: CloningSettings, own: CloningSettings) -> CloningSettings:
    """Takes the file's own loss where none was asked for, and refuses one for the other kind of actions.

    Raises:
        BadArgumentsError: It is for the other kind.
    """
    loss = cloning.loss or own.loss
    if (loss == "cross_entropy") != (own.loss == "cross_entropy"):
        expected = "cross_entropy" if own.loss == "cross_entropy" else "gaussian_nll, mse or sampled_mse"
        raise BadArgumentsError(f"--cloning.loss: expected {expected} for the actions of the file, got {loss}")
    return dataclasses.replace(cloning, loss=loss)


def checksum(path: Path) -> str:
    """CRC-32 of the bytes of a file.

    Raises:
        OSError: It cannot be read.
    """
    total = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            total = zlib.crc32(block, total)
    return f"{total:08x}"
