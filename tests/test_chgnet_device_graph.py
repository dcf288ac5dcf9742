"""The graph built by torch for a whole batch is build_graph's, hence chgnet's, up to its order.

On the CPU; what runs on a GPU is the same sequence of operations.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from harness.data.crystals import Crystals
from harness.models.chgnet.graph import Graph
from tests.graphs import (
    ATOM_CUTOFF_ANG,
    BOND_CUTOFF_ANG,
    WRITTEN_CELLS,
    assert_is_chgnets,
    crystal,
    crystals_of_any_cell,
    numpy_graph,
)

torch = pytest.importorskip("torch")
pytest.importorskip("chgnet")

from harness.models.chgnet import device_graph  # noqa: E402
from harness.models.chgnet.device_graph import all_messages_on, build_graph_on  # noqa: E402
from harness.models.chgnet.messages import all_messages  # noqa: E402

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def torch_graph(crystals: Crystals) -> Graph[Any]:
    return build_graph_on(
        crystals,
        DEVICE,
        atom_cutoff_ang=ATOM_CUTOFF_ANG,
        bond_cutoff_ang=BOND_CUTOFF_ANG,
    )


def on_host(record: Any) -> Any:
    """A Graph or MessageGraph of numpy arrays."""
    values = {f.name: getattr(record, f.name) for f in fields(record)}
    return type(record)(
        **{k: v.cpu().numpy() if isinstance(v, torch.Tensor) else v for k, v in values.items()}
    )


def bond_order(graph: Graph[np.ndarray]) -> np.ndarray:
    """Bonds by atoms and image."""
    return np.lexsort((*graph.images.T[::-1], graph.second, graph.first))


def arm_names(graph: Graph[np.ndarray]) -> np.ndarray:
    """(2 * n_short,) numbers that hang on no order: twice a bond's place, plus its direction."""
    place = np.empty(graph.n_bonds, dtype=np.int64)
    place[bond_order(graph)] = np.arange(graph.n_bonds)
    return 2 * place[graph.arm_bond] + (graph.arm_sign > 0)


def angle_order(graph: Graph[np.ndarray]) -> np.ndarray:
    names = arm_names(graph)
    return np.lexsort((names[graph.angle_second], names[graph.angle_first]))


def assert_types_agree(found: Any, expected: Any) -> None:
    for f in fields(expected):
        a, b = getattr(found, f.name), getattr(expected, f.name)
        assert type(a) is type(b), f.name
        assert np.shape(a) == np.shape(b), f.name
        assert getattr(a, "dtype", None) == getattr(b, "dtype", None), f.name


def assert_same_graph(found: Graph[np.ndarray], expected: Graph[np.ndarray]) -> None:
    assert_types_agree(found, expected)
    for name in ("numbers", "row_of_atom", "n_atoms", "volumes_ang3", "n_short", "n_isolated"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), name)

    ours, theirs = bond_order(found), bond_order(expected)
    for name in ("first", "second", "images"):
        a, b = getattr(found, name)[ours], getattr(expected, name)[theirs]
        np.testing.assert_array_equal(a, b, name)
    np.testing.assert_array_equal(ours < found.n_short, theirs < expected.n_short)
    np.testing.assert_allclose(found.vectors[ours], expected.vectors[theirs], atol=1e-12)

    assert (np.diff(found.arm_atom) >= 0).all()
    assert (np.diff(found.angle_first) >= 0).all()
    arms, their_arms = arm_names(found), arm_names(expected)
    a, b = np.argsort(arms), np.argsort(their_arms)
    np.testing.assert_array_equal(arms[a], their_arms[b])
    for name in ("arm_atom", "arm_n_angles"):
        np.testing.assert_array_equal(getattr(found, name)[a], getattr(expected, name)[b], name)
    ours, theirs = angle_order(found), angle_order(expected)
    for name in ("angle_first", "angle_second"):
        np.testing.assert_array_equal(
            arms[getattr(found, name)[ours]], their_arms[getattr(expected, name)[theirs]], name
        )


def assert_same_messages(found: Graph[Any], expected: Graph[np.ndarray]) -> None:
    ours, theirs = on_host(all_messages_on(found)), all_messages(expected)
    found = on_host(found)
    assert_types_agree(ours, theirs)
    for name in ("numbers", "kind_of_atom", "n_bonds", "n_short", "edge_centre"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), name)
    np.testing.assert_array_equal(ours.arm_bond, found.arm_bond)
    np.testing.assert_array_equal(ours.arm_atom, found.arm_atom)
    np.testing.assert_array_equal(ours.angle_first, found.angle_first)

    a, b = bond_order(found), bond_order(expected)
    np.testing.assert_allclose(ours.lengths[a], theirs.lengths[b], atol=1e-12)
    np.testing.assert_array_equal(ours.bond_has_angle[a], theirs.bond_has_angle[b])

    places = np.empty_like(a), np.empty_like(b)
    places[0][a] = places[1][b] = np.arange(len(a))
    edges = [
        sorted(zip(m.edge_centre, m.edge_neighbour, place[m.edge_bond], strict=True))
        for m, place in zip((ours, theirs), places, strict=True)
    ]
    assert edges[0] == edges[1]

    a, b = angle_order(found), angle_order(expected)
    second, their_second = (
        place[m.angle_second_bond] for m, place in zip((ours, theirs), places, strict=True)
    )
    np.testing.assert_array_equal(second[a], their_second[b])
    # the slope of acos is 700 at most, for COSINE_FACTOR, and bonds are 0.1 Å long at least
    np.testing.assert_allclose(ours.phases[a], theirs.phases[b], atol=1e-10)


