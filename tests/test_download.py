"""Fetching: a file takes its name only when it is the published one, whatever the server does."""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from harness.data import available, download, load_dataset, matbench, references
from harness.data.download import SOURCES, fetch
from harness.errors import ConfigError, DataError, NotAvailable

NAME = "matbench_mp_e_form"


def _table(n_rows: int) -> bytes:
    """A small file in the official layout, compressed so little that it spans several packets."""
    rows = []
    for i in range(n_rows):
        lattice = [[3.0 + i / 7, 0, 0], [0, 3.0, 0], [0, 0, 3.0]]
        sites = [{"species": [{"element": "Si", "occu": 1}], "abc": [i / 11, 0.0, 0.0]}]
        rows.append([{"lattice": {"matrix": lattice}, "sites": sites}, -i / 1300])
    table = {"index": list(range(n_rows)), "columns": ["structure", "e_form"], "data": rows}
    return gzip.compress(json.dumps(table).encode(), compresslevel=0)


CONTENT = _table(4000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Server:
    """What the loopback server does, and what it was asked."""

    url: str = ""
    content: bytes = CONTENT
    ranges: bool = True  # whether Range is answered with 206
    stop_after: int | None = None  # bytes of a body after which the connection is closed
    status: int | None = None  # answer with this and no file
    redirect: str | None = None
    length: bool = True  # whether Content-Length is sent
    silent: bool = False  # accept, then say nothing
    slow: float = 0.0  # seconds before the body
    shift: int = 0  # bytes by which a 206 starts elsewhere than asked
    asked: list[str | None] = field(default_factory=list)  # Range of every request
    released: threading.Event = field(default_factory=threading.Event)


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers["Range"]
            state.asked.append(asked)
            if state.silent:
                state.released.wait(20)
                return
            if state.redirect and self.path == "/":
                self.send_response(302)
                self.send_header("Location", state.redirect)
                self.end_headers()
                return
            if state.status:
                self.send_error(state.status)
                return
            start = 0
            if asked and state.ranges:
                start = int(asked.removeprefix("bytes=").removesuffix("-"))
                if start >= len(state.content):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(state.content)}")
                    self.end_headers()
                    return
                start += state.shift
                self.send_response(206)
                last, size = len(state.content) - 1, len(state.content)
                self.send_header("Content-Range", f"bytes {start}-{last}/{size}")
            else:
                self.send_response(200)
            time.sleep(state.slow)
            body = state.content[start:]
            if state.length:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: state.stop_after])

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        state.url = f"http://127.0.0.1:{http.server_port}/"
        yield state
        state.released.set()
        http.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    """Where fetched files lie; loopback is never asked for through a proxy."""
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "fetched"


def _fetch(server: Server, **changes) -> Path:
    options = {"url": server.url, "sha256": SHA256, "progress": False}
    return fetch(NAME, **(options | changes))


def _names(folder: Path) -> list[str]:
    return sorted(child.name for child in folder.iterdir()) if folder.exists() else []


PART = ["matbench_mp_e_form.json.gz.part"]
DONE = ["matbench_mp_e_form.json.gz"]


def test_a_fetched_file_is_the_published_one_and_is_not_fetched_again(server, folder):
    path = _fetch(server)
    assert path == folder / DONE[0]
    assert path.read_bytes() == CONTENT
    assert _names(folder) == DONE
    assert _fetch(server) == path
    assert server.asked == [None]


def test_what_was_fetched_is_what_the_name_opens(server):
    with pytest.raises(NotAvailable, match=f"python -m harness fetch {NAME}"):
        load_dataset(NAME)
    assert available()[NAME] == f"absent: python -m harness fetch {NAME}"
    path = _fetch(server)
    assert available()[NAME] == str(path)
    dataset = load_dataset(NAME)
    assert len(dataset) == 4000
    assert dataset.inputs == {path.name: SHA256}
    assert load_dataset("auto").inputs == dataset.inputs


def test_a_bar_shows_progress_where_it_is_wanted(server, capsys):
    _fetch(server, progress=True)
    assert "matbench_mp_e_form.json.gz" in capsys.readouterr().err


