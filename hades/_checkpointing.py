"""Checkpoints of a run, through orbax; they restore onto any number of devices."""

from __future__ import annotations

import itertools
import logging
import os
import re
import sys
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, Self, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from hades import multihost
from hades._environment_contract import is_key
from hades._json import to_finite

State = TypeVar("State")

# orbax refuses arrays without elements, which states of some simulators have; this is written in their place.
_NO_ELEMENTS = np.zeros(1, bool)


class Checkpoints:
    """The newest two checkpoints in a folder. An interrupted write is never taken for a checkpoint.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, Checkpoints(folder) as checkpoints:
        ...     checkpoints.save(3, {"x": jax.numpy.ones(2)}, {"best": 1.5})
        ...     step, state, progress = checkpoints.restore({"x": jax.ShapeDtypeStruct((2,), "float32")})
        >>> step, state["x"].tolist(), progress
        (3, [1.0, 1.0], {'best': 1.5})
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Opens the folder and makes it if it is not there."""
        handlers = {"state": ocp.PyTreeCheckpointHandler(), "progress": ocp.JsonCheckpointHandler()}
        path = Path(folder).absolute()
        path.mkdir(parents=True, exist_ok=True)
        options = ocp.CheckpointManagerOptions(
            max_to_keep=2, enable_async_checkpointing=False, create=False, multiprocessing_options=_alone()
        )
        self._manager = ocp.CheckpointManager(path, options=options, item_handlers=handlers)

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Waits for writes to end."""
        self._manager.close()

    @property
    def latest(self) -> int | None:
        """Step of the newest checkpoint, None where there is none."""
        return self._manager.latest_step()

    def save(self, step: int, state: Any, progress: dict[str, Any]) -> None:
        """Writes a checkpoint, unless there is one of this step or a later one.

        Args:
            step: Finished iterations.
            state: Pytree of arrays; typed keys are allowed.
            progress: What the host loop needs to go on, as JSON; numbers that are not finite become null.

        Raises:
            OSError: The folder cannot be written, for example because the disk is full.
        """
        if self.latest is not None and step <= self.latest:
            return
        stored = jax.tree.map(lambda leaf: _of_host(leaf) if np.size(leaf) else _NO_ELEMENTS, state)
        arguments = ocp.args.Composite(
            state=ocp.args.PyTreeSave(stored), progress=ocp.args.JsonSave(to_finite(progress))
        )
        try:
            with _quiet_threads():
                self._manager.save(step, args=arguments)
        except (OSError, ValueError) as error:  # tensorstore reports failures of the file system as values
            _raise_unwritable(error, f"{self._manager.directory}/{step}")

    def restore(
        self, template: State, *, formerly: Mapping[str, str] | None = None, dropped: Collection[str] = ()
    ) -> tuple[int, State, dict[str, Any]]:
        """Reads the newest checkpoint that is whole.

        A newer one that is damaged is moved aside, to the name of its step with `.damaged` behind it, with a warning:
        a run that goes on from an older one can then save that step again.

        A state whose fields were renamed since a checkpoint was written reads it by rules about paths, in which the
        names of fields and the indices of tuples are joined by dots. Under
        `formerly={"iteration": "generation", "outer": ""}` a leaf `outer.mean` that the checkpoint lacks is looked for
        under `mean`.

        Args:
            template: A state of the structure, shapes and types that were saved, of arrays or `jax.ShapeDtypeStruct`s.
                Those with a sharding, and arrays that are committed to devices, say where the restored arrays are
                placed; the others are restored without being committed to a device.
            formerly: Former prefixes of paths by present ones, for leaves that the checkpoint lacks; the longest
                present prefix decides.
            dropped: Prefixes of paths in the checkpoint that the template needs no longer.

        Returns:
            Its step, state and progress.

        Raises:
            ValueError: There is no checkpoint, none is whole, or it holds another kind of state; one sentence.

        Warns:
            UserWarning: The newest checkpoint was damaged.
        """
        reasons: dict[int, str] = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            where = f"{self._manager.directory}/{step}"
            try:
                with _quiet_threads():
                    state, progress = self._read(step, template, formerly or {}, dropped)
            except _OtherStateError as error:
                raise ValueError(f"{where}: expected a checkpoint of this run, {error}") from None
            except Exception as error:  # damaged files raise almost anything
                reasons[step] = str(error).partition("\n")[0] or type(error).__name__
                continue
            for damaged, reason in reasons.items():
                self._move_aside(damaged, f"going on from {step} instead ({reason})")
            return step, state, progress
        if not reasons:
            raise ValueError("expected a checkpoint, found none")
        newest = max(reasons)
        where = f"{self._manager.directory}/{newest}"
        raise ValueError(f"{where}: expected a whole checkpoint of this run, got: {reasons[newest]}")

    def _move_aside(self, step: int, consequence: str) -> None:
        folder = Path(self._manager.directory) / str(step)
        if multihost.is_first():
            suffixes = itertools.chain([""], (f".{count}" for count in itertools.count(2)))
            places = (folder.with_name(f"{step}.damaged{suffix}") for suffix in suffixes)
            folder.rename(next(place for place in places if not place.exists()))
        self._manager.reload()
        warnings.warn(f"{folder}: expected a whole checkpoint, found a damaged one; {consequence}", stacklevel=4)

    def _read(
        self, step: int, template: State, formerly: Mapping[str, str], dropped: Collection[str]
    ) -> tuple[State, dict[str, Any]]:
        metadata = self._manager.item_metadata(step)["state"]
        if metadata is None:
            raise ValueError("found no metadata of its arrays")
        stored, structure = jax.tree_util.tree_flatten_with_path(metadata.tree)
        shapes = {_name(path): tuple(leaf.shape) for path, leaf in stored}
        leaves = {_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(template)}
        places = {path: _place(path, shapes, formerly) for path in leaves}
        unknown = set(shapes) - set(places.values())
        unknown = {path for path in unknown if not any(_is_under(path, prefix) for prefix in dropped)}
        if unknown:
            raise _OtherStateError(f"got one with {min(unknown)}, which the run does not have")
        requests = {places[path]: _request(path, leaf, shapes[places[path]]) for path, leaf in leaves.items()}
        target = jax.tree.unflatten(structure, [requests.get(_name(path), ocp.PLACEHOLDER) for path, _ in stored])
        arguments = ocp.args.Composite(
            state=ocp.args.PyTreeRestore(target, restore_args=ocp.checkpoint_utils.construct_restore_args(target)),
            progress=ocp.args.JsonRestore(),
        )
        restored = self._manager.restore(step, args=arguments)
        values = {_name(path): value for path, value in jax.tree_util.tree_leaves_with_path(restored.state)}
        found = [_finish(leaf, values[places[path]]) for path, leaf in leaves.items()]
        return jax.tree.unflatten(jax.tree.structure(template), found), restored.progress


def _alone() -> ocp.options.MultiprocessingOptions:
    """Options of a process that waits for no other: each has the whole state, and the first saves when one is lost."""
    if not multihost.are_several():
        return ocp.options.MultiprocessingOptions()
    process = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=process, active_processes={process}, barrier_sync_key_prefix=f"process{process}"
    )


def _of_host(leaf: Any) -> Any:
    """An array as orbax takes it: of several processes those of one alone as NumPy's."""
    if not multihost.are_several():
        return leaf
    return np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf)


