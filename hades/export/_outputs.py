"""Outputs of a policy as every format has them, and the comparison of an exported one with ours."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from hades.distributions import Categorical
from hades.normalization import RunningStatistics
from hades.policy_file import TrainedPolicy
from hades.types import Discrete

_NUM_DRAWN = 256

STEPS = 8
"""Steps of the episodes on which policies with running normalisation are compared: in the first ones observations are
near their mean, and rounding errors large."""


class ExportError(ValueError):
    """Error of a policy that cannot be exported: one sentence with the file, and what was expected."""


Play: TypeAlias = Callable[[np.ndarray], Mapping[str, np.ndarray]]
"""Outputs by name of raw observations `[count, *observation_shape]`.

With running normalisation each is the last of an episode of `STEPS`, before which its neighbours in the batch come.
"""


class Content(NamedTuple):
    """An export before it is written.

    Attributes:
        files: Bytes of each file, that of the given path first.
        play: Plays what is in these bytes; None where nothing here can.
    """

    files: dict[Path, bytes]
    play: Play | None


def outputs_of(trained: TrainedPolicy) -> Callable[[jax.Array], dict[str, jax.Array]]:
    """The function of raw observations `[count, *observation_shape]` that an export stands for.

    Raises:
        ValueError: The policy has no spaces, or nothing describes its network.
    """
    policy, spaces = trained.architecture(), trained.require_spaces()
    normalizer = trained.params.normalizer
    statistics = normalizer.empty_statistics(spaces.observation_shape)

    def normalize(observations: jax.Array) -> jax.Array:
        if statistics is None:
            return normalizer.apply(observations)
        episodes = jnp.stack([jnp.roll(observations, shift, axis=0) for shift in reversed(range(STEPS))], axis=1)
        seen = jax.vmap(lambda episode: functools.reduce(_add, episode, statistics))(episodes)
        return jax.vmap(lambda gathered, last: gathered.apply(last))(seen, observations)

    def outputs(observations: jax.Array) -> dict[str, jax.Array]:
        distribution = policy.apply(trained.params.network, normalize(observations))
        if isinstance(distribution, Categorical):
            return {"action": distribution.mode(), "logits": distribution.logits}
        space = spaces.action_space
        assert not isinstance(space, Discrete)  # by `hades.policies.from_settings`
        mean, log_std = distribution.mean, distribution.log_std  # type: ignore[attr-defined]
        action = jnp.clip(distribution.mode(), jnp.array(space.low), jnp.array(space.high))
        return {"action": action, "mean": mean, "log_std": jnp.broadcast_to(log_std, mean.shape)}

    return outputs


def _add(statistics: RunningStatistics, observation: jax.Array) -> RunningStatistics:
    return statistics.update(observation[None], jnp.ones(1, bool))


def typical_observations(trained: TrainedPolicy) -> np.ndarray:
    """Normal raw observations `[count, *observation_shape]`, of the fixed statistics where there are some."""
    noise = np.random.default_rng(0).normal(size=(_NUM_DRAWN, *trained.require_spaces().observation_shape))
    mean, std = trained.params.normalizer.mean, trained.params.normalizer.std
    scaled = noise if mean is None or std is None else np.asarray(mean) + np.asarray(std) * noise
    return scaled.astype(np.float32)


class Difference(NamedTuple):
    """Largest difference of outputs from ours; a discrete action that is not ours counts as that of the two logits.

    Attributes:
        absolute: Of all outputs, in their own units.
        scaled: The same, relative to outputs that are above 1 in magnitude.
    """

    absolute: float
    scaled: float


def largest_difference(trained: TrainedPolicy, play: Play, observations: np.ndarray) -> Difference:
    """Compares the outputs of an export with those of the policy."""
    # On GPUs, products are below float32 otherwise.
    with jax.default_matmul_precision("highest"):
        ours = {name: np.asarray(value) for name, value in jax.jit(outputs_of(trained))(observations).items()}
    theirs = play(observations)
    if "logits" in ours:
        action = np.asarray(theirs["action"])
        theirs = {**theirs, "action": np.take_along_axis(ours["logits"], action[:, None], axis=1)[:, 0]}
        ours["action"] = ours["logits"].max(axis=1)
    errors = {name: np.abs(value - theirs[name]) for name, value in ours.items()}
    return Difference(
        max(float(np.max(error)) for error in errors.values()),
        max(float(np.max(error / np.maximum(1, np.abs(ours[name])))) for name, error in errors.items()),
    )