def test_an_interrupted_fetch_keeps_what_came_and_goes_on_from_there(server, folder):
    for stop in (1_000, 300_000):
        server.stop_after = stop
        with pytest.raises(DataError, match=r"ended after \d+ of \d+ bytes.*kept.*Run again"):
            _fetch(server)
        assert _names(folder) == PART
    assert (folder / PART[0]).stat().st_size == 301_000
    server.stop_after = None
    assert _fetch(server).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=1000-", "bytes=301000-"]
    assert _names(folder) == DONE


def test_a_fetch_stopped_by_the_user_goes_on_too(server, folder, monkeypatch):
    monkeypatch.setattr(download, "_CHUNK_BYTES", 10_000)
    updates = []

    class Stopped:
        def __init__(self, **options):
            updates.clear()

        def __enter__(self):
            return self

        def __exit__(self, *error):
            return None

        def update(self, n):
            updates.append(n)
            if len(updates) == 3:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("tqdm.tqdm", Stopped)
        with pytest.raises(KeyboardInterrupt):
            _fetch(server)
    assert (folder / PART[0]).stat().st_size == 30_000
    assert _fetch(server).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=30000-"]


def test_a_server_without_ranges_sends_the_whole_file_again(server, folder):
    server.stop_after = 50_000
    with pytest.raises(DataError, match="ended after 50000"):
        _fetch(server)
    server.stop_after, server.ranges = None, False
    assert _fetch(server).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=50000-"]


def test_a_part_that_is_whole_already_is_only_checked(server, folder):
    folder.mkdir()
    (folder / PART[0]).write_bytes(CONTENT)
    assert _fetch(server).read_bytes() == CONTENT
    assert server.asked == [f"bytes={len(CONTENT)}-"]


def test_a_part_longer_than_the_file_is_started_anew(server, folder):
    """As two processes at once left it before there was a lock."""
    folder.mkdir()
    (folder / PART[0]).write_bytes(CONTENT + b"more")
    assert _fetch(server).read_bytes() == CONTENT
    assert server.asked == [f"bytes={len(CONTENT) + 4}-", None]
    assert _names(folder) == DONE


@pytest.mark.parametrize("stated", [True, False])
def test_a_server_that_does_not_end_is_not_listened_to(server, folder, monkeypatch, stated):
    monkeypatch.setattr(download, "_MOST_BYTES", 100_000)
    server.length = stated
    with pytest.raises(DataError, match="bytes or more, and no file to fetch has more than 100,0"):
        _fetch(server)
    size = sum(path.stat().st_size for path in folder.iterdir())
    assert size <= (0 if stated else 100_000)


def test_a_full_disk_is_not_called_a_connection_that_failed(server, folder, monkeypatch):
    class Full:
        def __init__(self, *args, **kwargs):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *error):
            return None

        def update(self, n):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("tqdm.tqdm", Full)
    with pytest.raises(DataError, match=r"could not write .*No space left.*Free space"):
        _fetch(server)


_ONE_OF_SEVERAL = """
import sys
from harness.data.download import fetch
print(fetch(sys.argv[1], url=sys.argv[2], sha256=sys.argv[3], progress=False))
"""


