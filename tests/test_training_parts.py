"""Transforms, schedules, averages, checkpoints and the loop, each alone, against known answers."""

from __future__ import annotations

import errno
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from harness.errors import ConfigError, DataError, ModelError
from harness.models.alignment import refit
from harness.models.training import checkpoints as checkpoint_files
from harness.models.training import transforms
from harness.models.training.checkpoints import (
    Checkpoint,
    Checkpoints,
    CheckpointWarning,
    put_state,
)
from harness.models.training.ema import Average
from harness.models.training.loop import Settings, keep, outputs_of, train
from harness.models.training.schedules import SCHEDULES, Schedule
from harness.models.training.transforms import Rows

CHAINS = (
    "identity",
    "standardise",
    "signed-log",
    "refit-residual",
    "refit-residual+standardise",
    "refit-residual+signed-log",
    "refit-residual+standardise+signed-log",
)
ENERGIES = arrays(
    np.float64, 12, elements=st.floats(-60, 60, allow_nan=False, allow_subnormal=False)
)


def rows_of(seed: int = 0, n: int = 12) -> Rows:
    """Rows over three elements, each of which occurs."""
    draw = np.random.default_rng(seed)
    compositions = np.zeros((n, 118))
    compositions[:, [2, 7, 25]] = draw.integers(0, 5, (n, 3)) + np.array([1, 0, 0])
    return Rows(compositions=compositions, own_ev_per_atom=draw.normal(-5, 1, n))


# --- target transforms ---------------------------------------------------------------------------


@pytest.mark.parametrize("chain", CHAINS)
@settings(max_examples=25, deadline=None)
@given(targets=ENERGIES, start=ENERGIES, others=ENERGIES)
def test_every_transform_is_undone_by_its_inverse(chain, targets, start, others):
    rows = rows_of()
    transform = transforms.fit(chain, targets, rows, start)
    for values in (targets, others):  # fitted rows, and rows never seen
        there = transform.apply(values, rows)
        np.testing.assert_allclose(transform.invert(there, rows), values, rtol=0, atol=1e-8)
    kept = transforms.restore(chain, transform.parameters())
    np.testing.assert_array_equal(kept.apply(others, rows), transform.apply(others, rows))


@pytest.mark.parametrize("chain", CHAINS)
def test_a_transform_counts_the_rows_that_went_through(chain):
    rows, values = rows_of(), np.linspace(-2, 1, 12)
    transform = transforms.fit(chain, values, rows)
    assert set(transform.calls.values()) == {0}  # fitting is not using
    transform.apply(values, rows)
    assert set(transform.calls.values()) == {0}  # there, and not yet back
    transform.invert(values, rows)
    assert transform.calls == dict.fromkeys(chain.split("+"), 12)
    assert transform.name == chain


def test_transforms_are_no_placeholders_of_one_another():
    rows, values = rows_of(), np.random.default_rng(1).normal(-1, 1, 12)
    found = [transforms.fit(chain, values, rows).apply(values, rows) for chain in CHAINS]
    for i, one in enumerate(found):
        for other in found[:i]:
            assert np.abs(one - other).max() > 1e-3


def test_what_a_head_says_before_training_is_the_refit_alignment():
    rows, draw = rows_of(), np.random.default_rng(2)
    targets, start = draw.normal(-1, 1, 12), draw.normal(-1, 2, 12)
    total = start + rows.own_ev_per_atom
    expected = refit(total, targets, rows.compositions).formation_energies(total, rows.compositions)
    transform = transforms.fit("refit-residual", targets, rows, start)
    np.testing.assert_allclose(transform.invert(start, rows), expected, rtol=0, atol=1e-12)
    standardised = transforms.fit("refit-residual+standardise", targets, rows, start)
    offset, factor = standardised.output_scale
    np.testing.assert_allclose(
        standardised.invert((start - offset) / factor, rows), expected, rtol=0, atol=1e-12
    )
    for chain in ("identity", "standardise", "refit-residual+signed-log"):
        assert transforms.fit(chain, targets, rows, start).output_scale is None


