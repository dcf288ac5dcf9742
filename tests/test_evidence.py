"""A record is read back as it was written, and refuses to contradict itself."""

import json

import pytest

from harness.claims import Claim, Interval, Measurement, Verdict, below, between
from harness.errors import DataError
from harness.evidence import Evidence, Session

CLAIM = Claim(
    id="zero-shot.beats-baseline",
    statement="The MAE is below 0.11 eV/atom.",
    basis="a note",
    bound=below(0.11, "eV/atom", "the baseline"),
)
MEASURED = Measurement(
    quantity="MAE of e_form",
    interval=Interval(estimate=0.034, low=0.033, high=0.035, n=8, n_clusters=7, resolution=0.001),
    scored=8,
    of=10,
    dataset="embedded",
    model="chgnet-0.3.0",
    excluded={"isolated atoms": 2},
    inputs={"file": "ab" * 32},
    details={"nested": {"list": [1, 2.5, "é"]}},
)


def session(*claims):
    return Session(
        session={"model": "chgnet-0.3.0"}, claims=claims, errors=({"test": "t", "message": "m"},)
    )


def test_a_session_is_read_back_whole(tmp_path):
    written = session(
        Evidence.of(CLAIM, MEASURED, case="refit", fold=0, seconds=1.5),
        Evidence.not_run(CLAIM, "no data", case="mp2020"),
    )
    written.save(tmp_path)
    assert Session.load(tmp_path) == written


def test_two_saves_are_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        session(Evidence.of(CLAIM, MEASURED)).save(tmp_path / name)
    assert (tmp_path / "a/evidence.json").read_bytes() == (
        tmp_path / "b/evidence.json"
    ).read_bytes()


def test_the_bound_of_a_window_is_its_nearer_end():
    claim = Claim(id="c", statement="s", basis="b", bound=between(0.03, 0.2, "eV/atom", "t"))
    assert Evidence.of(claim, MEASURED).bound == 0.03


def test_the_record_has_the_fields_readers_rely_on():
    record = Evidence.of(CLAIM, MEASURED).as_dict()
    assert record["verdict"] == "held"
    assert record["coverage"] == {"scored": 8, "of": 10}
    for name in ("id", "observed", "ci_low", "ci_high", "bound", "unit", "n", "dataset", "model"):
        assert record[name] is not None
    for name in ("inputs", "versions", "seconds", "reason"):
        assert name in record


def test_a_measured_claim_cannot_be_not_run_nor_the_reverse():
    with pytest.raises(ValueError, match="disagree"):
        Evidence(id="c", verdict=Verdict.HELD, statement="s", basis="b")
    with pytest.raises(ValueError, match="disagree"):
        Evidence.not_run(CLAIM, "")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "does not exist"),
        ("{", "is not JSON"),
        ('{"schema": 99, "session": {}, "claims": []}', "schema 99"),
        ("[]", "schema None"),
        ('{"schema": 1, "session": {}}', "is not evidence"),
        ('{"schema": 1, "session": {}, "claims": [{"verdict": "hold"}]}', "is not evidence"),
    ],
    ids=["absent", "cut short", "later schema", "no object", "claims missing", "claim damaged"],
)
def test_damaged_evidence_is_named(tmp_path, text, says):
    if text is not None:
        (tmp_path / "evidence.json").write_text(text)
    with pytest.raises(DataError, match=says):
        Session.load(tmp_path)


def test_a_field_of_a_later_version_is_not_dropped_silently(tmp_path):
    session(Evidence.of(CLAIM, MEASURED)).save(tmp_path)
    path = tmp_path / "evidence.json"
    record = json.loads(path.read_text())
    record["claims"][0]["surprise"] = 1
    path.write_text(json.dumps(record))
    with pytest.raises(DataError, match="surprise"):
        Session.load(tmp_path)
