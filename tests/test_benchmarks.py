"""The benchmarks run and measure what they say; how fast anything is, nothing here asks."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import race, report, scaling
from benchmarks.contestants import CONTESTANTS, split, why_not
from benchmarks.inputs import cells_of, fold_0_sized, rattled, real_rows, write_official_layout
from benchmarks.worker import Run, Worker, WorkerError
from harness.data import load_dataset
from harness.data.official_layout import parse


@pytest.fixture(autouse=True)
def embedded(monkeypatch, tmp_path):
    """Rows that are always there, and an empty cache."""
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def potentials():
    """Ours and chgnet's, loaded here rather than in a process of their own."""
    pytest.importorskip("torch")
    pytest.importorskip("chgnet")
    return {name: CONTESTANTS[name]("cpu") for name in ("ours-e", "ours-efs", "chgnet-efsm")}


def test_rows_repeat_only_when_the_set_is_used_up():
    n = len(load_dataset("thermochemistry"))
    crystals, source = real_rows(n + 5)
    hashes = {row.tobytes() for row in crystals[:n].row_hashes()}
    assert (len(hashes), len(crystals), source) == (n, n + 5, "thermochemistry")


def test_a_fold_0_sized_input_repeats_nothing_and_has_no_two_atoms_alike():
    n = 2 * len(load_dataset("thermochemistry"))
    crystals, _ = fold_0_sized(n)
    assert len({row.tobytes() for row in crystals.row_hashes()}) == n


def test_rattling_moves_atoms_by_its_standard_deviation_and_leaves_the_cells():
    crystals, _ = real_rows(100)
    moved = rattled(crystals, std_ang=0.02)
    steps = np.einsum(
        "ai,aij->aj",
        moved.frac_coords - crystals.frac_coords,
        crystals.lattices[crystals.row_of_atom],
    )
    assert steps.std() == pytest.approx(0.02, rel=0.1)
    np.testing.assert_array_equal(moved.lattices, crystals.lattices)


def test_a_supercell_is_the_same_crystal(potentials):
    smallest = int(load_dataset("thermochemistry").require_crystals().n_atoms.min())
    unit, larger = (cells_of(n, 2) for n in (smallest, 6 * smallest))
    assert larger.n_atoms.tolist() == [6 * smallest] * 2
    np.testing.assert_allclose(larger.volumes_ang3, 6 * unit.volumes_ang3)
    model = potentials["ours-e"].model
    np.testing.assert_allclose(model.energies(larger), model.energies(unit), atol=2e-5)


def test_a_file_in_the_official_layout_holds_the_rows_it_was_made_of(tmp_path):
    path = tmp_path / "rows.json.gz"
    dataset = load_dataset("thermochemistry")
    write_official_layout(path, 40, seed=3)
    raw = parse(path)
    rows = np.random.default_rng(3).permutation(len(dataset))[:40]
    np.testing.assert_array_equal(raw.target, dataset.target_ev_per_atom[rows])
    expected = dataset.require_crystals()[rows]
    np.testing.assert_array_equal(raw.crystals.row_hashes(), expected.row_hashes())


@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad=True")  # chgnet's own
def test_contestants_compute_the_same_numbers(potentials, tmp_path):
    crystals, _ = real_rows(60)
    crystals = crystals[np.argsort(crystals.n_atoms)[-20:-17]]
    path = tmp_path / "rows.npz"
    crystals.save(path)
    runs = {}
    for name, one in potentials.items():
        arrays = one.arrays(one.run(one.prepare(path)))
        runs[name] = Run(seconds=1, cpu_seconds=1, peak_mb=1, gpu_peak_mb=0, arrays=arrays)
    for name in ("ours-e", "ours-efs"):
        found = race.agreement([runs["chgnet-efsm"]], [runs[name]])
        assert found["rows"] == 3
        assert found["largest_energy_ev_per_atom"] < 1e-5
    assert found["largest_forces_ev_per_ang"] < 2e-4
    assert found["largest_stress_gpa"] < 2e-3


def test_agreement_is_the_largest_difference_of_all_blocks():
    def run(*energies):
        arrays = {"energy": np.array(energies)}
        return Run(seconds=1, cpu_seconds=1, peak_mb=1, gpu_peak_mb=0, arrays=arrays)

    found = race.agreement([run(1.0, np.nan), run(3.0)], [run(1.5, 2.0), run(2.0)])
    assert found == {"rows": 2, "largest_energy_ev_per_atom": 1.0}


