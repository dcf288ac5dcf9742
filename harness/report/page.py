"""One self-contained page of a session: what was claimed, what was measured, what follows.

The page is made from the folder alone (`evidence.json` and the figures it names), so it can be
made again at any time. It asks nothing of a network: styles, script and plotly.js are in the file,
and its content policy forbids everything else. Every word from outside is escaped by Jinja.

Public: write_page. Free to change: everything else, and `templates/`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.claims import Kind, Verdict
from harness.errors import DataError
from harness.evidence import Evidence, Sentence, Session
from harness.plots.style import VERDICT_COLOURS
from harness.report import overview
from harness.report.numbers import Scale, duration, label, percent, share, times

if TYPE_CHECKING:
    from jinja2 import Environment

MARKS = {
    Verdict.HELD: "✓",
    Verdict.REFUTED: "✗",
    Verdict.INCONCLUSIVE: "≈",
    Verdict.PLACEHOLDER: "∅",
    Verdict.NOT_RUN: "–",
}
MEANINGS = {
    Verdict.HELD: "The whole 95 % interval satisfies the bound.",
    Verdict.REFUTED: "No part of the interval satisfies the bound, or one case breaks a law said "
    "to hold for all. It is about the model, the data or the claim; no defect of the harness.",
    Verdict.INCONCLUSIVE: "The interval straddles the bound, so that so many rows cannot tell; or "
    "no interval of them is to be trusted, or too few were scored, for the reason given.",
    Verdict.PLACEHOLDER: "The setting that was changed altered nothing beyond repeating the same "
    "run, so it was probably never applied.",
    Verdict.NOT_RUN: "Nothing was measured, for the reason given. It counts neither for nor "
    "against the claim.",
}
# What the groups of claims are called; {model} is the model under test.
GROUPS = {
    overview.FINDINGS: ("Findings", "How good {model} is."),
    overview.WEAKNESSES: (
        "Weaknesses",
        "What {model} is said to be bad at: a claim that is held here is bad news.",
    ),
    overview.INTEGRITY: (
        "Integrity",
        "Whether numbers mean what they say: identities, laws of physics, records.",
    ),
    overview.TOYS: ("Toys", "Models of an argument, about no potential."),
    overview.OTHERS: (
        "Not about {model}, or not only",
        "Claims of which cases are about something else, which is named with each. They are no "
        "verdict on {model}.",
    ),
}
# Keys of the session record that the page's head shows, and what stands there if one is missing;
# any other key is shown under environment.
_UNSAID: dict[str, Any] = {
    "model": "unnamed model",
    "dataset": "unnamed data set",
    "dataset_reason": "",
    "started": "",
    "seconds": 0.0,
    "command": "",
    "device": "",
    "sample": None,
    "size": "",
    "training_dataset": "",
    "complete": True,
    "incomplete_reason": "",
    "not_reached": (),
    "resume": "",
    "multiplicity": {},
}
_TABLES = {"machine": "Machine", "versions": "Versions"}
_LONGEST_LIST = 24
_LONGEST_TABLE = 60


def write_page(folder: Path) -> Path:
    """Write `report.html` from `evidence.json` and the figures beside it, whole or not at all.

    Raises:
        DataError: no evidence there, or a figure it names is missing or is no figure. An older
            page stays as it was.
    """
    session = Session.load(folder)
    view = _view(session, folder)
    environment = _environment()
    script, plotly = _script("report.js"), _plotly_js() if view["figures"] else ""
    page = environment.get_template("report.html").render(
        **view,
        style=_style(),
        script=script,
        plotly=plotly,
        policy=_policy([s for s in (script, plotly) if s]),
    )
    path = folder / "report.html"
    scratch = path.with_suffix(".html.tmp")
    scratch.write_text(page, encoding="utf-8", newline="\n")
    scratch.replace(path)
    return path


# What the templates are given


@dataclass(frozen=True, kw_only=True)
class _Figure:
    anchor: str
    caption: str
    titled: bool
    data: str  # JSON that is safe inside a script element
    height_px: int
    wide: bool
    first: str = ""  # anchor of the case that shows the same figure already


@dataclass(frozen=True, kw_only=True)
class _Gauge:
    """An interval against its bound; horizontal places in percent of the width."""

    low: float
    high: float
    dot: float
    beyond: int  # -1 or 1 where the dot lies outside of the scale on that side
    bounds: tuple[float, ...]
    allowed: tuple[float, float]  # where the shaded band begins, and its width
    ends: tuple[str, str]  # what the ends of the scale are
    words: str


@dataclass(frozen=True, kw_only=True)
class _Shown:
    """One record with what the templates need beside it."""

    record: Evidence
    anchor: str
    gauge: _Gauge | None
    scale: Scale
    figures: tuple[_Figure, ...]
    details: dict[str, Any] | None  # a node, see _node
    about: bool  # the model under test

    @property
    def css(self) -> str:
        return self.record.verdict.value.replace(" ", "-")

    @property
    def caught(self) -> bool:
        """Of a control: was the planted fault noticed?"""
        return self.record.caught

    @property
    def ran(self) -> bool:
        return self.record.verdict != Verdict.NOT_RUN

    @property
    def exact(self) -> bool:
        """Whether nothing was sampled; an interval may lack a width for other reasons."""
        return self.record.ci_method == "exact"

    @property
    def unit(self) -> str:
        return self.scale.unit

    @property
    def bound_text(self) -> str:
        return self.scale.bound(self.record.bound_low, self.record.bound_high)

    @property
    def scored(self) -> int:
        return self.record.coverage.get("scored", 0)

    @property
    def of(self) -> int:
        return self.record.coverage.get("of", 0)

    @property
    def complete(self) -> bool:
        return self.scored == self.of

    def shown(self, value: float) -> str:
        """A value of this record, kept apart from its bounds."""
        return self.scale.text(value)

    @property
    def resolution(self) -> str:
        """The smallest true difference that is found with 80 % power, two digits of it."""
        found = self.record.resolution
        return "" if found is None else f"{self.scale.factor * found:.2g} {self.unit}".strip()

    @property
    def of_allowed(self) -> str:
        """How much of what is allowed an exact number takes up; empty where that says nothing."""
        record = self.record
        if not self.exact or record.observed is None or record.bound_low is not None:
            return ""
        if not record.bound_high or record.bound_high < 0 or record.observed < 0:
            return ""
        return f"{percent(record.observed / record.bound_high)} of what is allowed"

    @property
    def why(self) -> str:
        """What made the verdict where the interval did not: a counterexample, too few rows, an
        interval not to be trusted, a lever never applied."""
        return self.record.reason if self.record.chance is None else ""

    @property
    def severity(self) -> str:
        """Of a share of cases: how large the largest deviation is; else empty."""
        severity = self.record.severity
        return "" if severity is None else f"{percent(severity)} of what is allowed"

    @property
    def units(self) -> str:
        """Independent units, where they are not the rows, and how many would weigh alike."""
        record, words = self.record, []
        if record.n_clusters and record.n_clusters != record.n:
            words.append(f"in {_grouped(record.n_clusters)} independent clusters")
        if record.effective is not None and round(record.effective) != record.n_clusters:
            words.append(f"weighing as much as {record.effective:.3g} that weigh alike")
        return ", ".join(words)

    @property
    def expected(self) -> tuple[str, str]:
        """Whether the verdict is the documented one, in one word and in many."""
        record = self.record
        known, source = record.documented, record.documented_from
        where = f" from {source}, not yet measured on these data" if source else ""
        if not known:
            return "new", "no verdict is documented for it"
        if not record.changed:
            return "expected", f"expected{where}" if where else "as documented"
        if where:
            return "new", f"{known} was expected{where}"
        return "changed", f"documented as {known}"

    @property
    def distance(self) -> str:
        """How far a planted fault lies from the bound, in margins and in resolutions."""
        margins, resolutions = self.record.margins_away, self.record.resolutions_away
        words = [] if margins is None else [f"{times(margins)} margins"]
        if resolutions is not None:
            words.append(f"{times(resolutions)} resolutions")
        return ", ".join(words)

    @property
    def headline(self) -> str:
        """The sentence of a finding that stands first, see `Claim.headline`."""
        return self.record.headline.get(self.record.case, "")

    @property
    def word(self) -> str:
        return overview.word(self.record.verdict, self.record.meaning)

    @property
    def took(self) -> str:
        """Empty where what it used had been computed for an earlier check."""
        return duration(self.record.seconds) if self.record.seconds >= 0.05 else ""

    @property
    def variant(self) -> str:
        """Case and fold in words; empty where the claim has neither."""
        fold = "" if self.record.fold is None else f"fold {self.record.fold}"
        return ", ".join(part for part in (self.record.case, fold) if part)


@dataclass(frozen=True, kw_only=True)
class _Section:
    """Everything about one claim id."""

    id: str
    anchor: str
    statement: str
    basis: str
    bounds: tuple[tuple[str, str, str], ...]  # bound, its reason, the cases it applies to
    cases: tuple[_Shown, ...]
    controls: tuple[_Shown, ...]
    sentence: Sentence  # without cases of its own, of its controls
    group: str  # of overview.GROUPS
    counted: str  # how the cases of the sentence came out, and its rule

    @property
    def alone(self) -> bool:
        """Whether it has one case, which then says all."""
        return len(self.cases) == 1 and not self.sentence.left_out

    @property
    def measured(self) -> list[_Shown]:
        """Cases that ran."""
        return [s for s in self.cases if s.ran]

    @property
    def tally(self) -> list[tuple[Verdict, int]]:
        return _tally(shown.record for shown in self.cases)

    @property
    def says(self) -> str:
        """`strength: yes`, or what kind of claim it is."""
        return overview.answer(self.sentence)

    @property
    def news(self) -> str:
        """Whether that is good or bad for the model; empty where it is neither."""
        if self.group not in (overview.FINDINGS, overview.WEAKNESSES):
            return ""
        good = overview.is_good(self.sentence.verdict, self.sentence.meaning)
        return {None: "", True: "good", False: "bad"}[good]


def _view(session: Session, folder: Path) -> dict[str, Any]:
    figures = _Figures(folder)
    frames = _frames(session.claims)
    anchors: dict[str, str] = {}
    info = _UNSAID | session.session
    model = str(info["model"])
    groups: dict[str, list[_Shown]] = {}
    for i, record in enumerate(session.claims):
        anchor = _anchor(f"case {record.key}" if not record.control else f"control {i}", anchors)
        scale = _scale(record, frames)
        groups.setdefault(record.id, []).append(
            _Shown(
                record=record,
                anchor=anchor,
                gauge=_gauge(record, frames, scale),
                scale=scale,
                figures=tuple(figures.load(name, record, anchor) for name in record.figures),
                details=_node(record.details) if record.details else None,
                about=overview.is_about(record, model),
            )
        )
    by_record = {id(s.record): s for members in groups.values() for s in members}
    told = {sentence.id: sentence for sentence in session.sentences}
    found = [_section(shown, told.get(name), model, anchors) for name, shown in groups.items()]
    sections = [s for group in overview.GROUPS for s in found if s.group == group]
    controls = [s for section in sections for s in section.controls]
    cases = [s for section in sections for s in section.cases]
    group_anchors = {group: _anchor(f"group {group}", anchors) for group in overview.GROUPS}
    return {
        "session": info,
        "integrity_anchor": group_anchors[overview.INTEGRITY],
        "badge": overview.badge(str(info["dataset"]), session.claims),
        "headlines": [by_record[id(e)] for e in overview.headlines(session.claims)],
        "families": _families(s for s in sections if s.group == overview.INTEGRITY),
        "integrity": [s for s in cases if s.record.kind == Kind.INTEGRITY and s.ran],
        "kinds": _kinds(sections),
        "datasets": sorted({s.record.dataset for s in cases if s.ran and s.record.dataset}),
        "cached": _cached(info),
        "took": duration(float(info["seconds"])),
        "started": _instant(str(info["started"])),
        "groups": [
            (
                group_anchors[group],
                *(words.format(model=model) for words in GROUPS[group]),
                [s for s in sections if s.group == group],
            )
            for group in overview.GROUPS
            if any(s.group == group for s in sections)
        ],
        "not_run": _not_run(s for s in cases if not s.ran),
        "n_not_run": sum(not s.ran for s in cases),
        "sections": sections,
        "tally": dict(_tally(s.record for s in cases if s.about)),
        "others": sum(not s.about for s in cases),
        "any_documented": any(s.record.documented for s in cases),
        "chances": overview.chances(info["multiplicity"]),
        "verdicts": list(Verdict),
        "controls_caught": [c for c in controls if c.ran and c.caught],
        "controls_missed": [c for c in controls if c.ran and not c.caught],
        "controls_not_run": [c for c in controls if not c.ran],
        "controls_near": sum(overview.is_near(c.record) for c in controls if c.ran),
        "changed": [s for s in cases if s.record in overview.changed([s.record])],
        "notices": _notices(info),
        "errors": session.errors,
        "figures": figures.all,
        "inputs": _inputs(session.claims),
        "notes": _node({k: v for k, v in info.items() if k not in _UNSAID | _TABLES}),
        "environment_tables": [
            (heading, dict(info[key]))
            for key, heading in _TABLES.items()
            if isinstance(info.get(key), Mapping) and info[key]
        ],
    }


def _families(sections: Iterable[_Section]) -> list[tuple[str, list[_Section]]]:
    """Integrity by family, the part of an id before its first dot."""
    found: dict[str, list[_Section]] = {}
    for section in sections:
        if section.measured:
            found.setdefault(section.id.partition(".")[0], []).append(section)
    return list(found.items())


def _kinds(sections: Sequence[_Section]) -> list[tuple[str, int, list[tuple[Verdict, int]]]]:
    """Of findings, weaknesses and integrity: how many claims, and how their sentences came out."""
    names = {
        overview.FINDINGS: "findings",
        overview.WEAKNESSES: "claimed weaknesses",
        overview.INTEGRITY: "integrity checks",
    }
    rows = []
    for group, name in names.items():
        found = [s.sentence.verdict for s in sections if s.group == group and s.cases]
        rows.append((name, len(found), [(v, found.count(v)) for v in Verdict if v in found]))
    return [row for row in rows if row[1]]


def _cached(info: Mapping[str, Any]) -> str:
    """How many predictions were computed now and how many by earlier sessions; empty if unknown."""
    store = info.get("store")
    if not isinstance(store, Mapping) or not {"computed", "found"} <= set(store):
        return ""
    computed, found = int(store["computed"]), int(store["found"])
    if not computed + found:
        return ""
    return f"{share(found, computed + found)} of {_grouped(computed + found)} predictions stored"


def _not_run(shown: Iterable[_Shown]) -> list[tuple[str, list[_Shown]]]:
    """Claims that were not run, by their reason."""
    because: dict[str, list[_Shown]] = {}
    for one in shown:
        because.setdefault(one.record.reason, []).append(one)
    return list(because.items())


def _section(
    shown: Sequence[_Shown], sentence: Sentence | None, model: str, anchors: dict[str, str]
) -> _Section:
    cases = tuple(s for s in shown if not s.record.control)
    bounds: dict[tuple[str, str], list[str]] = {}
    for one in cases or shown:
        where = one.variant if len(cases) > 1 else ""
        bounds.setdefault((one.bound_text, one.record.bound_reason), []).append(where)
    first = (cases or shown)[0].record
    if sentence is None:  # its controls alone were chosen
        records = tuple(s.record for s in shown)
        sentence = Sentence(id=first.id, verdict=Verdict.NOT_RUN, rule="", of=records)
    return _Section(
        id=first.id,
        anchor=_anchor(first.id, anchors),
        statement=first.statement,
        basis=first.basis,
        bounds=tuple(
            (text, reason, "; ".join(filter(None, where)) if len(bounds) > 1 else "")
            for (text, reason), where in bounds.items()
        ),
        cases=cases,
        controls=tuple(s for s in shown if s.record.control),
        sentence=sentence,
        group=overview.group_of(sentence, model),
        counted=overview.counted(sentence, model) if cases else "",
    )


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:].removesuffix('.')}." if words else ""


def _tally(records: Iterable[Evidence]) -> list[tuple[Verdict, int]]:
    """Verdicts with their counts, in the order of `Verdict`, absent ones left out."""
    found = [record.verdict for record in records]
    return [(verdict, found.count(verdict)) for verdict in Verdict if verdict in found]


def _notices(info: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a reader must know before any number: (headline, explanation)."""
    dataset, reason = str(info["dataset"]), _sentence(str(info["dataset_reason"]))
    found = []
    if dataset == "embedded":
        found.append(
            (
                "This is the small embedded data set, not an official benchmark.",
                f"{reason} It holds formation energies of the project's own PBE calculations; "
                "claims about training are measured on compounds with experimental enthalpies. "
                "Neither compares with published numbers on mp_e_form.".strip(),
            )
        )
    elif "subset" in dataset.lower():
        found.append(
            (
                "This is a subset of the official data set.",
                f"{reason} Coverage below counts against all rows each claim is about.".strip(),
            )
        )
    if info["sample"] is not None:
        found.append(
            (
                f"This session was sampled: at most {_grouped(info['sample'])} rows a fold.",
                "Intervals are wider than those of the whole fold; the resolution beside each "
                "number says what so many rows find with 80 % power.",
            )
        )
    return found


