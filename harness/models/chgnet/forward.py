"""CHGNet's forward pass, arranged for speed; the same numbers as chgnet's to rounding.

Rearrangements, all exact in real arithmetic:
- Atoms that receive the same messages are computed once (messages.py).
- The first linear layer of a gated MLP acts on a concatenation, so it is a sum of one product per
  atom, one per bond and one per angle. There are far fewer atoms than edges, and a bond's product
  serves both of its directions.
- The features of long bonds never change (only bonds with angles are updated), so each layer's
  product comes from the 31 radial functions rather than from 64 features.

Interatomic scalars (lengths, cosines, cutoff polynomials) are float64, features float32: chgnet's
float32 lattice costs it 1e-5 in the highest radial functions, which oscillate every 0.4 Å.

Public: Weights, TensorGraph, forward, geometry, site_energies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.models.chgnet.gated import WIDTH, GatedMLP, Norm, Summing
from harness.models.chgnet.graph import Graph
from harness.models.chgnet.incidence import Incidence
from harness.models.chgnet.messages import COSINE_FACTOR, MessageGraph

if TYPE_CHECKING:
    from chgnet.model import CHGNet


@dataclass(frozen=True, kw_only=True)
class AtomConv:
    atom: Tensor  # (64, 256): to the product as centre (128) and as neighbour (128)
    atom_bias: Tensor  # (256,)
    bond: Tensor  # (64, 128)
    basis: Tensor  # (n_radial, 128): bond, preceded by the embedding of a bond
    gated: GatedMLP
    out: tuple[Tensor, Tensor | None]  # (64, 64), (64,)


@dataclass(frozen=True, kw_only=True)
class AngleLayer:
    """What an angle takes from its atom and its two bonds, beside its own features."""

    atom: Tensor  # (64, 128)
    atom_bias: Tensor  # (128,)
    bond_first: Tensor  # (64, 128)
    bond_second: Tensor  # (64, 128)
    gated: GatedMLP


@dataclass(frozen=True, kw_only=True)
class BondConv(AngleLayer):
    out: tuple[Tensor, Tensor | None]  # (64, 64), (64,)


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
    angle_updates: tuple[AngleLayer, ...]
    moment: tuple[Tensor, Tensor]  # (64, 1), (1,)
    readout_norm: Norm
    readout: tuple[tuple[Tensor, Tensor], ...]  # per layer (out, in), (out,)

    @classmethod
    def of(
        cls,
        network: CHGNet,
        device: torch.device,
        *,
        differentiable: bool = False,
        is_fused: bool = False,
    ) -> Weights:
        """Products of matrices are taken in float64 and rounded once.

        Args:
            differentiable: as functions of the network's parameters, for training them.
            is_fused: computed by kernels.py.
        """

        def put(x: Tensor) -> Tensor:
            x = x if differentiable else x.detach()
            return x.to(device, torch.float32).contiguous()

        def norm(module: Any) -> Norm:
            if module is None:
                return Norm(weight=None, bias=None)
            return Norm(weight=put(module.weight), bias=put(module.bias))

        def gated(mlp: Any, own: Tensor | None = None, *, is_deep: bool = True) -> GatedMLP:
            second = [m.layers[-1] for m in (mlp.mlp_core, mlp.mlp_gate)]
            return GatedMLP(
                own=None if own is None else put(own),
                second=tuple((put(m.bias), put(m.weight.T)) for m in second) if is_deep else None,
                core_norm=norm(mlp.bn1),
                gate_norm=norm(mlp.bn2),
                is_fused=is_fused,
            )

        def first(mlp: Any) -> tuple[list[Tensor], Tensor]:
            """One (64, 128) matrix per concatenated feature, and the (128,) bias."""
            layers = [_first_linear(m) for m in (mlp.mlp_core, mlp.mlp_gate)]
            matrix = torch.cat([layer.weight for layer in layers]).double()
            bias = torch.cat([layer.bias for layer in layers])
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
            (centre, bond, neighbour), bias = first(layer.twoBody_atom)
            atom_convs.append(
                AtomConv(
                    atom=put(torch.cat([centre, neighbour], dim=1)),
                    atom_bias=put(torch.cat([bias, torch.zeros_like(bias)])),
                    bond=put(bond),
                    basis=put(bond_embedding @ bond),
                    gated=gated(layer.twoBody_atom),
                    out=out(layer),
                )
            )
        bond_convs, angle_updates = [], []
        for layer in cast("Any", network.bond_conv_layers):
            (bond_i, bond_j, angle, atom), bias = first(layer.twoBody_bond)
            bond_convs.append(
                BondConv(
                    atom=put(atom),
                    atom_bias=put(bias),
                    bond_first=put(bond_i),
                    bond_second=put(bond_j),
                    gated=gated(layer.twoBody_bond, angle),
                    out=out(layer),
                )
            )
        # the last bond convolution is followed by no other use of the angles
        for layer in list(cast("Any", network.angle_layers))[:-1]:
            (bond_i, bond_j, angle, atom), bias = first(layer.twoBody_bond)
            angle_updates.append(
                AngleLayer(
                    atom=put(atom),
                    atom_bias=put(bias),
                    bond_first=put(bond_i),
                    bond_second=put(bond_j),
                    gated=gated(layer.twoBody_bond, angle, is_deep=False),
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


class TensorGraph:
    """A MessageGraph on a device, as the incidences that the forward pass needs."""

    def __init__(self, graph: MessageGraph, device: torch.device) -> None:
        def put(array: np.ndarray | Tensor) -> Tensor:
            return torch.as_tensor(array, device=device)

        def index(array: np.ndarray | Tensor) -> Tensor:
            return put(array).to(torch.int32)

        n, n_bonds, n_short = len(graph.numbers), graph.n_bonds, graph.n_short
        self.n_short = n_short
        self.numbers = put(graph.numbers).long() - 1
        self.lengths, self.phases = put(graph.lengths), put(graph.phases)
        centre, neighbour, bond = map(
            index, (graph.edge_centre, graph.edge_neighbour, graph.edge_bond)
        )
        # a table of the atoms' products as centre and as neighbour in turn, then the bonds'
        self.edge = Incidence(
            torch.stack([2 * centre, 2 * neighbour + 1, 2 * n + bond], dim=1), 2 * n + n_bonds
        )
        self.edge_sum = Summing(
            weight=Incidence(bond, n_bonds), owner=Incidence(centre, n, is_sorted=True)
        )
        arm_bond, arm_atom = index(graph.arm_bond), index(graph.arm_atom)
        self.arm_bond = Incidence(arm_bond, n_short)
        # a table of the short bonds' products, then the atoms'
        self.arm = Incidence(torch.stack([arm_bond, n_short + arm_atom], dim=1), n_short + n)
        first, second_bond = index(graph.angle_first), index(graph.angle_second_bond)
        self.angle_sum = Summing(
            weight=Incidence(second_bond, n_short),
            owner=Incidence(first, 2 * n_short, is_sorted=True),
        )
        # a table of the arms' products, then the short bonds'
        self.angle = Incidence(torch.stack([first, 2 * n_short + second_bond], dim=1), 3 * n_short)
        # chgnet updates the bonds of a crystal only where it has an angle, and an output bias
        # (0.2.0) then moves all of its bonds
        self.bond_has_angle = put(graph.bond_has_angle).float()[:, None]


def geometry(graph: Graph, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Lengths and phases of all messages of a graph, differentiable in (n_bonds, 3) vectors."""

    def put(array: np.ndarray | Tensor) -> Tensor:
        return torch.as_tensor(array, device=vectors.device)

    lengths = torch.linalg.vector_norm(vectors, dim=1)
    units = vectors[: graph.n_short] / lengths[: graph.n_short, None]
    arms = Incidence(put(graph.arm_bond), graph.n_short).gather(units)
    arms = arms * put(graph.arm_sign)[:, None]
    first, second = (
        Incidence(put(index), 2 * graph.n_short).gather(arms)
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
    angles = _angle_features(w, phases) if len(g.angle) else None

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
    update = conv.gated.sums(table, g.edge, g.edge_sum, edge_weight)
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
    update = conv.gated.sums(table, g.angle, g.angle_sum, bond_weight, own=angles)
    # the first bond's weight is common to all messages it receives
    update = g.arm_bond.scatter(update) * bond_weight
    bias = conv.out[1]
    updated = torch.addmm(bonds, update, conv.out[0])
    return updated if bias is None else updated + g.bond_has_angle[: g.n_short] * bias


def _angle_update(
    g: TensorGraph, layer: AngleLayer, atoms: Tensor, bonds: Tensor, angles: Tensor
) -> Tensor:
    return layer.gated.rows(_angle_table(g, layer, atoms, bonds), g.angle, own=angles)


def _angle_table(g: TensorGraph, layer: AngleLayer, atoms: Tensor, bonds: Tensor) -> Tensor:
    """(3 * n_short, 128): what an angle takes from its first arm, then from its second bond."""
    atom_products = torch.addmm(layer.atom_bias, atoms, layer.atom)
    arms = g.arm.gather(torch.cat([bonds @ layer.bond_first, atom_products]))
    return torch.cat([arms, bonds @ layer.bond_second])
