"""Claims about the composition baseline, which every structure-aware model has to beat.

Yours to change: the bound with its reason.
Lives elsewhere: the network (harness/models/composition), the procedure (harness/runners/baseline).
"""

import pytest

from harness.claims import between
from harness.models.composition import CompositionMLP
from harness.plots import parity
from harness.runners import baseline


@pytest.mark.claim(
    id="baseline.reproduces",
    statement="Element fractions into a small MLP give an MAE of about 0.11 eV/atom.",
    basis="founding note ('Route-B CHGNet-lite', 0.11 on fold 0); 0.109 to 0.111 in one trial",
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


@pytest.mark.control(of="baseline.reproduces", fault="trained for 3 epochs of the 30")
def test_an_undertrained_baseline_is_noticed(targets, fold_number, store, progress, evidence):
    brief = CompositionMLP(epochs=3)
    scored = baseline.run(targets.fold(fold_number), store, brief, progress=progress)
    assert evidence(scored.mae()).refuted
