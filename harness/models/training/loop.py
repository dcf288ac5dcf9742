"""The training loop: mini-batches, loss, schedule, average, early stop, and going on after a crash.

It knows nothing of crystals. What it trains is a `Trainable`: something that gives one output a
row, differentiable in the parameters it names. Everything random comes from one generator whose
state is in every checkpoint, so that a training killed at any point and started again ends in the
same weights, bit for bit, on the same machine.

Public: Settings, Trainable, Trained, train, outputs_of, keep.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from harness.errors import ConfigError, DataError, ModelError
from harness.models.training.checkpoints import Checkpoint, Checkpoints, put_state
from harness.models.training.ema import Average
from harness.models.training.schedules import SCHEDULES, Schedule

if TYPE_CHECKING:
    from torch import Tensor

LOSSES = ("mae", "huber")


class Trainable(Protocol):
    """One output a row, differentiable in ``parameters``."""

    parameters: dict[str, Tensor]  # by name; the loop changes them in place

    def outputs(self, rows: np.ndarray) -> Tensor:
        """(m,) float32 outputs of (m,) row positions, on the parameters' device."""
        ...

    def pieces(self, rows: np.ndarray) -> list[np.ndarray]:
        """The rows in order, in runs that fit into memory one at a time, gradients included."""
        ...


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What moves a result, besides the rows and the start."""

    epochs: int
    learning_rate: float
    batch_structures: int
    loss: str
    huber_delta: float  # in units of the transformed target
    schedule: str
    ema: float | None
    patience: int | None  # epochs without a better validation error before it stops; None: never
    seed: int

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_structures < 1:
            raise ConfigError(
                f"epochs={self.epochs}, batch_structures={self.batch_structures}: both must be at "
                "least 1"
            )
        if not (np.isfinite(self.learning_rate) and self.learning_rate >= 0):
            raise ConfigError(
                f"learning_rate={self.learning_rate} must be finite and not negative; 1e-3 is usual"
            )
        if self.loss not in LOSSES or not self.huber_delta > 0:
            raise ConfigError(
                f"loss={self.loss!r}, huber_delta={self.huber_delta}: known losses are "
                f"{', '.join(LOSSES)}, and the delta is positive"
            )
        if self.schedule not in SCHEDULES:
            raise ConfigError(
                f"schedule={self.schedule!r} is unknown; known: {', '.join(SCHEDULES)}"
            )
        if self.ema is not None and not 0 <= self.ema < 1:
            raise ConfigError(f"ema={self.ema}: the decay of an average lies in [0, 1)")
        if self.patience is not None and self.patience < 1:
            raise ConfigError(f"patience={self.patience}: give at least one epoch, or None")
        if self.seed < 0:
            raise ConfigError(f"seed={self.seed}: seeds are whole numbers from 0")


@dataclass(frozen=True, kw_only=True, eq=False)
class Trained:
    """A finished training. Epoch 0 is the start, so curves have one entry more than epochs run."""

    train_loss: np.ndarray  # (e + 1,) loss over all fitted rows after each epoch, transformed units
    train_error: np.ndarray  # (e + 1,) the same rows' MAE in eV/atom
    validation_error: np.ndarray  # (e + 1,) eV/atom; nan where no row was held back
    learning_rates: np.ndarray  # (e,) read back from the optimiser at the last step of each epoch
    best_epoch: int  # whose parameters are kept: of the least validation error, else the last
    stopped_early: bool
    state: dict[str, np.ndarray]  # parameters kept, averaged ones where there is an average
    order_sha256: str  # of the rows in the order they were seen, epoch after epoch
    calls: dict[str, int]  # optimiser steps, schedule factors used, averages taken


def train(
    trainable: Trainable,
    targets: np.ndarray,
    fit_rows: np.ndarray,
    validation_rows: np.ndarray,
    settings: Settings,
    *,
    error: Callable[[np.ndarray, np.ndarray], float],
    checkpoints: Checkpoints | None = None,
    on_epoch: Callable[[int], None] | None = None,
) -> Trained:
    """Train on ``fit_rows`` and stop by ``validation_rows``.

    Args:
        targets: (n,) transformed targets by row position, finite on fitted rows.
        fit_rows: (k,) row positions; one that comes twice counts twice.
        validation_rows: (v,) row positions, may be empty; never fitted.
        error: (rows, outputs) -> mean absolute error in eV/atom.
        checkpoints: where to save after every epoch, and go on from. None: nowhere.
        on_epoch: told how many epochs were just done, and at the end how many are not needed.
    Raises:
        DataError: no row to fit, a row fitted and held back, or a target that is not finite.
        ModelError: the loss became infinite, or a checkpoint is of another architecture.
    """
    if len(fit_rows) == 0:
        raise DataError("no rows to train on; give at least one")
    if len(leaked := np.intersect1d(fit_rows, validation_rows)):
        raise DataError(
            f"{len(leaked)} rows are fitted and held back for validation (first {leaked[:5]}); "
            "an early stop would see what it fits"
        )
    if len(bad := np.flatnonzero(~np.isfinite(targets[fit_rows]))):
        raise DataError(
            f"{len(bad)} training targets are not finite, first at row {fit_rows[bad[0]]}; remove "
            "or restore them"
        )
    run = _Run(trainable, targets, fit_rows, validation_rows, settings, error)
    if checkpoints is not None and (found := checkpoints.last()) is not None:
        run.resume(found)
    else:
        run.look()
    tell = on_epoch or (lambda _: None)
    tell(run.epoch)
    while not run.finished:
        run.one_epoch()
        if checkpoints is not None:
            checkpoints.save(run.checkpoint())
        tell(1)
    tell(settings.epochs - run.epoch)
    return run.result()


def outputs_of(trainable: Trainable, rows: np.ndarray) -> np.ndarray:
    """(m,) float64 outputs of (m,) row positions, no gradient kept."""
    return _look_at(trainable, rows).double().cpu().numpy() if len(rows) else np.empty(0)


def keep(state: Mapping[str, np.ndarray], trainable: Trainable) -> None:
    """Put a training's kept parameters into what it trained.

    Raises:
        ModelError: they are of another architecture.
    """
    import torch

    tensors = {name: torch.from_numpy(array) for name, array in state.items()}
    put_state(tensors, trainable.parameters, "the kept state")


def _look_at(trainable: Trainable, rows: np.ndarray) -> Tensor:
    import torch

    with torch.no_grad():
        return torch.cat([trainable.outputs(piece) for piece in trainable.pieces(rows)])


class _Run:
    """The state of a training, and how it moves by one epoch."""

    def __init__(
        self,
        trainable: Trainable,
        targets: np.ndarray,
        fit_rows: np.ndarray,
        validation_rows: np.ndarray,
        settings: Settings,
        error: Callable[[np.ndarray, np.ndarray], float],
    ) -> None:
        import torch

        self.trainable, self.settings, self.error = trainable, settings, error
        self.fit_rows, self.validation_rows = fit_rows, validation_rows
        self.parameters = trainable.parameters
        self.device = next(iter(self.parameters.values())).device
        self.targets = torch.from_numpy(targets.astype(np.float32)).to(self.device)
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.optimiser = torch.optim.Adam(list(self.parameters.values()), settings.learning_rate)
        self.n_batches = -(-len(fit_rows) // settings.batch_structures)
        self.schedule = Schedule(name=settings.schedule, n_steps=settings.epochs * self.n_batches)
        self.average = None if settings.ema is None else Average(self.parameters, settings.ema)
        self.best: dict[str, Tensor] = {}
        self.epoch = self.best_epoch = self.steps = 0
        self.order = hashlib.sha256(b"order-1").hexdigest()
        self.curves: dict[str, list[float | None]] = {
            "train_loss": [],
            "train_error": [],
            "validation_error": [],
            "learning_rates": [],
        }

    @property
    def finished(self) -> bool:
        return self.epoch >= self.settings.epochs or self._out_of_patience

    @property
    def _out_of_patience(self) -> bool:
        patience = self.settings.patience
        return (
            patience is not None
            and len(self.validation_rows) > 0
            and self.epoch - self.best_epoch >= patience
            and self.epoch > 0
        )

    def one_epoch(self) -> None:
        import torch

        order = torch.randperm(len(self.fit_rows), generator=self.generator).numpy()
        rows = self.fit_rows[order]
        self.order = hashlib.sha256(self.order.encode() + rows.astype("<i8").tobytes()).hexdigest()
        for start in range(0, len(rows), self.settings.batch_structures):
            batch = rows[start : start + self.settings.batch_structures]
            rate = self.settings.learning_rate * self.schedule.factor(self.steps)
            for group in self.optimiser.param_groups:
                group["lr"] = rate
            self.optimiser.zero_grad(set_to_none=True)
            for piece in self.trainable.pieces(batch):
                loss = self._loss(self.trainable.outputs(piece), piece).sum() / len(batch)
                loss.backward()
            self.optimiser.step()
            self.steps += 1
            if self.average is not None:
                self.average.update(self.parameters)
        self.curves["learning_rates"].append(float(self.optimiser.param_groups[0]["lr"]))
        self.epoch += 1
        self.look()

    def look(self) -> None:
        """Losses as they stand, with the parameters one would predict with."""
        from contextlib import nullcontext

        # Before the first step the average is the start itself.
        averaged = self.average is not None and self.epoch > 0
        with self._averaged() if averaged else nullcontext():
            unique = np.unique(self.fit_rows)  # a resampled row counts once here
            outputs = _look_at(self.trainable, unique)
            loss = float(self._loss(outputs, unique).double().mean())
            if not np.isfinite(loss):
                raise ModelError(
                    f"the training loss became {loss} in epoch {self.epoch}; lower learning_rate "
                    f"(it is {self.settings.learning_rate:g})"
                )
            fitted = self.error(unique, outputs.double().cpu().numpy())
            held = None
            if len(self.validation_rows):
                outputs = _look_at(self.trainable, self.validation_rows)
                held = self.error(self.validation_rows, outputs.double().cpu().numpy())
            self.curves["train_loss"].append(loss)
            self.curves["train_error"].append(fitted)
            self.curves["validation_error"].append(held)
            if self.epoch and self._is_best(held):
                self.best_epoch = self.epoch
                self.best = {name: p.detach().clone() for name, p in self.parameters.items()}

    def _is_best(self, held: float | None) -> bool:
        earlier = [v for v in self.curves["validation_error"][1:-1] if v is not None]
        return held is None or not earlier or held < min(earlier)

    def _averaged(self) -> Any:
        """Within it the parameters are the average."""
        from contextlib import contextmanager

        average = self.average
        assert average is not None  # noqa: S101 (for mypy: asked only where there is one)

        @contextmanager
        def swapped() -> Any:
            import torch

            own = {name: p.detach().clone() for name, p in self.parameters.items()}
            with torch.no_grad():
                for name, p in self.parameters.items():
                    p.copy_(average.shadow[name])
                try:
                    yield
                finally:
                    for name, p in self.parameters.items():
                        p.copy_(own[name])

        return swapped()

    def _loss(self, outputs: Tensor, rows: np.ndarray) -> Tensor:
        import torch
        import torch.nn.functional as F

        target = self.targets[torch.from_numpy(rows).to(self.device)]
        if self.settings.loss == "mae":
            return (outputs - target).abs()
        return F.huber_loss(outputs, target, reduction="none", delta=self.settings.huber_delta)

    def result(self) -> Trained:
        def curve(name: str) -> np.ndarray:
            return np.array([np.nan if v is None else v for v in self.curves[name]])

        return Trained(
            train_loss=curve("train_loss"),
            train_error=curve("train_error"),
            validation_error=curve("validation_error"),
            learning_rates=curve("learning_rates"),
            best_epoch=self.best_epoch,
            stopped_early=self.epoch < self.settings.epochs,
            state={name: p.cpu().numpy() for name, p in self.best.items()},
            order_sha256=self.order,
            calls=self._calls(),
        )

    def _calls(self) -> dict[str, int]:
        calls = {"steps": self.steps, f"schedule:{self.schedule.name}": self.schedule.calls}
        if self.average is not None:
            calls["ema"] = self.average.calls
        return calls

    def checkpoint(self) -> Checkpoint:
        tensors = {f"parameter:{name}": p.detach().cpu() for name, p in self.parameters.items()}
        tensors |= {f"best:{name}": p.cpu() for name, p in self.best.items()}
        if self.average is not None:
            tensors |= {f"average:{name}": p.cpu() for name, p in self.average.shadow.items()}
        for name, parameter in self.parameters.items():
            for key, value in self.optimiser.state[parameter].items():
                tensors[f"adam:{key}:{name}"] = value.cpu()
        tensors["generator"] = self.generator.get_state()
        return Checkpoint(
            epoch=self.epoch,
            tensors=tensors,
            record={
                "curves": self.curves,
                "best_epoch": self.best_epoch,
                "steps": self.steps,
                "schedule_calls": self.schedule.calls,
                "average_calls": 0 if self.average is None else self.average.calls,
                "order": self.order,
            },
        )

    def resume(self, found: Checkpoint) -> None:
        def named(prefix: str) -> dict[str, Tensor]:
            start = f"{prefix}:"
            return {
                k.removeprefix(start): v for k, v in found.tensors.items() if k.startswith(start)
            }

        put_state(named("parameter"), self.parameters, "the checkpoint")
        self.best = {name: p.detach().clone() for name, p in self.parameters.items()}
        put_state(named("best"), self.best, "the checkpoint")
        if self.average is not None:
            put_state(named("average"), self.average.shadow, "the checkpoint's average")
            self.average.calls = int(found.record["average_calls"])
        moments = named("adam")
        for name, parameter in self.parameters.items():
            if f"step:{name}" not in moments:
                continue  # no gradient has ever reached it, and Adam keeps nothing of such
            for key in ("step", "exp_avg", "exp_avg_sq"):
                value = moments[f"{key}:{name}"]
                # Adam keeps its count of steps on the CPU
                self.optimiser.state[parameter][key] = (
                    value.clone() if key == "step" else value.to(self.device, copy=True)
                )
        self.generator.set_state(found.tensors["generator"])
        self.epoch, self.steps = found.epoch, int(found.record["steps"])
        self.best_epoch = int(found.record["best_epoch"])
        self.schedule.calls = int(found.record["schedule_calls"])
        self.order = str(found.record["order"])
        self.curves = {name: list(values) for name, values in found.record["curves"].items()}
