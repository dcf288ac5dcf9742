"""The claims machinery, end to end: small check files run by pytest itself."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np  # noqa: F401 (cannot be imported twice, as the sessions inside would)
import pytest
import scipy.stats  # noqa: F401
from junitparser.xunit2 import JUnitXml

from harness.evidence import Evidence, Session
from harness.report import page, recorder

pytest_plugins = ["pytester"]

# each session inside would import hypothesis anew
PLAIN = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest")

CONFTEST = """
import pytest
from harness.claims import Size
from harness.report.recorder import Context, start_recording
from harness.report.verdicts import load_documented

pytest_plugins = ["harness.report.plugin"]

def pytest_configure(config):
    path = config.rootpath / "verdicts.toml"
    known = load_documented(*([path] if path.exists() else []), *config.getoption("--documented"))
    context = Context(
        dataset="d",
        dataset_reason="a test",
        model="m",
        device="cpu",
        size=Size(config.getoption("--size")),
        sample=int(config.getini("sample") or 0) or None,
    )
    start_recording(config, context, known)

def pytest_addoption(parser):
    parser.addini("sample", "as --sample", default="")
"""

HEAD = """
import pytest
from harness.claims import Interval, Kind, Meaning, Measurement, below
from harness.errors import CannotResolve, DataAbsent, DataError, NotAvailable

STRONG = {"kind": Kind.FINDING, "meaning": Meaning.STRENGTH}

def measured(value, half=0.0, placeholder="", **changes):
    interval = Interval(estimate=value, low=value - half, high=value + half, n=9, n_clusters=8)
    given = dict(quantity="MAE", interval=interval, scored=9, of=10, dataset="d", model="m",
                 excluded={"isolated": 1}, inputs={"f": "ab"}, details={"k": ["<&>", 1.5]},
                 placeholder=placeholder)
    return Measurement(**{**given, **changes})

claim = pytest.mark.claim(id="c", statement="The MAE is below 1.", basis="a note",
                          bound=below(1.0, "eV/atom", "a test"), **STRONG)
control = pytest.mark.control(of="c", fault="a planted one")
"""


@pytest.fixture
def session(pytester, monkeypatch):
    """Run check code; return pytest's result and the session it left."""

    def run(code, *options, known="", draw=False, apart=False, late=""):
        if not draw:  # the page takes longer than all else, and has tests of its own
            monkeypatch.setattr(page, "write_page", lambda folder: folder / "report.html")
        pytester.makeini("[pytest]\njunit_family = xunit1\n")
        pytester.makeconftest(CONFTEST)
        if known:
            (pytester.path / "verdicts.toml").write_text(known)
        pytester.makepyfile(HEAD + code)
        if late:  # a plugin of somebody else's
            (pytester.path / "late.py").write_text(late)
            monkeypatch.syspath_prepend(str(pytester.path))
            monkeypatch.setenv("PYTHONPATH", str(pytester.path))
        # an interruption inside would be one of the session outside
        go = pytester.runpytest_subprocess if apart else pytester.runpytest_inprocess
        result = go("--report", "out", *PLAIN, *options)
        out = pytester.path / "out"
        found = Session.load(out) if (out / "evidence.json").exists() else None
        return result, found, out

    return run


HELD = "\n@claim\ndef test_held(evidence):\n    assert evidence(measured(0.5, 0.1)).held\n"
REFUTED = "\n@claim\ndef test_refuted(evidence):\n    assert evidence(measured(1.5, 0.1)).held\n"
CONTROL = "\n@control\ndef test_control(evidence):\n    assert evidence(measured(1.2)).refuted\n"


def test_a_held_claim_and_a_caught_fault_pass_and_leave_reports(session):
    result, found, out = session(HELD + CONTROL, draw=True)
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*verdicts: m on d*", "c *0.4 to 0.6*held*9 of 10 (90%)*"])
    result.stdout.fnmatch_lines(["controls: 1 of 1 planted faults caught*"])
    assert [(e.verdict, e.control) for e in found.claims] == [("held", False), ("refuted", True)]
    assert (out / "report.html").exists()


def test_junit_carries_every_field_of_the_evidence(session):
    _, found, out = session(HELD + CONTROL)
    read = []
    for case in next(iter(JUnitXml.fromfile(str(out / "junit.xml")))):
        values = {
            p.name.removeprefix("evidence."): json.loads(p.value)
            for p in case.properties()
            if p.name.startswith("evidence.")
        }
        read.append(Evidence.from_dict(values))
    assert read == list(found.claims)


