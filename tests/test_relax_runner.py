"""The batched relaxation ends where ASE's does, says what did not relax, and compares rightly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.claims import Verdict, above, below
from harness.data.crystals import Crystals
from harness.data.reference_files import Geometries
from harness.data.units import GPA_PER_EV_ANG3
from harness.errors import ConfigError, DataError, NotAvailable
from harness.models.protocol import Identity, Prediction
from harness.plots import relaxation_errors
from harness.runners.relax import Relax, RelaxResult, enough_to_show, relax, run
from harness.runners.single_point import crystal
from harness.statistics import share
from harness.store import PredictionStore

TIGHT = Relax(fmax_ev_per_ang=1e-3, smax_gpa=5e-3)


class EffectiveMedium:
    """ASE's effective-medium theory, a real potential of seven metals that costs milliseconds."""

    identity = Identity(name="emt", weights_sha256="0" * 64)
    elements = frozenset((13, 28, 29, 46, 47, 78, 79))

    def __init__(self) -> None:
        self.asked: list[int] = []  # rows of each call

    def plan(self, crystals: Crystals) -> list[np.ndarray]:
        return [np.arange(len(crystals))]

    def predict(self, crystals: Crystals, properties: Sequence[str] = ("energy",)) -> Prediction:
        from ase.calculators.emt import EMT

        self.asked.append(len(crystals))
        energy, stress = np.full(len(crystals), np.nan), np.full((len(crystals), 3, 3), np.nan)
        forces, problems = [], {}
        for row, one in enumerate(crystals):
            if not set(one.numbers.tolist()) <= self.elements:
                problems[row] = "an element it does not know"
                forces.append(np.full((len(one.numbers), 3), np.nan))
                continue
            atoms = one.atoms(0)
            atoms.calc = EMT()
            energy[row] = atoms.get_potential_energy() / len(atoms)
            forces.append(atoms.get_forces())
            stress[row] = atoms.get_stress(voigt=False) * GPA_PER_EV_ANG3
        return Prediction(energy=energy, problems=problems, forces=forces, stress=stress)

    def energies(self, crystals: Crystals) -> np.ndarray:
        return self.predict(crystals).energy


class Inflating(EffectiveMedium):
    """Pushes outwards with the same stress whatever the volume."""

    def predict(self, crystals: Crystals, properties: Sequence[str] = ("energy",)) -> Prediction:
        n = len(crystals)
        return Prediction(
            energy=np.zeros(n),
            forces=[np.zeros((k, 3)) for k in crystals.n_atoms],
            stress=np.broadcast_to(-20.0 * np.eye(3), (n, 3, 3)),
        )


class WithoutStress(EffectiveMedium):
    def predict(self, crystals: Crystals, properties: Sequence[str] = ("energy",)) -> Prediction:
        return replace(super().predict(crystals), stress=None)


METALS = Crystals.concatenate(
    [
        crystal("fcc", ("Cu",), 3.6),
        crystal("Cu3Au", ("Cu", "Au"), 3.8),
        crystal("fcc", ("Al",), 4.0),
    ]
)
REFERENCE = Geometries(source="metals", names=("Cu", "Cu3Au", "Al"), crystals=METALS, inputs={})


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """ASE's matrices are too small for threads, which wait for one another on a busy machine."""
    import scipy.linalg  # noqa: F401  (only libraries that are loaded are limited)
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, "blas"):
        yield


@pytest.fixture(scope="module")
def relaxed() -> Any:
    return relax(EffectiveMedium(), TIGHT.start(METALS), TIGHT)


def distances(one: Crystals) -> np.ndarray:
    """Sorted distances in one crystal up to 6 Å, which no rotation or translation changes."""
    from ase.neighborlist import neighbor_list

    return np.sort(neighbor_list("d", one.atoms(0), 6.0))


# --- the relaxation


@pytest.mark.parametrize("name", ["BFGS", "FIRE"])
def test_it_ends_where_ases_optimisers_end(relaxed: Any, name: str) -> None:
    import ase.optimize
    from ase.calculators.emt import EMT
    from ase.filters import FrechetCellFilter

    assert relaxed.problems == {}
    for row in (0, 1):
        atoms = TIGHT.start(METALS).atoms(row)
        atoms.calc = EMT()
        filtered: Any = FrechetCellFilter(atoms)
        assert getattr(ase.optimize, name)(filtered, logfile=None).run(fmax=1e-3, steps=200)
        ours, theirs = distances(relaxed.crystals[row]), distances(Crystals.from_ase([atoms]))
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-3)


