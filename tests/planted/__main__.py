"""Plants every defect, one at a time, and tells what turns red; exit 1 where nothing does.

    python -m tests.planted                  all of them
    python -m tests.planted NAME...          some
    python -m tests.planted --fast           a dozen of them, of every kind that is cheap
    python -m tests.planted --document       and write the table into docs/planted.md

Predictions are taken from the cache (HARNESS_CACHE, or the usual one); what it lacks an undisturbed
session computes first. Both have to be green, or nothing could be told from a defect.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tests.planted.defects import DEFECTS
from tests.planted.frame import ROOT, Defect, Outcome, run

# Found in what takes seconds, from a cold cache as well.
FAST = (
    "one-compound-in-another-unit",
    "one-reference-of-another-functional",
    "one-alignment-under-anothers-name",
    "worst-rows-dropped",
    "hard-rows-never-read",
    "rows-counted-twice",
    "another-data-sets-name",
    "weights-a-little-off",
    "ninety-per-cent",
    "bound-loosened",
    "assert-deleted",
    "control-deleted",
    "claim-deleted",
    "fault-gone",
)
PAGE = ROOT / "docs" / "planted.md"
BEGIN, END = "<!-- table: python -m tests.planted --document -->", "<!-- end of table -->"


def undisturbed(defects: Iterable[Defect]) -> Iterable[Defect]:
    """Each different session that the defects are looked for in, with nothing planted."""
    for i, checks in enumerate(dict.fromkeys(defect.run for defect in defects)):
        yield Defect(f"nothing-{i}", "", "nothing", lambda _: None, checks, "")


def preload() -> None:
    """What every session imports, once for all of them; nothing of ours, which is patched."""
    for name in (
        "torch",
        "pandas",
        "sklearn.linear_model",
        "plotly.graph_objects",
        "ase",
        "pymatgen.core",
        "chgnet.model",
        "scipy.stats",
        "hypothesis",
    ):
        with contextlib.suppress(ImportError):
            __import__(name)


def all_of(names: list[str], cache: Path) -> dict[str, Outcome]:
    preload()
    chosen = [DEFECTS[name] for name in names] or list(DEFECTS.values())
    outcomes = {}
    with tempfile.TemporaryDirectory() as scratch:
        for defect in [*undisturbed(chosen), *chosen]:
            folder = Path(scratch) / defect.name
            folder.mkdir()
            outcome = outcomes[defect.name] = run(defect, cache, folder)
            honest = defect.is_honest
            good = outcome.exit_status == 0 if honest else outcome.caught(defect)
            words = "; ".join(outcome.red)[:300] or "nothing red"
            print(
                f"{'ok ' if good else 'NO '} {defect.name} ({outcome.seconds:.0f} s, exit "
                f"{outcome.exit_status}, ran {outcome.ran}): {words}",
                flush=True,
            )
            if not good or (not honest and not outcome.ran):
                print((folder / "log").read_text(errors="replace")[-1500:], flush=True)
    return outcomes


def table(outcomes: dict[str, Outcome]) -> str:
    """The table of docs/planted.md."""
    caught = [d for d in DEFECTS.values() if d.name in outcomes and outcomes[d.name].caught(d)]
    before = [d for d in caught if outcomes[d.name].caught_before]
    unseen = [d for d in caught if d.unseen]
    lines = [
        f"{len(caught)} of {len(DEFECTS)} are caught; {len(before)} of them are noticed without "
        f"the numbers on record and the other guards. {len(unseen)} are of a kind of which no "
        "session saw one before (marked *).",
        "",
        "| defect | what | what turns red | without the guards |",
        "|---|---|---|---|",
    ]
    kind = ""
    for defect in DEFECTS.values():
        outcome = outcomes[defect.name]
        if defect.kind != kind:
            kind = defect.kind
            lines.append(f"| **{kind}** | | | |")
        star = "*" if defect.unseen else ""
        first = next((r for r in outcome.red if re.search(defect.caught_by, r)), "nothing")
        shown = first[:110].replace("|", "\\|").replace("\n", " ")
        noticed = "noticed" if outcome.caught_before else "green"
        lines.append(f"| `{defect.name}`{star} | {defect.what} | {shown} | {noticed} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.planted",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(DEFECTS)}")
    parser.add_argument("--fast", action="store_true", help="a dozen that take seconds")
    parser.add_argument("--document", action="store_true", help="write docs/planted.md")
    options = parser.parse_args()
    if unknown := set(options.names) - set(DEFECTS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from harness.data.paths import cache_dir

    names = [*options.names, *(FAST if options.fast else ())]
    outcomes = all_of(names, cache_dir())
    bad = [n for n, o in outcomes.items() if n in DEFECTS and not (o.caught(DEFECTS[n]) and o.ran)]
    bad += [n for n, o in outcomes.items() if n not in DEFECTS and o.exit_status]
    print(f"{len(outcomes) - len(bad)} of {len(outcomes)} as they should be; not: {', '.join(bad)}")
    if options.document and not names:
        text = PAGE.read_text(encoding="utf-8")
        head, _, rest = text.partition(BEGIN)
        _, _, tail = rest.partition(END)
        PAGE.write_text(f"{head}{BEGIN}\n{table(outcomes)}\n{END}{tail}", encoding="utf-8")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
