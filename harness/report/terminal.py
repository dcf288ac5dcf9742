"""The verdict table of the terminal: one line a claim, words rather than dots."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from harness.claims import Verdict
from harness.evidence import Evidence, in_reading_order
from harness.report.verdicts import Documented

COLOURS = {
    Verdict.HELD: "green",
    Verdict.REFUTED: "red",
    Verdict.PLACEHOLDER: "red",
    Verdict.INCONCLUSIVE: "yellow",
    Verdict.NOT_RUN: "yellow",
}
INDENT = "    "
HEADINGS = ("claim", "observed", "95 % interval", "bound", "verdict", "coverage")


def verdict_table(
    evidence: Sequence[Evidence], documented: Documented
) -> Iterator[tuple[str, str]]:
    """Lines and their colours: what was measured, the reasons, how the controls fared.

    Claims that were not run stand with their reason only, unless another verdict is documented.
    """
    evidence = in_reading_order(evidence)
    claims = [e for e in evidence if not e.control]
    shown = [e for e in claims if e.verdict != Verdict.NOT_RUN or _differs(e, documented)]
    rows = [_cells(e, documented) for e in shown]
    widths = [max(map(len, column)) for column in zip(HEADINGS, *rows, strict=True)]
    yield _line(HEADINGS, widths), ""
    for found, cells in zip(shown, rows, strict=True):
        yield _line(cells, widths), COLOURS[found.verdict]
    because: dict[tuple[Verdict, str], list[str]] = {}
    for found in claims:
        if found.reason:
            because.setdefault((found.verdict, found.reason), []).append(found.key)
    for (verdict, reason), keys in because.items():
        yield f"{verdict}: {reason}", COLOURS[verdict]
        yield (
            textwrap.fill(", ".join(keys), 110, initial_indent=INDENT, subsequent_indent=INDENT),
            "",
        )
    controls = [e for e in evidence if e.control]
    ran = [e for e in controls if e.verdict != Verdict.NOT_RUN]
    caught = [e for e in ran if e.refuted or e.placeholder]
    line = f"controls: {len(caught)} of {len(ran)} planted faults caught"
    if len(controls) > len(ran):
        line += f", {len(controls) - len(ran)} not run"
    yield line, "green" if len(caught) == len(ran) else "red"
    for found in ran:
        if found not in caught:
            yield f"  NOT CAUGHT {found.fault!r}: {found}", "red"


def _differs(found: Evidence, documented: Documented) -> bool:
    known = documented.get(found.key)
    return known is not None and known.verdict != found.verdict


def _cells(found: Evidence, documented: Documented) -> tuple[str, ...]:
    verdict = str(found.verdict)
    if _differs(found, documented):
        verdict += f" (documented: {documented[found.key].verdict})"
    if found.observed is None:
        return (found.key, "", "", found.bound_text, verdict, "")
    scored, of = found.coverage["scored"], found.coverage["of"]
    return (
        found.key,
        f"{found.observed:.4g}",
        f"{found.ci_low:.4g} to {found.ci_high:.4g}" if found.ci_low != found.ci_high else "exact",
        f"{found.bound_text} {found.unit}".strip(),
        verdict,
        f"{scored:,} of {of:,} ({scored / of:.0%})" if of else "",
    )


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
