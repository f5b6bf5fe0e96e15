"""The ops whose form changed between opsets, each with the same values in the form of the opset before.

`RULES[op, k]` rewrites a node of opset k for opset k − 1. It returns the tensors that replace the node's outputs, or
None where the node is valid there once attributes at their defaults are gone. It raises ExportError for what cannot be
expressed. Types that were added later need no rule: the older schema refuses them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from analyzer.explainer.runtimes.mutable import Writer

OpsetRule = Callable[[Writer], "str | Sequence[str] | None"]

NEW_FORMS = frozenset({("GroupNormalization", 21)})
"""Ops that mean something else in the opset before: scale and bias were one number per group."""

UPWARD: dict[tuple[str, int], str] = {}
"""Why an op of the opset before cannot be taken over, though the schema takes it."""

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)
# Casts to float8 alone read `saturate`.
_FLOAT8 = frozenset(
    (TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E4M3FNUZ, TensorProto.FLOAT8E5M2, TensorProto.FLOAT8E5M2FNUZ)
)


def _axes_attribute(op: Writer) -> str | Sequence[str] | None:
    """Opset 18 moved the axes of a reduction to an input."""
    x, axes = op.input(0), op.input(1)
    keepdims, noop = op.attribute("keepdims"), op.attribute("noop_with_empty_axes")
    known = op.value(axes) if axes else None
    if axes and known is None:
        if op.size(axes, 0) == 0:
            known = np.zeros(0, np.int64)
        else:
            raise op.refuse("has axes that are computed", "choose opset 18 or later")
    listed = [] if known is None else [int(axis) for axis in known.ravel()]
    if not listed and noop:
        if op.node.op_type not in ("ReduceMax", "ReduceMin", "ReduceMean", "ReduceProd"):
            raise op.refuse("reduces no axis", "choose opset 18 or later")
        return op.Identity(x)
    return op.emit(op.node.op_type, [x], axes=listed or None, keepdims=keepdims)  # type: ignore[no-any-return]


def _split_sizes(op: Writer) -> str | Sequence[str] | None:
    """Opset 18 made the number of parts an attribute; the last part may be smaller."""
    if op.input(1) is not None or op.attribute("num_outputs") is None:
        return None
    x, count, axis = op.input(0), op.attribute("num_outputs"), op.attribute("axis")
    size = op.size(x, axis) if x and op.shape(x) is not None else None
    if size is not None:
        part = -(-size // count)
        sizes = [part] * (count - 1) + [size - part * (count - 1)]
    else:
        # Slices of computed ends have a known rank, parts of computed sizes do not: a Scan needs it.
        part = op.Div(op.Add(op.Gather(op.Shape(x), [axis]), [count - 1]), [count])
        ends = [op.Mul(part, [index]) for index in range(count + 1)]
        return [op.Slice(x, *pair, [axis]) for pair in pairwise(ends)]
    results = op.emit("Split", [x, sizes], outputs=count, axis=axis)
    return (results,) if count == 1 else results


def _of_all_axes(op: Writer, x: str, values: str, axes: Sequence[int], fill: Any, halves: int = 1) -> str:
    """Return a value for every axis, given those of some; `fill`, a vector of one for each half, for the others."""
    rank, count = op.rank(x), len(axes)
    places = {axis % rank: index for index, axis in enumerate(axes)}
    # The fills follow the values: half h has its own at halves · count + h.
    indices = [
        places[axis] + half * count if axis in places else halves * count + half
        for half in range(halves)
        for axis in range(rank)
    ]
    known = op.value(values)
    if known is not None and isinstance(fill, np.ndarray):
        return op.constant(np.concatenate([known, fill.astype(known.dtype)])[indices])
    return str(op.Gather(op.Concat(values, fill, axis=0), indices))


def _pad_all_axes(op: Writer) -> str | Sequence[str] | None:
    """Opset 18 lets Pad name the axes that it pads."""
    x, pads, value, axes = (op.input(index) for index in range(4))
    if axes is None:
        return None
    known = op.value(axes)
    if known is None or x is None or pads is None:
        raise op.refuse("has axes that are computed", "choose opset 18 or later")
    listed = [int(axis) for axis in known.ravel()]
    full = _of_all_axes(op, x, pads, listed, np.zeros(2, np.int64), halves=2)
    return op.same([x, full, value])  # type: ignore[no-any-return]


def _resize_all_axes(op: Writer) -> str | Sequence[str] | None:
    """Opset 18 lets Resize name its axes, smooth and keep the aspect ratio."""
    if op.attribute("antialias"):
        raise op.refuse("smooths (antialias=1)", "choose opset 18 or later")
    if op.input(3) is not None and op.attribute("keep_aspect_ratio_policy") not in (None, "stretch"):
        raise op.refuse("keeps the aspect ratio", "choose opset 18 or later")
    dropped = ("antialias", "keep_aspect_ratio_policy", "axes")
    x, roi, scales, sizes = (op.input(index) for index in range(4))
    axes = op.attribute("axes")
    if axes is not None and x is not None:
        ones = np.ones(1, np.float32)
        if roi is not None:
            # Other axes are taken whole: from 0 to 1.
            roi = _of_all_axes(op, x, roi, axes, np.asarray([0, 1], op.dtype(roi)), halves=2)
        if scales is not None and not _is_empty(op, scales):
            scales = _of_all_axes(op, x, scales, axes, ones)
        if sizes is not None:
            sizes = _sizes_of_all_axes(op, x, sizes, axes)
    return op.same([x, roi, scales, sizes], drop=dropped)  # type: ignore[no-any-return]


def _is_empty(op: Writer, name: str) -> bool:
    known = op.value(name)
    return known is not None and known.size == 0


def _sizes_of_all_axes(op: Writer, x: str, sizes: str, axes: Sequence[int]) -> str:
    """Return the size of every axis, those that are not resized having their own."""
    rank = op.rank(x)
    places = {axis % rank: index for index, axis in enumerate(axes)}
    indices = [places.get(axis, len(axes) + axis) for axis in range(rank)]
    return str(op.Gather(op.Concat(sizes, op.Shape(x), axis=0), indices))


def _resize_symmetric(op: Writer) -> None:
    if op.attribute("coordinate_transformation_mode") == "half_pixel_symmetric":
        raise op.refuse("takes symmetric half pixels", "choose opset 19 or later")


def _pad_wrap(op: Writer) -> None:
    if op.attribute("mode") == "wrap":
        raise op.refuse("pads by wrapping around", "choose opset 19 or later")


def _scatter_extremes(op: Writer) -> None:
    if op.attribute("reduction") in ("max", "min"):
        raise op.refuse(f"scatters with reduction={op.attribute('reduction')!r}", "choose opset 18 or later")


def _without_saturation(op: Writer) -> str | Sequence[str] | None:
    """Remove `saturate`, which matters for float8 alone."""
    element = op.element(op.node.output[0])
    for entry in list(op.node.attribute):
        if entry.name == "saturate" and element not in _FLOAT8:
            op.node.attribute.remove(entry)
    return None


def _grid_modes(op: Writer) -> str | Sequence[str] | None:
    """Opset 20 renamed the modes of GridSample, and samples volumes."""
    x = op.input(0)
    if x is None or op.rank(x) != 4:
        raise op.refuse("samples a volume", "choose opset 20 or later")
    mode = {"linear": "bilinear", "cubic": "bicubic"}.get(op.attribute("mode"), op.attribute("mode"))
    return op.same(op.node.input, mode=mode)  # type: ignore[no-any-return]


def _dft_axis(op: Writer) -> str | Sequence[str] | None:
    """Opset 20 moved the axis of a Fourier transform to an input, −2 by default."""
    x, length, axis = op.input(0), op.input(1), op.input(2)
    known = op.value(axis) if axis else np.asarray(-2)
    if known is None or x is None:
        raise op.refuse("has an axis that is computed", "choose opset 20 or later")
    return op.same([x, length], axis=int(known.item()) % op.rank(x))  # type: ignore[no-any-return]


def _extremes_of_bools(op: Writer) -> str | Sequence[str] | None:
    """Opset 20 lets ReduceMax and ReduceMin reduce truth values."""
    x, axes = op.input(0), op.input(1)
    if x is None or op.element(x) != TensorProto.BOOL:
        return None
    # Over no elements at all, the least uint8 is false and the largest is true.
    (reduced,) = op.same([op.Cast(x, to=TensorProto.UINT8), axes])
    return str(op.Cast(reduced, to=TensorProto.BOOL))


def _infinite_halves(op: Writer) -> str | Sequence[str] | None:
    """Opset 20 tests numbers of half precision for infinity."""
    x = op.input(0)
    if x is None or op.element(x) not in (TensorProto.FLOAT16, TensorProto.BFLOAT16):
        return None
    return op.same([op.Cast(x, to=TensorProto.FLOAT)])  # type: ignore[no-any-return]


def _quantized_type(op: Writer) -> str | Sequence[str] | None:
    """Opset 21 states the type of the result without a zero point; an explicit zero point does the same."""
    wanted, scale = op.attribute("output_dtype"), op.input(1)
    if not wanted or op.attribute("block_size") or scale is None:
        return None
    zero = op.input(2)
    if zero is None:
        zeros = op.Mul(op.Cast(scale, to=TensorProto.INT32), np.asarray(0, np.int32))
        zero = op.Cast(zeros, to=wanted)
    return op.same([op.input(0), scale, zero], output_dtype=None, block_size=None)  # type: ignore[no-any-return]


def _dequantized_type(op: Writer) -> str | Sequence[str] | None:
    """Opset 23 states the type of the result, which was that of the scale."""
    wanted, scale = op.attribute("output_dtype"), op.input(1)
    if not wanted or scale is None or op.element(scale) != wanted:
        return None
    return op.same(op.node.input, output_dtype=None)  # type: ignore[no-any-return]


def _root_mean_square(op: Writer) -> str | Sequence[str] | None:
    """Opset 23 divides by the root of the mean square; the standard's body computes its axes."""
    x, scale = op.input(0), op.input(1)
    if x is None or scale is None:
        raise op.refuse("lacks an input", "export the model again")
    rank, stash = op.rank(x), op.attribute("stash_type")
    if not op.element(x) or not op.element(scale):
        raise op.refuse("reads a tensor of unknown type", "choose opset 23 or later")
    axes = list(range(op.attribute("axis") % rank, rank))
    wide = op.Cast(x, to=stash)
    square = op.ReduceMean(op.Mul(wide, wide), axes, keepdims=1)
    epsilon = np.asarray(op.attribute("epsilon"), helper.tensor_dtype_to_np_dtype(stash))
    normal = op.Cast(op.Div(wide, op.Sqrt(op.Add(square, op.constant(epsilon)))), to=op.element(scale))
    return str(op.Mul(normal, scale))


