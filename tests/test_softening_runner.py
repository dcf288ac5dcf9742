"""Softening against answers known on paper: a subject that is DFT times a number, or a parabola."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.claims import Interval
from harness.data.crystals import Crystals
from harness.data.dft import SET_ASIDE, load_dft
from harness.errors import CannotResolve, ConfigError, DataError
from harness.models.protocol import Identity, Prediction
from harness.runners import softening
from harness.runners.softening import Curve, Curves, Displaced, Forces, Softening
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
        assert measured.interval.estimate == pytest.approx(1, abs=1e-9)
        assert measured.absent["cutoff raised after a comparison"] == 3
        assert measured.excluded == {}
        assert (measured.scored, measured.of) == (47, 50)
        assert measured.model == measured.subject == "recited"
    # errors of nothing stay below the floor, so nothing is not ten times nothing
    assert exact.error_ratio("v0").interval.estimate < 1e-6
    assert exact.error_ratio("minimum").interval.estimate < 1e-5


def test_a_constant_relative_error_scores_the_null(exact):
    without_floor = Softening(near_floor_ev_per_atom=0.0)
    for origin in ("v0", "minimum"):
        curves = replace(exact, config=without_floor)
        shares = curves.with_model(lambda c: 0.8 * c.dft_ev_per_atom, name="0.8 DFT")
        if origin == "minimum":
            with pytest.raises(CannotResolve, match="was not asked about its own minimum: 47"):
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

    found = exact.with_model(lucky, name="lucky").error_ratio("v0").interval
    assert found.estimate == pytest.approx(0.1 / 0.5)


def test_a_crystal_that_cannot_be_scored_is_excluded_with_its_reason(store):
    mute = DFT.full_eos[1]
    curves = softening.curves(Recited(mute=mute), store, DFT)
    assert curves.dropped[mute] == "1 isolated atom"
    assert set(curves.set_aside) == {"Cu-fcc", "CuZn-CsCl", "Cu3Au-Cu3Au"}
    measured = curves.error_ratio("v0")
    assert measured.excluded == {"1 isolated atom": 1}
    assert measured.absent == {"cutoff raised after a comparison": 3}
    assert (measured.scored, measured.of) == (46, 50)
    assert mute not in {row["crystal"] for row in measured.details["crystals"]}


def test_a_curve_without_a_minimum_has_no_bulk_modulus(exact):
    first = exact.curves[0].crystal

    def falling(curve):
        return -curve.v_over_v0 if curve.crystal == first else curve.dft_ev_per_atom

    measured = exact.with_model(falling, name="falling").bulk_modulus_ratio()
    assert measured.excluded["the subject has no single minimum within 10 % of V0"] == 1


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
        assert measured.interval.estimate == pytest.approx(share, rel=1e-9)
        assert measured.scored == measured.of == 17
    # and one label takes any share out
    fixed = scaled.one_label_fix("other-amplitudes").interval
    assert fixed.estimate == pytest.approx(1, rel=1e-9)


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
    assert rows[0.1] == {"amplitude_ang": 0.1, "configurations": 0, "crystals": 0}
    assert set(rows) == {0.05, 0.1, 0.2}


def test_other_directions_never_hold_the_label_nor_its_seed(exact_forces):
    for crystal in exact_forces.crystals:
        for others, same in (("other-amplitudes", True), ("other-directions", False)):
            rows = exact_forces._others(crystal, others)
            assert ((crystal.seeds[rows] == 0) == same).all()
            assert not set(rows) & set(exact_forces.label_of(crystal))
            assert (crystal.amplitudes_ang[rows] < 0.2001).all()


def test_forces_of_nothing_give_no_label(exact_forces):
    nothing = exact_forces.with_model(lambda c: 0 * c.dft_ev_per_ang, name="nothing")
    with pytest.raises(CannotResolve, match="the label's slope is not above zero: 17"):
        nothing.one_label_fix("other-amplitudes")
    assert nothing.slope(0.1).interval.estimate == 0


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"near": ()}, "near and far need volumes of their own"),
        ({"far": ()}, "near and far need volumes of their own"),
        ({"near": (0.7,)}, "near and far need volumes of their own"),
        ({"far": (1.0,)}, "fractions of V0, above 0 and not V0 itself"),
        ({"near": (1.0,)}, "fractions of V0, above 0 and not V0 itself"),
        ({"far": (0.0, 1.3)}, "fractions of V0, above 0 and not V0 itself"),
        ({"near": (-0.1,)}, "fractions of V0, above 0 and not V0 itself"),
        ({"near_floor_ev_per_atom": -1e-9}, "the floor must not be negative"),
        ({"label_amplitude_ang": 0.0}, "the label's amplitude lies above 0"),
        ({"label_amplitude_ang": 0.21}, "not beyond fixed_up_to_ang"),
    ],
)
def test_settings_that_measure_nothing_are_refused(wrong, says):
    with pytest.raises(ConfigError, match=says):
        Softening(**wrong)


def test_settings_at_the_edge_are_taken():
    assert Softening(near_floor_ev_per_atom=0.0, label_amplitude_ang=0.2).fixed_up_to_ang == 0.2


# --- small sets whose every number is known on paper

VOLUMES = np.array([0.7, 0.8, 0.91, 0.95, 1.0, 1.05, 1.09, 1.3, 1.6])
NAMES = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def parabola(stiffness: float, v: np.ndarray = VOLUMES) -> np.ndarray:
    """eV/atom, with its minimum at V0 and a bulk modulus in proportion to the stiffness."""
    return stiffness * (v ** (-2 / 3) - 1) ** 2


def curve(name: str, share: float = 1.0, *, stiffness: float = 1.0, **more) -> Curve:
    """A crystal whose energies the subject gives times ``share``."""
    v = more.pop("v_over_v0", VOLUMES)
    given = {
        "crystal": name,
        "prototype": "fcc",
        "v_over_v0": v,
        "volumes_ang3_per_atom": 20.0 * v,
        "dft_ev_per_atom": parabola(stiffness, v),
        "model_ev_per_atom": share * parabola(stiffness, v),
    }
    return Curve(**{**given, **more})


def curves_of(*found: Curve, dropped=(), set_aside=()) -> Curves:
    return Curves(
        config=Softening(),
        model="model",
        subject="subject",
        curves=found,
        dropped={f"dropped {i}": why for i, why in enumerate(dropped)},
        set_aside={f"aside {i}": why for i, why in enumerate(set_aside)},
        inputs={"file": "0" * 64},
    )


def shares(*values: float) -> Curves:
    return curves_of(*(curve(NAMES[i], share) for i, share in enumerate(values)))


def displaced(
    name: str,
    slope: float | tuple[float, ...],
    *,
    size: float = 1.0,
    amplitudes: tuple[float, ...] = (0.1,),
    seeds: tuple[int, ...] | None = None,
    problems: dict[int, str] | None = None,
) -> Displaced:
    """Cells of two atoms; the subject's forces are DFT's times a slope, one a cell or one for all.

    DFT's components are ``size`` times 1 to 6: their squares add up to 91.
    """
    k = len(amplitudes)
    dft = np.broadcast_to(size * np.arange(1.0, 7.0).reshape(1, 2, 3), (k, 2, 3)).copy()
    each = np.broadcast_to(np.asarray(slope, float), (k,))
    return Displaced(
        crystal=name,
        amplitudes_ang=np.array(amplitudes),
        seeds=np.array(seeds or (0,) * k),
        dft_ev_per_ang=dft,
        model_ev_per_ang=each[:, None, None] * dft,
        problems=problems or {},
    )


def forces_of(*crystals: Displaced) -> Forces:
    return Forces(
        config=Softening(),
        model="model",
        subject="subject",
        crystals=crystals,
        inputs={"file": "0" * 64},
    )


# curves


def test_a_problem_is_found_at_the_point_it_is_of_however_its_volume_is_rounded():
    """Once looked up by equal floats: a point at 0.7 V0 and a rounding had a problem nobody saw."""
    volumes = VOLUMES.copy()
    volumes[0] += 1e-9
    one = curve("A", v_over_v0=volumes, problems={0: "1 isolated atom"})
    assert one.at([0.7, 1.6]).tolist() == [0, 8]
    assert one.lacking([0.7]) == ""
    assert one.failing([0.7]) == one.missing([0.7]) == "1 isolated atom"
    assert one.failing([0.8]) == one.missing([0.8]) == one.missing([]) == ""
    measured = curves_of(one, curve("B"), curve("C")).energy_ratio("compressed")
    assert measured.excluded == {"1 isolated atom": 1}


def test_a_volume_is_there_to_a_millionth():
    volumes = VOLUMES.copy()
    volumes[:2] += (9e-7, 1.1e-6)
    one = curve("A", v_over_v0=volumes)
    assert one.lacking([0.7]) == ""
    assert one.lacking([0.7, 0.8]) == "the DFT set has no energy at 0.8 V0"
    assert one.missing([0.8, 1.2], "minimum") == "the DFT set has no energy at 0.8 V0"


def test_problems_about_the_own_minimum_are_other_problems():
    asked = curve("A", problems={8: "far"}, problems_about_minimum={0: "near"})
    assert asked.failing([0.7], "minimum") == "the subject was not asked about its own minimum"
    asked = replace(asked, model_about_minimum_ev_per_atom=parabola(1.0))
    assert asked.failing([0.7], "minimum") == "near"
    assert asked.failing([1.6], "minimum") == ""
    assert asked.failing([1.6]) == "far"
    assert asked.failing([0.7]) == ""
    none = curve("A", problems={4: "no energy"}, model_about_minimum_ev_per_atom=parabola(1.0))
    assert none.without_minimum() == none.failing([1.6], "minimum") == "no energy"
    flat = curve("A", model_ev_per_atom=-VOLUMES)
    assert flat.without_minimum() == "the subject has no single minimum within 10 % of V0"
    with pytest.raises(DataError, match="A: the subject was not asked about its own minimum; use"):
        curve("A").rises("minimum")


def test_rises_about_the_minimum_are_counted_from_both_minima():
    about = np.arange(9.0)
    one = curve("A", 0.5, model_about_minimum_ev_per_atom=about)
    dft, model = one.rises("minimum")
    np.testing.assert_allclose(dft, parabola(1.0), atol=1e-12)
    assert model is about
    assert one.near_volumes == [0.91, 0.95, 1.0, 1.05, 1.09]


def test_another_subject_is_counted_from_v0_and_keeps_the_problems():
    asked = curve("A", problems={8: "far"}, problems_about_minimum={0: "near"})
    asked = replace(asked, model_about_minimum_ev_per_atom=parabola(1.0))
    changed = curves_of(asked).with_model(lambda c: 7.0 + 2 * c.model_ev_per_atom, name="twice")
    assert (changed.model, changed.subject) == ("twice", "subject")
    (one,) = changed.curves
    np.testing.assert_allclose(one.model_ev_per_atom, 2 * parabola(1.0), atol=1e-12)
    assert one.problems == {8: "far"}
    assert one.model_about_minimum_ev_per_atom is None
    assert one.problems_about_minimum == {}


def test_a_stiffened_subject_rises_by_so_much_more_of_dft():
    stiffer = shares(0.5, 0.9, 0.6, 0.7, 0.8).stiffened(0.25)
    assert stiffer.model == "model and +0.25 of DFT's rise"
    assert stiffer.energy_ratio("expanded").interval.estimate == pytest.approx(0.95)
    assert shares(0.5, 0.9).stiffened(-0.1).model == "model and -0.1 of DFT's rise"


def test_the_error_ratio_is_of_sums_over_crystals_with_a_floor_under_each():
    near_and_far = {"A": (1, 30), "B": (2, 18), "C": (0, 10), "D": (1, 5), "E": (4, 80)}

    def planted(i, name):  # meV/atom
        near, far = near_and_far[name]
        away = np.abs(VOLUMES - 1)
        error = 1e-3 * np.where(away > 0.15, far, near) * (away > 1e-6)
        dft = parabola(1.0 + i)
        return curve(name, stiffness=1.0 + i, model_ev_per_atom=dft - error)

    measured = curves_of(*(planted(i, name) for i, name in enumerate("ABCDE"))).error_ratio("v0")
    assert measured.interval.estimate == pytest.approx(143 / 8.5)
    assert measured.interval.n_clusters == 5
    assert measured.interval.effective == pytest.approx(8.5**2 / (1 + 4 + 0.25 + 1 + 16))
    assert "crystals" in measured.interval.method
    details = measured.details
    assert details["error_near_mev_per_atom"] == 1.6
    assert details["error_far_mev_per_atom"] == 28.6
    assert details["near_floor_mev_per_atom"] == 0.5
    assert details["crystals_above_10"] == 3  # 30, 20 and 20; 9 and 5 are not
    assert details["median"]["estimate"] == 20.0
    assert details["near"] == [0.95, 1.05]
    assert details["far"] == [0.7, 0.8, 1.3, 1.6]
    null = parabola(1.0)[[0, 1, 7, 8]].mean() / parabola(1.0)[[3, 5]].mean()
    found = details["null_of_constant_relative_error"]
    assert found["estimate"] == pytest.approx(null, rel=1e-3)
    assert details["ratio_over_null"]["estimate"] == pytest.approx(143 / 8.5 / null, rel=1e-3)
    assert details["crystals"][1] == {
        "crystal": "B",
        "near_mev_per_atom": 2.0,
        "far_mev_per_atom": 18.0,
        "ratio": 9.0,
        "null": pytest.approx(null, rel=1e-3),
    }
    assert details["crystals"][2]["ratio"] == 20.0
    assert details["origin"] == "the same geometries, energies relative to those at V0"
    assert measured.quantity == "error of E(V) far from V0 over error near it"


def test_what_the_set_lacks_is_absent_and_what_the_subject_lacks_is_excluded():
    short = VOLUMES[:-1]
    found = curves_of(
        *(curve(NAMES[i], 0.9 + 0.1 * i) for i in range(5)),
        curve("short", v_over_v0=short),
        curve("mute", problems={7: "no energy"}),
        dropped=["1 isolated atom", "no energy"],
        set_aside=["cutoff raised"],
    )
    measured = found.error_ratio("v0")
    assert measured.absent == {"cutoff raised": 1, "the DFT set has no energy at 1.6 V0": 1}
    assert measured.excluded == {"1 isolated atom": 1, "no energy": 2}
    assert (measured.scored, measured.of) == (5, 10)
    assert measured.asked == 8
    compressed = found.energy_ratio("compressed")
    assert compressed.scored == 7
    assert (measured.subject, measured.model) == ("subject", "model")
    assert measured.inputs == {"file": "0" * 64}
    assert measured.dataset == "own PBE calculations"


def test_a_bulk_modulus_needs_five_points_near_v0_and_a_minimum():
    four = np.delete(VOLUMES, 2)
    falling = curve("falling", model_ev_per_atom=-VOLUMES)
    found = curves_of(
        *(curve(NAMES[i], share) for i, share in enumerate((0.5, 0.8, 1.1, 0.7, 0.9))),
        curve("four", v_over_v0=four),
        falling,
    )
    measured = found.bulk_modulus_ratio()
    assert measured.interval.estimate == pytest.approx(0.8)
    assert measured.absent == {"fewer than five points near V0": 1}
    assert measured.excluded == {"the subject has no single minimum within 10 % of V0": 1}
    details = measured.details
    product = 0.5 * 0.8 * 1.1 * 0.7 * 0.9
    assert details["geometric_mean"]["estimate"] == pytest.approx(product**0.2, rel=1e-3)
    assert details["trimmed_mean"]["estimate"] == pytest.approx(0.8)
    assert details["median"]["estimate"] == pytest.approx(0.8)
    assert details["crystals_below_1"] == 4
    row = details["crystals"][0]
    assert row["crystal"] == "A"
    assert row["ratio"] == 0.5
    assert row["b0_gpa"] == pytest.approx(row["dft_b0_gpa"] / 2, rel=1e-3)
    assert row["minimum_volume_over_dft"] == 1.0


def test_one_crystal_that_is_far_too_stiff_decides_a_mean_and_is_named():
    measured = shares(*[0.9] * 11, 2.0).bulk_modulus_ratio()
    assert "one of 12 crystals has 92% of the variance" in measured.interval.unsettled
    details = measured.details
    assert details["most_influential_crystal"] == "L"
    assert details["its_value"] == 2.0
    assert details["its_share_of_the_variance"] == pytest.approx(11 / 12, abs=1e-4)
    assert details["mean_without_it"] == 0.9
    assert details["median"] == {"estimate": 0.9, "low": 0.9, "high": 0.9}
    assert details["trimmed_mean"] == {
        "estimate": 0.9,
        "low": 0.9,
        "high": 0.9,
        "left_out_at_either_end": 1,
    }


def test_a_rise_is_that_of_one_side_and_each_crystal_counts_once():
    """Half of DFT's on compression and twice on expansion, of crystals soft and stiff."""

    def lopsided(name, stiffness):
        dft = parabola(stiffness)
        return curve(
            name,
            stiffness=stiffness,
            model_ev_per_atom=np.where(VOLUMES < 1, 0.5, 2.0) * dft,
        )

    others = (curve(name, share) for name, share in (("C", 1.1), ("D", 1.3), ("E", 1.0)))
    found = curves_of(lopsided("A", 1.0), lopsided("B", 100.0), *others)
    low, high = found.energy_ratio("compressed"), found.energy_ratio("expanded")
    assert low.interval.estimate == pytest.approx((0.5 + 0.5 + 1.1 + 1.3 + 1.0) / 5)
    assert high.interval.estimate == pytest.approx((2 + 2 + 1.1 + 1.3 + 1.0) / 5)
    assert "from V0 to 0.7 and 0.8 V0 over DFT's, mean over crystals" in low.quantity
    assert "from V0 to 1.3 and 1.6 V0 over DFT's, mean over crystals" in high.quantity
    assert low.details["about_own_minimum"] is None
    assert low.details["crystals_below_1"] == 2
    assert [row["ratio"] for row in low.details["crystals"]] == [0.5, 0.5, 1.1, 1.3, 1.0]


