"""Where batches are computed: in this process, or on the machines of a Ray cluster.

An executor takes a model, crystals, batches of row positions and the properties wanted, and yields
one prediction a batch, in the order given. Which batches there are never depends on it, so neither
does what is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from harness.data.crystals import Crystals
    from harness.models.protocol import Model, Prediction

Execute = Callable[
    ["Model", "Crystals", Sequence[np.ndarray], Sequence[str]],
    Iterator["Prediction"],
]


def in_process(
    model: Model,
    crystals: Crystals,
    batches: Sequence[np.ndarray],
    properties: Sequence[str] = ("energy",),
) -> Iterator[Prediction]:
    """One batch after the other, here; the model uses the cores or the GPU as it sees fit."""
    return (model.predict(crystals[rows], properties) for rows in batches)
