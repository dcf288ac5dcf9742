"""Relaxed geometries to compare a potential's with: the project's own DFT, or a file of the user's.

Public: Geometries, read_reference, dft_minima, FORMATS.

A user's file is read as its name says: POSCAR and CONTCAR, CIF, vasprun.xml, extended XYZ, each
also gzipped. A run that did not converge, and a geometry that is not at rest in its own forces and
stress, are refused: what a relaxation ends at cannot be compared with them.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.data.crystals import Crystals
from harness.data.dft import FILE, DFTSet
from harness.data.units import GPA_PER_EV_ANG3
from harness.errors import DataError

if TYPE_CHECKING:
    from pymatgen.core import Structure

# What a relaxed geometry may be left with. 1 GPa is 1 % in volume at a bulk modulus of 100 GPa, and
# 0.1 eV/Å some 0.02 Å at a bond's stiffness of 5 eV/Å²: more would be seen in the comparison.
MOST_FORCE_EV_PER_ANG = 0.1
MOST_PRESSURE_GPA = 1.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Geometries:
    """n crystals as their reference method relaxed them."""

    source: str  # what a report calls it
    names: tuple[str, ...]  # (n,) unique
    crystals: Crystals  # n rows
    inputs: dict[str, str]  # file -> sha256
    notes: tuple[str, ...] = field(default=())  # what a reader should know of the file

    def __post_init__(self) -> None:
        if not len(set(self.names)) == len(self.names) == len(self.crystals) > 0:
            raise DataError(
                f"{self.source}: {len(self.crystals)} crystals and {len(self.names)} names, "
                f"{len(set(self.names))} of them different; give each crystal its own, and at "
                "least one crystal."
            )

    def scaled(self, factor: float) -> Geometries:
        """Every cell with all its lengths multiplied, fractional coordinates as they are."""
        rows = self.crystals
        cells = Crystals(**{**rows.columns(), "lattices": rows.lattices * factor})
        return replace(self, crystals=cells, source=f"{self.source}, lengths times {factor:g}")


def dft_minima(dft: DFTSet) -> Geometries:
    """Crystals of the project's DFT set with a full curve, at the volume of the fitted minimum.

    Their shape and internal coordinates are those of the set's cells, which symmetry fixes in cubic
    types and which are relaxed PBE ones elsewhere.
    """
    rows = []
    for name in dft.full_eos:
        curve = dft.eos(name)
        one = curve.crystals[0]
        scale = (curve.minimum.v0_ang3 / curve.volumes_ang3[0]) ** (1 / 3)
        rows.append(Crystals(**{**one.columns(), "lattices": one.lattices * scale}))
    return Geometries(
        source="own DFT",
        names=dft.full_eos,
        crystals=Crystals.concatenate(rows),
        inputs={FILE: dft.sha256},
    )


def read_reference(path: str | Path) -> Geometries:
    """The relaxed crystal or crystals in a file of the user's.

    Args:
        path: POSCAR or CONTCAR (`*POSCAR*`, `*CONTCAR*`, `*.vasp`), `*.cif`, `vasprun.xml`
            (`*.xml`) or extended XYZ (`*.xyz`, `*.extxyz`, each frame a crystal); `.gz` may follow.
    Raises:
        DataError: no such file, no known name, not readable as what the name says, element symbols
            missing, sites partly occupied, not periodic, a VASP run that did not converge, or
            forces or pressure too large for a relaxed geometry.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path} is no file. Correct the path given to --reference.")
    readers = [read for name, read in FORMATS.items() if re.search(name, path.name, re.IGNORECASE)]
    if not readers:
        raise DataError(
            f"{path.name}: its name does not say what it is. Call it POSCAR, CONTCAR, *.vasp, "
            "*.cif, vasprun.xml, *.xyz or *.extxyz (.gz may follow)."
        )
    try:
        crystals, notes = readers[0](path)
    except DataError as error:
        raise DataError(f"{path.name}: {error}") from error
    except Exception as error:  # every reader raises its own kind
        raise DataError(
            f"{path.name} cannot be read ({type(error).__name__}: {error}). Check that it is whole "
            "and that its name tells its format."
        ) from error
    if not len(crystals):
        raise DataError(f"{path.name} holds no crystal. Give the file of a finished calculation.")
    return Geometries(
        source=path.name,
        names=_names(crystals),
        crystals=crystals,
        inputs={path.name: hashlib.sha256(path.read_bytes()).hexdigest()},
        notes=notes,
    )


_Read = tuple[Crystals, tuple[str, ...]]
_ON_TRUST = "the file holds no forces and no stress: that its geometry is relaxed is taken on trust"


