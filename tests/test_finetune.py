"""Fine-tuning: on a made-up backbone with known answers, and on CHGNet at tiny size."""

from __future__ import annotations

import copy
import errno
import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.data import Crystals, load_dataset
from harness.data.dataset import Dataset, Fold, Split
from harness.errors import ConfigError, DataError, ModelError, NotAvailable
from harness.models.alignment import refit
from harness.models.chgnet.trainable import TrainableCHGNet, tensors_of, variant
from harness.models.protocol import Identity
from harness.models.training import checkpoints as checkpoint_files
from harness.models.training import features as feature_files
from harness.models.training.checkpoints import CheckpointWarning
from harness.models.training.features import FeatureStore, FeatureWarning
from harness.runners import finetune, zero_shot
from harness.runners.finetune import FineTune
from harness.statistics import student_t
from harness.store import PredictionStore
from tests.fakes import SumOfNumbers, cubes

SALTS = [[a, b] for a in (3, 11, 19, 37, 55) for b in (9, 17, 35, 53)]
QUICK = FineTune(epochs=3, batch_structures=4, validation_fraction=0.2, learning_rate=1e-2)


@pytest.fixture(autouse=True)
def one_thread():
    """Threads that wait for one another crawl where several sessions share the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class _Features:
    def __init__(self, atoms, problems):
        self.atoms, self.problems = atoms, problems


class FakeBackbone:
    """Features are powers of the atomic number; a hydrogen row counts as isolated."""

    def __init__(self, *, width: int = 4, batch_rows: int = 7, name: str = "fake") -> None:
        self.identity = Identity(name=name, weights_sha256="f" * 64)
        self.elements = frozenset(range(1, 119))
        self.width, self.batch_rows = width, batch_rows
        self.asked: list[int] = []
        self.die_after: int | None = None

    def plan(self, crystals):
        rows = np.arange(len(crystals))
        return [rows[i : i + self.batch_rows] for i in range(0, len(rows), self.batch_rows)]

    def featurise(self, crystals):
        if self.die_after is not None and len(self.asked) >= self.die_after:
            raise KeyboardInterrupt
        self.asked.append(len(crystals))
        z = crystals.numbers.astype(np.float64) / 60
        edges = 6 * np.repeat(crystals.lattices[:, 0, 0] - 4, crystals.n_atoms)
        atoms = np.stack([np.sin((k + 1) * z + edges) for k in range(self.width)], axis=1)
        bad = crystals.compositions()[:, 0] > 0
        atoms[np.repeat(bad, crystals.n_atoms)] = np.nan
        return _Features(
            atoms.astype(np.float32), {int(i): "1 isolated atom" for i in np.flatnonzero(bad)}
        )

    def composition_energies(self, crystals):
        return crystals.fractions() @ np.linspace(-1, -9, 118)

    def head(self):
        generator = torch.Generator().manual_seed(3)
        layers = torch.nn.Sequential(
            torch.nn.Linear(self.width, 8), torch.nn.SiLU(), torch.nn.Linear(8, 1)
        )
        with torch.no_grad():
            for parameter in layers.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / 3)
        return layers


def made_up(rows=None, *, train=None, test=None) -> Fold:
    """Targets that no elements' energies give, but one of the fake's features does."""
    rows = SALTS * 2 if rows is None else rows
    crystals = cubes(rows)
    n = len(rows)
    edges = 6 * np.repeat(crystals.lattices[:, 0, 0] - 4, crystals.n_atoms)
    sites = np.sin(crystals.numbers / 30 + edges) - crystals.numbers / 20
    target = np.bincount(crystals.row_of_atom, sites) / crystals.n_atoms
    # a chessboard over salts: both halves hold every element
    white = (np.arange(n) + np.arange(n) // 4 + np.arange(n) // 20) % 2 == 0
    train = np.flatnonzero(white) if train is None else train
    test = np.flatnonzero(~white) if test is None else test
    dataset = Dataset(
        name="made up",
        ids=np.array([f"row{i}" for i in range(n)]),
        target_ev_per_atom=target,
        crystals=crystals,
        compositions=crystals.compositions(),
        inputs={"made up": "0" * 64},
        source="this test",
        licence="none",
        is_subset=False,
        n_official=n,
        fold_splits=((Split(train=train, test=test),),),
    )
    return dataset.fold(0)


def run(tmp_path, config=QUICK, *, fold=None, model=None, **options):
    store = PredictionStore(tmp_path)
    result = finetune.run(
        FakeBackbone() if model is None else model,
        made_up() if fold is None else fold,
        store,
        config,
        **options,
    )
    return result, store


def same_bits(one, other):
    for mine, theirs in zip(one.runs, other.runs, strict=True):
        assert mine.weights.keys() == theirs.weights.keys()
        for name, array in mine.weights.items():
            np.testing.assert_array_equal(array, theirs.weights[name])
        assert mine.weights_sha256 == theirs.weights_sha256
        np.testing.assert_array_equal(mine.e_form_ev_per_atom, theirs.e_form_ev_per_atom)
        np.testing.assert_array_equal(mine.train_loss, theirs.train_loss)
        assert mine.order_sha256 == theirs.order_sha256


# --- what is trained on what ---------------------------------------------------------------------


def test_training_lowers_the_loss_and_predictions_are_scored(tmp_path):
    result, _ = run(tmp_path, replace(QUICK, epochs=20, patience=None))
    (only,) = result.runs
    assert only.train_loss[-1] < 0.8 * only.train_loss[0]
    scored = result.scored()
    assert scored.mae().scored == scored.mae().of == 20
    assert scored.model == "fake head-only"
    assert scored.subject == result.subject == "fake"
    assert scored.details["config"]["seed"] == 0
    json.dumps(scored.details, allow_nan=False)


def test_validation_rows_come_from_training_rows_and_test_rows_are_never_seen(tmp_path):
    fold = made_up()
    result, _ = run(tmp_path / "a", fold=fold)
    (only,) = result.runs
    split = fold.splits[0]
    assert len(only.validation_rows) == 4
    assert set(only.fit_rows) | set(only.validation_rows) == set(split.train)
    assert not set(only.fit_rows) & set(only.validation_rows)
    # other targets of the test rows, the same training to the last bit
    targets = fold.dataset.target_ev_per_atom.copy()
    targets[split.test] = 1e3
    other, _ = run(tmp_path / "b", fold=fold, training_targets=targets)
    same_bits(result, other)


def test_other_training_targets_are_trained_on_and_scored_against_the_data_sets(tmp_path):
    fold = made_up()
    shuffled = np.random.default_rng(0).permutation(fold.dataset.target_ev_per_atom)
    honest, dealt = run(tmp_path)[0], run(tmp_path, fold=fold, training_targets=shuffled)[0]
    np.testing.assert_array_equal(
        honest.scored().reference_ev_per_atom, dealt.scored().reference_ev_per_atom
    )
    assert honest.scored().mae().interval.estimate < dealt.scored().mae().interval.estimate


def test_a_seed_decides_everything_zero_included(tmp_path):
    base = replace(QUICK, bootstrap=True)
    runs = [run(tmp_path / str(i), replace(base, seed=seed))[0] for i, seed in enumerate((0, 0, 1))]
    same_bits(runs[0], runs[1])
    one, _, other = (result.runs[0] for result in runs)
    assert one.order_sha256 != other.order_sha256
    assert set(one.validation_rows) != set(other.validation_rows)
    assert sorted(one.fit_rows) != sorted(other.fit_rows)


def test_rows_are_drawn_apart_from_the_seed_and_a_short_draw_begins_a_longer_one(tmp_path):
    def drawn(**over):
        return set(run(tmp_path, replace(QUICK, epochs=1, **over))[0].runs[0].train_rows)

    assert drawn(max_train_rows=10, seed=0) == drawn(max_train_rows=10, seed=1)
    assert drawn(max_train_rows=10) < drawn(max_train_rows=15)
    assert drawn(max_train_rows=10) != drawn(max_train_rows=10, rows_seed=1)


def test_a_bootstrap_repeats_rows_and_keeps_to_the_fitted_ones(tmp_path):
    plain, resampled = run(tmp_path)[0].runs[0], run(tmp_path, replace(QUICK, bootstrap=True))[0]
    rows = resampled.runs[0].fit_rows
    assert len(rows) == len(plain.fit_rows) > len(np.unique(rows))
    assert set(rows) <= set(plain.fit_rows)


def test_a_repeat_is_trained_anew_to_the_same_bits(tmp_path):
    first, store = run(tmp_path)
    again = finetune.run(FakeBackbone(), made_up(), store, replace(QUICK, repeat=1))
    assert store.traffic.found == 1  # the refit; the training itself ran twice
    same_bits(first, again)


# --- formation energies --------------------------------------------------------------------------


@pytest.mark.parametrize("transform", ["refit-residual", "refit-residual+standardise"])
def test_epoch_0_is_the_refit_alignment_whatever_the_scale(tmp_path, transform):
    model, fold = FakeBackbone(), made_up()
    result, _ = run(tmp_path, replace(QUICK, transform=transform), fold=fold)
    crystals, split = fold.dataset.crystals, fold.splits[0]
    site = model.head()(torch.from_numpy(model.featurise(crystals).atoms)).detach().numpy()
    total = site.reshape(-1, 2).mean(axis=1) + model.composition_energies(crystals)
    references = refit(
        total[split.train],
        fold.dataset.target_ev_per_atom[split.train],
        fold.dataset.compositions[split.train],
    )
    expected = references.formation_energies(total, fold.dataset.compositions)[split.test]
    np.testing.assert_allclose(result.start().predicted_ev_per_atom, expected, atol=1e-6)


@pytest.mark.parametrize("transform", ["identity", "refit-residual+signed-log", "standardise"])
def test_predictions_are_the_inverse_of_the_outputs(tmp_path, transform):
    result, _ = run(tmp_path, replace(QUICK, transform=transform))
    assert finetune.inversion(result).interval.high < 1e-9
    forgotten = finetune.inversion(result, predicted=result.outputs())
    assert (forgotten.interval.estimate > 0.1) == (transform != "identity")
    assert result.probes[f"transform:{transform.split('+')[-1]}"] > 0


def test_an_element_only_in_the_test_rows_is_counted_under_its_name(tmp_path):
    rows = [*SALTS, *SALTS, [94, 9], [1, 9]]
    fold = made_up(rows, train=np.arange(20), test=np.arange(20, 42))
    measured = run(tmp_path, fold=fold)[0].scored().mae()
    assert (measured.scored, measured.of) == (20, 22)
    assert measured.excluded == {"no refit reference for Pu": 1, "1 isolated atom": 1}
    assert measured.absent == {}
    plain = run(tmp_path, replace(QUICK, transform="identity"), fold=fold)[0].scored().mae()
    assert plain.excluded == {"1 isolated atom": 1}  # no references, so none is missing


def test_a_training_row_that_cannot_be_featurised_is_left_out_of_the_fit(tmp_path):
    fold = made_up([*SALTS, [1, 9]], train=np.array([*range(10), 20]), test=np.arange(10, 20))
    (only,) = run(tmp_path, fold=fold)[0].runs
    assert 20 in only.train_rows
    assert 20 not in {*only.fit_rows, *only.validation_rows}
    trend = finetune.loss_trend([run(tmp_path, fold=fold)[0]] * 2)
    assert trend.excluded == {"not usable in training": 1}
    assert trend.absent == {"held back for the early stop": 2}
    assert (trend.scored, trend.of) == (8, 11)


def test_some_test_rows_can_be_scored_and_the_others_are_counted(tmp_path):
    test = made_up().splits[0].test
    measured = (
        run(tmp_path, test_rows=np.array([*test[:2], made_up().splits[0].train[0]]))[0]
        .scored()
        .mae()
    )
    assert (measured.scored, measured.of) == (2, 20)
    assert measured.absent == {"left out by --sample": 18}
    assert measured.excluded == {}


# --- the store, crashes and damage ---------------------------------------------------------------


def test_a_finished_run_is_stored_whole_and_nothing_is_trained_twice(tmp_path):
    first, _ = run(tmp_path)
    model = FakeBackbone()
    model.die_after = 0  # not one batch of features
    again, store = run(tmp_path, model=model)
    assert (store.traffic.found, store.traffic.computed) == (1, 0)
    same_bits(first, again)
    assert first.probes == again.probes
    assert first.scored().details == again.scored().details
    np.testing.assert_array_equal(
        first.start().predicted_ev_per_atom, again.start().predicted_ev_per_atom
    )
    assert not list((tmp_path / "checkpoints").glob("*/*.ckpt"))


KILLED = """
import os, signal, sys
from pathlib import Path
from tests import test_finetune as t

