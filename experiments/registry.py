"""Names of the parts, which exist in the command alone: one line for each part that it can be asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hades.objectives import states
from hades.objectives.states import StateObjective
from hades.outer import MetaGradient, evolution_from_settings
from hades.types import AnyEnvironment, InnerLoop, OuterLoop

OBJECTIVES: dict[str, StateObjective] = {
    objective.name: objective
    for objective in (
        states.dbc,
        states.pbc,
        states.av_pbc,
        states.sdw_pbc,
        states.sdw_av_pbc,
        states.pbc_mean_weight,
        states.q_pbc,
    )
}
"""Objectives of `hades offline distill`, by name."""

INNER_LOOPS: dict[str, Callable[[AnyEnvironment, Any], InnerLoop | None]] = {
    "cloning": lambda env, settings: None,
}
"""Inner loops of `hades offline distill`, by name, made for an environment from settings; None is the recipe's own."""

OUTER_LOOPS: dict[str, Callable[[Any], OuterLoop]] = {
    "meta-gradient": lambda settings: MetaGradient.from_settings(settings.meta_gradient),
    "evolution": lambda settings: evolution_from_settings(settings.population_size, settings.evolution),
}
"""Outer loops of `hades offline distill`, by name, made from its settings."""