def test_it_ends_at_rest(relaxed: Any) -> None:
    found = EffectiveMedium().predict(relaxed.crystals)
    assert found.forces is not None
    assert found.stress is not None
    assert max(np.abs(force).max() for force in found.forces) < TIGHT.fmax_ev_per_ang
    assert np.abs(found.stress).max() < TIGHT.smax_gpa
    assert (relaxed.steps > 3).all()


def test_a_crystal_relaxes_alone_as_it_does_among_others(relaxed: Any) -> None:
    alone = relax(EffectiveMedium(), TIGHT.start(METALS[1]), TIGHT)
    assert alone.steps[0] == relaxed.steps[1]
    np.testing.assert_array_equal(alone.crystals.lattices[0], relaxed.crystals.lattices[1])
    np.testing.assert_array_equal(alone.crystals.frac_coords, relaxed.crystals[1].frac_coords)


def test_the_model_is_asked_once_a_step_for_those_that_are_not_done() -> None:
    model = EffectiveMedium()
    found = relax(model, TIGHT.start(METALS), TIGHT)
    assert len(model.asked) == found.steps.max() + 1
    assert model.asked == [int((found.steps >= step).sum()) for step in range(len(model.asked))]


def test_what_does_not_relax_is_said_and_the_others_do() -> None:
    few = relax(EffectiveMedium(), TIGHT.start(METALS), replace(TIGHT, max_steps=2))
    assert few.problems == dict.fromkeys(range(3), "not converged after 2 steps")

    mixed = Crystals.concatenate([METALS[0], crystal("bcc", ("Fe",), 2.8), METALS[2]])
    found = relax(EffectiveMedium(), TIGHT.start(mixed), TIGHT)
    assert found.problems == {1: "not scored by the model: an element it does not know"}

    ran_away = relax(Inflating(), METALS[0])
    assert ran_away.problems == {0: "its volume left half to twice what it started from"}
    assert ran_away.crystals.volumes_ang3[0] < 10 * METALS.volumes_ang3[0]


def test_a_subject_without_stress_cannot_be_relaxed() -> None:
    with pytest.raises(NotAvailable, match="stress"):
        relax(WithoutStress(), METALS[0])


# --- the start


def test_the_start_is_six_percent_larger_sheared_and_rattled_and_always_the_same() -> None:
    start = Relax().start(METALS)
    np.testing.assert_allclose(start.volumes_ang3, 1.06 * METALS.volumes_ang3, rtol=1e-12)
    np.testing.assert_array_equal(start.numbers, METALS.numbers)
    again = Relax().start(METALS[1:3])
    np.testing.assert_array_equal(again.lattices, start.lattices[1:3])
    np.testing.assert_array_equal(again.frac_coords, start[1:3].frac_coords)
    moved = (start.frac_coords - METALS.frac_coords)[METALS.atom_slice(1)] @ start.lattices[1]
    assert 0.5 < np.sqrt((moved**2).mean()) / 0.05 < 1.5
    sheared = np.linalg.svd(np.linalg.inv(METALS.lattices[0]) @ start.lattices[0])[1]
    assert 0.005 < sheared[0] / sheared[-1] - 1 < 0.1


