"""Fill the tables of results.md, softening.md and statistics.md from the evidence of sessions.

    python docs/tables.py SESSION_ON_REAL_ROWS SESSION_ON_EMBEDDED [OTHER_SUBJECT ...]
    python -m harness calibrate SESSION_ON_EMBEDDED | python docs/tables.py coverage
    python -m harness calibrate SESSION_ON_REAL_ROWS | python docs/tables.py coverage-real

Each argument is a folder with evidence.json; further ones are of other subjects, for the table of
sentences. Only what stands between `<!-- name -->` and
`<!-- end -->` is replaced, so that no number in a table is copied by hand.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from harness.claims import Kind, Verdict
from harness.evidence import Evidence, Session
from harness.report.overview import is_near

DOCS = Path(__file__).parent
AWAY = ("softening", "magnitudes", "relax", "chgnet", "mattersim", "physics")
INDEPENDENT = (
    *AWAY,
    "stiffness",
    "fine-tune.beats-scratch-toy",
    "zero-shot.own-dft",
    "zero-shot.experiments",
)


def main(real: Path, embedded: Path, *others: Path) -> None:
    on_real, on_embedded = (
        [e for e in Session.load(folder).claims if not e.control] for folder in (real, embedded)
    )
    fill("results.md", "claims", both(on_real, on_embedded))
    fill("results.md", "away", away(e for e in on_real if e.key.startswith(INDEPENDENT)))
    found = {e.key: e for e in on_real}
    fill(
        "softening.md",
        "claims",
        away(e for e in on_real if e.id.startswith(("softening", "stiffness"))),
    )
    fill("softening.md", "ratio", ratios(found))
    fill("softening.md", "volumes", volumes(found))
    fill("softening.md", "crystals", crystals(found))
    fill("softening.md", "groups", groups(found))
    fill("softening.md", "label", labels(found))
    fill("results.md", "sentences", sentences([Session.load(f) for f in (real, *others)]))
    for session in map(Session.load, others):
        if session.session["model"] == "sevennet-0":
            found_there = [e for e in session.claims if not e.control and e.kind != Kind.TOY]
            fill(
                "softening.md",
                "sevennet",
                away(e for e in found_there if e.id.startswith(("softening", "stiffness"))),
            )
    controls = [e for f in (real, embedded) for e in Session.load(f).claims if e.control]
    fill("statistics.md", "controls", distances(controls))


def fill(name: str, mark: str, lines: Iterable[str]) -> None:
    path = DOCS / name
    text = path.read_text(encoding="utf-8")
    block = re.compile(rf"(<!-- {mark} -->\n).*?(<!-- end -->)", re.DOTALL)
    if len(block.findall(text)) != 1:
        sys.exit(f"{path} needs one <!-- {mark} --> with its <!-- end -->")
    body = "\n".join(lines)
    path.write_text(block.sub(lambda m: f"{m[1]}{body}\n{m[2]}", text), encoding="utf-8")


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    body = ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads), *body]


def number(value: float) -> str:
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 10:
        return f"{value:.1f}"
    return f"{value:.4f}" if size >= 1e-3 else f"{value:.1g}"


def measured(e: Evidence) -> str:
    if e.observed is None or e.ci_low is None or e.ci_high is None:
        return ""
    if e.ci_method == "exact":
        return number(e.observed)
    return f"{number(e.observed)} [{number(e.ci_low)}, {number(e.ci_high)}]"


def named(e: Evidence) -> str:
    return f"{e.id} `{e.case}`" if e.case else e.id


def bound(e: Evidence) -> str:
    return f"{e.bound_text} {e.unit}".strip()


def both(real: Sequence[Evidence], embedded: Sequence[Evidence]) -> list[str]:
    other = {e.key: e for e in embedded}
    rows = []
    for e in real:
        if e.key.startswith(INDEPENDENT) or e.id.startswith("leaderboard"):
            continue
        there = other.get(e.key)  # a table of references may not apply there
        bounds = dict.fromkeys((bound(e), bound(there or e)))
        elsewhere = ("", "") if there is None else (measured(there), there.verdict)
        rows.append((named(e), "; ".join(bounds), measured(e), e.verdict, *elsewhere))
    heads = ("claim", "bound", "fold 0 of matbench mp_e_form, subset", "verdict")
    return table((*heads, "embedded", "verdict"), rows)


def away(claims: Iterable[Evidence]) -> list[str]:
    rows = []
    for e in claims:
        if e.verdict == Verdict.NOT_RUN:
            rows.append((named(e), bound(e), "", "", e.verdict))
            continue
        n = f"{e.coverage['scored']:,} of {e.coverage['of']:,}"
        rows.append((named(e), bound(e), measured(e), n, e.verdict))
    return table(("claim", "bound", "measured [95 % interval]", "n", "verdict"), rows)


def sentences(sessions: Sequence[Session]) -> list[str]:
    """Claim by subject: the verdict of the sentence, and what it says of the subject. Findings
    first, then weaknesses, then integrity."""
    models = [str(session.session["model"]) for session in sessions]
    by_model = [{made.id: made for made in session.sentences} for session in sessions]
    rows = []
    groups = ["strength", "neutral", "weakness", "integrity"]
    for made in sorted(sessions[0].sentences, key=lambda m: groups.index(m.meaning or groups[-1])):
        if made.kind == Kind.TOY or all(e.subject not in (*models, "") for e in made.of):
            continue
        cells = []
        for found in by_model:
            other = found.get(made.id)
            counts = other.count() if other else {}
            cases = ", ".join(f"{n} {verdict}" for verdict, n in counts.items())
            cells.append(f"**{other.verdict}** ({cases})" if other else "")
        rows.append((made.id, made.meaning or made.kind, *cells))
    short = [model.partition("?")[0].rpartition(":")[2] for model in models]
    return table(("sentence", "held, it is a", *short), rows)


def distances(controls: Sequence[Evidence]) -> list[str]:
    """Histogram of how far controls that ran lie from their bounds, in margins of the bound."""
    ran = [e for e in controls if e.caught and not e.placeholder]
    edges = (0.1, 0.25, 0.5, 1.0, 10.0)
    rows = []
    low = 0.0
    for high in (*edges, float("inf")):
        inside = [e for e in ran if e.margins_away is not None and low <= e.margins_away < high]
        end = f"{100 * high:g} %" if high < float("inf") else "more"
        rows.append((f"{100 * low:g} to {end}", len(inside), sum(bool(e.far) for e in inside)))
        low = high
    at_zero = [e for e in ran if e.margins_away is None]
    near = sum(is_near(e) for e in ran)
    rows.append(("bound at zero", len(at_zero), sum(bool(e.far) for e in at_zero)))
    rows.append((f"within 50 % or two resolutions: {near} of {len(ran)}", len(ran), ""))
    return table(("beyond the bound, of its margin", "controls", "that say why so far"), rows)


def interval(found: dict[str, float]) -> str:
    return f"{found['estimate']:.3g} [{found['low']:.3g}, {found['high']:.3g}]"


def ratios(found: dict[str, Evidence]) -> list[str]:
    rows = []
    for case in ("v0", "minimum"):
        e = found[f"softening.error-ratio[{case}]"]
        d: dict[str, Any] = e.details
        rows.append(
            (
                d["origin"],
                measured(e),
                interval(d["null_of_constant_relative_error"]),
                interval(d["ratio_over_null"]),
                f"{d['error_far_mev_per_atom']:.1f} / {d['error_near_mev_per_atom']:.2f}",
                f"{d['crystals_above_10']} of {e.n}",
            )
        )
    heads = ("energies", "ratio", "null: constant relative error", "ratio / null")
    return table((*heads, "error far / near, meV/atom", "crystals above 10"), rows)


def volumes(found: dict[str, Evidence]) -> list[str]:
    rows = []
    e = found["softening.dft[energy-compressed]"]
    for key, origin in (("by_volume", "V0"), ("by_volume_about_own_minimum", "own minimum")):
        for row in e.details[key]:
            rise = ""
            if "rise_over_dft" in row:
                rise = interval(
                    {
                        k: row[f"rise_{k}" if k != "estimate" else "rise_over_dft"]
                        for k in ("estimate", "low", "high")
                    }
                )
            error = f"{row['error_mev_per_atom']:+.1f}"
            rows.append(
                (
                    origin,
                    f"{row['v_over_v0']:g}",
                    f"{error} [{row['error_low']:+.1f}, {row['error_high']:+.1f}]",
                    rise,
                    f"{row['model_lower']} of {row['crystals']}",
                )
            )
    heads = ("counted from", "V / V0", "mean error, meV/atom", "rise / DFT's")
    return table((*heads, "crystals where the model is lower"), rows)


def crystals(found: dict[str, Evidence]) -> list[str]:
    columns: dict[str, dict[str, str]] = {}

    def put(column: str, key: str, name: str, digits: int = 2) -> None:
        columns[column] = {
            row["crystal"]: f"{row[name]:.{digits}f}" for row in found[key].details["crystals"]
        }

    put("ratio", "softening.error-ratio[v0]", "ratio", 1)
    put("null", "softening.error-ratio[v0]", "null", 1)
    put("B0 / DFT", "softening.dft[bulk-modulus]", "ratio")
    for amplitude in ("0.05", "0.1", "0.2", "0.4"):
        put(f"slope {amplitude} Å", f"softening.dft[force-slope-{amplitude}]", "slope")
    put("relaxed V / DFT", "relax.geometry-volume[dft]", "volume_ratio", 3)
    names = dict.fromkeys(name for column in columns.values() for name in column)
    rows = [(name, *(column.get(name, "") for column in columns.values())) for name in names]
    return table(("crystal", *columns), rows)


def groups(found: dict[str, Evidence]) -> list[str]:
    rows = []
    for key, e in found.items():
        if key.startswith("softening.force-slope[mlearn") and e.details:
            parts = [f"{name} {slope:.2f}" for name, slope in e.details["slope_by_group"].items()]
            rows.append((e.case, measured(e), "; ".join(parts)))
    return table(("set", "slope", "by group of frames"), rows)


def labels(found: dict[str, Evidence]) -> list[str]:
    rows = []
    for case in ("other-amplitudes", "other-directions"):
        for row in found[f"softening.one-label-fix[{case}]"].details["by_amplitude"]:
            if not row["configurations"]:  # the label's own amplitude
                continue
            rows.append(
                (
                    case,
                    f"{row['amplitude_ang']:g}",
                    row["configurations"],
                    f"{row['slope_before']:.3f}",
                    f"{row['slope_after']:.3f}",
                )
            )
    return table(("scored on", "amplitude, Å", "cells", "slope before", "after"), rows)


if __name__ == "__main__":
    if sys.argv[1:] in (["coverage"], ["coverage-real"]):
        fill("statistics.md", sys.argv[1], sys.stdin.read().splitlines())
        sys.exit()
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*map(Path, sys.argv[1:]))
