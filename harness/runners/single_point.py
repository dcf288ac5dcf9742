"""Energy, forces, stress and magnetic moments of single cells, and what symmetry says of them.

Public: crystal, strained, displaced, SinglePoint, run, stress_against_energy, chgnets_own,
deviation, TOLERANCES; and for controls sized.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.claims import Interval, Measurement
from harness.data.crystals import Crystals
from harness.data.prototypes import build
from harness.data.units import GPA_PER_EV_ANG3
from harness.errors import CannotResolve, NotAvailable
from harness.models.protocol import Identity, Prediction
from harness.store import PredictionStore, row_digest

if TYPE_CHECKING:
    from harness.models import Model

# Within what chgnet's own numbers are reached, and their units.
TOLERANCES = {
    "energy": (1e-5, "eV/atom"),
    "forces": (1e-4, "eV/Å"),
    "stress": (1e-3, "GPa"),
    "magmoms": (1e-3, "μB"),
}
_AS_WANTED = 0.02  # of what a fault is to come out as
_MOST_STEPS = 8


def crystal(prototype: str, species: Sequence[str], a_ang: float) -> Crystals:
    """One primitive cell of a cubic type with no free coordinates."""
    numbers, frac_coords, lattice = build(prototype, species, {"a": a_ang})
    return Crystals(
        numbers=numbers,
        frac_coords=frac_coords,
        lattices=lattice[None],
        offsets=np.array([0, len(numbers)], dtype=np.int64),
    )


def strained(crystals: Crystals, strain: np.ndarray) -> Crystals:
    """Every cell deformed by 1 + ``strain`` (3, 3), fractional coordinates as they are."""
    return Crystals(
        **{**crystals.columns(), "lattices": crystals.lattices @ (np.eye(3) + np.asarray(strain))}
    )


def displaced(one: Crystals, atom: int, by_ang: Sequence[float]) -> Crystals:
    """One crystal with one atom moved."""
    coords = one.frac_coords.copy()
    coords[atom] += np.asarray(by_ang) @ np.linalg.inv(one.lattices[0])
    return Crystals(**{**one.columns(), "frac_coords": coords})


@dataclass(frozen=True, kw_only=True, eq=False)
class SinglePoint:
    """What the subject says of a few named cells."""

    names: tuple[str, ...]  # (n,)
    crystals: Crystals  # n rows
    prediction: Prediction
    model: str
    inputs: dict[str, str] = field(default_factory=dict)

    def with_prediction(self, **changed: Any) -> SinglePoint:
        """Other numbers for the same cells: how a control plants its fault."""
        return replace(self, prediction=replace(self.prediction, **changed))

    def moments_times(self, factor: float) -> SinglePoint:
        """Every magnetic moment so many times as large."""
        return self.with_prediction(magmoms=[factor * row for row in self._of("magmoms")])

    def posing_as(self, **cells: str) -> SinglePoint:
        """The numbers of one cell under the name of another: ``MgO="NiO"`` gives MgO NiO's."""
        names = list(self.names)
        for name, other in cells.items():
            i, j = names.index(name), names.index(other)
            names[i], names[j] = other, name
        return replace(self, names=tuple(names))

    def stress(self, name: str) -> np.ndarray:
        """(3, 3) GPa, tension positive."""
        return self._of("stress")[self._row(name)]

    def largest_force(self, name: str) -> Measurement:
        """Largest component of any force, eV/Å."""
        force = self._of("forces")[self._row(name)]
        return self._exact(
            "largest component of a force", float(np.abs(force).max()), name, forces=force
        )

    def anisotropy(self, name: str) -> Measurement:
        """Largest deviation of a component of the stress from that of a pressure, GPa."""
        stress = self.stress(name)
        deviation = stress - np.eye(3) * np.trace(stress) / 3
        value = float(np.abs(deviation).max())
        return self._exact("largest deviation from a pressure", value, name, stress=stress)

    def mean_stress(self, name: str) -> Measurement:
        """A third of the stress's trace, GPa, tension positive: minus the pressure."""
        stress = self.stress(name)
        value = float(np.trace(stress)) / 3
        return self._exact("mean stress, tension positive", value, name, stress=stress)

    def largest_moment(self, name: str) -> Measurement:
        """Largest magnetic moment of an atom, μB."""
        moments = self._of("magmoms")[self._row(name)]
        value = float(np.abs(moments).max())
        return self._exact("largest magnetic moment", value, name, magmoms=moments)

    def moment_ratio(self, name: str, published_mu_b: float) -> Measurement:
        """Largest magnetic moment of an atom over a published one."""
        moments = self._of("magmoms")[self._row(name)]
        value = float(np.abs(moments).max()) / published_mu_b
        return self._exact(
            "magnetic moment over the published one",
            value,
            name,
            magmoms=moments,
            published=np.array(published_mu_b),
        )

    def not_finite(self, name: str) -> Measurement:
        """How many numbers of one cell (energy, forces, stress) are missing or not finite."""
        row = self.names.index(name)
        numbers = np.concatenate(
            [
                self.prediction.energy[row : row + 1],
                self._of("forces")[row].ravel(),
                self._of("stress")[row].ravel(),
            ]
        )
        expected = 1 + 3 * int(self.crystals.n_atoms[row]) + 9
        missing = expected - int(np.isfinite(numbers).sum())
        found = {"energy": numbers[:1]} if np.isfinite(numbers[0]) else {}
        return self._exact("numbers that are missing or not finite", missing, name, **found)

    def _row(self, name: str) -> int:
        row = self.names.index(name)
        if row in self.prediction.problems:
            raise NotAvailable(
                f"{self.model} does not score {name} ({self.prediction.problems[row]}), which "
                "this is about. Use another --model."
            )
        return row

    def _of(self, quantity: str) -> Sequence[np.ndarray]:
        found = getattr(self.prediction, quantity)
        if found is None:
            raise NotAvailable(f"{self.model} gives no {quantity}")
        return found

    def _exact(self, quantity: str, value: float, name: str, **numbers: np.ndarray) -> Measurement:
        return Measurement(
            quantity=f"{quantity}, {name}",
            interval=Interval.exact(value, n=1),
            scored=1,
            of=1,
            dataset="single cells",
            model=self.model,
            inputs=self.inputs,
            details={key: np.asarray(array).round(7).tolist() for key, array in numbers.items()},
        )