def test_standardised_targets_have_mean_0_and_spread_1():
    values = np.random.default_rng(3).normal(-1.7, 0.4, 12)
    found = transforms.fit("standardise", values, rows_of()).apply(values, rows_of())
    assert (found.mean(), found.std()) == (pytest.approx(0), pytest.approx(1))


def test_a_signed_log_keeps_signs_and_is_steepest_at_zero():
    values = np.array([-100.0, -1.0, 0.0, 1.0, 100.0])
    rows = rows_of(n=5)
    found = transforms.fit("signed-log", values, rows).apply(values, rows)
    np.testing.assert_array_equal(np.sign(found), np.sign(values))
    np.testing.assert_allclose(found[[3, 4]], [math.log(2), math.log(101)])


def test_an_element_no_training_row_has_is_nan_and_named():
    rows = rows_of()
    transform = transforms.fit("refit-residual", np.zeros(12), rows)
    stranger = np.zeros((1, 118))
    stranger[0, [2, 93]] = 1
    unseen = Rows(compositions=stranger, own_ev_per_atom=np.zeros(1))
    assert np.isnan(transform.invert(np.zeros(1), unseen)).all()
    assert transform.missing(stranger) == ["Pu"]
    assert transforms.fit("identity", np.zeros(12), rows).missing(stranger) == []


def test_equal_targets_do_not_divide_by_zero():
    for chain in CHAINS:
        transform = transforms.fit(chain, np.zeros(12), rows_of())
        assert np.isfinite(transform.apply(np.zeros(12), rows_of())).all()


@pytest.mark.parametrize("name", ["log", "standardise+refit-residual", "", "identity+"])
def test_unknown_and_misplaced_stages_are_refused(name):
    with pytest.raises(ConfigError, match="target transform"):
        transforms.parse(name)


@pytest.mark.parametrize("targets", [[], [0.0, np.nan]])
def test_transforms_refuse_targets_they_cannot_be_fitted_to(targets):
    with pytest.raises(DataError, match="only finite targets"):
        transforms.fit("identity", np.array(targets), rows_of(n=len(targets)))


# --- schedules -----------------------------------------------------------------------------------


@pytest.mark.parametrize("n_steps", [10, 37, 400])
def test_one_cycle_is_torchs(n_steps):
    weight = torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.Adam([weight], 1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1.0, total_steps=n_steps)
    ours = Schedule(name="one-cycle", n_steps=n_steps)
    for step in range(n_steps):
        assert ours.factor(step) == pytest.approx(optimiser.param_groups[0]["lr"], rel=1e-9)
        optimiser.step()
        if step + 1 < n_steps:
            theirs.step()
    assert ours.calls == n_steps


def test_a_cosine_starts_at_one_and_passes_a_half_midway():
    cosine = Schedule(name="cosine", n_steps=100)
    assert [cosine.factor(0), cosine.factor(50)] == pytest.approx([1, 0.5])
    assert 0 < cosine.factor(99) < 0.001
    assert {Schedule(name="constant", n_steps=9).factor(i) for i in range(9)} == {1.0}


@given(st.sampled_from(list(SCHEDULES)), st.integers(1, 500))
def test_factors_lie_between_zero_and_one(name, n_steps):
    schedule = Schedule(name=name, n_steps=n_steps)
    factors = [schedule.factor(step) for step in range(n_steps)]
    assert all(0 <= factor <= 1 + 1e-12 for factor in factors)


def test_a_step_beyond_the_schedule_is_refused():
    with pytest.raises(ConfigError, match="over 3 steps"):
        Schedule(name="cosine", n_steps=3).factor(3)
    with pytest.raises(ConfigError, match="unknown"):
        Schedule(name="linear", n_steps=3)


