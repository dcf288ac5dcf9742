"""matbench's layout, folds and cache: what is read is what was written, or it is refused by row."""

from __future__ import annotations

import copy
import gzip
import json
import os
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.data import (
    Crystals,
    Dataset,
    Fold,
    Split,
    auto_choice,
    folds,
    load_dataset,
    matbench,
    texts,
)
from harness.data import official_layout as layout
from harness.data.official_layout import parse
from harness.errors import ConfigError, DataError, NotAvailable, Remark
from harness.files import sha256_of
from tests.official_rows import write_targets

N_OFFICIAL = 132_752


@pytest.fixture(scope="module")
def shared_cache(tmp_path_factory):
    """One cache for the tests that only read, so that folds and real rows are converted once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def official(tmp_path, monkeypatch) -> Path:
    """A folder of data whose official targets are those of `document`."""
    monkeypatch.setenv("HARNESS_DATA", str(write_targets(tmp_path / "official", document())))
    return tmp_path / "official"


REAL_DATA = os.environ.get("HARNESS_DATA")


@pytest.fixture
def real_data(monkeypatch, shared_cache) -> Path:
    if not REAL_DATA:
        pytest.skip("HARNESS_DATA is not set; these rows are not part of the project")
    monkeypatch.setenv("HARNESS_DATA", REAL_DATA)
    monkeypatch.setenv("HARNESS_CACHE", str(shared_cache))
    return Path(REAL_DATA)


def structure(*sites: tuple[str, float], a: float = 4.0, **more: object) -> dict:
    """A pymatgen dictionary with just what the subset's rows have."""
    return {
        "@module": "pymatgen.core.structure",
        "@class": "Structure",
        "charge": None,
        "lattice": {"matrix": [[a, 0.0, 0.0], [0.0, a, 0.0], [0.25, 0.0, a]]},
        "sites": [
            {"species": [{"element": element, "occu": 1}], "abc": [x, 0.0, -0.5]}
            for element, x in sites
        ],
        **more,
    }


def document() -> dict:
    rows = [
        [structure(("Pt", 0.0), ("C", 0.5)), 1.9953840975],
        [structure(("Cd", 0.0), ("C", 0.25), ("D", 1.75), a=5.0), 2],
        [structure(("O", -0.125)), -3.25e-1],
        [structure(("Na", 0.0), ("Cl", 0.5), a=5.6), -2.0],
        [structure(("Si", 0.0), ("Si", 0.25), a=3.8), 0.0],
    ]
    return {"index": [3, 0, 132751, 40, 41], "columns": ["structure", "e_form"], "data": rows}


STYLES = {
    "json.dumps": json.dumps,
    "compact": lambda table: json.dumps(table, separators=(",", ":")),
    "indented": lambda table: json.dumps(table, indent=1),
    "odd spaces": lambda table: json.dumps(table, separators=(" , ", " : ")),
    "data first": lambda table: json.dumps(dict(reversed(table.items()))),
    "more keys": lambda table: json.dumps({**table, "note": ["], [{", {"a": []}]}),
    "swapped columns": lambda table: json.dumps(
        {
            "index": table["index"],
            "columns": ["e_form", "structure"],
            "data": [row[::-1] for row in table["data"]],
        }
    ),
    "a third column": lambda table: json.dumps(
        {
            "index": table["index"],
            "columns": ["structure", "note", "e_form"],
            "data": [[s, [[1], [{}]], e] for s, e in table["data"]],
        }
    ),
    "matbench ids": lambda table: json.dumps(
        {**table, "index": [f"mb-mp-e-form-{i + 1:06d}" for i in table["index"]]}
    ),
}


def write(folder: Path, table: dict | str, style: str = "json.dumps") -> Path:
    path = folder / "table.json.gz"
    text = table if isinstance(table, str) else STYLES[style](table)
    path.write_bytes(gzip.compress(text.encode()))
    return path


def assert_read(raw: layout.RawColumns, table: dict) -> None:
    """The columns are those that pymatgen's own reader gives."""
    from pymatgen.core import Structure

    expected = Crystals.from_structures([Structure.from_dict(row[0]) for row in table["data"]])
    assert raw.index.tolist() == table["index"]
    assert raw.target.tolist() == [float(row[1]) for row in table["data"]]
    assert raw.target.dtype == np.float64
    for name, array in raw.crystals.columns().items():
        np.testing.assert_array_equal(array, expected.columns()[name], err_msg=name)


