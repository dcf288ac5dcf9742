"""Verdicts over time: what past sessions concluded, and where that changed.

Sessions are compared only with sessions of the same model and size on the same data, the same
sample included: a verdict that differs because the rows differ is no change.

Public: Past, history, render.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.claims import Size, Verdict
from harness.errors import DataError
from harness.evidence import Evidence, Session
from harness.report import journal, products
from harness.report.numbers import number

LAST = 5


@dataclass(frozen=True, kw_only=True)
class Past:
    """One folder of reports: its session, or why that cannot be read."""

    folder: Path
    session: Session | None
    problem: str = ""

    @property
    def started(self) -> str:
        """ISO instant; empty for a damaged folder."""
        return "" if self.session is None else str(self.session.session.get("started", ""))

    @property
    def subject(self) -> tuple[str, str, str, str]:
        """What sessions must share to be compared: model, data set, size and sample."""
        info = {} if self.session is None else self.session.session
        sample = info.get("sample")
        rows = "all rows" if sample is None else f"at most {sample} rows a fold"
        size = str(info.get("size", Size.QUICK))
        return str(info.get("model", "")), str(info.get("dataset", "")), size, rows


def history(reports: Path) -> list[Past]:
    """Every session under ``reports``, oldest first; damaged folders last, each with its problem.

    A session is a folder with `evidence.json`, or one that died with its journal only, directly
    under ``reports`` or that folder itself. Links such as `latest` are passed over, so that no
    session counts twice.

    Raises:
        DataError: there is no such folder.
    """
    try:
        below = sorted(p for p in reports.iterdir() if not p.is_symlink() and p.is_dir())
    except OSError as error:
        raise DataError(
            f"{reports} is no folder of reports: {error.strerror or error}. Run "
            "`pytest checks/ -m fold0` first, or name another folder."
        ) from None
    found = [past for folder in (reports, *below) if (past := _read(folder)) is not None]
    return sorted(found, key=lambda past: (past.session is None, past.started, past.folder.name))


def render(past: Sequence[Past], last: int = LAST) -> Iterator[str]:
    """Lines to print: per claim its last verdicts and values, changes marked, then what is damaged.

    Args:
        past: what `history` returned.
        last: how many sessions back each claim is shown.
    """
    by_subject: dict[tuple[str, str, str, str], list[Session]] = {}
    for one in past:
        if one.session is not None:
            by_subject.setdefault(one.subject, []).append(one.session)
    if not by_subject:
        yield "no session to show"
    for (model, dataset, size, rows), sessions in by_subject.items():
        count = f"{len(sessions)} session{'' if len(sessions) == 1 else 's'}"
        yield f"{model} on {dataset}, {size}, {rows}: {count}"
        for key in dict.fromkeys(e.key for s in reversed(sessions) for e in _claims(s)):
            yield f"  {key}"
            yield from _lines(key, sessions, last)
    for one in past:
        if one.session is None:
            yield f"damaged: {one.problem}"


def _read(folder: Path) -> Past | None:
    """The session of a folder; None where none ever began."""
    try:
        names = {path.name for path in folder.iterdir()}
        if not names & {products.EVIDENCE, journal.NAME}:
            return None
        return Past(folder=folder, session=products.load(folder))
    except OSError as error:
        return Past(folder=folder, session=None, problem=f"{folder}: {error.strerror or error}")
    except DataError as error:
        return Past(folder=folder, session=None, problem=str(error).splitlines()[0])


def _claims(session: Session) -> list[Evidence]:
    return [e for e in session.claims if not e.control]


def _lines(key: str, sessions: Sequence[Session], last: int) -> Iterator[str]:
    runs = [
        (str(session.session.get("started", "")), evidence)
        for session in sessions
        for evidence in _claims(session)
        if evidence.key == key
    ]
    for i in range(max(0, len(runs) - last), len(runs)):
        started, evidence = runs[i]
        changes = _changes(runs[i - 1][1], evidence) if i else []
        what = f"{evidence.verdict:12}  {_value(evidence)}"
        yield _line(started, "   ".join(filter(None, (what, "; ".join(changes)))), bool(changes))
    if not any(e.key == key for e in _claims(sessions[-1])):
        newest = str(sessions[-1].session.get("started", ""))
        why = "absent from this session"
        if not sessions[-1].complete:
            why += ", which is not complete"
        yield _line(newest, why, True)


def _line(started: str, what: str, changed: bool) -> str:
    return f"  {'*' if changed else ' '} {started[:16].replace('T', ' '):16}  {what}"


def _value(evidence: Evidence) -> str:
    if evidence.observed is None:
        return evidence.reason.partition("\n")[0]
    ends = (evidence.bound_low, evidence.bound_high)
    shown = number(evidence.observed, evidence.unit, ends)
    low, high = evidence.ci_low, evidence.ci_high
    if low is not None and high is not None and low != high:
        shown += f" [{number(low, evidence.unit, ends)}, {number(high, evidence.unit, ends)}]"
    return f"{shown} {evidence.unit}".strip() + f", bound {evidence.bound_text}"


def _changes(before: Evidence, now: Evidence) -> list[str]:
    """What differs between two neighbouring sessions, in words; empty if nothing that matters."""
    found = []
    if before.verdict != now.verdict:
        found.append(f"was {before.verdict}")
    if (before.bound_low, before.bound_high) != (now.bound_low, now.bound_high):
        found.append(f"the bound was {before.bound_text}")
    if before.unit != now.unit:
        found.append(f"the unit was {before.unit or 'none'}")
    elif Verdict.NOT_RUN not in (before.verdict, now.verdict) and _apart(before, now):
        found.append("moved: the intervals do not overlap")
    inputs = sorted(
        name
        for name in before.inputs.keys() & now.inputs.keys()
        if before.inputs[name] != now.inputs[name]
    )
    if inputs:
        found.append(f"other content of {', '.join(inputs)}")
    return found


def _apart(before: Evidence, now: Evidence) -> bool:
    """Do the intervals miss each other? Exact numbers, which rounding alone changes from machine
    to machine, must have moved by a tenth of the way to the bound."""
    ends = (before.ci_low, before.ci_high, now.ci_low, now.ci_high)
    low, high, now_low, now_high = (0.0 if end is None else end for end in ends)
    slack = 0.0
    if low == high and now_low == now_high:
        slack = 0.1 * abs(low - (before.bound or 0.0))
    return now_low > high + slack or now_high < low - slack
