"""Recompute published MAEs from published per-structure predictions.

Public: PUBLISHED_FOLD0, PUBLISHED_MEAN, run, deviation. If these do not come out, the rows, folds
or targets at hand are not those of the leaderboard, and no other number here means what it says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from harness.claims import Interval, Measurement
from harness.data.dataset import Dataset
from harness.data.peers import PeerPredictions
from harness.errors import DataError
from harness.scores import Scored

# matbench v0.1 leaderboard of mp_e_form, MAE in eV/atom: fold 0 alone, and the mean of five folds.
PUBLISHED_FOLD0: Mapping[str, float] = {
    "coNGN": 0.0181,
    "ALIGNN": 0.0218,
    "CGCNN": 0.0340,
    "CrabNet": 0.0853,
    "RF-SCM/Magpie": 0.1158,
}
PUBLISHED_MEAN: Mapping[str, float] = {
    "coNGN": 0.0178,
    "ALIGNN": 0.0215,
    "CGCNN": 0.0337,
    "CrabNet": 0.0862,
    "RF-SCM/Magpie": 0.1165,
}


def run(targets: Dataset, peers: PeerPredictions, fold_number: int) -> dict[str, Scored]:
    """Every peer on the test rows of one fold, matched by id.

    Raises:
        DataError: a test row has no published prediction, or a peer was tested on another fold.
    """
    fold = targets.fold(fold_number)
    rows = fold.test_rows
    position = {peer_id: i for i, peer_id in enumerate(peers.ids.tolist())}
    ids = targets.ids[rows]
    if missing := [i for i in ids.tolist() if i not in position]:
        raise DataError(
            f"{len(missing)} test rows have no published prediction, first {missing[0]}"
        )
    at = np.array([position[i] for i in ids.tolist()])
    if (wrong := np.flatnonzero(peers.fold[at] != fold_number)).size:
        raise DataError(
            f"{len(wrong)} rows of fold {fold_number} were published under another fold, first "
            f"{ids[wrong[0]]} (fold {peers.fold[at][wrong[0]]}): the folds are not the same"
        )
    absent = fold.n_claimed - len(rows)
    return {
        name: Scored(
            model=name,
            subject=name,
            dataset=targets.name,
            ids=ids,
            formulas=targets.reduced_formulas()[rows],
            reference_ev_per_atom=targets.target_ev_per_atom[rows],
            predicted_ev_per_atom=predictions[at],
            of=fold.n_claimed,
            absent={"not in the data set at hand": absent} if absent else {},
            inputs={**targets.inputs, **peers.inputs},
        )
        for name, predictions in peers.predictions.items()
    }


def deviation(folds: Sequence[Scored], published: float) -> Measurement:
    """Distance of the mean over folds of the MAE from a published one, eV/atom.

    Exact: the leaderboard scored these very rows, so there is nothing to sample.
    """
    maes = [float(np.abs(scored.error_ev_per_atom).mean()) for scored in folds]
    n = sum(len(scored) for scored in folds)
    excluded, absent = Counter[str](), Counter[str]()
    for scored in folds:
        excluded.update(scored.excluded)
        absent.update(scored.absent)
    return Measurement(
        quantity="|MAE recomputed - MAE published|",
        interval=Interval.exact(abs(float(np.mean(maes)) - published), n=n),
        scored=n,
        of=sum(scored.of for scored in folds),
        dataset=folds[0].dataset,
        model=folds[0].model,
        subject=folds[0].subject,
        excluded=dict(excluded),
        absent=dict(absent),
        inputs=folds[0].inputs,
        details={"published": published, "recomputed": float(np.mean(maes)), "mae_of_folds": maes},
    )
