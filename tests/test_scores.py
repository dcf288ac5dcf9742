"""Scores on paper, and rows that must add up."""

import numpy as np
import pytest

from harness.errors import DataError
from harness.scores import Scored, same_rows


def scored(predicted, *, ids=None, reference=None, of=None, model="m"):
    n = len(predicted)
    ids = np.array([f"row{i}" for i in range(n)] if ids is None else ids)
    reference = np.arange(n, dtype=float) if reference is None else np.asarray(reference, float)
    return Scored(
        model=model,
        dataset="d",
        ids=ids,
        formulas=ids,
        reference_ev_per_atom=reference,
        predicted_ev_per_atom=np.asarray(predicted, float),
        of=n if of is None else of,
        excluded={} if of is None else {"elsewhere": of - n},
    )


def test_mae_offset_and_spread_of_a_shifted_scaled_copy():
    reference = np.arange(21.0)
    result = scored(2 * reference + 1, reference=reference)
    assert result.mae().interval.estimate == 11.0
    assert result.offset().interval.estimate == 11.0
    assert result.spread().interval.estimate == pytest.approx(2.0)


def test_the_paired_difference_counts_only_rows_both_scored():
    mine = scored([1.0, 1.0, 1.0], reference=[0, 0, 0], ids=["a", "b", "c"], model="mine")
    other = scored([3.0, 3.0, 9.0], reference=[0, 0, 0], ids=["b", "c", "z"], model="other")
    measured = mine.mae_minus(other)
    assert measured.interval.estimate == -2.0
    assert (measured.scored, measured.of) == (2, 3)
    assert measured.excluded == {"not scored by the other model": 1}


def test_the_order_of_rows_does_not_matter_to_a_paired_difference():
    mine = scored([1.0, 2.0, 4.0], reference=[0, 1, 2], ids=["a", "b", "c"])
    other = scored([3.0, 1.0, 0.0], reference=[2, 0, 1], ids=["c", "a", "b"])
    assert mine.mae_minus(other).interval.estimate == pytest.approx((1 + 1 + 2 - 1 - 1 - 1) / 3)


def test_models_scored_against_different_targets_are_not_compared():
    with pytest.raises(DataError, match="different references"):
        scored([0, 0], reference=[0, 0]).mae_minus(scored([0, 0], reference=[0, 1]))


def test_a_prediction_that_is_not_finite_cannot_be_scored():
    with pytest.raises(DataError, match="row1"):
        scored([0.0, np.nan])


def test_a_planted_fault_leaves_the_original_alone():
    honest = scored([0.0, 1.0])

    def spoil(energies):
        energies += 5
        return energies

    faulty = honest.with_predictions(spoil, model="faulty")
    assert faulty.mae().interval.estimate == 5.0
    assert honest.mae().interval.estimate == 0.0


def test_the_table_of_models_is_on_the_subjects_rows_and_sorted():
    subject = scored([0.5, 1.5, 2.5], model="subject")
    better = scored([0.1, 1.1, 2.1, 99.0], model="better")
    table = same_rows(subject, [better])
    assert [(row.name, row.n, row.is_subject) for row in table] == [
        ("better", 3, False),
        ("subject", 3, True),
    ]
    assert table[0].mae_ev_per_atom == pytest.approx(0.1)