def test_a_rise_about_the_own_minimum_is_told_of_the_crystals_that_have_one():
    def about(name, share):
        return curve(name, model_about_minimum_ev_per_atom=share * parabola(1.0))

    asked = [about(NAMES[i], share) for i, share in enumerate((0.6, 0.7, 0.8, 0.9, 0.5))]
    details = curves_of(*asked, curve("Z")).energy_ratio("expanded").details
    assert details["about_own_minimum"]["estimate"] == pytest.approx(0.7)
    assert [row["crystals"] for row in details["by_volume_about_own_minimum"]] == [5] * 6
    others = [curve(name, 0.9 + 0.1 * i) for i, name in enumerate("VWXYZ")]
    alone = curves_of(asked[0], *others).energy_ratio("expanded").details
    assert alone["about_own_minimum"] is None
    assert alone["by_volume_about_own_minimum"] == []


def test_by_volume_there_is_a_signed_error_and_far_from_v0_a_ratio():
    found = curves_of(
        *(curve(NAMES[i], share) for i, share in enumerate((0.5, 1.2, 1.0, 0.9, 0.8))),
        curve("Z", problems={0: "no energy"}),
    )
    rows = found.by_volume("v0")
    assert [row["v_over_v0"] for row in rows] == [0.7, 0.8, 0.95, 1.05, 1.3, 1.6]
    assert [row["crystals"] for row in rows] == [5, 6, 6, 6, 6, 6]
    rise = parabola(1.0)[0]
    assert rows[0]["error_mev_per_atom"] == pytest.approx(-1e3 * 0.12 * rise, rel=1e-3)
    assert rows[0]["error_low"] < rows[0]["error_mev_per_atom"] < rows[0]["error_high"]
    assert rows[0]["model_lower"] == 3
    assert rows[0]["rise_over_dft"] == pytest.approx(0.88)
    assert rows[0]["rise_low"] < 0.88 < rows[0]["rise_high"]
    assert "rise_over_dft" not in rows[2]
    assert found.rises_over_dft()["Z"] == [(v, pytest.approx(1.0)) for v in (0.8, 1.3, 1.6)]
    assert found.rises_over_dft()["A"][0] == (0.7, pytest.approx(0.5))


