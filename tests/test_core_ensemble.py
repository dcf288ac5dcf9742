"""What an ensemble's record says, number by number."""

from dataclasses import replace
from statistics import mean, stdev

import numpy as np
import pytest

from harness.errors import DataError
from harness.runners import ensemble
from harness.scores import Scored
from harness.store import row_digest

# Errors of three members on four rows, eV/atom, signs mixed
ERRORS = ([0.1, -0.2, 0.3, 0.0], [-0.3, 0.2, 0.1, 0.2], [0.2, 0.3, -0.1, 0.4])


def member(errors, name="mlp", **changes):
    reference = np.array([1.0, -2.0, 3.0, 0.5])
    given = {
        "model": name,
        "dataset": "d",
        "ids": np.array(["a", "b", "c", "e"]),
        "formulas": np.array(["A", "A", "B", "C"]),
        "reference_ev_per_atom": reference,
        "predicted_ev_per_atom": reference + np.array(errors),
        "of": 9,
        "subject": "composition-mlp",
        "excluded": {"isolated atoms": 3},
        "absent": {"elsewhere": 2},
    }
    return Scored(**(given | changes))


@pytest.fixture
def members():
    return [
        member(e, inputs={f"file{i}": f"sha{i}"}, details={"settings": {"seed": i}})
        for i, e in enumerate(ERRORS)
    ]


def abs_of_means(choice):
    """|error| of the mean of some members, row by row."""
    return [abs(mean(ERRORS[i][row] for i in choice)) for row in range(4)]


MEAN = mean(abs_of_means([0, 1, 2]))
MEMBERS = [mean(map(abs, errors)) for errors in ERRORS]
SPREAD = mean(stdev(e[row] for e in ERRORS) for row in range(4))


def test_a_record_says_of_whom_and_of_what_it_is(members):
    result = ensemble.run(members)
    said = result.gain()
    assert (said.scored, said.of, said.dataset) == (4, 9, "d")
    assert (said.model, said.subject) == ("mean of 3 mlp", "composition-mlp")
    assert (said.excluded, said.absent) == ({"isolated atoms": 3}, {"elsewhere": 2})
    assert said.inputs == {"file0": "sha0", "file1": "sha1", "file2": "sha2"}
    assert said.details["members"] == [
        {
            "model": "mlp",
            "settings": {"seed": i},
            "predictions_sha256": row_digest(m.predicted_ev_per_atom),
        }
        for i, m in enumerate(members)
    ]
    assert said.details["mae_of_members"] == pytest.approx(MEMBERS)
    assert said.details["mae_of_mean"] == pytest.approx(MEAN)
    assert said.details["mean_spread_ev_per_atom"] == pytest.approx(SPREAD)


def test_members_without_settings_have_none(members):
    plain = ensemble.run([replace(m, details={}) for m in members])
    assert [m["settings"] for m in plain.mean.details["members"]] == [{}] * 3


def test_the_mean_is_called_after_its_members_and_keeps_what_the_first_says(members):
    other = replace(members[1], model="other", of=10, absent={"elsewhere": 3})
    result = ensemble.run([members[0], other, members[2]])
    assert result.mean.model == "mean of 3 mlp and other"
    assert (result.mean.of, result.mean.absent) == (9, {"elsewhere": 2})
    assert ensemble.run([members[0], other]).mean.of == 9
    assert ensemble.run([members[0], other], name="both").mean.model == "both"
    np.testing.assert_allclose(
        result.mean.error_ev_per_atom, [0.0, 0.1, 0.1, 0.2], rtol=0, atol=1e-15
    )
    assert result.mean.without_group_ev_per_atom == ()


def test_quantities_are_named_and_numbers_are_those_of_loops(members):
    result = ensemble.run(members)
    gain, distance, last = result.gain(), result.distance(), result.last_step()
    assert gain.quantity == "mean of the members' MAEs minus MAE of their mean"
    assert gain.interval.estimate == pytest.approx(mean(MEMBERS) - MEAN)
    assert distance.quantity == "spread between members over their error"
    assert distance.interval.estimate == pytest.approx(SPREAD / mean(MEMBERS))
    pairs = mean(mean(abs_of_means(pair)) for pair in ([0, 1], [0, 2], [1, 2]))
    assert last.quantity == "MAE of means of 2 minus MAE of the mean of 3"
    assert last.interval.estimate == pytest.approx(pairs - MEAN)
    assert [row["n_members"] for row in last.details["by_size"]] == [1, 2, 3]
    for measured in (gain, distance, last):
        assert measured.interval.n == 4
        assert measured.interval.n_clusters == 3


