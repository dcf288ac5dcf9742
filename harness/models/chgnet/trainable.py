"""CHGNet with every parameter trainable, and CHGNets whose weights come from no file.

The modules and their parameters are chgnet's own, and so are the names in a checkpoint. What runs
is this project's forward pass: it folds parameters together by operations that keep their gradient,
so a training step costs what an energy and its slope cost. Atoms that symmetry makes equal are
computed once here too: they share every feature, hence every gradient, whatever the weights.

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
from harness.models.chgnet.build import build
from harness.models.chgnet.forward import TensorGraph, Weights, forward, site_energies
from harness.models.chgnet.model import CHGNetModel
from harness.models.packing import packed
from harness.models.training.heads import mean_per_row

if TYPE_CHECKING:
    from chgnet.model import CHGNet

    from harness.data.crystals import Crystals

STARTS = ("pretrained", "new-last-layer", "shuffled", "random")
# Directed edges, an angle as 1.3 of them; 12 kB of each are kept for the gradient.
_WORK_PER_PIECE = {"cpu": 10_000, "cuda": 300_000}


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
        """(m,) float32, differentiable in the parameters where gradients are enabled."""
        device = torch.device(self._device)
        n_layers = len(self.network.atom_conv_layers)
        _, messages = build(self._crystals[rows], device, n_layers=n_layers, **self._cutoffs)
        g = TensorGraph(messages, device)
        weights = Weights.of(self.network, device, differentiable=torch.is_grad_enabled())
        features, _ = forward(g, weights, g.lengths, g.phases)
        kinds = torch.as_tensor(messages.kind_of_atom, device=device)
        return mean_per_row(site_energies(weights, features)[kinds], self._n_atoms[rows])

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
