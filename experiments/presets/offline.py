"""Presets of `hades offline distill` and `hades offline teach`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from experiments.presets._preset import Preset
from hades.offline.cal_ql import CalQLSettings
from hades.recipes.published import paper_offline
from hades.training import LoopSettings

LOOP = LoopSettings(iterations_per_call=20, evaluate_every=500, evaluation_inits=16, evaluation_episodes=5)
"""Default of the command."""


def _paper() -> Preset:
    return Preset(num_iterations=50_000, settings=paper_offline(), loop=LOOP)


PRESETS: dict[str, Callable[[], Preset]] = {"paper": _paper}
"""Presets by name; the published one is for any environment."""


TEACH_LOOP = LoopSettings(
    iterations_per_call=100, log_every=1000, evaluate_every=None, evaluation_inits=1, evaluation_episodes=16
)
"""Default of `hades offline teach`; short calls, so that the time left is told soon."""


def _teach_small() -> Preset:
    """A teacher in minutes on a CPU, whose first updates imitate the data."""
    settings = CalQLSettings(
        actor_hidden_sizes=(128, 128),
        critic_hidden_sizes=(128, 128),
        actor_learning_rate=3e-4,
        critic_learning_rate=1e-3,
        batch_size=128,
        num_actions=4,
        cloning_updates=2000,
    )
    loop = dataclasses.replace(TEACH_LOOP, evaluate_every=2000)
    return Preset(num_iterations=20_000, settings=settings, loop=loop)


def _teach_paper() -> Preset:
    """The size of the published teachers: a million updates, days on a CPU."""
    return Preset(num_iterations=1_000_000, settings=CalQLSettings(), loop=TEACH_LOOP)


TEACH_PRESETS: dict[str, Callable[[], Preset]] = {"small": _teach_small, "paper": _teach_paper}
"""Presets of `hades offline teach` by name, for any data."""
