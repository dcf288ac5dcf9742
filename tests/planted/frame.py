"""Plants one defect at a time on the honest path and says what turns red.

A defect is a small patch at run time: a function that is handed a `Plant` and replaces part of the
harness, of a check, or of a copy of the source. It runs in a process of its own, as a session on
the data that come with the project, limited to the checks that matter. Its cache is a copy of a
warm one, by hard links, less what would hide that the code behind it changed.

What counts is what a user sees: an exit status other than 0, with the name of what turned red.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import re
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
ARGUMENTS = ("-q", "-rfE", "-p", "no:cacheprovider", "-W", "ignore:Module already imported")
SECONDS = 900  # more than any of them takes
# What the guards of this work say. Where nothing else turned red, nothing did before them.
GUARDS = re.compile(
    r"^moved |integrity\.|were scored, and the interval|are called|test_engines|reports_judged"
)


class Plant:
    """What a defect may do. As a plugin of pytest's it also reaches the checks themselves."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ran = 0  # how often planted code ran
        self._dropped: set[str] = set()
        self._marks: list[tuple[str, Callable[[dict[str, Any]], None]]] = []
        self._modules: list[tuple[str, Callable[[ModuleType], None]]] = []

    def set(self, where: str, value: Any) -> None:
        """Replace an attribute, `package.module:Class.attribute`."""
        owner, name = self._find(where)
        setattr(owner, name, value)
        self.ran += 1

    def wrap(self, where: str, around: Callable[..., Any]) -> None:
        """Replace a function by ``around(function, *its arguments)``."""
        owner, name = self._find(where)
        original = getattr(owner, name)

        @functools.wraps(original)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.ran += 1
            return around(original, *args, **kwargs)

        setattr(owner, name, wrapped)

    def drop(self, *tests: str) -> None:
        """As if these were not in their file."""
        self._dropped.update(tests)

    def mark(self, test: str, change: Callable[[dict[str, Any]], None]) -> None:
        """Change what a check's marker says of its claim."""
        self._marks.append((test, change))

    def module(self, name: str, change: Callable[[ModuleType], None]) -> None:
        """Change the module of a file of checks once it is imported."""
        self._modules.append((name, change))

    def edit(self, path: str, old: str, new: str) -> None:
        """Change the source itself, in a copy of the checkout that this process moves into."""
        copy = self.folder / "checkout"
        if not copy.exists():
            for name in ("harness", "checks", "conftest.py", "pyproject.toml", "fixtures"):
                source = ROOT / name
                if name == "fixtures":
                    (copy / name).symlink_to(source)
                elif source.is_dir():
                    ignore = shutil.ignore_patterns("__pycache__")
                    shutil.copytree(source, copy / name, ignore=ignore)
                else:
                    shutil.copy(source, copy / name)
        text = (copy / path).read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{path} has {text.count(old)} times {old!r}"
        (copy / path).write_text(text.replace(old, new), encoding="utf-8")
        os.chdir(copy)
        sys.path.insert(0, str(copy))
        for name in [n for n in sys.modules if n.partition(".")[0] == "harness"]:
            del sys.modules[name]
        self.ran += 1

    @staticmethod
    def _find(where: str) -> tuple[Any, str]:
        module, _, path = where.partition(":")
        *parents, name = path.split(".")
        owner: Any = importlib.import_module(module)
        for parent in parents:
            owner = getattr(owner, parent)
        return owner, name

    @pytest.hookimpl(tryfirst=True)
    def pytest_pycollect_makeitem(self, collector: Any, name: str, obj: Any) -> list[Any] | None:
        """Before a check is made from its function: never firstresult, but where it is dropped."""
        for file, change in [m for m in self._modules if m[0] == collector.path.name]:
            self._modules.remove((file, change))
            change(collector.obj)
            self.ran += 1
        for test, change_mark in [m for m in self._marks if m[0] == name]:
            self._marks.remove((test, change_mark))
            for marker in getattr(obj, "pytestmark", ()):
                if marker.name in ("claim", "control"):
                    change_mark(marker.kwargs)
                    self.ran += 1
        if name in self._dropped:
            self.ran += 1
            return []
        return None


@dataclass(frozen=True)
class Defect:
    """One defect, where it is looked for, and what is known to find it."""

    name: str
    kind: str
    what: str
    plant: Callable[[Plant], None]
    run: tuple[str, ...]  # what pytest is asked for
    caught_by: str  # a pattern that what turns red matches
    unseen: bool = False  # no session saw one of this kind before
    cold: tuple[str, ...] = ()  # parts of the cache that would hide it

    @property
    def is_honest(self) -> bool:
        """Whether nothing is planted."""
        return not self.caught_by


