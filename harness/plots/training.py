"""Trainings: how losses fall, and what a lever does beyond the noise of training twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import DataError
from harness.plots import style

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

# name, mean change of predictions, low, high, A/A floor, verdict's word
LeverRow = tuple[str, float, float, float, float, str]


_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x")


def loss_curves(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]],
    *,
    unit: str = "eV/atom",
    start: float | None = None,
    kept: Mapping[str, int] | None = None,
    title: str = "",
) -> Figure:
    """Error after every epoch, one line a training; epoch 0 is the start.

    Args:
        curves: name -> (e + 1,) errors of fitted rows and (e + 1,) of rows held back, in ``unit``;
            those of rows held back are left out where they are all nan.
        start: a horizontal line in ``unit``, such as the zero-shot error of the test rows.
        kept: name -> the epoch whose weights were kept, marked on its curve.
    Raises:
        DataError: no curves, or a value is not finite.
    """
    if not curves:
        raise DataError("no curves to draw; give at least one training")
    traces: list[dict[str, Any]] = []
    shown: list[np.ndarray] = []
    for i, (name, pair) in enumerate(curves.items()):
        colour = (style.SUBJECT, *style.OTHERS)[i % (1 + len(style.OTHERS))]
        symbol = _SYMBOLS[i % len(_SYMBOLS)]
        for errors, what, dash in zip(pair, ("fitted", "held back"), ("solid", "dot"), strict=True):
            if what == "held back" and np.isnan(errors).all():
                continue
            values = style.column(errors, f"{name}: {what}")
            shown.append(values)
            traces.append(
                {
                    "type": "scatter",
                    "mode": "lines+markers",
                    "x": list(range(len(values))),
                    "y": values,
                    "name": f"{style.text(name)}, {what}",
                    "line": {"color": colour, "width": 1.8, "dash": dash},
                    "marker": {
                        "size": 6,
                        "symbol": symbol if dash == "solid" else f"{symbol}-open",
                    },
                    "hovertemplate": "epoch %{x}: %{y:.5f}<extra>%{fullData.name}</extra>",
                }
            )
        epoch = (kept or {}).get(name)
        if epoch is not None:
            curve = next(c for c in reversed(pair) if not np.isnan(c).all())
            traces.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "x": [epoch],
                    "y": [float(curve[epoch])],
                    "name": f"{style.text(name)}, kept: epoch {epoch}",
                    "marker": {
                        "size": 14,
                        "symbol": "star-open",
                        "color": colour,
                        "line": {"width": 2},
                    },
                    "hoverinfo": "skip",
                }
            )
    low, high = (float(f(np.concatenate(shown))) for f in (np.min, np.max))
    shapes, annotations = [], []
    if start is not None:
        low, high = min(low, start), max(high, start)
        shapes.append(_line(y0=start, y1=start))
        annotations.append(_label(f"zero-shot on the test rows {start:.4f}", x=1, y=start))
    space = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
    return style.figure(
        traces,
        title=title,
        width_px=760,
        height_px=470,
        min_width_px=460,
        xaxis={"title": {"text": "epoch"}, "dtick": 1 if max(map(len, shown)) < 20 else None},
        yaxis={
            "title": {"text": f"mean absolute error ({style.text(unit)})"},
            "range": [max(0.0, low - space) if low >= 0 else low - space, high + space],
        },
        legend={"x": 1.02, "y": 1, "xanchor": "left", "yanchor": "top"},
        margin={"l": 64, "r": 20, "t": 48 if title else 20, "b": 56},
        shapes=shapes,
        annotations=annotations,
    )


def lever_effects(
    rows: Sequence[LeverRow], *, unit: str = "eV/atom", bound: float | None = None, title: str = ""
) -> Figure:
    """Mean change of predictions by each lever, on a logarithmic axis, beside its A/A floor.

    Args:
        rows: (name, change, low, high, floor, verdict), in ``unit``; a change of 0 is drawn at the
            left edge with the word "0".
        bound: a vertical line, in ``unit``.
    Raises:
        DataError: no rows, a value is not finite, a change is negative, a floor is not positive, or
            low <= change <= high does not hold.
    """
    if not rows:
        raise DataError("no levers to draw; give at least one")
    for name, *numbers, _ in rows:
        change, low, high, floor = style.column(numbers, f"{name}: change, low, high, floor")
        if not low <= change <= high or change < 0 or floor <= 0:
            raise DataError(
                f"{name}: {low} <= {change} <= {high} does not hold, the change is below 0, or the "
                f"floor {floor} is not positive"
            )
    ends = [x for row in rows for x in row[1:5] if x > 0] + ([] if bound is None else [bound])
    first = 10 ** (np.floor(np.log10(min(ends))) - 0.5)
    # the words beside the last marker take about a fifth of the width
    last = 10 ** (np.log10(max(ends)) + 0.25 * np.log10(max(ends) / first))
    traces: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for i, (name, change, low, high, floor, verdict) in enumerate(reversed(rows)):
        colour = style.VERDICT_COLOURS.get(verdict, style.MUTED)
        at = max(change, first)
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "x": [first, floor],
                "y": [i, i],
                "line": {"color": "#d5dae0", "width": 12},
                "hovertemplate": f"A/A floor {floor:.1e}<extra>{style.text(name)}</extra>",
                "showlegend": False,
            }
        )
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": [at],
                "y": [i],
                "error_x": {
                    "type": "data",
                    "symmetric": False,
                    "array": [max(high, first) - at],
                    "arrayminus": [at - max(low, first)],
                    "thickness": 1.6,
                    "width": 4,
                    "color": colour,
                },
                "marker": {
                    "size": 10,
                    "color": colour,
                    "symbol": "diamond" if verdict == "held" else "x",
                },
                "hovertemplate": f"{change:.2e} [{low:.2e}, {high:.2e}] {style.text(unit)}"
                f"<extra>{style.text(name)}</extra>",
                "showlegend": False,
            }
        )
        words = f"{change:.1e}" if change > 0 else "0"
        annotations.append(
            {
                "x": float(np.log10(max(high, first))),
                "y": i,
                "text": f"{words} {style.text(verdict)}",
                "showarrow": False,
                "xanchor": "left",
                "xshift": 10,
                "font": {"size": 12, "color": colour},
            }
        )
    shapes = []
    if bound is not None:
        shapes.append(_line(x0=bound, x1=bound))
        annotations.append(
            {
                "x": float(np.log10(bound)),
                "yref": "paper",
                "y": 1,
                "yanchor": "bottom",
                "text": f"bound {bound:g}",
                "showarrow": False,
                "font": {"size": 12, "color": style.ACCENT},
            }
        )
    names = [style.text(row[0]) for row in reversed(rows)]
    return style.figure(
        traces,
        title=title,
        width_px=820,
        height_px=(150 if title else 120) + 36 * len(rows),
        min_width_px=520,
        xaxis={
            "title": {
                "text": f"mean change of predictions ({style.text(unit)}); grey: the A/A floor"
            },
            "type": "log",
            "range": [float(np.log10(first)), float(np.log10(last))],
            "exponentformat": "power",
            "dtick": 1,
        },
        yaxis={
            "tickvals": list(range(len(rows))),
            "ticktext": names,
            "range": [-0.6, len(rows) - 0.4],
            "ticks": "",
            "showline": False,
            "tickfont": {"size": 13, "color": style.INK},
        },
        margin={"l": 20, "r": 20, "t": 68 if title else 34, "b": 56},
        shapes=shapes,
        annotations=annotations,
    )


def _line(**ends: float) -> dict[str, Any]:
    """A dashed line across the plot at one x or one y."""
    across = "x" if "y0" in ends else "y"
    return {
        "type": "line",
        **ends,
        f"{across}ref": "paper",
        f"{across}0": 0,
        f"{across}1": 1,
        "line": {"color": style.ACCENT, "width": 1.5, "dash": "dash"},
        "layer": "below",
    }


def _label(words: str, *, x: float, y: float) -> dict[str, Any]:
    """Words just above a horizontal line."""
    return {
        "text": style.text(words),
        "xref": "paper",
        "x": x,
        "y": y,
        "xanchor": "right",
        "yanchor": "bottom",
        "showarrow": False,
        "font": {"size": 12, "color": style.ACCENT},
    }
