"""Compounds with experimental enthalpies: crystals as the table says, fair folds, our files."""

import csv
import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
import spglib
from ase.data import covalent_radii, reference_states
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Composition

from harness.data import thermochemistry
from harness.data.elements import NUMBERS, SYMBOLS
from harness.data.paths import fixtures_dir
from harness.data.prototypes import PROTOTYPES, build
from harness.errors import ConfigError, DataError

FIXTURES = fixtures_dir()


def _table(name: str) -> list[dict[str, str]]:
    with (FIXTURES / name).open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


COMPOUNDS = _table(thermochemistry.COMPOUNDS_FILE)
ELEMENTS = sorted(_table(thermochemistry.ELEMENTS_FILE), key=lambda row: NUMBERS[row["symbol"]])
EVERY_CRYSTAL = [(row["id"], row) for row in COMPOUNDS] + [(r["symbol"], r) for r in ELEMENTS]


@pytest.fixture(scope="module")
def dataset():
    return thermochemistry.load()


@pytest.fixture(scope="module")
def elements():
    return thermochemistry.load_elements()


@pytest.fixture(scope="module")
def structures(dataset, elements):
    compounds, (_, crystals, _) = dataset.crystals, elements
    return {
        **{row["id"]: compounds.structure(i) for i, row in enumerate(COMPOUNDS)},
        **{row["symbol"]: crystals.structure(i) for i, row in enumerate(ELEMENTS)},
    }


# Crystals


@pytest.mark.filterwarnings("ignore:Set OLD_ERROR_HANDLING")  # spglib, to whoever calls it
def test_space_groups_and_primitive_cells_are_the_expected_ones(structures):
    wrong = {}
    for name, row in EVERY_CRYSTAL:
        cell = structures[name]
        labels = np.array(cell.atomic_numbers)
        symmetry = spglib.get_symmetry_dataset(
            (cell.lattice.matrix, cell.frac_coords, labels), 1e-3
        )
        atoms_in_primitive_cell = len(set(symmetry.mapping_to_primitive))
        found = (symmetry.number, atoms_in_primitive_cell)
        if found != (int(row["space_group"]), len(cell)):
            wrong[name] = found
    assert not wrong


def test_atoms_are_those_of_the_formula(structures):
    for row in COMPOUNDS:
        wanted = Composition(row["formula"]).reduced_composition
        assert structures[row["id"]].composition.reduced_composition == wanted, row["id"]


def test_atoms_touch_and_do_not_overlap(structures):
    for name, structure in structures.items():
        numbers = np.array(structure.atomic_numbers)
        centre, neighbour, _, distance = structure.get_neighbor_list(5.5)
        radii = covalent_radii[numbers[centre]] + covalent_radii[numbers[neighbour]]
        nearest = np.full(len(numbers), np.inf)
        np.minimum.at(nearest, centre, distance / radii)
        assert distance.min() > 0.7, name
        assert nearest.min() > 0.6, name
        assert nearest.max() < 1.45, name  # every atom has a neighbour; caesium metal: 1.09
        assert 4 < structure.volume / len(structure) < 120, name  # diamond 5.7, caesium 116


@pytest.mark.parametrize(
    ("name", "density_g_per_cm3"),
    [  # handbook densities at room temperature, independent of the lattice parameters used
        ("NaCl-rocksalt", 2.17), ("MgO-rocksalt", 3.58), ("CaF2-fluorite", 3.18),
        ("CsI-CsCl", 4.51), ("Al2O3-corundum", 3.99), ("TiO2-rutile", 4.25),
        ("TiO2-anatase", 3.89), ("SiO2-quartz", 2.65), ("SiO2-cristobalite", 2.33),
        ("CaCO3-calcite", 2.71), ("CaCO3-aragonite", 2.93), ("Mg2SiO4-olivine", 3.22),
        ("ZrSiO4-zircon", 4.67), ("Fe3O4-spinel", 5.20), ("FeS2-pyrite", 5.01), ("WC-WC", 15.7),
        ("ZnS-zincblende", 4.09), ("CaWO4-scheelite", 6.1), ("MoO3-MoO3", 4.70),
        ("V2O5-V2O5", 3.36), ("Bi2Te3-tetradymite", 7.86), ("HgS-cinnabar", 8.17),
        ("Si3N4-beta-Si3N4", 3.20), ("Fe3C-cementite", 7.69), ("PbMoO4-scheelite", 6.82),
        ("LaCl3-UCl3", 3.86), ("FeS-troilite", 4.84), ("AlCl3-AlCl3", 2.48),
        ("Ga2O3-beta-Ga2O3", 5.95),
        ("S", 2.07), ("I", 5.1), ("Mn", 7.3), ("Ga", 5.91), ("U", 19.0), ("B", 2.46), ("Hg", 14.2),
    ],
)  # fmt: skip
def test_densities_are_those_of_handbooks(structures, name, density_g_per_cm3):
    assert structures[name].density == pytest.approx(density_g_per_cm3, rel=0.035)


