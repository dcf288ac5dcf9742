"""Documented numbers: what a file may say, what moved in a record, and what of a catalogue did."""

from dataclasses import replace
from pathlib import Path

import pytest

from harness.claims import Claim, Kind, Meaning, Size, Verdict, below, between
from harness.errors import ConfigError
from harness.evidence import Evidence, Session
from harness.report.pins import (
    DEFAULT,
    Pins,
    Within,
    all_moved,
    altered,
    beside,
    described,
    disagreeing,
    load_pins,
    name_of,
    pinned,
    unlike,
)
from harness.report.verdicts import SAMPLED_OUT

ROOT = Path(__file__).parents[1]


def record(**changes):
    given = {
        "id": "c.mae",
        "verdict": Verdict.HELD,
        "statement": "s",
        "basis": "b",
        "kind": Kind.FINDING,
        "meaning": Meaning.STRENGTH,
        "dataset": "d",
        "model": "m (self)",
        "subject": "m",
        "quantity": "MAE",
        "unit": "eV",
        "bound_high": 2.0,
        "observed": 1.0,
        "ci_low": 0.5,
        "ci_high": 1.5,
        "ci_method": "bootstrap over 8 formulas",
        "n": 10,
        "n_clusters": 8,
        "coverage": {"scored": 10, "of": 12},
        "excluded": {"isolated": 2},
        "inputs": {"m": "a" * 64},
        "details": {"config": {"seed": 0, "rate": 0.1}},
        "fold": 0,
        "test": "checks/test_c.py::test_mae[fold0]",
    }
    return Evidence(**{**given, **changes})


def session(*records, **about):
    return Session(
        session={"model": "m", "dataset": "d", "size": "quick", **about}, claims=tuple(records)
    )


@pytest.fixture
def pins_of(tmp_path):
    """What is on record after these were written, and read again."""

    def of(*records, pins=None, catalogue=()):
        verdicts = tmp_path / "v.toml"
        text = pinned(pins or Pins(), [session(*records, catalogue=list(catalogue))], "v.toml")
        beside(verdicts).write_text(text, encoding="utf-8")
        return load_pins(verdicts)

    return of


# --- what moved in a record


def test_what_was_written_does_not_move(pins_of):
    found = record()
    assert pins_of(found).moved(found) == ""
    exact = record(ci_low=1.0, ci_high=1.0, ci_method="exact", details={})
    assert pins_of(exact).moved(exact) == ""


@pytest.mark.parametrize("name", ["observed", "ci_low", "ci_high"])
def test_a_number_moves_by_a_share_of_half_the_interval(pins_of, name):
    pins = pins_of(record(), pins=Pins(within={"*": Within(0.1, "why")}))
    value = getattr(record(), name)
    assert pins.moved(replace(record(), **{name: value + 0.0499})) == ""
    says = pins.moved(replace(record(), **{name: value - 0.0501}))
    shown = name.removeprefix("ci_")
    assert says.startswith(f"c.mae fold0 on d: {shown} {value:g} -> {value - 0.0501:.6g} (it may")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"coverage": {"scored": 9, "of": 11}}, "rows 10 of 12 -> 9 of 11"),
        ({"n": 20}, "n 10 -> 20"),
        ({"n_clusters": 10}, "units 8 -> 10"),
        ({"ci_method": "percentiles"}, "method bootstrap over 8 formulas -> percentiles"),
        ({"bound_high": 3.0}, "bound < 2 eV -> < 3 eV"),
        ({"bound_low": 0.1}, "bound < 2 eV -> 0.1 to 2 eV"),
        ({"unit": "meV"}, "bound < 2 eV -> < 2 meV"),
        ({"inputs": {"m": "b" * 64}}, "inputs {m: aaaaaaaaaaaa} -> {m: bbbbbbbbbbbb}"),
        ({"excluded": {}}, "lost {isolated: 2} -> none"),
        ({"absent": {"why": 1}}, "lost {isolated: 2} -> {isolated: 2, absent: why: 1}"),
        ({"details": {"config": {"seed": 1, "rate": 0.1}}}, "settings "),
        ({"details": {}}, "settings "),
    ],
)
def test_rows_bounds_and_settings_may_not_move_at_all(pins_of, changes, says):
    assert says in pins_of(record()).moved(replace(record(), **changes))


