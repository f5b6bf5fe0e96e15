"""Gaussian blur along the spatial axes of an array (N, …), and its exact derivative in σ.

Along one axis the blur is a matrix: row i holds the weights of all pixels in the blurred pixel i, from a sampled
Gaussian that sums to one. Its derivative in σ is again a matrix. What lies beyond the border repeats the edge, or is 0.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from analyzer.errors import AnalysisError

Border = Literal["edge", "zero"]
BORDERS = ("edge", "zero")

# A neighbour then weighs exp(−200): nothing, in float64.
_SHARP = 0.05
# Of σ; beyond it lies 1e-15 of the Gaussian.
_REACH = 8


def spatial_axes(x: np.ndarray, channel_axis: int) -> tuple[int, ...]:
    """All axes but those of samples and channels. Raises AnalysisError where there are none."""
    axes = tuple(axis for axis in range(1, x.ndim) if axis != channel_axis)
    if x.ndim < 3:
        raise AnalysisError(
            f"an input of shape {x.shape} has no spatial axes, which a blur or a mean of channels needs. Fix: give "
            "another baseline, such as 0.0, or an input with spatial axes"
        )
    return axes


def blurred(x: np.ndarray, sigma: float, channel_axis: int, border: Border = "edge") -> np.ndarray:
    """x (N, …) blurred with standard deviation `sigma`, in pixels, in double precision."""
    return blurred_with_slope(x, sigma, channel_axis, border)[0]


def blurred_with_slope(
    x: np.ndarray, sigma: float, channel_axis: int, border: Border = "edge"
) -> tuple[np.ndarray, np.ndarray]:
    """x (N, …) blurred with standard deviation `sigma`, and the derivative of that in `sigma`.

    Raises AnalysisError for a negative σ, another border, or an input without spatial axes.
    """
    if not 0 <= sigma < np.inf:
        raise AnalysisError(
            f"expected σ of the blur of at least 0, got {sigma}. Fix: give pixels, such as 8.0"
        )
    if border not in BORDERS:
        raise AnalysisError(f"unknown border {border!r}. Fix: choose from {', '.join(BORDERS)}")
    value = x.astype(np.float64)
    slope = np.zeros_like(value)
    for axis in spatial_axes(x, channel_axis):
        weights, change = _matrices(x.shape[axis], sigma, border)
        slope = _along(weights, slope, axis) + _along(change, value, axis)
        value = _along(weights, value, axis)
    return value, slope


def _along(matrix: np.ndarray, x: np.ndarray, axis: int) -> np.ndarray:
    moved: np.ndarray = np.moveaxis(np.tensordot(matrix, x, axes=(1, axis)), 0, axis)
    return moved


def _matrices(size: int, sigma: float, border: Border) -> tuple[np.ndarray, np.ndarray]:
    """The weights of the blur of an axis (size, size), and their derivative in σ."""
    if sigma < _SHARP:
        return np.eye(size), np.zeros((size, size))
    offsets = np.arange(-(radius := int(np.ceil(_REACH * sigma))), radius + 1)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    change = weights * offsets**2 / sigma**3
    total = weights.sum()
    # The quotient rule: the weights sum to one at every σ, so their changes sum to zero.
    change = (change - weights * change.sum() / total) / total
    weights = weights / total
    rows = np.arange(size)[:, None]
    columns = rows + offsets
    inside = (columns >= 0) & (columns < size)
    kept = inside if border == "zero" else np.ones_like(inside)
    places = (rows * size + np.clip(columns, 0, size - 1))[kept]

    def matrix(kernel: np.ndarray) -> np.ndarray:
        spread = np.broadcast_to(kernel, columns.shape)[kept]
        return np.bincount(places, spread, minlength=size * size).reshape(size, size)

    return matrix(weights), matrix(change)
