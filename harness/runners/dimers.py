"""Force slopes of homonuclear dimers against DFT, in three regions of distance.

Public: REGIONS, DimerScan, DimerResult, run.

A dimer is a molecule: nothing a potential trained on crystals has seen, and its DFT curve is the
lowest of several spin states, which such a potential does not know of. What is measured here is how
a potential extrapolates, not whether it is any good for molecules.

The regions are cut by DFT alone. With r_min the distance of DFT's lowest energy:

wall          r < 0.9 r_min and a repulsive DFT force of 1 to 30 eV/Å, as large as forces in the
              frames of data.frames get (17 to 27 eV/Å in the TP sets)
equilibrium   0.9 r_min <= r <= 1.1 r_min
dissociation  r > 1.1 r_min, up to 6 Å; beyond its cutoff a potential sees isolated atoms, and where
              it says so, such points are excluded and counted. CHGNet's cutoff is just 6 Å: it
              scores every point, the last with next to no interaction left

Every element has one slope in a region, and what is reported is the median of elements. Pooled over
points an element counts by the square of its forces, the predicted ones too, and one whose forces
are predicted a hundred times too large decides the slope of all. The pooled slope stands in the
details, with the element that moves it most.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np

from harness.claims import Measurement
from harness.data.frames import Dimers
from harness.errors import CannotResolve, ConfigError, NotAvailable
from harness.models.protocol import Model
from harness.statistics import bootstrap, median, ratio_of_sums
from harness.store import MakeProgress, PredictionStore

REGIONS = ("wall", "equilibrium", "dissociation")
# The Materials Project has no crystal of them, so no potential trained on it knows them.
UNTRAINED = ("Po", "At", "Rn", "Fr", "Ra")


@dataclass(frozen=True, kw_only=True)
class DimerScan:
    """The box, the regions, and which DFT curves can be used."""

    box_ang: float = 30.0  # images of a dimer 6 Å long are 24 Å apart, beyond any cutoff in use
    wall_ev_per_ang: tuple[float, float] = (1.0, 30.0)
    equilibrium_r_min: tuple[float, float] = (0.9, 1.1)  # in units of r_min
    # A curve counts if the work of its forces makes up its changes of energy to this fraction,
    # summed over steps below the wall's largest force. Where DFT jumped between electronic states
    # from point to point it does not; 0.13 and 0.31 are the values next to 0.2.
    most_mismatch: float = 0.2

    def __post_init__(self) -> None:
        (low, high), (near, far) = self.wall_ev_per_ang, self.equilibrium_r_min
        if not (0 < low < high and 0 < near < 1 < far and self.most_mismatch > 0):
            raise ConfigError(f"{self}: windows must not be empty, equilibrium must hold r_min")


@dataclass(frozen=True, kw_only=True, eq=False)
class DimerResult:
    """Every point of every curve, DFT's beside the model's."""

    config: DimerScan
    dimers: Dimers
    energy_ev: np.ndarray  # (n,) the model's, of both atoms; nan where not scored
    force_ev_per_ang: np.ndarray  # (n,) the model's along the bond, positive = repulsive; nan
    problems: Mapping[int, str]  # point -> why it was not scored
    model: str
    subject: str  # the model's name, also where a fault was planted in its predictions
    inputs: Mapping[str, str] = field(default_factory=dict)

    def with_forces(self, change: Callable[[np.ndarray], np.ndarray], *, name: str) -> DimerResult:
        """The same points with the model's forces, (n,), altered: how controls plant a fault."""
        return replace(self, model=name, force_ev_per_ang=change(self.force_ev_per_ang.copy()))

    def stiffened(self, share: float) -> DimerResult:
        """With this share of DFT's forces added to the model's: every slope is larger by it."""
        return self.with_forces(
            lambda force: force + share * self.dimers.force_ev_per_ang,
            name=f"{self.model} and {share:+.3g} of DFT's forces",
        )

    @property
    def r_min_ang(self) -> np.ndarray:
        """(m,) distance of DFT's lowest energy in each curve."""
        dimers = self.dimers
        lowest = [
            dimers.distance_ang[s][np.argmin(dimers.energy_ev[s])]
            for s in map(dimers.points, range(len(dimers.symbols)))
        ]
        return np.array(lowest)

    def region(self, name: str) -> np.ndarray:
        """(n,) bool: the points of one region, of all curves."""
        if name not in REGIONS:
            raise ConfigError(f"no region {name!r}; known: {', '.join(REGIONS)}")
        relative = self.dimers.distance_ang / self.r_min_ang[self.dimers.curve_of_point]
        near, far = self.config.equilibrium_r_min
        if name == "equilibrium":
            return (near <= relative) & (relative <= far)
        if name == "dissociation":
            return relative > far
        low, high = self.config.wall_ev_per_ang
        force = self.dimers.force_ev_per_ang
        return (relative < near) & (low <= force) & (force <= high)

    def mismatch(self) -> np.ndarray:
        """(m,) by how much the work of DFT's forces misses its changes of energy, as a fraction.

        Trapezoids, from the first distance beyond which no force exceeds the wall's largest.
        """
        found = np.empty(len(self.dimers.symbols))
        for curve in range(len(found)):
            s = self.dimers.points(curve)
            r, e, f = (
                column[s]
                for column in (
                    self.dimers.distance_ang,
                    self.dimers.energy_ev,
                    self.dimers.force_ev_per_ang,
                )
            )
            above = np.flatnonzero(f > self.config.wall_ev_per_ang[1])
            first = int(above[-1]) + 1 if len(above) else 0
            change = np.diff(e[first:])
            work = -(f[first + 1 :] + f[first:-1]) / 2 * np.diff(r[first:])
            total = np.abs(change).sum()
            found[curve] = np.abs(change - work).sum() / total if total > 0 else np.inf
        return found

    def _unusable(self) -> list[tuple[str, np.ndarray]]:
        """Why curves do not count, whatever the model, and (m,) bool which."""
        symbols = np.array(self.dimers.symbols)
        untrained = np.isin(symbols, UNTRAINED)
        jumps = (self.mismatch() > self.config.most_mismatch) & ~untrained
        return [
            (f"no crystals to train on ({' '.join(symbols[untrained])})", untrained),
            (f"DFT jumps between electronic states ({' '.join(symbols[jumps])})", jumps),
        ]

    def usable(self) -> np.ndarray:
        """(m,) bool: the curves that count."""
        return ~np.any([curves for _, curves in self._unusable()], axis=0)

    def slope(self, region: str) -> Measurement:
        """Slope through the origin of an element's forces on DFT's in a region, median of elements.

        Coverage is in points; the interval is over elements: points of one curve err together.

        Raises:
            CannotResolve: the model scores points of fewer than two elements.
        """
        inside = self.region(region)
        owner = self.dimers.curve_of_point
        unusable = {why: int((inside & curves[owner]).sum()) for why, curves in self._unusable()}
        counted = inside & self.usable()[owner]
        scored = counted & np.isfinite(self.force_ev_per_ang)
        excluded = Counter(
            self.problems.get(point, "no finite force")
            for point in np.flatnonzero(counted & ~scored).tolist()
        )
        if len(np.unique(owner[scored])) < 2:
            raise CannotResolve(
                f"{self.model} scores points of fewer than two dimers in the region {region}: "
                f"{dict(excluded)}"
            )
        reference, predicted = self.dimers.force_ev_per_ang[scored], self.force_ev_per_ang[scored]
        elements, products, squares = self._by_element(scored)
        slopes = products / squares
        return Measurement(
            quantity=f"slope of dimer forces on DFT's, through the origin, {region}, median of "
            "elements",
            interval=replace(median(slopes, unit="elements"), n=int(scored.sum())),
            scored=int(scored.sum()),
            of=int(inside.sum()),
            dataset=f"{self.dimers.functional} dimers",
            model=self.model,
            subject=self.subject,
            excluded=dict(excluded),
            absent={why: n for why, n in unusable.items() if n},
            inputs=self.inputs,
            details={
                "config": asdict(self.config),
                "elements": len(elements),
                "elements_below_one": int((slopes < 1).sum()),
                "softest_element": elements[int(slopes.argmin())],
                "softest_slope": float(slopes.min()),
                "stiffest_element": elements[int(slopes.argmax())],
                "stiffest_slope": float(slopes.max()),
                **_pooled(elements, products, squares),
                "force_mae_ev_per_ang": float(np.abs(predicted - reference).mean()),
                "force_rms_ev_per_ang": float(np.sqrt(np.mean(reference**2))),
                "sign_differs_at": int((reference * predicted < 0).sum()),
                **self._wells(),
            },
        )

    def _by_element(self, points: np.ndarray) -> tuple[list[str], np.ndarray, np.ndarray]:
        """Elements that have forces among these points, and their sums (k,) of DFT times model and
        of DFT squared, eV²/Å²."""
        owner = self.dimers.curve_of_point[points]
        reference, predicted = self.dimers.force_ev_per_ang[points], self.force_ev_per_ang[points]
        n = len(self.dimers.symbols)
        products = np.bincount(owner, weights=reference * predicted, minlength=n)
        squares = np.bincount(owner, weights=reference**2, minlength=n)
        present = np.flatnonzero(squares > 0)
        names = [self.dimers.symbols[i] for i in present.tolist()]
        return names, products[present], squares[present]

    def _wells(self) -> dict[str, object]:
        """What it takes to pull dimers from DFT's r_min to the last distance scored, eV, summed."""
        dimers, depths = self.dimers, []
        for curve in np.flatnonzero(self.usable()).tolist():
            s = dimers.points(curve)
            scored = np.flatnonzero(np.isfinite(self.energy_ev[s]))
            lowest = int(np.argmin(dimers.energy_ev[s]))
            if lowest in scored[:-1]:
                far = int(scored[-1])
                depths.append(
                    [e[s][far] - e[s][lowest] for e in (dimers.energy_ev, self.energy_ev)]
                )
        if not depths:
            return {}
        dft, model = np.array(depths).sum(axis=0)
        return {
            "wells_from_r_min": len(depths),
            "summed_well_depth_dft_ev": float(dft),
            "summed_well_depth_model_ev": float(model),
        }


