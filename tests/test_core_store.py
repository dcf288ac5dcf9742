"""The store to the letter: what files are called and say, what is borrowed, what is counted."""

import hashlib
import json
import warnings

import filelock
import numpy as np
import pytest

from harness import store as module
from harness.data.columns import read_columns
from harness.errors import ModelError
from harness.models.protocol import Identity
from harness.store import OPTIONAL, PredictionStore, StoreWarning, refit_once, row_digest
from tests.fakes import SumOfNumbers, cubes

CRYSTALS = cubes([[11, 17], [12, 8], [3, 9], [1, 3], [14], [31, 33], [13], [29]])
WHO = Identity(name="trained", weights_sha256="d" * 64, settings={"epochs": 3})


class Rounded(SumOfNumbers):
    """Its energies depend a little on what else is in the batch, as those of float32 sums do."""

    def predict(self, crystals, properties=("energy",)):
        found = super().predict(crystals, properties)
        found.energy[:] += 1e-6 * len(crystals) + 1e-9 * crystals.numbers.sum()
        return found


def named(key):
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]


def files(root):
    return sorted(str(path.relative_to(root)) for path in root.rglob("*.npz"))


# --- what is on disk, which an older session wrote and a later one finds


@pytest.mark.parametrize("properties", [(), ("forces",), ("magmoms", "forces", "stress")])
def test_a_prediction_is_found_under_its_model_and_its_rows(tmp_path, properties):
    model = SumOfNumbers()
    store = PredictionStore(tmp_path)
    asked = ["energy", *(name for name in OPTIONAL if name in properties)]
    if properties:
        store.predict(model, CRYSTALS, properties)
    else:
        store.energies(model, CRYSTALS)
    identity, hashes = model.identity.addressed(), CRYSTALS.row_hashes()
    folder = named(identity) + (f"/{'-'.join(asked)}" if properties else "")
    batches = [hashes[i : i + 3] for i in (0, 3, 6)]
    assert files(tmp_path) == sorted(f"{folder}/{named(b.tobytes().hex())}.npz" for b in batches)
    arrays, header = read_columns(tmp_path / folder / f"{named(batches[1].tobytes().hex())}.npz")
    key = {"identity": identity} | ({"properties": asked} if properties else {})
    assert header == {"format": "mlip-claims predictions 1", "key": key}
    assert sorted(arrays) == sorted(["rows", "problem", *asked])
    np.testing.assert_array_equal(arrays["rows"], batches[1])
    assert arrays["problem"].tolist() == ["1 isolated atom", "", ""]
    assert arrays["energy"].dtype == np.float64
    assert {arrays[name].dtype for name in asked} == {np.dtype(np.float64)}
    shapes = {"forces": (5, 3), "stress": (3, 3, 3), "magmoms": (5,)}
    assert all(arrays[name].shape == shapes[name] for name in asked[1:])


def test_energies_alone_are_energies_however_they_are_asked_for(tmp_path):
    store = PredictionStore(tmp_path)
    store.predict(SumOfNumbers(), CRYSTALS, ())
    again = SumOfNumbers()
    store.energies(again, CRYSTALS)
    store.predict(again, CRYSTALS, ("energy",))
    assert again.asked == []


def test_what_is_asked_for_where_nothing_is_said(tmp_path):
    found = PredictionStore(tmp_path).predict(SumOfNumbers(), CRYSTALS)
    assert found.forces is not None
    assert found.stress is not None
    assert found.magmoms is None


def test_results_of_trained_subjects_are_found_under_identity_and_inputs(tmp_path):
    store, inputs = PredictionStore(tmp_path), {"rows": "x"}
    store.arrays(WHO, inputs, lambda: {"e": [1, 2]})
    key = {"identity": WHO.addressed(), "inputs": inputs}
    assert files(tmp_path) == [f"arrays/{named(key)}.npz"]
    arrays, header = read_columns(tmp_path / files(tmp_path)[0])
    assert header == {"format": "mlip-claims predictions 1", "key": key}
    np.testing.assert_array_equal(arrays["e"], [1, 2])


def test_a_training_has_one_name_for_its_checkpoints_and_its_lock(tmp_path):
    def train(checkpoints):
        name = checkpoints.folder.name
        assert checkpoints.folder == tmp_path / "checkpoints" / name
        assert checkpoints.key == {"identity": WHO.addressed(), "inputs": {"rows": "x"}}
        assert len(name) == 16
        assert [path.name for path in (tmp_path / "locks").iterdir()] == [f"{name}.lock"]
        return {"e": np.zeros(1)}

    PredictionStore(tmp_path).trained(WHO, {"rows": "x"}, train)


