"""The verdicts on a terminal: sentences, cases, reasons, controls, chance, what is left."""

from __future__ import annotations

from typing import Any

import pytest

from harness.claims import Kind, Meaning, Size, Verdict
from harness.evidence import Evidence, Session
from harness.report import overview
from harness.report.terminal import verdict_table

MODEL = "chgnet-0.3.0"
SUMMARY = {"decided": 4, "by_chance": 0.1, "findings": 3, "not_surviving": ["soft.a[y]"]}


def record(id: str, verdict: Verdict = Verdict.HELD, **more: Any) -> Evidence:
    given: dict[str, Any] = {
        "statement": f"{id} is so.",
        "basis": "a note",
        "kind": Kind.FINDING,
        "subject": MODEL,
        "model": MODEL,
        "dataset": "embedded",
        "ci_method": "studentised bootstrap",
        "bound_high": 0.11,
        "unit": "eV/atom",
        "n_clusters": 50,
        "coverage": {"scored": 1234, "of": 2468},
    }
    if verdict == Verdict.NOT_RUN:
        given["reason"] = "no data"
    else:
        given |= {"observed": 0.05, "ci_low": 0.04, "ci_high": 0.0601}
    given |= more
    if given["kind"] == Kind.FINDING:
        given.setdefault("meaning", Meaning.STRENGTH)
    return Evidence(id=id, verdict=verdict, **given)


def lines(*claims: Evidence, left_out: tuple[str, ...] = (), **info: Any) -> list[tuple[str, str]]:
    session = Session(session={"model": MODEL, **info}, claims=claims, left_out=left_out)
    return list(verdict_table(session))


def words(*claims: Evidence, **more: Any) -> list[str]:
    return [line for line, _ in lines(*claims, **more)]


def test_the_whole_table():
    weak = {"meaning": Meaning.WEAKNESS}
    integrity: dict[str, Any] = {"kind": Kind.INTEGRITY, "ci_method": "exact"}
    found = lines(
        record("zero-shot.good", case="self", fold=0),
        record("zero-shot.good", Verdict.REFUTED, case="refit", fold=0, documented="held"),
        record("soft.a", case="x", **weak),
        record("soft.a", case="y", survives_holm=False, documented="held", **weak),
        record("zero-shot.other", Verdict.NOT_RUN),
        record("physics.law", ci_low=0.05, ci_high=0.05, **integrity),
        record("physics.bad", Verdict.REFUTED, reason="a counterexample", **integrity),
        record("toy.morse", kind=Kind.TOY, subject="toy", coverage={"scored": 0, "of": 0}),
        record("baseline.peer", subject="CGCNN"),
        record("zero-shot.good", Verdict.REFUTED, control=True, fault="total energies"),
        record("zero-shot.good", control=True, fault="too small", observed=0.2, severity=None),
        record("soft.a", Verdict.NOT_RUN, control=True, fault="never planted"),
        multiplicity=SUMMARY,
        complete=False,
        incomplete_reason="the budget of 5 minutes was spent",
        not_reached=["a", "b"],
        resume="pytest checks/",
    )
    assert found == [
        (
            "sentence          verdict  it says        of its cases",
            "",
        ),
        ("findings", ""),
        (
            "  zero-shot.good  refuted  strength: no   held 1, refuted 1 of 2 cases (rule: every "
            "case)",
            "red",
        ),
        ("  not run, see below: zero-shot.other", "yellow"),
        ("weaknesses", ""),
        ("  soft.a          held     weakness: yes  held 2 of 2 cases (rule: every case)", "red"),
        ("integrity: 1 of 2 held", ""),
        ("  physics.bad     refuted  integrity      one case", "red"),
        ("toys", ""),
        ("  toy.morse       held     toy            one case, about toy", "green"),
        ("not about chgnet-0.3.0, or not only", ""),
        ("  baseline.peer   held     strength: yes  one case, about CGCNN", "green"),
        ("", ""),
        (
            "case                         observed  95 % interval   bound           verdict        "
            "             coverage",
            "",
        ),
        (
            "zero-shot.good[self] fold0   0.05      0.04 to 0.0601  < 0.11 eV/atom  held           "
            "             1,234 of 2,468 (50%)",
            "green",
        ),
        (
            "zero-shot.good[refit] fold0  0.05      0.04 to 0.0601  < 0.11 eV/atom  refuted "
            "(documented: held)  1,234 of 2,468 (50%)",
            "red",
        ),
        (
            "physics.law                  0.05      exact           < 0.11 eV/atom  held           "
            "             1,234 of 2,468 (50%)",
            "green",
        ),
        (
            "physics.bad                  0.05      exact           < 0.11 eV/atom  refuted        "
            "             1,234 of 2,468 (50%)",
            "red",
        ),
        (
            "soft.a[x]                    0.05      0.04 to 0.0601  < 0.11 eV/atom  held           "
            "             1,234 of 2,468 (50%)",
            "red",
        ),
        (
            "soft.a[y]                    0.05      0.04 to 0.0601  < 0.11 eV/atom  held ≠         "
            "             1,234 of 2,468 (50%)",
            "red",
        ),
        ("not about chgnet-0.3.0", ""),
        (
            "baseline.peer (CGCNN)        0.05      0.04 to 0.0601  < 0.11 eV/atom  held           "
            "             1,234 of 2,468 (50%)",
            "green",
        ),
        ("toy.morse (toy)              0.05      0.04 to 0.0601  < 0.11 eV/atom  held", "green"),
        ("not run: no data", "yellow"),
        ("    zero-shot.other", ""),
        ("refuted: a counterexample", "red"),
        ("    physics.bad", ""),
        (
            "controls: 1 of 2 planted faults caught, 1 not run; 0 of 2 within 50 % of the bound or "
            "twice the resolution",
            "red",
        ),
        (
            "  NOT CAUGHT 'too small': zero-shot.good: held:  = 0.2 [0.04, 0.0601] eV/atom, bound "
            "< 0.11, 1234 of 2468 rows, chgnet-0.3.0 on embedded",
            "red",
        ),
        (
            "chance: 4 verdicts at 95 %, of which 0.1 would come out by chance if every truth lay "
            "on its bound. 1 of 3",
            "",
        ),
        (
            "    findings do not stand among all of them at once (Holm, marked ≠): soft.a[y]",
            "",
        ),
        ("changed: zero-shot.good[refit] fold0: documented held, now refuted", "red"),
        (
            "INCOMPLETE: the budget of 5 minutes was spent; 2 checks not reached; go on with: "
            "pytest checks/",
            "red",
        ),
    ]


