"""Figures of frames and dimers draw what they were given and refuse what they cannot draw."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import DataError
from harness.plots import dimer_curves, error_magnitudes, force_panels

HOSTILE = "</script><b>Fe</b><a href='javascript:alert(1)'>x</a>"


def cloud(n: int, slope: float = 0.8, seed: int = 0):
    draw = np.random.default_rng(seed)
    reference = draw.normal(size=n)
    return reference, slope * reference + 0.05 * draw.normal(size=n), (slope, slope - 0.1, slope)


def words(figure) -> str:
    return " ".join(a.text for a in figure.layout.annotations)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 4000), min_size=1, max_size=7))
def test_every_component_is_a_point_or_counted_in_a_cell(sizes):
    figure = force_panels({f"set {i}": cloud(n, seed=i) for i, n in enumerate(sizes)})
    clouds = [t for t in figure.data if t.type == "heatmap" or t.mode == "markers"]
    drawn = [int(np.sum(t.customdata)) if t.type == "heatmap" else len(t.x) for t in clouds]
    assert drawn == sizes
    assert len({t.xaxis for t in clouds}) == len(sizes)


def test_panels_show_the_slope_they_were_given_on_equal_axes():
    figure = force_panels({"a": cloud(50, 0.5), "b": cloud(50, 1.25)}, title="model")
    assert "slope 0.500 [0.400, 0.500]" in words(figure)
    lines = [t for t in figure.data if t.mode == "lines" and t.line.dash == "dash"]
    assert [t.y[1] / t.x[1] for t in lines] == pytest.approx([0.5, 1.25])
    for number in ("", "2"):
        x, y = figure.layout[f"xaxis{number}"], figure.layout[f"yaxis{number}"]
        assert tuple(x.range) == tuple(y.range)
        assert x.range[0] == -x.range[1]
    for line, axis in zip(lines, (figure.layout.yaxis, figure.layout.yaxis2), strict=True):
        assert np.abs(line.y).max() <= axis.range[1]


@pytest.mark.parametrize(
    ("panels", "says"),
    [
        ({}, "no sets"),
        ({"a": (np.ones(3), np.ones(2), (1.0, 1.0, 1.0))}, "3 reference values, 2"),
        ({"a": (np.array([1.0, np.nan]), np.ones(2), (1.0, 1.0, 1.0))}, "not finite"),
        ({"a": (np.ones(2), np.ones(2), (np.nan, 1.0, 1.0))}, "not finite"),
    ],
)
def test_panels_refuse_what_they_cannot_draw(panels, says):
    with pytest.raises(DataError, match=says):
        force_panels(panels)


def curve(cutoff: float = 5.0):
    r = np.linspace(0.8, 6.0, 40)
    dft = 2 * (1 - np.exp(-1.5 * (r - 1.5))) ** 2
    return r, dft, np.where(r < cutoff, 0.7 * dft + 10.0, np.nan)


def test_dimers_are_drawn_from_a_common_zero_and_gaps_are_marked():
    figure = dimer_curves({"H": curve(), "Na": curve(9.0)}, near_r_min=(0.9, 1.1), model="m")
    dft, model = figure.data[0], figure.data[1]
    last = np.flatnonzero(np.isfinite(model.y))[-1]
    assert dft.y[last] == model.y[last] == 0
    grey = [s for s in figure.layout.shapes if s.type == "rect"]
    assert [(s.xref, round(s.x0, 2)) for s in grey] == [("x", round(float(dft.x[last]), 2))]
    lowest = dft.x[np.argmin(dft.y)]
    edges = [s.x0 for s in figure.layout.shapes if s.type == "line" and s.xref == "x"]
    assert edges == pytest.approx([0.9 * lowest, 1.1 * lowest], abs=1e-4)
    low, high = figure.layout.yaxis.range
    assert low < min(dft.y) < 0 < high
    assert [t.name for t in figure.data if t.showlegend] == ["PBE", "m"]


def test_a_dimer_that_was_not_scored_at_all_is_drawn_with_dft_alone():
    r, dft, _ = curve()
    figure = dimer_curves({"Po": (r, dft, np.full(40, np.nan))}, near_r_min=(0.9, 1.1), model="m")
    assert np.isfinite(figure.data[0].y).all()
    with pytest.raises(DataError, match="no dimers"):
        dimer_curves({}, near_r_min=(0.9, 1.1), model="m")
    with pytest.raises(DataError, match="40 distances, 39 DFT"):
        dimer_curves({"Po": (r, dft[1:], dft)}, near_r_min=(0.9, 1.1), model="m")
    with pytest.raises(DataError, match="not finite"):
        dimer_curves({"Po": (r, dft * np.nan, dft)}, near_r_min=(0.9, 1.1), model="m")


MAES = {
    "as-trained": {"in": (0.03, 0.02, 0.04), "out": (0.5, 0.3, 0.9)},
    "refit": {"in": (0.04, 0.03, 0.05), "out": (0.4, 0.2, 0.7)},
}
PUBLISHED = {"in": {"M": 0.03, "L": 0.024}, "out": {"M": 0.2}, "not drawn": {"M": 5.0}}


def test_magnitudes_draw_bars_band_and_published_values():
    figure = error_magnitudes(MAES, published=PUBLISHED, signal=(0.1, 0.2), model="m")
    bars = [t for t in figure.data if t.type == "bar"]
    assert [t.name for t in bars] == ["m, as-trained", "m, refit"]
    np.testing.assert_allclose(bars[0].base + np.array(bars[0].x), [0.03, 0.5])
    markers = {t.name: list(t.x) for t in figure.data if t.type == "scatter"}
    assert markers == {"M, published": [0.03, 0.2], "L, published": [0.024]}
    band = figure.layout.shapes[0]
    assert (band.x0, band.x1) == (0.1, 0.2)
    assert list(figure.layout.yaxis.ticktext) == ["in", "out"]
    assert figure.layout.yaxis.tickvals[0] > figure.layout.yaxis.tickvals[1]  # the first on top
    low, high = 10 ** np.array(figure.layout.xaxis.range)
    assert low < 0.02
    assert high > 0.9


@pytest.mark.parametrize("low", [-0.6, 0.0])
def test_an_interval_that_reaches_below_zero_ends_at_the_axis(low):
    figure = error_magnitudes(
        {"a": {"in": (0.3, low, 1.8)}}, published={}, signal=(0.1, 0.2), model="m"
    )
    (bar,) = figure.data
    assert figure.layout.xaxis.range[0] == pytest.approx(np.log10(0.1 / 1.5))
    assert list(bar.error_x.arrayminus) == pytest.approx([0.3 - 0.1 / 1.5])
    assert list(bar.error_x.array) == pytest.approx([1.5])


@pytest.mark.parametrize(
    ("maes", "says"),
    [
        ({}, "0 sets"),
        ({"a": {"in": (0.0, 0.0, 0.1)}}, "does not hold"),
        ({"a": {"in": (0.3, 0.1, 0.2)}}, "does not hold"),
        ({"a": {"in": (np.inf, 0.1, 0.2)}}, "not finite"),
        ({name: {"in": (0.1, 0.1, 0.1)} for name in "abc"}, "under 3 alignments"),
    ],
)
def test_magnitudes_refuse_what_is_no_interval(maes, says):
    with pytest.raises(DataError, match=says):
        error_magnitudes(maes, published={}, signal=(0.1, 0.2), model="m")
    with pytest.raises(DataError, match="above zero"):
        error_magnitudes(MAES, published={"in": {"M": 0.0}}, signal=(0.1, 0.2), model="m")


def test_words_from_outside_never_become_markup():
    figures = [
        force_panels({HOSTILE: cloud(5)}, unit=HOSTILE, title=HOSTILE),
        dimer_curves({HOSTILE: curve()}, near_r_min=(0.9, 1.1), model=HOSTILE, title=HOSTILE),
        error_magnitudes(
            {HOSTILE: {HOSTILE: (0.1, 0.1, 0.1)}},
            published={HOSTILE: {HOSTILE: 0.1}},
            signal=(0.1, 0.2),
            model=HOSTILE,
            unit=HOSTILE,
        ),
    ]
    for figure in figures:
        assert "<a href" not in figure.to_json(engine="json")
        assert "<b>Fe" not in figure.to_json(engine="json")
