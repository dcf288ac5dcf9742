"""CHGNet's gated MLPs over edges and angles, where nearly all of an energy's time goes.

A row's first layer is a sum: of rows of a table, which holds the products of atoms and bonds, and
of the row's own features through a matrix. Then silu(norm(core)) * sigmoid(norm(gate)), each after
a second layer where there is one.

Without a gradient, a processor takes rows in blocks whose steps find each other's results in the
cache. With one, torch records the operations over all rows at once: blocks with a gradient written
by hand were tried, and were slower. On a GPU a fused kernel does all of it (kernels.py), unless
parameters are trained.

Public: Norm, GatedMLP, Summing, fused_disagreement.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.models.chgnet.incidence import Incidence

WIDTH = 64  # of every feature
NORM_EPS = 1e-5  # torch's, and chgnet's
# Rows handled together: 64 and 128 float32 each, so that what one step writes the next still finds
# in a core's second-level cache (1 to 2 MiB).
_ROWS_PER_BLOCK = 2048


@dataclass(frozen=True, kw_only=True)
class Norm:
    """A LayerNorm over the last axis, or nothing."""

    weight: Tensor | None
    bias: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        if self.weight is None:
            return x
        return F.layer_norm(x, (WIDTH,), self.weight, self.bias, NORM_EPS)


@dataclass(frozen=True, kw_only=True)
class Summing:
    """What becomes of the rows' values: each times its weight, then added up by owner."""

    weight: Incidence  # which row of a table of weights each is multiplied by
    owner: Incidence  # sorted


