"""Ops that mix elements: convolution and resizing keep the image's axes, a contraction keeps what it does not sum."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import permutations

from analyzer.cells.cells import Cells, cells_of, contracted, is_regular, merged, regular, spans
from analyzer.cells.step import Sizes, Step, UnknownSize

Outcome = Cells | Sequence[Cells | None] | None


def _windowed(step: Step) -> Outcome:
    """Convolution and pooling: the output's spatial axes divide the image as the input's did."""
    assert step.data is not None
    shape, out = step.shape(), step.output_shape()
    spatial = tuple(range(2, len(shape)))
    if spans(step.data, spatial):
        return _every_output(step, regular(out[2:], len(out), spatial))
    # Tokens or windows that are no image of their own: what keeps its size keeps its place.
    if shape[2:] != out[2:]:
        return None
    return _every_output(step, contracted(step.data, shape, [1]))


def _every_output(step: Step, cells: Cells | None) -> Outcome:
    return [cells] * len(step.node.outputs)


def _resized(step: Step) -> Outcome:
    """Resize, DepthToSpace and SpaceToDepth: other sizes along the same axes."""
    assert step.data is not None
    shape, out = step.shape(), step.output_shape()
    for axes in permutations(range(1, len(shape)), len(step.data.grid)):
        if is_regular(step.data, axes):
            grid = tuple(out[axis] for axis in axes)
            return regular(grid, len(out), axes)
    return None


def _reduced(step: Step) -> Outcome:
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
    kept = contracted(step.data, shape, axes)
    if kept is None or step.node.op_type.startswith("Global") or step.node.attributes["keepdims"]:
        return kept
    return cells_of(kept.grid, kept.index.squeeze(tuple(axes)))


def _matmul(step: Step) -> Outcome:
    a, b, out = step.shape(0), step.shape(1), step.output_shape()
    if len(a) == 1 or len(b) == 1:
        return None
    return _product(step, len(a) - 1, len(b) - 2, out)


def _gemm(step: Step) -> Outcome:
    if step.node.attributes["transA"]:
        return None
    inner = 1 if step.node.attributes["transB"] else 0
    return _product(step, 1, inner, step.output_shape()) if step.parts[0] is not None else None


def _product(step: Step, inner_a: int, inner_b: int, out: Sizes) -> Outcome:
    """A matrix product keeps its rows: the left factor's place, else the right factor's columns."""
    for index, axis in enumerate((inner_a, inner_b)):
        part = step.parts[index]
        if part is None:
            continue
        kept = contracted(part, step.shape(index), [axis])
        if kept is not None:
            # The contracted axis has length 1 now and stands where the other factor's axis comes.
            lead = (1,) * (len(out) - kept.index.ndim)
            return cells_of(kept.grid, kept.index.reshape(lead + kept.index.shape))
    return None


def _einsum(step: Step) -> Outcome:
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
        kept = contracted(part, step.shape(index), summed)
        if kept is None:
            continue
        axes = [letters.index(letter) for letter in result if letter in letters]
        moved = kept.index.transpose([*axes, *summed]).reshape([kept.index.shape[a] for a in axes])
        shape = iter(moved.shape)
        return cells_of(kept.grid, moved.reshape([next(shape) if x in letters else 1 for x in result]))
    return None


def _recurrent(step: Step) -> Outcome:
    """A recurrent layer's sequence keeps its steps; its final state has no place."""
    assert step.data is not None
    if step.node.attributes.get("layout"):
        raise UnknownSize
    kept = contracted(step.data, step.shape(), [2])
    if kept is None:
        return None
    y = cells_of(kept.grid, kept.index.reshape(kept.index.shape[0], 1, kept.index.shape[1], 1))
    return [y, *[None] * (len(step.node.outputs) - 1)]


def same_place(step: Step) -> Outcome:
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

MIXING: dict[str, Callable[[Step], Outcome]] = {
    **dict.fromkeys(_WINDOWED, _windowed),
    **dict.fromkeys(("Resize", "DepthToSpace", "SpaceToDepth"), _resized),
    **dict.fromkeys(_REDUCING, _reduced),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _recurrent),
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Einsum": _einsum,
}
