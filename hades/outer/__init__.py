"""Outer loops: what moves a solution towards higher values."""

from __future__ import annotations

from typing import Any, Protocol

import jax

from hades.outer.evolution import Evolution, EvolutionSettings, Objective
from hades.outer.meta_gradient import MetaGradient, MetaGradientSettings
from hades.outer.regenerated import RegeneratedEvolution
from hades.types import Metrics, PyTree


class OuterLoop(Protocol):
    """What every outer loop can do, so that one takes the place of another."""

    def init(self, key: jax.Array, solution: PyTree) -> Any:
        """The state at a first solution."""
        ...

    def step(self, key: jax.Array, state: Any, objective: Objective) -> tuple[Any, Metrics]:
        """One step towards higher values of the objective, and its metrics."""
        ...

    def solution(self, state: Any) -> PyTree:
        """Where it is."""
        ...


def make_outer(
    solution: PyTree,
    population_size: int,
    settings: EvolutionSettings | MetaGradientSettings,
    chunk_size: int | None = None,
) -> OuterLoop:
    """The outer loop that settings describe.

    Args:
        solution: A solution of the structure, shapes and types of all others.
        population_size: Candidates of a generation; a meta-gradient has none but the solution.
        settings: Of a strategy, and whether its perturbations are stored; or of a meta-gradient.
        chunk_size: Candidates that exist at once where perturbations are regenerated; all of them if None.

    Raises:
        ValueError: A setting is not known, or does not suit the population size.
    """
    if isinstance(settings, MetaGradientSettings):
        return MetaGradient(settings)
    if settings.perturbations == "stored":
        return Evolution(solution, population_size, settings)
    return RegeneratedEvolution(solution, population_size, settings, chunk_size)
