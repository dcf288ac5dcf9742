"""Figures: numbers in, a plotly figure out. Nothing is saved, shown or fetched here.

Public: parity, error_histogram, mae_comparison, error_by_element, ensemble_gain,
spread_against_error, learning_curves, loss_curves, lever_effects. They compute no metric that a
verdict rests on: those come from runners, with an interval, so that they are checked.
"""

from harness.plots.comparison import error_by_element, mae_comparison
from harness.plots.ensembles import ensemble_gain, spread_against_error
from harness.plots.errors import error_histogram
from harness.plots.learning_curves import learning_curves
from harness.plots.parity import parity
from harness.plots.training import lever_effects, loss_curves

__all__ = [
    "ensemble_gain",
    "error_by_element",
    "error_histogram",
    "learning_curves",
    "lever_effects",
    "loss_curves",
    "mae_comparison",
    "parity",
    "spread_against_error",
]