def progress(what, total):
    done = 0
    def tick(n):
        nonlocal done
        done += n
        if what.endswith("epochs") and done == 2:
            os.kill(os.getpid(), signal.SIGKILL)
    return tick

t.run(Path(sys.argv[1]), progress=progress)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_killed_session_goes_on_to_the_same_weights(tmp_path):
    undisturbed, _ = run(tmp_path / "whole")
    command = [sys.executable, "-c", KILLED, str(tmp_path / "killed")]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], check=False)  # noqa: S603
    assert done.returncode == -signal.SIGKILL
    assert len(list((tmp_path / "killed" / "checkpoints").glob("*/*.ckpt"))) == 2
    epochs: list[int] = []
    resumed, _ = run(
        tmp_path / "killed",
        progress=lambda what, total: epochs.append if "epochs" in what else lambda n: None,
    )
    assert epochs[0] == 2
    same_bits(undisturbed, resumed)


def test_a_run_goes_on_without_checkpoints_where_the_disk_is_full(tmp_path, monkeypatch):
    undisturbed, _ = run(tmp_path / "whole")
    real, written = checkpoint_files.write_atomically, []

    def fills(path, write):
        if written:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(path)
        real(path, write)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_files, "write_atomically", fills)
        with pytest.warns(CheckpointWarning, match="No space left on device.*The training goes on"):
            same_bits(undisturbed, run(tmp_path / "full")[0])
    assert len(written) == 1


