"""The pytest side of the harness: claims and controls in, evidence and reports out.

A check is a test marked `claim`; its twin marked `control` plants one fault and must not be held at
the same bound, which it looks up by the claim's id and so cannot loosen. Both receive the fixture
`evidence`: call it with a measurement, assert on what comes back.

How an outcome follows from a verdict, once a check has left its record:

held                     passes
refuted, placeholder     fails; documented so, it is an expected failure, and so it is where
                         another verdict is only expected from other data: that is new
inconclusive, not run    is skipped; under --strict it fails, unless it is documented so
other than documented    as above, fails under --strict, and fails the session at its end

Hooks and the fixture `evidence` only; what a session remembers is in recorder.py.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from harness.claims import Claim, Measurement, Size, Verdict
from harness.controls import grown
from harness.errors import CannotResolve, ConfigError, DataAbsent, NotAvailable
from harness.evidence import Evidence, Session
from harness.files import all_printable, parse_json, printable, write_whole
from harness.report import products
from harness.report.environment import versions
from harness.report.journal import BUDGET
from harness.report.recorder import RECORDER, Recorder, leave
from harness.report.terminal import verdict_table
from harness.report.verdicts import Known, filled

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

FOLDS = range(5)
MARKERS = (
    *(f"fold{k}: uses fold {k}; `-m fold0` is the quick session" for k in FOLDS),
    "nightly: all five folds",
    "gpu: needs a GPU",
    "beside(dataset): measured in every session, but where this set is the one under test",
    "claim(id, statement, basis, bound, kind, ...): a falsifiable sentence and its bound",
    "control(of, fault, far): the same check on a subject with one planted fault; must not be "
    "held. `far` says why no fault nearer to the bound was planted, where it lies far beyond it",
)

_CLAIM = pytest.StashKey[Claim]()
_PLACE = pytest.StashKey[int]()
_STARTED = pytest.StashKey[float]()
_LEFT = pytest.StashKey[Evidence]()
_SESSION = pytest.StashKey[Session]()


class Witness:
    """The fixture `evidence` of one check: judges a measurement once and remembers it."""

    def __init__(self, item: pytest.Item, recorder: Recorder) -> None:
        self._item = item
        self._recorder = recorder
        self._figures: list[str] = []

    def __call__(self, measurement: Measurement, **details: object) -> Evidence:
        """Judge and record; further ``details`` (JSON-able) go into the record."""
        measurement = replace(measurement, details={**measurement.details, **details})
        context = _context_of(self._item, self._recorder)
        found = Evidence.of(
            self._item.stash[_CLAIM], measurement, figures=self._figures, **context
        ).printable()
        if found.control:
            _raise_where_no_fault_is_told(found)
        else:
            found = _with_documented(found, self._recorder.documented.of(found))
        found = replace(found, units=self._keep_units(measurement, found))
        _leave(self._item, found)
        return found

    def planted(
        self, measure: Callable[[float], Measurement], least: float, largest: float
    ) -> Evidence:
        """Of a control: a fault grown to what these rows can tell from the bound, recorded.

        Args:
            measure: from the size of the fault to what is measured with it.
            least: a size that is not refuted; ``largest``: the largest that means anything.
        Raises:
            CannotResolve: not even the largest is told from the bound, or nothing could be, such as
                with so few rows scored. The control is not run.
        """
        claim = self._item.stash[_CLAIM]
        measurement, size = grown(measure, claim.bound_on, least, largest)
        return self(measurement, size_of_fault=size)

    def figure(self, name: str, figure: Figure) -> None:
        """Keep a figure beside the evidence; the report shows it with the claim."""
        path = Path("figures") / f"{self._stem()}-{_in_a_name(name)}.json"
        drawn = parse_json(str(figure.to_json(engine="json")), f"the figure {name!r}")
        if self._keep(path, json.dumps(drawn, allow_nan=False, separators=(",", ":"))):
            self._figures.append(path.as_posix())

    def _keep_units(self, measurement: Measurement, found: Evidence) -> str:
        """What the interval was drawn from, to draw it again: `calibrate` and `verify` do.

        Returns:
            The file's name; empty where there are no units, or no place for them.
        """
        import numpy as np

        units = measurement.interval.units
        if units is None:
            return ""
        bounds = [np.nan if end is None else end for end in (found.bound_low, found.bound_high)]
        content = io.BytesIO()
        np.savez_compressed(
            content,
            sums=units.sums,
            statistic=np.array(units.statistic),
            what=np.array(units.what),
            key=np.array(found.key),
            bound=np.array(bounds),
        )
        folder = Path("units") / "controls" if found.control else Path("units")
        path = folder / f"{self._stem()}.npz"
        return path.as_posix() if self._keep(path, content.getvalue()) else ""

    def _keep(self, path: Path, content: str | bytes) -> bool:
        """Write a file beside the evidence and tell its hash; a full disk costs the file alone."""
        properties = self._item.user_properties
        try:
            (self._recorder.folder / path.parent).mkdir(parents=True, exist_ok=True)
            write_whole(self._recorder.folder / path, content)
        except OSError as error:
            why = printable(f"{path}: {error.strerror or error}")
            properties.append(("harness.not-written", [*_said(properties, "not-written", []), why]))
            return False
        data = content.encode() if isinstance(content, str) else content
        files = {path.as_posix(): hashlib.sha256(data).hexdigest()}
        properties.append(("harness.files", {**_said(properties, "files", {}), **files}))
        return True

    def _stem(self) -> str:
        """A file name that no other check of the session has."""
        claim, fold = self._item.stash[_CLAIM], _params(self._item).get("fold_number")
        parts = [claim.id, _case(self._item), "" if fold is None else f"fold{fold}"]
        if self._item.get_closest_marker("control") is not None:
            parts[1:2] = ["control", self._item.name]
        return "-".join(_in_a_name(part) for part in parts if part)


def _in_a_name(words: str) -> str:
    """Words as a part of a file name."""
    return re.sub(r"[^\w.+=-]+", "_", words)


def _said(properties: list[tuple[str, Any]], name: str, otherwise: Any) -> Any:
    """The last that a check told under this name."""
    return dict(properties).get(f"harness.{name}", otherwise)


@pytest.fixture
def evidence(request: pytest.FixtureRequest) -> Witness:
    """What a check calls with its measurement."""
    if _CLAIM not in request.node.stash:
        raise ConfigError(f"{request.node.nodeid} uses `evidence` but is no claim and no control")
    return Witness(request.node, request.config.stash[RECORDER])


@pytest.fixture(scope="session")
def size(request: pytest.FixtureRequest) -> Size:
    """How much this session measures, as `--size` chose it."""
    return request.config.stash[RECORDER].context.size


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("validation harness")
    group.addoption(
        "--report",
        metavar="DIR",
        help="folder for journal.jsonl, evidence.json, junit.xml and report.html (default: a new "
        "one under reports/; reports/latest points at the last)",
    )
    group.addoption(
        "--size",
        choices=[str(size) for size in Size],
        default=str(Size.QUICK),
        help="how many rows and draws claims are measured on (default: %(default)s); which folds "
        "is chosen by -m",
    )
    group.addoption(
        "--documented",
        metavar="FILE",
        type=Path,
        action="append",
        default=[],
        help="known verdicts of your own, beside those of the catalogue and overriding them; "
        "`python -m harness verdicts --write FILE` makes one from a session",
    )
    group.addoption(
        "--budget",
        metavar="MINUTES",
        type=float,
        help="start no check after this many minutes; those left are `not run` (default: no limit)",
    )
    # `--strict` is pytest's own; here it also fails what is inconclusive, not run, or changed.


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
    budget = config.getoption("--budget")
    if budget is not None and not 0 < budget < float("inf"):
        raise pytest.UsageError(
            f"--budget={budget}: give minutes above 0, or leave it out for no limit"
        )
    if config.getoption("--report") == "":
        raise pytest.UsageError("--report is empty: name a folder, or leave it out for a new one")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Where pytest-xdist spreads checks, those of one file share what their file computes once."""
    if getattr(config.option, "numprocesses", None) and config.option.dist == "no":
        config.option.dist = "loadfile"


