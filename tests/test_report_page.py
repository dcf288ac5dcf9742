"""The page: complete, self-contained, safe to open, and made from its folder alone."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.claims import (
    Bound,
    Claim,
    Interval,
    Kind,
    Meaning,
    Measurement,
    Verdict,
    above,
    below,
    between,
)
from harness.errors import DataError
from harness.evidence import Evidence, Session
from harness.plots import parity
from harness.report import numbers
from harness.report import page as page_module
from harness.report.page import write_page

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'</style>{{ 7*7 }}&amp;"
SHA = "0123456789abcdef" * 4


def claim(id: str, bound: Bound, **more: Any) -> Claim:
    given = {"kind": Kind.FINDING, "meaning": Meaning.STRENGTH, **more}
    if given["kind"] != Kind.FINDING:
        given["meaning"] = None
    return Claim(
        id=id, statement=f"{id} is so. And more.", basis="the founding note", bound=bound, **given
    )


def measured(low: float, high: float, *, estimate: float | None = None, **more: Any) -> Measurement:
    middle = (low + high) / 2 if estimate is None else estimate
    interval = Interval(
        estimate=middle,
        low=low,
        high=high,
        n=5_219,
        n_clusters=4_180,
        method=more.pop("method", "bootstrap"),
        effective=more.pop("effective", None),
        resolution=more.pop("resolution", 0.0021),
        unsettled=more.pop("unsettled", ""),
    )
    return Measurement(
        **{
            "quantity": "MAE of e_form",
            "interval": interval,
            "scored": 5_219,
            "of": 26_551,
            "excluded": {"isolated atoms": 14},
            "absent": {"not in the subset": 21_318},
            "dataset": "embedded",
            "model": "chgnet-0.3.0",
            "inputs": {"targets.parquet": SHA},
            **more,
        }
    )


BEATS = claim("zero-shot.beats-baseline", below(0.11, "eV/atom", "the composition baseline"))
ALIGNED = claim("zero-shot.aligned", between(0.9, 1.1, "", "ratio of standard deviations"))
SOFT = claim("softening.morse", above(10, "", "written in the note"))
LEVER = claim("lever.ema", above(0.0005, "eV/atom", "the A/A noise floor"), meaning=Meaning.NEUTRAL)
SILICON = claim("mattersim.runs", below(0.01, "eV/atom", "the model card"))
DETAILS = {
    "peers": [{"ci_high": 0.035, "ci_low": 0.033, "mae": 0.034, "name": "CGCNN"}],
    "mean_error_ev_per_atom": -0.0012,
    "seeds": list(range(40)),
    "nested": {"folds": [{"k": 0, "by": {"a": 1}}]},
    "nothing": [],
    "absent": None,
    "converged": True,
}


def every_verdict() -> tuple[Evidence, ...]:
    return (
        Evidence.of(BEATS, measured(0.0330, 0.0346, details=DETAILS), case="refit", fold=0),
        Evidence.of(BEATS, measured(0.0549, 0.0573), case="mp2020", fold=0),
        Evidence.of(BEATS, measured(4.58, 4.68), case="raw", control=True, fault="total energies"),
        Evidence.of(ALIGNED, measured(0.85, 0.95)),
        Evidence.of(SOFT, measured(5.1, 9.4)),
        Evidence.of(LEVER, measured(0.0, 0.0, placeholder="the lever was never applied")),
        Evidence.not_run(SILICON, "mattersim is not installed"),
        Evidence.of(SOFT, measured(11, 12), control=True, fault="a fault too small to see"),
        Evidence.not_run(LEVER, "no time left", control=True, fault="wired to nothing"),
    )


def session(*claims: Evidence, **info: Any) -> Session:
    errors = info.pop("errors", ())
    return Session(
        session={
            "started": "2026-07-24T10:12:00+00:00",
            "seconds": 612.3,
            "command": "pytest checks/ -m fold0",
            "dataset": "matbench_mp_e_form",
            "dataset_reason": "the official file has been fetched",
            "model": "chgnet-0.3.0",
            "device": "cpu",
            "sample": None,
            "machine": {"cores": "2"},
            "versions": {"torch": "2.13.0"},
            **info,
        },
        claims=claims or every_verdict(),
        errors=tuple(errors),
    )


def page_of(found: Session, folder: Path) -> str:
    found.save(folder)
    return write_page(folder).read_text(encoding="utf-8")


class Reader(HTMLParser):
    """Elements and text as a browser would see them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.data_blocks: list[str] = []
        self._inside: tuple[str, str | None] = ("", None)
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag, dict(attrs).get("type")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ("", None)

    def handle_data(self, data: str) -> None:
        if self._inside[0] not in ("script", "style"):
            self.words.append(data)
        elif self._inside[1] == "application/json":
            self.data_blocks.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.words))

    @property
    def spaced(self) -> str:
        """The text with a space between any two elements, as between cells of a table."""
        return re.sub(r"\s+", " ", " ".join(self.words))

    def attributes(self, name: str) -> Iterator[str]:
        return (v for _, found in self.elements for k, v in found.items() if k == name and v)


