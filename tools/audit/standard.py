"""NumPy formulas of codes, sampling grids and gates, which the evaluator rounds to float32 or computes otherwise."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun


class AffineGrid(OpRun):
    """Each sample's matrix times the coordinates x, y(, z) of the pixels, in the type of the matrix."""

    def _run(self, theta: Any, size: Any, align_corners: int = 0) -> Any:
        extents = [int(extent) for extent in size[2:]]
        centres = [
            np.linspace(-1, 1, n) if align_corners and n > 1 else (2 * np.arange(n) + 1) / n - 1
            for n in extents
        ]
        if align_corners:
            centres = [np.array([-1.0]) if n == 1 else c for n, c in zip(extents, centres, strict=True)]
        points = np.stack([*np.meshgrid(*centres, indexing="ij")[::-1], np.ones(extents)], -1)
        return (np.einsum("...p,nqp->n...q", points, theta.astype(np.float64)).astype(theta.dtype),)


class QuantizeLinear(OpRun):
    """The nearest code, ties to even: the evaluator overflows where a number is beyond int32."""

    def _run(self, x: Any, scale: Any, zero: Any = None, **others: Any) -> Any:
        zero = np.zeros((), np.uint8) if zero is None else zero
        limits = np.iinfo(zero.dtype)
        codes = np.rint(x / scale) + zero
        return (np.clip(codes, limits.min, limits.max).astype(zero.dtype),)


class DequantizeLinear(OpRun):
    """The number of a code, in the type of the scale."""

    def _run(self, codes: Any, scale: Any, zero: Any = None, **others: Any) -> Any:
        zero = 0 if zero is None else zero.astype(np.int64)
        return (((codes.astype(np.int64) - zero) * scale).astype(scale.dtype),)


class Squeeze(OpRun):
    """The axes may be a scalar, as PyTorch's exporter writes them: the evaluator takes vectors alone."""

    def _run(self, x: Any, axes: Any = None, **others: Any) -> Any:
        return (np.squeeze(x, None if axes is None else tuple(np.asarray(axes).reshape(-1).tolist())),)


class Sigmoid(OpRun):
    """The standard's definition, which is 0 where the exponential overflows: the evaluator's is more exact there."""

    def _run(self, x: Any) -> Any:
        return ((1 / (1 + np.exp(-x))).astype(x.dtype),)


STANDARD: list[type[OpRun]] = [AffineGrid, DequantizeLinear, QuantizeLinear, Sigmoid, Squeeze]
"""Every formula; the op has the name of the class."""
