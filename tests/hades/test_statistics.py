"""Statistics of runs, against numbers by hand and against coverage."""

from __future__ import annotations

import numpy as np
import pytest

from hades.statistics import bootstrap_interval, interquartile_mean, probability_of_improvement


def test_bootstrap_intervals_cover_the_mean():
    generator = np.random.default_rng(1)
    samples = generator.normal(3.0, 2.0, (200, 30))
    intervals = np.array([bootstrap_interval(sample) for sample in samples])
    covered = np.mean((intervals[:, 0] <= 3.0) & (intervals[:, 1] >= 3.0))
    # Percentile intervals of 30 normal samples cover 93.5 %; two standard errors of 200 of them are 3.5 %.
    assert 0.895 <= covered <= 0.975
    widths = intervals[:, 1] - intervals[:, 0]
    np.testing.assert_allclose(widths.mean(), 2 * 1.96 * 2.0 / np.sqrt(30), rtol=0.06)
    np.testing.assert_allclose(intervals.mean(axis=1), samples.mean(axis=1), atol=0.1)


def test_bootstrap_intervals_widen_with_confidence_and_repeat():
    sample = np.random.default_rng(0).normal(size=40)
    narrow, wide = bootstrap_interval(sample, confidence=0.5), bootstrap_interval(sample, confidence=0.99)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]
    assert bootstrap_interval(sample) == bootstrap_interval(sample)


def test_strata_are_resampled_each_on_its_own():
    # Resampled together, the mean would vary: apart, each keeps its one value.
    constant = [np.full(4, 1.0), np.full(4, 9.0)]
    assert bootstrap_interval(constant) == (5.0, 5.0)
    low, high = bootstrap_interval(np.concatenate(constant))
    assert low < 5 < high


@pytest.mark.parametrize(
    ("values", "expected"),
    [([7.0], 7.0), ([1.0, 2.0, 6.0], 3.0), ([-100.0, 1.0, 3.0, 50.0], 2.0), ([9.0, 0.0, 1.0, 2.0, 3.0], 2.0)],
)
def test_interquartile_mean_by_hand(values, expected):
    assert interquartile_mean(np.array(values)) == pytest.approx(expected)
    np.testing.assert_allclose(interquartile_mean(np.array([values, values])), [expected, expected])


def test_probability_of_improvement_by_hand():
    ours, theirs = np.array([1.0, 2.0, 3.0]), np.array([2.0, 0.0])
    # Wins of 1: over 0; of 2: over 0, half over 2; of 3: both.
    probability, (low, high) = probability_of_improvement(ours, theirs)
    assert probability == pytest.approx((1 + 1.5 + 2) / 6)
    assert 0 <= low < probability < high <= 1
    assert probability_of_improvement(theirs, ours)[0] == pytest.approx(1 - probability)
