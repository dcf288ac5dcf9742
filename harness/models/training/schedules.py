"""Learning-rate schedules: a factor on the peak learning rate for every step of a training.

constant    1
cosine      half a cosine from 1 at the first step to 0 after the last
one-cycle   half a cosine from 1/25 up to 1 over the first 30 % of the steps, then down to 4e-6;
            torch's OneCycleLR with its defaults and without its cycling of momentum

Public: SCHEDULES, Schedule.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from harness.errors import ConfigError

_WARM_UP, _DIVIDE_FIRST, _DIVIDE_LAST = 0.3, 25.0, 25.0 * 1e4


def _constant(step: int, n_steps: int) -> float:
    return 1.0


def _cosine(step: int, n_steps: int) -> float:
    return 0.5 * (1 + math.cos(math.pi * step / n_steps))


def _one_cycle(step: int, n_steps: int) -> float:
    # torch counts the same way: the peak at 0.3 n - 1, the end at n - 1
    peak, last = _WARM_UP * n_steps - 1, n_steps - 1
    if step <= peak and peak > 0:
        low, high, done = 1 / _DIVIDE_FIRST, 1.0, step / peak
    else:
        low, high, done = 1.0, 1 / _DIVIDE_LAST, (step - peak) / max(last - peak, 1e-9)
    return high + 0.5 * (low - high) * (1 + math.cos(math.pi * min(done, 1.0)))


SCHEDULES: dict[str, Callable[[int, int], float]] = {
    "constant": _constant,
    "cosine": _cosine,
    "one-cycle": _one_cycle,
}


@dataclass(kw_only=True)
class Schedule:
    """Hands out factors for n_steps steps and counts them in ``calls``."""

    name: str
    n_steps: int
    calls: int = 0

    def __post_init__(self) -> None:
        if self.name not in SCHEDULES:
            raise ConfigError(f"schedule {self.name!r} is unknown; known: {', '.join(SCHEDULES)}")
        if self.n_steps < 1:
            raise ConfigError(f"n_steps={self.n_steps}: a schedule needs at least one step")

    def factor(self, step: int) -> float:
        """The factor on the peak learning rate at step 0..n_steps-1.

        Raises:
            ConfigError: the step is outside the schedule, which then was planned too short.
        """
        if not 0 <= step < self.n_steps:
            raise ConfigError(
                f"step {step} of a schedule over {self.n_steps} steps; plan it for the whole run"
            )
        self.calls += 1
        return SCHEDULES[self.name](step, self.n_steps)
