"""Edges of the intervals: what counts as nothing, as alike, as far away."""

import numpy as np
import pytest

from harness.errors import DataError
from harness.statistics import bootstrap, geometric_mean, median, ratio_of_sums


@pytest.mark.parametrize(("parts", "has_width"), [(0.95e-9, False), (1.05e-9, True)])
def test_an_error_of_a_billionth_of_the_estimate_is_rounding(parts, has_width):
    m = 12
    spread = np.tile([1.0, -1.0], m // 2)
    error = spread.std(ddof=1) / m**0.5
    found = bootstrap(1.0 + parts * spread / error, np.arange(m))
    assert (found.resolution > 0) is (found.high > found.low) is has_width


def test_what_cancels_in_a_sum_still_has_an_error():
    """Logarithms that add up to a rounding error: their sizes set the steps, not their sum."""
    logs = np.tile([0.1, 0.2, -0.3], 4)
    assert 0 < abs(logs.sum()) < 1e-15
    found = bootstrap(logs, np.arange(12), geometric_mean)
    assert found.resolution == pytest.approx(2.80 * logs.std(ddof=1) / 12**0.5, rel=0.05)


@pytest.mark.parametrize(("heavy", "first"), [(4, "jackknife"), (3, "studentised")])
def test_weights_are_alike_above_four_fifths_and_not_at_them(heavy, first):
    """Of 40 units four weigh 3 and the others 1: exactly 32 effective ones."""
    weights = np.r_[np.full(heavy, 3.0), np.ones(40 - heavy)]
    columns = np.stack([np.random.default_rng(3).normal(size=40), weights])
    found = bootstrap(columns, np.arange(40), ratio_of_sums, n_resamples=50)
    assert (found.effective == 32.0) is (heavy == 4)
    assert found.method.startswith(first)


@pytest.mark.parametrize(("parts", "far"), [(0.95e-6, 1e9), (1.05e-6, 1e6)])
def test_a_resamples_own_error_is_none_below_a_millionth(parts, far):
    """One unit is far away; where it is not drawn, all others err by ``parts`` of the whole."""
    m = 400
    values = np.tile([1.0, -1.0], m // 2)
    values[0] = 0.0
    values *= parts / m**0.5  # whose mean then errs by ``parts`` / m
    values[0] = 1.0  # and this by 1 / m
    found = bootstrap(values, np.arange(m), n_resamples=400)
    assert found.high == pytest.approx(far / m, rel=0.1)


def test_nothing_is_divided_aloud_where_a_unit_is_left_out():
    """Without the first unit 0 over 0 is left."""
    columns = np.array([[3.0, 1.0, -1.0, *np.zeros(9)], [3.0, *np.zeros(11)]])
    with np.errstate(all="raise"), pytest.raises(DataError, match="the others weigh nothing"):
        bootstrap(columns, np.arange(12), ratio_of_sums)


@pytest.mark.parametrize(("m", "level"), [(4, 0.3), (2, 0.5)])
def test_the_innermost_values_are_an_interval_of_a_median_at_a_low_level(m, level):
    found = median(np.arange(float(m)), level=level, unit="x")
    assert (found.low, found.high, found.unsettled) == (m / 2 - 1, m / 2, "")
