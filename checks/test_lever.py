"""Claims about levers: a setting that is said to matter has to do something at all.

Three levers once gave results identical to the baseline, because they were never applied. So each
is trained against a baseline that is trained twice, and has to leave what those two differ by.

Yours to change: levers, and the bound with its reason.
Lives elsewhere: the comparison (harness/runners/lever), the training (harness/runners/finetune),
the levers' own code (harness/models/training).

Whether a lever helps is another question: its effect on the MAE is in the details, with interval.
"""

import functools
from dataclasses import replace

import pytest

from harness.claims import Kind, above
from harness.models.training.schedules import SCHEDULES as SCHEDULE_CODE
from harness.plots import lever_effects
from harness.runners import finetune, lever
from harness.runners.lever import Lever

ROWS = 2000  # of the training rows, drawn once; a lever needs no more to show that it works
above_rounding = above(
    1e-6,
    "eV/atom",
    reason="ten times the spacing of float32 energies; no effect anyone would report is smaller",
)

TARGET_TRANSFORMS = {
    "standardise": Lever(
        name="target transform: standardise",
        change={"transform": "refit-residual+standardise"},
        probe="transform:standardise",
    ),
    "signed-log": Lever(
        name="target transform: signed log",
        change={"transform": "refit-residual+signed-log"},
        probe="transform:signed-log",
    ),
    "identity": Lever(
        name="target transform: none at all",
        change={"transform": "identity"},
        probe="transform:identity",
    ),
}
SCHEDULES = {
    "cosine": Lever(
        name="schedule: cosine", change={"schedule": "cosine"}, probe="schedule:cosine"
    ),
    "one-cycle": Lever(
        name="schedule: one cycle", change={"schedule": "one-cycle"}, probe="schedule:one-cycle"
    ),
}
AVERAGES = {"0.99": Lever(name="average of weights, 0.99", change={"ema": 0.99}, probe="ema")}


@pytest.fixture(scope="module")
def baseline_settings(request, training_fold):
    sample = request.config.getoption("--sample")
    base = finetune.suited_to(training_fold, at_most=ROWS, sample=sample)
    return replace(base, epochs=5, patience=None)


@pytest.fixture(scope="module")
def compare(model, train, baseline_settings):
    """A lever beside the repeated baseline; with a fault, what the harness does with the lever."""
    # On a GPU trainings differ from one another, and their floor takes more than one pair.
    on_gpu = model.identity.settings.get("device", "cpu") != "cpu"
    config = lever.LeverTest(repeats=5 if on_gpu else 2)
    train = functools.cache(train)  # all levers share the baseline's trainings

    effects = {}

    def compare_with(which, fault=lambda train, which, baseline: train):
        if (which.name, fault) not in effects:
            faulty = fault(train, which, baseline_settings)
            result = lever.run(faulty, baseline_settings, which, config)
            effects[which.name, fault] = result.effect()
        return effects[which.name, fault]

    return compare_with


def wired_to_nothing(train, which, baseline):
    """Accepts the lever's settings and never passes them on; trains anew, as it would."""

    def train_without(settings):
        own = {name: getattr(baseline, name) for name in which.change}
        pulled = any(getattr(settings, name) != value for name, value in own.items())
        return train(replace(settings, **own, repeat=99 if pulled else settings.repeat))

    return train_without


@pytest.fixture
def family(compare):
    """A figure of some levers, and of the first of them wired to nothing."""

    def draw(levers):
        first = next(iter(levers.values()))
        measured = {which.name: compare(which) for which in levers.values()}
        measured[f"{first.name}, wired to nothing"] = compare(first, wired_to_nothing)
        rows = [
            (
                name,
                found.interval.estimate,
                found.interval.low,
                found.interval.high,
                found.details["floor_ev_per_atom"],
                "placeholder" if found.placeholder else str(above_rounding.judge(found.interval)),
            )
            for name, found in measured.items()
        ]
        return lever_effects(rows, bound=above_rounding.low)

    return draw


@pytest.mark.claim(
    id="lever.target-transform",
    statement="Another target transform changes the predictions beyond the A/A noise floor, and "
    "its code runs.",
    basis="a founding note's lever `target_transform` gave the baseline's very numbers",
    kind=Kind.INTEGRITY,
    bound=above_rounding,
)
@pytest.mark.parametrize("transform", TARGET_TRANSFORMS)
def test_the_target_transform_does_something(compare, family, transform, evidence):
    evidence.figure("levers", family(TARGET_TRANSFORMS))
    assert evidence(compare(TARGET_TRANSFORMS[transform])).held


@pytest.mark.control(of="lever.target-transform", fault="the setting is never passed on")
def test_a_target_transform_wired_to_nothing_is_noticed(compare, evidence):
    assert evidence(compare(TARGET_TRANSFORMS["standardise"], wired_to_nothing)).placeholder


@pytest.mark.claim(
    id="lever.lr-schedule",
    statement="Another learning-rate schedule changes the predictions beyond the A/A noise floor, "
    "and its code runs.",
    basis="a founding note's lever `lr_schedule` gave the baseline's very numbers",
    kind=Kind.INTEGRITY,
    bound=above_rounding,
)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_schedule_does_something(compare, family, schedule, evidence):
    evidence.figure("levers", family(SCHEDULES))
    assert evidence(compare(SCHEDULES[schedule])).held


@pytest.mark.control(of="lever.lr-schedule", fault="the setting is never passed on")
def test_a_schedule_wired_to_nothing_is_noticed(compare, evidence):
    assert evidence(compare(SCHEDULES["cosine"], wired_to_nothing)).placeholder


@pytest.mark.control(of="lever.lr-schedule", fault="factors computed, the optimiser not told")
def test_a_schedule_the_optimiser_never_hears_of_is_noticed(compare, monkeypatch, evidence):
    def unheard(train, which, baseline):
        def train_deaf(settings):
            if settings.schedule == baseline.schedule:
                return train(settings)
            with monkeypatch.context() as patch:
                patch.setitem(SCHEDULE_CODE, settings.schedule, lambda step, n_steps: 1.0)
                return train(replace(settings, repeat=98))

        return train_deaf

    assert evidence(compare(SCHEDULES["cosine"], unheard)).placeholder


@pytest.mark.claim(
    id="lever.ema",
    statement="Predicting with an exponential average of the weights changes the predictions "
    "beyond the A/A noise floor, and its code runs.",
    basis="a founding note's lever `ema` gave the baseline's very numbers",
    kind=Kind.INTEGRITY,
    bound=above_rounding,
)
@pytest.mark.parametrize("decay", AVERAGES)
def test_the_average_does_something(compare, family, decay, evidence):
    evidence.figure("levers", family(AVERAGES))
    assert evidence(compare(AVERAGES[decay])).held


@pytest.mark.control(of="lever.ema", fault="the setting is never passed on")
def test_an_average_wired_to_nothing_is_noticed(compare, evidence):
    assert evidence(compare(AVERAGES["0.99"], wired_to_nothing)).placeholder
