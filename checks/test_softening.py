"""Claims about softening: potentials that know equilibrium well and err away from it.

Yours to change: volumes, amplitudes and the label, the bounds with their reasons.
Lives elsewhere: what is compared (harness/runners/softening), the toy (harness/runners/
toy_softening, harness/models/morse), the DFT set (fixtures/dft), figures (harness/plots).

The reference is the project's own PBE: not spin-polarised, no +U, no energy correction. Only
energy differences along one curve and forces are compared. MP2020's corrections depend on
composition alone and drop out of both; no crystal in the set is magnetic, and none is of those
whose elements the Materials Project computes with +U (transition metals in oxides and fluorides).

What the ratio of energy errors can show, and what not: energies rise steeply away from V0, so a
potential whose error is the same share of that rise everywhere has a ratio far above ten. The
number it would have stands beside each ratio. Whether a potential is too soft is asked by
`softening.dft`.
"""

from dataclasses import replace

import numpy as np
import pytest

from harness.claims import above, below, between
from harness.data.dft import load_dft
from harness.plots import (
    equations_of_state,
    fit_in_window,
    force_parity,
    parity,
    slope_curves,
)
from harness.runners import softening, toy_softening
from harness.runners.toy_softening import ToySoftening

pytestmark = [pytest.mark.fold0, pytest.mark.nightly]

SOFT_BELOW = 0.95
FIX_WINDOW = (0.9, 1.1)
N_PANELS = 9  # equations of state shown: the first of each structure type, then the next of each
FIGURE_NOISE_EV = 0.02  # the toy's labels in its figure

# At 0.4 Å the forces are those of the closest pairs, far up the wall between two atoms; that is
# another question than the curvature at equilibrium, and it is asked beside the others.
FORCE_CASES = {f"force-slope-{a:g}": a for a in (0.05, 0.1, 0.2, 0.4)}
SIDES = {"energy-compressed": "compressed", "energy-expanded": "expanded"}


# --- the toy: a Morse curve learnt near its minimum


TOY_WIDTHS = {
    "stated": (1.0,),  # 0.95 to 1.30 r0, as the note has it
    "all": None,  # also windows half as wide and half as wide again
}


@pytest.fixture(scope="module")
def toy():
    return toy_softening.run()


def toy_figure(result):
    i, j = result.config.widths.index(1.0), result.config.noises_ev.index(FIGURE_NOISE_EV)
    return fit_in_window(
        result.grid_ang,
        result.truth_ev,
        result.fits_ev[i, j, :12],
        points=(result.points_ang[i, j, 0], result.labels_ev[i, j, 0]),
        window_ang=result.config.window_ang(),
        title=f"a Morse curve learnt near its minimum, labels with {FIGURE_NOISE_EV:g} eV of noise",
    )


@pytest.mark.claim(
    id="softening.morse",
    statement="A curve learnt near its minimum is ten times as wrong outside the window it was "
    "learnt in, or more, at every noise level tried. Inside and outside are root mean square "
    "errors; one inside counts as a hundredth of the depth at least. Too small a force is not "
    "implied: the slopes of the forces on either side are in the details.",
    basis="founding note on softening: Morse curve of depth 1 eV, a = 1.7 /Å, r0 = 1.1 Å, learnt "
    "from 0.95 to 1.30 r0 by ridge regression on Gaussians",
    bound=above(
        10.0,
        "",
        reason="what the founding note states; with the floor it also means an error outside of "
        "at least a tenth of the depth",
    ),
)
@pytest.mark.parametrize("widths", TOY_WIDTHS)
def test_a_curve_learnt_near_its_minimum_is_wrong_outside(toy, widths, evidence):
    evidence.figure("fit", toy_figure(toy))
    assert evidence(toy.smallest_ratio(TOY_WIDTHS[widths])).held


@pytest.mark.control(of="softening.morse", fault="trained over the whole range, with noise")
def test_training_everywhere_is_not_wrong_outside(evidence):
    everywhere = toy_softening.run(ToySoftening(trained_on="whole", noises_ev=(0.02, 0.05)))
    assert evidence(everywhere.smallest_ratio()).refuted


@pytest.mark.control(
    of="softening.morse", fault="every error a fifth of what it was, inside and outside"
)
def test_a_good_fit_does_not_win_by_its_denominator(toy, evidence):
    better = replace(toy, fits_ev=toy.truth_ev + (toy.fits_ev - toy.truth_ev) / 5)
    assert evidence(better.smallest_ratio()).refuted


# --- the subject against DFT: energies over volume


@pytest.fixture(scope="module")
def dft():
    return load_dft()


@pytest.fixture(scope="module")
def curves(model, store, dft, progress):
    return softening.curves(model, store, dft, progress=progress)


def curves_figure(result, origin="v0"):
    shown = [c for c in result.one_per_prototype(N_PANELS) if not c.missing([], origin)]
    return equations_of_state(
        [(c.crystal, c.v_over_v0, *c.rises(origin)) for c in shown],
        near=(min(result.config.near), max(result.config.near)),
        names=("DFT (PBE)", result.model),
        origin="E(V0)" if origin == "v0" else "own minimum",
        title=f"{result.model} against DFT, the first crystals of each structure type",
    )


