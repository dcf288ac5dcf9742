"""SevenNet through sevenn's network: its calculator's numbers, however rows are batched."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.data.crystals import Crystals
from harness.errors import ConfigError, ModelError, NotAvailable
from harness.models import MODELS, load_model, sevennet, weights
from harness.models.protocol import Model
from harness.models.sevennet import PUBLISHED, SevenNetModel
from tests.declared import assert_as_calculator, elements_not_scored, unit_slopes

ALL = ("energy", "forces", "stress")
KEYWORDS = {  # sevenn's own names of the checkpoints, and the channel
    "sevennet-0": ("7net-0_11Jul2024", None),
    "sevennet-0-22may2024": ("7net-0_22May2024", None),
    "sevennet-l3i5": ("7net-l3i5", None),
    "sevennet-mf-0-pbe": ("7net-mf-0", "PBE"),
    "sevennet-mf-0-r2scan": ("7net-mf-0", "R2SCAN"),
}


def rows(*crystals: tuple[list[int], object, object]) -> Crystals:
    """Atomic numbers, fractional coordinates and lattice of each row."""
    counts = [len(numbers) for numbers, _, _ in crystals]
    return Crystals(
        numbers=np.concatenate([np.array(numbers, np.uint8) for numbers, _, _ in crystals]),
        frac_coords=np.concatenate([np.array(c, float).reshape(-1, 3) for _, c, _ in crystals]),
        lattices=np.array([lattice for _, _, lattice in crystals], float).reshape(-1, 3, 3),
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
    )


FCC = np.array([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
CRYSTALS = rows(
    ([12, 8], [[0, 0, 0], [0.51, 0.49, 0.5]], 4.21 * FCC),  # MgO, displaced
    ([29], [0, 0, 0], 3.55 * FCC),  # Cu, compressed
    (
        [38, 22, 8, 8, 8],  # SrTiO3, rattled and sheared
        [[0.01, 0, 0], [0.5, 0.52, 0.5], [0.5, 0.5, 0.02], [0.5, 0, 0.49], [0, 0.5, 0.5]],
        3.9 * np.eye(3) + [[0, 0.1, 0], [0, 0, 0], [0.05, 0, 0]],
    ),
    ([14, 14], [[0, 0, 0], [0.25, 0.26, 0.25]], -5.43 * FCC),  # Si, a left-handed cell
)
ALONE = rows(([11], [0, 0, 0], 20 * np.eye(3)))  # no neighbour
TOGETHER = rows(([11, 11], [[0, 0, 0], [0, 0, 0]], 5 * np.eye(3)))  # two atoms in one place
POLONIUM = rows(([84], [0, 0, 0], 3.4 * np.eye(3)))
NIO = rows(([28, 8], [[0, 0, 0], [0.5, 0.5, 0.5]], 4.17 * FCC))


def test_without_sevenn_none_is_available(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for name in PUBLISHED:
        with pytest.raises(NotAvailable, match=rf"{name} .* 'mlip-claims\[sevennet\]'"):
            load_model(name, "cpu")
        assert f"{name} needs the package sevenn" in sevennet.weights(name)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    if importlib.util.find_spec("sevenn") is None:
        pytest.skip("sevenn is not installed: pip install 'mlip-claims[sevennet]'")
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)  # small tensors on many threads wait for each other
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model(one_thread: None) -> SevenNetModel:
    return sevennet.load("sevennet-0", "cpu")


@pytest.fixture(scope="module")
def channel(one_thread: None) -> SevenNetModel:
    return sevennet.load("sevennet-mf-0-r2scan", "cpu")


def sevenns_own(name: str) -> Any:
    """Its calculator, which reads the checkpoint its own way."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sevenn.calculator import SevenNetCalculator

        keyword, modal = KEYWORDS[name]
        return SevenNetCalculator(keyword, device="cpu", modal=modal)


@pytest.mark.parametrize("name", sorted(KEYWORDS))
def test_numbers_are_those_of_sevenns_calculator_in_our_units(one_thread: None, name: str) -> None:
    """So this compares the weights, and the channel, too."""
    model = load_model(name, "cpu")
    found = model.predict(CRYSTALS, ALL)
    assert_as_calculator(found, CRYSTALS, sevenns_own(name), stress_atol_gpa=1e-4)
    np.testing.assert_allclose(model.energies(CRYSTALS), found.energy, atol=2e-6)
    assert isinstance(model, Model)
    assert model.identity.name == name
    assert len(model.elements) == 89


def test_every_checkpoint_of_the_wheel_has_its_names(one_thread: None) -> None:
    import sevenn

    held = (Path(sevenn.__file__).parent / "pretrained_potentials").rglob("*.pth")
    assert {str(path) for path in held} == {weights()[name] for name in PUBLISHED}
    assert set(PUBLISHED) == set(KEYWORDS) == {n for n in MODELS if n.startswith("sevennet")}


def test_predictions_of_the_first_are_addressed_as_they_were(model: SevenNetModel) -> None:
    assert model.identity.addressed() == {
        "name": "sevennet-0",
        "weights_sha256": "bbbd33908acafc5118c9ebf33f96d2790379f71e176154e09fcb8530571d370c",
        "settings": {
            "engine": "1",
            "dtype": "float32",
            "device": "cpu",
            "sevenn": version("sevenn"),
        },
    }


