"""What a session remembers while it runs, and the files it writes when it ends.

Public: Context, Recorder, RECORDER (where pytest's config keeps it), start_recording, which
conftest.py calls once it knows that checks will run, and on what.
"""

from __future__ import annotations

import datetime
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from harness.evidence import Evidence, Session, in_reading_order
from harness.report.environment import machine, versions
from harness.report.verdicts import Documented


@dataclass(frozen=True, kw_only=True)
class Context:
    """What this session is about; conftest.py knows, the recorder writes it down."""

    dataset: str
    dataset_reason: str  # why this one, in a sentence
    model: str
    device: str
    sample: int | None = None


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
    evidence: list[Evidence] = field(default_factory=list)
    errors: list[dict[str, str]] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)  # what fixtures add to the session record

    def elapsed_seconds(self) -> float:
        return time.time() - self.started

    def write(self) -> None:
        from harness.report.page import write_page

        self.folder.mkdir(parents=True, exist_ok=True)
        stamp = datetime.datetime.fromtimestamp(self.started, datetime.UTC)
        session = Session(
            session={
                "started": stamp.isoformat(timespec="seconds"),
                "seconds": round(self.elapsed_seconds(), 2),
                "command": "pytest " + " ".join(self.config.invocation_params.args),
                "dataset": self.context.dataset,
                "dataset_reason": self.context.dataset_reason,
                "model": self.context.model,
                "device": self.context.device,
                "sample": self.context.sample,
                "machine": machine(),
                "versions": versions(),
                **self.notes,
            },
            claims=tuple(in_reading_order(self.evidence)),
            errors=tuple(self.errors),
        )
        session.save(self.folder)
        write_page(self.folder)
        _point_latest(self.folder)


def start_recording(config: pytest.Config, context: Context, documented: Documented) -> None:
    """Called by conftest.py once it knows that checks will run, and on what."""
    folder = config.getoption("--report")
    if folder is None:
        stamp = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H-%M-%S")
        folder = config.rootpath / "reports" / stamp
    folder = Path(folder).resolve()
    if not config.option.collectonly:
        folder.mkdir(parents=True, exist_ok=True)
    config.stash[RECORDER] = Recorder(
        config=config,
        folder=folder,
        context=context,
        documented=documented,
        budget_minutes=config.getoption("--budget"),
        strict=bool(config.getini("strict")),
    )
    if config.option.xmlpath is None and not config.option.collectonly:
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
