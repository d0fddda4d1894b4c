"""Parametrisation of synthetic images: pixels in range, labels fixed or learned."""

from __future__ import annotations

from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
from flax import struct

from hades._pairs import clipped, even_labels, smooth_logits
from hades._validation import require_positive
from hades.dataset import SyntheticDataset
from hades.images.data import LabelledImages
from hades.types import Solution

FirstImages: TypeAlias = Literal["class_means", "real"]
"""First images: the mean of each class, or real images of it."""


@struct.dataclass
class ImagePairs:
    """Synthetic images, as many of each class, with one-hot labels or learned distributions over classes.

    A `hades.types.Parametrization`. Image i begins as one of class `i mod num_classes`.

    Attributes:
        data: Real images to begin with.
        per_class: Images of each class.
        first: Mean images of the classes, those of disjoint random parts of each where `per_class` is above 1; or
            random real images.
        learn_labels: Whether labels are softmax of free logits, which begin near one-hot, or stay one-hot.
        bounded: Whether decoded pixels are clipped to between 0 and 1, gradients passing as if they were not.

    Raises:
        ValueError: `per_class` is not positive.

    Example:
        >>> data = LabelledImages(jnp.array([0.0, 0.25, 0.75]).reshape(3, 1, 1, 1), jnp.array([0, 1, 1]), num_classes=2)
        >>> pairs = ImagePairs(data, learn_labels=False)
        >>> dataset = pairs.decode(pairs.init(jax.random.key(0)))
        >>> dataset.observations.ravel().tolist(), dataset.action_probabilities.tolist()
        ([0.0, 0.5], [[1.0, 0.0], [0.0, 1.0]])
    """

    data: LabelledImages
    per_class: int = struct.field(pytree_node=False, default=1)
    first: FirstImages = struct.field(pytree_node=False, default="class_means")
    learn_labels: bool = struct.field(pytree_node=False, default=True)
    bounded: bool = struct.field(pytree_node=False, default=True)

    def __post_init__(self) -> None:
        """Refuses a number of images that is not positive."""
        require_positive("per_class", self.per_class)

    def init(self, key: jax.Array) -> Solution:
        """Draws the first images."""
        solution = {"observations": self._first_images(key, self.first)}
        if self.learn_labels:
            solution["action_logits"] = smooth_logits(self._one_hot)
        return solution

    def decode(self, solution: Solution) -> SyntheticDataset:
        """Images and labels of one solution."""
        images = solution["observations"]
        if self.bounded:
            images = clipped(images, 0.0, 1.0)
        labels = jax.nn.softmax(solution["action_logits"]) if self.learn_labels else self._one_hot
        return SyntheticDataset(images, action_probabilities=labels)

    def references(self, key: jax.Array) -> dict[str, SyntheticDataset]:
        """As many images with one-hot labels that nothing has distilled, by name: random real ones, and class means."""
        names: dict[str, FirstImages] = {"random real images": "real", "class means": "class_means"}
        return {
            name: SyntheticDataset(self._first_images(key, first), action_probabilities=self._one_hot)
            for name, first in names.items()
        }

    @property
    def _one_hot(self) -> jax.Array:
        return even_labels(self.per_class * self.data.num_classes, self.data.num_classes)

    def _first_images(self, key: jax.Array, first: FirstImages) -> jax.Array:
        images, labels = jnp.asarray(self.data.images), jnp.asarray(self.data.labels)
        classes = self.data.num_classes
        shuffled = jax.random.permutation(key, labels.shape[0])
        rows = shuffled[jnp.argsort(labels[shuffled], stable=True)]
        sizes = self.data.class_sizes()
        # Place of each row among those of its class.
        starts = jnp.cumsum(sizes) - sizes
        if first == "real":
            places = jnp.arange(self.per_class)[:, None] + starts
            return images[rows[places.ravel()]]
        ranks = jnp.arange(labels.shape[0]) - starts[labels[rows]]
        groups = jnp.zeros_like(rows).at[rows].set(ranks % self.per_class * classes + labels[rows])
        sums = jax.ops.segment_sum(images, groups, self.per_class * classes)
        counts = jnp.bincount(groups, length=self.per_class * classes)
        return sums / jnp.maximum(counts, 1).reshape(-1, 1, 1, 1)
