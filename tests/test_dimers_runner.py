"""Dimers: regions cut by DFT alone, one slope an element, and no point that goes uncounted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from harness.data.crystals import Crystals
from harness.data.frames import Dimers
from harness.errors import CannotResolve, ConfigError
from harness.models.morse import Morse
from harness.models.protocol import Identity, Prediction
from harness.runners import dimers as runner
from harness.runners.dimers import DimerResult, DimerScan
from harness.store import PredictionStore


@pytest.fixture
def store(tmp_path):
    return PredictionStore(tmp_path)


def morse_dimers(symbols: tuple[str, ...] = ("H", "Na", "Si", "Po"), n: int = 40) -> Dimers:
    """Morse curves, whose forces are the slopes of their energies."""
    r = np.geomspace(0.8, 6.0, n)
    columns = []
    for i in range(len(symbols)):
        curve = Morse(depth_ev=1.0 + i, stiffness_per_ang=1.5, minimum_ang=1.6 + 0.2 * i)
        step = 1e-5
        slope = (curve.energy_ev(r + step) - curve.energy_ev(r - step)) / (2 * step)
        columns.append((r, curve.energy_ev(r), -slope))
    distance, energy, force = (np.concatenate(column) for column in zip(*columns, strict=True))
    return Dimers(
        functional="PBE",
        symbols=symbols,
        offsets=n * np.arange(len(symbols) + 1, dtype=np.int64),
        distance_ang=distance,
        energy_ev=energy,
        force_ev_per_ang=force,
        inputs={"dimers": "0" * 64},
    )


def posed(dimers: Dimers, factor=1.0) -> DimerResult:
    """DFT's own forces times a factor, one for all points or one a point, in a model's place."""
    return DimerResult(
        config=DimerScan(),
        dimers=dimers,
        energy_ev=dimers.energy_ev,
        force_ev_per_ang=factor * dimers.force_ev_per_ang,
        problems={},
        model="model",
        subject="subject",
        inputs=dimers.inputs,
    )


def by_element(dimers: Dimers, factors: dict[str, float]) -> DimerResult:
    """Each element's forces times its own factor."""
    each = np.array([factors[symbol] for symbol in dimers.symbols])
    return posed(dimers, each[dimers.curve_of_point])


SIX = ("H", "Na", "Si", "K", "Cu", "Ag")


@pytest.mark.parametrize("region", runner.REGIONS)
def test_dimers_give_the_planted_slope_and_count_every_point(region):
    dimers = morse_dimers()
    made = posed(dimers, 0.7)
    measured = made.slope(region)
    assert measured.interval.estimate == pytest.approx(0.7)
    inside = made.region(region)
    assert measured.of == inside.sum() > 0
    polonium = int(inside[dimers.points(3)].sum())
    assert measured.absent == {"no crystals to train on (Po)": polonium}
    assert measured.excluded == {}
    assert measured.scored == measured.of - polonium == measured.interval.n
    assert measured.interval.n_clusters == 3
    assert measured.interval.method == "order statistics of 3 elements"
    assert measured.quantity == (
        f"slope of dimer forces on DFT's, through the origin, {region}, median of elements"
    )
    assert (measured.model, measured.subject) == ("model", "subject")
    assert measured.dataset == "PBE dimers"
    assert measured.inputs == {"dimers": "0" * 64}
    details = measured.details
    assert details["summed_well_depth_dft_ev"] == pytest.approx(1 + 2 + 3, rel=0.02)
    assert details["wells_from_r_min"] == 3
    assert details["elements"] == details["elements_below_one"] == 3
    scored = inside & made.usable()[dimers.curve_of_point]
    dft = dimers.force_ev_per_ang[scored]
    assert details["force_rms_ev_per_ang"] == pytest.approx(np.sqrt(np.mean(dft**2)))
    assert details["force_mae_ev_per_ang"] == pytest.approx(0.3 * np.abs(dft).mean())
    assert details["sign_differs_at"] == 0
    turned = posed(dimers, -1.0).slope(region).details["sign_differs_at"]
    assert turned == (dft != 0).sum()


