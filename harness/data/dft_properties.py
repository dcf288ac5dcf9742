"""The project's own PBE calculations of what a potential is chosen by.

Phonons, elastic constants, paths (Bain, stacking faults), the order of phases, surfaces, hydrogen
on metals, vacancies. Every class has the crystals that were computed, the DFT results on them, and
a method that turns results into the property. Called without arguments the method uses the DFT
results; called with a model's results on the same crystals it uses those, so that both sides go
through the same arithmetic.

Source: computed by this project with fixtures/dft/generate.py (geometries: properties.py, settings:
properties.json); convergence and what is missing: fixtures/dft/README.md.  Licence: CC0-1.0.
Theory: as harness.data.dft. Energies refer to atoms of the setups: only differences mean anything.

A new file means a new SHA256 in the same commit. An empty one: nothing is computed yet.

Public: load_properties, available, Properties, GammaPhonon, ZoneBoundaryPhonons, Elastic,
ElasticConstants, Path, Surface, Adsorption, Vacancy, FILES, SHA256, SETS.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path as FilePath
from typing import Any

import numpy as np

from harness.data.crystals import Crystals
from harness.data.dft import SET_ASIDE, EquationOfState, load_dft
from harness.data.paths import fixtures_dir
from harness.data.units import GPA_PER_EV_ANG3
from harness.errors import DataAbsent, DataError

SHA256 = {
    "phonons": "1303e6883fa2806a7797ddd148f2974012bf1ec4f9a3f53ceb6f75f7de69dbc2",
    "elastic": "762b47bac85bcc7149e1825641ebc54d7f6ab65763ce0ac243b1e9333bf820f6",
    "paths": "",
    "phases": "",
    "surfaces": "",
    "adsorption": "",
    "vacancies": "",
}
SETS = tuple(SHA256)
FILES = {name: f"dft/{name}.jsonl.gz" for name in SETS}  # under fixtures/

THZ_PER_ROOT_EV_ANG2_U = 15.633302  # sqrt(eV/Å²/u) / 2 pi in THz, CODATA 2018
JOULE_PER_M2_PER_EV_ANG2 = 16.02176634

# The elasticity of zincblende and diamond has an internal displacement under shear.
_WITH_INTERNAL_STRAIN = ("zincblende", "diamond")


@dataclass(frozen=True, kw_only=True, eq=False)
class GammaPhonon:
    """The primitive two-atom cell with its first atom displaced along [111], and against it.

    Where inversion maps one displacement onto the other (rocksalt, CsCl) there is one row.
    """

    crystal: str
    prototype: str
    crystals: Crystals  # k rows of two atoms, k = 1 or 2
    forces_ev_per_ang: np.ndarray  # (k, 2, 3)
    displacements_ang: np.ndarray  # (k, 3) of the first atom

    def force_constant_ev_per_ang2(self, forces_ev_per_ang: np.ndarray | None = None) -> float:
        """Restoring force over displacement; the mean of action and reaction and of all rows."""
        forces = self.forces_ev_per_ang if forces_ev_per_ang is None else forces_ev_per_ang
        pull = (forces[:, 1] - forces[:, 0]) / 2
        moved = self.displacements_ang
        return float(np.mean((pull * moved).sum(axis=1) / (moved**2).sum(axis=1)))

    def frequency_thz(self, forces_ev_per_ang: np.ndarray | None = None) -> float:
        """Transverse optical frequency at Gamma, without the field of polar crystals.

        Imaginary ones are negative.
        """
        masses = _masses_u(self.crystals.numbers[:2])
        return float(
            _signed_root(self.force_constant_ev_per_ang2(forces_ev_per_ang) * (1 / masses).sum())
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class ZoneBoundaryPhonons:
    """Two primitive cells with one sublattice displaced, in the second cell the other way.

    Rows: first atom along z and x, second atom along z and x; z is the direction of X.
    """

    crystal: str
    prototype: str
    crystals: Crystals  # four rows of four atoms
    forces_ev_per_ang: np.ndarray  # (4, 4, 3)
    displacement_ang: float

    def frequencies_thz(self, forces_ev_per_ang: np.ndarray | None = None) -> np.ndarray:
        """(6,) frequencies at X, ascending; imaginary ones are negative.

        The mirror that exchanges x and y, which all prototypes here have, gives the y columns.
        """
        forces = self.forces_ev_per_ang if forces_ev_per_ang is None else forces_ev_per_ang
        staggered = (forces[:, :2] - forces[:, 2:]) / 2
        columns = -staggered.reshape(4, 6) / self.displacement_ang
        exchanged = columns.reshape(4, 2, 3)[:, :, [1, 0, 2]].reshape(4, 6)
        order = [columns[1], exchanged[1], columns[0], columns[3], exchanged[3], columns[2]]
        matrix = np.array(order).T
        masses = np.repeat(_masses_u(self.crystals.numbers[:2]), 3)
        dynamical = (matrix + matrix.T) / 2 / np.sqrt(np.outer(masses, masses))
        return _signed_root(np.linalg.eigvalsh(dynamical))


@dataclass(frozen=True, kw_only=True)
class ElasticConstants:
    """Of a cubic crystal."""

    c11_gpa: float
    c12_gpa: float
    c44_gpa: float  # atoms relaxed under the shear
    c44_clamped_gpa: float  # atoms carried along with the cell

    @property
    def c_prime_gpa(self) -> float:
        """(C11 - C12) / 2."""
        return (self.c11_gpa - self.c12_gpa) / 2

    @property
    def bulk_modulus_gpa(self) -> float:
        """(C11 + 2 C12) / 3."""
        return (self.c11_gpa + 2 * self.c12_gpa) / 3

    @property
    def shear_modulus_gpa(self) -> float:
        """Voigt-Reuss-Hill average."""
        voigt = (2 * self.c_prime_gpa + 3 * self.c44_gpa) / 5
        reuss = 5 / (2 / self.c_prime_gpa + 3 / self.c44_gpa)
        return (voigt + reuss) / 2


@dataclass(frozen=True, kw_only=True, eq=False)
class Elastic:
    """A cubic crystal stretched along z, compressed along z, and sheared in xy."""

    crystal: str
    prototype: str
    crystals: Crystals  # three rows in that order
    stresses_ev_per_ang3: np.ndarray  # (3, 6) Voigt xx yy zz yz xz xy, tension positive
    forces_ev_per_ang: np.ndarray  # (3, n, 3)
    strain: float
    force_constant_ev_per_ang2: float  # at Gamma; nan where shear displaces no atom

    def constants(
        self,
        stresses_ev_per_ang3: np.ndarray | None = None,
        forces_ev_per_ang: np.ndarray | None = None,
        force_constant_ev_per_ang2: float | None = None,
    ) -> ElasticConstants:
        """Elastic constants from these results, or from a model's on the same rows.

        C44 is relaxed in linear response: less F_z^2 / (gamma^2 k V), with the force F_z on the
        first atom in the sheared cell and the force constant k at Gamma.
        """
        stress = self.stresses_ev_per_ang3 if stresses_ev_per_ang3 is None else stresses_ev_per_ang3
        forces = self.forces_ev_per_ang if forces_ev_per_ang is None else forces_ev_per_ang
        stiffness = (
            self.force_constant_ev_per_ang2
            if force_constant_ev_per_ang2 is None
            else force_constant_ev_per_ang2
        )
        slope = (stress[0] - stress[1]) / (2 * self.strain) * GPA_PER_EV_ANG3
        gamma = 2 * self.strain
        clamped = relaxed = float(stress[2, 5] / gamma * GPA_PER_EV_ANG3)
        if self.prototype in _WITH_INTERNAL_STRAIN:
            pull = (forces[2, 0, 2] - forces[2, 1, 2]) / 2 / gamma
            volume = self.crystals.volumes_ang3[2]
            relaxed -= float(pull**2 / (stiffness * volume) * GPA_PER_EV_ANG3)
        return ElasticConstants(
            c11_gpa=float(slope[2]),
            c12_gpa=float(slope[:2].mean()),
            c44_gpa=relaxed,
            c44_clamped_gpa=clamped,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Path:
    """Energies along a path at fixed volume or displacement, nothing relaxed.

    ``bain``: one atom in a body-centred tetragonal cell, its coordinate c/a (bcc at 1, fcc at
    sqrt 2, the start). ``stacking``: (111) layers with one fault a cell, its coordinate the part of
    the partial vector (0 the start, 1 the intrinsic fault).
    """

    crystal: str
    kind: str
    coordinates: np.ndarray  # (k,) ascending
    crystals: Crystals  # k rows
    energies_ev: np.ndarray  # (k,) per cell
    area_ang2: float  # of the fault; nan for bain

    def profile_ev(self, energies_ev: np.ndarray | None = None) -> np.ndarray:
        """(k,) energies above the start, per cell."""
        energies = self.energies_ev if energies_ev is None else energies_ev
        start = 2**0.5 if self.kind == "bain" else 0.0
        return energies - energies[int(np.argmin(np.abs(self.coordinates - start)))]


@dataclass(frozen=True, kw_only=True, eq=False)
class Surface:
    """A slab and the bulk in the same orientation, with the same mesh in the plane."""

    crystal: str
    prototype: str
    facet: str
    is_relaxed: bool  # the slab is at the DFT minimum; else cut from the bulk
    crystals: Crystals  # two rows: bulk, slab
    energies_ev: np.ndarray  # (2,)
    area_ang2: float  # of one of the two faces

    def energy_ev_per_ang2(self, energies_ev: np.ndarray | None = None) -> float:
        """Surface energy, half of what it takes to part the crystal."""
        bulk, slab = self.energies_ev if energies_ev is None else energies_ev
        n_bulk, n_slab = self.crystals.n_atoms
        return float((slab - bulk * n_slab / n_bulk) / (2 * self.area_ang2))

    def energy_j_per_m2(self, energies_ev: np.ndarray | None = None) -> float:
        """The same in the unit of tables."""
        return self.energy_ev_per_ang2(energies_ev) * JOULE_PER_M2_PER_EV_ANG2


@dataclass(frozen=True, kw_only=True, eq=False)
class Adsorption:
    """Hydrogen on one face of fcc(111), the metal as cut from the bulk, its height relaxed."""

    crystal: str
    site: str  # "top" or "hollow"
    coverage: str  # "full" or "third" of a layer
    height_ang: float  # above the plane of the outermost metal atoms
    crystals: Crystals  # three rows: clean slab, slab with hydrogen, H2
    energies_ev: np.ndarray  # (3,)

    def energy_ev(self, energies_ev: np.ndarray | None = None) -> float:
        """Of half an H2 molecule; negative = bound."""
        clean, covered, molecule = self.energies_ev if energies_ev is None else energies_ev
        return float(covered - clean - molecule / 2)


@dataclass(frozen=True, kw_only=True, eq=False)
class Vacancy:
    """A supercell whole and with one atom gone (of a salt: a pair of neighbours), unrelaxed.

    A third row, for some, has a neighbour half way to the vacancy.
    """

    crystal: str
    prototype: str
    crystals: Crystals  # rows: perfect, vacancy, and for some midpoint
    energies_ev: np.ndarray  # (2,) or (3,)

    def formation_ev(self, energies_ev: np.ndarray | None = None) -> float:
        """Against the atoms' own crystal."""
        energies = self.energies_ev if energies_ev is None else energies_ev
        n_perfect, n_defect = self.crystals.n_atoms[:2]
        return float(energies[1] - energies[0] * n_defect / n_perfect)

    def migration_ev(self, energies_ev: np.ndarray | None = None) -> float:
        """Energy of the unrelaxed midpoint above the unrelaxed vacancy; nan without one."""
        energies = self.energies_ev if energies_ev is None else energies_ev
        return float(energies[2] - energies[1]) if len(energies) == 3 else float("nan")