def run(
    model: Model,
    dimers: Dimers,
    store: PredictionStore,
    config: DimerScan = DimerScan(),
    progress: MakeProgress | None = None,
) -> DimerResult:
    """Predict every point of every curve in a periodic box.

    Raises:
        NotAvailable: the model gives no forces.
    """
    crystals = dimers.crystals(config.box_ang)
    tick = progress(f"{model.identity.name} dimers", len(crystals)) if progress else None
    predicted = store.predict(model, crystals, ("energy", "forces"), tick)
    if predicted.forces is None:
        raise NotAvailable(f"{model.identity.name} gives no forces")
    pairs = np.array(predicted.forces)  # (n, 2, 3)
    along = (pairs[:, 1, 0] - pairs[:, 0, 0]) / 2
    return DimerResult(
        config=config,
        dimers=dimers,
        energy_ev=2 * predicted.energy,
        force_ev_per_ang=np.where(predicted.scored, along, np.nan),
        problems=predicted.problems,
        model=model.identity.name,
        subject=model.identity.name,
        inputs={**dimers.inputs, model.identity.name: model.identity.weights_sha256},
    )


def _pooled(
    elements: Sequence[str], products: np.ndarray, squares: np.ndarray
) -> dict[str, object]:
    """Slope over the points of all elements together, and the element that moves it most."""
    pooled = bootstrap(
        np.stack([products, squares]), np.array(elements), ratio_of_sums, unit="elements"
    )
    without = (products.sum() - products) / (squares.sum() - squares)
    most = int(np.argmax(np.abs(without - pooled.estimate)))
    return {
        "pooled_slope": {
            "estimate": pooled.estimate,
            "low": pooled.low,
            "high": pooled.high,
            "effective": pooled.effective,
        },
        "most_influential_element": elements[most],
        "pooled_slope_without_it": float(without[most]),
    }
