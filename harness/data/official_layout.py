"""Columns straight from matbench's JSON of structures, without building a structure.

The layout is pandas' "split" orientation, {"index": [...], "columns": [...], "data": [[structure,
target], ...]}, where a structure is pymatgen's dictionary. The official file is about a gigabyte of
such text, so it is inflated on one thread and decoded, some rows at a time, on another; only a few
megabytes of text and the finished columns are held. Rows are told apart by the separator the file
itself uses; a file laid out another way (other white space, other order of keys) is decoded whole,
which asks for as much memory as it has text.

The fast path only says whether a batch of rows is good. What is wrong with a bad one, and with
which row, is found by going through it again slowly.

Public: RawColumns, parse, crystals_from_json.
"""

from __future__ import annotations

import gc
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from harness.data import gate, texts
from harness.data.crystals import Crystals
from harness.data.folds import N_OFFICIAL, mbid, row_numbers
from harness.data.layout_rows import BAD_BATCH, Columns, Helpers, decode
from harness.errors import DataError

STRUCTURE, TARGET = "structure", "e_form"

_BATCH_BYTES = 1 << 18  # of text; what larger batches decode to falls out of the cache
_LARGE_FILE = (
    1 << 24
)  # bytes packed: below, a helper is not worth the half second it takes to start
_MOST_HELPERS = 3  # inflating, which is serial, keeps no more busy
_HEAD = re.compile(
    rb'\s*\{\s*"index"\s*:\s*(\[[^][]*\])\s*,\s*"columns"\s*:\s*(\[[^][]*\])\s*,'
    rb'\s*"data"\s*:\s*\[\s*(?=\[)'
)
_HEAD_LIMIT = 1 << 23  # an index of 132,752 ids takes half of these eight megabytes
_READABLE = 1 << 16  # bytes of the names of columns
_SEPARATORS = (b"], [{", b"],[{")  # json.dumps, pandas.to_json
_TAIL = re.compile(rb"\s*\]\s*\}\s*")

_RESTORE = texts.RESTORE
_AS_DICT = "Write structures with pymatgen's Structure.as_dict()"


@dataclass(frozen=True, kw_only=True, eq=False)
class RawColumns:
    """What the file says, row by row in its own order."""

    index: np.ndarray  # (n,) int64 official 0-based row numbers, unique
    target: np.ndarray  # (n,) float64, finite
    crystals: Crystals


def parse(path: Path) -> RawColumns:
    """Read a file in matbench's layout, gzip-compressed or plain.

    Raises:
        DataError: the file is cut short or is not such JSON, or a row is not an ordered structure
            and a finite number; the message names the row's position and its official id.
    """
    with _no_collector():
        try:
            with ThreadPoolExecutor(max_workers=1) as pool:
                return _parse_stream(path, _one_ahead(texts.pieces(path), pool))
        except _OtherLayoutError:
            return _parse_whole(path)


def crystals_from_json(structures: Sequence[bytes], path: Path, ids: Sequence[str]) -> Crystals:
    """Crystals from the JSON texts of pymatgen structures; path and ids are for messages.

    Raises:
        DataError: a text is not an ordered structure; the message names the row.
    """
    rows = _Rows(path, len(structures), lambda position: f"row {position} ({ids[position]})")
    try:
        rows.add(b"[" + b",".join([b"[" + text + b",0]" for text in structures]) + b"]")
    except _OtherLayoutError:
        raise DataError(f"{path} holds a structure that is not valid JSON. {_RESTORE}.") from None
    return rows.crystals()


class _OtherLayoutError(Exception):
    """The text cannot be cut into rows by looking at separators; says nothing about its content."""


# --- text -----------------------------------------------------------------------------------------


def _one_ahead(pieces: Iterator[bytes], pool: ThreadPoolExecutor) -> Iterator[bytes]:
    """The same pieces, the next one being made (zlib lets other threads run) while one is used."""
    future = pool.submit(next, pieces, None)
    while (piece := future.result()) is not None:
        future = pool.submit(next, pieces, None)
        yield piece


