"""A record is read back as it was written, and refuses to contradict itself."""

import json
import re
from dataclasses import replace

import pytest

from harness.claims import (
    Bound,
    Claim,
    Interval,
    Kind,
    Meaning,
    Measurement,
    Size,
    Verdict,
    above,
    below,
)
from harness.errors import DataError
from harness.evidence import (
    FAMILIES,
    Evidence,
    Sentence,
    Session,
    in_reading_order,
    sentences,
)

CLAIM = Claim(
    id="zero-shot.beats-baseline",
    statement="The MAE is below 0.11 eV/atom.",
    basis="a note",
    bound=below(0.11, "eV/atom", "the baseline"),
    bounds_on={"elsewhere": above(0.2, "eV", "another")},
    kind=Kind.FINDING,
    meaning=Meaning.STRENGTH,
    cases=2,
    headline={"refit": "closer than the baseline"},
)
IDENTITY = replace(
    CLAIM, id="i", kind=Kind.INTEGRITY, meaning=None, cannot_fail="by definition", cases="any"
)
INTERVAL = Interval(
    estimate=0.034,
    low=0.033,
    high=0.0355,
    n=8,
    n_clusters=7,
    resolution=0.001,
    effective=5.5,
    method="bootstrap",
)
MEASURED = Measurement(
    quantity="MAE of e_form",
    interval=INTERVAL,
    scored=8,
    of=13,
    dataset="embedded",
    model="chgnet-0.3.0, shifted",
    subject="chgnet-0.3.0",
    excluded={"isolated atoms": 2},
    absent={"no structure": 3},
    inputs={"file": "ab" * 32},
    details={"nested": {"list": [1, 2.5, "é"]}},
    severity=1.25,
)


def record(verdict=Verdict.HELD, **changes):
    """Evidence with only what a test is about."""
    given = {
        "id": "c",
        "verdict": verdict,
        "statement": "s",
        "basis": "b",
        "kind": Kind.INTEGRITY,
    }
    given |= {"reason": "why"} if verdict == Verdict.NOT_RUN else {"observed": 1.0}
    return Evidence(**{**given, **changes})


# --- one record


def test_a_record_holds_all_that_was_measured_and_claimed():
    found = Evidence.of(CLAIM, MEASURED, case="refit", fold=0, seconds=1.5)
    assert found == Evidence(
        id="zero-shot.beats-baseline",
        verdict=Verdict.HELD,
        statement="The MAE is below 0.11 eV/atom.",
        basis="a note",
        kind=Kind.FINDING,
        meaning=Meaning.STRENGTH,
        cases=2,
        headline={"refit": "closer than the baseline"},
        case="refit",
        fold=0,
        quantity="MAE of e_form",
        observed=0.034,
        ci_low=0.033,
        ci_high=0.0355,
        ci_method="bootstrap",
        bound_high=0.11,
        bound_reason="the baseline",
        unit="eV/atom",
        n=8,
        n_clusters=7,
        effective=5.5,
        resolution=0.001,
        severity=1.25,
        coverage={"scored": 8, "of": 13},
        excluded={"isolated atoms": 2},
        absent={"no structure": 3},
        dataset="embedded",
        model="chgnet-0.3.0, shifted",
        subject="chgnet-0.3.0",
        inputs={"file": "ab" * 32},
        details={"nested": {"list": [1, 2.5, "é"]}},
        seconds=1.5,
    )


def test_a_record_has_the_bound_of_its_data_and_the_words_of_its_claim():
    there = Evidence.of(IDENTITY, replace(MEASURED, dataset="elsewhere"))
    assert (there.bound_low, there.bound_high) == (0.2, None)
    assert (there.unit, there.bound_reason) == ("eV", "another")
    assert there.refuted
    assert (there.cannot_fail, there.cases, there.meaning) == ("by definition", "any", None)


def test_numbers_become_plain_ones():
    import numpy as np

    odd = Interval(
        estimate=np.float64(0.5),
        low=np.float64(0.5),
        high=np.float64(0.5),
        n=np.int64(3),
        n_clusters=np.int64(2),
        effective=np.float64(2),
        resolution=np.float64(1),
    )
    measured = replace(
        MEASURED,
        interval=odd,
        scored=np.int64(8),
        of=np.int64(13),
        excluded={"a": np.int64(2)},
        absent={"b": np.int64(3)},
        severity=np.float64(2),
    )
    found = Evidence.of(CLAIM, measured)
    numbers = [found.observed, found.ci_low, found.ci_high, found.effective, found.resolution]
    assert {type(x) for x in (*numbers, found.severity)} == {float}
    counts = [found.n, found.n_clusters, *found.coverage.values()]
    counts += [*found.excluded.values(), *found.absent.values()]
    assert {type(x) for x in counts} == {int}


