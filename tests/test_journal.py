"""A journal is read as far as it goes, and says what is wrong with it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import ConfigError, DataError
from harness.report import journal, products
from harness.report.journal import NAME, Journal, read
from tests.test_evidence import CLAIM, MEASURED, Evidence

NOTHING = {"budget_minutes": None, "chosen": {}, "left_out": []}
ABOUT = {
    "started": "2026-01-02T03:04:05+00:00",
    "model": "m",
    "dataset": "d",
    "command": "pytest x",
}


def outcome(test, **more):
    return {"test": test, "outcome": "passed", "seconds": 0.5, "message": "", "text": "", **more}


def check(place, test, record=None, **more):
    given = {"outcome": outcome(test), "error": "", "files": {}, "not_written": []}
    found = None if record is None else record.as_dict()
    return {"place": place, "record": found, **given, **more}


def record(case):
    return Evidence.of(CLAIM, MEASURED, case=case, test=f"t::{case}")


def begin(kept):
    kept.tell("begin", at=0.0, about=ABOUT, budget_minutes=None, chosen={"t::a": ""}, left_out=[])


def told(folder, *checks, end=True):
    """A journal of a session with cases b and a, told in this order."""
    kept = Journal(folder / NAME)
    begin(kept)
    chosen = {"t::a": "k[a]", "t::b": "k[b]"}
    kept.tell("chosen", at=0.0, chosen=chosen, left_out=["k[c]"])  # as from another process
    for one in checks or (check(1, "t::b", record("b")), check(0, "t::a", record("a"))):
        kept.tell("check", at=1.25, **one)
    if end:
        kept.tell("end", at=2.0, stopped="", notes={"store": {"found": 1}})
    return kept


def test_what_is_remembered_is_what_is_read(tmp_path):
    kept = told(tmp_path)
    assert read(tmp_path) == kept.told
    found = kept.told.session()
    assert [e.case for e in found.claims] == ["a", "b"]  # as they were collected
    assert found.session["seconds"] == 2.0
    assert found.session["store"] == {"found": 1}
    assert (found.complete, found.left_out) == (True, ("k[c]",))
    assert kept.problem == ""


def test_words_are_printable_before_they_are_written(tmp_path):
    odd = check(0, "t::a", error="\x1b[2J caf\udce9", outcome=outcome("t::a", text="\u202e"))
    kept = told(tmp_path, odd)
    assert (tmp_path / NAME).read_bytes().isascii()
    assert kept.told.errors == [{"test": "t::a", "message": "\\x1b[2J caf\\udce9"}]
    assert read(tmp_path) == kept.told


def test_numbers_survive_to_the_last_bit(tmp_path):
    values = [0.1 + 0.2, 1e-320, 2**53 + 1, -0.0, 1 / 3]
    found = Evidence.of(CLAIM, replace(MEASURED, details={"x": values}))
    told(tmp_path, check(0, "t::a", found))
    assert list(map(repr, read(tmp_path).evidence[0].details["x"])) == list(map(repr, values))


def test_a_number_that_is_none_is_not_told(tmp_path):
    kept = told(tmp_path, end=False)
    before = (tmp_path / NAME).read_bytes()
    with pytest.raises(ValueError, match="not JSON compliant"):
        kept.tell("end", at=1.0, stopped="", notes={"x": float("nan")})
    assert (tmp_path / NAME).read_bytes() == before


def test_every_cut_is_read_up_to_it_and_told_from_damage(tmp_path):
    told(tmp_path)
    raw = (tmp_path / NAME).read_bytes()
    ends = [i + 1 for i, byte in enumerate(raw) if byte == ord("\n")]
    for cut in [*range(1, len(raw), 97), *ends, *(end - 1 for end in ends)]:
        (tmp_path / NAME).write_bytes(raw[:cut])
        whole = sum(end <= cut for end in ends)
        if whole == 0:
            with pytest.raises(
                DataError, match="does not say what its session was about: it is em"
            ):
                read(tmp_path)
            continue
        found = read(tmp_path)
        assert found.damage == []
        assert found.torn == (cut not in ends)
        assert found.ended == (whole == len(ends))
        assert len(found.found) == min(max(whole - 2, 0), 2)
        if not found.ended:
            said = found.incomplete
            assert said.startswith("it ended without a word: killed, out of memory, or the machine")
            assert said.endswith(", while it wrote a line") == found.torn
            assert not found.session().complete


def test_every_turned_bit_of_a_line_is_named_and_costs_that_line_only(tmp_path):
    told(tmp_path)
    raw = (tmp_path / NAME).read_bytes()
    start = len(b"".join(raw.splitlines(keepends=True)[:2]))
    end = start + len(raw.splitlines(keepends=True)[2])
    for at in range(start, end - 1, 41):
        for bit in (0, 5):
            turned = bytearray(raw)
            turned[at] ^= 1 << bit
            if turned[at] == ord("\n"):
                continue
            (tmp_path / NAME).write_bytes(bytes(turned))
            found = read(tmp_path)
            assert [d.partition(":")[0] for d in found.damage] == [
                "line 3 of journal.jsonl is damaged"
            ]
            assert [e.case for e in found.evidence] == ["a"]
            assert found.incomplete == found.damage[0]
            assert found.ended


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda of: [*of[:2], *of[3:]], "line 3 of journal.jsonl is damaged: it was line 4"),
        (lambda of: [*of[:3], of[2], *of[3:]], "line 4 of journal.jsonl is damaged: it was line 3"),
        (lambda of: [*of, b"more"], "journal.jsonl goes on after its end"),
        (
            lambda of: [*of[:2], b"{}\n", *of[3:]],
            "line 3 of journal.jsonl is damaged: it is no line",
        ),
        (lambda of: [*of[:2], b"[" * 9**5 + b"\n", *of[3:]], "nested too deeply"),
        (
            lambda of: [*of[:2], b"\xff\n", *of[3:]],
            "line 3 of journal.jsonl is damaged: it is not JSON",
        ),
        (lambda of: [*of[:2], b"\x00" * 80 + b"\n", *of[3:]], "line 3 of journal.jsonl is damaged"),
    ],
)
def test_lines_gone_doubled_or_of_another_make_are_named(tmp_path, change, says):
    told(tmp_path)
    raw = (tmp_path / NAME).read_bytes()
    (tmp_path / NAME).write_bytes(b"".join(change(raw.splitlines(keepends=True))))
    found = read(tmp_path)
    assert says in found.damage[0]
    assert not found.session().complete


@pytest.mark.parametrize(
    ("what", "entry", "says"),
    [
        ("begun", {}, "no line of a journal tells 'begun'"),
        (["begin"], {}, "no line of a journal tells"),
        ("begin", {"about": [], **NOTHING}, "Expected `object`, got `array`"),
        ("begin", {"about": {"seconds": "x"}, **NOTHING}, "Expected `float`"),
        ("begin", {"about": {}, **NOTHING, "chosen": []}, "Expected `object`, got `array`"),
        ("chosen", {"chosen": {"a": 1}, "left_out": []}, "Expected `str`, got `int`"),
        ("check", {}, "missing required field"),
        ("check", check(0, "t", outcome=outcome("t", seconds="x")), "Expected `float`"),
        ("check", {**check(0, "t"), "place": "0"}, "Expected `int`, got `str`"),
        ("check", {**check(0, "t"), "record": {"id": "x"}}, "evidence record 'x'"),
        ("end", {"stopped": None, "notes": {}}, "Expected `str`, got `null`"),
    ],
)
def test_an_entry_of_other_types_is_refused(tmp_path, what, entry, says):
    with pytest.raises(DataError, match=says):
        Journal(None).tell(what, at=0.0, **entry)


def test_what_found_no_place_is_written_before_the_next_line(tmp_path, monkeypatch):
    kept = Journal(tmp_path / NAME)
    begin(kept)
    whole = (tmp_path / NAME).read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(journal.os, "fsync", full)  # after a part of it was written
        kept.tell("chosen", at=0.0, chosen={}, left_out=[])
        kept.tell("check", at=1.0, **check(0, "t::a", record("a")))
        assert kept.problem == (
            f"{tmp_path / NAME} lacks its last 2 lines: No space left on device"
        )
        assert len(kept.told.evidence) == 1
    kept.tell("end", at=2.0, stopped="", notes={})
    assert kept.problem == ""
    assert read(tmp_path) == kept.told
    assert (tmp_path / NAME).read_bytes().startswith(whole)


def test_a_journal_without_a_file_remembers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kept = Journal(None)
    begin(kept)
    assert kept.told.about == ABOUT
    assert kept.problem == ""
    assert list(Path().iterdir()) == []


def test_the_first_record_and_the_first_error_of_a_check_count(tmp_path):
    later = check(5, "t::a", record("b"), error="second", outcome=outcome("t::a", outcome="error"))
    kept = told(tmp_path, check(0, "t::a", record("a"), error="first"), later)
    assert [e.case for e in kept.told.evidence] == ["a"]
    assert kept.told.errors == [{"test": "t::a", "message": "first"}]
    assert [one.outcome for one in kept.told.outcomes] == ["passed", "error"]
    assert kept.told.not_reached == ["k[b]"]
    assert kept.told.incomplete == "1 checks left no record"


def test_there_is_no_journal(tmp_path):
    with pytest.raises(
        DataError, match=r"cannot be read: No such file.*No session kept its journal"
    ):
        read(tmp_path)
    (tmp_path / NAME).write_bytes(b"\n")
    with pytest.raises(
        DataError, match="does not say what its session was about: line 1 of journal"
    ):
        read(tmp_path)


# --- of whose making


def test_a_session_at_work_is_told_from_one_that_died(tmp_path):
    told(tmp_path, end=False)
    taken = products.lock(tmp_path)
    assert products.read(tmp_path).incomplete == "it is still running"
    assert products.load(tmp_path).session["incomplete_reason"] == "it is still running"
    with pytest.raises(ConfigError, match="is the report folder of a session that is at work"):
        products.lock(tmp_path)
    taken.release()
    assert products.read(tmp_path).incomplete.startswith("it ended without a word")
    told(tmp_path / "..")  # elsewhere, and whole
    assert products.read(tmp_path.parent).incomplete == ""


def test_reports_are_the_same_whoever_makes_them(tmp_path, capsys):
    kept = told(tmp_path)
    session, problems = products.write_all(tmp_path, kept.told)
    assert problems == []
    names = ("evidence.json", "junit.xml", "report.html", "manifest.json")
    before = {name: (tmp_path / name).read_bytes() for name in names}
    for name in names:
        (tmp_path / name).unlink()
    assert products.make_again(tmp_path) == [str(tmp_path / "report.html")]
    assert {name: (tmp_path / name).read_bytes() for name in names} == before
    assert products.load(tmp_path) == session
    hashes = json.loads(before["manifest.json"])
    assert hashes["evidence.json"] == products.sha256_of(tmp_path / "evidence.json")
    assert set(hashes) == {NAME, *names[:3]}


def test_a_report_that_finds_no_place_is_said(tmp_path, monkeypatch):
    told(tmp_path, end=False)
    monkeypatch.setattr(products, "junit", lambda *_: 1 / 0)
    with pytest.raises(DataError, match=r"not written: .*junit\.xml: ZeroDivisionError"):
        products.make_again(tmp_path)
    assert (tmp_path / "evidence.json").exists()


def test_of_a_session_without_a_journal_the_page_is_made(tmp_path):
    kept = told(tmp_path)
    kept.told.session().save(tmp_path)
    (tmp_path / NAME).unlink()
    assert products.make_again(tmp_path) == [str(tmp_path / "report.html")]
    assert {p.name for p in tmp_path.iterdir()} == {"evidence.json", "report.html"}
