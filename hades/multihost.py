"""Several processes of one run: how they find each other, what they agree on, and which of them writes.

Every process runs the same program: each compiled call, and each function here that agrees, must be reached by all of
them. What depends on a clock, a signal or a file is therefore asked of process 0, or of all. Without `initialize`, or
with one process, nothing here waits for anybody.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import signal
import socket
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from hades._environment_contract import is_key
from hades._json import to_json
from hades._validation import require_positive
from hades.compilation_cache import use_compilation_cache

__all__ = [
    "LostProcessError",
    "MultihostSettings",
    "any_process",
    "are_several",
    "arrays_of_first",
    "differs",
    "first_goes_before",
    "from_first",
    "initialize",
    "is_first",
    "least",
    "noticing_lost_processes",
]

T = TypeVar("T")

# A process that is silent for so long is lost, and the others end.
_HEARTBEAT_SECONDS = 30
# The first process may write for long while the others wait to end with it.
_SHUTDOWN_SECONDS = 600
# All tasks of a Slurm job start at the same time: one that has waited for so long waits for itself.
_LOOPBACK_SECONDS = 60
_MESSAGE_BYTES = 4096
# How JAX tells that a collective or the service of its processes failed, in front of the reason.
_STATUS = re.compile(r"\s*(UNKNOWN|UNAVAILABLE|INTERNAL|ABORTED|CANCELLED|DEADLINE_EXCEEDED|FAILED_PRECONDITION):")


class LostProcessError(ConnectionError):
    """Another process of the run has ended, so that this one cannot go on."""


@dataclass(frozen=True)
class MultihostSettings:
    """Processes of one run, and the way in which they find each other."""

    multihost: bool = False
    """Whether this is one of several processes of one run: those of the job that JAX detects (Slurm, Open MPI,
    Kubernetes), or those that the flags below name. All take the same settings, and a run directory that all share."""
    coordinator: str | None = None
    """HOST:PORT of process 0, which every host reaches; default: that of the job."""
    num_processes: int | None = None
    """Processes of the run; default: those of the job."""
    process_id: int | None = None
    """Number of this process, from 0; default: that of the job."""
    connect_seconds: int = 300
    """Seconds to wait for all processes to start."""

    def __post_init__(self) -> None:
        """Refuses parts of an address, and numbers that are out of range."""
        named = {"coordinator": self.coordinator, "num_processes": self.num_processes, "process_id": self.process_id}
        given = [name for name, value in named.items() if value is not None]
        if given and not self.multihost:
            raise ValueError(f"{given[0]}: expected none without multihost")
        missing = [name for name, value in named.items() if value is None]
        if given and missing:
            raise ValueError(f"{missing[0]}: expected one beside {given[0]}")
        require_positive("connect_seconds", self.connect_seconds)
        if self.coordinator is not None and not re.fullmatch(r".+:\d+", self.coordinator):
            raise ValueError(f"coordinator: expected HOST:PORT, got {self.coordinator!r}")
        if self.num_processes is not None and self.process_id is not None:
            require_positive("num_processes", self.num_processes)
            if not 0 <= self.process_id < self.num_processes:
                raise ValueError(f"process_id: expected 0 to {self.num_processes - 1}, got {self.process_id}")


def initialize(settings: MultihostSettings) -> None:
    """Connects this process with the others of its run, before anything asks JAX for its devices.

    Does nothing unless `settings.multihost`. A process that waits in vain is ended with one sentence and exit code 1,
    as JAX would end it without one.

    Raises:
        ValueError: No job is detected and no process named, JAX has been used before, devices are hidden, or the
            processes have different ones.
    """
    if not settings.multihost:
        return
    devices = _devices_of_task(os.environ)
    with _limit_of_waiting(settings), _keeping_sigterm():
        try:
            jax.distributed.initialize(
                settings.coordinator,
                settings.num_processes,
                settings.process_id,
                devices,
                # The sentence comes first.
                initialization_timeout=settings.connect_seconds + 60,
                heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
                shutdown_timeout_seconds=_SHUTDOWN_SECONDS,
            )
        except jax.errors.JaxRuntimeError as error:
            raise ValueError(f"coordinator: expected an address at which process 0 can listen, got: {error}") from None
        except RuntimeError as error:
            raise ValueError(f"multihost: expected a process in which JAX has done nothing yet: {error}") from None
        except ValueError:
            raise ValueError(
                "multihost: expected a job that JAX detects (Slurm, Open MPI, Kubernetes), or the flags coordinator, "
                "num_processes and process_id"
            ) from None
        own = jax.default_backend()
        enabled = jax.config.jax_enable_compilation_cache  # type: ignore[attr-defined]
        if own != "cpu":
            # Until all are known to share it.
            use_compilation_cache(False)
        # Every process knows all devices, and collectives need as many in each.
        counts = Counter(device.process_index for device in jax.devices())
    for process, count in sorted(counts.items()):
        if count != counts[0]:
            raise ValueError(
                f"multihost: expected {counts[0]} {own} devices in every process, as process 0 has, got {count} in "
                f"process {process}"
            )
    platform = from_first(own)
    if any_process(own != platform):
        raise ValueError(
            f"multihost: expected {platform} devices in every process, as process 0 has, got {own} ones in process "
            f"{jax.process_index()}"
        )
    if platform != "cpu":
        use_compilation_cache(not any_process(not enabled) and _is_cache_shared())


def are_several() -> bool:
    """Whether this is one of several processes of a run."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def is_first() -> bool:
    """Whether this process writes, draws and prints: process 0, or the only one."""
    return not are_several() or jax.process_index() == 0


