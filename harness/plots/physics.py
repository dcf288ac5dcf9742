"""How far a subject is from breaking a law, crystal by crystal, and what a jump looks like."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import DataError
from harness.plots import style

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_LEAST = 1e-6  # shares below this are drawn at it: a logarithmic axis has no zero
_PER_DECADE = 4


def breaches(shares: Sequence[float], *, title: str = "") -> Figure:
    """Histogram of breaches over what is allowed, one a crystal, on a logarithmic axis.

    Args:
        shares: (n,) at least zero; 1 is the bound.
    Raises:
        DataError: no values, or one is negative or not finite.
    """
    values = style.column(shares, "shares")
    if values.min() < 0:
        raise DataError(f"a breach cannot be negative: {values.min()}")
    logs = np.log10(np.maximum(values, _LEAST))
    low = np.floor(logs.min())
    high = max(1.0, np.ceil(logs.max() + 0.1))
    edges = np.linspace(low, high, round((high - low) * _PER_DECADE) + 1)
    counts, _ = np.histogram(logs, edges)
    decades = range(int(low), int(high) + 1)
    return style.figure(
        [
            {
                "type": "bar",
                "x": ((edges[:-1] + edges[1:]) / 2).tolist(),
                "y": counts.tolist(),
                "width": 0.92 / _PER_DECADE,
                "marker": {
                    "color": [
                        style.ACCENT if edge > -1e-9 else style.SUBJECT for edge in edges[:-1]
                    ]
                },
                "hovertemplate": "%{y} crystals<extra></extra>",
                "showlegend": False,
            }
        ],
        title=title,
        width_px=700,
        height_px=340,
        min_width_px=420,
        xaxis={
            "title": {"text": "deviation over what is allowed"},
            "tickvals": list(decades),
            "ticktext": [f"{10.0**k:g}" for k in decades],
            "range": [low, high],
        },
        yaxis={"title": {"text": "crystals"}},
        shapes=[
            {
                "type": "line",
                "x0": 0,
                "x1": 0,
                "yref": "paper",
                "y0": 0,
                "y1": 1,
                "line": {"color": style.ACCENT, "width": 1.5, "dash": "dash"},
            }
        ],
    )


def jump_scan(
    distances_ang: np.ndarray,
    energies_ev_per_atom: np.ndarray,
    forces_ev_per_ang: np.ndarray | None,
    *,
    jump_at_ang: float,
    title: str = "",
) -> Figure:
    """Energy, and force below it, over the distance of two layers; the worst place is marked."""
    x = style.column(distances_ang, "distances")
    energies = style.column(energies_ev_per_atom, "energies")
    columns: list[tuple[str, np.ndarray]] = [("energy (eV/atom)", energies)]
    if forces_ev_per_ang is not None:
        columns.append(("force (eV/Å)", style.column(forces_ev_per_ang, "forces")))
    traces: list[dict[str, Any]] = []
    axes: dict[str, Any] = {}
    for i, (name, values) in enumerate(columns):
        if len(values) != len(x):
            raise DataError(f"{len(x)} distances, {len(values)} values: {name}; give as many")
        suffix = "" if i == 0 else str(i + 1)
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "x": x.tolist(),
                "y": values.tolist(),
                "yaxis": f"y{suffix}",
                "line": {"color": style.SUBJECT, "width": 1.5},
                "marker": {"size": 4, "color": style.SUBJECT},
                "showlegend": False,
                "hovertemplate": "%{x:.3f} Å: %{y:.5g}<extra></extra>",
            }
        )
        top = 1 - i / len(columns)
        gap = 0.06 if i else 0.0
        axes[f"yaxis{suffix}"] = {
            "title": {"text": name},
            "domain": [top - 1 / len(columns), top - gap],
        }
    last = "" if len(columns) == 1 else str(len(columns))
    return style.figure(
        traces,
        title=title,
        width_px=760,
        height_px=240 + 200 * len(columns),
        min_width_px=460,
        xaxis={"title": {"text": "distance between the layers (Å)"}, "anchor": f"y{last}"},
        shapes=[
            {
                "type": "line",
                "x0": jump_at_ang,
                "x1": jump_at_ang,
                "yref": "paper",
                "y0": 0,
                "y1": 1,
                "line": {"color": style.ACCENT, "width": 1.5, "dash": "dash"},
            }
        ],
        **axes,
    )
