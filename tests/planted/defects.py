"""The defects: what real projects get wrong, each as a small patch on the honest path.

`@defect(kind, what, run=..., caught_by=...)` makes one of a function that is handed a `Plant`. What
it is caught by is a pattern of what turns red: `changed`, `refuted` or `moved` and the claim, a
control that is not caught, a check that `broke`, or one of the project's own tests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from tests.planted.frame import Defect, Plant

DEFECTS: dict[str, Defect] = {}

ENERGIES, ROWS, OPPONENTS, SUBJECT, STORE, TRAINING, CURVES, VERDICTS = (
    "energies and references",
    "rows",
    "opponents",
    "subject",
    "store",
    "training",
    "curves and geometries",
    "verdicts",
)
# Where a defect is looked for: files of checks, and which of them.
ZERO_SHOT = ("checks/test_zero_shot.py", "-m", "fold0")
ALIGNED = (*ZERO_SHOT, "-k", "offset or vary or collapsing or drawn_apart")
SCORES = (*ZERO_SHOT, "-k", "below_the_baseline_on_record or offset or vary")
EXPERIMENTS = (*ZERO_SHOT, "-k", "experiments")
PAIRED = (*ZERO_SHOT, "-k", "row_by_row")
HEADS = ("checks/test_head_only.py", "-m", "fold0")
EFSM = ("checks/test_efsm.py", "-m", "fold0")
SOFTENING = ("checks/test_softening.py", "-m", "fold0", "-k", "not morse and not toy")
RELAX = ("checks/test_relax.py", "-m", "fold0")
UNSEEN = ("checks/test_integrity.py", "-m", "fold0")
LEVERS = ("checks/test_lever.py", "-m", "fold0")
ENSEMBLES = ("checks/test_ensemble.py", "-m", "fold0")
FEW = ("checks/test_fine_tune.py", "-m", "fold0")
TRAININGS = ("predictions/arrays", "predictions/checkpoints")


def defect(
    kind: str,
    what: str,
    run: tuple[str, ...],
    caught_by: str,
    *,
    unseen: bool = False,
    cold: tuple[str, ...] = (),
) -> Callable[[Callable[[Plant], None]], Callable[[Plant], None]]:
    """Registers a defect under its function's name."""

    def register(plant: Callable[[Plant], None]) -> Callable[[Plant], None]:
        name = plant.__name__.replace("_", "-")
        DEFECTS[name] = Defect(name, kind, what, plant, run, caught_by, unseen, cold)
        return plant

    return register


def with_energy(prediction: Any, change: Callable[[np.ndarray], np.ndarray]) -> Any:
    return replace(prediction, energy=change(prediction.energy.copy()))


def on_energies(plant: Plant, change: Callable[[np.ndarray, Any], np.ndarray]) -> None:
    """Change every energy the store gives: ``change`` of (n,) eV/atom and the crystals."""

    def around(original: Any, self: Any, model: Any, crystals: Any, *rest: Any, **more: Any) -> Any:
        given = original(self, model, crystals, *rest, **more)
        return with_energy(given, lambda energy: change(energy, crystals))

    plant.wrap("harness.store:PredictionStore.energies", around)


def on_embedded(plant: Plant, change: Callable[[Any], Any]) -> None:
    """Change the data set that comes with the project, after its hash was checked."""
    plant.wrap("harness.data.embedded:load", lambda original: change(original()))


def on_result(plant: Plant, change: Callable[[Any], Any]) -> None:
    """Change what the zero-shot procedure hands to the checks."""
    plant.wrap(
        "harness.runners.zero_shot:run",
        lambda original, *args, **kwargs: change(original(*args, **kwargs)),
    )


def on_scored(plant: Plant, change: Callable[[Any], Any]) -> None:
    """Change the scores of zero-shot, under every alignment."""

    def around(original: Any, self: Any, alignment: str) -> Any:
        found = original(self, alignment)
        return found if alignment == "none" else change(found)

    plant.wrap("harness.runners.zero_shot:ZeroShotResult.scored", around)


def leaking(split: Any, train: np.ndarray) -> Any:
    """A split that trains on rows it tests, which its class refuses."""
    made = object.__new__(type(split))
    object.__setattr__(made, "train", train)
    object.__setattr__(made, "test", split.test)
    return made


def with_every_row(fold: Any) -> Any:
    everything = np.arange(len(fold.dataset))
    return replace(fold, splits=tuple(leaking(split, everything) for split in fold.splits))


def kept(scored: Any, rows: np.ndarray) -> Any:
    """Some of the rows, as if there had never been others."""
    return replace(
        scored,
        ids=scored.ids[rows],
        formulas=scored.formulas[rows],
        reference_ev_per_atom=scored.reference_ev_per_atom[rows],
        predicted_ev_per_atom=scored.predicted_ev_per_atom[rows],
        without_group_ev_per_atom=tuple(e[rows] for e in scored.without_group_ev_per_atom),
        of=scored.of - (len(scored) - len(rows)),
    )


# --- energies and references


@defect(ENERGIES, "energies divided by the number of atoms twice", ALIGNED, r"changed zero-shot")
def divided_twice(plant: Plant) -> None:
    on_energies(plant, lambda energy, crystals: energy / crystals.n_atoms)


