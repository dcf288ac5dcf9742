"""Calculators in processes of their own: of another interpreter, or several of this one at work
side by side.

A calculator is not safe to share between threads, so each has a process, on so many threads of
torch's as one crystal gets. `ase_worker.py` is the program and says how they talk. A process that
dies is started anew and its crystal computed again. One that dies twice of the same crystal ends
the session with a ModelError: from outside a crystal that breaks a calculator cannot be told from
memory that gave out, and what says nothing about a row must not be remembered as its problem.

Public: Here, Workers, interpreter.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import shutil
import subprocess
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from harness.errors import ConfigError
from harness.models import ase_worker
from harness.models.ase_worker import Held, Raised, Refused, cores, others_warnings

if TYPE_CHECKING:
    from ase import Atoms

Answer = dict[str, np.ndarray] | str  # a property -> float64 in ASE's units, or why there is none

# A process costs some seconds to start, most of them for importing torch: others are started once
# so much was spent that they pay, and a quick calculator never pays for them.
START_AFTER_SECONDS = 10.0
_GREETING_SECONDS = 60.0
_MAKING_SECONDS = 600.0  # or what a crystal may take, where that is more
_WATCH_SECONDS = 0.1
_LAST_SECONDS = 2.0
_MOST_LINES = 1000  # that others may print before the greeting
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
# Without the folder that -c puts first, where a file may be called as a module of Python's.
_PROGRAM = (
    "import sys; sys.path[:1] == [''] and sys.path.pop(0); "
    "exec(compile(open(sys.argv[1], 'rb').read(), sys.argv[1], 'exec'))"
)
_T = TypeVar("_T")
_log = logging.getLogger(__name__)


def interpreter(named: str) -> str:
    """The Python that --python names: a file, a command, or the folder of an environment.

    Raises:
        ConfigError: there is none.
    """
    path = Path(named).expanduser()
    if path.is_dir():
        inside = [path / "bin" / "python", path / "python.exe", path / "Scripts" / "python.exe"]
        path = next((python for python in inside if python.is_file()), path)
    found = str(path.absolute()) if path.is_file() else shutil.which(named)
    if found is None or not os.access(found, os.X_OK):
        raise ConfigError(
            f"{named!r} is no Python: name the python of an environment, such as "
            "../mace-env/bin/python. To make one: python -m venv ../mace-env"
        )
    return found


class Here:
    """A calculator in this process; where that takes long, copies of it in others of this Python.

    Which process computes a crystal changes no number: each computes one at a time, on the same
    number of threads.
    """

    def __init__(self, held: Held, others: Workers | None = None) -> None:
        self.facts: Mapping[str, Any] = held.facts
        self._held = held
        self._others = others
        self._spent_seconds = 0.0

    def each(self, crystals: Sequence[Atoms], wanted: Sequence[str]) -> Iterator[Answer]:
        """An answer for each crystal, in their order.

        Raises:
            Refused: a property or a package is not there, or what is needed gave out.
        """
        if self._others is not None and len(crystals) > 1 and self._pays(self._others):
            try:
                self._others.start()
            except Refused as error:
                _log.warning("%s; it is computed in one process", error)
                self._others = None
            else:
                yield from self._others.each(crystals, wanted)
                return
        started = time.perf_counter()
        with others_warnings(), self._held.surroundings():
            found = [self._held.ask(atoms, wanted) for atoms in crystals]
        self._spent_seconds += time.perf_counter() - started
        yield from found

    def _pays(self, others: Workers) -> bool:
        return others.asked_for or self._spent_seconds > START_AFTER_SECONDS


class Workers:
    """Calculators made by one request, each in a process; crystals go to whichever is free."""

    def __init__(
        self,
        python: str,
        request: Mapping[str, Any],
        *,
        count: int | None,
        timeout_seconds: float,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        """Starts one, unless its facts are known.

        Args:
            python: the interpreter.
            request: as `ase_worker.make` takes it.
            count: processes; None for as many as there are cores once they pay, where torch holds
                the calculator's parameters, and else one: others may write files.
            timeout_seconds: for one crystal.
            facts: of the calculator that these are copies of.
        Raises:
            Refused: the calculator cannot be made there.
        """
        self.asked_for = count is not None and count > 1
        self._spent_seconds = 0.0
        self._processes: list[_Process] = []
        self._new = lambda: _Process(python, request, timeout_seconds)
        if facts is None:
            self._processes = [self._new()]
            facts = self._processes[0].facts
        self.facts = facts
        self._count = count or (cores() if facts["many"] else 1)

    def start(self) -> None:
        """All of them, where they are not yet at work.

        Raises:
            Refused: one cannot be made, or is another than its facts say.
        """
        missing = self._count - len(self._processes)
        if missing < 1:
            return
        with ThreadPoolExecutor(missing) as pool:
            started = [pool.submit(self._new) for _ in range(missing)]
        new = [process.result() for process in started]
        for process in new:
            process.expect(self.facts)
        self._processes += new

    def each(self, crystals: Sequence[Atoms], wanted: Sequence[str]) -> Iterator[Answer]:
        """An answer for each crystal, in their order.

        Raises:
            Refused: a property or a package is not there, what is needed gave out, a crystal took
                too long, or its process died twice.
        """
        if self.asked_for or self._spent_seconds > START_AFTER_SECONDS:
            self.start()
        started = time.perf_counter()
        answers: list[Answer] = [""] * len(crystals)
        left = deque(sorted(range(len(crystals)), key=lambda i: -len(crystals[i])))

        def work(process: _Process) -> None:
            while True:
                try:
                    i = left.popleft()
                except IndexError:
                    return
                try:
                    answers[i] = process.compute(crystals[i], wanted, self.facts)
                except BaseException:
                    left.clear()
                    raise

        at_work = self._processes[: len(crystals)]
        for process in at_work:
            process.interrupted = False
        if len(at_work) < 2:
            for process in at_work:
                work(process)
        else:
            self._side_by_side(work, at_work)
        self._spent_seconds += time.perf_counter() - started
        yield from answers

    def _side_by_side(self, work: Callable[[_Process], None], at_work: Sequence[_Process]) -> None:
        with ThreadPoolExecutor(len(at_work)) as pool:
            done = [pool.submit(work, process) for process in at_work]
            try:
                for future in done:
                    future.result()
            except Refused:
                raise
            except BaseException:  # interrupted: what they compute is of no use any more
                for process in at_work:
                    process.interrupted = True
                    process.end()
                raise


class _Process:
    """One calculator in one process."""

    def __init__(self, python: str, request: Mapping[str, Any], timeout_seconds: float) -> None:
        self._python, self._request, self._timeout_seconds = python, request, timeout_seconds
        self.facts: Mapping[str, Any] = {}
        self.interrupted = False  # ended while another thread waits, which is not to ask again
        self._start()

    def compute(self, atoms: Atoms, wanted: Sequence[str], facts: Mapping[str, Any]) -> Answer:
        """What the calculator gives; where its process dies, what a second one gives."""
        if self._popen.poll() is not None:  # while it had nothing to do
            self._start_as(facts)
        with contextlib.suppress(_Died):
            return self._answer(atoms, wanted)
        self._start_as(facts)
        try:
            return self._answer(atoms, wanted)
        except _Died as error:
            raise Refused(
                "failed",
                f"ended twice at {_described(atoms)} ({error}), for lack of memory or by a fault "
                "of its own. Give it more, or leave the row out; finished batches are kept",
            ) from None

    def expect(self, facts: Mapping[str, Any]) -> None:
        """Raises Refused where it is another than these say."""
        if self.facts == facts:
            return
        self.end()
        settings, known = self.facts["settings"], facts["settings"]
        differ = sorted(k for k in settings | known if settings.get(k) != known.get(k))
        raise Refused(
            "failed",
            f"is not the same in every process: {', '.join(differ)} differ. A calculator whose "
            "parameters are drawn at random needs a seed",
        )

    def end(self) -> None:
        """Nothing of it is left; it is started anew where it is asked again."""
        self._finalizer()

    # --- how it is done -----------------------------------------------------------------------

    def _answer(self, atoms: Atoms, wanted: Sequence[str]) -> Answer:
        arrays = {
            "numbers": atoms.numbers.astype(np.float64),
            "positions_ang": atoms.positions,
            "cell_ang": atoms.cell.array,
        }
        try:
            header, found = self._ask(
                {"ask": "compute", "wanted": list(wanted)}, arrays, self._timeout_seconds
            )
        except _TooLong:
            raise Refused(
                "failed",
                f"took more than {self._timeout_seconds:g} s for {_described(atoms)}. Allow more "
                "with timeout_seconds=; finished batches are kept",
            ) from None
        if header["is"] == "refused":
            raise Refused(header["kind"], header["words"])
        if header["is"] == "raised":
            return Raised(header["words"])
        return header["words"] if header["is"] == "problem" else found

    def _start_as(self, facts: Mapping[str, Any]) -> None:
        self.end()
        if self.interrupted:
            raise Refused("failed", "was interrupted")
        self._start()
        self.expect(facts)

    def _start(self) -> None:
        threads = str(self._request["threads"])
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONHOME"}
        try:
            self._popen = subprocess.Popen(  # noqa: S603  (the user's own interpreter)
                [self._python, "-c", _PROGRAM, ase_worker.__file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment | dict.fromkeys(_THREAD_VARIABLES, threads),
                start_new_session=True,  # Ctrl-C is for this process, which ends the others
            )
        except OSError as error:
            raise Refused("absent", f"cannot start {self._python}: {error}") from None
        self._said: deque[str] = deque(maxlen=20)
        self._limit = _Limit()
        watched = (self._popen, self._limit)
        watchers = [
            threading.Thread(target=_listen, args=(self._popen.stderr, self._said), daemon=True),
            threading.Thread(target=_watch, args=watched, daemon=True),
        ]
        self._finalizer = weakref.finalize(self, _end, *watched, watchers)
        for watcher in watchers:
            watcher.start()
        allowed = _GREETING_SECONDS
        try:
            self._within(allowed, self._greeting)
            allowed = max(_MAKING_SECONDS, self._timeout_seconds)
            header, _ = self._ask({"ask": "make", **self._request}, {}, allowed)
        except _Died as error:
            raise Refused(
                "absent",
                f"cannot be made by {self._python}, which ended ({error}). It has to be a Python "
                "of 3.9 or later that can import ase",
            ) from None
        except _TooLong:
            raise Refused(
                "failed",
                f"{self._python} did not answer within {allowed:g} s. Is it a Python, and the "
                "calculator quicker to make? Allow it more with timeout_seconds=",
            ) from None
        if header["is"] == "refused":
            self.end()
            raise Refused(header["kind"], f"{header['words']} (in {self._python})")
        self.facts = header["facts"]

    def _greeting(self) -> None:
        for _ in range(_MOST_LINES):
            line = self._popen.stdout.readline()  # type: ignore[union-attr]
            if line == ase_worker.GREETING:
                return
            if not line:
                break
        raise EOFError

    def _ask(
        self, request: Mapping[str, Any], arrays: Mapping[str, np.ndarray], seconds: float
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        def talk() -> tuple[dict[str, Any], dict[str, np.ndarray]]:
            ase_worker.send(self._popen.stdin, request, arrays)  # type: ignore[arg-type]
            return ase_worker.receive(self._popen.stdout)  # type: ignore[arg-type]

        return self._within(seconds, talk)

    def _within(self, seconds: float, talk: Callable[[], _T]) -> _T:
        """What talk gives. The process does not outlive an answer that did not come whole."""
        self._limit.until = time.monotonic() + seconds
        try:
            return talk()
        except (EOFError, OSError, ValueError):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(_LAST_SECONDS)  # for its own exit status and last words
            self.end()
            if self._limit.passed:
                raise _TooLong from None
            raise _Died(self._last_words()) from None
        except BaseException:
            self.end()
            raise
        finally:
            self._limit.until = math.inf

    def _last_words(self) -> str:
        code = self._popen.returncode
        how = f"signal {-code}" if code is not None and code < 0 else f"exit status {code}"
        said = next((line for line in reversed(self._said) if line), "")
        return f"{how}; it said: {said[:200]}" if said else how


def _described(atoms: Atoms) -> str:
    return f"{atoms.get_chemical_formula()}, {len(atoms)} atoms"


class _Died(Exception):
    """A process ended, or answered with something else than a message."""


class _TooLong(Exception):
    """A process was ended because it took longer than it may."""


def _listen(stream: Any, said: deque[str]) -> None:
    """The last lines of what a process prints, which would otherwise wait for a reader."""
    with stream:
        for line in stream:
            said.append(line.decode(errors="backslashreplace").strip())


class _Limit:
    """Until when a process may take for what it was asked."""

    def __init__(self) -> None:
        self.until = math.inf
        self.passed = False
        self.over = threading.Event()  # nothing is left to watch


def _watch(popen: subprocess.Popen[bytes], limit: _Limit) -> None:
    """End a process that takes too long; a thread, since nothing else can end a read of a pipe."""
    while not limit.over.wait(_WATCH_SECONDS):
        if time.monotonic() > limit.until:
            limit.passed = True
            popen.kill()
            return


def _end(
    popen: subprocess.Popen[bytes], limit: _Limit, threads: Sequence[threading.Thread]
) -> None:
    popen.kill()
    popen.wait()
    limit.over.set()
    for thread in threads:
        thread.join(1.0)
    for stream in (popen.stdin, popen.stdout):
        with contextlib.suppress(OSError):  # it held what the process will not read
            stream.close()  # type: ignore[union-attr]