def test_a_refuted_claim_fails_with_its_numbers(session):
    result, found, _ = session(REFUTED)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*MAE = 1.5 [[]1.4, 1.6] eV/atom, bound < 1*"])
    assert found.claims[0].refuted


def test_an_interval_across_the_bound_is_skipped_and_fails_under_strict(session):
    code = "\n@claim\ndef test_it(evidence):\n    assert evidence(measured(1.0, 0.1)).held\n"
    result, found, _ = session(code, "-rs")
    result.assert_outcomes(skipped=1)
    assert found.claims[0].verdict == "inconclusive"
    session(code, "--strict")[0].assert_outcomes(failed=1)


def test_what_is_not_available_is_not_run_with_its_reason(session):
    code = """
@pytest.fixture
def data():
    raise NotAvailable("no data: run this command")

@claim
def test_it(data, evidence):
    assert evidence(measured(0.5)).held
"""
    result, found, _ = session(code)
    result.assert_outcomes(skipped=1)
    assert found.claims[0].verdict == "not run"
    assert found.claims[0].reason == "no data: run this command"
    session(code, "--strict")[0].assert_outcomes(errors=1)


def test_a_broken_harness_is_an_error_and_never_a_refuted_claim(session):
    code = "\n@claim\ndef test_it(evidence):\n    raise DataError('row 3 is bad')\n"
    result, found, out = session(code)
    result.assert_outcomes(errors=1)
    assert found.claims[0].verdict == "not run"
    assert "row 3 is bad" in found.errors[0]["message"]
    suite = next(iter(JUnitXml.fromfile(str(out / "junit.xml"))))
    assert (suite.errors, suite.failures) == (1, 0)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("pass", "without evidence"),
        ("evidence(measured(0.5)); evidence(measured(0.5))", "left evidence twice"),
    ],
)
def test_a_check_leaves_evidence_exactly_once(session, body, says):
    result, _, _ = session(f"\n@claim\ndef test_it(evidence):\n    {body}\n")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([f"*{says}*"])


@pytest.mark.parametrize(
    "code",
    [
        "\n@claim\ndef test_it(evidence):\n    evidence(measured(1.5))\n",
        HELD + "\n@control\ndef test_c(evidence):\n    evidence(measured(0.5))\n",
    ],
    ids=["claim", "control"],
)
def test_a_forgotten_assert_does_not_turn_red_into_green(session, code):
    assert session(code)[0].parseoutcomes().get("failed") == 1


def test_a_control_that_is_not_caught_fails_loudly(session):
    code = HELD + "\n@control\ndef test_c(evidence):\n    assert evidence(measured(0.9)).refuted\n"
    result, _, _ = session(code)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*NOT CAUGHT 'a planted one'*"])


def test_a_placeholder_fails_a_claim_and_satisfies_a_control(session):
    claim = """
@claim
def test_lever(evidence):
    assert evidence(measured(0.5, placeholder="never applied")).held
"""
    control = """
@control
def test_unwired_lever(evidence):
    assert evidence(measured(0.5, placeholder="never applied")).placeholder
"""
    result, found, _ = session(claim + control)
    result.assert_outcomes(passed=1, failed=1)
    assert {e.verdict for e in found.claims} == {"placeholder"}


KNOWN = '[m.d]\n"c" = {verdict = "refuted", reason = "the note was wrong"}\n'


def test_a_known_refutation_is_shown_and_does_not_fail_the_session(session):
    result, found, _ = session(REFUTED, known=KNOWN)
    result.assert_outcomes(xfailed=1)
    assert result.ret == 0
    assert found.claims[0].reason == "the note was wrong"


