"""As many rows as fold 0 tests, none like another, from columns to energies on a GPU.

    python -m benchmarks.gpu                                  26,551 rows; chgnet on the first 2,000
    python -m benchmarks.gpu --device cpu --rows 200 --their-rows 50

Rows are drawn with repetition and every atom of every row is moved at random, so that there is no
symmetry and no row that was computed before. chgnet's own path runs on the same GPU and the first
rows of the same input, in its default batches of 16 and in batches of 256. Where torch finds no GPU
the benchmark says so and measures nothing.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contestants import CONTESTANTS, why_not
from benchmarks.inputs import FOLD_0_ROWS, fold_0_sized
from benchmarks.race import agreement
from benchmarks.scaling import warm_up
from benchmarks.worker import Worker

OURS, THEIRS = ("ours-e", "ours-efs"), ("chgnet-e", "chgnet-e-256", "chgnet-efsm")


def measure(
    *, n_rows: int = FOLD_0_ROWS, n_their_rows: int = 2000, device: str = "cuda"
) -> dict[str, Any]:
    """Plain data, or only ``skipped`` with the reason."""
    if (reason := _why_not(device)) is not None:
        return {"skipped": reason}
    crystals, source = fold_0_sized(n_rows)
    few = crystals[: min(n_their_rows, n_rows)]
    runs: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        crystals.save(path / "all.npz")
        few.save(path / "few.npz")
        starts = {}
        for name in OURS + THEIRS:
            with Worker(name, device=device) as worker:
                starts[name] = worker.start.until_ready_s
                warm_up(worker, crystals[:5], path)
                runs[name] = {"few": worker.run(path / "few.npz")}
                if name in OURS:
                    runs[name]["all"] = worker.run(path / "all.npz", keep=False)
    rates: dict[str, dict[str, dict[str, float]]] = {}
    for name, by_input in runs.items():
        for what, run in by_input.items():
            rows = crystals if what == "all" else few
            rates.setdefault(name, {})[what] = {
                "rows": len(rows),
                "seconds": run.seconds,
                "cpu_seconds": run.cpu_seconds,
                "structures_per_s": len(rows) / run.seconds,
                "atoms_per_s": len(rows.numbers) / run.seconds,
                "peak_mb": run.peak_mb,
                "gpu_peak_mb": run.gpu_peak_mb,
            }
    return {
        "source": source,
        "device": device,
        "device_name": _name(device),
        "until_ready_s": starts,
        "rates": rates,
        "agreement": {
            name: agreement([runs["chgnet-efsm"]["few"]], [runs[name]["few"]])
            for name in (*OURS, "chgnet-e")
        },
    }


def _why_not(device: str) -> str | None:
    for name in OURS + THEIRS:
        if reason := why_not(name):
            return reason
    import torch

    if device.startswith("cuda") and not torch.cuda.is_available():
        return f"torch {torch.__version__} finds no GPU here"
    return None


def _name(device: str) -> str:
    import torch

    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    from harness.report.environment import machine

    return machine()["processor"]


def tables(result: Mapping[str, Any]) -> str:
    if "skipped" in result:
        return f"Not run: {result['skipped']}."
    lines = [
        f"{result['source']}, {result['device_name']}.",
        "",
        "| | rows | seconds | structures/s | atoms/s | memory, MB | GPU memory, MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, by_input in result["rates"].items():
        for one in by_input.values():
            lines.append(
                f"| {CONTESTANTS[name].label} | {one['rows']:,} | {one['seconds']:.1f} | "
                f"{one['structures_per_s']:.4g} | {one['atoms_per_s']:.4g} | "
                f"{one['peak_mb']:.0f} | {one['gpu_peak_mb']:.0f} |"
            )
    rates = result["rates"]
    lines += ["", "| ours | beside | times as fast, same rows | all rows |", "|---|---|---|---|"]
    for ours, theirs in (
        ("ours-e", "chgnet-e"),
        ("ours-e", "chgnet-e-256"),
        ("ours-e", "chgnet-efsm"),
        ("ours-efs", "chgnet-efsm"),
    ):
        beside = rates[theirs]["few"]["structures_per_s"]
        few, every = (rates[ours][what]["structures_per_s"] / beside for what in ("few", "all"))
        lines.append(
            f"| {CONTESTANTS[ours].label} | {CONTESTANTS[theirs].label} | {few:.1f} | {every:.1f} |"
        )
    largest = result["agreement"]["ours-efs"]
    said = [
        f"{value:.1e} {what.removeprefix('largest_').replace('_', ' ')}"
        for what, value in largest.items()
        if what != "rows" and np.isfinite(value)
    ]
    lines += ["", f"Largest differences from chgnet's default: {', '.join(said)}."]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=FOLD_0_ROWS, help="(default: %(default)s)")
    parser.add_argument("--their-rows", type=int, default=2000, help="(default: %(default)s)")
    parser.add_argument("--device", default="cuda", help="(default: %(default)s)")
    chosen = parser.parse_args(arguments)
    print(tables(measure(n_rows=chosen.rows, n_their_rows=chosen.their_rows, device=chosen.device)))


if __name__ == "__main__":
    main()
