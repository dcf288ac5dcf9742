"""Whether a report tells the truth: every file of it against the journal, every record against its
own numbers, its units, and the claims in the code.

From the journal follow evidence, junit.xml and the page, so they are made again and compared. A
record is judged again by the code that judged it; its interval is drawn again from the units that
the session kept; its words and bounds are those of the checks, where they are at hand; its fixtures
and data files have the sha256 it names. Whoever edits one number or word in one file is found by
the first, whoever edits all of them alike by the others. Two edits nobody can tell from a session's
own work here, and `--rerun` finds those, since it measures again: of an exact number, and of an
interval that was not drawn from one set of units.

Public: verify, Verified.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.claims import Claim, Interval, Verdict
from harness.data.paths import fetched_dir, fixtures_dir, shared_data_dir
from harness.errors import DataError
from harness.evidence import Evidence, Session, claim_words
from harness.files import MOST_BYTES, printable, read_json, sha256_of
from harness.report import calibrate, products
from harness.report.journal import Told
from harness.report.junit import junit
from harness.statistics import interval_of

_CLOSE = 1e-6  # of a half-width: by how much other processors may draw an interval otherwise
_MOST_LINES = 5  # of differences that are named of one file
CHECKS = Path("checks")
_CASE = re.compile(r'<testcase classname="([^"]*)" name="([^"]*)"')
_ANCHOR = re.compile(r' id="([^"]*)"')


@dataclass
class Verified:
    """What was found about every record, and about files as a whole."""

    session: Session
    files: list[str] = field(default_factory=list)  # falsehoods that belong to no record
    of: dict[str, list[str]] = field(default_factory=dict)  # record's test -> falsehoods
    done: dict[str, list[str]] = field(default_factory=dict)  # record's test -> what was compared
    notes: list[str] = field(default_factory=list)  # what could not be compared, and why

    @property
    def true(self) -> bool:
        """Whether nothing contradicts the session's own account."""
        return not self.files and not any(self.of.values())

    def false(self, test: str, words: str) -> None:
        self.of.setdefault(test, []).append(printable(words))

    def compared(self, test: str, words: str) -> None:
        self.done.setdefault(test, []).append(words)

    def lines(self) -> Iterator[str]:
        """One line a record, then what is false of files, what was left out, and the sum."""
        for record in self.session.claims:
            name = printable(_name(record))
            if found := self.of.get(record.test):
                yield f"FALSE {name}: {'; '.join(found)}"
            else:
                yield f"true  {name}: {', '.join(self.done.get(record.test, ()))}"
        known = {record.test for record in self.session.claims}
        for test in self.of.keys() - known:
            yield f"FALSE {test}: {'; '.join(self.of[test])}"
        for words in self.files:
            yield f"FALSE {printable(words)}"
        for words in self.notes:
            yield f"note: {printable(words)}"
        if not self.session.complete:
            yield f"note: the session is not whole: {self.session.session['incomplete_reason']}"
        wrong = sum(map(bool, self.of.values()))
        yield (
            f"{len(self.session.claims)} records, {wrong} of them false; "
            f"{len(self.files)} more falsehoods in files"
        )


def _name(record: Evidence) -> str:
    return f"control of {record.key}: {record.fault}" if record.control else record.key


def verify(
    folder: Path, *, checks: Path | None = None, rerun: bool = False, recompute: int = 0
) -> Verified:
    """Compare all there is of a session.

    Args:
        folder: of a report.
        checks: the claims in the code; None: `checks/`, where that is at hand.
        rerun: also run the session's command again and compare every number with its own.
        recompute: how many stored predictions to compute again with the model.
    Raises:
        DataError: the folder has no journal that can be read.
    """
    told = products.read(folder)
    session = told.session()
    found = Verified(session=session)
    found.files += told.damage
    _evidence(found, folder)
    _made_again(found, folder, told)
    _kept_files(found, folder, told)
    _manifest(found, folder)
    for record in session.claims:
        _judged(found, record)
        _drawn(found, record, folder)
    _inputs(found)
    _in_the_code(found, checks)
    if rerun or recompute:
        from harness.report import again

        if rerun:
            again.rerun(found)
        if recompute:
            again.recompute(found, recompute)
    return found


