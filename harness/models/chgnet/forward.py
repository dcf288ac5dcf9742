"""CHGNet's forward pass, arranged for speed; the same numbers as chgnet's to rounding.

Rearrangements, all exact in real arithmetic:
- Atoms that receive the same messages are computed once (messages.py).
- The first linear layer of a gated MLP acts on a concatenation, so it is a sum of one product per
  atom, one per bond and one per angle. There are far fewer atoms than edges, and a bond's product
  serves both of its directions.
- The features of long bonds never change (only bonds with angles are updated), so each layer's
  product comes from the 31 radial functions rather than from 64 features.
- Gathering and adding is one call, and so is adding up by owner: both are ``embedding_bag``, which
  is vectorised and adds in a fixed order, so that results repeat to the last bit.

Interatomic scalars (lengths, cosines, cutoff polynomials) are float64, features float32: chgnet's
float32 lattice costs it 1e-5 in the highest radial functions, which oscillate every 0.4 Å.

Public: Weights, TensorGraph, forward, geometry, site_energies.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.models.chgnet.graph import Graph, stable_order
from harness.models.chgnet.messages import COSINE_FACTOR, MessageGraph

if TYPE_CHECKING:
    from chgnet.model import CHGNet

WIDTH = 64  # of every feature
_FAR = 80.0  # sigmoid is 0 or 1 to float32 from here, and its exponential no denormal number
# Edges handled together where no gradient is needed: 64 and 128 float32 each, so that what one
# step writes the next still finds in a core's second-level cache (1 to 2 MiB).
_EDGES_PER_BLOCK = 2048


def _tanh_is_fast() -> bool:
    """Whether this processor is Intel's, whose library torch takes tanh from.

    On an AMD EPYC it gave 0.4 billion values a second, an eighth of what it gives there, and a
    sixth of the sigmoid. Asked of the system and not measured, so that the same machine always
    gives the same bytes.
    """
    try:
        return "GenuineIntel" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return True


_TANH_IS_FAST = _tanh_is_fast()


@dataclass(frozen=True, kw_only=True)
class Norm:
    """A LayerNorm over the last axis, or nothing."""

    weight: Tensor | None
    bias: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        return x if self.weight is None else F.layer_norm(x, (WIDTH,), self.weight, self.bias)


@dataclass(frozen=True, kw_only=True)
class Gate:
    """The end of a gated MLP: silu(norm(core)) * sigmoid(norm(gate))."""

    core_norm: Norm
    gate_norm: Norm

    def __call__(self, core: Tensor, gate: Tensor) -> Tensor:
        """Both (m, 64), and both overwritten where no gradient is kept."""
        core, gate = self.core_norm(core), self.gate_norm(gate)
        return F.silu(core, inplace=True).mul_(gate.sigmoid_())


@dataclass(frozen=True, kw_only=True)
class Hidden:
    """The second layer of a gated MLP and its end, from the (m, 128) half sum of the first.

    The first layer's matrices are stored halved, so that h is x / 2 and silu(x) = h + h tanh(h).
    CHGNet's sums reach hundreds, where silu itself passes through denormal exponentials, which
    cost a processor five times as much as the whole of tanh. Where tanh is slow, x sigmoid(x) is
    taken with the sigmoid's argument held away from them.
    """

    core: tuple[Tensor, Tensor]  # (64,), (64, 64): bias and transposed matrix
    gate: tuple[Tensor, Tensor]
    end: Gate

    def __call__(self, h: Tensor) -> Tensor:
        if h.is_cuda or _TANH_IS_FAST:
            h = torch.addcmul(h, h, torch.tanh(h), out=None if torch.is_grad_enabled() else h)
        else:
            x = h + h if torch.is_grad_enabled() else h.add_(h)
            h = x * torch.clamp(x, -_FAR, _FAR).sigmoid_()
        h_core, h_gate = h.split(WIDTH, dim=1)
        core = torch.addmm(self.core[0], h_core, self.core[1])
        gate = torch.addmm(self.gate[0], h_gate, self.gate[1])
        return self.end(core, gate)


@dataclass(frozen=True, kw_only=True)
class AtomConv:
    atom: Tensor  # (64, 256): to the product as centre (128) and as neighbour (128)
    atom_bias: Tensor  # (256,)
    bond: Tensor  # (64, 128)
    basis: Tensor  # (n_radial, 128): bond, preceded by the embedding of a bond
    hidden: Hidden
    out: tuple[Tensor, Tensor | None]  # (64, 64), (64,)


@dataclass(frozen=True, kw_only=True)
class BondConv:
    atom: Tensor  # (64, 128)
    atom_bias: Tensor  # (128,)
    bond_first: Tensor  # (64, 128)
    bond_second: Tensor  # (64, 128)
    angle: Tensor  # (64, 128)
    hidden: Hidden
    out: tuple[Tensor, Tensor | None]  # (64, 64), (64,)


@dataclass(frozen=True, kw_only=True)
class AngleUpdate:
    """As BondConv without a hidden layer; core and gate apart, since each is normalised alone."""

    atom: Tensor  # (64, 128)
    atom_bias: Tensor  # (128,)
    bond_first: Tensor  # (64, 128)
    bond_second: Tensor  # (64, 128)
    angle_core: Tensor  # (64, 64)
    angle_gate: Tensor  # (64, 64)
    end: Gate


@dataclass(frozen=True, kw_only=True)
class Radial:
    """Bessel functions under a smooth cutoff."""

    frequencies: Tensor  # (n_radial,) float32
    cutoff: float
    power: int

    def __call__(self, lengths: Tensor) -> Tensor:
        """(m, n_radial) float32 of (m,) float64 lengths in Å."""
        p, x = self.power, lengths / self.cutoff
        a, b, c = -(p + 1) * (p + 2) / 2, p * (p + 2), -p * (p + 1) / 2
        envelope = torch.where(x < 1, 1 + x**p * (a + x * (b + x * c)), 0.0)
        scale = ((2 / self.cutoff) ** 0.5 * envelope / lengths).float()
        return torch.outer(x.float(), self.frequencies).sin_().mul(scale[:, None])


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A network's parameters, transposed, stacked and folded for this forward pass."""

    embedding: Tensor  # (94, 64) row Z - 1
    radial_atoms: Radial
    radial_bonds: Radial
    angular: Tensor  # (n_angular,) float32 frequencies
    bond: Tensor  # (n_radial, 64)
    edge_weight: Tensor  # (n_radial, 64) from the atom graph's basis
    bond_weight: Tensor  # (n_radial, 64) from the bond graph's basis
    angle: Tensor  # (2 * n_angular, 64) from sines, then cosines
    angle_bias: Tensor  # (64,)
    atom_convs: tuple[AtomConv, ...]
    bond_convs: tuple[BondConv, ...]
    angle_updates: tuple[AngleUpdate, ...]
    moment: tuple[Tensor, Tensor]  # (64, 1), (1,)
    readout_norm: Norm
    readout: tuple[tuple[Tensor, Tensor], ...]  # per layer (out, in), (out,)

    @classmethod
    def of(cls, network: CHGNet, device: torch.device, *, differentiable: bool = False) -> Weights:
        """Products of matrices are taken in float64 and rounded once.

        ``differentiable``: as functions of the network's parameters, for training them.
        """

        def put(x: Tensor) -> Tensor:
            x = x if differentiable else x.detach()
            return x.to(device, torch.float32).contiguous()

        def norm(module: Any) -> Norm:
            if module is None:
                return Norm(weight=None, bias=None)
            return Norm(weight=put(module.weight), bias=put(module.bias))

        def gate(mlp: Any) -> Gate:
            return Gate(core_norm=norm(mlp.bn1), gate_norm=norm(mlp.bn2))

        def hidden(mlp: Any) -> Hidden:
            core, gated = (m.layers[-1] for m in (mlp.mlp_core, mlp.mlp_gate))
            return Hidden(
                core=(put(core.bias), put(core.weight.T)),
                gate=(put(gated.bias), put(gated.weight.T)),
                end=gate(mlp),
            )

        def first(mlp: Any, *, factor: float) -> tuple[list[Tensor], Tensor]:
            """One (64, 128) matrix per concatenated feature, and the (128,) bias."""
            layers = [_first_linear(m) for m in (mlp.mlp_core, mlp.mlp_gate)]
            matrix = factor * torch.cat([layer.weight for layer in layers]).double()
            bias = factor * torch.cat([layer.bias for layer in layers])
            return [part.T for part in matrix.split(WIDTH, dim=1)], bias

        def out(module: Any) -> tuple[Tensor, Tensor | None]:
            linear = module.mlp_out.layers[-1]
            return put(linear.weight.T), None if linear.bias is None else put(linear.bias)

        def radial(module: Any) -> Radial:
            envelope = module.smooth_cutoff
            return Radial(
                frequencies=put(module.frequencies), cutoff=envelope.cutoff, power=envelope.p
            )

        bond_embedding = network.bond_embedding.weight.T.double()
        atom_convs = []
        for layer in cast("Any", network.atom_conv_layers):
            (centre, bond, neighbour), bias = first(layer.twoBody_atom, factor=0.5)
            atom_convs.append(
                AtomConv(
                    atom=put(torch.cat([centre, neighbour], dim=1)),
                    atom_bias=put(torch.cat([bias, torch.zeros_like(bias)])),
                    bond=put(bond),
                    basis=put(bond_embedding @ bond),
                    hidden=hidden(layer.twoBody_atom),
                    out=out(layer),
                )
            )
        bond_convs, angle_updates = [], []
        for layer in cast("Any", network.bond_conv_layers):
            (bond_i, bond_j, angle, atom), bias = first(layer.twoBody_bond, factor=0.5)
            bond_convs.append(
                BondConv(
                    atom=put(atom),
                    atom_bias=put(bias),
                    bond_first=put(bond_i),
                    bond_second=put(bond_j),
                    angle=put(angle),
                    hidden=hidden(layer.twoBody_bond),
                    out=out(layer),
                )
            )
        # the last bond convolution is followed by no other use of the angles
        for layer in list(cast("Any", network.angle_layers))[:-1]:
            (bond_i, bond_j, angle, atom), bias = first(layer.twoBody_bond, factor=1.0)
            angle_updates.append(
                AngleUpdate(
                    atom=put(atom),
                    atom_bias=put(bias),
                    bond_first=put(bond_i),
                    bond_second=put(bond_j),
                    angle_core=put(angle[:, :WIDTH]),
                    angle_gate=put(angle[:, WIDTH:]),
                    end=gate(layer.twoBody_bond),
                )
            )
        # the angular functions are 1/sqrt(2), sin(k a), cos(k a), all over sqrt(pi)
        angle = network.angle_embedding.weight.T.double() / np.pi**0.5
        readout = [layer for layer in network.mlp.layers if isinstance(layer, torch.nn.Linear)]
        return cls(
            embedding=put(network.atom_embedding.embedding.weight),
            radial_atoms=radial(network.bond_basis_expansion.rbf_expansion_ag),
            radial_bonds=radial(network.bond_basis_expansion.rbf_expansion_bg),
            angular=put(network.angle_basis_expansion.fourier_expansion.frequencies),
            bond=put(bond_embedding),
            edge_weight=put(network.bond_weights_ag.weight.T),
            bond_weight=put(network.bond_weights_bg.weight.T),
            angle=put(angle[1:]),
            angle_bias=put(angle[0] / 2**0.5),
            atom_convs=tuple(atom_convs),
            bond_convs=tuple(bond_convs),
            angle_updates=tuple(angle_updates),
            moment=(put(network.site_wise.weight.T), put(network.site_wise.bias)),
            readout_norm=norm(network.readout_norm),
            readout=tuple((put(layer.weight), put(layer.bias)) for layer in readout),
        )


