"""Resize: along each axis a linear map, written as a matrix, whatever the mode and the coordinates.

y = (A₁ ⊗ A₂ ⊗ …) x, with one row per output position, so that the gradient is a product by the transposes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analyzer.emitter import Emitter
from analyzer.errors import UnsupportedOp
from analyzer.graph import Tensor
from analyzer.ops.registry import Affine, register
from analyzer.ops.support import constant_ints, expand_like, ints, rank_of


@dataclass(frozen=True)
class Axis:
    """One resized axis: the matrix (out, in), and which outputs lie within the input (tf_crop_and_resize)."""

    matrix: np.ndarray
    inside: np.ndarray


@register
class Resize(Affine):
    inactive = frozenset({1, 2, 3})

    def torch(torch, x, roi=None, scales=None, sizes=None, **attributes):
        axes = _axes(x.shape, _floats(roi), _floats(scales), _ints(sizes), attributes)
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
        axes = _axes(x.shape, _floats(roi), _floats(scales), _ints(sizes), attributes)
        y, rank = x, len(x.shape)
        for position, axis in axes.items():
            back = [*range(position), rank - 1, *range(position, rank - 1)]
            y = tf.transpose(tf.tensordot(y, tf.cast(axis.matrix, x.dtype), [[position], [1]]), back)
        outside = _outside(axes, rank)
        return (
            y
            if outside is None
            else tf.where(outside, tf.cast(attributes["extrapolation_value"], y.dtype), y)
        )

    def vjp(op, g, y, x, roi=None, scales=None, sizes=None, **attributes):
        def of_x():
            axes = _rule_axes(x, y, roi, scales, sizes, attributes)
            outside = _outside(axes, rank_of(x))
            t = g if outside is None else op.Where(outside, 0.0, g)
            for position, axis in axes.items():
                t = _along(op, t, axis.matrix.astype(x.dtype), position, rank_of(x))
            return t

        return of_x, None, None, None

    # The extrapolated value, where the output lies outside the input.
    def residual(op, active, y, x, roi=None, scales=None, sizes=None, **attributes):
        value = attributes["extrapolation_value"]
        if not value or attributes["coordinate_transformation_mode"] != "tf_crop_and_resize":
            return None
        outside = _outside(_rule_axes(x, y, roi, scales, sizes, attributes), rank_of(x))
        if outside is None:
            return None
        return expand_like(op, op.tensor((outside * value).astype(x.dtype)), y)


def _along(op: Emitter, g: Tensor, matrix: np.ndarray, position: int, rank: int) -> Tensor:
    """Σ over the outputs of one axis of matrix[out, in]·g."""
    if position == rank - 1:
        return op.MatMul(g, matrix)
    if position == rank - 2:
        return op.MatMul(np.ascontiguousarray(matrix.T), g)
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


def _rule_axes(
    x: Tensor, y: Tensor, roi: Tensor | None, scales: Tensor | None, sizes: Tensor | None, attributes: Any
) -> dict[int, Axis]:
    """The resized axes in a rule: those whose sizes differ, which must be known."""
    region = None if roi is None or roi.constant is None else _floats(roi.constant)
    factors = None if scales is None or scales.constant is None else _floats(scales.constant)
    lengths: Sequence[Any] | None = constant_ints(sizes) or None
    if x.shape is None or y.shape is None:
        raise UnsupportedOp(f"Resize: the rank of {x.name!r} is unknown")
    if attributes["coordinate_transformation_mode"] == "tf_crop_and_resize" and (
        roi is None or roi.constant is None
    ):
        raise UnsupportedOp("Resize: the region of tf_crop_and_resize is computed while running")
    if factors is None and (lengths is None or None in x.shape):
        if attributes["keep_aspect_ratio_policy"] != "stretch":
            raise UnsupportedOp("Resize: sizes that keep the aspect ratio are computed while running")
        lengths, attributes = list(y.shape), {**attributes, "axes": None}
    return _axes(x.shape, region, factors, lengths, attributes)


def _axes(
    shape: Sequence[Any],
    roi: list[float] | None,
    scales: list[float] | None,
    sizes: Sequence[Any] | None,
    attributes: Mapping[str, Any],
) -> dict[int, Axis]:
    rank = len(shape)
    named = attributes["axes"]
    along = list(range(rank)) if named is None else [axis % rank for axis in named]
    mode = attributes["coordinate_transformation_mode"]
    crops = mode == "tf_crop_and_resize"
    found = {}
    for i, (axis, scale, out) in enumerate(_targets(shape, along, scales, sizes, attributes)):
        size = shape[axis]
        window = (roi[i], roi[len(along) + i]) if crops and roi is not None else (0.0, 1.0)
        if (out == size or scale == 1) and (not crops or window == (0.0, 1.0)):
            continue
        if not isinstance(size, (int, np.integer)) or not isinstance(out, (int, np.integer)):
            raise UnsupportedOp(
                f"Resize: the sizes of axis {axis} ({size} to {out}) are unknown before running"
            )
        where = coordinates(int(size), int(out), scale, mode, window)
        inside = (where >= 0) & (where <= size - 1) if crops else np.ones(int(out), bool)
        found[axis] = Axis(_matrix(int(size), where, scale, attributes) * inside[:, None], inside)
    return found


def _known(size: Any) -> bool:
    return isinstance(size, (int, np.integer))


def _targets(
    shape: Sequence[Any],
    along: list[int],
    scales: list[float] | None,
    sizes: Sequence[Any] | None,
    attributes: Mapping[str, Any],
) -> list[tuple[int, float, Any]]:
    """(axis, scale, output size) of each axis that the node names."""
    if scales is not None:
        return [
            (
                axis,
                scale,
                int(np.floor(shape[axis] * scale)) if isinstance(shape[axis], (int, np.integer)) else None,
            )
            for axis, scale in zip(along, scales, strict=True)
        ]
    assert sizes is not None, "Resize has neither scales nor sizes"
    ratios = [
        1.0 if out == shape[axis] or not _known(shape[axis]) else out / shape[axis]
        for axis, out in zip(along, sizes, strict=True)
    ]
    policy = attributes["keep_aspect_ratio_policy"]
    if policy == "stretch":
        return list(zip(along, ratios, sizes, strict=True))
    ratio = min(ratios) if policy == "not_larger" else max(ratios)
    return [(axis, ratio, int(np.floor(ratio * shape[axis] + 0.5))) for axis in along]


def coordinates(size: int, out: int, scale: float, mode: str, window: tuple[float, float]) -> np.ndarray:
    """Where in the input each output position lies."""
    i = np.arange(out, dtype=np.float64)
    if mode == "asymmetric":
        return i / scale
    if mode == "align_corners":
        return i * ((size - 1) / (out - 1)) if out > 1 else np.zeros(1)
    if mode == "tf_crop_and_resize":
        start, end = window
        if out == 1:
            return np.full(1, 0.5 * (start + end) * (size - 1))
        return start * (size - 1) + i * (end - start) * (size - 1) / (out - 1)
    if mode == "pytorch_half_pixel" and out == 1:
        return np.zeros(1)
    where = (i + 0.5) / scale - 0.5
    if mode == "half_pixel_symmetric":
        # The output's size is rounded: keep both centres together.
        where += size / 2 * (1 - out / (scale * size))
    return where


def _matrix(size: int, where: np.ndarray, scale: float, attributes: Mapping[str, Any]) -> np.ndarray:
    """The weights (out, in) of the input at each position."""
    mode = attributes["mode"]
    if mode == "nearest":
        nearest = np.clip(_rounded(where, attributes["nearest_mode"]), 0, size - 1).astype(np.int64)
        return np.eye(size)[nearest]
    # With antialias a shrinking axis has its kernel stretched over what one output stands for.
    stretch = min(scale, 1.0) if attributes["antialias"] else 1.0
    reach = int(np.ceil((1 if mode == "linear" else 2) / stretch))
    left = np.floor(where).astype(np.int64)
    taps = left[:, None] + np.arange(1 - reach, reach + 1)
    distance = np.abs(where[:, None] - taps) * stretch
    weights = _triangle(distance) if mode == "linear" else _cubic(distance, attributes["cubic_coeff_a"])
    if attributes["exclude_outside"]:
        weights = weights * ((taps >= 0) & (taps < size))
    weights = weights / weights.sum(axis=1, keepdims=True)
    matrix = np.zeros((len(where), size))
    np.add.at(matrix, (np.arange(len(where))[:, None], np.clip(taps, 0, size - 1)), weights)
    return matrix


def _rounded(where: np.ndarray, nearest_mode: str) -> np.ndarray:
    if nearest_mode == "floor":
        return np.floor(where)
    if nearest_mode == "ceil":
        return np.ceil(where)
    # The two differ at halves alone.
    return np.ceil(where - 0.5) if nearest_mode == "round_prefer_floor" else np.floor(where + 0.5)


def _triangle(distance: np.ndarray) -> np.ndarray:
    return np.clip(1 - distance, 0, None)


def _cubic(distance: np.ndarray, a: float) -> np.ndarray:
    """Keys' cubic convolution kernel."""
    d = distance
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0))


def _outside(axes: Mapping[int, Axis], rank: int) -> np.ndarray | None:
    """Which outputs lie outside the input, broadcastable to the output; None where none does."""
    outside: np.ndarray | None = None
    for position, axis in axes.items():
        if not axis.inside.all():
            wide = ~axis.inside.reshape([-1 if i == position else 1 for i in range(rank)])
            outside = wide if outside is None else outside | wide
    return outside
