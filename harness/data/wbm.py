"""WBM: 972 crystals that are not in the Materials Project, made by swapping elements.

Source: materialsvirtuallab/matcalc, wbm-random-pbe52-equilibrium-2025.1 (BSD-3-Clause), a random
sample of H.-C. Wang, S. Botti, M. A. L. Marques, npj Comput. Mater. 7, 12 (2021).
Theory: PBE and PBE+U with the Materials Project's settings. Sign: negative is bound.

The target is `corrected_formation_energy_per_atom`: with MP2020 corrections, as today's formation
energies of the Materials Project and the energies of potentials trained on it are. The raw
`formation_energy_per_atom` differs in 378 rows, by up to 1.08 eV/atom; it and the total energies of
the cells are kept in `extras`.

The elemental references behind it are older than those of harness.data.references, which put O, I,
Bi and Br higher by 0.001, 0.051, 0.050 and 0.084 eV/atom. Formation energies made with the latter
come out lower than this target in 155 rows, by 0.063 eV/atom at most; the others agree to 1e-6.

There is nothing to train on: fold 0 tests every row and its training set is empty.

Public: load.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np

from harness.data import texts
from harness.data.dataset import Dataset
from harness.data.official_layout import crystals_from_json
from harness.data.paths import require_shared_data_file
from harness.errors import DataError
from harness.files import sha256_of

NAME = "wbm"
FILE_NAME = "wbm-random-pbe52-equilibrium-2025.1.json.gz"
TEXT_SHA256 = "d219ffcc5dd5e805ac8ff87454162ea62dd13c283d32f9af5c5c95b70dcda673"
N_OFFICIAL = 972


class _Row(msgspec.Struct):
    material_id: str
    structure: msgspec.Raw
    energy: float
    corrected_energy: float
    formation_energy_per_atom: float
    corrected_formation_energy_per_atom: float


def load(path: Path | None = None) -> Dataset:
    """All 972 rows; ``extras`` has four (972,) float64 columns.

    energy_ev and corrected_energy_ev are totals of the cell, without and with MP2020 corrections;
    raw_e_form_ev_per_atom and corrected_e_form_ev_per_atom are formation energies likewise.

    Raises:
        NotAvailable: the file is not in HARNESS_DATA.
        DataError: the one in HARNESS_DATA is not the published one, or it is not as described.
    """
    if path is None:
        path = require_shared_data_file(FILE_NAME)
        texts.check_published(path, TEXT_SHA256, "materialsvirtuallab/matcalc")
    try:
        rows = msgspec.json.decode(texts.json_text(path), type=list[_Row])
    except msgspec.MsgspecError as error:
        raise DataError(
            f"{path} is not the WBM file ({type(error).__name__}: {error}). Restore it."
        ) from error
    ids = [row.material_id for row in rows]
    crystals = crystals_from_json([bytes(row.structure) for row in rows], path, ids)
    target = np.array([row.corrected_formation_energy_per_atom for row in rows])
    return Dataset(
        name=NAME,
        ids=np.array(ids),
        target_ev_per_atom=target,
        crystals=crystals,
        compositions=crystals.compositions(),
        inputs={path.name: sha256_of(path)},
        source="materialsvirtuallab/matcalc, wbm-random-pbe52-equilibrium-2025.1",
        licence="BSD-3-Clause",
        is_subset=len(rows) < N_OFFICIAL,
        n_official=N_OFFICIAL,
        extras={
            "energy_ev": np.array([row.energy for row in rows]),
            "corrected_energy_ev": np.array([row.corrected_energy for row in rows]),
            "raw_e_form_ev_per_atom": np.array([row.formation_energy_per_atom for row in rows]),
            "corrected_e_form_ev_per_atom": target,
        },
    )