# --- what is there: claims, controls, and what was chosen


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> Generator[None]:
    """Tie every check to its claim, every control to the claim it is of; note what is left out."""
    claims: dict[str, Claim] = {}
    for item in items:
        if (marker := item.get_closest_marker("claim")) is not None:
            item.stash[_CLAIM] = _register(claims, marker)
    for place, item in enumerate(items):
        item.stash[_PLACE] = place
        if (marker := item.get_closest_marker("control")) is not None:
            of = marker.kwargs["of"]
            if of not in claims:
                _look_in_module(claims, item)
            if of not in claims:
                raise pytest.UsageError(
                    f"{item.nodeid} is a control of {of!r}, which was not collected; collect the "
                    f"file that holds the claim too. Collected: {', '.join(sorted(claims))}"
                )
            item.stash[_CLAIM] = claims[of]
    every = {item.nodeid: item for item in items if _CLAIM in item.stash}
    if every and RECORDER not in config.stash:
        raise pytest.UsageError(
            f"{next(iter(every))} is a claim, and nothing records this session: checks live in "
            "checks/, beside the conftest.py that says what they are about"
        )
    result = yield
    if RECORDER in config.stash:
        recorder = config.stash[RECORDER]
        chosen = {item.nodeid for item in items}
        recorder.chosen = {i: _key(item) for i, item in every.items() if i in chosen}
        recorder.left_out = [
            _key(item)
            for node_id, item in every.items()
            if node_id not in chosen and item.get_closest_marker("control") is None
        ]
    return result


