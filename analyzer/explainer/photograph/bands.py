"""Resample one axis by products with bands of the weight matrix, which is 0 almost everywhere.

From the positions of the results on an axis to the weights of each block of results, and the range of the axis that
the block reads. A block is one Slice and one MatMul: no float copy of the whole image is made. The positions and
weights are float64, by the arithmetic of Pillow's Resample.c.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from analyzer.explainer.photograph.filters import Filter
from analyzer.graph.builder import Builder
from analyzer.graph.graph import Tensor

PRECISION = 22
"""Bits of the weights of Pillow for images of 8 bits."""
# Sums of bytes times the upper 15 bits, and of bytes times the lower 7, are exact in float32.
_UPPER = 15


@dataclass(frozen=True)
class Positions:
    """Where results lie on an axis. centres: (L,) float64, ascending, in pixels of the axis. step: float64 scalar, the
    pixels of the axis for each result. count: int64 scalar, L. length: int64 scalar, of the axis.
    """

    centres: Tensor
    step: Tensor
    count: Tensor
    length: Tensor


@dataclass(frozen=True)
class Bands:
    """The weights of blocks of results. begins, ends: (1,) of each block, the range that it reads. weights: the matrix
    of each, (rows, band), or its transpose. first, last: (1,), the range that all of them read. count: (1,), the
    results without those that fill the last block.
    """

    begins: Sequence[Tensor]
    ends: Sequence[Tensor]
    weights: Sequence[Tensor]
    first: Tensor
    last: Tensor
    count: Tensor


def vector(op: Builder, scalar: Tensor) -> Tensor:
    """Return a scalar as (1,)."""
    return op.Reshape(scalar, [1])


def double(op: Builder, x: Tensor) -> Tensor:
    """Return a tensor as float64."""
    return op.Cast(x, to=TensorProto.DOUBLE)


def whole(op: Builder, x: Tensor) -> Tensor:
    """Return a tensor as int64, rounded towards 0."""
    return op.Cast(x, to=TensorProto.INT64)


def counted(op: Builder, count: Tensor) -> Tensor:
    """Return the numbers from 0 to a count, int64."""
    return op.Range(np.asarray(0), count, np.asarray(1))


def find_bands(
    op: Builder,
    positions: Positions,
    kernel: Filter,
    blocks: int,
    *,
    transposed: bool,
    bytewise: bool = False,
    where: Tensor | None = None,
) -> Bands:
    """Return the weights of a resampling in so many blocks.

    transposed: return (band, rows) instead of (rows, band), for the last axis of an array.
    bytewise: return Pillow's 22-bit weights for 8-bit images, as two parts for `rounded`; else float32.
    where: (L,) bool, the results to compute; the others are 0. Default: all.
    """
    index = _blocks(op, positions.count, blocks)
    centres = op.Gather(positions.centres, index)
    scale = op.Max(positions.step, 1.0)
    support = op.Mul(scale, kernel.support)
    # As Pillow, which rounds towards 0 and then clips.
    low = op.Max(whole(op, op.Add(op.Sub(centres, support), 0.5)), np.asarray(0))
    high = op.Min(whole(op, op.Add(op.Add(centres, support), 0.5)), positions.length)
    begins = op.Gather(low, np.asarray([0]), axis=1)
    ends = op.Gather(high, np.asarray([-1]), axis=1)
    band = op.ReduceMax(op.Sub(ends, begins), keepdims=0)
    first, last = op.ReduceMin(begins, keepdims=0), op.ReduceMax(ends, keepdims=0)
    begins = op.Min(begins, op.Sub(last, band))
    places = op.Unsqueeze(op.Add(begins, counted(op, band)), [1])
    low, high, centres = (op.Unsqueeze(one, [2]) for one in (low, high, centres))
    distances = op.Add(op.Sub(double(op, places), centres), 0.5)
    weights = kernel.weight(op, op.Mul(distances, op.Div(1.0, scale)))
    weights = op.Where(op.And(op.GreaterOrEqual(places, low), op.Less(places, high)), weights, 0.0)
    weights = op.Div(weights, op.ReduceSum(weights, [2]))
    if where is not None:
        weights = op.Mul(weights, double(op, op.Unsqueeze(op.Gather(where, index), [2])))
    if bytewise:
        weights = op.Concat(*_fixed_point(op, weights), axis=1)
    weights = op.Cast(op.Transpose(weights, perm=[0, 2, 1]) if transposed else weights, to=TensorProto.FLOAT)
    ends = op.Add(begins, band)
    # One Gather for each: ONNX Runtime 1.23 takes no Split into 16 parts of stated sizes.
    numbers = [np.asarray(block) for block in range(blocks)]
    return Bands(
        [op.Gather(begins, block, axis=0) for block in numbers],
        [op.Gather(ends, block, axis=0) for block in numbers],
        [op.Gather(weights, block, axis=0) for block in numbers],
        vector(op, first),
        vector(op, last),
        vector(op, positions.count),
    )


def _blocks(op: Builder, count: Tensor, blocks: int) -> Tensor:
    """The results of each block, (blocks, rows), the last one repeated to fill them."""
    rows = op.Div(op.Add(count, np.asarray(blocks - 1)), np.asarray(blocks))
    index = op.Min(counted(op, op.Mul(rows, np.asarray(blocks))), op.Sub(count, np.asarray(1)))
    return op.Reshape(index, [blocks, -1])


def _fixed_point(op: Builder, weights: Tensor) -> tuple[Tensor, Tensor]:
    """The weights of 22 bits as two summands, whose products with bytes float32 sums exactly."""
    # Half goes away from zero.
    units = op.Mul(op.Floor(op.Add(op.Mul(op.Abs(weights), float(2**PRECISION)), 0.5)), op.Sign(weights))
    low = PRECISION - _UPPER
    upper = op.Floor(op.Add(op.Mul(units, 2.0**-low), 0.5))
    lower = op.Sub(units, op.Mul(upper, float(2**low)))
    return op.Mul(upper, 2.0**-_UPPER), op.Mul(lower, 2.0**-PRECISION)


def rounded(op: Builder, upper: Tensor, lower: Tensor) -> Tensor:
    """Return the bytes, as float32, of two sums: of the products with the upper, and with the lower bits of weights.

    Every step is exact, so that the result is the one of Pillow's integers: half up, then clipped.
    """
    shifted = op.Add(upper, 0.5)
    floor = op.Floor(shifted)
    rest = op.Floor(op.Add(op.Sub(shifted, floor), lower))
    return op.Clip(op.Add(floor, rest), 0.0, 255.0)