def test_crystals_shown_are_the_first_of_each_structure_type_then_the_next():
    kinds = {"A": "fcc", "B": "fcc", "C": "bcc", "D": "bcc", "E": "hcp"}
    found = curves_of(*(curve(name, prototype=kind) for name, kind in kinds.items()))
    assert [c.crystal for c in found.one_per_prototype(4)] == ["A", "C", "E", "B"]
    assert [c.crystal for c in found.one_per_prototype(9)] == ["A", "C", "E", "B", "D"]


def test_fewer_than_two_crystals_resolve_nothing():
    alone = curves_of(curve("A"), curve("B", problems={4: "no energy"}), set_aside=["moved"])
    with pytest.raises(
        CannotResolve,
        match=r"^1 crystal\(s\) of the DFT set can be used and an interval needs two "
        r"\(no energy: 1; moved: 1\)$",
    ):
        alone.bulk_modulus_ratio()
    with pytest.raises(CannotResolve, match="there are no others"):
        curves_of(curve("A")).bulk_modulus_ratio()
    assert curves_of(curve("A"), curve("B")).bulk_modulus_ratio().scored == 2


def test_a_crystal_without_a_point_at_v0_is_not_asked_about(store):
    crystals = DFT.full_eos[:4]

    class Cut:
        """The DFT set, the first of four crystals without its point at V0."""

        def __init__(self) -> None:
            self.crystals, self.sha256 = crystals, DFT.sha256

        def eos(self, crystal):
            found = DFT.eos(crystal)
            if crystal != crystals[0]:
                return found
            keep = np.flatnonzero(np.abs(found.v_over_v0 - 1) > 1e-6)
            return replace(
                found,
                v_over_v0=found.v_over_v0[keep],
                volumes_ang3=found.volumes_ang3[keep],
                energies_ev=found.energies_ev[keep],
                pressures_gpa=found.pressures_gpa[keep],
                crystals=found.crystals[keep],
            )

    result = softening.curves(Recited(), store, Cut())
    assert result.set_aside == {crystals[0]: "the DFT set has no energy at 1 V0"}
    assert len(result.curves) == 3
    assert result.dropped == {}
    assert result.inputs["recited"] == "b" * 64


