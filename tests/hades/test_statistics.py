"""Statistics of runs, against numbers by hand, against scipy, and against coverage."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy import stats

from hades.statistics import (
    difference_interval,
    interquartile_interval,
    interquartile_mean,
    mean_interval,
    probability_of_improvement,
    rank_correlation,
)

SAMPLERS = {
    "normal": lambda generator, shape: generator.normal(3.0, 2.0, shape),
    "uniform": lambda generator, shape: generator.uniform(-1.0, 1.0, shape),
    "exponential": lambda generator, shape: generator.exponential(1.0, shape),
    "lognormal": lambda generator, shape: generator.lognormal(0.0, 1.0, shape),
}


def covered(intervals, truth):
    low, high = np.array(intervals).T
    return np.mean((low <= truth) & (truth <= high))


@pytest.mark.parametrize("size", [2, 5, 8, 16, 40])
def test_mean_intervals_cover_the_mean(size):
    samples = SAMPLERS["normal"](np.random.default_rng(size), (2000, size))
    # Two standard errors of 2,000 intervals are 1 %.
    assert 0.94 <= covered([mean_interval(sample) for sample in samples], 3.0) <= 0.96


def test_mean_intervals_are_those_of_scipy():
    sample = np.random.default_rng(0).normal(size=12)
    expected = stats.t.interval(0.9, 11, sample.mean(), stats.sem(sample))
    np.testing.assert_allclose(mean_interval(sample, confidence=0.9), expected)


def test_difference_intervals_are_those_of_scipy():
    generator = np.random.default_rng(0)
    ours, theirs = generator.normal(1.0, 3.0, 12), generator.normal(0.0, 1.0, 7)
    expected = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.99)
    np.testing.assert_allclose(difference_interval(ours, theirs, 0.99), expected)
    np.testing.assert_allclose(difference_interval(ours * 1e200, theirs * 1e200, 0.99), np.array(expected) * 1e200)


def test_difference_intervals_of_samples_without_spread():
    same = np.full(4, 500.0)
    assert difference_interval(same, same) == (0.0, 0.0)
    assert difference_interval(same, same - 20) == (20.0, 20.0)
    low, high = difference_interval(same, np.array([500.0, 500.0, 500.0, 480.0]))
    assert low < 0 < high
    assert np.isnan(difference_interval(same, same[:1])).all()
    assert np.isnan(difference_interval(same, np.array([np.inf, 1.0]))).all()


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("size", [5, 8, 16])
def test_interquartile_intervals_cover(name, size):
    generator = np.random.default_rng(size)
    samples = SAMPLERS[name](generator, (2000, size))
    many, cut = np.sort(SAMPLERS[name](generator, 1_000_000)), size // 4 / size
    truth = many[int(cut * len(many)) : len(many) - int(cut * len(many))].mean()
    # The percentile bootstrap covers 82 % at 5 normal samples and 89 % at 8.
    assert covered([interquartile_interval(sample) for sample in samples], truth) >= (
        0.95 if name == "normal" else 0.92
    )


def test_interquartile_intervals_over_tasks_cover():
    generator, centres = np.random.default_rng(1), np.array([0.0, 0.3, 0.5, 1.0])
    truth = interquartile_mean((centres + generator.normal(0, 0.2, (200_000, 4))).ravel())
    samples = generator.normal(0, 0.2, (1000, 5, 4)) + centres
    strata = [interquartile_interval(list(sample.T)) for sample in samples]
    assert 0.93 <= covered(strata, truth) <= 0.99
    # What lies between the tasks is not chance.
    together = np.diff([interquartile_interval(sample.ravel()) for sample in samples[:100]])
    assert np.diff(strata[:100]).mean() < 0.7 * together.mean()


@pytest.mark.parametrize("interval", [mean_interval, interquartile_interval])
def test_degenerate_samples(interval):
    assert interval(np.array([5.0, 5.0, 5.0, 5.0])) == (5.0, 5.0)
    for unknown in ([1.0], [1.0, np.nan, 2.0], [1.0, np.inf]):
        assert np.isnan(interval(np.array(unknown))).all()
    low, high = interval(np.array([1e300, 2e300, 3e300, 1e300, 2e300]))
    assert np.isfinite([low, high]).all() and low < 1.8e300 < high
    narrow, wide = interval(np.arange(9.0), confidence=0.5), interval(np.arange(9.0), confidence=0.99)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


@pytest.mark.parametrize("interval", [mean_interval, interquartile_interval])
def test_an_interval_of_many_episodes_takes_megabytes(interval):
    returns = np.random.default_rng(0).normal(size=16_384).astype(np.float32)
    tracemalloc.start()
    interval(returns)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 2**20


@pytest.mark.parametrize(
    ("values", "expected"),
    [([7.0], 7.0), ([1.0, 2.0, 6.0], 3.0), ([-100.0, 1.0, 3.0, 50.0], 2.0), ([9.0, 0.0, 1.0, 2.0, 3.0], 2.0)],
)
def test_interquartile_mean_by_hand(values, expected):
    assert interquartile_mean(np.array(values)) == pytest.approx(expected)
    assert interquartile_mean(np.array(values)) == pytest.approx(stats.trim_mean(values, 0.25))
    np.testing.assert_allclose(interquartile_mean(np.array([values, values])), [expected, expected])


def test_probability_of_improvement_by_hand():
    ours, theirs = np.array([1.0, 2.0, 3.0]), np.array([2.0, 0.0])
    # Wins of 1: over 0; of 2: over 0, half over 2; of 3: both.
    probability, (low, high) = probability_of_improvement(ours, theirs)
    assert probability == pytest.approx((1 + 1.5 + 2) / 6)
    assert 0 <= low < probability < high <= 1
    turned, ends = probability_of_improvement(theirs, ours)
    assert turned == pytest.approx(1 - probability)
    np.testing.assert_allclose(ends, [1 - high, 1 - low])


@pytest.mark.parametrize("size", [3, 5, 8, 16])
@pytest.mark.parametrize("shift", [0.0, 1.0, 2.5])
def test_intervals_of_the_probability_of_improvement_cover(size, shift):
    generator = np.random.default_rng(size)
    pairs = zip(generator.normal(shift, 1, (500, size)), generator.normal(0, 1, (500, size)), strict=True)
    found = [probability_of_improvement(*pair)[1] for pair in pairs]
    assert covered(found, stats.norm.cdf(shift / np.sqrt(2))) >= 0.93


def test_a_clean_sweep_of_few_runs_is_no_certainty():
    probability, (low, high) = probability_of_improvement(np.arange(5.0) + 5, np.arange(5.0))
    assert (probability, high) == (1.0, 1.0) and 0.5 < low < 0.7
    assert probability_of_improvement(np.array([1.0]), np.array([0.0])) == (1.0, (0.0, 1.0))
    assert np.isnan(probability_of_improvement(np.array([1.0, np.nan]), np.array([0.0, 2.0]))[1]).all()


def test_rank_correlation_is_scipys_with_an_interval_that_covers():
    generator = np.random.default_rng(0)
    inside, grouped = 0, 0
    for _ in range(200):
        samples = generator.normal(size=(20, 2)) @ np.array([[1, 0.6], [0, 0.8]])
        found, (low, high) = rank_correlation(*samples.T)
        assert found == pytest.approx(stats.spearmanr(*samples.T).statistic)
        # Of two normal variables of correlation 0.6.
        inside += low < 6 / np.pi * np.arcsin(0.3) < high
        repeated = np.repeat(samples, 3, axis=0)
        low, high = rank_correlation(*repeated.T, np.repeat(np.arange(20), 3))[1]
        grouped += low < 6 / np.pi * np.arcsin(0.3) < high
    assert inside >= 180 and grouped >= 175


def test_rank_correlation_that_says_nothing_of_its_spread_has_no_interval():
    line = np.arange(6.0)
    correlation, interval = rank_correlation(line, np.zeros(6))
    assert np.isnan(correlation) and np.isnan(interval).all()
    correlation, interval = rank_correlation(line, line)
    assert correlation == pytest.approx(1) and np.isnan(interval).all()
    other = np.array([0.0, 2, 1, 3, 5, 4])
    assert np.isfinite(rank_correlation(line, other)[1]).all()
    assert np.isnan(rank_correlation(line[:3], other[:3])[1]).all()
    assert np.isnan(rank_correlation(line, other, np.array([0, 0, 0, 1, 1, 1]))[1]).all()
