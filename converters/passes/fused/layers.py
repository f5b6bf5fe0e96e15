"""Convolutions and matrix products with what ONNX Runtime fuses into them, and its copies of standard ops."""

from __future__ import annotations

from typing import Any

from converters.graph.expansion import Expander, expands
from converters.passes.fused.activations import activated


@expands("FusedConv")
def fused_conv(
    op: Expander,
    x: str,
    w: str,
    bias: str | None = None,
    z: str | None = None,
    *,
    activation: str | None = None,
    activation_params: list[float] | None = None,
    **attributes: Any,
) -> str:
    y = op.Conv(x, w, *([bias] if bias else []), **attributes)
    return activated(op, op.Add(y, z) if z else y, activation, activation_params)


@expands("FusedGemm")
def fused_gemm(
    op: Expander,
    a: str,
    b: str,
    c: str | None = None,
    *,
    activation: str | None = None,
    activation_alpha: float | None = None,
    activation_beta: float | None = None,
    activation_gamma: float | None = None,
    **attributes: Any,
) -> str:
    y = op.Gemm(a, b, *([c] if c else []), **attributes)
    given = [p for p in (activation_alpha, activation_beta, activation_gamma) if p is not None]
    return activated(op, y, activation, given)


@expands("FusedMatMul")
def fused_mat_mul(
    op: Expander,
    a: str,
    b: str,
    *,
    transA: int = 0,
    transB: int = 0,
    transBatchA: int = 0,
    transBatchB: int = 0,
    alpha: float = 1.0,
) -> str:
    y = op.MatMul(_transposed(op, a, transA, transBatchA), _transposed(op, b, transB, transBatchB))
    return str(y if alpha == 1 else op.Mul(y, alpha))


@expands("TransposeMatMul")
def transpose_mat_mul(op: Expander, a: str, b: str, **attributes: Any) -> str:
    return str(fused_mat_mul(op, a, b, **attributes))


def _transposed(op: Expander, x: str, swap: int, batch: int) -> str:
    """x with its last two axes swapped, after the first has gone behind those of the batch."""
    if not swap and not batch:
        return x
    axes = list(range(op.rank(x)))
    if len(axes) < 2:
        return x
    if batch:
        axes = [*axes[1:-1], axes[0], axes[-1]]
    if swap:
        axes[-2:] = [axes[-1], axes[-2]]
    return str(op.Transpose(x, perm=axes))


@expands("Trilu")
def trilu(op: Expander, x: str, k: str | None = None, *, upper: int = 1) -> str:
    return str(op.Trilu(x, *([k] if k else []), upper=upper))


@expands("Pad")
def pad(op: Expander, x: str, pads: str, value: str | None = None, *, mode: str = "constant") -> str:
    # The standard takes a scalar and a vector, ONNX Runtime a vector of one, and [1, n] for n pads.
    constant = [op.Reshape(value, [])] if value else []
    return str(op.Pad(x, op.Reshape(pads, [-1]), *constant, mode=mode))


@expands("ExpandDims")
def expand_dims(op: Expander, x: str, axis: str) -> str:
    return str(op.Unsqueeze(x, op.Reshape(op.Cast(axis, to=7), [1])))


@expands("GatherND")
def gather_nd(op: Expander, data: str, indices: str) -> str:
    return str(op.GatherND(data, op.Cast(indices, to=7)))


@expands("Range")
def arange(op: Expander, start: str, limit: str, delta: str | None = None) -> str:
    step = op.Reshape(delta, []) if delta else op.CastLike(op.Constant(value_int=1), start)
    return str(op.Range(op.Reshape(start, []), op.Reshape(limit, []), step))


@expands("Unique")
def unique(op: Expander, x: str) -> tuple[str, str, str]:
    # ONNX Runtime keeps the order of first occurrence; its `idx` is the standard's inverse.
    y, _, inverse, counts = op.emit("Unique", [x], outputs=4, sorted=0)
    return y, inverse, counts
