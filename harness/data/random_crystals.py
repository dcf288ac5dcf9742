"""Crystals nobody chose: hypothesis draws them, and makes smaller ones of those that fail.

Public: random_crystals, Layers, layers, elemental_crystals, radii_ang, number, one_element,
describe.

All is drawn as whole numbers below 100. Of other numbers hypothesis now and then takes one that
stands in the code of a loaded module, so that a seed would give other crystals once any file of the
project changes, or in a session that loads more of them.

Source: generated here, no data. Sizes of atoms are covalent radii of Cordero et al., Dalton Trans.
2832 (2008), and for noble gases van der Waals radii of Bondi and of Mantina et al., J. Phys. Chem.
A 113, 5806 (2009), all as ASE has them. Distances are then a little below to well above those of
real crystals, so energies lie within some tens of eV/atom of the minimum.
"""

from __future__ import annotations

import functools
from collections.abc import Collection
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from harness.data.crystals import Crystals
from harness.data.elements import SYMBOLS

if TYPE_CHECKING:
    from hypothesis.strategies import DrawFn, SearchStrategy

NOBLE = (2, 10, 18, 36, 54, 86)
# A first-row atom in a dense crystal is no smaller than its bonds to metals say (Fe-O, Mg-O: 2.1).
SMALLEST_RADIUS_ANG = 0.9
CLOSENESS = (0.8, 1.2)  # nearest distance over the sum of radii; copper has 0.97, diamond 0.86
# Every atom has a neighbour this near: whether an atom on its own has an energy is another claim.
FARTHEST_NEIGHBOUR_ANG = 4.8
_GRIDS = ((1, 1, 1), (2, 1, 1), (2, 2, 1), (3, 2, 1), (2, 2, 2), (3, 2, 2))
_STEP = 0.15  # largest displacement from a site of the grid, as a share of its spacing
_IMAGES = np.array(list(product((-2, -1, 0, 1, 2), repeat=3)), dtype=np.float64)


@functools.cache
def radii_ang() -> np.ndarray:
    """(119,) radius of each element by atomic number, Å; entry 0 is not used."""
    from ase.data import covalent_radii, vdw_radii

    radii = np.full(len(SYMBOLS) + 1, 1.7)  # beyond curium none was measured: about curium's
    radii[1:97] = covalent_radii[1:97]
    radii[list(NOBLE)] = vdw_radii[list(NOBLE)]
    radii = np.maximum(radii, SMALLEST_RADIUS_ANG)
    radii.flags.writeable = False
    return radii


def number(start: float, end: float, *, both_ways: bool = False) -> SearchStrategy[float]:
    """Strategy of numbers from ``start``, the simplest, to ``end``, or as far to its other side.

    Steps are a ten-thousandth of the distance.
    """
    from hypothesis import strategies as st

    digits = st.integers(-99 if both_ways else 0, 99)
    return st.tuples(digits, digits).map(
        lambda pair: start + (end - start) * (100 * pair[0] + pair[1]) / 9999
    )


