"""DIEP 2.0 as a subject: diep's own calculator with the weights in its wheel.

Weights: `diep/pretrained_models/diep_fold1/` in the diep 2.0 wheel, 403,181 parameters. diep reads
them as tensors alone; files with another sha256 are refused.
Source: Tawfik et al., Digital Discovery (2024), 10.1039/D4DD00246F, and the notes of diep 2.0.
Licence: BSD-3-Clause, as diep.

It is `ase:diep.pretrained:make_calculator` under a name and with a card: the same numbers, the same
stored predictions, computed as ase.py computes any calculator. The calculator converts the stress,
which diep's own Potential has in GPa. The energy makes small steps where two bonds of a triplet
exchange their order by length (1 meV, diep's notes say), and float32 gives forces of tens of eV/Å
in about 1 of 100 structures with three atoms nearly in line.

Public: NAME, load, weights. Needs the extra: pip install 'mlip-claims[diep]'.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import os
from pathlib import Path

from harness.errors import ModelError, NotAvailable
from harness.files import sha256_of
from harness.models import ase
from harness.models.foreign import others_warnings, words

NAME = "diep-r2scan"
INSTALL = "pip install 'mlip-claims[diep]'"
FOLDER_VARIABLE = "DIEP_MODEL_DIR"  # diep's own, for other weights in place of these
SHA256 = {
    "model.json": "2158a9a1578fead0471eb08dcc6cd53a4a661053f101b644bea8a30b563cd227",
    "model.pt": "3efd7caee45a02d4988b422f9caff18faa37dbdb0cf928324779bacbed1dc1c7",
    "state.pt": "3be1df5dbe3d15e1d35a2ca1d3c50a6b212ea2d248c89e02d84fa780eb609576",
}
_RECIPE = (
    "ase:diep.pretrained:make_calculator"
    "?card.elements=H-Bi,Ac-Pu&card.properties=energy,forces,stress&card.theory=r2SCAN"
    "&card.training_set=MatPES r2SCAN 2025.1, 349,107 frames of it (90 %)"
    "&card.energies=total energies of r2SCAN as VASP gives them; MP2020 corrections are fitted to "
    "PBE and do not belong to them"
)


def weights() -> str:
    """Where the weights are, or how to get them."""
    try:
        return str(_folder())
    except NotAvailable as error:
        return str(error)


def load(device: str = "auto") -> ase.AseModel:
    """DIEP 2.0 on "cpu", "cuda" or "auto".

    Raises:
        NotAvailable: diep is not installed or cannot be imported, or there is no GPU.
        ModelError: the weights are not the ones described above.
    """
    folder = _folder()
    for file, sha256 in SHA256.items():
        if (found := sha256_of(folder / file)) != sha256:
            raise ModelError(
                f"{folder / file} has sha256 {found}; in the diep 2.0 wheel it has {sha256}. "
                f"Install that one: {INSTALL}; and leave {FOLDER_VARIABLE} unset."
            )
    try:
        with others_warnings():
            importlib.import_module("diep.config")
    except OSError as error:  # it makes a folder for downloads
        raise NotAvailable(
            f"{NAME}: diep cannot make its folder ({words(error)}). Set HOME to one that can be "
            "written."
        ) from error
    model = ase.load(_RECIPE, device)
    model.identity = model.identity.called(NAME)
    model.card = dataclasses.replace(
        model.card, source="PROVENANCE.json beside the weights, and the notes of diep 2.0"
    )
    return model


def _folder() -> Path:
    spec = importlib.util.find_spec("diep")
    if spec is None or spec.origin is None:
        raise NotAvailable(f"{NAME} needs the package diep. Install it: {INSTALL}.")
    inside = Path(spec.origin).parent / "pretrained_models" / "diep_fold1"
    folder = Path(os.environ.get(FOLDER_VARIABLE, inside))
    if not all((folder / file).is_file() for file in SHA256):
        raise NotAvailable(
            f"{NAME}: {folder} does not hold {', '.join(SHA256)}. Install a diep that ships them: "
            f"{INSTALL}; and leave {FOLDER_VARIABLE} unset."
        )
    return folder
