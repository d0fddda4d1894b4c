"""Statistics of a few runs: means and interquartile means with intervals that cover, probability of improvement.

Intervals are of 95 % unless another confidence is asked for. None is a bootstrap: of five runs the 95 % percentile
bootstrap covers 82 %, and of 16,384 episodes it takes gigabytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

_FEW = 16

UNKNOWN = (math.nan, math.nan)
"""The interval of samples that say nothing of their spread: fewer than two, or one that is not finite."""


def mean_interval(values: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Student's t interval of the mean (Student, 1908).

    Args:
        values: Independent samples, `[samples]`.
        confidence: Probability that the interval covers the mean.

    Returns:
        Its two ends: both the same where all samples are, and not a number (`UNKNOWN`) of fewer than two samples, or
        where one is not finite.

    Example:
        >>> low, high = mean_interval(np.array([1.0, 2.0, 3.0]))
        >>> round(low, 2), round(high, 2)
        (-0.48, 4.48)
    """
    values = np.asarray(values, np.float64)
    if values.size < 2 or not np.isfinite(values).all():
        return UNKNOWN
    scale = _scale(values)
    error = float(np.std(values / scale, ddof=1)) * scale / math.sqrt(values.size)
    return _around(float(np.mean(values / scale)) * scale, error, values.size - 1, confidence)


