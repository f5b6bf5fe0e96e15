"""What the gradients of pools need: true counts, the transposed box filter, and the first maxima of windows."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np

from analyzer.graph.builder import Builder
from analyzer.graph.graph import Tensor
from analyzer.ops.formulas import Emitted, EmittedArrays, size_along
from analyzer.ops.support import cast, pad, reshape_like
from analyzer.ops.windowed import conv_gradient
from analyzer.ops.windowed.windows import WindowAxis, pads_of, window_counts


def tiles(axes: Sequence[WindowAxis], x: Tensor) -> bool:
    """Whether the windows divide x without gap, overlap or rest, and ONNX Runtime compares and resizes its numbers."""
    return x.dtype == np.float32 and all(
        a.kernel == a.stride
        and a.dilation == 1
        and a.before == a.after == 0
        and a.size is not None
        and a.size % a.kernel == 0
        for a in axes
    )


def to_first_maxima(op: Builder, g: Tensor, x: Tensor, y: Tensor, axes: Sequence[WindowAxis]) -> Tensor:
    """The gradient of a MaxPool whose windows tile x: g at the first maximum of each window, in row-major order.

    Every maximum of a window is marked by its rank from the window's end: the first has the highest. Measured on ONNX
    Runtime this takes a half to a third of the time of a scatter by Indices, which keep MaxPool off its fast path.
    """
    kernel = [a.kernel for a in axes]
    scales = np.asarray([1, 1, *kernel], np.float32)

    def spread(t: Tensor) -> Tensor:
        return op.Resize(
            t, None, scales, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"
        )

    ranks = np.arange(np.prod(kernel), 0, -1, dtype=np.float32).reshape(1, 1, *kernel)
    repeats = [1, 1, *[a.size // a.kernel for a in axes if a.size is not None]]
    marked = op.Mul(cast(op, op.Equal(x, spread(y)), x), op.Tile(ranks, repeats))
    highest = op.MaxPool(marked, kernel_shape=kernel, strides=kernel)
    # Elsewhere the mark is 0, and no highest one is.
    return op.Mul(spread(g), cast(op, op.Equal(marked, spread(highest)), x))


def counts(axes: Sequence[WindowAxis], include_pad: int) -> np.ndarray:
    """The number of elements that each window's sum is divided by, shaped like the windows."""
    per_axis = [a.counts(bool(include_pad)) for a in axes]
    return np.asarray(reduce(np.multiply.outer, per_axis), np.float64)


def correction(axes: Sequence[WindowAxis], include_pad: int) -> np.ndarray | None:
    """The kernel's size over the counts; None where every window is whole."""
    whole = float(np.prod([a.kernel for a in axes]))
    found = counts(axes, include_pad)
    return None if bool(np.all(found == whole)) else whole / found


def divide_by_counts(
    op: Builder, g: Tensor, x: Tensor, y: Tensor, axes: Sequence[WindowAxis], include_pad: int, overhang: bool
) -> Tensor:
    """g over the number of elements of its window; with `overhang` windows may reach past the pads."""
    if all(a.size is not None for a in axes):
        found = counts(axes, include_pad)
        if not found.size:
            return g
        if np.all(found == found.flat[0]):
            return op.Mul(g, 1 / float(found.flat[0]))
        return op.Mul(g, np.asarray(1 / found[None, None], x.dtype))
    whole = all(a.before == 0 and a.after == 0 for a in axes)
    if whole and not overhang:
        return op.Mul(g, 1 / float(np.prod([a.kernel for a in axes])))
    xp = EmittedArrays(op, np.int64)
    for position, axis in enumerate(axes, 2):
        before, after = pads_of(op, axis, x, position)
        windows = op.Squeeze(op.Shape(y, start=position, end=position + 1), [0])
        starts = xp.arange(0, Emitted(op, windows)) * axis.stride - before
        count = window_counts(
            xp, axis, starts, size_along(op, x, position), after if include_pad else None
        ).tensor
        trailing = [1] * (len(axes) + 1 - position)
        g = op.Div(g, op.Reshape(cast(op, count, x), [-1, *trailing]))
    return g


def spread_over_windows(op: Builder, g: Tensor, x: Tensor, y: Tensor, axes: Sequence[WindowAxis]) -> Tensor:
    """Add each element of g to every element of x that its window covers: the transposed box filter."""
    if all(a.stride == 1 for a in axes):
        return _box(op, g, axes)
    # Channels become images, so that one kernel of ones serves them all.
    outs = [a.out for a in axes]
    known = [out for out in outs if out is not None]
    open_shape = len(known) < len(outs)
    flat = op.Reshape(g, op.Concat([-1, 1], op.Shape(g, start=2), axis=0) if open_shape else [-1, 1, *known])
    kernel = op.tensor(np.ones((1, 1, *[a.kernel for a in axes]), x.dtype))
    return reshape_like(op, conv_gradient.transposed(op, flat, kernel, x, y, axes, 1), x)


def _box(op: Builder, g: Tensor, axes: Sequence[WindowAxis]) -> Tensor:
    """With stride 1 the sum over the windows that cover an element is itself an average times its size."""
    kernel, spread = [a.kernel for a in axes], [a.dilation for a in axes]
    pads = [a.extent - 1 - (a.before or 0) for a in axes] + [a.extent - 1 - (a.after or 0) for a in axes]
    # Pools take no negative pads, and no pads as wide as the kernel.
    if any(pad < 0 or pad >= k for pad, k in zip(pads, kernel * 2, strict=True)):
        rank = 2 + len(axes)
        g, pads = pad(op, g, pads, range(2, rank), rank), [0] * len(pads)
    average = op.AveragePool(g, kernel_shape=kernel, dilations=spread, pads=pads, count_include_pad=1)
    return op.Mul(average, float(np.prod(kernel)))
