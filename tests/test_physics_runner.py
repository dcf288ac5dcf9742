"""Laws of physics on potentials whose right and wrong physics is known on paper."""

import ast
import importlib
import json
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, given, seed, settings
from hypothesis import strategies as st

from harness.claims import Interval, Measurement, Verdict, below
from harness.data.crystals import Crystals
from harness.data.elements import NUMBERS
from harness.data.random_crystals import (
    CLOSENESS,
    FARTHEST_NEIGHBOUR_ANG,
    Layers,
    elemental_crystals,
    layers,
    radii_ang,
    random_crystals,
)
from harness.data.random_forms import moved, reordered, supercells, turned
from harness.errors import CannotResolve, ConfigError, DataError, ModelError, NotAvailable
from harness.models.cards import Card
from harness.models.protocol import Identity, Prediction
from harness.plots import breaches, jump_scan
from harness.runners import physics
from harness.runners.physics import (
    PROCEDURES,
    Allowance,
    Fault,
    Faulty,
    Found,
    Remembering,
    Search,
    sized,
)
from harness.runners.physics.found import VERSION
from harness.runners.physics.search import HIDDEN, Breach, Refused, explore, share_of
from harness.runners.physics.subject import Subject
from harness.store import PredictionStore

GPA = 160.21766208
CUTOFF_ANG = 4.6
TWO_FORMS = ("extensivity", "translation", "rotation", "permutation", "batching")
# An analytic potential in float64: ten thousand times less than what float32 is allowed.
EXACT = {
    "energy": Allowance(value=1e-8, typical=10.0, unit="eV/atom"),
    "forces": Allowance(value=1e-7, typical=10.0, unit="eV/Å"),
    "stress": Allowance(value=1e-6, typical=100.0, unit="GPa"),
}
DIFFERENCES = {
    "forces": Allowance(value=1e-5, typical=10.0, unit="eV/Å"),
    "stress": Allowance(value=1e-4, typical=100.0, unit="GPa"),
}
JUMPS = {name: EXACT[name] for name in ("energy", "forces")}
OUTPUTS = {"outputs": Allowance(value=1.0, typical=1.0, unit="crystal")}
FEW = Search(n_examples=8, max_atoms=4, n_shrinks=0)
SHRINKING = Search(n_examples=8, max_atoms=4, n_shrinks=40)
SCANS = Search(n_examples=3, n_shrinks=0)

CARD = Card(
    elements=frozenset((36, 54)),
    theory="none: a formula",
    training_set="none",
    energies="pairs within 4.6 Å",
    properties=("energy", "forces", "stress"),
    source="this file",
)


class LennardJones:
    """Krypton and xenon. ``cutoff`` says how pairs end at 4.6 Å: smooth (energy, force and stress
    go to zero over the last 1.5 Å), shifted (the energy does) or hard (nothing does)."""

    def __init__(self, cutoff="smooth", *, images=None, offers=("forces", "stress"), card=None):
        self.cutoff, self.images, self.offers = cutoff, images, offers
        self.identity = Identity(
            name="lennard-jones",
            weights_sha256="b" * 64,
            settings={"cutoff": cutoff, "images": str(images), "offers": ",".join(offers)},
        )
        self.card = card or replace(CARD, properties=("energy", *offers))
        self.elements = frozenset((36, 54))
        self.calls = 0

    def plan(self, crystals):
        return [np.arange(len(crystals))]

    def predict(self, crystals, properties=("energy",)):
        self.calls += 1
        if absent := set(properties) - {"energy", *self.offers}:
            raise NotAvailable(f"no {sorted(absent)} here")
        rows = [self.one(row) for row in crystals]
        problems = {i: "not krypton or xenon" for i, row in enumerate(rows) if row is None}
        rows = [
            row or (np.nan, np.full((len(c.numbers), 3), np.nan), np.full((3, 3), np.nan))
            for row, c in zip(rows, crystals, strict=True)
        ]
        return Prediction(
            energy=np.array([row[0] for row in rows]),
            problems=problems,
            forces=[row[1] for row in rows] if "forces" in properties else None,
            stress=np.array([row[2] for row in rows]) if "stress" in properties else None,
        )

    def energies(self, crystals):
        return self.predict(crystals).energy

    def one(self, crystal):
        """eV/atom, eV/Å, GPa of one crystal, every pair within reach once from each side."""
        if not set(crystal.numbers.tolist()) <= self.elements:
            return None
        lattice, n = crystal.lattices[0], len(crystal.numbers)
        frac = crystal.frac_coords
        heights = 1 / np.linalg.norm(np.linalg.inv(lattice), axis=0)
        reach = (
            [self.images] * 3 if self.images else np.ceil(CUTOFF_ANG / heights + 0.5).astype(int)
        )
        cells = np.array(list(product(*[range(-k, k + 1) for k in reach])), dtype=float)
        between = frac[None] - frac[:, None]
        apart = (between - np.round(between))[:, :, None] @ lattice + cells @ lattice
        length = np.linalg.norm(apart, axis=-1)
        near = (length > 0) & (length < CUTOFF_ANG)
        first, second, _ = np.nonzero(near)
        vector, r = apart[near], length[near]
        radii = radii_ang()[crystal.numbers]
        energy, slope = self.pair(r, 0.85 * (radii[first] + radii[second]))
        along = slope[:, None] * vector / r[:, None]  # minus the force on the second
        forces = np.zeros((n, 3))
        np.add.at(forces, first, along)
        stress = np.einsum("pi,pj->ij", along, vector) / 2 / float(crystal.volumes_ang3[0])
        return float(energy.sum() / 2 / n), forces, GPA * stress

    def pair(self, r, sigma):
        """Energy of a pair (eV) and its derivative, 0.1 eV deep."""

        def bare(x):
            six = (sigma / x) ** 6
            return 0.4 * (six**2 - six), 0.4 * (6 * six - 12 * six**2) / x

        energy, slope = bare(r)
        if self.cutoff == "shifted":
            return energy - bare(CUTOFF_ANG)[0], slope
        if self.cutoff == "smooth":
            t = np.clip((r - CUTOFF_ANG + 1.5) / 1.5, 0, 1)
            ends, ending = 1 - t**3 * (10 - 15 * t + 6 * t**2), -30 * t**2 * (1 - t) ** 2 / 1.5
            return energy * ends, slope * ends + energy * ending
        return energy, slope


