"""Procedures on made-up data with answers known beforehand."""

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.data.dataset import Dataset, Split
from harness.data.folds import mbid
from harness.data.peers import PeerPredictions
from harness.errors import ConfigError, DataAbsent, DataError
from harness.models import composition
from harness.models.alignment import References, refit
from harness.models.composition import CompositionMLP
from harness.runners import baseline, leaderboard, record, zero_shot
from harness.scores import Scored
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


def chessboard(n):
    """Two halves of repeated salts that both hold every element."""
    white = (np.arange(n) + np.arange(n) // 4 + np.arange(n) // 20) % 2 == 0
    return np.flatnonzero(white), np.flatnonzero(~white)


NO_TABLE = DataAbsent("no table: fetch it")


def test_a_refit_recovers_the_references_and_the_raw_energies_do_not(tmp_path):
    data = dataset(SALTS * 2, [Split(train=np.arange(20), test=np.arange(20, 40))])
    result = zero_shot.run(
        SumOfNumbers(), data.fold(0), PredictionStore(tmp_path), {"mp2020": NO_TABLE}
    )
    assert result.scored("refit").mae().interval.estimate == pytest.approx(0, abs=1e-8)
    assert result.scored("none").mae().interval.estimate > 0.3
    with pytest.raises(DataAbsent, match="fetch it"):  # as it was said, kind and all
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
    assert measured.absent == {}
    assert (measured.subject, measured.model) == ("sum-of-numbers", "sum-of-numbers (refit)")


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
    assert measured.absent == {"left out by --sample": 30}
    assert measured.excluded == {}
    assert runs[0].details["refit_rows"] == [10]


@pytest.mark.parametrize(("sample", "refit_rows"), [(19, 19), (20, 25), (21, 25), (None, 25)])
def test_a_sample_that_cuts_no_test_row_cuts_no_training_row(tmp_path, sample, refit_rows):
    data = dataset(SALTS * 3, [Split(train=np.arange(40), test=np.arange(40, 60))])
    config = zero_shot.ZeroShot(sample=sample, refit_rows=25)
    result = zero_shot.run(SumOfNumbers(), data.fold(0), PredictionStore(tmp_path), {}, config)
    assert result.details["refit_rows"] == [refit_rows]
    assert len(result.rows) == min(sample or 20, 20)


def test_rows_nobody_has_were_never_asked_for(tmp_path):
    white, black = chessboard(40)
    data = dataset(SALTS * 2, [Split(train=white, test=black)])
    fold = replace(data.fold(0), n_claimed=29)
    scored = zero_shot.run(SumOfNumbers(), fold, PredictionStore(tmp_path), {}).scored("refit")
    assert (scored.absent, scored.excluded, scored.of) == (
        {"not in the data set at hand": 9},
        {},
        29,
    )
    small = CompositionMLP(epochs=1, width=8, batch_rows=8)
    trained = baseline.run(fold, PredictionStore(tmp_path), small)
    assert (trained.absent, trained.excluded, trained.of) == (
        {"not in the data set at hand": 9},
        {},
        29,
    )
    assert trained.subject == trained.model == "composition-mlp"


# --- the refit's own error


def noisy(splits, *, rows=SALTS * 6):
    """Targets that no elements' energies give exactly, so that a refit depends on its rows."""
    data = dataset(rows, splits)
    moved = np.random.default_rng(4).normal(scale=0.1, size=len(rows))
    return replace(data, target_ev_per_atom=data.target_ev_per_atom + moved)


def test_a_refit_is_repeated_without_each_group_of_formulas(tmp_path):
    data = noisy([Split(train=np.arange(80), test=np.arange(80, 120))])
    store = PredictionStore(tmp_path)
    config = zero_shot.ZeroShot(refit_groups=4)
    result = zero_shot.run(SumOfNumbers(), data.fold(0), store, {}, config)
    total = SumOfNumbers().predict(data.crystals).energy
    groups = zero_shot._group_of_rows(data.reduced_formulas(), config)
    assert sorted(np.unique(groups)) == [0, 1, 2, 3]
    formulas = data.reduced_formulas()
    assert all(len(set(groups[formulas == formula])) == 1 for formula in set(formulas))
    assert len({int((groups[:20] == g).sum()) for g in range(4)}) == 1  # 20 formulas: 5 each
    expected = []
    for left_out in range(4):
        rows = np.flatnonzero(groups[:80] != left_out)
        found = refit(total[rows], data.target_ev_per_atom[rows], data.compositions[rows])
        expected.append(found.formation_energies(total[80:], data.compositions[80:]))
    scored = result.scored("refit")
    np.testing.assert_allclose(scored.without_group_ev_per_atom, expected, atol=1e-9)
    assert np.abs(np.array(expected) - scored.predicted_ev_per_atom).max() > 1e-3
    assert result.scored("none").without_group_ev_per_atom == ()
    assert "the refit's own error, 4 groups" in scored.mae().interval.method
    again = PredictionStore(tmp_path)
    zero_shot.run(SumOfNumbers(), data.fold(0), again, {}, config)
    assert again.traffic.computed == 0


def test_every_split_has_refits_of_its_own_and_rows_that_are_scored_keep_theirs(tmp_path):
    white, black = chessboard(120)
    data = noisy([Split(train=white, test=black), Split(train=black, test=white)])
    fixed = References(name="fixed", energies_ev_per_atom=np.zeros(118))
    result = zero_shot.run(
        SumOfNumbers(), data.fold(0), PredictionStore(tmp_path), {"fixed": fixed}
    )
    assert len(result.refits_without_group) == 10  # a tenth of the formulas at a time
    assert {len(of_group) for of_group in result.refits_without_group} == {2}
    scored = result.scored("refit")
    assert len(scored.without_group_ev_per_atom) == 10
    assert result.scored("fixed").without_group_ev_per_atom == ()
    for left_out, (first, second) in enumerate(result.refits_without_group):
        for references, mine in ((first, result.owner == 0), (second, result.owner == 1)):
            column = scored.without_group_ev_per_atom[left_out]
            np.testing.assert_allclose(
                column[mine],
                references.formation_energies(
                    result.total.energy[mine], data.compositions[result.rows[mine]]
                ),
            )


def test_an_element_of_the_left_out_rows_alone_keeps_its_energy(tmp_path):
    rows = [*SALTS * 2, [94, 9], *SALTS, [94, 9]]
    data = noisy([Split(train=np.arange(41), test=np.arange(41, 62))], rows=rows)
    result = zero_shot.run(SumOfNumbers(), data.fold(0), PredictionStore(tmp_path), {})
    (whole,) = result.references["refit"]
    of_plutonium = {
        float(refits[0].energies_ev_per_atom[93]) for refits in result.refits_without_group
    }
    assert float(whole.energies_ev_per_atom[93]) in of_plutonium
    assert np.isfinite(list(of_plutonium)).all()
    assert len(result.scored("refit")) == 21


def test_a_refit_of_one_formula_cannot_be_repeated_without_it_and_stands(tmp_path):
    data = dataset([[11, 17]] * 6, [Split(train=np.arange(3), test=np.arange(3, 6))])
    result = zero_shot.run(SumOfNumbers(), data.fold(0), PredictionStore(tmp_path), {})
    (whole,) = result.references["refit"]
    for (references,) in result.refits_without_group:
        np.testing.assert_array_equal(references.energies_ev_per_atom, whole.energies_ev_per_atom)


def test_without_groups_a_refit_counts_as_exact(tmp_path):
    data = noisy([Split(train=np.arange(80), test=np.arange(80, 120))])
    config = zero_shot.ZeroShot(refit_groups=0)
    result = zero_shot.run(SumOfNumbers(), data.fold(0), PredictionStore(tmp_path), {}, config)
    assert result.scored("refit").without_group_ev_per_atom == ()


@pytest.mark.parametrize(
    ("over", "says"),
    [
        ({"refit_rows": 0}, "at least one row"),
        ({"sample": 1}, "at least two test rows"),
        ({"refit_groups": 1}, "two groups at least, or 0"),
        ({"refit_groups": -1}, "two groups at least, or 0"),
    ],
)
def test_settings_without_sense_are_refused(over, says):
    with pytest.raises(ConfigError, match=says):
        zero_shot.ZeroShot(**over)
    zero_shot.ZeroShot(refit_rows=1, sample=2, refit_groups=2)


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


TRAINED = CompositionMLP(epochs=6, width=8, batch_rows=8)
KILLED = """
import os, signal, sys
from pathlib import Path
from harness.models import composition
from tests import test_runners as t

composition.CHECKPOINT_SECONDS = 0.0

def progress(what, total):
    done = 0
    def tick(n):
        nonlocal done
        done += n
        if done == 4:
            os.kill(os.getpid(), signal.SIGKILL)
    return tick

t.train_a_baseline(Path(sys.argv[1]), progress)
"""


def train_a_baseline(folder, progress=None):
    data = dataset(SALTS * 2, halves(40))
    return baseline.run(data.fold(0), PredictionStore(folder), TRAINED, progress=progress)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_killed_baseline_goes_on_to_the_same_bytes(tmp_path):
    whole = train_a_baseline(tmp_path / "whole")
    command = [sys.executable, "-c", KILLED, str(tmp_path / "killed")]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], check=False)  # noqa: S603
    assert done.returncode == -signal.SIGKILL
    (last,) = (tmp_path / "killed" / "checkpoints").glob("*/epoch-00004.ckpt")
    ticks = []
    resumed = train_a_baseline(tmp_path / "killed", lambda what, total: ticks.append)
    assert ticks == [5, 1, 0]  # five at once: four of them were done before
    assert not last.parent.exists()
    np.testing.assert_array_equal(resumed.predicted_ev_per_atom, whole.predicted_ev_per_atom)
    (mine,) = (tmp_path / "killed" / "arrays").glob("*.npz")
    assert mine.read_bytes() == (tmp_path / "whole" / "arrays" / mine.name).read_bytes()