@dataclass(frozen=True, kw_only=True)
class GatedMLP:
    """See above. The core's 64 columns come first wherever there are 128."""

    own: Tensor | None  # (64, 128), from a row's own features
    second: tuple[tuple[Tensor, Tensor], ...] | None  # (64,), (64, 64) transposed: core's, gate's
    core_norm: Norm
    gate_norm: Norm
    is_fused: bool = False  # by kernels.py, on a GPU where they were found to agree
    # for kernels.py: core's matrix, bias, scale and shift, then gate's, 0 where there is none. Made
    # with the rest, so that it is there before any stream reads it.
    packed: Tensor | None = field(init=False, default=None, repr=False)

    def __post_init__(self) -> None:
        if not self.is_fused:
            return
        like = next(p for p in self._parameters if p is not None)
        parts: list[Tensor] = []
        for (bias, matrix), norm in zip(
            self.second or ((None, None),) * 2, (self.core_norm, self.gate_norm), strict=True
        ):
            parts.append(like.new_zeros(WIDTH * WIDTH) if matrix is None else matrix.reshape(-1))
            for vector in (bias, norm.weight, norm.bias):
                parts.append(like.new_zeros(WIDTH) if vector is None else vector)
        object.__setattr__(self, "packed", torch.cat(parts))

    def rows(self, table: Tensor, incidence: Incidence, own: Tensor) -> Tensor:
        """(m, 64): every row's value, added to its own features.

        Args:
            table: (n_table, 128), of which a row takes those that ``incidence`` names.
            own: (m, 64) features.
        """
        return _Call(self, incidence, None)(table, own, None)

    def sums(
        self,
        table: Tensor,
        incidence: Incidence,
        summing: Summing,
        weights: Tensor,
        own: Tensor | None = None,
    ) -> Tensor:
        """(n_owner, 64): sums of the rows' values, each times one of the (n, 64) weights."""
        return _Call(self, incidence, summing)(table, own, weights)

    @property
    def _parameters(self) -> list[Tensor | None]:
        parameters = [self.own, self.core_norm.weight, self.gate_norm.weight]
        return parameters + [tensor for layer in self.second or () for tensor in layer]

    @property
    def is_trained(self) -> bool:
        return any(p is not None and p.requires_grad for p in self._parameters)

    def hidden(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """What the second layers make of (m, 128), or its two halves where there are none."""
        if self.second is None:
            core, gate = h.split(WIDTH, dim=1)
            return core, gate
        active = F.silu(h, inplace=not h.requires_grad)
        (core_bias, core_matrix), (gate_bias, gate_matrix) = self.second
        core, gate = active.split(WIDTH, dim=1)
        return torch.addmm(core_bias, core, core_matrix), torch.addmm(gate_bias, gate, gate_matrix)

    def end(self, core: Tensor, gate: Tensor) -> Tensor:
        core, gate = self.core_norm(core), self.gate_norm(gate)
        if self.core_norm.weight is None:
            return F.silu(core) * gate.sigmoid()
        return F.silu(core, inplace=True).mul_(gate.sigmoid_())


@dataclass(frozen=True)
class _Call:
    """One GatedMLP over all rows of one graph."""

    mlp: GatedMLP
    incidence: Incidence
    summing: Summing | None

    def __call__(self, *given: Any) -> Tensor:
        """Of a table, own features or None, weights or None."""
        if torch.is_grad_enabled():
            if not self.mlp.is_fused or self.mlp.is_trained:
                return self.plain(*given)
            if any(tensor is not None and tensor.requires_grad for tensor in given):
                return cast("Tensor", _Fused.apply(self, *given))
        return self.fused(*given) if self.mlp.is_fused else self.in_blocks(*given)

    def plain(self, table: Tensor, own: Tensor | None, weights: Tensor | None) -> Tensor:
        """All rows at once, every operation torch's, with a gradient in the parameters as well."""
        h = self.incidence.gather(table)
        if own is not None and self.mlp.own is not None:
            h = torch.addmm(h, own, self.mlp.own)
        value = self.mlp.end(*self.mlp.hidden(h))
        if self.summing is None or weights is None:
            return value if own is None else value + own
        return self.summing.owner.scatter(value * self.summing.weight.gather(weights))

    def in_blocks(self, table: Tensor, own: Tensor | None, weights: Tensor | None) -> Tensor:
        """The same without a gradient, block by block on a processor."""
        n = len(self.incidence)
        n_block = n if table.is_cuda else _ROWS_PER_BLOCK
        values = table.new_empty(n, WIDTH)
        for start in range(0, n, max(n_block, 1)):
            stop = min(start + n_block, n)
            h = self.incidence.take(table, start, stop)
            if own is not None and self.mlp.own is not None:
                h.addmm_(own[start:stop], self.mlp.own)
            value = self.mlp.end(*self.mlp.hidden(h))
            if self.summing is not None and weights is not None:
                value.mul_(self.summing.weight.take(weights, start, stop))
            elif own is not None:
                value.add_(own[start:stop])
            values[start:stop] = value
        return values if self.summing is None else self.summing.owner.scatter(values)

    def fused(self, table: Tensor, own: Tensor | None, weights: Tensor | None) -> Tensor:
        from harness.models.chgnet import kernels

        return kernels.values(self.mlp, self.incidence, self.summing, table, own, weights)


class _Fused(torch.autograd.Function):
    """kernels.py's gradient, in everything but the parameters."""

    @staticmethod
    def forward(
        ctx: Any, call: _Call, table: Tensor, own: Tensor | None, weights: Tensor | None
    ) -> Tensor:
        ctx.call = call
        ctx.save_for_backward(table, own, weights)
        return call.fused(table, own, weights)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        from harness.models.chgnet import kernels

        call: _Call = ctx.call
        slopes = kernels.slopes(
            gradients[0], call.mlp, call.incidence, call.summing, *ctx.saved_tensors
        )
        return None, *slopes


def fused_disagreement(device: torch.device, *, has_norms: bool) -> float:
    """The largest difference of fused kernels from torch's operations, over the largest value.

    Values and gradients of all three kinds of call, a few hundred random rows of each.
    """
    worst = 0.0
    for call, given in _samples(device, has_norms):
        fused = dataclasses.replace(call.mlp, is_fused=True)
        results = []
        for mlp in (call.mlp, fused):
            inputs = [None if x is None else x.clone().requires_grad_() for x in given]
            with torch.enable_grad():
                value = dataclasses.replace(call, mlp=mlp)(*inputs)
                wanted = [x for x in inputs if x is not None]
                slopes = torch.autograd.grad(value.square().sum(), wanted)
            with torch.no_grad():
                alone = dataclasses.replace(call, mlp=mlp)(*given)
            results.append((value.detach(), alone, *slopes))
        for expected, found in zip(*results, strict=True):
            distance = (expected - found).abs().max() / expected.abs().max()
            worst = max(worst, float(distance))
    return worst


def _samples(
    device: torch.device, has_norms: bool
) -> Iterator[tuple[_Call, tuple[Tensor | None, ...]]]:
    """An atom convolution, a bond convolution and an angle update, of random numbers."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int, scale: float = 1.0) -> Tensor:
        return (scale * torch.randn(*shape, generator=generator)).to(device)

    def named(*shape: int, below: int) -> Tensor:
        return torch.randint(below, shape, generator=generator).to(device)

    def norm() -> Norm:
        if not has_norms:
            return Norm(weight=None, bias=None)
        return Norm(weight=1 + normal(WIDTH, scale=0.1), bias=normal(WIDTH))

    n_rows, n_table, n_owner = 301, 40, 7
    for n_named, has_own, is_summed in ((3, False, True), (2, True, True), (2, True, False)):
        second = tuple((normal(WIDTH), normal(WIDTH, WIDTH, scale=0.1)) for _ in range(2))
        mlp = GatedMLP(
            own=normal(WIDTH, 2 * WIDTH, scale=0.1) if has_own else None,
            second=second if is_summed else None,
            core_norm=norm(),
            gate_norm=norm(),
        )
        # an owner without rows, and one with more than a tile
        owner = named(n_rows, below=n_owner).sort().values
        summing = Summing(
            weight=Incidence(named(n_rows, below=n_table), n_table),
            owner=Incidence(owner, n_owner + 1, is_sorted=True),
        )
        incidence = Incidence(named(n_rows, n_named, below=n_table), n_table)
        yield (
            _Call(mlp, incidence, summing if is_summed else None),
            (
                normal(n_table, 2 * WIDTH),
                normal(n_rows, WIDTH) if has_own else None,
                normal(n_table, WIDTH) if is_summed else None,
            ),
        )