def test_crystals_set_aside_after_a_comparison_are_not_asked_about(exact):
    assert set(exact.set_aside) <= set(SET_ASIDE)
    assert not {c.crystal for c in exact.curves} & set(SET_ASIDE)


# forces


def test_every_crystal_counts_once_in_a_force_slope_and_by_its_squares_in_the_pooled_one():
    """Three crystals: a stiff one that is soft decides the pooled slope and not the mean."""
    found = forces_of(
        displaced("A", 0.5, size=10.0), displaced("B", 1.0), displaced("C", 1.2, size=2.0)
    )
    measured = found.slope(0.1)
    assert measured.interval.estimate == pytest.approx(0.9)
    assert measured.interval.effective == pytest.approx(3)
    assert measured.quantity == "force slope against DFT at 0.1 Å, mean over crystals"
    details = measured.details
    pooled = details["pooled_slope"]
    assert pooled["estimate"] == pytest.approx((50 + 1 + 4.8) / 105, rel=1e-3)
    assert pooled["effective"] == pytest.approx(105**2 / (100**2 + 1 + 16), rel=1e-3)
    assert pooled["unsettled"] == "3 crystals are too few for an interval, which takes 10"
    assert details["median"] == {
        "estimate": 1.0,
        "low": 0.5,
        "high": 1.2,
        "unsettled": "3 crystals are too few for an interval of a median",
    }
    assert details["crystals_below_1"] == 1
    assert details["most_influential_crystal"] == "A"
    assert details["mean_without_it"] == 1.1
    assert details["force_components"] == 18
    assert details["amplitude_ang"] == 0.1
    assert details["crystals"][0] == {
        "crystal": "A",
        "configurations": 1,
        "slope": 0.5,
        "scatter_over_rms": 0.0,
        "dft_rms_ev_per_ang": float(f"{10 * (91 / 6) ** 0.5:.4g}"),
    }
    assert (measured.model, measured.subject, measured.dataset) == (
        "model",
        "subject",
        "own PBE calculations",
    )


