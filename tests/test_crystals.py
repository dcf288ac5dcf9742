"""Crystals: nothing is lost on the way in or out, and no row depends on its neighbours."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.data import Crystals
from harness.data.columns import read_columns, write_columns
from harness.data.elements import NUMBERS, SYMBOLS, reduced_formulas
from harness.data.gate import too_close, triple_products
from harness.errors import DataError

settings.register_profile("data", deadline=None, derandomize=True, max_examples=40)
settings.load_profile("data")

_coordinate = st.floats(-2.0, 2.0, allow_subnormal=False)


def apart(crystals: Crystals) -> bool:
    return too_close(crystals.frac_coords, crystals.lattices, crystals.offsets) is None


@st.composite
def crystal_sets(draw, min_rows=1):
    """Crystals of up to five rows, cells far from flat, any elements, coordinates anywhere."""
    lengths = draw(st.lists(st.integers(1, 4), min_size=min_rows, max_size=5))
    n_atoms = sum(lengths)
    numbers = draw(st.lists(st.integers(1, 118), min_size=n_atoms, max_size=n_atoms))
    coords = draw(st.lists(_coordinate, min_size=3 * n_atoms, max_size=3 * n_atoms))
    off_diagonal = st.floats(-0.5, 0.5, allow_subnormal=False)
    cells = draw(st.lists(off_diagonal, min_size=9 * len(lengths), max_size=9 * len(lengths)))
    return Crystals(
        numbers=np.array(numbers, dtype=np.uint8),
        frac_coords=np.array(coords).reshape(-1, 3),
        lattices=np.array(cells).reshape(-1, 3, 3) + 3.0 * np.eye(3),
        offsets=np.cumsum([0, *lengths], dtype=np.int64),
    )


def example() -> Crystals:
    """Rock salt MgO (2 atoms), silicon (2), water ice as it never was (3)."""
    return Crystals(
        numbers=np.array([12, 8, 14, 14, 1, 1, 8], dtype=np.uint8),
        frac_coords=np.array(
            [[0, 0, 0], [0.5, 0.5, 0.5], [0, 0, 0], [0.25] * 3, [0.1, 0, 0], [0, 0.1, 0], [0, 0, 0]]
        ),
        lattices=np.array([np.full((3, 3), 2.1) - 2.1 * np.eye(3)] * 2 + [4.0 * np.eye(3)]),
        offsets=np.array([0, 2, 4, 7]),
    )


def assert_same(one: Crystals, other: Crystals) -> None:
    for name, array in one.columns().items():
        assert array.dtype == other.columns()[name].dtype
        np.testing.assert_array_equal(array, other.columns()[name], err_msg=name)


# --- rows -----------------------------------------------------------------------------------------


@given(crystal_sets(), st.integers(-6, 6), st.integers(-6, 6), st.sampled_from([None, 1, 2, -1]))
def test_a_slice_holds_the_rows_that_gathering_gives(crystals, start, stop, step):
    window = slice(start, stop, step)
    rows = np.arange(len(crystals))[window]
    assert_same(crystals[window], crystals[rows])
    mask = np.isin(np.arange(len(crystals)), rows)
    assert_same(crystals[mask], crystals[np.sort(rows)])
    for position, row in enumerate(rows):
        assert_same(crystals[window][position], crystals[int(row)])


@given(crystal_sets(), st.data())
def test_a_slice_of_a_slice_and_its_rows_agree_with_the_whole(crystals, data):
    start = data.draw(st.integers(0, len(crystals)))
    part = crystals[start:]
    picks = data.draw(st.lists(st.integers(0, max(0, len(part) - 1)), max_size=6))
    if not len(part):
        picks = []
    rows = np.array(picks, dtype=int)
    assert_same(part[rows], crystals[rows + start])
    for row in range(len(part)):
        assert part.atom_slice(row).stop - part.atom_slice(row).start == part.n_atoms[row]
        np.testing.assert_array_equal(
            part.numbers[part.atom_slice(row)], crystals.numbers[crystals.atom_slice(start + row)]
        )
    np.testing.assert_array_equal(part.volumes_ang3, crystals.volumes_ang3[start:])
    np.testing.assert_array_equal(part.compositions(), crystals.compositions()[start:])
    np.testing.assert_array_equal(part.reduced_formulas(), crystals.reduced_formulas()[start:])
    np.testing.assert_array_equal(part.row_of_atom, np.repeat(np.arange(len(part)), part.n_atoms))


def test_slices_are_views_and_gathers_are_copies():
    crystals = example()
    for name in ("numbers", "frac_coords", "lattices", "offsets"):
        assert np.shares_memory(getattr(crystals[1:3], name), getattr(crystals, name))
        assert not np.shares_memory(getattr(crystals[[1, 2]], name), getattr(crystals, name))


@given(crystal_sets(), st.integers(0, 5))
def test_concatenating_the_parts_gives_the_whole(crystals, cut):
    assert_same(Crystals.concatenate([crystals[:cut], crystals[cut:]]), crystals)
    assert_same(Crystals.concatenate(list(crystals)), crystals)


def test_no_rows_are_crystals_too(tmp_path):
    none = example()[:0]
    assert len(none) == 0
    assert none.compositions().shape == (0, 118)
    assert none.row_hashes().shape == (0, 32)
    assert none.reduced_formulas().tolist() == []
    assert_same(example()[[]], none)
    assert_same(Crystals.concatenate([]), none)
    assert_same(Crystals.from_structures([]), none)
    none.save(tmp_path / "none.npz")
    assert_same(Crystals.load(tmp_path / "none.npz"), none)


@pytest.mark.parametrize(
    "rows", [3, -4, [0, 3], np.array([True, False]), [0.5], np.zeros((2, 2), int)]
)
def test_rows_that_are_not_there_are_refused(rows):
    with pytest.raises(IndexError):
        example()[rows]


# --- what a row is --------------------------------------------------------------------------------


def test_volumes_compositions_and_formulas_of_known_crystals():
    crystals = example()
    np.testing.assert_allclose(crystals.volumes_ang3, [2 * 2.1**3, 2 * 2.1**3, 64.0])
    left_handed = Crystals(**(crystals.columns() | {"lattices": crystals.lattices[:, ::-1].copy()}))
    np.testing.assert_allclose(left_handed.volumes_ang3, crystals.volumes_ang3)
    assert crystals.compositions()[2, [0, 7]].tolist() == [2.0, 1.0]
    assert crystals.compositions().sum() == 7
    assert crystals.fractions()[0, [7, 11]].tolist() == [0.5, 0.5]
    assert crystals.reduced_formulas().tolist() == ["MgO", "Si", "H2O"]
    assert crystals.n_atoms.tolist() == [2, 2, 3]


@given(crystal_sets())
def test_fractions_sum_to_one_and_volumes_are_determinants(crystals):
    np.testing.assert_allclose(crystals.fractions().sum(axis=1), 1.0, rtol=1e-14)
    np.testing.assert_allclose(triple_products(crystals.lattices), np.linalg.det(crystals.lattices))


@given(crystal_sets(min_rows=2), st.data())
def test_hashes_belong_to_the_content_and_not_to_the_place(crystals, data):
    order = np.array(data.draw(st.permutations(range(len(crystals)))))
    np.testing.assert_array_equal(crystals[order].row_hashes(), crystals.row_hashes()[order])
    np.testing.assert_array_equal(crystals[1:].row_hashes(), crystals.row_hashes()[1:])
    same_content = [
        [
            one.n_atoms.tolist() == other.n_atoms.tolist()
            and all(
                np.array_equal(getattr(one, name), getattr(other, name))
                for name in ("numbers", "frac_coords", "lattices")
            )
            for other in crystals
        ]
        for one in crystals
    ]
    hashes = [row.tobytes() for row in crystals.row_hashes()]
    assert same_content == [[one == other for other in hashes] for one in hashes]


@pytest.mark.parametrize("name", ["numbers", "frac_coords", "lattices"])
def test_a_change_in_the_last_bit_changes_that_rows_hash_alone(name):
    crystals = example()
    columns = {key: array.copy() for key, array in crystals.columns().items()}
    first = columns[name].reshape(-1)[:1]
    first[:] = np.nextafter(first, 9.0) if first.dtype == np.float64 else first + 1
    changed = Crystals(**columns).row_hashes()
    assert (changed != crystals.row_hashes()).any(axis=1).tolist() == [True, False, False]


def test_minus_zero_is_zero_to_the_hash():
    columns = example().columns()
    minus = columns | {"frac_coords": np.where(columns["frac_coords"] == 0, -0.0, 0.5)}
    plus = columns | {"frac_coords": np.where(columns["frac_coords"] == 0, 0.0, 0.5)}
    np.testing.assert_array_equal(Crystals(**minus).row_hashes(), Crystals(**plus).row_hashes())


def test_the_hash_is_the_one_that_stored_predictions_are_filed_under():
    digest = example().row_hashes()[0].tobytes().hex()
    assert digest == "ea8d442ecf29b5f87e27bff25cd00625d5a52ef1b46fd283a6a7cf1fc5d96050"


_formula = st.dictionaries(
    st.sampled_from(SYMBOLS[:94]), st.integers(1, 12), min_size=1, max_size=5
)


@pytest.mark.filterwarnings("ignore:No Pauling electronegativity")  # pymatgen, of He, Ne and Ar
@given(st.lists(_formula, min_size=1, max_size=8), st.data())
def test_reduced_formulas_group_rows_as_pymatgen_does(formulas, data):
    from pymatgen.core import Composition

    multiples = [
        {symbol: count * k for symbol, count in formulas[i].items()}
        for i, k in data.draw(
            st.lists(st.tuples(st.integers(0, len(formulas) - 1), st.integers(1, 4)), max_size=5)
        )
    ]
    every = formulas + multiples
    counts = np.zeros((len(every), 118))
    for row, formula in enumerate(every):
        for symbol, count in formula.items():
            counts[row, NUMBERS[symbol] - 1] = count
    ours = reduced_formulas(counts).tolist()
    theirs = [Composition(formula).reduced_formula for formula in every]
    assert [[a == b for b in ours] for a in ours] == [[a == b for b in theirs] for a in theirs]
    for mine, formula in zip(ours, every, strict=True):  # and each still says what it is made of
        assert Composition(mine).fractional_composition.almost_equals(
            Composition(formula).fractional_composition
        )


def test_formulas_read_as_they_are_usually_written():
    from pymatgen.core import Composition

    for text in ("Fe2O3", "NaCl", "LiFePO4", "SrTiO3", "GaAs", "SiC", "Cs2AgBiBr6", "Mg"):
        counts = np.zeros((1, 118))
        for element, count in Composition(text).items():
            counts[0, element.Z - 1] = 3 * count
        assert reduced_formulas(counts).tolist() == [text]


def test_symbols_and_their_order_are_pymatgens():
    from pymatgen.core import Element

    assert [Element.from_Z(z).symbol for z in range(1, 119)] == list(SYMBOLS)
    every_pair = np.zeros((117, 118))
    every_pair[np.arange(117), np.arange(117)] = 1
    every_pair[np.arange(117), np.arange(1, 118)] = 1
    no_scale = {"He", "Ne", "Ar", *SYMBOLS[103:]}
    for formula, pair in zip(reduced_formulas(every_pair), pairwise(SYMBOLS), strict=True):
        if not no_scale & set(pair):
            assert formula == "".join(sorted(pair, key=lambda symbol: Element(symbol).X))


# --- in and out -----------------------------------------------------------------------------------


@settings(max_examples=15)
@given(crystal_sets().filter(apart))
def test_structures_come_back_as_they_went_in(crystals):
    structures = [crystals.structure(row) for row in range(len(crystals))]
    again = Crystals.from_structures(structures)
    assert_same(again, crystals)
    assert [again.structure(row) for row in range(len(again))] == structures


@settings(max_examples=15)
@given(crystal_sets().filter(apart))
def test_ase_atoms_come_back_as_they_went_in(crystals):
    again = Crystals.from_ase([crystals.atoms(row) for row in range(len(crystals))])
    np.testing.assert_array_equal(again.numbers, crystals.numbers)
    np.testing.assert_array_equal(again.offsets, crystals.offsets)
    np.testing.assert_array_equal(again.lattices, crystals.lattices)
    np.testing.assert_allclose(again.frac_coords, crystals.frac_coords, atol=1e-13)
    for row in range(len(crystals)):
        assert crystals.atoms(row).pbc.all()
        np.testing.assert_allclose(
            crystals.atoms(row).positions,
            crystals.structure(row).cart_coords,
            atol=1e-12,
        )


@settings(max_examples=15)
@given(crystals=crystal_sets().filter(apart), cut=st.integers(0, 5))
def test_saving_and_loading_changes_nothing(crystals, cut, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "crystals.npz"
    for part in (crystals, crystals[cut:]):
        part.save(path)
        assert_same(Crystals.load(path), part)


def test_files_are_read_in_the_order_given(tmp_path):
    crystals = example()
    crystals.structure(0).to_file(str(tmp_path / "mgo.json"))
    crystals.structure(1).to_file(str(tmp_path / "POSCAR"))
    again = Crystals.from_files([tmp_path / "POSCAR", str(tmp_path / "mgo.json")])
    assert again.reduced_formulas().tolist() == ["Si", "MgO"]
    np.testing.assert_allclose(again.lattices, crystals.lattices[[1, 0]], atol=1e-8)


def test_files_that_are_missing_or_no_structures_are_named(tmp_path):
    (tmp_path / "bad.cif").write_text("nothing of the kind")
    for name in ("bad.cif", "missing.cif"):
        with pytest.raises(DataError, match=name):
            Crystals.from_files([tmp_path / name])


def test_oxidation_states_and_isotopes_are_elements():
    from pymatgen.core import Lattice, Structure

    charged = Structure(Lattice.cubic(4.2), ["Mg2+", "O2-"], [[0, 0, 0], [0.5] * 3])
    heavy = Structure(Lattice.cubic(4.2), ["D", "O"], [[0, 0, 0], [0.5] * 3])
    assert Crystals.from_structures([charged, heavy]).numbers.tolist() == [12, 8, 1, 8]


@pytest.mark.parametrize(
    ("species", "message"),
    [
        ({"Fe": 0.5, "Ni": 0.5}, "row 1, site 0.*partly occupied"),
        ({"Fe": 0.9}, "row 1, site 0.*partly occupied"),
        ("X2+", "row 1, site 0.*not an element"),
    ],
)
def test_sites_without_one_element_are_refused_with_their_row(species, message):
    from pymatgen.core import DummySpecies, Lattice, Structure

    if isinstance(species, str):
        species = DummySpecies("X", 2)
    odd = Structure(Lattice.cubic(3.0), [species], [[0, 0, 0]])
    with pytest.raises(DataError, match=message):
        Crystals.from_structures([example().structure(0), odd])


def test_atoms_that_do_not_repeat_in_space_are_refused_with_their_row():
    from ase import Atoms

    molecule = Atoms("N2", positions=[[0, 0, 0], [0, 0, 1.1]])
    with pytest.raises(DataError, match=r"row 1 \(N2\) has pbc"):
        Crystals.from_ase([example().atoms(0), molecule])
    molecule.pbc = True
    with pytest.raises(DataError, match=r"row 0 \(N2\) has a cell of at most"):
        Crystals.from_ase([molecule])
    molecule.cell = 5 * np.eye(3)
    molecule.numbers[1] = 0
    with pytest.raises(DataError, match=r"row 0 .*outside 1\.\.118"):
        Crystals.from_ase([molecule])


def _with(name: str, position: object, value: object) -> dict[str, np.ndarray]:
    columns = {key: array.copy() for key, array in example().columns().items()}
    columns[name][position] = value
    return columns


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (_with("numbers", 5, 0), r"row 2 has an atomic number"),
        (_with("numbers", 2, 119), r"row 1 has an atomic number"),
        (_with("frac_coords", (3, 1), np.nan), r"row 1 has a coordinate"),
        (_with("frac_coords", (6, 1), np.inf), r"row 2 has a coordinate"),
        (_with("lattices", (0, 1, 1), np.nan), r"row 0 has a lattice vector"),
        (_with("lattices", (1, 0), [4.2, 0.0, 4.2]), r"row 1 has a cell of at most"),
        (_with("lattices", 2, 1e200), r"row 2 has a lattice vector beyond 10000 Å"),
        (_with("offsets", 2, 2), r"row 1 has no atoms"),
        (_with("offsets", 2, 1), r"row 1 has no atoms"),
        (_with("offsets", 3, 6), r"offsets span 6 atoms and there are 7"),
        (example().columns() | {"offsets": np.array([0, 7])}, r"3 lattices with 2 offsets"),
        (example().columns() | {"offsets": np.array([0.0, 2, 4, 7])}, r"offsets is .*float64"),
        (example().columns() | {"numbers": np.ones(7, int)}, r"numbers is .*int64"),
        (example().columns() | {"lattices": np.ones((3, 9))}, r"lattices is .*\(3, 9\)"),
        (example().columns() | {"frac_coords": np.ones((6, 3))}, r"7 numbers with 6 coordinates"),
        (example().columns() | {"numbers": [12] * 7}, r"numbers is list"),
    ],
)
def test_columns_that_do_not_fit_are_refused_with_their_row(columns, message):
    with pytest.raises(DataError, match=message):
        Crystals(**columns)


def test_a_damaged_file_is_never_read_as_crystals(tmp_path):
    path = tmp_path / "crystals.npz"
    example().save(path)
    good = path.read_bytes()
    crystals = Crystals.load(path)
    for at in range(0, len(good), 7):
        path.write_bytes(good[:at])
        with pytest.raises(DataError, match=r"crystals\.npz"):
            Crystals.load(path)
        path.write_bytes(good[:at] + bytes([good[at] ^ 0x10]) + good[at + 1 :])
        try:
            again = Crystals.load(path)
        except DataError:
            continue
        assert_same(again, crystals)  # a byte that means nothing, a date in the container say


def test_files_of_another_kind_are_refused(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        Crystals.load(tmp_path / "missing.npz")
    write_columns(tmp_path / "other.npz", {"a": np.arange(3)}, {"kind": "other"})
    with pytest.raises(DataError, match="holds 'other'"):
        Crystals.load(tmp_path / "other.npz")
    np.savez(tmp_path / "pickled.npz", header_json=np.array([object()]), allow_pickle=True)
    with pytest.raises(DataError, match="not a columns file"):
        read_columns(tmp_path / "pickled.npz")
    np.savez(tmp_path / "bare.npz", a=np.arange(3))
    with pytest.raises(DataError, match="not a columns file"):
        read_columns(tmp_path / "bare.npz")


def test_an_interrupted_save_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "crystals.npz"
    example()[:1].save(path)

    def interrupted(stream, **columns):
        stream.write(b"half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", interrupted)
    with pytest.raises(KeyboardInterrupt):
        example().save(path)
    assert [child.name for child in tmp_path.iterdir()] == ["crystals.npz"]
    assert_same(Crystals.load(path), example()[:1])


def test_importing_the_data_layer_imports_nothing_heavy():
    heavy = ("torch", "pymatgen", "pandas", "pyarrow", "sklearn", "scipy", "matbench", "ase")
    code = f"import sys, harness.data; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