def test_a_baseline_killed_after_its_last_epoch_says_it_is_done(tmp_path, monkeypatch):
    monkeypatch.setattr(composition, "CHECKPOINT_SECONDS", 0.0)

    def dies(what, total):
        def tick(n):
            dies.done += n
            if dies.done == total:
                raise KeyboardInterrupt

        return tick

    dies.done = 0
    with pytest.raises(KeyboardInterrupt):
        train_a_baseline(tmp_path, dies)
    told = []
    train_a_baseline(tmp_path, lambda what, total: told.append((what, total)) or told.append)
    assert told == [("composition-mlp, seed 0, epochs", 6), 6]


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
    assert (measured.subject, measured.model) == ("matbench record", "a model")
    first = measured.details["scores"][0]
    assert (first["fold"], first["score"]) == ("0", "mae")
    assert first["matbench_ev_per_atom"] == pytest.approx(0.1)
    column = recorded.column(0, like=one_fold)
    assert column.model == "a model"
    np.testing.assert_array_equal(column.predicted_ev_per_atom, one_fold.predicted_ev_per_atom)
    with pytest.raises(DataError, match="Record it again"):
        recorded.column(1, like=one_fold)


def test_a_record_is_filed_under_what_was_predicted_and_not_under_what_fills_it(
    official, one_fold, tmp_path
):
    fold = official.fold(3)
    rows = fold.test_rows
    scored = replace(
        one_fold,
        ids=official.ids[rows],
        formulas=official.ids[rows],
        reference_ev_per_atom=official.target_ev_per_atom[rows],
        predicted_ev_per_atom=official.target_ev_per_atom[rows] - 0.1,
        of=len(rows),
        inputs={"of": "the model"},
    )
    folds = record.complete(official, {3: scored})
    path = record.write(official, folds, tmp_path / "results.json")
    measured = record.read(path).compare(ran=folds)
    assert (measured.subject, measured.model) == ("matbench record", "a model")
    assert measured.inputs == {"of": "the model"}
    both = {**folds, 0: replace(one_fold, model="another")}
    assert record.read(path).compare(ran=both).model == "another and a model"
    empty = record.complete(official, {})
    assert record.read(path).compare(ran=empty).model == "mean of the training targets"


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
    measured = leaderboard.deviation([scored], 0.25)
    assert measured.interval.estimate == pytest.approx(0)
    assert (measured.subject, measured.model) == ("peer", "peer")
    assert (measured.scored, measured.of) == (26_550, 26_550)
    assert leaderboard.deviation([scored], 0.35).interval.estimate == pytest.approx(0.1)
    assert leaderboard.deviation([scored], 0.15).interval.estimate == pytest.approx(0.1)
    some = official.take(official.fold(2).test_rows[10:])
    part = leaderboard.run(some, peers, 2)["peer"]
    assert part.absent == {"not in the data set at hand": 10}
    both = leaderboard.deviation([part, replace(part, excluded={"x": 3}, of=part.of + 3)], 0.25)
    assert both.absent == {"not in the data set at hand": 20}
    assert both.excluded == {"x": 3}
    assert both.details["mae_of_folds"] == pytest.approx([0.25, 0.25])
    moved = PeerPredictions(
        ids=official.ids, fold=(fold_of + 1) % 5, predictions=peers.predictions, inputs={}
    )
    with pytest.raises(DataError, match="published under another fold"):
        leaderboard.run(official, moved, 2)
