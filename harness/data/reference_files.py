"""Relaxed geometries to compare a potential's with: the project's own DFT, or a file of the user's.

Public: Geometries, read_reference, dft_minima, NOT_KNOWN.

A user's file is read as its name says: POSCAR and CONTCAR, CIF, vasprun.xml, extended XYZ, each
also gzipped. A run that did not converge, and a geometry that is not at rest in every force and
every component of the stress of its file, are refused: what a relaxation ends at cannot be compared
with them. Where the file does not say, the name that every record carries says so.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from harness.data.crystals import Crystals
from harness.data.dft import FILE, DFTSet
from harness.data.structure_files import FORMATS, StructureFile, read_structures
from harness.errors import DataError
from harness.files import sha256_of

# What a relaxed geometry may be left with. 1 GPa is 1 % in volume at a bulk modulus of 100 GPa, and
# 0.1 eV/Å some 0.02 Å at a bond's stiffness of 5 eV/Å²: more would be seen in the comparison.
MOST_FORCE_EV_PER_ANG = 0.1
MOST_STRESS_GPA = 1.0

NOT_KNOWN = "not known to be relaxed"


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
    Returns:
        Geometries whose source ends in NOT_KNOWN where a file does not give both forces and stress.
    Raises:
        DataError: no such file, no known name, not readable as what the name says and as a whole, a
            crystal that does not pass harness.data.gate, a VASP run that did not converge, or a
            force or a component of the stress too large for a relaxed geometry.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path} is no file. Correct the path given to --reference.")
    if not any(re.search(name, path.name, re.IGNORECASE) for name in FORMATS):
        raise DataError(
            f"{path.name}: its name does not say what it is. Call it POSCAR, CONTCAR, *.vasp, "
            "*.cif, vasprun.xml, *.xyz or *.extxyz (.gz may follow)."
        )
    found = read_structures(path)
    names = _names(found.crystals)
    not_known, notes = _at_rest(path.name, names, found)
    return Geometries(
        source=path.name if not not_known else f"{path.name}, {NOT_KNOWN}",
        names=names,
        crystals=found.crystals,
        inputs={path.name: sha256_of(path)},
        notes=(*not_known, *notes, *found.remarks),
    )


def _at_rest(
    file: str, names: tuple[str, ...], found: StructureFile
) -> tuple[list[str], list[str]]:
    """Of which crystals the file does not say whether they are at rest, and what it says of others.

    Raises:
        DataError: more than a relaxed geometry has, or a number that is not finite.
    """
    not_known, notes = [], []
    for row, name in enumerate(names):
        forces, stresses = found.forces_ev_per_ang[row], found.stress_gpa[row]
        for key, force in forces.items():
            largest = float(np.abs(force).max())
            if not largest <= MOST_FORCE_EV_PER_ANG:
                raise DataError(
                    f"{file}: {name} has forces of up to {largest:.3f} eV/Å in the file ({key}), "
                    f"more than {MOST_FORCE_EV_PER_ANG:g}: it is not relaxed. Relax it with that "
                    "method."
                )
            notes.append(f"{name}: forces up to {largest:.4f} eV/Å in the file ({key})")
        for key, stress in stresses.items():
            largest, pressure = float(np.abs(stress).max()), -float(np.trace(stress)) / 3
            if not largest <= MOST_STRESS_GPA:
                raise DataError(
                    f"{file}: {name} is under a stress of up to {largest:.2f} GPa in the file "
                    f"({key}, pressure {pressure:+.2f} GPa), more than {MOST_STRESS_GPA:g}: its "
                    "cell is not relaxed. Relax it, cell included (VASP: ISIF = 3)."
                )
            notes.append(
                f"{name}: stress up to {largest:.3f} GPa, pressure {pressure:+.3f} GPa in the file "
                f"({key})"
            )
        lacks = [what for what, has in (("forces", forces), ("stress", stresses)) if not has]
        unread = ", ".join(found.not_read[row]) if found.not_read else ""
        if lacks:
            not_known.append(
                f"{name}: the file gives no {' and no '.join(lacks)}"
                + (f" that can be read (not read: {unread})" if unread else "")
                + f"; {NOT_KNOWN}"
            )
        elif unread:
            notes.append(f"{name}: not read: {unread}")
    return not_known, notes


def _names(crystals: Crystals) -> tuple[str, ...]:
    """Reduced formulas, numbered where one comes more than once."""
    formulas = [str(formula) for formula in crystals.reduced_formulas()]
    count, seen = Counter(formulas), Counter[str]()
    names = []
    for formula in formulas:
        seen[formula] += 1
        names.append(formula if count[formula] == 1 else f"{formula} #{seen[formula]}")
    return tuple(names)
