"""Learning curves of made-up learners, and of two Morse curves, with answers known beforehand."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.data.dataset import Dataset, Split
from harness.errors import ConfigError, DataError
from harness.models.alignment import References
from harness.models.morse import Gaussians, Morse
from harness.models.protocol import Identity
from harness.models.ridge import Ridge, refit_towards
from harness.plots import learning_curves
from harness.runners import learning_curve, toy_morse
from harness.runners.learning_curve import Learner, LearningCurve, LearningCurveResult
from harness.statistics import bootstrap, log_ratio_of_sums, student_t, with_variance
from harness.store import PredictionStore

N = 600


def dataset(*, n=N, crossed=False):
    draw = np.random.default_rng(0)
    compositions = np.zeros((n, 118))
    compositions[np.arange(n), draw.integers(0, 90, n)] = draw.integers(1, 9, n)
    compositions[np.arange(n), draw.integers(0, 90, n)] += 1
    rows = np.arange(n)
    halves = (rows[: n // 2], rows[n // 2 :])
    splits = [Split(train=halves[0], test=halves[1])]
    if crossed:
        splits.append(Split(train=halves[1], test=halves[0]))
    return Dataset(
        name="made up",
        ids=np.array([f"row{i}" for i in rows]),
        target_ev_per_atom=draw.normal(size=n),
        crystals=None,
        compositions=compositions,
        inputs={"made up": "0" * 64},
        source="this test",
        licence="none",
        is_subset=False,
        n_official=n,
        fold_splits=(tuple(splits),),
    )


def learner(data, name, error_of_size, *, max_size=None, calls=None, blind_to=()):
    """Errors are normal, with a standard deviation that depends on the size."""

    def predict(train, test, seed):
        if calls is not None:
            calls.append((train, test, seed))
        draw = np.random.default_rng((len(train), seed, len(name)))
        found = data.target_ev_per_atom[test] + error_of_size(len(train)) * draw.normal(
            size=len(test)
        )
        found[np.isin(test, blind_to)] = np.nan
        return found

    identity = Identity(name=name, weights_sha256=name, settings={"kind": "made up"})
    return Learner(identity=identity, predict=predict, max_size=max_size)


SIZES = LearningCurve(sizes=(10, 30, 100), n_draws=5, n_test=200)


def test_the_ratio_of_errors_is_found_and_its_interval_holds_it(tmp_path):
    data = dataset()
    learners = [
        learner(data, "known", lambda n: 0.1),
        learner(data, "from zero", lambda n: 2 / n**0.5),
    ]
    result = learning_curve.run(data.fold(0), learners, PredictionStore(tmp_path), SIZES)
    for size in SIZES.sizes:
        ratio = result.ratio(size, "known", "from zero")
        assert ratio.low < 0.1 * size**0.5 / 2 < ratio.high
        assert ratio.high / ratio.low < 1.6
        mae = result.mae("known", size)
        assert mae.low < 0.1 * np.sqrt(2 / np.pi) < mae.high
    measured = result.advantage("known", "from zero", up_to=30)
    ratios = [result.ratio(size, "known", "from zero") for size in (10, 30)]
    assert measured.interval.estimate == ratios[1].estimate
    assert measured.interval.low == max(ratio.low for ratio in ratios)
    assert measured.interval.high == max(ratio.high for ratio in ratios)
    assert measured.details["catches_up_at"] == "not up to 100"
    assert (measured.scored, measured.of) == (200, 300)
    assert measured.excluded == {}
    assert measured.absent == {"not in the sample of test rows": 100}
    json.dumps(measured.details)


def test_the_size_where_another_catches_up_is_the_first_of_all_that_follow(tmp_path):
    data = dataset()
    learners = [
        learner(data, "known", lambda n: 0.1),
        learner(data, "quickly", lambda n: 0.8 if n < 100 else 0.1),
        learner(data, "better", lambda n: 0.05),
    ]
    result = learning_curve.run(data.fold(0), learners, PredictionStore(tmp_path), SIZES)
    assert result.caught_up_at("known", "quickly") == 100
    assert result.caught_up_at("known", "better") == 10
    assert result.caught_up_at("better", "known") is None


def curve(errors, *, formulas=None, sizes=(10,), **more):
    """A result of errors as they are given: learner -> (sizes, draws, n)."""
    n = next(iter(errors.values())).shape[-1]
    rows = np.array([f"row{i}" for i in range(n)])
    return LearningCurveResult(
        config=LearningCurve(sizes=sizes, n_draws=next(iter(errors.values())).shape[1]),
        dataset="made up",
        ids=rows,
        formulas=rows if formulas is None else formulas,
        errors_ev_per_atom=errors,
        of=n,
        excluded={},
        absent={},
        inputs={},
        details={},
        **more,
    )


def test_an_interval_is_that_of_the_formulas_with_the_variance_of_the_draws():
    draw = np.random.default_rng(5)
    a, b = draw.normal(size=(1, 4, 40)), 2 * draw.normal(size=(1, 4, 40))
    result = curve({"a": a, "b": b})
    means = np.abs(a[0]).mean(axis=1)
    rows = bootstrap(np.abs(a[0]).mean(axis=0), result.formulas)
    expected = with_variance(rows, means.var(ddof=1) / 4, 3, source="4 draws of the training rows")
    mae = result.mae("a", 10)
    assert mae.estimate == pytest.approx(np.abs(a).mean())
    assert (mae.low, mae.high) == pytest.approx((expected.low, expected.high))
    assert (mae.n, mae.n_clusters, mae.method) == (40, 40, expected.method)
    assert mae.units is None

    logs = np.log(means / np.abs(b[0]).mean(axis=1))
    columns = np.stack([np.abs(a[0]).mean(axis=0), np.abs(b[0]).mean(axis=0)])
    rows = bootstrap(columns, result.formulas, log_ratio_of_sums)
    moved = logs.mean() - rows.estimate
    assert abs(moved) > 1e-4
    expected = with_variance(rows, logs.var(ddof=1) / 4, 3, source="draws")
    ratio = result.ratio(10, "a", "b")
    assert ratio.estimate == pytest.approx(np.exp(logs.mean()))
    assert ratio.low == pytest.approx(np.exp(expected.low + moved))
    assert ratio.high == pytest.approx(np.exp(expected.high + moved))
    assert ratio.resolution == pytest.approx(ratio.estimate * expected.resolution)
    assert ratio.units is None


def test_where_rows_say_little_the_draws_decide():
    """All rows err alike within a draw: what is left is Student's t over the draws."""
    factors = np.array([1.0, 1.5, 2.0, 3.0, 2.5])
    result = curve({"a": np.broadcast_to(factors[:, None], (1, 5, 30)).copy()})
    expected = student_t(factors, unit="draws")
    found = result.mae("a", 10)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_an_interval_over_draws_and_formulas_covers_as_often_as_it_says():
    # Null hypothesis: coverage is 95 %. 300 trials give 285 +- 4.
    draw, covered = np.random.default_rng(6), 0
    for _ in range(300):
        of_draw, of_row = draw.normal(size=(5, 1)), draw.normal(size=40)
        log = 0.1 * of_draw + 0.5 * of_row + 0.2 * draw.normal(size=(5, 40))
        found = curve({"a": np.exp(log)[None]}).mae("a", 10)
        truth = np.exp((0.1**2 + 0.5**2 + 0.2**2) / 2)
        covered += found.low < truth < found.high
    assert 276 <= covered <= 297