class Changed(LennardJones):
    """One more thing is wrong with it."""

    def __init__(self, words, change, **kwargs):
        super().__init__(**kwargs)
        self.change = change
        self.identity = Identity(name="changed", weights_sha256="c" * 64, settings={"words": words})

    def one(self, crystal):
        found = super().one(crystal)
        return None if found is None else self.change(crystal, *found)


@pytest.fixture
def store(tmp_path):
    return PredictionStore(tmp_path)


def built(words):
    """The crystal that evidence describes."""
    return Crystals(
        numbers=np.array([NUMBERS[s] for s in words["elements"]], dtype=np.uint8),
        frac_coords=np.array(words["frac_coords"]),
        lattices=np.array([words["lattice_ang"]]),
        offsets=np.array([0, len(words["elements"])]),
    )


# --- a right potential is right


@pytest.mark.parametrize("procedure", TWO_FORMS)
def test_a_right_potential_keeps_every_symmetry(store, procedure):
    found = physics.run(procedure, LennardJones(), store, EXACT, FEW)
    for name in EXACT:
        measurement = found.measurement(name)
        assert measurement.interval.estimate == 0
        assert measurement.severity < 1
        assert measurement.counterexample == ""
        assert measurement.scored == measurement.of >= 6
    assert not found.minimal


@pytest.mark.parametrize("name", DIFFERENCES)
def test_right_derivatives_agree_with_differences(store, name):
    found = physics.run(name, LennardJones(), store, {name: DIFFERENCES[name]}, FEW)
    assert found.measurement(name).severity < 1
    assert found.ratio[name] == pytest.approx(1, abs=1e-6)


def test_a_smooth_cutoff_has_no_jump(store):
    found = physics.run("smoothness", LennardJones(), store, JUMPS, SCANS)
    assert max(found.measurement(name).severity for name in JUMPS) < 1


# --- wrong physics is found, and where


def pair_distances(stack, distance_ang):
    """Every distance up to 6 Å between atoms of a stack of layers."""
    crystal = stack.at(np.array([distance_ang]))
    cells = np.array(list(product(range(-6, 7), repeat=3)))
    frac = crystal.frac_coords
    apart = (frac[None, :, None] - frac[:, None, None] + cells) @ crystal.lattices[0]
    lengths = np.linalg.norm(apart, axis=-1)
    return lengths[(lengths > 0) & (lengths < 6)]


def test_a_hard_cutoff_jumps_where_a_pair_reaches_it(store):
    found = physics.run("smoothness", LennardJones("hard"), store, JUMPS, SCANS)
    for name in JUMPS:
        assert found.measurement(name).severity > 1
        worst = found.worst[name]
        stack = Layers(
            numbers=tuple(NUMBERS[s] for s in worst["layers"]),
            in_plane_ang=worst["in_plane_ang"],
            angle_deg=worst["angle_deg"],
            further_ang=worst["further_ang"],
        )
        assert np.abs(pair_distances(stack, worst["at_ang"]) - CUTOFF_ANG).min() < 1e-4
        before, after = LennardJones("hard").energies(
            stack.at(worst["at_ang"] + np.array([-2e-5, 2e-5]))
        )
        if name == "energy":
            assert abs(after - before) == pytest.approx(worst["deviation"], rel=0.02)


def test_a_shifted_cutoff_jumps_in_forces_only(store):
    found = physics.run("smoothness", LennardJones("shifted"), store, JUMPS, SCANS)
    assert found.measurement("energy").severity < 1
    assert found.measurement("forces").severity > 1


def test_too_few_periodic_images_are_not_extensive(store):
    """Neighbours in adjacent cells only: in a small cell some within reach are missed."""
    allowed = {"energy": EXACT["energy"]}
    found = physics.run("extensivity", LennardJones(images=1), store, allowed, SHRINKING)
    assert found.measurement("energy").severity > 1
    worst, smallest = found.worst["energy"], found.minimal["energy"]
    assert len(smallest["elements"]) == 1 <= len(worst["elements"])
    assert smallest["over_allowed"] > 1


def test_the_reported_crystal_reproduces_the_breach(store):
    wrong = LennardJones(images=1)
    worst = physics.run("extensivity", wrong, store, EXACT, FEW).worst["energy"]
    one = built(json.loads(json.dumps(worst)))
    assert abs(wrong.energies(one)[0]) == pytest.approx(worst["size"])
    matrix = np.array(worst["supercell"])
    cells = [np.array(t) for t in product(range(-8, 9), repeat=3)]
    points = [one.frac_coords + t for t in cells]  # those of the crystal that lie in the supercell
    inside = np.concatenate([p @ np.linalg.inv(matrix) for p in points])
    numbers = np.tile(one.numbers, len(cells))
    kept = np.all((inside > -0.25) & (inside <= 0.75), axis=1)
    other = Crystals(
        numbers=numbers[kept],
        frac_coords=inside[kept],
        lattices=(matrix @ one.lattices[0])[None],
        offsets=np.array([0, int(kept.sum())]),
    )
    assert len(other.numbers) == len(one.numbers) * round(abs(np.linalg.det(matrix)))
    deviation = abs(wrong.energies(other)[0] - wrong.energies(one)[0])
    assert deviation == pytest.approx(worst["deviation"], rel=1e-6)


