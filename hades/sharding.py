"""Work over devices: each does its share of the rows, and only results, or their sum, cross between them."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from hades._environment_contract import is_key
from hades._rows import pad_rows, pad_with_zeros
from hades._validation import require_positive
from hades.types import PyTree

Share: TypeAlias = Callable[[PyTree, PyTree], PyTree]
"""`function(rows, shared)`: what a device makes of its share of the rows, and of arrays that all devices have."""

MeshOrDevices: TypeAlias = Mesh | Sequence[jax.Device]
"""A mesh with the axis `population` and perhaps `inits`, or devices that a run divides among both."""

POPULATION_AXIS, INITS_AXIS = "population", "inits"
_WHOLE = PartitionSpec()
_MOST_CPU_DEVICES = 16
# Numbers of a row that is copied to cross with others.
_MOST_TOGETHER = 4096
_CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
# Of XLA, in seconds: after so long a device that waits for the others of a collective ends the process.
_WAIT_FLAGS = (
    "--xla_cpu_collective_call_terminate_timeout_seconds",
    "--xla_gpu_executable_terminate_timeout",
    "--xla_gpu_first_collective_call_terminate_timeout_seconds",
)
_WAIT_SECONDS = 3600


def usable_cores() -> int:
    """CPU cores that this process may use, by its affinity and, in a container, the quota of its control group (v2)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # Without a quota the first word is "max".
    with contextlib.suppress(OSError, ValueError):
        quota, period = map(int, _CPU_QUOTA.read_text().split())
        cores = min(cores, math.ceil(quota / period))
    return max(1, cores)


def let_devices_wait() -> None:
    """Lets the devices of a process wait for each other for an hour, where XLA_FLAGS do not say how long.

    Shares of a population may take minutes more than others: by itself XLA ends the process after 30 to 60 seconds
    (jaxlib 0.10). Nothing changes once JAX has been used.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    # Read by XLA when JAX is first used.
    own = (f"{flag}={_WAIT_SECONDS}" for flag in _WAIT_FLAGS if flag not in flags)
    os.environ["XLA_FLAGS"] = " ".join((flags, *own)).strip()


def divide_cpu(count: int | None = None) -> None:
    """Makes the CPU several devices, over which runs with a population then spread it.

    Operations on small networks are too short for XLA to give them several threads: of one device, they keep one core
    busy. Their number stays where XLA_FLAGS, or without a count JAX's configuration, say it. They wait for each other
    as `let_devices_wait` says. Nothing changes once JAX has been used.

    Args:
        count: Devices; one for each core that the process may use, at most 16, if None.

    Raises:
        ValueError: `count` is not positive.

    Example:
        >>> divide_cpu()  # before anything else asks JAX for a device
    """
    if count is not None:
        require_positive("count", count)
    let_devices_wait()
    configured = count is None and getattr(jax.config, "jax_num_cpu_devices", -1) >= 0
    if configured or "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    # Raised where JAX has been used.
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", count or min(usable_cores(), _MOST_CPU_DEVICES))


def population_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh with the one axis `population`, over the given devices or all that JAX has."""
    return Mesh(np.array(jax.devices() if devices is None else devices), (POPULATION_AXIS,))


def platform_of(mesh: MeshOrDevices | None) -> str:
    """Platform of the devices of a mesh, of several that a run may choose from, or of all that JAX has if None."""
    devices = mesh.devices.ravel() if isinstance(mesh, Mesh) else jax.devices() if mesh is None else mesh
    platform: str = devices[0].platform
    return platform


