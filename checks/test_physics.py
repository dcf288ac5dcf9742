"""Claims about physics that any potential must obey, on crystals nobody chose.

Yours to change: what is allowed, with its reason; how many crystals; the planted faults.
Lives elsewhere: the laws, the search and how a fault is sized (harness/runners/physics), how
crystals are drawn (harness/data/random_crystals, harness/data/random_forms), figures
(harness/plots).

hypothesis draws the crystals: elements of those the subject declares, any cell, distances from a
fifth below to a fifth above the sum of the atoms' radii. A law holds for every crystal, so one on
which it is broken beyond what numerics may move refutes it; hypothesis then makes the crystal as
small as it can, and the evidence holds it. Where none breaks it, the claim is about how many might:
so few were drawn that only a share of them can be excluded. These claims need no reference data and
say nothing about accuracy.
"""

import hashlib
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from harness.claims import Kind, Size, below
from harness.data.units import GPA_PER_EV_ANG3
from harness.errors import CannotResolve, NotAvailable
from harness.models.cards import UNDECLARED
from harness.plots import breaches, jump_scan
from harness.runners import physics
from harness.runners.physics import Allowance, Fault, Faulty, Remembering, Search, sized

pytestmark = [pytest.mark.fold0, pytest.mark.nightly]

# What such a claim says beyond its law, and the bound that goes with it: 36 crystals without a
# breach exclude one in ten at 97.5 %, 13 exclude one in four.
ONE_IN_TEN = "No crystal drawn breaks this; at 97.5 % fewer than one in ten so drawn does."
ONE_IN_FOUR = "No crystal drawn breaks this; at 97.5 % fewer than one in four so drawn does."

# Two ways to compute one thing. float32 carries 6e-8 of a number; sums over some hundred terms, a
# hundred times as large as what is left of them, keep 1e-5 of it: 1e-4 eV/atom of 10. Features of
# a network vary within 0.1 Å, so a slope keeps a tenth of that.
ROUNDING = {
    "energy": Allowance(value=1e-4, typical=10.0, unit="eV/atom"),
    "forces": Allowance(value=1e-3, typical=10.0, unit="eV/Å"),
    "stress": Allowance(value=1e-2, typical=100.0, unit="GPa"),
}
same_to_rounding = below(
    0.1,
    "",
    reason="of crystals so drawn, which 36 without a breach exclude at 97.5 %; one breach refutes. "
    "A breach is more than float32 leaves: 1e-5 of energies (or of 10 eV/atom where that is more), "
    "1e-4 of forces (10 eV/Å) and of stress (100 GPa); phases are told apart at ten times that",
)

# Differences of float32 energies, good to 1e-6 eV/atom: 2e-3 eV/Å over 0.0015 Å in ten atoms, 0.05
# GPa over a strain of 0.0003 at 10 Å³ an atom.
DIFFERENCES = {
    "forces": Allowance(value=1e-2, typical=10.0, unit="eV/Å"),
    "stress": Allowance(value=1e-1, typical=100.0, unit="GPa"),
}
same_as_differences = below(
    0.1,
    "",
    reason="of crystals so drawn, which 36 without a breach exclude at 97.5 %; one breach refutes. "
    "A breach is 1e-3 of the largest force (or of 10 eV/Å) or stress (100 GPa): differences of "
    "float32 energies are good to a fifth of it in forces and to half in stress, and a crystal on "
    "which three extrapolations of the difference are further apart than half of it is excluded",
)

OUTPUTS = {"outputs": Allowance(value=1.0, typical=1.0, unit="crystal")}

each_property = pytest.mark.parametrize("name", ROUNDING)


@dataclass(frozen=True)
class Sizes:
    """How many crystals a session affords."""

    two_forms: Search
    differences: Search  # 24 energies for a force, 48 for a stress
    scans: Search  # some 400 crystals each


# 36 are to be left of 48 crystals and 13 of 18 stacks, of which some are alike (the fewer elements
# a subject knows, the more) and some too rough for a difference.
QUICK = Sizes(
    two_forms=Search(n_examples=48),
    differences=Search(n_examples=48),
    scans=Search(n_examples=18, n_shrinks=15),
)
NIGHTLY = Sizes(
    two_forms=Search(n_examples=200),
    differences=Search(n_examples=100),
    scans=Search(n_examples=40, n_shrinks=30),
)


