"""The subject with one fault, sized on the crystals that the claims met.

Public: Fault, Faulty, Remembering, sized.

A fault says what a subject would answer instead of what it does. At part of its size the answer
lies so far between the two, so that a sum taken wrongly, an exchange of axes or of atoms can all be
made as small as one likes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from harness.claims import Measurement
from harness.data.crystals import Crystals
from harness.errors import CannotResolve, ModelError
from harness.models.cards import Card
from harness.models.protocol import Identity, Model, Prediction

# One crystal, how many share its batch, and the number or array said of it -> what is said instead
Change = Callable[[Crystals, int, Any], Any]

# Of what is allowed: the largest breach of a fault that is near and yet certain.
NEAR = (1.3, 1.45)
_AIM = 1.4
_MOST_STEPS = 12


@dataclass(frozen=True, eq=False)
class Fault:
    """What is wrong, row by row."""

    words: str
    energy: Change | None = None
    forces: Change | None = None
    stress: Change | None = None
    refuses: Callable[[Crystals], bool] | None = None  # whether a crystal is not scored
    card: Mapping[str, str] = field(default_factory=dict)  # what its card says instead
    size: float = 1.0  # part of the change that is made
    code: str = ""  # a digest of what the functions were read from

    def times(self, factor: float) -> Fault:
        """The same fault, so many times as large."""
        return replace(self, size=self.size * factor)

    def __str__(self) -> str:
        return self.words if self.size == 1 else f"{self.size!r} of: {self.words}"

    def __call__(self, crystals: Crystals, prediction: Prediction) -> Prediction:
        """What the faulty subject says where the subject says ``prediction``."""
        rows = list(crystals)
        changed: dict[str, Any] = {}
        for name in ("energy", "forces", "stress"):
            change, values = getattr(self, name), getattr(prediction, name)
            if change is not None and values is not None:
                new = [
                    x + self.size * (change(row, len(rows), x) - x)
                    for row, x in zip(rows, values, strict=True)
                ]
                changed[name] = new if name == "forces" else np.array(new)
        prediction = replace(prediction, **changed)
        if self.refuses is not None:
            refused = [i for i, row in enumerate(rows) if self.refuses(row)]
            energy = prediction.energy.copy()
            energy[refused] = np.nan
            problems = prediction.problems | dict.fromkeys(refused, "planted")
            prediction = replace(prediction, energy=energy, problems=problems)
        return prediction


@dataclass(frozen=True)
class Faulty:
    """A subject whose predictions pass through a fault. It goes by a name of its own, and its
    results are stored under the fault, its size and its code, so that a changed one is measured
    anew."""

    model: Model
    fault: Fault

    @property
    def identity(self) -> Identity:
        own = self.model.identity
        said = f"{self.fault.words} {self.fault.size!r} {self.fault.code}"
        return replace(own, name=f"{own.name}, faulty", settings={**own.settings, "fault": said})

    @property
    def elements(self) -> frozenset[int]:
        return self.model.elements

    @property
    def card(self) -> Card:
        return replace(self.model.card, **self.fault.card)  # type: ignore[arg-type]

    def plan(self, crystals: Crystals) -> list[np.ndarray]:
        return self.model.plan(crystals)

    def predict(self, crystals: Crystals, properties: Sequence[str] = ("energy",)) -> Prediction:
        return self.fault(crystals, self.model.predict(crystals, properties))

    def energies(self, crystals: Crystals) -> np.ndarray:
        prediction = self.predict(crystals)
        if prediction.problems:
            raise ModelError(f"rows {sorted(prediction.problems)} could not be scored")
        return prediction.energy


@dataclass(frozen=True)
class Remembering:
    """The same answers as the model's, each computed once a session: controls meet the crystals
    that the claims met."""

    model: Model
    _known: dict[tuple[bytes, tuple[str, ...]], Prediction] = field(
        default_factory=dict, repr=False, compare=False
    )

    @property
    def identity(self) -> Identity:
        return self.model.identity

    @property
    def elements(self) -> frozenset[int]:
        return self.model.elements

    @property
    def card(self) -> Card:
        return self.model.card

    def plan(self, crystals: Crystals) -> list[np.ndarray]:
        return self.model.plan(crystals)

    def energies(self, crystals: Crystals) -> np.ndarray:
        return self.model.energies(crystals)

    def predict(self, crystals: Crystals, properties: Sequence[str] = ("energy",)) -> Prediction:
        key = (crystals.row_hashes().tobytes(), tuple(properties))
        if key not in self._known:
            self._known[key] = self.model.predict(crystals, properties)
        return self._known[key]


def sized(
    without: Measurement, planted: Callable[[float], Measurement]
) -> tuple[Measurement, float]:
    """A fault made as small as the bound: its largest breach about 1.4 of what is allowed.

    Args:
        without: of the subject as it is; its severity is the breach without the fault.
        planted: from the size of the fault, 1 for all of it, to what is measured with it.
    Returns:
        What was measured with the fault near the bound, and its size. Where the fault leaps from no
        breach to a large one, the smallest breach found.
    Raises:
        CannotResolve: the subject breaks the law without any fault, or all of the fault does not
            break it on any crystal drawn.
    """
    if without.counterexample:
        raise CannotResolve(
            f"{without.model} breaks the law as it is ({without.counterexample}), so that a fault "
            "planted in it would show nothing"
        )
    found, size = planted(1.0), 1.0
    severity = found.severity or 0.0
    if severity < 1:
        raise CannotResolve(
            f"the fault shows on none of the {found.scored} crystals drawn: the largest breach is "
            f"{severity:.2g} of what is allowed with it and {without.severity or 0.0:.2g} without"
        )
    near, below = 0.0, 0.0
    for step in range(_MOST_STEPS):
        if severity <= NEAR[1]:
            break
        if near == 0:
            middle = size * _AIM / severity  # as if breaches grew in proportion
        elif step % 2 == 0:
            middle = (near * size) ** 0.5
        else:  # as if they grew by the power that both ends tell
            power = math.log(size / near) / math.log(severity / max(below, 1e-9))
            middle = near * (_AIM / max(below, 1e-9)) ** power
        candidate = planted(middle)
        value = candidate.severity or 0.0
        if value >= NEAR[0]:
            found, size, severity = candidate, middle, value
        else:
            near, below = middle, value
    return found, size
