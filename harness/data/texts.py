"""Text of files, plain or gzipped, with a bound on what it may grow to before memory is taken.

Three megabytes of gzip can hold three gigabytes. What is read whole may have 64 MB, a file that is
read in pieces 64 times that; HARNESS_MOST_MB raises both. Objects made of a text take up to twenty
times as much memory as the text.

Public: pieces, whole, decoded, json_text, check_json, check, check_published, most_bytes,
MOST_VARIABLE, RESTORE.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.errors import ConfigError, DataError

MOST_VARIABLE = "HARNESS_MOST_MB"
_MOST_MB = 64
_IN_PIECES = 64  # times as much: the official file has a gigabyte, and is never held
_READ_BYTES = 1 << 18
_AT_ONCE = 1 << 20  # of text from one piece of gzip, which may hold a thousand times its size
RESTORE = "Restore the file: fetch it again, or write it again from its source"


def most_bytes() -> int:
    """What a text read whole may have.

    Raises:
        ConfigError: HARNESS_MOST_MB is no whole number of megabytes.
    """
    text = os.environ.get(MOST_VARIABLE) or str(_MOST_MB)
    if not re.fullmatch(r"[1-9][0-9]{0,6}", text):
        raise ConfigError(f"{MOST_VARIABLE}={text}: give a whole number of megabytes, 1 or more")
    return int(text) * 1_000_000


def pieces(path: Path) -> Iterator[bytes]:
    """The text of a file that is not held whole, piece by piece, inflated where it is gzip.

    Raises:
        DataError: it cannot be read, gzip says that it is damaged, or it goes on beyond the bound.
    """
    return _bounded(path, _IN_PIECES * most_bytes())


def whole(path: Path) -> bytes:
    """All of a file's text, inflated where it is gzip.

    Raises:
        DataError: it cannot be read, gzip says that it is damaged, or it has more than most_bytes.
    """
    return b"".join(_bounded(path, most_bytes()))


def json_text(path: Path) -> bytes:
    """All of a file's text, which is JSON with every key once.

    Raises:
        DataError: as `whole`, or it is no JSON, is nested too deep, or has a key twice.
    """
    text = whole(path)
    check_json(text, str(path))
    return text


def check_json(text: bytes, where: str) -> None:
    """Raises DataError unless text is JSON with every key once, where readers take the last."""
    try:
        json.loads(text, object_pairs_hook=_once)
    except RecursionError as error:
        raise DataError(f"{where}: brackets are nested too deep to be read. {RESTORE}.") from error
    except ValueError as error:  # UnicodeDecodeError is one
        raise DataError(f"{where} is not valid JSON ({error}). {RESTORE}.") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(key for i, (key, _) in enumerate(pairs) if key in dict(pairs[:i]))
        raise ValueError(f"the key {twice!r} is given twice in one object")
    return found


def check(path: Path) -> None:
    """Raises DataError where `whole` would: for readers that open the file themselves."""
    for _ in _bounded(path, most_bytes()):
        pass


def check_published(path: Path, sha256: str, source: str) -> None:
    """Raises DataError unless the file's text is the published one, however it is packed."""
    found = hashlib.sha256()
    for piece in _bounded(path, most_bytes()):
        found.update(piece)
    if found.hexdigest() != sha256:
        raise DataError(
            f"{path} is not the published file: sha256 of its text is {found.hexdigest()}, "
            f"expected {sha256}. Restore it from {source}."
        )


def _bounded(path: Path, most: int) -> Iterator[bytes]:
    n_out = 0
    for piece in _inflated(path):
        n_out += len(piece)
        if n_out > most:
            raise DataError(
                f"{path} holds more than {most // 1_000_000} MB of text. If it is meant to, raise "
                f"the bound: {MOST_VARIABLE}={2 * most_bytes() // 1_000_000}."
            )
        yield piece


def decoded(path: Path) -> str:
    """The same as UTF-8. Raises DataError also where it is not."""
    text = whole(path)
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not text in UTF-8: byte {error.start} is {text[error.start]:#04x}. "
            f"{RESTORE}, or convert it: iconv -f latin1 -t utf-8."
        ) from error


def _inflated(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as stream:
            data = stream.read(_READ_BYTES)
            if not data.startswith(b"\x1f\x8b"):
                while data:
                    yield data
                    data = stream.read(_READ_BYTES)
                return
            member = zlib.decompressobj(wbits=31)
            n_out = 0
            try:
                while data:
                    if member.eof:  # gzip files may be joined end to end, and padded with zeros
                        member = zlib.decompressobj(wbits=31)
                    piece = member.decompress(data, _AT_ONCE)
                    n_out += len(piece)
                    yield piece
                    data = member.unconsumed_tail or member.unused_data or stream.read(_READ_BYTES)
                    while member.eof and data and not (data := data.lstrip(b"\0")):
                        data = stream.read(_READ_BYTES)
            except zlib.error as error:
                raise DataError(
                    f"{path} is damaged: gzip fails after {n_out} bytes of text ({error}). "
                    f"{RESTORE}."
                ) from error
            while not member.eof and (piece := member.decompress(b"", _AT_ONCE)):
                yield piece
            if not member.eof:
                raise DataError(
                    f"{path} is cut short: it ends inside the gzip stream, at {stream.tell()} "
                    f"bytes ({n_out} bytes of text). {RESTORE}."
                )
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({type(error).__name__}: {error}). Correct the path, or what "
            "may be read."
        ) from error
