"""Well-known crystals with enthalpies of formation from experiment, which travel with the project.

Public: load, load_elements.

Source: a compilation of published facts by this project: lattice parameters from tables and
refinements, standard enthalpies of formation at 298.15 K from thermochemical tables; each row of
fixtures/thermochemistry.csv names its sources, and fixtures/README.md says how they were checked.
Licence: MIT.  Theory: none, these are measurements: they differ from a density functional's
formation energies by the functional's own error, about 0.1 eV/atom for PBE.
A new file means a new SHA256 in the same commit, with the reason.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from harness.data.crystals import N_ELEMENTS, Crystals
from harness.data.dataset import Dataset, cross_fitted
from harness.data.elements import NUMBERS
from harness.data.paths import fixtures_dir
from harness.data.prototypes import PROTOTYPES, build
from harness.errors import DataError

NAME = "thermochemistry"
COMPOUNDS_FILE = "thermochemistry.csv"
COMPOUNDS_SHA256 = "d83cb19d1c8e7525e237faebc4a090af76b5176b0fec8f5bc6fa99764226afc7"
ELEMENTS_FILE = "elements.csv"
ELEMENTS_SHA256 = "70d3b24951b7a25fb9afa99e705e22ce03eeb0cd22d813fb8ab0853a3ca0f494"

KJ_PER_MOL_PER_EV = 96.48533212  # e N_A / 1000; CODATA 2018, exact since the SI of 2019

# The first of 0, 1, 2, ... for which every element of a tested row is in two training rows or more,
# so that one number per element can be fitted in every split. No model took part in the choice.
_SPLIT_SALT = "101"

_LENGTHS_AND_ANGLES = {"a": "a_ang", "b": "b_ang", "c": "c_ang", "beta": "beta_deg"}
_FORMULA_TOKEN = re.compile(r"([A-Z][a-z]?)(\d*)|(\()|\)(\d*)")


def load(path: Path | None = None, sha256: str = COMPOUNDS_SHA256) -> Dataset:
    """294 compounds, formation energies from experiment in eV/atom.

    Without a path the project's own file is read.

    ids are "NaCl-rocksalt": formula and prototype. Targets are standard enthalpies of formation at
    298.15 K and 1 bar per atom, negative = bound, from the elements in their standard states; heat
    content between 0 and 298 K (some 0.01 eV/atom) is not taken out. The column
    extras["spread_ev_per_atom"] is the largest distance to the other compilations a value was
    compared with, nan where there was none. Fold 0, the only one, is cross-fitted in five splits
    that keep the polymorphs of a compound together.

    Raises:
        DataError: the file is not the one described, or a row is not what its formula says.
    """
    path = path or fixtures_dir() / COMPOUNDS_FILE
    with _described(path):
        return _dataset(path, _read(path, sha256), sha256)


def _dataset(path: Path, rows: list[dict[str, str]], sha256: str) -> Dataset:
    built = [_build(row, row["species"].split()) for row in rows]
    crystals = _crystals(built)
    compositions = crystals.compositions()
    formulas = [_formula_counts(row["formula"]) for row in rows]
    for row, cell, formula in zip(rows, compositions, formulas, strict=True):
        if not np.array_equal(cell * formula.sum(), formula * cell.sum()):
            raise DataError(
                f"{path}: {row['id']} holds other atoms than its formula says. "
                "Correct the species or the prototype."
            )
    e_form_kj_per_mol = np.array([float(row["h_form_kj_per_mol"]) for row in rows])
    atoms_per_formula = np.array([formula.sum() for formula in formulas])
    return Dataset(
        name=NAME,
        ids=np.array([row["id"] for row in rows]),
        target_ev_per_atom=e_form_kj_per_mol / KJ_PER_MOL_PER_EV / atoms_per_formula,
        crystals=crystals,
        compositions=compositions,
        inputs={path.name: sha256},
        source="the project's own compilation of published lattice parameters and enthalpies of "
        "formation (fixtures/README.md)",
        licence="MIT",
        is_subset=False,
        n_official=len(rows),
        index=None,
        fold_splits=(cross_fitted(compositions, _SPLIT_SALT),),
        extras={
            "spread_ev_per_atom": np.array(
                [float(row["spread_ev_per_atom"] or math.nan) for row in rows]
            )
        },
    )


def load_elements(
    path: Path | None = None, sha256: str = ELEMENTS_SHA256
) -> tuple[np.ndarray, Crystals, tuple[str, ...]]:
    """One crystal of every element in the compounds.

    With them a model supplies its own elemental reference energies. Whoever uses them adds
    {ELEMENTS_FILE: ELEMENTS_SHA256} to the inputs of the evidence.

    Returns:
        atomic_numbers: (m,) int64, rising.
        crystals: m rows, one element each.
        notes: m strings, empty where the crystal is the thermochemical standard state, else what
            the standard state is and what stands in for it.
    Raises:
        DataError: the file is not the one described.
    """
    path = path or fixtures_dir() / ELEMENTS_FILE
    with _described(path):
        rows = sorted(_read(path, sha256), key=lambda row: NUMBERS[row["symbol"]])
        crystals = _crystals([_build(row, [row["symbol"]]) for row in rows])
        notes = tuple("" if row["is_standard_state"] == "yes" else row["note"] for row in rows)
        return np.array([NUMBERS[row["symbol"]] for row in rows]), crystals, notes


def _read(path: Path, sha256: str) -> list[dict[str, str]]:
    try:
        raw = path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(
            f"{path} does not exist. It belongs to the project; restore it from version control."
        ) from error
    if (found := hashlib.sha256(raw).hexdigest()) != sha256:
        raise DataError(
            f"{path}: sha256 is {found}, expected {sha256}. Restore the file, or describe the new "
            "one in fixtures/README.md and update the constant in harness/data/thermochemistry.py."
        )
    return list(csv.DictReader(io.StringIO(raw.decode("utf-8")), strict=True))


@contextmanager
def _described(path: Path) -> Iterator[None]:
    """What a table raises that has other columns or no numbers in them, as an error of ours."""
    try:
        yield
    except (csv.Error, KeyError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise DataError(
            f"{path}: a row is not as fixtures/README.md describes it ({type(error).__name__}: "
            f"{error}). Correct it."
        ) from error


def _build(
    row: dict[str, str], species: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    params = {name: float(row[key]) for name, key in _LENGTHS_AND_ANGLES.items() if row[key]}
    for pair in row["coordinates"].split():
        name, _, value = pair.partition("=")
        params[name] = float(value)
    prototype = row["prototype"]
    built = build(prototype, species, params)
    if PROTOTYPES[prototype].space_group != int(row["space_group"]):
        raise DataError(
            f"{' '.join(species)} {prototype}: the table says space group {row['space_group']}, "
            f"the prototype is of {PROTOTYPES[prototype].space_group}. Correct one of them."
        )
    return built


def _crystals(built: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Crystals:
    numbers, frac_coords, lattices = zip(*built, strict=True)
    return Crystals.admitted(
        np.concatenate(numbers),
        np.concatenate(frac_coords),
        np.stack(lattices),
        np.cumsum([0, *(len(atoms) for atoms in numbers)], dtype=np.int64),
    )


def _formula_counts(formula: str) -> np.ndarray:
    """(118,) float64 atoms in a formula as printed: "Hg2Cl2" has four, brackets may be nested."""
    stack: list[Counter[str]] = [Counter()]
    position = 0
    while position < len(formula):
        match = _FORMULA_TOKEN.match(formula, position)
        closes_nothing = match is not None and match[0].startswith(")") and len(stack) == 1
        if match is None or closes_nothing or (match[1] and match[1] not in NUMBERS):
            raise DataError(f"{formula!r} is not a formula at character {position}. Correct it.")
        if match[1]:
            stack[-1][match[1]] += int(match[2] or 1)
        elif match[3]:
            stack.append(Counter())
        else:
            group = stack.pop()
            for symbol, count in group.items():
                stack[-1][symbol] += count * int(match[4] or 1)
        position = match.end()
    if len(stack) > 1:
        raise DataError(f"{formula!r} has an open bracket. Close it.")
    counts = np.zeros(N_ELEMENTS)
    for symbol, count in stack[0].items():
        counts[NUMBERS[symbol] - 1] = count
    return counts
