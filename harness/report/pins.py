"""Documented numbers: what is known to be measured, beside the verdicts it leads to.

A verdict in a word absorbs faults: what is refuted stays refuted whatever went wrong. So a file of
measured numbers stands beside every file of documented verdicts (`verdicts.measured.toml` beside
`verdicts.toml`), and a session whose numbers, rows, bounds or controls are others says that they
`moved`. It is written from sessions (`python -m harness verdicts FOLDER --write FILE` or `--pin`),
read by reviewers, and committed like code.

    [within]                                    # written by hand: how far numbers may move
    "*" = { half_widths = 0.02, reason = "why" }
    "head-only.*" = { half_widths = 0.2, reason = "why" }   # the last that fits a claim counts

    [claims]                                    # bounds, rules and controls, whatever the data
    "zero-shot.offset" = { file = "test_zero_shot.py", bound = "in (-0.1, 0.1) eV/atom", ... }

    [quick."chgnet-0.3.0"."embedded"]           # size, subject, data
    "zero-shot.offset[self] fold0" = { observed = -0.0109, low = -0.0226, high = -0.0012, ... }

A number may move by a share of its interval's half-width; one without an interval by that share of
its bound's margin. Rows, units, methods, bounds, inputs and settings may not move at all, but for
counts of draws where `[within]` says so (`rows`). What --sample cut is another measurement.

Public: every name without a leading underscore.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from harness.claims import Claim, Size, Verdict
from harness.errors import ConfigError
from harness.evidence import Evidence, Session
from harness.report.verdicts import SAMPLED_OUT

NUMBERS = ("observed", "low", "high")
# What in a record's details was set and not measured; `device` decides roundings alone.
_SETTINGS = (
    "alignment",
    "baseline",
    "card",
    "config",
    "learners",
    "level",
    "lever",
    "members",
    "members_differ_by",
    "opponent",
    "reference",
    "refit_rows",
    "search",
    "seeds",
    "settings",
    "trained_rows",
    "training_rows",
    "transform",
    "validation_rows",
    "window",
)
_NOT_SET = ("device", "predictions_sha256", "versions")
_HEAD = """\
# Documented numbers: what was measured, with which rows, bounds, settings and controls. Written by
# `python -m harness verdicts FOLDER --pin {name}`, but for [within], which is yours. A session in
# which one of them moves fails. See harness/report/pins.py.
"""


class Within(NamedTuple):
    """How far the numbers of some claims may move."""

    half_widths: float  # as a share of the interval's half-width, else of the bound's margin
    reason: str
    rows: float = 0.0  # counts of rows and units, as a share of all rows


DEFAULT = {"*": Within(0.02, "the same code on the same rows: what roundings leave")}


@dataclass(frozen=True)
class Pins:
    """All numbers on record."""

    within: Mapping[str, Within] = field(default_factory=lambda: dict(DEFAULT))
    # claim -> its entry, and the folder its `file` lies in
    claims: Mapping[str, tuple[Mapping[str, Any], Path]] = field(default_factory=dict)
    records: Mapping[tuple[str, str, str], Mapping[str, Mapping[str, Any]]] = field(
        default_factory=dict
    )

    def tolerance(self, claim: str) -> Within:
        """Of the last pattern that fits the claim's id."""
        fitting = [w for pattern, w in self.within.items() if fnmatch.fnmatch(claim, pattern)]
        return fitting[-1] if fitting else DEFAULT["*"]

    def table(self, found: Evidence) -> Mapping[str, Mapping[str, Any]]:
        """What is on record for the size, subject and data of a record."""
        return self.records.get((str(found.size), found.subject, found.dataset), {})

    def moved(self, found: Evidence) -> str:
        """What of a record is not as it was, in words; empty where all is, or nothing is known."""
        known = self._known(found)
        if found.control and known and found.verdict == Verdict.NOT_RUN and not found.lacks_data:
            return f"{name_of(found)} was caught once, and is not run: {found.reason}"
        if known is None or not _is_measured(found):
            return ""
        within, now = self.tolerance(found.id), _entry(found)
        allowed = within.half_widths * _scale(known, found)
        said = [
            f"{name} {known[name]:.6g} -> {now[name]:.6g} (it may move by {allowed:.2g})"
            for name in NUMBERS
            if not abs(now[name] - known[name]) <= allowed
        ]
        for name in sorted((set(known) | set(now)) - set(NUMBERS)):
            before, after = known.get(name), now.get(name)
            if before != after and not _counts_alike(before, after, within.rows * found.n):
                said.append(f"{name} {_shown(before)} -> {_shown(after)}")
        return f"{name_of(found)} on {found.dataset}: {'; '.join(said)}" if said else ""

    def _known(self, found: Evidence) -> Mapping[str, Any] | None:
        """What is on record for a record; of a control that is not run its subject says nothing."""
        if found.verdict != Verdict.NOT_RUN:
            return self.table(found).get(name_of(found))
        tables = (
            table
            for (size, subject, _), table in self.records.items()
            if size == found.size and subject == found.subject
        )
        return next((t[name_of(found)] for t in tables if name_of(found) in t), None)

    def unpinned(self, found: Evidence) -> bool:
        """Whether a record has no number on record where others of its kind have."""
        table = self.table(found)
        return bool(table) and _is_measured(found) and name_of(found) not in table


