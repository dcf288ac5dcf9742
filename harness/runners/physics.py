"""Physics that any potential must obey, put to the subject on crystals that hypothesis draws.

Public: Allowance, Search, PROCEDURES, run, Found, Scan, scan, elements, declarations.

A procedure draws crystals, measures by how much the subject breaks one law on each, and keeps the
largest breach of each property; where that is more than is allowed, hypothesis searches for the
smallest crystal that breaks it too. Search and seed decide everything: the same subject gives the
same numbers.

Free to change: every name with a leading underscore. What changes a number raises VERSION.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.claims import Interval, Measurement
from harness.data.crystals import Crystals
from harness.data.elements import NUMBERS, SYMBOLS
from harness.data.random_crystals import (
    Layers,
    describe,
    elemental_crystals,
    layers,
    random_crystals,
)
from harness.data.random_forms import Forms, moved, reordered, supercells, turned
from harness.data.units import GPA_PER_EV_ANG3
from harness.errors import ConfigError, DataError, NotAvailable
from harness.models.cards import UNDECLARED
from harness.models.protocol import Model
from harness.store import MakeProgress, PredictionStore

if TYPE_CHECKING:
    from hypothesis.strategies import DrawFn, SearchStrategy

VERSION = "1"
PROPERTIES = ("energy", "forces", "stress")
DATASET = "random crystals"

# Central differences at one, two, four and eight steps. Each neighbouring two give a derivative
# free of the third order (Richardson). What separates the three is taken for the numerical error,
# and of the two nearest to one another the finer for the derivative. Steps are small because a
# network can be rough: CHGNet's force on an atom of compressed iodine changes by 0.5 eV/Å within
# 0.006 Å.
STEP_ANG = 0.0015
STRAIN_STEP = 0.0003
_STEPS = (1, 2, 4, 8)

SCAN_ANG = (1.5, 8.0)  # distances over which smoothness is looked at
_SCAN_STEP_ANG = 0.05
_SUSPECTS = 3  # intervals of a scan, for each property, that are looked into
_PIECES = 8  # into which such an interval is cut, again and again
_JUMP_WIDTH_ANG = 2e-5  # until it is this narrow: 10 eV/Å times this is 2e-4 eV, and is taken off


@dataclass(frozen=True, kw_only=True)
class Allowance:
    """What rounding and numerics may move: ``value`` of a quantity whose size is up to ``typical``,
    and in proportion where it is larger."""

    value: float
    typical: float
    unit: str

    def __post_init__(self) -> None:
        if not (self.value > 0 and self.typical > 0):
            raise ConfigError(f"{self}: value and typical size must be above zero")

    def share(self, deviation: float, size: float) -> float:
        """The deviation, over what is allowed at this size."""
        return deviation / (self.value * max(1.0, size / self.typical))

    def __str__(self) -> str:
        return f"{self.value:g} {self.unit}, or {self.value / self.typical:g} of the size"


@dataclass(frozen=True, kw_only=True)
class Search:
    """How hypothesis searches: how many crystals, how large, and how long it may shrink one."""

    n_examples: int = 40
    max_atoms: int = 12
    n_shrinks: int = 60  # crystals tried to make a failing one smaller
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.n_examples, self.max_atoms) < 1 or self.n_shrinks < 0:
            raise ConfigError(f"{self}: examples and atoms must be at least 1, shrinks 0")


@dataclass(frozen=True, kw_only=True)
class Found:
    """The largest breach of one law, property by property, and where it was."""

    procedure: str
    model: str
    weights_sha256: str
    search: Search
    allowed: Mapping[str, Allowance]
    shares: Mapping[str, list[float]]  # property -> breach over what is allowed, one a crystal
    worst: Mapping[str, dict[str, Any]]  # property -> the crystal of the largest, and how it broke
    # Property -> the smallest crystal beyond what is allowed; none where only a crystal met on the
    # way to another property's smallest was beyond it.
    minimal: Mapping[str, dict[str, Any]]
    refused: Mapping[str, Mapping[str, int]]  # property -> why -> crystals that were not scored
    # Property -> median over crystals of reported over measured: 1 where units and sign agree.
    ratio: Mapping[str, float] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)  # property -> why it is not offered

    def measurement(self, name: str) -> Measurement:
        """The largest breach of a property as a share of what is allowed.

        Raises:
            NotAvailable: the subject does not offer the property.
            DataError: no crystal was scored.
        """
        share = max(self._shares(name))
        return self._measurement(
            name,
            f"largest breach of {self.procedure} in {name}, over {self.allowed[name]}",
            share,
        )

    def count(self, name: str) -> Measurement:
        """How many crystals are beyond what is allowed.

        Raises:
            NotAvailable, DataError: as measurement.
        """
        failing = sum(share >= 1 for share in self._shares(name))
        return self._measurement(name, f"crystals that break {self.procedure} in {name}", failing)

    def _shares(self, name: str) -> list[float]:
        if name in self.absent:
            raise NotAvailable(f"{self.model} offers no {name}: {self.absent[name]}")
        if name not in self.shares:
            raise ConfigError(f"{self.procedure} is not about {name}: {', '.join(self.shares)}")
        if not self.shares[name]:
            raise DataError(
                f"{self.procedure}: {self.model} scored none of the crystals: "
                f"{dict(self.refused[name])}. Its element list or its adapter is wrong."
            )
        return list(self.shares[name])

    def _measurement(self, name: str, quantity: str, value: float) -> Measurement:
        shares = self.shares[name]
        return Measurement(
            quantity=quantity,
            interval=Interval.exact(value, n=len(shares)),
            scored=len(shares),
            of=len(shares) + sum(self.refused[name].values()),
            excluded=self.refused[name],
            dataset=DATASET,
            model=self.model,
            inputs={self.model: self.weights_sha256},
            details={
                "search": asdict(self.search),
                "allowed": asdict(self.allowed[name]),
                "median_share": float(np.median(shares)),
                "beyond": int(sum(share >= 1 for share in shares)),
                "worst": self.worst[name],
                **({"minimal": self.minimal[name]} if name in self.minimal else {}),
                **({"reported_over_measured": self.ratio[name]} if name in self.ratio else {}),
            },
        )


def run(
    procedure: str,
    model: Model,
    store: PredictionStore,
    allowed: Mapping[str, Allowance],
    search: Search = Search(),
    progress: MakeProgress | None = None,
) -> Found:
    """Search for the largest breach of one law.

    Args:
        procedure: of PROCEDURES.
        allowed: property -> what counts as none; beyond it hypothesis looks for the smallest
            crystal. Properties a procedure does not know are refused.
    Raises:
        ConfigError: an unknown procedure or property, or a subject that declares no elements.
        NotAvailable: the subject lacks what the procedure cannot do without.
    """
    if procedure not in PROCEDURES:
        raise ConfigError(f"no procedure {procedure!r}; known: {', '.join(PROCEDURES)}")
    law = PROCEDURES[procedure]
    if not allowed or not set(allowed) <= set(law.properties):
        raise ConfigError(
            f"{procedure} is about {', '.join(law.properties)}; allowed names {sorted(allowed)}"
        )
    numbers = _declared_elements(model)

    def compute() -> dict[str, np.ndarray]:
        tick = None if progress is None else progress(f"physics: {procedure}", search.n_examples)
        subject = _Subject(model, optional=law.optional)
        outcomes, minimal = _explore(
            law.draw(numbers, search),
            lambda case: law.measure(subject, case),
            allowed,
            search,
            tick,
        )
        return {"found": np.array(json.dumps(_summary(outcomes, minimal, allowed, subject.absent)))}

    stored = store.arrays(
        model.identity,
        {
            "procedure": f"physics.{procedure} {VERSION}",
            "search": json.dumps(asdict(search), sort_keys=True),
            "allowed": json.dumps({k: asdict(v) for k, v in allowed.items()}, sort_keys=True),
            "elements": _digest(numbers),
            "hypothesis": version("hypothesis"),
        },
        compute,
    )
    return Found(
        procedure=procedure,
        model=model.identity.name,
        weights_sha256=model.identity.weights_sha256,
        search=search,
        allowed=allowed,
        **json.loads(str(stored["found"])),
    )


# --- the search


@dataclass(frozen=True, kw_only=True)
class _Breach:
    """By how much one law is broken on one crystal, in the property's unit."""

    deviation: float
    size: float  # of what was compared
    numerical_error: float = 0.0  # of the measurement itself, an upper estimate
    more: Mapping[str, Any] = field(default_factory=dict)