def _first_linear(mlp: Any) -> Any:
    return next(layer for layer in mlp.layers if isinstance(layer, torch.nn.Linear))


class Incidence:
    """A sparse matrix of ones: every row names the table rows to add up.

    ``gather`` multiplies by it, ``scatter`` by its transpose, and each is the other's gradient.
    """

    def __init__(
        self, index: np.ndarray, n_table: int, device: torch.device, *, is_sorted: bool = False
    ) -> None:
        """index: (m,) or (m, k) integers in 0..n_table-1."""
        self._host = index
        self._n_table = n_table
        self._device = device
        self._is_sorted = is_sorted
        self.index = self._put(index)

    def _put(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array.astype(np.int32, order="C")).to(self._device)

    @cached_property
    def _transpose(self) -> tuple[Tensor, Tensor]:
        """Rows of the matrix in the order of the table row they name, and where each starts."""
        flat = self._host.reshape(-1)
        per_row = 1 if self._host.ndim == 1 else self._host.shape[1]
        order = np.arange(len(flat)) if self._is_sorted else stable_order(flat, self._n_table)
        starts = np.zeros(self._n_table, dtype=np.int64)
        np.cumsum(np.bincount(flat, minlength=self._n_table)[:-1], out=starts[1:])
        return self._put(order // per_row), self._put(starts)

    def gather(self, table: Tensor) -> Tensor:
        """(m, width): row r is the sum of the table's rows that row r names."""
        if torch.is_grad_enabled() and table.requires_grad:
            return cast("Tensor", _Gather.apply(table, self))
        return self._gather(table)

    def scatter(self, rows: Tensor) -> Tensor:
        """(n_table, width): every table row is the sum of the rows that name it."""
        if torch.is_grad_enabled() and rows.requires_grad:
            return cast("Tensor", _Scatter.apply(rows, self))
        return self._scatter(rows)

    def _gather(self, table: Tensor) -> Tensor:
        if self.index.ndim == 1:
            return table.index_select(0, self.index)
        return F.embedding_bag(self.index, table, mode="sum")

    def _scatter(self, rows: Tensor) -> Tensor:
        if len(rows) == 0:
            return rows.new_zeros(self._n_table, rows.shape[1])
        order, starts = self._transpose
        return F.embedding_bag(order, rows, starts, mode="sum")


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, incidence: Incidence) -> Tensor:
        ctx.incidence = incidence
        return incidence._gather(table.detach())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.incidence._scatter(gradients[0].contiguous()), None


