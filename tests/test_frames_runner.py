"""Slopes of forces and errors of energies are what was planted, and no frame goes uncounted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.data.crystals import Crystals
from harness.data.frames import Frames
from harness.errors import CannotResolve, ConfigError, DataError, NotAvailable
from harness.models.protocol import Identity, Prediction
from harness.runners import frames as runner
from harness.runners.frames import LEFT_OUT, ForceResult, Window
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


def posed(frames: Frames, change) -> ForceResult:
    """DFT's own forces, altered, in the place of a model's: a subject whose slope is known."""
    window = Window()
    rows, absent = window.choose(frames)
    chosen = frames[rows]
    return ForceResult(
        window=window,
        frames=chosen,
        forces_ev_per_ang=change(chosen.forces_ev_per_ang.copy()),
        model="model",
        subject="subject",
        of=max(frames.n_official, len(frames)),
        excluded={},
        absent=absent,
        inputs=frames.inputs,
    )


@pytest.mark.parametrize("factor", [0.8, 1.0, 1.3])
def test_the_planted_slope_is_measured_and_every_frame_counted(store, factor):
    frames = made_frames()
    window = Window(pressure_gpa=(-5.0, 100.0))
    result = runner.forces(Softened(frames, factor=factor), frames, store, window)
    measured = result.slope()  # which refuses coverage that does not add up
    assert measured.interval.estimate == pytest.approx(factor)
    assert measured.of == 25
    inside = (frames.pressure_gpa > -5) & (frames.pressure_gpa < 100)
    first = frames.crystals.numbers[frames.crystals.offsets[:-1]]
    assert measured.scored == (inside & (first != 26)).sum()
    assert measured.excluded == {"1 isolated atom": (inside & (first == 26)).sum()}
    assert measured.absent == {
        "DFT pressure outside -5 to 100 GPa": (~inside).sum(),
        "not in the file at hand": 1,
    }
    assert measured.model == measured.subject == "softened"
    assert measured.dataset == "made"
    assert set(measured.inputs) == {"made", "softened"}
    details = measured.details
    assert set(details["slope_by_group"]) == {"even", "odd"}
    assert details["slope_by_group"]["odd"] == pytest.approx(factor)
    assert details["atoms"] == len(result.forces_ev_per_ang)
    assert details["window"]["pressure_gpa"] == (-5.0, 100.0)
    dft = result.frames.forces_ev_per_ang
    assert details["force_rms_ev_per_ang"] == pytest.approx(np.sqrt(np.mean(dft**2)))
    assert details["largest_force_ev_per_ang"] == np.abs(dft).max()
    expected = abs(factor - 1) * np.abs(dft).mean()
    assert details["force_mae_ev_per_ang"] == pytest.approx(expected, abs=1e-12)


def test_frames_weigh_by_the_squares_of_their_forces():
    frames = made_frames(2)
    owner = frames.crystals.row_of_atom
    forces = np.where(owner[:, None] == 0, 1.0, 3.0) * np.ones((1, 3))
    frames = replace(frames, forces_ev_per_ang=forces)
    made = posed(frames, lambda dft: np.where(owner[:, None] == 0, 0.5, 1.0) * dft)
    one, two = frames.crystals.n_atoms.tolist()
    measured = made.slope().interval
    assert measured.estimate == pytest.approx((0.5 * one + 9.0 * two) / (one + 9 * two))
    assert measured.effective == pytest.approx((one + 9 * two) ** 2 / (one**2 + 81 * two**2))


def test_a_quick_session_draws_the_same_frames_and_says_how_many_it_left():
    frames = made_frames()
    rows, absent = Window(max_atoms=20).choose(frames)
    again, _ = Window(max_atoms=20).choose(frames)
    np.testing.assert_array_equal(rows, again)
    assert absent == {LEFT_OUT: len(frames) - len(rows), "not in the file at hand": 1}
    assert (np.diff(rows) > 0).all()
    n_atoms = frames.crystals.n_atoms[rows]
    assert 20 <= n_atoms.sum() < 20 + 5
    other, _ = Window(max_atoms=20, seed=1).choose(frames)
    assert rows.tolist() != other.tolist()
    one, _ = Window(max_atoms=1).choose(frames)
    assert len(one) == 1
    every, absent = Window(max_atoms=10**6).choose(frames)
    assert len(every) == len(frames)
    assert LEFT_OUT not in absent


def test_a_whole_file_lacks_nothing():
    frames = replace(made_frames(), n_official=20)
    assert Window().choose(frames)[1] == {}
    assert posed(frames, lambda dft: dft).slope().of == 24


def test_frames_at_rest_are_not_asked_about():
    frames = made_frames()
    still = frames.forces_ev_per_ang.copy()
    still[frames.crystals.atom_slice(3)] = 0.0999
    still[frames.crystals.atom_slice(4)] = 0.1001
    rows, absent = Window().choose(replace(frames, forces_ev_per_ang=still))
    assert 3 not in rows
    assert 4 in rows
    assert absent["DFT forces below 0.1 eV/Å rms"] == 1
    pressed, absent = Window(pressure_gpa=(-5.0, 100.0)).choose(
        replace(frames, forces_ev_per_ang=0 * still)
    )
    assert len(pressed) == 0
    inside = int(((frames.pressure_gpa > -5) & (frames.pressure_gpa < 100)).sum())
    assert absent["DFT forces below 0.1 eV/Å rms"] == inside  # each frame under one reason


@settings(max_examples=30, deadline=None)
@given(
    factor=st.floats(0.2, 2.0),
    noise=st.floats(0.0, 0.5),
    seed=st.integers(0, 100),
)
def test_unbiased_noise_in_a_model_does_not_move_the_slope(factor, noise, seed):
    frames = made_frames(200, seed=1)
    draw = np.random.default_rng(seed)
    made = posed(frames, lambda dft: factor * dft + noise * draw.normal(size=dft.shape))
    components = 3 * len(frames.crystals.numbers)  # each of unit variance
    within = 5 * noise / np.sqrt(components) + 1e-12
    assert made.slope().interval.estimate == pytest.approx(factor, abs=within)


def test_a_planted_fault_keeps_the_subject_and_says_what_it_is():
    frames = made_frames()
    made = posed(frames, lambda dft: 0.5 * dft)
    stiffer = made.stiffened(0.25)
    assert (stiffer.model, stiffer.subject) == ("model and +0.25 of DFT's forces", "subject")
    assert stiffer.slope().interval.estimate == pytest.approx(0.75)
    assert made.stiffened(-0.125).model == "model and -0.125 of DFT's forces"
    other = made.with_forces(lambda forces: 2 * forces, name="twice")
    assert (other.model, other.subject) == ("twice", "subject")
    assert other.slope().interval.estimate == pytest.approx(1.0)
    assert made.slope().interval.estimate == pytest.approx(0.5)  # and the first stays as it was
    assert (other.slope().model, other.slope().subject) == ("twice", "subject")


def of_one_element(frames: Frames) -> Frames:
    numbers = np.full_like(frames.crystals.numbers, 14)
    return replace(frames, crystals=replace(frames.crystals, numbers=numbers))


def test_frames_of_one_element_are_drawn_anew_and_formulas_of_many():
    frames = made_frames()
    many = posed(frames, lambda dft: dft).slope().interval
    formulas = frames.crystals.reduced_formulas()
    assert f"{len(set(formulas))} reduced formulas" in many.method
    alone = posed(of_one_element(frames), lambda dft: dft).slope().interval
    assert "24 frames" in alone.method
    assert alone.n_clusters == len(frames)


def test_frames_that_symmetry_makes_equal_are_one_draw():
    """One strain along each of three axes: three frames with one energy and one size of force."""
    frames = of_one_element(made_frames())
    counts = frames.crystals.n_atoms
    like = np.flatnonzero(counts == counts[0])[:4]
    other = int(np.flatnonzero(counts != counts[0])[0])
    energy, forces = frames.energy_ev_per_atom.copy(), frames.forces_ev_per_ang.copy()
    turned = frames.forces_ev_per_ang[frames.crystals.atom_slice(0)]
    size = np.sqrt(np.mean(turned**2))
    for frame, (off_ev, off_force) in zip(
        like.tolist(), ((0, 0), (9e-5, 9e-4), (-1.1e-4, 0), (0, -1.1e-3)), strict=True
    ):
        mine = frames.crystals.atom_slice(frame)
        energy[frame] = energy[0] + off_ev
        forces[mine] = np.roll(turned, frame, axis=1) * (1 + off_force / size)
    energy[other] = energy[0]
    forces[frames.crystals.atom_slice(other)] = size
    frames = replace(frames, energy_ev_per_atom=energy, forces_ev_per_ang=forces)
    labels = runner._equal_frames(frames)
    expected = np.arange(24)
    expected[like[1]] = 0
    np.testing.assert_array_equal(labels, expected)
    assert posed(frames, lambda dft: dft).slope().interval.n_clusters == 23


def test_frames_that_are_all_alike_have_no_interval():
    frames = of_one_element(made_frames(2))
    crystals = frames.crystals[np.array([0, 0])]
    forces = np.tile(frames.forces_ev_per_ang[frames.crystals.atom_slice(0)], (2, 1))
    alike = replace(
        frames,
        crystals=crystals,
        energy_ev_per_atom=np.array([-5.0, -5.0]),
        forces_ev_per_ang=forces,
    )
    with pytest.raises(CannotResolve, match="model scores frames of made that are all alike"):
        posed(alike, lambda dft: dft).slope()


def test_a_set_without_a_frame_to_score_is_not_available(store):
    frames = made_frames()
    with pytest.raises(NotAvailable, match="no frame of made lies in the window"):
        runner.forces(Softened(frames), frames, store, Window(pressure_gpa=(500.0, 600.0)))
    iron = replace(frames.crystals, numbers=np.full_like(frames.crystals.numbers, 26))
    iron_frames = replace(frames, crystals=iron)
    with pytest.raises(NotAvailable, match=r"scores no frame.*isolated"):
        runner.forces(Softened(iron_frames), iron_frames, store)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"pressure_gpa": (5.0, -5.0)}, "is empty; give low, high in GPa"),
        ({"pressure_gpa": (5.0, 5.0)}, "is empty; give low, high in GPa"),
        ({"least_rms_force_ev_per_ang": -0.1}, "neither forces nor numbers of atoms are negative"),
        ({"max_atoms": -1}, "neither forces nor numbers of atoms are negative"),
    ],
)
def test_windows_that_hold_nothing_are_refused(wrong, says):
    with pytest.raises(ConfigError, match=says):
        Window(**wrong)


# --- energies -------------------------------------------------------------------------------------


@pytest.mark.parametrize("corrected", [True, False])
def test_the_level_a_model_was_trained_at_is_found(store, corrections, corrected):
    frames = made_frames(60)
    result = runner.energies(Softened(frames, corrected=corrected), frames, store)
    assert result.level() == ("mp2020" if corrected else "raw")
    scored = result.scored("as-trained", training_like=result, store=store)
    measured = runner.energy_mae(scored)
    assert measured.interval.estimate == pytest.approx(0.0, abs=1e-12)
    isolated = int((~result.predicted.scored).sum())
    assert measured.excluded == {"1 isolated atom": isolated}
    assert measured.absent == {"not in the file at hand": 1}
    assert isolated > 0
    assert measured.of == 61
    assert measured.quantity == "MAE of the energy"
    assert (measured.model, measured.subject) == ("softened (as-trained)", "softened")
    other = "raw" if corrected else "mp2020"
    assert result.mae_ev_per_atom(other) > 0.1
    assert scored.without_group_ev_per_atom == ()


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


@pytest.mark.parametrize("own", [True, False])
def test_a_refit_carries_its_own_error(store, corrections, own):
    """As many fits as there are parts, each without one of them, and without the frame itself."""
    like, unlike = made_frames(60, seed=7, name="like"), made_frames(40, seed=8, name="unlike")
    model = Softened(like, unlike, corrected=True)
    training = runner.energies(model, like, store)
    draw = np.random.default_rng(0).normal(0, 0.1, len(like))
    energy = training.predicted.energy + draw
    training = replace(training, predicted=replace(training.predicted, energy=energy))
    asked = training if own else runner.energies(model, unlike, store)
    scored = asked.scored("refit", training_like=training, store=store, folds=4)
    others = scored.without_group_ev_per_atom
    assert len(others) == 4
    assert all(np.abs(other - scored.predicted_ev_per_atom).max() > 1e-3 for other in others)
    measured = runner.energy_mae(scored).interval
    assert "with the refit's own error, 4 groups" in measured.method
    plain = replace(scored, without_group_ev_per_atom=()).mae().interval
    assert measured.resolution > plain.resolution
    # by hand: the table of all training frames but one part, taken off
    keep, parts = asked.predicted.scored, training._parts(4)
    fractions = asked.frames.crystals.fractions()
    mine = parts[1] if own else np.ones(len(asked.frames), dtype=bool)
    used = training.predicted.scored & ~parts[2] & (~parts[1] if own else True)
    table = runner.refit_once(
        store,
        training.predicted.energy[used],
        training.reference_ev_per_atom("mp2020")[used],
        training.frames.crystals.compositions()[used],
    )
    by_hand = asked.predicted.energy - fractions @ np.nan_to_num(table.energies_ev_per_atom)
    np.testing.assert_allclose(others[2][mine[keep]], by_hand[mine & keep], atol=1e-12)


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
    assert measured.absent == {LEFT_OUT: 30, "not in the file at hand": 1}
    isolated = int((~result.predicted.scored).sum())
    assert measured.excluded == ({"1 isolated atom": isolated} if isolated else {})
    assert measured.scored == 10 - isolated
    assert measured.of == 41
    again = runner.energies(Softened(frames), frames, store, max_frames=10)
    assert (
        again.frames.ids.tolist()
        == result.frames.ids.tolist()
        == sorted(result.frames.ids, key=lambda name: int(name.split("-")[1]))
    )
    other = runner.energies(Softened(frames), frames, store, max_frames=10, seed=1)
    assert other.frames.ids.tolist() != result.frames.ids.tolist()
    whole = runner.energies(Softened(frames), frames, store, max_frames=40)
    assert len(whole.frames) == 40
    assert whole.absent == {"not in the file at hand": 1}
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


def test_frames_refuse_columns_that_do_not_fit():
    frames = made_frames()
    with pytest.raises(DataError, match="stress_gpa has shape"):
        replace(frames, stress_gpa=frames.stress_gpa[:-1])
    broken = frames.forces_ev_per_ang.copy()
    broken[frames.crystals.atom_slice(1)] = np.nan
    with pytest.raises(DataError, match=r"frame 1 \(made-1\): forces_ev_per_ang is not finite"):
        replace(frames, forces_ev_per_ang=broken)
