"""The words of the project: interval, bound, verdict, measurement, claim.

A claim is one falsifiable sentence with a bound written before the run. A measurement is a number
with an interval and its coverage. Comparing the two gives the verdict, and nothing else does:
`Bound.judge` is the only place where `held` is decided.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from harness.errors import ConfigError


class Verdict(StrEnum):
    """What a check concluded."""

    HELD = "held"
    REFUTED = "refuted"
    INCONCLUSIVE = "inconclusive"  # the interval straddles the bound
    PLACEHOLDER = "placeholder"  # the lever changed nothing beyond the A/A noise floor
    NOT_RUN = "not run"  # always with its reason


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate with its confidence interval. Exact quantities have low == estimate == high."""

    estimate: float
    low: float
    high: float
    n: int  # rows
    n_clusters: int  # independent units the interval was drawn over
    level: float = 0.95
    method: str = ""
    resolution: float | None = None  # smallest difference this n resolves with 80 % power

    def __post_init__(self) -> None:
        numbers = (self.estimate, self.low, self.high)
        if not all(map(math.isfinite, numbers)) or self.low > self.high:
            raise ValueError(f"not an interval: estimate, low, high = {numbers}")

    @classmethod
    def exact(cls, value: float, *, n: int) -> Interval:
        """A number with no sampling error, such as a count or an identity's largest deviation."""
        return cls(estimate=value, low=value, high=value, n=n, n_clusters=n, method="exact")


@dataclass(frozen=True, kw_only=True)
class Bound:
    """What a quantity must satisfy: below ``high``, above ``low``, or between them (open ends)."""

    unit: str
    reason: str  # why this number and no other
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        if self.low is None and self.high is None:
            raise ConfigError("a bound needs a low or a high end; without one no check can fail")
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise ConfigError(f"bound is empty: low={self.low} is not below high={self.high}")
        if not self.reason:
            raise ConfigError("a bound needs its reason: say where the number comes from")

    def judge(self, interval: Interval) -> Verdict:
        """Held if the whole interval satisfies the bound, refuted if none of it does."""
        low = -math.inf if self.low is None else self.low
        high = math.inf if self.high is None else self.high
        if low < interval.low and interval.high < high:
            return Verdict.HELD
        if interval.high <= low or high <= interval.low:
            return Verdict.REFUTED
        return Verdict.INCONCLUSIVE

    def __str__(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        if self.low is None:
            return f"< {self.high:g}{unit}"
        if self.high is None:
            return f"> {self.low:g}{unit}"
        return f"in ({self.low:g}, {self.high:g}){unit}"


def below(high: float, unit: str, reason: str) -> Bound:
    """The quantity is less than ``high``."""
    return Bound(high=high, unit=unit, reason=reason)


def above(low: float, unit: str, reason: str) -> Bound:
    """The quantity is greater than ``low``."""
    return Bound(low=low, unit=unit, reason=reason)


def between(low: float, high: float, unit: str, reason: str) -> Bound:
    """The quantity lies strictly between ``low`` and ``high``."""
    return Bound(low=low, high=high, unit=unit, reason=reason)


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A quantity, its interval, and on what it was measured. Runners make these, checks judge them.

    ``scored`` of ``of`` rows is the coverage: ``of`` counts every row the claim is about, and
    ``excluded`` says, reason by reason, where the others went; the three must add up.
    """

    quantity: str
    interval: Interval
    scored: int
    of: int
    dataset: str
    model: str
    excluded: Mapping[str, int] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)  # file or model -> sha256
    details: Mapping[str, object] = field(default_factory=dict)  # further numbers, JSON-able
    placeholder: str = ""  # why the lever counts as never applied

    def __post_init__(self) -> None:
        missing = self.of - self.scored - sum(self.excluded.values())
        if missing != 0:
            raise ValueError(
                f"{self.quantity}: {self.scored} scored + {dict(self.excluded)} excluded do not "
                f"add up to {self.of} rows; {missing} rows are unaccounted for"
            )


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One falsifiable sentence. ``bounds_on`` holds bounds of its own for particular data sets."""

    id: str
    statement: str
    basis: str  # where the claim comes from
    bound: Bound
    bounds_on: Mapping[str, Bound] = field(default_factory=dict)  # dataset name -> bound

    def __post_init__(self) -> None:
        if not all((self.id, self.statement, self.basis)):
            raise ConfigError(f"claim {self.id!r} needs an id, a statement and a basis")

    def bound_on(self, dataset: str) -> Bound:
        """The bound that applies to this data set."""
        return self.bounds_on.get(dataset, self.bound)

    def judge(self, measurement: Measurement) -> Verdict:
        """The verdict on this measurement."""
        if measurement.placeholder:
            return Verdict.PLACEHOLDER
        return self.bound_on(measurement.dataset).judge(measurement.interval)