class _Scatter(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, incidence: Incidence) -> Tensor:
        ctx.incidence = incidence
        return incidence._scatter(rows.detach())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.incidence._gather(gradients[0].contiguous()), None


class TensorGraph:
    """A MessageGraph on a device, as the incidences that the forward pass needs."""

    def __init__(self, graph: MessageGraph, device: torch.device) -> None:
        def put(array: np.ndarray) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(array)).to(device)

        n, n_bonds, n_short = len(graph.numbers), graph.n_bonds, graph.n_short
        self.n_short, self.n_edges, self.n_angles = (
            n_short,
            len(graph.edge_centre),
            len(graph.angle_first),
        )
        self.numbers = put(graph.numbers.astype(np.int64) - 1)
        self.lengths, self.phases = put(graph.lengths), put(graph.phases)
        # a table of the atoms' products as centre and as neighbour in turn, then the bonds'
        self.edge = Incidence(
            np.stack(
                [2 * graph.edge_centre, 2 * graph.edge_neighbour + 1, 2 * n + graph.edge_bond],
                axis=1,
            ),
            2 * n + n_bonds,
            device,
        )
        self.edge_bond = Incidence(graph.edge_bond, n_bonds, device)
        self.edge_centre = Incidence(graph.edge_centre, n, device, is_sorted=True)
        self.arm_bond = Incidence(graph.arm_bond, n_short, device)
        # a table of the short bonds' products, then the atoms'
        self.arm = Incidence(
            np.stack([graph.arm_bond, n_short + graph.arm_atom], axis=1), n_short + n, device
        )
        self.angle_first = Incidence(graph.angle_first, 2 * n_short, device, is_sorted=True)
        self.angle_second_bond = Incidence(graph.angle_second_bond, n_short, device)
        # a table of the arms' products, then the short bonds'
        self.angle = Incidence(
            np.stack([graph.angle_first, 2 * n_short + graph.angle_second_bond], axis=1),
            3 * n_short,
            device,
        )
        # chgnet updates the bonds of a crystal only where it has an angle, and an output bias
        # (0.2.0) then moves all of its bonds
        self.bond_has_angle = put(graph.bond_has_angle.astype(np.float32)[:, None])


