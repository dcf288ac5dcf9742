"""What published models predict for every row of matbench v0.1 mp_e_form.

Source: materialsproject/matbench, benchmarks/ (MIT), test predictions of coNGN, ALIGNN, CGCNN,
CrabNet and RF-SCM/Magpie, each row by the model that was not trained on it. Unit: eV/atom.

Public: load_peer_predictions, PeerPredictions.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.data.folds import N_FOLDS, N_OFFICIAL, row_numbers
from harness.data.paths import require_shared_data_file
from harness.data.targets import check_content, read_parquet
from harness.errors import DataError
from harness.files import sha256_of

FILE_NAME = "matbench_mp_e_form_peer_predictions.parquet"
# of the columns of all official rows
CONTENT_SHA256 = "d1e8c7ad2cf94318d88ae397a74c2649ca0a0a0f46a9e098f27d374cee7122a5"


@dataclass(frozen=True, kw_only=True, eq=False)
class PeerPredictions:
    """One number a row and model."""

    ids: np.ndarray  # (n,) str, unique
    fold: np.ndarray  # (n,) int8, the fold in which the row was tested
    predictions: dict[str, np.ndarray]  # model -> (n,) float64 eV/atom
    inputs: dict[str, str]  # file name -> sha256


def load_peer_predictions(path: Path | None = None) -> PeerPredictions:
    """All official rows, in the official order.

    Raises:
        NotAvailable: the file is not in HARNESS_DATA.
        DataError: it is not as described.
    """
    path = path or require_shared_data_file(FILE_NAME)
    columns = read_parquet(path, ("mbid", "fold"))
    ids, fold = columns.pop("mbid").astype(str), columns.pop("fold")
    try:
        index = row_numbers(ids.tolist())
        predictions = {name: values.astype(np.float64) for name, values in columns.items()}
    except (ValueError, TypeError) as error:
        raise DataError(
            f"{path}: mbid or a prediction is not as described ({error}). Restore the file."
        ) from error
    if not len(ids) or not predictions:
        raise DataError(f"{path}: {len(ids)} rows of {len(predictions)} models. Restore the file.")
    if not np.isin(fold, np.arange(N_FOLDS)).all():
        raise DataError(
            f"{path}: fold holds {np.unique(fold)[:8].tolist()}, expected 0 to {N_FOLDS - 1}. "
            "Restore the file."
        )
    if len(np.unique(ids)) != len(ids):
        raise DataError(f"{path}: an mbid comes twice. Restore the file.")
    for name, values in predictions.items():
        if (bad := np.flatnonzero(~np.isfinite(values))).size:
            raise DataError(
                f"{path}: {name} predicts {values[bad[0]]} for {ids[bad[0]]} ({bad.size} such "
                "rows). Restore the file."
            )
    if len(ids) == N_OFFICIAL:
        check_content(path, {"index": index, "fold": fold, **predictions}, CONTENT_SHA256)
    return PeerPredictions(
        ids=ids,
        fold=fold.astype(np.int8),
        predictions=predictions,
        inputs={path.name: sha256_of(path)},
    )
