"""The population over devices: each evaluates its share, and only fitness crosses between them."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from hades.fitness import Fitness, FitnessFunction, FitnessKeys, pad_rows
from hades.normalization import Normalizer
from hades.types import PyTree

POPULATION_AXIS = "population"


def population_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh with the one axis `population`, over the given devices or all that JAX has."""
    return Mesh(np.array(jax.devices() if devices is None else devices), (POPULATION_AXIS,))


def shard_fitness(fitness: FitnessFunction, mesh: Mesh) -> FitnessFunction:
    """Spreads the population over a mesh.

    Args:
        fitness: Evaluates `[population]` candidates; called with each device's share.
        mesh: Has the axis `population`. A population that does not divide evenly is filled up with copies.

    Returns:
        A function that returns what `fitness` does, the same on every device.
    """

    def share(keys: FitnessKeys, population: PyTree, normalizer: Normalizer) -> Fitness:
        return jax.lax.all_gather(fitness(keys, population, normalizer), POPULATION_AXIS, tiled=True)

    whole = PartitionSpec()
    # The default check_vma sums gradients of parameters that come from a replicated key over devices.
    over_devices = jax.shard_map(
        share, mesh=mesh, in_specs=(whole, PartitionSpec(POPULATION_AXIS), whole), out_specs=whole, check_vma=False
    )

    def sharded(keys: FitnessKeys, population: PyTree, normalizer: Normalizer) -> Fitness:
        rows = jax.tree.leaves(population)[0].shape[0]
        gathered = over_devices(keys, pad_rows(population, mesh.size), normalizer)
        return jax.tree.map(lambda leaf: leaf[:rows], gathered)

    return sharded
