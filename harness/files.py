"""Text in files: written whole or not at all, read strictly, made printable where it enters.

Public: write_whole, write_in_one_step, read_json, parse_json, printable, all_printable,
sha256_of, check_writable.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import secrets
import unicodedata
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from harness.errors import ConfigError, DataError

MOST_BYTES = 2**28  # of a JSON file; a session of the largest data set writes a hundredth of it


# --- writing


def write_whole(path: Path, content: str | bytes) -> None:
    """Put ``content`` at ``path``, as `write_in_one_step` does.

    Raises:
        OSError: it could not be written; what stood at ``path`` stands there still.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    write_in_one_step(path, lambda stream: stream.write(data))


def write_in_one_step(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Let ``write`` fill a file: a reader of ``path`` finds the old one or the new, never half.

    The file that is filled first has a name nobody else has, so two writers disturb nobody. It is
    opened as any other, so that others may read it if the user's umask says so.

    Raises:
        OSError: it could not be written; what stood at ``path`` stands there still.
    """
    part = path.with_name(f".{path.name[:100]}.{os.getpid()}.{secrets.token_hex(4)}.part")
    try:
        with part.open("x+b") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def check_writable(folder: Path, what: str, remedy: str) -> None:
    """Make the folder, and see that a file can be written there.

    Args:
        what: the folder is for, such as `the report`.
        remedy: what to do where it cannot.
    Raises:
        ConfigError: it is a file, or cannot be made, or nothing can be written in it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(probe := folder / f"probe-{secrets.token_hex(4)}", "writable\n")
        probe.unlink()
    except (OSError, ValueError) as error:  # a name with a NUL is a ValueError
        raise ConfigError(
            f"{printable(str(folder))}, the folder of {what}, cannot be written: "
            f"{printable(str(error))}. {remedy}"
        ) from None


# --- reading


def sha256_of(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_json(path: Path) -> Any:
    """What `parse_json` makes of a file.

    Raises:
        DataError: it cannot be read, is larger than any such file, or is no JSON.
    """
    try:
        if (size := path.stat().st_size) > MOST_BYTES:
            raise DataError(
                f"{path} has {size:,} bytes, and no such file has more than {MOST_BYTES:,}. "
                "Restore the file."
            )
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from None
    return parse_json(raw, path)


def parse_json(text: str | bytes, what: object) -> Any:
    """A JSON value without what JSON lets pass: doubled keys, NaN, infinities; its texts printable.

    Args:
        what: it is, for the message.
    Raises:
        DataError: it is no such JSON.
    """
    try:
        words = text if isinstance(text, str) else text.decode("utf-8")
        value = json.loads(
            words,
            object_pairs_hook=_without_doubles,
            parse_constant=_no_number,
            parse_float=_finite,
        )
        return all_printable(value)
    except RecursionError:
        why = "it is nested too deeply"
    except ValueError as error:  # not UTF-8, not JSON, or more digits than Python reads
        why = str(error)
    raise DataError(f"{what} is not JSON ({printable(why)}). Run the session again.")


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        double = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {double!r} stands twice in one object")
    return found


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is no number")


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError(f"{digits} is larger than any number here")
    return value


# --- words from outside


def printable(text: str) -> str:
    r"""The text with what no reader should meet raw spelled out: `\x1b` for an escape, `\udce9` for
    a byte that is not UTF-8, `\u202e` for what turns writing round. Newlines and tabs stay."""
    if text.isprintable():
        return text
    return "".join(c if _is_plain(c) else c.encode("unicode_escape").decode() for c in text)


def _is_plain(character: str) -> bool:
    return character.isprintable() or character in "\n\t" or unicodedata.category(character) == "Zs"


def all_printable(value: Any) -> Any:
    """Every text in a JSON-able value made `printable`, keys too; tuples become lists."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Mapping):
        found = {printable(str(key)): all_printable(one) for key, one in value.items()}
        if len(found) < len(value):
            raise ValueError(f"keys that read alike once they are printable: {sorted(found)}")
        return found
    if isinstance(value, list | tuple):
        return [all_printable(one) for one in value]
    return value