def test_a_known_refutation_that_is_held_fails_the_session_at_its_end(session):
    result, found, _ = session(HELD, known=KNOWN)
    result.assert_outcomes(passed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert result.outlines[-1].startswith("CHANGED: 1 verdict is not the documented one: c: refut")
    assert found.claims[0].documented == "refuted"


def test_a_control_of_an_unknown_claim_is_refused_before_any_work(session):
    result, _, _ = session(CONTROL)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*is a control of 'c', which was not collected*"])


def test_a_fold_check_exists_five_times_and_is_chosen_by_its_mark(session):
    code = """
@claim
def test_it(fold_number, evidence):
    assert evidence(measured(0.5)).held
"""
    result, found, _ = session(code, "-m", "fold3 or fold0")
    result.assert_outcomes(passed=2, deselected=3)
    assert [e.key for e in found.claims] == ["c fold0", "c fold3"]


def test_latest_points_at_the_last_session(session, pytester):
    session(HELD, "--report", "reports/one")
    session(HELD, "--report", "reports/two")
    assert Path(pytester.path / "reports/latest").resolve().name == "two"


# --- verdicts that are documented


def known(verdict, **more):
    entry = ", ".join(f'{k} = "{v}"' for k, v in {"verdict": verdict, **more}.items())
    return f'[m.d]\n"c" = {{ {entry} }}\n'


STRADDLES = "\n@claim\ndef test_it(evidence):\n    assert evidence(measured(1.0, 0.1)).held\n"
UNWIRED = """
@claim
def test_it(evidence):
    assert evidence(measured(0.5, placeholder="never applied")).held
"""
ABSENT = "\n@claim\ndef test_it(evidence):\n    raise NotAvailable('no forces here')\n"
NO_FILE = "\n@claim\ndef test_it(evidence):\n    raise DataAbsent('fetch it')\n"
OUTCOMES = {
    "held": HELD,
    "refuted": REFUTED,
    "inconclusive": STRADDLES,
    "placeholder": UNWIRED,
    "not run": ABSENT,
}


@pytest.mark.parametrize("found", OUTCOMES)
@pytest.mark.parametrize("documented", OUTCOMES)
def test_a_documented_verdict_that_changes_in_any_direction_fails_the_session(
    session, found, documented
):
    result, left, _ = session(OUTCOMES[found], known=known(documented, reason="it is known"))
    outcome = result.parseoutcomes()
    if found == documented:
        assert result.ret == pytest.ExitCode.OK
        assert not any("CHANGED" in line for line in result.outlines)
    else:
        assert result.ret == pytest.ExitCode.TESTS_FAILED
        changed = f"CHANGED: 1 verdict is not the documented one: c: {documented} -> {found}"
        assert result.outlines[-1] == changed
        assert left.claims[0].changed
    expected = {
        "held": "passed",
        "refuted": "xfailed" if found == documented else "failed",
        "placeholder": "xfailed" if found == documented else "failed",
    }
    assert outcome == {expected.get(found, "skipped"): 1}


@pytest.mark.parametrize("found", OUTCOMES)
def test_strict_fails_what_is_not_documented_so_and_passes_what_is(session, found):
    documented = known(found, reason="it is known")
    assert session(OUTCOMES[found], "--strict", known=documented)[0].ret == pytest.ExitCode.OK
    other = known("held" if found != "held" else "refuted", reason="it is known")
    assert session(OUTCOMES[found], "--strict", known=other)[0].parseoutcomes() == {"failed": 1}


def test_a_file_that_is_not_here_changes_no_verdict(session):
    result, found, _ = session(NO_FILE, known=known("held"))
    result.assert_outcomes(skipped=1)
    assert result.ret == pytest.ExitCode.OK
    assert found.claims[0].lacks_data
    assert session(NO_FILE, "--strict", known=known("held"))[0].parseoutcomes() == {"failed": 1}


def test_what_is_known_on_other_data_is_expected_and_its_change_is_new(session):
    text = '[expected]\n"d" = "part of d"\n[m."part of d"]\n"c" = "held"\n'
    for code, outcome in ((STRADDLES, "skipped"), (REFUTED, "xfailed")):
        result, found, _ = session(code, known=text)
        assert result.ret == pytest.ExitCode.OK
        assert result.parseoutcomes() == {outcome: 1}
        expected = (found.claims[0].documented, found.claims[0].documented_from)
        assert expected == ("held", "part of d")
        result.stdout.fnmatch_lines(["new: c: *where held was expected from part of d"])
        assert session(code, "--strict", known=text)[0].parseoutcomes() == {"failed": 1}
    text = text.replace('"held"', '{ verdict = "refuted", reason = "of part" }')
    result, found, _ = session(REFUTED, known=text)
    result.assert_outcomes(xfailed=1)
    assert result.ret == pytest.ExitCode.OK


def test_a_verdict_is_documented_under_the_size_it_was_measured_at(session):
    text = '[m.d]\n"c" = { quick = "inconclusive", nightly = "held", reason = "few rows" }\n'
    assert session(STRADDLES, known=text)[0].ret == pytest.ExitCode.OK
    result, found, _ = session(STRADDLES, "--size", "nightly", known=text)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert found.claims[0].size == "nightly"
    assert found.session["size"] == "nightly"


def test_a_sample_keeps_what_it_does_not_touch(session, pytester):
    touched = REFUTED.replace("0.1)", "0.1, of=12, absent={'left out by --sample': 2})")
    assert session(REFUTED, "-o", "sample=100", known=KNOWN)[0].parseoutcomes() == {"xfailed": 1}
    result, found, _ = session(touched, "-o", "sample=100", known=KNOWN)
    assert result.parseoutcomes() == {"failed": 1}
    assert found.claims[0].documented == ""


def test_a_file_of_ones_own_is_known_beside_and_overrides(session, pytester):
    mine = pytester.path / "mine.toml"
    mine.write_text(known("inconclusive", reason="mine"))
    result, found, _ = session(STRADDLES, "--documented", str(mine), known=KNOWN)
    assert result.ret == pytest.ExitCode.OK
    assert found.claims[0].reason == "mine"


def test_the_numbers_of_a_reason_are_the_records_own(session):
    reason = "mostly {details.k}, {details.n:.2f} of it"
    code = REFUTED.replace("measured(1.5, 0.1)", "measured(1.5, 0.1), n=1.234")
    _, found, _ = session(code, known=known("refuted", reason=reason))
    assert found.claims[0].reason == "mostly <&>, 1.5, 1.23 of it"
    result, _, _ = session(REFUTED, known=known("refuted", reason=reason))
    result.stdout.fnmatch_lines(["*names what the record's details lack*"])


# --- controls


def test_a_control_can_be_run_alone_by_its_node_id(session, pytester):
    pytester.makepyfile(test_two=HEAD + HELD + CONTROL)
    result, found, _ = session("", "test_two.py::test_control")
    result.assert_outcomes(passed=1)
    assert [(e.id, e.control) for e in found.claims] == [("c", True)]


@pytest.mark.parametrize("half", [0.0, 0.09, 0.5])
def test_an_inconclusive_control_is_not_caught_even_without_an_assert(session, half):
    code = HELD + f"\n@control\ndef test_c(evidence):\n    evidence(measured(1.1, {half}))\n"
    outcome = session(code)[0].parseoutcomes()
    assert outcome == ({"passed": 2} if half < 0.1 else {"passed": 1, "failed": 1})


def test_a_fault_is_grown_until_the_claims_own_bound_is_missed_by_what_n_resolves(session):
    code = (
        HELD
        + """
@control
def test_c(evidence):
    assert evidence.planted(lambda f: measured(f, 0.2), 0.1, 50).refuted
"""
    )
    _, found, _ = session(code)
    grown = found.claims[1]
    # 0.84 of 1.96 standard errors past the point where the interval leaves the bound
    assert 1.2 + 0.2 * 0.84 / 1.96 <= grown.observed <= 1.2 + 0.2 * (0.84 / 1.96 + 0.05)
    assert grown.details["size_of_fault"] == grown.observed


def test_rows_that_resolve_nothing_make_a_control_not_run(session):
    code = (
        HELD
        + """
@control
def test_c(evidence):
    assert evidence.planted(lambda f: measured(f, 9.0), 0.1, 5).refuted
"""
    )
    result, found, _ = session(code)
    result.assert_outcomes(passed=1, skipped=1)
    assert "cannot tell a fault of size 5" in found.claims[1].reason


def test_the_figure_of_a_control_does_not_replace_its_claims(session):
    code = """
class Drawn:
    def __init__(self, words): self.words = words
    def to_json(self, engine): return '{"layout": {"title": {"text": "%s"}}}' % self.words

@claim
def test_a(evidence):
    evidence.figure("f", Drawn("right"))
    assert evidence(measured(0.5)).held

@control
def test_b(evidence):
    evidence.figure("f", Drawn("planted"))
    assert evidence(measured(1.2)).refuted
"""
    _, found, out = session(code)
    texts = [(out / e.figures[0]).read_text() for e in found.claims]
    assert ["right" in texts[0], "planted" in texts[1]] == [True, True]


# --- whole, or said not to be

TWO = """
@claim
def test_a(evidence):
    assert evidence(measured(1.5)).held

@pytest.mark.claim(id="c2", statement="s", basis="b", bound=below(1.0, "eV", "a test"), **STRONG)
def test_b(evidence):
    {body}
    assert evidence(measured(0.5)).held
"""


def test_a_whole_session_says_so(session):
    _, found, out = session(TWO.format(body="pass"))
    assert (found.complete, found.session["not_reached"]) == (True, [])
    properties = JUnitXml.fromfile(str(out / "junit.xml"))
    said = {p.name: p.value for suite in properties for p in suite.properties()}
    assert said["complete"] == "true"
    assert (said["sentence.c"], said["sentence.c2"]) == ("refuted", "held")


@pytest.mark.parametrize(
    ("options", "body", "reason"),
    [
        (["-x"], "pass", "stopping after 1 failures"),
        (["--maxfail=1"], "pass", "stopping after 1 failures"),
        ([], "raise KeyboardInterrupt", "interrupted"),
        ([], "import os, signal; os.kill(os.getpid(), signal.SIGTERM)", "stopped by SIGTERM"),
        ([], "raise MemoryError('at once')", "out of memory in"),
        ([], "raise RuntimeError('CUDA out of memory. Tried...')", "out of memory in"),
    ],
    ids=["x", "maxfail", "ctrl-c", "sigterm", "memory", "gpu-memory"],
)
def test_a_session_that_was_cut_says_why_and_what_is_left(session, options, body, reason):
    late = TWO.format(body=body).replace("test_b", "test_z") + (
        '\n@pytest.mark.claim(id="c3", statement="s", basis="b", '
        'bound=below(1.0, "eV", "a test"), **STRONG)\n'
        "def test_zz(evidence):\n    assert evidence(measured(0.5)).held\n"
    )
    result, found, _ = session(late, *options, apart="os.kill" in body or "Keyboard" in body)
    assert not found.complete
    assert reason in found.session["incomplete_reason"]
    assert "c3" in found.session["not_reached"]
    assert re.match(r"pytest .*--report out ", found.session["resume"])
    assert any(line.startswith("INCOMPLETE: ") and reason in line for line in result.outlines)


def test_a_spent_budget_leaves_the_rest_not_run_and_says_so(session, monkeypatch):
    # every check takes 50 seconds
    monkeypatch.setattr(
        recorder.Recorder, "elapsed_seconds", lambda self: 50.0 * len(self.evidence)
    )
    result, found, _ = session(TWO.format(body="pass"), "--budget", "0.8")
    result.assert_outcomes(failed=1, skipped=1)
    assert found.claims[1].reason == "the budget of 0.8 minutes was spent before this check"
    assert found.session["incomplete_reason"] == "the budget of 0.8 minutes was spent"
    assert found.session["not_reached"] == ["c2"]
    assert session(TWO.format(body="pass"), "--budget", "0.9")[1].complete


@pytest.mark.parametrize("minutes", ["0", "-1", "nan", "inf"])
def test_a_budget_that_is_none_is_refused(session, minutes):
    result, _, _ = session(HELD, "--budget", minutes)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*give minutes above 0*"])


def test_cases_left_out_keep_a_sentence_from_being_held(session):
    code = """
@pytest.mark.parametrize("case", ["a", "b"])
@claim
def test_it(evidence, case):
    assert evidence(measured(0.5)).held
"""
    assert session(code)[1].sentences[0].verdict == "held"
    (made,) = session(code, "-k", "test_it and not b]")[1].sentences
    assert (made.verdict, made.left_out) == ("inconclusive", ("c[b]",))


def test_two_processes_leave_the_records_of_one(pytester, session):
    pytest.importorskip("xdist")
    files = {
        f"test_{k}": HEAD.replace('id="c"', f'id="c{k}"').replace('of="c"', f'of="c{k}"')
        + HELD
        + CONTROL
        for k in range(4)
    }
    pytester.makepyfile(**files)
    alone = session("", "--report", "alone")[1] or Session.load(pytester.path / "alone")
    pytester.runpytest_subprocess("--report", "together", "-n", "2", "-p", "no:cacheprovider")
    together = Session.load(pytester.path / "together")

    def timeless(found):
        return [replace(e, seconds=0.0) for e in found.claims]

    assert len(alone.claims) == 8
    assert timeless(together) == timeless(alone)
    assert together.complete
    assert (pytester.path / "together" / "junit.xml").exists()
