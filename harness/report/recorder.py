"""What a session tells its journal while it runs, and the files it writes when it ends.

Public: Context, Recorder, RECORDER (where pytest's config keeps it), start_recording, which
conftest.py calls once it knows that checks will run, and on what.

Where pytest-xdist spreads the checks over processes, each of them judges and draws, and hands its
records over with its reports; the process that started them collects and writes.
"""

from __future__ import annotations

import datetime
import itertools
import json
import os
import shlex
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.claims import Size
from harness.errors import ConfigError
from harness.evidence import Evidence
from harness.files import all_printable, check_writable, printable
from harness.report import overview, products
from harness.report.environment import machine, versions
from harness.report.journal import NAME, Journal
from harness.report.verdicts import Documented

if TYPE_CHECKING:
    from filelock import BaseFileLock


@dataclass(frozen=True, kw_only=True)
class Context:
    """What this session is about; conftest.py knows, the recorder writes it down."""

    dataset: str
    dataset_reason: str  # why this one, in a sentence
    model: str
    device: str
    size: Size = Size.QUICK
    sample: int | None = None
    training_dataset: str = ""  # what claims about training are measured on, if another set


RECORDER = pytest.StashKey["Recorder"]()


@dataclass
class Recorder:
    """Tells a session's journal what it finds, and has the reports written when it ends."""

    config: pytest.Config
    folder: Path
    context: Context
    documented: Documented
    budget_minutes: float | None
    strict: bool
    began: float = field(default_factory=lambda: time.monotonic())  # no step of a clock moves it
    chosen: dict[str, str] = field(default_factory=dict)  # node id -> key, of all that will run
    left_out: list[str] = field(default_factory=list)  # keys of claims that were not chosen
    notes: dict[str, Any] = field(default_factory=dict)  # what fixtures add to the session record
    stopped: str = ""  # why the session ended before its end
    lock: BaseFileLock | None = None
    journal: Journal = field(default_factory=lambda: Journal(None))

    @property
    def evidence(self) -> list[Evidence]:
        """Every record, in the order in which checks were collected."""
        return self.journal.told.evidence

    @property
    def is_worker(self) -> bool:
        """Whether another process collects what this one finds."""
        return hasattr(self.config, "workerinput")

    @property
    def begun(self) -> bool:
        """Whether any check was to run."""
        return bool(self.journal.told.about)

    def elapsed_seconds(self) -> float:
        return time.monotonic() - self.began

    def begin(self) -> None:
        """Called when it is known what will be checked: an earlier report makes way."""
        try:
            products.make_way(self.folder)
        except OSError as error:
            raise pytest.UsageError(
                f"{self.folder} holds an earlier report that cannot make way: {error}. Name "
                "another folder with --report."
            ) from None
        self.journal = Journal(self.folder / NAME)
        context = self.context
        about = {
            "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "command": self.command,
            "dataset": context.dataset,
            "dataset_reason": context.dataset_reason,
            "training_dataset": context.training_dataset,
            "model": context.model,
            "device": context.device,
            "size": str(context.size),
            "sample": context.sample,
            "machine": machine(),
            "versions": versions(),
        }
        chosen = {"chosen": self.chosen, "left_out": self.left_out}
        self._tell("begin", about=about, budget_minutes=self.budget_minutes, **chosen)

    def choose(self) -> None:
        """Tell what is to be checked once another process has said what that is called."""
        self._tell("chosen", chosen=self.chosen, left_out=self.left_out)

    def collect(self, report: pytest.TestReport) -> None:
        """Tell how a check ended, with the record and the error that it left with its report."""
        given = dict(report.user_properties)
        told = self.journal.told
        record = {
            name.removeprefix("evidence."): json.loads(str(value))
            for name, value in given.items()
            if name.startswith("evidence.")
        }
        outcome = _outcome(report)
        died = str(report.when) == "???"  # the process of the check did, says pytest-xdist
        self._tell(
            "check",
            outcome=outcome,
            place=given.get("harness.place", len(told.found)),
            record=record or None,
            error=given.get("harness.error", outcome["text"] if died else ""),
            files=given.get("harness.files", {}),
            not_written=given.get("harness.not-written", []),
        )

    def add_notes(self, notes: Mapping[str, Any]) -> None:
        """What fixtures noted in another process; what was counted there adds up."""
        for name, value in notes.items():
            mine = self.notes.get(name)
            if isinstance(mine, dict) and isinstance(value, dict):
                value = {key: value[key] + mine.get(key, 0) for key in value}
            self.notes[name] = value

    def end(self) -> None:
        """The last line of the journal."""
        self._tell("end", stopped=self.stopped, notes=self.notes)

    def write(self) -> list[str]:
        """Write the reports; returns what found no place, in words."""
        _, problems = products.write_all(self.folder, self.journal.told)
        if self.journal.problem:
            problems.insert(0, self.journal.problem)
        if not problems:
            _point_latest(self.folder)
        return problems

    @property
    def changed(self) -> list[Evidence]:
        """Claims whose verdict is not the documented one, measured on these very data.

        A file that is not on this machine changes no verdict.
        """
        return overview.changed(self.evidence)

    @property
    def command(self) -> str:
        """What was typed."""
        return shlex.join(["pytest", *map(str, self.config.invocation_params.args)])

    def _tell(self, what: str, **entry: Any) -> None:
        self.journal.tell(what, at=self.elapsed_seconds(), **entry)