def test_what_was_measured_is_no_setting(pins_of):
    pins = pins_of(record())
    config = record().details["config"]
    for details in (
        {"config": {**config, "device": "cuda"}},
        {"config": config, "mae_of": 3.0},
    ):
        assert pins.moved(replace(record(), details=details)) == ""
    rows = record(details={"settings": [{"ratio": 1.0}]})
    assert pins_of(rows).moved(replace(rows, details={"settings": [{"ratio": 2.0}]})) == ""


def test_members_and_learners_are_settings_but_not_what_they_predicted(pins_of):
    def made(seed, digest):
        members = [{"model": "a", "settings": {"seed": seed}, "predictions_sha256": digest}]
        return record(details={"members": members})

    pins = pins_of(made("0", "x"))
    assert pins.moved(made("0", "y")) == ""
    assert "settings" in pins.moved(made("1", "x"))


def test_an_exact_number_moves_by_a_share_of_its_bounds_margin(pins_of):
    def exact(value, **bound):
        return record(observed=value, ci_low=value, ci_high=value, **bound)

    within = Pins(within={"*": Within(0.1, "why")})
    for found, allowed in (
        (exact(1e-9), 0.2),  # below 2
        (exact(0.5, bound_low=0.0, bound_high=1.0), 0.05),
        (exact(0.3, bound_low=None, bound_high=0.0), 0.03),
        (exact(9.0, verdict=Verdict.REFUTED), 0.7),  # as far beyond the bound as it lies
    ):
        pins = pins_of(found, pins=within)
        for factor, moves in ((0.999, False), (1.001, True)):
            value = found.observed + factor * allowed
            other = replace(found, observed=value, ci_low=value, ci_high=value)
            assert bool(pins.moved(other)) == moves, (found.observed, factor)


def test_counts_of_draws_may_move_where_that_is_said(pins_of):
    within = {**DEFAULT, "c.*": Within(1.0, "draws", rows=0.2)}
    pins = pins_of(record(), pins=Pins(within=within))
    drawn = {
        "n": 12,
        "n_clusters": 9,
        "coverage": {"scored": 11, "of": 12},
        "excluded": {"isolated": 1},
        "ci_method": "bootstrap over 9 formulas",
    }
    assert pins.moved(record(**drawn)) == ""
    assert "n 10 -> 14" in pins.moved(record(**{**drawn, "n": 14}))
    assert "method" in pins.moved(record(**{**drawn, "ci_method": "jackknife over 9 formulas"}))
    assert "lost" in pins.moved(record(**{**drawn, "excluded": {}}))


def test_the_last_pattern_that_fits_decides():
    pins = Pins(within={"*": Within(1, "a"), "c.*": Within(2, "b"), "c.mae": Within(3, "c")})
    assert [pins.tolerance(c).half_widths for c in ("x", "c.x", "c.mae")] == [1, 2, 3]
    assert Pins(within={}).tolerance("x") == DEFAULT["*"]


def test_another_size_subject_or_data_set_is_another_measurement(pins_of):
    pins = pins_of(record())
    for other in ({"size": Size.NIGHTLY}, {"subject": "n"}, {"dataset": "e"}, {"fold": 1}):
        assert pins.moved(record(observed=1.4, **other)) == ""
    assert pins.moved(record(observed=1.4, absent={SAMPLED_OUT: 5})) == ""
    not_run = Evidence.not_run(CLAIM, "no data", dataset="d", subject="m", fold=0)
    assert pins.moved(not_run) == ""


CLAIM = Claim(
    id="c.mae",
    statement="s",
    basis="b",
    bound=below(2.0, "eV", "why"),
    kind=Kind.FINDING,
    meaning=Meaning.STRENGTH,
    bounds_on={"e": between(0.1, 1.0, "eV", "why")},
)


