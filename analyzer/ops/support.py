"""Small helpers that several op families share: arguments as ints, and shapes and scatters inside rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from onnx import helper, numpy_helper

from analyzer.errors import UnsupportedOp
from analyzer.graph.builder import Builder
from analyzer.graph.fixes import TRACED
from analyzer.graph.graph import Tensor
from analyzer.ops.formulas import Emitted, size_along, vector
from converters.types import Shape


@dataclass(frozen=True)
class RowProduct:
    """What is known of g·Bᵀ, the gradient at A of y = A·B: its rows times A's have the sums of g's rows times y's.

    Source: Dao et al. 2022, "FlashAttention", appendix B.4.
    """

    a: Tensor
    g: Tensor
    y: Tensor


@dataclass(frozen=True)
class Scaled:
    """What is known of a tensor that is another one times a number."""

    tensor: Tensor
    factor: float


@dataclass(frozen=True)
class CutOff:
    """What is known of the output of a Clip from 0: its cotangent `g`, and g with zeros where the output is cut off.

    above: g where the output is above 0. inside: g where it is below the upper bound, too.
    """

    g: Tensor
    above: Tensor
    inside: Tensor


def ints(value: Any) -> list[int]:
    """A shape, axes or pads argument of a framework's op (tensor, array or list) as a list of ints."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    return [int(item) for item in np.asarray(value).reshape(-1)]


def normal_axes(axes: Any, rank: int) -> list[int]:
    """Axes as ascending non-negative ints, each once; all of them where `axes` is None."""
    return list(range(rank)) if axes is None else sorted({axis % rank for axis in ints(axes)})


def static(tensor: Tensor) -> tuple[int, ...] | None:
    """The shape where every axis is a known int, else None."""
    if tensor.shape is None or any(not isinstance(axis, int) for axis in tensor.shape):
        return None
    return tuple(int(axis) for axis in tensor.shape if isinstance(axis, int))


def rank_of(tensor: Tensor) -> int:
    """The number of axes. Raises UnsupportedOp where shape inference did not find it."""
    if tensor.shape is None:
        raise UnsupportedOp(
            f"the rank of {tensor.name!r} is unknown, and the gradient depends on it. {TRACED}"
        )
    return len(tensor.shape)


def constant_ints(x: Tensor | None) -> list[int] | None:
    """The value of a constant integer input of a rule, or None where it is not known before running."""
    return None if x is None or x.constant is None else [int(item) for item in x.constant.reshape(-1)]


def ones(rank: int) -> list[int]:
    """[1] * rank, the default of strides and dilations."""
    return [1] * rank


def is_zero(x: Tensor | None) -> bool:
    """Whether a tensor is omitted, or known to be all zeros before running."""
    return x is None or (x.constant is not None and not np.any(x.constant))


def sum_known(op: Builder, terms: Sequence[Tensor | None]) -> Tensor | None:
    """The sum of the terms that are not known to be zero; None where there is none."""
    parts = [term for term in terms if term is not None and not is_zero(term)]
    if len(parts) < 2:
        return parts[0] if parts else None
    return op.Sum(*parts)


def onnx_dtype(dtype: np.dtype[Any]) -> int:
    """The TensorProto number of a NumPy dtype."""
    return int(helper.np_dtype_to_tensor_dtype(dtype))


def cast(op: Builder, x: Tensor, like: Tensor) -> Tensor:
    """x in the dtype of `like`."""
    return op.Cast(x, to=onnx_dtype(like.dtype))


def shape_of(op: Builder, x: Tensor) -> Tensor:
    """The shape of x as an int64 tensor: a constant where it is known, else a Shape node."""
    known = static(x)
    return op.tensor(np.asarray(known, np.int64)) if known is not None else op.Shape(x)


def axis_size(op: Builder, x: Tensor, axis: int) -> Tensor:
    """The size of one axis as int64 (1,)."""
    known = x.shape[axis] if x.shape is not None else None
    return op.tensor([known]) if isinstance(known, int) else op.Shape(x, start=axis, end=axis + 1)


