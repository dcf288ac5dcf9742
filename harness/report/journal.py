"""What a session leaves while it runs: one appended line a check, of which all else is made.

`journal.jsonl` begins with what the session is about and what it will check, goes on with a line
for every check as soon as that has ended, and ends with a line that says how the session did. A
session that a signal, a full memory or a fault ended has every line up to the check it was in, and
lacks the last. `evidence.json`, `junit.xml` and the page are made of these lines, at the end or by
`python -m harness report`. A session remembers what it has told its journal and nothing else, and
takes it from the very text it wrote: memory and file cannot disagree.

A line is ``{"n": 3, "sha256": "...", "entry": {...}}``: its number and the digest of both. A line
without its newline is torn, the mark of a session that was killed while writing; any other that is
not what its digest says is damaged, and named. What is left is used either way.

Public: Journal, Told, Outcome, read, NAME.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import DataError
from harness.evidence import Evidence, Session, in_reading_order
from harness.files import all_printable, parse_json
from harness.report import multiplicity

NAME = "journal.jsonl"
BUDGET = "the budget"  # how the reason of a check begins that the budget left no time for
_WITHOUT_A_WORD = "it ended without a word: killed, out of memory, or the machine stopped"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How pytest ended one check: what a case of `junit.xml` is made of."""

    test: str  # node id
    outcome: str  # passed, failed, error, skipped
    seconds: float
    message: str = ""
    text: str = ""  # the traceback, where it failed or broke


# What lines say, by their `what`.


@dataclass(frozen=True, kw_only=True)
class _Chosen:
    chosen: dict[str, str]
    left_out: list[str]


@dataclass(frozen=True, kw_only=True)
class _Begin(_Chosen):
    about: dict[str, Any]
    budget_minutes: float | None


@dataclass(frozen=True, kw_only=True)
class _Check:
    outcome: Outcome
    place: int
    record: dict[str, Any] | None
    error: str
    files: dict[str, str]
    not_written: list[str]


@dataclass(frozen=True, kw_only=True)
class _End:
    stopped: str
    notes: dict[str, Any]


_KINDS: Mapping[str, Any] = {"begin": _Begin, "chosen": _Chosen, "check": _Check, "end": _End}


@dataclass
class Told:
    """What the lines of a journal come to."""

    about: dict[str, Any] = field(default_factory=dict)  # the session record, as far as known
    budget_minutes: float | None = None
    chosen: dict[str, str] = field(default_factory=dict)  # node id -> key, of all that will run
    left_out: list[str] = field(default_factory=list)  # keys of claims that were not chosen
    found: dict[str, tuple[int, Evidence]] = field(default_factory=dict)  # node id -> place, record
    outcomes: list[Outcome] = field(default_factory=list)
    errors: list[dict[str, str]] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)  # figures and units -> sha256
    not_written: list[str] = field(default_factory=list)  # what found no place, in words
    notes: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0  # since the session began
    ended: bool = False
    running: bool = False  # the session is at work still
    torn: bool = False  # it was killed while it wrote a line
    stopped: str = ""  # why the session ended before its end
    damage: list[str] = field(default_factory=list)  # what is wrong with the lines themselves

    def take(self, entry: Mapping[str, Any]) -> None:
        """Add what one line says.

        Raises:
            DataError: it is none of a journal's lines.
        """
        import msgspec

        what = _KINDS.get(str(entry.get("what")))
        if what is None:
            raise DataError(f"no line of a journal tells {entry.get('what')!r}")
        try:
            said: _Begin | _Chosen | _Check | _End = msgspec.convert(entry, what)
            self.seconds = msgspec.convert(entry.get("at"), float)
        except msgspec.ValidationError as error:
            raise DataError(str(error)) from None
        match said:
            case _Begin():
                Session.from_dict({"session": said.about, "claims": []})  # which knows the types
                self.about, self.budget_minutes = said.about, said.budget_minutes
                self.chosen, self.left_out = said.chosen, said.left_out
            case _Chosen():
                self.chosen, self.left_out = said.chosen, said.left_out
            case _Check():
                self._check(said)
            case _End():
                self.ended, self.stopped, self.notes = True, said.stopped, said.notes

    def _check(self, said: _Check) -> None:
        test = said.outcome.test
        if said.record is not None and test not in self.found:
            self.found[test] = said.place, Evidence.from_dict(said.record)
        if said.error and test not in {e["test"] for e in self.errors}:
            self.errors.append({"test": test, "message": said.error})
        self.outcomes.append(said.outcome)
        self.files.update(said.files)
        self.not_written += said.not_written

    @property
    def evidence(self) -> list[Evidence]:
        """Every record, in the order in which checks were collected."""
        return [found for _, found in sorted(self.found.values(), key=lambda entry: entry[0])]

    @property
    def not_reached(self) -> list[str]:
        """What was chosen and left neither a record nor an error; a spent budget's included."""
        done = self.found.keys() | {outcome.test for outcome in self.outcomes}
        unreached = [key for test, key in self.chosen.items() if test not in done]
        return unreached + [e.key for e in self.evidence if e.reason.startswith(BUDGET)]

    @property
    def incomplete(self) -> str:
        """Why the session is not whole; empty if it is."""
        not_reached = self.not_reached
        if self.damage:
            return "; ".join(self.damage)
        if self.running:
            return "it is still running"
        if not self.ended:
            return _WITHOUT_A_WORD + (", while it wrote a line" if self.torn else "")
        if self.stopped:
            return self.stopped
        if any(e.reason.startswith(BUDGET) for e in self.evidence):
            return f"{BUDGET} of {self.budget_minutes:g} minutes was spent"
        return f"{len(not_reached)} checks left no record" if not_reached else ""

    def session(self) -> Session:
        """All of it as one record."""
        evidence = multiplicity.holm(self.evidence)
        incomplete = self.incomplete
        said = {
            **self.about,
            "seconds": round(self.seconds, 2),
            "complete": not incomplete,
            "incomplete_reason": incomplete,
            "not_reached": self.not_reached,
            "resume": self.about.get("command", "") if incomplete else "",
            "multiplicity": multiplicity.summary(evidence),
            **self.notes,
        }
        if self.not_written:
            said["not_written"] = self.not_written
        return Session(
            session=said,
            claims=tuple(in_reading_order(evidence)),
            errors=tuple(self.errors),
            left_out=tuple(self.left_out),
        )


