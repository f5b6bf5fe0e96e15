"""Resize a photograph by one of Pillow's filters, to the very bytes of Pillow, as nodes.

From uint8 (N, height, width, 3) to the bytes that the network sees, as float32 (N, h, 3, w). Pillow resizes one axis
and then the other, and rounds to bytes after each of them: the order decides some of the last bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from onnx import TensorProto, helper

from analyzer.explainer.photograph.bands import Bands, find_bands, rounded
from analyzer.explainer.photograph.filters import FILTERS
from analyzer.explainer.photograph.geometry import Axis
from analyzer.graph.builder import Builder
from analyzer.graph.graph import Tensor

# Blocks of so many results: larger ones multiply by more zeros, smaller ones read more pixels twice.
_ROWS, _MOST_BLOCKS = 8, 32


def filtered(op: Builder, image: Tensor, axes: Sequence[Axis], interpolation: str) -> Tensor:
    """Emit the resized photograph. axes: of the height and of the width."""
    high, wide = (axis.size for axis in axes)
    down, along = (
        find_bands(
            op, axis.to_input(op), FILTERS[interpolation], _blocks(axis.size), bytewise=True, transposed=last
        )
        for axis, last in zip(axes, (False, True), strict=True)
    )

    def width_first(op: Builder) -> Tensor:
        rows = op.Slice(image, down.first, down.last, [1])
        rows = op.Reshape(_along(op, rows, along, wide), [0, 0, 3 * wide])
        return op.Reshape(_down(op, rows, down, high, down.first), [0, high, 3, wide])

    def height_first(op: Builder) -> Tensor:
        columns = op.Slice(image, along.first, along.last, [2])
        shape = op.Concat([0, high], op.Sub(along.last, along.first), [3], axis=0)
        columns = _down(op, op.Reshape(columns, [0, 0, -1]), down, high)
        return _along(op, op.Reshape(columns, shape), along, wide, along.first)

    if not _reverses():
        return width_first(op)
    found = _branch(op, _is_tall(op, axes), height_first, width_first)
    return op.Reshape(found, [0, high, 3, wide])


def _along(op: Builder, pixels: Tensor, bands: Bands, size: int, start: Tensor | None = None) -> Tensor:
    """Resize axis 2 of (N, H, W, 3), which begins at `start` of the photograph. Returns (N, H, 3, size)."""
    parts = []
    for begin, end, weights in zip(bands.begins, bands.ends, bands.weights, strict=True):
        block = op.Transpose(_block(op, pixels, begin, end, 2, start), perm=[0, 1, 3, 2])
        parts.append(op.MatMul(op.Cast(block, to=TensorProto.FLOAT), weights))
    blocks, rows = _blocks(size), _rows(size)
    sums = op.Reshape(op.Concat(*parts, axis=-1), [0, 0, 3, blocks, 2, rows])
    return _first(op, op.Reshape(_bytes(op, sums, 4), [0, 0, 3, blocks * rows]), size, 3)


def _down(op: Builder, pixels: Tensor, bands: Bands, size: int, start: Tensor | None = None) -> Tensor:
    """Resize axis 1 of (N, H, K), which begins at `start` of the photograph. Returns (N, size, K)."""
    parts = []
    for begin, end, weights in zip(bands.begins, bands.ends, bands.weights, strict=True):
        block = op.Cast(_block(op, pixels, begin, end, 1, start), to=TensorProto.FLOAT)
        parts.append(op.MatMul(weights, block))
    blocks, rows = _blocks(size), _rows(size)
    joined = op.Concat(*parts, axis=1)
    width = op.Slice(op.Shape(joined), [2], [3])
    sums = op.Reshape(joined, op.Concat([0, blocks, 2, rows], width, axis=0))
    whole = op.Reshape(_bytes(op, sums, 2), op.Concat([0, blocks * rows], width, axis=0))
    return _first(op, whole, size, 1)


def _block(
    op: Builder, pixels: Tensor, begin: Tensor, end: Tensor, axis: int, start: Tensor | None
) -> Tensor:
    if start is not None:
        begin, end = op.Sub(begin, start), op.Sub(end, start)
    return op.Slice(pixels, begin, end, [axis])


def _rows(size: int) -> int:
    """The results of a block."""
    return -(-size // _blocks(size))


def _blocks(size: int) -> int:
    """Return the number of blocks."""
    return min(-(-size // _ROWS), _MOST_BLOCKS)


def _first(op: Builder, x: Tensor, size: int, axis: int) -> Tensor:
    """Return the results without the padding of the last block."""
    return x if size == _blocks(size) * _rows(size) else op.Slice(x, [0], [size], [axis])


def _bytes(op: Builder, sums: Tensor, axis: int) -> Tensor:
    return rounded(op, *op.emit("Split", (sums, np.asarray([1, 1])), outputs=2, axis=axis))


def _is_tall(op: Builder, axes: Sequence[Axis]) -> Tensor:
    """Return whether the height loses more than twice as many pixels as the width."""
    high, wide = (op.Sub(axis.length, axis.resized) for axis in axes)
    return op.And(op.Greater(high, np.asarray(0)), op.Less(op.Mul(wide, np.asarray(2)), high))


@cache
def _reverses() -> bool:
    """Whether the installed Pillow, which `load_images` calls, resizes the height of tall photographs first."""
    from PIL import Image

    tall = Image.fromarray(
        (np.arange(64 * 9, dtype=np.int64) ** 2 * 97 % 251).astype(np.uint8).reshape(64, 3, 3)
    )
    bilinear = Image.Resampling.BILINEAR
    width_first = tall.resize((5, 64), bilinear).resize((5, 7), bilinear)
    return tall.resize((5, 7), bilinear).tobytes() != width_first.tobytes()


def _branch(
    op: Builder, condition: Tensor, then: Callable[[Builder], Tensor], other: Callable[[Builder], Tensor]
) -> Tensor:
    """Emit one of two subgraphs, each with a float32 result."""
    graphs = []
    for emit in (then, other):
        inner = Builder(op.opset, prefix=f"{op.fresh('If')}/")
        result = emit(inner)
        # Constants are stored with those of the graph.
        op.initializers.update(inner.initializers)
        info = helper.make_tensor_value_info(result.name, TensorProto.FLOAT, None)
        graphs.append(helper.make_graph(inner.nodes, inner.prefix.rstrip("/"), [], [info]))
    found = op.fresh("If")
    op.write("If", [condition.name], [found], name=found, then_branch=graphs[0], else_branch=graphs[1])
    return Tensor(found, np.dtype(np.float32))
