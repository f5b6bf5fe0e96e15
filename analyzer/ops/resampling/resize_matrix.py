"""The matrix of one resized axis: one row per output position, with the weights of the input positions it reads.

Sizes, scale and region are numbers, or values of the running model; `xp` is the arithmetic for the one or the other
(analyzer/ops/formulas.py). Source: the coordinate transformations and kernels that ONNX's Resize documents.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ResizedAxis:
    """One resized axis: the matrix (out, in), and which outputs lie within the input, None where all do."""

    matrix: Any
    inside: Any


def resized_axis(
    xp: Any, size: Any, out: Any, scale: Any, window: tuple[Any, Any] | None, attributes: Mapping[str, Any]
) -> ResizedAxis:
    """The axis that takes `size` elements to `out`. `window` is the region of tf_crop_and_resize."""
    # A nearest neighbour is a decision, taken on positions that are rounded as ONNX Runtime rounds them.
    rounded = xp.single if attributes["mode"] == "nearest" else _exact
    mode = attributes["coordinate_transformation_mode"]
    where = coordinates(xp, size, out, rounded(scale), mode, window, rounded)
    matrix = _weights(xp, size, where, scale, attributes)
    if window is None:
        return ResizedAxis(matrix, None)
    inside = xp.logical_and(where >= 0.0, where <= size - 1)
    return ResizedAxis(xp.where(xp.column(inside), matrix, 0.0), inside)


def coordinates(
    xp: Any,
    size: Any,
    out: Any,
    scale: Any,
    mode: str,
    window: tuple[Any, Any] | None,
    rounded: Callable[[Any], Any],
) -> Any:
    """Where in the input each output position lies. `rounded` is applied to every step of the arithmetic."""
    i = xp.arange(0, out)
    if mode == "asymmetric":
        return rounded(i / scale)
    if mode == "align_corners":
        return rounded(rounded(i * (size - 1)) / xp.maximum(out - 1, 1))
    if mode == "tf_half_pixel_for_nn":
        return rounded((i + 0.5) / scale)
    if window is not None:
        start, end = window
        middle = 0.5 * (start + end) * (size - 1)
        first, step = start * (size - 1), (end - start) * (size - 1) / xp.maximum(out - 1, 1)
        return rounded(xp.where(out > 1, first + i * step, middle))
    where = rounded(rounded((i + 0.5) / scale) - 0.5)
    if mode == "pytorch_half_pixel":
        return xp.where(out > 1, where, 0.0)
    if mode == "half_pixel_symmetric":
        # The output's size is rounded: keep both centres together.
        return rounded(where + size / 2 * (1 - out / (scale * size)))
    return where


def _exact(x: Any) -> Any:
    return x


def _weights(xp: Any, size: Any, where: Any, scale: Any, attributes: Mapping[str, Any]) -> Any:
    """The weights (out, in) of the input at each position."""
    mode = attributes["mode"]
    if mode == "nearest":
        nearest = _clipped(xp, _rounded(xp, where, attributes["nearest_mode"]), size)
        return xp.spread(xp.column(nearest), 1.0, size)
    # With antialias a shrinking axis has its kernel stretched over what one output stands for.
    stretch = xp.minimum(scale, 1.0) if attributes["antialias"] else 1.0
    radius = 1.0 if mode == "linear" else 2.0
    reach = xp.ceil(radius / stretch) if attributes["antialias"] else radius
    taps = xp.column(xp.floor(where)) + xp.arange(1 - reach, reach + 1)
    distance = xp.abs(xp.column(where) - taps) * stretch
    weights = (
        xp.maximum(1 - distance, 0.0)
        if mode == "linear"
        else _cubic(xp, distance, attributes["cubic_coeff_a"])
    )
    if attributes["exclude_outside"]:
        weights = xp.where(xp.logical_and(taps >= 0.0, taps <= size - 1), weights, 0.0)
    return xp.spread(_clipped(xp, taps, size), weights / xp.row_sums(weights), size)


def _clipped(xp: Any, positions: Any, size: Any) -> Any:
    return xp.minimum(xp.maximum(positions, 0.0), size - 1)


def _rounded(xp: Any, where: Any, nearest_mode: str) -> Any:
    if nearest_mode == "floor":
        return xp.floor(where)
    if nearest_mode == "ceil":
        return xp.ceil(where)
    # The two differ at halves alone.
    return xp.ceil(where - 0.5) if nearest_mode == "round_prefer_floor" else xp.floor(where + 0.5)


def _cubic(xp: Any, distance: Any, a: float) -> Any:
    """Keys' cubic convolution kernel."""
    d = distance
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return xp.where(d <= 1.0, near, xp.where(d < 2.0, far, 0.0))
