"""Reading a user's relaxed crystals: every format gives the same crystal, bad files say why not."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import numpy as np
import pytest

from harness.data.crystals import Crystals
from harness.data.dft import load_dft
from harness.data.reference_files import Geometries, dft_minima, read_reference
from harness.errors import DataError

LATTICE = np.array([[0, 2.13, 2.13], [2.13, 0, 2.13], [2.13, 2.13, 0.0]])
SITES = np.array([[0, 0, 0], [0.5, 0.5, 0.5]])


def mgo() -> Crystals:
    return Crystals(
        numbers=np.array([12, 8], dtype=np.uint8),
        frac_coords=SITES.astype(np.float64),
        lattices=LATTICE[None],
        offsets=np.array([0, 2]),
    )


def vasprun(
    *,
    ionic_steps: int = 2,
    nsw: int = 50,
    electronic_steps: int = 3,
    force_ev_per_ang: float = 0.0,
    pressure_kb: float = 0.3,
) -> str:
    """The parts of VASP's own file that a reader of geometry, forces and stress needs."""

    def vectors(rows: np.ndarray) -> str:
        return "".join(f"<v>{x:.8f} {y:.8f} {z:.8f}</v>" for x, y, z in rows)

    structure = (
        f'<crystal><varray name="basis">{vectors(LATTICE)}</varray></crystal>'
        f'<varray name="positions">{vectors(SITES)}</varray>'
    )
    forces = np.array([[force_ev_per_ang, 0, 0], [-force_ev_per_ang, 0, 0]])
    energy = "".join(
        f'<i name="{n}">-11.97</i>' for n in ("e_fr_energy", "e_wo_entrp", "e_0_energy")
    )
    loops = f"<scstep><energy>{energy}</energy></scstep>" * electronic_steps
    step = (
        f"<calculation>{loops}<structure>{structure}</structure>"
        f'<varray name="forces">{vectors(forces)}</varray>'
        f'<varray name="stress">{vectors(pressure_kb * np.eye(3))}</varray>'
        f"<energy>{energy}</energy></calculation>"
    )
    atoms = "".join(f"<rc><c>{s}</c><c>{i}</c></rc>" for i, s in enumerate(("Mg", "O"), 1))
    types = "".join(
        f"<rc><c>1</c><c>{s}</c><c>1.0</c><c>1.0</c><c>PAW_PBE {s} 01Jan2000</c></rc>"
        for s in ("Mg", "O")
    )
    return (
        '<?xml version="1.0" encoding="ISO-8859-1"?><modeling>'
        '<generator><i name="version" type="string">6.4.2</i></generator>'
        '<incar><i type="int" name="ISIF">3</i><i type="int" name="IBRION">2</i>'
        f'<i type="int" name="NSW">{nsw}</i></incar>'
        '<kpoints><generation param="Gamma"><v type="int" name="divisions">4 4 4</v>'
        '</generation><varray name="kpointlist"><v>0 0 0</v></varray>'
        '<varray name="weights"><v>1</v></varray></kpoints>'
        '<parameters><separator name="electronic"><i type="int" name="NELM">60</i>'
        f'<i name="EDIFF">0.00001</i></separator><i type="int" name="NSW">{nsw}</i>'
        '<i type="int" name="IBRION">2</i><i name="EDIFFG">-0.01</i></parameters>'
        "<atominfo><atoms>2</atoms><types>2</types>"
        f'<array name="atoms"><set>{atoms}</set></array>'
        f'<array name="atomtypes"><set>{types}</set></array></atominfo>'
        f'<structure name="initialpos">{structure}</structure>{step * ionic_steps}'
        f'<structure name="finalpos">{structure}</structure></modeling>'
    )


def write(folder: Path, name: str) -> Path:
    """MgO in the format its name says."""
    from pymatgen.io.cif import CifWriter
    from pymatgen.io.vasp.inputs import Poscar

    path = folder / name
    if name.startswith("vasprun"):
        path.write_text(vasprun())
    elif name.endswith("cif"):
        path.write_text(str(CifWriter(mgo().structure(0))))
    elif name.endswith("xyz"):
        from ase.io import write

        write(path, mgo().atoms(0), format="extxyz")
    else:
        path.write_text(Poscar(mgo().structure(0)).get_str(significant_figures=12))
    return path


