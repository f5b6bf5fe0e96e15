"""Ops that move elements without touching them, and those that make or read shapes."""

from __future__ import annotations

from functools import cache, partial
from itertools import accumulate
from typing import Any

import numpy as np
from onnx import helper

from analyzer.errors import UnsupportedOp
from analyzer.graph.builder import Builder
from analyzer.graph.fixes import TRACED
from analyzer.graph.graph import Tensor
from analyzer.ops.formulas import size_along, vector
from analyzer.ops.registry import Affine, Homogeneous, PiecewiseConstant, register
from analyzer.ops.support import (
    constant_ints,
    ints,
    is_zero,
    normal_axes,
    rank_of,
    reshape_like,
    static,
    zeros_like,
)

_SECOND = frozenset({1})


@register
class Reshape(Homogeneous):
    inactive = _SECOND

    def torch(torch, x, shape, *, allowzero):
        return x.reshape(_target(x.shape, ints(shape), allowzero))

    def tensorflow(tf, x, shape, *, allowzero):
        return tf.reshape(x, _target(x.shape, ints(shape), allowzero))

    def vjp(op, g, y, x, shape, *, allowzero):
        return lambda: reshape_like(op, g, x), None


def _target(shape: Any, wanted: list[int], allowzero: int) -> list[int]:
    return [shape[i] if size == 0 and not allowzero else size for i, size in enumerate(wanted)]


@register
class Flatten(Homogeneous):
    def torch(torch, x, *, axis):
        return x.reshape(_matrix(x.shape, axis))

    def tensorflow(tf, x, *, axis):
        return tf.reshape(x, _matrix(x.shape, axis))

    def vjp(op, g, y, x, *, axis):
        return (lambda: reshape_like(op, g, x),)


def _matrix(shape: Any, axis: int) -> list[int]:
    axis = axis if axis >= 0 else axis + len(shape)
    return [int(np.prod(shape[:axis], dtype=np.int64)), int(np.prod(shape[axis:], dtype=np.int64))]


@register
class Transpose(Homogeneous):
    def torch(torch, x, *, perm):
        return x.permute(_order(perm, x.dim()))

    def tensorflow(tf, x, *, perm):
        return tf.transpose(x, _order(perm, len(x.shape)))

    def vjp(op, g, y, x, *, perm):
        return (lambda: op.Transpose(g, perm=np.argsort(_order(perm, rank_of(x))).tolist()),)


def _order(perm: list[int] | None, rank: int) -> list[int]:
    return list(perm) if perm is not None else list(reversed(range(rank)))


@register
class Squeeze(Homogeneous):
    inactive = _SECOND

    def torch(torch, x, axes=None):
        drop = _ones_of(x.shape) if axes is None else normal_axes(axes, x.dim())
        return x.reshape([size for i, size in enumerate(x.shape) if i not in drop])

    def tensorflow(tf, x, axes=None):
        drop = _ones_of(x.shape) if axes is None else normal_axes(axes, len(x.shape))
        return tf.reshape(x, [size for i, size in enumerate(x.shape) if i not in drop])

    def vjp(op, g, y, x, axes=None):
        entry = lambda: op.Unsqueeze(g, axes) if axes is not None else reshape_like(op, g, x)  # noqa: E731
        return entry, None


def _ones_of(shape: Any) -> list[int]:
    return [i for i, size in enumerate(shape) if size == 1]


@register
class Unsqueeze(Homogeneous):
    inactive = _SECOND

    def torch(torch, x, axes):
        return x.reshape(_unsqueezed(x.shape, axes))

    def tensorflow(tf, x, axes):
        return tf.reshape(x, _unsqueezed(x.shape, axes))

    def vjp(op, g, y, x, axes):
        return lambda: op.Squeeze(g, axes), None


def _unsqueezed(shape: Any, axes: Any) -> list[int]:
    result = [int(size) for size in shape]
    for axis in normal_axes(axes, len(shape) + len(ints(axes))):
        result.insert(axis, 1)
    return result


