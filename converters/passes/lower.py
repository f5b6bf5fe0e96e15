"""Say in other ops what the canonical opset or the standard's own body cannot say, or says badly.

Rewrites a MutableGraph whose types are inferred: TensorScatter (new in opset 24), CumProd (26), Range in half
precision (27), AffineGrid, whose standard body squeezes the batch away, and LSTM, GRU and RNN with the batch
first, which ONNX Runtime does not run. A node whose sizes the rewriting needs and does not know stays.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, helper

from converters.graph.expansion import Expander, Expansion, Undetermined, expand
from converters.graph.mutable import MutableGraph
from converters.graph.nodes import is_standard

# Slices that go to the end of an axis.
_END = np.iinfo(np.int64).max


def lower_ops(graph: MutableGraph) -> bool:
    """Lower every node that has a rule here. Returns whether there was any."""
    replaced = {}
    known = [node for node in graph.nodes if is_standard(node, *_RULES)]
    for node in known:
        try:
            replaced[id(node)] = expand(graph, node, _RULES[node.op_type])
        except Undetermined:
            continue
    graph.replace(replaced)
    return bool(replaced)


def _tensor_scatter(
    op: Expander, cache: str, update: str, starts: str | None = None, *, axis: int = -2, mode: str = "linear"
) -> str:
    """The update goes to its own write index onwards, per sample, along the sequence axis."""
    rank = op.rank(cache)
    axis %= rank
    length = op.Squeeze(op.Shape(update, start=axis, end=axis + 1), [0])
    steps = op.Range(np.asarray(0), length, np.asarray(1))
    positions = op.Reshape(steps, [1] * axis + [-1] + [1] * (rank - axis - 1))
    if starts is not None:
        positions = op.Add(positions, op.Unsqueeze(starts, list(range(1, rank))))
    if mode == "circular":
        positions = op.Mod(positions, op.Shape(cache, start=axis, end=axis + 1))
    indices = op.Expand(positions, op.Shape(update))
    return str(op.ScatterElements(cache, indices, update, axis=axis))


def _cumulative_product(op: Expander, x: str, axis: str, *, exclusive: int = 0, reverse: int = 0) -> str:
    """Products of 2, 4, 8, … neighbours: few steps, and no division by what may be zero."""
    known, one = op.value(axis), np.asarray(1, op.dtype(x))
    axes = range(op.rank(x)) if known is None else [int(known.item())]
    extent = max((op.size(x, index) for index in axes), default=1)
    along = op.Cast(op.Reshape(axis, [1]), to=TensorProto.INT64)

    def shifted(x: str, count: int) -> str:
        """The factor `count` places before each (behind it, in reverse), one where there is none."""
        padded = op.Pad(x, [0, count] if reverse else [count, 0], one, along)
        return str(op.Slice(padded, *(([count], [_END]) if reverse else ([0], [-count])), along))

    product = shifted(x, 1) if exclusive else x
    count = 1
    while count < extent:
        product = str(op.Mul(product, shifted(product, count)))
        count *= 2
    return product


def _range(op: Expander, start: str, limit: str, delta: str, *, stash_type: int = TensorProto.FLOAT) -> str:
    """In half precision the sum runs in float32, as the standard says, and the result is rounded."""
    if op.dtype(start).name not in ("float16", "bfloat16") or stash_type != TensorProto.FLOAT:
        raise Undetermined("Range of this type is canonical as it is")
    wide = [op.Cast(name, to=TensorProto.FLOAT) for name in (start, limit, delta)]
    return str(op.CastLike(op.Range(*wide), start))


def _affine_grid(op: Expander, theta: str, size: str, *, align_corners: int = 0) -> str:
    """The points of the regular grid, a constant where the size is known, are multiplied by each sample's matrix."""
    rank, known = op.size(theta, 1), op.value(size)
    extents = op.Slice(size, [2], [2 + rank]) if known is None else known[2:]
    shape = op.Concat(extents, [1], axis=0)
    parts = []
    # The grid's coordinates are x, y(, z), the image's axes (depth,) height, width.
    for axis in reversed(range(rank)):
        extent = op.Slice(extents, [axis], [axis + 1])
        centres = op.Reshape(
            _centres(op, extent, bool(align_corners), op.dtype(theta)), [-1] + [1] * (rank - axis)
        )
        parts.append(op.Expand(centres, shape))
    ones = op.Expand(np.ones(1, op.dtype(theta)), shape)
    points = op.Reshape(op.Concat(*parts, ones, axis=-1), [-1, rank + 1])
    moved = op.MatMul(points, op.Transpose(theta, perm=[0, 2, 1]))
    # Written out where it is known: the size's own batch may be another than that of the matrices.
    target = op.Concat([0], extents, [rank], axis=0) if known is None else [0, *known[2:].tolist(), rank]
    return str(op.Reshape(moved, target))


def _centres(op: Expander, extent: str, aligned: bool, dtype: np.dtype[Any]) -> str:
    """Where the pixels of an axis lie in [-1, 1]: their outer edges at the ends, or (aligned) their centres."""
    numbers = op.Range(np.asarray(0), op.Squeeze(extent, [0]), np.asarray(1))
    doubled = op.Sub(op.Mul(numbers, [2]), op.Sub(extent, [1]))
    span = op.Max(op.Sub(extent, [1]), [1]) if aligned else extent
    to = helper.np_dtype_to_tensor_dtype(dtype)
    return str(op.Div(op.Cast(doubled, to=to), op.Cast(span, to=to)))


def _batch_first(
    op: Expander, x: str, *others: str | None, layout: int = 0, **attributes: Any
) -> tuple[str, ...]:
    """A recurrent op with layout=1: Transposes around one whose sequence comes first."""
    if not layout:
        raise Undetermined("a recurrent op with the sequence first is canonical as it is")
    inputs: list[str | None] = [op.Transpose(x, perm=[1, 0, 2]), *others]
    # The initial states, (batch, directions, hidden).
    for index in (5, 6):
        if index < len(inputs) and inputs[index] is not None:
            inputs[index] = op.Transpose(inputs[index], perm=[1, 0, 2])
    outputs = 3 if op.node.op_type == "LSTM" else 2
    y, *ends = op.emit(op.node.op_type, inputs, outputs=outputs, **attributes)
    return op.Transpose(y, perm=[2, 0, 1, 3]), *(op.Transpose(end, perm=[1, 0, 2]) for end in ends)


_RULES: dict[str, Expansion] = {
    "TensorScatter": _tensor_scatter,
    "CumProd": _cumulative_product,
    "Range": _range,
    "AffineGrid": _affine_grid,
    "LSTM": _batch_first,
    "GRU": _batch_first,
    "RNN": _batch_first,
}

LOWERED = frozenset(_RULES)
"""Ops that have a rule here."""
