"""The catalogue of checks keeps its promises: bounds with reasons, a control each, known words."""

from collections import defaultdict
from pathlib import Path

import pytest

from harness.claims import Claim
from harness.report.verdicts import load_documented

CHECKS = Path(__file__).parents[1] / "checks"


class Collected:
    """Every check as pytest collects it."""

    def __init__(self):
        self.claims: dict[str, Claim] = {}
        self.controls: dict[str, list[str]] = defaultdict(list)
        self.unmarked: list[str] = []
        self.without_session: list[str] = []
        self.cases: set[str] = set()

    def pytest_collection_modifyitems(self, items):
        for item in items:
            claim, control = item.get_closest_marker("claim"), item.get_closest_marker("control")
            if hasattr(item, "callspec"):
                self.cases |= {str(value) for value in item.callspec.params.values()}
            if claim is not None:
                self.claims[claim.kwargs["id"]] = Claim(**claim.kwargs)
            elif control is not None:
                self.controls[control.kwargs["of"]].append(control.kwargs["fault"])
            else:
                self.unmarked.append(item.nodeid)
            if not any(item.get_closest_marker(m) for m in ("nightly", "gpu")):
                self.without_session.append(item.nodeid)


@pytest.fixture(scope="module")
def collected():
    found = Collected()
    code = pytest.main(
        [str(CHECKS), "--collect-only", "-qq", "-p", "no:cacheprovider", "--dataset", "wbm"],
        plugins=[found],
    )
    assert code == pytest.ExitCode.OK
    return found


def test_every_check_is_a_claim_or_a_control(collected):
    assert collected.unmarked == []


def test_every_claim_has_a_control_and_every_control_a_claim(collected):
    assert set(collected.claims) == set(collected.controls)


def test_cases_are_named_by_words_and_not_by_where_an_object_lies(collected):
    assert [case for case in collected.cases if " at 0x" in case] == []


def test_every_check_runs_in_some_session(collected):
    assert collected.without_session == []


def test_bounds_come_with_reasons_that_say_something(collected):
    for claim in collected.claims.values():
        for bound in (claim.bound, *claim.bounds_on.values()):
            assert len(bound.reason.split()) >= 4, f"{claim.id}: {bound.reason!r}"


def test_a_bound_of_its_own_is_for_data_on_which_something_is_documented(collected):
    """A name that no data set has would leave the bound for all others in force, unnoticed."""
    named = {data for _, data, _ in load_documented(CHECKS / "verdicts.toml").places()}
    for claim in collected.claims.values():
        assert set(claim.bounds_on) <= named, claim.id


def test_documented_verdicts_name_claims_that_exist(collected):
    places = list(load_documented(CHECKS / "verdicts.toml").places())
    assert len(places) > 200
    for subject, data, key in places:
        claim_id = key.split("[")[0].split(" ")[0]
        assert claim_id in collected.claims, f"{subject} on {data}: {key}"