def test_rows_on_which_the_mean_is_worse_are_counted(members):
    result = ensemble.run(members)
    fine = result.excess()
    assert fine.quantity == "largest |error| of the mean above the members' mean |error|, over rows"
    rows = [abs_of_means([0, 1, 2])[r] - mean(abs(e[r]) for e in ERRORS) for r in range(4)]
    assert fine.interval.estimate == pytest.approx(max(rows), abs=1e-15)
    assert fine.interval.is_exact
    assert fine.interval.n == 4
    assert fine.details["rows_above"] == 0
    reference = result.mean.reference_ev_per_atom
    # members err by 0.2, 7/30, 1/6 and 0.2 on average
    for errors, most, above in (
        ([-0.5, 0.0, 0.0, 0.0], 0.3, 1),
        ([-0.5, 0.5, 0.5, 0.1], 1 / 3, 3),
        ([0.2 + 2e-9, 0.0, 0.0, 0.2 + 1e-11], 2e-9, 1),
    ):
        wrong = replace(result.mean, predicted_ev_per_atom=reference + np.array(errors))
        measured = replace(result, mean=wrong).excess()
        assert measured.interval.estimate == pytest.approx(most, rel=1e-6)
        assert measured.details["rows_above"] == above


def test_error_and_spread_by_the_number_of_members(members):
    one, two, three = ensemble.run(members).by_size()
    assert (one.n_members, two.n_members, three.n_members) == (1, 2, 3)
    pairs = [mean(abs_of_means(pair)) for pair in ([0, 1], [0, 2], [1, 2])]
    for row, maes in ((one, MEMBERS), (two, pairs), (three, [MEAN])):
        assert row.maes_ev_per_atom == pytest.approx(maes)
        assert row.mae_ev_per_atom == pytest.approx(mean(maes))
        assert row.lowest == pytest.approx(min(maes))
        assert row.highest == pytest.approx(max(maes))
        assert row.spread_ev_per_atom == pytest.approx(SPREAD / row.n_members**0.5)
        assert {type(x) for x in row.maes_ev_per_atom} == {float}
    assert one.lowest < one.highest


def test_members_about_other_rows_are_named_beside_the_first(members):
    fewer = members[2].on(np.array(["a", "b"]))
    with pytest.raises(DataError, match=r"^first has 4 rows and third 2, or in another order"):
        ensemble.run(
            [replace(members[0], model="first"), members[1], replace(fewer, model="third")]
        )
    moved = replace(members[2], model="third", reference_ev_per_atom=np.zeros(4))
    with pytest.raises(
        DataError, match=r"^first and third were scored against different references on d; a mean"
    ):
        ensemble.run([replace(members[0], model="first"), members[1], moved])


def test_a_column_about_other_rows_is_no_mean(members):
    result = ensemble.run(members)
    with pytest.raises(DataError, match=r"^mlp has 4 rows and mean of 3 mlp 2"):
        replace(result, mean=result.mean.on(np.array(["a", "b"])))


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_members_drawn_together_lose_what_tells_them_from_the_first(members, share):
    result = ensemble.run(members, name="all of them").drawn_together(share)
    for errors, found in zip(ERRORS, result.errors_ev_per_atom, strict=True):
        closer = [f + (1 - share) * (e - f) for e, f in zip(errors, ERRORS[0], strict=True)]
        np.testing.assert_allclose(found, closer, atol=1e-15)
    assert result.mean.model == "all of them"
    assert [m.model for m in result.members] == ["mlp"] * 3


def test_one_member_is_no_ensemble(members):
    with pytest.raises(DataError, match=r"1 member\(s\): an ensemble needs at least two"):
        ensemble.run(members[:1])
    with pytest.raises(DataError, match="no members: an ensemble needs at least two"):
        ensemble.run([])


def test_a_row_that_is_worse_by_exactly_a_billionth_is_rounding(members):
    """Members without an error, so that the excess of the mean is its error."""
    zero = np.zeros(4)
    exact = [replace(m, reference_ev_per_atom=zero, predicted_ev_per_atom=zero) for m in members]
    result = ensemble.run(exact)
    off = replace(result.mean, predicted_ev_per_atom=np.array([1e-9, -1e-9, 1.1e-9, 0.0]))
    assert replace(result, mean=off).excess().details["rows_above"] == 1


def test_every_record_has_the_digest_of_the_mean(members):
    result = ensemble.run(members)
    for measured in (result.excess(), result.distance(), result.gain(), result.last_step()):
        assert measured.details["predictions_sha256"] == result.mean.predictions_sha256


def test_an_interval_over_other_rows_is_refused(members, monkeypatch):
    result = ensemble.run(members)
    right = result.gain().interval
    monkeypatch.setattr(ensemble, "bootstrap", lambda *_, **__: replace(right, n=8))
    with pytest.raises(DataError, match="mean of the members' MAEs minus MAE of their mean: 4 row"):
        result.gain()
