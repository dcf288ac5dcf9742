"""Intervals: deterministic, honest about clusters, and right on answers known on paper."""

import math
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import statistics
from harness.claims import Interval
from harness.errors import DataError
from harness.statistics import (
    FEW,
    FEW_OF_UNLIKE_WEIGHT,
    FEWEST,
    MANY,
    STATISTICS,
    Units,
    bootstrap,
    geometric_mean,
    interval_of,
    largest,
    log_ratio_of_sums,
    mean,
    median,
    ratio_of_ratios,
    ratio_of_sums,
    share,
    std_ratio,
    student_t,
    with_variance,
)

# --- functions of column sums


SUMS = np.array([4.0, 6.0, 3.0, 10.0, 2.0])  # 4 rows, and sums of four columns


@pytest.mark.parametrize(
    ("statistic", "sums", "value"),
    [
        (mean, SUMS, 1.5),
        (geometric_mean, SUMS, math.exp(1.5)),
        (ratio_of_sums, SUMS, 2.0),
        (log_ratio_of_sums, SUMS, math.log(2)),
        (ratio_of_ratios, SUMS, 0.4),
        # x = 0, 4 and y = 1, 7: standard deviations 2 and 3
        (std_ratio, np.array([2.0, 4.0, 16.0, 8.0, 50.0]), 1.5),
    ],
)
def test_statistics_of_sums_known_on_paper(statistic, sums, value):
    assert statistic(sums) == pytest.approx(value, rel=1e-12)
    assert statistic(7 * sums) == pytest.approx(value, rel=1e-12)
    several = np.stack([sums, 2 * sums], axis=1)
    np.testing.assert_allclose(statistic(several), [value, value], rtol=1e-12)
    assert STATISTICS[statistic.__name__] is statistic


def test_every_statistic_has_its_name():
    assert list(STATISTICS) == [
        "mean",
        "geometric_mean",
        "ratio_of_sums",
        "log_ratio_of_sums",
        "ratio_of_ratios",
        "std_ratio",
    ]


# --- the bootstrap


def test_the_same_call_gives_the_same_interval():
    values = np.random.default_rng(1).normal(size=200)
    clusters = np.arange(200) // 2
    assert bootstrap(values, clusters) == bootstrap(values, clusters)
    assert bootstrap(values, clusters, seed=1) != bootstrap(values, clusters)
    assert bootstrap(values, clusters) == bootstrap(values, clusters, mean, seed=0)


def unit_sums(columns, clusters):
    """(1 + k, m) sums of each cluster, by a loop."""
    columns, labels = np.atleast_2d(columns), sorted(set(clusters))
    rows = [[clusters[i] == label for i in range(len(clusters))] for label in labels]
    return np.array([[sum(r), *(c[r].sum() for c in columns)] for r in np.array(rows)]).T


def influence(statistic, total, unit, step=1e-6):
    """How the statistic moves with the weight of one unit: its derivative, by differences."""
    return (statistic(total + step * unit) - statistic(total - step * unit)) / (2 * step)


def standard_error(statistic, sums, counts):
    m, total = sums.shape[1], sums @ counts
    squares = [counts[i] * influence(statistic, total, sums[:, i]) ** 2 for i in range(m)]
    return math.sqrt(m / (m - 1) * sum(squares))


def draws(m, n_resamples, seed):
    """What the harness draws: so many units with replacement, so many times."""
    draw = np.random.default_rng(seed)
    for _ in range(n_resamples):
        yield np.bincount(draw.integers(m, size=m), minlength=m)


def studentised(statistic, columns, clusters, n_resamples, level=0.95, seed=0):
    """The interval by loops and by its definition: every resample in its own standard errors."""
    sums = unit_sums(columns, clusters)
    m = sums.shape[1]
    estimate, error = statistic(sums.sum(axis=1)), standard_error(statistic, sums, np.ones(m))
    t = []
    for counts in draws(m, n_resamples, seed):
        gap = statistic(sums @ counts) - estimate
        own = standard_error(statistic, sums, counts)
        t.append(gap / own if own > 1e-9 * error else math.copysign(math.inf, gap))
    low, high = np.quantile(t, [(1 - level) / 2, (1 + level) / 2], method="nearest")
    return estimate, estimate - high * error, estimate - low * error, error


DRAW = np.random.default_rng(12)
MANY_ROWS = 150
CLUSTERS = DRAW.permutation(np.repeat(np.arange(60), 3))[:MANY_ROWS]  # of one to three rows
X, Y, Z, W = DRAW.gamma(3.0, size=(4, MANY_ROWS)) + 0.5
CASES = {
    "mean": np.log(X),
    "geometric_mean": np.log(X),
    "ratio_of_sums": np.stack([X, Y]),
    "log_ratio_of_sums": np.stack([X, Y]),
    "ratio_of_ratios": np.stack([X, Y, Z, W]),
    "std_ratio": np.stack([X - X.mean(), (X - X.mean()) ** 2, Y - Y.mean(), (Y - Y.mean()) ** 2]),
}


