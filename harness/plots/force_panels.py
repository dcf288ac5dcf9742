"""Force components against a reference for several sets, one panel each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import DataError
from harness.plots import style

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Panel = tuple[np.ndarray, np.ndarray, tuple[float, float, float]]
MOST_POINTS = 1_500  # a panel; above this a density, which weighs less and hides nothing
N_BINS = 61  # odd, so that zero has a cell of its own
N_COLUMNS = 3
_PANEL_PX, _GAP_PX, _LEFT_PX, _TOP_PX = 260, 74, 70, 86


def force_panels(panels: Mapping[str, Panel], *, unit: str = "eV/Å", title: str = "") -> Figure:
    """Small multiples of predicted against reference force components.

    Axes are equal within a panel and symmetric about zero; each panel has a range of its own. Up to
    1,500 components are points, more are a density (logarithmic colour). The grey line is equality,
    the dashed one the slope through the origin.

    Args:
        panels: set -> (reference (n,), predicted (n,), (slope, low, high)), the slope from a
            runner.
    Raises:
        DataError: no panels, lengths differ, no rows, or a value is not finite.
    """
    if not panels:
        raise DataError("no sets to draw; give at least one (reference, predicted, slope)")
    n_columns = min(N_COLUMNS, len(panels))
    n_rows = -(-len(panels) // n_columns)
    width = _LEFT_PX + n_columns * _PANEL_PX + (n_columns - 1) * _GAP_PX + 24
    plot_height = n_rows * _PANEL_PX + (n_rows - 1) * (_GAP_PX + 20)
    plot_width = width - _LEFT_PX - 24
    traces: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    axes: dict[str, Any] = {}
    for i, (name, (reference, predicted, slope)) in enumerate(panels.items()):
        x, y = style.column(reference, f"{name}: reference"), style.column(predicted, name)
        if len(x) != len(y):
            raise DataError(f"{name}: {len(x)} reference values, {len(y)} predicted")
        estimate, low, high = style.column(slope, f"{name}: slope, low, high")
        row, column = divmod(i, n_columns)
        left = column * (_PANEL_PX + _GAP_PX) / plot_width
        top = 1 - row * (_PANEL_PX + _GAP_PX + 20) / plot_height
        number = "" if i == 0 else str(i + 1)
        end = 1.04 * float(max(np.abs(x).max(), np.abs(y).max(), 1e-9))
        traces += _cloud(x, y, end, f"x{number}", f"y{number}", unit)
        reach = end / max(1.0, abs(estimate))
        for ends, looks in (
            ((end, end), {"color": "#8b95a1", "width": 1.2}),
            ((reach, reach * estimate), {"color": style.ACCENT, "width": 2, "dash": "dash"}),
        ):
            traces.append(
                {
                    "type": "scatter",
                    "mode": "lines",
                    "x": [-ends[0], ends[0]],
                    "y": [-ends[1], ends[1]],
                    "xaxis": f"x{number}",
                    "yaxis": f"y{number}",
                    "line": looks,
                    "hoverinfo": "skip",
                    "showlegend": False,
                }
            )
        shared = {"range": [-end, end], "nticks": 6}
        axes[f"xaxis{number}"] = {
            **shared,
            "domain": [left, left + _PANEL_PX / plot_width],
            "anchor": f"y{number}",
            "title": {"text": f"DFT ({style.text(unit)})" if row == n_rows - 1 else ""},
        }
        axes[f"yaxis{number}"] = {
            **shared,
            "domain": [max(0.0, top - _PANEL_PX / plot_height), top],
            "anchor": f"x{number}",
            "title": {"text": f"predicted ({style.text(unit)})" if column == 0 else ""},
        }
        annotations.append(
            {
                **style.note(
                    f"<b>{style.text(name)}</b>, {len(x):,} components<br>"
                    f"slope {estimate:.3f} [{low:.3f}, {high:.3f}]",
                    x=left,
                    y=top,
                    anchor="left",
                ),
                "yanchor": "bottom",
                "yshift": 4,
                "font": {"size": 12, "color": style.INK},
            }
        )
    return style.figure(
        traces,
        title=title,
        width_px=width,
        height_px=_TOP_PX + plot_height + 62,
        min_width_px=width,
        margin={"l": _LEFT_PX, "r": 24, "t": _TOP_PX, "b": 62},
        annotations=[
            *annotations,
            {
                **style.note("darker: more components, on a logarithmic scale", y=1.0),
                "yanchor": "bottom",
                "yshift": 44,
            },
        ],
        **axes,
    )


def _cloud(
    x: np.ndarray, y: np.ndarray, end: float, xaxis: str, yaxis: str, unit: str
) -> list[dict[str, Any]]:
    place = {"xaxis": xaxis, "yaxis": yaxis, "showlegend": False}
    if len(x) <= MOST_POINTS:
        return [
            {
                "type": "scatter",
                "mode": "markers",
                "x": x.round(4),
                "y": y.round(4),
                "marker": {
                    "size": 4,
                    "color": style.SUBJECT,
                    "opacity": float(np.clip(300 / len(x), 0.3, 0.8)),
                },
                "hovertemplate": f"DFT %{{x:.3f}}<br>predicted %{{y:.3f}} {style.text(unit)}"
                "<extra></extra>",
                **place,
            }
        ]
    edges = np.linspace(-end, end, N_BINS + 1)
    counts = np.histogram2d(y, x, bins=(edges, edges))[0]  # rows of z are y
    step = 2 * end / N_BINS
    with np.errstate(divide="ignore"):
        z = np.where(counts > 0, np.log10(counts), np.nan)
    return [
        {
            "type": "heatmap",
            "z": z.astype(np.float32),
            "customdata": counts.astype(np.uint32),
            "x0": -end + step / 2,
            "dx": step,
            "y0": -end + step / 2,
            "dy": step,
            "zmin": 0,
            "zmax": float(np.log10(max(counts.max(), 2))),
            "colorscale": [list(stop) for stop in style.DENSITY],
            "showscale": False,
            "hovertemplate": "%{customdata} components near<br>DFT %{x:.2f}<br>predicted %{y:.2f}"
            "<extra></extra>",
            "hoverongaps": False,
            **place,
        }
    ]
