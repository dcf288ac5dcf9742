"""Where the time goes and how near it is to what the machine can do, on one core.

    python -m benchmarks.roofline
    python -m benchmarks.roofline --rows 1000 --counts-only    what does not depend on any clock

Operations are counted from the shapes of every layer, and by torch's FlopCounterMode as a check.
Bytes are those of the arguments and results of every torch operation, a gathered table counted by
the rows taken from it. Ceilings are measured in the same run: matrix products and copies at their
best, each elementwise function on a block that stays in the cache. A class of operations would take
its count over its ceiling if nothing else cost anything.

Times are of the thread's processor time, so that a busy machine disturbs them little.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.inputs import real_rows, write_official_layout
from harness.models.packing import packed

if TYPE_CHECKING:
    from torch import Tensor

    from harness.data import Crystals
    from harness.models.chgnet.forward import Weights
    from harness.models.chgnet.messages import MessageGraph
    from harness.models.chgnet.model import CHGNetModel

CHGNET_ROWS = 100  # counted through chgnet's own network, which takes its time

PRODUCTS = ("mm", "addmm", "addmm_", "bmm")
FUNCTIONS = ("sigmoid", "sigmoid_", "silu", "silu_", "sin_", "sin", "cos")
GATHERS = ("index_select", "_embedding_bag", "_embedding_bag_forward_only")
VIEWS = (
    "alias", "detach", "expand", "lift_fresh", "slice", "split", "squeeze", "t", "unsqueeze",
    "view", "select", "arange", "new_empty", "empty_like",
)  # fmt: skip
CLASSES = {
    "products": "matrix products",
    "functions": "sigmoid, silu, sin, cos",
    "norms": "layer norms",
    "gathers": "gathering and adding up",
    "rest": "other arithmetic and copies",
}


def class_of(operation: str) -> str:
    if operation in PRODUCTS:
        return "products"
    if operation in FUNCTIONS or operation.endswith("sigmoid_backward"):
        return "functions"
    if operation == "silu_backward":
        return "functions"
    if "layer_norm" in operation:
        return "norms"
    return "gathers" if operation in GATHERS else "rest"


# --- counting from shapes -------------------------------------------------------------------------


def multiply_adds(g: MessageGraph, w: Weights) -> dict[str, int]:
    """Multiply-adds of every matrix product of forward() and site_energies()."""
    n, bonds, short = len(g.numbers), g.n_bonds, g.n_short
    edges, angles = len(g.edge_centre), len(g.angle_first)
    radial, width = w.bond.shape
    n_atom_convs = len(w.atom_convs)
    n_bond_convs = len(w.bond_convs) if angles else 0
    n_angle_updates = len(w.angle_updates) if angles else 0
    pair = 2 * width  # core and gate side by side
    square = width * width
    return {
        "edges: second layers": n_atom_convs * edges * 2 * square,
        "angles: first layers": (n_bond_convs + n_angle_updates) * angles * width * pair,
        "angles: second layers": n_bond_convs * angles * 2 * square,
        "angles: basis": angles * w.angle.shape[0] * width,
        "bonds": (
            bonds * radial * width  # edge_weight
            + 2 * short * radial * width  # bond, bond_weight
            + n_atom_convs * (bonds - short) * radial * pair
            + n_atom_convs * short * width * pair
            + (n_bond_convs + n_angle_updates) * 2 * short * width * pair
            + n_bond_convs * short * square
        ),
        "atoms": (
            n_atom_convs * (n * width * 2 * pair + n * square)
            + (n_bond_convs + n_angle_updates) * n * width * pair
            + n * width  # moments
            + n * sum(matrix.numel() for matrix, _ in w.readout)
        ),
    }


def sizes(g: MessageGraph) -> dict[str, int]:
    return {
        "atoms": len(g.numbers),
        "edges": len(g.edge_centre),
        "bonds": g.n_bonds,
        "short bonds": g.n_short,
        "angles": len(g.angle_first),
    }


# --- counting what torch runs ---------------------------------------------------------------------


def flops_of(run: Callable[[], object]) -> int:
    """By torch's own counter, told about the in-place product it does not know."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    def addmm_(
        bias: Sequence[int], a: Sequence[int], b: Sequence[int], **_: Any
    ) -> int:  # of shapes
        return 2 * a[0] * a[1] * b[1]

    mode = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: addmm_})
    with mode, torch.no_grad():
        run()
    return int(mode.get_total_flops())


