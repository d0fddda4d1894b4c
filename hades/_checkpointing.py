"""Checkpoints of a run, through orbax; they restore onto any number of devices."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp

State = TypeVar("State")


class Checkpoints:
    """The newest two checkpoints in a folder. An interrupted write is never taken for a checkpoint.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, Checkpoints(folder) as checkpoints:
        ...     checkpoints.save(3, {"x": jax.numpy.ones(2)}, {"best": 1.5})
        ...     step, state, progress = checkpoints.restore({"x": jax.numpy.zeros(2)})
        >>> step, state["x"].tolist(), progress
        (3, [1.0, 1.0], {'best': 1.5})
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Opens the folder and makes it if it is not there."""
        options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
        self._manager = ocp.CheckpointManager(Path(folder).absolute(), options=options)

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Waits for writes to end."""
        self._manager.close()

    @property
    def latest(self) -> int | None:
        """Step of the newest checkpoint, None where there is none."""
        return self._manager.latest_step()

    def save(self, step: int, state: Any, progress: dict[str, Any]) -> None:
        """Writes a checkpoint, unless there is one of this step or a later one.

        Args:
            step: Finished generations.
            state: Pytree of arrays; typed keys are allowed.
            progress: What the host loop needs to go on, as JSON.

        Raises:
            OSError: The folder cannot be written, for example because the disk is full.
        """
        if self.latest is not None and step <= self.latest:
            return
        arguments = ocp.args.Composite(
            state=ocp.args.StandardSave(_without_keys(state)), progress=ocp.args.JsonSave(progress)
        )
        try:
            self._manager.save(step, args=arguments)
        except (OSError, ValueError) as error:  # tensorstore reports failures of the file system as values
            where = f"{self._manager.directory}/{step}"
            if isinstance(error, OSError) and error.errno:
                raise OSError(error.errno, error.strerror, where) from error
            raise OSError(f"{where}: could not be written: {str(error).partition(chr(10))[0]}") from error

    def restore(self, template: State) -> tuple[int, State, dict[str, Any]]:
        """Reads the newest checkpoint.

        Args:
            template: A state of the structure, shapes and types that were saved.

        Returns:
            Its step, state and progress. Arrays are not committed to a device.

        Raises:
            ValueError: There is no checkpoint, it is damaged, or it holds another kind of state; one sentence.
        """
        step = self.latest
        if step is None:
            raise ValueError("expected a checkpoint, found none")
        plain = jax.tree.map(np.asarray, _without_keys(template))
        arguments = ocp.args.Composite(state=ocp.args.StandardRestore(plain), progress=ocp.args.JsonRestore())
        try:
            restored = self._manager.restore(step, args=arguments)
            state = jax.tree.map(_like, template, restored.state, is_leaf=_is_key)
        except Exception as error:  # damaged files raise almost anything
            reason = str(error).partition("\n")[0] or type(error).__name__
            where = f"{self._manager.directory}/{step}"
            raise ValueError(f"{where}: expected a whole checkpoint of this run, got: {reason}") from None
        return step, state, restored.progress


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _without_keys(state: Any) -> Any:
    def plain(leaf: Any) -> Any:
        if np.size(leaf) == 0:
            # orbax refuses arrays without elements, which states of some simulators have.
            return np.zeros(1, bool)
        return jax.random.key_data(leaf) if _is_key(leaf) else leaf

    return jax.tree.map(plain, state)


def _like(template: Any, value: Any) -> Any:
    if np.size(template) == 0:
        return template
    if _is_key(template):
        return jax.random.wrap_key_data(jax.numpy.asarray(value), impl=jax.random.key_impl(template))
    if np.shape(template) != np.shape(value):
        raise ValueError(f"checkpoint: expected an array of shape {np.shape(template)}, found {np.shape(value)}")
    return jax.numpy.asarray(value, dtype=template.dtype)
