"""Content of a dataset's picture: arrays in readable units, and the words for these units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from envs.names import IMAGES_PREFIX, measure_of

if TYPE_CHECKING:
    from hades.dataset import SyntheticDataset
    from hades.metadata import EvaluationSummary

UNKNOWN = "unknown environment"


@dataclass(frozen=True)
class Content:
    """A dataset made ready to be drawn.

    Attributes:
        environment: Name of the environment, such as `"brax/hopper"`.
        observations: `[num_pairs, *observation_shape]`, in the policy's space.
        readable: `[num_pairs, *observation_shape]`, in the environment's units where the file allows it.
        readable_units: Says in words which units `readable` has.
        policy_units: Says in words which units `observations` has; the same words where the two are the same.
        actions: `[num_pairs, action_dim]`, or the probabilities, `[num_pairs, num_actions]`.
        discrete: Whether `actions` are probabilities.
        title: Headline: method, environment, number of pairs.
        photographs: Whether observations are photographs, whose channels are grey, or red, green and blue.
        score: What fresh policies trained on the dataset return, or that this is not known.
    """

    environment: str
    observations: np.ndarray
    readable: np.ndarray
    readable_units: str
    policy_units: str
    actions: np.ndarray
    discrete: bool
    title: str
    photographs: bool
    score: str

    @property
    def num_pairs(self) -> int:
        """Number of synthetic pairs."""
        return len(self.observations)

    @classmethod
    def of(cls, dataset: SyntheticDataset) -> Content:
        """Reads a dataset.

        Args:
            dataset: See `dataset_figure`.

        Raises:
            ValueError: There are no pairs, not exactly one kind of action, or numbers of pairs that differ.
        """
        if (dataset.actions is None) == (dataset.action_probabilities is None):
            raise ValueError("dataset: expected exactly one of actions and action_probabilities")
        discrete = dataset.actions is None
        observations = np.asarray(dataset.observations, np.float64)
        actions = np.asarray(dataset.action_probabilities if discrete else dataset.actions, np.float64)
        if not len(observations) or len(observations) != len(actions) or actions.ndim != 2:
            raise ValueError(
                "dataset: expected observations [num_pairs, ...] and actions [num_pairs, ...] with at least one pair, "
                f"got shapes {observations.shape} and {actions.shape}"
            )
        readable, readable_units, policy_units = _readable(dataset, observations)
        count, metadata = len(observations), dataset.metadata
        environment = UNKNOWN if metadata is None else metadata.env
        pairs = f"{count:,} synthetic pair{'s' if count > 1 else ''}"
        method = f" by {metadata.method}" if metadata is not None and metadata.method else ""
        score = _score(measure_of(environment), None if metadata is None else metadata.evaluation)
        title = f"{environment}: {pairs}{method}"
        # Of another number of channels nobody knows the colours.
        photographs = environment.startswith(IMAGES_PREFIX) and observations.shape[1:][2:] in ((1,), (3,))
        units = (readable_units, policy_units)
        return cls(environment, observations, readable, *units, actions, discrete, title, photographs, score)


def _readable(dataset: SyntheticDataset, observations: np.ndarray) -> tuple[np.ndarray, str, str]:
    """Observations in readable units, the words for these units, and the words for the policy's space."""
    if dataset.observation_mean is not None and dataset.observation_std is not None:
        mean, std = np.asarray(dataset.observation_mean), np.asarray(dataset.observation_std)
        readable_units = "environment units (de-normalised with the fixed statistics)"
        return observations * std + mean, readable_units, "policy space (normalised with the fixed statistics)"
    normalization = None if dataset.metadata is None else dataset.metadata.observation_normalization
    if normalization == "none":
        units = "environment units (not normalised)"
    elif normalization == "running":
        units = "policy space (normalised; a dataset does not hold running statistics)"
    else:
        units = "policy space (the dataset holds no statistics)"
    return observations, units, units


def _score(measure: str, evaluation: EvaluationSummary | None) -> str:
    of_whom = f"{measure.capitalize()} of fresh policies trained on it"
    if evaluation is None:
        return f"{of_whom}: not evaluated"
    text = f"{of_whom}: {evaluation.mean:,.5g}"
    if evaluation.ci95 is not None:
        low, high = evaluation.ci95
        text += f", 95 % interval [{low:,.5g}, {high:,.5g}]"
    return f"{text} ({evaluation.num_inits} inits × {evaluation.num_episodes} episodes)"
