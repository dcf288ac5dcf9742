"""Softening against answers known on paper: a subject that is DFT times a number, or a parabola."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.data.crystals import Crystals
from harness.data.dft import load_dft
from harness.errors import ConfigError, NotAvailable
from harness.models.protocol import Identity, Prediction
from harness.runners import softening, toy_softening
from harness.runners.softening import Softening
from harness.runners.toy_softening import ToySoftening
from harness.store import PredictionStore

DFT = load_dft()
SHARE = st.floats(0.3, 3.0)


class Recited:
    """Knows the DFT set by heart: energies and forces are DFT's times ``share``.

    Elsewhere (about its own minimum) it reads the energy off the crystal's fitted curve.
    """

    elements = frozenset(range(1, 119))

    def __init__(self, share: float = 1.0, *, mute: str = "", offset_ev_per_atom: float = -3.0):
        settings = {"share": repr(share), "mute": mute, "offset": repr(offset_ev_per_atom)}
        self.identity = Identity(name="recited", weights_sha256="b" * 64, settings=settings)
        self.offset = offset_ev_per_atom
        self.share, self.mute = share, mute
        self.known: dict[bytes, tuple[str, float, np.ndarray | None]] = {}
        self.curves = {}
        for crystal in DFT.crystals:
            curve = DFT.eos(crystal)
            zero = curve.energies_ev_per_atom[np.argmin(np.abs(curve.v_over_v0 - 1))]
            self.curves[crystal] = curve, zero
            for row, energy in zip(
                curve.crystals.row_hashes(), curve.energies_ev_per_atom, strict=True
            ):
                self.known[row.tobytes()] = crystal, float(energy - zero), None
        for crystal in DFT.rattled_crystals:
            cell = DFT.rattled(crystal)
            for row, forces in zip(cell.crystals.row_hashes(), cell.forces_ev_per_ang, strict=True):
                self.known[row.tobytes()] = crystal, 0.0, forces

    def plan(self, crystals: Crystals) -> list[np.ndarray]:
        return [np.arange(len(crystals))]

    def predict(self, crystals: Crystals, properties: object = ("energy",)) -> Prediction:
        energy = np.full(len(crystals), np.nan)
        forces, problems = [], {}
        for i, key in enumerate(crystals.row_hashes()):
            crystal, value, force = self.known.get(key.tobytes()) or self._near(crystals[i])
            energy[i] = self.share * value + self.offset
            forces.append(np.zeros((crystals.n_atoms[i], 3)) if force is None else force)
            if crystal == self.mute:
                energy[i], problems[i] = np.nan, "1 isolated atom"
        return Prediction(
            energy=energy,
            problems=problems,
            forces=[self.share * force for force in forces] if "forces" in properties else None,
        )

    def _near(self, row: Crystals) -> tuple[str, float, None]:
        """A cell that is DFT's but for rounding in its lattice."""
        for crystal, (curve, zero) in self.curves.items():
            same = np.array_equal(curve.crystals[0].numbers, row.numbers)
            volumes = curve.volumes_ang3
            at = int(np.argmin(np.abs(volumes - row.volumes_ang3[0])))
            if same and np.isclose(volumes[at], row.volumes_ang3[0], rtol=1e-9):
                return crystal, float(curve.energies_ev_per_atom[at] - zero), None
        raise AssertionError("a subject with DFT's own minima was asked about others")

    def energies(self, crystals: Crystals) -> np.ndarray:
        return self.predict(crystals).energy


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return PredictionStore(tmp_path_factory.mktemp("predictions"))


@pytest.fixture(scope="module")
def exact(store):
    return softening.curves(Recited(), store, DFT)


@pytest.fixture(scope="module")
def exact_forces(store):
    return softening.forces(Recited(), store, DFT)


# --- equations of state


def test_dft_itself_has_no_error_and_every_ratio_is_one(exact):
    for measured in (
        exact.bulk_modulus_ratio(),
        exact.energy_ratio("compressed"),
        exact.energy_ratio("expanded"),
    ):
        interval = measured.interval
        np.testing.assert_allclose([interval.low, interval.estimate, interval.high], 1, atol=1e-9)
        assert measured.scored + sum(measured.excluded.values()) == measured.of
    # errors of nothing stay below the floor, so nothing is not ten times nothing
    assert exact.error_ratio("v0").interval.high < 1e-6
    assert exact.error_ratio("minimum").interval.high < 1e-5


