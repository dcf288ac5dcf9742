"""The page: complete, self-contained, safe to open, and made from its folder alone."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
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
        "the smallest difference this n could have resolved: 0.0021 eV/atom",
        "0.9 to 1.1",
        "the lever was never applied",
        "mattersim is not installed",
        "total energies",
        "1 of 2",
        "controls caught, 1 not run",
        "mean error (eV/atom)",
        "and 16 more in evidence.json",
        "2.13.0",
    ):
        assert words in text, words
    for verdict in Verdict:
        assert f"{verdict}" in text
    assert "33.8 meV/atom" in set(Reader(page_of(session(), tmp_path)).attributes("title"))


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
    assert "plotly.js v" not in plain
    drawn = page_of(_with_figure(tmp_path), tmp_path)
    assert drawn.count("* plotly.js v") == 1


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


# Numbers

FINITE = st.floats(-1e6, 1e6, allow_subnormal=False)


@given(FINITE, FINITE, st.sampled_from(["eV/atom", "", "GPa"]))
def test_a_number_as_shown_lies_on_its_own_side_of_the_bound(value, bound, unit):
    read = float(numbers.number(value, unit, (bound, None)).replace(",", ""))
    assert (read < bound, read > bound) == (value < bound, value > bound)
    assert math.isclose(read, value, rel_tol=1e-2, abs_tol=5e-5)


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
