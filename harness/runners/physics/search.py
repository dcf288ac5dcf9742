"""hypothesis, driven: every crystal it draws with its outcome, and the smallest that breaks a law.

Public in this package: Allowance, Search, Breach, Refused, Case, Outcome, explore, share_of,
HIDDEN.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from harness.errors import ConfigError

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy


@dataclass(frozen=True, kw_only=True)
class Allowance:
    """What rounding and numerics may move: ``value`` of a quantity whose size is up to ``typical``,
    and in proportion where it is larger."""

    value: float
    typical: float
    unit: str

    def __post_init__(self) -> None:
        if not (self.value > 0 and self.typical > 0):
            raise ConfigError(f"{self!r}: value and typical size must be above zero")

    def share(self, deviation: float, size: float) -> float:
        """The deviation, over what is allowed at this size."""
        return deviation / (self.value * max(1.0, size / self.typical))

    def __str__(self) -> str:
        return f"{self.value:g} {self.unit}, or {self.value / self.typical:g} of the size"


@dataclass(frozen=True, kw_only=True)
class Search:
    """How hypothesis searches: how many crystals, how large, and how long it may shrink one."""

    n_examples: int = 40
    max_atoms: int = 12
    n_shrinks: int = 60  # crystals tried to make a failing one smaller
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.n_examples, self.max_atoms) < 1 or self.n_shrinks < 0:
            raise ConfigError(f"{self}: examples and atoms must be at least 1, shrinks 0")


@dataclass(frozen=True, kw_only=True)
class Breach:
    """By how much one law is broken on one crystal, in the property's unit."""

    deviation: float
    size: float  # of what was compared
    numerical_error: float = 0.0  # of the measurement itself, an upper estimate
    more: Mapping[str, Any] = field(default_factory=dict)


class Refused(Exception):
    """The subject did not score the crystal, or not to finite numbers; the message is its own."""


Case = Any  # what a strategy draws; it has ``key`` (bytes) and ``words`` (JSON-able)
Outcome = tuple[Case, Mapping[str, Breach] | str]  # breaches by property, or why there are none

_LARGEST_ERROR = 0.5  # of what is allowed
HIDDEN = "the numerical error of the difference is above half of what is allowed"


def share_of(breach: Breach, allowance: Allowance) -> float | None:
    """The breach over what is allowed; None if its numerical error leaves that open.

    From 1 up the law is broken beyond doubt: the breach is twice its own numerical error at least,
    or exceeds what is allowed by more than that.
    """
    error = allowance.share(breach.numerical_error, breach.size)
    share = allowance.share(breach.deviation, breach.size)
    return share if error <= _LARGEST_ERROR or share - error >= 1 else None


def explore(
    strategy: SearchStrategy[Case],
    measure: Callable[[Case], Mapping[str, Breach]],
    allowed: Mapping[str, Allowance],
    search: Search,
    tick: Callable[[int], None] | None,
) -> tuple[list[Outcome], dict[str, Outcome]]:
    """Every case that was drawn, and by property the smallest found beyond what is allowed.

    The first pass draws; each property that exceeds what is allowed gets a pass of its own, which
    meets the same cases, known by then, up to the first that fails, and shrinks that one. Cases met
    on the way to a smaller one were not drawn: a share of cases is of the drawn ones alone. Equal
    cases count once. hypothesis begins with the simplest case and now and then repeats parts of an
    earlier one, so the draws are nearly, not quite, independent.
    """
    known: dict[bytes, Outcome] = {}
    left = search.n_examples

    def outcome(case: Case) -> Mapping[str, Breach] | str:
        nonlocal left
        if case.key not in known:
            try:
                found: Mapping[str, Breach] | str = measure(case)
            except Refused as refusal:
                found = str(refusal)
            known[case.key] = (case, found)
            if tick is not None and left:
                tick(1)
                left -= 1
        return known[case.key][1]

    def draw_only(case: Case) -> bool:
        outcome(case)
        return False

    _drive(strategy, draw_only, search, shrink=False)
    if tick is not None and left:
        tick(left)
        left = 0
    drawn = list(known.values())

    smallest: dict[str, Outcome] = {}
    for name, allowance in allowed.items():
        if search.n_shrinks and any(_exceeds(found, name, allowance) for _, found in drawn):
            budget = len(known) + search.n_shrinks

            def fails(
                case: Case,
                name: str = name,
                allowance: Allowance = allowance,
                budget: int = budget,
            ) -> bool:
                # Past the budget what is new counts as passing, so that shrinking ends; what is
                # known keeps its outcome, so that hypothesis finds its smallest case again.
                if case.key not in known and len(known) >= budget:
                    return False
                return _exceeds(outcome(case), name, allowance)

            if (case := _drive(strategy, fails, search, shrink=True)) is not None:
                smallest[name] = known[case.key]
    return drawn, smallest


class _Exceeded(Exception):
    """Tells hypothesis that a case is beyond what is allowed."""


def _drive(
    strategy: SearchStrategy[Case],
    fails: Callable[[Case], bool],
    search: Search,
    *,
    shrink: bool,
) -> Case | None:
    """The smallest failing case hypothesis finds, or None. Deterministic: no clock, no database."""
    from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings

    last: list[Case] = []

    @seed(search.seed)
    @settings(
        max_examples=search.n_examples,
        phases=(Phase.generate, Phase.shrink) if shrink else (Phase.generate,),
        derandomize=True,
        database=None,
        deadline=None,
        print_blob=False,
        report_multiple_bugs=False,
        verbosity=Verbosity.quiet,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def visit(case: Case) -> None:
        if fails(case):
            last[:] = [case]
            raise _Exceeded

    try:
        visit()
    except _Exceeded:
        return last[0]
    return None


def _exceeds(found: Mapping[str, Breach] | str, name: str, allowance: Allowance) -> bool:
    if isinstance(found, str) or name not in found:
        return False
    share = share_of(found[name], allowance)
    return share is not None and share >= 1
