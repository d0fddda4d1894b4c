"""What `hades offline` is given by path: data files, and the simulator that they were collected in."""

from __future__ import annotations

import zlib
from pathlib import Path

import envs
from experiments.cli import BadArgumentsError
from experiments.settings import EnvironmentOptions
from hades.offline import d4rl
from hades.types import AnyEnvironment

_BLOCK = 1 << 20


def environment_name(data: Path, name: str | None) -> str:
    """What `--env` names, or the environment that a data file names.

    Raises:
        BadArgumentsError: Neither names one.
        OfflineDataError: There is no such file, or it is not HDF5.
    """
    # Read also where a name is given: a file that is none is told before anything else.
    own = d4rl.env_name(data)
    name = name or own
    if name is None:
        raise BadArgumentsError(f"--env: {data} does not name its environment, expected one")
    return name


def environment_of(data: Path, name: str | None, options: EnvironmentOptions) -> AnyEnvironment:
    """The environment of a data file, made the way it was for collecting, or the one that flags name.

    Args:
        data: HDF5 file.
        name: What `--env` names; None is the file's own environment.
        options: Flags, which go before what the file says.

    Raises:
        BadArgumentsError: Neither names an environment, or there is none of that name and options.
        OfflineDataError: There is no such file, or it is not HDF5.
    """
    name = environment_name(data, name)
    kept = d4rl.load_attributes(data).get("env_options") if name == d4rl.env_name(data) else None
    try:
        return envs.make(name, **{**(kept or {}), **options.given()})
    except (TypeError, ValueError) as error:
        raise BadArgumentsError(f"--env: {error}") from None


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
