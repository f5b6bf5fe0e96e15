"""Col2Im: windows added up to an image, in any number of axes.

Refuses, in its gradient, an image or a window whose size is computed while running, and dilated windows of other
than two axes, which ONNX Runtime computes wrongly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from analyzer.errors import UnsupportedOp
from analyzer.graph.builder import Builder
from analyzer.graph.fixes import TRACED
from analyzer.graph.graph import Tensor
from analyzer.ops.eager import Composed
from analyzer.ops.registry import Homogeneous, register
from analyzer.ops.support import constant_ints, filled, reshape_like
from analyzer.ops.windowed.windows import windows


def _positions(image: Sequence[int], block: Sequence[int], **geometry: Any) -> np.ndarray:
    """The flat position in the image of every tap of every window, (taps · windows); one past it in the padding."""
    inside = np.ones([1] * 2 * len(image), bool)
    flat = np.zeros_like(inside, np.int64)
    axes = windows(image, block, **geometry)
    for i, axis in enumerate(axes):
        shape = [1] * 2 * len(image)
        shape[i], shape[len(image) + i] = axis.kernel, -1
        along = axis.taps().T.reshape(shape)
        inside = inside & (along >= 0) & (along < image[i])
        flat = flat * image[i] + along
    return np.where(inside, flat, int(np.prod(image))).reshape(-1)


def _known(image_shape: Tensor, block_shape: Tensor) -> tuple[list[int], list[int]]:
    image, block = constant_ints(image_shape), constant_ints(block_shape)
    if image is None or block is None:
        raise UnsupportedOp(
            f"Col2Im: the sizes of the image or of its windows are computed while running. {TRACED}"
        )
    return image, block


def _col2im(
    op: Builder, x: Tensor, image_shape: Tensor, block_shape: Tensor, **geometry: Sequence[int]
) -> Tensor:
    image, block = _known(image_shape, block_shape)
    positions = _positions(image, block, **geometry)
    # (taps · windows, N, C), to be added as whole slabs; the last slab is what falls into the padding.
    slabs = op.Transpose(op.Reshape(x, [0, -1, len(positions)]), perm=[2, 0, 1])
    blank = filled(op, op.Concat([int(np.prod(image)) + 1], op.Shape(slabs, start=1), axis=0), 0, x)
    added = op.ScatterND(blank, positions[:, None], slabs, reduction="add")
    pixels = op.Slice(added, [0], [-1], [0])
    return op.Reshape(op.Transpose(pixels, perm=[1, 2, 0]), [0, 0, *image])


@register
class Col2Im(Homogeneous):
    inactive = frozenset({1, 2})
    torch = tensorflow = Composed(_col2im)

    def vjp(op, g, y, x, image_shape, block_shape, **geometry):
        if len(geometry["dilations"] or [1, 1]) != 2 and max(geometry["dilations"]) > 1:
            raise UnsupportedOp(
                f"Col2Im: ONNX Runtime misplaces the channels of dilated windows that are not planes. {TRACED}"
            )

        def of_x():
            positions = _positions(*_known(image_shape, block_shape), **geometry)
            padded = op.Pad(op.Reshape(g, [0, 0, -1]), [0, 1], None, [2])
            return reshape_like(op, op.Gather(padded, positions, axis=2), x)

        return of_x, None, None
