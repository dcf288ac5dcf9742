"""Train a subject's head, or all of it, on a fold's training rows and score its test rows.

Public: FineTune, FineTuneResult, SplitRun, run, suited_to, loss_trend, with_losses_growing,
changed_backbone, inversion, loss_difference, HEADS, STARTS, FEW_ROWS.

How a formation energy comes about. CHGNet predicts total energies: the mean over atoms of its
readout, plus energies of the elements (AtomRef). By default (`transform="refit-residual"`) the
readout is trained on its own scale: a per-element L1 refit on training rows, made with the start's
own total energies, is added to e_form and taken off again from every prediction. So epoch 0 is the
zero-shot prediction under the alignment `refit`, and training can only show what it adds to that.

Because the rest of the network is frozen, its features of every atom are computed once and kept in
the store; an epoch over 20,000 crystals then takes seconds. With `cached=False` they are computed
for every batch anew. Training more than the readout (`head="readout+last-conv"`,
`trainable="all"`) runs chgnet's modules on every batch and keeps nothing: the inputs of a
convolution are features of edges, thirty times as many as atoms.

A run is addressed by its start, settings and rows. Finished runs are stored whole, so a second
session trains nothing; one that was killed goes on from the last epoch's checkpoint, and one that
asks for what another is just training waits for it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from harness.claims import Interval, Measurement
from harness.data.crystals import Crystals
from harness.data.dataset import Dataset, Fold, Split
from harness.engines import engine
from harness.errors import ConfigError, DataError, NotAvailable
from harness.models.protocol import Identity
from harness.models.threads import one_thread, without_denormals
from harness.models.training import transforms
from harness.models.training.checkpoints import Checkpoints
from harness.models.training.features import FeatureStore
from harness.models.training.heads import (
    Backbone,
    FreshFeatures,
    Head,
    StoredFeatures,
    rescale,
)
from harness.models.training.loop import Settings, keep, outputs_of, train
from harness.models.training.transforms import Rows, Transform
from harness.scores import Scored
from harness.statistics import student_t
from harness.store import MakeProgress, PredictionStore, refit_once, row_digest

if TYPE_CHECKING:
    from harness.models.chgnet.model import CHGNetModel
    from harness.models.chgnet.trainable import TrainableCHGNet
    from harness.models.protocol import Model

# Raise it when a change here or in models/training moves a prediction.
ENGINE = engine("training", "3")
HEADS = {"readout": ("mlp",), "readout+last-conv": ("mlp", "atom_conv_layers.-1")}
TRAINABLE = ("head", "all")
STARTS = ("pretrained", "new-last-layer", "shuffled", "random")


@dataclass(frozen=True, kw_only=True)
class FineTune:
    """Settings of a training; all of them are part of what its result is addressed by."""

    head: str = "readout"  # or "readout+last-conv"
    trainable: str = "head"  # "all": everything that moves an energy (meant for a GPU)
    start: str = "pretrained"  # "new-last-layer", "shuffled", "random" (from scratch)
    epochs: int = 8  # the founding note asks for 5 to 10
    learning_rate: float = 1e-3  # Adam's, and the peak of the schedule
    batch_structures: int = 64
    loss: str = "mae"  # or "huber"
    huber_delta: float = 0.1  # in units of the transformed target, eV/atom without standardising
    transform: str = "refit-residual"  # see models/training/transforms
    schedule: str = "constant"  # "cosine", "one-cycle"
    ema: float | None = None  # decay of an average of the parameters, predicted with
    validation_fraction: float = 0.1  # of the training rows, held back for the early stop
    patience: int | None = 3  # epochs without a better validation MAE; None: never stop early
    max_train_rows: int | None = None  # at most so many training rows, drawn by rows_seed
    rows_seed: int = 0  # apart from the seed, so that seeds can be compared on the same rows
    bootstrap: bool = False  # fit a resample of the fitted rows, drawn with replacement by the seed
    seed: int = 0  # of validation split, resample, new weights and data order
    start_seed: int | None = None  # of new weights alone; None: the seed
    repeat: int = 0  # trains the very same again; only where the result is kept depends on it
    cached: bool = True  # features once, not for every batch (a head of the readout only)
    also_trainable: tuple[str, ...] = ()  # frozen modules trained all the same: a planted fault

    def __post_init__(self) -> None:
        if self.head not in HEADS or self.trainable not in TRAINABLE or self.start not in STARTS:
            raise ConfigError(
                f"head={self.head!r}, trainable={self.trainable!r}, start={self.start!r}: known "
                f"are {', '.join(HEADS)}; {', '.join(TRAINABLE)}; {', '.join(STARTS)}"
            )
        if not 0 <= self.validation_fraction < 1:
            raise ConfigError(
                f"validation_fraction={self.validation_fraction} is outside [0, 1); 0.1 is usual"
            )
        if self.max_train_rows is not None and self.max_train_rows < 1:
            raise ConfigError(f"max_train_rows={self.max_train_rows}: give at least one, or None")
        transforms.parse(self.transform)
        self.settings()

    def settings(self) -> Settings:
        """What the training loop needs to know."""
        return Settings(
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            batch_structures=self.batch_structures,
            loss=self.loss,
            huber_delta=self.huber_delta,
            schedule=self.schedule,
            ema=self.ema,
            patience=self.patience,
            seed=self.seed,
        )

    @property
    def label(self) -> str:
        """What is trained, in words: `head-only`, `head and last convolution`, `all weights`."""
        if self.trainable == "all":
            what = "all weights"
        else:
            what = "head-only" if self.head == "readout" else "head and last convolution"
        return what if self.start == "pretrained" else f"{what}, {self.start} start"

    @property
    def trained_modules(self) -> tuple[str, ...]:
        """Names of the trained modules; "" is the whole network."""
        if self.trainable == "all":
            return ("",)
        return (*HEADS[self.head], *self.also_trainable)


# For sets of some hundred rows: batches small enough that an epoch is more than a few steps.
FEW_ROWS = FineTune(batch_structures=16)


def suited_to(fold: Fold, *, at_most: int | None, sample: int | None = None) -> FineTune:
    """Settings for so many training rows as a fold has.

    Args:
        at_most: training rows in use; None: all.
        sample: of test rows. Where it cuts them it cuts training rows too, and else nothing.
    """
    base = FEW_ROWS if fold.trains_on_few else FineTune()
    cuts = sample is not None and sample < len(fold.test_rows)
    limits = [limit for limit in (at_most, sample if cuts else None) if limit is not None]
    return replace(base, max_train_rows=min(limits, default=None))


@dataclass(frozen=True, kw_only=True, eq=False)
class SplitRun:
    """One training, on one split of the fold. Arrays of curves start with epoch 0, the start."""

    test_rows: np.ndarray  # (m,) positions in the data set
    train_rows: np.ndarray  # (k,) positions: all rows the training could see
    fit_rows: np.ndarray  # (f,) positions fitted, repeats where resampled
    validation_rows: np.ndarray  # (v,) positions held back for the early stop
    e_form_ev_per_atom: np.ndarray  # (m,) predictions, nan where not scored
    start_ev_per_atom: np.ndarray  # (m,) the same before any training
    outputs: np.ndarray  # (m,) of the trained network, in the transform's units
    problems: dict[int, str]  # test row (position in the data set) -> why it was not scored
    train_loss: np.ndarray  # (e + 1,) over all fitted rows, in the transform's units
    train_mae_ev_per_atom: np.ndarray  # (e + 1,)
    validation_mae_ev_per_atom: np.ndarray  # (e + 1,), nan without validation rows
    learning_rates: np.ndarray  # (e,) as the optimiser had it in the last step of each epoch
    best_epoch: int
    stopped_early: bool
    weights: dict[str, np.ndarray]  # trained parameters kept, by name
    transform: Transform
    test_context: Rows  # what the transform needs of the test rows
    order_sha256: str  # of the rows in the order they were seen
    before: dict[str, str]  # module tensor -> sha256 at the start
    after: dict[str, str]  # and at the end
    calls: dict[str, int]  # how often each lever's code ran

    @property
    def weights_sha256(self) -> str:
        """Of the trained parameters kept, names and bytes."""
        names = sorted(self.weights)
        return row_digest(names, *(self.weights[name] for name in names))

    @property
    def changed(self) -> frozenset[str]:
        """Names of the network's tensors whose bytes differ from the start's."""
        return frozenset(name for name in self.before if self.before[name] != self.after[name])


@dataclass(frozen=True, kw_only=True, eq=False)
class FineTuneResult:
    """A subject trained on each split of a fold, ready to be scored."""

    config: FineTune
    fold: Fold
    identity: Identity  # of the start
    subject: str  # the name of what was asked to be trained
    runs: tuple[SplitRun, ...]

    @property
    def name(self) -> str:
        """The trained subject's name in records."""
        return f"{self.identity.name} {self.config.label}"

    @property
    def probes(self) -> dict[str, int]:
        """How often the code of each lever ran, over all splits."""
        total: dict[str, int] = {}
        for run_ in self.runs:
            for name, count in run_.calls.items():
                total[name] = total.get(name, 0) + count
        return total

    def scored(self) -> Scored:
        """The trained subject's formation energies of the test rows."""
        return self._scored([r.e_form_ev_per_atom for r in self.runs], self.name)

    def start(self) -> Scored:
        """The same rows before any training: epoch 0."""
        return self._scored([r.start_ev_per_atom for r in self.runs], f"{self.name}, epoch 0")

    def outputs(self) -> Scored:
        """The network's outputs taken as energies, the inverse transform left out: a fault."""
        return self._scored([r.outputs for r in self.runs], f"{self.name}, not inverted")

    def _scored(self, predicted: list[np.ndarray], name: str) -> Scored:
        dataset = self.fold.dataset
        rows = np.concatenate([r.test_rows for r in self.runs])
        trained = np.concatenate([r.e_form_ev_per_atom for r in self.runs])
        covered = np.isfinite(trained)
        absent = {
            "left out by --sample": len(self.fold.test_rows) - len(rows),
            "not in the data set at hand": self.fold.n_claimed - len(self.fold.test_rows),
        }
        kept = rows[covered]
        return Scored(
            model=name,
            subject=self.subject,
            dataset=dataset.name,
            ids=dataset.ids[kept],
            formulas=dataset.reduced_formulas()[kept],
            reference_ev_per_atom=dataset.target_ev_per_atom[kept],
            predicted_ev_per_atom=np.concatenate(predicted)[covered],
            of=self.fold.n_claimed,
            excluded=dict(Counter(why for run_ in self.runs for why in run_.problems.values())),
            absent={reason: n for reason, n in absent.items() if n},
            inputs={**dataset.inputs, self.identity.name: self.identity.weights_sha256},
            details={
                "config": asdict(self.config),
                "trained_rows": [len(r.fit_rows) for r in self.runs],
                "validation_rows": [len(r.validation_rows) for r in self.runs],
                "best_epoch": [r.best_epoch for r in self.runs],
                "epochs_run": [len(r.learning_rates) for r in self.runs],
                "validation_mae_ev_per_atom": [
                    _number(r.validation_mae_ev_per_atom[r.best_epoch]) for r in self.runs
                ],
                "trained_weights_sha256": [r.weights_sha256 for r in self.runs],
                "data_order_sha256": [r.order_sha256 for r in self.runs],
                "calls": self.probes,
            },
        )


