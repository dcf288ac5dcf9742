"""Rows of matbench's JSON to columns, here or in helper processes beside this one.

Decoding makes Python objects, so threads do not share it; processes do. A helper is this module run
as a program: it reads batches from its input and writes columns to its output, nothing else, so it
needs no guard in the script of whoever loads a file.

Public: decode, BAD_BATCH, Columns, Helpers.
"""

from __future__ import annotations

import struct
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import IO, Annotated, NamedTuple

import msgspec
import numpy as np

from harness.data.elements import NUMBERS

# A tuple says how long a list has to be; keys that are not named are skipped unread. Nothing here
# can be in a reference cycle, hence gc=False.

_Vector = tuple[float, float, float]


class _Species(msgspec.Struct, gc=False):
    element: str
    occu: Annotated[float, msgspec.Meta(ge=1.0, le=1.0)]  # anything else is a disordered site


class _Site(msgspec.Struct, gc=False):
    species: tuple[_Species]
    abc: _Vector


class _Lattice(msgspec.Struct, gc=False):
    matrix: tuple[_Vector, _Vector, _Vector]
    pbc: tuple[bool, bool, bool] = (True, True, True)


class _Structure(msgspec.Struct, gc=False):
    lattice: _Lattice
    sites: Annotated[list[_Site], msgspec.Meta(min_length=1)]


_BATCH = msgspec.json.Decoder(list[tuple[_Structure, float]])
_flat = chain.from_iterable

# What decode raises of a bad row.
BAD_BATCH = (msgspec.MsgspecError, KeyError, ValueError, RecursionError)


class Columns(NamedTuple):
    """n rows of N sites."""

    numbers: np.ndarray  # (N,) uint8
    n_sites: np.ndarray  # (n,) int64
    coords: np.ndarray  # (3 N,) float64
    vectors: np.ndarray  # (9 n,) float64
    targets: np.ndarray  # (n,) float64


_TYPES = ("u1", "<i8", "<f8", "<f8", "<f8")


def decode(text: bytes) -> Columns:
    """Columns of a JSON list of [structure, target] pairs. Raises BAD_BATCH."""
    structures, targets = zip(*_BATCH.decode(text), strict=True)
    if not all(all(structure.lattice.pbc) for structure in structures):
        raise ValueError("a lattice that does not repeat in three directions")
    sites = [site for structure in structures for site in structure.sites]
    coords = _flat([site.abc for site in sites])
    vectors = _flat([structure.lattice.matrix for structure in structures])
    return Columns(
        numbers=np.array([NUMBERS[site.species[0].element] for site in sites], dtype=np.uint8),
        n_sites=np.array([len(structure.sites) for structure in structures], dtype=np.int64),
        coords=np.fromiter(coords, np.float64, count=3 * len(sites)),
        vectors=np.fromiter(_flat(vectors), np.float64, count=9 * len(structures)),
        targets=np.array(targets, dtype=np.float64),
    )


class Helpers:
    """Decodes batches given to it, in this process and in n others, and keeps their order."""

    def __init__(self, n: int) -> None:
        self._n = n
        self._waiting: deque[tuple[bytes, Future[Columns | None]]] = deque()

    def __enter__(self) -> Helpers:
        self._stack = ExitStack()
        self._helpers = [self._stack.enter_context(_Helper()) for _ in range(self._n)]
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def give(self, text: bytes) -> Iterator[tuple[bytes, Columns | None]]:
        """One more batch; those done so far come back, None for one that could not be decoded."""
        free = min(self._helpers, key=lambda helper: helper.n_open, default=None)
        if free is not None and free.n_open < 2:
            self._waiting.append((text, free.submit(text)))
        else:
            self._waiting.append((text, _done_here(text)))
        while self._waiting and self._waiting[0][1].done():
            first, future = self._waiting.popleft()
            yield first, future.result()

    def rest(self) -> Iterator[tuple[bytes, Columns | None]]:
        """What is still being decoded."""
        while self._waiting:
            text, future = self._waiting.popleft()
            yield text, future.result()


def _done_here(text: bytes) -> Future[Columns | None]:
    future: Future[Columns | None] = Future()
    try:
        future.set_result(decode(text))
    except BAD_BATCH:
        future.set_result(None)
    return future


class _Helper:
    """Another process, and the thread that talks to it."""

    def __enter__(self) -> _Helper:
        root = Path(__file__).parents[2]
        self._process = subprocess.Popen(  # noqa: S603  (this very module)
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=root,
        )
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="layout-rows")
        self._open: deque[Future[Columns | None]] = deque()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(cancel_futures=True)
        self._process.kill()
        self._process.communicate()

    @property
    def n_open(self) -> int:
        while self._open and self._open[0].done():
            self._open.popleft()
        return len(self._open)

    def submit(self, text: bytes) -> Future[Columns | None]:
        future = self._thread.submit(self._ask, text)
        self._open.append(future)
        return future

    def _ask(self, text: bytes) -> Columns | None:
        """None also where the process has died: the caller then decodes the batch itself."""
        to, back = self._process.stdin, self._process.stdout
        if to is None or back is None:
            return None
        try:
            to.write(struct.pack("<q", len(text)) + text)
            to.flush()
            lengths = struct.unpack("<5q", _exactly(back, 40))
            if lengths[0] < 0:
                return None
            found = [_exactly(back, n) for n in lengths]
        except OSError:
            return None
        arrays = (np.frombuffer(raw, kind) for raw, kind in zip(found, _TYPES, strict=True))
        return Columns(*arrays)


def _exactly(stream: IO[bytes], n: int) -> bytes:
    data = stream.read(n)
    if len(data) != n:
        raise BrokenPipeError(f"{len(data)} bytes where {n} were announced")
    return data


def _serve(source: IO[bytes], sink: IO[bytes]) -> None:
    """Batches from source, columns to sink, until source ends."""
    while head := source.read(8):
        text = source.read(*struct.unpack("<q", head))
        try:
            columns = decode(text)
        except BAD_BATCH:
            sink.write(struct.pack("<5q", -1, 0, 0, 0, 0))
        else:
            raw = [
                a.astype(kind, copy=False).tobytes()
                for a, kind in zip(columns, _TYPES, strict=True)
            ]
            sink.write(struct.pack("<5q", *map(len, raw)) + b"".join(raw))
        sink.flush()


if __name__ == "__main__":
    import gc

    gc.disable()  # nothing here is in a cycle
    _serve(sys.stdin.buffer, sys.stdout.buffer)