class _Refused(Exception):
    """The subject did not score the crystal, or not to finite numbers; the message is its own."""


_Case = Any  # what a strategy draws; it has ``key`` (bytes) and ``words`` (JSON-able)
_Outcome = tuple[_Case, Mapping[str, _Breach] | str]  # breaches by property, or why there are none


_LARGEST_ERROR = 0.5  # of what is allowed
_HIDDEN = "the numerical error of the difference is above half of what is allowed"


class _Exceeded(Exception):
    """Tells hypothesis that a case is beyond what is allowed."""


def _explore(
    strategy: SearchStrategy[_Case],
    measure: Callable[[_Case], Mapping[str, _Breach]],
    allowed: Mapping[str, Allowance],
    search: Search,
    tick: Callable[[int], None] | None,
) -> tuple[list[_Outcome], dict[str, _Case]]:
    """Every case hypothesis drew, with its outcome, and by property the smallest beyond the bound.

    The first pass draws; each property that exceeds what is allowed gets a pass of its own, which
    meets the same cases, known by then, up to the first that fails, and shrinks that one.
    """
    known: dict[bytes, _Outcome] = {}
    left = search.n_examples

    def outcome(case: _Case) -> Mapping[str, _Breach] | str:
        nonlocal left
        if case.key not in known:
            try:
                found: Mapping[str, _Breach] | str = measure(case)
            except _Refused as refusal:
                found = str(refusal)
            known[case.key] = (case, found)
            if tick is not None and left:
                tick(1)
                left -= 1
        return known[case.key][1]

    def draw_only(case: _Case) -> bool:
        outcome(case)
        return False

    _drive(strategy, draw_only, search, shrink=False)
    if tick is not None and left:
        tick(left)
        left = 0
    drawn = list(known.values())

    minimal = {}
    for name, allowance in allowed.items():
        if search.n_shrinks and any(_exceeds(found, name, allowance) for _, found in drawn):
            budget = len(known) + search.n_shrinks

            def fails(
                case: _Case,
                name: str = name,
                allowance: Allowance = allowance,
                budget: int = budget,
            ) -> bool:
                # Past the budget what is new counts as passing, so that shrinking ends; what is
                # known keeps its outcome, so that hypothesis finds its smallest case again.
                if case.key not in known and len(known) >= budget:
                    return False
                return _exceeds(outcome(case), name, allowance)

            minimal[name] = _drive(strategy, fails, search, shrink=True)
    return list(known.values()), minimal