def test_a_constant_relative_error_scores_the_null(exact):
    without_floor = Softening(near_floor_ev_per_atom=0.0)
    for origin in ("v0", "minimum"):
        curves = softening.replace(exact, config=without_floor)
        shares = curves.with_model(lambda c: 0.8 * c.dft_ev_per_atom, name="0.8 DFT")
        if origin == "minimum":
            with pytest.raises(NotAvailable, match="own minimum"):
                shares.error_ratio("minimum")
            continue
        measured = shares.error_ratio(origin)
        null = measured.details["null_of_constant_relative_error"]
        assert measured.interval.estimate == pytest.approx(null["estimate"], rel=1e-3)
        assert measured.details["ratio_over_null"]["estimate"] == pytest.approx(1, rel=1e-3)
        assert null["estimate"] > 30  # far above ten: why the ratio alone shows no softening


@settings(max_examples=6, deadline=None)
@given(SHARE, st.floats(-5, 5))
def test_ratios_are_the_share_whatever_the_zero(exact, share, zero):
    scaled = exact.with_model(lambda c: share * c.dft_ev_per_atom + zero, name="scaled")
    assert scaled.bulk_modulus_ratio().interval.estimate == pytest.approx(share, rel=1e-6)
    assert scaled.energy_ratio("compressed").interval.estimate == pytest.approx(share, rel=1e-6)


@settings(max_examples=15, deadline=None)
@given(st.floats(0.001, 0.05), st.floats(1.0, 30.0))
def test_the_error_ratio_is_far_over_near(exact, near_ev, times):
    def stepped(curve):
        away = np.abs(curve.v_over_v0 - 1)
        error = np.where(away > 0.15, times * near_ev, near_ev) * (away > 1e-6)
        return curve.dft_ev_per_atom + error

    measured = exact.with_model(stepped, name="stepped").error_ratio("v0")
    assert measured.interval.estimate == pytest.approx(times, rel=1e-6)
    assert {row["ratio"] for row in measured.details["crystals"]} == {float(f"{times:.4g}")}


def test_the_floor_keeps_a_tiny_near_error_from_winning(exact):
    def lucky(curve):
        far = np.abs(curve.v_over_v0 - 1) > 0.15
        return curve.dft_ev_per_atom + np.where(far, 1e-4, 0.0)

    assert exact.with_model(lucky, name="lucky").error_ratio("v0").interval.high < 1


def test_a_crystal_that_cannot_be_scored_is_excluded_with_its_reason(store):
    mute = DFT.full_eos[1]
    curves = softening.curves(Recited(mute=mute), store, DFT)
    assert curves.dropped[mute] == "1 isolated atom"
    measured = curves.error_ratio("v0")
    assert measured.excluded["1 isolated atom"] == 1
    assert measured.scored + sum(measured.excluded.values()) == measured.of
    assert mute not in {row["crystal"] for row in measured.details["crystals"]}


def test_a_curve_without_a_minimum_has_no_bulk_modulus(exact):
    first = exact.curves[0].crystal

    def falling(curve):
        return -curve.v_over_v0 if curve.crystal == first else curve.dft_ev_per_atom

    measured = exact.with_model(falling, name="falling").bulk_modulus_ratio()
    assert measured.excluded["the subject has no single minimum within 10 % of V0"] == 1


def test_far_points_missing_from_the_set_are_counted(exact):
    short = [c.crystal for c in exact.curves if 1.6 not in c.v_over_v0]
    measured = exact.error_ratio("v0")
    assert sum("no energy at 1.6 V0" in why for why in measured.excluded) == bool(short)
    assert measured.of == len(exact.curves) + len(exact.dropped)


def test_what_is_shown_holds_every_structure_type_first(exact):
    kinds = {curve.prototype for curve in exact.curves}
    shown = exact.one_per_prototype(len(kinds))
    assert {curve.prototype for curve in shown} == kinds


