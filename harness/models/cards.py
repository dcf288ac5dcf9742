"""What a subject declares about itself, and what it takes to hold it to that.

A card is prose that a report shows and numbers that a check can test: `elements_not_scored` asks
for a finite energy of a crystal of every declared element, `unit_slopes` compares reported forces
and stress with differences of the reported energy.

Public: Card, UNITS, UNDECLARED, elements_named, element_crystals, elements_not_scored, UnitSlopes,
unit_slopes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from harness.data.crystals import Crystals
from harness.data.elements import NUMBERS, SYMBOLS
from harness.errors import ConfigError, DataError, ModelError, NotAvailable

if TYPE_CHECKING:
    from harness.models.protocol import Model

UNITS: Mapping[str, str] = {  # every subject's, whatever its own package uses
    "energy": "eV/atom",
    "forces": "eV/Å",
    "stress": "GPa, tension positive",
    "magmoms": "μB, magnitudes",
}
UNDECLARED = "not declared"
GPA_PER_EV_PER_ANG3 = 160.21766208  # CODATA 2014, as ase.units
_NOTHING_EV = 1e-4  # a slope per Å or per strain below it is rounding in float32


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a subject says of itself. Statements are the authors'; the source says where."""

    elements: frozenset[int] | None  # atomic numbers it knows; None: not declared
    theory: str = UNDECLARED  # level of theory of what it was trained on
    training_set: str = UNDECLARED
    energies: str = UNDECLARED  # what its total energies contain
    properties: tuple[str, ...] = ("energy",)  # of UNITS, what predict() gives
    source: str = ""

    def __post_init__(self) -> None:
        if "energy" not in self.properties or not set(self.properties) <= set(UNITS):
            raise ConfigError(
                f"properties={self.properties}: energy, and of {', '.join(UNITS)} what it gives"
            )
        if self.elements is not None and not self.elements <= set(range(1, len(SYMBOLS) + 1)):
            raise ConfigError(f"elements={sorted(self.elements)}: give atomic numbers 1..118")

    @property
    def units(self) -> dict[str, str]:
        """Unit of each property it gives."""
        return {name: UNITS[name] for name in self.properties}

    def lines(self) -> dict[str, str]:
        """The card as text for a report, one line a statement."""
        return {
            "elements": UNDECLARED if self.elements is None else _as_ranges(self.elements),
            "theory": self.theory,
            "training set": self.training_set,
            "energies": self.energies,
            "units": "; ".join(f"{name} {unit}" for name, unit in self.units.items()),
            "source": self.source or UNDECLARED,
        }


def elements_named(text: str) -> frozenset[int]:
    """Atomic numbers of "Al,Cu" or "H-Pu,Cm": symbols, and ranges by atomic number.

    Raises:
        ConfigError: a symbol is unknown, or a range runs backwards.
    """
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if first not in NUMBERS or (dash and last not in NUMBERS):
            raise ConfigError(f"{part!r} in {text!r} is no element; write Al,Cu or H-Pu")
        low, high = NUMBERS[first], NUMBERS[last if dash else first]
        if low > high:
            raise ConfigError(f"{part!r} in {text!r} runs backwards; write {last}-{first}")
        found.update(range(low, high + 1))
    return frozenset(found)


def _as_ranges(elements: Iterable[int]) -> str:
    numbers = sorted(elements)
    breaks = [i for i, (a, b) in enumerate(pairwise(numbers), 1) if b > a + 1]
    runs = np.split(np.array(numbers, dtype=int), breaks)
    named = [(SYMBOLS[run[0] - 1], SYMBOLS[run[-1] - 1]) for run in runs if len(run)]
    ranges = ", ".join(first if first == last else f"{first}-{last}" for first, last in named)
    return f"{ranges} ({len(numbers)})"


# --- held to it -----------------------------------------------------------------------------------


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
            virial_ev = reported.stress[row] * volume / GPA_PER_EV_PER_ANG3
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