def assert_as_on_the_host(crystals: Crystals) -> None:
    found, expected = torch_graph(crystals), numpy_graph(crystals)
    assert_same_graph(on_host(found), expected)
    assert_same_messages(found, expected)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(crystals_of_any_cell())
def test_edges_pairs_and_angles_are_chgnets(crystals: Crystals) -> None:
    assert_is_chgnets(on_host(torch_graph(crystals)), crystals)


@pytest.mark.parametrize("made", WRITTEN_CELLS)
def test_a_written_cell_has_chgnets_graph(made: Crystals) -> None:
    assert_is_chgnets(on_host(torch_graph(made)), made)
    assert_as_on_the_host(made)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(crystals_of_any_cell(), min_size=1, max_size=5))
def test_a_batch_has_build_graphs_graph_and_messages(parts: list[Crystals]) -> None:
    assert_as_on_the_host(Crystals.concatenate(parts))


def test_all_kinds_of_cells_make_one_batch() -> None:
    assert_as_on_the_host(Crystals.concatenate([made.values[0] for made in WRITTEN_CELLS]))


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    st.lists(crystals_of_any_cell(), min_size=1, max_size=3),
    st.sampled_from([19, 211, 1000]),  # the smaller two break up the images of most cells
)
def test_no_bond_is_lost_where_candidates_are_cut(parts: list[Crystals], at_once: int) -> None:
    batch = Crystals.concatenate(parts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device_graph, "_AT_ONCE_CPU", at_once)
        assert_same_graph(on_host(torch_graph(batch)), numpy_graph(batch))


def test_the_order_does_not_hang_on_where_candidates_are_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    batch = Crystals.concatenate([made.values[0] for made in WRITTEN_CELLS])
    whole = on_host(torch_graph(batch))
    monkeypatch.setattr(device_graph, "_AT_ONCE_CPU", 1000)  # no pair has as many images
    parts = on_host(torch_graph(batch))
    for f in fields(whole):
        np.testing.assert_array_equal(getattr(parts, f.name), getattr(whole, f.name), f.name)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(crystals_of_any_cell(), st.data())
def test_atoms_in_other_cells_change_the_images_only(made: Crystals, data: st.DataObject) -> None:
    cells = hnp.arrays(np.int64, made.frac_coords.shape, elements=st.integers(-1000, 1000))
    moves = data.draw(cells)
    near = on_host(torch_graph(made))
    far = on_host(torch_graph(crystal(made.lattices[0], made.frac_coords + moves)))
    images = far.images + moves[far.second] - moves[far.first]
    np.testing.assert_array_equal(far.first, near.first)
    np.testing.assert_array_equal(far.second, near.second)
    np.testing.assert_array_equal(images, near.images)
    np.testing.assert_allclose(far.vectors, near.vectors, atol=1e-11)


def test_a_slice_of_a_larger_set_has_the_same_graph() -> None:
    parts = [crystal(np.eye(3) * a, [[0, 0, 0], [0.5, 0.5, 0.5]]) for a in (3.1, 3.6, 4.2, 8.0)]
    whole = Crystals.concatenate(parts)
    assert whole[1:3].offsets[0] != 0
    assert_as_on_the_host(whole[1:3])
    assert_as_on_the_host(whole[[3, 0]])


def test_no_crystals_make_an_empty_graph() -> None:
    assert_as_on_the_host(crystal(np.eye(3) * 3.0, [[0, 0, 0]])[:0])


def test_two_atoms_in_one_place_are_bonded() -> None:
    made = crystal(np.eye(3) * 4.0, [[0, 0, 0], [0, 0, 1.0]])
    graph = on_host(torch_graph(made))
    assert_same_graph(graph, numpy_graph(made))
    at = np.flatnonzero(np.linalg.norm(graph.vectors, axis=1) == 0)
    assert graph.images[at].tolist() == [[0, 0, -1]]


def test_arrays_that_may_not_be_written_are_taken() -> None:
    made = crystal(np.eye(3) * 3.0, [[0, 0, 0]])
    for array in (made.numbers, made.frac_coords, made.lattices, made.offsets):
        array.flags.writeable = False
    assert_as_on_the_host(made)


def test_every_tensor_is_made_on_the_device_asked_for() -> None:
    batch = Crystals.concatenate([made.values[0] for made in WRITTEN_CELLS])
    with torch.device("meta"):  # where tensors land that are made without a device
        graph = torch_graph(batch)
        messages = all_messages_on(graph)
    for record in (graph, messages):
        for f in fields(record):
            value = getattr(record, f.name)
            assert isinstance(value, int) or value.device.type == DEVICE.type, f.name


def test_the_network_makes_every_tensor_where_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.models import chgnet
    from harness.models.chgnet import build
    from harness.models.chgnet.model import _Wanted

    model = chgnet.load("0.3.0", DEVICE.type)
    monkeypatch.setattr(build, "builds_on", lambda device: True)
    batch = Crystals.concatenate([crystal(np.eye(3) * a, [[0, 0, 0]]) for a in (2.6, 3.4, 9.0)])
    wanted = _Wanted(gradient=True, moments=True, features=True)
    with torch.device("meta"):
        (result,), problems = model._outcome_halving(batch, np.arange(3), wanted)
    assert list(problems) == [2]
    for f in fields(result):
        assert np.isfinite(getattr(result, f.name)).all(), f.name