def test_a_refit_is_found_under_its_rows_in_their_order(tmp_path):
    compositions = np.zeros((2, 118))
    compositions[:, 7] = 1
    total, targets = np.array([1.0, 2.0]), np.array([0.5, 0.5])
    refit_once(PredictionStore(tmp_path), total, targets, compositions)
    (path,) = tmp_path.rglob("*.npz")
    identity = read_columns(path)[1]["key"]["identity"]
    assert identity["name"] == "refit"
    assert identity["weights_sha256"] == row_digest(total, targets, compositions)


def test_a_digest_is_of_bytes_and_of_what_they_mean():
    values = np.array([1.0, 2.0, 3.0, 4.0])
    digest = hashlib.sha256(b"<f8(4,)" + values.tobytes()).hexdigest()
    assert row_digest(values) == digest
    assert row_digest(values.reshape(2, 2)) != digest
    assert row_digest(values.view(np.int64)) != digest
    assert row_digest(values[:2], values[2:]) != digest
    assert row_digest(np.array([[1.0, 9.0], [2.0, 9.0]])[:, 0]) == row_digest(values[:2])
    both = hashlib.sha256(b"<f8(2,)" + values[:2].tobytes() + b"<U2(2,)")
    both.update(np.array(["a", "bc"]).tobytes())
    assert row_digest(values[:2], ["a", "bc"]) == both.hexdigest()


# --- what is put together from other batches


def test_a_batch_is_borrowed_beside_one_that_has_its_own_file(tmp_path):
    model = Rounded()
    first = PredictionStore(tmp_path).energies(model, CRYSTALS)
    rows = np.array([0, 1, 2, 6, 0, 5])  # one batch as it was, one of rows from elsewhere
    again = Rounded()
    found = PredictionStore(tmp_path).energies(again, CRYSTALS[rows])
    assert again.asked == []
    np.testing.assert_array_equal(found.energy, first.energy[rows])


def test_a_batch_with_one_unknown_row_is_computed_whole(tmp_path):
    PredictionStore(tmp_path).energies(Rounded(), CRYSTALS[np.array([0, 1])])
    model = Rounded()
    found = PredictionStore(tmp_path).energies(model, CRYSTALS[np.array([0, 1, 7])])
    assert model.asked == [3]
    direct = Rounded().predict(CRYSTALS[np.array([0, 1, 7])])
    np.testing.assert_array_equal(found.energy, direct.energy)


def test_a_batchs_own_file_counts_beside_others_that_hold_its_rows(tmp_path):
    """Not even a batch that could be borrowed whole is, where it has a file of its own."""
    own, other = CRYSTALS[np.array([0, 1, 2])], CRYSTALS[np.array([2, 0, 1])]
    both = CRYSTALS[np.array([0, 1, 2, 5, 2, 0])]
    store = PredictionStore(tmp_path)
    first = store.energies(Rounded(), own)
    store.energies(Rounded(batch_rows=2), other)  # the same rows, rounded otherwise
    store.energies(Rounded(), CRYSTALS[np.array([5])])
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npz")}
    found = PredictionStore(tmp_path).energies(Rounded(), both)
    np.testing.assert_array_equal(found.energy[:3], first.energy)
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())


def test_of_several_files_that_hold_a_row_the_last_by_name_is_borrowed_from(tmp_path):
    store = PredictionStore(tmp_path)
    for i in range(1, 8):  # row 0 in seven batches, each with a rounding of its own
        store.energies(Rounded(), CRYSTALS[np.array([0, i])])
    last = read_columns(max(tmp_path.rglob("*.npz")))[0]
    row = CRYSTALS[np.array([0])].row_hashes()[0].tobytes()
    (place,) = [i for i, other in enumerate(last["rows"]) if other.tobytes() == row]
    model = Rounded()
    found = PredictionStore(tmp_path).energies(model, CRYSTALS[np.array([0])])
    assert model.asked == []
    assert found.energy[0] == last["energy"][place]


def test_forces_are_never_borrowed(tmp_path):
    store, rows = PredictionStore(tmp_path), np.array([6, 0, 5])
    store.predict(Rounded(), CRYSTALS, ("forces",))
    model = Rounded()
    store.predict(model, CRYSTALS[rows], ("forces",))
    assert model.asked == [3]
    store.energies(Rounded(), CRYSTALS)
    model = Rounded()
    store.predict(model, CRYSTALS[rows], ("energy",))  # batches as they were asked for
    assert model.asked == [3]