def run(
    model: Model,
    fold: Fold,
    store: PredictionStore,
    config: FineTune = FineTune(),
    *,
    test_rows: np.ndarray | None = None,
    training_targets: np.ndarray | None = None,
    progress: MakeProgress | None = None,
) -> FineTuneResult:
    """Train on each split's training rows and predict its test rows, on the model's device.

    Args:
        test_rows: positions of the fold's test rows to score; the others count as left out. By
            default all.
        training_targets: (n,) eV/atom for every row of the data set, to train on in place of its
            own: how a control deals the targets anew. Scores stay against the data set's.
    Raises:
        DataError: no test rows, no training rows, or a training target that is not finite; or the
            checkpoint of another training; or a full disk, earlier checkpoints being intact.
        NotAvailable: the model has no head that could be trained.
    """
    if len(fold.test_rows) == 0:
        raise DataError(f"fold {fold.number} of {fold.dataset.name} has no test rows; take another")
    start = _start(model, config)
    targets = fold.dataset.target_ev_per_atom if training_targets is None else training_targets
    splits = fold.splits
    if test_rows is not None:
        splits = tuple(
            Split(train=split.train, test=np.intersect1d(split.test, test_rows))
            for split in fold.splits
        )
    # A new last layer leaves the backbone as it was, and its features may be there already.
    backbone = cast("Backbone", model) if config.start == "new-last-layer" else start
    runs = [
        _split(start, backbone, fold, split, store, config, targets, progress) for split in splits
    ]
    return FineTuneResult(
        config=config,
        fold=fold,
        identity=start.identity,
        subject=model.identity.name,
        runs=tuple(runs),
    )