# --- the layout -----------------------------------------------------------------------------------


@pytest.mark.parametrize("style", STYLES)
def test_every_way_to_write_the_table_gives_the_same_columns(style, tmp_path):
    assert_read(parse(write(tmp_path, document(), style)), document())


def test_plain_and_joined_gzip_files_are_read_too(tmp_path):
    text = json.dumps(document()).encode()
    (tmp_path / "plain.json").write_bytes(text)
    assert_read(parse(tmp_path / "plain.json"), document())
    joined = gzip.compress(text[:500]) + gzip.compress(text[500:]) + b"\0" * 512  # as tape pads it
    (tmp_path / "joined.json.gz").write_bytes(joined)
    assert_read(parse(tmp_path / "joined.json.gz"), document())


def test_keys_that_are_not_needed_are_passed_over(tmp_path):
    from pymatgen.core import Structure

    table = document()
    for row in table["data"]:
        row[0] = Structure.from_dict(row[0]).as_dict()
        row[0]["properties"] = {"bonds": [["a"], [{"b": [1]}], [{"c": "], [{"}]]}
    assert {"xyz", "label"} <= set(table["data"][0][0]["sites"][0])
    assert "volume" in table["data"][0][0]["lattice"]
    for style in STYLES:
        assert_read(parse(write(tmp_path, table, style)), table)


_number = st.floats(-10, 10, allow_subnormal=False)
_place = st.integers(-90, 90).map(lambda ninth: ninth / 9)  # 0.44 Å apart and more
_site = st.tuples(st.sampled_from(["H", "O", "Fe", "U", "Og"]), _place)
_row = st.tuples(
    st.lists(_site, min_size=1, max_size=4, unique_by=lambda site: round(9 * site[1]) % 9),
    st.floats(4, 9),
    _number,
    st.booleans(),
)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    rows=st.lists(_row, min_size=1, max_size=12),
    style=st.sampled_from(sorted(STYLES)),
    read_bytes=st.integers(2, 400),
    batch_bytes=st.integers(1, 3000),
)
def test_no_boundary_between_pieces_or_batches_changes_a_row(
    rows, style, read_bytes, batch_bytes, tmp_path_factory
):
    table = {
        "index": list(range(len(rows), 0, -1)),
        "columns": ["structure", "e_form"],
        "data": [
            [structure(*sites, a=a, **({"properties": {"k": [[0], [{}]]}} if odd else {})), target]
            for sites, a, target, odd in rows
        ],
    }
    path = write(tmp_path_factory.mktemp("table"), table, style)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(texts, "_READ_BYTES", read_bytes)
        patch.setattr(layout, "_BATCH_BYTES", batch_bytes)
        raw = parse(path)
    assert raw.index.tolist() == table["index"]
    assert raw.target.tolist() == [row[1] for row in table["data"]]
    assert raw.crystals.n_atoms.tolist() == [len(row[0]["sites"]) for row in table["data"]]
    assert raw.crystals.frac_coords.tolist() == [
        site["abc"] for row in table["data"] for site in row[0]["sites"]
    ]
    assert raw.crystals.lattices.tolist() == [row[0]["lattice"]["matrix"] for row in table["data"]]


@pytest.mark.parametrize("style", ["json.dumps", "indented"])
def test_the_collector_is_left_as_it_was(style, tmp_path):
    import gc

    path = write(tmp_path, document(), style)
    try:
        for enabled in (True, False):
            (gc.enable if enabled else gc.disable)()
            parse(path)
            assert gc.isenabled() is enabled
    finally:
        gc.enable()


# --- bad input ------------------------------------------------------------------------------------


def _edited(*path: object, value: object = None, drop: bool = False) -> dict:
    table = copy.deepcopy(document())
    place = table
    for key in path[:-1]:
        place = place[key]
    if drop:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return table


