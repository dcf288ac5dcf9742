"""One law put to a subject, and what came of it.

Public in this package: VERSION, Found, run, Scan, scan.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any

import numpy as np

from harness.claims import Measurement
from harness.data.elements import NUMBERS
from harness.data.random_crystals import Layers
from harness.errors import CannotResolve, ConfigError, DataError, NotAvailable
from harness.models.protocol import Model
from harness.statistics import share
from harness.store import MakeProgress, PredictionStore

from .laws import PROCEDURES
from .search import HIDDEN, Allowance, Breach, Outcome, Search, explore, share_of
from .smoothness import scan_grid
from .subject import Subject, declared_elements, digest

VERSION = "2"  # 1 counted crystals met while shrinking among those drawn
DATASET = "random crystals"
USUAL = Search()


@dataclass(frozen=True, kw_only=True)
class Found:
    """By how much one law is broken on the crystals drawn, property by property, and where."""

    procedure: str
    model: str
    weights_sha256: str
    search: Search
    allowed: Mapping[str, Allowance]
    shares: Mapping[str, list[float]]  # property -> breach over what is allowed, one a crystal
    worst: Mapping[str, dict[str, Any]]  # property -> the crystal of the largest, and how it broke
    # Property -> the smallest crystal beyond what is allowed, where one was drawn that is
    minimal: Mapping[str, dict[str, Any]]
    refused: Mapping[str, Mapping[str, int]]  # property -> why -> crystals that were not scored
    # Property -> median over crystals of reported over measured: 1 where units and sign agree.
    ratio: Mapping[str, float] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)  # property -> why it is not offered

    def measurement(self, name: str) -> Measurement:
        """The share of crystals so drawn on which the law is broken beyond what is allowed.

        A law holds for every crystal: one that breaks it is a counterexample. Where the breach has
        a size, the largest over what is allowed is the severity.

        Raises:
            NotAvailable: the subject does not offer the property.
            CannotResolve: differences of energies are too noisy on every crystal.
            DataError: the subject scored no crystal.
        """
        shares, allowed = self._shares(name), self.allowed[name]
        broken, worst = sum(one >= 1 for one in shares), self.worst[name]
        interval = share(broken, len(shares), unit="crystals so drawn")
        return Measurement(
            quantity=f"share of crystals that break {self.procedure} in {name}, beyond {allowed}",
            interval=interval,
            scored=len(shares),
            of=len(shares) + sum(self.refused[name].values()),
            excluded=self.refused[name],
            dataset=DATASET,
            model=self.model,
            inputs={self.model: self.weights_sha256},
            counterexample=_in_words(worst, allowed) if broken else "",
            severity=max(shares) if PROCEDURES[self.procedure].graded else None,
            details={
                "search": asdict(self.search),
                "allowed": asdict(allowed),
                "largest_over_allowed": max(shares),
                "median_over_allowed": float(np.median(shares)),
                "crystals": len(shares),
                "crystals_that_break_it": broken,
                "breach_rate_below": interval.high,
                "worst": worst,
                **({"minimal": self.minimal[name]} if name in self.minimal else {}),
                **({"reported_over_measured": self.ratio[name]} if name in self.ratio else {}),
            },
        )

    def _shares(self, name: str) -> list[float]:
        if name in self.absent:
            raise NotAvailable(f"{self.model} offers no {name}: {self.absent[name]}")
        if name not in self.shares:
            raise ConfigError(f"{self.procedure} is not about {name}: {', '.join(self.shares)}")
        if not self.shares[name] and HIDDEN in self.refused[name]:
            raise CannotResolve(
                f"{self.procedure}: of no crystal drawn can {name} of {self.model} be told: "
                f"{dict(self.refused[name])}. Its energies are too rough or too coarse."
            )
        if not self.shares[name]:
            raise DataError(
                f"{self.procedure}: {self.model} scored none of the crystals: "
                f"{dict(self.refused[name])}. Its element list or its adapter is wrong."
            )
        return list(self.shares[name])


def _in_words(worst: Mapping[str, Any], allowed: Allowance) -> str:
    """One crystal that breaks a law, and by how much."""
    if "layers" in worst:
        where = f"layers of {' and '.join(worst['layers'])} {worst['at_ang']:.4g} Å apart"
    elif "together" in worst:
        where = f"a batch of {', '.join(one['formula'] for one in worst['together'])}"
    else:
        where = worst["formula"]
    if "problem" in worst:
        return f"{where}: {worst['problem']}"
    return (
        f"{where}: {worst['deviation']:.3g} {allowed.unit}, {worst['over_allowed']:.3g} times "
        "what is allowed"
    )


def run(
    procedure: str,
    model: Model,
    store: PredictionStore,
    allowed: Mapping[str, Allowance],
    search: Search = USUAL,
    progress: MakeProgress | None = None,
) -> Found:
    """Draw crystals, and look for those on which one law is broken.

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
    numbers = declared_elements(model)

    def compute() -> dict[str, np.ndarray]:
        tick = None if progress is None else progress(f"physics: {procedure}", search.n_examples)
        subject = Subject(model, optional=law.optional)
        drawn, smallest = explore(
            law.draw(numbers, search),
            lambda case: law.measure(subject, case),
            allowed,
            search,
            tick,
        )
        return {"found": np.array(json.dumps(_summary(drawn, smallest, allowed, subject.absent)))}

    stored = store.arrays(
        model.identity,
        {
            "procedure": f"physics.{procedure} {VERSION}",
            "search": json.dumps(asdict(search), sort_keys=True),
            "allowed": json.dumps({k: asdict(v) for k, v in allowed.items()}, sort_keys=True),
            "elements": digest(numbers),
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


def _summary(
    drawn: Sequence[Outcome],
    smallest: Mapping[str, Outcome],
    allowed: Mapping[str, Allowance],
    absent: Mapping[str, str],
) -> dict[str, Any]:
    """What Found holds, as JSON has it."""
    shares: dict[str, list[float]] = {name: [] for name in allowed}
    refused: dict[str, dict[str, int]] = {name: {} for name in allowed}
    worst: dict[str, dict[str, Any]] = {}
    for name, allowance in allowed.items():
        if name in absent:
            continue
        for case, found in drawn:
            over = None if isinstance(found, str) else share_of(found[name], allowance)
            if isinstance(found, str) or over is None:
                reason = found if isinstance(found, str) else HIDDEN
                refused[name][reason] = refused[name].get(reason, 0) + 1
                continue
            if not shares[name] or over > max(shares[name]):
                worst[name] = _described(case.words, found[name], over)
            shares[name].append(over)
    minimal = {}
    for name, (case, found) in smallest.items():
        assert not isinstance(found, str)  # it was scored: it is beyond what is allowed  # noqa: S101
        over = allowed[name].share(found[name].deviation, found[name].size)
        minimal[name] = _described(case.words, found[name], over)
    return {
        "shares": shares,
        "ratio": {name: ratio for name in allowed if (ratio := _ratio(name, drawn)) is not None},
        "worst": worst,
        "minimal": minimal,
        "refused": refused,
        "absent": {name: why for name, why in absent.items() if name in allowed},
    }


def _ratio(name: str, outcomes: Sequence[Outcome]) -> float | None:
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


def _described(words: Mapping[str, Any], breach: Breach, over: float) -> dict[str, Any]:
    return {
        **words,
        "deviation": breach.deviation,
        "size": breach.size,
        "numerical_error": breach.numerical_error,
        "over_allowed": over,
        **breach.more,
    }


# --- one scan, to be looked at


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
        NotAvailable, CannotResolve, DataError: as Found.measurement.
    """
    found.measurement(name)
    worst = found.worst[name]
    stack = Layers(
        numbers=(NUMBERS[worst["layers"][0]], NUMBERS[worst["layers"][1]]),
        in_plane_ang=worst["in_plane_ang"],
        angle_deg=worst["angle_deg"],
        further_ang=worst["further_ang"],
    )
    grid = scan_grid(stack)
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
