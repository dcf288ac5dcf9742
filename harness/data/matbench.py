"""matbench v0.1 mp_e_form: formation energies of Materials Project crystals, with structures.

Source: ml.materialsproject.org, described by matminer and matbench (A. Dunn et al., npj Comput.
Mater. 6, 138 (2020)); retrieved from the Materials Project on 2 April 2019.  Licence: Materials
Project data, CC-BY-4.0; matbench, MIT.  Theory: PBE and PBE+U with the corrections of its time.
Sign: negative is bound against the elements. Unit: eV/atom.

Any file in the official layout is read, whole or a part; what makes it matbench is `index`, the
official 0-based row number of every row. Rows of other origin do not belong under such an index:
they would be scored as official rows.

A file is converted once. The columns are kept in the cache under the sha256 of the file, so that a
changed file is another set and an unchanged one opens in about a second.

Public: load, PUBLISHED_SHA256.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from harness.data.columns import read_columns, write_columns
from harness.data.crystals import Crystals
from harness.data.dataset import Dataset
from harness.data.folds import N_OFFICIAL, mbid
from harness.data.paths import columns_dir, sha256_of
from harness.errors import DataError

NAME = "matbench_mp_e_form"
FILE_NAME = f"{NAME}.json.gz"
LICENCE = "CC-BY-4.0 (Materials Project), MIT (matbench)"

# of matbench_mp_e_form.json.gz, as matminer's dataset_metadata.json gives it
PUBLISHED_SHA256 = "dedcb1d4ba2e3e50dbdd45ba5bc647a00e9c2bcf8f8bf556dc8e92caa39eb21f"

_FILE_KIND = "matbench-columns-1"


def load(path: Path) -> Dataset:
    """All rows of a file in the official layout, through the cache.

    A file with fewer than the 132,752 official rows becomes "matbench_mp_e_form (subset)".

    Raises:
        DataError: the file is missing or damaged, or a row cannot be used; nothing is cached then.
    """
    if not path.is_file():
        raise DataError(
            f"{path} does not exist. Correct the path, or run: python -m harness doctor"
        )
    sha256 = sha256_of(path)
    index, target, crystals = _cached(path, sha256)
    is_subset = len(index) < N_OFFICIAL
    origin = "as published" if sha256 == PUBLISHED_SHA256 else "not the published file"
    return Dataset(
        name=f"{NAME} (subset)" if is_subset else NAME,
        ids=np.array([mbid(number) for number in index.tolist()]),
        target_ev_per_atom=target,
        crystals=crystals,
        compositions=crystals.compositions(),
        inputs={path.name: sha256},
        source=f"matbench v0.1 mp_e_form, {path.name} ({origin})",
        licence=LICENCE,
        is_subset=is_subset,
        n_official=N_OFFICIAL,
        index=index,
    )


def _cached(path: Path, sha256: str) -> tuple[np.ndarray, np.ndarray, Crystals]:
    cached = columns_dir() / f"matbench-{sha256[:32]}.npz"
    if cached.exists():
        try:
            columns, header = read_columns(cached)
            if header != {"kind": _FILE_KIND, "sha256": sha256}:
                raise DataError(f"{cached} holds {header}, not {_FILE_KIND} of {sha256}.")
            index, target = columns.pop("index"), columns.pop("target")
            return index, target, Crystals(**columns)
        except (DataError, KeyError, TypeError) as error:
            warnings.warn(f"{error} {path.name} is converted again.", stacklevel=4)

    from harness.data.official_layout import parse

    raw = parse(path)
    columns = {"index": raw.index, "target": raw.target, **raw.crystals.columns()}
    write_columns(cached, columns, {"kind": _FILE_KIND, "sha256": sha256})
    return raw.index, raw.target, raw.crystals