@pytest.mark.parametrize(
    ("meaning", "verdict", "says", "colour"),
    [
        (Meaning.STRENGTH, Verdict.HELD, "strength: yes", "green"),
        (Meaning.STRENGTH, Verdict.REFUTED, "strength: no", "red"),
        (Meaning.STRENGTH, Verdict.INCONCLUSIVE, "strength: open", "yellow"),
        (Meaning.STRENGTH, Verdict.PLACEHOLDER, "strength: open", "red"),
        (Meaning.WEAKNESS, Verdict.HELD, "weakness: yes", "red"),
        (Meaning.WEAKNESS, Verdict.REFUTED, "weakness: no", "green"),
        (Meaning.WEAKNESS, Verdict.INCONCLUSIVE, "weakness: open", "yellow"),
        (Meaning.NEUTRAL, Verdict.HELD, "neutral", ""),
        (Meaning.NEUTRAL, Verdict.REFUTED, "neutral", ""),
        (Meaning.NEUTRAL, Verdict.INCONCLUSIVE, "neutral", "yellow"),
    ],
)
def test_a_verdict_says_what_it_means_for_the_model(meaning, verdict, says, colour):
    found = lines(record("a.b", verdict, meaning=meaning))
    sentence, case = [line for line in found if "a.b" in line[0]]
    assert f"  {says}  " in sentence[0]
    assert sentence[1] == case[1] == colour


@pytest.mark.parametrize(
    ("kind", "verdict", "colour"),
    [
        (Kind.INTEGRITY, Verdict.REFUTED, "red"),
        (Kind.INTEGRITY, Verdict.INCONCLUSIVE, "yellow"),
        (Kind.TOY, Verdict.HELD, "green"),
        (Kind.TOY, Verdict.REFUTED, "red"),
    ],
)
def test_other_kinds_are_good_where_they_hold(kind, verdict, colour):
    found = [line for line in lines(record("a.b", verdict, kind=kind)) if "a.b" in line[0]]
    assert [line[1] for line in found[:2]] == [colour, colour]
    assert f"  {kind}  " in found[0][0]


def test_groups_that_are_empty_have_no_heading():
    found = words(record("a.b"))
    assert found[1] == "findings"
    assert not {"weaknesses", "toys", f"not about {MODEL}"} & set(found)
    assert not any("integrity" in line for line in found)


def test_integrity_that_was_not_run_is_named_and_not_held():
    other = {"kind": Kind.INTEGRITY}
    found = words(
        record("a.held", **other), record("a.open", Verdict.NOT_RUN, **other), record("b.good")
    )
    at = found.index("integrity: 1 of 2 held")
    assert found[at + 1] == "  not run, see below: a.open"