def test_scatter_is_what_a_slope_leaves():
    sideways = np.array([[[2.0, -1.0, 0.0], [0.0, 0.0, 0.0]]])  # at right angles to 1, 2, 3 ...
    one = displaced("A", 0.5)
    one = replace(one, model_ev_per_ang=one.model_ev_per_ang + sideways)
    row = forces_of(one, displaced("B", 1.0)).slope(0.1).details["crystals"][0]
    assert row["slope"] == 0.5
    assert row["scatter_over_rms"] == float(f"{(5 / 91) ** 0.5:.4g}")


def test_cells_the_set_lacks_are_absent_and_those_without_forces_excluded():
    cells = {"amplitudes": (0.05, 0.1), "seeds": (0, 0)}
    found = forces_of(
        displaced("A", 0.5, **cells),
        displaced("B", 1.0, **cells),
        displaced("short", 1.0),
        displaced("mute", 1.0, **cells, problems={0: "1 isolated atom"}),
    )
    small = found.slope(0.05)
    assert small.absent == {"the DFT set has no forces at 0.05 Å": 1}
    assert small.excluded == {"1 isolated atom": 1}
    assert (small.scored, small.of, small.asked) == (2, 4, 3)
    assert found.slope(0.1).scored == 4
    assert found.amplitudes_ang == [0.05, 0.1]
    assert found.slopes() == {
        "A": [(0.05, 0.5), (0.1, 0.5)],
        "B": [(0.05, 1.0), (0.1, 1.0)],
        "short": [(0.1, 1.0)],
        "mute": [(0.1, 1.0)],
    }
    dft, model, names = found.components(0.05)
    assert dft.tolist() == [1, 2, 3, 4, 5, 6] * 2
    assert model.tolist() == [0.5, 1, 1.5, 2, 2.5, 3, 1, 2, 3, 4, 5, 6]
    assert names == ["A"] * 6 + ["B"] * 6


