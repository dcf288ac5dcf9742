"""References come off totals exactly, and elements without one are named, not guessed."""

import tomllib
from importlib.metadata import version

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.engines import PINNED
from harness.errors import CannotResolve, DataError
from harness.models import alignment
from harness.models.alignment import NO_REFERENCES, References, refit, refit_settings


def compositions(*rows):
    table = np.zeros((len(rows), 118))
    for i, row in enumerate(rows):
        for number, count in row.items():
            table[i, number - 1] = count
    return table


ROWS = compositions(
    {11: 1, 17: 1}, {11: 2, 8: 1}, {17: 4, 14: 1}, {14: 1, 8: 2}, {11: 4}, {8: 2}, {17: 2}
)


@given(seed=st.integers(0, 2**16))
@settings(max_examples=10, deadline=None)
def test_a_refit_finds_the_references_that_were_put_in(seed):
    draw = np.random.default_rng(seed)
    energies = np.full(118, np.nan)
    energies[[7, 10, 13, 16]] = draw.normal(scale=5, size=4)
    truth = References(name="truth", energies_ev_per_atom=energies)
    total = draw.normal(size=len(ROWS))
    target = truth.formation_energies(total, ROWS)
    found = refit(total, target, ROWS)
    np.testing.assert_allclose(
        found.energies_ev_per_atom[[7, 10, 13, 16]], energies[[7, 10, 13, 16]], atol=1e-8
    )
    np.testing.assert_allclose(found.formation_energies(total, ROWS), target, atol=1e-8)


def test_a_refit_shrugs_off_a_mislabelled_row():
    many = np.vstack([ROWS] * 5)
    total, target = np.zeros(len(many)), np.zeros(len(many))
    target[0] = 50.0
    found = refit(total, target, many)
    np.testing.assert_allclose(found.formation_energies(total, many), 0.0, atol=1e-8)


def test_elements_never_seen_have_no_reference_and_are_named():
    found = refit(np.zeros(len(ROWS)), np.zeros(len(ROWS)), ROWS)
    unseen = compositions({11: 1, 94: 1}, {11: 1, 17: 1})
    assert found.missing(unseen) == [94]
    np.testing.assert_array_equal(found.covers(unseen), [False, True])
    assert np.isnan(found.formation_energies(np.zeros(2), unseen)[0])


def test_no_references_leave_total_energies_as_they_are():
    total = np.arange(float(len(ROWS)))
    np.testing.assert_array_equal(NO_REFERENCES.formation_energies(total, ROWS), total)


def test_a_refit_on_nothing_is_refused():
    with pytest.raises(CannotResolve, match="an energy for none of the training rows"):
        refit(np.empty(0), np.empty(0), np.empty((0, 118)))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_refit_on_a_value_that_is_not_finite_is_refused(bad):
    rows = compositions({11: 1}, {11: 1})
    says = "1 of 2 training rows are not finite, and a refit takes finite energies only"
    for total, target in (((bad, 1.0), (0.0, 0.0)), ((1.0, 1.0), (0.0, bad))):
        with pytest.raises(DataError, match=says):
            refit(np.array(total), np.array(target), rows)


def test_alignments_are_known_by_their_names():
    assert alignment.ALIGNMENTS == ("mp2020", "self", "refit")
    assert NO_REFERENCES.name == "none"
    assert refit(np.zeros(1), np.zeros(1), compositions({11: 1})).name == "refit"


def test_a_refit_is_the_median_of_its_rows():
    rows = compositions(*[{11: 1}] * 5)
    found = refit(np.array([1.0, 2.0, 4.0, 8.0, 16.0]), np.zeros(5), rows)
    assert found.energies_ev_per_atom[10] == pytest.approx(4.0)


def test_what_a_refit_depends_on_names_its_engine_its_quantile_and_its_solvers(monkeypatch):
    assert refit_settings() == {
        "engine": alignment.ENGINE,
        "quantile": "0.5",
        "scikit-learn": version("scikit-learn"),
        "scipy": version("scipy"),
    }
    monkeypatch.setattr(alignment, "QUANTILE", 0.75)
    monkeypatch.setattr(alignment, "ENGINE", "another")
    assert (refit_settings()["quantile"], refit_settings()["engine"]) == ("0.75", "another")
    rows = compositions(*[{11: 1}] * 5)
    found = refit(np.array([1.0, 2.0, 4.0, 8.0, 16.0]), np.zeros(5), rows)
    assert found.energies_ev_per_atom[10] == pytest.approx(8.0)


def test_the_version_of_a_refit_is_the_one_on_record():
    known = tomllib.loads(PINNED.read_text(encoding="utf-8"))["refit"]["version"]
    assert alignment.ENGINE.partition(", sources")[0] == known
