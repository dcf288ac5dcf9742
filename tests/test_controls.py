"""A fault is grown until these rows tell it from the bound, and no further."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import controls
from harness.claims import Interval, Measurement, above, below, between
from harness.controls import grown
from harness.errors import CannotResolve

# Beyond a bound by a half-width, nothing inside it; by 0.84 of 1.96 more, four times of five.
POWER = 1 + 0.84 / 1.96


def measured(estimate, half, up=None, unsettled="", dataset="d"):
    """What is measured with some fault: an interval of this half-width, or of two."""
    interval = Interval(
        estimate=estimate,
        low=estimate - half,
        high=estimate + (half if up is None else up),
        n=30,
        n_clusters=20,
        unsettled=unsettled,
    )
    return Measurement(
        quantity="MAE", interval=interval, scored=30, of=30, dataset=dataset, model="m"
    )


def asking(measure):
    """The same, and the sizes it is asked for."""
    asked = []

    def ask(size):
        asked.append(size)
        return measure(size)

    return ask, asked


def on(bound):
    return lambda dataset: bound


@given(
    half=st.floats(0.01, 0.5),
    least=st.floats(-1.0, 0.2),
    largest=st.floats(3.0, 100.0),
    bend=st.floats(0.3, 4),
)
@settings(max_examples=80, deadline=None)
def test_the_smallest_fault_that_is_refuted_four_times_of_five(half, least, largest, bend):
    """Whatever the shape in which the measured grows with the fault."""

    def shape(size):
        return ((size - least) / (largest - least)) ** bend * largest

    def measure(size):
        return measured(shape(size), half)

    found = grown(measure, on(below(1.0, "", "t")), least, largest)
    assert found.measurement == measure(found.size)
    enough = 1.0 + POWER * half
    assert enough - 1e-12 <= shape(found.size) <= enough + 0.06 * half
    assert found.measurement.interval.low > 1.0


@pytest.mark.parametrize("sign", [1, -1])
def test_a_bound_is_left_on_either_side(sign):
    """Two half-widths: the one that faces the bound counts."""
    up, down = (0.1, 0.4) if sign > 0 else (0.4, 0.1)
    for bound in (
        below(1.0, "", "t") if sign > 0 else above(-1.0, "", "t"),
        between(-1, 1, "", "t"),
    ):
        found = grown(lambda f: measured(sign * f, down, up), on(bound), 0.0, 50.0)
        facing = down if sign > 0 else up
        enough = 1 + POWER * facing
        assert enough - 1e-9 <= found.size <= enough + 0.05 * 0.25 + 1e-9  # of the mean half-width


def test_of_a_window_the_end_that_is_left_counts():
    found = grown(lambda f: measured(f, 0.1), on(between(-3.0, 1.0, "", "t")), 0.0, 5.0)
    assert found.size == pytest.approx(1 + POWER * 0.1, abs=0.006)
    found = grown(lambda f: measured(-f, 0.1), on(between(-3.0, 1.0, "", "t")), 0.0, 5.0)
    assert found.size == pytest.approx(3 + POWER * 0.1, abs=0.006)


def test_the_bound_is_that_of_the_data():
    bounds = {"here": below(1.0, "", "t"), "there": below(2.0, "", "t")}
    for dataset, bound in bounds.items():
        found = grown(lambda f, d=dataset: measured(f, 0.1, dataset=d), bounds.get, 0.0, 5.0)
        assert found.size == pytest.approx(bound.high + POWER * 0.1, abs=0.006)


@pytest.mark.parametrize(
    ("estimate", "far"),
    [
        (1.0 + POWER * 0.1, 0.0),
        (1.1, -0.84 / 1.96),
        (1.0, -POWER),
        (0.8, -POWER - 2),
        (2.0, 10 - POWER),
    ],
)
def test_how_far_beyond_in_half_widths(estimate, far):
    interval = measured(estimate, 0.1).interval
    assert controls._beyond(below(1.0, "", "t"), interval) == pytest.approx(far, abs=1e-9)
    mirrored = measured(-estimate, 0.1).interval
    assert controls._beyond(above(-1.0, "", "t"), mirrored) == pytest.approx(far, abs=1e-9)
    assert controls._beyond(between(-9.0, 1.0, "", "t"), interval) == pytest.approx(far, abs=1e-9)
    assert controls._beyond(between(-1.0, 9.0, "", "t"), mirrored) == pytest.approx(far, abs=1e-9)


def test_what_has_no_width_is_beyond_where_it_is_past_the_bound():
    exact = Interval.exact(1.5, n=3)
    assert controls._beyond(below(1.0, "", "t"), exact) > 1e200
    assert controls._beyond(below(2.0, "", "t"), exact) < -1e200
    assert controls._beyond(below(1.5, "", "t"), exact) == 0


def test_a_fault_is_found_in_a_few_steps():
    """Shapes on which a search that only halves, or only follows the line, takes longer."""
    bound = on(below(1.0, "", "t"))
    for shape, most in (
        (lambda f: f, 11),
        (lambda f: 0.9 + 0.001 * f**2, 6),
        (lambda f: 0.5 + 0.0001 * f**4, 14),
        (lambda f: f**0.3, 11),
        (lambda f: 4 - 4 / (1 + f), 12),
        (lambda f: math.expm1(f / 3), 12),
    ):
        ask, asked = asking(lambda f, shape=shape: measured(shape(f), 0.1))
        grown(ask, bound, 0.0, 30.0)
        assert len(asked) <= most
        assert asked[:2] == [0.0, 30.0]


def test_no_size_is_tried_next_to_one_that_is_known():
    """The line through both ends points next to one of them; a twentieth of the way is kept."""
    steep, asked = asking(lambda f: measured(0.0 if f < 29.9 else 1e6, 0.1))
    grown(steep, on(below(1.0, "", "t")), 0.0, 30.0)
    near, far = 0.0, 30.0
    for size in asked[2:]:
        part = (size - near) / (far - near)
        assert 0.05 - 1e-9 <= part <= 0.95 + 1e-9
        near, far = (size, far) if size < 29.9 else (near, size)
    # the line points at 1/1e7 of the way, so that the first try is a twentieth of it
    assert asked[2] == pytest.approx(1.5)
    flat, asked = asking(lambda f: measured(-1e6 if f < 0.1 else 1.5, 0.1))
    grown(flat, on(below(1.0, "", "t")), 0.0, 30.0)
    assert asked[2] == pytest.approx(28.5)


def test_a_fault_that_never_comes_close_is_the_smallest_that_was_found():
    """A measure that jumps over the bound: the search ends all the same."""
    jump, asked = asking(lambda f: measured(0.0 if f <= 7.0 else 9.0, 0.1))
    found = grown(jump, on(below(1.0, "", "t")), 0.0, 30.0)
    assert len(asked) == 42
    assert found.size == min(f for f in asked if f > 7.0)
    assert found.size == pytest.approx(7.0, abs=1e-6)
    assert found.measurement == measured(9.0, 0.1)


@pytest.mark.parametrize(("estimate", "steps"), [(-0.001, 1), (0.0, 1), (0.001, 40)])
def test_a_size_is_close_enough_within_a_twentieth_of_a_half_width(estimate, steps):
    """The side that faces the bound has no width, and half of the whole is 1."""

    def of(estimate):
        return measured(estimate, 0.0, up=2.0)

    close = of(estimate)
    ask, asked = asking(lambda f: {0.0: of(-1.0), 30.0: of(30.0)}.get(f, close))
    found = grown(ask, on(below(-0.05, "", "t")), 0.0, 30.0)
    assert found.measurement is close
    assert len(asked) == 2 + steps


def test_sizes_may_fall_as_the_fault_grows():
    found = grown(lambda f: measured(2 - f, 0.1), on(below(1.0, "", "t")), 2.0, 0.0)
    assert found.size == pytest.approx(2 - (1 + POWER * 0.1), abs=0.006)


def test_a_fault_too_large_to_begin_with_is_a_mistake():
    says = r"MAE: a fault of size 2 is refuted already, so that noticing a larger"
    with pytest.raises(CannotResolve, match=says):
        grown(lambda f: measured(f, 0.1), on(below(1.0, "", "t")), 2.0, 30.0)
    edge = measured(0.0, 0.0)  # no width, on the bound: refuted
    with pytest.raises(CannotResolve, match="a fault of size 0 is refuted already"):
        grown(lambda f: edge, on(below(0.0, "", "t")), 0.0, 30.0)


@pytest.mark.parametrize("least", [0.95, 1.05, 1.14])
def test_a_fault_may_begin_where_the_interval_straddles_the_bound(least):
    found = grown(lambda f: measured(f, 0.1), on(below(1.0, "", "t")), least, 30.0)
    assert found.size == pytest.approx(1 + POWER * 0.1, abs=0.006)


def test_rows_that_do_not_tell_the_largest_fault_say_so():
    says = r"MAE: 20 units cannot tell a fault of size 1.4 from the bound: 1.4 \[1.1, 1.7\]$"
    with pytest.raises(CannotResolve, match=says):
        grown(lambda f: measured(f, 0.3), on(below(1.0, "", "t")), 0.0, 1.4)
    # just large enough
    enough = 1 + POWER * 0.3 + 1e-6
    found = grown(lambda f: measured(f, 0.3), on(below(1.0, "", "t")), 0.0, enough)
    assert found.size == pytest.approx(enough)


def test_an_interval_that_is_none_to_trust_tells_nothing():
    unsettled = measured(9.0, 0.1, unsettled="too few")
    with pytest.raises(CannotResolve, match=r"from the bound: 9 \[8.9, 9.1\] \(too few\)$"):
        grown(
            lambda f: (
                replace(unsettled, interval=replace(unsettled.interval, estimate=9.0))
                if f
                else measured(0.0, 0.1)
            ),
            on(below(1.0, "", "t")),
            0.0,
            5.0,
        )


def test_the_largest_fault_may_lie_on_the_edge():
    """No width, and as large as the bound: told, since a value on the bound does not satisfy it."""
    found = grown(lambda f: measured(f, 0.0), on(below(1.0, "", "t")), 0.0, 1.0)
    assert found.size == 1.0
