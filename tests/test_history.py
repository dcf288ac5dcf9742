"""Past sessions: in order of time, compared with their like, changes and damage said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.claims import Bound, Claim, Interval, Kind, Meaning, Measurement, above, below
from harness.errors import DataError
from harness.evidence import Evidence, Session
from harness.report.history import history, render

SHA = "0123456789abcdef" * 4


def claim(id: str, bound: Bound) -> Claim:
    return Claim(
        id=id,
        statement=f"{id} is so.",
        basis="a note",
        bound=bound,
        kind=Kind.FINDING,
        meaning=Meaning.STRENGTH,
    )


def measured(low: float, high: float, *, method: str = "bootstrap", **more: Any) -> Measurement:
    middle = (low + high) / 2
    interval = Interval(estimate=middle, low=low, high=high, n=8, n_clusters=7, method=method)
    given = {"quantity": "MAE", "scored": 8, "of": 8, "dataset": "embedded", "model": "chgnet"}
    return Measurement(interval=interval, **given | more)


BEATS = claim("zero-shot.beats-baseline", below(0.11, "eV/atom", "the composition baseline"))
SOFT = claim("softening.morse", above(10, "", "written in the note"))
SILICON = claim("mattersim.runs", below(0.01, "eV/atom", "the model card"))


def session(*claims: Evidence, day: int = 24, **info: Any) -> Session:
    return Session(
        session={
            "started": f"2026-07-{day}T10:00:00+00:00",
            "model": "chgnet-0.3.0",
            "dataset": "matbench_mp_e_form",
            "size": "quick",
            "sample": None,
            **info,
        },
        claims=claims,
    )


def saved(found: Session, folder: Path) -> None:
    folder.mkdir()
    found.save(folder)


@pytest.fixture
def reports(tmp_path):
    """Two sessions, one damaged folder of each kind, a link and a folder without evidence."""
    old = (
        Evidence.of(BEATS, measured(0.033, 0.035), case="refit", fold=0),
        Evidence.of(SOFT, measured(5, 9)),
        Evidence.not_run(SILICON, "not installed\nand more"),
        Evidence.of(BEATS, measured(4, 5), control=True, fault="total energies"),
    )
    new = (
        Evidence.of(BEATS, measured(0.120, 0.122), case="refit", fold=0),
        Evidence.of(SOFT, measured(5.1, 9.2)),
    )
    saved(session(*old, day=24), tmp_path / "b-first")
    saved(session(*new, day=25), tmp_path / "a-second")
    for name, text in (("cut", '{"schema": 2,'), ("other", "[]"), ("empty", '{"schema": 2}')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "evidence.json").write_text(text)
    (tmp_path / "latest").symlink_to("a-second", target_is_directory=True)
    (tmp_path / "notes").mkdir()
    return tmp_path


def test_history_is_in_order_of_time_with_damaged_folders_named(reports):
    found = history(reports)
    assert [p.folder.name for p in found] == ["b-first", "a-second", "cut", "empty", "other"]
    assert [p.session is None for p in found] == [False, False, True, True, True]
    assert [p.started for p in found[1:3]] == ["2026-07-25T10:00:00+00:00", ""]
    lines = list(render(found))
    damaged = [line for line in lines if line.startswith("damaged: ")]
    assert len(damaged) == 3
    assert all("evidence.json" in line for line in damaged)
    assert lines[-3:] == damaged


def test_a_session_of_an_earlier_schema_is_named_and_not_compared(tmp_path):
    (tmp_path / "evidence.json").write_text('{"schema": 1}')
    (line,) = list(render(history(tmp_path)))[1:]
    assert line.endswith("has schema 1, this version reads 2 and 3.")


def test_a_session_that_is_no_record_is_damaged(tmp_path):
    (tmp_path / "evidence.json").write_text('{"schema": 2, "session": [], "claims": []}')
    (line,) = list(render(history(tmp_path)))[1:]
    assert "Expected `object`, got `array` - at `$.session`" in line


def test_history_says_what_was_found_and_marks_what_changed(reports):
    assert list(render(history(reports)))[:-3] == [
        "chgnet-0.3.0 on matbench_mp_e_form, quick, all rows: 2 sessions",
        "  zero-shot.beats-baseline[refit] fold0",
        "    2026-07-24 10:00  held          0.0340 [0.0330, 0.0350] eV/atom, bound < 0.11",
        "  * 2026-07-25 10:00  refuted       0.1210 [0.1200, 0.1220] eV/atom, bound < 0.11   was "
        "held; moved: the intervals do not overlap",
        "  softening.morse",
        "    2026-07-24 10:00  refuted       7 [5, 9], bound > 10",
        "    2026-07-25 10:00  refuted       7.15 [5.1, 9.2], bound > 10",
        "  mattersim.runs",
        "    2026-07-24 10:00  not run       not installed",
        "  * 2026-07-25 10:00  absent from this session",
    ]


def test_what_an_incomplete_session_lacks_is_not_gone(tmp_path):
    saved(session(Evidence.of(BEATS, measured(0.03, 0.04))), tmp_path / "a")
    cut = session(Evidence.of(SOFT, measured(11, 12)), day=25, complete=False)
    saved(cut, tmp_path / "b")
    lines = list(render(history(tmp_path)))
    assert lines[-1] == ("  * 2026-07-25 10:00  absent from this session, which is not complete")


def test_history_shows_the_last_sessions_only(reports):
    lines = list(render(history(reports), last=1))
    assert not any("2026-07-24" in line and "held" in line for line in lines)
    assert any("2026-07-25" in line and "was held" in line for line in lines)


def compared(folder: Path, before: Evidence, now: Evidence) -> str:
    """What is said of the later of two sessions."""
    saved(session(before, day=24), folder / "a")
    saved(session(now, day=25), folder / "b")
    return list(render(history(folder)))[-1].partition(", bound ")[2].partition("   ")[2]


def test_history_says_when_the_bound_or_an_input_changed(tmp_path):
    looser = claim(BEATS.id, below(0.2, "eV/atom", "a looser one"))
    before = Evidence.of(BEATS, measured(0.033, 0.035, inputs={"b": SHA, "a": SHA, "c": SHA}))
    now = Evidence.of(
        looser, measured(0.033, 0.035, inputs={"a": "x", "b": "y", "c": SHA, "d": ""})
    )
    assert compared(tmp_path, before, now) == "the bound was < 0.11; other content of a, b"


def test_history_says_when_the_unit_changed_and_compares_no_numbers_then(tmp_path):
    plain = claim(BEATS.id, below(0.11, "", "the same"))
    before = Evidence.of(plain, measured(0.033, 0.035))
    now = Evidence.of(BEATS, measured(0.05, 0.06))
    assert compared(tmp_path, before, now) == "the unit was none"


@pytest.mark.parametrize(
    ("before", "now", "moved"),
    [
        ((0.02, 0.03), (0.03, 0.04), False),  # they touch
        ((0.02, 0.03), (0.031, 0.04), True),
        ((0.03, 0.04), (0.02, 0.03), False),
        ((0.03, 0.04), (0.02, 0.029), True),
        # without width: by more than a tenth of the way to the bound, which is 0.11
        ((0.01, 0.01), (0.0199, 0.0199), False),
        ((0.01, 0.01), (0.0201, 0.0201), True),
        ((0.03, 0.03), (0.0221, 0.0221), False),
        ((0.03, 0.03), (0.0219, 0.0219), True),
        ((0.03, 0.03), (0.031, 0.032), True),  # one of them has a width
    ],
)
def test_numbers_moved_where_their_intervals_are_apart(tmp_path, before, now, moved):
    found = compared(
        tmp_path, Evidence.of(BEATS, measured(*before)), Evidence.of(BEATS, measured(*now))
    )
    assert found == ("moved: the intervals do not overlap" if moved else "")


def test_nothing_moves_from_what_was_not_run(tmp_path):
    before, now = Evidence.not_run(BEATS, "no data"), Evidence.of(BEATS, measured(0.03, 0.04))
    assert compared(tmp_path, before, now) == "was not run"


def test_a_number_without_width_is_shown_alone(tmp_path):
    saved(session(Evidence.of(BEATS, measured(0.03, 0.03))), tmp_path / "a")
    assert list(render(history(tmp_path)))[-1].endswith(
        "held          0.0300 eV/atom, bound < 0.11"
    )


@pytest.mark.parametrize(
    "other",
    [
        {"dataset": "embedded"},
        {"model": "sevennet-0"},
        {"size": "nightly"},
        {"sample": 1000},
    ],
)
def test_sessions_on_other_rows_or_of_other_models_are_not_compared(tmp_path, other):
    saved(session(Evidence.of(BEATS, measured(0.2, 0.21)), **other), tmp_path / "a")
    saved(session(Evidence.of(BEATS, measured(0.03, 0.04)), day=25), tmp_path / "b")
    lines = list(render(history(tmp_path)))
    assert not any("*" in line for line in lines)
    assert sum("1 session" in line for line in lines) == 2


def test_what_was_compared_is_said(tmp_path):
    found = Evidence.of(BEATS, measured(0.2, 0.21))
    saved(session(found, size="nightly", sample=1000), tmp_path / "a")
    assert next(render(history(tmp_path))) == (
        "chgnet-0.3.0 on matbench_mp_e_form, nightly, at most 1000 rows a fold: 1 session"
    )
    assert history(tmp_path)[0].subject == (
        "chgnet-0.3.0",
        "matbench_mp_e_form",
        "nightly",
        "at most 1000 rows a fold",
    )


def test_history_of_nothing(tmp_path):
    assert list(render(history(tmp_path))) == ["no session to show"]
    with pytest.raises(DataError, match="is no folder"):
        history(tmp_path / "absent")
