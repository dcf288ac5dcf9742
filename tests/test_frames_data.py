"""Frames and dimers are read as their publishers wrote them; anything else is refused by its place.

The real files are read where HARNESS_DATA names them; the layout is tested on files made here.
"""

from __future__ import annotations

import copy
import gzip
import io
import json
import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.data import mp2020
from harness.data.frames import (
    FRAME_SETS,
    MLEARN,
    PUBLISHED_MAE_EV_PER_ATOM,
    load_dimers,
    load_frames,
)
from harness.data.units import GPA_PER_EV_ANG3
from harness.errors import ConfigError, DataError, NotAvailable

REAL_DATA = os.environ.get("HARNESS_DATA")


@pytest.fixture(autouse=True)
def no_data(monkeypatch):
    monkeypatch.delenv("HARNESS_DATA", raising=False)


@pytest.fixture
def real_data(monkeypatch) -> Path:
    if not REAL_DATA or not (Path(REAL_DATA) / "mlearn").is_dir():
        pytest.skip("HARNESS_DATA is not set or has no mlearn; these files are not the project's")
    monkeypatch.setenv("HARNESS_DATA", REAL_DATA)
    return Path(REAL_DATA)


def zipped(path: Path, text: str) -> Path:
    path.write_bytes(gzip.compress(text.encode()))
    return path


# --- extended XYZ ---------------------------------------------------------------------------------

FRAME = """2
Lattice="4.0 0.0 0.0 1.0 3.0 0.0 0.0 0.5 5.0" Properties=species:S:1:pos:R:3:forces:R:3 \
source=Internal internal_id=mpf-TP-{i:06d} energy_unit=eV forces_unit=eV/A stress_unit=eV/A^3 \
energy=-7.5 stress="0.1 0.01 0.02 0.01 0.2 0.03 0.02 0.03 0.3" pbc="T T T"
Mg       0.10000000       0.20000000       0.30000000       1.5 -0.25 0.0
O        2.10000000       1.20000000       2.30000000      -1.5 0.25 0.0
"""
TWO = FRAME.format(i=1) + FRAME.format(i=2)


def test_an_xyz_frame_is_read_with_units_and_signs(tmp_path):
    frames = load_frames("mpf-TP", zipped(tmp_path / "a.xyz.gz", TWO))
    assert frames.ids.tolist() == ["mpf-TP-000001", "mpf-TP-000002"]
    assert frames.energy_ev_per_atom.tolist() == [-3.75, -3.75]
    assert frames.crystals.numbers.tolist() == [12, 8, 12, 8]
    assert frames.forces_ev_per_ang[0].tolist() == [1.5, -0.25, 0.0]
    positions = np.einsum("aj,jk->ak", frames.crystals.frac_coords[:2], frames.crystals.lattices[0])
    np.testing.assert_allclose(positions, [[0.1, 0.2, 0.3], [2.1, 1.2, 2.3]], atol=1e-12)
    # A positive stress is tension, so the pressure is minus its mean: 0.2 eV/Å^3 is 32 GPa.
    np.testing.assert_allclose(frames.stress_gpa[0, 0, 1], 0.01 * GPA_PER_EV_ANG3)
    np.testing.assert_allclose(frames.pressure_gpa, -32.0435, atol=1e-4)


@pytest.mark.parametrize(
    ("was", "becomes", "says"),
    [
        ("energy=-7.5 ", "", r"frame 1 \(line 5\).*energy"),
        ("energy=-7.5", "energy=nan", r"frame 1 \(mpf-TP-000002\): energy_ev_per_atom"),
        ("forces_unit=eV/A", "forces_unit=Ha/Bohr", "frame 1.*other units"),
        ("pos:R:3:forces:R:3", "forces:R:3:pos:R:3", "frame 1.*Properties"),
        ('pbc="T T T"', 'pbc="T T F"', "frame 1.*T T F"),
        ("0.03 0.3", "0.3", "frame 1.*9 numbers expected, 8 found"),
        ("O   ", "Oo  ", "frame 1.*KeyError: 'Oo'"),
        ("1.5 -0.25 0.0\nO", "1.5 -0.25\nO", "frame 1.*7 columns"),
        ("-1.5 0.25 0.0", "-1.5 0.25 zero", "frame 1, atom 1.*zero"),
        ("-1.5 0.25 0.0", "-1.5 0.25 inf", r"frame 1 .*forces_ev_per_ang is not finite"),
        ("4.0 0.0 0.0", "0.0 0.0 0.0", "frame 1 has a cell of at most"),
        ("mpf-TP-000002", "mpf-TP-000001", "none twice"),
    ],
)
def test_an_xyz_file_that_is_not_as_described_is_refused_by_frame(tmp_path, was, becomes, says):
    second = FRAME.format(i=2)
    assert was in second
    text = FRAME.format(i=1) + second.replace(was, becomes)
    with pytest.raises(DataError, match=says):
        load_frames("mpf-TP", zipped(tmp_path / "bad.xyz.gz", text))