def turn_only(change):
    return lambda crystal, e, f, s: (e, *change(f, s))


@pytest.mark.parametrize(
    ("procedure", "name", "change"),
    [
        ("rotation", "forces", turn_only(lambda f, s: (f * [1, 1, 1.001], s))),
        ("rotation", "stress", turn_only(lambda f, s: (f, s[::-1, ::-1]))),
        ("rotation", "energy", lambda c, e, f, s: (e + 1e-6 * c.lattices[0, 0, 0], f, s)),
        ("translation", "energy", lambda c, e, f, s: (e + 1e-6 * c.frac_coords[0, 0], f, s)),
        ("permutation", "energy", lambda c, e, f, s: (e + 1e-6 * c.frac_coords[0, 0], f, s)),
        ("permutation", "forces", turn_only(lambda f, s: (f[::-1] * 1.001, s))),
        ("extensivity", "energy", lambda c, e, f, s: (e + 1e-6 / len(c.numbers), f, s)),
        ("extensivity", "stress", lambda c, e, f, s: (e, f, s * c.volumes_ang3[0])),
        ("forces", "forces", turn_only(lambda f, s: (0.999 * f, s))),
        ("forces", "forces", turn_only(lambda f, s: (-f, s))),
        ("stress", "stress", turn_only(lambda f, s: (f, 1.001 * s))),
    ],
)
def test_a_wrong_potential_is_beyond_what_is_allowed(store, procedure, name, change):
    allowed = {name: (DIFFERENCES if procedure in DIFFERENCES else EXACT)[name]}
    wrong = Changed(f"{procedure} {name}", change)
    search = Search(n_examples=20, max_atoms=4, n_shrinks=0)
    found = physics.run(procedure, wrong, store, allowed, search)
    assert found.measurement(name).severity > 1
    assert found.minimal == {}  # as asked


def test_a_stress_that_is_not_symmetric_is_wrong(store):
    skew = np.array([[0, 0.1, 0], [-0.1, 0, 0], [0, 0, 0]])
    wrong = Changed("skew", turn_only(lambda f, s: (f, s + skew)))
    found = physics.run("stress", wrong, store, {"stress": DIFFERENCES["stress"]}, FEW)
    assert found.measurement("stress").severity > 1


def test_a_sum_that_slips_in_a_batch_is_found(store):
    class Slips(LennardJones):
        def predict(self, crystals, properties=("energy",)):
            given = super().predict(crystals, properties)
            return Prediction(
                energy=given.energy,
                problems=given.problems,
                forces=given.forces and [f + 1e-3 * (len(crystals) > 1) for f in given.forces],
                stress=given.stress,
            )

    allowed = {name: EXACT[name] for name in ("energy", "forces")}
    search = Search(n_examples=4, max_atoms=2, n_shrinks=20)
    found = physics.run("batching", Slips(offers=("forces",)), store, allowed, search)
    assert found.measurement("energy").severity < 1
    assert found.measurement("forces").severity > 1
    assert len(found.minimal["forces"]["together"]) == 2


# --- what is not scored


def test_what_a_subject_does_not_offer_is_not_available(store):
    found = physics.run("rotation", LennardJones(offers=("forces",)), store, EXACT, FEW)
    assert found.measurement("forces").severity < 1
    with pytest.raises(NotAvailable, match="no stress"):
        found.measurement("stress")
    with pytest.raises(NotAvailable):
        physics.run("forces", LennardJones(offers=()), store, {"forces": EXACT["forces"]}, FEW)


def no_krypton(crystal, *found):
    return None if 36 in crystal.numbers else found


def test_refused_crystals_are_excluded_from_laws_and_break_finiteness(store):
    picky = Changed("no krypton", no_krypton)
    measurement = physics.run("translation", picky, store, EXACT, FEW).measurement("energy")
    assert measurement.excluded["not krypton or xenon"] >= 1
    assert measurement.scored + measurement.excluded["not krypton or xenon"] == measurement.of
    found = physics.run("finiteness", picky, store, OUTPUTS, SHRINKING)
    assert found.measurement("outputs").counterexample == "Kr: not krypton or xenon"
    assert found.measurement("outputs").severity is None
    assert found.minimal["outputs"]["elements"] == ["Kr"]


def test_forces_that_are_not_finite_are_no_breach_of_symmetry_but_of_finiteness(store):
    broken = Changed("nan", lambda c, e, f, s: (e, f * np.nan, s))
    with pytest.raises(DataError, match="scored none"):
        physics.run("translation", broken, store, EXACT, FEW).measurement("energy")
    found = physics.run("finiteness", broken, store, OUTPUTS, FEW)
    assert found.measurement("outputs").interval.estimate == 1


def test_noise_above_what_is_allowed_is_excluded_not_judged(store):
    def noisy(crystal, e, f, s):
        seed = int.from_bytes(crystal.row_hashes()[0, :4].tobytes(), "little")
        return e + 1e-4 * np.random.default_rng(seed).standard_normal(), f, s

    allowed = {"forces": DIFFERENCES["forces"]}
    found = physics.run("forces", Changed("noisy", noisy), store, allowed, FEW)
    assert sum(found.refused["forces"].values()) > 0
    assert all("numerical error" in reason for reason in found.refused["forces"])


