"""How the cost grows: with rows, with the atoms of a cell, and how it falls with cores.

    python -m benchmarks.scaling
    python -m benchmarks.scaling --rows 100 300 --atoms 1 8 64 --core-rows 100

Lines are least-squares fits of seconds over rows (or atoms a cell). Each point is weighted by the
inverse of its time, so that a small input counts as much as a large one, and ``exponent`` is the
slope of the logarithms: 1 where the cost is linear.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.inputs import KINDS, cells_of, rattled, real_rows
from benchmarks.race import n_cores
from benchmarks.worker import Worker
from harness.data import Crystals

ROWS = (100, 300, 1000, 3000, 10_000, 20_000)
ATOMS = (1, 2, 4, 8, 16, 32, 64, 125, 216, 400)
ATOMS_A_POINT = 800  # a point of the second series is as many cells as have so many atoms
THEIR_ROWS = (100, 200, 400)  # chgnet beside the first series: for its memory, above all


def measure(
    *,
    rows: Sequence[int] = ROWS,
    their_rows: Sequence[int] = THEIR_ROWS,
    atoms: Sequence[int] = ATOMS,
    atoms_a_point: int = ATOMS_A_POINT,
    core_rows: int = 1000,
    device: str = "cpu",
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        return {
            "threads": n_cores(),
            "device": device,
            **_over_rows(Path(folder), rows, their_rows, device),
            "atoms": _over_atoms(Path(folder), atoms, atoms_a_point, device),
            "cores": _over_cores(Path(folder), core_rows) if device == "cpu" else [],
        }


def _over_rows(
    folder: Path, ours: Sequence[int], theirs: Sequence[int], device: str
) -> dict[str, Any]:
    """The first so many rows of one order, so that a set holds the smaller ones."""
    crystals, source = real_rows(max(ours))
    series = {}
    for name, sizes in (("ours-e", ours), ("chgnet-e", theirs)):
        with Worker(name, device=device) as worker:
            warm_up(worker, crystals[:5], folder)
            points: list[dict[str, Any]] = []
            for n in sizes:
                path = folder / "rows.npz"
                crystals[:n].save(path)
                run = worker.run(path, keep=False)
                points.append(
                    {
                        "rows": n,
                        "atoms": len(crystals[:n].numbers),
                        "seconds": run.seconds,
                        "cpu_seconds": run.cpu_seconds,
                        "peak_mb": run.peak_mb,
                        "columns_mb": path.stat().st_size / 1e6,
                    }
                )
            series[name] = {
                "ready_mb": worker.start.memory_mb,
                "points": points,
                "fit": line([p["rows"] for p in points], [p["seconds"] for p in points]),
            }
    return {"source": source, "rows": series}


def _over_atoms(folder: Path, sizes: Sequence[int], budget: int, device: str) -> dict[str, Any]:
    """Supercells of four one-atom cells, as they are and with every atom moved, on one core: the
    same crystals in every size, and no core that waits for another."""
    series: dict[str, Any] = {}
    for name, label, is_rattled in (
        ("ours-e", "energies, atoms moved", True),
        ("ours-e", "energies, perfect cells", False),
        ("ours-efs", "energies, forces, stress, atoms moved", True),
    ):
        with Worker(name, device=device, threads=1) as worker:
            points: list[dict[str, Any]] = []
            for n_atoms in sizes:
                n_cells = KINDS * max(1, budget // (n_atoms * KINDS))
                cells = cells_of(n_atoms, n_cells)
                cells = rattled(cells) if is_rattled else cells
                if not points:
                    warm_up(worker, cells[:5], folder)
                path = folder / "cells.npz"
                cells.save(path)
                seconds = min(worker.run(path, keep=False).seconds for _ in range(2))
                points.append({"atoms": n_atoms, "cells": n_cells, "seconds": seconds / n_cells})
            series[label] = {"points": points}
            if is_rattled:  # of a perfect cell one atom is computed however many there are
                series[label]["fit"] = line(
                    [p["atoms"] for p in points], [p["seconds"] for p in points]
                )
    return series


def _over_cores(folder: Path, n_rows: int) -> list[dict[str, float]]:
    crystals, _ = real_rows(n_rows)
    path = folder / "cores.npz"
    crystals.save(path)
    most = n_cores()
    seconds: dict[int, list[float]] = {}
    counts = sorted({most, *(2**k for k in range(most.bit_length()) if 2**k <= most)})
    with ExitStack() as stack:
        workers = {n: stack.enter_context(Worker("ours-e", threads=n)) for n in counts}
        for turn in range(4):  # in turn, so that noise falls on all; the first warms up
            for n, worker in workers.items():
                taken = worker.run(path, keep=False).seconds
                if turn:
                    seconds.setdefault(n, []).append(taken)
    return [{"cores": n, "seconds": min(taken)} for n, taken in seconds.items()]


def warm_up(worker: Worker, crystals: Crystals, folder: Path) -> None:
    """The first call sets up thread pools and kernels, which is a matter of the race."""
    path = folder / "warm-up.npz"
    crystals.save(path)
    worker.run(path, keep=False)


def line(x: Sequence[float], y: Sequence[float]) -> dict[str, float]:
    """Seconds = start + slope x, each point's relative error counting alike.

    ``worst`` is the largest relative distance of a point from the line; ``exponent`` the slope of
    log y over log x in the upper half of the points, where what a call costs anyway is small.
    """
    xs, ys = np.asarray(x, np.float64), np.asarray(y, np.float64)
    design = np.stack([np.ones_like(xs), xs], axis=1) / ys[:, None]
    (start, slope), *_ = np.linalg.lstsq(design, np.ones_like(ys), rcond=None)
    upper = slice(len(xs) // 2 if len(xs) > 3 else 0, None)
    exponent = np.polyfit(np.log(xs[upper]), np.log(ys[upper]), 1)[0] if len(xs) > 1 else np.nan
    return {
        "start_s": float(start),
        "slope_s": float(slope),
        "worst": float(np.abs((start + slope * xs) / ys - 1).max()),
        "exponent": float(exponent),
    }


# --- tables ---------------------------------------------------------------------------------------


def tables(result: Mapping[str, Any]) -> str:
    lines = [
        f"Rows of {result['source']}, energies, {result['threads']} core(s), {result['device']}.",
        "",
        "| | rows | atoms | seconds | ms a row | peak above ready, MB | columns, MB |",
        "|---|---|---|---|---|---|---|",
    ]
    names = {"ours-e": "ours", "chgnet-e": 'chgnet, task="e"'}
    for name, series in result["rows"].items():
        for p in series["points"]:
            lines.append(
                f"| {names[name]} | {p['rows']:,} | {p['atoms']:,} | {p['seconds']:.2f} | "
                f"{1e3 * p['seconds'] / p['rows']:.2f} | {p['peak_mb'] - series['ready_mb']:.0f} | "
                f"{p['columns_mb']:.1f} |"
            )
    for name, series in result["rows"].items():
        lines += ["", f"{names[name]}: {_said(series['fit'], 'row')}."]
    labels = list(result["atoms"])
    lines += [
        "",
        f"| atoms a cell | {' | '.join(f'{label}, ms a cell' for label in labels)} |",
        f"|{'---|' * (len(labels) + 1)}",
    ]
    for i, p in enumerate(result["atoms"][labels[0]]["points"]):
        cells = [f"{1e3 * result['atoms'][at]['points'][i]['seconds']:.3g}" for at in labels]
        lines.append(f"| {p['atoms']} | {' | '.join(cells)} |")
    for label in labels:
        if "fit" in result["atoms"][label]:
            lines += ["", f"{label}: {_said(result['atoms'][label]['fit'], 'atom')}."]
    if cores := result["cores"]:
        lines += ["", "| cores | seconds, least of 3 | times as fast as on one |", "|---|---|---|"]
        lines += [
            f"| {p['cores']} | {p['seconds']:.2f} | {cores[0]['seconds'] / p['seconds']:.2f} |"
            for p in cores
        ]
    return "\n".join(lines)


def _said(fit: Mapping[str, float], what: str) -> str:
    return (
        f"{1e3 * fit['start_s']:.3g} ms + {1e3 * fit['slope_s']:.3g} ms a{'n' * (what == 'atom')} "
        f"{what}, no point further from it than {100 * fit['worst']:.0f} %; exponent "
        f"{fit['exponent']:.2f}"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS)
    parser.add_argument("--their-rows", type=int, nargs="+", default=THEIR_ROWS)
    parser.add_argument("--atoms", type=int, nargs="+", default=ATOMS)
    parser.add_argument("--atoms-a-point", type=int, default=ATOMS_A_POINT)
    parser.add_argument("--core-rows", type=int, default=1000)
    parser.add_argument("--device", default="cpu")
    print(tables(measure(**vars(parser.parse_args(arguments)))))


if __name__ == "__main__":
    main()