FE_NI = [{"element": "Fe", "occu": 0.5}, {"element": "Ni", "occu": 0.5}]
HERE = r"row 3 \(index 40, mb-mp-e-form-000041\)"
ROW_3 = HERE + ": "
BAD_TABLES = {
    "target is NaN": (_edited("data", 3, 1, value=float("nan")), ROW_3 + "e_form is nan"),
    "target is infinite": (_edited("data", 3, 1, value=float("inf")), ROW_3 + "e_form is inf"),
    "target is null": (_edited("data", 3, 1), ROW_3 + "e_form is None"),
    "target is text": (_edited("data", 3, 1, value="-2.0"), ROW_3 + "e_form is '-2.0'"),
    "target is a boolean": (_edited("data", 3, 1, value=True), ROW_3 + "e_form is True"),
    "target is beyond float64": (_edited("data", 3, 1, value=10**400), ROW_3 + "e_form is 1000"),
    "structure is null": (_edited("data", 3, 0), ROW_3 + "the structure has no lattice"),
    "no lattice": (
        _edited("data", 3, 0, "lattice", drop=True),
        ROW_3 + "the structure has no lattice",
    ),
    "lattice without a volume": (
        _edited("data", 3, 0, "lattice", "matrix", value=[[4, 0, 0], [0, 4, 0], [4, 4, 0]]),
        HERE + " has a cell of at most 0.001",
    ),
    "lattice of two vectors": (
        _edited("data", 3, 0, "lattice", "matrix", value=[[4, 0, 0], [0, 4, 0]]),
        ROW_3 + "lattice.matrix is",
    ),
    "lattice of two dimensions": (
        _edited("data", 3, 0, "lattice", "matrix", value=[[4, 0], [0, 4], [0, 0]]),
        ROW_3 + "lattice.matrix is",
    ),
    "lattice flattened": (
        _edited("data", 3, 0, "lattice", "matrix", value=[4, 0, 0, 0, 4, 0, 0, 0, 4]),
        ROW_3 + "lattice.matrix is",
    ),
    "lattice not finite": (
        _edited("data", 3, 0, "lattice", "matrix", 1, 1, value=float("nan")),
        ROW_3 + "lattice.matrix is",
    ),
    "unknown element": (
        _edited("data", 3, 0, "sites", 1, "species", 0, "element", value="Xx"),
        HERE + ", site 1: 'Xx' is not an element",
    ),
    "element is a number": (
        _edited("data", 3, 0, "sites", 1, "species", 0, "element", value=11),
        HERE + ", site 1: 11 is not an element",
    ),
    "coordinate is NaN": (
        _edited("data", 3, 0, "sites", 1, "abc", 2, value=float("nan")),
        ROW_3 + "site 1: abc is",
    ),
    "coordinate is beyond float64": (
        _edited("data", 3, 0, "sites", 1, "abc", 2, value=10**400),
        ROW_3 + "site 1: abc is",
    ),
    "coordinates of two dimensions": (
        _edited("data", 3, 0, "sites", 1, "abc", value=[0.0, 0.5]),
        ROW_3 + "site 1: abc is",
    ),
    "no coordinates": (
        _edited("data", 3, 0, "sites", 1, "abc", drop=True),
        ROW_3 + "site 1: no species with element and occu, or no abc",
    ),
    "partial occupancy": (
        _edited("data", 3, 0, "sites", 1, "species", 0, "occu", value=0.9),
        HERE + r", site 1 is partly occupied \(Cl: 0.9\)",
    ),
    "two species on a site": (
        _edited("data", 3, 0, "sites", 1, "species", value=FE_NI),
        HERE + r", site 1 is partly occupied \(Fe: 0.5, Ni: 0.5\)",
    ),
    "nothing on a site": (
        _edited("data", 3, 0, "sites", 1, "species", value=[]),
        HERE + r", site 1 is partly occupied \(nothing\)",
    ),
    "no sites": (_edited("data", 3, 0, "sites", value=[]), ROW_3 + r"sites is \[\]"),
    "row too short": (_edited("data", 3, value=[structure(("O", 0.0))]), ROW_3 + "1 values for 2"),
    "row too long": (
        _edited("data", 3, value=[structure(("O", 0.0)), 1.0, 2.0]),
        ROW_3 + "3 values for 2",
    ),
    "row too many": (
        _edited("index", value=[3, 0, 132751, 40]),
        "index has 4 entries and data has 5 rows or more; the first without a partner is row 4",
    ),
    "row too few": (
        _edited("index", value=[3, 0, 132751, 40, 41, 42]),
        "index has 6 entries and data has 5 rows; the first without a partner is row 5",
    ),
    "row twice": (
        _edited("index", value=[3, 0, 40, 40, 3]),
        r"row 3 has index 40 \(mb-mp-e-form-000041\), as has row 2",
    ),
    "row beyond the official ones": (
        _edited("index", 3, value=N_OFFICIAL),
        f"row 3 has index {N_OFFICIAL}, outside 0 to {N_OFFICIAL - 1}",
    ),
    "row number is negative": (_edited("index", 3, value=-1), "row 3 has index -1, outside 0 to"),
    "row number is a fraction": (_edited("index", 3, value=0.5), "index is not a list of official"),
    "row number is text": (_edited("index", value=["a"] * 5), "'a' does not start with mb-mp-e-f"),
    "no rows": (
        {"index": [], "columns": ["structure", "e_form"], "data": []},
        "has no rows",
    ),
    "no structures": (_edited("columns", 0, value="composition"), "has no column structure"),
    "no targets": (_edited("columns", 1, value="gap"), "has no column e_form"),
    "no column names": (_edited("columns", drop=True), "lacks columns"),
    "no data": (_edited("data", drop=True), "lacks data"),
    "another document": ({"structures": []}, "lacks index, columns, data"),
    "records instead of a table": (_edited("data", 3, value={"structure": 1}), "row|table"),
}