def geometry(graph: Graph, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Lengths and phases of all_messages(graph), differentiable in (n_bonds, 3) bond vectors."""
    device = vectors.device
    lengths = torch.linalg.vector_norm(vectors, dim=1)
    units = vectors[: graph.n_short] / lengths[: graph.n_short, None]
    arms = Incidence(graph.arm_bond, graph.n_short, device).gather(units)
    arms = arms * torch.from_numpy(graph.arm_sign).to(device)[:, None]
    first, second = (
        Incidence(index, 2 * graph.n_short, device).gather(arms)
        for index in (graph.angle_first, graph.angle_second)
    )
    return lengths, torch.acos((first * second).sum(dim=1) * COSINE_FACTOR)


def forward(g: TensorGraph, w: Weights, lengths: Tensor, phases: Tensor) -> tuple[Tensor, Tensor]:
    """Atom features for the readout, and magnetic moments.

    Args:
        lengths, phases: g's own, or those of geometry() to collect a gradient.
    Returns:
        (n, 64) float32 after the readout's norm, and (n,) float32 moments in μB, not negative.
    """
    basis = w.radial_atoms(lengths)
    edge_weight = basis @ w.edge_weight
    short_basis, long_basis = basis[: g.n_short], basis[g.n_short :]
    bonds = short_basis @ w.bond  # of short bonds; those of long ones are never formed
    bond_weight = w.radial_bonds(lengths[: g.n_short]) @ w.bond_weight
    angles = _angle_features(w, phases) if g.n_angles else None

    atoms = w.embedding.index_select(0, g.numbers)
    moments = atoms.new_empty(0)
    long_shift: Tensor | None = None  # what output biases added to long bonds, all the same
    for i, conv in enumerate(w.atom_convs):
        if i == len(w.atom_convs) - 1:
            moments = torch.addmm(w.moment[1], atoms, w.moment[0]).abs().view(-1)
        long_products = long_basis @ conv.basis
        if long_shift is not None:
            shift = g.bond_has_angle[g.n_short :] * (long_shift @ conv.bond)
            long_products = long_products + shift
        atom_products = torch.addmm(conv.atom_bias, atoms, conv.atom).view(-1, 2 * WIDTH)
        table = torch.cat([atom_products, bonds @ conv.bond, long_products])
        atoms = _atom_conv(g, conv, atoms, table, edge_weight)
        if i == len(w.bond_convs) or angles is None:
            continue
        bond_conv = w.bond_convs[i]
        bonds = _bond_conv(g, bond_conv, atoms, bonds, angles, bond_weight)
        if (bias := bond_conv.out[1]) is not None:
            long_shift = bias if long_shift is None else long_shift + bias
        if i < len(w.angle_updates):
            angles = _angle_update(g, w.angle_updates[i], atoms, bonds, angles)
    return w.readout_norm(atoms), moments


def site_energies(w: Weights, features: Tensor) -> Tensor:
    """(N,) float32, eV: the readout MLP of (N, 64) features, without elemental references."""
    x = features
    for matrix, bias in w.readout[:-1]:
        x = F.silu(F.linear(x, matrix, bias), inplace=True)
    return F.linear(x, *w.readout[-1]).view(-1)


def _angle_features(w: Weights, phases: Tensor) -> Tensor:
    x = torch.outer(phases.float(), w.angular)
    return torch.addmm(w.angle_bias, torch.cat([x.sin(), x.cos()], dim=1), w.angle)


def _atom_conv(
    g: TensorGraph, conv: AtomConv, atoms: Tensor, table: Tensor, edge_weight: Tensor
) -> Tensor:
    def messages(start: int, stop: int) -> Tensor:
        m = conv.hidden(_take(g.edge, table, start, stop))
        return m.mul_(_take(g.edge_bond, edge_weight, start, stop))

    update = g.edge_centre.scatter(_in_blocks(messages, g.n_edges, atoms))
    matrix, bias = conv.out
    return torch.addmm(atoms if bias is None else atoms + bias, update, matrix)


def _bond_conv(
    g: TensorGraph,
    conv: BondConv,
    atoms: Tensor,
    bonds: Tensor,
    angles: Tensor,
    bond_weight: Tensor,
) -> Tensor:
    table = _angle_table(g, conv, atoms, bonds)

    def messages(start: int, stop: int) -> Tensor:
        h = _take(g.angle, table, start, stop).addmm_(_part(angles, start, stop), conv.angle)
        return conv.hidden(h).mul_(_take(g.angle_second_bond, bond_weight, start, stop))

    m = _in_blocks(messages, g.n_angles, atoms)
    # the first bond's weight is common to all messages it receives
    update = g.arm_bond.scatter(g.angle_first.scatter(m)) * bond_weight
    bias = conv.out[1]
    updated = torch.addmm(bonds, update, conv.out[0])
    return updated if bias is None else updated + g.bond_has_angle[: g.n_short] * bias


def _angle_update(
    g: TensorGraph, update: AngleUpdate, atoms: Tensor, bonds: Tensor, angles: Tensor
) -> Tensor:
    tables = _angle_table(g, update, atoms, bonds).split(WIDTH, dim=1)
    core_table, gate_table = (table.contiguous() for table in tables)

    def updated(start: int, stop: int) -> Tensor:
        old = _part(angles, start, stop)
        core = _take(g.angle, core_table, start, stop).addmm_(old, update.angle_core)
        gate = _take(g.angle, gate_table, start, stop).addmm_(old, update.angle_gate)
        return update.end(core, gate).add_(old)

    return _in_blocks(updated, g.n_angles, atoms)


def _angle_table(
    g: TensorGraph, layer: BondConv | AngleUpdate, atoms: Tensor, bonds: Tensor
) -> Tensor:
    """(3 * n_short, 128): what an angle takes from its first arm, then from its second bond."""
    atom_products = torch.addmm(layer.atom_bias, atoms, layer.atom)
    arms = g.arm.gather(torch.cat([bonds @ layer.bond_first, atom_products]))
    return torch.cat([arms, bonds @ layer.bond_second])


def _part(rows: Tensor, start: int, stop: int) -> Tensor:
    """rows[start:stop], which as a slice of everything would cost a copy in the gradient."""
    return rows if stop - start == len(rows) else rows[start:stop]


def _take(incidence: Incidence, table: Tensor, start: int, stop: int) -> Tensor:
    """incidence.gather(table)[start:stop], computing only those rows."""
    if stop - start == len(incidence.index):
        return incidence.gather(table)
    index = incidence.index[start:stop]
    if index.ndim == 1:
        return table.index_select(0, index)
    return F.embedding_bag(index, table, mode="sum")


def _in_blocks(compute: Callable[[int, int], Tensor], n_rows: int, like: Tensor) -> Tensor:
    """compute(0, n_rows), (n_rows, 64), piece by piece on a processor without a gradient."""
    if torch.is_grad_enabled() or like.is_cuda or n_rows <= _EDGES_PER_BLOCK:
        return compute(0, n_rows)
    out = like.new_empty(n_rows, WIDTH)
    for start in range(0, n_rows, _EDGES_PER_BLOCK):
        stop = min(start + _EDGES_PER_BLOCK, n_rows)
        out[start:stop] = compute(start, stop)
    return out