def _register(claims: dict[str, Claim], marker: pytest.Mark) -> Claim:
    try:
        claim = Claim(**marker.kwargs)
    except (TypeError, ConfigError) as error:
        raise pytest.UsageError(f"claim {marker.kwargs.get('id')!r}: {error}") from None
    if claims.setdefault(claim.id, claim) != claim:
        raise pytest.UsageError(f"two different claims are called {claim.id!r}")
    return claim


def _look_in_module(claims: dict[str, Claim], item: pytest.Item) -> None:
    """A control run alone, by its node id, finds its claim among its file's other checks."""
    for other in vars(getattr(item, "module", None) or object).values():
        for marker in getattr(other, "pytestmark", ()):
            if isinstance(marker, pytest.Mark) and marker.name == "claim":
                _register(claims, marker)


# --- while a check runs


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None]:
    if _CLAIM not in item.stash:
        return (yield)
    item.stash[_STARTED] = time.perf_counter()
    recorder = item.config.stash[RECORDER]
    budget = recorder.budget_minutes
    try:
        if budget is not None and recorder.elapsed_seconds() > 60 * budget:
            raise NotAvailable(f"{BUDGET} of {budget:g} minutes was spent before this check")
        return (yield)
    except NotAvailable as error:
        _not_run(item, recorder, error)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    if _CLAIM not in item.stash:
        return (yield)
    recorder = item.config.stash[RECORDER]
    try:
        yield
    except NotAvailable as error:
        _not_run(item, recorder, error)
    except AssertionError:
        if _LEFT not in item.stash or _as_it_should(item.stash[_LEFT]):
            raise  # about something else than the verdict
    if _LEFT not in item.stash:
        raise ConfigError(f"{item.nodeid} ended without evidence: call evidence(measurement)")
    # Also where the check forgot its assert: no test is greener than its numbers.
    _conclude(item.stash[_LEFT], strict=recorder.strict)


def _as_it_should(found: Evidence) -> bool:
    """Whether a claim was held, or a control's fault noticed."""
    return found.caught if found.control else found.held


def _conclude(found: Evidence, *, strict: bool) -> None:
    """Raise the outcome that a record asks for; return where it passes."""
    if found.control:
        if not found.caught:
            planted = f"{found}; the planted fault {found.fault!r} was not caught"
            raise pytest.fail.Exception(planted, pytrace=False)
        return
    as_documented = found.documented == found.verdict
    if found.verdict in (Verdict.REFUTED, Verdict.PLACEHOLDER):
        if as_documented:
            pytest.xfail(f"known to be {found.verdict}: {found.reason}")
        if found.documented_from and not strict:
            pytest.xfail(f"new: {found}; expected from {found.documented_from}: {found.documented}")
        raise pytest.fail.Exception(str(found), pytrace=False)
    if strict and not as_documented and (found.documented or not found.held):
        _strictly(found, str(found))
    if found.verdict in (Verdict.INCONCLUSIVE, Verdict.NOT_RUN):
        pytest.skip(str(found))


