"""The toy of softening: fits of one curve, whose errors inside and outside a window are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.claims import Interval
from harness.errors import ConfigError
from harness.models.morse import Morse
from harness.runners import toy_softening
from harness.runners.toy_softening import ToySoftening, ToySofteningResult

WIDTHS, NOISES = (0.5, 1.0), (0.0, 0.02)


@pytest.fixture(scope="module")
def toy():
    return toy_softening.run(ToySoftening(n_trials=6, noises_ev=NOISES, widths=WIDTHS))


def erring(inside_ev, outside_ev) -> ToySofteningResult:
    """Fits that are off by so much inside and outside their window: (widths, noises, trials)."""
    inside_ev, outside_ev = np.asarray(inside_ev), np.asarray(outside_ev)
    config = ToySoftening(n_trials=inside_ev.shape[2], noises_ev=NOISES, widths=WIDTHS)
    grid = np.linspace(*config.whole_ang, 221)
    truth = config.curve.energy_ev(grid)
    fits = np.empty((*inside_ev.shape, len(grid)))
    for i, width in enumerate(WIDTHS):
        low, high = config.window_ang(width)
        within = (low <= grid) & (grid <= high)
        fits[i] = truth + np.where(within, inside_ev[i][..., None], outside_ev[i][..., None])
    points = np.zeros((*inside_ev.shape, config.n_points))
    forces = np.broadcast_to(config.curve.force_ev_per_ang(grid), fits.shape)
    return ToySofteningResult(
        config=config,
        grid_ang=grid,
        points_ang=points,
        labels_ev=points,
        fits_ev=fits,
        fitted_forces_ev_per_ang=forces,
    )


def test_a_window_reaches_so_many_times_as_far_from_the_minimum():
    config = ToySoftening()
    assert config.window_ang() == pytest.approx((0.95 * 1.1, 1.30 * 1.1))
    assert config.window_ang(0.5) == pytest.approx((0.975 * 1.1, 1.15 * 1.1))
    assert config.window_ang(1.5) == pytest.approx((0.925 * 1.1, 1.45 * 1.1))


def test_fits_are_of_points_in_their_window_and_right_there(toy):
    assert toy.rmse_ev("inside")[:, 0].max() < 1e-4  # without noise it interpolates
    for i, width in enumerate(WIDTHS):
        low, high = toy.config.window_ang(width)
        assert low <= toy.points_ang[i].min() < toy.points_ang[i].max() <= high
    assert toy.points_ang.shape == toy.labels_ev.shape == (2, 2, 6, 40)
    np.testing.assert_allclose(
        toy.labels_ev[:, 0], toy.config.curve.energy_ev(toy.points_ang[:, 0]), atol=1e-12
    )
    assert (toy.grid_ang[0], toy.grid_ang[-1]) == (0.8, 3.0)
    np.testing.assert_allclose(np.diff(toy.grid_ang), 0.005)
    # forces are minus the slope of the fit, to the second order of the grid
    inner = toy.fitted_forces_ev_per_ang[1, 1, 0, 1:-1]
    slope = (toy.fits_ev[1, 1, 0, 2:] - toy.fits_ev[1, 1, 0, :-2]) / 0.01
    np.testing.assert_allclose(inner, -slope, atol=1e-2 * np.abs(slope).max())


def test_settings_share_their_draws_and_trials_do_not(toy):
    noise = toy.labels_ev[:, 1] - toy.labels_ev[:, 0]
    np.testing.assert_allclose(noise[0], noise[1], atol=1e-12)
    assert noise.std() == pytest.approx(0.02, rel=0.1)
    np.testing.assert_array_equal(toy.points_ang[:, 0], toy.points_ang[:, 1])
    shares = (toy.points_ang[0, 0] - toy.config.window_ang(0.5)[0]) / np.diff(
        toy.config.window_ang(0.5)
    )
    again = (toy.points_ang[1, 0] - toy.config.window_ang(1.0)[0]) / np.diff(
        toy.config.window_ang(1.0)
    )
    np.testing.assert_allclose(shares, again)
    assert len(np.unique(shares.round(9))) == 6 * 40


def test_one_seed_makes_one_toy():
    few = {"n_trials": 2, "noises_ev": (0.02,), "widths": (1.0,)}
    first, same, other = (
        toy_softening.run(ToySoftening(**few, seed=seed)).fits_ev for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, same)
    assert np.abs(first - other).max() > 1e-3


def test_the_ratio_is_the_geometric_mean_of_trials_with_a_floor_under_the_inside():
    inside = np.broadcast_to([0.02, 0.005, 0.04, 0.02], (2, 2, 4))
    outside = np.broadcast_to([0.2, 0.4, 0.8, 0.1], (2, 2, 4))
    made = erring(inside, outside)
    np.testing.assert_allclose(made.rmse_ev("inside"), inside)
    np.testing.assert_allclose(made.rmse_ev("outside"), outside)
    interval = made.ratio(1.0, 0.02)
    assert interval.estimate == pytest.approx((10 * 40 * 20 * 5) ** 0.25)
    assert (interval.n, interval.n_clusters) == (4, 4)
    assert "over 4 trials" in interval.method


@settings(max_examples=20, deadline=None)
@given(st.floats(1e-6, 0.02))
def test_an_error_below_the_floor_cannot_win(toy, size):
    small = replace(toy, fits_ev=toy.truth_ev + size * np.ones_like(toy.fits_ev))
    ratio = small.ratio(1.0, 0.02).estimate
    assert ratio == pytest.approx(min(1.0, size / toy.config.floor_ev))


def test_errors_divided_are_smaller_inside_and_outside(toy):
    better = toy.with_errors_divided(4.0)
    for where in ("inside", "outside"):
        np.testing.assert_allclose(better.rmse_ev(where), toy.rmse_ev(where) / 4, atol=1e-12)
    np.testing.assert_allclose(better.truth_ev, toy.truth_ev)


def test_the_smallest_ratio_takes_the_smallest_end_of_each_kind():
    draw = np.random.default_rng(0)
    ratios = np.array([[[30.0], [12.0]], [[20.0], [15.0]]])
    spread = np.array([[[0.01], [0.02]], [[0.4], [0.01]]])
    outside = 0.02 * ratios * np.exp(spread * draw.standard_normal((2, 2, 40)))
    made = erring(np.full((2, 2, 40), 0.02), outside)
    each = {(w, n): made.ratio(w, n) for w in WIDTHS for n in NOISES}
    measured = made.smallest_ratio()
    found = measured.interval
    assert found.estimate == each[0.5, 0.02].estimate == pytest.approx(12, rel=0.02)
    assert found.low == min(i.low for i in each.values()) == each[0.5, 0.02].low
    assert found.high == min(i.high for i in each.values()) == each[0.5, 0.02].high
    assert (found.n, found.n_clusters, found.units) == (40, 40, None)
    assert "over 40 trials" in found.method
    assert found.resolution == each[0.5, 0.02].resolution
    assert (measured.subject, measured.model) == ("toy", "ridge trained on the window")
    assert (measured.scored, measured.of, measured.dataset) == (40, 40, "Morse curve")
    assert measured.quantity.endswith("smallest over 4 settings of width and noise")
    rows = measured.details["settings"]
    assert [(row["noise_ev"], row["ratio"]) for row in rows] == [
        (noise, float(f"{each[width, noise].estimate:.4g}")) for width in WIDTHS for noise in NOISES
    ]
    wide = made.smallest_ratio((1.0,))
    assert wide.interval.estimate == each[1.0, 0.02].estimate
    assert wide.interval.low == min(each[1.0, noise].low for noise in NOISES)
    assert wide.quantity.endswith("smallest over 2 settings of width and noise")


def test_the_smallest_of_intervals_is_settled_only_if_each_is():
    one = Interval(estimate=3.0, low=1.0, high=9.0, n=5, n_clusters=5)
    two = Interval(estimate=2.0, low=1.5, high=10.0, n=5, n_clusters=5, unsettled="too few")
    found = toy_softening._smallest([one, two])
    assert (found.low, found.estimate, found.high) == (1.0, 2.0, 9.0)
    assert found.unsettled == "too few"
    assert toy_softening._smallest([one]).unsettled == ""


def test_details_of_a_setting_say_what_it_is_of():
    inside = np.broadcast_to([0.02, 0.005], (2, 2, 2))
    made = erring(np.repeat(inside, 3, axis=2), np.full((2, 2, 6), 0.2))
    row = made.smallest_ratio((1.0,)).details["settings"][1]
    assert row["window_ang"] == "1.045 to 1.430"
    assert row["noise_ev"] == 0.02
    assert row["inside_rmse_ev"] == 0.01
    assert row["outside_rmse_ev"] == 0.2
    assert row["trials_below_floor"] == 3
    assert row["ratio"] == float(f"{(10 * 20) ** 0.5:.4g}")
    assert row["ratio_low"] <= row["ratio"] <= row["ratio_high"]
    # the forces are the curve's own
    sides = ("compressed", "inside", "stretched")
    assert [row[f"force_slope_{side}"] for side in sides] == [1.0, 1.0, 1.0]
    grid, curve = made.grid_ang, Morse()
    rise = curve.energy_ev(grid) + 1.0
    within = (grid >= 1.045 - 1e-12) & (grid <= 1.43 + 1e-12)
    null = np.sqrt(np.mean(rise[~within] ** 2) / np.mean(rise[within] ** 2))
    assert row["ratio_of_constant_relative_error"] == pytest.approx(null, rel=1e-3)


def test_a_toy_trained_everywhere_is_as_right_outside():
    config = ToySoftening(n_trials=20, noises_ev=(0.05,), widths=(1.0,), trained_on="whole")
    everywhere = toy_softening.run(config)
    measured = everywhere.smallest_ratio()
    assert measured.interval.high < 10
    assert measured.model == "ridge trained on the whole"
    assert 0.8 <= everywhere.points_ang.min() < 0.9
    assert 2.9 < everywhere.points_ang.max() <= 3.0


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"n_trials": 1}, "give at least 2 points, 2 trials"),
        ({"n_points": 1}, "give at least 2 points, 2 trials"),
        ({"widths": ()}, "one width and one noise level"),
        ({"noises_ev": ()}, "one width and one noise level"),
        ({"floor_ev": 0.0}, "widths and floor are above 0"),
        ({"noises_ev": (-1e-9,)}, "noise must not be negative"),
        ({"widths": (0.0,)}, "widths and floor are above 0"),
        ({"window_r0": (1.0, 1.3)}, "they must hold the minimum"),
        ({"window_r0": (0.9, 1.0)}, "does not hold the minimum, at 1"),
        ({"whole_ang": (1.05, 3.0)}, r"lie inside whole_ang = \(1.05, 3.0\)"),
        ({"whole_ang": (0.8, 1.4)}, "or nothing is outside"),
        ({"whole_ang": (0.0, 3.0)}, "or nothing is outside"),
    ],
)
def test_toys_that_measure_nothing_are_refused(wrong, says):
    with pytest.raises(ConfigError, match=says):
        ToySoftening(**wrong)


def test_toys_at_the_edge_are_taken():
    few = ToySoftening(n_points=2, n_trials=2, noises_ev=(0.0,), widths=(1.0,))
    assert toy_softening.run(few).fits_ev.shape == (1, 1, 2, 441)


def test_the_toy_of_the_founding_note_is_the_one_that_is_measured():
    config = ToySoftening()
    assert (config.curve.depth_ev, config.curve.stiffness_per_ang) == (1.0, 1.7)
    assert config.curve.minimum_ang == 1.1
    assert config.window_r0 == (0.95, 1.30)
    assert config.widths == (0.5, 1.0, 1.5)
    assert config.noises_ev == (0.0, 0.005, 0.02, 0.05)
    assert (config.n_points, config.n_trials, config.floor_ev) == (40, 200, 0.01)
    assert (config.whole_ang, config.trained_on) == ((0.8, 3.0), "window")
