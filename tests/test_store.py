"""Predictions are computed once, survive a kill to the same bytes, and are never trusted unread."""

import threading
import time

import numpy as np
import pytest

from harness.errors import ConfigError
from harness.models import alignment
from harness.models.protocol import Identity
from harness.models.training.checkpoints import Checkpoint
from harness.store import PredictionStore, StoreWarning, refit_once
from tests.fakes import SumOfNumbers, cubes

CRYSTALS = cubes([[11, 17], [12, 8], [3, 9], [1, 3], [14], [31, 33], [13], [29]])


def files(root):
    return {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_second_session_computes_nothing(tmp_path):
    first, second = PredictionStore(tmp_path), PredictionStore(tmp_path)
    computed = first.energies(SumOfNumbers(), CRYSTALS)
    model = SumOfNumbers()
    stored = second.energies(model, CRYSTALS)
    assert model.asked == []
    assert second.traffic.computed == 0
    assert second.traffic.found == len(CRYSTALS)
    np.testing.assert_array_equal(stored.energy, computed.energy)
    assert stored.problems == computed.problems == {3: "1 isolated atom"}


def test_any_selection_of_known_rows_is_found(tmp_path):
    PredictionStore(tmp_path).energies(SumOfNumbers(), CRYSTALS)
    model, rows = SumOfNumbers(), np.array([6, 0, 5])
    stored = PredictionStore(tmp_path).energies(model, CRYSTALS[rows])
    assert model.asked == []
    np.testing.assert_array_equal(stored.energy, SumOfNumbers().predict(CRYSTALS[rows]).energy)


def test_a_killed_session_is_completed_to_the_same_bytes(tmp_path):
    undisturbed, killed = tmp_path / "a", tmp_path / "b"
    PredictionStore(undisturbed).energies(SumOfNumbers(), CRYSTALS)
    model = SumOfNumbers()
    model.die_after = 1
    with pytest.raises(KeyboardInterrupt):
        PredictionStore(killed).energies(model, CRYSTALS)
    assert len(files(killed)) == 1
    again = SumOfNumbers()
    PredictionStore(killed).energies(again, CRYSTALS)
    assert again.asked == [3, 2]
    assert files(killed) == files(undisturbed)


def test_what_a_session_read_is_what_the_next_one_reads(tmp_path):
    """A batch's own file counts, whatever roundings the same rows have in other batches."""
    first, second = CRYSTALS[np.array([0, 1, 2])], CRYSTALS[np.array([2, 1, 0, 7])]
    model = SumOfNumbers()
    cold = [PredictionStore(tmp_path).energies(model, rows).energy for rows in (first, second)]
    other = PredictionStore(tmp_path)
    for rows, energies in zip((first, second), cold, strict=True):
        np.testing.assert_array_equal(other.energies(model, rows).energy, energies)
    assert other.traffic.computed == 0


def test_rows_known_from_other_batches_get_a_file_of_their_own(tmp_path):
    model = SumOfNumbers()
    PredictionStore(tmp_path).energies(model, CRYSTALS)
    before = set(tmp_path.rglob("*.npz"))
    PredictionStore(tmp_path).energies(model, CRYSTALS[np.array([6, 0, 5])])
    (new,) = set(tmp_path.rglob("*.npz")) - before
    for path in before:
        path.unlink()
    asked = len(model.asked)
    PredictionStore(tmp_path).energies(model, CRYSTALS[np.array([6, 0, 5])])
    assert len(model.asked) == asked
    assert new.exists()


@pytest.mark.parametrize("properties", [("forces",), ("energy", "stress", "forces"), ("magmoms",)])
def test_forces_stress_and_moments_are_kept_as_well(tmp_path, properties):
    computed = PredictionStore(tmp_path).predict(SumOfNumbers(), CRYSTALS, properties)
    model = SumOfNumbers()
    stored = PredictionStore(tmp_path).predict(model, CRYSTALS, properties)
    assert model.asked == []
    direct = model.predict(CRYSTALS, ("energy", *properties))
    for prediction in (computed, stored):
        np.testing.assert_array_equal(prediction.energy, direct.energy)
        assert prediction.problems == direct.problems
        for name in ("forces", "stress", "magmoms"):
            mine, theirs = getattr(prediction, name), getattr(direct, name)
            assert (mine is None) == (theirs is None) == (name not in properties)
            if name in properties:
                assert len(mine) == len(CRYSTALS)
                for a, b in zip(mine, theirs, strict=True):
                    np.testing.assert_array_equal(a, b)


def test_a_property_nobody_has_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="charges"):
        PredictionStore(tmp_path).predict(SumOfNumbers(), CRYSTALS, ("charges",))


