"""Exponential moving average of trained parameters, to predict with in their place.

Public: Average.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


class Average:
    """shadow <- d shadow + (1 - d) parameter after every step, d = min(decay, (1 + t) / (10 + t)).

    The smaller d of the first steps t keeps the start from lingering in the average.
    ``calls`` counts the updates.
    """

    def __init__(self, parameters: Mapping[str, Tensor], decay: float) -> None:
        """Start from the parameters as they are.

        Raises:
            ConfigError: the decay is outside [0, 1).
        """
        if not 0 <= decay < 1:
            raise ConfigError(f"ema={decay}: the decay of an average lies in [0, 1)")
        self.decay = decay
        self.calls = 0
        self.shadow = {name: p.detach().clone() for name, p in parameters.items()}

    def update(self, parameters: Mapping[str, Tensor]) -> None:
        """Take in the parameters after one more step."""
        self.calls += 1
        keep = min(self.decay, (1 + self.calls) / (10 + self.calls))
        for name, parameter in parameters.items():
            self.shadow[name].lerp_(parameter.detach(), 1 - keep)