@register
class Concat(Affine):
    def torch(torch, *parts, axis):
        return torch.cat(parts, axis)

    def tensorflow(tf, *parts, axis):
        return tf.concat(parts, axis)

    def vjp(op, g, y, *parts, axis):
        axis %= rank_of(parts[0])

        @cache
        def edges():
            return list(accumulate((size_along(op, part, axis) for part in parts), initial=0))

        def piece(index):
            low, high = edges()[index : index + 2]
            return op.Slice(g, vector(op, [low]), vector(op, [high]), [axis])

        return tuple(partial(piece, index) for index in range(len(parts)))

    def residual(op, active, y, *parts, axis):
        if all(moves or is_zero(part) for part, moves in zip(parts, active, strict=True)):
            return None
        kept = [zeros_like(op, part) if moves else part for part, moves in zip(parts, active, strict=True)]
        return op.Concat(*kept, axis=axis)


@register
class Split(Homogeneous):
    several_outputs = True
    inactive = _SECOND

    def torch(torch, x, split=None, *, axis, num_outputs):
        return torch.split(x, _sizes(x.shape[axis], split, num_outputs), axis)

    def tensorflow(tf, x, split=None, *, axis, num_outputs):
        return tf.split(x, _sizes(x.shape[axis], split, num_outputs), axis)

    def vjp(op, g, y, x, split=None, *, axis, num_outputs):
        if len(g) == 1:
            return g[0], None

        def of_x():
            parts = [zeros_like(op, part) if one is None else one for one, part in zip(g, y, strict=True)]
            return op.Concat(*parts, axis=axis)

        return of_x, None