def test_the_median_of_elements_is_not_moved_by_one_that_is_far_off():
    """Pooled over points, an element predicted a hundred times too stiff decides the slope."""
    factors = {"H": 0.5, "Na": 0.6, "Si": 0.7, "K": 0.8, "Cu": 1.0, "Ag": 200.0}
    measured = by_element(morse_dimers(SIX), factors).slope("wall")
    interval = measured.interval
    assert interval.estimate == pytest.approx(0.75)
    assert (interval.low, interval.high) == pytest.approx((0.5, 200.0))
    assert interval.unsettled == ""
    details = measured.details
    assert details["elements_below_one"] == 4
    assert (details["softest_element"], details["stiffest_element"]) == ("H", "Ag")
    assert details["softest_slope"] == pytest.approx(0.5)
    assert details["stiffest_slope"] == pytest.approx(200.0)
    assert details["most_influential_element"] == "Ag"


def test_the_pooled_slope_is_weighed_by_squares_and_named_with_who_moves_it():
    dimers = morse_dimers(SIX)
    made = by_element(dimers, dict.fromkeys(SIX, 1.0) | {"Na": 0.5, "Cu": 0.9})
    inside = made.region("wall")
    weight = np.array(
        [
            np.square(dimers.force_ev_per_ang[dimers.points(i)][inside[dimers.points(i)]]).sum()
            for i in range(6)
        ]
    )
    slope = np.array([1.0, 0.5, 1.0, 1.0, 0.9, 1.0])
    details = made.slope("wall").details
    pooled = details["pooled_slope"]
    assert pooled["estimate"] == pytest.approx((weight * slope).sum() / weight.sum())
    assert pooled["low"] <= pooled["estimate"] <= pooled["high"]
    assert pooled["effective"] == pytest.approx(weight.sum() ** 2 / (weight**2).sum())
    without = ((weight * slope).sum() - weight * slope) / (weight.sum() - weight)
    most = int(np.argmax(np.abs(without - pooled["estimate"])))
    assert details["most_influential_element"] == SIX[most]
    assert details["pooled_slope_without_it"] == pytest.approx(without[most])


def test_a_planted_fault_keeps_the_subject_and_says_what_it_is():
    made = posed(morse_dimers(), 0.5)
    stiffer = made.stiffened(0.25)
    assert (stiffer.model, stiffer.subject) == ("model and +0.25 of DFT's forces", "subject")
    for region in runner.REGIONS:
        assert stiffer.slope(region).interval.estimate == pytest.approx(0.75)
    other = made.with_forces(lambda force: 3 * force, name="thrice")
    assert (other.model, other.subject) == ("thrice", "subject")
    assert other.slope("wall").interval.estimate == pytest.approx(1.5)
    assert made.slope("wall").interval.estimate == pytest.approx(0.5)


def test_regions_do_not_overlap_and_walls_are_within_their_forces():
    made = posed(morse_dimers())
    masks = [made.region(name) for name in runner.REGIONS]
    assert np.sum(masks, axis=0).max() == 1
    wall = made.dimers.force_ev_per_ang[masks[0]]
    assert wall.min() >= 1.0
    assert wall.max() <= 30.0
    with pytest.raises(ConfigError, match="no region 'well'; known: wall, equilibrium, dissoc"):
        made.region("well")


def test_regions_hold_their_edges():
    """One curve with its lowest energy at 1 Å and points on every edge."""
    r = np.array([0.3, 0.5, 0.6, 0.7, 0.9, 1.0, 1.1, 1.2])
    force = np.array([31.0, 30.0, 1.0, 0.99, 5.0, 0.0, -1.0, -0.5])
    energy = np.array([9.0, 8.0, 7.0, 6.0, 5.0, 0.0, 1.0, 2.0])
    dimers = Dimers(
        functional="PBE",
        symbols=("H",),
        offsets=np.array([0, 8]),
        distance_ang=r,
        energy_ev=energy,
        force_ev_per_ang=force,
        inputs={},
    )
    made = posed(dimers)
    assert made.r_min_ang.tolist() == [1.0]
    assert np.flatnonzero(made.region("wall")).tolist() == [1, 2]
    assert np.flatnonzero(made.region("equilibrium")).tolist() == [4, 5, 6]
    assert np.flatnonzero(made.region("dissociation")).tolist() == [7]


