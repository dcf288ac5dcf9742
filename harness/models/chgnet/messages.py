"""Which messages a graph's atoms, bonds and angles exchange, and which of them are distinct.

In a crystal most atoms have equals: related by symmetry, they see the same neighbours at the same
distances and angles, so the network gives them the same features, layer for layer. One atom of each
kind, with the edges that end at it, then stands for all; of relaxed crystals of the Materials
Project that leaves a third of the messages. Nothing is assumed about space groups: atoms and bonds
start out coloured by element and length, and each round recolours them by the colours they receive,
exactly as the layers of the network pass messages. Atoms that have one colour after as many rounds
as there are layers have one value (colour refinement; B. Weisfeiler and A. Leman, 1968).

Lengths and angles count as equal within 1e-7 Å and 1e-7 rad of the next, less than float32 resolves
at 1 Å, so a crystal out of symmetry by more is not symmetrised.

Public: MessageGraph, all_messages, distinct_messages.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic

import numpy as np

from harness.models.chgnet.graph import Array, Graph, stable_order

_SAME = 1e-7  # Å and rad
# chgnet's shrinking of the cosine, since acos has no finite slope at 1
COSINE_FACTOR = 1 - 1e-6


@dataclass(frozen=True, kw_only=True)
class MessageGraph(Generic[Array]):
    """Atoms and bonds here are those that are computed: all of a graph's, or one of each kind."""

    numbers: Array  # (n,) uint8 atomic numbers
    kind_of_atom: Array  # (N,) int64: the atom here that stands for each atom of the graph
    n_bonds: int
    n_short: int  # short bonds come first
    lengths: Array  # (n_bonds,) float64, Å
    bond_has_angle: Array  # (n_bonds,) bool: its crystal has any angle
    # an edge carries a message to its centre; sorted by centre
    edge_centre: Array  # (n_edges,) int64 atom
    edge_neighbour: Array  # (n_edges,) int64 atom
    edge_bond: Array  # (n_edges,) int64 bond
    # as in Graph, two arms of every short bond
    arm_bond: Array  # (2 * n_short,) int64 bond
    arm_atom: Array  # (2 * n_short,) int64 atom
    # an angle carries a message to its first bond; sorted by first arm
    angle_first: Array  # (n_angles,) int64 arm
    angle_second_bond: Array  # (n_angles,) int64 bond
    phases: Array  # (n_angles,) float64, rad, from the shrunken cosine


def all_messages(graph: Graph[np.ndarray]) -> MessageGraph[np.ndarray]:
    """Every atom and bond for itself."""
    edges, phases = _edges(graph), _phases(graph)
    return _messages(graph, edges, phases, np.arange(len(graph.numbers)), np.arange(graph.n_bonds))


def distinct_messages(graph: Graph[np.ndarray], *, n_layers: int) -> MessageGraph[np.ndarray]:
    """One atom and one bond of each kind that ``n_layers`` atom convolutions tell apart."""
    edges, phases = _edges(graph), _phases(graph)
    return _messages(graph, edges, phases, *_kinds(graph, edges, phases, n_layers))


_Edges = tuple[np.ndarray, np.ndarray, np.ndarray]  # start, end and bond, sorted by start


def _messages(
    graph: Graph[np.ndarray],
    edges: _Edges,
    phases: np.ndarray,
    atom_kind: np.ndarray,
    bond_kind: np.ndarray,
) -> MessageGraph[np.ndarray]:
    """Kinds are named by their first member, which is the one computed."""
    is_atom = atom_kind == np.arange(len(atom_kind))
    is_bond = bond_kind == np.arange(len(bond_kind))
    atom_kind = (np.cumsum(is_atom) - 1)[atom_kind]
    bond_kind = (np.cumsum(is_bond) - 1)[bond_kind]
    bonds = np.flatnonzero(is_bond)

    start, end, bond = edges
    edge = np.flatnonzero(is_atom[start])
    arm_kept = is_bond[graph.arm_bond]
    arm = np.flatnonzero(arm_kept)
    angle = np.flatnonzero(arm_kept[graph.angle_first])
    has_angle = np.zeros(len(graph.n_atoms), dtype=bool)
    has_angle[graph.row_of_atom[graph.arm_atom[graph.arm_n_angles > 0]]] = True
    return MessageGraph(
        numbers=graph.numbers[is_atom],
        kind_of_atom=atom_kind,
        n_bonds=len(bonds),
        n_short=int(np.count_nonzero(is_bond[: graph.n_short])),
        lengths=np.linalg.norm(graph.vectors[bonds], axis=1),
        bond_has_angle=has_angle[graph.row_of_atom[graph.first[bonds]]],
        edge_centre=atom_kind[start[edge]],
        edge_neighbour=atom_kind[end[edge]],
        edge_bond=bond_kind[bond[edge]],
        arm_bond=bond_kind[graph.arm_bond[arm]],
        arm_atom=atom_kind[graph.arm_atom[arm]],
        angle_first=(np.cumsum(arm_kept) - 1)[graph.angle_first[angle]],
        angle_second_bond=bond_kind[graph.arm_bond[graph.angle_second[angle]]],
        phases=phases[angle],
    )