@defect(ENERGIES, "total energies scored as formation energies", ALIGNED, r"changed zero-shot")
def totals_scored(plant: Plant) -> None:
    def around(original: Any, self: Any, alignment: str) -> Any:
        from harness.models.alignment import References

        none = References(name=alignment, energies_ev_per_atom=np.zeros(118))
        return (none,) * len(original(self, alignment))

    plant.wrap("harness.runners.zero_shot:ZeroShotResult._references", around)


@defect(
    ENERGIES,
    "one compound's target a formula unit in place of an atom",
    ALIGNED,
    r"moved zero-shot.*self.*embedded",
    unseen=True,
)
def one_compound_in_another_unit(plant: Plant) -> None:
    def change(dataset: Any) -> Any:
        target = dataset.target_ev_per_atom.copy()
        target[3] *= 2
        return replace(dataset, target_ev_per_atom=target)

    on_embedded(plant, change)


@defect(
    ENERGIES,
    "one element's reference 0.05 eV/atom off, as of another functional",
    ALIGNED,
    r"moved zero-shot\S*\[self\]",
    unseen=True,
)
def one_reference_of_another_functional(plant: Plant) -> None:
    def around(original: Any, *args: Any) -> Any:
        references = original(*args)
        energies = references.energies_ev_per_atom.copy()
        energies[12] += 0.05  # Al
        return replace(references, energies_ev_per_atom=energies)

    plant.wrap("harness.runners.zero_shot:own_references", around)


@defect(
    ENERGIES,
    "the refit scored as the subject's own references",
    ALIGNED,
    r"broke .*are called|moved zero-shot\S*\[self\]",
    unseen=True,
)
def one_alignment_under_anothers_name(plant: Plant) -> None:
    on_result(
        plant,
        lambda result: replace(
            result, references={**result.references, "self": result.references["refit"]}
        ),
    )


@defect(
    ENERGIES,
    "the refit scored as the subject's own references, and called so",
    ALIGNED,
    r"moved zero-shot\S*\[self\]",
    unseen=True,
)
def one_alignment_under_anothers_name_throughout(plant: Plant) -> None:
    def change(result: Any) -> Any:
        renamed = tuple(replace(r, name="self") for r in result.references["refit"])
        return replace(result, references={**result.references, "self": renamed})

    on_result(plant, change)


def refitting_on(plant: Plant, rows: Callable[[Any], Any]) -> None:
    plant.wrap(
        "harness.runners.zero_shot:run",
        lambda original, model, fold, *rest, **more: original(model, rows(fold), *rest, **more),
    )


@defect(
    ENERGIES,
    "the refit fitted on the rows it is tested on, and on no others",
    SCORES,
    r"changed zero-shot.beats-baseline\[refit\]: held -> (refuted|inconclusive)",
)
def refit_on_tested_rows(plant: Plant) -> None:
    def tested(fold: Any) -> Any:
        return replace(fold, splits=tuple(leaking(split, split.test) for split in fold.splits))

    refitting_on(plant, tested)


@defect(
    ENERGIES,
    "the refit fitted on every row",
    SCORES,
    r"moved zero-shot.beats-baseline\[refit\]",
)
def refit_on_every_row(plant: Plant) -> None:
    refitting_on(plant, with_every_row)


@defect(
    ENERGIES,
    "the refit fitted on every row, as labels of tested rows show",
    (*UNSEEN, "-k", "refit"),
    r"(refuted|changed) integrity.labels-unseen\[refit\]",
)
def refit_that_sees_labels(plant: Plant) -> None:
    refitting_on(plant, with_every_row)


@defect(ENERGIES, "a row that failed given 0 eV", ALIGNED, r"changed zero-shot|moved zero-shot")
def a_failed_row_given_zero(plant: Plant) -> None:
    def change(energy: np.ndarray, _: Any) -> np.ndarray:
        energy[5] = 0.0
        return energy

    on_energies(plant, change)


@defect(ENERGIES, "predictions shrunk by a tenth", ALIGNED, r"moved zero-shot.aligned-spread")
def predictions_shrunk(plant: Plant) -> None:
    on_scored(plant, lambda found: found.with_predictions(lambda e: 0.9 * e, model=found.model))


@defect(ENERGIES, "predictions shrunk by 1 %", ALIGNED, r"moved zero-shot.aligned-spread")
def predictions_shrunk_a_little(plant: Plant) -> None:
    on_scored(plant, lambda found: found.with_predictions(lambda e: 0.99 * e, model=found.model))


@defect(
    ENERGIES,
    "the code of the forward pass changed, the cache warm with what it gave before",
    ALIGNED,
    r"moved zero-shot",
    unseen=True,
)
def stale_energies(plant: Plant) -> None:
    plant.edit(
        "harness/models/chgnet/forward.py",
        "return F.linear(x, *w.readout[-1]).view(-1)",
        "return 1.01 * F.linear(x, *w.readout[-1]).view(-1)",
    )


# --- rows


