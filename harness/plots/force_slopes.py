"""Forces against a reference: the components themselves, and their slope as atoms move further."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import DataError
from harness.plots import style

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_MOST_NAMES = 20  # beside the ends of their lines; of more, hovering shows them
Point = tuple[float, float, float, float]  # x, estimate, low, high


def force_parity(
    reference: np.ndarray,
    predicted: np.ndarray,
    *,
    slope: tuple[float, float, float],
    names: Sequence[str],
    slope_of: str = "slope",
    unit: str = "eV/Å",
    title: str = "",
) -> Figure:
    """Force components against a reference with the diagonal and the line through the origin.

    The frame is the reference's, wider where predictions need it, equal on both axes and symmetric
    about zero, so that a slope below one is seen as a turn of the cloud.

    Args:
        reference, predicted: (n,) finite, in ``unit``.
        slope: (estimate, low, high) of the line, from a runner; ``slope_of`` says of what.
        names: (n,) what hovering shows.
    Raises:
        DataError: lengths differ, no rows, or a value is not finite.
    """
    x, y = style.column(reference, "reference"), style.column(predicted, "predicted")
    if not len(x) == len(y) == len(names):
        raise DataError(f"{len(x)} reference values, {len(y)} predicted, {len(names)} names")
    estimate, low, high = style.column(slope, "slope")
    end = 1.06 * float(max(np.abs(x).max(), np.abs(y).max(), 1e-9))
    reach = end / max(1.0, abs(estimate))  # the line ends at the frame
    return style.figure(
        [
            {
                "type": "scatter",
                "mode": "markers",
                "name": "force components",
                "x": x.round(4),
                "y": y.round(4),
                "text": [style.text(name) for name in names],
                "marker": {
                    "size": 4,
                    "color": style.SUBJECT,
                    "opacity": float(np.clip(300 / len(x), 0.25, 0.8)),
                },
                "hovertemplate": "<b>%{text}</b><br>reference %{x:.3f}<br>predicted %{y:.3f} "
                f"{style.text(unit)}<extra></extra>",
                "showlegend": False,
            },
            {
                "type": "scatter",
                "mode": "lines",
                "name": "equal forces",
                "x": [-end, end],
                "y": [-end, end],
                "line": {"color": "#8b95a1", "width": 1.2},
                "hoverinfo": "skip",
            },
            {
                "type": "scatter",
                "mode": "lines",
                "name": f"{style.text(slope_of)} {estimate:.3f} [{low:.3f}, {high:.3f}]",
                "x": [-reach, reach],
                "y": [-reach * estimate, reach * estimate],
                "line": {"color": style.ACCENT, "width": 2, "dash": "dash"},
                "hoverinfo": "skip",
            },
        ],
        title=title,
        width_px=540,
        height_px=560,
        keep_aspect=True,
        xaxis={
            "title": {"text": f"reference force component ({style.text(unit)})"},
            "range": [-end, end],
            "constrain": "domain",
            "nticks": 8,
        },
        yaxis={
            "title": {"text": f"predicted force component ({style.text(unit)})"},
            "range": [-end, end],
            "constrain": "domain",
            "nticks": 8,
            "scaleanchor": "x",
            "scaleratio": 1,
        },
        legend={"orientation": "h", "x": 0, "y": 1.01, "xanchor": "left", "yanchor": "bottom"},
        annotations=[
            style.note(
                f"n = {len(x):,} components of {len(set(names))} crystals",
                x=0.02,
                y=0.985,
                anchor="left",
            )
        ],
        margin={"l": 64, "r": 20, "t": 84 if title else 48, "b": 56},
    )


def slope_curves(
    each: Mapping[str, Sequence[tuple[float, float]]],
    means: Sequence[Point],
    *,
    bound: float | None = None,
    x_label: str = "rms displacement (Å)",
    y_label: str = "force slope, predicted over reference",
    title: str = "",
) -> Figure:
    """A ratio to the reference against displacement or volume: a line a crystal, their mean bold.

    Args:
        each: crystal -> (x, ratio), at least one point each.
        means: (x, estimate, low, high) over crystals, from a runner.
        bound: a dashed line across.
    Raises:
        DataError: nothing to draw, a value is not finite, or low <= estimate <= high fails.
    """
    if not each or not means or not all(len(points) for points in each.values()):
        raise DataError("no slopes to draw; give at least one crystal and one mean")
    for point in means:
        _, estimate, low, high = style.column(point, "means: x, estimate, low, high")
        if not low <= estimate <= high:
            raise DataError(f"means: {low} <= {estimate} <= {high} does not hold")
    ordered = sorted(means)
    places = sorted({x for points in each.values() for x, _ in points} | {p[0] for p in ordered})
    traces: list[dict[str, Any]] = []
    ends: list[tuple[str, float, float]] = []
    for name, points in each.items():
        x, y = (style.column(values, name) for values in zip(*sorted(points), strict=True))
        ends.append((name, float(x[-1]), float(y[-1])))
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": "each crystal",
                "legendgroup": "each",
                "showlegend": not traces,
                "x": x,
                "y": y.round(4),
                "line": {"color": "#9db3c8", "width": 1},
                "marker": {"size": 4, "color": "#7f9ab5"},
                "hovertemplate": f"<b>{style.text(name)}</b><br>%{{x:g}}: %{{y:.3f}}"
                "<extra></extra>",
            }
        )
    traces.append(
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": "mean over crystals, 95 % interval",
            "x": [x for x, *_ in ordered],
            "y": [estimate for _, estimate, _, _ in ordered],
            "error_y": {
                "type": "data",
                "symmetric": False,
                "array": [high - estimate for _, estimate, _, high in ordered],
                "arrayminus": [estimate - low for _, estimate, low, _ in ordered],
                "thickness": 1.8,
                "width": 5,
                "color": style.SUBJECT,
            },
            "line": {"color": style.SUBJECT, "width": 2.6},
            "marker": {"size": 10, "symbol": "diamond"},
            "text": [f"{e:.3f} [{low:.3f}, {high:.3f}]" for _, e, low, high in ordered],
            "hovertemplate": "mean over crystals<br>%{x:g}: %{text}<extra></extra>",
        }
    )
    values = [y for points in each.values() for _, y in points]
    values += [end for point in ordered for end in point[2:]]
    bottom, top = min(0.5, *values), max(1.1, *values)
    room = 0.05 * (top - bottom)
    span = (places[-1] - places[0]) or 1.0
    # Names at the right end, spread so that they do not lie on one another.
    step = 0.032 * (top - bottom + 2 * room)
    annotations: list[dict[str, Any]] = []
    last: dict[float, float] = {}
    named = sorted(ends, key=lambda end: end[2]) if len(ends) <= _MOST_NAMES else []
    for name, x_end, y_end in named:
        y_text = max(y_end, last.get(x_end, -np.inf) + step)
        last[x_end] = y_text
        annotations.append(
            {
                "x": x_end,
                "y": y_text,
                "text": style.text(name),
                "showarrow": False,
                "xanchor": "left",
                "xshift": 8,
                "font": {"size": 10, "color": style.MUTED},
            }
        )
    top = max([top, *last.values()])
    lines = [(1.0, "#8b95a1", "solid", "as the reference")]
    if bound is not None:
        lines.append((bound, style.ACCENT, "dash", f"bound {bound:g}"))
    shapes = [
        {
            "type": "line",
            "xref": "paper",
            "x0": 0,
            "x1": 1,
            "y0": level,
            "y1": level,
            "line": {"color": colour, "width": 1.3, "dash": dash},
            "layer": "below",
        }
        for level, colour, dash, _ in lines
    ]
    annotations += [
        {
            "xref": "paper",
            "x": 0.005,
            "y": level,
            "text": words,
            "showarrow": False,
            "xanchor": "left",
            "yanchor": "bottom" if level >= 1.0 else "top",
            "font": {"size": 11, "color": colour if dash == "dash" else style.MUTED},
        }
        for level, colour, dash, words in lines
    ]
    return style.figure(
        traces,
        title=title,
        width_px=820,
        height_px=580 if title else 550,
        min_width_px=560,
        legend={"orientation": "h", "x": 0, "y": 1.01, "xanchor": "left", "yanchor": "bottom"},
        xaxis={
            "title": {"text": style.text(x_label)},
            "range": [places[0] - 0.2 * span, places[-1] + (0.24 if named else 0.08) * span],
            "tickvals": places,
        },
        yaxis={
            "title": {"text": style.text(y_label)},
            "range": [bottom - room, top + room],
        },
        shapes=shapes,
        annotations=annotations,
        margin={"l": 72, "r": 20, "t": 78 if title else 46, "b": 56},
    )
