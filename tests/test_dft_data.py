"""The DFT set: the file is the one described, it holds what is promised, its physics is sound."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.data.dft import FILE, SHA256, DFTSet, birch_murnaghan, load_dft
from harness.data.paths import fixtures_dir
from harness.errors import DataError

PATH = fixtures_dir() / FILE
FOLDER = PATH.parent
AMPLITUDES_ANG = {0.05, 0.1, 0.2, 0.4}

# What README.md promises. Only ever raised: more points may be added, none may go.
FULL_CURVES, ELEMENTS, STRUCTURE_TYPES = 47, 32, 11
RATTLED_CRYSTALS, FORMATION_ENERGIES = 17, 63


@pytest.fixture(scope="module")
def dft() -> DFTSet:
    return load_dft()


# --- the file -------------------------------------------------------------------------------------


def test_the_readme_gives_the_hash_of_the_file() -> None:
    assert SHA256 in (FOLDER / "README.md").read_text()


def test_another_file_is_refused(tmp_path: Path) -> None:
    altered = tmp_path / PATH.name
    altered.write_bytes(PATH.read_bytes() + b"\n")
    with pytest.raises(DataError, match="sha256"):
        load_dft(altered)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        load_dft(tmp_path / "absent.jsonl.gz")


def test_a_point_that_did_not_converge_is_refused(dft: DFTSet, tmp_path: Path) -> None:
    raw = gzip.compress(json.dumps({**dft.records[0], "converged": False}).encode(), mtime=0)
    path = tmp_path / "unconverged.jsonl.gz"
    path.write_bytes(raw)
    with pytest.raises(DataError, match="not converged"):
        load_dft(path, hashlib.sha256(raw).hexdigest())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"numbers":[14,14]', b'"numbers":[14,true]'),
        (b'"numbers":[14,14]', b'"numbers":[14,-14]'),
        (b'"numbers":[14,14]', b'"numbers":[14,14,14]'),
        (b'"energy_ev":-8.8883401', b'"energy_ev":"low"'),
        (b'"energy_ev":-8.8883401', b'"energy":-8.8883401'),
        (b'"amplitude_ang"', b"[" * 10_000),
        (b'"amplitude_ang"', b"\xff"),
    ],
)
def test_a_record_that_is_none_is_refused(old: bytes, new: bytes, tmp_path: Path) -> None:
    lines = gzip.decompress((fixtures_dir() / FILE).read_bytes()).splitlines()[:2]
    assert lines[0].count(old) == 1
    lines[0] = lines[0].replace(old, new)
    for content in (gzip.compress(b"\n".join(lines)), b"\n".join(lines)):
        (tmp_path / "reference.jsonl.gz").write_bytes(content)
        with pytest.raises(DataError, match="is not a file of calculations, one a line"):
            load_dft(tmp_path / "reference.jsonl.gz", hashlib.sha256(content).hexdigest())


def test_the_file_is_small() -> None:
    assert PATH.stat().st_size < 5_000_000


# --- what is promised -----------------------------------------------------------------------------


def test_the_counts_are_at_least_those_promised(dft: DFTSet) -> None:
    curves = [dft.eos(name) for name in dft.full_eos]
    elements = {number for curve in curves for number in curve.crystals.numbers.tolist()}
    assert len(curves) >= FULL_CURVES
    assert len(elements) >= ELEMENTS
    assert len({curve.prototype for curve in curves}) >= STRUCTURE_TYPES
    assert len(dft.rattled_crystals) >= RATTLED_CRYSTALS
    assert len(dft.formation_energies()) >= FORMATION_ENERGIES


def test_the_readme_says_how_many_points_there_are(dft: DFTSet) -> None:
    stated = re.search(r"(\d+) calculations", (FOLDER / "README.md").read_text())
    assert stated is not None
    assert int(stated[1]) == len(dft.records)


def test_every_point_carries_what_is_needed_to_repeat_it(dft: DFTSet) -> None:
    for record in dft.records:
        assert record["converged"]
        assert 0 < record["scf_iterations"] < 333
        assert {"ecut_ev", "kpts", "smearing", "smearing_width_ev", "xc", "setups"} <= set(
            record["settings"]
        )
        assert {"gpaw", "gpaw-data", "ase", "libxc"} <= set(record["versions"])
        assert record["magnetic_state"] == "not spin-polarised"
        assert record["wall_seconds"] > 0
    assert len({json.dumps(record["versions"], sort_keys=True) for record in dft.records}) == 1
    assert len({record["key"] for record in dft.records}) == len(dft.records)


def test_oxides_and_fluorides_have_the_higher_cutoff(dft: DFTSet) -> None:
    for record in dft.records:
        if {8, 9} & set(record["numbers"]):
            assert record["settings"]["ecut_ev"] >= 700


# --- physics --------------------------------------------------------------------------------------


def test_the_volumes_are_the_stated_multiples_of_v0(dft: DFTSet) -> None:
    for name in dft.crystals:
        curve = dft.eos(name)
        at_v0 = curve.volumes_ang3[curve.v_over_v0 == 1.0]
        np.testing.assert_allclose(curve.volumes_ang3, at_v0 * curve.v_over_v0, rtol=1e-8)


def test_every_minimum_in_use_is_bracketed_by_its_points_and_near_v0(dft: DFTSet) -> None:
    table = dft.formation_energies()
    for name in {*dft.full_eos, *table.ids.tolist(), *table.references.values()}:
        curve = dft.eos(name)
        lowest = int(np.argmin(curve.energies_ev))
        assert 0 < lowest < len(curve.energies_ev) - 1, name
        assert abs(curve.v_over_v0[lowest] - 1) <= 0.051, name
        assert curve.minimum.b0_gpa > 1


def test_the_pressure_is_minus_the_slope_of_the_energy(dft: DFTSet) -> None:
    """Stress and energy come out of different code; the pressure changes sign at the minimum."""
    for name in dft.full_eos:
        curve = dft.eos(name)
        order = np.argsort(np.abs(curve.v_over_v0 - curve.minimum.v0_ang3 / curve.volumes_ang3[4]))
        assert curve.pressures_gpa[0] > 0 > curve.pressures_gpa[-1], name
        assert abs(curve.pressures_gpa[order[0]]) < 0.08 * curve.minimum.b0_gpa, name


def test_forces_vanish_on_symmetric_sites(dft: DFTSet) -> None:
    """Up to the egg-box effect of the grid, 0.009 eV/Å for the hard setups of BN at 600 eV."""
    for record in dft.records:
        if record["amplitude_ang"] == 0 and record["prototype"] not in ("alpha-As", "alpha-Ga"):
            assert np.abs(record["forces_ev_per_ang"]).max() < 1e-2, record["key"]


def test_forces_of_rattled_cells_sum_to_zero(dft: DFTSet) -> None:
    """What is left is the egg-box effect of the real-space grid of exchange and correlation."""
    for name in dft.rattled_crystals:
        sums = dft.rattled(name).forces_ev_per_ang.sum(axis=1)
        assert np.abs(sums).max() < 0.02, name


def test_displacements_have_the_stated_rms_and_no_drift(dft: DFTSet) -> None:
    for name in dft.rattled_crystals:
        cells = dft.rattled(name)
        sites = cells.undisplaced.frac_coords
        for row, amplitude in enumerate(cells.amplitudes_ang):
            crystal = cells.crystals[row]
            moved = (crystal.frac_coords - sites) @ crystal.lattices[0]
            assert np.sqrt((moved**2).sum(axis=1).mean()) == pytest.approx(amplitude, abs=1e-8)
            assert np.abs(moved.sum(axis=0)).max() < 1e-7
            np.testing.assert_array_equal(crystal.numbers, cells.undisplaced.numbers)


def test_rattled_cells_cover_every_amplitude_and_cost_energy(dft: DFTSet) -> None:
    for name in dft.rattled_crystals:
        cells = dft.rattled(name)
        for seed in np.unique(cells.seeds):
            of_seed = cells.seeds == seed
            assert set(cells.amplitudes_ang[of_seed].tolist()) <= AMPLITUDES_ANG
            energies = np.append(cells.undisplaced_energy_ev, cells.energies_ev[of_seed])
            assert (np.diff(energies) > 0).all(), (name, seed)


def test_formation_energies_are_of_uncorrected_compounds_and_mostly_bound(dft: DFTSet) -> None:
    table = dft.formation_energies()
    numbers = set(table.crystals.numbers.tolist())
    assert not numbers & {1, 7, 8, 9, 14, 16, 17, 34, 35, 51, 52, 53}
    assert (np.abs(table.e_form_ev_per_atom) < 2).all()
    assert (table.e_form_ev_per_atom < 0).sum() >= 0.8 * len(table)
    assert len(set(table.ids.tolist())) == len(table) == len(table.crystals)


def test_denser_settings_change_little(dft: DFTSet) -> None:
    """The bounds the set promises: 5 meV/atom in differences, 0.02 eV/Å in forces at 0.2 Å."""
    rows = dft.convergence()
    assert {row.kind for row in rows} == {"eos", "rattle"}
    for row in rows:
        if row.kind == "eos":
            assert row.energy_difference_mev_per_atom < 5, row
        else:
            assert row.force_rms_ev_per_ang < 0.02, row


# --- the fit --------------------------------------------------------------------------------------


def _energies(volumes: np.ndarray, v0: float, e0: float, b0_gpa: float, prime: float) -> np.ndarray:
    """Birch-Murnaghan as written in textbooks, in terms of B0 and B0'."""
    x = (v0 / volumes) ** (2 / 3)
    return e0 + 9 * v0 * b0_gpa / 160.21766208 / 16 * (
        (x - 1) ** 3 * prime + (x - 1) ** 2 * (6 - 4 * x)
    )