def test_amplitudes_are_equal_to_a_millionth_of_an_angstrom():
    one = displaced("A", 1.0, amplitudes=(0.1 + 9e-7, 0.1 + 1.1e-6, 0.1), seeds=(0, 0, 1))
    assert one.rows(0.1).tolist() == [0, 2]
    assert one.rows(0.1, 1).tolist() == [2]
    assert one.rows(0.1, 2).tolist() == []


def test_a_stiffened_subject_has_so_much_larger_slopes():
    stiffer = forces_of(displaced("A", 0.5), displaced("B", 0.9)).stiffened(0.2)
    assert stiffer.model == "model and +0.2 of DFT's forces"
    assert stiffer.subject == "subject"
    assert stiffer.slope(0.1).interval.estimate == pytest.approx(0.9)
    kept = forces_of(displaced("A", 1.0, problems={0: "mute"})).stiffened(0.2)
    assert kept.crystals[0].problems == {0: "mute"}


LABEL = {"amplitudes": (0.1, 0.05, 0.2, 0.4, 0.1), "seeds": (0, 0, 0, 0, 1)}


def test_one_label_divides_what_it_is_no_label_of_and_each_crystal_counts_once():
    """Slopes of the label's cell, at 0.05 and 0.2 Å, at 0.4 Å (not asked), and of another seed."""
    found = forces_of(
        displaced("A", (0.5, 0.4, 0.6, 9.0, 0.55), **LABEL, size=10.0),
        displaced("B", (0.8, 0.8, 0.8, 9.0, 0.88), **LABEL),
        displaced("C", (1.0, 1.1, 1.3, 9.0, 1.2), **LABEL),
    )
    same = found.one_label_fix("other-amplitudes")
    assert same.interval.estimate == pytest.approx((1.0 + 1.0 + 1.2) / 3)
    assert same.quantity == "force slope after one label, mean over crystals"
    details = same.details
    assert details["label"] == "0.1 Å, seed 0"
    assert details["slope_before"]["estimate"] == pytest.approx((0.5 + 0.8 + 1.2) / 3, rel=1e-3)
    assert details["slope_before"]["effective"] == 3
    pooled = (100 * 1.0 + 1.0 + 1.2) / 102
    assert details["pooled_slope_after"]["estimate"] == pytest.approx(pooled, rel=1e-3)
    before = (100 * 0.5 + 0.8 + 1.2) / 102
    assert details["pooled_slope_before"]["estimate"] == pytest.approx(before, rel=1e-3)
    foreign = np.array([(0.8 * 1.0) ** 0.5, (0.5 * 1.0) ** 0.5, (0.5 * 0.8) ** 0.5])
    others = np.mean(np.array([0.5, 0.8, 1.2]) / foreign)
    assert details["slope_with_the_other_crystals_label"]["estimate"] == pytest.approx(
        others, rel=1e-3
    )
    assert details["by_amplitude"] == [
        {
            "amplitude_ang": 0.05,
            "configurations": 3,
            "crystals": 3,
            "slope_before": float(f"{2.3 / 3:.4g}"),
            "slope_after": float(f"{(0.8 + 1.0 + 1.1) / 3:.4g}"),
        },
        {"amplitude_ang": 0.1, "configurations": 0, "crystals": 0},
        {
            "amplitude_ang": 0.2,
            "configurations": 3,
            "crystals": 3,
            "slope_before": 0.9,
            "slope_after": float(f"{(1.2 + 1.0 + 1.3) / 3:.4g}"),
        },
    ]
    assert details["crystals"][0] == {
        "crystal": "A",
        "label": 0.5,
        "configurations": 2,
        "slope_before": 0.5,
        "slope_after": 1.0,
    }
    squares = 91 * (100 * (0.36 + 0.16) + 2 * 0.04 + 0.01 + 0.09)
    assert details["force_rmse_before_ev_per_ang"] == float(f"{(squares / 36) ** 0.5:.4g}")
    squares = 91 * (100 * 2 * 0.04 + 0.0 + 0.01 + 0.09)
    assert details["force_rmse_after_ev_per_ang"] == float(f"{(squares / 36) ** 0.5:.4g}")
    other = found.one_label_fix("other-directions")
    assert other.interval.estimate == pytest.approx((1.1 + 1.1 + 1.2) / 3)
    assert [row["configurations"] for row in other.details["by_amplitude"]] == [0, 3, 0]


