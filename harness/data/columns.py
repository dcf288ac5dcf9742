"""Named arrays in one uncompressed .npz file: written whole or not at all, checked when read.

The zip container stores a CRC-32 of every array, which numpy's reader verifies; a file cut short,
or with a flipped bit, raises DataError. Plain arrays only: nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

import numpy as np

from harness.errors import DataError

_HEADER = "header_json"


def address(key: object) -> str:
    """16 hex digits that name a JSON-able key: what files addressed by content are called."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]


def write_atomically(path: Path, write: Callable[[IO[bytes]], None]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then put it in place in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_columns(
    path: Path, arrays: Mapping[str, np.ndarray], header: Mapping[str, object]
) -> None:
    """Write arrays and a JSON header; ``path`` holds either the old content or all of the new."""
    text = json.dumps(dict(header), sort_keys=True, allow_nan=False).encode()
    columns = {_HEADER: np.frombuffer(text, dtype=np.uint8), **arrays}

    def write(stream: IO[bytes]) -> None:
        np.savez(stream, allow_pickle=False, **columns)

    write_atomically(path, write)


def read_columns(path: Path) -> tuple[dict[str, np.ndarray], dict[str, object]]:
    """Arrays and header that write_columns wrote.

    Raises:
        DataError: the file is missing, cut short, altered, or not one of ours.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist. Write it first, or correct the path.")
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            columns = {name: archive[name] for name in archive.files}
        header = json.loads(columns.pop(_HEADER).tobytes())
    except Exception as error:  # zipfile answers damage with many kinds, NotImplementedError too
        raise DataError(
            f"{path} is damaged or is not a columns file ({type(error).__name__}: {error}). "
            "Delete it; what wrote it can write it again."
        ) from error
    return columns, header