def chgnet_flops_of(network: Any, structures: Sequence[Any]) -> int:
    """Of chgnet's own forward pass for energies, for the same structures."""
    from torch.utils.flop_counter import FlopCounterMode

    graphs = [network.graph_converter(structure) for structure in structures]
    with warnings.catch_warnings(), FlopCounterMode(display=False) as mode:
        warnings.simplefilter("ignore")  # its volumes keep a gradient that they lose
        network.predict_graph(graphs, task="e")
    return int(mode.get_total_flops())


@contextlib.contextmanager
def ledger() -> Iterator[dict[str, dict[str, float]]]:
    """Calls, seconds, flops, elements and bytes of every torch operation, by its name."""
    from torch.utils._python_dispatch import TorchDispatchMode

    found: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))

    class Ledger(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            start = time.thread_time()
            result = func(*args, **(kwargs or {}))
            seconds = time.thread_time() - start
            name = func._overloadpacket.__name__
            if name not in VIEWS:
                entry = found[name]
                taken, given = _tensors((args, kwargs or {})), _tensors(result)
                entry["calls"] += 1
                entry["seconds"] += seconds
                entry["elements"] += given[0].numel() if given else 0
                entry["bytes"] += _bytes(name, taken, given)
                if name in PRODUCTS:
                    a, b = [t for t in taken if t.ndim == 2][-2:]
                    entry["flops"] += 2 * a.shape[0] * a.shape[1] * b.shape[1]
            return result

    with Ledger():
        yield found


def _tensors(values: Any) -> list[Tensor]:
    import torch
    from torch.utils._pytree import tree_leaves

    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)]


def _bytes(name: str, taken: Sequence[Tensor], given: Sequence[Tensor]) -> float:
    written = sum(t.numel() * t.element_size() for t in given[:1])
    if name in GATHERS:
        table, indices = taken[0], taken[1:]
        read = sum(t.numel() * t.element_size() for t in indices)
        return written + read + indices[0].numel() * table.shape[1] * table.element_size()
    return written + sum(t.numel() * t.element_size() for t in taken)


# --- ceilings -------------------------------------------------------------------------------------


def ceilings() -> dict[str, float]:
    """What one core of this machine does at its best; GB/s count what is read and written."""
    import torch

    def best(run: Callable[[], object], seconds: float = 0.15) -> float:
        run()
        fastest, spent = np.inf, 0.0
        while spent < seconds:
            start = time.thread_time()
            for _ in range(4):
                run()
            taken = time.thread_time() - start
            fastest, spent = min(fastest, taken / 4), spent + taken
        return fastest

    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    with torch.inference_mode():
        a, b, out = random(1024, 1024), random(1024, 1024), random(1024, 1024)
        h, matrix, bias = random(2048, 128), random(64, 64), random(64)
        half, into = h.split(64, dim=1)[0], random(2048, 64)
        large, larger = torch.ones(32 << 20), torch.ones(32 << 20)  # 128 MiB each
        block, other = random(2048, 128), random(2048, 128)
        found = {
            "product of 1024 x 1024, GFLOP/s": 2 * 1024**3
            / best(lambda: torch.mm(a, b, out=out)) / 1e9,
            "product of 2048 x 64 by 64 x 64, GFLOP/s": 2 * 2048 * 64 * 64
            / best(lambda: torch.addmm(bias, half, matrix, out=into)) / 1e9,
            "copy of 128 MiB, GB/s": 2 * large.nbytes / best(lambda: larger.copy_(large)) / 1e9,
            "copy of 1 MiB, GB/s": 2 * block.nbytes / best(lambda: other.copy_(block)) / 1e9,
        }  # fmt: skip
        for name in ("sigmoid", "silu", "sin", "cos"):
            # into a kept block, so that no memory is asked for
            run = partial(getattr(torch.ops.aten, name).out, block, out=other)
            found[f"{name}, G values/s"] = block.numel() / best(run) / 1e9
    return found