def _drive(
    strategy: SearchStrategy[_Case],
    fails: Callable[[_Case], bool],
    search: Search,
    *,
    shrink: bool,
) -> _Case | None:
    """The smallest failing case hypothesis finds, or None. Deterministic: no clock, no database."""
    from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings

    last: list[_Case] = []

    @seed(search.seed)
    @settings(
        max_examples=search.n_examples,
        phases=(Phase.generate, Phase.shrink) if shrink else (Phase.generate,),
        derandomize=True,
        database=None,
        deadline=None,
        print_blob=False,
        report_multiple_bugs=False,
        verbosity=Verbosity.quiet,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def visit(case: _Case) -> None:
        if fails(case):
            last[:] = [case]
            raise _Exceeded

    try:
        visit()
    except _Exceeded:
        return last[0]
    return None


def _share(breach: _Breach, allowance: Allowance) -> float | None:
    """The breach over what is allowed; None if its numerical error leaves that open."""
    error = allowance.share(breach.numerical_error, breach.size)
    share = allowance.share(breach.deviation, breach.size)
    return share if error <= _LARGEST_ERROR or share - error >= 1 else None


def _exceeds(found: Mapping[str, _Breach] | str, name: str, allowance: Allowance) -> bool:
    if isinstance(found, str) or name not in found:
        return False
    share = _share(found[name], allowance)
    return share is not None and share >= 1


def _summary(
    outcomes: Sequence[_Outcome],
    minimal: Mapping[str, _Case],
    allowed: Mapping[str, Allowance],
    absent: Mapping[str, str],
) -> dict[str, Any]:
    """What Found holds, as JSON has it."""
    shares: dict[str, list[float]] = {name: [] for name in allowed}
    refused: dict[str, dict[str, int]] = {name: {} for name in allowed}
    worst: dict[str, dict[str, Any]] = {}
    smallest: dict[str, dict[str, Any]] = {}
    for name, allowance in allowed.items():
        if name in absent:
            continue
        for case, found in outcomes:
            share = None if isinstance(found, str) else _share(found[name], allowance)
            if isinstance(found, str) or share is None:
                reason = found if isinstance(found, str) else _HIDDEN
                refused[name][reason] = refused[name].get(reason, 0) + 1
                continue
            words = {**case.words, **_numbers(found[name], share)}
            if not shares[name] or share > max(shares[name]):
                worst[name] = words
            if name in minimal and minimal[name].key == case.key:
                smallest[name] = words
            shares[name].append(share)
    return {
        "shares": shares,
        "ratio": {name: ratio for name in allowed if (ratio := _ratio(name, outcomes)) is not None},
        "worst": worst,
        "minimal": smallest,
        "refused": refused,
        "absent": {name: why for name, why in absent.items() if name in allowed},
    }


def _ratio(name: str, outcomes: Sequence[_Outcome]) -> float | None:
    """Median of reported over measured, of crystals where the measured is no rounding."""
    ratios = []
    for _, found in outcomes:
        if isinstance(found, str) or name not in found or "by_differences" not in found[name].more:
            continue
        reported = np.array(found[name].more["reported"])
        measured = np.array(found[name].more["by_differences"])
        if np.linalg.norm(measured) > 20 * found[name].numerical_error > 0:
            ratios.append(float(reported @ measured / (measured @ measured)))
    return float(np.median(ratios)) if ratios else None


def _numbers(breach: _Breach, share: float) -> dict[str, Any]:
    return {
        "deviation": breach.deviation,
        "size": breach.size,
        "numerical_error": breach.numerical_error,
        "over_allowed": share,
        **breach.more,
    }


# --- the subject


@dataclass(frozen=True, kw_only=True)
class _Outputs:
    """What the subject says of one crystal."""

    energy: float  # eV/atom
    forces: np.ndarray | None  # (n_atoms, 3) eV/Å
    stress: np.ndarray | None  # (3, 3) GPa, tension positive


class _Subject:
    """The model, asked for what it offers; a crystal it does not score is refused."""

    def __init__(self, model: Model, *, optional: Sequence[str]) -> None:
        self._model = model
        self._optional = tuple(optional)
        self._offered: tuple[str, ...] | None = None
        self.absent: dict[str, str] = {}  # property -> the model's words

    def all(self, crystals: Crystals) -> list[_Outputs]:
        """Everything that is offered of every row, in one call."""
        if self._offered is None:
            self._offered = tuple(self._probe(crystals[0]))
        return self._ask(crystals, self._offered)

    def forces(self, crystals: Crystals) -> list[_Outputs]:
        return self._ask(crystals, ("forces",))

    def stress(self, crystals: Crystals) -> list[_Outputs]:
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

    def _ask(self, crystals: Crystals, wanted: tuple[str, ...]) -> list[_Outputs]:
        prediction = self._model.predict(crystals, ("energy", *wanted))
        for problem in prediction.problems.values():
            raise _Refused(problem)
        for name in wanted:
            given = getattr(prediction, name)
            if given is None:
                raise DataError(
                    f"{self._model.identity.name} was asked for {name} and gave none; an adapter "
                    "that cannot raises NotAvailable"
                )
            if not all(np.isfinite(row).all() for row in given):
                raise _Refused(f"{name} of a scored crystal are not finite")
        return [
            _Outputs(
                energy=float(energy),
                forces=None if prediction.forces is None else prediction.forces[row],
                stress=None if prediction.stress is None else prediction.stress[row],
            )
            for row, energy in enumerate(prediction.energy)
        ]


def _declared_elements(model: Model) -> list[int]:
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


def _digest(numbers: Sequence[int]) -> str:
    return hashlib.sha256(json.dumps(list(numbers)).encode()).hexdigest()


# --- invariances: one crystal in two forms


def _compare_forms(subject: _Subject, forms: Forms) -> dict[str, _Breach]:
    one, other = subject.all(Crystals.concatenate([forms.one, forms.other]))
    return _compare(one, other, forms.atom_of, forms.turn)


def _compare(
    one: _Outputs, other: _Outputs, atom_of: np.ndarray, turn: np.ndarray
) -> dict[str, _Breach]:
    found = {"energy": _Breach(deviation=abs(other.energy - one.energy), size=abs(one.energy))}
    if one.forces is not None and other.forces is not None:
        expected = one.forces[atom_of] @ turn.T
        found["forces"] = _Breach(
            deviation=_longest(other.forces - expected), size=_longest(one.forces)
        )
    if one.stress is not None and other.stress is not None:
        expected = turn @ one.stress @ turn.T
        found["stress"] = _Breach(
            deviation=float(np.abs(other.stress - expected).max()),
            size=float(np.abs(one.stress).max()),
        )
    return found


def _longest(vectors: np.ndarray) -> float:
    return float(np.linalg.norm(vectors, axis=-1).max())


@dataclass(frozen=True, kw_only=True, eq=False)
class _Several:
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


def _together(elements: Sequence[int], search: Search) -> SearchStrategy[_Several]:
    from hypothesis import strategies as st

    crystal = random_crystals(elements, max_atoms=search.max_atoms)
    several = st.lists(crystal, min_size=2, max_size=6)
    return several.map(lambda rows: _Several(crystals=Crystals.concatenate(rows)))


def _compare_alone(subject: _Subject, case: _Several) -> dict[str, _Breach]:
    """The largest breach over the crystals of a batch, each against itself alone."""
    found: dict[str, list[_Breach]] = {}
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


def _compare_forces(subject: _Subject, site: _Site) -> dict[str, _Breach]:
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
        "forces": _Breach(
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


def _compare_stress(subject: _Subject, case: _Several) -> dict[str, _Breach]:
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
        "stress": _Breach(
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
    subject: _Subject, moved: Callable[[int, float], Crystals], n: int, step: float
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


def _singles(elements: Sequence[int], search: Search) -> SearchStrategy[_Several]:
    return random_crystals(elements, max_atoms=search.max_atoms).map(
        lambda crystal: _Several(crystals=crystal)
    )


# --- smoothness: does anything jump while layers come apart?


@dataclass(frozen=True, kw_only=True, eq=False)
class _Stack:
    layers: Layers

    @property
    def key(self) -> bytes:
        return repr(self.layers).encode()

    @property
    def words(self) -> dict[str, Any]:
        return {
            "layers": [SYMBOLS[z - 1] for z in self.layers.numbers],
            "in_plane_ang": self.layers.in_plane_ang,
            "angle_deg": self.layers.angle_deg,
            "further_ang": self.layers.further_ang,
        }


def _stacks(elements: Sequence[int], search: Search) -> SearchStrategy[_Stack]:
    return layers(elements).map(lambda drawn: _Stack(layers=drawn))


def _find_jumps(subject: _Subject, stack: _Stack) -> dict[str, _Breach]:
    """The largest jump of energy and of forces as the distance between layers grows.

    Where a value differs most from what its neighbours on a grid lead one to expect, the interval
    is cut into pieces, the most conspicuous of which is cut again, until a smooth function would
    hardly change over it. What is left of a change is a jump.
    """
    grid = _scan_grid(stack.layers)
    values = _along(subject, stack, grid)
    ends = [
        (name, grid[i], grid[i + 1]) for name, column in values.items() for i in _suspects(column)
    ]
    found: dict[str, _Breach] = {}
    while True:
        cuts = np.array([np.linspace(a, b, _PIECES + 1) for _, a, b in ends])
        columns = _along(subject, stack, cuts.ravel())
        narrow = float(np.ptp(cuts[0])) / _PIECES < _JUMP_WIDTH_ANG
        nearer = []
        for i, (name, _, _) in enumerate(ends):
            here = columns[name].reshape(*cuts.shape, -1)[i]
            piece, jump = _most_conspicuous(here)
            nearer.append((name, cuts[i, piece], cuts[i, piece + 1]))
            if narrow and (name not in found or jump > found[name].deviation):
                found[name] = _Breach(
                    deviation=jump,
                    size=float(np.abs(here).max()),
                    more={"at_ang": float(cuts[i, piece : piece + 2].mean())},
                )
        if narrow:
            return found
        ends = nearer


def _along(subject: _Subject, stack: _Stack, distances_ang: np.ndarray) -> dict[str, np.ndarray]:
    """Per property the (n, k) numbers at n distances: eV/atom, eV/Å."""
    outputs = subject.all(stack.layers.at(distances_ang))
    values = {"energy": np.array([[row.energy] for row in outputs])}
    if outputs[0].forces is not None:
        values["forces"] = np.array([row.forces for row in outputs]).reshape(len(outputs), -1)
    return values


def _suspects(values: np.ndarray) -> list[int]:
    """Intervals of a grid in which the change stands out from those beside it, worst first."""
    change = np.diff(values, axis=0)
    expected = (4 * (change[1:-3] + change[3:-1]) - (change[:-4] + change[4:])) / 6
    odd = np.abs(change[2:-2] - expected).max(axis=1)  # of interval i + 2
    window = 8
    padded = np.pad(odd, window, mode="reflect")
    usual = np.median(np.lib.stride_tricks.sliding_window_view(padded, 2 * window + 1), axis=1)
    order = np.argsort(-odd / (usual + 1e-6 * max(1.0, float(np.abs(values).max()))))
    chosen: list[int] = []
    for i in order.tolist():
        if all(abs(i - other) > 2 for other in chosen):  # a jump shows in the intervals beside it
            chosen.append(i)
        if len(chosen) == _SUSPECTS:
            break
    return [i + 2 for i in chosen]


def _most_conspicuous(values: np.ndarray) -> tuple[int, float]:
    """Which piece changes unlike the others, and by how much more than the usual piece.

    Args:
        values: (pieces + 1, k) at the cuts.
    """
    change = np.diff(values, axis=0)
    n = len(change)
    basis = np.vander(np.linspace(-1, 1, n), 3)
    hat = basis @ np.linalg.pinv(basis)
    # Against a parabola through the other pieces: a steep, curved stretch must not look odd.
    unlike = np.abs((change - hat @ change) / (1 - np.diag(hat))[:, None]).max(axis=1)
    piece = int(np.argmax(unlike * np.sqrt(1 - np.diag(hat))))
    return piece, float(np.abs(change[piece] - np.median(change, axis=0)).max())


@dataclass(frozen=True, kw_only=True, eq=False)
class Scan:
    """Energy and force while two layers come apart, and where the largest jump was found."""

    layers: str
    distances_ang: np.ndarray  # (n,)
    energies_ev_per_atom: np.ndarray  # (n,)
    forces_ev_per_ang: np.ndarray | None  # (n,) on the first layer's atom, towards the other
    jump_at_ang: float
    jump: float  # eV/atom, or eV/Å of a force


def scan(model: Model, store: PredictionStore, found: Found, name: str) -> Scan:
    """The stack of layers in which a property jumps most, from end to end.

    Raises:
        NotAvailable, DataError: as Found.measurement.
    """
    found.measurement(name)
    worst = found.worst[name]
    stack = Layers(
        numbers=(NUMBERS[worst["layers"][0]], NUMBERS[worst["layers"][1]]),
        in_plane_ang=worst["in_plane_ang"],
        angle_deg=worst["angle_deg"],
        further_ang=worst["further_ang"],
    )
    grid = _scan_grid(stack)
    offered = ("energy",) if "forces" in found.absent else ("energy", "forces")
    prediction = store.predict(model, stack.at(grid), offered)
    forces = prediction.forces
    return Scan(
        layers=" and ".join(worst["layers"]),
        distances_ang=grid,
        energies_ev_per_atom=prediction.energy,
        forces_ev_per_ang=None if forces is None else np.array([row[0, 2] for row in forces]),
        jump_at_ang=worst["at_ang"],
        jump=worst["deviation"],
    )


def _scan_grid(stack: Layers) -> np.ndarray:
    low = max(SCAN_ANG[0], stack.closest_ang)
    return np.linspace(low, SCAN_ANG[1], round((SCAN_ANG[1] - low) / _SCAN_STEP_ANG) + 1)


# --- finiteness


def _is_finite(subject: _Subject, case: _Several) -> dict[str, _Breach]:
    """One where the subject does not score a crystal of elements it claims, zero where it does."""
    try:
        subject.all(case.crystals)
    except _Refused as refusal:
        return {"outputs": _Breach(deviation=1.0, size=0.0, more={"problem": str(refusal)})}
    return {"outputs": _Breach(deviation=0.0, size=0.0)}


def elements(
    model: Model, store: PredictionStore, progress: MakeProgress | None = None
) -> Measurement:
    """How many of the elements the subject claims have a crystal without finite outputs.

    One crystal of every element; energies, and forces and stress where the subject offers them.
    A stated problem counts like a number that is not finite: the subject claims the element.
    """
    numbers = _declared_elements(model)

    def compute() -> dict[str, np.ndarray]:
        z, crystals, sources = elemental_crystals(numbers)
        tick = None if progress is None else progress("physics: elements", len(crystals))
        subject = _Subject(model, optional=("forces", "stress"))
        problems: dict[str, str] = {}
        for number, row in zip(z.tolist(), crystals, strict=True):
            try:
                subject.all(row)
            except _Refused as refusal:
                problems[SYMBOLS[number - 1]] = str(refusal)
            if tick is not None:
                tick(1)
        found = {
            "problems": problems,
            "absent": subject.absent,
            "without_a_real_crystal": [
                SYMBOLS[number - 1]
                for number, source in zip(z.tolist(), sources, strict=True)
                if source != "fixtures"
            ],
        }
        return {"found": np.array(json.dumps(found))}

    key = {"procedure": f"physics.elements {VERSION}", "elements": _digest(numbers)}
    found = json.loads(str(store.arrays(model.identity, key, compute)["found"]))
    return Measurement(
        quantity="elements whose crystal has no finite energy, forces or stress",
        interval=Interval.exact(len(found["problems"]), n=len(numbers)),
        scored=len(numbers),
        of=len(numbers),
        dataset="elemental crystals",
        model=model.identity.name,
        inputs={model.identity.name: model.identity.weights_sha256},
        details=found,
    )


# --- declarations

# What a factor between the reported and the measured says.
_FACTORS = {
    "the sign is reversed": -1.0,
    "eV/Å³ instead of GPa": 1 / GPA_PER_EV_ANG3,
    "eV/Å³ instead of GPa, and the sign is reversed": -1 / GPA_PER_EV_ANG3,
    "kbar instead of GPa": 10.0,
    "kbar instead of GPa, and the sign is reversed": -10.0,
    "hartree/bohr instead of eV/Å": 0.529177210903 / 27.211386245988,
}
_CLOSE = 0.02  # of a factor: medians of many crystals agree far better


def declarations(
    model: Model, store: PredictionStore, derivatives: Sequence[Found], said: Sequence[str]
) -> Measurement:
    """How much of what a user has to know of a subject it leaves out, or says wrongly.

    Args:
        derivatives: what `run` found for "forces" and "stress", by which units and signs are
            compared with what the protocol says; a property that is not offered is left out.
        said: fields of the subject's card that must say something.
    """
    card = model.card
    wrong = {name: UNDECLARED for name in said if getattr(card, name) in ("", UNDECLARED)}
    if card.elements is None:
        wrong["elements"] = UNDECLARED
    known = sorted(card.elements or ())
    unknown = sorted(set(range(1, len(SYMBOLS) + 1)) - set(known))[:1] if known else []
    for z in unknown:
        _, crystal, _ = elemental_crystals([z])
        if not model.predict(crystal).problems:
            wrong["elements"] = f"{SYMBOLS[z - 1]} is not declared, and is given an energy"
    offers = card.properties if known else ()
    for name in offers:
        _, crystal, _ = elemental_crystals(known[:1])
        try:
            if getattr(model.predict(crystal, ("energy", name)), name) is None:
                wrong[name] = "the card offers it, and it is not given"
        except NotAvailable as error:
            wrong[name] = f"the card offers it: {error}"
    factors: dict[str, float] = {}
    for found in derivatives:
        for name, factor in found.ratio.items():
            factors[name] = factor
            if abs(factor - 1) > _CLOSE:
                wrong[f"unit of {name}"] = _explain(factor)
    n = len(said) + 1 + len(unknown) + len(offers) + len(factors)
    return Measurement(
        quantity="declarations that are missing, or contradicted by what the subject does",
        interval=Interval.exact(len(wrong), n=n),
        scored=n,
        of=n,
        dataset="declarations",
        model=model.identity.name,
        inputs={model.identity.name: model.identity.weights_sha256},
        details={
            "wrong": wrong,
            "card": card.lines(),
            "reported_over_measured": factors,
        },
    )


def _explain(factor: float) -> str:
    for words, known in _FACTORS.items():
        if abs(factor / known - 1) < _CLOSE:
            return f"{factor:.4g} times what energies say: {words}"
    return f"{factor:.4g} times what energies say"


# --- what can be asked


@dataclass(frozen=True, kw_only=True)
class _Law:
    properties: tuple[str, ...]
    draw: Callable[[Sequence[int], Search], SearchStrategy[_Case]]
    measure: Callable[[_Subject, Any], Mapping[str, _Breach]]
    optional: tuple[str, ...] = ()  # asked for where the subject offers them


def _forms(strategy: Callable[..., SearchStrategy[Forms]]) -> Callable[..., SearchStrategy[Forms]]:
    return lambda elements, search: strategy(elements, max_atoms=search.max_atoms)


_OPTIONAL = ("forces", "stress")

PROCEDURES: Mapping[str, _Law] = {
    "extensivity": _Law(
        properties=PROPERTIES, draw=_forms(supercells), measure=_compare_forms, optional=_OPTIONAL
    ),
    "translation": _Law(
        properties=PROPERTIES, draw=_forms(moved), measure=_compare_forms, optional=_OPTIONAL
    ),
    "rotation": _Law(
        properties=PROPERTIES, draw=_forms(turned), measure=_compare_forms, optional=_OPTIONAL
    ),
    "permutation": _Law(
        properties=PROPERTIES, draw=_forms(reordered), measure=_compare_forms, optional=_OPTIONAL
    ),
    "batching": _Law(
        properties=PROPERTIES, draw=_together, measure=_compare_alone, optional=_OPTIONAL
    ),
    "forces": _Law(properties=("forces",), draw=_sites, measure=_compare_forces),
    "stress": _Law(properties=("stress",), draw=_singles, measure=_compare_stress),
    "smoothness": _Law(
        properties=("energy", "forces"), draw=_stacks, measure=_find_jumps, optional=("forces",)
    ),
    "finiteness": _Law(
        properties=("outputs",), draw=_singles, measure=_is_finite, optional=_OPTIONAL
    ),
}