def run(
    model: Model,
    store: PredictionStore,
    cells: Mapping[str, Crystals],
    properties: Sequence[str] = ("energy", "forces", "stress"),
) -> SinglePoint:
    """Properties of named cells, one crystal each.

    A cell the model cannot score raises NotAvailable when it is measured, but for `not_finite`,
    which counts what is missing.

    Raises:
        NotAvailable: the model has no such property.
    """
    crystals = Crystals.concatenate(list(cells.values()))
    return SinglePoint(
        names=tuple(cells),
        crystals=crystals,
        prediction=store.predict(model, crystals, properties),
        model=model.identity.name,
        inputs={model.identity.name: model.identity.weights_sha256},
    )


def stress_against_energy(
    model: Model,
    store: PredictionStore,
    cells: Mapping[str, Crystals],
    *,
    reported: float = 1.0,
    step: float = 0.002,
) -> Measurement:
    """Largest difference of the mean stress from dE/dV over the cells, GPa, tension positive.

    dE/dV is a five-point difference of the energy over the volume, ``step`` a relative step of the
    volume. A network's higher derivatives are large: CHGNet's MgO at 4.1 Å, where the stress is
    -23 GPa, is off by 0.09 GPa at a step of 0.01, by 0.02 at 0.005 and by 0.005 at 0.002, where
    float32 energies round to about as much.

    Args:
        reported: what the reported stress is multiplied with; other than 1 it plants a fault.
    """
    found = run(model, store, cells, ("energy", "stress"))
    stresses = np.stack([found.stress(name) for name in found.names])
    rows = found.crystals
    offsets = np.array([-2.0, -1.0, 1.0, 2.0])
    weights = np.array([1.0, -8.0, 8.0, -1.0]) / 12
    scaled = [
        Crystals(**{**rows.columns(), "lattices": rows.lattices * (1 + k * step) ** (1 / 3)})
        for k in offsets
    ]
    energies = store.predict(model, Crystals.concatenate(scaled), ("energy",))
    if energies.problems:
        raise NotAvailable(
            f"{found.model} does not score every volume: {set(energies.problems.values())}"
        )
    total_ev = energies.energy.reshape(len(offsets), len(rows)) * rows.n_atoms
    slope_gpa = weights @ total_ev / (step * rows.volumes_ang3) * GPA_PER_EV_ANG3
    stress_gpa = reported * np.trace(stresses, axis1=1, axis2=2) / 3
    return Measurement(
        quantity="largest |tr(stress)/3 - dE/dV|",
        interval=Interval.exact(float(np.abs(stress_gpa - slope_gpa).max()), n=len(rows)),
        scored=len(rows),
        of=len(rows),
        dataset="single cells",
        model=found.model if reported == 1 else f"{found.model}, stress times {reported:g}",
        subject=found.model,
        inputs=found.inputs,
        details={
            "cells": list(found.names),
            "stress_gpa": stress_gpa.round(5).tolist(),
            "energy_slope_gpa": slope_gpa.round(5).tolist(),
        },
    )