def _strictly(found: Evidence, message: str) -> NoReturn:
    known = f", documented: {found.documented}" if found.documented else ""
    pytest.fail(f"{message}{known} (a failure under --strict)", pytrace=False)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    if call.excinfo is not None:
        _make_printable(call.excinfo.value)
    report = yield
    if _CLAIM not in item.stash or call.excinfo is None or not report.failed:
        return report
    error = call.excinfo.value
    if not isinstance(error, pytest.fail.Exception):
        recorder = item.config.stash[RECORDER]
        message = printable(f"{type(error).__name__}: {error}")
        item.user_properties.append(("harness.error", message))
        if _out_of_memory(error):
            # What follows would meet the same end, and would be remembered as its own problem.
            item.session.shouldstop = f"out of memory in {item.nodeid}"
        elif _LEFT not in item.stash:
            context = _context_of(item, recorder)
            reason = f"the harness broke: {message}"
            _leave(item, Evidence.not_run(item.stash[_CLAIM], reason, **context).printable())
        if report.when == "call":
            # pytest calls a raise in a test's body a failure; only a refuted claim is one. As a
            # set-up error it is counted, shown and written to junit.xml as an error.
            report.when = "setup"
    report.user_properties = list(item.user_properties)
    return report


def _make_printable(error: BaseException | None) -> None:
    """What an exception says, and those it came from: a terminal obeys escapes in it."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        if not isinstance(error, OSError):  # which says its numbers and names by its fields
            error.args = tuple(all_printable(a) if isinstance(a, str) else a for a in error.args)
        error = error.__cause__ or error.__context__


def _out_of_memory(error: BaseException) -> bool:
    """Python's own, torch's of a GPU, and what allocators of a processor raise."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError)
        and any(words in str(error).lower() for words in ("out of memory", "can't allocate memory"))
    )


# --- from begin to end


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    recorder = session.config.stash.get(RECORDER, None)
    if recorder is None or recorder.is_worker or session.config.option.collectonly:
        return
    collector = _Collector(recorder)
    session.config.pluginmanager.register(collector, "harness-collector")
    collector.listen()


def pytest_report_header(config: pytest.Config) -> list[str]:
    if RECORDER not in config.stash:
        return []
    context = config.stash[RECORDER].context
    sample = "" if context.sample is None else f", at most {context.sample} rows a fold"
    return [
        f"data set: {context.dataset}{sample} ({context.dataset_reason})",
        f"model: {context.model} on {context.device}, size: {context.size}",
    ]


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if _SESSION not in config.stash:
        return
    session, recorder = config.stash[_SESSION], config.stash[RECORDER]
    terminalreporter.section(f"verdicts: {recorder.context.model} on {recorder.context.dataset}")
    for line, colour in verdict_table(session):
        terminalreporter.line(line, **({colour: True} if colour else {}))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    recorder = session.config.stash.get(RECORDER, None)
    if recorder is not None and recorder.is_worker:
        told = {"notes": recorder.notes, "chosen": recorder.chosen, "left_out": recorder.left_out}
        session.config.workeroutput["harness"] = json.dumps(told)  # type: ignore[attr-defined]


def pytest_unconfigure(config: pytest.Config) -> None:
    """The last word, below pytest's own: verdicts that are not the documented ones."""
    recorder = config.stash.get(RECORDER, None)
    if recorder is None or recorder.is_worker:
        return
    leave(recorder)
    if recorder.changed:
        changed = "; ".join(f"{e.key}: {e.documented} -> {e.verdict}" for e in recorder.changed)
        n = len(recorder.changed)
        words = "verdict is not the documented one" if n == 1 else "verdicts are not as documented"
        _say(config, f"CHANGED: {n} {words}: {changed}", red=True, bold=True)


