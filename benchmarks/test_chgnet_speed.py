"""Speed of the CHGNet fast path beside chgnet's own, on the same crystals in one process.

    python -m pytest benchmarks/test_chgnet_speed.py --benchmark-enable -s

On one thread, processor time is counted, so that a busy machine disturbs little. Rounds alternate
between the contestants, so that whatever else the machine does falls on all of them; what counts is
the ratio. Structures come from HARNESS_DATA where it is set, else random cells of the same density
are written here.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import numpy as np
import pytest

from harness.data import Crystals, load_dataset

torch = pytest.importorskip("torch")
pytest.importorskip("chgnet")

from harness.models import chgnet  # noqa: E402
from harness.models.chgnet.graph import build_graph  # noqa: E402
from harness.models.chgnet.messages import distinct_messages  # noqa: E402
from harness.models.chgnet.weights import read_chgnet  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad=True")

N_CRYSTALS, SEED, ROUNDS = 60, 0, 3


def crystals_to_time() -> Crystals:
    rng = np.random.default_rng(SEED)
    if os.environ.get("HARNESS_DATA"):
        crystals = load_dataset("subset").require_crystals()
        return crystals[rng.choice(len(crystals), N_CRYSTALS, replace=False)]
    n_atoms = rng.integers(2, 50, size=N_CRYSTALS)
    edges_ang = np.cbrt(n_atoms / 0.06)
    return Crystals(
        numbers=rng.integers(3, 60, size=n_atoms.sum()).astype(np.uint8),
        frac_coords=rng.random((n_atoms.sum(), 3)),
        lattices=edges_ang[:, None, None] * np.eye(3),
        offsets=np.concatenate([[0], np.cumsum(n_atoms)]).astype(np.int64),
    )


@pytest.mark.parametrize("n_threads", [1, None], ids=["one thread", "all threads"])
def test_ours_beside_chgnets(n_threads: int | None) -> None:
    """Prints ms a crystal of each contestant and stage, and the ratios that matter."""
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads or before)
    try:
        seconds = _race(time.process_time if n_threads == 1 else time.perf_counter)
    finally:
        torch.set_num_threads(before)
    threads = n_threads or before
    print(f"\n{N_CRYSTALS} crystals, {ROUNDS} rounds, {threads} thread(s), median of rounds")
    median = {name: float(np.median(times)) for name, times in seconds.items()}
    for name, total in median.items():
        print(f"  {name:38s} {1e3 * total / N_CRYSTALS:8.2f} ms/crystal")
    for theirs, ours in (
        ("chgnet task='e'", "ours, energies"),
        ("chgnet task='efsm' (its default)", "ours, energies"),
        ("chgnet task='efsm' (its default)", "ours, energies, forces, stress"),
    ):
        ratios = np.array(seconds[theirs]) / np.array(seconds[ours])
        print(f"  {ours} is {np.median(ratios):.1f} times as fast as {theirs}")


def _race(clock: Callable[[], float]) -> dict[str, list[float]]:
    crystals, model, network = (
        crystals_to_time(),
        chgnet.load("0.3.0", "cpu"),
        read_chgnet("0.3.0"),
    )
    structures = [crystals.structure(i) for i in range(len(crystals))]
    contestants: dict[str, Callable[[], object]] = {
        "ours, graphs": lambda: [
            build_graph(crystals[batch], atom_cutoff_ang=6.0, bond_cutoff_ang=3.0)
            for batch in np.array_split(np.arange(N_CRYSTALS), N_CRYSTALS // 3)
        ],
        "chgnet graphs": lambda: [network.graph_converter(s) for s in structures],
        "ours, graphs and their distinct part": lambda: [
            distinct_messages(
                build_graph(crystals[batch], atom_cutoff_ang=6.0, bond_cutoff_ang=3.0), n_layers=4
            )
            for batch in np.array_split(np.arange(N_CRYSTALS), N_CRYSTALS // 3)
        ],
        "ours, energies": lambda: model.energies(crystals),
        # a list, which chgnet predicts in batches of 16: the fastest way it offers
        "chgnet task='e'": lambda: network.predict_structure(structures, task="e"),
        "ours, energies, forces, stress": lambda: model.predict(crystals, ("forces", "stress")),
        "chgnet task='efsm' (its default)": lambda: network.predict_structure(structures),
    }
    model.predict(crystals[:5], ("forces",))  # first calls set up thread pools and kernels
    network.predict_structure(structures[0])
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(ROUNDS):
        for name, run in contestants.items():
            start = clock()
            run()
            seconds[name].append(clock() - start)
    return seconds


@pytest.mark.parametrize("properties", [("energy",), ("energy", "forces", "stress")], ids=str)
def test_predict(benchmark: Callable[..., object], properties: tuple[str, ...]) -> None:
    crystals, model = crystals_to_time(), chgnet.load("0.3.0", "cpu")
    benchmark(model.predict, crystals, properties)
