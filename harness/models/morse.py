"""The Morse curve, and features for a linear model of it: every answer is known on paper.

Public: Morse, Gaussians. With models/ridge an analytic stand-in for a potential and its training:
what a claim about fine-tuning or about softening says must already show here, or be explained.
Source of the curve: P. M. Morse, Phys. Rev. 34, 57 (1929).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Morse:
    """Energy of two atoms; zero far apart, -depth at the minimum."""

    depth_ev: float = 1.0
    stiffness_per_ang: float = 1.7
    minimum_ang: float = 1.1

    def __post_init__(self) -> None:
        if min(self.depth_ev, self.stiffness_per_ang, self.minimum_ang) <= 0:
            raise ConfigError(f"{self}: depth, stiffness and minimum must be positive")

    def energy_ev(self, distance_ang: np.ndarray) -> np.ndarray:
        """(n,) eV at (n,) distances."""
        return np.asarray(self.depth_ev * ((1 - self._decay(distance_ang)) ** 2 - 1))

    def force_ev_per_ang(self, distance_ang: np.ndarray) -> np.ndarray:
        """(n,) minus the slope of the energy, eV/Å: positive where the atoms repel."""
        decay = self._decay(distance_ang)
        return np.asarray(-2 * self.depth_ev * self.stiffness_per_ang * decay * (1 - decay))

    def _decay(self, distance_ang: np.ndarray) -> np.ndarray:
        return np.exp(-self.stiffness_per_ang * (np.asarray(distance_ang) - self.minimum_ang))


@dataclass(frozen=True, kw_only=True)
class Gaussians:
    """Equally spaced Gaussians of the distance: the features of a linear model of an energy."""

    low_ang: float = 0.6
    high_ang: float = 3.2
    n: int = 27  # 0.1 Å apart
    width_ang: float = 0.2

    def __post_init__(self) -> None:
        if self.n < 2 or self.width_ang <= 0 or not self.low_ang < self.high_ang:
            raise ConfigError(f"{self}: give two centres or more, a range and a positive width")

    def values(self, distance_ang: np.ndarray) -> np.ndarray:
        """(m, n) at (m,) distances; energy = values @ weights."""
        return np.asarray(np.exp(-0.5 * self._scaled(distance_ang) ** 2))

    def slopes_per_ang(self, distance_ang: np.ndarray) -> np.ndarray:
        """(m, n) derivatives with respect to the distance; force = -slopes @ weights."""
        scaled = self._scaled(distance_ang)
        return np.asarray(-scaled / self.width_ang * np.exp(-0.5 * scaled**2))

    def _scaled(self, distance_ang: np.ndarray) -> np.ndarray:
        centres = np.linspace(self.low_ang, self.high_ang, self.n)
        return np.asarray((np.asarray(distance_ang)[:, None] - centres) / self.width_ang)
