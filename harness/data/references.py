"""Energies of the elements that formation energies of the Materials Project are measured from.

Source: the Materials Project's lowest-energy entry of each of 89 elements, queried on 7 February
2023 and published by janosh/matbench-discovery (MIT) as 2023-02-07-mp-elemental-reference-entries.
Theory: PBE with MP2020 corrections (which are zero for the elements). Unit: eV/atom.

Public: load_mp2020_references, ElementalReferences.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np

from harness.data import gate, texts
from harness.data.crystals import N_ELEMENTS
from harness.data.paths import fetched_dir, shared_data_file
from harness.errors import DataAbsent, DataError
from harness.files import sha256_of

FILE_NAME = "mp-elemental-reference-entries-2023-02-07.json.gz"
SHA256 = "9fd6ef848a91c88840a0d1709b5856d0edb4af22095237e59db52f2acd6bbf79"
FETCH_NAME = "mp-elemental-references"


class _Entry(msgspec.Struct):
    composition: dict[str, Annotated[float, msgspec.Meta(gt=0)]]  # atoms, which may be 29.0
    energy: float  # eV of all of them, as computed
    correction: float  # eV, to be added


@dataclass(frozen=True, kw_only=True, eq=False)
class ElementalReferences:
    """One energy per element; nan for those without an entry."""

    energies_ev_per_atom: np.ndarray  # (118,) float64, position Z - 1, nan where absent
    sha256: str
    source: str


def load_mp2020_references(path: Path | None = None) -> ElementalReferences:
    """(energy + correction) / atoms of each entry, from HARNESS_DATA or the fetched file.

    Raises:
        DataAbsent: the file is not on this machine; the message has the one command.
        DataError: it is not the published one.
    """
    path = path or shared_data_file(FILE_NAME) or fetched_dir() / FILE_NAME
    if not path.is_file():
        raise DataAbsent(
            f"{FILE_NAME} is not at hand, and energies cannot be turned into formation energies "
            f"without it. Run: python -m harness fetch {FETCH_NAME}"
        )
    if (found := sha256_of(path)) != SHA256:
        raise DataError(
            f"{path}: sha256 is {found}, expected {SHA256}. Delete it and run: "
            f"python -m harness fetch {FETCH_NAME}"
        )
    return parse(path)


def parse(path: Path) -> ElementalReferences:
    """Any file of that layout: element -> ComputedEntry as a dictionary."""
    energies = np.full(N_ELEMENTS, np.nan)
    try:
        entries = msgspec.json.decode(texts.json_text(path), type=dict[str, _Entry])
        for symbol, entry in entries.items():
            ((element, n_atoms),) = entry.composition.items()
            if element != symbol:
                raise ValueError(f"the entry of {symbol} is of {element}")
            number = gate.atomic_number(symbol, str(path))
            energy = (entry.energy + entry.correction) / n_atoms
            if not math.isfinite(energy):
                raise ValueError(f"{symbol} has the energy {energy} eV/atom")
            if not math.isnan(energies[number - 1]):
                raise ValueError(f"{symbol} is given twice, under its isotope's name as well")
            energies[number - 1] = energy
    except (msgspec.MsgspecError, ValueError) as error:
        raise DataError(
            f"{path} does not hold one entry per element ({type(error).__name__}: {error}). "
            f"Delete it and run: python -m harness fetch {FETCH_NAME}"
        ) from error
    return ElementalReferences(
        energies_ev_per_atom=energies,
        sha256=sha256_of(path),
        source="Materials Project elemental entries of 2023-02-07",
    )
