"""Procedures on made-up data with answers known beforehand."""

import json

import numpy as np
import pytest

from harness.data.dataset import Dataset, Split
from harness.data.folds import mbid
from harness.data.peers import PeerPredictions
from harness.errors import ConfigError, DataError, NotAvailable
from harness.models.alignment import References
from harness.models.composition import CompositionMLP
from harness.runners import baseline, leaderboard, record, zero_shot
from harness.scores import Scored, typical
from harness.store import PredictionStore
from tests.fakes import SumOfNumbers, cubes

SALTS = [[a, b] for a in (3, 11, 19, 37, 55) for b in (9, 17, 35, 53)]


def dataset(rows, splits, *, shift=None):
    """Targets are the fake model's energies minus references that depend on the element."""
    crystals = cubes(rows)
    references = np.linspace(-4, 4, 118) if shift is None else shift
    total = crystals.fractions() @ (np.arange(1, 119) / 10)
    return Dataset(
        name="made up",
        ids=np.array([f"row{i}" for i in range(len(rows))]),
        target_ev_per_atom=total - crystals.fractions() @ references,
        crystals=crystals,
        compositions=crystals.compositions(),
        inputs={"made up": "0" * 64},
        source="this test",
        licence="none",
        is_subset=False,
        n_official=len(rows),
        fold_splits=(tuple(splits),),
    )


def halves(n):
    return [Split(train=np.arange(0, n, 2), test=np.arange(1, n, 2))]


NO_TABLE = NotAvailable("no table: fetch it")


def test_a_refit_recovers_the_references_and_the_raw_energies_do_not(tmp_path):
    data = dataset(SALTS * 2, [Split(train=np.arange(20), test=np.arange(20, 40))])
    result = zero_shot.run(
        SumOfNumbers(), data.fold(0), PredictionStore(tmp_path), {"mp2020": NO_TABLE}
    )
    assert result.scored("refit").mae().interval.estimate == pytest.approx(0, abs=1e-8)
    assert result.scored("none").mae().interval.estimate > 0.3
    with pytest.raises(NotAvailable, match="fetch it"):
        result.scored("mp2020")
    with pytest.raises(ConfigError, match="no alignment 'typo'"):
        result.scored("typo")


def test_rows_that_cannot_be_scored_are_counted_under_their_reason(tmp_path):
    rows = [*SALTS, *SALTS, [1, 9], [94, 9]]  # an isolated atom; an element never trained on
    data = dataset(rows, [Split(train=np.arange(20), test=np.arange(20, 42))])
    result = zero_shot.run(SumOfNumbers(), data.fold(0), PredictionStore(tmp_path), {})
    measured = result.scored("refit").mae()
    assert (measured.scored, measured.of) == (20, 22)
    assert measured.excluded == {"1 isolated atom": 1, "no refit reference for Pu": 1}


def test_a_cross_fitted_fold_scores_every_row_with_another_rows_fit(tmp_path):
    n = len(SALTS)
    even, odd = np.arange(0, n, 2), np.arange(1, n, 2)
    data = dataset(SALTS, [Split(train=even, test=odd), Split(train=odd, test=even)])
    result = zero_shot.run(SumOfNumbers(), data.fold(0), PredictionStore(tmp_path), {})
    scored = result.scored("none")
    assert sorted(scored.ids) == sorted(data.ids)
    assert len(result.references["refit"]) == 2
    np.testing.assert_array_equal(result.owner[odd], 0)


def test_a_sample_is_the_same_rows_each_time_and_says_what_it_left_out(tmp_path):
    data = dataset(SALTS * 3, [Split(train=np.arange(20), test=np.arange(20, 60))])
    config = zero_shot.ZeroShot(sample=10)
    runs = [
        zero_shot.run(SumOfNumbers(), data.fold(0), PredictionStore(tmp_path), {}, config)
        for _ in range(2)
    ]
    np.testing.assert_array_equal(runs[0].rows, runs[1].rows)
    measured = runs[0].scored("none").mae()
    assert (measured.scored, measured.of) == (10, 40)
    assert measured.excluded == {"left out by --sample": 30}


def test_a_fold_without_training_rows_is_refused(tmp_path):
    data = dataset(SALTS, [Split(train=np.empty(0, np.int64), test=np.arange(20))])
    with pytest.raises(DataError, match="nothing to refit"):
        zero_shot.run(SumOfNumbers(), data.fold(0), PredictionStore(tmp_path), {})
    with pytest.raises(DataError, match="nothing to learn from"):
        baseline.run(data.fold(0), PredictionStore(tmp_path))


def test_own_references_are_the_models_energies_of_the_elements(tmp_path):
    found = zero_shot.own_references(
        SumOfNumbers(), cubes([[11], [17, 17]]), PredictionStore(tmp_path), {"e": "1"}
    )
    assert isinstance(found, References)
    assert found.energies_ev_per_atom[[10, 16]] == pytest.approx([1.1, 1.7])
    assert np.isnan(found.energies_ev_per_atom[0])
    with pytest.raises(DataError, match="one element each"):
        zero_shot.own_references(SumOfNumbers(), cubes([[11, 17]]), PredictionStore(tmp_path), {})


