"""Ops that pick or reorder elements by what tensors hold: Compress, Unique, ReverseSequence."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from analyzer.ops.indexing import ungather
from analyzer.ops.registry import Homogeneous, register
from analyzer.ops.support import rank_of, scatter_flat

_SECOND = frozenset({1})


def _unpick(op, g, x, indices, axis):
    """Add what was picked at a vector of indices, along an axis or from the flat tensor, to zeros like x."""
    if axis is None:
        return scatter_flat(op, g, indices, x)
    known_rank = indices if indices.shape is not None else replace(indices, shape=(None,))
    return ungather(op, g, x, known_rank, axis % rank_of(x))


@register
class Compress(Homogeneous):
    inactive = _SECOND

    def torch(torch, x, condition, *, axis):
        indices = torch.nonzero(condition).reshape(-1)
        return x.reshape(-1)[indices] if axis is None else x.index_select(axis, indices)

    def tensorflow(tf, x, condition, *, axis):
        indices = tf.reshape(tf.where(condition), [-1])
        return tf.gather(tf.reshape(x, [-1]), indices) if axis is None else tf.gather(x, indices, axis=axis)

    def vjp(op, g, y, x, condition, *, axis):
        return lambda: _unpick(op, g, x, op.Squeeze(op.NonZero(condition), [0]), axis), None


@register
class Unique(Homogeneous):
    several_outputs = True

    # Of equal elements the first is taken, and has the gradient.
    def torch(torch, x, *, axis, sorted):
        # NumPy has no bfloat16 of its own.
        wide = x.detach().cpu().to(torch.float32 if x.dtype == torch.bfloat16 else x.dtype)
        found = _distinct(wide.numpy(), axis, sorted)
        first, inverse, counts = (torch.as_tensor(array, device=x.device) for array in found)
        y = x.reshape(-1)[first] if axis is None else x.index_select(axis, first)
        return y, first, inverse, counts

    def tensorflow(tf, x, *, axis, sorted):
        first, inverse, counts = (tf.constant(found) for found in _distinct(x.numpy(), axis, sorted))
        y = tf.gather(tf.reshape(x, [-1]), first) if axis is None else tf.gather(x, first, axis=axis)
        return y, first, inverse, counts

    def vjp(op, g, y, x, *, axis, sorted):
        if g[0] is None:
            return (None,)
        return (lambda: _unpick(op, g[0], x, op.forward_output(1), axis),)


def _distinct(x: np.ndarray, axis: int | None, in_order: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where each distinct element stands first, which of them every element is, and how often each occurs."""
    _, first, inverse, counts = np.unique(x, True, True, True, axis=axis)
    if not in_order:
        # By first occurrence.
        order = np.argsort(first)
        first, counts, inverse = first[order], counts[order], np.argsort(order)[inverse]
    return first.astype(np.int64), inverse.reshape(-1).astype(np.int64), counts.astype(np.int64)


@register
class ReverseSequence(Homogeneous):
    inactive = _SECOND

    def torch(torch, x, lengths, *, batch_axis, time_axis):
        times = torch.arange(x.shape[time_axis], device=x.device)
        ends = lengths.to(torch.int64)[:, None]
        indices = torch.where(times < ends, ends - 1 - times, times)
        indices = indices.T if time_axis == 0 else indices
        return x.gather(time_axis, indices.reshape(*indices.shape, *[1] * (x.dim() - 2)).expand(x.shape))

    def tensorflow(tf, x, lengths, *, batch_axis, time_axis):
        return tf.reverse_sequence(x, lengths, time_axis, batch_axis)

    # A reversal is its own inverse.
    def vjp(op, g, y, x, lengths, **attributes):
        return lambda: op.ReverseSequence(g, lengths, **attributes), None