def test_a_model_without_elements_cannot_be_drawn_for(store):
    model = LennardJones(card=Card(elements=frozenset()))
    with pytest.raises(ConfigError, match="empty list of elements"):
        physics.run("rotation", model, store, EXACT, FEW)
    model = LennardJones(card=Card(elements=None))
    with pytest.raises(NotAvailable, match="declares no elements"):
        physics.run("rotation", model, store, EXACT, FEW)


# --- the search


@dataclass(frozen=True)
class Number:
    value: int

    @property
    def key(self):
        return str(self.value).encode()

    @property
    def words(self):
        return {"value": self.value}


NUMBERS_DRAWN = st.integers(0, 10_000).map(Number)
ONE = {"size": Allowance(value=1.0, typical=1e9, unit="eV")}


def above(limit):
    return lambda case: {"size": Breach(deviation=case.value / limit, size=0.0)}


def test_the_smallest_failing_case_is_found_and_counts_as_drawn_only_if_it_was():
    search = Search(n_examples=30, n_shrinks=200)
    drawn, smallest = explore(NUMBERS_DRAWN, above(137), ONE, search, None)
    assert len(drawn) <= 30
    assert len({case.key for case, _ in drawn}) == len(drawn)
    case, found = smallest["size"]
    assert case.value == 137
    assert found["size"].deviation == 1
    again, none = explore(NUMBERS_DRAWN, above(137), ONE, replace(search, n_shrinks=0), None)
    assert [case.value for case, _ in again] == [case.value for case, _ in drawn]
    assert none == {}
    assert explore(NUMBERS_DRAWN, above(10_001), ONE, search, None)[1] == {}


def test_no_more_cases_are_measured_than_the_search_allows():
    measured = []

    def measure(case):
        measured.append(case.value)
        return above(137)(case)

    drawn, _ = explore(NUMBERS_DRAWN, measure, ONE, Search(n_examples=30, n_shrinks=5), None)
    assert len(measured) == len(set(measured)) == len(drawn) + 5


def test_a_refused_case_has_its_reason_and_is_not_beyond_anything():
    def measure(case):
        raise Refused(f"not {case.value}")

    drawn, smallest = explore(NUMBERS_DRAWN, measure, ONE, Search(n_examples=3), None)
    assert [found for _, found in drawn] == [f"not {case.value}" for case, _ in drawn]
    assert smallest == {}


@pytest.mark.parametrize(
    ("deviation", "error", "expected"),
    [(0.7, 0.5, 0.7), (0.7, 0.51, None), (1.6, 0.5, 1.6), (1.6, 0.6, 1.6), (1.6, 0.61, None)],
)
def test_a_breach_counts_where_its_numerical_error_leaves_nothing_open(deviation, error, expected):
    allowance = Allowance(value=1.0, typical=1.0, unit="eV")
    breach = Breach(deviation=10 * deviation, size=10.0, numerical_error=10 * error)
    assert share_of(breach, allowance) == (
        expected if expected is None else pytest.approx(expected)
    )


@pytest.mark.parametrize("wrong", [{"value": 0.0}, {"typical": 0.0}, {"value": -1.0}])
def test_an_allowance_above_zero_is_asked_for(wrong):
    with pytest.raises(ConfigError, match="value and typical size must be above zero"):
        Allowance(**{"value": 1.0, "typical": 1.0, "unit": "eV", **wrong})


@pytest.mark.parametrize("wrong", [{"n_examples": 0}, {"max_atoms": 0}, {"n_shrinks": -1}])
def test_a_search_of_nothing_is_refused(wrong):
    with pytest.raises(ConfigError, match="examples and atoms must be at least 1, shrinks 0"):
        Search(**wrong)
    assert Search(n_examples=1, max_atoms=1, n_shrinks=0).seed == 0


def test_a_second_session_computes_nothing_and_finds_the_same(store, tmp_path):
    model = LennardJones("hard")
    first = physics.run("extensivity", model, store, EXACT, FEW)
    calls = model.calls
    assert physics.run("extensivity", model, store, EXACT, FEW) == first
    assert model.calls == calls
    elsewhere = PredictionStore(tmp_path / "elsewhere")
    assert physics.run("extensivity", LennardJones("hard"), elsewhere, EXACT, FEW) == first


