"""CHGNet's graph of many crystals at once, straight from their columns.

An atom graph joins atoms closer than one cutoff, a bond graph joins bonds shorter than another that
meet at an atom. chgnet builds both from Python objects, one edge at a time, and then searches for
the reverse of every edge; here one direction of every bond is kept and the other is implied, so
nothing is searched. The edges, their pairing and the angles are chgnet's own, up to their order.

Bonds are undirected, and those within the bond cutoff come first. Edge ``b`` leads from
``first[b]`` to ``second[b]`` in cell ``images[b]``; edge ``n_bonds + b`` is its reverse.

Public: Graph, build_graph.
"""

from __future__ import annotations

from collections.abc import Sized
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

if TYPE_CHECKING:
    from harness.data.crystals import Crystals

# chgnet's: pymatgen adds it to the square of the cutoff, so a pair beyond it by rounding counts
TOLERANCE_ANG2 = 1e-8


Array = TypeVar("Array", bound=Sized, covariant=True)  # numpy's, or torch's on a device


@dataclass(frozen=True, kw_only=True)
class Graph(Generic[Array]):
    """Atoms, bonds and angles of n crystals; atoms are numbered through all of them."""

    numbers: Array  # (N,) uint8 atomic numbers
    row_of_atom: Array  # (N,) int64
    n_atoms: Array  # (n,) int64 atoms of each crystal
    volumes_ang3: Array  # (n,) float64
    first: Array  # (n_bonds,) int64 atom
    second: Array  # (n_bonds,) int64 atom; second > first, or a later image of the same atom
    images: Array  # (n_bonds, 3) float64 whole lattice translations of the second atom
    vectors: Array  # (n_bonds, 3) float64, Å, from the second atom to the first
    n_short: int  # bonds within the bond cutoff: rows :n_short of the four arrays above
    # the 2 * n_short directions of the short bonds, grouped by the atom they start from
    arm_bond: Array  # (2 * n_short,) int64 bond
    arm_atom: Array  # (2 * n_short,) int64 atom the arm starts from
    arm_sign: Array  # (2 * n_short,) float64, +1 from first to second, -1 the reverse
    arm_n_angles: Array  # (2 * n_short,) int64 angles of which it is the first arm
    # angles are ordered pairs of different arms of one atom, sorted by the first arm
    angle_first: Array  # (n_angles,) int64 arm
    angle_second: Array  # (n_angles,) int64 arm
    n_isolated: Array  # (n,) int64 atoms of each crystal without any bond

    @property
    def n_bonds(self) -> int:
        return len(self.first)

    @property
    def n_angles(self) -> int:
        return len(self.angle_first)


def build_graph(
    crystals: Crystals, *, atom_cutoff_ang: float, bond_cutoff_ang: float
) -> Graph[np.ndarray]:
    """The graph of all crystals, isolated atoms included as atoms without bonds.

    A bond reaches to the atom cutoff, inclusive. An angle's first arm reaches to the bond cutoff,
    inclusive, its second arm falls short of it: chgnet's own pair of inequalities. A length within
    rounding of a cutoff may fall on the other side than in chgnet; what hangs on it weighs nothing.
    """
    first, second, images, distances, row_of_bond = _bonds(crystals, atom_cutoff_ang)
    short = distances <= bond_cutoff_ang
    order = np.concatenate([np.flatnonzero(short), np.flatnonzero(~short)])
    first, second, images, distances = (a[order] for a in (first, second, images, distances))
    row_of_bond = row_of_bond[order]

    row_of_atom = np.repeat(np.arange(len(crystals)), crystals.n_atoms)
    positions = np.einsum("ni,nij->nj", crystals.frac_coords, crystals.lattices[row_of_atom])
    shifts = np.einsum("bi,bij->bj", images, crystals.lattices[row_of_bond])

    bonded = np.zeros(len(row_of_atom), dtype=bool)
    bonded[first] = True
    bonded[second] = True
    n_short = int(np.count_nonzero(short))
    return Graph(
        numbers=crystals.numbers,
        row_of_atom=row_of_atom,
        n_atoms=crystals.n_atoms,
        volumes_ang3=crystals.volumes_ang3,
        first=first,
        second=second,
        images=images,
        vectors=positions[first] - positions[second] - shifts,
        n_short=n_short,
        n_isolated=np.bincount(row_of_atom[~bonded], minlength=len(crystals)),
        **_angles(
            first[:n_short],
            second[:n_short],
            distances[:n_short] < bond_cutoff_ang,
            len(row_of_atom),
        ),
    )


