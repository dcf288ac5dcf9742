"""Rows into runs of bounded work, in the order given."""

from __future__ import annotations

import numpy as np


def packed(rows: np.ndarray, work: np.ndarray, budget: float) -> list[np.ndarray]:
    """Consecutive runs of rows, each within the budget of work or a single row beyond it."""
    total = np.cumsum(work)
    runs, start = [], 0
    while start < len(rows):
        spent = total[start - 1] if start else 0
        stop = max(int(np.searchsorted(total, spent + budget, side="right")), start + 1)
        runs.append(rows[start:stop])
        start = stop
    return runs