@defect(ROWS, "labels one row apart", ALIGNED, r"changed zero-shot")
def rows_one_apart(plant: Plant) -> None:
    on_embedded(plant, lambda d: replace(d, target_ev_per_atom=np.roll(d.target_ev_per_atom, 1)))


@defect(ROWS, "labels of tested rows dealt to others", ALIGNED, r"changed zero-shot")
def labels_dealt(plant: Plant) -> None:
    def change(found: Any) -> Any:
        order = np.random.default_rng(0).permutation(len(found))
        return replace(found, reference_ev_per_atom=found.reference_ev_per_atom[order])

    on_scored(plant, change)


@defect(ROWS, "two labels exchanged", ALIGNED, r"moved zero-shot", unseen=True)
def two_labels_exchanged(plant: Plant) -> None:
    def change(dataset: Any) -> Any:
        target = dataset.target_ev_per_atom.copy()
        target[[2, 9]] = target[[9, 2]]
        return replace(dataset, target_ev_per_atom=target)

    on_embedded(plant, change)


@defect(
    ROWS,
    "the refit of the next split taken, which has seen the row",
    SCORES,
    r"(changed|moved) zero-shot\S*\[refit\]",
)
def split_shifted(plant: Plant) -> None:
    on_result(plant, lambda result: replace(result, owner=(result.owner + 1) % 5))


@defect(ROWS, "a training row in the test fold", ALIGNED, r"broke .*train and in test", unseen=True)
def a_training_row_tested(plant: Plant) -> None:
    def change(dataset: Any) -> Any:
        first, *others = dataset.fold_splits[0]
        first = replace(first, train=np.append(first.train, first.test[0]))
        return replace(dataset, fold_splits=((first, *others),))

    on_embedded(plant, change)


@defect(
    ROWS,
    "polymorphs of a tested compound among the training rows",
    (*UNSEEN, "-k", "trained_on_and_tested"),
    r"(refuted|changed) integrity.formulas-apart\[thermochemistry\]",
    unseen=True,
)
def a_polymorph_trained_on(plant: Plant) -> None:
    def by_row(original: Any, compositions: np.ndarray, *rest: Any) -> Any:
        part = np.arange(len(compositions)) % 5
        split = type(original(compositions, *rest)[0])
        return tuple(
            split(train=np.flatnonzero(part != k), test=np.flatnonzero(part == k)) for k in range(5)
        )

    plant.wrap("harness.data.thermochemistry:cross_fitted", by_row)


@defect(
    ROWS,
    "the same compounds again under other ids",
    (*UNSEEN, "-k", "trained_on_and_tested"),
    r"(refuted|changed) integrity.formulas-apart\[embedded\]",
)
def duplicates_under_other_ids(plant: Plant) -> None:
    def change(dataset: Any) -> Any:
        n = len(dataset)
        twice = np.append(np.arange(n), np.arange(5))
        splits = tuple(
            replace(
                s,
                train=np.append(s.train, n + np.flatnonzero(~np.isin(range(5), s.test))),
                test=np.append(s.test, n + np.flatnonzero(np.isin(range(5), s.test))),
            )
            for s in dataset.fold_splits[0]
        )
        return replace(
            dataset,
            ids=np.append(dataset.ids, [f"{i}-again" for i in dataset.ids[:5]]),
            target_ev_per_atom=dataset.target_ev_per_atom[twice],
            crystals=dataset.crystals[twice],
            compositions=dataset.compositions[twice],
            fold_splits=(splits,),
            n_official=n + 5,
        )

    on_embedded(plant, change)


@defect(
    ROWS,
    "every row counted twice, as if independent",
    ALIGNED,
    r"broke .*were scored, and the interval",
    unseen=True,
)
def rows_counted_twice(plant: Plant) -> None:
    def around(original: Any, columns: np.ndarray, clusters: np.ndarray, *rest: Any) -> Any:
        columns = np.atleast_2d(columns)
        again = np.char.add(clusters.astype(str), "'")
        return original(np.hstack([columns, columns]), np.append(clusters, again), *rest)

    plant.wrap("harness.scores:bootstrap", around)


@defect(
    ROWS,
    "rows resampled in place of formulas",
    EXPERIMENTS,
    r"broke .*were scored, and the interval",
    unseen=True,
)
def rows_as_units(plant: Plant) -> None:
    plant.wrap(
        "harness.scores:bootstrap",
        lambda original, columns, clusters, *rest: original(
            columns, np.arange(len(clusters)), *rest
        ),
    )


def drop_worst(plant: Plant, share: float) -> None:
    def change(found: Any) -> Any:
        order = np.argsort(np.abs(found.error_ev_per_atom))
        return kept(found, np.sort(order[: len(found) - max(1, round(share * len(found)))]))

    on_scored(plant, change)


@defect(ROWS, "the worst 2 % of rows dropped uncounted", ALIGNED, r"moved zero-shot", unseen=True)
def worst_rows_dropped(plant: Plant) -> None:
    drop_worst(plant, 0.02)


@defect(ROWS, "the worst fifth of rows dropped uncounted", ALIGNED, r"moved zero-shot", unseen=True)
def worst_fifth_dropped(plant: Plant) -> None:
    drop_worst(plant, 0.2)


