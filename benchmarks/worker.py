"""One contestant in a process of its own: nothing warm when it starts, and its memory its own.

The parent sends a line of JSON with the input's file, the child answers with a line: seconds of the
clock and of the processor, and the peak of its resident memory while it ran. What contestants print
goes elsewhere.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True, kw_only=True)
class Start:
    """What it took from nothing to ready."""

    until_ready_s: float  # of the clock, as the parent saw it, Python's own start included
    import_s: float
    load_s: float
    memory_mb: float  # resident when ready


@dataclass(frozen=True, kw_only=True)
class Run:
    seconds: float
    cpu_seconds: float  # of all threads
    peak_mb: float  # of resident memory while it ran; since it started where this is not Linux
    gpu_peak_mb: float  # that torch held on the GPU while it ran; 0 on a processor
    arrays: dict[str, np.ndarray] = field(default_factory=dict)


class WorkerError(RuntimeError):
    """A contestant failed; the message ends with what it wrote."""


class Worker:
    """A contestant that was started and loaded, waiting for input. Use as a context manager."""

    def __init__(
        self,
        name: str,
        *,
        device: str = "cpu",
        threads: int | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.name = name
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  (closed by __exit__)
        variables = {**os.environ, **(environment or {})}
        if threads is not None:
            variables |= dict.fromkeys(THREAD_VARIABLES, str(threads))
        command = [sys.executable, "-m", "benchmarks.worker", name, device, str(threads or 0)]
        started = time.perf_counter()
        self._process = subprocess.Popen(  # noqa: S603  (this file's own code)
            command,
            cwd=ROOT,
            env=variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
        )
        try:
            ready = self._answer()
        except BaseException:
            self.close()
            raise
        self.start = Start(until_ready_s=time.perf_counter() - started, **ready)

    def run(self, path: Path, *, keep: bool = True) -> Run:
        """Let it compute what the file holds; ``keep`` brings the results back."""
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "out.npz"
            question = {"path": str(path), "out": str(out) if keep else None}
            stdin = self._process.stdin
            if stdin is None:
                raise WorkerError(f"{self.name} was closed")
            with contextlib.suppress(BrokenPipeError):  # then there is no answer either
                stdin.write(json.dumps(question) + "\n")
                stdin.flush()
            answer = self._answer()
            arrays = {}
            if keep:
                with np.load(out, allow_pickle=False) as archive:
                    arrays = {key: archive[key] for key in archive.files}
        return Run(**answer, arrays=arrays)

    def _answer(self) -> dict[str, float]:
        stdout = self._process.stdout
        line = stdout.readline() if stdout else ""
        if not line:
            self._process.wait()
            self._stderr.seek(0)
            said = self._stderr.read().decode(errors="replace").strip()[-1500:]
            raise WorkerError(f"{self.name} ended with code {self._process.returncode}:\n{said}")
        return json.loads(line)

    def close(self) -> None:
        if self._process.stdin:
            self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()
        self._stderr.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


# --- the child ------------------------------------------------------------------------------------


def main(name: str, device: str, threads: int) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    warnings.simplefilter("ignore")
    if threads and hasattr(os, "sched_setaffinity"):
        allowed = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, allowed[:threads])

    from benchmarks.contestants import CONTESTANTS

    kind = CONTESTANTS[name]
    clock = time.perf_counter()
    for module in kind.modules:
        importlib.import_module(module)
    import_s, clock = time.perf_counter() - clock, time.perf_counter()
    if threads and "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    contestant = kind(device)
    load_s = time.perf_counter() - clock
    ready = {"import_s": import_s, "load_s": load_s, "memory_mb": _resident_mb()}
    print(json.dumps(ready), file=answers, flush=True)

    for line in sys.stdin:
        question = json.loads(line)
        prepared = contestant.prepare(Path(question["path"]))
        _forget_peak(device)
        clock, cpu = time.perf_counter(), time.process_time()
        result = contestant.run(prepared)
        answer: dict[str, Any] = {
            "seconds": time.perf_counter() - clock,
            "cpu_seconds": time.process_time() - cpu,
            "peak_mb": _peak_mb(),
            "gpu_peak_mb": _gpu_peak_mb(device),
        }
        if question["out"]:
            found: dict[str, Any] = dict(contestant.arrays(result))
            np.savez(question["out"], **found)
        del prepared, result
        print(json.dumps(answer), file=answers, flush=True)


def _status_mb(key: str) -> float | None:
    """A line of /proc/self/status in MB, or None where there is none.

    Unlike getrusage, it does not remember what the process was before it became this program.
    """
    try:
        text = Path("/proc/self/status").read_text()
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024 / 1e6
    return None


def _resident_mb() -> float:
    found = _status_mb("VmRSS")
    return _peak_mb() if found is None else found


def _peak_mb() -> float:
    if (found := _status_mb("VmHWM")) is not None:
        return found
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def _gpu_peak_mb(device: str) -> float:
    if not device.startswith("cuda"):
        return 0.0
    return sys.modules["torch"].cuda.max_memory_allocated() / 1e6


def _forget_peak(device: str) -> None:
    """Start the peaks anew, so that every run has its own; that of the process only on Linux."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    if device.startswith("cuda"):
        sys.modules["torch"].cuda.reset_peak_memory_stats()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
