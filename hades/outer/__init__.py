"""Outer loops: climbing F(D), by evolution or by its gradient."""

from __future__ import annotations

from hades.outer._metrics import replace_non_finite, summarize
from hades.outer.averaged import Averaged, AveragedState
from hades.outer.evolution import Evolution, EvolutionSettings, EvolutionState, strategy_names
from hades.outer.meta_gradient import MetaGradient, MetaGradientSettings, MetaGradientState
from hades.outer.regenerated import RegeneratedEvolution

__all__ = [
    "Averaged",
    "AveragedState",
    "Evolution",
    "EvolutionSettings",
    "EvolutionState",
    "MetaGradient",
    "MetaGradientSettings",
    "MetaGradientState",
    "RegeneratedEvolution",
    "evolution_from_settings",
    "replace_non_finite",
    "strategy_names",
    "summarize",
]


def evolution_from_settings(
    population_size: int, settings: EvolutionSettings, chunk_size: int | None = None
) -> Evolution | RegeneratedEvolution:
    """The evolution that settings describe, its perturbations stored or regenerated.

    Args:
        population_size: Candidates of an iteration.
        settings: Strategy, and whether its perturbations are stored.
        chunk_size: Candidates that exist at once on a device where perturbations are regenerated; all of them if None.

    Raises:
        ValueError: A setting is not known, or does not suit the population size.
    """
    settings = settings.resolved()
    if settings.perturbations == "stored":
        return Evolution(population_size, settings)
    return RegeneratedEvolution(population_size, settings, chunk_size)