def test_the_page_says_every_verdict_and_number(tmp_path):
    text = Reader(page_of(session(), tmp_path)).text
    for words in (
        "chgnet-0.3.0 on matbench_mp_e_form",
        "Why this data set: the official file has been fetched",
        "2026-07-24 10:12 UTC",
        "10 min 12 s",
        "pytest checks/ -m fold0",
        "0.0338 eV/atom",
        "0.0330 to 0.0346",
        "5,219 of 26,551",
        "19.7 %",
        "21,318 not in the subset",
        "14 isolated atoms",
        "5,219 in 4,180 independent clusters",
        "0.0021 eV/atom: a true difference of so much is found with 80 % power",
        "0.9 to 1.1",
        "the lever was never applied",
        "mattersim is not installed",
        "total energies",
        "1 of 2 planted faults caught (1 not run)",
        "mean error (eV/atom)",
        "and 16 more in evidence.json",
        "2.13.0",
    ):
        assert words in text, words
    for verdict in Verdict:
        assert f"{verdict}" in text
    assert "0.0338 eV/atom" in set(Reader(page_of(session(), tmp_path)).attributes("title"))


def test_a_fault_that_went_unnoticed_is_loud(tmp_path):
    page = Reader(page_of(session(), tmp_path))
    assert "1 planted fault went unnoticed." in page.text
    assert "a fault too small to see" in page.text
    assert "control not caught" in page.text
    calm = Reader(page_of(session(*every_verdict()[:3]), tmp_path)).text
    assert "unnoticed" not in calm
    assert "control not caught" not in calm


def test_a_claim_without_a_control_says_so(tmp_path):
    text = Reader(page_of(session(every_verdict()[3]), tmp_path)).text
    assert "nothing here shows that the check can fail" in text


@pytest.mark.parametrize(
    ("info", "says"),
    [
        ({"dataset": "embedded"}, "small embedded data set, not an official benchmark"),
        ({"dataset": "matbench_mp_e_form (subset)"}, "a subset of the official data set"),
        ({"sample": 1_000}, "at most 1,000 rows a fold"),
        ({"errors": [{"test": "t.py::x", "message": "ModelError: no"}]}, "1 check broke."),
    ],
)
def test_what_a_reader_must_know_first_stands_before_the_verdicts(tmp_path, info, says):
    text = Reader(page_of(session(**info), tmp_path)).text
    assert says in text[: text.index("Against the bound")]
    assert says not in Reader(page_of(session(), tmp_path)).text


def test_rows_link_to_places_that_exist_and_ids_are_unique(tmp_path):
    page = Reader(page_of(session(), tmp_path))
    ids = list(page.attributes("id"))
    assert len(ids) == len(set(ids))
    links = list(page.attributes("href"))
    assert all(link.startswith("#") and link[1:] in ids for link in links)
    assert "#case-zero-shot.beats-baseline-refit-fold0" in links


def test_claims_whose_ids_make_one_anchor_keep_apart(tmp_path):
    first, second = (claim(id, below(1, "", "x")) for id in ("a b", "a-b"))
    found = session(Evidence.of(first, measured(0, 0.5)), Evidence.of(second, measured(0, 0.5)))
    ids = list(Reader(page_of(found, tmp_path)).attributes("id"))
    assert len(ids) == len(set(ids))


def test_the_verdict_table_keeps_the_order_of_the_session(tmp_path):
    found = tuple(reversed(every_verdict()))
    text = Reader(page_of(session(*found), tmp_path)).text
    table = text[text.index("Against the bound") :]
    claims = [e for e in found if not e.control]
    measured = [e for e in claims if e.verdict != Verdict.NOT_RUN]
    after = [e for e in claims if e.verdict == Verdict.NOT_RUN]  # with their reasons
    assert measured
    assert after
    places = [table.index(e.id) for e in [*measured, *after]]
    assert places == sorted(places)
    for one in after:
        assert one.reason in table


def test_the_page_needs_nothing_from_anywhere(tmp_path):
    page = Reader(page_of(_with_figure(tmp_path), tmp_path))
    assert [tag for tag, _ in page.elements if tag in ("link", "iframe", "base", "object")] == []
    assert list(page.attributes("src")) == []
    assert not [h for h in page.attributes("href") if not h.startswith("#")]
    policy = next(p for p in page.attributes("content") if "default-src" in p)
    assert "default-src 'none'" in policy
    assert "http" not in policy


def test_plotly_is_in_the_page_once_and_only_for_figures(tmp_path):
    plain = page_of(session(), tmp_path)
    assert len(plain) < 150_000
    assert "plotly.js (" not in plain
    drawn = page_of(_with_figure(tmp_path), tmp_path)
    assert drawn.count("* plotly.js (cartesian - minified) v") == 1


def test_plotly_is_the_published_one():
    folder = Path(page_module.__file__).parent / "templates"
    digest = hashlib.sha256((folder / "plotly-cartesian.min.js").read_bytes()).hexdigest()
    assert digest in (folder / "README.md").read_text(encoding="utf-8")


def test_the_page_made_again_is_the_same(tmp_path):
    first = page_of(_with_figure(tmp_path), tmp_path)
    assert write_page(tmp_path).read_text(encoding="utf-8") == first
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "evidence.json",
        "figures",
        "report.html",
    ]


