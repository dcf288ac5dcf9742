"""Claims about physics that any potential must obey, on crystals nobody chose.

Yours to change: what is allowed, with its reason; how many crystals; the planted faults.
Lives elsewhere: the laws and the search (harness/runners/physics), how crystals are drawn
(harness/data/random_crystals, harness/data/random_forms), figures (harness/plots).

hypothesis draws the crystals: elements of those the subject declares, any cell, distances from a
fifth below to a fifth above the sum of the atoms' radii. What is measured is the largest breach
among them, over what is allowed. Beyond that hypothesis makes the crystal as small as it can, and
the evidence holds it. These claims need no reference data and say nothing about accuracy.
"""

import hashlib
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from harness.claims import below
from harness.data.units import GPA_PER_EV_ANG3
from harness.errors import ModelError, NotAvailable
from harness.models.cards import UNDECLARED
from harness.plots import breaches, jump_scan
from harness.runners import physics
from harness.runners.physics import Allowance, Search

pytestmark = [pytest.mark.fold0, pytest.mark.nightly]

# Two ways to compute one thing. float32 carries 6e-8 of a number; sums over some hundred terms, a
# hundred times as large as what is left of them, keep 1e-5 of it: 1e-4 eV/atom of 10. Features of
# a network vary within 0.1 Å, so a slope keeps a tenth of that.
ROUNDING = {
    "energy": Allowance(value=1e-4, typical=10.0, unit="eV/atom"),
    "forces": Allowance(value=1e-3, typical=10.0, unit="eV/Å"),
    "stress": Allowance(value=1e-2, typical=100.0, unit="GPa"),
}
same_to_rounding = below(
    1,
    "",
    reason="of what float32 leaves: 1e-5 of energies (or of 10 eV/atom where that is more), 1e-4 "
    "of forces (10 eV/Å) and of stress (100 GPa); phases are told apart at ten times that",
)

# Differences of float32 energies, good to 1e-6 eV/atom: 2e-3 eV/Å over 0.0015 Å in ten atoms, 0.05
# GPa over a strain of 0.0003 at 10 Å³ an atom.
DIFFERENCES = {
    "forces": Allowance(value=1e-2, typical=10.0, unit="eV/Å"),
    "stress": Allowance(value=1e-1, typical=100.0, unit="GPa"),
}
same_as_differences = below(
    1,
    "",
    reason="of 1e-3 of the largest force (or of 10 eV/Å) or stress (100 GPa): differences of "
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


QUICK = Sizes(
    two_forms=Search(n_examples=32),
    differences=Search(n_examples=16),
    scans=Search(n_examples=8, n_shrinks=15),
)
NIGHTLY = Sizes(
    two_forms=Search(n_examples=200),
    differences=Search(n_examples=100),
    scans=Search(n_examples=40, n_shrinks=30),
)


@pytest.fixture(scope="module")
def sizes(request):
    return NIGHTLY if "nightly" in request.config.getoption("-m") else QUICK


@pytest.fixture(scope="module")
def subject(model):
    """The model, which remembers: controls meet the crystals that the claims met."""
    return Remembering(model)


@pytest.fixture(scope="module")
def breach(subject, store, sizes, progress):
    """The largest breach of one law, by the subject or by one with a planted fault."""

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
    "cells is given: larger, of another shape, skewed.",
    basis="a cell is a choice of description; energies are extensive",
    bound=same_to_rounding,
)
@each_property
def test_energy_is_extensive(breach, name, evidence):
    found = breach("extensivity", ROUNDING)
    measurement = found.measurement(name)
    evidence.figure("breaches", breaches(found.shares[name], title=f"supercells: {name}"))
    assert evidence(measurement).held


@pytest.mark.claim(
    id="physics.translation",
    statement="Nothing changes when a crystal is moved, or an atom of it by a lattice vector.",
    basis="space is homogeneous, and a crystal is periodic",
    bound=same_to_rounding,
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
    "with it.",
    basis="space is isotropic, and electrons and nuclei know no left from right",
    bound=same_to_rounding,
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
    "atom keeps its force.",
    basis="like nuclei are indistinguishable, and a list has no physics",
    bound=same_to_rounding,
)
@each_property
def test_the_order_of_atoms_does_not_matter(breach, name, evidence):
    found = breach("permutation", ROUNDING)
    measurement = found.measurement(name)
    evidence.figure("breaches", breaches(found.shares[name], title=f"permutation: {name}"))
    assert evidence(measurement).held


