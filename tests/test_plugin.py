"""The claims machinery, end to end: small check files run by pytest itself."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np  # noqa: F401 (cannot be imported twice, as the sessions inside would)
import pytest
import scipy.stats  # noqa: F401
from junitparser.xunit2 import JUnitXml

from harness.evidence import Evidence, Session
from harness.report import page, recorder  # noqa: F401 (loaded once, not in every session inside)

pytest_plugins = ["pytester"]

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
        sample=config.getini("sample") or None,
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
def session(pytester):
    """Run check code; return pytest's result and the session it left."""

    def run(code, *options, known=""):
        pytester.makeini("[pytest]\njunit_family = xunit1\n")
        pytester.makeconftest(CONFTEST)
        if known:
            (pytester.path / "verdicts.toml").write_text(known)
        pytester.makepyfile(HEAD + code)
        result = pytester.runpytest_inprocess("--report", "out", "-p", "no:cacheprovider", *options)
        out = pytester.path / "out"
        found = Session.load(out) if (out / "evidence.json").exists() else None
        return result, found, out

    return run


HELD = "\n@claim\ndef test_held(evidence):\n    assert evidence(measured(0.5, 0.1)).held\n"
REFUTED = "\n@claim\ndef test_refuted(evidence):\n    assert evidence(measured(1.5, 0.1)).held\n"
CONTROL = "\n@control\ndef test_control(evidence):\n    assert evidence(measured(1.2)).refuted\n"


def test_a_held_claim_and_a_caught_fault_pass_and_leave_reports(session):
    result, found, out = session(HELD + CONTROL)
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
    # what many verdicts come to is known at the end only
    assert read == [replace(e, chance=None, survives_holm=None) for e in found.claims]


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


def test_a_spent_budget_leaves_the_rest_not_run(session):
    slow = """
import time

@claim
def test_a(evidence):
    time.sleep(0.2)
    assert evidence(measured(0.5)).held
"""
    late = """
@pytest.mark.claim(id="c2", statement="s", basis="b", bound=below(1.0, "eV", "a test"), **STRONG)
def test_b(evidence):
    assert evidence(measured(0.5)).held
"""
    result, found, _ = session(slow + late, "--budget", "0.002")
    result.assert_outcomes(passed=1, skipped=1)
    assert "budget" in found.claims[1].reason


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
