"""Energy over volume or distance, with the part shaded that counts as near equilibrium."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import DataError
from harness.plots import style

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Panel = tuple[str, np.ndarray, np.ndarray, np.ndarray]  # name, V/V0, reference, predicted
_COLUMNS = 3
_SHADE = "#eaf2e3"


def equations_of_state(
    panels: Sequence[Panel],
    *,
    near: tuple[float, float],
    names: tuple[str, str] = ("DFT", "predicted"),
    origin: str = "E(V0)",
    unit: str = "eV/atom",
    title: str = "",
) -> Figure:
    """Energy over volume of reference and prediction, a panel a crystal, each on its own scale.

    Args:
        panels: (crystal, (k,) V/V0, (k,) reference, (k,) predicted), energies in ``unit`` from a
            common zero; a prediction that is not finite is left out.
        near: ends of the shaded part, in V/V0.
        origin: what the zero of the energies is, for the axis.
    Raises:
        DataError: no panels, lengths differ, or a volume or a reference is not finite.
    """
    if not panels:
        raise DataError("no equations of state to draw; give at least one")
    n_rows = -(-len(panels) // _COLUMNS)
    height_px = 110 + 205 * n_rows
    traces: list[dict[str, Any]] = []
    layout: dict[str, Any] = {}
    shapes: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    gap_x, gap_y = 0.075, 62 / height_px
    wide, high = (1 + gap_x) / _COLUMNS - gap_x, (1 + gap_y) / n_rows - gap_y
    volumes = np.concatenate([style.column(panel[1], f"{panel[0]}: V/V0") for panel in panels])
    ends = float(volumes.min()), float(volumes.max())
    for i, (name, v_over_v0, reference, predicted) in enumerate(panels):
        x = style.column(v_over_v0, f"{name}: V/V0")
        y = style.column(reference, f"{name}: {names[0]}")
        other = np.asarray(predicted, np.float64)
        if not len(x) == len(y) == len(other):
            raise DataError(f"{name}: {len(x)} volumes, {len(y)} and {len(other)} energies")
        row, column = divmod(i, _COLUMNS)
        left, top = column * (wide + gap_x), 1 - row * (high + gap_y)
        key = "" if i == 0 else str(i + 1)
        drawn = np.isfinite(other)
        looks = (
            (names[0], x, y, style.INK, "circle-open", "solid"),
            (names[1], x[drawn], other[drawn], style.SUBJECT, "diamond", "dash"),
        )
        for label, at, energy, colour, symbol, dash in looks:
            traces.append(
                {
                    "type": "scatter",
                    "mode": "lines+markers",
                    "name": style.text(label),
                    "legendgroup": label,
                    "showlegend": i == 0,
                    "x": at.round(5),
                    "y": energy.round(5),
                    "xaxis": f"x{key}",
                    "yaxis": f"y{key}",
                    "line": {"color": colour, "width": 1.6, "shape": "spline", "dash": dash},
                    "marker": {"size": 6, "symbol": symbol, "color": colour},
                    "hovertemplate": f"{style.text(name)}, {style.text(label)}<br>%{{x:.2f}} V0: "
                    f"%{{y:.4f}} {style.text(unit)}<extra></extra>",
                }
            )
        lowest = row == (len(panels) - 1 - column) // _COLUMNS
        layout[f"xaxis{key}"] = {
            "domain": [left, left + wide],
            "anchor": f"y{key}",
            "range": [ends[0] - 0.06 * (ends[1] - ends[0]), ends[1] + 0.06 * (ends[1] - ends[0])],
            "dtick": 0.2,
            **({"title": {"text": "V / V0"}} if lowest else {}),
        }
        layout[f"yaxis{key}"] = {
            "domain": [max(top - high, 0.0), min(top, 1.0)],
            "anchor": f"x{key}",
            "nticks": 5,
            "title": {"text": f"E − {style.text(origin)} ({style.text(unit)})"}
            if column == 0
            else {},
        }
        shapes.append(_shaded(near, f"x{key}", f"y{key} domain"))
        annotations.append(
            {
                "text": f"<b>{style.text(name)}</b>",
                "xref": f"x{key} domain",
                "yref": f"y{key} domain",
                "x": 0.58,  # above the minimum, where no curve runs
                "y": 0.97,
                "xanchor": "center",
                "yanchor": "top",
                "showarrow": False,
                "font": {"size": 12},
            }
        )
    annotations.append(
        {
            **style.note(f"shaded: {near[0]:g} to {near[1]:g} V0", x=1.0, y=1.0),
            "yanchor": "bottom",
            "yshift": 8,
        }
    )
    return style.figure(
        traces,
        title=title,
        width_px=900,
        height_px=height_px,
        min_width_px=760,
        shapes=shapes,
        annotations=annotations,
        legend={"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom", "xanchor": "left"},
        margin={"l": 70, "r": 20, "t": 78 if title else 44, "b": 56},
        **layout,
    )


def fit_in_window(
    distance_ang: np.ndarray,
    truth_ev: np.ndarray,
    fits_ev: np.ndarray,
    *,
    points: tuple[np.ndarray, np.ndarray],
    window_ang: tuple[float, float],
    title: str = "",
) -> Figure:
    """A known curve, what was learnt of it in a window, and the points it was learnt from.

    Args:
        distance_ang: (g,) ascending; (g,) ``truth_ev``.
        fits_ev: (t, g) one row a fit; the first, to which the points belong, is drawn bold.
        points: ((n,) Å, (n,) eV) the labels of the first fit.
    Raises:
        DataError: lengths differ or a value is not finite.
    """
    x, truth = style.column(distance_ang, "distances"), style.column(truth_ev, "truth")
    fits = [style.column(fit, f"fit {i}") for i, fit in enumerate(fits_ev)]
    if not fits or {len(truth), *map(len, fits)} != {len(x)}:
        raise DataError(f"{len(x)} distances; the truth and every fit need as many energies")
    labels_at, labels = (style.column(values, "points") for values in points)
    low, high = float(truth.min()), float(truth.max())
    span = high - low
    # Fits leave the frame far from the window; the frame is the truth's, with room for them.
    frame = [low - 0.6 * span, high + 0.9 * span]
    lines: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": "other draws of the points",
            "legendgroup": "others",
            "showlegend": i == 1,
            "x": x.round(4),
            "y": fit.round(4),
            "line": {"color": style.SUBJECT, "width": 0.8},
            "opacity": 0.3,
            "hoverinfo": "skip",
        }
        for i, fit in enumerate(fits)
        if i > 0
    ]
    lines.append(
        {
            "type": "scatter",
            "mode": "lines",
            "name": "the curve itself",
            "x": x.round(4),
            "y": truth.round(4),
            "line": {"color": style.INK, "width": 1.8, "dash": "dash"},
            "hovertemplate": "%{x:.2f} Å: %{y:.3f} eV<extra>the curve itself</extra>",
        }
    )
    lines.append(
        {
            "type": "scatter",
            "mode": "lines",
            "name": "fit",
            "x": x.round(4),
            "y": fits[0].round(4),
            "line": {"color": style.SUBJECT, "width": 2.4},
            "hovertemplate": "%{x:.2f} Å: %{y:.3f} eV<extra>fit</extra>",
        }
    )
    lines.append(
        {
            "type": "scatter",
            "mode": "markers",
            "name": "training points",
            "x": labels_at.round(4),
            "y": labels.round(4),
            "marker": {
                "size": 6,
                "color": "white",
                "line": {"color": style.ACCENT, "width": 1.4},
            },
            "hovertemplate": "%{x:.3f} Å: %{y:.3f} eV<extra>training point</extra>",
        }
    )
    return style.figure(
        lines,
        title=title,
        width_px=760,
        height_px=500,
        min_width_px=480,
        xaxis={"title": {"text": "distance (Å)"}, "range": [float(x[0]), float(x[-1])]},
        yaxis={"title": {"text": "energy (eV)"}, "range": frame},
        shapes=[_shaded(window_ang, "x", "paper")],
        annotations=[
            {
                "text": "training window",
                "x": sum(window_ang) / 2,
                "yref": "paper",
                "y": 0.99,
                "yanchor": "top",
                "showarrow": False,
                "font": {"size": 12, "color": style.MUTED},
            }
        ],
        legend={"orientation": "h", "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom"},
        margin={"l": 72, "r": 20, "t": 100 if title else 60, "b": 56},
    )


def _shaded(ends: tuple[float, float], xref: str, yref: str) -> dict[str, Any]:
    return {
        "type": "rect",
        "xref": xref,
        "yref": yref,
        "x0": ends[0],
        "x1": ends[1],
        "y0": 0,
        "y1": 1,
        "fillcolor": _SHADE,
        "line": {"width": 0},
        "layer": "below",
    }
