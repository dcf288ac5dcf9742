"""CHGNet with every parameter trainable, and CHGNets whose weights come from no file.

The forward pass of forward.py folds parameters together and keeps no gradient of them. This one
runs chgnet's own modules, in chgnet's order, on this project's graphs; the numbers are the same to
rounding, and several times slower. Use it where more than the readout is trained.

Public: TrainableCHGNet, variant, tensors_of, n_convolutions, STARTS.
"""

from __future__ import annotations

import contextlib
import copy
import io
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from harness.errors import ConfigError
from harness.models.chgnet.graph import Graph, build_graph
from harness.models.chgnet.model import CHGNetModel
from harness.models.packing import packed
from harness.models.training.heads import mean_per_row

if TYPE_CHECKING:
    from chgnet.model import CHGNet

    from harness.data.crystals import Crystals

STARTS = ("pretrained", "new-last-layer", "shuffled", "random")
# Directed edges, an angle as 1.3 of them: chgnet's modules keep about 30 kB of each for a gradient.
_WORK_PER_PIECE = {"cpu": 20_000, "cuda": 1_000_000}


def variant(model: CHGNetModel, start: str, seed: int) -> CHGNetModel:
    """A model of the same architecture with other weights.

    pretrained       the model itself
    new-last-layer   the last linear layer of the readout drawn anew
    shuffled         every tensor keeps its values and deals them to other places
    random           all weights drawn anew, as chgnet draws them before training

    The elements' fixed energies (AtomRef) stay in all of them: they are linear in the composition,
    and a refit replaces them anyway. Nothing is drawn from torch's global generator.

    Raises:
        ConfigError: an unknown start.
    """
    if start not in STARTS:
        raise ConfigError(f"start={start!r} is unknown; known: {', '.join(STARTS)}")
    if start == "pretrained":
        return model
    generator = torch.Generator().manual_seed(seed)
    network = copy.deepcopy(model._network)
    if start == "random":
        network = _fresh(network)
        _draw(network, generator)
    elif start == "new-last-layer":
        _draw(_readout(network)[-1], generator)
    else:
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                if not name.startswith("composition_model"):
                    order = torch.randperm(parameter.numel(), generator=generator)
                    parameter.copy_(parameter.reshape(-1)[order].reshape(parameter.shape))
    name = f"{model.identity.name} ({start}, seed {seed})"
    return CHGNetModel.around(network, name, model.device)


def tensors_of(model: CHGNetModel) -> dict[str, Tensor]:
    """Parameters and buffers a model was made from, by name; do not change them."""
    return dict(model._network.state_dict())


def n_convolutions(model: CHGNetModel) -> int:
    """How many atom convolutions the network has; the last is number n - 1."""
    return len(cast("Any", model._network).atom_conv_layers)


def _readout(network: CHGNet) -> list[nn.Linear]:
    layers = cast("Any", network.mlp).layers
    return [layer for layer in layers if isinstance(layer, nn.Linear)]


def _fresh(network: CHGNet) -> CHGNet:
    """The same architecture as it is before any training, AtomRef kept."""
    from chgnet.model import CHGNet

    with torch.random.fork_rng(devices=[]), contextlib.redirect_stdout(io.StringIO()):
        fresh = CHGNet(**copy.deepcopy(network.model_args))
    fresh.composition_model.load_state_dict(network.composition_model.state_dict())
    return fresh


def _draw(module: nn.Module, generator: torch.Generator) -> None:
    """torch's own initialisation of linear layers and embeddings, from this generator alone."""
    with torch.no_grad():
        for name, layer in module.named_modules():
            if name.startswith("composition_model"):
                continue
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_uniform_(layer.weight, a=5**0.5, generator=generator)
                if layer.bias is not None:
                    edge = layer.in_features**-0.5
                    nn.init.uniform_(layer.bias, -edge, edge, generator=generator)
            elif isinstance(layer, nn.Embedding):
                nn.init.normal_(layer.weight, generator=generator)