@pytest.fixture(scope="module")
def sizes(size):
    return NIGHTLY if size == Size.NIGHTLY else QUICK


@pytest.fixture(scope="module")
def subject(model):
    """The model, which remembers: controls meet the crystals that the claims met."""
    return Remembering(model)


@pytest.fixture(scope="module")
def breach(subject, store, sizes, progress):
    """How one law fares on the crystals drawn, of the subject or of one with a planted fault."""

    def of(procedure, allowed, fault=None):
        search = {"smoothness": sizes.scans, "forces": sizes.differences}.get(
            procedure, sizes.differences if procedure == "stress" else sizes.two_forms
        )
        if fault is None:
            return physics.run(procedure, subject, store, allowed, search, progress)
        faulty, search = Faulty(subject, fault), replace(search, n_shrinks=0)
        return physics.run(procedure, faulty, store, allowed, search, progress)

    return of


# --- one crystal, written down in two ways


@pytest.mark.claim(
    id="physics.extensive",
    statement="A crystal has one energy per atom, one stress and the same forces, whichever of its "
    f"cells is given: larger, of another shape, skewed. {ONE_IN_TEN}",
    basis="a cell is a choice of description; energies are extensive",
    bound=same_to_rounding,
    kind=Kind.INTEGRITY,
)
@each_property
def test_energy_is_extensive(breach, name, evidence):
    found = breach("extensivity", ROUNDING)
    measurement = found.measurement(name)
    evidence.figure("breaches", breaches(found.shares[name], title=f"supercells: {name}"))
    assert evidence(measurement).held


@pytest.mark.claim(
    id="physics.translation",
    statement="Nothing changes when a crystal is moved, or an atom of it by a lattice vector. "
    f"{ONE_IN_TEN}",
    basis="space is homogeneous, and a crystal is periodic",
    bound=same_to_rounding,
    kind=Kind.INTEGRITY,
)
@each_property
def test_moving_a_crystal_changes_nothing(breach, name, evidence):
    found = breach("translation", ROUNDING)
    measurement = found.measurement(name)
    evidence.figure("breaches", breaches(found.shares[name], title=f"translation: {name}"))
    assert evidence(measurement).held


@pytest.mark.claim(
    id="physics.rotation",
    statement="When a crystal is turned or mirrored, its energy stays, and forces and stress turn "
    f"with it. {ONE_IN_TEN}",
    basis="space is isotropic, and electrons and nuclei know no left from right",
    bound=same_to_rounding,
    kind=Kind.INTEGRITY,
)
@each_property
def test_forces_and_stress_turn_with_the_crystal(breach, name, evidence):
    found = breach("rotation", ROUNDING)
    measurement = found.measurement(name)
    evidence.figure("breaches", breaches(found.shares[name], title=f"rotation: {name}"))
    assert evidence(measurement).held


@pytest.mark.claim(
    id="physics.permutation",
    statement="The order in which atoms are listed does not matter: energy and stress stay, each "
    f"atom keeps its force. {ONE_IN_TEN}",
    basis="like nuclei are indistinguishable, and a list has no physics",
    bound=same_to_rounding,
    kind=Kind.INTEGRITY,
)
@each_property
def test_the_order_of_atoms_does_not_matter(breach, name, evidence):
    found = breach("permutation", ROUNDING)
    measurement = found.measurement(name)
    evidence.figure("breaches", breaches(found.shares[name], title=f"permutation: {name}"))
    assert evidence(measurement).held


@pytest.mark.claim(
    id="physics.batched",
    statement=f"A crystal gets the same numbers in the company of others as alone. {ONE_IN_TEN}",
    basis="crystals in one batch do not touch; sums over a batch can slip by a row",
    bound=same_to_rounding,
    kind=Kind.INTEGRITY,
)
@each_property
def test_a_batch_gives_what_each_crystal_gives_alone(breach, name, evidence):
    found = breach("batching", ROUNDING)
    measurement = found.measurement(name)
    evidence.figure("breaches", breaches(found.shares[name], title=f"batching: {name}"))
    assert evidence(measurement).held


# --- forces and stress are derivatives of the energy


