"""Score a potential on frames away from equilibrium: slope of its forces, error of its energies.

Public: Window, ForceResult, forces; ALIGNMENTS, LEVELS, EnergyResult, energies, energy_mae.
Predictions and corrections come from the store or are computed into it.

The slope is that of the model's force components on DFT's, through the origin, over all components
of all frames. Noise in the model does not move it; noise in DFT would lower it. A slope below one
is what is called softening: the potential's landscape is less steep than DFT's.

What an interval of it is over is a matter of physics. Frames of one formula stem from one or two
runs of molecular dynamics, so formulas are drawn where a set has several. Where it has one, its
frames are, and those that symmetry makes equal (one strain along each of three equivalent axes)
are drawn together. Frames of one run share its temperature: between runs slopes of one potential
differ by a factor of two, within most runs by a few percent. An interval over frames is therefore
of this set, at its own temperatures and strains, and says nothing of others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from harness.claims import Measurement
from harness.data import mp2020
from harness.data.frames import PUBLISHED_MAE_EV_PER_ATOM, Frames
from harness.errors import CannotResolve, ConfigError, NotAvailable
from harness.models.protocol import Identity, Model, Prediction
from harness.scores import Scored
from harness.statistics import bootstrap, ratio_of_sums
from harness.store import MakeProgress, PredictionStore, refit_once, row_digest

ALIGNMENTS = ("as-trained", "refit")
LEVELS = ("mp2020", "raw")
LEFT_OUT = "left out of the quick session"
_NOT_AT_HAND = "not in the file at hand"
# Two frames of as many atoms that agree so well are one frame in two orientations
_SAME_ENERGY_EV_PER_ATOM = 1e-4
_SAME_FORCE_EV_PER_ANG = 1e-3  # root mean square over components


# --- forces ---------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Window:
    """Which frames count, by what DFT says of them alone, and how many of them are predicted."""

    pressure_gpa: tuple[float, float] | None = None  # compression positive; None: any
    least_rms_force_ev_per_ang: float = 0.1  # over components; below, there is nothing to fit
    max_atoms: int | None = None  # frames are drawn until they hold so many; None: all frames
    seed: int = 0  # of the draw

    def __post_init__(self) -> None:
        if self.pressure_gpa is not None and not self.pressure_gpa[0] < self.pressure_gpa[1]:
            raise ConfigError(f"pressure_gpa={self.pressure_gpa} is empty; give low, high in GPa")
        if self.least_rms_force_ev_per_ang < 0 or (self.max_atoms or 1) < 1:
            raise ConfigError(f"{self}: neither forces nor numbers of atoms are negative")

    def choose(self, frames: Frames) -> tuple[np.ndarray, dict[str, int]]:
        """(k,) rows to predict, ascending, and why nobody is asked about the others."""
        absent = {}
        keep = np.ones(len(frames), dtype=bool)
        if self.pressure_gpa is not None:
            low, high = self.pressure_gpa
            pressure = frames.pressure_gpa
            keep = (low < pressure) & (pressure < high)
            absent[f"DFT pressure outside {low:g} to {high:g} GPa"] = int((~keep).sum())
        weak = _rms_force(frames) < self.least_rms_force_ev_per_ang
        reason = f"DFT forces below {self.least_rms_force_ev_per_ang:g} eV/Å rms"
        absent[reason] = int((keep & weak).sum())
        rows = np.flatnonzero(keep & ~weak)
        if self.max_atoms is not None:
            order = np.random.default_rng(self.seed).permutation(rows)
            before = np.cumsum(frames.crystals.n_atoms[order]) - frames.crystals.n_atoms[order]
            drawn = np.sort(order[before < self.max_atoms])
            absent[LEFT_OUT] = len(rows) - len(drawn)
            rows = drawn
        absent[_NOT_AT_HAND] = max(0, frames.n_official - len(frames))
        return rows, {why: n for why, n in absent.items() if n}


@dataclass(frozen=True, kw_only=True, eq=False)
class ForceResult:
    """Forces of the scored frames, DFT's and the model's."""

    window: Window
    frames: Frames  # (n,) the scored ones
    forces_ev_per_ang: np.ndarray  # (N, 3) the model's, finite
    model: str
    subject: str  # the model's name, also where a fault was planted in its predictions
    of: int
    excluded: Mapping[str, int]  # the model was asked and did not answer
    absent: Mapping[str, int]  # nobody was asked
    inputs: Mapping[str, str]

    def with_forces(self, change: Callable[[np.ndarray], np.ndarray], *, name: str) -> ForceResult:
        """The same frames with the model's forces, (N, 3), altered: how controls plant a fault."""
        return replace(self, model=name, forces_ev_per_ang=change(self.forces_ev_per_ang.copy()))

    def stiffened(self, share: float) -> ForceResult:
        """With this share of DFT's forces added to the model's: the slope is larger by it."""
        return self.with_forces(
            lambda forces: forces + share * self.frames.forces_ev_per_ang,
            name=f"{self.model} and {share:+.3g} of DFT's forces",
        )

    def slope(self) -> Measurement:
        """Slope through the origin of the model's force components on DFT's.

        Drawn anew are formulas where the set has several, and frames where it has one.

        Raises:
            CannotResolve: all frames are of one kind that would be drawn together.
        """
        formulas = self.frames.crystals.reduced_formulas()
        many = len(np.unique(formulas)) > 1
        units = formulas if many else _equal_frames(self.frames)
        if len(np.unique(units)) < 2:
            raise CannotResolve(
                f"{self.model} scores frames of {self.frames.name} that are all alike: an interval "
                "needs two that differ"
            )
        reference, predicted = self.frames.forces_ev_per_ang, self.forces_ev_per_ang
        interval = bootstrap(
            np.stack([self._per_frame(reference * predicted), self._per_frame(reference**2)]),
            units,
            ratio_of_sums,
            unit="reduced formulas" if many else "frames",
        )
        error = predicted - reference
        return Measurement(
            quantity="slope of force components on DFT's, through the origin",
            interval=interval,
            scored=len(self.frames),
            of=self.of,
            dataset=self.frames.name,
            model=self.model,
            subject=self.subject,
            excluded=self.excluded,
            absent=self.absent,
            inputs=self.inputs,
            details={
                "window": asdict(self.window),
                "atoms": len(predicted),
                "force_mae_ev_per_ang": float(np.abs(error).mean()),
                "force_rms_ev_per_ang": float(np.sqrt(np.mean(reference**2))),
                "largest_force_ev_per_ang": float(np.abs(reference).max()),
                "slope_by_group": self._by_group(),
            },
        )

    def _per_frame(self, values: np.ndarray) -> np.ndarray:
        owner = self.frames.crystals.row_of_atom
        return np.bincount(owner, weights=values.sum(axis=1), minlength=len(self.frames))

    def _by_group(self) -> dict[str, float]:
        """Slope of each kind of frame, where the publisher names kinds."""
        reference, predicted = self.frames.forces_ev_per_ang, self.forces_ev_per_ang
        group = self.frames.groups[self.frames.crystals.row_of_atom]
        return {
            str(name): float((reference * predicted)[mine].sum() / (reference**2)[mine].sum())
            for name in np.unique(group)
            if name
            for mine in [group == name]
        }


