"""How errors are distributed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.plots import style

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

SHOWN = 0.995  # share of all rows inside the frame; the rest is counted in the figure
N_BINS = 81  # odd, so that one bin is centred on zero


def error_histogram(
    error: np.ndarray,
    *,
    unit: str,
    title: str = "",
    name: str = "subject",
    others: Mapping[str, np.ndarray] | None = None,
) -> Figure:
    """Distribution of signed errors (predicted - reference), with median and mean of ``error``.

    Args:
        error: (n,) finite, in ``unit``.
        others: name -> (m,) errors to compare with, drawn as lines. Heights are shares of each
            one's own rows, so sets of different size compare.
    Raises:
        DataError: no rows, or a value is not finite.
    """
    error = style.column(error, "error")
    compared = {key: style.column(values, key) for key, values in (others or {}).items()}
    every = np.concatenate([error, *compared.values()])
    half = float(np.quantile(np.abs(every), SHOWN)) or max(float(np.abs(every).max()), 1e-6)
    edges = np.linspace(-half, half, N_BINS + 1)
    peak = 0.0

    def outline(values: np.ndarray) -> dict[str, Any]:
        nonlocal peak
        # np.histogram counts only what lies inside; the share is of all rows.
        share = 100 * np.histogram(values, bins=edges)[0] / len(values)
        peak = max(peak, float(share.max()))
        return {
            "type": "scatter",
            "mode": "lines",
            "x": edges.round(7),
            "y": np.append(share, share[-1]).round(4),
            "hovertemplate": "%{y:.2f} % of rows from %{x:.4f}<extra>%{fullData.name}</extra>",
        }

    traces: list[dict[str, Any]] = [
        {
            **outline(error),
            "name": f"{style.text(name)} (n = {len(error):,})",
            "line": {"shape": "hv", "color": style.SUBJECT, "width": 1.6},
            "fill": "tozeroy",
            "fillcolor": "rgba(11,100,160,0.18)",
        }
    ]
    for i, (key, values) in enumerate(compared.items()):
        traces.append(
            {
                **outline(values),
                "name": f"{style.text(key)} (n = {len(values):,})",
                "line": {
                    "shape": "hv",
                    "color": style.OTHERS[i % len(style.OTHERS)],
                    "width": 1.6,
                    "dash": style.DASHES[(i + 1) % len(style.DASHES)],
                },
            }
        )
    for word, value, dash in (
        ("median", float(np.median(error)), "solid"),
        ("mean", float(np.mean(error)), "dash"),
    ):
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "x": [float(np.clip(value, -half, half))] * 2,
                "y": [0, 1.06 * peak],
                "name": f"{word} {value:+.4f}{'' if abs(value) <= half else ' (off the frame)'}",
                "line": {"color": style.INK, "width": 1.2, "dash": dash},
                "hoverinfo": "skip",
            }
        )
    words = style.text(unit)
    outside = int((np.abs(every) > half).sum())
    clipped = ""
    if outside:
        furthest = every[np.argmax(np.abs(every))]
        clipped = (
            f"{outside:,} of {len(every):,} rows ({100 * outside / len(every):.1f} %) outside the "
            f"frame,<br>the furthest at {furthest:+.3g} {words}"
        )
    return style.figure(
        traces,
        title=title,
        width_px=640,
        height_px=470,
        xaxis={
            "title": {"text": f"error, predicted − reference ({words})"},
            "range": [-half, half],
        },
        yaxis={
            "title": {"text": "share of rows per bin (%)"},
            "range": [0, 1.08 * peak],
        },
        legend={"orientation": "h", "x": 0, "y": 1.03, "xanchor": "left", "yanchor": "bottom"},
        margin={"l": 64, "r": 20, "t": 112 if title else 80, "b": 98 if clipped else 56},
        annotations=[{**style.note(clipped, x=1, y=0), "yshift": -58, "bgcolor": "rgba(0,0,0,0)"}]
        if clipped
        else [],
    )