@pytest.mark.parametrize("strategy", [turned, layers])
def test_what_is_drawn_does_not_depend_on_what_else_is_loaded(strategy, tmp_path, monkeypatch):
    """hypothesis takes constants from the code of local modules, for types where it may."""

    def drawn():
        found = []

        @seed(0)
        @settings(max_examples=100, phases=[Phase.generate], database=None, deadline=None)
        @given(strategy(range(1, 119)))
        def draw(case):
            found.append(case if strategy is layers else case.key)

        draw()
        return found

    first = drawn()
    name = f"local_module_{strategy.__name__}"
    draw = np.random.default_rng(len(first) + len(name))  # constants that no other module has
    constants = [*draw.integers(100, 10**6, 300).tolist(), *draw.uniform(-5, 360, 600).tolist()]
    (tmp_path / f"{name}.py").write_text(f"NUMBERS = {constants}\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module(name)
    assert drawn() == first


def test_another_seed_or_allowance_is_another_search(store):
    model = LennardJones()
    physics.run("translation", model, store, EXACT, FEW)
    calls = model.calls
    physics.run("translation", model, store, EXACT, Search(n_examples=8, max_atoms=4, seed=1))
    assert model.calls > calls


def test_progress_is_told_once_for_every_example(store):
    ticks = []

    def make(what, total):
        ticks.append((what, total))
        return ticks.append

    physics.run("permutation", LennardJones(), store, EXACT, FEW, make)
    assert ticks[0] == ("physics: permutation", FEW.n_examples)
    assert sum(ticks[1:]) == FEW.n_examples


@pytest.mark.parametrize(
    ("procedure", "allowed"), [("gravity", EXACT), ("forces", EXACT), ("rotation", {})]
)
def test_requests_that_make_no_sense_are_refused(store, procedure, allowed):
    with pytest.raises(ConfigError):
        physics.run(procedure, LennardJones(), store, allowed, FEW)


@given(st.floats(1e-9, 1e3), st.floats(1e-3, 1e3), st.floats(1e-9, 1e3), st.floats(0, 1e6))
def test_what_is_allowed_grows_with_the_size_beyond_the_typical(value, typical, deviation, size):
    share = Allowance(value=value, typical=typical, unit="eV").share(deviation, size)
    if size <= typical:
        assert share == pytest.approx(deviation / value)
    else:
        assert share == pytest.approx(deviation / size * typical / value)


# --- what is measured


def found(shares, procedure="rotation", **more):
    """What a search might have found of energies."""
    words = {"formula": "KrXe", "deviation": 2e-4, "over_allowed": max(shares, default=0.0)}
    given = {
        "procedure": procedure,
        "model": "toy",
        "weights_sha256": "d" * 64,
        "search": FEW,
        "allowed": {"energy": Allowance(value=1e-4, typical=10.0, unit="eV/atom")},
        "shares": {"energy": list(shares)},
        "worst": {"energy": words},
        "minimal": {},
        "refused": {"energy": {}},
    }
    return Found(**{**given, **more})


def test_the_share_of_crystals_that_break_a_law_is_measured():
    measurement = found(
        [0.2, 0.9, 0.4], refused={"energy": {"no krypton": 2, HIDDEN: 1}}
    ).measurement("energy")
    assert measurement.quantity == (
        "share of crystals that break rotation in energy, beyond 0.0001 eV/atom, or 1e-05 of the "
        "size"
    )
    assert measurement.interval.method == "Clopper-Pearson, 0 of 3 crystals so drawn"
    assert measurement.interval.estimate == 0
    assert measurement.interval.high == pytest.approx(1 - 0.025 ** (1 / 3))
    assert (measurement.scored, measurement.of) == (3, 6)
    assert measurement.excluded == {"no krypton": 2, HIDDEN: 1}
    assert measurement.counterexample == ""
    assert measurement.severity == 0.9
    assert (measurement.dataset, measurement.model) == ("random crystals", "toy")
    assert measurement.inputs == {"toy": "d" * 64}
    assert measurement.details == {
        "search": asdict(FEW),
        "allowed": {"value": 1e-4, "typical": 10.0, "unit": "eV/atom"},
        "largest_over_allowed": 0.9,
        "median_over_allowed": 0.4,
        "crystals": 3,
        "crystals_that_break_it": 0,
        "breach_rate_below": measurement.interval.high,
        "worst": {"formula": "KrXe", "deviation": 2e-4, "over_allowed": 0.9},
    }


def test_one_crystal_beyond_what_is_allowed_is_a_counterexample():
    smallest = {"formula": "Kr"}
    measurement = found(
        [0.2, 1.0, 0.4], minimal={"energy": smallest}, ratio={"energy": 2.0}
    ).measurement("energy")
    assert measurement.interval.estimate == 1 / 3
    assert measurement.counterexample == "KrXe: 0.0002 eV/atom, 1 times what is allowed"
    assert measurement.severity == 1.0
    assert measurement.details["crystals_that_break_it"] == 1
    assert measurement.details["minimal"] == smallest
    assert measurement.details["reported_over_measured"] == 2.0
    assert found([0.2, 0.999]).measurement("energy").counterexample == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            {"layers": ["Kr", "Xe"], "at_ang": 4.60004},
            "layers of Kr and Xe 4.6 Å apart: 0.0002 eV/atom, 3.46 times what is allowed",
        ),
        (
            {"together": [{"formula": "Kr"}, {"formula": "KrXe"}]},
            "a batch of Kr, KrXe: 0.0002 eV/atom, 3.46 times what is allowed",
        ),
        ({"formula": "Kr", "problem": "no krypton here"}, "Kr: no krypton here"),
    ],
)
def test_a_counterexample_names_its_crystal_and_its_breach(words, said):
    worst = {"energy": {**words, "deviation": 2e-4, "over_allowed": 3.4567}}
    assert found([3.4567], worst=worst).measurement("energy").counterexample == said


def test_whether_outputs_are_finite_has_no_severity():
    broken = found([0.0, 1.0], procedure="finiteness")
    assert broken.measurement("energy").severity is None
    assert [name for name, law in PROCEDURES.items() if not law.graded] == ["finiteness"]


@pytest.mark.parametrize(
    ("n", "high", "verdict"),
    [
        (36, 0.1, Verdict.HELD),
        (35, 0.1, Verdict.INCONCLUSIVE),
        (13, 0.25, Verdict.HELD),
        (12, 0.25, Verdict.INCONCLUSIVE),
    ],
)
def test_so_many_crystals_exclude_a_share_of_them(n, high, verdict):
    interval = found([0.0] * n).measurement("energy").interval
    assert below(high, "", "a reason").judge(interval) == verdict


def test_what_cannot_be_measured_says_why():
    with pytest.raises(NotAvailable, match=r"^toy offers no energy: not today$"):
        found([], absent={"energy": "not today"}).measurement("energy")
    with pytest.raises(ConfigError, match=r"^rotation is not about gravity: energy$"):
        found([0.0]).measurement("gravity")
    with pytest.raises(CannotResolve, match="of no crystal drawn can energy of toy be told"):
        found([], refused={"energy": {HIDDEN: 3}}).measurement("energy")
    with pytest.raises(DataError, match="scored none") as caught:
        found([], refused={"energy": {"no krypton": 3}}).measurement("energy")
    assert not isinstance(caught.value, NotAvailable)


