"""Subjects for tests: cheap, exact, and counting what they are asked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harness.data.crystals import Crystals
from harness.errors import ModelError
from harness.models.cards import UNITS, Card
from harness.models.protocol import Identity, Prediction


class SumOfNumbers:
    """Energy per atom = mean atomic number / 10; hydrogen rows count as isolated.

    Forces are fractional coordinates, moments atomic numbers, the stress is the lattice.
    """

    def __init__(self, *, weights: str = "a" * 64, batch_rows: int = 3) -> None:
        self.identity = Identity(name="sum-of-numbers", weights_sha256=weights)
        self.elements = frozenset(range(1, 119))
        self.card = Card(elements=self.elements, properties=tuple(UNITS))
        self.batch_rows = batch_rows
        self.asked: list[int] = []  # rows of each call of predict
        self.die_after: int | None = None  # raise in the call after so many

    def plan(self, crystals: Crystals) -> list[np.ndarray]:
        rows = np.arange(len(crystals))
        return [rows[i : i + self.batch_rows] for i in range(0, len(rows), self.batch_rows)]

    def predict(self, crystals: Crystals, properties: Sequence[str] = ("energy",)) -> Prediction:
        if self.die_after is not None and len(self.asked) >= self.die_after:
            raise KeyboardInterrupt
        self.asked.append(len(crystals))
        energy = crystals.fractions() @ (np.arange(1, 119) / 10)
        isolated = crystals.compositions()[:, 0] > 0
        energy[isolated] = np.nan
        problems = {int(i): "1 isolated atom" for i in np.flatnonzero(isolated)}
        split = np.cumsum(crystals.n_atoms)[:-1]
        return Prediction(
            energy=energy,
            problems=problems,
            forces=np.split(crystals.frac_coords, split) if "forces" in properties else None,
            stress=crystals.lattices if "stress" in properties else None,
            magmoms=np.split(crystals.numbers / 1.0, split) if "magmoms" in properties else None,
        )

    def energies(self, crystals: Crystals) -> np.ndarray:
        prediction = self.predict(crystals)
        if prediction.problems:
            raise ModelError(f"rows {sorted(prediction.problems)} could not be scored")
        return prediction.energy


def cubes(atomic_numbers: list[list[int]], *, edge_ang: float = 4.0) -> Crystals:
    """One cubic crystal a list, its atoms spread along the diagonal."""
    counts = [len(numbers) for numbers in atomic_numbers]
    diagonals = [np.arange(n)[:, None] / n + np.zeros(3) for n in counts]
    return Crystals(
        numbers=np.concatenate([np.array(z, dtype=np.uint8) for z in atomic_numbers]),
        frac_coords=np.concatenate(diagonals),
        lattices=np.stack([np.eye(3) * (edge_ang + 0.01 * i) for i in range(len(counts))]),
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
    )
