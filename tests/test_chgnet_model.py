"""CHGNet through the fast path: chgnet's own numbers, however rows are batched."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from harness.data.crystals import Crystals
from harness.errors import ConfigError, ModelError, NotAvailable

torch = pytest.importorskip("torch")
pytest.importorskip("chgnet")

from harness.models import chgnet  # noqa: E402
from harness.models.chgnet import model as engine  # noqa: E402
from harness.models.chgnet.graph import build_graph  # noqa: E402
from harness.models.chgnet.messages import all_messages, distinct_messages  # noqa: E402
from harness.models.chgnet.model import CHGNetModel  # noqa: E402
from harness.models.chgnet.original import predict_original  # noqa: E402
from harness.models.chgnet.weights import read_chgnet  # noqa: E402
from harness.models.own_weights import state_sha256  # noqa: E402
from harness.models.protocol import Model  # noqa: E402

# chgnet's own forward pass, on the first crystal of a process
pytestmark = pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad=True")

VERSIONS = ("0.3.0", "0.2.0", "r2scan")
ALL = ("energy", "forces", "stress", "magmoms")


def crystal(lattice: object, numbers: list[int], frac_coords: object) -> Crystals:
    return Crystals(
        numbers=np.array(numbers, dtype=np.uint8),
        frac_coords=np.array(frac_coords, dtype=float).reshape(-1, 3),
        lattices=np.array(lattice, dtype=float).reshape(1, 3, 3),
        offsets=np.array([0, len(numbers)], dtype=np.int64),
    )


FCC = np.array([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
CRYSTALS = Crystals.concatenate(
    [
        crystal(4.21 * FCC, [12, 8], [[0, 0, 0], [0.51, 0.49, 0.5]]),  # MgO, displaced
        crystal(5.43 * FCC, [14, 14], [[0, 0, 0], [0.25, 0.26, 0.25]]),  # Si, displaced
        crystal(3.61 * FCC, [29], [[0, 0, 0]]),  # Cu: one atom, cell below the cutoff
        crystal(  # SrTiO3, rattled
            3.9 * np.eye(3) + [[0, 0.1, 0], [0, 0, 0], [0.05, 0, 0]],
            [38, 22, 8, 8, 8],
            [[0.01, 0, 0], [0.5, 0.52, 0.5], [0.5, 0.5, 0.02], [0.5, 0, 0.49], [0, 0.5, 0.5]],
        ),
        crystal(  # Fe3O in a skewed cell that is not wrapped
            [[3.9, 0, 0], [1.9, 3.6, 0], [-1.7, 0.4, 4.4]],
            [26, 26, 26, 8],
            [[0, 0, 0], [0.5, 0.1, -0.4], [1.1, 0.6, 0.5], [0.6, 0.6, 0.1]],
        ),
        crystal(4.5 * np.eye(3), [55], [[0, 0, 0]]),  # Cs: bonds, no angle
        crystal(  # H2O in a box: a molecule, three bonds
            9.0 * np.eye(3), [8, 1, 1], [[0, 0, 0], [0.106, 0, 0], [-0.027, 0.103, 0]]
        ),
    ]
)


def with_threads(n: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors on many threads wait for each other, for minutes on a busy machine."""
    yield from with_threads(1)


@pytest.fixture
def two_threads(one_thread: None) -> Iterator[None]:
    yield from with_threads(2)


@pytest.fixture(scope="module")
def model() -> CHGNetModel:
    return chgnet.load("0.3.0", "cpu")


@pytest.fixture
def many_small_tasks(monkeypatch: pytest.MonkeyPatch, model: CHGNetModel) -> None:
    """Several batches of several tasks for a handful of crystals."""
    monkeypatch.setattr(engine, "_WORK_PER_BATCH", {"cpu": 1500, "cuda": 1500})
    monkeypatch.setattr(model, "_budget", 500)
    monkeypatch.setattr(model, "_gradient_budget", 500)


