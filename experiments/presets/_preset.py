"""Presets of all methods: the record, and what several of them share."""

from __future__ import annotations

from dataclasses import dataclass, replace
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

CONTACT: dict[str, tuple[str, EnvironmentOptions]] = {
    # From rest, actions that change at every step never swing the ball into the cup: each is held for 0.2 s.
    "ball-in-cup": ("playground/BallInCup", EnvironmentOptions(env_options={"action_repeat": 10})),
    "finger-spin": ("playground/FingerSpin", EnvironmentOptions()),
    # Gymnasium's limit, which Brax, with a thousand steps, does not have. On a CPU the positional and spring backends,
    # of fifty small steps each, take twice as long.
    "pusher": ("brax/pusher", EnvironmentOptions(backend="generalized", max_steps=100)),
}
"""Tasks of moving an object by contact: names of their presets, environments and options."""
CONTACT_GAMMA = {"ball-in-cup": 0.97, "finger-spin": 0.95, "pusher": 0.95}
"""Discounts of tasks by contact; that of finger-spin is Playground's own PPO's."""
CONTACT_LOG_STD = {"pusher": -1.5}
"""First log standard deviations of the actions of policy gradients; in pusher, wide actions cost more than the task."""

SMALL_LOOP = LoopSettings(evaluate_every=20, evaluation_inits=16, evaluation_episodes=8)
PAPER_LOOP = LoopSettings(iterations_per_call=5, evaluate_every=50)
CONTACT_LOOP = LoopSettings(iterations_per_call=5, evaluate_every=20, evaluation_inits=8, evaluation_episodes=4)
"""An evaluation with 16 initialisations and 8 episodes of a thousand steps costs as much as 16 iterations."""


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

    def with_settings(self, **changes: Any) -> Preset:
        """The same run with other settings of its method."""
        return replace(self, settings=replace(self.settings, **changes))