def test_a_control_is_known_by_its_test_and_missed_where_it_is_not_run(pins_of):
    caught = record(
        control=True, verdict=Verdict.REFUTED, observed=3.0, ci_low=2.5, ci_high=3.5, fault="grown"
    )
    assert name_of(caught) == "c.mae control test_mae[fold0]"
    pins = pins_of(record(), caught)
    assert pins.moved(caught) == ""
    assert "observed 3 -> 9" in pins.moved(replace(caught, observed=9.0))
    assert "fault grown -> shrunk" in pins.moved(replace(caught, fault="shrunk"))
    gone = Evidence.not_run(
        CLAIM, "cannot tell", dataset="", subject="m", control=True, test=caught.test, fault="grown"
    )
    assert pins.moved(gone) == (
        "c.mae control test_mae[fold0] was caught once, and is not run: cannot tell"
    )
    assert pins.moved(replace(gone, lacks_data=True)) == ""
    assert pins.moved(replace(gone, subject="other")) == ""
    assert pins.moved(replace(gone, size=Size.NIGHTLY)) == ""


# --- a session


def test_a_session_says_what_moved_and_what_is_not_on_record(pins_of):
    pins = pins_of(record())
    assert list(unlike(pins, session(record()))) == []
    (line,) = unlike(pins, session(record(observed=1.4)))
    assert line.startswith("c.mae fold0 on d: observed 1 -> 1.4")
    new = record(case="new", details={})
    (line,) = unlike(pins, session(record(), new))
    assert line == "c.mae[new] fold0 on d: no number is on record for it"
    assert list(unlike(pins, session(record(), replace(new, dataset="e")))) == []


def test_what_is_known_on_the_sessions_data_was_not_measured_on_others(pins_of):
    pins = pins_of(record())
    renamed = record(dataset="e")
    says = "c.mae fold0 is known of m on d, and was measured of m on e"
    assert all_moved(pins, [renamed], {"d"}, "m") == [says]
    assert list(unlike(pins, session(renamed))) == [says]
    assert all_moved(pins, [renamed], {"e"}, "m") == []
    other = record(subject="n")
    assert all_moved(pins, [other], {"d"}, "m") == [
        "c.mae fold0 is known of m on d, and was measured of n on d"
    ]
    assert all_moved(pins, [other], {"d"}, "n") == []  # another model under test
    assert all_moved(pins, [replace(renamed, size=Size.NIGHTLY)], {"d"}, "m") == []
    assert all_moved(pins, [replace(renamed, absent={SAMPLED_OUT: 1})], {"d"}, "m") == []
    assert all_moved(pins, [replace(renamed, control=True)], {"d"}, "m") == []


def test_claims_about_one_subject_come_of_the_same_predictions():
    def made(digest, **changes):
        details = {"predictions_sha256": digest, "config": {"seed": 0}}
        return record(**{"details": details, **changes})

    assert list(disagreeing([made("a"), made("a", id="c.offset")])) == []
    (line,) = disagreeing([made("a"), made("b", id="c.offset")])
    assert line == (
        "c.offset fold0 and c.mae fold0 are both about m (self) on d, and were made from different "
        "predictions"
    )
    for other in (
        {"model": "m (refit)"},
        {"dataset": "e"},
        {"fold": 1},
        {"control": True},
        {"details": {"predictions_sha256": "b", "config": {"seed": 1}}},
        {"details": {}},
    ):
        assert list(disagreeing([made("a"), made("b", **other)])) == []


# --- the catalogue


def test_a_catalogue_says_what_of_it_is_not_as_it_was(pins_of, tmp_path):
    entry = described(CLAIM, "test_c.py", ["shrunk", "grown"])
    assert entry["bound"] == "< 2 eV"
    assert entry["bounds_on"] == {"e": "in (0.1, 1) eV"}
    assert entry["controls"] == ["grown", "shrunk"]
    pins = pins_of(catalogue=[entry])
    everything = [tmp_path.resolve()]
    assert altered(pins, [entry], everything) == []
    loose = described(replace(CLAIM, bound=below(3.0, "eV", "why")), "test_c.py", ["grown"])
    assert altered(pins, [loose], everything) == [
        "claim c.mae: bound < 2 eV -> < 3 eV",
        "claim c.mae: control 'shrunk' is gone",
    ]
    more = described(replace(CLAIM, bounds_on={}), "test_c.py", ["grown", "shrunk", "shrunk"])
    assert altered(pins, [more], [tmp_path.resolve() / "test_c.py"]) == [
        "claim c.mae: bounds_on {e: in (0.1, 1) eV} -> none",
        "claim c.mae: control 'shrunk' is new",
    ]
    assert altered(pins, [], everything) == ["claim c.mae is gone from test_c.py"]


