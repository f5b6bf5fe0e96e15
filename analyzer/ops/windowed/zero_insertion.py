"""The gradient of a strided Conv's input as a Conv with stride 1 of g with zeros between its elements.

ONNX Runtime runs Conv, nearest Resize and Mul on blocks of channels (its NCHWc layout). A ConvTranspose leaves that
layout, and so do the ops around it. Zeros come of a product: of g, resized, by an image of ones and zeros, which a
Conv repeats for each channel. Measured with masks on either side, it takes 0.4 to 0.7 of the time for depthwise
kernels. Other kernels would be applied to the zeros, too: there it pays where the kernel is one element, and follows
the Conv.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from analyzer.graph.builder import Builder
from analyzer.graph.graph import Tensor
from analyzer.ops.support import static
from analyzer.ops.windowed.windows import WindowAxis

_BLOCK = 16
"""The channels of a block."""
_END = 2**62
_STRIDES = (1, 2)
"""Of longer strides, too many elements are zeros."""


def by_zeros(
    op: Builder,
    g: Tensor,
    w: Tensor,
    x: Tensor,
    outs: Sequence[Any],
    axes: Sequence[WindowAxis],
    group: int,
) -> Tensor | None:
    """g spread by the kernel over what its windows saw of x; None where that is better done otherwise.

    outs: the spatial sizes of g.
    """
    shape = static(w)
    if shape is None or x.shape is None or g.dtype != np.float32 or len(axes) != 2:
        return None
    depthwise, channels = group > 1 and shape[:2] == (group, 1), shape[1] * group
    single = group == 1 and all(a.kernel == 1 for a in axes)
    if not (depthwise or single) or shape[0] % _BLOCK or channels % _BLOCK:
        return None
    if any(a.stride not in _STRIDES or a.size is None or a.before is None for a in axes):
        return None
    if not all(isinstance(out, int) for out in outs):
        return None
    sizes, steps = [out * a.stride for out, a in zip(outs, axes, strict=True)], [a.stride for a in axes]
    before = [a.extent - 1 - int(a.before or 0) for a in axes]
    after = [
        int(a.size or 0) - size - first + a.extent - 1
        for a, size, first in zip(axes, sizes, before, strict=True)
    ]
    if single and not any(before + after):
        small = op.Conv(g, op.Transpose(w, perm=[1, 0, 2, 3]))
        return _apart(op, small, channels, steps, x.shape[0], sizes)
    if single or min(before + after) < 0:
        return None
    spread = _apart(op, g, channels, steps, x.shape[0], sizes)
    turned = op.Slice(w, [-1, -1], [-_END, -_END], [2, 3], [-1, -1])
    return op.Conv(spread, turned, pads=before + after, dilations=[a.dilation for a in axes], group=group)


def _apart(
    op: Builder,
    t: Tensor,
    channels: int,
    steps: Sequence[int],
    samples: int | str | None,
    sizes: Sequence[int],
) -> Tensor:
    """t with step − 1 zeros after each element along the spatial axes, whose sizes are then `sizes`."""
    scales = np.asarray([1, 1, *steps], np.float32)
    large = op.Resize(
        t, None, scales, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"
    )
    shape = (samples, channels, *sizes)
    first = np.zeros((1, 1, *sizes), np.float32)
    first[:, :, :: steps[0], :: steps[1]] = 1
    # An image for each sample; shapes that are known to be equal keep the product in blocks.
    images = op.Expand(first, op.Concat(op.Shape(t, start=0, end=1), [1, 1, 1], axis=0))
    grid = op.Conv(images, np.ones((channels, 1, 1, 1), np.float32))
    return op.shaped(op.Mul(op.shaped(large, shape), op.shaped(grid, shape)), shape)
