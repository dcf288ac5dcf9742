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

from harness.data import gate
from harness.data.columns import read_columns, write_columns
from harness.data.elements import SYMBOLS, reduced_formulas
from harness.errors import DataError

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.core import Structure

N_ELEMENTS = gate.N_ELEMENTS
_HASH_TAG = b"crystal-row-1\0"
_FILE_KIND = "crystals-1"
_FIELDS = ("numbers", "frac_coords", "lattices", "offsets")


@dataclass(frozen=True, eq=False)
class Crystals:
    """n periodic, fully ordered structures.

    The constructor takes what the project itself builds, and does not look at distances: a dimer
    may be compressed on purpose. Whatever comes from outside goes through `admitted`, as the
    methods from_structures, from_ase, from_files and load do.

    Raises:
        DataError: shapes or types do not fit, a row is empty, a number is not finite or beyond the
            limits of harness.data.gate, an atomic number is outside 1..118, or a cell has no
            volume; the message names the row.
    """

    numbers: np.ndarray  # (N,) uint8 atomic numbers 1..118, all atoms of all rows
    frac_coords: np.ndarray  # (N, 3) float64 fractional coordinates, not wrapped
    lattices: np.ndarray  # (n, 3, 3) float64, rows are lattice vectors, Å
    offsets: np.ndarray  # (n + 1,) int64; row i owns offsets[i] : offsets[i + 1], less offsets[0]

    def __post_init__(self) -> None:
        self._check_layout()
        gate.check_rows(self.numbers, self.frac_coords, self.lattices, self.offsets)

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

    @classmethod
    def admitted(
        cls,
        numbers: np.ndarray,
        frac_coords: np.ndarray,
        lattices: np.ndarray,
        offsets: np.ndarray,
        *,
        name: gate.Name = gate.numbered,
        closest_ang: float = gate.CLOSEST_ANG,
    ) -> Crystals:
        """Rows from outside, through every check of harness.data.gate.

        Args:
            name: how a message calls the row at a position.
            closest_ang: 0 leaves distances unchecked, for what is compressed on purpose.
        Raises:
            DataError: a row that is not a crystal, or that has atoms nearer than 0.3 Å.
        """
        crystals = cls._trusted(numbers, frac_coords, lattices, offsets)
        crystals._check_layout()
        gate.check_rows(numbers, frac_coords, lattices, offsets, name)
        if closest_ang:
            gate.check_distances(numbers, frac_coords, lattices, offsets, name)
        return crystals

    @classmethod
    def _trusted(
        cls,
        numbers: np.ndarray,
        frac_coords: np.ndarray,
        lattices: np.ndarray,
        offsets: np.ndarray,
    ) -> Crystals:
        """Rows that are checked already, or by the caller."""
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
        return np.abs(gate.triple_products(self.lattices))

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
    def from_structures(
        cls, structures: Sequence[Structure], *, name: gate.Name = gate.numbered
    ) -> Crystals:
        """Crystals from pymatgen structures, in their order; oxidation states are dropped.

        Args:
            name: how a message calls the structure at a position.
        Raises:
            DataError: a site is partly occupied or holds no element, the lattice does not repeat in
                three directions, or the gate refuses it; the message names the row.
        """
        numbers = []
        for row, structure in enumerate(structures):
            gate.check_periodic(structure.lattice.pbc, name(row))
            for site, entry in enumerate(structure):
                where = f"{name(row)}, site {site}"
                if not entry.is_ordered:
                    gate.check_occupied(
                        [(str(kind), float(share)) for kind, share in entry.species.items()], where
                    )
                numbers.append(gate.atomic_number(entry.specie.symbol, where))
        return cls._from_rows(
            numbers,
            [np.asarray(structure.frac_coords) for structure in structures],
            [np.asarray(structure.lattice.matrix) for structure in structures],
            name,
        )

    @classmethod
    def from_ase(
        cls,
        images: Sequence[Atoms],
        *,
        name: gate.Name | None = None,
        closest_ang: float = gate.CLOSEST_ANG,
    ) -> Crystals:
        """Crystals from ASE atoms, in their order; coordinates are not wrapped.

        Args:
            name: how a message calls the image at a position.
            closest_ang: 0 leaves distances unchecked, for steps of a relaxation say.
        Raises:
            DataError: a row is not periodic in three directions, has no cell, is partly occupied
                (ASE keeps that in atoms.info), or the gate refuses it; the message names the row.
        """

        def called(row: int) -> str:
            return name(row) if name else f"row {row} ({images[row].get_chemical_formula()})"

        numbers: list[int] = []
        lattices = []
        for row, atoms in enumerate(images):
            gate.check_periodic(atoms.pbc, called(row))
            for site, occupants in gate.occupancies(atoms.info, atoms.arrays):
                gate.check_occupied(occupants, f"{called(row)}, site {site}")
            numbers.extend(atoms.numbers.tolist())
            lattices.append(np.array(atoms.cell, dtype=np.float64))
        gate.check_cells(np.array(lattices).reshape(-1, 3, 3), called)
        coords = [
            np.linalg.solve(cell.T, atoms.positions.T).T
            for cell, atoms in zip(lattices, images, strict=True)
        ]
        return cls._from_rows(numbers, coords, lattices, called, closest_ang)

    @classmethod
    def from_files(cls, paths: Sequence[str | Path]) -> Crystals:
        """Crystals from files (CIF, POSCAR, vasprun.xml, XSF, extended XYZ, JSON, ...), one a file.

        Raises:
            DataError: a file is missing, cannot be read, holds more or fewer than one structure,
                or the gate refuses it; the message names it.
        """
        from harness.data.structure_files import read_structures

        rows = []
        for path in map(Path, paths):
            found = read_structures(path)
            if len(found.crystals) != 1:
                raise DataError(
                    f"{path} holds {len(found.crystals)} structures, and a file makes one row. "
                    "Give each its own file, or read them with harness.data.structure_files."
                )
            rows.append(found.crystals)
        return cls.concatenate(rows)

    @classmethod
    def _from_rows(
        cls,
        numbers: list[int],
        coords: list[np.ndarray],
        lattices: list[np.ndarray],
        name: gate.Name,
        closest_ang: float = gate.CLOSEST_ANG,
    ) -> Crystals:
        offsets = np.concatenate([[0], np.cumsum([len(c) for c in coords], dtype=np.int64)])
        atomic_numbers = np.array(numbers, dtype=np.int64)
        # uint8 would wrap 257 to 1, so what does not fit becomes 0, which the gate refuses
        fits = (atomic_numbers >= 1) & (atomic_numbers <= N_ELEMENTS)
        return cls.admitted(
            np.where(fits, atomic_numbers, 0).astype(np.uint8),
            np.concatenate([np.empty((0, 3)), *(c.reshape(-1, 3) for c in coords)]),
            np.array(lattices, dtype=np.float64).reshape(-1, 3, 3),
            offsets.astype(np.int64),
            name=name,
            closest_ang=closest_ang,
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
        if set(columns) != set(_FIELDS):
            raise DataError(
                f"{path} holds {', '.join(sorted(columns))}, expected {', '.join(_FIELDS)}. Make "
                "it again."
            )
        arrays = [columns[field] for field in _FIELDS]
        return cls.admitted(*arrays, name=lambda row: f"{path}, row {row}")

    def columns(self) -> dict[str, np.ndarray]:
        """The four arrays by name, offsets from 0: ``Crystals(**columns)`` gives the rows back."""
        arrays = {name: getattr(self, name) for name in _FIELDS}
        return arrays | {"offsets": self.offsets - self.offsets[0]}
