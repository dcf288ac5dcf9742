"""`junit.xml` from what a session told its journal: every check, its outcome, and its record.

The fields of a record are properties of its case, each as JSON; what the session says of itself are
properties of the suite.

Public: junit.
"""

from __future__ import annotations

import json
from xml.etree import ElementTree as ET

from harness.evidence import Evidence, Session
from harness.report.journal import Outcome, Told

_SAID = ("dataset", "dataset_reason", "model", "device", "size", "complete", "incomplete_reason")
_ELEMENTS = {"failed": "failure", "error": "error", "skipped": "skipped"}


def junit(told: Told, session: Session) -> str:
    """The file's text; the same for the same session."""
    records = {record.test: record for record in session.claims}
    errors = {error["test"]: error["message"] for error in session.errors}
    by_test: dict[str, list[Outcome]] = {}
    for outcome in told.outcomes:
        by_test.setdefault(outcome.test, []).append(outcome)
    found = [outcome.outcome for outcome in told.outcomes]
    suites = ET.Element("testsuites", name="pytest tests")
    suite = ET.SubElement(
        suites,
        "testsuite",
        name="pytest",
        tests=str(len(by_test)),
        failures=str(found.count("failed")),
        errors=str(found.count("error")),
        skipped=str(found.count("skipped")),
        time=f"{told.seconds:.3f}",
        timestamp=str(session.session.get("started", "")),
    )
    said = {name: _word(session.session.get(name, "")) for name in _SAID}
    said |= {f"sentence.{one.id}": str(one.verdict) for one in session.sentences}
    _properties(suite, said)
    for test, outcomes in by_test.items():
        classname, name = _address(test)
        seconds = sum(outcome.seconds for outcome in outcomes)
        case = ET.SubElement(suite, "testcase", classname=classname, name=name)
        case.set("time", f"{seconds:.3f}")
        properties = _fields(records[test]) if test in records else {}
        if test in errors:
            properties["harness.error"] = errors[test]
        _properties(case, properties)
        for outcome in outcomes:
            if outcome.outcome in _ELEMENTS:
                element = ET.SubElement(case, _ELEMENTS[outcome.outcome], message=outcome.message)
                element.text = outcome.text
    ET.indent(suites, " ")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ET.tostring(suites, encoding="unicode")}\n'


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _fields(record: Evidence) -> dict[str, str]:
    return {
        f"evidence.{name}": json.dumps(value, sort_keys=True, allow_nan=False, ensure_ascii=False)
        for name, value in record.as_dict().items()
    }


def _properties(parent: ET.Element, said: dict[str, str]) -> None:
    if said:
        properties = ET.SubElement(parent, "properties")
        for name, value in said.items():
            ET.SubElement(properties, "property", name=name, value=value)


def _address(test: str) -> tuple[str, str]:
    """`checks/test_a.py::test_b[c::d]` as pytest calls it: `checks.test_a` and `test_b[c::d]`."""
    path, bracket, case = test.partition("[")
    names = path.split("::")
    names[0] = names[0].removesuffix(".py").replace("/", ".")
    return ".".join(names[:-1]), f"{names[-1]}{bracket}{case}"
