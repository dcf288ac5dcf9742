"""Relax crystals with the subject and compare volume and bond lengths with a reference.

Public: Relax, Relaxation, RelaxResult, relax, run, enough_to_show; renaming a field breaks old
evidence files.

Each crystal has ASE's BFGS on ASE's FrechetCellFilter to itself; own is only that all of them go in
step, so that the model is asked once a step for all crystals that are still on their way. The
convergence criterion is on the stress itself, in GPa, and not on the virial a cell filter makes of
it, which for a large soft cell hides a strain of percents.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.claims import Interval, Measurement
from harness.data.crystals import Crystals
from harness.data.reference_files import Geometries
from harness.data.units import GPA_PER_EV_ANG3
from harness.engines import engine
from harness.errors import ConfigError, NotAvailable
from harness.models.threads import one_thread
from harness.statistics import bootstrap, median, share
from harness.store import PredictionStore, row_digest

if TYPE_CHECKING:
    from harness.models import Model
    from harness.store import MakeProgress, Progress

# Of the procedure: raise it when a change moves where a relaxation ends.
ENGINE = engine("relax", "1")
SHELL = 1.1  # neighbours within this multiple of an atom's nearest; bcc's second shell is at 1.155
# A cell that changed its shape by more than this is another structure: from bcc to fcc it is 0.41,
# while c/a of a hexagonal or tetragonal metal is rarely off by more than some percent.
OTHER_STRUCTURE = 0.1
TRIMMED = 0.1  # off either end of the sorted errors, for the mean that is shown beside
_VOIGT = ([0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1])
_ALIKE = 1e-12  # errors no further apart differ by rounding
_NAMED = 2  # reasons that a message names
_NOT_SCORED = "not scored by the model"
_Bonds = tuple[np.ndarray, np.ndarray, np.ndarray]  # first atom, second atom, its cell (m, 3)


@dataclass(frozen=True, kw_only=True)
class Relax:
    """From where to where.

    The softest solid of the DFT set, K, has a bulk modulus of 3.6 GPa: 0.005 GPa are 0.14 % of its
    volume, and less elsewhere. A bond of 1 eV/Å² gives way by 0.005 Å to 0.005 eV/Å.
    """

    fmax_ev_per_ang: float = 0.005  # largest component of any force
    smax_gpa: float = 0.005  # largest component of the stress
    max_steps: int = 200
    volume_factor: float = 1.06  # the start is the reference with its volume times this,
    shear: float = 0.01  # sheared at random by so much (rms component of the strain),
    rattle_ang: float = 0.05  # and every coordinate moved at random by so much (rms)
    seed: int = 0  # the same draw for every crystal, whatever others there are

    def __post_init__(self) -> None:
        if not (self.fmax_ev_per_ang > 0 and self.smax_gpa > 0 and self.max_steps >= 0):
            raise ConfigError(
                f"{self}: thresholds must be above 0 and steps not negative; nothing converges else"
            )
        if not (0.5 < self.volume_factor < 2 and self.shear >= 0 and self.rattle_ang >= 0):
            raise ConfigError(
                f"{self}: a start that far from the reference may end in another structure. Use "
                "0.5 < volume_factor < 2 and amplitudes that are not negative."
            )

    def start(self, crystals: Crystals) -> Crystals:
        """The crystals, distorted; a row's distortion depends on nothing but its own atoms."""
        lattices, coords = [], []
        for one in crystals:
            draw = np.random.default_rng(self.seed)
            strain = self.shear * draw.standard_normal((3, 3))
            strain = (strain + strain.T) / 2
            strain -= np.eye(3) * np.trace(strain) / 3
            lattice = one.lattices[0] @ (np.eye(3) + strain)
            wanted = self.volume_factor * one.volumes_ang3[0]
            lattice *= (wanted / abs(np.linalg.det(lattice))) ** (1 / 3)
            moved = self.rattle_ang * draw.standard_normal(one.frac_coords.shape)
            lattices.append(lattice)
            coords.append(one.frac_coords + moved @ np.linalg.inv(lattice))
        columns = crystals.columns()
        return Crystals(
            **{**columns, "lattices": np.stack(lattices), "frac_coords": np.concatenate(coords)}
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Relaxation:
    """Where each crystal ended, atoms in the order they had."""

    crystals: Crystals  # n rows; of a row with a problem the last geometry it had
    steps: np.ndarray  # (n,) int64 steps taken
    problems: dict[int, str]  # row -> why it is not relaxed


def relax(
    model: Model, start: Crystals, config: Relax = Relax(), progress: Progress | None = None
) -> Relaxation:
    """Positions and cells relaxed from ``start``, all crystals in step; deterministic.

    A row is given up when it has had ``max_steps``, when the model cannot score it, or when its
    volume has left half to twice what it was; its problem then says so.

    Args:
        progress: told of every crystal that is done.
    Raises:
        NotAvailable: the model has no forces or no stress.
    """
    import scipy.linalg  # noqa: F401  (threadpoolctl limits only libraries that are loaded)
    from threadpoolctl import threadpool_limits

    # Small cells give small matrices, for ASE as for the model. On two cores that others were using
    # too, two threads took ten times as long as one for the model's share and forty for ASE's.
    with one_thread(), threadpool_limits(1, "blas"):
        return _relax(model, start, config, progress)


def _relax(model: Model, start: Crystals, config: Relax, progress: Progress | None) -> Relaxation:
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.filters import FrechetCellFilter
    from ase.optimize import BFGS

    cells = [start.atoms(row) for row in range(len(start))]
    filtered: list[Any] = [FrechetCellFilter(atoms) for atoms in cells]
    optimisers = [BFGS(atoms, logfile=None) for atoms in filtered]
    steps = np.zeros(len(start), dtype=np.int64)
    problems: dict[int, str] = {}
    active = list(range(len(start)))
    for step in range(config.max_steps + 1):
        now = Crystals.from_ase([cells[row] for row in active], closest_ang=0)  # or it may collapse
        found = model.predict(now, ("energy", "forces", "stress"))
        if found.forces is None or found.stress is None:
            raise NotAvailable(f"{model.identity.name} gives no forces or no stress to relax with")
        still = []
        for i, row in enumerate(active):
            force, stress = found.forces[i], found.stress[i]
            steps[row] = step
            if i in found.problems:
                problems[row] = f"{_NOT_SCORED}: {found.problems[i]}"
            elif not (np.isfinite(force).all() and np.isfinite(stress).all()):
                problems[row] = "forces or stress not finite"
            elif not 0.5 < cells[row].get_volume() / start.volumes_ang3[row] < 2:
                problems[row] = "its volume left half to twice what it started from"
            elif (
                np.abs(force).max() < config.fmax_ev_per_ang
                and np.abs(stress).max() < config.smax_gpa
            ):
                continue
            elif step == config.max_steps:
                problems[row] = f"not converged after {step} steps"
            else:
                cells[row].calc = SinglePointCalculator(
                    cells[row],
                    energy=found.energy[i] * len(cells[row]),
                    forces=force,
                    stress=stress[_VOIGT] / GPA_PER_EV_ANG3,
                )
                optimisers[row].step()  # it takes what the calculator holds, and moves the atoms
                still.append(row)
        if progress is not None:
            progress(len(active) - len(still))
        active = still
        if not active:
            break
    ended = Crystals.from_ase(cells, closest_ang=0)
    return Relaxation(crystals=ended, steps=steps, problems=problems)


def run(
    model: Model,
    reference: Geometries,
    store: PredictionStore,
    config: Relax = Relax(),
    progress: MakeProgress | None = None,
) -> RelaxResult:
    """Distort the reference's crystals, relax them with the model, and set both side by side.

    What was relaxed before, with this model, these settings and this start, is read from the store.
    """
    start = config.start(reference.crystals)

    def compute() -> Mapping[str, np.ndarray]:
        tick = None if progress is None else progress(f"relaxing, {reference.source}", len(start))
        found = relax(model, start, config, tick)
        stated = [found.problems.get(row, "") for row in range(len(start))]
        return {
            **found.crystals.columns(),
            "steps": found.steps,
            "problem": np.array(stated, dtype=np.str_),
        }

    settings = {f"relax.{name}": str(value) for name, value in asdict(config).items()}
    kept = store.arrays(
        model.identity,
        {"relax.engine": ENGINE, **settings, "start": row_digest(start.row_hashes())},
        compute,
    )
    problems = {row: str(why) for row, why in enumerate(kept.pop("problem").tolist()) if why}
    steps = kept.pop("steps")
    return RelaxResult(
        config=config,
        model=model.identity.name,
        inputs={**reference.inputs, model.identity.name: model.identity.weights_sha256},
        reference=reference,
        start=start,
        relaxation=Relaxation(crystals=Crystals(**kept), steps=steps, problems=problems),
        bonds=tuple(_bonds(one) for one in reference.crystals),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class RelaxResult:
    """Relaxed crystals beside the reference's."""

    config: Relax
    model: str
    inputs: dict[str, str]
    reference: Geometries
    start: Crystals
    relaxation: Relaxation
    bonds: tuple[_Bonds, ...]  # n; pairs of nearest neighbours in the reference

    @property
    def rows(self) -> np.ndarray:
        """(k,) int64 rows that relaxed."""
        return np.array(
            [i for i in range(len(self.start)) if i not in self.relaxation.problems], dtype=np.int64
        )

    @property
    def names(self) -> tuple[str, ...]:
        """(k,) of the rows that relaxed; all that follows is of these, in this order."""
        return tuple(self.reference.names[row] for row in self.rows)

    @property
    def volume_ratio(self) -> np.ndarray:
        """(k,) volume over the reference's."""
        ratio = self.relaxation.crystals.volumes_ang3 / self.reference.crystals.volumes_ang3
        return ratio[self.rows]

    @cached_property
    def bond_ratios(self) -> list[np.ndarray]:
        """k of (m,): length over the reference's, of each bond to a nearest neighbour there."""
        ratios = []
        for row in self.rows:
            one, its_own = self.reference.crystals[row], self.relaxation.crystals[row]
            bonds = self.bonds[row]
            ratios.append(_lengths_ang(its_own, *bonds) / _lengths_ang(one, *bonds))
        return ratios

    @property
    def shape_change(self) -> np.ndarray:
        """(k,) largest over smallest stretch from the reference's cell to the relaxed one, less 1.

        0 where the cell only grew or shrank; c/a off by 1 % in a hexagonal cell is 0.01.
        """
        turned = np.linalg.inv(self.reference.crystals.lattices) @ self.relaxation.crystals.lattices
        stretches = np.linalg.svd(turned, compute_uv=False)
        return (stretches[:, 0] / stretches[:, -1] - 1)[self.rows]

    @property
    def in_other_structures(self) -> tuple[str, ...]:
        """Names of crystals whose cell changed its shape so much that it is another structure."""
        changed = zip(self.names, self.shape_change > OTHER_STRUCTURE, strict=True)
        return tuple(name for name, other in changed if other)

    def at_start(self) -> RelaxResult:
        """As if the optimiser had stopped at step 0 and called every crystal relaxed."""
        still = Relaxation(
            crystals=self.start, steps=np.zeros(len(self.start), dtype=np.int64), problems={}
        )
        return replace(self, relaxation=still, model=f"{self.model}, not relaxed")

    def stopped_after(self, n_steps: int) -> RelaxResult:
        """As if no crystal had been given more steps than these.

        Each goes its own way, so that nothing has to be relaxed again.
        """
        steps = self.relaxation.steps
        late = dict.fromkeys(
            np.flatnonzero(steps > n_steps).tolist(), f"not converged after {n_steps} steps"
        )
        stopped = replace(
            self.relaxation,
            steps=np.minimum(steps, n_steps),
            problems={**self.relaxation.problems, **late},
        )
        return replace(self, relaxation=stopped, config=replace(self.config, max_steps=n_steps))

    def against(self, reference: Geometries) -> RelaxResult:
        """The same relaxed crystals beside other lengths of the same crystals."""
        return replace(self, reference=reference)

    def volume_error(self) -> Measurement:
        """Mean absolute relative error of the volume, over crystals."""
        errors = np.abs(self.volume_ratio - 1)
        return self._measured("mean |V/V_ref - 1|", errors)

    def bond_length_error(self) -> Measurement:
        """Mean absolute relative error of bonds to nearest neighbours, over crystals.

        A crystal counts once, with the mean over its bonds.
        """
        errors = np.array([np.abs(ratios - 1).mean() for ratios in self.bond_ratios])
        return self._measured("mean |d/d_ref - 1| of nearest neighbours", errors)

    def converged(self) -> Measurement:
        """Share of crystals that relaxed, of those that the model scores where they start.

        Raises:
            NotAvailable: it scores none.
        """
        problems, steps = self.relaxation.problems, self.relaxation.steps
        excluded = Counter(
            why for row, why in problems.items() if why.startswith(_NOT_SCORED) and steps[row] == 0
        )
        of = len(self.start)
        scored = of - sum(excluded.values())
        if not scored:
            raise NotAvailable(f"{self.model} scores none of {of} crystals: {_in_short(excluded)}")
        return Measurement(
            quantity="share of crystals that relaxed",
            interval=share(len(self.rows), scored, unit="crystals"),
            scored=scored,
            of=of,
            excluded=excluded,
            dataset=self.reference.source,
            model=self.model,
            inputs=self.inputs,
            details={
                "config": asdict(self.config),
                "problems": {self.reference.names[row]: why for row, why in problems.items()},
                "steps_mean": float(steps.mean()),
                "steps_largest": int(steps.max()),
            },
        )

    def _measured(self, quantity: str, errors: np.ndarray) -> Measurement:
        excluded = Counter(self.relaxation.problems.values())
        if not len(errors):
            raise NotAvailable(
                f"none of {len(self.start)} crystals relaxed ({_in_short(excluded)}), so there is "
                "no geometry to compare"
            )
        if np.ptp(errors) < _ALIKE:
            value, n = float(errors[0]), len(errors)
            interval = Interval(
                estimate=value,
                low=value,
                high=value,
                n=n,
                n_clusters=n,
                method="one crystal: about it and no other"
                if n == 1
                else f"{n} crystals, all alike",
            )
        else:
            interval = bootstrap(errors, np.arange(len(errors)), unit="crystals")
        return Measurement(
            quantity=quantity,
            interval=interval,
            scored=len(errors),
            of=len(self.start),
            excluded=excluded,
            dataset=self.reference.source,
            model=self.model,
            inputs=self.inputs,
            details={
                "config": asdict(self.config),
                "crystals": self._table(),
                "n_crystals": len(errors),
                "in_other_structures": list(self.in_other_structures),
                "n_in_other_structures": len(self.in_other_structures),
                **self._beside(errors),
                "notes": list(self.reference.notes),
            },
        )

    def _beside(self, errors: np.ndarray) -> dict[str, Any]:
        """What a mean that one crystal may decide hides: which it is, and what the others say."""
        from scipy.stats import trim_mean

        middle = median(errors, unit="crystals")
        squares = (errors - errors.mean()) ** 2
        kept = ~np.isin(self.names, self.in_other_structures)
        return {
            "median": {
                "estimate": middle.estimate,
                "low": middle.low,
                "high": middle.high,
                "method": middle.method,
            },
            "trimmed_mean": float(trim_mean(errors, TRIMMED)),
            "trimmed_off_either_end": TRIMMED,
            "mean_in_the_same_structure": float(errors[kept].mean()) if kept.any() else None,
            "largest": {
                "crystal": self.names[int(errors.argmax())],
                "error": float(errors.max()),
                "share_of_variance": (
                    float(squares[errors.argmax()] / squares.sum()) if squares.any() else 0.0
                ),
            },
        }

    def _table(self) -> list[dict[str, Any]]:
        columns = zip(
            self.rows.tolist(),
            self.names,
            self.volume_ratio.tolist(),
            self.bond_ratios,
            self.shape_change.tolist(),
            strict=True,
        )
        return [
            {
                "crystal": name,
                "volume_ratio": round(volume, 5),
                "bond_ratio_mean": round(float(bonds.mean()), 5),
                "bond_ratio_lowest": round(float(bonds.min()), 5),
                "bond_ratio_highest": round(float(bonds.max()), 5),
                "shape_change": round(shape, 5),
                "steps": int(self.relaxation.steps[row]),
            }
            for row, name, volume, bonds, shape in columns
        ]


def _in_short(reasons: Counter[str]) -> str:
    """The most common reasons, and how many more there are."""
    named = "; ".join(why for why, _ in reasons.most_common(_NAMED))
    others = len(reasons) - _NAMED
    return f"{named}; and {others} more" if others > 0 else named


def enough_to_show(least: float, level: float = 0.95) -> int:
    """How many crystals, all of them relaxed, show that more than so large a share relaxes."""
    return math.floor(math.log((1 - level) / 2) / math.log(least)) + 1


def _bonds(one: Crystals) -> _Bonds:
    """Pairs within `SHELL` times the distance from the first atom to its nearest neighbour."""
    from ase.neighborlist import neighbor_list

    atoms = one.atoms(0)
    # An atom's own image is a neighbour, so the longest cell vector is far enough for the nearest.
    reach = SHELL * float(atoms.cell.lengths().max())
    cutoff = min(3.0, reach)
    while True:
        first, second, length, shift = neighbor_list("ijdS", atoms, cutoff)
        nearest = np.full(len(atoms), np.inf)
        np.minimum.at(nearest, first, length)
        if (SHELL * nearest <= cutoff).all() or cutoff >= reach:
            break
        cutoff = min(1.5 * cutoff, reach)
    near = length <= SHELL * nearest[first]
    return first[near], second[near], shift[near]


def _lengths_ang(
    one: Crystals, first: np.ndarray, second: np.ndarray, cell: np.ndarray
) -> np.ndarray:
    """(m,) of pairs in a crystal with the same atoms in the same order."""
    apart = one.frac_coords[second] + cell - one.frac_coords[first]
    return np.linalg.norm(apart @ one.lattices[0], axis=1)