@defect(
    ROWS, "hard rows taken out where the file is read", ALIGNED, r"moved zero-shot", unseen=True
)
def hard_rows_never_read(plant: Plant) -> None:
    def change(dataset: Any) -> Any:
        easy = dataset.compositions[:, 2] == 0  # without lithium
        taken = replace(dataset.take(easy), is_subset=False, n_official=int(easy.sum()))
        return replace(taken, fold_sizes=())

    on_embedded(plant, change)


@defect(ROWS, "another data set's name, and so its bound", ALIGNED, r"moved .*is known of")
def another_data_sets_name(plant: Plant) -> None:
    on_embedded(plant, lambda dataset: replace(dataset, name="thermochemistry"))


# --- opponents


@defect(
    OPPONENTS,
    "a baseline that saw the tested rows",
    (*UNSEEN, "-k", "composition"),
    r"(refuted|changed) integrity.labels-unseen\[composition-mlp\]",
)
def baseline_saw_tested_rows(plant: Plant) -> None:
    plant.wrap(
        "harness.runners.baseline:_of_split",
        lambda original, fold, split, *rest: original(
            fold, leaking(split, np.arange(len(fold.dataset))), *rest
        ),
    )


@defect(OPPONENTS, "a weakened baseline", PAIRED, r"moved zero-shot.beats-baseline-paired")
def baseline_weakened(plant: Plant) -> None:
    from harness.models import composition

    plant.set("harness.models.composition:FEW_ROWS", replace(composition.FEW_ROWS, epochs=12))


@defect(
    OPPONENTS,
    "a learner given the tested rows",
    (*UNSEEN, "-k", "learner"),
    r"(refuted|changed) integrity.labels-unseen\[learner\]",
    unseen=True,
)
def learner_given_tested_rows(plant: Plant) -> None:
    def around(original: Any, dataset: Any, learner: Any, train: Any, test: Any, *rest: Any) -> Any:
        return original(dataset, learner, np.append(train, test), test, *rest)

    plant.wrap("harness.runners.learning_curve:_remembered", around)


@defect(
    OPPONENTS,
    "opponents from scratch that were never trained",
    (*FEW, "-k", "few_rows_alone and scratch"),
    r"moved fine-tune.beats-scratch\[scratch\]",
    unseen=True,
    cold=TRAININGS,
)
def scratch_never_trained(plant: Plant) -> None:
    def around(
        original: Any, trainable: Any, targets: Any, fit: Any, held: Any, settings: Any, **more: Any
    ) -> Any:
        if type(trainable).__name__ == "TrainableCHGNet":
            settings = replace(settings, epochs=1, learning_rate=0.0)
        return original(trainable, targets, fit, held, settings, **more)

    plant.wrap("harness.runners.finetune:train", around)


# --- subject


@defect(SUBJECT, "another version's weights under the name", ALIGNED, r"moved .*inputs")
def another_versions_weights(plant: Plant) -> None:
    plant.wrap("harness.models.chgnet.model:read_chgnet", lambda original, _: original("0.2.0"))


@defect(SUBJECT, "weights off by 0.3 %", ALIGNED, r"moved .*inputs")
def weights_a_little_off(plant: Plant) -> None:
    def around(original: Any, version: str) -> Any:
        network = original(version)
        network.mlp.layers[-1].weight.data.mul_(1.003)
        return network

    plant.wrap("harness.models.chgnet.model:read_chgnet", around)


@defect(
    SUBJECT,
    "a cutoff of angles changed",
    ALIGNED,
    r"(moved|changed) zero-shot",
    cold=("predictions/*",),
)
def cutoff_changed(plant: Plant) -> None:
    def around(original: Any, self: Any, *rest: Any) -> Any:
        original(self, *rest)
        self._cutoffs["bond_cutoff_ang"] = 2.5

    plant.wrap("harness.models.chgnet.model:CHGNetModel._adopt", around)


@defect(
    SUBJECT,
    "energies through float16",
    ALIGNED,
    r"moved zero-shot",
    cold=("predictions/*",),
)
def half_precision(plant: Plant) -> None:
    def around(original: Any, *args: Any, **kwargs: Any) -> Any:
        given = original(*args, **kwargs)
        return with_energy(given, lambda e: e.astype(np.float16).astype(np.float64))

    plant.wrap("harness.models.chgnet.model:CHGNetModel.predict", around)


@defect(
    SUBJECT,
    "rows slipped by one in a batch",
    ALIGNED,
    r"changed zero-shot",
    cold=("predictions/*",),
)
def rows_slipped_in_a_batch(plant: Plant) -> None:
    def around(original: Any, *args: Any, **kwargs: Any) -> Any:
        return with_energy(original(*args, **kwargs), lambda e: np.roll(e, 1))

    plant.wrap("harness.models.chgnet.model:CHGNetModel.predict", around)


def on_predictions(plant: Plant, change: Callable[[Any], Any]) -> None:
    """Change the forces, stress and moments that the store gives."""
    plant.wrap(
        "harness.store:PredictionStore.predict",
        lambda original, *args, **kwargs: change(original(*args, **kwargs)),
    )