@pytest.mark.parametrize("style", ["json.dumps", "compact", "indented"])
@pytest.mark.parametrize("kind", BAD_TABLES)
def test_a_bad_table_is_refused_by_row_and_leaves_nothing_behind(kind, style, tmp_path, cache):
    table, message = BAD_TABLES[kind]
    with pytest.raises(DataError, match=message) as refused:
        matbench.load(write(tmp_path, table, style))
    assert "table.json.gz" in str(refused.value)
    assert not list(cache.rglob("*.*"))


def test_every_fault_alone_is_what_makes_a_table_bad(tmp_path):
    """The control of the tests above: the same table without a fault is read."""
    assert_read(parse(write(tmp_path, document())), document())


def test_a_file_cut_short_anywhere_is_refused(tmp_path, cache):
    whole = write(tmp_path, document()).read_bytes()
    path = tmp_path / "cut.json.gz"
    for size in [0, 1, 5, 11, *range(20, len(whole), 23), len(whole) - 1]:
        path.write_bytes(whole[:size])
        with pytest.raises(DataError, match=r"cut\.json\.gz (is cut short|is empty|is not valid)"):
            matbench.load(path)
    assert not cache.exists()


def test_a_file_with_a_damaged_byte_is_refused_or_reads_the_same(tmp_path):
    whole = write(tmp_path, document()).read_bytes()
    path = tmp_path / "damaged.json.gz"
    refused = 0
    for at in range(0, len(whole), 5):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        try:
            raw = parse(path)
        except DataError:
            refused += 1
        else:  # a byte of the header that means nothing to the content
            assert at < 10
            assert_read(raw, document())
    assert refused > 50


@pytest.mark.parametrize("style", ["json.dumps", "compact", "indented"])
def test_text_that_is_not_json_is_refused_with_the_place(style, tmp_path):
    text = STYLES[style](document())
    last_row = text.rindex('"lattice"')
    message = r"is not valid JSON at byte \d+ of \d+, in row 4 \(index 41, mb-mp-e-form-000042\)"
    for broken in (
        text[: last_row + 40],  # cut inside the last row, in a sound gzip file
        text[:last_row] + text[last_row:].replace("4.0", "4..0", 1).replace("3.8", "3..8", 1),
        text[:-1],
    ):
        with pytest.raises(DataError, match=message):
            parse(write(tmp_path, broken))
    with pytest.raises(DataError, match=r"not a table of structures|not valid JSON"):
        parse(write(tmp_path, "[1, 2, 3]"))
    with pytest.raises(DataError, match="does not exist"):
        matbench.load(tmp_path / "missing.json.gz")


# --- the cache ------------------------------------------------------------------------------------


def _no_parsing(path):
    raise AssertionError(f"{path} was parsed although it is in the cache")


