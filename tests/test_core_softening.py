"""Softening on a few made-up crystals: whose rows are whose, edges, and what a record says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from harness.data.crystals import Crystals
from harness.data.dft import FILE, EquationOfState, Rattled
from harness.errors import DataError
from harness.models.protocol import Identity, Prediction
from harness.runners import softening
from harness.runners.softening import Curve, Curves, Displaced, Forces, Softening
from harness.store import PredictionStore

VOLUMES = np.array([0.7, 0.8, 0.91, 0.95, 1.0, 1.05, 1.09, 1.3, 1.6])
NEAR = VOLUMES[2:7]
V0 = {"Na": 16.0, "Mg": 20.0, "Al": 24.0, "Si": 28.0, "P": 32.0}  # Å^3 per atom, of DFT
NUMBERS = {"Na": 11, "Mg": 12, "Al": 13, "Si": 14, "P": 15}
OFFSET = -3.0
REFERENCE = "PBE, not spin-polarised, no +U, no energy correction; fixtures/dft/README.md"


def rise(v):
    """eV/atom above the minimum at a volume over that of the minimum."""
    return 2.0 * (v ** (-2 / 3) - 1) ** 2


def cells(name: str, volumes: np.ndarray, shift: float = 0.0) -> Crystals:
    """Two atoms in a cube, so many Å^3 per atom."""
    k = len(volumes)
    return Crystals(
        numbers=np.full(2 * k, NUMBERS[name], dtype=np.uint8),
        frac_coords=np.tile([[0.0, 0.0, 0.0], [0.5, 0.5, 0.5 + shift]], (k, 1)),
        lattices=np.cbrt(2 * volumes)[:, None, None] * np.eye(3),
        offsets=2 * np.arange(k + 1),
    )


CONFIG = Softening()


class Few:
    """A set of few crystals, each with the volumes it is given."""

    sha256 = "f" * 64

    def __init__(self, crystals: dict[str, np.ndarray], rattled: dict[str, int] | None = None):
        self.volumes, self.configurations = crystals, rattled or {}
        self.crystals = tuple(crystals)
        self.rattled_crystals = tuple(self.configurations)

    def eos(self, crystal: str) -> EquationOfState:
        v = self.volumes[crystal]
        return EquationOfState(
            crystal=crystal,
            prototype="CsCl",
            v_over_v0=v,
            volumes_ang3=2 * V0[crystal] * v,
            energies_ev=2 * (rise(v) - 7.0),
            pressures_gpa=np.zeros(len(v)),
            crystals=cells(crystal, V0[crystal] * v),
        )

    def rattled(self, crystal: str) -> Rattled:
        k = self.configurations[crystal]
        forces = np.arange(6.0 * k).reshape(k, 2, 3) + 1.0
        parts = [cells(crystal, np.array([V0[crystal]]), 0.01 * (i + 1)) for i in range(k)]
        return Rattled(
            crystal=crystal,
            amplitudes_ang=np.full(k, 0.1),
            seeds=np.arange(k),
            energies_ev=np.zeros(k),
            forces_ev_per_ang=forces,
            crystals=Crystals.concatenate(parts),
            undisplaced=cells(crystal, np.array([V0[crystal]])),
            undisplaced_energy_ev=0.0,
        )


class Subject:
    """Minima at 1.06 times DFT's volumes; some crystals fall for ever, some rows fail.

    Args:
        fails: (crystal, volume over DFT's V0, or second atom's place) -> why.
    """

    elements = frozenset(range(1, 119))

    def __init__(self, *, falls: str = "", fails: dict[tuple[str, float], str] | None = None):
        self.falls, self.fails = falls, fails or {}
        settings = {"falls": falls, "fails": repr(self.fails)}
        self.identity = Identity(name="subject", weights_sha256="b" * 64, settings=settings)

    def plan(self, crystals: Crystals) -> list[np.ndarray]:
        return [np.arange(len(crystals))] if len(crystals) else []

    def predict(self, crystals: Crystals, properties: object = ("energy",)) -> Prediction:
        energy, forces, problems = np.empty(len(crystals)), [], {}
        for i, formula in enumerate(crystals.reduced_formulas().tolist()):
            row = crystals[i]
            v = float(row.volumes_ang3[0] / 2 / V0[formula])
            energy[i] = (-v if formula == self.falls else rise(v / 1.06)) + OFFSET
            place = float(row.frac_coords[1, 2] - 0.5)
            forces.append(np.full((2, 3), 100 * NUMBERS[formula] + 100 * place))
            for (crystal, where), why in self.fails.items():
                if crystal == formula and (abs(where - v) < 1e-6 or abs(where - place) < 1e-6):
                    energy[i], problems[i] = np.nan, why
        return Prediction(
            energy=energy, problems=problems, forces=forces if "forces" in properties else None
        )


@pytest.fixture
def store(tmp_path):
    return PredictionStore(tmp_path)


class Told:
    """Remembers what progress was announced and how much of it was told."""

    def __init__(self):
        self.announced, self.done = [], 0

    def __call__(self, what, total):
        self.announced.append((what, total))

        def tick(rows):
            self.done += rows

        return tick


# --- curves, from a set and a subject


def test_energies_and_problems_come_to_the_crystal_they_are_of(store):
    fails = {
        ("Na", 1.6): "last of the first",
        ("Mg", 0.7): "first of the second",
        ("Al", 1.0): "none at V0",
    }
    dft = Few(dict.fromkeys(("Na", "Mg", "Al", "Si"), VOLUMES))
    found = softening.curves(Subject(fails=fails), store, dft)
    assert [c.crystal for c in found.curves] == ["Na", "Mg", "Si"]
    assert [c.problems for c in found.curves] == [
        {8: "last of the first"},
        {0: "first of the second"},
        {},
    ]
    assert found.dropped == {"Al": "none at V0"}
    assert found.set_aside == {}
    assert found.inputs == {FILE: "f" * 64, "subject": "b" * 64}
    assert (found.model, found.subject, found.config) == ("subject", "subject", Softening())
    energy = rise(VOLUMES / 1.06) + OFFSET
    for curve in found.curves:
        v0 = V0[curve.crystal]
        assert curve.prototype == "CsCl"
        np.testing.assert_allclose(curve.volumes_ang3_per_atom, v0 * VOLUMES)
        np.testing.assert_allclose(curve.dft_ev_per_atom, rise(VOLUMES), atol=1e-12)
        assert curve.energy_at_v0_ev_per_atom == pytest.approx(energy[4])
        given = [i for i in range(9) if i not in curve.problems]
        np.testing.assert_allclose(curve.model_ev_per_atom[given], (energy - energy[4])[given])
        assert np.isnan(curve.model_ev_per_atom[list(curve.problems)]).all()


def test_the_subject_is_asked_again_about_its_own_minimum(store):
    """The minimum fitted to five points of an exact curve is at 1.06 of V0."""
    fails = {("Mg", 0.7 * 1.06): "too small", ("Si", 1.6 * 1.06): "too large"}
    names = ("Na", "Mg", "Al", "Si")
    told = Told()
    wide = np.concatenate([VOLUMES[:7], [1.1, 1.3, 1.6]])
    dft = Few(dict.fromkeys(names, wide))
    subject = Subject(falls="Al", fails=fails)
    found = softening.curves(subject, store, dft, progress=told)
    assert told.announced == [
        ("subject equations of state", 40),
        ("subject equations of state", 30),  # of the three that have a minimum
    ]
    assert told.done == 70
    about = {c.crystal: c for c in found.curves}
    assert about["Al"].model_about_minimum_ev_per_atom is None
    assert about["Al"].problems_about_minimum == {}
    for name, problems in (("Na", {}), ("Mg", {0: "too small"}), ("Si", {9: "too large"})):
        assert about[name].problems_about_minimum == problems
        given = [i for i in range(10) if i not in problems]
        np.testing.assert_allclose(
            about[name].model_about_minimum_ev_per_atom[given], rise(wide)[given], atol=1e-9
        )


def test_a_subject_without_any_minimum_is_asked_once(store):
    told = Told()
    found = softening.curves(Subject(falls="Na"), store, Few({"Na": VOLUMES}), progress=told)
    assert told.announced == [("subject equations of state", 9)]
    assert found.curves[0].model_about_minimum_ev_per_atom is None


def test_only_curves_that_reach_far_are_asked_for_on_whichever_side(store):
    dft = Few({"Na": NEAR, "Mg": VOLUMES[:7], "Al": VOLUMES[2:]})
    found = softening.curves(Subject(), store, dft)
    assert [c.crystal for c in found.curves] == ["Mg", "Al"]
    assert found.dropped == found.set_aside == {}
    with pytest.raises(DataError, match="no equation of state of the DFT set reaches beyond 10 %"):
        softening.curves(Subject(), store, Few({"Na": NEAR}))


def test_how_near_is_near(store, monkeypatch):
    monkeypatch.setattr(softening, "NEAR_EQUILIBRIUM", 0.125)
    edge = np.array([0.875, 0.9, 1.0, 1.1, 1.125])
    with pytest.raises(DataError, match="reaches beyond"):
        softening.curves(Subject(), store, Few({"Na": edge}))
    assert curve("A", v_over_v0=edge).near_volumes == [0.9, 1.0, 1.1]
    monkeypatch.setattr(softening, "_SAME_VOLUME", 0.125)
    assert curve("A", v_over_v0=edge[1:3]).lacking([1.125]) == ""
    assert "no energy at 1.25 V0" in curve("A", v_over_v0=edge[1:3]).lacking([1.25])
    without = Few({"Na": np.array([0.5, 0.875, 1.125])})
    assert softening._at_v0(without.eos("Na")) == []
    assert softening._at_v0(Few({"Na": edge}).eos("Na")) == [1, 2, 3]


# --- curves, made up


def curve(name: str, share: float = 1.0, **more) -> Curve:
    """A crystal whose energies the subject gives times ``share``."""
    v = more.pop("v_over_v0", VOLUMES)
    given = {
        "crystal": name,
        "prototype": "fcc",
        "v_over_v0": v,
        "volumes_ang3_per_atom": 20.0 * v,
        "dft_ev_per_atom": rise(v),
        "model_ev_per_atom": share * rise(v),
    }
    return Curve(**{**given, **more})


def curves_of(*found: Curve, config=CONFIG) -> Curves:
    return Curves(
        config=config,
        model="model",
        subject="subject",
        curves=found,
        dropped={},
        set_aside={},
        inputs={"file": "0" * 64},
    )


def test_what_a_curve_says_where_nothing_else_was_told():
    plain = curve("A")
    assert plain.energy_at_v0_ev_per_atom == 0.0
    assert plain.problems == plain.problems_about_minimum == {}
    assert plain.without_minimum() == ""
    nothing = plain.at([])
    assert nothing.dtype.kind == "i"
    assert plain.dft_ev_per_atom[nothing].tolist() == []


def test_a_volume_is_there_to_a_millionth_and_no_finer():
    volumes = VOLUMES.copy()
    volumes[:2] += (9.5e-7, 1.05e-6)
    assert curve("A", v_over_v0=volumes).lacking([0.7]) == ""
    assert curve("A", v_over_v0=volumes).lacking([0.8]) == "the DFT set has no energy at 0.8 V0"


def test_error_ratios_of_exactly_ten_are_not_above_it():
    """Powers of two, so that no rounding decides."""
    dft = np.array([1.0, 0.5, 0.25, 0.125, 0.0, 0.125, 0.25, 0.5, 1.0])
    near = 2.0**-6

    def planted(name, ratio):
        far = np.abs(VOLUMES - 1) > 0.15
        error = np.where(far, ratio * near, near) * (VOLUMES != 1)
        return curve(name, dft_ev_per_atom=dft, model_ev_per_atom=dft + error)

    ratios = zip("ABCDE", (9.0, 10.0, 10.5, 11.0, 12.0), strict=True)
    measured = curves_of(*(planted(*pair) for pair in ratios)).error_ratio("v0")
    assert measured.details["crystals_above_10"] == 3
    assert [row["ratio"] for row in measured.details["crystals"]] == [9.0, 10.0, 10.5, 11.0, 12.0]
    unsettled = "5 crystals are too few for an interval of a median"
    assert measured.details["median"]["unsettled"] == unsettled


def test_a_record_says_what_it_is_relative_to():
    made = [
        curve(name, model_about_minimum_ev_per_atom=(1 + 0.1 * i) * rise(VOLUMES))
        for i, name in enumerate("ABC")
    ]
    found = curves_of(*made)
    assert found.error_ratio("minimum").details["origin"] == (
        "energies and volumes relative to each method's own minimum"
    )
    modulus, rises = found.bulk_modulus_ratio(), found.energy_ratio("expanded")
    assert modulus.quantity == "bulk modulus over DFT's, mean over crystals"
    assert rises.quantity == (
        "rise of the energy from V0 to 1.3 and 1.6 V0 over DFT's, mean over crystals"
    )
    assert rises.details["by_volume"] == found.by_volume("v0")
    assert rises.details["by_volume_about_own_minimum"] == found.by_volume("minimum")
    for measured in (modulus, rises, found.error_ratio("v0")):
        assert measured.details["reference"] == REFERENCE
        assert measured.inputs == {"file": "0" * 64}
        assert "median" in measured.details


def test_two_crystals_are_enough_and_one_is_not():
    both = [curve(n, model_about_minimum_ev_per_atom=0.5 * rise(VOLUMES)) for n in "AB"]
    found = curves_of(*both)
    assert found.energy_ratio("expanded").details["about_own_minimum"]["estimate"] == 0.5
    assert [row["crystals"] for row in found.by_volume("minimum")] == [2] * 6
    assert curves_of(both[0]).by_volume("minimum") == []


def test_crystals_shown_about_their_minima_have_one():
    asked = {"model_about_minimum_ev_per_atom": rise(VOLUMES)}
    found = curves_of(
        curve("A"), curve("B", **asked), curve("C", **asked, prototype="bcc"), curve("D", **asked)
    )
    assert [c.crystal for c in found.one_per_prototype(9, "minimum")] == ["B", "C", "D"]
    assert [c.crystal for c in found.one_per_prototype(9)] == ["A", "C", "B", "D"]


def test_rises_are_told_by_ascending_volume():
    config = Softening(far=(1.6, 0.7, 1.3))
    found = curves_of(curve("A"), curve("B"), config=config).rises_over_dft()
    assert [v for v, _ in found["A"]] == [0.7, 1.3, 1.6]


# --- forces, from a set and a subject


def test_forces_and_problems_come_to_the_crystal_they_are_of(store):
    fails = {("Na", 0.03): "last of the first", ("Mg", 0.01): "first of the second"}
    told = Told()
    dft = Few({}, {"Na": 3, "Mg": 2, "Al": 1})
    found = softening.forces(Subject(fails=fails), store, dft, progress=told)
    assert [c.crystal for c in found.crystals] == ["Na", "Mg", "Al"]
    assert [c.problems for c in found.crystals] == [
        {2: "last of the first"},
        {0: "first of the second"},
        {},
    ]
    for crystal, k in zip(found.crystals, (3, 2, 1), strict=True):
        number = NUMBERS[crystal.crystal]
        expected = [np.full((2, 3), 100 * number + i + 1.0) for i in range(k)]
        np.testing.assert_allclose(crystal.model_ev_per_ang, expected)
        np.testing.assert_array_equal(
            crystal.dft_ev_per_ang, dft.rattled(crystal.crystal).forces_ev_per_ang
        )
        assert crystal.seeds.tolist() == list(range(k))
    assert told.announced == [("subject forces", 6)]
    assert told.done == 6
    assert found.inputs == {FILE: "f" * 64, "subject": "b" * 64}
    assert (found.model, found.subject) == ("subject", "subject")


def test_a_problem_within_one_crystal_is_told_there(store):
    dft = Few({}, {"Na": 2, "Mg": 3})
    found = softening.forces(Subject(fails={("Mg", 0.02): "in the middle"}), store, dft)
    assert [c.problems for c in found.crystals] == [{}, {1: "in the middle"}]


def test_a_set_without_displaced_cells_has_no_forces(store):
    with pytest.raises(DataError, match="the DFT set has no displaced cells"):
        softening.forces(Subject(), store, Few({"Na": VOLUMES}))


# --- forces, made up


def displaced(name, slopes, amplitudes, seeds, size=1.0) -> Displaced:
    """The subject's forces are DFT's times a slope a cell; squares of DFT's add up to 91 size²."""
    dft = np.broadcast_to(size * np.arange(1.0, 7.0).reshape(2, 3), (len(slopes), 2, 3)).copy()
    return Displaced(
        crystal=name,
        amplitudes_ang=np.array(amplitudes),
        seeds=np.array(seeds),
        dft_ev_per_ang=dft,
        model_ev_per_ang=np.array(slopes)[:, None, None] * dft,
    )


