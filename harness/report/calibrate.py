"""How often intervals cover, measured on the very units that a session drew them from.

The measured units are taken for a whole population, whose number is therefore known. As many of
them are drawn with replacement, the interval is made by the code that made it for the claim, and
where the known number lies is counted. An interval of 95 % should have it inside 95 times of 100,
and be too high about as often as too low: what misses on one side only makes verdicts wrong there.

Where drawing the units anew says nothing, the population is a stated one: fewer than ten units, or
a share of which all or none are hits. A share then has its claim's bound for a truth, and numbers
are drawn from a normal population with the units' own mean and variance.

Public: calibrate, render, Row.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness.claims import Interval
from harness.errors import DataError
from harness.statistics import FEWEST, Units, interval_of

if TYPE_CHECKING:
    from harness.store import MakeProgress

TRIALS = 2000
FEWEST_TRIALS = 1000
# Units drawn for one claim in all: of a hundred thousand rows a thousand samples are enough.
_MOST_DRAWN = 2_000_000


@dataclass(frozen=True, kw_only=True)
class Row:
    """One interval of a session, and how often its like covers."""

    key: str  # claim, case and fold
    method: str
    n: int  # rows
    n_units: int
    effective: float | None
    settled: bool  # whether the measured interval is
    population: str  # what was drawn from
    trials: int
    unsettled: float | None  # share of draws that had no interval to trust; None: nothing drawn
    # Shares of the other draws, None where there were none: of those in which the population's own
    # number lies inside the interval, below it, above it
    inside: float | None
    below: float | None
    above: float | None
    wrongly_held: float | None  # of all draws: those `held` although the truth is on the bound


def calibrate(
    folder: Path, trials: int = TRIALS, seed: int = 0, progress: MakeProgress | None = None
) -> list[Row]:
    """One row for every interval whose units the session in ``folder`` kept, by name.

    Args:
        folder: of a report, with `units/*.npz` in it.
        trials: samples to draw of each; of very many units fewer are.
        seed: of the draws; the same call gives the same rows.
    Raises:
        DataError: there are no units, or a file of them is not as described.
    """
    paths = sorted((folder / "units").glob("*.npz"))
    if not paths:
        raise DataError(
            f"{folder / 'units'} holds no units: no session left its intervals' units there. Run "
            "`pytest checks/ -m fold0` first, or name another folder."
        )
    tick = progress("calibrate", len(paths)) if progress else None
    rows = []
    for place, path in enumerate(paths):
        key, units, bound = read_units(path)
        rows.append(_row(key, units, bound, trials, np.random.default_rng([seed, place])))
        if tick:
            tick(1)
    return rows


def render(rows: list[Row]) -> Iterator[str]:
    """The rows as a table in Markdown."""
    yield (
        "| claim | interval | rows | units | effective | settled | inside | truth below | truth "
        "above | wrong `held` | unsettled | drawn from |"
    )
    yield "|---|---|--:|--:|--:|---|--:|--:|--:|--:|--:|---|"
    for row in rows:
        effective = "" if row.effective is None else f"{row.effective:.0f}"
        shares = (row.inside, row.below, row.above, row.wrongly_held, row.unsettled)
        cells = (
            f"`{row.key}`",
            row.method,
            f"{row.n:,}",
            f"{row.n_units:,}",
            effective,
            "yes" if row.settled else "no",
            *("–" if share is None else f"{100 * share:.1f} %" for share in shares),
            row.population,
        )
        yield f"| {' | '.join(cells)} |"


def read_units(path: Path) -> tuple[str, Units, np.ndarray]:
    """Key, units, and the ends of the claim's bound, NaN where it has none."""
    try:
        with np.load(path, allow_pickle=False) as file:
            units = Units(
                statistic=str(file["statistic"]), sums=file["sums"], what=str(file["what"])
            )
            bound = np.asarray(file["bound"], dtype=np.float64)
            key = str(file["key"])
    except Exception as error:  # zipfile answers damage with many kinds
        raise DataError(f"{path} is no file of units ({error}). Run the session again.") from None
    if units.sums.ndim != 2 or units.sums.shape[1] == 0 or bound.shape != (2,):
        raise DataError(
            f"{path}: sums have shape {units.sums.shape} and the bound {bound.shape}; they are "
            "(1 + k, m) with m >= 1, and (2,). Run the session again."
        )
    return key, units, bound