def difference_interval(ours: np.ndarray, theirs: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of the difference of two means, whose samples may spread differently (Welch, 1947).

    Args:
        ours: Independent samples, `[samples]`.
        theirs: Samples that are independent of ours, `[other samples]`.
        confidence: Probability that the interval covers the mean of ours minus that of theirs.

    Returns:
        Its two ends: both the same where neither side spreads, and not a number (`UNKNOWN`) where a side has fewer than
        two samples, or one that is not finite. Where 0 is outside, the means differ at level `1 - confidence`.

    Example:
        >>> low, high = difference_interval(np.array([1.0, 2.0, 3.0]), np.array([11.0, 13.0]))
        >>> round(low, 2), round(high, 2)
        (-15.98, -4.02)
    """
    sides = [np.asarray(values, np.float64) for values in (ours, theirs)]
    if min(values.size for values in sides) < 2 or not all(np.isfinite(values).all() for values in sides):
        return UNKNOWN
    scale = max(map(_scale, sides))
    squares = np.array([np.var(values / scale, ddof=1) / values.size for values in sides])
    total = float(squares.sum())
    centre = float(np.mean(sides[0] / scale) - np.mean(sides[1] / scale)) * scale
    if total == 0:
        return centre, centre
    freedom = 1 / float(((squares / total) ** 2 / [values.size - 1 for values in sides]).sum())
    return _around(centre, math.sqrt(total) * scale, freedom, confidence)


def interquartile_mean(values: np.ndarray) -> np.ndarray:
    """Mean of the middle half of the last axis, `[..., samples]` to `[...]` (arXiv 2108.13264).

    A quarter of the samples, rounded down, is cut off at each end: of five runs the best and the worst.

    Example:
        >>> float(interquartile_mean(np.array([0.0, 1.0, 2.0, 3.0, 100.0])))
        2.0
    """
    count = values.shape[-1]
    cut = count // 4
    return np.asarray(np.sort(values, axis=-1)[..., cut : count - cut].mean(axis=-1))


def interquartile_interval(strata: np.ndarray | Sequence[np.ndarray], confidence: float = 0.95) -> tuple[float, float]:
    """Trimmed t interval of the interquartile mean.

    Below 16 samples it is Student's t about the interquartile mean, with the standard error of the mean times
    `sqrt(1 + 2 cut / samples)`: what cutting off costs where tails are lightest, at the uniform distribution. From 16
    samples on it is the wider of Student's t without that factor and the interval of Tukey and McLaughlin (1963), whose
    standard error is that of the winsorised sample, and whose degrees of freedom are those of the samples that are not
    cut off; with few samples that one alone covers 88 to 94 %. Measured on 4 to 32 samples: 95 to 98 % of normal
    ones, 93 to 99 % of uniform, exponential and lognormal ones.

    Args:
        strata: Independent samples, `[samples]`; or several such arrays, one for each task, whose interquartile mean is
            that of all samples together, and whose spread is that within the tasks (Welch and Satterthwaite).
        confidence: Probability that the interval covers.

    Returns:
        Its two ends, as of `mean_interval`; unknown also where a task has fewer than two samples.

    Example:
        >>> low, high = interquartile_interval(np.array([0.0, 1.0, 2.0, 3.0, 100.0]))
        >>> low < 2 < high
        True
    """
    arrays = [np.asarray(values, np.float64) for values in ([strata] if isinstance(strata, np.ndarray) else strata)]
    joined = np.concatenate(arrays)
    if min(map(len, arrays)) < 2 or not np.isfinite(joined).all():
        return UNKNOWN
    scale = _scale(joined)
    arrays, ordered = [values / scale for values in arrays], np.sort(joined / scale)
    count = len(joined)
    cut = count // 4
    kept = count - 2 * cut
    centre = float(interquartile_mean(ordered))
    few = count < _FEW
    low, high = _stratified(
        arrays, count, (count + 2 * cut) / count if few else 1.0, count - len(arrays), centre, confidence
    )
    if not few and kept > len(arrays):
        clipped = [np.clip(values, ordered[cut], ordered[-1 - cut]) for values in arrays]
        # Of one task the squared error is the sum of squared deviations over kept * (kept - 1).
        correction = (count - 1) / count * kept / (kept - 1)
        ends = _stratified(clipped, kept, correction, kept - len(arrays), centre, confidence)
        low, high = min(low, ends[0]), max(high, ends[1])
    return low * scale, high * scale


def probability_of_improvement(
    ours: np.ndarray, theirs: np.ndarray, confidence: float = 0.95
) -> tuple[float, tuple[float, float]]:
    """Probability that a run of ours beats a run of theirs, ties counting one half, and its interval.

    The interval is the score interval of Newcombe (2006, method 5), with Student's quantile: the probabilities whose
    own standard error puts the estimate within reach. It has a width also where all runs of one side win.

    Args:
        ours: Scores, `[runs]`, higher is better.
        theirs: Scores of independent runs on the same task, `[other runs]`.
        confidence: Probability that the interval covers.

    Example:
        >>> probability, (low, high) = probability_of_improvement(np.arange(5) + 5.0, np.arange(5.0))
        >>> probability, round(low, 2), high
        (1.0, 0.56, 1.0)
    """
    count, other = len(ours), len(theirs)
    wins = float(((ours[:, None] > theirs) + 0.5 * (ours[:, None] == theirs)).mean())
    if not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        return wins, UNKNOWN
    freedom = count + other - 2
    if freedom == 0:
        return wins, (0.0, 1.0)
    quantile, pairs = _quantile(freedom, confidence), (count + other) / 2 - 1

    def excess(probability: float) -> float:
        """Squared distance from the estimate, beyond what the standard error at `probability` reaches."""
        larger = 1 + pairs * (1 - probability) / (2 - probability) + pairs * probability / (1 + probability)
        variance = probability * (1 - probability) * larger / (count * other)
        return (probability - wins) ** 2 - quantile**2 * variance

    return wins, (_bound(excess, wins), 1 - _bound(lambda probability: excess(1 - probability), 1 - wins))


def rank_correlation(
    first: np.ndarray,
    second: np.ndarray,
    groups: np.ndarray | None = None,
    confidence: float = 0.95,
) -> tuple[float, tuple[float, float]]:
    """Spearman's rank correlation and its interval, which is that of Fisher's z.

    Args:
        first: Samples, `[samples]`.
        second: Samples of the same places, `[samples]`.
        groups: Group of each sample, `[samples]`, where those of a group are not independent: the standard error is
            then the jackknife's, which leaves out a group at a time. None takes all for independent, with the standard
            error of Bonett and Wright (2000).
        confidence: Probability that the interval covers.

    Returns:
        The correlation, not a number where all samples of a side are equal; and the two ends of its interval, not
        numbers (`UNKNOWN`) of fewer than four samples, of fewer than three groups, and of a correlation that is
        perfect.

    Example:
        >>> correlation, (low, high) = rank_correlation(np.arange(9), np.array([0, 2, 1, 3, 5, 4, 6, 8, 7]))
        >>> round(correlation, 2), round(low, 2), round(high, 2)
        (0.95, 0.7, 0.99)
    """
    from scipy import special

    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    correlation = _spearman(first, second)
    if not abs(correlation) < 1 - 1e-12:
        return correlation, UNKNOWN
    centre = math.atanh(correlation)
    if groups is not None:
        names = np.unique(groups)
        left = np.array([_spearman(first[groups != name], second[groups != name]) for name in names])
        if len(names) < 3 or not (np.abs(left) < 1 - 1e-12).all():
            return correlation, UNKNOWN
        deviations = np.arctanh(left) - np.arctanh(left).mean()
        error = math.sqrt((len(names) - 1) / len(names) * float(np.square(deviations).sum()))
        reach = _quantile(len(names) - 1, confidence) * error
    else:
        freedom = len(first) - 3
        if freedom < 1:
            return correlation, UNKNOWN
        reach = float(special.ndtri(0.5 + confidence / 2)) * math.sqrt((1 + correlation**2 / 2) / freedom)
    return correlation, (math.tanh(centre - reach), math.tanh(centre + reach))


def _spearman(first: np.ndarray, second: np.ndarray) -> float:
    """Rank correlation, ties having their mean rank; not a number where a side has one value alone."""
    from scipy import stats

    ranks = [stats.rankdata(values) for values in (first, second)]
    if any(np.ptp(values) == 0 for values in ranks):
        return math.nan
    return float(np.corrcoef(*ranks)[0, 1])


def _bound(excess: Callable[[float], float], estimate: float) -> float:
    """The root below an estimate of what is positive at 0 and negative just below it; 0 for an estimate of 0."""
    if estimate == 0:
        return 0.0
    # SciPy takes half a second to import, at the start of every process.
    from scipy import optimize

    # At an estimate of 1, where the standard error is 0, the function has another root.
    return float(optimize.brentq(excess, 0.0, min(estimate, 1 - 1e-9)))


def _scale(values: np.ndarray) -> float:
    """A divisor that keeps squares of very large values finite; 1 for all others."""
    largest = float(np.max(np.abs(values)))
    return largest if largest > 1e150 else 1.0


def _quantile(freedom: float, confidence: float) -> float:
    """Two-sided quantile of Student's t distribution."""
    from scipy import special

    return float(special.stdtrit(freedom, 0.5 + confidence / 2))


def _around(centre: float, error: float, freedom: float, confidence: float) -> tuple[float, float]:
    reach = _quantile(freedom, confidence) * error if error > 0 else 0.0
    return centre - reach, centre + reach


def _stratified(
    arrays: Sequence[np.ndarray], divisor: int, correction: float, most_freedom: int, centre: float, confidence: float
) -> tuple[float, float]:
    """Interval about a centre that is a sum over all samples of all strata, divided by `divisor`."""
    variances = np.array([len(values) * np.var(values, ddof=1) for values in arrays]) / divisor**2
    total = float(variances.sum())
    if total == 0:
        return centre, centre
    shares = (variances / total) ** 2 / np.array([len(values) - 1 for values in arrays])
    freedom = min(1 / float(shares.sum()), max(most_freedom, 1))
    return _around(centre, math.sqrt(total * correction), freedom, confidence)