@pytest.mark.claim(
    id="softening.error-ratio",
    statement="Errors of E(V) far from V0 (0.7, 0.8, 1.3, 1.6 V0) are more than ten times those "
    "near it (0.95, 1.05 V0): of the same geometries (case v0), and with energies and volumes "
    "counted from each method's own minimum (case minimum). This says how errors grow, not that "
    "the potential is too soft: one with the same relative error at every volume scores the null "
    "given in the details, which is far above ten too. A ratio below its null says that relative "
    "errors fall away from V0.",
    basis="founding note on softening, its toy's ratio taken over to a real potential",
    bound=above(10.0, "", reason="what the founding note states for its toy"),
)
@pytest.mark.parametrize("origin", ["v0", "minimum"])
def test_energy_errors_grow_tenfold_away_from_equilibrium(curves, origin, evidence):
    evidence.figure("curves", curves_figure(curves, origin))
    assert evidence(curves.error_ratio(origin), by_volume=curves.by_volume(origin)).held


@pytest.mark.control(of="softening.error-ratio", fault="DFT with noise of one size at every volume")
def test_errors_of_one_size_are_not_growing(curves, evidence):
    draw = np.random.default_rng(0)
    noisy = curves.with_model(
        lambda c: c.dft_ev_per_atom + 0.005 * draw.standard_normal(len(c.v_over_v0)),
        name="DFT with noise of 5 meV/atom",
    )
    assert evidence(noisy.error_ratio("v0")).refuted


@pytest.mark.control(
    of="softening.error-ratio", fault="DFT with errors five times as large far from V0 as near it"
)
def test_errors_that_grow_fivefold_do_not_count_as_tenfold(curves, evidence):
    signs = np.random.default_rng(0)

    def fivefold(curve):
        far = np.abs(curve.v_over_v0 - 1) > 0.15
        error = np.where(far, 0.010, 0.002) * (np.abs(curve.v_over_v0 - 1) > 1e-6)
        return curve.dft_ev_per_atom + error * signs.choice([-1, 1], len(error))

    grown = curves.with_model(fivefold, name="DFT with errors of 2 and 10 meV/atom")
    assert evidence(grown.error_ratio("v0")).refuted


# --- the subject against DFT: is it too soft?


@pytest.fixture(scope="module")
def forces(model, store, dft, progress):
    return softening.forces(model, store, dft, progress=progress)


too_soft = pytest.mark.claim(
    id="softening.dft",
    statement="Away from equilibrium the potential is too soft: it gives too small a share of "
    "DFT's forces on displaced atoms (slope through the origin, all crystals pooled, at rms "
    "displacements of 0.05, 0.1, 0.2 and 0.4 Å), of its bulk moduli, and of its rise in energy "
    "on compression (0.7, 0.8 V0) and expansion (1.3, 1.6 V0) (means over crystals).",
    basis="B. Deng et al., npj Comput. Mater. 11, 9 (2025), 'Systematic softening in universal "
    "machine learning interatomic potentials': forces underpredicted away from equilibrium by "
    "potentials trained on relaxations, CHGNet among them",
    bound=below(
        SOFT_BELOW,
        "",
        reason="5 % is more than the reference itself may be off: its B0 differs from all-electron "
        "PBE by 1.3 % on average and 3.1 % at most, denser settings move forces by less than 2 %, "
        "and other codes' setups move a mean over crystals by less than that",
    ),
)


def slopes_figure(result):
    pooled = []
    for amplitude in result.amplitudes_ang:
        interval = result.slope(amplitude).interval
        pooled.append((amplitude, interval.estimate, interval.low, interval.high))
    return slope_curves(
        result.slopes(), pooled, bound=SOFT_BELOW, title=f"{result.model}: force slope against DFT"
    )


def rises_figure(result):
    keys = ("v_over_v0", "rise_over_dft", "rise_low", "rise_high")
    far = [row for row in result.by_volume("v0") if "rise_over_dft" in row]
    return slope_curves(
        result.rises_over_dft(),
        [tuple(row[key] for key in keys) for row in far],
        bound=SOFT_BELOW,
        x_label="V / V0",
        y_label="rise of the energy from V0, predicted over DFT",
        title=f"{result.model}: energies far from equilibrium",
    )


@too_soft
@pytest.mark.parametrize("case", FORCE_CASES)
def test_forces_on_displaced_atoms_are_too_small(forces, case, evidence):
    amplitude = FORCE_CASES[case]
    measured = forces.slope(amplitude)
    found = measured.interval
    reference, predicted, names = forces.components(amplitude)
    evidence.figure(
        "parity",
        force_parity(
            reference,
            predicted,
            slope=(found.estimate, found.low, found.high),
            names=names,
            title=f"{forces.model}: atoms displaced by {amplitude:g} Å (rms)",
        ),
    )
    evidence.figure("slopes", slopes_figure(forces))
    assert evidence(measured).held


