"""Whether anything jumps while two layers of atoms come apart.

Public in this package: Stack, stacks, find_jumps, scan_grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.data.elements import SYMBOLS
from harness.data.random_crystals import Layers, layers

from .search import Breach, Search
from .subject import Subject

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

SCAN_ANG = (1.5, 8.0)  # distances over which smoothness is looked at
_SCAN_STEP_ANG = 0.05
_SUSPECTS = 3  # intervals of a scan, for each property, that are looked into
_PIECES = 8  # into which such an interval is cut, again and again
_JUMP_WIDTH_ANG = 2e-5  # until it is this narrow: 10 eV/Å times this is 2e-4 eV, and is taken off


@dataclass(frozen=True, kw_only=True, eq=False)
class Stack:
    layers: Layers

    @property
    def key(self) -> bytes:
        return repr(self.layers).encode()

    @property
    def words(self) -> dict[str, Any]:
        return {
            "layers": [SYMBOLS[z - 1] for z in self.layers.numbers],
            "in_plane_ang": self.layers.in_plane_ang,
            "angle_deg": self.layers.angle_deg,
            "further_ang": self.layers.further_ang,
        }


def stacks(elements: Sequence[int], search: Search) -> SearchStrategy[Stack]:
    return layers(elements).map(lambda drawn: Stack(layers=drawn))


def find_jumps(subject: Subject, stack: Stack) -> dict[str, Breach]:
    """The largest jump of energy and of forces as the distance between layers grows.

    Where a value differs most from what its neighbours on a grid lead one to expect, the interval
    is cut into pieces, the most conspicuous of which is cut again, until a smooth function would
    hardly change over it. What is left of a change is a jump.
    """
    grid = scan_grid(stack.layers)
    values = _along(subject, stack, grid)
    ends = [
        (name, grid[i], grid[i + 1]) for name, column in values.items() for i in _suspects(column)
    ]
    found: dict[str, Breach] = {}
    while True:
        cuts = np.array([np.linspace(a, b, _PIECES + 1) for _, a, b in ends])
        columns = _along(subject, stack, cuts.ravel())
        narrow = float(np.ptp(cuts[0])) / _PIECES < _JUMP_WIDTH_ANG
        nearer = []
        for i, (name, _, _) in enumerate(ends):
            here = columns[name].reshape(*cuts.shape, -1)[i]
            piece, jump = _most_conspicuous(here)
            nearer.append((name, cuts[i, piece], cuts[i, piece + 1]))
            if narrow and (name not in found or jump > found[name].deviation):
                found[name] = Breach(
                    deviation=jump,
                    size=float(np.abs(here).max()),
                    more={"at_ang": float(cuts[i, piece : piece + 2].mean())},
                )
        if narrow:
            return found
        ends = nearer


def _along(subject: Subject, stack: Stack, distances_ang: np.ndarray) -> dict[str, np.ndarray]:
    """Per property the (n, k) numbers at n distances: eV/atom, eV/Å."""
    outputs = subject.all(stack.layers.at(distances_ang))
    values = {"energy": np.array([[row.energy] for row in outputs])}
    if outputs[0].forces is not None:
        values["forces"] = np.array([row.forces for row in outputs]).reshape(len(outputs), -1)
    return values


def _suspects(values: np.ndarray) -> list[int]:
    """Intervals of a grid in which the change stands out from those beside it, worst first."""
    change = np.diff(values, axis=0)
    expected = (4 * (change[1:-3] + change[3:-1]) - (change[:-4] + change[4:])) / 6
    odd = np.abs(change[2:-2] - expected).max(axis=1)  # of interval i + 2
    window = 8
    padded = np.pad(odd, window, mode="reflect")
    usual = np.median(np.lib.stride_tricks.sliding_window_view(padded, 2 * window + 1), axis=1)
    order = np.argsort(-odd / (usual + 1e-6 * max(1.0, float(np.abs(values).max()))))
    chosen: list[int] = []
    for i in order.tolist():
        if all(abs(i - other) > 2 for other in chosen):  # a jump shows in the intervals beside it
            chosen.append(i)
        if len(chosen) == _SUSPECTS:
            break
    return [i + 2 for i in chosen]


def _most_conspicuous(values: np.ndarray) -> tuple[int, float]:
    """Which piece changes unlike the others, and by how much more than the usual piece.

    Args:
        values: (pieces + 1, k) at the cuts.
    """
    change = np.diff(values, axis=0)
    n = len(change)
    basis = np.vander(np.linspace(-1, 1, n), 3)
    hat = basis @ np.linalg.pinv(basis)
    # Against a parabola through the other pieces: a steep, curved stretch must not look odd.
    unlike = np.abs((change - hat @ change) / (1 - np.diag(hat))[:, None]).max(axis=1)
    piece = int(np.argmax(unlike * np.sqrt(1 - np.diag(hat))))
    return piece, float(np.abs(change[piece] - np.median(change, axis=0)).max())


def scan_grid(stack: Layers) -> np.ndarray:
    low = max(SCAN_ANG[0], stack.closest_ang)
    return np.linspace(low, SCAN_ANG[1], round((SCAN_ANG[1] - low) / _SCAN_STEP_ANG) + 1)
