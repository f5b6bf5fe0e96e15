"""Gather and its kin, TopK, OneHot and NonZero. Scatter is in scatter.py."""

from __future__ import annotations

import numpy as np

from analyzer.graph.builder import Builder
from analyzer.graph.graph import Tensor
from analyzer.ops.registry import Affine, Homogeneous, Kink, PiecewiseConstant, register
from analyzer.ops.support import (
    filled,
    flat_positions,
    ints,
    place,
    rank_of,
    scatter_flat,
    shape_of,
    zeros_like,
)

_INDICES = frozenset({1})


def torch_positions(torch, indices, size, device):
    """Indices as int64, those from the end counted from the start."""
    indices = torch.as_tensor(indices, device=device).to(torch.int64)
    return torch.where(indices < 0, indices + size, indices)


def tf_positions(tf, indices, size):
    indices = tf.cast(indices, tf.int64)
    return tf.where(indices < 0, indices + size, indices)


@register
class Gather(Homogeneous):
    inactive = _INDICES

    def torch(torch, x, indices, *, axis):
        index = torch_positions(torch, indices, x.shape[axis], x.device)
        axis %= x.dim()
        picked = x.index_select(axis, index.reshape(-1))
        return picked.reshape([*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]])

    def tensorflow(tf, x, indices, *, axis):
        return tf.gather(x, tf_positions(tf, indices, x.shape[axis]), axis=axis)

    def vjp(op, g, y, x, indices, *, axis):
        return lambda: ungather(op, g, x, indices, axis % rank_of(x)), None


def ungather(op: Builder, g: Tensor, x: Tensor, indices: Tensor, axis: int) -> Tensor:
    """The transpose of Gather: add each slab of g to zeros shaped like x, where it was taken from."""
    size = x.shape[axis] if x.shape is not None else None
    known = indices.constant
    if known is not None and known.ndim < 2 and isinstance(size, int) and known.size:
        positions = known.reshape(-1) % size
        if np.array_equal(positions, positions[0] + np.arange(known.size)):
            # A run of neighbours, such as one token: pad it.
            run = op.Unsqueeze(g, [axis]) if known.ndim == 0 else g
            shape = tuple(known.size if i == axis else n for i, n in enumerate(x.shape or ()))
            return place(op, run, shape, [int(positions[0])], x, [axis])
    depth = len(known.shape) if known is not None else rank_of(indices)
    rank = rank_of(x)
    # The gathered axis first, so that each index names a whole slab.
    front = [axis, *[i for i in range(rank) if i != axis]]
    inner = [*range(axis, axis + depth), *range(axis), *range(axis + depth, rank - 1 + depth)]
    slabs = op.Transpose(g, perm=inner) if axis else g
    shape_front = op.Gather(shape_of(op, x), front, axis=0) if axis else shape_of(op, x)
    places = op.Unsqueeze(op.Cast(indices, to=7), [-1])
    added = op.ScatterND(filled(op, shape_front, 0, x), places, slabs, reduction="add")
    return op.Transpose(added, perm=np.argsort(front).tolist()) if axis else added


@register
class GatherElements(Homogeneous):
    inactive = _INDICES

    def torch(torch, x, indices, *, axis):
        return x.gather(axis, torch_positions(torch, indices, x.shape[axis], x.device))

    def tensorflow(tf, x, indices, *, axis):
        index = tf_positions(tf, indices, x.shape[axis])
        return tf.gather_nd(x, tf_element_places(tf, index, axis))

    def vjp(op, g, y, x, indices, *, axis):
        return lambda: op.ScatterElements(zeros_like(op, x), indices, g, axis=axis, reduction="add"), None


def tf_element_places(tf, index, axis):
    """The full coordinates of the elements that indices along one axis name."""
    grids = list(np.meshgrid(*[np.arange(size) for size in index.shape], indexing="ij"))
    grids = [tf.constant(grid, tf.int64) for grid in grids]
    grids[axis % len(grids)] = index
    return tf.stack(grids, -1)


