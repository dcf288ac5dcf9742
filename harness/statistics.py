"""Statistics of evidence: intervals that cover as often as they say, at the n they are used at.

Rows that share a formula (polymorphs, relabelled duplicates) err together, so the unit is the
formula, not the row; elsewhere it is a crystal, an element, a seed. Nearly every statistic here is
a function of column sums, so that a resample is a vector of counts, two thousand of them a matrix
product, and two columns of one row travel together, which pairs models by construction.

Which interval, and why it and no other, was chosen by measuring how often it covers
(docs/statistics.md; `python -m harness calibrate` measures it anew on the units of any session):

many units       percentile bootstrap from 2,000 units up
fewer            studentised bootstrap: each resample is divided by its own standard error
fewer than 20    Student's t in standard errors of the jackknife; so of fewer than 60 effective ones
                 where weights are unlike
counts           Clopper and Pearson
medians          order statistics, which assume nothing
trainings        Student's t, the seed being the unit
two sources      variances added, with Satterthwaite's degrees of freedom

Where no interval reaches its level, because a few units decide the number, the interval says so
(`unsettled`) and its verdict is inconclusive.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from harness.claims import Interval
from harness.errors import CannotResolve, DataError

N_RESAMPLES = 2000
# 1.96 (two-sided 95 %) + 0.84 (80 % power): a true difference of so many standard errors is found
# four times out of five.
STANDARD_ERRORS_RESOLVED = 2.80

MANY = 2000  # units from which on percentiles cover, and studentising is not worth its price
# Effective units below which studentised resamples cover too often, since they repeat each other,
# or where weights are unlike not often enough: 90.3 to 99.7 % on real crystals, where the jackknife
# covers 93.9 to 97.2 % (docs/statistics.md). Skewed errors are better off studentised, so they are
# as soon as they may be.
FEW = 20
FEW_OF_UNLIKE_WEIGHT = 60
_ALIKE = 0.8  # effective units over units
FEWEST = 10  # units below which no bootstrap is trusted
# What a single unit may have of the squared influences. With 42 to 50 % in one, intervals over 17
# to 214 units covered 88 to 93 % (docs/statistics.md).
MOST_OF_VARIANCE = 0.4

_ROUNDING = 1e-9  # of the estimate: an error below it is that of the derivatives, by differences
_FAR = 1e9  # standard errors: where a resample without an error of its own lies

_KEPT_AS_FLOAT = 12_000_000  # counts: 96 MB, of three sets of rows at most

Statistic = Callable[[np.ndarray], np.ndarray]


# --- functions of column sums: sums[0] counts rows, sums[1:] are the sums of the columns


def mean(sums: np.ndarray) -> np.ndarray:
    """Mean of the first column."""
    return sums[1] / sums[0]


def geometric_mean(sums: np.ndarray) -> np.ndarray:
    """Geometric mean of what the first column holds the logarithm of."""
    return np.asarray(np.exp(sums[1] / sums[0]))


def ratio_of_sums(sums: np.ndarray) -> np.ndarray:
    """Sum of the first column over that of the second: with xy and xx the slope through 0."""
    return sums[1] / sums[2]


def log_ratio_of_sums(sums: np.ndarray) -> np.ndarray:
    """Logarithm of the same."""
    return np.log(sums[1] / sums[2])


def ratio_of_ratios(sums: np.ndarray) -> np.ndarray:
    """(first over second) over (third over fourth)."""
    return (sums[1] / sums[2]) / (sums[3] / sums[4])


def std_ratio(sums: np.ndarray) -> np.ndarray:
    """Standard deviation of the second quantity over that of the first.

    ``sums`` are counts and sums of x, x², y, y²; centre the columns first, or rounding eats the
    variance of numbers far from zero.
    """
    count, x, xx, y, yy = sums
    return np.sqrt((yy / count - (y / count) ** 2) / (xx / count - (x / count) ** 2))


STATISTICS: Mapping[str, Statistic] = {
    f.__name__: f
    for f in (mean, geometric_mean, ratio_of_sums, log_ratio_of_sums, ratio_of_ratios, std_ratio)
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Units:
    """What an interval was drawn from: enough to draw another from a resample of the units."""

    statistic: str  # of STATISTICS, or `median`, `student_t`, `share`
    sums: np.ndarray  # (1 + k, m) of each unit: its rows, and the sums of its columns
    what: str  # a unit, in words


# --- the bootstrap


def bootstrap(
    columns: np.ndarray,
    clusters: np.ndarray,
    statistic: Statistic = mean,
    *,
    n_resamples: int = N_RESAMPLES,
    level: float = 0.95,
    seed: int = 0,
    unit: str = "reduced formulas",
) -> Interval:
    """Interval of a statistic of column sums, resampling whole clusters.

    Percentiles from MANY clusters up, studentised below; of FEW effective ones Student's t with the
    jackknife's error. With fewer than FEWEST, or where one of them decides the number, the interval
    is there and says that it is `unsettled`.

    Args:
        columns: (k, n) or (n,) finite values, one column of the array a row of the data.
        clusters: (n,) labels; rows with one label are drawn together.
        statistic: of STATISTICS; maps sums of shape (1 + k, ...) to shape (...). It must not change
            when all sums are multiplied by one number. The default is the mean of the first column.
        seed: of the resampling; the same call gives the same interval.
        unit: what a cluster is, for the record.
    Raises:
        CannotResolve: fewer than two clusters.
        DataError: lengths differ, or a value is not finite.
    Source: B. Efron and R. Tibshirani, An Introduction to the Bootstrap (1993), chapters 8 and
        11 to 13.
    """
    columns = np.atleast_2d(np.asarray(columns, dtype=np.float64))
    n = columns.shape[1]
    if len(clusters) != n:
        raise DataError(f"{n} values but {len(clusters)} cluster labels; give one label a row")
    if not np.isfinite(columns).all():
        bad = np.flatnonzero(~np.isfinite(columns).all(axis=0))
        raise DataError(f"{len(bad)} of {n} values are not finite, first at row {bad[0]}")
    labels, owner = np.unique(np.asarray(clusters), return_inverse=True)
    if len(labels) < 2:
        raise CannotResolve(
            f"{n} rows in {len(labels)} cluster(s): an interval needs at least two independent "
            f"{unit}. Score more rows."
        )
    rows = np.vstack([np.ones(n), columns])
    sums = np.vstack([np.bincount(owner, weights=row, minlength=len(labels)) for row in rows])
    units = Units(statistic=statistic.__name__, sums=sums, what=unit)
    return _bootstrap(units, n_resamples=n_resamples, level=level, seed=seed)


def _bootstrap(units: Units, *, n_resamples: int, level: float, seed: int) -> Interval:
    sums, statistic, m = units.sums, STATISTICS[units.statistic], units.sums.shape[1]
    total = sums.sum(axis=1)
    estimate = float(statistic(total))
    influence = _gradient(statistic, total[:, None], np.abs(sums).sum(axis=1))[:, 0] @ sums
    squares = influence**2
    error = float(np.sqrt(m / (m - 1) * squares.sum()))
    if error <= _ROUNDING * abs(estimate):
        error, squares = 0.0, np.zeros(m)
    weights = np.abs(sums[2] if units.statistic == "ratio_of_sums" else sums[0])
    effective = float(weights.sum() ** 2 / (weights**2).sum())
    unsettled = _unsettled(squares, units.what)
    tails = [50 * (1 - level), 50 * (1 + level)]
    method = f"bootstrap over {m} {units.what}, {n_resamples} resamples"
    if m >= MANY:
        resampled = statistic(_resampled_sums(sums, n_resamples, seed))
        low, high = np.percentile(resampled, tails)
        method = f"percentile {method}"
    elif effective >= (FEW if effective > _ALIKE * m else FEW_OF_UNLIKE_WEIGHT):
        low, high = _studentised(statistic, sums, estimate, error, tails, n_resamples, seed)
        method = f"studentised {method}"
    else:
        if error > 0:
            error = _jackknife_error(statistic, sums, total, units.what)
        half = _quantile_of_t((1 + level) / 2, max(effective - 1, 1)) * error
        low, high = estimate - half, estimate + half
        method = f"jackknife and Student's t over {m} {units.what}"
    return Interval(
        estimate=estimate,
        low=min(float(low), estimate),
        high=max(float(high), estimate),
        n=round(float(sums[0].sum())),
        n_clusters=m,
        level=level,
        method=method,
        effective=effective,
        resolution=STANDARD_ERRORS_RESOLVED * error,
        unsettled=unsettled,
        units=units,
    )


def _studentised(
    statistic: Statistic,
    sums: np.ndarray,
    estimate: float,
    error: float,
    tails: Sequence[float],
    n_resamples: int,
    seed: int,
) -> tuple[float, float]:
    """Ends of the interval in which every resample is measured in its own standard errors."""
    if error == 0:
        return estimate, estimate
    m = sums.shape[1]
    first, second = np.triu_indices(len(sums))
    drawn = _resampled_sums(np.vstack([sums, sums[first] * sums[second]]), n_resamples, seed)
    totals, products = drawn[: len(sums)], drawn[len(sums) :]
    slopes = _gradient(statistic, totals, np.abs(sums).sum(axis=1))
    twice = np.where(first == second, 1.0, 2.0)[:, None]
    variance = m / (m - 1) * (twice * slopes[first] * slopes[second] * products).sum(axis=0)
    errors = np.sqrt(np.maximum(variance, 0))
    # A resample of copies of one unit has no error of its own: as far away as can be.
    gap = statistic(totals) - estimate
    own = errors > 1e-6 * error
    t = np.where(own, gap / np.where(own, errors, 1.0), np.sign(gap) * _FAR)
    low, high = np.quantile(t, [tails[0] / 100, tails[1] / 100], method="nearest")
    return estimate - high * error, estimate - low * error


def _jackknife_error(statistic: Statistic, sums: np.ndarray, total: np.ndarray, what: str) -> float:
    """Standard error by leaving out one unit at a time."""
    m = sums.shape[1]
    with np.errstate(divide="ignore", invalid="ignore"):
        without = statistic(total[:, None] - sums)
    if not np.isfinite(without).all():
        raise DataError(
            f"without one of {m} {what} there is no number left: the others weigh nothing. Score "
            "more of them."
        )
    return float(np.sqrt((m - 1) / m * ((without - without.mean()) ** 2).sum()))


def _gradient(statistic: Statistic, totals: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(1 + k, ...) derivatives of the statistic by each sum, by central differences.

    Args:
        totals: (1 + k, ...) where to take them.
        sizes: (1 + k,) sums of absolute values, which set the steps.
    """
    slopes = np.empty_like(totals)
    for column, size in enumerate(sizes):
        step = 1e-5 * (size or 1.0)
        moved = totals.copy()
        moved[column] += step
        above = statistic(moved)
        moved[column] -= 2 * step
        slopes[column] = (above - statistic(moved)) / (2 * step)
    return slopes


