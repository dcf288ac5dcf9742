"""Energy curves of dimers, DFT's and a model's, as small multiples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import DataError
from harness.plots import style

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Curve = tuple[np.ndarray, np.ndarray, np.ndarray]  # distance Å, DFT eV, model eV (nan: not scored)
N_COLUMNS = 5
_WIDTH_PX, _HEIGHT_PX, _GAP_X_PX, _GAP_Y_PX = 176, 150, 46, 58
_LEFT_PX, _BOTTOM_PX, _RIGHT_PX = 66, 56, 20
_LEAST_DEPTH_EV = 0.05  # of the frame, for dimers that are hardly bound


def dimer_curves(
    curves: Mapping[str, Curve],
    *,
    near_r_min: tuple[float, float],
    model: str,
    reference: str = "PBE",
    title: str = "",
) -> Figure:
    """One panel a dimer. Each curve is zero at the largest distance that both have.

    The frame is cut at the height above zero that DFT's well has below, so that wells can be
    compared; walls leave it upwards. Dotted lines bound the region about DFT's minimum; where the
    model gives no energy, as for atoms beyond its cutoff, the ground is grey.

    Args:
        curves: element -> (distance (n,) rising, DFT's energy (n,), the model's (n,), nan where it
            was not scored), energies in eV of both atoms.
        near_r_min: the region about the minimum, in units of DFT's distance of lowest energy.
    Raises:
        DataError: no curves, lengths differ, DFT's values are not finite.
    """
    if not curves:
        raise DataError("no dimers to draw; give at least one curve")
    n_columns = min(N_COLUMNS, len(curves))
    n_rows = -(-len(curves) // n_columns)
    plot_width = n_columns * _WIDTH_PX + (n_columns - 1) * _GAP_X_PX
    plot_height = n_rows * _HEIGHT_PX + (n_rows - 1) * _GAP_Y_PX
    top_px = 76 if title else 44
    traces: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    shapes: list[dict[str, Any]] = []
    axes: dict[str, Any] = {}
    for i, (name, (distance, dft, predicted)) in enumerate(curves.items()):
        r, e = style.column(distance, f"{name}: distance"), style.column(dft, f"{name}: DFT")
        p = np.asarray(predicted, dtype=np.float64)
        if not len(r) == len(e) == len(p):
            raise DataError(
                f"{name}: {len(r)} distances, {len(e)} DFT energies, {len(p)} predicted"
            )
        scored = np.flatnonzero(np.isfinite(p))
        zero = int(scored[-1]) if len(scored) else len(r) - 1
        e, p = e - e[zero], p - p[zero]
        depth = max(-float(e.min()), _LEAST_DEPTH_EV)
        r_min = float(r[np.argmin(e)])
        row, column = divmod(i, n_columns)
        number = "" if i == 0 else str(i + 1)
        xaxis, yaxis = f"x{number}", f"y{number}"
        left = column * (_WIDTH_PX + _GAP_X_PX) / plot_width
        top = 1 - row * (_HEIGHT_PX + _GAP_Y_PX) / plot_height
        for values, words, looks in (
            (e, reference, {"color": style.INK, "width": 1.6}),
            (p, model, {"color": style.SUBJECT, "width": 2.2, "dash": "dash"}),
        ):
            traces.append(
                {
                    "type": "scatter",
                    "mode": "lines",
                    "name": style.text(words),
                    "legendgroup": words,
                    "showlegend": i == 0,
                    "x": r.round(4),
                    "y": values.round(4),
                    "xaxis": xaxis,
                    "yaxis": yaxis,
                    "line": looks,
                    "hovertemplate": f"{style.text(words)} %{{x:.2f}} Å: %{{y:.3f}} eV"
                    "<extra></extra>",
                }
            )
        # From where the frame's top meets DFT's wall, with a little room.
        wall = np.flatnonzero((e > 1.2 * depth) & (r < r_min))
        first = float(r[wall[-1]]) if len(wall) else float(r[0])
        begin, end = max(0.0, first - 0.25), float(r[-1]) + 0.05
        for factor in near_r_min:
            shapes.append(
                {
                    "type": "line",
                    "xref": xaxis,
                    "yref": f"{yaxis} domain",
                    "x0": factor * r_min,
                    "x1": factor * r_min,
                    "y0": 0,
                    "y1": 1,
                    "line": {"color": "#9aa3ad", "width": 1, "dash": "dot"},
                    "layer": "below",
                }
            )
        if len(scored) and scored[-1] < len(r) - 1:
            shapes.append(
                {
                    "type": "rect",
                    "xref": xaxis,
                    "yref": f"{yaxis} domain",
                    "x0": float(r[scored[-1]]),
                    "x1": end,
                    "y0": 0,
                    "y1": 1,
                    "fillcolor": "#dfe3e7",
                    "line": {"width": 0},
                    "layer": "below",
                }
            )
        axes[f"xaxis{number}"] = {
            "range": [begin, end],
            "domain": [left, min(1.0, left + _WIDTH_PX / plot_width)],
            "anchor": yaxis,
            "dtick": 1 if end - begin < 4.5 else 2,
            "title": {"text": "distance (Å)" if i + n_columns >= len(curves) else ""},
        }
        axes[f"yaxis{number}"] = {
            "range": [-1.35 * depth, 1.2 * depth],
            "domain": [max(0.0, top - _HEIGHT_PX / plot_height), top],
            "anchor": xaxis,
            "nticks": 5,
            "zeroline": True,
            "zerolinecolor": "#c9ced4",
            "title": {"text": "energy (eV)" if column == 0 else "", "standoff": 4},
        }
        annotations.append(
            {
                **style.note(
                    f"<b>{style.text(name)}<sub>2</sub></b>",
                    x=min(1.0, left + _WIDTH_PX / plot_width),
                    y=top,
                ),
                "xshift": -4,
                "yshift": -2,
                "font": {"size": 13, "color": style.INK},
            }
        )
    return style.figure(
        traces,
        title=title,
        width_px=_LEFT_PX + plot_width + _RIGHT_PX,
        height_px=top_px + plot_height + _BOTTOM_PX,
        min_width_px=_LEFT_PX + plot_width + _RIGHT_PX,
        margin={"l": _LEFT_PX, "r": _RIGHT_PX, "t": top_px, "b": _BOTTOM_PX},
        legend={
            "orientation": "h",
            "x": 0,
            "y": 1,
            "yref": "paper",
            "xanchor": "left",
            "yanchor": "bottom",
        },
        annotations=annotations,
        shapes=shapes,
        **axes,
    )