# --- averages ------------------------------------------------------------------------------------


def test_an_average_follows_its_formula():
    weight = torch.tensor([1.0])
    average = Average({"w": weight}, 0.9)
    expected = 1.0
    for t, value in enumerate((2.0, -1.0, 5.0), start=1):
        weight.fill_(value)
        average.update({"w": weight})
        keep_ = min(0.9, (1 + t) / (10 + t))
        expected = keep_ * expected + (1 - keep_) * value
    assert average.shadow["w"].item() == pytest.approx(expected)
    assert average.calls == 3
    assert weight.item() == 5.0  # the parameters themselves are left alone


@pytest.mark.parametrize("decay", [-0.1, 1.0, 2.0])
def test_a_decay_that_averages_nothing_is_refused(decay):
    with pytest.raises(ConfigError, match=r"\[0, 1\)"):
        Average({}, decay)


# --- checkpoints ---------------------------------------------------------------------------------


def a_checkpoint(epoch: int = 1) -> Checkpoint:
    tensors = {"parameter:w": torch.full((2, 3), float(epoch)), "generator": torch.ones(4).byte()}
    return Checkpoint(epoch=epoch, tensors=tensors, record={"curves": {"train_loss": [0.1, None]}})


def test_a_checkpoint_comes_back_as_it_was_and_two_are_kept(tmp_path):
    files = Checkpoints(folder=tmp_path, key={"seed": 0})
    for epoch in range(1, 5):
        files.save(a_checkpoint(epoch))
    found = files.last()
    assert (found.epoch, dict(found.record)) == (4, {"curves": {"train_loss": [0.1, None]}})
    assert torch.equal(found.tensors["parameter:w"], torch.full((2, 3), 4.0))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["epoch-00003.ckpt", "epoch-00004.ckpt"]
    files.discard()
    assert files.last() is None


@pytest.mark.parametrize("damage", ["cut", "bit", "header", "text"])
def test_a_damaged_checkpoint_is_passed_over(tmp_path, damage):
    files = Checkpoints(folder=tmp_path, key={"seed": 0})
    files.save(a_checkpoint(1))
    path = files.save(a_checkpoint(2))
    raw = bytearray(path.read_bytes())
    if damage == "cut":
        raw = raw[: len(raw) // 2]
    elif damage == "bit":
        raw[-10] ^= 1
    elif damage == "header":
        raw = raw.replace(b'"epoch": 2', b'"epoch": 3')
    else:
        raw = bytearray(b"hello")
    path.write_bytes(raw)
    with pytest.warns(CheckpointWarning, match=r"epoch-00002.ckpt cannot be used"):
        assert files.last().epoch == 1


def test_the_checkpoint_of_another_training_is_refused_with_what_differs(tmp_path):
    Checkpoints(folder=tmp_path, key={"identity": {"seed": 0, "width": 64}}).save(a_checkpoint())
    with pytest.raises(DataError, match=r"identity.seed is 0 there and 1 here"):
        Checkpoints(folder=tmp_path, key={"identity": {"seed": 1, "width": 64}}).last()


def test_a_full_disk_says_so_and_leaves_the_earlier_checkpoint(tmp_path, monkeypatch):
    files = Checkpoints(folder=tmp_path, key={"seed": 0})
    files.save(a_checkpoint(1))

    def full(path, write):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint_files, "write_atomically", full)
    with pytest.warns(CheckpointWarning, match=r"No space left on device.*from an earlier epoch"):
        files.save(a_checkpoint(2))
    assert files.last().epoch == 1


def test_the_state_of_another_architecture_is_refused():
    ours = {"w": torch.zeros(2, 3)}
    with pytest.raises(ModelError, match=r"w has shape \(3, 3\) there and \(2, 3\) here"):
        put_state({"w": torch.ones(3, 3)}, ours, "it")
    with pytest.raises(ModelError, match=r"v has shape \(1,\) there and None here"):
        put_state({"w": torch.ones(2, 3), "v": torch.ones(1)}, ours, "it")
    assert torch.equal(ours["w"], torch.zeros(2, 3))


