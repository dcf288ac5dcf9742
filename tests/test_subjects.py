"""Names of subjects: a models file, an alias, and models that installed packages bring."""

from __future__ import annotations

import json
import pickle
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from harness.errors import ConfigError, HarnessError, ModelError, NotAvailable
from harness.models import ENTRY_POINTS, Card, Identity, Model, load_model, third_parties
from harness.models.subjects import Subject, chosen, read_models
from harness.store import PredictionStore
from tests.fakes import cubes

METALS = cubes([[29, 29], [13], [79, 47, 29]], edge_ang=5.0)
EMT = "ase:ase.calculators.emt:EMT"
LJ = "ase:ase.calculators.lj:LennardJones"


def models_file(folder: Path, text: str) -> Path:
    path = folder / "models.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_an_entry_is_the_long_name_it_stands_for(tmp_path: Path) -> None:
    path = models_file(
        tmp_path,
        """
        [soft.lj-1]
        model = "ase:ase.calculators.lj:LennardJones"
        [soft]
        model = "ase:ase.calculators.lj:LennardJones?sigma=2.5"
        kwargs = { epsilon = 0.01, rc = 6, smooth = true }
        theory = "50% & more"
        elements = ["Cu", "Ag-Cd"]
        threads = 2
        """.replace("[soft.lj-1]", '["soft.lj-1"]'),
    )
    subjects = read_models(path)
    assert list(subjects) == ["soft.lj-1", "soft"]
    assert subjects["soft"] == Subject(
        name="soft",
        model=f"{LJ}?sigma=2.5&epsilon=0.01&rc=6&smooth=true&threads=2&"
        "card.elements=Cu,Ag-Cd&card.theory=50%25 %26 more",
    )
    model = subjects["soft"].load("cpu")
    assert model.identity.name == "soft"
    assert model.card.theory == "50% & more"
    assert model.elements == {29, 47, 48}
    assert model.identity.settings["threads"] == "2"
    plain = load_model(f"{LJ}?sigma=2.5&epsilon=0.01&rc=6&smooth=true", "cpu")
    np.testing.assert_array_equal(
        model.predict(METALS[:1]).energy, plain.predict(METALS[:1]).energy
    )


