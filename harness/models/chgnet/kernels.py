"""Fused GPU kernels of a gated MLP over edges or angles, in Triton, which torch for CUDA brings.

What gated.py does in a dozen passes over memory, one kernel does on a tile of rows that never
leaves the registers: gather and add the table's rows, both layers, norms, gate, weight, and where
an owner has many rows their sum. The backward kernel computes the tile again instead of reading
what was kept, and writes slopes that are then added up. All sums are in a fixed order: results
repeat to the last bit.

A product of float32 is three of TF32, whose sum has float32's own rounding: on the tensor cores of
Ampere and later that is several times as fast, and float32's own instructions need more registers
than there are. Nothing here is trusted unseen: ``why_not`` runs the kernels on the device at hand,
values and gradients, beside torch's own operations.

Public: why_not, values, slopes.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from harness.models.chgnet.gated import (
    NORM_EPS,
    WIDTH,
    GatedMLP,
    Summing,
    fused_disagreement,
)
from harness.models.chgnet.incidence import Incidence

_ROWS_PER_TILE = 32
# More stages would hold the matrices twice, beyond the memory that a small GPU's threads share.
LAUNCH = {"num_warps": 8, "num_stages": 1}
_AGREEMENT = 1e-5  # of the largest value
_NORM_EPS = tl.constexpr(NORM_EPS)
_W = tl.constexpr(WIDTH)
# GatedMLP.packed: where a half's bias, scale and shift stand behind its matrix, and the gate's half
_BIAS = tl.constexpr(WIDTH * WIDTH)
_SCALE = tl.constexpr(WIDTH * WIDTH + WIDTH)
_SHIFT = tl.constexpr(WIDTH * WIDTH + 2 * WIDTH)
_GATE = tl.constexpr(WIDTH * WIDTH + 3 * WIDTH)


# --- on a tile of rows ----------------------------------------------------------------------------


@triton.jit
def _columns(base, at, mask):
    """(rows, 64) float32 of a row-major matrix whose rows start at ``base + at``."""
    columns = tl.arange(0, _W)
    return tl.load(base + at[:, None] + columns[None, :], mask=mask[:, None], other=0.0)


@triton.jit
def _put(base, at, mask, value):
    columns = tl.arange(0, _W)
    tl.store(base + at[:, None] + columns[None, :], value, mask=mask[:, None])


@triton.jit
def _times(x, matrix, stride: tl.constexpr):
    """x @ the (64, 64) matrix whose rows are ``stride`` apart."""
    i = tl.arange(0, _W)
    return tl.dot(x, tl.load(matrix + i[:, None] * stride + i[None, :]), input_precision="tf32x3")


@triton.jit
def _times_transposed(x, matrix, stride: tl.constexpr):
    i = tl.arange(0, _W)
    return tl.dot(x, tl.load(matrix + i[None, :] * stride + i[:, None]), input_precision="tf32x3")


@triton.jit
def _standard(x):
    """Each row without its mean and over its standard deviation, and one over that."""
    x -= (tl.sum(x, axis=1) / _W)[:, None]
    scale = 1 / tl.sqrt(tl.sum(x * x, axis=1) / _W + _NORM_EPS)
    return x * scale[:, None], scale


@triton.jit
def _standard_slope(slope, standard, scale):
    along = tl.sum(slope * standard, axis=1) / _W
    mean = tl.sum(slope, axis=1) / _W
    return (slope - mean[:, None] - standard * along[:, None]) * scale[:, None]


@triton.jit
def _vector(base):
    return tl.load(base + tl.arange(0, _W))[None, :]


@triton.jit
def _first(table, index, own, own_matrix, rows, mask, K: tl.constexpr, OWN: tl.constexpr):
    """Core and gate of the first layer's sum."""
    at = tl.load(index + rows * K, mask=mask, other=0).to(tl.int64) * (2 * _W)
    core, gate = _columns(table, at, mask), _columns(table + _W, at, mask)
    for k in tl.static_range(1, K):
        at = tl.load(index + rows * K + k, mask=mask, other=0).to(tl.int64) * (2 * _W)
        core += _columns(table, at, mask)
        gate += _columns(table + _W, at, mask)
    if OWN:
        features = _columns(own, rows * _W, mask)
        core += _times(features, own_matrix, 2 * _W)
        gate += _times(features, own_matrix + _W, 2 * _W)
    return core, gate


@triton.jit
def _second(x, half):
    """The second layer on silu(x)."""
    return _times(x * tl.sigmoid(x), half, _W) + _vector(half + _BIAS)


@triton.jit
def _second_slope(slope, x, half):
    opening = tl.sigmoid(x)
    return _times_transposed(slope, half, _W) * (opening * (1 + x * (1 - opening)))


