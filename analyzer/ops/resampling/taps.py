"""Where interpolation at given points reads an image, and with what weights, written as ONNX nodes.

A point reads T = t₁·t₂·… pixels, its taps. Their weights are products of one weight per axis, each a polynomial in
the fraction t = p − ⌊p⌋ of the point's coordinate p; so the weights' derivatives are known as well. From taps
follow an image's samples, the transposed map, and the samples' derivatives along the axes.
Positions are in pixels, 0 being the centre of the first; kinks (whole numbers) take the polynomial above them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analyzer.graph.builder import Builder
from analyzer.graph.graph import Tensor
from analyzer.ops.support import axis_size, cast, filled, ones, reshape_like, shape_of

# Keys' coefficient, as in PyTorch and ONNX Runtime.
_A = -0.75
# Row k has the coefficients of tᵏ in the weight of every tap.
_POLYNOMIALS = {
    "nearest": np.asarray([[1.0]]),
    "linear": np.asarray([[1.0, 0.0], [-1.0, 1.0]]),
    "cubic": np.asarray(
        [[0, 1, 0, 0], [_A, 0, -_A, 0], [-2 * _A, -_A - 3, 2 * _A + 3, _A], [_A, _A + 2, -_A - 2, -_A]]
    ),
}
_FIRST = {"nearest": 0, "linear": 0, "cubic": -1}


@dataclass(frozen=True)
class Taps:
    """The taps of P points in each of N images of S pixels.

    rows: (N, P, T), int64, into pixels laid out (N·S, C). weights: (N, P, T). slopes: the derivative of the weights
    along each spatial axis, each (N, P, T).
    """

    rows: Tensor
    weights: Tensor
    slopes: tuple[Tensor, ...]


def take_taps(
    op: Builder, x: Tensor, positions: Sequence[Tensor], mode: str, padding: str, align: int
) -> Taps:
    """The taps at points given by their coordinate along each spatial axis of x, each (N, P, 1).

    padding: what lies outside x, "zeros", "border" or "reflection" (about the outer pixels' centres if `align`,
    else about their edges).
    """
    rank = len(positions)
    images = axis_size(op, x, 0)
    rows = op.Reshape(op.Range(np.asarray(0), op.Squeeze(images, [0]), np.asarray(1)), [-1, *ones(rank + 1)])
    along = []
    for i, position in enumerate(positions):
        size = axis_size(op, x, i + 2)
        index, *factors = _along(op, position, size, mode, padding, align)
        # The taps of this axis on an axis of their own.
        shape = [0, 0, *ones(i), -1, *ones(rank - 1 - i)]
        rows = op.Add(op.Mul(rows, size), op.Reshape(index, shape))
        along.append([op.Reshape(factor, shape) for factor in factors])
    slopes = [_product(op, [along[j][i == j] for j in range(rank)]) for i in range(rank)]
    return Taps(op.Reshape(rows, [0, 0, -1]), _product(op, [weight for weight, _ in along]), tuple(slopes))


def _along(
    op: Builder, position: Tensor, size: Tensor, mode: str, padding: str, align: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Along one axis: the pixels that are read, their weights, and the weights' derivatives, each (N, P, t)."""
    table = _POLYNOMIALS[mode].astype(position.dtype)
    # Of two equally near pixels the even one is nearest, as in PyTorch and ONNX Runtime.
    start = op.Round(position) if mode == "nearest" else op.Floor(position)
    fraction = op.Sub(position, start)
    offsets = np.arange(table.shape[1]) + _FIRST[mode]
    index = op.Add(op.Cast(start, to=7), offsets)
    degrees = np.arange(len(table), dtype=table.dtype)[:, None]
    weights = _polynomial(op, fraction, table)
    slopes = _polynomial(op, fraction, (table * degrees)[1:] if len(table) > 1 else 0 * table)
    last = op.Sub(size, [1])
    if padding == "zeros":
        inside = cast(op, op.And(op.GreaterOrEqual(index, [0]), op.LessOrEqual(index, last)), position)
        weights, slopes = op.Mul(weights, inside), op.Mul(slopes, inside)
    if padding == "reflection":
        index = _reflected(op, index, size, align)
    return op.Max(op.Min(index, last), [0]), weights, slopes


