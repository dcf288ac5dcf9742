"""The composition baseline: seeded, blind to coordinates, and able to learn."""

import numpy as np
import pytest
import torch

from harness.errors import ConfigError, DataError, ModelError
from harness.models import composition
from harness.models.composition import CompositionMLP, one_cycle
from harness.models.training.checkpoints import Checkpoints

SMALL = CompositionMLP(epochs=40, width=16, batch_rows=32)


def mixtures(n, seed=0):
    draw = np.random.default_rng(seed)
    table = np.zeros((n, 118))
    for row in table:
        row[draw.choice([7, 10, 16], size=2, replace=False)] = draw.integers(1, 5, size=2)
    fractions = table / table.sum(axis=1, keepdims=True)
    return table, fractions @ np.linspace(-3, 3, 118)


def test_the_same_seed_gives_the_same_predictions_and_another_does_not():
    train, target = mixtures(80)
    test, _ = mixtures(20, seed=1)
    first, again = (SMALL.fit_predict(train, target, test) for _ in range(2))
    other = CompositionMLP(epochs=40, width=16, batch_rows=32, seed=1).fit_predict(
        train, target, test
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0


def test_global_random_state_has_no_say():
    import torch

    train, target = mixtures(80)
    torch.manual_seed(1)
    first = SMALL.fit_predict(train, target, train)
    torch.manual_seed(2)
    np.testing.assert_array_equal(first, SMALL.fit_predict(train, target, train))


def test_it_learns_what_composition_can_say():
    train, target = mixtures(200)
    test, truth = mixtures(50, seed=1)
    longer = CompositionMLP(epochs=150, width=16, batch_rows=32, learning_rate=1e-2)
    error = np.abs(longer.fit_predict(train, target, test) - truth).mean()
    assert error < 0.5 * np.abs(truth - target.mean()).mean()


def test_scale_of_the_cell_does_not_matter():
    train, target = mixtures(80)
    np.testing.assert_array_equal(
        SMALL.fit_predict(train, target, train), SMALL.fit_predict(train, target, 3 * train)
    )


def test_the_identity_follows_seed_settings_and_rows():
    identities = [
        SMALL.identity("a" * 64),
        CompositionMLP(seed=1).identity("a" * 64),
        SMALL.identity("b" * 64),
    ]
    assert len({str(identity) for identity in identities}) == 3


def test_bad_rows_and_settings_are_refused():
    train, target = mixtures(10)
    with pytest.raises(DataError, match="row 3 is not finite"):
        SMALL.fit_predict(train, np.where(np.arange(10) == 3, np.nan, target), train)
    with pytest.raises(DataError, match="no atoms"):
        SMALL.fit_predict(train, target, np.zeros((1, 118)))
    with pytest.raises(ConfigError):
        CompositionMLP(epochs=0)


def test_the_schedule_is_torchs_one_cycle():
    optimiser = torch.optim.Adam([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1.0, total_steps=57)
    for step in range(57):
        (group,) = optimiser.param_groups
        expected = (group["lr"], group["betas"][0])
        assert one_cycle(step, 57) == pytest.approx(expected, rel=1e-12)
        optimiser.step()
        if step < 56:
            schedule.step()


# --- going on after a kill


class Killed(KeyboardInterrupt):
    pass


@pytest.fixture
def every_epoch(monkeypatch):
    monkeypatch.setattr(composition, "CHECKPOINT_SECONDS", 0.0)


def killed_after(epochs):
    def on_epoch(epoch, _):
        if epoch == epochs:
            raise Killed

    return on_epoch


def saved(files):
    return sorted(path.name for path in files.folder.glob("*.ckpt"))


@pytest.mark.parametrize("after", [1, 7, 39, 40])
def test_a_killed_training_goes_on_to_the_same_bytes(tmp_path, every_epoch, after):
    (train, target), (test, _) = mixtures(80), mixtures(20, seed=1)
    whole = SMALL.fit_predict(train, target, test)
    files = Checkpoints(folder=tmp_path, key={"made": "up"})
    with pytest.raises(Killed):
        SMALL.fit_predict(train, target, test, checkpoints=files, on_epoch=killed_after(after))
    assert saved(files)[-1] == f"epoch-{after:05d}.ckpt"
    epochs = []
    resumed = SMALL.fit_predict(
        train, target, test, checkpoints=files, on_epoch=lambda epoch, _: epochs.append(epoch)
    )
    np.testing.assert_array_equal(resumed, whole)
    assert epochs == list(range(after + 1, 41))


def test_a_checkpoint_changes_nothing_and_comes_every_few_seconds(tmp_path, monkeypatch):
    train, target = mixtures(80)
    clock = iter(range(1000))  # the clock is read once at the start, and once or twice an epoch
    monkeypatch.setattr(composition.time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(composition, "CHECKPOINT_SECONDS", 3.0)
    written = []
    files = Checkpoints(folder=tmp_path, key={})
    real = Checkpoints.save
    monkeypatch.setattr(
        Checkpoints, "save", lambda self, c: (written.append(c.epoch), real(self, c))
    )
    found = SMALL.fit_predict(train, target, train, checkpoints=files)
    assert written == list(range(3, 41, 3))
    np.testing.assert_array_equal(found, SMALL.fit_predict(train, target, train))


def test_a_checkpoint_of_another_architecture_is_refused(tmp_path, every_epoch):
    train, target = mixtures(80)
    files = Checkpoints(folder=tmp_path, key={})
    with pytest.raises(Killed):
        SMALL.fit_predict(train, target, train, checkpoints=files, on_epoch=killed_after(2))
    wider = CompositionMLP(epochs=40, width=17, batch_rows=32)
    with pytest.raises(ModelError, match="the checkpoint is of another architecture"):
        wider.fit_predict(train, target, train, checkpoints=files)