def test_a_file_is_converted_once(tmp_path, cache, monkeypatch):
    path = write(tmp_path, document())
    first = matbench.load(path)
    assert [child.suffix for child in (cache / "columns").iterdir()] == [".npz"]
    monkeypatch.setattr(layout, "parse", _no_parsing)
    second = matbench.load(path)
    moved = path.rename(tmp_path / "elsewhere.json.gz")
    third = matbench.load(moved)
    for again in (second, third):
        for name in ("ids", "target_ev_per_atom", "index", "compositions"):
            np.testing.assert_array_equal(getattr(again, name), getattr(first, name))
        np.testing.assert_array_equal(again.crystals.row_hashes(), first.crystals.row_hashes())
    assert third.inputs == {"elsewhere.json.gz": first.inputs["table.json.gz"]}


def test_another_content_is_another_set(tmp_path, cache):
    path = write(tmp_path, document())
    assert matbench.load(path).target_ev_per_atom[3] == -2.0
    write(tmp_path, _edited("data", 3, 1, value=-2.5))
    assert matbench.load(path).target_ev_per_atom[3] == -2.5
    assert len(list((cache / "columns").iterdir())) == 2


def _flip(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def _of_another_version(data: bytes) -> bytes:
    import io

    columns = dict(np.load(io.BytesIO(data)))
    header = json.dumps({"kind": "matbench-columns-0"}).encode()
    columns["header_json"] = np.frombuffer(header, np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, **columns)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "damage",
    [_flip, _of_another_version, lambda data: data[:-100], lambda data: b""],
    ids=["a bit", "another version", "cut short", "empty"],
)
def test_a_damaged_cache_is_noticed_and_made_again(damage, tmp_path, cache):
    path = write(tmp_path, document())
    expected = matbench.load(path)
    (cached,) = (cache / "columns").iterdir()
    good = cached.read_bytes()
    cached.write_bytes(damage(good))
    with pytest.warns(UserWarning, match=r"table\.json\.gz is converted again"):
        again = matbench.load(path)
    np.testing.assert_array_equal(again.crystals.row_hashes(), expected.crystals.row_hashes())
    np.testing.assert_array_equal(again.target_ev_per_atom, expected.target_ev_per_atom)
    matbench.load(path)  # without a warning


def test_an_interrupted_conversion_leaves_no_cache(tmp_path, cache, monkeypatch):
    path = write(tmp_path, document())

    def full(stream, **columns):
        stream.write(b"half of it")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", full)
        with pytest.warns(Remark, match="No space left.*are in memory"):
            assert len(matbench.load(path)) == 5
    assert not list((cache / "columns").iterdir())
    assert len(matbench.load(path)) == 5


# --- the data set ---------------------------------------------------------------------------------


def test_a_part_of_the_official_rows_says_that_it_is_one(tmp_path, official):
    dataset = matbench.load(write(tmp_path, document()))
    assert dataset.name == "matbench_mp_e_form (subset)"
    assert dataset.is_subset
    assert (len(dataset), dataset.n_official) == (5, N_OFFICIAL)
    assert dataset.ids.tolist() == [
        "mb-mp-e-form-000004",
        "mb-mp-e-form-000001",
        "mb-mp-e-form-132752",
        "mb-mp-e-form-000041",
        "mb-mp-e-form-000042",
    ]
    assert dataset.index.tolist() == document()["index"]
    assert dataset.reduced_formulas().tolist() == ["PtC", "CdHC", "O", "NaCl", "Si"]
    assert "not the published file" in dataset.source
    assert auto_choice(tmp_path / "table.json.gz")[0] == dataset.name
    np.testing.assert_array_equal(dataset.compositions, dataset.crystals.compositions())


def test_the_published_hash_is_the_one_matminer_checks():
    metadata = folds.package_file("matminer", "datasets", "dataset_metadata.json")
    if metadata is None:
        pytest.skip("matminer is not installed")
    assert json.loads(metadata.read_bytes())[matbench.NAME]["hash"] == matbench.PUBLISHED_SHA256


@pytest.mark.parametrize("style", sorted(STYLES))
def test_a_file_is_called_what_its_rows_make_it(style, tmp_path, official):
    path = write(tmp_path, document(), style)
    assert auto_choice(path)[0] == "matbench_mp_e_form (subset)" == load_dataset(path).name


def test_unknown_names_and_paths_are_a_wrong_request():
    for choose in (load_dataset, auto_choice):
        with pytest.raises(ConfigError, match=r"neither a data set nor a file. Known: auto, embed"):
            choose("matbench_mp_gap")
        with pytest.raises(NotAvailable, match="python -m harness fetch matbench_mp_e_form"):
            choose("matbench_mp_e_form")


