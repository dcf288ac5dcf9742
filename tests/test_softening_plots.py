"""Figures of softening show what they were given, on axes that do not flatter."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from harness.data.dft import load_dft
from harness.errors import DataError
from harness.plots import equations_of_state, fit_in_window, force_parity, slope_curves
from harness.runners import toy_softening

FORCES = st.floats(-30, 30, allow_subnormal=False)


def curves(n: int) -> list[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
    dft = load_dft()
    panels = []
    for crystal in dft.full_eos[:n]:
        eos = dft.eos(crystal)
        rise = eos.energies_ev_per_atom - eos.energies_ev_per_atom.min()
        panels.append((crystal, eos.v_over_v0, rise, 0.9 * rise))
    return panels


@pytest.mark.parametrize("n", [1, 4, 9])
def test_every_crystal_has_a_panel_with_both_curves_and_the_shade(n):
    panels = curves(n)
    figure = equations_of_state(panels, near=(0.95, 1.05), names=("DFT", "model <b>"))
    assert len(figure.data) == 2 * n
    for i, (name, volumes, reference, predicted) in enumerate(panels):
        drawn, other = figure.data[2 * i : 2 * i + 2]
        np.testing.assert_allclose(drawn.x, volumes, atol=1e-5)
        np.testing.assert_allclose(drawn.y, reference, atol=1e-5)
        np.testing.assert_allclose(other.y, predicted, atol=1e-5)
        assert any(name in note.text for note in figure.layout.annotations)
    assert [(s.x0, s.x1) for s in figure.layout.shapes] == [(0.95, 1.05)] * n
    assert "<b>" not in figure.data[1].name
    # one legend entry a method, however many panels
    assert sum(trace.showlegend for trace in figure.data) == 2


def test_panels_do_not_overlap():
    layout = equations_of_state(curves(9), near=(0.95, 1.05)).layout.to_plotly_json()
    boxes = []
    for i in range(9):
        key = "" if i == 0 else str(i + 1)
        x, y = layout[f"xaxis{key}"]["domain"], layout[f"yaxis{key}"]["domain"]
        assert 0 <= x[0] < x[1] <= 1 + 1e-9
        assert 0 <= y[0] < y[1] <= 1
        boxes.append((*x, *y))
    for i, a in enumerate(boxes):
        for b in boxes[:i]:
            assert a[1] < b[0] or b[1] < a[0] or a[3] < b[2] or b[3] < a[2]


def test_a_volume_without_a_prediction_is_left_out_and_a_reference_never():
    ((name, volumes, reference, predicted),) = curves(1)
    gap = np.where(volumes > 1.5, np.nan, predicted)
    figure = equations_of_state([(name, volumes, reference, gap)], near=(0.95, 1.05))
    assert len(figure.data[0].x) == len(figure.data[1].x) + 1
    with pytest.raises(DataError, match="not finite"):
        equations_of_state([(name, volumes, gap, predicted)], near=(0.95, 1.05))


def test_the_window_and_the_points_of_the_fit_are_drawn():
    toy = toy_softening.run(toy_softening.ToySoftening(n_trials=4, noises_ev=(0.02,)))
    figure = fit_in_window(
        toy.grid_ang,
        toy.truth_ev,
        toy.fits_ev[1, 0],
        points=(toy.points_ang[1, 0, 0], toy.labels_ev[1, 0, 0]),
        window_ang=toy.config.window_ang(),
    )
    (window,) = figure.layout.shapes
    named = {trace.name: trace for trace in figure.data}
    points = named["training points"]
    assert len(points.x) == toy.config.n_points
    assert window.x0 <= min(points.x) < max(points.x) <= window.x1
    np.testing.assert_allclose(named["fit"].y, toy.fits_ev[1, 0, 0], atol=1e-4)
    assert sum(trace.name.startswith("other") for trace in figure.data) == 3
    with pytest.raises(DataError, match="as many energies"):
        fit_in_window(
            toy.grid_ang[1:],
            toy.truth_ev,
            toy.fits_ev[1, 0],
            points=(points.x, points.y),
            window_ang=(1, 2),
        )


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 30).flatmap(
        lambda n: st.tuples(arrays(float, n, elements=FORCES), arrays(float, n, elements=FORCES))
    ),
    st.floats(-3, 3),
)
def test_force_parity_draws_every_component_on_equal_axes(pair, slope):
    reference, predicted = pair
    figure = force_parity(
        reference, predicted, slope=(slope, slope, slope), names=["Si"] * len(reference)
    )
    points, diagonal, line = figure.data
    np.testing.assert_allclose(points.x, reference, atol=1e-4)
    np.testing.assert_allclose(points.y, predicted, atol=1e-4)
    low, high = figure.layout.xaxis.range
    assert (low, high) == tuple(figure.layout.yaxis.range)
    assert low == -high
    for trace in figure.data:
        assert np.abs(trace.x).max() <= high + 1e-4
        assert np.abs(trace.y).max() <= high + 1e-4
    assert tuple(diagonal.x) == tuple(diagonal.y)
    np.testing.assert_allclose(line.y, slope * np.array(line.x), atol=1e-9)


def test_the_line_of_a_parity_says_what_its_slope_is_of():
    given = {"slope": (0.5, 0.25, 0.75), "names": ["Si", "Si", "<b>C"]}
    plain = force_parity([1.0, 2.0, -3.0], [0.5, 1.0, -1.5], **given)
    assert plain.data[2].name == "slope 0.500 [0.250, 0.750]"
    said = force_parity(
        [1.0, 2.0, -3.0], [0.5, 1.0, -1.5], **given, slope_of="mean slope of <i>crystals"
    )
    assert said.data[2].name == "mean slope of &lt;i&gt;crystals 0.500 [0.250, 0.750]"
    assert said.layout.annotations[0].text == "n = 3 components of 2 crystals"
    assert list(said.data[0].text) == ["Si", "Si", "&lt;b&gt;C"]


def test_slope_curves_show_each_crystal_and_the_mean_with_its_interval():
    each = {"MgO": [(0.4, 1.1), (0.05, 0.8)], "<i>Si": [(0.05, 0.5), (0.1, 0.6)]}
    means = [(0.4, 1.0, 0.9, 1.2), (0.05, 0.7, 0.6, 0.8)]
    figure = slope_curves(each, means, bound=0.95)
    bold = figure.data[-1]
    assert bold.name == "mean over crystals, 95 % interval"
    assert bold.hovertemplate.startswith("mean over crystals")
    assert tuple(bold.x) == (0.05, 0.4)
    assert tuple(bold.y) == (0.7, 1.0)
    assert tuple(bold.text) == ("0.700 [0.600, 0.800]", "1.000 [0.900, 1.200]")
    np.testing.assert_allclose(np.array(bold.y) + bold.error_y.array, [0.8, 1.2])
    np.testing.assert_allclose(np.array(bold.y) - bold.error_y.arrayminus, [0.6, 0.9])
    assert tuple(figure.data[0].y) == (0.8, 1.1)
    words = " ".join(note.text for note in figure.layout.annotations)
    assert "<i>" not in words
    assert "MgO" in words
    assert "bound 0.95" in words
    assert {shape.y0 for shape in figure.layout.shapes} == {1.0, 0.95}
    low, high = figure.layout.yaxis.range
    assert low < 0.5
    assert high > 1.2


def test_many_crystals_are_not_named_on_one_another():
    each = {f"crystal {i}": [(0.1, 0.7 + 0.01 * i)] for i in range(40)}
    figure = slope_curves(each, [(0.1, 0.9, 0.8, 1.0)])
    assert not any("crystal 3" in note.text for note in figure.layout.annotations)
    assert any("crystal 3<" in trace.hovertemplate for trace in figure.data)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: equations_of_state([], near=(0.9, 1.1)), None),
        (lambda: equations_of_state([("x", [1, 2], [0, 1], [0])], near=(0.9, 1.1)), None),
        (lambda: force_parity([], [], slope=(1, 1, 1), names=[]), r"reference has shape \(0,\)"),
        (
            lambda: force_parity([1.0], [1.0, 2.0], slope=(1, 1, 1), names=["a"]),
            "1 reference values, 2 predicted, 1 names",
        ),
        (
            lambda: force_parity([1.0], [1.0], slope=(1, 1, 1), names=["a", "b"]),
            "1 reference values, 1 predicted, 2 names",
        ),
        (lambda: slope_curves({}, [(0.1, 1, 1, 1)]), "at least one crystal and one mean"),
        (lambda: slope_curves({"a": [(0.1, 1)]}, []), "at least one crystal and one mean"),
        (lambda: slope_curves({"a": []}, [(0.1, 1, 1, 1)]), "at least one crystal and one mean"),
        (
            lambda: slope_curves({"a": [(0.1, 1)]}, [(0.1, 1, 1.2, 1.3)]),
            r"means: 1.2 <= 1.0 <= 1.3 does not hold",
        ),
        (
            lambda: slope_curves({"a": [(0.1, 1)]}, [(0.1, 1.4, 1.2, 1.3)]),
            r"means: 1.2 <= 1.4 <= 1.3 does not hold",
        ),
        (lambda: slope_curves({"a": [(0.1, np.nan)]}, [(0.1, 1, 1, 1)]), "not finite"),
        (lambda: slope_curves({"a": [(0.1, 1)]}, [(0.1, np.nan, 1, 1)]), "not finite"),
    ],
)
def test_what_cannot_be_drawn_is_refused(call, says):
    with pytest.raises(DataError, match=says):
        call()