@dataclass(frozen=True, kw_only=True, eq=False)
class Properties:
    """Records of one file; the methods of other files find nothing in it."""

    name: str
    records: tuple[dict[str, Any], ...]
    sha256: str

    @cached_property
    def _grouped(self) -> dict[tuple[str, str], dict[str, dict[str, Any]]]:
        grouped: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
        for record in self.records:
            key = record["kind"], record["crystal"]
            grouped.setdefault(key, {})[record["label"]] = record
        return grouped

    def _complete(
        self, kind: str, labels: Sequence[str]
    ) -> list[tuple[str, list[dict[str, Any]], dict[str, dict[str, Any]]]]:
        """Crystal, its records with these labels, and all of its records, where none is missing."""
        return [
            (crystal, [of[label] for label in labels], of)
            for (its_kind, crystal), of in self._grouped.items()
            if its_kind == kind and all(label in of for label in labels)
        ]

    def gamma_phonons(self, *, dense: bool = False) -> tuple[GammaPhonon, ...]:
        """Optical phonons at Gamma; with ``dense`` those at denser settings."""
        found = []
        for crystal, records, of in self._complete(_kind("phonon-gamma", dense), ["plus"]):
            prototype = records[0]["structure"]["prototype"]
            if prototype not in ("rocksalt", "CsCl"):
                if "minus" not in of:
                    continue
                records = [*records, of["minus"]]
            signs = np.array([record["geometry"]["sign"] for record in records])
            length = np.linalg.norm(records[0]["positions_ang"][0])  # the atom's site is the origin
            found.append(
                GammaPhonon(
                    crystal=crystal,
                    prototype=prototype,
                    crystals=_crystals(records),
                    forces_ev_per_ang=_forces(records),
                    displacements_ang=np.outer(signs, np.ones(3)) * length / 3**0.5,
                )
            )
        return tuple(found)

    def zone_boundary_phonons(self) -> tuple[ZoneBoundaryPhonons, ...]:
        """Phonons at X."""
        return tuple(
            ZoneBoundaryPhonons(
                crystal=crystal,
                prototype=records[0]["structure"]["prototype"],
                crystals=_crystals(records),
                forces_ev_per_ang=_forces(records),
                displacement_ang=float(records[0]["positions_ang"][0][2]),
            )
            for crystal, records, _ in self._complete("phonon-x", ["0z", "0x", "1z", "1x"])
        )

    def elastic(
        self, force_constants_ev_per_ang2: dict[str, float], *, dense: bool = False
    ) -> tuple[Elastic, ...]:
        """Elastic constants; zincblende and diamond need their force constant at Gamma.

        Args:
            force_constants_ev_per_ang2: by crystal, `GammaPhonon.force_constant_ev_per_ang2`.
                Crystals that need one and have none are left out.
        """
        found = []
        labels = ["stretched", "compressed", "shear"]
        for crystal, records, _ in self._complete(_kind("elastic", dense), labels):
            prototype = records[0]["structure"]["prototype"]
            stiffness = force_constants_ev_per_ang2.get(crystal, float("nan"))
            if prototype in _WITH_INTERNAL_STRAIN and np.isnan(stiffness):
                continue
            rows = _crystals(records)
            stretch = np.linalg.det(rows.lattices[0]) / np.linalg.det(rows.lattices[1])
            found.append(
                Elastic(
                    crystal=crystal,
                    prototype=prototype,
                    crystals=rows,
                    stresses_ev_per_ang3=np.array([r["stress_ev_per_ang3"] for r in records]),
                    forces_ev_per_ang=_forces(records),
                    strain=float((stretch - 1) / (stretch + 1)),  # (1 + e) / (1 - e) = stretch
                    force_constant_ev_per_ang2=stiffness,
                )
            )
        return tuple(found)

    def paths(self, kind: str) -> tuple[Path, ...]:
        """Paths of a kind, "bain" or "stacking", that have their start and two points more."""
        name, start = {"bain": ("c_over_a", 2**0.5), "stacking": ("fault", 0.0)}[kind]
        found = []
        for (its_kind, crystal), of in self._grouped.items():
            records = sorted(of.values(), key=lambda record: record["geometry"][name])
            at = np.array([record["geometry"][name] for record in records])
            if its_kind != kind or len(at) < 3 or np.abs(at - start).min() > 1e-6:
                continue
            cell = np.array(records[0]["cell_ang"])
            area = float(np.linalg.norm(np.cross(cell[0], cell[1])))
            found.append(
                Path(
                    crystal=crystal,
                    kind=kind,
                    coordinates=at,
                    crystals=_crystals(records),
                    energies_ev=_energies(records),
                    area_ang2=area if kind == "stacking" else float("nan"),
                )
            )
        return tuple(found)

    def phases(self) -> dict[str, dict[str, EquationOfState]]:
        """Formula -> prototype -> curve, of compounds with three bracketed phases.

        The phase each compound has in nature is in `harness.data.dft`, at the same settings.
        """
        reference = load_dft()
        curves: dict[str, dict[str, EquationOfState]] = {}
        for (kind, crystal), of in self._grouped.items():
            if kind != "phase" or len(of) < 3:
                continue
            formula, prototype = crystal.split("-")
            records = sorted(of.values(), key=lambda record: abs(np.linalg.det(record["cell_ang"])))
            rows = _crystals(records)
            curve = EquationOfState(
                crystal=crystal,
                prototype=prototype,
                v_over_v0=rows.volumes_ang3 / float(np.median(rows.volumes_ang3)),
                volumes_ang3=rows.volumes_ang3,
                energies_ev=_energies(records),
                pressures_gpa=np.full(len(rows), np.nan),
                crystals=rows,
            )
            if curve.is_bracketed:
                curves.setdefault(formula, {})[prototype] = curve
        for formula, phases in curves.items():
            for prototype in ("rocksalt", "zincblende", "CsCl"):
                native = f"{formula}-{prototype}"
                if native in reference.full_eos and native not in SET_ASIDE:
                    phases[prototype] = reference.eos(native)
        return {formula: phases for formula, phases in curves.items() if len(phases) == 3}

    def surfaces(self, *, dense: bool = False) -> tuple[Surface, ...]:
        """Surfaces as cut, and relaxed where that was computed; with ``dense`` the denser ones."""
        found = []
        for (kind, crystal), of in self._grouped.items():
            if kind != _kind("surface", dense):
                continue
            for label, record in of.items():
                facet, _, state = label.partition("-")
                if state == "bulk" or f"{facet}-bulk" not in of:
                    continue
                records = [of[f"{facet}-bulk"], record]
                cell = np.array(record["cell_ang"])
                found.append(
                    Surface(
                        crystal=crystal,
                        prototype=record["structure"]["prototype"],
                        facet=facet,
                        is_relaxed=state == "relaxed",
                        crystals=_crystals(records),
                        energies_ev=_energies(records),
                        area_ang2=float(np.linalg.norm(np.cross(cell[0], cell[1]))),
                    )
                )
        return tuple(found)

    def adsorption(self) -> tuple[Adsorption, ...]:
        """Hydrogen on metals, where the clean slab and the molecule are there as well."""
        molecule = self._grouped.get(("adsorption", "H2"), {}).get("molecule")
        found = []
        for (kind, crystal), of in self._grouped.items():
            for label, record in of.items():
                coverage, _, site = label.partition("-")
                clean = of.get(f"{coverage}-clean")
                if kind != "adsorption" or site not in ("top", "hollow"):
                    continue
                if clean is None or molecule is None:
                    continue
                heights = np.array(record["positions_ang"])[:, 2]
                records = [clean, record, molecule]
                found.append(
                    Adsorption(
                        crystal=crystal,
                        site=site,
                        coverage=coverage,
                        height_ang=float(heights[-1] - heights[:-1].max()),
                        crystals=_crystals(records),
                        energies_ev=_energies(records),
                    )
                )
        return tuple(found)

    def vacancies(self) -> tuple[Vacancy, ...]:
        """Vacancies, with the midpoint of a jump where it was computed."""
        found = []
        for crystal, records, of in self._complete("vacancy", ["perfect", "vacancy"]):
            if "midpoint" in of:
                records = [*records, of["midpoint"]]
            found.append(
                Vacancy(
                    crystal=crystal,
                    prototype=records[0]["structure"]["prototype"],
                    crystals=_crystals(records),
                    energies_ev=_energies(records),
                )
            )
        return tuple(found)


