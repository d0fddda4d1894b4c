"""The two things that a scene is: what is recorded of states, and the film that is made of an episode."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import jax
import numpy as np

from experiments.report.film import Film
from hades.rollouts.recorded import View, no_view
from hades.types import PyTree


@dataclass(frozen=True)
class Episode:
    """Steps of one recorded episode.

    Attributes:
        observations: Raw, those that actions were chosen by, `[time, *observation_shape]`.
        actions: `[time, action_dim]`, or `[time]` integer.
        rewards: `[time]`.
        views: What the scene's `view` recorded, arrays `[time, ...]`.
        terminated: Whether it reached an end that is part of the task.
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    views: PyTree = ()
    terminated: bool = False

    def __len__(self) -> int:
        """Steps."""
        return len(self.rewards)

    def part(self, steps: slice) -> Episode:
        """Some of its steps."""
        return replace(
            self,
            observations=self.observations[steps],
            actions=self.actions[steps],
            rewards=self.rewards[steps],
            views=jax.tree.map(lambda view: view[steps], self.views),
        )


@dataclass(frozen=True)
class Scene:
    """Drawing of an environment.

    Attributes:
        draw: Film of an episode, a frame for each step.
        view: What is recorded of states besides observations.
        draw_observations: Film of any observations `[frames, *observation_shape]`, in the environment's units; None
            where they do not tell all that is drawn.
    """

    draw: Callable[[Episode], Film]
    view: View = no_view
    draw_observations: Callable[[np.ndarray], Film] | None = None

    @classmethod
    def of_observations(cls, draw: Callable[[np.ndarray], Film]) -> Scene:
        """A scene that observations tell all of."""
        return cls(lambda episode: draw(episode.observations), draw_observations=draw)