def loss_trend(results: Sequence[FineTuneResult]) -> Measurement:
    """Slope of the logarithm of the training loss, per epoch, over trainings that differ by seed.

    A curve's slope is that of the least-squares line through ln(loss / loss at the start), epoch 0
    included. The splits of a fold share most of their rows, so a seed counts once, with the mean
    over its splits; the interval is Student's over the seeds.

    Raises:
        DataError: fewer than two seeds, or a start that leaves no loss.
    """
    curves = [[run_.train_loss for run_ in result.runs] for result in results]
    if len(curves) < 2 or any(curve[0] <= 0 for of_seed in curves for curve in of_seed):
        raise DataError(
            f"{len(curves)} seed(s): a trend over seeds needs at least two, and losses above 0"
        )
    slopes = [[_slope(curve) for curve in of_seed] for of_seed in curves]
    first = results[0]
    of = sum(len(split.train) for split in first.fold.splits)
    drawn, fitted, held = (
        sum(len(np.unique(getattr(run_, name))) for run_ in first.runs)
        for name in ("train_rows", "fit_rows", "validation_rows")
    )
    if (
        first.config.bootstrap
    ):  # a resample leaves rows out, and does not say which it could not use
        lost, unused = {}, {"not drawn by the resample, or not usable": drawn - fitted - held}
    else:
        lost, unused = {"not usable in training": drawn - fitted - held}, {}
    unused |= {"held back for the early stop": held, "training rows not drawn": of - drawn}
    return Measurement(
        quantity="slope of ln(training loss) per epoch",
        interval=student_t(np.mean(slopes, axis=1), unit="seeds"),
        scored=fitted,
        of=of,
        dataset=first.fold.dataset.name,
        model=first.name,
        subject=first.subject,
        excluded={reason: rows for reason, rows in lost.items() if rows},
        absent={reason: rows for reason, rows in unused.items() if rows},
        inputs={**first.fold.dataset.inputs, first.identity.name: first.identity.weights_sha256},
        details={
            "slopes_of_splits_by_seed": slopes,
            "seeds": [result.config.seed for result in results],
            "train_loss": [curve.tolist() for of_seed in curves for curve in of_seed],
            "config": asdict(first.config),
        },
    )


