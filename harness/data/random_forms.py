"""One crystal written down in two ways, which to a potential are one and the same.

Public: Forms, supercells, moved, turned, reordered. Each is a hypothesis strategy over random
crystals; all of it shrinks, the crystal and the way in which it was changed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.data.crystals import Crystals
from harness.data.random_crystals import describe, number, random_crystals

if TYPE_CHECKING:
    from hypothesis.strategies import DrawFn, SearchStrategy


@dataclass(frozen=True, kw_only=True, eq=False)
class Forms:
    """A crystal, the same crystal otherwise written down, and how one becomes the other."""

    one: Crystals
    other: Crystals
    atom_of: np.ndarray  # (n_other,) which atom of the one each atom of the other is
    turn: np.ndarray  # (3, 3): a vector v of the one is turn @ v in the other
    how: Mapping[str, Any]

    @property
    def key(self) -> bytes:
        return self.one.row_hashes().tobytes() + self.other.row_hashes().tobytes()

    @property
    def words(self) -> dict[str, Any]:
        return {**describe(self.one), **self.how}


def supercells(elements: Collection[int], *, max_atoms: int = 12) -> SearchStrategy[Forms]:
    """Cells of one to four times the size, any lattice of that index, with any choice of vectors.

    Every such lattice has one lower triangular matrix (Hermite); a second matrix of determinant
    one then skews the cell without changing the lattice.
    """
    from hypothesis import strategies as st

    diagonals = [
        (a, b, c)
        for n in (2, 3, 4, 1)
        for a in range(1, n + 1)
        for b in range(1, n + 1)
        for c in range(1, n + 1)
        if a * b * c == n
    ]

    crystals = random_crystals(elements, max_atoms=min(max_atoms, 8))

    @st.composite
    def forms(draw: DrawFn) -> Forms:
        one = draw(crystals)
        a, b, c = draw(st.sampled_from(diagonals))
        below = draw(st.tuples(*[st.integers(0, top - 1) for top in (a, a, b)]))
        skew = draw(st.tuples(*[st.integers(-1, 1)] * 3))
        hermite = np.array([[a, 0, 0], [below[0], b, 0], [below[1], below[2], c]])
        upper = np.array([[1, skew[0], skew[1]], [0, 1, skew[2]], [0, 0, 1]])
        matrix = upper @ hermite
        cells = np.array(list(np.ndindex(a, b, c)))  # one point of the lattice in each cell
        frac = (one.frac_coords[None] + cells[:, None]).reshape(-1, 3) @ np.linalg.inv(matrix)
        other = Crystals(
            numbers=np.tile(one.numbers, len(cells)),
            frac_coords=frac,
            lattices=(matrix @ one.lattices[0])[None],
            offsets=np.array([0, len(frac)], dtype=np.int64),
        )
        return Forms(
            one=one,
            other=other,
            atom_of=np.tile(np.arange(len(one.numbers)), len(cells)),
            turn=np.eye(3),
            how={"supercell": matrix.tolist()},
        )

    return forms()


def moved(elements: Collection[int], *, max_atoms: int = 12) -> SearchStrategy[Forms]:
    """The crystal moved as a whole, and each atom by a lattice vector of its own."""
    from hypothesis import strategies as st

    shifts = st.tuples(*[number(0.0, 2.0, both_ways=True)] * 3)
    crystals = random_crystals(elements, max_atoms=max_atoms)

    @st.composite
    def forms(draw: DrawFn) -> Forms:
        one = draw(crystals)
        shift = draw(shifts)
        n = len(one.numbers)
        images = np.reshape(draw(st.tuples(*[st.integers(-1, 1)] * (3 * n))), (n, 3))
        at = one.frac_coords + np.array(shift) + images
        how = {"shift_frac": list(shift), "lattice_vectors": images.tolist()}
        return _same_order(one, at, one.lattices[0], np.eye(3), how)

    return forms()


def turned(elements: Collection[int], *, max_atoms: int = 12) -> SearchStrategy[Forms]:
    """The crystal turned by any rotation, and half of the time mirrored besides."""
    from hypothesis import strategies as st

    angles = st.tuples(*[number(0.0, 360.0)] * 3)
    crystals = random_crystals(elements, max_atoms=max_atoms)

    @st.composite
    def forms(draw: DrawFn) -> Forms:
        one = draw(crystals)
        first, second, third = draw(angles)
        mirrored = draw(st.booleans())
        turn = _about_z(first) @ _about_x(second) @ _about_z(third)
        turn = -turn if mirrored else turn
        how = {"angles_zxz_deg": [first, second, third], "mirrored": mirrored}
        return _same_order(one, one.frac_coords, one.lattices[0] @ turn.T, turn, how)

    return forms()


def reordered(elements: Collection[int], *, max_atoms: int = 12) -> SearchStrategy[Forms]:
    """The crystal's atoms listed in another order."""
    from hypothesis import strategies as st

    crystals = random_crystals(elements, max_atoms=max_atoms)

    @st.composite
    def forms(draw: DrawFn) -> Forms:
        one = draw(crystals)
        order = np.array(draw(st.permutations(range(len(one.numbers)))))
        other = Crystals(
            numbers=one.numbers[order],
            frac_coords=one.frac_coords[order],
            lattices=one.lattices,
            offsets=one.offsets,
        )
        how = {"order": order.tolist()}
        return Forms(one=one, other=other, atom_of=order, turn=np.eye(3), how=how)

    return forms()


def _same_order(
    one: Crystals, frac: np.ndarray, lattice: np.ndarray, turn: np.ndarray, how: Mapping[str, Any]
) -> Forms:
    other = Crystals(
        numbers=one.numbers, frac_coords=frac, lattices=lattice[None], offsets=one.offsets
    )
    return Forms(one=one, other=other, atom_of=np.arange(len(frac)), turn=turn, how=how)


def _about_z(degrees: float) -> np.ndarray:
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def _about_x(degrees: float) -> np.ndarray:
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
