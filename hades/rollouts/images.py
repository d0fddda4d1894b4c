"""Rollouts in image classification: each image at most once, in chunks that fit a cache."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from hades._rows import swapped
from hades._validation import require_positive
from hades.distributions import ActionSelection, choose, invalid_actions
from hades.fitness import map_chunks
from hades.images.environment import ImageClassification
from hades.normalization import Normalizer
from hades.policies import Policy
from hades.rollouts.first_episode import EpisodeReturns, Rollout
from hades.types import PyTree

_CHUNK = 250


def make_image_rollout(
    env: ImageClassification,
    policy: Policy,
    num_episodes: int,
    action_selection: ActionSelection = "sample",
    normalization_envs: int | None = None,
) -> Rollout:
    """Makes the compiled function that classifies images with a batch of policies, one policy after the other.

    Each initialisation sees `num_episodes` images that its key draws without replacement, and candidates share them;
    with as many episodes as there are images, all of them. A policy whose logits hold a NaN has diverged there.

    Args:
        env: The images.
        policy: Classifies; its parameters come with each call.
        num_episodes: Images of each policy.
        action_selection: Whether classes are drawn from the policy's distribution or are its mode.
        normalization_envs: None, as images share no statistics.

    Returns:
        A function of keys `[inits]`, network parameters with leading axes `[candidates, inits]`, and a normalizer;
        returns are 1 where the class is right, else 0.

    Raises:
        ValueError: `num_episodes` is not positive, or more than there are images, or `normalization_envs` is not None.
    """
    if normalization_envs is not None:
        raise ValueError(f"normalization_envs: expected none, as images share no statistics, got {normalization_envs}")
    require_positive("num_episodes", num_episodes)
    if num_episodes > env.data.num_images:
        raise ValueError(
            f"num_episodes: expected at most {env.data.num_images}, the images of {env.name}, got {num_episodes}"
        )

    def classify(
        key: jax.Array, params: PyTree, normalizer: Normalizer, images: jax.Array, labels: jax.Array
    ) -> jax.Array:
        row_key, action_key = jax.random.split(key)
        rows = jnp.arange(num_episodes)
        if num_episodes < labels.shape[0]:
            rows = jax.random.choice(row_key, labels.shape[0], (num_episodes,), replace=False)

        def score(chunk: tuple[jax.Array, jax.Array]) -> jax.Array:
            rows, keys = chunk
            distribution = policy.apply(params, normalizer.apply(images[rows]))
            named = jax.vmap(lambda key, own: choose(key, own, action_selection))(keys, distribution)
            right = (named == labels[rows]).astype(jnp.float32)
            return jnp.where(invalid_actions(distribution, named), jnp.nan, right)

        return map_chunks(score, (rows, jax.random.split(action_key, num_episodes)), _CHUNK)

    @jax.jit
    def classify_all(
        keys: jax.Array, params: PyTree, normalizer: Normalizer, images: jax.Array, labels: jax.Array
    ) -> jax.Array:
        def of_init(own: tuple[jax.Array, PyTree]) -> jax.Array:
            key, candidates = own
            return jax.lax.map(lambda params: classify(key, params, normalizer, images, labels), candidates)

        return swapped(jax.lax.map(of_init, (keys, swapped(params))))

    def rollout(keys: jax.Array, params: PyTree, normalizer: Normalizer) -> EpisodeReturns:
        returns = classify_all(keys, params, normalizer, env.data.images, env.data.labels)
        return EpisodeReturns(returns, jnp.ones(returns.shape, jnp.int32))

    return rollout