def test_what_was_not_measured_stays_unknown():
    plain = replace(INTERVAL, effective=None, resolution=None)
    found = Evidence.of(CLAIM, replace(MEASURED, interval=plain, severity=None))
    assert found.effective is found.resolution is found.severity is None


def test_the_subject_is_the_model_where_nothing_else_is_said():
    assert Evidence.of(CLAIM, replace(MEASURED, subject="")).subject == "chgnet-0.3.0, shifted"


def test_the_reason_of_a_verdict_is_recorded_unless_the_session_knows_better():
    placeholder = replace(MEASURED, placeholder="never applied")
    assert Evidence.of(CLAIM, placeholder).reason == "never applied"
    assert Evidence.of(CLAIM, placeholder, reason="known").reason == "known"
    assert Evidence.of(CLAIM, MEASURED).reason == ""


def test_a_claim_that_was_not_run_shows_the_bound_of_its_data():
    missing = Evidence.not_run(CLAIM, "no data", case="mp2020", fold=1)
    assert missing == Evidence(
        id="zero-shot.beats-baseline",
        verdict=Verdict.NOT_RUN,
        statement="The MAE is below 0.11 eV/atom.",
        basis="a note",
        kind=Kind.FINDING,
        meaning=Meaning.STRENGTH,
        cases=2,
        headline={"refit": "closer than the baseline"},
        case="mp2020",
        fold=1,
        bound_high=0.11,
        bound_reason="the baseline",
        unit="eV/atom",
        reason="no data",
    )
    there = Evidence.not_run(IDENTITY, "no data", dataset="elsewhere")
    assert (there.bound_low, there.bound_high, there.bound_reason) == (0.2, None, "another")
    assert (there.unit, there.dataset, there.cannot_fail) == ("eV", "elsewhere", "by definition")


def test_what_a_record_says_where_nothing_else_was_told():
    plain = record()
    assert plain.size == "quick"
    assert (plain.cases, plain.seconds, plain.n, plain.n_clusters) == ("all", 0.0, 0, 0)
    assert plain.least_coverage == 0.5
    texts = "cannot_fail case fault far quantity ci_method bound_reason unit dataset model subject"
    texts += " documented documented_from reason test never_applied counterexample unsettled units"
    assert {getattr(plain, name) for name in texts.split()} == {""}
    nothing = "meaning fold ci_low ci_high bound_low bound_high effective resolution severity"
    nothing += " chance survives_holm"
    assert {getattr(plain, name) for name in nothing.split()} == {None}
    assert plain.control is plain.lacks_data is False
    empty = "coverage excluded absent inputs versions details"
    assert [getattr(plain, name) for name in empty.split()] == [{}] * 6
    assert plain.figures == []


def test_a_measured_claim_cannot_be_not_run_nor_the_reverse():
    for wrong in (
        {"verdict": Verdict.HELD, "observed": None},
        {"verdict": Verdict.NOT_RUN, "observed": 1.0, "reason": "why"},
        {"verdict": Verdict.NOT_RUN, "reason": ""},
    ):
        with pytest.raises(ValueError, match="c: verdict, observed and reason disagree"):
            record(**wrong)
    assert record(Verdict.HELD, reason="known").reason == "known"


@pytest.mark.parametrize(
    ("case", "fold", "key"),
    [
        ("", None, "c"),
        ("refit", None, "c[refit]"),
        ("", 0, "c fold0"),
        ("a-b", 3, "c[a-b] fold3"),
    ],
)
def test_a_record_has_a_key(case, fold, key):
    assert record(case=case, fold=fold).key == key