def test_a_checkpoint_of_another_architecture_is_refused(tmp_path):
    class Dies(KeyboardInterrupt):
        pass

    def die(what, total):
        def tick(n):
            if "epochs" in what and n:
                raise Dies

        return tick

    with pytest.raises(Dies):
        run(tmp_path, progress=die)
    # the same name and weights hash, another width: an adapter that lies about its identity
    for path in (tmp_path / "features").glob("*/*.npz"):
        path.unlink()
    with pytest.raises(ModelError, match=r"another architecture: mlp\.0\.weight"):
        run(tmp_path, model=FakeBackbone(width=5))


def test_features_killed_halfway_are_completed_to_the_same_bytes(tmp_path):
    crystals = made_up().dataset.crystals
    whole, _ = FeatureStore(root=tmp_path / "whole").features(FakeBackbone(), crystals)
    model = FakeBackbone()
    model.die_after = 2
    with pytest.raises(KeyboardInterrupt):
        FeatureStore(root=tmp_path / "half").features(model, crystals)
    model = FakeBackbone()
    ticks: list[int] = []
    table, problems = FeatureStore(root=tmp_path / "half").features(model, crystals, ticks.append)
    assert sum(model.asked) == len(crystals) - 14
    assert sum(ticks) == len(crystals)
    assert problems == {}
    np.testing.assert_array_equal(whole, table)
    for path in (tmp_path / "whole").glob("*/*.npz"):
        twin = tmp_path / "half" / path.relative_to(tmp_path / "whole")
        assert twin.read_bytes() == path.read_bytes()