@pytest.mark.parametrize("name", list(CASES))
@pytest.mark.parametrize(
    # of so many resamples the tails are the fifth and the fourth from the end, by a hair
    ("level", "seed", "n"),
    [(0.95, 0, 182), (0.95, 2, 180), (0.8, 3, 60)],
)
def test_the_studentised_interval_is_that_of_its_definition(name, level, seed, n):
    statistic, columns = STATISTICS[name], CASES[name]
    found = bootstrap(columns, CLUSTERS, statistic, n_resamples=n, level=level, seed=seed)
    estimate, low, high, error = studentised(statistic, columns, CLUSTERS, n, level, seed)
    assert found.estimate == pytest.approx(estimate, rel=1e-12)
    assert found.low == pytest.approx(low, rel=1e-6)
    assert found.high == pytest.approx(high, rel=1e-6)
    assert found.resolution == pytest.approx(2.80 * error, rel=1e-6)
    assert found.level == level


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_the_unit_of_a_quantity_does_not_matter(scale):
    found, scaled = (bootstrap(f * X, CLUSTERS, n_resamples=100) for f in (1.0, scale))
    assert scaled.low == pytest.approx(scale * found.low, rel=1e-6)
    assert scaled.high == pytest.approx(scale * found.high, rel=1e-6)
    assert scaled.resolution == pytest.approx(scale * found.resolution, rel=1e-6)


def test_what_the_record_says_of_a_bootstrap():
    found = bootstrap(np.arange(150.0), CLUSTERS, n_resamples=50)
    m = len(set(CLUSTERS))
    assert (found.n, found.n_clusters, found.level, found.unsettled) == (150, m, 0.95, "")
    assert found.method == f"studentised bootstrap over {m} reduced formulas, 50 resamples"
    named = bootstrap(np.arange(150.0), CLUSTERS, unit="crystals")
    assert named.method == f"studentised bootstrap over {m} crystals, 2000 resamples"
    assert (named.units.what, named.units.statistic) == ("crystals", "mean")
    np.testing.assert_array_equal(named.units.sums, unit_sums(np.arange(150.0), CLUSTERS))


def test_the_standard_error_of_independent_rows_is_that_of_the_textbook():
    values = np.random.default_rng(2).normal(size=30)
    found = bootstrap(values, np.arange(30), n_resamples=10)
    assert found.resolution == pytest.approx(2.80 * values.std(ddof=1) / math.sqrt(30), rel=1e-6)


def test_units_count_by_their_weight():
    """Kish: two units of weights 1 and 3 are as good as 1.6 equal ones."""
    clusters = np.array([0, 1, 1, 1])
    assert bootstrap(np.arange(4.0), clusters, n_resamples=10).effective == pytest.approx(1.6)
    # of a ratio of sums the weights are those of the denominator
    columns = np.array([[1.0, 2.0, 3.0], [1.0, 1.0, -6.0]])
    found = bootstrap(columns, np.arange(3), ratio_of_sums, n_resamples=10)
    assert found.effective == pytest.approx(64 / 38)
    found = bootstrap(np.abs(columns), np.arange(3), log_ratio_of_sums, n_resamples=10)
    assert found.effective == pytest.approx(3.0)


def test_rows_of_one_cluster_are_drawn_together():
    """A cluster of three alike counts once; the order of the rows counts for nothing."""
    values = np.random.default_rng(3).normal(size=40)
    once = bootstrap(values, np.arange(40))
    copied = bootstrap(np.repeat(values, 3), np.repeat(np.arange(40), 3))
    assert copied.low == pytest.approx(once.low)
    assert copied.high == pytest.approx(once.high)
    assert copied.resolution == pytest.approx(once.resolution)
    assert (copied.n, copied.n_clusters) == (120, 40)
    order = np.random.default_rng(4).permutation(120)
    shuffled = bootstrap(np.repeat(values, 3)[order], np.repeat(np.arange(40), 3)[order])
    assert shuffled.low == pytest.approx(copied.low)


def test_from_two_thousand_units_on_percentiles_are_taken():
    values = np.random.default_rng(5).exponential(size=(2, 2000)) + 0.1
    found = bootstrap(values, np.arange(2000), ratio_of_sums, n_resamples=60, level=0.9, seed=2)
    resampled = [ratio_of_sums(np.array([0, *(values @ c)])) for c in draws(2000, 60, 2)]
    low, high = np.percentile(resampled, [5, 95])
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    assert found.method == "percentile bootstrap over 2000 reduced formulas, 60 resamples"
    fewer = bootstrap(values[:, :1999], np.arange(1999), ratio_of_sums, n_resamples=60)
    assert fewer.method == "studentised bootstrap over 1999 reduced formulas, 60 resamples"
    assert MANY == 2000