def _say(config: pytest.Config, line: str, **markup: bool) -> None:
    reporter = config.pluginmanager.getplugin("terminalreporter")
    if reporter is not None:
        reporter.line(line, **markup)


class _Collector:
    """Tells the journal what checks left, in this process or in those that pytest-xdist started."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._handlers: dict[int, Any] = {}
        self._writing = False

    # SIGTERM (a queue, a container) and SIGHUP (a lost terminal) end a session as Ctrl-C does.
    # While reports are written none of the three ends anything.

    def listen(self) -> None:
        """Take over the signals; only the main thread may."""
        if threading.current_thread() is threading.main_thread():
            for name in ("SIGTERM", "SIGHUP"):
                number = getattr(signal, name, None)
                if number is not None and signal.getsignal(number) == signal.SIG_DFL:
                    self._handlers[number] = signal.signal(number, self._stop)

    def _stop(self, number: int, _: object) -> None:
        if not self._writing:
            self._recorder.stopped = f"stopped by {signal.Signals(number).name}"
            raise KeyboardInterrupt(self._recorder.stopped)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> None:
        if self._recorder.chosen and not session.testsfailed:  # else files could not be collected
            self._recorder.begin()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """One line a check, as soon as it has ended; one more if its clearing away broke."""
        ends = report.when != "teardown" and not (report.when == "setup" and report.passed)
        if self._recorder.begun and (ends or report.failed):
            self._recorder.collect(report)

    @pytest.hookimpl(wrapper=True, tryfirst=True)  # around the summary too, which stands first
    def pytest_sessionfinish(
        self, session: pytest.Session, exitstatus: int | pytest.ExitCode
    ) -> Generator[None]:
        """Show what was found, then write it; also where the session was stopped."""
        self._writing = True
        if self._handlers:
            self._handlers[signal.SIGINT] = signal.signal(signal.SIGINT, self._stop)
        self._recorder.stopped = self._recorder.stopped or _why_stopped(session, exitstatus)
        try:
            return (yield)
        finally:
            if self._recorder.begun:
                self._write(session)
            for number, handler in self._handlers.items():
                signal.signal(number, handler)

    @pytest.hookimpl(trylast=True, specname="pytest_sessionfinish")
    def pytest_end(self, session: pytest.Session) -> None:
        """After all who have something to add, before what was found is shown."""
        recorder = self._recorder
        if recorder.begun:
            recorder.end()
            session.config.stash[_SESSION] = recorder.journal.told.session()
            if recorder.changed and session.exitstatus == pytest.ExitCode.OK:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _write(self, session: pytest.Session) -> None:
        recorder, config = self._recorder, session.config
        if not recorder.journal.told.ended:  # somebody else's end of the session broke
            recorder.end()
        problems = recorder.journal.told.not_written + recorder.write()
        for problem in problems:
            _say(config, f"NOT WRITTEN: {problem}", red=True, bold=True)
        if problems and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.INTERNAL_ERROR
        page = recorder.folder / products.PAGE
        shown = os.path.relpath(page, config.invocation_params.dir)
        if page.exists():
            _say(config, f"report: {min(shown, str(page), key=len)}")

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        node.workerinput["harness_report"] = str(self._recorder.folder)
        node.workerinput["harness_elapsed"] = self._recorder.elapsed_seconds()

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        recorder = self._recorder
        if ids and not recorder.begun:
            recorder.chosen = {test: test for test in ids}  # until a process says what they are
            recorder.begin()

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        recorder = self._recorder
        if error:
            recorder.stopped = recorder.stopped or f"a worker ended: {error}"
        told = json.loads(getattr(node, "workeroutput", {}).get("harness", "{}"))
        recorder.add_notes(told.get("notes", {}))
        if told and recorder.begun:
            recorder.chosen, recorder.left_out = told["chosen"], told["left_out"]
            recorder.choose()


def _why_stopped(session: pytest.Session, exitstatus: int | pytest.ExitCode) -> str:
    if exitstatus == pytest.ExitCode.INTERRUPTED and not session.shouldstop:
        return "interrupted"
    if exitstatus == pytest.ExitCode.INTERNAL_ERROR:
        return "the test runner broke"
    return str(session.shouldfail or session.shouldstop or "")


# --- records


def _context_of(item: pytest.Item, recorder: Recorder) -> dict[str, Any]:
    control = item.get_closest_marker("control")
    given: Mapping[str, Any] = {} if control is None else control.kwargs
    return {
        "case": _case(item),
        "fold": _params(item).get("fold_number"),
        "size": recorder.context.size,
        "control": control is not None,
        "fault": given.get("fault", ""),
        "far": given.get("far", ""),
        "versions": versions(),
        "seconds": round(time.perf_counter() - item.stash[_STARTED], 3),
        "test": item.nodeid,
    }


def _with_documented(found: Evidence, known: Known | None) -> Evidence:
    """What is on record beside what was found; where both agree, the reason that stands there."""
    if known is None:
        return found
    documented = known.beside(found.verdict)
    reason = found.reason
    if documented == found.verdict and known.reason:
        reason = filled(known.reason, found.details)
    return replace(
        found, documented=str(documented), documented_from=known.measured_on, reason=reason
    )


def _leave(item: pytest.Item, found: Evidence) -> None:
    if _LEFT in item.stash:
        raise ConfigError(f"{item.nodeid} left evidence twice; one check measures one claim")
    item.stash[_LEFT] = found
    item.user_properties.append(("harness.place", item.stash[_PLACE]))
    for name, value in found.as_dict().items():
        text = json.dumps(value, sort_keys=True, allow_nan=False, ensure_ascii=False)
        item.user_properties.append((f"evidence.{name}", text))


def _not_run(item: pytest.Item, recorder: Recorder, error: NotAvailable) -> NoReturn:
    """Leave the record of a check that something kept from running, and end it."""
    if _LEFT not in item.stash:
        claim, context = item.stash[_CLAIM], _context_of(item, recorder)
        dataset = _would_be_on(item, recorder)
        found = Evidence.not_run(
            claim,
            str(error),
            dataset=dataset,
            subject=claim.about or recorder.context.model,
            lacks_data=isinstance(error, DataAbsent),
            **context,
        ).printable()
        if not found.control:
            found = _with_documented(found, _known_of_not_run(found, recorder))
        _leave(item, found)
    found = item.stash[_LEFT]
    strict = recorder.strict and found.documented != found.verdict
    if strict and not found.control:
        _strictly(found, f"not run: {found.reason}")
    pytest.skip(f"not run: {found.reason}")


def _would_be_on(item: pytest.Item, recorder: Recorder) -> str:
    """The data set a check that did not run is about, as far as what it asks for tells."""
    asks = getattr(item, "fixturenames", ())
    if "fold" in asks:
        return recorder.context.dataset
    return recorder.context.training_dataset if "training_fold" in asks else ""


def _known_of_not_run(found: Evidence, recorder: Recorder) -> Known | None:
    """What is documented for it, on the data it is about, or on the only data it is known on."""
    documented = recorder.documented
    if (known := documented.of(found)) is not None:
        return known
    places = [p for p in documented.anywhere(found.key, found.size) if p[0] == found.subject]
    if found.dataset or len(places) != 1:
        return None
    return documented.known(*places[0], found.key, found.size)


def _raise_where_no_fault_is_told(control: Evidence) -> None:
    """What the claim itself could not judge, for its coverage or units, no control is to be held
    against: it says nothing about whether the check would notice."""
    if control.verdict == Verdict.INCONCLUSIVE and control.reason:
        raise CannotResolve(control.reason)


def _params(item: pytest.Item) -> Mapping[str, Any]:
    return item.callspec.params if hasattr(item, "callspec") else {}


def _case(item: pytest.Item) -> str:
    return "-".join(str(v) for name, v in _params(item).items() if name != "fold_number")


def _key(item: pytest.Item) -> str:
    """What `Evidence.key` of this check will be."""
    case, fold = _case(item), _params(item).get("fold_number")
    return Evidence.not_run(item.stash[_CLAIM], "key", case=case, fold=fold).key
