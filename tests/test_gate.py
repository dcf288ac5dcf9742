"""One gate: every door refuses the same crystal in the same words, and lets the same ones in."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from harness.data import Crystals, gate, load_dataset, texts
from harness.data.frames import load_dimers, load_frames
from harness.data.reference_files import read_reference
from harness.data.structure_files import MOST_POSITIONS, read_structures
from harness.errors import ConfigError, DataError

SALT = np.diag([5.0, 5.0, 5.0])
PLACES = [[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]]


@pytest.fixture(autouse=True)
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    monkeypatch.delenv(texts.MOST_VARIABLE, raising=False)


# --- doors ----------------------------------------------------------------------------------------


def by_pymatgen(symbols: list[str], places: list[list[float]], folder: Path) -> Crystals:
    from pymatgen.core import Lattice, Structure

    return Crystals.from_structures([Structure(Lattice(SALT), symbols, places)])


def by_ase(symbols: list[str], places: list[list[float]], folder: Path) -> Crystals:
    from ase import Atoms

    numbers = [gate.atomic_number(symbol, "row 0, site 0") for symbol in symbols]
    return Crystals.from_ase([Atoms(numbers, scaled_positions=places, cell=SALT, pbc=True)])


def poscar(symbols: list[str], places: list[list[float]]) -> str:
    cell = "\n".join(" ".join(f"{x:.10f}" for x in row) for row in SALT)
    sites = "\n".join(" ".join(f"{x:.10f}" for x in place) for place in places)
    ones = " ".join("1" for _ in symbols)
    return f"test\n1.0\n{cell}\n{' '.join(symbols)}\n{ones}\ndirect\n{sites}\n"


def cif(symbols: list[str], places: list[list[float]], *, occupancy: str = "1") -> str:
    cell = "".join(f"_cell_length_{x} 5\n" for x in "abc")
    cell += "".join(f"_cell_angle_{x} 90\n" for x in ("alpha", "beta", "gamma"))
    columns = ("label", "type_symbol", "fract_x", "fract_y", "fract_z", "occupancy")
    loop = "loop_\n" + "".join(f"_atom_site_{column}\n" for column in columns)
    sites = "".join(
        f"{symbol}{k} {symbol} {x:.10f} {y:.10f} {z:.10f} {occupancy}\n"
        for k, (symbol, (x, y, z)) in enumerate(zip(symbols, places, strict=True))
    )
    return f"data_test\n{cell}_symmetry_space_group_name_H-M 'P 1'\n{loop}{sites}"


def extended_xyz(
    symbols: list[str],
    places: list[list[float]],
    more: str = "",
    columns: str = "",
    values: str = "",
    cell: np.ndarray = SALT,
) -> str:
    lattice = " ".join(f"{x:.10f}" for x in cell.reshape(-1))
    positions = np.array(places) @ cell
    sites = "".join(
        f"{symbol} {x:.10f} {y:.10f} {z:.10f} {values}\n"
        for symbol, (x, y, z) in zip(symbols, positions, strict=True)
    )
    return (
        f'{len(symbols)}\nLattice="{lattice}" Properties=species:S:1:pos:R:3{columns} '
        f'pbc="T T T" {more}\n{sites}'
    )


def structure(symbols: list[str], places: list[list[float]], **lattice: object) -> dict:
    sites = [
        {"species": [{"element": symbol, "occu": 1}], "abc": place}
        for symbol, place in zip(symbols, places, strict=True)
    ]
    return {"lattice": {"matrix": SALT.tolist(), **lattice}, "sites": sites}


def by_file(name: str, write: Callable[..., str], read: Callable) -> Callable:
    def door(symbols: list[str], places: list[list[float]], folder: Path) -> Crystals:
        (folder / name).write_text(write(symbols, places))
        found = read(folder / name)
        return getattr(found, "crystals", found)

    return door


def by_layout(symbols: list[str], places: list[list[float]], folder: Path) -> Crystals:
    table = {
        "index": [7],
        "columns": ["structure", "e_form"],
        "data": [[structure(symbols, places), -1.0]],
    }
    (folder / "rows.json").write_text(json.dumps(table))
    return load_dataset(folder / "rows.json").require_crystals()


def by_mlearn(symbols: list[str], places: list[list[float]], folder: Path) -> Crystals:
    frame = {
        "structure": structure(symbols, places),
        "group": "",
        "num_atoms": len(symbols),
        "outputs": {
            "energy": -1.0,
            "forces": [[0.0] * 3] * len(symbols),
            "virial_stress": [0.0] * 6,
        },
    }
    (folder / "Si-test.json").write_text(json.dumps([frame]))
    return load_frames("mlearn-Si", folder / "Si-test.json").crystals


def by_frames(symbols: list[str], places: list[list[float]], folder: Path) -> Crystals:
    units = 'energy_unit=eV forces_unit=eV/A stress_unit=eV/A^3 energy=-1.0 a_id=x stress="'
    more = units + "0 0 0 0 0 0 0 0 0" + '"'
    text = extended_xyz(symbols, places, more, ":forces:R:3", "0 0 0")
    (folder / "mpf-TP.xyz").write_text(text)
    return load_frames("mpf-TP", folder / "mpf-TP.xyz").crystals


def from_file(path: Path) -> Crystals:
    return Crystals.from_files([path])


DOORS: dict[str, Callable[[list[str], list[list[float]], Path], Crystals]] = {
    "pymatgen": by_pymatgen,
    "ASE": by_ase,
    "POSCAR": by_file("POSCAR", poscar, from_file),
    "reference POSCAR": by_file("POSCAR", poscar, read_reference),
    "CIF": by_file("test.cif", cif, from_file),
    "reference CIF": by_file("test.cif", cif, read_reference),
    "extended XYZ": by_file("test.extxyz", extended_xyz, from_file),
    "reference extended XYZ": by_file("test.extxyz", extended_xyz, read_reference),
    "layout": by_layout,
    "mlearn": by_mlearn,
    "frames": by_frames,
}


@pytest.mark.parametrize("door", DOORS)
def test_every_door_lets_the_same_crystal_in(door: str, tmp_path: Path) -> None:
    found = DOORS[door](["Na", "Cl"], PLACES, tmp_path)
    assert found.numbers.tolist() == [11, 17]
    np.testing.assert_allclose(found.frac_coords % 1, PLACES, atol=1e-9)
    np.testing.assert_allclose(found.lattices[0], SALT, atol=1e-9)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("far", [0.29 / 5, -0.29 / 5 + 1])  # the second across the cell's wall
def test_every_door_refuses_two_atoms_in_one_place(door: str, far: float, tmp_path: Path) -> None:
    places = [[0.5, 0.5, 0.5], [0.0, 0.0, 0.0], [0.0, 0.0, far]]
    with pytest.raises(DataError, match=r"Cl \(\d\) and Cl \(\d\) are 0\.2900 Å apart, closer"):
        DOORS[door](["Na", "Cl", "Cl"], places, tmp_path)
    places[2][2] = 0.31 / 5
    assert len(DOORS[door](["Na", "Cl", "Cl"], places, tmp_path).numbers) == 3


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("symbol", ["D", "T"])
def test_deuterium_and_tritium_are_hydrogen_at_every_door(
    door: str, symbol: str, tmp_path: Path
) -> None:
    found = DOORS[door](["O", symbol], PLACES, tmp_path)
    assert sorted(found.numbers.tolist()) == [1, 8]


@pytest.mark.filterwarnings("ignore")  # pymatgen's, of symbols it does not know
@pytest.mark.parametrize("door", [door for door in DOORS if door != "pymatgen"])
def test_every_door_refuses_what_is_no_element(door: str, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        DOORS[door](["Na", "Qq"], PLACES, tmp_path)


def test_pbc_other_than_three_times_true_is_refused_with_what_to_do(tmp_path: Path) -> None:
    from pymatgen.core import Lattice, Structure

    said = r"pbc=\[True, True, False\]\. Crystals repeat in three directions: .*15 Å of vacuum"
    slab = Structure(Lattice(SALT, pbc=(True, True, False)), ["Na", "Cl"], PLACES)
    with pytest.raises(DataError, match=rf"row 0 has {said}"):
        Crystals.from_structures([slab])
    with pytest.raises(DataError, match=rf"row 0 \(ClNa\) has {said}"):
        Crystals.from_ase([slab.to_ase_atoms()])
    slab.to_file(str(tmp_path / "slab.json"))
    with pytest.raises(DataError, match=rf"slab\.json has {said}"):
        Crystals.from_files([tmp_path / "slab.json"])
    (tmp_path / "slab.extxyz").write_text(
        extended_xyz(["Na"], [[0.0] * 3]).replace("T T T", "T T F")
    )
    with pytest.raises(DataError, match=rf"slab\.extxyz, frame 0 has {said}"):
        read_reference(tmp_path / "slab.extxyz")
    rows = [
        [structure(["Na", "Cl"], PLACES, pbc=p), -1.0] for p in ([True] * 3, [True, True, False])
    ]
    table = {"index": [0, 5], "columns": ["structure", "e_form"], "data": rows}
    (tmp_path / "rows.json").write_text(json.dumps(table))
    with pytest.raises(DataError, match=rf"row 1 \(index 5, mb-mp-e-form-000006\) has {said}"):
        load_dataset(tmp_path / "rows.json")
    table["data"][1][0]["lattice"]["pbc"] = "T T F"
    (tmp_path / "rows.json").write_text(json.dumps(table))
    with pytest.raises(DataError, match=r"lattice\.pbc is 'T T F'"):
        load_dataset(tmp_path / "rows.json")


def test_occupancies_are_seen_wherever_they_are_kept(tmp_path: Path) -> None:
    from ase import Atoms
    from ase.io import read

    half = "is partly occupied.*Only ordered structures have one energy"
    (tmp_path / "half.cif").write_text(cif(["Na", "Cl"], PLACES, occupancy="0.5"))
    for door in (from_file, read_reference, lambda path: Crystals.from_ase([read(path)])):
        with pytest.raises(DataError, match=half):
            door(tmp_path / "half.cif")
    column = Atoms("NaCl", scaled_positions=PLACES, cell=SALT, pbc=True)
    column.set_array("occupancy", np.array([1.0, 0.5]))
    with pytest.raises(DataError, match=rf"row 0 \(ClNa\), site 1 {half}"):
        Crystals.from_ase([column])
    column.set_array("occupancy", np.array([1.0, 1.0]))
    assert len(Crystals.from_ase([column])) == 1
    (tmp_path / "none.cif").write_text(cif(["Na", "Cl"], PLACES, occupancy="0"))
    with pytest.raises(DataError, match=rf"site 0 \(Na0\) {half.split('.')[0]}"):
        from_file(tmp_path / "none.cif")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"lattices": SALT * 1e4}, "row 0 has a lattice vector beyond 10000 Å"),
        ({"lattices": SALT * np.nan}, "row 0 has a lattice vector that is not finite"),
        ({"lattices": SALT * 1e-2}, r"row 0 has a cell of at most 0\.001 Å\^3: \[\[0\.05"),
        (
            {"frac_coords": np.array([[0, 0, 1e5], [0.5] * 3])},
            "row 0 has a coordinate beyond 10000",
        ),
        ({"frac_coords": np.array([[0, 0, np.inf], [0.5] * 3])}, "coordinate that is not finite"),
        ({"numbers": np.array([0, 1], np.uint8)}, r"an atomic number outside 1\.\.118"),
    ],
)
def test_rows_beyond_any_crystal_are_refused(change: dict, said: str) -> None:
    columns = {
        "numbers": np.array([11, 17], np.uint8),
        "frac_coords": np.array(PLACES),
        "lattices": SALT[None],
        "offsets": np.array([0, 2]),
    }
    wrong = {key: value[None] if key == "lattices" else value for key, value in change.items()}
    with pytest.raises(DataError, match=said):
        Crystals(**columns | wrong)
    with pytest.raises(DataError, match=said):
        Crystals.admitted(**columns | wrong)


def test_saved_crystals_go_through_the_gate_again(tmp_path: Path) -> None:
    close = Crystals(
        numbers=np.array([1, 1], np.uint8),
        frac_coords=np.array([[0.0] * 3, [0.01, 0, 0]]),
        lattices=SALT[None],
        offsets=np.array([0, 2]),
    )  # which the project may build itself
    close.save(tmp_path / "close.npz")
    with pytest.raises(DataError, match=r"close\.npz, row 0: H \(0\) and H \(1\) are 0\.0500 Å"):
        Crystals.load(tmp_path / "close.npz")
    assert len(Crystals.from_ase([close.atoms(0)], closest_ang=0)) == 1
    from harness.data.columns import read_columns, write_columns

    arrays, header = read_columns(tmp_path / "close.npz")
    write_columns(tmp_path / "more.npz", {**arrays, "charges": np.zeros(2)}, header)
    with pytest.raises(DataError, match=r"holds charges, .*expected numbers"):
        Crystals.load(tmp_path / "more.npz")


# --- distances ------------------------------------------------------------------------------------


def nearest(frac: np.ndarray, lattice: np.ndarray, reach: int) -> float:
    """The least distance between two atoms or an atom and an image, image by image."""
    images = np.array(list(product(range(-reach, reach + 1), repeat=3))) @ lattice
    best = np.inf
    for i, j in product(range(len(frac)), repeat=2):
        step = frac[i] - frac[j]
        lengths = np.linalg.norm((step - np.round(step)) @ lattice + images, axis=1)
        best = min(best, float(lengths[lengths > (1e-9 if i == j else -1)].min()))
    return best


_place = st.one_of(st.floats(-2, 2), st.integers(-8, 8).map(lambda k: k / 4))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    cell=st.lists(st.floats(-1.5, 1.5), min_size=9, max_size=9),
    size=st.sampled_from([0.4, 1.0, 3.0, 8.0]),
    skew=st.integers(-2, 2),
    frac=st.lists(st.tuples(_place, _place, _place), min_size=1, max_size=6),
)
def test_what_is_near_is_found_in_any_cell(
    cell: list[float], size: float, skew: int, frac: list[tuple[float, float, float]]
) -> None:
    lattice = np.array(cell).reshape(3, 3) * size + size * np.eye(3)
    lattice[2] += skew * lattice[0]
    heights = 1 / np.linalg.norm(np.linalg.inv(lattice), axis=0) if np.linalg.det(lattice) else [0]
    assume(min(heights) > 0.15)  # so that six images each way are enough
    places = np.array(frac)
    true = nearest(places, lattice, 6)
    assume(abs(true - gate.CLOSEST_ANG) > 1e-6)
    found = gate.too_close(places, lattice[None], np.array([0, len(places)]))
    assert (found is not None) == (true < gate.CLOSEST_ANG)
    if found is not None:
        row, one, other, distance = found
        assert row == 0
        assert true - 1e-9 <= distance < gate.CLOSEST_ANG
        if one != other:
            pair = nearest(places[[one, other]], lattice, 6)
            assert pair <= distance + 1e-9


def test_the_first_row_is_named_with_a_pair_of_its_own() -> None:
    rng = np.random.default_rng(0)
    n = 2500  # more than a block of rows
    places = np.tile(np.array(PLACES), (n, 1)) + np.repeat(rng.random((n, 1)), 2, axis=0)
    places[2 * 1234 + 1] = places[2 * 1234] + [0, 0, 0.02]
    places[2 * 1999 + 1] = places[2 * 1999]
    lattices, offsets = np.tile(SALT, (n, 1, 1)), 2 * np.arange(n + 1)
    row, one, other, distance = gate.too_close(places, lattices, offsets)  # type: ignore[misc]
    assert (row, one, other) == (1234, 0, 1)
    assert distance == pytest.approx(0.1)
    later = gate.too_close(places[2 * 1500 :], lattices[1500:], offsets[1500:])
    assert later == (499, 0, 1, 0.0)
    assert gate.too_close(places[: 2 * 1234], lattices[:1234], offsets[:1235]) is None


def test_an_atom_near_its_own_image_is_said_to_be_so() -> None:
    thin = np.array([[0.25, 0, 0], [0, 5, 0], [0.1, 0, 5]])
    with pytest.raises(DataError, match=r"H \(0\) and its own periodic image are 0\.2500 Å apart"):
        gate.check_distances(
            np.array([1]), np.zeros((1, 3)), thin[None], np.array([0, 1]), lambda _: "it"
        )
    # the same lattice, with vectors that hide it
    hidden = np.array([[1, 0, 0], [3, 1, 0], [-4, 2, 1]]) @ thin
    found = gate.too_close(np.zeros((1, 3)), hidden[None], np.array([0, 1]))
    assert found == (0, 0, 0, pytest.approx(0.25))


@pytest.mark.parametrize("n", [40_000])
def test_crowds_are_refused_and_large_crystals_let_in_without_waiting(n: int) -> None:
    offsets = np.array([0, n])
    start = time.process_time()
    assert gate.too_close(np.zeros((n, 3)), SALT[None], offsets) is not None
    places = np.random.default_rng(0).random((n, 3))
    assert gate.too_close(places, SALT[None], offsets) is not None
    assert gate.too_close(places * 1e-3, SALT[None] * 1000, offsets) is not None
    grid = np.array(list(product(np.arange(32) / 32, repeat=3)))
    assert gate.too_close(grid, SALT[None] * 3, np.array([0, len(grid)])) is None
    assert gate.too_close(grid, SALT[None] * 1.9, np.array([0, len(grid)])) is not None
    assert time.process_time() - start < 4


# --- files are read as a whole --------------------------------------------------------------------


def written(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text)
    return folder / name


@pytest.mark.parametrize(
    ("symbol", "said"),
    [
        ("?", r"site 1 \(\?1\): '\?' is not an element"),
        ("l", "site 1 .*'l' is not an element"),
        (".", "is not an element"),
    ],
)
def test_a_cif_site_that_would_be_dropped_is_refused(
    symbol: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=said):
        from_file(written(tmp_path, "a.cif", cif(["Na", symbol], PLACES)))


def test_every_block_of_a_cif_is_read_or_the_file_is_refused(tmp_path: Path) -> None:
    one, two = cif(["Na", "Cl"], PLACES), cif(["K", "Br"], PLACES).replace("data_test", "data_kbr")
    both = read_structures(written(tmp_path, "two.cif", one + two))
    assert both.crystals.reduced_formulas().tolist() == ["NaCl", "KBr"]
    with pytest.raises(DataError, match=r"two\.cif holds 2 structures, and a file makes one row"):
        from_file(tmp_path / "two.cif")
    wrong = two.replace("_cell_length_a 5\n", "")
    with pytest.raises(DataError, match=r"wrong\.cif cannot be read as a structure"):
        read_structures(written(tmp_path, "wrong.cif", one + wrong))
    assert len(read_structures(written(tmp_path, "same.cif", one + one)).crystals) == 2
    pattern = two.replace("data_kbr", "data_powder_pattern")  # which the reader passes over
    with pytest.raises(DataError, match="block powder_pattern has sites, and 0 structures"):
        read_structures(written(tmp_path, "pattern.cif", one + pattern))
    close = one + two.replace("0.5000000000", "0.0100000000")
    with pytest.raises(
        DataError, match=r"many\.cif, block kbr: K \(0\) and Br \(1\) are 0\.0866 Å"
    ):
        read_structures(written(tmp_path, "many.cif", close))
    comment = "data_global\n_publ_author_name 'A'\n"
    assert len(from_file(written(tmp_path, "more.cif", comment + one))) == 1


def test_a_cif_that_says_more_than_its_sites_is_refused(tmp_path: Path) -> None:
    text = cif(["Na", "Cl"], PLACES)
    formula = text.replace("loop_", "_chemical_formula_sum 'H2 Na1 Cl1'\nloop_")
    with pytest.raises(DataError, match=r"are not what its formula says.*Missing elements H"):
        from_file(written(tmp_path, "h.cif", formula))
    attached = text.replace("occupancy\n", "occupancy\n_atom_site_attached_hydrogens\n")
    attached = attached.replace(" 1\n", " 1 2\n")
    with pytest.raises(DataError, match="hydrogen without coordinates"):
        from_file(written(tmp_path, "att.cif", attached))
    operations = "loop_\n_symmetry_equiv_pos_as_xyz\n" + "'x, y, z'\n" * 193
    with pytest.raises(
        DataError, match="193 symmetry operations; no space group has more than 192"
    ):
        from_file(written(tmp_path, "ops.cif", text + operations))
    sites = [[k / 4000, 0.0, 0.0] for k in range(MOST_POSITIONS + 1)]
    with pytest.raises(DataError, match=f"more than {MOST_POSITIONS} positions"):
        from_file(written(tmp_path, "large.cif", cif(["H"] * len(sites), sites)))


def test_a_hexagonal_site_with_three_digits_is_refused_and_an_exact_one_read(
    tmp_path: Path,
) -> None:
    text = cif(["Zn"], [[1 / 3, 2 / 3, 0.25]]).replace("'P 1'", "'P 63/m m c'")
    text = text.replace("_cell_length_a 5", "_cell_length_a 2.66")
    text = text.replace("_cell_length_b 5", "_cell_length_b 2.66").replace("gamma 90", "gamma 120")
    assert len(from_file(written(tmp_path, "exact.cif", text)).numbers) == 2
    rounded = text.replace("0.3333333333", "0.333").replace("0.6666666667", "0.667")
    for door in (from_file, read_reference):
        with pytest.raises(DataError, match=r"Zn \(\d\) and Zn \(\d\) are 0\.00\d+ Å apart"):
            door(written(tmp_path, "rounded.cif", rounded))


def test_every_frame_is_read_or_the_file_is_refused(tmp_path: Path) -> None:
    one = extended_xyz(["Na", "Cl"], PLACES)
    assert len(read_structures(written(tmp_path, "a.xyz", one + one + "\n\n")).crystals) == 2
    for text, said in (
        (one + "\n" + one, r"frame 1 \(line 5\): the number of its atoms is expected"),
        (one + "2 atoms\n", "the number of its atoms is expected, and the line is '2 atoms'"),
        (one[:-40], "atom 1 has . columns"),
        ("\n".join(one.split("\n")[:3]), "announces 2 atoms, and 1 lines follow"),
        ("1000000000\n\n", "the number of its atoms is expected, and the line is"),
        ("999999999\n\n", "announces 999999999 atoms, and 0 lines follow"),
        ("-1\n\n", "the number of its atoms is expected"),
        ("0\n\n", "announces 0 atoms"),
        (one.replace("R:3", "R:3:x:R:999999999"), "'999999999' columns"),
        (one.replace("pbc=", "pbc=F pbc="), "pbc is given twice"),
    ):
        start = time.process_time()
        with pytest.raises(DataError, match=said):
            read_structures(written(tmp_path, "b.xyz", text))
        assert time.process_time() - start < 2


def test_a_poscar_has_as_many_positions_as_it_announces(tmp_path: Path) -> None:
    text = poscar(["Na", "Cl"], PLACES)
    with pytest.raises(DataError, match=r"POSCAR: .*cannot be determined.*symbols in the line"):
        from_file(written(tmp_path, "POSCAR", text.replace("Na Cl\n", "")))
    for counts, said in (
        ("1 2", "3 atoms are announced and 2 positions follow"),
        ("1 1 1", "2 element symbols for 3 counts"),
        ("1 -1", r"counts of its elements are \[1, -1\]"),
        ("1 999999999", "1000000000 atoms are announced"),
    ):
        with pytest.raises(DataError, match=said):
            from_file(written(tmp_path, "POSCAR", text.replace("\n1 1\n", f"\n{counts}\n")))
    with pytest.raises(DataError, match="2 atoms are announced and 3 positions follow"):
        from_file(written(tmp_path, "POSCAR", text + "0.25 0.25 0.25\n"))
    velocities = text + "\n0.25 0.25 0.25\n0.0 0.0 0.0\n"
    assert len(from_file(written(tmp_path, "CONTCAR", velocities)).numbers) == 2
    head, _, _ = text.partition("direct")
    fixed = f"{head}Selective dynamics\ndirect\n0.0 0.0 0.0 T T F\n0.5 0.5 0.5 F F F\n"
    assert len(from_file(written(tmp_path, "POSCAR", fixed)).numbers) == 2
    cell = "5 0 0\n0 5 0\n0 0 5\n"
    at_the_ends = f"of VASP 4\n1.0\n{cell}1 1\ndirect\n0 0 0 Na\n0.5 0.5 0.5 Cl\n"
    assert from_file(written(tmp_path, "POSCAR", at_the_ends)).numbers.tolist() == [11, 17]


def test_an_xsf_that_is_no_crystal_is_refused(tmp_path: Path) -> None:
    crystal = "CRYSTAL\nPRIMVEC\n5 0 0\n0 5 0\n0 0 5\nPRIMCOORD\n1 1\n11 0 0 0\n"
    assert from_file(written(tmp_path, "a.xsf", crystal)).numbers.tolist() == [11]
    with pytest.raises(DataError, match="it has SLAB, and one crystal"):
        from_file(written(tmp_path, "b.xsf", crystal.replace("CRYSTAL", "SLAB")))
    with pytest.raises(DataError, match="packed in a way that is not read"):
        from_file(written(tmp_path, "a.xsf.bz2", crystal))


# --- what a reference says of its forces and stress -----------------------------------------------


@pytest.mark.parametrize("key", ["forces", "REF_forces", "dft_force", "MACE_forces", "gradient"])
def test_forces_are_read_under_any_name(key: str, tmp_path: Path) -> None:
    def frame(force: str) -> Path:
        text = extended_xyz(["Na", "Cl"], PLACES, columns=f":{key}:R:3", values=force)
        return written(tmp_path, "a.extxyz", text)

    with pytest.raises(DataError, match=rf"NaCl has forces of up to 0\.110 eV/Å .*\({key}\)"):
        read_reference(frame("0 -0.11 0.05"))
    with pytest.raises(DataError, match=rf"forces of up to nan eV/Å .*\({key}\)"):
        read_reference(frame("0 nan 0"))
    found = read_reference(frame("0 -0.09 0.05"))
    assert found.source == "a.extxyz, not known to be relaxed"
    assert found.notes[0] == "NaCl: the file gives no stress; not known to be relaxed"


@pytest.mark.parametrize(
    ("key", "numbers", "refused"),
    [
        ("stress", [0, 0, 0, 0, 0, 0.7, 0, 0.7, 0], None),  # GPa: shear alone, no pressure
        ("stress", [0, 0, 0, 0, 0, 1.1, 0, 1.1, 0], r"up to 1\.10 GPa .*pressure -?\+?-?0\.00"),
        ("REF_stress", [1.2, 0, 0, 0, -1.2, 0, 0, 0, 0], r"up to 1\.20 GPa"),
        ("dft_stress", [-2, -2, -2, 0, 0, 0], r"up to 2\.00 GPa .*pressure \+2\.00"),
        ("virial", [2, 0, 0, 0, 2, 0, 0, 0, 2], r"up to 2\.00 GPa .*pressure \+2\.00"),
        ("REF_virials", [2, 2, 2, 0, 0, 0], r"up to 2\.00 GPa .*pressure \+2\.00"),
        ("stress", [0, 0, 0, 0, 0, 0.5, 0, 0.1, 0], "stress is not symmetric, by 0.4 GPa"),
        ("stress", [0, 0, 0, 0, 0, 0, 0, 0, np.nan], r"up to nan GPa"),
    ],
)
def test_every_component_of_the_stress_counts_under_any_name(
    key: str, numbers: list[float], refused: str | None, tmp_path: Path
) -> None:
    gpa_per_unit = 160.2176634 / (125.0 if "virial" in key else 1.0)
    value = " ".join(repr(x / gpa_per_unit) for x in numbers)
    text = extended_xyz(["Na", "Cl"], PLACES, f'{key}="{value}"', ":forces:R:3", "0.01 0 0")
    path = written(tmp_path, "a.extxyz", text)
    if refused is None:
        found = read_reference(path)
        assert found.source == "a.extxyz"  # both are there, and at rest
        assert found.notes[1].startswith("NaCl: stress up to 0.700 GPa, pressure ")
    else:
        with pytest.raises(DataError, match=refused):
            read_reference(path)


def test_what_looks_like_forces_and_cannot_be_read_is_named(tmp_path: Path) -> None:
    text = extended_xyz(["Na", "Cl"], PLACES, "max_force=0.02", ":stresses:R:6", "0 0 0 0 0 0")
    found = read_reference(written(tmp_path, "a.extxyz", text))
    assert found.notes[0] == (
        "NaCl: the file gives no forces and no stress that can be read (not read: max_force, "
        "stresses); not known to be relaxed"
    )


# --- sizes ----------------------------------------------------------------------------------------


def bomb(path: Path, head: bytes = b"", megabytes: int = 200) -> Path:
    with gzip.open(path, "wb", compresslevel=1) as stream:
        stream.write(head)
        for _ in range(megabytes):
            stream.write(b" " * 1_000_000)
    return path


def read_dimers(path: Path) -> object:
    return load_dimers("PBE", path)


def read_wbm(path: Path) -> object:
    from harness.data import wbm

    return wbm.load(path)


def read_elements(path: Path) -> object:
    from harness.data.references import parse

    return parse(path)


READERS: dict[str, tuple[Callable[[Path], object], bytes]] = {
    "POSCAR.gz": (from_file, b"a\n1.0\n"),
    "a.cif.gz": (from_file, b"data_a\n"),
    "a.extxyz.gz": (read_reference, b"2\n"),
    "vasprun.xml.gz": (read_reference, b"<modeling>"),
    "a.json.gz": (from_file, b"{"),
    "rows.json.gz": (
        load_dataset,
        b'{"index": [0], "columns": ["structure", "e_form"], "data": [[',
    ),
    "table.json.gz": (load_dataset, b"{"),
    "mpf-TP.xyz.gz": (lambda path: load_frames("mpf-TP", path), b"2\n"),
    "Si-test.json.gz": (lambda path: load_frames("mlearn-Si", path), b"["),
    "dimers.json.gz": (read_dimers, b"{"),
    "wbm.json.gz": (read_wbm, b"["),
    "elements.json.gz": (read_elements, b"{"),
}


@pytest.mark.parametrize("name", READERS)
def test_no_reader_inflates_beyond_the_bound(name: str, tmp_path: Path) -> None:
    read, head = READERS[name]
    start = time.process_time()
    with pytest.raises(DataError, match=r"more than 64 MB of text.*HARNESS_MOST_MB=128"):
        read(bomb(tmp_path / name, head, megabytes=70))
    assert time.process_time() - start < 4  # writing it included


def test_the_bound_can_be_raised_and_has_to_be_a_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = bomb(tmp_path / "a.gz", megabytes=2)
    monkeypatch.setenv(texts.MOST_VARIABLE, "1")
    with pytest.raises(DataError, match=r"more than 1 MB of text.*HARNESS_MOST_MB=2"):
        texts.whole(path)
    assert sum(map(len, texts.pieces(path))) == 2_000_000  # 64 times as much in pieces
    with pytest.raises(DataError, match="more than 64 MB"):
        list(texts.pieces(bomb(tmp_path / "b.gz", megabytes=65)))
    monkeypatch.setenv(texts.MOST_VARIABLE, "2")
    assert len(texts.whole(path)) == 2_000_000
    for wrong in ("0", "-1", "many", "1e3", "inf"):
        monkeypatch.setenv(texts.MOST_VARIABLE, wrong)
        with pytest.raises(ConfigError, match=f"HARNESS_MOST_MB={wrong}"):
            texts.whole(path)


def test_rows_beyond_the_index_end_the_reading_at_once(tmp_path: Path) -> None:
    row = json.dumps([structure(["Na", "Cl"], PLACES), -1.0]).encode()
    path = tmp_path / "rows.json.gz"
    with gzip.open(path, "wb", compresslevel=1) as stream:
        stream.write(b'{"index": [0, 1], "columns": ["structure", "e_form"], "data": [' + row)
        for _ in range(100):
            stream.write((b", " + row) * 3000)
        stream.write(b"]}")
    start = time.process_time()
    with pytest.raises(DataError, match=r"index has 2 entries and data has .* rows or more"):
        load_dataset(path)
    assert time.process_time() - start < 1


DEEP = "[" * 100_000


@pytest.mark.parametrize("name", [name for name in READERS if "json" in name])
def test_deep_brackets_are_refused(name: str, tmp_path: Path) -> None:
    read, head = READERS[name]
    for text in (DEEP, head.decode() + DEEP, head.decode() + DEEP + "]" * len(DEEP)):
        path = tmp_path / name
        path.write_bytes(gzip.compress(text.encode()))
        with pytest.raises(DataError):
            read(path)


def test_a_deep_key_that_nobody_needs_is_refused_with_its_row(tmp_path: Path) -> None:
    odd = structure(["Na", "Cl"], PLACES)
    text = json.dumps([[structure(["Na", "Cl"], PLACES), -1.0], [odd, -2.0]])
    text = (
        text[: text.rindex("{") + 1]
        + f'"a": {DEEP}{"]" * len(DEEP)}, '
        + text[text.rindex("{") + 1 :]
    )
    path = tmp_path / "rows.json"
    path.write_text(f'{{"index": [4, 9], "columns": ["structure", "e_form"], "data": {text}}}')
    with pytest.raises(DataError, match=r"row 0 \(index 4, .*on: brackets are nested too deep"):
        load_dataset(path)


@pytest.mark.parametrize("name", READERS)
def test_bytes_that_are_no_text_end_in_an_error_of_ours(name: str, tmp_path: Path) -> None:
    read, head = READERS[name]
    for junk in (b"\xff\xfe\x00", b"\x80" * 100, bytes(range(256)), b"\x1f\x8b\x08"):
        for content in (head + junk, junk, gzip.compress(head + junk), gzip.compress(junk) + junk):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(DataError):
                read(tmp_path / name)