@pytest.mark.parametrize(
    ("low", "high", "observed", "ends", "bound", "text"),
    [
        (None, 2.0, 5.0, (2.0,), 2.0, "< 2"),
        (1.0, None, 5.0, (1.0,), 1.0, "> 1"),
        (1.0, 2.0, 1.4, (1.0, 2.0), 1.0, "1 to 2"),
        (1.0, 2.0, 1.6, (1.0, 2.0), 2.0, "1 to 2"),
        (0.0, 0.5, 0.2, (0.0, 0.5), 0.0, "0 to 0.5"),
        (-3.0, 1.0, -1.5, (-3.0, 1.0), -3.0, "-3 to 1"),
        (None, None, 1.0, (), None, ""),
    ],
)
def test_the_bound_of_a_window_is_its_nearer_end(low, high, observed, ends, bound, text):
    found = record(bound_low=low, bound_high=high, observed=observed)
    assert found.ends == ends
    assert found.bound == bound
    assert found.bound_text == text


def test_the_bound_of_what_was_not_run_is_the_end_nearer_to_zero():
    assert record(Verdict.NOT_RUN, bound_low=-3.0, bound_high=1.0).bound == 1.0
    assert record(Verdict.NOT_RUN, bound_low=-1.0, bound_high=1.5).bound == -1.0


@pytest.mark.parametrize(
    ("low", "high", "observed", "margins"),
    [
        (None, 2.0, 3.0, 0.5),
        (None, 2.0, 1.0, 0.5),
        (-4.0, None, -6.0, 0.5),  # the distance of the bound from zero, which has no sign
        (1.0, 3.0, 4.0, 1.0),  # half a window is one
        (1.0, 3.0, 1.5, 0.5),
        (-1.0, 1.0, 4.0, 3.0),
        (None, 0.0, 1.0, None),  # a bound at zero has no scale
        (None, None, 1.0, None),
    ],
)
def test_how_far_from_the_bound_in_its_own_scale(low, high, observed, margins):
    assert record(bound_low=low, bound_high=high, observed=observed).margins_away == margins


def test_what_was_not_run_is_no_distance_away():
    missing = record(Verdict.NOT_RUN, bound_high=2.0, resolution=1.0)
    assert missing.margins_away is missing.resolutions_away is None


@pytest.mark.parametrize(("severity", "margins"), [(1.25, 0.25), (0.5, 0.5), (3.0, 2.0)])
def test_of_a_share_of_cases_the_largest_deviation_counts(severity, margins):
    assert record(bound_high=0.5, severity=severity).margins_away == margins
    assert record(severity=severity).margins_away == margins


@pytest.mark.parametrize(
    ("resolution", "high", "observed", "away"),
    [(0.5, 2.0, 3.0, 2.0), (0.5, 2.0, 1.0, 2.0), (None, 2.0, 3.0, None), (0.0, 2.0, 3.0, None)],
)
def test_how_far_from_the_bound_in_what_these_rows_resolve(resolution, high, observed, away):
    assert (
        record(resolution=resolution, bound_high=high, observed=observed).resolutions_away == away
    )
    assert record(resolution=resolution, observed=observed).resolutions_away is None


@pytest.mark.parametrize(
    ("documented", "changed"), [("", False), ("held", False), ("refuted", True), ("not run", True)]
)
def test_a_verdict_has_changed_where_another_is_on_record(documented, changed):
    assert record(documented=documented).changed is changed


@pytest.mark.parametrize("verdict", list(Verdict))
def test_only_a_refuted_or_idle_control_has_caught_its_fault(verdict):
    found = record(verdict, control=True)
    assert found.caught is (verdict in (Verdict.REFUTED, Verdict.PLACEHOLDER))
    assert found.refuted is (verdict == Verdict.REFUTED)
    assert found.placeholder is (verdict == Verdict.PLACEHOLDER)
    assert found.held is (verdict == Verdict.HELD)


def test_a_record_in_one_line():
    assert str(Evidence.of(CLAIM, MEASURED, case="refit")) == (
        "zero-shot.beats-baseline[refit]: held: MAE of e_form = 0.034 [0.033, 0.0355] eV/atom, "
        "bound < 0.11, 8 of 13 rows, chgnet-0.3.0, shifted on embedded"
    )
    assert ": held (known): MAE of" in str(Evidence.of(CLAIM, MEASURED, reason="known"))
    assert str(record(Verdict.NOT_RUN)) == "c: not run (why)"
    bare = record(ci_low=0.0, ci_high=2.0)
    assert "0 of 0 rows" in str(bare)


