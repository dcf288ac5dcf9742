"""What a session comes to, told alike by the terminal and the page.

Whether a held claim is good news depends on what it claims: a weakness that is held is none. And a
verdict on something else than the model under test, such as a toy or another network, is no verdict
on the model.

Public: every name without a leading underscore.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from harness.claims import Kind, Meaning, Verdict
from harness.evidence import Evidence, Sentence
from harness.report.numbers import share

# The groups in which sentences are told, in this order. The last is of what is not, or not only,
# about the model under test.
FINDINGS, WEAKNESSES, INTEGRITY, TOYS, OTHERS = (
    "findings",
    "weaknesses",
    "integrity",
    "toys",
    "others",
)
GROUPS = (FINDINGS, WEAKNESSES, INTEGRITY, TOYS, OTHERS)

# A planted fault is near a bound within so many margins of it, or within so many resolutions.
NEAR_MARGINS = 0.5
NEAR_RESOLUTIONS = 2.0


def is_about(found: Evidence, model: str) -> bool:
    """Whether a record is about the model under test; what broke before it said so may be."""
    return found.subject in ("", model)


def group_of(sentence: Sentence, model: str) -> str:
    """In which of GROUPS a sentence stands."""
    if sentence.kind == Kind.TOY:
        return TOYS  # whatever the toy is called
    if not all(is_about(e, model) for e in sentence.of):
        return OTHERS
    if sentence.kind == Kind.INTEGRITY:
        return INTEGRITY
    return WEAKNESSES if sentence.meaning == Meaning.WEAKNESS else FINDINGS


def grouped(sentences: Iterable[Sentence], model: str) -> dict[str, list[Sentence]]:
    """The sentences of each group; groups without one are left out."""
    found: dict[str, list[Sentence]] = {group: [] for group in GROUPS}
    for one in sentences:
        found[group_of(one, model)].append(one)
    return {group: members for group, members in found.items() if members}


def answer(sentence: Sentence) -> str:
    """What a finding says of its subject: `strength: yes`, `weakness: open`; else its kind."""
    if sentence.meaning is None:
        return str(sentence.kind)
    if sentence.meaning == Meaning.NEUTRAL:
        return str(sentence.meaning)
    word = {Verdict.HELD: "yes", Verdict.REFUTED: "no"}.get(sentence.verdict, "open")
    return f"{sentence.meaning}: {word}"


def is_good(verdict: Verdict, meaning: Meaning | None) -> bool | None:
    """Whether a verdict is good news, by what the claim says of its subject; None: neither."""
    if verdict not in (Verdict.HELD, Verdict.REFUTED) or meaning == Meaning.NEUTRAL:
        return None
    return (verdict == Verdict.HELD) != (meaning == Meaning.WEAKNESS)


def word(verdict: Verdict, meaning: Meaning | None) -> str:
    """What a finding comes to, in the word that leads it: strength, weakness, yes, no, open."""
    if verdict == Verdict.HELD:
        return str(meaning) if meaning in (Meaning.STRENGTH, Meaning.WEAKNESS) else "yes"
    return {Verdict.REFUTED: "no", Verdict.NOT_RUN: "not run"}.get(verdict, "open")


MOST_HEADLINES = 8


def headlines(claims: Iterable[Evidence]) -> list[Evidence]:
    """The findings a report begins with, in the order of the checks: those that their claims name.

    Which they are was written with the claims, before anything was measured. Of several folds the
    first stands for all.
    """
    first: dict[tuple[str, str], Evidence] = {}
    for e in claims:
        if not e.control and e.headline.get(e.case):
            first.setdefault((e.id, e.case), e)
    return list(first.values())[:MOST_HEADLINES]


def badge(dataset: str, claims: Iterable[Evidence]) -> tuple[str, str]:
    """What kind of data these are, in a word for every corner of the page, and in a sentence.

    Of a subset the share is that of the best covered claim about a whole fold.
    """
    if dataset == "embedded":
        return "EMBEDDED", "small sets that come with the project; no official benchmark"
    on_it = [e for e in claims if e.dataset == dataset and not e.control and e.fold is not None]
    covered = [(e.coverage.get("of", 0), e.coverage.get("scored", 0)) for e in on_it]
    of, scored = max(covered, default=(0, 0))  # of the most rows, the best covered
    rows = f"at most {scored:,} of {of:,} rows of a fold were scored" if of else "no row was scored"
    if dataset.startswith("matbench_") and "subset" not in dataset and scored == of:
        return "OFFICIAL", f"every row of the official file: {rows}"
    if dataset.startswith("matbench_"):
        return (
            f"SUBSET {share(scored, of)}" if of else "SUBSET",
            f"a part of the official rows: {rows}",
        )
    return "OTHER", f"no official data set: {rows}"


def counted(sentence: Sentence, model: str) -> str:
    """How its cases came out, and the rule: `held 2, refuted 1 of 3 cases (rule: any case)`.

    Where a case is about something else than the model, each subject is named with its own.
    """
    n = len(sentence.of) + len(sentence.left_out)
    subjects = list(dict.fromkeys(e.subject for e in sentence.of if e.verdict != Verdict.NOT_RUN))
    ran = {s: [e for e in sentence.of if e.subject == s] for s in subjects}
    if n == 1:
        words = "one case"
        return words if subjects in ([], [model]) else f"{words}, about {subjects[0]}"
    if subjects in ([], [model]):
        words = _tally(sentence.of)
    else:
        words = "; ".join(f"{subject}: {_tally(cases)}" for subject, cases in ran.items())
    if sentence.left_out:
        words += f", not chosen {len(sentence.left_out)}"
    return f"{words} of {n} cases (rule: {sentence.rule})"


def _tally(cases: Sequence[Evidence]) -> str:
    verdicts = [e.verdict for e in cases]
    return ", ".join(f"{v} {verdicts.count(v)}" for v in Verdict if v in verdicts)


def is_near(control: Evidence) -> bool:
    """Whether a planted fault was so near the bound that noticing it says something."""
    margins, resolutions = control.margins_away, control.resolutions_away
    return (margins is not None and margins <= NEAR_MARGINS) or (
        resolutions is not None and resolutions <= NEAR_RESOLUTIONS
    )


def is_far(control: Evidence) -> bool:
    """Whether a caught fault lies more than twice as far beyond the bound as is near.

    A lever that came out as a placeholder was never applied: there is no distance to speak of.
    """
    if control.placeholder:
        return False
    margins, resolutions = control.margins_away, control.resolutions_away
    return (margins is None or margins > 2 * NEAR_MARGINS) and (
        resolutions is None or resolutions > 2 * NEAR_RESOLUTIONS
    )


def changed(claims: Iterable[Evidence]) -> list[Evidence]:
    """Verdicts that are not the documented ones; a file that is not at hand changes none."""
    return [
        e
        for e in claims
        if e.changed and not e.control and not e.documented_from and not e.lacks_data
    ]


def unexpected(claims: Iterable[Evidence]) -> list[Evidence]:
    """Verdicts other than on the data they were documented on: new, not changed."""
    return [
        e for e in claims if e.changed and not e.control and e.documented_from and not e.lacks_data
    ]


def chances(summary: Mapping[str, Any]) -> str:
    """`multiplicity.summary` in a sentence; empty where no interval decided a verdict."""
    if not summary.get("decided"):
        return ""
    decided, findings = summary["decided"], summary["findings"]
    lost = summary["not_surviving"]
    words = (
        f"{decided} verdict{'' if decided == 1 else 's'} at 95 %, of which "
        f"{summary['by_chance']:.2g} would come out by chance if every truth lay on its bound. "
    )
    if not findings:
        return words + "None is on a finding"
    if not lost:
        return words + f"All {findings} findings stand among all of them at once (Holm)"
    return words + (
        f"{len(lost)} of {findings} findings do not stand among all of them at once (Holm, marked "
        f"≠): {', '.join(lost)}"
    )