def available() -> tuple[str, ...]:
    """Names of the sets that have been computed."""
    return tuple(name for name, digest in SHA256.items() if digest)


def load_properties(
    name: str, path: FilePath | None = None, sha256: str | None = None
) -> Properties:
    """One of `SETS`, from fixtures/ unless another path is given.

    Raises:
        DataAbsent: nothing of this set has been computed.
        DataError: no such set; the file is missing, is not the one described here, or has a point
            that is not converged.
    """
    if name not in SETS:
        raise DataError(f"no set of properties {name!r}; there are {', '.join(SETS)}.")
    sha256 = SHA256[name] if sha256 is None else sha256
    if not sha256:
        raise DataAbsent(
            f"{FILES[name]} has not been computed yet. fixtures/dft/README.md says how to."
        )
    path = path or fixtures_dir() / FILES[name]
    if not path.is_file():
        raise DataError(f"{path} does not exist. Restore it from the repository.")
    raw = path.read_bytes()
    if (found := hashlib.sha256(raw).hexdigest()) != sha256:
        raise DataError(
            f"{path}: sha256 is {found}, expected {sha256}. Restore the file, or describe the new "
            "one in this module and update SHA256."
        )
    records = tuple(json.loads(line) for line in gzip.decompress(raw).splitlines())
    if bad := [record["key"] for record in records if not record["converged"]]:
        raise DataError(f"{path}: {len(bad)} points are not converged: {bad[:5]}.")
    return Properties(name=name, records=records, sha256=found)