# --- chgnet's numbers ---------------------------------------------------------------------------


# 0.2.0 has no normalisation, and its own float32 is 1.4e-5 from its float64 for the MgO here
@pytest.mark.parametrize(
    ("version", "bound_ev_per_atom"), [("0.3.0", 1e-5), ("r2scan", 1e-5), ("0.2.0", 3e-5)]
)
def test_energies_are_those_of_chgnets_predict_structure(
    version: str, bound_ev_per_atom: float
) -> None:
    network = read_chgnet(version)
    expected = [
        network.predict_structure(CRYSTALS.structure(i), task="e")["e"]
        for i in range(len(CRYSTALS))
    ]
    ours = chgnet.load(version, "cpu").energies(CRYSTALS)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=bound_ev_per_atom)


@pytest.mark.parametrize("version", VERSIONS)
def test_everything_is_that_of_chgnet_in_float64(version: str) -> None:
    """Float64, since chgnet's own float32 scatters: 4e-4 eV/Å at the worst of 60 real crystals."""
    expected = predict_original(read_chgnet(version), CRYSTALS, "float64")
    found = chgnet.load(version, "cpu").predict(CRYSTALS, ALL)
    np.testing.assert_allclose(found.energy, expected.energy, rtol=0, atol=2e-6)
    np.testing.assert_allclose(found.stress, expected.stress, rtol=0, atol=2e-4)
    for name, atol in (("forces", 2e-5), ("magmoms", 1e-5)):
        for mine, theirs in zip(getattr(found, name), getattr(expected, name), strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=0, atol=atol)


def test_the_yardstick_leaves_chgnet_as_it_was() -> None:
    first, _, third = (
        predict_original(read_chgnet("0.3.0"), CRYSTALS[:2], precision)
        for precision in ("float32", "float64", "float32")
    )
    np.testing.assert_array_equal(first.energy, third.energy)
    with pytest.raises(ConfigError, match="float16"):
        predict_original(read_chgnet("0.3.0"), CRYSTALS[:2], "float16")


def test_forces_stress_and_moments_are_those_of_chgnets_predict_structure(
    model: CHGNetModel,
) -> None:
    network = read_chgnet("0.3.0")
    found = model.predict(CRYSTALS, ALL)
    assert found.forces is not None
    assert found.stress is not None
    assert found.magmoms is not None
    for row in range(len(CRYSTALS)):
        expected = network.predict_structure(CRYSTALS.structure(row))
        np.testing.assert_allclose(found.forces[row], expected["f"], rtol=0, atol=1e-4)
        np.testing.assert_allclose(found.stress[row], expected["s"], rtol=0, atol=1e-3)
        np.testing.assert_allclose(found.magmoms[row], expected["m"], rtol=0, atol=1e-4)


def real_crystals(n: int, seed: int) -> Crystals:
    folder = os.environ.get("HARNESS_DATA")
    path = Path(folder or ".") / "matbench_mp_e_form_subset.json.gz"
    if not folder or not path.is_file():
        pytest.skip("HARNESS_DATA names no folder with matbench_mp_e_form_subset.json.gz")
    from pymatgen.core import Structure

    rows = orjson.loads(gzip.decompress(path.read_bytes()))["data"]
    picked = np.random.default_rng(seed).choice(len(rows), n, replace=False)
    return Crystals.from_structures([Structure.from_dict(rows[i][0]) for i in picked])


def test_energies_of_real_crystals_are_chgnets(model: CHGNetModel) -> None:
    crystals = real_crystals(n=40, seed=0)
    network = read_chgnet("0.3.0")
    structures = [crystals.structure(row) for row in range(len(crystals))]
    expected = [network.predict_structure(s, task="e")["e"] for s in structures]
    np.testing.assert_allclose(model.energies(crystals), expected, rtol=0, atol=1e-5)


