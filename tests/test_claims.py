"""Verdicts follow from intervals and bounds, and from nothing else."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.claims import Bound, Claim, Interval, Measurement, Verdict, above, below, between
from harness.errors import ConfigError

numbers = st.floats(-1e6, 1e6)


@st.composite
def intervals(draw):
    low, estimate, high = sorted(draw(st.tuples(numbers, numbers, numbers)))
    return Interval(estimate=estimate, low=low, high=high, n=10, n_clusters=9)


@given(interval=intervals(), edge=numbers)
def test_below_and_above_one_edge_never_hold_together(interval, edge):
    verdicts = {
        below(edge, "eV/atom", "test").judge(interval),
        above(edge, "eV/atom", "test").judge(interval),
    }
    assert verdicts != {Verdict.HELD}
    if interval.low < edge < interval.high:
        assert verdicts == {Verdict.INCONCLUSIVE}


@given(interval=intervals(), edge=numbers)
def test_a_bound_is_held_only_where_the_whole_interval_is(interval, edge):
    verdict = below(edge, "eV/atom", "test").judge(interval)
    assert (verdict == Verdict.HELD) == (interval.high < edge)
    assert (verdict == Verdict.REFUTED) == (interval.low >= edge)


@given(interval=intervals(), ends=st.tuples(numbers, numbers).filter(lambda e: e[0] < e[1]))
def test_a_window_is_held_exactly_when_both_its_ends_are(interval, ends):
    window = between(*ends, "eV/atom", "test").judge(interval)
    both = {
        above(ends[0], "eV/atom", "t").judge(interval),
        below(ends[1], "eV/atom", "t").judge(interval),
    }
    assert (window == Verdict.HELD) == (both == {Verdict.HELD})
    assert (window == Verdict.REFUTED) == (Verdict.REFUTED in both)


def test_a_value_on_the_edge_does_not_satisfy_the_bound():
    assert below(0.11, "eV/atom", "t").judge(Interval.exact(0.11, n=1)) == Verdict.REFUTED


@pytest.mark.parametrize(
    ("low", "high"), [(None, None), (1.0, 1.0), (2.0, 1.0)], ids=["open", "empty", "reversed"]
)
def test_a_bound_that_cannot_fail_or_cannot_hold_is_refused(low, high):
    with pytest.raises(ConfigError):
        Bound(low=low, high=high, unit="eV", reason="test")


def test_a_bound_without_its_reason_is_refused():
    with pytest.raises(ConfigError, match="reason"):
        below(1.0, "eV", "")


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_number_that_is_not_finite_cannot_become_an_interval(bad):
    with pytest.raises(ValueError, match="not an interval"):
        Interval.exact(bad, n=3)


def measurement(**changes):
    given = {
        "quantity": "MAE",
        "interval": Interval.exact(0.05, n=8),
        "scored": 8,
        "of": 10,
        "dataset": "embedded",
        "model": "m",
        "excluded": {"isolated atoms": 2},
    }
    return Measurement(**{**given, **changes})


def test_rows_that_are_neither_scored_nor_explained_are_refused():
    with pytest.raises(ValueError, match="2 rows are unaccounted for"):
        measurement(excluded={})


def test_a_data_set_can_have_a_bound_of_its_own():
    claim = Claim(
        id="c",
        statement="s",
        basis="b",
        bound=below(0.01, "eV/atom", "t"),
        bounds_on={"embedded": below(0.1, "eV/atom", "t")},
    )
    assert claim.judge(measurement()) == Verdict.HELD
    assert claim.judge(measurement(dataset="wbm")) == Verdict.REFUTED


def test_a_lever_that_changed_nothing_is_a_placeholder_whatever_the_number():
    claim = Claim(id="c", statement="s", basis="b", bound=below(1.0, "eV/atom", "t"))
    assert claim.judge(measurement(placeholder="never applied")) == Verdict.PLACEHOLDER