def _with_figure(folder: Path, text: str = "parity") -> Session:
    (folder / "figures").mkdir(exist_ok=True)
    x = np.linspace(-3, 0, 20)
    name = "figures/zero-shot.beats-baseline-refit-parity-fold0.json"
    figure = parity(x, x + 0.01, names=[text] * 20)
    figure.layout.meta["note"] = text
    (folder / name).write_text(figure.to_json(engine="json"), encoding="utf-8")
    return session(
        Evidence.of(BEATS, measured(0.033, 0.035), case="refit", fold=0, figures=[name]),
    )


def test_figures_travel_whole_and_cannot_leave_their_script(tmp_path):
    page = Reader(page_of(_with_figure(tmp_path, HOSTILE + "<!--\u2028"), tmp_path))
    scripts = [found.get("type") for tag, found in page.elements if tag == "script"]
    assert scripts == ["application/json", None, None]
    (block,) = page.data_blocks
    assert not set("<>&\u2028") & set(block)
    [stored] = (tmp_path / "figures").iterdir()
    assert json.loads(block) == json.loads(stored.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (None, "does not exist.*Copy the whole folder"),
        ("{", "is not JSON"),
        ("[1]", "no plotly figure"),
        ('{"data": 1}', "no plotly figure"),
    ],
)
def test_a_missing_or_broken_figure_is_named_and_the_old_page_stays(tmp_path, write, says):
    session(every_verdict()[0]).save(tmp_path)
    before = write_page(tmp_path).read_text(encoding="utf-8")
    if write is not None:
        (tmp_path / "f.json").write_text(write)
    found = Evidence.of(BEATS, measured(0.033, 0.035), figures=["f.json"])
    session(found).save(tmp_path)
    with pytest.raises(DataError, match=says):
        write_page(tmp_path)
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == before


def test_a_figure_outside_the_folder_is_refused(tmp_path):
    (tmp_path / "secret.json").write_text('{"data": []}')
    (tmp_path / "report").mkdir()
    found = Evidence.of(BEATS, measured(0.033, 0.035), figures=["../secret.json"])
    session(found).save(tmp_path / "report")
    with pytest.raises(DataError, match="outside"):
        write_page(tmp_path / "report")


