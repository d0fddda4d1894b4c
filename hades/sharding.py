"""The population over devices: each evaluates its share of the candidates, and only fitness crosses between them."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from hades.fitness import Draw, FitnessFunction, pad_rows
from hades.types import Metrics, PyTree, Solution

POPULATION_AXIS = "population"


def population_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh with the one axis `population`, over the given devices or all that JAX has."""
    return Mesh(np.array(jax.devices() if devices is None else devices), (POPULATION_AXIS,))


def shard_fitness(fitness: FitnessFunction, mesh: Mesh) -> FitnessFunction:
    """Spreads candidates over a mesh.

    Args:
        fitness: Evaluates solutions `[candidates, ...]`; called with each device's share.
        mesh: Has the axis `population`. Candidates that do not divide evenly are filled up with copies.

    Returns:
        A function with the values of `fitness`, the same on every device.
    """

    def share(draw: Draw, solutions: Solution) -> tuple[jax.Array, Metrics]:
        return jax.lax.all_gather(fitness(draw, solutions), POPULATION_AXIS, tiled=True)

    whole = PartitionSpec()
    # The default check_vma sums gradients of parameters that come from a replicated key over devices.
    over_devices = jax.shard_map(
        share, mesh=mesh, in_specs=(whole, PartitionSpec(POPULATION_AXIS)), out_specs=whole, check_vma=False
    )

    def sharded(draw: Draw, solutions: Solution) -> tuple[jax.Array, Metrics]:
        rows = jax.tree.leaves(solutions)[0].shape[0]
        gathered = over_devices(draw, pad_rows(solutions, mesh.size))
        return jax.tree.map(lambda leaf: leaf[:rows], gathered)

    return sharded


def replicate(tree: PyTree, mesh: Mesh | None) -> PyTree:
    """Places arrays on every device of a mesh of several, where compiled programs leave them too."""
    if mesh is None or mesh.size == 1:
        return tree
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))