# --- the loop ------------------------------------------------------------------------------------


class Line:
    """outputs = x w, the simplest thing that can be trained."""

    def __init__(self, x: np.ndarray) -> None:
        self.x = torch.from_numpy(x.astype(np.float32))
        self.parameters = {"w": torch.nn.Parameter(torch.zeros(x.shape[1]))}
        self.seen: set[int] = set()

    def outputs(self, rows: np.ndarray) -> torch.Tensor:
        if torch.is_grad_enabled():
            self.seen |= set(rows.tolist())
        return self.x[torch.from_numpy(rows)] @ self.parameters["w"]

    def pieces(self, rows: np.ndarray) -> list[np.ndarray]:
        return np.array_split(rows, 2) if len(rows) > 1 else [rows]


N = 60
X = np.random.default_rng(0).normal(size=(N, 3))
Y = X @ np.array([1.0, -2.0, 0.5])
FITTED, HELD = np.arange(40), np.arange(40, 50)
BASE = {
    "epochs": 6,
    "learning_rate": 0.05,
    "batch_structures": 8,
    "loss": "mae",
    "huber_delta": 0.1,
    "schedule": "constant",
    "ema": None,
    "patience": None,
    "seed": 0,
}


def fit_line(*, held=HELD, line=None, files=None, on_epoch=None, targets=Y, fitted=FITTED, **over):
    line = Line(X) if line is None else line
    return line, train(
        line,
        targets,
        fitted,
        held,
        Settings(**{**BASE, **over}),
        error=lambda rows, outputs: float(np.abs(outputs - targets[rows]).mean()),
        checkpoints=files,
        on_epoch=on_epoch,
    )


def test_a_line_is_learned_and_held_rows_are_never_fitted():
    line, trained = fit_line(epochs=60)
    np.testing.assert_allclose(trained.state["w"], [1, -2, 0.5], atol=0.05)
    assert line.seen == set(FITTED.tolist())
    assert len(trained.train_loss) == 61
    assert trained.calls["steps"] == 60 * 5 == trained.calls["schedule:constant"]


@pytest.mark.parametrize("loss", ["mae", "huber"])
def test_both_losses_fall_and_differ(loss):
    _, trained = fit_line(loss=loss)
    assert trained.train_loss[-1] < 0.8 * trained.train_loss[0]
    other = fit_line(loss={"mae": "huber", "huber": "mae"}[loss])[1]
    assert np.abs(trained.state["w"] - other.state["w"]).max() > 1e-4


def test_pieces_of_a_batch_add_up_to_the_batch():
    class Whole(Line):
        def pieces(self, rows):
            return [rows]

    whole, parts = fit_line(line=Whole(X))[1], fit_line()[1]
    np.testing.assert_allclose(whole.train_loss, parts.train_loss, rtol=1e-5)


def test_a_learning_rate_of_zero_leaves_losses_exactly_as_they_were():
    _, trained = fit_line(learning_rate=0.0)
    assert set(trained.train_loss) == {trained.train_loss[0]}


def test_seeds_decide_the_order_zero_included():
    orders = [fit_line(seed=seed)[1].order_sha256 for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]


def test_training_draws_nothing_from_the_global_generator():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    fit_line()
    assert torch.equal(before, torch.random.get_rng_state())


def test_an_early_stop_keeps_the_best_epoch():
    wrong = Y.copy()
    wrong[HELD] = -Y[HELD]  # what helps the fitted rows harms those held back
    _, trained = fit_line(targets=wrong, patience=2, epochs=30)
    assert trained.stopped_early
    assert trained.best_epoch == 1
    assert len(trained.learning_rates) == 3
    line = Line(X)
    keep(trained.state, line)
    held = np.abs(outputs_of(line, HELD) - wrong[HELD]).mean()
    assert held == pytest.approx(trained.validation_error[1])


