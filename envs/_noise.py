"""Silences the known messages and warnings of simulators as they load and trace, and nothing else."""

from __future__ import annotations

import contextlib
import io
import re
import sys
import warnings
from collections.abc import Iterator

_PRINTED = re.compile(r"Failed to import (warp|mujoco_warp): ")
_DEPRECATED_TOTAL_MASS = "compiler attribute 'settotalmass' is deprecated"


@contextlib.contextmanager
def quiet_import() -> Iterator[None]:
    """Silences jaxopt's DeprecationWarning, and MJX printing that the optional warp is missing."""
    printed = io.StringIO()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(printed):
            warnings.filterwarnings("ignore", "JAXopt is no longer maintained", DeprecationWarning)
            yield
    finally:
        for line in printed.getvalue().splitlines(keepends=True):
            if not _PRINTED.match(line):
                sys.stdout.write(line)


@contextlib.contextmanager
def quiet_load() -> Iterator[None]:
    """Silences brax's notice that it is not maintained, and MuJoCo's about an attribute of brax's own half cheetah."""
    with quiet_mujoco(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Brax System, piplines and environments are not actively", UserWarning)
        yield


@contextlib.contextmanager
def quiet_gymnasium() -> Iterator[None]:
    """Silences gymnasium's notice that -v4 is not the newest version, and MuJoCo's about an attribute of its models."""
    with quiet_mujoco(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r".*The environment \S+-v4 is out of date", DeprecationWarning)
        yield


@contextlib.contextmanager
def quiet_mujoco() -> Iterator[None]:
    """Silences MuJoCo's notice of a deprecated attribute, for which it would also leave a file `MUJOCO_LOG.TXT`."""
    try:
        import mujoco
    except ModuleNotFoundError:
        yield
        return

    previous = mujoco.get_mju_user_warning()

    def forward(message: str) -> None:
        if _DEPRECATED_TOTAL_MASS in message:
            return
        if previous is not None:
            previous(message)
        else:
            warnings.warn(message, RuntimeWarning, stacklevel=2)

    mujoco.set_mju_user_warning(forward)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(previous)


@contextlib.contextmanager
def quiet_trace() -> Iterator[None]:
    """Silences the deprecation that brax's own use of MJX meets whenever a reset or a step is traced."""
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", r"Accessing `\w+` directly from `(Data|Model)` is deprecated", DeprecationWarning
        )
        yield
