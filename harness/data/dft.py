"""The project's own PBE calculations: equations of state, rattled cells, formation energies.

Source: computed by this project with fixtures/dft/generate.py; how, and how well converged, is in
fixtures/dft/README.md.  Licence: CC0-1.0.  Theory: PBE, PAW and plane waves (GPAW 26.7, gpaw-data
1.2.1), not spin-polarised, no +U, no energy correction of any kind. Energies are extrapolated to
zero smearing and refer to spherical, spin-paired atoms, so only differences mean anything:
between points of one curve, or formation energies. Do not compare them with a model's totals.

A new file means a new SHA256 in the same commit, with the reason.

Public: load_dft, SET_ASIDE, DFTSet, EquationOfState, Rattled, FormationEnergies, Convergence,
birch_murnaghan, BirchMurnaghan.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np

from harness.data.crystals import Crystals
from harness.data.elements import SYMBOLS
from harness.data.paths import fixtures_dir
from harness.data.units import GPA_PER_EV_ANG3
from harness.errors import DataError

DATASET = "own PBE calculations"  # what evidence calls it
FILE = "dft/reference.jsonl.gz"  # under fixtures/
SHA256 = "574867031a94944005ca5dcb5841401ab54ad007fcb74014765bf92daa1439f8"

NEAR_EQUILIBRIUM = 0.101  # |V/V0 - 1| of the points a minimum is fitted to

# Reference state of each element in the formation energies: its usual solid at low temperature.
# (Close-packed stackings of Li and Na lie within 2 meV/atom of bcc in PBE.) Sn is grey tin, which
# PBE and the Materials Project put below white tin.
ELEMENT_REFERENCES = {
    **dict.fromkeys(("Ag", "Al", "Au", "Ca", "Cu", "Pb", "Pd", "Pt"), "fcc"),
    **dict.fromkeys(("K", "Li", "Na"), "bcc"),
    **dict.fromkeys(("Be", "Cd", "Mg", "Sc", "Ti", "Y", "Zn", "Zr"), "hcp"),
    **dict.fromkeys(("Ge", "Si", "Sn"), "diamond"),
    "As": "alpha-As",
    "Ga": "alpha-Ga",
    "In": "bct",
}
# Elements whose compounds carry an empirical correction in MP2020 where they are the anion; kept
# out of the formation energies so that the numbers mean the same with and without corrections.
CORRECTED_ANIONS = frozenset(("O", "S", "F", "Cl", "Br", "I", "N", "H", "Se", "Si", "Sb", "Te"))

# Claims leave these out: a setting of theirs was changed, because convergence or a bracket asked
# for it, when a model had been compared with a part of the set. No other crystal's was.
SET_ASIDE = {
    **dict.fromkeys(("Cu-fcc", "CuZn-CsCl", "Cu3Au-Cu3Au"), "cutoff raised after a comparison"),
    **dict.fromkeys(("LiGa-NaTl", "LiIn-NaTl"), "volumes moved after a comparison"),
}

_FACE_CENTRED = ("fcc", "diamond", "zincblende", "rocksalt", "fluorite", "antifluorite", "NaTl")
_CONVENTIONAL_PER_PRIMITIVE = {**dict.fromkeys(_FACE_CENTRED, 2**0.5), "bcc": 2 / 3**0.5}


@dataclass(frozen=True, kw_only=True)
class BirchMurnaghan:
    """Minimum of an equation of state; volumes and energies of the cell that was fitted."""

    v0_ang3: float
    e0_ev: float
    b0_gpa: float
    b0_prime: float  # nan where three or four points leave it undetermined
    rms_residual_ev: float


def birch_murnaghan(volumes_ang3: np.ndarray, energies_ev: np.ndarray) -> BirchMurnaghan:
    """Volume, energy and bulk modulus at the minimum, third-order Birch-Murnaghan.

    Args:
        volumes_ang3: (n,) cell volumes, n >= 3, any order, bracketing the minimum. Below five
            points the fit is of second order (B' fixed at 4 by construction).
        energies_ev: (n,) energies of those same cells, not per atom.
    Raises:
        DataError: fewer than three points, or no minimum inside the sampled range.
    Source: F. Birch, Phys. Rev. 71, 809 (1947); E is cubic in V^(-2/3).
    """
    volumes = np.asarray(volumes_ang3, dtype=np.float64)
    energies = np.asarray(energies_ev, dtype=np.float64)
    if volumes.shape != energies.shape or volumes.ndim != 1 or len(volumes) < 3:
        raise DataError(
            f"an equation of state needs at least 3 volumes with as many energies, not "
            f"{volumes.shape} and {energies.shape}. Compute more points around the minimum."
        )
    scale = float(np.median(volumes))
    x = (volumes / scale) ** (-2 / 3)
    degree = 3 if len(volumes) >= 5 else 2
    shift = float(energies.min())
    polynomial = np.polynomial.Polynomial.fit(x, energies - shift, degree).convert()
    # without a cubic term that is rounding alone, whose far root would cost the near one its digits
    polynomial = polynomial.trim(1e-12 * float(np.abs(polynomial.coef).max()))
    slope, curvature = polynomial.deriv(), polynomial.deriv(2)
    inside = [
        float(root.real)
        for root in slope.roots()
        if abs(root.imag) < 1e-9 and x.min() <= root.real <= x.max() and curvature(root.real) > 0
    ]
    if len(inside) != 1:
        raise DataError(
            f"no single minimum between {volumes.min():.3f} and {volumes.max():.3f} Å^3 (energies "
            f"{(energies - shift).round(4).tolist()} eV above the lowest). Add volumes on the "
            "side where the energy still falls."
        )
    x0 = inside[0]
    v0 = scale * x0**-1.5
    # E = f(x), x = (V/s)^(-2/3): dx/dV = -2x/3V, and f'(x0) = 0, so V E'' = 4 x0^2 f''(x0) / 9V.
    second, third = float(curvature(x0)), float(polynomial.deriv(3)(x0))
    b0 = 4 * x0**2 * second / (9 * v0)
    b0_prime = 4 + 2 * x0 * third / (3 * second) if degree == 3 else float("nan")
    residuals = polynomial(x) + shift - energies
    return BirchMurnaghan(
        v0_ang3=v0,
        e0_ev=float(polynomial(x0)) + shift,
        b0_gpa=b0 * GPA_PER_EV_ANG3,
        b0_prime=b0_prime,
        rms_residual_ev=float(np.sqrt(np.mean(residuals**2))),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class EquationOfState:
    """Energies of one crystal scaled isotropically, internal coordinates fixed."""

    crystal: str
    prototype: str
    v_over_v0: np.ndarray  # (k,) ascending; V0 is the reference volume of settings.json
    volumes_ang3: np.ndarray  # (k,) primitive cells
    energies_ev: np.ndarray  # (k,) of those cells
    pressures_gpa: np.ndarray  # (k,) from the stress, compression positive
    crystals: Crystals  # k rows

    @property
    def n_atoms(self) -> int:
        """Atoms in the primitive cell."""
        return int(self.crystals.n_atoms[0])

    @property
    def energies_ev_per_atom(self) -> np.ndarray:
        """(k,)."""
        return self.energies_ev / self.n_atoms

    @property
    def is_bracketed(self) -> bool:
        """Whether the lowest energy is at neither end."""
        return 0 < int(np.argmin(self.energies_ev)) < len(self.energies_ev) - 1

    @cached_property
    def minimum(self) -> BirchMurnaghan:
        """Fitted to the points within 10 % of V0."""
        near = np.abs(self.v_over_v0 - 1) < NEAR_EQUILIBRIUM
        return birch_murnaghan(self.volumes_ang3[near], self.energies_ev[near])

    @property
    def lattice_constant_ang(self) -> float:
        """Length a at the fitted minimum: of the conventional cell where it is cubic.

        Elsewhere the length of the first primitive vector, which is a in hexagonal cells.
        """
        lattice = self.crystals.lattices[0]
        scale = (self.minimum.v0_ang3 / self.volumes_ang3[0]) ** (1 / 3)
        primitive = float(np.linalg.norm(lattice[0])) * scale
        return primitive * _CONVENTIONAL_PER_PRIMITIVE.get(self.prototype, 1.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Rattled:
    """Eight-atom cells of one crystal at V0 with every atom displaced at random."""

    crystal: str
    amplitudes_ang: np.ndarray  # (k,) rms over atoms of the length of the displacement
    seeds: np.ndarray  # (k,) int64; one seed is one direction in configuration space
    energies_ev: np.ndarray  # (k,) per cell
    forces_ev_per_ang: np.ndarray  # (k, 8, 3), atoms in the order of `crystals`
    crystals: Crystals  # k rows of 8 atoms
    undisplaced: Crystals  # one row: the same cell with every atom on its site
    undisplaced_energy_ev: float  # per cell, same settings; nan where it was not computed


@dataclass(frozen=True, kw_only=True, eq=False)
class FormationEnergies:
    """Compounds whose elements are solids without anion corrections, from energies at the minima.

    The energy of every cell is the fitted minimum over volume; elements and compounds share cutoff,
    smearing and setups.
    """

    ids: np.ndarray  # (n,) str, ids of the equations of state
    formulas: np.ndarray  # (n,) str, reduced
    e_form_ev_per_atom: np.ndarray  # (n,) float64, negative = bound
    crystals: Crystals  # n rows, each at the volume of its fitted minimum
    references: dict[str, str]  # element -> id of its reference crystal
    elements: Crystals  # those crystals in that order, each at the volume of its fitted minimum

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, kw_only=True)
class Convergence:
    """Production settings against denser ones for the same geometry."""

    crystal: str
    kind: str  # "eos" or "rattle"
    production: str
    denser: str
    energy_difference_mev_per_atom: float  # eos: largest over V of |d(E(V) - E(V0))|; else nan
    common_shift_mev_per_atom: float  # eos: shift of E(V0) itself, which cancels in differences
    force_rms_ev_per_ang: float  # rattle: rms over components of the change; nan for eos
    force_max_ev_per_ang: float  # rattle: largest component of the change; nan for eos


@dataclass(frozen=True, kw_only=True, eq=False)
class DFTSet:
    """Every calculation of the file; one record is one self-consistent energy."""

    records: tuple[dict[str, Any], ...]
    sha256: str

    @cached_property
    def _by_kind(self) -> dict[tuple[str, str], list[dict[str, Any]]]:
        grouped: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for record in self.records:
            grouped.setdefault((record["crystal"], record["kind"]), []).append(record)
        return grouped

    def _of(self, crystal: str, kind: str) -> list[dict[str, Any]]:
        if found := self._by_kind.get((crystal, kind)):
            return found
        known = sorted(name for name, its_kind in self._by_kind if its_kind == kind)
        raise DataError(f"no {kind} points of {crystal!r}; there are some of {', '.join(known)}.")

    @property
    def crystals(self) -> tuple[str, ...]:
        """Ids of all crystals with an equation of state, however short."""
        return tuple(name for name, kind in self._by_kind if kind == "eos")

    @property
    def full_eos(self) -> tuple[str, ...]:
        """Ids with all nine volumes, 0.7 to 1.6 V0, without those set aside."""
        return tuple(
            name
            for name in self.crystals
            if len(self._by_kind[name, "eos"]) == 9 and name not in SET_ASIDE
        )

    @property
    def rattled_crystals(self) -> tuple[str, ...]:
        """Ids with rattled cells and the undisplaced cell they are rattled from."""
        return tuple(
            name
            for (name, kind), records in self._by_kind.items()
            if kind == "rattle"
            and {record["amplitude_ang"] > 0 for record in records} == {True, False}
        )

    def eos(self, crystal: str) -> EquationOfState:
        """Equation of state of one crystal.

        Raises:
            DataError: no such crystal; the message lists those there are.
        """
        records = sorted(self._of(crystal, "eos"), key=lambda record: record["v_over_v0"])
        rows = _crystals(records)
        stress = np.array([record["stress_ev_per_ang3"] for record in records])
        return EquationOfState(
            crystal=crystal,
            prototype=str(records[0]["prototype"]),
            v_over_v0=np.array([record["v_over_v0"] for record in records]),
            volumes_ang3=rows.volumes_ang3,
            energies_ev=_energies(records),
            pressures_gpa=-stress[:, :3].mean(axis=1) * GPA_PER_EV_ANG3,
            crystals=rows,
        )

    def rattled(self, crystal: str) -> Rattled:
        """Rattled cells of one crystal, by seed and then amplitude.

        Raises:
            DataError: no such crystal; the message lists those there are.
        """
        everything = self._of(crystal, "rattle")
        records = sorted(
            (record for record in everything if record["amplitude_ang"] > 0),
            key=lambda record: (record["seed"], record["amplitude_ang"]),
        )
        still = [record for record in everything if record["amplitude_ang"] == 0]
        if not records or not still:
            raise DataError(
                f"{crystal}: {len(records)} rattled cells and {len(still)} undisplaced ones; both "
                "are needed. Compute the missing with fixtures/dft/generate.py run."
            )
        return Rattled(
            crystal=crystal,
            amplitudes_ang=np.array([record["amplitude_ang"] for record in records]),
            seeds=np.array([record["seed"] for record in records], dtype=np.int64),
            energies_ev=_energies(records),
            forces_ev_per_ang=np.array([record["forces_ev_per_ang"] for record in records]),
            crystals=_crystals(records),
            undisplaced=_crystals(still),
            undisplaced_energy_ev=float(still[0]["energy_ev"]),
        )

    def formation_energies(self) -> FormationEnergies:
        """Formation energies of compounds whose elements are there at the same settings.

        Without compounds set aside, and those whose minimum the points do not bracket.
        """
        references: dict[str, str] = {}
        ids, formation, at_minimum = [], [], []
        for crystal in self.crystals:
            numbers = self._of(crystal, "eos")[0]["numbers"]
            symbols = [SYMBOLS[number - 1] for number in numbers]
            if len(set(symbols)) == 1 or CORRECTED_ANIONS & set(symbols) or crystal in SET_ASIDE:
                continue
            elements = {s: f"{s}-{ELEMENT_REFERENCES.get(s, 'unknown')}" for s in set(symbols)}
            if not all(self._same_settings(crystal, element) for element in elements.values()):
                continue
            curve = self.eos(crystal)
            energy = curve.minimum.e0_ev
            for symbol in symbols:
                element = self.eos(elements[symbol])
                energy -= element.minimum.e0_ev / element.n_atoms
            references.update(elements)
            ids.append(crystal)
            formation.append(energy / len(symbols))
            at_minimum.append(_at_minimum(curve))
        rows = _rows(at_minimum)
        references = dict(sorted(references.items()))
        return FormationEnergies(
            ids=np.array(ids, dtype=str),
            formulas=rows.reduced_formulas(),
            e_form_ev_per_atom=np.array(formation),
            crystals=rows,
            references=references,
            elements=_rows([_at_minimum(self.eos(name)) for name in references.values()]),
        )

    def _same_settings(self, crystal: str, element: str) -> bool:
        """Whether the element is there with the compound's cutoff and smearing, both bracketed."""
        found = self._by_kind.get((element, "eos"), [])
        if not found or not all(self.eos(name).is_bracketed for name in (crystal, element)):
            return False
        wanted = self._of(crystal, "eos")
        names = ("ecut_ev", "xc", "setups", "smearing", "smearing_width_ev")
        settings = {tuple(r["settings"][name] for name in names) for r in [*found, *wanted]}
        return len(found) >= 3 and len(wanted) >= 3 and len(settings) == 1

    def convergence(self) -> tuple[Convergence, ...]:
        """What denser settings change, for the crystals where they were computed."""
        rows = []
        for (crystal, kind), dense in self._by_kind.items():
            if not kind.startswith("dense-"):
                continue
            name = kind.removeprefix("dense-")
            same = {_geometry(record): record for record in self._of(crystal, name)}
            pairs = [(same[_geometry(r)], r) for r in dense if _geometry(r) in same]
            if not pairs or (name == "eos" and len(pairs) < 2):
                continue
            rows.append(_compare(crystal, name, pairs))
        return tuple(rows)

    def versions(self) -> dict[str, str]:
        """Versions of the programs, identical in every record."""
        return dict(self.records[0]["versions"])


def load_dft(path: Path | None = None, sha256: str = SHA256) -> DFTSet:
    """The project's DFT set, from fixtures/ unless another path is given.

    Raises:
        DataError: the file is missing, or is not the one described here.
    """
    path = path or fixtures_dir() / FILE
    if not path.is_file():
        raise DataError(
            f"{path} does not exist. Restore it from the repository, or compute it anew as "
            "fixtures/dft/README.md says."
        )
    raw = path.read_bytes()
    if (found := hashlib.sha256(raw).hexdigest()) != sha256:
        raise DataError(
            f"{path}: sha256 is {found}, expected {sha256}. Restore the file, or describe the new "
            "one in this module's header and update SHA256."
        )
    records = _records(raw, path)
    if bad := [record["key"] for record in records if not record["converged"]]:
        raise DataError(
            f"{path}: {len(bad)} points are not converged: {bad[:5]}. Compute them anew."
        )
    return DFTSet(records=records, sha256=found)


_Vector = tuple[float, float, float]


class _Record(msgspec.Struct):
    """What is used of a record; there is more for whoever repeats the calculation."""

    key: str
    crystal: str
    kind: str
    prototype: str
    converged: bool
    numbers: Annotated[list[Annotated[int, msgspec.Meta(ge=1, le=118)]], msgspec.Meta(min_length=1)]
    cell_ang: tuple[_Vector, _Vector, _Vector]
    positions_ang: list[_Vector]
    energy_ev: float
    forces_ev_per_ang: list[_Vector]
    stress_ev_per_ang3: tuple[float, float, float, float, float, float] | None
    v_over_v0: float
    amplitude_ang: float
    seed: int
    settings: dict[str, Any]
    versions: dict[str, str]


def _records(raw: bytes, path: Path) -> tuple[dict[str, Any], ...]:
    """Every line as a dictionary that holds what `_Record` says."""
    try:
        lines = gzip.decompress(raw).splitlines()
        for line in lines:
            record = msgspec.json.decode(line, type=_Record)
            if (
                not len(record.numbers)
                == len(record.positions_ang)
                == len(record.forces_ev_per_ang)
            ):
                raise ValueError(f"{record.key} has not as many forces as atoms")
        return tuple(json.loads(line) for line in lines)
    except (
        OSError,
        EOFError,
        zlib.error,
        msgspec.MsgspecError,
        ValueError,
        RecursionError,
    ) as error:
        raise DataError(
            f"{path} is not a file of calculations, one a line ({type(error).__name__}: {error}). "
            "Restore it from the repository."
        ) from error


def _geometry(record: dict[str, Any]) -> tuple[float, float, int]:
    return record["v_over_v0"], record["amplitude_ang"], record["seed"]


def _compare(
    crystal: str, kind: str, pairs: Sequence[tuple[dict[str, Any], dict[str, Any]]]
) -> Convergence:
    """Change of energy differences and of forces from the first of each pair to the second."""
    nan = float("nan")
    energy = shift = rms = largest = nan
    if kind == "eos":
        changes = {
            was["v_over_v0"]: 1e3 * (now["energy_ev"] - was["energy_ev"]) / len(was["numbers"])
            for was, now in pairs
        }
        shift = changes.get(1.0, nan)
        energy = max(abs(change - shift) for change in changes.values())
    else:
        change = np.array(
            [
                np.array(now["forces_ev_per_ang"]) - np.array(was["forces_ev_per_ang"])
                for was, now in pairs
            ]
        )
        rms, largest = float(np.sqrt(np.mean(change**2))), float(np.abs(change).max())
    return Convergence(
        crystal=crystal,
        kind=kind,
        production=_settings_text(pairs[0][0]["settings"]),
        denser=_settings_text(pairs[0][1]["settings"]),
        energy_difference_mev_per_atom=energy,
        common_shift_mev_per_atom=shift,
        force_rms_ev_per_ang=rms,
        force_max_ev_per_ang=largest,
    )


def _settings_text(settings: dict[str, Any]) -> str:
    mesh = "x".join(str(n) for n in settings["kpts"])
    return f"{settings['ecut_ev']:.0f} eV, {mesh}{' shifted' if settings['kpts_shifted'] else ''}"


def _energies(records: Iterable[dict[str, Any]]) -> np.ndarray:
    return np.array([record["energy_ev"] for record in records], dtype=np.float64)


def _crystals(records: Sequence[dict[str, Any]]) -> Crystals:
    """One row a record."""
    rows = []
    for record in records:
        lattice = np.array(record["cell_ang"], dtype=np.float64)
        positions = np.array(record["positions_ang"], dtype=np.float64)
        rows.append((np.array(record["numbers"]), positions @ np.linalg.inv(lattice), lattice))
    return _rows(rows)


def _at_minimum(curve: EquationOfState) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numbers, fractional coordinates and lattice at the volume of the fitted minimum."""
    scale = (curve.minimum.v0_ang3 / curve.volumes_ang3[0]) ** (1 / 3)
    row = curve.crystals[0]
    return row.numbers, row.frac_coords, row.lattices[0] * scale


def _rows(rows: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Crystals:
    """Crystals from (numbers, fractional coordinates, lattice) of each row."""
    lengths = [len(numbers) for numbers, _, _ in rows]
    return Crystals(
        numbers=np.concatenate([np.empty(0), *(numbers for numbers, _, _ in rows)]).astype(
            np.uint8
        ),
        frac_coords=np.concatenate([np.empty((0, 3)), *(frac for _, frac, _ in rows)]),
        lattices=np.array([lattice for _, _, lattice in rows]).reshape(-1, 3, 3),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
    )
