"""Error against the number of training rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import DataError
from harness.plots import style

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Point = tuple[float, float, float, float]  # training rows, estimate, low, high
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x")
_FEW = 300  # ratio of the ends of an axis up to which it is marked at 1, 2 and 5
_LOWEST_SHOWN = 0.2  # of the estimate: a logarithmic axis has no place for an end at or below zero


def learning_curves(
    curves: Mapping[str, Sequence[Point]],
    *,
    lines: Mapping[str, float] | None = None,
    unit: str = "eV/atom",
    measure: str = "mean absolute error",
    title: str = "",
) -> Figure:
    """Learning curves on logarithmic axes with their intervals, the subject first.

    Args:
        curves: name -> (n, estimate, low, high) with n and estimate above zero.
        lines: name -> an error in ``unit`` that needs no training rows, drawn across.
    Raises:
        DataError: no points, a value is not finite or positive, or low <= estimate <= high fails.
    """
    if not curves or not all(len(points) for points in curves.values()):
        raise DataError("a learning curve needs at least one point; leave empty curves out")
    colours = (style.SUBJECT, *style.OTHERS)
    ends: list[float] = list((lines or {}).values())
    sizes: set[float] = set()
    traces: list[dict[str, Any]] = []
    for i, (name, points) in enumerate(curves.items()):
        for point in points:
            n, estimate, low, high = style.column(point, f"{name}: n, estimate, low, high")
            if n <= 0 or estimate <= 0 or not low <= estimate <= high:
                raise DataError(f"{name}: {point} is no point: 0 < n and low <= estimate <= high")
        ordered = sorted(points)
        sizes.update(n for n, *_ in ordered)
        colour = colours[i % len(colours)]
        shown_low = [max(low, _LOWEST_SHOWN * e) for _, e, low, _ in ordered]
        ends += [*shown_low, *(high for *_, high in ordered)]
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": style.text(name),
                "x": [n for n, *_ in ordered],
                "y": [e for _, e, _, _ in ordered],
                "error_y": {
                    "type": "data",
                    "symmetric": False,
                    "array": [high - e for _, e, _, high in ordered],
                    "arrayminus": [
                        e - low for (_, e, _, _), low in zip(ordered, shown_low, strict=True)
                    ],
                    "thickness": 1.4,
                    "width": 4,
                    "color": colour,
                },
                "line": {
                    "color": colour,
                    "width": 2.2 if i == 0 else 1.6,
                    "dash": style.DASHES[i % len(style.DASHES)],
                },
                "marker": {"size": 9 if i == 0 else 8, "symbol": SYMBOLS[i % len(SYMBOLS)]},
                "text": [f"{e:.4g} [{low:.4g}, {high:.4g}]" for _, e, low, high in ordered],
                "hovertemplate": "%{x} rows: %{text}<extra>%{fullData.name}</extra>",
            }
        )
    span = [min(sizes) / 1.25, max(sizes) * 1.25]
    for i, (name, value) in enumerate((lines or {}).items()):
        (level,) = style.column([value], name)
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": f"{style.text(name)}: {level:.4f}",
                "x": span,
                "y": [level, level],
                "line": {"color": style.INK, "width": 1.2, "dash": style.DASHES[(i + 2) % 5]},
                "hoverinfo": "skip",
            }
        )
    low, high = min(ends) / 1.15, max(ends) * 1.15
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    digits = (1, 2, 5) if high / low < _FEW else (1,)
    ticks = [digit * 10.0**k for k in decades for digit in digits if low <= digit * 10.0**k <= high]
    return style.figure(
        traces,
        title=title,
        width_px=760,
        height_px=520,
        min_width_px=480,
        xaxis={
            "title": {"text": "training rows"},
            "type": "log",
            "range": np.log10(span).tolist(),
            "tickvals": sorted(sizes),
        },
        yaxis={
            "title": {"text": f"{style.text(measure)} ({style.text(unit)})"},
            "type": "log",
            "range": np.log10([low, high]).tolist(),
            "tickvals": ticks,
            "ticktext": [f"{tick:g}" for tick in ticks],
        },
        legend={"orientation": "h", "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom"},
        margin={"l": 72, "r": 20, "t": 130 if title else 100, "b": 56},
    )
