"""Relaxed crystals against their reference: one line a crystal, volume and bond length on it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import DataError
from harness.plots import style

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_PX_PER_CRYSTAL = 19


def relaxation_errors(
    names: Sequence[str],
    volume_ratio: np.ndarray,
    bond_ratio: np.ndarray,
    *,
    in_other_structures: Collection[str] = (),
    bounds: tuple[float, float] | None = None,
    title: str = "",
) -> Figure:
    """Relative errors in percent, one crystal a line, the largest volume on top.

    A crystal whose bonds all stretch alike has its volume's error at three times its bonds'.

    Args:
        names: (n,) of the crystals.
        volume_ratio, bond_ratio: (n,) relaxed over reference; the mean over a crystal's bonds.
        in_other_structures: names of crystals that left their structure, which is said beside them.
        bounds: of the mean absolute relative errors of volume and of bond length, as fractions;
            shown as bands around zero.
    Raises:
        DataError: lengths differ, no crystals, or a value is not finite.
    """
    volume = 100 * (style.column(volume_ratio, "volume_ratio") - 1)
    bond = 100 * (style.column(bond_ratio, "bond_ratio") - 1)
    if not len(names) == len(volume) == len(bond):
        raise DataError(
            f"{len(names)} names, {len(volume)} volumes, {len(bond)} bond lengths: give as many"
        )
    order = np.argsort(volume, kind="stable")
    rows = np.arange(len(order))
    labels = [
        f"<i>in another structure:</i> {style.text(names[i])}"
        if names[i] in in_other_structures
        else style.text(names[i])
        for i in order
    ]
    hover = [
        f"<b>{style.text(names[i])}</b><br>volume {volume[i]:+.2f} %<br>"
        f"bond length {bond[i]:+.2f} %"
        for i in order
    ]
    stems: dict[str, Any] = {
        "type": "scatter",
        "mode": "lines",
        "x": [x for i in order for x in (bond[i], volume[i], None)],
        "y": [y for row in rows.tolist() for y in (row, row, None)],
        "line": {"color": "#b8c2cc", "width": 2},
        "hoverinfo": "skip",
        "showlegend": False,
    }

    def dots(values: np.ndarray, name: str, **marker: Any) -> dict[str, Any]:
        return {
            "type": "scatter",
            "mode": "markers",
            "name": name,
            "x": values[order].round(4),
            "y": rows,
            "text": hover,
            "hovertemplate": "%{text}<extra></extra>",
            "marker": {"size": 9, **marker},
        }

    shapes = [
        {
            "type": "line",
            "x0": 0,
            "x1": 0,
            "yref": "paper",
            "y0": 0,
            "y1": 1,
            "line": {"color": "#8b95a1", "width": 1},
            "layer": "below",
        }
    ]
    named = {"volume": "volume", "bond": "bond length"}
    if bounds is not None:
        looks = (("rgba(11,100,160,0.08)", "volume"), ("rgba(213,94,0,0.13)", "bond"))
        for bound, (colour, what) in zip(bounds, looks, strict=True):
            named[what] += f" (bound of the mean: {100 * bound:g} %)"
            shapes.append(
                {
                    "type": "rect",
                    "x0": -100 * bound,
                    "x1": 100 * bound,
                    "yref": "paper",
                    "y0": 0,
                    "y1": 1,
                    "fillcolor": colour,
                    "line": {"width": 0},
                    "layer": "below",
                }
            )
    reach = 1.12 * float(max(np.abs(volume).max(), np.abs(bond).max(), 1e-3))
    if bounds is not None:
        reach = max(reach, 112 * max(bounds))
    return style.figure(
        [
            stems,
            dots(volume, named["volume"], color=style.SUBJECT, symbol="circle"),
            dots(bond, named["bond"], color=style.ACCENT, symbol="diamond-open", line={"width": 2}),
        ],
        title=title,
        width_px=860,
        min_width_px=520,
        height_px=130 + (28 if title else 0) + _PX_PER_CRYSTAL * len(order),
        xaxis={
            "title": {"text": "relaxed less reference, over reference (%)"},
            "range": [-reach, reach],
        },
        yaxis={
            "tickvals": rows,
            "ticktext": labels,
            "range": [-0.7, len(order) - 0.3],
            "ticks": "",
            "showline": False,
            "tickfont": {"size": 12, "color": style.INK},
        },
        legend={
            "orientation": "h",
            "x": 0,
            "y": 1,
            "xanchor": "left",
            "yanchor": "bottom",
            "font": {"size": 12},
        },
        margin={"l": 20, "r": 20, "t": 76 if title else 44, "b": 56},
        shapes=shapes,
    )