def test_the_record_has_the_fields_readers_rely_on():
    found = Evidence.of(CLAIM, MEASURED).as_dict()
    assert found["verdict"] == "held"
    assert type(found["verdict"]) is str
    assert found["bound"] == 0.11
    assert found["coverage"] == {"scored": 8, "of": 13}
    for name in ("id", "observed", "ci_low", "ci_high", "bound", "unit", "n", "dataset", "model"):
        assert found[name] is not None
    for name in ("inputs", "versions", "seconds", "reason"):
        assert name in found


@pytest.mark.parametrize("verdict", list(Verdict))
@pytest.mark.parametrize("meaning", [None, *Meaning])
def test_a_record_is_read_back_as_it_was(verdict, meaning):
    found = record(verdict, meaning=meaning, kind=Kind.TOY, size=Size.NIGHTLY)
    again = Evidence.from_dict(json.loads(json.dumps(found.as_dict())))
    assert again == found
    kinds = [type(x) for x in (again.verdict, again.kind, again.size)]
    assert kinds == [Verdict, Kind, Size]
    assert meaning is None or type(again.meaning) is Meaning


# --- sentences


def test_one_claim_has_one_verdict_from_its_cases():
    found = sentences(
        [
            record(case="a"),
            record(Verdict.REFUTED, case="b"),
            record(Verdict.REFUTED, id="d", cases="any"),
            record(id="d", cases="any"),
            record(id="e", cases=2),
            record(Verdict.INCONCLUSIVE, id="e", cases=2),
        ]
    )
    assert [(s.id, s.verdict, s.rule) for s in found] == [
        ("c", "refuted", "every case"),
        ("d", "held", "any case"),
        ("e", "inconclusive", "at least 2 cases"),
    ]
    assert [e.case for e in found[0].of] == ["a", "b"]
    assert found[0].left_out == ()


def test_controls_say_nothing_of_the_sentence():
    assert sentences([record(Verdict.REFUTED, control=True)]) == []
    (found,) = sentences([record(), record(Verdict.REFUTED, control=True)])
    assert found.verdict == Verdict.HELD
    assert len(found.of) == 1


def test_a_case_that_the_session_left_out_counts_as_not_run():
    (found,) = sentences([record(case="a")], ["c[b]", "cc[b]", "x.c[b]"])
    assert found.verdict == Verdict.INCONCLUSIVE
    assert found.left_out == ("c[b]",)
    (found,) = sentences([record(Verdict.REFUTED, case="a")], ["c[b]"])
    assert found.verdict == Verdict.REFUTED
    (found,) = sentences([record(case="a", cases="any")], ["c[b]"])
    assert found.verdict == Verdict.HELD


def test_a_sentence_about_folds_holds_in_each_of_them():
    folds = [record(fold=0), record(Verdict.REFUTED, fold=1)]
    (found,) = sentences(folds)
    assert found.verdict == Verdict.REFUTED
    assert found.rule == "every case, in each of 2 folds"
    (found,) = sentences([replace(e, cases="any") for e in folds])
    assert found.verdict == Verdict.REFUTED  # any case, but of every fold
    assert found.rule == "any case, in each of 2 folds"
    (found,) = sentences([record(fold=0, case="a"), record(fold=0, case="b")])
    assert (found.verdict, found.rule) == ("held", "every case")


def test_folds_that_nobody_asked_for_count_for_nothing():
    (found,) = sentences([record(fold=0)], ["c fold1", "c fold2"])
    assert (found.verdict, found.left_out) == ("held", ())
    (found,) = sentences([record(fold=0, case="a")], ["c[b] fold1", "c[b] fold0"])
    assert (found.verdict, found.left_out) == ("inconclusive", ("c[b] fold0",))


def test_a_check_without_cases_can_be_left_out_of_a_fold():
    (found,) = sentences([record(fold=1, case="a")], ["c fold1"])
    assert (found.verdict, found.left_out) == ("inconclusive", ("c fold1",))


def test_what_was_left_out_of_one_fold_leaves_the_others_alone():
    (found,) = sentences(
        [record(fold=0, case="a", cases="any"), record(fold=1, case="a", cases="any")],
        ["c[b] fold1"],
    )
    assert found.verdict == Verdict.HELD
    (found,) = sentences(
        [
            record(fold=0, case="a", cases=1),
            record(Verdict.REFUTED, fold=1, case="a", cases=1),
        ],
        ["c[b] fold1"],
    )
    assert found.verdict == Verdict.INCONCLUSIVE  # the case left out might have held
    (found,) = sentences(
        [
            record(Verdict.REFUTED, fold=0, case="a", cases=1),
            record(fold=1, case="a", cases=1),
        ],
        ["c[b] fold1"],
    )
    assert found.verdict == Verdict.REFUTED