def test_crystals_met_while_shrinking_are_not_counted(store):
    allowed = {"energy": EXACT["energy"]}
    wrong = Changed("first", lambda c, e, f, s: (e + 1e-6 * c.frac_coords[0, 0], f, s))
    search = Search(n_examples=6, max_atoms=2, n_shrinks=8)
    long = physics.run("translation", wrong, store, allowed, search)
    short = physics.run("translation", wrong, store, allowed, replace(search, n_shrinks=0))
    assert long.shares == short.shares
    assert long.worst == short.worst
    assert long.minimal["energy"]["over_allowed"] >= 1
    assert VERSION == "2"


def test_every_element_is_asked_and_one_that_is_missing_is_a_counterexample(store):
    whole = physics.elements(LennardJones(), store)
    assert whole.interval == Interval.exact(0.0, n=2)
    assert whole.interval.is_exact
    assert whole.counterexample == ""
    assert (whole.scored, whole.of, whole.dataset) == (2, 2, "elemental crystals")
    missing = physics.elements(Changed("no krypton", no_krypton), store)
    assert missing.interval.estimate == 0.5
    assert missing.counterexample == "Kr: not krypton or xenon"
    assert missing.details["problems"] == {"Kr": "not krypton or xenon"}


@pytest.mark.parametrize(
    ("known", "words"),
    [
        (
            range(1, 4),
            "H: not krypton or xenon; He: not krypton or xenon; Li: not krypton or xenon",
        ),
        (
            range(1, 6),
            "H: not krypton or xenon; He: not krypton or xenon; Li: not krypton or xenon, and 2 "
            "more",
        ),
    ],
)
def test_of_many_missing_elements_three_are_named(store, known, words):
    model = LennardJones(card=replace(CARD, elements=frozenset(known)))
    assert physics.elements(model, store).counterexample == words


def test_a_subject_that_gives_nothing_where_it_was_asked_is_at_fault():
    class Mute(LennardJones):
        def predict(self, crystals, properties=("energy",)):
            return replace(super().predict(crystals, properties), forces=None)

    _, crystal, _ = elemental_crystals([36])
    with pytest.raises(DataError, match="was asked for forces and gave none"):
        Subject(Mute(), optional=("forces",)).all(crystal)


# --- declarations

SAID = ("theory", "training_set", "energies", "source")


def declared(model, store):
    found = [
        physics.run(name, model, store, {name: DIFFERENCES[name]}, FEW) for name in DIFFERENCES
    ]
    return physics.declarations(model, store, found, SAID)


def test_a_subject_that_says_what_it_is_has_nothing_wrong(store):
    measurement = declared(LennardJones(), store)
    assert measurement.interval.estimate == 0
    assert measurement.details["reported_over_measured"]["stress"] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("factor", "words"),
    [
        (-1, "the sign is reversed"),
        (1 / GPA, "eV/Å³ instead of GPa"),
        (-10, "kbar instead of GPa, and the sign is reversed"),
        (3.0, "3 times what energies say"),
    ],
)
def test_a_wrong_unit_is_named(store, factor, words):
    model = Changed(words, turn_only(lambda f, s: (f, factor * s)))
    wrong = declared(model, store).details["wrong"]
    assert list(wrong) == ["unit of stress"]
    assert words in wrong["unit of stress"]


def test_what_is_not_said_or_not_given_counts(store):
    silent = LennardJones(card=Card(elements=CARD.elements, theory="a formula"))
    assert set(declared(silent, store).details["wrong"]) == set(SAID) - {"theory"}
    promised = LennardJones(card=replace(CARD, properties=("energy", "magmoms")))
    assert "magmoms" in declared(promised, store).details["wrong"]
    mute = physics.declarations(LennardJones(card=replace(CARD, elements=None)), store, [], SAID)
    assert mute.details["wrong"] == {"elements": "not declared"}


def test_an_element_that_is_not_declared_must_be_refused(store):
    model = LennardJones()
    model.one = lambda crystal: (0.0, np.zeros((len(crystal.numbers), 3)), np.zeros((3, 3)))
    wrong = physics.declarations(model, store, [], SAID).details["wrong"]
    assert wrong == {"elements": "H is not declared, and is given an energy"}


# --- what is drawn


@settings(deadline=None, max_examples=30)
@given(random_crystals((1, 26, 55), max_atoms=8))
def test_random_crystals_are_physical(crystal):
    assert 1 <= len(crystal.numbers) <= 8
    assert set(crystal.numbers.tolist()) <= {1, 26, 55}
    cells = np.array(list(product(range(-4, 5), repeat=3)))
    frac = crystal.frac_coords
    lengths = np.linalg.norm(
        (frac[None, :, None] - frac[:, None, None] + cells) @ crystal.lattices[0], axis=-1
    )
    lengths[lengths < 1e-9] = np.inf
    radii = radii_ang()[crystal.numbers]
    closeness = (lengths.min(axis=2) / (radii[:, None] + radii)).min()
    assert CLOSENESS[0] - 1e-9 <= closeness <= CLOSENESS[1] + 1e-9
    assert lengths.min(axis=(1, 2)).max() <= FARTHEST_NEIGHBOUR_ANG + 1e-9