def test_a_mismatch_is_counted_from_where_forces_are_no_larger_than_the_walls():
    r = np.array([0.5, 1.0, 1.5, 2.5])
    dimers = Dimers(
        functional="PBE",
        symbols=("H",),
        offsets=np.array([0, 4]),
        distance_ang=r,
        energy_ev=np.array([100.0, 4.0, 2.0, 3.0]),
        force_ev_per_ang=np.array([30.1, 6.0, 1.0, -2.0]),
        inputs={},
    )
    # work over the last two steps: -(6 + 1) / 2 * 0.5 = -1.75 and (2 - 1) / 2 = 0.5
    assert posed(dimers).mismatch().tolist() == [pytest.approx((0.25 + 0.5) / 3)]
    flat = replace(dimers, energy_ev=np.array([9.0, 1.0, 1.0, 1.0]))
    assert posed(flat).mismatch().tolist() == [np.inf]
    # nothing above the wall: from the first point on, -(30 + 6) / 2 * 0.5 = -9 of -96 as well
    all_of_it = replace(dimers, force_ev_per_ang=np.array([30.0, 6.0, 1.0, -2.0]))
    assert posed(all_of_it).mismatch().tolist() == [pytest.approx((87 + 0.25 + 0.5) / 99)]


def test_a_curve_that_jumps_between_states_does_not_count():
    dimers = morse_dimers()
    jumping = dimers.energy_ev.copy()
    jumping[dimers.points(1)] += 5.0 * (np.arange(40) % 2)
    made = posed(replace(dimers, energy_ev=jumping), 0.7)
    assert made.mismatch()[[0, 2]].max() < 0.1
    assert made.usable().tolist() == [True, False, True, False]
    measured = made.slope("dissociation")
    inside = made.region("dissociation")
    assert measured.absent == {
        "no crystals to train on (Po)": inside[dimers.points(3)].sum(),
        "DFT jumps between electronic states (Na)": inside[dimers.points(1)].sum(),
    }
    assert measured.excluded == {}


class Springs:
    """Pulls every dimer with 2 (1.8 - r) eV/Å; atoms further than 4 Å apart are isolated."""

    identity = Identity(name="springs", weights_sha256="b" * 64)
    elements = frozenset(range(1, 119))

    def plan(self, crystals: Crystals) -> list[np.ndarray]:
        return np.array_split(np.arange(len(crystals)), 3)

    def predict(self, crystals: Crystals, properties: Sequence[str] = ("energy",)) -> Prediction:
        pairs = crystals.frac_coords.reshape(-1, 2, 3)
        r = (pairs[:, 1] - pairs[:, 0])[:, 0] * crystals.lattices[:, 0, 0]
        apart = r > 4.0
        pull = 2.0 * (1.8 - r)[:, None] * np.array([1.0, 0.0, 0.0])
        return Prediction(
            energy=np.where(apart, np.nan, (r - 1.8) ** 2 / 2),
            forces=[np.stack([-f, f]) for f in pull],
            problems={int(row): "2 isolated atoms" for row in np.flatnonzero(apart)},
        )


def test_a_curve_counts_up_to_the_mismatch_that_is_allowed():
    made = posed(morse_dimers(("H", "Na", "Si")))
    worst = float(made.mismatch().max())
    at_the_edge = replace(made, config=DimerScan(most_mismatch=worst))
    assert at_the_edge.usable().all()
    beyond = replace(made, config=DimerScan(most_mismatch=0.999 * worst))
    assert beyond.usable().sum() == 2