def test_features_are_found_in_any_order_and_by_content(tmp_path):
    kept = FeatureStore(root=tmp_path)
    crystals = made_up().dataset.crystals
    whole, _ = kept.features(FakeBackbone(), crystals)
    model = FakeBackbone()
    some, _ = kept.features(model, crystals[np.array([9, 2, 30])])
    assert model.asked == []
    np.testing.assert_array_equal(some, whole.reshape(-1, 2, 4)[[9, 2, 30]].reshape(-1, 4))
    kept.features(FakeBackbone(name="another"), crystals[:3])
    assert len(list(tmp_path.iterdir())) == 2


def test_damaged_features_are_computed_again(tmp_path):
    kept = FeatureStore(root=tmp_path)
    crystals = made_up().dataset.crystals
    whole, _ = kept.features(FakeBackbone(), crystals)
    path = sorted(tmp_path.glob("*/*.npz"))[0]
    raw = bytearray(path.read_bytes())
    at = raw.find(b"atoms.npy") + 200  # inside the features, not in the list of rows
    raw[at] ^= 1
    path.write_bytes(raw)
    with pytest.warns(FeatureWarning, match="cannot be used"):
        again, _ = kept.features(FakeBackbone(), crystals)
    np.testing.assert_array_equal(whole, again)


def test_features_beyond_the_memory_are_mapped_from_a_file(tmp_path):
    crystals = made_up().dataset.crystals
    held, _ = FeatureStore(root=tmp_path).features(FakeBackbone(), crystals)
    mapped, _ = FeatureStore(root=tmp_path, memory_bytes=100).features(FakeBackbone(), crystals)
    assert isinstance(mapped, np.memmap)
    np.testing.assert_array_equal(held, mapped)


def test_a_run_on_mapped_features_ends_in_the_same_bits(tmp_path, monkeypatch):
    in_memory, _ = run(tmp_path / "a")
    monkeypatch.setattr(
        finetune, "FeatureStore", lambda root: FeatureStore(root=root, memory_bytes=100)
    )
    same_bits(in_memory, run(tmp_path / "b")[0])


def test_a_full_disk_keeps_the_features_already_written(tmp_path, monkeypatch):
    crystals = made_up().dataset.crystals
    real, written = feature_files.write_columns, []

    def fills(path, arrays, header):
        if len(written) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(path)
        real(path, arrays, header)

    undisturbed = FeatureStore(root=tmp_path / "other").features(FakeBackbone(), crystals)[0]
    monkeypatch.setattr(feature_files, "write_columns", fills)
    with pytest.warns(FeatureWarning, match=r"No space left on device.*from memory.*intact"):
        found = FeatureStore(root=tmp_path).features(FakeBackbone(), crystals)
    np.testing.assert_array_equal(found[0], undisturbed)
    monkeypatch.undo()
    model = FakeBackbone()
    FeatureStore(root=tmp_path).features(model, crystals)
    assert sum(model.asked) == len(crystals) - 14


# --- requests that make no sense -----------------------------------------------------------------


def test_a_fold_without_rows_is_refused(tmp_path):
    empty = np.empty(0, np.int64)
    with pytest.raises(DataError, match="has no training rows"):
        run(tmp_path, fold=made_up(train=empty))
    with pytest.raises(DataError, match="has no test rows"):
        run(tmp_path, fold=made_up(test=empty))
    isolated = made_up([[1, 9], [3, 9]], train=np.array([0]), test=np.array([1]))
    with pytest.raises(DataError, match=r"none of the 1 training rows.*1 isolated atom"):
        run(tmp_path, fold=isolated)


