"""Outer loops: what moves a solution towards higher values."""

from __future__ import annotations

from hades.outer.evolution import Evolution
from hades.outer.regenerated import RegeneratedEvolution
from hades.settings import EvolutionSettings
from hades.types import PyTree


def make_evolution(
    solution: PyTree, population_size: int, settings: EvolutionSettings, chunk_size: int | None = None
) -> Evolution | RegeneratedEvolution:
    """The evolution strategy that settings describe.

    Args:
        solution: A solution of the structure, shapes and types of all others.
        population_size: Candidates of a generation.
        settings: Strategy, and whether its perturbations are stored.
        chunk_size: Candidates that exist at once where perturbations are regenerated; all of them if None.

    Raises:
        ValueError: A setting is not known, or does not suit the population size.
    """
    if settings.perturbations == "stored":
        return Evolution(solution, population_size, settings)
    return RegeneratedEvolution(solution, population_size, settings, chunk_size)