def test_a_session_in_which_nothing_ran_has_its_headings_and_reasons():
    assert words(record("a.b", Verdict.NOT_RUN)) == [
        "sentence  verdict  it says  of its cases",
        "findings",
        "  not run, see below: a.b",
        "",
        "case  observed  95 % interval  bound  verdict  coverage",
        "not run: no data",
        "    a.b",
        "controls: 0 of 0 planted faults caught; 0 of 0 within 50 % of the bound or twice the "
        "resolution",
    ]


def test_cases_that_were_not_chosen_are_counted():
    found = words(record("a.b", case="x", fold=1), left_out=("a.b[y] fold1", "a.b[z] fold2"))
    assert "held 1, not chosen 1 of 2 cases (rule: every case)" in found[2]
    assert "  strength: open  " in found[2]


def test_a_rule_and_folds_are_said():
    found = words(
        *(record("a.b", case=c, fold=k, cases="any") for c in "xy" for k in (0, 1)),
        record("a.c", case="x", cases=2),
        record("a.c", Verdict.REFUTED, case="y", cases=2),
        record("a.c", Verdict.NOT_RUN, case="z", cases=2),
    )
    assert found[2].endswith("held 4 of 4 cases (rule: any case, in each of 2 folds)")
    assert found[3].endswith("held 1, refuted 1, not run 1 of 3 cases (rule: at least 2 cases)")


def test_a_sentence_about_the_model_and_others_names_each_with_its_own():
    found = words(
        record("a.b", Verdict.REFUTED, case="x"),
        record("a.b", case="y", subject="MLP"),
        record("a.b", Verdict.NOT_RUN, case="z", subject="not known"),
    )
    assert found[1] == f"not about {MODEL}, or not only"
    assert found[2].endswith(f"{MODEL}: refuted 1; MLP: held 1 of 3 cases (rule: every case)")
    cases = found[found.index("") + 1 :]
    assert cases[1].startswith("a.b[x]  ")
    assert cases[2] == f"not about {MODEL}"
    assert cases[3].startswith("a.b[y] (MLP)  ")


def test_what_was_not_run_stands_where_it_would():
    found = words(
        record("a.b", Verdict.NOT_RUN),
        record("record.x", Verdict.NOT_RUN, subject="matbench record"),
    )
    assert found[1:5] == [
        "findings",
        "  not run, see below: a.b",
        f"not about {MODEL}, or not only",
        "  not run, see below: record.x",
    ]


def test_what_broke_counts_as_about_the_model():
    found = words(record("a.b", case="x"), record("a.b", Verdict.NOT_RUN, case="y", subject=""))
    assert found[1] == "findings"


def test_exact_is_only_what_was_not_sampled():
    found = words(record("a.b", ci_low=0.05, ci_high=0.05), record("a.c", ci_method="exact"))
    assert "  0.05 to 0.05  " in next(line for line in found if line.startswith("a.b"))
    assert "  exact  " in next(line for line in found if line.startswith("a.c"))


def test_a_missing_file_changes_no_verdict_and_another_reason_does():
    found = words(
        record("a.file", Verdict.NOT_RUN, documented="held", lacks_data=True),
        record("a.broken", Verdict.NOT_RUN, documented="held", reason="no GPU"),
    )
    assert not any(line.startswith(("a.file", "changed: a.file")) for line in found)
    assert "changed: a.broken: documented held, now not run" in found
    (case,) = (line for line in found if line.startswith("a.broken"))
    assert case.split("  ")[-1] == "not run (documented: held)"


def test_what_is_known_on_other_data_only_is_new_and_not_changed():
    other = {"documented": "held", "documented_from": "a subset"}
    found = lines(record("a.b", Verdict.REFUTED, **other), record("a.c", **other))
    assert not any(line.startswith("changed") for line, _ in found)
    assert ("new: a.b: refuted, where held was expected from a subset", "yellow") in found
    assert not any("a.c" in line and "expected" in line for line, _ in found)
    (case,) = (line for line, _ in found if line.startswith("a.b"))
    assert "refuted (expected from a subset: held)" in case


def test_reasons_are_said_once_for_all_they_hold_for():
    found = words(
        *(record("a.b", Verdict.NOT_RUN, case=c, reason="no file") for c in "xy"),
        record("a.c", Verdict.INCONCLUSIVE, reason="one crystal decides"),
        record("a.d", Verdict.INCONCLUSIVE, reason="no file"),
    )
    at = found.index("not run: no file")
    assert found[at : at + 6] == [
        "not run: no file",
        "    a.b[x], a.b[y]",
        "inconclusive: one crystal decides",
        "    a.c",
        "inconclusive: no file",
        "    a.d",
    ]