def test_values_keep_their_types_on_their_way(tmp_path: Path) -> None:
    from harness.models import ase

    path = models_file(
        tmp_path,
        """
        [all]
        model = "ase:m:F"
        [all.kwargs]
        i = 7
        f = 1e-7
        b = false
        s = "7"
        q = 'a"b & c%26'
        n = [1, "x"]
        t = { u = 2.0 }
        """,
    )
    given = ase.parse(read_models(path)["all"].model).arguments
    expected = {
        "i": 7,
        "f": 1e-7,
        "b": False,
        "s": "7",
        "q": 'a"b & c%26',
        "n": [1, "x"],
        "t": {"u": 2.0},
    }
    assert given == expected
    assert [type(value) for value in given.values()] == [type(v) for v in expected.values()]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[a", "cannot be read"),
        ('a = "chgnet-0.3.0"', r"\[a\]: write a table"),
        ('["a b"]\nmodel = "chgnet-0.3.0"', "letters, digits"),
        ('[chgnet-r2scan]\nmodel = "chgnet-0.3.0"', "give yours another name"),
        ("[a]", 'write model = "NAME"'),
        ("[a]\nmodel = 3", 'write model = "NAME"'),
        ('[a]\nmodel = "chgnet-0.3.0"\nthoery = "PBE"', "no key thoery; there are model, python"),
        ('[a]\nmodel = "chgnet-0.4.0"', r"\[a\]: no model 'chgnet-0.4.0'"),
        ('[a]\nmodel = "chgnet-0.3.0"\ntheory = "PBE"', "has a card of its own; leave out theory"),
        ('[a]\nmodel = "chgnet-0.3.0"\nthreads = 2', "are for a model ase:"),
        ('[a]\nmodel = "ase:m:F"\nkwargs = 3', "kwargs = { key = value }"),
        ('[a]\nmodel = "ase:m:F"\nkwargs = { threads = 3 }', "threads among kwargs would be taken"),
        ('[a]\nmodel = "ase:m:F"\nkwargs = { x = nan }', "x = nan is not finite"),
        ('[a]\nmodel = "ase:m:F"\nkwargs = { x = 2026-01-01 }', "cannot be given on"),
        ('[a]\nmodel = "ase:m:F?x=1"\nkwargs = { x = 2 }', "'x' is given twice"),
        ('[a]\nmodel = "ase:m:F"\nworkers = 0', "workers=0: give a number, at least 1"),
        ('[a]\nmodel = "ase:m:F"\nthreads = 1.5', "threads=1.5: give a number"),
        ('[a]\nmodel = "ase:m:F"\ntheory = ""', "theory = ''; write what it declares"),
        ('[a]\nmodel = "ase:m:F"\nelements = "Xy"', "'Xy' in 'Xy' is no element"),
        ('[a]\nmodel = "ase:m:F"\npython = "no/such/python"', "is no Python: name the python of"),
        ('[a]\nmodel = "chgnet-0.3.0"\npython = "/bin/sh"', "is computed by this environment"),
    ],
)
def test_an_entry_that_makes_no_sense_is_refused_with_its_place(
    tmp_path: Path, text: str, says: str
) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        read_models(models_file(tmp_path, text))
    assert str(tmp_path / "models.toml") in str(caught.value)


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_models_file_that_cannot_be_read_is_refused(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "models.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_models(path)


def test_the_subject_is_looked_for_in_the_file_and_among_the_models(tmp_path: Path) -> None:
    path = models_file(
        tmp_path, f'[mine]\nmodel = "{EMT}"\npython = "{sys.executable}"\ntheory = "fitted"'
    )
    assert chosen("mine", models=path) == Subject(
        name="mine", model=f"{EMT}?card.theory=fitted", python=sys.executable
    )
    assert chosen("mine", models=path, python="/bin/sh").python == "/bin/sh"
    assert chosen("mine", models=path, alias="ours and yours").name == "ours and yours"
    assert chosen("chgnet-0.3.0", models=path) == chosen("chgnet-0.3.0")
    with pytest.raises(ConfigError, match=r"no model 'min'.*models.toml has mine"):
        chosen("min", models=path)
    for alias in ("", "two\nlines", "x" * 101):
        with pytest.raises(ConfigError, match="up to 100 characters on one line"):
            chosen("chgnet-0.3.0", alias=alias)
    assert pickle.loads(pickle.dumps(chosen("mine", models=path))) == chosen("mine", models=path)  # noqa: S301


def test_how_it_runs_is_no_part_of_what_it_is_called() -> None:
    subject = chosen(f"{EMT}?workers=2&timeout_seconds=9.5&asap_cutoff=true&card.theory=x")
    assert subject.name == f"{EMT}?asap_cutoff=true&card.theory=x"
    assert subject.load("cpu").identity.name == subject.name
    assert chosen(f"{EMT}?workers=2").name == EMT


def test_an_alias_finds_what_was_stored_without_it(tmp_path: Path) -> None:
    store = PredictionStore(tmp_path)
    plain = chosen(EMT).load("cpu")
    alias = chosen(f"{EMT}?card.theory=fitted&workers=1", alias="mine").load("cpu")
    assert (plain.identity.name, alias.identity.name) == (EMT, "mine")
    np.testing.assert_array_equal(
        store.energies(plain, METALS).energy, store.energies(alias, METALS).energy
    )
    assert (store.traffic.computed, store.traffic.found) == (3, 3)
    assert plain.identity.addressed() == alias.identity.addressed()


def test_an_alias_of_a_published_model_keeps_its_card_and_its_predictions() -> None:
    pytest.importorskip("chgnet")
    plain, alias = (load_model("chgnet-0.3.0", "cpu", alias=name) for name in (None, "stock"))
    assert alias.identity.name == "stock"
    assert alias.identity.addressed() == plain.identity.addressed()
    assert alias.card == plain.card
    assert alias.card.theory.startswith("PBE")


def test_another_python_is_for_calculators_alone() -> None:
    with pytest.raises(ConfigError, match="another python is for ase:"):
        load_model("chgnet-0.3.0", "cpu", python=sys.executable)


# --- models that installed packages bring ---------------------------------------------------------

THIRD_PARTY = '''
import numpy as np
from harness.models import Card, Identity, Prediction, packing

class Ten:
    """Ten times the number of atoms, in eV."""
    def __init__(self, device):
        self.identity = Identity(name="ten", weights_sha256="1" * 64, settings={"version": "2"})
        self.elements = frozenset(range(1, 95))
        self.card = Card(elements=self.elements, theory="PBE", training_set="none", energies="10")

    def plan(self, crystals):
        return packing.packed(np.arange(len(crystals)), crystals.n_atoms, 1000)

    def predict(self, crystals, properties=("energy",)):
        return Prediction(energy=np.full(len(crystals), 10.0))

    def energies(self, crystals):
        return self.predict(crystals).energy

def needs(device):
    import no_such_engine

def breaks(device):
    raise RuntimeError("the licence has expired")

def another(device):
    return Ten(device).energies

def named_otherwise(device):
    return Ten(device)

def calculator(device):
    from ase.calculators.emt import EMT
    from harness.models import Card
    from harness.models.ase import subject
    gives = ("energy", "forces", "stress")
    card = Card(elements=frozenset([29]), theory="EMT", properties=gives)
    return subject(EMT(), name="third-emt", card=card, settings={"version": "2.0"})
'''


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package on the path, with the metadata that pip would have left."""
    (tmp_path / "third_party_potential.py").write_text(THIRD_PARTY, encoding="utf-8")
    metadata = tmp_path / "third_party_potential-2.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: third-party-potential\nVersion: 2.0\n", encoding="utf-8"
    )
    points = {
        "ten": "Ten",
        "needs": "needs",
        "breaks": "breaks",
        "another": "another",
        "eleven": "named_otherwise",
        "third-emt": "calculator",
        "gone": "no_such_function",
        "chgnet-0.3.0": "Ten",
    }
    lines = [f"{name} = third_party_potential:{what}" for name, what in points.items()]
    (metadata / "entry_points.txt").write_text(
        "\n".join(["[mlip_claims.models]", *lines, ""]), encoding="utf-8"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "third_party_potential", raising=False)


def test_a_package_brings_a_subject_by_its_entry_point(installed: None, tmp_path: Path) -> None:
    assert "ten" in third_parties()
    model = chosen("ten").load("cpu")
    assert isinstance(model, Model)
    assert PredictionStore(tmp_path / "store").energies(model, METALS).energy.tolist() == [10.0] * 3
    assert chosen("ten", alias="x").load("cpu").identity.addressed()["name"] == "ten"
    with pytest.raises(ConfigError, match=r"known: chgnet-0.3.0.*, ten, .*entry point"):
        chosen("elevn")


def test_the_adapter_of_the_docs_is_short_and_works_as_it_stands(
    installed: None, tmp_path: Path
) -> None:
    docs = (Path(__file__).parents[1] / "docs" / "models.md").read_text(encoding="utf-8")
    code = docs.split("```python\n")[1].split("```")[0]
    assert len([line for line in code.splitlines() if line.strip()]) < 20
    package = tmp_path / "my_package"
    package.mkdir()
    (package / "claims.py").write_text(code, encoding="utf-8")
    (package / "__init__.py").write_text(
        """
        from ase.calculators.emt import EMT
        __version__ = "1.5"
        def Calculator(device): return EMT()
        """.replace("\n        ", "\n"),
        encoding="utf-8",
    )
    points = tmp_path / "third_party_potential-2.0.dist-info" / "entry_points.txt"
    entry = docs.split("```toml\n[project")[1].split("\n```")[0].splitlines()[1]
    name, _, target = entry.partition(" = ")
    points.write_text(f"[{ENTRY_POINTS}]\n{name} = {json.loads(target)}\n", encoding="utf-8")
    model = load_model("my-potential", "cpu")
    assert model.identity.settings["my_package"] == "1.5"
    assert model.predict(METALS, ("stress",)).problems == {}


def test_a_calculator_of_a_package_is_a_subject_in_one_line(installed: None) -> None:
    model = load_model("third-emt", "cpu")
    assert model.card.theory == "EMT"
    assert "stress" in model.card.properties
    assert model.identity.settings["package"].startswith("ase ")
    assert "no parameters were found" in model.identity.weights_sha256
    np.testing.assert_array_equal(
        model.predict(METALS[0]).energy, load_model(EMT).predict(METALS[0]).energy
    )
    assert list(model.predict(METALS).problems) == [1, 2]  # of elements it does not declare


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("needs", NotAvailable, "needs of third-party-potential lacks something.*no_such_engine"),
        ("breaks", ModelError, "could not be loaded: RuntimeError: the licence has expired"),
        ("gone", ModelError, "could not be loaded: AttributeError"),
        ("another", ModelError, "gives a method, which is no subject of that name"),
        ("eleven", ModelError, "gives a Ten, which is no subject of that name"),
    ],
)
def test_what_a_package_brings_wrongly_is_said(
    installed: None, name: str, error: type[HarnessError], says: str
) -> None:
    with pytest.raises(error, match=says):
        load_model(name, "cpu")


def test_a_package_does_not_replace_a_model_of_the_harness(installed: None) -> None:
    pytest.importorskip("chgnet")
    assert load_model("chgnet-0.3.0", "cpu").identity.name == "chgnet-0.3.0"
    assert len(load_model("chgnet-0.3.0", "cpu").identity.settings) > 1


def test_a_subject_whose_identity_is_fixed_has_no_alias(monkeypatch: pytest.MonkeyPatch) -> None:
    from harness import models

    @dataclass(frozen=True)
    class Fixed:
        identity: Identity = Identity(name="fixed", weights_sha256="")  # noqa: RUF009
        elements: frozenset[int] = frozenset()
        card: Card = Card(elements=frozenset())  # noqa: RUF009

    monkeypatch.setitem(models.MODELS, "fixed", lambda device: Fixed())  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="cannot be called 'x': its identity is fixed"):
        load_model("fixed", "cpu", alias="x")