class TrainableCHGNet:
    """A copy of a model's network whose chosen modules can be trained.

    An output is the mean over a row's atoms of the readout, without the elements' energies, as in
    heads.Head. Where the first modules are frozen no gradient of them is kept.
    """

    def __init__(
        self, model: CHGNetModel, crystals: Crystals, trained: tuple[str, ...], device: str
    ) -> None:
        """``trained``: names of modules, such as "mlp" or "atom_conv_layers.3"; "" is all of them.

        Raises:
            ConfigError: the network has no such module, or nothing in it to train.
        """
        self.network = copy.deepcopy(model._network).to(device)
        self._cutoffs, self._crystals, self._device = model._cutoffs, crystals, device
        self._n_atoms, self._work = crystals.n_atoms, model._work(crystals)
        self.parameters: dict[str, Tensor] = {}
        modules = dict(self.network.named_modules())
        for name in trained:
            if name not in modules:
                known = [n for n in modules if n and n.count(".") <= 1 and n[-1].isdigit()]
                raise ConfigError(
                    f"CHGNet has no module {name!r}; it has {', '.join([*known, 'mlp'])} and more"
                )
        for name, parameter in self.network.named_parameters():
            # the last bond convolution's angles and the magnetic moments move no energy
            if any(name.startswith(f"{t}." if t else "") for t in trained) and not name.startswith(
                ("composition_model", "site_wise")
            ):
                self.parameters[name] = parameter.requires_grad_(True)
        if not self.parameters:
            raise ConfigError(f"modules {trained} hold no parameter to train")

    def outputs(self, rows: np.ndarray) -> Tensor:
        """(m,) float32."""
        graph = build_graph(self._crystals[rows], **self._cutoffs)
        return mean_per_row(self._sites(graph), self._n_atoms[rows])

    def pieces(self, rows: np.ndarray) -> list[np.ndarray]:
        """Runs of rows whose graphs fit into memory with what their gradient needs."""
        budget = _WORK_PER_PIECE[torch.device(self._device).type]
        return packed(rows, self._work[rows], budget)

    @property
    def last_layer(self) -> nn.Linear:
        """The linear layer whose output is the network's."""
        return _readout(self.network)[-1]

    def tensors(self) -> dict[str, Tensor]:
        """Parameters and buffers of the whole network."""
        return dict(self.network.state_dict())

    def _sites(self, graph: Graph) -> Tensor:
        """(N, 1) output of every atom: chgnet's forward pass, module by module."""

        def put(array: np.ndarray) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(array)).to(self._device)

        net = cast("Any", self.network)
        n_bonds = graph.n_bonds
        vectors = put(graph.vectors)
        lengths = torch.linalg.vector_norm(vectors, dim=1)
        basis = net.bond_basis_expansion.rbf_expansion_ag(lengths).float()
        atoms = net.atom_embedding(put(graph.numbers.astype(np.int64)) - 1)
        bonds = net.bond_embedding(basis)
        weights_ag = net.bond_weights_ag(basis)
        weights_bg = net.bond_weights_bg(net.bond_basis_expansion.rbf_expansion_bg(lengths).float())
        directed = np.concatenate(
            [
                np.stack([graph.first, graph.second], axis=1),
                np.stack([graph.second, graph.first], axis=1),
            ]
        )
        atom_graph = put(directed)
        undirected = torch.arange(n_bonds, device=self._device).repeat(2)
        angles, bond_graph = None, None
        if graph.n_angles:
            arms = (vectors / lengths[:, None])[put(graph.arm_bond)] * put(graph.arm_sign)[:, None]
            first, second = put(graph.angle_first), put(graph.angle_second)
            basis_angle = net.angle_basis_expansion(arms[first], arms[second]).float()
            angles = net.angle_embedding(basis_angle)
            arm_bond, arm_atom = put(graph.arm_bond), put(graph.arm_atom)
            bond_graph = torch.stack([arm_atom[first], arm_bond[first], arm_bond[second]], dim=1)

        def convolve(layer: Any, atoms: Tensor) -> Tensor:
            return layer(
                atom_feas=atoms,
                bond_feas=bonds,
                bond_weights=weights_ag,
                atom_graph=atom_graph,
                directed2undirected=undirected,
            )

        layers = list(net.atom_conv_layers)
        for i, layer in enumerate(layers[:-1]):
            atoms = convolve(layer, atoms)
            if angles is None:
                continue
            bonds = net.bond_conv_layers[i](
                atom_feas=atoms,
                bond_feas=bonds,
                bond_weights=weights_bg,
                angle_feas=angles,
                bond_graph=bond_graph,
            )
            angles = net.angle_layers[i](
                atom_feas=atoms, bond_feas=bonds, angle_feas=angles, bond_graph=bond_graph
            )
        atoms = convolve(layers[-1], atoms)
        if net.readout_norm is not None:
            atoms = net.readout_norm(atoms)
        return net.mlp(atoms)
