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
    # Of the standard's own op of the same name the evaluator would take the attributes.
    op_schema = None


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


def _attended(q: Any, k: Any, v: Any, heads: int, scale: Any, added: Any) -> Any:
    """Return softmax(q·kᵀ·scale + added)·v over heads; all are (batch, sequence, heads · size)."""
    q, k, v = (t.reshape(*t.shape[:2], heads, -1).swapaxes(1, 2) for t in (q, k, v))
    factor = np.float64(np.float32(scale)) if scale else 1 / math.sqrt(q.shape[-1])
    scores = q @ k.swapaxes(-1, -2) * factor + added
    raised = np.exp(scores - scores.max(-1, keepdims=True))
    y = raised / raised.sum(-1, keepdims=True) @ v
    return y.swapaxes(1, 2).reshape(len(y), y.shape[2], -1)


class Attention(_Contrib):
    """Attention over projections that one product computes; a mask of keys, and of later positions."""

    def _run(
        self,
        x: Any,
        weights: Any,
        bias: Any = None,
        mask: Any = None,
        num_heads: int = 1,
        unidirectional: Any = 0,
        scale: Any = None,
        mask_filter_value: Any = None,
    ) -> Any:
        packed = x @ weights
        packed = packed if bias is None else packed + bias
        masked = np.float64(np.float32(-10000.0 if mask_filter_value is None else mask_filter_value))
        added: Any = 0.0 if mask is None else np.where(mask[:, None, None, :] == 0, masked, 0.0)
        if unidirectional:
            later = np.triu(np.ones((x.shape[1], x.shape[1]), bool), 1)
            added = added + np.where(later, np.float64(np.finfo(np.float32).min), 0.0)
        return (_attended(*np.split(packed, 3, -1), num_heads, scale, added).astype(x.dtype),)


class MultiHeadAttention(_Contrib):
    """Attention over projections that are given; a mask of keys, and a bias of the scores."""

    def _run(
        self,
        q: Any,
        k: Any,
        v: Any,
        bias: Any = None,
        mask: Any = None,
        scores: Any = None,
        num_heads: int = 1,
        scale: Any = None,
    ) -> Any:
        if bias is not None:
            q, k, v = (t + b for t, b in zip((q, k, v), np.split(bias, 3), strict=True))
        added: Any = 0.0 if mask is None else np.where(mask[:, None, None, :] == 0, -10000.0, 0.0)
        added = added if scores is None else added + scores
        return (_attended(q, k, v, num_heads, scale, added).astype(q.dtype),)


CONTRIB: list[type[OpRun]] = [
    Attention,
    BiasGelu,
    FastGelu,
    FusedMatMul,
    Gelu,
    MultiHeadAttention,
    QuickGelu,
    SkipLayerNormalization,
    SkipSimplifiedLayerNormalization,
]
"""Every formula; the op has the name of the class."""