@given(
    v0=st.floats(5, 300),
    e0=st.floats(-100, 100),
    b0=st.floats(1, 500),
    prime=st.floats(2.5, 6.5),
    shift=st.floats(-0.04, 0.04),
)
def test_the_fit_returns_what_the_curve_was_made_of(
    v0: float, e0: float, b0: float, prime: float, shift: float
) -> None:
    volumes = v0 * (1 + shift) * np.array([1.1, 0.9, 0.95, 1.0, 1.05])
    fit = birch_murnaghan(volumes, _energies(volumes, v0, e0, b0, prime))
    assert fit.v0_ang3 == pytest.approx(v0, rel=1e-6)
    assert fit.e0_ev == pytest.approx(e0, abs=1e-7 * max(1.0, v0 * b0))
    assert fit.b0_gpa == pytest.approx(b0, rel=1e-4)
    assert fit.b0_prime == pytest.approx(prime, abs=1e-2)


def test_three_points_give_a_second_order_fit() -> None:
    volumes = np.array([19.0, 20.0, 21.0])
    fit = birch_murnaghan(volumes, _energies(volumes, 20.1, -3.0, 80.0, 4.0))
    assert fit.v0_ang3 == pytest.approx(20.1, rel=1e-6)
    assert fit.b0_gpa == pytest.approx(80.0, rel=1e-4)
    assert np.isnan(fit.b0_prime)


