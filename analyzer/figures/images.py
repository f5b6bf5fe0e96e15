"""Photographs to model inputs and back: files, RGB arrays in [0, 1], and normalised batches.

Reads the raster formats of analyzer/figures/image_files.py. Refuses files without a pixel range (float images), and
images of too many pixels, in the file or after resizing.
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from analyzer.figures.image_files import MOST_PIXELS, as_float, read_pixels

if TYPE_CHECKING:
    from converters.model import Preprocessing

CHANNELS = (1, 3, 4)
# A larger image is cropped before it is resized, and Pillow may then round in another order between rows and columns.
_RESIZED_WHOLE = 2**24
# Half the width of the bicubic filter, in pixels of the smaller of the two images, and one for rounding.
_MARGIN = 3


def read_image(path: str | os.PathLike[str]) -> np.ndarray:
    """Read an image file as RGB: (H, W, 3) float32 in [0, 1], upright, on white where it is transparent.

    Returns the first image of a file of several. Raises ValueError with one line where the file is missing, no image,
    damaged, or has more than MOST_PIXELS pixels.
    """
    return as_float(read_pixels(path))


def preprocess(image: np.ndarray, preprocessing: Preprocessing, channels: int = 3) -> np.ndarray:
    """Make one sample of a model's input from a photograph (H, W, 3), float in [0, 1] or uint8.

    Returns float32 (C, h, w) or (h, w, C) by the layout. Where `resize` is not stated, the image is resized
    to just cover `size`. With `channels` 1 the photograph is made grey by Rec. 601 luma.
    Raises ValueError where the resized image would have more than MOST_PIXELS pixels.
    """
    pixels = as_float(_resized_and_cropped(image, preprocessing))
    if channels == 1:
        pixels = pixels @ np.asarray([[0.299], [0.587], [0.114]], np.float32)
    mean, std = (_per_channel(values, channels) for values in (preprocessing.mean, preprocessing.std))
    pixels = pixels - mean
    pixels /= std
    return np.ascontiguousarray(pixels.transpose(2, 0, 1) if preprocessing.layout == "NCHW" else pixels)


def _resized_and_cropped(image: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """The centre of the resized image, (h, w, 3); uint8 where it was resized."""
    given, size = image.shape[:2], preprocessing.size
    scale = _scale(given, preprocessing)
    whole = [max(round(length * scale), low) for length, low in zip(given, size, strict=True)]
    starts = [(length - wanted) // 2 for length, wanted in zip(whole, size, strict=True)]
    crop = [(start, start + wanted) for start, wanted in zip(starts, size, strict=True)]
    if tuple(whole) == given:
        (top, bottom), (left, right) = crop
        return image[top:bottom, left:right]
    parts = [(0, length) for length in whole]
    if math.prod(whole) > _RESIZED_WHOLE:
        # Pixels beyond the crop count as far as the filter reaches.
        reach = [math.ceil(_MARGIN * max(1.0, new / old)) for new, old in zip(whole, given, strict=True)]
        parts = [
            (max(start - more, 0), min(stop + more, length))
            for (start, stop), more, length in zip(crop, reach, whole, strict=True)
        ]
    height, width = (stop - start for start, stop in parts)
    if height * width > MOST_PIXELS:
        raise ValueError(
            f"expected at most {MOST_PIXELS} pixels after resizing, found {height} x {width}. "
            "Fix: give a smaller --size or --resize"
        )
    resized = _part_of_resized(image, whole, parts)
    (top, bottom), (left, right) = (
        (start - first, stop - first) for (start, stop), (first, _) in zip(crop, parts, strict=True)
    )
    return resized[top:bottom, left:right]


def _part_of_resized(image: np.ndarray, whole: list[int], parts: list[tuple[int, int]]) -> np.ndarray:
    """The rows and columns `parts` of an image resized to `whole`, as (h, w, 3) uint8."""
    from PIL import Image

    edges = [
        (start * old / new, stop * old / new)
        for (start, stop), old, new in zip(parts, image.shape, whole, strict=False)
    ]
    # Pillow keeps the edges of its box in single precision: they are near 0 in the cut image.
    cut = [(math.floor(low), math.ceil(high)) for low, high in edges]
    (top, bottom), (left, right) = cut
    image = image[top:bottom, left:right]
    if image.dtype != np.uint8:
        # In 8 bits, like the pipelines that networks are trained with: rounding moves probabilities by 1 %.
        image = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
    (low_y, high_y), (low_x, high_x) = (
        (low - first, high - first) for (low, high), (first, _) in zip(edges, cut, strict=True)
    )
    height, width = (stop - start for start, stop in parts)
    picture = Image.fromarray(np.ascontiguousarray(image))
    box = (low_x, low_y, high_x, high_y)
    return np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC, box=box))


def _scale(shape: tuple[int, ...], preprocessing: Preprocessing) -> float:
    if preprocessing.resize is not None:
        return preprocessing.resize / min(shape)
    return max(wanted / given for wanted, given in zip(preprocessing.size, shape, strict=True))


def _per_channel(values: tuple[float, ...], channels: int) -> np.ndarray:
    if channels == 1:
        return np.asarray([np.mean(values)], np.float32)
    if len(values) not in (1, channels):
        raise ValueError(
            f"{len(values)} values of mean or std for {channels} channels. Fix: give 1 or {channels} of each"
        )
    return np.broadcast_to(np.asarray(values, np.float32), (channels,))


def image_layout(shape: tuple[Any, ...]) -> str | None:
    """The layout of a batch of images, "NCHW" or "NHWC", or None where the shape is no image's."""
    if len(shape) != 4:
        return None
    if shape[1] in CHANNELS:
        return "NCHW"
    return "NHWC" if shape[3] in CHANNELS else None


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
        pixels = pixels * _per_channel(preprocessing.std, channels) + _per_channel(
            preprocessing.mean, channels
        )
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
