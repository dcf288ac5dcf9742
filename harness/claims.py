"""The words of the project: interval, bound, verdict, measurement, claim, sentence.

A claim is one falsifiable sentence with a bound written before the run. A measurement is a number
with an interval and its coverage. Comparing the two gives the verdict of one case, and nothing else
does: `Claim.judge` is the only place where `held` is decided. A sentence with several cases has one
verdict too, made from theirs by the rule it states: `Claim.sentence`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from harness.errors import ConfigError

if TYPE_CHECKING:
    from harness.statistics import Units


class Verdict(StrEnum):
    """What a check concluded."""

    HELD = "held"
    REFUTED = "refuted"
    INCONCLUSIVE = "inconclusive"  # the interval straddles the bound, or there is none to trust
    PLACEHOLDER = "placeholder"  # the lever changed nothing beyond the A/A noise floor
    NOT_RUN = "not run"  # always with its reason


class Kind(StrEnum):
    """What a claim is about."""

    FINDING = "finding"  # how good a subject is
    INTEGRITY = "integrity"  # that numbers mean what they say: identities, laws, records
    TOY = "toy"  # a model of the argument, not of matter


class Meaning(StrEnum):
    """What it says of the subject that a finding is held."""

    STRENGTH = "strength"
    WEAKNESS = "weakness"
    NEUTRAL = "neutral"


class Size(StrEnum):
    """How much a session measures. Sessions of different sizes are different subjects."""

    QUICK = "quick"
    NIGHTLY = "nightly"


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
    effective: float | None = None  # units as many as would weigh alike (Kish); None: all alike
    resolution: float | None = None  # smallest difference this n resolves with 80 % power
    unsettled: str = ""  # why no interval reaches its level here; empty where this one does
    # what it was drawn from, for measuring its coverage anew
    units: Units | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        numbers = (self.estimate, self.low, self.high)
        if not all(map(math.isfinite, numbers)) or not self.low <= self.estimate <= self.high:
            raise ValueError(
                f"not an interval: estimate, low, high = {numbers}; they must be finite and the "
                "estimate must lie between the ends"
            )

    @classmethod
    def exact(cls, value: float, *, n: int) -> Interval:
        """A number with no sampling error: an identity's largest deviation, a complete count."""
        return cls(estimate=value, low=value, high=value, n=n, n_clusters=n, method="exact")

    @property
    def is_exact(self) -> bool:
        """Whether nothing was sampled."""
        return self.method == "exact"


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
        if any(end is not None and not math.isfinite(end) for end in (self.low, self.high)):
            raise ConfigError(f"bound ends {self.low} and {self.high}: give finite numbers")
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

    def nearest(self, value: float) -> float:
        """The end nearer to ``value``; of one end, that."""
        return min(
            (end for end in (self.low, self.high) if end is not None), key=lambda e: abs(e - value)
        )

    @property
    def margin(self) -> float | None:
        """The scale of the bound: half of a window, else its distance from zero; None at zero."""
        if self.low is not None and self.high is not None:
            return (self.high - self.low) / 2
        return abs(self.nearest(0.0)) or None

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

    ``scored`` of ``of`` rows is the coverage: ``of`` counts every row the claim is about. Where the
    others went is said reason by reason: ``excluded`` were asked for and could not be scored,
    ``absent`` were never asked (no structure at hand, not in the sample); all must add up.
    """

    quantity: str
    interval: Interval
    scored: int
    of: int
    dataset: str
    model: str
    # The name documented verdicts stand under: the model's identity, or what else was measured
    # (a toy, a record, another trained network). Empty: the same as ``model``.
    subject: str = ""
    excluded: Mapping[str, int] = field(default_factory=dict)
    absent: Mapping[str, int] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)  # file or model -> sha256
    details: Mapping[str, object] = field(default_factory=dict)  # further numbers, JSON-able
    placeholder: str = ""  # why the lever counts as never applied
    # One case that breaks a law said to hold for all: it refutes, whatever the interval of the rate
    counterexample: str = ""
    # Where the quantity is a share of cases: the largest deviation over what is allowed
    severity: float | None = None

    def __post_init__(self) -> None:
        counts = (self.scored, *self.excluded.values(), *self.absent.values())
        if min(counts) < 0:
            raise ValueError(f"{self.quantity}: negative counts of rows: {counts}")
        missing = self.of - sum(counts)
        if missing != 0:
            raise ValueError(
                f"{self.quantity}: {self.scored} scored + {dict(self.excluded)} excluded + "
                f"{dict(self.absent)} absent do not add up to {self.of} rows; {missing} rows are "
                "unaccounted for"
            )

    @property
    def asked(self) -> int:
        """Rows that were at hand and asked for."""
        return self.scored + sum(self.excluded.values())


class Judgement(NamedTuple):
    """A verdict, and why where the numbers alone do not say."""

    verdict: Verdict
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One falsifiable sentence. ``bounds_on`` holds bounds of its own for particular data sets."""

    id: str
    statement: str
    basis: str  # where the claim comes from
    bound: Bound
    kind: Kind
    meaning: Meaning | None = None  # of a finding: what it says of the subject that it is held
    cases: str | int = "all"  # how many of its cases must hold: "all", "any", or so many
    least_coverage: float = 0.5  # of the rows asked for; below it no verdict is given
    cannot_fail: str = ""  # why the claim holds for any input, where it does: an identity
    about: str = ""  # its subject, where that is never the model under test
    bounds_on: Mapping[str, Bound] = field(default_factory=dict)  # dataset name -> bound
    # Of the few findings that a report begins with: case -> the sentence in a dozen plain words.
    # Written with the claim, so that what stands first is not chosen by how it came out.
    headline: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not all((self.id, self.statement, self.basis)):
            raise ConfigError(f"claim {self.id!r} needs an id, a statement and a basis")
        if (self.kind == Kind.FINDING) != (self.meaning is not None):
            raise ConfigError(
                f"claim {self.id!r} is of kind {self.kind} with meaning {self.meaning}: a finding "
                "says what it means for the subject, and nothing else does"
            )
        if self.cannot_fail and self.kind == Kind.FINDING:
            raise ConfigError(f"claim {self.id!r} cannot fail, so it is no finding")
        if self.cases not in ("all", "any") and not (
            isinstance(self.cases, int) and self.cases >= 1
        ):
            raise ConfigError(
                f"claim {self.id!r}: cases={self.cases!r}; give 'all', 'any' or a number from 1 up"
            )
        if not 0 <= self.least_coverage <= 1:
            raise ConfigError(
                f"claim {self.id!r}: least_coverage={self.least_coverage} is no share of rows"
            )

    def bound_on(self, dataset: str) -> Bound:
        """The bound that applies to this data set."""
        return self.bounds_on.get(dataset, self.bound)

    def judge(self, measurement: Measurement) -> Judgement:
        """The verdict on this measurement."""
        if measurement.placeholder:
            return Judgement(Verdict.PLACEHOLDER, measurement.placeholder)
        if measurement.counterexample:
            return Judgement(Verdict.REFUTED, measurement.counterexample)
        if measurement.scored < self.least_coverage * measurement.asked:
            return Judgement(
                Verdict.INCONCLUSIVE,
                f"{measurement.scored} of {measurement.asked} rows asked for were scored, and the "
                f"claim wants {self.least_coverage:.0%} of them at least: what is left may be "
                "the easy part",
            )
        if measurement.interval.unsettled:
            return Judgement(Verdict.INCONCLUSIVE, measurement.interval.unsettled)
        return Judgement(self.bound_on(measurement.dataset).judge(measurement.interval))

    def sentence(self, verdicts: Sequence[Verdict]) -> Verdict:
        """One verdict of the whole sentence, from those of its cases."""
        return sentence(verdicts, self.cases)


def sentence(verdicts: Sequence[Verdict], cases: str | int) -> Verdict:
    """One verdict from several: held if so many cases hold, refuted if they no longer can.

    A case that was not run may have gone either way, so it never makes a sentence held or refuted.
    """
    if not verdicts or all(v == Verdict.NOT_RUN for v in verdicts):
        return Verdict.NOT_RUN
    needed = len(verdicts) if cases == "all" else 1 if cases == "any" else int(cases)
    held = sum(v == Verdict.HELD for v in verdicts)
    failed = [v for v in verdicts if v in (Verdict.REFUTED, Verdict.PLACEHOLDER)]
    if needed > len(verdicts):
        return Verdict.INCONCLUSIVE  # fewer cases than the sentence counts
    if held >= needed:
        return Verdict.HELD
    if len(verdicts) - len(failed) < needed:
        return Verdict.REFUTED if Verdict.REFUTED in failed else Verdict.PLACEHOLDER
    return Verdict.INCONCLUSIVE