def _inputs(records: Iterable[Evidence]) -> list[tuple[str, list[str]]]:
    """Every input of the session with its hashes; more than one means it changed on the way."""
    found: dict[str, list[str]] = {}
    for record in records:
        for name, digest in record.inputs.items():
            if digest not in found.setdefault(name, []):
                found[name].append(digest)
    return sorted(found.items())


# Intervals against bounds


@dataclass(frozen=True)
class _Frame:
    """The scale that all cases and controls of a claim share."""

    low: float
    high: float
    is_log: bool
    values: tuple[float, ...]  # what was observed

    def place(self, x: float) -> float:
        """Percent of the width from the left; outside of the scale below 0 or above 100."""
        if self.is_log:
            if x <= 0:
                return -1.0
            return 100 * math.log(x / self.low) / math.log(self.high / self.low)
        return 100 * (x - self.low) / (self.high - self.low)


_DECADES = 30.0  # a claim whose numbers differ by so much is drawn on a logarithmic scale


def _ends_of(record: Evidence) -> list[float]:
    ends = (record.observed, record.ci_low, record.ci_high, record.bound_low, record.bound_high)
    return [x for x in ends if x is not None]


def _frames(records: Sequence[Evidence]) -> dict[tuple[str, str], _Frame]:
    """By claim and unit: from the cases and the bounds; of controls alone from those."""
    measured = [r for r in records if r.observed is not None]
    observed: dict[tuple[str, str], list[float]] = {}
    for record in measured:
        if record.observed is not None and not record.control:
            observed.setdefault((record.id, record.unit), []).append(record.observed)
    ends: dict[tuple[str, str], list[float]] = {}
    for record in measured:
        if not record.control:
            ends.setdefault((record.id, record.unit), []).extend(_ends_of(record))
    for record in measured:
        if (key := (record.id, record.unit)) not in ends:
            ends[key] = _ends_of(record)
    return {key: _frame(values, observed.get(key, ())) for key, values in ends.items()}