def test_the_estimate_lies_in_its_interval_though_no_resample_reaches_it():
    """One resample lies on one side of the estimate, and both its percentiles with it."""
    values = np.random.default_rng(6).normal(size=2000)
    for seed in range(6):
        found = bootstrap(values, np.arange(2000), n_resamples=1, seed=seed)
        (counts,) = draws(2000, 1, seed)
        one = values @ counts / 2000
        assert (found.low, found.high) == (
            pytest.approx(min(one, values.mean())),
            pytest.approx(max(one, values.mean())),
        )


def test_the_interval_of_a_mean_is_the_normal_one_for_many_rows():
    values = np.random.default_rng(2).normal(size=4000)
    interval = bootstrap(values, np.arange(4000), n_resamples=1000)
    half = 1.96 * values.std() / np.sqrt(4000)
    assert interval.estimate == pytest.approx(values.mean())
    assert interval.high - interval.low == pytest.approx(2 * half, rel=0.1)
    assert interval.resolution == pytest.approx(2.8 * values.std() / np.sqrt(4000), rel=0.1)


def test_the_percentile_interval_is_scipys():
    draw = np.random.default_rng(5)
    values, clusters = draw.exponential(size=6000), draw.permutation(np.arange(6000) % 2400)
    mine = bootstrap(values, clusters, n_resamples=1000)
    totals, rows = np.bincount(clusters, weights=values), np.bincount(clusters)
    theirs = scipy.stats.bootstrap(
        (totals, rows),
        lambda total, n, axis: total.sum(axis=axis) / n.sum(axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=1000,
        method="percentile",
        rng=np.random.default_rng(6),
    )
    width = mine.high - mine.low
    assert mine.low == pytest.approx(theirs.confidence_interval.low, abs=0.1 * width)
    assert mine.high == pytest.approx(theirs.confidence_interval.high, abs=0.1 * width)
    assert mine.resolution == pytest.approx(2.8 * theirs.standard_error, rel=0.1)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    # Null hypothesis: coverage is 95 %. 200 draws give 190 +- 3; the percentile interval of 40
    # skewed clusters covers 92 %, so that fewer than 184 would say it had come back.
    draw = np.random.default_rng(4)
    covered = 0
    for _ in range(200):
        interval = bootstrap(draw.exponential(size=40), np.arange(40), n_resamples=400)
        covered += interval.low <= 1.0 <= interval.high
    assert 185 <= covered <= 199


def test_many_units_are_resampled_in_blocks_to_the_same_numbers(monkeypatch):
    values = np.random.default_rng(7).normal(size=(1, 4100))
    at_once = bootstrap(values, np.arange(4100))
    monkeypatch.setattr(statistics, "_KEPT_AS_FLOAT", 1000)
    monkeypatch.setattr(statistics, "_float_counts", None)  # far too large to be kept
    in_blocks = bootstrap(values, np.arange(4100))
    assert in_blocks.low == pytest.approx(at_once.low, rel=1e-12)
    assert in_blocks.high == pytest.approx(at_once.high, rel=1e-12)


def test_draws_are_kept_and_nobody_can_change_them():
    bootstrap(np.arange(50.0), np.arange(50), n_resamples=20, seed=9)
    for kept in (statistics._float_counts, statistics._resample_counts):
        with pytest.raises(ValueError, match="read-only"):
            kept(50, 20, 9)[0] = 0
    counts = statistics._resample_counts(50, 20, 9)
    np.testing.assert_array_equal(counts, list(draws(50, 20, 9)))
    np.testing.assert_array_equal(statistics._float_counts(50, 20, 9), counts.T)
    assert statistics._float_counts(50, 20, 9).dtype == np.float64
    assert counts is statistics._resample_counts(50, 20, 9)
    assert counts.dtype == np.uint8  # of 100,000 units eight times as many bytes matter


def test_resampling_runs_on_one_thread_and_leaves_the_others_as_they_were():
    from threadpoolctl import threadpool_info

    def threads():
        return [lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"]

    before, seen = threads(), []
    real = statistics._float_counts

    def spy(*given):
        seen.append(threads())
        return real(*given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "_float_counts", spy)
        bootstrap(np.arange(50.0), np.arange(50))
    assert {n for found in seen for n in found} == {1}
    assert threads() == before


@pytest.mark.parametrize("value", [0.25, -0.3, 0.0])
def test_a_quantity_without_spread_has_an_interval_without_width(value):
    found = bootstrap(np.full(12, value), np.arange(12))
    assert found.estimate == pytest.approx(value)
    assert (found.low, found.high) == (found.estimate, found.estimate)
    assert (found.resolution, found.unsettled) == (0.0, "")
    assert not found.is_exact  # it was sampled all the same


@pytest.mark.parametrize("size", [1.0, 1e12])
def test_a_resample_without_an_error_of_its_own_is_as_far_away_as_can_be(size):
    """Of fifty units one differs: in a third of all resamples it is missing, and all are alike."""
    values = np.zeros(50)
    values[7] = size
    for sign in (1, -1):
        found = bootstrap(sign * values, np.arange(50), n_resamples=400)
        far = max(sign * found.high, sign * found.low)
        assert far == pytest.approx(size * (0.02 + 0.02e9), rel=1e-6)
        assert found.unsettled.startswith("one of 50 reduced formulas has 98% of the variance")


# --- few units: the jackknife


def jackknife(statistic, columns, clusters, level):
    """By its definition: the statistic anew without each unit."""
    sums = unit_sums(columns, clusters)
    m, weights = sums.shape[1], sums[2] if statistic is ratio_of_sums else sums[0]
    without = [statistic(np.delete(sums, i, axis=1).sum(axis=1)) for i in range(m)]
    error = math.sqrt((m - 1) / m * sum((w - np.mean(without)) ** 2 for w in without))
    effective = sum(weights) ** 2 / sum(weights**2)
    return error, error * scipy.stats.t.ppf((1 + level) / 2, effective - 1)


@pytest.mark.parametrize("name", list(CASES))
@pytest.mark.parametrize("level", [0.95, 0.8])
def test_of_few_units_the_interval_is_the_jackknifes(name, level):
    statistic, rows = STATISTICS[name], np.flatnonzero(CLUSTERS < 16)
    columns, clusters = np.atleast_2d(CASES[name])[:, rows], CLUSTERS[rows]
    found = bootstrap(columns, clusters, statistic, level=level, unit="crystals")
    error, half = jackknife(statistic, columns, clusters, level)
    assert found.low == pytest.approx(found.estimate - half, rel=1e-9)
    assert found.high == pytest.approx(found.estimate + half, rel=1e-9)
    assert found.resolution == pytest.approx(2.80 * error, rel=1e-9)
    assert found.method == "jackknife and Student's t over 16 crystals"
    assert (found.n, found.n_clusters, found.level) == (len(rows), 16, level)


@pytest.mark.parametrize(("m", "first"), [(19, "jackknife"), (20, "studentised")])
def test_few_is_fewer_than_twenty_units_of_like_weight(m, first):
    found = bootstrap(np.random.default_rng(3).normal(size=m), np.arange(m), n_resamples=50)
    assert found.method.startswith(first)
    assert FEW == 20


@pytest.mark.parametrize(("weight", "first"), [(4.70, "jackknife"), (4.66, "studentised")])
def test_units_of_unlike_weight_are_few_below_sixty(weight, first):
    """Of 45 units one has more weight than the others: 35.9 or 36.05 effective ones, 0.8 of 45."""
    columns = np.stack([np.random.default_rng(3).normal(size=45), np.r_[weight, np.ones(44)]])
    found = bootstrap(columns, np.arange(45), ratio_of_sums, n_resamples=50)
    assert found.effective == pytest.approx((44 + weight) ** 2 / (44 + weight**2))
    assert found.effective == pytest.approx(36.0, abs=0.15)
    assert found.method.startswith(first)


@pytest.mark.parametrize(("ones", "first"), [(87, "jackknife"), (89, "studentised")])
def test_from_sixty_effective_units_on_weights_may_be_as_unlike_as_they_are(ones, first):
    """Beside them one unit of weight 8: 59.8 or 61.5 effective ones, seven tenths of all."""
    columns = np.stack([np.random.default_rng(3).normal(size=ones + 1), np.r_[8.0, np.ones(ones)]])
    found = bootstrap(columns, np.arange(ones + 1), ratio_of_sums, n_resamples=50)
    assert found.effective == pytest.approx(60.6, abs=1.0)
    assert found.method.startswith(first)
    assert FEW_OF_UNLIKE_WEIGHT == 60


def test_two_units_have_one_degree_of_freedom_whatever_they_weigh():
    found = bootstrap(np.arange(4.0), np.array([0, 1, 1, 1]), unit="crystals")
    error, _ = jackknife(mean, np.arange(4.0), np.array([0, 1, 1, 1]), 0.95)
    assert found.high - found.estimate == pytest.approx(12.7062 * error, rel=1e-5)


def test_a_number_that_is_gone_without_one_unit_has_no_interval():
    columns = np.array([np.arange(12.0), [3.0, *np.zeros(11)]])
    with pytest.raises(DataError, match=r"without one of 12 crystals there is no number left: the"):
        bootstrap(columns, np.arange(12), ratio_of_sums, unit="crystals")


@pytest.mark.parametrize(("m", "settled"), [(9, False), (10, True)])
def test_fewer_than_ten_units_settle_nothing(m, settled):
    values = np.random.default_rng(8).normal(size=m)
    found = bootstrap(values, np.arange(m), unit="crystals", n_resamples=20)
    says = "" if settled else "9 crystals are too few for an interval, which takes 10"
    assert found.unsettled == says
    assert FEWEST == 10


@pytest.mark.parametrize(
    ("m", "largest_square", "says"),
    [
        (10, 6.0, ""),  # 6 of 15
        (10, 6.1, "one of 10 crystals has 40% of the variance and decides the number"),
        (10, 27.0, "one of 10 crystals has 75% of the variance and decides the number"),
        (31, 20.0, ""),  # 20 of 50
        (31, 20.1, "one of 31 crystals has 40% of the variance and decides the number"),
    ],
)
def test_one_unit_with_most_of_the_variance_settles_nothing(m, largest_square, says):
    squares = np.array([*[1.0] * 5, largest_square, *[1.0] * (m - 6)])
    found = statistics._unsettled(squares, "crystals")
    assert found == (f"{says}: no interval reaches its level" if says else "")
    assert statistics._unsettled(np.zeros(m), "crystals") == ""
    without = np.array([0.0, 3.0, *[0.1] * 8])  # a unit that does not count is no reason
    assert "has 79% of the variance" in statistics._unsettled(without, "crystals")


def test_the_share_of_one_unit_is_told():
    values = np.array([90.0, *[-10.0] * 9])  # 8100 of 9000
    found = bootstrap(values, np.arange(10), n_resamples=20)
    assert found.unsettled == (
        "one of 10 reduced formulas has 90% of the variance and decides the number: no interval "
        "reaches its level"
    )


@given(scale=st.floats(0.1, 10), shift=st.floats(-100, 100), seed=st.integers(0, 2**16))
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
        ([1.0, 2.0], ["a"], "2 values but 1 cluster labels; give one label a row"),
        ([1.0, np.nan, np.inf], ["a", "b", "c"], "2 of 3 values are not finite, first at row 1"),
        ([[1.0, 2.0], [1.0, np.inf]], ["a", "b"], "1 of 2 values are not finite, first at row 1"),
        (
            [1.0, 2.0],
            ["a", "a"],
            r"2 rows in 1 cluster\(s\): an interval needs at least two independent reduced form",
        ),
        ([], [], r"0 rows in 0 cluster\(s\)"),
    ],
)
def test_what_allows_no_interval_is_refused(values, clusters, says):
    with pytest.raises(DataError, match=says):
        bootstrap(np.array(values), np.array(clusters))


