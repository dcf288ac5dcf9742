"""What is official is known: rows are compared with the official ones, not believed by number."""

from __future__ import annotations

import gzip
import hashlib
import re
from pathlib import Path

import numpy as np
import pytest

from harness.data import auto_choice, load_dataset, matbench, peers, targets, texts, wbm
from harness.data.frames import DIMERS_FILE, FRAME_SETS, load_dimers, load_frames
from harness.errors import ConfigError, DataError
from tests.official_rows import crystal, layout, write_layout, write_targets

METALS = ("Li", "Na", "K", "Ca", "Sr", "Ba")


def table() -> dict:
    """Chlorides on official numbers, every third of them, with energies a compound can have."""
    rows = [
        [crystal((metal, 0.0), ("Cl", 0.5), a=5.0 + k / 10), -1.5 - k / 7]
        for k, metal in enumerate(METALS)
    ]
    return layout(rows, index=[3 * k for k in range(len(rows))])


@pytest.fixture(autouse=True)
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HARNESS_DATA", raising=False)


@pytest.fixture
def official(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_DATA", str(write_targets(tmp_path / "data", table())))


def test_rows_that_agree_are_official(tmp_path: Path, official: None) -> None:
    rows = table()
    rows["data"][2][0]["sites"] *= 2  # the same crystal in a doubled cell
    for k, site in enumerate(rows["data"][2][0]["sites"]):
        rows["data"][2][0]["sites"][k] = {**site, "abc": [k / 4, 0.0, 0.0]}
    dataset = load_dataset(write_layout(tmp_path / "part.json", rows))
    assert dataset.name == "matbench_mp_e_form (subset)"
    assert dataset.index is not None
    assert dataset.ids[1] == "mb-mp-e-form-000004"


@pytest.mark.parametrize("what", ["energies", "compositions", "numbers"])
def test_rows_of_another_set_are_a_file_of_ones_own(
    what: str, tmp_path: Path, official: None
) -> None:
    rows = table()
    for row in rows["data"]:
        if what == "energies":
            row[1] -= 0.25
        elif what == "compositions":
            row[0]["sites"][1]["species"][0]["element"] = "Br"
    if what == "numbers":
        rows["index"] = [k + 1 for k in rows["index"]]
    path = write_layout(tmp_path / "mine.json.gz", rows)
    dataset = load_dataset(path)
    assert dataset.name == "own file mine.json.gz"
    assert dataset.index is None
    assert dataset.ids[0] == f"row {rows['index'][0]}"
    assert (dataset.n_official, dataset.is_subset) == (6, False)
    assert dataset.licence == "not stated"
    said = {
        "energies": "row 0 is LiCl with -1.75 eV/atom, and the official row 0 is LiCl with -1.5",
        "compositions": "row 0 is LiBr with -1.5 eV/atom, and the official row 0 is LiCl with -1.5",
        "numbers": "row 0 has index 1, which the targets at hand do not have",
    }[what]
    assert f"6 of 6 rows are not official: {said}" in dataset.source
    name, reason = auto_choice(path)
    assert name == dataset.name
    assert said in reason


def test_a_file_of_ones_own_is_cross_fitted_where_it_can_be(tmp_path: Path, official: None) -> None:
    rows = table()
    for row in rows["data"]:
        row[1] -= 0.25
    fold = load_dataset(write_layout(tmp_path / "six.json", rows)).fold(0)
    assert (len(fold.splits), fold.n_claimed) == (5, 6)
    assert sorted(fold.test_rows.tolist()) == list(range(6))
    few = layout(rows["data"][:3], index=[0, 1, 2])
    fold = load_dataset(write_layout(tmp_path / "three.json", few)).fold(0)
    assert [len(split.train) for split in fold.splits] == [0]
    assert fold.test_rows.tolist() == [0, 1, 2]


def test_without_official_rows_at_hand_nothing_is_called_official(tmp_path: Path) -> None:
    dataset = load_dataset(write_layout(tmp_path / "part.json", table()))
    assert dataset.name == "own file part.json"
    assert "cannot be told without the official targets" in dataset.source


def test_the_published_file_is_official_by_its_hash_and_others_are_compared_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    published = write_layout(data / matbench.FILE_NAME, table())
    monkeypatch.setenv("HARNESS_DATA", str(data))
    part = write_layout(tmp_path / "part.json", layout(table()["data"][:2], index=[0, 3]))
    assert load_dataset(part).name == "own file part.json"
    monkeypatch.setattr(matbench, "PUBLISHED_SHA256", matbench.sha256_of(published))
    assert load_dataset(part).name == "matbench_mp_e_form (subset)"
    assert "as published" in load_dataset(published).source


def test_a_changed_official_file_is_refused(tmp_path: Path, official: None) -> None:
    rows = table()
    rows["data"][4][1] += 1e-9
    with pytest.raises(DataError, match=r"1 of 6 rows are not the official.*row 4 is SrCl.*row 12"):
        load_dataset(write_layout(tmp_path / "changed.json", rows))
    rows["data"][1][1] = rows["data"][0][1] = 0.0  # half of them: a set of its own
    assert load_dataset(write_layout(tmp_path / "half.json", rows)).name == "own file half.json"


@pytest.mark.parametrize(("energy", "refused"), [(-6.01, True), (-5.9, False), (10.1, True)])
def test_energies_of_cells_are_no_energies_per_atom(
    energy: float, refused: bool, tmp_path: Path, official: None
) -> None:
    rows = table()
    for row in rows["data"]:
        row[1] = energy
    path = write_layout(tmp_path / "cells.json", rows)
    if refused:
        with pytest.raises(DataError, match=r"e_form of row 0 \(LiCl\).*6 rows.*eV per atom"):
            load_dataset(path)
    else:
        np.testing.assert_array_equal(load_dataset(path).target_ev_per_atom, energy)


def test_a_known_file_is_named_without_being_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "subset.json.gz"
    path.write_bytes(b"not even JSON")
    monkeypatch.setattr(matbench, "SUBSET_SHA256", matbench.sha256_of(path))
    assert auto_choice(path)[0] == "matbench_mp_e_form (subset)"
    with pytest.raises(ConfigError, match="neither a data set nor a file"):
        auto_choice(tmp_path / "absent.json.gz")


# --- published files ------------------------------------------------------------------------------


def test_other_files_under_a_published_name_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path))
    for name, load in (
        (FRAME_SETS["mlearn-Si"].file, lambda: load_frames("mlearn-Si")),
        (FRAME_SETS["mpf-TP"].file, lambda: load_frames("mpf-TP")),
        (DIMERS_FILE, load_dimers),
        (wbm.FILE_NAME, wbm.load),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(gzip.compress(b"[]"))
        with pytest.raises(DataError, match=r"is not the published file: sha256 of its text is"):
            load()
        (tmp_path / name).write_bytes(gzip.compress(b" " * 65_000_000, 1))
        with pytest.raises(DataError, match="more than 64 MB"):
            load()


def test_a_published_text_may_be_packed_in_any_way(tmp_path: Path) -> None:
    text = b"one text"
    sha256 = hashlib.sha256(text).hexdigest()
    for content in (text, gzip.compress(text, 1), gzip.compress(text, 9)):
        (tmp_path / "a").write_bytes(content)
        texts.check_published(tmp_path / "a", sha256, "its publisher")
    (tmp_path / "a").write_bytes(text + b"!")
    with pytest.raises(DataError, match="Restore it from its publisher"):
        texts.check_published(tmp_path / "a", sha256, "its publisher")


def test_all_official_rows_have_the_published_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_targets(tmp_path / "data", layout(table()["data"]))
    path = folder / targets.FILE_NAME
    assert len(targets.load(path)) == 6  # a part of them is compared with nothing
    monkeypatch.setattr(targets, "N_OFFICIAL", 6)
    monkeypatch.setattr(targets, "_FILE_KIND", "targets-test")
    with pytest.raises(
        DataError, match=r"does not hold the published values.*of its columns is"
    ) as e:
        targets.load(path)
    found = re.search(r"columns is ([0-9a-f]{64})", str(e.value))
    assert found
    monkeypatch.setattr(targets, "CONTENT_SHA256", found[1])
    assert len(targets.load(path)) == 6


def test_all_peers_predictions_are_the_published_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {"mbid": ["mb-mp-e-form-000001", "mb-mp-e-form-000002"], "fold": [0, 1]}
    path = tmp_path / "peers.parquet"

    def write(**changes: list) -> Path:
        pq.write_table(pa.table({**columns, "CGCNN": [0.5, 0.25], **changes}), path)
        return path

    assert len(peers.load_peer_predictions(write()).ids) == 2
    monkeypatch.setattr(peers, "N_OFFICIAL", 2)
    with pytest.raises(DataError, match="does not hold the published values") as e:
        peers.load_peer_predictions(path)
    found = re.search(r"columns is ([0-9a-f]{64})", str(e.value))
    assert found
    monkeypatch.setattr(peers, "CONTENT_SHA256", found[1])
    assert peers.load_peer_predictions(path).predictions["CGCNN"].tolist() == [0.5, 0.25]
    for wrong in ({"CGCNN": [0.5, 0.26]}, {"fold": [1, 0]}, {"mbid": columns["mbid"][::-1]}):
        with pytest.raises(DataError, match="does not hold the published values"):
            peers.load_peer_predictions(write(**wrong))
    for wrong, said in (
        ({"mbid": [None, "mb-mp-e-form-000002"]}, "mbid or a prediction is not as described"),
        ({"CGCNN": ["a", "b"]}, "mbid or a prediction is not as described"),
        ({"mbid": [], "fold": [], "CGCNN": []}, "0 rows of 1 models"),
    ):
        with pytest.raises(DataError, match=said):
            peers.load_peer_predictions(write(**wrong))
