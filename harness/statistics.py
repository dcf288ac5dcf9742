"""Statistics of evidence: intervals by bootstrap over structures, clustered by reduced formula.

Rows that share a formula (polymorphs, relabelled duplicates) err together, so the unit that is
resampled is the formula, not the row. Every statistic used here is a function of column sums,
which makes two thousand resamples of a fold a matter of a second and pairs models by construction:
two columns of one row travel together.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from harness.claims import Interval
from harness.errors import DataError

N_RESAMPLES = 2000
# 1.96 (two-sided 95 %) + 0.84 (80 % power): a true difference of so many standard errors is found
# four times out of five.
STANDARD_ERRORS_RESOLVED = 2.80

_KEPT_AS_FLOAT = 12_000_000  # counts: 96 MB, of three sets of rows at most

Statistic = Callable[[np.ndarray], np.ndarray]


def mean(sums: np.ndarray) -> np.ndarray:
    """Mean of the first column."""
    return sums[1] / sums[0]


def geometric_mean(sums: np.ndarray) -> np.ndarray:
    """Geometric mean of what the first column holds the logarithm of."""
    return np.asarray(np.exp(sums[1] / sums[0]))


def ratio_of_sums(sums: np.ndarray) -> np.ndarray:
    """Sum of the first column over that of the second: with xy and xx the slope through 0."""
    return sums[1] / sums[2]


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
    """Percentile interval of a statistic of column sums, resampling whole clusters.

    Args:
        columns: (k, n) or (n,) finite values, one column of the array a row of the data.
        clusters: (n,) labels; rows with one label are drawn together.
        statistic: maps sums of shape (1 + k, ...) to shape (...); sums[0] counts rows, sums[1:]
            are the sums of the columns. The default is the mean of the first column.
        seed: of the resampling; the same call gives the same interval.
        unit: what a cluster is, for the record.
    Raises:
        DataError: fewer than two clusters, lengths differ, or a value is not finite.
    Source: B. Efron and R. Tibshirani, An Introduction to the Bootstrap (1993), chapters 8 and 13.
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
        raise DataError(
            f"{n} rows in {len(labels)} cluster(s): an interval needs at least two independent "
            f"{unit}. Score more rows."
        )
    rows = np.vstack([np.ones(n), columns])
    sums = np.vstack([np.bincount(owner, weights=row, minlength=len(labels)) for row in rows])
    estimate = float(statistic(sums.sum(axis=1)))

    resampled = statistic(_resampled_sums(sums, n_resamples, seed))
    tail = 50 * (1 - level)
    low, high = np.percentile(resampled, [tail, 100 - tail])
    return Interval(
        estimate=estimate,
        low=float(low),
        high=float(high),
        n=n,
        n_clusters=len(labels),
        level=level,
        method=f"percentile bootstrap over {len(labels)} {unit}, {n_resamples} resamples",
        resolution=STANDARD_ERRORS_RESOLVED * float(resampled.std(ddof=1)),
    )


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


def largest(intervals: Sequence[Interval]) -> Interval:
    """The interval of the largest of several quantities.

    It reaches from the largest low end to the largest high end: below a bound only if every one
    is, above it if one is.
    """
    return replace(
        max(intervals, key=lambda interval: interval.estimate),
        low=max(interval.low for interval in intervals),
        high=max(interval.high for interval in intervals),
    )


def std_ratio(sums: np.ndarray) -> np.ndarray:
    """Standard deviation of the second quantity over that of the first.

    ``sums`` are counts and sums of x, x², y, y²; centre the columns first, or rounding eats the
    variance of numbers far from zero.
    """
    count, x, xx, y, yy = sums
    return np.sqrt((yy / count - (y / count) ** 2) / (xx / count - (x / count) ** 2))
