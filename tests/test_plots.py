"""Figures show what they were given: every row is drawn or counted, and no word becomes markup."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from harness.errors import DataError
from harness.evidence import Verdict
from harness.plots import error_by_element, error_histogram, mae_comparison, parity
from harness.plots.comparison import _place
from harness.plots.style import VERDICT_COLOURS

N_FOLD_0 = 26_551
ENERGIES = st.floats(-20, 20, allow_subnormal=False)


def rows(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    reference = -rng.gamma(4, 0.45, n)
    return reference, reference + 0.02 * rng.standard_t(2.2, n)


def notes(figure: Any) -> str:
    return " ".join(a.text for a in figure.layout.annotations)


def test_parity_of_a_whole_fold_is_small_and_counts_every_row():
    reference, predicted = rows(N_FOLD_0)
    names = [f"mb-mp-e-form-{i:06d}" for i in range(N_FOLD_0)]
    figure = parity(reference, predicted, names=names, title="fold 0")
    assert len(figure.to_json(engine="json")) < 300_000
    density = next(trace for trace in figure.data if trace.type == "heatmap")
    low, high = figure.layout.xaxis.range
    inside = np.sum(
        (np.minimum(reference, predicted) >= low) & (np.maximum(reference, predicted) <= high)
    )
    assert np.sum(density.customdata) == inside
    assert "n = 26,551" in notes(figure)


def test_parity_marks_the_largest_errors_of_a_density():
    reference, predicted = rows(5_000)
    predicted[[17, 4_000]] += [3.0, -2.5]
    figure = parity(reference, predicted)
    marked = {name for trace in figure.data if trace.text is not None for name in trace.text}
    assert {"row 17", "row 4000"} <= marked
    assert len(marked) == 30


@settings(max_examples=40, deadline=None)  # plotly takes a few ms to build a figure
@given(
    st.integers(1, 40).flatmap(
        lambda n: st.tuples(
            arrays(float, n, elements=ENERGIES), arrays(float, n, elements=ENERGIES)
        )
    )
)
def test_parity_draws_every_row_inside_equal_axes(pair):
    reference, predicted = pair
    figure = parity(reference, predicted)
    drawn = np.concatenate([t.customdata[:, :2] for t in figure.data if t.customdata is not None])
    np.testing.assert_allclose(
        np.sort(drawn, axis=0), np.sort(np.stack(pair, 1), axis=0), rtol=0, atol=1e-5
    )
    low, high = figure.layout.xaxis.range
    assert (low, high) == tuple(figure.layout.yaxis.range)
    for trace in figure.data:
        assert np.all(np.asarray(trace.x) >= low - 1e-5)
        assert np.all(np.asarray(trace.y) <= high + 1e-5)


@pytest.mark.parametrize("n", [900, 5_000])
def test_parity_counts_an_absurd_prediction_instead_of_bowing_to_it(n):
    reference, predicted = rows(n)
    predicted[3] = 60.0
    figure = parity(reference, predicted)
    assert figure.layout.xaxis.range[1] < 5
    assert "outside the frame" in notes(figure)
    assert any("triangle" in str(t.marker.symbol) for t in figure.data if t.type == "scatter")


def test_parity_leaves_its_arguments_alone():
    reference, predicted = rows(100)
    copies = reference.copy(), predicted.copy()
    parity(reference, predicted)
    np.testing.assert_array_equal(reference, copies[0])
    np.testing.assert_array_equal(predicted, copies[1])


@pytest.mark.parametrize(
    ("reference", "predicted", "says"),
    [
        ([1.0, 2.0], [1.0], "2 reference values, 1 predicted"),
        ([], [], "n >= 1"),
        ([1.0, np.nan], [1.0, 2.0], "first at row 1"),
        ([1.0, 2.0], [np.inf, 2.0], "first at row 0"),
        ([[1.0]], [[1.0]], "shape"),
    ],
)
def test_parity_refuses_what_it_cannot_draw_honestly(reference, predicted, says):
    with pytest.raises(DataError, match=says):
        parity(np.array(reference), np.array(predicted))


def test_words_from_outside_never_become_markup():
    hostile = "</script><b>Fe</b><a href='javascript:alert(1)'>x</a>"
    reference, predicted = rows(3)
    figures = [
        parity(
            reference, predicted, names=[hostile] * 3, label=hostile, unit=hostile, title=hostile
        ),
        error_histogram(predicted, unit=hostile, name=hostile, others={hostile: reference}),
        mae_comparison([(hostile, 0.1, 0.1, 0.2, True)], unit=hostile, title=hostile),
        error_by_element(np.array([8]), np.array([0.1]), np.array([3]), unit=hostile),
    ]
    for figure in figures:
        assert "<a href" not in figure.to_json(engine="json")
        assert "<b>Fe" not in figure.to_json(engine="json")


@settings(max_examples=40, deadline=None)
@given(arrays(float, st.integers(1, 200), elements=ENERGIES))
def test_histogram_shares_and_the_stated_clipping_make_up_every_row(error):
    figure = error_histogram(error, unit="eV/atom")
    inside = float(np.sum(figure.data[0].y[:-1])) / 100 * len(error)
    outside = int(notes(figure).split(" of ")[0].replace(",", "")) if notes(figure) else 0
    assert inside + outside == pytest.approx(len(error), abs=0.02 * len(error))


def test_histogram_states_median_mean_and_what_lies_outside():
    error = np.concatenate([np.linspace(-0.1, 0.1, 999), [5.0]])
    figure = error_histogram(error, unit="eV/atom", others={"baseline": 2 * error})
    labels = [trace.name for trace in figure.data]
    assert labels[:2] == ["subject (n = 1,000)", "baseline (n = 1,000)"]
    assert labels[2:] == [f"median {np.median(error):+.4f}", f"mean {error.mean():+.4f}"]
    assert "the furthest at +10 eV/atom" in notes(figure)


def test_histogram_of_no_error_at_all_is_drawn():
    figure = error_histogram(np.zeros(5), unit="eV/atom")
    assert float(np.max(figure.data[0].y)) == 100


def test_comparison_puts_the_smallest_error_on_top_and_sets_the_subject_off():
    peers = [
        ("CrabNet", 0.0853, 0.084, 0.0866, False),
        ("coGN", 0.0174, 0.0174, 0.0174, False),
        ("CHGNet", 0.0338, 0.033, 0.0346, True),
    ]
    figure = mae_comparison(peers, bound=0.11)
    assert list(figure.layout.yaxis.ticktext) == ["CrabNet", "<b>CHGNet</b>", "coGN"]
    assert [s.x0 for s in figure.layout.shapes] == [0.11]
    assert figure.layout.xaxis.type == "linear"
    assert figure.data[0].marker.symbol != figure.data[1].marker.symbol


def test_comparison_over_decades_is_logarithmic():
    figure = mae_comparison(
        [("a", 0.02, 0.02, 0.02, True), ("b", 4.6, 4.5, 4.7, False)], bound=0.11
    )
    assert figure.layout.xaxis.type == "log"
    assert figure.layout.xaxis.range[0] < np.log10(0.02)
    assert figure.layout.xaxis.range[1] > np.log10(4.7)


@pytest.mark.parametrize(
    ("peers", "says"),
    [
        ([], "no rows"),
        ([("a", 0.3, 0.1, 0.2, False)], "does not hold"),
        ([("a", np.nan, 0.1, 0.2, False)], "not finite"),
    ],
)
def test_comparison_refuses_what_is_no_interval(peers, says):
    with pytest.raises(DataError, match=says):
        mae_comparison(peers)


def test_every_element_has_a_place_of_its_own():
    places = {_place(z) for z in range(1, 119)}
    assert len(places) == 118
    assert [_place(z) for z in (1, 2, 8, 26, 57, 72, 89, 118)] == [
        (0, 0), (0, 17), (1, 15), (3, 7), (8, 2), (5, 3), (9, 2), (6, 17),
    ]  # fmt: skip


def test_element_errors_are_shown_in_their_cells_with_rows_on_hover():
    figure = error_by_element(np.array([8, 26]), np.array([0.0214, 0.0432]), np.array([900, 3]))
    absent, shown = figure.data
    assert shown.z[1][15] == pytest.approx(21.4)
    assert shown.text[1][15] == "<b>O</b><br>21"
    assert shown.text[3][7] == "<b>Fe</b><br><i>43</i>"
    assert shown.hovertext[3][7] == "<b>Fe</b> MAE 43.2 meV/atom, 3 rows"
    assert sum(cell is not None for line in absent.z for cell in line) == 116


@pytest.mark.parametrize("numbers", [[0, 1], [8, 8], [8, 119], [8]])
def test_element_errors_refuse_numbers_that_are_no_set_of_elements(numbers):
    with pytest.raises(DataError):
        error_by_element(np.array(numbers), np.array([0.1, 0.2]), np.array([1, 2]))


def test_figures_carry_their_style_and_change_no_global_one():
    import plotly.io

    before = plotly.io.templates.default
    figure = parity(*rows(10))
    assert plotly.io.templates.default == before
    assert json.loads(figure.to_json(engine="json"))["layout"]["template"]["layout"]["font"]


def test_every_verdict_has_a_colour_of_its_own():
    assert list(VERDICT_COLOURS) == [str(v) for v in Verdict]
    assert len(set(VERDICT_COLOURS.values())) == len(Verdict)
