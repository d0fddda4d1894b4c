"""Arrays that are measured when a run begins, such as statistics, and kept in its directory.

A machine measures them once: another one, or the same GPU another time, may round them otherwise.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hades._npz import read_arrays, write_arrays
from hades._run_directory import RunDirectory, RunDirectoryError
from hades.callbacks import Callback
from hades.run import Run, RunState


def file_of(directory: RunDirectory) -> Path:
    """File of the arrays of a run."""
    return directory.path / "arrays.npz"


class Keeper(Callback):
    """Writes the arrays of a run when it begins; a run without any has no file.

    Args:
        file: File to write.
    """

    def __init__(self, file: Path) -> None:
        """Remembers the file."""
        self._file = file

    def start(self, run: Run[Any], state: RunState) -> None:
        """Writes them unless they are there."""
        leaves = jax.tree.leaves(run)
        if leaves and not self._file.exists():
            write_arrays(self._file, {str(index): np.asarray(leaf) for index, leaf in enumerate(leaves)})


def as_kept(run: Run[Any], file: Path) -> Run[Any]:
    """The run with the arrays of the file in place of those that were measured now, where there is one.

    Raises:
        RunDirectoryError: The file is damaged, or has other arrays than such a run.
    """
    if not file.exists():
        return run
    try:
        kept = read_arrays(file)
    except ValueError as error:
        raise RunDirectoryError(f"{file}: {error}") from None
    leaves, structure = jax.tree.flatten(run)
    found, expected = ([np.shape(leaf) for leaf in arrays] for arrays in (kept.values(), leaves))
    if found != expected:
        raise RunDirectoryError(f"{file}: expected arrays of shapes {expected}, as the run has them, got {found}")
    return jax.tree.unflatten(structure, map(jnp.asarray, kept.values()))