def forces_of(*crystals: Displaced) -> Forces:
    return Forces(
        config=Softening(),
        model="model",
        subject="subject",
        crystals=crystals,
        inputs={"file": "0" * 64},
    )


def test_amplitudes_are_told_apart_by_a_millionth_of_an_angstrom():
    one = displaced("A", [1.0] * 3, [0.1 + 9.5e-7, 0.1 + 1.05e-6, 0.1], [0, 0, 1])
    assert one.problems == {}
    assert one.rows(0.1).tolist() == [0, 2]
    found = forces_of(displaced("A", [1.0] * 3, [0.1, 0.1 + 4e-7, 0.1 + 4e-6], [0, 1, 2]))
    assert found.amplitudes_ang == [0.1, 0.100004]


def test_one_label_in_numbers():
    """Slopes of 0.5 at the label, and 0.4 and 0.6 elsewhere; small forces, so that squares are."""
    crystals = [
        displaced(
            name, [0.5, 0.4, 0.6, 0.9], [0.1, 0.05, 0.2 + 9.5e-7, 0.2 + 1.05e-6], [0] * 4, 0.1
        )
        for name in "ABC"
    ]
    found = forces_of(*crystals)
    assert found._others(crystals[0], "other-amplitudes").tolist() == [1, 2]
    measured = found.one_label_fix("other-amplitudes")
    assert measured.interval.estimate == pytest.approx(1.0)
    assert measured.quantity == "force slope after one label, mean over crystals"
    details = measured.details
    assert details["reference"] == REFERENCE
    assert measured.inputs == {"file": "0" * 64}
    assert details["label"] == "0.1 Å, seed 0"
    assert details["slope_before"]["estimate"] == 0.5
    assert details["median"]["estimate"] == 1.0
    # components of two cells: mean square of DFT's is 0.91/6; errors of 0.4 and 0.6, then of 0.2
    rms = (0.91 / 6) ** 0.5
    before = rms * ((0.6**2 + 0.4**2) / 2) ** 0.5
    assert details["force_rmse_before_ev_per_ang"] == float(f"{before:.4g}")
    assert details["force_rmse_after_ev_per_ang"] == float(f"{0.2 * rms:.4g}")
    rows = {round(row["amplitude_ang"], 6): row for row in details["by_amplitude"]}
    assert rows[0.05] == {
        "amplitude_ang": 0.05,
        "configurations": 3,
        "crystals": 3,
        "slope_before": 0.4,
        "slope_after": 0.8,
    }
    assert max(rows) < 0.2000015


