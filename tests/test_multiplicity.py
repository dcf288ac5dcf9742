"""How probable a verdict is by chance, and which survive all others, on numbers done by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from harness.claims import Kind, Meaning, Verdict
from harness.evidence import Evidence
from harness.report.multiplicity import LEVEL, chance, holm, summary

# Of one degree of freedom Student's t is Cauchy's distribution: its quantiles and tails are of
# tangent and arctangent.
QUANTILE = math.tan(math.pi * 0.475)  # 12.706, the 97.5th percentile


def tail(ratio: float) -> float:
    """Chance that an estimate lies ``ratio`` half-widths of an interval of two units away."""
    return 0.5 - math.atan(ratio * QUANTILE) / math.pi


def record(id: str = "a", verdict: Verdict = Verdict.HELD, **more: Any) -> Evidence:
    """0.1 below the bound of 1, with an interval of ±0.05 of two units: twice its half-width."""
    given = {
        "statement": "It is so.",
        "basis": "a note",
        "kind": Kind.FINDING,
        "meaning": Meaning.STRENGTH,
        "observed": 0.9,
        "ci_low": 0.85,
        "ci_high": 0.95,
        "ci_method": "studentised bootstrap",
        "bound_high": 1.0,
        "n_clusters": 2,
    }
    return Evidence(id=id, verdict=verdict, **given | more)


def test_an_interval_that_just_touches_the_bound_has_the_chance_of_one_side():
    touching = record(ci_high=1.0)
    assert chance(touching) == pytest.approx(0.025, rel=1e-9)
    assert LEVEL == 0.025


@pytest.mark.parametrize(
    ("record", "ratio"),
    [
        (record(), 2.0),
        (record(ci_low=0.0), 2.0),  # the far side says nothing
        (record(ci_high=0.98), 0.1 / 0.08),
        (record(bound_high=None, bound_low=0.8), 0.1 / 0.05),
        (record(bound_high=None, bound_low=0.8, ci_high=2.0), 0.1 / 0.05),
        (record(bound_high=None, bound_low=0.8, ci_low=0.88), 0.1 / 0.02),
        (record(verdict=Verdict.REFUTED, bound_high=0.8), 0.1 / 0.05),
        (record(verdict=Verdict.REFUTED, bound_high=0.8, ci_high=9.0), 0.1 / 0.05),
        (record(verdict=Verdict.REFUTED, bound_high=0.85), 0.05 / 0.05),  # touches from outside
        (record(verdict=Verdict.REFUTED, bound_high=None, bound_low=1.1), 0.2 / 0.05),
        (record(verdict=Verdict.REFUTED, bound_high=None, bound_low=0.95), 0.05 / 0.05),
        # of a window a held interval must be clear of both ends: the less clear of them counts
        (record(bound_low=0.7, bound_high=1.0), 0.1 / 0.05),
        (record(bound_low=0.84, bound_high=1.0), 0.06 / 0.05),
        # and a refuted one lies beyond the end that is nearer
        (record(verdict=Verdict.REFUTED, bound_low=0.5, bound_high=0.8), 0.1 / 0.05),
        (record(verdict=Verdict.REFUTED, bound_low=1.1, bound_high=1.3), 0.2 / 0.05),
    ],
)
def test_the_distance_is_told_in_half_widths_of_the_side_that_faces_the_bound(record, ratio):
    assert chance(record) == pytest.approx(tail(ratio), rel=1e-9)


@pytest.mark.parametrize(
    ("units", "expected"),
    [
        (1, 0.5 - math.atan(2 * QUANTILE) / math.pi),  # never below one degree of freedom
        (2, 0.5 - math.atan(2 * QUANTILE) / math.pi),
        # of two degrees: P(T > x) = 1/2 - x / (2 sqrt(2 + x²)), and 4.302653 is the quantile
        (3, 0.5 - 8.605306 / (2 * math.sqrt(2 + 8.605306**2))),
        # of very many the normal distribution: P(Z > 2 * 1.959964)
        (10_000_000, 0.5 * math.erfc(2 * 1.959964 / math.sqrt(2))),
    ],
)
def test_few_units_have_students_tails_and_many_the_normal_ones(units, expected):
    assert chance(record(n_clusters=units)) == pytest.approx(expected, rel=1e-4)


def test_units_of_unlike_weight_count_as_the_fewer_they_are_worth():
    assert chance(record(n_clusters=9, effective=2.0)) == chance(record(n_clusters=2))


def test_an_interval_without_width_leaves_no_chance_unless_it_lies_on_the_bound():
    assert chance(record(ci_low=0.9, ci_high=0.9)) == 0.0
    on_it = record(verdict=Verdict.REFUTED, bound_high=0.9, ci_low=0.9, ci_high=0.9)
    assert chance(on_it) == 0.5


def test_what_was_not_sampled_has_no_chance_at_all():
    assert chance(record(ci_method="exact")) == 0.0
    assert chance(record(ci_method="exact; with the fit's own error")) > 0


@pytest.mark.parametrize(
    "record",
    [
        record(verdict=Verdict.INCONCLUSIVE),
        record(verdict=Verdict.PLACEHOLDER),
        record(verdict=Verdict.NOT_RUN, observed=None, reason="no data"),
        # refuted by one counterexample, while the interval of the rate is not beyond the bound
        record(verdict=Verdict.REFUTED),
        record(verdict=Verdict.REFUTED, ci_method="exact"),
        record(verdict=Verdict.REFUTED, bound_low=0.8, bound_high=1.0),
        record(verdict=Verdict.REFUTED, bound_low=0.9, bound_high=None),
        record(ci_low=None),
        record(ci_high=None),
    ],
)
def test_what_no_interval_decided_has_none(record):
    assert chance(record) is None


def ratio_of(chance: float) -> float:
    """The half-widths that make that chance."""
    return math.tan(math.pi * (0.5 - chance)) / QUANTILE


def with_chance(id: str, wanted: float, **more: Any) -> Evidence:
    return record(id, ci_high=0.9 + 0.1 / ratio_of(wanted), ci_low=0.5, **more)


def test_holm_stops_at_the_first_that_is_not_clear_enough():
    # Thresholds of four: 0.025 / 4 = 0.00625, / 3 = 0.00833, / 2 = 0.0125, / 1 = 0.025
    given = [
        with_chance("d", 0.024),
        with_chance("a", 0.006),
        with_chance("c", 0.0126),  # above its 0.0125: it and all after it do not survive
        with_chance("b", 0.008),
    ]
    found = holm(given)
    assert [e.id for e in found] == ["d", "a", "c", "b"]
    assert [e.survives_holm for e in found] == [False, True, False, True]
    assert [e.chance for e in found] == pytest.approx([0.024, 0.006, 0.0126, 0.008])
    clear = holm([given[0], given[1], with_chance("c", 0.0124), given[3]])
    assert [e.survives_holm for e in clear] == [True, True, True, True]


def test_the_first_decides_for_all():
    found = holm([with_chance("a", 0.02), with_chance("b", 0.013)])
    assert [e.survives_holm for e in found] == [False, False]


def test_only_findings_that_were_decided_and_are_no_controls_are_of_the_family():
    other = {"kind": Kind.INTEGRITY, "meaning": None}
    found = holm(
        [
            with_chance("alone", 0.02),
            with_chance("integrity", 0.001, **other),
            with_chance("toy", 0.001, kind=Kind.TOY, meaning=None),
            with_chance("control", 0.001, control=True, fault="x"),
            record("open", Verdict.INCONCLUSIVE),
        ]
    )
    assert [e.survives_holm for e in found] == [True, None, None, None, None]
    assert [e.chance for e in found] == [
        pytest.approx(0.02),
        pytest.approx(0.001),
        pytest.approx(0.001),
        pytest.approx(0.001),
        None,
    ]


def test_what_was_not_sampled_survives_and_makes_it_no_harder():
    exact = record("exact", ci_method="exact")
    assert [e.survives_holm for e in holm([with_chance("a", 0.024), exact])] == [True, True]


def test_earlier_marks_are_made_anew():
    stale = record("i", kind=Kind.INTEGRITY, meaning=None, survives_holm=False, chance=0.9)
    (found,) = holm([stale])
    assert found.survives_holm is None
    assert found.chance == pytest.approx(tail(2.0))


def test_a_summary_counts_what_intervals_decided():
    found = holm(
        [
            with_chance("a", 0.001),
            with_chance("b", 0.02, case="x"),
            with_chance("c", 0.001, kind=Kind.INTEGRITY, meaning=None),
            with_chance("control", 0.001, control=True, fault="x"),
            record("exact", ci_method="exact"),
            record("open", Verdict.INCONCLUSIVE),
            record("placeholder", Verdict.PLACEHOLDER),
            record("counterexample", Verdict.REFUTED),
        ]
    )
    # b is the last of three (one of them exact), so its 0.02 is below 0.025
    assert summary(found) == {
        "decided": 3,
        "by_chance": 0.075,
        "findings": 2,
        "not_surviving": [],
    }
    worse = holm([*found, with_chance("d", 0.024)])
    assert summary(worse) == {
        "decided": 4,
        "by_chance": 0.1,
        "findings": 3,
        "not_surviving": ["b[x]", "d"],
    }
    assert summary([]) == {"decided": 0, "by_chance": 0.0, "findings": 0, "not_surviving": []}