def from_first(value: T) -> T:
    """The value of process 0, any that JSON holds in 4,000 characters, in all processes."""
    if not are_several():
        return value
    # Not the number itself, which would come as a float of 32 bits.
    content = to_json(value).encode()[: _MESSAGE_BYTES - 1]
    message = np.frombuffer(content.ljust(_MESSAGE_BYTES), np.uint8)
    sent: T = json.loads(np.asarray(multihost_utils.broadcast_one_to_all(message)).tobytes())
    return sent


def any_process(flag: bool) -> bool:
    """Whether the flag is set in any process."""
    if not are_several():
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.array(flag))))


def differs(value: Any) -> bool:
    """Whether a process has another value than process 0, any that JSON holds in 4,000 characters."""
    return any_process(from_first(value) != value)


def least(number: float) -> float:
    """The least of the numbers that the processes have."""
    if not are_several():
        return number
    # As bytes, of which none is rounded away.
    numbers = np.asarray(multihost_utils.process_allgather(np.array([number], np.float64).view(np.uint8)))
    return float(np.min(numbers.view(np.float64)))


def arrays_of_first(tree: T) -> T:
    """The arrays that process 0 has, in all processes; what is no array stays.

    Each may compute the same and round it otherwise: GPUs add in any order, and choose products by their own clocks.
    Where all have the same bytes, none cross.

    Args:
        tree: Arrays of this process, of the same shapes in all of them.

    Raises:
        ValueError: Their shapes or types differ.
    """
    if not are_several():
        return tree
    leaves, structure = jax.tree.flatten(tree)
    plain = [jax.random.key_data(leaf) if is_key(leaf) else leaf for leaf in leaves]
    arrays = {index: np.asarray(leaf) for index, leaf in enumerate(plain) if _is_of_this_process(leaf)}
    kinds = repr([(array.shape, str(array.dtype)) for array in arrays.values()])
    # As bytes, of which none is rounded away.
    own = [np.frombuffer(array.tobytes(), np.uint8) for array in arrays.values()]
    if not differs(_digest(kinds.encode(), *own)):
        return tree
    if differs(_digest(kinds.encode())):
        raise ValueError("multihost: expected arrays of the same shapes and types in every process")
    for (index, array), content in zip(arrays.items(), multihost_utils.broadcast_one_to_all(own), strict=True):
        found = np.asarray(content).view(array.dtype).reshape(array.shape)
        impl = jax.random.key_impl(leaves[index]) if is_key(leaves[index]) else None
        leaves[index] = found if impl is None else jax.random.wrap_key_data(jnp.asarray(found), impl=impl)
    return jax.tree.unflatten(structure, leaves)


def _digest(*parts: Any) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(part)
    return found.hexdigest()


def _is_of_this_process(leaf: Any) -> bool:
    return isinstance(leaf, np.ndarray) or (isinstance(leaf, jax.Array) and leaf.is_fully_addressable)


@contextlib.contextmanager
def first_goes_before() -> Iterator[None]:
    """Lets process 0 through the block before the others, which do not enter it where it failed there.

    Raises:
        ValueError: It failed in process 0, and this is another one; the message is that of process 0.
    """
    if not are_several():
        yield
    elif jax.process_index() == 0:
        failed = "it was interrupted"
        try:
            yield
            failed = ""
        except Exception as error:
            failed = str(error)[:600] or type(error).__name__
            raise
        finally:
            from_first(failed)
    else:
        if failed := from_first(""):
            raise ValueError(f"process 0: {failed}")
        yield


@contextlib.contextmanager
def noticing_lost_processes() -> Iterator[None]:
    """Tells failures of collectives apart from others.

    Raises:
        LostProcessError: A collective failed because another process has ended.
    """
    try:
        yield
    except (ValueError, jax.errors.JaxRuntimeError) as error:
        if not (are_several() and _STATUS.match(str(error))):
            raise
        reason = str(error).partition("\n")[0]
        raise LostProcessError(f"another process of the run has ended; see its own messages ({reason})") from error