@pytest.mark.claim(
    id="physics.batched",
    statement="A crystal gets the same numbers in the company of others as alone.",
    basis="crystals in one batch do not touch; sums over a batch can slip by a row",
    bound=same_to_rounding,
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
    statement="Forces are minus the gradient of the energy.",
    basis="definition; without it molecular dynamics does not keep the energy, and relaxations "
    "end where the energy is not lowest",
    bound=same_as_differences,
)
def test_forces_are_minus_the_gradient(breach, evidence):
    found = breach("forces", {"forces": DIFFERENCES["forces"]})
    measurement = found.measurement("forces")
    evidence.figure("breaches", breaches(found.shares["forces"], title="forces"))
    assert evidence(measurement).held


@pytest.mark.claim(
    id="physics.stress",
    statement="Stress is the derivative of the energy by strain over the volume, in GPa, and "
    "tension is positive.",
    basis="definition; O. H. Nielsen and R. M. Martin, Phys. Rev. B 32, 3780 (1985)",
    bound=same_as_differences,
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
    "force is no jump.",
    basis="a jump in energy is work that no force accounts for; cutoffs are the usual cause",
    bound=below(
        1,
        "",
        reason="of what float32 leaves, as in the two-forms claims: a change over 1e-5 Å beyond "
        "that of the pieces beside it, above 1e-4 eV/atom or 1e-3 eV/Å, is no rounding and no "
        "slope",
    ),
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
    "stress where it offers them: a crystal of each, and random crystals of several. A stated "
    "problem counts as none.",
    basis="a list of elements is a claim; a gap in it shows up in the middle of a screening",
    bound=below(1, "crystals", reason="not one element and not one crystal may be missing"),
)
@pytest.mark.parametrize("crystals", ["elements", "random"])
def test_every_declared_element_has_finite_outputs(
    subject, breach, store, progress, crystals, evidence
):
    if crystals == "elements":
        measurement = physics.elements(subject, store, progress)
    else:
        measurement = breach("finiteness", OUTPUTS).count("outputs")
    assert evidence(measurement).held


# What a user must know before comparing the subject's numbers with anything.
CARD = ("theory", "training_set", "energies", "source")


@pytest.fixture(scope="module")
def derivatives(breach):
    """Forces and stress beside differences of energies, of those that the subject offers."""

    def of(fault=None):
        found = []
        for name in DIFFERENCES:
            with suppress(NotAvailable):
                found.append(breach(name, {name: DIFFERENCES[name]}, fault))
        return found

    return of


@pytest.mark.claim(
    id="physics.declares-itself",
    statement="The subject says what it was trained on, at which level of theory and what its "
    "energies contain, gives what it offers, refuses an element it does not declare, and its "
    "forces and stress are in eV/Å and GPa, tension positive.",
    basis="most wrong comparisons of potentials are of numbers that mean different things",
    bound=below(1, "declarations", reason="none may be missing, none contradicted by behaviour"),
)
def test_the_subject_says_what_its_numbers_mean(subject, store, derivatives, evidence):
    assert evidence(physics.declarations(subject, store, derivatives(), CARD)).held


# --- controls: the subject with one fault, on the same crystals


@dataclass(frozen=True)
class Remembering:
    """The same answers as the model's, each computed once a session."""

    model: object

    def __post_init__(self):
        object.__setattr__(self, "_known", {})

    def __getattr__(self, name):
        return getattr(self.model, name)

    def predict(self, crystals, properties=("energy",)):
        key = (crystals.row_hashes().tobytes(), tuple(properties))
        if key not in self._known:
            self._known[key] = self.model.predict(crystals, properties)
        return self._known[key]