def _slope(curve: np.ndarray) -> float:
    """Per epoch, of the line through the logarithm of a loss; exactly 0 where nothing moves."""
    epochs = np.arange(len(curve)) - (len(curve) - 1) / 2
    fallen = np.log(np.maximum(curve, 1e-12) / curve[0])
    return float(epochs @ fallen / (epochs @ epochs))


def with_losses_growing(result: FineTuneResult, rate: float) -> FineTuneResult:
    """The same training with losses that grow by so much an epoch: how a control plants a fault."""
    runs = tuple(
        replace(run_, train_loss=run_.train_loss * np.exp(rate * np.arange(len(run_.train_loss))))
        for run_ in result.runs
    )
    return replace(result, runs=runs)


def changed_backbone(result: FineTuneResult) -> Measurement:
    """How many tensors outside the declared head differ from the start's, by sha256, worst split.

    A placeholder where the head did not change either: then nothing was trained.
    """
    head = tuple(f"{module}." for module in _module_names(result.runs[0].before, result.config))
    strayed = [
        sorted(name for name in run_.changed if not name.startswith(head)) for run_ in result.runs
    ]
    moved = [[name for name in run_.changed if name.startswith(head)] for run_ in result.runs]
    names = result.runs[0].before
    return Measurement(
        quantity="tensors of the frozen backbone that changed",
        interval=Interval.exact(max(map(len, strayed)), n=len(names)),
        scored=len(names),
        of=len(names),
        dataset=result.fold.dataset.name,
        model=result.name,
        subject=result.subject,
        inputs={result.identity.name: result.identity.weights_sha256},
        details={
            "coverage_counts": "tensors of the network, buffers included",
            "changed_outside_the_head": sorted({name for names in strayed for name in names}),
            "changed_in_the_head": sorted({name for names in moved for name in names}),
            "head": [name.rstrip(".") for name in head],
            "config": asdict(result.config),
        },
        placeholder="" if all(moved) else "the head did not change: nothing was trained",
    )


