"""Presets of `hades images distill`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from experiments.presets._preset import Preset
from hades.recipes.published import paper_images
from hades.training import LoopSettings

LOOP = LoopSettings(iterations_per_call=5, evaluate_every=50, evaluation_inits=4, evaluation_episodes=2000)
"""Default of the command."""


def _paper() -> Preset:
    return Preset(num_iterations=1000, settings=paper_images(), loop=dataclasses.replace(LOOP, iterations_per_call=1))


PRESETS: dict[str, Callable[[], Preset]] = {"paper": _paper}
"""Presets by name."""
