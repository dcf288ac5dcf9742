"""Calculators in other processes: the same numbers, whatever dies, prints, hangs or is missing."""

from __future__ import annotations

import ast
import io
import os
import signal
import sys
import threading
import time
import venv
from collections.abc import Iterator
from pathlib import Path

import ase as ase_package
import numpy as np
import pytest

from harness.data.crystals import Crystals
from harness.errors import ConfigError, HarnessError, ModelError, NotAvailable
from harness.models import ase, ase_worker, load_model, remote
from harness.models.protocol import Model
from harness.store import PredictionStore
from tests.test_ase_models import ALL, EMT_NAME, IRON, METALS, MORSE_NAME

MANY = Crystals.concatenate([METALS] * 4)

SOURCE = '''
import os, signal, sys, time
import numpy as np
from ase.calculators.calculator import Calculator, all_changes

print("imported, with a word for whoever reads")

class Odd(Calculator):
    """Energy: the number of atoms. Magnitude of moments: the number of the process."""
    implemented_properties = ["energy", "magmoms"]

    def __init__(self, fault="", marker="marker", count=1):
        super().__init__()
        print("made")
        self.fault, self.marker, self.count = fault, marker, count
        if fault == "construction":
            raise RuntimeError("no licence server")
        if fault == "implemented":
            self.implemented_properties = None

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        print("computing")
        os.write(1, b"straight to the descriptor\\n")
        os.system("echo from a child")
        n = len(atoms)
        if self.fault == "dies" and n == 1:
            with open(self.marker, "a") as file:
                file.write("x")
            if os.path.getsize(self.marker) <= self.count:
                print("the neighbour list is empty", file=sys.stderr, flush=True)
                os.kill(os.getpid(), signal.SIGSEGV)
        if self.fault == "exits" and n == 1:
            os._exit(3)
        if self.fault == "hangs" and n == 1:
            time.sleep(600)
        if self.fault == "slow":
            time.sleep(0.02)
        if self.fault == "memory":
            raise MemoryError
        self.results = {"energy": float(n), "magmoms": np.full(n, float(os.getpid()))}

def itself_in_the_way(threads=1):
    return Odd()
'''

