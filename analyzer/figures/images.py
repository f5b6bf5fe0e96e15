"""Batches of images back to photographs: RGB arrays in [0, 1], and planes of attributions.

Reads arrays (N, C, H, W) or (N, H, W, C) with the preprocessing that made them. Returns None for other arrays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from analyzer.images.files import read_image
from analyzer.images.preprocess import CHANNELS, image_layout, per_channel, preprocess

if TYPE_CHECKING:
    from converters.model import Preprocessing

__all__ = ["CHANNELS", "image_layout", "photographs", "preprocess", "read_image", "to_planes"]


def photographs(inputs: np.ndarray, preprocessing: Preprocessing | None = None) -> np.ndarray | None:
    """Undo a batch's normalisation: (N, H, W, 3) float32 in [0, 1] of (N, C, H, W) or (N, H, W, C).

    Without preprocessing the range is taken from the values: [0, 1], [0, 255], else each sample's own
    minimum and maximum. Returns None where the inputs are no images.
    """
    layout = preprocessing.layout if preprocessing and inputs.ndim == 4 else image_layout(inputs.shape)
    if layout is None:
        return None
    pixels = np.asarray(inputs, np.float32)
    pixels = pixels.transpose(0, 2, 3, 1) if layout == "NCHW" else pixels
    channels = pixels.shape[-1]
    if channels not in CHANNELS:
        return None
    if preprocessing is not None:
        pixels = pixels * per_channel(preprocessing.std, channels) + per_channel(preprocessing.mean, channels)
    else:
        pixels = _guessed_range(pixels)
    pixels = np.repeat(pixels, 3, axis=-1) if channels == 1 else pixels[..., :3]
    return np.clip(pixels, 0, 1)


def _guessed_range(pixels: np.ndarray) -> np.ndarray:
    low, high = float(pixels.min()), float(pixels.max())
    if low >= 0 and high <= 1:
        return pixels
    if low >= 0 and 1 < high <= 255:
        return pixels / 255
    lows, highs = (edge(pixels, axis=(1, 2, 3), keepdims=True) for edge in (np.min, np.max))
    stretched: np.ndarray = (pixels - lows) / np.maximum(highs - lows, np.finfo(np.float32).tiny)
    return stretched


def to_planes(attributions: np.ndarray, layout: str | None = None) -> np.ndarray | None:
    """Sum attributions over channels: (N, H, W) of (N, C, H, W) or (N, H, W, C); None where no image's."""
    if attributions.ndim == 3:
        return attributions
    layout = layout or image_layout(attributions.shape)
    if attributions.ndim != 4 or layout is None:
        return None
    planes: np.ndarray = attributions.sum(axis=1 if layout == "NCHW" else 3)
    return planes