def test_too_few_formulas_settle_nothing():
    few = curve({name: np.ones((1, 2, 9)) * scale for name, scale in (("a", 1.0), ("b", 2.0))})
    assert few.ratio(10, "a", "b").unsettled.startswith("9 reduced formulas are too few")
    assert few.advantage("a", "b", up_to=10).interval.unsettled


def test_scaled_errors_are_a_planted_fault_of_one_learner():
    draw = np.random.default_rng(7)
    errors = {name: draw.normal(size=(1, 3, 30)) for name in ("a", "b")}
    honest = curve(errors, subject="the one under test")
    worse = honest.with_errors_scaled("a", 4)
    assert worse.ratio(10, "a", "b").estimate == pytest.approx(
        4 * honest.ratio(10, "a", "b").estimate
    )
    assert worse.mae("b", 10) == honest.mae("b", 10)
    np.testing.assert_array_equal(honest.errors_ev_per_atom["a"], errors["a"])
    measured = honest.advantage("a", "b", up_to=10)
    assert (measured.subject, measured.model) == ("the one under test", "a")


def test_a_comparison_is_filed_under_its_subject_and_rows_no_draw_tests_were_never_asked(tmp_path):
    data = dataset(crossed=True)
    config = LearningCurve(sizes=(10,), n_draws=2, n_test=N)
    thirds = np.split(np.arange(N), 3)
    fold = replace(
        data.fold(0),
        splits=tuple(
            Split(train=np.setdiff1d(np.arange(N), third), test=third) for third in thirds
        ),
        n_claimed=N + 7,
    )
    one, other = (learner(data, name, lambda n: 1.0, blind_to=[3]) for name in ("a", "bb"))
    store = PredictionStore(tmp_path)
    result = learning_curve.run(fold, [one, other], store, config, subject="chgnet")
    measured = result.advantage("a", "bb", up_to=10)
    assert measured.subject == "chgnet"
    assert measured.absent == {"tested in no draw": N // 3, "not in the data set at hand": 7}
    assert measured.excluded == {"not predicted by a": 1}
    assert measured.scored == 2 * N // 3 - 1
    assert learning_curve.run(fold, [one], store, config).subject == ""


def test_all_learners_see_the_same_draws_and_larger_ones_hold_the_smaller(tmp_path):
    data, calls = dataset(), []
    learners = [learner(data, name, lambda n: 1.0, calls=calls) for name in ("a", "bb")]
    learning_curve.run(data.fold(0), learners, PredictionStore(tmp_path), SIZES)
    assert len(calls) == 2 * 3 * 5
    for mine, theirs in zip(calls[:15], calls[15:], strict=True):
        np.testing.assert_array_equal(mine[0], theirs[0])
        np.testing.assert_array_equal(mine[1], calls[0][1])
        assert mine[2] == theirs[2]
    small, large = calls[0][0], calls[10][0]
    assert (len(small), len(large)) == (10, 100)
    np.testing.assert_array_equal(large[:10], small)
    assert len({tuple(call[0]) for call in calls[:5]}) == 5
    assert all(np.isin(call[0], data.fold(0).splits[0].train).all() for call in calls)


def test_what_was_trained_once_is_remembered_and_other_targets_are_another_request(tmp_path):
    data, calls = dataset(), []
    again = learner(data, "a", lambda n: 1.0, calls=calls)
    for _ in range(2):
        learning_curve.run(data.fold(0), [again], PredictionStore(tmp_path), SIZES)
    assert len(calls) == 15
    data.target_ev_per_atom[:] += 1
    learning_curve.run(data.fold(0), [again], PredictionStore(tmp_path), SIZES)
    assert len(calls) == 30


def test_a_cross_fitted_fold_tests_every_row_by_what_was_trained_on_the_others(tmp_path):
    data, calls = dataset(crossed=True), []
    config = LearningCurve(sizes=(10,), n_draws=2, n_test=N)
    one = learner(data, "a", lambda n: 0.0, calls=calls)
    result = learning_curve.run(data.fold(0), [one], PredictionStore(tmp_path), config)
    assert sorted(result.ids) == sorted(data.ids)
    assert not np.nansum(np.abs(result.errors_ev_per_atom["a"]))
    assert result.mae("a", 10).estimate == 0
    for train, test, _ in calls:
        assert not set(train) & set(test)
        assert len(test) == N // 2
    lone = replace(
        data.fold(0),
        splits=(*data.fold(0).splits, Split(train=np.arange(9), test=np.empty(0, np.int64))),
    )
    with pytest.raises(DataError, match="raise n_test"):
        learning_curve.run(
            lone, [one], PredictionStore(tmp_path), LearningCurve(sizes=(9,), n_draws=3)
        )


def test_rows_that_a_learner_cannot_score_leave_for_all_and_are_counted(tmp_path):
    data = dataset()
    config = LearningCurve(sizes=(10, 30), n_draws=2, n_test=N)
    learners = [
        learner(data, "a", lambda n: 1.0),
        learner(data, "b", lambda n: 1.0, blind_to=[400, 401], max_size=10),
    ]
    result = learning_curve.run(data.fold(0), learners, PredictionStore(tmp_path), config)
    assert len(result.ids) == 298
    assert result.excluded == {"not predicted by b": 2}
    assert result.sizes_of("a") == (10, 30)
    assert result.sizes_of("a", "b") == (10,)
    with pytest.raises(ConfigError, match="was not trained on 30"):
        result.mae("b", 30)
    with pytest.raises(ConfigError, match="no learner 'c'"):
        result.ratio(10, "a", "c")
    with pytest.raises(ConfigError, match="no size up to 5"):
        result.advantage("a", "b", up_to=5)
    blind = learner(data, "b", lambda n: 1.0, blind_to=np.arange(N))
    with pytest.raises(DataError, match="predicted by all of b"):
        learning_curve.run(data.fold(0), [blind], PredictionStore(tmp_path / "blind"), config)


def test_a_request_without_sense_is_refused(tmp_path):
    data, store = dataset(), PredictionStore(tmp_path)
    one = learner(data, "a", lambda n: 1.0)
    with pytest.raises(ConfigError, match="ascending"):
        LearningCurve(sizes=(30, 10))
    with pytest.raises(ConfigError, match="two of each"):
        LearningCurve(n_draws=1)
    with pytest.raises(ConfigError, match="a name of its own"):
        learning_curve.run(data.fold(0), [one, one], store, SIZES)
    few = learner(data, "a", lambda n: 1.0, max_size=3)
    with pytest.raises(ConfigError, match="leave it out"):
        learning_curve.run(data.fold(0), [few], store, SIZES)
    with pytest.raises(DataError, match="has 300 training rows"):
        learning_curve.run(data.fold(0), [one], store, LearningCurve(sizes=(10, 1000)))


# --- Morse curves


@settings(max_examples=30, deadline=None)
@given(st.floats(0.1, 5), st.floats(0.5, 3), st.floats(0.5, 3))
def test_the_force_is_minus_the_slope_and_the_minimum_is_where_it_is_said_to_be(depth, a, r0):
    curve = Morse(depth_ev=depth, stiffness_per_ang=a, minimum_ang=r0)
    r, h = np.linspace(0.5, 5, 40), 1e-5
    slope = (curve.energy_ev(r + h) - curve.energy_ev(r - h)) / (2 * h)
    np.testing.assert_allclose(
        curve.force_ev_per_ang(r), -slope, rtol=1e-6, atol=1e-6 * np.abs(slope).max()
    )
    assert curve.energy_ev(np.array([r0, 1e3])) == pytest.approx([-depth, 0], abs=1e-12)
    assert curve.force_ev_per_ang(np.array([r0])) == pytest.approx([0])


def test_the_slopes_of_the_features_are_their_derivatives():
    basis, r, h = Gaussians(), np.linspace(0.8, 3, 20), 1e-6
    numeric = (basis.values(r + h) - basis.values(r - h)) / (2 * h)
    np.testing.assert_allclose(basis.slopes_per_ang(r), numeric, atol=1e-7)


def test_the_ridge_is_the_textbook_one_and_its_choice_is_leave_one_out():
    draw = np.random.default_rng(0)
    x, y, anchor = draw.normal(size=(12, 5)), draw.normal(size=12), draw.normal(size=5)

    def textbook(x, y, strength):
        return anchor + np.linalg.solve(x.T @ x + strength * np.eye(5), x.T @ (y - x @ anchor))

    lambdas = (0.01, 0.3, 1.0, 30.0)
    left_out = [
        np.mean(
            [
                (y[i] - x[i] @ textbook(np.delete(x, i, 0), np.delete(y, i), strength)) ** 2
                for i in range(12)
            ]
        )
        for strength in lambdas
    ]
    best = lambdas[int(np.argmin(left_out))]
    np.testing.assert_allclose(Ridge(lambdas=lambdas).fit(x, y, anchor), textbook(x, y, best))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_fit_of_nothing_or_of_values_that_are_not_finite_is_refused(bad):
    for x, y in ((np.ones((1, 2)), np.ones(1)), (np.ones((3, 2)), np.array([1, bad, 1]))):
        with pytest.raises(DataError, match="at least two"):
            Ridge().fit(x, y)


def test_a_refit_moves_the_elements_it_sees_and_leaves_the_others():
    compositions = np.zeros((40, 118))
    compositions[:, 2] = np.tile([1, 2, 3, 4], 10)
    compositions[:, 7] = np.repeat([1, 2], 20)
    compositions[0, 10] = 1
    known = np.full(118, np.nan)
    known[[2, 7, 10, 12]] = [-1.0, -4.0, -1.5, -2.0]
    true = known + np.where(np.arange(118) == 7, 0.5, 0.0)
    target = np.linspace(-2, 0, 40)
    fractions = compositions / compositions.sum(axis=1, keepdims=True)
    total = target + fractions @ np.nan_to_num(true)
    total[5] = np.nan  # a row that was not scored
    references = References(name="table", energies_ev_per_atom=known)
    found = refit_towards(references, total, target, compositions)
    assert found.name == "table, refitted"
    np.testing.assert_allclose(found.energies_ev_per_atom[[2, 7, 12]], true[[2, 7, 12]], atol=1e-3)
    assert np.isnan(found.energies_ev_per_atom[0])
    compositions[3, 0] = 1
    with pytest.raises(DataError, match="only finite values"):
        refit_towards(references, total, target, compositions)


@pytest.fixture(scope="module")
def toy():
    return toy_morse.run(toy_morse.ToyMorse(sizes=(3, 12, 80), n_trials=12))


def test_a_pretrained_curve_helps_at_few_points_and_a_shuffled_one_does_not(toy):
    assert toy.ratio(3).high < 0.6
    assert toy.ratio(3, mine="shuffled").low > 1
    assert toy.ratio(3, mine="scratch").estimate == 1
    assert toy.caught_up_at("scratch", "pretrained") == 3
    measured = toy.advantage(up_to=12)
    assert measured.interval.high == max(toy.ratio(3).high, toy.ratio(12).high)
    assert measured.interval.low == max(toy.ratio(3).low, toy.ratio(12).low)
    with pytest.raises(ConfigError, match="no size up to 2"):
        toy.advantage(up_to=2)
    json.dumps(measured.details)


def test_a_toy_is_about_trials_and_about_no_potential(toy):
    measured = toy.advantage(up_to=12)
    assert (measured.subject, measured.model) == ("toy", "ridge, pretrained")
    assert (measured.scored, measured.of) == (12, 12)
    for found in (measured.interval, toy.ratio(3), toy.rmse(3, "scratch")):
        assert found.method.startswith("jackknife and Student's t over 12 trials")


def test_scaled_errors_are_a_planted_fault_of_one_anchor(toy):
    worse = toy.with_errors_scaled("pretrained", 3)
    assert worse.ratio(3).estimate == pytest.approx(3 * toy.ratio(3).estimate)
    assert worse.ratio(3, "scratch", "shuffled") == toy.ratio(3, "scratch", "shuffled")
    assert (
        toy.advantage(up_to=12).interval
        == toy.with_errors_scaled("scratch", 1).advantage(up_to=12).interval
    )


def test_where_both_curves_are_one_nothing_is_left_to_learn():
    same = toy_morse.ToyMorse(
        sizes=(5,), n_trials=4, depth_within=0, stiffness_within=0, minimum_within=0, noise_ev=0
    )
    result = toy_morse.run(same)
    assert result.untrained_rmse_ev.max() < 1e-3
    assert result.rmse_ev["pretrained"].max() < 2e-3 < result.rmse_ev["scratch"].min()


def test_a_toy_is_the_same_each_time_and_another_with_another_seed():
    few = {"sizes": (3,), "n_trials": 3}
    runs = [toy_morse.run(toy_morse.ToyMorse(**few, seed=seed)) for seed in (0, 0, 1)]
    rmse = [run.rmse_ev["pretrained"] for run in runs]
    np.testing.assert_array_equal(rmse[0], rmse[1])
    assert not np.array_equal(rmse[0], rmse[2])


@pytest.mark.parametrize(
    "wrong",
    [{"sizes": (1,)}, {"n_trials": 1}, {"noise_ev": -1}, {"window_ang": (3, 1)}],
    ids=str,
)
def test_a_toy_without_sense_is_refused(wrong):
    with pytest.raises(ConfigError):
        toy_morse.ToyMorse(**wrong)


# --- figures


def test_curves_are_drawn_on_logarithmic_axes_with_every_interval():
    curves = {
        "head": [(10, 0.06, 0.05, 0.07), (100, 0.04, 0.035, 0.045)],
        "scratch": [(100, 0.5, -0.1, 0.9), (10, 0.9, 0.7, 1.1)],
    }
    figure = learning_curves(curves, lines={"zero-shot": 0.056})
    _, scratch, line = figure.data
    assert (figure.layout.xaxis.type, figure.layout.yaxis.type) == ("log", "log")
    assert list(scratch.x) == [10, 100]
    assert scratch.text[1] == "0.5 [-0.1, 0.9]"
    assert all(np.array(scratch.y) - scratch.error_y.arrayminus > 0)
    assert set(line.y) == {0.056}
    low, high = 10 ** np.array(figure.layout.yaxis.range)
    assert low < 0.035
    assert high > 1.1
    for wrong in ({}, {"head": []}, {"head": [(0, 1, 1, 1)]}, {"head": [(1, 1, 2, 3)]}):
        with pytest.raises(DataError):
            learning_curves(wrong)
