"""Target transforms: from formation energies to what a network is trained against, and back.

A head that was trained elsewhere speaks its own language: CHGNet's gives total energies. A
transform says what it is asked to learn instead, and every one of them has an exact inverse:

identity          the target itself, e_form in eV/atom; a pretrained head starts far from it
refit-residual    e_form put on the head's own scale: a per-element linear refit on training rows
                  takes the place of the elements' energies. What the head says before any training
                  is then the zero-shot prediction under the alignment `refit`
standardise       minus the mean, over the standard deviation, of the training rows
signed-log        sign(x) log(1 + |x| / s), s the median |x| of the training rows

They chain with a plus sign, left first: `refit-residual+standardise`.

Public: TRANSFORMS, Rows, Transform, parse, fit, restore.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import numpy as np

from harness.data.elements import SYMBOLS
from harness.errors import ConfigError, DataError
from harness.models import alignment
from harness.models.alignment import References

TRANSFORMS = ("identity", "refit-residual", "standardise", "signed-log")


@dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """What a transform may know of the rows besides their targets."""

    compositions: np.ndarray  # (n, 118) element counts, any scale
    # (n,) what the subject adds to its head from the composition alone, eV/atom (its AtomRef)
    own_ev_per_atom: np.ndarray

    def __len__(self) -> int:
        return len(self.compositions)

    def take(self, rows: np.ndarray) -> Rows:
        """Some of them, in the order given."""
        return Rows(
            compositions=self.compositions[rows], own_ev_per_atom=self.own_ev_per_atom[rows]
        )


class Stage(Protocol):
    """One invertible step, fitted to training rows."""

    name: ClassVar[str]

    def apply(self, values: np.ndarray, rows: Rows) -> np.ndarray: ...

    def invert(self, values: np.ndarray, rows: Rows) -> np.ndarray: ...

    def parameters(self) -> dict[str, np.ndarray]: ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Identity:
    name: ClassVar[str] = "identity"

    def apply(self, values: np.ndarray, rows: Rows) -> np.ndarray:
        return np.array(values, dtype=np.float64)

    def invert(self, values: np.ndarray, rows: Rows) -> np.ndarray:
        return np.array(values, dtype=np.float64)

    def parameters(self) -> dict[str, np.ndarray]:
        return {}


@dataclass(frozen=True, kw_only=True, eq=False)
class RefitResidual:
    """Adds the elements' energies and takes the subject's own off; nan for an unseen element."""

    name: ClassVar[str] = "refit-residual"
    energies_ev_per_atom: np.ndarray  # (118,) nan where no training row has the element

    def apply(self, values: np.ndarray, rows: Rows) -> np.ndarray:
        return np.asarray(values + self._shift(rows))

    def invert(self, values: np.ndarray, rows: Rows) -> np.ndarray:
        return np.asarray(values - self._shift(rows))

    def parameters(self) -> dict[str, np.ndarray]:
        return {"energies_ev_per_atom": self.energies_ev_per_atom}

    def _shift(self, rows: Rows) -> np.ndarray:
        references = References(name=self.name, energies_ev_per_atom=self.energies_ev_per_atom)
        return -references.formation_energies(rows.own_ev_per_atom, rows.compositions)


@dataclass(frozen=True, kw_only=True, eq=False)
class Standardise:
    name: ClassVar[str] = "standardise"
    mean: float
    spread: float  # positive

    def apply(self, values: np.ndarray, rows: Rows) -> np.ndarray:
        return np.asarray((values - self.mean) / self.spread)

    def invert(self, values: np.ndarray, rows: Rows) -> np.ndarray:
        return np.asarray(values * self.spread + self.mean)

    def parameters(self) -> dict[str, np.ndarray]:
        return {"mean": np.array(self.mean), "spread": np.array(self.spread)}


@dataclass(frozen=True, kw_only=True, eq=False)
class SignedLog:
    name: ClassVar[str] = "signed-log"
    scale: float  # positive

    def apply(self, values: np.ndarray, rows: Rows) -> np.ndarray:
        return np.asarray(np.sign(values) * np.log1p(np.abs(values) / self.scale))

    def invert(self, values: np.ndarray, rows: Rows) -> np.ndarray:
        # Beyond e^50 scales nothing is an energy; the cap keeps a wild prediction finite.
        grown = np.expm1(np.minimum(np.abs(values), 50.0))
        return np.asarray(np.sign(values) * grown * self.scale)

    def parameters(self) -> dict[str, np.ndarray]:
        return {"scale": np.array(self.scale)}


@dataclass(kw_only=True, eq=False)
class Transform:
    """A chain of stages, fitted."""

    stages: tuple[Stage, ...]
    applied: Counter[str] = field(default_factory=Counter)  # rows that went through, by stage
    inverted: Counter[str] = field(default_factory=Counter)  # and back

    @property
    def name(self) -> str:
        """What `parse` understands."""
        return "+".join(stage.name for stage in self.stages)

    @property
    def calls(self) -> dict[str, int]:
        """By stage: rows that went there and back."""
        return {s.name: min(self.applied[s.name], self.inverted[s.name]) for s in self.stages}

    def apply(self, e_form_ev_per_atom: np.ndarray, rows: Rows) -> np.ndarray:
        """(n,) float64 training targets of (n,) formation energies; nan where a stage has none."""
        values = np.asarray(e_form_ev_per_atom, dtype=np.float64)
        for stage in self.stages:
            values = stage.apply(values, rows)
            self.applied[stage.name] += len(values)
        return values

    def invert(self, outputs: np.ndarray, rows: Rows) -> np.ndarray:
        """(n,) float64 formation energies, eV/atom, of (n,) outputs of a trained network."""
        values = np.asarray(outputs, dtype=np.float64)
        for stage in reversed(self.stages):
            values = stage.invert(values, rows)
            self.inverted[stage.name] += len(values)
        return values

    @property
    def output_scale(self) -> tuple[float, float] | None:
        """(offset, factor) with which a head on the scale after a refit starts equal to zero-shot.

        A head's output h becomes (h - offset) / factor. None where no linear change of the head's
        last layer does it: without a refit first, or through a logarithm.
        """
        if not isinstance(self.stages[0], RefitResidual):
            return None
        offset, factor = 0.0, 1.0
        for stage in self.stages[1:]:
            if isinstance(stage, Standardise):
                offset, factor = offset + factor * stage.mean, factor * stage.spread
            elif not isinstance(stage, Identity):
                return None
        return offset, factor

    def missing(self, compositions: np.ndarray) -> list[str]:
        """Symbols of elements in these rows that the transform has no energy of."""
        absent = np.zeros(compositions.shape[1], dtype=bool)
        for stage in self.stages:
            if isinstance(stage, RefitResidual):
                absent |= np.isnan(stage.energies_ev_per_atom)
        occurs = (compositions > 0).any(axis=0)
        return [SYMBOLS[z] for z in np.flatnonzero(occurs & absent)]

    def parameters(self) -> dict[str, np.ndarray]:
        """What was fitted, as arrays by `position:stage:name`, for `restore`."""
        return {
            f"{i}:{stage.name}:{key}": value
            for i, stage in enumerate(self.stages)
            for key, value in stage.parameters().items()
        }


def parse(name: str) -> tuple[str, ...]:
    """The stages a name asks for.

    Raises:
        ConfigError: an unknown stage, or a refit that is not the first.
    """
    stages = tuple(name.split("+"))
    if unknown := [stage for stage in stages if stage not in TRANSFORMS]:
        raise ConfigError(
            f"target transform {name!r}: {unknown[0]!r} is unknown; known: "
            f"{', '.join(TRANSFORMS)}, chained with '+'"
        )
    if "refit-residual" in stages[1:]:
        raise ConfigError(
            f"target transform {name!r}: the refit is in eV/atom and can only come first"
        )
    return stages


def fit(
    name: str,
    e_form_ev_per_atom: np.ndarray,
    rows: Rows,
    start_ev_per_atom: np.ndarray | None = None,
    *,
    refit: Callable[[np.ndarray, np.ndarray, np.ndarray], References] = alignment.refit,
) -> Transform:
    """A transform fitted to training rows.

    Args:
        e_form_ev_per_atom: (n,) finite targets of training rows.
        start_ev_per_atom: (n,) what the head gives for these rows before training, eV/atom, from
            which a refit learns the head's own scale. By default zero.
        refit: (totals, targets, compositions) -> references, where a result is remembered.
    Raises:
        ConfigError: the name asks for an unknown stage.
        DataError: no rows, or a value that is not finite.
    """
    values = np.asarray(e_form_ev_per_atom, dtype=np.float64)
    if len(values) == 0 or not np.isfinite(values).all():
        raise DataError(
            f"{len(values)} training targets, {int((~np.isfinite(values)).sum())} of them not "
            "finite: a target transform is fitted to at least one row and only finite targets"
        )
    start = np.zeros(len(values)) if start_ev_per_atom is None else start_ev_per_atom
    stages: list[Stage] = []
    for stage in parse(name):
        fitted: Stage
        if stage == "refit-residual":
            total = start + rows.own_ev_per_atom
            references = refit(total, values, rows.compositions)
            fitted = RefitResidual(energies_ev_per_atom=references.energies_ev_per_atom)
        elif stage == "standardise":
            fitted = Standardise(mean=float(values.mean()), spread=_positive(values.std()))
        elif stage == "signed-log":
            fitted = SignedLog(scale=_positive(np.median(np.abs(values))))
        else:
            fitted = Identity()
        values = fitted.apply(values, rows)
        stages.append(fitted)
    return Transform(stages=tuple(stages))


def restore(name: str, parameters: Mapping[str, np.ndarray]) -> Transform:
    """The fitted transform whose `parameters` were kept."""
    kinds: dict[str, Callable[..., Stage]] = {
        kind.name: kind for kind in (Identity, RefitResidual, Standardise, SignedLog)
    }
    stages: list[Stage] = []
    for i, stage in enumerate(parse(name)):
        start = f"{i}:{stage}:"
        kept = {k.removeprefix(start): v for k, v in parameters.items() if k.startswith(start)}
        values = {k: v if v.ndim else float(v) for k, v in kept.items()}
        stages.append(kinds[stage](**values))
    return Transform(stages=tuple(stages))


def _positive(spread: float) -> float:
    """A spread to divide by: 1 where all values are the same to a µeV."""
    return float(spread) if spread > 1e-6 else 1.0
