"""Sparse matrices of ones: who receives what, and the sums over it.

Gathering and adding is one call, and so is adding up by owner: both are ``embedding_bag``, which is
vectorised and adds in a fixed order, so that results repeat to the last bit.

Public: Incidence.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.models.chgnet.graph import stable_order


class Incidence:
    """Every row names the table rows to add up.

    ``gather`` multiplies by the matrix, ``scatter`` by its transpose, and each is the other's
    gradient.
    """

    def __init__(self, index: Tensor, n_table: int, *, is_sorted: bool = False) -> None:
        """index: (m,) or (m, k) integers in 0..n_table-1; ``is_sorted``: they never decrease."""
        self.index = index.to(torch.int32)
        self.n_table = n_table
        self._is_sorted = is_sorted

    def __len__(self) -> int:
        return len(self.index)

    @cached_property
    def starts(self) -> Tensor:
        """(n_table + 1,) int32: where each table row's entries start in their common order."""
        counts = torch.bincount(self.index.reshape(-1), minlength=self.n_table)
        return F.pad(counts.cumsum(0), (1, 0)).to(torch.int32)

    @cached_property
    def _order(self) -> Tensor:
        """Rows of the matrix in the order of the table row they name."""
        flat = self.index.reshape(-1)
        if self._is_sorted:
            order = torch.arange(len(flat), device=flat.device)
        elif flat.is_cuda:
            order = torch.argsort(flat, stable=True)
        else:
            order = torch.from_numpy(stable_order(flat.numpy(), self.n_table))
        per_row = 1 if self.index.ndim == 1 else self.index.shape[1]
        return (order // per_row).to(torch.int32)

    def gather(self, table: Tensor) -> Tensor:
        """(m, width): row r is the sum of the table's rows that row r names."""
        if torch.is_grad_enabled() and table.requires_grad:
            return cast("Tensor", _Product.apply(table, self, False))
        return self.take(table, 0, len(self))

    def scatter(self, rows: Tensor) -> Tensor:
        """(n_table, width): every table row is the sum of the rows that name it."""
        if torch.is_grad_enabled() and rows.requires_grad:
            return cast("Tensor", _Product.apply(rows, self, True))
        if len(rows) == 0:
            return rows.new_zeros(self.n_table, rows.shape[1])
        return F.embedding_bag(self._order, rows, self.starts[:-1], mode="sum")

    def take(self, table: Tensor, start: int, stop: int) -> Tensor:
        """Rows start to stop of what ``gather`` gives, without a gradient."""
        index = self.index[start:stop]
        if len(index) == 0:
            return table.new_zeros(0, table.shape[1])
        if index.ndim == 1:
            return table.index_select(0, index)
        return F.embedding_bag(index, table, mode="sum")


class _Product(torch.autograd.Function):
    """By the matrix or by its transpose, whose gradient is the other one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, incidence: Incidence, transposed: bool) -> Tensor:
        ctx.incidence, ctx.transposed = incidence, transposed
        return incidence.scatter(x.detach()) if transposed else incidence.gather(x.detach())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        by = ctx.incidence.gather if ctx.transposed else ctx.incidence.scatter
        return by(gradients[0].contiguous()), None, None
