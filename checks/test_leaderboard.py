"""Claims about the ground we stand on: rows, folds and targets are the leaderboard's own.

Yours to change: the peers.
Lives elsewhere: published figures and the procedure (harness/runners/leaderboard).
"""

import numpy as np
import pytest

from harness.claims import Kind, below
from harness.runners import leaderboard

to_four_digits = below(
    6e-5, "eV/atom", reason="the leaderboard prints four digits: half a unit of the last, and slack"
)
each_peer = pytest.mark.parametrize("peer", leaderboard.PUBLISHED_FOLD0)


def with_one_row_off(folds, published):
    """One prediction further off, by so much that the MAE is 1.4 tolerances above the published."""
    recomputed = leaderboard.deviation(folds, published).details["recomputed"]
    moved = 1.4 * to_four_digits.high + published - recomputed
    first, *others = folds

    def worse(energies):
        away = np.sign(first.error_ev_per_atom[0]) or 1.0
        energies[0] += away * moved * len(folds) * len(first)
        return energies

    return [first.with_predictions(worse, model=first.model), *others]


@pytest.mark.claim(
    id="leaderboard.reproduced",
    statement="The MAE recomputed from a peer's published predictions is the published one.",
    basis="matbench v0.1 leaderboard of mp_e_form, fold 0, and the peers' result files",
    kind=Kind.INTEGRITY,
    about="leaderboard",
    bound=to_four_digits,
)
@pytest.mark.fold0
@pytest.mark.nightly
@each_peer
def test_published_predictions_give_the_published_mae(targets, peers, peer, evidence):
    scored = leaderboard.run(targets, peers, fold_number=0)[peer]
    assert evidence(leaderboard.deviation([scored], leaderboard.PUBLISHED_FOLD0[peer])).held


# Of the folds and peers those whose MAEs differ least, so that the fault is a small one.
@pytest.mark.control(of="leaderboard.reproduced", fault="fold 3 scored in place of fold 0")
@pytest.mark.fold0
@pytest.mark.nightly
def test_the_wrong_fold_is_noticed(targets, peers, evidence):
    scored = leaderboard.run(targets, peers, fold_number=3)["CrabNet"]
    assert evidence(leaderboard.deviation([scored], leaderboard.PUBLISHED_FOLD0["CrabNet"])).refuted


@pytest.mark.control(of="leaderboard.reproduced", fault="one prediction of 26,551 further off")
@pytest.mark.fold0
@pytest.mark.nightly
def test_one_wrong_prediction_is_noticed(targets, peers, evidence):
    published = leaderboard.PUBLISHED_FOLD0["CrabNet"]
    folds = [leaderboard.run(targets, peers, fold_number=0)["CrabNet"]]
    assert evidence(leaderboard.deviation(with_one_row_off(folds, published), published)).refuted


@pytest.mark.claim(
    id="leaderboard.reproduced-mean",
    statement="Over all five folds, the mean of a peer's MAEs is the published one.",
    basis="matbench v0.1 leaderboard of mp_e_form, mean of five folds, and the peers' result files",
    kind=Kind.INTEGRITY,
    about="leaderboard",
    bound=to_four_digits,
)
@pytest.mark.nightly
@each_peer
def test_published_predictions_give_the_published_mean(targets, peers, peer, evidence):
    folds = [leaderboard.run(targets, peers, number)[peer] for number in range(5)]
    assert evidence(leaderboard.deviation(folds, leaderboard.PUBLISHED_MEAN[peer])).held


@pytest.mark.control(of="leaderboard.reproduced-mean", fault="one fold of five left out")
@pytest.mark.nightly
def test_a_missing_fold_is_noticed(targets, peers, evidence):
    peer = "RF-SCM/Magpie"
    folds = [leaderboard.run(targets, peers, number)[peer] for number in range(4)]
    assert evidence(leaderboard.deviation(folds, leaderboard.PUBLISHED_MEAN[peer])).refuted


@pytest.mark.control(
    of="leaderboard.reproduced-mean", fault="one prediction of 132,752 further off"
)
@pytest.mark.nightly
def test_one_wrong_prediction_among_all_folds_is_noticed(targets, peers, evidence):
    published = leaderboard.PUBLISHED_MEAN["CrabNet"]
    folds = [leaderboard.run(targets, peers, number)["CrabNet"] for number in range(5)]
    assert evidence(leaderboard.deviation(with_one_row_off(folds, published), published)).refuted
