"""chgnet's own graphs and network, in its own precision or in float64: the yardstick.

chgnet computes in float32, whose rounding is at times as large as this project's tolerance: on MgO
at 4.21 Å its energy is 1e-5 eV/atom from what its own code gives in float64. Which of two numbers
is right is settled by the third.

Public: predict_original, PRECISIONS.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from harness.errors import ConfigError
from harness.models.protocol import Prediction
from harness.models.threads import one_thread

if TYPE_CHECKING:
    from chgnet.model import CHGNet

    from harness.data.crystals import Crystals

PRECISIONS = ("float32", "float64")


def predict_original(own: CHGNet, crystals: Crystals, precision: str = "float32") -> Prediction:
    """Energy, forces, stress and moments of every row by chgnet's package, one by one.

    Args:
        own: chgnet's module; with "float64" it is of no use to others afterwards.
        precision: "float32" is `CHGNet.predict_structure` as users call it; "float64" the same
            network and graphs with every number in double precision.
    Raises:
        ConfigError: another precision.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"precision={precision!r}; there are {', '.join(PRECISIONS)}")
    network: Any = own
    structures = [crystals.structure(row) for row in range(len(crystals))]
    with one_thread(), warnings.catch_warnings():
        # chgnet 0.4.2 makes a number of a tensor with a gradient; newer torch remarks on it.
        warnings.filterwarnings("ignore", message="Converting a tensor with requires_grad")
        if precision == "float32":
            said = [network.predict_structure(structure) for structure in structures]
            references = np.zeros(len(crystals))  # in the energies already
        else:
            elements = network.state_dict()["composition_model.fc.weight"].double().numpy()
            references = crystals.fractions()[:, : elements.size] @ elements.reshape(-1)
            with _double(network):
                said = [_in_float64(network, structure) for structure in structures]
    return Prediction(
        energy=references + np.array([float(one["e"]) for one in said]),
        forces=[np.asarray(one["f"], np.float64) for one in said],
        stress=np.stack([np.asarray(one["s"], np.float64) for one in said]),
        magmoms=[np.asarray(one["m"], np.float64) for one in said],
    )


@contextmanager
def _double(network: Any) -> Iterator[None]:
    """chgnet makes its tensors of the type that stands in its module, whatever the network's."""
    from chgnet.model import model as chgnets_module

    before = chgnets_module.TORCH_DTYPE
    network.double()
    network.composition_model = None  # makes float32 whatever it is given
    chgnets_module.TORCH_DTYPE = torch.float64
    try:
        yield
    finally:
        chgnets_module.TORCH_DTYPE = before


def _in_float64(network: Any, structure: Any) -> dict[str, Any]:
    graph = network.graph_converter(structure)
    graph.lattice = torch.tensor(structure.lattice.matrix.copy(), requires_grad=True)
    graph.atom_frac_coord = torch.tensor(structure.frac_coords, requires_grad=True)
    graph.neighbor_image = graph.neighbor_image.double()
    return dict(network.predict_graph(graph))