def reshape_like(op: Builder, g: Tensor, x: Tensor) -> Tensor:
    """g with the shape of x. One unknown axis is left to Reshape, so that x itself need not be kept."""
    shape = x.shape
    if shape is not None and 0 not in shape:
        unknown = [axis for axis in shape if not isinstance(axis, int)]
        if len(unknown) == 1:
            return op.Reshape(g, [axis if isinstance(axis, int) else -1 for axis in shape])
    return op.Reshape(g, shape_of(op, x))


def expand_like(op: Builder, g: Tensor, x: Tensor) -> Tensor:
    """g broadcast to the shape of x."""
    return op.Expand(g, shape_of(op, x))


def filled(op: Builder, shape: Tensor, value: float, like: Tensor) -> Tensor:
    """A tensor of one value in the dtype of `like`."""
    return op.ConstantOfShape(shape, value=numpy_helper.from_array(np.full(1, value, like.dtype)))


def zeros_like(op: Builder, x: Tensor) -> Tensor:
    """Zeros of the shape and dtype of x."""
    return filled(op, shape_of(op, x), 0, x)


def axes_at_run(op: Builder, x: Tensor, axes: Tensor, noop: int) -> Tensor:
    """Axes that only the running model knows as ascending non-negative ones, each once.

    No axes mean all of x, or with `noop` none.
    """
    rank = op.Shape(op.Shape(x))
    none = op.ConstantOfShape(rank, value=numpy_helper.from_array(np.zeros(1, np.int64)))
    named = op.ScatterElements(none, axes, op.Add(op.Mul(axes, 0), 1))
    if not noop:
        named = op.Add(named, op.Cast(op.Equal(op.Size(axes), 0), to=onnx_dtype(np.dtype(np.int64))))
    return op.Squeeze(op.NonZero(named), [0])


def size_of(op: Builder, x: Tensor, axes: Sequence[int] | Tensor) -> Tensor | float:
    """The number of elements of x along `axes`: a number where it is known, else a scalar tensor like x."""
    shape = x.shape
    if shape is not None and not isinstance(axes, Tensor):
        sizes = [shape[axis] for axis in axes]
        if all(isinstance(size, int) for size in sizes):
            return float(np.prod(np.asarray(sizes, np.float64)))
    sizes_at_run = op.Gather(op.Shape(x), axes, axis=0)
    return cast(op, op.ReduceProd(sizes_at_run, keepdims=0), x)


def sum_grown(op: Builder, g: Tensor, y: Tensor, u: Tensor) -> Tensor:
    """Sum g, which is shaped like y, over the axes along which u was broadcast to y. Both ranks are known."""
    large, small = y.shape or (), u.shape or ()
    lead = len(large) - len(small)
    axes = _grown_axes(op, large[lead:], small, y, u, lead)
    if isinstance(axes, Tensor):
        g = op.ReduceSum(g, axes, keepdims=1, noop_with_empty_axes=1)
    elif axes:
        g = op.ReduceSum(g, axes, keepdims=1)
    return op.ReduceSum(g, list(range(lead)), keepdims=0) if lead else g


def _grown_axes(
    op: Builder, large: Shape, small: Shape, y: Tensor, u: Tensor, lead: int
) -> list[int] | Tensor:
    """Return the axes of y, from number `lead` on, along which u is smaller: a tensor where sizes are unknown."""
    pairs = list(zip(small, large, strict=True))
    if all(isinstance(mine, int) or (mine is not None and mine == its) for mine, its in pairs):
        return [lead + i for i, (mine, its) in enumerate(pairs) if mine == 1 and its != 1]
    sizes = op.Shape(y, start=lead) if lead else op.Shape(y)
    grown = op.Squeeze(op.NonZero(op.Not(op.Equal(sizes, op.Shape(u)))), [0])
    return op.Add(grown, lead) if lead else grown


def per_channel(op: Builder, v: Tensor, rank: int) -> Tensor:
    """A vector over axis 1 of a tensor of that rank, shaped to broadcast over the axes that follow."""
    if rank < 3:
        return v
    if v.constant is not None:
        return op.tensor(v.constant.reshape(-1, *ones(rank - 2)))
    return op.Reshape(v, [-1, *ones(rank - 2)])