def test_other_weights_are_another_address(tmp_path):
    PredictionStore(tmp_path).energies(SumOfNumbers(), CRYSTALS)
    model = SumOfNumbers(weights="b" * 64)
    PredictionStore(tmp_path).energies(model, CRYSTALS)
    assert sum(model.asked) == len(CRYSTALS)


def flip_a_bit(path, other):
    content = path.read_bytes()
    with np.load(path) as stored:
        energies = stored["energy"].tobytes()
    flipped = bytes([energies[0] ^ 1]) + energies[1:]
    path.write_bytes(content.replace(energies, flipped))


def cut_short(path, other):
    path.write_bytes(path.read_bytes()[:-20])


def empty(path, other):
    path.write_bytes(b"")


def from_another_model(path, other):
    path.write_bytes(other.read_bytes())


@pytest.mark.parametrize("damage", [flip_a_bit, cut_short, empty, from_another_model])
def test_a_damaged_or_stale_file_is_found_and_computed_again(tmp_path, damage):
    PredictionStore(tmp_path / "other").energies(SumOfNumbers(weights="b" * 64), CRYSTALS)
    PredictionStore(tmp_path / "mine").energies(SumOfNumbers(), CRYSTALS)
    before = files(tmp_path / "mine")
    mine = min((tmp_path / "mine").rglob("*.npz"))
    damage(mine, min((tmp_path / "other").rglob("*.npz")))
    with pytest.warns(StoreWarning, match="computed again"):
        stored = PredictionStore(tmp_path / "mine").energies(SumOfNumbers(), CRYSTALS)
    np.testing.assert_array_equal(stored.energy, SumOfNumbers().predict(CRYSTALS).energy)
    assert files(tmp_path / "mine") == before


def test_arrays_are_computed_once_for_their_inputs(tmp_path):
    calls = []

    def compute():
        calls.append(1)
        return {"e": np.arange(3.0)}

    identity = Identity(name="m", weights_sha256="c" * 64)
    for _ in range(2):
        stored = PredictionStore(tmp_path).arrays(identity, {"rows": "x"}, compute)
        np.testing.assert_array_equal(stored["e"], np.arange(3.0))
    PredictionStore(tmp_path).arrays(identity, {"rows": "y"}, compute)
    assert len(calls) == 2


