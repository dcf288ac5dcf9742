"""Errors on several sets against the size of the signal one wants to resolve."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import DataError
from harness.plots import style

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Mae = tuple[float, float, float]  # estimate, low, high
_BAR = 0.34
_SYMBOLS = ("diamond", "circle", "square", "triangle-up")
# Alignments after the first are hatched, so that they are told apart without colour.
_LOOKS: tuple[dict[str, Any], ...] = (
    {"color": style.SUBJECT},
    {
        "color": "#9cc3de",
        "pattern": {"shape": "/", "fgcolor": style.SUBJECT, "size": 6, "solidity": 0.25},
    },
)


def error_magnitudes(
    maes: Mapping[str, Mapping[str, Mae]],
    *,
    published: Mapping[str, Mapping[str, float]],
    signal: tuple[float, float],
    model: str,
    unit: str = "eV/atom",
    title: str = "",
) -> Figure:
    """Bars of mean absolute errors a set on a logarithmic axis, with the signal as a band.

    Bars begin at the left end of the axis, which is no zero: their ends count, not their lengths.

    Args:
        model: whose errors the bars are.
        maes: alignment (two at most) -> set -> (estimate, low, high), from a runner; estimates are
            above zero, and an interval of few rows may reach below.
        published: set -> model -> its published error, drawn as open markers.
        signal: (low, high) of the band.
    Raises:
        DataError: nothing to draw, more than two alignments, a value is not finite or positive, or
            low <= estimate <= high fails.
    """
    sets = list(dict.fromkeys(name for rows in maes.values() for name in rows))
    if not sets or len(maes) > len(_LOOKS):
        raise DataError(f"{len(sets)} sets under {len(maes)} alignments; give 1 or more under 1, 2")
    place = {name: len(sets) - 1 - i for i, name in enumerate(sets)}  # the first on top
    values = [*signal]
    for rows in maes.values():
        for name, row in rows.items():
            estimate, low, high = style.column(row, f"{name}: estimate, low, high")
            if not (low <= estimate <= high and estimate > 0):
                raise DataError(f"{name}: {low} <= {estimate} <= {high} does not hold, or 0 < them")
            values += [estimate, high, *([low] if low > 0 else [])]
    models = dict.fromkeys(m for name in sets for m in published.get(name, {}))
    shown = {m: [(n, published[n][m]) for n in sets if m in published.get(n, {})] for m in models}
    values += style.column(
        [value for points in shown.values() for _, value in points] or signal, "published"
    ).tolist()
    if min(values) <= 0:
        raise DataError(f"errors and the signal must be above zero, the least is {min(values)}")
    start, end = min(values) / 1.5, max(values) * 1.9
    traces: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for i, (alignment, rows) in enumerate(maes.items()):
        offset = 0.0 if len(maes) == 1 else (_BAR / 2 if i == 0 else -_BAR / 2)
        names = list(rows)
        y = [place[name] + offset for name in names]
        traces.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": f"{style.text(model)}, {style.text(alignment)}",
                "base": start,
                "x": [rows[name][0] - start for name in names],
                "y": y,
                "width": 0.9 * _BAR,
                "marker": {**_LOOKS[i], "line": {"color": style.SUBJECT, "width": 1}},
                "error_x": {
                    "type": "data",
                    "symmetric": False,
                    "array": [rows[name][2] - rows[name][0] for name in names],
                    # what reaches below zero leaves a logarithmic axis at its left end
                    "arrayminus": [rows[name][0] - max(rows[name][1], start) for name in names],
                    "thickness": 1.6,
                    "width": 4,
                    "color": style.INK,
                },
                "text": [
                    f"{rows[name][0]:.4f} [{rows[name][1]:.4f}, {rows[name][2]:.4f}]"
                    for name in names
                ],
                "textposition": "none",
                "hovertemplate": f"%{{text}} {style.text(unit)}<extra>%{{fullData.name}}</extra>",
            }
        )
        annotations += [
            {
                "x": float(np.log10(rows[name][2])),
                "y": at,
                "text": f"{rows[name][0]:.3f}",
                "showarrow": False,
                "xanchor": "left",
                "xshift": 6,
                "font": {"size": 11, "color": style.INK},
                "bgcolor": "rgba(255,255,255,0.75)",
            }
            for name, at in zip(names, y, strict=True)
        ]
    for i, (name, points) in enumerate(shown.items()):
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": f"{style.text(name)}, published",
                "x": [value for _, value in points],
                "y": [place[where] for where, _ in points],
                "marker": {
                    "size": 11,
                    "symbol": _SYMBOLS[i % len(_SYMBOLS)],
                    "color": "white",  # open, and yet seen on a dark bar
                    "line": {"width": 2.4, "color": style.OTHERS[i % len(style.OTHERS)]},
                },
                "hovertemplate": f"%{{x:.3f}} {style.text(unit)}<extra>%{{fullData.name}}</extra>",
            }
        )
    annotations.append(
        {
            "x": float(np.log10(np.sqrt(signal[0] * signal[1]))),
            "yref": "paper",
            "y": 1,
            "yanchor": "bottom",
            "text": f"signal to resolve<br>{signal[0]:g} to {signal[1]:g}",
            "showarrow": False,
            "font": {"size": 11, "color": style.VERDICT_COLOURS["inconclusive"]},
        }
    )
    ticks = [d * 10.0**k for k in range(-4, 4) for d in (1, 2, 5)]
    ticks = [tick for tick in ticks if start <= tick <= end]
    return style.figure(
        traces,
        title=title,
        width_px=860,
        height_px=(190 if title else 160) + 62 * len(sets),
        min_width_px=620,
        xaxis={
            "title": {"text": f"mean absolute error of the energy ({style.text(unit)})"},
            "type": "log",
            "range": [float(np.log10(start)), float(np.log10(end))],
            "tickvals": ticks,
            "ticktext": [f"{tick:g}" for tick in ticks],
        },
        yaxis={
            "tickvals": [place[name] for name in sets],
            "ticktext": [style.text(name) for name in sets],
            "range": [-0.6, len(sets) - 0.4],
            "showgrid": False,
        },
        shapes=[
            {
                "type": "rect",
                "x0": signal[0],
                "x1": signal[1],
                "yref": "paper",
                "y0": 0,
                "y1": 1,
                "fillcolor": "#f6e3b0",
                "line": {"width": 0},
                "layer": "below",
            }
        ],
        annotations=annotations,
        legend={
            "orientation": "h",
            "x": 0,
            "y": 0,
            "yref": "container",
            "xanchor": "left",
            "yanchor": "bottom",
        },
        margin={"l": 170, "r": 20, "t": 84 if title else 52, "b": 92},
        barmode="overlay",
    )
