"""Presets of all methods: the record, and what several of them share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from experiments.environments import EnvironmentOptions
from hades.training import LoopSettings

PAPER_BRAX = (
    "ant",
    "halfcheetah",
    "hopper",
    "humanoid",
    "humanoidstandup",
    "inverted_double_pendulum",
    "reacher",
    "walker2d",
)
"""Brax environments of the published runs."""
MINATAR = ("Asterix", "Breakout", "Freeway", "SpaceInvaders")
"""MinAtar games of the published runs."""

SMALL_LOOP = LoopSettings(evaluate_every=20, evaluation_inits=16, evaluation_episodes=8)
PAPER_LOOP = LoopSettings(iterations_per_call=5, evaluate_every=50)


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Settings of a whole run.

    Attributes:
        env: Environment; None leaves it to the flags.
        options: Options of the environment.
        num_iterations: Length of the run.
        settings: Of the method.
        loop: Of the host loop.
    """

    env: str | None = None
    options: EnvironmentOptions = EnvironmentOptions()
    num_iterations: int
    settings: Any
    loop: LoopSettings
