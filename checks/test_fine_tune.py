"""Claims about few training rows: is a pretrained start worth more than none?

Yours to change: the sizes and settings, the bound with its reason.
Lives elsewhere: trainings (harness/runners/finetune), draws and intervals
(harness/runners/learning_curve), the toy (harness/runners/toy_morse, harness/models/morse).

All learners get the same rows. Those with CHGNet's architecture also get a table of elemental
energies, so that ten rows need not pay for eighty elements; in every draw the table is refitted on
the draw's own rows, pulled towards what it was, with what the network says before any training.
Beyond that, `head-only` and `scratch` differ in the weights they start from and in which are
trained.
"""

from dataclasses import asdict, dataclass, replace

import numpy as np
import pytest

from harness.claims import Kind, Meaning, Size, below
from harness.data import Split
from harness.errors import NotAvailable
from harness.models import Identity
from harness.models.composition import ENGINE as COMPOSITION_ENGINE
from harness.models.composition import FEW_ROWS, NAME
from harness.models.ridge import refit_towards
from harness.plots import learning_curves
from harness.runners import finetune, learning_curve, toy_morse
from harness.runners.finetune import FineTune
from harness.runners.learning_curve import Learner, LearningCurve

ENGINE = "1"  # of the learners in this file: raise it when a change moves their predictions
SMALL_N = 100  # "small": what one has before anyone has run a campaign
SMALL_N_TOY = 12  # fewer than half of the toy's 27 parameters

BY_A_FIFTH = below(
    0.8,
    "",
    reason="a ratio of errors; where errors fall as N^-1/2, a fifth less is what half as many "
    "rows again would give, and for less nobody keeps a pretrained model",
)


# --- two Morse curves: everything known


@pytest.fixture(scope="module")
def toy():
    return toy_morse.run()


def toy_figure(result):
    names = {"pretrained": "pulled towards the known curve", "scratch": "from zero"}
    curves = {
        words: [
            (size, point.estimate, point.low, point.high)
            for size in result.config.sizes
            for point in [result.rmse(size, anchor)]
        ]
        for anchor, words in names.items()
    }
    return learning_curves(
        curves,
        lines={"the known curve as it is": float(result.untrained_rmse_ev.mean())},
        measure="root mean square error",
        unit="eV",
        title="ridge regression of Morse curves",
    )


@pytest.mark.claim(
    id="fine-tune.beats-scratch-toy",
    statement="With few points of a Morse curve, a ridge regression pulled towards another, known "
    "curve errs less than one pulled to zero: by a fifth or more at every number of points tried "
    "that counts as small.",
    basis="founding note on fine-tuning from scarce data: its anchored ridge regression",
    kind=Kind.TOY,
    about="toy",
    bound=BY_A_FIFTH,
)
@pytest.mark.fold0
@pytest.mark.nightly
def test_a_known_curve_helps_to_learn_another(toy, evidence):
    evidence.figure("curves", toy_figure(toy))
    assert evidence(toy.advantage(up_to=SMALL_N_TOY)).held


@pytest.mark.control(of="fine-tune.beats-scratch-toy", fault="the anchored fit's errors, grown")
@pytest.mark.fold0
@pytest.mark.nightly
def test_an_anchor_that_helps_somewhat_too_little_is_noticed(toy, evidence):
    def with_errors(factor):
        return toy.with_errors_scaled("pretrained", factor).advantage(up_to=SMALL_N_TOY)

    assert evidence.planted(with_errors, 0.01, 100).refuted


@pytest.mark.control(
    of="fine-tune.beats-scratch-toy",
    fault="the known weights in another order",
    far="weights in another order describe no curve, and a fit pulled to them is far worse",
)
@pytest.mark.fold0
@pytest.mark.nightly
def test_a_shuffled_anchor_does_not_help(toy, evidence):
    assert evidence(toy.advantage(up_to=SMALL_N_TOY, mine="shuffled")).refuted


