"""The store proves what it gives: exchanged, damaged and misplaced files are computed again."""

from __future__ import annotations

import itertools
import shutil
import warnings

import numpy as np
import pytest

from harness.data.columns import read_columns, write_columns
from harness.data.crystals import Crystals
from harness.errors import DataError
from harness.models.protocol import Identity, Prediction
from harness.store import FORMAT, PredictionStore, StoreWarning

ALL = ("energy", "forces", "stress", "magmoms")
N = 12


class Subject:
    """Two crystals a batch; what it says of one hangs on its volume alone."""

    elements = frozenset(range(1, 119))
    identity = Identity(name="subject", weights_sha256="b" * 64)

    def plan(self, crystals):
        return np.array_split(np.arange(len(crystals)), len(crystals) // 2)

    def predict(self, crystals, properties=("energy",)):
        v = crystals.volumes_ang3
        return Prediction(
            energy=v,
            forces=[np.full((2, 3), x) for x in v] if "forces" in properties else None,
            stress=v[:, None, None] * np.ones((3, 3)) if "stress" in properties else None,
            magmoms=[np.full(2, x) for x in v] if "magmoms" in properties else None,
        )


@pytest.fixture(scope="module")
def crystals():
    lengths = np.linspace(3.0, 4.0, N)
    return Crystals(
        numbers=np.full(2 * N, 3, dtype=np.uint8),
        frac_coords=np.tile([[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]], (N, 1)),
        lattices=lengths[:, None, None] * np.eye(3),
        offsets=2 * np.arange(N + 1),
    )


def asked(root, crystals, properties):
    store = PredictionStore(root)
    if properties == ("energy",):
        return store.energies(Subject(), crystals), store.traffic
    return store.predict(Subject(), crystals, properties), store.traffic


@pytest.fixture(params=[("energy",), ALL], ids=["energies", "all"])
def stored(request, tmp_path, crystals):
    """A store with six batches, and the properties that they hold."""
    asked(tmp_path, crystals, request.param)
    return tmp_path, request.param, sorted(tmp_path.rglob("*.npz"))


def assert_right(root, crystals, properties, *, computed):
    """Every number is as undisturbed, the damage was told, and once more nothing is computed."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found, traffic = asked(root, crystals, properties)
    assert bool(told) == bool(computed)
    assert all(w.category is StoreWarning for w in told)
    np.testing.assert_array_equal(found.energy, crystals.volumes_ang3)
    if properties == ALL:
        np.testing.assert_array_equal(np.stack(found.forces)[:, 0, 0], crystals.volumes_ang3)
        np.testing.assert_array_equal(found.stress[:, 0, 0], crystals.volumes_ang3)
        np.testing.assert_array_equal(np.stack(found.magmoms)[:, 0], crystals.volumes_ang3)
    assert traffic.computed == computed
    if computed:
        assert_right(root, crystals, properties, computed=0)


def test_any_two_valid_files_exchanged_are_noticed(stored, crystals):
    root, properties, files = stored
    assert len(files) == 6
    for first, second in itertools.combinations(files, 2):
        held = first.read_bytes()
        shutil.copyfile(second, first)
        second.write_bytes(held)
        # energies of known rows are found wherever they lie, others are computed again
        computed = 0 if properties == ("energy",) else 4
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", StoreWarning)
            found, traffic = asked(root, crystals, properties)
        np.testing.assert_array_equal(found.energy, crystals.volumes_ang3)
        assert traffic.computed in (computed, 4)
        assert_right(root, crystals, properties, computed=0)


def rewritten(path, change):
    """A file with another content under the same key, and digests that are right."""
    arrays, header = read_columns(path)
    write_columns(path, change(dict(arrays)), header)


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a | {"rows": a["rows"][::-1]},
        lambda a: a | {"energy": a["energy"][:1]},
        lambda a: a | {"energy": a["energy"][:, None]},
        lambda a: a | {"problem": a["problem"][:1]},
        lambda a: a | {"more": np.zeros(2)},
        lambda a: {name: array for name, array in a.items() if name != "energy"},
        lambda a: {name: array for name, array in a.items() if name != "problem"},
        lambda a: {name: array for name, array in a.items() if name != "rows"},
        lambda a: a | {"rows": a["rows"][:1]},
    ],
)
def test_a_file_with_the_right_key_and_another_content_is_computed_again(stored, crystals, change):
    root, properties, files = stored
    rewritten(files[0], change)
    assert_right(root, crystals, properties, computed=2)


@pytest.mark.parametrize("name", ["forces", "stress", "magmoms"])
def test_so_is_one_whose_forces_or_stress_have_another_shape(tmp_path, crystals, name):
    asked(tmp_path, crystals, ALL)
    first = min(tmp_path.rglob("*.npz"))
    rewritten(first, lambda a: a | {name: a[name][:1]})
    assert_right(tmp_path, crystals, ALL, computed=2)


def test_no_flipped_bit_changes_a_number_or_loses_a_column(tmp_path):
    path = tmp_path / "a.npz"
    arrays = {"first": np.arange(3.0), "second": np.array([7])}
    write_columns(path, arrays, {"format": FORMAT, "key": {}})
    whole = path.read_bytes()
    refused = 0
    for place in range(len(whole)):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            found, header = read_columns(path)
        except DataError:
            refused += 1
            continue
        # bits that mean nothing, such as a date in the zip's directory
        assert header == {"format": FORMAT, "key": {}}
        assert set(found) == set(arrays)
        for name, array in arrays.items():
            np.testing.assert_array_equal(found[name], array)
    assert refused > 0.5 * len(whole)


def test_a_file_of_before_the_digests_is_read(tmp_path):
    path = tmp_path / "a.npz"
    header = np.frombuffer(b'{"format": "f"}', dtype=np.uint8)
    np.savez(path, header_json=header, x=np.arange(3))
    arrays, told = read_columns(path)
    assert told == {"format": "f"}
    np.testing.assert_array_equal(arrays["x"], [0, 1, 2])
