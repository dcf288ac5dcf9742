"""What a subject must offer. Adapters implement it; runners and checks see nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.data.crystals import Crystals
    from harness.models.cards import Card


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What predictions are addressed by: change any of it and they are computed anew."""

    name: str  # what reports call it
    weights_sha256: str  # of the parameters themselves, not of the file that held them
    settings: dict[str, str] = field(default_factory=dict)  # whatever else moves a number
    stored_as: str = ""  # its name in addresses, where reports call it something else

    def addressed(self) -> dict[str, Any]:
        """What is written beside its predictions: an alias does not part it from them."""
        return {
            "name": self.stored_as or self.name,
            "weights_sha256": self.weights_sha256,
            "settings": self.settings,
        }

    def called(self, alias: str) -> Identity:
        """The same subject under another name in reports."""
        return replace(self, name=alias, stored_as=self.stored_as or self.name)


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """One row per crystal, in the order given. Absent properties are None."""

    energy: (
        np.ndarray
    )  # (n,) float64, eV/atom as the model defines it; nan exactly where not scored
    problems: dict[int, str] = field(default_factory=dict)  # row -> why it was not scored
    raised: frozenset[int] = frozenset()  # of these, rows where somebody's code raised: it may pass
    forces: list[np.ndarray] | None = None  # n of (n_atoms, 3), eV/Å
    stress: np.ndarray | None = None  # (n, 3, 3), GPa, tension positive
    magmoms: list[np.ndarray] | None = None  # n of (n_atoms,), μB, magnitudes

    def __post_init__(self) -> None:
        not_scored = set(np.flatnonzero(~np.isfinite(self.energy)).tolist())
        if not_scored != set(self.problems):
            raise ValueError(
                f"rows without a finite energy {sorted(not_scored)[:5]} and rows with a stated "
                f"problem {sorted(self.problems)[:5]} differ: a row is scored or explained"
            )
        if not self.raised <= set(self.problems):
            raise ValueError(f"raised={sorted(self.raised)[:5]}: not all of them have a problem")
        if self.raised:
            for heard in _LISTENING.get():
                heard.append(self)

    @property
    def scored(self) -> np.ndarray:
        """(n,) bool, True where the energy may be used."""
        return np.isfinite(self.energy)


_LISTENING: ContextVar[tuple[list[Prediction], ...]] = ContextVar("listening", default=())


@contextmanager
def listening() -> Iterator[list[Prediction]]:
    """Predictions made within of which a row raised: what is made of them may come out otherwise
    next time, for want of memory now say, and is not to be kept."""
    heard: list[Prediction] = []
    token = _LISTENING.set((*_LISTENING.get(), heard))
    try:
        yield heard
    finally:
        _LISTENING.reset(token)


@runtime_checkable
class Model(Protocol):
    """A subject: from crystals to energies, and to forces, stress and moments where it can."""

    @property
    def identity(self) -> Identity: ...

    @property
    def elements(self) -> frozenset[int]:
        """Atomic numbers the model claims to know; all of them where it declares none."""
        ...

    @property
    def card(self) -> Card:
        """What the model declares: elements, theory, training set, energies, properties."""
        ...

    def plan(self, crystals: Crystals) -> list[np.ndarray]:
        """Batches of row positions covering every row once; the same crystals, the same batches."""
        ...

    def predict(
        self, crystals: Crystals, properties: Sequence[str] = ("energy",)
    ) -> Prediction: ...

    def energies(self, crystals: Crystals) -> np.ndarray:
        """(n,) float64 eV/atom. Raises ModelError naming the rows if any could not be scored."""
        ...
