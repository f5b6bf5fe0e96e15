"""Quantized layers of ONNX Runtime: dequantize, compute in floats, quantize, as their documentation defines them.

The products of integers stay products of integers (MatMulInteger). The runtime rounds some of these layers
by tables or fixed point: results may differ from its own by one quantum, rarely.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from converters.graph.expansion import Expander, expands
from converters.passes.fused.attention import MASKED, attended_heads

FLOAT = 1


def _dequantized(op: Expander, x: str, scale: str, zero: str | None, axis: int | None = None) -> str:
    return str(op.DequantizeLinear(x, scale, *([zero] if zero else []), axis=axis))


def _quantized(op: Expander, y: str, scale: str, zero: str | None) -> str:
    if not zero:
        # The type of the result would be a guess, and ONNX Runtime itself does not run the node.
        raise op.refuse("has no zero point for its result")
    return str(op.QuantizeLinear(y, scale, zero))


def _binary(op_type: str) -> Callable[..., str]:
    def expansion(
        op: Expander,
        a: str,
        a_scale: str,
        a_zero: str | None,
        b: str,
        b_scale: str,
        b_zero: str | None,
        c_scale: str,
        c_zero: str | None = None,
    ) -> str:
        y = getattr(op, op_type)(_dequantized(op, a, a_scale, a_zero), _dequantized(op, b, b_scale, b_zero))
        return _quantized(op, y, c_scale, c_zero)

    return expansion


def _unary(op_type: str) -> Callable[..., str]:
    def expansion(
        op: Expander,
        x: str,
        x_scale: str,
        x_zero: str | None,
        y_scale: str,
        y_zero: str | None = None,
        *,
        channels_last: int = 0,
        **attributes: Any,
    ) -> str:
        first, back = _channels_first(op, _dequantized(op, x, x_scale, x_zero), x, channels_last)
        return _quantized(op, back(getattr(op, op_type)(first, **attributes)), y_scale, y_zero)

    return expansion


expands("QLinearAdd")(_binary("Add"))
expands("QLinearMul")(_binary("Mul"))
expands("QLinearSigmoid")(_unary("Sigmoid"))
expands("QLinearLeakyRelu")(_unary("LeakyRelu"))
expands("QLinearAveragePool")(_unary("AveragePool"))
expands("QLinearGlobalAveragePool")(_unary("GlobalAveragePool"))


def _channels_first(
    op: Expander, x: str, ranked: str, channels_last: int
) -> tuple[str, Callable[[str], str]]:
    """x with its channels before its other axes, and the way back; `ranked` has x's rank."""
    if not channels_last:
        return x, lambda y: y
    rank = op.rank(ranked)
    there = [0, rank - 1, *range(1, rank - 1)]
    back = [0, *range(2, rank), 1]
    return op.Transpose(x, perm=there), lambda y: str(op.Transpose(y, perm=back))


@expands("QLinearSoftmax")
def q_linear_softmax(
    op: Expander,
    x: str,
    x_scale: str,
    x_zero: str | None,
    y_scale: str,
    y_zero: str | None = None,
    *,
    opset: int,
    axis: int = -1,
) -> str:
    if opset < 13 and axis not in (-1, op.rank(x) - 1):
        raise op.refuse(f"takes the softmax over several axes (opset {opset}), which has no expansion here")
    return _quantized(op, op.Softmax(_dequantized(op, x, x_scale, x_zero), axis=axis), y_scale, y_zero)


@expands("QLinearConcat")
def q_linear_concat(op: Expander, y_scale: str, y_zero: str, *inputs: str, axis: int) -> str:
    triples = zip(inputs[::3], inputs[1::3], inputs[2::3], strict=True)
    parts = [_dequantized(op, x, scale, zero) for x, scale, zero in triples]
    return _quantized(op, op.Concat(*parts, axis=axis), y_scale, y_zero)


@expands("QLinearWhere")
def q_linear_where(
    op: Expander,
    condition: str,
    x: str,
    x_scale: str,
    x_zero: str,
    y: str,
    y_scale: str,
    y_zero: str,
    z_scale: str,
    z_zero: str,
) -> str:
    chosen = op.Where(condition, _dequantized(op, x, x_scale, x_zero), _dequantized(op, y, y_scale, y_zero))
    return _quantized(op, chosen, z_scale, z_zero)


@expands("QLinearConv")
def q_linear_conv(
    op: Expander, x: str, x_scale: str, x_zero: str, *rest: str, channels_last: int = 0, **attributes: Any
) -> str:
    first, back = _channels_first(op, x, x, channels_last)
    return back(op.QLinearConv(first, x_scale, x_zero, *rest, **attributes))


@expands("NhwcMaxPool")
def nhwc_max_pool(op: Expander, x: str, **attributes: Any) -> str:
    first, back = _channels_first(op, x, x, 1)
    return back(op.MaxPool(first, **attributes))


@expands("QuantizeLinear")
def quantize_linear(op: Expander, x: str, scale: str, zero: str | None = None, *, axis: int = 1) -> str:
    return str(op.QuantizeLinear(x, scale, *([zero] if zero else []), axis=axis))


