"""Graphs and messages of many crystals, built where the network runs.

Public: build.
"""

from __future__ import annotations

from collections.abc import Sized
from typing import TYPE_CHECKING

import torch

from harness.models.chgnet.device_graph import all_messages_on, build_graph_on
from harness.models.chgnet.graph import Graph, build_graph
from harness.models.chgnet.messages import MessageGraph, all_messages, distinct_messages

if TYPE_CHECKING:
    from harness.data.crystals import Crystals


def build(
    crystals: Crystals,
    device: torch.device,
    *,
    n_layers: int | None,
    atom_cutoff_ang: float,
    bond_cutoff_ang: float,
) -> tuple[Graph[Sized], MessageGraph[Sized]]:
    """Arrays of numpy on a processor, tensors on a GPU.

    Args:
        n_layers: on a processor, one atom of each kind that so many layers tell apart; None for
            every atom. A GPU always computes every atom: what that costs there is less than finding
            out which are alike.
    """
    cutoffs = {"atom_cutoff_ang": atom_cutoff_ang, "bond_cutoff_ang": bond_cutoff_ang}
    if builds_on(device):
        on_device = build_graph_on(crystals, device, **cutoffs)
        return on_device, all_messages_on(on_device)
    graph = build_graph(crystals, **cutoffs)
    if n_layers is None:
        return graph, all_messages(graph)
    return graph, distinct_messages(graph, n_layers=n_layers)


def builds_on(device: torch.device) -> bool:
    return device.type == "cuda"