def test_two_clusters_allow_an_interval():
    assert bootstrap(np.array([1.0, 2.0]), ["a", "b"], n_resamples=10).n_clusters == 2


def test_derivatives_by_each_sum():
    totals = np.array([[2.0, 4.0], [6.0, 3.0], [0.0, 5.0]])
    slopes = statistics._gradient(mean, totals, np.array([2.0, 6.0, 0.0]))
    np.testing.assert_allclose(slopes, [[-1.5, -0.1875], [0.5, 0.25], [0.0, 0.0]], rtol=1e-7)
    np.testing.assert_array_equal(totals, [[2.0, 4.0], [6.0, 3.0], [0.0, 5.0]])


def test_steps_of_derivatives_are_small_parts_of_what_is_summed():
    """A cubic shows the step: the central difference of x³ is off by the step squared."""

    def cubic(sums):
        return sums[0] ** 3

    for size, step in ((200.0, 2e-3), (0.0, 1e-5)):
        slope = statistics._gradient(cubic, np.zeros((1, 1)), np.array([size]))[0, 0]
        assert slope == pytest.approx(step**2, rel=1e-6)


# --- medians


@pytest.mark.parametrize(
    ("m", "k"),
    # k-th value from either end, of tables of the sign test's interval at 95 %
    [
        (6, 1),
        (7, 1),
        (8, 1),
        (9, 2),
        (10, 2),
        (11, 2),
        (12, 3),
        (15, 4),
        (17, 5),
        (25, 8),
        (40, 14),
    ],
)
def test_the_interval_of_a_median_is_that_of_the_table(m, k):
    values = np.random.default_rng(m).permutation(np.arange(1.0, m + 1))
    found = median(values, unit="crystals")
    assert (found.low, found.high) == (k, m + 1 - k)
    assert found.estimate == (m + 1) / 2
    assert (found.n, found.n_clusters, found.level, found.unsettled) == (m, m, 0.95, "")
    assert found.method == f"order statistics of {m} crystals"
    assert found.resolution == pytest.approx(2.80 * (m + 1 - 2 * k) / 3.92)
    assert (found.units.statistic, found.units.what) == ("median", "crystals")
    np.testing.assert_array_equal(found.units.sums, [np.ones(m), np.arange(1.0, m + 1)])