@triton.jit
def _scaled(standard, half):
    return standard * _vector(half + _SCALE) + _vector(half + _SHIFT)


@triton.jit
def _value(table, index, own, own_matrix, layers, rows, mask, K, OWN, DEEP, NORM):
    """silu(norm(core)) * sigmoid(norm(gate)) of rows."""
    core, gate = _first(table, index, own, own_matrix, rows, mask, K, OWN)
    if DEEP:
        core, gate = _second(core, layers), _second(gate, layers + _GATE)
    if NORM:
        core = _scaled(_standard(core)[0], layers)
        gate = _scaled(_standard(gate)[0], layers + _GATE)
    return core * tl.sigmoid(core) * tl.sigmoid(gate)


# --- kernels --------------------------------------------------------------------------------------


@triton.jit(do_not_specialize=["n_rows"])  # one compilation serves every batch
def _rows_kernel(
    out,
    table,
    index,
    own,
    own_matrix,
    layers,
    weights,
    weight_index,
    n_rows,
    K: tl.constexpr,
    OWN: tl.constexpr,
    DEEP: tl.constexpr,
    NORM: tl.constexpr,
    SUMMED: tl.constexpr,
    TILE: tl.constexpr,
):
    """The value of every row, times its weight or added to its own features."""
    rows = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    mask = rows < n_rows
    value = _value(table, index, own, own_matrix, layers, rows, mask, K, OWN, DEEP, NORM)
    if SUMMED:
        at = tl.load(weight_index + rows, mask=mask, other=0).to(tl.int64) * _W
        value *= _columns(weights, at, mask)
    else:
        value += _columns(own, rows * _W, mask)
    _put(out, rows * _W, mask, value)


@triton.jit
def _sums_kernel(
    out,
    starts,
    table,
    index,
    own,
    own_matrix,
    layers,
    weights,
    weight_index,
    K: tl.constexpr,
    OWN: tl.constexpr,
    DEEP: tl.constexpr,
    NORM: tl.constexpr,
    TILE: tl.constexpr,
):
    """The sum over one owner's rows, which follow each other, of value times weight."""
    owner = tl.program_id(0).to(tl.int64)
    start = tl.load(starts + owner).to(tl.int64)
    stop = tl.load(starts + owner + 1).to(tl.int64)
    total = tl.zeros((_W,), dtype=tl.float32)
    for done in range(0, stop - start, TILE):
        rows = start + done + tl.arange(0, TILE)
        mask = rows < stop
        value = _value(table, index, own, own_matrix, layers, rows, mask, K, OWN, DEEP, NORM)
        at = tl.load(weight_index + rows, mask=mask, other=0).to(tl.int64) * _W
        total += tl.sum(value * _columns(weights, at, mask), axis=0)  # no weight, no row
    tl.store(out + owner * _W + tl.arange(0, _W), total)


@triton.jit(do_not_specialize=["n_rows"])
def _slopes_kernel(
    h_slope,
    own_slope,
    weight_slope,
    slope,
    owner,
    table,
    index,
    own,
    own_matrix,
    layers,
    weights,
    weight_index,
    n_rows,
    K: tl.constexpr,
    OWN: tl.constexpr,
    DEEP: tl.constexpr,
    NORM: tl.constexpr,
    SUMMED: tl.constexpr,
    TILE: tl.constexpr,
):
    """Slopes along every row's sum h, own features and weight, from those along the values."""
    rows = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    mask = rows < n_rows
    h_core, h_gate = _first(table, index, own, own_matrix, rows, mask, K, OWN)
    core, gate = h_core, h_gate
    if DEEP:
        core, gate = _second(h_core, layers), _second(h_gate, layers + _GATE)
    if NORM:
        standard_core, over_core = _standard(core)
        standard_gate, over_gate = _standard(gate)
        core = _scaled(standard_core, layers)
        gate = _scaled(standard_gate, layers + _GATE)
    rising, opening = tl.sigmoid(core), tl.sigmoid(gate)
    value = core * rising * opening

    if SUMMED:
        at = tl.load(owner + rows, mask=mask, other=0).to(tl.int64) * _W
        received = _columns(slope, at, mask)
        _put(weight_slope, rows * _W, mask, value * received)
        at = tl.load(weight_index + rows, mask=mask, other=0).to(tl.int64) * _W
        passed = received * _columns(weights, at, mask)
    else:
        received = _columns(slope, rows * _W, mask)
        passed = received
    gate_slope = passed * value * (1 - opening)
    core_slope = passed * opening * rising * (1 + core * (1 - rising))
    if NORM:
        core_slope *= _vector(layers + _SCALE)
        gate_slope *= _vector(layers + _GATE + _SCALE)
        core_slope = _standard_slope(core_slope, standard_core, over_core)
        gate_slope = _standard_slope(gate_slope, standard_gate, over_gate)
    if DEEP:
        core_slope = _second_slope(core_slope, h_core, layers)
        gate_slope = _second_slope(gate_slope, h_gate, layers + _GATE)
    _put(h_slope, rows * (2 * _W), mask, core_slope)
    _put(h_slope + _W, rows * (2 * _W), mask, gate_slope)
    if OWN:
        features = _times_transposed(core_slope, own_matrix, 2 * _W)
        features += _times_transposed(gate_slope, own_matrix + _W, 2 * _W)
        if not SUMMED:
            features += received
        _put(own_slope, rows * _W, mask, features)


