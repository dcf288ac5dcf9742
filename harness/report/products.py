"""What is made of a session's journal: evidence, junit.xml, the page, and a list of their hashes.

Public: lock, make_way, write_all, read, load, and the names of files.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import ConfigError, DataError
from harness.evidence import Session
from harness.files import printable, sha256_of, write_whole
from harness.report import journal
from harness.report.journal import Told
from harness.report.junit import junit
from harness.report.terminal import incomplete

if TYPE_CHECKING:
    from filelock import BaseFileLock

EVIDENCE, JUNIT, PAGE, MANIFEST = "evidence.json", "junit.xml", "report.html", "manifest.json"
FOLDERS = ("figures", "units")  # what checks leave beside
LOCK = "session.lock"
_BEFORE = "previous"  # what the folder held until now, while a session replaces it


def lock(folder: Path) -> BaseFileLock:
    """Take the folder for one session; the system lets it go when the process dies.

    Raises:
        ConfigError: another session has it.
    """
    from filelock import FileLock, Timeout

    taken = FileLock(folder / LOCK)
    try:
        taken.acquire(timeout=0)
    except Timeout:
        raise ConfigError(
            f"{folder} is the report folder of a session that is at work. Name another with "
            "--report, or wait for that one."
        ) from None
    return taken


def is_locked(folder: Path) -> bool:
    """Whether a session is at work there."""
    if not (folder / LOCK).exists():
        return False
    try:
        lock(folder).release()
    except ConfigError:
        return True
    except OSError:  # not ours to write to: whoever reads it cannot tell, and no session of theirs
        return False
    return False


def make_way(folder: Path) -> None:
    """Set aside what an earlier session left, in `previous/`, until one ends here whole.

    What never became evidence does not take the place of what did.
    """
    names = [journal.NAME, EVIDENCE, JUNIT, PAGE, MANIFEST, *FOLDERS]
    before = folder / _BEFORE
    keep = any((folder / name).exists() for name in names) and (
        (folder / EVIDENCE).exists() or not before.exists()
    )
    if keep:
        shutil.rmtree(before, ignore_errors=True)
        before.mkdir()
    for name in names:
        path = folder / name
        if keep and path.exists():
            path.rename(before / name)
        elif path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def write_all(folder: Path, told: Told) -> tuple[Session, list[str]]:
    """Write everything that is made of a journal. One that finds no place keeps no other from it.

    Returns:
        The session, and what could not be written, in words.
    """
    session = told.session()
    problems = []

    def page() -> None:
        from harness.report.page import write_page

        write_page(folder)

    made: dict[str, Callable[[], object]] = {
        EVIDENCE: lambda: session.save(folder),
        JUNIT: lambda: write_whole(folder / JUNIT, junit(told, session)),
        PAGE: page,
        MANIFEST: lambda: write_whole(folder / MANIFEST, manifest(folder)),
    }
    for name, make in made.items():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            make()
        except Exception as error:  # whatever it is: what was measured is to be kept and shown
            problems.append(printable(f"{folder / name}: {type(error).__name__}: {error}"))
    if not problems and session.complete:
        shutil.rmtree(folder / _BEFORE, ignore_errors=True)
    return session, problems


def make_again(folder: Path) -> list[str]:
    """Write the reports of a session again; returns what there is to say, in lines.

    Made of its journal; of a session of before there were journals, the page only.

    Raises:
        DataError: there is nothing to make it of, or it could not be written.
    """
    if not (folder / journal.NAME).is_file():
        from harness.report.page import write_page

        return [str(write_page(folder))]
    told = read(folder)
    session, problems = write_all(folder, told)
    if problems:
        raise DataError(f"not written: {'; '.join(problems)}")
    lines = [str(folder / PAGE)]
    return lines if session.complete else [*lines, incomplete(session)]


def manifest(folder: Path) -> str:
    """sha256 of every file of a report, as JSON."""
    paths = [folder / name for name in (journal.NAME, EVIDENCE, JUNIT, PAGE)]
    paths += sorted(path for name in FOLDERS for path in (folder / name).rglob("*"))
    hashes = {p.relative_to(folder).as_posix(): sha256_of(p) for p in paths if p.is_file()}
    return json.dumps(hashes, indent=1, sort_keys=True) + "\n"


def read(folder: Path) -> Told:
    """The journal of a folder; of a session that is at work, as far as it has come."""
    told = journal.read(folder)
    told.running = not told.ended and is_locked(folder)
    return told


def load(folder: Path) -> Session:
    """The session of a folder: its evidence, or where a session died before it wrote any, what its
    journal says.

    Raises:
        DataError: there is neither, or what there is cannot be read.
    """
    if not (folder / EVIDENCE).is_file() and (folder / journal.NAME).is_file():
        return read(folder).session()
    return Session.load(folder)