def divided_mesh(population: int, num_inits: int, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh with the axes `population` and `inits` that leaves the fewest policies to the busiest device.

    Initialisations are shared evenly; among equal divisions the one with the fewest devices and the most of them along
    the population is taken. Of several processes all devices are kept.

    Args:
        population: Candidates of an iteration.
        num_inits: Initialisations that each of them trains.
        devices: Devices to choose from; all that JAX has if None.

    Example:
        >>> divided_mesh(population=1, num_inits=4).axis_names
        ('population', 'inits')
    """
    found = np.array(jax.devices() if devices is None else devices)
    count = found.size

    def cost(shape: tuple[int, int]) -> tuple[int, int, int]:
        rows, columns = shape
        return -(-population // rows) * (num_inits // columns), rows * columns, columns

    shapes = [
        (rows, columns)
        for columns in range(1, min(num_inits, count) + 1)
        for rows in range(1, count // columns + 1)
        if num_inits % columns == 0 and (not _are_of_several_processes(found) or rows * columns == count)
    ]
    rows, columns = min(shapes, key=cost)
    return Mesh(found.ravel()[: rows * columns].reshape(rows, columns), (POPULATION_AXIS, INITS_AXIS))


def _are_of_several_processes(devices: np.ndarray) -> bool:
    return len({device.process_index for device in devices.ravel()}) > 1


def spans_several(mesh: Mesh | None) -> TypeGuard[Mesh]:
    """Whether a mesh has more than one device."""
    return mesh is not None and mesh.size > 1


def is_elsewhere(mesh: Mesh | None) -> TypeGuard[Mesh]:
    """Whether a mesh is one device, and not the first of this process, where arrays are without being placed."""
    return mesh is not None and mesh.size == 1 and mesh.devices.flat[0] != jax.local_devices()[0]


@dataclass(frozen=True)
class Devices:
    """The devices of a mesh, which divide rows of work among them.

    Attributes:
        mesh: Has the axis `population`, and may have `inits`; this device alone if None.

    Example:
        >>> import jax.numpy as jnp
        >>> devices = Devices(population_mesh())
        >>> devices.map(lambda rows, factor: factor * rows, jnp.arange(3), 2).tolist()
        [0, 2, 4]
        >>> int(devices.sum(lambda rows, factor: factor * jnp.sum(rows), jnp.arange(3), 2))
        6
    """

    mesh: Mesh | None = None

    @property
    def size(self) -> int:
        """Number of devices."""
        return 1 if self.mesh is None else self.mesh.size

    def map(self, function: Share, rows: PyTree, shared: PyTree = ()) -> PyTree:
        """Applies a function to each device's share of the rows, and gathers the results.

        Args:
            function: `function(rows, shared)`: a pytree with the leading axis of its rows, independent of each other.
            rows: Pytree with leading axis `[rows]`; those that do not divide evenly are filled up with copies.
            shared: Arrays that every device takes whole.

        Returns:
            Results `[rows, ...]`, the same on every device.
        """
        if not spans_several(self.mesh):
            return function(rows, shared)
        return _gathered(function, rows, shared, self.mesh, self.mesh.axis_names)

    def map_means(self, function: Share, rows: PyTree, shared: PyTree, by_init: PyTree) -> PyTree:
        """Applies a function to each device's share of rows and of initialisations, and gathers means over the latter.

        Args:
            function: `function(rows, shared)`: a pytree with the leading axis of its rows, of means over its
                initialisations where a leaf is floating-point, and of sums where it holds integers.
            rows: Pytree with leading axis `[rows]`, which the axis `population` divides, as `map` does it.
            shared: Arrays that every device takes whole, but for those `[inits, ...]` that the axis `inits` divides.
            by_init: Whether they are, a bool for each leaf of `shared` or for whole branches of it.

        Returns:
            Results `[rows, ...]`, the same on every device.
        """
        if self.mesh is None or self.mesh.shape.get(INITS_AXIS, 1) == 1:
            return self.map(function, rows, shared)

        def means(own: PyTree, shared: PyTree) -> PyTree:
            return jax.tree.map(partial(mean_or_sum, axis=INITS_AXIS), function(own, shared))

        divided = jax.tree.map(lambda divides: PartitionSpec(INITS_AXIS) if divides else _WHOLE, by_init)
        return _gathered(means, rows, shared, self.mesh, (POPULATION_AXIS,), divided)

    def once(self, function: Callable[..., PyTree], *arguments: PyTree) -> PyTree:
        """Calls a function on one device, for which the others wait rather than make the same.

        They wait for as long as `let_devices_wait` says.

        Args:
            function: Pure function; a pytree of arrays, no keys among them.
            arguments: Arrays, which every device has whole.

        Returns:
            The result, on every device.
        """
        mesh = self.mesh
        if not spans_several(mesh):
            return function(*arguments)

        def share(is_first: jax.Array, arguments: tuple[PyTree, ...]) -> PyTree:
            shapes = jax.eval_shape(function, *arguments)
            nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
            return jax.lax.cond(is_first[0], lambda: function(*arguments), lambda: nothing)

        return self.sum(share, jnp.arange(mesh.size) == 0, replicate_within(arguments, mesh))

    def sum(self, function: Share, rows: PyTree, shared: PyTree = ()) -> PyTree:
        """Adds up what a function makes of each device's share of the rows.

        Args:
            function: `function(rows, shared)`: a pytree of sums over its rows, in which rows of zeros count nothing.
            rows: Pytree with leading axis `[rows]`; those that do not divide evenly are filled up with zeros.
            shared: Arrays that every device takes whole.

        Returns:
            The sums, the same on every device.
        """
        mesh = self.mesh
        if not spans_several(mesh):
            return function(rows, shared)

        def share(own: PyTree, shared: PyTree) -> PyTree:
            return jax.lax.psum(function(own, shared), mesh.axis_names)

        return _over_devices(share, mesh, mesh.axis_names)(
            replicate_within(pad_with_zeros(rows, mesh.size), mesh), shared
        )


def _gathered(
    function: Share, rows: PyTree, shared: PyTree, mesh: Mesh, axes: tuple[str, ...], of_shared: PyTree = _WHOLE
) -> PyTree:
    """Results of the shares of rows that some axes of a mesh divide; `of_shared` says how it divides the rest."""
    count = jax.tree.leaves(rows)[0].shape[0]

    def share(own: PyTree, shared: PyTree) -> PyTree:
        return _gather(function(own, shared), axes)

    shares = math.prod(mesh.shape[axis] for axis in axes)
    # Rows that divide evenly may be made where they are needed.
    own_rows = replicate_within(pad_rows(rows, shares), mesh) if count % shares else rows
    return jax.tree.map(lambda leaf: leaf[:count], _over_devices(share, mesh, axes, of_shared)(own_rows, shared))


def _gather(tree: PyTree, axes: tuple[str, ...]) -> PyTree:
    """The rows of all shares `[rows, ...]`. Short ones of one type cross together, as each crossing is a wait."""
    leaves, structure = jax.tree.flatten(tree)
    plain = [jax.random.key_data(leaf) if is_key(leaf) else leaf for leaf in leaves]
    widths = [math.prod(leaf.shape[1:]) for leaf in plain]
    crossings: dict[Any, list[int]] = {}
    for index, (leaf, width) in enumerate(zip(plain, widths, strict=True)):
        # A copy of a long one would cost more than the wait.
        crossings.setdefault(leaf.dtype if width <= _MOST_TOGETHER else index, []).append(index)
    found: list[Any] = [None] * len(plain)
    for indices in crossings.values():
        own = jnp.concatenate([plain[index].reshape(plain[index].shape[0], widths[index]) for index in indices], axis=1)
        whole = jax.lax.all_gather(own, axes, tiled=True)
        ends = list(itertools.accumulate(widths[index] for index in indices))
        for index, part in zip(indices, jnp.split(whole, ends[:-1], axis=1), strict=True):
            found[index] = part.reshape(whole.shape[0], *plain[index].shape[1:])
    for index, leaf in enumerate(leaves):
        if is_key(leaf):
            found[index] = jax.random.wrap_key_data(found[index], impl=jax.random.key_impl(leaf))
    return jax.tree.unflatten(structure, found)


def _over_devices(share: Share, mesh: Mesh, axes: tuple[str, ...], of_shared: PyTree = _WHOLE) -> Share:
    specs = (PartitionSpec(axes), of_shared)
    # The default check_vma sums gradients of parameters that come from a replicated key over devices.
    return jax.shard_map(share, mesh=mesh, in_specs=specs, out_specs=_WHOLE, check_vma=False)


def mean_or_sum(leaf: jax.Array, axis: str) -> jax.Array:
    """Mean over a named axis of floating-point numbers, and sum of integers, which count."""
    reduce = jax.lax.pmean if jnp.issubdtype(leaf.dtype, jnp.floating) else jax.lax.psum
    reduced: jax.Array = reduce(leaf, axis)
    return reduced


def replicate(tree: PyTree, mesh: Mesh | None) -> PyTree:
    """Places arrays on every device of a mesh of several, where compiled programs leave them too, or on a chosen one.

    A mesh over several processes is given the same arrays by each.
    """
    if is_elsewhere(mesh):
        return jax.device_put(tree, mesh.devices.flat[0])
    if not spans_several(mesh):
        return tree
    sharding = NamedSharding(mesh, _WHOLE)
    if not mesh.is_multi_process:
        return jax.device_put(tree, sharding)
    return jax.tree.map(lambda leaf: _replicated_over_processes(leaf, sharding), tree)


def replicated_shapes(tree: PyTree, mesh: Mesh | None) -> PyTree:
    """Shapes of arrays, or of shapes, on every device of a mesh of several, for programs that are compiled ahead."""
    if not spans_several(mesh):
        return tree
    sharding = NamedSharding(mesh, _WHOLE)
    return jax.tree.map(lambda leaf: leaf.update(sharding=sharding), jax.eval_shape(lambda leaves: leaves, tree))


def replicate_within(tree: PyTree, mesh: Mesh | None) -> PyTree:
    """Arrays of a compiled program that every device of a mesh of several has whole.

    Without it the compiler may let each device make its share, and all gather the whole.
    """
    if not spans_several(mesh):
        return tree
    return jax.lax.with_sharding_constraint(tree, NamedSharding(mesh, _WHOLE))


def _replicated_over_processes(leaf: Any, sharding: NamedSharding) -> jax.Array:
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        return leaf
    if is_key(leaf):
        data = _replicated_over_processes(jax.random.key_data(leaf), sharding)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    content = np.asarray(leaf)
    return jax.make_array_from_callback(content.shape, sharding, lambda index: content[index])


def own_copy(tree: PyTree) -> PyTree:
    """Arrays that several devices hold whole, as arrays of one device of this process; other leaves as they are.

    Raises:
        ValueError: Devices hold shares of an array.
    """

    def own(leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array) or len(leaf.sharding.device_set) == 1:
            return leaf
        if not leaf.is_fully_replicated:
            raise ValueError(f"tree: expected arrays that every device holds whole, got one divided by {leaf.sharding}")
        return leaf.addressable_data(0)

    return jax.tree.map(own, tree)