def _bonds(crystals: Crystals, cutoff_ang: float) -> tuple[np.ndarray, ...]:
    """first, second, images, distances and row of every undirected bond, by row."""
    from pymatgen.optimization.neighbors import find_points_in_spheres

    periodic = np.ones(3, dtype=np.int64)
    starts = crystals.offsets - crystals.offsets[0]
    found = []
    for i, lattice in enumerate(crystals.lattices):
        coords = crystals.frac_coords[starts[i] : starts[i + 1]]
        positions = np.ascontiguousarray(coords @ lattice)
        found.append(
            find_points_in_spheres(
                positions,
                positions,
                r=cutoff_ang,
                pbc=periodic,
                lattice=np.ascontiguousarray(lattice),
                tol=TOLERANCE_ANG2,
            )
        )
    if not found:
        none = np.empty(0, dtype=np.int64)
        return none, none, np.empty((0, 3)), np.empty(0), none
    first, second, images, distances = (np.concatenate(parts) for parts in zip(*found, strict=True))
    row = np.repeat(np.arange(len(crystals)), [len(part[0]) for part in found])
    # Of each bond and its reverse, keep the one to the later atom, or for an atom's own image the
    # one whose first non-zero translation is positive. An atom paired with itself goes as well.
    x, y, z = images.T
    forward = (x > 0) | ((x == 0) & ((y > 0) | ((y == 0) & (z > 0))))
    keep = np.flatnonzero((first < second) | ((first == second) & forward))
    row = row[keep]
    return first[keep] + starts[row], second[keep] + starts[row], images[keep], distances[keep], row


def _angles(
    first: np.ndarray, second: np.ndarray, below: np.ndarray, n_atoms: int
) -> dict[str, np.ndarray]:
    """Arms and angles of the short bonds; ``below`` marks those strictly below the cutoff."""
    n_short = len(first)
    atom = np.concatenate([first, second])
    second_arm = np.concatenate([below, below])
    # within an atom's group, arms that may only come first in an angle stand last
    order = stable_order(2 * atom + ~second_arm, 2 * n_atoms)
    atom = atom[order]
    n_partners = np.bincount(atom[second_arm[order]], minlength=n_atoms)
    group_start = np.concatenate([[0], np.cumsum(np.bincount(atom, minlength=n_atoms))])

    n_angles = n_partners[atom] - second_arm[order]  # an arm makes no angle with itself
    angle_start = np.cumsum(n_angles) - n_angles
    angle_first = np.repeat(np.arange(2 * n_short), n_angles)
    angle_second = np.arange(len(angle_first)) + np.repeat(
        group_start[atom] - angle_start, n_angles
    )
    angle_second += angle_second >= angle_first
    return {
        "arm_bond": order % max(n_short, 1),
        "arm_atom": atom,
        "arm_sign": np.where(order < n_short, 1.0, -1.0),
        "arm_n_angles": n_angles,
        "angle_first": angle_first,
        "angle_second": angle_second,
    }


def stable_order(keys: np.ndarray, n_keys: int) -> np.ndarray:
    """(m,) int64 positions that sort keys in 0..n_keys-1, equal keys in their own order.

    numpy sorts 16-bit integers by radix, several times faster than wider ones, hence the passes.
    """
    order = np.argsort((keys & 0xFFFF).astype(np.uint16), kind="stable")
    for shift in range(16, int(n_keys).bit_length(), 16):
        digits = (keys[order] >> shift) & 0xFFFF
        order = order[np.argsort(digits.astype(np.uint16), kind="stable")]
    return order