def test_a_sentence_speaks_for_its_first_case():
    first = Evidence.of(CLAIM, MEASURED, case="a")
    missing = Evidence.not_run(CLAIM, "no data", case="b")
    made = Sentence(
        id=CLAIM.id, verdict=Verdict.HELD, rule="every case", of=(first, missing), left_out=("k",)
    )
    assert (made.kind, made.meaning, made.statement) == ("finding", "strength", CLAIM.statement)
    assert made.count() == {Verdict.HELD: 1, Verdict.NOT_RUN: 1}
    assert made.as_dict() == {
        "id": "zero-shot.beats-baseline",
        "verdict": "held",
        "kind": "finding",
        "meaning": "strength",
        "rule": "every case",
        "cases": {
            "zero-shot.beats-baseline[a]": "held",
            "zero-shot.beats-baseline[b]": "not run",
        },
        "left_out": ["k"],
    }
    assert (
        Sentence(id="c", verdict=Verdict.HELD, rule="", of=(record(),)).as_dict()["meaning"] is None
    )
    assert {type(v) for v in made.as_dict().values()} == {str, dict, list}
    assert {type(v) for v in made.as_dict()["cases"].values()} == {str}


def test_where_cases_of_one_claim_disagree_in_words_the_first_is_quoted():
    cases = (
        record(cases="any", case="a"),
        record(
            Verdict.REFUTED,
            case="b",
            kind=Kind.FINDING,
            meaning=Meaning.NEUTRAL,
            statement="t",
        ),
        record(Verdict.REFUTED, case="c", kind=Kind.TOY, statement="u"),
    )
    (made,) = sentences(cases)
    assert (made.kind, made.meaning, made.statement) == ("integrity", None, "s")
    assert (made.verdict, made.rule) == ("held", "any case")
    (made,) = sentences([replace(e, cases=e.cases if e.cases == "all" else 1) for e in cases])
    assert (made.verdict, made.rule) == ("held", "at least 1 cases")
    (made,) = sentences(cases[1:])
    assert (made.kind, made.meaning, made.statement) == ("finding", "neutral", "t")


def test_verdicts_are_counted_in_one_order():
    cases = (record(Verdict.NOT_RUN), record(Verdict.REFUTED), record(), record())
    made = Sentence(id="c", verdict=Verdict.REFUTED, rule="", of=cases)
    assert list(made.count().items()) == [("held", 2), ("refuted", 1), ("not run", 1)]
    assert made.left_out == ()


def test_families_are_told_in_order_and_claims_as_they_were_measured():
    ids = ["own.claim", "physics.a", "zero-shot.b", "physics.c", "zero-shot.a", "other", "lever"]
    told = [e.id for e in in_reading_order(record(id=i) for i in ids)]
    assert told == [
        "zero-shot.b",
        "zero-shot.a",
        "lever",
        "physics.a",
        "physics.c",
        "own.claim",
        "other",
    ]
    assert FAMILIES == (
        "zero-shot",
        "baseline",
        "leaderboard",
        "record",
        "head-only",
        "fine-tune",
        "lever",
        "ensemble",
        "softening",
        "magnitudes",
        "relax",
        "chgnet",
        "mattersim",
        "physics",
    )
    assert [s.id for s in sentences(record(id=i) for i in ids)] == told


# --- sessions


def session(*claims, **changes):
    given = {
        "session": {"model": "chgnet-0.3.0"},
        "claims": claims,
        "errors": ({"test": "t", "message": "m"},),
    }
    return Session(**{**given, **changes})


def test_a_session_is_read_back_whole(tmp_path):
    written = session(
        Evidence.of(CLAIM, MEASURED, case="refit", fold=0, seconds=1.5),
        Evidence.not_run(CLAIM, "no data", case="mp2020"),
        left_out=("k", "l"),
    )
    assert written.save(tmp_path) == tmp_path / "evidence.json"
    assert Session.load(tmp_path) == written
    assert [path.name for path in tmp_path.iterdir()] == ["evidence.json"]


