"""Fetch files from their publishers, for `python -m harness fetch`; nothing else goes online.

A file arrives as NAME.part and takes its name only when its size and sha256 are the publisher's.
What an interruption left is gone on with by the next call, where the server allows it. Of processes
that fetch one file at one time, one does, and the others wait for it.

Public: fetch, SOURCES.
"""

from __future__ import annotations

import json
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from harness.data import matbench, references
from harness.data.paths import cache_dir, fetched_dir, package_file
from harness.errors import ConfigError, DataError, NotAvailable
from harness.files import sha256_of

_CHUNK_BYTES = 1 << 18
_TIMEOUT_S = 30.0  # without a byte
_MOST_BYTES = 1 << 32  # of a file; the largest of them has a fiftieth of it
_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)")


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a file is published and what it has to be."""

    url: str
    sha256: str


def _matbench_source() -> Source:
    """As matminer publishes it, read where the package is installed without importing it."""
    path = package_file("matminer", "datasets", "dataset_metadata.json")
    if path is None:
        raise NotAvailable(
            "matminer is not installed, and its metadata says where matbench_mp_e_form is "
            "published. Run: pip install matminer"
        )
    try:
        entry = json.loads(path.read_bytes())[matbench.NAME]
        return Source(url=entry["url"], sha256=entry["hash"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} has no url and hash for {matbench.NAME} ({type(error).__name__}: {error}). "
            "Run: pip install --force-reinstall matminer"
        ) from error


def _references_source() -> Source:
    """As data-files.yml of janosh/matbench-discovery gives it (its md5 there is that of SHA256)."""
    return Source(url="https://figshare.com/ndownloader/files/40387775", sha256=references.SHA256)


SOURCES: dict[str, tuple[str, Callable[[], Source]]] = {  # name -> file name, where it is published
    matbench.NAME: (matbench.FILE_NAME, _matbench_source),
    references.FETCH_NAME: (references.FILE_NAME, _references_source),
}


def fetch(
    name: str, *, url: str | None = None, sha256: str | None = None, progress: bool = True
) -> Path:
    """Path of the fetched file, which is downloaded unless it is there already and right.

    Args:
        name: "matbench_mp_e_form" or "mp-elemental-references".
        url: http(s) address to use instead of the publisher's, a mirror say.
        sha256: hex digest to ask for instead of the publisher's.
        progress: show a bar on stderr.
    Raises:
        ConfigError: the name or the kind of address is unknown.
        DataError: the server refuses, the connection ends early (what came is kept, and the next
            call goes on from there), or the file is not the one published (nothing is kept).
    """
    if name not in SOURCES:
        raise ConfigError(f"{name!r} cannot be fetched; known: {', '.join(SOURCES)}.")
    file_name, published = SOURCES[name]
    if url is None or sha256 is None:
        source = published()
        url, sha256 = url or source.url, sha256 or source.sha256
    sha256 = sha256.lower()
    _require_http(url)
    path = fetched_dir() / file_name
    if path.is_file() and sha256_of(path) == sha256:
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(cache_dir() / "locks" / f"{file_name}.lock"):
            if not (path.is_file() and sha256_of(path) == sha256):  # by another process meanwhile
                _fetch(name, url, sha256, path, progress)
    except OSError as error:
        raise DataError(
            f"could not write {path}: {error}. Free space, or name another folder in "
            f"HARNESS_CACHE, then run again: python -m harness fetch {name}"
        ) from error
    return path


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Nobody else is within, on this path; the system lets it go when its owner dies."""
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print("Another process is fetching this file; waiting for it.", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _fetch(name: str, url: str, sha256: str, path: Path, progress: bool) -> None:
    part = path.with_name(f"{path.name}.part")
    _download(url, part, progress, f"python -m harness fetch {name}")
    if (found := sha256_of(part)) != sha256:
        part.unlink()
        raise DataError(
            f"{url} gave another file: sha256 is {found}, expected {sha256}. Nothing was kept. Try "
            f"again (python -m harness fetch {name}); if it stays so, the publisher changed it."
        )
    part.replace(path)


def _require_http(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ConfigError(f"{url!r} is not an http or https address. Give one that is.")


class _HttpOnlyRedirects(urllib.request.HTTPRedirectHandler):
    """urllib by itself would also follow to ftp."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: Message,
        newurl: str,
    ) -> urllib.request.Request | None:
        _require_http(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


def _download(url: str, part: Path, progress: bool, again: str) -> None:
    """Bring ``part`` to the size the server states; ``again`` is the command that goes on.

    Raises:
        OSError: ``part`` cannot be written.
        DataError: anything that the server or the network does.
    """
    from tqdm import tqdm

    have = part.stat().st_size if part.exists() else 0
    opener = urllib.request.build_opener(_HttpOnlyRedirects)
    # identity: a server that compresses on the way would change the bytes that are hashed
    headers = {"User-Agent": "mlip-claims", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    request = urllib.request.Request(url, headers=headers)  # noqa: S310  (http(s) only, see above)
    with _connection(url, part, again):
        try:
            response = opener.open(request, timeout=_TIMEOUT_S)
        except urllib.error.HTTPError as error:
            with error:
                if error.code != 416 or not have:
                    raise DataError(
                        f"{url} answers {error.code} {error.reason}. Check the network and the "
                        f"address in a browser, then run again: {again}"
                    ) from error
                match = _CONTENT_RANGE.fullmatch(error.headers.get("Content-Range", ""))
            if not match or match[2] != str(have):  # not all that there is: of another file
                part.unlink()
                _download(url, part, progress, again)
            return
    with response:
        with _connection(url, part, again):
            start, total = _extent(response, have)
        _bounded(url, total or 0)
        with (
            part.open("ab" if start else "wb") as file,
            tqdm(
                total=total,
                initial=start,
                desc=part.stem,
                unit="B",
                unit_scale=True,
                disable=not progress,
            ) as bar,
        ):
            size = start
            while True:
                with _connection(url, part, again):
                    chunk = response.read(_CHUNK_BYTES)
                if not chunk:
                    break
                size += len(chunk)
                _bounded(url, size)
                file.write(chunk)
                file.flush()  # so that what is said to be kept is
                bar.update(len(chunk))
    if total is not None and size != total:
        raise DataError(
            f"{url}: the connection ended after {size} of {total} bytes. "
            f"{_kept(part)} Run again: {again}"
        )


@contextmanager
def _connection(url: str, part: Path, again: str) -> Iterator[None]:
    """What happens within is the network's: refused, timed out, reset, cut off in a chunk."""
    try:
        yield
    except (OSError, HTTPException) as error:
        raise DataError(
            f"{url}: the connection failed ({type(error).__name__}: {error}). "
            f"{_kept(part)} Check the network, then run again: {again}"
        ) from error


def _bounded(url: str, n_bytes: int) -> None:
    """Raises DataError beyond what any file to fetch has, before a disk is full of it."""
    if n_bytes > _MOST_BYTES:
        raise DataError(
            f"{url} gives {n_bytes:,} bytes or more, and no file to fetch has more than "
            f"{_MOST_BYTES:,}. Name its publisher's address."
        )


def _extent(response: HTTPResponse, have: int) -> tuple[int, int | None]:
    """From which byte the answer starts, and how many the whole file has, where that is said."""
    if response.status == 206:
        match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if match and match[1] == str(have):
            return have, None if match[2] == "*" else int(match[2])
        raise OSError(f"asked from byte {have}, got {response.headers.get('Content-Range')!r}")
    length = response.headers.get("Content-Length")
    return 0, None if length is None else int(length)


def _kept(part: Path) -> str:
    size = part.stat().st_size if part.exists() else 0
    return f"{size} bytes are kept in {part}." if size else "Nothing was received."