def _frame(values: Sequence[float], observed: Sequence[float]) -> _Frame:
    low, high = min(values), max(values)
    if low > 0 and high > _DECADES * low:
        return _Frame(low / 1.3, high * 1.3, True, tuple(observed))
    margin = 0.1 * (high - low) or 0.1 * abs(high) or 1.0
    # a scale of what cannot be negative begins at zero where its numbers come near it
    start = 0.0 if 0 <= low <= 2 * margin else low - margin
    return _Frame(start, high + margin, False, tuple(observed))


def _scale(record: Evidence, frames: Mapping[tuple[str, str], _Frame]) -> Scale:
    """How its numbers are written: in one unit with those of the claim's other cases."""
    frame = frames.get((record.id, record.unit))
    return Scale.of(
        (record.observed, record.ci_low, record.ci_high),
        record.unit,
        (record.bound_low, record.bound_high),
        () if frame is None else frame.values,
    )


def _gauge(
    record: Evidence, frames: Mapping[tuple[str, str], _Frame], scale: Scale
) -> _Gauge | None:
    if record.observed is None:
        return None
    observed = record.observed
    frame = frames[record.id, record.unit]

    def place(x: float | None) -> float:
        return round(min(max(frame.place(observed if x is None else x), 0.0), 100.0), 2)

    start = 0.0 if record.bound_low is None else place(record.bound_low)
    end = 100.0 if record.bound_high is None else place(record.bound_high)
    at = frame.place(observed)
    low, high = (f"{scale.factor * x:.3g}" for x in (frame.low, frame.high))
    interval = (
        "exact"
        if record.ci_method == "exact"
        else f"interval {scale.text(record.ci_low or 0.0)} to {scale.text(record.ci_high or 0.0)}"
    )
    return _Gauge(
        low=place(record.ci_low),
        high=place(record.ci_high),
        dot=place(observed),
        beyond=-1 if at < 0 else 1 if at > 100 else 0,
        bounds=tuple(place(b) for b in (record.bound_low, record.bound_high) if b is not None),
        allowed=(start, round(end - start, 2)),
        ends=(low, high),
        words=f"{record.verdict}: {scale.text(observed)}, {interval}, against the bound "
        f"{scale.bound(record.bound_low, record.bound_high)}; scale from {low} to {high}"
        f"{', logarithmic' if frame.is_log else ''}",
    )