@contextmanager
def _no_collector() -> Iterator[None]:
    """Without the cycle collector, which would walk every decoded object; none is in a cycle."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _read_head(pieces: Iterator[bytes]) -> tuple[re.Match[bytes] | None, bytes]:
    """Everything before the first row as a match, and the text read so far."""
    text = b""
    for piece in pieces:
        text += piece
        if head := _HEAD.match(text):
            return head, text
        if len(text) > _HEAD_LIMIT:
            break
    return None, text


def _parse_stream(path: Path, pieces: Iterator[bytes]) -> RawColumns:
    head, text = _read_head(pieces)
    if head is None or _names(head[2]) != [STRUCTURE, TARGET]:
        raise _OtherLayoutError
    index = _official_numbers(path, head[1])
    rows = _Rows(path, len(index), _official_name(index))
    text, separator = text[head.end() :], b""
    n_helpers = min(_MOST_HELPERS, _n_cores() - 1) if path.stat().st_size > _LARGE_FILE else 0
    with Helpers(n_helpers) as helpers:
        for piece in chain((b"",), pieces):
            text += piece
            start = 0
            separator = separator or max(_SEPARATORS, key=text.count)
            while (cut := text.find(separator, start + _BATCH_BYTES)) >= 0:
                _take(rows, helpers.give(b"[" + text[start : cut + 1] + b"]"))
                start = cut + 2
            text = text[start:]
            if separator not in text:
                separator = b""
                if len(text) > _HEAD_LIMIT:
                    raise _OtherLayoutError
        _take(rows, helpers.rest())
    end = text.rfind(b"]", 0, max(text.rfind(b"]"), 0))  # the last row's, before that of "data"
    if end < 0 or not _TAIL.fullmatch(text, end + 1):
        raise _OtherLayoutError
    rows.add(b"[" + text[: end + 1] + b"]")
    return RawColumns(index=index, target=rows.target(), crystals=rows.crystals())


def _take(rows: _Rows, done: Iterable[tuple[bytes, Columns | None]]) -> None:
    """Batches in their order; one that could not be decoded says why."""
    for text, columns in done:
        if columns is None:
            rows.add(text)
        else:
            rows.append(columns)


def _n_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _parse_whole(path: Path) -> RawColumns:
    """For any white space and order of keys, at the price of holding all text at once."""
    text = texts.whole(path)
    if not text.strip():
        raise DataError(f"{path} is empty. {_RESTORE}.")
    try:
        table = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
        if missing := [key for key in ("index", "columns", "data") if key not in table]:
            raise DataError(
                f"{path} lacks {', '.join(missing)}: its keys are {sorted(table)[:8]}. Write the "
                'table with df.to_json(orient="split"), structures as dictionaries.'
            )
        data = msgspec.json.decode(table["data"], type=list[msgspec.Raw])
        if any(
            text.count(b'"%s"' % key.encode()) > 1 for key in table
        ):  # or the last would be taken
            texts.check_json(text, str(path))
    except msgspec.ValidationError as error:
        raise DataError(
            f"{path} is not a table of structures ({error}). Expected "
            '{"index": [...], "columns": [...], "data": [[structure, target], ...]}.'
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(_json_problem(path, text, error)) from error
    except RecursionError as error:
        raise DataError(
            f"{path}: brackets are nested too deep to be read. Write the table with "
            'df.to_json(orient="split"), structures as dictionaries.'
        ) from error
    columns = _names(table["columns"])
    if absent := [name for name in (STRUCTURE, TARGET) if name not in columns]:
        raise DataError(
            f"{path} has no column {' and no '.join(absent)}: its columns are {columns}. Name the "
            f"columns {STRUCTURE!r} and {TARGET!r} (eV/atom)."
        )
    index = _official_numbers(path, table["index"])
    rows = _Rows(path, len(index), _official_name(index))
    structure, target = columns.index(STRUCTURE), columns.index(TARGET)
    for start in range(0, len(data), 64):
        batch = []
        for position, entry in enumerate(data[start : start + 64], start=start):
            row = _values(entry)
            if len(row) != len(columns):
                raise DataError(
                    f"{path}, {rows.name(position)}: {len(row)} values for {len(columns)} columns "
                    f"{columns}. {_RESTORE}."
                )
            batch.append(b"[" + bytes(row[structure]) + b"," + bytes(row[target]) + b"]")
        try:
            rows.add(b"[" + b",".join(batch) + b"]")
        except _OtherLayoutError as error:
            raise DataError(
                f"{path}, from {rows.name(start)} on: a row is not valid JSON ({error.__cause__}). "
                f"{_RESTORE}."
            ) from error
    return RawColumns(index=index, target=rows.target(), crystals=rows.crystals())


def _values(row: msgspec.Raw) -> list[msgspec.Raw]:
    """What is in a row, nothing where it is no list."""
    try:
        return msgspec.json.decode(row, type=list[msgspec.Raw])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return []


def _json_problem(path: Path, text: bytes, error: Exception) -> str:
    """Where the text stops being JSON."""
    place = re.search(r"\(byte (\d+)\)", str(error))
    at = int(place[1]) if place else len(text)
    begun = text.count(b'"lattice"', 0, at)  # one in every row
    index = re.search(rb'"index"\s*:\s*(\[[^][]*\])', text[:at])
    if not begun:
        where = "before the first row"
    elif index:
        where = f"in {_official_name(_official_numbers(path, index[1]))(begun - 1)}"
    else:
        where = f"in row {begun - 1}"
    around = text[max(0, at - 60) : at + 20].decode(errors="replace")
    return (
        f"{path} is not valid JSON at byte {at} of {len(text)}, {where} ({error}): {around!r}. "
        f"{_RESTORE}."
    )


def _names(text: bytes | msgspec.Raw) -> list[str]:
    try:
        if len(bytes(text)) > _READABLE:
            return []
        return msgspec.json.decode(text, type=list[str])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return []


def _official_numbers(path: Path, text: bytes | msgspec.Raw) -> np.ndarray:
    """(n,) int64 official row numbers; matbench's own ids are understood too."""
    try:
        if len(bytes(text)) > _HEAD_LIMIT:
            raise ValueError(f"it has more than {_HEAD_LIMIT} bytes")
        entries = msgspec.json.decode(text, type=list[int | str])
        if entries and all(isinstance(entry, str) for entry in entries):
            index = row_numbers([str(entry) for entry in entries])
        else:
            index = np.array(entries, dtype=np.int64)
    except (msgspec.MsgspecError, ValueError, OverflowError) as error:
        raise DataError(
            f"{path}: index is not a list of official 0-based row numbers ({error}). Keep the "
            f'numbers of the official file, or ids like "{mbid(0)}".'
        ) from error
    outside = np.flatnonzero((index < 0) | (index >= N_OFFICIAL))
    if len(outside):
        raise DataError(
            f"{path}: row {outside[0]} has index {index[outside[0]]}, outside 0 to "
            f"{N_OFFICIAL - 1}. index holds official 0-based row numbers of mp_e_form."
        )
    _, first, inverse = np.unique(index, return_index=True, return_inverse=True)
    if len(first) < len(index):
        again = int(np.flatnonzero(first[inverse] != np.arange(len(index)))[0])
        raise DataError(
            f"{path}: row {again} has index {index[again]} ({mbid(int(index[again]))}), as has row "
            f"{first[inverse[again]]}. A row counts once; remove the copy from index and data."
        )
    return index