def test_both_trainings_end_at_the_same_predictions(tmp_path):
    pytest.importorskip("torch")
    dataset = load_dataset("thermochemistry")
    dataset.require_crystals().save(tmp_path / "rows.npz")
    np.save(tmp_path / "rows.npy", dataset.target_ev_per_atom)
    ours, plain = (CONTESTANTS[name]("cpu") for name in ("ours-mlp", "plain-mlp"))
    a, b = (
        one.arrays(one.run(one.prepare(tmp_path / "rows.npz")))["predicted"]
        for one in (ours, plain)
    )
    assert len(a) == len(split(len(dataset))[1])
    np.testing.assert_allclose(a, b, atol=1e-4)


def test_a_worker_computes_in_a_process_of_its_own_and_says_why_it_fails(tmp_path):
    path = tmp_path / "rows.json.gz"
    write_official_layout(path, 10)
    with Worker("ours-parse") as worker:
        run = worker.run(path)
        assert len(run.arrays["target"]) == 10
        assert run.seconds > 0
        assert run.peak_mb > 10
        with pytest.raises(WorkerError, match=r"absent\.json"):
            worker.run(tmp_path / "absent.json")


def test_who_is_not_installed_stands_aside_with_the_reason(monkeypatch):
    assert why_not("ours-parse") is None
    monkeypatch.setattr(CONTESTANTS["sevennet-ase"], "modules", ("no_such_package.calculator",))
    assert why_not("sevennet-ase") == "no_such_package is not installed"


def test_multiply_adds_from_shapes_are_those_that_torch_counts(monkeypatch):
    roofline = pytest.importorskip("benchmarks.roofline")
    pytest.importorskip("chgnet")
    monkeypatch.setattr(roofline, "CHGNET_ROWS", 2)
    found = roofline.measure_counts(n_rows=6)
    checked = found["flops_checked"]
    assert checked["from shapes"] == checked["by FlopCounterMode"] > 0
    every, kinds = (
        found["by_messages"][key]["sizes"] for key in ("every atom", "one of each kind")
    )
    assert all(kinds[what] <= count for what, count in every.items())
    assert "| atoms |" in roofline.tables_of_counts(found)


@given(
    start=st.floats(0, 1), slope=st.floats(1e-4, 1), sizes=st.sets(st.integers(1, 999), min_size=4)
)
@settings(deadline=None, max_examples=25)
def test_a_straight_line_is_found(start, slope, sizes):
    x = sorted(sizes)
    fit = scaling.line(x, [start + slope * value for value in x])
    assert fit["start_s"] == pytest.approx(start, rel=1e-4, abs=1e-4)
    assert fit["slope_s"] == pytest.approx(slope, rel=1e-4)
    assert fit["worst"] < 1e-6


def test_the_exponent_tells_a_square_from_a_line():
    x = [1, 2, 4, 8, 16]
    assert scaling.line(x, x)["exponent"] == pytest.approx(1)
    assert scaling.line(x, [n * n for n in x])["exponent"] == pytest.approx(2)


def test_every_part_has_one_place_in_the_page():
    page = report.PAGE.read_text(encoding="utf-8")
    filled = report.filled(page, dict.fromkeys(report.PARTS, r"new \1 text"))
    assert filled.count(r"new \1 text") == len(report.PARTS)
    assert re.findall(r"^#+ .*", filled, re.M) == re.findall(r"^#+ .*", page, re.M)
    with pytest.raises(ValueError, match="0 places for other"):
        report.filled(page, {"other": "text"})


def test_the_report_keeps_the_parts_it_does_not_measure(monkeypatch, tmp_path, capsys):
    part = report.Part(
        measure=lambda n: {"n": n},
        tables=lambda result: f"| {result['n']} |",
        full={"n": 1},
        quick={"n": 2},
        tiny={"n": 3},
    )
    monkeypatch.setattr(report, "PARTS", {"one": part, "two": part})
    page = tmp_path / "page.md"
    page.write_text("<!-- one -->\nold\n<!-- /one -->\n<!-- two -->\nold\n<!-- /two -->\n")
    options = ["--out", str(tmp_path), "--page", str(page)]
    report.main([*options, "--size", "tiny"])
    report.main([*options, "--only", "two"])
    text = page.read_text()
    assert "old" not in text
    assert text.index("| 3 |") < text.index("| 1 |")
    assert (tmp_path / "report.json").is_file()
    assert "--size tiny --only one" in capsys.readouterr().out


def test_nothing_in_the_benchmarks_asserts_a_time():
    for path in (Path(report.__file__).parent).glob("*.py"):
        asserted = re.findall(r"^\s*assert .*", path.read_text(encoding="utf-8"), re.M)
        assert not asserted, f"{path.name}: {asserted}"