class _OtherStateError(Exception):
    """A whole checkpoint holds another state than the template; the message says which leaf."""


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _is_under(path: str, prefix: str) -> bool:
    return not prefix or path == prefix or path.startswith(f"{prefix}.")


def _place(path: str, shapes: Mapping[str, Any], formerly: Mapping[str, str]) -> str:
    """Path under which a checkpoint holds a leaf."""
    place = path
    prefixes = [prefix for prefix in formerly if _is_under(path, prefix)]
    if path not in shapes and prefixes:
        prefix = max(prefixes, key=len)
        place = f"{formerly[prefix]}.{path[len(prefix) :].removeprefix('.')}".strip(".")
    if place not in shapes:
        raise _OtherStateError(f"got one without {path}")
    return place


def _request(path: str, leaf: Any, shape: tuple[int, ...]) -> Any:
    """Array to ask orbax for, or its placeholder for one that need not be read."""
    if np.size(leaf) == 0:
        return ocp.PLACEHOLDER
    data = jax.eval_shape(jax.random.key_data, leaf) if is_key(leaf) else leaf
    if tuple(data.shape) != shape:
        raise _OtherStateError(f"got one with {path} of shape {shape}, expected {tuple(data.shape)}")
    # An uncommitted array has a sharding too, that of the default device.
    placed = leaf.committed if isinstance(leaf, jax.Array) else getattr(leaf, "sharding", None) is not None
    return jax.ShapeDtypeStruct(data.shape, data.dtype, sharding=leaf.sharding if placed else None)


def _finish(leaf: Any, value: Any) -> jax.Array:
    if np.size(leaf) == 0:
        return jnp.zeros(leaf.shape, leaf.dtype)
    array = jnp.asarray(value)
    # Checkpoints written before orbax knew typed keys hold their bits alone, and so does what is read as NumPy arrays.
    return jax.random.wrap_key_data(array, impl=_key_impl(leaf)) if is_key(leaf) and not is_key(array) else array


def _key_impl(leaf: Any) -> Any:
    # `key_impl` takes arrays and tracers, but no ShapeDtypeStruct.
    found: list[Any] = []
    jax.eval_shape(lambda key: found.append(jax.random.key_impl(key)), leaf)
    return found[0]


def _raise_unwritable(error: Exception, where: str) -> NoReturn:
    code = re.search(r"os_error_code='(\d+)'", str(error))
    if isinstance(error, OSError) and error.errno:
        raise OSError(error.errno, error.strerror, where) from error
    if code:
        raise OSError(int(code[1]), os.strerror(int(code[1])), where) from error
    raise OSError(f"{where}: could not be written: {str(error).partition(chr(10))[0]}") from error


@contextmanager
def _quiet_threads() -> Iterator[None]:
    """Keeps threads of orbax and tensorstore from printing tracebacks of an exception that the caller gets.

    orbax logs the exception of each thread. Reads and writes that were under way when another one failed end later,
    find the event loop closed, and can tell nobody: after a failure the hook for those stays.
    """

    def keep(record: logging.LogRecord) -> bool:
        return "raised an exception" not in str(record.msg)

    def report(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            previous(unraisable)

    logger, previous = logging.getLogger("absl"), sys.unraisablehook
    logger.addFilter(keep)
    sys.unraisablehook = report
    try:
        yield
        sys.unraisablehook = previous
    finally:
        logger.removeFilter(keep)
