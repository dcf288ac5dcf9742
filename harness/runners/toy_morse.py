"""Fine-tuning against training from scratch where everything is known: two Morse curves.

Public: ToyMorse, ToyMorseResult, run. A ridge regression knows one Morse curve; another curve is
to be learnt from few noisy points, either pulled towards what is known or from zero. Each trial
draws the other curve, the points and the noise anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace

import numpy as np

from harness.claims import Interval, Measurement
from harness.errors import ConfigError
from harness.models.morse import Gaussians, Morse
from harness.models.ridge import Ridge
from harness.statistics import bootstrap, geometric_mean, largest

ANCHORS = ("pretrained", "scratch", "shuffled")


@dataclass(frozen=True, kw_only=True)
class ToyMorse:
    """What is known, what is new, how many points of it and how noisy."""

    known: Morse = field(default_factory=Morse)
    depth_within: float = 0.25  # the new curve's parameters are drawn within these fractions
    stiffness_within: float = 0.15
    minimum_within: float = 0.15
    sizes: tuple[int, ...] = (3, 5, 8, 12, 20, 30, 50, 80)
    n_trials: int = 30
    noise_ev: float = 0.02
    window_ang: tuple[float, float] = (0.8, 3.0)
    seed: int = 0

    def __post_init__(self) -> None:
        low, high = self.window_ang
        if min(self.sizes, default=0) < 2 or self.n_trials < 2 or not 0 < low < high:
            raise ConfigError(
                f"{self}: sizes must be at least 2, trials at least 2, and the window not empty"
            )
        within = (self.depth_within, self.stiffness_within, self.minimum_within)
        if self.noise_ev < 0 or not all(0 <= share < 1 for share in within):
            raise ConfigError(f"{self}: noise must not be negative, and 0 <= fractions < 1")


@dataclass(frozen=True, kw_only=True, eq=False)
class ToyMorseResult:
    """Root mean square error against the noiseless curve, over the window."""

    config: ToyMorse
    rmse_ev: Mapping[str, np.ndarray]  # anchor -> (sizes, trials)
    untrained_rmse_ev: np.ndarray  # (trials,) of the known curve, taken as it is

    def rmse(self, size: int, anchor: str) -> Interval:
        """Root mean square error in eV, geometric mean over trials, with its interval over them."""
        log = np.log(self.rmse_ev[anchor][self.config.sizes.index(size)])
        return bootstrap(log, np.arange(len(log)), geometric_mean, unit="trials")

    def ratio(self, size: int, mine: str = "pretrained", other: str = "scratch") -> Interval:
        """Geometric mean over trials of the ratio of two errors, with its interval over trials."""
        at = self.config.sizes.index(size)
        log_ratio = np.log(self.rmse_ev[mine][at] / self.rmse_ev[other][at])
        return bootstrap(log_ratio, np.arange(len(log_ratio)), geometric_mean, unit="trials")

    def with_errors_scaled(self, anchor: str, factor: float) -> ToyMorseResult:
        """The same trials with one anchor's errors so many times as large: a planted fault."""
        return replace(self, rmse_ev={**self.rmse_ev, anchor: factor * self.rmse_ev[anchor]})

    def caught_up_at(self, mine: str = "pretrained", other: str = "scratch") -> int | None:
        """The smallest size from which on the other is not shown to be worse; None: not in range.

        A size counts as caught up where the interval of the ratio reaches one.
        """
        behind = [self.ratio(size, mine, other).high < 1 for size in self.config.sizes]
        for i, size in enumerate(self.config.sizes):
            if not any(behind[i:]):
                return size
        return None

    def advantage(
        self, *, up_to: int, mine: str = "pretrained", other: str = "scratch"
    ) -> Measurement:
        """The largest ratio of errors over the sizes up to ``up_to``.

        Its interval reaches from the largest low end to the largest high end of the sizes: below a
        bound only if every size is, above it if one is.
        """
        ratios = {size: self.ratio(size, mine, other) for size in self.config.sizes}
        small = [ratio for size, ratio in ratios.items() if size <= up_to]
        if not small:
            raise ConfigError(f"no size up to {up_to} among {self.config.sizes}")
        caught_up = self.caught_up_at(mine, other)
        return Measurement(
            quantity=f"RMSE of the {mine} fit over {other}, largest ratio up to N = {up_to}",
            interval=largest(small),
            scored=self.config.n_trials,
            of=self.config.n_trials,
            dataset="two Morse curves",
            model=f"ridge, {mine}",
            subject="toy",
            details={
                "config": asdict(self.config),
                "ratios": [
                    {"n": size, "ratio": r.estimate, "low": r.low, "high": r.high}
                    for size, r in ratios.items()
                ],
                "scratch_catches_up_at": caught_up or f"not up to {max(self.config.sizes)}",
                "untrained_rmse_ev": float(self.untrained_rmse_ev.mean()),
            },
        )


def run(config: ToyMorse = ToyMorse()) -> ToyMorseResult:
    """Fit each trial's curve at every size from three anchors: the known curve's weights, zero, and
    the known curve's weights in another order."""
    basis, ridge = Gaussians(), Ridge()
    grid = np.linspace(*config.window_ang, 200)
    on_grid = basis.values(grid)
    known = ridge.fit(on_grid, config.known.energy_ev(grid))
    rmse = {anchor: np.empty((len(config.sizes), config.n_trials)) for anchor in ANCHORS}
    untrained = np.empty(config.n_trials)
    for trial, draw in enumerate(np.random.default_rng(config.seed).spawn(config.n_trials)):
        new = _another(config, draw)
        truth = new.energy_ev(grid)
        untrained[trial] = _rms(on_grid @ known - truth)
        anchors = {"pretrained": known, "scratch": None, "shuffled": draw.permutation(known)}
        # One sequence of points a trial: a larger training set holds the smaller ones.
        points = draw.uniform(*config.window_ang, max(config.sizes))
        energies = new.energy_ev(points) + config.noise_ev * draw.standard_normal(len(points))
        for at, size in enumerate(config.sizes):
            x = basis.values(points[:size])
            for name, anchor in anchors.items():
                weights = ridge.fit(x, energies[:size], anchor)
                rmse[name][at, trial] = _rms(on_grid @ weights - truth)
    return ToyMorseResult(config=config, rmse_ev=rmse, untrained_rmse_ev=untrained)


def _another(config: ToyMorse, draw: np.random.Generator) -> Morse:
    depth, stiffness, minimum = 1 + draw.uniform(-1, 1, 3) * (
        config.depth_within,
        config.stiffness_within,
        config.minimum_within,
    )
    return Morse(
        depth_ev=config.known.depth_ev * depth,
        stiffness_per_ang=config.known.stiffness_per_ang * stiffness,
        minimum_ang=config.known.minimum_ang * minimum,
    )


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))
