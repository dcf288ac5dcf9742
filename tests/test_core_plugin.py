"""What a session leaves when something goes wrong: in its middle, at its end, or before it."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from junitparser.xunit2 import JUnitXml

from harness.__main__ import main
from harness.evidence import Session
from harness.report import journal, products, recorder
from tests.test_plugin import CONFTEST, CONTROL, HEAD, HELD, PLAIN, REFUTED, TWO, session

pytest_plugins = ["pytester"]
__all__ = ["session"]  # the fixture

THREE = """
class Drawn:
    def to_json(self, engine): return '{"data": [], "layout": {"title": {"text": "\\\\u202e"}}}'

@claim
def test_a(evidence):
    evidence.figure("f", Drawn())
    assert evidence(measured(0.5, 0.1)).held

@pytest.mark.claim(id="c2", statement="s", basis="b", bound=below(1.0, "eV", "a test"), **STRONG)
def test_b(evidence):
    {body}
    assert evidence(measured(0.5)).held

@pytest.mark.claim(id="c3", statement="s", basis="b", bound=below(1.0, "eV", "a test"), **STRONG)
def test_c(evidence):
    assert evidence(measured(0.5)).held
"""


def three(body):
    return THREE.replace("{body}", body)


def printed(result):
    return "\n".join(result.outlines)


# --- written as it is made


def test_a_check_is_on_disk_before_the_next_begins(session):
    body = """
    import pathlib
    lines = pathlib.Path("out/journal.jsonl").read_text().splitlines()
    assert len(lines) == 2 and '"id":"c"' in lines[1]
    assert pathlib.Path("out/figures/c-f.json").exists()
    assert not pathlib.Path("out/evidence.json").exists()"""
    result, found, out = session(three(body.strip()))
    result.assert_outcomes(passed=3)
    lines = [json.loads(line)["entry"] for line in (out / "journal.jsonl").read_text().splitlines()]
    assert [entry["what"] for entry in lines] == [
        "begin",
        "check",
        "check",
        "check",
        "end",
    ]
    assert [entry["at"] for entry in lines] == sorted(entry["at"] for entry in lines)
    told = journal.read(out)
    assert told.session() == found
    assert told.session().text() == (out / "evidence.json").read_text()
    assert (told.ended, told.damage, told.torn) == (True, [], False)
    assert (
        json.loads((out / "figures/c-f.json").read_text())["layout"]["title"]["text"] == "\\u202e"
    )


@pytest.mark.parametrize("how", ["KILL", "_exit", "SEGV"])
def test_a_session_that_ends_without_a_word_leaves_all_up_to_the_check_it_was_in(
    session, how, capsys
):
    end = "os._exit(1)" if how == "_exit" else f"os.kill(os.getpid(), signal.SIG{how})"
    options = ("-p", "no:faulthandler")
    _, found, out = session(three(f"import os, signal; {end}"), *options, apart=True, draw=True)
    assert found is None
    assert {p.name for p in out.iterdir()} == {"figures", "journal.jsonl", "session.lock"}
    assert main(["report", str(out)]) == 0
    said = capsys.readouterr().out
    assert "INCOMPLETE: it ended without a word: killed" in said
    assert "2 checks not reached; go on with: pytest " in said
    left = Session.load(out)
    assert [e.key for e in left.claims] == ["c"]
    assert left.claims[0].figures == ["figures/c-f.json"]
    assert (left.complete, left.session["not_reached"]) == (False, ["c2", "c3"])
    assert left.session["incomplete_reason"].startswith("it ended without a word")
    suite = next(iter(JUnitXml.fromfile(str(out / "junit.xml"))))
    assert suite.tests == 1
    assert "it ended without a word" in (out / "report.html").read_text()
    assert main(["history", str(out)]) == 0
    assert "held" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_session_that_is_stopped_writes_its_reports_and_says_by_what(session, name):
    body = f"import os, signal; os.kill(os.getpid(), signal.{name})"
    result, found, out = session(three(body), apart=True)
    reason = f"stopped by {name}"
    assert found.session["incomplete_reason"] == reason
    assert [e.key for e in found.claims] == ["c"]
    assert f"INCOMPLETE: {reason}; 2 checks not reached" in printed(result)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert (out / "junit.xml").exists()


def test_a_signal_that_is_ignored_stays_ignored(session, monkeypatch):
    body = "import os, signal; os.kill(os.getpid(), signal.SIGHUP)"
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        _, found, _ = session(three(body))
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
    assert found.complete


def test_handlers_are_given_back(session):
    handlers = [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)]
    session(HELD)
    assert [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)] == handlers


def test_no_signal_keeps_a_session_from_writing_what_it_found(session):
    late = """