def forces(
    model: Model,
    frames: Frames,
    store: PredictionStore,
    window: Window = Window(),
    progress: MakeProgress | None = None,
) -> ForceResult:
    """Predict the forces of the frames in the window.

    Raises:
        NotAvailable: the model gives no forces, or no frame of the window could be scored.
    """
    rows, absent = window.choose(frames)
    if len(rows) == 0:
        raise NotAvailable(f"no frame of {frames.name} lies in the window: {absent}")
    chosen = frames[rows]
    tick = progress(f"{model.identity.name} forces, {frames.name}", len(rows)) if progress else None
    predicted = store.predict(model, chosen.crystals, ("energy", "forces"), tick)
    scored = np.flatnonzero(predicted.scored)
    excluded = dict(Counter(predicted.problems.values()))
    if len(scored) == 0 or predicted.forces is None:
        raise NotAvailable(
            f"{model.identity.name} scores no frame of {frames.name} in the window: {excluded}"
        )
    return ForceResult(
        window=window,
        frames=chosen[scored],
        forces_ev_per_ang=np.concatenate([predicted.forces[row] for row in scored.tolist()]),
        model=model.identity.name,
        subject=model.identity.name,
        of=max(frames.n_official, len(frames)),
        excluded=excluded,
        absent=absent,
        inputs={**frames.inputs, model.identity.name: model.identity.weights_sha256},
    )


def _equal_frames(frames: Frames) -> np.ndarray:
    """(n,) labels: one for frames that are the same but for their orientation."""
    energy, force = frames.energy_ev_per_atom, _rms_force(frames)
    n_atoms = frames.crystals.n_atoms
    labels = np.arange(len(frames))
    for i in range(len(frames)):
        same = (
            (n_atoms[:i] == n_atoms[i])
            & (np.abs(energy[:i] - energy[i]) < _SAME_ENERGY_EV_PER_ATOM)
            & (np.abs(force[:i] - force[i]) < _SAME_FORCE_EV_PER_ANG)
        )
        if same.any():
            labels[i] = labels[np.argmax(same)]
    return labels