def test_targets_that_are_not_finite_are_refused_before_any_work(tmp_path):
    targets = made_up().dataset.target_ev_per_atom.copy()
    row = made_up().splits[0].train[3]
    targets[row] = np.nan
    with pytest.raises(DataError, match=rf"1 of 20 training targets .* row {row} \(row{row}\)"):
        run(tmp_path, training_targets=targets)
    assert not (tmp_path / "features").exists()


def test_a_subject_may_pass_on_what_another_one_has(tmp_path):
    class PassesOn:
        def __init__(self, model):
            self._model = model

        def __getattr__(self, name):
            return getattr(self._model, name)

    direct, _ = run(tmp_path)
    passed_on, _ = run(tmp_path, model=PassesOn(FakeBackbone()))
    same_bits(direct, passed_on)


def test_a_subject_without_a_head_is_not_available(tmp_path):
    with pytest.raises(NotAvailable, match="sum-of-numbers offers no features"):
        run(tmp_path, model=SumOfNumbers())
    with pytest.raises(NotAvailable, match="for CHGNet only, not for fake"):
        run(tmp_path, replace(QUICK, start="random"))
    with pytest.raises(NotAvailable, match="training more than the readout"):
        run(tmp_path, replace(QUICK, trainable="all"))


@pytest.mark.parametrize(
    "over",
    [
        {"head": "mlp"},
        {"trainable": "some"},
        {"start": "warm"},
        {"validation_fraction": 1.0},
        {"max_train_rows": 0},
        {"transform": "log"},
        {"epochs": 0},
        {"ema": 1.5},
    ],
)
def test_settings_that_make_no_sense_are_refused(over):
    with pytest.raises(ConfigError, match=next(iter(over))):
        FineTune(**over)


# --- measurements --------------------------------------------------------------------------------


def test_a_trend_over_seeds_excludes_zero_when_losses_fall_and_is_zero_when_they_do_not(tmp_path):
    longer = replace(QUICK, epochs=20, patience=None, transform="identity")
    falling = [run(tmp_path, replace(longer, seed=seed))[0] for seed in (0, 1, 2)]
    assert finetune.loss_trend(falling).interval.high < 0
    still = [run(tmp_path, replace(QUICK, learning_rate=0.0, seed=s))[0] for s in (0, 1)]
    interval = finetune.loss_trend(still).interval
    assert (interval.low, interval.estimate, interval.high) == (0, 0, 0)
    with pytest.raises(DataError, match=r"1 seed\(s\): .* at least two"):
        finetune.loss_trend(falling[:1])


def crossed() -> Fold:
    """Both halves, each tested by what was trained on the other."""
    (split,) = made_up().splits
    back = Split(train=split.test, test=split.train)
    return replace(made_up(), splits=(split, back), n_claimed=40)


def with_losses(result, *curves):
    """A result of other losses, one curve a split."""
    pairs = zip(result.runs, curves, strict=True)
    runs = tuple(replace(one, train_loss=np.asarray(curve, float)) for one, curve in pairs)
    return replace(result, runs=runs)


def test_a_seed_counts_once_however_many_splits_it_trains_on(tmp_path):
    result, _ = run(tmp_path, fold=crossed())
    of_rate = lambda rate: 3.0 * np.exp(rate * np.arange(4))  # noqa: E731
    seeds = [
        with_losses(replace(result, config=replace(QUICK, seed=seed)), *map(of_rate, rates))
        for seed, rates in enumerate([(-0.1, -0.3), (-0.4, -0.4), (-0.5, -0.7)])
    ]
    found = finetune.loss_trend(seeds)
    expected = student_t(np.array([-0.2, -0.4, -0.6]), unit="seeds")
    assert found.interval.estimate == pytest.approx(-0.4)
    assert (found.interval.low, found.interval.high) == pytest.approx((expected.low, expected.high))
    assert (found.interval.n, found.interval.method) == (3, "Student's t over 3 seeds")
    assert found.details["seeds"] == [0, 1, 2]
    assert found.details["slopes_of_splits_by_seed"][0] == pytest.approx([-0.1, -0.3])
    assert len(found.details["train_loss"]) == 6
    assert (found.subject, found.model) == ("fake", "fake head-only")
    with pytest.raises(DataError, match="losses above 0"):
        finetune.loss_trend([seeds[0], with_losses(result, of_rate(0.1), [0.0, 1.0])])
    vanishing = with_losses(result, [1.0, 0.0], [1.0, 0.0])  # ends at less than any loss there is
    assert finetune.loss_trend([vanishing] * 2).interval.estimate == pytest.approx(np.log(1e-12))


