"""Slopes of forces and errors of energies are what was planted, and no frame goes uncounted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.data.crystals import Crystals
from harness.data.frames import Dimers, Frames
from harness.errors import ConfigError, DataError, NotAvailable
from harness.models.morse import Morse
from harness.models.protocol import Identity, Prediction
from harness.runners import dimers as dimers_runner
from harness.runners import frames as runner
from harness.runners.frames import LEFT_OUT, Window
from harness.store import PredictionStore

ELEMENTS = (3, 8, 12, 14, 26)


def made_frames(n: int = 24, seed: int = 0, name: str = "made") -> Frames:
    """Cubes of two to five atoms with random forces, energies and pressures."""
    draw = np.random.default_rng(seed)
    counts = draw.integers(2, 6, n)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    crystals = Crystals(
        numbers=draw.choice(np.array(ELEMENTS, dtype=np.uint8), offsets[-1]),
        frac_coords=draw.random((offsets[-1], 3)),
        lattices=np.broadcast_to(6.0 * np.eye(3), (n, 3, 3)).copy(),
        offsets=offsets,
    )
    pressure = np.linspace(-20.0, 150.0, n)
    return Frames(
        name=name,
        ids=np.array([f"{name}-{i}" for i in range(n)]),
        groups=np.where(np.arange(n) % 2 == 0, "even", "odd"),
        crystals=crystals,
        energy_ev_per_atom=draw.normal(-5.0, 1.0, n),
        forces_ev_per_ang=draw.normal(0.0, 1.0, (offsets[-1], 3)),
        stress_gpa=-pressure[:, None, None] * np.eye(3),
        inputs={"made": "0" * 64},
        n_official=n + 1,
    )


class Softened:
    """Knows the frames' DFT answers and gives forces times a factor, energies plus a shift that is
    linear in the composition; rows that start with iron have an isolated atom."""

    def __init__(
        self, *known: Frames, factor: float = 0.8, corrected: bool = False, per_element: float = 0.0
    ) -> None:
        self.identity = Identity(
            name="softened",
            weights_sha256=f"{factor} {corrected} {per_element}".encode().hex().ljust(64, "0"),
        )
        self.elements = frozenset(range(1, 119))
        self.answers = {}
        for frames in known:
            energy = frames.energy_ev_per_atom.copy()
            if corrected:
                energy += planted_corrections(frames.crystals)
            energy += per_element * frames.crystals.fractions() @ np.arange(118)
            for row, key in enumerate(frames.crystals.row_hashes()):
                forces = factor * frames.forces_ev_per_ang[frames.crystals.atom_slice(row)]
                self.answers[key.tobytes()] = (energy[row], forces)

    def plan(self, crystals: Crystals) -> list[np.ndarray]:
        return [np.arange(len(crystals))]

    def predict(self, crystals: Crystals, properties: Sequence[str] = ("energy",)) -> Prediction:
        answers = [self.answers[key.tobytes()] for key in crystals.row_hashes()]
        energy = np.array([e for e, _ in answers])
        forces = [f for _, f in answers]
        alone = crystals.numbers[crystals.offsets[:-1] - crystals.offsets[0]] == 26
        energy[alone] = np.nan
        return Prediction(
            energy=energy,
            forces=forces if "forces" in properties else None,
            problems={int(row): "1 isolated atom" for row in np.flatnonzero(alone)},
        )


def planted_corrections(crystals: Crystals) -> np.ndarray:
    """Not linear in the composition, as the real ones: only where there is oxygen."""
    fractions = crystals.fractions()
    return np.where(fractions[:, 7] > 0, -0.7 * fractions[:, 7] - 2.0 * fractions[:, 25], 0.0)


@pytest.fixture
def store(tmp_path):
    return PredictionStore(tmp_path)


@pytest.fixture
def corrections(monkeypatch):
    """pymatgen takes seconds to import; the real corrections are tested with the data."""
    monkeypatch.setattr(runner.mp2020, "corrections_ev_per_atom", planted_corrections)
    monkeypatch.setattr(runner.mp2020, "pymatgen_version", lambda: "planted")


# --- forces ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [0.8, 1.0, 1.3])
def test_the_planted_slope_is_measured_and_every_frame_counted(store, factor):
    frames = made_frames()
    window = Window(pressure_gpa=(-5.0, 100.0))
    result = runner.forces(Softened(frames, factor=factor), frames, store, window)
    measured = result.slope()  # which refuses coverage that does not add up
    assert measured.interval.estimate == pytest.approx(factor)
    assert measured.interval.low == pytest.approx(factor)
    assert measured.of == 25
    inside = (frames.pressure_gpa > -5) & (frames.pressure_gpa < 100)
    first = frames.crystals.numbers[frames.crystals.offsets[:-1]]
    assert measured.scored == (inside & (first != 26)).sum()
    assert measured.excluded == {
        "DFT pressure outside -5 to 100 GPa": (~inside).sum(),
        "1 isolated atom": (inside & (first == 26)).sum(),
        "not in the file at hand": 1,
    }
    assert set(measured.details["slope_by_group"]) == {"even", "odd"}


def test_a_quick_session_draws_the_same_frames_and_says_how_many_it_left():
    frames = made_frames()
    rows, excluded = Window(max_atoms=20).choose(frames)
    again, _ = Window(max_atoms=20).choose(frames)
    np.testing.assert_array_equal(rows, again)
    assert excluded[LEFT_OUT] == len(frames) - len(rows) > 0
    n_atoms = frames.crystals.n_atoms[rows]
    assert 20 <= n_atoms.sum() < 20 + 5
    other, _ = Window(max_atoms=20, seed=1).choose(frames)
    assert rows.tolist() != other.tolist()


def test_frames_at_rest_are_counted_out():
    frames = made_frames()
    still = frames.forces_ev_per_ang.copy()
    still[frames.crystals.atom_slice(3)] = 0.01
    rows, excluded = Window().choose(replace(frames, forces_ev_per_ang=still))
    assert 3 not in rows
    assert excluded["DFT forces below 0.1 eV/Å rms"] == 1


@settings(max_examples=30, deadline=None)
@given(
    factor=st.floats(0.2, 2.0),
    noise=st.floats(0.0, 0.5),
    seed=st.integers(0, 100),
)
def test_unbiased_noise_in_a_model_does_not_move_the_slope(factor, noise, seed):
    frames = made_frames(200, seed=1)
    draw = np.random.default_rng(seed)
    posed = runner.posed_forces(
        frames, lambda dft: factor * dft + noise * draw.normal(size=dft.shape), model="posed"
    )
    interval = posed.slope().interval
    components = 3 * len(frames.crystals.numbers)  # each of unit variance
    assert interval.estimate == pytest.approx(factor, abs=5 * noise / np.sqrt(components) + 1e-12)


def test_frames_of_one_element_are_resampled_and_formulas_of_many():
    frames = made_frames()
    posed = runner.posed_forces(frames, lambda dft: dft, model="DFT")
    assert "reduced formulas" in posed.slope().interval.method
    silicon = replace(frames.crystals, numbers=np.full_like(frames.crystals.numbers, 14))
    alone = runner.posed_forces(
        replace(frames, crystals=silicon), lambda dft: dft, model="DFT"
    ).slope()
    assert "frames" in alone.interval.method
    assert alone.interval.n_clusters == len(frames)


def test_a_set_without_a_frame_to_score_is_not_available(store):
    frames = made_frames()
    with pytest.raises(NotAvailable, match="no frame of made lies in the window"):
        runner.forces(Softened(frames), frames, store, Window(pressure_gpa=(500.0, 600.0)))
    iron = replace(frames.crystals, numbers=np.full_like(frames.crystals.numbers, 26))
    iron_frames = replace(frames, crystals=iron)
    with pytest.raises(NotAvailable, match=r"scores no frame.*isolated"):
        runner.forces(Softened(iron_frames), iron_frames, store)
    with pytest.raises(ConfigError, match="is empty"):
        Window(pressure_gpa=(5.0, -5.0))


# --- energies -------------------------------------------------------------------------------------


@pytest.mark.parametrize("corrected", [True, False])
def test_the_level_a_model_was_trained_at_is_found(store, corrections, corrected):
    frames = made_frames(60)
    result = runner.energies(Softened(frames, corrected=corrected), frames, store)
    assert result.level() == ("mp2020" if corrected else "raw")
    scored = result.scored("as-trained", training_like=result, store=store)
    measured = runner.energy_mae(scored)
    assert measured.interval.estimate == pytest.approx(0.0, abs=1e-12)
    assert measured.excluded["1 isolated atom"] > 0
    assert measured.of == 61
    other = "raw" if corrected else "mp2020"
    assert result.mae_ev_per_atom(other) > 0.1


def test_a_refit_takes_off_what_is_linear_in_the_composition(store, corrections):
    like, unlike = made_frames(80, seed=2, name="like"), made_frames(40, seed=3, name="unlike")
    model = Softened(like, unlike, corrected=True, per_element=0.01)
    training = runner.energies(model, like, store)
    other = runner.energies(model, unlike, store)
    for result in (training, other):
        as_trained = result.scored("as-trained", training_like=training, store=store)
        refitted = result.scored("refit", training_like=training, store=store)
        assert runner.energy_mae(as_trained).interval.estimate > 0.05
        assert runner.energy_mae(refitted).interval.estimate < 1e-6
        assert refitted.details["frames_with_an_element_not_refitted"] == 0


def test_a_refit_never_sees_the_frame_it_is_used_for(store, corrections):
    """Frames of random energies: a fit on themselves would lower their error, another's cannot."""
    frames = made_frames(30, seed=4, name="like")
    model = Softened(frames)
    result = runner.energies(model, frames, store)
    noise = np.random.default_rng(0).normal(size=len(frames))
    energy = np.where(result.predicted.scored, result.predicted.energy + noise, np.nan)
    noisy = replace(result, predicted=replace(result.predicted, energy=energy))
    as_trained = noisy.scored("as-trained", training_like=noisy, store=store)
    refitted = noisy.scored("refit", training_like=noisy, store=store)
    assert np.abs(refitted.error_ev_per_atom).mean() > np.abs(as_trained.error_ev_per_atom).mean()


