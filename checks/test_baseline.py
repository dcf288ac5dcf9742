"""Claims about the composition baseline, which every structure-aware model has to beat.

Yours to change: the bound with its reason.
Lives elsewhere: the network (harness/models/composition), the procedure (harness/runners/baseline).
"""

import pytest

from harness.claims import Kind, between
from harness.plots import parity
from harness.runners import baseline


@pytest.mark.claim(
    id="baseline.reproduces",
    statement="Element fractions into a small MLP, trained with seed 0, give an MAE of about 0.11 "
    "eV/atom.",
    basis="founding note ('Route-B CHGNet-lite', 0.11 on fold 0); 0.109 to 0.111 in one trial",
    kind=Kind.INTEGRITY,
    about="composition-mlp",
    bound=between(
        0.10, 0.12, "eV/atom", reason="0.11 to a tenth: seeds move it by 0.001, rows by 0.004"
    ),
)
def test_the_composition_baseline_reproduces_its_record(
    targets, fold_number, store, progress, evidence
):
    scored = baseline.run(targets.fold(fold_number), store, progress=progress)
    reference, predicted = scored.reference_ev_per_atom, scored.predicted_ev_per_atom
    evidence.figure("parity", parity(reference, predicted, names=scored.ids, title=scored.model))
    assert evidence(scored.mae()).held


@pytest.fixture
def with_mae(targets, fold_number, store, progress):
    """The baseline's MAE where its own errors are so many times what they are on record."""
    scored = baseline.run(targets.fold(fold_number), store, progress=progress)
    on_record = scored.with_errors_scaled(0.11 / scored.mae().interval.estimate)
    return lambda factor: on_record.with_errors_scaled(factor).mae()


@pytest.mark.control(of="baseline.reproduces", fault="its own errors, grown")
def test_a_baseline_somewhat_worse_is_noticed(with_mae, evidence):
    assert evidence.planted(with_mae, 1, 10).refuted


@pytest.mark.control(of="baseline.reproduces", fault="its own errors, shrunk")
def test_a_baseline_somewhat_better_is_noticed(with_mae, evidence):
    assert evidence.planted(lambda share: with_mae(1 - share), 0, 0.9).refuted