def _kind(kind: str, dense: bool) -> str:
    return f"dense-{kind}" if dense else kind


def _masses_u(numbers: np.ndarray) -> np.ndarray:
    from ase.data import atomic_masses

    return np.asarray(atomic_masses[numbers], dtype=np.float64)


def _signed_root(squares: Any) -> np.ndarray:
    """Frequencies in THz from force constants over masses; negative where imaginary."""
    squares = np.asarray(squares, dtype=np.float64)
    return np.sign(squares) * np.sqrt(np.abs(squares)) * THZ_PER_ROOT_EV_ANG2_U


def _energies(records: Sequence[dict[str, Any]]) -> np.ndarray:
    return np.array([record["energy_ev"] for record in records], dtype=np.float64)


def _forces(records: Sequence[dict[str, Any]]) -> np.ndarray:
    return np.array([record["forces_ev_per_ang"] for record in records], dtype=np.float64)


def _crystals(records: Sequence[dict[str, Any]]) -> Crystals:
    """One row a record."""
    lattices = np.array([record["cell_ang"] for record in records], dtype=np.float64)
    positions = [np.array(record["positions_ang"], dtype=np.float64) for record in records]
    return Crystals(
        numbers=np.concatenate([record["numbers"] for record in records]).astype(np.uint8),
        frac_coords=np.concatenate(
            [xyz @ np.linalg.inv(cell) for xyz, cell in zip(positions, lattices, strict=True)]
        ),
        lattices=lattices,
        offsets=np.concatenate([[0], np.cumsum([len(xyz) for xyz in positions])]).astype(np.int64),
    )