def test_a_file_cut_short_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"frame 1.*2 atoms"):
        load_frames("mpf-TP", zipped(tmp_path / "a.xyz.gz", TWO.rsplit("\n", 2)[0]))
    whole = gzip.compress(TWO.encode())
    (tmp_path / "b.xyz.gz").write_bytes(whole[:-20])
    with pytest.raises(DataError, match="is cut short"):
        load_frames("mpf-TP", tmp_path / "b.xyz.gz")
    with pytest.raises(DataError, match="holds no frames"):
        load_frames("mpf-TP", zipped(tmp_path / "c.xyz.gz", ""))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 1), min_size=1, max_size=6))
def test_frames_are_picked_with_their_forces(tmp_path_factory, rows):
    path = zipped(tmp_path_factory.mktemp("xyz") / "a.xyz.gz", TWO.replace("1.5 -0.25", "7 7", 1))
    frames = load_frames("mpf-TP", path)
    unique = list(dict.fromkeys(rows))
    picked = frames[np.array(unique)]
    assert picked.ids.tolist() == [frames.ids[row] for row in unique]
    for i, row in enumerate(unique):
        np.testing.assert_array_equal(
            picked.forces_ev_per_ang[2 * i : 2 * i + 2],
            frames.forces_ev_per_ang[2 * row : 2 * row + 2],
        )


# --- mlearn ---------------------------------------------------------------------------------------


def mlearn_frame() -> dict:
    from pymatgen.core import Lattice, Structure

    structure = Structure(Lattice.cubic(5.4), ["Si", "Si"], [[0, 0, 0], [0.25, 0.25, 0.25]])
    return {
        "structure": structure.as_dict(),
        "group": "Elastic",
        "num_atoms": 2,
        "element": "Si",
        "outputs": {
            "energy": -10.8,
            "forces": [[0.5, 0.0, 0.0], [-0.5, 0.0, 0.0]],
            "virial_stress": [99.4, 45.8, 45.8, 1.0, 2.0, 3.0],
        },
    }


def test_mlearn_stress_is_turned_from_vasps_kbar(tmp_path):
    path = zipped(tmp_path / "Si.json.gz", json.dumps([mlearn_frame()] * 2))
    frames = load_frames("mlearn-Si", path)
    assert frames.groups.tolist() == ["Elastic", "Elastic"]
    assert frames.energy_ev_per_atom.tolist() == [-5.4, -5.4]
    expected = -0.1 * np.array([[99.4, 1.0, 3.0], [1.0, 45.8, 2.0], [3.0, 2.0, 45.8]])
    np.testing.assert_allclose(frames.stress_gpa[1], expected)
    np.testing.assert_allclose(frames.pressure_gpa, 0.1 * (99.4 + 45.8 + 45.8) / 3)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda f: f.pop("group"), "not a list of mlearn frames.*group"),
        (lambda f: f["outputs"].update(forces=[[0.0, 0.0, 0.0]]), "frame 1.*1 forces"),
        (lambda f: f.update(num_atoms=3), "frame 1.*num_atoms 3"),
        (lambda f: f["outputs"].update(virial_stress=[1.0]), "not a list of mlearn frames"),
        (lambda f: f["structure"]["sites"].pop(), "frame 1.*1 sites"),
    ],
)
def test_mlearn_frames_that_are_not_as_described_are_refused(tmp_path, change, says):
    bad = mlearn_frame()
    change(bad)
    path = zipped(tmp_path / "Si.json.gz", json.dumps([mlearn_frame(), bad]))
    with pytest.raises(DataError, match=says):
        load_frames("mlearn-Si", path)


