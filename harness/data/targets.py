"""Every row of matbench v0.1 mp_e_form without coordinates: id, formation energy, composition.

Source: materialsproject/matbench, scripts/artifacts (MIT); Materials Project data CC-BY-4.0. Row
order is the official one. The composition is the cell's content. Unit: eV/atom.

Public: load, parse_compositions, read_parquet, check_content.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from harness.data.conversions import converted
from harness.data.crystals import N_ELEMENTS
from harness.data.dataset import Dataset
from harness.data.elements import NUMBERS
from harness.data.folds import N_OFFICIAL, row_numbers
from harness.data.matbench import LICENCE, NAME
from harness.data.paths import require_shared_data_file
from harness.errors import DataError

FILE_NAME = "matbench_mp_e_form_targets.parquet"

# of the columns of all official rows: parquet has no checksum, and other writers pack it otherwise
CONTENT_SHA256 = "ad6bb49cafe190ed74bcad821a83b3ce160fd1863c097afa8459202306b6b1a3"
_FILE_KIND = "targets-2"  # 2: all official rows are as published
_WORD = re.compile(r"([A-Z][a-z]?)([1-9][0-9]{0,5})")


def load(path: Path | None = None) -> Dataset:
    """All 132,752 official rows; ``crystals`` is None.

    Raises:
        NotAvailable: the file is not in HARNESS_DATA.
        DataError: it is not as described.
    """
    path = path or require_shared_data_file(FILE_NAME)
    columns, sha256 = converted(path, _FILE_KIND, lambda: _columns(path))
    compositions = np.zeros(len(columns["ids"]) * N_ELEMENTS)
    compositions[columns["cells"]] = columns["counts"]
    return Dataset(
        name=f"{NAME} (targets)",
        ids=columns["ids"],
        target_ev_per_atom=columns["target"],
        crystals=None,
        compositions=compositions.reshape(-1, N_ELEMENTS),
        inputs={path.name: sha256},
        source="materialsproject/matbench, scripts/artifacts",
        licence=LICENCE,
        is_subset=len(columns["ids"]) < N_OFFICIAL,
        n_official=N_OFFICIAL,
        index=columns["index"],
    )


def _columns(path: Path) -> dict[str, np.ndarray]:
    """What load needs of the file; of compositions the elements that are there."""
    columns = read_parquet(path, ("mbid", "e_form", "composition"))
    ids = columns["mbid"].tolist()
    try:
        index = row_numbers(ids)
        target = columns["e_form"].astype(np.float64)
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: mbid or e_form is not as described ({error}). Restore the file."
        ) from error
    compositions = parse_compositions(columns["composition"].tolist(), ids).reshape(-1)
    cells = np.flatnonzero(compositions)
    found = {"index": index, "target": target, "cells": cells, "counts": compositions[cells]}
    if len(ids) == N_OFFICIAL:
        check_content(path, found, CONTENT_SHA256)
    return {"ids": np.array(ids), **found}


def check_content(path: Path, columns: Mapping[str, np.ndarray], sha256: str) -> None:
    """Raises DataError unless these columns are the published ones, in this order."""
    found = hashlib.sha256()
    for name, values in columns.items():
        kind = "<i8" if values.dtype.kind in "iu" else "<f8"
        found.update(name.encode() + b"\0" + values.astype(kind).tobytes())
    if found.hexdigest() != sha256:
        raise DataError(
            f"{path} does not hold the published values: sha256 of its columns is "
            f"{found.hexdigest()}, expected {sha256}. Restore it from its publisher."
        )


def parse_compositions(texts: Sequence[str], ids: Sequence[str]) -> np.ndarray:
    """(n, 118) float64 atoms of each element from texts like "Fe2 O3"; ids are for messages.

    Raises:
        DataError: a word is not an element with a whole number; the message gives the row's id.
    """
    words = [str(text).split() for text in texts]
    lengths = np.fromiter(map(len, words), np.int64, count=len(words))
    if (empty := np.flatnonzero(lengths == 0)).size:
        raise DataError(
            f"row {empty[0]} ({ids[empty[0]]}): the composition is empty. Restore the file."
        )
    flat = [word for row in words for word in row]
    meaning: dict[str, tuple[int, int]] = {}
    for word in sorted(set(flat)):  # a few thousand, however many rows there are
        match = _WORD.fullmatch(word)
        if match is None or match[1] not in NUMBERS:
            row = next(i for i, row_words in enumerate(words) if word in row_words)
            raise DataError(
                f"row {row} ({ids[row]}): {word!r} in {texts[row]!r} is not an element with a "
                'whole number of atoms. Write the cell\'s content as "Fe2 O3".'
            )
        meaning[word] = (NUMBERS[match[1]] - 1, int(match[2]))
    pairs = np.array([meaning[word] for word in flat], dtype=np.int64).reshape(-1, 2)
    cells = np.repeat(np.arange(len(words)), lengths) * N_ELEMENTS + pairs[:, 0]
    counts = np.bincount(cells, weights=pairs[:, 1], minlength=len(words) * N_ELEMENTS)
    return counts.reshape(len(words), N_ELEMENTS)


def read_parquet(path: Path, needed: Sequence[str]) -> dict[str, np.ndarray]:
    """Columns of a parquet file by name.

    Raises:
        DataError: it cannot be read, or a needed column is missing.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, use_threads=False)
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"{path} cannot be read as parquet ({type(error).__name__}: {error}). Restore it."
        ) from error
    if missing := [name for name in needed if name not in table.column_names]:
        raise DataError(
            f"{path} has no column {', '.join(missing)}: its columns are {table.column_names}. "
            "Restore it."
        )
    return {name: table[name].to_numpy() for name in table.column_names}