def test_files_of_others_are_read_only_where_something_is_missing(tmp_path):
    store = PredictionStore(tmp_path)
    store.energies(SumOfNumbers(), CRYSTALS[np.array([0, 1])])
    path = next(tmp_path.rglob("*.npz"))
    path.with_name("0" * 16 + ".npz").write_bytes(b"damaged")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store.energies(SumOfNumbers(), CRYSTALS[np.array([0, 1])])
    with pytest.warns(StoreWarning, match="^0000000000000000.npz in the prediction store cannot"):
        store.energies(SumOfNumbers(), CRYSTALS[np.array([1, 0])])


# --- what is counted and told


def test_rows_are_counted_and_told_as_they_are_done(tmp_path):
    told = []
    store = PredictionStore(tmp_path)
    store.energies(SumOfNumbers(), CRYSTALS[:3], told.append)
    assert (store.traffic.found, store.traffic.computed) == (0, 3)
    store.energies(SumOfNumbers(), CRYSTALS, told.append)
    assert (store.traffic.found, store.traffic.computed) == (3, 8)
    assert told == [3, 3, 3, 2]
    store.predict(SumOfNumbers(), CRYSTALS, ("forces",), told.append)
    assert (store.traffic.found, store.traffic.computed) == (3, 16)
    assert told[4:] == [3, 3, 2]


class Backwards(SumOfNumbers):
    def plan(self, crystals):
        return super().plan(crystals)[::-1]


def test_problems_are_told_in_the_order_of_rows(tmp_path):
    rows = cubes([[1], [1, 3], [14], [1, 9], [2], [1, 17], [1, 35]])
    found = PredictionStore(tmp_path).energies(Backwards(), rows)
    assert list(found.problems) == [0, 1, 3, 5, 6]
    assert set(found.problems.values()) == {"1 isolated atom"}
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(found.energy)), [0, 1, 3, 5, 6])


@pytest.mark.parametrize("name", OPTIONAL)
def test_a_model_that_leaves_out_what_was_asked_is_at_fault(tmp_path, name):
    class Forgets(SumOfNumbers):
        def predict(self, crystals, properties=("energy",)):
            return super().predict(crystals, ("energy",))

    with pytest.raises(ModelError, match=f"the model was asked for {name} and gave none"):
        PredictionStore(tmp_path).predict(Forgets(), CRYSTALS, (name,))


# --- what cannot be written, and locks


def test_a_file_that_cannot_be_written_is_named_with_the_reason(tmp_path, monkeypatch):
    def full(path, arrays, header):
        raise OSError("no space left")

    monkeypatch.setattr(module, "write_columns", full)
    path = tmp_path / "arrays" / f"{named({'identity': WHO.addressed(), 'inputs': {}})}.npz"
    with pytest.warns(StoreWarning) as told:
        PredictionStore(tmp_path).arrays(WHO, {}, lambda: {"e": np.zeros(1)})
    assert [str(one.message) for one in told] == [
        f"could not write {path}: no space left. The session goes on from memory, and the next one "
        "computes again what is not stored. Free space, or name another folder in HARNESS_CACHE; "
        "what was stored before is intact."
    ]


def test_a_lock_that_cannot_be_made_is_named_with_the_reason(tmp_path):
    (tmp_path / "locks").write_text("no folder")
    with pytest.warns(StoreWarning) as told:
        PredictionStore(tmp_path).trained(WHO, {}, lambda _: {"e": np.zeros(1)})
    assert str(told[0].message).startswith(f"could not write {tmp_path / 'locks'}")


@pytest.mark.parametrize("breaks", [False, True])
def test_a_lock_is_let_go_when_its_work_ends(tmp_path, monkeypatch, breaks):
    held = []

    class Lock(filelock.FileLock):
        def acquire(self, *given, **more):
            held.append("acquired")
            return super().acquire(*given, **more)

        def release(self, *given, **more):
            held.append("released")
            return super().release(*given, **more)

    monkeypatch.setattr(filelock, "FileLock", Lock)

    def train(_):
        assert held == ["acquired"]
        return {"e": np.zeros(1 // (not breaks))}

    if breaks:
        with pytest.raises(ZeroDivisionError):
            PredictionStore(tmp_path).trained(WHO, {}, train)
    else:
        PredictionStore(tmp_path).trained(WHO, {}, train)
    assert held[:2] == ["acquired", "released"]