def seconds_at_ceiling(
    operation: str, entry: Mapping[str, float], top: Mapping[str, float]
) -> float:
    kind = class_of(operation)
    if kind == "products":
        return entry["flops"] / top["product of 1024 x 1024, GFLOP/s"] / 1e9
    if kind == "functions":
        name = operation.split("_")[0]
        if operation in FUNCTIONS:
            return entry["elements"] / top[f"{name}, G values/s"] / 1e9
    return entry["bytes"] / top["copy of 1 MiB, GB/s"] / 1e9


# --- measuring ------------------------------------------------------------------------------------


def measure_counts(*, n_rows: int = 1000) -> dict[str, Any]:
    """Operations and sizes of these rows; no time in it."""
    with _on_one_thread(n_rows) as (source, crystals, model, tasks):
        return {"source": source, **_sizes(crystals), **_counts(model, crystals, tasks)}


def measure(*, n_rows: int = 300) -> dict[str, Any]:
    """Ceilings, stages, and operations by class with their time."""
    with _on_one_thread(n_rows) as (source, crystals, model, tasks):
        top = ceilings()
        return {
            "source": source,
            **_sizes(crystals),
            "ceilings": top,
            "stages": _stages(model, crystals, tasks),
            "energies": _operations(model, crystals, tasks, False, top),
            "gradients": _operations(model, crystals, tasks, True, top),
        }


@contextlib.contextmanager
def _on_one_thread(n_rows: int) -> Iterator[tuple[str, Crystals, Any, list[np.ndarray]]]:
    """Real rows, the model, and the tasks it makes of them."""
    from harness.models import load_model
    from harness.models.threads import one_thread, without_denormals

    crystals, source = real_rows(n_rows)
    model: Any = load_model("chgnet-0.3.0", "cpu")
    with one_thread(), without_denormals():
        yield source, crystals, model, _tasks(model, crystals)


def _sizes(crystals: Crystals) -> dict[str, int]:
    return {"n_rows": len(crystals), "n_atoms": len(crystals.numbers)}


def _tasks(model: CHGNetModel, crystals: Crystals) -> list[np.ndarray]:
    """Rows computed together, as the model packs them; rows it cannot score are left out."""
    problems = model.predict(crystals).problems
    work = model._work(crystals)
    order = np.argsort(-work, kind="stable")
    order = order[~np.isin(order, list(problems))]
    return packed(order, work[order], model._budget)


def _graph(model: CHGNetModel, crystals: Crystals, rows: np.ndarray) -> Any:
    from harness.models.chgnet.graph import build_graph

    return build_graph(crystals[rows], **model._cutoffs)


