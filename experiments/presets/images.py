"""Presets of `hades images distill`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from experiments.presets._preset import Preset
from hades.recipes.images import ImageSettings
from hades.recipes.published import paper_images
from hades.training import LoopSettings

LOOP = LoopSettings(iterations_per_call=5, evaluate_every=60, evaluation_inits=4, evaluation_episodes=1000)
"""Default of the command."""


def _paper() -> Preset:
    return Preset(num_iterations=1000, settings=paper_images(), loop=dataclasses.replace(LOOP, iterations_per_call=1))


def _small() -> Preset:
    """Meta-gradients for minutes of a CPU, with learned labels, through a network that is cheap to train."""
    default, iterations = ImageSettings(), 800
    settings = dataclasses.replace(
        default,
        cloning=dataclasses.replace(default.cloning, policy="mlp"),
        meta_gradient=dataclasses.replace(default.meta_gradient, anneal_iterations=iterations),
    )
    loop = dataclasses.replace(LOOP, iterations_per_call=20, evaluate_every=200, evaluation_inits=8)
    return Preset(num_iterations=iterations, settings=settings, loop=loop)


PRESETS: dict[str, Callable[[], Preset]] = {
    "mnist": _small,
    "fashion": _small,
    "paper": _paper,
}
"""Presets by name, for any images; the name of these is that of their folder."""
