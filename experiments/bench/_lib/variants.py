"""Variants of the inner loop of a dataset file: names, evaluations, and the returns that they are compared with."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import numpy as np

from hades.dataset import SyntheticDataset
from hades.evaluation import DatasetEvaluator, Evaluation
from hades.inner.cloning import CloningSettings

OWN, ZERO, UNTRAINED = "the file's own", "zero dataset", "untrained policy"
ADAM_LEARNING_RATE = 0.005
"""Step size of Adam where the file is for SGD."""
SGD_LEARNING_RATE = 0.1
"""Step size of SGD where the file is for Adam."""
SGD_MOMENTUM = 0.9
"""Momentum of SGD where the file has none."""


@dataclass(frozen=True)
class VariantEvaluation:
    """Evaluation of a variant.

    Attributes:
        evaluation: Returns of its policies; None where one is not finite.
        num_diverged: Policies with returns that are not finite.
    """

    evaluation: Evaluation | None
    num_diverged: int = 0


def describe(cloned: CloningSettings) -> str:
    """Name of an inner loop, such as `mlp 2x64 relu, sgd`."""
    sizes = cloned.hidden_sizes
    widths = f"{len(sizes)}x{sizes[0]}" if len(set(sizes)) == 1 else "-".join(map(str, sizes))
    return f"{cloned.policy} {widths} {cloned.activation}, {cloned.optimizer}"


def references(key: jax.Array, evaluator: DatasetEvaluator, dataset: SyntheticDataset) -> dict[str, Evaluation]:
    """Returns of the file's own inner loop: on the dataset, on zeros, and untrained."""
    return {OWN: evaluator(key, dataset), **evaluator.references(key, dataset)}


def evaluate_variant(key: jax.Array, evaluator: DatasetEvaluator, dataset: SyntheticDataset) -> VariantEvaluation:
    """Trains and plays; episodes of policies that have diverged have no finite return."""
    evaluation = evaluator(key, dataset)
    diverged = ~np.isfinite(evaluation.returns).all(axis=1)
    return VariantEvaluation(None if diverged.any() else evaluation, int(diverged.sum()))


def threshold_return(own: float, threshold: float) -> float:
    """Return that a variant is to reach: a fraction of the file's own; where that is negative, as far below.

    Example:
        >>> threshold_return(500.0, 0.75), threshold_return(-100.0, 0.75)
        (375.0, -125.0)
    """
    return own - (1 - threshold) * abs(own)
