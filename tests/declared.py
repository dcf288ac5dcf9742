"""For tests of adapters: whether a subject does what its card declares.

Quick and exact to a few digits; `physics.declares-itself` and the other claims about physics ask
the same of any subject with errors estimated.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from harness.data.crystals import Crystals
from harness.data.units import GPA_PER_EV_ANG3
from harness.errors import DataError, ModelError, NotAvailable
from harness.models.protocol import Model, Prediction

_NOTHING_EV = 1e-4  # a slope per Å or per strain below it is rounding in float32


def element_crystals(elements: Iterable[int]) -> Crystals:
    """A close-packed (fcc) crystal of each element, neighbours two covalent radii apart.

    Not a structure of nature: every potential that knows the element must give it an energy.
    Covalent radii: ASE's table (Cordero et al., Dalton Trans. 2832 (2008)); where it has none, and
    for the smallest atoms, neighbours are 1.5 Å apart.
    """
    from ase.data import covalent_radii

    numbers = np.array(sorted(elements), dtype=np.uint8)
    apart = np.maximum(2 * covalent_radii[numbers], 1.5)
    primitive = np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]]) / np.sqrt(2)
    return Crystals(
        numbers=numbers,
        frac_coords=np.zeros((len(numbers), 3)),
        lattices=apart[:, None, None] * primitive,
        offsets=np.arange(len(numbers) + 1, dtype=np.int64),
    )


def elements_not_scored(model: Model) -> dict[int, str]:
    """Declared atomic numbers of which the subject gives no finite energy -> its reason.

    Raises:
        NotAvailable: the subject declares no elements.
    """
    if model.card.elements is None:
        raise NotAvailable(
            f"{model.identity.name} declares no elements, so there is nothing to hold it to. "
            "Declare them: ?card.elements=Al,Cu for an ASE calculator"
        )
    declared = sorted(model.card.elements)
    problems = model.predict(element_crystals(declared)).problems
    return {declared[row]: problem for row, problem in problems.items()}


@dataclass(frozen=True, kw_only=True)
class UnitSlopes:
    """Slope of what the energy says against what is reported, through the origin; 1 if they agree.

    -1 is a wrong sign, 160 a stress in eV/Å^3, 0.1 one in kbar.
    """

    forces: float
    stress: float


def unit_slopes(
    model: Model,
    crystals: Crystals,
    *,
    step_ang: float = 0.01,
    step_strain: float = 0.005,
    n_directions: int = 3,
    seed: int = 0,
) -> UnitSlopes:
    """Forces and stress in the declared units, by central differences of the energy.

    Each crystal is displaced along random unit directions of all its coordinates and strained
    along random symmetric unit strains.

    Args:
        crystals: (n,) rows off their equilibrium, so that forces and stress are not zero.
    Raises:
        NotAvailable: the subject gives no forces or no stress.
        ModelError: a row was not scored; the message names it.
        DataError: all reported forces, or all stresses, vanish.
    """
    reported = model.predict(crystals, ("energy", "forces", "stress"))
    if reported.forces is None or reported.stress is None:
        raise NotAvailable(f"{model.identity.name} gives no forces or no stress")
    draw = np.random.default_rng(seed)
    moved: list[Crystals] = []
    per_force: list[float] = []  # dE/dstep as reported, eV per unit of the step
    per_stress: list[float] = []
    for row, crystal in enumerate(crystals):
        lattice, volume = crystal.lattices[0], float(crystal.volumes_ang3[0])
        for _ in range(n_directions):
            shift = draw.normal(size=(len(crystal.numbers), 3))
            shift /= np.linalg.norm(shift)
            per_force.append(-float(np.sum(reported.forces[row] * shift)))
            in_cell = shift @ np.linalg.inv(lattice)
            moved += [
                _with(crystal, frac_coords=crystal.frac_coords + h * in_cell)
                for h in (-step_ang, step_ang)
            ]
        for _ in range(n_directions):
            strain = draw.normal(size=(3, 3))
            strain = (strain + strain.T) / np.linalg.norm(strain + strain.T)
            virial_ev = reported.stress[row] * volume / GPA_PER_EV_ANG3
            per_stress.append(float(np.sum(virial_ev * strain)))
            moved += [
                _with(crystal, lattices=crystal.lattices @ (np.eye(3) + h * strain))
                for h in (-step_strain, step_strain)
            ]
    all_moved = Crystals.concatenate(moved)
    found = model.predict(all_moved)
    if problems := {**reported.problems, **found.problems}:
        row, problem = next(iter(problems.items()))
        raise ModelError(
            f"{model.identity.name} did not score {len(problems)} of {len(crystals) + len(moved)} "
            f"crystals, first row {row}: {problem}. Take crystals it can score."
        )
    totals = (found.energy * all_moved.n_atoms).reshape(len(crystals), 2, n_directions, 2)
    difference = totals[..., 1] - totals[..., 0]
    return UnitSlopes(
        forces=_slope(per_force, difference[:, 0].ravel() / (2 * step_ang), "forces"),
        stress=_slope(per_stress, difference[:, 1].ravel() / (2 * step_strain), "stress"),
    )


def _with(crystal: Crystals, **columns: np.ndarray) -> Crystals:
    return Crystals(**{**crystal.columns(), **columns})


def _slope(reported: list[float], found: np.ndarray, what: str) -> float:
    x = np.array(reported)
    if not np.abs(x).max(initial=0.0) > _NOTHING_EV:
        raise DataError(
            f"all reported {what} vanish, which says nothing about units; take crystals off their "
            "equilibrium"
        )
    return float((x * found).sum() / (x**2).sum())


def assert_as_calculator(
    found: Prediction, crystals: Crystals, calculator: Any, *, stress_atol_gpa: float
) -> None:
    """Energy, forces and stress of every row are those of an ASE calculator, in our units."""
    from ase.units import GPa

    assert found.problems == {}
    assert found.forces is not None
    assert found.stress is not None
    for row in range(len(crystals)):
        atoms = crystals.atoms(row)
        atoms.calc = calculator
        assert found.energy[row] == pytest.approx(atoms.get_potential_energy() / len(atoms), 1e-6)
        np.testing.assert_allclose(found.forces[row], atoms.get_forces(), atol=1e-5)
        stress_gpa = atoms.get_stress(voigt=False) / GPa
        np.testing.assert_allclose(found.stress[row], stress_gpa, atol=stress_atol_gpa)
