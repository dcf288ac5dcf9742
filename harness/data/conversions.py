"""Files of others, converted to columns once for their content and kept in the cache.

Public: converted.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from harness.data.columns import read_columns, write_columns
from harness.data.paths import columns_dir, sha256_of
from harness.errors import DataError


def converted(
    path: Path, kind: str, make: Callable[[], Mapping[str, np.ndarray]]
) -> tuple[dict[str, np.ndarray], str]:
    """Columns of a file, from the cache where it was converted before; and the file's sha256.

    Args:
        kind: what the columns are and how they are made, with a number to raise when that changes.
        make: reads the file. What it raises is raised, and nothing is kept then.
    """
    sha256 = sha256_of(path)
    cached = columns_dir() / f"{kind}-{sha256[:32]}.npz"
    header = {"kind": kind, "sha256": sha256}
    if cached.exists():
        try:
            columns, found = read_columns(cached)
            if found != header:
                raise DataError(f"{cached} holds {found}, not {kind} of {sha256}.")
            return columns, sha256
        except DataError as error:
            warnings.warn(f"{error} {path.name} is converted again.", stacklevel=3)
    columns = dict(make())
    write_columns(cached, columns, header)
    return columns, sha256