class BirchMurnaghan(Recited):
    """One curve for all crystals, its minimum at the set's V0 times ``1 + shift``."""

    def __init__(self, shift: float) -> None:
        self.identity = Identity(name=f"shifted by {shift}", weights_sha256="c" * 64)
        curves = [DFT.eos(crystal) for crystal in DFT.crystals]
        self.minima = {
            str(curve.crystals.reduced_formulas()[0]): curve.volumes_ang3[0]
            / curve.v_over_v0[0]
            / curve.n_atoms
            for curve in curves
        }
        self.shift = shift

    def predict(self, crystals: Crystals, properties: object = ("energy",)) -> Prediction:
        formulas = crystals.reduced_formulas().tolist()
        v0 = np.array([self.minima[formula] for formula in formulas]) * (1 + self.shift)
        x = (crystals.volumes_ang3 / crystals.n_atoms / v0) ** (-2 / 3)
        return Prediction(energy=2.0 * (x - 1) ** 2 + 0.5 * (x - 1) ** 3)


def test_a_wrong_lattice_constant_counts_at_one_geometry_and_not_about_the_minimum(store):
    right, off = (softening.curves(BirchMurnaghan(shift), store, DFT) for shift in (0.0, 0.02))
    pairs = [
        (one, other)
        for one, other in zip(right.curves, off.curves, strict=True)
        if not (one.without_minimum() or other.without_minimum())
    ]
    assert len(pairs) >= 30
    for one, other in pairs:
        assert other.model_minimum.v0_ang3 == pytest.approx(1.02 * one.model_minimum.v0_ang3)
        assert np.abs(other.rises("v0")[1] - one.rises("v0")[1]).max() > 1e-3
        np.testing.assert_allclose(other.rises("minimum")[1], one.rises("minimum")[1], atol=1e-6)


# --- forces


@settings(max_examples=8, deadline=None)
@given(SHARE)
def test_the_force_slope_is_the_share(exact_forces, share):
    scaled = exact_forces.with_model(lambda c: share * c.dft_ev_per_ang, name="scaled")
    for amplitude in scaled.amplitudes_ang:
        measured = scaled.slope(amplitude)
        interval = measured.interval
        np.testing.assert_allclose([interval.low, interval.high], share, rtol=1e-9)
        assert measured.scored + sum(measured.excluded.values()) == measured.of
    # and one label takes any share out
    fixed = scaled.one_label_fix("other-amplitudes").interval
    np.testing.assert_allclose([fixed.low, fixed.high], 1, rtol=1e-9)


def test_forces_come_through_the_store_in_their_order(store):
    result = softening.forces(Recited(0.9), store, DFT)
    for crystal in result.crystals:
        np.testing.assert_allclose(crystal.model_ev_per_ang, 0.9 * crystal.dft_ev_per_ang)


def test_noise_across_the_forces_leaves_the_slope_alone(exact_forces):
    def sideways(crystal):
        """Added: what is at right angles to DFT's forces of each configuration."""
        draw = np.random.default_rng(1).standard_normal(crystal.dft_ev_per_ang.shape)
        true = crystal.dft_ev_per_ang
        along = (draw * true).sum((1, 2), keepdims=True) / (true**2).sum((1, 2), keepdims=True)
        return true + draw - along * true

    measured = exact_forces.with_model(sideways, name="sideways").slope(0.1)
    assert measured.interval.estimate == pytest.approx(1, abs=1e-9)
    assert min(row["scatter_over_rms"] for row in measured.details["crystals"]) > 0.3


def test_one_label_cannot_mend_a_slope_that_changes_with_amplitude(exact_forces):
    def hardening(crystal):
        return (0.6 + 2 * crystal.amplitudes_ang)[:, None, None] * crystal.dft_ev_per_ang

    measured = exact_forces.with_model(hardening, name="hardening").one_label_fix(
        "other-amplitudes"
    )
    rows = {row["amplitude_ang"]: row for row in measured.details["by_amplitude"]}
    assert rows[0.05]["slope_after"] == pytest.approx(0.7 / 0.8, rel=1e-3)
    assert rows[0.2]["slope_after"] == pytest.approx(1.0 / 0.8, rel=1e-3)
    assert measured.details["slope_before"]["estimate"] < 1 < measured.interval.low


def test_other_directions_never_hold_the_label_nor_its_seed(exact_forces):
    for crystal in exact_forces.crystals:
        for others, same in (("other-amplitudes", True), ("other-directions", False)):
            rows = exact_forces._others(crystal, others)
            assert ((crystal.seeds[rows] == 0) == same).all()
            assert not set(rows) & set(exact_forces._label(crystal))
            assert (crystal.amplitudes_ang[rows] < 0.2001).all()


