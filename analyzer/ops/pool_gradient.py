"""What averaging pools need besides the sums of their windows: true counts, and the transposed box filter."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np

from analyzer.emitter import Emitter
from analyzer.graph import Shape, Tensor
from analyzer.ops.support import cast, insert_zeros, place
from analyzer.ops.windows import Axis, begin


def counts(axes: Sequence[Axis], include_pad: int) -> np.ndarray:
    """The number of elements that each window's sum is divided by, shaped like the windows."""
    per_axis = [a.counts(bool(include_pad)) for a in axes]
    return np.asarray(reduce(np.multiply.outer, per_axis), np.float64)


def correction(axes: Sequence[Axis], include_pad: int) -> np.ndarray | None:
    """The kernel's size over the counts; None where every window is whole."""
    size = float(np.prod([a.kernel for a in axes]))
    found = counts(axes, include_pad)
    return None if bool(np.all(found == size)) else size / found


def divide_by_counts(
    op: Emitter, g: Tensor, x: Tensor, y: Tensor, axes: Sequence[Axis], include_pad: int, overhang: bool
) -> Tensor:
    """g over the number of elements of its window; with `overhang` windows may reach past the pads."""
    if all(a.size is not None for a in axes):
        found = counts(axes, include_pad)
        if np.all(found == found.flat[0]):
            return op.Mul(g, 1 / float(found.flat[0]))
        return op.Mul(g, np.asarray(1 / found[None, None], x.dtype))
    whole = all(a.before == 0 and a.after == 0 for a in axes)
    if whole and not overhang:
        return op.Mul(g, 1 / float(np.prod([a.kernel for a in axes])))
    for position, axis in enumerate(axes):
        count = _counts_at_run(op, axis, x, y, position + 2, include_pad)
        trailing = [1] * (len(axes) - 1 - position)
        g = op.Div(g, op.Reshape(cast(op, count, x), [-1, *trailing]))
    return g


def _counts_at_run(op: Emitter, a: Axis, x: Tensor, y: Tensor, position: int, include_pad: int) -> Tensor:
    """The counts of one axis whose size is known only when running."""
    size = op.Shape(x, start=position, end=position + 1)
    out = op.Squeeze(op.Shape(y, start=position, end=position + 1), [0])
    before = begin(op, a, x, position)
    starts = op.Mul(op.Range(np.asarray(0), out, np.asarray(1)), [a.stride])
    firsts = op.Unsqueeze(op.Sub(starts, [before] if isinstance(before, int) else before), [1])
    taps = op.Add(firsts, np.arange(a.kernel, dtype=np.int64)[None] * a.dilation)
    low = op.Neg([before] if isinstance(before, int) else before) if include_pad else op.tensor([0])
    high = size
    if include_pad:
        # SAME pads are as wide as the windows need, so that no tap lies behind them.
        high = op.Add(size, [a.after if a.after is not None else a.extent])
    inside = op.And(op.GreaterOrEqual(taps, low), op.Less(taps, high))
    return op.ReduceSum(op.Cast(inside, to=7), [1], keepdims=0)


def spread_over_windows(op: Emitter, g: Tensor, x: Tensor, y: Tensor, axes: Sequence[Axis]) -> Tensor:
    """Add each element of g to every element of x that its window covers: the transposed box filter."""
    places = list(range(2, 2 + len(axes)))
    lead: Shape = x.shape[:2] if x.shape is not None else (None, None)
    outs = [a.out if a.out is not None else None for a in axes]
    shape: Shape = (*lead, *outs)
    begins = [begin(op, a, x, place) for a, place in zip(axes, places, strict=True)]
    if all(a.kernel == a.stride and a.dilation == 1 for a in axes):
        return _repeat(op, g, shape, begins, x, axes)
    spread, shape = insert_zeros(op, g, shape, [1, 1, *[a.stride for a in axes]])
    # Stride 1 from here: the sum over the windows that cover an element is itself an average times its size.
    static = all(a.size is not None and a.before is not None and a.out is not None for a in axes)
    reach = [a.extent - 1 for a in axes]
    if static:
        pads = [r - int(a.before or 0) for r, a in zip(reach, axes, strict=True)]
        pads += [int(a.size or 0) + int(a.before or 0) - int(a.out or 0) * a.stride for a in axes]
        return _box(op, spread, pads, axes)
    full = _box(op, spread, reach + reach, axes)
    return place(op, full, (*lead, *[None] * len(axes)), begins, x, places)


def _box(op: Emitter, t: Tensor, pads: list[int], axes: Sequence[Axis]) -> Tensor:
    """Sums over windows of stride 1."""
    places = list(range(2, 2 + len(axes)))
    kernel, spread = [a.kernel for a in axes], [a.dilation for a in axes]
    # Pools take no negative pads, and no pads as wide as the kernel.
    if any(pad < 0 or pad >= k for pad, k in zip(pads, kernel * 2, strict=True)):
        t, pads = op.Pad(t, pads, None, places), [0] * len(pads)
    size = float(np.prod(kernel))
    average = op.AveragePool(t, kernel_shape=kernel, dilations=spread, pads=pads, count_include_pad=1)
    return op.Mul(average, size)


def _repeat(
    op: Emitter, g: Tensor, shape: Shape, begins: list[int | Tensor], x: Tensor, axes: Sequence[Axis]
) -> Tensor:
    """Windows side by side: every element of g is repeated over its window."""
    behind = [3 + 2 * i for i in range(len(axes))]
    sizes = [size for a in axes for size in (1, a.kernel)]
    wide = op.Expand(op.Unsqueeze(g, behind), [1, 1, *sizes])
    known = [a.out for a in axes]
    grown = [None if out is None else out * a.kernel for out, a in zip(known, axes, strict=True)]
    if all(size is not None for size in grown):
        merged = op.Reshape(wide, [0, 0, *[int(size) for size in grown if size is not None]])
    else:
        merged = op.Reshape(wide, op.Mul(op.Shape(g), [1, 1, *[a.kernel for a in axes]]))
    return place(op, merged, (*shape[:2], *grown), begins, x, list(range(2, 2 + len(axes))))
