"""Labelled images as an environment: an episode is one image, and its return 1 where the class is right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hades.images.data import LabelledImages, Split
from hades.types import Discrete, HostStep


@dataclass(frozen=True, eq=False)
class ImageClassification:
    """A `hades.types.HostEnvironment` in which observations are images and actions their classes.

    The mean return is an accuracy. Policies are evaluated in it by `hades.rollouts.compiled_rollout`, which shows each
    image at most once; no method can train in it, so that test images stay unseen.

    Attributes:
        name: Name in files, such as `"images/mnist"`.
        data: The images.
        split: Which of the images of that name they are.

    Example:
        >>> data = LabelledImages(np.zeros((3, 2, 2, 1), np.float32), np.array([0, 1, 1]), num_classes=2)
        >>> env = ImageClassification("images/mine", data)
        >>> env.observation_shape, env.action_space, env.max_steps
        ((2, 2, 1), Discrete(num_actions=2), 1)
        >>> env.simulate(np.array([0])).step(np.array([[0]])).rewards
        array([1.])
    """

    name: str
    data: LabelledImages
    split: Split = "test"

    @property
    def options(self) -> Mapping[str, Any]:
        """The split, where it is not the test images; the folder of the files is no part of it."""
        return {} if self.split == "test" else {"split": self.split}

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """Height, width and channels."""
        return tuple(self.data.images.shape[1:])

    @property
    def action_space(self) -> Discrete:
        """The classes."""
        return Discrete(self.data.num_classes)

    @property
    def max_steps(self) -> int:
        """One step, which names the class."""
        return 1

    def simulate(self, seeds: np.ndarray) -> _Shown:
        """Shows one image for each seed, that of the seed modulo the number of images."""
        rows = np.asarray(seeds, np.int64) % self.data.num_images
        return _Shown(np.asarray(self.data.images)[rows], np.asarray(self.data.labels)[rows])


class _Shown:
    """Images that are shown side by side: a `hades.types.HostSimulator`."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.observations = images
        self.alive = np.ones(len(labels), bool)
        self._labels = labels

    def step(self, actions: np.ndarray) -> HostStep:
        """Ends every episode, with 1 where its class was named; `actions` are `[episodes, 1]`."""
        named = np.asarray(actions).reshape(len(self._labels))
        rewards = np.where(self.alive, named == self._labels, 0.0)
        terminated, self.alive = self.alive, np.zeros_like(self.alive)
        return HostStep(self.observations, rewards, terminated, np.zeros_like(terminated))

    def close(self) -> None:
        """Ends every episode."""
        self.alive = np.zeros_like(self.alive)
