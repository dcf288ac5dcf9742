"""Documented verdicts: what a file may say, what is known of a record, and what differs from it."""

import re
from dataclasses import replace

import pytest

from harness.claims import Kind, Meaning, Size, Verdict
from harness.errors import ConfigError
from harness.evidence import Evidence, Session
from harness.report.verdicts import (
    SAMPLED_OUT,
    Documented,
    Known,
    _quoted,
    differences,
    filled,
    load_documented,
    written,
)

HELD, REFUTED, INCONCLUSIVE = Verdict.HELD, Verdict.REFUTED, Verdict.INCONCLUSIVE
QUICK, NIGHTLY = Size.QUICK, Size.NIGHTLY


@pytest.fixture
def load(tmp_path):
    """Documented verdicts of one or more texts."""

    def of(*texts):
        paths = [tmp_path / f"{i}.toml" for i in range(len(texts))]
        for path, text in zip(paths, texts, strict=True):
            path.write_text(text, encoding="utf-8")
        return load_documented(*paths)

    return of


def record(verdict=HELD, **changes):
    given = {
        "id": "c",
        "verdict": verdict,
        "statement": "s",
        "basis": "b",
        "kind": Kind.FINDING,
        "meaning": Meaning.STRENGTH,
        "dataset": "d",
        "model": "m, shifted",
        "subject": "m",
        "quantity": "MAE",
        "unit": "eV",
        "bound_high": 2.0,
    }
    if verdict == Verdict.NOT_RUN:
        given |= {"reason": "no data"}
    else:
        given |= {"observed": 1.0, "ci_low": 0.5, "ci_high": 1.5}
    return Evidence(**{**given, **changes})


# --- what a file may say


def test_a_verdict_in_a_word_stands_for_every_size_and_fold(load):
    known = load('["m"."d"]\n"c" = "held"\n"c[a]" = "held"')
    for size in Size:
        assert known.known("m", "d", "c", size) == Known(HELD)
        assert known.known("m", "d", "c fold3", size) == Known(HELD)
        assert known.known("m", "d", "c[a] fold12", size) == Known(HELD)
    for other in (("n", "d", "c"), ("m", "e", "c"), ("m", "d", "c[b]"), ("m", "d", "c fold")):
        assert known.known(*other, QUICK) is None
    assert Known(HELD) == (HELD, "", "", None)


def test_one_fold_can_have_a_verdict_of_its_own(load):
    known = load('["m"."d"]\n"c" = "held"\n"c fold3" = { verdict = "refuted", reason = "why" }\n')
    assert known.known("m", "d", "c fold3", QUICK) == Known(REFUTED, "why")
    assert known.known("m", "d", "c fold2", QUICK) == Known(HELD)


def test_sizes_can_have_verdicts_of_their_own(load):
    known = load(
        '["m"."d"]\n'
        '"c" = { quick = "inconclusive", nightly = "held", reason = "few" }\n'
        '"e" = { nightly = "held" }\n'
        '"f" = { verdict = "held", nightly = "refuted", reason = "why" }\n'
    )
    assert known.known("m", "d", "c", QUICK) == Known(INCONCLUSIVE, "few")
    assert known.known("m", "d", "c", NIGHTLY) == Known(HELD, "few")
    assert known.known("m", "d", "e", QUICK) is None
    assert known.known("m", "d", "e", NIGHTLY) == Known(HELD)
    assert known.known("m", "d", "f", QUICK) == Known(HELD, "why")
    assert known.known("m", "d", "f", NIGHTLY) == Known(REFUTED, "why")