# --- dimers ---------------------------------------------------------------------------------------

H2 = {
    "distances": [0.5, 0.75, 1.5],
    "energies": [-4.0, -6.8, -4.0],
    "forces": [
        [[-10.0, 0.0, 0.0], [10.0, 0.0, 0.0]],
        [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]],
        [[4.0, 0.0, 0.0], [-4.0, 0.0, 0.0]],
    ],
    "magmoms": [None, [0.0, 0.0], [0.0, 0.0]],
}


def dimers_file(tmp_path: Path, curves: dict) -> Path:
    return zipped(tmp_path / "d.json.gz", json.dumps({"PBE": curves}))


def test_dimer_forces_are_positive_where_they_repel(tmp_path):
    dimers = load_dimers("PBE", dimers_file(tmp_path, {"O-O": H2, "H-H": H2}))
    assert dimers.symbols == ("H", "O")
    assert dimers.force_ev_per_ang[dimers.points(1)].tolist() == [10.0, 0.0, -4.0]
    crystals = dimers.crystals(30.0)
    atoms = crystals.atoms(5)
    assert atoms.get_chemical_formula() == "O2"
    assert atoms.get_distance(0, 1) == pytest.approx(1.5)
    assert atoms.get_distance(0, 1, vector=True)[0] > 0  # atom 1 is pushed towards +x
    with pytest.raises(ConfigError, match="images near"):
        dimers.crystals(4.0)


@pytest.mark.parametrize(
    ("pair", "change", "says"),
    [
        ("H-O", {}, "'H-O' is no pair"),
        ("Xx-Xx", {}, "'Xx-Xx' is no pair"),
        ("H-H", {"energies": [0.0, 1.0]}, "H-H: columns of"),
        ("H-H", {"distances": [0.5, 0.5, 1.0]}, "do not rise"),
        ("H-H", {"forces": [[[1.0, 0, 0], [1.0, 0, 0]]] * 3}, "not equal and opposite"),
        ("H-H", {"forces": [[[1.0, 1, 0], [-1.0, -1, 0]]] * 3}, "not equal and opposite"),
        ("H-H", {"energies": [None, 0.0, 1.0]}, "not a file of dimer curves"),
    ],
)
def test_dimers_that_are_not_as_described_are_refused(tmp_path, pair, change, says):
    curve = copy.deepcopy(H2) | change
    with pytest.raises(DataError, match=says):
        load_dimers("PBE", dimers_file(tmp_path, {pair: curve}))
    with pytest.raises(DataError, match="has no r2SCAN curves"):
        load_dimers("r2SCAN", dimers_file(tmp_path, {"H-H": H2}))


# --- absent files, real files ---------------------------------------------------------------------


@pytest.mark.parametrize("name", FRAME_SETS)
def test_an_absent_set_says_where_it_is_published(name, tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path))
    with pytest.raises(NotAvailable, match=r"published by (materialsvirtuallab|microsoft)/"):
        load_frames(name)


def test_without_a_folder_of_data_all_sets_give_one_reason(monkeypatch):
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    reasons = set()
    for load in (*(partial(load_frames, name) for name in FRAME_SETS), load_dimers):
        with pytest.raises(NotAvailable, match=r"docs/data\.md") as raised:
            load()
        reasons.add(str(raised.value))
    assert len(reasons) == 1


def test_absent_dimers_say_where_they_are_published_and_unknown_sets_are_refused(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path))
    with pytest.raises(NotAvailable, match="janosh/matbench-discovery"):
        load_dimers()
    with pytest.raises(ConfigError, match="known: mlearn-Si"):
        load_frames("mlearn-Fe")


def test_published_errors_are_of_known_sets():
    assert set(PUBLISHED_MAE_EV_PER_ATOM) == set(FRAME_SETS) - set(MLEARN)


