"""Errors side by side: of several models, and of several elements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.data.elements import SYMBOLS
from harness.errors import DataError
from harness.plots import style

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Row = tuple[str, float, float, float, bool]  # name, estimate, low, high, is the model under test
FEW_ROWS = 10  # a mean over fewer is shown in italics
_WIDE = 20  # ratio of the largest to the smallest error above which the axis is logarithmic


def mae_comparison(
    rows: Sequence[Row],
    *,
    unit: str = "eV/atom",
    bound: float | None = None,
    title: str = "",
) -> Figure:
    """Mean absolute errors with their intervals, smallest on top, the subject set off.

    Args:
        rows: (name, estimate, low, high, is_subject) in ``unit``; low == high == estimate where
            a published number has no interval, and then no whisker is drawn.
        bound: a vertical line, in ``unit``.
    Raises:
        DataError: no rows, a value is not finite, or low <= estimate <= high does not hold.
    """
    if not rows:
        raise DataError("no rows to compare; give at least one (name, mae, low, high, is_subject)")
    for name, *numbers, _ in rows:
        estimate, low, high = style.column(numbers, f"{name}: estimate, low, high")
        if not low <= estimate <= high:
            raise DataError(f"{name}: {low} <= {estimate} <= {high} does not hold")
    ordered = sorted(rows, key=lambda row: -row[1])  # plotly counts rows from the bottom
    ends = [x for row in ordered for x in row[1:4]] + ([] if bound is None else [bound])
    logarithmic = min(ends) > 0 and max(ends) > _WIDE * min(ends)
    traces = []
    for subject in (False, True):
        places = [i for i, row in enumerate(ordered) if bool(row[4]) is subject]
        if not places:
            continue
        shown = [ordered[i] for i in places]
        colour = style.SUBJECT if subject else style.MUTED
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": [row[1] for row in shown],
                "y": places,
                "error_x": {
                    "type": "data",
                    "symmetric": False,
                    "array": [row[3] - row[1] for row in shown],
                    "arrayminus": [row[1] - row[2] for row in shown],
                    "thickness": 2 if subject else 1.4,
                    "width": 4,
                    "color": colour,
                },
                "marker": {
                    "size": 11 if subject else 8,
                    "color": colour,
                    "symbol": "diamond" if subject else "circle",
                },
                "text": [_hover(row, unit) for row in shown],
                "hovertemplate": "%{text}<extra></extra>",
                "showlegend": False,
            }
        )
    annotations: list[dict[str, Any]] = [
        {
            "x": float(np.log10(row[3])) if logarithmic else row[3],
            "y": i,
            "text": f"<b>{row[1]:.4f}</b>" if row[4] else f"{row[1]:.4f}",
            "showarrow": False,
            "xanchor": "left",
            "xshift": 10,
            "font": {"size": 12, "color": style.SUBJECT if row[4] else style.MUTED},
            "bgcolor": "rgba(255,255,255,0.85)",
        }
        for i, row in enumerate(ordered)
    ]
    shapes = []
    if bound is not None:
        shapes.append(
            {
                "type": "line",
                "x0": bound,
                "x1": bound,
                "yref": "paper",
                "y0": 0,
                "y1": 1,
                "line": {"color": style.ACCENT, "width": 1.5, "dash": "dash"},
                "layer": "below",
            }
        )
        annotations.append(
            {
                "x": float(np.log10(bound)) if logarithmic else bound,
                "yref": "paper",
                "y": 1,
                "yanchor": "bottom",
                "text": f"bound {bound:g}",
                "showarrow": False,
                "font": {"size": 12, "color": style.ACCENT},
            }
        )
    low, high = min(ends), max(ends)
    if logarithmic:
        span = np.log10(high / low)
        frame = [float(np.log10(low) - 0.05 * span), float(np.log10(high) + 0.18 * span)]
    else:
        frame = [min(0.0, low), high + 0.14 * (high - min(0.0, low))]
    return style.figure(
        traces,
        title=title,
        width_px=900,
        min_width_px=520,
        height_px=(130 if title else 100) + 34 * len(ordered),
        xaxis={
            "title": {"text": f"mean absolute error ({style.text(unit)})"},
            "type": "log" if logarithmic else "linear",
            "range": frame,
            **({"dtick": "D2"} if logarithmic else {}),
        },
        yaxis={
            "tickvals": list(range(len(ordered))),
            "ticktext": [
                f"<b>{style.text(row[0])}</b>" if row[4] else style.text(row[0]) for row in ordered
            ],
            "range": [-0.6, len(ordered) - 0.4],
            "showgrid": True,
            "ticks": "",
            "showline": False,
            "tickfont": {"size": 13, "color": style.INK},
        },
        margin={"l": 20, "r": 20, "t": 68 if title else 34, "b": 56},
        shapes=shapes,
        annotations=annotations,
    )


def error_by_element(
    numbers: np.ndarray,
    mae: np.ndarray,
    n: np.ndarray,
    *,
    unit: str = "eV/atom",
    title: str = "",
) -> Figure:
    """Mean absolute error by element on the periodic table; hovering shows error and rows.

    Errors in eV/atom are shown in meV/atom, which fits a cell. Elements without rows are grey,
    fewer than 10 rows italic. The colour ends at the 97 % quantile, so that one bad element does
    not pale the others.

    Args:
        numbers: (k,) distinct atomic numbers, 1 to 118.
        mae: (k,) in ``unit``, over the rows that contain the element.
        n: (k,) how many rows those are.
    Raises:
        DataError: lengths differ, an atomic number repeats or does not exist, or a value is not
            finite.
    """
    mae = style.column(mae, "mae")
    z = style.column(numbers, "numbers").astype(int)
    rows = style.column(n, "n").astype(int)
    if not len(z) == len(mae) == len(rows):
        raise DataError(f"{len(z)} elements, {len(mae)} errors, {len(rows)} counts: give as many")
    if z.min() < 1 or z.max() > len(SYMBOLS) or len(np.unique(z)) != len(z):
        raise DataError(f"atomic numbers must be distinct and in 1..118: {sorted(z.tolist())}")
    shown, shown_unit, digits = mae, unit, "{:.3g}"
    if unit == "eV/atom":
        shown, shown_unit, digits = 1000 * mae, "meV/atom", "{:.0f}"
    table, words, hover = (np.full((10, 18), fill, object) for fill in (None, "", ""))
    absent = np.full((10, 18), None, object)
    for number in range(1, len(SYMBOLS) + 1):
        y, x = _place(number)
        absent[y, x] = 0
        words[y, x] = f"{SYMBOLS[number - 1]}<br> "
        hover[y, x] = f"<b>{SYMBOLS[number - 1]}</b> no rows"
    for number, value, count in zip(z.tolist(), shown.tolist(), rows.tolist(), strict=True):
        y, x = _place(number)
        symbol, figure = SYMBOLS[number - 1], digits.format(value)
        figure = f"<i>{figure}</i>" if count < FEW_ROWS else figure
        table[y, x], absent[y, x] = float(f"{value:.6g}"), None
        words[y, x] = f"<b>{symbol}</b><br>{figure}"
        hover[y, x] = f"<b>{symbol}</b> MAE {value:.4g} {style.text(shown_unit)}, {count:,} rows"
    ticks = _round_ticks(float(np.quantile(shown, 0.97)))
    top = float(ticks[-1])
    capped = "≥ " if shown.max() > top else ""
    cells = {"type": "heatmap", "xgap": 2, "ygap": 2, "hoverongaps": False}

    def text_of(mask: np.ndarray) -> dict[str, Any]:
        return {
            "text": np.where(mask, words, "").tolist(),
            "hovertext": np.where(mask, hover, "").tolist(),
            "hovertemplate": "%{hovertext}<extra></extra>",
            "texttemplate": "%{text}",
        }

    is_absent = np.array([[cell is not None for cell in line] for line in absent])
    is_shown = np.array([[cell is not None for cell in line] for line in table])
    return style.figure(
        [
            {
                **cells,
                **text_of(is_absent),
                "z": absent.tolist(),
                "colorscale": [[0, "#f1f3f5"], [1, "#f1f3f5"]],
                "showscale": False,
                "textfont": {"size": 12, "color": "#a3abb5"},
            },
            {
                **cells,
                **text_of(is_shown),
                "z": table.tolist(),
                "zmin": 0,
                "zmax": top,
                "colorscale": [list(stop) for stop in style.ERROR_SCALE],
                "textfont": {"size": 12},
                "colorbar": {
                    "orientation": "h",
                    "title": {
                        "text": f"mean absolute error ({style.text(shown_unit)})",
                        "side": "top",
                        "font": {"size": 12},
                    },
                    "tickvals": ticks.tolist(),
                    "ticktext": [*(f"{t:.3g}" for t in ticks[:-1]), f"{capped}{ticks[-1]:.3g}"],
                    "thickness": 10,
                    "len": 0.42,
                    "x": 0.37,
                    "xanchor": "center",
                    "y": 0.985,
                    "yanchor": "top",
                    "outlinewidth": 0,
                },
            },
        ],
        title=title,
        width_px=1000,
        height_px=560 if title else 530,
        min_width_px=860,
        margin={"l": 12, "r": 12, "t": 48 if title else 12, "b": 28},
        xaxis={"visible": False, "range": [-0.5, 17.5], "fixedrange": True},
        yaxis={"visible": False, "range": [9.5, -0.5], "fixedrange": True},
        annotations=[
            style.note(
                f"grey: no rows; italic: fewer than {FEW_ROWS} rows; an element's rows are those "
                "that contain it",
                x=0.006,
                y=0,
                anchor="left",
            )
        ],
    )


def _hover(row: Row, unit: str) -> str:
    name, estimate, low, high, _ = row
    interval = "" if low == high else f"<br>95 % interval {low:.4f} to {high:.4f}"
    return f"<b>{style.text(name)}</b><br>{estimate:.4f} {style.text(unit)}{interval}"


def _round_ticks(top: float) -> np.ndarray:
    """Four or five round steps from 0 to just above ``top``."""
    if top <= 0:
        return np.array([0.0, 1.0])
    power = 10.0 ** np.floor(np.log10(top / 4))
    step = next(s for s in (1, 2, 2.5, 5, 10) if s * power >= top / 5) * power
    return np.arange(np.ceil(top / step - 1e-9) + 1) * step


def _place(number: int) -> tuple[int, int]:
    """(row, column) of an element, rows from the top; lanthanides and actinides in rows 8 and 9.

    Row 7 stays empty. La and Ac lead their series, so group 3 is empty in periods 6 and 7.
    """
    if 57 <= number <= 71:
        return 8, number - 57 + 2
    if 89 <= number <= 103:
        return 9, number - 89 + 2
    noble = (0, 2, 10, 18, 36, 54, 86, 118)
    period = next(k for k in range(7) if number <= noble[k + 1])
    first, last = noble[period] + 1, noble[period + 1]
    if number - first < (1 if period == 0 else 2):
        return period, number - first
    return period, 17 - (last - number)