def test_an_element_the_refit_has_not_seen_keeps_its_level_and_is_counted(store, corrections):
    like, unlike = made_frames(40, seed=5, name="like"), made_frames(20, seed=6, name="unlike")
    argon = unlike.crystals.numbers.copy()
    argon[unlike.crystals.offsets[1] - 1] = 18
    unlike = replace(unlike, crystals=replace(unlike.crystals, numbers=argon))
    model = Softened(like, unlike, corrected=True)
    training = runner.energies(model, like, store)
    scored = runner.energies(model, unlike, store).scored(
        "refit", training_like=training, store=store
    )
    assert scored.details["frames_with_an_element_not_refitted"] == 1


def test_a_sample_of_energies_is_stated(store, corrections):
    frames = made_frames(40)
    result = runner.energies(Softened(frames), frames, store, max_frames=10)
    measured = runner.energy_mae(result.scored("as-trained", training_like=result, store=store))
    assert measured.excluded[LEFT_OUT] == 30
    assert measured.excluded["not in the file at hand"] == 1
    assert measured.of == 41
    with pytest.raises(ConfigError, match="no alignment 'none'"):
        result.scored("none", training_like=result, store=store)


def test_the_store_is_asked_once(store, corrections):
    frames = made_frames(12)
    model = Softened(frames)
    runner.energies(model, frames, store)
    runner.forces(model, frames, store)
    before = store.traffic.computed
    runner.energies(model, frames, store)
    runner.forces(model, frames, store)
    assert store.traffic.computed == before


