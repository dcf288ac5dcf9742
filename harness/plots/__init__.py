"""Figures: numbers in, a plotly figure out. Nothing is saved, shown or fetched here.

Public: parity, error_histogram, mae_comparison, error_by_element. They compute no metric that a
verdict rests on: those come from runners, with an interval, so that they are checked.
"""

from harness.plots.comparison import error_by_element, mae_comparison
from harness.plots.errors import error_histogram
from harness.plots.parity import parity

__all__ = ["error_by_element", "error_histogram", "mae_comparison", "parity"]