def _counts(model: CHGNetModel, crystals: Crystals, tasks: Sequence[np.ndarray]) -> dict[str, Any]:
    from harness.models.chgnet.forward import TensorGraph
    from harness.models.chgnet.messages import all_messages, distinct_messages

    weights, layers = model._weights, len(model._weights.atom_convs)
    totals: dict[str, dict[str, dict[str, int]]] = {}
    checked = {"from shapes": 0, "by FlopCounterMode": 0}
    for rows in tasks:
        graph = _graph(model, crystals, rows)
        for name, messages in (
            ("every atom", all_messages(graph)),
            ("one of each kind", distinct_messages(graph, n_layers=layers)),
        ):
            parts = totals.setdefault(name, {"sizes": {}, "multiply_adds": {}})
            macs = multiply_adds(messages, weights)
            for key, more in (("sizes", sizes(messages)), ("multiply_adds", macs)):
                for what, count in more.items():
                    parts[key][what] = parts[key].get(what, 0) + count
        # the graph of the last loop, distinct messages: what energies are computed from
        g = TensorGraph(messages, model.device)
        checked["from shapes"] += 2 * sum(macs.values())
        checked["by FlopCounterMode"] += flops_of(partial(_readout_of, weights, g))
    few = np.sort(np.concatenate(tasks))[:CHGNET_ROWS]
    theirs = chgnet_flops_of(model._network, [crystals.structure(int(row)) for row in few])
    ours = {}
    for name, of in (
        ("every atom", all_messages),
        ("one of each kind", lambda graph: distinct_messages(graph, n_layers=layers)),
    ):
        ours[name] = 2 * sum(multiply_adds(of(_graph(model, crystals, few)), weights).values())
    return {
        "by_messages": totals,
        "n_scored": sum(map(len, tasks)),
        "flops_checked": checked,
        "beside_chgnet": {"n_rows": len(few), "chgnet_flops": theirs, "our_flops": ours},
    }


def _readout_of(weights: Weights, g: Any) -> Tensor:
    from harness.models.chgnet.forward import forward, site_energies

    return site_energies(weights, forward(g, weights, g.lengths, g.phases)[0])


def _stages(
    model: CHGNetModel, crystals: Crystals, tasks: Sequence[np.ndarray]
) -> dict[str, float]:
    """Seconds of processor time of each stage for all rows."""
    import torch
    from pymatgen.optimization.neighbors import find_points_in_spheres

    from harness.data import Crystals
    from harness.data.official_layout import parse
    from harness.models.chgnet.forward import TensorGraph, forward, site_energies
    from harness.models.chgnet.messages import distinct_messages

    spent: dict[str, float] = defaultdict(float)

    @contextlib.contextmanager
    def timed(stage: str) -> Iterator[None]:
        start = time.process_time()
        yield
        spent[stage] += time.process_time() - start

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        write_official_layout(path / "rows.json.gz", len(crystals))
        crystals.save(path / "rows.npz")
        for _ in range(2):  # the first time warms up
            spent.clear()
            with timed("read: official file to columns"):
                parse(path / "rows.json.gz")
            with timed("read: columns opened again"):
                Crystals.load(path / "rows.npz")
        weights, layers = model._weights, len(model._weights.atom_convs)
        periodic = np.ones(3, dtype=np.int64)
        for _ in range(2):
            for stage in [key for key in spent if not key.startswith("read")]:
                del spent[stage]
            for rows in tasks:
                with timed("graph, neighbours and angles"):
                    graph = _graph(model, crystals, rows)
                with timed("of which pymatgen's neighbour search"):
                    for one in crystals[rows]:
                        positions = np.ascontiguousarray(one.frac_coords @ one.lattices[0])
                        find_points_in_spheres(
                            positions, positions, r=model._cutoffs["atom_cutoff_ang"],
                            pbc=periodic, lattice=one.lattices[0], tol=1e-8,
                        )  # fmt: skip
                with timed("graph, one atom of each kind"):
                    messages = distinct_messages(graph, n_layers=layers)
                with torch.inference_mode():
                    with timed("forward, indices"):
                        g = TensorGraph(messages, model.device)
                    with timed("forward"):
                        features, _ = forward(g, weights, g.lengths, g.phases)
                    with timed("forward, readout"):
                        site_energies(weights, features)
        with timed("everything, as a user calls it"):
            model.predict(crystals)
        with timed("write: predictions to the store"):
            _store(path / "store").energies(_Instant(model), crystals)
        with timed("write: read back from it"):
            _store(path / "store").energies(_Instant(model), crystals)
    return dict(spent)


def _store(root: Path) -> Any:
    from harness.store import PredictionStore

    return PredictionStore(root)


