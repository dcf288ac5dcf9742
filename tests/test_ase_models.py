"""Any ASE calculator as a subject: ASE's own numbers, and an answer for whatever goes wrong."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.calculators.morse import MorsePotential
from ase.units import GPa
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from harness.data.crystals import Crystals
from harness.errors import ConfigError, DataError, HarnessError, ModelError, NotAvailable
from harness.models import MODELS, check_name, load_model, weights
from harness.models.ase import ATOMS_PER_BATCH, parse
from harness.models.cards import UNDECLARED, Card, elements_named
from harness.models.protocol import Model
from harness.store import PredictionStore
from tests.declared import element_crystals, elements_not_scored, unit_slopes

EMT_NAME = "ase:ase.calculators.emt:EMT"
LJ_NAME = "ase:ase.calculators.lj:LennardJones?sigma=2.3&epsilon=0.1&rc=6.0&smooth=true"
MORSE_NAME = "ase:ase.calculators.morse:MorsePotential?epsilon=0.5&r0=2.6"
ALL = ("energy", "forces", "stress")


def crystal(numbers: list[int], coords: object, edge_ang: float = 4.1) -> Crystals:
    """One row in a slightly skewed cell."""
    return Crystals(
        numbers=np.array(numbers, dtype=np.uint8),
        frac_coords=np.array(coords, dtype=float).reshape(-1, 3),
        lattices=edge_ang * np.array([[[1.0, 0.1, 0.0], [0.0, 1.0, 0.05], [0.02, 0.0, 0.9]]]),
        offsets=np.array([0, len(numbers)], dtype=np.int64),
    )


FCC = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
RATTLED = FCC + np.random.default_rng(0).normal(scale=0.02, size=FCC.shape)
METALS = Crystals.concatenate(
    [
        crystal([29, 29, 29, 29], RATTLED),
        crystal([13], [[0, 0, 0]], edge_ang=2.7),
        crystal([79, 47, 29, 29], RATTLED[::-1], edge_ang=4.3),
    ]
)
IRON = crystal([26, 29], [[0, 0, 0], [0.5, 0.5, 0.5]], edge_ang=3.0)
TOGETHER = crystal([29, 29], [[0, 0, 0], [0, 0, 0]], edge_ang=6.0)  # two atoms in one place


@pytest.mark.parametrize(
    ("name", "calculator"),
    [
        (EMT_NAME, EMT()),
        (LJ_NAME, LennardJones(sigma=2.3, epsilon=0.1, rc=6.0, smooth=True)),
        (MORSE_NAME, MorsePotential(epsilon=0.5, r0=2.6)),
    ],
    ids=["emt", "lj", "morse"],
)
def test_numbers_are_those_of_ase_in_our_units(name: str, calculator: object) -> None:
    model = load_model(name)
    found = model.predict(METALS, ALL)
    assert found.problems == {}
    assert found.forces is not None
    assert found.stress is not None
    for row in range(len(METALS)):
        atoms = METALS.atoms(row)
        atoms.calc = calculator
        assert found.energy[row] == pytest.approx(atoms.get_potential_energy() / len(atoms))
        np.testing.assert_allclose(found.forces[row], atoms.get_forces(), atol=1e-12)
        expected = atoms.get_stress(voigt=False) / GPa
        np.testing.assert_allclose(found.stress[row], expected, rtol=1e-8, atol=1e-10)
    np.testing.assert_array_equal(model.energies(METALS), found.energy)
    assert isinstance(model, Model)


@pytest.mark.parametrize("name", [EMT_NAME, LJ_NAME, MORSE_NAME])
def test_forces_and_stress_have_the_declared_units(name: str) -> None:
    slopes = unit_slopes(load_model(name), METALS, step_ang=1e-4, step_strain=1e-4)
    assert slopes.forces == pytest.approx(1, abs=1e-4)
    assert slopes.stress == pytest.approx(1, abs=1e-4)


CELLS = st.integers(1, 4).flatmap(
    lambda n: st.tuples(
        st.lists(st.sampled_from([13, 29, 47, 79, 26]), min_size=n, max_size=n),
        arrays(float, (n, 3), elements=st.floats(-0.05, 0.05)),
        st.floats(3.8, 5.0),
    )
)


@given(cells=st.lists(CELLS, min_size=1, max_size=5), data=st.data())
@settings(max_examples=25, deadline=None)
def test_a_row_gives_the_same_whatever_is_beside_it(
    cells: list[tuple[list[int], np.ndarray, float]], data: st.DataObject
) -> None:
    crystals = Crystals.concatenate(
        [crystal(numbers, FCC[: len(numbers)] + shift, edge) for numbers, shift, edge in cells]
    )
    order = np.array(data.draw(st.permutations(range(len(crystals)))), dtype=int)
    model = load_model(EMT_NAME)
    together = model.predict(crystals[order], ALL)
    assert together.forces is not None
    assert together.stress is not None
    for position, row in enumerate(order.tolist()):
        alone = model.predict(crystals[row], ALL)
        assert alone.forces is not None
        assert alone.stress is not None
        np.testing.assert_array_equal(together.energy[position], alone.energy[0])
        np.testing.assert_array_equal(together.forces[position], alone.forces[0])
        np.testing.assert_array_equal(together.stress[position], alone.stress[0])
        assert together.problems.get(position) == alone.problems.get(0)
        assert (0 in alone.problems) == (26 in cells[row][0])  # EMT knows no iron


@given(sizes=st.lists(st.integers(1, 400), max_size=30))
@settings(deadline=None)
def test_the_plan_covers_every_row_once_in_batches_of_some_hundred_atoms(sizes: list[int]) -> None:
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    rows = Crystals(
        numbers=np.full(offsets[-1], 29, np.uint8),
        frac_coords=np.zeros((offsets[-1], 3)),
        lattices=np.tile(np.eye(3) * 20.0, (len(sizes), 1, 1)),
        offsets=offsets,
    )
    plan = load_model(EMT_NAME).plan(rows)
    assert [row for batch in plan for row in batch] == list(range(len(sizes)))
    for batch in plan:
        assert len(batch) == 1 or rows.n_atoms[batch].sum() <= ATOMS_PER_BATCH
    again = load_model(EMT_NAME).plan(rows)
    assert [batch.tolist() for batch in again] == [batch.tolist() for batch in plan]


# --- rows that cannot be scored -------------------------------------------------------------------


def test_an_unknown_element_is_that_rows_problem_in_the_calculators_words() -> None:
    found = load_model(EMT_NAME).predict(Crystals.concatenate([METALS, IRON]), ALL)
    assert found.problems == {3: "NotImplementedError: No EMT-potential for Fe"}
    assert np.isfinite(found.energy[:3]).all()
    assert found.forces is not None
    assert np.isnan(found.forces[3]).all()


def test_what_is_not_finite_is_no_number_and_its_warnings_are_no_faults() -> None:
    model = load_model(LJ_NAME)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("error")
        found = model.predict(Crystals.concatenate([METALS, TOGETHER]), ALL)
        with pytest.raises(ModelError, match=r"row 1: its energy is not finite"):
            model.energies(Crystals.concatenate([METALS[:1], TOGETHER]))
    assert list(found.problems) == [3]
    assert "not finite" in found.problems[3]
    assert {w.category for w in caught} == {RuntimeWarning}


def test_declared_elements_are_all_that_is_scored() -> None:
    model = load_model(f"{LJ_NAME}&card.elements=Cu,Ag-Cd")
    assert model.elements == {29, 47, 48}
    assert model.predict(METALS).problems == {
        1: "Al not among the declared elements",
        2: "Au not among the declared elements",
    }


def test_a_property_it_does_not_implement_is_not_available() -> None:
    with pytest.raises(NotAvailable, match=r"LennardJones.* gives no magmoms, only energy, forces"):
        load_model(LJ_NAME).predict(METALS, ("energy", "magmoms"))
    with pytest.raises(NotAvailable, match=r"EMT gives no magmoms.*not present in this calcul"):
        load_model(EMT_NAME).predict(METALS, ("magmoms",))  # which its class lists
    with pytest.raises(ConfigError, match="there are energy, forces, stress, magmoms"):
        load_model(EMT_NAME).predict(METALS, ("dipole",))


# --- calculators with faults ----------------------------------------------------------------------

SOURCE = '''
import errno, warnings
import numpy as np
from ase.calculators.calculator import Calculator, all_changes

class Odd(Calculator):
    """Energy: the number of rows it has seen since it was reset."""
    implemented_properties = ["energy", "forces", "magmoms"]

    def __init__(self, fault="", device="none", path=""):
        super().__init__()
        if fault == "construction":
            raise RuntimeError("no licence server")
        self.fault, self.device, self.seen = fault, device, 0

    def reset(self):
        super().reset()
        self.seen = 0

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.seen += 1
        n = len(atoms)
        if self.fault == "warns":
            warnings.warn("slow neighbour list")
            warnings.warn("old interface", DeprecationWarning)
        if self.fault == "memory" and n > 1:
            raise MemoryError
        if self.fault == "disk" and n > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        if self.fault == "output" and n > 1:
            raise FileNotFoundError("OUTCAR")
        if self.fault == "import":
            import no_such_package
        shape = (1,) if self.fault == "shape" else (n, 3)
        self.results = {"energy": float(self.seen), "forces": np.zeros(shape),
                        "magmoms": -np.arange(3.0 * n).reshape(n, 3) if self.fault == "vectors"
                        else -np.ones(n)}

def not_a_calculator():
    return object()
'''


@pytest.fixture
def odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "odd_calculators.py"
    path.write_text(SOURCE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "odd_calculators", raising=False)
    return path


def faulty(fault: str) -> Model:
    return load_model(f"ase:odd_calculators:Odd?fault={fault}", "cpu")


def test_nothing_of_one_row_is_left_for_the_next(odd: Path) -> None:
    np.testing.assert_array_equal(
        faulty("none").predict(METALS).energy, 1 / METALS.n_atoms
    )  # its counter started anew for every row


def test_warnings_of_a_calculator_are_not_faults_of_a_row(odd: Path) -> None:
    with pytest.warns(UserWarning, match="slow neighbour list") as caught:
        found = faulty("warns").predict(METALS)
    assert found.problems == {}
    assert {w.category for w in caught} == {UserWarning}


@pytest.mark.parametrize("fault", ["memory", "disk"])
def test_what_gives_out_for_a_while_is_never_stored_as_a_rows_problem(
    odd: Path, tmp_path: Path, fault: str
) -> None:
    store = PredictionStore(tmp_path / "store")
    with pytest.raises(ModelError, match="run again"):
        store.energies(faulty(fault), METALS)
    assert store.traffic.computed == 0


def test_a_missing_output_file_is_the_rows_problem(odd: Path) -> None:
    found = faulty("output").predict(METALS)
    assert found.problems == dict.fromkeys((0, 2), "FileNotFoundError: OUTCAR")


def test_a_package_missing_at_the_first_calculation_is_not_available(odd: Path) -> None:
    with pytest.raises(NotAvailable, match="no_such_package"):
        faulty("import").predict(METALS)


def test_a_wrong_shape_is_no_number(odd: Path) -> None:
    found = faulty("shape").predict(METALS[:1], ("forces",))
    assert found.problems == {0: "its forces has shape (1,) for 4 atoms"}


def test_moments_are_magnitudes(odd: Path) -> None:
    along_an_axis = faulty("none").predict(METALS[:1], ("magmoms",)).magmoms
    assert along_an_axis is not None
    np.testing.assert_array_equal(along_an_axis[0], np.ones(4))
    vectors = faulty("vectors").predict(METALS[1:2], ("magmoms",)).magmoms
    assert vectors is not None
    np.testing.assert_allclose(vectors[0], [np.sqrt(5.0)])


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("ase:odd_calculators:Odd?fault=construction", ModelError, "no licence server"),
        ("ase:odd_calculators:not_a_calculator", ConfigError, "a object, which is no ASE calc"),
        ("ase:odd_calculators:Odd?falt=x", ConfigError, "unexpected keyword argument 'falt'"),
        ("ase:ase.calculators.lj:LennardJones?sigm=3", ConfigError, "would ignore sigm"),
        ("ase:ase.calculators.emt:EMTT", ConfigError, "has no EMTT"),
        ("ase:ase.calculators.emtt:EMT", ConfigError, "has no module ase.calculators.emtt"),
        ("ase:ase.calculators.emt:parameters", ConfigError, "cannot be called"),
        ("ase:ase.atoms:Atoms", ConfigError, "gives a Atoms, which is no ASE calculator"),
        ("ase:no_such_package.calculators:X", NotAvailable, "Install it with pip"),
        ("ase:ase.calculators.emt", ConfigError, "names no ASE calculator"),
        ("ase:ase.calculators.emt:EMT?x", ConfigError, "'x' in .* is no key=value"),
        ("ase:m:F?x=1&x=2", ConfigError, "given twice"),
        ("ase:m:F?card.author=me", ConfigError, "declares nothing; there are card.elements"),
        ("ase:m:F?card.elements=Al,Xy", ConfigError, "'Xy' in 'Al,Xy' is no element"),
        ("ase:m:F?card.elements=Cu-Al", ConfigError, "runs backwards; write Al-Cu"),
        ("emt", ConfigError, "known: chgnet-0.3.0.*or ase:"),
    ],
)
def test_wrong_names_and_arguments_say_what_to_do(
    odd: Path, name: str, error: type[HarnessError], says: str
) -> None:
    with pytest.raises(error, match=says):
        load_model(name, "cpu")


def test_a_name_is_checked_before_anything_is_imported() -> None:
    check_name("ase:no_such_package:Factory?x=1")
    with pytest.raises(ConfigError):
        check_name("ase:no_such_package.Factory")
    with pytest.raises(ConfigError, match="has no EMTT"):
        check_name("ase:ase.calculators.emt:EMTT", resolve=True)
    for name in MODELS:
        check_name(name, resolve=True)


def test_every_named_model_says_where_its_weights_are() -> None:
    assert set(weights()) == set(MODELS)


# --- names, identities, cards ---------------------------------------------------------------------


def test_values_of_a_query_are_numbers_booleans_or_strings() -> None:
    spec = parse(
        'ase:a.b:C.from_file?i=3&f=.5&e=1e-3&t=true&n=False&s=PBE&q="7"&p=a%26b=c&z='
        "&card.theory=r2SCAN, no U"
    )
    assert spec.arguments == {
        "i": 3,
        "f": 0.5,
        "e": 1e-3,
        "t": True,
        "n": False,
        "s": "PBE",
        "q": "7",
        "p": "a&b=c",
        "z": "",
    }
    assert [type(value) for value in spec.arguments.values()][:5] == [int, float, float, bool, bool]
    assert (spec.module, spec.factory) == ("a.b", "C.from_file")
    assert spec.declared == {"theory": "r2SCAN, no U"}


def test_whatever_changes_a_number_changes_the_identity(odd: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.txt"
    table.write_text("1", encoding="utf-8")
    name = f"ase:odd_calculators:Odd?path={table}"
    before = load_model(name, "cpu").identity
    assert load_model(name, "cpu").identity == before
    assert load_model(f"{name}&fault=warns", "cpu").identity != before
    assert load_model(name, "cuda").identity != before  # it has a parameter `device`
    assert '"device": "cpu"' in before.settings["arguments"]
    table.write_text("2", encoding="utf-8")
    assert load_model(name, "cpu").identity != before
    table.write_text("1", encoding="utf-8")
    assert load_model(name, "cpu").identity == before
    odd.write_text(SOURCE + "\nX = 1\n", encoding="utf-8")
    assert load_model(name, "cpu").identity != before


def test_the_store_keeps_subjects_apart(tmp_path: Path) -> None:
    store = PredictionStore(tmp_path)
    first, second = (load_model(f"{LJ_NAME}&ro={ro}") for ro in (4.0, 5.0))
    energies = [store.predict(model, METALS, ALL).energy for model in (first, second, first)]
    assert (energies[0] != energies[1]).any()
    np.testing.assert_array_equal(energies[0], energies[2])
    assert (store.traffic.computed, store.traffic.found) == (6, 3)


def test_a_card_says_what_was_declared_and_what_was_not() -> None:
    card = load_model(f"{EMT_NAME}?card.elements=Al,Ni-Cu&card.theory=fitted").card
    assert card.elements == {13, 28, 29}
    assert card.lines()["elements"] == "Al, Ni-Cu (3)"
    assert card.theory == "fitted"
    assert card.energies == UNDECLARED
    assert card.units["stress"] == "GPa, tension positive"
    assert load_model(EMT_NAME).card.elements is None
    assert "magmoms" in card.properties  # as its class says, though it never gives any
    fewer = load_model(f"{EMT_NAME}?card.properties=energy,forces")
    with pytest.raises(NotAvailable, match="gives no stress, only energy, forces"):
        fewer.predict(METALS, ALL)
    with pytest.raises(ConfigError, match="LennardJones gives energy, forces, stress"):
        load_model("ase:ase.calculators.lj:LennardJones?card.properties=energy,magmoms")
    with pytest.raises(ConfigError, match="energy, and of"):
        Card(elements=None, properties=("forces",))


def test_declared_elements_without_an_energy_are_found() -> None:
    assert elements_not_scored(load_model(f"{EMT_NAME}?card.elements=Al,Cu,Au")) == {}
    assert elements_not_scored(load_model(f"{EMT_NAME}?card.elements=Al,Fe")) == {
        26: "NotImplementedError: No EMT-potential for Fe"
    }
    with pytest.raises(NotAvailable, match="declares no elements"):
        elements_not_scored(load_model(EMT_NAME))


def test_every_element_has_a_crystal_with_neighbours_in_reach() -> None:
    crystals = element_crystals(elements_named("H-Og"))
    assert crystals.numbers.tolist() == list(range(1, 119))
    shortest = np.linalg.norm(crystals.lattices, axis=2)
    assert (shortest >= 1.5 - 1e-9).all()
    assert (shortest <= 5.3).all()  # twice the radius of caesium or francium


class InOtherUnits:
    """A subject whose reported stress, or forces, are off by a factor."""

    def __init__(self, model: Model, *, forces: float = 1.0, stress: float = 1.0) -> None:
        self._model, self._factors = model, (forces, stress)

    def __getattr__(self, name: str) -> object:
        return getattr(self._model, name)

    def predict(self, crystals: Crystals, properties: tuple[str, ...] = ("energy",)) -> object:
        found = self._model.predict(crystals, properties)
        if found.forces is not None and found.stress is not None:
            found.forces[:] = [self._factors[0] * f for f in found.forces]
            found.stress[:] *= self._factors[1]
        return found


def test_units_and_signs_show_in_the_slopes() -> None:
    model = load_model(EMT_NAME)
    in_ev = unit_slopes(InOtherUnits(model, forces=-1, stress=GPa), METALS)  # type: ignore[arg-type]
    assert in_ev.forces == pytest.approx(-1, abs=0.02)
    assert in_ev.stress == pytest.approx(1 / GPa, rel=0.02)
    with pytest.raises(DataError, match="forces vanish"):
        unit_slopes(model, METALS[1:2])  # one atom a cell: no force by symmetry
    with pytest.raises(ModelError, match="No EMT-potential for Fe"):
        unit_slopes(model, IRON)


def test_every_chgnet_declares_its_theory_and_a_network_trained_here_does_not() -> None:
    from harness.models.chgnet.card import card_of

    cards = {name: card_of(name) for name in MODELS if name.startswith("chgnet")}
    assert {name: card.theory[:6] for name, card in cards.items()} == {
        "chgnet-0.3.0": "PBE, a",
        "chgnet-0.2.0": "PBE, a",
        "chgnet-r2scan": "r2SCAN",
    }
    assert all("not" in card.energies for card in cards.values())
    assert card_of("chgnet-0.3.0 tuned").training_set == UNDECLARED
