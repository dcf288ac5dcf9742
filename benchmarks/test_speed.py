"""What `make bench` runs: every part of the report on little input, and the steps beside chgnet's.

    python -m pytest benchmarks/ --benchmark-enable
    python -m pytest benchmarks/ --benchmark-enable -k "graphs or energies"

The parts print their tables; the steps are compared in one process, on one thread, by
pytest-benchmark's own. Nothing is asserted about time. Numbers for the record: benchmarks.report.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from benchmarks.inputs import real_rows
from benchmarks.report import PARTS, run_part, section

torch = pytest.importorskip("torch")
pytest.importorskip("chgnet")

pytestmark = pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad=True")

N_CRYSTALS, A_TASK = 60, 3  # the model's own tasks are of about three rows


@pytest.mark.parametrize("name", PARTS)
def test_part(name: str, benchmark: Any, capsys: pytest.CaptureFixture[str]) -> None:
    size = "quick" if benchmark.enabled else "tiny"
    record = benchmark.pedantic(run_part, args=(name, size), rounds=1, iterations=1)
    text = section(name, record)
    benchmark.extra_info["result"] = json.loads(json.dumps(record["result"]))
    if "skipped" in record["result"]:
        pytest.skip(record["result"]["skipped"])
    with capsys.disabled():
        print(f"\n\n## {name}\n\n{text}\n")


@pytest.fixture(scope="module")
def both() -> Iterator[dict[str, Any]]:
    """Ours and chgnet's, warm, on one thread, with the same crystals."""
    from harness.models import load_model

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    crystals, source = real_rows(N_CRYSTALS)
    model: Any = load_model("chgnet-0.3.0", "cpu")
    structures = [crystals.structure(row) for row in range(len(crystals))]
    model.predict(crystals[:5], ("forces",))
    model._network.predict_structure(structures[:2])
    yield {
        "crystals": crystals,
        "source": source,
        "model": model,
        "network": model._network,
        "structures": structures,
    }
    torch.set_num_threads(before)


def _graphs(both: dict[str, Any], *, is_distinct: bool) -> None:
    from harness.models.chgnet.graph import build_graph
    from harness.models.chgnet.messages import distinct_messages

    for rows in np.array_split(np.arange(N_CRYSTALS), N_CRYSTALS // A_TASK):
        graph = build_graph(both["crystals"][rows], atom_cutoff_ang=6.0, bond_cutoff_ang=3.0)
        if is_distinct:
            distinct_messages(graph, n_layers=4)


STEPS: dict[str, tuple[str, Callable[[dict[str, Any]], object]]] = {
    "ours": ("graphs", lambda b: _graphs(b, is_distinct=False)),
    "ours, one atom of each kind": ("graphs", lambda b: _graphs(b, is_distinct=True)),
    "chgnet": ("graphs", lambda b: [b["network"].graph_converter(s) for s in b["structures"]]),
    "ours, energies": ("energies", lambda b: b["model"].predict(b["crystals"])),
    "chgnet, task='e'": (
        "energies",
        lambda b: b["network"].predict_structure(b["structures"], task="e"),
    ),
    "ours, energies, forces, stress": (
        "energies, forces, stress",
        lambda b: b["model"].predict(b["crystals"], ("energy", "forces", "stress")),
    ),
    "chgnet, its default": (
        "energies, forces, stress",
        lambda b: b["network"].predict_structure(b["structures"]),
    ),
}


@pytest.mark.parametrize("step", STEPS)
def test_step(step: str, both: dict[str, Any], benchmark: Any) -> None:
    group, run = STEPS[step]
    benchmark.group = f"{group}, {N_CRYSTALS} rows of {both['source']}, one thread"
    benchmark.name = step
    benchmark.pedantic(run, args=(both,), rounds=3, iterations=1)
    benchmark.extra_info["atoms"] = len(both["crystals"].numbers)