def test_what_is_known_of_other_data_is_expected_until_it_is_measured(load):
    known = load(
        '[expected]\n"all" = ["targets", "part"]\n"more" = "part"\n'
        '["m"."part"]\n"c" = "held"\n"e" = "held"\n'
        '["m"."targets"]\n"e" = { verdict = "refuted", reason = "why" }\n'
        '["m"."all"]\n"f" = "held"\n'
    )
    assert known.known("m", "all", "c", QUICK) == Known(HELD, "", "part")
    assert known.known("m", "all", "e", QUICK) == Known(REFUTED, "why", "targets")
    assert known.known("m", "all", "f", QUICK) == Known(HELD)
    assert known.known("m", "more", "c", QUICK) == Known(HELD, "", "part")
    assert known.known("m", "part", "c", QUICK) == Known(HELD)
    assert known.known("m", "part", "f", QUICK) is None
    assert known.expected == {"all": ("targets", "part"), "more": ("part",)}


def test_processors_may_decide_where_the_reason_says_so(load):
    known = load('["m"."d"]\n"c" = { verdict = "inconclusive", or = "held", reason = "near" }')
    found = known.known("m", "d", "c", QUICK)
    assert found == Known(INCONCLUSIVE, "near", "", HELD)
    assert found.beside(HELD) == HELD
    assert found.beside(INCONCLUSIVE) == INCONCLUSIVE
    assert found.beside(REFUTED) == INCONCLUSIVE
    assert Known(HELD).beside(REFUTED) == HELD


def test_later_files_override_earlier_ones_key_by_key(load):
    known = load(
        '[expected]\n"x" = "d"\n"y" = "d"\n["m"."d"]\n"c" = "held"\n"e" = "held"\n',
        '[expected]\n"x" = "e"\n["m"."d"]\n"c" = { verdict = "refuted", reason = "own" }\n',
    )
    assert known.known("m", "d", "c", QUICK) == Known(REFUTED, "own")
    assert known.known("m", "d", "e", QUICK) == Known(HELD)
    assert known.expected == {"x": ("e",), "y": ("d",)}
    assert load() == Documented()
    assert Documented().known("m", "d", "c", QUICK) is None


def test_where_a_key_is_documented(load):
    known = load(
        '["m"."d"]\n"c" = "held"\n"e" = { nightly = "held" }\n["n"."e"]\n"c fold1" = "held"\n'
    )
    assert known.anywhere("c", QUICK) == [("m", "d")]
    assert known.anywhere("c fold1", QUICK) == [("m", "d"), ("n", "e")]
    assert known.anywhere("c fold2", QUICK) == [("m", "d")]
    assert known.anywhere("e", QUICK) == []
    assert known.anywhere("e", NIGHTLY) == [("m", "d")]
    assert list(known.places()) == [("m", "d", "c"), ("m", "d", "e"), ("n", "e", "c fold1")]