def _row(key: str, units: Units, bound: np.ndarray, trials: int, draw: np.random.Generator) -> Row:
    measured = _interval(units)
    m = units.sums.shape[1]
    trials = min(trials, max(FEWEST_TRIALS, _MOST_DRAWN // m))
    population, truth, sample = _population(units, bound, draw)
    inside = below = above = 0
    if sample is not None:
        for _ in range(trials):
            found = _interval(sample())
            if found is None or found.unsettled:
                continue
            below += truth < found.low
            above += truth > found.high
            inside += found.low <= truth <= found.high
    settled = inside + below + above

    def share(count: int) -> float | None:
        return count / settled if settled else None

    # Below a bound is held by intervals that lie too low, above one by those that lie too high.
    wrong = [count for end, count in zip(bound, (below, above), strict=True) if not np.isnan(end)]
    return Row(
        key=key,
        method="" if measured is None else _short(measured.method),
        n=round(float(units.sums[0].sum())),
        n_units=m,
        effective=None if measured is None else measured.effective,
        settled=measured is not None and not measured.unsettled,
        population=population,
        trials=trials if sample is not None else 0,
        unsettled=None if sample is None else 1 - settled / trials,
        inside=share(inside),
        below=share(below),
        above=share(above),
        wrongly_held=max(wrong) / trials if wrong and sample is not None else None,
    )


def _population(
    units: Units, bound: np.ndarray, draw: np.random.Generator
) -> tuple[str, float, Callable[[], Units] | None]:
    """What samples are drawn from in words, its true number, and a way to draw one."""
    sums, m = units.sums, int(units.sums.shape[1])
    few = m < FEWEST
    one_sort = units.statistic == "share" and float(sums[1].sum()) in (0.0, float(m))

    def like(values: np.ndarray) -> Units:
        return Units(
            statistic=units.statistic, sums=np.stack([np.ones(m), values]), what=units.what
        )

    if units.statistic == "share" and (few or one_sort):
        ends = [end for end in bound if 0 < end < 1]
        if not ends:
            return "nothing: no share lies at the bound", np.nan, None
        rate = float(sums[1].mean())
        truth = min(ends, key=lambda end: abs(end - rate))
        return f"a share of {truth:g}", truth, lambda: like(draw.binomial(1, truth, m))
    if few and units.statistic in ("student_t", "median"):
        middle, spread = float(sums[1].mean()), float(sums[1].std(ddof=1)) if m > 1 else 0.0
        return "a normal population", middle, lambda: like(draw.normal(middle, spread, m))
    truth = _interval(units)
    if few or truth is None:
        return "nothing: too few units", np.nan, None

    def resample() -> Units:
        drawn = sums[:, draw.integers(m, size=m)]
        return Units(statistic=units.statistic, sums=drawn, what=units.what)

    return "the units", truth.estimate, resample


def _interval(units: Units) -> Interval | None:
    """The interval of these units; None where they allow none, such as copies of one unit."""
    if units.statistic == "share":  # which depends on two numbers only, and takes its time
        return _share(round(float(units.sums[1].sum())), units.sums.shape[1], units.what)
    try:
        with np.errstate(all="ignore"):
            return interval_of(units)
    except (DataError, ValueError, ZeroDivisionError):
        return None


@functools.lru_cache(maxsize=1024)
def _share(hits: int, n: int, what: str) -> Interval:
    sums = np.stack([np.ones(n), np.arange(n) < hits])
    return interval_of(Units(statistic="share", sums=sums, what=what))


def _short(method: str) -> str:
    """A method without its numbers, which have columns of their own."""
    return method.partition(" over ")[0].partition(" of ")[0].partition(",")[0]
