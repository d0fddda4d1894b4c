"""Presets of `hades offline distill`."""

from __future__ import annotations

from collections.abc import Callable

from experiments.presets._preset import Preset
from hades.recipes.published import paper_offline
from hades.training import LoopSettings

LOOP = LoopSettings(iterations_per_call=20, evaluate_every=500, evaluation_inits=4, evaluation_episodes=5)
"""Default of the command."""


def _paper() -> Preset:
    return Preset(num_iterations=50_000, settings=paper_offline(), loop=LOOP)


PRESETS: dict[str, Callable[[], Preset]] = {"paper": _paper}
"""Presets by name; the published one is for any environment."""