class Journal:
    """Writes lines, and remembers what they come to.

    Without a path it only remembers: in a process that hands its reports to another. Where the disk
    is full, lines wait, and are written before the next one: nothing is lost while this lives.
    """

    def __init__(self, path: Path | None) -> None:
        self.told = Told()
        self._path = path
        self._n = 0
        self._waiting = b""
        self._written = 0  # bytes of whole lines in the file
        self._why = ""

    def tell(self, what: str, *, at: float, **entry: Any) -> None:
        """Append one entry and take it in; what could not be written waits, see `problem`.

        Args:
            at: seconds since the session began.
        """
        line = _line(self._n, all_printable({"what": what, "at": round(at, 3), **entry}))
        self._n += 1
        self.told.take(parse_json(line, "a line just written")["entry"])
        self._waiting += line.encode()
        self._write()

    @property
    def problem(self) -> str:
        """How many lines the file lacks and why; empty where it has all."""
        if not self._waiting or self._path is None:
            return ""
        self._write()
        lacks = self._waiting.count(b"\n")
        return f"{self._path} lacks its last {lacks} lines: {self._why}" if lacks else ""

    def _write(self) -> None:
        if self._path is None:
            return
        try:
            with os.fdopen(os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o666), "wb") as stream:
                stream.truncate(self._written)  # what an earlier attempt left of a line
                stream.seek(self._written)
                stream.write(self._waiting)
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            self._why = error.strerror or str(error)
        else:
            self._written += len(self._waiting)
            self._waiting = b""


def _line(n: int, entry: Mapping[str, Any]) -> str:
    text = json.dumps(entry, sort_keys=True, allow_nan=False, separators=(",", ":"))
    return f'{{"n":{n},"sha256":"{_digest(n, text)}","entry":{text}}}\n'


def _digest(n: int, text: str) -> str:
    return hashlib.sha256(f"{n}:{text}".encode()).hexdigest()


def read(folder: Path) -> Told:
    """What the journal of a session says, as far as it can be read; ``damage`` says what cannot.

    Raises:
        DataError: there is no journal, or not even its beginning can be read.
    """
    path = folder / NAME
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror or error}. No session kept its journal there."
        ) from None
    told = Told()
    *lines, torn = raw.split(b"\n")
    for place, line in enumerate(lines):
        try:
            told.take(_entry(line, place))
        except DataError as error:
            told.damage.append(f"line {place + 1} of {NAME} is damaged: {error}")
    if torn and told.ended:
        told.damage.append(f"{NAME} goes on after its end")
    told.torn = bool(torn)
    if not told.about:
        raise DataError(
            f"{path} does not say what its session was about: "
            f"{'; '.join(told.damage) or 'it is empty'}. Run the session again."
        )
    return told


def _entry(line: bytes, place: int) -> Mapping[str, Any]:
    match parse_json(line, "it"):
        case {"n": int(n), "sha256": str(digest), "entry": dict(entry)}:
            if line != _line(n, entry).encode()[:-1]:
                raise DataError(f"it is not what its digest {digest[:12]} was made of")
            if n != place:
                raise DataError(f"it was line {n + 1}: lines are gone, doubled or moved")
            return entry
    raise DataError("it is no line of a journal")