@pytest.mark.parametrize(
    "row", [row for row in ELEMENTS if row["prototype"] in ("fcc", "bcc", "hcp", "diamond")],
    ids=lambda row: row["symbol"],
)  # fmt: skip
def test_metals_agree_with_an_independent_list(row):
    reference = reference_states[NUMBERS[row["symbol"]]]
    assert reference["symmetry"] == row["prototype"]
    assert float(row["a_ang"]) == pytest.approx(reference["a"], rel=0.025)  # some at 5 K
    if row["prototype"] == "hcp":
        c_over_a = float(row["c_ang"]) / float(row["a_ang"])
        assert c_over_a == pytest.approx(reference["c/a"], rel=0.02)


@pytest.mark.parametrize(
    ("name", "pair", "length_ang"),
    [  # bond lengths known well enough to catch a slip in a coordinate
        ("TiO2-rutile", "TiO", 1.95), ("CaCO3-calcite", "CO", 1.285),
        ("BaCO3-aragonite", "CO", 1.28), ("NaNO3-calcite", "NO", 1.245),
        ("SiO2-quartz", "SiO", 1.61), ("ZrSiO4-zircon", "SiO", 1.62),
        ("Mg2SiO4-olivine", "SiO", 1.62), ("CaWO4-scheelite", "WO", 1.785),
        ("FeS2-pyrite", "SS", 2.16), ("MoS2-MoS2", "MoS", 2.41),
        ("Hg2Cl2-calomel", "HgHg", 2.60), ("HgI2-HgI2", "HgI", 2.78), ("HgO-HgO", "HgO", 2.04),
        ("HgS-cinnabar", "HgS", 2.37), ("CaC2-CaC2", "CC", 1.19), ("KO2-CaC2", "OO", 1.28),
        ("BaO2-CaC2", "OO", 1.49), ("CrCl3-BiI3", "CrCl", 2.34), ("K2SiF6-K2PtCl6", "SiF", 1.68),
        ("PbO-litharge", "PbO", 2.31), ("CuO-tenorite", "CuO", 1.95), ("V2O5-V2O5", "VO", 1.58),
        ("MoO3-MoO3", "MoO", 1.67), ("TeO2-paratellurite", "TeO", 1.88),
        ("Si3N4-beta-Si3N4", "SiN", 1.73), ("AlF3-VF3", "AlF", 1.80), ("LiOH-LiOH", "OH", 0.92),
        ("FeS-troilite", "FeS", 2.36), ("MgCl2-CdCl2", "MgCl", 2.49),
        ("Ga2O3-beta-Ga2O3", "GaO", 1.83), ("BiOCl-matlockite", "BiO", 2.31),
        ("H", "HH", 0.74), ("N", "NN", 1.10), ("O", "OO", 1.21), ("F", "FF", 1.40),
        ("S", "SS", 2.05), ("Cl", "ClCl", 2.00), ("Br", "BrBr", 2.28), ("I", "II", 2.715),
        ("Se", "SeSe", 2.37), ("Te", "TeTe", 2.835), ("C", "CC", 1.42),
    ],
)  # fmt: skip
def test_shortest_bonds_have_known_lengths(structures, name, pair, length_ang):
    structure = structures[name]
    numbers = np.array(structure.atomic_numbers)
    wanted = {NUMBERS[symbol] for symbol in re.findall("[A-Z][a-z]?", pair)}
    centre, neighbour, _, distance = structure.get_neighbor_list(4.0)
    found = [{a, b} == wanted for a, b in zip(numbers[centre], numbers[neighbour], strict=True)]
    assert distance[found].min() == pytest.approx(length_ang, abs=0.025)


def test_no_crystal_is_there_twice(dataset, elements):
    for crystals in (dataset.crystals, elements[1]):
        assert len(np.unique(crystals.row_hashes(), axis=0)) == len(crystals)


# Targets, sources, coverage


