"""DIEP through its own calculator: a name and a card for what any user can ask of `ase:`."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.data.crystals import Crystals
from harness.errors import ModelError, NotAvailable
from harness.models import diep, load_model
from harness.models.ase import AseModel
from harness.models.protocol import Model
from tests.declared import assert_as_calculator, elements_not_scored, unit_slopes
from tests.test_sevennet import ALL, ALONE, CRYSTALS, POLONIUM


def test_without_diep_it_is_not_available(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(NotAvailable, match=r"needs the package diep.*'mlip-claims\[diep\]'"):
        load_model("diep-r2scan", "cpu")
    assert "needs the package diep" in diep.weights()


@pytest.fixture(scope="module")
def model() -> AseModel:
    if importlib.util.find_spec("diep") is None:
        pytest.skip(f"diep is not installed: {diep.INSTALL}")
    return diep.load("cpu")


def dieps_own() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from diep.pretrained import make_calculator

        return make_calculator()


def test_numbers_are_those_of_dieps_calculator_in_our_units(model: AseModel) -> None:
    found = model.predict(CRYSTALS, ALL)
    assert_as_calculator(found, CRYSTALS, dieps_own(), stress_atol_gpa=1e-3)
    np.testing.assert_array_equal(model.energies(CRYSTALS), found.energy)
    assert isinstance(model, Model)


def test_a_stress_in_gpa_taken_for_ases_would_be_noticed(model: AseModel) -> None:
    """What diep's PESCalculator gives unless told otherwise."""
    calculator = dieps_own()
    calculator.stress_weight = 1.0
    with pytest.raises(AssertionError):
        assert_as_calculator(
            model.predict(CRYSTALS, ALL), CRYSTALS, calculator, stress_atol_gpa=1e-3
        )


def test_it_shares_what_is_stored_with_the_calculator_itself(model: AseModel) -> None:
    plain = load_model("ase:diep.pretrained:make_calculator?card.elements=H-Bi,Ac-Pu", "cpu")
    assert plain.identity.name != model.identity.name == "diep-r2scan"
    assert plain.identity.addressed() == model.identity.addressed()


def test_what_the_card_declares_is_so(model: AseModel) -> None:
    assert (model.card.theory, model.card.properties) == ("r2SCAN", ALL)
    assert len(model.elements) == 89
    assert elements_not_scored(model) == {}
    assert model.predict(POLONIUM).problems == {0: "Po not among the declared elements"}
    slopes = unit_slopes(model, CRYSTALS[[0, 2]], n_directions=2)
    assert slopes.forces == pytest.approx(1, abs=0.02)
    assert slopes.stress == pytest.approx(1, abs=0.02)


def test_energies_are_totals_of_r2scan_as_those_of_chgnet_are(model: AseModel) -> None:
    other = load_model("chgnet-r2scan", "cpu")
    found = model.energies(CRYSTALS) - other.energies(CRYSTALS)
    np.testing.assert_allclose(found, 0, atol=0.15)  # by PBE they would be eV/atom higher


def test_an_atom_alone_leaves_the_others_as_they_are(model: AseModel) -> None:
    together = model.predict(Crystals.concatenate([ALONE, CRYSTALS[0]]), ALL)
    assert set(together.problems) <= {0}
    assert together.energy[1] == pytest.approx(model.energies(CRYSTALS[0])[0], abs=1e-6)


def test_other_weights_are_refused(
    model: AseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "diep_fold1"
    shutil.copytree(diep.weights(), other)
    monkeypatch.setenv(diep.FOLDER_VARIABLE, str(other))
    state = other / "state.pt"
    state.write_bytes(state.read_bytes()[:-1] + b"\x01")
    with pytest.raises(ModelError, match=r"state\.pt has sha256 .* leave DIEP_MODEL_DIR unset"):
        diep.load("cpu")
    state.unlink()
    with pytest.raises(NotAvailable, match=r"does not hold model\.json, model\.pt, state\.pt"):
        diep.load("cpu")


def test_a_home_that_cannot_be_written_is_said(model: AseModel, tmp_path: Path) -> None:
    """diep makes a folder in it when it is imported, so this needs a fresh interpreter."""
    home = tmp_path / "home"
    home.write_text("no folder")
    load = "from harness.models import load_model; load_model('diep-r2scan', 'cpu')"
    root = Path(__file__).parents[1]
    ended = subprocess.run(  # noqa: S603
        [sys.executable, "-c", load],
        cwd=root,
        env={"HOME": str(home), "PATH": ""},
        capture_output=True,
        text=True,
    )
    said = ended.stderr.strip().splitlines()[-1]
    assert "NotAvailable: diep-r2scan: diep cannot make its folder" in said
    assert said.endswith("Set HOME to one that can be written.")