def _edges(graph: Graph[np.ndarray]) -> _Edges:
    start = np.concatenate([graph.first, graph.second])
    end = np.concatenate([graph.second, graph.first])
    order = stable_order(start, len(graph.numbers))
    return start[order], end[order], order % max(graph.n_bonds, 1)


def _phases(graph: Graph[np.ndarray]) -> np.ndarray:
    short = graph.vectors[: graph.n_short]
    with np.errstate(divide="ignore", invalid="ignore"):  # two atoms in one place; reported later
        units = short / np.linalg.norm(short, axis=1, keepdims=True)
        arms = units[graph.arm_bond] * graph.arm_sign[:, None]
        cosines = np.einsum("ai,ai->a", arms[graph.angle_first], arms[graph.angle_second])
        return np.arccos(cosines * COSINE_FACTOR)


# --- colours: 64-bit hashes, so that two kinds share one by an accident in 1e19 -----------------

_SALT = [np.uint64(0x9E3779B97F4A7C15 * k % 2**64) for k in (1, 3, 5, 7, 9, 11, 13)]  # odd


def _kinds(
    graph: Graph[np.ndarray], edges: _Edges, phases: np.ndarray, n_layers: int
) -> tuple[np.ndarray, np.ndarray]:
    """For every atom and bond, the first atom and bond of its kind."""
    n_short = graph.n_short
    start, end, bond = edges
    edge_bounds = _bounds(np.bincount(start, minlength=len(graph.numbers)))
    angle_bounds = _bounds(graph.arm_n_angles)
    second_bond = graph.arm_bond[graph.angle_second]
    arms_of_bond = stable_order(graph.arm_bond, max(n_short, 1)).reshape(n_short, 2)

    row = graph.row_of_atom.astype(np.uint64)  # crystals share no colour
    length = _ranks(np.linalg.norm(graph.vectors, axis=1), graph.row_of_atom[graph.first])
    phase = _ranks(phases, graph.row_of_atom[graph.arm_atom[graph.angle_first]])
    atoms = _mixed((row << np.uint64(8)) + graph.numbers)
    bonds = _mixed(length + _SALT[0])
    angles = _mixed(phase + _SALT[1])
    for layer in range(n_layers):
        received = _mixed(atoms[end] * _SALT[2] + bonds[bond])
        atoms = _mixed(atoms * _SALT[3] + _sums(received, edge_bounds))
        if layer == n_layers - 1:
            break  # the last layer updates no bonds
        received = _mixed(bonds[second_bond] * _SALT[4] + angles)
        arms = _mixed(atoms[graph.arm_atom] * _SALT[5] + _mixed(_sums(received, angle_bounds)))
        both = arms[arms_of_bond].sum(axis=1, dtype=np.uint64)
        bonds[:n_short] = _mixed(bonds[:n_short] * _SALT[6] + both)
    return _first_of(atoms), _first_of(bonds)


def _mixed(x: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser: every bit of the result depends on every bit of x."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _bounds(counts: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(counts)])


def _sums(values: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Sums modulo 2^64 of consecutive runs, whatever the order within a run."""
    total = np.concatenate([[np.uint64(0)], np.cumsum(values, dtype=np.uint64)])
    return total[bounds[1:]] - total[bounds[:-1]]


def _ranks(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(m,) uint64, the same for values of one row that follow each other within _SAME."""
    order = np.argsort(values)
    order = order[stable_order(rows[order], int(rows.max(initial=0)) + 1)]
    apart = (np.diff(rows[order]) != 0) | ~(np.diff(values[order]) <= _SAME)  # nan is apart
    ranks = np.empty(len(values), dtype=np.uint64)
    ranks[order] = np.concatenate([[0], np.cumsum(apart)])[: len(values)]
    return ranks


def _first_of(colours: np.ndarray) -> np.ndarray:
    """(m,) int64 the first position that has each position's colour."""
    order = np.argsort(colours)
    new = np.ones(len(colours), dtype=bool)
    new[1:] = np.diff(colours[order]) != 0
    first = np.minimum.reduceat(order, np.flatnonzero(new)) if len(order) else order
    found = np.empty_like(order)
    found[order] = first[np.cumsum(new) - 1]
    return found
