"""Sessions killed at any moment: each leaves a report up to there, and can be gone on with."""

import random
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from harness.__main__ import main
from harness.evidence import Session
from harness.report import journal
from tests.test_plugin import CONFTEST, HEAD, PLAIN

KILLS = 10
CHECKS = 6
CODE = (
    HEAD
    + """
import time

class Drawn:
    def to_json(self, engine): return '{"data": []}'

@pytest.mark.parametrize("case", list("abcdef"))
@claim
def test_it(evidence, case):
    time.sleep(0.05)
    evidence.figure("f", Drawn())
    assert evidence(measured(ord(case) / 200, 0.1)).held
"""
)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_toy_that_dies.py").write_text(CODE)
    return folder


def begin(folder, report):
    # with `=`: pytest takes the folder for one of tests where it exists and the option is not known
    command = [sys.executable, "-m", "pytest", f"--report={report}", *PLAIN]
    return subprocess.Popen(  # noqa: S603
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def undisturbed(folder, report):
    """A session that nobody kills."""
    process = begin(folder, report)
    said, _ = process.communicate()
    assert process.returncode == 0, said.decode()
    return Session.load(report)


def timeless(session):
    return [replace(e, seconds=0.0) for e in session.claims]


def killed(folder, report, lines, seconds):
    """Start a session, and kill it so long after its journal has so many lines."""
    process, path = begin(folder, report), report / journal.NAME
    while process.poll() is None and not (
        path.exists() and path.read_bytes().count(b"\n") >= lines
    ):
        time.sleep(0.002)
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_what_a_killed_session_left_is_readable_marked_and_gone_on_with(toy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole = undisturbed(toy, tmp_path / "whole")
    assert len(whole.claims) == CHECKS
    draw, partial = random.Random(0), 0  # noqa: S311
    for k in range(KILLS):
        report = tmp_path / "reports" / f"{k}"
        killed(toy, report, draw.randint(1, CHECKS + 1), draw.uniform(0, 0.06))
        assert main(["report", str(report)]) == 0
        left = Session.load(report)
        done = timeless(left)
        assert done == timeless(whole)[: len(done)]
        assert all((report / name).exists() for e in left.claims for name in e.figures)
        assert left.complete == journal.read(report).ended
        if not left.complete:
            partial += 1
            assert left.session["incomplete_reason"].startswith("it ended without a word")
            assert left.session["not_reached"] == [e.key for e in whole.claims[len(done) :]]
        assert main(["verify", str(report)]) == 0
    assert partial > KILLS / 2
    assert main(["history", str(tmp_path / "reports")]) == 0
    again = undisturbed(toy, report)  # the same command
    assert again.complete
    assert timeless(again) == timeless(whole)
    assert not (report / "previous").exists()
    figures = [
        sorted(p.name for p in (r / "figures").iterdir()) for r in (report, tmp_path / "whole")
    ]
    assert figures[0] == figures[1]
