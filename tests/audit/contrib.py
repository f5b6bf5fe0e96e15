"""NumPy formulas of ONNX Runtime's own ops, as its documentation states them, in the type of the input."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun


def normal_gelu(x: Any, by_tanh: bool = False) -> Any:
    """Return x · Φ(x), or its approximation by tanh."""
    if by_tanh:
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))
    return 0.5 * x * (1 + np.vectorize(math.erf, otypes=[x.dtype])(x * math.sqrt(0.5)))


def _normal(x: Any, epsilon: float, *, centre: bool) -> Any:
    x = x - x.mean(-1, keepdims=True) if centre else x
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + epsilon)


class _Contrib(OpRun):
    op_domain = "com.microsoft"


class Gelu(_Contrib):
    """x · Φ(x)."""

    def _run(self, x: Any, approximate: Any = None) -> Any:
        return (normal_gelu(x),)


class BiasGelu(_Contrib):
    """Gelu of x + bias."""

    def _run(self, x: Any, bias: Any) -> Any:
        return (normal_gelu(x + bias),)


class FastGelu(_Contrib):
    """The approximation of Gelu by tanh."""

    def _run(self, x: Any, bias: Any = None) -> Any:
        x = x if bias is None else x + bias
        return (normal_gelu(x, True),)


class QuickGelu(_Contrib):
    """x · sigmoid(alpha · x); alpha is a float32."""

    def _run(self, x: Any, alpha: Any = None) -> Any:
        alpha = np.float64(np.float32(1.702 if alpha is None else alpha))
        return ((x * np.exp(-np.logaddexp(0, -alpha * x))).astype(x.dtype),)


class FusedMatMul(_Contrib):
    """alpha · a · b, with the last axes of each transposed on request."""

    def _run(self, a: Any, b: Any, alpha: Any = None, transA: Any = 0, transB: Any = 0) -> Any:
        a, b = (np.swapaxes(t, -1, -2) if flag else t for t, flag in ((a, transA), (b, transB)))
        return (a @ b * a.dtype.type(1.0 if alpha is None else alpha),)


class SkipLayerNormalization(_Contrib):
    """A LayerNormalization of x + skip + bias."""

    def _run(
        self, x: Any, skip: Any, gamma: Any, beta: Any = None, bias: Any = None, epsilon: Any = None
    ) -> Any:
        total = x + skip if bias is None else x + skip + bias
        epsilon = np.float64(np.float32(1e-12 if epsilon is None else epsilon))
        y = _normal(total, epsilon, centre=True) * gamma
        return ((y if beta is None else y + beta).astype(x.dtype),)


class SkipSimplifiedLayerNormalization(_Contrib):
    """An RMSNormalization of x + skip + bias."""

    def _run(self, x: Any, skip: Any, gamma: Any, bias: Any = None, epsilon: Any = None) -> Any:
        total = x + skip if bias is None else x + skip + bias
        epsilon = np.float64(np.float32(1e-12 if epsilon is None else epsilon))
        return ((_normal(total, epsilon, centre=False) * gamma).astype(x.dtype),)


CONTRIB: list[type[OpRun]] = [
    BiasGelu,
    FastGelu,
    FusedMatMul,
    Gelu,
    QuickGelu,
    SkipLayerNormalization,
    SkipSimplifiedLayerNormalization,
]
"""Every formula; the op has the name of the class."""