NAMES = ("POSCAR", "CONTCAR.relaxed", "mgo.vasp", "mgo.cif", "vasprun.xml", "mgo.xyz", "mgo.extxyz")


@pytest.mark.parametrize("name", NAMES)
def test_every_format_gives_the_same_crystal(name: str, tmp_path: Path) -> None:
    path = write(tmp_path, name)
    found = read_reference(path)
    assert found.names == ("MgO",)
    at_rest = name == "vasprun.xml"  # the only one of them with forces and stress
    assert found.source == (name if at_rest else f"{name}, not known to be relaxed")
    assert found.inputs == {name: hashlib.sha256(path.read_bytes()).hexdigest()}
    np.testing.assert_array_equal(found.crystals.numbers, [12, 8])
    assert found.crystals.volumes_ang3[0] == pytest.approx(mgo().volumes_ang3[0], rel=1e-6)
    apart = (found.crystals.frac_coords[1] - found.crystals.frac_coords[0]) % 1
    np.testing.assert_allclose(apart, 0.5, atol=1e-6)
    assert found.notes  # what the file says of forces and pressure, or that it says nothing


@pytest.mark.parametrize("name", ["POSCAR", "mgo.cif", "vasprun.xml", "mgo.extxyz"])
def test_gzipped_files_are_read_too(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.gz"
    path.write_bytes(gzip.compress(write(tmp_path, name).read_bytes()))
    assert read_reference(path).names == ("MgO",)


def test_every_frame_of_an_extended_xyz_is_a_crystal_with_a_name_of_its_own(tmp_path: Path) -> None:
    from ase.io import write

    images = [mgo().atoms(0), mgo().atoms(0)]
    images[1].set_cell(images[1].cell * 1.01, scale_atoms=True)
    write(tmp_path / "two.xyz", images, format="extxyz")
    found = read_reference(tmp_path / "two.xyz")
    assert found.names == ("MgO #1", "MgO #2")
    assert np.ptp(found.crystals.volumes_ang3) > 0.5


def test_what_is_left_of_forces_and_pressure_is_noted(tmp_path: Path) -> None:
    (tmp_path / "vasprun.xml").write_text(vasprun(force_ev_per_ang=0.004, pressure_kb=3.0))
    notes = read_reference(tmp_path / "vasprun.xml").notes
    assert notes == (
        "MgO: forces up to 0.0040 eV/Å in the file (forces)",
        "MgO: stress up to 0.300 GPa, pressure +0.300 GPa in the file (stress)",
    )


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"ionic_steps": 50, "nsw": 50}, r"stopped after 50 steps \(NSW = 50\)"),
        ({"electronic_steps": 60}, r"stopped after 60 steps \(NELM\)"),
        ({"force_ev_per_ang": 0.2}, "not relaxed"),
        ({"pressure_kb": 25.0}, r"2.50 GPa.*pressure \+2.50 GPa.*ISIF = 3"),
    ],
)
def test_a_run_that_did_not_end_at_rest_is_refused(
    settings: dict[str, float], said: str, tmp_path: Path
) -> None:
    (tmp_path / "vasprun.xml").write_text(vasprun(**settings))
    with pytest.raises(DataError, match=said):
        read_reference(tmp_path / "vasprun.xml")