def test_two_channels_of_one_network_are_two_subjects(channel: SevenNetModel) -> None:
    other = sevennet.load("sevennet-mf-0-pbe", "cpu")
    assert other.identity.weights_sha256 == channel.identity.weights_sha256
    assert (other.identity.settings["modal"], channel.identity.settings["modal"]) == (
        "PBE",
        "R2SCAN",
    )
    assert (other.card.theory[:3], channel.card.theory) == ("PBE", "r2SCAN")
    # a total energy of r2SCAN is electron volts lower than one of PBE
    assert other.energies(NIO)[0] - channel.energies(NIO)[0] > 4


def test_energies_by_pbe_are_without_mp2020_corrections(model: SevenNetModel) -> None:
    """-1.6 eV/atom in NiO, which the settings inside two of the checkpoints do not speak of."""
    first = model.energies(NIO)[0]
    for name in ("sevennet-0-22may2024", "sevennet-mf-0-pbe"):
        subject = load_model(name, "cpu")
        assert subject.energies(NIO)[0] == pytest.approx(first, abs=0.15)
        assert "without MP2020 corrections" in subject.card.energies


@pytest.mark.parametrize("which", ["model", "channel"])
def test_a_row_gives_the_same_whatever_is_beside_it(
    which: str, request: pytest.FixtureRequest
) -> None:
    subject = request.getfixturevalue(which)
    together = subject.predict(Crystals.concatenate([CRYSTALS, ALONE]), ALL)
    assert together.forces is not None
    assert together.stress is not None
    for row, crystal in enumerate([*CRYSTALS, ALONE]):
        alone = subject.predict(crystal, ALL)
        assert alone.forces is not None
        assert alone.stress is not None
        assert abs(together.energy[row] - alone.energy[0]) < 2e-6
        np.testing.assert_allclose(together.forces[row], alone.forces[0], atol=1e-5)
        np.testing.assert_allclose(together.stress[row], alone.stress[0], atol=1e-3)
        assert abs(subject.energies(crystal)[0] - alone.energy[0]) < 2e-6  # without gradients


def test_batch_by_batch_and_all_at_once_give_the_same_bytes(
    model: SevenNetModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sevennet, "_WORK_PER_BATCH", {"cpu": 200})
    monkeypatch.setattr(sevennet, "_WORK_PER_TASK", {"cpu": 100})
    plan = model.plan(CRYSTALS)
    assert len(plan) > 1
    assert sorted(row for batch in plan for row in batch) == list(range(len(CRYSTALS)))
    whole = model.energies(CRYSTALS)
    for batch in plan:
        np.testing.assert_array_equal(model.energies(CRYSTALS[batch]), whole[batch])


def test_rows_it_cannot_score_are_explained_and_leave_the_others_alone(
    model: SevenNetModel,
) -> None:
    crystals = Crystals.concatenate([CRYSTALS[:1], POLONIUM, TOGETHER, ALONE])
    for properties in (("energy",), ALL):
        found = model.predict(crystals, properties)
        assert found.problems == {
            1: "Po not among the declared elements",
            2: "the network gives no finite number: do two atoms coincide?",
        }
        assert abs(found.energy[0] - model.energies(CRYSTALS[:1])[0]) < 2e-6
    with pytest.raises(ModelError, match=r"could not score 2 rows: row 1: Po"):
        model.energies(crystals)


def test_no_crystals_give_no_numbers(model: SevenNetModel) -> None:
    found = model.predict(CRYSTALS[:0], ALL)
    assert (len(found.energy), found.forces, found.problems) == (0, [], {})


def test_moments_are_not_available(model: SevenNetModel) -> None:
    with pytest.raises(NotAvailable, match="sevennet-0 gives no magmoms"):
        model.predict(CRYSTALS, ("magmoms",))


@pytest.mark.parametrize("which", ["model", "channel"])
def test_what_the_card_declares_is_so(which: str, request: pytest.FixtureRequest) -> None:
    subject = request.getfixturevalue(which)
    assert len(subject.elements) == 89
    assert elements_not_scored(subject) == {}
    slopes = unit_slopes(subject, CRYSTALS[[0, 2]], n_directions=2)
    assert slopes.forces == pytest.approx(1, abs=0.02)
    assert slopes.stress == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("name", sorted(KEYWORDS))
def test_another_file_is_refused(
    one_thread: None, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "checkpoint.pth"
    other.write_bytes(Path(weights()[name]).read_bytes()[:-1] + b"\x01")
    monkeypatch.setattr(sevennet, "_path", lambda name: other)
    says = rf"{name} in the sevenn 0.13 wheel has {PUBLISHED[name].sha256}"
    with pytest.raises(ModelError, match=says):
        sevennet.load(name, "cpu")


def test_a_name_or_a_device_that_is_none_is_refused(one_thread: None) -> None:
    with pytest.raises(ConfigError, match="SevenNet 'sevennet-1' is unknown; known: sevennet-0, "):
        sevennet.load("sevennet-1")
    with pytest.raises(ConfigError, match="device='tpu' is unknown"):
        sevennet.load("sevennet-0", "tpu")