def _sizes(total: int, split: Any, count: int | None) -> list[int]:
    if split is not None:
        return ints(split)
    # Equal parts, the last one smaller where they do not come out even.
    assert count is not None, "Split without sizes needs num_outputs"
    part = -(-total // count)
    return [min(part, total - i * part) for i in range(count)]


@register
class Expand(Homogeneous):
    broadcasts = True
    inactive = _SECOND

    def torch(torch, x, shape):
        return x.expand(torch.broadcast_shapes(x.shape, ints(shape)))

    def tensorflow(tf, x, shape):
        return tf.broadcast_to(x, np.broadcast_shapes(tuple(x.shape), tuple(ints(shape))))

    def vjp(op, g, y, x, shape):
        return g, None


@register
class Tile(Homogeneous):
    inactive = _SECOND

    def torch(torch, x, repeats):
        return x.repeat(ints(repeats))

    def tensorflow(tf, x, repeats):
        return tf.tile(x, ints(repeats))

    def vjp(op, g, y, x, repeats):
        rank, counts, known = rank_of(x), constant_ints(repeats), static(x)

        # Each axis is split into its copies and its elements, and the copies are added.
        def of_x():
            if counts is not None and known is not None:
                pairs = [size for pair in zip(counts, known, strict=True) for size in pair]
            else:
                columns = [op.Unsqueeze(t, [1]) for t in (repeats, op.Shape(x))]
                pairs = op.Reshape(op.Concat(*columns, axis=1), [-1])
            return op.ReduceSum(op.Reshape(g, pairs), list(range(0, 2 * rank, 2)), keepdims=0)

        return of_x, None


@register
class DepthToSpace(Homogeneous):
    def torch(torch, x, *, blocksize, mode):
        return _depth_to_space(torch.reshape, torch.permute, x, blocksize, mode)

    def tensorflow(tf, x, *, blocksize, mode):
        return _depth_to_space(tf.reshape, tf.transpose, x, blocksize, mode)

    # SpaceToDepth undoes the mode DCR; for CRD its channels are put back into order.
    def vjp(op, g, y, x, *, blocksize, mode):
        def of_x():
            depth = op.SpaceToDepth(g, blocksize=blocksize)
            return depth if mode == "DCR" else _reorder(op, depth, x, blocksize)

        return (of_x,)


def _reorder(op: Builder, depth: Tensor, x: Tensor, b: int) -> Tensor:
    channels = x.shape[1] if x.shape is not None else None
    if not isinstance(channels, int):
        raise UnsupportedOp(f"DepthToSpace: the number of channels of {x.name!r} is unknown. {TRACED}")
    order = np.arange(channels).reshape(b * b, channels // (b * b)).T.reshape(-1)
    return op.Gather(depth, order, axis=1)


def _depth_to_space(reshape, permute, x, b, mode):
    n, c, h, w = x.shape
    if mode == "DCR":
        split, order = [n, b, b, c // (b * b), h, w], [0, 3, 4, 1, 5, 2]
    else:
        split, order = [n, c // (b * b), b, b, h, w], [0, 1, 4, 2, 5, 3]
    return reshape(permute(reshape(x, split), order), [n, c // (b * b), h * b, w * b])


@register
class SpaceToDepth(Homogeneous):
    def torch(torch, x, *, blocksize, mode="DCR"):
        return _space_to_depth(torch.reshape, torch.permute, x, blocksize, mode)

    def tensorflow(tf, x, *, blocksize, mode="DCR"):
        return _space_to_depth(tf.reshape, tf.transpose, x, blocksize, mode)

    def vjp(op, g, y, x, *, blocksize, mode="DCR"):
        return (lambda: op.DepthToSpace(g, blocksize=blocksize, mode=mode),)


def _space_to_depth(reshape, permute, x, b, mode):
    n, c, h, w = x.shape
    split = reshape(x, [n, c, h // b, b, w // b, b])
    order = [0, 3, 5, 1, 2, 4] if mode == "DCR" else [0, 1, 3, 5, 2, 4]
    return reshape(permute(split, order), [n, c * b * b, h // b, w // b])


@register
class Trilu(Homogeneous):
    inactive = _SECOND

    def torch(torch, x, k=None, *, upper):
        diagonal = 0 if k is None else ints(k)[0]
        return torch.triu(x, diagonal) if upper else torch.tril(x, diagonal)

    def tensorflow(tf, x, k=None, *, upper):
        rows, columns = x.shape[-2:]
        distance = np.arange(columns)[None] - np.arange(rows)[:, None] - (0 if k is None else ints(k)[0])
        return tf.where(distance >= 0 if upper else distance <= 0, x, tf.zeros_like(x))

    def vjp(op, g, y, x, k=None, *, upper):
        return lambda: op.Trilu(g, k, upper=upper), None


@register
class Shape(PiecewiseConstant):
    def torch(torch, x, *, start, end):
        return torch.tensor(list(x.shape)[start:end], dtype=torch.int64, device=x.device)

    def tensorflow(tf, x, *, start, end):
        return tf.constant(list(x.shape)[start:end], tf.int64)


@register
class Size(PiecewiseConstant):
    def torch(torch, x):
        return torch.tensor(x.numel(), device=x.device)

    def tensorflow(tf, x):
        return tf.constant(int(np.prod(x.shape)), tf.int64)


@register
class ConstantOfShape(PiecewiseConstant):
    def torch(torch, shape, *, value):
        filling = np.zeros(1, np.float32) if value is None else value
        dtype = torch.tensor(filling).dtype
        return torch.full(ints(shape), filling.item(), dtype=dtype, device=shape.device)

    def tensorflow(tf, shape, *, value):
        return tf.fill(
            ints(shape), tf.constant(np.zeros((), np.float32) if value is None else value.reshape(()))
        )


@register
class Constant(PiecewiseConstant):
    def torch(torch, **values):
        return torch.tensor(constant_value(values))

    def tensorflow(tf, **values):
        return tf.constant(constant_value(values))


def constant_value(attributes: dict[str, Any]) -> np.ndarray:
    """The value of a Constant node, whichever of its attributes holds it."""
    for name, value in attributes.items():
        if value is not None:
            dtype = {"value_float": np.float32, "value_floats": np.float32}.get(name)
            return np.asarray(value, dtype or (np.int64 if name.startswith("value_int") else None))
    raise ValueError("a Constant node without a value. Fix: export the model again")


@register
class Range(PiecewiseConstant):
    def torch(torch, start, limit, delta):
        return torch.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype, device=start.device)

    def tensorflow(tf, start, limit, delta):
        return tf.range(start, limit, delta)


@register
class EyeLike(PiecewiseConstant):
    def torch(torch, x, *, dtype, k):
        eye = torch.as_tensor(np.eye(*x.shape, k=k), device=x.device)
        return eye.to(x.dtype if dtype is None else torch.as_tensor(np.zeros(0, _numpy(dtype))).dtype)

    def tensorflow(tf, x, *, dtype, k):
        return tf.constant(
            np.eye(*x.shape, k=k, dtype=x.dtype.as_numpy_dtype if dtype is None else _numpy(dtype))
        )


def _numpy(dtype: int) -> Any:
    return helper.tensor_dtype_to_np_dtype(dtype)