def test_no_evidence_says_what_to_run(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        write_page(tmp_path)


def _hostile_session(words: str) -> Session:
    bad = Claim(
        id=f"c {words}",
        statement=words,
        basis=words,
        bound=below(1, words, f"r {words}"),
        kind=Kind.INTEGRITY,
        cannot_fail=words,
    )
    finding = claim(f"f {words}", below(1, words, "r"))
    of = measured(
        0,
        0.5,
        quantity=words,
        dataset=words,
        model=words,
        subject=f"s {words}",
        excluded={words: 332},
        absent={words: 21_000},
        inputs={words: words},
        method=words,
        severity=0.2,
        # The file sorts keys: "a" and "k" keep the order whatever follows.
        details={
            f"a {words}": words,
            "m": {f"k {words}": [words, {f"k {words}": words}]},
            "t": [{f"k {words}": words, "n": 1.5}],
        },
    )
    context = {"case": words, "test": words, "versions": {words: words}}
    return Session(
        session={
            **session().session,
            "model": words,
            "dataset": words,
            "dataset_reason": words,
            "training_dataset": f"t {words}",
            "command": words,
            "device": words,
            "machine": {words: words},
            "versions": {words: words},
            "complete": False,
            "incomplete_reason": words,
            "not_reached": [words],
            "resume": words,
            "multiplicity": {
                "decided": 3,
                "by_chance": 0.075,
                "findings": 2,
                "not_surviving": [words],
            },
            f"note {words}": {"deep": [words]},
        },
        claims=(
            Evidence.of(bad, of, fold=1, reason=words, documented=words, **context),
            Evidence.of(bad, of, control=True, fault=words, far=words, **context),
            Evidence.not_run(bad, f"because {words}", **context),
            Evidence.of(finding, of, documented=words, documented_from=words, **context),
            Evidence.of(finding, of, documented="held", documented_from=words, fold=1),
        ),
        errors=({"test": words, "message": words},),
        left_out=(f"f {words}[{words} other]",),
    )


def _shape(page: str) -> list[tuple[str, tuple[str, ...]]]:
    return [(tag, tuple(sorted(found))) for tag, found in Reader(page).elements]


def test_hostile_words_stay_words(tmp_path):
    page = page_of(_hostile_session(HOSTILE), tmp_path)
    assert "<script>alert" not in page
    assert "<img" not in page
    assert Reader(page).text.count("<script>alert(1)</script>") > 20
    assert "{{ 7*7 }}" in Reader(page).text
    # The same elements with the same attributes as for harmless words: nothing was opened.
    assert _shape(page) == _shape(page_of(_hostile_session("harmless"), tmp_path))


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(words=st.text("<>\"'&=/!-{}%#`;\\ \nabn0µ–", min_size=1, max_size=25))
def test_no_words_open_an_element(tmp_path, words):
    if not words.strip():
        words = f"x{words}"
    assert _shape(page_of(_hostile_session(words), tmp_path)) == _shape(
        page_of(_hostile_session("harmless"), tmp_path)
    )


# Sentences, kinds, what is known, and what a session lacks

MODEL = "chgnet-0.3.0"
ABOUT = {"subject": MODEL}
WEAK = claim("softening.dft", below(0.95, "", "what settings move"), meaning=Meaning.WEAKNESS)
LAW = claim("physics.rotation", above(0.95, "", "what so many draws say"), kind=Kind.INTEGRITY)
TOY = claim("toy.morse", above(10, "", "the note"), kind=Kind.TOY)


def held(which: Claim = BEATS, *, fields: dict[str, Any] | None = None, **more: Any) -> Evidence:
    """A record in the middle of what the claim allows; `fields` are of the record itself."""
    low, high = {"softening.dft": (0.8, 0.9), "physics.rotation": (0.96, 0.99)}.get(
        which.id, (11.0, 12.0) if which in (TOY, SOFT) else (0.03, 0.04)
    )
    if LEVER is which:
        low, high = 0.0001, 0.0002
    return of_interval(which, low, high, fields=fields, **more)


def of_interval(
    which: Claim, low: float, high: float, *, fields: dict[str, Any] | None = None, **more: Any
) -> Evidence:
    context = {
        name: more.pop(name) for name in ("case", "fold", "control", "fault") if name in more
    }
    found = Evidence.of(which, measured(low, high, **{"model": MODEL, **more}), **context)
    return replace(found, **(fields or {}))


def refuted(which: Claim = BEATS, **more: Any) -> Evidence:
    """A record wholly beyond its bound."""
    low, high = {WEAK.id: (0.96, 0.99), LAW.id: (0.56, 0.58)}.get(which.id, (0.12, 0.13))
    return of_interval(which, low, high, **more)


def undecided(which: Claim = BEATS, **more: Any) -> Evidence:
    return of_interval(which, 0.10, 0.12, **more)


def text_of(tmp_path: Path, *claims: Evidence, **info: Any) -> str:
    left_out = info.pop("left_out", ())
    found = replace(session(*claims, **info), left_out=left_out)
    return Reader(page_of(found, tmp_path)).spaced


def overview(text: str) -> str:
    """What is said before the first claim's own section."""
    return text[text.index("Can it be trusted?") : text.index("Basis")]


def test_groups_have_headings_of_their_own_in_their_order(tmp_path):
    found = session(
        held(BEATS, subject="MLP"), held(TOY, subject="toy"), held(LAW), held(WEAK), held(SOFT)
    )
    page = Reader(page_of(found, tmp_path))
    headings = [
        "Findings How good chgnet-0.3.0 is.",
        "Weaknesses What chgnet-0.3.0 is said to be bad at: a claim that is held here is bad news.",
        "Integrity Whether numbers mean what they say: identities, laws of physics, records.",
        "Toys Models of an argument, about no potential.",
        "Not about chgnet-0.3.0, or not only Claims of which cases are about something else, which "
        "is named with each. They are no verdict on chgnet-0.3.0.",
    ]
    places = [[m.start() for m in re.finditer(re.escape(h), page.spaced)] for h in headings]
    assert [len(p) for p in places] == [2] * 5  # in the overview, and over the claims
    assert [p[0] for p in places] == sorted(p[0] for p in places)
    assert [p[1] for p in places] == sorted(p[1] for p in places)
    ids = [v for v in page.attributes("id") if v.startswith("group-")]
    assert ids == [f"group-{g}" for g in ("findings", "weaknesses", "integrity", "toys", "others")]
    assert all(f"#{one}" in page.attributes("href") for one in ids)
    order = ["softening.morse", "softening.dft", "physics.rotation", "toy.morse", BEATS.id]
    sections = [v for v in page.attributes("id") if v in order]
    assert sections == order


def test_groups_without_a_claim_are_left_out(tmp_path):
    text = text_of(tmp_path, held())
    assert "Findings" in text
    for heading in ("Weaknesses", "Toys Models", "Not about", "Whether numbers mean"):
        assert heading not in text


def test_a_group_of_which_nothing_ran_says_so(tmp_path):
    text = text_of(tmp_path, held(), Evidence.not_run(WEAK, "no time"))
    assert "None of these was measured in this session." in text
    assert "1 case was not run, and why" in text
    text = text_of(tmp_path, *(Evidence.not_run(LAW, "no", case=c) for c in "xy"))
    assert "2 cases were not run, and why" in text


def test_a_sentence_with_cases_has_its_own_verdict_above_theirs(tmp_path):
    found = (held(case="self", fold=0), refuted(case="refit", fold=0))
    text = text_of(tmp_path, *found, left_out=(f"{BEATS.id}[mp2020] fold0",))
    said = (
        "zero-shot.beats-baseline strength: no zero-shot.beats-baseline is so. ✗ refuted held 1, "
        "refuted 1, not chosen 1 of 3 cases (rule: every case) self, fold 0 "
    )
    assert said in overview(text)
    assert (
        "zero-shot.beats-baseline strength: no ✗ refuted zero-shot.beats-baseline is so. And more. "
        "Cases held 1, refuted 1, not chosen 1 of 3 cases (rule: every case) not chosen: "
        "zero-shot.beats-baseline[mp2020] fold0 Basis the founding note"
    ) in text


def test_a_sentence_of_one_case_has_one_line(tmp_path):
    text = text_of(tmp_path, held(case="self", fold=0))
    assert "zero-shot.beats-baseline self, fold 0 strength: yes zero-shot" in overview(text)
    assert "rule:" not in text
    some = text_of(tmp_path, held(case="self"), left_out=(f"{BEATS.id}[x]",))
    assert "held 1, not chosen 1 of 2 cases (rule: every case)" in overview(some)


@pytest.mark.parametrize(
    ("found", "badge", "css"),
    [
        (held(), "strength: yes", "kind good"),
        (refuted(), "strength: no", "kind bad"),
        (undecided(), "strength: open", "kind"),
        (held(WEAK), "weakness: yes", "kind bad"),
        (refuted(WEAK), "weakness: no", "kind good"),
        (held(LEVER), "neutral", "kind"),
        (held(TOY), "toy", "kind"),
    ],
)
def test_a_badge_says_what_a_verdict_means_for_the_model(tmp_path, found, badge, css):
    page = page_of(session(found), tmp_path)
    # in the overview and over the claim, and not in the legend
    assert page.count(f'<span class="{css}">{badge}</span>') == 2


def test_what_is_not_about_the_model_is_no_good_news_for_it(tmp_path):
    page = page_of(session(held(subject="MLP", case="x"), held(case="y", **ABOUT)), tmp_path)
    assert page.count('<span class="kind">strength: yes</span>') == 2
    text = Reader(page).spaced
    assert "MLP: held 1; chgnet-0.3.0: held 1 of 2 cases (rule: every case)" in overview(text)
    assert "x about MLP" in overview(text)
    assert "y about" not in text
    assert text.count("about MLP") == 2  # and in the case itself


def test_the_head_counts_cases_about_the_model_alone(tmp_path):
    text = text_of(tmp_path, held(), held(SOFT), refuted(WEAK), held(TOY, subject="toy"))
    assert "Claims: 2 findings (2 held); 1 claimed weaknesses (1 refuted)" in text
    assert "; 1 case about something else than chgnet-0.3.0, told apart below" in text
    two = text_of(tmp_path, held(), held(TOY, subject="toy"), held(LAW, subject="x"))
    assert "; 2 cases about something else than chgnet-0.3.0, told apart below" in two
    assert "something else" not in text_of(tmp_path, held()).split("What the verdicts mean")[0]


def test_an_incomplete_session_says_so_first(tmp_path):
    info = {"complete": False, "incomplete_reason": "stopped by SIGTERM", "resume": "pytest x"}
    text = text_of(tmp_path, held(), not_reached=["a.b[x]", "a.c"], **info)
    said = (
        "INCOMPLETE: stopped by SIGTERM. 2 checks were not reached, so the verdicts below are not "
        "all there are. Go on with pytest x What was not reached a.b[x] , a.c"
    )
    assert said in text[: text.index("Can it be trusted?")]
    one = text_of(tmp_path, held(), not_reached=["a.b"], **{**info, "resume": ""})
    assert "1 check was not reached, so" in one
    assert "Go on with" not in one
    none = text_of(tmp_path, held(), complete=False)
    assert "INCOMPLETE: for no known reason. 0 checks were not reached" in none
    assert "What was not reached" not in none
    assert "INCOMPLETE" not in text_of(tmp_path, held(), complete=True)


def test_the_head_says_the_size_and_what_was_trained_on(tmp_path):
    text = text_of(tmp_path, held(), size="nightly", training_dataset="thermochemistry")
    assert "10 min 12 s on cpu, size nightly." in text
    assert "Trained on thermochemistry." in text
    same = text_of(tmp_path, held(), size="quick", training_dataset="matbench_mp_e_form")
    assert "size quick" in same
    assert "Trained on" not in same
    assert ", size" not in text_of(tmp_path, held())


def test_chance_is_told_once_and_marked_where_it_matters(tmp_path):
    summary = {"decided": 3, "by_chance": 0.075, "findings": 2, "not_surviving": [WEAK.id]}
    found = (
        held(fields={"chance": 0.001, "survives_holm": True}),
        held(WEAK, fields={"chance": 0.0212, "survives_holm": False}),
        held(LAW, fields={"chance": 1e-9}),
        held(SOFT, method="exact", fields={"chance": 0.0, "survives_holm": True}),
        held(TOY, fields={"chance": 0.0}),
        held(LEVER),
    )
    text = text_of(tmp_path, *found, multiplicity=summary)
    assert (
        "3 verdicts at 95 %, of which 0.075 would come out by chance if every truth lay "
        "on its bound. 1 of 2 findings do not stand among all of them at once (Holm, marked ≠): "
        "softening.dft no check"
    ) in text
    says = [
        "0.1 % if the truth lay on the bound; clear among all findings of the session too",
        "2.1 % if the truth lay on the bound; not clear among all findings of the session at once "
        "(Holm) ≠",
        "less than 0.01 % if the truth lay on the bound Known",
        "none: nothing was sampled Known",
    ]
    for words in says:
        assert f"Chance of so clear a verdict {words}" in text
    assert text.count("Chance of so clear") == 5
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    # in the overview, on the case, beside its chance, and in the legend
    assert page.count('<span class="weak"') == 4
    assert "of which" not in text_of(tmp_path, held()).split("What the verdicts mean")[0]


@pytest.mark.parametrize(
    ("known", "source", "in_table", "in_case"),
    [
        ("held", "", "", "Known before as documented"),
        (
            "held",
            "a subset",
            "✓ held expected from a subset, not yet measured on these data",
            "Known before expected from a subset, not yet measured on these data",
        ),
        (
            "refuted",
            "",
            "✓ held changed: documented as refuted",
            "Known before changed: documented as refuted",
        ),
        (
            "refuted",
            "a subset",
            "✓ held new: refuted was expected from a subset, not yet measured on these data",
            "Known before new: refuted was expected from a subset, not yet measured",
        ),
        ("", "", "✓ held new", "Known before new: no verdict is documented for it"),
    ],
)
def test_a_verdict_is_as_documented_expected_new_or_changed(
    tmp_path, known, source, in_table, in_case
):
    other = held(SOFT, fields={"documented": "held"})
    found = held(fields={"documented": known, "documented_from": source})
    text = text_of(tmp_path, found, other)
    assert (in_table or "✓ held 5,219") in overview(text)
    assert in_case in text
    changed = known == "refuted" and not source
    assert ("1 verdict is not the documented one." in text) is changed
    assert (f"{BEATS.id} : documented refuted, now held" in text) is changed


def test_all_changed_verdicts_are_named_and_missing_files_change_none(tmp_path):
    absent = replace(
        Evidence.not_run(LAW, "no file"), documented="held", lacks_data=True, subject=MODEL
    )
    found = [held(w, fields={"documented": "refuted"}) for w in (BEATS, SOFT)]
    text = text_of(tmp_path, *found, absent)
    assert "2 verdicts are not the documented ones." in text
    assert "physics.rotation : documented" not in text


def test_where_nothing_is_documented_nothing_is_called_new_in_the_table(tmp_path):
    text = text_of(tmp_path, held())
    assert "new" not in overview(text)
    assert "Known before new: no verdict is documented for it" in text


def test_rows_are_told_with_units_weights_and_where_the_others_went(tmp_path):
    found = held(effective=812.4, excluded={"no energy": 14, "too large": 2}, of=26_553)
    text = text_of(tmp_path, found)
    assert (
        "Rows 5,219 in 4,180 independent clusters, weighing as much as 812 that weigh alike "
        "Coverage 5,219 scored of 26,553 (19.7 %) asked for and not scored: 14 no energy 2 too "
        "large never asked for: 21,318 not in the subset"
    ) in text
    assert "weigh alike" not in text_of(tmp_path, held(effective=4_180.2))
    plain = text_of(tmp_path, held(excluded={}, absent={}, of=5_219))
    assert "asked for" not in plain
    same = replace(held(), n=7, n_clusters=7)
    assert "Rows 7 Coverage" in text_of(tmp_path, same)


def test_a_share_of_cases_says_how_large_the_largest_deviation_is(tmp_path):
    text = text_of(tmp_path, held(LAW, severity=0.22), held(severity=None))
    assert "rotation ✓ held measured 22 %" in overview(text)
    assert "Largest deviation 22 % of what is allowed" in text
    in_table = text_of(tmp_path, held(severity=0.22))
    assert "0.030 to 0.040 22 % of what is allowed" in overview(in_table)


def test_exact_is_said_only_where_nothing_was_sampled(tmp_path):
    flat = Evidence.of(BEATS, measured(0.05, 0.05))
    text = text_of(tmp_path, flat)
    assert "0.05 to 0.05" in overview(text)
    assert "[ 0.05 , 0.05 ]" in text
    assert "exact" not in text
    exact = text_of(tmp_path, Evidence.of(BEATS, measured(0.05, 0.05, method="exact")))
    assert "0.05 eV/atom exact < 0.11 eV/atom 45 % of what is allowed" in overview(exact)
    assert "[ 0.05" not in exact


def test_why_an_interval_is_not_trusted_is_said(tmp_path):
    why = "one of 47 crystals decides the number"
    assert f"is so. held: {why} 0.035" in text_of(tmp_path, held(fields={"reason": why}))
    open_ = text_of(tmp_path, held(unsettled=why))
    assert f"is so. inconclusive: {why} 0.035 eV/atom" in overview(open_)
    assert open_.count(why) == 2  # and in the case
    by_interval = held(fields={"reason": "what is documented", "chance": 0.01})
    assert "what is documented" not in overview(text_of(tmp_path, by_interval))


def test_what_holds_for_any_input_says_why(tmp_path):
    known = claim("a.b", below(1, "", "x"), kind=Kind.INTEGRITY, cannot_fail="it is an identity")
    text = text_of(tmp_path, held(known))
    assert "Holds for any input: it is an identity Basis" in text
    assert "Holds for" not in text_of(tmp_path, held())


def test_controls_say_how_far_they_are_and_why_if_far(tmp_path):
    near = Evidence.of(BEATS, measured(0.13, 0.14, resolution=0.01), control=True, fault="near")
    far = replace(
        Evidence.of(BEATS, measured(4.0, 5.0, resolution=None), control=True, fault="far"),
        far="no nearer fault exists",
    )
    rate = refuted(LAW, severity=1.4, resolution=None, control=True, fault="turned")
    zero = claim("a.zero", below(0, "", "x"))
    bare = Evidence.of(zero, measured(1, 2, resolution=None), control=True, fault="bare")
    text = text_of(tmp_path, near, far, rate, bare, Evidence.not_run(LAW, "no", control=True))
    assert " 0.23 margins, 2.5 resolutions ✓ caught" in text
    assert "40 margins far because no nearer fault exists ✓ caught" in text
    assert "0.4 margins 140 % of what is allowed ✓ caught" in text
    assert "no scale to tell ✓ caught" in text
    assert "4 of 4 planted faults caught (1 not run); 2 of them near the bound" in text


def test_no_control_ran_and_none_is_near(tmp_path):
    text = text_of(tmp_path, held())
    assert "0 of 0 planted faults caught no check" in text


def test_a_claim_of_which_only_controls_were_chosen_has_its_section(tmp_path):
    text = text_of(tmp_path, refuted(WEAK, control=True, fault="stiffened", case="x", **ABOUT))
    assert "weakness: open" in text
    assert "None of these was measured in this session." in text
    assert "stiffened" in text
    assert "Cases held" not in text


HEADED = claim(
    "a.headed", below(0.11, "eV/atom", "x"), headline={"x": "It is good", "y": "It is also good"}
)


def test_a_report_begins_with_what_its_claims_say_first_however_it_came_out(tmp_path):
    found = (
        held(),
        refuted(HEADED, case="y"),
        held(HEADED, case="x", fold=0),
        refuted(HEADED, case="x", fold=1),  # of several folds the first stands for all
        held(HEADED, case="z"),
    )
    text = text_of(tmp_path, *found)
    assert (
        "What was found no It is also good 0.125 [ 0.120 , 0.130 ] eV/atom < 0.11 eV/atom "
        "strength It is good 0.035 [ 0.030 , 0.040 ] eV/atom < 0.11 eV/atom The same claims"
    ) in text
    assert "What was found" not in text_of(tmp_path, held())


@pytest.mark.parametrize(
    ("found", "word"),
    [
        (held(HEADED, case="x"), "strength"),
        (refuted(HEADED, case="x"), "no"),
        (undecided(HEADED, case="x"), "open"),
        (Evidence.not_run(HEADED, "no time", case="x"), "not run"),
    ],
)
def test_the_word_that_leads_a_finding(tmp_path, found, word):
    assert f"What was found {word} It is good" in text_of(tmp_path, found)


def test_no_more_than_eight_findings_stand_first(tmp_path):
    many = claim(
        "a.many", below(0.11, "eV/atom", "x"), headline={c: f"Is {c}" for c in "abcdefghij"}
    )
    text = text_of(tmp_path, *(held(many, case=c) for c in "abcdefghij"))
    assert "Is h" in text
    assert "Is i" not in text


@pytest.mark.parametrize(
    ("dataset", "coverage", "badge", "says"),
    [
        ("embedded", {}, "EMBEDDED", "no official benchmark"),
        (
            "matbench_mp_e_form",
            {"absent": {}, "excluded": {}, "of": 5_219},
            "OFFICIAL",
            "every row",
        ),
        (
            "matbench_mp_e_form (subset)",
            {},
            "SUBSET 19.7 %",
            "a part of the official rows: at most 5,219 of 26,551 rows of a fold were scored.",
        ),
        ("mine.extxyz", {}, "OTHER", "no official data set: at most 5,219 of 26,551 rows"),
    ],
)
def test_what_kind_of_data_these_are_stands_in_a_word(tmp_path, dataset, coverage, badge, says):
    text = text_of(tmp_path, held(fold=0, dataset=dataset, **coverage), dataset=dataset)
    assert f"Validation report {badge} " in text
    assert says in text[: text.index("Can it be trusted?")]


def test_a_figure_of_two_cases_is_drawn_once(tmp_path):
    found = _with_figure(tmp_path).claims[0]
    page = Reader(page_of(session(found, replace(found, case="self")), tmp_path))
    assert len(page.data_blocks) == 1
    assert "Figure: the one shown with another case of this claim" in page.spaced
    assert "#case-zero-shot.beats-baseline-refit-fold0" in page.attributes("href")


def test_cases_of_a_claim_share_a_scale_whose_ends_are_printed(tmp_path):
    page = page_of(session(held(case="a"), refuted(case="b")), tmp_path)
    ends = re.findall(r'class="ends" aria-hidden="true"><span>(.*?)</span><span>(.*?)</span>', page)
    assert set(ends) == {("0.02", "0.14")}
    assert 'aria-label="held: 0.035, interval 0.030 to 0.040, against the bound' in page


def test_what_is_allowed_is_told_as_a_share_where_nothing_was_sampled(tmp_path):
    tiny = Evidence.of(BEATS, measured(0.0001, 0.0001, method="exact"))
    text = text_of(tmp_path, tiny)
    assert "0.1 meV/atom exact < 110 meV/atom 0.091 % of what is allowed" in overview(text)


# Numbers

FINITE = st.floats(-1e6, 1e6, allow_subnormal=False)


@given(FINITE, FINITE, st.sampled_from(["eV/atom", "", "GPa"]))
def test_a_number_as_shown_lies_on_its_own_side_of_the_bound(value, bound, unit):
    read = float(numbers.number(value, unit, (bound, None)).replace(",", ""))
    assert (read < bound, read > bound) == (value < bound, value > bound)
    assert math.isclose(read, value, rel_tol=1e-2, abs_tol=5e-5)


@given(FINITE, st.floats(1e-9, 1e3), FINITE, st.sampled_from(["eV/atom", "", "GPa"]))
def test_numbers_of_a_record_lie_on_their_own_side_of_the_bound(value, width, bound, unit):
    scale = numbers.Scale.of((value, value - width, value + width), unit, (bound, None))
    for one in (value, value - width, value + width):
        read, end = float(scale.text(one).replace(",", "")), scale.factor * bound
        assert (read < end, read > end) == (one < bound, one > bound)
        assert math.isclose(read / scale.factor, one, rel_tol=1e-9, abs_tol=0.06 * width)


@pytest.mark.parametrize(
    ("values", "unit", "bounds", "shown", "bound"),
    [
        ((0.0561, 0.0541, 0.0582), "eV/atom", (None, 0.11), "0.0561 0.0541 0.0582 eV/atom", "0.11"),
        (
            (1.24e-4, 1.08e-4, 1.42e-4),
            "eV/atom",
            (1e-3, 3e-3),
            "0.124 0.108 0.142 meV/atom",
            "1 to",
        ),
        ((14.97, 11.53, 18.42), "", (10, None), "15.0 11.5 18.4 ", "> 10"),
        ((26.08, 17.72, 34.44), "", (10, None), "26 18 34 ", "> 10"),
        ((1.0003, 0.9986, 1.0020), "", (0.85, 1.15), "1.0003 0.9986 1.0020 ", "0.85 to 1.15"),
        ((0.1, 0.0, 0.10996), "eV/atom", (None, 0.11), "0.10 0.00 0.10996 eV/atom", "< 0.11"),
        ((5.0, 5.0, 5.0), "rows", (None, 6), "5 5 5 rows", "< 6 rows"),
    ],
)
def test_the_width_of_the_interval_decides_the_digits(values, unit, bounds, shown, bound):
    scale = numbers.Scale.of(values, unit, bounds)
    assert f"{' '.join(scale.text(v) for v in values)} {scale.unit}" == shown
    assert bound in scale.bound(*bounds)


def test_numbers_read_together_are_in_one_unit():
    alone = numbers.Scale.of((0.002, 0.001, 0.003), "eV/atom")
    beside = numbers.Scale.of((0.002, 0.001, 0.003), "eV/atom", beside=(0.04,))
    assert (alone.unit, alone.text(0.002)) == ("meV/atom", "2.0")
    assert (beside.unit, beside.text(0.002)) == ("eV/atom", "0.0020")


@pytest.mark.parametrize(
    ("value", "unit", "bounds", "shown"),
    [
        (0.0338, "eV/atom", (), "0.0338"),
        (0.11, "eV/atom", (), "0.1100"),
        (0.109996, "eV/atom", (0.11,), "0.109996"),
        (3.8e-6, "eV/atom", (2e-5,), "3.8e-06"),
        (0.0, "eV/atom", (0.0,), "0.0000"),
        (26_551.0, "rows", (), "26,551"),
        (0.98765, "", (), "0.9877"),
    ],
)
def test_numbers_have_the_digits_of_their_unit(value, unit, bounds, shown):
    assert numbers.number(value, unit, bounds) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0 %"),
        (9.9e-5, "less than 0.01 %"),
        (1e-4, "0.01 %"),
        (0.0125, "1.2 %"),
        (0.0994, "9.9 %"),
        (0.0995, "10 %"),
        (0.22, "22 %"),
        (1.4, "140 %"),
        (41.09, "4,109 %"),
    ],
)
def test_percentages_have_two_digits_that_say_something(value, shown):
    assert numbers.percent(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0536, "0.054"), (1.24, "1.2"), (9.94, "9.9"), (9.95, "10"), (2209.4, "2,209"), (0, "0")],
)
def test_multiples_have_two_digits_that_say_something(value, shown):
    assert numbers.times(value) == shown


def test_shares_are_whole_only_when_they_are():
    assert numbers.share(26_550, 26_551) == "99.9 %"
    assert numbers.share(26_551, 26_551) == "100 %"
    assert numbers.share(1, 26_551) == "0.1 %"
    assert numbers.share(0, 26_551) == "0 %"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.42, "0.4 s"),
        (42, "42 s"),
        (59.7, "1 min 00 s"),
        (612.3, "10 min 12 s"),
        (3_840, "1 h 04 min"),
    ],
)
def test_durations_read_like_durations(seconds, shown):
    assert numbers.duration(seconds) == shown