@dataclass
class Outcome:
    """What came of it."""

    exit_status: int
    red: list[str] = field(default_factory=list)
    ran: int = 0
    seconds: float = 0.0

    def caught(self, defect: Defect) -> bool:
        pattern = re.compile(defect.caught_by)
        return self.exit_status not in (0, 5) and any(map(pattern.search, self.red))

    @property
    def caught_before(self) -> bool:
        """Whether something beside the new guards turned red."""
        return any(GUARDS.search(line) is None for line in self.red)


def copied(cache: Path, to: Path, without: Sequence[str] = ()) -> None:
    """A copy of a cache by hard links, which nobody writes through: files there are replaced."""
    for folder, folders, files in os.walk(cache):
        here = Path(folder).relative_to(cache)
        if any(here.match(pattern) for pattern in without):
            folders.clear()
            continue
        (to / here).mkdir(parents=True, exist_ok=True)
        for name in files:
            try:
                os.link(Path(folder) / name, to / here / name)
            except OSError:
                shutil.copy(Path(folder) / name, to / here / name)


def run(defect: Defect, cache: Path, folder: Path) -> Outcome:
    """Plant it in a process of its own and read what that leaves. Nothing planted fills the cache
    itself; a defect gets a copy."""
    own_cache, report = folder / "cache", folder / "report"
    if defect.is_honest:
        own_cache = cache
    else:
        copied(cache, own_cache, defect.cold)
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        os._exit(_in_child(defect, own_cache, folder, report))
    deadline = started + SECONDS
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.05)
    ran = folder / "ran"
    outcome = Outcome(
        exit_status=os.waitstatus_to_exitcode(status),
        red=list(dict.fromkeys(_red(report, folder / "log"))),
        ran=int(ran.read_text()) if ran.exists() else 0,
        seconds=time.monotonic() - started,
    )
    if not defect.is_honest:
        shutil.rmtree(own_cache, ignore_errors=True)
    return outcome


def _in_child(defect: Defect, cache: Path, folder: Path, report: Path) -> int:
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ["HARNESS_CACHE"] = str(cache)
    os.environ.pop("HARNESS_DATA", None)
    plant = Plant(folder)
    try:
        os.chdir(ROOT)
        defect.plant(plant)
        paths = [
            str(ROOT / a) if "/" in a and not plant.folder.joinpath("checkout").exists() else a
            for a in defect.run
        ]
        status = int(pytest.main([*paths, *ARGUMENTS, "--report", str(report)], plugins=[plant]))
    except BaseException:
        traceback.print_exc()
        status = 70
    (folder / "ran").write_text(str(plant.ran))
    sys.stdout.flush()
    return status


def _red(report: Path, log: Path) -> list[str]:
    """What turned red, by name: records first, then what pytest or the project's tests say."""
    found = []
    evidence = report / "evidence.json"
    if evidence.is_file():
        session = json.loads(evidence.read_text(encoding="utf-8"))
        for error in session["errors"]:
            found.append(f"broke {error['test']}: {error['message']}")
        for record in session["claims"]:
            found += _red_record(record)
        about = session["session"]
        found += [f"moved {words}" for words in about.get("moved", ())]
        if not about.get("complete", True):
            found.append(f"incomplete: {about.get('incomplete_reason', '')}")
    text = log.read_text(encoding="utf-8", errors="replace")
    found += re.findall(r"^(?:FAILED|ERROR) (tests/\S+)", text, re.MULTILINE)
    found += [f"refused: {words}" for words in re.findall(r"^ERROR: (.*)", text, re.MULTILINE)]
    found += re.findall(r"^\S*(?:Error|Warning): .*", text, re.MULTILINE)[-1:] if not found else []
    return found


def _red_record(record: dict[str, Any]) -> list[str]:
    case = f"[{record['case']}]" if record["case"] else ""
    key, verdict = f"{record['id']}{case}", record["verdict"]
    if record["control"]:
        caught = verdict in ("refuted", "placeholder", "not run")
        return [] if caught else [f"control not caught {key}: {record['fault']}"]
    if record["documented"] and record["documented"] != verdict and not record["lacks_data"]:
        return [f"changed {key}: {record['documented']} -> {verdict}"]
    if not record["documented"] and verdict in ("refuted", "placeholder"):
        return [f"{verdict} {key}"]
    return []
