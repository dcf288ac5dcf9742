"""Verdicts follow from intervals and bounds, and from nothing else."""

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.claims import (
    Bound,
    Claim,
    Interval,
    Judgement,
    Kind,
    Meaning,
    Measurement,
    Size,
    Verdict,
    above,
    below,
    between,
    sentence,
)
from harness.errors import ConfigError

H, R, I, P, N = (  # noqa: E741
    Verdict.HELD,
    Verdict.REFUTED,
    Verdict.INCONCLUSIVE,
    Verdict.PLACEHOLDER,
    Verdict.NOT_RUN,
)
numbers = st.floats(-1e6, 1e6)
verdicts = st.sampled_from(list(Verdict))


def test_the_words_that_records_are_written_with():
    assert [str(v) for v in Verdict] == [
        "held",
        "refuted",
        "inconclusive",
        "placeholder",
        "not run",
    ]
    assert [str(k) for k in Kind] == ["finding", "integrity", "toy"]
    assert [str(m) for m in Meaning] == ["strength", "weakness", "neutral"]
    assert [str(s) for s in Size] == ["quick", "nightly"]


# --- intervals


def interval(low, high, estimate=None, **changes):
    estimate = (low + high) / 2 if estimate is None else estimate
    return Interval(
        **{"estimate": estimate, "low": low, "high": high, "n": 10, "n_clusters": 9} | changes
    )


@st.composite
def intervals(draw):
    low, estimate, high = sorted(draw(st.tuples(numbers, numbers, numbers)))
    return interval(low, high, estimate)


def test_what_an_interval_says_where_nothing_else_was_told():
    plain = interval(0.0, 1.0)
    assert (plain.level, plain.method, plain.unsettled) == (0.95, "", "")
    assert plain.effective is plain.resolution is plain.units is None
    assert not plain.is_exact


def test_what_an_interval_was_drawn_from_makes_it_no_other_interval():
    drawn = interval(0.0, 1.0, units="units")
    assert drawn == interval(0.0, 1.0)
    assert "units" not in repr(drawn)


def test_an_exact_number_has_no_width():
    exact = Interval.exact(0.25, n=7)
    assert (exact.low, exact.estimate, exact.high) == (0.25, 0.25, 0.25)
    assert (exact.n, exact.n_clusters, exact.method) == (7, 7, "exact")
    assert exact.is_exact


def test_an_interval_of_no_width_that_was_sampled_is_not_exact():
    assert not interval(1.0, 1.0, method="bootstrap").is_exact


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("end", ["estimate", "low", "high"])
def test_a_number_that_is_not_finite_cannot_become_an_interval(end, bad):
    with pytest.raises(ValueError, match="not an interval"):
        interval(**{"low": 0.0, "high": 1.0, "estimate": 0.5} | {end: bad})


@pytest.mark.parametrize("estimate", [-0.001, 1.001])
def test_an_estimate_outside_its_own_interval_is_refused(estimate):
    with pytest.raises(ValueError, match="must lie between the ends"):
        interval(0.0, 1.0, estimate)


@pytest.mark.parametrize("estimate", [0.0, 1.0])
def test_an_estimate_may_lie_on_an_end(estimate):
    assert interval(0.0, 1.0, estimate).estimate == estimate


# --- bounds


@given(interval=intervals(), edge=numbers)
def test_below_and_above_one_edge_never_hold_together(interval, edge):
    judged = {
        below(edge, "eV/atom", "test").judge(interval),
        above(edge, "eV/atom", "test").judge(interval),
    }
    assert judged != {H}
    if interval.low < edge < interval.high:
        assert judged == {I}


@given(interval=intervals(), edge=numbers)
def test_an_upper_bound_is_held_only_where_the_whole_interval_is_below(interval, edge):
    verdict = below(edge, "eV/atom", "test").judge(interval)
    assert (verdict == H) == (interval.high < edge)
    assert (verdict == R) == (interval.low >= edge)


@given(interval=intervals(), edge=numbers)
def test_a_lower_bound_is_held_only_where_the_whole_interval_is_above(interval, edge):
    verdict = above(edge, "eV/atom", "test").judge(interval)
    assert (verdict == H) == (interval.low > edge)
    assert (verdict == R) == (interval.high <= edge)