@pytest.mark.parametrize("m", [1, 2, 5])
def test_fewer_than_six_values_have_no_interval_of_a_median(m):
    values = np.arange(1.0, m + 1)
    found = median(values, unit="elements")
    assert (found.low, found.high) == (1.0, m)
    assert found.unsettled == f"{m} elements are too few for an interval of a median"


@given(m=st.integers(1, 120), level=st.sampled_from([0.5, 0.8, 0.9, 0.95, 0.99]))
@settings(max_examples=60, deadline=None)
def test_a_medians_interval_is_the_innermost_that_covers(m, level):
    found = median(np.arange(1.0, m + 1), level=level, unit="x")
    k = int(found.low)

    def covers(k):
        return 1 - 2 * scipy.stats.binom.cdf(k - 1, m, 0.5)

    assert found.level == level
    assert found.high == m + 1 - k
    assert bool(found.unsettled) is bool(covers(1) < level - 1e-12)
    if not found.unsettled:
        assert covers(k) >= level - 1e-12
        assert covers(k + 1) < level or 2 * k >= m
    else:
        assert k == 1


@pytest.mark.parametrize(("level", "says"), [(0.9375, ""), (0.938, "5 x are too few")])
def test_five_values_are_enough_at_a_lower_level(level, says):
    found = median(np.arange(5.0), level=level, unit="x")  # they cover 1 - 2/32 of the time
    assert (found.low, found.high) == (0.0, 4.0)
    assert found.unsettled.startswith(says)
    assert bool(found.unsettled) is bool(says)