@pytest.mark.claim(
    id="physics.forces",
    statement=f"Forces are minus the gradient of the energy. {ONE_IN_TEN}",
    basis="definition; without it molecular dynamics does not keep the energy, and relaxations "
    "end where the energy is not lowest",
    bound=same_as_differences,
    kind=Kind.INTEGRITY,
)
def test_forces_are_minus_the_gradient(breach, evidence):
    found = breach("forces", {"forces": DIFFERENCES["forces"]})
    measurement = found.measurement("forces")
    evidence.figure("breaches", breaches(found.shares["forces"], title="forces"))
    assert evidence(measurement).held


@pytest.mark.claim(
    id="physics.stress",
    statement="Stress is the derivative of the energy by strain over the volume, in GPa, and "
    f"tension is positive. {ONE_IN_TEN}",
    basis="definition; O. H. Nielsen and R. M. Martin, Phys. Rev. B 32, 3780 (1985)",
    bound=same_as_differences,
    kind=Kind.INTEGRITY,
)
def test_stress_is_the_derivative_by_strain(breach, evidence):
    found = breach("stress", {"stress": DIFFERENCES["stress"]})
    measurement = found.measurement("stress")
    evidence.figure("breaches", breaches(found.shares["stress"], title="stress"))
    assert evidence(measurement).held


# --- nothing jumps


@pytest.mark.claim(
    id="physics.smooth",
    statement="Energy and forces do not jump while two layers of atoms come apart from 1.5 to 8 Å: "
    "neither where a neighbour leaves a cutoff nor where the last angle vanishes. A kink in a "
    f"force is no jump. {ONE_IN_FOUR}",
    basis="a jump in energy is work that no force accounts for; cutoffs are the usual cause",
    bound=below(
        0.25,
        "",
        reason="of stacks of layers so drawn, which 13 without a jump exclude at 97.5 %; each is "
        "some 400 crystals, so few are drawn. One jump refutes: a change over 1e-5 Å beyond that "
        "of the pieces beside it, above 1e-4 eV/atom or 1e-3 eV/Å as in the two-forms claims, is "
        "no rounding and no slope",
    ),
    kind=Kind.INTEGRITY,
)
@pytest.mark.parametrize("name", ["energy", "forces"])
def test_nothing_jumps_as_neighbours_leave(breach, model, store, name, evidence):
    found = breach("smoothness", {p: ROUNDING[p] for p in ("energy", "forces")})
    measurement = found.measurement(name)
    scan = physics.scan(model, store, found, name)
    figure = jump_scan(
        scan.distances_ang,
        scan.energies_ev_per_atom,
        scan.forces_ev_per_ang,
        jump_at_ang=scan.jump_at_ang,
        title=f"layers of {scan.layers}: largest jump of {name} {scan.jump:.2g}",
    )
    evidence.figure("scan", figure)
    assert evidence(measurement).held


# --- what is claimed is given


@pytest.mark.claim(
    id="physics.finite",
    statement="Every element the subject claims to know gets finite energies, and forces and "
    "stress where it offers them: a crystal of each, without exception, and random crystals of "
    f"several. A stated problem counts as none. {ONE_IN_TEN}",
    basis="a list of elements is a claim; a gap in it shows up in the middle of a screening",
    bound=below(
        0.1,
        "",
        reason="of elements, every one of which is asked, or of random crystals, of which 36 "
        "without a gap exclude one in ten at 97.5 %; one that is missing refutes either",
    ),
    kind=Kind.INTEGRITY,
)
@pytest.mark.parametrize("crystals", ["elements", "random"])
def test_every_declared_element_has_finite_outputs(
    subject, breach, store, progress, crystals, evidence
):
    if crystals == "elements":
        measurement = physics.elements(subject, store, progress)
    else:
        measurement = breach("finiteness", OUTPUTS).measurement("outputs")
    assert evidence(measurement).held


# What a user must know before comparing the subject's numbers with anything.
CARD = ("theory", "training_set", "energies", "source")


@pytest.fixture(scope="module")
def derivatives(breach):
    """Forces and stress beside differences of energies, of those that the subject offers."""
    found = []
    for name in DIFFERENCES:
        with suppress(NotAvailable):
            found.append(breach(name, {name: DIFFERENCES[name]}))
    return found


@pytest.fixture(scope="module")
def declared(subject, store, derivatives):
    return physics.declarations(subject, store, derivatives, CARD)


