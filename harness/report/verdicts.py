"""Documented verdicts: what is known to come out, for one subject on one set of data.

`checks/verdicts.toml` lists them, and files of a user's own beside it. A verdict stands once, under
the data the claim is measured on, whatever the data set of a session. A known refutation is a
finding and does not fail a session; any verdict that differs from its documented one does.

    [expected]                                  # until measured, what is known on other data
    "matbench_mp_e_form" = ["matbench_mp_e_form (targets)", "matbench_mp_e_form (subset)"]

    ["chgnet-0.3.0"."project DFT (PBE)"]        # subject, data
    "softening.dft[force-slope-0.1]" = "held"
    "zero-shot.offset fold3" = { verdict = "refuted", reason = "why" }      # one fold; else all
    "softening.dft[bulk-modulus]" = { quick = "inconclusive", nightly = "held", reason = "why" }

Where the interval of a training ends so near the bound that processors decide, `or = "held"` names
the other verdict it may have, and the reason says so.

A reason may hold {details.name}, which the record's own details fill: no number is written twice.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from harness.claims import Size, Verdict
from harness.errors import ConfigError
from harness.evidence import Evidence, Session
from harness.report import overview

SAMPLED_OUT = "left out by --sample"  # rows absent for this reason make another measurement
_FOLD = re.compile(r" fold\d+$")
_NEEDS_REASON = (Verdict.REFUTED, Verdict.INCONCLUSIVE, Verdict.PLACEHOLDER, Verdict.NOT_RUN)


class Known(NamedTuple):
    """One documented verdict."""

    verdict: Verdict
    reason: str = ""
    measured_on: str = ""  # other data than asked for, where it is only expected on these
    other: Verdict | None = None  # it may have this one too, for a reason that is stated

    def beside(self, found: Verdict) -> Verdict:
        """What stands on record beside a verdict: that itself where it may be."""
        return found if found == self.other else self.verdict


class _Entry(NamedTuple):
    verdicts: Mapping[Size, Verdict]
    reason: str
    other: Verdict | None = None


@dataclass(frozen=True)
class Documented:
    """All that is documented, by subject, data and key."""

    entries: Mapping[tuple[str, str], Mapping[str, _Entry]] = field(default_factory=dict)
    expected: Mapping[str, Sequence[str]] = field(default_factory=dict)  # data -> other data

    def known(self, subject: str, dataset: str, key: str, size: Size) -> Known | None:
        """What is documented for `Evidence.key` on this subject and data; None if nothing is."""
        for data in (dataset, *self.expected.get(dataset, ())):
            table = self.entries.get((subject, data), {})
            entry = table.get(key) or table.get(_FOLD.sub("", key))
            if entry is not None and size in entry.verdicts:
                measured_on = "" if data == dataset else data
                return Known(entry.verdicts[size], entry.reason, measured_on, entry.other)
        return None

    def of(self, found: Evidence) -> Known | None:
        """What is documented for a record; nothing where --sample made it another measurement."""
        if SAMPLED_OUT in found.absent:
            return None
        return self.known(found.subject, found.dataset, found.key, found.size)

    def anywhere(self, key: str, size: Size) -> list[tuple[str, str]]:
        """Subject and data of every place where this key is documented."""
        return [
            (subject, data)
            for (subject, data), table in self.entries.items()
            for entry in (table.get(key) or table.get(_FOLD.sub("", key)),)
            if entry is not None and size in entry.verdicts
        ]

    def places(self) -> Iterator[tuple[str, str, str]]:
        """Subject, data and key of all that is documented."""
        for (subject, data), table in self.entries.items():
            for key in table:
                yield subject, data, key


def load_documented(*paths: Path) -> Documented:
    """The documented verdicts of some files; later ones override earlier ones.

    Raises:
        ConfigError: a file is missing, is not TOML, holds a word that is no verdict, or says
            anything but `held` without a reason.
    """
    entries: dict[tuple[str, str], dict[str, _Entry]] = {}
    expected: dict[str, Sequence[str]] = {}
    for path in paths:
        for subject, of_data in _read(path).items():
            if subject == "expected":
                expected.update(_other_data(path, of_data))
                continue
            for data, table in _tables(path, of_data):
                known = entries.setdefault((subject, data), {})
                for key, entry in _tables(path, table, scalars=True):
                    known[key] = _entry(f"{path}: {subject}, {data}: {key!r}", entry)
    return Documented(entries, expected)


def _other_data(path: Path, table: Any) -> Iterator[tuple[str, Sequence[str]]]:
    for data, known_on in _tables(path, table, scalars=True):
        names = [known_on] if isinstance(known_on, str) else known_on
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ConfigError(f"{path}: expected: {data!r} = {known_on!r}; give names of data")
        yield data, tuple(names)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error}. Name a file of verdicts.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    except RecursionError:
        raise ConfigError(f"{path} is nested too deeply for a file of verdicts") from None


def _tables(path: Path, table: Any, *, scalars: bool = False) -> Iterable[tuple[str, Any]]:
    if not isinstance(table, dict) or not (
        scalars or all(isinstance(value, dict) for value in table.values())
    ):
        raise ConfigError(
            f"{path}: {table!r} is no table. Verdicts stand under [subject.data] as key = verdict."
        )
    return table.items()


def _entry(where: str, entry: Any) -> _Entry:
    given = {"verdict": entry} if isinstance(entry, str) else entry
    if not isinstance(given, dict) or (
        unknown := set(given) - {"verdict", "reason", "or", *map(str, Size)}
    ):
        what = sorted(unknown) if isinstance(given, dict) else repr(entry)
        raise ConfigError(f"{where}: {what} is neither verdict, reason, or, quick nor nightly")
    try:
        verdicts = {
            size: Verdict(given[name])
            for size in Size
            for name in (str(size), "verdict")
            if name in given and not (name == "verdict" and str(size) in given)
        }
        other = Verdict(given["or"]) if "or" in given else None
    except ValueError as error:
        raise ConfigError(f"{where}: {error}; verdicts are {', '.join(Verdict)}") from None
    reason = given.get("reason", "")
    if not verdicts:
        raise ConfigError(f"{where} names no verdict")
    if not reason and (other or any(v in _NEEDS_REASON for v in verdicts.values())):
        words = ", ".join(dict.fromkeys(map(str, verdicts.values())))
        raise ConfigError(f"{where} is documented as {words} without a reason")
    return _Entry(verdicts, str(reason), other)


def filled(reason: str, details: Mapping[str, Any]) -> str:
    """A documented reason with the record's own numbers in it.

    Raises:
        ConfigError: it names a detail that the record does not have.
    """
    try:
        return reason.format(details=_Dotted(details))
    except (KeyError, IndexError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"the documented reason {reason!r} names what the record's details lack ({error!r}); "
            f"they have {', '.join(details)}"
        ) from None


class _Dotted:
    """Details by attribute, as a format string asks for them; lists in words."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def __getattr__(self, name: str) -> Any:
        value = self._values[name]
        if isinstance(value, Mapping):
            return _Dotted(value)
        return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value