def pytest_terminal_summary():
    import os, signal
    for name in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        os.kill(os.getpid(), name)
"""
    _, found, out = session(HELD, "-p", "late", late=late, apart=True)
    assert found.complete
    assert (out / "manifest.json").exists()


def test_what_breaks_at_the_end_does_not_take_the_evidence_along(session):
    late = "def pytest_sessionfinish():\n    raise RuntimeError('somebody else broke')\n"
    _, found, out = session(HELD, "-p", "late", late=late, apart=True)
    assert [e.verdict for e in found.claims] == ["held"]
    assert journal.read(out).ended


def test_what_is_noted_at_the_end_is_in_the_evidence(session):
    late = """
from harness.report.recorder import RECORDER
def pytest_sessionfinish(session):
    session.config.stash[RECORDER].notes["late"] = {"n": 1}
"""
    _, found, _ = session(HELD, "-p", "late", late=late)
    assert found.session["late"] == {"n": 1}


def test_an_error_after_a_check_is_told_too(session):
    code = """
@pytest.fixture
def breaks():
    yield
    raise DataError("could not be closed")

@claim
def test_a(breaks, evidence):
    assert evidence(measured(0.5)).held
"""
    result, found, out = session(code)
    result.assert_outcomes(passed=1, errors=1)
    assert [e.verdict for e in found.claims] == ["held"]
    message = "DataError: could not be closed"
    assert [e["message"] for e in found.errors] == [message]
    (case,) = next(iter(JUnitXml.fromfile(str(out / "junit.xml"))))
    assert [(type(r).__name__, r.message) for r in case.result] == [
        ("Error", f"harness.errors.{message}")
    ]
    told = {p.name: p.value for p in case.properties()}
    assert told["harness.error"] == message
    assert told["evidence.verdict"] == '"held"'


def test_junit_tells_failures_errors_and_what_is_known_apart(session):
    mark = (
        "\n@pytest.mark.claim(id='%s', statement='s', basis='b', bound=below(1, '', 'r'), **STRONG)"
    )
    code = (
        REFUTED
        + mark % "d"
        + "\ndef test_d(evidence):\n    raise DataError('bad row')\n"
        + mark % "e"
        + "\ndef test_e(evidence):\n    raise NotAvailable('no file')\n"
        + mark % "f"
        + "\n@pytest.mark.parametrize('x', ['a::b[c]'])"
        + "\ndef test_f(evidence, x):\n    assert evidence(measured(0.5)).held\n"
        + "\ndef test_plain():\n    pass\n"
    )
    _, found, out = session(code)
    suite = next(iter(JUnitXml.fromfile(str(out / "junit.xml"))))
    assert (suite.tests, suite.failures, suite.errors, suite.skipped) == (5, 1, 1, 1)
    cases = {case.name: case for case in suite}
    assert list(cases) == ["test_refuted", "test_d", "test_e", "test_f[a::b[c]]", "test_plain"]
    assert {case.classname for case in suite} == {Path(found.claims[0].test.split("::")[0]).stem}
    assert cases["test_refuted"].result[0].message.startswith("Failed: c: refuted: MAE = 1.5")
    assert cases["test_d"].result[0].message == "harness.errors.DataError: bad row"
    assert "bad row" in cases["test_d"].result[0].text
    assert cases["test_e"].result[0].message == "Skipped: not run: no file"
    assert cases["test_f[a::b[c]]"].result == cases["test_plain"].result == []
    assert not list(cases["test_plain"].properties())
    known = '[m.d]\n"c" = {verdict = "refuted", reason = "the note was wrong"}\n'
    _, _, out = session(REFUTED, known=known)
    (case,) = next(iter(JUnitXml.fromfile(str(out / "junit.xml"))))
    assert case.result[0].message == "known: known to be refuted: the note was wrong"


# --- words from outside


def test_nothing_raw_reaches_terminal_junit_or_evidence_and_no_word_is_lost(session):
    code = """