class _Instant:
    """Asked for energies, says 0 at once: what then takes time is the store."""

    def __init__(self, model: CHGNetModel) -> None:
        self.identity, self.plan, self.elements = model.identity, model.plan, model.elements

    def predict(self, crystals: Crystals, properties: Sequence[str] = ("energy",)) -> Any:
        from harness.models import Prediction

        return Prediction(energy=np.zeros(len(crystals)))

    def energies(self, crystals: Crystals) -> np.ndarray:
        return np.zeros(len(crystals))


def _operations(
    model: CHGNetModel,
    crystals: Crystals,
    tasks: Sequence[np.ndarray],
    with_gradient: bool,
    top: Mapping[str, float],
) -> dict[str, Any]:
    """By class of operation: counts, time, and time at the ceiling, forward (and back) only."""
    import torch

    from harness.models.chgnet.forward import TensorGraph, forward, geometry, site_energies
    from harness.models.chgnet.messages import all_messages, distinct_messages

    weights, layers = model._weights, len(model._weights.atom_convs)

    def compute(graph: Any, g: TensorGraph) -> None:
        if not with_gradient:
            with torch.no_grad():
                _readout_of(weights, g)
            return
        with torch.enable_grad():
            vectors = torch.from_numpy(graph.vectors).requires_grad_()
            features, _ = forward(g, weights, *geometry(graph, vectors))
            torch.autograd.grad(site_energies(weights, features).sum(), vectors)

    seconds, entries = 0.0, None
    if with_gradient:  # which costs six times as much: a quarter of the rows, in its own tasks
        rows = np.concatenate(tasks)
        rows = rows[: len(rows) // 4 * 4].reshape(-1, 4)[:, 0]
        some = packed(rows, model._work(crystals)[rows], model._gradient_budget)
    else:
        some = list(tasks)
    for look in ("warm up", "time", "count"):
        seconds_now = 0.0
        with ledger() if look == "count" else contextlib.nullcontext() as found:
            for rows in some:
                graph = _graph(model, crystals, rows)
                messages = (
                    all_messages(graph)
                    if with_gradient
                    else distinct_messages(graph, n_layers=layers)
                )
                g = TensorGraph(messages, model.device)
                start = time.thread_time()
                compute(graph, g)
                seconds_now += time.thread_time() - start
        if look == "count":
            entries = found
        else:
            seconds = seconds_now
    classes: dict[str, dict[str, float]] = {
        name: dict.fromkeys(("calls", "seconds", "flops", "elements", "bytes", "ceiling_s"), 0.0)
        for name in CLASSES
    }
    for operation, entry in (entries or {}).items():
        totals = classes[class_of(operation)]
        for key in ("calls", "seconds", "flops", "elements", "bytes"):
            totals[key] += entry[key]
        totals["ceiling_s"] += seconds_at_ceiling(operation, entry, top)
    return {
        "n_rows": sum(map(len, some)),
        "n_atoms": int(crystals.n_atoms[np.concatenate(some)].sum()),
        "seconds": seconds,
        "classes": classes,
    }


# --- tables ---------------------------------------------------------------------------------------


def tables_of_counts(result: Mapping[str, Any]) -> str:
    n = result["n_scored"]
    every, kinds = (result["by_messages"][key] for key in ("every atom", "one of each kind"))
    lines = [
        f"{n:,} rows of {result['source']}, {result['n_atoms'] / result['n_rows']:.1f} atoms in "
        "the mean cell. A mean row has:",
        "",
        "| | every atom | one of each kind |",
        "|---|---|---|",
    ]
    for what, count in every["sizes"].items():
        lines.append(f"| {what} | {count / n:,.0f} | {kinds['sizes'][what] / n:,.0f} |")
    products: dict[str, tuple[float, ...]] = {
        what: (count / n / 1e6, kinds["multiply_adds"][what] / n / 1e6)
        for what, count in every["multiply_adds"].items()
    }
    products["all"] = tuple(map(sum, zip(*products.values(), strict=True)))
    for what, (a, b) in products.items():
        lines.append(f"| million multiply-adds, {what} | {a:,.2f} | {b:,.2f} |")
    checked, beside = result["flops_checked"], result["beside_chgnet"]
    theirs, ours = beside["chgnet_flops"], beside["our_flops"]
    said = (
        f"From shapes, {checked['from shapes']:,} floating-point operations of products for one "
        "of each kind, two a multiply-add; torch's FlopCounterMode sees "
        f"{checked['by FlopCounterMode']:,}. For {beside['n_rows']} of the rows chgnet's own "
        f"forward pass takes {theirs / ours['every atom']:.2f} times the operations of ours for "
        f"every atom, and {theirs / ours['one of each kind']:.2f} times those for one of each kind."
    )
    return "\n".join([*lines, "", said])


def tables(result: Mapping[str, Any]) -> str:
    rows, top = result["n_rows"], result["ceilings"]
    atoms = result["n_atoms"] / rows
    lines = [
        f"{rows:,} rows of {result['source']}, {atoms:.1f} atoms in the mean cell.",
        "",
        "| ceiling, one core | |",
        "|---|---|",
        *(f"| {name} | {value:.3g} |" for name, value in top.items()),
        "",
        "| stage, one core | ms a row |",
        "|---|---|",
        *(f"| {name} | {1e3 * spent / rows:.3f} |" for name, spent in result["stages"].items()),
    ]
    for key, label in (
        ("energies", "Energies (one atom of each kind)"),
        ("gradients", "Energies, forces, stress (every atom, forward and back)"),
    ):
        lines += ["", *_class_table(label, result[key], top)]
    return "\n".join(lines)


def _class_table(label: str, one: Mapping[str, Any], top: Mapping[str, float]) -> list[str]:
    n, seconds, classes = one["n_rows"], one["seconds"], one["classes"]
    per = 1e3 / n
    lines = [
        f"{label}, {n} rows of {one['n_atoms'] / n:.1f} atoms:",
        "",
        "| class | ms a row | share | done a row | reached | at the ceiling, ms | of the ceiling |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, entry in classes.items():
        spent = max(entry["seconds"], 1e-12)
        key, unit, scale = {
            "products": ("flops", "MFLOP", "GFLOP/s"),
            "functions": ("elements", "M values", "G values/s"),
        }.get(name, ("bytes", "MB", "GB/s"))
        lines.append(
            f"| {CLASSES[name]} | {per * entry['seconds']:.3f} | "
            f"{100 * entry['seconds'] / seconds:.0f} % | {entry[key] / 1e6 / n:.2f} {unit} | "
            f"{entry[key] / spent / 1e9:.3g} {scale} | {per * entry['ceiling_s']:.3f} | "
            f"{100 * entry['ceiling_s'] / spent:.0f} % |"
        )
    rest = max(seconds - sum(entry["seconds"] for entry in classes.values()), 0.0)
    bound = sum(entry["ceiling_s"] for entry in classes.values())
    flops = sum(entry["flops"] for entry in classes.values())
    moved = sum(entry["bytes"] for entry in classes.values())
    at_peak = flops / top["product of 1024 x 1024, GFLOP/s"] / 1e9
    at_memory = moved / top["copy of 128 MiB, GB/s"] / 1e9
    return [
        *lines,
        f"| Python and dispatch | {per * rest:.3f} | {100 * rest / seconds:.0f} % | | | | |",
        f"| all | {per * seconds:.3f} | 100 % | | | {per * bound:.3f} | "
        f"{100 * bound / seconds:.0f} % |",
        "",
        f"The two classic ceilings alone: {flops / moved:.1f} floating-point operations of "
        f"products a byte moved between operations; products at their peak {per * at_peak:.3f} ms "
        f"a row, all bytes through main memory {per * at_memory:.3f} ms.",
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=300, help="(default: %(default)s)")
    parser.add_argument("--counts-only", action="store_true", help="what needs no quiet machine")
    chosen = parser.parse_args(arguments)
    print(tables_of_counts(measure_counts(n_rows=chosen.rows)))
    if not chosen.counts_only:
        print("\n" + tables(measure(n_rows=chosen.rows)))


if __name__ == "__main__":
    main()
