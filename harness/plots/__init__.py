"""Figures: numbers in, a plotly figure out. Nothing is saved, shown or fetched here.

Public: parity, error_histogram, mae_comparison, error_by_element, ensemble_gain,
spread_against_error, learning_curves, loss_curves, lever_effects, equations_of_state,
fit_in_window, force_parity, slope_curves, relaxation_errors, force_panels, dimer_curves,
error_magnitudes. They compute no metric that a verdict rests on: those come from runners, with an
interval, so that they are checked.
"""

from harness.plots.comparison import error_by_element, mae_comparison
from harness.plots.dimers import dimer_curves
from harness.plots.ensembles import ensemble_gain, spread_against_error
from harness.plots.equations_of_state import equations_of_state, fit_in_window
from harness.plots.errors import error_histogram
from harness.plots.force_panels import force_panels
from harness.plots.force_slopes import force_parity, slope_curves
from harness.plots.learning_curves import learning_curves
from harness.plots.magnitudes import error_magnitudes
from harness.plots.parity import parity
from harness.plots.physics import breaches, jump_scan
from harness.plots.relaxation import relaxation_errors
from harness.plots.training import lever_effects, loss_curves

__all__ = [
    "breaches",
    "dimer_curves",
    "ensemble_gain",
    "equations_of_state",
    "error_by_element",
    "error_histogram",
    "error_magnitudes",
    "fit_in_window",
    "force_panels",
    "force_parity",
    "jump_scan",
    "learning_curves",
    "lever_effects",
    "loss_curves",
    "mae_comparison",
    "parity",
    "relaxation_errors",
    "slope_curves",
    "spread_against_error",
]
