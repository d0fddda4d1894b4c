"""Observation normalisation: none, fixed statistics, or statistics that a rollout gathers as it goes."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from flax import struct

Normalization = Literal["none", "fixed", "running"]

# The published Brax runs normalise by sqrt(variance + 1e-8).
_VARIANCE_EPSILON = 1e-8

PUBLISHED_PRIOR_COUNT = 1e-4
"""Observations that the prior of mean 0 and variance 1 counts as in the running statistics of the published Brax runs.

It reproduces their files. Far from 0 it dominates for long: an offset of 1e5 adds 28.9 to the standard deviation that
1,200 observations of spread 1 have.
"""

LARGEST = 1e15
"""Largest magnitude that statistics count: the sum of a hundred million squares of it is still a float32."""


@struct.dataclass
class RunningStatistics:
    """Mean and variance of all observations up to now.

    Attributes:
        mean: `[*observation_shape]`.
        variance: `[*observation_shape]`, of the population (not the unbiased estimate).
        count: `[]`, observations seen, those of the prior included.
    """

    mean: jax.Array
    variance: jax.Array
    count: jax.Array

    @classmethod
    def empty(cls, observation_shape: tuple[int, ...], prior_count: float = 0.0) -> RunningStatistics:
        """Statistics before the first observation: mean 0, variance 1.

        Args:
            observation_shape: Shape of an observation.
            prior_count: Observations that this mean and variance count as from then on.
        """
        return cls(jnp.zeros(observation_shape), jnp.ones(observation_shape), jnp.float32(prior_count))

    def update(self, observations: jax.Array, mask: jax.Array) -> RunningStatistics:
        """Adds a batch by the parallel formula of Chan, Golub and LeVeque (1983).

        Args:
            observations: `[batch, *observation_shape]`. One with a component that is not finite, or beyond `LARGEST`,
                does not count.
            mask: `[batch]` bool, which of them count.
        """
        mask = mask & jnp.all(representable(observations), axis=tuple(range(1, observations.ndim)))
        weights = mask.reshape(mask.shape + (1,) * (observations.ndim - 1)).astype(observations.dtype)
        batch_count = jnp.sum(mask).astype(jnp.float32)
        # Masked observations may be anything, also not finite.
        observations = jnp.where(weights > 0, observations, 0.0)
        batch_mean = jnp.sum(observations, axis=0) / jnp.maximum(batch_count, 1.0)
        squared = jnp.sum(weights * jnp.square(observations - batch_mean), axis=0)
        total = self.count + batch_count
        counted = jnp.where(total > 0, total, 1.0)
        delta = batch_mean - self.mean
        moment = self.variance * self.count + squared + jnp.square(delta) * self.count * batch_count / counted
        variance = jnp.where(total > 0, moment / counted, self.variance)
        return RunningStatistics(self.mean + delta * batch_count / counted, variance, total)

    def mixture(self, weights: jax.Array) -> RunningStatistics:
        """The statistics of a mixture of several, which these are.

        Args:
            weights: `[parts]`, in proportion to their shares; each field of these statistics is `[parts, ...]`.
        """
        shares = (weights / jnp.sum(weights)).reshape(-1, *(1,) * (self.mean.ndim - 1))
        # No matrix products, which may be rounded.
        mean = jnp.sum(shares * self.mean, axis=0)
        variance = jnp.sum(shares * (self.variance + jnp.square(self.mean - mean)), axis=0)
        return RunningStatistics(mean, variance, jnp.sum(self.count))

    def apply(self, observations: jax.Array) -> jax.Array:
        """Normalises observations `[..., *observation_shape]`."""
        return (observations - self.mean) / jnp.sqrt(self.variance + _VARIANCE_EPSILON)


def representable(values: jax.Array) -> jax.Array:
    """Whether each of some values is finite and at most `LARGEST` in magnitude, bool of the same shape."""
    return jnp.abs(values) <= LARGEST


def mean_and_std(values: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and standard deviation of all values, which do not overflow where the values are finite.

    Example:
        >>> mean, std = mean_and_std(jnp.array([1e30, 3e30]))
        >>> round(float(mean) / 1e30), round(float(std) / 1e30)
        (2, 1)
    """
    largest = jnp.max(jnp.abs(values))
    scale = jnp.where(largest > LARGEST, largest, 1.0)
    scaled = values / scale
    return scale * jnp.mean(scaled), scale * jnp.std(scaled)


@struct.dataclass
class Normalizer:
    """Normalisation of raw observations into those that a policy sees.

    Attributes:
        kind: `"none"`, `"fixed"`, or `"running"`: statistics that start empty in every rollout and are shared by a
            group of its parallel environments, as in the published Brax runs.
        mean: `[*observation_shape]` for fixed, otherwise None.
        std: `[*observation_shape]` for fixed, otherwise None.
        prior_count: Observations that the prior of running statistics counts as; files with running normalisation
            were made, and are evaluated, with that of the published runs.

    Example:
        >>> fixed = Normalizer("fixed", mean=jnp.array([1.0]), std=jnp.array([2.0]))
        >>> fixed.apply(jnp.array([5.0])).tolist()
        [2.0]
    """

    kind: Normalization = struct.field(pytree_node=False, default="none")
    mean: jax.Array | None = None
    std: jax.Array | None = None
    prior_count: float = struct.field(pytree_node=False, kw_only=True, default=PUBLISHED_PRIOR_COUNT)

    def apply(self, observations: jax.Array) -> jax.Array:
        """Normalises observations `[..., *observation_shape]` by the fixed statistics, if there are any."""
        return observations if self.mean is None or self.std is None else (observations - self.mean) / self.std

    def empty_statistics(self, observation_shape: tuple[int, ...]) -> RunningStatistics | None:
        """Statistics at the start of a rollout with running normalisation; None for the other kinds."""
        return RunningStatistics.empty(observation_shape, self.prior_count) if self.kind == "running" else None

    @classmethod
    def from_statistics(cls, statistics: RunningStatistics, min_std: float) -> Normalizer:
        """Freezes gathered statistics.

        Args:
            statistics: Gathered statistics.
            min_std: Smallest standard deviation, in the units of the observation. Without it a component that
                stood still while the statistics were gathered, such as a pixel that is never lit, gets a gain of 1e4.
        """
        return cls("fixed", statistics.mean, jnp.maximum(jnp.sqrt(statistics.variance), min_std))


@struct.dataclass
class PolicyParams:
    """Parameters of a policy with the normalisation that they were trained with.

    Attributes:
        network: What `Policy.init` returns; leading axes for many policies.
        normalizer: Turns raw observations into what the network sees.
    """

    network: object
    normalizer: Normalizer = Normalizer()