def inversion(result: FineTuneResult, predicted: Scored | None = None) -> Measurement:
    """Largest deviation, in eV/atom, of targets from their way there and back, and of predictions
    from energies that the transform turns into the network's outputs.

    Predictions were made with the inverse; here they go through the forward transform, and what it
    gives is compared with the outputs. The difference is in the transform's units, and counts in
    eV/atom by the transform's own slope there.

    Args:
        predicted: what is offered as formation energies; by default the result's own.
    """
    dataset = result.fold.dataset
    own = result.scored()
    offered = (own if predicted is None else predicted).predicted_ev_per_atom
    if len(offered) == 0:
        raise DataError(f"{result.name} scored no row, so there is no prediction to invert")
    there_and_back, apart, begin = 0.0, 0.0, 0
    for run_ in result.runs:
        kept = np.flatnonzero(np.isfinite(run_.e_form_ev_per_atom))
        context, forward = run_.test_context.take(kept), run_.transform.apply
        target = dataset.target_ev_per_atom[run_.test_rows[kept]]
        returned = run_.transform.invert(forward(target, context), context)
        there_and_back = max(there_and_back, float(np.abs(returned - target).max(initial=0.0)))
        energies = offered[begin : begin + len(kept)]
        slope = (forward(energies + _STEP, context) - forward(energies - _STEP, context)) / (
            2 * _STEP
        )
        difference = (forward(energies, context) - run_.outputs[kept]) / slope
        apart = max(apart, float(np.abs(difference).max(initial=0.0)))
        begin += len(kept)
    return Measurement(
        quantity="largest deviation of the inverse transform",
        interval=Interval.exact(max(there_and_back, apart), n=len(own)),
        scored=len(own),
        of=own.of,
        dataset=dataset.name,
        model=result.name if predicted is None else predicted.model,
        subject=result.subject,
        excluded=own.excluded,
        absent=own.absent,
        inputs=own.inputs,
        details={
            "of_targets_ev_per_atom": there_and_back,
            "of_predictions_ev_per_atom": apart,
            "transform": result.config.transform,
        },
    )


_STEP = 1e-4  # eV/atom, for the slope of a transform


def loss_difference(one: FineTuneResult, other: FineTuneResult) -> Measurement:
    """Largest difference between two trainings' losses, over epochs and splits, eV/atom.

    Raises:
        DataError: they ran for different numbers of epochs.
    """
    differences = []
    for mine, theirs in zip(one.runs, other.runs, strict=True):
        if len(mine.train_loss) != len(theirs.train_loss):
            raise DataError(
                f"{len(mine.train_loss) - 1} and {len(theirs.train_loss) - 1} epochs: losses of "
                "different lengths; compare trainings without an early stop"
            )
        for name in ("train_mae_ev_per_atom", "validation_mae_ev_per_atom"):
            difference = np.abs(getattr(mine, name) - getattr(theirs, name))
            differences.append(float(np.nan_to_num(difference).max()))
    n_fitted = sum(len(np.unique(run_.fit_rows)) for run_ in one.runs)
    return Measurement(
        quantity="largest difference of losses",
        interval=Interval.exact(max(differences), n=n_fitted),
        scored=n_fitted,
        of=n_fitted,
        dataset=one.fold.dataset.name,
        model=one.name,
        subject=one.subject,
        inputs={one.identity.name: one.identity.weights_sha256},
        details={
            "train_mae_ev_per_atom": [run_.train_mae_ev_per_atom.tolist() for run_ in one.runs],
            "config": asdict(one.config),
        },
    )


_OF_A_BACKBONE = ("featurise", "head", "composition_energies")


def _start(model: Model, config: FineTune) -> Backbone:
    """The model training starts from.

    Raises:
        NotAvailable: the model has no head to train, or none that can be drawn anew.
    """
    # asked of the object, not of its class: a subject may pass on what another one has
    missing = [name for name in _OF_A_BACKBONE if not callable(getattr(model, name, None))]
    if missing:
        raise NotAvailable(
            f"{model.identity.name} offers no features and no head to train; its adapter would "
            f"need {', '.join(f'{name}()' for name in missing)}, as CHGNet's has"
        )
    if config.start == "pretrained":
        return cast("Backbone", model)
    seed = config.seed if config.start_seed is None else config.start_seed
    chgnet = _require_chgnet(model, f"start={config.start!r}")
    from harness.models.chgnet import trainable

    return trainable.variant(chgnet, config.start, seed)


