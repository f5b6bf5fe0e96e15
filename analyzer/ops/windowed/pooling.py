"""Pools: MaxPool and its inverse MaxUnpool, AveragePool, LpPool and the global ones."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

from analyzer.ops.registry import Homogeneous, Kink, register
from analyzer.ops.support import expand_like, ints, ones, rank_of, scatter_flat, share_among_ties, size_of
from analyzer.ops.windowed import pool_gradient
from analyzer.ops.windowed.windows import windows


def _spatial(x: Any) -> list[int]:
    return list(range(2, len(x.shape)))


def _padded(framework, x, axes, value):
    """x padded so that every window lies within it."""
    widths = [(a.before, a.tail) for a in axes]
    if not any(p for pair in widths for p in pair):
        return x
    if hasattr(framework, "nn") and hasattr(framework.nn, "functional"):
        flat = [p for pair in reversed(widths) for p in pair]
        return framework.nn.functional.pad(x, flat, value=value)
    return framework.pad(x, [(0, 0), (0, 0), *widths], constant_values=value)


def _taps(x, axes):
    """For each position in the kernel: the position, and what every window has there."""
    for position in product(*[range(a.kernel) for a in axes]):
        begins = [k * a.dilation for k, a in zip(position, axes, strict=True)]
        steps = [
            slice(b, b + a.out * a.stride - a.stride + 1, a.stride) for b, a in zip(begins, axes, strict=True)
        ]
        yield position, x[(slice(None), slice(None), *steps)]


def _flat_indices(x, axes, taps, storage_order) -> Any:
    """Flat positions in x of taps (…, out per axis) numbered along the kernel, as NumPy int64."""
    sizes = list(x.shape[2:])
    where = np.unravel_index(taps, [a.kernel for a in axes])
    grids = np.meshgrid(*[np.arange(a.out) for a in axes], indexing="ij")
    places = [
        grid * a.stride - a.before + k * a.dilation for grid, a, k in zip(grids, axes, where, strict=True)
    ]
    order = range(len(axes)) if not storage_order else reversed(range(len(axes)))
    flat = np.zeros_like(taps)
    for i in order:
        flat = flat * sizes[i] + places[i]
    plane = np.arange(taps.shape[0] * taps.shape[1]).reshape(*taps.shape[:2], *ones(len(axes)))
    return flat + plane * int(np.prod(sizes))


@register
class MaxPool(Homogeneous):
    kinks = (Kink("equal maxima in a window", "the first of them, in row-major order"),)

    several_outputs = True

    # Ties: the first maximum is also the one in ONNX Runtime's Indices.
    def torch(torch, x, *, kernel_shape, storage_order, **attributes):
        axes = windows(x.shape[2:], kernel_shape, **attributes)
        dtype = x.dtype
        x = x if dtype.is_floating_point else x.to(torch.float32)
        pool = getattr(torch.nn.functional, f"max_pool{len(axes)}d")
        kernel, steps, spread = [[getattr(a, n) for a in axes] for n in ("kernel", "stride", "dilation")]
        y, index = pool(
            _padded(torch, x, axes, -torch.inf), kernel, steps, 0, spread, False, return_indices=True
        )
        # From a position in the padded plane to one in the whole of x.
        sizes = list(x.shape[2:])
        wide = [a.before + size + a.tail for a, size in zip(axes, sizes, strict=True)]
        places = []
        for a, size in reversed(list(zip(axes, wide, strict=True))):
            places.insert(0, index % size - a.before)
            index = torch.div(index, size, rounding_mode="floor")
        flat = torch.zeros_like(index)
        for i in reversed(range(len(axes))) if storage_order else range(len(axes)):
            flat = flat * sizes[i] + places[i]
        plane = torch.arange(x.shape[0] * x.shape[1], device=x.device).reshape(*x.shape[:2], *ones(len(axes)))
        return y.to(dtype), flat + plane * int(np.prod(sizes))

    def tensorflow(tf, x, *, kernel_shape, storage_order, **attributes):
        axes = windows(x.shape[2:], kernel_shape, **attributes)
        best, taps = None, None
        for number, (_, tap) in enumerate(
            _taps(_padded(tf, x, axes, x.dtype.min if not x.dtype.is_floating else -np.inf), axes)
        ):
            if best is None:
                best, taps = tap, tf.zeros(tap.shape, tf.int64)
                continue
            above = tap > best
            best, taps = tf.where(above, tap, best), tf.where(above, tf.constant(number, tf.int64), taps)
        return best, tf.constant(_flat_indices(x, axes, taps.numpy(), storage_order))

    def vjp(op, g, y, x, *, kernel_shape, storage_order, **attributes):
        if g[0] is None:
            return (None,)
        sizes = x.shape[2:] if x.shape is not None else [None] * len(kernel_shape)
        axes = windows(sizes, kernel_shape, **attributes)

        def of_x():
            if not any(y[1:]) and pool_gradient.tiles(axes, x):
                return pool_gradient.to_first_maxima(op, g[0], x, y[0], axes)
            # Column-major Indices are of no use here: ask once more, in row-major order.
            again = storage_order and op.emit(
                "MaxPool", [x], outputs=2, kernel_shape=kernel_shape, **attributes
            )
            return scatter_flat(op, g[0], again[1] if again else op.forward_output(1), x)

        return (of_x,)


@register
class AveragePool(Homogeneous):
    def torch(torch, x, *, kernel_shape, count_include_pad, **attributes):
        axes = windows(x.shape[2:], kernel_shape, **attributes)
        padded = _padded(torch, x, axes, 0)
        if any(a.dilation > 1 for a in axes):
            y = sum(tap for _, tap in _taps(padded, axes)) / float(np.prod(kernel_shape))
        else:
            pool = getattr(torch.nn.functional, f"avg_pool{len(axes)}d")
            y = pool(padded, [a.kernel for a in axes], [a.stride for a in axes])
        correction = pool_gradient.correction(axes, count_include_pad)
        return y if correction is None else y * torch.as_tensor(correction, dtype=y.dtype, device=y.device)

    def tensorflow(tf, x, *, kernel_shape, count_include_pad, **attributes):
        axes = windows(x.shape[2:], kernel_shape, **attributes)
        taps = [tap for _, tap in _taps(_padded(tf, x, axes, 0), axes)]
        y = tf.add_n(taps) / float(np.prod(kernel_shape))
        correction = pool_gradient.correction(axes, count_include_pad)
        return y if correction is None else y * tf.cast(correction, y.dtype)

    def vjp(op, g, y, x, *, kernel_shape, count_include_pad, **attributes):
        sizes = x.shape[2:] if x.shape is not None else [None] * len(kernel_shape)
        axes = windows(sizes, kernel_shape, **attributes)

        def of_x():
            overhang = bool(attributes["ceil_mode"])
            each = pool_gradient.divide_by_counts(op, g, x, y, axes, count_include_pad, overhang)
            return pool_gradient.spread_over_windows(op, each, x, y, axes)

        return (of_x,)


@register
class LpPool(Homogeneous):
    kinks = (Kink("a window of zeros", "0"), Kink("x = 0, p = 1", "0"))

    def torch(torch, x, *, kernel_shape, p, **attributes):
        axes = windows(x.shape[2:], kernel_shape, **attributes)
        total = sum(tap.abs() ** p for _, tap in _taps(_padded(torch, x, axes, 0), axes))
        safe = torch.where(total > 0, total, torch.ones_like(total))
        return torch.where(total > 0, safe ** (1 / p), torch.zeros_like(total))

    def tensorflow(tf, x, *, kernel_shape, p, **attributes):
        axes = windows(x.shape[2:], kernel_shape, **attributes)
        total = tf.add_n([tf.abs(tap) ** p for _, tap in _taps(_padded(tf, x, axes, 0), axes)])
        safe = tf.where(total > 0, total, tf.ones_like(total))
        return tf.where(total > 0, safe ** (1 / p), tf.zeros_like(total))

    def vjp(op, g, y, x, *, kernel_shape, p, **attributes):
        sizes = x.shape[2:] if x.shape is not None else [None] * len(kernel_shape)
        axes = windows(sizes, kernel_shape, **attributes)

        def of_x():
            positive = op.Greater(y, 0.0)
            scaled = op.Mul(g, op.Pow(op.Where(positive, y, 1.0), 1.0 - p))
            each = op.Where(positive, scaled, 0.0)
            power = op.Mul(op.Sign(x), op.Pow(op.Abs(x), p - 1.0)) if p > 1 else op.Sign(x)
            return op.Mul(pool_gradient.spread_over_windows(op, each, x, y, axes), power)

        return (of_x,)


@register
class GlobalAveragePool(Homogeneous):
    def torch(torch, x):
        return x.mean(_spatial(x), keepdim=True)

    def tensorflow(tf, x):
        return tf.reduce_mean(x, _spatial(x), keepdims=True)

    def vjp(op, g, y, x):
        count = size_of(op, x, list(range(2, rank_of(x))))
        return (lambda: expand_like(op, op.Div(g, count), x),)


@register
class GlobalMaxPool(Homogeneous):
    kinks = (Kink("equal maxima", "shared evenly"),)

    def torch(torch, x):
        return x.amax(_spatial(x), keepdim=True)

    def tensorflow(tf, x):
        return tf.reduce_max(x, _spatial(x), keepdims=True)

    def vjp(op, g, y, x):
        return (lambda: share_among_ties(op, g, y, x, list(range(2, rank_of(x)))),)


@register
class GlobalLpPool(Homogeneous):
    kinks = (Kink("a plane of zeros", "0"), Kink("x = 0, p = 1", "0"))

    def torch(torch, x, *, p):
        total = (x.abs() ** p).sum(_spatial(x), keepdim=True)
        safe = torch.where(total > 0, total, torch.ones_like(total))
        return torch.where(total > 0, safe ** (1 / p), torch.zeros_like(total))

    def tensorflow(tf, x, *, p):
        total = tf.reduce_sum(tf.abs(x) ** p, _spatial(x), keepdims=True)
        safe = tf.where(total > 0, total, tf.ones_like(total))
        return tf.where(total > 0, safe ** (1 / p), tf.zeros_like(total))

    def vjp(op, g, y, x, *, p):
        def of_x():
            share = op.Div(op.Abs(x), op.Where(op.Greater(y, 0.0), y, 1.0))
            return op.Mul(op.Mul(g, op.Sign(x)), op.Pow(share, p - 1.0) if p > 1 else 1.0)

        return (of_x,)


@register
class MaxUnpool(Homogeneous):
    inactive = frozenset({1, 2})

    # Indices are positions in the flat output, as in PyTorch and ONNX Runtime.
    def torch(torch, x, indices, output_shape=None, **attributes):
        shape = _unpooled(x.shape, output_shape, **attributes)
        flat = x.new_zeros(int(np.prod(shape)))
        return flat.index_put((indices.reshape(-1),), x.reshape(-1)).reshape(shape)

    def tensorflow(tf, x, indices, output_shape=None, **attributes):
        shape = _unpooled(x.shape, output_shape, **attributes)
        flat = tf.zeros([int(np.prod(shape))], x.dtype)
        places = tf.reshape(indices, [-1, 1])
        return tf.reshape(tf.tensor_scatter_nd_update(flat, places, tf.reshape(x, [-1])), shape)

    def vjp(op, g, y, x, indices, output_shape=None, **attributes):
        return lambda: op.Gather(op.Reshape(g, [-1]), indices), None, None


def _unpooled(shape, output_shape, *, kernel_shape, pads, strides):
    """The shape that MaxPool with these attributes had made this one of, or the one that is given."""
    if output_shape is not None:
        return ints(output_shape)
    rank = len(kernel_shape)
    pads, strides = pads or [0] * 2 * rank, strides or ones(rank)
    sizes = zip(shape[2:], kernel_shape, strides, pads[:rank], pads[rank:], strict=True)
    return [*shape[:2], *[(size - 1) * s + k - before - after for size, k, s, before, after in sizes]]
