"""`verify` says yes to what a session wrote, and names whatever was changed since."""

import io
import json
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from harness.__main__ import main
from harness.data.paths import fixtures_dir
from harness.errors import ConfigError, DataError
from harness.report import again, journal, products
from harness.report import verify as module
from harness.report.verify import verify
from tests.test_plugin import CONFTEST, PLAIN

CHECKS = """
import numpy as np
import pytest
from harness.claims import Interval, Kind, Meaning, Measurement, below
from harness.errors import DataError, NotAvailable
from harness.statistics import bootstrap, median, share, student_t

VALUES = np.random.default_rng(0).normal(0.5, 0.1, 60)
STRONG = {"kind": Kind.FINDING, "meaning": Meaning.STRENGTH}

def claim(id, **more):
    given = dict(statement=f"The {id} is below 1.", basis="a note",
                 bound=below(1.0, "eV/atom", "a test"), **STRONG)
    return pytest.mark.claim(id=id, **{**given, **more})

def measured(interval, **changes):
    given = dict(quantity="MAE", interval=interval, scored=60, of=61, dataset="d", model="m",
                 excluded={"isolated": 1}, inputs={"elements.csv": ELEMENTS},
                 details={"k": [1.5, "word"]})
    return Measurement(**{**given, **changes})

class Drawn:
    def to_json(self, engine):
        return '{"data": [{"y": [1.25, 2.5]}], "layout": {"title": {"text": "drawn"}}}'

ELEMENTS = "70d3b24951b7a25fb9afa99e705e22ce03eeb0cd22d813fb8ab0853a3ca0f494"

@claim("boot")
def test_boot(evidence):
    evidence.figure("f", Drawn())
    assert evidence(measured(bootstrap(VALUES, np.arange(60)))).held

@pytest.mark.control(of="boot", fault="errors three times as large")
def test_boot_control(evidence):
    assert evidence(measured(bootstrap(3 * VALUES, np.arange(60)))).refuted

@claim("middle")
def test_median(evidence):
    assert evidence(measured(median(VALUES, unit="rows"))).held

@claim("hits")
def test_share(evidence):
    assert evidence(measured(share(3, 60, unit="rows"))).held

@claim("seeds")
def test_seeds(evidence):
    assert evidence(measured(student_t(VALUES[:5] + 0.5, unit="seeds"))).held

@claim("exact")
def test_exact(evidence):
    assert evidence(measured(Interval.exact(0.25, n=60))).held

@claim("missing")
def test_missing(evidence):
    raise NotAvailable("no such file")

@claim("broken")
def test_broken(evidence):
    raise DataError("a bad row")
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder with toy checks and the report of their session."""
    folder = tmp_path_factory.mktemp("toy")
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_toy_for_verify.py").write_text(CHECKS)
    command = [sys.executable, "-m", "pytest", "--report", "out", *PLAIN]
    subprocess.run(command, cwd=folder, check=False, capture_output=True)  # noqa: S603
    return folder


@pytest.fixture
def out(written, tmp_path, monkeypatch):
    """A copy of the report, in a folder where no checks are."""
    shutil.copytree(written / "out", tmp_path / "out")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "out"


def falsehoods(folder, **options):
    found = verify(folder, **options)
    said = [line for line in found.lines() if line.startswith("FALSE ")]
    assert bool(said) is not found.true
    return said


def test_an_honest_session_is_true_in_every_record(out, written, capsys):
    checks = written / "test_toy_for_verify.py"
    assert main(["verify", str(out), "--checks", str(checks)]) == 0
    said = capsys.readouterr().out.splitlines()
    drawn, code = "interval drawn again from {} units", "bound as in the code"
    assert said == [
        f"true  boot: held by its numbers, {drawn.format(60)}, {code}",
        "true  control of boot: errors three times as large: refuted by its numbers, "
        f"{drawn.format(60)}, {code}",
        f"true  middle: held by its numbers, {drawn.format(60)}, {code}",
        f"true  hits: held by its numbers, {drawn.format(60)}, {code}",
        f"true  seeds: inconclusive by its numbers, {drawn.format(5)}, {code}",
        f"true  exact: held by its numbers, exact, {code}",
        f"true  missing: not run, {code}",
        f"true  broken: not run, {code}",
        "8 records, 0 of them false; 0 more falsehoods in files",
    ]
    assert main(["verify", str(out)]) == 0
    assert "note: there is no checks here, so bounds and words were not" in capsys.readouterr().out


