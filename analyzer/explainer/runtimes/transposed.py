"""Write a transposed convolution as a convolution of its spread input with its flipped weights."""

from __future__ import annotations

import numpy as np

from analyzer.explainer.runtimes.mutable import Writer

_BEGIN = np.iinfo(np.int64).min


def as_convolution(op: Writer) -> str | None:
    """Return the result of a ConvTranspose; None where its sizes are stated otherwise than by pads, or are unknown.

    Between two elements of the input lie stride - 1 zeros. Source: Dumoulin & Visin 2016, relationships 10 to 14.
    """
    x, weights, bias = op.input(0), op.input(1), op.input(2)
    if x is None or weights is None or op.attribute("auto_pad") not in (None, "NOTSET", "VALID"):
        return None
    shape = op.shape(weights)
    if op.attribute("output_shape") or shape is None or not all(isinstance(size, int) for size in shape):
        return None
    sizes = [int(size) for size in shape]  # type: ignore[arg-type]
    spatial, group = len(sizes) - 2, op.attribute("group") or 1
    ones, zeros = [1] * spatial, [0] * spatial
    strides, dilations = (op.attribute(name) or ones for name in ("strides", "dilations"))
    pads, extra = op.attribute("pads") or zeros * 2, op.attribute("output_padding") or zeros
    reach = [dilation * (size - 1) for dilation, size in zip(dilations, sizes[2:], strict=True)]
    before = [full - pad for full, pad in zip(reach, pads[:spatial], strict=True)]
    after = [full - pad + more for full, pad, more in zip(reach, pads[spatial:], extra, strict=True)]
    wide = _padded(op, _spread(op, x, strides), before, after)
    return str(op.Conv(wide, _flipped(op, weights, sizes, group), bias, dilations=dilations, group=group))


def _spread(op: Writer, x: str, strides: list[int]) -> str:
    """Put stride - 1 zeros between the elements along each spatial axis."""
    for axis, stride in enumerate(strides, start=2):
        if stride == 1:
            continue
        rank = len(strides) + 2
        shape = op.Shape(x)
        size = op.Slice(shape, [axis], [axis + 1], [0])
        # (…, n, …) to (…, n, 1, …), padded to (…, n, stride, …), merged to (…, n · stride, …).
        apart = op.Reshape(
            x, op.Concat(*_around(op, shape, axis, rank, op.Concat(size, [1], axis=0)), axis=0)
        )
        filled = op.Pad(apart, [0] * (rank + 1) + [0] * (axis + 1) + [stride - 1] + [0] * (rank - axis - 1))
        merged = op.Concat(*_around(op, shape, axis, rank, op.Mul(size, [stride])), axis=0)
        joined = op.Reshape(filled, merged)
        x = str(op.Slice(joined, [0], op.Sub(op.Mul(size, [stride]), [stride - 1]), [axis]))
    return x


def _around(op: Writer, shape: str, axis: int, rank: int, middle: str) -> list[str]:
    ends = [op.Slice(shape, [0], [axis], [0]), middle]
    return ends if axis == rank - 1 else [*ends, op.Slice(shape, [axis + 1], [rank], [0])]


def _padded(op: Writer, x: str, before: list[int], after: list[int]) -> str:
    """Pad, or crop where the width is negative."""
    axes = range(2, 2 + len(before))
    grown = [max(width, 0) for width in (*before, *after)]
    if any(grown):
        count = len(before)
        x = str(op.Pad(x, [0, 0, *grown[:count], 0, 0, *grown[count:]]))
    for axis, first, last in zip(axes, before, after, strict=True):
        if first < 0 or last < 0:
            x = str(op.Slice(x, [max(-first, 0)], [min(last, 0) or np.iinfo(np.int64).max], [axis]))
    return x


def _flipped(op: Writer, weights: str, sizes: list[int], group: int) -> str:
    """(in, out of a group, *kernel) to (out, in of a group, *kernel), backwards along the kernel."""
    spatial = len(sizes) - 2
    turned = op.Slice(
        weights, [-1] * spatial, [_BEGIN] * spatial, list(range(2, 2 + spatial)), [-1] * spatial
    )
    each = [group, sizes[0] // group, *sizes[1:]]
    swapped = op.Transpose(op.Reshape(turned, each), perm=[0, 2, 1, *range(3, 3 + spatial)])
    return str(op.Reshape(swapped, [group * sizes[1], sizes[0] // group, *sizes[2:]]))
