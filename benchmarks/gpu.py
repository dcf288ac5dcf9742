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
import contextlib
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contestants import CONTESTANTS, why_not
from benchmarks.inputs import FOLD_0_ROWS, fold_0_sized
from benchmarks.race import agreement
from benchmarks.scaling import warm_up
from benchmarks.worker import Worker
from harness.data import Crystals

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
        "profile": profile(few, device),
        "until_ready_s": starts,
        "rates": rates,
        "agreement": {
            name: agreement([runs["chgnet-efsm"]["few"]], [runs[name]["few"]])
            for name in (*OURS, "chgnet-e")
        },
    }


def profile(crystals: Crystals, device: str) -> dict[str, Any]:
    """What energies and forces of the rows take stage by stage, and which operations take it.

    Stages are waited for one by one, so their sum is what nothing overlapping would take; beside it
    stands the time of one call, and the sum over its operations of the time each had the GPU (two
    streams can have it at once). On a processor all is on one thread.
    """
    import torch

    from harness.models.threads import one_thread

    with contextlib.nullcontext() if torch.device(device).type == "cuda" else one_thread():
        return _profile(crystals, device)


def _profile(crystals: Crystals, device: str) -> dict[str, Any]:
    import torch
    from torch.profiler import ProfilerActivity

    from harness.models import load_model

    model: Any = load_model("chgnet-0.3.0", device)
    is_gpu = model.device.type == "cuda"
    activity = ProfilerActivity.CUDA if is_gpu else ProfilerActivity.CPU
    found: dict[str, Any] = {"n_rows": len(crystals), "why_not_fused": model.why_not_fused}
    for label, properties in (("energies", ("energy",)), ("forces", ("energy", "forces"))):
        model.predict(crystals, properties)  # warms up
        clock = time.perf_counter()
        model.predict(crystals, properties)
        seconds = time.perf_counter() - clock
        with torch.profiler.profile(activities=[activity]) as recorded:
            model.predict(crystals, properties)
        spent = {
            event.key: (event.self_device_time_total if is_gpu else event.self_cpu_time_total) / 1e6
            for event in recorded.key_averages()
        }
        busiest = sorted(spent, key=lambda key: -spent[key])[:8]
        found[label] = {
            "seconds": seconds,
            "busy_seconds": sum(spent.values()),
            "operations": [(key, spent[key]) for key in busiest],
            "stages": _stages(model, crystals, with_gradient=label == "forces"),
        }
    return found


def _stages(model: Any, crystals: Crystals, *, with_gradient: bool) -> dict[str, float]:
    import torch

    from harness.models.chgnet.device_graph import all_messages_on, build_graph_on
    from harness.models.chgnet.forward import TensorGraph, Weights, forward, geometry, site_energies
    from harness.models.packing import packed

    spent: dict[str, float] = defaultdict(float)

    @contextlib.contextmanager
    def timed(stage: str) -> Iterator[None]:
        clock = time.perf_counter()
        yield
        if model.device.type == "cuda":
            torch.cuda.synchronize(model.device)
        spent[stage] += time.perf_counter() - clock

    problems = model.predict(crystals).problems
    rows = np.setdiff1d(np.arange(len(crystals)), list(problems))
    work = model._work(crystals)
    rows = rows[np.argsort(-work[rows], kind="stable")]
    unfused = Weights.of(model._network, model.device)
    budget = model._gradient_budget if with_gradient else model._budget
    for task in packed(rows, work[rows], budget):
        with timed("graph: columns sent, bonds, angles"):
            graph = build_graph_on(crystals[task], model.device, **model._cutoffs)
        with timed("graph: messages, lengths, phases"):
            messages = all_messages_on(graph)
        with timed("indices"):
            g = TensorGraph(messages, model.device)
        for stage, weights in (("network", model._weights), ("network, not fused", unfused)):
            with timed(stage), torch.set_grad_enabled(with_gradient):
                lengths, phases = g.lengths, g.phases
                if with_gradient:
                    vectors = graph.vectors.detach().requires_grad_()
                    lengths, phases = geometry(graph, vectors)
                energies = site_energies(weights, forward(g, weights, lengths, phases)[0])
                if with_gradient:
                    torch.autograd.grad(energies.sum(), vectors)
        with timed("results fetched"):
            energies.detach().cpu()
    return dict(spent)


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
    lines += _profile_tables(result["profile"])
    largest = result["agreement"]["ours-efs"]
    said = [
        f"{value:.1e} {what.removeprefix('largest_').replace('_', ' ')}"
        for what, value in largest.items()
        if what != "rows" and np.isfinite(value)
    ]
    lines += ["", f"Largest differences from chgnet's default: {', '.join(said)}."]
    return "\n".join(lines)


def _profile_tables(found: Mapping[str, Any]) -> list[str]:
    n = found["n_rows"]
    why_not = found["why_not_fused"]
    lines = ["", f"Fused kernels: {'used' if why_not is None else f'not used; {why_not}'}."]
    lines += ["", f"| stage, {n:,} rows, waited for | energies, ms a row | forces, ms a row |"]
    lines += ["|---|---|---|"]
    both = [found[label] for label in ("energies", "forces")]
    for stage in both[0]["stages"]:
        cells = [f"{1e3 * one['stages'][stage] / n:.4f}" for one in both]
        lines.append(f"| {stage} | {' | '.join(cells)} |")
    for label, key in (("one call", "seconds"), ("its operations, summed", "busy_seconds")):
        lines.append(f"| {label} | {' | '.join(f'{1e3 * one[key] / n:.4f}' for one in both)} |")
    for label, one in zip(("energies", "forces"), both, strict=True):
        lines += ["", f"| busiest operations, {label} | share of busy time |", "|---|---|"]
        lines += [
            f"| `{name[:60]}` | {100 * seconds / one['busy_seconds']:.0f} % |"
            for name, seconds in one["operations"]
        ]
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=FOLD_0_ROWS, help="(default: %(default)s)")
    parser.add_argument("--their-rows", type=int, default=2000, help="(default: %(default)s)")
    parser.add_argument("--device", default="cuda", help="(default: %(default)s)")
    chosen = parser.parse_args(arguments)
    print(tables(measure(n_rows=chosen.rows, n_their_rows=chosen.their_rows, device=chosen.device)))


if __name__ == "__main__":
    main()
