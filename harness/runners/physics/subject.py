"""The model, asked for what it offers; a crystal that it does not score is refused.

Public in this package: Outputs, Subject, declared_elements, digest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from harness.data.crystals import Crystals
from harness.errors import ConfigError, DataError, NotAvailable
from harness.models.protocol import Model

from .search import Refused


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What the subject says of one crystal."""

    energy: float  # eV/atom
    forces: np.ndarray | None  # (n_atoms, 3) eV/Å
    stress: np.ndarray | None  # (3, 3) GPa, tension positive


class Subject:
    """The model, asked for what it offers; a crystal it does not score is refused."""

    def __init__(self, model: Model, *, optional: Sequence[str]) -> None:
        self._model = model
        self._optional = tuple(optional)
        self._offered: tuple[str, ...] | None = None
        self.absent: dict[str, str] = {}  # property -> the model's words

    def all(self, crystals: Crystals) -> list[Outputs]:
        """Everything that is offered of every row, in one call."""
        if self._offered is None:
            self._offered = tuple(self._probe(crystals[0]))
        return self._ask(crystals, self._offered)

    def forces(self, crystals: Crystals) -> list[Outputs]:
        return self._ask(crystals, ("forces",))

    def stress(self, crystals: Crystals) -> list[Outputs]:
        return self._ask(crystals, ("stress",))

    def energies(self, crystals: Crystals) -> np.ndarray:
        """(n,) eV per cell."""
        outputs = self._ask(crystals, ())
        return np.array([row.energy for row in outputs]) * crystals.n_atoms

    def _probe(self, crystal: Crystals) -> Iterator[str]:
        for name in self._optional:
            try:
                self._model.predict(crystal, ("energy", name))
            except NotAvailable as error:
                self.absent[name] = str(error)
            else:
                yield name

    def _ask(self, crystals: Crystals, wanted: tuple[str, ...]) -> list[Outputs]:
        prediction = self._model.predict(crystals, ("energy", *wanted))
        for problem in prediction.problems.values():
            raise Refused(problem)
        for name in wanted:
            given = getattr(prediction, name)
            if given is None:
                raise DataError(
                    f"{self._model.identity.name} was asked for {name} and gave none; an adapter "
                    "that cannot raises NotAvailable"
                )
            if not all(np.isfinite(row).all() for row in given):
                raise Refused(f"{name} of a scored crystal are not finite")
        return [
            Outputs(
                energy=float(energy),
                forces=None if prediction.forces is None else prediction.forces[row],
                stress=None if prediction.stress is None else prediction.stress[row],
            )
            for row, energy in enumerate(prediction.energy)
        ]


def declared_elements(model: Model) -> list[int]:
    if model.card.elements is None:
        raise NotAvailable(
            f"{model.identity.name} declares no elements, so no crystal can be drawn for it. "
            "Declare them: ?card.elements=Al,Cu for an ASE calculator"
        )
    numbers = sorted(model.card.elements)
    if not numbers:
        raise ConfigError(
            f"{model.identity.name} declares an empty list of elements: nothing can be drawn. "
            "Correct its adapter, or declare those it knows."
        )
    return numbers


def digest(numbers: Sequence[int]) -> str:
    return hashlib.sha256(json.dumps(list(numbers)).encode()).hexdigest()
