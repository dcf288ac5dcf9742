"""The pytest side of the harness: claims and controls in, evidence and reports out.

A check is a test marked `claim`; its twin marked `control` plants one fault and must not be held at
the same bound, which it looks up by the claim's id and so cannot loosen. Both receive the fixture
`evidence`: call it with a measurement, assert on what comes back.

Hooks and the fixture `evidence` only; what a session remembers is in recorder.py.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Generator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from harness.claims import Claim, Measurement, Verdict
from harness.errors import ConfigError, NotAvailable
from harness.evidence import Evidence
from harness.report.environment import versions
from harness.report.recorder import RECORDER, Recorder
from harness.report.terminal import verdict_table

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

FOLDS = range(5)
MARKERS = (
    *(f"fold{k}: uses fold {k}; `-m fold0` is the quick session" for k in FOLDS),
    "nightly: all five folds and larger samples",
    "gpu: needs a GPU",
    "beside(dataset): measured in every session, but where this set is the one under test",
    "claim(id, statement, basis, bound, bounds_on): a falsifiable sentence and its bound",
    "control(of, fault): the same check on a subject with one planted fault; must not be held",
)


_CLAIM = pytest.StashKey[Claim]()
_STARTED = pytest.StashKey[float]()
_LEFT = pytest.StashKey[Evidence]()


class Witness:
    """The fixture `evidence` of one check: judges a measurement once and remembers it."""

    def __init__(self, item: pytest.Item, recorder: Recorder) -> None:
        self._item = item
        self._recorder = recorder
        self._figures: list[str] = []

    def __call__(self, measurement: Measurement, **details: object) -> Evidence:
        """Judge and record; further ``details`` (JSON-able) go into the record.

        Inconclusive ends a claim's check here, as skipped with its numbers.
        """
        measurement = replace(measurement, details={**measurement.details, **details})
        context = _context_of(self._item, self._recorder)
        claim = self._item.stash[_CLAIM]
        found = Evidence.of(claim, measurement, figures=self._figures, **context)
        known = self._recorder.documented.get(found.key)
        if not found.control and known is not None and known.verdict == found.verdict:
            found = replace(found, reason=found.reason or known.reason)
        _leave(self._item, self._recorder, found)
        if found.verdict == Verdict.INCONCLUSIVE and not found.control:
            _skip_or_fail(str(found), strict=self._recorder.strict)
        return found

    def figure(self, name: str, figure: Figure) -> None:
        """Keep a figure beside the evidence; the report shows it with the claim."""
        fold = _params(self._item).get("fold_number")
        stem = "-".join(
            part for part in (self._item.stash[_CLAIM].id, _case(self._item), name) if part
        )
        path = Path("figures") / f"{stem}{'' if fold is None else f'-fold{fold}'}.json"
        (self._recorder.folder / path.parent).mkdir(parents=True, exist_ok=True)
        text = figure.to_json(engine="json")
        (self._recorder.folder / path).write_text(str(text), encoding="utf-8")
        self._figures.append(path.as_posix())


@pytest.fixture
def evidence(request: pytest.FixtureRequest) -> Witness:
    """What a check calls with its measurement."""
    if _CLAIM not in request.node.stash:
        raise ConfigError(f"{request.node.nodeid} uses `evidence` but is no claim and no control")
    return Witness(request.node, request.config.stash[RECORDER])


@pytest.fixture(scope="session", autouse=True)
def _session_properties(request: pytest.FixtureRequest, record_testsuite_property: Any) -> None:
    """The data set is said loudly in junit.xml too."""
    if RECORDER in request.config.stash:
        context = request.config.stash[RECORDER].context
        record_testsuite_property("dataset", context.dataset)
        record_testsuite_property("dataset_reason", context.dataset_reason)
        record_testsuite_property("model", context.model)
        record_testsuite_property("device", context.device)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("validation harness")
    group.addoption(
        "--report",
        metavar="DIR",
        type=Path,
        help="folder for junit.xml, report.html and evidence.json (default: a new one under "
        "reports/; reports/latest points at the last)",
    )
    group.addoption(
        "--budget",
        metavar="MINUTES",
        type=float,
        help="start no check after this many minutes; those left are `not run` (default: no limit)",
    )
    # `--strict` is pytest's own; here it also makes inconclusive and not run failures.


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A check that asks for a fold exists five times, each marked with its fold and `nightly`."""
    if "fold_number" in metafunc.fixturenames:
        params = [
            pytest.param(
                k, id=f"fold{k}", marks=(getattr(pytest.mark, f"fold{k}"), pytest.mark.nightly)
            )
            for k in FOLDS
        ]
        metafunc.parametrize("fold_number", params, scope="session")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)
    if config.getoption("--budget") is not None and config.getoption("--budget") <= 0:
        raise pytest.UsageError(f"--budget={config.getoption('--budget')}: give minutes above 0")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tie every check to its claim, every control to the claim it is of; mark known findings."""
    claims: dict[str, Claim] = {}
    for item in items:
        if (marker := item.get_closest_marker("claim")) is not None:
            claim = Claim(**marker.kwargs)
            if claims.setdefault(claim.id, claim) != claim:
                raise pytest.UsageError(f"two different claims are called {claim.id!r}")
            item.stash[_CLAIM] = claim
    for item in items:
        if (marker := item.get_closest_marker("control")) is not None:
            of = marker.kwargs["of"]
            if of not in claims:
                raise pytest.UsageError(
                    f"{item.nodeid} is a control of {of!r}, which was not collected; collect the "
                    f"file that holds the claim too. Collected: {', '.join(sorted(claims))}"
                )
            item.stash[_CLAIM] = claims[of]
        elif _CLAIM in item.stash and RECORDER in config.stash:
            known = config.stash[RECORDER].documented.get(_key(item))
            if known is not None and known.verdict in (Verdict.REFUTED, Verdict.PLACEHOLDER):
                reason = f"known to be {known.verdict}: {known.reason}"
                item.add_marker(
                    pytest.mark.xfail(strict=True, raises=pytest.fail.Exception, reason=reason)
                )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None]:
    if _CLAIM not in item.stash:
        return (yield)
    item.stash[_STARTED] = time.perf_counter()
    recorder = item.config.stash[RECORDER]
    budget = recorder.budget_minutes
    try:
        if budget is not None and recorder.elapsed_seconds() > 60 * budget:
            raise NotAvailable(f"the budget of {budget:g} minutes was spent before this check")
        return (yield)
    except NotAvailable as error:
        _not_run(item, recorder, str(error))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    if _CLAIM not in item.stash:
        return (yield)
    try:
        yield
    except NotAvailable as error:
        _not_run(item, item.config.stash[RECORDER], str(error))
    except AssertionError:
        if not _contradicts(item):
            raise
    if _LEFT not in item.stash:
        raise ConfigError(f"{item.nodeid} ended without evidence: call evidence(measurement)")
    if _contradicts(item):
        # Also where the check forgot its assert: no test is greener than its numbers.
        found = item.stash[_LEFT]
        planted = f"; the planted fault {found.fault!r} was not caught" if found.control else ""
        raise pytest.fail.Exception(f"{found}{planted}", pytrace=False)


def _contradicts(item: pytest.Item) -> bool:
    """Whether the check left a verdict that must not pass."""
    found = item.stash.get(_LEFT, None)
    if found is None:
        return False
    return not (found.refuted or found.placeholder) if found.control else not found.held


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if _CLAIM not in item.stash or call.excinfo is None or not report.failed:
        return report
    error = call.excinfo.value
    if not isinstance(error, pytest.fail.Exception):
        recorder = item.config.stash[RECORDER]
        message = f"{type(error).__name__}: {error}"
        recorder.errors.append({"test": item.nodeid, "message": message})
        if _LEFT not in item.stash:
            reason = f"the harness broke: {message}"
            context = _context_of(item, recorder)
            _leave(item, recorder, Evidence.not_run(item.stash[_CLAIM], reason, **context))
        if report.when == "call":
            # pytest calls a raise in a test's body a failure; only a refuted claim is one. As a
            # set-up error it is counted, shown and written to junit.xml as an error.
            report.when = "setup"
    return report


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    recorder = session.config.stash.get(RECORDER, None)
    if recorder is not None and not session.config.option.collectonly:
        if recorder.evidence:
            recorder.write()
        elif not any(recorder.folder.iterdir()):
            recorder.folder.rmdir()


def pytest_report_header(config: pytest.Config) -> list[str]:
    if RECORDER not in config.stash:
        return []
    context = config.stash[RECORDER].context
    sample = "" if context.sample is None else f", at most {context.sample} rows a fold"
    return [
        f"data set: {context.dataset}{sample} ({context.dataset_reason})",
        f"model: {context.model} on {context.device}",
    ]


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    recorder = config.stash.get(RECORDER, None)
    if recorder is None or not recorder.evidence:
        return
    terminalreporter.section(f"verdicts: {recorder.context.model} on {recorder.context.dataset}")
    for line, colour in verdict_table(recorder.evidence, recorder.documented):
        terminalreporter.line(line, **({colour: True} if colour else {}))
    page = recorder.folder / "report.html"
    shown = os.path.relpath(page, config.invocation_params.dir)
    terminalreporter.line(f"report: {min(shown, str(page), key=len)}")


def _context_of(item: pytest.Item, recorder: Recorder) -> dict[str, Any]:
    control = item.get_closest_marker("control")
    return {
        "case": _case(item),
        "fold": _params(item).get("fold_number"),
        "control": control is not None,
        "fault": control.kwargs["fault"] if control is not None else "",
        "versions": versions(),
        "seconds": round(time.perf_counter() - item.stash[_STARTED], 3),
        "test": item.nodeid,
    }


def _leave(item: pytest.Item, recorder: Recorder, found: Evidence) -> None:
    if _LEFT in item.stash:
        raise ConfigError(f"{item.nodeid} left evidence twice; one check measures one claim")
    item.stash[_LEFT] = found
    recorder.evidence.append(found)
    for name, value in found.as_dict().items():
        text = json.dumps(value, sort_keys=True, allow_nan=False, ensure_ascii=False)
        item.user_properties.append((f"evidence.{name}", text))


def _not_run(item: pytest.Item, recorder: Recorder, reason: str) -> NoReturn:
    if _LEFT not in item.stash:
        context = _context_of(item, recorder)
        _leave(item, recorder, Evidence.not_run(item.stash[_CLAIM], reason, **context))
    _skip_or_fail(f"not run: {reason}", strict=recorder.strict)


def _skip_or_fail(message: str, *, strict: bool) -> NoReturn:
    if strict:
        pytest.fail(f"{message} (a failure under --strict)", pytrace=False)
    pytest.skip(message)


def _params(item: pytest.Item) -> Mapping[str, Any]:
    return item.callspec.params if hasattr(item, "callspec") else {}


def _case(item: pytest.Item) -> str:
    return "-".join(str(v) for name, v in _params(item).items() if name != "fold_number")


def _key(item: pytest.Item) -> str:
    """What `Evidence.key` of this check will be."""
    case, fold = _case(item), _params(item).get("fold_number")
    return Evidence.not_run(item.stash[_CLAIM], "key", case=case, fold=fold).key
