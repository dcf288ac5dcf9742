"""Score a potential that was never trained on the targets, under each declared alignment.

Public: ZeroShot, ZeroShotResult, run, own_references. The energies come from the store or are
computed into it; the refit sees training rows only.

Which rows it saw moves what is measured on others. So it is repeated with one group of training
formulas left out, group after group, and every measurement carries the variance that this shows.
With few rows an element the estimate errs on the wide side: a fit by least absolute deviations
jumps from row to row, and with rows drawn anew from a large set it varied less than groups said.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

from harness.data.crystals import Crystals
from harness.data.dataset import Fold
from harness.data.elements import SYMBOLS
from harness.errors import ConfigError, DataError, NotAvailable
from harness.models.alignment import NO_REFERENCES, References
from harness.models.protocol import Identity, Model, Prediction
from harness.scores import Scored
from harness.store import MakeProgress, PredictionStore, refit_once, row_digest


@dataclass(frozen=True, kw_only=True)
class ZeroShot:
    """How much is scored, and on how many rows the refit may look."""

    refit_rows: int = 4000
    # At most this many test rows, and where that cuts them, refit rows; None: all
    sample: int | None = None
    refit_groups: int = 10  # of training formulas, each left out of a refit once; 0: its error is 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.refit_rows < 1 or (self.sample is not None and self.sample < 2):
            raise ConfigError(
                f"{self}: a refit needs at least one row and an interval at least two test rows"
            )
        if self.refit_groups < 0 or self.refit_groups == 1:
            raise ConfigError(f"{self}: leave out two groups at least, or 0 for none")


@dataclass(frozen=True, kw_only=True, eq=False)
class ZeroShotResult:
    """Total energies of the tested rows, and the references each alignment takes off."""

    config: ZeroShot
    fold: Fold
    identity: Identity
    rows: np.ndarray  # (n,) tested positions in the data set
    total: Prediction  # (n,) total energies, eV/atom
    references: Mapping[str, tuple[References, ...]]  # alignment -> one a split
    owner: np.ndarray  # (n,) which split tested the row
    details: Mapping[str, object]
    unavailable: Mapping[str, NotAvailable]  # alignment -> why there is none
    refits_without_group: tuple[tuple[References, ...], ...] = ()  # one a split, for each group

    def scored(self, alignment: str) -> Scored:
        """Formation energies under one alignment; `none` leaves total energies as they are.

        Raises:
            NotAvailable: the alignment's references are not on this machine.
        """
        if alignment in self.unavailable:
            why = self.unavailable[alignment]
            raise type(why)(str(why))
        dataset = self.fold.dataset
        references = self._references(alignment)
        if {one.name for one in references} != {alignment}:
            raise DataError(
                f"the references of {alignment!r} are called {sorted({r.name for r in references})}"
                ": a score under one alignment's name takes off that alignment's energies"
            )
        aligned = self._aligned(references)
        excluded = dict(Counter(self.total.problems.values()))
        covered = np.isfinite(aligned)
        if unseen := int((self.total.scored & ~covered).sum()):
            names = " ".join(SYMBOLS[z - 1] for z in self._missing(references))
            excluded[f"no {alignment} reference for {names}"] = unseen
        absent = {
            "left out by --sample": len(self.fold.test_rows) - len(self.rows),
            "not in the data set at hand": self.fold.n_claimed - len(self.fold.test_rows),
        }
        without = self.refits_without_group if alignment == "refit" else ()
        rows = self.rows[covered]
        return Scored(
            model=f"{self.identity.name} ({alignment})",
            subject=self.identity.name,
            dataset=dataset.name,
            ids=dataset.ids[rows],
            formulas=dataset.reduced_formulas()[rows],
            reference_ev_per_atom=dataset.target_ev_per_atom[rows],
            predicted_ev_per_atom=aligned[covered],
            of=self.fold.n_claimed,
            excluded=excluded,
            absent={reason: n for reason, n in absent.items() if n},
            inputs={
                **dataset.inputs,
                **references[0].inputs,
                self.identity.name: self.identity.weights_sha256,
            },
            details={
                **self.details,
                "alignment": references[0].name,
                "references_sha256": [row_digest(one.energies_ev_per_atom) for one in references],
            },
            without_group_ev_per_atom=tuple(self._aligned(refits)[covered] for refits in without),
        )

    def _aligned(self, references: tuple[References, ...]) -> np.ndarray:
        """(n,) formation energies by the references of each split; nan where there is none."""
        compositions = self.fold.dataset.compositions[self.rows]
        aligned = np.full(len(self.rows), np.nan)
        for split, of_split in enumerate(references):
            mine = self.owner == split
            aligned[mine] = of_split.formation_energies(self.total.energy[mine], compositions[mine])
        return aligned

    def _missing(self, references: tuple[References, ...]) -> list[int]:
        """Atomic numbers that scored rows hold and the references of their split do not."""
        compositions = self.fold.dataset.compositions[self.rows]
        missing: set[int] = set()
        for split, of_split in enumerate(references):
            mine = (self.owner == split) & self.total.scored
            missing.update(of_split.missing(compositions[mine]))
        return sorted(missing)

    def _references(self, alignment: str) -> tuple[References, ...]:
        if alignment == "none":
            return (NO_REFERENCES,) * len(self.fold.splits)
        if alignment not in self.references:
            known = ", ".join((*self.references, *self.unavailable, "none"))
            raise ConfigError(f"no alignment {alignment!r}; this result has {known}")
        return self.references[alignment]


def run(
    model: Model,
    fold: Fold,
    store: PredictionStore,
    references: Mapping[str, References | NotAvailable],
    config: ZeroShot = ZeroShot(),
    progress: MakeProgress | None = None,
) -> ZeroShotResult:
    """Predict the fold's test rows and fit the refit on its training rows.

    Args:
        references: fixed references by alignment, or why there are none.
    Raises:
        DataError: the fold has no test rows, or no training row for the refit.
    """
    dataset, draw = fold.dataset, np.random.default_rng(config.seed)
    rows = _at_most(fold.test_rows, config.sample, draw)
    if len(rows) == 0:
        raise DataError(f"fold {fold.number} of {dataset.name} has no test rows; take another fold")
    limit = config.refit_rows
    if config.sample is not None and config.sample < len(fold.test_rows):
        limit = min(limit, config.sample)
    training = [_at_most(split.train, limit, draw) for split in fold.splits]
    if empty := [i for i, train in enumerate(training) if len(train) == 0]:
        raise DataError(
            f"fold {fold.number} of {dataset.name} has no training rows (split {empty[0]}), so "
            "there is nothing to refit on; use a data set with training rows"
        )
    # One request for all rows: the model packs its batches best over many, and a test row of one
    # split is a training row of another.
    needed = np.unique(np.concatenate([rows, *training]))
    tick = progress(f"{model.identity.name} energies", len(needed)) if progress else None
    predicted = store.energies(model, dataset.require_crystals()[needed], tick)
    total = np.full(len(dataset), np.nan)
    total[needed] = predicted.energy

    usable = [train[np.isfinite(total[train])] for train in training]

    def fit(rows: np.ndarray) -> References:
        return refit_once(
            store, total[rows], dataset.target_ev_per_atom[rows], dataset.compositions[rows]
        )

    fitted = tuple(fit(rows) for rows in usable)
    group = _group_of_rows(dataset.reduced_formulas(), config)

    def fit_without(left_out: int, rows: np.ndarray, whole: References) -> References:
        kept = rows[group[rows] != left_out]
        return _completed(fit(kept), whole) if len(kept) else whole

    without = tuple(
        tuple(fit_without(g, rows, whole) for rows, whole in zip(usable, fitted, strict=True))
        for g in range(config.refit_groups)
    )
    at = np.searchsorted(needed, rows)
    problems = {
        i: predicted.problems[j] for i, j in enumerate(at.tolist()) if j in predicted.problems
    }
    owner = np.empty(len(dataset), dtype=np.int64)
    for i, split in enumerate(fold.splits):
        owner[split.test] = i
    fixed = {k: (v,) * len(fold.splits) for k, v in references.items() if isinstance(v, References)}
    return ZeroShotResult(
        config=config,
        fold=fold,
        identity=model.identity,
        rows=rows,
        total=Prediction(energy=predicted.energy[at], problems=problems),
        references={**fixed, "refit": fitted},
        owner=owner[rows],
        details={
            "config": asdict(config),
            "refit_rows": [len(train) for train in training],
            "weights_sha256": model.identity.weights_sha256,
        },
        unavailable={k: v for k, v in references.items() if isinstance(v, NotAvailable)},
        refits_without_group=without,
    )


def _group_of_rows(formulas: np.ndarray, config: ZeroShot) -> np.ndarray:
    """(n,) the group a row is left out with; rows of one formula go together."""
    if not config.refit_groups:
        return np.zeros(len(formulas), dtype=np.int64)
    _, owner = np.unique(formulas, return_inverse=True)
    order = np.random.default_rng(config.seed).permutation(owner.max(initial=-1) + 1)
    return np.asarray(order % config.refit_groups)[owner]


def _completed(references: References, whole: References) -> References:
    """With the energies of elements that only the left-out rows hold: those cannot be moved."""
    known = references.energies_ev_per_atom
    return References(
        name=references.name,
        energies_ev_per_atom=np.where(np.isnan(known), whole.energies_ev_per_atom, known),
    )


def own_references(
    model: Model, elements: Crystals, store: PredictionStore, inputs: Mapping[str, str]
) -> References:
    """The subject's energy of each element's crystal: references that need no table.

    Args:
        elements: (m,) crystals of one element each, no element twice.
        inputs: file the crystals come from -> sha256.
    Raises:
        DataError: a crystal of several elements, or an element twice.
    """
    compositions = elements.compositions()
    kinds = (compositions > 0).sum(axis=1)
    which = compositions.argmax(axis=1)
    if (kinds != 1).any() or len(np.unique(which)) != len(which):
        raise DataError("references need crystals of one element each, and each element once")
    predicted = store.energies(model, elements)
    energies = np.full(compositions.shape[1], np.nan)
    energies[which[predicted.scored]] = predicted.energy[predicted.scored]
    return References(name="self", energies_ev_per_atom=energies, inputs=inputs)


def _at_most(rows: np.ndarray, limit: int | None, draw: np.random.Generator) -> np.ndarray:
    """All rows, or a random ``limit`` of them, in ascending order."""
    if limit is not None and len(rows) > limit:
        rows = draw.choice(rows, size=limit, replace=False)
    return np.sort(rows)