def _require_chgnet(model: Any, what: str) -> CHGNetModel:
    from harness.models.chgnet.model import CHGNetModel

    if not isinstance(model, CHGNetModel):
        raise NotAvailable(f"{what} is there for CHGNet only, not for {model.identity.name}")
    return model


@dataclass(frozen=True, kw_only=True, eq=False)
class _Task:
    """One split's rows, by position in ``rows``, which are the data set's in use."""

    dataset: Dataset
    rows: np.ndarray  # (n,) ascending positions in the data set
    train: np.ndarray  # (k,) positions in rows
    test: np.ndarray  # (m,) positions in rows
    targets: np.ndarray  # (n,) to train on
    own_energies: Callable[[Crystals], np.ndarray]  # the start's, of the composition alone

    @cached_property
    def crystals(self) -> Crystals:
        """Of rows. Made when asked for: a training that is stored needs none of it."""
        return self.dataset.require_crystals()[self.rows]

    @cached_property
    def context(self) -> Rows:
        """What transforms know of rows."""
        return self._known_of(self.rows, self.crystals)

    def test_context(self) -> Rows:
        """The same of test rows alone."""
        rows = self.rows[self.test]
        return self._known_of(rows, self.dataset.require_crystals()[rows])

    def _known_of(self, rows: np.ndarray, crystals: Crystals) -> Rows:
        return Rows(
            compositions=self.dataset.compositions[rows],
            own_ev_per_atom=self.own_energies(crystals),
        )


def _split(
    start: Backbone,
    backbone: Backbone,
    fold: Fold,
    split: Split,
    store: PredictionStore,
    config: FineTune,
    targets: np.ndarray,
    progress: MakeProgress | None,
) -> SplitRun:
    dataset = fold.dataset
    train_rows = _drawn(split.train, config)
    if len(train_rows) == 0:
        raise DataError(
            f"fold {fold.number} of {dataset.name} has no training rows, so there is nothing to "
            "fine-tune on; use a data set with training rows"
        )
    if len(bad := np.flatnonzero(~np.isfinite(targets[train_rows]))):
        raise DataError(
            f"{len(bad)} of {len(train_rows)} training targets are not finite, first row "
            f"{train_rows[bad[0]]} ({dataset.ids[train_rows[bad[0]]]}); remove or restore them"
        )
    rows = np.unique(np.concatenate([train_rows, split.test]))
    task = _Task(
        dataset=dataset,
        rows=rows,
        train=np.searchsorted(rows, train_rows),
        test=np.searchsorted(rows, split.test),
        targets=targets[rows],
        own_energies=start.composition_energies,
    )
    hashes = dataset.require_crystals().row_hashes()[rows]  # of all rows once, for every training
    identity = Identity(
        name=f"{start.identity.name} {config.label}",
        weights_sha256=start.identity.weights_sha256,
        settings={
            **{f"start {key}": value for key, value in start.identity.settings.items()},
            "engine": ENGINE,
            **{key: json.dumps(value) for key, value in asdict(config).items()},
        },
    )
    inputs = {
        "training rows": row_digest(hashes[task.train], task.targets[task.train]),
        "test rows": row_digest(hashes[task.test]),
    }
    stored = store.trained(
        identity,
        inputs,
        lambda checkpoints: _train(start, backbone, task, store, config, checkpoints, progress),
    )
    return _restored(stored, task, config)


def _drawn(rows: np.ndarray, config: FineTune) -> np.ndarray:
    """The training rows in use, ascending."""
    if config.max_train_rows is not None and len(rows) > config.max_train_rows:
        # a shorter draw is the beginning of a longer one: their features are in the store already
        rows = _draw(config.rows_seed, "rows").permutation(rows)[: config.max_train_rows]
    return np.sort(rows)


def _draw(seed: int, what: str) -> np.random.Generator:
    """One independent stream of random numbers for each thing that is drawn."""
    return np.random.default_rng([seed, ("rows", "validation", "bootstrap").index(what)])


