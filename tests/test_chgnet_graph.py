"""The graph built from columns is chgnet's own: same edges, same pairing, same angles."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from harness.data.crystals import Crystals
from harness.models.chgnet.graph import stable_order
from tests.graphs import (
    ATOM_CUTOFF_ANG,
    BOND_CUTOFF_ANG,
    WRITTEN_CELLS,
    Angle,
    Edge,
    assert_is_chgnets,
    crystal,
    crystals_of_any_cell,
    our_angles,
    our_edges,
)
from tests.graphs import numpy_graph as ours

pytest.importorskip("chgnet")


@settings(max_examples=30, deadline=None)
@given(crystals_of_any_cell())
def test_edges_pairs_and_angles_are_chgnets(crystals: Crystals) -> None:
    assert_is_chgnets(ours(crystals), crystals)


@pytest.mark.parametrize("made", WRITTEN_CELLS)
def test_a_written_cell_has_chgnets_graph(made: Crystals) -> None:
    assert_is_chgnets(ours(made), made)


def test_the_bond_cutoff_is_inclusive_for_the_first_arm_only() -> None:
    graph = ours(crystal(np.diag([3.0, 2.0, 8.0]), [[0, 0, 0]]))
    lengths = np.linalg.norm(graph.vectors, axis=1)
    first = lengths[graph.arm_bond[graph.angle_first]]
    second = lengths[graph.arm_bond[graph.angle_second]]
    assert first.max() == 3.0
    assert second.max() == 2.0
    assert graph.n_angles == 2 * 1 + 2 * 2  # 2 Å arms with each other, 3 Å arms with both of them


@settings(max_examples=10, deadline=None)
@given(st.lists(crystals_of_any_cell(), min_size=2, max_size=4))
def test_a_batch_is_its_crystals_side_by_side(parts: list[Crystals]) -> None:
    batch = ours(Crystals.concatenate(parts))
    edges: Counter[Edge] = Counter()
    angles: Counter[Angle] = Counter()
    shift = 0
    for part in parts:

        def moved(edge: Edge, by: int = shift) -> Edge:
            return edge[0] + by, edge[1] + by, edge[2]

        alone = ours(part)
        edges.update(moved(edge) for edge in our_edges(alone))
        angles.update((moved(a), moved(b)) for a, b in our_angles(alone))
        shift += len(part.numbers)
    assert Counter(our_edges(batch)) == edges
    assert Counter(our_angles(batch)) == angles


@settings(max_examples=30, deadline=None)
@given(crystals_of_any_cell())
def test_bond_vectors_span_from_the_second_atoms_image_to_the_first(crystals: Crystals) -> None:
    graph = ours(crystals)
    lattice = crystals.lattices[0]
    positions = crystals.frac_coords @ lattice
    expected = positions[graph.first] - positions[graph.second] - graph.images @ lattice
    np.testing.assert_allclose(graph.vectors, expected, atol=1e-12)
    lengths = np.linalg.norm(graph.vectors, axis=1)
    assert (lengths <= ATOM_CUTOFF_ANG + 1e-7).all()
    assert (lengths[: graph.n_short] <= BOND_CUTOFF_ANG + 1e-12).all()
    assert (lengths[graph.n_short :] > BOND_CUTOFF_ANG - 1e-12).all()


def test_a_slice_of_a_larger_set_has_the_same_graph() -> None:
    parts = [crystal(np.eye(3) * a, [[0, 0, 0], [0.5, 0.5, 0.5]]) for a in (3.1, 3.6, 4.2)]
    whole = Crystals.concatenate(parts)
    assert our_edges(ours(whole[1:2])) == our_edges(ours(parts[1]))


def test_no_crystals_make_an_empty_graph() -> None:
    graph = ours(crystal(np.eye(3) * 3.0, [[0, 0, 0]])[:0])
    assert graph.n_bonds == graph.n_angles == len(graph.n_isolated) == 0


@given(
    hnp.arrays(np.int64, st.integers(0, 60), elements=st.integers(0, 5)),
    st.sampled_from([1, 30_000, 200_000]),  # 200,000 needs a second pass
)
def test_the_radix_order_is_the_stable_order(keys: np.ndarray, factor: int) -> None:
    spread = keys * factor
    expected = np.argsort(spread, kind="stable")
    np.testing.assert_array_equal(stable_order(spread, 5 * factor + 1), expected)