def test_what_was_not_collected_whole_lacks_nothing(pins_of, tmp_path):
    pins = pins_of(catalogue=[described(CLAIM, "test_c.py", ["grown"])])
    other = [tmp_path.resolve() / "test_d.py"]
    assert altered(pins, [], other) == []
    assert altered(pins, [described(CLAIM, "test_c.py", [])], other) == []
    few = described(replace(CLAIM, least_coverage=0.1), "test_c.py", [])
    assert altered(pins, [few], other) == ["claim c.mae: least_coverage 0.5 -> 0.1"]


def test_a_session_that_kept_its_catalogue_is_compared_with_it(pins_of):
    pins = pins_of(record(), catalogue=[described(CLAIM, "test_c.py", ["grown"])])
    loose = described(replace(CLAIM, cases="any"), "test_c.py", [])
    assert list(unlike(pins, session(record(), catalogue=[loose]))) == [
        "claim c.mae: cases all -> any"
    ]


# --- files


def test_a_file_keeps_what_later_sessions_did_not_measure(pins_of, tmp_path):
    first = pins_of(record(), record(fold=1), pins=Pins(within={"c.*": Within(0.3, 'a "b"', 0.1)}))
    both = pins_of(record(observed=1.2, case='e"\\'), pins=first)
    assert set(both.records["quick", "m", "d"]) == {
        "c.mae fold0",
        "c.mae fold1",
        'c.mae[e"\\] fold0',
    }
    assert both.within["c.*"] == Within(0.3, 'a "b"', 0.1)
    assert both.within["*"] == DEFAULT["*"]
    written = beside(tmp_path / "v.toml").read_text(encoding="utf-8")
    assert written.startswith("# Documented numbers")
    assert "--pin v.toml" in written


def test_no_file_is_no_number(tmp_path):
    assert load_pins(tmp_path / "v.toml") == Pins()


def test_later_files_override_earlier_ones(pins_of, tmp_path):
    pins_of(record())
    other = tmp_path / "w.toml"
    beside(other).write_text(pinned(Pins(), [session(record(observed=1.4))], "w.toml"))
    pins = load_pins(tmp_path / "v.toml", other)
    assert pins.moved(record(observed=1.4)) == ""
    assert pins.moved(record()) != ""


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[", "cannot be read as TOML"),
        ("within = 1", "no table"),
        ('[within]\n"*" = 0.1', "no table"),
        ('[within]\n"*" = { half_widths = 0.1 }', "and the reason"),
        ('[within]\n"*" = { half_widths = -1, reason = "r" }', "from 0 up"),
        ('[within]\n"*" = { half_widths = inf, reason = "r" }', "from 0 up"),
        ('[within]\n"*" = { half_widths = true, reason = "r" }', "from 0 up"),
        ('[within]\n"*" = { half_widths = 1, rows = "a", reason = "r" }', "from 0 up"),
        ('[within]\n"*" = { half_widths = 1, other = 1, reason = "r" }', "give half_widths"),
        ("[claims]\na = 1", "no table"),
        ("claims = 1", "no table"),
        ("[weekly.m.d]", "no size"),
        ("quick = 1", "no table"),
        ("[quick]\nm = 1", "no table"),
        ("[quick.m]\nd = 1", "no table"),
        ("[quick.m.d]\nk = 1", "no table"),
        ("[quick.m.d]\nk = { observed = 1, low = 1 }", "no number high"),
        ('[quick.m.d]\nk = { observed = 1, low = "1", high = 1 }', "no number low"),
    ],
)
def test_a_file_that_is_none_is_refused_with_its_place(tmp_path, text, says):
    path = beside(tmp_path / "v.toml")
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=says) as error:
        load_pins(tmp_path / "v.toml")
    assert str(path) in str(error.value)


def test_the_files_of_the_catalogue_are_read_and_every_share_has_its_reason():
    pins = load_pins(ROOT / "checks" / "verdicts.toml")
    assert len(pins.claims) > 50
    assert {size for size, _, _ in pins.records} == {"quick", "nightly"}
    assert all(len(within.reason) > 20 for within in pins.within.values())
    assert max(w.half_widths for p, w in pins.within.items() if p == "*") <= 0.05