@given(interval=intervals(), ends=st.tuples(numbers, numbers).filter(lambda e: e[0] < e[1]))
def test_a_window_is_held_exactly_when_both_its_ends_are(interval, ends):
    window = between(*ends, "eV/atom", "test").judge(interval)
    both = {
        above(ends[0], "eV/atom", "t").judge(interval),
        below(ends[1], "eV/atom", "t").judge(interval),
    }
    assert (window == H) == (both == {H})
    assert (window == R) == (R in both)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (-0.2, -0.1, H),
        (-0.2, 0.0, I),  # an end on the bound does not satisfy it
        (-0.1, 0.1, I),
        (0.0, 0.2, R),
        (0.1, 0.2, R),
        (0.0, 0.0, R),
    ],
)
def test_both_edges_of_a_bound_from_either_side(low, high, verdict):
    assert below(0.0, "eV", "t").judge(interval(low, high)) == verdict
    assert above(0.0, "eV", "t").judge(interval(-high, -low)) == verdict


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (1.1, 1.9, H),
        (1.0, 1.5, I),
        (1.5, 2.0, I),
        (0.5, 2.5, I),
        (0.5, 1.0, R),
        (2.0, 2.5, R),
        (0.5, 1.1, I),
        (1.9, 2.1, I),
    ],
)
def test_a_window_from_either_side(low, high, verdict):
    assert between(1.0, 2.0, "eV", "t").judge(interval(low, high)) == verdict


@pytest.mark.parametrize(
    ("low", "high", "says"),
    [
        (None, None, "without one no check can fail"),
        (1.0, 1.0, "low=1.0 is not below high=1.0"),
        (2.0, 1.0, "low=2.0 is not below high=1.0"),
        (math.nan, None, "bound ends nan and None: give finite numbers"),
        (None, math.inf, "bound ends None and inf: give finite numbers"),
        (0.0, math.inf, "give finite numbers"),
        (-math.inf, 0.0, "give finite numbers"),
    ],
)
def test_a_bound_that_cannot_fail_or_cannot_hold_is_refused(low, high, says):
    with pytest.raises(ConfigError, match=says):
        Bound(low=low, high=high, unit="eV", reason="test")


def test_a_bound_without_its_reason_is_refused():
    with pytest.raises(ConfigError, match="a bound needs its reason"):
        below(1.0, "eV", "")


def test_short_words_for_bounds_mean_what_they_say():
    assert below(1.0, "eV", "why") == Bound(high=1.0, low=None, unit="eV", reason="why")
    assert above(1.0, "eV", "why") == Bound(low=1.0, high=None, unit="eV", reason="why")
    assert between(1.0, 2.0, "eV", "why") == Bound(low=1.0, high=2.0, unit="eV", reason="why")


@pytest.mark.parametrize(
    ("bound", "words"),
    [
        (below(0.11, "eV/atom", "t"), "< 0.11 eV/atom"),
        (above(10, "", "t"), "> 10"),
        (between(0.9, 1.1, "", "t"), "in (0.9, 1.1)"),
        (between(-1, 1, "Å", "t"), "in (-1, 1) Å"),
    ],
)
def test_a_bound_in_words(bound, words):
    assert str(bound) == words


@pytest.mark.parametrize(
    ("bound", "nearest_to_one", "margin"),
    [
        (below(3.0, "", "t"), 3.0, 3.0),
        (above(-3.0, "", "t"), -3.0, 3.0),
        (between(-0.5, 3.0, "", "t"), -0.5, 1.75),
        (between(-2.0, 3.0, "", "t"), 3.0, 2.5),
        (below(0.0, "", "t"), 0.0, None),  # a bound at zero has no scale of its own
    ],
)
def test_the_end_next_to_a_value_and_the_scale_of_a_bound(bound, nearest_to_one, margin):
    assert bound.nearest(1.0) == nearest_to_one
    assert bound.margin == margin


# --- measurements


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


def test_what_a_measurement_says_where_nothing_else_was_told():
    plain = Measurement(
        quantity="MAE",
        interval=Interval.exact(0.05, n=8),
        scored=8,
        of=8,
        dataset="embedded",
        model="m",
    )
    assert (plain.subject, plain.placeholder, plain.counterexample) == ("", "", "")
    assert plain.severity is None
    assert plain.excluded == plain.absent == plain.inputs == plain.details == {}


def test_rows_that_are_neither_scored_nor_explained_are_refused():
    with pytest.raises(ValueError, match="2 rows are unaccounted for"):
        measurement(excluded={})
    with pytest.raises(ValueError, match="-1 rows are unaccounted for"):
        measurement(absent={"no structure": 1})


