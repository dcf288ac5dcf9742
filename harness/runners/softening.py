"""A subject beside the project's own DFT: equations of state, and forces on displaced atoms.

Public: Softening, Curve, Curves, curves, Displaced, Forces, forces. Energies are compared as
differences along one curve, so neither the reference state of the DFT nor any correction that
depends on composition alone (MP2020's, say) plays a part.

Every crystal has the same weight. Pooled over force components, a crystal counts by the square of
its forces: of seventeen crystals five would decide, the stiff ones, in which potentials are softer
than in others, and no interval of so few reaches its level. Pooled slopes stand in the details,
with the number of crystals that would count as much if all counted alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Generic, Literal, TypeVar

import numpy as np

from harness.claims import Interval, Measurement
from harness.data.crystals import Crystals
from harness.data.dft import (
    DATASET,
    FILE,
    NEAR_EQUILIBRIUM,
    SET_ASIDE,
    BirchMurnaghan,
    DFTSet,
    EquationOfState,
    Rattled,
    birch_murnaghan,
)
from harness.errors import CannotResolve, ConfigError, DataError
from harness.models.protocol import Identity, Model, Prediction
from harness.statistics import (
    Statistic,
    bootstrap,
    geometric_mean,
    mean,
    median,
    ratio_of_ratios,
    ratio_of_sums,
)
from harness.store import MakeProgress, PredictionStore

REFERENCE = "PBE, not spin-polarised, no +U, no energy correction; fixtures/dft/README.md"
Origin = Literal["v0", "minimum"]
Side = Literal["compressed", "expanded"]
Others = Literal["other-amplitudes", "other-directions"]
_ORIGINS = {
    "v0": "the same geometries, energies relative to those at V0",
    "minimum": "energies and volumes relative to each method's own minimum",
}
_SAME_VOLUME = 1e-6  # of V/V0
_FEWEST_POINTS = 5  # that a bulk modulus is fitted to
_TRIMMED = 0.1  # of the crystals at either end, in a trimmed mean

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Softening:
    """Which volumes are near and far, and what one label is fitted on."""

    near: tuple[float, ...] = (0.95, 1.05)  # V/V0
    far: tuple[float, ...] = (0.7, 0.8, 1.3, 1.6)
    # An error near V0 counts as at least this, a tenth of what the DFT set is held to far from V0:
    # a near error of nothing would make any far error large. It can only make a ratio smaller.
    near_floor_ev_per_atom: float = 5e-4
    label_amplitude_ang: float = 0.1
    label_seed: int = 0
    fixed_up_to_ang: float = 0.2  # amplitudes at which one label is to restore the slope

    def __post_init__(self) -> None:
        if not self.near or not self.far or set(self.near) & set(self.far):
            raise ConfigError(f"{self}: near and far need volumes of their own")
        if 1.0 in (*self.near, *self.far) or min(*self.near, *self.far) <= 0:
            raise ConfigError(f"{self}: volumes are fractions of V0, above 0 and not V0 itself")
        if self.near_floor_ev_per_atom < 0 or not (
            0 < self.label_amplitude_ang <= self.fixed_up_to_ang
        ):
            raise ConfigError(
                f"{self}: the floor must not be negative, and the label's amplitude lies above 0 "
                "and not beyond fixed_up_to_ang"
            )


# --- equations of state


@dataclass(frozen=True, kw_only=True, eq=False)
class Curve:
    """Energies of one crystal over volume.

    Twice: of one and the same geometries, each method's relative to its own energy at V0; and each
    method's about its own minimum, where a wrong lattice constant plays no part.
    """

    crystal: str
    prototype: str
    v_over_v0: np.ndarray  # (k,) ascending
    volumes_ang3_per_atom: np.ndarray  # (k,)
    dft_ev_per_atom: np.ndarray  # (k,) zero at V0
    model_ev_per_atom: np.ndarray  # (k,) zero at V0; nan where the subject gave no energy
    problems: Mapping[int, str] = field(default_factory=dict)  # point of the curve -> why
    # (k,) the subject's above its fitted minimum, at volumes as far from that minimum's, by their
    # ratio, as the DFT's volumes are from the DFT minimum's; None where it was not asked
    model_about_minimum_ev_per_atom: np.ndarray | None = None
    problems_about_minimum: Mapping[int, str] = field(default_factory=dict)
    energy_at_v0_ev_per_atom: float = 0.0  # the subject's own, taken off

    def at(self, volumes: Sequence[float]) -> np.ndarray:
        """(m,) positions of the points nearest to these V/V0."""
        return np.array([int(np.argmin(np.abs(self.v_over_v0 - v))) for v in volumes], dtype=int)

    def lacking(self, volumes: Sequence[float]) -> str:
        """What the DFT set lacks at these V/V0, whatever the subject; empty if nothing."""
        absent = [v for v in volumes if np.abs(self.v_over_v0 - v).min() > _SAME_VOLUME]
        return f"the DFT set has no energy at {absent[0]:g} V0" if absent else ""

    def failing(self, volumes: Sequence[float], origin: Origin = "v0") -> str:
        """Why the subject has no energies at these points of the curve; empty if it has."""
        problems = self.problems
        if origin == "minimum":
            if why := self.without_minimum():
                return why
            if self.model_about_minimum_ev_per_atom is None:
                return "the subject was not asked about its own minimum"
            problems = self.problems_about_minimum
        return next((problems[i] for i in self.at(volumes).tolist() if i in problems), "")

    def missing(self, volumes: Sequence[float], origin: Origin = "v0") -> str:
        """Why the curve cannot be used at these V/V0, on either side; empty if it can."""
        return self.lacking(volumes) or self.failing(volumes, origin)

    @cached_property
    def near_volumes(self) -> list[float]:
        """V/V0 of the points a minimum is fitted to."""
        return [v for v in self.v_over_v0.tolist() if abs(v - 1) < NEAR_EQUILIBRIUM]

    @cached_property
    def dft_minimum(self) -> BirchMurnaghan:
        """Of the DFT curve, per atom."""
        return self._minimum(self.dft_ev_per_atom)

    @cached_property
    def model_minimum(self) -> BirchMurnaghan:
        """Of the subject's curve, per atom.

        Raises:
            DataError: it has no single minimum within 10 % of V0.
        """
        return self._minimum(self.model_ev_per_atom)

    def _minimum(self, energies_ev_per_atom: np.ndarray) -> BirchMurnaghan:
        use = self.at(self.near_volumes)
        return birch_murnaghan(self.volumes_ang3_per_atom[use], energies_ev_per_atom[use])

    def without_minimum(self) -> str:
        """Why the subject's curve has no fitted minimum; empty if it has."""
        if why := self.failing(self.near_volumes):
            return why
        try:
            self.model_minimum  # noqa: B018
        except DataError:
            return "the subject has no single minimum within 10 % of V0"
        return ""

    def rises(self, origin: Origin) -> tuple[np.ndarray, np.ndarray]:
        """((k,), (k,)) eV/atom of DFT and subject above their energies at V0 or their minima."""
        if origin == "v0":
            return self.dft_ev_per_atom, self.model_ev_per_atom
        if self.model_about_minimum_ev_per_atom is None:
            raise DataError(f"{self.crystal}: {self.missing([], origin)}; use the origin v0")
        return (
            self.dft_ev_per_atom - self.dft_minimum.e0_ev,
            self.model_about_minimum_ev_per_atom,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Curves:
    """Every crystal with a far volume in the DFT set, or why it has no curve of the subject."""

    config: Softening
    model: str
    subject: str  # the model's name, also where a fault was planted in its predictions
    curves: tuple[Curve, ...]
    dropped: Mapping[str, str]  # crystal -> why the subject has no curve of it
    set_aside: Mapping[str, str]  # crystal -> why nobody was asked about it
    inputs: Mapping[str, str]

    def with_model(self, change: Callable[[Curve], np.ndarray], *, name: str) -> Curves:
        """The same crystals with another subject, made from each curve: (k,) eV/atom, any zero.

        Points that the subject could not be asked at stay so.
        """
        return replace(
            self,
            model=name,
            curves=tuple(
                replace(
                    curve,
                    model_ev_per_atom=changed - changed[curve.at([1.0])[0]],
                    model_about_minimum_ev_per_atom=None,
                    problems_about_minimum={},
                )
                for curve in self.curves
                for changed in [np.asarray(change(curve), np.float64)]
            ),
        )

    def stiffened(self, share: float) -> Curves:
        """With this share of DFT's rise added to the subject's own: its ratio is larger by it."""
        return self.with_model(
            lambda curve: curve.model_ev_per_atom + share * curve.dft_ev_per_atom,
            name=f"{self.model} and {share:+.3g} of DFT's rise",
        )

    def one_per_prototype(self, n: int, origin: Origin = "v0") -> list[Curve]:
        """At most n curves with a number at every volume, counted from ``origin``: the first of
        each structure type, then the next of each."""
        rank: dict[str, int] = {}
        order = []
        for i, curve in enumerate(self.curves):
            if curve.missing((), origin):
                continue
            rank[curve.prototype] = rank.get(curve.prototype, -1) + 1
            order.append((rank[curve.prototype], i))
        return [self.curves[i] for _, i in sorted(order)[:n]]

    def error_ratio(self, origin: Origin) -> Measurement:
        """Mean absolute error of E(V) far from V0 over that near it, of sums over crystals.

        The floor of the configuration is applied to each crystal's error near V0. Beside it stands
        what a subject with one relative error everywhere would score, from the DFT curves alone.
        """
        config = self.config
        volumes = (*config.near, *config.far)
        used = self._sorted(
            lambda curve: curve.lacking(volumes), lambda curve: curve.failing(volumes, origin)
        )
        rows = [self._far_and_near(curve, origin) for curve in used.items]
        far, near, far_rise, near_rise = np.array(rows).T.reshape(4, -1)
        floored = np.maximum(near, config.near_floor_ev_per_atom)
        names = [curve.crystal for curve in used.items]

        def interval(statistic: Statistic, *columns: np.ndarray) -> Interval:
            return _over_crystals(np.stack(columns), names, statistic)

        ratios = far / floored
        return self._measurement(
            "error of E(V) far from V0 over error near it",
            interval(ratio_of_sums, far, floored),
            used,
            {
                "origin": _ORIGINS[origin],
                "near": list(config.near),
                "far": list(config.far),
                "near_floor_mev_per_atom": 1e3 * config.near_floor_ev_per_atom,
                "error_near_mev_per_atom": _round(1e3 * near.mean()),
                "error_far_mev_per_atom": _round(1e3 * far.mean()),
                "null_of_constant_relative_error": _ends(
                    interval(ratio_of_sums, far_rise, near_rise)
                ),
                "ratio_over_null": _ends(
                    interval(ratio_of_ratios, far, floored, far_rise, near_rise)
                ),
                "median": _ends(median(ratios, unit="crystals")),
                "crystals_above_10": int((ratios > 10).sum()),
                "crystals": [
                    {
                        "crystal": name,
                        "near_mev_per_atom": _round(1e3 * near[i]),
                        "far_mev_per_atom": _round(1e3 * far[i]),
                        "ratio": _round(ratios[i]),
                        "null": _round(far_rise[i] / near_rise[i]),
                    }
                    for i, name in enumerate(names)
                ],
            },
        )

    def _far_and_near(self, curve: Curve, origin: Origin) -> list[float]:
        """Mean absolute error far and near, and what DFT itself rises far and near, eV/atom."""
        dft, model = curve.rises(origin)
        sizes = (np.abs(model - dft), np.abs(dft))
        parts = (curve.at(self.config.far), curve.at(self.config.near))
        return [float(size[part].mean()) for size in sizes for part in parts]

    def bulk_modulus_ratio(self) -> Measurement:
        """Bulk modulus at the subject's minimum over DFT's at DFT's, mean over crystals.

        What a crystal that is far too stiff moves less stands beside: the geometric mean, the
        median, and the mean without a tenth of the crystals at either end.
        """

        def few(curve: Curve) -> str:
            enough = len(curve.near_volumes) >= _FEWEST_POINTS
            return "" if enough else "fewer than five points near V0"

        used = self._sorted(few, Curve.without_minimum)
        dft = np.array([curve.dft_minimum.b0_gpa for curve in used.items])
        model = np.array([curve.model_minimum.b0_gpa for curve in used.items])
        volume = [c.model_minimum.v0_ang3 / c.dft_minimum.v0_ang3 for c in used.items]
        names = [curve.crystal for curve in used.items]
        return self._ratios(
            "bulk modulus over DFT's, mean over crystals",
            used,
            model / dft,
            {"b0_gpa": model, "dft_b0_gpa": dft, "minimum_volume_over_dft": np.array(volume)},
            geometric_mean=_ends(_over_crystals(np.log(model / dft), names, geometric_mean)),
            trimmed_mean=_trimmed_mean(model / dft),
        )

    def energy_ratio(self, side: Side) -> Measurement:
        """Rise of the energy from V0 to the far volumes of one side over DFT's, mean over crystals.

        A subject whose minimum lies at another volume than DFT's gains on one side what it loses on
        the other, so the two sides are read together.
        """
        volumes = [v for v in self.config.far if (v < 1) == (side == "compressed")]

        def ratios(used: Sequence[Curve], origin: Origin) -> np.ndarray:
            rises = [[e[c.at(volumes)].sum() for e in c.rises(origin)] for c in used]
            return np.array([model / dft for dft, model in rises])

        used = self._sorted(
            lambda curve: curve.lacking(volumes), lambda curve: curve.failing(volumes)
        )
        about = [curve for curve in used.items if not curve.failing(volumes, "minimum")]
        names = [curve.crystal for curve in about]
        return self._ratios(
            f"rise of the energy from V0 to {' and '.join(f'{v:g}' for v in volumes)} V0 over "
            "DFT's, mean over crystals",
            used,
            ratios(used.items, "v0"),
            {},
            about_own_minimum=None
            if len(about) < 2
            else _ends(_over_crystals(ratios(about, "minimum"), names, mean)),
            by_volume=self.by_volume("v0"),
            by_volume_about_own_minimum=self.by_volume("minimum"),
        )

    def by_volume(self, origin: Origin) -> list[dict[str, Any]]:
        """At each volume: signed error, and far from V0 the rise over DFT's, over crystals."""
        rows = []
        for v in sorted((*self.config.far, *self.config.near)):
            used = [curve for curve in self.curves if not curve.missing([v], origin)]
            if len(used) < 2:
                continue
            pairs = [[e[curve.at([v])[0]] for e in curve.rises(origin)] for curve in used]
            dft, model = np.array(pairs).T
            names = [curve.crystal for curve in used]
            error = _over_crystals(1e3 * (model - dft), names, mean)
            row: dict[str, Any] = {
                "v_over_v0": v,
                "crystals": len(used),
                "model_lower": int((model < dft).sum()),
                "error_mev_per_atom": _round(error.estimate),
                "error_low": _round(error.low),
                "error_high": _round(error.high),
            }
            # Near V0 a DFT minimum a little off V0 leaves hardly any rise to divide by.
            if v in self.config.far:
                ratio = _over_crystals(model / dft, names, mean)
                row |= {
                    "rise_over_dft": _round(ratio.estimate),
                    "rise_low": _round(ratio.low),
                    "rise_high": _round(ratio.high),
                }
            rows.append(row)
        return rows

    def rises_over_dft(self) -> dict[str, list[tuple[float, float]]]:
        """Crystal -> (V/V0, rise of the energy from V0 over DFT's), far volumes ascending."""
        found: dict[str, list[tuple[float, float]]] = {}
        for v in sorted(self.config.far):
            for curve in self.curves:
                if not curve.missing([v]):
                    dft, model = (e[curve.at([v])[0]] for e in curve.rises("v0"))
                    found.setdefault(curve.crystal, []).append((v, float(model / dft)))
        return found

    def _sorted(
        self, lacking: Callable[[Curve], str], failing: Callable[[Curve], str]
    ) -> _Used[Curve]:
        return _sort(
            self.curves,
            lacking,
            failing,
            excluded=list(self.dropped.values()),
            absent=list(self.set_aside.values()),
        )

    def _ratios(
        self,
        quantity: str,
        used: _Used[Curve],
        ratios: np.ndarray,
        more: Mapping[str, np.ndarray],
        **details: object,
    ) -> Measurement:
        names = [curve.crystal for curve in used.items]
        return self._measurement(
            quantity,
            _over_crystals(ratios, names, mean),
            used,
            {
                **_beside_a_mean(ratios, names),
                **details,
                "crystals": [
                    {
                        "crystal": name,
                        "ratio": _round(ratios[i]),
                        **{key: _round(values[i]) for key, values in more.items()},
                    }
                    for i, name in enumerate(names)
                ],
            },
        )

    def _measurement(
        self,
        quantity: str,
        interval: Interval,
        used: _Used[Curve],
        details: Mapping[str, object],
    ) -> Measurement:
        return Measurement(
            quantity=quantity,
            interval=interval,
            scored=len(used.items),
            of=len(self.curves) + len(self.dropped) + len(self.set_aside),
            dataset=DATASET,
            model=self.model,
            subject=self.subject,
            excluded=used.excluded,
            absent=used.absent,
            inputs=self.inputs,
            details={"reference": REFERENCE, **details},
        )


def curves(
    model: Model,
    store: PredictionStore,
    dft: DFTSet,
    config: Softening = Softening(),
    progress: MakeProgress | None = None,
) -> Curves:
    """The subject's energies of every crystal whose DFT curve reaches beyond ±10 % in volume.

    Raises:
        DataError: no crystal does.
    """
    every = [dft.eos(crystal) for crystal in dft.crystals]
    far = [eos for eos in every if (np.abs(eos.v_over_v0 - 1) > NEAR_EQUILIBRIUM).any()]
    set_aside = {eos.crystal: why for eos in far if (why := _not_asked(eos))}
    wanted = [eos for eos in far if eos.crystal not in set_aside]
    if not wanted:
        raise DataError("no equation of state of the DFT set reaches beyond 10 % in volume")
    predicted = _energies(model, store, [eos.crystals for eos in wanted], progress)
    found: list[Curve] = []
    sources: list[EquationOfState] = []
    dropped: dict[str, str] = {}
    for source, (energies, problems) in zip(wanted, predicted, strict=True):
        v0 = _at_v0(source)[0]
        if v0 in problems:
            dropped[source.crystal] = problems[v0]
        else:
            found.append(_curve(source, energies, problems))
            sources.append(source)
    # Once more about the subject's own minima, which are only known now.
    with_minimum = [i for i, curve in enumerate(found) if not curve.without_minimum()]
    scaled = [_about_minimum(sources[i], found[i]) for i in with_minimum]
    again = _energies(model, store, scaled, progress)
    for i, (energies, problems) in zip(with_minimum, again, strict=True):
        curve = found[i]
        zero = float(curve.model_minimum.e0_ev) + curve.energy_at_v0_ev_per_atom
        found[i] = replace(
            curve,
            model_about_minimum_ev_per_atom=energies - zero,
            problems_about_minimum=problems,
        )
    return Curves(
        config=config,
        model=model.identity.name,
        subject=model.identity.name,
        curves=tuple(found),
        dropped=dropped,
        set_aside=set_aside,
        inputs=_inputs(model.identity, dft),
    )


def _energies(
    model: Model,
    store: PredictionStore,
    parts: Sequence[Crystals],
    progress: MakeProgress | None,
) -> list[tuple[np.ndarray, dict[int, str]]]:
    """Energies of each part's rows in eV/atom, and their problems, in one request."""
    if not parts:
        return []
    rows = Crystals.concatenate(parts)
    tick = progress(f"{model.identity.name} equations of state", len(rows)) if progress else None
    predicted = store.energies(model, rows, tick)
    found, start = [], 0
    for part in parts:
        stop = start + len(part)
        problems = {r - start: why for r, why in predicted.problems.items() if start <= r < stop}
        found.append((predicted.energy[start:stop], problems))
        start = stop
    return found


def _at_v0(dft: EquationOfState) -> list[int]:
    """Where the curve has its point at V0; empty if it has none."""
    return np.flatnonzero(np.abs(dft.v_over_v0 - 1) < _SAME_VOLUME).tolist()


def _not_asked(dft: EquationOfState) -> str:
    """Why no subject is asked about this crystal; empty if it is."""
    if dft.crystal in SET_ASIDE:
        return SET_ASIDE[dft.crystal]
    return "" if _at_v0(dft) else "the DFT set has no energy at 1 V0"


def _curve(dft: EquationOfState, energies: np.ndarray, problems: Mapping[int, str]) -> Curve:
    v0 = _at_v0(dft)[0]
    return Curve(
        crystal=dft.crystal,
        prototype=dft.prototype,
        v_over_v0=dft.v_over_v0,
        volumes_ang3_per_atom=dft.volumes_ang3 / dft.n_atoms,
        dft_ev_per_atom=dft.energies_ev_per_atom - dft.energies_ev_per_atom[v0],
        model_ev_per_atom=energies - energies[v0],
        problems=problems,
        energy_at_v0_ev_per_atom=float(energies[v0]),
    )


def _about_minimum(dft: EquationOfState, curve: Curve) -> Crystals:
    """The DFT's cells, scaled by how much larger the subject's minimum is than DFT's."""
    scale = (curve.model_minimum.v0_ang3 / curve.dft_minimum.v0_ang3) ** (1 / 3)
    return Crystals(
        numbers=dft.crystals.numbers,
        frac_coords=dft.crystals.frac_coords,
        lattices=dft.crystals.lattices * scale,
        offsets=dft.crystals.offsets,
    )


# --- forces on displaced atoms


@dataclass(frozen=True, kw_only=True, eq=False)
class Displaced:
    """Displaced cells of one crystal at V0, k configurations of m atoms."""

    crystal: str
    amplitudes_ang: np.ndarray  # (k,) rms over atoms of the length of the displacement
    seeds: np.ndarray  # (k,) one seed is one direction in configuration space
    dft_ev_per_ang: np.ndarray  # (k, m, 3)
    model_ev_per_ang: np.ndarray  # (k, m, 3); nan where the subject gave no forces
    problems: Mapping[int, str] = field(default_factory=dict)  # configuration -> why

    def rows(self, amplitude_ang: float, seed: int | None = None) -> np.ndarray:
        """(j,) configurations of this amplitude, of one seed or of all."""
        found = np.isclose(self.amplitudes_ang, amplitude_ang, rtol=0, atol=1e-6)
        return np.flatnonzero(found if seed is None else found & (self.seeds == seed))

    def problem(self, rows: np.ndarray) -> str:
        """Why these configurations cannot be used; empty if they can."""
        return next((self.problems[row] for row in rows.tolist() if row in self.problems), "")

    def sums(self, rows: np.ndarray) -> tuple[float, float, float]:
        """Sums over components of DFT², DFT times subject, and subject²."""
        dft, model = self.dft_ev_per_ang[rows].ravel(), self.model_ev_per_ang[rows].ravel()
        return float(dft @ dft), float(dft @ model), float(model @ model)

    def slope(self, rows: np.ndarray) -> float:
        """Slope through the origin of the subject's force components against DFT's."""
        xx, xy, _ = self.sums(rows)
        return xy / xx


@dataclass(frozen=True, kw_only=True, eq=False)
class Forces:
    """Every crystal with displaced cells in the DFT set."""

    config: Softening
    model: str
    subject: str  # the model's name, also where a fault was planted in its predictions
    crystals: tuple[Displaced, ...]
    inputs: Mapping[str, str]

    def with_model(self, change: Callable[[Displaced], np.ndarray], *, name: str) -> Forces:
        """The same cells with another subject, made from each crystal: (k, m, 3) eV/Å.

        Cells that the subject gave no forces of stay without.
        """
        return replace(
            self,
            model=name,
            crystals=tuple(
                replace(crystal, model_ev_per_ang=change(crystal)) for crystal in self.crystals
            ),
        )

    def stiffened(self, share: float) -> Forces:
        """With this share of DFT's forces added to the subject's: every slope is larger by it."""
        return self.with_model(
            lambda crystal: crystal.model_ev_per_ang + share * crystal.dft_ev_per_ang,
            name=f"{self.model} and {share:+.3g} of DFT's forces",
        )

    @property
    def amplitudes_ang(self) -> list[float]:
        """Every amplitude of the set, ascending."""
        every = np.concatenate([crystal.amplitudes_ang for crystal in self.crystals])
        return np.unique(every.round(6)).tolist()

    def used(self, amplitude_ang: float) -> _Used[Displaced]:
        """Crystals with forces at this amplitude, and how many are without, by reason."""

        def lacking(crystal: Displaced) -> str:
            there = len(crystal.rows(amplitude_ang)) > 0
            return "" if there else f"the DFT set has no forces at {amplitude_ang:g} Å"

        return _sort(
            self.crystals, lacking, lambda crystal: crystal.problem(crystal.rows(amplitude_ang))
        )

    def components(self, amplitude_ang: float) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """((n,), (n,), n names) eV/Å: DFT's and the subject's force components, and whose."""
        parts = [(c, c.rows(amplitude_ang)) for c in self.used(amplitude_ang).items]
        dft = [crystal.dft_ev_per_ang[rows].ravel() for crystal, rows in parts]
        model = [crystal.model_ev_per_ang[rows].ravel() for crystal, rows in parts]
        names = [
            name
            for (crystal, _), values in zip(parts, dft, strict=True)
            for name in [crystal.crystal] * len(values)
        ]
        return np.concatenate(dft), np.concatenate(model), names

    def slopes(self) -> dict[str, list[tuple[float, float]]]:
        """Crystal -> (amplitude in Å, force slope), ascending."""
        found: dict[str, list[tuple[float, float]]] = {}
        for amplitude in self.amplitudes_ang:
            for crystal in self.used(amplitude).items:
                slope = crystal.slope(crystal.rows(amplitude))
                found.setdefault(crystal.crystal, []).append((amplitude, slope))
        return found

    def slope(self, amplitude_ang: float) -> Measurement:
        """Slope through the origin of a crystal's force components against DFT's, mean of crystals.

        The slope of all components together, in which a crystal counts by the square of its
        forces, stands in the details.
        """
        used = self.used(amplitude_ang)
        rows = [crystal.rows(amplitude_ang) for crystal in used.items]
        sums = np.array([c.sums(r) for c, r in zip(used.items, rows, strict=True)]).T
        names = [crystal.crystal for crystal in used.items]
        each = sums[1] / sums[0]
        # rms of what the slope leaves over the rms of DFT's components
        scatter = np.sqrt(np.maximum(sums[2] / sums[0] - each**2, 0.0))
        n_components = [
            crystal.dft_ev_per_ang[r].size for crystal, r in zip(used.items, rows, strict=True)
        ]
        return self._measurement(
            f"force slope against DFT at {amplitude_ang:g} Å, mean over crystals",
            _over_crystals(each, names, mean),
            used,
            {
                "amplitude_ang": amplitude_ang,
                "force_components": int(sum(n_components)),
                **_beside_a_mean(each, names),
                "pooled_slope": _ends(_over_crystals(sums[1::-1], names, ratio_of_sums)),
                "crystals": [
                    {
                        "crystal": name,
                        "configurations": len(rows[i]),
                        "slope": _round(each[i]),
                        "scatter_over_rms": _round(scatter[i]),
                        "dft_rms_ev_per_ang": _round(np.sqrt(sums[0][i] / n_components[i])),
                    }
                    for i, name in enumerate(names)
                ],
            },
        )

    def one_label_fix(self, others: Others) -> Measurement:
        """Force slope after dividing by the slope on one configuration of the same crystal.

        Mean over crystals, as `slope` is.

        Args:
            others: where the slope is measured afterwards. `other-directions`: configurations of
                other seeds, at the amplitudes up to ``fixed_up_to_ang``. `other-amplitudes`: the
                label's own direction at the other amplitudes up to there, which is the easier.
        Raises:
            CannotResolve: fewer than two crystals have such configurations.
        """
        used = _sort(
            self.crystals,
            lambda crystal: self._without_others(crystal, others),
            lambda crystal: self._without_label(crystal, others),
        )
        crystals = used.items
        names = [crystal.crystal for crystal in crystals]
        label = np.array([c.slope(self.label_of(c)) for c in crystals])
        xx, xy, yy = np.array([c.sums(self._others(c, others)) for c in crystals]).T
        before, after = xy / xx, xy / xx / label
        # Everybody else's label: what one number for all crystals would do for a new one.
        log_label = np.log(label)
        foreign = np.exp((log_label.sum() - log_label) / (len(log_label) - 1))
        n_components = sum(c.dft_ev_per_ang[self._others(c, others)].size for c in crystals)

        def rms_ev_per_ang(scale: np.ndarray) -> float:
            squares = (xx - 2 * xy / scale + yy / scale**2).sum()
            return _round(np.sqrt(max(squares, 0.0) / n_components))

        def pooled(scale: np.ndarray) -> dict[str, object]:
            return _ends(_over_crystals(np.stack([xy / scale, xx]), names, ratio_of_sums))

        return self._measurement(
            "force slope after one label, mean over crystals",
            _over_crystals(after, names, mean),
            used,
            {
                "label": f"{self.config.label_amplitude_ang:g} Å, seed {self.config.label_seed}",
                **_beside_a_mean(after, names),
                "slope_before": _ends(_over_crystals(before, names, mean)),
                "slope_with_the_other_crystals_label": _ends(
                    _over_crystals(before / foreign, names, mean)
                ),
                "pooled_slope_before": pooled(np.ones(len(names))),
                "pooled_slope_after": pooled(label),
                "force_rmse_before_ev_per_ang": rms_ev_per_ang(np.ones(len(names))),
                "force_rmse_after_ev_per_ang": rms_ev_per_ang(label),
                "by_amplitude": [
                    self._after_at(amplitude, crystals, label, others)
                    for amplitude in self.amplitudes_ang
                    if amplitude < self._mended_below_ang
                ],
                "crystals": [
                    {
                        "crystal": name,
                        "label": _round(label[i]),
                        "configurations": len(self._others(crystals[i], others)),
                        "slope_before": _round(before[i]),
                        "slope_after": _round(after[i]),
                    }
                    for i, name in enumerate(names)
                ],
            },
        )

    def _after_at(
        self, amplitude_ang: float, crystals: Sequence[Displaced], label: np.ndarray, others: Others
    ) -> dict[str, object]:
        """Slopes before and after at one amplitude, means over crystals that have cells there."""
        rows = [
            np.intersect1d(self._others(crystal, others), crystal.rows(amplitude_ang))
            for crystal in crystals
        ]
        there = [i for i, mine in enumerate(rows) if len(mine)]
        found: dict[str, object] = {
            "amplitude_ang": amplitude_ang,
            "configurations": sum(map(len, rows)),
            "crystals": len(there),
        }
        if there:
            slope = np.array([crystals[i].slope(rows[i]) for i in there])
            found["slope_before"] = _round(slope.mean())
            found["slope_after"] = _round((slope / label[there]).mean())
        return found

    @property
    def _mended_below_ang(self) -> float:
        """Amplitudes below this are those at which one label is to restore the slope."""
        return self.config.fixed_up_to_ang + 1e-6

    def label_of(self, crystal: Displaced) -> np.ndarray:
        """(j,) the configuration that the label is fitted on; none where the set has none."""
        return crystal.rows(self.config.label_amplitude_ang, self.config.label_seed)

    def _others(self, crystal: Displaced, others: Others) -> np.ndarray:
        same = crystal.seeds == self.config.label_seed
        mine = same if others == "other-amplitudes" else ~same
        rows = np.flatnonzero(mine & (crystal.amplitudes_ang < self._mended_below_ang))
        return np.setdiff1d(rows, self.label_of(crystal))

    def _without_others(self, crystal: Displaced, others: Others) -> str:
        """What the DFT set lacks for this question, whatever the subject; empty if nothing."""
        if len(self.label_of(crystal)) == 0:
            return "the DFT set has no configuration to fit the label on"
        if len(self._others(crystal, others)) == 0:
            return f"the DFT set has no {others.replace('-', ' ')}"
        return ""

    def _without_label(self, crystal: Displaced, others: Others) -> str:
        """Why the subject has no label here, or nothing to use it on; empty if it has both."""
        label = self.label_of(crystal)
        if why := crystal.problem(np.concatenate([label, self._others(crystal, others)])):
            return why
        return "" if crystal.slope(label) > 0 else "the label's slope is not above zero"

    def _measurement(
        self,
        quantity: str,
        interval: Interval,
        used: _Used[Displaced],
        details: Mapping[str, object],
    ) -> Measurement:
        return Measurement(
            quantity=quantity,
            interval=interval,
            scored=len(used.items),
            of=len(self.crystals),
            dataset=DATASET,
            model=self.model,
            subject=self.subject,
            excluded=used.excluded,
            absent=used.absent,
            inputs=self.inputs,
            details={"reference": REFERENCE, **details},
        )


def forces(
    model: Model,
    store: PredictionStore,
    dft: DFTSet,
    config: Softening = Softening(),
    progress: MakeProgress | None = None,
) -> Forces:
    """The subject's forces on every displaced cell of the DFT set.

    Raises:
        DataError: the set has no displaced cells.
        NotAvailable: the subject gives no forces.
    """
    cells = [dft.rattled(crystal) for crystal in dft.rattled_crystals]
    if not cells:
        raise DataError("the DFT set has no displaced cells")
    rows = Crystals.concatenate([cell.crystals for cell in cells])
    tick = progress(f"{model.identity.name} forces", len(rows)) if progress else None
    predicted = store.predict(model, rows, ("energy", "forces"), tick)
    found, start = [], 0
    for cell in cells:
        mine = slice(start, start + len(cell.crystals))
        start = mine.stop
        found.append(_displaced(cell, predicted, mine))
    return Forces(
        config=config,
        model=model.identity.name,
        subject=model.identity.name,
        crystals=tuple(found),
        inputs=_inputs(model.identity, dft),
    )


def _displaced(cell: Rattled, predicted: Prediction, mine: slice) -> Displaced:
    assert predicted.forces is not None  # noqa: S101  # the store refuses a subject without
    return Displaced(
        crystal=cell.crystal,
        amplitudes_ang=cell.amplitudes_ang,
        seeds=cell.seeds,
        dft_ev_per_ang=cell.forces_ev_per_ang,
        model_ev_per_ang=np.stack(predicted.forces[mine]),
        problems={
            row - mine.start: why
            for row, why in predicted.problems.items()
            if mine.start <= row < mine.stop
        },
    )


# --- common to both


@dataclass(frozen=True, kw_only=True)
class _Used(Generic[T]):
    """Crystals that can be used, and how many others went where, reason by reason."""

    items: list[T]
    excluded: dict[str, int]  # the subject was asked and did not answer
    absent: dict[str, int]  # nobody was asked: the DFT set lacks something


def _sort(
    crystals: Sequence[T],
    lacking: Callable[[T], str],
    failing: Callable[[T], str],
    *,
    excluded: Sequence[str] = (),
    absent: Sequence[str] = (),
) -> _Used[T]:
    """Crystals apart by why they cannot be used: what the set lacks, or where the subject fails.

    Args:
        excluded, absent: reasons of crystals that are not among these, one a crystal.
    Raises:
        CannotResolve: fewer than two can be used.
    """
    out, never = list(excluded), list(absent)
    used: list[T] = []
    for crystal in crystals:
        if why := lacking(crystal):
            never.append(why)
        elif why := failing(crystal):
            out.append(why)
        else:
            used.append(crystal)
    if len(used) < 2:
        stated = "; ".join(f"{why}: {n}" for why, n in Counter([*out, *never]).items())
        raise CannotResolve(
            f"{len(used)} crystal(s) of the DFT set can be used and an interval needs two "
            f"({stated or 'there are no others'})"
        )
    return _Used(items=used, excluded=dict(Counter(out)), absent=dict(Counter(never)))


def _over_crystals(columns: np.ndarray, crystals: Sequence[str], statistic: Statistic) -> Interval:
    return bootstrap(columns, np.array(crystals), statistic, unit="crystals")


def _beside_a_mean(values: np.ndarray, crystals: Sequence[str]) -> dict[str, object]:
    """What tells whether a mean over crystals is of all of them: who moves it most, and how far."""
    away = (values - values.mean()) ** 2
    most = int(np.argmax(away))
    return {
        "median": _ends(median(values, unit="crystals")),
        "crystals_below_1": int((values < 1).sum()),
        "most_influential_crystal": crystals[most],
        "its_value": _round(values[most]),
        "its_share_of_the_variance": _round(away[most] / away.sum()) if away.any() else 0.0,
        "mean_without_it": _round(np.delete(values, most).mean()),
    }


def _trimmed_mean(values: np.ndarray) -> dict[str, object]:
    """Mean without a tenth of the values at either end, with Student's t of the winsorised rest.

    Source: J. W. Tukey and D. H. McLaughlin, Sankhya A 25, 331 (1963).
    """
    from scipy.stats import t

    x = np.sort(values)
    n, cut = len(x), int(_TRIMMED * len(x))
    kept = n - 2 * cut
    middle = float(x[cut : n - cut].mean())
    winsorised = np.clip(x, x[cut], x[n - 1 - cut])
    error = float(winsorised.std(ddof=1)) * ((n - 1) / (kept * (kept - 1))) ** 0.5
    half = float(t.ppf(0.975, kept - 1)) * error
    return {
        "estimate": _round(middle),
        "low": _round(middle - half),
        "high": _round(middle + half),
        "left_out_at_either_end": cut,
    }


def _ends(interval: Interval) -> dict[str, object]:
    """An interval for the record, with how many units would count as much if all counted alike."""
    ends: dict[str, object] = {
        "estimate": _round(interval.estimate),
        "low": _round(interval.low),
        "high": _round(interval.high),
    }
    if interval.effective is not None:
        ends["effective"] = _round(interval.effective)
    if interval.unsettled:
        ends["unsettled"] = interval.unsettled
    return ends


def _round(value: float) -> float:
    """Four significant digits, for the record."""
    return float(f"{value:.4g}")


def _inputs(identity: Identity, dft: DFTSet) -> dict[str, str]:
    return {FILE: dft.sha256, identity.name: identity.weights_sha256}