# --- files against the journal


def _evidence(found: Verified, folder: Path) -> None:
    """Every field of evidence.json that the journal does not say."""
    path = folder / products.EVIDENCE
    expected = json.loads(found.session.text())
    if not path.is_file() and found.session.session["incomplete_reason"]:
        found.notes.append(f"there is no {path.name} yet; `python -m harness report` makes it")
        return
    if (written := _json_of(found, path)) is _GONE:
        return
    if written == expected:
        if path.read_bytes() != found.session.text().encode():
            found.files.append(f"{path.name} has other bytes than a session writes for this")
        return
    if not isinstance(written, dict):
        found.files.append(f"{path.name} is no evidence")
        return
    records = written.pop("claims", None)
    of = expected.pop("claims")
    for where, is_now, was in _differences(written, expected):
        found.files.append(
            f"{path.name}: {where} is {_short(is_now)}, the journal says {_short(was)}"
        )
    if not isinstance(records, list) or len(records) != len(of):
        n = len(records) if isinstance(records, list) else "no"
        found.files.append(f"{path.name} has {n} records, the journal {len(of)}")
        return
    for record, now, was in zip(found.session.claims, records, of, strict=True):
        for where, is_now, said in _differences(now, was):
            found.false(
                record.test,
                f"{path.name}: {where} is {_short(is_now)}, the journal says {_short(said)}",
            )