def _train(
    start: Backbone,
    backbone: Backbone,
    task: _Task,
    store: PredictionStore,
    config: FineTune,
    checkpoints: Checkpoints,
    progress: MakeProgress | None,
) -> dict[str, np.ndarray]:
    """Features of all rows, then the training: everything that is stored of it."""
    tick = progress(f"{backbone.identity.name} features", len(task.rows)) if progress else None
    kept = FeatureStore(root=store.root / "features")
    features, problems = kept.features(backbone, task.crystals, tick)
    what = f"{start.identity.name} {config.label}, seed {config.seed}, epochs"
    bar = progress(what, config.epochs) if progress else None
    with one_thread(), without_denormals():
        return _train_on(start, task, features, problems, store, config, checkpoints, bar)


def _train_on(
    start: Backbone,
    task: _Task,
    features: np.ndarray,
    problems: dict[int, str],
    store: PredictionStore,
    config: FineTune,
    checkpoints: Checkpoints,
    on_epoch: Callable[[int], None] | None,
) -> dict[str, np.ndarray]:
    device = str(getattr(start, "device", "cpu"))
    usable = np.ones(len(task.rows), dtype=bool)
    usable[list(problems)] = False
    train_rows = task.train[usable[task.train]]
    if len(train_rows) == 0:
        raise DataError(
            f"none of the {len(task.train)} training rows of {task.dataset.name} can be used, the "
            f"first because of: {problems[int(task.train[0])]}. Use other training rows."
        )
    n_atoms = task.crystals.n_atoms
    stored_features = StoredFeatures(features, n_atoms, device)
    as_it_starts = Head(start.head().to(device), stored_features, n_atoms)
    transform = transforms.fit(
        config.transform,
        task.targets[train_rows],
        task.context.take(train_rows),
        outputs_of(as_it_starts, train_rows),
        refit=lambda *rows: refit_once(store, *rows),
    )
    trainable = _trainable(start, task, config, as_it_starts, device)
    before = _hashes(start, trainable)
    if (scale := transform.output_scale) is not None and scale != (0.0, 1.0):
        rescale(trainable.last_layer, *scale)

    # a row with an element the transform has no energy of comes back as nan
    covered = np.isfinite(transform.invert(np.zeros(len(task.rows)), task.context)) & usable
    test_rows = task.test[covered[task.test]]

    def predict() -> tuple[np.ndarray, np.ndarray]:
        outputs, energies = np.full((2, len(task.rows)), np.nan)
        outputs[test_rows] = outputs_of(trainable, test_rows)
        energies[test_rows] = transform.invert(outputs[test_rows], task.context.take(test_rows))
        return outputs[task.test], energies[task.test]

    def error(rows: np.ndarray, outputs: np.ndarray) -> float:
        predicted = transform.invert(outputs, task.context.take(rows))
        return float(np.abs(predicted - task.targets[rows]).mean())

    _, at_start = predict()
    fit_rows, held_rows = _divided(train_rows, config)
    wanted = np.full(len(task.rows), np.nan)
    wanted[train_rows] = transform.apply(task.targets[train_rows], task.context.take(train_rows))
    trained = train(
        trainable,
        wanted,
        fit_rows,
        held_rows,
        config.settings(),
        error=error,
        checkpoints=checkpoints,
        on_epoch=on_epoch,
    )
    keep(trained.state, trainable)
    outputs, energies = predict()
    record = {
        "best_epoch": trained.best_epoch,
        "stopped_early": trained.stopped_early,
        "order_sha256": trained.order_sha256,
        "before": before,
        "after": _hashes(start, trainable),
        "calls": {
            **trained.calls,
            **{f"transform:{stage}": n_rows for stage, n_rows in transform.calls.items()},
        },
    }
    return {
        "outputs": outputs,
        "e_form_ev_per_atom": energies,
        "start_ev_per_atom": at_start,
        "problem": np.array(_problems(task, problems, transform, covered), dtype=np.str_),
        "fit": np.searchsorted(task.train, fit_rows),
        "held": np.searchsorted(task.train, held_rows),
        "train_loss": trained.train_loss,
        "train_error": trained.train_error,
        "validation_error": trained.validation_error,
        "learning_rates": trained.learning_rates,
        "record": np.array(json.dumps(record, sort_keys=True)),
        **{f"transform/{key}": value for key, value in transform.parameters().items()},
        **{f"weight/{key}": value for key, value in trained.state.items()},
    }