# --- from outside ---------------------------------------------------------------------------------


def values(
    mlp: GatedMLP,
    incidence: Incidence,
    summing: Summing | None,
    table: Tensor,
    own: Tensor | None,
    weights: Tensor | None,
) -> Tensor:
    """(m, 64) values of a GatedMLP, or (n_owner, 64) sums of them; no gradient is kept."""
    arguments, options = _arguments(mlp, incidence, summing, table, own, weights)
    # Angles have too few rows an owner to fill a tile: their sum is a pass of its own.
    if summing is not None and own is None:
        out = table.new_empty(summing.owner.n_table, WIDTH)
        if len(out):
            _sums_kernel[(len(out),)](
                out, summing.owner.starts, *arguments, **options, TILE=_ROWS_PER_TILE
            )
        return out
    n = len(incidence)
    out = table.new_empty(n, WIDTH)
    if n:
        options |= {"SUMMED": summing is not None, "TILE": _ROWS_PER_TILE}
        _rows_kernel[(triton.cdiv(n, _ROWS_PER_TILE),)](out, *arguments, n, **options)
    return out if summing is None else summing.owner.scatter(out)


def slopes(
    slope: Tensor,
    mlp: GatedMLP,
    incidence: Incidence,
    summing: Summing | None,
    table: Tensor,
    own: Tensor | None,
    weights: Tensor | None,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Gradients of the table, of ``own`` and of ``weights`` from that of ``values``."""
    n = len(incidence)
    h_slope = table.new_empty(n, 2 * WIDTH)
    own_slope = None if own is None else torch.empty_like(own)
    weight_slope = None if summing is None else table.new_empty(n, WIDTH)
    if n:
        arguments, options = _arguments(mlp, incidence, summing, table, own, weights)
        _slopes_kernel[(triton.cdiv(n, _ROWS_PER_TILE),)](
            h_slope,
            h_slope if own_slope is None else own_slope,
            h_slope if weight_slope is None else weight_slope,
            slope.contiguous(),
            incidence.index if summing is None else summing.owner.index,
            *arguments,
            n,
            **options,
            SUMMED=summing is not None,
            TILE=_ROWS_PER_TILE,
        )
    if summing is not None and weight_slope is not None:
        weight_slope = summing.weight.scatter(weight_slope)
    return incidence.scatter(h_slope), own_slope, weight_slope


def _arguments(
    mlp: GatedMLP,
    incidence: Incidence,
    summing: Summing | None,
    table: Tensor,
    own: Tensor | None,
    weights: Tensor | None,
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What all kernels take. Where a tensor is absent, the table stands for it and is not read."""

    def given(tensor: Tensor | None) -> Tensor:
        return table if tensor is None else tensor.contiguous()

    options = {
        "K": incidence.index.shape[1],
        "OWN": own is not None,
        "DEEP": mlp.second is not None,
        "NORM": mlp.core_norm.weight is not None,
        **LAUNCH,
    }
    return (
        table.contiguous(),
        incidence.index,
        given(own),
        given(mlp.own),
        mlp.packed,
        given(weights),
        incidence.index if summing is None else summing.weight.index,
    ), options


@functools.cache
def why_not(device: torch.device, *, has_norms: bool) -> str | None:
    """Why the kernels cannot be used on this device, or None where they agree with torch there.

    ``has_norms``: which of the two kinds of network is meant; compiling takes seconds, once a
    machine.
    """
    try:
        largest = fused_disagreement(device, has_norms=has_norms)
    except Exception as error:  # whatever a compiler or a driver can say; torch then does the work
        return f"Triton {triton.__version__} fails here: {type(error).__name__}: {error}"
    if not largest < _AGREEMENT:
        return f"Triton {triton.__version__} gives other numbers here, by {largest:.1e} of them"
    return None
