"""Laws, each with the crystals it is put to and what is compared on one of them.

Public in this package: Law, PROCEDURES.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.data.crystals import Crystals
from harness.data.random_crystals import describe, random_crystals
from harness.data.random_forms import Forms, moved, reordered, supercells, turned
from harness.data.units import GPA_PER_EV_ANG3

from .search import Breach, Case, Refused, Search
from .smoothness import find_jumps, stacks
from .subject import Outputs, Subject

if TYPE_CHECKING:
    from hypothesis.strategies import DrawFn, SearchStrategy

PROPERTIES = ("energy", "forces", "stress")

# Central differences at one, two, four and eight steps. Each neighbouring two give a derivative
# free of the third order (Richardson). What separates the three is taken for the numerical error,
# and of the two nearest to one another the finer for the derivative. Steps are small because a
# network can be rough: CHGNet's force on an atom of compressed iodine changes by 0.5 eV/Å within
# 0.006 Å.
STEP_ANG = 0.0015
STRAIN_STEP = 0.0003
_STEPS = (1, 2, 4, 8)


# --- invariances: one crystal in two forms


def _compare_forms(subject: Subject, forms: Forms) -> dict[str, Breach]:
    one, other = subject.all(Crystals.concatenate([forms.one, forms.other]))
    return _compare(one, other, forms.atom_of, forms.turn)


def _compare(
    one: Outputs, other: Outputs, atom_of: np.ndarray, turn: np.ndarray
) -> dict[str, Breach]:
    found = {"energy": Breach(deviation=abs(other.energy - one.energy), size=abs(one.energy))}
    if one.forces is not None and other.forces is not None:
        expected = one.forces[atom_of] @ turn.T
        found["forces"] = Breach(
            deviation=_longest(other.forces - expected), size=_longest(one.forces)
        )
    if one.stress is not None and other.stress is not None:
        expected = turn @ one.stress @ turn.T
        found["stress"] = Breach(
            deviation=float(np.abs(other.stress - expected).max()),
            size=float(np.abs(one.stress).max()),
        )
    return found


def _longest(vectors: np.ndarray) -> float:
    return float(np.linalg.norm(vectors, axis=-1).max())


@dataclass(frozen=True, kw_only=True, eq=False)
class Several:
    """One crystal, or several to be predicted together."""

    crystals: Crystals

    @property
    def key(self) -> bytes:
        return self.crystals.row_hashes().tobytes()

    @property
    def words(self) -> dict[str, Any]:
        if len(self.crystals) == 1:
            return describe(self.crystals)
        return {"together": [describe(row) for row in self.crystals]}


def _together(elements: Sequence[int], search: Search) -> SearchStrategy[Several]:
    from hypothesis import strategies as st

    crystal = random_crystals(elements, max_atoms=search.max_atoms)
    several = st.lists(crystal, min_size=2, max_size=6)
    return several.map(lambda rows: Several(crystals=Crystals.concatenate(rows)))


def _compare_alone(subject: Subject, case: Several) -> dict[str, Breach]:
    """The largest breach over the crystals of a batch, each against itself alone."""
    found: dict[str, list[Breach]] = {}
    for row, together in enumerate(subject.all(case.crystals)):
        (alone,) = subject.all(case.crystals[row])
        order = np.arange(int(case.crystals.n_atoms[row]))
        for name, breach in _compare(alone, together, order, np.eye(3)).items():
            found.setdefault(name, []).append(breach)
    return {name: max(rows, key=lambda b: b.deviation) for name, rows in found.items()}


# --- derivatives: what is reported against differences of the energy


@dataclass(frozen=True, kw_only=True, eq=False)
class _Site:
    crystal: Crystals
    atom: int

    @property
    def key(self) -> bytes:
        return self.crystal.row_hashes().tobytes() + bytes([self.atom])

    @property
    def words(self) -> dict[str, Any]:
        return {**describe(self.crystal), "atom": self.atom}


def _sites(elements: Sequence[int], search: Search) -> SearchStrategy[_Site]:
    """A crystal, and one of its atoms."""
    from hypothesis import strategies as st

    crystals = random_crystals(elements, max_atoms=search.max_atoms)

    @st.composite
    def site(draw: DrawFn) -> _Site:
        crystal = draw(crystals)
        return _Site(crystal=crystal, atom=draw(st.integers(0, len(crystal.numbers) - 1)))

    return site()


def _compare_forces(subject: Subject, site: _Site) -> dict[str, Breach]:
    """The force on one atom against minus the gradient of the cell's energy."""
    crystal = site.crystal
    (outputs,) = subject.forces(crystal)
    assert outputs.forces is not None  # asked for  # noqa: S101
    to_frac = np.linalg.inv(crystal.lattices[0])

    def displaced(axis: int, by_ang: float) -> Crystals:
        frac = crystal.frac_coords.copy()
        frac[site.atom] += by_ang * to_frac[axis]
        return _like(crystal, frac, crystal.lattices[0])

    slopes, apart = _gradient(subject, displaced, 3, STEP_ANG)
    force = outputs.forces[site.atom]
    return {
        "forces": Breach(
            deviation=float(np.linalg.norm(force + slopes)),
            size=_longest(outputs.forces),
            more={
                "reported": force.tolist(),
                "by_differences": (-slopes).tolist(),
            },
            numerical_error=float(np.linalg.norm(apart)),
        )
    }


_VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))


def _compare_stress(subject: Subject, case: Several) -> dict[str, Breach]:
    """The stress against the derivative of the cell's energy by strain, over the volume."""
    crystal = case.crystals
    (outputs,) = subject.stress(crystal)
    assert outputs.stress is not None  # asked for  # noqa: S101

    def strained(component: int, by: float) -> Crystals:
        i, j = _VOIGT[component]
        strain = np.zeros((3, 3))
        strain[i, j] += by / 2
        strain[j, i] += by / 2
        return _like(crystal, crystal.frac_coords, crystal.lattices[0] @ (np.eye(3) + strain))

    slopes, apart = _gradient(subject, strained, 6, STRAIN_STEP)
    to_gpa = GPA_PER_EV_ANG3 / float(crystal.volumes_ang3[0])
    i, j = np.transpose(_VOIGT)
    reported = (outputs.stress[i, j] + outputs.stress[j, i]) / 2
    skew = float(np.abs(outputs.stress - outputs.stress.T).max()) / 2
    return {
        "stress": Breach(
            deviation=max(float(np.abs(reported - to_gpa * slopes).max()), skew),
            size=float(np.abs(outputs.stress).max()),
            more={
                "reported": reported.tolist(),
                "by_differences": (to_gpa * slopes).tolist(),
            },
            numerical_error=float(to_gpa * apart.max()),
        )
    }


def _gradient(
    subject: Subject, moved: Callable[[int, float], Crystals], n: int, step: float
) -> tuple[np.ndarray, np.ndarray]:
    """(n,) derivatives of the cell's energy, and (n,) estimates of their numerical error."""
    rows = [
        moved(component, sign * times * step)
        for component in range(n)
        for times in _STEPS
        for sign in (1, -1)
    ]
    energies = subject.energies(Crystals.concatenate(rows)).reshape(n, len(_STEPS), 2)
    plain = (energies[:, :, 0] - energies[:, :, 1]) / (2 * step * np.array(_STEPS))
    extrapolated = (4 * plain[:, :-1] - plain[:, 1:]) / 3
    best = np.argmin(np.abs(np.diff(extrapolated, axis=1)), axis=1)
    return extrapolated[np.arange(n), best], np.ptp(extrapolated, axis=1)


def _like(crystal: Crystals, frac: np.ndarray, lattice: np.ndarray) -> Crystals:
    return Crystals(
        numbers=crystal.numbers,
        frac_coords=frac,
        lattices=lattice[None],
        offsets=crystal.offsets - crystal.offsets[0],
    )


def _singles(elements: Sequence[int], search: Search) -> SearchStrategy[Several]:
    return random_crystals(elements, max_atoms=search.max_atoms).map(
        lambda crystal: Several(crystals=crystal)
    )


# --- finiteness


def _is_finite(subject: Subject, case: Several) -> dict[str, Breach]:
    """One where the subject does not score a crystal of elements it claims, zero where it does."""
    try:
        subject.all(case.crystals)
    except Refused as refusal:
        return {"outputs": Breach(deviation=1.0, size=0.0, more={"problem": str(refusal)})}
    return {"outputs": Breach(deviation=0.0, size=0.0)}


# --- what can be asked


@dataclass(frozen=True, kw_only=True)
class Law:
    """What is asked of a subject on one case, and how cases are drawn."""

    properties: tuple[str, ...]
    draw: Callable[[Sequence[int], Search], SearchStrategy[Case]]
    measure: Callable[[Subject, Any], Mapping[str, Breach]]
    optional: tuple[str, ...] = ()  # asked for where the subject offers them
    graded: bool = True  # whether a breach has a size; finite or not has none


def _forms(strategy: Callable[..., SearchStrategy[Forms]]) -> Callable[..., SearchStrategy[Forms]]:
    return lambda elements, search: strategy(elements, max_atoms=search.max_atoms)


_OPTIONAL = ("forces", "stress")

PROCEDURES: Mapping[str, Law] = {
    "extensivity": Law(
        properties=PROPERTIES, draw=_forms(supercells), measure=_compare_forms, optional=_OPTIONAL
    ),
    "translation": Law(
        properties=PROPERTIES, draw=_forms(moved), measure=_compare_forms, optional=_OPTIONAL
    ),
    "rotation": Law(
        properties=PROPERTIES, draw=_forms(turned), measure=_compare_forms, optional=_OPTIONAL
    ),
    "permutation": Law(
        properties=PROPERTIES, draw=_forms(reordered), measure=_compare_forms, optional=_OPTIONAL
    ),
    "batching": Law(
        properties=PROPERTIES, draw=_together, measure=_compare_alone, optional=_OPTIONAL
    ),
    "forces": Law(properties=("forces",), draw=_sites, measure=_compare_forces),
    "stress": Law(properties=("stress",), draw=_singles, measure=_compare_stress),
    "smoothness": Law(
        properties=("energy", "forces"), draw=stacks, measure=find_jumps, optional=("forces",)
    ),
    "finiteness": Law(
        properties=("outputs",),
        draw=_singles,
        measure=_is_finite,
        optional=_OPTIONAL,
        graded=False,
    ),
}
