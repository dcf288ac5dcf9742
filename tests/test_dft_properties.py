"""Properties on the project's own DFT: geometries and arithmetic, and the files there are.

The geometries of fixtures/dft/properties.py are computed here with a pair potential, whose phonons,
elastic constants and energies are then found a second way.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.neighborlist import neighbor_list
from scipy.optimize import minimize_scalar

from harness.data import dft_properties
from harness.data.dft import load_dft
from harness.data.dft_properties import FILES, SETS, SHA256, Properties, load_properties
from harness.data.paths import fixtures_dir
from harness.errors import DataAbsent, DataError

FOLDER = fixtures_dir() / "dft"


def _module(name: str) -> ModuleType:
    """A file of the generator, which is a program beside the package and not part of it."""
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def generator() -> Any:
    _module("common")
    yield _module("properties")
    for name in ("common", "properties"):
        sys.modules.pop(name)


def _calculator() -> LennardJones:
    return LennardJones(sigma=2.1, epsilon=0.4, rc=6.0, smooth=True)


def _record(generator: Any, kind: str, crystal: str, label: str, structure: dict, **geometry: Any):
    """What `generate.py run` stores, with a pair potential in place of DFT."""
    atoms = generator.BUILDERS[kind](structure, **geometry)
    atoms.calc = _calculator()
    return {
        "key": f"{crystal}/{kind}/{label}",
        "crystal": crystal,
        "kind": kind,
        "label": label,
        "structure": structure,
        "geometry": geometry,
        "numbers": atoms.numbers.tolist(),
        "cell_ang": atoms.cell.array.tolist(),
        "positions_ang": atoms.positions.tolist(),
        "energy_ev": atoms.get_potential_energy(),
        "forces_ev_per_ang": atoms.get_forces().tolist(),
        "stress_ev_per_ang3": atoms.get_stress().tolist(),
        "converged": True,
    }


def _properties(name: str, records: list[dict]) -> Properties:
    return Properties(name=name, records=tuple(records), sha256="")


STRUCTURES = {
    "GaAs-zincblende": {"species": ["Ga", "As"], "prototype": "zincblende", "a": 5.3},
    "MgO-rocksalt": {"species": ["Mg", "O"], "prototype": "rocksalt", "a": 4.5},
    "AlSc-CsCl": {"species": ["Al", "Sc"], "prototype": "CsCl", "a": 2.65},
    "Si-diamond": {"species": ["Si"], "prototype": "diamond", "a": 5.3},
}
CU = {"species": ["Cu"], "prototype": "fcc", "a": 3.3}


def _phonon_records(generator: Any, name: str) -> list[dict]:
    structure = STRUCTURES[name]
    records = [
        _record(generator, "phonon-gamma", name, label, structure, sign=sign)
        for sign, label in ((1, "plus"), (-1, "minus"))
    ]
    records += [
        _record(generator, "phonon-x", name, f"{atom}{letter}", structure, atom=atom, axis=axis)
        for atom in (0, 1)
        for axis, letter in ((2, "z"), (0, "x"))
    ]
    return records


def _hessian_frequencies_thz(atoms: Atoms) -> np.ndarray:
    """All modes of a cell that keep its translations, from a small step along every coordinate."""
    atoms.calc = _calculator()
    step, n = 1e-4, 3 * len(atoms)
    start = atoms.positions.copy()
    hessian = np.zeros((n, n))
    for k in range(n):
        for sign in (1, -1):
            moved = start.copy().ravel()
            moved[k] += sign * step
            atoms.positions = moved.reshape(-1, 3)
            hessian[k] -= sign * atoms.get_forces().ravel() / (2 * step)
    masses = np.repeat(atoms.get_masses(), 3)
    squares = np.linalg.eigvalsh((hessian + hessian.T) / 2 / np.sqrt(np.outer(masses, masses)))
    return np.sign(squares) * np.sqrt(np.abs(squares)) * dft_properties.THZ_PER_ROOT_EV_ANG2_U


@pytest.mark.parametrize("name", STRUCTURES)
def test_phonons_at_gamma_and_x_are_the_modes_of_the_doubled_cell(
    generator: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twelve modes: three translations, the optical three at Gamma, and the six at X."""
    monkeypatch.setattr(generator, "DISPLACEMENT_ANG", 1e-3)  # harmonic to five digits
    found = _properties("phonons", _phonon_records(generator, name))
    (gamma,), (x,) = found.gamma_phonons(), found.zone_boundary_phonons()
    modes = np.sort([0.0] * 3 + [gamma.frequency_thz()] * 3 + x.frequencies_thz().tolist())
    expected = _hessian_frequencies_thz(generator.doubled(STRUCTURES[name]))
    np.testing.assert_allclose(modes, expected, atol=2e-3)
    assert np.abs(expected).max() > 1