def test_a_run_that_was_killed_is_refused(tmp_path: Path) -> None:
    whole = vasprun()
    (tmp_path / "vasprun.xml").write_text(whole[: len(whole) * 2 // 3])
    with pytest.raises(DataError, match="cannot be read"):
        read_reference(tmp_path / "vasprun.xml")


def test_a_poscar_without_element_symbols_is_refused(tmp_path: Path) -> None:
    cell = "0 2.13 2.13\n2.13 0 2.13\n2.13 2.13 0\n"
    text = f"of VASP 4\n1.0\n{cell}1 1\ndirect\n0 0 0\n0.5 0.5 0.5\n"
    (tmp_path / "POSCAR").write_text(text)
    with pytest.raises(DataError, match="symbols"):
        read_reference(tmp_path / "POSCAR")


def test_partly_occupied_sites_are_refused(tmp_path: Path) -> None:
    from pymatgen.core import Lattice, Structure
    from pymatgen.io.cif import CifWriter

    alloy = Structure(Lattice.cubic(3.7), [{"Cu": 0.5, "Au": 0.5}], [[0, 0, 0]])
    (tmp_path / "alloy.cif").write_text(str(CifWriter(alloy)))
    with pytest.raises(DataError, match=r"alloy\.cif.*partly occupied"):
        read_reference(tmp_path / "alloy.cif")


def test_a_molecule_is_no_crystal(tmp_path: Path) -> None:
    (tmp_path / "h2.xyz").write_text("2\n\nH 0 0 0\nH 0 0 0.74\n")
    with pytest.raises(DataError, match="pbc"):
        read_reference(tmp_path / "h2.xyz")


def test_frames_of_a_simulation_are_no_reference(tmp_path: Path) -> None:
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.io import write

    atoms = mgo().atoms(0)
    atoms.calc = SinglePointCalculator(atoms, energy=-12.0, forces=np.array([[0.5, 0, 0]] * 2))
    write(tmp_path / "md.extxyz", atoms, format="extxyz")
    with pytest.raises(DataError, match=r"forces of up to 0\.500"):
        read_reference(tmp_path / "md.extxyz")


def test_names_that_say_nothing_and_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file"):
        read_reference(tmp_path / "POSCAR")
    (tmp_path / "relaxed.dat").write_text("")
    with pytest.raises(DataError, match="does not say what it is"):
        read_reference(tmp_path / "relaxed.dat")
    (tmp_path / "empty.xyz").write_text("")
    with pytest.raises(DataError, match=r"empty\.xyz"):
        read_reference(tmp_path / "empty.xyz")


def test_the_projects_own_minima_are_those_of_its_curves() -> None:
    dft = load_dft()
    found = dft_minima(dft)
    assert found.names == dft.full_eos
    for name, volume, n_atoms in zip(
        found.names, found.crystals.volumes_ang3, found.crystals.n_atoms, strict=True
    ):
        curve = dft.eos(name)
        assert volume == pytest.approx(curve.minimum.v0_ang3, rel=1e-12)
        assert n_atoms == curve.n_atoms


def test_scaling_changes_lengths_and_nothing_else() -> None:
    whole = dft_minima(load_dft())
    scaled = whole.scaled(1.04)
    np.testing.assert_allclose(
        scaled.crystals.volumes_ang3, 1.04**3 * whole.crystals.volumes_ang3, rtol=1e-12
    )
    np.testing.assert_array_equal(scaled.crystals.frac_coords, whole.crystals.frac_coords)
    assert scaled.source != whole.source


def test_names_are_as_many_as_crystals_and_different() -> None:
    with pytest.raises(DataError, match="names"):
        Geometries(
            source="two", names=("MgO",), crystals=Crystals.concatenate([mgo()] * 2), inputs={}
        )


# --- the option


class Collected:
    """Names of the checks that pytest collects."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        self.names = {item.name for item in items}


def collect(*options: str) -> tuple[int, set[str]]:
    found = Collected()
    code = pytest.main(
        [
            str(Path(__file__).parents[1] / "checks" / "test_relax.py"),
            *("--collect-only", "-qq", "-p", "no:cacheprovider", "--dataset", "embedded"),
            *options,
        ],
        plugins=[found],
    )
    return code, found.names


def test_a_reference_of_ones_own_adds_its_case_to_every_check(tmp_path: Path) -> None:
    code, names = collect()
    assert code == pytest.ExitCode.OK
    assert all(name.endswith("[dft]") for name in names)
    code, both = collect("--reference", str(write(tmp_path, "POSCAR")))
    assert code == pytest.ExitCode.OK
    assert both == names | {name.replace("[dft]", "[own]") for name in names}


def test_a_reference_that_cannot_be_used_stops_the_session_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "vasprun.xml").write_text(vasprun(ionic_steps=50))
    code, names = collect("--reference", str(tmp_path / "vasprun.xml"))
    assert code == pytest.ExitCode.USAGE_ERROR
    assert names == set()
