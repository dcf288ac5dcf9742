"""Files of others, converted to columns once for their content and kept in the cache.

The cache is only that: where it cannot be read or written, columns are made again.

Public: converted.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from harness.data.columns import is_there, read_columns, write_columns
from harness.data.paths import columns_dir
from harness.errors import DataError, Remark
from harness.files import sha256_of


def converted(
    path: Path, kind: str, make: Callable[[], Mapping[str, np.ndarray]]
) -> tuple[dict[str, np.ndarray], str]:
    """Columns of a file, from the cache where it was converted before; and the file's sha256.

    Args:
        kind: what the columns are and how they are made, with a number to raise when that changes.
        make: reads the file. What it raises is raised, and nothing is kept then.
    Raises:
        DataError: the file cannot be read.
    """
    try:
        sha256 = sha256_of(path)
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({type(error).__name__}: {error}). Correct the path, or what "
            "may be read."
        ) from error
    cached = columns_dir() / f"{kind}-{sha256[:32]}.npz"
    header = {"kind": kind, "sha256": sha256}
    if is_there(cached):
        try:
            columns, found = read_columns(cached)
            if found != header:
                raise DataError(f"{cached} holds {found}, not {kind} of {sha256}.")
            return columns, sha256
        except DataError as error:
            warnings.warn(f"{error} {path.name} is converted again.", Remark, stacklevel=3)
    columns = dict(make())
    try:
        write_columns(cached, columns, header)
    except OSError as error:
        warnings.warn(
            f"could not write {cached}: {error}. The columns of {path.name} are in memory, and the "
            "next session converts it again. Free space, or name another folder in HARNESS_CACHE.",
            Remark,
            stacklevel=3,
        )
    return columns, sha256