def test_losses_that_grow_are_a_planted_fault(tmp_path):
    longer = replace(QUICK, epochs=4, patience=None)
    seeds = [run(tmp_path, replace(longer, seed=seed))[0] for seed in (0, 1)]
    before = finetune.loss_trend(seeds).interval
    growing = [finetune.with_losses_growing(result, 0.25) for result in seeds]
    after = finetune.loss_trend(growing).interval
    assert after.estimate == pytest.approx(before.estimate + 0.25)
    assert after.high - after.low == pytest.approx(before.high - before.low)
    assert finetune.loss_trend(seeds).interval == before
    assert growing[0].runs[0].train_loss[0] == seeds[0].runs[0].train_loss[0]


def test_rows_a_trend_does_not_use_are_told_apart(tmp_path):
    fold = made_up([*SALTS, [1, 9]], train=np.array([*range(10), 20]), test=np.arange(10, 20))
    config = replace(QUICK, max_train_rows=10)
    drawn = run(tmp_path, config, fold=fold)[0]
    unusable = int(20 in drawn.runs[0].train_rows)
    held = len(drawn.runs[0].validation_rows)
    found = finetune.loss_trend([drawn] * 2)
    assert found.absent == {"held back for the early stop": held, "training rows not drawn": 1}
    assert found.excluded == ({"not usable in training": 1} if unusable else {})
    assert (found.scored, found.of) == (10 - held - unusable, 11)
    resampled = run(tmp_path, replace(QUICK, bootstrap=True), fold=fold)[0]
    found = finetune.loss_trend([resampled] * 2)
    fitted = len(np.unique(resampled.runs[0].fit_rows))
    assert found.excluded == {}
    assert found.absent == {
        "not drawn by the resample, or not usable": 11 - 2 - fitted,
        "held back for the early stop": 2,
    }


def test_every_measurement_of_a_training_is_filed_under_what_was_asked_for(tmp_path):
    result, _ = run(tmp_path, test_rows=made_up().splits[0].test[:5])
    for measured in (
        finetune.changed_backbone(result),
        finetune.inversion(result),
        finetune.loss_difference(result, result),
        result.scored().mae(),
        result.start().mae(),
    ):
        assert measured.subject == "fake"
    assert finetune.inversion(result).absent == {"left out by --sample": 15}
    assert finetune.inversion(result).excluded == {}


@pytest.mark.parametrize(
    "transform", ["identity", "refit-residual", "standardise", "refit-residual+signed-log"]
)
def test_a_prediction_off_by_so_much_is_off_by_so_much_after_the_transform(tmp_path, transform):
    result, _ = run(tmp_path, replace(QUICK, transform=transform))
    shifted = result.scored().with_errors_shifted(1e-6)
    measured = finetune.inversion(result, predicted=shifted)
    assert measured.details["of_predictions_ev_per_atom"] == pytest.approx(1e-6, rel=1e-3)
    assert measured.interval.estimate == measured.details["of_predictions_ev_per_atom"]
    assert measured.details["of_targets_ev_per_atom"] < 1e-12
    assert measured.model == shifted.model
    assert finetune.inversion(result).model == "fake head-only"


def test_predictions_of_each_split_meet_their_own_transform(tmp_path):
    result, _ = run(tmp_path, replace(QUICK, transform="standardise"), fold=crossed())
    assert len(result.runs) == 2
    assert finetune.inversion(result).interval.high < 1e-9
    own = result.scored()
    turned = own.with_predictions(lambda e: np.concatenate([e[20:], e[:20]]), model="turned")
    assert finetune.inversion(result, predicted=turned).interval.estimate > 0.01


def test_nothing_scored_is_nothing_to_invert(tmp_path):
    fold = made_up([*SALTS, [1, 9]], train=np.arange(20), test=np.array([20]))
    with pytest.raises(DataError, match="fake head-only scored no row"):
        finetune.inversion(run(tmp_path, fold=fold)[0])


@pytest.mark.parametrize(
    ("n_train", "n_test", "at_most", "sample", "expected"),
    [
        (1999, 10, None, None, (16, None)),
        (2000, 10, None, None, (64, None)),
        (2000, 10, 500, None, (64, 500)),
        (2000, 10, None, 9, (64, 9)),
        (2000, 10, 500, 9, (64, 9)),
        (2000, 10, 500, 10, (64, 500)),
        (2000, 10, 5, 9, (64, 5)),
        (2000, 10, None, 10, (64, None)),
    ],
)
def test_settings_suit_the_rows_there_are(n_train, n_test, at_most, sample, expected):
    split = Split(train=np.arange(n_test, n_test + n_train), test=np.arange(n_test))
    fold = Fold(dataset=None, number=0, splits=(split,), n_claimed=n_test)
    found = finetune.suited_to(fold, at_most=at_most, sample=sample)
    assert (found.batch_structures, found.max_train_rows) == expected
    rest = replace(found, batch_structures=64, max_train_rows=None)
    assert rest == FineTune()


