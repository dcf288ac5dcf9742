"""A CHGNet of one's own: every way chgnet saves one is read, as tensors alone, or refused."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from harness.data import load_dataset  # noqa: E402
from harness.errors import ConfigError, ModelError  # noqa: E402
from harness.models import check_name, load_model  # noqa: E402
from harness.models.cards import UNDECLARED  # noqa: E402
from harness.models.chgnet import parse  # noqa: E402
from harness.models.chgnet.weights import read_checkpoint, read_chgnet  # noqa: E402
from harness.runners.single_point import chgnets_own  # noqa: E402
from harness.store import PredictionStore  # noqa: E402


@pytest.fixture(scope="module")
def crystals():
    return load_dataset("embedded").crystals[:4]


@pytest.fixture(scope="module")
def element(crystals):
    """One that the first crystal holds, by its column."""
    return int(crystals.numbers[0]) - 1


@pytest.fixture(scope="module")
def tuned(element):
    """0.3.0 with one number changed."""
    network = copy.deepcopy(read_chgnet("0.3.0"))
    network.composition_model.fc.weight[0, element] += 0.25
    return network


def saved(path: Path, held: object) -> str:
    torch.save(held, path)
    return f"chgnet:{path}"


@pytest.mark.parametrize("form", ["trainer", "as_dict", "state_dict"])
def test_every_way_of_saving_gives_the_same_subject(tmp_path, tuned, crystals, element, form):
    held = {
        "trainer": {"model": tuned.as_dict(), "optimizer": {}, "trainer_args": {"targets": "ef"}},
        "as_dict": tuned.as_dict(),
        "state_dict": tuned.state_dict(),
    }[form]
    model, stock = load_model(saved(tmp_path / "ft.pt", held), "cpu"), load_model("chgnet-0.3.0")
    assert model.identity.name == "chgnet:ft.pt"
    assert model.identity.settings == stock.identity.settings
    assert model.identity.weights_sha256 != stock.identity.weights_sha256
    moved = 0.25 * crystals.fractions()[:, element]
    assert moved.any()
    np.testing.assert_allclose(
        model.energies(crystals), stock.energies(crystals) + moved, atol=1e-6
    )


def test_stock_weights_from_a_file_give_the_numbers_of_the_name(tmp_path, crystals):
    own = load_model(saved(tmp_path / "stock.pt", read_chgnet("0.3.0").as_dict()), "cpu")
    stock = load_model("chgnet-0.3.0", "cpu")
    assert own.identity.weights_sha256 == stock.identity.weights_sha256
    wanted = ("energy", "forces", "stress", "magmoms")
    mine, theirs = own.predict(crystals, wanted), stock.predict(crystals, wanted)
    np.testing.assert_array_equal(mine.energy, theirs.energy)
    np.testing.assert_array_equal(mine.stress, theirs.stress)
    for one, other in zip(mine.forces, theirs.forces, strict=True):
        np.testing.assert_array_equal(one, other)


def test_chgnets_own_code_is_asked_with_the_same_weights(tmp_path, tuned, crystals):
    model = load_model(saved(tmp_path / "ft.pt", tuned.as_dict()), "cpu")
    own = chgnets_own(
        model, PredictionStore(tmp_path / "store"), {"first": crystals[:1]}, "float32"
    )
    assert own.prediction.energy == pytest.approx(model.energies(crystals[:1]), abs=1e-5)
    assert (
        model.energies(crystals[:1])
        == pytest.approx(  # whose own network is untouched
            load_model(f"chgnet:{tmp_path / 'ft.pt'}", "cpu").energies(crystals[:1]), abs=0
        )
    )


def test_what_is_declared_stands_on_the_card(tmp_path, tuned):
    name = saved(tmp_path / "ft.pt", tuned.as_dict())
    assert load_model(name, "cpu").card.theory == UNDECLARED
    card = load_model(f"{name}?card.theory=PBE%20%2B%20D3&card.training_set=mine", "cpu").card
    assert (card.theory, card.training_set, card.energies) == ("PBE + D3", "mine", UNDECLARED)
    assert "magmoms" in card.properties
    assert max(card.elements) == 94


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("chgnet:", r"'chgnet:' names no file. Write chgnet:PATH\?card.theory=PBE"),
        ("chgnet:a.pt?theory=PBE", "'theory' in .* means nothing; there are card.theory, card.tr"),
        ("chgnet:a.pt?card.colour=red", "'card.colour=red' in .* declares nothing"),
        ("chgnet:a.pt?card.theory", "'card.theory' in .* is no key=value. Write chgnet:PATH"),
        ("chgnet:a.pt?card.elements=H", "declares nothing; there are card.theory, card.training"),
        ("chgnet:a.pt?card.theory=a&card.theory=b", "'card.theory' is given twice"),
    ],
)
def test_a_name_that_is_not_well_formed_is_refused_before_anything_is_read(name, says):
    with pytest.raises(ConfigError, match=says):
        check_name(name)


def test_a_name_is_read_without_its_file():
    check_name("chgnet:runs/best.pth.tar")
    assert parse("chgnet:~/a.pt").path == Path.home() / "a.pt"


class Loud:
    def __reduce__(self):
        return print, ("run",)


def refused(path: Path, held: object) -> str:
    if isinstance(held, bytes):
        path.write_bytes(held)
    else:
        torch.save(held, path)
    with pytest.raises(ModelError) as caught:
        read_checkpoint(path)
    return str(caught.value)


@pytest.mark.parametrize("held", [b"", b"hello", pickle.dumps(Loud()), Loud()])
def test_what_is_no_file_of_tensors_is_not_run(tmp_path, capsys, held):
    assert "cannot be read as tensors alone" in refused(tmp_path / "x.pt", held)
    assert "run" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("held", "says"),
    [
        ([1, 2], "x.pt holds a list, not a dictionary of weights"),
        ({}, "x.pt holds nothing, and no CHGNet: save one with"),
        ({"a": 1, "model": 3}, "x.pt holds 'a', 'model', and no CHGNet"),
        ({"model": {"state_dict": {}}}, "x.pt holds 'model', and no CHGNet"),
    ],
)
def test_another_file_is_named_for_what_it_holds(tmp_path, held, says):
    assert says in refused(tmp_path / "x.pt", held)


def test_a_file_that_is_not_there_is_said_to_be_absent(tmp_path):
    with pytest.raises(ModelError, match=r"there is no file .*none\.pt; name a checkpoint that"):
        load_model(f"chgnet:{tmp_path / 'none.pt'}")


def test_another_network_is_refused(tmp_path, tuned):
    held = tuned.as_dict()
    wider = {"state_dict": held["state_dict"], "model_args": held["model_args"] | {"n_conv": 3}}
    assert "x.pt holds another network than CHGNet's" in refused(tmp_path / "x.pt", wider)
    odd = {"state_dict": {}, "model_args": held["model_args"] | {"mlp_first": False}}
    assert "mlp_first=False, and this adapter computes only True" in refused(tmp_path / "x.pt", odd)
    strange = {"state_dict": {}, "model_args": {"colour": "red", "atom_fea_dim": "x"}}
    assert "atom_fea_dim='x'" in refused(tmp_path / "x.pt", strange)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_diverged_are_named(tmp_path, tuned, value):
    held = copy.deepcopy(tuned.as_dict())
    held["state_dict"]["composition_model.fc.weight"][0, 3] = value
    words = refused(tmp_path / "x.pt", held)
    assert "x.pt: composition_model.fc.weight holds numbers that are not finite" in words