def chgnets_own(
    model: Model, store: PredictionStore, cells: Mapping[str, Crystals], precision: str
) -> SinglePoint:
    """The same from chgnet's own code with the same weights, in "float64" or its own "float32".

    Raises:
        NotAvailable: the model is not CHGNet.
    """
    import importlib.metadata

    from harness.models.chgnet.model import CHGNetModel

    name = model.identity.name
    if not isinstance(model, CHGNetModel):
        raise NotAvailable(f"{name} is not CHGNet: chgnet's package has nothing to say of it")
    crystals = Crystals.concatenate(list(cells.values()))
    own = Identity(
        name=f"{name} by chgnet's package in {precision}",
        weights_sha256=model.identity.weights_sha256,
        settings={"chgnet": importlib.metadata.version("chgnet"), "engine": "2"},
    )

    def compute() -> dict[str, np.ndarray]:
        from harness.models.chgnet.original import predict_original

        said = predict_original(model.original(), crystals, precision)
        return {
            "energy": said.energy,
            "forces": np.concatenate(said.forces or []),
            "stress": np.asarray(said.stress),
            "magmoms": np.concatenate(said.magmoms or []),
        }

    kept = store.arrays(own, {"rows": row_digest(crystals.row_hashes())}, compute)
    atoms = np.cumsum(crystals.n_atoms)[:-1]
    return SinglePoint(
        names=tuple(cells),
        crystals=crystals,
        prediction=Prediction(
            energy=kept["energy"],
            forces=np.split(kept["forces"], atoms),
            stress=kept["stress"],
            magmoms=np.split(kept["magmoms"], atoms),
        ),
        model=own.name,
        inputs={name: own.weights_sha256},
    )


def deviation(
    mine: SinglePoint, other: SinglePoint, quantity: str, off: float = 0.0
) -> Measurement:
    """Largest difference of one of TOLERANCES over all cells and components, in tolerances.

    Args:
        off: is added to every number of ``mine``, in its unit; other than 0 it plants a fault.
    """
    tolerance, unit = TOLERANCES[quantity]
    ours, theirs = (
        np.concatenate([np.ravel(row) for row in getattr(one.prediction, quantity)])
        for one in (mine, other)
    )
    largest = float(np.abs(ours + off - theirs).max())
    return Measurement(
        quantity=f"largest difference in {quantity}, in units of {tolerance:g} {unit}",
        interval=Interval.exact(largest / tolerance, n=len(ours)),
        scored=len(mine.names),
        of=len(mine.names),
        dataset="single cells",
        model=mine.model,
        inputs=mine.inputs,
        details={
            "cells": list(mine.names),
            f"largest_difference ({unit})": largest,
            f"largest_value ({unit})": float(np.abs(theirs).max()),
            "compared_with": other.model,
        },
    )


def sized(
    measure: Callable[[float], Measurement], first: float, wanted: float
) -> tuple[Measurement, float]:
    """A fault of such a size that what is measured comes out as wanted, and that size.

    Args:
        measure: from the size of the fault to what is measured with it, which grows as some power.
        first: a size to begin with.
    Raises:
        CannotResolve: none of the sizes tried comes out so, such as where the subject on its own
            is further off, or where the fault changes nothing.
    """
    size, power, before = first, 1.0, None
    for _ in range(_MOST_STEPS):
        found, tried = measure(size), size
        value = found.interval.estimate
        if abs(value / wanted - 1) <= _AS_WANTED:
            return found, size
        if value <= 0:
            break
        if before is not None and before[0] != size and before[1] != value:
            # CHGNet's force on an atom of MgO grows as the cube of a small displacement
            power = max(float(np.log(value / before[1]) / np.log(size / before[0])), 0.1)
        before = size, value
        size *= (wanted / value) ** (1 / power)
    raise CannotResolve(
        f"{found.quantity}: no fault of this kind comes out at {wanted:g}; the last one tried, of "
        f"size {tried:.3g}, gave {value:.3g}"
    )
