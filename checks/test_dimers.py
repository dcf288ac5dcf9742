"""Claims about dimers: two atoms alone, from hard compression to far apart.

Yours to change: the regions, the bound with its reason, the elements drawn.
Lives elsewhere: regions and slopes (harness/runners/dimers), DFT's curves (harness/data/frames),
the figure (harness/plots/dimers).
"""

import numpy as np
import pytest

from harness.claims import below
from harness.data.frames import load_dimers
from harness.plots import dimer_curves
from harness.runners import dimers as runner

pytestmark = [pytest.mark.fold0, pytest.mark.nightly]

# Chosen before any model was run, for their bonds: hydrogen; single to triple bonds of the second
# row; an alkali metal; p metals, a semiconductor and a halogen; d metals with and without spin; and
# a noble gas, which PBE hardly binds.
SHOWN = ("H", "C", "N", "O", "F", "Na", "Al", "Si", "Cl", "Ar", "Fe", "Cu", "Mo", "W", "Pb")

in_each_region = pytest.mark.parametrize("region", runner.REGIONS)


@pytest.fixture(scope="module")
def scan(model, store, progress):
    """Every point of every PBE curve, predicted."""
    return runner.run(model, load_dimers("PBE"), store, progress=progress)


@pytest.mark.claim(
    id="softening.dimers",
    statement="Potentials trained near equilibrium are soft for dimers too: the slope of their "
    "forces on PBE's is below 0.95 on the repulsive wall, about the minimum, and where the dimer "
    "dissociates.",
    basis="founding note on softening. A dimer is a molecule, far from any crystal, and its DFT "
    "curve is the lowest of several spin states: this is about extrapolation, and says nothing of "
    "molecules a potential was made for. Lanthanides whose DFT curve jumps between states, and "
    "elements without a crystal in the Materials Project, are left out and counted; so are points "
    "beyond the potential's cutoff, where it sees isolated atoms",
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
        dimers = scan.dimers
        curves = {
            symbol: (dimers.distance_ang[s], dimers.energy_ev[s], scan.energy_ev[s])
            for symbol in SHOWN
            if symbol in dimers.symbols
            for s in [dimers.points(dimers.symbols.index(symbol))]
        }
        evidence.figure(
            "curves",
            dimer_curves(curves, near_r_min=scan.config.equilibrium_r_min, model=scan.model),
        )
    assert evidence(scan.slope(region)).held


@pytest.mark.control(of="softening.dimers", fault="PBE's forces times 0.98")
@in_each_region
def test_dimers_softer_by_two_percent_are_not_soft_enough(region, evidence):
    slightly = runner.posed(load_dimers("PBE"), lambda dft: 0.98 * dft, model="DFT x 0.98")
    assert evidence(slightly.slope(region)).refuted


@pytest.mark.control(of="softening.dimers", fault="PBE's forces, each with an error of 5 %")
@in_each_region
def test_errors_without_bias_are_not_softening(region, evidence):
    sign = np.random.default_rng(0).choice([-1, 1], size=len(load_dimers("PBE").distance_ang))
    noisy = runner.posed(load_dimers("PBE"), lambda dft: dft * (1 + 0.05 * sign), model="DFT +-5 %")
    assert evidence(noisy.slope(region)).refuted
