"""Draw a map as a transparent picture, as nodes: the colours, scale and opacity of analyzer/figures.

From a map (N, h, w) of the input to RGBA (N, height, width, 4) of the photograph, uint8, not premultiplied. The figures
also make the photograph paler, or grey beneath a signed map: over such a ground the picture is that of the figures.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import TensorProto

from analyzer.explainer.photograph.bands import counted, double, vector, whole
from analyzer.figures.heat import PERCENTILE, STRENGTH
from analyzer.figures.palette import sequential, signed_colours
from analyzer.graph.builder import Builder
from analyzer.graph.graph import Tensor

# The steps of a table from 0 to the end of a scale: a multiple of the 256 colours of Matplotlib's maps.
_STEPS = 1024


def overlay(
    op: Builder,
    plane: Tensor,
    size: tuple[Tensor, Tensor],
    restore: Callable[[Tensor], Tensor],
    *,
    signed: bool,
    smoothing: float,
) -> Tensor:
    """Emit the picture of a map, float32 (N, h, w). size: of the map. restore: resizes to the photograph.

    smoothing: the width of a Gaussian, as a share of the short side; 0 for none. NaN and infinite values count as 0.
    """
    plane = op.Where(op.Or(op.IsNaN(plane), op.IsInf(plane)), 0.0, plane)
    if smoothing:
        plane = _smoothed(op, plane, size, smoothing)
    scaled = restore(_scaled(op, plane, size, signed))
    # Signed values go to the nearest entry of the table, others to the one below.
    steps = op.Mul(scaled, float(_STEPS))
    index = op.Cast(op.Add(steps, _STEPS + 0.5) if signed else steps, to=TensorProto.INT32)
    return op.Gather(table(signed), index)


def table(signed: bool) -> np.ndarray:
    """Return the colours with their opacity, (steps, 4) uint8, from the low end of a scale to the high one."""
    if signed:
        values = np.arange(-_STEPS, _STEPS + 1) / _STEPS
        colours, exponent = signed_colours(values), 1.2
    else:
        values = np.minimum((np.arange(_STEPS + 1) + 0.5) / _STEPS, 1)
        colours, exponent = sequential(values), 1.25
        values[0] = 0
    # The exponents of `heat.overlay`.
    opacity = STRENGTH * np.abs(values) ** exponent
    return np.round(255 * np.column_stack([colours, opacity])).astype(np.uint8)


def _smoothed(op: Builder, plane: Tensor, size: tuple[Tensor, Tensor], share: float) -> Tensor:
    """As `heat.smoothed`."""
    width = op.Mul(double(op, op.Min(*size)), share)
    rows, columns = (_gaussian(op, length, width) for length in size)
    return op.MatMul(op.MatMul(rows, plane), op.Transpose(columns, perm=[1, 0]))


def _gaussian(op: Builder, length: Tensor, width: Tensor) -> Tensor:
    """The shares that every pixel, a column, gives to the others, (length, length) float32."""
    pixels = double(op, counted(op, length))
    apart = op.Div(op.Sub(op.Unsqueeze(pixels, [1]), pixels), width)
    weights = op.Exp(op.Mul(op.Mul(apart, apart), -0.5))
    return op.Cast(op.Div(weights, op.ReduceSum(weights, [0])), to=TensorProto.FLOAT)


def _scaled(op: Builder, plane: Tensor, size: tuple[Tensor, Tensor], signed: bool) -> Tensor:
    """As `heat.normalized`: signed in [-1, 1] about 0, others in [0, 1]; a constant map is 0."""
    values = op.Reshape(plane, [0, -1])
    high, most = _highest(op, op.Abs(values) if signed else values, size)
    if signed:
        high = op.Where(op.Equal(high, 0.0), most, high)
        return op.Max(op.Min(op.Div(plane, _not_zero(op, high)), 1.0), -1.0)
    low, least = (op.Neg(one) for one in _highest(op, op.Neg(values), size))
    spread = op.Greater(high, low)
    high, low = op.Where(spread, high, most), op.Where(spread, low, least)
    share = op.Div(op.Sub(plane, low), _not_zero(op, op.Sub(high, low)))
    return op.Clip(share, 0.0, 1.0)


def _not_zero(op: Builder, x: Tensor) -> Tensor:
    return op.Where(op.Equal(x, 0.0), 1.0, x)


def _highest(op: Builder, values: Tensor, size: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """The upper percentile of each sample, interpolated as by NumPy, and the maximum, both (N, 1, 1)."""
    last = op.Sub(op.Mul(*size), np.asarray(1))
    place = op.Mul(double(op, last), PERCENTILE / 100)
    below = op.Floor(place)
    count = op.Add(op.Sub(last, whole(op, below)), np.asarray(1))
    top, _ = op.emit("TopK", (values, vector(op, count)), outputs=2, axis=1)
    before = op.Max(op.Sub(count, np.asarray(2)), np.asarray(0))
    lower, upper, most = (
        op.Unsqueeze(op.Gather(top, vector(op, at), axis=1), [2])
        for at in (op.Sub(count, np.asarray(1)), before, op.tensor(np.asarray(0)))
    )
    share = op.Cast(op.Sub(place, below), to=TensorProto.FLOAT)
    return op.Add(lower, op.Mul(op.Sub(upper, lower), share)), most