def test_a_trained_baseline_is_remembered(tmp_path):
    data = dataset(SALTS * 2, halves(40))
    config = CompositionMLP(epochs=3, width=8, batch_rows=8)
    first = baseline.run(data.fold(0), PredictionStore(tmp_path), config)
    store = PredictionStore(tmp_path)
    again = baseline.run(data.fold(0), store, config)
    assert store.traffic.computed == 0
    np.testing.assert_array_equal(first.predicted_ev_per_atom, again.predicted_ev_per_atom)
    assert again.details["settings"]["epochs"] == "3"


@pytest.fixture(scope="module")
def official():
    """Official rows with made-up targets; folds are matbench's own."""
    pytest.importorskip("matbench", reason="matbench is not installed")
    n = 132_752
    draw = np.random.default_rng(0)
    compositions = np.zeros((n, 118))
    compositions[np.arange(n), draw.integers(0, 90, n)] = 1
    return Dataset(
        name="matbench_mp_e_form",
        ids=np.array([mbid(i) for i in range(n)]),
        target_ev_per_atom=draw.normal(size=n),
        crystals=None,
        compositions=compositions,
        inputs={},
        source="this test",
        licence="none",
        is_subset=False,
        n_official=n,
        index=np.arange(n),
    )


@pytest.fixture(scope="module")
def one_fold(official):
    fold = official.fold(0)
    rows = fold.test_rows
    return Scored(
        model="a model",
        dataset=official.name,
        ids=official.ids[rows],
        formulas=official.ids[rows],
        reference_ev_per_atom=official.target_ev_per_atom[rows],
        predicted_ev_per_atom=official.target_ev_per_atom[rows] + 0.1,
        of=fold.n_claimed,
    )


def test_a_record_is_read_back_as_it_was_written(official, one_fold, tmp_path):
    folds = record.complete(official, {0: one_fold})
    path = record.write(official, folds, tmp_path / "results.json")
    recorded = record.read(path)
    measured = recorded.compare(ran=folds)
    assert measured.interval.estimate == 0
    assert measured.details["labels"]["fold 0"] == "a model"
    assert measured.details["labels"]["fold 1"] == "mean of the training targets"
    first = measured.details["scores"][0]
    assert (first["fold"], first["score"]) == ("0", "mae")
    assert first["matbench_ev_per_atom"] == pytest.approx(0.1)
    column = recorded.column(0, like=one_fold)
    assert column.model == "a model"
    np.testing.assert_array_equal(column.predicted_ev_per_atom, one_fold.predicted_ev_per_atom)
    with pytest.raises(DataError, match="Record it again"):
        recorded.column(1, like=one_fold)


def test_a_false_label_and_an_altered_row_are_counted(official, one_fold, tmp_path):
    folds = record.complete(official, {0: one_fold})
    path = record.write(official, folds, tmp_path / "results.json")
    renamed = {**folds, 0: one_fold.with_predictions(lambda e: e, model="another")}
    recorded = record.read(path)
    assert recorded.compare(ran=renamed).interval.estimate == 26_551
    claimed = recorded.with_fold(0, label="another")
    assert claimed.compare(ran=folds).interval.estimate == 26_551
    half = recorded.with_fold(0, predicted=one_fold.on(one_fold.ids[:20_000]))
    assert half.compare(ran=folds).interval.estimate == 6_551
    stored = json.loads(path.read_text())
    key = next(iter(stored["results"]["fold_0"]["data"]))
    stored["results"]["fold_0"]["data"][key] += 1e-6
    path.write_text(json.dumps(stored))
    assert record.read(path).compare(ran=folds).interval.estimate >= 1


@pytest.mark.parametrize("content", ["{", "{}", "[]"])
def test_a_file_that_is_no_record_is_refused(content, tmp_path):
    pytest.importorskip("matbench")
    path = tmp_path / "results.json"
    path.write_text(content)
    with pytest.raises(DataError, match="not a matbench record"):
        record.read(path)


def test_half_a_fold_is_not_recorded(official, one_fold, tmp_path):
    folds = {**record.complete(official, {0: one_fold}), 0: one_fold.on(one_fold.ids[:100])}
    with pytest.raises(DataError, match="predicted 100"):
        record.write(official, folds, tmp_path / "results.json")
    assert not (tmp_path / "results.json").exists()


def test_a_leaderboard_mae_is_recomputed_and_a_wrong_fold_is_noticed(official):
    fold_of = np.empty(len(official), dtype=np.int8)
    for number in range(5):
        fold_of[official.fold(number).test_rows] = number
    peers = PeerPredictions(
        ids=official.ids,
        fold=fold_of,
        predictions={"peer": official.target_ev_per_atom - 0.25},
        inputs={},
    )
    scored = leaderboard.run(official, peers, 2)["peer"]
    assert leaderboard.deviation([scored], 0.25).interval.estimate == pytest.approx(0)
    assert leaderboard.deviation([scored], 0.35).interval.estimate == pytest.approx(0.1)
    moved = PeerPredictions(
        ids=official.ids, fold=(fold_of + 1) % 5, predictions=peers.predictions, inputs={}
    )
    with pytest.raises(DataError, match="published under another fold"):
        leaderboard.run(official, moved, 2)


def test_a_typical_member_errs_as_the_members_do_on_average(one_fold):
    wide = one_fold.with_predictions(lambda e: e - 0.4, model="another")  # errs by -0.3
    both = typical([one_fold, wide], model="both")
    assert both.mae().interval.estimate == pytest.approx(0.2)
    assert len(both) == len(one_fold)
    apart = wide.on(wide.ids[1:])
    with pytest.raises(DataError, match="same rows"):
        typical([one_fold, apart], model="both")
