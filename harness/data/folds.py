"""The five official test folds of matbench v0.1 mp_e_form.

Source: matbench_v0.1_validation.json of the matbench package (MIT), which lists the ids of every
fold. It is read where the package is installed, without importing it, and compared with what made
it: scikit-learn's KFold(5, shuffle=True, random_state=18012019) over the official row order.

Public: N_OFFICIAL, N_FOLDS, official_folds, definition_file, matbench_hint, mbid, row_numbers.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from harness.data.conversions import converted
from harness.data.paths import columns_dir, package_file
from harness.errors import DataError, NotAvailable

N_OFFICIAL = 132_752
N_FOLDS = 5
RANDOM_STATE = 18012019

_TASK = "matbench_mp_e_form"
_ID_PREFIX = "mb-mp-e-form-"
_RESTORE = "Run: pip install --no-deps --force-reinstall matbench==0.6"
_FILE_KIND = "official-folds-1"


def mbid(number: int) -> str:
    """matbench's id of an official 0-based row number."""
    return f"{_ID_PREFIX}{number + 1:06d}"


def row_numbers(ids: Sequence[str]) -> np.ndarray:
    """(n,) int64 official 0-based row numbers of matbench's ids.

    Raises:
        ValueError: an id is not like mb-mp-e-form-000001.
    """
    if strange := next((i for i in ids if not i.startswith(_ID_PREFIX)), None):
        raise ValueError(f"{strange!r} does not start with {_ID_PREFIX}")
    return np.array([int(i[len(_ID_PREFIX) :]) for i in ids], dtype=np.int64) - 1


def matbench_hint() -> str:
    """How to install matbench, whose own pins no current Python can build."""
    return "Run: pip install --no-deps matbench==0.6"


def definition_file() -> Path | None:
    """matbench's own list of every fold, or None where the package is not installed."""
    return package_file("matbench", "matbench_v0.1_validation.json")


def official_folds() -> np.ndarray:
    """(132752,) int8: in which fold, 0 to 4, each official row is tested. Read-only.

    Raises:
        NotAvailable: the matbench package is not installed; the message has the one command.
        DataError: its definition is not the one this project knows.
    """
    path = definition_file()
    if path is None:
        raise NotAvailable(
            "matbench is not installed, and the official folds are read from its files. "
            + matbench_hint()
        )
    return _folds_of(path, str(columns_dir()))


@functools.cache
def _folds_of(path: Path, cache: str) -> np.ndarray:
    """From the cache folder, which is named so that another one is another answer."""
    columns, _ = converted(path, _FILE_KIND, lambda: {"fold": _checked(_parse(path), path)})
    return _checked(columns["fold"], path)


def _parse(path: Path) -> np.ndarray:
    """Fold of each row from the lists of ids; every row has to be tested exactly once."""
    import msgspec

    class Ids(msgspec.Struct):
        train: list[str]
        test: list[str]

    try:
        document = msgspec.json.decode(path.read_bytes(), type=dict[str, dict[str, msgspec.Raw]])
        folds = msgspec.json.decode(document["splits"][_TASK], type=dict[str, Ids])
        tests = [row_numbers(folds[f"fold_{k}"].test) for k in range(N_FOLDS)]
        trains = [row_numbers(folds[f"fold_{k}"].train) for k in range(N_FOLDS)]
    except (msgspec.MsgspecError, KeyError, ValueError) as error:
        raise DataError(
            f"{path} does not define the folds of {_TASK} ({type(error).__name__}: {error}). "
            f"{_RESTORE}"
        ) from error
    fold = np.full(N_OFFICIAL, -1, dtype=np.int8)
    for k, rows in enumerate(tests):
        if len(rows) and (rows.min() < 0 or rows.max() >= N_OFFICIAL):
            raise DataError(f"{path}: fold {k} tests rows beyond {N_OFFICIAL}. {_RESTORE}")
        fold[rows] = k
    for k, rows in enumerate(trains):
        expected = np.flatnonzero(fold != k)
        if not np.array_equal(np.sort(rows), expected):
            raise DataError(
                f"{path}: fold {k} trains on {len(rows)} rows, not on the {len(expected)} it does "
                f"not test. {_RESTORE}"
            )
    return fold


def _checked(fold: np.ndarray, where: Path) -> np.ndarray:
    """The folds, if they are those of KFold; numpy promises never to change RandomState."""
    order = np.random.RandomState(RANDOM_STATE).permutation(N_OFFICIAL)
    expected = np.empty(N_OFFICIAL, dtype=np.int8)
    for k, rows in enumerate(np.array_split(order, N_FOLDS)):
        expected[rows] = k
    if fold.shape != expected.shape or fold.dtype != np.int8:
        raise DataError(f"{where}: folds of {fold.shape} {fold.dtype}, expected int8 for all rows.")
    if different := int(np.count_nonzero(fold != expected)):
        raise DataError(
            f"{where}: {different} rows are in another fold than KFold({N_FOLDS}, shuffle=True, "
            f"random_state={RANDOM_STATE}) puts them. Numbers would not compare with the "
            f"leaderboard. {_RESTORE}"
        )
    fold.flags.writeable = False
    return fold
