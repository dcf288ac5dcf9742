"""What averaging is worth, and whether members that disagree are members that err."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import DataError
from harness.plots import style

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

N_BINS = 20  # of equally many rows


def ensemble_gain(
    maes: Sequence[Sequence[float]],
    *,
    window: tuple[float, float] | None = None,
    unit: str = "eV/atom",
    title: str = "",
) -> Figure:
    """MAE against the number of members averaged: every choice of them, and their average.

    Args:
        maes: maes[k - 1] holds the MAE of the mean of each choice of k members, in ``unit``.
        window: a claimed gain of all members over one, as (least, most), drawn as a bar.
    Raises:
        DataError: fewer than two sizes, or a value is not finite.
    """
    if len(maes) < 2:
        raise DataError(f"MAEs of {len(maes)} size(s); a gain needs at least one and two members")
    columns = [style.column(of_size, f"MAEs of {k} members") for k, of_size in enumerate(maes, 1)]
    sizes = np.arange(1, len(columns) + 1)
    average = np.array([of_size.mean() for of_size in columns])
    traces: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": "each choice of members",
            "x": np.repeat(sizes, [len(of_size) for of_size in columns]),
            "y": np.concatenate(columns),
            "marker": {"size": 8, "symbol": "circle-open", "color": style.MUTED},
            "hovertemplate": "mean of %{x}: %{y:.5f}<extra></extra>",
        },
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": "average over the choices",
            "x": sizes,
            "y": average,
            "line": {"color": style.SUBJECT, "width": 2.2},
            "marker": {"size": 11, "symbol": "diamond"},
            "hovertemplate": "mean of %{x}: %{y:.5f}<extra></extra>",
        },
        {
            "type": "scatter",
            "mode": "lines",
            "name": "falling as 1/k from the first step",
            "x": np.linspace(1, len(sizes), 60),
            "y": average[0]
            - 2 * (average[0] - average[1]) * (1 - 1 / np.linspace(1, len(sizes), 60)),
            "line": {"color": style.INK, "width": 1.2, "dash": "dot"},
            "hoverinfo": "skip",
        },
    ]
    ends = [float(x) for of_size in columns for x in of_size]
    if window is not None:
        least, most = style.column(window, "window")
        claimed = [float(average[0] - most), float(average[0] - least)]
        ends += claimed
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": f"gain claimed, {least:g} to {most:g}",
                "x": [len(sizes) + 0.15] * 2,
                "y": claimed,
                "line": {"color": style.ACCENT, "width": 5},
                "hoverinfo": "skip",
            }
        )
    margin = 0.1 * (max(ends) - min(ends)) or 1e-3 * max(ends)
    gain = style.note(
        f"gain of {len(sizes)} over one: {average[0] - average[-1]:+.2g} {style.text(unit)}"
    )
    return style.figure(
        traces,
        title=title,
        width_px=640,
        height_px=470,
        xaxis={
            "title": {"text": "members averaged"},
            "tickvals": sizes.tolist(),
            "range": [0.7, len(sizes) + 0.4],
        },
        yaxis={
            "title": {"text": f"mean absolute error ({style.text(unit)})"},
            "range": [min(ends) - margin, max(ends) + margin],
            "tickformat": ".4f" if max(ends) - min(ends) > 5e-4 else ".6f",
        },
        legend={"orientation": "h", "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom"},
        margin={"l": 84, "r": 20, "t": 112 if title else 84, "b": 56},
        annotations=[gain],
    )


def spread_against_error(
    spread: np.ndarray, abs_error: np.ndarray, *, unit: str = "eV/atom", title: str = ""
) -> Figure:
    """Error of an ensemble's mean against how far its members lie apart, in bins of equal numbers.

    Args:
        spread: (n,) standard deviation over members of each row's prediction, in ``unit``, >= 0.
        abs_error: (n,) |error| of the mean on the same rows.
    Raises:
        DataError: lengths differ, fewer rows than two, a value is not finite or negative.
    """
    spread, abs_error = style.column(spread, "spread"), style.column(abs_error, "abs_error")
    if len(spread) != len(abs_error) or len(spread) < 2:
        raise DataError(f"{len(spread)} spreads and {len(abs_error)} errors; give both of each row")
    if min(spread.min(), abs_error.min()) < 0:
        raise DataError("spreads and absolute errors must not be negative")
    bins = np.array_split(np.argsort(spread, kind="stable"), min(N_BINS, len(spread) // 2))
    middle = np.array([np.median(spread[rows]) for rows in bins])
    low, median, high = np.array(
        [np.quantile(abs_error[rows], (0.25, 0.5, 0.75)) for rows in bins]
    ).T
    logarithmic = bool(middle.min() > 0 and low.min() > 0)
    ends = np.array([*middle, *low, *high])
    frame = [float(ends.min()), float(ends.max())]
    traces: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": f"median and quartiles of {len(bins)} bins",
            "x": middle,
            "y": median,
            "error_y": {
                "type": "data",
                "symmetric": False,
                "array": high - median,
                "arrayminus": median - low,
                "thickness": 1.4,
                "width": 3,
                "color": style.SUBJECT,
            },
            "line": {"color": style.SUBJECT, "width": 1.6},
            "marker": {"size": 8},
            "hovertemplate": "spread %{x:.3g}, median |error| %{y:.3g}<extra></extra>",
        },
        {
            "type": "scatter",
            "mode": "lines",
            "name": "error equal to the spread",
            "x": frame,
            "y": frame,
            "line": {"color": style.INK, "width": 1.2, "dash": "dash"},
            "hoverinfo": "skip",
        },
    ]
    scale = "log" if logarithmic else "linear"
    axis = {"type": scale, **({"dtick": "D2"} if logarithmic else {})}
    words = style.text(unit)
    return style.figure(
        traces,
        title=title,
        width_px=640,
        height_px=470,
        xaxis={"title": {"text": f"spread between members ({words})"}, **axis},
        yaxis={"title": {"text": f"|error| of their mean ({words})"}, **axis},
        legend={"orientation": "h", "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom"},
        margin={"l": 84, "r": 20, "t": 112 if title else 84, "b": 56},
        annotations=[style.note(f"n = {len(spread):,}")],
    )
