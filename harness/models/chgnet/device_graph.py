"""The graph of many crystals at once, built on the device where the network runs.

The same graph as graph.py's, up to the order of its bonds: no crystal is handled by itself, and
only its columns and a few numbers more travel to the device. Every pair of atoms is tried in every
cell that the cutoff can reach, which takes a few tries per bond in usual crystals and grows with
the square of the atoms in large ones; as many are tried at once as memory allows. The order of the
bonds hangs on nothing but the crystals: by crystal, pair of atoms and image, the short ones first.

Public: build_graph_on, all_messages_on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.models.chgnet.forward import geometry
from harness.models.chgnet.graph import TOLERANCE_ANG2, Array, Graph
from harness.models.chgnet.messages import MessageGraph

if TYPE_CHECKING:
    from harness.data.crystals import Crystals

_SLACK = 1e-8  # of a cell edge, more than rounding takes off a reach
# candidates at once, at up to 300 bytes each: to fill a GPU, or to stay in a processor's cache
_AT_ONCE_GPU, _AT_ONCE_CPU = 2**22, 2**16


def build_graph_on(
    crystals: Crystals, device: torch.device, *, atom_cutoff_ang: float, bond_cutoff_ang: float
) -> Graph[Tensor]:
    """``build_graph`` on a device; what lies within rounding of a cutoff may differ from it."""
    n_rows, n_total = len(crystals), len(crystals.numbers)
    n_atoms = _put(crystals.n_atoms, device)
    row_of_atom = torch.repeat_interleave(n_atoms, output_size=n_total)
    first, second, images, vectors, distances = _bonds(crystals, device, atom_cutoff_ang)

    is_short = distances <= bond_cutoff_ang
    short = _where(is_short)
    n_short = len(short)
    order = torch.cat([short, _where(~is_short)])
    first, second, images, vectors = (
        a.index_select(0, order) for a in (first, second, images, vectors)
    )

    is_isolated = torch.ones(n_total, dtype=torch.int64, device=device)
    is_isolated.index_fill_(0, torch.cat([first, second]), 0)
    below = distances[short] < bond_cutoff_ang
    return Graph(
        numbers=_put(crystals.numbers, device),
        row_of_atom=row_of_atom,
        n_atoms=n_atoms,
        volumes_ang3=_put(crystals.volumes_ang3, device),
        first=first,
        second=second,
        images=images,
        vectors=vectors,
        n_short=n_short,
        n_isolated=_sums(is_isolated, row_of_atom, n_rows),
        **_angles(first[:n_short], second[:n_short], below, n_total),
    )


def all_messages_on(graph: Graph[Tensor]) -> MessageGraph[Tensor]:
    """Every atom and bond for itself, as ``all_messages``."""
    n, n_bonds = len(graph.numbers), graph.n_bonds
    start, end = torch.cat([graph.first, graph.second]), torch.cat([graph.second, graph.first])
    order = torch.argsort(start, stable=True)
    lengths, phases = geometry(graph, graph.vectors)
    n_angles = _sums(graph.arm_n_angles, graph.row_of_atom[graph.arm_atom], len(graph.n_atoms))
    return MessageGraph(
        numbers=graph.numbers,
        kind_of_atom=torch.arange(n, device=start.device),
        n_bonds=n_bonds,
        n_short=graph.n_short,
        lengths=lengths,
        bond_has_angle=(n_angles > 0)[graph.row_of_atom[graph.first]],
        edge_centre=start[order],
        edge_neighbour=end[order],
        edge_bond=order % max(n_bonds, 1),
        arm_bond=graph.arm_bond,
        arm_atom=graph.arm_atom,
        angle_first=graph.angle_first,
        angle_second_bond=graph.arm_bond[graph.angle_second],
        phases=phases,
    )


# --- bonds ----------------------------------------------------------------------------------------


class _Blocks(NamedTuple, Generic[Array]):
    """Candidates in one order: blocks of pairs of atoms of a crystal, each pair with its images.

    An atom's neighbour lies in a cell t only if, along every axis, the atoms are no further apart
    than the cutoff reaches: a vector with fractional components x is at least |x_k| times the
    spacing of the lattice planes long. So each t_k lies in an interval of twice the reach, which
    starts where the two atoms have it start and holds at most floor(2 reach) + 1 whole numbers.
    These are a pair's box of images. An atom's own images need half a box, centred on the atom.
    """

    row: Array  # int64 crystal
    is_own: Array  # bool: atoms with their own images, else two different atoms
    first_atom: Array  # int64 of the crystal
    reach: Array  # (., 3) float64: the cutoff in spacings of lattice planes
    widths: Array  # (., 3) int64 of a box; its images count along the last axis first
    first_image: Array  # int64 place in the box
    n_images: Array  # int64
    first_pair: Array  # int64 place in all blocks
    n_pairs: Array  # int64
    start: Array  # int64 place of the first candidate in all blocks


def _bonds(crystals: Crystals, device: torch.device, cutoff_ang: float) -> tuple[Tensor, ...]:
    """first, second, images, vectors and distances of every undirected bond, by row."""
    at_once = _AT_ONCE_CPU if device.type == "cpu" else _AT_ONCE_GPU
    square_ang2 = cutoff_ang**2 + TOLERANCE_ANG2
    blocks = _blocks(crystals, square_ang2**0.5, at_once)
    frac_coords, lattices = _put(crystals.frac_coords, device), _put(crystals.lattices, device)
    on_device = _Blocks(*(_put(array, device) for array in blocks))
    n_candidates = int((blocks.n_pairs * blocks.n_images).sum())
    atoms = torch.empty(0, dtype=torch.int64, device=device)
    reals = torch.empty(0, dtype=torch.float64, device=device)
    found: list[tuple[Tensor, ...]] = [(atoms, atoms, reals.view(0, 3), reals.view(0, 3), reals)]
    for start in range(0, n_candidates, at_once):
        bounds = np.array([start, min(start + at_once, n_candidates)])
        # the blocks and pairs of the first and the last candidate
        ends = bounds - [0, 1]
        block = np.searchsorted(blocks.start, ends, side="right") - 1
        pair = blocks.first_pair[block] + (ends - blocks.start[block]) // blocks.n_images[block]
        here = slice(block[0], block[1] + 1)
        found.append(
            _bonds_among(
                _Blocks(*(array[here] for array in on_device)),
                int(blocks.n_images[here].sum()),
                (int(pair[0]), int(pair[1]) + 1),
                (int(bounds[0]), int(bounds[1])),
                frac_coords,
                lattices,
                square_ang2,
            )
        )
    first, second, images, vectors, distances = map(torch.cat, zip(*found, strict=True))
    return first, second, images, vectors, distances


def _blocks(crystals: Crystals, cutoff_ang: float, at_once: int) -> _Blocks[np.ndarray]:
    """No block has more than ``at_once`` images, so that a table of them is bounded as well."""
    n, lattices = crystals.n_atoms, crystals.lattices
    areas = np.linalg.norm(np.cross(lattices[:, [1, 2, 0]], lattices[:, [2, 0, 1]]), axis=2)
    reach = (cutoff_ang * areas / crystals.volumes_ang3[:, None] + _SLACK).repeat(2, axis=0)
    is_own = np.arange(2 * len(n)) % 2 == 1
    widths = np.where(is_own[:, None], 2 * np.floor(reach) + 1, np.floor(2 * reach) + 1)
    widths = widths.astype(np.int64)
    n_box = widths.prod(axis=1)
    # of an atom's own images, those after the middle of the box, which is the atom itself: their
    # first non-zero translation is positive
    n_skipped = np.where(is_own, n_box // 2 + 1, 0)
    n_images = n_box - n_skipped
    n_pairs = np.where(is_own, n.repeat(2), (n * (n - 1) // 2).repeat(2))

    n_parts = np.where(n_pairs > 0, -(-n_images // at_once), 0)
    whole = np.arange(len(n_parts)).repeat(n_parts)
    done = at_once * (np.arange(len(whole)) - (np.cumsum(n_parts) - n_parts)[whole])
    n_images, n_pairs = np.minimum(n_images[whole] - done, at_once), n_pairs[whole]
    row = whole // 2
    return _Blocks(
        row=row,
        is_own=is_own[whole],
        first_atom=(crystals.offsets[:-1] - crystals.offsets[0])[row],
        reach=reach[whole],
        widths=widths[whole],
        first_image=n_skipped[whole] + done,
        n_images=n_images,
        first_pair=np.cumsum(n_pairs) - n_pairs,
        n_pairs=n_pairs,
        start=np.cumsum(n_pairs * n_images) - n_pairs * n_images,
    )


def _bonds_among(
    blocks: _Blocks[Tensor],
    n_images: int,
    pairs: tuple[int, int],
    candidates: tuple[int, int],
    frac_coords: Tensor,
    lattices: Tensor,
    square_ang2: float,
) -> tuple[Tensor, ...]:
    """Bonds among the candidates from one place to another, whose pairs and blocks are given."""
    device = frac_coords.device

    # a table of the images of all blocks
    first_entry = blocks.n_images.cumsum(0) - blocks.n_images
    block = _owners(first_entry, blocks.n_images, 0, n_images)
    place = torch.arange(n_images, device=device) + (blocks.first_image - first_entry)[block]
    _, width_y, width_z = blocks.widths[block].unbind(1)
    line = place // width_z
    steps = torch.stack([line // width_y, line % width_y, place % width_z], dim=1).double()
    shifts = _cartesian(steps, lattices.index_select(0, blocks.row[block]))

    block = _owners(blocks.first_pair, blocks.n_pairs, *pairs)
    k = torch.arange(*pairs, device=device) - blocks.first_pair[block]
    # pair k of different atoms: (0, 1), (0, 2), (1, 2), (0, 3), ...; the root of a square is exact
    column = ((torch.sqrt((8 * k + 1).double()) + 1) / 2).long()
    is_own, first_atom = blocks.is_own[block], blocks.first_atom[block]
    first = first_atom + torch.where(is_own, k, k - column * (column - 1) // 2)
    second = first_atom + torch.where(is_own, k, column)
    apart = frac_coords.index_select(0, second) - frac_coords.index_select(0, first)
    lowest = torch.ceil(-blocks.reach[block] - apart)
    corners = _cartesian(apart + lowest, lattices.index_select(0, blocks.row[block]))

    n_of_pair = blocks.n_images[block]
    start = blocks.start[block] + k * n_of_pair
    pair = _owners(start, n_of_pair, *candidates)
    entry = (first_entry[block] - start).index_select(0, pair)
    entry += torch.arange(*candidates, device=device)
    vectors = corners.index_select(0, pair) + shifts.index_select(0, entry)
    x, y, z = (vectors * vectors).unbind(1)
    squares = x + y + z
    bond = _where(squares < square_ang2)
    pair, entry = pair[bond], entry[bond]
    images = lowest.index_select(0, pair) + steps.index_select(0, entry)
    return (
        first[pair],
        second[pair],
        images,
        -vectors.index_select(0, bond),
        torch.sqrt(squares[bond]),
    )


def _cartesian(coords: Tensor, lattices: Tensor) -> Tensor:
    """(m, 3) of (m, 3) fractional; operation by operation, so all devices round alike."""
    x, y, z = coords[:, :, None].unbind(1)
    a, b, c = lattices.unbind(1)
    return x * a + y * b + z * c


# --- angles ---------------------------------------------------------------------------------------


def _angles(first: Tensor, second: Tensor, below: Tensor, n_atoms: int) -> dict[str, Tensor]:
    """As graph.py's."""
    n_short = len(first)
    atom = torch.cat([first, second])
    second_arm = torch.cat([below, below]).long()
    # within an atom's group, arms that may only come first in an angle stand last
    order = torch.argsort(2 * atom + 1 - second_arm, stable=True)
    atom, second_arm = atom[order], second_arm[order]
    group_start = F.pad(_sums(torch.ones_like(atom), atom, n_atoms).cumsum(0), (1, 0))

    n_angles = _sums(second_arm, atom, n_atoms)[atom] - second_arm  # none of an arm with itself
    angle_start = n_angles.cumsum(0) - n_angles
    angle_first = torch.repeat_interleave(n_angles)
    angle_second = torch.arange(len(angle_first), device=atom.device)
    angle_second += (group_start[atom] - angle_start)[angle_first]
    angle_second += angle_second >= angle_first
    return {
        "arm_bond": order % max(n_short, 1),
        "arm_atom": atom,
        "arm_sign": torch.where(order < n_short, 1.0, -1.0).double(),
        "arm_n_angles": n_angles,
        "angle_first": angle_first,
        "angle_second": angle_second,
    }


# --- small things ---------------------------------------------------------------------------------


def _put(array: np.ndarray, device: torch.device) -> Tensor:
    tensor = torch.from_numpy(np.require(array, requirements=["C", "W"]))  # torch wants both
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def _where(flags: Tensor) -> Tensor:
    return flags.nonzero().view(-1)


def _sums(values: Tensor, owner: Tensor, n: int) -> Tensor:
    """(n,) of (m,) integers; bincount would wait for the device."""
    return values.new_zeros(n).scatter_add_(0, owner, values)


def _owners(starts: Tensor, counts: Tensor, low: int, high: int) -> Tensor:
    """(high - low,) the run that owns each place from low to high; runs may reach beyond."""
    inside = (starts + counts).clamp(max=high) - starts.clamp(min=low)
    return torch.repeat_interleave(inside, output_size=high - low)
