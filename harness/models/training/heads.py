"""A readout head on per-atom features of a frozen network, as something the loop can train.

A row's output is the mean over its atoms of the head's output; what a subject adds from the
composition alone is the transform's business, not the head's.

Public: Backbone, Head, StoredFeatures, FreshFeatures, mean_per_row, rescale.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from harness.data.crystals import Crystals
from harness.models.packing import packed
from harness.models.protocol import Identity

if TYPE_CHECKING:
    from torch import Tensor, nn

PREFIX = "mlp."  # what chgnet calls its readout; names of parameters are the network's


class Backbone(Protocol):
    """A subject whose head can be trained on features of its frozen rest."""

    @property
    def identity(self) -> Identity: ...

    def plan(self, crystals: Crystals) -> list[np.ndarray]: ...

    def featurise(self, crystals: Crystals) -> Any:
        """`.atoms` (N, width) float32 in the crystals' order, `.problems` row -> why not scored."""
        ...

    def composition_energies(self, crystals: Crystals) -> np.ndarray:
        """(n,) eV/atom that the subject adds to its head from the composition alone."""
        ...

    def head(self) -> Any:
        """A trainable copy of the head, (N, width) to (N, 1) eV, on the CPU."""
        ...


class StoredFeatures:
    """Features computed once, in memory or in a memory-mapped file."""

    def __init__(self, atoms: np.ndarray, n_atoms: np.ndarray, device: str) -> None:
        """atoms: (N, width) float32 of all rows, row after row; n_atoms: (n,) atoms of each."""
        import torch

        self._starts = np.cumsum(n_atoms) - n_atoms
        self._n_atoms = n_atoms
        self._device = device
        # what is mapped from a file stays there; a batch at a time is read
        self._table = None if isinstance(atoms, np.memmap) else torch.from_numpy(atoms).to(device)
        self._atoms = atoms

    def __call__(self, rows: np.ndarray) -> Tensor:
        import torch

        lengths = self._n_atoms[rows]
        before = np.cumsum(lengths) - lengths
        index = np.arange(lengths.sum()) + np.repeat(self._starts[rows] - before, lengths)
        if self._table is None:
            return torch.from_numpy(np.asarray(self._atoms[index])).to(self._device)
        return self._table.index_select(0, torch.from_numpy(index).to(self._device))


class FreshFeatures:
    """Features computed anew for every batch: what stored ones are compared with."""

    def __init__(self, backbone: Backbone, crystals: Crystals, device: str) -> None:
        self._backbone, self._crystals, self._device = backbone, crystals, device

    def __call__(self, rows: np.ndarray) -> Tensor:
        import torch

        features = self._backbone.featurise(self._crystals[rows]).atoms
        return torch.from_numpy(features).to(self._device)


class Head:
    """A head and where its features come from."""

    def __init__(
        self, head: nn.Module, features: Callable[[np.ndarray], Tensor], n_atoms: np.ndarray
    ) -> None:
        self.head = head
        self.parameters: dict[str, Tensor] = {
            f"{PREFIX}{name}": p for name, p in head.named_parameters()
        }
        self._features, self._n_atoms = features, n_atoms

    def outputs(self, rows: np.ndarray) -> Tensor:
        """(m,) float32."""
        return mean_per_row(self.head(self._features(rows)), self._n_atoms[rows])

    def pieces(self, rows: np.ndarray) -> list[np.ndarray]:
        """Runs of about a quarter million atoms: 64 MiB of features."""
        return packed(rows, self._n_atoms[rows], 2**18)

    @property
    def last_layer(self) -> nn.Linear:
        """The linear layer whose output is the head's."""
        from torch import nn

        return [m for m in self.head.modules() if isinstance(m, nn.Linear)][-1]

    def tensors(self) -> dict[str, Tensor]:
        """Everything the head consists of, by its name in the network."""
        return {f"{PREFIX}{name}": t for name, t in self.head.state_dict().items()}


def mean_per_row(sites: Tensor, n_atoms: np.ndarray) -> Tensor:
    """(m,) means of (N, 1) or (N,) outputs of atoms, row after row of (m,) ``n_atoms`` each."""
    import torch

    lengths = torch.from_numpy(np.ascontiguousarray(n_atoms)).to(sites.device)
    owner = torch.repeat_interleave(torch.arange(len(n_atoms), device=sites.device), lengths)
    sums = torch.zeros(len(n_atoms), device=sites.device, dtype=sites.dtype)
    return sums.index_add(0, owner, sites.reshape(-1)) / lengths


def rescale(last: nn.Linear, offset: float, factor: float) -> None:
    """Make a head's last layer give (h - offset) / factor in place of h.

    The mean over atoms of a shifted output is the shifted mean, so rows change as atoms do.
    """
    import torch

    with torch.no_grad():
        last.weight.div_(factor)
        last.bias.sub_(offset).div_(factor)
