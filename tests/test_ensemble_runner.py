"""Ensembles of made-up members, whose gain and spread are known on paper."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from harness.errors import DataError
from harness.plots import ensemble_gain, spread_against_error
from harness.runners import ensemble
from harness.scores import Scored
from harness.store import row_digest

ENERGIES = st.floats(-0.4, 0.4, allow_subnormal=False)


def scored(predicted, reference=None, *, model="mlp"):
    n = len(predicted)
    return Scored(
        model=model,
        dataset="made up",
        ids=np.array([f"row{i}" for i in range(n)]),
        formulas=np.array([f"formula{i // 2}" for i in range(n)]),
        reference_ev_per_atom=np.zeros(n) if reference is None else reference,
        predicted_ev_per_atom=np.asarray(predicted, dtype=np.float64),
        of=n + 5,
        subject="composition-mlp",
        excluded={"isolated atoms": 3},
        absent={"elsewhere": 2},
    )


def noisy(n_members, n=4000, *, common=0.1, own=0.05, seed=0):
    """Errors of one common and one own normal part, eV/atom."""
    draw = np.random.default_rng(seed)
    shared = common * draw.standard_normal(n)
    return [scored(shared + own * draw.standard_normal(n)) for _ in range(n_members)]


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(2, 5), st.integers(4, 12)).flatmap(
        lambda shape: st.tuples(
            arrays(float, shape, elements=ENERGIES), arrays(float, shape[1], elements=ENERGIES)
        )
    )
)
def test_on_no_row_is_the_mean_worse_than_its_members_on_average(drawn):
    predictions, reference = drawn
    result = ensemble.run([scored(row, reference) for row in predictions])
    assert result.excess().interval.estimate < 1e-9
    assert result.gain().interval.estimate > -1e-9
    assert result.last_step().interval.estimate > -1e-9


def test_the_mean_is_a_subject_with_a_name_and_a_coverage_of_its_own():
    members = noisy(3)
    mean = ensemble.run(members).mean
    assert mean.model == "mean of 3 mlp"
    assert (len(mean), mean.of, mean.excluded) == (4000, 4005, {"isolated atoms": 3})
    assert (mean.subject, mean.absent) == ("composition-mlp", {"elsewhere": 2})
    for measured in (
        ensemble.run(members).excess(),
        ensemble.run(members).distance(),
        ensemble.run(members).gain(),
        ensemble.run(members).last_step(),
    ):
        assert (measured.subject, measured.model) == ("composition-mlp", "mean of 3 mlp")
        assert (measured.excluded, measured.absent) == ({"isolated atoms": 3}, {"elsewhere": 2})
    np.testing.assert_allclose(
        mean.predicted_ev_per_atom,
        (sum(m.predicted_ev_per_atom for m in members)) / 3,
        rtol=0,
        atol=1e-15,
    )
    different = [replace(members[0], model="another", subject="of the first"), members[1]]
    assert ensemble.run(different).mean.subject == "of the first"
    assert ensemble.run(different).mean.model == "mean of 2 another and mlp"
    assert ensemble.run(different, name="both").mean.model == "both"


# Errors of three members on two kinds of rows, eV/atom, and what follows on paper.
PAPER = np.array([[0.1, -0.2], [0.3, 0.1], [-0.1, -0.5]])


def on_paper():
    members = [
        replace(
            scored(np.tile(row, 12), model=f"seed {i}"),
            inputs={f"file {i}": str(i)},
            details={"settings": {"seed": i}},
        )
        for i, row in enumerate(PAPER)
    ]
    return ensemble.run(members, name="a mean")


def test_what_is_measured_of_three_members_is_what_paper_says():
    result = on_paper()
    maes, of_mean = [0.15, 0.2, 0.3], (0.1 + 0.2) / 2
    spread = (0.2 + 0.3) / 2  # of (0.1, 0.3, -0.1) and (-0.2, 0.1, -0.5), two in the divisor
    pairs = [(0.2 + 0.05) / 2, (0.0 + 0.35) / 2, (0.1 + 0.2) / 2]
    gain, step, distance = result.gain(), result.last_step(), result.distance()
    assert gain.quantity == "mean of the members' MAEs minus MAE of their mean"
    assert gain.interval.estimate == pytest.approx(np.mean(maes) - of_mean)
    assert step.quantity == "MAE of means of 2 minus MAE of the mean of 3"
    assert step.interval.estimate == pytest.approx(np.mean(pairs) - of_mean)
    assert distance.quantity == "spread between members over their error"
    assert distance.interval.estimate == pytest.approx(spread / np.mean(maes))
    for measured in (gain, step, distance, result.excess()):
        assert measured.details["mae_of_members"] == pytest.approx(maes)
        assert measured.details["mae_of_mean"] == pytest.approx(of_mean)
        assert measured.details["mean_spread_ev_per_atom"] == pytest.approx(spread)
        assert measured.inputs == {"file 0": "0", "file 1": "1", "file 2": "2"}
        assert measured.details["members"] == [
            {
                "model": member.model,
                "settings": {"seed": i},
                "predictions_sha256": row_digest(member.predicted_ev_per_atom),
            }
            for i, member in enumerate(result.members)
        ]
    single, double, triple = step.details["by_size"]
    assert (single["n_members"], double["n_members"], triple["n_members"]) == (1, 2, 3)
    assert single["maes_ev_per_atom"] == pytest.approx(maes)
    assert double["maes_ev_per_atom"] == pytest.approx(pairs)
    assert (single["lowest"], single["highest"]) == pytest.approx((0.15, 0.3))
    assert single["mae_ev_per_atom"] == pytest.approx(np.mean(maes))
    assert single["spread_ev_per_atom"] == pytest.approx(spread)
    assert double["spread_ev_per_atom"] == pytest.approx(spread / 2**0.5)


@pytest.mark.parametrize("side", [1, -1])
def test_a_mean_too_far_off_is_told_by_how_much_and_on_how_many_rows(side):
    """Where all members err to one side, the mean may err as they do, and no more."""
    result = ensemble.run([scored(side * np.full(20, error)) for error in (0.1, 0.2, 0.3)])
    honest = result.excess()
    assert honest.quantity == (
        "largest |error| of the mean above the members' mean |error|, over rows"
    )
    assert (honest.interval.estimate, honest.details["rows_above"]) == (
        pytest.approx(0, abs=1e-15),
        0,
    )
    for moved, above in ((0.95e-9, 0), (1.05e-9, 3)):

        def off(energies, moved=moved):
            energies[:3] += side * moved
            return energies

        altered = replace(result, mean=result.mean.with_predictions(off, model="off")).excess()
        assert altered.interval.estimate == pytest.approx(moved, rel=1e-6)
        assert altered.details["rows_above"] == above


def test_a_column_that_is_not_the_mean_is_found_out():
    result = ensemble.run(noisy(3))
    for fault in (
        lambda e: np.roll(e, 1),  # rows shifted
        lambda e: result.members[0].predicted_ev_per_atom,  # never averaged
        lambda e: e * (1 + 1e-6),
    ):
        altered = replace(result, mean=result.mean.with_predictions(fault, model="altered"))
        assert altered.excess().interval.estimate > 1e-8
        assert altered.excess().details["rows_above"] > 0


def test_a_mean_taken_before_the_inverse_transform_is_found_out():
    reference = np.linspace(-4, 1, 4000)
    members = [scored(reference + m.predicted_ev_per_atom, reference) for m in noisy(3)]
    learnt = [np.arcsinh(m.predicted_ev_per_atom) for m in members]
    result = ensemble.run(members)
    early = result.mean.with_predictions(lambda _: np.sinh(np.mean(learnt, axis=0)), model="early")
    assert replace(result, mean=early).excess().interval.estimate > 1e-6


def test_the_gain_is_that_of_normal_errors():
    common, own = 0.1, 0.05
    result = ensemble.run(noisy(3, n=40_000, common=common, own=own))
    mean_abs = np.sqrt(2 / np.pi)  # of a standard normal
    expected = mean_abs * (np.hypot(common, own) - np.hypot(common, own / 3**0.5))
    gain = result.gain()
    assert gain.interval.low < expected < gain.interval.high
    assert gain.interval.estimate == pytest.approx(expected, rel=0.03)
    # standard deviation of three normals: E = σ √π / 2
    distance = result.distance().interval.estimate
    assert distance == pytest.approx(
        own * np.sqrt(np.pi) / 2 / (mean_abs * np.hypot(common, own)), rel=0.02
    )


def test_the_error_falls_with_every_member_as_one_over_their_number():
    result = ensemble.run(noisy(4, n=40_000))
    sizes = result.by_size()
    assert [len(size.maes_ev_per_atom) for size in sizes] == [4, 6, 4, 1]
    maes = [size.mae_ev_per_atom for size in sizes]
    steps = -np.diff(maes)
    assert steps[0] / steps[1] == pytest.approx(3, rel=0.1)  # 1/2 to 1/6
    assert result.last_step().interval.estimate == pytest.approx(steps[-1], abs=1e-12)
    assert sizes[3].spread_ev_per_atom == pytest.approx(sizes[0].spread_ev_per_atom / 2)
    json.dumps(result.last_step().details)


def test_one_member_three_times_neither_spreads_nor_gains():
    (one,) = noisy(1)
    result = ensemble.run([one, one, one])
    for measured in (result.distance(), result.gain(), result.last_step()):
        assert measured.interval.estimate == pytest.approx(0, abs=1e-15)
        assert measured.interval.high < 1e-15


def test_the_mean_takes_no_members_refit_for_its_own():
    one, other = noisy(2, n=20)
    refitted = replace(one, without_group_ev_per_atom=(np.zeros(20), np.ones(20)))
    assert ensemble.run([refitted, other]).mean.without_group_ev_per_atom == ()


def test_members_drawn_together_lose_what_tells_them_from_the_first():
    result = ensemble.run(noisy(3), name="a mean")
    first, *others = (member.predicted_ev_per_atom for member in result.members)
    closer = result.drawn_together(0.75)
    np.testing.assert_array_equal(closer.members[0].predicted_ev_per_atom, first)
    for was, member in zip(others, closer.members[1:], strict=True):
        np.testing.assert_allclose(
            member.predicted_ev_per_atom, first + 0.25 * (was - first), rtol=0, atol=1e-15
        )
    assert closer.mean.model == "a mean"
    np.testing.assert_allclose(
        closer.spread_ev_per_atom, 0.25 * result.spread_ev_per_atom, rtol=1e-9
    )
    assert closer.excess().interval.estimate < 1e-9
    alike = result.drawn_together(1)
    assert alike.gain().interval.estimate == pytest.approx(0, abs=1e-15)
    same = result.drawn_together(0)
    assert same.gain().interval.estimate == pytest.approx(result.gain().interval.estimate)


def test_members_about_different_rows_are_refused():
    one, other = noisy(2)
    with pytest.raises(DataError, match=r"1 member\(s\): an ensemble needs at least two"):
        ensemble.run([one])
    with pytest.raises(DataError, match="at least two"):
        ensemble.run([])
    fewer = replace(other.on(other.ids[:100]), model="the other")
    with pytest.raises(DataError, match=r"mlp has 4000 rows and the other 100, .*scored\.on"):
        ensemble.run([one, one, fewer])
    with pytest.raises(DataError, match="in another order"):
        ensemble.run([one, other.on(other.ids[::-1])])
    with pytest.raises(DataError, match="different references"):
        ensemble.run([one, replace(other, reference_ev_per_atom=np.ones(len(other)))])


def test_the_gain_is_drawn_with_every_choice_of_members():
    maes = [size.maes_ev_per_atom for size in ensemble.run(noisy(3)).by_size()]
    figure = ensemble_gain(maes, window=(0.001, 0.003))
    choices, average, predicted, claimed = figure.data
    assert len(choices.x) == 7
    np.testing.assert_allclose(average.y[0], np.mean(maes[0]))
    np.testing.assert_allclose(predicted.y[0], average.y[0])
    np.testing.assert_allclose(average.y[0] - np.array(claimed.y), [0.003, 0.001])
    low, high = figure.layout.yaxis.range
    assert all(low <= y <= high for trace in figure.data for y in trace.y)
    with pytest.raises(DataError, match="at least one and two"):
        ensemble_gain(maes[:1])


def test_spread_is_drawn_against_error_in_bins_of_equal_numbers():
    result = ensemble.run(noisy(3, n=1000))
    figure = spread_against_error(
        result.spread_ev_per_atom, np.abs(result.mean.error_ev_per_atom), title="a <b>mean</b>"
    )
    assert len(figure.data[0].x) == 20
    assert "&lt;b&gt;" in figure.layout.title.text
    flat = spread_against_error(np.zeros(10), np.ones(10))
    assert flat.layout.xaxis.type == "linear"
    with pytest.raises(DataError, match="give both"):
        spread_against_error(np.ones(3), np.ones(4))
    with pytest.raises(DataError, match="negative"):
        spread_against_error(np.ones(3), -np.ones(3))
