"""The verdicts on a terminal: one line a sentence, then one a case; words rather than dots."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from harness.claims import Verdict
from harness.evidence import Evidence, Sentence, Session, in_reading_order
from harness.report import overview

COLOURS = {
    Verdict.HELD: "green",
    Verdict.REFUTED: "red",
    Verdict.PLACEHOLDER: "red",
    Verdict.INCONCLUSIVE: "yellow",
    Verdict.NOT_RUN: "yellow",
}
INDENT = "    "
WIDTH = 110
SENTENCES = ("sentence", "verdict", "it says", "of its cases")
HEADINGS = ("case", "observed", "95 % interval", "bound", "verdict", "coverage")

Line = tuple[str, str]


def verdict_table(session: Session) -> Iterator[Line]:
    """Lines and their colours: sentences, cases, reasons, controls, chance, changes, what is left.

    Claims that were not run stand with their reason only, unless another verdict is documented.
    """
    model = str(session.session.get("model", ""))
    evidence = in_reading_order(session.claims)
    claims = [e for e in evidence if not e.control]
    yield from _sentences(session.sentences, model)
    yield "", ""
    yield from _cases(claims, model)
    yield from _reasons(claims)
    yield from _controls([e for e in evidence if e.control])
    if words := overview.chances(session.session.get("multiplicity", {})):
        yield from _wrapped(f"chance: {words}", "")
    for found in overview.changed(claims):
        yield f"changed: {found.key}: documented {found.documented}, now {found.verdict}", "red"
    for found in overview.unexpected(claims):
        yield (
            f"new: {found.key}: {found.verdict}, where {found.documented} was expected from "
            f"{found.documented_from}",
            "yellow",
        )
    if not session.complete:
        yield incomplete(session), "red"


def incomplete(session: Session) -> str:
    """What kept a session from being whole, how much is left, and how to go on."""
    info = session.session
    n = len(info.get("not_reached", ()))
    words = f"INCOMPLETE: {info.get('incomplete_reason') or 'for no known reason'}; "
    words += f"{n} check{'' if n == 1 else 's'} not reached"
    return f"{words}; go on with: {info['resume']}" if info.get("resume") else words


# --- sentences


def _sentences(sentences: Sequence[Sentence], model: str) -> Iterator[Line]:
    groups = overview.grouped(sentences, model)
    listed = {name: [s for s in of if _is_listed(s, name)] for name, of in groups.items()}
    rows = {s.id: _sentence_cells(s, model) for of in listed.values() for s in of}
    widths = [max(map(len, column)) for column in zip(SENTENCES, *rows.values(), strict=True)]
    yield _line(SENTENCES, widths), ""
    for name, of in groups.items():
        yield _heading(name, of, model), ""
        for one in listed[name]:
            good = overview.is_good(one.verdict, one.meaning)
            yield _line(rows[one.id], widths), _colour(one.verdict, good)
        if unmeasured := [s.id for s in of if s.verdict == Verdict.NOT_RUN]:
            yield from _wrapped(f"not run, see below: {', '.join(unmeasured)}", "yellow", "  ")


def _is_listed(sentence: Sentence, group: str) -> bool:
    """Of integrity what is held is only counted; what was not run is named in one line."""
    if sentence.verdict == Verdict.NOT_RUN:
        return False
    return group != overview.INTEGRITY or sentence.verdict != Verdict.HELD


def _heading(group: str, of: Sequence[Sentence], model: str) -> str:
    if group == overview.OTHERS:
        return f"not about {model}, or not only"
    if group == overview.INTEGRITY:
        return f"integrity: {sum(s.verdict == Verdict.HELD for s in of)} of {len(of)} held"
    return group


def _sentence_cells(sentence: Sentence, model: str) -> tuple[str, ...]:
    return (
        f"  {sentence.id}",
        str(sentence.verdict),
        overview.answer(sentence),
        overview.counted(sentence, model),
    )


def _colour(verdict: Verdict, good: bool | None) -> str:
    """Green is good for the model and red is bad; what is neither has the terminal's own."""
    if good is None:
        return "" if verdict in (Verdict.HELD, Verdict.REFUTED) else COLOURS[verdict]
    return "green" if good else "red"


# --- cases


def _cases(claims: Sequence[Evidence], model: str) -> Iterator[Line]:
    changed = {e.key for e in overview.changed(claims)}
    shown = [e for e in claims if e.verdict != Verdict.NOT_RUN or e.key in changed]
    about = [e for e in shown if overview.is_about(e, model)]
    others = [e for e in shown if not overview.is_about(e, model)]
    cells = {e.key: _cells(e, model) for e in shown}
    widths = [max(map(len, column)) for column in zip(HEADINGS, *cells.values(), strict=True)]
    yield _line(HEADINGS, widths), ""
    for of, heading in ((about, ""), (others, f"not about {model}")):
        if of and heading:
            yield heading, ""
        for found in of:
            good = overview.is_good(found.verdict, found.meaning)
            yield _line(cells[found.key], widths), _colour(found.verdict, good)


def _cells(found: Evidence, model: str) -> tuple[str, ...]:
    verdict = str(found.verdict) + (" ≠" if found.survives_holm is False else "")
    if found.changed and not found.lacks_data:
        known = f"expected from {found.documented_from}" if found.documented_from else "documented"
        verdict += f" ({known}: {found.documented})"
    if found.observed is None:
        return (found.key, "", "", found.bound_text, verdict, "")
    name = found.key if overview.is_about(found, model) else f"{found.key} ({found.subject})"
    scored, of = found.coverage["scored"], found.coverage["of"]
    exact = found.ci_method == "exact"
    return (
        name,
        f"{found.observed:.4g}",
        "exact" if exact else f"{found.ci_low:.4g} to {found.ci_high:.4g}",
        f"{found.bound_text} {found.unit}".strip(),
        verdict,
        f"{scored:,} of {of:,} ({scored / of:.0%})" if of else "",
    )


def _reasons(claims: Sequence[Evidence]) -> Iterator[Line]:
    because: dict[tuple[Verdict, str], list[str]] = {}
    for found in claims:
        if found.reason:
            because.setdefault((found.verdict, found.reason), []).append(found.key)
    for (verdict, reason), keys in because.items():
        yield f"{verdict}: {reason}", COLOURS[verdict]
        yield from _wrapped(", ".join(keys), "", INDENT)


def _controls(controls: Sequence[Evidence]) -> Iterator[Line]:
    ran = [e for e in controls if e.verdict != Verdict.NOT_RUN]
    caught = [e for e in ran if e.caught]
    line = f"controls: {len(caught)} of {len(ran)} planted faults caught"
    if len(controls) > len(ran):
        line += f", {len(controls) - len(ran)} not run"
    near = sum(map(overview.is_near, ran))
    line += f"; {near} of {len(ran)} within 50 % of the bound or twice the resolution"
    yield line, "green" if len(caught) == len(ran) else "red"
    for found in ran:
        if found not in caught:
            yield f"  NOT CAUGHT {found.fault!r}: {found}", "red"


def _wrapped(words: str, colour: str, indent: str = "") -> Iterator[Line]:
    hanging = indent or INDENT
    lines = textwrap.wrap(
        words,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=hanging,
        break_on_hyphens=False,  # a key stays whole, to be searched for
        break_long_words=False,
    )
    for line in lines:
        yield line, colour


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
