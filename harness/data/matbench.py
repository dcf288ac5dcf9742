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

from pathlib import Path

import numpy as np

from harness.data.conversions import converted
from harness.data.crystals import Crystals
from harness.data.dataset import Dataset
from harness.data.folds import N_OFFICIAL, mbid
from harness.errors import DataError

NAME = "matbench_mp_e_form"
FILE_NAME = f"{NAME}.json.gz"
LICENCE = "CC-BY-4.0 (Materials Project), MIT (matbench)"

# of matbench_mp_e_form.json.gz, as matminer's dataset_metadata.json gives it
PUBLISHED_SHA256 = "dedcb1d4ba2e3e50dbdd45ba5bc647a00e9c2bcf8f8bf556dc8e92caa39eb21f"

_FILE_KIND = "matbench-2"  # 2: rows went through the gate


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
    columns, sha256 = converted(path, _FILE_KIND, lambda: _columns(path))
    index, target = columns.pop("index"), columns.pop("target")
    crystals = Crystals(**columns)
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


def _columns(path: Path) -> dict[str, np.ndarray]:
    from harness.data.official_layout import parse

    raw = parse(path)
    return {"index": raw.index, "target": raw.target, **raw.crystals.columns()}
