"""Pixels of a photograph to the values that a network reads: resize, crop or pad, scale and normalise, as nodes.

From uint8 (N, height, width, 3) of any size to floats (N, C, h, w) or (N, h, w, C), equal to those of `load_images`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import TensorProto

from analyzer.explainer.photograph.bands import double, vector, whole
from analyzer.explainer.photograph.filtering import filtered
from analyzer.explainer.photograph.geometry import Axis
from analyzer.figures.heat import LUMA
from analyzer.graph.builder import Builder
from analyzer.graph.graph import Tensor
from analyzer.images.preprocess import PADDING, per_channel
from converters.model import Preprocessing


def input_values(
    op: Builder, image: Tensor, axes: Sequence[Axis], preprocessing: Preprocessing, channels: int, dtype: int
) -> Tensor:
    """Emit the input of the network. axes: of the height and the width. dtype: of the input, an ONNX number."""
    resize = {"nearest": _nearest, "linear": _linear}.get(preprocessing.interpolation, filtered)
    pixels = resize(op, image, axes, preprocessing.interpolation)  # (N, h, 3, w), or (N, h, w, 3)
    channels_last = resize is not filtered
    if preprocessing.fit == "pad":
        pixels = _with_border(op, pixels, axes, channels_last)
    pixels = _normalised(op, pixels, preprocessing, channels, channels_last)
    layouts = (
        {"NCHW": [0, 3, 1, 2], "NHWC": None}
        if channels_last
        else {"NCHW": [0, 2, 1, 3], "NHWC": [0, 1, 3, 2]}
    )
    if (order := layouts[preprocessing.layout]) is not None:
        pixels = op.Transpose(pixels, perm=order)
    return pixels if dtype == TensorProto.FLOAT else op.Cast(pixels, to=dtype)


def _nearest(op: Builder, image: Tensor, axes: Sequence[Axis], _: str) -> Tensor:
    """The pixel in which the centre of each resized pixel lies. Returns (N, h, w, 3)."""
    for number, axis in enumerate(axes, 1):
        step = axis.step(op)
        # Pillow adds the step from pixel to pixel: on the border between two, its rounding decides.
        later = op.Expand(vector(op, step), vector(op, op.Sub(axis.resized, np.asarray(1))))
        centres = op.CumSum(op.Concat(vector(op, op.Mul(step, 0.5)), later, axis=0), np.asarray(0))
        image = op.Gather(image, whole(op, op.Gather(centres, axis.clipped(op))), axis=number)
    return op.Cast(image, to=TensorProto.FLOAT)


def _linear(op: Builder, image: Tensor, axes: Sequence[Axis], _: str) -> Tensor:
    """The mean of the two nearest pixels of each axis, by distance, as OpenCV does. Returns (N, h, w, 3)."""
    (above, below, down), (left, right, along) = (_neighbours(op, axis) for axis in axes)
    upper, lower = (
        [
            op.Cast(op.Gather(op.Gather(image, row, axis=1), column, axis=2), to=TensorProto.FLOAT)
            for column in (left, right)
        ]
        for row in (above, below)
    )
    down, along = op.Reshape(down, [-1, 1, 1]), op.Reshape(along, [-1, 1])
    first, last = (_between(op, high, low, down) for high, low in zip(upper, lower, strict=True))
    return op.Round(_between(op, first, last, along))


def _neighbours(op: Builder, axis: Axis) -> tuple[Tensor, Tensor, Tensor]:
    """The pixels before and after each element of the input, and the share of the latter."""
    own = op.Add(double(op, axis.clipped(op)), 0.5)
    place = op.Div(op.Mul(own, double(op, axis.length)), double(op, axis.resized))
    last = op.Sub(axis.length, np.asarray(1))
    place = op.Max(op.Min(op.Sub(place, 0.5), double(op, last)), 0.0)
    before = op.Floor(place)
    share = op.Cast(op.Sub(place, before), to=TensorProto.FLOAT)
    before = whole(op, before)
    return before, op.Min(op.Add(before, np.asarray(1)), last), share


def _between(op: Builder, first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    return op.Add(op.Mul(first, op.Sub(1.0, share)), op.Mul(second, share))


def _with_border(op: Builder, pixels: Tensor, axes: Sequence[Axis], channels_last: bool) -> Tensor:
    """Pixels with grey where the photograph does not reach."""
    shapes = ([-1, 1, 1], [-1, 1] if channels_last else [-1])
    inside = [
        op.Reshape(op.Equal(axis.index(op), axis.clipped(op)), shape)
        for axis, shape in zip(axes, shapes, strict=True)
    ]
    return op.Where(op.And(*inside), pixels, float(PADDING))


def _normalised(
    op: Builder, pixels: Tensor, preprocessing: Preprocessing, channels: int, channels_last: bool
) -> Tensor:
    """(pixels / 255 - mean) / std, in the steps of `preprocess`: one division less would round differently."""
    pixels = op.Div(pixels, 255.0)
    axis = 3 if channels_last else 2
    shape = (-1,) if channels_last else (-1, 1)
    if channels == 1:
        luma = np.asarray(LUMA, np.float32).reshape(shape)
        pixels = op.ReduceSum(op.Mul(pixels, luma), [axis], keepdims=1)
    mean, std = (per_channel(values, channels) for values in (preprocessing.mean, preprocessing.std))
    if mean.any():
        pixels = op.Sub(pixels, np.ascontiguousarray(mean).reshape(shape))
    if (std != 1).any():
        pixels = op.Div(pixels, np.ascontiguousarray(std).reshape(shape))
    return pixels