def test_a_session_in_its_file(tmp_path):
    # é: what is written in a language stays legible
    session(record(details={"é": 1}), left_out=("c[b]",)).save(tmp_path)
    text = (tmp_path / "evidence.json").read_text(encoding="utf-8")
    assert text.startswith('{\n "claims": [\n  {\n   "absent": {},\n')
    assert text.endswith("}\n")
    assert '"é": 1' in text
    assert json.loads(text) == {
        "schema": 3,
        "session": {"model": "chgnet-0.3.0"},
        "sentences": [
            {
                "id": "c",
                "verdict": "inconclusive",
                "kind": "integrity",
                "meaning": None,
                "rule": "every case",
                "cases": {"c": "held"},
                "left_out": ["c[b]"],
            }
        ],
        "claims": [record(details={"é": 1}).as_dict()],
        "errors": [{"test": "t", "message": "m"}],
        "left_out": ["c[b]"],
    }


def test_a_number_that_is_none_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        session(record(details={"x": float("nan")})).save(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_two_saves_are_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        session(Evidence.of(CLAIM, MEASURED)).save(tmp_path / name)
    assert (tmp_path / "a/evidence.json").read_bytes() == (
        tmp_path / "b/evidence.json"
    ).read_bytes()


@pytest.mark.parametrize(
    ("said", "complete"), [({}, True), ({"complete": True}, True), ({"complete": False}, False)]
)
def test_a_session_says_whether_it_is_whole(said, complete):
    assert session(session=said).complete is complete


def test_a_session_has_its_sentences():
    made = session(record(), left_out=("c[b]",), errors=()).sentences
    assert [(s.id, s.verdict, s.left_out) for s in made] == [("c", "inconclusive", ("c[b]",))]
    assert Session(session={}, claims=()).errors == Session(session={}, claims=()).left_out == ()


GOOD = json.dumps(record().as_dict())
OLD = '{"schema": 2, "session": {}, "claims": ['


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, r"does not exist: no session wrote its evidence there\. Run `pytest"),
        ("{", r"is not JSON \(Expecting.*Run the session again"),
        (
            '{"schema": 99, "session": {}, "claims": []}',
            "has schema 99, this version reads 2 and 3",
        ),
        ('{"schema": 1, "session": {}, "claims": []}', "has schema 1, this version reads 2 and 3"),
        ("[]", "has schema None"),
        ('{"schema": [3]}', r"has schema \[3\]"),
        ('{"schema": 2, "session": {}}', "is not evidence: Object missing required field `claims`"),
        ('{"schema": 2, "claims": []}', "is not evidence: Object missing required field `session`"),
        ('{"schema": 2, "session": [], "claims": []}', r"Expected `object`, got `array`.*session"),
        (OLD + '{"verdict": "hold"}]}', "record None: .*Invalid enum value 'hold'"),
        (OLD + "1]}", "is not evidence: Expected `object`, got `int`"),
        (OLD + '"a"]}', "is not evidence: Expected `object`, got `str`"),
        ('{"schema": 2, "session": {}, "claims": 3}', "Expected `array`, got `int`"),
        (OLD + GOOD.replace('"held"', '"hold"') + "]}", "record 'c': Invalid enum value 'hold'"),
        (OLD + GOOD.replace('"fold": null', '"fold": "a"') + "]}", r"record 'c': .*\$.fold"),
        (OLD + GOOD.replace('"n": 0', '"n": true') + "]}", r"got `bool` - at `\$.n`"),
        (OLD + GOOD.replace('"observed": 1.0', '"observed": null') + "]}", "disagree"),
        (OLD + GOOD.replace('"bound": null', '"bound": 3') + "]}", "`bound` is 3, and the nearer"),
        (OLD + GOOD.replace('"seconds": 0.0', '"seconds": 1e999') + "]}", "larger than any number"),
        (OLD + GOOD.replace('"seconds": 0.0', '"seconds": 1' + "0" * 400) + "]}", "out of range"),
        (OLD + GOOD.replace('"seconds": 0.0', '"seconds": NaN') + "]}", "NaN is no number"),
        (OLD + GOOD.replace("{", '{"id": "d", ', 1) + "]}", "'id' stands twice in one object"),
        ('{"schema": 2, "session": {"seconds": "long"}, "claims": []}', r"`float`.*\$.seconds"),
        ('{"schema": 2, "session": {"not_reached": [1]}, "claims": []}', "not_reached"),
        ('{"schema": 2, "session": {"multiplicity": {}}, "claims": []}', "`decided`"),
        ('{"schema": 2, "session": {}, "claims": [], "errors": [{"test": 1}]}', "errors"),
        ('{"schema": 2, "session": {}, "claims": [], "left_out": [1]}', "left_out"),
        ("[" * 100_000, "nested too deeply"),
        ("9" * 5_000, "digits"),
    ],
)
def test_damaged_evidence_is_named(tmp_path, text, says):
    if text is not None:
        (tmp_path / "evidence.json").write_text(text)
    with pytest.raises(DataError, match=re.escape(str(tmp_path)) + ".*" + says):
        Session.load(tmp_path)


