"""The rest of a session: reading, opening, composition baseline, bootstrap, collecting checks.

python -m benchmarks.session
python -m benchmarks.session --file-rows 2000 --their-rows 100 --mlp-rows 500 --repeats 1
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contestants import CONTESTANTS, EPOCHS, split
from benchmarks.inputs import OFFICIAL_ROWS, largest_set, write_official_layout
from benchmarks.race import n_cores, verdict
from benchmarks.worker import ROOT, Run, Worker

TARGETS = {"parse": 20.0, "open_s": 2.0, "mlp": 2.0, "collect_s": 3.0}


def measure(
    *,
    file_rows: int = OFFICIAL_ROWS,
    their_rows: int = 6000,
    mlp_rows: int = 25_000,
    repeats: int = 3,
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        return {
            "threads": n_cores(),
            "parse": _parse(Path(folder), file_rows, their_rows, repeats),
            "mlp": _mlp(Path(folder), mlp_rows, min(repeats, 2)),
            "bootstrap": _bootstrap(repeats),
            "collect": _collect(repeats),
        }


def _parse(folder: Path, n_rows: int, n_their_rows: int, repeats: int) -> dict[str, Any]:
    """Both read the small file in turn, then one as long as the official, theirs once."""
    small, large = folder / "small.json.gz", folder / "matbench_mp_e_form.json.gz"
    small_mb, large_mb = (
        write_official_layout(path, n) for path, n in ((small, n_their_rows), (large, n_rows))
    )
    names = ("ours-parse", "matbench-parse")
    runs: dict[str, list[Run]] = {name: [] for name in names}
    with Worker(names[0]) as ours, Worker(names[1]) as theirs:
        for _ in range(repeats):
            for name, worker in zip(names, (ours, theirs), strict=True):
                runs[name].append(worker.run(small))
        full = [ours.run(large) for _ in range(repeats)]
        their_full = theirs.run(large)
    a, b = (runs[name][0].arrays for name in names)
    times = {name: [run.seconds for run in runs[name]] for name in names}
    ratios = np.array(times["matbench-parse"]) / np.array(times["ours-parse"])

    cache = {"HARNESS_CACHE": str(folder / "cache")}
    opened = []
    with Worker("ours-open", environment=cache) as worker:
        converted = worker.run(large)
    for _ in range(repeats):  # each in a fresh process
        with Worker("ours-open", environment=cache) as worker:
            opened.append((worker.run(large).seconds, worker.start.until_ready_s))
    return {
        "small": {"rows": n_their_rows, "text_mb": small_mb, "seconds": times},
        "ratio": float(np.median(ratios)),
        "lowest": float(ratios.min()),
        "highest": float(ratios.max()),
        "full": {
            "rows": n_rows,
            "text_mb": large_mb,
            "file_mb": large.stat().st_size / 1e6,
            "seconds": [run.seconds for run in full],
            "peak_mb": max(run.peak_mb for run in full),
            "their_seconds": their_full.seconds,
            "their_peak_mb": their_full.peak_mb,
        },
        "full_ratio": their_full.seconds / float(np.median([run.seconds for run in full])),
        "differences": {
            "target": float(np.abs(a["target"] - b["target"]).max()),
            "n_atoms": int(np.abs(a["n_atoms"] - b["n_atoms"]).max()),
            "volume": float(np.abs(a["volume"] / b["volume"] - 1).max()),
        },
        "open": {
            "first_s": converted.seconds,
            "seconds": [seconds for seconds, _ in opened],
            "until_ready_s": [ready for _, ready in opened],
            "peak_mb": converted.peak_mb,
            "n_test": int(converted.arrays["n_test"]),
        },
    }


def _mlp(folder: Path, n_rows: int, repeats: int) -> dict[str, Any]:
    dataset = largest_set()
    rows = np.random.default_rng(0).permutation(len(dataset))[:n_rows]
    crystals, target = dataset.require_crystals()[rows], dataset.target_ev_per_atom[rows]
    crystals.save(folder / "mlp.npz")
    np.save(folder / "mlp.npy", target)
    runs: dict[str, list[Run]] = {"ours-mlp": [], "plain-mlp": []}
    for _ in range(repeats):
        for name, found in runs.items():
            with Worker(name) as worker:
                found.append(worker.run(folder / "mlp.npz"))
    ours, plain = ([run.seconds for run in found] for found in runs.values())
    ratios = np.array(plain) / np.array(ours)
    _, test = split(len(rows))
    predicted = [found[0].arrays["predicted"] for found in runs.values()]
    return {
        "rows": len(rows),
        "epochs": EPOCHS,
        "seconds": {"ours-mlp": ours, "plain-mlp": plain},
        "cpu_seconds": {name: [run.cpu_seconds for run in found] for name, found in runs.items()},
        "featurise_s": {
            name: [float(run.arrays["featurise_s"]) for run in found]
            for name, found in runs.items()
        },
        "ratio": float(np.median(ratios)),
        "lowest": float(ratios.min()),
        "highest": float(ratios.max()),
        "mae_ev_per_atom": [float(np.abs(p - target[test]).mean()) for p in predicted],
        "largest_difference_ev_per_atom": float(np.abs(predicted[0] - predicted[1]).max()),
    }


def _bootstrap(repeats: int, n_rows: int = 5000, n_resamples: int = 2000) -> dict[str, Any]:
    """The mean of n rows, every row for itself, as scipy resamples."""
    from scipy import stats

    from harness import statistics

    values = np.abs(np.random.default_rng(0).standard_normal(n_rows))
    rows = np.arange(n_rows)
    seconds: dict[str, list[float]] = {"first": [], "again": [], "scipy": []}
    statistics.bootstrap(values[:10], rows[:10])  # what is imported on first use
    for _ in range(repeats):
        statistics._resample_counts.cache_clear()
        for name in ("first", "again"):  # the draw is kept for the next question about these rows
            clock = time.perf_counter()
            ours = statistics.bootstrap(values, rows, n_resamples=n_resamples)
            seconds[name].append(time.perf_counter() - clock)
        clock = time.perf_counter()
        theirs = stats.bootstrap(
            (values,),
            np.mean,
            n_resamples=n_resamples,
            batch=100,
            vectorized=True,
            method="percentile",
            rng=np.random.default_rng(0),
        ).confidence_interval
        seconds["scipy"].append(time.perf_counter() - clock)
    return {
        "rows": n_rows,
        "resamples": n_resamples,
        "seconds": seconds,
        "ours": [ours.low, ours.high],
        "scipy": [float(theirs.low), float(theirs.high)],
    }


def _collect(repeats: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "pytest", "checks", "--collect-only", "-q"]
    command += ["-p", "no:cacheprovider", "--dataset", "embedded"]
    seconds, n_collected = [], 0
    for _ in range(repeats):
        clock = time.perf_counter()
        done = subprocess.run(  # noqa: S603  (this project's own checks)
            command, cwd=ROOT, capture_output=True, text=True, check=True
        )
        seconds.append(time.perf_counter() - clock)
        n_collected = sum("::" in line for line in done.stdout.splitlines())
    return {"seconds": seconds, "n_checks": n_collected}


# --- tables ---------------------------------------------------------------------------------------


def tables(result: Mapping[str, Any]) -> str:
    parse, mlp, strap = result["parse"], result["mlp"], result["bootstrap"]
    small, full, opened = parse["small"], parse["full"], parse["open"]
    per_row = {name: 1e3 * min(t) / small["rows"] for name, t in small["seconds"].items()}
    open_s, collect_s = np.median(opened["seconds"]), np.median(result["collect"]["seconds"])
    trained = {name: np.median(times) for name, times in mlp["seconds"].items()}
    features = {name: min(times) for name, times in mlp["featurise_s"].items()}
    asked = {name: np.median(times) for name, times in strap["seconds"].items()}
    matbench, plain = (CONTESTANTS[name].label for name in ("matbench-parse", "plain-mlp"))
    rows: list[tuple[str, str, str, str, str]] = [
        (
            f"a file of {small['rows']:,} rows in the official layout to columns, ms a row",
            f"{per_row['ours-parse']:.3f}",
            f"{matbench} {per_row['matbench-parse']:.2f}",
            _spread(parse),
            "",
        ),
        (
            f"the same of {full['rows']:,} rows ({full['text_mb']:.0f} MB of text, "
            f"{full['file_mb']:.0f} MB packed; peak {full['peak_mb']:.0f} MB), s",
            f"{np.median(full['seconds']):.1f} [{min(full['seconds']):.1f}, "
            f"{max(full['seconds']):.1f}]",
            f"{matbench} {full['their_seconds']:.0f} (peak {full['their_peak_mb']:,.0f} MB)",
            f"{parse['full_ratio']:.0f}",
            _times_as_fast(parse["full_ratio"], TARGETS["parse"]),
        ),
        (
            f"fold 0 of it opened by a fresh process, {opened['n_test']:,} test crystals, s "
            f"(converted the first time: {opened['first_s']:.1f})",
            f"{open_s:.2f} [{min(opened['seconds']):.2f}, {max(opened['seconds']):.2f}]",
            "",
            "",
            _below(open_s, TARGETS["open_s"]),
        ),
        (
            f"composition baseline featurised and trained, {mlp['rows']:,} rows, "
            f"{mlp['epochs']} epochs, s",
            f"{trained['ours-mlp']:.2f}",
            f"{plain} {trained['plain-mlp']:.2f}",
            _spread(mlp),
            _times_as_fast(mlp["ratio"], TARGETS["mlp"]),
        ),
        (
            "of which featurised, s",
            f"{features['ours-mlp']:.3f}",
            f"{features['plain-mlp']:.2f}",
            f"{features['plain-mlp'] / features['ours-mlp']:.0f}",
            "",
        ),
        *(
            (
                f"interval of a mean, {strap['rows']:,} rows, {strap['resamples']:,} resamples, "
                f"{what}, s",
                f"{asked[key]:.3f}",
                f"scipy.stats.bootstrap {asked['scipy']:.3f}",
                f"{asked['scipy'] / asked[key]:.1f}",
                "",
            )
            for key, what in (("first", "first question"), ("again", "next of the same rows"))
        ),
        (
            f"`pytest checks/ --collect-only`, {result['collect']['n_checks']} checks, s",
            f"{collect_s:.2f}",
            "",
            "",
            _below(collect_s, TARGETS["collect_s"]),
        ),
    ]
    differences, (our_mae, their_mae) = parse["differences"], mlp["mae_ev_per_atom"]
    said = (
        f"Same results: targets of the file differ by {differences['target']:.0e} eV/atom, atoms "
        f"by {differences['n_atoms']}, volumes by {differences['volume']:.0e} relative; the two "
        f"trainings end at MAEs of {our_mae:.4f} and {their_mae:.4f} eV/atom (largest difference "
        f"of a row {mlp['largest_difference_ev_per_atom']:.1e}); the intervals are "
        f"[{strap['ours'][0]:.4f}, {strap['ours'][1]:.4f}] and [{strap['scipy'][0]:.4f}, "
        f"{strap['scipy'][1]:.4f}]."
    )
    return "\n".join(
        [
            f"{result['threads']} core(s).",
            "",
            "| what | ours | beside | times as fast | wanted |",
            "|---|---|---|---|---|",
            *(f"| {' | '.join(row)} |" for row in rows),
            "",
            said,
        ]
    )


def _spread(ratio: Mapping[str, float]) -> str:
    return f"{ratio['ratio']:.1f} [{ratio['lowest']:.1f}, {ratio['highest']:.1f}]"


def _times_as_fast(ratio: float, wanted: float) -> str:
    return f"{wanted:g}, {verdict(ratio >= wanted)}"


def _below(seconds: float, wanted: float) -> str:
    return f"below {wanted:g}, {verdict(seconds < wanted)}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--file-rows", type=int, default=OFFICIAL_ROWS)
    parser.add_argument("--their-rows", type=int, default=6000)
    parser.add_argument("--mlp-rows", type=int, default=25_000)
    parser.add_argument("--repeats", type=int, default=3)
    print(tables(measure(**vars(parser.parse_args(arguments)))))


if __name__ == "__main__":
    main()