def with_forces(given: Any, change: Callable[[np.ndarray], np.ndarray]) -> Any:
    if given.forces is None:
        return given
    return replace(given, forces=[change(f.copy()) for f in given.forces])


@defect(SUBJECT, "forces with the other sign", SOFTENING, r"moved softening.dft\[force-slope")
def force_sign(plant: Plant) -> None:
    on_predictions(plant, lambda given: with_forces(given, lambda f: -f))


@defect(SUBJECT, "stress in another unit", EFSM, r"(changed|broke|refuted|moved) .*stress")
def stress_unit(plant: Plant) -> None:
    def change(given: Any) -> Any:
        return given if given.stress is None else replace(given, stress=given.stress / 160.2)

    on_predictions(plant, change)


@defect(SUBJECT, "the first atom's force lost", SOFTENING, r"moved softening.dft\[force-slope")
def one_force_lost(plant: Plant) -> None:
    def lose(forces: np.ndarray) -> np.ndarray:
        forces[0] = 0.0
        return forces

    on_predictions(plant, lambda given: with_forces(given, lose))


@defect(
    SUBJECT, "moments in the reverse order of atoms", EFSM, r"(moved|changed) .*(magmom|moment)"
)
def moments_reversed(plant: Plant) -> None:
    def change(given: Any) -> Any:
        if given.magmoms is None:
            return given
        return replace(given, magmoms=[m[::-1] for m in given.magmoms])

    on_predictions(plant, change)


@defect(
    SUBJECT,
    "a card that names another functional",
    ("checks/test_physics.py", "-m", "fold0", "-k", "says_what_its_numbers"),
    r"moved physics.declares-itself.*settings",
    unseen=True,
)
def card_of_another_functional(plant: Plant) -> None:
    plant.wrap(
        "harness.models.chgnet.model:card_of",
        lambda original, *args: replace(original(*args), theory="r2SCAN"),
    )


# --- store


@defect(
    STORE,
    "a key that forgets coordinates",
    ("tests/test_crystals.py", "-k", "hash"),
    r"test_crystals",
    unseen=True,
)
def key_without_coordinates(plant: Plant) -> None:
    def around(original: Any, self: Any) -> Any:
        return original.func(replace(self, frac_coords=np.zeros_like(self.frac_coords)))

    from functools import cached_property

    from harness.data.crystals import Crystals

    honest = Crystals.__dict__["_row_hashes"].func

    def forgetful(self: Crystals) -> np.ndarray:
        return honest(replace(self, frac_coords=np.zeros_like(self.frac_coords)))

    made = cached_property(forgetful)
    made.__set_name__(Crystals, "_row_hashes")
    plant.set("harness.data.crystals:Crystals._row_hashes", made)


@defect(
    STORE,
    "a training's key that forgets the targets",
    ("tests/test_finetune.py", "-k", "other_training_targets"),
    r"test_finetune",
    unseen=True,
)
def key_without_targets(plant: Plant) -> None:
    plant.wrap("harness.runners.finetune:row_digest", lambda original, first, *_: original(first))


@defect(STORE, "an entry edited, with a right checksum", ALIGNED, r"moved zero-shot")
def an_entry_edited(plant: Plant) -> None:
    def around(original: Any, path: Any, *rest: Any) -> Any:
        arrays, *more = original(path, *rest)
        if "energy" in arrays and len(arrays["energy"]) > 20:
            arrays = {
                **arrays,
                "energy": arrays["energy"] + 0.3 * (np.arange(len(arrays["energy"])) == 7),
            }
        return (arrays, *more)

    plant.wrap("harness.store:read_columns", around)


# --- training


@defect(
    TRAINING,
    "a learning rate of 0",
    (*HEADS, "-k", "training_loss_falls"),
    r"changed head-only.loss-decreases",
    cold=TRAININGS,
)
def learning_rate_zero(plant: Plant) -> None:
    plant.wrap(
        "harness.runners.finetune:FineTune.settings",
        lambda original, self: replace(original(self), learning_rate=0.0),
    )


@defect(
    TRAINING,
    "a schedule that is never stepped",
    ("tests/test_training_parts.py", "-k", "schedule"),
    r"test_training_parts",
    unseen=True,
)
def schedule_never_stepped(plant: Plant) -> None:
    plant.wrap("harness.models.training.schedules:Schedule.factor", lambda original, self, *_: 1.0)