def test_a_session_without_errors_or_choices_is_read_too(tmp_path):
    text = '{"schema": 2, "session": {"a": 1}, "claims": [' + GOOD + "]}"
    (tmp_path / "evidence.json").write_text(text)
    assert Session.load(tmp_path) == Session(session={"a": 1}, claims=(record(),))


def test_a_field_of_a_later_version_is_not_dropped_silently(tmp_path):
    session(Evidence.of(CLAIM, MEASURED)).save(tmp_path)
    path = tmp_path / "evidence.json"
    found = json.loads(path.read_text())
    found["claims"][0] |= {"surprise": 1, "another": 2}
    path.write_text(json.dumps(found))
    says = r"'zero-shot.beats-baseline' has unknown fields \['another', 'surprise'\]"
    with pytest.raises(DataError, match=says):
        Session.load(tmp_path)


def test_bytes_that_are_no_text_are_no_evidence(tmp_path):
    (tmp_path / "evidence.json").write_bytes(b'{"schema": 3, "caf\xe9": 1}')
    with pytest.raises(DataError, match=r"is not JSON \('utf-8' codec"):
        Session.load(tmp_path)


def test_an_older_file_stands_where_a_new_one_cannot_be_written(tmp_path, monkeypatch):
    session(record()).save(tmp_path)
    before = (tmp_path / "evidence.json").read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        session().save(tmp_path)
    assert (tmp_path / "evidence.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["evidence.json"]


# --- a record is judged again by what it holds

HOLDS = Evidence.of(CLAIM, MEASURED)
SPARSE = replace(MEASURED, scored=3, excluded={"isolated atoms": 7})
OTHERWISE = {
    "held": (CLAIM, MEASURED),
    "refuted": (replace(CLAIM, bound=below(0.01, "eV/atom", "r")), MEASURED),
    "straddles": (replace(CLAIM, bound=below(0.034, "eV/atom", "r")), MEASURED),
    "placeholder": (CLAIM, replace(MEASURED, placeholder="never applied")),
    "counterexample": (CLAIM, replace(MEASURED, counterexample="one crystal")),
    "coverage": (CLAIM, SPARSE),
    "unsettled": (CLAIM, replace(MEASURED, interval=replace(INTERVAL, unsettled="few units"))),
    "lenient": (replace(CLAIM, least_coverage=0.3), SPARSE),
    "window": (replace(CLAIM, bound=Bound(unit="", reason="r", low=0.0, high=1.0)), MEASURED),
}


@pytest.mark.parametrize("name", OTHERWISE)
def test_what_was_judged_is_judged_alike_from_its_record(tmp_path, name):
    found = Evidence.of(*OTHERWISE[name], reason="what is known of it")
    again = Evidence.from_dict(json.loads(json.dumps(found.as_dict())))
    assert (again, again.contradiction) == (found, "")
    session(found).save(tmp_path)
    assert Session.load(tmp_path).claims == (found,)


@pytest.mark.parametrize("name", OTHERWISE)
def test_a_record_with_another_verdict_contradicts_itself(name):
    found = Evidence.of(*OTHERWISE[name], reason="what is known of it")
    for verdict in set(Verdict) - {found.verdict, Verdict.NOT_RUN}:
        says = replace(found, verdict=verdict).contradiction
        because = {
            "placeholder": " (never applied)",
            "counterexample": " (one crystal)",
            "coverage": f" ({Evidence.of(CLAIM, SPARSE).reason})",
            "unsettled": " (few units)",
        }.get(name, "")
        assert says == f"it says {verdict}, and its numbers are {found.verdict}{because}"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"observed": 0.04}, "not an interval"),
        ({"ci_low": None}, "cannot be judged (TypeError"),
        ({"ci_high": None}, "cannot be judged (TypeError"),
        ({"ci_low": 0.0345}, "not an interval"),
        ({"bound_high": None}, "a bound needs a low or a high end"),
        ({"bound_reason": ""}, "a bound needs its reason"),
        ({"coverage": {"of": 13}}, "KeyError: 'scored'"),
        ({"coverage": {"scored": 8}}, "KeyError: 'of'"),
        ({"coverage": {"scored": 7, "of": 13}}, "do not add up to 13"),
        ({"coverage": {"scored": 8, "of": 12}}, "do not add up to 12"),
        ({"excluded": {}}, "2 rows are unaccounted for"),
        ({"absent": {}}, "3 rows are unaccounted for"),
        ({"meaning": None}, "with meaning None"),
        ({"statement": ""}, "needs an id, a statement and a basis"),
        ({"basis": ""}, "needs an id, a statement and a basis"),
        ({"cannot_fail": "so"}, "cannot fail, so it is no finding"),
        ({"cases": 0}, "cases=0"),
        ({"least_coverage": 2.0}, "least_coverage=2.0"),
        ({"least_coverage": 0.9}, "8 of 10 rows asked for were scored"),
        ({"bound_high": 0.0354}, "its numbers are inconclusive"),
        ({"bound_low": 0.0332}, "its numbers are inconclusive"),
        ({"bound_high": 0.033}, "its numbers are refuted"),
        ({"ci_high": 0.12}, "its numbers are inconclusive"),
        ({"unsettled": "too few"}, "its numbers are inconclusive (too few)"),
        ({"counterexample": "one"}, "its numbers are refuted (one)"),
        ({"never_applied": "idle"}, "its numbers are placeholder (idle)"),
    ],
)
def test_a_record_whose_numbers_do_not_fit_is_named(tmp_path, change, says):
    changed = replace(HOLDS, **change)
    assert HOLDS.contradiction == ""
    assert says in changed.contradiction
    assert changed.contradiction.startswith(("it cannot be judged (", "it says held, and its "))
    session(changed).save(tmp_path)
    whole = "is not what a session wrote: zero-shot.beats-baseline: "
    with pytest.raises(DataError, match=re.escape(whole + changed.contradiction) + r"\. Run"):
        Session.load(tmp_path)


