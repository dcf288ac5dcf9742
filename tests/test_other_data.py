"""Targets, peers' predictions, WBM, elemental references, and where everything is looked for."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import numpy as np
import pytest

from harness.data import (
    auto_choice,
    available,
    cache_dir,
    load_dataset,
    load_peer_predictions,
    paths,
    references,
    targets,
    wbm,
)
from harness.data.elements import SYMBOLS
from harness.data.folds import matbench_hint, official_folds, row_numbers
from harness.data.references import load_mp2020_references
from harness.errors import DataError, NotAvailable
from harness.models.alignment import References

REAL_DATA = os.environ.get("HARNESS_DATA")


@pytest.fixture(scope="module")
def shared_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def cache(shared_cache, monkeypatch):
    monkeypatch.setenv("HARNESS_CACHE", str(shared_cache))
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    return shared_cache


@pytest.fixture
def real_data(monkeypatch) -> Path:
    if not REAL_DATA:
        pytest.skip("HARNESS_DATA is not set; this file is not part of the project")
    monkeypatch.setenv("HARNESS_DATA", REAL_DATA)
    return Path(REAL_DATA)


# --- targets and peers ----------------------------------------------------------------------------


def test_compositions_are_parsed_word_by_word():
    from pymatgen.core import Composition

    texts = ["Pt1 C1", "Fe2 O3", "O3 Fe2", "H1 H2 O1", "U118 Og12"]
    counts = targets.parse_compositions(texts, texts)
    for text, row in zip(texts, counts, strict=True):
        composition = Composition(text)
        found = {SYMBOLS[z]: row[z] for z in np.flatnonzero(row)}
        assert found == {element.symbol: n for element, n in composition.items()}
    assert counts[1].tolist() == counts[2].tolist()


@pytest.mark.parametrize("text", ["Xx1", "Fe", "Fe0", "Fe1.5", "fe2", "2", "Fe-1", "Fe2O3", ""])
def test_a_composition_that_is_none_is_refused_with_its_row(text):
    with pytest.raises(DataError, match=r"row 1 \(b\)"):
        targets.parse_compositions(["O2", text, "O2"], ["a", "b", "c"])


def _parquet(path: Path, **columns: list) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table(columns), path)
    return path


IDS = ["mb-mp-e-form-000001", "mb-mp-e-form-000007"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mbid": ["mp-1", "mp-2"]}, "mbid or e_form is not as described"),
        ({"mbid": IDS[:1] * 2}, "id mb-mp-e-form-000001 of row 1 is there already"),
        ({"mbid": ["mb-mp-e-form-000000", IDS[1]]}, "outside 0 to 132751"),
        ({"e_form": ["a", "b"]}, "mbid or e_form is not as described"),
        ({"e_form": [1.0, float("nan")]}, r"not finite, first row 1 \(mb-mp-e-form-000007\)"),
        ({"composition": ["O2", "Qq1"]}, r"row 1 \(mb-mp-e-form-000007\): 'Qq1'"),
    ],
)
def test_targets_that_are_not_as_described_are_refused(changes, message, tmp_path):
    good = {"mbid": IDS, "e_form": [1.0, -2.0], "composition": ["O2", "Fe2 O3"]}
    dataset = targets.load(_parquet(tmp_path / "good.parquet", **good))
    assert dataset.index.tolist() == [0, 6]
    assert dataset.crystals is None
    assert dataset.reduced_formulas().tolist() == ["O", "Fe2O3"]
    with pytest.raises(DataError, match=message):
        targets.load(_parquet(tmp_path / "bad.parquet", **(good | changes)))


def test_files_that_are_no_parquet_or_lack_columns_are_refused(tmp_path):
    (tmp_path / "text.parquet").write_text("mbid,e_form")
    with pytest.raises(DataError, match="cannot be read as parquet"):
        targets.load(tmp_path / "text.parquet")
    path = _parquet(tmp_path / "other.parquet", mbid=IDS)
    with pytest.raises(DataError, match="has no column e_form, composition"):
        targets.load(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fold": [0, 5]}, "fold holds"),
        ({"mbid": IDS[:1] * 2}, "an mbid comes twice"),
        ({"CGCNN": [0.1, float("nan")]}, "CGCNN predicts nan for mb-mp-e-form-000007"),
        ({"fold": None}, "has no column fold"),
    ],
)
def test_predictions_of_peers_that_are_not_as_described_are_refused(changes, message, tmp_path):
    from harness.data import peers

    good = {"mbid": IDS, "fold": [0, 4], "CGCNN": [0.1, 0.2]}
    loaded = peers.load_peer_predictions(_parquet(tmp_path / "good.parquet", **good))
    assert loaded.predictions["CGCNN"].tolist() == [0.1, 0.2]
    columns = {k: v for k, v in (good | changes).items() if v is not None}
    with pytest.raises(DataError, match=message):
        peers.load_peer_predictions(_parquet(tmp_path / "bad.parquet", **columns))


def test_ids_are_row_numbers_counted_from_one():
    assert row_numbers(IDS).tolist() == [0, 6]
    for strange in ("mp-1", "mb-mp-gap-000001", "mb-mp-e-form-"):
        with pytest.raises(ValueError, match=r"mb-mp-e-form-|invalid literal"):
            row_numbers([strange])


def test_the_targets_are_all_official_rows_with_matbenchs_statistics(real_data):
    dataset = load_dataset("targets")
    assert len(dataset) == dataset.n_official == 132_752
    assert dataset.index.tolist() == list(range(132_752))
    assert not dataset.is_subset
    assert auto_choice("targets")[0] == dataset.name
    target = dataset.target_ev_per_atom
    assert np.abs(target - target.mean()).mean() == pytest.approx(1.0059, abs=1e-4)  # published MAD
    assert not dataset.compositions[:, [1, 9, 17]].any()  # matbench removed noble gases
    np.testing.assert_array_equal(dataset.compositions, dataset.compositions.round())


def test_the_targets_and_the_structures_are_the_same_rows(real_data):
    whole, part = load_dataset("targets"), load_dataset("subset")
    np.testing.assert_array_equal(whole.target_ev_per_atom[part.index], part.target_ev_per_atom)
    assert whole.ids[part.index].tolist() == part.ids.tolist()
    same = whole.reduced_formulas()[part.index] == part.reduced_formulas()
    assert same.all(), part.ids[~same][:5]


def test_peers_reach_on_fold_0_what_the_leaderboard_says(real_data):
    if paths.package_file("matbench", "matbench_v0.1_validation.json") is None:
        pytest.skip(f"matbench is not installed. {matbench_hint()}")
    peers, dataset = load_peer_predictions(), load_dataset("targets")
    np.testing.assert_array_equal(peers.ids, dataset.ids)
    np.testing.assert_array_equal(peers.fold, official_folds())
    rows = dataset.fold(0).test_rows
    assert len(rows) == 26_551
    published = {
        "coNGN": 0.0181,
        "ALIGNN": 0.0218,
        "CGCNN": 0.0340,
        "CrabNet": 0.0853,
        "RF-SCM/Magpie": 0.1158,
    }
    assert set(peers.predictions) == set(published)
    for name, mae in published.items():
        errors = peers.predictions[name][rows] - dataset.target_ev_per_atom[rows]
        assert np.abs(errors).mean() == pytest.approx(mae, abs=6e-5), name


# --- WBM ------------------------------------------------------------------------------------------


def _wbm_row(**changes: object) -> dict:
    site = {"species": [{"element": "Si", "occu": 1}], "abc": [0, 0, 0], "label": "Si"}
    return {
        "material_id": "wbm-1-1",
        "formula": "Si",
        "structure": {"lattice": {"matrix": [[3, 0, 0], [0, 3, 0], [0, 0, 3]]}, "sites": [site]},
        "energy": -5.0,
        "corrected_energy": -5.5,
        "formation_energy_per_atom": 0.5,
        "corrected_formation_energy_per_atom": 0.25,
    } | changes


def _wbm_file(folder: Path, rows: object) -> Path:
    path = folder / "wbm.json.gz"
    path.write_bytes(gzip.compress(json.dumps(rows).encode()))
    return path


def test_wbm_scores_corrected_formation_energies_and_keeps_the_others(tmp_path):
    rows = [_wbm_row(), _wbm_row(material_id="wbm-1-2", energy=-6.0)]
    dataset = wbm.load(_wbm_file(tmp_path, rows))
    assert dataset.name == "wbm"
    assert dataset.ids.tolist() == ["wbm-1-1", "wbm-1-2"]
    assert dataset.target_ev_per_atom.tolist() == [0.25, 0.25]
    assert dataset.extras["raw_e_form_ev_per_atom"].tolist() == [0.5, 0.5]
    assert dataset.extras["energy_ev"].tolist() == [-5.0, -6.0]
    assert dataset.extras["corrected_energy_ev"].tolist() == [-5.5, -5.5]
    assert dataset.index is None
    fold = dataset.fold(0)
    assert (len(fold.train), len(fold.test), fold.n_claimed) == (0, 2, 972)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({}, "is not the WBM file"),
        ([{"material_id": "a"}], "is not the WBM file"),
        ([_wbm_row(energy="low")], "is not the WBM file"),
        ([_wbm_row(), _wbm_row()], "id wbm-1-1 of row 1 is there already"),
        ([_wbm_row(structure={})], r"row 0 \(wbm-1-1\): the structure has no lattice"),
        ([_wbm_row(), _wbm_row(structure=None)], r"row 1 \(wbm-1-1\): the structure has no"),
    ],
)
def test_wbm_rows_that_are_not_as_described_are_refused(rows, message, tmp_path):
    with pytest.raises(DataError, match=message):
        wbm.load(_wbm_file(tmp_path, rows))


def test_a_wbm_file_cut_short_is_refused(tmp_path):
    path = _wbm_file(tmp_path, [_wbm_row()])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="is cut short"):
        wbm.load(path)


def test_real_wbm_energies_and_references_belong_together(real_data):
    dataset = load_dataset("wbm")
    assert len(dataset) == 972
    assert not dataset.is_subset
    crystals, table = dataset.require_crystals(), load_mp2020_references()
    mp2020 = References(name="mp2020", energies_ev_per_atom=table.energies_ev_per_atom)
    found = mp2020.formation_energies(
        dataset.extras["corrected_energy_ev"] / crystals.n_atoms, dataset.compositions
    )
    difference = found - dataset.target_ev_per_atom
    moved = dataset.compositions[:, [SYMBOLS.index(s) for s in ("O", "Br", "I", "Bi")]].any(axis=1)
    assert np.count_nonzero(moved) == 155
    assert np.abs(difference[~moved]).max() < 1e-8
    assert -0.063 < difference[moved].min() < difference[moved].max() < 0
    raw = dataset.extras["raw_e_form_ev_per_atom"]
    assert np.count_nonzero(raw != dataset.target_ev_per_atom) == 378
    assert np.abs(raw - dataset.target_ev_per_atom).max() == pytest.approx(1.08, abs=5e-3)


# --- elemental references -------------------------------------------------------------------------


def _entry(element: str = "O", n_atoms: float = 8.0, energy: float = -39.0, correction=-1.0):
    return {"energy": energy, "correction": correction, "composition": {element: n_atoms}}


def _reference_file(folder: Path, entries: object) -> Path:
    path = folder / "references.json.gz"
    path.write_bytes(gzip.compress(json.dumps(entries).encode()))
    return path


def test_a_reference_is_the_corrected_energy_per_atom(tmp_path):
    path = _reference_file(tmp_path, {"O": _entry(), "Fe": _entry("Fe", 2.0, -17.0, 0.0)})
    table = references.parse(path)
    assert table.energies_ev_per_atom[[7, 25]].tolist() == [-5.0, -8.5]
    assert np.isnan(table.energies_ev_per_atom).sum() == 116


@pytest.mark.parametrize(
    "entries",
    [
        [],
        {"O": {}},
        {"O": _entry("Fe")},
        {"O": _entry(n_atoms=0.0)},
        {"O": _entry(energy=float("nan"))},
        {"O": {**_entry(), "composition": {"O": 1.0, "Fe": 1.0}}},
        {"O": {**_entry(), "composition": {"O": True}}},
        {"O": _entry(n_atoms=-8.0)},
        {"O": _entry(energy=True)},
        {"O": _entry(energy=10**400)},
        {"H": _entry("H"), "D": _entry("D")},
    ],
)
def test_references_that_are_not_one_entry_an_element_are_refused(entries, tmp_path):
    with pytest.raises(DataError, match="does not hold one entry per element"):
        references.parse(_reference_file(tmp_path, entries))


def test_references_of_what_is_no_element_or_twice_are_refused(tmp_path):
    with pytest.raises(DataError, match="'Xx' is not an element"):
        references.parse(_reference_file(tmp_path, {"Xx": _entry("Xx")}))
    path = tmp_path / "twice.json.gz"
    one = json.dumps(_entry())
    path.write_bytes(gzip.compress(f'{{"O": {one}, "O": {one}}}'.encode()))
    with pytest.raises(DataError, match="the key 'O' is given twice"):
        references.parse(path)
    path.write_bytes(gzip.compress(b"[" * 100_000))
    with pytest.raises(DataError, match="nested too deep"):
        references.parse(path)


def test_absent_references_name_the_command_and_others_are_refused(tmp_path):
    with pytest.raises(NotAvailable, match="python -m harness fetch mp-elemental-references"):
        load_mp2020_references()
    with pytest.raises(DataError, match=f"sha256 is [0-9a-f]{{64}}, expected {references.SHA256}"):
        load_mp2020_references(_reference_file(tmp_path, {"O": _entry()}))


def test_fetched_references_are_found_without_harness_data(real_data, monkeypatch, tmp_path):
    content = (real_data / references.FILE_NAME).read_bytes()
    monkeypatch.delenv("HARNESS_DATA")
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    (tmp_path / "fetched").mkdir()
    (tmp_path / "fetched" / references.FILE_NAME).write_bytes(content)
    table = load_mp2020_references()
    assert np.isfinite(table.energies_ev_per_atom).sum() == 89
    assert table.sha256 == references.SHA256
    assert table.energies_ev_per_atom[7] == pytest.approx(-39.57350969 / 8)
    assert available()["elemental references"].startswith(str(tmp_path))


# --- where things are -----------------------------------------------------------------------------


def test_without_files_everything_absent_says_how_to_get_it():
    listing = available()
    assert listing["embedded"].startswith("comes with the project")
    assert listing["thermochemistry"].startswith("comes with the project")
    assert listing["cache"] == str(cache_dir())
    for name in ("matbench_mp_e_form (subset)", "targets", "wbm", "peer predictions"):
        assert listing[name].startswith("absent: set HARNESS_DATA")
    assert listing["elemental references"].endswith("fetch mp-elemental-references")
    for load in (lambda: load_dataset("targets"), lambda: load_dataset("wbm")):
        with pytest.raises(NotAvailable, match="HARNESS_DATA"):
            load()
    with pytest.raises(NotAvailable, match=r"HARNESS_DATA names \(which is unset\)"):
        load_peer_predictions()


def test_with_files_everything_present_says_where(real_data):
    listing = available()
    for name in ("matbench_mp_e_form (subset)", "targets", "wbm", "peer predictions"):
        assert Path(listing[name]).parent == real_data
    assert auto_choice("auto")[0] == "matbench_mp_e_form (subset)"


@pytest.mark.parametrize(
    ("platform", "variable", "expected"),
    [
        ("linux", "XDG_CACHE_HOME", "mlip-claims"),
        ("linux", None, ".cache/mlip-claims"),
        ("darwin", None, "Library/Caches/mlip-claims"),
        ("win32", "LOCALAPPDATA", "mlip-claims"),
        ("win32", None, "AppData/Local/mlip-claims"),
    ],
)
def test_the_cache_lies_where_the_platform_keeps_caches(
    platform, variable, expected, tmp_path, monkeypatch
):
    for name in ("HARNESS_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(paths.sys, "platform", platform)
    monkeypatch.setattr(paths.Path, "home", lambda: tmp_path)
    if variable:
        monkeypatch.setenv(variable, str(tmp_path))
    assert cache_dir() == tmp_path / expected
    assert not cache_dir().exists()
    monkeypatch.setenv("HARNESS_CACHE", "~/elsewhere")
    assert cache_dir() == Path("~/elsewhere").expanduser()


def test_a_file_in_an_installed_package_is_found_without_importing_it():
    import sys

    assert paths.package_file("wsgiref", "util.py").name == "util.py"
    assert "wsgiref" not in sys.modules
    assert paths.package_file("wsgiref", "missing.py") is None
    assert paths.package_file("no_such_package_anywhere", "a.py") is None
    assert paths.package_file("this", "a.py") is None  # a module is no folder


def test_the_projects_own_data_is_found_in_a_checkout():
    assert paths.fixtures_dir().name in ("fixtures", "_fixtures")
