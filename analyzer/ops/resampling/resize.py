"""Resize: along each axis a linear map, written as a matrix, whatever the mode and the coordinates.

y = (A₁ ⊗ A₂ ⊗ …) x, with one row per output position, so that the gradient is a product by the transposes. The
matrices (resize_matrix.py) are constants where the sizes are known, else nodes that compute them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from analyzer.graph.builder import Emitter
from analyzer.graph.graph import Tensor
from analyzer.ops.registry import Affine, register
from analyzer.ops.resampling.formulas import Emitted, EmittedArrays, NumPyArrays
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


def _along(op: Emitter, g: Tensor, matrix: Tensor, position: int, rank: int) -> Tensor:
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
    """The resized axes by position, everything being known."""
    along = _named(attributes, len(shape))
    found = {}
    targets = _targets(shape, along, scales, sizes, attributes)
    # As ONNX Runtime does: a shape that stays the same is copied, whatever the scales; with antialias each such axis.
    copied = all(out == shape[axis] for axis, _, out in targets)
    for i, (axis, scale, out) in enumerate(targets):
        if not _crops(attributes) and out == shape[axis] and (copied or attributes["antialias"]):
            continue
        window = None
        if _crops(attributes):
            window = (roi[i], roi[len(along) + i]) if roi is not None else (0.0, 1.0)
        if scale != 1 or window not in (None, (0.0, 1.0)):
            found[axis] = resized_axis(NumPyArrays, int(shape[axis]), out, scale, window, attributes)
    return found


def _targets(
    shape: Sequence[int],
    along: list[int],
    scales: list[float] | None,
    sizes: Sequence[int] | None,
    attributes: Mapping[str, Any],
) -> list[tuple[int, float, int]]:
    """(axis, scale, output size) of each axis that the node names."""
    if scales is not None:
        # In single precision, as ONNX Runtime has it: 10 times 1.3 is 13.
        sizes = [int(np.float32(shape[axis]) * np.float32(s)) for axis, s in zip(along, scales, strict=True)]
        return list(zip(along, scales, sizes, strict=True))
    assert sizes is not None, "Resize has neither scales nor sizes"
    ratios = [out / shape[axis] for axis, out in zip(along, sizes, strict=True)]
    policy = attributes["keep_aspect_ratio_policy"]
    if policy == "stretch":
        return list(zip(along, ratios, sizes, strict=True))
    ratio = min(ratios) if policy == "not_larger" else max(ratios)
    return [(axis, ratio, int(np.floor(ratio * shape[axis] + 0.5))) for axis in along]


def _rule_axes(
    op: Emitter,
    x: Tensor,
    y: Tensor,
    roi: Tensor | None,
    scales: Tensor | None,
    sizes: Tensor | None,
    attributes: Mapping[str, Any],
) -> dict[int, ResizedAxis]:
    """The resized axes in a rule, their matrices as tensors like x."""
    known = [None if t is None else t.constant for t in (roi, scales, sizes)]
    shape = [size for size in x.shape or () if isinstance(size, int)]
    given = [t for t in (roi if _crops(attributes) else None, scales, sizes) if t is not None]
    if len(shape) == rank_of(x) and all(t.constant is not None for t in given):
        axes = _known_axes(shape, _floats(known[0]), _floats(known[1]), _ints(known[2]), attributes)
        return {
            position: ResizedAxis(op.tensor(axis.matrix.astype(x.dtype)), _tensor(op, axis.inside))
            for position, axis in axes.items()
        }
    return _axes_at_run(op, x, y, roi, scales, sizes, attributes)


def _tensor(op: Emitter, array: np.ndarray | None) -> Tensor | None:
    return None if array is None else op.tensor(array)


def _axes_at_run(
    op: Emitter,
    x: Tensor,
    y: Tensor,
    roi: Tensor | None,
    scales: Tensor | None,
    sizes: Tensor | None,
    attributes: Mapping[str, Any],
) -> dict[int, ResizedAxis]:
    """The same where only the running model knows a size, a scale or the region."""
    xp = EmittedArrays(op)
    along = _named(attributes, rank_of(x))
    factors = None if scales is None or scales.shape == (0,) else scales
    common = None if factors is not None else _common_scale(op, x, sizes, along, attributes)
    found = {}
    for i, axis in enumerate(along):
        if not _crops(attributes) and _is_kept(x, y, axis, factors, i):
            continue
        size, out = xp.scalar(op.Shape(x), axis), xp.scalar(op.Shape(y), axis)
        scale = out / size if common is None else xp.scalar(common, 0)
        if factors is not None:
            copied = _copied(op, x, y, axis if attributes["antialias"] else None)
            scale = xp.where(Emitted(op, copied), 1.0, xp.scalar(factors, i))
        window: tuple[Any, Any] | None = None
        if _crops(attributes):
            window = (0.0, 1.0) if roi is None else (xp.scalar(roi, i), xp.scalar(roi, len(along) + i))
        made = resized_axis(xp, size, out, scale, window, attributes)
        inside = None if made.inside is None else made.inside.tensor
        found[axis] = ResizedAxis(op.Cast(made.matrix.tensor, to=onnx_dtype(x.dtype)), inside)
    return found


def _copied(op: Emitter, x: Tensor, y: Tensor, axis: int | None) -> Tensor:
    """Whether one axis, or with None every axis, keeps its size."""
    same = op.Equal(op.Shape(x), op.Shape(y))
    if axis is not None:
        return op.Gather(same, np.asarray(axis))
    return op.Not(op.Cast(op.ReduceMax(op.Cast(op.Not(same), to=7), keepdims=0), to=9))


def _is_kept(x: Tensor, y: Tensor, axis: int, scales: Tensor | None, index: int) -> bool:
    """Whether an axis is known to be left as it is."""
    if scales is not None:
        return scales.constant is not None and scales.constant.reshape(-1)[index] == 1
    before, after = (x.shape or ())[axis], y.shape[axis] if y.shape is not None else None
    return before is not None and before == after


def _common_scale(
    op: Emitter, x: Tensor, sizes: Tensor | None, along: list[int], attributes: Mapping[str, Any]
) -> Tensor | None:
    """The one scale of sizes that keep the aspect ratio, as a vector of one; None where they do not."""
    policy = attributes["keep_aspect_ratio_policy"]
    if policy == "stretch":
        return None
    double = onnx_dtype(np.dtype(np.float64))
    ratios = op.Div(op.Cast(sizes, to=double), op.Cast(op.Gather(op.Shape(x), along, axis=0), to=double))
    return (op.ReduceMin if policy == "not_larger" else op.ReduceMax)(ratios, keepdims=1)


def _outside(axes: Mapping[int, ResizedAxis], rank: int) -> np.ndarray | None:
    """Which outputs lie outside the input, broadcastable to the output; None where none does."""
    outside: np.ndarray | None = None
    for position, axis in axes.items():
        if axis.inside is not None and not axis.inside.all():
            wide = ~axis.inside.reshape([-1 if i == position else 1 for i in range(rank)])
            outside = wide if outside is None else outside | wide
    return outside