def test_labels_that_the_set_lacks_are_absent_and_those_the_subject_lacks_excluded():
    found = forces_of(
        displaced("A", 0.5, **LABEL),
        displaced("B", 0.5, **LABEL),
        displaced("no label", 0.5, amplitudes=(0.05, 0.1), seeds=(0, 1)),
        displaced("nothing else", 0.5, amplitudes=(0.1, 0.4), seeds=(0, 0)),
        displaced("no sign", -0.5, **LABEL),
        displaced("nothing", 0.0, **LABEL),
        displaced("mute label", 0.5, **LABEL, problems={0: "mute"}),
        displaced("mute", 0.5, **LABEL, problems={2: "mute"}),
        displaced("mute elsewhere", 0.5, **LABEL, problems={3: "mute", 4: "mute"}),
    )
    measured = found.one_label_fix("other-amplitudes")
    assert measured.absent == {
        "the DFT set has no configuration to fit the label on": 1,
        "the DFT set has no other amplitudes": 1,
    }
    assert measured.excluded == {"the label's slope is not above zero": 2, "mute": 2}
    assert (measured.scored, measured.of) == (3, 9)
    other = found.one_label_fix("other-directions")
    assert other.absent == {
        "the DFT set has no configuration to fit the label on": 1,
        "the DFT set has no other directions": 1,
    }


