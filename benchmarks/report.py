"""All benchmarks in one command; the tables go into docs/performance.md.

    python -m benchmarks.report                      about 15 minutes on two quiet cores
    python -m benchmarks.report --only race session  some parts again, the others stay as they are
    python -m benchmarks.report --size quick         the same on little input, the page left alone

Writes OUT/report.json (default benchmarks/results), every part with the machine, the versions, the
load when it started and the seconds it took, and puts each part's tables between its two marks in
the page.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import gpu, race, roofline, scaling, session
from harness.report.environment import machine, versions

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "performance.md"
RESULTS = ROOT / "benchmarks" / "results"
SIZES = ("full", "quick", "tiny")


@dataclass(frozen=True, kw_only=True)
class Part:
    """One module's measurement, with its arguments by size."""

    measure: Callable[..., dict[str, Any]]
    tables: Callable[[Mapping[str, Any]], str]
    full: dict[str, Any]
    quick: dict[str, Any]
    tiny: dict[str, Any]


ENERGIES_ONLY = ("ours-e", "chgnet-e")
PARTS = {
    "race": Part(
        measure=race.measure,
        tables=race.tables,
        full={"n_rows": 1000, "n_blocks": 5},
        quick={"n_rows": 90, "n_blocks": 3},
        tiny={"n_rows": 4, "n_blocks": 2, "names": ENERGIES_ONLY},
    ),
    "rattled": Part(
        measure=race.measure,
        tables=race.tables,
        full={"n_rows": 300, "n_blocks": 3, "is_rattled": True, "names": ENERGIES_ONLY},
        quick={"n_rows": 60, "n_blocks": 2, "is_rattled": True, "names": ENERGIES_ONLY},
        tiny={"n_rows": 2, "n_blocks": 1, "is_rattled": True, "names": ENERGIES_ONLY},
    ),
    "scaling": Part(
        measure=scaling.measure,
        tables=scaling.tables,
        full={},
        quick={
            "rows": (100, 300, 1000, 3000),
            "their_rows": (20, 60),
            "atoms": (1, 8, 64, 216),
            "atoms_a_point": 216,
            "core_rows": 200,
        },
        tiny={
            "rows": (2, 4),
            "their_rows": (1, 2),
            "atoms": (1, 4),
            "atoms_a_point": 4,
            "core_rows": 4,
        },
    ),
    "session": Part(
        measure=session.measure,
        tables=session.tables,
        full={},
        quick={"file_rows": 20_000, "their_rows": 1000, "mlp_rows": 5000, "repeats": 2},
        tiny={"file_rows": 60, "their_rows": 20, "mlp_rows": 100, "repeats": 1},
    ),
    "counts": Part(
        measure=roofline.measure_counts,
        tables=roofline.tables_of_counts,
        full={"n_rows": 1000},
        quick={"n_rows": 100},
        tiny={"n_rows": 4},
    ),
    "roofline": Part(
        measure=roofline.measure,
        tables=roofline.tables,
        full={"n_rows": 300},
        quick={"n_rows": 60},
        tiny={"n_rows": 4},
    ),
    "gpu": Part(
        measure=gpu.measure,
        tables=gpu.tables,
        full={},
        quick={"n_rows": 3000, "n_their_rows": 300},
        tiny={"n_rows": 20, "n_their_rows": 5},
    ),
}


def run_part(name: str, size: str) -> dict[str, Any]:
    """The part's result under ``result``, and beside it what it was measured on."""
    part, clock = PARTS[name], time.perf_counter()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    result = part.measure(**getattr(part, size))
    return {
        "result": result,
        "size": size,
        "seconds": time.perf_counter() - clock,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "load_at_start": load,
        "machine": machine(),
        "versions": versions(),
    }


def section(name: str, record: Mapping[str, Any]) -> str:
    """One part in markdown: command and machine, then its tables."""
    told = record["machine"]
    load = record["load_at_start"]
    packages = ", ".join(f"{p} {record['versions'][p]}" for p in ("python", "torch", "chgnet"))
    size = "" if record["size"] == "full" else f" --size {record['size']}"
    return (
        f"`python -m benchmarks.report{size} --only {name}`, {record['date']}, "
        f"{told['processor']}, {told['cores']} cores, {told.get('memory', 'memory unknown')}; "
        f"{packages}; {record['seconds']:.0f} s, load before it "
        f"{'unknown' if load is None else f'{load:.1f}'}."
        + ("" if record["size"] == "full" else " Little input: what is wanted is not judged by it.")
        + f"\n\n{PARTS[name].tables(record['result'])}"
    )


def filled(page: str, sections: Mapping[str, str]) -> str:
    """The page with each section between ``<!-- NAME -->`` and ``<!-- /NAME -->``."""
    for name, text in sections.items():
        marks = re.compile(f"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        page, n = marks.subn(partial(_between, text), page)
        if n != 1:
            raise ValueError(f"{n} places for {name} in the page, expected one")
    return page


def _between(text: str, found: re.Match[str]) -> str:
    return f"{found[1]}\n{text}\n\n{found[2]}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="full", help="(default: %(default)s)")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART")
    parser.add_argument("--out", type=Path, default=RESULTS, help="(default: benchmarks/results)")
    parser.add_argument(
        "--page",
        type=Path,
        help=f"page to fill in (default: {PAGE.name} for the full size)",
    )
    chosen = parser.parse_args(arguments)
    page = chosen.page or (PAGE if chosen.size == "full" else None)
    file = chosen.out / "report.json"
    records = json.loads(file.read_text()) if file.is_file() else {}
    for name in chosen.only:
        print(f"{name} ...", file=sys.stderr, flush=True)
        records[name] = run_part(name, chosen.size)
        print(f"\n## {name}\n\n{section(name, records[name])}\n", flush=True)
        chosen.out.mkdir(parents=True, exist_ok=True)  # kept after each part: the next may fail
        file.write_text(json.dumps(records, indent=1) + "\n")
    if page is not None:
        sections = {name: section(name, records[name]) for name in chosen.only}
        page.write_text(filled(page.read_text(encoding="utf-8"), sections), encoding="utf-8")


if __name__ == "__main__":
    main()
