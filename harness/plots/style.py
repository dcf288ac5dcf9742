"""One quiet look for every figure: white ground, light grid, colours that survive colour blindness.

Colours are Okabe and Ito's, darkened where they carry text on white. A figure never tells two
things apart by colour alone: words, dashes or marker shapes say the same.
Source: M. Okabe and K. Ito, Color Universal Design (2008), jfly.uni-koeln.de/color.
"""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import DataError

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

# By the word of the verdict, dark enough for text on white (contrast 4.5 : 1 or more).
VERDICT_COLOURS = {
    "held": "#0b64a0",
    "refuted": "#b8430b",
    "inconclusive": "#8a6100",
    "placeholder": "#8a4a7c",
    "not run": "#5c6672",
}
INK = "#1d2430"
MUTED = "#5c6672"
GRID = "#e9ecef"
SUBJECT = "#0b64a0"  # the model under test
ACCENT = "#d55e00"  # what the eye should find: outliers, bounds
OTHERS = ("#d55e00", "#0b7a56", "#8a4a7c", "#8a6100", "#3f9bd1")  # compared with it, in this order
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
DENSITY = ((0.0, "#c9dcee"), (0.35, "#6aa5d2"), (0.7, "#1f6aa8"), (1.0, "#08264d"))
ERROR_SCALE = ((0.0, "#f3f7e9"), (0.3, "#a9d8b8"), (0.6, "#3f9fb0"), (1.0, "#123a6f"))
FONT = "Inter, 'Helvetica Neue', Helvetica, Arial, 'Liberation Sans', sans-serif"


def figure(
    traces: list[Any],
    *,
    title: str = "",
    width_px: int,
    height_px: int,
    min_width_px: int = 0,
    keep_aspect: bool = False,
    **layout: Any,
) -> Figure:
    """A figure in the project's style.

    Args:
        width_px, height_px: the size it was designed for; a page may show it narrower.
        min_width_px: below this width a page scrolls the figure instead of squeezing it.
        keep_aspect: height follows width, as a plot with equal axes needs.
    """
    import plotly.graph_objects as go

    axis = {
        "showline": True,
        "linecolor": "#9aa3ad",
        "linewidth": 1,
        "ticks": "outside",
        "ticklen": 4,
        "tickcolor": "#9aa3ad",
        "gridcolor": GRID,
        "gridwidth": 1,
        "zeroline": False,
        "title": {"standoff": 10, "font": {"size": 13}},
        "tickfont": {"size": 12, "color": MUTED},
        "automargin": True,
    }
    quiet = go.layout.Template(
        layout={
            "font": {"family": FONT, "size": 13, "color": INK},
            "paper_bgcolor": "white",
            "plot_bgcolor": "white",
            "colorway": [SUBJECT, *OTHERS],
            "xaxis": axis,
            "yaxis": axis,
            "hoverlabel": {
                "bgcolor": "white",
                "bordercolor": "#9aa3ad",
                "font": {"family": FONT, "size": 12, "color": INK},
                "align": "left",
            },
            "legend": {"bgcolor": "rgba(255,255,255,0.85)", "font": {"size": 12}},
            "title": {
                "x": 0,
                "xref": "container",
                "xanchor": "left",
                "y": 1,
                "yref": "container",
                "yanchor": "top",
                "pad": {"l": 14, "t": 14},
                "font": {"size": 15},
            },
        }
    )
    return go.Figure(
        traces,
        {
            "template": quiet,
            "width": width_px,
            "height": height_px,
            "meta": {"min_width_px": min_width_px, "keep_aspect": keep_aspect},
            "margin": {"l": 64, "r": 20, "t": 48 if title else 20, "b": 56},
            **({"title": {"text": text(title)}} if title else {}),
            **layout,
        },
    )


def text(words: object) -> str:
    """Words as plotly shows them literally: it reads `<b>` and `<a>` in every string as markup."""
    return html.escape(str(words), quote=False)


def column(values: Any, what: str) -> np.ndarray:
    """(n,) float64, finite, n >= 1.

    Raises:
        DataError: another shape, empty, or a value is not finite. Rows that were not scored are
            left out by the caller, who then says so in the coverage.
    """
    found = np.asarray(values, dtype=np.float64)
    if found.ndim != 1 or found.size == 0:
        raise DataError(f"{what} has shape {found.shape}; a figure needs (n,) with n >= 1")
    if not np.isfinite(found).all():
        bad = np.flatnonzero(~np.isfinite(found))
        raise DataError(
            f"{what}: {bad.size} of {found.size} values are not finite, first at row {bad[0]}. "
            "Leave out the rows that were not scored, and count them in the coverage."
        )
    return found


def note(words: str, *, x: float = 1.0, y: float = 1.0, anchor: str = "right") -> dict[str, Any]:
    """An annotation in small print, placed in fractions of the plot; `y` is its top."""
    return {
        "text": words,
        "xref": "paper",
        "yref": "paper",
        "x": x,
        "y": y,
        "xanchor": anchor,
        "yanchor": "top",
        "showarrow": False,
        "align": anchor,
        "font": {"size": 11, "color": MUTED},
        "bgcolor": "rgba(255,255,255,0.8)",
    }