@contextlib.contextmanager
def _keeping_sigterm() -> Iterator[None]:
    """Puts the handler of SIGTERM back after the block, as JAX's service of preemption takes it and ends nothing."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        # Only the main thread may; None is a handler that Python does not know.
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


def _devices_of_task(environment: Any) -> list[int] | None:
    """GPUs that this task of Slurm takes, of those that it sees; None leaves them to JAX, which takes one.

    Raises:
        ValueError: Slurm hides them from it, or the tasks of a node cannot share its GPUs evenly.
    """
    visible, task = environment.get("CUDA_VISIBLE_DEVICES"), environment.get("SLURM_LOCALID")
    elsewhere = environment.get("JAX_PLATFORMS") == "cpu" or "JAX_LOCAL_DEVICE_IDS" in environment
    if not visible or not task or elsewhere:
        return None
    count, own = len(visible.split(",")), int(task)
    # Such as 8, or 8(x2) of two nodes; nodes of other numbers are left to JAX.
    uniform = re.fullmatch(r"(\d+)(\(x\d+\))?", environment.get("SLURM_STEP_TASKS_PER_NODE", ""))
    tasks = int(uniform[1]) if uniform else None
    # Such as 2, or h100:2.
    by_task = re.search(r"\d+$", environment.get("SLURM_GPUS_PER_TASK", ""))
    if count <= own or (by_task and (tasks is None or count < tasks * int(by_task[0]))):
        raise ValueError(
            f"multihost: task {task} of this node takes its share of all GPUs there, but "
            f"CUDA_VISIBLE_DEVICES={visible} hides those of others; give the job --gres=gpu:N and --ntasks-per-node=N "
            f"rather than --gpus-per-task"
        )
    if tasks is None:
        return None
    share, rest = divmod(count, tasks)
    if rest:
        raise ValueError(
            f"multihost: expected GPUs that the {tasks} tasks of a node share evenly, got "
            f"CUDA_VISIBLE_DEVICES={visible}"
        )
    return list(range(own * share, (own + 1) * share))


def _is_cache_shared() -> bool:
    """Whether all processes find what process 0 writes into the folder of JAX's persistent cache.

    Only process 0 writes there. Where it finds a program that another one has to compile, and they share the search for
    the fastest kernels, as on GPUs, that one waits for its share of the search.
    """
    folder = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    name = from_first(f"probe-{uuid.uuid4().hex}")
    if from_first("://" in (folder or "")):
        return True
    probe = Path(folder, name) if folder else None
    if probe is not None and is_first():
        with contextlib.suppress(OSError):
            probe.parent.mkdir(parents=True, exist_ok=True)
            probe.touch()
    # All wait until it is there.
    from_first(None)
    is_shared = not any_process(probe is None or not probe.exists())
    if probe is not None and is_first():
        probe.unlink(missing_ok=True)
        if not is_shared:
            text = f"hades: multihost: no compilation cache, as not all processes find what is written to {folder}\n"
            os.write(2, text.encode())
    return is_shared


@contextlib.contextmanager
def _limit_of_waiting(settings: MultihostSettings) -> Iterator[None]:
    """Ends the process with a sentence where the block takes too long."""
    host, task = _coordinator_of(settings, os.environ)
    seconds, hint = settings.connect_seconds, "expected all to start within that time and to reach that address"
    # Process 0 listens on every address of its own host.
    if task != 0 and _is_loopback(host):
        hint = "which is this host itself; expected process 0 to start here, or its address that other hosts reach"
        if settings.coordinator is None and int(os.environ.get("SLURM_NNODES", "1")) > 1:
            seconds = min(seconds, _LOOPBACK_SECONDS)

    def end() -> None:
        where = host or "the coordinator"
        os.write(2, f"hades: multihost: waited {seconds} s for the other processes at {where}: {hint}\n".encode())
        os._exit(1)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _coordinator_of(settings: MultihostSettings, environment: Any) -> tuple[str | None, int | None]:
    """Host of process 0 and number of this process, as far as flags or Slurm tell."""
    if settings.coordinator is not None:
        return settings.coordinator.rpartition(":")[0], settings.process_id
    nodes, task = environment.get("SLURM_STEP_NODELIST"), environment.get("SLURM_PROCID")
    if nodes is None or task is None:
        return None, None
    # Such as n1, n1,n3 or n[1-4,7].
    first = re.match(r"([^,\[]+)(?:\[([^-,\]]+))?", nodes)
    return "".join(part or "" for part in first.groups()) if first else None, int(task)


def _is_loopback(host: str | None) -> bool:
    try:
        return host is not None and socket.gethostbyname(host).startswith("127.")
    except OSError:
        return False