def _is_measured(found: Evidence) -> bool:
    return found.verdict != Verdict.NOT_RUN and SAMPLED_OUT not in found.absent


def name_of(found: Evidence) -> str:
    """What a record stands under: its key; a control its test's name too."""
    if not found.control:
        return found.key
    return f"{found.id} control {found.test.rpartition('::')[2]}"


def _entry(found: Evidence) -> dict[str, Any]:
    """What is pinned of a record."""
    numbers = (found.observed, found.ci_low, found.ci_high)
    entry: dict[str, Any] = {
        name: float(f"{value or 0.0:.7g}") for name, value in zip(NUMBERS, numbers, strict=True)
    }
    entry["bound"] = f"{found.bound_text} {found.unit}".strip()
    entry["rows"] = f"{found.coverage.get('scored', 0)} of {found.coverage.get('of', 0)}"
    if found.control:  # what it was made from stands with its claim
        return {**entry, "fault": found.fault}
    entry |= {"n": found.n, "units": found.n_clusters, "method": found.ci_method}
    lost = {**found.excluded, **{f"absent: {why}": n for why, n in found.absent.items()}}
    entry |= {"lost": lost} if lost else {}
    entry["inputs"] = {name: sha[:12] for name, sha in found.inputs.items()}
    if settings := _settings(found.details):
        text = json.dumps(settings, sort_keys=True, default=str)
        entry["settings"] = hashlib.sha256(text.encode()).hexdigest()[:12]
    return entry


def _settings(details: Mapping[str, Any]) -> Any:
    """What was set, without what differs between machines."""

    def cleaned(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {k: cleaned(v) for k, v in value.items() if k not in _NOT_SET}
        return [cleaned(v) for v in value] if isinstance(value, (list, tuple)) else value

    given = {name: details[name] for name in _SETTINGS if name in details}
    if not isinstance(given.get("settings", {}), Mapping):  # rows of a table that was measured
        del given["settings"]
    return cleaned(given)


def _scale(known: Mapping[str, Any], found: Evidence) -> float:
    """What a share of is allowed: half of the interval; of an exact number the bound's margin, or
    how far beyond it lies."""
    half = (float(known["high"]) - float(known["low"])) / 2
    if half > 0:
        return half
    observed = float(known["observed"])
    beyond = abs(observed - found.bound) if found.refuted and found.bound is not None else 0.0
    return max(found.margin, beyond) or abs(observed)


_COUNT = re.compile(r"\d+")


def _counts_alike(before: Any, after: Any, rows: float) -> bool:
    """Whether two words or tables differ in counts alone, and in none by more than so many rows."""
    if rows == 0 or type(before) is not type(after):
        return False
    words = [json.dumps(value, sort_keys=True) for value in (before, after)]
    if _COUNT.sub("", words[0]) != _COUNT.sub("", words[1]):
        return False
    pairs = zip(*(map(int, _COUNT.findall(text)) for text in words), strict=True)
    return all(abs(a - b) <= rows for a, b in pairs)


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k}: {v}" for k, v in value.items()) + "}"
    return "none" if value is None else str(value)


PINS = pytest.StashKey[Pins]()  # where pytest's config keeps them


# --- what the claims are, whatever was measured


