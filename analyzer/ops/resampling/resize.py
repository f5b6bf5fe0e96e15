"""Resize: along each axis a linear map, written as a matrix, whatever the mode and the coordinates.

y = (A₁ ⊗ A₂ ⊗ …) x, with one row per output position, so that the gradient is a product by the transposes. The
matrices (resize_matrix.py) are constants where the sizes are known, else nodes that compute them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np

from analyzer.graph.builder import Builder
from analyzer.graph.graph import Tensor
from analyzer.ops.formulas import Emitted, EmittedArrays, NumPyArrays
from analyzer.ops.registry import Affine, register
from analyzer.ops.resampling.resize_matrix import ResizedAxis, resized_axis
from analyzer.ops.support import expand_like, ints, onnx_dtype, rank_of


@register
class Resize(Affine):
    inactive = frozenset({1, 2, 3})

    def torch(torch, x, roi=None, scales=None, sizes=None, **attributes):
        axes = _known_axes(x.shape, _floats(roi), _floats(scales), _ints(sizes), attributes)
        y = x
        for position, axis in axes.items():
            matrix = torch.as_tensor(axis.matrix, device=x.device).to(x.dtype)
            y = torch.movedim(torch.tensordot(y, matrix, dims=([position], [1])), -1, position)
        outside = _outside(axes, len(x.shape))
        if outside is None:
            return y
        value = torch.full_like(y, attributes["extrapolation_value"])
        return torch.where(torch.as_tensor(outside, device=x.device), value, y)

    def tensorflow(tf, x, roi=None, scales=None, sizes=None, **attributes):
        axes = _known_axes(x.shape, _floats(roi), _floats(scales), _ints(sizes), attributes)
        y, rank = x, len(x.shape)
        for position, axis in axes.items():
            back = [*range(position), rank - 1, *range(position, rank - 1)]
            y = tf.transpose(tf.tensordot(y, tf.cast(axis.matrix, x.dtype), [[position], [1]]), back)
        outside = _outside(axes, rank)
        if outside is None:
            return y
        return tf.where(outside, tf.cast(attributes["extrapolation_value"], y.dtype), y)

    def vjp(op, g, y, x, roi=None, scales=None, sizes=None, **attributes):
        def of_x():
            t = g
            for position, axis in _rule_axes(op, x, y, roi, scales, sizes, attributes).items():
                # Rows of outputs outside the input are zeros.
                t = _along(op, t, axis.matrix, position, rank_of(x))
            return t

        return of_x, None, None, None

    # The extrapolated value, where the output lies outside the input.
    def residual(op, active, y, x, roi=None, scales=None, sizes=None, **attributes):
        value = attributes["extrapolation_value"]
        if not value or attributes["coordinate_transformation_mode"] != "tf_crop_and_resize":
            return None
        inside = op.tensor(np.asarray(True))
        for position, axis in _rule_axes(op, x, y, roi, scales, sizes, attributes).items():
            if axis.inside is not None:
                inside = op.And(inside, op.Unsqueeze(axis.inside, _others(position, rank_of(x))))
        return expand_like(op, op.Where(inside, np.zeros((), x.dtype), np.asarray(value, x.dtype)), y)


def _others(position: int, rank: int) -> list[int]:
    return [axis for axis in range(rank) if axis != position]


def _along(op: Builder, g: Tensor, matrix: Tensor, position: int, rank: int) -> Tensor:
    """Σ over the outputs of one axis of matrix[out, in]·g."""
    if position == rank - 1:
        return op.MatMul(g, matrix)
    if position == rank - 2:
        return op.MatMul(op.Transpose(matrix, perm=[1, 0]), g)
    swap = list(range(rank))
    swap[position], swap[-1] = rank - 1, position
    return op.Transpose(op.MatMul(op.Transpose(g, perm=swap), matrix), perm=swap)


def _floats(value: Any) -> list[float] | None:
    if value is None:
        return None
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    return [float(item) for item in np.asarray(value).reshape(-1)] or None


def _ints(value: Any) -> list[int] | None:
    return None if value is None else ints(value) or None


def _named(attributes: Mapping[str, Any], rank: int) -> list[int]:
    """The axes that the node names, in its order."""
    axes = attributes["axes"]
    return list(range(rank)) if axes is None else [axis % rank for axis in axes]


def _crops(attributes: Mapping[str, Any]) -> bool:
    return attributes["coordinate_transformation_mode"] == "tf_crop_and_resize"


def _known_axes(
    shape: Sequence[int],
    roi: list[float] | None,
    scales: list[float] | None,
    sizes: Sequence[int] | None,
    attributes: Mapping[str, Any],
) -> dict[int, ResizedAxis]:
    """Return the resized axes by position, all sizes being known."""
    along = _named(attributes, len(shape))
    ratio = _common_scale(NumPyArrays, shape, along, scales, sizes, attributes)
    outs = [int(size) for size in shape]
    for i, axis in enumerate(along):
        if scales is not None:
            # In single precision, as ONNX Runtime has it: 10 times 1.3 is 13.
            outs[axis] = int(np.float32(shape[axis]) * np.float32(scales[i]))
        else:
            assert sizes is not None, "Resize has neither scales nor sizes"
            outs[axis] = sizes[i] if ratio is None else int(np.floor(ratio * shape[axis] + 0.5))
    return _axes(NumPyArrays, [int(size) for size in shape], outs, roi, scales, ratio, attributes)


def _common_scale(
    xp: Any,
    shape: Sequence[Any],
    along: Sequence[int],
    scales: Sequence[Any] | None,
    sizes: Sequence[Any] | None,
    attributes: Mapping[str, Any],
) -> Any:
    """Return the one scale of sizes that keep the aspect ratio; None where they do not."""
    policy = attributes["keep_aspect_ratio_policy"]
    if policy == "stretch" or scales is not None or sizes is None:
        return None
    ratios = (out / shape[axis] for axis, out in zip(along, sizes, strict=True))
    return reduce(xp.minimum if policy == "not_larger" else xp.maximum, ratios)


def _axes(
    xp: Any,
    shape: Sequence[Any],
    outs: Sequence[Any],
    roi: Sequence[Any] | None,
    scales: Sequence[Any] | None,
    ratio: Any,
    attributes: Mapping[str, Any],
) -> dict[int, ResizedAxis]:
    """Return the resized axes by position. Sizes, scales and the region are numbers, or Emitted.

    shape, outs: the sizes of all axes, one object where an axis keeps its size.
    ratio: the one scale of all axes, None where there are several.
    """
    along, crops = _named(attributes, len(shape)), _crops(attributes)
    stated = not crops and (scales is not None or ratio is not None)
    # As ONNX Runtime does: a shape that stays the same is copied, whatever the scales; with antialias each such axis.
    same = [xp.equal(outs[axis], shape[axis]) for axis in along] if stated else []
    copied = same if attributes["antialias"] or not same else [reduce(xp.logical_and, same)] * len(same)
    found = {}
    for i, axis in enumerate(along):
        size, out, window = shape[axis], outs[axis], None
        scale = out / size if size is not out else 1.0
        scale = scale if ratio is None else ratio
        scale = scale if scales is None else scales[i]
        if crops:
            window = (0.0, 1.0) if roi is None else (roi[i], roi[len(along) + i])
        elif stated and not _is_one(scale):
            scale = xp.where(copied[i], 1.0, scale)
        if not _is_one(scale) or (window is not None and (_is_open(*window) or window != (0.0, 1.0))):
            found[axis] = resized_axis(xp, size, out, scale, window, attributes)
    return found


def _is_open(*numbers: Any) -> bool:
    return any(isinstance(number, Emitted) for number in numbers)


def _is_one(scale: Any) -> bool:
    """Return whether a scale is known to be 1."""
    return not _is_open(scale) and float(scale) == 1


def _rule_axes(
    op: Builder,
    x: Tensor,
    y: Tensor,
    roi: Tensor | None,
    scales: Tensor | None,
    sizes: Tensor | None,
    attributes: Mapping[str, Any],
) -> dict[int, ResizedAxis]:
    """Return the resized axes in a rule, their matrices as tensors like x."""
    shape = [size for size in x.shape or () if isinstance(size, int)]
    given = [t for t in (roi if _crops(attributes) else None, scales, sizes) if t is not None]
    if len(shape) == rank_of(x) and all(t.constant is not None for t in given):
        known = [None if t is None else t.constant for t in (roi, scales, sizes)]
        axes = _known_axes(shape, _floats(known[0]), _floats(known[1]), _ints(known[2]), attributes)
        return {
            position: ResizedAxis(
                op.tensor(axis.matrix.astype(x.dtype)),
                None if axis.inside is None else op.tensor(axis.inside),
            )
            for position, axis in axes.items()
        }
    axes = _open_axes(EmittedArrays(op), x, y, roi, scales, sizes, attributes)
    return {
        position: ResizedAxis(
            op.Cast(axis.matrix.tensor, to=onnx_dtype(x.dtype)),
            None if axis.inside is None else axis.inside.tensor,
        )
        for position, axis in axes.items()
    }


def _open_axes(
    xp: EmittedArrays,
    x: Tensor,
    y: Tensor,
    roi: Tensor | None,
    scales: Tensor | None,
    sizes: Tensor | None,
    attributes: Mapping[str, Any],
) -> dict[int, ResizedAxis]:
    """Return the resized axes where only the running model knows a size, a scale or the region."""
    rank = rank_of(x)
    along = _named(attributes, rank)
    before, after = xp.op.Shape(x), xp.op.Shape(y)
    shape = [xp.scalar(before, axis) for axis in range(rank)]
    outs = [
        shape[axis]
        if x.shape and y.shape and x.shape[axis] == y.shape[axis] is not None
        else xp.scalar(after, axis)
        for axis in range(rank)
    ]
    factors = None if scales is None or scales.shape == (0,) else _numbers(xp, scales, len(along))
    wanted = None if sizes is None else _numbers(xp, sizes, len(along))
    region = None if roi is None or not _crops(attributes) else _numbers(xp, roi, 2 * len(along))
    ratio = _common_scale(xp, shape, along, factors, wanted, attributes)
    return _axes(xp, shape, outs, region, factors, ratio, attributes)


def _numbers(xp: EmittedArrays, t: Tensor, count: int) -> list[Any]:
    """Return the elements of a vector as numbers, or Emitted where only the running model knows them."""
    known = _floats(t.constant)
    return [xp.scalar(t, i) for i in range(count)] if known is None else known


def _outside(axes: Mapping[int, ResizedAxis], rank: int) -> np.ndarray | None:
    """Which outputs lie outside the input, broadcastable to the output; None where none does."""
    outside: np.ndarray | None = None
    for position, axis in axes.items():
        if axis.inside is not None and not axis.inside.all():
            wide = ~axis.inside.reshape([-1 if i == position else 1 for i in range(rank)])
            outside = wide if outside is None else outside | wide
    return outside
