"""Options of a session: what the user names is there, or nothing runs."""

from pathlib import Path

import pytest

CHECKS = Path(__file__).parents[1] / "checks"
TOY = ("-k", "morse", "-m", "fold0", "--device", "cpu", "-p", "no:cacheprovider")


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