def _trainable(
    start: Backbone, task: _Task, config: FineTune, head: Head, device: str
) -> Head | TrainableCHGNet:
    """What the loop trains: a head on features, or chgnet's modules on crystals."""
    if config.trained_modules == HEADS["readout"]:
        if config.cached:
            return head
        fresh = FreshFeatures(start, task.crystals, device)
        return Head(start.head().to(device), fresh, task.crystals.n_atoms)
    chgnet = _require_chgnet(start, "training more than the readout")
    from harness.models.chgnet import trainable

    names = ("",) if config.trainable == "all" else config.trained_modules
    names = tuple(name.replace("-1", str(trainable.n_convolutions(chgnet) - 1)) for name in names)
    return trainable.TrainableCHGNet(chgnet, task.crystals, names, device)


def _divided(train_rows: np.ndarray, config: FineTune) -> tuple[np.ndarray, np.ndarray]:
    """Rows to fit, and rows held back for the early stop; both out of the training rows."""
    n_held = int(config.validation_fraction * len(train_rows))
    held = np.sort(_draw(config.seed, "validation").permutation(train_rows)[:n_held])
    fitted = np.setdiff1d(train_rows, held)
    if config.bootstrap:
        fitted = _draw(config.seed, "bootstrap").choice(fitted, size=len(fitted))
    return fitted, held


def _problems(
    task: _Task, problems: dict[int, str], transform: Transform, covered: np.ndarray
) -> list[str]:
    """Of every test row, why it was not scored, or nothing."""
    rows = task.test.tolist()
    unseen = [row for row in rows if not covered[row] and row not in problems]
    symbols = transform.missing(task.context.compositions[unseen])
    reason = f"no refit reference for {' '.join(symbols)}"
    return [problems.get(row, "" if covered[row] else reason) for row in rows]


def _hashes(start: Backbone, trainable: Head | TrainableCHGNet) -> dict[str, str]:
    """sha256 of every tensor of the network as it is now, the trained ones included."""
    from harness.models.chgnet.model import CHGNetModel
    from harness.models.chgnet.trainable import tensors_of

    tensors = tensors_of(start) if isinstance(start, CHGNetModel) else {}
    return {
        name: row_digest(tensor.detach().cpu().numpy())
        for name, tensor in sorted({**tensors, **trainable.tensors()}.items())
    }


def _restored(stored: dict[str, np.ndarray], task: _Task, config: FineTune) -> SplitRun:
    """A run from what the store keeps; the same whether it was computed now or long ago."""

    def part(prefix: str) -> dict[str, np.ndarray]:
        return {k.removeprefix(prefix): v for k, v in stored.items() if k.startswith(prefix)}

    record = json.loads(str(stored["record"]))
    problems = stored["problem"].tolist()
    test_rows = task.rows[task.test]
    return SplitRun(
        test_rows=test_rows,
        train_rows=task.rows[task.train],
        fit_rows=task.rows[task.train[stored["fit"]]],
        validation_rows=task.rows[task.train[stored["held"]]],
        e_form_ev_per_atom=stored["e_form_ev_per_atom"],
        start_ev_per_atom=stored["start_ev_per_atom"],
        outputs=stored["outputs"],
        problems={row: why for row, why in zip(test_rows.tolist(), problems, strict=True) if why},
        train_loss=stored["train_loss"],
        train_mae_ev_per_atom=stored["train_error"],
        validation_mae_ev_per_atom=stored["validation_error"],
        learning_rates=stored["learning_rates"],
        best_epoch=int(record["best_epoch"]),
        stopped_early=bool(record["stopped_early"]),
        weights=part("weight/"),
        transform=transforms.restore(config.transform, part("transform/")),
        test_context=task.test_context(),
        order_sha256=str(record["order_sha256"]),
        before=record["before"],
        after=record["after"],
        calls=record["calls"],
    )


def _module_names(tensors: Mapping[str, str], config: FineTune) -> list[str]:
    """Full names of the declared head's modules: a position -1 becomes the last there is."""
    if config.trainable == "all":
        return sorted({name.split(".")[0] for name in tensors})
    last = max((int(n.split(".")[1]) for n in tensors if n.startswith("atom_conv")), default=0)
    return [name.replace("-1", str(last)) for name in HEADS[config.head]]


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
