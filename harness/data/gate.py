"""One gate for crystals: whatever door they come in by, the same is refused in the same words.

Doors are objects of pymatgen and ASE, files, matbench's layout, published frames and references.
Each says how it calls a row ("row 3", "POSCAR", "set.json, row 3 (index 7, mb-mp-e-form-000008)"),
and the sentence here says what is wrong with it and what to do.

Public: check_rows, check_cells, check_distances, check_periodic, check_occupied, occupancies,
atomic_number, too_close, triple_products, Name, numbered, and the limits MIN_VOLUME_ANG3,
LONGEST_VECTOR_ANG, MOST_CELLS_AWAY, CLOSEST_ANG.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import product

import numpy as np

from harness.data.elements import NUMBERS, SYMBOLS
from harness.errors import DataError

N_ELEMENTS = len(SYMBOLS)
MIN_VOLUME_ANG3 = 1e-3  # a hydrogen atom at 1 TPa still has about 1 Å^3; below this it is a slip
LONGEST_VECTOR_ANG = 1e4  # a cell beyond a micrometre is a slip of units, or damage
MOST_CELLS_AWAY = 1e4  # beyond it a fractional coordinate has fewer digits than a bond length needs
CLOSEST_ANG = (
    0.3  # H2 has 0.74 and hydrogen at 500 GPa about 1; nuclei nearer than this do not last
)

_BIN_ANG = 1.2  # of the grid that near atoms share; other sizes were slower on real rows
_ROWS_AT_ONCE = 1000  # whose arrays stay in the processor's cache
_MOST_IN_A_BIN = 3000  # that are CLOSEST_ANG apart: spheres of that diameter in the largest bin
_THIN_ANG = (
    2 * CLOSEST_ANG
)  # between lattice planes; above it the nearest image is found by rounding

Name = Callable[[int], str]


def numbered(row: int) -> str:
    """How a row is called where nothing better is known."""
    return f"row {row}"


# --- columns --------------------------------------------------------------------------------------


def check_rows(
    numbers: np.ndarray,
    frac_coords: np.ndarray,
    lattices: np.ndarray,
    offsets: np.ndarray,
    name: Name = numbered,
) -> None:
    """What every row of columns has to be, but for the distances between its atoms.

    Args:
        numbers: (N,) atomic numbers of all rows.
        frac_coords: (N, 3).
        lattices: (n, 3, 3), rows are lattice vectors, Å.
        offsets: (n + 1,); row i owns offsets[i] : offsets[i + 1], less offsets[0].
    Raises:
        DataError: the first row that is not a crystal, by its name.
    """
    n_atoms = np.diff(offsets)
    _refuse(n_atoms < 1, "has no atoms. Remove the row or restore its sites", name)

    def rows(flags: np.ndarray) -> np.ndarray:
        found = np.zeros(len(lattices), dtype=bool)
        if flags.any():
            found[np.repeat(np.arange(len(lattices)), n_atoms)[flags]] = True
        return found

    _refuse(
        rows((numbers < 1) | (numbers > N_ELEMENTS)),
        f"has an atomic number outside 1..{N_ELEMENTS}. Only real elements have references; remove "
        "or correct the row",
        name,
    )
    if not np.abs(frac_coords).max(initial=0.0) <= MOST_CELLS_AWAY:  # which nan is not either
        _refuse(
            rows(~_all(np.isfinite(frac_coords))),
            "has a coordinate that is not finite. Restore the file it came from",
            name,
        )
        _refuse(
            rows(~_all(np.abs(frac_coords) <= MOST_CELLS_AWAY)),
            f"has a coordinate beyond {MOST_CELLS_AWAY:g} cells. Wrap it into the cell",
            name,
        )
    check_cells(lattices, name)


def check_cells(lattices: np.ndarray, name: Name = numbered) -> None:
    """Three vectors, (n, 3, 3) in Å, that span a volume: fractional coordinates need no more.

    Raises:
        DataError: the first row where they do not, by its name.
    """
    if not np.abs(lattices).max(initial=0.0) <= LONGEST_VECTOR_ANG:
        _refuse(
            ~_all(np.isfinite(lattices)),
            "has a lattice vector that is not finite. Restore the file it came from",
            name,
        )
        _refuse(
            ~_all(np.abs(lattices) <= LONGEST_VECTOR_ANG),
            f"has a lattice vector beyond {LONGEST_VECTOR_ANG:g} Å. Correct its units",
            name,
        )
    flat = ~(np.abs(triple_products(lattices)) > MIN_VOLUME_ANG3)
    if flat.any():
        lattice = lattices[int(np.flatnonzero(flat)[0])].tolist()
        _refuse(
            flat,
            f"has a cell of at most {MIN_VOLUME_ANG3} Å^3: {lattice}. Its vectors lie in a plane "
            "or the units are wrong; they are rows, in Å",
            name,
        )


def check_distances(
    numbers: np.ndarray,
    frac_coords: np.ndarray,
    lattices: np.ndarray,
    offsets: np.ndarray,
    name: Name = numbered,
) -> None:
    """No two atoms of a row, images of the cell included, are nearer than CLOSEST_ANG.

    Raises:
        DataError: the first row where they are, with the pair and the distance.
    """
    if found := too_close(frac_coords, lattices, offsets):
        row, one, other, distance = found
        first = int(offsets[row] - offsets[0])
        a, b = (f"{SYMBOLS[int(numbers[first + atom]) - 1]} ({atom})" for atom in (one, other))
        pair = f"{a} and {b}" if one != other else f"{a} and its own periodic image"
        raise DataError(
            f"{name(row)}: {pair} are {distance:.4f} Å apart, closer than {CLOSEST_ANG} Å. No two "
            "atoms share a place: remove the copy, or give a site on a symmetry element all its "
            "digits (0.333333, not 0.333)."
        )


def _all(flags: np.ndarray) -> np.ndarray:
    return np.asarray(flags.reshape(len(flags), -1).all(axis=1))


def _refuse(flags: np.ndarray, what: str, name: Name) -> None:
    if flags.any():
        rows = np.flatnonzero(flags)
        others = f" ({len(rows) - 1} more: {rows[1:6].tolist()})" if len(rows) > 1 else ""
        head, dot, remedy = what.partition(". ")
        raise DataError(f"{name(int(rows[0]))} {head}{others}{dot}{remedy}.")


def triple_products(lattices: np.ndarray) -> np.ndarray:
    """(n,) signed cell volumes a·(b x c) of (n, 3, 3) row vectors, faster than np.linalg.det."""
    (ax, ay, az), (bx, by, bz), (cx, cy, cz) = lattices.transpose(1, 2, 0)
    with np.errstate(over="ignore", invalid="ignore"):  # callers compare, and nan compares false
        return ax * (by * cz - bz * cy) + ay * (bz * cx - bx * cz) + az * (bx * cy - by * cx)


# --- distances ------------------------------------------------------------------------------------


def too_close(
    frac_coords: np.ndarray, lattices: np.ndarray, offsets: np.ndarray
) -> tuple[int, int, int, float] | None:
    """First row with two atoms nearer than CLOSEST_ANG: row, two places in it, distance, Å.

    The two places are the same where an atom is near its own image. It takes a tenth of the time
    that reading the same rows from JSON does.
    """
    starts = offsets - offsets[0]
    for first in range(0, len(lattices), _ROWS_AT_ONCE):
        some = slice(first, first + _ROWS_AT_ONCE)
        bounds = starts[first : first + _ROWS_AT_ONCE + 1]
        coords = frac_coords[bounds[0] : bounds[-1]]
        if found := _near_pair(coords, lattices[some], np.diff(bounds)):
            row, one, other, distance = found
            return first + row, one, other, distance
    return None


def _near_pair(
    frac: np.ndarray, lattices: np.ndarray, n_atoms: np.ndarray
) -> tuple[int, int, int, float] | None:
    heights = _heights(lattices)
    found = _in_shared_bins(frac, lattices, n_atoms, heights)
    starts = np.cumsum(n_atoms) - n_atoms
    for row in np.flatnonzero((heights < _THIN_ANG).any(axis=0)).tolist():  # few
        if found is not None and found[0] <= row:
            break
        if near := _in_thin_cell(frac[starts[row] : starts[row] + n_atoms[row]], lattices[row]):
            return (row, *near)
    return found


def _heights(lattices: np.ndarray) -> np.ndarray:
    """(3, n) distances between neighbouring planes of the lattice, Å."""
    a, b, c = lattices.transpose(1, 0, 2)
    planes = np.stack([np.cross(b, c), np.cross(c, a), np.cross(a, b)])
    volumes = np.abs(np.einsum("ij,ij->i", planes[0], a))
    return np.asarray(volumes / np.linalg.norm(planes, axis=2))


def _in_shared_bins(
    frac: np.ndarray, lattices: np.ndarray, n_atoms: np.ndarray, heights: np.ndarray
) -> tuple[int, int, int, float] | None:
    """Near atoms share a bin of a grid, if those at its upper walls stand beyond them too."""
    row = np.repeat(np.arange(len(n_atoms), dtype=np.int64), n_atoms)
    n_bins = np.maximum(1, (heights / _BIN_ANG).astype(np.int64))
    n_bins = np.minimum(n_bins, 1 + n_atoms)  # wide empty cells need no more than that
    # one bin is its own neighbour, and nothing has to stand in it twice
    wall = np.where(n_bins > 1, 1 - CLOSEST_ANG / heights * n_bins, 2.0)
    per_row = n_bins.prod(axis=0)
    bins = (np.cumsum(per_row) - per_row)[row]
    strides = (n_bins[1] * n_bins[2], n_bins[2], np.ones_like(n_bins[2]))
    beyond = []
    for axis, stride in enumerate(strides):
        n = n_bins[axis][row]
        place = (frac[:, axis] - np.floor(frac[:, axis])) * n
        at = np.minimum(place.astype(np.int64), n - 1)
        bins += at * stride[row]
        k = np.flatnonzero(place - at >= wall[axis][row])
        step = np.zeros(len(frac), dtype=np.int64)
        step[k] = np.where(at[k] + 1 == n[k], -at[k], 1) * stride[row[k]]
        beyond.append(step)
    atoms = np.arange(len(frac))
    for step in beyond:
        there = np.flatnonzero(step[atoms])
        bins = np.concatenate([bins, bins[there] + step[atoms[there]]])
        atoms = np.concatenate([atoms, atoms[there]])
    order = np.argsort(bins, kind="stable")
    atoms, bins = atoms[order], bins[order]
    starts = np.cumsum(n_atoms) - n_atoms
    found: tuple[int, int, int, float] | None = None
    first = np.flatnonzero(bins[1:] == bins[:-1])  # and in the same bin, so many places on
    for apart in range(1, _MOST_IN_A_BIN):
        if not len(first):
            break
        one, other = atoms[first], atoms[first + apart]
        steps = frac[one] - frac[other]
        steps -= np.round(steps)
        distances = np.linalg.norm(np.einsum("ai,aij->aj", steps, lattices[row[one]]), axis=1)
        near = np.flatnonzero((distances < CLOSEST_ANG) & (one != other))
        if near.size:
            k = near[np.lexsort((distances[near], row[one[near]]))[0]]
            at = int(row[one[k]])
            pair = sorted((int(one[k] - starts[at]), int(other[k] - starts[at])))
            found = (at, pair[0], pair[1], float(distances[k]))
            first = first[row[one] < at]  # an earlier row may have one further apart in its bin
        first = first[: np.searchsorted(first, len(bins) - apart - 1)]
        first = first[bins[first] == bins[first + apart + 1]]
    return found


def _in_thin_cell(frac: np.ndarray, lattice: np.ndarray) -> tuple[int, int, float] | None:
    """Where the nearest image is not the rounded one: in the reduced cell, repeated if still thin.

    A reduced cell is at least 0.7 times as thick as its shortest vector is long.
    """
    from ase.geometry import minkowski_reduce

    reduced = np.asarray(minkowski_reduce(lattice)[0])
    images = np.array(list(product((-1, 0, 1), repeat=3)))
    lengths = np.linalg.norm(images @ reduced, axis=1)
    if (own := float(lengths[lengths > 0].min())) < CLOSEST_ANG:
        return 0, 0, own
    n = len(frac)
    inside = frac @ lattice @ np.linalg.inv(reduced)
    if (_heights(reduced[None]) < _THIN_ANG).any():
        inside = np.concatenate([inside - np.floor(inside) + image for image in images + 1]) / 3
        reduced = reduced * 3
    heights = _heights(reduced[None])
    found = _in_shared_bins(inside, reduced[None], np.array([len(inside)]), heights)
    if found is None:
        return None
    one, other = sorted((found[1] % n, found[2] % n))
    return one, other, found[3]


# --- objects and files ----------------------------------------------------------------------------


def check_periodic(pbc: Iterable[object], where: str) -> None:
    """Raises DataError unless it repeats in three directions."""
    flags = [bool(flag) for flag in pbc]
    if flags != [True, True, True]:
        raise DataError(
            f"{where} has pbc={flags}. Crystals repeat in three directions: give a slab, wire or "
            "molecule a cell with at least 15 Å of vacuum and set pbc to True in all three."
        )


def check_occupied(
    occupants: Mapping[str, float] | Sequence[tuple[str, float]], where: str
) -> None:
    """Raises DataError unless one element has the whole site."""
    pairs = list(occupants.items() if isinstance(occupants, Mapping) else occupants)
    if len(pairs) != 1 or isinstance(pairs[0][1], bool) or pairs[0][1] != 1:
        listed = ", ".join(f"{symbol}: {share:g}" for symbol, share in pairs) or "nothing"
        raise DataError(
            f"{where} is partly occupied ({listed}). Only ordered structures have one energy; "
            "order the structure, or remove it."
        )


def atomic_number(symbol: object, where: str) -> int:
    """1 to 118; deuterium and tritium are hydrogen. Raises DataError for what is no element."""
    if not isinstance(symbol, str) or symbol not in NUMBERS:
        raise DataError(
            f"{where}: {symbol!r} is not an element. Correct the symbol, or remove the site."
        )
    return NUMBERS[symbol]


def occupancies(
    info: Mapping[str, object], arrays: Mapping[str, np.ndarray]
) -> Iterator[tuple[str, dict[str, float]]]:
    """Sites and their occupants, from where ASE's readers put them.

    CIF leaves a dictionary in ``info["occupancy"]``, a file with a column of that name an array.
    """
    kept = info.get("occupancy")
    if isinstance(kept, Mapping):
        for site, occupants in kept.items():
            yield str(site), dict(occupants)
    for name in ("occupancy", "occupancies"):
        if name in arrays and arrays[name].dtype.kind in "fiu":
            for site, share in enumerate(arrays[name].reshape(-1).tolist()):
                yield str(site), {"its atom": share}