def _poscar(path: Path) -> _Read:
    from pymatgen.io.vasp.inputs import BadPoscarWarning, Poscar

    with warnings.catch_warnings():
        # Without element symbols pymatgen makes some up (H, He, ...) and warns.
        warnings.simplefilter("error", BadPoscarWarning)
        try:
            poscar = Poscar.from_file(path, check_for_potcar=False)
        except BadPoscarWarning as error:
            raise DataError(
                f"{error} Write the elements' symbols in the line above their counts."
            ) from error
    return Crystals.from_structures([poscar.structure]), (_ON_TRUST,)


def _cif(path: Path) -> _Read:
    from pymatgen.io.cif import CifParser

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        structures: Sequence[Structure] = CifParser(path).parse_structures(primitive=False)
    remarks = sorted({str(one.message) for one in said if issubclass(one.category, UserWarning)})
    return Crystals.from_structures(structures), (_ON_TRUST, *remarks)


def _vasprun(path: Path) -> _Read:
    from pymatgen.io.vasp.outputs import Vasprun

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of what is refused here
        run = Vasprun(
            path,
            parse_dos=False,
            parse_eigen=False,
            parse_projected_eigen=False,
            parse_potcar_file=False,
        )
    if not run.converged_electronic:
        raise DataError(
            f"its last electronic loop stopped after {run.parameters.get('NELM')} steps (NELM) "
            "without converging. Run it again with more steps or other mixing."
        )
    if not run.converged_ionic:
        raise DataError(
            f"its relaxation stopped after {len(run.ionic_steps)} steps (NSW = "
            f"{run.parameters.get('NSW')}) without converging. Go on from its CONTCAR."
        )
    last = run.ionic_steps[-1]
    crystals = Crystals.from_structures([run.final_structure])
    # kB, compression positive
    stress = -np.array(last["stress"]) / 10 if "stress" in last else None
    return crystals, _at_rest(crystals, [last.get("forces")], [stress])


def _extended_xyz(path: Path) -> _Read:
    from ase.io import read

    images: Any = read(path, index=":", format="extxyz")
    crystals = Crystals.from_ase(images)
    results = [{} if image.calc is None else image.calc.results for image in images]
    forces = [found.get("forces") for found in results]
    stress = [
        image.get_stress(voigt=False) * GPA_PER_EV_ANG3 if "stress" in found else None
        for image, found in zip(images, results, strict=True)
    ]
    return crystals, _at_rest(crystals, forces, stress)


# What a name says, and who reads it. The first that fits is taken.
FORMATS: dict[str, Callable[[Path], _Read]] = {
    r"\.cif(\.gz)?$": _cif,
    r"\.xml(\.gz)?$": _vasprun,
    r"\.(ext)?xyz(\.gz)?$": _extended_xyz,
    r"poscar|contcar|\.vasp(\.gz)?$": _poscar,
}


def _at_rest(
    crystals: Crystals,
    forces: Sequence[np.ndarray | None],
    stresses_gpa: Sequence[np.ndarray | None],
) -> tuple[str, ...]:
    """What is left in forces and stress, as remarks.

    Raises:
        DataError: more than a relaxed geometry has.
    """
    remarks = []
    for name, force, stress in zip(_names(crystals), forces, stresses_gpa, strict=True):
        if force is None and stress is None:
            remarks.append(f"{name}: {_ON_TRUST}")
        if force is not None:
            largest = float(np.abs(force).max())
            if not largest <= MOST_FORCE_EV_PER_ANG:
                raise DataError(
                    f"{name} has forces of up to {largest:.3f} eV/Å in the file, more than "
                    f"{MOST_FORCE_EV_PER_ANG:g}: it is not relaxed. Relax it with that method."
                )
            remarks.append(f"{name}: forces up to {largest:.4f} eV/Å in the file")
        if stress is not None:
            pressure = -float(np.trace(stress)) / 3
            if not abs(pressure) <= MOST_PRESSURE_GPA:
                raise DataError(
                    f"{name} is under a pressure of {pressure:+.2f} GPa in the file, more than "
                    f"{MOST_PRESSURE_GPA:g}: its cell is not relaxed. Relax it (VASP: ISIF = 3)."
                )
            remarks.append(f"{name}: pressure {pressure:+.3f} GPa in the file")
    return tuple(remarks)


def _names(crystals: Crystals) -> tuple[str, ...]:
    """Reduced formulas, numbered where one comes more than once."""
    formulas = [str(formula) for formula in crystals.reduced_formulas()]
    count, seen = Counter(formulas), Counter[str]()
    names = []
    for formula in formulas:
        seen[formula] += 1
        names.append(formula if count[formula] == 1 else f"{formula} #{seen[formula]}")
    return tuple(names)