def test_an_amplitude_a_millionth_above_is_none_to_restore():
    edge = 0.2 + 1e-6
    crystals = [displaced(n, [0.5, 0.4, 0.9], [0.1, 0.05, edge], [0] * 3) for n in "AB"]
    found = forces_of(*crystals)
    assert edge in found.amplitudes_ang
    assert found._others(crystals[0], "other-amplitudes").tolist() == [1]
    rows = found.one_label_fix("other-amplitudes").details["by_amplitude"]
    assert [row["amplitude_ang"] for row in rows] == [0.05, 0.1]


def test_a_slopes_record_says_what_it_is_relative_to():
    found = forces_of(
        *(displaced(n, [s], [0.1], [0]) for n, s in zip("ABC", (1, 2, 3), strict=True))
    )
    measured = found.slope(0.1)
    assert measured.details["reference"] == REFERENCE
    assert measured.inputs == {"file": "0" * 64}
    # A and C move the mean alike, and B not at all
    assert measured.details["its_share_of_the_variance"] == 0.5
    assert measured.details["most_influential_crystal"] == "A"
    same = forces_of(*(displaced(n, [2.0], [0.1], [0]) for n in "ABC")).slope(0.1)
    assert same.details["its_share_of_the_variance"] == 0.0


@pytest.mark.parametrize(("n", "cut"), [(9, 0), (10, 1), (19, 1), (20, 2)])
def test_a_tenth_is_left_out_at_either_end(n, cut):
    values = np.arange(float(n))
    found = softening._trimmed_mean(values[::-1])
    assert found["left_out_at_either_end"] == cut
    assert found["estimate"] == (n - 1) / 2
    from scipy.stats import t

    kept = values[cut : n - cut]
    winsorised = np.concatenate([[kept[0]] * cut, kept, [kept[-1]] * cut])
    error = winsorised.std(ddof=1) * ((n - 1) / (len(kept) * (len(kept) - 1))) ** 0.5
    half = t.ppf(0.975, len(kept) - 1) * error
    assert found["high"] - found["low"] == pytest.approx(2 * half, rel=1e-3)


def test_another_subject_leaves_the_rest_as_it_is():
    found = forces_of(displaced("A", [1.0], [0.1], [0])).stiffened(0.5)
    assert found.model == "model and +0.5 of DFT's forces"
    np.testing.assert_allclose(found.crystals[0].model_ev_per_ang[0].ravel(), 1.5 * np.arange(1, 7))
    assert replace(found, model="x").subject == "subject"
