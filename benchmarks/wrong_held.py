"""How often a claim is held by mistake if the truth lies on its bound, by interval and population.

    python -m benchmarks.wrong_held [SAMPLES]

Prints the table of docs/statistics.md. Percentiles stand beside the interval that the harness takes
at so many units, on the same samples.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable

import numpy as np

from harness.statistics import Units, interval_of

RESAMPLES = 999
# a name, a way to draw so many numbers, and their true mean
POPULATIONS: tuple[tuple[str, Callable[[np.random.Generator, int], np.ndarray], float], ...] = (
    ("normal", lambda draw, n: draw.normal(size=n), 0.0),
    ("Gamma(2)", lambda draw, n: draw.gamma(2.0, size=n), 2.0),
    ("exponential", lambda draw, n: draw.exponential(size=n), 1.0),
    ("lognormal, σ = 1", lambda draw, n: draw.lognormal(size=n), math.exp(0.5)),
)
UNITS = (17, 27, 47, 63, 290)


def percentiles(values: np.ndarray, draw: np.random.Generator) -> tuple[float, float]:
    drawn = values[draw.integers(len(values), size=(RESAMPLES, len(values)))].mean(axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)


def row(
    draw: np.random.Generator, sample: Callable[..., np.ndarray], truth: float, m: int, n: int
) -> list[float]:
    held = dict.fromkeys(("percentiles <", "percentiles >", "ours <", "ours >"), 0)
    unsettled = inside = 0
    for _ in range(n):
        values = sample(draw, m)
        low, high = percentiles(values, draw)
        held["percentiles <"] += high < truth
        held["percentiles >"] += low > truth
        units = Units(statistic="mean", sums=np.stack([np.ones(m), values]), what="units")
        found = interval_of(units, n_resamples=RESAMPLES)
        if found.unsettled:
            unsettled += 1
            continue
        held["ours <"] += found.high < truth
        held["ours >"] += found.low > truth
        inside += found.low <= truth <= found.high
    return [count / n for count in held.values()] + [unsettled / n, inside / (n - unsettled)]


def main(samples: int = 4000) -> None:
    print(
        "| population | units | percentiles: `<` held | `>` held | ours: `<` held | `>` held | "
        "unsettled | inside, if settled |\n|---|--:|--:|--:|--:|--:|--:|--:|"
    )
    for name, sample, truth in POPULATIONS:
        for m in UNITS:
            draw = np.random.default_rng([m, len(name)])
            cells = row(draw, sample, truth, m, samples)
            shown = " | ".join(f"{100 * cell:.1f} %" for cell in cells)
            print(f"| {name} | {m} | {shown} |", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