# --- one edit each


def text(name, before, after):
    """An edit of the first such words in a file."""

    def edit(folder):
        path = folder / name
        content = path.read_text(encoding="utf-8")
        assert before in content
        path.write_text(content.replace(before, after, 1), encoding="utf-8")

    return edit


def field(claim, control=False, **changes):
    """An edit of a record in evidence.json that leaves its form as it was."""

    def edit(folder):
        path = folder / "evidence.json"
        found = json.loads(path.read_text())
        (record,) = (r for r in found["claims"] if (r["id"], r["control"]) == (claim, control))
        assert changes.keys() <= record.keys()
        record.update(changes)
        path.write_text(json.dumps(found, sort_keys=True, indent=1, ensure_ascii=False) + "\n")

    return edit


def lines(change):
    """An edit of the journal's lines."""

    def edit(folder):
        path = folder / journal.NAME
        path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))

    return edit


def another_unit(folder):
    path = folder / "units" / "boot.npz"
    with np.load(path) as file:
        arrays = dict(file)
    arrays["sums"][1, 0] += 0.5
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    path.write_bytes(content.getvalue())


def gone(name):
    return lambda folder: (folder / name).unlink()


def extra(name):
    return lambda folder: (folder / name).write_text("{}")


EDITS = {
    # evidence: a number, a word, a record, a byte
    "observed": (field("boot", observed=0.55), "FALSE boot: evidence.json: observed is 0.55"),
    "verdict": (
        field("hits", verdict="refuted"),
        "FALSE hits: evidence.json: verdict is 'refuted'",
    ),
    "end": (field("middle", ci_low=0.4), "FALSE middle: evidence.json: ci_low is 0.4, the journal"),
    "bound": (field("exact", bound_high=2.0), "FALSE exact: evidence.json: bound_high is 2.0"),
    "rows": (field("seeds", n=50), "FALSE seeds: evidence.json: n is 50, the journal says 5"),
    "coverage": (
        field("boot", coverage={"scored": 60, "of": 60}),
        "FALSE boot: evidence.json: coverage.of is 60, the journal says 61",
    ),
    "detail": (
        field("boot", details={"k": [1.5, "other"]}),
        "FALSE boot: evidence.json: details.k[1] is 'other', the journal says 'word'",
    ),
    "statement": (
        field("boot", statement="The boot is below 2."),
        "FALSE boot: evidence.json: statement is 'The boot is below 2.'",
    ),
    "reason": (field("missing", reason="lost"), "FALSE missing: evidence.json: reason is 'lost'"),
    "hash": (field("boot", inputs={}), "FALSE boot: evidence.json: inputs.elements.csv is nothing"),
    "chance": (field("boot", chance=0.01), "FALSE boot: evidence.json: chance is 0.01"),
    "fault": (
        field("boot", control=True, fault="errors"),
        "FALSE control of boot: errors three times as large: evidence.json: fault is 'errors'",
    ),
    "whole": (
        text("evidence.json", '"complete": true', '"complete": false'),
        "FALSE evidence.json: session.complete is False, the journal says True",
    ),
    "sentence": (
        text("evidence.json", '   "verdict": "not run"\n', '   "verdict": "held"\n'),
        "FALSE ",
    ),
    "space": (
        text("evidence.json", '"claims": [', '"claims":  ['),
        "FALSE evidence.json has other bytes than a session writes",
    ),
    "double": (
        text("evidence.json", '"claims": [', '"claims": [], "claims": ['),
        "'claims' stands twice in one object",
    ),
    "record": (
        lambda folder: (folder / "evidence.json").write_text(
            json.dumps(
                (found := json.loads((folder / "evidence.json").read_text()))
                | {"claims": found["claims"][1:]}
            )
        ),
        "FALSE evidence.json has 7 records, the journal 8",
    ),
    "list": (
        lambda folder: (folder / "evidence.json").write_text("[]"),
        "FALSE evidence.json is no evidence",
    ),
    # page
    "page-word": (
        text("report.html", "The middle is below 1.", "The middle is below 9."),
        "FALSE report.html, line ",
    ),
    "page-number": (text("report.html", "60 of 61", "61 of 61"), "FALSE report.html, line "),
    "page-policy": (
        text("report.html", "default-src", "img-src"),
        "report.html, line ",
    ),
    "page-tail": (
        text("report.html", "</html>", "</html><b>fine</b>"),
        "FALSE report.html",
    ),
    "page-gone": (gone("report.html"), "FALSE report.html is gone"),
    # junit
    "junit-number": (
        text("junit.xml", 'name="evidence.n" value="60"', 'name="evidence.n" value="61"'),
        "after test_toy_for_verify test_boot: ",
    ),
    "junit-count": (
        text("junit.xml", 'errors="1"', 'errors="0"'),
        "FALSE junit.xml, line 3, after its",
    ),
    "junit-word": (text("junit.xml", "a bad row", "a good row"), "FALSE junit.xml, line "),
    "junit-gone": (gone("junit.xml"), "FALSE junit.xml is gone"),
    # what lies beside
    "unit": (another_unit, "FALSE boot: units/boot.npz was changed"),
    "units-gone": (gone("units/middle.npz"), "FALSE middle: units/middle.npz is gone"),
    "units-exchanged": (
        lambda folder: shutil.copy(folder / "units/middle.npz", folder / "units/boot.npz"),
        "units/boot.npz: they are the units of middle",
    ),
    "figure": (text("figures/boot-f.json", "1.25", "1.26"), "FALSE boot: figures/boot-f.json was"),
    "figure-gone": (gone("figures/boot-f.json"), "FALSE boot: figures/boot-f.json is gone"),
    "figure-extra": (extra("figures/more.json"), "FALSE figures/more.json is of no check"),
    "manifest": (
        text("manifest.json", '"evidence.json": "', '"evidence.json": "0'),
        "FALSE manifest",
    ),
    "manifest-gone": (gone("manifest.json"), "FALSE manifest.json is gone"),
    # journal
    "journal-number": (
        lines(lambda of: [line.replace(b'"of":61', b'"of":60', 1) for line in of]),
        "line 2 of journal.jsonl is damaged: it is not what its digest",
    ),
    "journal-line": (
        lines(lambda of: of[:3] + of[4:]),
        "line 4 of journal.jsonl is damaged: it was line 5: lines are gone, doubled or moved",
    ),
    "journal-swap": (
        lines(lambda of: [*of[:3], of[4], of[3], *of[5:]]),
        "line 4 of journal.jsonl is damaged: it was line 5",
    ),
    "journal-double": (
        lines(lambda of: [*of[:4], *of[3:]]),
        "it was line 4: lines are gone, doubled",
    ),
    "journal-end": (lines(lambda of: of[:-1]), "FALSE evidence.json: session.complete is True"),
    "journal-more": (lines(lambda of: [*of, b"{}"]), "journal.jsonl goes on after its end"),
    "journal-space": (
        lines(lambda of: [of[0].replace(b'"n":0', b'"n": 0'), *of[1:]]),
        "does not say what its session was about: line 1 of journal.jsonl is damaged",
    ),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_is_named(out, name):
    edit, says = EDITS[name]
    edit(out)
    try:
        found = falsehoods(out)
    except DataError as error:
        found = [str(error)]
    assert any(says in line for line in found), found


def test_the_exit_status_says_that_something_is_false(out, capsys):
    EDITS["observed"][0](out)
    assert main(["verify", str(out)]) == 1
    assert "8 records, 1 of them false; 1 more falsehoods in files" in capsys.readouterr().out


def test_an_edit_of_one_record_leaves_the_others_true(out):
    EDITS["detail"][0](out)
    said = list(verify(out).lines())
    assert sum(line.startswith("true ") for line in said) == 7


def test_the_place_of_an_edit_on_the_page_is_named(out):
    text("report.html", "The middle is below 1.", "The middle is below 9.")(out)
    (line,) = [one for one in falsehoods(out) if "report.html, line" in one]
    assert "below 9." in line
    assert "below 1." in line
    assert "after verdicts: " in line


def test_a_fixture_that_is_another_is_named_with_the_records_that_read_it(out, monkeypatch):
    shutil.copytree(fixtures_dir(), out.parent / "fixtures")
    monkeypatch.setattr(module, "fixtures_dir", lambda: out.parent / "fixtures")
    assert falsehoods(out) == []
    path = out.parent / "fixtures/elements.csv"
    path.write_bytes(path.read_bytes() + b"\n")
    said = falsehoods(out)
    assert len(said) == 6
    assert said[0].startswith("FALSE boot: elements.csv has not the sha256 70d3b24951b7")


# --- edits of everything alike: journal, and all that is made of it


def forge(folder, claim, **changes):
    """Change a record in the journal, with the right digests, and make all else again."""
    path = folder / journal.NAME
    made = []
    for n, line in enumerate(path.read_text().splitlines()):
        entry = json.loads(line)["entry"]
        record = entry.get("record")
        if record and record["id"] == claim and not record["control"]:
            record.update(changes)
        made.append(journal._line(n, entry))
    path.write_text("".join(made))
    products.make_again(folder)


@pytest.mark.parametrize(
    ("claim", "changes", "says"),
    [
        ("boot", {"observed": 0.51}, "observed is 0.51 and its units give 0.50"),
        ("boot", {"ci_high": 0.7}, "ci_high is 0.7 and its units give"),
        ("boot", {"resolution": 0.001}, "resolution is 0.001 and its units give"),
        ("middle", {"ci_low": 0.3}, "ci_low is 0.3 and its units give"),
        ("hits", {"n_clusters": 600}, "n_clusters is 600 and its units give 60"),
        ("hits", {"ci_method": "another"}, "ci_method is 'another' and its units"),
        ("seeds", {"verdict": "held"}, "it says held, and its numbers are inconclusive"),
        ("boot", {"coverage": {"scored": 61, "of": 61}}, "do not add up to 61"),
        ("exact", {"observed": 1.5, "ci_low": 1.5, "ci_high": 1.5}, "its numbers are refuted"),
        ("exact", {"ci_low": 0.2, "ci_high": 0.3}, "said to be exact and has an interval"),
        ("missing", {"ci_low": 0.2}, "it was not run and has numbers"),
        ("boot", {"inputs": {"elements.csv": "ab"}}, "elements.csv has not the sha256 ab"),
        ("boot", {"units": "units/middle.npz"}, "they are the units of middle"),
        ("boot", {"units": "units/none.npz"}, "is no file of units"),
        ("boot", {"figures": ["figures/none.json"]}, "the journal knows no figures/none.json"),
    ],
)
def test_whoever_makes_all_files_again_is_found_by_the_units_and_the_judge(
    out, claim, changes, says
):
    with suppress(DataError):  # no page is made of what contradicts itself
        forge(out, claim, **changes)
    said = falsehoods(out)
    assert any(says in line and line.startswith(f"FALSE {claim}: ") for line in said), said


@pytest.mark.parametrize(
    "changes",
    [
        {"bound_high": 2.0, "bound": 2.0},
        {"bound_reason": "another"},
        {"statement": "The boot is below 2."},
        {"basis": "another note"},
        {"least_coverage": 0.1},
        {"meaning": "weakness"},
        {"cases": "any"},
        {"unit": "eV"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_claim_that_is_not_that_of_the_code_is_named(out, written, changes):
    forge(out, "middle", **changes)
    (name, *_), (value, *_) = changes, changes.values()
    said = falsehoods(out, checks=written / "test_toy_for_verify.py")
    assert any(f"{name} is {value!r}, and in the code " in line for line in said), said
    if name not in ("bound_high", "unit"):  # ends of the bound are kept with the units
        assert falsehoods(out) == []


def test_a_claim_that_the_code_does_not_know_is_named(out, written):
    forge(out, "exact", id="other")
    said = falsehoods(out, checks=written / "test_toy_for_verify.py")
    assert said == ["FALSE other: the code has no claim 'other'"]


def test_checks_that_cannot_be_collected_are_said(out):
    (out.parent / "test_bad_for_verify.py").write_text("import no_such_module\n")
    with pytest.raises(DataError, match=r"test_bad_for_verify\.py cannot be collected"):
        verify(out, checks=out.parent / "test_bad_for_verify.py")


def test_what_only_another_run_can_tell_is_told_by_one(out, written, monkeypatch):
    monkeypatch.chdir(written)
    assert falsehoods(out, rerun=True) == []
    forge(out, "exact", observed=0.3, ci_low=0.3, ci_high=0.3, details={"k": [1.5, "other"]})
    assert falsehoods(out) == []
    (said,) = falsehoods(out, rerun=True)
    assert said.startswith("FALSE exact: run again, ci_high is 0.25 and not 0.3; run again, ci_low")
    assert "run again, observed is 0.25 and not 0.3" in said
    assert "run again, details is {'k': [1.5, 'word']} and not {'k': [1.5, 'other']}" in said


def test_a_session_that_cannot_be_run_again_says_so(out, written, monkeypatch):
    monkeypatch.chdir(out)  # where there are no checks
    with pytest.raises(DataError, match="left no evidence"):
        verify(out, rerun=True)


def test_numbers_alike_but_for_rounding():
    assert again._alike({"a": [1.0, "x", None]}, {"a": [1.0 + 1e-9, "x", None]})
    for other in ({"a": [1.001]}, {"a": [1]}, {"a": []}, {"b": [1.0]}, 1.0, {"a": ["1.0"]}):
        assert not again._alike({"a": [1.0]}, other)


def test_nothing_is_computed_again_where_there_is_no_such_model(out):
    found = verify(out, recompute=2)
    assert found.true
    assert "no prediction was computed again" in found.notes[-1]
    with pytest.raises(ConfigError, match="give a number from 1 up"):
        verify(out, recompute=-1)


# --- sessions that are not whole


def test_a_session_that_was_killed_is_true_as_far_as_it_goes(out, capsys):
    whole = (out / journal.NAME).read_bytes().splitlines(keepends=True)
    for name in ("evidence.json", "junit.xml", "report.html", "manifest.json"):
        (out / name).unlink()
    (out / journal.NAME).write_bytes(b"".join(whole[:2]) + whole[2][:100])
    assert main(["verify", str(out)]) == 0
    said = capsys.readouterr().out
    assert "note: there is no evidence.json yet; `python -m harness report` makes it" in said
    assert "ended without a word: killed, out of memory, or the machine stopped, while it" in said
    assert "true  boot: held by its numbers, interval drawn again from 60 units" in said
    assert "note: units/middle.npz is of the check that the session died in" in said
    assert main(["report", str(out)]) == 0
    assert main(["verify", str(out)]) == 0


def test_a_folder_without_a_journal_cannot_be_verified(tmp_path, capsys):
    assert main(["verify", str(tmp_path)]) == 2
    assert "No session kept its journal there" in capsys.readouterr().err
    assert Path(tmp_path).exists()