@dataclass(frozen=True)
class Faulty:
    """A subject whose predictions pass through a fault. It goes by a name of its own, and its
    results are stored under a hash of this file, so that a changed fault is measured anew."""

    model: object
    fault: "Fault"

    @property
    def identity(self):
        code = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
        return replace(
            self.model.identity,
            name=f"{self.model.identity.name}, faulty",
            settings={**self.model.identity.settings, "fault": f"{self.fault.words} {code}"},
        )

    @property
    def elements(self):
        return self.model.elements

    @property
    def card(self):
        return replace(self.model.card, **self.fault.card)

    def plan(self, crystals):
        return self.model.plan(crystals)

    def predict(self, crystals, properties=("energy",)):
        return self.fault(crystals, self.model.predict(crystals, properties))

    def energies(self, crystals):
        prediction = self.predict(crystals)
        if prediction.problems:
            raise ModelError(f"rows {sorted(prediction.problems)} could not be scored")
        return prediction.energy


@dataclass(frozen=True, eq=False)
class Fault:
    """What is wrong, row by row: each function gets one crystal, how many are in the batch, and
    the number or array, and returns what the faulty subject says instead."""

    words: str
    energy: object = None
    forces: object = None
    stress: object = None
    refuses: object = None  # crystal -> whether it is not scored
    card: dict = field(default_factory=dict)  # what its card says instead

    def __str__(self):
        return self.words

    def __call__(self, crystals, prediction):
        rows, changed = list(crystals), {}
        for name in ("energy", "forces", "stress"):
            change, values = getattr(self, name), getattr(prediction, name)
            if change is not None and values is not None:
                new = [change(row, len(rows), x) for row, x in zip(rows, values, strict=True)]
                changed[name] = new if name == "forces" else np.array(new)
        prediction = replace(prediction, **changed)
        if self.refuses is not None:
            refused = [i for i, row in enumerate(rows) if self.refuses(row)]
            energy = prediction.energy.copy()
            energy[refused] = np.nan
            problems = prediction.problems | dict.fromkeys(refused, "planted")
            prediction = replace(prediction, energy=energy, problems=problems)
        return prediction


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
        Fault("0.5 meV a cell, however large", energy=lambda r, k, e: e + 5e-4 / n_atoms(r)),
        Fault(
            "forces 0.1 % larger for every atom of the cell",
            forces=lambda r, k, f: f * (1 + 1e-3 * n_atoms(r)),
        ),
        Fault(
            "stress 0.1 % larger for every atom of the cell",
            stress=lambda r, k, s: s * (1 + 1e-3 * n_atoms(r)),
        ),
    ),
    (
        "physics.translation",
        "translation",
        Fault(
            "an egg-box of 0.3 meV/atom in the first atom's position",
            energy=lambda r, k, e: e + 3e-4 * first_x(r),
        ),
        Fault("an egg-box of 3 meV/Å", forces=lambda r, k, f: f + 3e-3 * first_x(r) * X),
        Fault("an egg-box of 0.03 GPa", stress=lambda r, k, s: s + 0.03 * first_x(r) * np.eye(3)),
    ),
    (
        "physics.rotation",
        "rotation",
        Fault(
            "0.3 meV/atom between a first lattice vector along x and one across",
            energy=lambda r, k, e: e + 3e-4 * along_x(r),
        ),
        Fault("forces 1 % larger along z", forces=lambda r, k, f: f * (1 + 0.01 * Z)),
        Fault("xx and zz exchanged, yz and xy too", stress=lambda r, k, s: XZ @ s @ XZ),
    ),
    (
        "physics.permutation",
        "permutation",
        Fault(
            "0.02 meV/atom for each proton of the first atom",
            energy=lambda r, k, e: e + 2e-5 * r.numbers[0],
        ),
        Fault(
            "forces listed by atomic number",
            forces=lambda r, k, f: f[np.argsort(r.numbers, kind="stable")],
        ),
        Fault(
            "2 MPa for each proton of the first atom",
            stress=lambda r, k, s: s + 2e-3 * r.numbers[0] * np.eye(3),
        ),
    ),
    (
        "physics.batched",
        "batching",
        Fault("0.1 meV/atom for each crystal of the batch", energy=lambda r, k, e: e + 1e-4 * k),
        Fault("1 meV/Å for each crystal of the batch", forces=lambda r, k, f: f + 1e-3 * k * X),
        Fault("0.01 GPa for each crystal", stress=lambda r, k, s: s + 0.01 * k * np.eye(3)),
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
def test_a_difference_between_two_forms_is_noticed(breach, procedure, name, fault, evidence):
    assert evidence(breach(procedure, ROUNDING, fault).measurement(name)).refuted


@pytest.mark.control(of="physics.forces", fault="forces 2 % too small")
def test_forces_that_are_a_little_weak_are_noticed(breach, evidence):
    fault = Fault("forces 2 % too small", forces=lambda r, k, f: 0.98 * f)
    found = breach("forces", {"forces": DIFFERENCES["forces"]}, fault)
    assert evidence(found.measurement("forces")).refuted


@pytest.mark.control(of="physics.forces", fault="0.03 eV/Å on every atom")
def test_a_small_bias_of_forces_is_noticed(breach, evidence):
    fault = Fault("0.03 eV/Å on every atom", forces=lambda r, k, f: f + 0.03 * X)
    found = breach("forces", {"forces": DIFFERENCES["forces"]}, fault)
    assert evidence(found.measurement("forces")).refuted


@pytest.mark.control(of="physics.stress", fault="compression is positive")
def test_a_stress_of_the_other_sign_is_noticed(breach, evidence):
    fault = Fault("compression is positive", stress=lambda r, k, s: -s)
    found = breach("stress", {"stress": DIFFERENCES["stress"]}, fault)
    assert evidence(found.measurement("stress")).refuted


@pytest.mark.control(of="physics.stress", fault="stress 5 % too large")
def test_a_stress_that_is_a_little_large_is_noticed(breach, evidence):
    fault = Fault("stress 5 % too large", stress=lambda r, k, s: 1.05 * s)
    found = breach("stress", {"stress": DIFFERENCES["stress"]}, fault)
    assert evidence(found.measurement("stress")).refuted


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        pytest.param(
            name, fault, id=name, marks=pytest.mark.control(of="physics.smooth", fault=fault.words)
        )
        for name, fault in {
            "energy": Fault(
                "0.5 meV/atom vanish when a period passes 10 Å",
                energy=lambda r, k, e: e - 5e-4 * is_long(r),
            ),
            "forces": Fault(
                "5 meV/Å vanish when a period passes 10 Å",
                forces=lambda r, k, f: f - 5e-3 * is_long(r) * Z,
            ),
        }.items()
    ],
)
def test_a_small_jump_is_noticed(breach, name, fault, evidence):
    found = breach("smoothness", {p: ROUNDING[p] for p in ("energy", "forces")}, fault)
    assert evidence(found.measurement(name)).refuted