def test_real_xyz_files_agree_with_ases_reader(real_data):
    import ase.io

    frames = load_frames("mpf-alkali-TP")
    text = gzip.decompress((real_data / FRAME_SETS[frames.name].file).read_bytes()).decode()
    images = ase.io.read(io.StringIO(text), ":", format="extxyz")
    assert len(frames) == len(images) == frames.n_official
    forces = np.concatenate([image.get_forces() for image in images])
    np.testing.assert_array_equal(frames.forces_ev_per_ang, forces)
    energies = [image.get_potential_energy() / len(image) for image in images]
    np.testing.assert_allclose(frames.energy_ev_per_atom, energies, rtol=1e-14)
    stress = np.array([image.get_stress(voigt=False) for image in images])
    np.testing.assert_allclose(frames.stress_gpa, stress * GPA_PER_EV_ANG3, rtol=1e-12)
    positions = np.concatenate([image.positions for image in images])
    lattices = frames.crystals.lattices[frames.crystals.row_of_atom]
    found = np.einsum("aj,ajk->ak", frames.crystals.frac_coords, lattices)
    np.testing.assert_allclose(found, positions, atol=1e-9)


def test_real_mlearn_frames_are_whole_and_strained_cells_push_back(real_data):
    for name in MLEARN:
        frames = load_frames(name)
        assert len(frames) == frames.n_official
        elastic = frames.groups == "Elastic"
        volume = frames.crystals.volumes_ang3[elastic] / frames.crystals.n_atoms[elastic]
        pressure = frames.pressure_gpa[elastic]
        assert np.corrcoef(volume, pressure)[0, 1] < -0.5  # a smaller cell is under pressure


def test_real_dimers_cover_hydrogen_to_uranium(real_data):
    dimers = load_dimers()
    assert (len(dimers.symbols), dimers.symbols[0], dimers.symbols[-1]) == (92, "H", "U")
    hydrogen = dimers.points(0)
    lowest = np.argmin(dimers.energy_ev[hydrogen])
    assert dimers.distance_ang[hydrogen][lowest] == pytest.approx(0.75, abs=0.03)


# --- MP2020 ---------------------------------------------------------------------------------------


def test_corrections_are_those_of_the_published_table():
    """Wang et al. (2021), table 1: -0.687 an oxide's O, -2.256 an Fe with +U, -0.614 a Cl."""
    from pymatgen.core import Lattice, Structure

    from harness.data.crystals import Crystals

    def salt(cation: str, anion: str) -> Structure:
        return Structure.from_spacegroup(
            "Fm-3m", Lattice.cubic(4.4), [cation, anion], [[0, 0, 0], [0.5, 0.5, 0.5]]
        )

    silicon = Structure.from_spacegroup("Fd-3m", Lattice.cubic(5.4), ["Si"], [[0, 0, 0]])
    rows = [salt("Mg", "O"), salt("Fe", "O"), salt("Na", "Cl"), silicon, salt("Fe", "Al")]
    found = mp2020.corrections_ev_per_atom(Crystals.from_structures(rows))
    expected = [-0.687 / 2, (-0.687 - 2.256) / 2, -0.614 / 2, 0.0, 0.0]
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_corrections_agree_with_pymatgens_own_path(real_data):
    import warnings

    from pymatgen.entries.compatibility import MaterialsProject2020Compatibility
    from pymatgen.entries.computed_entries import ComputedStructureEntry

    crystals = load_frames("mptrj-random-1k").crystals[np.arange(0, 1000, 50)]
    found = mp2020.corrections_ev_per_atom(crystals)
    scheme = MaterialsProject2020Compatibility(check_potcar=False, strict_anions="no_check")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pymatgen's own about guesses and options
        for row in range(len(crystals)):
            structure = crystals.structure(row)
            symbols = {element.symbol for element in structure.composition.elements}
            negative = max(structure.composition.elements, key=lambda element: element.X).symbol
            table = scheme.u_settings.get(negative, {}) if negative in ("O", "F") else {}
            hubbards = {symbol: u for symbol, u in table.items() if symbol in symbols}
            entry = ComputedStructureEntry(
                structure,
                0.0,
                parameters={"run_type": "GGA+U" if hubbards else "GGA", "hubbards": hubbards},
            )
            (processed,) = scheme.process_entries([entry])
            assert found[row] == pytest.approx(processed.correction_per_atom, abs=1e-9)