def test_the_smallest_split_says_whether_rows_are_few():
    def fold(*sizes):
        splits = tuple(
            Split(train=np.arange(9, 9 + size), test=np.array([i])) for i, size in enumerate(sizes)
        )
        return Fold(dataset=None, number=0, splits=splits, n_claimed=len(sizes))

    assert fold(1999).trains_on_few
    assert not fold(2000).trains_on_few
    assert fold(5000, 1999).trains_on_few
    assert not fold(5000, 2000).trains_on_few
    assert fold().trains_on_few


def test_a_head_that_did_not_move_is_a_placeholder(tmp_path):
    moved = finetune.changed_backbone(run(tmp_path)[0])
    assert (moved.interval.estimate, moved.placeholder) == (0, "")
    still = finetune.changed_backbone(run(tmp_path, replace(QUICK, learning_rate=0.0))[0])
    assert still.placeholder.startswith("the head did not change")


# --- CHGNet at tiny size -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chgnet():
    pytest.importorskip("chgnet", reason="chgnet is not installed")
    from harness.models import load_model

    return load_model("chgnet-0.3.0", "cpu")


@pytest.fixture(scope="module")
def few() -> Fold:
    """Small crystals of common elements, so that both halves hold the same ones."""
    dataset = load_dataset("thermochemistry")
    small = dataset.crystals.n_atoms <= 4
    counts = (dataset.compositions[small] > 0).sum(axis=0)
    common = ~(dataset.compositions[:, counts < 4] > 0).any(axis=1)
    part = dataset.take(np.flatnonzero(small & common)[:24])
    split = Split(train=np.arange(0, 24, 2), test=np.arange(1, 24, 2))
    return Fold(dataset=part, number=0, splits=(split,), n_claimed=12)


TINY = FineTune(epochs=2, batch_structures=4, validation_fraction=0.0)


@pytest.fixture(scope="module")
def tiny(chgnet, few, tmp_path_factory):
    """Trainings of CHGNet on a dozen crystals, each made once."""
    store = PredictionStore(tmp_path_factory.mktemp("predictions"))
    return lambda model=chgnet, **over: finetune.run(model, few, store, replace(TINY, **over))


def test_epoch_0_of_chgnet_is_its_zero_shot_refit(chgnet, few, tiny, tmp_path):
    expected = zero_shot.run(chgnet, few, PredictionStore(tmp_path), {}).scored("refit")
    for transform in ("refit-residual", "refit-residual+standardise"):
        start = tiny(transform=transform).start()
        np.testing.assert_array_equal(start.ids, expected.ids)
        np.testing.assert_allclose(
            start.predicted_ev_per_atom, expected.predicted_ev_per_atom, rtol=0, atol=2e-6
        )


def test_stored_and_fresh_features_give_the_same_losses(tiny):
    assert finetune.loss_difference(tiny(), tiny(cached=False)).interval.high < 1e-6


def test_only_the_head_changes_and_a_layer_left_trainable_is_found_out(tiny):
    result = tiny()
    assert finetune.changed_backbone(result).interval.estimate == 0
    assert {name.split(".")[0] for name in result.runs[0].changed} == {"mlp"}
    leaking = finetune.changed_backbone(tiny(also_trainable=("bond_conv_layers.0",)))
    assert leaking.interval.estimate >= 1
    changed = leaking.details["changed_outside_the_head"]
    assert {name.rsplit(".", 1)[0][:18] for name in changed} == {"bond_conv_layers.0"}


def test_the_last_convolution_is_trained_with_the_head_when_asked(tiny):
    result = tiny(head="readout+last-conv")
    assert finetune.changed_backbone(result).interval.estimate == 0
    modules = {".".join(name.split(".")[:2]) for name in result.runs[0].changed}
    assert "atom_conv_layers.3" in modules
    assert modules <= {"atom_conv_layers.3", "mlp.layers"}
    far = tiny(head="readout+last-conv", transform="identity").runs[0].train_loss
    assert far[-1] < far[0]


@pytest.mark.parametrize("start", ["pretrained", "random"])
def test_the_whole_network_trains_on_a_processor_at_tiny_size(tiny, start):
    # far from the targets at the start: a refit on a dozen rows would leave little to learn
    result = tiny(trainable="all", start=start, transform="identity")
    (only,) = result.runs
    assert only.train_loss[-1] < only.train_loss[0]
    assert {"atom_embedding", "bond_conv_layers", "mlp"} <= {n.split(".")[0] for n in only.changed}
    fixed = ("composition_model", "site_wise")  # no energy depends on these
    assert not any(name.startswith(fixed) for name in only.changed)
    assert result.name.startswith("chgnet-0.3.0")