TORCH = '''
import torch
from ase.calculators.calculator import Calculator, all_changes

class Unreadable(tuple):
    def __len__(self):
        raise NotImplementedError("as e3nn's irreducible representations have it")

class Net(Calculator):
    """A small network over distances, its weights drawn from a seed."""
    implemented_properties = ["energy", "forces"]

    def __init__(self, seed=0, dtype="", where="attribute"):
        super().__init__()
        if dtype:
            torch.set_default_dtype(getattr(torch, dtype))
            torch.set_num_threads(3)
        generator = torch.Generator().manual_seed(seed) if seed >= 0 else None
        net = torch.nn.Sequential(torch.nn.Linear(1, 32), torch.nn.SiLU(), torch.nn.Linear(32, 1))
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.copy_(torch.rand(parameter.shape, generator=generator))
        self.call = net
        if where == "closure":
            self.call = lambda x: net(x)
        if where == "list":
            self.call, self.nets = None, Unreadable([{"net": net}])
        if where == "tensors":
            self.call, self.values = None, [p.detach() for p in net.parameters()]

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        x = torch.tensor(atoms.positions, dtype=torch.get_default_dtype(), requires_grad=True)
        n = torch.get_num_threads()
        pairs = ((x[:, None] - x[None]) ** 2).sum(-1, keepdim=True)
        energy = self.call(pairs).sum() * n
        (forces,) = torch.autograd.grad(-energy, x)
        self.results = {"energy": energy.item(), "forces": forces.numpy()}
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with modules of calculators, from which the session started."""
    (tmp_path / "odd_ones.py").write_text(SOURCE, encoding="utf-8")
    (tmp_path / "torch_ones.py").write_text(TORCH, encoding="utf-8")
    (tmp_path / "json.py").write_text("raise RuntimeError('not the one of Python')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", str(tmp_path))])
    yield tmp_path
    for name in ("odd_ones", "torch_ones"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with ase, numpy and scipy and nothing else, this project least of all."""
    folder = tmp_path_factory.mktemp("bare") / "env"
    venv.create(folder, with_pip=False, symlinks=True)
    site = next(folder.glob("lib/python*/site-packages"))
    for path in Path(ase_package.__file__).parents[1].iterdir():
        if path.name.split("-")[0].split(".")[0] in ("ase", "numpy", "scipy"):
            (site / path.name).symlink_to(path)
    return folder


def odd(fault: str = "", more: str = "", python: str = sys.executable) -> ase.AseModel:
    return ase.load(f"ase:odd_ones:Odd?fault={fault}{more}", "cpu", python)


def processes(model: ase.AseModel) -> list[int]:
    """Of what computes this subject."""
    assert isinstance(model._source, remote.Workers)
    return [process._popen.pid for process in model._source._processes]


# --- the same numbers -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", [EMT_NAME, MORSE_NAME], ids=["emt", "morse"])
def test_another_environment_gives_the_same_bytes_and_is_the_same_subject(
    bare: Path, name: str
) -> None:
    here, there = load_model(name), load_model(name, python=str(bare))
    crystals = Crystals.concatenate([METALS, IRON])
    ours, theirs = here.predict(crystals, ALL), there.predict(crystals, ALL)
    np.testing.assert_array_equal(ours.energy, theirs.energy)
    np.testing.assert_array_equal(ours.stress, theirs.stress)  # type: ignore[arg-type]
    for mine, other in zip(ours.forces or [], theirs.forces or [], strict=True):
        np.testing.assert_array_equal(mine, other)
    assert ours.problems == theirs.problems
    assert here.identity == there.identity
    assert here.card == there.card
    assert isinstance(there, Model)


def test_what_one_environment_stored_another_finds(bare: Path, tmp_path: Path) -> None:
    store = PredictionStore(tmp_path)
    store.predict(load_model(EMT_NAME), METALS, ALL)
    store.predict(load_model(EMT_NAME, python=str(bare / "bin" / "python")), METALS, ALL)
    assert (store.traffic.computed, store.traffic.found) == (3, 3)


def test_what_a_calculator_prints_is_kept_from_the_messages(folder: Path) -> None:
    model = odd()
    assert model.predict(MANY).energy.tolist() == [1.0] * len(MANY)
    assert model.identity.settings["package"] == "no installed package"


def test_a_property_that_is_not_there_is_not_available_from_there_either() -> None:
    model = ase.load(EMT_NAME, "cpu", sys.executable)
    with pytest.raises(NotAvailable, match=r"EMT gives no magmoms.*not present in this calcul"):
        model.predict(METALS, ("magmoms",))
    assert model.predict(METALS).problems == {}


# --- what dies, hangs or gives out ----------------------------------------------------------------


def test_a_crystal_whose_process_dies_is_computed_again(folder: Path) -> None:
    model = odd("dies")
    before = processes(model)
    assert model.predict(METALS).energy.tolist() == [1.0] * 3
    assert processes(model) != before
    assert (folder / "marker").read_text(encoding="utf-8") == "xx"  # METALS has one such crystal


def test_a_process_killed_from_outside_in_the_middle_is_replaced(folder: Path) -> None:
    model = odd("slow")
    before = processes(model)
    timer = threading.Timer(0.2, os.kill, (before[0], signal.SIGKILL))
    timer.start()
    found = model.predict(Crystals.concatenate([MANY] * 4))
    timer.join()
    assert found.energy.tolist() == [1.0] * 4 * len(MANY)
    assert processes(model) != before


def test_a_process_killed_while_it_waits_costs_no_crystal(folder: Path) -> None:
    model = odd("dies", "&count=1")
    os.kill(processes(model)[0], signal.SIGKILL)
    os.waitid(os.P_PID, processes(model)[0], os.WEXITED | os.WNOWAIT)
    assert model.predict(METALS[1:2]).problems == {}  # it dies once more, of the crystal


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("dies", "ended twice at Al, 1 atoms .signal 11; it said: the neighbour list is empty."),
        ("exits", "ended twice at Al, 1 atoms .exit status 3"),
    ],
)
def test_a_crystal_that_ends_its_process_twice_ends_the_session_and_is_not_remembered(
    folder: Path, tmp_path: Path, fault: str, says: str
) -> None:
    model, store = odd(fault, "&count=99"), PredictionStore(tmp_path / "store")
    with pytest.raises(ModelError, match=says):
        store.energies(model, METALS)
    assert store.traffic.computed == 0
    assert store.energies(model, METALS[:1]).problems == {}  # the subject itself is not lost


def test_a_crystal_that_takes_too_long_ends_the_session_and_is_not_remembered(
    folder: Path, tmp_path: Path
) -> None:
    model, store = odd("hangs", "&timeout_seconds=0.6"), PredictionStore(tmp_path / "store")
    started = time.monotonic()
    with pytest.raises(ModelError, match=r"took more than 0.6 s for Al, 1 atoms. Allow more with"):
        store.energies(model, METALS)
    assert time.monotonic() - started < 200
    assert store.traffic.computed == 0
    assert model.predict(METALS[:1]).problems == {}


def test_memory_that_gives_out_there_is_no_crystals_problem(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"Odd\?fault=memory ran out of something at Cu4, 4 atoms"):
        odd("memory").predict(METALS)


def test_no_process_is_left_when_a_subject_is_gone(folder: Path) -> None:
    model = odd(more="&workers=2")
    model.predict(MANY)
    pids = processes(model)
    assert len(pids) == 2
    del model
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_an_interrupt_does_not_wait_for_what_is_computed(folder: Path) -> None:
    model = odd("hangs", "&workers=2")
    model.predict(METALS[[0, 0]])
    pids = processes(model)
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        model.predict(METALS[[1, 1]])
    assert time.monotonic() - started < 200
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert model.predict(METALS[[0, 2]]).problems == {}


# --- several of them ------------------------------------------------------------------------------


def test_crystals_go_to_whichever_is_free_and_come_back_in_their_order(folder: Path) -> None:
    model = odd("slow", "&workers=2&card.properties=energy,magmoms")
    found = model.predict(MANY, ("magmoms",))
    assert found.magmoms is not None
    assert [len(moments) for moments in found.magmoms] == MANY.n_atoms.tolist()
    assert {moments[0] for moments in found.magmoms} == set(map(float, processes(model)))


def test_a_calculator_without_parameters_of_torchs_is_not_copied_unasked(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "START_AFTER_SECONDS", 0.0)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    model = odd("slow")
    model.predict(MANY)
    model.predict(MANY)
    assert len(processes(model)) == 1


def test_copies_are_at_work_once_they_pay_and_move_no_number(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    model = ase.load("ase:torch_ones:Net", "cpu")
    assert isinstance(model._source, remote.Here)
    others = model._source._others
    assert others is not None
    first = model.predict(MANY, ("forces",))
    assert others._processes == []
    monkeypatch.setattr(remote, "START_AFTER_SECONDS", 0.0)
    second = model.predict(MANY, ("forces",))
    assert len(others._processes) == 2
    np.testing.assert_array_equal(first.energy, second.energy)
    np.testing.assert_array_equal(
        np.concatenate(first.forces or []), np.concatenate(second.forces or [])
    )


def test_copies_that_are_not_the_same_are_not_used(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("torch")
    model = ase.load("ase:torch_ones:Net?seed=-1&workers=2", "cpu")
    found = model.predict(MANY)
    assert "not the same in every process: parameters differ" in caplog.text
    assert "it is computed in one process" in caplog.text
    np.testing.assert_array_equal(found.energy, model.predict(MANY).energy)


def test_workers_of_another_environment_have_to_be_the_same(folder: Path) -> None:
    pytest.importorskip("torch")
    model = ase.load("ase:torch_ones:Net?seed=-1&workers=2", "cpu", sys.executable)
    with pytest.raises(ModelError, match=r"Net\?seed=-1 is not the same.*needs a seed"):
        model.predict(MANY)


# --- what is missing ------------------------------------------------------------------------------


def program(folder: Path, text: str) -> str:
    path = folder / "python-of-sorts"
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


WRONG = [
    ("ase:no_such_package.x:Y", NotAvailable, "needs the package no_such_package"),
    ("ase:ase.calculators.lj:LennardJones?sigm=3", ConfigError, "would ignore sigm"),
    ("ase:odd_ones:Odd?fault=construction", ModelError, "no licence server"),
    ("ase:odd_ones:Odd?fault=implemented", ModelError, "known by cannot be told.*TypeError"),
    ("ase:odd_ones:itself_in_the_way?threads=2", ConfigError, "a parameter threads of its own"),
]


@pytest.mark.parametrize(("name", "error", "says"), WRONG)
@pytest.mark.parametrize("python", [None, sys.executable], ids=["here", "there"])
def test_wrong_names_end_before_any_work_wherever_they_are_made(
    folder: Path, name: str, error: type[HarnessError], says: str, python: str | None
) -> None:
    with pytest.raises(error, match=says):
        ase.load(name, "cpu", python)


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("workers=0", "workers=0: give a number, at least 1"),
        ("threads=1.5", r"threads=1\.5: give a number, at least 1"),
        ("threads=true", "threads=true: give a number"),
        ("timeout_seconds=x", "timeout_seconds=x: give a number"),
        ("timeout_seconds=0", r"timeout_seconds=0: give a number, at least 0\.001"),
    ],
)
def test_how_it_runs_is_checked_before_anything_is_imported(query: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        ase.parse(f"ase:no_such_package:F?{query}")


def test_an_environment_without_ase_is_named(tmp_path: Path) -> None:
    venv.create(tmp_path / "env", with_pip=False, symlinks=True)
    with pytest.raises(NotAvailable, match=r"needs numpy there.*Install it .in .*env/bin/python"):
        load_model(EMT_NAME, "cpu", python=str(tmp_path / "env"))


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("echo no such library >&2; exit 127", NotAvailable, "exit status 127; it said: no such l"),
        ("cat /dev/zero | head -c 100000", NotAvailable, "which ended .exit status 0"),
        ("echo; echo mlip-claims calculator 1; echo nonsense", NotAvailable, "which ended"),
    ],
)
def test_a_program_that_is_no_python_is_refused(
    tmp_path: Path, text: str, error: type[HarnessError], says: str
) -> None:
    with pytest.raises(error, match=says):
        load_model(EMT_NAME, "cpu", python=program(tmp_path, text))


def test_a_program_that_says_nothing_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_GREETING_SECONDS", 0.3)
    with pytest.raises(ModelError, match=r"did not answer within 0\.3 s"):
        load_model(EMT_NAME, "cpu", python=program(tmp_path, "exec sleep 60"))


def test_an_interpreter_is_a_file_a_command_or_an_environment(
    bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert remote.interpreter(str(bare)) == str(bare / "bin" / "python")
    assert remote.interpreter("sh").endswith("/sh")
    monkeypatch.chdir(bare / "bin")
    assert remote.interpreter("python") == str(bare / "bin" / "python")
    (tmp_path / "python").write_text("", encoding="utf-8")
    for named in ("no-such-python", str(tmp_path), str(tmp_path / "python"), ""):
        with pytest.raises(ConfigError, match="is no Python: name the python of an environment"):
            remote.interpreter(named)


# --- what it is known by --------------------------------------------------------------------------


def test_parameters_are_found_and_hashed_wherever_torch_holds_them(folder: Path) -> None:
    pytest.importorskip("torch")

    def known(query: str) -> tuple[str, str]:
        identity = ase.load(f"ase:torch_ones:Net?{query}", "cpu").identity
        return identity.weights_sha256, identity.settings["parameters"]

    sha256, said = known("seed=0")
    assert said == f"97 numbers in 4 tensors, sha256 {sha256}"
    assert len(sha256) == 64
    assert known("where=closure")[0] == known("where=list")[0] == sha256
    assert known("where=tensors")[0] not in ("", sha256)  # of the same numbers without their names
    assert known("seed=1")[0] != sha256
    none = load_model(EMT_NAME).identity
    assert none.settings["parameters"].startswith("none found")
    assert none.weights_sha256.endswith("of code and arguments: no parameters were found")
    assert "torch" not in none.settings


def test_files_among_the_arguments_are_hashed_also_in_lists(folder: Path) -> None:
    for name in ("a", "b"):
        Path(name).write_text(name, encoding="utf-8")
    model = ase.load('ase:odd_ones:Odd?marker=["a","b",3]', "cpu")
    files = {key for key in model.identity.settings if key.startswith("file")}
    assert files == {"file marker 0", "file marker 1"}
    with pytest.raises(ConfigError, match="is no list or table of JSON"):
        ase.parse("ase:m:F?x=[1,")


# --- what belongs to the whole process ------------------------------------------------------------


def test_a_factory_changes_torch_for_itself_alone(folder: Path) -> None:
    torch = pytest.importorskip("torch")
    before = (torch.get_default_dtype(), torch.get_num_threads())
    assert before[0] == torch.float32
    model = ase.load("ase:torch_ones:Net?dtype=float64", "cpu")
    assert (torch.get_default_dtype(), torch.get_num_threads()) == before
    found = model.predict(METALS, ("forces",))
    assert (torch.get_default_dtype(), torch.get_num_threads()) == before
    assert found.forces is not None
    single = ase.load("ase:torch_ones:Net", "cpu").predict(METALS, ("forces",))
    assert single.forces is not None
    in_float32 = single.forces[0].astype(np.float32).astype(float)
    np.testing.assert_array_equal(single.forces[0], in_float32)
    assert (found.forces[0] != found.forces[0].astype(np.float32)).any()  # it kept its own type


def test_a_crystal_has_one_thread_unless_more_are_asked_for(folder: Path) -> None:
    torch = pytest.importorskip("torch")
    one, two = (ase.load(f"ase:torch_ones:Net?threads={n}", "cpu") for n in (1, 2))
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        np.testing.assert_allclose(
            two.predict(METALS).energy, 2 * one.predict(METALS).energy, rtol=1e-6
        )
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)
    there = ase.load("ase:torch_ones:Net?threads=2", "cpu", sys.executable)
    np.testing.assert_array_equal(there.predict(METALS).energy, two.predict(METALS).energy)
    assert one.identity != two.identity


def test_modules_of_the_working_folder_come_after_installed_ones(folder: Path) -> None:
    assert str(folder) not in sys.path
    ase.load("ase:odd_ones:Odd", "cpu")
    assert sys.path[-1] == str(folder)
    ase.load("ase:odd_ones:Odd", "cpu")
    assert sys.path.count(str(folder)) == 1


def test_cores_are_those_that_openmp_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7,2")
    assert ase_worker.cores() == 7
    for unset in ("", "0", "many"):
        monkeypatch.setenv("OMP_NUM_THREADS", unset)
        assert ase_worker.cores() == len(os.sched_getaffinity(0))


# --- the messages ---------------------------------------------------------------------------------


def test_a_message_is_a_length_a_header_and_raw_floats() -> None:
    stream = io.BytesIO()
    values = np.array([[1.5, np.nan, -0.0]])
    ase_worker.send(stream, {"is": "found"}, {"forces": values, "energy": np.array(2.0)})
    header = b'{"is": "found", "arrays": [["forces", [1, 3]], ["energy", []]]}'
    expected = len(header).to_bytes(4, "little") + header + values.astype("<f8").tobytes()
    assert stream.getvalue() == expected + np.array(2.0, "<f8").tobytes()
    stream.seek(0)
    found, arrays = ase_worker.receive(stream)
    assert found["is"] == "found"
    np.testing.assert_array_equal(arrays["forces"], values)
    assert arrays["energy"].shape == ()
    arrays["forces"][0, 0] = 3.0  # its own, to be written to
    for end in (0, 3, 20, len(stream.getvalue()) - 1):
        with pytest.raises(EOFError):
            ase_worker.receive(io.BytesIO(stream.getvalue()[:end]))
    with pytest.raises(ValueError, match="a header of 4294967295 bytes"):
        ase_worker.receive(io.BytesIO(b"\xff" * 64))


def test_the_program_stands_alone_and_runs_on_an_old_python() -> None:
    text = Path(ase_worker.__file__).read_text(encoding="utf-8")
    tree = ast.parse(text, feature_version=(3, 9))
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or "."]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    others = imported - sys.stdlib_module_names
    assert others == {"ase", "numpy", "torch", "threadpoolctl"}
    assert not imported & {"pickle", "marshal", "shelve", "harness"}