def test_one_label_is_tried_along_other_directions_where_there_are_any(exact_forces):
    """Two crystals' configurations at other amplitudes, told apart by a second seed."""
    relabelled = tuple(
        softening.replace(c, seeds=np.where(np.isclose(c.amplitudes_ang, 0.1), c.seeds, 1))
        for c in exact_forces.crystals
    )
    forces = softening.replace(exact_forces, crystals=relabelled)
    soft = forces.with_model(lambda c: 0.8 * c.dft_ev_per_ang, name="0.8 DFT")
    measured = soft.one_label_fix("other-directions")
    assert measured.interval.estimate == pytest.approx(1)
    assert measured.scored >= 2
    with pytest.raises(NotAvailable, match="no other amplitudes"):
        soft.one_label_fix("other-amplitudes")


def test_forces_of_nothing_give_no_label(exact_forces):
    nothing = exact_forces.with_model(lambda c: 0 * c.dft_ev_per_ang, name="nothing")
    with pytest.raises(NotAvailable, match="not above zero"):
        nothing.one_label_fix("other-amplitudes")
    assert nothing.slope(0.1).interval.estimate == 0


def test_a_label_must_be_of_a_crystal_there_is(exact_forces):
    with pytest.raises(ConfigError, match="no label of 'Unobtainium'"):
        exact_forces.one_label_fix("other-amplitudes", donor="Unobtainium")


@pytest.mark.parametrize(
    "wrong",
    [
        {"near": ()},
        {"near": (0.7,)},
        {"far": (1.0,)},
        {"label_amplitude_ang": 0.4},
        {"near_floor_ev_per_atom": -1.0},
    ],
)
def test_settings_that_measure_nothing_are_refused(wrong):
    with pytest.raises(ConfigError):
        Softening(**wrong)


# --- the toy


@pytest.fixture(scope="module")
def toy():
    return toy_softening.run(ToySoftening(n_trials=6, noises_ev=(0.0, 0.02), widths=(0.5, 1.0)))


def test_the_toy_is_right_inside_and_its_ratio_is_of_its_own_fits(toy):
    assert toy.rmse_ev("inside")[:, 0].max() < 1e-4  # without noise it interpolates
    inside, outside = toy.rmse_ev("inside")[1, 1], toy.rmse_ev("outside")[1, 1]
    by_hand = np.exp(np.mean(np.log(outside / np.maximum(inside, toy.config.floor_ev))))
    assert toy.ratio(1.0, 0.02).estimate == pytest.approx(by_hand)
    low, high = toy.config.window_ang(1.0)
    assert (low, high) == pytest.approx((0.95 * 1.1, 1.30 * 1.1))
    assert low <= toy.points_ang[1].min() < toy.points_ang[1].max() <= high


def test_the_toy_shares_its_draws_between_settings(toy):
    noise = toy.labels_ev[:, 1] - toy.labels_ev[:, 0]
    np.testing.assert_allclose(noise[0], noise[1], atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(st.floats(1e-6, 0.02))
def test_an_error_below_the_floor_cannot_win(toy, size):
    small = softening.replace(toy, fits_ev=toy.truth_ev + size * np.ones_like(toy.fits_ev))
    ratio = small.ratio(1.0, 0.02).estimate
    assert ratio == pytest.approx(min(1.0, size / toy.config.floor_ev))


def test_the_smallest_ratio_is_below_every_setting(toy):
    measured = toy.smallest_ratio()
    rows = measured.details["settings"]
    assert len(rows) == 4
    assert measured.interval.estimate <= min(row["ratio"] for row in rows) * 1.001
    assert toy.smallest_ratio((1.0,)).interval.estimate >= measured.interval.estimate


def test_a_toy_trained_everywhere_is_as_right_outside():
    config = ToySoftening(n_trials=20, noises_ev=(0.05,), widths=(1.0,), trained_on="whole")
    everywhere = toy_softening.run(config)
    assert everywhere.smallest_ratio().interval.high < 10
    assert everywhere.points_ang.min() < 0.9
    assert everywhere.points_ang.max() > 2.9


@pytest.mark.parametrize(
    "wrong",
    [
        {"n_trials": 1},
        {"floor_ev": 0.0},
        {"noises_ev": (-0.1,)},
        {"window_r0": (1.05, 1.3)},
        {"window_r0": (0.8, 0.95)},
        {"whole_ang": (1.0, 1.2)},
        {"widths": ()},
    ],
)
def test_toys_that_measure_nothing_are_refused(wrong):
    with pytest.raises(ConfigError):
        ToySoftening(**wrong)
