"""Presets of `hades baseline es`: neuroevolution beside each preset of HaDES."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial

from experiments.presets import distill
from experiments.presets._preset import MINATAR, PAPER_BRAX, PAPER_LOOP, Preset
from hades.recipes.neuroevolution import NeuroevolutionSettings
from hades.recipes.population import PopulationSettings
from hades.recipes.published import paper_es_brax, paper_es_minatar


def _counterpart(name: str) -> Preset:
    """The network that a preset of HaDES clones, with its population, episodes and normalisation."""
    of_hades = distill.PRESETS[name]()
    settings = of_hades.settings
    shared = {field.name: getattr(settings, field.name) for field in dataclasses.fields(PopulationSettings)}
    shared["evolution"] = dataclasses.replace(settings.evolution, sigma=0.1, learning_rate=0.03)
    # As many rollouts of a candidate, where HaDES plays with several inits.
    shared["num_episodes"] = settings.num_episodes * settings.num_inits
    return dataclasses.replace(
        of_hades, settings=NeuroevolutionSettings(**shared, network=settings.cloning.network_settings)
    )


def _paper_brax(robot: str) -> Preset:
    return Preset(env=f"brax/{robot}", num_iterations=2000, settings=paper_es_brax(), loop=PAPER_LOOP)


def _paper_minatar(game: str) -> Preset:
    return Preset(env=f"gymnax/{game}-MinAtar", num_iterations=5000, settings=paper_es_minatar(), loop=PAPER_LOOP)


PRESETS: dict[str, Callable[[], Preset]] = {
    **{name: partial(_counterpart, name) for name in distill.PRESETS if not name.startswith("paper/")},
    **{f"paper/{game.lower()}": partial(_paper_minatar, game) for game in MINATAR},
    **{f"paper/{robot}": partial(_paper_brax, robot) for robot in PAPER_BRAX},
}
"""Presets by name; those that begin with paper/ are published."""
