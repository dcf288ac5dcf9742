"""Claims about dimers: two atoms alone, from hard compression to far apart.

Yours to change: the regions, the bounds with their reasons, the elements drawn.
Lives elsewhere: regions and slopes (harness/runners/dimers), DFT's curves (harness/data/frames),
the figure (harness/plots/dimers).
"""

import numpy as np
import pytest

from harness.claims import Kind, Meaning, below, between
from harness.data.frames import load_dimers
from harness.plots import dimer_curves
from harness.runners import dimers as runner

pytestmark = [pytest.mark.fold0, pytest.mark.nightly]

# Chosen before any model was run, for their bonds: hydrogen; single to triple bonds of the second
# row; an alkali metal; p metals, a semiconductor and a halogen; d metals with and without spin; and
# a noble gas, which PBE hardly binds.
SHOWN = ("H", "C", "N", "O", "F", "Na", "Al", "Si", "Cl", "Ar", "Fe", "Cu", "Mo", "W", "Pb")

LEAST_COVERAGE = 0.9  # of the points: those a potential cannot score are no part of its slope
OUTSIDE = (
    "A dimer is a molecule, far from any crystal, and its DFT curve is the lowest of several spin "
    "states: this is about extrapolation, and says nothing of molecules a potential was made for. "
    "Lanthanides whose DFT curve jumps between states, and elements without a crystal in the "
    "Materials Project, are left out and counted; so are points beyond the potential's cutoff, "
    "where it sees isolated atoms"
)

in_each_region = pytest.mark.parametrize("region", runner.REGIONS)


@pytest.fixture(scope="module")
def scan(model, store, progress):
    """Every point of every PBE curve, predicted."""
    return runner.run(model, load_dimers("PBE"), store, progress=progress)


def curves_figure(scan):
    dimers = scan.dimers
    curves = {
        symbol: (dimers.distance_ang[s], dimers.energy_ev[s], scan.energy_ev[s])
        for symbol in SHOWN
        if symbol in dimers.symbols
        for s in [dimers.points(dimers.symbols.index(symbol))]
    }
    return dimer_curves(curves, near_r_min=scan.config.equilibrium_r_min, model=scan.model)


@pytest.mark.claim(
    id="softening.dimers",
    kind=Kind.FINDING,
    meaning=Meaning.WEAKNESS,
    cases="all",
    least_coverage=LEAST_COVERAGE,
    statement="Potentials trained near equilibrium are soft for dimers too: the slope of an "
    "element's forces on PBE's, median over elements, is below 0.95 on the repulsive wall, about "
    "the minimum, and where the dimer dissociates. A median, for a slope over the points of all "
    "elements together is decided by the few with the largest forces.",
    basis=f"founding note on softening. {OUTSIDE}",
    bound=below(
        0.95,
        "",
        reason="the bound of softening.force-slope, for the two are the same quantity on the same "
        "theory; the grid of distances and other VASP potentials move it by a percent or two",
    ),
)
@in_each_region
def test_dimers_are_too_soft(scan, region, evidence):
    if region == runner.REGIONS[0]:
        evidence.figure("curves", curves_figure(scan))
    assert evidence(scan.slope(region)).held


@pytest.mark.claim(
    id="stiffness.dimers",
    kind=Kind.FINDING,
    meaning=Meaning.STRENGTH,
    cases="all",
    least_coverage=LEAST_COVERAGE,
    statement="Dimers are as stiff as PBE's: the slope of an element's forces on PBE's, median "
    "over elements, is within 10 % of one on the repulsive wall, about the minimum, and where the "
    "dimer dissociates.",
    basis=f"the acceptance twin of softening.dimers, on the same points. {OUTSIDE}",
    bound=between(
        0.9,
        1.1,
        "",
        reason="the bound of stiffness.force-slope: forces within 10 % are harmonic frequencies "
        "within 5 %, and PBE itself is off from experiment by about as much",
    ),
)
@in_each_region
def test_dimers_are_as_stiff_as_dfts(scan, region, evidence):
    assert evidence(scan.slope(region)).held


def planted(evidence, scan, region, least, largest, faulty=lambda scan: scan):
    """The subject with a share of DFT's forces added, grown from one slope towards another."""
    own = scan.slope(region).interval.estimate
    return evidence.planted(
        lambda slope: faulty(scan.stiffened(slope - own)).slope(region), least, largest
    )


def with_errors(scan):
    """An error of 5 % of DFT's on every force, its sign drawn."""
    signs = np.random.default_rng(0).choice([-1, 1], size=len(scan.force_ev_per_ang))
    return scan.with_forces(
        lambda force: force + 0.05 * signs * scan.dimers.force_ev_per_ang,
        name=f"{scan.model}, with errors",
    )


@pytest.mark.control(
    of="softening.dimers", fault="the subject's forces and a share of PBE's: not too small"
)
@in_each_region
def test_dimers_that_are_not_too_soft_are_told(scan, region, evidence):
    assert planted(evidence, scan, region, 0.5, 2.0).refuted


@pytest.mark.control(
    of="softening.dimers", fault="the same with an error of 5 % on each force, without bias"
)
@in_each_region
def test_errors_without_bias_are_not_softening(scan, region, evidence):
    assert planted(evidence, scan, region, 0.5, 2.0, with_errors).refuted


@pytest.mark.control(
    of="stiffness.dimers", fault="the subject's forces brought to PBE's size, then too small"
)
@in_each_region
def test_dimers_that_are_too_soft_are_not_accepted(scan, region, evidence):
    assert planted(evidence, scan, region, 1.0, 0.2).refuted