@pytest.mark.parametrize(
    "wrong", [{"fmax_ev_per_ang": 0}, {"max_steps": -1}, {"volume_factor": 3}, {"shear": -0.1}]
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        Relax(**wrong)


# --- what is compared


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> RelaxResult:
    store = PredictionStore(tmp_path_factory.mktemp("store"))
    return run(EffectiveMedium(), REFERENCE, store, TIGHT)


def test_a_second_run_asks_the_model_nothing(tmp_path: Path) -> None:
    store = PredictionStore(tmp_path)
    first = run(EffectiveMedium(), REFERENCE, store, replace(TIGHT, max_steps=3))
    model = EffectiveMedium()
    second = run(model, REFERENCE, store, replace(TIGHT, max_steps=3))
    assert model.asked == []
    assert second.relaxation.problems == first.relaxation.problems
    np.testing.assert_array_equal(
        second.relaxation.crystals.lattices, first.relaxation.crystals.lattices
    )
    run(model, REFERENCE, store, replace(TIGHT, max_steps=2))
    assert model.asked


def test_errors_are_those_of_the_relaxed_volumes_and_bonds(result: RelaxResult) -> None:
    """A reference that lies 1 % off in every length is seen as just that."""
    own = replace(REFERENCE, crystals=result.relaxation.crystals)
    longer = result.against(own.scaled(1 / 1.01))
    assert longer.volume_error().interval.estimate == pytest.approx(1.01**3 - 1, rel=1e-9)
    assert longer.bond_length_error().interval.estimate == pytest.approx(0.01, rel=1e-9)
    np.testing.assert_allclose(longer.shape_change, 0, atol=1e-12)
    assert result.against(own).volume_error().interval.estimate == pytest.approx(0, abs=1e-12)


def test_a_cell_of_another_shape_is_told(result: RelaxResult) -> None:
    own = result.relaxation.crystals

    def with_c_times(factor: float) -> RelaxResult:
        longer = Crystals(
            **{**own.columns(), "lattices": own.lattices @ np.diag([1, 1, 1 / factor])}
        )
        return result.against(replace(REFERENCE, crystals=longer))

    np.testing.assert_allclose(with_c_times(1.01).shape_change, 0.01, rtol=1e-9)
    assert with_c_times(1.01).in_other_structures == ()
    assert with_c_times(2**0.5).in_other_structures == REFERENCE.names


def test_doing_nothing_is_seen_as_the_distortion(result: RelaxResult) -> None:
    still = result.at_start()
    assert still.volume_error().interval.estimate == pytest.approx(0.06, rel=1e-9)
    assert still.bond_length_error().interval.estimate > 0.015


def test_every_crystal_is_counted(result: RelaxResult) -> None:
    measured = result.volume_error()
    assert (measured.scored, measured.of) == (3, 3)
    assert [row["crystal"] for row in measured.details["crystals"]] == list(REFERENCE.names)
    assert "3 crystals" in measured.interval.method
    assert result.converged().interval.estimate == 1

    one_lost = replace(
        result, relaxation=replace(result.relaxation, problems={2: "not converged after 9 steps"})
    )
    assert one_lost.names == ("Cu", "Cu3Au")
    assert one_lost.volume_error().excluded == {"not converged after 9 steps": 1}
    assert one_lost.converged().interval.estimate == 2 / 3
    assert one_lost.converged().details["problems"] == {"Al": "not converged after 9 steps"}


def with_problems(result: RelaxResult, problems: dict[int, str], steps: list[int]) -> RelaxResult:
    relaxation = replace(result.relaxation, problems=problems, steps=np.array(steps))
    return replace(result, relaxation=relaxation)


def test_the_share_that_relaxed_is_of_crystals_the_subject_scores(result: RelaxResult) -> None:
    """One that is not scored where it starts was never on its way; one that is lost there, was."""
    unknown = "not scored by the model: an element it does not know"
    found = with_problems(result, {0: unknown, 1: unknown}, [0, 7, 9]).converged()
    assert found.quantity == "share of crystals that relaxed"
    assert found.interval.method == "Clopper-Pearson, 1 of 2 crystals"
    assert found.interval.estimate == 0.5
    assert (found.scored, found.of) == (2, 3)
    assert found.excluded == {unknown: 1}
    assert found.details["steps_mean"] == pytest.approx(16 / 3)
    assert found.details["steps_largest"] == 9
    late = with_problems(result, {0: "not converged after 0 steps"}, [0, 7, 9]).converged()
    assert (late.interval.estimate, late.excluded) == (2 / 3, {})
    with pytest.raises(NotAvailable, match=f"^emt scores none of 3 crystals: {unknown}$"):
        with_problems(result, dict.fromkeys(range(3), unknown), [0, 0, 0]).converged()


def test_where_nothing_relaxed_the_most_common_reasons_are_named(result: RelaxResult) -> None:
    lost = with_problems(result, {0: "lost", 1: "late", 2: "late"}, [1, 2, 3])
    with pytest.raises(
        NotAvailable,
        match=r"^none of 3 crystals relaxed \(late; lost\), so there is no geometry to compare$",
    ):
        lost.volume_error()
    with pytest.raises(NotAvailable, match=r"\(a; b; and 1 more\)"):
        with_problems(result, {0: "a", 1: "b", 2: "c"}, [1, 2, 3]).bond_length_error()


def test_so_many_crystals_that_all_relax_show_that_nearly_all_do() -> None:
    bound = above(0.95, "", "a reason")
    assert enough_to_show(0.95) == 72
    assert bound.judge(share(72, 72, unit="crystals")) == Verdict.HELD
    assert bound.judge(share(71, 71, unit="crystals")) == Verdict.INCONCLUSIVE
    assert bound.judge(share(47, 47, unit="crystals")) == Verdict.INCONCLUSIVE
    assert enough_to_show(0.5, level=0.75) == 4  # 0.5 ** 3 is the eighth itself, and not above it
    assert enough_to_show(0.5, level=0.7) == 3


def test_stopped_early_those_that_needed_longer_did_not_relax(result: RelaxResult) -> None:
    full = with_problems(result, {1: "not converged after 9 steps"}, [5, 9, 6])
    early = full.stopped_after(5)
    late = "not converged after 5 steps"
    assert early.relaxation.problems == {1: late, 2: late}
    assert early.relaxation.steps.tolist() == [5, 5, 5]
    assert early.names == ("Cu",)
    assert early.config == replace(full.config, max_steps=5)
    assert full.stopped_after(6).relaxation.problems == {1: "not converged after 6 steps"}
    assert full.stopped_after(9).relaxation.problems == full.relaxation.problems
    assert full.stopped_after(0).converged().interval.estimate == 0


def test_stopping_after_so_many_steps_is_relaxing_with_no_more(result: RelaxResult) -> None:
    cut = int(np.sort(result.relaxation.steps)[1])
    fewer = relax(EffectiveMedium(), TIGHT.start(METALS), replace(TIGHT, max_steps=cut))
    stopped = result.stopped_after(cut)
    assert 0 < len(stopped.relaxation.problems) < 3
    assert stopped.relaxation.problems == fewer.problems
    np.testing.assert_array_equal(stopped.relaxation.steps, fewer.steps)


def at_ratios(result: RelaxResult, lengths: Sequence[float]) -> RelaxResult:
    """As if relaxed lengths were so many times the reference's, in crystals of one shape."""
    own = result.relaxation.crystals
    n = len(lengths)
    rows = np.arange(n) % len(own)
    reference = own[rows]
    scaled = Crystals(
        **{**reference.columns(), "lattices": reference.lattices * np.array(lengths)[:, None, None]}
    )
    return replace(
        result,
        reference=Geometries(
            source="metals",
            names=tuple(f"crystal {i}" for i in range(n)),
            crystals=reference,
            inputs={},
        ),
        start=scaled,
        relaxation=replace(result.relaxation, crystals=scaled, steps=np.arange(n), problems={}),
        bonds=tuple(result.bonds[row] for row in rows),
    )


def test_beside_the_mean_stand_what_one_crystal_does_not_decide(result: RelaxResult) -> None:
    lengths = [1.0, 1.001, 1.002, 1.003, 1.004, 1.005, 1.006, 1.007, 1.008, 1.3]
    measured = at_ratios(result, lengths).bond_length_error()
    details = measured.details
    assert measured.interval.estimate == pytest.approx(0.0336)
    assert measured.interval.unsettled.startswith("one of 10 crystals has 90% of the variance")
    assert details["n_crystals"] == 10
    assert (details["in_other_structures"], details["n_in_other_structures"]) == ([], 0)
    assert details["median"]["estimate"] == pytest.approx(0.0045)
    assert details["median"]["low"] == pytest.approx(0.001)
    assert details["median"]["high"] == pytest.approx(0.008)
    assert details["median"]["method"] == "order statistics of 10 crystals"
    assert details["trimmed_mean"] == pytest.approx(0.0045)  # of the eight in the middle
    assert details["trimmed_off_either_end"] == 0.1
    assert details["mean_in_the_same_structure"] == pytest.approx(0.0336)
    assert details["largest"]["crystal"] == "crystal 9"
    assert details["largest"]["error"] == pytest.approx(0.3)
    errors = np.array(lengths) - 1
    squares = (errors - errors.mean()) ** 2
    assert details["largest"]["share_of_variance"] == pytest.approx(squares[9] / squares.sum())


def test_crystals_in_another_structure_are_named_and_the_others_have_a_mean_of_their_own(
    result: RelaxResult,
) -> None:
    found = at_ratios(result, [1.001, 1.002, 1.003])
    lattices = found.relaxation.crystals.lattices.copy()
    lattices[2] = lattices[2] @ np.diag([1, 1, 1.2])
    changed = Crystals(**{**found.relaxation.crystals.columns(), "lattices": lattices})
    found = replace(found, relaxation=replace(found.relaxation, crystals=changed))
    details = found.volume_error().details
    assert details["in_other_structures"] == ["crystal 2"]
    assert details["n_in_other_structures"] == 1
    assert details["mean_in_the_same_structure"] == pytest.approx((1.001**3 + 1.002**3) / 2 - 1)
    alone = at_ratios(result, [1.001])
    other = replace(alone, relaxation=replace(alone.relaxation, crystals=changed[2]))
    assert other.volume_error().details["mean_in_the_same_structure"] is None


def test_crystals_that_are_all_alike_have_no_spread(result: RelaxResult) -> None:
    still = result.at_start().volume_error()
    assert still.interval.method == "3 crystals, all alike"
    assert still.interval.low == still.interval.estimate == still.interval.high
    assert (still.interval.n, still.interval.n_clusters) == (3, 3)
    assert still.details["largest"]["share_of_variance"] <= 1
    near = at_ratios(result, [1.01, 1.01, 1.01 + 1e-11]).bond_length_error()
    assert "jackknife" in near.interval.method
    assert near.interval.unsettled == "3 crystals are too few for an interval, which takes 10"


def test_one_crystal_has_no_interval_and_none_no_number(result: RelaxResult) -> None:
    def without(*rows: int) -> RelaxResult:
        problems = dict.fromkeys(rows, "not converged after 9 steps")
        return replace(result, relaxation=replace(result.relaxation, problems=problems))

    interval = without(0, 1).volume_error().interval
    assert interval.low == interval.estimate == interval.high
    assert interval.method == "one crystal: about it and no other"
    assert interval.unsettled == ""
    assert below(interval.estimate + 1e-6, "", "a reason").judge(interval) == Verdict.HELD
    assert below(interval.estimate, "", "a reason").judge(interval) == Verdict.REFUTED
    with pytest.raises(NotAvailable, match="none of 3 crystals relaxed"):
        without(0, 1, 2).volume_error()


@pytest.mark.parametrize(
    ("prototype", "species", "neighbours"),
    [
        ("fcc", ("Cu",), 12),
        ("bcc", ("Na",), 8),
        ("diamond", ("C",), 4),
        ("rocksalt", ("Mg", "O"), 6),
        ("CsCl", ("Cs", "Cl"), 8),
    ],
)
@settings(deadline=None, max_examples=8)
@given(seed=st.integers(0, 2**32 - 1))
def test_nearest_neighbours_are_those_of_the_structure_wherever_its_origin_lies(
    prototype: str, species: tuple[str, ...], neighbours: int, seed: int
) -> None:
    from harness.runners.relax import _bonds, _lengths_ang

    one = crystal(prototype, species, 4.0)
    shift = np.random.default_rng(seed).uniform(-3, 3, 3)
    moved = Crystals(**{**one.columns(), "frac_coords": one.frac_coords + shift})
    bonds = _bonds(moved)
    np.testing.assert_array_equal(np.bincount(bonds[0]), neighbours)
    lengths = _lengths_ang(moved, *bonds)
    np.testing.assert_allclose(lengths, lengths[0], rtol=1e-9)


# --- the figure


def test_the_figure_shows_every_crystal_and_names_those_in_another_structure() -> None:
    figure = relaxation_errors(
        ["MgO", "Na"],
        np.array([1.01, 0.99]),
        np.array([1.003, 1.026]),
        in_other_structures=["Na"],
        bounds=(0.03, 0.01),
    )
    stems, volumes, bonds = figure.data
    np.testing.assert_allclose(volumes.x, [-1, 1])
    np.testing.assert_allclose(bonds.x, [2.6, 0.3])
    assert figure.layout.yaxis.ticktext == ("<i>in another structure:</i> Na", "MgO")
    assert len(stems.x) == 6
    assert len(figure.layout.shapes) == 3


def test_the_figure_refuses_numbers_that_do_not_belong_together() -> None:
    with pytest.raises(DataError, match="give as many"):
        relaxation_errors(["MgO"], np.array([1.0, 1.0]), np.array([1.0, 1.0]))