@pytest.mark.parametrize("strategy", [supercells, moved, turned, reordered])
def test_both_forms_are_one_crystal(strategy):
    @settings(deadline=None, max_examples=15)
    @given(strategy((8, 13), max_atoms=6))
    def check(forms):
        n_one, n_other = len(forms.one.numbers), len(forms.other.numbers)
        assert np.array_equal(forms.other.numbers, forms.one.numbers[forms.atom_of])
        per_atom = [c.volumes_ang3[0] / len(c.numbers) for c in (forms.one, forms.other)]
        assert per_atom[0] == pytest.approx(per_atom[1])
        assert np.bincount(forms.atom_of).tolist() == [n_other // n_one] * n_one
        assert np.allclose(forms.turn @ forms.turn.T, np.eye(3))
        # Each atom of the other lies, turned back, on a lattice image of the atom it is, or the
        # whole is shifted.
        if "shift_frac" not in forms.how:
            there = forms.other.frac_coords @ forms.other.lattices[0] @ forms.turn
            image = (
                there @ np.linalg.inv(forms.one.lattices[0]) - forms.one.frac_coords[forms.atom_of]
            )
            assert np.allclose(image, np.round(image), atol=1e-8)

    check()


@settings(deadline=None, max_examples=20)
@given(layers((6, 29)), st.floats(2.0, 8.0))
def test_layers_are_as_far_apart_as_asked(stack, distance):
    crystal = stack.at(np.array([distance, distance + 1]))[0]
    z = crystal.frac_coords[:, 2] * crystal.lattices[0, 2, 2]
    assert z[1] - z[0] == pytest.approx(distance)
    assert crystal.lattices[0, 2, 2] - z[1] == pytest.approx(distance + stack.further_ang)


def test_every_element_has_a_crystal():
    numbers, crystals, sources = elemental_crystals(range(1, 119))
    assert numbers.tolist() == list(range(1, 119))
    assert all(set(c.numbers) == {z} for z, c in zip(numbers, crystals, strict=True))
    assert set(sources) == {"fixtures", "fcc"}
    density = crystals.volumes_ang3 / crystals.n_atoms
    assert density.min() > 4
    assert density.max() < 130


# --- figures


def test_breaches_beyond_the_bound_are_set_off():
    figure = breaches([0.0, 1e-3, 0.5, 40.0], title="rotation")
    assert sum(figure.data[0].y) == 4
    assert len(set(figure.data[0].marker.color)) == 2
    with pytest.raises(DataError):
        breaches([])
    with pytest.raises(DataError, match="negative"):
        breaches([-1.0])


def test_a_scan_shows_energy_and_force():
    x = np.linspace(2, 3, 5)
    figure = jump_scan(x, x**2, -2 * x, jump_at_ang=2.5)
    assert len(figure.data) == 2
    assert len(jump_scan(x, x, None, jump_at_ang=2.5).data) == 1
    with pytest.raises(DataError, match="give as many"):
        jump_scan(x, x[1:], None, jump_at_ang=2.5)


def test_the_scan_of_the_worst_stack_is_the_subjects(store):
    model = LennardJones("hard")
    found = physics.run("smoothness", model, store, JUMPS, SCANS)
    scan = physics.scan(model, store, found, "energy")
    assert scan.jump == found.worst["energy"]["deviation"]
    assert len(scan.distances_ang) == len(scan.energies_ev_per_atom)
    assert scan.forces_ev_per_ang is not None


def test_every_procedure_is_about_something():
    assert set(PROCEDURES) == {*TWO_FORMS, *DIFFERENCES, "smoothness", "finiteness"}


# --- faults, for controls


def pair_of_crystals():
    """Krypton, and a cell of krypton and xenon."""
    return Crystals(
        numbers=np.array([36, 36, 54], dtype=np.uint8),
        frac_coords=np.array([[0.0, 0, 0], [0.1, 0, 0], [0.5, 0.5, 0.5]]),
        lattices=np.array([4.2 * np.eye(3), 4.8 * np.eye(3)]),
        offsets=np.array([0, 1, 3]),
    )


EVERYTHING = ("energy", "forces", "stress")


def test_a_fault_is_made_in_part_and_row_by_row():
    crystals = pair_of_crystals()
    said = LennardJones().predict(crystals, EVERYTHING)
    fault = Fault(
        "all of it",
        energy=lambda row, k, e: 10.0 * k + len(row.numbers),
        forces=lambda row, k, f: f[::-1],
        stress=lambda row, k, s: -s,
    )
    whole = fault(crystals, said)
    np.testing.assert_allclose(whole.energy, [21, 22])
    np.testing.assert_allclose(whole.forces[1], said.forces[1][::-1])
    np.testing.assert_allclose(whole.stress, -said.stress)
    part = fault.times(0.5).times(0.5)(crystals, said)
    np.testing.assert_allclose(part.energy, 0.75 * said.energy + 0.25 * np.array([21, 22]))
    np.testing.assert_allclose(part.stress, 0.5 * said.stress)
    np.testing.assert_allclose(part.forces[1], 0.75 * said.forces[1] + 0.25 * said.forces[1][::-1])
    assert (str(fault), str(fault.times(0.25))) == ("all of it", "0.25 of: all of it")
    only_energy = LennardJones().predict(crystals)
    assert fault(crystals, only_energy).forces is None
    assert Fault("none")(crystals, said) == said


def test_a_fault_may_refuse_crystals():
    crystals = pair_of_crystals()
    fault = Fault("no xenon", refuses=lambda row: 54 in row.numbers)
    refused = fault(crystals, LennardJones().predict(crystals))
    assert refused.problems == {1: "planted"}
    assert np.isfinite(refused.energy[0])
    faulty = Faulty(LennardJones(), fault)
    with pytest.raises(ModelError, match=r"rows \[1\] could not be scored"):
        faulty.energies(crystals)
    np.testing.assert_array_equal(
        faulty.energies(crystals[0]), LennardJones().energies(crystals[0])
    )


def test_a_faulty_subject_is_another_one():
    model = LennardJones()
    fault = Fault("weak", forces=lambda r, k, f: 0 * f, card={"theory": "none"}, code="abc")
    faulty = Faulty(model, fault)
    assert faulty.identity.name == "lennard-jones, faulty"
    assert faulty.identity.weights_sha256 == model.identity.weights_sha256
    assert faulty.identity.settings == {**model.identity.settings, "fault": "weak 1.0 abc"}
    assert Faulty(model, fault.times(0.5)).identity.settings["fault"] == "weak 0.5 abc"
    assert faulty.elements == model.elements
    assert faulty.card == replace(model.card, theory="none")
    crystals = pair_of_crystals()
    assert [rows.tolist() for rows in faulty.plan(crystals)] == [[0, 1]]
    assert np.all(faulty.predict(crystals, EVERYTHING).forces[1] == 0)


def test_a_remembering_subject_asks_once_for_each_property_and_crystal():
    model, crystals = LennardJones(), pair_of_crystals()
    subject = Remembering(model)
    first = subject.predict(crystals)
    assert subject.predict(crystals) is first
    assert model.calls == 1
    assert subject.predict(crystals, EVERYTHING).forces is not None
    subject.predict(crystals[0])
    assert model.calls == 3
    assert (subject.identity, subject.elements, subject.card) == (
        model.identity,
        model.elements,
        model.card,
    )
    np.testing.assert_array_equal(subject.energies(crystals), first.energy)
    assert [rows.tolist() for rows in subject.plan(crystals)] == [[0, 1]]


def severe(severity, counterexample=""):
    return Measurement(
        quantity="a law",
        interval=Interval.exact(0.0, n=7),
        scored=7,
        of=7,
        dataset="random crystals",
        model="toy",
        severity=severity,
        counterexample=counterexample,
    )


@pytest.mark.parametrize(
    ("law", "steps"),
    [
        (lambda part: 7000 * part, 2),
        (lambda part: abs(0.2 - 30 * part), 3),
        (lambda part: max(0.1, 3 * part, 400 * part - 100), 13),
        (lambda part: 500 * part**2, 3),
        (lambda part: 500 * part**0.5, 9),
        (lambda part: 1.45 * part, 1),
        (lambda part: 1.3 * part, 1),
        (lambda part: 1.0 * part, 1),
    ],
)
def test_a_fault_is_made_as_small_as_the_bound(law, steps):
    asked = []

    def planted(part):
        asked.append(part)
        return severe(law(part))

    measurement, size = sized(severe(law(0.0)), planted)
    assert measurement.severity == law(size)
    assert law(1.0) < 1.3 or 1.3 <= measurement.severity <= 1.45
    assert len(asked) <= steps
    assert 0 < size <= 1


def test_of_a_fault_that_leaps_the_smallest_breach_is_taken():
    measurement, size = sized(severe(0.0), lambda part: severe(50.0 if part > 0.3 else 0.1))
    assert measurement.severity == 50
    assert 0.3 < size < 0.302


def test_a_fault_that_shows_on_no_crystal_cannot_be_told():
    with pytest.raises(
        CannotResolve,
        match=r"^the fault shows on none of the 7 crystals drawn: the largest breach is 0.99 of "
        r"what is allowed with it and 0.25 without$",
    ):
        sized(severe(0.25), lambda part: severe(0.99))


def test_a_fault_in_what_is_broken_already_shows_nothing():
    with pytest.raises(CannotResolve, match=r"^toy breaks the law as it is \(Kr: by far\)"):
        sized(severe(2.0, "Kr: by far"), lambda part: severe(3.0))


class OneElement(LennardJones):
    """It knows krypton only."""

    def __init__(self):
        super().__init__(card=replace(CARD, elements=frozenset((36,))))
        self.elements = frozenset((36,))


@pytest.mark.parametrize("procedure", ["permutation", "finiteness"])
def test_a_subject_of_one_element_is_drawn_for(store, procedure):
    allowed = OUTPUTS if procedure == "finiteness" else EXACT
    measurement = physics.run(procedure, OneElement(), store, allowed, FEW).measurement(
        next(iter(allowed))
    )
    assert measurement.scored == measurement.of >= 4
    assert measurement.counterexample == ""


def test_forces_listed_by_number_show_only_where_numbers_differ(store):
    by_number = Fault(
        "by number", forces=lambda r, k, f: f[np.argsort(r.numbers, kind="stable")], code="1"
    )

    def of(model):
        def planted(part):
            faulty = Faulty(model, by_number.times(part))
            return physics.run("permutation", faulty, store, EXACT, FEW).measurement("forces")

        own = physics.run("permutation", model, store, EXACT, FEW).measurement("forces")
        return sized(own, planted)

    with pytest.raises(CannotResolve, match="shows on none of the"):
        of(OneElement())
    measurement, size = of(LennardJones())
    assert 1.3 <= measurement.severity <= 1.45
    assert size < 0.1
    assert "Kr" in measurement.counterexample
    assert "Xe" in measurement.counterexample


# --- the package


def test_parts_of_the_package_import_those_before_them_and_no_other_runner():
    order = ["search", "subject", "smoothness", "laws", "found", "declarations", "faults"]
    folder = Path(physics.__file__).parent
    assert sorted(path.stem for path in folder.glob("*.py")) == sorted([*order, "__init__"])
    for i, name in enumerate(order):
        tree = ast.parse((folder / f"{name}.py").read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                assert node.level <= 1
                assert not (node.module or "").startswith("harness.runners")
                assert node.level == 0 or node.module in order[:i]