# --- physics ------------------------------------------------------------------------------------


def test_forces_and_stress_are_slopes_of_the_energy(model: CHGNetModel) -> None:
    """Along one random displacement and one random strain of each crystal, step 1e-3."""
    rng = np.random.default_rng(1)
    found = model.predict(CRYSTALS, ("forces", "stress"))
    assert found.forces is not None
    assert found.stress is not None
    for row, one in enumerate(CRYSTALS):
        lattice, volume = one.lattices[0], float(one.volumes_ang3[0])
        n_atoms = len(one.numbers)
        numbers = one.numbers.tolist()
        shift = rng.normal(size=(n_atoms, 3))
        shift /= np.linalg.norm(shift)
        strain = rng.normal(size=(3, 3))
        strain /= np.linalg.norm(strain)
        steps = (-1e-3, 1e-3)
        moved = [one.frac_coords + h * shift @ np.linalg.inv(lattice) for h in steps]
        shifted = Crystals.concatenate([crystal(lattice, numbers, coords) for coords in moved])
        strained = Crystals.concatenate(
            [crystal(lattice @ (np.eye(3) + h * strain), numbers, one.frac_coords) for h in steps]
        )
        slope = np.diff(n_atoms * model.energies(shifted))[0] / 2e-3
        assert slope == pytest.approx(-np.sum(found.forces[row] * shift), abs=3e-3)
        slope = np.diff(n_atoms * model.energies(strained))[0] / 2e-3
        virial_ev = found.stress[row] * volume / engine.GPA_PER_EV_PER_ANG3
        assert slope == pytest.approx(np.sum(virial_ev * strain), abs=1e-2, rel=1e-3)


def test_a_left_handed_cell_has_the_stress_of_the_right_handed_one(model: CHGNetModel) -> None:
    """chgnet divides by a signed volume and so turns the sign."""
    one = CRYSTALS[3]
    swap = [1, 0, 2]
    mirrored = crystal(one.lattices[0][swap], one.numbers.tolist(), one.frac_coords[:, swap])
    right, left = (model.predict(c, ("stress",)).stress for c in (one, mirrored))
    np.testing.assert_allclose(left, right, rtol=0, atol=1e-3)


def test_energy_per_atom_of_a_supercell_is_that_of_its_cell(model: CHGNetModel) -> None:
    one = CRYSTALS[4]
    images = np.array([[0, 0, 0], [1, 0, 0]])
    coords = (one.frac_coords[None] + images[:, None]).reshape(-1, 3) / [2, 1, 1]
    double = crystal(one.lattices[0] * [[2], [1], [1]], one.numbers.tolist() * 2, coords)
    assert model.energies(double)[0] == pytest.approx(model.energies(one)[0], abs=2e-6)


# --- atoms that are alike -----------------------------------------------------------------------


def distinct(crystals: Crystals) -> tuple[int, int, int, int]:
    """How many atoms, bonds, edges and angles are computed for energies."""
    graph = build_graph(crystals, atom_cutoff_ang=6.0, bond_cutoff_ang=3.0)
    kept = distinct_messages(graph, n_layers=4)
    return len(kept.numbers), kept.n_bonds, len(kept.edge_centre), len(kept.angle_first)


def perovskite(shift_ang: float = 0.0, repeat: int = 2) -> Crystals:
    """repeat^3 cells of cubic SrTiO3, its first atom moved along x."""
    sites = np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
    images = np.stack(np.meshgrid(*[range(repeat)] * 3), axis=-1).reshape(-1, 1, 3)
    coords = ((sites + images) / repeat).reshape(-1, 3)
    coords[0, 0] += shift_ang / (3.905 * repeat)
    return crystal(3.905 * repeat * np.eye(3), [38, 22, 8, 8, 8] * repeat**3, coords)