def one_element(elements: Collection[int]) -> SearchStrategy[int]:
    """Strategy of one of the elements; the lightest is simplest."""
    from hypothesis import strategies as st

    numbers = sorted(elements)
    tens, ones = st.integers(0, (len(numbers) - 1) // 10), st.integers(0, 9)
    return st.tuples(tens, ones).map(
        lambda pair: numbers[min(10 * pair[0] + pair[1], len(numbers) - 1)]
    )


def random_crystals(elements: Collection[int], *, max_atoms: int = 12) -> SearchStrategy[Crystals]:
    """Strategy of one-row Crystals: 1 to ``max_atoms`` atoms of up to three of the elements.

    Atoms sit near the sites of a small grid, some of them empty, in a sheared box that is scaled
    until the nearest two atoms are as close as CLOSENESS allows. The cell may be skewed further,
    which leaves the crystal as it is. Everything shrinks: towards one atom of the first element in
    a cube.
    """
    from hypothesis import assume
    from hypothesis import strategies as st

    element = one_element(elements)
    grids = [grid for grid in _GRIDS if np.prod(grid) <= max_atoms]
    grid_sites = {grid: np.array(list(np.ndindex(*grid)), dtype=np.float64) for grid in grids}
    stretches = st.tuples(*[number(1.0, 1.3)] * 3)
    shears = st.tuples(*[number(0.0, 0.4, both_ways=True)] * 3)
    closeness = number(1.0, CLOSENESS[1], both_ways=True)
    skews = st.tuples(*[st.integers(-1, 1)] * 3)

    @st.composite
    def crystal(draw: DrawFn) -> Crystals:
        grid = draw(st.sampled_from(grids))
        n_sites = int(np.prod(grid))
        sites = draw(
            st.lists(st.integers(0, n_sites - 1), unique=True, min_size=(3 * n_sites + 3) // 4)
        )
        palette = draw(st.tuples(element, element, element))
        species = [draw(st.sampled_from(palette)) for _ in sites]
        off = draw(st.tuples(*[st.integers(-99, 99)] * (3 * len(sites))))
        moves = _STEP / 99 * np.reshape(off, (-1, 3))
        frac = (grid_sites[grid][sites] + moves) / grid
        stretch = draw(stretches)
        box = np.diag(np.array(grid) * stretch) + _lower(np.array(draw(shears)))
        nearest = _nearest(frac, box)
        radii = radii_ang()[species]
        scale = draw(closeness) / (nearest / (radii[:, None] + radii)).min()
        assume(scale * nearest.min(axis=1).max() < FARTHEST_NEIGHBOUR_ANG)
        skew = np.eye(3) + _lower(np.array(draw(skews)))
        return Crystals(
            numbers=np.array(species, dtype=np.uint8),
            frac_coords=frac @ np.linalg.inv(skew),
            lattices=(scale * skew @ box)[None],
            offsets=np.array([0, len(sites)], dtype=np.int64),
        )

    return crystal()


@dataclass(frozen=True, kw_only=True)
class Layers:
    """Two flat nets of atoms, stacked straight above one another without a mirror between them."""

    numbers: tuple[int, int]  # one element a net
    in_plane_ang: float  # nearest distance within a net
    angle_deg: float  # of the net: 90 is square, 60 triangular
    further_ang: float  # by how much the second gap of a period is wider than the first

    @property
    def closest_ang(self) -> float:
        """The least distance between layers that is worth a look: 0.8 of the sum of radii."""
        return 0.8 * float(radii_ang()[list(self.numbers)].sum())

    def at(self, distances_ang: np.ndarray) -> Crystals:
        """One row a distance: the nearest distance between atoms of the two nets."""
        gap, count = np.asarray(distances_ang, dtype=np.float64), len(distances_ang)
        angle = np.deg2rad(self.angle_deg)
        lattices = np.zeros((count, 3, 3))
        lattices[:, 0, 0] = self.in_plane_ang
        lattices[:, 1, :2] = self.in_plane_ang * np.array([np.cos(angle), np.sin(angle)])
        lattices[:, 2, 2] = 2 * gap + self.further_ang
        frac = np.zeros((count, 2, 3))
        frac[:, 1, 2] = gap / lattices[:, 2, 2]
        return Crystals(
            numbers=np.tile(np.array(self.numbers, dtype=np.uint8), count),
            frac_coords=frac.reshape(-1, 3),
            lattices=lattices,
            offsets=2 * np.arange(count + 1, dtype=np.int64),
        )


def layers(elements: Collection[int]) -> SearchStrategy[Layers]:
    """Strategy of stacks of two nets, each held together within itself."""
    from hypothesis import strategies as st

    element = one_element(elements)

    @st.composite
    def stack(draw: DrawFn) -> Layers:
        numbers = draw(st.tuples(element, element))
        widest = 2 * float(radii_ang()[list(numbers)].max())
        return Layers(
            numbers=numbers,
            in_plane_ang=min(draw(number(1.0, 1.8)) * widest, FARTHEST_NEIGHBOUR_ANG),
            angle_deg=draw(number(60.0, 90.0)),
            further_ang=draw(number(0.25, 1.5)),
        )

    return stack()


def elemental_crystals(elements: Collection[int]) -> tuple[np.ndarray, Crystals, tuple[str, ...]]:
    """A crystal of each element at a plausible volume.

    Returns:
        atomic_numbers: (m,) int64, rising.
        crystals: m rows.
        sources: m strings: "fixtures" where the project has the element's crystal, else "fcc",
            nearest neighbours at the sum of their radii.
    """
    from harness.data.thermochemistry import load_elements

    known, real, _ = load_elements()
    row_of = {int(z): row for row, z in enumerate(known)}
    numbers = sorted(elements)
    rows, sources = [], []
    for z in numbers:
        if z in row_of:
            rows.append(real[row_of[z]])
            sources.append("fixtures")
        else:
            edge = 2**0.5 * 2 * radii_ang()[z]
            primitive = edge / 2 * (np.ones((3, 3)) - np.eye(3))
            rows.append(
                Crystals(
                    numbers=np.array([z], dtype=np.uint8),
                    frac_coords=np.zeros((1, 3)),
                    lattices=primitive[None],
                    offsets=np.array([0, 1], dtype=np.int64),
                )
            )
            sources.append("fcc")
    return np.array(numbers, dtype=np.int64), Crystals.concatenate(rows), tuple(sources)


def describe(crystal: Crystals) -> dict[str, object]:
    """Everything needed to build a one-row Crystals again, as JSON has it."""
    return {
        "formula": str(crystal.reduced_formulas()[0]),
        "elements": [SYMBOLS[z - 1] for z in crystal.numbers.tolist()],
        "lattice_ang": crystal.lattices[0].tolist(),
        "frac_coords": crystal.frac_coords.tolist(),
    }


def _lower(values: np.ndarray) -> np.ndarray:
    """(3, 3) with the three values below the diagonal."""
    matrix = np.zeros((3, 3))
    matrix[(1, 2, 2), (0, 0, 1)] = values
    return matrix


def _nearest(frac: np.ndarray, box: np.ndarray) -> np.ndarray:
    """(n, n) distance of each pair of atoms by its nearest images, of an atom to its own next."""
    between = frac[:, None] - frac[None]
    between -= np.round(between)
    apart = (between @ box)[:, :, None] + _IMAGES @ box
    squares = np.einsum("ijkx,ijkx->ijk", apart, apart)
    squares[(*np.diag_indices(len(frac)), len(_IMAGES) // 2)] = np.inf
    return np.sqrt(squares.min(axis=2))