def _differences(now: Any, was: Any, where: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Places at which two JSON values differ, with both."""
    if isinstance(now, Mapping) and isinstance(was, Mapping):
        for key in sorted({*now, *was}):
            place = f"{where}.{key}" if where else key
            yield from _differences(now.get(key, _GONE), was.get(key, _GONE), place)
    elif isinstance(now, list) and isinstance(was, list) and len(now) == len(was):
        for i, (one, other) in enumerate(zip(now, was, strict=True)):
            yield from _differences(one, other, f"{where}[{i}]")
    elif type(now) is not type(was) or now != was:
        yield where or "it", now, was


class _Gone:
    def __repr__(self) -> str:
        return "nothing"


_GONE = _Gone()


def _json_of(found: Verified, path: Path) -> Any:
    """What a file holds; nothing, and a falsehood, where it cannot be read."""
    try:
        return read_json(path)
    except DataError as error:
        found.files.append(str(error))
        return _GONE


def _short(value: Any) -> str:
    text = repr(str(value) if isinstance(value, str) else value)  # a verdict is a word too
    return text if len(text) <= 80 else f"{text[:77]}..."


def _made_again(found: Verified, folder: Path, told: Told) -> None:
    """junit.xml and the page as they follow from the journal, line by line."""
    _lines_of(found, folder / products.JUNIT, junit(told, found.session), _CASE)
    with tempfile.TemporaryDirectory() as scratch:
        try:
            found.session.save(Path(scratch))
            for name in products.FOLDERS:
                if (folder / name).is_dir():
                    shutil.copytree(folder / name, Path(scratch) / name)
            from harness.report.page import write_page

            page = write_page(Path(scratch)).read_text(encoding="utf-8")
        except (DataError, OSError) as error:
            found.files.append(f"{products.PAGE} cannot be made again: {error}")
            return
    _lines_of(found, folder / products.PAGE, page, _ANCHOR)


def _lines_of(found: Verified, path: Path, expected: str, sign: re.Pattern[str]) -> None:
    """Lines of a file that are not as expected, each with the last place named before it."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise DataError(f"{path.name} is far larger than any session makes it")
        now = path.read_bytes().decode("utf-8", "backslashreplace").split("\n")
    except FileNotFoundError:
        if found.session.complete:
            found.files.append(f"{path.name} is gone")
        return
    except (OSError, DataError) as error:
        found.files.append(f"{path.name} cannot be read: {error}")
        return
    was = expected.split("\n")
    place, named = "its beginning", 0
    for i, line in enumerate(was):
        if (match := sign.search(line)) is not None:
            place = " ".join(match.groups())
        is_now = now[i] if i < len(now) else ""
        if is_now == line and i < len(now):
            continue
        found.files.append(f"{path.name}, line {i + 1}, after {place}: {_change(is_now, line)}")
        named += 1
        if len(now) != len(was):  # all that follows is shifted
            found.files.append(f"{path.name} has {len(now)} lines and should have {len(was)}")
            return
        if named == _MOST_LINES:
            return
    if len(now) > len(was):
        found.files.append(f"{path.name} goes on after its end")


def _change(now: str, was: str) -> str:
    """The part of a line that differs, with a little around it."""
    first = next((i for i, (a, b) in enumerate(zip(now, was, strict=False)) if a != b), None)
    start = max(0, (min(len(now), len(was)) if first is None else first) - 20)
    is_now, belongs = (line[start : start + 60].strip() for line in (now, was))
    return f"{is_now!r} where {belongs!r} belongs"


def _kept_files(found: Verified, folder: Path, told: Told) -> None:
    """Figures and units have the hashes that the journal names, and there are no others."""
    tests = {
        name: record.test
        for record in found.session.claims
        for name in (*record.figures, record.units)
    }
    there = {
        path.relative_to(folder).as_posix()
        for name in products.FOLDERS
        for path in (folder / name).rglob("*")
        if path.is_file()
    }
    for name, digest in sorted(told.files.items()):
        if name not in there:
            words = f"{name} is gone"
        elif sha256_of(folder / name) != digest:
            words = f"{name} was changed: it has not the sha256 that the journal names"
        else:
            continue
        if name in tests:
            found.false(tests[name], words)
        else:
            found.files.append(words)
    for record in found.session.claims:
        for name in (*record.figures, record.units):
            if name and name not in told.files:
                found.false(record.test, f"the journal knows no {name}")
    for name in sorted(there - told.files.keys()):
        if told.ended:
            found.files.append(f"{name} is of no check of the session")
        else:
            found.notes.append(f"{name} is of the check that the session died in")


def _manifest(found: Verified, folder: Path) -> None:
    path = folder / products.MANIFEST
    if not path.is_file():
        if (folder / products.EVIDENCE).is_file():
            found.files.append(f"{path.name} is gone")
        return
    if (said := _json_of(found, path)) is _GONE:
        return
    for where, now, was in _differences(said, json.loads(products.manifest(folder))):
        found.files.append(
            f"{path.name}: {where} is {_short(now)}, and the file's is {_short(was)}"
        )


# --- records against their own numbers


def _judged(found: Verified, record: Evidence) -> None:
    if why := record.contradiction:
        found.false(record.test, why)
    elif record.verdict != Verdict.NOT_RUN:
        found.compared(record.test, f"{record.verdict} by its numbers")
    else:
        found.compared(record.test, "not run")


def _drawn(found: Verified, record: Evidence, folder: Path) -> None:
    """Draw the interval again from its units."""
    if record.verdict == Verdict.NOT_RUN:
        return
    if record.ci_method == "exact":
        if not record.ci_low == record.observed == record.ci_high:
            found.false(record.test, "it is said to be exact and has an interval")
        found.compared(record.test, "exact")
    elif not record.units:
        found.compared(record.test, "its interval was not drawn from one set of units")
    else:
        try:
            key, units, bound = calibrate.read_units(folder / record.units)
        except DataError as error:
            found.false(record.test, str(error))
            return
        wrong = _unlike(record, units, bound)
        if key != record.key:
            wrong = f"they are the units of {key}"
        if wrong:
            found.false(record.test, f"{record.units}: {wrong}")
        else:
            found.compared(record.test, f"interval drawn again from {record.n_clusters} units")


def _unlike(record: Evidence, units: Any, bound: np.ndarray) -> str:
    """Which of a record's numbers its units do not give; empty where they give all."""
    try:
        with np.errstate(all="ignore"):
            drawn = interval_of(units)
    except (DataError, ValueError, ZeroDivisionError) as error:
        return str(error)
    words = []
    scale = max(drawn.high - drawn.low, abs(drawn.estimate) * 1e-3)
    for name, is_now in _numbers(drawn).items():
        said = getattr(record, name)
        if is_now is None or said is None or isinstance(is_now, str):
            same = is_now == said
        else:
            same = abs(is_now - said) <= _CLOSE * (scale if name[:2] in ("ob", "ci") else is_now)
        if not same:
            words.append(f"{name} is {said!r} and its units give {is_now!r}")
    ends = [None if np.isnan(end) else float(end) for end in bound]
    if ends != [record.bound_low, record.bound_high]:
        words.append(f"its bound was {ends}")
    return "; ".join(words)


def _numbers(drawn: Interval) -> dict[str, Any]:
    return {
        "observed": drawn.estimate,
        "ci_low": drawn.low,
        "ci_high": drawn.high,
        "n": drawn.n,
        "n_clusters": drawn.n_clusters,
        "effective": drawn.effective,
        "resolution": drawn.resolution,
        "ci_method": drawn.method,
        "unsettled": drawn.unsettled,
    }


# --- records against the machine and the code


def _inputs(found: Verified) -> None:
    """Fixtures and data files that are at hand have the sha256 that records name."""
    roots = [root for root in (fixtures_dir(), shared_data_dir(), fetched_dir()) if root]
    hashes: dict[Path, str] = {}
    for record in found.session.claims:
        for name, digest in record.inputs.items():
            paths = [root / name for root in roots if not Path(name).is_absolute()]
            there = [path for path in paths if path.is_file()]
            for path in there:
                hashes.setdefault(path, sha256_of(path))
            if there and digest not in [hashes[path] for path in there]:
                found.false(
                    record.test, f"{name} has not the sha256 {digest[:12]} it was read with"
                )


def _in_the_code(found: Verified, checks: Path | None) -> None:
    """Words and bounds of records are those of the claims in the checks."""
    where = CHECKS if checks is None else checks
    if not where.exists():
        found.notes.append(
            f"there is no {where} here, so bounds and words were not compared with the code; name "
            "the folder with --checks"
        )
        return
    claims, controls = _collected(where)
    for record in found.session.claims:
        claim = claims.get(record.id)
        if claim is None:
            found.false(record.test, f"the code has no claim {record.id!r}")
            continue
        bound = claim.bound_on(record.dataset)
        words = {
            **claim_words(claim),
            "bound_low": bound.low,
            "bound_high": bound.high,
            "bound_reason": bound.reason,
            "unit": bound.unit,
        }
        if record.control and record.test in controls:
            words["fault"] = controls[record.test].get("fault", "")
            words["far"] = controls[record.test].get("far", "")
        for name, said in words.items():
            if getattr(record, name) != said:
                found.false(
                    record.test,
                    f"{name} is {_short(getattr(record, name))}, and in the code {_short(said)}",
                )
        found.compared(record.test, "bound as in the code")


def _collected(checks: Path) -> tuple[dict[str, Claim], dict[str, Mapping[str, Any]]]:
    """Claims by id, and what controls say by node id, as pytest collects them.

    Raises:
        DataError: it cannot.
    """
    claims: dict[str, Claim] = {}
    controls: dict[str, Mapping[str, Any]] = {}

    class Collector:
        @pytest.hookimpl(tryfirst=True)
        def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
            for item in items:
                if (marker := item.get_closest_marker("claim")) is not None:
                    claims[marker.kwargs["id"]] = Claim(**marker.kwargs)
                if (marker := item.get_closest_marker("control")) is not None:
                    controls[item.nodeid] = marker.kwargs

    said = io.StringIO()
    options = ("--collect-only", "-q", "-p", "no:cacheprovider")
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        status = pytest.main([*options, os.fspath(checks)], plugins=[Collector()])
    if status != pytest.ExitCode.OK:
        last = said.getvalue().strip().splitlines()[-3:]
        raise DataError(f"{checks} cannot be collected: {' '.join(last)}")
    return claims, controls