def described(claim: Claim, file: str, controls: Sequence[str]) -> dict[str, Any]:
    """A claim as it stands in the catalogue: what may not change without a word."""
    entry: dict[str, Any] = {"id": claim.id, "file": file, "bound": str(claim.bound)}
    if claim.bounds_on:
        entry["bounds_on"] = {data: str(bound) for data, bound in claim.bounds_on.items()}
    entry |= {"kind": str(claim.kind), "cases": str(claim.cases)}
    entry["least_coverage"] = f"{claim.least_coverage:g}"
    entry["controls"] = sorted(controls)
    return entry


def altered(pins: Pins, catalogue: Sequence[Mapping[str, Any]], whole: Sequence[Path]) -> list[str]:
    """What of the catalogue is not as it was.

    Args:
        catalogue: what was collected, as `described`.
        whole: files and folders that were collected whole, so that what lacks is gone.
    """
    now = {entry["id"]: entry for entry in catalogue}
    said = []
    for claim, (known, folder) in pins.claims.items():
        path = folder / str(known.get("file", ""))
        is_whole = any(path == place or place in path.parents for place in whole)
        if claim not in now:
            said += [f"claim {claim} is gone from {path.name}"] if is_whole else []
            continue
        found = now[claim]
        for name in sorted((set(known) | set(found)) - {"id", "controls"}):
            before, after = known.get(name), found.get(name)
            if before != after:
                said.append(f"claim {claim}: {name} {_shown(before)} -> {_shown(after)}")
        if is_whole:
            before, after = Counter(known.get("controls", ())), Counter(found["controls"])
            said += [f"claim {claim}: control {fault!r} is gone" for fault in before - after]
            said += [f"claim {claim}: control {fault!r} is new" for fault in after - before]
    return said


# --- one session


def all_moved(
    pins: Pins, session: Sequence[Evidence], own_data: Iterable[str], model: str
) -> list[str]:
    """What moved in the records of a session, and where they contradict one another.

    Args:
        model: the one under test; what is known of others says nothing about it.
        own_data: the sets of data that the session is about: what is known on them was measured on
            them, and not on others.
    """
    moved = [words for found in session if (words := pins.moved(found))]
    return [*moved, *_elsewhere(pins, session, set(own_data), model), *disagreeing(session)]


def _elsewhere(
    pins: Pins, session: Sequence[Evidence], own_data: set[str], model: str
) -> Iterator[str]:
    """Records of what is known on the session's own data, but that name other data, or another
    subject of which nothing is known."""
    for found in session:
        if found.control or not _is_measured(found) or found.key in pins.table(found):
            continue
        for (size, subject, data), table in pins.records.items():
            is_same = size == found.size and (subject == found.subject or data == found.dataset)
            if subject != model and found.subject == model:
                continue  # another model
            if is_same and data in own_data and found.key in table:
                yield (
                    f"{found.key} is known of {subject} on {data}, and was measured of "
                    f"{found.subject} on {found.dataset}"
                )


def unlike(pins: Pins, session: Session) -> Iterator[str]:
    """All that a session, read from its folder, has otherwise than it is on record."""
    yield from altered(pins, session.session.get("catalogue", ()), whole=())
    model = str(session.session.get("model", ""))
    yield from all_moved(pins, session.claims, _own_data(session), model)
    for found in session.claims:
        if pins.unpinned(found):
            yield f"{name_of(found)} on {found.dataset}: no number is on record for it"


def _own_data(session: Session) -> set[str]:
    names = (session.session.get("dataset"), session.session.get("training_dataset"))
    return {name for name in names if name}


def disagreeing(session: Iterable[Evidence]) -> Iterator[str]:
    """Claims about one subject on the same data that were made from other predictions.

    A record that was made from predictions carries their digest; claims that give one name to what
    they measured must have measured one thing.
    """
    seen: dict[tuple[str, str, int | None, str], tuple[str, str]] = {}
    for found in session:
        digest = found.details.get("predictions_sha256")
        if found.control or not isinstance(digest, str):
            continue
        settings = json.dumps(_settings(found.details), sort_keys=True, default=str)
        who = (found.model, found.dataset, found.fold, settings)
        first, of_first = seen.setdefault(who, (digest, found.key))
        if first != digest:
            yield (
                f"{found.key} and {of_first} are both about {found.model} on {found.dataset}, and "
                "were made from different predictions"
            )


# --- files


def beside(verdicts: Path) -> Path:
    """The file of numbers that belongs to a file of verdicts."""
    return verdicts.with_suffix(".measured.toml")


