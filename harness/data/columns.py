"""Named arrays in one uncompressed .npz file: written whole or not at all, checked when read.

The file's last bytes, the comment that a zip archive may end with, are the sha256 of all bytes
before: one that is cut short, or has one bit changed anywhere, raises DataError. Files of earlier
versions have no such seal. In them numpy's CRC-32 covers every array, and the directory has to list
as many as it says. Plain arrays only: nothing is unpickled, and nothing is larger in memory than in
the file.

Public: address, write_atomically, write_columns, read_columns, is_there, NotReadable.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import math
import os
import struct
import time
import zipfile
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

import numpy as np

from harness.data import texts
from harness.errors import DataError
from harness.files import write_in_one_step

_HEADER = "header_json"
_SEAL = b"mlip-claims sha256 "  # and 64 hex digits
_SEAL_BYTES = len(_SEAL) + 64
_END = struct.Struct("<4s4H2LH")  # how a zip archive ends, before its comment
_LARGEST = 64  # times texts.most_bytes(): as much as a file that is read in pieces
_ABANDONED_SECONDS = 3600.0


class NotReadable(DataError):
    """A file that may be whole: it may not be read here, or is larger than what is read."""


def address(key: object) -> str:
    """16 hex digits that name a JSON-able key: what files addressed by content are called."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]


def is_there(path: Path) -> bool:
    """Whether there is a file; False also where that cannot be told."""
    try:
        return path.is_file()
    except OSError:  # a folder that may not be entered
        return False


# --- writing


def write_atomically(path: Path, write: Callable[[IO[bytes]], None]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then put it in place in one step.

    What writers that were killed left in the folder is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _clear(path.parent)

    def locked(stream: IO[bytes]) -> None:
        _lock(stream)
        write(stream)

    write_in_one_step(path, locked)


@functools.cache
def _clear(folder: Path) -> None:
    """Once a process: remove unfinished files that are an hour old and that nobody writes."""
    for part in folder.glob(".*.part"):
        with suppress(OSError):  # gone by now, or somebody else's
            if time.time() - part.stat().st_mtime > _ABANDONED_SECONDS:
                with part.open("rb") as stream:
                    abandoned = _lock(stream)
                if abandoned:
                    part.unlink()


def _lock(stream: IO[bytes]) -> bool:
    """Hold the file until it is closed or this process ends; False where somebody else holds it.

    Windows has no such lock, and does not remove what somebody holds open.
    """
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # held, or a file system that cannot tell
        return False
    return True


def write_columns(
    path: Path, arrays: Mapping[str, np.ndarray], header: Mapping[str, object]
) -> None:
    """Write arrays and a JSON header; ``path`` holds either the old content or all of the new."""
    text = json.dumps(dict(header), sort_keys=True, allow_nan=False).encode()
    columns = {_HEADER: np.frombuffer(text, dtype=np.uint8), **arrays}

    def write(stream: IO[bytes]) -> None:
        np.savez(stream, allow_pickle=False, **columns)
        stream.seek(-2, os.SEEK_END)  # the length of the archive's comment, which is empty so far
        stream.write(struct.pack("<H", _SEAL_BYTES))
        stream.seek(0)
        digest = hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]
        stream.seek(0, os.SEEK_END)
        stream.write(_SEAL + digest.encode())

    write_atomically(path, write)


# --- reading


def read_columns(
    path: Path, only: Collection[str] | None = None
) -> tuple[dict[str, np.ndarray], dict[str, object]]:
    """Arrays and header that write_columns wrote.

    Args:
        only: read just these arrays, if they are there, and leave the others and the seal alone.
    Raises:
        DataError: the file is missing, is damaged or is not one of ours.
        NotReadable: it may not be read, or is larger than is read.
    """
    try:
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            if size > (most := _LARGEST * texts.most_bytes()):
                raise NotReadable(
                    f"{path} has {size:,} bytes, more than the {most:,} that are read. If it is "
                    f"meant to, raise the bound in {texts.MOST_VARIABLE}."
                )
            columns = _arrays(stream, size, only)
        header = json.loads(columns.pop(_HEADER).tobytes())
        if not isinstance(header, dict):
            raise ValueError("its header is no table")
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist. Write it first, or correct the path.") from error
    except (DataError, MemoryError):
        raise
    except Exception as error:  # zipfile answers damage with many kinds, NotImplementedError too
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise NotReadable(
                f"{path} cannot be read ({type(error).__name__}: {error}). Allow it, or name "
                "another folder."
            ) from error
        raise DataError(
            f"{path} is damaged or is not a columns file ({type(error).__name__}: {error}). "
            "Delete it; what wrote it can write it again."
        ) from error
    return columns, header


def _arrays(stream: IO[bytes], size: int, only: Collection[str] | None) -> dict[str, np.ndarray]:
    """Each array by its name, the header among them.

    Raises whatever numpy and zipfile raise; ValueError where they would not.
    """
    seal = _read(stream, size - _SEAL_BYTES, _SEAL_BYTES)
    n_seal = _SEAL_BYTES if seal.startswith(_SEAL) else 0
    if n_seal and only is None:
        stream.seek(0)
        digest = hashlib.sha256()
        left = size - n_seal
        while left and (piece := stream.read(min(left, 1 << 20))):
            digest.update(piece)
            left -= len(piece)
        if seal != _SEAL + digest.hexdigest().encode():
            raise ValueError("its bytes are not those of its sha256")
    end = _read(stream, size - n_seal - _END.size, _END.size)
    signature, _, _, _, n_arrays, _, _, n_comment = _END.unpack(end)
    if signature != b"PK\5\6" or n_comment != n_seal:
        raise ValueError("it does not end as it was written")
    with zipfile.ZipFile(stream) as archive:
        members = archive.infolist()
        names = [member.filename.removesuffix(".npy") for member in members]
        if len(set(names)) != n_arrays:  # or it would lose columns without a word
            raise ValueError(f"its directory lists {len(set(names))} of {n_arrays} arrays")
        return {
            name: _array(archive, member, size)
            for name, member in zip(names, members, strict=True)
            if only is None or name in only or name == _HEADER
        }


def _read(stream: IO[bytes], start: int, count: int) -> bytes:
    stream.seek(max(start, 0))
    return stream.read(count)


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo, size: int) -> np.ndarray:
    """One array that is no larger than it is in the file, which has so many bytes."""
    if member.compress_type != zipfile.ZIP_STORED or member.file_size > size:
        raise ValueError(f"{member.filename} is compressed, and none of ours is")
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, fortran, dtype = read_header(stream)
        if dtype.hasobject or math.prod(shape) * dtype.itemsize != member.file_size - stream.tell():
            raise ValueError(f"{member.filename} is not the {dtype} of {shape} that it says")
        values = bytearray(stream.read())  # zipfile compares the CRC-32
    return np.ndarray(shape, dtype=dtype, buffer=values, order="F" if fortran else "C")
