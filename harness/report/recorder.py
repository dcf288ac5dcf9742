"""What a session remembers while it runs, and the files it writes when it ends.

Public: Context, Recorder, RECORDER (where pytest's config keeps it), start_recording, which
conftest.py calls once it knows that checks will run, and on what.

Where pytest-xdist spreads the checks over processes, each of them judges and draws, and hands its
records over with its reports; the process that started them collects and writes.
"""

from __future__ import annotations

import datetime
import json
import os
import shlex
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from harness.claims import Size, Verdict
from harness.evidence import Evidence, Session, in_reading_order, sentences
from harness.report import overview
from harness.report.environment import machine, versions
from harness.report.verdicts import Documented


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
    """Collects evidence while a session runs and writes the reports when it ends."""

    config: pytest.Config
    folder: Path
    context: Context
    documented: Documented
    budget_minutes: float | None
    strict: bool
    started: float = field(default_factory=time.time)
    chosen: dict[str, str] = field(default_factory=dict)  # node id -> key, of all that will run
    left_out: list[str] = field(default_factory=list)  # keys of claims that were not chosen
    errors: list[dict[str, str]] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)  # what fixtures add to the session record
    stopped: str = ""  # why the session ended before its end
    _found: dict[str, tuple[int, Evidence]] = field(
        default_factory=dict
    )  # node id -> place, record

    @property
    def evidence(self) -> list[Evidence]:
        """Every record, in the order in which checks were collected."""
        return [found for _, found in sorted(self._found.values(), key=lambda entry: entry[0])]

    @property
    def is_worker(self) -> bool:
        """Whether another process collects what this one finds."""
        return hasattr(self.config, "workerinput")

    def elapsed_seconds(self) -> float:
        return time.time() - self.started

    def collect(self, node_id: str, properties: list[tuple[str, Any]]) -> None:
        """Take the record and the error that a check left with its report, once."""
        given = dict(properties)
        fields = {
            name.removeprefix("evidence."): json.loads(value)
            for name, value in given.items()
            if name.startswith("evidence.")
        }
        if fields and node_id not in self._found:
            place = int(given.get("harness.place", len(self._found)))
            self._found[node_id] = (place, Evidence.from_dict(fields))
        if "harness.error" in given and node_id not in {e["test"] for e in self.errors}:
            self.errors.append({"test": node_id, "message": given["harness.error"]})

    def add_notes(self, notes: dict[str, Any]) -> None:
        """What fixtures noted in another process; what was counted there adds up."""
        for name, value in notes.items():
            mine = self.notes.get(name)
            if isinstance(mine, dict) and isinstance(value, dict):
                value = {key: value[key] + mine.get(key, 0) for key in value}
            self.notes[name] = value

    @property
    def not_reached(self) -> list[str]:
        """What was chosen and left neither a record nor an error; a spent budget's included."""
        done = self._found.keys() | {e["test"] for e in self.errors}
        unreached = [key for node_id, key in self.chosen.items() if node_id not in done]
        return unreached + [e.key for e in self.evidence if e.reason.startswith(BUDGET)]

    @property
    def incomplete(self) -> str:
        """Why the session is not whole; empty if it is."""
        not_reached = self.not_reached
        if self.stopped:
            return self.stopped
        if any(e.reason.startswith(BUDGET) for e in self.evidence):
            return f"{BUDGET} of {self.budget_minutes:g} minutes was spent"
        return f"{len(not_reached)} checks left no record" if not_reached else ""

    @property
    def changed(self) -> list[Evidence]:
        """Claims whose verdict is not the documented one, measured on these very data.

        A file that is not on this machine changes no verdict.
        """
        return overview.changed(self.evidence)

    def session(self) -> Session:
        """All of it as one record."""
        from harness.report import multiplicity

        stamp = datetime.datetime.fromtimestamp(self.started, datetime.UTC)
        evidence = multiplicity.holm(self.evidence)
        incomplete = self.incomplete
        return Session(
            session={
                "started": stamp.isoformat(timespec="seconds"),
                "seconds": round(self.elapsed_seconds(), 2),
                "command": self.command,
                "dataset": self.context.dataset,
                "dataset_reason": self.context.dataset_reason,
                "training_dataset": self.context.training_dataset,
                "model": self.context.model,
                "device": self.context.device,
                "size": str(self.context.size),
                "sample": self.context.sample,
                "complete": not incomplete,
                "incomplete_reason": incomplete,
                "not_reached": self.not_reached,
                "resume": self.command if incomplete else "",
                "multiplicity": multiplicity.summary(evidence),
                "machine": machine(),
                "versions": versions(),
                **self.notes,
            },
            claims=tuple(in_reading_order(evidence)),
            errors=tuple(self.errors),
            left_out=tuple(self.left_out),
        )

    @property
    def command(self) -> str:
        """What was typed."""
        return shlex.join(["pytest", *map(str, self.config.invocation_params.args)])

    def write(self) -> Session:
        from harness.report.page import write_page

        self.folder.mkdir(parents=True, exist_ok=True)
        session = self.session()
        session.save(self.folder)
        write_page(self.folder)
        _point_latest(self.folder)
        return session

    def sentences(self) -> dict[str, Verdict]:
        """Claim -> the verdict of its sentence."""
        return {made.id: made.verdict for made in sentences(self.evidence, self.left_out)}


BUDGET = "the budget"  # how the reason of a check begins that the budget left no time for


def start_recording(config: pytest.Config, context: Context, documented: Documented) -> None:
    """Called by conftest.py once it knows that checks will run, and on what."""
    worker = getattr(config, "workerinput", None)
    folder = config.getoption("--report") if worker is None else worker["harness_report"]
    if folder is None:
        stamp = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H-%M-%S")
        folder = config.rootpath / "reports" / stamp
    folder = Path(folder).resolve()
    if not config.option.collectonly:
        folder.mkdir(parents=True, exist_ok=True)
    recorder = Recorder(
        config=config,
        folder=folder,
        context=context,
        documented=documented,
        budget_minutes=config.getoption("--budget"),
        strict=bool(config.getini("strict")),
    )
    if worker is not None:
        recorder = replace(recorder, started=worker["harness_started"])
    config.stash[RECORDER] = recorder
    if config.option.xmlpath is None and not config.option.collectonly and worker is None:
        config.option.xmlpath = str(folder / "junit.xml")


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
