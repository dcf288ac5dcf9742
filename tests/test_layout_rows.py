"""Large files are decoded in helper processes too: same columns, same words for a bad row."""

from __future__ import annotations

import gzip
import json
import signal
from pathlib import Path

import numpy as np
import pytest

from harness.data import layout_rows, official_layout
from harness.errors import DataError

N_ROWS = 400


def row(i: int) -> list:
    sites = [
        {"species": [{"element": element, "occu": 1}], "abc": [0.1 * k, 0.001 * i, -0.5]}
        for k, element in enumerate(("Na", "Cl", "O")[: 1 + i % 3])
    ]
    matrix = [[4.0 + 0.01 * i, 0.0, 0.0], [0.0, 4.0, 0.0], [0.25, 0.0, 4.0]]
    return [{"lattice": {"matrix": matrix}, "sites": sites}, -0.001 * i]


def write(folder: Path, rows: list) -> Path:
    path = folder / "rows.json.gz"
    table = {"index": list(range(len(rows))), "columns": ["structure", "e_form"], "data": rows}
    path.write_bytes(gzip.compress(json.dumps(table).encode()))
    return path


@pytest.fixture
def helped(monkeypatch):
    """Two helpers, for any file, and batches of a few rows."""
    monkeypatch.setattr(official_layout, "_LARGE_FILE", 0)
    monkeypatch.setattr(official_layout, "_BATCH_BYTES", 2000)
    monkeypatch.setattr(official_layout, "_n_cores", lambda: 3)


def same(one: official_layout.RawColumns, other: official_layout.RawColumns) -> bool:
    ours, theirs = one.crystals.columns(), other.crystals.columns()
    return np.array_equal(one.target, other.target) and all(
        np.array_equal(ours[name], theirs[name]) and ours[name].dtype == theirs[name].dtype
        for name in ours
    )


def test_helpers_give_the_columns_that_one_process_gives(tmp_path, monkeypatch, request):
    path = write(tmp_path, [row(i) for i in range(N_ROWS)])
    alone = official_layout.parse(path)
    request.getfixturevalue("helped")
    asked = []
    ask = layout_rows._Helper._ask
    monkeypatch.setattr(
        layout_rows._Helper, "_ask", lambda self, text: asked.append(0) or ask(self, text)
    )
    assert same(official_layout.parse(path), alone)
    assert asked  # the helpers were given work


def test_a_bad_row_is_named_whoever_decoded_it(tmp_path, helped):
    for bad in (0, 250, N_ROWS - 1):
        rows = [row(i) for i in range(N_ROWS)]
        rows[bad][0]["sites"][0]["species"][0]["element"] = "Xx"
        with pytest.raises(DataError, match=rf"row {bad} \(index {bad}, .*'Xx' is not an element"):
            official_layout.parse(write(tmp_path, rows))


def test_a_helper_that_dies_costs_nothing(tmp_path, helped, monkeypatch):
    path = write(tmp_path, [row(i) for i in range(N_ROWS)])
    expected = official_layout.parse(path)
    enter = layout_rows._Helper.__enter__

    def born_dead(self):
        enter(self)
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        return self

    monkeypatch.setattr(layout_rows._Helper, "__enter__", born_dead)
    assert same(official_layout.parse(path), expected)