@pytest.mark.claim(
    id="physics.declares-itself",
    statement="The subject says what it was trained on, at which level of theory and what its "
    "energies contain, gives what it offers, refuses an element it does not declare, and its "
    "forces and stress are in eV/Å and GPa, tension positive.",
    basis="most wrong comparisons of potentials are of numbers that mean different things",
    bound=below(1, "declarations", reason="none may be missing, none contradicted by behaviour"),
    kind=Kind.INTEGRITY,
)
def test_the_subject_says_what_its_numbers_mean(declared, evidence):
    assert evidence(declared).held


# --- controls: the subject with one fault, on the same crystals
#
# Each fault is measured whole, and then made so small that the largest breach is about 1.4 of what
# is allowed. One that shows on no crystal drawn is not run, with that reason: atoms listed by their
# number change nothing where all are alike.

CODE = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()


@pytest.fixture
def planted(breach, evidence):
    """The record of a fault in one property, as small as the bound."""

    def of(procedure, allowed, name, fault):
        whole = replace(fault, code=CODE)
        measurement, size = sized(
            breach(procedure, allowed).measurement(name),
            lambda part: breach(procedure, allowed, whole.times(part)).measurement(name),
        )
        return evidence(measurement, size_of_fault=size)

    return of


def n_atoms(row):
    return len(row.numbers)


def first_x(row):
    return np.cos(2 * np.pi * row.frac_coords[0, 0])


def along_x(row):
    return row.lattices[0, 0, 0] / np.linalg.norm(row.lattices[0, 0])


def is_long(row):
    return float(np.linalg.norm(row.lattices[0, 2]) > 10)


X = np.array([1.0, 0.0, 0.0])
Z = np.array([0.0, 0.0, 1.0])
# Exchanges xx with zz, and yz with xy, as another order of six numbers does.
XZ = np.eye(3)[::-1]
TWO_FORMS = (
    (
        "physics.extensive",
        "extensivity",
        Fault("an energy a cell, however large", energy=lambda r, k, e: e + 5e-3 / n_atoms(r)),
        Fault(
            "forces larger with every atom of the cell",
            forces=lambda r, k, f: f * (1 + 1e-2 * n_atoms(r)),
        ),
        Fault(
            "stress larger with every atom of the cell",
            stress=lambda r, k, s: s * (1 + 1e-2 * n_atoms(r)),
        ),
    ),
    (
        "physics.translation",
        "translation",
        Fault(
            "an egg-box of energy in the first atom's position",
            energy=lambda r, k, e: e + 3e-3 * first_x(r),
        ),
        Fault("an egg-box of forces", forces=lambda r, k, f: f + 3e-2 * first_x(r) * X),
        Fault("an egg-box of stress", stress=lambda r, k, s: s + 0.3 * first_x(r) * np.eye(3)),
    ),
    (
        "physics.rotation",
        "rotation",
        Fault(
            "more energy with a first lattice vector along x than across",
            energy=lambda r, k, e: e + 3e-3 * along_x(r),
        ),
        Fault("forces larger along z", forces=lambda r, k, f: f * (1 + 0.5 * Z)),
        Fault("xx and zz mixed, yz and xy too", stress=lambda r, k, s: XZ @ s @ XZ),
    ),
    (
        "physics.permutation",
        "permutation",
        Fault(
            "an energy of the atom listed first",
            energy=lambda r, k, e: e + 3e-3 * first_x(r),
        ),
        Fault(
            "forces in part listed by atomic number",
            forces=lambda r, k, f: f[np.argsort(r.numbers, kind="stable")],
        ),
        Fault(
            "a stress of the atom listed first",
            stress=lambda r, k, s: s + 0.3 * first_x(r) * np.eye(3),
        ),
    ),
    (
        "physics.batched",
        "batching",
        Fault("an energy for each crystal of the batch", energy=lambda r, k, e: e + 1e-3 * k),
        Fault("a force for each crystal of the batch", forces=lambda r, k, f: f + 1e-2 * k * X),
        Fault("a stress for each crystal", stress=lambda r, k, s: s + 0.1 * k * np.eye(3)),
    ),
)