def _polynomial(op: Builder, t: Tensor, table: np.ndarray) -> Tensor:
    """Σ tᵏ·table[k], a value for every column, by Horner's rule."""
    result = op.Add(op.Mul(t, table[:1] * 0), table[-1])
    for row in table[-2::-1]:
        result = op.Add(op.Mul(result, t), row)
    return result


def _reflected(op: Builder, index: Tensor, size: Tensor, align: int) -> Tensor:
    if align:
        # Pixel −1 is pixel 1; an image of one pixel has no period.
        period = op.Max(op.Mul(op.Sub(size, [1]), [2]), [1])
        within = op.Mod(index, period)
        return op.Min(within, op.Sub(period, within))
    within = op.Mod(index, op.Mul(size, [2]))
    return op.Min(within, op.Sub(op.Sub(op.Mul(size, [2]), [1]), within))


def _product(op: Builder, factors: Sequence[Tensor]) -> Tensor:
    """The factors' product, the axes of the taps merged: (N, P, T)."""
    product = factors[0]
    for factor in factors[1:]:
        product = op.Mul(product, factor)
    return op.Reshape(product, [0, 0, -1])


def read(op: Builder, x: Tensor, taps: Taps) -> Tensor:
    """The pixels at the taps: (N, P, T, C)."""
    channels_last = op.Transpose(op.Reshape(x, [0, 0, -1]), perm=[0, 2, 1])
    flat = op.Reshape(channels_last, op.Concat([-1], axis_size(op, x, 1), axis=0))
    return op.Gather(flat, taps.rows, axis=0)


def sample(op: Builder, x: Tensor, taps: Taps, weights: Tensor | None = None) -> Tensor:
    """Interpolate x (N, C, …) at the points, by the taps' weights or others: (N, C, P)."""
    factor = op.Unsqueeze(taps.weights if weights is None else weights, [-1])
    summed = op.ReduceSum(op.Mul(read(op, x, taps), factor), [2], keepdims=0)
    return op.Transpose(summed, perm=[0, 2, 1])


def unsample(op: Builder, g: Tensor, x: Tensor, taps: Taps) -> Tensor:
    """The transpose of `sample`: spread g (N, C, P) over the pixels, in the shape of x."""
    points = op.Unsqueeze(op.Transpose(g, perm=[0, 2, 1]), [2])
    return spread(op, op.Mul(points, op.Unsqueeze(taps.weights, [-1])), x, taps)


def spread(op: Builder, updates: Tensor, x: Tensor, taps: Taps) -> Tensor:
    """The transpose of `read`: add updates (N, P, T, C) to zeros shaped like x."""
    shape, channels = shape_of(op, x), axis_size(op, x, 1)
    pixels = op.ReduceProd(
        op.Concat(op.Slice(shape, [0], [1]), op.Slice(shape, [2], [99]), axis=0), keepdims=1
    )
    blank = filled(op, op.Concat(pixels, channels, axis=0), 0, x)
    added = op.ScatterND(blank, op.Unsqueeze(taps.rows, [-1]), updates, reduction="add")
    by_image = op.Reshape(added, op.Concat(axis_size(op, x, 0), [-1], channels, axis=0))
    return reshape_like(op, op.Transpose(by_image, perm=[0, 2, 1]), x)


def of_positions(op: Builder, g: Tensor, x: Tensor, taps: Taps) -> list[Tensor]:
    """The gradient of each axis's coordinate, (N, P), from the gradient g (N, C, P) of the samples."""
    points = op.Unsqueeze(op.Transpose(g, perm=[0, 2, 1]), [2])
    of_weights = op.ReduceSum(op.Mul(read(op, x, taps), points), [-1], keepdims=0)
    return [op.ReduceSum(op.Mul(of_weights, slope), [-1], keepdims=0) for slope in taps.slopes]


def moved(op: Builder, x: Tensor, taps: Taps, tangents: Sequence[Tensor]) -> Tensor:
    """How the samples change, (N, C, P), as the coordinates move by `tangents`, each (N, P, 1)."""
    parts = [op.Mul(slope, tangent) for slope, tangent in zip(taps.slopes, tangents, strict=True)]
    return sample(op, x, taps, op.Sum(*parts))