@pytest.mark.parametrize("of", [median, student_t])
def test_single_precision_is_left_behind(of):
    values = np.array([0.1, 0.2, 0.7, 1.3], dtype=np.float32)
    found = of(values, unit="x")
    wide = of(values.astype(np.float64), unit="x")
    assert (found.estimate, found.low, found.high) == (wide.estimate, wide.low, wide.high)


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf] * 7])
def test_a_median_of_nothing_or_of_no_numbers_is_refused(values):
    with pytest.raises(DataError, match=f"{len(values)} values, all of which must be finite"):
        median(np.array(values), unit="x")


# --- shares


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [
        (0, 10, 0.0, 1 - 0.025**0.1),
        (10, 10, 0.025**0.1, 1.0),
        (0, 1, 0.0, 0.975),
        (1, 1, 0.025, 1.0),
        (3, 10, 0.06673951117773447, 0.6524528500599972),  # Clopper and Pearson's own example
        (7, 10, 1 - 0.6524528500599972, 1 - 0.06673951117773447),
    ],
)
def test_the_interval_of_a_share_is_cloppers_and_pearsons(hits, n, low, high):
    found = share(hits, n, unit="crystals")
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    assert found.estimate == hits / n
    assert (found.n, found.n_clusters, found.level, found.unsettled) == (n, n, 0.95, "")
    assert found.method == f"Clopper-Pearson, {hits} of {n} crystals"
    assert found.resolution == pytest.approx(high - low)
    assert (found.units.statistic, found.units.what) == ("share", "crystals")
    np.testing.assert_array_equal(found.units.sums, [[1.0] * n, [1.0] * hits + [0.0] * (n - hits)])
    assert found.units.sums.dtype == np.float64


@given(n=st.integers(1, 60), data=st.data(), level=st.sampled_from([0.8, 0.95]))
@settings(max_examples=40, deadline=None)
def test_a_share_at_an_end_would_be_seen_as_seldom_as_the_level_says(n, data, level):
    hits = data.draw(st.integers(0, n))
    found = share(hits, n, level=level, unit="x")
    tail = (1 - level) / 2
    if hits:
        assert scipy.stats.binom.sf(hits - 1, n, found.low) == pytest.approx(tail, rel=1e-6)
    if hits < n:
        assert scipy.stats.binom.cdf(hits, n, found.high) == pytest.approx(tail, rel=1e-6)
    assert found.level == level


@pytest.mark.parametrize(("hits", "n"), [(-1, 3), (4, 3), (0, 0), (1, 0), (0, -1)])
def test_a_share_of_nothing_or_of_too_many_is_refused(hits, n):
    with pytest.raises(DataError, match=f"{hits} of {n} draws: give one draw at least"):
        share(hits, n, unit="x")


# --- trainings


