"""Potentials side by side: the same rows, each in a process of its own, in turn.

    python -m benchmarks.race                 1,000 real rows in 5 blocks, all that is installed
    python -m benchmarks.race --rows 100 --blocks 2 --threads 1 --rattled

The rows are cut into blocks, and the contestants take turns block by block, so that whatever else
the machine does falls on all of them. Every process starts cold and computes nothing before its
first block. Ratios are of the time for all blocks two contestants share; beside them stand the
least and the greatest ratio of a block.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contestants import CONTESTANTS, why_not
from benchmarks.inputs import RATTLE_ANG, rattled, real_rows
from benchmarks.worker import Run, Worker
from harness.data import Crystals

YARDSTICK = "chgnet-float64"  # chgnet's own float32 is at times further from it than a tolerance
POTENTIALS = (
    "ours-e", "ours-efs", "chgnet-e", "chgnet-efsm", "chgnet-ase", "sevennet-ase", YARDSTICK,
)  # fmt: skip
TARGETS = (  # ours, theirs, how many times as fast ours has to be on 1,000 real rows
    ("ours-e", "chgnet-efsm", 15.0),
    ("ours-e", "chgnet-e", 5.0),
    ("ours-e", "chgnet-ase", 20.0),
    ("ours-efs", "chgnet-efsm", 3.0),
)
OTHER_POTENTIALS = ("sevennet-ase",)  # another network: its rate is of interest, not its numbers
ONE_BLOCK = (*OTHER_POTENTIALS, YARDSTICK)  # which is enough of them


def race(
    crystals: Crystals,
    names: Sequence[str] = POTENTIALS,
    *,
    n_blocks: int = 5,
    device: str = "cpu",
    threads: int | None = None,
    has_targets: bool = True,
) -> dict[str, Any]:
    """Times, memory and agreement of all that are installed, as plain data."""
    limits = dict.fromkeys(ONE_BLOCK, 1)
    absent = {name: reason for name in names if (reason := why_not(name)) is not None}
    present = [name for name in names if name not in absent]
    blocks = [crystals[rows] for rows in np.array_split(np.arange(len(crystals)), n_blocks)]
    runs: dict[str, list[Run]] = {name: [] for name in present}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        workers = {
            name: stack.enter_context(Worker(name, device=device, threads=threads))
            for name in present
        }
        for i, block in enumerate(blocks):
            path = folder / f"{i}.npz"
            block.save(path)
            for name in present[i % len(present) :] + present[: i % len(present)]:
                if i < limits.get(name, n_blocks):
                    runs[name].append(workers[name].run(path))
        starts = {name: worker.start for name, worker in workers.items()}

    sizes = [(len(block), len(block.numbers)) for block in blocks]
    found: dict[str, Any] = {
        "n_rows": len(crystals),
        "n_atoms": len(crystals.numbers),
        "n_blocks": n_blocks,
        "device": device,
        "threads": threads or n_cores(),
        "absent": absent,
        "contestants": {},
        "ratios": [],
        "agreement": [],
    }
    for name in present:
        mine = sizes[: len(runs[name])]
        seconds = sum(run.seconds for run in runs[name])
        found["contestants"][name] = {
            "label": CONTESTANTS[name].label,
            "n_rows": sum(n for n, _ in mine),
            "block_s": [run.seconds for run in runs[name]],
            "block_cpu_s": [run.cpu_seconds for run in runs[name]],
            "until_ready_s": starts[name].until_ready_s,
            "import_s": starts[name].import_s,
            "load_s": starts[name].load_s,
            "structures_per_s": sum(n for n, _ in mine) / seconds,
            "atoms_per_s": sum(n for _, n in mine) / seconds,
            "memory_ready_mb": starts[name].memory_mb,
            "memory_peak_mb": max(run.peak_mb for run in runs[name]),
        }
    found["ratios"] = [
        _ratio(found["contestants"], ours, theirs, wanted if has_targets else None)
        for ours, theirs, wanted in TARGETS
        if ours in present and theirs in present
    ]
    references = [name for name in ("chgnet-efsm", YARDSTICK) if name in present]
    found["agreement"] = [
        {"beside": reference, "name": name, **agreement(runs[reference], runs[name])}
        for reference in references or [name for name in ("chgnet-e",) if name in present]
        for name in present
        if name not in (reference, YARDSTICK, *OTHER_POTENTIALS)
    ]
    return found


def _ratio(
    times: Mapping[str, Any], ours: str, theirs: str, wanted: float | None
) -> dict[str, Any]:
    n = min(len(times[ours]["block_s"]), len(times[theirs]["block_s"]))
    a, b = (np.array(times[name]["block_s"][:n]) for name in (ours, theirs))
    a_cpu, b_cpu = (np.array(times[name]["block_cpu_s"][:n]) for name in (ours, theirs))
    starts = [times[name]["until_ready_s"] for name in (ours, theirs)]
    return {
        "ours": ours,
        "theirs": theirs,
        "wanted": wanted,
        "ratio": float(b.sum() / a.sum()),
        "lowest_block": float((b / a).min()),
        "highest_block": float((b / a).max()),
        "cpu_ratio": float(b_cpu.sum() / a_cpu.sum()),
        "from_process_start": float((b.sum() + starts[1]) / (a.sum() + starts[0])),
    }


def agreement(reference: Sequence[Run], found: Sequence[Run]) -> dict[str, float]:
    """Largest differences over the blocks both computed, and how many rows were compared."""
    result: dict[str, float] = {}
    n_compared = 0
    for theirs, ours in zip(reference, found, strict=False):
        for key, unit in (("energy", "ev_per_atom"), ("forces", "ev_per_ang"), ("stress", "gpa")):
            if key not in ours.arrays or key not in theirs.arrays:
                continue
            differences = np.abs(ours.arrays[key] - theirs.arrays[key])
            if key == "energy":
                n_compared += int(np.isfinite(differences).sum())
            name = f"largest_{key}_{unit}"
            result[name] = float(np.nanmax(differences, initial=result.get(name, 0.0)))
    return {"rows": n_compared, **result}


def n_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# --- tables ---------------------------------------------------------------------------------------


def tables(result: Mapping[str, Any]) -> str:
    """The result in markdown."""
    lines = [
        f"{result['n_rows']:,} rows of {result['source']}, {result['n_atoms']:,} atoms, "
        f"{result['n_blocks']} blocks in turn, {result['threads']} core(s), {result['device']}.",
        "",
        "| | rows | structures/s | atoms/s | ready after, s | memory when ready, MB | peak, MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in result["contestants"].values():
        lines.append(
            f"| {one['label']} | {one['n_rows']:,} | {one['structures_per_s']:.3g} | "
            f"{one['atoms_per_s']:.4g} | {one['until_ready_s']:.1f} | "
            f"{one['memory_ready_mb']:.0f} | {one['memory_peak_mb']:.0f} |"
        )
    lines += [f"| {CONTESTANTS[name].label} | {why} |" for name, why in result["absent"].items()]
    lines += [
        "",
        "| ours | beside | times as fast [blocks] | by processor time | start included | wanted |",
        "|---|---|---|---|---|---|",
    ]
    for one in result["ratios"]:
        wanted = one["wanted"]
        met = "" if wanted is None else f"{wanted:g}, {verdict(one['ratio'] >= wanted)}"
        lines.append(
            f"| {CONTESTANTS[one['ours']].label} | {CONTESTANTS[one['theirs']].label} | "
            f"{one['ratio']:.1f} [{one['lowest_block']:.1f}, {one['highest_block']:.1f}] | "
            f"{one['cpu_ratio']:.1f} | {one['from_process_start']:.1f} | "
            f"{met} |"
        )
    if result["agreement"]:
        lines += [
            "",
            "| largest difference of | from | rows | energy, eV/atom | "
            "forces, eV/Å | stress, GPa |",
            "|---|---|---|---|---|---|",
        ]
    for one in result["agreement"]:
        cells = [
            f"{one[key]:.1e}" if (key := f"largest_{what}") in one else ""
            for what in ("energy_ev_per_atom", "forces_ev_per_ang", "stress_gpa")
        ]
        labels = " | ".join(CONTESTANTS[one[key]].label for key in ("name", "beside"))
        lines.append(f"| {labels} | {one['rows']:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def verdict(is_met: bool) -> str:
    return "met" if is_met else "not met"


def measure(
    *,
    n_rows: int,
    n_blocks: int,
    device: str = "cpu",
    threads: int | None = None,
    is_rattled: bool = False,
    names: Sequence[str] = POTENTIALS,
) -> dict[str, Any]:
    crystals, source = real_rows(n_rows)
    if is_rattled:
        crystals, source = rattled(crystals), f"{source}, every atom moved by {RATTLE_ANG:g} Å"
    result = race(
        crystals,
        names,
        n_blocks=n_blocks,
        device=device,
        threads=threads,
        has_targets=not is_rattled,  # they are about real rows
    )
    return {"source": source, **result}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1000, help="(default: %(default)s)")
    parser.add_argument("--blocks", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--threads", type=int, help="cores to use (default: all)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    parser.add_argument("--rattled", action="store_true", help="without any symmetry in the rows")
    parser.add_argument("--only", nargs="+", default=POTENTIALS, choices=POTENTIALS, metavar="NAME")
    chosen = parser.parse_args(arguments)
    result = measure(
        n_rows=chosen.rows,
        n_blocks=chosen.blocks,
        device=chosen.device,
        threads=chosen.threads,
        is_rattled=chosen.rattled,
        names=chosen.only,
    )
    print(tables(result))


if __name__ == "__main__":
    main()
