"""Single cells: what is measured of them is what an analytic subject says, faults included."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.claims import Interval, Measurement
from harness.data.crystals import Crystals
from harness.data.units import GPA_PER_EV_ANG3
from harness.errors import CannotResolve, NotAvailable
from harness.models.protocol import Identity, Prediction
from harness.runners import single_point
from harness.runners.single_point import TOLERANCES, crystal, displaced, sized, strained
from harness.store import PredictionStore


class Elastic:
    """E = K/2 ln(V/V0)^2 an atom, V0 = 10 Å^3 an atom; forces of 1 eV/Å² towards the first atom."""

    elements = frozenset(range(1, 119))

    def __init__(self, *, bulk_modulus_gpa: float = 160.0, stress_sign: int = 1) -> None:
        self.identity = Identity(
            name="elastic",
            weights_sha256="e" * 64,
            settings={"bulk_modulus_gpa": str(bulk_modulus_gpa), "sign": str(stress_sign)},
        )
        self._stiffness_ev = 10 * bulk_modulus_gpa / GPA_PER_EV_ANG3
        self._sign = stress_sign

    def plan(self, crystals: Crystals) -> list[np.ndarray]:
        return [np.arange(len(crystals))]

    def predict(self, crystals: Crystals, properties: Sequence[str] = ("energy",)) -> Prediction:
        volume = crystals.volumes_ang3 / crystals.n_atoms
        strain = np.log(volume / 10)
        slope = self._stiffness_ev * strain / volume * GPA_PER_EV_ANG3
        problems = {int(row): "iron" for row in np.flatnonzero(crystals.compositions()[:, 25] > 0)}
        energy = self._stiffness_ev / 2 * strain**2
        energy[list(problems)] = np.nan
        return Prediction(
            energy=energy,
            problems=problems,
            forces=[_towards_first(one) for one in crystals],
            stress=self._sign * slope[:, None, None] * np.eye(3),
            magmoms=[one.numbers / 10 for one in crystals] if "magmoms" in properties else None,
        )

    def energies(self, crystals: Crystals) -> np.ndarray:
        return self.predict(crystals).energy


def _towards_first(one: Crystals) -> np.ndarray:
    return (one.frac_coords[0] - one.frac_coords) @ one.lattices[0]


CELLS = {
    f"Cu {a}": crystal("fcc", ("Cu",), a)
    for a in (3.3, 3.4, 3.5)  # V0 is at 3.42
}


@pytest.fixture
def store(tmp_path: Path) -> PredictionStore:
    return PredictionStore(tmp_path)


@settings(deadline=None, max_examples=15)
@given(bulk_modulus=st.floats(10, 400))
def test_a_stress_that_is_the_slope_of_the_energy_is_found_to_be(
    bulk_modulus: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    store = PredictionStore(tmp_path_factory.mktemp("store"))
    model = Elastic(bulk_modulus_gpa=bulk_modulus)
    found = single_point.stress_against_energy(model, store, CELLS)
    assert found.interval.estimate < 1e-5 * bulk_modulus
    assert found.scored == 3


def test_a_wrong_sign_costs_twice_the_stress(store: PredictionStore) -> None:
    largest = max(
        np.abs(single_point.run(Elastic(), store, {name: cell}).mean_stress(name).interval.estimate)
        for name, cell in CELLS.items()
    )
    flipped = single_point.stress_against_energy(Elastic(stress_sign=-1), store, CELLS)
    planted = single_point.stress_against_energy(Elastic(), store, CELLS, reported=-1)
    for found in (flipped, planted):
        assert found.interval.estimate == pytest.approx(2 * largest, rel=1e-5)


def test_forces_moments_and_mean_stress_are_the_subjects(store: PredictionStore) -> None:
    salt = crystal("rocksalt", ("Mg", "O"), 4.2)
    found = single_point.run(
        Elastic(),
        store,
        {"still": crystal("fcc", ("Cu",), 3.3), "moved": displaced(salt, 1, (0.1, 0, 0))},
        ("energy", "forces", "stress", "magmoms"),
    )
    assert found.largest_force("still").interval.estimate == 0
    assert found.largest_force("moved").interval.estimate == pytest.approx(2.2)
    assert found.mean_stress("still").interval.estimate < 0  # compressed
    assert found.anisotropy("still").interval.estimate == pytest.approx(0, abs=1e-12)
    assert found.largest_moment("moved").interval.estimate == pytest.approx(1.2)
    assert found.moment_ratio("moved", 2.4).interval.estimate == pytest.approx(0.5)
    posing = found.posing_as(still="moved")
    assert posing.largest_force("still").interval.estimate == pytest.approx(2.2)
    assert posing.largest_force("moved").interval.estimate == 0


def test_a_stress_that_is_no_pressure_is_told(store: PredictionStore) -> None:
    found = single_point.run(Elastic(), store, CELLS)
    stress = found.prediction.stress + np.diag([0, 0, 0.3])
    measured = found.with_prediction(stress=stress).anisotropy("Cu 3.4")
    assert measured.interval.estimate == pytest.approx(0.2)


def test_missing_numbers_are_counted_and_a_cell_not_scored_is_not_measured(
    store: PredictionStore,
) -> None:
    found = single_point.run(Elastic(), store, {**CELLS, "Fe": crystal("bcc", ("Fe",), 2.8)})
    assert found.not_finite("Cu 3.4").interval.estimate == 0
    assert found.not_finite("Fe").interval.estimate == 1
    stress = found.prediction.stress.copy()
    stress[1] = np.nan
    assert found.with_prediction(stress=stress).not_finite("Cu 3.4").interval.estimate == 9
    with pytest.raises(NotAvailable, match=r"does not score Fe \(iron\)"):
        found.mean_stress("Fe")
    with pytest.raises(NotAvailable, match="does not score Fe"):
        single_point.stress_against_energy(
            Elastic(), store, {"Fe": crystal("bcc", ("Fe",), 2.8), **CELLS}
        )


def test_a_subject_without_a_property_is_not_run(store: PredictionStore) -> None:
    found = single_point.run(Elastic(), store, CELLS)
    with pytest.raises(NotAvailable, match="no magmoms"):
        found.largest_moment("Cu 3.4")
    with pytest.raises(NotAvailable, match="not CHGNet"):
        single_point.chgnets_own(Elastic(), store, CELLS, "float64")


@pytest.mark.parametrize("quantity", TOLERANCES)
def test_differences_are_counted_in_tolerances(store: PredictionStore, quantity: str) -> None:
    found = single_point.run(Elastic(), store, CELLS, ("energy", "forces", "stress", "magmoms"))
    assert single_point.deviation(found, found, quantity).interval.estimate == 0
    off = 3 * TOLERANCES[quantity][0]
    measured = single_point.deviation(found, found, quantity, off=off)
    assert measured.interval.estimate == pytest.approx(3, rel=1e-6)


def test_a_strained_cell_keeps_its_atoms_where_they_are_in_it() -> None:
    one = crystal("rocksalt", ("Mg", "O"), 4.2)
    longer = strained(one, np.diag([0, 0, 0.01]))
    assert longer.volumes_ang3[0] == pytest.approx(1.01 * one.volumes_ang3[0])
    np.testing.assert_array_equal(longer.frac_coords, one.frac_coords)


def test_a_planted_factor_of_the_stress_is_said_and_the_subject_stays_the_subject(
    store: PredictionStore,
) -> None:
    clean = single_point.stress_against_energy(Elastic(), store, CELLS)
    small = single_point.stress_against_energy(Elastic(), store, CELLS, reported=0.98)
    assert (clean.model, clean.subject) == ("elastic", "elastic")
    assert (small.model, small.subject) == ("elastic, stress times 0.98", "elastic")
    stress = np.abs(clean.details["stress_gpa"])
    assert small.interval.estimate == pytest.approx(0.02 * stress.max(), rel=1e-4)


def test_moments_are_scaled_and_nothing_else(store: PredictionStore) -> None:
    found = single_point.run(Elastic(), store, CELLS, ("energy", "forces", "stress", "magmoms"))
    larger = found.moments_times(1.21)
    assert found.largest_moment("Cu 3.4").interval.estimate == pytest.approx(2.9)
    assert larger.largest_moment("Cu 3.4").interval.estimate == pytest.approx(1.21 * 2.9)
    assert larger.prediction.energy is found.prediction.energy
    with pytest.raises(NotAvailable, match="elastic gives no magmoms"):
        single_point.run(Elastic(), store, CELLS).moments_times(1.21)


# --- faults, for controls


def exact(value: float) -> Measurement:
    return Measurement(
        quantity="a force",
        interval=Interval.exact(value, n=1),
        scored=1,
        of=1,
        dataset="single cells",
        model="elastic",
    )


@pytest.mark.parametrize(
    ("grows", "steps"),
    [
        (lambda size: 2.8 * size, 1),
        (lambda size: 1.3721 * 2 * size, 1),  # 2 % below what is wanted
        (lambda size: 1.3719 * 2 * size, 2),
        (lambda size: 1.4279 * 2 * size, 1),  # 2 % above
        (lambda size: 1.4281 * 2 * size, 2),
        (lambda size: 40 * size, 2),
        (lambda size: 0.1 + 40 * size, 3),
        (lambda size: 40 * size**3, 3),
    ],
)
def test_a_fault_is_sized_in_proportion(grows: Callable[[float], float], steps: int) -> None:
    asked = []

    def measure(size: float) -> Measurement:
        asked.append(size)
        return exact(grows(size))

    found, size = sized(measure, 0.5, 1.4)
    assert found.interval.estimate == grows(size)
    assert abs(found.interval.estimate / 1.4 - 1) <= 0.02
    assert len(asked) == steps
    assert asked[0] == 0.5


@pytest.mark.parametrize(
    ("value", "last"),
    [
        (0.0, "0.5, gave 0"),
        (2.8, "0.00391, gave 2.8"),
    ],
)
def test_a_fault_that_cannot_be_sized_is_not_planted(value: float, last: str) -> None:
    with pytest.raises(
        CannotResolve,
        match="^a force: no fault of this kind comes out at 1.4; the last one tried, of size "
        f"{last}$",
    ):
        sized(lambda size: exact(value), 0.5, 1.4)


def test_a_displaced_atom_is_sized_by_the_subjects_own_forces(store: PredictionStore) -> None:
    salt = crystal("rocksalt", ("Mg", "O"), 4.2)

    def by(distance_ang: float) -> Measurement:
        cells = {"MgO": displaced(salt, 1, (distance_ang, 0, 0))}
        return single_point.run(Elastic(), store, cells).largest_force("MgO")

    found, distance_ang = sized(by, 0.1, 2.2)
    assert found.interval.estimate == pytest.approx(2.2)
    assert distance_ang == 0.1
