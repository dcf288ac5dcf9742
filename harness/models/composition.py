"""The composition baseline ('Route-B CHGNet-lite'): element fractions into a small MLP.

It sees no coordinates, so polymorphs of one formula get one prediction. What it reaches is what
any structure-aware potential has to beat before its structures can be said to help.
"""

from __future__ import annotations

import functools
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.engines import engine
from harness.errors import ConfigError, DataError
from harness.models.protocol import Identity
from harness.models.threads import Each, parts_on_threads
from harness.models.training.checkpoints import Checkpoint, Checkpoints, put_state

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

NAME = "composition-mlp"
# Raise it when a change here moves a prediction.
ENGINE = engine("composition", "3")
CHECKPOINT_SECONDS = 3.0  # so much work is lost at most; an epoch of few rows takes milliseconds


@dataclass(frozen=True, kw_only=True)
class CompositionMLP:
    """Settings of the baseline; all of them are part of what its predictions are addressed by."""

    seed: int = 0
    epochs: int = 30
    width: int = 512
    batch_rows: int = 1408
    learning_rate: float = 1e-3  # the peak of a one-cycle schedule

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.width < 1 or self.batch_rows < 2 or self.learning_rate <= 0:
            raise ConfigError(
                f"{self}: epochs and width must be at least 1, batch_rows at least 2 and the "
                "learning rate positive"
            )

    def identity(self, rows_sha256: str) -> Identity:
        """What a model of these settings is addressed by, trained on rows of this content."""
        settings = {key: json.dumps(value) for key, value in asdict(self).items()}
        return Identity(
            name=NAME,
            weights_sha256=rows_sha256,  # the rows and the settings decide the weights
            settings={"engine": ENGINE, **settings},
        )

    def fit_predict(
        self,
        train: np.ndarray,
        target_ev_per_atom: np.ndarray,
        test: np.ndarray,
        *,
        device: str = "cpu",
        on_epoch: Callable[[int, float], None] | None = None,
        checkpoints: Checkpoints | None = None,
    ) -> np.ndarray:
        """Train on one set of compositions, predict another.

        Args:
            train: (n, 118) element counts, any scale; (m, 118) for ``test``.
            target_ev_per_atom: (n,) finite.
            on_epoch: called with the number of epochs done and the last epoch's training MAE.
            checkpoints: where to save after epochs, at most every few seconds, and go on from.
        Returns:
            (m,) float64, eV/atom.
        Raises:
            DataError: no training rows, a row without atoms, or a target that is not finite.
        """
        features, query = _fractions(train, "train"), _fractions(test, "test")
        target = np.asarray(target_ev_per_atom, dtype=np.float64)
        if len(features) < 2 or len(features) != len(target):
            raise DataError(
                f"{len(features)} training compositions and {len(target)} targets: the baseline "
                "needs at least two rows and one target a row"
            )
        if not np.isfinite(target).all():
            raise DataError(
                f"target of training row {np.argmin(np.isfinite(target))} is not finite"
            )
        with parts_on_threads(self._n_parts(device)) as each:
            return self._fit_predict(features, target, query, device, on_epoch, checkpoints, each)

    def _n_parts(self, device: str) -> int:
        """Into how many parts a batch is cut, each on a thread of its own where there are cores.

        Sums are split by part and not by core: the same seed gives the same bytes on any machine.
        """
        return 2 if device == "cpu" and self.batch_rows * self.width >= 2**18 else 1

    def _fit_predict(
        self,
        features: np.ndarray,
        target: np.ndarray,
        query: np.ndarray,
        device: str,
        on_epoch: Callable[[int, float], None] | None,
        checkpoints: Checkpoints | None,
        each: Each,
    ) -> np.ndarray:
        import torch

        generator = torch.Generator().manual_seed(self.seed)
        mean, spread = float(target.mean()), float(target.std()) or 1.0
        x = torch.from_numpy(features).to(device)
        y = torch.from_numpy(((target - mean) / spread).astype(np.float32)).to(device)
        net = _network(features.shape[1], self.width, generator).to(device)
        parameters = list(net.parameters())
        adam = _Adam(parameters)
        n_steps = self.epochs * -(-len(features) // self.batch_rows)
        state = _State(net, adam, generator)
        first = 1 if checkpoints is None else 1 + state.resume(checkpoints.last())
        saved = time.monotonic()
        for epoch in range(first, self.epochs + 1):
            order = torch.randperm(len(features), generator=generator).to(device)
            total = torch.zeros((), device=device)
            for batch in order.split(self.batch_rows):

                def slopes(rows: Tensor, n_rows: int = len(batch)) -> tuple[Tensor, ...]:
                    loss = (net(x[rows]).squeeze(1) - y[rows]).abs().sum()
                    return *torch.autograd.grad(loss / n_rows, parameters), loss.detach()

                columns = zip(*each(slopes, batch.chunk(self._n_parts(device))), strict=True)
                *gradients, loss = (functools.reduce(torch.add, column) for column in columns)
                factor, beta1 = one_cycle(adam.steps, n_steps)
                adam.step(list(gradients), self.learning_rate * factor, beta1)
                total += loss
            if checkpoints is not None and time.monotonic() - saved >= CHECKPOINT_SECONDS:
                checkpoints.save(state.checkpoint(epoch))
                saved = time.monotonic()
            if on_epoch is not None:
                on_epoch(epoch, float(total) / len(features) * spread)
        with torch.inference_mode():
            parts = [net(q.to(device)).squeeze(1) for q in torch.from_numpy(query).split(16_384)]
        predicted = torch.cat(parts).to("cpu", torch.float64).numpy()
        return predicted * spread + mean


def one_cycle(step: int, n_steps: int) -> tuple[float, float]:
    """Share of the peak learning rate, and Adam's first beta, of a step counted from 0.

    Up from 1/25 within 30 % of the steps, then down to 4e-6; beta from 0.95 to 0.85 and back.
    Source: L. Smith and N. Topin, arXiv:1708.07120, as torch's OneCycleLR has it.
    """
    top = 0.3 * n_steps - 1
    ends = [(0.04, 0.95), (1.0, 0.85), (4e-6, 0.95)]
    rising = step <= top
    share = step / top if rising else (step - top) / (n_steps - 1 - top)
    (a_factor, a_beta), (b_factor, b_beta) = ends[:2] if rising else ends[1:]
    weight = (1 + math.cos(math.pi * share)) / 2
    return b_factor + (a_factor - b_factor) * weight, b_beta + (a_beta - b_beta) * weight


class _Adam:
    """torch's fused Adam, called as a function: its class imports a compiler first, which takes as
    long as training on sixty thousand rows."""

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        import torch

        self.parameters = list(parameters)
        self.steps = 0
        self._mean = [torch.zeros_like(p) for p in parameters]
        self._square = [torch.zeros_like(p) for p in parameters]
        self._steps = [torch.zeros((), device=p.device) for p in parameters]

    def step(self, gradients: list[Tensor], learning_rate: float, beta1: float) -> None:
        import torch
        from torch.optim.adam import adam

        with torch.no_grad():
            adam(
                self.parameters,
                gradients,
                self._mean,
                self._square,
                [],
                self._steps,
                fused=True,
                amsgrad=False,
                beta1=beta1,
                beta2=0.999,
                lr=learning_rate,
                weight_decay=0.0,
                eps=1e-8,
                maximize=False,
            )
        self.steps += 1

    def state(self) -> dict[str, Tensor]:
        """Its moments and counts, by name; they change in place."""
        kinds = {"mean": self._mean, "square": self._square, "steps": self._steps}
        return {f"adam {kind} {i}": t for kind, ts in kinds.items() for i, t in enumerate(ts)}


@dataclass(frozen=True, eq=False)
class _State:
    """Everything the next epoch depends on, to be saved and to go on from."""

    net: nn.Module
    adam: _Adam
    generator: Generator

    def checkpoint(self, epoch: int) -> Checkpoint:
        tensors = {name: tensor.detach().cpu() for name, tensor in self._tensors().items()}
        tensors["generator"] = self.generator.get_state()
        return Checkpoint(epoch=epoch, tensors=tensors, record={"steps": self.adam.steps})

    def resume(self, found: Checkpoint | None) -> int:
        """How many epochs are done.

        Raises:
            ModelError: the checkpoint is of another architecture.
        """
        if found is None:
            return 0
        tensors: dict[str, Any] = dict(found.tensors)
        self.generator.set_state(tensors.pop("generator"))
        put_state(tensors, self._tensors(), "the checkpoint")
        self.adam.steps = int(found.record["steps"])
        return found.epoch

    def _tensors(self) -> Mapping[str, Tensor]:
        return {**self.net.state_dict(), **self.adam.state()}


# For sets of some hundred rows: as many steps as make a small network learn them.
FEW_ROWS = CompositionMLP(epochs=120, width=128, batch_rows=32, learning_rate=3e-3)


def _fractions(compositions: np.ndarray, what: str) -> np.ndarray:
    counts = np.asarray(compositions, dtype=np.float64)
    totals = counts.sum(axis=1, keepdims=True)
    if (totals <= 0).any():
        raise DataError(f"{what} row {int(np.argmin(totals))} has no atoms; remove or repair it")
    return (counts / totals).astype(np.float32)


def _network(n_inputs: int, width: int, generator: object) -> nn.Module:
    """Two hidden layers, initialised from ``generator`` alone, never from global state."""
    import torch
    from torch import nn

    net = nn.Sequential(
        nn.Linear(n_inputs, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, 1),
    )
    with torch.no_grad():
        for layer in net:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_uniform_(layer.weight, a=5**0.5, generator=generator)  # type: ignore[arg-type]
                edge = layer.in_features**-0.5
                nn.init.uniform_(layer.bias, -edge, edge, generator=generator)  # type: ignore[arg-type]
    return net