@pytest.mark.control(of="physics.finite", fault="the heaviest element is not scored")
def test_a_missing_element_is_noticed(subject, store, progress, evidence):
    heaviest = max(subject.elements)
    fault = Fault("the heaviest element is not scored", refuses=lambda r: heaviest in r.numbers)
    assert evidence(physics.elements(Faulty(subject, fault), store, progress)).refuted


@pytest.mark.control(of="physics.finite", fault="forces are not finite in cells of several atoms")
def test_forces_that_are_not_finite_are_noticed(breach, evidence):
    fault = Fault(
        "forces are not finite in cells of several atoms",
        forces=lambda r, k, f: f * (np.nan if n_atoms(r) > 1 else 1.0),
    )
    assert evidence(breach("finiteness", OUTPUTS, fault).count("outputs")).refuted


@pytest.mark.control(of="physics.declares-itself", fault="stress in eV/Å³, compression positive")
def test_a_wrong_unit_is_noticed(subject, store, derivatives, evidence):
    fault = Fault(
        "stress in eV/Å³, compression positive",
        stress=lambda r, k, s: -s / GPA_PER_EV_ANG3,
    )
    faulty = Faulty(subject, fault)
    assert evidence(physics.declarations(faulty, store, derivatives(fault), CARD)).refuted


@pytest.mark.control(of="physics.declares-itself", fault="the level of theory left out")
def test_a_subject_that_says_too_little_is_noticed(subject, store, derivatives, evidence):
    fault = Fault("the level of theory left out", card={"theory": UNDECLARED})
    faulty = Faulty(subject, fault)
    assert evidence(physics.declarations(faulty, store, derivatives(), CARD)).refuted