@expands("DequantizeLinear")
def dequantize_linear(op: Expander, x: str, scale: str, zero: str | None = None, *, axis: int = 1) -> str:
    return _dequantized(op, x, scale, zero, axis)


@expands("QGemm")
def q_gemm(
    op: Expander,
    a: str,
    a_scale: str,
    a_zero: str,
    b: str,
    b_scale: str,
    b_zero: str,
    c: str | None = None,
    y_scale: str | None = None,
    y_zero: str | None = None,
    *,
    transA: int = 0,
    transB: int = 0,
    alpha: float = 1.0,
) -> str:
    left = _dequantized(op, a, a_scale, a_zero)
    right = _dequantized(op, b, b_scale, b_zero, axis=0 if transB else 1)
    inputs = [left, right]
    if c:
        # The bias counts in products of the two quanta.
        inputs.append(op.Mul(op.Cast(c, to=FLOAT), op.Mul(op.Mul(a_scale, b_scale), alpha)))
    y = op.Gemm(*inputs, transA=transA, transB=transB, alpha=alpha)
    return _quantized(op, y, y_scale, y_zero) if y_scale else str(y)


@expands("MatMulIntegerToFloat")
def mat_mul_integer_to_float(
    op: Expander,
    a: str,
    b: str,
    a_scale: str,
    b_scale: str,
    a_zero: str | None = None,
    b_zero: str | None = None,
    bias: str | None = None,
) -> str:
    product = op.Cast(op.MatMulInteger(a, b, a_zero, b_zero), to=FLOAT)
    y = op.Mul(product, op.Mul(a_scale, b_scale))
    return str(op.Add(y, bias) if bias else y)


@expands("DynamicQuantizeMatMul")
def dynamic_quantize_mat_mul(
    op: Expander, a: str, b: str, b_scale: str, b_zero: str | None = None, bias: str | None = None
) -> str:
    quantized, scale, zero = op.emit("DynamicQuantizeLinear", [a], outputs=3)
    return str(mat_mul_integer_to_float(op, quantized, b, scale, b_scale, zero, b_zero, bias))


@expands("QAttention")
def q_attention(
    op: Expander,
    x: str,
    weights: str,
    bias: str,
    x_scale: str,
    w_scale: str,
    mask: str | None = None,
    x_zero: str | None = None,
    w_zero: str | None = None,
    *,
    num_heads: int,
    unidirectional: int = 0,
    scale: float = 0.0,
    mask_filter_value: float = MASKED,
) -> str:
    packed = mat_mul_integer_to_float(op, x, weights, x_scale, w_scale, x_zero, w_zero, bias)
    sizes = [op.size(weights, 1) // 3] * 3
    return attended_heads(op, x, packed, sizes, num_heads, mask, mask_filter_value, unidirectional, scale)


@expands("MatMulNBits")
def mat_mul_n_bits(
    op: Expander,
    a: str,
    packed: str,
    scales: str,
    zeros: str | None = None,
    g_idx: str | None = None,
    bias: str | None = None,
    *,
    K: int,
    N: int,
    block_size: int,
    bits: int = 4,
    accuracy_level: int = 0,
    weight_prepacked: int = 0,
) -> str:
    arrays = [op.value(name) if name else None for name in (packed, scales, zeros)]
    if arrays[0] is None or arrays[1] is None or (zeros and arrays[2] is None) or g_idx or weight_prepacked:
        raise op.refuse("has weights that are computed, reordered or prepacked, which has no expansion here")
    if bits not in (2, 4, 8):
        raise op.refuse(f"has weights of {bits} bits, which has no expansion here")
    weight = _unpacked_weight(arrays[0], arrays[1], arrays[2], (N, K), block_size, bits)
    y = op.MatMul(a, np.ascontiguousarray(weight.T))
    return str(op.Add(y, bias) if bias else y)


def _unpacked_weight(
    packed: np.ndarray,
    scales: np.ndarray,
    zeros: np.ndarray | None,
    shape: tuple[int, int],
    block_size: int,
    bits: int,
) -> np.ndarray:
    """The weight (N, K) of codes packed low bits first, in blocks along K with a scale and zero point each."""
    rows, columns = shape
    blocks = -(-columns // block_size)
    codes = _unpacked(packed.reshape(rows, -1), bits).reshape(rows, blocks, -1)[:, :, :block_size]
    if zeros is None:
        offset = np.full((rows, blocks), 1 << (bits - 1), np.float32)
    elif zeros.dtype == np.uint8:
        offset = _unpacked(zeros.reshape(rows, -1), bits)[:, :blocks].astype(np.float32)
    else:
        offset = zeros.reshape(rows, blocks).astype(np.float32)
    factor = scales.reshape(rows, blocks, 1).astype(np.float32)
    weight = (codes.astype(np.float32) - offset[:, :, None]) * factor
    return weight.reshape(rows, -1)[:, :columns].astype(scales.dtype)


def _unpacked(packed: np.ndarray, bits: int) -> np.ndarray:
    """Codes along the last axis, several in a byte, low bits first."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    parts = (packed[..., None] >> shifts) & np.uint8((1 << bits) - 1)
    return parts.reshape(*packed.shape[:-1], -1)
