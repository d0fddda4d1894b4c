"""Arrays that a run is made with, such as measured statistics, kept in its directory.

A machine measures them once: another one, or the same GPU another time, may round them otherwise.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hades import multihost
from hades._npz import read_arrays, write_arrays
from hades._run_directory import RunDirectory, RunDirectoryError
from hades.run import Run


def with_kept_arrays(run: Run[Any], directory: RunDirectory) -> Run[Any]:
    """The run with the arrays that it began with; those of a run that has not begun are written.

    Args:
        run: With the arrays that were measured now.
        directory: Directory of the run; of one of version 0.2 or older it has none, and those of now are taken.

    Raises:
        OSError: The file cannot be written.
        RunDirectoryError: The file is damaged, or has other arrays than such a run.
    """
    leaves, structure = jax.tree.flatten(run)
    if not directory.holds_run:
        if leaves and multihost.is_first():
            directory.path.mkdir(parents=True, exist_ok=True)
            write_arrays(directory.arrays, {str(index): np.asarray(leaf) for index, leaf in enumerate(leaves)})
        elif multihost.is_first():
            # Of a run that was killed before it began.
            directory.arrays.unlink(missing_ok=True)
        return run
    if not directory.arrays.exists():
        return run
    try:
        kept = read_arrays(directory.arrays).values()
    except ValueError as error:
        raise RunDirectoryError(f"{directory.arrays}: {error}") from None
    found, expected = ([np.shape(leaf) for leaf in arrays] for arrays in (kept, leaves))
    if found != expected:
        raise RunDirectoryError(
            f"{directory.arrays}: expected arrays of shapes {expected}, as the run has them, got {found}"
        )
    return jax.tree.unflatten(structure, map(jnp.asarray, kept))