def _wide_range(op: Writer) -> str | Sequence[str] | None:
    """Opset 27 counts in half precision: in float32, rounded at the end."""
    start = op.input(0)
    element = op.element(start) if start else 0
    if element not in (TensorProto.FLOAT16, TensorProto.BFLOAT16):
        return None
    if op.attribute("stash_type") != TensorProto.FLOAT:
        raise op.refuse("counts in half precision", "choose opset 27 or later")
    wide = [op.Cast(name, to=TensorProto.FLOAT) for name in op.node.input]
    return str(op.Cast(op.Range(*wide), to=element))


def _whole_remainder(op: Writer) -> None:
    x = op.input(0)
    if not op.attribute("fmod") and x is not None and op.element(x) in _FLOATS:
        raise op.refuse("divides with a remainder of the divisor's sign", "choose opset 28 or later")


RULES: dict[tuple[str, int], OpsetRule] = {
    **{
        (f"Reduce{name}", 18): _axes_attribute
        for name in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")
    },
    ("Split", 18): _split_sizes,
    ("Pad", 18): _pad_all_axes,
    ("Resize", 18): _resize_all_axes,
    ("ScatterElements", 18): _scatter_extremes,
    ("ScatterND", 18): _scatter_extremes,
    ("Cast", 19): _without_saturation,
    ("CastLike", 19): _without_saturation,
    ("QuantizeLinear", 19): _without_saturation,
    ("Resize", 19): _resize_symmetric,
    ("Pad", 19): _pad_wrap,
    ("GridSample", 20): _grid_modes,
    ("DFT", 20): _dft_axis,
    ("ReduceMax", 20): _extremes_of_bools,
    ("ReduceMin", 20): _extremes_of_bools,
    ("IsInf", 20): _infinite_halves,
    ("QuantizeLinear", 21): _quantized_type,
    ("DequantizeLinear", 23): _dequantized_type,
    ("RMSNormalization", 23): _root_mean_square,
    ("Range", 27): _wide_range,
    ("Mod", 28): _whole_remainder,
}
"""The rule of an op that changed in an opset."""