# --- CHGNet on real rows


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much of the learning curves a session affords."""

    cheap: LearningCurve  # heads on stored features, and the composition baseline
    scratch: LearningCurve  # every weight trained, on every batch anew
    scratch_epochs: int


EVERY = (10, 30, 100, 300, 1000)
# On 2 cores a row costs 5 ms for its features, and 14 ms an epoch where all weights are trained.
SESSIONS = {
    "few": Sizes(  # a data set of some hundred rows
        cheap=LearningCurve(sizes=(10, 30, 100)),
        scratch=LearningCurve(sizes=(10,), n_test=100),
        scratch_epochs=40,
    ),
    "quick": Sizes(
        cheap=LearningCurve(sizes=EVERY, n_test=500),
        scratch=LearningCurve(sizes=(10, 30), n_test=100),
        scratch_epochs=40,
    ),
    # A stated budget: 300 and 1,000 rows from scratch, for 40 epochs in five draws, would take two
    # cores an hour a fold.
    "nightly": Sizes(
        cheap=LearningCurve(sizes=EVERY, n_test=1000),
        scratch=LearningCurve(sizes=(10, 30, 100), n_test=300),
        scratch_epochs=40,
    ),
    "gpu": Sizes(
        cheap=LearningCurve(sizes=EVERY, n_test=1000),
        scratch=LearningCurve(sizes=EVERY, n_test=1000),
        scratch_epochs=40,
    ),
}
# Sixteen steps an epoch whatever the number of rows, and a fifth of them for the early stop.
SETTINGS = FineTune(epochs=40, patience=10, validation_fraction=0.2, transform="identity")
STARTS = {  # learner -> what differs from SETTINGS
    "head-only": {},
    "random-backbone": {"start": "random", "transform": "standardise"},
    "scratch": {"start": "random", "trainable": "all", "transform": "standardise"},
}
OPPONENTS = {
    "scratch": "the same architecture, random weights, all of them trained",
    "random-backbone": "the same head on a random, frozen network",
    "composition-mlp": "the composition baseline",
}


@pytest.fixture(scope="module")
def sizes(trainable_fold, model, size):
    """What this session affords, without sizes for which a split has too few training rows."""
    on_gpu = str(getattr(model, "device", "cpu")).startswith("cuda")
    affords = "gpu" if on_gpu else "nightly" if size == Size.NIGHTLY else "quick"
    chosen = SESSIONS["few" if trainable_fold.trains_on_few else affords]
    fewest = min(len(split.train) for split in trainable_fold.splits)
    if fewest < min(chosen.cheap.sizes):
        raise NotAvailable(
            f"{trainable_fold.dataset.name} has {fewest} training rows in a split; learning curves "
            f"begin at {min(chosen.cheap.sizes)}: choose a data set with more (--dataset)"
        )

    def up_to_fewest(config):
        return replace(config, sizes=tuple(size for size in config.sizes if size <= fewest))

    return replace(chosen, cheap=up_to_fewest(chosen.cheap), scratch=up_to_fewest(chosen.scratch))


@pytest.fixture(scope="module")
def table(training_references):
    """Fixed elemental energies: MP2020's, which cover most elements, or the subject's own."""
    known = [training_references[name] for name in ("mp2020", "self")]
    return next(found for found in known if not isinstance(found, NotAvailable))


@pytest.fixture(scope="module")
def head_learner(model, training_fold, store, table):
    """A learner that trains CHGNet's head, or all of CHGNet, from some start."""
    if not hasattr(model, "composition_energies"):
        raise NotAvailable(f"{model.identity.name} offers no head to train")
    whole, dataset = training_fold, training_fold.dataset
    crystals, target = dataset.require_crystals(), dataset.target_ev_per_atom
    own = model.composition_energies(crystals)  # what the network leaves to the composition

    def make(name, epochs=SETTINGS.epochs):
        settings = replace(SETTINGS, epochs=epochs, **STARTS[name])

        def predict(train, test, seed):
            pretrained = settings.start == "pretrained"
            total = store.energies(model, crystals[train]).energy if pretrained else own[train]
            elements = refit_towards(table, total, target[train], dataset.compositions[train])
            # e_form on the scale of the network's head, where a pretrained one starts at zero-shot
            shift = -elements.formation_energies(own, dataset.compositions)
            result = finetune.run(
                model,
                replace(whole, splits=(Split(train=train, test=test),), n_claimed=len(test)),
                store,
                replace(settings, seed=seed, batch_structures=max(2, len(train) // 16)),
                training_targets=target + shift,
            )
            return result.runs[0].e_form_ev_per_atom - shift[test]

        identity = Identity(
            name=name,
            weights_sha256=model.identity.weights_sha256,
            settings={
                **model.identity.settings,
                "engine": f"{ENGINE}, {finetune.ENGINE}",
                "elements": table.name,
                **{key: str(value) for key, value in asdict(settings).items()},
            },
        )
        return Learner(identity=identity, predict=predict)

    return make


@pytest.fixture(scope="module")
def composition_learner(training_fold):
    """The composition baseline; ``first_seed`` moves the seeds of its draws."""
    dataset = training_fold.dataset

    def make(name=NAME, first_seed=0):
        def predict(train, test, seed):
            return replace(FEW_ROWS, seed=first_seed + seed).fit_predict(
                dataset.compositions[train],
                dataset.target_ev_per_atom[train],
                dataset.compositions[test],
            )

        settings = {key: str(value) for key, value in asdict(FEW_ROWS).items()}
        identity = Identity(
            name=name,
            weights_sha256="",
            settings={"engine": COMPOSITION_ENGINE, **settings, "seed": f"{first_seed} + draw"},
        )
        return Learner(identity=identity, predict=predict)

    return make


@pytest.fixture(scope="module")
def trainable_fold(training_fold, table):
    """The fold without training rows that hold an element the table has no energy of."""
    covers = table.covers(training_fold.dataset.compositions)
    splits = tuple(Split(train=s.train[covers[s.train]], test=s.test) for s in training_fold.splits)
    return replace(training_fold, splits=splits)


@pytest.fixture(scope="module")
def cheap(trainable_fold, model, head_learner, composition_learner, sizes, store, progress):
    """Learning curves of what trains in seconds."""
    learners = [head_learner("head-only"), head_learner("random-backbone"), composition_learner()]
    return learning_curve.run(
        trainable_fold, learners, store, sizes.cheap, progress, subject=model.identity.name
    )


@pytest.fixture(scope="module")
def dear(trainable_fold, model, head_learner, sizes, store, progress):
    """Learning curves with every weight trained from scratch, as far as the session affords."""
    learners = [head_learner("head-only"), head_learner("scratch", sizes.scratch_epochs)]
    return learning_curve.run(
        trainable_fold, learners, store, sizes.scratch, progress, subject=model.identity.name
    )


@pytest.fixture(scope="module")
def in_name_only(trainable_fold, composition_learner, sizes, store, progress):
    """Two learners that start from nothing, one of them called pretrained; at small sizes."""
    learners = [composition_learner("pretrained in name", first_seed=100), composition_learner()]
    few = replace(sizes.cheap, sizes=tuple(s for s in sizes.cheap.sizes if s <= SMALL_N))
    return learning_curve.run(trainable_fold, learners, store, few, progress, subject=NAME)


def points(result, name):
    return [
        (size, found.estimate, found.low, found.high)
        for size in result.sizes_of(name)
        for found in [result.mae(name, size)]
    ]


@pytest.mark.claim(
    id="fine-tune.beats-scratch",
    headline={
        "composition-mlp": "With few training rows a pretrained start is better by a fifth or "
        "more than a composition network"
    },
    statement="With few training rows a pretrained start gives a lower error than none, whichever "
    "opponent starts from none: by a fifth or more at every size tried that counts as small.",
    basis="founding note on fine-tuning from scarce data",
    kind=Kind.FINDING,
    meaning=Meaning.STRENGTH,
    bound=BY_A_FIFTH,
)
@pytest.mark.parametrize("opponent", OPPONENTS)
def test_few_rows_and_a_pretrained_start_beat_few_rows_alone(
    opponent, training_zero_shot, table, fold_number, request, evidence
):
    result = request.getfixturevalue("dear" if opponent == "scratch" else "cheap")
    shown = {name: points(result, name) for name in result.errors_ev_per_atom}
    refitted = f"refit on {training_zero_shot.details['refit_rows'][0]:,} rows"
    lines = {}
    for alignment, words in ((table.name, table.name), ("refit", refitted)):
        untrained = training_zero_shot.scored(alignment).on(result.ids)
        lines[f"zero-shot ({words})"] = float(np.abs(untrained.error_ev_per_atom).mean())
    figure = learning_curves(shown, lines=lines, title=f"learning curves on {result.dataset}")
    evidence.figure("curves", figure)
    measured = result.advantage("head-only", opponent, up_to=SMALL_N)
    assert evidence(measured, opponent=OPPONENTS[opponent], zero_shot_mae=lines).held


@pytest.mark.control(of="fine-tune.beats-scratch", fault="the pretrained start's errors, grown")
def test_a_start_that_helps_somewhat_too_little_is_noticed(cheap, fold_number, evidence):
    def with_errors(factor):
        worse = cheap.with_errors_scaled("head-only", factor)
        return worse.advantage("head-only", "random-backbone", up_to=SMALL_N)

    assert evidence.planted(with_errors, 0.01, 100).refuted


@pytest.mark.control(
    of="fine-tune.beats-scratch",
    fault="the composition baseline from other seeds, pretrained in name",
)
def test_a_start_that_is_pretrained_in_name_only_is_noticed(in_name_only, fold_number, evidence):
    assert evidence(in_name_only.advantage("pretrained in name", NAME, up_to=SMALL_N)).refuted
