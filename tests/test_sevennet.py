"""SevenNet-0 through sevenn's network: its calculator's numbers, however rows are batched."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from harness.data.crystals import Crystals
from harness.errors import ModelError, NotAvailable
from harness.models import load_model, sevennet
from harness.models.protocol import Model
from harness.models.sevennet import SevenNetModel
from tests.declared import assert_as_calculator, elements_not_scored, unit_slopes

ALL = ("energy", "forces", "stress")


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


def test_without_sevenn_it_is_not_available(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(NotAvailable, match=r"pip install 'mlip-claims\[sevennet\]'"):
        load_model("sevennet-0", "cpu")
    assert "needs the package sevenn" in sevennet.weights()


@pytest.fixture(scope="module")
def model() -> Iterator[SevenNetModel]:
    if importlib.util.find_spec("sevenn") is None:
        pytest.skip("sevenn is not installed: pip install 'mlip-claims[sevennet]'")
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)  # small tensors on many threads wait for each other
    yield sevennet.load("cpu")
    torch.set_num_threads(before)


def test_numbers_are_those_of_sevenns_calculator_in_our_units(model: SevenNetModel) -> None:
    """Its calculator reads the checkpoint its own way, so this compares the weights too."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sevenn.calculator import SevenNetCalculator

        calculator = SevenNetCalculator("7net-0", device="cpu")
    found = model.predict(CRYSTALS, ALL)
    assert_as_calculator(found, CRYSTALS, calculator, stress_atol_gpa=1e-4)
    assert isinstance(model, Model)


def test_a_row_gives_the_same_whatever_is_beside_it(model: SevenNetModel) -> None:
    together = model.predict(Crystals.concatenate([CRYSTALS, ALONE]), ALL)
    assert together.forces is not None
    assert together.stress is not None
    for row, crystal in enumerate([*CRYSTALS, ALONE]):
        alone = model.predict(crystal, ALL)
        assert alone.forces is not None
        assert alone.stress is not None
        assert abs(together.energy[row] - alone.energy[0]) < 2e-6
        np.testing.assert_allclose(together.forces[row], alone.forces[0], atol=1e-5)
        np.testing.assert_allclose(together.stress[row], alone.stress[0], atol=1e-3)
        assert abs(model.energies(crystal)[0] - alone.energy[0]) < 2e-6  # without gradients


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


def test_what_the_card_declares_is_so(model: SevenNetModel) -> None:
    assert len(model.elements) == 89
    assert elements_not_scored(model) == {}
    slopes = unit_slopes(model, CRYSTALS[[0, 2]], n_directions=2)
    assert slopes.forces == pytest.approx(1, abs=0.02)
    assert slopes.stress == pytest.approx(1, abs=0.02)


def test_another_file_is_refused(
    model: SevenNetModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "checkpoint_sevennet_0.pth"
    other.write_bytes(sevennet._path().read_bytes()[:-1] + b"\x01")
    monkeypatch.setattr(sevennet, "_path", lambda: other)
    with pytest.raises(ModelError, match=r"SevenNet-0 of 11 July 2024 .* has 7052cb42"):
        sevennet.load("cpu")