@register
class GatherND(Homogeneous):
    inactive = _INDICES

    def torch(torch, x, indices, *, batch_dims):
        index = torch.as_tensor(indices, device=x.device).to(torch.int64)
        lead = [
            torch.arange(x.shape[i], device=x.device).reshape(
                [-1 if j == i else 1 for j in range(index.dim() - 1)]
            )
            for i in range(batch_dims)
        ]
        return x[(*lead, *index.unbind(-1))]

    def tensorflow(tf, x, indices, *, batch_dims):
        width = indices.shape[-1]
        sizes = tf.constant(list(x.shape)[batch_dims : batch_dims + width], tf.int64)
        return tf.gather_nd(x, tf_positions(tf, indices, sizes), batch_dims=batch_dims)

    def vjp(op, g, y, x, indices, *, batch_dims):
        def of_x():
            if batch_dims == 0:
                return op.ScatterND(zeros_like(op, x), indices, g, reduction="add")
            positions = op.GatherND(flat_positions(op, x), indices, batch_dims=batch_dims)
            return scatter_flat(op, g, positions, x)

        return of_x, None


@register
class TopK(Homogeneous):
    kinks = (Kink("equal values, not all among the k", "the first of them"),)

    several_outputs = True
    inactive = _INDICES

    def torch(torch, x, k, *, axis, largest, sorted):
        # A stable sort: of equal values the one of lower index comes first, as ONNX asks.
        values, indices = torch.sort(x, dim=axis, descending=bool(largest), stable=True)
        count = ints(k)[0]
        return values.narrow(axis, 0, count), indices.narrow(axis, 0, count)

    def tensorflow(tf, x, k, *, axis, largest, sorted):
        direction = "DESCENDING" if largest else "ASCENDING"
        order = tf.argsort(x, axis, direction, stable=True)
        indices = tf.cast(tf.gather(order, range(ints(k)[0]), axis=axis), tf.int64)
        return tf.gather_nd(x, tf_element_places(tf, indices, axis)), indices

    def vjp(op, g, y, x, k, *, axis, largest, sorted):
        if g[0] is None:
            return None, None
        return (
            lambda: op.ScatterElements(
                zeros_like(op, x), op.forward_output(1), g[0], axis=axis, reduction="add"
            ),
            None,
        )


@register
class OneHot(Affine):
    inactive = frozenset({0, 1})

    def torch(torch, indices, depth, values, *, axis):
        hot = _one_hot(np.asarray(indices.detach().cpu()), ints(depth)[0], axis)
        return torch.where(torch.as_tensor(hot, device=values.device), values[1], values[0])

    def tensorflow(tf, indices, depth, values, *, axis):
        return tf.where(_one_hot(np.asarray(indices), ints(depth)[0], axis), values[1], values[0])

    def vjp(op, g, y, indices, depth, values, *, axis):
        def of_values():
            mask = op.OneHot(indices, depth, np.asarray([0, 1], values.dtype), axis=axis)
            on = op.ReduceSum(op.Mul(g, mask), keepdims=0)
            return op.Concat(
                op.Unsqueeze(op.Sub(op.ReduceSum(g, keepdims=0), on), [0]), op.Unsqueeze(on, [0]), axis=0
            )

        return None, None, of_values

    # Linear in `values`, its only active input.
    def residual(op, active, y, *inputs, **attributes):
        return None


def _one_hot(indices: np.ndarray, depth: int, axis: int) -> np.ndarray:
    where = axis % (indices.ndim + 1)
    wrapped = np.expand_dims(np.mod(indices.astype(np.int64), depth), where)
    outside = np.expand_dims((indices < -depth) | (indices >= depth), where)
    levels = np.arange(depth).reshape([-1 if i == where else 1 for i in range(indices.ndim + 1)])
    return (wrapped == levels) & ~outside


@register
class NonZero(PiecewiseConstant):
    def torch(torch, x):
        return torch.nonzero(x).T

    def tensorflow(tf, x):
        nonzero = x if x.dtype == tf.bool else tf.not_equal(x, tf.zeros_like(x))
        return tf.transpose(tf.where(nonzero))
