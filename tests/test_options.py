"""Options of a session: what the user names is there, or nothing runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKS = Path(__file__).parents[1] / "checks"
TOY = ("-k", "good_fit", "-m", "fold0", "--device", "cpu", "-p", "no:cacheprovider")


@pytest.fixture
def run(tmp_path, capsys):
    """Exit status and output of a session of the toy alone, which needs neither model nor data."""

    def of(*options):
        report = tmp_path / "report"
        code = pytest.main(
            [str(CHECKS / "test_softening.py"), *TOY, "--report", str(report), *options]
        )
        printed = capsys.readouterr()
        return code, printed.out + printed.err, report

    return of


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--model", "ase:no.such.module:Potential"), "no.such"),
        (("--model", "ase:ase.calculators.emt:EMT?no_such=1"), "no_such"),
        (("--model", "chgnet-9"), "no model 'chgnet-9'"),
        (("--dataset", "no-such-file.json.gz"), "neither a data set nor a file"),
        (("--dataset", "matbench_mp_e_form"), "has not been fetched"),
        (("--documented", "no-such-file.toml"), "cannot be read"),
        (("--sample", "99"), "give at least 100 rows"),
    ],
)
def test_what_is_named_and_cannot_be_loaded_ends_the_session_before_any_check(
    run, monkeypatch, tmp_path, options, says
):
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    code, printed, report = run(*options)
    assert code == pytest.ExitCode.USAGE_ERROR == 4
    assert says in printed
    assert "passed" not in printed
    assert not (report / "evidence.json").exists()


def test_a_file_that_is_no_data_set_ends_the_session(run, tmp_path):
    (tmp_path / "mine.json").write_text('{"index": [0], "columns": ["a"], "data": [[1]]}')
    code, printed, _ = run("--dataset", str(tmp_path / "mine.json"))
    assert code == pytest.ExitCode.USAGE_ERROR
    assert "mine.json" in printed


def test_a_cache_that_cannot_be_written_ends_the_session(run, monkeypatch, tmp_path):
    (tmp_path / "cache").write_text("a file")
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    code, printed, report = run()
    assert code == pytest.ExitCode.USAGE_ERROR
    assert "the folder of predictions and conversions, cannot be written" in printed
    assert "Name another in HARNESS_CACHE" in printed
    assert not report.exists()


def test_no_escape_of_a_name_reaches_the_terminal(run):
    code, printed, _ = run("--dataset", "\x1b[2J\u202e.json")
    assert code == pytest.ExitCode.USAGE_ERROR
    assert "\\x1b[2J\\u202e.json" in printed
    assert not {"\x1b", "\u202e"} & set(printed)


def test_a_documented_file_of_any_depth_is_refused_in_a_sentence(run, tmp_path):
    (tmp_path / "deep.toml").write_text("a = " + "[" * 50_000)
    code, printed, _ = run("--documented", str(tmp_path / "deep.toml"))
    assert code == pytest.ExitCode.USAGE_ERROR
    assert "nested too deeply" in printed


def test_a_checkout_is_reached_through_a_link_too(tmp_path):
    """The catalogue's own conftest, by another path."""
    (tmp_path / "link").symlink_to(CHECKS.parent, target_is_directory=True)
    command = [sys.executable, "-m", "pytest", "checks/test_softening.py", *TOY, "-q"]
    done = subprocess.run(  # noqa: S603
        [*command, "--report", str(tmp_path / "report")],
        cwd=tmp_path / "link",
        env={**os.environ, "HARNESS_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert (tmp_path / "report" / "evidence.json").exists()