def test_phonons_can_be_asked_of_other_forces(generator: Any) -> None:
    found = _properties("phonons", _phonon_records(generator, "MgO-rocksalt"))
    (gamma,), (x,) = found.gamma_phonons(), found.zone_boundary_phonons()
    assert len(gamma.crystals) == 1  # by inversion the other sign says nothing new
    assert gamma.frequency_thz(0.81 * gamma.forces_ev_per_ang) == pytest.approx(
        0.9 * gamma.frequency_thz()
    )
    np.testing.assert_allclose(
        x.frequencies_thz(0.81 * x.forces_ev_per_ang), 0.9 * x.frequencies_thz()
    )


def test_both_signs_are_needed_where_they_differ(generator: Any) -> None:
    records = _phonon_records(generator, "GaAs-zincblende")
    without = [record for record in records if record["label"] != "minus"]
    assert len(_properties("phonons", records).gamma_phonons()[0].crystals) == 2
    assert _properties("phonons", without).gamma_phonons() == ()


@pytest.mark.parametrize("name", ["GaAs-zincblende", "MgO-rocksalt"])
def test_elastic_constants_are_curvatures_of_the_energy(
    generator: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C' and C44 from energies of strained cells whose atoms are relaxed."""
    monkeypatch.setattr(generator, "STRAIN", 1e-3)
    monkeypatch.setattr(generator, "DISPLACEMENT_ANG", 1e-3)
    structure = STRUCTURES[name]
    # where the pressure is none, so that stress and curvature agree
    found = minimize_scalar(
        lambda a: _energy(generator, {**structure, "a": a}, np.eye(3)),
        bracket=(4.4, 4.6),
        tol=1e-6,
    )
    a = float(found.x)
    structure = {**structure, "a": a}
    gamma = [
        _record(generator, "phonon-gamma", name, label, structure, sign=sign)
        for sign, label in ((1, "plus"), (-1, "minus"))
    ]
    (phonon,) = _properties("phonons", gamma).gamma_phonons()
    records = [
        _record(generator, "elastic", name, strain, structure, strain=strain)
        for strain in ("stretched", "compressed", "shear")
    ]
    (elastic,) = _properties("elastic", records).elastic(
        {name: phonon.force_constant_ev_per_ang2()}
    )
    constants = elastic.constants()
    assert elastic.strain == pytest.approx(1e-3)
    volume = a**3 / 4
    step = 2e-3

    def curvature(tensor: np.ndarray) -> float:
        energies = [
            _energy(generator, structure, np.eye(3) + sign * step * tensor) for sign in (-1, 0, 1)
        ]
        return (energies[0] - 2 * energies[1] + energies[2]) / step**2 / volume * 160.2176634

    tetragonal = np.diag([-0.5, -0.5, 1.0])  # 3 C' / 2 times two
    shear = np.array([[0, 0.5, 0], [0.5, 0, 0], [0, 0, 0]])
    assert constants.c_prime_gpa == pytest.approx(curvature(tetragonal) / 3, rel=0.01)
    assert constants.c44_gpa == pytest.approx(curvature(shear), rel=0.01)
    assert constants.bulk_modulus_gpa == pytest.approx(curvature(np.eye(3)) / 9, rel=0.02)
    if structure["prototype"] == "zincblende":
        assert constants.c44_gpa < 0.95 * constants.c44_clamped_gpa
    else:
        assert constants.c44_gpa == constants.c44_clamped_gpa


def _energy(generator: Any, structure: dict, deformation: np.ndarray) -> float:
    """Of the deformed primitive cell, its atoms relaxed by Newton steps."""
    atoms = generator._cell(structure)
    atoms.set_cell(atoms.cell.array @ deformation, scale_atoms=True)
    atoms.calc = _calculator()
    if np.abs(deformation - np.diag(np.diag(deformation))).max() > 0:
        for _ in range(20):
            force = atoms.get_forces()[0, 2]
            atoms.positions[0, 2] += 1e-4
            slope = (atoms.get_forces()[0, 2] - force) / 1e-4
            atoms.positions[0, 2] -= 1e-4 + force / slope
            if abs(force) < 1e-9:
                break
    return float(atoms.get_potential_energy())


def test_the_shear_modulus_of_an_isotropic_crystal_is_its_c44() -> None:
    constants = dft_properties.ElasticConstants(
        c11_gpa=100.0, c12_gpa=40.0, c44_gpa=30.0, c44_clamped_gpa=35.0
    )
    assert constants.c_prime_gpa == 30
    assert constants.bulk_modulus_gpa == 60
    assert constants.shear_modulus_gpa == pytest.approx(30)


# --- layers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("facet", "neighbours"), [("111", 9), ("100", 8), ("110", 7)])
def test_slabs_are_cut_from_the_crystal(generator: Any, facet: str, neighbours: int) -> None:
    """Twelve neighbours inside, as many as the facet leaves outside, twelve in its bulk."""
    period = generator.PERIOD[facet]
    bulk = generator.surface(CU, facet=facet, n_layers=period, vacuum_ang=0.0)
    slab = generator.surface(CU, facet=facet, n_layers=7, vacuum_ang=12.0)
    assert _coordination(bulk, CU["a"] / 2**0.5).tolist() == [12] * period
    found = _coordination(slab, CU["a"] / 2**0.5)
    assert found[0] == found[-1] == neighbours
    assert found[3] == 12
    height = np.ptp(slab.positions[:, 2])
    assert slab.cell.array[2, 2] - height == pytest.approx(12)
    assert len(bulk) * CU["a"] ** 3 / 4 == pytest.approx(bulk.get_volume())


def _coordination(atoms: Atoms, nearest_ang: float) -> np.ndarray:
    return np.bincount(neighbor_list("i", atoms, 1.1 * nearest_ang), minlength=len(atoms))


def test_rocksalt_slabs_are_neutral_and_bound_to_the_other_kind(generator: Any) -> None:
    structure = STRUCTURES["MgO-rocksalt"]
    slab = generator.surface(structure, facet="100", n_layers=4, vacuum_ang=12.0)
    bulk = generator.surface(structure, facet="100", n_layers=2, vacuum_ang=0.0)
    assert sorted(_coordination(slab, structure["a"] / 2).tolist()) == [5] * 4 + [6] * 4
    assert _coordination(bulk, structure["a"] / 2).tolist() == [6] * 4
    for atoms in (slab, bulk):
        i, j = neighbor_list("ij", atoms, 0.55 * structure["a"])
        assert (atoms.numbers[i] != atoms.numbers[j]).all()
    with pytest.raises(ValueError, match="rocksalt"):
        generator.surface(structure, facet="111", n_layers=4, vacuum_ang=12.0)


def test_a_whole_partial_is_the_intrinsic_fault(generator: Any) -> None:
    """No fault and the intrinsic one leave every atom twelve neighbours; half way some are lost."""
    nearest = CU["a"] / 2**0.5
    whole, half, none = (
        generator.stacking(CU, n_layers=6, fault=fault) for fault in (1.0, 0.5, 0.0)
    )
    assert _coordination(whole, nearest).tolist() == [12] * 6
    assert _coordination(none, nearest).tolist() == [12] * 6
    assert half.get_all_distances(mic=True)[0, 5] < nearest
    # second neighbours at sqrt 2: six everywhere in fcc; hcp-like layers have a third kind
    shells = [
        np.sort(np.concatenate(_distances(atoms, 1.7 * nearest))) / nearest
        for atoms in (none, whole)
    ]
    assert not (np.abs(shells[0] - (8 / 3) ** 0.5) < 1e-3).any()
    assert (np.abs(shells[1] - (8 / 3) ** 0.5) < 1e-3).sum() == 4  # two layers, above and below


def _distances(atoms: Atoms, cutoff_ang: float) -> list[np.ndarray]:
    i, d = neighbor_list("id", atoms, cutoff_ang)
    return [d[i == k] for k in range(len(atoms))]


@pytest.mark.parametrize("root_three", [False, True])
def test_hydrogen_sits_on_top_and_in_the_hollow_of_fcc(generator: Any, root_three: bool) -> None:
    base = {"n_layers": 4, "vacuum_ang": 12.0, "root_three": root_three, "height_ang": 1.0}
    top = generator.adsorption(CU, site="top", **base)
    hollow = generator.adsorption(CU, site="hollow", **base)
    n = 12 if root_three else 4
    assert len(top) == len(hollow) == n + 1
    assert len(generator.adsorption(CU, site="clean", **base)) == n
    assert top.get_all_distances(mic=True)[-1].tolist().count(pytest.approx(1.0)) == 1
    side = CU["a"] / 6**0.5
    near = np.sort(hollow.get_all_distances(mic=True)[-1][:-1])
    if root_three:
        np.testing.assert_allclose(near[:3], np.hypot(side, 1.0))
    else:
        assert near[0] == pytest.approx(np.hypot(side, 1.0))
    # nothing below the fcc hollow down to the third layer, where the next of the stacking stands
    below = hollow.positions[:-1]
    same = np.abs(_in_plane(hollow, below, hollow.positions[-1])) < 1e-6
    assert np.ptp(hollow.positions[:-1, 2]) - below[same][:, 2].max() == pytest.approx(
        2 * CU["a"] / 3**0.5
    )
    assert [c.index.tolist() for c in hollow.constraints] == [list(range(n))]


def _in_plane(atoms: Atoms, positions: np.ndarray, point: np.ndarray) -> np.ndarray:
    from ase.geometry import find_mic

    apart = positions - point
    apart[:, 2] = 0
    return find_mic(apart, atoms.cell)[1]


def test_surface_energies_and_adsorption_are_differences_per_area(generator: Any) -> None:
    records = [
        _record(generator, "surface", "Cu-fcc", f"100-{label}", CU, facet="100", **geometry)
        for label, geometry in (
            ("bulk", {"n_layers": 2, "vacuum_ang": 0.0}),
            ("slab", {"n_layers": 5, "vacuum_ang": 12.0}),
        )
    ]
    (surface,) = _properties("surfaces", records).surfaces()
    assert surface.area_ang2 == pytest.approx(CU["a"] ** 2 / 2)
    expected = (records[1]["energy_ev"] - 2.5 * records[0]["energy_ev"]) / CU["a"] ** 2
    assert surface.energy_ev_per_ang2() == pytest.approx(expected)
    assert surface.energy_j_per_m2() == pytest.approx(expected * 16.02176634)
    assert surface.energy_ev_per_ang2(np.array([-2.0, -4.0])) == pytest.approx(1 / CU["a"] ** 2)
    assert not surface.is_relaxed

    h2 = {"species": ["H", "H"], "prototype": "molecule", "a": 8.0}
    slab = {"n_layers": 4, "vacuum_ang": 12.0}
    records = [
        _record(generator, "adsorption", "Cu-fcc", "full-clean", CU, site="clean", **slab),
        _record(
            generator, "adsorption", "Cu-fcc", "full-top", CU, site="top", height_ang=1.5, **slab
        ),
        _record(generator, "adsorption", "H2", "molecule", h2, site="molecule", height_ang=0.75),
    ]
    (adsorption,) = _properties("adsorption", records).adsorption()
    assert adsorption.height_ang == pytest.approx(1.5)
    assert (adsorption.site, adsorption.coverage) == ("top", "full")
    assert adsorption.energy_ev(np.array([-1.0, -5.0, -6.0])) == -1.0
    assert _properties("adsorption", records[:2]).adsorption() == ()


def test_vacancies_and_paths(generator: Any) -> None:
    rows = [[2, 0, 0], [0, 2, 0], [0, 0, 2]]
    records = [
        _record(generator, "vacancy", "Cu-fcc", state, CU, state=state, rows=rows)
        for state in ("perfect", "vacancy", "midpoint")
    ]
    (vacancy,) = _properties("vacancies", records).vacancies()
    assert vacancy.crystals.n_atoms.tolist() == [8, 7, 7]
    assert vacancy.formation_ev(np.array([-16.0, -13.0])) == 1.0
    assert vacancy.migration_ev(np.array([-16.0, -13.0, -12.5])) == 0.5
    assert np.isnan(vacancy.migration_ev(np.array([-16.0, -13.0])))
    salt = generator.vacancy(STRUCTURES["MgO-rocksalt"], state="vacancy", rows=rows)
    assert sorted(salt.numbers.tolist()) == [8] * 7 + [12] * 7

    ratios = (1.0, 1.2, 2**0.5, 1.5)
    bain = [_record(generator, "bain", "Cu-fcc", f"{r:.3f}", CU, c_over_a=r) for r in ratios]
    (path,) = _properties("paths", bain).paths("bain")
    np.testing.assert_allclose(path.crystals.volumes_ang3, CU["a"] ** 3 / 4)
    assert path.profile_ev()[2] == 0
    fcc = generator._cell(CU)
    fcc.calc = _calculator()
    assert path.energies_ev[2] == pytest.approx(fcc.get_potential_energy())
    assert _properties("paths", bain[:2]).paths("bain") == ()


def test_hydrogen_is_relaxed_and_the_metal_stays(
    generator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With effective-medium theory in place of DFT: the steps are there, the last is at rest."""
    job = next(
        job
        for job in generator.plan(generator.load_settings())
        if job.key == "Cu-fcc/adsorption/full-hollow"
    )

    def single_point(atoms: Atoms, chosen: dict, *, stress: bool) -> dict:
        return {
            "positions_ang": atoms.positions.tolist(),
            "energy_ev": atoms.get_potential_energy(),
            "forces_ev_per_ang": atoms.get_forces(apply_constraint=False).tolist(),
        }

    monkeypatch.setattr(generator, "calculator", lambda chosen: EMT())
    monkeypatch.setattr(generator, "single_point", single_point)
    record = generator.compute(job)
    energies = [step["energy_ev"] for step in (*record["path"], record)]
    assert len(energies) > 1
    assert energies[-1] == min(energies)
    assert np.abs(record["forces_ev_per_ang"][-1]).max() < 0.02
    moved = np.array(record["positions_ang"]) - record["path"][0]["positions_ang"]
    assert np.abs(moved[:-1]).max() == 0 < abs(moved[-1, 2])
    monkeypatch.setattr(generator, "LARGEST_NUMBER_OF_STEPS", 1)
    with pytest.raises(RuntimeError, match="not relaxed"):
        generator.compute(job)


# --- the plan -------------------------------------------------------------------------------------


def test_every_job_has_a_key_of_its_own_a_geometry_and_a_file(generator: Any) -> None:
    jobs = generator.plan(generator.load_settings())
    assert len({job.key for job in jobs}) == len(jobs)
    for job in jobs:
        atoms = job.atoms()
        assert f"dft/{generator.FILES[job.kind.removeprefix('dense-')]}" in FILES.values()
        assert atoms.pbc.all()
        if len(atoms) > 1:
            assert atoms.get_all_distances(mic=True)[np.triu_indices(len(atoms), 1)].min() > 0.7
        json.dumps(job.geometry)


def test_lattice_constants_are_the_minima_of_the_reference_set(generator: Any) -> None:
    dft = load_dft()
    for name, crystal in generator.load_settings()["crystals"].items():
        if name in dft.crystals:
            assert crystal["a"] == pytest.approx(dft.eos(name).lattice_constant_ang, abs=6e-4)


def test_a_record_of_other_settings_is_computed_again(generator: Any, tmp_path: Path) -> None:
    job = next(j for j in generator.plan(generator.load_settings()) if j.kind == "phonon-gamma")
    record = {"structure": job.structure, "geometry": job.geometry, "settings": job.settings}
    assert not job.is_done(tmp_path)
    job.path(tmp_path).parent.mkdir()
    job.path(tmp_path).write_text(json.dumps(record))
    assert job.is_done(tmp_path)
    for changed in (
        {"settings": {**job.settings, "ecut_ev": 1.0}},
        {"geometry": {"sign": -1}},
        {"structure": {**job.structure, "a": 4.0}},
    ):
        job.path(tmp_path).write_text(json.dumps({**record, **changed}))
        assert not job.is_done(tmp_path)


# --- files ----------------------------------------------------------------------------------------


def test_sets_without_a_file_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SHA256, "vacancies", "")
    with pytest.raises(DataAbsent, match="not been computed"):
        load_properties("vacancies")
    assert "vacancies" not in dft_properties.available()
    with pytest.raises(DataError, match="there are phonons"):
        load_properties("unknown")


def test_another_file_a_missing_one_and_an_unconverged_point_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl.gz"
    with pytest.raises(DataError, match="does not exist"):
        load_properties("phonons", path, "0" * 64)
    raw = gzip.compress(json.dumps({"key": "a/b/c", "converged": False}).encode(), mtime=0)
    path.write_bytes(raw)
    with pytest.raises(DataError, match="sha256"):
        load_properties("phonons", path, "0" * 64)
    with pytest.raises(DataError, match="not converged"):
        load_properties("phonons", path, hashlib.sha256(raw).hexdigest())


@pytest.mark.parametrize("name", SETS)
def test_a_set_that_is_there_is_described_small_and_within_the_plan(
    generator: Any, name: str
) -> None:
    if name not in dft_properties.available():
        assert not (fixtures_dir() / FILES[name]).is_file()
        return
    found = load_properties(name)
    assert found.sha256 in (FOLDER / "README.md").read_text()
    assert (fixtures_dir() / FILES[name]).stat().st_size < 2_000_000
    jobs = {job.key: job for job in generator.plan(generator.load_settings())}
    for record in found.records:
        assert jobs[record["key"]].describes(record), record["key"]
        assert {"gpaw", "gpaw-data", "ase", "libxc"} <= set(record["versions"])
        assert record["cpu_seconds"] > 0
        atoms = jobs[record["key"]].atoms()
        assert atoms.numbers.tolist() == record["numbers"]
        if not record["geometry"].get("relaxed"):
            np.testing.assert_allclose(atoms.positions, record["positions_ang"], atol=1e-6)
        np.testing.assert_allclose(atoms.cell.array, record["cell_ang"], atol=1e-6)