def test_atoms_that_are_alike_are_computed_once() -> None:
    shells_of_copper = 5  # within 6 Å, of radius 2.55, 3.61, 4.42, 5.11 and 5.71 Å
    assert distinct(CRYSTALS[2]) == (1, shells_of_copper, 12 + 6 + 24 + 12 + 24, 2 * 11)
    cubic = distinct(perovskite())
    assert cubic[0] == 3
    assert distinct(perovskite(repeat=1)) == cubic
    assert distinct(perovskite(shift_ang=1e-9)) == cubic


@pytest.mark.parametrize("shift_ang", [1e-6, 1e-3])
def test_a_small_displacement_sets_atoms_apart(shift_ang: float) -> None:
    assert distinct(perovskite(shift_ang))[0] > 3


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("shift_ang", [0.0, 1e-8, 1e-7, 1e-6, 1e-5, 1e-2])
def test_energies_do_not_depend_on_which_atoms_are_alike(version: str, shift_ang: float) -> None:
    """With a gradient every atom is computed for itself."""
    subject, crystals = chgnet.load(version, "cpu"), perovskite(shift_ang)
    distinct_ones = subject.predict(crystals, ("magmoms",))
    every_one = subject.predict(crystals, ("magmoms", "forces"))
    assert distinct_ones.energy[0] == pytest.approx(every_one.energy[0], abs=1e-6)
    assert distinct_ones.magmoms is not None
    assert every_one.magmoms is not None
    np.testing.assert_allclose(distinct_ones.magmoms[0], every_one.magmoms[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("second_deg", "n_kinds"), [(100, 2), (101, 4)])
def test_atoms_are_told_apart_by_angles_alone(second_deg: float, n_kinds: int) -> None:
    """Two bent molecules of one element and one bond length, out of each other's reach."""
    sites = []
    for origin, degrees in ((0.0, 100.0), (10.0, second_deg)):
        bend = np.deg2rad(degrees)
        ends = 2.0 * np.array([[0, 0, 0], [1, 0, 0], [np.cos(bend), np.sin(bend), 0]])
        ends[:, 2] = origin
        sites.append(ends / 20)
    molecules = crystal(20 * np.eye(3), [8] * 6, np.concatenate(sites))
    graph = build_graph(molecules, atom_cutoff_ang=2.1, bond_cutoff_ang=2.1)  # ends stay apart
    assert len(set(np.round(np.linalg.norm(graph.vectors, axis=1), 9))) == 1
    assert len(distinct_messages(graph, n_layers=4).numbers) == n_kinds
    assert len(distinct_messages(graph, n_layers=1).numbers) == 2  # no angle has been seen yet
    assert len(all_messages(graph).numbers) == 6


# --- batches ------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_a_row_does_not_depend_on_its_batch(version: str) -> None:
    """0.2.0 included, whose output bias chgnet adds to all bonds of a batch with any angle."""
    subject = chgnet.load(version, "cpu")
    together = subject.predict(CRYSTALS, ALL)
    for row, one in enumerate(CRYSTALS):
        alone = subject.predict(one, ALL)
        assert alone.energy[0] == pytest.approx(together.energy[row], abs=1e-6)
        for name in ("forces", "stress", "magmoms"):
            np.testing.assert_allclose(
                getattr(alone, name)[0], getattr(together, name)[row], rtol=1e-5, atol=2e-5
            )


def test_a_plan_covers_every_row_once_and_repeats_itself(model: CHGNetModel) -> None:
    rng = np.random.default_rng(2)
    crystals = CRYSTALS[rng.integers(len(CRYSTALS), size=200)]
    plan = model.plan(crystals)
    assert sorted(np.concatenate(plan).tolist()) == list(range(200))
    again = model.plan(crystals)
    assert [batch.tolist() for batch in plan] == [batch.tolist() for batch in again]


@pytest.mark.usefixtures("many_small_tasks")
def test_batches_share_the_work_and_a_large_crystal_has_its_own(model: CHGNetModel) -> None:
    rng = np.random.default_rng(3)
    crystals = CRYSTALS[rng.integers(len(CRYSTALS), size=100)]
    work = model._work(crystals)
    for batch in model.plan(crystals):
        assert work[batch].sum() <= 1500 or len(batch) == 1
        assert model.plan(crystals[batch])[0].tolist() == list(range(len(batch)))
        assert (np.diff(work[batch]) <= 0).all()
    big = Crystals.concatenate([CRYSTALS[0], crystal(1.5 * np.eye(3), [29], [[0, 0, 0]])])
    assert [batch.tolist() for batch in model.plan(big)] == [[1], [0]]


@pytest.mark.usefixtures("many_small_tasks", "two_threads")
def test_the_same_plan_gives_the_same_bytes(model: CHGNetModel) -> None:
    """Run after run, on two threads, and batch by batch as all at once."""
    rng = np.random.default_rng(4)
    crystals = CRYSTALS[rng.integers(len(CRYSTALS), size=40)]
    first, second = (model.predict(crystals, ALL) for _ in range(2))
    assert first.energy.tobytes() == second.energy.tobytes()
    for name in ("forces", "stress", "magmoms"):
        one, other = (np.concatenate(getattr(p, name)) for p in (first, second))
        assert one.tobytes() == other.tobytes()

    whole = model.energies(crystals)
    parts = np.empty_like(whole)
    for batch in model.plan(crystals):
        parts[batch] = model.energies(crystals[batch])
    assert parts.tobytes() == whole.tobytes()


@pytest.mark.usefixtures("many_small_tasks", "two_threads")
def test_the_callers_number_of_threads_comes_back(model: CHGNetModel) -> None:
    crystals = CRYSTALS[np.arange(len(CRYSTALS)).repeat(4)]
    model.energies(crystals)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    single = model.energies(crystals)
    assert torch.get_num_threads() == 1
    torch.set_num_threads(2)
    np.testing.assert_allclose(model.energies(crystals), single, rtol=0, atol=1e-6)


def test_blocks_within_a_task_change_nothing(
    model: CHGNetModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = model.energies(CRYSTALS)
    monkeypatch.setattr("harness.models.chgnet.gated._ROWS_PER_BLOCK", 14)
    np.testing.assert_allclose(model.energies(CRYSTALS), whole, rtol=0, atol=1e-6)


def test_no_rows_are_no_predictions(model: CHGNetModel) -> None:
    empty = CRYSTALS[:0]
    assert model.plan(empty) == []
    found = model.predict(empty, ALL)
    assert found.energy.shape == (0,)
    assert found.forces == found.magmoms == []
    assert model.atom_features(empty).shape == (0, 64)


# --- rows that cannot be scored -----------------------------------------------------------------

UNSCORABLE = Crystals.concatenate(
    [
        CRYSTALS[0],
        crystal(9.0 * np.eye(3), [2], [[0, 0, 0]]),  # He alone
        crystal(  # a dimer and two lone atoms
            20.0 * np.eye(3), [1, 1, 1, 1], [[0, 0, 0], [0.04, 0, 0], [0.5, 0, 0], [0, 0.5, 0]]
        ),
        crystal(4.5 * FCC, [95], [[0, 0, 0]]),  # Am
        crystal(4.5 * FCC, [29, 29], [[0, 0, 0], [0, 0, 0]]),  # two atoms in one place
        CRYSTALS[3],
    ]
)


def test_a_row_that_cannot_be_scored_is_explained_and_harms_no_other(model: CHGNetModel) -> None:
    found = model.predict(UNSCORABLE, ALL)
    assert found.problems == {
        1: "1 isolated atom (no neighbour within 6 Å)",
        2: "2 isolated atoms (no neighbour within 6 Å)",
        3: "atomic numbers [95] are beyond 94 (Pu), CHGNet's last",
        4: "the network gives no finite energy: do two atoms coincide?",
    }
    assert found.scored.tolist() == [True, False, False, False, False, True]
    scored = model.predict(CRYSTALS[[0, 3]], ALL)
    np.testing.assert_allclose(found.energy[[0, 5]], scored.energy, rtol=0, atol=1e-6)
    for name in ("forces", "stress", "magmoms"):
        values = getattr(found, name)
        assert np.isnan(values[1]).all()
        assert values[2].shape == getattr(model.predict(UNSCORABLE[2:3], ALL), name)[0].shape
        np.testing.assert_allclose(values[5], getattr(scored, name)[1], rtol=0, atol=2e-5)


def test_energies_and_features_refuse_and_name_such_rows(model: CHGNetModel) -> None:
    with pytest.raises(ModelError, match=r"4 rows: row 1: 1 isolated atom .*; row 3: atomic"):
        model.energies(UNSCORABLE)
    with pytest.raises(ModelError, match="row 2: 2 isolated atoms"):
        model.atom_features(UNSCORABLE)
    features = model.featurise(UNSCORABLE)
    assert set(features.problems) == {1, 2, 3, 4}
    finite = np.isfinite(features.atoms).all(axis=1)
    assert finite.tolist() == [True] * 2 + [False] * 8 + [True] * 5


# --- features for a new readout -----------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_energies_are_the_readout_of_the_features_plus_the_composition(version: str) -> None:
    subject = chgnet.load(version, "cpu")
    features = subject.atom_features(CRYSTALS)
    assert features.dtype == np.float32
    assert features.shape == (len(CRYSTALS.numbers), 64)
    with torch.no_grad():
        sites = subject.head()(torch.from_numpy(features)).numpy().reshape(-1).astype(float)
    means = np.add.reduceat(sites, CRYSTALS.offsets[:-1]) / CRYSTALS.n_atoms
    energies = means + subject.composition_energies(CRYSTALS)
    np.testing.assert_allclose(energies, subject.energies(CRYSTALS), rtol=0, atol=1e-6)


def test_a_head_is_a_copy_to_train(model: CHGNetModel) -> None:
    before = model.energies(CRYSTALS)
    head = model.head()
    for parameter in head.parameters():
        assert parameter.requires_grad
        parameter.data.zero_()
    np.testing.assert_array_equal(model.energies(CRYSTALS), before)


# --- a GPU that is too small, without a GPU -----------------------------------------------------


class Overfull:
    """Runs out of memory beyond so many rows, as a GPU would."""

    def __init__(self, model: CHGNetModel, most_rows: int) -> None:
        self.compute, self.most_rows, self.sizes = model._compute, most_rows, list[int]()

    def __call__(self, task: Any, wanted: Any) -> Any:
        self.sizes.append(len(task.rows))
        if len(task.rows) > self.most_rows:
            raise torch.cuda.OutOfMemoryError("no memory")
        return self.compute(task, wanted)


def test_a_batch_beyond_the_memory_is_halved(
    model: CHGNetModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = model.predict(UNSCORABLE, ALL)
    overfull = Overfull(model, most_rows=1)
    monkeypatch.setattr(model, "_compute", overfull)
    monkeypatch.setattr(model, "_outcomes_cpu", model._outcomes_cuda)
    found = model.predict(UNSCORABLE, ALL)
    assert overfull.sizes == [3, 3, 2, 1, 1, 1]  # half of the rows are not scorable
    assert found.problems == expected.problems
    np.testing.assert_allclose(found.energy, expected.energy, rtol=0, atol=1e-6)


@pytest.mark.usefixtures("many_small_tasks")
def test_tasks_that_overlap_keep_every_row(
    model: CHGNetModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    crystals = CRYSTALS[np.arange(len(CRYSTALS)).repeat(5)]
    expected = model.energies(crystals)
    monkeypatch.setattr(model, "_outcomes_cpu", model._outcomes_cuda)
    np.testing.assert_allclose(model.energies(crystals), expected, rtol=0, atol=1e-6)


def test_a_crystal_beyond_the_memory_is_named(
    model: CHGNetModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "_compute", Overfull(model, most_rows=0))
    monkeypatch.setattr(model, "_outcomes_cpu", model._outcomes_cuda)
    with pytest.raises(ModelError, match=r"row 3 \(5 atoms, about \d+ edges and angles\) does not"):
        model.energies(CRYSTALS)


# --- identity, loading --------------------------------------------------------------------------


def test_identity_names_weights_and_settings(model: CHGNetModel) -> None:
    again, others = chgnet.load("0.3.0", "cpu"), [chgnet.load(v, "cpu") for v in VERSIONS[1:]]
    assert again.identity == model.identity
    assert isinstance(model, Model)
    assert model.identity.name == "chgnet-0.3.0"
    assert model.identity.settings == {
        "engine": "4",
        "dtype": "float32",
        "device": "cpu",
        "mlp_out_bias": "False",
        "atom_cutoff_ang": "6",
        "bond_cutoff_ang": "3",
    }
    hashes = {m.identity.weights_sha256 for m in (model, *others)}
    assert len(hashes) == 3
    assert others[0].identity.settings["atom_cutoff_ang"] == "5"
    assert model.elements == frozenset(range(1, 95))


def test_the_hash_of_weights_sees_names_shapes_and_values() -> None:
    state = {"a": torch.arange(6.0), "b": torch.zeros(2)}
    variants = [
        state,
        {"a": torch.arange(6.0), "c": torch.zeros(2)},
        {"a": torch.arange(6.0).view(2, 3), "b": torch.zeros(2)},
        {"a": torch.arange(6.0), "b": torch.tensor([0.0, 1e-30])},
        {"a": torch.arange(6.0).double(), "b": torch.zeros(2)},
    ]
    assert len({state_sha256(variant) for variant in variants}) == len(variants)
    assert state_sha256(dict(reversed(state.items()))) == state_sha256(state)


def test_nothing_heavy_is_imported_before_loading() -> None:
    code = (
        "import sys, harness.models.chgnet\n"
        "print([name for name in ('torch', 'chgnet', 'pymatgen') if name in sys.modules])"
    )
    root = Path(__file__).parents[1]
    out = subprocess.run(  # noqa: S603 - this file's own code
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True
    )
    assert out.stdout.strip() == "[]", out.stderr


def test_loading_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    chgnet.load("0.2.0", "cpu")
    assert capsys.readouterr() == ("", "")


def test_wrong_requests_are_refused(model: CHGNetModel) -> None:
    with pytest.raises(ConfigError, match=r"'0\.4\.0' is unknown; known: 0\.3\.0"):
        chgnet.load("0.4.0", "cpu")
    for device in ("gpu", "mps"):
        with pytest.raises(ConfigError, match=f"device='{device}' is unknown"):
            chgnet.load("0.3.0", device)
    for properties in (("energy", "charge"), "energy"):
        with pytest.raises(ConfigError, match="CHGNet gives energy, forces, stress, magmoms"):
            model.predict(CRYSTALS, properties)


def test_tasks_on_a_gpu_fit_the_memory_that_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu, gib = torch.device("cuda"), 2**30
    for free, expected in (
        (100 * gib, (1_000_000, 300_000)),
        (gib, (206_488, 22_369)),
        (0, (1, 1)),
    ):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, free))
        assert engine._budgets(gpu) == expected
    assert engine._budgets(torch.device("cpu")) == (50_000, 20_000)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_an_absent_gpu_is_said() -> None:
    with pytest.raises(NotAvailable, match="finds no GPU"):
        chgnet.load("0.3.0", "cuda")
    assert chgnet.load("0.3.0", "auto").device.type == "cpu"
