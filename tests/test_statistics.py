"""Intervals: deterministic, honest about clusters, and right on answers known on paper."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import DataError
from harness.statistics import bootstrap, std_ratio


def test_the_same_call_gives_the_same_interval():
    values = np.random.default_rng(1).normal(size=200)
    clusters = np.arange(200) // 2
    assert bootstrap(values, clusters) == bootstrap(values, clusters)


def test_the_interval_of_a_mean_is_the_normal_one_for_many_rows():
    values = np.random.default_rng(2).normal(size=4000)
    interval = bootstrap(values, np.arange(4000))
    half = 1.96 * values.std() / np.sqrt(4000)
    assert interval.estimate == pytest.approx(values.mean())
    assert interval.high - interval.low == pytest.approx(2 * half, rel=0.1)
    assert interval.resolution == pytest.approx(2.8 * values.std() / np.sqrt(4000), rel=0.1)


def test_the_interval_is_scipys():
    draw = np.random.default_rng(5)
    values, clusters = draw.exponential(size=600), draw.integers(0, 200, size=600)
    mine = bootstrap(values, clusters, n_resamples=4000)
    totals, rows = np.bincount(clusters, weights=values), np.bincount(clusters)
    theirs = scipy.stats.bootstrap(
        (totals, rows),
        lambda total, n, axis: total.sum(axis=axis) / n.sum(axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=4000,
        method="percentile",
        rng=np.random.default_rng(6),
    )
    width = mine.high - mine.low
    assert mine.low == pytest.approx(theirs.confidence_interval.low, abs=0.05 * width)
    assert mine.high == pytest.approx(theirs.confidence_interval.high, abs=0.05 * width)
    assert mine.resolution == pytest.approx(2.8 * theirs.standard_error, rel=0.05)


def test_copies_of_a_row_do_not_narrow_the_interval():
    values = np.random.default_rng(3).normal(size=300)
    once = bootstrap(values, np.arange(300))
    copied = bootstrap(np.repeat(values, 10), np.repeat(np.arange(300), 10))
    assert copied.high - copied.low == pytest.approx(once.high - once.low, rel=0.1)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    # Null hypothesis: coverage is 95 %. 200 draws give 190 +- 3; the percentile interval of 40
    # clusters is known to cover slightly less, hence 180.
    draw = np.random.default_rng(4)
    covered = 0
    for _ in range(200):
        interval = bootstrap(draw.exponential(size=40), np.arange(40), n_resamples=400)
        covered += interval.low <= 1.0 <= interval.high
    assert 180 <= covered <= 200


@given(
    scale=st.floats(0.1, 10),
    shift=st.floats(-100, 100),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=20, deadline=None)
def test_the_spread_ratio_of_a_scaled_copy_is_the_scale(scale, shift, seed):
    x = np.random.default_rng(seed).normal(size=50)
    y = scale * x + shift
    x, y = x - x.mean(), y - y.mean()
    interval = bootstrap(np.stack([x, x**2, y, y**2]), np.arange(50), std_ratio, n_resamples=50)
    assert interval.low == pytest.approx(scale, rel=1e-6)
    assert interval.high == pytest.approx(scale, rel=1e-6)


@pytest.mark.parametrize(
    ("values", "clusters", "says"),
    [
        ([1.0, 2.0], ["a"], "2 values but 1 cluster labels"),
        ([1.0, np.nan], ["a", "b"], "not finite, first at row 1"),
        ([1.0, 2.0], ["a", "a"], "at least two independent"),
    ],
)
def test_what_allows_no_interval_is_refused(values, clusters, says):
    with pytest.raises(DataError, match=says):
        bootstrap(np.array(values), np.array(clusters))
