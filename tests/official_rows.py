"""Small files in matbench's layout, and official targets that agree with them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

from harness.data import targets


def crystal(*sites: tuple[str, float], a: float = 4.0, **more: object) -> dict:
    """A pymatgen dictionary with just what a file of structures needs; sites lie along x."""
    return {
        "lattice": {"matrix": [[a, 0.0, 0.0], [0.0, a, 0.0], [0.25, 0.0, a]]},
        "sites": [
            {"species": [{"element": element, "occu": 1}], "abc": [x, 0.0, -0.5]}
            for element, x in sites
        ],
        **more,
    }


def layout(rows: list[list], index: list[int] | None = None) -> dict:
    """The table of (structure, formation energy) pairs."""
    return {
        "index": list(range(len(rows))) if index is None else index,
        "columns": ["structure", "e_form"],
        "data": rows,
    }


def write_layout(path: Path, table: dict) -> Path:
    text = json.dumps(table).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def write_targets(folder: Path, table: dict) -> Path:
    """The published table of targets, of these rows alone."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    compositions = []
    for structure, _ in table["data"]:
        symbols = [site["species"][0]["element"] for site in structure["sites"]]
        counts = {symbol: symbols.count(symbol) for symbol in dict.fromkeys(symbols)}
        compositions.append(" ".join(f"{symbol}{count}" for symbol, count in counts.items()))
    columns = {
        "mbid": [f"mb-mp-e-form-{i + 1:06d}" for i in table["index"]],
        "e_form": [float(target) for _, target in table["data"]],
        "composition": compositions,
    }
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), folder / targets.FILE_NAME)
    return folder