@pytest.mark.parametrize(
    "counts",
    [
        {"scored": -1, "of": 1},
        {"scored": 12, "excluded": {"x": -2}},
        {"scored": 12, "excluded": {}, "absent": {"x": -2}},
    ],
)
def test_negative_counts_of_rows_are_refused_though_they_add_up(counts):
    with pytest.raises(ValueError, match="MAE: negative counts of rows"):
        measurement(**counts)


def test_a_measurement_may_have_scored_nothing():
    assert measurement(scored=0, of=2).asked == 2


def test_rows_asked_for_are_those_scored_and_those_that_could_not_be():
    measured = measurement(of=20, excluded={"a": 2, "b": 3}, absent={"no structure": 7})
    assert measured.asked == 13


# --- claims


def claim(**changes):
    given = {
        "id": "c",
        "statement": "s",
        "basis": "b",
        "bound": below(0.1, "eV/atom", "t"),
        "kind": Kind.INTEGRITY,
    }
    return Claim(**{**given, **changes})


def test_what_a_claim_says_where_nothing_else_was_told():
    plain = claim()
    assert (plain.cases, plain.least_coverage, plain.cannot_fail) == ("all", 0.5, "")
    assert plain.about == ""
    assert plain.meaning is None
    assert plain.bounds_on == {}


@pytest.mark.parametrize("missing", ["id", "statement", "basis"])
def test_a_claim_without_its_words_is_refused(missing):
    with pytest.raises(ConfigError, match="needs an id, a statement and a basis"):
        claim(**{missing: ""})


@pytest.mark.parametrize("kind", [Kind.INTEGRITY, Kind.TOY])
def test_only_a_finding_means_something_for_the_subject(kind):
    with pytest.raises(ConfigError, match=f"of kind {kind} with meaning strength"):
        claim(kind=kind, meaning=Meaning.STRENGTH)


def test_a_finding_says_what_it_means():
    with pytest.raises(ConfigError, match="of kind finding with meaning None"):
        claim(kind=Kind.FINDING)
    assert claim(kind=Kind.FINDING, meaning=Meaning.WEAKNESS).meaning == "weakness"


@pytest.mark.parametrize("kind", [Kind.INTEGRITY, Kind.TOY])
def test_what_cannot_fail_is_no_finding(kind):
    assert claim(kind=kind, cannot_fail="an identity").cannot_fail == "an identity"
    with pytest.raises(ConfigError, match="'c' cannot fail, so it is no finding"):
        claim(kind=Kind.FINDING, meaning=Meaning.NEUTRAL, cannot_fail="an identity")


@pytest.mark.parametrize("cases", ["all", "any", 1, 2, 17])
def test_rules_of_sentences(cases):
    assert claim(cases=cases).cases == cases


@pytest.mark.parametrize("cases", ["some", "", 0, -1, 1.5, None])
def test_a_rule_that_is_none_is_refused(cases):
    with pytest.raises(ConfigError, match="give 'all', 'any' or a number from 1 up"):
        claim(cases=cases)


@pytest.mark.parametrize("share", [0, 0.5, 1])
def test_a_coverage_floor_is_a_share(share):
    assert claim(least_coverage=share).least_coverage == share


@pytest.mark.parametrize("share", [-0.01, 1.01, math.nan])
def test_a_coverage_floor_that_is_no_share_is_refused(share):
    with pytest.raises(ConfigError, match="is no share of rows"):
        claim(least_coverage=share)


def test_a_data_set_can_have_a_bound_of_its_own():
    on = claim(bound=below(0.01, "", "t"), bounds_on={"embedded": below(0.1, "", "u")})
    assert on.bound_on("embedded").reason == "u"
    assert on.bound_on("wbm").reason == "t"
    assert on.judge(measurement()) == Judgement(H, "")
    assert on.judge(measurement(dataset="wbm")) == Judgement(R, "")


HALF = interval(0.01, 0.05)  # satisfies the claim's bound of 0.1


@pytest.mark.parametrize(
    ("scored", "floor", "verdict"),
    [(5, 0.5, H), (4, 0.5, I), (9, 1, I), (10, 1, H), (0, 0, H), (1, 0.1, H), (1, 0.11, I)],
)
def test_a_verdict_needs_its_share_of_the_rows_asked_for(scored, floor, verdict):
    measured = measurement(
        interval=HALF, scored=scored, of=99, excluded={"x": 10 - scored}, absent={"y": 89}
    )
    assert claim(least_coverage=floor).judge(measured).verdict == verdict