def test_what_was_not_run_has_no_numbers():
    missing = Evidence.not_run(CLAIM, "no data")
    assert missing.contradiction == ""
    for end in ("ci_low", "ci_high"):
        assert replace(missing, **{end: 1.0}).contradiction == "it was not run and has numbers"
    both = replace(missing, ci_low=1.0, ci_high=1.0)
    assert both.contradiction == "it was not run and has numbers"


def test_a_session_of_the_schema_before_is_taken_at_its_word(tmp_path):
    old = HOLDS.as_dict() | {"verdict": "inconclusive", "reason": "few rows"}
    for name in ("least_coverage", "never_applied", "counterexample", "unsettled", "units"):
        del old[name]
    text = json.dumps({"schema": 2, "session": {}, "claims": [old]})
    (tmp_path / "evidence.json").write_text(text)
    assert Session.load(tmp_path).claims[0].verdict == "inconclusive"
    (tmp_path / "evidence.json").write_text(text.replace('"schema": 2', '"schema": 3'))
    with pytest.raises(DataError, match="its numbers are held"):
        Session.load(tmp_path)


# --- words from outside


def test_every_word_of_a_record_becomes_printable():
    odd = replace(
        HOLDS,
        dataset="caf\udce9.json",
        reason="\x1b[2J gone",
        details={"\u202e": ["\x00", {"k": "fine"}, 1.5, None, True]},
        inputs={"\x07": "ab"},
        figures=["a\r.json"],
    )
    plain = odd.printable()
    assert plain == replace(
        HOLDS,
        dataset="caf\\udce9.json",
        reason="\\x1b[2J gone",
        details={"\\u202e": ["\\x00", {"k": "fine"}, 1.5, None, True]},
        inputs={"\\x07": "ab"},
        figures=["a\\r.json"],
    )
    assert type(plain.verdict) is Verdict
    assert plain.printable() == plain


def test_what_somebody_wrote_into_a_file_of_evidence_is_read_printable(tmp_path):
    text = session(HOLDS).text().replace("a note", "a \\u001b[2J\\ud800 note")
    (tmp_path / "evidence.json").write_text(text)
    assert Session.load(tmp_path).claims[0].basis == "a \\x1b[2J\\ud800 note"