def test_points_beyond_the_cutoff_are_excluded_with_the_models_reason(store):
    result = runner.run(Springs(), morse_dimers(), store)
    far = result.dimers.distance_ang > 4.0
    assert np.isnan(result.energy_ev[far]).all()
    assert np.isnan(result.force_ev_per_ang[far]).all()
    near = ~far
    np.testing.assert_allclose(
        result.force_ev_per_ang[near], 2 * (1.8 - result.dimers.distance_ang[near]), atol=1e-9
    )
    np.testing.assert_allclose(
        result.energy_ev[near], (result.dimers.distance_ang[near] - 1.8) ** 2, atol=1e-9
    )
    measured = result.slope("dissociation")
    usable = result.usable()[result.dimers.curve_of_point]
    inside = result.region("dissociation")
    assert measured.excluded == {"2 isolated atoms": (far & usable & inside).sum()}
    assert measured.absent == {"no crystals to train on (Po)": (inside & ~usable).sum()}
    assert measured.scored == (near & usable & inside).sum()
    assert (result.model, result.subject) == ("springs", "springs")
    assert result.inputs == {"dimers": "0" * 64, "springs": "b" * 64}
    # to the last distance that was scored
    last = result.dimers.distance_ang[near].max()
    depth = measured.details["summed_well_depth_model_ev"]
    lowest = [1.6, 1.8, 2.0]  # DFT's, to the grid
    assert depth == pytest.approx(sum((last - 1.8) ** 2 - (r - 1.8) ** 2 for r in lowest), rel=0.02)


def test_a_point_without_a_finite_force_says_so():
    made = posed(morse_dimers())
    force = made.force_ev_per_ang.copy()
    force[np.flatnonzero(made.region("equilibrium"))[0]] = np.nan
    assert replace(made, force_ev_per_ang=force).slope("equilibrium").excluded == {
        "no finite force": 1
    }


def test_a_model_that_scores_fewer_than_two_dimers_is_not_measured():
    made = posed(morse_dimers(("H", "Po")))
    with pytest.raises(
        CannotResolve, match="model scores points of fewer than two dimers in the region wall"
    ):
        made.slope("wall")


def test_elements_count_however_weak_their_forces():
    dimers = morse_dimers(SIX)
    weak = np.where(dimers.curve_of_point == 2, 1e-3, 1.0)
    dimers = replace(
        dimers,
        energy_ev=weak * dimers.energy_ev,
        force_ev_per_ang=weak * dimers.force_ev_per_ang,
    )
    details = posed(dimers).slope("dissociation").details
    assert details["elements"] == 6


def test_a_well_reaches_from_the_lowest_energy_to_the_last_point_scored():
    made = posed(morse_dimers(("H", "Na")))
    energy = made.dimers.energy_ev.copy()
    lowest = [int(np.argmin(energy[made.dimers.points(i)])) for i in range(2)]
    for i, more in enumerate((1, 0)):  # one point beyond the lowest, and none
        energy[made.dimers.points(i)][lowest[i] + 1 + more :] = np.nan
    details = replace(made, energy_ev=energy).slope("wall").details
    assert details["wells_from_r_min"] == 1
    first = made.dimers.energy_ev[made.dimers.points(0)]
    rise = first[lowest[0] + 1] - first[lowest[0]]
    assert details["summed_well_depth_dft_ev"] == pytest.approx(rise)
    assert details["summed_well_depth_model_ev"] == pytest.approx(rise)


def test_wells_of_which_nothing_was_scored_are_not_summed():
    made = posed(morse_dimers())
    silent = replace(made, energy_ev=np.full_like(made.energy_ev, np.nan))
    assert "summed_well_depth_dft_ev" not in silent.slope("wall").details


@pytest.mark.parametrize(
    "wrong",
    [
        {"wall_ev_per_ang": (5.0, 5.0)},
        {"wall_ev_per_ang": (0.0, 5.0)},
        {"equilibrium_r_min": (1.0, 1.1)},
        {"equilibrium_r_min": (0.9, 1.0)},
        {"equilibrium_r_min": (0.0, 1.1)},
        {"most_mismatch": 0.0},
    ],
)
def test_scans_that_hold_nothing_are_refused(wrong):
    with pytest.raises(ConfigError, match="windows must not be empty, equilibrium must hold r_min"):
        DimerScan(**wrong)
