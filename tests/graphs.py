"""Crystals to build CHGNet's graph of, and chgnet's own graph of them to compare with."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from harness.data.crystals import Crystals
from harness.models.chgnet.graph import Graph, build_graph

ATOM_CUTOFF_ANG, BOND_CUTOFF_ANG = 6.0, 3.0

Edge = tuple[int, int, tuple[int, ...]]  # centre, neighbour, image of the neighbour
Angle = tuple[Edge, Edge]


def crystal(lattice: object, frac_coords: object, numbers: list[int] | None = None) -> Crystals:
    coords = np.array(frac_coords, dtype=float).reshape(-1, 3)
    return Crystals(
        numbers=np.array(numbers or [29] * len(coords), dtype=np.uint8),
        frac_coords=coords,
        lattices=np.array(lattice, dtype=float).reshape(1, 3, 3),
        offsets=np.array([0, len(coords)], dtype=np.int64),
    )


WRITTEN_CELLS = [
    pytest.param(crystal(np.eye(3) * 2.5, [[0, 0, 0]]), id="one atom, cell below the cutoffs"),
    pytest.param(crystal(np.eye(3) * 4.0, [[0.3, 0.3, 0.3]]), id="bonds without angles"),
    pytest.param(crystal(np.eye(3) * 9.0, [[0, 0, 0]]), id="one isolated atom"),
    pytest.param(
        crystal(np.eye(3) * 12.0, [[0, 0, 0], [0.1, 0, 0], [0.5, 0.5, 0.5]]),
        id="a pair and an isolated atom",
    ),
    pytest.param(
        crystal(np.eye(3) * 12.0, [[0, 0, 0], [0.1, 0, 0], [0, 0.2, 0]]),
        id="one angle, in a box",
    ),
    pytest.param(crystal(np.eye(3) * 3.0, [[0, 0, 0]]), id="all bonds at the bond cutoff"),
    pytest.param(
        crystal(np.diag([3.0, 2.0, 8.0]), [[0, 0, 0]]), id="some bonds at the bond cutoff"
    ),
    pytest.param(crystal(np.diag([6.0, 3.5, 9.0]), [[0, 0, 0]]), id="bonds at the atom cutoff"),
    pytest.param(
        crystal([[2.9, 0, 0], [2.7, 1.1, 0], [-2.0, 0.9, 2.4]], [[0.1, 0.2, 0.3]]),
        id="strongly skewed",
    ),
]


def numpy_graph(crystals: Crystals) -> Graph[np.ndarray]:
    return build_graph(crystals, atom_cutoff_ang=ATOM_CUTOFF_ANG, bond_cutoff_ang=BOND_CUTOFF_ANG)


def our_edges(graph: Graph[np.ndarray]) -> list[Edge]:
    """Directed edges: bond b, then b's reverse at n_bonds + b."""
    images = np.concatenate([graph.images, -graph.images]).astype(int)
    start = np.concatenate([graph.first, graph.second])
    end = np.concatenate([graph.second, graph.first])
    return [
        (i, j, tuple(image))
        for i, j, image in zip(start.tolist(), end.tolist(), images.tolist(), strict=True)
    ]


def our_angles(graph: Graph[np.ndarray]) -> list[Angle]:
    edges = our_edges(graph)
    arms = np.where(graph.arm_sign > 0, graph.arm_bond, graph.n_bonds + graph.arm_bond).tolist()
    for arm, atom in zip(arms, graph.arm_atom.tolist(), strict=True):
        assert edges[arm][0] == atom
    pairs = zip(graph.angle_first.tolist(), graph.angle_second.tolist(), strict=True)
    return [(edges[arms[a]], edges[arms[b]]) for a, b in pairs]


def chgnet_graph(crystals: Crystals) -> tuple[list[Edge], list[frozenset[int]], list[Angle]]:
    """Directed edges, the pairs of them that share a bond, and angles, of one crystal."""
    from chgnet.graph import CrystalGraphConverter

    converter = CrystalGraphConverter(
        atom_graph_cutoff=ATOM_CUTOFF_ANG,
        bond_graph_cutoff=BOND_CUTOFF_ANG,
        algorithm="legacy",  # the compiled one reads past the end of an empty neighbour list
        on_isolated_atoms="ignore",
    )
    graph = converter(crystals.structure(0))
    ends = graph.atom_graph.numpy().reshape(-1, 2).tolist()
    images = graph.neighbor_image.numpy().astype(int).reshape(-1, 3).tolist()
    edges = [(i, j, tuple(image)) for (i, j), image in zip(ends, images, strict=True)]
    pairs: dict[int, set[int]] = {}
    for edge, bond in enumerate(graph.directed2undirected.tolist()):
        pairs.setdefault(bond, set()).add(edge)
    angles = []
    for centre, _, first, _, second in graph.bond_graph.numpy().reshape(-1, 5).tolist():
        assert edges[first][0] == edges[second][0] == centre
        angles.append((edges[first], edges[second]))
    return edges, [frozenset(pair) for pair in pairs.values()], angles


def assert_is_chgnets(graph: Graph[np.ndarray], crystals: Crystals) -> None:
    """Edges, pairing, angles and isolated atoms are those of chgnet's graph of one crystal."""
    edges, pairs, angles = chgnet_graph(crystals)
    found = our_edges(graph)
    assert Counter(found) == Counter(edges)
    our_pairs = [frozenset((found[b], found[b + graph.n_bonds])) for b in range(graph.n_bonds)]
    assert Counter(our_pairs) == Counter(frozenset(edges[e] for e in pair) for pair in pairs)
    assert Counter(our_angles(graph)) == Counter(angles)
    bonded = {edge[0] for edge in edges}
    assert graph.n_isolated.tolist() == [len(crystals.numbers) - len(bonded)]


@st.composite
def crystals_of_any_cell(draw: st.DrawFn) -> Crystals:
    """One to five atoms in cells from dense to sparse and from cubic to strongly skewed."""
    n_atoms = draw(st.integers(1, 5))
    lengths = draw(hnp.arrays(float, 3, elements=st.floats(2.0, 7.0)))
    shear = draw(hnp.arrays(float, (3, 3), elements=st.floats(-1.0, 1.0)))
    lattice = np.diag(lengths) @ (np.eye(3) + np.triu(shear, 1))
    if draw(st.booleans()):
        lattice = lattice[[1, 0, 2]]  # left-handed
    # not wrapped into the cell; thirds and halves besides, for the ties of real crystals
    coordinate = st.floats(-0.7, 1.7) | st.sampled_from([0.0, 1 / 3, 0.5, 2 / 3])
    coords = draw(hnp.arrays(float, (n_atoms, 3), elements=coordinate))
    made = crystal(lattice, coords)
    lengths_ang = np.linalg.norm(numpy_graph(made).vectors, axis=1)
    assume(lengths_ang.size < 2500)  # chgnet takes seconds beyond
    assume(not (lengths_ang < 0.1).any())
    for cutoff in (ATOM_CUTOFF_ANG, BOND_CUTOFF_ANG):  # there, rounding decides for both
        assume(not (np.abs(lengths_ang - cutoff) < 1e-7).any())
    return made