def _outcome(report: pytest.TestReport) -> dict[str, Any]:
    """What `junit.xml` says of a report: a raise in a test's body is a failure, any other an error,
    and what pytest expects to fail counts as skipped."""
    message = text = ""
    outcome = str(report.outcome)
    if report.failed:
        outcome = "failed" if report.when == "call" else "error"
        crash = getattr(report.longrepr, "reprcrash", None)
        text = report.longreprtext
        message = text if crash is None else str(crash.message)
    elif report.skipped:
        known = getattr(report, "wasxfail", None)
        message = str(report.longrepr[2]) if known is None else f"known: {known}"  # type: ignore[index]
    return {
        "test": report.nodeid,
        "outcome": outcome,
        "seconds": round(report.duration, 3),
        "message": message,
        "text": text,
    }


def start_recording(config: pytest.Config, context: Context, documented: Documented) -> None:
    """Called by conftest.py once it knows that checks will run, and on what.

    Raises:
        pytest.UsageError: the report folder cannot be written, or another session has it.
    """
    worker = getattr(config, "workerinput", None)
    recorder = Recorder(
        config=config,
        folder=Path(worker["harness_report"]) if worker is not None else Path(),
        context=replace(context, **all_printable(_words(context))),
        documented=documented,
        budget_minutes=config.getoption("--budget"),
        strict=bool(config.getini("strict")),
    )
    if worker is not None:
        recorder.began -= worker["harness_elapsed"]
    elif not config.option.collectonly:
        try:
            recorder.folder, recorder.lock = _folder(config)
        except ConfigError as error:
            raise pytest.UsageError(str(error)) from None
    config.stash[RECORDER] = recorder


def _words(context: Context) -> dict[str, Any]:
    """What a context says in words, some of which the user typed."""
    return {name: value for name, value in vars(context).items() if type(value) is str}


def _folder(config: pytest.Config) -> tuple[Path, BaseFileLock]:
    """The folder this session writes to and nobody else, and the lock that keeps it so."""
    remedy = "Name another with --report."
    asked = config.getoption("--report")
    if asked is not None:
        try:
            folder = Path(asked).resolve()
        except (OSError, ValueError, RuntimeError) as error:  # a NUL, a ring of links
            raise ConfigError(f"--report={printable(str(asked))}: {error}. {remedy}") from None
        check_writable(folder, "the report", remedy)
        return folder, products.lock(folder)
    reports = config.rootpath / "reports"
    check_writable(reports, "reports", remedy)
    stamp = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H-%M-%S")
    for k in itertools.count(1):
        folder = (reports / (stamp if k == 1 else f"{stamp}-{k}")).resolve()
        with suppress(FileExistsError):  # another session began within this second
            folder.mkdir()
            return folder, products.lock(folder)
    raise AssertionError("unreachable: one can always count further")


def leave(recorder: Recorder) -> None:
    """Let the folder go; one in which nothing was written vanishes."""
    if recorder.lock is None:
        return
    recorder.lock.release()
    if not recorder.begun and {p.name for p in recorder.folder.glob("*")} <= {products.LOCK}:
        with suppress(OSError):
            (recorder.folder / products.LOCK).unlink(missing_ok=True)
            recorder.folder.rmdir()


def _point_latest(folder: Path) -> None:
    """`reports/latest` -> the folder just written, where it lies under a folder of reports."""
    link = folder.parent / "latest"
    if folder.parent.name != "reports" or (link.exists() and not link.is_symlink()):
        return
    scratch = folder.parent / f".latest.{os.getpid()}"
    try:
        scratch.symlink_to(folder.name, target_is_directory=True)
        scratch.replace(link)
    except OSError as error:  # a file system without links: the report itself is written
        print(f"reports/latest was not updated: {error}", file=sys.stderr)