def load_pins(*verdicts: Path) -> Pins:
    """The numbers that stand beside these files of verdicts, where there are any.

    Later files override earlier ones.

    Raises:
        ConfigError: a file is not TOML, or not of this layout.
    """
    within = dict(DEFAULT)
    claims: dict[str, tuple[Mapping[str, Any], Path]] = {}
    records: dict[tuple[str, str, str], dict[str, Mapping[str, Any]]] = {}
    for path in map(beside, verdicts):
        if not path.is_file():
            continue
        content = _read(path)
        for pattern, given in _table(path, "within", content.pop("within", {})).items():
            within[pattern] = _within(path, pattern, given)
        for claim, entry in _table(path, "claims", content.pop("claims", {})).items():
            claims[claim] = ({**_table(path, claim, entry)}, path.parent.resolve())
        for size, of_subject in content.items():
            if size not in tuple(Size):
                raise ConfigError(f"{path}: [{size}] is no size; there are {', '.join(Size)}")
            for subject, of_data in _table(path, size, of_subject).items():
                for data, table in _table(path, subject, of_data).items():
                    known = records.setdefault((size, subject, data), {})
                    for key, entry in _table(path, data, table).items():
                        known[key] = _numbers(path, key, entry)
    return Pins(within, claims, records)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as TOML: {error}. Write it anew.") from None


def _table(path: Path, name: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: {name} = {value!r} is no table. Write the file anew.")
    return value


def _numbers(path: Path, key: str, entry: Any) -> Mapping[str, Any]:
    table = _table(path, key, entry)
    if bad := [n for n in NUMBERS if type(table.get(n)) not in (int, float)]:
        raise ConfigError(f"{path}: {key!r} has no number {bad[0]}. Write the file anew.")
    return table


def _within(path: Path, pattern: str, given: Any) -> Within:
    table = _table(path, f"within.{pattern}", given)
    unknown = set(table) - set(Within._fields)
    shares = [table.get("half_widths"), table.get("rows", 0.0)]
    fine = all(type(share) in (int, float) and 0 <= share < float("inf") for share in shares)
    if unknown or not fine or not table.get("reason"):
        raise ConfigError(
            f"{path}: within.{pattern!r} = {given!r}; give half_widths (and rows, if counts may "
            "move) as shares from 0 up, and the reason"
        )
    return Within(float(shares[0]), str(table["reason"]), float(shares[1]))


def pinned(pins: Pins, sessions: Sequence[Session], name: str) -> str:
    """A file of numbers: those on record, and in their place what these sessions found."""
    claims = {claim: dict(entry) for claim, (entry, _) in pins.claims.items()}
    records = {place: dict(table) for place, table in pins.records.items()}
    for session in sessions:
        for entry in session.session.get("catalogue", ()):
            claims[entry["id"]] = {k: v for k, v in entry.items() if k != "id"}
        for found in session.claims:
            if _is_measured(found):
                place = (str(found.size), found.subject, found.dataset)
                records.setdefault(place, {})[name_of(found)] = _entry(found)
    lines = [_HEAD.format(name=name), "[within]"]
    for pattern, within in pins.within.items():
        rows = {"rows": within.rows} if within.rows else {}
        entry = {"half_widths": within.half_widths, **rows, "reason": within.reason}
        lines.append(f"{_toml(pattern)} = {_toml(entry)}")
    lines += ["", "[claims]"]
    lines += [f"{_toml(claim)} = {_toml(claims[claim])}" for claim in sorted(claims)]
    for size, subject, data in sorted(records):
        lines += ["", f"[{size}.{_toml(subject)}.{_toml(data)}]"]
        table = records[size, subject, data]
        lines += [f"{_toml(key)} = {_toml(table[key])}" for key in sorted(table)]
    return "\n".join(lines) + "\n"


_BARE = re.compile(r"[A-Za-z0-9_-]+")


def _toml(value: Any) -> str:
    """A value as TOML has it, tables inline; JSON's strings and numbers are TOML's too."""
    if isinstance(value, Mapping):
        pairs = ((k if _BARE.fullmatch(k) else _toml(k), _toml(v)) for k, v in value.items())
        return "{ " + ", ".join(f"{k} = {v}" for k, v in pairs) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False, allow_nan=False).replace("\x7f", "\\u007f")