def test_a_record_of_a_sample_is_another_measurement(load):
    known = load('["m"."d"]\n"c" = "held"\n"c fold1" = { quick = "refuted", reason = "w" }')
    assert known.of(record()) == Known(HELD)
    assert known.of(record(fold=1)) == Known(REFUTED, "w")
    assert known.of(record(fold=1, size=NIGHTLY)) is None
    assert known.of(record(absent={"no structure": 3})) == Known(HELD)
    assert known.of(record(absent={SAMPLED_OUT: 3})) is None
    assert SAMPLED_OUT == "left out by --sample"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a = ", "is not TOML"),
        ("a = 1", "1 is no table. Verdicts stand under"),
        ('[m]\na = "held"', r"\{'a': 'held'\} is no table"),
        ('[m]\na = "held"\n[m.d]\nc = "held"', r"\{'a': 'held', 'd': .*\} is no table"),
        ("[m.d]\nc = 1", "m, d: 'c': 1 is neither verdict, reason, or, quick nor nightly"),
        ('[m.d]\nc = ["held"]', r"'c': \['held'\] is neither verdict"),
        ('[m.d]\nc = { z = "held", a = 1 }', r"'c': \['a', 'z'\] is neither verdict"),
        ('[m.d]\nc = "hold"', "'c': 'hold' is not a valid Verdict; verdicts are held, refuted"),
        ('[m.d]\nc = { quick = "hold" }', "'hold' is not a valid Verdict"),
        ('[m.d]\nc = { verdict = "held", or = "hold", reason = "r" }', "'hold' is not a valid"),
        ('[m.d]\nc = { reason = "r" }', "'c' names no verdict"),
        ("[m.d]\nc = {}", "'c' names no verdict"),
        ('[m.d]\nc = "refuted"', "'c' is documented as refuted without a reason"),
        ('[m.d]\nc = "inconclusive"', "documented as inconclusive without a reason"),
        ('[m.d]\nc = "placeholder"', "documented as placeholder without a reason"),
        ('[m.d]\nc = "not run"', "documented as not run without a reason"),
        ('[m.d]\nc = { verdict = "held", or = "refuted" }', "documented as held without a reason"),
        (
            '[m.d]\nc = { quick = "held", nightly = "refuted" }',
            "documented as held, refuted without a reason",
        ),
        ("expected = 1", "1 is no table"),
        ("[expected]\nx = 1", "expected: 'x' = 1; give names of data"),
        ('[expected]\nx = ["a", 1]', r"expected: 'x' = \['a', 1\]; give names of data"),
    ],
)
def test_a_file_that_says_something_else_is_refused(load, tmp_path, text, says):
    with pytest.raises(ConfigError, match="^" + re.escape(str(tmp_path)) + ".*" + says):
        load(text)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none.toml cannot be read: .*Name a file of verdicts"):
        load_documented(tmp_path / "none.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match=r"bytes.toml is not TOML"):
        load_documented(tmp_path / "bytes.toml")


def test_a_file_may_say_little(load):
    assert load("") == Documented({}, {})
    assert load('[m.d]\nc = { verdict = "held", reason = "r" }').known(
        "m", "d", "c", QUICK
    ) == Known(HELD, "r")


# --- reasons


def test_a_reason_is_filled_from_the_records_own_details():
    details = {"n": 3, "of": {"LiF": {"x": 1.25}}, "names": ["a", "b"], "pair": (1, 2), "s": "t"}
    reason = (
        "{details.n} of it, {details.of.LiF.x:.1f}: {details.names}; {details.pair} {details.s}"
    )
    assert filled(reason, details) == "3 of it, 1.2: a, b; 1, 2 t"
    assert filled("no numbers", {}) == "no numbers"
    assert filled("in {{braces}}", {}) == "in {braces}"


@pytest.mark.parametrize(
    "reason", ["{details.absent}", "{details.n.deeper}", "{other}", "{0}", "{details.s:.1f}", "{"]
)
def test_a_reason_that_names_what_is_not_there_is_refused(reason):
    with pytest.raises(
        ConfigError,
        match=re.escape(repr(reason))
        + r" names what the record's details lack \(.*; they have n, s",
    ):
        filled(reason, {"n": 3, "s": "t"})


# --- differences


def session(*claims, said=(), **changes):
    about = {"dataset": "d", "training_dataset": "t", "model": "m", **dict(said)}
    return Session(session=about, claims=claims, **changes)


@pytest.fixture
def differ(load):
    def of(text, *claims, **changes):
        return list(differences(session(*claims, **changes), load(text)))

    return of


KNOWN = '["m"."d"]\n"c" = "held"\n'
LINE = "MAE = 1 [0.5, 1.5] eV, bound < 2, 0 of 0 rows, m, shifted on d"


def test_what_came_out_as_documented_differs_in_nothing(differ):
    assert differ(KNOWN, record()) == []
    assert differ(KNOWN, record(fold=2)) == []
    assert differ('[m.d]\nc = { verdict = "refuted", or = "held", reason = "r" }', record()) == []


def test_another_verdict_is_told_with_its_numbers(differ):
    told = differ(KNOWN, record(REFUTED))
    assert told == [f"c: refuted: {LINE}; documented: held"]
    assert differ(KNOWN, record(Verdict.NOT_RUN)) == ["c: not run (no data); documented: held"]


def test_what_nobody_documented_is_told(differ):
    told = differ(KNOWN, record(), record(id="e", case="a"))
    assert told == ["e[a] on d: held, but no verdict is documented"]


def test_a_sample_is_compared_with_nothing(differ):
    assert differ(KNOWN, record(REFUTED, absent={SAMPLED_OUT: 1})) == []
    assert differ("", record(REFUTED, absent={SAMPLED_OUT: 1})) == []


def test_data_that_are_not_here_are_no_difference(differ):
    assert differ(KNOWN, record(Verdict.NOT_RUN, lacks_data=True)) == []
    assert len(differ(KNOWN, record(REFUTED, lacks_data=True))) == 1


def test_what_was_not_run_and_is_known_so_is_no_difference(differ):
    missing = record(Verdict.NOT_RUN, dataset="", documented="not run")
    assert differ("", missing) == []
    told = differ("", replace(missing, documented="held"))
    assert told == ["c on : not run, but no verdict is documented"]


def test_what_is_expected_from_other_data_may_come_out_otherwise(differ):
    text = '[expected]\n"d" = "part"\n["m"."part"]\n"c" = "held"\n'
    assert differ(text, record(REFUTED)) == []


def test_what_broke_and_what_is_not_whole_is_told(differ):
    told = differ(
        KNOWN,
        record(),
        errors=({"test": "t", "message": "boom"},),
        said={"complete": False, "incomplete_reason": "stopped"},
    )
    assert told == ["t broke: boom", "the session is not complete: stopped"]
    told = differ(KNOWN, record(), said={"complete": False})
    assert told == ["the session is not complete: "]


def test_what_is_documented_and_missing_is_told(differ):
    text = KNOWN + '"e[a]" = "held"\n'
    said = "e[a] is documented for m on d, but it was not in the session"
    assert differ(text, record()) == [said]
    assert differ(text, record(), left_out=("e[a]",)) == []
    assert differ(text, record(), left_out=("e[a] fold1",)) == []
    assert differ(text, record(), record(id="e", case="a", fold=1)) == []
    assert differ(KNOWN + '"e[a] fold1" = "held"\n', record(), left_out=("e[a] fold1",)) == []


def test_only_what_this_session_is_about_can_be_missing(differ):
    for data, about in (("d", True), ("t", True), ("other", False)):
        told = differ(f'["m"."{data}"]\n"x" = "held"\n')
        assert bool(told) is about
    assert differ('["n"."d"]\n"x" = "held"\n') == []
    # of another subject where the session has records of it
    text = '["m"."d"]\n"c" = "held"\n["toy"."d"]\n"e" = "held"\n"x" = "held"\n'
    told = differ(text, record(), record(id="e", subject="toy"))
    assert told == ["x is documented for toy on d, but it was not in the session"]


def control(verdict=REFUTED, **changes):
    """A control just beyond its bound."""
    given = {"control": True, "fault": "a fault", "observed": 2.1, "ci_low": 2.1, "ci_high": 2.1}
    return record(verdict, **(given | changes))


def test_a_control_that_was_caught_nearby_is_no_difference(differ):
    assert differ(KNOWN, record(), control()) == []
    assert differ(KNOWN, record(), control(Verdict.PLACEHOLDER)) == []


@pytest.mark.parametrize("verdict", [HELD, INCONCLUSIVE])
def test_a_control_that_was_not_caught_is_told(differ, verdict):
    (told,) = differ(KNOWN, record(), control(verdict))
    assert told.startswith(f"control 'a fault' was not caught: c: {verdict}: MAE = 2.1")


def test_a_control_that_was_not_run_is_told_unless_there_is_nothing_to_tell(differ):
    missing = control(Verdict.NOT_RUN, observed=None, reason="no data")
    assert differ(KNOWN, record(), missing) == []
    not_run = record(Verdict.NOT_RUN, lacks_data=True)
    assert differ(KNOWN, not_run, missing) == []


def test_a_control_far_beyond_its_bound_says_why_or_is_told(differ):
    far = control(observed=20.0, ci_low=20.0, ci_high=20.0, resolution=0.5)
    (told,) = differ(KNOWN, record(), far)
    assert told.startswith("control 'a fault' lies far beyond its bound: c: refuted: MAE = 20")
    assert told.endswith(
        "; 9 of the bound's margin, 36 resolutions. Plant a smaller fault, or say in `far=` why "
        "there is none"
    )
    (told,) = differ(KNOWN, record(), replace(far, resolution=None))
    assert "; 9 of the bound's margin, 0 resolutions." in told
    (told,) = differ(KNOWN, record(), replace(far, bound_high=0.0))
    assert "; 0 of the bound's margin, 40 resolutions." in told
    assert differ(KNOWN, record(), replace(far, far="none nearer")) == []
    assert differ(KNOWN, record(), replace(far, verdict=Verdict.PLACEHOLDER)) == []
    (told,) = differ(KNOWN, record(), replace(far, verdict=HELD))
    assert "was not caught" in told
    # a claim as far from its bound is a finding
    found = record(REFUTED, observed=20.0, ci_low=20.0, ci_high=20.0, resolution=0.5)
    assert differ('[m.d]\nc = { verdict = "refuted", reason = "r" }', found) == []


# --- files written from sessions


def test_what_was_found_can_be_documented_and_then_differs_in_nothing(load):
    claims = [
        record(),
        record(REFUTED, case="a", fold=1),
        record(INCONCLUSIVE, id='odd "name"\\', reason="at {'Li': 3} and\n\x7f é"),
        record(id="n", subject="other\tsubject", dataset="data [1]"),
    ]
    text = written([session(*claims)])
    known = load(text)
    assert list(differences(session(*claims), known)) == []
    assert known.of(claims[0]) == Known(HELD)
    assert known.of(claims[1]) == Known(REFUTED, "measured 1 [0.5, 1.5] against < 2")
    found = known.of(claims[2])
    assert filled(found.reason, {}) == "at {'Li': 3} and\n\x7f é"
    assert known.of(claims[3]) == Known(HELD)
    assert known.of(replace(claims[0], size=NIGHTLY)) is None


def test_a_file_as_it_is_written():
    claims = [record(), record(REFUTED, id="e"), record(id="f", subject="toy")]
    assert written([session(*claims)]).split("\n") == [
        '["m"."d"]',
        '"c" = { quick = "held" }',
        '"e" = { quick = "refuted", reason = "measured 1 [0.5, 1.5] against < 2" }',
        "",
        '["toy"."d"]',
        '"f" = { quick = "held" }',
        "",
    ]
    assert written([]) == ""


def test_sessions_of_two_sizes_stand_in_one_entry(load):
    quick = session(record(), record(INCONCLUSIVE, id="e", reason="few"))
    nightly = session(record(REFUTED, size=NIGHTLY, reason="why"), record(id="e", size=NIGHTLY))
    text = written([quick, nightly])
    assert '"c" = { quick = "held", nightly = "refuted", reason = "why" }' in text
    assert '"e" = { quick = "inconclusive", reason = "few", nightly = "held" }' in text
    known = load(text)
    assert known.known("m", "d", "c", NIGHTLY) == Known(REFUTED, "why")


@pytest.mark.parametrize(
    "changes",
    [{"control": True}, {"verdict": Verdict.NOT_RUN}, {"absent": {SAMPLED_OUT: 1}}],
)
def test_controls_samples_and_what_was_not_run_are_not_documented(changes):
    assert written([session(record(**changes))]) == ""
    # and what comes after them is
    assert '"e" = { quick = "held" }' in written([session(record(**changes), record(id="e"))])


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("plain é", '"plain é"'),
        ('a "b" \\', r'"a \"b\" \\"'),
        ("tab\tend\x00\x1f\x7f ", r'"tab\u0009end\u0000\u001f\u007f "'),
    ],
)
def test_strings_of_toml(text, quoted):
    assert _quoted(text) == quoted
