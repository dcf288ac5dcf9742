"""A subject beside the project's own DFT: equations of state, and forces on displaced atoms.

Public: Softening, Curve, Curves, curves, Displaced, Forces, forces. Energies are compared as
differences along one curve, so neither the reference state of the DFT nor any correction that
depends on composition alone (MP2020's, say) plays a part.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

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
from harness.errors import ConfigError, DataError, NotAvailable
from harness.models.protocol import Identity, Model, Prediction
from harness.statistics import bootstrap, geometric_mean, mean, ratio_of_sums
from harness.store import MakeProgress, PredictionStore

REFERENCE = "PBE, not spin-polarised, no +U, no energy correction; fixtures/dft/README.md"
Origin = Literal["v0", "minimum"]
Side = Literal["compressed", "expanded"]
Others = Literal["other-amplitudes", "other-directions"]
_ORIGINS = {
    "v0": "the same geometries, energies relative to those at V0",
    "minimum": "energies and volumes relative to each method's own minimum",
}


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
    problems: Mapping[float, str] = field(default_factory=dict)  # V/V0 -> why
    # (k,) the subject's above its fitted minimum, at volumes as far from that minimum's, by their
    # ratio, as the DFT's volumes are from the DFT minimum's; None where it was not asked
    model_about_minimum_ev_per_atom: np.ndarray | None = None
    problems_about_minimum: Mapping[float, str] = field(default_factory=dict)
    energy_at_v0_ev_per_atom: float = 0.0  # the subject's own, taken off

    def at(self, volumes: Sequence[float]) -> np.ndarray:
        """(m,) positions of these V/V0 in the curve."""
        return np.array([int(np.argmin(np.abs(self.v_over_v0 - v))) for v in volumes])

    def missing(self, volumes: Sequence[float], origin: Origin = "v0") -> str:
        """Why the curve cannot be used at these V/V0; empty if it can."""
        absent = [v for v in volumes if np.abs(self.v_over_v0 - v).min() > 1e-6]
        if absent:
            return f"the DFT set has no energy at {absent[0]:g} V0"
        problems = self.problems
        if origin == "minimum":
            if why := self.without_minimum():
                return why
            if self.model_about_minimum_ev_per_atom is None:
                return "the subject was not asked about its own minimum"
            problems = self.problems_about_minimum
        return next((problems[v] for v in volumes if v in problems), "")

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
        if why := self.missing(self.near_volumes):
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
    curves: tuple[Curve, ...]
    dropped: Mapping[str, str]  # crystal -> why
    inputs: Mapping[str, str]

    def with_model(self, change: Callable[[Curve], np.ndarray], *, name: str) -> Curves:
        """The same crystals with another subject, made from each curve: (k,) eV/atom, any zero."""
        return replace(
            self,
            model=name,
            curves=tuple(
                replace(
                    curve,
                    model_ev_per_atom=changed - changed[curve.at([1.0])[0]],
                    problems={},
                    model_about_minimum_ev_per_atom=None,
                )
                for curve in self.curves
                for changed in [np.asarray(change(curve), np.float64)]
            ),
        )

    def one_per_prototype(self, n: int) -> list[Curve]:
        """At most n curves to show: the first of each structure type, then the next of each."""
        rank: dict[str, int] = {}
        order = []
        for i, curve in enumerate(self.curves):
            rank[curve.prototype] = rank.get(curve.prototype, -1) + 1
            order.append((rank[curve.prototype], i))
        return [self.curves[i] for _, i in sorted(order)[:n]]

    def error_ratio(self, origin: Origin) -> Measurement:
        """Mean absolute error of E(V) far from V0 over that near it, pooled over crystals.

        The floor of the configuration is applied to each crystal's error near V0. Beside it stands
        what a subject with one relative error everywhere would score, from the DFT curves alone.
        """
        config = self.config
        volumes = (*config.near, *config.far)
        used, excluded = self._sorted(lambda curve: curve.missing(volumes, origin))
        rows = [self._far_and_near(curve, origin) for curve in used]
        far, near, far_rise, near_rise = np.array(rows).T.reshape(4, -1)
        floored = np.maximum(near, config.near_floor_ev_per_atom)
        columns = np.stack([floored, far, near_rise, far_rise])
        names = [curve.crystal for curve in used]

        def interval(statistic: Callable[[np.ndarray], np.ndarray]) -> Interval:
            return _over_crystals(columns, names, statistic)

        null = interval(lambda sums: sums[4] / sums[3])
        over_null = interval(lambda sums: (sums[2] / sums[1]) / (sums[4] / sums[3]))
        ratios = far / floored
        return self._measurement(
            "error of E(V) far from V0 over error near it",
            interval(lambda sums: sums[2] / sums[1]),
            len(used),
            excluded,
            {
                "origin": _ORIGINS[origin],
                "near": list(config.near),
                "far": list(config.far),
                "near_floor_mev_per_atom": 1e3 * config.near_floor_ev_per_atom,
                "error_near_mev_per_atom": _round(1e3 * near.mean()),
                "error_far_mev_per_atom": _round(1e3 * far.mean()),
                "null_of_constant_relative_error": _ends(null),
                "ratio_over_null": _ends(over_null),
                "median_of_crystals": _round(np.median(ratios)),
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
        """Bulk modulus at the subject's minimum over DFT's at DFT's, mean over crystals."""

        def unusable(curve: Curve) -> str:
            few = len(curve.near_volumes) < 5
            return "fewer than five points near V0" if few else curve.without_minimum()

        used, excluded = self._sorted(unusable)
        dft = np.array([curve.dft_minimum.b0_gpa for curve in used])
        model = np.array([curve.model_minimum.b0_gpa for curve in used])
        volume = [c.model_minimum.v0_ang3 / c.dft_minimum.v0_ang3 for c in used]
        return self._ratios(
            "bulk modulus over DFT's, mean over crystals",
            used,
            excluded,
            model / dft,
            {"b0_gpa": model, "dft_b0_gpa": dft, "minimum_volume_over_dft": np.array(volume)},
            # less moved by one crystal that is far too stiff
            geometric_mean=_ends(
                _over_crystals(
                    np.log(model / dft),
                    [curve.crystal for curve in used],
                    geometric_mean,
                )
            ),
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

        used, excluded = self._sorted(lambda curve: curve.missing(volumes))
        about = [curve for curve in used if not curve.missing(volumes, "minimum")]
        names = [curve.crystal for curve in about]
        return self._ratios(
            f"rise of the energy from V0 to {' and '.join(f'{v:g}' for v in volumes)} V0 over "
            "DFT's, mean over crystals",
            used,
            excluded,
            ratios(used, "v0"),
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

    def _sorted(self, unusable: Callable[[Curve], str]) -> tuple[list[Curve], dict[str, int]]:
        """Curves that can be used, and how many cannot, by reason.

        Raises:
            NotAvailable: fewer than two can.
        """
        used: list[Curve] = []
        reasons = list(self.dropped.values())
        for curve in self.curves:
            if why := unusable(curve):
                reasons.append(why)
            else:
                used.append(curve)
        _at_least_two(used, reasons)
        return used, dict(Counter(reasons))

    def _ratios(
        self,
        quantity: str,
        used: Sequence[Curve],
        excluded: Mapping[str, int],
        ratios: np.ndarray,
        more: Mapping[str, np.ndarray],
        **details: object,
    ) -> Measurement:
        names = [curve.crystal for curve in used]
        return self._measurement(
            quantity,
            _over_crystals(ratios, names, mean),
            len(used),
            excluded,
            {
                "median_of_crystals": _round(np.median(ratios)),
                "crystals_below_1": int((ratios < 1).sum()),
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
        scored: int,
        excluded: Mapping[str, int],
        details: Mapping[str, object],
    ) -> Measurement:
        return Measurement(
            quantity=quantity,
            interval=interval,
            scored=scored,
            of=len(self.curves) + len(self.dropped),
            dataset=DATASET,
            model=self.model,
            excluded=excluded,
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
    wanted = [eos for eos in far if eos.crystal not in SET_ASIDE]
    if not wanted:
        raise DataError("no equation of state of the DFT set reaches beyond 10 % in volume")
    predicted = _energies(model, store, [eos.crystals for eos in wanted], progress)
    found: list[Curve] = []
    sources: list[EquationOfState] = []
    dropped = {eos.crystal: SET_ASIDE[eos.crystal] for eos in far if eos.crystal in SET_ASIDE}
    for source, (energies, problems) in zip(wanted, predicted, strict=True):
        made = _curve(source, energies, problems)
        if isinstance(made, str):
            dropped[source.crystal] = made
        else:
            found.append(made)
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
            problems_about_minimum=_by_volume(curve.v_over_v0, problems),
        )
    return Curves(
        config=config,
        model=model.identity.name,
        curves=tuple(found),
        dropped=dropped,
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


def _curve(dft: EquationOfState, energies: np.ndarray, problems: Mapping[int, str]) -> Curve | str:
    """The curve, or why there is none: both methods need an energy at V0."""
    here = np.flatnonzero(np.abs(dft.v_over_v0 - 1) < 1e-6)
    if len(here) == 0:
        return "the DFT set has no energy at 1 V0"
    v0 = int(here[0])
    if v0 in problems:
        return problems[v0]
    return Curve(
        crystal=dft.crystal,
        prototype=dft.prototype,
        v_over_v0=dft.v_over_v0,
        volumes_ang3_per_atom=dft.volumes_ang3 / dft.n_atoms,
        dft_ev_per_atom=dft.energies_ev_per_atom - dft.energies_ev_per_atom[v0],
        model_ev_per_atom=energies - energies[v0],
        problems=_by_volume(dft.v_over_v0, problems),
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


def _by_volume(v_over_v0: np.ndarray, problems: Mapping[int, str]) -> dict[float, str]:
    return {float(v_over_v0[row]): why for row, why in problems.items()}


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
    crystals: tuple[Displaced, ...]
    inputs: Mapping[str, str]

    def with_model(self, change: Callable[[Displaced], np.ndarray], *, name: str) -> Forces:
        """The same cells with another subject, made from each crystal: (k, m, 3) eV/Å."""
        return replace(
            self,
            model=name,
            crystals=tuple(
                replace(crystal, model_ev_per_ang=change(crystal), problems={})
                for crystal in self.crystals
            ),
        )

    @property
    def amplitudes_ang(self) -> list[float]:
        """Every amplitude of the set, ascending."""
        every = np.concatenate([crystal.amplitudes_ang for crystal in self.crystals])
        return np.unique(every.round(6)).tolist()

    def used(self, amplitude_ang: float) -> tuple[list[Displaced], dict[str, int]]:
        """Crystals with forces at this amplitude, and how many are without, by reason."""

        def unusable(crystal: Displaced) -> str:
            rows = crystal.rows(amplitude_ang)
            if len(rows) == 0:
                return f"the DFT set has no forces at {amplitude_ang:g} Å"
            return crystal.problem(rows)

        return self._sorted(unusable)

    def components(self, amplitude_ang: float) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """((n,), (n,), n names) eV/Å: DFT's and the subject's force components, and whose."""
        used, _ = self.used(amplitude_ang)
        parts = [(crystal, crystal.rows(amplitude_ang)) for crystal in used]
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
            for crystal in self.used(amplitude)[0]:
                slope = crystal.slope(crystal.rows(amplitude))
                found.setdefault(crystal.crystal, []).append((amplitude, slope))
        return found

    def slope(self, amplitude_ang: float) -> Measurement:
        """Slope through the origin of force components against DFT's, all crystals pooled.

        Components weigh by their squares, so stiff crystals count for more; the mean over crystals,
        each with the same weight, stands in the details.
        """
        used, excluded = self.used(amplitude_ang)
        rows = [crystal.rows(amplitude_ang) for crystal in used]
        sums = np.array([c.sums(r) for c, r in zip(used, rows, strict=True)]).T
        names = [crystal.crystal for crystal in used]
        each = sums[1] / sums[0]
        # rms of what the slope leaves over the rms of DFT's components
        scatter = np.sqrt(np.maximum(sums[2] / sums[0] - each**2, 0.0))
        n_components = [
            crystal.dft_ev_per_ang[r].size for crystal, r in zip(used, rows, strict=True)
        ]
        return Measurement(
            quantity=f"force slope against DFT at {amplitude_ang:g} Å",
            interval=_over_crystals(sums[1::-1], names, ratio_of_sums),
            scored=len(used),
            of=len(self.crystals),
            dataset=DATASET,
            model=self.model,
            excluded=excluded,
            inputs=self.inputs,
            details={
                "reference": REFERENCE,
                "amplitude_ang": amplitude_ang,
                "force_components": int(sum(n_components)),
                "mean_of_crystals": _ends(_over_crystals(each, names, mean)),
                "median_of_crystals": _round(np.median(each)),
                "crystals_below_1": int((each < 1).sum()),
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

    def one_label_fix(self, others: Others, donor: str | None = None) -> Measurement:
        """Force slope after dividing by the slope on one configuration of the same crystal.

        Args:
            others: where the slope is measured afterwards. `other-directions`: configurations of
                other seeds, at the amplitudes up to ``fixed_up_to_ang``. `other-amplitudes`: the
                label's own direction at the other amplitudes up to there, which is the easier.
            donor: crystal whose label is used for every crystal; None: each its own.
        Raises:
            NotAvailable: fewer than two crystals have such configurations.
        """
        used, excluded = self._sorted(lambda crystal: self._without_others(crystal, others))
        own = {c.crystal: c.slope(self._label(c)) for c in used}
        if donor is not None and donor not in own:
            raise ConfigError(f"no label of {donor!r}; there are some of {', '.join(own)}")
        sums = np.array([c.sums(self._others(c, others)) for c in used]).T
        names = [crystal.crystal for crystal in used]
        scalars = np.array([own[donor or name] for name in names])
        xx, xy, yy = sums
        after = np.stack([xy / scalars, xx])
        log_own = np.log(list(own.values()))
        # Everybody else's label: what one scalar for all crystals would do for a new one.
        foreign = np.exp((log_own.sum() - log_own) / (len(log_own) - 1))
        n_components = sum(c.dft_ev_per_ang[self._others(c, others)].size for c in used)

        def rms_ev_per_ang(scale: np.ndarray) -> float:
            squares = (xx - 2 * xy / scale + yy / scale**2).sum()
            return _round(np.sqrt(max(squares, 0.0) / n_components))

        return Measurement(
            quantity="force slope after one label",
            interval=_over_crystals(after, names, ratio_of_sums),
            scored=len(used),
            of=len(self.crystals),
            dataset=DATASET,
            model=self.model,
            excluded=excluded,
            inputs=self.inputs,
            details={
                "reference": REFERENCE,
                "label": f"{self.config.label_amplitude_ang:g} Å, seed {self.config.label_seed}",
                "slope_before": _ends(_over_crystals(sums[1::-1], names, ratio_of_sums)),
                "slope_with_the_other_crystals_label": _ends(
                    _over_crystals(np.stack([xy / foreign, xx]), names, ratio_of_sums)
                ),
                "force_rmse_before_ev_per_ang": rms_ev_per_ang(np.ones(len(used))),
                "force_rmse_after_ev_per_ang": rms_ev_per_ang(scalars),
                "by_amplitude": [
                    self._after_at(amplitude, used, scalars, others)
                    for amplitude in self.amplitudes_ang
                    if amplitude < self.config.fixed_up_to_ang + 1e-6
                ],
                "crystals": [
                    {
                        "crystal": name,
                        "label": _round(scalars[i]),
                        "configurations": len(self._others(used[i], others)),
                        "slope_before": _round(xy[i] / xx[i]),
                        "slope_after": _round(xy[i] / xx[i] / scalars[i]),
                    }
                    for i, name in enumerate(names)
                ],
            },
        )

    def _after_at(
        self, amplitude_ang: float, used: Sequence[Displaced], scalars: np.ndarray, others: Others
    ) -> dict[str, object]:
        """Pooled slopes before and after at one amplitude."""
        rows = [
            np.intersect1d(self._others(crystal, others), crystal.rows(amplitude_ang))
            for crystal in used
        ]
        sums = np.array([c.sums(r) for c, r in zip(used, rows, strict=True)]).T
        row: dict[str, object] = {
            "amplitude_ang": amplitude_ang,
            "configurations": sum(map(len, rows)),
        }
        if sums[0].sum() > 0:
            row["slope_before"] = _round(sums[1].sum() / sums[0].sum())
            row["slope_after"] = _round((sums[1] / scalars).sum() / sums[0].sum())
        return row

    def _label(self, crystal: Displaced) -> np.ndarray:
        return crystal.rows(self.config.label_amplitude_ang, self.config.label_seed)

    def _others(self, crystal: Displaced, others: Others) -> np.ndarray:
        near = crystal.amplitudes_ang < self.config.fixed_up_to_ang + 1e-6
        same = crystal.seeds == self.config.label_seed
        rows = np.flatnonzero(near & (same if others == "other-amplitudes" else ~same))
        return np.setdiff1d(rows, self._label(crystal))

    def _without_others(self, crystal: Displaced, others: Others) -> str:
        label, rest = self._label(crystal), self._others(crystal, others)
        if len(label) == 0 or len(rest) == 0:
            what = (
                "configuration to fit the label on" if len(label) == 0 else others.replace("-", " ")
            )
            return f"the DFT set has no {what}"
        if why := crystal.problem(np.concatenate([label, rest])):
            return why
        return "" if crystal.slope(label) > 0 else "the label's slope is not above zero"

    def _sorted(
        self, unusable: Callable[[Displaced], str]
    ) -> tuple[list[Displaced], dict[str, int]]:
        """Crystals that can be used, and how many cannot, by reason.

        Raises:
            NotAvailable: fewer than two can.
        """
        why = [unusable(crystal) for crystal in self.crystals]
        used = [c for c, reason in zip(self.crystals, why, strict=True) if not reason]
        reasons = [reason for reason in why if reason]
        _at_least_two(used, reasons)
        return used, dict(Counter(reasons))


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


def _over_crystals(
    columns: np.ndarray,
    crystals: Sequence[str],
    statistic: Callable[[np.ndarray], np.ndarray],
) -> Interval:
    return bootstrap(columns, np.array(crystals), statistic, unit="crystals")


def _at_least_two(used: Sequence[object], reasons: Sequence[str]) -> None:
    if len(used) < 2:
        stated = "; ".join(f"{why}: {n}" for why, n in Counter(reasons).items())
        raise NotAvailable(
            f"{len(used)} crystal(s) of the DFT set can be used and an interval needs two "
            f"({stated or 'there are no others'})"
        )


def _ends(interval: Interval) -> dict[str, float]:
    return {
        "estimate": _round(interval.estimate),
        "low": _round(interval.low),
        "high": _round(interval.high),
    }


def _round(value: float) -> float:
    """Four significant digits, for the record."""
    return float(f"{value:.4g}")


def _inputs(identity: Identity, dft: DFTSet) -> dict[str, str]:
    return {FILE: dft.sha256, identity.name: identity.weights_sha256}
