"""Does a lever do anything? The baseline trained again and again (A/A), the lever once (A/B).

What two trainings of the very same settings differ by is the noise floor. A lever has to leave it
in the predictions, and a probe inside the lever's own code has to have counted: a setting that is
accepted and never passed on leaves both untouched, and comes out as a placeholder.

On a processor A/A is bitwise equal, and the floor is the stated least one. On a GPU sums are added
in whatever order they arrive, and the floor is what the repeats show.

Public: Lever, LeverTest, LeverResult, run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from harness.claims import Interval, Measurement
from harness.errors import ConfigError, DataError
from harness.scores import Scored, require_rows
from harness.statistics import bootstrap

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Config = TypeVar("Config", bound=DataclassInstance)
else:
    Config = TypeVar("Config")


class Trained(Protocol):
    """What a training hands back."""

    @property
    def probes(self) -> Mapping[str, int]:
        """How often the code behind each setting ran."""
        ...

    def scored(self) -> Scored: ...


@dataclass(frozen=True, kw_only=True)
class Lever:
    """One setting changed against a baseline, everything else fixed."""

    name: str
    change: Mapping[str, object]  # fields of the baseline's config and their new values
    probe: str  # the counter that moves only where the lever's code runs


@dataclass(frozen=True, kw_only=True)
class LeverTest:
    """How the floor is found, and what counts as above it."""

    repeats: int = 2  # trainings of the baseline
    margin: float = 3.0  # times the largest A/A difference: the maximum of few is a low guess
    least_floor_ev_per_atom: float = 1e-7  # spacing of float32 energies near 1 eV/atom

    def __post_init__(self) -> None:
        if self.repeats < 2 or self.margin < 1 or not self.least_floor_ev_per_atom > 0:
            raise ConfigError(
                f"{self}: a floor needs two trainings at least, a margin of at least 1 and a "
                "positive least floor"
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class LeverResult:
    """Predictions of the repeated baseline and of the lever, on the same rows."""

    config: LeverTest
    lever: Lever
    baseline: tuple[Scored, ...]  # A, A', ...
    levered: Scored  # B
    probe_in_baseline: int  # counts of the lever's probe
    probe_in_lever: int
    settings: Mapping[str, object] = field(default_factory=dict)  # the baseline's

    @property
    def differences_ev_per_atom(self) -> tuple[float, ...]:
        """Mean |A - A'| of every pair of baselines."""
        return tuple(
            float(np.abs(one.predicted_ev_per_atom - other.predicted_ev_per_atom).mean())
            for one, other in combinations(self.baseline, 2)
        )

    @property
    def floor_ev_per_atom(self) -> float:
        """Mean |B - A| up to here is noise."""
        noise = self.config.margin * max(self.differences_ev_per_atom)
        return max(noise, self.config.least_floor_ev_per_atom)

    def effect(self) -> Measurement:
        """Mean |B - A| over rows, eV/atom; a placeholder where floor or probe say so."""
        first = self.baseline[0]
        change = self.levered.predicted_ev_per_atom - first.predicted_ev_per_atom
        interval = bootstrap(np.abs(change), first.formulas)
        require_rows(interval, first.formulas, self.lever.name)
        gain = self.levered.mae_minus(first).interval
        return Measurement(
            quantity=f"mean change of predictions by {self.lever.name}",
            interval=interval,
            scored=len(first),
            of=first.of,
            dataset=first.dataset,
            model=self.levered.model,
            subject=self.levered.subject,
            excluded=first.excluded,
            absent=first.absent,
            inputs=first.inputs,
            details={
                "lever": dict(self.lever.change),
                "baseline": dict(self.settings),
                "floor_ev_per_atom": self.floor_ev_per_atom,
                "a_a_differences_ev_per_atom": list(self.differences_ev_per_atom),
                "largest_change_ev_per_atom": float(np.abs(change).max()),
                "mae_with_minus_without_ev_per_atom": _ends(gain),
                "mae_without_ev_per_atom": first.mae().interval.estimate,
                "probe": self.lever.probe,
                "probe_in_baseline": self.probe_in_baseline,
                "probe_in_lever": self.probe_in_lever,
            },
            placeholder=self._placeholder(interval),
        )

    def _placeholder(self, interval: Interval) -> str:
        reasons = []
        if self.probe_in_lever == 0:
            reasons.append(f"the lever's code never ran (probe {self.lever.probe!r} counted 0)")
        if interval.estimate <= self.floor_ev_per_atom:
            reasons.append(
                f"predictions moved by {interval.estimate:.1e} eV/atom, within the A/A floor of "
                f"{self.floor_ev_per_atom:.1e}"
            )
        return "; ".join(reasons)


def run(
    train: Callable[[Config], Trained],
    baseline: Config,
    lever: Lever,
    config: LeverTest = LeverTest(),
) -> LeverResult:
    """Train the baseline ``repeats`` times and once with the lever.

    Args:
        train: from settings to a trained subject, scored on the same rows each time. Settings have
            a field `repeat`; trainings that differ in it alone must really be trained anew.
    Raises:
        ConfigError: the lever names no setting, changes none, or its probe counts in the baseline.
        DataError: the trainings were scored on different rows.
    """
    fields: dict[str, Any] = asdict(baseline)
    if unknown := [name for name in (*lever.change, "repeat") if name not in fields]:
        raise ConfigError(
            f"lever {lever.name!r}: the baseline's settings have no {unknown[0]!r}; they are "
            f"{', '.join(fields)}"
        )
    if all(fields[name] == value for name, value in lever.change.items()):
        raise ConfigError(
            f"lever {lever.name!r} sets {dict(lever.change)}, which the baseline has already"
        )
    repeated = [train(replace(baseline, repeat=i)) for i in range(config.repeats)]
    levered = train(replace(baseline, **lever.change))
    counted = repeated[0].probes.get(lever.probe, 0)
    if counted:
        raise ConfigError(
            f"lever {lever.name!r}: its probe {lever.probe!r} counted {counted} in the baseline, "
            "so it cannot tell whether the lever's code ran; name one that only the lever moves"
        )
    scored = [result.scored() for result in repeated]
    changed = levered.scored()
    shared = _shared([*scored, changed])
    return LeverResult(
        config=config,
        lever=lever,
        baseline=tuple(one.on(shared) for one in scored),
        levered=changed.on(shared),
        probe_in_baseline=counted,
        probe_in_lever=levered.probes.get(lever.probe, 0),
        settings=fields,
    )


def _shared(scored: Sequence[Scored]) -> np.ndarray:
    """Ids that all of them scored, in the order of the first."""
    common = set.intersection(*(set(one.ids.tolist()) for one in scored))
    ids = scored[0].ids
    kept = ids[[row in common for row in ids.tolist()]]
    if len(kept) == 0:
        raise DataError("the baseline and the lever were scored on different rows; score the same")
    return kept


def _ends(interval: Interval) -> list[float]:
    return [interval.estimate, interval.low, interval.high]
