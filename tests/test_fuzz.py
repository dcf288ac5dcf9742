"""The fuzzer on a few inputs of every reader, and what it found."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.data import load_dataset
from harness.errors import DataError
from tests import fuzz


@pytest.fixture(autouse=True)
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HARNESS_DATA", raising=False)


@pytest.mark.parametrize("name", fuzz.READERS)
def test_an_odd_file_is_read_as_it_is_or_refused(
    name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    reader = fuzz.READERS[name]
    found = set()
    fuzz.import_all(reader, folder)

    @settings(max_examples=100, deadline=None, derandomize=True, database=None)
    @given(st.randoms(use_true_random=False))
    def odd(rng: random.Random) -> None:
        text, expected = fuzz.make(rng, reader)
        found.add(fuzz.outcome(reader, text, expected, folder))

    odd()
    assert found == {"read", "refused"}


def test_the_fuzzer_notices_a_reader_that_does_neither(tmp_path: Path) -> None:
    """The control: untyped errors, wrong crystals and refusals of good files are told."""
    good = fuzz.READERS["xsf"]
    rng = random.Random(3)  # noqa: S311
    of = fuzz.content(rng)
    text = str(good.write(rng, of)).encode()
    assert fuzz.outcome(good, text, of, tmp_path) == "read"

    def raises(error: Exception) -> object:
        raise error

    with pytest.raises(KeyError):
        fuzz.outcome(good._replace(read=lambda _: raises(KeyError("x"))), text, None, tmp_path)
    with pytest.raises(AssertionError, match="a file without a fault was refused"):
        fuzz.outcome(good._replace(read=lambda _: raises(DataError("no"))), text, of, tmp_path)
    with pytest.raises(AssertionError, match="nothing is said"):
        fuzz.outcome(good._replace(read=lambda _: raises(DataError("no"))), text, None, tmp_path)
    other = of._replace(symbols=["Xe"] * len(of.symbols))
    with pytest.raises(AssertionError, match="in place of"):
        fuzz.outcome(good, text, other, tmp_path)
    moved = of._replace(frac=of.frac + [[0.1 * k, 0, 0] for k in range(len(of.symbols))])
    assert len(of.symbols) > 1
    with pytest.raises(AssertionError, match="atoms at"):
        fuzz.outcome(good, text, moved, tmp_path)


def test_a_run_counts_every_input() -> None:
    import subprocess
    import sys

    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.fuzz",
            "--n",
            "40",
            "--reader",
            "elements",
            "--reader",
            "xsf",
        ],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line.split()[:3] for line in done.stdout.splitlines()] == [
        ["elements", "20", "inputs:"],
        ["xsf", "20", "inputs:"],
    ]


# --- found by it ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        b'{"index": [0], "columns": ["\x90", "e_form"], "data": [[{}, 1]]}',  # names of columns
        b'{"index": [0], "columns": ["structure", "e_form"], "data": [["\x90", 1]]}',
        b'{"index": ["\x90"], "columns": ["structure", "e_form"], "data": [[{}, 1]]}',
        b'{"data": [["\x90"], 1], "index": [0, 1], "columns": ["structure", "e_form"]}',
        b'{"data": [[{"a": nan}, 1]], "index": [0], "columns": ["structure", "e_form"]}',
        b'{"data": [[{}, 1]], "index": [0], "columns": ["structure", "e_form"], "index": [1]}',
    ],
)
def test_layouts_that_once_ended_in_another_error(text: bytes, tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_bytes(text)
    with pytest.raises(DataError, match=r"rows\.json"):
        load_dataset(tmp_path / "rows.json")
