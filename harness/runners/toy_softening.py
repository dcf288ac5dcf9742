"""Softening where everything is known: a curve learnt near its minimum and asked far from it.

Public: ToySoftening, ToySofteningResult, run. A ridge regression on Gaussians learns a Morse curve
from noisy points of a window around the minimum. Each trial draws points and noise anew; window
widths and noise levels share the draws, so that they differ in nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Literal

import numpy as np

from harness.claims import Interval, Measurement
from harness.errors import ConfigError
from harness.models.morse import Gaussians, Morse
from harness.models.ridge import Ridge
from harness.statistics import bootstrap, geometric_mean

_GRID_STEP_ANG = 0.005


@dataclass(frozen=True, kw_only=True)
class ToySoftening:
    """The curve, where it is learnt and where it is asked."""

    curve: Morse = field(default_factory=Morse)
    window_r0: tuple[float, float] = (0.95, 1.30)  # ends over the distance of the minimum
    widths: tuple[float, ...] = (0.5, 1.0, 1.5)  # 1.5: each end half as far again from the minimum
    noises_ev: tuple[float, ...] = (0.0, 0.005, 0.02, 0.05)
    whole_ang: tuple[float, float] = (0.8, 3.0)  # what lies in it beyond the window is outside
    trained_on: Literal["window", "whole"] = "window"
    n_points: int = 40
    n_trials: int = 200  # of 50 a single one had most of the variance in some settings
    # An error inside counts as at least this. A noiseless fit errs by 1e-7 eV inside, and by that
    # any error outside would be large; one hundredth of the depth makes a ratio of ten mean an
    # error outside of a tenth of the depth or more.
    floor_ev: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n_points < 2 or self.n_trials < 2 or not self.widths or not self.noises_ev:
            raise ConfigError(
                f"{self}: give at least 2 points, 2 trials, one width and one noise level"
            )
        if min(self.noises_ev) < 0 or min(self.widths) <= 0 or self.floor_ev <= 0:
            raise ConfigError(f"{self}: noise must not be negative; widths and floor are above 0")
        low, high = self.whole_ang
        ends = [end for width in self.widths for end in self.window_ang(width)]
        if not (0 < low < min(ends) and max(ends) < high and self.window_r0[0] < 1):
            raise ConfigError(
                f"windows reach from {min(ends):.3f} to {max(ends):.3f} Å; they must hold the "
                f"minimum and lie inside whole_ang = {self.whole_ang}, or nothing is outside"
            )
        if self.window_r0[1] <= 1:
            raise ConfigError(f"window_r0 = {self.window_r0} does not hold the minimum, at 1")

    def window_ang(self, width: float = 1.0) -> tuple[float, float]:
        """Ends of the window whose ends are ``width`` times as far from the minimum, Å."""
        low, high = (self.curve.minimum_ang * (1 + width * (end - 1)) for end in self.window_r0)
        return low, high


@dataclass(frozen=True, kw_only=True, eq=False)
class ToySofteningResult:
    """Every fit on one grid of distances, g points."""

    config: ToySoftening
    grid_ang: np.ndarray  # (g,)
    points_ang: np.ndarray  # (widths, noises, trials, n_points)
    labels_ev: np.ndarray  # same shape, with noise
    fits_ev: np.ndarray  # (widths, noises, trials, g)
    fitted_forces_ev_per_ang: np.ndarray  # (widths, noises, trials, g)

    @cached_property
    def truth_ev(self) -> np.ndarray:
        """(g,) the curve itself."""
        return self.config.curve.energy_ev(self.grid_ang)

    def rmse_ev(self, where: Literal["inside", "outside"]) -> np.ndarray:
        """(widths, noises, trials) root mean square error inside or outside the window."""
        squares = (self.fits_ev - self.truth_ev) ** 2
        return np.stack(
            [
                np.sqrt(squares[i][..., self._inside(width) == (where == "inside")].mean(axis=-1))
                for i, width in enumerate(self.config.widths)
            ]
        )

    def with_errors_divided(self, by: float) -> ToySofteningResult:
        """Every error so many times smaller, inside and outside: a fit better by that."""
        return replace(self, fits_ev=self.truth_ev + (self.fits_ev - self.truth_ev) / by)

    def ratio(self, width: float, noise_ev: float) -> Interval:
        """Error outside over error inside, geometric mean over trials; the floor is applied.

        Trials are drawn anew: each has points and noise of its own. What they share, the curve and
        the window, is what the ratio is of.
        """
        at = self.config.widths.index(width), self.config.noises_ev.index(noise_ev)
        inside = np.maximum(self.rmse_ev("inside")[at], self.config.floor_ev)
        log_ratio = np.log(self.rmse_ev("outside")[at] / inside)
        return bootstrap(log_ratio, np.arange(len(log_ratio)), geometric_mean, unit="trials")

    def smallest_ratio(self, widths: Sequence[float] | None = None) -> Measurement:
        """The smallest ratio over these window widths (None: all) and all noise levels.

        Its interval reaches from the smallest low end to the smallest high end of the settings:
        above a bound only if every setting is, below it if one is. Each end is of the setting it
        comes from, so nothing is gained by looking at several.
        """
        config = self.config
        widths = config.widths if widths is None else widths
        settings = [(width, noise) for width in widths for noise in config.noises_ev]
        ratios = {setting: self.ratio(*setting) for setting in settings}
        return Measurement(
            quantity="error outside the window over error inside, smallest over "
            f"{len(settings)} settings of width and noise",
            interval=_smallest(list(ratios.values())),
            scored=config.n_trials,
            of=config.n_trials,
            dataset="Morse curve",
            model=f"ridge trained on the {config.trained_on}",
            subject="toy",
            details={
                "config": asdict(config),
                "settings": [self._setting(*setting, ratios[setting]) for setting in settings],
            },
        )

    def _setting(self, width: float, noise_ev: float, ratio: Interval) -> dict[str, object]:
        config = self.config
        at = config.widths.index(width), config.noises_ev.index(noise_ev)
        inside, outside = self.rmse_ev("inside")[at], self.rmse_ev("outside")[at]
        low, high = config.window_ang(width)
        rise = self.truth_ev + config.curve.depth_ev
        within = self._inside(width)
        null = np.sqrt(np.mean(rise[~within] ** 2) / np.mean(rise[within] ** 2))
        return {
            "window_ang": f"{low:.3f} to {high:.3f}",
            "noise_ev": noise_ev,
            "inside_rmse_ev": _round(np.exp(np.log(inside).mean())),
            "outside_rmse_ev": _round(np.exp(np.log(outside).mean())),
            "trials_below_floor": int((inside < config.floor_ev).sum()),
            "ratio": _round(ratio.estimate),
            "ratio_low": _round(ratio.low),
            "ratio_high": _round(ratio.high),
            "ratio_of_constant_relative_error": _round(null),
            "force_slope_compressed": self._force_slope(at, self.grid_ang < low),
            "force_slope_inside": self._force_slope(at, within),
            "force_slope_stretched": self._force_slope(at, self.grid_ang > high),
        }

    def _force_slope(self, at: tuple[int, int], where: np.ndarray) -> float:
        """Slope through the origin of fitted against true forces, mean over trials."""
        true = self.config.curve.force_ev_per_ang(self.grid_ang[where])
        fitted = self.fitted_forces_ev_per_ang[at][:, where]
        return _round(np.mean(fitted @ true) / (true @ true))

    def _inside(self, width: float) -> np.ndarray:
        low, high = self.config.window_ang(width)
        return (low <= self.grid_ang) & (self.grid_ang <= high)


def run(config: ToySoftening = ToySoftening()) -> ToySofteningResult:
    """Fit every trial in every window at every noise level."""
    basis, ridge = Gaussians(), Ridge()
    n_grid = round((config.whole_ang[1] - config.whole_ang[0]) / _GRID_STEP_ANG) + 1
    grid = np.linspace(*config.whole_ang, n_grid)
    on_grid, slopes = basis.values(grid), basis.slopes_per_ang(grid)
    shape = (len(config.widths), len(config.noises_ev), config.n_trials)
    points, labels = np.empty((*shape, config.n_points)), np.empty((*shape, config.n_points))
    fits, forces = np.empty((*shape, n_grid)), np.empty((*shape, n_grid))
    for trial, draw in enumerate(np.random.default_rng(config.seed).spawn(config.n_trials)):
        share, noise = draw.random(config.n_points), draw.standard_normal(config.n_points)
        for i, width in enumerate(config.widths):
            whole = config.trained_on == "whole"
            low, high = config.whole_ang if whole else config.window_ang(width)
            r = low + (high - low) * share
            x, energies = basis.values(r), config.curve.energy_ev(r)
            for j, noise_ev in enumerate(config.noises_ev):
                at = i, j, trial
                points[at], labels[at] = r, energies + noise_ev * noise
                weights = ridge.fit(x, labels[at])
                fits[at], forces[at] = on_grid @ weights, -slopes @ weights
    return ToySofteningResult(
        config=config,
        grid_ang=grid,
        points_ang=points,
        labels_ev=labels,
        fits_ev=fits,
        fitted_forces_ev_per_ang=forces,
    )


def _smallest(intervals: Sequence[Interval]) -> Interval:
    """The interval of the smallest of several quantities; of no single one of them any more."""
    return replace(
        min(intervals, key=lambda interval: interval.estimate),
        low=min(interval.low for interval in intervals),
        high=min(interval.high for interval in intervals),
        unsettled=next((i.unsettled for i in intervals if i.unsettled), ""),
        units=None,
    )


def _round(value: float) -> float:
    """Four significant digits, for the record."""
    return float(f"{value:.4g}")