@claim
def test_a(evidence):
    raise DataError("\\x1b[2J\\x1b]0;title\\x07 caf\\udce9 \\u202egnp")

@pytest.mark.claim(id="c2", statement="s", basis="b", bound=below(1.0, "eV", "a test"), **STRONG)
def test_b(evidence):
    try:
        raise ValueError("\\x1b[31m inner")
    except ValueError as error:
        raise NotAvailable("\\x1b[2J no file caf\\udce9") from error

@pytest.mark.claim(id="c3", statement="s", basis="b", bound=below(1.0, "eV", "a test"), **STRONG)
def test_c(evidence):
    assert evidence(measured(0.5, dataset="caf\\udce9", excluded={"\\x1b[2J": 1})).held
"""
    result, found, out = session(code, "--color=no", "-rs")
    result.assert_outcomes(errors=1, skipped=1, passed=1)
    said = "\\x1b[2J\\x1b]0;title\\x07 caf\\udce9 \\u202egnp"
    assert found.errors[0]["message"] == f"DataError: {said}"
    assert found.claims[1].reason == "\\x1b[2J no file caf\\udce9"
    assert (found.claims[2].dataset, found.claims[2].excluded) == ("caf\\udce9", {"\\x1b[2J": 1})
    texts = [printed(result), *((out / n).read_text() for n in ("junit.xml", "evidence.json"))]
    for text in texts:
        assert said.replace("\\", "\\\\") in text or said in text
        assert not {"\x1b", "\x07", "\u202e", "\udce9"} & set(text)


def test_what_a_session_is_about_may_have_any_name(session, monkeypatch):
    monkeypatch.setattr(
        "tests.test_plugin.CONFTEST",
        CONFTEST.replace('dataset="d"', 'dataset="caf\\udce9"').replace(
            'model="m"', 'model="\\x1b[2J"'
        ),
    )
    result, found, out = session(HELD, "--color=no", "-o", "cache_dir=caf\udce9")
    assert found.session["dataset"] == "caf\\udce9"
    assert found.session["model"] == "\\x1b[2J"
    assert "cache_dir=caf\\udce9" in found.session["command"]
    assert "\x1b" not in printed(result)
    assert journal.read(out).session() == found


# --- places


def test_a_report_that_cannot_be_written_is_found_before_any_work(session, pytester):
    (pytester.path / "a-file").write_text("mine")
    for place, says in (
        ("a-file", "a-file, the folder of the report, cannot be written"),
        ("a-file/below", "Not a directory"),
        ("", "--report is empty"),
        ("/proc/no-such-process", "cannot be written"),
        ("a" * 300, "File name too long"),
    ):
        result, _, _ = session(HELD, "--report", place)
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        said = "\n".join(result.errlines)
        assert says in said
        assert "INTERNALERROR" not in said + printed(result)
        assert "Name another with --report" in said or not place
    assert (pytester.path / "a-file").read_text() == "mine"


def test_a_ring_of_links_is_no_place(session, pytester):
    (pytester.path / "ring").symlink_to("ring")
    result, _, _ = session(HELD, "--report", "ring")
    assert result.ret == pytest.ExitCode.USAGE_ERROR


def test_two_sessions_do_not_share_a_report(session, pytester):
    (pytester.path / "out").mkdir()
    taken = products.lock(pytester.path / "out")
    result, found, _ = session(HELD)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "is the report folder of a session that is at work" in "\n".join(result.errlines)
    assert found is None
    taken.release()
    assert session(HELD)[1].complete
    assert session(HELD)[1].complete  # it was let go


def test_sessions_of_one_second_have_folders_of_their_own(session, pytester, monkeypatch):
    class Still(recorder.datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2026, 1, 2, 3, 4, 5, tzinfo=tz)

    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(HEAD + HELD)
    monkeypatch.setattr(recorder.datetime, "datetime", Still)
    for _ in range(3):
        pytester.runpytest_inprocess(*PLAIN).assert_outcomes(passed=1)
    reports = pytester.path / "reports"
    stamp = "2026-01-02T03-04-05"
    assert sorted(p.name for p in reports.iterdir()) == [
        stamp,
        f"{stamp}-2",
        f"{stamp}-3",
        "latest",
    ]
    assert (reports / "latest").resolve().name == f"{stamp}-3"
    assert Session.load(reports / stamp).session["started"] == "2026-01-02T03:04:05+00:00"


def test_a_session_without_checks_leaves_no_folder_and_no_report(session, pytester):
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile("def test_plain():\n    pass\n")
    pytester.runpytest_inprocess(*PLAIN).assert_outcomes(passed=1)
    assert list((pytester.path / "reports").iterdir()) == []
    _, _, out = session(HELD, "--collect-only")
    assert not out.exists()
    _, found, out = session(HELD)
    before = (out / "evidence.json").read_bytes()
    session(HELD, "-k", "no_such_test")
    session("\nimport no_such_module\n")  # nothing was collected: the older report stands
    assert (out / "evidence.json").read_bytes() == before
    assert found.complete


def test_an_older_report_makes_way_and_is_kept_until_a_session_ends_whole(session):
    _, first, out = session(three("pass"))
    stale = out / "figures" / "old.json"
    stale.write_text("{}")
    _, none, _ = session(three("import os; os._exit(1)"), apart=True)
    assert none is None
    assert Session.load(out / "previous") == first
    assert (out / "previous/figures/old.json").exists()
    # what died without evidence does not take its place
    session(three("import os; os._exit(1)"), apart=True)
    assert Session.load(out / "previous") == first
    session(three("pass"), "-x", "-k", "test_a or test_c")
    assert not (out / "previous").exists()
    assert not stale.exists()


def test_a_session_that_was_cut_keeps_what_was_whole(session):
    _, first, out = session(HELD)
    _, cut, _ = session(TWO.format(body="pass"), "-x")
    assert not cut.complete
    assert Session.load(out / "previous") == first


def fails_for(monkeypatch, *names):
    """Files of these names find no place."""
    from harness import files

    write = files.write_whole

    def full(path, content):
        if path.name in names:
            raise OSError(28, "No space left on device")
        write(path, content)

    for module in ("harness.evidence", "harness.report.products", "harness.report.plugin"):
        monkeypatch.setattr(f"{module}.write_whole", full)


@pytest.mark.parametrize("name", ["evidence.json", "junit.xml", "manifest.json"])
def test_a_disk_that_is_full_at_the_end_costs_what_found_no_place(session, monkeypatch, name):
    fails_for(monkeypatch, name)
    result, _, out = session(HELD)
    text = printed(result)
    assert text.index("verdicts: m on d") < text.index("controls: ") < text.index("NOT WRITTEN: ")
    assert f"{name}: OSError: [Errno 28] No space left on device" in text
    assert result.ret == pytest.ExitCode.INTERNAL_ERROR
    there = {p.name for p in out.iterdir()} & {"evidence.json", "junit.xml", "manifest.json"}
    assert there == {"evidence.json", "junit.xml", "manifest.json"} - {name}
    monkeypatch.undo()
    assert main(["report", str(out)]) == 0
    assert Session.load(out).complete


def test_a_refuted_claim_stays_a_failure_where_nothing_can_be_written(session, monkeypatch):
    fails_for(monkeypatch, "evidence.json")
    assert session(REFUTED)[0].ret == pytest.ExitCode.TESTS_FAILED


def test_a_figure_or_units_without_a_place_cost_themselves_only(session, monkeypatch):
    units = "Interval(estimate=0.5, low=0.4, high=0.6, n=9, n_clusters=8, units=Units("
    units += 'statistic="mean", sums=np.ones((2, 8)), what="x"))'
    code = "\nimport numpy as np\nfrom harness.statistics import Units\n" + three("pass").replace(
        "measured(0.5, 0.1)", f"measured(0.5, interval={units})"
    )
    _, found, out = session(code)
    assert found.claims[0].units == "units/c.npz"
    assert (out / "units/c.npz").exists()
    fails_for(monkeypatch, "c-f.json", "c.npz")
    result, found, out = session(code)
    result.assert_outcomes(passed=3)
    assert (found.claims[0].figures, found.claims[0].units) == ([], "")
    lost = ["figures/c-f.json: No space left on device", "units/c.npz: No space left on device"]
    assert found.session["not_written"] == lost
    assert [f"NOT WRITTEN: {words}" in printed(result) for words in lost] == [True, True]
    assert result.ret == pytest.ExitCode.INTERNAL_ERROR


def test_where_the_journal_finds_no_place_the_evidence_is_written_all_the_same(
    session, monkeypatch
):
    real = journal.os.open

    def full(path, *how):
        if str(path).endswith("journal.jsonl"):
            raise OSError(28, "No space left on device")
        return real(path, *how)

    monkeypatch.setattr(journal.os, "open", full)
    result, found, _ = session(HELD)
    assert found.complete
    assert "journal.jsonl lacks its last 3 lines: No space left on device" in printed(result)
    assert result.ret == pytest.ExitCode.INTERNAL_ERROR


# --- clocks


@pytest.mark.parametrize("hours", [-2, 2])
def test_a_step_of_the_clock_changes_nothing(session, monkeypatch, hours):
    body = f"""
    import time
    real = time.time
    time.time = lambda: real() + {3600 * hours}"""
    monkeypatch.setattr("time.time", recorder.time.time)  # given back afterwards
    _, found, _ = session(three(body.strip()), "--budget", "60")
    assert found.complete
    assert 0 <= found.session["seconds"] < 600
    assert all(0 <= e.seconds < 600 for e in found.claims)


def test_the_budget_counts_from_the_beginning(session, monkeypatch):
    now = iter(range(0, 100_000, 61))
    monkeypatch.setattr(recorder.time, "monotonic", lambda: float(next(now)))
    _, found, _ = session(HELD + CONTROL, "--budget", "0.5")
    assert {e.verdict for e in found.claims} == {"not run"}
    assert found.session["incomplete_reason"] == "the budget of 0.5 minutes was spent"


# --- several processes


def test_a_process_that_dies_is_told_and_the_others_records_are_kept(pytester, session):
    pytest.importorskip("xdist")
    pytester.makepyfile(
        test_dies=HEAD.replace('"c"', '"c1"') + "\n@claim\ndef test_it(evidence):\n"
        "    import os\n    os._exit(1)\n",
        test_lives=HEAD.replace('"c"', '"c2"') + HELD + CONTROL.replace('"c"', '"c2"'),
    )
    pytester.makeconftest(CONFTEST)
    go = ("--report", "out", "-n", "2", *PLAIN, "--max-worker-restart", "0")
    pytester.runpytest_subprocess(*go)
    found = Session.load(pytester.path / "out")
    assert [e.key for e in found.claims] == ["c2", "c2"]
    assert not found.complete
    assert any("test_dies.py::test_it" in e["test"] for e in found.errors)


def test_a_session_of_several_processes_that_is_killed_leaves_what_they_found(pytester):
    pytest.importorskip("xdist")
    pytester.makepyfile(
        test_waits=HEAD.replace('"c"', '"c1"') + "\n@claim\ndef test_it(evidence):\n"
        "    import os, pathlib, signal, time\n"
        "    while '\"id\":\"c2\"' not in pathlib.Path('out/journal.jsonl').read_text():\n"
        "        time.sleep(0.01)\n"
        "    os.kill(os.getppid(), signal.SIGKILL)\n",
        test_lives=HEAD.replace('"c"', '"c2"') + HELD,
    )
    pytester.makeconftest(CONFTEST)
    pytester.runpytest_subprocess("--report", "out", "-n", "2", *PLAIN)
    told = products.read(pytester.path / "out")
    assert [e.key for e in told.evidence] == ["c2"]
    assert told.incomplete.startswith("it ended without a word")
    # what it is, or where it stands if its process had not said so yet
    assert told.not_reached in (["c1"], ["test_waits.py::test_it"])


# --- from outside


def test_a_claim_that_nothing_records_is_refused(pytester):
    pytester.makeconftest('pytest_plugins = ["harness.report.plugin"]\n')
    pytester.makepyfile(HEAD + HELD)
    result = pytester.runpytest_inprocess(*PLAIN)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*test_held is a claim, and nothing records this session*"])


def test_history_on_a_terminal_that_lacks_characters(session, pytester):
    session(HELD.replace("0.5, 0.1", "0.5, 0.1, quantity='Å'"), "--report", "reports/one")
    command = [sys.executable, "-m", "harness", "history", str(pytester.path / "reports")]
    done = subprocess.run(  # noqa: S603
        command,
        capture_output=True,
        check=False,
        env={"PYTHONIOENCODING": "ascii", "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"held" in done.stdout
