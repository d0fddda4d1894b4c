"""The synthetic pairs as a person reads them: in words and units of the environment, beside the states it visits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from experiments.pictures.content import Content
from experiments.pictures.names import action_labels, observation_labels
from experiments.report.scenes import images
from experiments.report.scenes.scene import Scene
from hades.dataset import SyntheticDataset
from hades.normalization import Normalizer

MAX_COMPONENTS = 12
MAX_PICTURES = 256


@dataclass(frozen=True)
class Nearest:
    """The visited state that is nearest to each pair, in the space that the policy sees.

    Attributes:
        steps: Its step, `[pairs]`.
        distances: Root mean square distance over components, `[pairs]`.
        typical: Median over visited states of the same distance from their mean.
        shares: Share of the visited states that each pair is the nearest one of, `[pairs]`.
    """

    steps: np.ndarray
    distances: np.ndarray
    typical: float
    shares: np.ndarray

    @property
    def order(self) -> list[int]:
        """Pairs, those that are nearest to most of the visited states first."""
        return np.lexsort((self.distances, -self.shares)).tolist()


def nearest_states(observations: np.ndarray, normalizer: Normalizer, visited: np.ndarray) -> Nearest:
    """Compares pairs with visited states.

    Args:
        observations: Of the pairs, `[pairs, *observation_shape]`, as the policy sees them.
        normalizer: Normalisation of what was visited.
        visited: Raw observations, `[time, *observation_shape]`.
    """
    pairs = np.asarray(observations, np.float64).reshape(len(observations), -1)
    states = np.asarray(normalizer.apply(jnp.asarray(visited)), np.float64).reshape(len(visited), -1)
    # |a - b|^2 without an array of [pairs, time, components].
    squares = (pairs**2).sum(1)[:, None] + (states**2).sum(1) - 2 * pairs @ states.T
    distances = np.sqrt(np.maximum(squares, 0.0) / pairs.shape[1])
    steps = distances.argmin(axis=1)
    typical = float(np.median(np.sqrt(np.mean((states - states.mean(0)) ** 2, axis=1))))
    shares = np.bincount(distances.argmin(axis=0), minlength=len(pairs)) / len(states)
    return Nearest(steps, distances[np.arange(len(pairs)), steps], typical, shares)


def pairs_to_dict(
    dataset: SyntheticDataset, scene: Scene | None, nearest: Nearest | None, visited: np.ndarray | None
) -> dict[str, Any]:
    """The pairs as JSON.

    Args:
        dataset: The dataset.
        scene: Draws observations where they tell all that is drawn; None where there is no environment.
        nearest: Nearest visited states; None where nothing was played.
        visited: Raw observations of the film, `[time, *observation_shape]`.
    """
    content = Content.of(dataset)
    result: dict[str, Any] = {
        "count": content.num_pairs,
        "discrete": content.discrete,
        "units": content.readable_units,
        "action_names": action_labels(content.environment, content.actions.shape[1]),
        "actions": np.round(content.actions, 4).tolist(),
    }
    if content.readable.ndim == 2:
        result |= _components(content, None if _in_policy_units(dataset) else visited)
    pictures = _pictures(content, scene, dataset)
    if pictures is not None:
        result["picture"] = pictures
    if nearest is not None:
        result["nearest"] = {
            "steps": nearest.steps.tolist(),
            "distances": _rounded(nearest.distances),
            "shares": _rounded(nearest.shares),
        }
    return result


def _in_policy_units(dataset: SyntheticDataset) -> bool:
    """Whether the file does not tell the environment's units."""
    return dataset.normalizer().kind == "running"


def _components(content: Content, visited: np.ndarray | None) -> dict[str, Any]:
    """Values of components in readable units, of many those that differ most, and the range of what was visited."""
    count = content.readable.shape[1]
    spread = content.observations.std(axis=0) if content.num_pairs > 1 else np.abs(content.observations[0])
    chosen = sorted(np.argsort(-spread, kind="stable")[:MAX_COMPONENTS].tolist())
    names = observation_labels(content.environment, count)
    ranges = None if visited is None else [_rounded(end(visited, axis=0)[chosen]) for end in (np.min, np.max)]
    return {
        "observation_names": [names[index] for index in chosen],
        "values": [_rounded(row[chosen]) for row in content.readable],
        "visited": ranges,
        "num_components": count,
    }


def _pictures(content: Content, scene: Scene | None, dataset: SyntheticDataset) -> dict[str, Any] | None:
    """Film with a frame for each pair, None where its observation cannot be drawn."""
    if content.num_pairs > MAX_PICTURES or _in_policy_units(dataset):
        return None
    if scene is not None and scene.draw_observations is not None:
        return scene.draw_observations(content.readable).to_dict()
    is_image = content.readable.ndim in (3, 4)
    return images.draw(content.environment, content.readable).to_dict() if is_image else None


def _rounded(values: np.ndarray | Sequence[float]) -> list[float]:
    """Numbers to five significant digits."""
    return [float(f"{value:.5g}") for value in np.asarray(values, np.float64)]
