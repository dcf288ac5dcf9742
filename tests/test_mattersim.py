"""MatterSim through its own calculator, on a network of its own classes with random weights."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.data.crystals import Crystals
from harness.errors import ConfigError, ModelError, NotAvailable
from harness.models import check_name, load_model, mattersim
from harness.models.cards import UNDECLARED
from harness.models.subjects import called
from tests.declared import assert_as_calculator, elements_not_scored, unit_slopes

ALL = ("energy", "forces", "stress")
FCC = np.array([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
SILICON = Crystals(
    numbers=np.array([14, 14], np.uint8),
    frac_coords=np.array([[0, 0, 0], [0.26, 0.24, 0.25]]),
    lattices=(5.43 * FCC + [[0.1, 0, 0], [0, 0, 0], [0, 0, 0]])[None],
    offsets=np.array([0, 2], dtype=np.int64),
)
SALT = Crystals(
    numbers=np.array([11, 17], np.uint8),
    frac_coords=np.array([[0, 0, 0], [0.5, 0.51, 0.5]]),
    lattices=(5.6 * FCC)[None],
    offsets=np.array([0, 2], dtype=np.int64),
)
CURIUM = Crystals(
    numbers=np.array([96], np.uint8),
    frac_coords=np.zeros((1, 3)),
    lattices=3.5 * np.eye(3)[None],
    offsets=np.array([0, 1], dtype=np.int64),
)
CRYSTALS = Crystals.concatenate([SILICON, SALT])


def stock(path: Path, size: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The subject of Microsoft's name, with this file for Microsoft's."""
    monkeypatch.setenv(mattersim.VARIABLES[size], str(path))
    return mattersim.load(size, "cpu")


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home without weights."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable in mattersim.VARIABLES.values():
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.parametrize("size", ["1M", "5M"])
def test_without_weights_it_is_not_available(
    nowhere: None, size: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NotAvailable, match=rf"Set HARNESS_MATTERSIM_{size} to mattersim-v1.0.0-"):
        load_model(f"mattersim-{size}", "cpu")
    monkeypatch.setenv(f"HARNESS_MATTERSIM_{size}", "/no/such/file.pth")
    with pytest.raises(NotAvailable, match=r"names /no/such/file.pth, which is no file"):
        load_model(f"mattersim-{size}", "cpu")
    assert "download_checkpoint" in mattersim.weights(size)