@defect(
    TRAINING,
    "an average of the weights with another decay",
    ("tests/test_training_parts.py", "-k", "average"),
    r"test_training_parts",
    unseen=True,
)
def another_decay(plant: Plant) -> None:
    def around(original: Any, self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        object.__setattr__(self, "decay", self.decay**2)

    plant.wrap("harness.models.training.ema:Average.__init__", around)


@defect(
    TRAINING,
    "the scale of a target transform squared",
    ("tests/test_training_parts.py", "-k", "transform or standardised"),
    r"test_training_parts",
    unseen=True,
)
def scale_squared(plant: Plant) -> None:
    plant.wrap(
        "harness.models.training.transforms:Standardise.apply",
        lambda original, self, values, rows: (values - self.mean) / self.spread**2,
    )


@defect(
    TRAINING,
    "the target transform fitted on tested rows as well",
    (*UNSEEN, "-k", "head"),
    r"(refuted|changed) integrity.labels-unseen\[head-only\]",
)
def transform_saw_tested_rows(plant: Plant) -> None:
    def around(original: Any, start: Any, task: Any, *rest: Any) -> Any:
        from harness.models.training import transforms

        honest = transforms.fit

        def fit(name: str, targets: Any, context: Any, outputs: Any, **more: Any) -> Any:
            rows = np.append(task.train, task.test)
            every = np.resize(outputs, len(rows))
            return honest(name, task.targets[rows], task.context.take(rows), every, **more)

        transforms.fit = fit
        try:
            return original(start, task, *rest)
        finally:
            transforms.fit = honest

    plant.wrap("harness.runners.finetune:_train_on", around)


@defect(
    TRAINING,
    "the early stop decided on the tested rows",
    (*UNSEEN, "-k", "head"),
    r"(refuted|changed) integrity.labels-unseen\[head-only\]",
)
def early_stop_saw_tested_rows(plant: Plant) -> None:
    def around(original: Any, start: Any, task: Any, *rest: Any) -> Any:
        from harness.runners import finetune

        honest = finetune._divided

        def divided(train_rows: np.ndarray, config: Any) -> tuple[np.ndarray, np.ndarray]:
            return train_rows, task.test

        finetune._divided = divided
        try:
            return original(start, task, *rest)
        finally:
            finetune._divided = honest

    plant.wrap("harness.runners.finetune:_train_on", around)


@defect(
    TRAINING,
    "hashes of tensors taken of something that never changes",
    (*HEADS, "-k", "backbone_stays or left_trainable"),
    r"control not caught head-only.backbone-frozen|broke|changed head-only.backbone-frozen",
    cold=TRAININGS,
)
def hashes_of_the_wrong_thing(plant: Plant) -> None:
    def around(original: Any, start: Any, trainable: Any) -> dict[str, str]:
        return dict.fromkeys(original(start, trainable), "0" * 64)

    plant.wrap("harness.runners.finetune:_hashes", around)


@defect(
    TRAINING,
    "seeds ignored: one training three times",
    (*ENSEMBLES, "-k", "different_members"),
    r"(changed|moved) ensemble.seeds-distinct\[heads\]",
)
def seeds_ignored(plant: Plant) -> None:
    plant.wrap(
        "harness.runners.finetune:run",
        lambda original, *args, **more: original(
            *args[:3], replace(args[3], seed=0), *args[4:], **more
        ),
    )


@defect(
    TRAINING,
    "the best of three seeds, each time",
    (*HEADS, "-k", "head_beats_zero_shot"),
    r"moved head-only.beats-zero-shot",
    unseen=True,
)
def best_of_the_seeds(plant: Plant) -> None:
    def around(original: Any, *args: Any, **more: Any) -> Any:
        results = [
            original(*args[:3], replace(args[3], seed=s), *args[4:], **more) for s in range(3)
        ]
        return min(results, key=lambda r: np.abs(r.scored().error_ev_per_atom).mean())

    plant.wrap("harness.runners.finetune:run", around)


@defect(
    TRAINING,
    "the best seed called the mean of three",
    (*HEADS, "-k", "head_beats_zero_shot"),
    r"moved head-only.beats-zero-shot",
    unseen=True,
)
def best_seed_called_the_mean(plant: Plant) -> None:
    def around(original: Any, members: Any, *, model: str) -> Any:
        best = min(members, key=lambda m: np.abs(m.error_ev_per_atom).mean())
        return best.with_predictions(lambda e: e, model=model)

    plant.wrap("harness.scores:typical", around)


@defect(
    TRAINING,
    "an ensemble averaged before the inverse transform",
    (*ENSEMBLES, "-k", "nowhere_worse"),
    r"(changed|moved) ensemble.not-worse",
)
def averaged_before_the_inverse(plant: Plant) -> None:
    def around(original: Any, members: Any, **more: Any) -> Any:
        made = original(members, **more)
        logs = [
            np.sign(m.predicted_ev_per_atom) * np.log1p(np.abs(m.predicted_ev_per_atom))
            for m in members
        ]
        mean = np.mean(logs, axis=0)
        column = np.sign(mean) * np.expm1(np.abs(mean))
        return replace(made, mean=replace(made.mean, predicted_ev_per_atom=column))

    plant.wrap("harness.runners.ensemble:run", around)


# --- curves and geometries


@defect(
    CURVES,
    "the floor under errors near equilibrium removed",
    (*SOFTENING[:-1], "tenfold"),
    r"moved softening.error-ratio",
    unseen=True,
)
def floors_removed(plant: Plant) -> None:
    def around(original: Any, self: Any, origin: str) -> Any:
        bare = replace(self, config=replace(self.config, near_floor_ev_per_atom=1e-9))
        return original(bare, origin)

    plant.wrap("harness.runners.softening:Curves.error_ratio", around)


@defect(CURVES, "slopes of DFT on the potential", SOFTENING, r"moved softening.dft\[force-slope")
def slopes_inverted(plant: Plant) -> None:
    def around(original: Any, self: Any, rows: np.ndarray) -> tuple[float, float, float]:
        return (lambda xy, xx, yy: (xy, yy, xx))(*original(self, rows))

    plant.wrap("harness.runners.softening:Displaced.sums", around)


@defect(CURVES, "atoms in another order", SOFTENING, r"moved softening.dft\[force-slope")
def atoms_in_another_order(plant: Plant) -> None:
    on_predictions(plant, lambda given: with_forces(given, lambda f: f[::-1]))


@defect(
    CURVES,
    "crystals that were set aside used after all",
    SOFTENING,
    r"moved softening.*rows",
    unseen=True,
)
def set_aside_and_used(plant: Plant) -> None:
    plant.set("harness.runners.softening:SET_ASIDE", {})


@defect(
    CURVES,
    "relaxations that return the reference",
    RELAX,
    r"changed relax.geometry-volume",
)
def reference_handed_back(plant: Plant) -> None:
    def around(original: Any, *args: Any, **more: Any) -> Any:
        result = original(*args, **more)
        ended = replace(result.relaxation, crystals=result.reference.crystals)
        return replace(result, relaxation=ended)

    plant.wrap("harness.runners.relax:run", around)


@defect(
    CURVES,
    "an optimiser stopped half way and called converged",
    RELAX,
    r"moved relax.geometry-volume",
)
def a_loose_stop(plant: Plant) -> None:
    def around(original: Any, *args: Any, **more: Any) -> Any:
        result = original(*args, **more)
        a, b = result.start, result.relaxation.crystals
        half = replace(b, lattices=0.02 * a.lattices + 0.98 * b.lattices)
        return replace(result, relaxation=replace(result.relaxation, crystals=half))

    plant.wrap("harness.runners.relax:run", around)


@defect(CURVES, "a fixture edited", EXPERIMENTS, r"broke .*sha256")
def fixture_edited(plant: Plant) -> None:
    plant.wrap(
        "harness.data.thermochemistry:_read",
        lambda original, path, sha256: original(path, "0" * 64),
    )


@defect(
    CURVES,
    "a fixture edited, and its hash with it",
    EXPERIMENTS,
    r"moved zero-shot.experiments.*inputs",
    unseen=True,
)
def fixture_edited_with_its_hash(plant: Plant) -> None:
    def around(original: Any) -> Any:
        dataset = original()
        target = dataset.target_ev_per_atom.copy()
        target[10] -= 0.2
        inputs = dict.fromkeys(dataset.inputs, "1" * 64)
        return replace(dataset, target_ev_per_atom=target, inputs=inputs)

    plant.wrap("harness.data.thermochemistry:load", around)


@defect(CURVES, "cells of another volume", ALIGNED, r"moved zero-shot", unseen=True)
def cells_of_another_volume(plant: Plant) -> None:
    def change(dataset: Any) -> Any:
        crystals = replace(dataset.crystals, lattices=1.01 * dataset.crystals.lattices)
        return replace(dataset, crystals=crystals)

    on_embedded(plant, change)


# --- verdicts


@defect(
    VERDICTS, "an interval of 90 % under the name of 95 %", ALIGNED, r"moved zero-shot", unseen=True
)
def ninety_per_cent(plant: Plant) -> None:
    def around(original: Any, units: Any, *, level: float, **more: Any) -> Any:
        return replace(original(units, level=0.9, **more), level=level)

    plant.wrap("harness.statistics:_bootstrap", around)


@defect(
    VERDICTS,
    "the last cluster never drawn",
    ("tests/test_statistics.py", "-q"),
    r"test_statistics",
    unseen=True,
)
def last_cluster_never_drawn(plant: Plant) -> None:
    def counts(original: Any, n_clusters: int, n_resamples: int, seed: int) -> np.ndarray:
        draw = np.random.default_rng(seed)
        drawn = np.zeros((n_resamples, n_clusters), np.uint8)
        for row in drawn:
            picked = draw.integers(n_clusters - 1, size=n_clusters)
            row[:] = np.bincount(picked, minlength=n_clusters)
        return drawn

    plant.wrap("harness.statistics:_resample_counts", counts)


@defect(
    VERDICTS,
    "the easiest size in place of the hardest",
    (*FEW, "-k", "few_rows_alone and not toy"),
    r"moved fine-tune.beats-scratch",
    unseen=True,
)
def the_easiest_size(plant: Plant) -> None:
    plant.wrap(
        "harness.runners.learning_curve:largest",
        lambda original, intervals: min(intervals, key=lambda i: i.estimate),
    )


@defect(
    VERDICTS,
    "the estimate judged in place of the interval",
    SOFTENING,
    r"changed (softening|stiffness)|broke",
)
def the_estimate_judged(plant: Plant) -> None:
    plant.wrap(
        "harness.claims:Bound.judge",
        lambda original, self, interval: original(
            self, replace(interval, low=interval.estimate, high=interval.estimate)
        ),
    )


@defect(VERDICTS, "an unpaired comparison", PAIRED, r"moved zero-shot.beats-baseline-paired")
def unpaired(plant: Plant) -> None:
    def around(original: Any, self: Any, other: Any) -> Any:
        errors = other.error_ev_per_atom
        order = np.random.default_rng(0).permutation(len(errors))
        dealt = replace(other, predicted_ev_per_atom=other.reference_ev_per_atom + errors[order])
        return original(self, dealt)

    plant.wrap("harness.scores:Scored.mae_minus", around)


@defect(VERDICTS, "a median called a mean", SCORES, r"moved zero-shot.beats-baseline", unseen=True)
def median_called_a_mean(plant: Plant) -> None:
    def around(original: Any, self: Any) -> Any:
        found = original(self)
        by = float(np.median(np.abs(self.error_ev_per_atom))) - found.interval.estimate
        i = found.interval
        moved = replace(i, estimate=i.estimate + by, low=i.low + by, high=i.high + by)
        return replace(found, interval=moved)

    plant.wrap("harness.scores:Scored.mae", around)


@defect(
    VERDICTS,
    "a bound loosened",
    ALIGNED,
    r"moved claim zero-shot.aligned-offset: bound",
    unseen=True,
)
def bound_loosened(plant: Plant) -> None:
    from harness.claims import between

    def change(claim: dict[str, Any]) -> None:
        claim["bound"] = between(-0.12, 0.12, "eV/atom", reason="looser")

    plant.mark("test_zero_shot_energies_have_no_large_offset", change)


@defect(VERDICTS, "an assert deleted, and the claim no longer so", ALIGNED, r"changed zero-shot")
def assert_deleted(plant: Plant) -> None:
    def change(module: Any) -> None:
        def body(zero_shot: Any, alignment: str, evidence: Any) -> None:
            evidence(zero_shot.scored(alignment).offset())

        module.test_zero_shot_energies_have_no_large_offset.__code__ = body.__code__

    plant.module("test_zero_shot.py", change)
    on_scored(plant, lambda found: found.with_errors_shifted(0.3))


@defect(VERDICTS, "a control deleted", ALIGNED, r"moved claim .*control .* is gone", unseen=True)
def control_deleted(plant: Plant) -> None:
    plant.drop("test_collapsing_predictions_are_noticed")


@defect(
    VERDICTS, "a claim deleted with its controls", ALIGNED, r"moved claim .* is gone", unseen=True
)
def claim_deleted(plant: Plant) -> None:
    plant.drop(
        "test_zero_shot_energies_vary_like_formation_energies",
        "test_collapsing_predictions_are_noticed",
        "test_predictions_drawn_apart_are_noticed",
    )


@defect(
    VERDICTS, "a control whose fault is gone", ALIGNED, r"moved .*control.*is not run", unseen=True
)
def fault_gone(plant: Plant) -> None:
    plant.wrap("harness.scores:Scored.with_predictions", lambda original, self, *_, **__: self)


@defect(
    VERDICTS,
    "a fault grown a hundredfold",
    ALIGNED,
    r"moved zero-shot.*control",
    unseen=True,
)
def fault_grown(plant: Plant) -> None:
    def around(original: Any, measure: Any, bound_on: Any, least: float, largest: float) -> Any:
        found = original(measure, bound_on, least, largest)
        size = min(largest, least + 100 * (found.size - least))
        return type(found)(measure(size), size)

    plant.wrap("harness.report.plugin:grown", around)


@defect(
    VERDICTS,
    "an exception turned into `not run`",
    ALIGNED,
    r"changed zero-shot.*not run",
    unseen=True,
)
def exception_into_not_run(plant: Plant) -> None:
    def around(original: Any, self: Any, alignment: str) -> Any:
        from harness.errors import NotAvailable

        raise NotAvailable("something went wrong")

    plant.wrap("harness.runners.zero_shot:ZeroShotResult.scored", around)


@defect(VERDICTS, "refuted records lost on the way to disk", SOFTENING, r"incomplete", unseen=True)
def refuted_records_lost(plant: Plant) -> None:
    def around(original: Any, self: Any, report: Any) -> Any:
        given = dict(report.user_properties)
        if given.get("evidence.verdict") != '"refuted"':
            return original(self, report)
        return None

    plant.wrap("harness.report.recorder:Recorder.collect", around)


@defect(
    VERDICTS,
    "another number written than was judged",
    SOFTENING,
    r"moved|refused|broke|reports_judged",
    unseen=True,
)
def another_number_written(plant: Plant) -> None:
    def around(original: Any, claim: Any, measurement: Any, **more: Any) -> Any:
        found = original(claim, measurement, **more)
        return replace(
            found,
            observed=0.97 * found.observed,
            ci_low=0.97 * found.ci_low,
            ci_high=0.97 * found.ci_high,
        )

    plant.wrap("harness.report.plugin:Evidence.of", around)


@defect(
    VERDICTS,
    "a documented refutation that absorbs a fault: energies on compression twice too steep",
    SOFTENING,
    r"moved softening.dft\[energy-compressed\]",
    unseen=True,
)
def absorbed_by_a_refutation(plant: Plant) -> None:
    def around(original: Any, self: Any, side: str) -> Any:
        if side == "compressed":
            self = self.with_model(lambda curve: 1.05 * curve.model_ev_per_atom, name=self.model)
        return original(self, side)

    plant.wrap("harness.runners.softening:Curves.energy_ratio", around)