def _official_name(index: np.ndarray) -> Callable[[int], str]:
    def name(position: int) -> str:
        if position >= len(index):
            return f"row {position} (beyond the {len(index)} entries of index)"
        number = int(index[position])
        return f"row {position} (index {number}, {mbid(number)})"

    return name


# --- rows -----------------------------------------------------------------------------------------
class _Rows:
    """Columns under construction; numbers arrive as flat runs and are shaped at the end."""

    def __init__(self, path: Path, n_expected: int, name: Callable[[int], str]) -> None:
        self.path = path
        self.n_expected = n_expected
        self.name = name  # how a message calls the row at a position
        self.n_rows = 0
        self._parts: list[Columns] = []

    def add(self, text: bytes) -> None:
        """Decode one batch, a JSON list of whole rows."""
        try:
            self.append(decode(text))
        except BAD_BATCH as error:
            raise self._problem(text, error) from error

    def append(self, columns: Columns) -> None:
        """The next batch, decoded."""
        self._parts.append(columns)
        self.n_rows += len(columns.targets)
        if self.n_rows > self.n_expected:
            raise self._without_partner()

    def _without_partner(self) -> DataError:
        return DataError(
            f"{self.path}: index has {self.n_expected} entries and data has {self.n_rows} rows"
            f"{' or more' if self.n_rows > self.n_expected else ''}; the first without a partner "
            f"is row {min(self.n_rows, self.n_expected)}. {_RESTORE}."
        )

    def _problem(self, text: bytes, error: Exception) -> DataError | _OtherLayoutError:
        """The first thing wrong in a batch, found slowly."""
        try:
            rows = json.loads(text)  # understands NaN and Infinity, which are no JSON
        except RecursionError:
            return DataError(
                f"{self.path}, in a row from {self.name(self.n_rows)} on: brackets are nested too "
                f"deep to be read. {_AS_DICT}."
            )
        except ValueError:
            return _OtherLayoutError()  # cut at the wrong place, or the file is broken
        for position, row in enumerate(rows, start=self.n_rows):
            where = f"{self.path}, {self.name(position)}"
            try:
                if what := _why_not(row, where):
                    return DataError(f"{where}: {what}")
            except DataError as refused:
                return refused
        return DataError(
            f"{self.path}, in rows {self.n_rows} to {self.n_rows + len(rows) - 1}: {error}. "
            f"{_RESTORE}."
        )

    def target(self) -> np.ndarray:
        """(n,) float64."""
        return np.concatenate([np.empty(0), *(part.targets for part in self._parts)])

    def crystals(self) -> Crystals:
        """Everything added, which it releases. Raises DataError if rows are missing or flat."""
        if self.n_rows != self.n_expected:
            raise self._without_partner()
        if self.n_rows == 0:
            raise DataError(f"{self.path} has no rows. {_RESTORE}.")
        numbers, n_sites, coords, vectors, _ = zip(*self._parts, strict=True)
        self._parts.clear()
        return Crystals.admitted(
            numbers=np.concatenate(numbers),
            frac_coords=np.concatenate(coords).reshape(-1, 3),
            lattices=np.concatenate(vectors).reshape(-1, 3, 3),
            offsets=np.concatenate([[0], np.cumsum(np.concatenate(n_sites))]),
            name=lambda row: f"{self.path}, {self.name(row)}",
        )