@pytest.fixture(scope="module")
def packages() -> Iterator[Any]:
    """mattersim's classes; skips where it is not installed."""
    if importlib.util.find_spec("mattersim") is None:
        pytest.skip(f"mattersim is not installed: {mattersim.INSTALL}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
        from mattersim.forcefield import potential
        from mattersim.forcefield.m3gnet.m3gnet import M3Gnet

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield potential, M3Gnet
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def checkpoint(packages: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What mattersim saves for a network of the 1M size."""
    import torch

    potential, m3gnet = packages
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = m3gnet(num_blocks=3, device="cpu")
    network.normalizer.scale[:] = 1000.0  # else its forces drown in the last digits of the shift
    network.normalizer.shift[:] = -3.0
    path = tmp_path_factory.mktemp("weights") / "random-1M.pth"
    potential.Potential(network, device="cpu").save(str(path))
    return path


def test_numbers_are_those_of_mattersims_calculator_in_our_units(
    packages: Any, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    potential, _ = packages
    monkeypatch.setenv("HARNESS_MATTERSIM_1M", str(checkpoint))
    monkeypatch.setenv("HOME", str(checkpoint.parent))  # where mattersim makes a folder
    calculator = potential.MatterSimCalculator(
        potential=potential.Potential.from_checkpoint(str(checkpoint), device="cpu"), device="cpu"
    )
    model = load_model("mattersim-1M", "cpu")
    found = model.predict(CRYSTALS, ALL)
    assert_as_calculator(found, CRYSTALS, calculator, stress_atol_gpa=1e-3)
    np.testing.assert_array_equal(model.energies(CRYSTALS), found.energy)
    assert model.identity.name == "mattersim-1M"


def test_what_the_card_declares_is_so(
    packages: Any, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = stock(checkpoint, "1M", monkeypatch)
    assert model.elements == frozenset(range(1, 95))
    assert elements_not_scored(model) == {}
    assert model.predict(CURIUM).problems == {0: "Cm not among the declared elements"}
    slopes = unit_slopes(model, CRYSTALS, step_ang=0.02)
    assert slopes.forces == pytest.approx(1, abs=0.02)
    assert slopes.stress == pytest.approx(1, abs=0.02)
    with pytest.raises(NotAvailable, match="gives no magmoms"):
        model.predict(CRYSTALS, ("magmoms",))


def test_other_weights_have_another_identity(
    packages: Any, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    content = torch.load(checkpoint, weights_only=True)
    content["model"]["normalizer.shift"][14] += 1e-3
    other = checkpoint.with_name("other.pth")
    torch.save(content, other)
    first, second = (stock(path, "1M", monkeypatch) for path in (checkpoint, other))
    assert first.identity.weights_sha256 != second.identity.weights_sha256
    assert stock(checkpoint, "1M", monkeypatch).identity == first.identity


def test_files_that_would_compute_something_else_are_refused(
    packages: Any, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    with pytest.raises(ModelError, match=r"890034 parameters; mattersim-5M has between"):
        stock(checkpoint, "5M", monkeypatch)
    path = checkpoint.with_name("faulty.pth")
    content = torch.load(checkpoint, weights_only=True)
    one_less = dict(content["model"])
    one_less.pop("atom_embedding.mlp.0.weight", None) or one_less.popitem()
    for fault, says in (
        ({"model": one_less}, r"lacks 1 of .* would stay random"),
        ({"model_name": "graphormer"}, "computes only 'm3gnet'"),
        ({"model_args": {**content["model_args"], "units": 64}}, "do not fit the network"),
    ):
        torch.save(content | fault, path)
        with pytest.raises(ModelError, match=says):
            stock(path, "1M", monkeypatch)
    torch.save([1, 2], path)
    with pytest.raises(ModelError, match="holds a list, not a dictionary of weights"):
        stock(path, "1M", monkeypatch)
    path.write_bytes(b"not weights")
    with pytest.raises(ModelError, match="cannot be read as tensors alone"):
        stock(path, "1M", monkeypatch)


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("should-not-exist"),))


def test_code_in_a_checkpoint_is_not_run(
    packages: Any, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.chdir(tmp_path)
    torch.save({"model": Harmful(), "model_args": {}, "model_name": "m3gnet"}, "harmful.pth")
    with pytest.raises(ModelError, match="cannot be read as tensors alone"):
        stock(Path("harmful.pth"), "1M", monkeypatch)
    assert not Path("should-not-exist").exists()


# --- weights of one's own -------------------------------------------------------------------------


def test_a_checkpoint_of_ones_own_gives_the_numbers_of_mattersims_calculator(
    packages: Any, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    potential, _ = packages
    monkeypatch.setenv("HOME", str(checkpoint.parent))
    calculator = potential.MatterSimCalculator(
        potential=potential.Potential.from_checkpoint(str(checkpoint), device="cpu"), device="cpu"
    )
    model = load_model(f"mattersim:{checkpoint}", "cpu")
    assert_as_calculator(model.predict(CRYSTALS, ALL), CRYSTALS, calculator, stress_atol_gpa=1e-3)
    assert model.identity.name == called(f"mattersim:{checkpoint}") == "mattersim:random-1M.pth"
    published = stock(checkpoint, "1M", monkeypatch)
    assert model.identity.weights_sha256 == published.identity.weights_sha256
    assert (model.card.theory, model.card.properties) == (UNDECLARED, ALL)
    assert model.elements == frozenset(range(1, 95))


def test_what_is_declared_of_it_stands_on_its_card(packages: Any, checkpoint: Path) -> None:
    model = load_model(f"mattersim:{checkpoint}?card.theory=r2SCAN&card.elements=Na,Cl", "cpu")
    assert (model.card.theory, model.elements) == ("r2SCAN", {11, 17})
    assert model.identity.settings["elements"] == "Na,Cl"
    assert model.predict(SILICON).problems == {0: "Si not among the declared elements"}
    with pytest.raises(ConfigError, match=r"network of random-1M\.pth has no Cm"):
        load_model(f"mattersim:{checkpoint}?card.elements=Cm", "cpu")
    with pytest.raises(ConfigError, match=r"'modal' in .* means nothing; there are card\.elements"):
        check_name(f"mattersim:{checkpoint}?modal=PBE")


def test_what_cannot_be_used_of_ones_own_is_refused_in_a_sentence(
    packages: Any, checkpoint: Path
) -> None:
    import torch

    path = checkpoint.with_name("own.pth")
    content = torch.load(checkpoint, weights_only=True)
    diverged = dict(content["model"])
    diverged["normalizer.shift"] = diverged["normalizer.shift"] * np.nan
    for held, says in (
        ({}, r"own\.pth is no MatterSim checkpoint: it has no model and model_args\. Take a"),
        (content | {"model": diverged}, r"normalizer\.shift holds numbers that are not finite"),
        (content | {"model_args": {"units": "many"}}, "do not fit the network of their own"),
    ):
        torch.save(held, path)
        with pytest.raises(ModelError, match=says):
            load_model(f"mattersim:{path}", "cpu")
    with pytest.raises(ModelError, match=r"there is no file .*none\.pth"):
        load_model("mattersim:none.pth", "cpu")