def test_a_training_of_the_whole_network_goes_on_to_the_same_bits(chgnet, few, tiny, tmp_path):
    over = {"trainable": "all", "transform": "identity"}

    def die(what, total):
        def tick(n):
            if what.endswith("epochs") and n:
                raise KeyboardInterrupt

        return tick

    store, config = PredictionStore(tmp_path), replace(TINY, **over)
    with pytest.raises(KeyboardInterrupt):
        finetune.run(chgnet, few, store, config, progress=die)
    assert list((tmp_path / "checkpoints").glob("*/epoch-00001.ckpt"))
    same_bits(tiny(**over), finetune.run(chgnet, few, store, config))


# chgnet 0.4.2 makes a number of a tensor with a gradient; newer torch remarks on it
@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")
@pytest.mark.parametrize("start", ["pretrained", "random"])
def test_every_parameter_gets_the_gradient_that_chgnets_own_pass_gives(chgnet, few, start):
    """Symmetric crystals share kinds of atoms, moved ones do not; chgnet's graphs know neither."""
    moved = few.dataset.crystals[:3]
    moved = replace(moved, frac_coords=moved.frac_coords + 0.01 * np.sin(range(3)))
    moved = replace(moved, lattices=moved.lattices * (1 + 0.01 * np.eye(3)[0]))
    crystals = Crystals.concatenate([few.dataset.crystals[:3], moved])
    rows, factors = np.arange(len(crystals)), torch.tensor([1.0, -2.0, 0.5, -1.0, 3.0, 1.5])
    ours = TrainableCHGNet(variant(chgnet, start, 0), crystals, ("",), "cpu")
    outputs = ours.outputs(rows)
    (outputs * factors).sum().backward()

    theirs = copy.deepcopy(ours.network)
    theirs.zero_grad()
    graphs = [theirs.graph_converter(crystals.structure(row)) for row in rows]
    energies = theirs(graphs, task="e")["e"]
    expected = energies.detach().numpy() - chgnet.composition_energies(crystals)
    np.testing.assert_allclose(outputs.detach(), expected, rtol=0, atol=2e-5)
    (energies * factors).sum().backward()
    for name, parameter in theirs.named_parameters():
        if name not in ours.parameters:
            continue
        found = ours.parameters[name].grad
        if parameter.grad is None:  # no energy depends on it
            assert found is None or not found.any(), name
            continue
        difference = float((found - parameter.grad).abs().max())
        assert difference <= 1e-3 * float(parameter.grad.abs().max()) + 1e-6, name


def test_a_module_that_is_not_there_cannot_be_trained(chgnet, few):
    with pytest.raises(ConfigError, match="no module 'attention'"):
        TrainableCHGNet(chgnet, few.dataset.crystals, ("attention",), "cpu")


def test_other_starts_are_drawn_from_their_seed_alone(chgnet, few):
    crystals = few.dataset.crystals[:4]
    before = torch.random.get_rng_state()
    found = {
        (start, seed): variant(chgnet, start, seed)
        for start in ("new-last-layer", "shuffled", "random")
        for seed in (0, 1)
    }
    assert torch.equal(before, torch.random.get_rng_state())
    assert variant(chgnet, "pretrained", 0) is chgnet
    assert len({model.identity.weights_sha256 for model in found.values()}) == 6
    again = variant(chgnet, "random", 0)
    assert again.identity == found["random", 0].identity
    own = tensors_of(chgnet)
    for (start, _), model in found.items():
        assert np.isfinite(model.energies(crystals)).all()
        state = tensors_of(model)
        assert torch.equal(own["composition_model.fc.weight"], state["composition_model.fc.weight"])
        differ = {name for name in own if not torch.equal(own[name], state[name])}
        if start == "new-last-layer":
            assert differ == {"mlp.layers.7.weight", "mlp.layers.7.bias"}
        elif start == "shuffled":
            for name in differ:
                assert torch.equal(own[name].flatten().sort()[0], state[name].flatten().sort()[0])
        else:
            assert {"atom_embedding.embedding.weight", "mlp.layers.0.weight"} <= differ
    with pytest.raises(ConfigError, match="start='warm'"):
        variant(chgnet, "warm", 0)


def test_a_new_last_layer_makes_members_that_differ(tiny):
    one, other = (
        tiny(start="new-last-layer", seed=seed).scored().predicted_ev_per_atom for seed in (0, 1)
    )
    drawn = tiny(start="new-last-layer", seed=0)
    assert drawn.scored().subject == drawn.subject == "chgnet-0.3.0" != drawn.identity.name
    plain = [tiny(seed=seed).scored().predicted_ev_per_atom for seed in (0, 1)]
    assert np.abs(one - other).mean() > np.abs(plain[0] - plain[1]).mean()
