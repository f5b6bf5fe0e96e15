"""Baselines for path methods: the input that stands for "nothing there".

Black and white are pixel values 0 and 1 brought through the model's stored preprocessing, (p − mean) / std;
without one they are the numbers 0 and 1. Source: Sundararajan, Taly & Yan 2017, section 3; Sturmfels, Lundberg &
Lee 2020 on the choice of a baseline.
"""

from __future__ import annotations

import numpy as np

from analyzer.errors import AnalysisError, InputError, ShapeError
from converters.model import Preprocessing

NAMES = ("black", "white", "random", "blurred")

BaselineLike = float | str | np.ndarray


def make_baseline(
    baseline: BaselineLike,
    x: np.ndarray,
    preprocessing: Preprocessing | None,
    rng: np.random.Generator,
    channel_axis: int = 1,
    blur: float | None = None,
) -> np.ndarray:
    """The baseline of each sample, shaped and typed like x (N, *features).

    baseline: a number; "black", "white", "random" (uniform between them) or "blurred" (Gaussian, σ = `blur`
    pixels, default an eighth of the shorter side); or an array that broadcasts to x.
    Raises ShapeError where it does not broadcast, AnalysisError for an unknown name, InputError for NaN.
    """
    if isinstance(baseline, str):
        return _named(baseline, x, preprocessing, rng, channel_axis, blur).astype(x.dtype)
    array = np.asarray(baseline)
    if array.dtype.kind not in "fiu":
        raise InputError(f"a baseline is a number, an array or one of {', '.join(NAMES)}, not {array.dtype}")
    if not np.isfinite(array).all():
        raise InputError("the baseline holds NaN or infinity")
    try:
        return np.ascontiguousarray(np.broadcast_to(array, x.shape), x.dtype)
    except ValueError as error:
        raise ShapeError(
            f"a baseline of shape {array.shape} does not broadcast to the input {x.shape}"
        ) from error


def _named(
    name: str,
    x: np.ndarray,
    preprocessing: Preprocessing | None,
    rng: np.random.Generator,
    channel_axis: int,
    blur: float | None,
) -> np.ndarray:
    if name == "blurred":
        if x.ndim < 3:
            raise AnalysisError("a blurred baseline needs an input with spatial axes")
        return _blurred(x, channel_axis, blur)
    black, white = (_pixel(value, x, preprocessing, channel_axis) for value in (0.0, 1.0))
    if name == "black":
        return np.broadcast_to(black, x.shape)
    if name == "white":
        return np.broadcast_to(white, x.shape)
    if name == "random":
        noise: np.ndarray = black + rng.random(x.shape) * (white - black)
        return noise
    raise AnalysisError(f"unknown baseline {name!r}; there are {', '.join(NAMES)}, a number or an array")


def _pixel(value: float, x: np.ndarray, preprocessing: Preprocessing | None, channel_axis: int) -> np.ndarray:
    """A pixel value in the model's input units, broadcastable to x."""
    if preprocessing is None or x.ndim < 3:
        return np.full((1,) * x.ndim, value)
    shape = [1] * x.ndim
    shape[channel_axis] = -1
    pixel: np.ndarray = (value - np.asarray(preprocessing.mean)) / np.asarray(preprocessing.std)
    return pixel.reshape(shape)


def _blurred(x: np.ndarray, channel_axis: int, blur: float | None) -> np.ndarray:
    """Each spatial axis convolved with a Gaussian; borders repeat their edge."""
    spatial = [axis for axis in range(1, x.ndim) if axis != channel_axis]
    sigma = blur if blur is not None else min(x.shape[axis] for axis in spatial) / 8
    if not sigma > 0:
        raise AnalysisError(f"the blur is a σ in pixels above 0, not {sigma}")
    radius = max(1, int(np.ceil(3 * sigma)))
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    result = x.astype(np.float64)
    for axis in spatial:
        padding = [(radius, radius) if a == axis else (0, 0) for a in range(x.ndim)]
        padded = np.pad(result, padding, mode="edge")
        windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.size, axis=axis)
        result = windows @ kernel
    return result
