"""Observation normalisation: none, fixed statistics, or statistics that a rollout gathers as it goes."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from flax import struct

Normalization = Literal["none", "fixed", "running"]

# The published Brax runs normalise by sqrt(variance + 1e-8) and count the prior (mean 0, variance 1) as 1e-4 samples.
_VARIANCE_EPSILON = 1e-8
_PRIOR_COUNT = 1e-4


@struct.dataclass
class RunningStatistics:
    """Mean and variance of what was seen so far.

    Attributes:
        mean: `[*observation_shape]`.
        variance: `[*observation_shape]`, of the population (not the unbiased estimate).
        count: `[]`, observations seen.
    """

    mean: jax.Array
    variance: jax.Array
    count: jax.Array

    @classmethod
    def empty(cls, observation_shape: tuple[int, ...]) -> RunningStatistics:
        """Statistics that have seen nothing: mean 0, variance 1."""
        return cls(jnp.zeros(observation_shape), jnp.ones(observation_shape), jnp.float32(_PRIOR_COUNT))

    def update(self, observations: jax.Array, mask: jax.Array) -> RunningStatistics:
        """Adds a batch by the parallel formula of Chan, Golub and LeVeque (1983).

        Args:
            observations: `[batch, *observation_shape]`.
            mask: `[batch]` bool, which of them count.
        """
        weights = mask.reshape(mask.shape + (1,) * (observations.ndim - 1)).astype(observations.dtype)
        batch_count = jnp.sum(mask).astype(jnp.float32)
        # Masked observations may be anything, also not finite.
        observations = jnp.where(weights > 0, observations, 0.0)
        batch_mean = jnp.sum(observations, axis=0) / jnp.maximum(batch_count, 1.0)
        squared = jnp.sum(weights * jnp.square(observations - batch_mean), axis=0)
        total = self.count + batch_count
        delta = batch_mean - self.mean
        moment = self.variance * self.count + squared + jnp.square(delta) * self.count * batch_count / total
        return RunningStatistics(self.mean + delta * batch_count / total, moment / total, total)

    def apply(self, observations: jax.Array) -> jax.Array:
        """Normalises observations `[..., *observation_shape]`."""
        return (observations - self.mean) / jnp.sqrt(self.variance + _VARIANCE_EPSILON)


@struct.dataclass
class Normalizer:
    """How raw observations become what a policy sees.

    Attributes:
        kind: `"none"`, `"fixed"`, or `"running"`: statistics that start empty in every rollout and are shared by a
            group of its parallel environments, as in the published Brax runs.
        mean: `[*observation_shape]` for fixed, otherwise None.
        std: `[*observation_shape]` for fixed, otherwise None.

    Example:
        >>> fixed = Normalizer("fixed", mean=jnp.array([1.0]), std=jnp.array([2.0]))
        >>> fixed.apply(jnp.array([5.0])).tolist()
        [2.0]
    """

    kind: Normalization = struct.field(pytree_node=False, default="none")
    mean: jax.Array | None = None
    std: jax.Array | None = None

    def apply(self, observations: jax.Array) -> jax.Array:
        """Normalises observations `[..., *observation_shape]` by the fixed statistics, if there are any."""
        return observations if self.mean is None or self.std is None else (observations - self.mean) / self.std

    @classmethod
    def from_statistics(cls, statistics: RunningStatistics, min_std: float) -> Normalizer:
        """Fixes what was gathered.

        Args:
            statistics: Gathered statistics.
            min_std: Smallest standard deviation, in the units of the observation. Without it a component that
                stood still while the statistics were gathered, such as a pixel that is never lit, gets a gain of 1e4.
        """
        return cls("fixed", statistics.mean, jnp.maximum(jnp.sqrt(statistics.variance), min_std))


@struct.dataclass
class PolicyParams:
    """All that playing a policy takes: its parameters, and the normalisation they were trained with.

    Attributes:
        network: What `Policy.init` returns; leading axes for many policies.
        normalizer: Turns raw observations into what the network sees.
    """

    network: object
    normalizer: Normalizer = Normalizer()