def test_auto_prefers_the_official_file_and_says_what_it_took(
    tmp_path, cache, official, monkeypatch
):
    monkeypatch.delenv("HARNESS_DATA")
    name, reason = auto_choice("auto")
    assert name == "embedded"
    assert "python -m harness fetch matbench_mp_e_form" in reason
    monkeypatch.setenv("HARNESS_DATA", str(official))
    assert auto_choice("auto")[0] == "embedded"
    write(official, document()).rename(official / "matbench_mp_e_form_subset.json.gz")
    name, reason = auto_choice("auto")
    assert name == "matbench_mp_e_form (subset)"
    assert "has not been fetched" in reason
    assert load_dataset("auto").name == load_dataset("subset").name == name
    (cache / "fetched").mkdir()
    write(tmp_path, document()).rename(cache / "fetched" / "matbench_mp_e_form.json.gz")
    name, reason = auto_choice("auto")
    assert name == "matbench_mp_e_form (subset)"  # what it holds, whatever it is called
    assert str(cache / "fetched") in reason
    assert list(load_dataset("auto").inputs) == ["matbench_mp_e_form.json.gz"]


# --- folds ----------------------------------------------------------------------------------------


@pytest.fixture
def official_folds(monkeypatch, shared_cache) -> np.ndarray:
    if folds.definition_file() is None:
        pytest.skip(f"matbench is not installed. {folds.matbench_hint()}")
    monkeypatch.setenv("HARNESS_CACHE", str(shared_cache))
    return folds.official_folds()


def test_official_folds_are_those_of_scikit_learn(official_folds):
    from sklearn.model_selection import KFold

    splitter = KFold(5, shuffle=True, random_state=18012019)
    for number, (_, test) in enumerate(splitter.split(np.arange(N_OFFICIAL))):
        np.testing.assert_array_equal(np.flatnonzero(official_folds == number), test)
    assert np.bincount(official_folds).tolist() == [26551, 26551, 26550, 26550, 26550]
    assert not official_folds.flags.writeable


def test_folds_are_matbenchs_own_for_the_rows_at_hand(official_folds, tmp_path, official):
    dataset = matbench.load(write(tmp_path, document()))
    assert dataset.n_folds == 5
    tested = []
    for number in range(5):
        fold = dataset.fold(number)
        assert fold.n_claimed == (26551 if number < 2 else 26550)
        assert (official_folds[dataset.index[fold.test_rows]] == number).all()
        assert sorted([*fold.train.positions, *fold.test.positions]) == list(range(5))
        assert len(fold.test) == len(fold.test_rows) == len(fold.test.ids)
        tested.extend(fold.test.ids)
    assert sorted(tested) == sorted(dataset.ids)
    assert dataset.fold(int(official_folds[3])).test.ids[0] == "mb-mp-e-form-000004"
    for number in (-1, 5):
        with pytest.raises(ConfigError, match=f"folds 0 to 4, not {number}"):
            dataset.fold(number)


def test_taking_rows_leaves_each_in_its_fold(official_folds, tmp_path, official):
    dataset = matbench.load(write(tmp_path, document()))
    part = dataset.take(np.array([4, 1, 2]))
    assert part.ids.tolist() == dataset.ids[[4, 1, 2]].tolist()
    for number in range(5):
        kept = [i for i in dataset.fold(number).test.ids if i in part.ids]
        assert sorted(part.fold(number).test.ids) == sorted(kept)
        assert part.fold(number).n_claimed == dataset.fold(number).n_claimed


def test_without_matbench_the_one_command_is_named(monkeypatch, tmp_path, official):
    monkeypatch.setattr(folds, "package_file", lambda *parts: None)
    dataset = matbench.load(write(tmp_path, document()))
    with pytest.raises(NotAvailable, match=r"pip install --no-deps matbench==0\.6"):
        dataset.fold(0)