def test_without_held_rows_the_last_epoch_is_kept():
    _, trained = fit_line(held=np.empty(0, np.int64), patience=1)
    assert (trained.best_epoch, trained.stopped_early) == (6, False)
    assert np.isnan(trained.validation_error).all()


def test_the_schedule_reaches_the_optimiser():
    _, trained = fit_line(schedule="cosine")
    assert trained.learning_rates[0] > 5 * trained.learning_rates[-1]
    assert "schedule:constant" not in trained.calls


def test_an_average_is_what_is_kept_and_judged():
    plain, averaged = fit_line(seed=1)[1], fit_line(seed=1, ema=0.99)[1]
    assert averaged.calls["ema"] == averaged.calls["steps"]
    assert np.abs(plain.state["w"] - averaged.state["w"]).max() > 1e-3
    assert plain.train_loss[0] == averaged.train_loss[0]
    line = Line(X)
    keep(averaged.state, line)
    loss = np.abs(outputs_of(line, FITTED) - Y[FITTED]).mean()
    assert loss == pytest.approx(averaged.train_loss[averaged.best_epoch], rel=1e-5)


@pytest.mark.parametrize("over", [{}, {"ema": 0.9, "schedule": "one-cycle", "loss": "huber"}])
@pytest.mark.parametrize("after", [1, 4])
def test_a_killed_training_goes_on_to_the_same_bits(tmp_path, over, after):
    undisturbed = fit_line(**over)[1]
    files = Checkpoints(folder=tmp_path, key={"line": 1})
    done = 0

    def die(n):
        nonlocal done
        done += n
        if done == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_line(files=files, on_epoch=die, **over)
    told: list[int] = []
    resumed = fit_line(files=files, on_epoch=told.append, **over)[1]
    assert told[0] == after
    assert sum(told) == 6
    np.testing.assert_array_equal(undisturbed.state["w"], resumed.state["w"])
    np.testing.assert_array_equal(undisturbed.train_loss, resumed.train_loss)
    assert undisturbed.order_sha256 == resumed.order_sha256
    assert undisturbed.calls == resumed.calls


def test_a_checkpoint_of_another_architecture_is_refused(tmp_path):
    files = Checkpoints(folder=tmp_path, key={"line": 1})
    fit_line(files=files)
    with pytest.raises(ModelError, match=r"w has shape \(3,\) there and \(2,\) here"):
        fit_line(files=files, line=Line(X[:, :2]))


def test_the_loop_refuses_what_it_cannot_train_on():
    with pytest.raises(DataError, match="no rows to train on"):
        fit_line(fitted=np.empty(0, np.int64))
    with pytest.raises(DataError, match="fitted and held back"):
        fit_line(held=np.array([3]))
    broken = Y.copy()
    broken[7] = np.nan
    with pytest.raises(DataError, match="1 training targets are not finite, first at row 7"):
        fit_line(targets=broken)
    with pytest.raises(ModelError, match=r"became .* lower learning_rate"):
        fit_line(line=Line(X * 1e38), learning_rate=10.0)


@pytest.mark.parametrize(
    ("over", "says"),
    [
        ({"epochs": 0}, "epochs=0"),
        ({"batch_structures": 0}, "batch_structures=0"),
        ({"learning_rate": -1.0}, "not negative"),
        ({"learning_rate": np.nan}, "finite"),
        ({"loss": "mse"}, "loss='mse'"),
        ({"huber_delta": 0.0}, "delta is positive"),
        ({"schedule": "linear"}, "schedule='linear'"),
        ({"ema": 1.0}, "ema=1.0"),
        ({"patience": 0}, "patience=0"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(over, says):
    with pytest.raises(ConfigError, match=says):
        Settings(**{**BASE, **over})
