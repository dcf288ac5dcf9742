"""Claims about averaging three trainings: what it is worth, and whether they are three.

Yours to change: the ways in which members differ, the bounds with their reasons.
Lives elsewhere: the average and its measurements (harness/runners/ensemble), the trainings
(harness/runners/baseline, harness/runners/finetune), matbench's format (harness/runners/record).
"""

from dataclasses import replace

import numpy as np
import pytest

from harness.claims import Kind, Meaning, Size, above, below, between
from harness.errors import DataAbsent
from harness.plots import ensemble_gain, spread_against_error
from harness.runners import ensemble, finetune, record
from harness.runners.ensemble import EnsembleResult

SEEDS = (0, 1, 2)
WINDOW_EV_PER_ATOM = (0.001, 0.003)  # the gain the founding note states
LEAST_STEP = WINDOW_EV_PER_ATOM[0] / 4  # of the gain, from two members to three
LEAST_DISTANCE = 0.1  # of members, over their error
HEAD_ROWS = 8000  # training rows of each head in a quick session, the same for all

# How the members of one ensemble come to differ, beside their seeds.
MEMBERS = {
    "composition": "new weights, another data order",
    "heads": "another data order and validation split; the pretrained start and the rows are one",
    "heads-resampled": "the same, and training rows drawn with replacement",
    "heads-new-last-layer": "the same as heads, and the last layer's weights drawn anew",
}
HEADS = {
    "heads": {},
    "heads-resampled": {"bootstrap": True},
    "heads-new-last-layer": {"start": "new-last-layer"},
}
each_subject = pytest.mark.parametrize("subject", MEMBERS)


@pytest.fixture(scope="module")
def composition(train_baseline):
    """Three seeds of the composition baseline, on every official training row where they are."""
    return ensemble.run([train_baseline(seed) for seed in SEEDS])


@pytest.fixture(scope="module")
def settings(request, training_fold, size):
    """How heads are trained: as in the checks of head-only training, so the store has them."""
    sample = request.config.getoption("--sample")
    at_most = None if size == Size.NIGHTLY else HEAD_ROWS
    return finetune.suited_to(training_fold, at_most=at_most, sample=sample)


@pytest.fixture(scope="module")
def ensembles(composition, model, train, settings):
    """An ensemble by name; heads are trained when they are first asked for."""
    made = {"composition": composition}

    def member(subject, seed):
        return train(replace(settings, seed=seed, **HEADS[subject])).scored()

    def of(subject):
        if subject not in made:
            name = f"mean of {len(SEEDS)} {model.identity.name} {subject}"
            made[subject] = ensemble.run([member(subject, seed) for seed in SEEDS], name=name)
        return made[subject]

    return of


@pytest.fixture(scope="module")
def on_record(composition, training_fold, fold_number, request, tmp_path_factory):
    """The composition ensemble written with matbench and read back, and what went into it."""
    if training_fold.dataset.index is None:
        raise DataAbsent(
            f"{training_fold.dataset.name} is no part of matbench; a record needs its rows: "
            "python -m harness fetch matbench_mp_e_form"
        )
    targets = request.getfixturevalue("targets")
    folds = record.complete(targets, {fold_number: composition.mean})
    path = tmp_path_factory.mktemp("record") / "results.json"
    return record.read(record.write(targets, folds, path)), folds


# --- the average and its record are what they say


@pytest.mark.claim(
    id="ensemble.not-worse",
    statement="On no row is the mean of the members further from the reference than they are on "
    "average. This holds for any predictions: it tests the average, not the members.",
    basis="triangle inequality; founding note on three-seed ensembles, which were never built",
    kind=Kind.INTEGRITY,
    cannot_fail="the triangle inequality, for whatever members, if their mean is taken",
    bound=below(1e-9, "eV/atom", reason="rounding of float64 near 10 eV/atom is 2e-15"),
)
@each_subject
def test_the_mean_is_nowhere_worse_than_its_members(ensembles, subject, evidence):
    assert evidence(ensembles(subject).excess()).held


@pytest.mark.control(of="ensemble.not-worse", fault="the mean off by 1.4e-9 eV/atom")
def test_a_mean_a_little_off_is_noticed(composition, evidence):
    """Where all members err to one side their mean errs as they do, and is not to err more."""
    side = np.sign(composition.mean.error_ev_per_atom)
    off = composition.mean.with_predictions(lambda e: e + 1.4e-9 * side, model="a little off")
    assert evidence(replace(composition, mean=off).excess()).refuted


@pytest.mark.claim(
    id="ensemble.recorded",
    statement="The ensemble is recorded with matbench like any model: under its own name, and what "
    "is read back is the mean of its members.",
    basis="founding note: the ensemble's record was skipped, and nobody noticed",
    kind=Kind.INTEGRITY,
    about="matbench record",
    bound=below(1, "values", reason="not one row or score may differ"),
)
def test_the_ensemble_is_recorded_as_a_model(on_record, evidence):
    recorded, folds = on_record
    assert evidence(recorded.compare(ran=folds)).held


@pytest.mark.control(of="ensemble.recorded", fault="one row is a member's, not the mean's")
def test_a_single_row_of_a_member_is_noticed(on_record, composition, fold_number, evidence):
    recorded, folds = on_record
    one = composition.members[0].predicted_ev_per_atom
    apart = int(np.abs(one - composition.mean.predicted_ev_per_atom).argmax())

    def slip(energies):
        energies[apart] = one[apart]
        return energies

    slipped = composition.mean.with_predictions(slip, model=composition.mean.model)
    single = recorded.with_fold(fold_number, predicted=slipped)
    assert evidence(single.compare(ran=folds)).refuted