def control(**more: Any) -> Evidence:
    given = {"control": True, "fault": "x", "bound_high": 1.0, "ci_low": 0.0, "ci_high": 9.0}
    return record("a.b", Verdict.REFUTED, **given | more)


@pytest.mark.parametrize(
    ("control", "near"),
    [
        (control(observed=1.5), True),
        (control(observed=1.51), False),
        (control(observed=0.5), True),
        (control(observed=1.51, resolution=0.255), True),  # exactly twice
        (control(observed=1.51, resolution=0.2549), False),
        (control(observed=1.4, resolution=0.01), True),
        (control(observed=1.0, severity=1.5), True),  # a share of cases has its severity
        (control(observed=1.0, severity=1.51), False),
        (control(observed=0.3, bound_high=0.0), False),  # a bound at zero has no scale
        (control(observed=0.3, bound_high=0.0, resolution=0.2), True),
        (control(observed=1.25, bound_low=0.5), False),  # half of the window is 0.25
        (control(observed=1.125, bound_low=0.5), True),
        (control(observed=1.126, bound_low=0.75), False),
    ],
)
def test_a_fault_is_near_by_margins_or_by_resolutions(control, near):
    assert overview.is_near(control) is near


def test_controls_that_were_caught_are_green_and_their_distance_is_counted():
    near, far = control(observed=1.4), control(observed=8.0)
    placeholder = record("a.b", Verdict.PLACEHOLDER, control=True, fault="y", observed=0.0)
    found = lines(record("a.b"), near, far, placeholder)
    assert found[-1] == (
        "controls: 3 of 3 planted faults caught; 1 of 3 within 50 % of the bound or twice the "
        "resolution",
        "green",
    )


@pytest.mark.parametrize(
    ("summary", "says"),
    [
        ({}, ""),
        ({"decided": 0, "by_chance": 0.0, "findings": 0, "not_surviving": []}, ""),
        (
            {"decided": 1, "by_chance": 0.025, "findings": 0, "not_surviving": []},
            "1 verdict at 95 %, of which 0.025 would come out by chance if every truth lay on its "
            "bound. None is on a finding",
        ),
        (
            {"decided": 60, "by_chance": 1.5, "findings": 40, "not_surviving": []},
            "60 verdicts at 95 %, of which 1.5 would come out by chance if every truth lay on its "
            "bound. All 40 findings stand among all of them at once (Holm)",
        ),
        (
            {"decided": 60, "by_chance": 1.5, "findings": 40, "not_surviving": ["a", "b"]},
            "60 verdicts at 95 %, of which 1.5 would come out by chance if every truth lay on its "
            "bound. 2 of 40 findings do not stand among all of them at once (Holm, marked ≠): a, b",
        ),
    ],
)
def test_chance_in_words(summary, says):
    assert overview.chances(summary) == says
    assert any(line.startswith("chance:") for line in words(record("a.b"))) is False
    found = " ".join(line.strip() for line in words(record("a.b"), multiplicity=summary))
    assert (f"chance: {says}" in found) is bool(says)


def test_keys_stay_whole_where_lines_are_wrapped():
    keys = [f"claim-{'x' * n}.of-some-thing[case-{n}]" for n in (30, 40, 50, 120)]
    found = words(*(record(key, Verdict.NOT_RUN) for key in keys))
    at = found.index("not run: no data")
    assert found[at + 1 : at + 4] == [
        f"    {keys[0]},",
        f"    {keys[1]},",
        f"    {keys[2]},",
    ]
    assert found[at + 4] == f"    {keys[3]}"
    assert found[2].startswith(f"  not run, see below: {keys[0]}")


def test_only_what_is_below_holm_is_marked():
    found = words(record("a.b", survives_holm=True), record("a.c", survives_holm=None))
    assert not any("≠" in line for line in found)


@pytest.mark.parametrize(
    ("info", "last"),
    [
        (
            {"incomplete_reason": "interrupted", "not_reached": ["a"], "resume": "pytest x"},
            "INCOMPLETE: interrupted; 1 check not reached; go on with: pytest x",
        ),
        (
            {"incomplete_reason": "interrupted", "not_reached": ["a", "b"], "resume": ""},
            "INCOMPLETE: interrupted; 2 checks not reached",
        ),
        ({}, "INCOMPLETE: for no known reason; 0 checks not reached"),
    ],
)
def test_the_last_line_says_that_a_session_is_not_whole(info, last):
    assert lines(record("a.b"), complete=False, **info)[-1] == (last, "red")


def test_a_whole_session_says_nothing_of_that():
    assert not any("INCOMPLETE" in line for line in words(record("a.b"), complete=True))
    assert not any("INCOMPLETE" in line for line in words(record("a.b", size=Size.NIGHTLY)))