def _definition(**changes: list[str]) -> dict:
    ids = {"train": ["mb-mp-e-form-000001"], "test": ["mb-mp-e-form-000002"]} | changes
    return {"splits": {"matbench_mp_e_form": {f"fold_{k}": ids for k in range(5)}}, "metadata": {}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "does not define the folds"),
        (json.dumps({"splits": {}}), "does not define the folds"),
        (json.dumps(_definition(test=["mp-1"])), "does not define the folds"),
        (json.dumps(_definition(test=["mb-mp-e-form-999999"])), "tests rows beyond"),
        (json.dumps(_definition()), "fold 0 trains on 1 rows"),
    ],
)
def test_another_definition_of_the_folds_is_refused(text, message, tmp_path, cache, monkeypatch):
    path = tmp_path / "validation.json"
    path.write_text(text)
    monkeypatch.setattr(folds, "package_file", lambda *parts: path)
    with pytest.raises(DataError, match=message):
        folds.official_folds()
    assert not cache.exists()


def test_folds_of_another_seed_are_refused(official_folds):
    other = official_folds.copy()
    other[:2] = other[:2][::-1] + 1
    with pytest.raises(DataError, match="2 rows are in another fold than KFold"):
        folds._checked(other, Path("folds.npz"))


def test_a_damaged_fold_cache_is_made_again(official_folds, tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "new"))
    monkeypatch.setattr(folds, "_parse", lambda path: official_folds.copy())
    folds.official_folds()
    (cached,) = (tmp_path / "new" / "columns").iterdir()
    cached.write_bytes(_flip(cached.read_bytes()))
    folds._folds_of.cache_clear()
    with pytest.warns(UserWarning, match="is converted again"):
        np.testing.assert_array_equal(folds.official_folds(), official_folds)


# --- what any data set keeps ----------------------------------------------------------------------


def cross_fitted(**changes) -> Dataset:
    """Six rows in one fold of two splits, each row tested once by what the others fitted."""
    n = 6
    halves = np.arange(3), np.arange(3, 6)
    compositions = np.zeros((n, 118))
    compositions[:, 13] = 1
    fields = {
        "name": "six",
        "ids": np.array([f"row-{i}" for i in range(n)]),
        "target_ev_per_atom": np.linspace(-1, 0, n),
        "crystals": None,
        "compositions": compositions,
        "inputs": {},
        "source": "this test",
        "licence": "MIT",
        "is_subset": False,
        "n_official": n,
        "fold_splits": (
            (Split(train=halves[1], test=halves[0]), Split(train=halves[0], test=halves[1])),
        ),
        "extras": {"twice": np.arange(n) * 2},
    }
    return Dataset(**(fields | changes))


def test_a_cross_fitted_fold_tests_every_row_and_has_no_one_training_set():
    fold = cross_fitted().fold(0)
    assert fold.is_cross_fitted
    assert fold.test_rows.tolist() == list(range(6))
    assert fold.n_claimed == 6
    for name in ("train", "test"):
        with pytest.raises(DataError, match="cross-fitted in 2 splits"):
            getattr(fold, name)
    with pytest.raises(ConfigError, match="folds 0 to 0"):
        cross_fitted().fold(1)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 5), unique=True, min_size=1))
def test_taken_rows_keep_their_columns_and_their_splits(rows):
    whole = cross_fitted()
    part = whole.take(np.array(rows))
    assert part.ids.tolist() == whole.ids[rows].tolist()
    assert part.target_ev_per_atom.tolist() == whole.target_ev_per_atom[rows].tolist()
    assert part.extras["twice"].tolist() == [2 * row for row in rows]
    assert part.is_subset == (len(rows) < 6)
    fold = part.fold(0)
    assert sorted(fold.test_rows) == list(range(len(rows)))
    assert fold.n_claimed == 6  # the claim is about all rows, whichever were taken
    for split, old in zip(fold.splits, whole.fold(0).splits, strict=True):
        assert set(part.ids[split.test]) <= set(whole.ids[old.test])
        assert set(part.ids[split.train]) <= set(whole.ids[old.train])
    again = part.take(slice(None)).fold(0)
    assert again.n_claimed == 6


def test_a_set_without_folds_is_all_test_and_no_training():
    fold = cross_fitted(fold_splits=()).fold(0)
    assert fold.test_rows.tolist() == list(range(6))
    assert len(fold.train) == 0
    assert fold.n_claimed == 6


