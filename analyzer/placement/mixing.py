"""Ops that mix elements: convolution and resizing keep the image's axes, a contraction keeps what it does not sum."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction

from analyzer.placement.cells import Cells, alone, cells_of, contracted, merged
from analyzer.placement.lines import Reach, convolving, slid, spread_out, transposed
from analyzer.placement.step import Outcome, PlacedNode, UnknownSize
from analyzer.types import Sizes


def _windowed(step: PlacedNode) -> Outcome:
    """Convolution and pooling along the spatial axes; a convolution sums over channels."""
    assert step.data is not None
    shape, out, node = step.shape(), step.output_shape(), step.node
    rank = len(shape) - 2
    given = node.attributes
    kernel = given.get("kernel_shape") or step.shape(1)[2:]
    strides, dilations = given["strides"] or [1] * rank, given.get("dilations") or [1] * rank
    # Automatic padding keeps the extent, which needs no number; "VALID" has none.
    begins = given["pads"] or [0] * rank
    reach = transposed if node.op_type == "ConvTranspose" else convolving
    axes = {
        2 + k: reach(int(kernel[k]), int(strides[k]), int(begins[k]), int(dilations[k])) for k in range(rank)
    }
    parts = [_convolved(part, axes, shape, out) for part in alone(step.data)]
    known = [part for part in parts if part is not None]
    return _every_output(step, merged(known, out) if known else None)


def _convolved(data: Cells, axes: Mapping[int, Reach], shape: Sizes, out: Sizes) -> Cells | None:
    """The cells of one grid after windows that slide along axes and sum over channels."""
    if any(position.shape[1] > 1 for position in spread_out(data)):
        summed = contracted(data, [1])
        if summed is None:
            return None
        data = summed
    found = slid(data, axes, shape, out)
    # Tokens or windows that are no image of their own: what keeps its size keeps its place.
    return contracted(data, [1]) if found is None and shape[2:] == out[2:] else found


def _every_output(step: PlacedNode, cells: Cells | None) -> Outcome:
    return [cells] * len(step.node.outputs)


def _resized(step: PlacedNode) -> Outcome:
    """Resize: other sizes along the same axes. What reads a box that is given while running has no place."""
    assert step.data is not None
    shape, out = step.shape(), step.output_shape()
    if step.node.attributes["coordinate_transformation_mode"] == "tf_crop_and_resize":
        return None
    parts = [_rescaled(part, shape, out) for part in alone(step.data)]
    known = [part for part in parts if part is not None]
    return merged(known, out) if known else None


def _rescaled(data: Cells, shape: Sizes, out: Sizes) -> Cells | None:
    axes = {k: Reach(Fraction(a, b)) for k, (a, b) in enumerate(zip(shape, out, strict=True)) if a != b}
    return slid(data, axes, shape, out)


def _depth_to_space(step: PlacedNode) -> Outcome:
    """Channels become positions of a finer image: each a part of its cell, where channels have none of their own."""
    assert step.data is not None
    shape, out = step.shape(), step.output_shape()
    if step.data.index.shape[1] == 1:
        if len(step.data.grids) > 1:
            return None
        n, _, *spatial = shape
        return _rescaled(step.data, (n, out[1], *spatial), out)
    n, channels, height, width = shape
    b = int(step.node.attributes["blocksize"])
    if channels % b**2:
        return None
    if step.node.attributes["mode"] == "DCR":
        split, order = (n, b, b, channels // b**2, height, width), (0, 3, 4, 1, 5, 2)
    else:
        split, order = (n, channels // b**2, b, b, height, width), (0, 1, 4, 2, 5, 3)
    return cells_of(step.data.grids, step.full().reshape(split).transpose(order).reshape(out))


def _space_to_depth(step: PlacedNode) -> Outcome:
    """Positions become channels, each with the place that it had."""
    assert step.data is not None
    n, channels, height, width = step.shape()
    b = int(step.node.attributes["blocksize"])
    if height % b or width % b:
        return None
    split = step.full().reshape(n, channels, height // b, b, width // b, b)
    return cells_of(step.data.grids, split.transpose(0, 3, 5, 1, 2, 4).reshape(step.output_shape()))


def _reduced(step: PlacedNode) -> Outcome:
    """A reduction: what is not summed keeps its place."""
    assert step.data is not None
    shape = step.shape()
    if step.node.op_type.startswith("Global"):
        axes = list(range(2, len(shape)))
    else:
        given = step.constant(1)
        named = [] if given is None else [int(axis) % len(shape) for axis in given.reshape(-1)]
        if not named and step.node.attributes.get("noop_with_empty_axes"):
            return step.data
        axes = named or list(range(len(shape)))
    kept = contracted(step.data, axes)
    if kept is None or step.node.op_type.startswith("Global") or step.node.attributes["keepdims"]:
        return kept
    return cells_of(kept.grids, kept.index.squeeze(tuple(axes)))


def _matmul(step: PlacedNode) -> Outcome:
    a, b, out = step.shape(0), step.shape(1), step.output_shape()
    if len(a) == 1 or len(b) == 1:
        return None
    return _product(step, len(a) - 1, len(b) - 2, out)


def _gemm(step: PlacedNode) -> Outcome:
    if step.node.attributes["transA"]:
        return None
    inner = 1 if step.node.attributes["transB"] else 0
    return _product(step, 1, inner, step.output_shape()) if step.parts[0] is not None else None


def _product(step: PlacedNode, inner_a: int, inner_b: int, out: Sizes) -> Outcome:
    """A matrix product keeps its rows: the left factor's place, else the right factor's columns."""
    for index, axis in enumerate((inner_a, inner_b)):
        part = step.parts[index]
        if part is None:
            continue
        kept = contracted(part, [axis])
        if kept is not None:
            # The contracted axis has length 1 now and stands where the other factor's axis comes.
            lead = (1,) * (len(out) - kept.index.ndim)
            return cells_of(kept.grids, kept.index.reshape(lead + kept.index.shape))
    return None


def _einsum(step: PlacedNode) -> Outcome:
    """As a matrix product: the first operand whose cells depend on letters of the output alone."""
    equation = str(step.node.attributes["equation"]).replace(" ", "")
    if "." in equation or "->" not in equation:
        return None
    operands, result = equation.split("->")
    for index, letters in enumerate(operands.split(",")):
        part = step.parts[index]
        if part is None or len(set(letters)) != len(letters):
            continue
        summed = [axis for axis, letter in enumerate(letters) if letter not in result]
        kept = contracted(part, summed)
        if kept is None:
            continue
        axes = [letters.index(letter) for letter in result if letter in letters]
        moved = kept.index.transpose([*axes, *summed]).reshape([kept.index.shape[a] for a in axes])
        shape = iter(moved.shape)
        return cells_of(kept.grids, moved.reshape([next(shape) if x in letters else 1 for x in result]))
    return None


def _recurrent(step: PlacedNode) -> Outcome:
    """A recurrent layer's sequence keeps its steps; its final state has no place."""
    assert step.data is not None
    if step.node.attributes.get("layout"):
        raise UnknownSize
    kept = contracted(step.data, [2])
    if kept is None:
        return None
    y = cells_of(kept.grids, kept.index.reshape(kept.index.shape[0], 1, kept.index.shape[1], 1))
    return [y, *[None] * (len(step.node.outputs) - 1)]


def same_place(step: PlacedNode) -> Outcome:
    """Element by element: from all inputs that have a place."""
    parts = [part for part in step.parts if part is not None]
    out = step.output_shape()
    if any(part.index.ndim > len(out) for part in parts):
        return None
    return _every_output(step, merged(parts, out))


_WINDOWED = ("Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool", "DeformConv")
_REDUCING = (
    *("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2"),
    *("ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp"),
    *("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"),
)

MIXING: dict[str, Callable[[PlacedNode], Outcome]] = {
    **dict.fromkeys(_WINDOWED, _windowed),
    "Resize": _resized,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
    **dict.fromkeys(_REDUCING, _reduced),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _recurrent),
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Einsum": _einsum,
}