def _rms_force(frames: Frames) -> np.ndarray:
    """(n,) root mean square of the DFT force components of each frame, eV/Å."""
    squares = (frames.forces_ev_per_ang**2).sum(axis=1)
    total = np.bincount(frames.crystals.row_of_atom, weights=squares, minlength=len(frames))
    return np.sqrt(total / (3 * frames.crystals.n_atoms))


# --- energies -------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class EnergyResult:
    """Energies of one set of frames, the model's, and DFT's at two levels: raw and with MP2020.

    Two ways to bring model and DFT to one level, side by side, because neither is beyond doubt:

    as-trained  DFT's energies raw or with MP2020 corrections, whichever the model is nearer to on
                frames of its training distribution (CHGNet: 0.026 with, 0.36 eV/atom without).
                Nothing is fitted. See harness.data.mp2020 for what the corrections assume.
    refit       On top of that an energy an element is taken off, fitted by least absolute
                deviations on frames of the training distribution, never on the frame it is used
                for. It hides any error that is linear in the composition there, such as other VASP
                potentials; an element not seen there gets none, and its frames are counted.

    A refit straight onto raw energies is not enough: +U corrections are not linear in the
    composition, which alone makes an error of 0.1 eV/atom in distribution.
    """

    frames: Frames  # (n,) the predicted ones
    predicted: Prediction  # (n,) eV/atom, as the model defines it
    correction_ev_per_atom: np.ndarray  # (n,) MP2020, to be added to DFT's
    identity: Identity
    of: int
    absent: Mapping[str, int]  # reason -> frames that nobody was asked about

    def reference_ev_per_atom(self, level: str) -> np.ndarray:
        """(n,) DFT's energies at one of LEVELS."""
        if level not in LEVELS:
            raise ConfigError(f"no level {level!r}; known: {', '.join(LEVELS)}")
        raw = self.frames.energy_ev_per_atom
        return raw if level == "raw" else raw + self.correction_ev_per_atom

    def mae_ev_per_atom(self, level: str) -> float:
        """Mean absolute difference from DFT at one of LEVELS, of the frames that were scored."""
        error = (self.predicted.energy - self.reference_ev_per_atom(level))[self.predicted.scored]
        if len(error) == 0:
            raise NotAvailable(
                f"{self.identity.name} scores no frame of {self.frames.name}, so that its level of "
                "energies is not known"
            )
        return float(np.abs(error).mean())

    def level(self) -> str:
        """Which of LEVELS the model is nearer to here."""
        return min(LEVELS, key=self.mae_ev_per_atom)

    def scored(
        self, alignment: str, *, training_like: EnergyResult, store: PredictionStore, folds: int = 5
    ) -> Scored:
        """Model and DFT on one level.

        Args:
            alignment: of ALIGNMENTS.
            training_like: frames of the training distribution, for the level and the refit; where
                they are these very frames, the refit is made on the other ``folds - 1`` parts of
                their formulas.
        Raises:
            ConfigError: no such alignment.
            NotAvailable: the model scores none of the frames.
        """
        if alignment not in ALIGNMENTS:
            raise ConfigError(f"no alignment {alignment!r}; known: {', '.join(ALIGNMENTS)}")
        level = training_like.level()
        aligned, without_group = self.predicted.energy, ()
        details: dict[str, object] = {
            "level": level,
            "levels_on": training_like.frames.name,
            "pymatgen": mp2020.pymatgen_version(),
        }
        if alignment == "refit":
            shift, unseen = self._shift(training_like, level, store, folds)
            aligned = self.predicted.energy - shift
            without_group = tuple(
                self.predicted.energy - self._shift(training_like, level, store, folds, group)[0]
                for group in training_like._parts(folds)
            )
            details["refit_on_frames"] = int(training_like.predicted.scored.sum())
            details["frames_with_an_element_not_refitted"] = int(unseen.sum())
        return self._scored(
            self.reference_ev_per_atom(level), aligned, alignment, details, without_group
        )

    def _shift(
        self,
        training_like: EnergyResult,
        level: str,
        store: PredictionStore,
        folds: int,
        without: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """(n,) eV/atom to take off the model's energies, and (n,) bool where an element of the
        frame was not seen by the fit.

        Args:
            without: bool, frames of ``training_like`` that are not to be fitted to either.
        """
        fractions = self.frames.crystals.fractions()
        own = training_like.frames.name == self.frames.name
        fitted = training_like.predicted.scored
        if without is not None:
            fitted = fitted & ~without
        shift, unseen = np.zeros(len(self.frames)), np.zeros(len(self.frames), dtype=bool)
        for part in self._parts(folds) if own else [np.ones(len(self.frames), dtype=bool)]:
            use = fitted & ~part if own else fitted
            table = refit_once(
                store,
                training_like.predicted.energy[use],
                training_like.reference_ev_per_atom(level)[use],
                training_like.frames.crystals.compositions()[use],
            )
            shift[part] = fractions[part] @ np.nan_to_num(table.energies_ev_per_atom)
            unseen[part] = ~table.covers(fractions[part])
        return shift, unseen

    def _parts(self, folds: int) -> list[np.ndarray]:
        """(n,) bool each: the frames in parts, all frames of a formula in one of them."""
        _, owner = np.unique(self.frames.crystals.reduced_formulas(), return_inverse=True)
        part = np.random.default_rng(0).permutation(owner.max() + 1) % folds
        return [part[owner] == k for k in range(folds)]

    def _scored(
        self,
        reference: np.ndarray,
        predicted: np.ndarray,
        alignment: str,
        details: Mapping[str, object],
        without_group: Sequence[np.ndarray],
    ) -> Scored:
        scored = self.predicted.scored
        excluded = dict(Counter(self.predicted.problems.values()))
        if not scored.any():
            raise NotAvailable(
                f"{self.identity.name} scores no frame of {self.frames.name}: {excluded}"
            )
        return Scored(
            model=f"{self.identity.name} ({alignment})",
            subject=self.identity.name,
            dataset=self.frames.name,
            ids=self.frames.ids[scored],
            formulas=self.frames.crystals.reduced_formulas()[scored],
            reference_ev_per_atom=reference[scored],
            predicted_ev_per_atom=predicted[scored],
            without_group_ev_per_atom=tuple(other[scored] for other in without_group),
            of=self.of,
            excluded=excluded,
            absent=self.absent,
            inputs={**self.frames.inputs, self.identity.name: self.identity.weights_sha256},
            details={
                "alignment": alignment,
                **details,
                "mean_error_ev_per_atom": float((predicted - reference)[scored].mean()),
                "median_absolute_error_ev_per_atom": float(
                    np.median(np.abs(predicted - reference)[scored])
                ),
                "mae_at_level_ev_per_atom": {each: self.mae_ev_per_atom(each) for each in LEVELS},
                "published_mae_ev_per_atom": dict(
                    PUBLISHED_MAE_EV_PER_ATOM.get(self.frames.name, {})
                ),
            },
        )


def energies(
    model: Model,
    frames: Frames,
    store: PredictionStore,
    *,
    max_frames: int | None = None,
    seed: int = 0,
    progress: MakeProgress | None = None,
) -> EnergyResult:
    """Predict energies of all frames, or of ``max_frames`` drawn with ``seed``."""
    absent = {_NOT_AT_HAND: n} if (n := frames.n_official - len(frames)) > 0 else {}
    chosen = frames
    if max_frames is not None and max_frames < len(frames):
        drawn = np.random.default_rng(seed).choice(len(frames), size=max_frames, replace=False)
        chosen = frames[np.sort(drawn)]
        absent[LEFT_OUT] = len(frames) - max_frames
    what = f"{model.identity.name} energies, {frames.name}"
    tick = progress(what, len(chosen)) if progress else None
    predicted = store.energies(model, chosen.crystals, tick)
    kept = store.arrays(
        Identity(
            name="MP2020 corrections",
            weights_sha256="",
            settings={"engine": mp2020.ENGINE, "pymatgen": mp2020.pymatgen_version()},
        ),
        {"rows": row_digest(chosen.crystals.row_hashes())},
        lambda: {"ev_per_atom": mp2020.corrections_ev_per_atom(chosen.crystals)},
    )
    return EnergyResult(
        frames=chosen,
        predicted=predicted,
        correction_ev_per_atom=kept["ev_per_atom"],
        identity=model.identity,
        of=max(frames.n_official, len(frames)),
        absent=absent,
    )


def energy_mae(scored: Scored) -> Measurement:
    """Mean absolute error of the energy, eV/atom."""
    return replace(scored.mae(), quantity="MAE of the energy")