def test_of_five_processes_at_once_one_fetches_and_all_have_the_file(server, folder):
    server.slow = 0.2
    command = [sys.executable, "-c", _ONE_OF_SEVERAL, NAME, server.url, SHA256]
    running = [
        subprocess.Popen(  # noqa: S603
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(5)
    ]
    said = [process.communicate(timeout=120) for process in running]
    assert [process.returncode for process in running] == [0] * 5, said
    assert {out.strip() for out, _ in said} == {str(folder / DONE[0])}
    assert (folder / DONE[0]).read_bytes() == CONTENT
    assert server.asked == [None]
    assert _names(folder) == DONE


def test_a_part_of_another_file_is_found_out_and_removed(server, folder):
    folder.mkdir()
    (folder / PART[0]).write_bytes(b"x" * 1000)
    with pytest.raises(DataError, match=f"sha256 is [0-9a-f]{{64}}, expected {SHA256}"):
        _fetch(server)
    assert _names(folder) == []


def test_a_server_that_answers_another_range_is_not_believed(server, folder):
    folder.mkdir()
    (folder / PART[0]).write_bytes(CONTENT[:1000])
    server.shift = 5
    with pytest.raises(DataError, match="asked from byte 1000, got 'bytes 1005-"):
        _fetch(server)
    assert (folder / PART[0]).read_bytes() == CONTENT[:1000]


def test_another_file_is_refused_with_both_hashes_and_not_kept(server, folder):
    server.content = CONTENT[:-1] + b"?"
    found = hashlib.sha256(server.content).hexdigest()
    with pytest.raises(DataError, match=f"sha256 is {found}, expected {SHA256}"):
        _fetch(server)
    assert _names(folder) == []


def test_a_wrong_file_under_the_final_name_is_replaced(server, folder):
    folder.mkdir()
    (folder / DONE[0]).write_bytes(b"an older one")
    assert _fetch(server).read_bytes() == CONTENT


def test_without_a_stated_length_the_hash_still_tells(server, folder):
    server.length = False
    assert _fetch(server).read_bytes() == CONTENT
    (folder / DONE[0]).unlink()
    server.stop_after = 1000
    with pytest.raises(DataError, match="expected"):
        _fetch(server)
    assert _names(folder) == []


@pytest.mark.parametrize("status", [403, 404, 500, 503])
def test_a_refusing_server_is_quoted_and_what_came_before_is_kept(status, server, folder):
    folder.mkdir()
    (folder / PART[0]).write_bytes(CONTENT[:1000])
    server.status = status
    with pytest.raises(DataError, match=f"answers {status} .*run again: python -m harness fetch"):
        _fetch(server)
    assert (folder / PART[0]).read_bytes() == CONTENT[:1000]


def test_a_silent_server_does_not_hold_the_fetch_for_ever(server, monkeypatch, folder):
    monkeypatch.setattr(download, "_TIMEOUT_S", 0.2)
    server.silent = True
    with pytest.raises(DataError, match=r"connection failed \(.*timed out.*Nothing was received"):
        _fetch(server)
    assert _names(folder) == []


def test_no_server_at_all_is_said(server):
    with pytest.raises(DataError, match=r"connection failed.*Check the network"):
        _fetch(server, url="http://127.0.0.1:1/")


def test_a_redirect_is_followed_to_http_only(server, folder, tmp_path):
    server.redirect = f"{server.url}file"
    assert _fetch(server).read_bytes() == CONTENT
    (folder / DONE[0]).unlink()
    for elsewhere in ("ftp://127.0.0.1/file", f"file://{tmp_path}/secret"):
        server.redirect = elsewhere
        with pytest.raises((ConfigError, DataError), match=r"not an http|answers 302"):
            _fetch(server)
    assert _names(folder) == []


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://host/file", "host/file", "http://"])
def test_only_web_addresses_are_fetched(url, server, folder):
    with pytest.raises(ConfigError, match="not an http or https address"):
        _fetch(server, url=url)
    assert server.asked == []
    assert _names(folder) == []


def test_a_truncated_archive_that_was_published_so_is_refused_when_opened(server, tmp_path):
    server.content = CONTENT[:-1000]
    _fetch(server, sha256=hashlib.sha256(server.content).hexdigest())
    with pytest.raises(DataError, match="is cut short"):
        load_dataset(NAME)
    assert not (tmp_path / "columns").exists()


def test_names_that_cannot_be_fetched_are_answered_with_those_that_can():
    with pytest.raises(ConfigError, match="known: matbench_mp_e_form, mp-elemental-references"):
        fetch("matbench_mp_gap")


def test_publishers_are_stated_with_address_and_hash():
    for name, (file_name, published) in SOURCES.items():
        try:
            source = published()
        except NotAvailable as error:
            pytest.skip(str(error))
        assert source.url.startswith("https://"), name
        assert len(bytes.fromhex(source.sha256)) == 32, name
        assert file_name.endswith(".json.gz"), name
    assert SOURCES[NAME][1]().sha256 == matbench.PUBLISHED_SHA256
    assert SOURCES[references.FETCH_NAME][0] == references.FILE_NAME


def test_without_matminer_the_one_command_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(download, "package_file", lambda *parts: None)
    with pytest.raises(NotAvailable, match="pip install matminer"):
        fetch(NAME)
    (tmp_path / "metadata.json").write_text("{}")
    monkeypatch.setattr(download, "package_file", lambda *parts: tmp_path / "metadata.json")
    with pytest.raises(DataError, match="has no url and hash for matbench_mp_e_form"):
        fetch(NAME)


def test_a_mirror_needs_no_publisher_when_the_hash_is_given(server, monkeypatch):
    monkeypatch.setattr(download, "package_file", lambda *parts: None)
    assert _fetch(server).read_bytes() == CONTENT