@too_soft
@pytest.mark.parametrize("case", ["bulk-modulus"])
def test_bulk_moduli_are_too_small(curves, case, evidence):
    measured = curves.bulk_modulus_ratio()
    rows = measured.details["crystals"]
    evidence.figure(
        "parity",
        parity(
            np.array([row["dft_b0_gpa"] for row in rows]),
            np.array([row["b0_gpa"] for row in rows]),
            label="bulk modulus",
            unit="GPa",
            names=[row["crystal"] for row in rows],
            title=curves.model,
        ),
    )
    assert evidence(measured).held


@too_soft
@pytest.mark.parametrize("case", SIDES)
def test_energies_rise_too_little(curves, case, evidence):
    evidence.figure("rises", rises_figure(curves))
    assert evidence(curves.energy_ratio(SIDES[case])).held


@pytest.mark.control(of="softening.dft", fault="DFT's forces, 3 % too small")
def test_forces_slightly_too_small_are_not_softening(forces, evidence):
    scaled = forces.with_model(lambda c: 0.97 * c.dft_ev_per_ang, name="0.97 DFT")
    assert evidence(scaled.slope(0.1)).refuted


@pytest.mark.control(of="softening.dft", fault="DFT's forces with unbiased noise of 10 %")
def test_noise_on_forces_is_not_softening(forces, evidence):
    draw = np.random.default_rng(0)

    def noisy(crystal):
        true = crystal.dft_ev_per_ang
        sizes = np.sqrt(np.mean(true**2, axis=(1, 2), keepdims=True))
        return true + 0.1 * sizes * draw.standard_normal(true.shape)

    assert evidence(forces.with_model(noisy, name="DFT with noise").slope(0.1)).refuted


@pytest.mark.control(of="softening.dft", fault="DFT's energies, rising 3 % too little")
def test_energies_slightly_too_flat_are_not_softening(curves, evidence):
    scaled = curves.with_model(lambda c: 0.97 * c.dft_ev_per_atom, name="0.97 DFT")
    assert evidence(scaled.bulk_modulus_ratio()).refuted


@pytest.mark.control(of="softening.dft", fault="DFT's energies with unbiased noise of 2 %")
def test_noise_on_energies_is_not_softening(curves, evidence):
    draw = np.random.default_rng(0)

    def noisy(curve):
        rise = curve.dft_ev_per_atom
        return rise * (1 + 0.02 * draw.standard_normal(len(rise)))

    assert evidence(
        curves.with_model(noisy, name="DFT with noise").energy_ratio("expanded")
    ).refuted


# --- one label restores the slope


@pytest.mark.claim(
    id="softening.one-label-fix",
    statement="Dividing all forces of a crystal by one number, the force slope on one displaced "
    "cell (0.1 Å, seed 0), restores the slope on its other cells up to 0.2 Å: along the same "
    "direction at other amplitudes, and along other directions. The slope is what is restored; by "
    "how much the error falls stands in the details.",
    basis="B. Deng et al., npj Comput. Mater. 11, 9 (2025): softening is systematic, and a single "
    "label corrects it (force slope of CHGNet 0.965 afterwards)",
    bound=between(
        *FIX_WINDOW,
        "",
        reason="the published slope after the fix, 0.965, with its own distance from 1 three "
        "times over: the reference differs, and the amplitudes are not those of the paper",
    ),
)
@pytest.mark.parametrize("others", ["other-amplitudes", "other-directions"])
def test_one_label_restores_the_force_slope(forces, others, evidence):
    assert evidence(forces.one_label_fix(others)).held


@pytest.mark.control(of="softening.one-label-fix", fault="forces 15 % too small, and no label used")
def test_forces_left_as_they_are_stay_too_small(forces, evidence):
    soft = forces.with_model(
        # the label's own configuration is right, so its slope corrects nothing
        lambda c: np.where(label_of(c)[:, None, None], 1.0, 0.85) * c.dft_ev_per_ang,
        name="0.85 DFT, label at 1",
    )
    assert evidence(soft.one_label_fix("other-amplitudes")).refuted


@pytest.mark.control(
    of="softening.one-label-fix",
    fault="forces 15 % too small, corrected by an exact crystal's label",
)
def test_another_crystals_label_does_not_correct(forces, evidence):
    # The crystal with the weakest forces, so that those it is no label for decide the slope.
    donor = min(forces.crystals, key=lambda c: float(np.square(c.dft_ev_per_ang).mean())).crystal
    soft = forces.with_model(
        lambda c: (1.0 if c.crystal == donor else 0.85) * c.dft_ev_per_ang, name="0.85 DFT"
    )
    assert evidence(soft.one_label_fix("other-amplitudes", donor=donor)).refuted


def label_of(crystal):
    """(k,) bool: the configuration that the label is fitted on."""
    config = softening.Softening()
    same = crystal.rows(config.label_amplitude_ang, config.label_seed)
    return np.isin(np.arange(len(crystal.seeds)), same)