@pytest.mark.parametrize(
    ("name", "kj_per_mol", "atoms"),
    [
        ("NaCl-rocksalt", -411.2, 2),
        ("Mg(OH)2-brucite", -924.5, 5),
        ("CaMg(CO3)2-dolomite", -2324.5, 10),
        ("Hg2Cl2-calomel", -265.4, 4),  # per Hg2Cl2, though the reduced formula is HgCl
        ("Fe3C-cementite", 25.1, 4),
    ],
)
def test_targets_are_ev_per_atom(dataset, name, kj_per_mol, atoms):
    (row,) = np.flatnonzero(dataset.ids == name)
    assert dataset.target_ev_per_atom[row] == pytest.approx(kj_per_mol / 96.48533212 / atoms)


def test_the_set_is_broad_enough_to_fit_one_number_per_element(dataset):
    present = dataset.compositions > 0
    assert len(dataset) >= 100
    assert present.any(axis=0).sum() >= 35
    rows_of_element = present.sum(axis=0)
    assert rows_of_element[rows_of_element > 0].min() >= 3


def test_every_element_has_a_crystal_of_its_own(dataset, elements):
    atomic_numbers, crystals, notes = elements
    used = np.flatnonzero((dataset.compositions > 0).any(axis=0)) + 1
    np.testing.assert_array_equal(atomic_numbers, used)
    np.testing.assert_array_equal(crystals.fractions().argmax(axis=1) + 1, atomic_numbers)
    np.testing.assert_array_equal((crystals.fractions() > 0).sum(axis=1), 1)
    not_standard = {SYMBOLS[z - 1] for z, note in zip(atomic_numbers, notes, strict=True) if note}
    assert not_standard == {"H", "B", "N", "O", "F", "Cl", "Br", "Hg"}


def test_every_value_names_a_source_that_the_readme_explains():
    readme = (FIXTURES / "README.md").read_text(encoding="utf-8")
    for row in COMPOUNDS:
        keys = [row["h_form_source"], *row["compared_with"].split()]
        keys += re.findall(r"^[A-Z]{2,3}\d\d$", row["structure_source"])
        for key in keys:
            assert f"| {key} |" in readme, f"{row['id']}: {key} is not explained"
        assert row["structure_source"], row["id"]
        if not row["compared_with"]:
            assert row["spread_ev_per_atom"] == "", row["id"]
            assert row["id"] in readme, f"{row['id']} is not listed as not compared"


def test_values_that_spread_widely_say_why():
    for row in COMPOUNDS:
        if float(row["spread_ev_per_atom"] or 0) > 0.05:
            assert row["note"], row["id"]


def test_identity_of_the_set(dataset):
    file = FIXTURES / thermochemistry.COMPOUNDS_FILE
    assert dataset.name == "thermochemistry"
    assert dataset.inputs == {file.name: hashlib.sha256(file.read_bytes()).hexdigest()}
    assert (dataset.is_subset, dataset.n_official, dataset.index) == (False, len(dataset), None)


# Folds


def test_fold_0_tests_every_row_once(dataset):
    fold = dataset.fold(0)
    assert fold.n_claimed == len(dataset)
    assert len(fold.splits) == 5
    np.testing.assert_array_equal(np.sort(fold.test_rows), np.arange(len(dataset)))
    for split in fold.splits:
        assert len(split.train) + len(split.test) == len(dataset)
    sizes = [len(split.test) for split in fold.splits]
    assert max(sizes) - min(sizes) <= 4


def test_there_is_no_fold_1(dataset):
    with pytest.raises(ConfigError, match="not 1"):
        dataset.fold(1)


def test_elements_of_tested_rows_are_trained_on(dataset):
    present = dataset.compositions > 0
    for split in dataset.fold(0).splits:
        needed = present[split.test].any(axis=0)
        assert present[split.train].sum(axis=0)[needed].min() >= 2


def test_polymorphs_are_not_torn_apart(dataset):
    formulas = dataset.reduced_formulas()
    assert len(np.unique(formulas)) < len(formulas)  # there are some
    for split in dataset.fold(0).splits:
        assert not set(formulas[split.train]) & set(formulas[split.test])


# Files that are not the described ones