_NAN_TARGET = np.array([0.0, 1.0, np.nan, 0.0, 0.0, 0.0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target_ev_per_atom": np.zeros(5)}, "target_ev_per_atom has 5 rows and there are 6 ids"),
        ({"target_ev_per_atom": _NAN_TARGET}, r"1 targets are not finite, first row 2 \(row-2\)"),
        ({"target_ev_per_atom": np.zeros(6, np.float32)}, "targets are float32"),
        ({"ids": np.array(["a", "b", "c", "a", "d", "e"])}, "id a of row 3 is there already"),
        ({"index": np.array([0, 1, 2, 2, 4, 5])}, "official number 2 of row 3 is there already"),
        ({"index": np.arange(1, 7)}, "official row numbers go from 1 to 6, outside 0 to 5"),
        ({"compositions": np.ones((6, 89))}, r"compositions have shape \(6, 89\)"),
        ({"compositions": np.zeros((6, 118))}, r"row 0 \(row-0\) has no atoms"),
        ({"extras": {"x": np.zeros(2)}}, r"extras\['x'\] has 2 rows"),
        ({"fold_sizes": (1, 2)}, "2 fold sizes for 1 folds"),
    ],
)
def test_columns_that_do_not_belong_together_are_refused(changes, message):
    with pytest.raises(DataError, match=message):
        cross_fitted(**changes)


def test_a_leaking_split_or_a_row_tested_twice_is_refused():
    with pytest.raises(DataError, match=r"2 rows are in train and in test \(first \[1, 2\]"):
        Split(train=np.array([0, 1, 2]), test=np.array([2, 1, 5]))
    with pytest.raises(DataError, match="as a"):
        Split(train=np.array([True, False]), test=np.array([1]))
    split = Split(train=np.array([0]), test=np.array([1]))
    with pytest.raises(DataError, match="tests a row more than once"):
        Fold(dataset=cross_fitted(), number=0, splits=(split, split), n_claimed=2)
    with pytest.raises(DataError, match="a row is taken twice"):
        cross_fitted().take(np.array([1, 1]))


def test_compositions_without_coordinates_say_so_when_structures_are_asked_for():
    with pytest.raises(DataError, match="python -m harness fetch matbench_mp_e_form"):
        _ = cross_fitted(fold_splits=()).fold(0).test.crystals
    assert cross_fitted().reduced_formulas().tolist() == ["Si"] * 6


# --- real rows ------------------------------------------------------------------------------------


def test_real_rows_are_read_as_pymatgen_reads_them(real_data):
    from pymatgen.core import Structure

    dataset = load_dataset("subset")
    assert len(dataset) == 25_947
    path = real_data / "matbench_mp_e_form_subset.json.gz"
    text = gzip.decompress(path.read_bytes())
    table = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    index = json.loads(bytes(table["index"]))
    data = msgspec.json.decode(table["data"], type=list[tuple[msgspec.Raw, float]])
    rows = np.random.default_rng(0).choice(len(dataset), 200, replace=False)
    expected = Crystals.from_structures(
        [Structure.from_dict(json.loads(bytes(data[row][0]))) for row in rows.tolist()]
    )
    np.testing.assert_array_equal(dataset.crystals[rows].row_hashes(), expected.row_hashes())
    assert dataset.target_ev_per_atom.tolist() == [target for _, target in data]
    assert dataset.ids.tolist() == [f"mb-mp-e-form-{i + 1:06d}" for i in index]
    assert dataset.index.tolist() == index
    assert dataset.inputs == {path.name: sha256_of(path)}


def test_real_fold_0_has_the_rows_the_readme_counts(real_data, official_folds):
    fold = load_dataset("auto").fold(0)
    assert fold.dataset.name == "matbench_mp_e_form (subset)"
    assert len(fold.test) == 5_233
    assert fold.n_claimed == 26_551
    assert len(fold.test) + len(fold.train) == 25_947
    assert len(fold.test.crystals) == 5_233
    assert fold.test.ids.tolist() == fold.dataset.ids[fold.test_rows].tolist()


def test_real_rows_cut_and_damaged_are_refused(real_data, tmp_path):
    good = (real_data / "matbench_mp_e_form_subset.json.gz").read_bytes()
    path = tmp_path / "real.json.gz"
    path.write_bytes(good[: len(good) // 2])
    with pytest.raises(DataError, match="is cut short"):
        parse(path)
    path.write_bytes(_flip(good))
    with pytest.raises(DataError, match=r"real\.json\.gz"):
        parse(path)