@pytest.mark.parametrize("level", [0.95, 0.8])
def test_the_interval_of_a_few_trainings_is_students(level):
    values = [1.0, 2.0, 4.0, 4.5]
    found = student_t(values, level=level, unit="seeds")
    theirs = scipy.stats.ttest_1samp(values, 0.0).confidence_interval(level)
    assert found.estimate == pytest.approx(2.875)
    assert (found.low, found.high) == (pytest.approx(theirs.low), pytest.approx(theirs.high))
    assert (found.n, found.n_clusters, found.level, found.unsettled) == (4, 4, level, "")
    assert found.method == "Student's t over 4 seeds"
    error = np.std(values, ddof=1) / 2
    quantile = scipy.stats.t.ppf((1 + level) / 2, 3)
    assert found.resolution == pytest.approx((quantile + 0.84) * error)
    assert (found.units.statistic, found.units.what) == ("student_t", "seeds")
    np.testing.assert_array_equal(found.units.sums, [np.ones(4), values])


def test_two_trainings_are_enough_and_one_is_not():
    found = student_t([1.0, 3.0], unit="seeds")  # t of one degree of freedom: 12.706
    assert (found.low, found.high) == (
        pytest.approx(-10.706, abs=1e-3),
        pytest.approx(14.706, abs=1e-3),
    )
    with pytest.raises(DataError, match="1 seeds: an interval needs two at least, and finite"):
        student_t([1.0], unit="seeds")
    with pytest.raises(DataError, match="3 seeds: an interval needs two at least, and finite"):
        student_t([1.0, 2.0, math.nan], unit="seeds")


# --- two sources of chance


def gaussian(error=0.1, m=11, estimate=1.0, level=0.95):
    """What Student's t gives of so many units."""
    half = error * scipy.stats.t.ppf((1 + level) / 2, m - 1)
    return Interval(
        estimate=estimate,
        low=estimate - half,
        high=estimate + half,
        n=m,
        n_clusters=m,
        level=level,
        method="first",
        resolution=2.80 * error,
        units="units",
    )


@pytest.mark.parametrize("level", [0.95, 0.8])
def test_two_sources_are_added_as_welch_and_satterthwaite_do(level):
    """Two groups of 11 and 4 with the errors of their means: the interval of scipy's Welch test."""
    draw = np.random.default_rng(10)
    one, other = draw.normal(0, 0.5, 11), draw.normal(0, 0.2, 4)
    first = gaussian(one.std(ddof=1) / math.sqrt(11), 11, one.mean() - other.mean(), level)
    found = with_variance(first, other.var(ddof=1) / 4, 3, source="the spread over 4 seeds")
    theirs = scipy.stats.ttest_ind(one, other, equal_var=False).confidence_interval(level)
    assert found.low == pytest.approx(theirs.low)
    assert found.high == pytest.approx(theirs.high)
    assert found.estimate == first.estimate
    total = one.var(ddof=1) / 11 + other.var(ddof=1) / 4
    assert found.resolution == pytest.approx(2.80 * math.sqrt(total))
    assert found.method == "first; with the spread over 4 seeds"
    assert (found.n, found.n_clusters, found.level) == (11, 11, level)
    assert found.units is None


def test_each_side_keeps_its_shape():
    """Twice as far up as Student's t, half as far down: so it stays, but never below Student's."""
    first = gaussian()
    half = first.high - first.estimate
    skewed = replace(first, high=1 + 2 * half, low=1 - half / 2)
    plain = with_variance(first, 0.01, 10, source="x")
    found = with_variance(skewed, 0.01, 10, source="x")
    wide = plain.high - 1
    assert found.high == pytest.approx(1 + 2 * wide)
    assert found.low == pytest.approx(1 - wide)
    mirrored = with_variance(
        replace(skewed, high=1 + half / 2, low=1 - 2 * half), 0.01, 10, source="x"
    )
    assert mirrored.high == pytest.approx(1 + wide)
    assert mirrored.low == pytest.approx(1 - 2 * wide)
    assert wide == pytest.approx(scipy.stats.t.ppf(0.975, 20) * math.sqrt(0.02))


def test_no_second_source_changes_nothing():
    first = gaussian()
    assert with_variance(first, 0.0, 3, source="x") is first
    exact = Interval.exact(0.5, n=3)
    assert with_variance(exact, 0.0, 3, source="x") is exact


@pytest.mark.parametrize("resolution", [0.0, None])
@pytest.mark.parametrize("m", [1, 2, 40])
def test_where_the_first_source_has_no_error_the_second_alone_counts(m, resolution):
    none = replace(Interval.exact(0.5, n=m), resolution=resolution)
    found = with_variance(none, 0.04, 2, source="seeds")
    half = 0.2 * scipy.stats.t.ppf(0.975, 2)
    assert found.low == pytest.approx(0.5 - half)
    assert found.high == pytest.approx(0.5 + half)
    assert found.resolution == pytest.approx(0.56)
    assert found.method == "exact; with seeds"
    assert not found.is_exact