# --- dimers ---------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("region", dimers_runner.REGIONS)
def test_dimers_give_the_planted_slope_and_count_every_point(region):
    dimers = morse_dimers()
    posed = dimers_runner.posed(dimers, lambda dft: 0.7 * dft, model="DFT x 0.7")
    measured = posed.slope(region)
    assert measured.interval.estimate == pytest.approx(0.7)
    assert measured.of == posed.region(region).sum() > 0
    assert measured.scored == measured.of - measured.excluded["no crystals to train on (Po)"]
    assert "3 elements" in measured.interval.method
    assert measured.details["summed_well_depth_dft_ev"] == pytest.approx(1 + 2 + 3, rel=0.02)


def test_regions_do_not_overlap_and_walls_are_within_their_forces():
    posed = dimers_runner.posed(morse_dimers(), lambda dft: dft, model="DFT")
    masks = [posed.region(name) for name in dimers_runner.REGIONS]
    assert np.sum(masks, axis=0).max() == 1
    wall = posed.dimers.force_ev_per_ang[masks[0]]
    assert wall.min() >= 1.0
    assert wall.max() <= 30.0
    with pytest.raises(ConfigError, match="no region 'well'"):
        posed.region("well")


def test_a_curve_that_jumps_between_states_does_not_count():
    dimers = morse_dimers()
    jumping = dimers.energy_ev.copy()
    jumping[dimers.points(1)] += 5.0 * (np.arange(40) % 2)
    posed = dimers_runner.posed(
        replace(dimers, energy_ev=jumping), lambda dft: 0.7 * dft, model="jumps"
    )
    assert posed.mismatch()[[0, 2]].max() < 0.1
    assert posed.usable().tolist() == [True, False, True, False]
    reasons = posed.slope("dissociation").excluded
    assert any("jumps between electronic states (Na)" in reason for reason in reasons)


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