@pytest.mark.parametrize(
    ("procedure", "name", "fault"),
    [
        pytest.param(
            procedure,
            name,
            fault,
            id=f"{procedure}-{name}",
            marks=pytest.mark.control(of=claim, fault=fault.words),
        )
        for claim, procedure, *faults in TWO_FORMS
        for name, fault in zip(ROUNDING, faults, strict=True)
    ],
)
def test_a_difference_between_two_forms_is_noticed(planted, procedure, name, fault):
    assert planted(procedure, ROUNDING, name, fault).refuted


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        pytest.param(
            name,
            fault,
            id=f"{name}-{number}",
            marks=pytest.mark.control(of=f"physics.{name}", fault=fault.words),
        )
        for name, faults in {
            "forces": (
                Fault("forces a little weak", forces=lambda r, k, f: 0.0 * f),
                Fault("the same force on every atom", forces=lambda r, k, f: f + 0.3 * X),
            ),
            "stress": (
                Fault("stress of the other sign, in part", stress=lambda r, k, s: -s),
                Fault("the same stress on every cell", stress=lambda r, k, s: s + 3 * np.eye(3)),
            ),
        }.items()
        for number, fault in enumerate(faults)
    ],
)
def test_what_is_no_derivative_of_the_energy_is_noticed(planted, name, fault):
    assert planted(name, {name: DIFFERENCES[name]}, name, fault).refuted


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        pytest.param(
            name, fault, id=name, marks=pytest.mark.control(of="physics.smooth", fault=fault.words)
        )
        for name, fault in {
            "energy": Fault(
                "some energy vanishes when a period passes 10 Å",
                energy=lambda r, k, e: e - 5e-3 * is_long(r),
            ),
            "forces": Fault(
                "some force vanishes when a period passes 10 Å",
                forces=lambda r, k, f: f - 5e-2 * is_long(r) * Z,
            ),
        }.items()
    ],
)
def test_a_small_jump_is_noticed(planted, name, fault):
    jumps = {p: ROUNDING[p] for p in ("energy", "forces")}
    assert planted("smoothness", jumps, name, fault).refuted


@pytest.mark.control(
    of="physics.finite",
    fault="the heaviest element is not scored",
    far="an element has an energy or has none: nothing lies between",
)
def test_a_missing_element_is_noticed(subject, store, progress, evidence):
    heaviest = max(subject.card.elements or {0})
    fault = Fault(
        f"element {heaviest} is not scored", refuses=lambda r: heaviest in r.numbers, code=CODE
    )
    assert evidence(physics.elements(Faulty(subject, fault), store, progress)).refuted


@pytest.mark.control(
    of="physics.finite",
    fault="forces are not finite in cells of several atoms",
    far="a number is finite or is not: nothing lies between",
)
def test_forces_that_are_not_finite_are_noticed(breach, evidence):
    fault = Fault(
        "forces are not finite in cells of several atoms",
        forces=lambda r, k, f: f * (np.nan if n_atoms(r) > 1 else 1.0),
        code=CODE,
    )
    found = breach("finiteness", OUTPUTS, fault)
    if "forces" in found.absent:
        raise NotAvailable(f"{found.model} offers no forces: {found.absent['forces']}")
    assert evidence(found.measurement("outputs")).refuted


@pytest.fixture
def says_all(declared):
    """A subject that leaves something out already would be refuted without a fault."""
    if wrong := declared.details["wrong"]:
        raise CannotResolve(
            f"{declared.model} is refuted as it is ({', '.join(wrong)}), so that a fault planted "
            "in it would show nothing"
        )


@pytest.mark.usefixtures("says_all")
@pytest.mark.control(of="physics.declares-itself", fault="stress in eV/Å³, compression positive")
def test_a_wrong_unit_is_noticed(subject, store, breach, evidence):
    fault = Fault(
        "stress in eV/Å³, compression positive",
        stress=lambda r, k, s: -s / GPA_PER_EV_ANG3,
        code=CODE,
    )
    found = breach("stress", {"stress": DIFFERENCES["stress"]}, fault)
    if not found.ratio:
        raise CannotResolve(
            f"{found.model}: no crystal drawn has a stress above the noise of its energies, so its "
            "unit cannot be told"
        )
    faulty = Faulty(subject, fault)
    assert evidence(physics.declarations(faulty, store, [found], CARD)).refuted


@pytest.mark.usefixtures("says_all")
@pytest.mark.control(of="physics.declares-itself", fault="the level of theory left out")
def test_a_subject_that_says_too_little_is_noticed(subject, store, derivatives, evidence):
    fault = Fault("the level of theory left out", card={"theory": UNDECLARED}, code=CODE)
    faulty = Faulty(subject, fault)
    assert evidence(physics.declarations(faulty, store, derivatives, CARD)).refuted