@pytest.mark.parametrize("m", [1, 2])
def test_a_single_unit_counts_as_one_degree_of_freedom(m):
    first = gaussian(0.1, 2)
    first = replace(first, n_clusters=m, high=1 + 2 * (first.high - 1))
    found = with_variance(first, 0.01, 1, source="x")
    half = scipy.stats.t.ppf(0.975, 2) * math.sqrt(0.02)
    assert found.high - 1 == pytest.approx(2 * half)
    assert 1 - found.low == pytest.approx(half)


def test_units_of_unlike_weight_have_the_freedom_of_fewer():
    first = replace(gaussian(), effective=4.5)  # of 11: 3.5 degrees of freedom, not 10
    found = with_variance(first, 0.01, 10, source="x")
    freedom = 0.02**2 / (0.01**2 / 3.5 + 0.01**2 / 10)
    usual = scipy.stats.t.ppf(0.975, 3.5)
    shape = max((first.high - 1) / 0.1 / usual, 1)
    half = scipy.stats.t.ppf(0.975, freedom) * math.sqrt(0.02)
    assert found.high - 1 == pytest.approx(half * shape)


def test_shapes_are_kept_at_levels_at_which_students_t_is_below_one():
    first = gaussian(level=0.5)
    half = first.high - 1
    found = with_variance(replace(first, high=1 + 2 * half), 0.01, 10, source="x")
    wide = scipy.stats.t.ppf(0.75, 20) * math.sqrt(0.02)
    assert wide < math.sqrt(0.02)
    assert found.high == pytest.approx(1 + 2 * wide)
    assert found.low == pytest.approx(1 - wide)
    none = replace(Interval.exact(0.5, n=9), level=0.5)
    found = with_variance(none, 0.04, 2, source="seeds")
    half = 0.2 * scipy.stats.t.ppf(0.75, 2)
    assert (found.low, found.high) == (pytest.approx(0.5 - half), pytest.approx(0.5 + half))


@given(
    error=st.floats(0.01, 1),
    variance=st.floats(1e-4, 1),
    m=st.integers(2, 50),
    d=st.integers(1, 20),
)
@settings(max_examples=60, deadline=None)
def test_more_chance_never_narrows_the_resolution(error, variance, m, d):
    first = gaussian(error, m)
    found = with_variance(first, variance, d, source="x")
    assert found.resolution > first.resolution
    assert found.low < 1 < found.high


# --- intervals anew, and of several


@pytest.mark.parametrize(
    "draw",
    [
        lambda: bootstrap(
            np.stack([X, Y]), CLUSTERS, ratio_of_sums, n_resamples=30, level=0.9, seed=4, unit="u"
        ),
        lambda: median(X, level=0.9, unit="u"),
        lambda: share(3, 17, level=0.9, unit="u"),
        lambda: student_t(X[:5], level=0.9, unit="u"),
    ],
    ids=["bootstrap", "median", "share", "student_t"],
)
def test_the_units_of_an_interval_give_it_again(draw):
    found = draw()
    assert interval_of(found.units, n_resamples=30, level=0.9, seed=4) == found
    assert interval_of(found.units).level == 0.95


def test_units_are_drawn_as_a_claims_are():
    found = bootstrap(X, CLUSTERS)
    assert interval_of(found.units) == found


def test_an_unknown_statistic_is_named():
    units = Units(statistic="mode", sums=np.ones((2, 3)), what="x")
    with pytest.raises(
        DataError,
        match=r"no statistic 'mode'; known: mean, .*, std_ratio, median, share, student_t",
    ):
        interval_of(units)


def test_units_are_told_apart_by_themselves_not_by_their_numbers():
    a, b = (Units(statistic="mean", sums=np.ones((2, 3)), what="x") for _ in range(2))
    assert a != b
    assert isinstance(STATISTICS, dict | MappingProxyType)


def test_the_largest_of_several_is_below_a_bound_only_if_all_are():
    def of(low, estimate, high, unsettled=""):
        return Interval(
            estimate=estimate, low=low, high=high, n=1, n_clusters=1, unsettled=unsettled
        )

    found = largest([of(0, 2, 9), of(0.5, 3, 4), of(1, 1.5, 2)])
    assert (found.low, found.estimate, found.high) == (1, 3, 9)
    assert found.unsettled == ""
    found = largest([of(0, 2, 9), of(1, 1.5, 4, "few"), of(1, 3, 4), of(-1, 0, 2, "fewer")])
    assert (found.estimate, found.unsettled) == (3, "few")
    only = of(0, 1, 2)
    assert largest([only]) == only