def test_points_beyond_the_cutoff_are_excluded_with_the_models_reason(store):
    result = dimers_runner.run(Springs(), morse_dimers(), store)
    far = result.dimers.distance_ang > 4.0
    assert np.isnan(result.energy_ev[far]).all()
    near = ~far
    np.testing.assert_allclose(
        result.force_ev_per_ang[near], 2 * (1.8 - result.dimers.distance_ang[near]), atol=1e-9
    )
    np.testing.assert_allclose(
        result.energy_ev[near], (result.dimers.distance_ang[near] - 1.8) ** 2, atol=1e-9
    )
    excluded = result.slope("dissociation").excluded
    usable = result.usable()[result.dimers.curve_of_point]
    assert excluded["2 isolated atoms"] == (far & usable & result.region("dissociation")).sum()


def test_a_model_that_scores_fewer_than_two_dimers_is_not_measured():
    posed = dimers_runner.posed(morse_dimers(("H", "Po")), lambda dft: dft, model="DFT")
    with pytest.raises(NotAvailable, match="fewer than two dimers"):
        posed.slope("wall")
    with pytest.raises(ConfigError, match="windows must not be empty"):
        dimers_runner.DimerScan(wall_ev_per_ang=(5.0, 1.0))


def test_frames_refuse_columns_that_do_not_fit():
    frames = made_frames()
    with pytest.raises(DataError, match="stress_gpa has shape"):
        replace(frames, stress_gpa=frames.stress_gpa[:-1])
    broken = frames.forces_ev_per_ang.copy()
    broken[frames.crystals.atom_slice(1)] = np.nan
    with pytest.raises(DataError, match=r"frame 1 \(made-1\): forces_ev_per_ang is not finite"):
        replace(frames, forces_ev_per_ang=broken)
