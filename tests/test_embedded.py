"""The embedded set: formation energies of the project's own calculations, split fairly."""

from __future__ import annotations

import numpy as np
import pytest

from harness.data import auto_choice, embedded, load_dataset
from harness.data.dataset import cross_fitted
from harness.data.dft import SET_ASIDE, load_dft


@pytest.fixture(scope="module")
def dataset():
    return load_dataset("embedded")


def test_it_is_the_formation_energies_of_our_own_calculations(dataset):
    table = load_dft().formation_energies()
    assert dataset.ids.tolist() == table.ids.tolist()
    np.testing.assert_array_equal(dataset.target_ev_per_atom, table.e_form_ev_per_atom)
    assert list(dataset.inputs.values()) == [load_dft().sha256]
    assert not set(dataset.ids.tolist()) & set(SET_ASIDE)
    assert dataset.n_official == len(dataset) >= 25


def test_it_is_what_a_session_measures_where_no_other_is_at_hand(monkeypatch, tmp_path):
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    assert auto_choice("auto")[0] == embedded.NAME


def test_every_element_of_the_compounds_has_a_crystal(dataset):
    elements, inputs = embedded.load_elements()
    assert inputs == dataset.inputs
    own = elements.compositions()
    assert ((own > 0).sum(axis=1) == 1).all()
    present = np.flatnonzero((dataset.compositions > 0).any(axis=0))
    assert set(present.tolist()) <= set(own.argmax(axis=1).tolist())


def test_fold_0_tests_every_row_once(dataset):
    (fold,) = [dataset.fold(k) for k in range(dataset.n_folds)]
    assert len(fold.splits) == 5
    np.testing.assert_array_equal(np.sort(fold.test_rows), np.arange(len(dataset)))
    for split in fold.splits:
        assert len(split.train) + len(split.test) == len(dataset)


def test_no_other_split_leaves_more_rows_whose_elements_are_trained_on(dataset):
    """The salt was chosen by this count alone."""
    present = dataset.compositions > 0

    def covered(splits):
        return sum(
            int((~present[s.test] | (present[s.train].sum(axis=0) >= 2)).all(axis=1).sum())
            for s in splits
        )

    counts = [covered(cross_fitted(dataset.compositions, str(salt))) for salt in range(200)]
    assert covered(dataset.fold(0).splits) == max(counts)
    assert str(counts.index(max(counts))) == embedded._SPLIT_SALT