# Figures


@dataclass
class _Figures:
    """Reads figures and numbers them through the page."""

    folder: Path
    all: list[_Figure] = field(default_factory=list)
    seen: dict[str, str] = field(default_factory=dict)  # data -> anchor of the case

    def load(self, name: str, record: Evidence, case: str) -> _Figure:
        path = self.folder / name
        if not path.resolve().is_relative_to(self.folder.resolve()):
            raise DataError(
                f"{record.key} names the figure {name!r}, which lies outside {self.folder}. "
                "Figures live beside evidence.json; restore the file that the session wrote."
            )
        try:
            figure = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise DataError(
                f"{path} does not exist, but {record.key} in evidence.json names it. Copy the "
                "whole folder, figures too, or run the session again."
            ) from None
        except ValueError as error:  # not UTF-8, or not JSON
            raise DataError(f"{path} is not JSON ({error}). Run the session again.") from None
        if not isinstance(figure, dict) or not isinstance(figure.get("data"), list):
            raise DataError(f"{path} is no plotly figure: it has no list called `data`.")
        layout = figure.get("layout")
        layout = layout if isinstance(layout, dict) else {}
        title = layout.get("title")
        title = title.get("text") if isinstance(title, dict) else title
        data = _inside_script(figure)
        first = self.seen.setdefault(data, case)
        found = _Figure(
            anchor=f"figure-{len(self.all) + 1}",
            caption=_caption(name, record),
            titled=bool(title),
            first="" if first == case else first,
            data=data,
            height_px=_pixels(layout.get("height"), 450),
            wide=_pixels(layout.get("width"), 0) > 660,
        )
        if not found.first:
            self.all.append(found)
        return found