def _unsettled(squares: np.ndarray, what: str) -> str:
    """Why no interval reaches its level: too few units, or one with most of the variance."""
    if len(squares) < FEWEST:
        return f"{len(squares)} {what} are too few for an interval, which takes {FEWEST}"
    share = float(squares.max() / squares.sum()) if squares.any() else 0.0
    if share > MOST_OF_VARIANCE:
        return (
            f"one of {len(squares)} {what} has {share:.0%} of the variance and decides the number: "
            "no interval reaches its level"
        )
    return ""


def _resampled_sums(sums: np.ndarray, n_resamples: int, seed: int) -> np.ndarray:
    """(k, n_resamples) sums of each column over as many clusters as there are, with replacement."""
    n_clusters = sums.shape[1]
    with _blas().limit(limits=1):  # so thin a product takes three times as long on two threads
        if n_clusters * n_resamples <= _KEPT_AS_FLOAT:
            return sums @ _float_counts(n_clusters, n_resamples, seed)
        counts = _resample_counts(n_clusters, n_resamples, seed)
        blocks = np.array_split(counts, counts.size // 4_000_000)  # 32 MB as float64
        return np.concatenate([sums @ block.T.astype(np.float64) for block in blocks], axis=1)


@functools.cache
def _blas() -> Any:
    """The linear algebra library that numpy loaded; looking for it takes longer than a product."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")


@functools.lru_cache(maxsize=3)
def _float_counts(n_clusters: int, n_resamples: int, seed: int) -> np.ndarray:
    """The counts of `_resample_counts` as the matrix product wants them."""
    counts = _resample_counts(n_clusters, n_resamples, seed).T.astype(np.float64)
    counts.flags.writeable = False
    return counts


@functools.lru_cache(maxsize=16)
def _resample_counts(n_clusters: int, n_resamples: int, seed: int) -> np.ndarray:
    """(n_resamples, n_clusters) uint8: how often each cluster is drawn.

    Kept, because a session asks many questions of the same rows; the same draw for all of them is
    what makes their intervals comparable. A cluster drawn 256 times has odds below 1e-500.
    """
    draw = np.random.default_rng(seed)
    counts = np.empty((n_resamples, n_clusters), dtype=np.uint8)
    for row in counts:
        row[:] = np.bincount(draw.integers(n_clusters, size=n_clusters), minlength=n_clusters)
    counts.flags.writeable = False
    return counts


# --- other intervals


def median(values: np.ndarray, *, level: float = 0.95, unit: str) -> Interval:
    """Median of independent values, between order statistics: whatever they are distributed like.

    The ends are the innermost pair of sorted values that covers at least as often as ``level``
    says; of fewer than six values not even the outermost does, and the interval is `unsettled`.

    Args:
        values: (m,) finite, one a unit.
    Raises:
        DataError: no values, or one is not finite.
    Source: W. J. Conover, Practical Nonparametric Statistics (1999), section 3.2.
    """
    from scipy.special import bdtr

    x = np.sort(np.asarray(values, dtype=np.float64))
    m = len(x)
    if m == 0 or not np.isfinite(x).all():
        raise DataError(f"{m} values, all of which must be finite and there must be one at least")
    # the number of values below the true median is binomial: the k-th from either end has as many
    # or more outside it with a chance of bdtr(k - 1, m, 0.5)
    k = int((2 * bdtr(np.arange(m // 2 + 1), m, 0.5) <= 1 - level).sum())
    reached = k >= 1
    low, high = (x[k - 1], x[m - k]) if reached else (x[0], x[-1])
    return Interval(
        estimate=float(np.median(x)),
        low=float(low),
        high=float(high),
        n=m,
        n_clusters=m,
        level=level,
        method=f"order statistics of {m} {unit}",
        resolution=STANDARD_ERRORS_RESOLVED * float(high - low) / (2 * 1.96),
        unsettled="" if reached else f"{m} {unit} are too few for an interval of a median",
        units=Units(statistic="median", sums=np.stack([np.ones(m), x]), what=unit),
    )


def share(hits: int, n: int, *, level: float = 0.95, unit: str) -> Interval:
    """Share of independent draws in which something happened: Clopper's and Pearson's interval.

    It never covers less often than it says, and more often where hits are few.

    Args:
        hits: how often it did, of ``n`` draws, n from 1 up.
    Raises:
        DataError: there is no draw, or more hits than draws.
    Source: C. J. Clopper and E. S. Pearson, Biometrika 26, 404 (1934).
    """
    from scipy.special import betaincinv

    if not 0 <= hits <= n or n < 1:
        raise DataError(f"{hits} of {n} draws: give one draw at least, and no more hits than draws")
    low = float(betaincinv(hits, n - hits + 1, (1 - level) / 2)) if hits > 0 else 0.0
    high = float(betaincinv(hits + 1, n - hits, (1 + level) / 2)) if hits < n else 1.0
    return Interval(
        estimate=hits / n,
        low=low,
        high=high,
        n=n,
        n_clusters=n,
        level=level,
        method=f"Clopper-Pearson, {hits} of {n} {unit}",
        resolution=high - low,
        units=Units(
            statistic="share",
            sums=np.stack([np.ones(n), np.arange(n) < hits]).astype(np.float64),
            what=unit,
        ),
    )


def student_t(values: np.ndarray, *, level: float = 0.95, unit: str) -> Interval:
    """Mean of a few independent values that are nearly normal, such as trainings from seeds.

    Raises:
        DataError: fewer than two values, or one is not finite.
    """
    x = np.asarray(values, dtype=np.float64)
    if len(x) < 2 or not np.isfinite(x).all():
        raise DataError(f"{len(x)} {unit}: an interval needs two at least, and finite values")
    error = float(x.std(ddof=1) / len(x) ** 0.5)
    quantile = _quantile_of_t((1 + level) / 2, len(x) - 1)
    half = quantile * error
    middle = float(x.mean())
    return Interval(
        estimate=middle,
        low=middle - half,
        high=middle + half,
        n=len(x),
        n_clusters=len(x),
        level=level,
        method=f"Student's t over {len(x)} {unit}",
        resolution=(quantile + 0.84) * error,
        units=Units(statistic="student_t", sums=np.stack([np.ones(len(x)), x]), what=unit),
    )


def with_variance(interval: Interval, variance: float, freedom: float, *, source: str) -> Interval:
    """The interval widened by a second, independent source of chance.

    Each side keeps its own shape: its half-width, in standard errors, is scaled to that of
    Student's t with the degrees of freedom of the sum.

    Args:
        variance: of the estimate by the second source alone.
        freedom: degrees of freedom that variance was estimated with.
        source: what it is, for the record.
    Source: F. E. Satterthwaite, Biometrics Bulletin 2, 110 (1946).
    """
    first = ((interval.resolution or 0.0) / STANDARD_ERRORS_RESOLVED) ** 2
    total = first + variance
    if variance == 0 or total == 0:
        return interval
    own_freedom = max((interval.effective or interval.n_clusters) - 1, 1)
    together = total**2 / (first**2 / own_freedom + variance**2 / freedom)
    q = _quantile_of_t((1 + interval.level) / 2, together)
    # of the interval's own sides, in its own standard errors; symmetric where it has none
    own = first**0.5
    shapes = [
        (side / own if own > 0 else 0.0)
        for side in (interval.estimate - interval.low, interval.high - interval.estimate)
    ]
    usual = _quantile_of_t((1 + interval.level) / 2, own_freedom)
    low, high = (total**0.5 * max(q, q * shape / usual if usual > 0 else q) for shape in shapes)
    return replace(
        interval,
        low=interval.estimate - low,
        high=interval.estimate + high,
        resolution=STANDARD_ERRORS_RESOLVED * total**0.5,
        method=f"{interval.method}; with {source}",
        units=None,
    )


def _quantile_of_t(p: float, freedom: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(freedom, p))


def interval_of(
    units: Units, *, n_resamples: int = N_RESAMPLES, level: float = 0.95, seed: int = 0
) -> Interval:
    """The interval of these units by the code that draws it for a claim, such as of a resample.

    Raises:
        DataError: the statistic is unknown, or these units allow no interval.
    """
    if units.statistic in STATISTICS:
        return _bootstrap(units, n_resamples=n_resamples, level=level, seed=seed)
    values = units.sums[1]
    if units.statistic == "median":
        return median(values, level=level, unit=units.what)
    if units.statistic == "share":
        return share(int(values.sum()), len(values), level=level, unit=units.what)
    if units.statistic == "student_t":
        return student_t(values, level=level, unit=units.what)
    known = ", ".join((*STATISTICS, "median", "share", "student_t"))
    raise DataError(f"no statistic {units.statistic!r}; known: {known}")


def largest(intervals: Sequence[Interval]) -> Interval:
    """The interval of the largest of several quantities.

    It reaches from the largest low end to the largest high end: below a bound only if every one
    is, above it if one is.
    """
    unsettled = next((i.unsettled for i in intervals if i.unsettled), "")
    return replace(
        max(intervals, key=lambda interval: interval.estimate),
        low=max(interval.low for interval in intervals),
        high=max(interval.high for interval in intervals),
        unsettled=unsettled,
    )
