"""Statistics of a few runs: interquartile mean, bootstrap, probability of improvement (arXiv 2108.13264)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

RESAMPLES = 10_000


def bootstrap_interval(
    strata: np.ndarray | Sequence[np.ndarray],
    statistic: Callable[[np.ndarray], np.ndarray] | None = None,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """Percentile bootstrap interval (Efron, 1979), the same for the same values.

    Args:
        strata: Samples that are independent of each other, `[samples]`; or several such arrays, one for each task:
            each is resampled on its own, and the statistic sees them one behind the other.
        statistic: Maps `[resamples, samples]` to `[resamples]`; the mean if None.
        confidence: Probability that the interval is to cover.

    Example:
        >>> bootstrap_interval(np.array([2.0, 2.0, 2.0]))
        (2.0, 2.0)
    """
    arrays = [strata] if isinstance(strata, np.ndarray) else list(strata)
    generator = np.random.default_rng(0)
    resampled = [values[generator.integers(0, len(values), (RESAMPLES, len(values)))] for values in arrays]
    joined = np.concatenate(resampled, axis=1)
    tail = 50 * (1 - confidence)
    low, high = np.percentile(joined.mean(axis=1) if statistic is None else statistic(joined), [tail, 100 - tail])
    return float(low), float(high)


def interquartile_mean(values: np.ndarray) -> np.ndarray:
    """Mean of the middle half of the last axis, `[..., samples]` to `[...]`.

    A quarter of the samples, rounded down, is cut off at each end: of five runs the best and the worst.

    Example:
        >>> float(interquartile_mean(np.array([0.0, 1.0, 2.0, 3.0, 100.0])))
        2.0
    """
    count = values.shape[-1]
    cut = count // 4
    return np.asarray(np.sort(values, axis=-1)[..., cut : count - cut].mean(axis=-1))


def probability_of_improvement(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, tuple[float, float]]:
    """Probability that a run of ours beats a run of theirs, ties counting one half, and its 95 % bootstrap interval.

    Args:
        ours: Scores, `[runs]`, higher is better.
        theirs: Scores of independent runs on the same task, `[other runs]`.

    Example:
        >>> probability_of_improvement(np.array([3.0, 4.0]), np.array([1.0, 2.0]))
        (1.0, (1.0, 1.0))
    """
    wins = (ours[:, None] > theirs) + 0.5 * (ours[:, None] == theirs)

    def statistic(rows: np.ndarray) -> np.ndarray:
        mine, other = rows[:, : len(ours)].astype(int), rows[:, len(ours) :].astype(int)
        return wins[mine[:, :, None], other[:, None, :]].mean(axis=(1, 2))

    interval = bootstrap_interval([np.arange(len(ours)), np.arange(len(theirs))], statistic)
    return float(wins.mean()), interval