def test_too_little_coverage_says_how_little():
    measured = measurement(scored=3, of=20, excluded={"x": 7}, absent={"y": 10})
    assert claim().judge(measured) == Judgement(
        I,
        "3 of 10 rows asked for were scored, and the claim wants 50% of them at least: what is "
        "left may be the easy part",
    )


def test_an_interval_that_is_none_to_trust_is_inconclusive_and_says_why():
    measured = measurement(interval=interval(0.01, 0.05, unsettled="9 crystals are too few"))
    assert claim().judge(measured) == Judgement(I, "9 crystals are too few")
    over = measurement(interval=interval(0.2, 0.3, unsettled="9 crystals are too few"))
    assert claim().judge(over).verdict == I


@pytest.mark.parametrize("ends", [(0.01, 0.05), (0.05, 0.15), (0.2, 0.3)])
def test_one_counterexample_refutes_a_law_whatever_the_interval(ends):
    measured = measurement(
        interval=interval(*ends, unsettled="few"),
        scored=1,
        excluded={"x": 9},
        counterexample="at 3",
    )
    assert claim().judge(measured) == Judgement(R, "at 3")


@pytest.mark.parametrize("ends", [(0.01, 0.05), (0.05, 0.15), (0.2, 0.3)])
def test_a_lever_that_changed_nothing_is_a_placeholder_whatever_the_number(ends):
    measured = measurement(
        interval=interval(*ends), placeholder="never applied", counterexample="at 3"
    )
    assert claim().judge(measured) == Judgement(P, "never applied")


@pytest.mark.parametrize(
    ("ends", "verdict"), [((0.01, 0.05), H), ((0.05, 0.15), I), ((0.2, 0.3), R)]
)
def test_otherwise_the_bound_alone_decides(ends, verdict):
    assert claim().judge(measurement(interval=interval(*ends))) == Judgement(verdict, "")


# --- sentences


@pytest.mark.parametrize(
    ("cases", "rule", "verdict"),
    [
        # every case
        ([H, H, H], "all", H),
        ([H, R, H], "all", R),
        ([H, R, I], "all", R),
        ([H, I, H], "all", I),
        ([H, P, H], "all", P),
        ([P, R, H], "all", R),
        ([H, N], "all", I),
        ([R, N], "all", R),
        ([H], "all", H),
        ([R], "all", R),
        ([I], "all", I),
        ([P], "all", P),
        # any of them
        ([R, R, H], "any", H),
        ([R, R, R], "any", R),
        ([P, P], "any", P),
        ([P, R], "any", R),
        ([R, I], "any", I),
        ([R, N], "any", I),
        ([H, N], "any", H),
        ([I, I], "any", I),
        # so many
        ([H, H, R], 2, H),
        ([H, R, R], 2, R),
        ([H, I, R], 2, I),
        ([H, N, R], 2, I),
        ([H, P, R], 2, R),
        ([H, P, P], 2, P),
        ([H, H, I, I], 2, H),
        # none, or fewer than are counted
        ([], "all", N),
        ([], "any", N),
        ([], 2, N),
        ([N, N], "all", N),
        ([N], "any", N),
        ([N], 2, N),
        ([H], 2, I),
        ([R], 2, I),
        ([P], 2, I),
    ],
)
def test_one_verdict_from_several(cases, rule, verdict):
    assert sentence(cases, rule) == verdict
    assert sentence(cases[::-1], rule) == verdict
    assert claim(cases=rule).sentence(cases) == verdict


@given(cases=st.lists(verdicts, min_size=1), needed=st.integers(1, 12))
def test_a_case_that_was_not_run_may_have_gone_either_way(cases, needed):
    """Held or refuted is said only where no outcome of the cases not run would change it."""
    if all(v == N for v in cases):
        return
    rule = min(needed, len(cases))
    said = sentence(cases, rule)
    filled = [[outcome if v == N else v for v in cases] for outcome in (H, R)]
    best, worst = (sentence(outcomes, rule) for outcomes in filled)
    assert (said == H) == (worst == H)
    assert (said in (R, P)) == (best in (R, P))


@given(cases=st.lists(verdicts, min_size=1))
def test_all_and_any_are_counts(cases):
    assert sentence(cases, "all") == sentence(cases, len(cases))
    assert sentence(cases, "any") == sentence(cases, 1)


def test_records_of_the_core_cannot_be_changed_after_the_fact():
    for frozen in (interval(0, 1), below(1, "", "t"), measurement(), claim()):
        with pytest.raises(dataclasses.FrozenInstanceError):
            frozen.id = frozen.unit = frozen.n = "other"