def _caption(name: str, record: Evidence) -> str:
    """The part of a figure's file name that its claim and case do not say already."""
    words = Path(name).stem
    for known in (record.id, record.case):
        words = words.removeprefix(known).removeprefix("-") if known else words
    return words.removesuffix(f"-fold{record.fold}").replace("-", " ")


def _pixels(value: object, otherwise: int) -> int:
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return min(max(int(value), 0), 4000) if plain else otherwise  # type: ignore[call-overload]


def _inside_script(value: object) -> str:
    """JSON that no HTML parser can leave: `</script>` and `<!--` need a `<`."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


# Details: any JSON as a small tree of nodes that one macro can draw


def _node(value: object) -> dict[str, Any]:
    if isinstance(value, Mapping):
        items = [(label(str(k)), _node(v)) for k, v in value.items()]
        return {"kind": "map", "items": items, "more": 0}
    if not isinstance(value, list | tuple):
        return _scalar(value)
    if value and all(
        isinstance(row, Mapping) and row and not _nested(row.values()) for row in value
    ):
        return _table(value)
    more = max(0, len(value) - _LONGEST_LIST)
    if _nested(value):
        nodes = [(str(i), _node(v)) for i, v in enumerate(value[:_LONGEST_LIST], start=1)]
        return {"kind": "map", "items": nodes, "more": more}
    words = ", ".join(_scalar(v)["text"] for v in value[:_LONGEST_LIST]) or "none"
    return {"kind": "scalar", "text": words, "numeric": False, "more": more}


def _nested(values: Iterable[object]) -> bool:
    return any(isinstance(v, Mapping | list | tuple) for v in values)


def _table(rows: Sequence[Mapping[str, object]]) -> dict[str, Any]:
    """Records as a table. Their keys come sorted from the file, so words and ends of intervals
    are put back where one looks for them: names first, then counts, low before high."""
    columns = {
        str(k): [row.get(k) for row in rows] for k in dict.fromkeys(k for r in rows for k in r)
    }

    def rank(name: str) -> int:
        if any(isinstance(v, str) for v in columns[name]):
            return 0
        if not any(isinstance(v, float) for v in columns[name]):
            return 1  # seeds, folds, counts of rows
        return 3 if "low" in name else 4 if "high" in name else 2

    names = sorted(columns, key=rank)
    cells = [_column(columns[name][:_LONGEST_TABLE]) for name in names]
    return {
        "kind": "table",
        "heads": [
            (label(name), column[0]["numeric"]) for name, column in zip(names, cells, strict=True)
        ],
        "rows": list(zip(*cells, strict=True)),
        "more": max(0, len(rows) - _LONGEST_TABLE),
    }


def _column(values: Sequence[object]) -> list[dict[str, Any]]:
    """Cells of one column; numbers get as many decimals as the one that needs most."""
    cells = [_scalar(v) for v in values]
    texts = [cell["text"] for cell, v in zip(cells, values, strict=True) if isinstance(v, float)]
    if texts and not any("e" in t or "," in t for t in texts):
        decimals = max(len(t.partition(".")[2]) for t in texts)
        for cell, v in zip(cells, values, strict=True):
            if isinstance(v, float):
                cell["text"] = f"{v:.{decimals}f}"
    return cells


def _scalar(value: object) -> dict[str, Any]:
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    if value is None:
        words = "—"
    elif isinstance(value, bool):
        words = "yes" if value else "no"
    elif isinstance(value, int):
        words = _grouped(value)
    elif isinstance(value, float):
        words = f"{value:.5g}"
    else:
        words = str(value)
    return {"kind": "scalar", "text": words, "numeric": numeric, "more": 0}


# Parts of the file


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("harness.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "duration": duration,
        "grouped": _grouped,
        "percent": percent,
    }
    environment.globals |= {"MARKS": MARKS, "MEANINGS": MEANINGS, "share": share}
    return environment


def _script(name: str) -> str:
    return resources.files("harness.report").joinpath("templates", name).read_text("utf-8")


def _style() -> str:
    colours = "".join(
        f"--{verdict.replace(' ', '-')}:{colour};" for verdict, colour in VERDICT_COLOURS.items()
    )
    return f":root{{{colours}}}\n{_script('report.css')}"


def _plotly_js() -> str:
    """plotly.js for what our figures are made of (scatter, bar, heatmap): a third of all of it."""
    text = _script("plotly-cartesian.min.js")
    # Inside a script element only these two sequences mean anything to an HTML parser.
    return text.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _policy(scripts: Iterable[str]) -> str:
    """Content policy: these very scripts, nothing else, and nothing from anywhere."""
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'"
        for s in scripts
    )
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _anchor(words: str, taken: dict[str, str]) -> str:
    """A name for a place in the page, unique and safe in a link."""
    stem = re.sub(r"[^a-z0-9.]+", "-", words.lower()).strip("-.") or "claim"
    name, k = stem, 1
    while name in taken:
        k += 1
        name = f"{stem}-{k}"
    taken[name] = words
    return name


def _grouped(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _instant(iso: str) -> str:
    """`2026-07-24 10:12 UTC` from an ISO instant; anything else as it is."""
    match = re.fullmatch(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d)(:\d\d(\.\d+)?)?(Z|\+00:00)", iso)
    return f"{match[1]} {match[2]} UTC" if match else iso
