"""Predicted against reference values, as points or, for many rows, as a density."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import DataError
from harness.plots import style

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MOST_POINTS = 3_000  # above this a scatter hides its own density and weighs megabytes
N_BINS = 110
N_LARGEST = 30
# References and the middle 99.8 % of the predictions set the frame when the full range is this much
# wider, so that one absurd prediction does not shrink all others to a dot.
_ROOM = 1.6


def parity(
    reference: np.ndarray,
    predicted: np.ndarray,
    *,
    label: str = "e_form",
    unit: str = "eV/atom",
    names: Sequence[str] | np.ndarray | None = None,
    title: str = "",
) -> Figure:
    """Parity plot with equal axes and the diagonal.

    Up to 3,000 rows are points; more are a density of rows (logarithmic colour) with the 30
    largest errors as points, so that 26,551 rows stay below 300 kB of JSON. Rows outside the
    frame are drawn as triangles on its edge, and counted.

    Args:
        reference, predicted: (n,) finite, in ``unit``.
        names: (n,) what hovering shows; row numbers otherwise.
    Raises:
        DataError: lengths differ, no rows, or a value is not finite.
    """
    reference = style.column(reference, "reference")
    predicted = style.column(predicted, "predicted")
    n = len(reference)
    if len(predicted) != n or (names is not None and len(names) != n):
        given = "" if names is None else f", {len(names)} names"
        raise DataError(f"{n} reference values, {len(predicted)} predicted{given}: give as many")
    low, high = _frame(reference, predicted)
    error = predicted - reference
    labels = np.array([f"row {i}" for i in range(n)] if names is None else [*map(str, names)])
    outside = (np.minimum(reference, predicted) < low) | (np.maximum(reference, predicted) > high)

    def points(rows: np.ndarray, **looks: Any) -> dict[str, Any]:
        return {
            "type": "scatter",
            "mode": "markers",
            "x": np.clip(reference[rows], low, high).round(5),
            "y": np.clip(predicted[rows], low, high).round(5),
            "text": [style.text(name) for name in labels[rows]],
            "customdata": np.stack([reference[rows], predicted[rows], error[rows]], 1).round(5),
            "hovertemplate": "<b>%{text}</b><br>reference %{customdata[0]:.4f}<br>"
            f"predicted %{{customdata[1]:.4f}}<br>error %{{customdata[2]:+.4f}} {style.text(unit)}"
            "<extra></extra>",
            "showlegend": False,
            **looks,
        }

    traces: list[dict[str, Any]] = []
    notes = [f"n = {n:,}"]
    if n <= MOST_POINTS:
        looks = {"size": 5, "color": style.SUBJECT, "opacity": float(np.clip(250 / n, 0.3, 0.8))}
        traces.append(points(np.flatnonzero(~outside), marker=looks))
        marked = outside
    else:
        traces.append(_density(reference[~outside], predicted[~outside], low, high))
        largest = np.zeros(n, dtype=bool)
        largest[np.argsort(-np.abs(error), kind="stable")[:N_LARGEST]] = True
        looks = {"size": 5, "color": "white", "line": {"color": style.ACCENT, "width": 1.4}}
        traces.append(points(np.flatnonzero(largest & ~outside), marker=looks))
        notes.append(f"circles: {N_LARGEST} largest errors")
        marked = outside & largest
    if outside.any():
        looks = {
            "size": 8,
            "symbol": "triangle-up-open",
            "color": style.ACCENT,
            "line": {"width": 1.4},
        }
        traces.append(points(np.flatnonzero(marked), marker=looks, cliponaxis=False))
        notes.append(
            f"triangles: {outside.sum():,} outside the frame"
            if n <= MOST_POINTS or marked.sum() == outside.sum()
            else f"{outside.sum():,} outside the frame, the largest as triangles"
        )
    diagonal = {
        "type": "scatter",
        "mode": "lines",
        "x": [low, high],
        "y": [low, high],
        "line": {"color": "#8b95a1", "width": 1},
        "hoverinfo": "skip",
        "showlegend": False,
    }
    axis = {"range": [low, high], "constrain": "domain", "nticks": 8}
    quantity = f"{style.text(label)} ({style.text(unit)})"
    return style.figure(
        [traces[0], diagonal, *traces[1:]],
        title=title,
        width_px=540,
        height_px=500,
        keep_aspect=True,
        xaxis={**axis, "title": {"text": f"reference {quantity}"}},
        yaxis={
            **axis,
            "title": {"text": f"predicted {quantity}"},
            "scaleanchor": "x",
            "scaleratio": 1,
        },
        annotations=[style.note("<br>".join(notes), x=0.02, y=0.985, anchor="left")],
    )


def _frame(reference: np.ndarray, predicted: np.ndarray) -> tuple[float, float]:
    """Common range of both axes, with a margin."""
    low = float(min(reference.min(), predicted.min()))
    high = float(max(reference.max(), predicted.max()))
    inner = [
        np.quantile(predicted, 0.001, method="higher"),  # never between the absurd and the rest
        np.quantile(predicted, 0.999, method="lower"),
        reference.min(),
        reference.max(),
    ]
    if high - low > _ROOM * (max(inner) - min(inner)) > 0:
        low, high = float(min(inner)), float(max(inner))
    margin = 0.04 * (high - low) or max(abs(high), 1.0) * 0.04
    return low - margin, high + margin


def _density(
    reference: np.ndarray, predicted: np.ndarray, low: float, high: float
) -> dict[str, Any]:
    edges = np.linspace(low, high, N_BINS + 1)
    counts = np.histogram2d(predicted, reference, bins=(edges, edges))[0]  # rows of z are y
    top = int(counts.max())
    ticks = [10**k for k in range(int(np.log10(max(top, 1))) + 1)]
    if top > 2 * ticks[-1]:
        ticks.append(top)
    step = (high - low) / N_BINS
    with np.errstate(divide="ignore"):
        z = np.where(counts > 0, np.log10(counts), np.nan)
    return {
        "type": "heatmap",
        "z": z.astype(np.float32),
        "customdata": counts.astype(np.uint16 if top < 2**16 else np.uint32),
        "x0": low + step / 2,
        "dx": step,
        "y0": low + step / 2,
        "dy": step,
        "zmin": 0,
        "zmax": float(np.log10(max(top, 2))),
        "colorscale": [list(stop) for stop in style.DENSITY],
        "hovertemplate": "%{customdata} rows near<br>reference %{x:.3f}<br>predicted %{y:.3f}"
        "<extra></extra>",
        "hoverongaps": False,
        "colorbar": {
            "title": {"text": "rows per cell", "side": "right", "font": {"size": 12}},
            "tickvals": [float(np.log10(t)) for t in ticks],
            "ticktext": [f"{t:,}" for t in ticks],
            "thickness": 12,
            "len": 1.0,
            "outlinewidth": 0,
            "xpad": 6,
        },
    }
