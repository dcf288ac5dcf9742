"""Crystals in columns: one array for all atomic numbers, one for all coordinates, one of lattices.

A hundred thousand structures are four arrays here rather than millions of objects, so that they
open in a fraction of a second, slice without copying and travel to a GPU in one piece. Every row is
periodic in three directions and fully ordered. No charge, spin or label is kept.

Public: Crystals. Treat the arrays as read-only: slices share them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness.data.columns import read_columns, write_columns
from harness.data.elements import NUMBERS, SYMBOLS, reduced_formulas
from harness.errors import DataError

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.core import Structure

N_ELEMENTS = 118
MIN_VOLUME_ANG3 = 1e-3  # a hydrogen atom at 1 TPa still has about 1 Å^3; below this it is a slip
_HASH_TAG = b"crystal-row-1\0"
_FILE_KIND = "crystals-1"
_FIELDS = ("numbers", "frac_coords", "lattices", "offsets")


@dataclass(frozen=True, eq=False)
class Crystals:
    """n periodic, fully ordered structures.

    Raises:
        DataError: shapes or types do not fit, a row is empty, a number is not finite, an atomic
            number is outside 1..118, or a cell has no volume; the message names the row.
    """

    numbers: np.ndarray  # (N,) uint8 atomic numbers 1..118, all atoms of all rows
    frac_coords: np.ndarray  # (N, 3) float64 fractional coordinates, not wrapped
    lattices: np.ndarray  # (n, 3, 3) float64, rows are lattice vectors, Å
    offsets: np.ndarray  # (n + 1,) int64; row i owns offsets[i] : offsets[i + 1], less offsets[0]

    def __post_init__(self) -> None:
        self._check_layout()
        _refuse(np.diff(self.offsets) < 1, "has no atoms", "Remove the row or restore its sites")
        _refuse(
            self._any_atom((self.numbers < 1) | (self.numbers > N_ELEMENTS)),
            "has an atomic number outside 1..118",
            "Only real elements have references; remove or correct the row",
        )
        _refuse(
            self._any_atom(~_are_finite(self.frac_coords)),
            "has a coordinate that is not finite",
            "Restore the file it came from",
        )
        _refuse(
            ~_are_finite(self.lattices),
            "has a lattice vector that is not finite",
            "Restore the file it came from",
        )
        _refuse(
            ~(self.volumes_ang3 > MIN_VOLUME_ANG3),
            f"has a cell of at most {MIN_VOLUME_ANG3} Å^3",
            "Its lattice vectors lie in a plane or the units are wrong; they are rows, in Å",
        )

    def _check_layout(self) -> None:
        for name, dtype, tail in (
            ("numbers", np.uint8, ()),
            ("frac_coords", np.float64, (3,)),
            ("lattices", np.float64, (3, 3)),
            ("offsets", np.int64, ()),
        ):
            array = getattr(self, name)
            found = (getattr(array, "dtype", None), getattr(array, "shape", (None,))[1:])
            if not isinstance(array, np.ndarray) or found != (np.dtype(dtype), tail):
                shape = ", ".join(["*", *map(str, tail)])
                raise DataError(
                    f"{name} is {type(array).__name__} of {found[0]}, shape "
                    f"{getattr(array, 'shape', None)}; expected ({shape}) {np.dtype(dtype)}. "
                    "Convert it, or build through from_structures or from_ase."
                )
        n_rows, n_atoms = len(self.lattices), len(self.numbers)
        if len(self.offsets) != n_rows + 1 or len(self.frac_coords) != n_atoms:
            raise DataError(
                f"{n_rows} lattices with {len(self.offsets)} offsets, {n_atoms} numbers with "
                f"{len(self.frac_coords)} coordinates: one more offset than lattices and as many "
                "coordinates as numbers are needed. Build the arrays from one source."
            )
        if self.offsets[-1] - self.offsets[0] != n_atoms:
            raise DataError(
                f"offsets span {self.offsets[-1] - self.offsets[0]} atoms and there are {n_atoms}. "
                "Build the arrays from one source."
            )

    def _any_atom(self, flags: np.ndarray) -> np.ndarray:
        """(n,) bool: rows owning at least one flagged atom."""
        rows = np.zeros(len(self), dtype=bool)
        if flags.any():
            rows[self.row_of_atom[flags]] = True
        return rows

    @classmethod
    def _trusted(
        cls,
        numbers: np.ndarray,
        frac_coords: np.ndarray,
        lattices: np.ndarray,
        offsets: np.ndarray,
    ) -> Crystals:
        """Rows taken from crystals that were checked already."""
        crystals = object.__new__(cls)
        for name, array in zip(_FIELDS, (numbers, frac_coords, lattices, offsets), strict=True):
            object.__setattr__(crystals, name, array)
        return crystals

    # --- rows ---------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.lattices)

    def __getitem__(self, rows: int | np.integer | slice | np.ndarray | Sequence[int]) -> Crystals:
        """Rows as Crystals: a view for an integer or a slice of step 1, else a copy."""
        if isinstance(rows, int | np.integer):
            position = range(len(self))[int(rows)]  # counts from the end, raises IndexError
            return self._view(position, position + 1)
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            if step == 1:
                return self._view(start, max(start, stop))
            return self._gather(np.arange(start, stop, step))
        index = np.asarray(rows)
        if index.dtype == bool:
            if index.shape != (len(self),):
                raise IndexError(f"mask of shape {index.shape} for {len(self)} rows")
            return self._gather(np.flatnonzero(index))
        if index.size == 0:
            index = index.astype(np.int64)
        if index.ndim != 1 or index.dtype.kind not in "iu":
            raise IndexError(f"rows are picked by (k,) integers or a mask, not {index.dtype}")
        return self._gather(index)

    def __iter__(self) -> Iterator[Crystals]:
        return (self._view(i, i + 1) for i in range(len(self)))

    def __repr__(self) -> str:
        return f"Crystals({len(self)} rows, {len(self.numbers)} atoms)"

    def _view(self, start: int, stop: int) -> Crystals:
        first = self.offsets[0]
        atoms = slice(int(self.offsets[start] - first), int(self.offsets[stop] - first))
        return Crystals._trusted(
            self.numbers[atoms],
            self.frac_coords[atoms],
            self.lattices[start:stop],
            self.offsets[start : stop + 1],
        )

    def _gather(self, rows: np.ndarray) -> Crystals:
        lengths = self.n_atoms[rows]
        starts = (self.offsets[:-1] - self.offsets[0])[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        atoms = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
        return Crystals._trusted(
            self.numbers[atoms], self.frac_coords[atoms], self.lattices[rows], offsets
        )

    # --- what a row is ------------------------------------------------------------------------

    def atom_slice(self, row: int) -> slice:
        """Where the atoms of one row lie in numbers and frac_coords, also in a sliced view."""
        row = range(len(self))[row]
        first = self.offsets[0]
        return slice(int(self.offsets[row] - first), int(self.offsets[row + 1] - first))

    def atoms_of(self, rows: np.ndarray) -> np.ndarray:
        """(sum of the rows' atoms,) where the atoms of these rows lie, in the order of the rows."""
        lengths = self.n_atoms[rows]
        starts = (self.offsets[:-1] - self.offsets[0])[rows]
        before = np.cumsum(lengths) - lengths
        return np.arange(lengths.sum()) + np.repeat(starts - before, lengths)

    @property
    def n_atoms(self) -> np.ndarray:
        """(n,) int64 atoms in the cell."""
        return np.diff(self.offsets)

    @property
    def row_of_atom(self) -> np.ndarray:
        """(N,) int64 position of the row that owns each atom."""
        return np.repeat(np.arange(len(self)), self.n_atoms)

    @property
    def volumes_ang3(self) -> np.ndarray:
        """(n,) float64 cell volumes, positive for left-handed cells too."""
        return np.abs(triple_products(self.lattices))

    def compositions(self) -> np.ndarray:
        """(n, 118) float64 atoms of each element in the cell, column Z - 1."""
        cells = self.row_of_atom * N_ELEMENTS + (self.numbers.astype(np.int64) - 1)
        weights = np.ones(len(cells))  # makes the counts float64 at once
        counts = np.bincount(cells, weights, minlength=len(self) * N_ELEMENTS)
        return counts.reshape(len(self), N_ELEMENTS)

    def fractions(self) -> np.ndarray:
        """(n, 118) float64 atomic fractions; every row sums to 1."""
        return self.compositions() / self.n_atoms[:, None]

    def reduced_formulas(self) -> np.ndarray:
        """(n,) str, the same for two rows exactly when their atomic fractions are the same."""
        return reduced_formulas(self.compositions())

    def row_hashes(self) -> np.ndarray:
        """(n, 32) uint8 sha256 of each row's content; equal exactly when the content is equal.

        Content is the numbers, fractional coordinates and lattice in the order given: the same
        crystal in another cell or another site order is other content. -0.0 counts as 0.0. The
        hash does not depend on where in which set the row stands. Computed once; read-only.
        """
        return self._row_hashes

    @cached_property
    def _row_hashes(self) -> np.ndarray:
        numbers = self.numbers.tobytes()
        coords = (self.frac_coords + 0.0).astype("<f8").tobytes()  # + 0.0 turns -0.0 into 0.0
        lattices = (self.lattices + 0.0).astype("<f8").tobytes()
        bounds = (self.offsets - self.offsets[0]).tolist()
        digests = [
            hashlib.sha256(
                b"".join(
                    (
                        _HASH_TAG,
                        numbers[start:stop],
                        coords[24 * start : 24 * stop],
                        lattices[72 * row : 72 * row + 72],
                    )
                )
            ).digest()
            for row, (start, stop) in enumerate(pairwise(bounds))
        ]
        return np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(len(self), 32)

    # --- in and out ---------------------------------------------------------------------------

    @classmethod
    def from_structures(cls, structures: Sequence[Structure]) -> Crystals:
        """Crystals from pymatgen structures, in their order; oxidation states are dropped.

        Raises:
            DataError: a site is partly occupied or holds no element; the message names the row.
        """
        numbers = []
        for row, structure in enumerate(structures):
            for site, entry in enumerate(structure):
                if not entry.is_ordered:
                    raise DataError(
                        f"row {row}, site {site}: {entry.species_string} is partly occupied. Only "
                        "ordered structures have one energy; order the structure first."
                    )
                symbol = entry.specie.symbol
                if symbol not in NUMBERS:
                    raise DataError(
                        f"row {row}, site {site}: {symbol!r} is not an element. Replace or remove "
                        "the site."
                    )
                numbers.append(NUMBERS[symbol])
        return cls._from_rows(
            numbers,
            [np.asarray(structure.frac_coords) for structure in structures],
            [np.asarray(structure.lattice.matrix) for structure in structures],
        )

    @classmethod
    def from_ase(cls, images: Sequence[Atoms]) -> Crystals:
        """Crystals from ASE atoms, in their order; coordinates are not wrapped.

        Raises:
            DataError: a row is not periodic in three directions, has no cell, or holds an atom
                that is no element; the message names the row.
        """
        numbers: list[int] = []
        coords, lattices = [], []
        for row, atoms in enumerate(images):
            if not all(atoms.pbc):
                raise DataError(
                    f"row {row} ({atoms.get_chemical_formula()}) has pbc={atoms.pbc.tolist()}. "
                    "Crystals repeat in three directions: give it a cell with enough vacuum and "
                    "set atoms.pbc = True."
                )
            cell = np.array(atoms.cell, dtype=np.float64)
            if not abs(np.linalg.det(cell)) > MIN_VOLUME_ANG3:
                raise DataError(
                    f"row {row} ({atoms.get_chemical_formula()}) has a cell of at most "
                    f"{MIN_VOLUME_ANG3} Å^3: {cell.tolist()}. Give it three lattice vectors in Å."
                )
            numbers.extend(atoms.numbers.tolist())
            coords.append(np.linalg.solve(cell.T, atoms.positions.T).T)
            lattices.append(cell)
        return cls._from_rows(numbers, coords, lattices)

    @classmethod
    def from_files(cls, paths: Sequence[str | Path]) -> Crystals:
        """Crystals from files that pymatgen reads (CIF, POSCAR, XSF, JSON, ...), one row a file.

        Raises:
            DataError: a file is missing or cannot be read; the message names it.
        """
        from pymatgen.core import Structure

        structures = []
        for path in paths:
            if not Path(path).is_file():
                raise DataError(f"{path} does not exist. Correct the path.")
            try:
                structures.append(Structure.from_file(str(path)))
            except Exception as error:  # every reader behind it raises its own kind
                raise DataError(
                    f"{path} cannot be read as a structure ({type(error).__name__}: {error}). "
                    "Check the file, and that its name tells its format (.cif, POSCAR, .xsf)."
                ) from error
        return cls.from_structures(structures)

    @classmethod
    def _from_rows(
        cls, numbers: list[int], coords: list[np.ndarray], lattices: list[np.ndarray]
    ) -> Crystals:
        offsets = np.concatenate([[0], np.cumsum([len(c) for c in coords], dtype=np.int64)])
        atomic_numbers = np.array(numbers, dtype=np.int64)
        # uint8 would wrap 257 to 1, so what does not fit becomes 0, which the constructor refuses
        fits = (atomic_numbers >= 1) & (atomic_numbers <= N_ELEMENTS)
        return cls(
            numbers=np.where(fits, atomic_numbers, 0).astype(np.uint8),
            frac_coords=np.concatenate([np.empty((0, 3)), *(c.reshape(-1, 3) for c in coords)]),
            lattices=np.array(lattices, dtype=np.float64).reshape(-1, 3, 3),
            offsets=offsets.astype(np.int64),
        )

    def structure(self, row: int) -> Structure:
        """One row as a pymatgen Structure."""
        from pymatgen.core import Lattice, Structure

        atoms = self.atom_slice(row)
        symbols = [SYMBOLS[z - 1] for z in self.numbers[atoms].tolist()]
        return Structure(Lattice(self.lattices[row]), symbols, self.frac_coords[atoms])

    def atoms(self, row: int) -> Atoms:
        """One row as ASE Atoms, periodic in three directions, without a calculator."""
        from ase import Atoms

        sites = self.atom_slice(row)
        return Atoms(
            numbers=self.numbers[sites].astype(int),
            scaled_positions=self.frac_coords[sites],
            cell=self.lattices[row],
            pbc=True,
        )

    @staticmethod
    def concatenate(parts: Sequence[Crystals]) -> Crystals:
        """All rows of all parts, in order."""
        lengths = np.concatenate([np.empty(0, np.int64), *(part.n_atoms for part in parts)])
        return Crystals._trusted(
            np.concatenate([np.empty(0, np.uint8), *(part.numbers for part in parts)]),
            np.concatenate([np.empty((0, 3)), *(part.frac_coords for part in parts)]),
            np.concatenate([np.empty((0, 3, 3)), *(part.lattices for part in parts)]),
            np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        )

    def save(self, path: str | Path) -> None:
        """Write to an uncompressed .npz file; an interrupted write leaves no file behind."""
        write_columns(Path(path), self.columns(), {"kind": _FILE_KIND})

    @classmethod
    def load(cls, path: str | Path) -> Crystals:
        """Read what save wrote.

        Raises:
            DataError: the file is missing, damaged or of another kind.
        """
        columns, header = read_columns(Path(path))
        if header.get("kind") != _FILE_KIND:
            raise DataError(
                f"{path} holds {header.get('kind')!r}, expected {_FILE_KIND!r}. It was written by "
                "another version or is another kind of file; make it again."
            )
        return cls(**columns)

    def columns(self) -> dict[str, np.ndarray]:
        """The four arrays by name, offsets from 0: ``Crystals(**columns)`` gives the rows back."""
        arrays = {name: getattr(self, name) for name in _FIELDS}
        return arrays | {"offsets": self.offsets - self.offsets[0]}


def triple_products(lattices: np.ndarray) -> np.ndarray:
    """(n,) signed cell volumes a·(b x c) of (n, 3, 3) row vectors, faster than np.linalg.det."""
    (ax, ay, az), (bx, by, bz), (cx, cy, cz) = lattices.transpose(1, 2, 0)
    with np.errstate(over="ignore", invalid="ignore"):  # callers compare, and nan compares false
        return ax * (by * cz - bz * cy) + ay * (bz * cx - bx * cz) + az * (bx * cy - by * cx)


def _are_finite(array: np.ndarray) -> np.ndarray:
    """(n,) bool, True where every number of an (n, ...) array's entry is finite."""
    finite = np.isfinite(array)
    if finite.all():  # reducing along the short axes takes far longer than this
        return np.ones(len(array), dtype=bool)
    return finite.reshape(len(array), -1).all(axis=1)


def _refuse(flags: np.ndarray, what: str, remedy: str) -> None:
    if flags.any():
        rows = np.flatnonzero(flags)
        others = f" ({len(rows) - 1} more: {rows[1:6].tolist()})" if len(rows) > 1 else ""
        raise DataError(f"row {rows[0]} {what}{others}. {remedy}.")