def test_an_altered_file_is_refused(tmp_path: Path):
    for name, load in (
        (thermochemistry.COMPOUNDS_FILE, thermochemistry.load),
        (thermochemistry.ELEMENTS_FILE, thermochemistry.load_elements),
    ):
        altered = tmp_path / name
        altered.write_bytes((FIXTURES / name).read_bytes().replace(b"LiF", b"LiCl") + b"\n")
        with pytest.raises(DataError, match=r"sha256 is [0-9a-f]{64}, expected"):
            load(altered)
        with pytest.raises(DataError, match="does not exist"):
            load(tmp_path / "none.csv")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            b"NaCl-rocksalt,NaCl,rocksalt,225,Na Cl",
            b"NaCl-rocksalt,NaCl,rocksalt,225,Na F",
            "atoms",
        ),
        (b"NaCl-rocksalt,NaCl,rocksalt,225", b"NaCl-rocksalt,NaCl,rocksalt,221", "space group 221"),
        (b"NaCl-rocksalt,NaCl,", b"NaCl-rocksalt,NaQq,", "not a formula at character 2"),
        (b"NaCl-rocksalt,NaCl,", b"NaCl-rocksalt,(NaCl,", "open bracket"),
        (b"NaCl-rocksalt,NaCl,", b"NaCl-rocksalt,NaCl)2,", "not a formula at character 4"),
        (
            b"NaCl-rocksalt,NaCl,rocksalt,225",
            b"NaCl-rocksalt,NaCl,rocksalt,many",
            "invalid literal",
        ),
        (b"h_form_kj_per_mol", b"h_form", "KeyError: 'h_form_kj_per_mol'"),
        (b"NaCl-rocksalt,NaCl,", b"NaCl-rocksalt,NaCl\xff,", "UnicodeDecodeError"),
    ],
)
def test_a_row_at_odds_with_itself_is_refused(tmp_path: Path, old, new, message):
    raw = (FIXTURES / thermochemistry.COMPOUNDS_FILE).read_bytes()
    assert raw.count(old) == 1
    altered = tmp_path / "altered.csv"
    altered.write_bytes(raw.replace(old, new))
    with pytest.raises(DataError, match=message):
        thermochemistry.load(altered, hashlib.sha256(altered.read_bytes()).hexdigest())


# Prototypes


def test_every_prototype_is_used():
    assert {row["prototype"] for _, row in EVERY_CRYSTAL} == set(PROTOTYPES)


@settings(deadline=None, max_examples=60)
@given(data=st.data(), name=st.sampled_from(sorted(PROTOTYPES)))
def test_a_cell_scales_with_its_lengths(data, name):
    prototype = PROTOTYPES[name]
    ranges = {"beta": (60.0, 120.0)} | dict.fromkeys("abc", (2.0, 20.0))
    params = {
        key: data.draw(st.floats(*ranges.get(key, (-1.0, 1.0)))) for key in prototype.parameters
    }
    species = list(SYMBOLS[: len(prototype.sites)])
    numbers, frac_coords, lattice = build(name, species, params)
    assert (numbers.dtype, frac_coords.shape) == (np.uint8, (len(numbers), 3))
    assert len(numbers) == sum(prototype.atoms_per_species)
    assert frac_coords.min() >= 0
    assert frac_coords.max() < 1
    assert np.linalg.det(lattice) > 0  # right-handed
    doubled = params | {key: 2 * params[key] for key in "abc" if key in params}
    again, same_coords, larger = build(name, species, doubled)
    np.testing.assert_array_equal(again, numbers)
    np.testing.assert_array_equal(same_coords, frac_coords)
    np.testing.assert_allclose(larger, 2 * lattice, rtol=1e-12)


@pytest.mark.parametrize(
    ("prototype", "species", "params", "message"),
    [
        ("rock salt", ["Na", "Cl"], {"a": 5.6}, "unknown; known: .*rocksalt"),
        ("rocksalt", ["Na"], {"a": 5.6}, "2 sites and 1 species"),
        ("rocksalt", ["Na", "Xx"], {"a": 5.6}, "not chemical symbols"),
        ("rutile", ["Ti", "O"], {"a": 4.6, "c": 3.0}, "a, c, u and was given a, c"),
        ("rocksalt", ["Na", "Cl"], {"a": 5.6, "c": 5.6}, "was given a, c"),
        ("rocksalt", ["Na", "Cl"], {"a": 0.0}, "a=0.0"),
        ("rutile", ["Ti", "O"], {"a": 4.6, "c": 3.0, "u": float("nan")}, "u=nan"),
    ],
)
def test_a_wrong_request_is_refused(prototype, species, params, message):
    with pytest.raises(DataError, match=message):
        build(prototype, species, params)
