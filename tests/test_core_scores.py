"""Scores where nothing is left to score, and what a score refuses."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from harness import scores
from harness.claims import Interval
from harness.errors import DataError
from harness.scores import Scored, require_rows


def test_rows_that_nobody_scored_leave_none():
    scored = Scored(
        model="m",
        dataset="d",
        ids=np.array(["a", "b"]),
        formulas=np.array(["A", "B"]),
        reference_ev_per_atom=np.zeros(2),
        predicted_ev_per_atom=np.ones(2),
        of=2,
        without_group_ev_per_atom=(np.ones(2), np.zeros(2)),
    )
    none = scored.on(np.array(["c"]))
    assert len(none) == 0
    assert none.excluded == {"not scored by the other model": 2}
    assert [len(e) for e in none.without_group_ev_per_atom] == [0, 0]


# --- one digest, and the rows of an interval


def few(**more):
    """Three rows of two formulas."""
    return Scored(
        **{
            "model": "m",
            "dataset": "d",
            "ids": np.array(["a", "b", "c"]),
            "formulas": np.array(["NaCl", "NaCl", "MgO"]),
            "reference_ev_per_atom": np.zeros(3),
            "predicted_ev_per_atom": np.array([0.5, -0.25, 1.0]),
            "of": 3,
            **more,
        }
    )


def test_predictions_have_one_digest_of_ids_and_numbers():
    digest = hashlib.sha256(b"a\nb\nc" + np.array([0.5, -0.25, 1.0]).tobytes()).hexdigest()
    assert few().predictions_sha256 == digest
    for measured in (few().mae(), few().offset(), few().mae_minus(few(model="n"))):
        assert measured.details["predictions_sha256"] == digest
    other = few(ids=np.array(["a", "d", "c"]))
    assert other.predictions_sha256 != digest
    # of a pair the digest is of all rows of the first, also of those that the other lacks
    assert few().mae_minus(other).details["predictions_sha256"] == digest


@pytest.mark.parametrize(
    ("n", "units", "is_refused"), [(3, 2, False), (4, 2, True), (3, 3, True), (2, 2, True)]
)
def test_an_interval_over_other_rows_or_units_is_refused(n, units, is_refused):
    interval = Interval(estimate=0.0, low=0.0, high=0.0, n=n, n_clusters=units, method="m")
    if is_refused:
        says = rf"q: 3 rows of 2 formulas were scored, and the interval is over {n} rows in {units}"
        with pytest.raises(DataError, match=says):
            require_rows(interval, few().formulas, "q")
    else:
        require_rows(interval, few().formulas, "q")


def test_of_an_identity_every_row_counts():
    require_rows(Interval.exact(0.0, n=3), few().formulas, "q")
    with pytest.raises(DataError, match="3 rows of 3 formulas were scored"):
        require_rows(Interval.exact(0.0, n=2), few().formulas, "q")


def test_a_score_refuses_an_interval_over_other_rows(monkeypatch):
    right = few().mae().interval
    monkeypatch.setattr(scores, "bootstrap", lambda *_, **__: replace(right, n=6))
    with pytest.raises(DataError, match="MAE of e_form: 3 rows of 2 formulas"):
        few().mae()