@pytest.mark.parametrize("v0", [10.0, 40.0])
def test_a_minimum_outside_the_volumes_is_refused(v0: float) -> None:
    volumes = np.linspace(18, 22, 5)
    with pytest.raises(DataError, match="no single minimum"):
        birch_murnaghan(volumes, _energies(volumes, v0, 0.0, 100.0, 4.0))


def test_two_volumes_are_refused() -> None:
    with pytest.raises(DataError, match="at least 3"):
        birch_murnaghan(np.array([1.0, 2.0]), np.array([0.0, 1.0]))


def test_a_curve_without_a_cubic_term_has_its_minimum_where_it_is() -> None:
    """Seven points of an exact second-order curve: the cubic coefficient is rounding."""
    volumes = 19.7 * np.linspace(0.9, 1.1, 7)
    energies = 3.0 * ((volumes / 19.7) ** (-2 / 3) - 1.003) ** 2
    fit = birch_murnaghan(volumes, energies)
    assert fit.v0_ang3 == pytest.approx(19.7 * 1.003**-1.5, rel=1e-9)
    assert fit.b0_prime == pytest.approx(4.0, abs=1e-6)


# --- the door -------------------------------------------------------------------------------------


def test_an_unknown_crystal_is_answered_with_those_there_are(dft: DFTSet) -> None:
    with pytest.raises(DataError, match="Si-diamond"):
        dft.eos("Unobtainium-fcc")


def test_the_lattice_constant_of_silicon_is_that_of_pbe(dft: DFTSet) -> None:
    """5.47 Å and 88.5 GPa in every published PBE calculation."""
    curve = dft.eos("Si-diamond")
    assert curve.lattice_constant_ang == pytest.approx(5.47, abs=0.01)
    assert curve.minimum.b0_gpa == pytest.approx(88.5, rel=0.03)
