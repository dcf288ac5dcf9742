"""Claims about relaxed geometries: volumes and bond lengths against a reference method's.

Yours to change: where relaxations start and when they count as done, the bounds with their reasons;
and the reference itself, with `--reference FILE` (docs/relaxation.md).
Lives elsewhere: the relaxation and what is compared (harness/runners/relax), the project's own DFT
(fixtures/dft), files of your own (harness/data/reference_files), the figure (harness/plots).

Every crystal starts from its reference geometry with its volume enlarged by 6 %, sheared and
rattled, so that doing nothing is refuted. What the claims can show: that the potential has a
minimum where the reference method has one, close to where one starts. They do not look for other
minima; where a crystal leaves its structure on the way, the bonds it had are compared, and the
details name it. In the project's own set, simple crystals without free internal coordinates, the
volume is most of what there is to see.
"""

from dataclasses import replace

import numpy as np
import pytest

from harness.claims import above, below
from harness.data.dft import load_dft
from harness.data.reference_files import dft_minima
from harness.plots import relaxation_errors
from harness.runners import relax
from harness.runners.relax import Relax

pytestmark = [pytest.mark.fold0, pytest.mark.nightly]

MOST_VOLUME_ERROR = 0.03
MOST_BOND_ERROR = 0.01
SETTINGS = Relax()


def pytest_generate_tests(metafunc):
    """The project's own DFT always, a file of the user's where one is given."""
    if "against" in metafunc.fixturenames:
        own = metafunc.config.getoption("--reference") is not None
        metafunc.parametrize("against", ["dft", "own"] if own else ["dft"], scope="module")


@pytest.fixture(scope="module")
def relaxed(request, against, model, store, progress):
    """The reference's crystals, relaxed with the subject."""
    if against == "own":
        reference = request.getfixturevalue("own_reference")
    else:
        reference = dft_minima(load_dft())
    return relax.run(model, reference, store, SETTINGS, progress)


@pytest.mark.claim(
    id="relax.geometry-converges",
    statement="Nearly every crystal relaxes: forces and stress vanish within 200 steps.",
    basis="a crystal that does not relax has no geometry to compare, and leaving it out must not "
    "make the others look good",
    bound=above(0.95, "", reason="of forty crystals one may fail; it is named in the details"),
)
def test_crystals_relax(relaxed, evidence):
    assert evidence(relaxed.converged()).held


@pytest.mark.control(of="relax.geometry-converges", fault="three steps and no more")
def test_an_optimiser_stopped_early_has_not_converged(relaxed, model, store, evidence):
    early = relax.run(model, relaxed.reference, store, replace(SETTINGS, max_steps=3))
    assert evidence(early.converged()).refuted


@pytest.mark.claim(
    id="relax.geometry-volume",
    statement="Relaxed volumes are the reference's within 3 %, on average over crystals.",
    basis="founding note on CHGNet: relaxed geometries against one's own DFT",
    bound=below(
        MOST_VOLUME_ERROR,
        "",
        reason="1 % in length, to first order: see the bond lengths. The reference itself is known "
        "to 0.2 % in length (fixtures/dft/README.md, against other PBE codes)",
    ),
)
def test_relaxed_volumes_are_the_references(relaxed, evidence):
    figure = relaxation_errors(
        relaxed.names,
        relaxed.volume_ratio,
        np.array([ratios.mean() for ratios in relaxed.bond_ratios]),
        in_other_structures=relaxed.in_other_structures,
        bounds=(MOST_VOLUME_ERROR, MOST_BOND_ERROR),
        title=f"{relaxed.model} against {relaxed.reference.source}",
    )
    evidence.figure("crystals", figure)
    assert evidence(relaxed.volume_error()).held


@pytest.mark.control(of="relax.geometry-volume", fault="the optimiser stops at step 0")
def test_unrelaxed_volumes_are_noticed(relaxed, evidence):
    assert evidence(relaxed.at_start().volume_error()).refuted


@pytest.mark.control(of="relax.geometry-volume", fault="a reference with lengths 4 % longer")
def test_volumes_of_another_reference_are_noticed(relaxed, evidence):
    other = relaxed.against(relaxed.reference.scaled(1.04))
    assert evidence(other.volume_error()).refuted


@pytest.mark.claim(
    id="relax.geometry-bond-length",
    statement="Relaxed bond lengths are the reference's within 1 %, on average over crystals.",
    basis="founding note on CHGNet: relaxed geometries against one's own DFT",
    bound=below(
        MOST_BOND_ERROR,
        "",
        reason="PBE's own lattice constants are 1.2 % off experiment on average (44 solids, "
        "F. Tran et al., J. Chem. Phys. 144, 204120 (2016)): a potential of PBE must be nearer to "
        "PBE than PBE is to nature, or the functional no longer matters",
    ),
)
def test_relaxed_bond_lengths_are_the_references(relaxed, evidence):
    assert evidence(relaxed.bond_length_error()).held


@pytest.mark.control(of="relax.geometry-bond-length", fault="the optimiser stops at step 0")
def test_unrelaxed_bond_lengths_are_noticed(relaxed, evidence):
    assert evidence(relaxed.at_start().bond_length_error()).refuted


@pytest.mark.control(of="relax.geometry-bond-length", fault="a reference with lengths 4 % longer")
def test_bond_lengths_of_another_reference_are_noticed(relaxed, evidence):
    other = relaxed.against(relaxed.reference.scaled(1.04))
    assert evidence(other.bond_length_error()).refuted