def insert_zeros(op: Builder, t: Tensor, shape: Shape, steps: Sequence[int]) -> tuple[Tensor, Shape]:
    """Follow every element by step − 1 zeros along each axis; return the tensor and its shape."""
    axes = [axis for axis, step in enumerate(steps) if step > 1]
    if not axes:
        return t, shape
    # A new axis behind each, padded, then merged with it.
    places = [axis + 1 + count for count, axis in enumerate(axes)]
    ends = [steps[axis] - 1 for axis in axes]
    spread = pad(op, op.Unsqueeze(t, places), [0] * len(axes) + ends, places, len(shape) + len(axes))
    grown: list[int | str | None] = []
    target: list[int] = []
    for axis, (size, step) in enumerate(zip(shape, steps, strict=True)):
        if isinstance(size, int):
            grown.append(size * step)
            target.append(size * step)
        else:
            grown.append(size if step == 1 else None)
            # Reshape reads 0 as "as in the input": true of the axes before the first that was split.
            target.append(0 if axis < axes[0] else -1)
    if target.count(-1) > 1:
        return op.Reshape(spread, op.Mul(op.Shape(t), list(steps))), tuple(grown)
    return op.Reshape(spread, target), tuple(grown)


def place(
    op: Builder, t: Tensor, shape: Shape, before: Sequence[Any], into: Tensor, axes: Sequence[int]
) -> Tensor:
    """Pad t (of that shape) with zeros along `axes` to the size of `into`, or cut it.

    before: the zeros before t along each axis, ints or Emitted vectors of one; a negative number cuts.
    """
    sized = replace(t, shape=shape)
    after = [
        size_along(op, into, axis) - size_along(op, sized, axis) - zeros
        for axis, zeros in zip(axes, before, strict=True)
    ]
    return pad(op, t, [*before, *after], axes, len(shape))


def pad(op: Builder, t: Tensor, pads: Sequence[Any], axes: Sequence[int], rank: int) -> Tensor:
    """Emit zeros around `axes` of t: all begins, then all ends, ints or Emitted; a negative one cuts.

    The pads of every axis are written out: ONNX Runtime's layout optimiser loses the `axes` of a Pad when it
    moves a Transpose through it.
    """
    if not any(isinstance(size, Emitted) or size for size in pads):
        return t
    full: list[Any] = [0] * (2 * rank)
    for position, axis in enumerate(axes):
        full[axis % rank] = pads[position]
        full[rank + axis % rank] = pads[len(axes) + position]
    return op.Pad(t, vector(op, full))


def scatter_flat(op: Builder, g: Tensor, positions: Tensor, into: Tensor) -> Tensor:
    """Add each element of g to zeros shaped like `into`, at its flat position in it."""
    total = op.ReduceProd(shape_of(op, into), keepdims=1)
    known = static(into)
    if known is not None:
        total = op.tensor([int(np.prod(known))])
    flat = filled(op, total, 0, into)
    added = op.ScatterElements(flat, op.Reshape(positions, [-1]), op.Reshape(g, [-1]), reduction="add")
    return reshape_like(op, added, into)


def flat_positions(op: Builder, x: Tensor) -> Tensor:
    """The flat position of every element, int64, in the shape of x."""
    known = static(x)
    if known is not None and np.prod(known) <= 4096:
        return op.tensor(np.arange(np.prod(known), dtype=np.int64).reshape(known))
    shape = shape_of(op, x)
    count = op.ReduceProd(shape, keepdims=0)
    return op.Reshape(op.Range(np.asarray(0), count, np.asarray(1)), shape)


def share_among_ties(op: Builder, g: Tensor, y: Tensor, x: Tensor, axes: Sequence[int] | Tensor) -> Tensor:
    """The gradient of an extremum y of x over `axes` (kept, of size 1), shared evenly among ties."""
    ties = cast(op, op.Equal(x, y), x)
    count = op.ReduceSum(ties, axes, keepdims=1, noop_with_empty_axes=1)
    return op.Mul(op.Div(g, count), ties)