def differences(session: Session, documented: Documented) -> Iterator[str]:
    """Every claim whose verdict is not the documented one, missing or extra ones, uncaught faults.

    What is expected from other data may come out otherwise on these: that is new, not different.
    A control that did not run says why in its record, such as that these rows tell no fault from
    the bound, and is no difference.
    """
    for error in session.errors:
        yield f"{error['test']} broke: {error['message']}"
    if not session.complete:
        yield f"the session is not complete: {session.session.get('incomplete_reason', '')}"
    claims = [e for e in session.claims if not e.control]
    for found in claims:
        known = documented.of(found)
        if SAMPLED_OUT in found.absent or (known and known.beside(found.verdict) == found.verdict):
            continue
        if found.verdict == Verdict.NOT_RUN and found.lacks_data:
            continue
        if found.verdict == found.documented:  # not run, and known so from elsewhere
            continue
        if known is None:
            yield f"{found.key} on {found.dataset}: {found.verdict}, but no verdict is documented"
        elif not known.measured_on:
            yield f"{found}; documented: {known.verdict}"
    yield from _missing(session, documented)
    for found in session.claims:
        if found.control and not found.caught and found.verdict != Verdict.NOT_RUN:
            yield f"control {found.fault!r} was not caught: {found}"
        if found.control and found.caught and not found.far and overview.is_far(found):
            yield (
                f"control {found.fault!r} lies far beyond its bound: {found}; "
                f"{found.margins_away or 0:.2g} of the bound's margin, "
                f"{found.resolutions_away or 0:.2g} resolutions. Plant a smaller fault, or say in "
                "`far=` why there is none"
            )


def _missing(session: Session, documented: Documented) -> Iterator[str]:
    """Documented on this session's own data, and not among its records."""
    own = {session.session.get("dataset"), session.session.get("training_dataset")}
    present = {key for e in session.claims for key in (e.key, _FOLD.sub("", e.key))}
    present |= {key for left in session.left_out for key in (left, _FOLD.sub("", left))}
    subjects = {session.session.get("model"), *(e.subject for e in session.claims)}
    for subject, data, key in documented.places():
        if subject in subjects and data in own and key not in present:
            yield f"{key} is documented for {subject} on {data}, but it was not in the session"


def written(sessions: Sequence[Session]) -> str:
    """A file of documented verdicts that says what these sessions found."""
    tables: dict[tuple[str, str], dict[str, dict[str, str]]] = {}
    for session in sessions:
        for e in session.claims:
            if e.control or e.verdict == Verdict.NOT_RUN or SAMPLED_OUT in e.absent:
                continue
            entry = tables.setdefault((e.subject, e.dataset), {}).setdefault(e.key, {})
            entry[str(e.size)] = str(e.verdict)
            if e.verdict != Verdict.HELD:
                reason = e.reason or (
                    f"measured {e.observed:.4g} [{e.ci_low:.4g}, {e.ci_high:.4g}] against "
                    f"{e.bound_text}"
                )
                entry["reason"] = reason.replace("{", "{{").replace("}", "}}")  # `filled` reads it
    lines = []
    for (subject, data), table in tables.items():
        lines.append(f"[{_quoted(subject)}.{_quoted(data)}]")
        for key, entry in table.items():
            said = ", ".join(f"{name} = {_quoted(value)}" for name, value in entry.items())
            lines.append(f"{_quoted(key)} = {{ {said} }}")
        lines.append("")
    return "\n".join(lines)


def _quoted(text: str) -> str:
    """A basic string of TOML."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + re.sub(r"[\x00-\x1f\x7f]", lambda m: f"\\u{ord(m.group()):04x}", escaped) + '"'