# what both record


def test_a_trimmed_mean_leaves_out_a_tenth_at_either_end():
    found = softening._trimmed_mean(np.array([9.0, 1, 2, 3, 4, 5, 6, 7, 100, 8]))
    winsorised = [2, 2, 3, 4, 5, 6, 7, 8, 9, 9]
    half = 2.364624 * np.std(winsorised, ddof=1) * (9 / (8 * 7)) ** 0.5
    assert found == {
        "estimate": 5.5,
        "low": pytest.approx(5.5 - half, rel=1e-3),
        "high": pytest.approx(5.5 + half, rel=1e-3),
        "left_out_at_either_end": 1,
    }
    few = softening._trimmed_mean(np.array([1.0, 2.0, 6.0]))
    half = 4.302653 * np.std([1, 2, 6], ddof=1) / 3**0.5
    assert few == {
        "estimate": 3.0,
        "low": pytest.approx(3 - half, rel=1e-3),
        "high": pytest.approx(3 + half, rel=1e-3),
        "left_out_at_either_end": 0,
    }


def test_values_that_are_all_alike_have_no_variance_to_share():
    assert softening._beside_a_mean(np.ones(3), ["A", "B", "C"]) == {
        "median": {
            "estimate": 1.0,
            "low": 1.0,
            "high": 1.0,
            "unsettled": "3 crystals are too few for an interval of a median",
        },
        "crystals_below_1": 0,
        "most_influential_crystal": "A",
        "its_value": 1.0,
        "its_share_of_the_variance": 0.0,
        "mean_without_it": 1.0,
    }


def test_an_interval_on_record_says_how_many_units_count_and_whether_it_is_settled():
    plain = Interval(estimate=1.23456, low=0.5, high=2.0, n=9, n_clusters=9)
    assert softening._ends(plain) == {"estimate": 1.235, "low": 0.5, "high": 2.0}
    weighed = replace(plain, effective=4.73219, unsettled="too few")
    assert softening._ends(weighed) == {
        "estimate": 1.235,
        "low": 0.5,
        "high": 2.0,
        "effective": 4.732,
        "unsettled": "too few",
    }