# --- what is wrong with a row ---------------------------------------------------------------------


def _why_not(row: Any, where: str) -> str | None:
    """Why a decoded row is not an ordered structure and a finite number, or None if it is one.

    Raises:
        DataError: for what the gate says itself, of the row called ``where``.
    """
    if not isinstance(row, list) or len(row) != 2:
        count = f"{len(row)} values" if isinstance(row, list) else f"a {type(row).__name__}"
        return f"{count} for 2 columns ({STRUCTURE}, {TARGET}). {_RESTORE}."
    structure, target = row
    if not _is_finite(target):
        return (
            f"{TARGET} is {target!r}, not a finite number of eV/atom. Remove the row and its index "
            "entry, or restore the value."
        )
    try:
        lattice, sites = structure["lattice"]["matrix"], structure["sites"]
    except (KeyError, TypeError) as error:
        return (
            f"the structure has no lattice.matrix or no sites ({type(error).__name__}: {error}). "
            f"{_AS_DICT}."
        )
    pbc = structure["lattice"].get("pbc", [True] * 3)
    if not (isinstance(pbc, list) and len(pbc) == 3 and all(isinstance(p, bool) for p in pbc)):
        return f"lattice.pbc is {pbc!r:.80}, not three times true or false. {_AS_DICT}."
    gate.check_periodic(pbc, where)
    if not _is_vector(lattice, _is_vector):
        return (
            f"lattice.matrix is {lattice!r:.200}, not three vectors of three finite numbers in Å. "
            f"{_RESTORE}."
        )
    if not isinstance(sites, list) or not sites:
        return f"sites is {sites!r:.60}: a crystal has at least one. Remove the row."
    for position, site in enumerate(sites):
        if what := _why_not_site(site, f"{where}, site {position}"):
            return f"site {position}: {what}"
    return None


def _why_not_site(site: Any, where: str) -> str | None:
    try:
        species, abc = site["species"], site["abc"]
        occupants = [(one["element"], one["occu"]) for one in species]
    except (KeyError, TypeError) as error:
        return (
            "no species with element and occu, or no abc "
            f"({type(error).__name__}: {error}). {_AS_DICT}."
        )
    if strange := [share for _, share in occupants if not _is_finite(share)]:
        return f"occu is {strange[0]!r}, not a number. {_AS_DICT}."
    gate.check_occupied([(str(element), share) for element, share in occupants], where)
    gate.atomic_number(occupants[0][0], where)
    if not _is_vector(abc):
        return f"abc is {abc!r:.80}, not three finite fractional coordinates. {_RESTORE}."
    return None


def _is_finite(value: Any) -> bool:
    """A number that float64 can hold, which true and false are not."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _is_vector(value: Any, is_entry: Callable[[Any], bool] = _is_finite) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(map(is_entry, value))
