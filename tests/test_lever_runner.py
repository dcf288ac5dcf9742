"""The lever comparison on a made-up training whose noise and effects are known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from harness.claims import Verdict, above
from harness.errors import ConfigError, DataError
from harness.plots import lever_effects, loss_curves
from harness.runners import lever
from harness.runners.lever import Lever, LeverTest
from harness.scores import Scored

BOUND = above(1e-6, "eV/atom", reason="for the sake of this test")
N = 40


@dataclass(frozen=True, kw_only=True)
class Config:
    shift: float = 0.0
    note: str = ""
    repeat: int = 0


class Made:
    """A trained subject: predictions follow the settings, with noise of a training's own."""

    def __init__(self, config, *, noise=0.0, counts=True, ids=None):
        self.probes = {"shift": 7} if config.shift and counts else {}
        self._ids = np.array([f"row{i}" for i in range(N)]) if ids is None else ids
        draw = np.random.default_rng([config.repeat, int(1e6 * config.shift)])
        self._energies = np.linspace(-2, 1, len(self._ids)) + config.shift
        self._energies = self._energies + noise * draw.normal(size=len(self._ids))

    def scored(self):
        return Scored(
            model="made",
            subject="the one under test",
            dataset="made up",
            ids=self._ids,
            formulas=self._ids,
            reference_ev_per_atom=np.zeros(len(self._ids)),
            predicted_ev_per_atom=self._energies,
            of=len(self._ids) + 5,
            absent={"elsewhere": 5},
        )


SHIFT = Lever(name="shift", change={"shift": 0.01}, probe="shift")


def judged(measured):
    return Verdict.PLACEHOLDER if measured.placeholder else BOUND.judge(measured.interval)


def test_a_lever_that_works_is_held_with_its_floor_beside_it():
    found = lever.run(Made, Config(), SHIFT)
    measured = found.effect()
    assert judged(measured) == Verdict.HELD
    assert measured.interval.estimate == pytest.approx(0.01)
    assert found.floor_ev_per_atom == 1e-7  # two trainings, bitwise equal
    assert measured.details["probe_in_lever"] == 7
    assert measured.details["lever"] == {"shift": 0.01}
    assert (measured.subject, measured.model) == ("the one under test", "made")
    assert (measured.excluded, measured.absent) == ({}, {"elsewhere": 5})


def test_a_lever_wired_to_nothing_is_a_placeholder_for_both_reasons():
    measured = lever.run(
        lambda config: Made(Config(repeat=config.repeat)), Config(), SHIFT
    ).effect()
    assert "never ran" in measured.placeholder
    assert "within the A/A floor" in measured.placeholder


def test_code_that_runs_and_moves_nothing_is_a_placeholder():
    def idle(config):
        made = Made(Config(repeat=config.repeat))
        made.probes = {"shift": 7} if config.shift else {}
        return made

    reason = lever.run(idle, Config(), SHIFT).effect().placeholder
    assert reason.startswith("predictions moved by 0.0e+00")


def test_predictions_that_move_without_the_levers_code_are_a_placeholder():
    reason = lever.run(lambda c: Made(c, counts=False), Config(), SHIFT).effect().placeholder
    assert reason == "the lever's code never ran (probe 'shift' counted 0)"


def test_an_effect_within_the_noise_is_a_placeholder_and_a_larger_one_is_not():
    def noisy(config):
        return Made(config, noise=1e-3)

    small = Lever(name="shift", change={"shift": 1e-4}, probe="shift")
    found = lever.run(noisy, Config(), small, LeverTest(repeats=4))
    assert len(found.differences_ev_per_atom) == 6
    assert found.floor_ev_per_atom == pytest.approx(3 * max(found.differences_ev_per_atom))
    assert "within the A/A floor" in found.effect().placeholder
    assert not lever.run(noisy, Config(), SHIFT, LeverTest(repeats=4)).effect().placeholder


def test_rows_only_one_of_them_scored_are_left_out_and_counted():
    def partial(config):
        made = Made(config)
        return made if not config.shift else Made(config, ids=made._ids[:30])

    measured = lever.run(partial, Config(), SHIFT).effect()
    assert (measured.scored, measured.of) == (30, 45)
    assert measured.excluded == {"not scored by the other model": 10}
    with pytest.raises(DataError, match="different rows"):
        lever.run(
            lambda c: Made(c, ids=np.array([f"{c.shift}-{i}" for i in range(3)])), Config(), SHIFT
        )


@pytest.mark.parametrize(
    ("which", "says"),
    [
        (Lever(name="x", change={"shift": 0.0}, probe="shift"), "has already"),
        (Lever(name="x", change={"typo": 1.0}, probe="shift"), "no 'typo'"),
        (Lever(name="x", change={"shift": 1.0}, probe="always"), "cannot tell"),
    ],
)
def test_a_lever_that_can_show_nothing_is_refused(which, says):
    def train(config):
        made = Made(config)
        made.probes = {**made.probes, "always": 1}
        return made

    with pytest.raises(ConfigError, match=says):
        lever.run(train, Config(), which)


@pytest.mark.parametrize(
    "over", [{"repeats": 1}, {"margin": 0.5}, {"least_floor_ev_per_atom": 0.0}]
)
def test_a_floor_needs_two_trainings_and_a_margin(over):
    with pytest.raises(ConfigError, match="floor"):
        LeverTest(**over)


# --- figures -------------------------------------------------------------------------------------


def words_of(figure):
    return " ".join(str(a.text) for a in figure.layout.annotations)


def test_lever_effects_show_every_lever_its_floor_and_its_verdict():
    figure = lever_effects(
        [
            ("one <b>", 0.01, 0.009, 0.011, 1e-7, "held"),
            ("two", 0.0, 0.0, 0.0, 1e-7, "placeholder"),
        ],
        bound=1e-6,
    )
    assert list(figure.layout.yaxis.ticktext) == ["two", "one &lt;b&gt;"]
    assert "1.0e-02 held" in words_of(figure)
    assert "0 placeholder" in words_of(figure)
    assert "bound 1e-06" in words_of(figure)
    low, high = figure.layout.xaxis.range
    drawn = [x for trace in figure.data for x in trace.x]
    assert low <= np.log10(min(drawn)) <= np.log10(max(drawn)) < high


@pytest.mark.parametrize(
    "rows",
    [[], [("a", 0.1, 0.2, 0.3, 1e-7, "held")], [("a", 0.1, 0.1, 0.1, 0.0, "held")],
     [("a", np.nan, 0.1, 0.1, 1e-7, "held")]],
)  # fmt: skip
def test_lever_effects_refuse_what_is_no_effect(rows):
    with pytest.raises(DataError):
        lever_effects(rows)


def test_loss_curves_draw_fitted_and_held_rows_from_epoch_0():
    fitted, held, none = np.array([3.0, 2, 1]), np.array([3.0, 2.5, 2.6]), np.full(3, np.nan)
    figure = loss_curves(
        {"seed 0": (fitted, held), "seed 1": (fitted + 1, none)}, start=2.8, kept={"seed 0": 1}
    )
    lines = [trace for trace in figure.data if trace.mode == "lines+markers"]
    assert [len(trace.y) for trace in lines] == [3, 3, 3]
    assert list(lines[0].x) == [0, 1, 2]
    (kept,) = (trace for trace in figure.data if trace.mode == "markers")
    assert (kept.x[0], kept.y[0]) == (1, 2.5)
    assert "2.8" in words_of(figure)
    with pytest.raises(DataError, match="no curves"):
        loss_curves({})
    with pytest.raises(DataError, match="not finite"):
        loss_curves({"seed 0": (none, held)})
