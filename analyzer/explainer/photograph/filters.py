"""The filters of Pillow, as nodes: the weight of a pixel at a distance from the centre of the resized pixel.

Distances are float64, in units of the larger of the two pixels. Source: Pillow, src/libImaging/Resample.c.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from analyzer.graph.builder import Builder
from analyzer.graph.graph import Tensor


@dataclass(frozen=True)
class Filter:
    """support: the distance from which on the weight is 0. weight: emits the weights of distances."""

    support: float
    weight: Callable[[Builder, Tensor], Tensor]


def _box(op: Builder, x: Tensor) -> Tensor:
    return op.Cast(op.And(op.Greater(x, -0.5), op.LessOrEqual(x, 0.5)), to=op.dtype_of(x))


def _triangle(op: Builder, x: Tensor) -> Tensor:
    return op.Max(op.Sub(1.0, op.Abs(x)), 0.0)


def _hamming(op: Builder, x: Tensor) -> Tensor:
    # Pillow has these two numbers in single precision.
    share, base = (float(np.float32(number)) for number in (0.46, 0.54))
    # ONNX Runtime 1.23 has no cosine in float64.
    cosine = op.Sin(op.Mul(op.Add(x, 0.5), math.pi))
    window = op.Add(op.Mul(cosine, share), base)
    return op.Where(op.Less(op.Abs(x), 1.0), op.Mul(_sinc(op, x), window), 0.0)


def _cubic(op: Builder, x: Tensor) -> Tensor:
    a = -0.5
    x = op.Abs(x)
    near = op.Add(op.Mul(op.Mul(op.Sub(op.Mul(x, a + 2), a + 3), x), x), 1.0)
    far = op.Mul(op.Sub(op.Mul(op.Add(op.Mul(op.Sub(x, 5.0), x), 8.0), x), 4.0), a)
    return op.Where(op.Less(x, 1.0), near, op.Where(op.Less(x, 2.0), far, 0.0))


def _lanczos(op: Builder, x: Tensor) -> Tensor:
    weight = op.Mul(_sinc(op, x), _sinc(op, op.Div(x, 3.0)))
    return op.Where(op.And(op.GreaterOrEqual(x, -3.0), op.Less(x, 3.0)), weight, 0.0)


def _sinc(op: Builder, x: Tensor) -> Tensor:
    zero = op.Equal(x, 0.0)
    angle = op.Where(zero, 1.0, op.Mul(x, math.pi))
    return op.Where(zero, 1.0, op.Div(op.Sin(angle), angle))


FILTERS: Mapping[str, Filter] = {
    "box": Filter(0.5, _box),
    "bilinear": Filter(1.0, _triangle),
    "hamming": Filter(1.0, _hamming),
    "bicubic": Filter(2.0, _cubic),
    "lanczos": Filter(3.0, _lanczos),
}