@pytest.mark.control(
    of="ensemble.recorded",
    fault="one member recorded under the ensemble's name",
    far="a member differs from the mean in every row",
)
def test_an_ensemble_that_was_never_built_is_noticed(on_record, composition, fold_number, evidence):
    recorded, folds = on_record
    single = recorded.with_fold(fold_number, predicted=composition.members[0])
    assert evidence(single.compare(ran=folds)).refuted


# --- the members differ, and their mean is better for it


def drawn_together(composition, quantity, low, power):
    """What is measured where members are drawn towards the first, and where to begin: so near or
    far that it is about twice the lower end of the bound, whatever these members measure."""
    found = max(quantity(composition).interval.estimate, 1e-12)
    begin = 1 - (2 * low / found) ** power  # below 0: drawn apart
    return (lambda share: quantity(composition.drawn_together(share))), begin


@pytest.mark.claim(
    id="ensemble.seeds-distinct",
    statement="However members come to differ, those of seeds 0, 1 and 2 differ by a tenth of "
    "their error or more.",
    basis="an ensemble of one model three times has been met; mere inequality in the last digits "
    "would not tell it apart",
    kind=Kind.FINDING,
    meaning=Meaning.NEUTRAL,
    bound=above(
        LEAST_DISTANCE,
        "",
        reason="a spread of s errors gains about s²/3 of the error over three members whose errors "
        "are Laplacian: at 0.1 that is 0.3 %, a third of the least gain the founding note states",
    ),
)
@each_subject
def test_seeds_make_different_members(ensembles, subject, evidence):
    result = ensembles(subject)
    spread, error = result.spread_ev_per_atom, np.abs(result.mean.error_ev_per_atom)
    if spread.any():
        figure = spread_against_error(spread, error, title=result.mean.model)
        evidence.figure("spread", figure)
    assert evidence(result.distance(), members_differ_by=MEMBERS[subject]).held


@pytest.mark.control(of="ensemble.seeds-distinct", fault="members drawn towards the first")
def test_members_somewhat_too_alike_are_noticed(composition, evidence):
    measure, begin = drawn_together(composition, EnsembleResult.distance, LEAST_DISTANCE, 1)
    assert evidence.planted(measure, begin, 0.99).refuted


@pytest.mark.claim(
    id="ensemble.gain",
    headline={"heads": "Averaging three fine-tuned heads gains 1 to 3 meV/atom"},
    statement="However members come to differ, averaging those of seeds 0, 1 and 2 lowers the MAE "
    "by 0.001 to 0.003 eV/atom.",
    basis="founding note on three-seed ensembles",
    kind=Kind.FINDING,
    meaning=Meaning.NEUTRAL,
    bound=between(*WINDOW_EV_PER_ATOM, "eV/atom", reason="the window the founding note states"),
    bounds_on={
        "thermochemistry": above(
            WINDOW_EV_PER_ATOM[0],
            "eV/atom",
            reason="the least the founding note states; its upper end is about 106,201 training "
            "rows, and members trained on two hundred differ more",
        )
    },
)
@each_subject
def test_the_mean_of_three_gains_what_the_note_says(ensembles, subject, evidence):
    result = ensembles(subject)
    sizes = result.by_size()
    evidence.figure(
        "members",
        ensemble_gain(
            [size.maes_ev_per_atom for size in sizes],
            window=WINDOW_EV_PER_ATOM,
            title=result.mean.model,
        ),
    )
    assert evidence(result.gain(), members_differ_by=MEMBERS[subject]).held


@pytest.mark.control(of="ensemble.gain", fault="members drawn towards the first")
def test_members_that_gain_somewhat_too_little_are_noticed(composition, evidence):
    measure, begin = drawn_together(composition, EnsembleResult.gain, WINDOW_EV_PER_ATOM[0], 0.5)
    assert evidence.planted(measure, begin, 0.99).refuted


@pytest.mark.claim(
    id="ensemble.spread-falls",
    statement="However members come to differ, a third one still lowers the MAE: the mean of seeds "
    "0, 1 and 2 errs less than means of two of them.",
    basis="founding note on three-seed ensembles: 'spread falls'. That the spread between means "
    "of independent members falls as one over the root of their number is arithmetic, and no claim",
    kind=Kind.FINDING,
    meaning=Meaning.NEUTRAL,
    bound=above(
        LEAST_STEP,
        "eV/atom",
        reason="falling as 1/k, the step from two members to three is a quarter of that from one "
        "to three, which the founding note puts at 0.001 or more",
    ),
)
@each_subject
def test_a_third_member_still_lowers_the_error(ensembles, subject, evidence):
    result = ensembles(subject)
    assert evidence(result.last_step(), members_differ_by=MEMBERS[subject]).held


@pytest.mark.control(of="ensemble.spread-falls", fault="members drawn towards the first")
def test_a_third_member_that_adds_somewhat_too_little_is_noticed(composition, evidence):
    measure, begin = drawn_together(composition, EnsembleResult.last_step, LEAST_STEP, 0.5)
    assert evidence.planted(measure, begin, 0.99).refuted
