"""ONNX forms of PyTorch ops that the exporter writes wrongly, in part, or not at all.

Read by the exporter: functions from the arguments of an ATen op to ONNX values. `translations` returns them by op.
- scaled_dot_product_attention: a row whose keys are all hidden is zero in PyTorch; any rank.
- _embedding_bag: the exporter unrolls the bags into nested Ifs, on which ONNX Runtime crashes.
- _cdist_forward, diagonal_scatter: the exporter has no form.
- copy: the exporter leaves out that the copied tensor is broadcast.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

_SUM, _MEAN = 0, 1


def translations(torch: Any) -> dict[Any, Callable[..., Any]]:
    """Return the ONNX form of each op, by ATen overload."""
    aten = torch.ops.aten
    return {
        aten.scaled_dot_product_attention.default: _attention,
        aten.embedding_bag.default: _embedding_bag,
        aten.embedding_bag.padding_idx: _embedding_bag,
        aten._embedding_bag.default: _embedding_bag,
        aten._embedding_bag_forward_only.default: _embedding_bag,
        aten._cdist_forward.default: _cdist,
        aten.copy.default: _copy,
        aten.diagonal_scatter.default: _diagonal_scatter,
    }


def _op() -> Any:
    from onnxscript import opset20

    return opset20


def _tensor(value: Any, like: Any = None) -> Any:
    """Return a constant of the type of another value."""
    import onnx_ir

    array = np.asarray(value)
    return _op().Constant(value=onnx_ir.tensor(array if like is None else array.astype(like.dtype.numpy())))


def _attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """Return softmax(q kᵀ · scale + mask) v, with zeros for the rows whose keys are all hidden."""
    from onnxscript.function_libs.torch_lib.ops import nn

    if attn_mask is None and len(query.shape) == 4:
        return nn.aten_scaled_dot_product_attention(
            query, key, value, None, dropout_p, is_causal, scale, enable_gqa
        )
    op, rank, width = _op(), len(query.shape), query.shape[-1]
    if enable_gqa and query.shape[1] != key.shape[1]:
        key, value = nn._attention_repeat_kv_for_group_query(query, key, value)
    if scale is not None or isinstance(width, int):
        root = _tensor(math.sqrt(1 / math.sqrt(width) if scale is None else scale), query)
    else:
        root = op.Sqrt(nn._attention_scale(query))
    turned = op.Transpose(key, perm=[*range(rank - 2), rank - 1, rank - 2])
    scores = op.MatMul(op.Mul(query, root), op.Mul(turned, root))
    if attn_mask is None:
        if is_causal:
            scores = op.Add(scores, nn._causal_attention_mask(query, key))
        return op.MatMul(op.Softmax(scores, axis=-1), value)
    zero, last = _tensor(0.0, query), _tensor([-1])
    if str(attn_mask.dtype) == "BOOL":
        # The lowest number hides as well as -inf does, and keeps the arithmetic finite.
        added = op.Where(attn_mask, zero, _tensor(query.dtype.min, query))
        hidden = op.Not(op.Cast(op.ReduceMax(op.Cast(attn_mask, to=6), last, keepdims=1), to=9))
    else:
        added, lowest = attn_mask, op.ReduceMax(attn_mask, last, keepdims=1)
        hidden = op.Equal(lowest, _tensor(-math.inf, attn_mask))
    weights = op.Where(hidden, zero, op.Softmax(op.Add(scores, added), axis=-1))
    if dropout_p:
        weights, _ = op.Dropout(weights, dropout_p)
    return op.MatMul(weights, value)


def _embedding_bag(
    weight: Any,
    indices: Any,
    offsets: Any,
    scale_grad_by_freq: bool = False,
    mode: int = 0,
    sparse: bool = False,
    per_sample_weights: Any = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Any:
    """Return the sum, mean or maximum of the embeddings in each bag; a bag starts at each offset.

    A bag without an index is zero. Indices equal to `padding_idx` are left out.
    """
    op, axis = _op(), _tensor([0])
    if include_last_offset:
        offsets = op.Slice(offsets, axis, _tensor([-1]))
    starts = op.Cast(op.Unsqueeze(offsets, _tensor([1])), to=7)
    counted = op.Shape(indices)
    positions = op.Range(_tensor(0), op.Squeeze(counted, axis), _tensor(1))
    # The next bag's start ends this one; the last bag takes all that is left.
    following = op.Concat(
        op.Slice(starts, _tensor([1]), _tensor([2**62])), op.Unsqueeze(counted, axis), axis=0
    )
    inside = op.And(op.GreaterOrEqual(positions, starts), op.Less(positions, following))
    if padding_idx is not None and padding_idx >= 0:
        inside = op.And(inside, op.Not(op.Equal(op.Cast(indices, to=7), _tensor(padding_idx))))
    member, rows = op.CastLike(inside, weight), op.Gather(weight, indices)
    size = op.ReduceSum(member, _tensor([1]), keepdims=1)
    if mode in (_SUM, _MEAN):
        if per_sample_weights is not None:
            rows = op.Mul(rows, op.Unsqueeze(per_sample_weights, _tensor([1])))
        result = op.MatMul(member, rows)
        if mode == _MEAN:
            result = op.Div(result, op.Max(size, _tensor(1.0, weight)))
    else:
        lowest = _tensor(weight.dtype.min, weight)
        chosen = op.Where(op.Unsqueeze(inside, _tensor([2])), op.Unsqueeze(rows, axis), lowest)
        largest = op.ReduceMax(chosen, _tensor([1]), keepdims=0)
        result = op.Where(op.Equal(size, _tensor(0.0, weight)), _tensor(0.0, weight), largest)
    counts = op.Cast(op.Squeeze(size, _tensor([1])), to=7)
    return result, positions, counts, counts


def _cdist(x1: Any, x2: Any, p: float, compute_mode: int | None = None) -> Any:
    """Return the p-norm distance between each row of x1 and each row of x2."""
    op, last = _op(), _tensor([-1])
    apart = op.Sub(op.Unsqueeze(x1, _tensor([-2])), op.Unsqueeze(x2, _tensor([-3])))
    if p == 2.0:
        return op.ReduceL2(apart, last, keepdims=0)
    if p == 1.0:
        return op.ReduceL1(apart, last, keepdims=0)
    size = op.Abs(apart)
    if math.isinf(p):
        return op.ReduceMax(size, last, keepdims=0)
    if p == 0.0:
        return op.ReduceSum(op.CastLike(op.Greater(size, _tensor(0.0, x1)), x1), last, keepdims=0)
    total = op.ReduceSum(op.Pow(size, _tensor(p, x1)), last, keepdims=0)
    # The root has no derivative at 0; PyTorch's is 0 there.
    none = op.Equal(total, _tensor(0.0, x1))
    root = op.Pow(op.Where(none, _tensor(1.0, x1), total), _tensor(1.0 / p, x1))
    return op.Where(none, _tensor(0.0, x1), root)


def _copy(self: Any, src: Any, non_blocking: bool = False) -> Any:
    """Return `src` in the shape and type of `self`, into which PyTorch copies it."""
    op = _op()
    cast = src if src.dtype == self.dtype else op.CastLike(src, self)
    alike = [str(size) for size in src.shape] == [str(size) for size in self.shape]
    return op.Identity(cast) if alike else op.Expand(cast, op.Shape(self))


def _diagonal_scatter(self: Any, src: Any, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Any:
    """Return `self` with the diagonal of the axes `dim1` and `dim2` replaced by the last axis of `src`."""
    op, rank = _op(), len(self.shape)
    first, second = dim1 % rank, dim2 % rank
    order = [axis for axis in range(rank) if axis not in (first, second)] + [first, second]
    turned = op.Transpose(self, perm=order)
    rows, columns = (op.Shape(self, start=axis, end=axis + 1) for axis in (first, second))
    zero, one = _tensor(0), _tensor(1)
    row, column = (op.Range(zero, op.Squeeze(size), one) for size in (rows, columns))
    on_diagonal = op.Equal(op.Sub(column, op.Unsqueeze(row, _tensor([1]))), _tensor(offset))
    # Element i of `src` lies in row i where the offset is not negative, else in column i.
    along, axis = (row, [-1]) if offset >= 0 else (column, [-2])
    last = op.Sub(op.Shape(src, start=rank - 2, end=rank - 1), _tensor([1]))
    values = op.Unsqueeze(op.Gather(src, op.Min(along, last), axis=rank - 2), _tensor(axis))
    result = op.Where(on_diagonal, values, turned)
    return op.Transpose(result, perm=[order.index(axis) for axis in range(rank)])
