"""Claims about the record: what is written down is what ran, under its own name.

Yours to change: which subject is recorded.
Lives elsewhere: matbench's format and the comparison (harness/runners/record).
"""

import pytest

from harness.claims import Kind, below
from harness.runners import baseline, record


@pytest.fixture(scope="module")
def folds(targets, fold_number, store, progress):
    """The composition baseline on this fold; the dummy model, so labelled, on the others."""
    scored = baseline.run(targets.fold(fold_number), store, progress=progress)
    return record.complete(targets, {fold_number: scored})


@pytest.fixture(scope="module")
def recorded(targets, folds, tmp_path_factory):
    """The same, written with matbench and read back from the file."""
    path = tmp_path_factory.mktemp("record") / "results.json"
    return record.read(record.write(targets, folds, path))


@pytest.mark.claim(
    id="record.round-trip",
    statement="Predictions recorded with matbench, saved and reloaded are the labelled subject's, "
    "and score the same to 1e-9.",
    basis="records that name a model which never ran have been met",
    kind=Kind.INTEGRITY,
    about="matbench record",
    bound=below(1, "values", reason="not one row or score may differ"),
)
def test_a_record_survives_the_round_trip(recorded, folds, evidence):
    assert evidence(recorded.compare(ran=folds)).held


@pytest.mark.control(
    of="record.round-trip",
    fault="labelled with a model that did not run",
    far="a label is of a whole fold, so a false one is wrong for all of its rows",
)
def test_a_false_label_is_noticed(recorded, folds, fold_number, evidence):
    claimed = recorded.with_fold(fold_number, label="chgnet-0.3.0")
    assert evidence(claimed.compare(ran=folds)).refuted


@pytest.mark.control(of="record.round-trip", fault="one prediction of 132,752 altered by 1e-6 eV")
def test_one_altered_prediction_is_noticed(recorded, folds, fold_number, evidence):
    def nudge_the_first(energies):
        energies[0] += 1e-6
        return energies

    honest = folds[fold_number]
    altered = honest.with_predictions(nudge_the_first, model=honest.model)
    nudged = recorded.with_fold(fold_number, predicted=altered)
    assert evidence(nudged.compare(ran=folds)).refuted