def test_where_nothing_can_be_written_a_session_goes_on_from_memory_with_one_remark(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    store, model = PredictionStore(blocked), SumOfNumbers()
    with pytest.warns(StoreWarning, match="could not write .*file.*from memory") as told:
        found = store.energies(model, CRYSTALS)
    assert len(told) == 1  # of three files
    store.predict(model, CRYSTALS, ("forces",))
    store.arrays(WHO, INPUTS, lambda: {"e": np.ones(2)})
    np.testing.assert_array_equal(found.energy, SumOfNumbers().predict(CRYSTALS).energy)
    asked = list(model.asked)
    again = store.energies(model, CRYSTALS)
    np.testing.assert_array_equal(again.energy, found.energy)
    assert again.problems == found.problems
    assert store.predict(model, CRYSTALS, ("forces",)).forces is not None
    kept = store.arrays(WHO, INPUTS, lambda: pytest.fail("computed again"))
    np.testing.assert_array_equal(kept["e"], np.ones(2))
    assert model.asked == asked
    assert blocked.read_text() == "not a folder"


# --- trainings

WHO = Identity(name="trained", weights_sha256="d" * 64)
INPUTS = {"rows": "x"}


def epoch(number):
    import torch

    return Checkpoint(epoch=number, tensors={"w": torch.tensor([float(number)])})


def test_a_training_is_done_once_and_leaves_no_checkpoint(tmp_path):
    seen = []

    def train(checkpoints):
        seen.append(checkpoints.last())
        checkpoints.save(epoch(1))
        return {"e": np.arange(2.0)}

    for found, computed in ((0, 1), (1, 0)):
        store = PredictionStore(tmp_path)
        np.testing.assert_array_equal(store.trained(WHO, INPUTS, train)["e"], [0, 1])
        assert (store.traffic.found, store.traffic.computed) == (found, computed)
    assert seen == [None]
    assert list((tmp_path / "checkpoints").iterdir()) == []
    # what `arrays` finds is the same entry
    kept = PredictionStore(tmp_path).arrays(WHO, INPUTS, lambda: pytest.fail("trained again"))
    np.testing.assert_array_equal(kept["e"], [0, 1])


def test_a_training_that_was_killed_goes_on_and_another_one_does_not(tmp_path):
    def dies(checkpoints):
        checkpoints.save(epoch(3))
        raise KeyboardInterrupt

    store = PredictionStore(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        store.trained(WHO, INPUTS, dies)
    seen = []

    def goes_on(checkpoints):
        seen.append(checkpoints.last())
        return {"e": np.zeros(1)}

    store.trained(WHO, {"rows": "y"}, goes_on)
    store.trained(Identity(name="another", weights_sha256="d" * 64), INPUTS, goes_on)
    store.trained(WHO, INPUTS, goes_on)
    assert [None if found is None else found.epoch for found in seen] == [None, None, 3]


def test_of_two_sessions_one_trains_and_the_other_waits_and_reads(tmp_path):
    begun, go_on, calls, results = threading.Event(), threading.Event(), [], []

    def train(checkpoints):
        calls.append(checkpoints.save(epoch(1)))
        begun.set()
        assert go_on.wait(30)
        assert checkpoints.last().epoch == 1  # nobody has swept it away
        return {"e": np.array([7.0])}

    def session():
        results.append(PredictionStore(tmp_path).trained(WHO, INPUTS, train)["e"])

    sessions = [threading.Thread(target=session) for _ in range(2)]
    sessions[0].start()
    assert begun.wait(30)
    sessions[1].start()
    time.sleep(0.3)
    assert len(calls) == 1
    assert results == []
    # another training is not waited for
    PredictionStore(tmp_path).trained(WHO, {"rows": "y"}, lambda _: {"e": np.zeros(1)})
    go_on.set()
    for each in sessions:
        each.join(30)
    assert len(calls) == 1
    np.testing.assert_array_equal(results, [[7.0], [7.0]])


def test_a_stored_training_is_read_where_no_lock_can_be_made(tmp_path):
    store = PredictionStore(tmp_path)
    store.trained(WHO, INPUTS, lambda _: {"e": np.zeros(1)})
    for path in (tmp_path / "locks").iterdir():
        path.unlink()
    (tmp_path / "locks").rmdir()
    (tmp_path / "locks").write_text("no folder")
    store.trained(WHO, INPUTS, lambda _: pytest.fail("trained again"))
    with pytest.warns(
        StoreWarning, match=r"could not write .*locks.*; what was stored before is in"
    ):
        found = store.trained(WHO, {"rows": "y"}, lambda _: {"e": np.ones(1)})
    np.testing.assert_array_equal(found["e"], np.ones(1))


def test_a_training_that_breaks_leaves_the_lock_to_the_next(tmp_path):
    store = PredictionStore(tmp_path)
    with pytest.raises(ZeroDivisionError):
        store.trained(WHO, INPUTS, lambda _: {"e": np.zeros(1 // 0)})
    assert store.trained(WHO, INPUTS, lambda _: {"e": np.ones(1)})["e"] == 1


def test_a_refit_is_kept_for_its_rows_and_its_engine(tmp_path, monkeypatch):
    compositions = np.zeros((3, 118))
    compositions[:, 10] = 1
    rows = (np.array([1.0, 2.0, 9.0]), np.zeros(3), compositions)
    first = refit_once(PredictionStore(tmp_path), *rows)
    assert first.name == "refit"
    assert first.energies_ev_per_atom[10] == pytest.approx(2)
    assert np.isnan(first.energies_ev_per_atom[0])
    store = PredictionStore(tmp_path)
    again = refit_once(store, *rows)
    assert (store.traffic.found, store.traffic.computed) == (1, 0)
    np.testing.assert_array_equal(again.energies_ev_per_atom, first.energies_ev_per_atom)
    monkeypatch.setattr(alignment, "QUANTILE", 0.9)
    other = refit_once(PredictionStore(tmp_path), *rows)
    assert other.energies_ev_per_atom[10] == pytest.approx(9)
    moved = (rows[0] + 1, *rows[1:])
    assert refit_once(store, *moved).energies_ev_per_atom[10] == pytest.approx(10)
